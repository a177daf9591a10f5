import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { it } from "node:test";
import { disassemble } from "./disassemble.js";

/** Random bytes, seeded. */
function noise(length: number, seed: number): Uint8Array {
  const out = new Uint8Array(length);
  let x = seed;
  for (let i = 0; i < length; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) | 0;
    out[i] = x >>> 24;
  }
  return out;
}

it("finds the same lengths and mnemonics as the system's disassembler in compiled code", () => {
  const dir = mkdtempSync(join(tmpdir(), "enlighten-disassemble-"));
  try {
    const source = join(dir, "a.c");
    writeFileSync(
      source,
      "#include <string.h>\nunsigned long f(unsigned long *a, int n) { unsigned long s = 1; for (int i = 0; i < n; i++) { s = s * a[i] + (s >> 7); if (s % 10 == 3) s ^= a[n - i]; } return s; }\ndouble g(const double *p, int n) { double t = 0; for (int i = 0; i < n; i++) t += p[i] * p[i] / (t + 1); return t; }\nint h(const char *a, char *b) { memcpy(b, a, 40); return b[3] < 0 ? -b[5] : (b[9] << 4) | a[2]; }\n",
    );
    const object = join(dir, "a.o");
    execFileSync("gcc", ["-O2", "-c", "-o", object, source]);
    const listing = execFileSync("objdump", ["-d", "-w", "-M", "intel", "--no-addresses", object], {
      encoding: "utf8",
    });
    let checked = 0;
    for (const line of listing.split("\n")) {
      const match = /^\s+((?:[0-9a-f]{2} )+)\s+(\S+)/.exec(line);
      if (match === null) continue;
      const bytes = Uint8Array.from(match[1]!.trim().split(" "), (b) => Number.parseInt(b, 16));
      const { text, length } = disassemble(bytes, 64, 0n);
      assert.equal(length, bytes.length, `${line} is ${text}`);
      const theirs = match[2]!.replace(/^(cs|data16|rep|notrack)$/, "nop");
      const same: Readonly<Record<string, string>> = {
        movabs: "mov",
        je: "jz",
        jne: "jnz",
        jae: "jae",
        sete: "setz",
        setne: "setnz",
        cmove: "cmovz",
        cmovne: "cmovnz",
        cdqe: "cbw",
        cwde: "cbw",
        cqo: "cwd",
        cdq: "cwd",
        endbr64: "nop",
        movsxd: "movsxd",
        ja: "ja",
      };
      assert.equal(text.replace(/^(lock|rep) /, "").split(" ")[0], same[theirs] ?? theirs, line);
      checked++;
    }
    assert.ok(checked > 60, `${checked} instructions`);
  } finally {
    rmSync(dir, { recursive: true });
  }
});

it("takes any bytes", () => {
  const bytes = noise(20_000, 7);
  for (const code of [16, 32, 64] as const)
    for (let at = 0; at < bytes.length - 16; at++) {
      const { length } = disassemble(bytes.subarray(at, at + 15), code, 0n);
      assert.ok(length >= 1 && length <= 15);
    }
});
