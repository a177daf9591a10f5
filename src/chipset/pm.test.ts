import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { PortBus } from "../machine/bus.js";
import { DeadlineQueue } from "../machine/deadlines.js";
import type { AccessWidth } from "../machine/device.js";
import { PmPort, PowerManagement } from "./pm.js";

function machine() {
  const deadlines = new DeadlineQueue();
  const bus = new PortBus();
  const m = { time: 0, off: 0, sci: false, deadlines, bus, pm: undefined as unknown as PowerManagement };
  m.pm = new PowerManagement({
    clock: { now: () => m.time },
    deadlines,
    sci: {
      set: (level) => {
        m.sci = level;
      },
    },
    onPowerOff: () => m.off++,
  });
  bus.attach(m.pm);
  return m;
}

const { PM1_EVENT, PM1_CONTROL, TIMER, GPE0 } = PmPort;

describe("ACPI power management", () => {
  it("runs its timer at 3.579545 MHz, 32 bits wide", () => {
    const m = machine();
    m.time = 1_000_000_000;
    assert.equal(m.bus.read(TIMER, 4), 3_579_545);
    m.time = 3_600_000_000_000;
    assert.equal(m.bus.read(TIMER, 4), Number((3_579_545n * 3600n) % (1n << 32n)));
    m.time = 2 ** 53 - 1;
    assert.equal(m.bus.read(TIMER, 4), Number((((2n ** 53n - 1n) * 3_579_545n) / 1_000_000_000n) % (1n << 32n)));
  });

  it("is always in ACPI mode", () => {
    const m = machine();
    assert.equal(m.bus.read(PM1_CONTROL, 2), 1);
    m.bus.write(PM1_CONTROL, 2, 0);
    assert.equal(m.bus.read(PM1_CONTROL, 2) & 1, 1);
  });

  it("switches off for S5, in words or bytes, and for nothing else", () => {
    const m = machine();
    m.bus.write(PM1_CONTROL, 2, 0x2000 | (5 << 10));
    assert.equal(m.off, 0);
    m.bus.write(PM1_CONTROL, 2, 0);
    assert.equal(m.off, 0);
    m.bus.write(PM1_CONTROL, 2, 0x2000);
    assert.equal(m.off, 1);
    assert.equal(m.bus.read(PM1_CONTROL, 2) & 0x2000, 0);
    m.bus.write(PM1_CONTROL + 1, 1, 0x20);
    assert.equal(m.off, 2);
  });

  it("raises the SCI for the power button until the status is cleared", () => {
    const m = machine();
    m.pm.pressPowerButton();
    assert.equal(m.sci, false);
    m.bus.write(PM1_EVENT + 2, 2, 0x100);
    assert.equal(m.sci, true);
    assert.equal(m.bus.read(PM1_EVENT, 2), 0x100);
    m.bus.write(PM1_EVENT, 2, 0xfeff);
    assert.equal(m.sci, true);
    m.bus.write(PM1_EVENT, 2, 0x100);
    assert.equal(m.sci, false);
  });

  it("raises general-purpose events", () => {
    const m = machine();
    m.bus.write(GPE0 + 2, 1, 4);
    m.pm.raiseGpe(2);
    assert.equal(m.sci, true);
    assert.equal(m.bus.read(GPE0, 1), 4);
    m.bus.write(GPE0, 1, 4);
    assert.equal(m.sci, false);
  });

  it("tells when bit 31 of the timer changes", () => {
    const m = machine();
    m.bus.write(PM1_EVENT + 2, 2, 1);
    const due = m.deadlines.earliest();
    m.time = due - 1;
    m.deadlines.runDue(m.time);
    assert.equal(m.sci, false);
    assert.equal(m.bus.read(TIMER, 4), 0x7fff_ffff);
    m.time = due;
    m.deadlines.runDue(m.time);
    assert.equal(m.sci, true);
    assert.equal(m.bus.read(TIMER, 4), 0x8000_0000);
    m.bus.write(PM1_EVENT, 2, 1);
    assert.equal(m.sci, false);
    assert.ok(m.deadlines.earliest() > due);
  });

  it("takes anything, and goes on the same after save and restore", () => {
    const step = fc.record({
      what: fc.constantFrom("read", "write", "wait", "button", "gpe"),
      port: fc.integer({ min: PM1_EVENT - 1, max: PmPort.END }),
      width: fc.constantFrom<AccessWidth>(1, 2, 4),
      value: fc.integer(),
    });
    type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;
    const perform = (m: ReturnType<typeof machine>, s: Step): unknown[] => {
      let got = 0;
      if (s.what === "read") got = m.bus.read(s.port, s.width);
      if (s.what === "write") m.bus.write(s.port, s.width, s.value);
      if (s.what === "button") m.pm.pressPowerButton();
      if (s.what === "gpe") m.pm.raiseGpe(s.value);
      if (s.what === "wait") {
        m.time += Math.abs(s.value) * 400;
        m.deadlines.runDue(m.time);
      }
      return [got, m.sci, m.off, m.deadlines.earliest()];
    };
    fc.assert(
      fc.property(fc.array(step), fc.array(step), (a, b) => {
        const first = machine();
        for (const s of a) perform(first, s);
        const second = machine();
        second.time = first.time;
        second.off = first.off;
        second.pm.restore(structuredClone(first.pm.save()));
        for (const s of b) assert.deepEqual(perform(second, s), perform(first, s));
        assert.deepEqual(second.pm.save(), first.pm.save());
      }),
    );
  });
});
