/** A C program of some thousand lines, the same for the same seed: integer, float, x87, tables, strings; no undefined behaviour. */

/** Marsaglia's xorshift, 32 bits. @returns whole numbers below the argument */
export function generator(seed: number): (below: number) => number {
  let x = seed >>> 0 || 1;
  return (below) => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % below;
  };
}

const HEAD = `#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
struct record { uint64_t key; uint32_t count; double weight; int16_t small[6]; char name[24]; };
struct state { uint64_t a; uint32_t b; double x; float y; long double w; uint16_t t[16]; struct record r; };
static uint64_t bits(double d) { uint64_t u; memcpy(&u, &d, sizeof u); return u; }
static void bound(struct state *s) {
  if (!(fabs(s->x) < 1e12)) s->x = (double)(s->b & 4095) - 2048.5;
  if (!(fabsf(s->y) < 1e12f)) s->y = (float)(s->b & 255);
  if (!(fabsl(s->w) < 1e12L)) s->w = (long double)(s->a & 65535) / 7.0L;
}
`;

const hex = (random: (n: number) => number): string =>
  `0x${random(2 ** 31).toString(16)}${random(2 ** 31)
    .toString(16)
    .padStart(8, "0")}ull`;

function statement(random: (n: number) => number): string[] {
  const n = 1 + random(62);
  const k = 3 + 2 * random(5000);
  const fraction = `${random(3)}.${1 + random(999)}`;
  switch (random(18)) {
    case 0:
      return [`s->a = s->a * ${k}u + (s->b ^ ${hex(random)});`];
    case 1:
      return [`s->a = (s->a << ${n}) | (s->a >> ${64 - n});`];
    case 2:
      return [`s->b += (uint32_t)(s->a / (s->b | 1u));`, `s->a ^= s->a % (s->b | ${k}u);`];
    case 3:
      return [`s->x = s->x * ${fraction} + (double)(int32_t)s->b;`];
    case 4:
      return [`s->y = s->y * ${fraction}f - (float)(s->a >> 40);`];
    case 5:
      return [`s->w = s->w * ${fraction}L + (long double)(int64_t)(s->a >> 20) / ${k}.0L;`];
    case 6:
      return [`s->a += (uint64_t)(int64_t)s->x;`, `s->b ^= (uint32_t)(int64_t)(s->y / 1024.0f);`];
    case 7:
      return [
        `for (int i = 0; i < ${4 + random(28)}; i++) {`,
        `  s->t[i & 15] += (uint16_t)(s->a >> (i & 31));`,
        `  s->a += s->t[(i * ${k}) & 15];`,
        `}`,
      ];
    case 8:
      return [
        `switch (s->b % 5u) {`,
        `  case 0: s->a += ${k}; break;`,
        `  case 1: s->b = ~s->b; /* fall through */`,
        `  case 2: s->x -= ${fraction}; break;`,
        `  case 3: s->t[${random(16)}] ^= (uint16_t)s->a; break;`,
        `  default: s->a -= s->b; break;`,
        `}`,
      ];
    case 9:
      return [
        `snprintf(s->r.name, sizeof s->r.name, "%llx:%.6g", (unsigned long long)(s->a >> 32), s->x);`,
        `for (const char *p = s->r.name; *p; p++) s->a = s->a * 31 + (uint8_t)*p;`,
      ];
    case 10:
      return [`s->x = sqrt(fabs(s->x)) * ${fraction} - s->y;`, `s->w = sqrtl(fabsl(s->w)) + s->x;`];
    case 11:
      return [`s->x = sin(s->x) * ${k} + exp(cos(s->y));`, `s->y = (float)log(fabs(s->x) + 1.5);`];
    case 12:
      return [
        `struct record copy = s->r;`,
        `copy.key += s->a; copy.weight += s->x; copy.small[${random(6)}] += (int16_t)s->b;`,
        `s->r = copy;`,
        `s->b += s->r.small[${random(6)}];`,
      ].map((line, i) => (i === 0 ? `{ ${line}` : i === 3 ? `${line} }` : line));
    case 13:
      return [`s->b = (uint32_t)__builtin_popcountll(s->a) + (uint32_t)__builtin_clzll(s->a | 1) * ${k}u;`];
    case 14:
      return [`if ((int64_t)s->a < (int32_t)s->b) s->a ^= ${hex(random)}; else s->b += (uint32_t)(s->a >> ${n});`];
    case 15:
      return [`s->a = (uint64_t)(((unsigned __int128)s->a * ${hex(random)}) >> ${n});`];
    case 16:
      return [`s->b = (uint32_t)((int32_t)s->b / ${k}) - (uint32_t)((int32_t)s->b % ${k});`];
    default:
      return [`s->a ^= bits(s->x < s->y ? s->x : s->y);`, `memmove(s->t + 1, s->t, 14 * sizeof s->t[0]);`];
  }
}

