/** String instructions: overlapping copies byte by byte, both directions, wrap of 16- and 32-bit indices, exact restart at a page fault. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { SegIndex, Vp } from "../../src/cpu/layout.js";
import { CODE, Selector, SystemMachine } from "./system-machine.js";

const AREA = 0x100000;
const LENGTH = 0x8000;
const pte = (page: number): number => 0x10000 + (page >> 12) * 8;
const RUNS = Number(process.env.CASES ?? 400);
const FILL = Uint8Array.from({ length: LENGTH }, (_, i) => (i * 37 + (i >> 8) * 11) & 255);

const size = fc.constantFrom(1, 2, 4, 8);
const suffix: Record<number, string> = { 1: "b", 2: "w", 4: "d", 8: "q" };

interface Expected {
  readonly memory: Uint8Array;
  si: number;
  di: number;
  count: number;
}
/** One repetition after the other, each byte by itself; stops before an element that touches a forbidden page. */
function model(
  op: "movs" | "stos",
  start: Expected,
  bytes: number,
  back: boolean,
  value: bigint,
  absent: number,
): { e: Expected; fault: number | undefined } {
  const e = { ...start };
  const step = back ? -bytes : bytes;
  const missing = (at: number): number | undefined =>
    at >> 12 === absent ? at : (at + bytes - 1) >> 12 === absent ? absent << 12 : undefined;
  while (e.count > 0) {
    const fault = (op === "movs" ? missing(e.si) : undefined) ?? missing(e.di);
    if (fault !== undefined) return { e, fault };
    const element =
      op === "movs"
        ? e.memory.slice(e.si, e.si + bytes)
        : Uint8Array.from({ length: bytes }, (_, i) => Number((value >> BigInt(i * 8)) & 255n));
    e.memory.set(element, e.di);
    if (op === "movs") e.si += step;
    e.di += step;
    e.count--;
  }
  return { e, fault: undefined };
}

test("REP MOVS and REP STOS against a byte model, with a page missing somewhere", () => {
  const m = new SystemMachine();
  m.gate(14, { ist: 1 });
  fc.assert(
    fc.property(
      fc.record({
        op: fc.constantFrom("movs" as const, "stos" as const),
        bytes: size,
        back: fc.boolean(),
        count: fc.integer({ min: 0, max: 700 }),
        from: fc.integer({ min: 0x2800, max: 0x5000 }),
        distance: fc.oneof(fc.integer({ min: -40, max: 40 }), fc.integer({ min: -0x1000, max: 0x1000 })),
        absent: fc.integer({ min: -4, max: 7 }),
        value: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
        code: fc.boolean(),
      }),
      (c) => {
        const { vp } = m;
        vp.ram.set(FILL, AREA);
        vp.runtime.ramWritten(AREA, LENGTH);
        for (let i = 0; i < 8; i++)
          m.ram.setUint32(pte(AREA + i * 4096), i === c.absent ? 0 : (AREA + i * 4096) | 0x67, true);
        vp.runtime.resetTlb();
        if (c.code && c.absent !== 3) {
          // a page with decoded code takes the slow way
          vp.ram[AREA + 0x3800] = 0xf4;
          vp.runtime.ramWritten(AREA + 0x3800, 1);
          m.level(0);
          m.run(AREA + 0x3800);
        }
        const before: Expected = {
          memory: vp.ram.slice(AREA, AREA + LENGTH),
          si: c.from,
          di: c.from + c.distance,
          count: c.count,
        };
        const { e, fault } = model(c.op, before, c.bytes, c.back, c.value, c.absent);
        m.load(`rep ${c.op}${suffix[c.bytes]}\nhlt`);
        m.level(0);
        vp.runtime.setRflags(c.back ? 0x402 : 2);
        m.set({ rax: c.value, rcx: c.count, rsi: AREA + c.from, rdi: AREA + c.from + c.distance });
        const o = m.run();
        assert.equal(o.vector, fault === undefined ? -1 : 14);
        if (fault !== undefined) assert.deepEqual([o.rip, vp.register64(Vp.cr2)], [CODE, BigInt(AREA + fault)]);
        assert.deepEqual([m.number("rcx"), m.number("rsi") - AREA, m.number("rdi") - AREA], [e.count, e.si, e.di]);
        assert.ok(Buffer.from(vp.ram.buffer, vp.ram.byteOffset + AREA, LENGTH).equals(e.memory));
      },
    ),
    { numRuns: RUNS },
  );
});

