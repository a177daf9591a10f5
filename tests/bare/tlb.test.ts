/**
 * The TLBs: whatever a guest does with its tables, after the invalidation that the manual asks for every access is as the
 * model walks it (Intel SDM vol. 3, "Invalidation of TLBs and Paging-Structure Caches").
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { CpuFeature, TLB_ENTRIES, Vp } from "../../src/cpu/layout.js";
import { PagedMachine, SECOND_PT, TARGET, TEST_PD, TEST_PDPT, TEST_PT } from "./paged-machine.js";

const RUNS = Number(process.env.CASES ?? 300);
const REGION = 0x80_0000_0000n;
/** What is so far apart has one place in the TLB. */
const APART = TLB_ENTRIES * 4096;
/**
 * Under the page directory's entry 2: eight pages of 4 KiB, and eight that have their places in the TLB. Under entry 3: a page of 2 MiB,
 * of which eight pieces are used.
 */
const small = (i: number): bigint => REGION + 0x400000n + BigInt((i & 7) * 0x1000 + (i >> 3) * APART);
const entryOf = (i: number): bigint => BigInt((i < 8 ? TEST_PT : SECOND_PT) + (i & 7) * 8);
const piece = (i: number): bigint => REGION + 0x600000n + BigInt(i) * 0x11000n;
const RIGHTS = [0, 1, 3, 5, 7, 7, 7, 0x107, 0x103].map(BigInt);
const NX = 1n << 63n;

const page = fc.integer({ min: 0, max: 7 });
const either = fc.integer({ min: 0, max: 15 });
const rights = fc
  .tuple(fc.constantFrom(...RIGHTS), fc.integer({ min: 0, max: 3 }))
  .map(([r, n]) => (n === 0 ? r | NX : r));
const step = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      op: fc.constant("access" as const),
      large: fc.boolean(),
      page: either,
      kind: fc.constantFrom("read", "write", "fetch" as const),
      user: fc.boolean(),
      ac: fc.boolean(),
    }),
  },
  { weight: 4, arbitrary: fc.record({ op: fc.constant("pte" as const), page: either, rights, frame: page }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant("large" as const), rights, by: page, frame: page }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant("upper" as const), rights, which: page }) },
  {
    weight: 1,
    arbitrary: fc.record({ op: fc.constant("control" as const), bit: fc.constantFrom("wp", "smep", "smap") }),
  },
);

/** Forgets everything, global pages too: CR4.PGE changes. */
function toggleGlobal(m: PagedMachine): void {
  const cr4 = m.vp.register64(Vp.cr4);
  for (const value of [cr4 ^ 0x80n, cr4]) assert.equal(m.program(0x180, false, { a: value }).vector, 6);
}
function tables(m: PagedMachine): void {
  m.setRoot(REGION, BigInt(TEST_PDPT | 7));
  m.tables.write(BigInt(TEST_PDPT), 8, BigInt(TEST_PD | 7));
  m.tables.write(BigInt(TEST_PD) + 16n, 8, BigInt(TEST_PT | 7));
  m.tables.write(BigInt(TEST_PD) + 24n, 8, BigInt((TARGET + 0x200000) | 0x87));
  m.tables.write(BigInt(TEST_PD + (2 + (APART >> 21)) * 8), 8, BigInt(SECOND_PT | 7));
  for (let i = 0; i < 16; i++) m.tables.write(entryOf(i), 8, BigInt((TARGET + i * 0x1000) | 7));
  m.vp.setRegister(Vp.cr4, 0x6a0);
  m.vp.setRegister(Vp.cr0, 0x80010033);
  m.fresh();
}

test("random changes of tables and accesses agree with the model", () => {
  const m = new PagedMachine("4-level");
  fc.assert(
    fc.property(fc.array(step, { minLength: 10, maxLength: 60 }), (steps) => {
      tables(m);
      for (const s of steps) {
        if (s.op === "access") {
          const va = (s.large ? piece(s.page & 7) : small(s.page)) + 0x18n;
          assert.equal(m.compare(va, s.kind, s.user, s.ac), "", `${s.kind} of ${va.toString(16)}`);
        } else if (s.op === "pte") {
          m.tables.write(entryOf(s.page), 8, s.rights | BigInt(TARGET + 0x10000 + s.frame * 0x1000));
          assert.equal(m.program(0xc0, false, { b: small(s.page) + 0x123n }).vector, 6);
        } else if (s.op === "large") {
          m.tables.write(BigInt(TEST_PD) + 24n, 8, s.rights | 0x80n | BigInt(TARGET + ((s.frame & 1) << 21)));
          // any address in the page will do
          assert.equal(m.program(0xc0, false, { b: piece(s.by) }).vector, 6);
        } else if (s.op === "upper") {
          const [at, table] = (
            [
              [TEST_PDPT, TEST_PD],
              [TEST_PD + 16, TEST_PT],
            ] as const
          )[s.which & 1]!;
          m.tables.write(BigInt(at), 8, (s.rights & ~0x100n) | BigInt(table));
          toggleGlobal(m);
        } else {
          const { vp } = m;
          if (s.bit === "wp") assert.equal(m.program(0x100, false, { a: vp.register64(Vp.cr0) ^ 0x10000n }).vector, 6);
          else
            assert.equal(
              m.program(0x180, false, { a: vp.register64(Vp.cr4) ^ (s.bit === "smep" ? 0x100000n : 0x200000n) }).vector,
              6,
            );
        }
      }
    }),
    { numRuns: RUNS },
  );
});

