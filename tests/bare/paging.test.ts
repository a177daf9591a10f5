/** The page walker against the model of page-walker-model.ts: random tables, random accesses; fault codes, CR2, A and D exact. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Vp } from "../../src/cpu/layout.js";
import type { PagingState } from "./page-walker-model.js";
import { PagedMachine, TARGET, TEST_PD, TEST_PDPT, TEST_PT } from "./paged-machine.js";

const RUNS = Number(process.env.CASES ?? 1500);

/** True once in `n`. */
const rarely = (n: number): fc.Arbitrary<boolean> => fc.integer({ min: 1, max: n }).map((x) => x === n);
const mostly = (n: number): fc.Arbitrary<boolean> => rarely(n).map((x) => !x);
/** Flags of an entry, without PS and the address. */
const entryFlags = fc.record({
  present: mostly(12),
  writable: mostly(4),
  user: mostly(4),
  accessed: fc.boolean(),
  dirty: fc.boolean(),
  global: fc.boolean(),
  noExecute: rarely(5),
  ignored: rarely(8),
  beyond: rarely(25),
  ps: rarely(3),
  low: rarely(25),
});
type EntryFlags = typeof entryFlags extends fc.Arbitrary<infer T> ? T : never;
function entry(f: EntryFlags, address: number, ps: boolean, wide: boolean): bigint {
  let e = BigInt(address);
  const set = (on: boolean, n: number): void => {
    if (on) e |= 1n << BigInt(n);
  };
  set(f.present, 0);
  set(f.writable, 1);
  set(f.user, 2);
  set(f.accessed, 5);
  set(f.dirty, 6);
  set(ps, 7);
  set(f.global, 8);
  if (!wide) return e;
  set(f.noExecute, 63);
  set(f.ignored, 55);
  set(f.beyond, 43);
  return e;
}
const access = fc.record({
  kind: fc.constantFrom("read", "write", "fetch" as const),
  user: fc.boolean(),
  ac: fc.boolean(),
  wp: fc.boolean(),
  smep: rarely(3),
  smap: rarely(3),
  nxe: mostly(4),
  pge: fc.boolean(),
  pse: mostly(4),
});

function control(m: PagedMachine, a: typeof access extends fc.Arbitrary<infer T> ? T : never): void {
  const { vp, mode } = m;
  vp.setRegister(Vp.cr0, 0x80000033 + (a.wp ? 0x10000 : 0));
  vp.setRegister(
    Vp.cr4,
    0x600 |
      (mode === "32-bit" ? (a.pse ? 0x10 : 0) : 0x20) |
      (a.pge ? 0x80 : 0) |
      (a.smep ? 0x100000 : 0) |
      (a.smap ? 0x200000 : 0),
  );
  vp.setRegister(Vp.efer, (mode === "4-level" ? 0x501 : 0) | (a.nxe ? 0x800 : 0));
  m.fresh();
}
function property(mode: PagingState["mode"], m: PagedMachine): void {
  const wide = mode !== "32-bit";
  const root = mode === "4-level" ? { min: 1, max: 511 } : mode === "pae" ? { min: 1, max: 3 } : { min: 1, max: 1023 };
  fc.assert(
    fc.property(
      fc.record({
        root: fc.integer(root),
        third: fc.integer({ min: 0, max: 511 }),
        last: fc.integer({ min: 0, max: 511 }),
        frame: fc.integer({ min: 0, max: 1023 }),
        big: fc.integer({ min: 0, max: 1 }),
        offset: fc.integer({ min: 0, max: 511 }),
        far: rarely(8),
        flags: fc.array(entryFlags, { minLength: 4, maxLength: 4 }),
        a: access,
        again: access,
      }),
      (c) => {
        const [f4, f3, f2, f1] = c.flags as [EntryFlags, EntryFlags, EntryFlags, EntryFlags];
        const page = TARGET + c.frame * 4096;
        // the address's low bits are those of the page's frame, so that large pages reach RAM
        let va = BigInt((page + c.offset * 8) & 0x3fffff) | 0x400000n;
        if (mode === "32-bit") va = (va & 0x3fffffn) | (BigInt(c.root) << 22n);
        else if (mode === "pae") va |= BigInt(c.root) << 30n;
        else {
          va |= (BigInt(c.third) << 30n) | (BigInt(c.root) << 39n);
          va = BigInt.asUintN(64, BigInt.asIntN(48, va));
        }
        const outside = c.far ? 2 ** 36 : 0;
        if (wide) {
          m.tables.write(
            BigInt(TEST_PDPT) + ((va >> 30n) & 511n) * 8n,
            8,
            entry(f3, f3.ps ? outside + (f3.low ? 0x2000 : 0) : TEST_PD, f3.ps, true),
          );
          m.tables.write(
            BigInt(TEST_PD) + ((va >> 21n) & 511n) * 8n,
            8,
            entry(f2, f2.ps ? outside + TARGET + (c.big << 21) + (f2.low ? 0x4000 : 0) : TEST_PT, f2.ps, true),
          );
          m.tables.write(BigInt(TEST_PT) + ((va >> 12n) & 511n) * 8n, 8, entry(f1, outside + page, f1.ps, true));
          // a pointer of PAE has neither rights nor marks
          m.setRoot(va, mode === "pae" ? BigInt(TEST_PD | (f4.present ? 1 : 0)) : entry(f4, TEST_PDPT, f4.low, true));
        } else {
          // 4 MiB at 4 MiB, perhaps beyond 4 GiB (bits 13 to 20), perhaps with the reserved bit 21
          const large = f2.ps && c.a.pse;
          m.setRoot(
            va,
            entry(f2, large ? TARGET + (c.far ? 0x2000 : 0) + (f2.low ? 0x200000 : 0) : TEST_PT, f2.ps, false),
          );
          m.tables.write(BigInt(TEST_PT) + ((va >> 12n) & 1023n) * 4n, 4, entry(f1, page, f1.ps, false));
        }
        control(m, c.a);
        let difference = m.compare(va, c.a.kind as "read", c.a.user, c.a.ac);
        // once more, by what the TLB has learnt; privilege, kind and AC differ
        if (difference === "") difference = m.compare(va, c.again.kind as "read", c.again.user, c.again.ac);
        m.setRoot(va, 0n);
        m.ram.setBigUint64(TEST_PDPT + Number((va >> 30n) & 511n) * 8, 0n, true);
        m.ram.setBigUint64(TEST_PD + Number((va >> 21n) & 511n) * 8, 0n, true);
        if (wide) m.ram.setBigUint64(TEST_PT + Number((va >> 12n) & 511n) * 8, 0n, true);
        else m.ram.setUint32(TEST_PT + Number((va >> 12n) & 1023n) * 4, 0, true);
        assert.equal(difference, "", `${c.a.kind} of ${va.toString(16)}`);
      },
    ),
    { numRuns: RUNS },
  );
}
for (const mode of ["4-level", "pae", "32-bit"] as const)
  test(`${mode} paging: walks do what the model does`, () => property(mode, new PagedMachine(mode)));

