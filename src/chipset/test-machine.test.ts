/** The devices of a machine for tests: what a whole-machine test asks of QEMU's, it finds here. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { AccessWidth } from "../machine/device.js";
import { FwCfg } from "./fw-cfg.js";
import { TestDevice } from "./test-device.js";

function item(device: FwCfg, key: number, bytes: number): number[] {
  device.write(0x510, 2, key);
  return Array.from({ length: bytes }, () => device.read(0x511, 1));
}

describe("firmware configuration", () => {
  it("tells signature, memory and processors, little-endian, and zeroes behind and elsewhere", () => {
    const device = new FwCfg({ ramBytes: 0x8000_0000, processors: 2 });
    assert.equal(String.fromCharCode(...item(device, 0, 4)), "QEMU");
    assert.deepEqual(item(device, 1, 4), [1, 0, 0, 0]);
    assert.deepEqual(item(device, 3, 9), [0, 0, 0, 0x80, 0, 0, 0, 0, 0]);
    assert.deepEqual(item(device, 5, 2), [2, 0]);
    assert.deepEqual(item(device, 15, 3), [2, 0, 0]);
    assert.deepEqual(item(device, 0x19, 2), [0, 0]);
  });
  it("goes on from a saved state in the middle of an item", () => {
    const device = new FwCfg({ ramBytes: 1, processors: 1 });
    item(device, 0, 2);
    const other = new FwCfg({ ramBytes: 1, processors: 1 });
    other.restore(structuredClone(device.save()));
    assert.equal(other.read(0x511, 1), "M".charCodeAt(0));
  });
});

describe("test device", () => {
  it("keeps what is written to its port, at any width and offset", () => {
    const device = new TestDevice(() => ({ set: () => {} }));
    device.write(0xe0, 4, 0x11223344);
    assert.equal(device.read(0xe0, 4), 0x11223344);
    device.write(0xe2, 1, 0xaa);
    assert.equal(device.read(0xe0, 4), 0x11aa3344);
    device.write(0xe2, 2, 0xbeef);
    assert.deepEqual([device.read(0xe0, 4), device.read(0xe2, 2), device.read(0xe1, 1)], [0xbeef3344, 0xbeef, 0x33]);
    // a flush changes nothing
    device.write(0xe4, 4, 0x1000);
    assert.equal(device.read(0xe0, 4), 0xbeef3344);
  });
  it("drives the inputs of the IO-APIC", () => {
    const seen: [number, boolean][] = [];
    const device = new TestDevice((gsi) => ({ set: (level) => void seen.push([gsi, level]) }));
    device.write(0x2000 + 14, 1, 1);
    device.write(0x2000 + 14, 1, 0);
    device.write(0x2000 + 23, 4, 1);
    assert.deepEqual(seen, [
      [14, true],
      [14, false],
      [23, true],
    ]);
  });
  it("has memory that is no RAM, and keeps it in a saved state", () => {
    const device = new TestDevice(() => ({ set: () => {} }));
    const { memory } = device;
    assert.deepEqual([memory.base, memory.size], [0xff000000, 0x10000]);
    memory.write(0xfffc, 4, 0xdeadbeef);
    const read = (width: AccessWidth, at: number): number => memory.read(at, width);
    assert.deepEqual([read(4, 0xfffc), read(2, 0xfffe), read(1, 0xfffd), read(4, 0)], [0xdeadbeef, 0xdead, 0xbe, 0]);
    const other = new TestDevice(() => ({ set: () => {} }));
    other.restore(structuredClone(device.save()));
    assert.equal(other.memory.read(0xfffc, 4), 0xdeadbeef);
  });
});