test("loading CR3 forgets all but global pages; changing CR4.PGE forgets those too", () => {
  const m = new PagedMachine("4-level");
  tables(m);
  m.tables.write(BigInt(TEST_PT), 8, BigInt(TARGET | 0x107));
  const where = (i: number): number => {
    assert.equal(m.program(0, false, { b: small(i) }).vector, 6);
    return m.number("rax");
  };
  assert.deepEqual([where(0), where(1)], [TARGET, TARGET + 0x1000]);
  m.tables.write(BigInt(TEST_PT), 8, BigInt((TARGET + 0x8000) | 0x107));
  m.tables.write(BigInt(TEST_PT + 8), 8, BigInt((TARGET + 0x9000) | 7));
  assert.deepEqual([where(0), where(1)], [TARGET, TARGET + 0x1000], "what the TLB holds stays");
  m.program(0x140, false, { a: m.vp.register64(Vp.cr3) });
  assert.deepEqual([where(0), where(1)], [TARGET, TARGET + 0x9000]);
  toggleGlobal(m);
  assert.deepEqual([where(0), where(1)], [TARGET + 0x8000, TARGET + 0x9000]);
  // G means nothing without CR4.PGE
  m.program(0x180, false, { a: 0x620n });
  assert.equal(where(0), TARGET + 0x8000);
  m.tables.write(BigInt(TEST_PT), 8, BigInt(TARGET | 0x107));
  m.program(0x140, false, { a: m.vp.register64(Vp.cr3) });
  assert.equal(where(0), TARGET);
});

test("INVLPG forgets a global page, and a page of 2 MiB by any of its addresses", () => {
  const m = new PagedMachine("4-level");
  tables(m);
  const where = (va: bigint): number => {
    assert.equal(m.program(0, false, { b: va }).vector, 6);
    return m.number("rax");
  };
  m.tables.write(BigInt(TEST_PD) + 24n, 8, BigInt((TARGET + 0x200000) | 0x187));
  for (let i = 0; i < 8; i++) assert.equal(where(piece(i)), TARGET + 0x200000 + i * 0x11000);
  m.tables.write(BigInt(TEST_PD) + 24n, 8, BigInt(TARGET | 0x187));
  m.program(0xc0, false, { b: piece(0) + 0x1ffff0n });
  for (let i = 0; i < 8; i++) assert.equal(where(piece(i)), TARGET + i * 0x11000);
});

test("a store after a load from a clean page sets D; a store elsewhere does not; nor does one that faults", () => {
  const m = new PagedMachine("4-level");
  tables(m);
  const marks = (i: number): number => Number(m.tables.read(BigInt(TEST_PT + i * 8), 8) & 0x60n);
  m.program(0, false, { b: small(0) });
  assert.equal(marks(0), 0x20);
  m.program(0x40, false, { a: 0n, b: small(1) });
  assert.deepEqual([marks(0), marks(1)], [0x20, 0x60]);
  m.program(0x40, false, { a: 0n, b: small(0) });
  assert.deepEqual([marks(0), marks(1)], [0x60, 0x60]);
  m.program(0x1c0, false, { b: small(2) });
  assert.equal(marks(2), 0x60);
  m.tables.write(BigInt(TEST_PT + 24), 8, BigInt((TARGET + 0x3000) | 5));
  assert.deepEqual([m.program(0x1c0, false, { b: small(3) }).vector, marks(3)], [14, 0]);
  m.program(0, false, { b: small(3) });
  assert.deepEqual([m.program(0x40, false, { b: small(3) }).error, marks(3)], [3, 0x20]);
  // software cleans the page: the next store marks it again
  m.tables.write(BigInt(TEST_PT), 8, BigInt(TARGET | 7));
  m.program(0xc0, false, { b: small(0) });
  m.program(0x40, false, { a: 0n, b: small(0) });
  assert.equal(marks(0), 0x60);
});

test("two pages with one place in the TLB are walked for once each", () => {
  const m = new PagedMachine("4-level");
  for (const user of [false, true]) {
    tables(m);
    for (const i of [0, 8]) for (const offset of [0, 0x40, 0x1c0]) m.program(offset, user, { b: small(i) });
    const before = m.vp.stat("walks");
    for (const i of [0, 8, 0, 8])
      for (const [offset, a] of [
        [0, 0n],
        [0x40, BigInt(TARGET + i)],
        [0x1c0, 0n],
      ] as const)
        assert.equal(m.program(offset, user, { a, b: small(i) }).vector, 6);
    assert.deepEqual([m.ram.getUint32(TARGET, true), m.ram.getUint32(TARGET + 0x8000, true)], [TARGET + 1, TARGET + 9]);
    // each program's end is an exception, whose tables and stack lie elsewhere
    assert.equal(m.vp.stat("walks"), before);
    m.tables.write(entryOf(0), 8, BigInt((TARGET + 0x3000) | 7));
    m.tables.write(entryOf(8), 8, BigInt((TARGET + 0x4000) | 7));
    for (const by of [0, 8]) assert.equal(m.program(0xc0, false, { b: small(by) }).vector, 6);
    for (const i of [0, 8, 0, 8]) {
      m.program(0, user, { b: small(i) });
      assert.equal(m.number("rax"), TARGET + 0x3000 + (i << 9));
    }
  }
});