test("a non-canonical address is #GP(0), through RSP or RBP #SS(0)", () => {
  const m = new PagedMachine("4-level");
  for (const [code, vector] of [
    ["mov rax, [rbx]", 13],
    ["mov [rbx], rax", 13],
    ["add [rbx], rax", 13],
    ["mov rax, [rbp]", 12],
    ["push qword [rbx]", 13],
    ["mov rax, [rbp + rcx]", 12],
    ["mov rax, [rcx + rbp]", 13],
  ] as const) {
    m.load(code, 0x41000);
    m.level(0);
    m.set({ rbx: 0x8000_0000_0000n, rbp: 0x8000_0000_0000n, rcx: 0 });
    const o = m.run(0x41000);
    assert.deepEqual([o.vector, o.error, o.rip], [vector, 0, 0x41000], code);
  }
  m.load("mov rsp, rbx\npush rax", 0x41000);
  m.gate(12, { ist: 1 });
  m.level(0);
  m.set({ rbx: 0x8000_0000_0008n + 0x1000n });
  assert.deepEqual([m.run(0x41000).vector], [12]);
});

test("an access across two pages: the fault names the page that is missing, and nothing is written", () => {
  const m = new PagedMachine("4-level");
  const va = 0x80_0000_0000n;
  m.setRoot(va, BigInt(TEST_PDPT | 0x27));
  m.tables.write(BigInt(TEST_PDPT), 8, BigInt(TEST_PD | 0x27));
  m.tables.write(BigInt(TEST_PD), 8, BigInt(TEST_PT | 0x27));
  const first = BigInt(TARGET | 7);
  m.tables.write(BigInt(TEST_PT), 8, first);
  const before = m.read64(TARGET + 0xff8);
  for (const [offset, error] of [
    [0, 0],
    [0x40, 2],
    [0x1c0, 2],
  ] as const) {
    const o = m.program(offset, false, { b: va + (offset === 0x1c0 ? 0x1000n : 0xffcn) });
    assert.deepEqual([o.vector, o.error], [14, error]);
    assert.equal(m.vp.register64(Vp.cr2), va + 0x1000n);
    assert.equal(m.read64(TARGET + 0xff8), before);
  }
  // both there: the halves are at their places
  m.tables.write(BigInt(TEST_PT) + 8n, 8, BigInt((TARGET + 0x5000) | 7));
  assert.equal(m.program(0x40, false, { a: 0x1122334455667788n, b: va + 0xffcn }).vector, 6);
  assert.equal(m.ram.getUint32(TARGET + 0xffc, true), 0x55667788);
  assert.equal(m.ram.getUint32(TARGET + 0x5000, true), 0x11223344);
});