test("REPE and REPNE CMPS and SCAS: where they stop, and flags of the last comparison", () => {
  const m = new SystemMachine();
  fc.assert(
    fc.property(
      fc.record({
        scan: fc.boolean(),
        equal: fc.boolean(),
        bytes: size,
        back: fc.boolean(),
        count: fc.integer({ min: 0, max: 40 }),
        a: fc.array(fc.integer({ min: 0, max: 1 }), { minLength: 40, maxLength: 40 }),
        b: fc.array(fc.integer({ min: 0, max: 1 }), { minLength: 40, maxLength: 40 }),
      }),
      (c) => {
        const { vp } = m;
        const put = (at: number, v: number): void => {
          for (let i = 0; i < c.bytes; i++) vp.ram[at + i] = i === c.bytes - 1 ? v * 0x80 : 0;
        };
        const place = (origin: number, i: number): number => origin + (c.back ? -i : i) * c.bytes;
        c.a.forEach((v, i) => {
          put(place(AREA + 0xff8, i), v);
          put(place(AREA + 0x2ff8, i), c.b[i]!);
        });
        const top = 0x80n << BigInt((c.bytes - 1) * 8);
        let left = c.count;
        let steps = 0;
        let last: readonly [number, number] | undefined;
        while (left > 0) {
          last = [c.scan ? 1 : c.a[steps]!, c.b[steps]!];
          steps++;
          left--;
          if ((last[0] === last[1]) !== c.equal) break;
        }
        m.load(`${c.equal ? "repe" : "repne"} ${c.scan ? "scas" : "cmps"}${suffix[c.bytes]}\nhlt`);
        m.level(0);
        vp.runtime.setRflags(c.back ? 0xcd7 : 0x8d7);
        m.set({
          rax: top | (c.bytes === 8 ? 0n : 0xff000000_00000000n),
          rcx: c.count,
          rsi: AREA + 0xff8,
          rdi: AREA + 0x2ff8,
        });
        const o = m.run();
        const moved = steps === 0 ? 0 : (c.back ? -steps : steps) * c.bytes;
        assert.deepEqual(
          [m.number("rcx"), m.number("rdi") - AREA - 0x2ff8, m.number("rsi") - AREA - 0xff8],
          [left, moved, c.scan ? 0 : moved],
        );
        // 0x80.. - 0: SF; 0 - 0x80..: CF, SF and OF; equal: ZF and PF
        const flags = last === undefined ? 0x8d5 : last[0] === last[1] ? 0x44 : last[0] > last[1] ? 0x80 : 0x881;
        const counted = c.bytes === 1 ? 0x8d5 : 0x8d1; // PF is that of the low byte, which is 0
        assert.equal(o.rflags & counted, flags & counted);
      },
    ),
    { numRuns: RUNS },
  );
});

