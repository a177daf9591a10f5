/**
 * Process-context identifiers: what comes back with an address space is what the tables say, as long as the guest invalidates what it
 * changes as the manual asks for (Intel SDM vol. 3, "Process-Context Identifiers").
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { CpuFeature, type Stat, TLB_ENTRIES, Vp } from "../../src/cpu/layout.js";
import { PagedMachine, TARGET } from "./paged-machine.js";
import { CODE } from "./system-machine.js";

const RUNS = Number(process.env.CASES ?? 200);
const REGION = 0x80_0000_0000n;
/** The first two have one place in the TLB, and the others one. */
const PAGES = 4;
/** One page of each place. */
const PLACES = [0, 2];
/** More identifiers than the TLB keeps spaces for; so many sets of tables, which they share in turn. */
const IDS = 12;
const SPACES = 3;
const DESCRIPTOR = 0x30000;
const KEEP = 1n << 63n;
const APART = TLB_ENTRIES * 4096;
const at = (page: number): bigint => REGION + BigInt((page & 1) * APART + (page >> 1) * 0x1000);
const rootOf = (space: number): number => 0x120000 + space * 0x5000;
const entryOf = (space: number, page: number): bigint =>
  BigInt(rootOf(space) + 0x3000 + (page & 1) * 0x1000 + (page >> 1) * 8);
const cr3Of = (id: number): bigint => BigInt(rootOf(id % SPACES) | (id + 1));
const frame = (n: number): bigint => BigInt(TARGET + 0x10000 + n * 0x1000);

function machine(): PagedMachine {
  const m = new PagedMachine("4-level");
  m.load("invpcid rax, [rbx]\nud2", CODE + 0x200, 64);
  m.vp.view.setUint32(m.vp.base + Vp.features, CpuFeature.pcid, true);
  return m;
}
function begin(m: PagedMachine): void {
  for (let space = 0; space < SPACES; space++) {
    const root = rootOf(space);
    m.tables.write(BigInt(root), 8, m.tables.read(0x100000n, 8));
    for (let level = 0; level < 3; level++)
      m.tables.write(
        BigInt(root + level * 0x1000 + (level === 0 ? 8 : 0)),
        8,
        BigInt((root + (level + 1) * 0x1000) | 7),
      );
    m.tables.write(BigInt(root + 0x2000 + (APART >> 21) * 8), 8, BigInt((root + 0x4000) | 7));
    for (let page = 0; page < PAGES; page++) m.tables.write(entryOf(space, page), 8, frame(space * PAGES + page) | 7n);
  }
  // global, as a kernel's are: where the supervisor's code is local, a change of CR3 forgets all code
  for (let entry = 0x103000; entry < 0x104000; entry += 8)
    m.tables.write(BigInt(entry), 8, m.tables.read(BigInt(entry), 8) | 0x100n);
  m.vp.setRegister64(Vp.cr3, cr3Of(0));
  m.vp.setRegister(Vp.cr4, 0x206a0);
  m.fresh();
}
const load = (m: PagedMachine, value: bigint): void => assert.equal(m.program(0x140, false, { a: value }).vector, 6);
function invpcid(m: PagedMachine, type: number, id = -1, va = 0n): void {
  m.ram.setBigUint64(DESCRIPTOR, BigInt(id + 1), true);
  m.ram.setBigUint64(DESCRIPTOR + 8, va, true);
  assert.equal(m.program(0x200, false, { a: BigInt(type), b: BigInt(DESCRIPTOR) }).vector, 6);
}

const page = fc.integer({ min: 0, max: PAGES - 1 });
const id = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: 0, max: SPACES }) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: IDS - 1 }) },
);
const step = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      op: fc.constant("access" as const),
      page,
      // what is decoded anew ends what is kept
      kind: fc.oneof(
        { weight: 30, arbitrary: fc.constantFrom("read", "write" as const) },
        { weight: 1, arbitrary: fc.constant("fetch" as const) },
      ),
      user: fc.boolean(),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({ op: fc.constant("switch" as const), id, keeps: fc.constantFrom(true, true, true, false) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      op: fc.constant("change" as const),
      space: fc.integer({ min: 0, max: SPACES - 1 }),
      page,
      rights: fc.constantFrom(0n, 1n, 3n, 5n, 7n, 7n),
      to: fc.integer({ min: 0, max: 20 }),
      how: fc.constantFrom("address", "address", "identifier", "identifier", "all", "not global" as const),
    }),
  },
);

