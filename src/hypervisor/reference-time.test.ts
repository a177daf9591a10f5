import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { nsOfReferenceTime, referenceTime, referenceTscPage, TSC_HZ } from "./reference-time.js";
import { HvMsr, ScriptedProcessor } from "./scripted-processor.js";

const MAX_NS = 2 ** 53 - 1;
const anyTime = fc.oneof(
  fc.integer({ min: 0, max: 1000 }),
  fc.maxSafeInteger().map((n) => Math.abs(n)),
  fc.integer({ min: 0, max: Math.floor(MAX_NS / 100) }).map((n) => n * 100),
  fc.constantFrom(0, 1, 99, 100, 101, MAX_NS, MAX_NS - 91, MAX_NS - 92),
);
/** What a guest does with the page (TLFS, "Reference TSC page"): time = ((tsc * scale) >> 64) + offset, at 128 bits. */
function readPage(page: Uint8Array, tsc: bigint): bigint {
  const view = new DataView(page.buffer, page.byteOffset);
  return ((tsc * view.getBigUint64(8, true)) >> 64n) + view.getBigInt64(16, true);
}
const words = (ticks: bigint): { low: number; high: number } => ({
  low: Number(BigInt.asUintN(32, ticks)),
  high: Number(BigInt.asUintN(32, ticks >> 32n)),
});

describe("reference time", () => {
  it("is to the tick what a reader of the TSC page gets at the same TSC, at any time", () => {
    const page = referenceTscPage({ low: 0, high: 0 });
    fc.assert(
      fc.property(anyTime, (ns) => {
        assert.equal(BigInt(referenceTime(ns)), readPage(page, BigInt(ns)));
      }),
      { numRuns: 5000 },
    );
  });
  it("in the register is the page's, also where the guest has moved its TSC by whole ticks", () => {
    for (const ticks of [0n, 100n, -100n, 123_456_789_000n, -5_000_000_000n]) {
      const p = new ScriptedProcessor({ tscOffset: words(ticks), nowNs: 6_000_000_000 });
      p.wr(HvMsr.REFERENCE_TSC, 0x5001);
      for (const ns of [6_000_000_000, 6_000_000_001, 6_000_000_099, 7_777_777_777]) {
        p.runTo(ns);
        const read = readPage(p.memory.ram.slice(0x5000, 0x6000), BigInt(ns) + ticks);
        assert.equal(p.rd(HvMsr.TIME_REF_COUNT), read, `${ticks} ${ns}`);
      }
    }
  });
  it("is at most one tick behind the page's where the guest has moved its TSC by anything", () => {
    fc.assert(
      fc.property(
        fc.bigInt({ min: -(2n ** 40n), max: 2n ** 52n }),
        fc.integer({ min: 0, max: 2 ** 31 }),
        (ticks, after) => {
          const ns = 2 ** 41 + after;
          const read = readPage(referenceTscPage(words(ticks)), BigInt(ns) + ticks);
          const difference = read - BigInt(referenceTime(ns));
          assert.ok(difference === 0n || difference === 1n, `${difference}`);
        },
      ),
      { numRuns: 2000 },
    );
  });
  it("has a page with a sequence that is neither 0 nor all ones, and floor(10^7 * 2^64 / hz)", () => {
    const view = new DataView(referenceTscPage({ low: 0, high: 0 }).buffer);
    assert.equal(view.byteLength, 4096);
    assert.ok(![0, 0xffffffff].includes(view.getUint32(0, true)));
    assert.equal(view.getBigUint64(8, true), (10_000_000n << 64n) / BigInt(TSC_HZ));
    assert.equal(view.getBigInt64(16, true), 0n);
  });
  it("has an exact inverse: the first ns at which a time is reached", () => {
    fc.assert(
      fc.property(fc.oneof(fc.nat(1000), fc.integer({ min: 0, max: Math.floor(MAX_NS / 100) - 1 })), (time) => {
        const ns = nsOfReferenceTime(time);
        assert.ok(referenceTime(ns) >= time);
        if (ns > 0) assert.ok(referenceTime(ns - 1) < time);
      }),
      { numRuns: 5000 },
    );
  });
  it("never runs backwards", () => {
    fc.assert(
      fc.property(anyTime, fc.nat(1000), (ns, more) => {
        assert.ok(referenceTime(Math.min(ns + more, MAX_NS)) >= referenceTime(ns));
      }),
    );
  });
});
