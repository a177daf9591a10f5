import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { HIGHEST_HV_LEAF, readHvLeaf } from "./cpuid.js";

const leaf = (n: number): number[] => {
  const out = new Uint32Array(4).fill(0xdead);
  readHvLeaf(n, 1_000_000_000, out);
  return [...out];
};
const bitsOf = (value: number): number[] => Array.from({ length: 32 }, (_, i) => i).filter((i) => (value >>> i) & 1);

describe("CPUID leaves of the hypervisor", () => {
  it("have Microsoft's signature and interface, and reach up to the timing leaf", () => {
    assert.deepEqual(leaf(0x40000000), [0x40000010, 0x7263694d, 0x666f736f, 0x76482074]);
    assert.deepEqual(leaf(0x40000001), [0x31237648, 0, 0, 0]);
    assert.equal(HIGHEST_HV_LEAF, 0x40000010);
  });
  it("name a plausible version: build 20348, 10.0", () => {
    assert.deepEqual(leaf(0x40000002), [20348, 0x000a0000, 0, 0]);
  });
  it("offer exactly the recommended privileges", () => {
    const [low, high, power, features] = leaf(0x40000003) as [number, number, number, number];
    assert.deepEqual(bitsOf(low), [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 15]);
    assert.equal(low, 0x8eff);
    // PostMessages, SignalEvents, ExtendedHypercalls: with 1, 12 or 22 Linux takes itself for a root or isolated partition
    assert.deepEqual(bitsOf(high), [4, 5, 20]);
    assert.equal(power, 0);
    // XMM input, frequency registers, crash registers, direct timers
    assert.deepEqual(bitsOf(features), [4, 8, 10, 19]);
  });
  it("recommend remote flush, APIC registers, relaxed timing, no auto-EOI, cluster IPI, extended masks", () => {
    const [recommended, spins, physicalBits, rest] = leaf(0x40000004) as [number, number, number, number];
    assert.deepEqual(bitsOf(recommended), [2, 3, 5, 9, 10, 11]);
    assert.equal(recommended, 0xe2c);
    assert.equal(spins, 0xfff);
    assert.ok(physicalBits >= 36 && physicalBits < 64);
    assert.equal(rest, 0);
  });
  it("give limits, and the frequencies in kHz for FreeBSD's early delay", () => {
    assert.deepEqual(leaf(0x40000005), [64, 64, 0, 0]);
    assert.deepEqual(leaf(0x40000010), [1_000_000, 1_000_000, 0, 0]);
  });
  it("are 0 where there is none: nested features, isolation, stack leaves, another hypervisor's place", () => {
    for (const n of [0x40000006, 0x40000007, 0x4000000a, 0x4000000c, 0x4000000f, 0x40000011, 0x40000080, 0x40000100])
      assert.deepEqual(leaf(n), [0, 0, 0, 0], n.toString(16));
  });
});
