import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import type { AccessWidth } from "../machine/device.js";
import type { InterruptRouter } from "../machine/interrupt-router.js";
import { IO_APIC_PINS, IoApic } from "./io-apic.js";

const LEVEL = 1 << 15;
const MASKED = 1 << 16;
const REMOTE_IRR = 1 << 14;

/** An IO-APIC whose messages are written down. */
function machine() {
  const sent: string[] = [];
  const m = { sent, accept: true, ioApic: undefined as unknown as IoApic };
  const router = {
    deliver: (destination: number, logical: boolean, mode: number, vector: number, level: boolean) => {
      sent.push(`${vector.toString(16)}>${destination}${logical ? "L" : "P"}${mode}${level ? " level" : ""}`);
      return m.accept;
    },
  };
  m.ioApic = new IoApic(router as unknown as InterruptRouter);
  return m;
}

const write = (a: IoApic, register: number, value: number) => {
  a.write(0, 4, register);
  a.write(0x10, 4, value);
};
const read = (a: IoApic, register: number) => {
  a.write(0, 4, register);
  return a.read(0x10, 4) >>> 0;
};

describe("IO-APIC", () => {
  it("identifies itself", () => {
    const { ioApic } = machine();
    assert.equal(read(ioApic, 1), 0x0017_0020);
    write(ioApic, 0, 0x0500_0000);
    assert.equal(read(ioApic, 0), 0x0500_0000);
    for (let pin = 0; pin < IO_APIC_PINS; pin++) assert.equal(read(ioApic, 0x10 + 2 * pin), MASKED);
    assert.equal(read(ioApic, 0x40), 0);
  });

  it("sends on the rise of an edge line, and forgets rises while masked", () => {
    const { ioApic, sent } = machine();
    ioApic.line(4).set(true);
    write(ioApic, 0x19, 0x0200_0000);
    write(ioApic, 0x18, 0x931);
    assert.deepEqual(sent, []);
    ioApic.line(4).set(true);
    ioApic.line(4).set(false);
    ioApic.line(4).set(true);
    assert.deepEqual(sent, ["31>2L1"]);
    assert.equal(read(ioApic, 0x18), 0x931);
    assert.equal(read(ioApic, 0x19), 0x0200_0000);
  });

  it("repeats a level line after its EOI for as long as it is asserted", () => {
    const { ioApic, sent } = machine();
    ioApic.line(9).set(true);
    write(ioApic, 0x22, LEVEL | 0x51);
    assert.deepEqual(sent.splice(0), ["51>0P0 level"]);
    assert.equal(read(ioApic, 0x22), LEVEL | REMOTE_IRR | 0x51);
    ioApic.eoi(0x50); // someone else's
    assert.deepEqual(sent, []);
    ioApic.eoi(0x51);
    assert.deepEqual(sent.splice(0), ["51>0P0 level"]);
    ioApic.line(9).set(false);
    ioApic.eoi(0x51);
    assert.deepEqual(sent, []);
    assert.equal(read(ioApic, 0x22), LEVEL | 0x51);
    ioApic.line(9).set(true);
    assert.equal(sent.length, 1);
  });

  it("holds a level line while masked, and takes EOIs through its register", () => {
    const { ioApic, sent } = machine();
    write(ioApic, 0x22, LEVEL | MASKED | 0x51);
    ioApic.line(9).set(true);
    assert.deepEqual(sent, []);
    write(ioApic, 0x22, LEVEL | 0x51);
    assert.equal(sent.length, 1);
    ioApic.write(0x40, 4, 0x51);
    assert.equal(sent.length, 2);
  });

  it("lets go of remote IRR when the entry becomes edge-triggered", () => {
    const { ioApic } = machine();
    ioApic.line(9).set(true);
    write(ioApic, 0x22, LEVEL | 0x51);
    write(ioApic, 0x22, MASKED | 0x51);
    write(ioApic, 0x22, MASKED | LEVEL | 0x51);
    assert.equal(read(ioApic, 0x22), MASKED | LEVEL | 0x51);
  });

  it("does not wait for the EOI of a message that nobody took", () => {
    const m = machine();
    m.accept = false;
    m.ioApic.line(9).set(true);
    write(m.ioApic, 0x22, LEVEL | 0x51);
    assert.equal(read(m.ioApic, 0x22), LEVEL | 0x51);
  });

  it("never throws, and goes on the same after save and restore", () => {
    const step = fc.record({
      what: fc.constantFrom("read", "write", "line", "eoi"),
      at: fc.oneof(fc.constantFrom(0, 0x10, 0x10, 0x40), fc.nat(0xfff)),
      width: fc.constantFrom<AccessWidth>(1, 2, 4),
      value: fc.oneof(fc.nat(0x40), fc.integer()),
    });
    type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;
    const perform = (m: ReturnType<typeof machine>, s: Step): unknown[] => {
      let got = 0;
      if (s.what === "read") got = m.ioApic.read(s.at, s.width);
      if (s.what === "write") m.ioApic.write(s.at, s.width, s.value);
      if (s.what === "line") m.ioApic.line(s.at % IO_APIC_PINS).set((s.value & 1) !== 0);
      if (s.what === "eoi") m.ioApic.eoi(s.value & 0xff);
      return [got, ...m.sent.splice(0)];
    };
    fc.assert(
      fc.property(fc.array(step), fc.array(step), (a, b) => {
        const first = machine();
        for (const s of a) perform(first, s);
        const second = machine();
        second.ioApic.restore(structuredClone(first.ioApic.save()));
        for (const s of b) assert.deepEqual(perform(second, s), perform(first, s));
        assert.deepEqual(second.ioApic.save(), first.ioApic.save());
      }),
    );
  });
});
