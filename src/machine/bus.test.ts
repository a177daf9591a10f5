import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { MmioBus, PortBus } from "./bus.js";
import type { AccessWidth, MmioDevice, PortDevice } from "./device.js";

const width = fc.constantFrom<AccessWidth>(1, 2, 4);

/** Records accesses; reads answer the port number repeated. */
function recorder(ports: readonly number[], maxWidth?: AccessWidth) {
  const log: string[] = [];
  const device: PortDevice = {
    name: "recorder",
    ports,
    ...(maxWidth === undefined ? {} : { maxWidth }),
    read: (port, w) => {
      log.push(`r${port}/${w}`);
      return 0xa0a0_a000 | port;
    },
    write: (port, w, value) => {
      log.push(`w${port}/${w}=${value.toString(16)}`);
    },
  };
  return { device, log };
}

describe("port bus", () => {
  it("floats to all ones where nobody answers, and loses writes", () => {
    const bus = new PortBus();
    assert.equal(bus.read(0x21, 1), 0xff);
    assert.equal(bus.read(0xcf8, 2), 0xffff);
    assert.equal(bus.read(0xcfc, 4), 0xffff_ffff);
    bus.write(0x21, 1, 0x55);
    assert.equal(bus.read(0x21, 1), 0xff);
    assert.deepEqual(bus.counters, { reads: 4, writes: 1, unhandledReads: 4, unhandledWrites: 1 });
  });

  it("cuts values to the width", () => {
    const bus = new PortBus();
    const { device, log } = recorder([0x10]);
    bus.attach(device);
    assert.equal(bus.read(0x10, 1), 0x10);
    assert.equal(bus.read(0x10, 4), 0xa0a0_a010);
    bus.write(0x10, 2, 0x1234_5678);
    assert.deepEqual(log, ["r16/1", "r16/4", "w16/2=5678"]);
  });

  it("splits wide accesses to an 8-bit device, up to ports of others and of nobody", () => {
    const bus = new PortBus();
    const narrow = recorder([0x20, 0x21], 1);
    bus.attach(narrow.device);
    assert.equal(bus.read(0x20, 4), 0xffff_2120);
    bus.write(0x20, 4, 0x4433_2211);
    assert.deepEqual(narrow.log, ["r32/1", "r33/1", "w32/1=11", "w33/1=22"]);
  });

  it("refuses two devices on one port: that is our bug", () => {
    const bus = new PortBus();
    bus.attach(recorder([1]).device);
    assert.throws(() => bus.attach(recorder([1]).device), /taken twice/);
  });

  it("takes any port, width and value", () => {
    const bus = new PortBus();
    bus.attach(recorder([0xffff], 1).device);
    fc.assert(
      fc.property(fc.integer(), width, fc.integer(), (port, w, value) => {
        bus.write(port, w, value);
        const got = bus.read(port, w);
        assert.ok(got >= 0 && got < 2 ** (8 * w));
      }),
    );
  });
});

describe("MMIO bus", () => {
  const memory = (base: number, size: number): MmioDevice & { bytes: Uint8Array } => {
    const bytes = new Uint8Array(size);
    return {
      name: `memory ${base.toString(16)}`,
      base,
      size,
      bytes,
      read: (offset, w) => {
        let value = 0;
        for (let i = 0; i < w; i++) value += (bytes[offset + i] ?? 0) * 2 ** (8 * i);
        return value;
      },
      write: (offset, w, value) => {
        for (let i = 0; i < w; i++) bytes[offset + i] = value >>> (8 * i);
      },
    };
  };

  it("finds devices by address, and nobody elsewhere", () => {
    const bus = new MmioBus();
    const a = memory(0xfec0_0000, 0x1000);
    const b = memory(0x10_0000_0000, 0x2000);
    bus.attach(a);
    bus.attach(b);
    assert.equal(bus.find(0xfec0_0fff), a);
    assert.equal(bus.find(0x10_0000_1000), b);
    assert.equal(bus.find(0xfec0_1000), undefined);
    assert.equal(bus.find(0), undefined);
    assert.equal(bus.read(0, 4), 0xffff_ffff);
    assert.throws(() => bus.attach(memory(0xfec0_0000, 0x1000)), /overlaps/);
  });

  it("does 8 bytes as two halves, low first", () => {
    const bus = new MmioBus();
    bus.attach(memory(0x1000, 0x1000));
    bus.write64(0x1ff0, 0x89ab_cdef, 0x0123_4567);
    assert.equal(bus.read64(0x1ff0), 0x89ab_cdef);
    assert.equal(bus.readHigh, 0x0123_4567);
  });

  it("behaves as bytes where an access runs over the end of a device", () => {
    const bus = new MmioBus();
    bus.attach(memory(0x1000, 0x1000));
    bus.write(0x1ffe, 4, 0x1234_5678);
    assert.equal(bus.read(0x1ffe, 4), 0xffff_5678);
  });

  it("takes any address", () => {
    const bus = new MmioBus();
    bus.attach(memory(0x1000, 0x1000));
    fc.assert(
      fc.property(fc.oneof(fc.nat(0x3000), fc.maxSafeNat()), width, fc.integer(), (gpa, w, value) => {
        bus.write(gpa, w, value);
        const got = bus.read(gpa, w);
        assert.ok(got >= 0 && got < 2 ** (8 * w));
        bus.read64(gpa);
      }),
    );
  });
});