/** @param lines at least so many */
export function generatedProgram(seed: number, lines: number): string {
  const random = generator(seed);
  const out: string[] = HEAD.trimEnd().split("\n");
  let functions = 0;
  while (out.length < lines - 20) {
    out.push(`static void f${functions}(struct state *s) {`);
    for (let n = 6 + random(10); n > 0; n--) out.push(...statement(random).map((line) => `  ${line}`));
    // what came before, sometimes: a tree of calls, some of which a compiler inlines
    if (functions > 3 && random(3) === 0) out.push(`  if (s->a & ${1 + random(7)}) f${functions - 1 - random(3)}(s);`);
    out.push("  bound(s);", "}");
    functions++;
  }
  out.push(
    `static void (*const all[])(struct state *) = { ${Array.from({ length: functions }, (_, i) => `f${i}`).join(", ")} };`,
    "int main(void) {",
    '  struct state s = { .a = 1, .b = 2, .x = 3.5, .y = 4.25f, .w = 5.125L, .r = { .name = "start" } };',
    `  for (int round = 0; round < 20; round++)`,
    `    for (int i = 0; i < ${functions}; i++) {`,
    "      all[i](&s);",
    "      if (round == 0 || i % 8 == 0)",
    '        printf("%d %d %016llx %08x %a %a %La %u\\n", round, i, (unsigned long long)s.a, s.b, s.x, (double)s.y, s.w, s.t[i & 15]);',
    "    }",
    "  return 0;",
    "}",
  );
  return `${out.join("\n")}\n`;
}

/** SQL that makes a database with indices, and changes it at random. */
export function generatedSql(seed: number, rows: number, updates: number): string {
  const random = generator(seed);
  const word = (): string =>
    Array.from({ length: 3 + random(12) }, () => String.fromCharCode(97 + random(26))).join("");
  const out = [
    "PRAGMA page_size = 4096;",
    "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT NOT NULL, price REAL, amount INTEGER, data BLOB);",
    "CREATE TABLE sale (item INTEGER REFERENCES item(id), day TEXT, number INTEGER);",
    "BEGIN;",
  ];
  for (let i = 1; i <= rows; i++)
    out.push(
      `INSERT INTO item VALUES (${i}, '${word()} ${word()}', ${random(1e6)} / 97.0, ${random(2 ** 31) - 2 ** 30}, x'${random(
        2 ** 31,
      )
        .toString(16)
        .padStart(8, "0")}');`,
    );
  out.push(
    "COMMIT;",
    "CREATE INDEX item_name ON item(name);",
    "CREATE INDEX item_price ON item(price, amount);",
    "CREATE UNIQUE INDEX item_both ON item(amount, id);",
    "BEGIN;",
  );
  for (let i = 0; i < updates; i++) {
    const id = 1 + random(rows);
    switch (random(6)) {
      case 0:
        out.push(`DELETE FROM item WHERE id = ${id};`);
        break;
      case 1:
        out.push(`UPDATE item SET name = upper(name) || '${word()}' WHERE id = ${id};`);
        break;
      case 2:
        out.push(`UPDATE item SET price = price * 1.${random(1000)} + 0.1, amount = amount / 3 WHERE id = ${id};`);
        break;
      case 3:
        out.push(
          `INSERT INTO sale SELECT id, date(amount % 100000, 'unixepoch'), ${random(100)} FROM item WHERE id = ${id};`,
        );
        break;
      case 4:
        out.push(
          `INSERT OR REPLACE INTO item VALUES (${id}, '${word()}', ${random(1000)}.${random(1000)}, ${i}, NULL);`,
        );
        break;
      default:
        out.push(`UPDATE item SET data = zeroblob(${random(200)}) WHERE id = ${id};`);
    }
    if (i % 1000 === 999) out.push("COMMIT;", "BEGIN;");
  }
  out.push("COMMIT;", "ANALYZE;");
  return `${out.join("\n")}\n`;
}