test("of two pages with one place in the TLB none outlives what ends it", () => {
  const m = new PagedMachine("4-level");
  const value = (va: bigint): number => {
    assert.equal(m.program(0, false, { b: va }).vector, 6);
    return m.number("rax");
  };
  // large pages, and INVLPG of another address in one
  tables(m);
  const other = piece(0) + BigInt(APART);
  m.tables.write(BigInt(TEST_PD) + BigInt((3 + (APART >> 21)) * 8), 8, BigInt(TARGET | 0x87));
  assert.deepEqual([value(piece(0)), value(other)], [TARGET + 0x200000, TARGET]);
  m.tables.write(BigInt(TEST_PD) + 24n, 8, BigInt(TARGET | 0x87));
  m.program(0xc0, false, { b: piece(3) });
  assert.equal(value(piece(0)), TARGET);
  // code that is decoded in a page: what is written there is looked at
  for (const user of [false, true]) {
    tables(m);
    // MOV EAX, n; UD2 in eight bytes
    const program = (n: number): bigint => 0x900b_0f00_0000_00b8n | (BigInt(n) << 8n);
    for (const n of [1, 2, 3]) {
      for (const beside of [0x100n, 0n]) m.program(0x40, user, { a: program(n), b: small(0) + beside });
      m.program(0x40, user, { a: 0n, b: small(8) });
      assert.equal(m.program(0x80, user, { b: small(0) }).vector, 6);
      assert.equal(m.number("rax"), n);
    }
  }
  // a user's page that the supervisor may touch while AC is set
  tables(m);
  m.program(0x180, false, { a: m.vp.register64(Vp.cr4) | 0x200000n });
  m.vp.view.setUint32(m.vp.base + Vp.features, CpuFeature.smap, true);
  const at = 0x41000;
  for (const touch of ["mov rdx, [X]", "mov [X], rdx"]) {
    const [first, second] = ["rsi", "rdi"].map((register) => touch.replace("X", register));
    m.load(`stac\n${first}\n${second}\n${first}\nclac\nnop\n${second}\nud2`, at);
    m.level(0);
    m.set({ rsi: small(1), rdi: small(9) });
    const { vector, rip } = m.run(at);
    // STAC, CLAC, NOP and what touches have 3, 3, 1 and 3 bytes
    assert.deepEqual([vector, rip], [14, at + 16]);
  }
});

test("what the supervisor may touch, the user may not: each has its own entries", () => {
  const m = new PagedMachine("4-level");
  tables(m);
  m.tables.write(BigInt(TEST_PT), 8, BigInt(TARGET | 3));
  for (const offset of [0, 0x40]) {
    assert.equal(m.program(offset, false, { b: small(0) }).vector, 6);
    const o = m.program(offset, true, { b: small(0) });
    assert.deepEqual([o.vector, o.error], [14, offset === 0 ? 5 : 7]);
    assert.equal(m.program(offset, false, { b: small(0) }).vector, 6);
  }
});

test("more pages than the TLB and its log hold", () => {
  const m = new PagedMachine("4-level");
  tables(m);
  for (let i = 0; i < 512; i++) m.tables.write(BigInt(TEST_PT + i * 8), 8, BigInt((TARGET + (i & 7) * 0x1000) | 7));
  // the same table under many entries of the directory: 200 * 512 addresses
  for (let d = 0; d < 512; d++) m.tables.write(BigInt(TEST_PD + d * 8), 8, BigInt(TEST_PT | 7));
  m.load("mov ecx, 102400\nmov rbx, r8\nl: mov rax, [rbx]\nadd rdx, rax\nadd rbx, 4096\ndec ecx\njnz l\nud2", 0x41000);
  m.level(0);
  m.set({ r8: REGION, rdx: 0 });
  assert.equal(m.run(0x41000).vector, 6);
  assert.equal(m.number("rdx"), 102400 * TARGET + (102400 / 8) * 28 * 0x1000);
  for (let i = 0; i < 512; i++) m.tables.write(BigInt(TEST_PT + i * 8), 8, BigInt((TARGET + 0x100000) | 7));
  m.program(0x140, false, { a: m.vp.register64(Vp.cr3) });
  m.level(0);
  m.set({ r8: REGION, rdx: 0 });
  assert.equal(m.run(0x41000).vector, 6);
  assert.equal(m.number("rdx"), 102400 * (TARGET + 0x100000));
});