test("a page fault in REPE CMPS leaves the flags from before, and registers to go on with", () => {
  const m = new SystemMachine();
  m.ram.setUint32(pte(AREA + 0x1000), 0, true);
  m.vp.runtime.resetTlb();
  m.vp.ram.fill(5, AREA, AREA + 0x1000);
  m.load("repe cmpsb\nhlt");
  m.level(0);
  m.vp.runtime.setRflags(0x8d7);
  m.set({ rcx: 100, rsi: AREA, rdi: AREA + 0xff0 });
  const o = m.run();
  assert.deepEqual(
    [o.vector, o.error, o.rip, m.number("rcx"), m.number("rsi"), m.number("rdi"), o.rflags],
    [14, 0, CODE, 84, AREA + 16, AREA + 0x1000, 0x108d7],
  );
  assert.equal(m.vp.register64(Vp.cr2), BigInt(AREA + 0x1000));
  // mapped now: the rest is done
  m.ram.setUint32(pte(AREA + 0x1000), (AREA + 0x1000) | 0x67, true);
  m.vp.ram.fill(5, AREA + 0x1000, AREA + 0x2000);
  m.level(0);
  assert.deepEqual([m.run().vector, m.number("rcx"), m.number("rdi")], [-1, 0, AREA + 0xff0 + 100]);
});

test("long repetitions are done in pieces; a prefix on LODS; a count of zero does nothing", () => {
  const m = new SystemMachine();
  m.load(
    "mov ecx, 100000\nmov edi, 0x200000\nmov al, 0x5a\nrep stosb\nmov ecx, 30000\nmov esi, 0x200000\nmov edi, 0x230000\nrep movsd\nmov ecx, 5\nrep lodsb\nmov rbx, rsi\nmov ecx, 0\nrep movsb\nrepe cmpsb\nhlt",
  );
  m.level(0);
  assert.equal(m.run().vector, -1);
  assert.ok(m.vp.ram.subarray(0x200000, 0x200000 + 100000).every((b) => b === 0x5a));
  assert.deepEqual(
    [m.vp.ram[0x200000 + 100000], m.number("rdi"), m.number("rbx"), m.number("rsi")],
    [0, 0x230000 + 120000, 0x200000 + 120005, 0x200000 + 120005],
  );
});

test("indices of 16 and 32 bits wrap by themselves, and keep what is above them", () => {
  const m = new SystemMachine();
  m.load("a16 rep movsb\nhlt", CODE, 32);
  for (const [si, di, back] of [
    [0xfff8, 0x1234, false],
    [0x1234, 0xfff8, false],
    [4, 0x3000, true],
    [0x3000, 7, true],
  ] as const) {
    m.code32(0);
    for (const [s, base] of [
      [SegIndex.ds, 0x200008],
      [SegIndex.es, 0x220010],
    ] as const)
      m.vp.setSegment(s, { selector: Selector.data, attributes: 0xc093, limit: 0xffffffff, base });
    m.vp.runtime.updateMode();
    m.vp.runtime.setRflags(back ? 0x402 : 2);
    for (let i = 0; i < 0x10000; i++) m.vp.ram[0x200008 + i] = (i * 7) & 255;
    m.vp.ram.fill(0, 0x220000, 0x230020);
    m.set({ rcx: 0x5555_0014, rsi: 0x1111_0000 + si, rdi: 0x2222_0000 + di });
    assert.equal(m.run().vector, -1);
    const step = back ? -1 : 1;
    assert.deepEqual(
      [m.number("rcx"), m.number("rsi"), m.number("rdi")],
      [0x5555_0000, 0x1111_0000 + ((si + 20 * step) & 0xffff), 0x2222_0000 + ((di + 20 * step) & 0xffff)],
    );
    for (let i = 0; i < 20; i++)
      assert.equal(m.vp.ram[0x220010 + ((di + i * step) & 0xffff)], (((si + i * step) & 0xffff) * 7) & 255);
  }
  // 32-bit indices in 64-bit code: the upper halves go
  m.load("a32 rep stosb\nhlt");
  m.level(0);
  m.set({ rcx: 0x7_0000_0003n, rdi: 0x9_0010_0000n, rax: 0x77 });
  m.run();
  assert.deepEqual([m.number("rcx"), m.number("rdi"), m.vp.ram[AREA + 2]], [0, AREA + 3, 0x77]);
});