test("random switches, changes and invalidations agree with the model", () => {
  const m = machine();
  fc.assert(
    fc.property(fc.array(step, { minLength: 80, maxLength: 160 }), (steps) => {
      begin(m);
      for (const s of steps) {
        if (s.op === "access") assert.equal(m.compare(at(s.page) + 0x18n, s.kind, s.user, false), "");
        else if (s.op === "switch") load(m, cr3Of(s.id) | (s.keeps ? KEEP : 0n));
        else {
          m.tables.write(entryOf(s.space, s.page), 8, frame(s.to) | s.rights);
          if (s.how === "all") invpcid(m, 2);
          else if (s.how === "not global") invpcid(m, 3);
          else
            for (let n = s.space; n < IDS; n += SPACES)
              if (s.how === "identifier") invpcid(m, 1, n);
              else invpcid(m, 0, n, at(s.page));
        }
      }
    }),
    { numRuns: RUNS },
  );
});

test("what was known of an address space is known again when it comes back with bit 63, and not without it", () => {
  const m = machine();
  begin(m);
  const where = (n: number): number => {
    assert.equal(m.program(0, false, { b: at(n) }).vector, 6);
    return m.number("rax");
  };
  const misses = (): number => m.vp.stat("tlbMisses" satisfies keyof typeof Stat);
  for (const n of PLACES) assert.equal(where(n), Number(frame(n)));
  load(m, cr3Of(1) | KEEP);
  for (const n of PLACES) assert.equal(where(n), Number(frame(PAGES + n)));
  load(m, cr3Of(0) | KEEP);
  const before = misses();
  for (const n of PLACES) assert.equal(where(n), Number(frame(n)));
  assert.equal(misses(), before, "nothing is walked for");
  load(m, cr3Of(1));
  for (const n of PLACES) assert.equal(where(n), Number(frame(PAGES + n)));
  assert.ok(misses() >= before + PLACES.length);
  // code that is decoded from a page takes the ways to write to it from the spaces that are away, too
  assert.equal(m.program(0x40, true, { a: 0n, b: at(0) }).vector, 6);
  load(m, cr3Of(4) | KEEP);
  m.load("mov eax, 1\nud2", Number(frame(PAGES)) + 0x20, 64);
  m.vp.runtime.ramWritten(Number(frame(PAGES)) + 0x20, 16);
  assert.equal(m.program(0x80, true, { b: at(0) + 0x20n }).vector, 6);
  assert.equal(m.number("rax"), 1);
  load(m, cr3Of(1) | KEEP);
  // MOV EAX, 2: the immediate is written over
  assert.equal(m.program(0x40, true, { a: 0x0b0f_0000_0002n, b: at(0) + 0x21n }).vector, 6);
  assert.equal(m.program(0x80, true, { b: at(0) + 0x20n }).vector, 6);
  assert.equal(m.number("rax"), 2);
});

test("INVLPG finds code that came back with its address space", () => {
  const m = machine();
  begin(m);
  [1, 2].forEach((value, n) => {
    m.load(`mov eax, ${value}\nud2`, Number(frame(n)) + 0x20, 64);
    m.vp.runtime.ramWritten(Number(frame(n)) + 0x20, 16);
  });
  const run = (): number => {
    assert.equal(m.program(0x80, true, { b: at(0) + 0x20n }).vector, 6);
    return m.number("rax");
  };
  assert.equal(run(), 1);
  load(m, cr3Of(1) | KEEP);
  load(m, cr3Of(0) | KEEP);
  assert.equal(run(), 1);
  m.tables.write(entryOf(0, 0), 8, frame(1) | 7n);
  assert.equal(m.program(0xc0, false, { b: at(0) }).vector, 6);
  assert.equal(run(), 2);
});

test("INVPCID of identifier 0 is of the only address space while there are none, whatever CR3's other bits say", () => {
  const m = machine();
  begin(m);
  m.vp.setRegister(Vp.cr4, 0x6a0);
  m.vp.setRegister64(Vp.cr3, BigInt(rootOf(0)) | 0x18n);
  m.fresh();
  const where = (): number => {
    assert.equal(m.program(0, false, { b: at(0) }).vector, 6);
    return m.number("rax");
  };
  for (const type of [0, 1]) {
    m.tables.write(entryOf(0, 0), 8, frame(4 + type) | 7n);
    invpcid(m, type, -1, at(0));
    assert.equal(where(), Number(frame(4 + type)), `type ${type}`);
  }
});
