import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { E820Type, HIGH_MMIO_WINDOW, IO_APIC_BASE, LOCAL_APIC_BASE, LOW_MMIO_WINDOW, memoryMap } from "./memory-map.js";

describe("memory map", () => {
  it("describes every byte of RAM once, ascending, below the device windows", () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 3072 }), (mib) => {
        const { e820, ramBytes } = memoryMap(mib * 0x10_0000);
        let at = 0;
        for (const entry of e820) {
          assert.equal(entry.base, at);
          at += entry.lengthBytes;
        }
        assert.equal(at, ramBytes);
        assert.ok(at <= LOW_MMIO_WINDOW.base);
        const reserved = e820.filter((e) => e.type !== E820Type.Ram);
        assert.deepEqual(reserved, [{ base: 0xe_0000, lengthBytes: 0x2_0000, type: E820Type.Reserved }]);
      }),
    );
  });

  it("keeps the windows clear of the APICs and of each other", () => {
    const lowEnd = LOW_MMIO_WINDOW.base + LOW_MMIO_WINDOW.lengthBytes;
    assert.ok(lowEnd <= IO_APIC_BASE && IO_APIC_BASE < LOCAL_APIC_BASE);
    assert.ok(HIGH_MMIO_WINDOW.base >= 2 ** 32);
  });

  it("refuses sizes that it cannot lay out", () => {
    for (const bytes of [0, 0x10_0000, 0x20_0001, 0xc000_1000, Number.NaN])
      assert.throws(() => memoryMap(bytes), RangeError);
  });
});
