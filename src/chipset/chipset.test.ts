import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { MmioBus, PortBus } from "../machine/bus.js";
import { DeadlineQueue } from "../machine/deadlines.js";
import type { AccessWidth } from "../machine/device.js";
import { InterruptRouter } from "../machine/interrupt-router.js";
import { IO_APIC_BASE } from "../machine/memory-map.js";
import { createChipset } from "./chipset.js";
import { LocalApic } from "./local-apic.js";

/** A PC with one processor's local APIC, as a run loop would hold it. */
function machine() {
  const m = { time: 0, output: ["", "", "", ""], off: 0, resets: 0, exits: [] as number[] };
  const clock = { now: () => m.time };
  const deadlines = new DeadlineQueue();
  const router = new InterruptRouter();
  const ports = new PortBus();
  const mmio = new MmioBus();
  const sink = (i: number) => ({
    onOutput: (byte: number) => {
      m.output[i] += String.fromCharCode(byte);
    },
  });
  const chipset = createChipset({
    ramBytes: 1 << 24,
    processors: 1,
    ports,
    mmio,
    clock,
    deadlines,
    router,
    wallClockSeconds: 1_700_000_000,
    serial: [sink(0), sink(1), sink(2), sink(3)],
    onPowerOff: () => m.off++,
    onReset: () => m.resets++,
    onDebugExit: (code) => m.exits.push(code),
  });
  const apic = new LocalApic({
    id: 0,
    registers: new Int32Array(new SharedArrayBuffer(4096)),
    requests: new Int32Array(new SharedArrayBuffer(96)),
    wake: () => {},
    clock,
    deadlines,
    send: (icrLow, destination) => router.sendIpi(0, icrLow, destination),
    eoiBroadcast: (vector) => chipset.ioApic.eoi(vector),
  });
  router.add(apic);
  return Object.assign(m, { ports, mmio, chipset, apic, deadlines });
}

/** Programs an IO-APIC pin. */
function route(m: ReturnType<typeof machine>, pin: number, low: number): void {
  m.mmio.write(IO_APIC_BASE, 4, 0x10 + 2 * pin);
  m.mmio.write(IO_APIC_BASE + 0x10, 4, low);
}

describe("chipset", () => {
  it("takes interrupts of every serial port to the processor on lines of their own", () => {
    const m = machine();
    m.apic.mmioWrite(0xf0, 0x1ff);
    const ports = [
      [0x3f8, 4],
      [0x2f8, 3],
      [0x3e8, 5],
      [0x2e8, 7],
    ] as const;
    ports.forEach(([base, irq], i) => {
      route(m, irq, 0x30 + irq);
      m.ports.write(base + 4, 1, 0xb);
      m.ports.write(base + 1, 1, 1);
      m.chipset.serial[i]!.receive(Uint8Array.of(0x41 + i));
      assert.equal(m.apic.acknowledge(), 0x30 + irq);
      m.apic.eoi();
      m.ports.write(base, 1, m.ports.read(base, 1));
    });
    assert.deepEqual(m.output, ["A", "B", "C", "D"]);
  });

  it("repeats the level-triggered SCI until its cause is cleared", () => {
    const m = machine();
    m.apic.mmioWrite(0xf0, 0x1ff);
    route(m, 9, 0x8051);
    m.ports.write(0x602, 2, 0x100);
    m.chipset.pm.pressPowerButton();
    for (let i = 0; i < 3; i++) {
      assert.equal(m.apic.acknowledge(), 0x51);
      assert.equal(m.apic.pendingVector(), -1);
      if (i === 2) m.ports.write(0x600, 2, 0x100);
      m.apic.mmioWrite(0xb0, 0);
    }
    assert.equal(m.apic.pendingVector(), -1);
  });

  it("has no 8259, no PIT, no keyboard controller, no PCI: those ports float", () => {
    const m = machine();
    for (const port of [0x20, 0x21, 0xa0, 0xa1, 0x40, 0x43, 0x60, 0x64, 0xcf8, 0xcfc]) {
      m.ports.write(port, 1, 0xfb);
      assert.equal(m.ports.read(port, 1), 0xff, port.toString(16));
    }
  });

  it("is as new after a reset, but for the time and the CMOS", () => {
    const m = machine();
    m.ports.write(0x3fb, 1, 0x80);
    m.ports.write(0x602, 2, 0x100);
    route(m, 4, 0x34);
    m.ports.write(0x70, 1, 0x40);
    m.ports.write(0x71, 1, 0x99);
    m.chipset.reset();
    const fresh = machine();
    assert.deepEqual({ ...m.chipset.save(), rtc: 0 }, { ...fresh.chipset.save(), rtc: 0 });
    assert.equal(m.ports.read(0x71, 1), 0x99);
  });

  const port = fc.oneof(
    fc.nat(0xffff),
    fc.integer({ min: 0x5fe, max: 0x612 }),
    fc.integer({ min: 0x2e7, max: 0x400 }),
    fc.constantFrom(0x70, 0x71, 0x71, 0x61, 0x64, 0x80, 0x92, 0xf4, 0xcf9),
  );
  const step = fc.record({
    what: fc.constantFrom("in", "out", "load", "store", "apic", "receive", "wait", "interrupt"),
    port,
    mmio: fc.oneof(fc.constantFrom(0, 0x10, 0x40), fc.nat(0xfff)),
    width: fc.constantFrom<AccessWidth>(1, 2, 4),
    value: fc.oneof(fc.nat(255), fc.integer()),
  });
  type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

  function perform(m: ReturnType<typeof machine>, s: Step): unknown[] {
    let got = 0;
    if (s.what === "in") got = m.ports.read(s.port, s.width);
    if (s.what === "out") m.ports.write(s.port, s.width, s.value);
    if (s.what === "load") got = m.mmio.read(IO_APIC_BASE + s.mmio, s.width);
    if (s.what === "store") m.mmio.write(IO_APIC_BASE + s.mmio, s.width, s.value);
    if (s.what === "apic") m.apic.mmioWrite(s.mmio, s.value);
    if (s.what === "receive") got = m.chipset.serial[s.value & 3]!.receive(Uint8Array.of(s.value));
    if (s.what === "interrupt") got = m.apic.acknowledge();
    if (s.what === "wait") {
      m.time += Math.abs(s.value) * s.width;
      m.deadlines.runDue(m.time);
    }
    return [got, m.off, m.resets, m.exits.length, m.deadlines.earliest(), m.apic.pendingVector(), ...m.output];
  }

  it("stands any guest, and goes on the same after save and restore of the whole", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 100 }), fc.array(step, { maxLength: 100 }), (a, b) => {
        const first = machine();
        first.apic.mmioWrite(0xf0, 0x1ff);
        for (const s of a) perform(first, s);
        const state = structuredClone({
          chipset: first.chipset.save(),
          apic: first.apic.save(),
          deadlines: first.deadlines.save(),
        });
        const second = machine();
        Object.assign(second, { time: first.time, off: first.off, resets: first.resets });
        second.exits = first.exits.slice();
        second.output.splice(0, 4, ...first.output);
        second.chipset.restore(state.chipset);
        second.apic.restore(state.apic);
        second.deadlines.restore(state.deadlines);
        for (const s of b) assert.deepEqual(perform(second, s), perform(first, s));
        assert.deepEqual(second.chipset.save(), first.chipset.save());
        assert.deepEqual(second.deadlines.save(), first.deadlines.save());
      }),
      { numRuns: 300 },
    );
  });
});
