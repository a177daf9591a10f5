import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { ApicRegister as R, RequestFlag, requestEvent, requestVector } from "../machine/apic-page.js";
import { DeadlineQueue } from "../machine/deadlines.js";
import { BROADCAST } from "../machine/interrupt-router.js";
import { LocalApic } from "./local-apic.js";

function machine(id = 0) {
  const time = { now: 0 };
  const deadlines = new DeadlineQueue();
  const sent: string[] = [];
  const finished: number[] = [];
  const apic = new LocalApic({
    id,
    registers: new Int32Array(new SharedArrayBuffer(4096)),
    requests: new Int32Array(new SharedArrayBuffer(96)),
    wake: () => {},
    clock: { now: () => time.now },
    deadlines,
    send: (icrLow, destination) => sent.push(`${icrLow.toString(16)}>${destination.toString(16)}`),
    eoiBroadcast: (vector) => finished.push(vector),
  });
  return { apic, time, deadlines, sent, finished };
}

/** Software-enabled, as every guest does first. */
function enabled(id = 0) {
  const m = machine(id);
  m.apic.mmioWrite(R.SVR, 0x1ff);
  return m;
}

function x2(id = 0) {
  const m = machine(id);
  assert.ok(m.apic.writeBase(0xfee0_0c00, 0));
  assert.ok(m.apic.writeMsr(R.SVR >> 4, 0x1ff, 0));
  return m;
}

describe("local APIC registers", () => {
  it("starts as the SDM says", () => {
    const { apic } = machine(3);
    assert.equal(apic.mmioRead(R.ID), 3 * 2 ** 24);
    assert.equal(apic.mmioRead(R.VERSION), 0x5_0014);
    assert.equal(apic.mmioRead(R.SVR), 0xff);
    assert.equal(apic.mmioRead(R.DFR), 0xffff_ffff);
    for (const lvt of [R.LVT_TIMER, R.LVT_LINT0, R.LVT_LINT1, R.LVT_ERROR]) assert.equal(apic.mmioRead(lvt), 0x1_0000);
    assert.equal(apic.baseLow, 0xfee0_0800);
    assert.equal(machine(0).apic.baseLow, 0xfee0_0900);
  });

  it("keeps LVTs masked while it is software-disabled, and masks them when it becomes so", () => {
    const { apic } = machine();
    apic.mmioWrite(R.LVT_ERROR, 0x30);
    assert.equal(apic.mmioRead(R.LVT_ERROR), 0x1_0030);
    apic.mmioWrite(R.SVR, 0x1ff);
    apic.mmioWrite(R.LVT_ERROR, 0x30);
    assert.equal(apic.mmioRead(R.LVT_ERROR), 0x30);
    apic.mmioWrite(R.SVR, 0xff);
    assert.equal(apic.mmioRead(R.LVT_ERROR), 0x1_0030);
  });

  it("does not show the words that the host keeps between the registers", () => {
    const { apic } = machine(5);
    for (const offset of [0, 4, 8, 0xc, 0x24]) assert.equal(apic.mmioRead(offset), 0);
    apic.mmioWrite(4, 0);
    assert.equal(apic.baseLow, 0xfee0_0800);
  });

  it("reports errors through the ESR and its vector, once per kind", () => {
    const { apic } = enabled();
    apic.mmioWrite(R.LVT_ERROR, 0xfe);
    apic.mmioWrite(R.ICR_LOW, 0x0005); // vector 5 is illegal
    assert.equal(apic.acknowledge(), 0xfe);
    assert.equal(apic.mmioRead(R.ESR), 0);
    requestVector(apic, 3, false);
    apic.mmioWrite(R.ESR, 0);
    assert.equal(apic.mmioRead(R.ESR), 0x20);
    apic.pendingVector();
    apic.mmioWrite(R.ESR, 0);
    assert.equal(apic.mmioRead(R.ESR), 0x40);
    apic.mmioWrite(R.LVT_ERROR, 2); // an illegal vector in the error entry itself must end
    requestVector(apic, 4, false);
    assert.equal(apic.pendingVector(), -1);
  });

  it("sends IPIs", () => {
    const { apic, sent } = enabled();
    apic.mmioWrite(R.ICR_HIGH, 0x0300_0000);
    apic.mmioWrite(R.ICR_LOW, 0x40fd);
    apic.mmioWrite(R.ICR_HIGH, 0xff00_0000);
    apic.mmioWrite(R.ICR_LOW, 0x40fd);
    apic.mmioWrite(R.ICR_LOW, 0x48fd); // logical: no broadcast id
    assert.deepEqual(sent, ["40fd>3", `40fd>${BROADCAST.toString(16)}`, "48fd>ff"]);
    assert.equal(apic.mmioRead(R.ICR_LOW), 0x48fd);
  });

  it("delivers its LINT pins as programmed", () => {
    const { apic } = enabled();
    apic.setLint(1, true);
    assert.equal(apic.hasNmi(), false);
    apic.setLint(1, false);
    apic.mmioWrite(R.LVT_LINT1, 0x400);
    apic.setLint(1, true);
    apic.setLint(1, true);
    assert.equal(apic.takeNmi(), true);
    assert.equal(apic.takeNmi(), false);
    apic.mmioWrite(R.LVT_LINT0, 0x55);
    apic.setLint(0, true);
    assert.equal(apic.acknowledge(), 0x55);
  });
});

describe("local APIC modes", () => {
  it("allows the transitions of the SDM and no other", () => {
    const OFF = 0xfee0_0000;
    const X1 = 0xfee0_0800;
    const X2 = 0xfee0_0c00;
    const BAD = 0xfee0_0400;
    const reach = new Map([
      [OFF, [OFF]],
      [X1, []],
      [X2, [X2]],
    ]);
    const legal = new Map([
      [OFF, [OFF, X1]],
      [X1, [OFF, X1, X2]],
      [X2, [OFF, X2]],
    ]);
    for (const from of [OFF, X1, X2]) {
      for (const to of [OFF, X1, X2, BAD]) {
        const { apic } = machine(1);
        for (const step of reach.get(from)!) assert.ok(apic.writeBase(step, 0));
        assert.equal(
          apic.writeBase(to, 0),
          legal.get(from)!.includes(to),
          `${from.toString(16)} to ${to.toString(16)}`,
        );
        assert.equal(apic.baseLow, legal.get(from)!.includes(to) ? to : from);
      }
    }
    const { apic } = machine();
    assert.equal(apic.writeBase(0xfee0_0801, 0), false);
    assert.equal(apic.writeBase(0xfee0_0a00, 0), false);
    assert.equal(apic.writeBase(0xfee0_0800, 0x8000_0000), false);
  });

  it("answers MSRs in x2APIC mode only, MMIO in xAPIC mode only", () => {
    const { apic } = machine(0x12);
    assert.equal(apic.readMsr(R.ID >> 4), undefined);
    assert.equal(apic.writeMsr(R.TPR >> 4, 0, 0), false);
    apic.writeBase(0xfee0_0c00, 0);
    assert.equal(apic.readMsr(R.ID >> 4), 0x12);
    assert.equal(apic.readMsr(R.LDR >> 4), 0x1_0004);
    assert.equal(apic.mmioRead(R.VERSION), 0);
    apic.writeBase(0xfee0_0000, 0);
    apic.writeBase(0xfee0_0800, 0);
    assert.equal(apic.mmioRead(R.ID), 0x1200_0000);
    assert.equal(apic.mmioRead(R.LDR), 0);
  });

  it("faults on what x2APIC mode does not have", () => {
    const { apic } = x2();
    for (const absent of [0x00, 0x0c, R.DFR >> 4, R.ICR_HIGH >> 4, 0x2f, 0x40, 0xff, 0x100, -1]) {
      assert.equal(apic.readMsr(absent), undefined, `read ${absent}`);
      assert.equal(apic.writeMsr(absent, 0, 0), false, `write ${absent}`);
    }
    assert.equal(apic.readMsr(R.EOI >> 4), undefined);
    assert.equal(apic.readMsr(R.SELF_IPI >> 4), undefined);
    for (const readOnly of [R.ID, R.VERSION, R.LDR, R.PPR, R.IRR, R.TIMER_CURRENT]) {
      assert.equal(apic.writeMsr(readOnly >> 4, 0, 0), false);
    }
    assert.equal(apic.writeMsr(R.EOI >> 4, 1, 0), false);
    assert.equal(apic.writeMsr(R.ESR >> 4, 1, 0), false);
    assert.equal(apic.writeMsr(R.TPR >> 4, 0x100, 0), false);
    assert.equal(apic.writeMsr(R.TPR >> 4, 0, 1), false);
    assert.equal(apic.writeMsr(R.ICR_LOW >> 4, 0x0010_0000, 0), false);
    assert.equal(apic.writeMsr(R.TIMER_INITIAL >> 4, 0xffff_ffff, 0), true);
  });

  it("has a 64-bit ICR and self-IPIs in x2APIC mode", () => {
    const { apic, sent } = x2();
    assert.ok(apic.writeMsr(R.ICR_LOW >> 4, 0xfb, 0x1_0003));
    assert.deepEqual(sent, ["fb>10003"]);
    assert.equal(apic.readMsr(R.ICR_LOW >> 4), 0xfb);
    assert.equal(apic.msrHigh, 0x1_0003);
    assert.ok(apic.writeMsr(R.SELF_IPI >> 4, 0x61, 0));
    assert.equal(apic.acknowledge(), 0x61);
  });

  it("takes INIT, start-up and NMI from other threads", () => {
    const { apic } = machine(1);
    requestEvent(apic, RequestFlag.Init);
    requestEvent(apic, RequestFlag.Sipi, 0x9a);
    requestEvent(apic, RequestFlag.Nmi);
    assert.equal(apic.takeInit(), true);
    apic.initReset();
    assert.equal(apic.takeInit(), false);
    assert.equal(apic.takeStartUp(), 0x9a);
    assert.equal(apic.takeStartUp(), -1);
    assert.equal(apic.takeNmi(), true);
  });

  it("drops vectors while it is disabled by its base register", () => {
    const { apic } = enabled();
    apic.writeBase(0xfee0_0000, 0);
    requestVector(apic, 0x40, false);
    apic.raise(0x41);
    assert.equal(apic.pendingVector(), -1);
    apic.writeBase(0xfee0_0800, 0);
    assert.equal(apic.pendingVector(), -1);
  });
});

describe("interrupt priority", () => {
  it("tells the IO-APIC about the end of level-triggered vectors only", () => {
    const { apic, finished } = enabled();
    requestVector(apic, 0x50, true);
    requestVector(apic, 0x60, false);
    assert.equal(apic.acknowledge(), 0x60);
    apic.mmioWrite(R.EOI, 0);
    assert.equal(apic.acknowledge(), 0x50);
    apic.mmioWrite(R.EOI, 0);
    assert.deepEqual(finished, [0x50]);
  });

  type Step =
    | { is: "request"; vector: number; level: boolean }
    | { is: "tpr"; value: number }
    | { is: "cr8"; value: number }
    | { is: "acknowledge" }
    | { is: "eoi" };
  const step = fc.oneof<fc.Arbitrary<Step>[]>(
    fc.record({ is: fc.constant("request" as const), vector: fc.integer({ min: 16, max: 255 }), level: fc.boolean() }),
    fc.record({ is: fc.constant("tpr" as const), value: fc.nat(255) }),
    fc.record({ is: fc.constant("cr8" as const), value: fc.nat(15) }),
    fc.constant({ is: "acknowledge" }),
    fc.constant({ is: "eoi" }),
  );

  it("agrees with sets of vectors, also over save and restore", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.nat(60), (steps, cut) => {
        let { apic, finished } = enabled();
        const requested = new Set<number>();
        const inService = new Set<number>();
        const level = new Set<number>();
        const ended: number[] = [];
        let tpr = 0;
        const top = (set: Set<number>) => Math.max(-1, ...set);
        const expected = () => {
          const ppr = Math.max(tpr & 0xf0, top(inService) & 0xf0 & ~(top(inService) >> 31));
          return top(requested) >= 0 && (top(requested) & 0xf0) > ppr ? top(requested) : -1;
        };
        steps.forEach((s, i) => {
          if (i === cut) {
            const state = structuredClone(apic.save());
            ({ apic, finished } = enabled());
            finished.push(...ended);
            apic.restore(state);
          }
          if (s.is === "request") {
            requestVector(apic, s.vector, s.level);
            apic.collectRequests();
            requested.add(s.vector);
            if (s.level) level.add(s.vector);
            else level.delete(s.vector);
          } else if (s.is === "tpr") {
            apic.mmioWrite(R.TPR, s.value);
            tpr = s.value;
          } else if (s.is === "cr8") {
            apic.cr8 = s.value;
            tpr = s.value << 4;
          } else if (s.is === "acknowledge") {
            const v = expected();
            assert.equal(apic.acknowledge(), v);
            if (v >= 0) {
              requested.delete(v);
              inService.add(v);
            }
          } else {
            const v = top(inService);
            apic.mmioWrite(R.EOI, 0);
            inService.delete(v);
            if (level.has(v) && v >= 0) ended.push(v);
          }
          assert.equal(apic.pendingVector(), expected());
          assert.equal(apic.cr8, tpr >> 4);
          const ppr = (tpr & 0xf0) >= (Math.max(0, top(inService)) & 0xf0) ? tpr : top(inService) & 0xf0;
          assert.equal(apic.mmioRead(R.PPR), ppr);
        });
        assert.deepEqual(finished, ended);
      }),
    );
  });
});

describe("a hostile guest's local APIC", () => {
  type Access = { msr: boolean; at: number; low: number; high: number; read: boolean; wait: number };
  const registers = fc.oneof(fc.constantFrom(...Object.values(R)), fc.nat(0xfff), fc.integer());
  const access: fc.Arbitrary<Access> = fc.record({
    msr: fc.boolean(),
    at: registers,
    low: fc.oneof(fc.nat(255), fc.integer()),
    high: fc.oneof(fc.constant(0), fc.integer()),
    read: fc.boolean(),
    wait: fc.nat(5000),
  });

  function perform(m: ReturnType<typeof machine>, a: Access): unknown[] {
    const { apic } = m;
    m.time.now += a.wait;
    m.deadlines.runDue(m.time.now);
    if (a.at === R.HOST_BASE) return [apic.writeBase(a.low, a.high)];
    if (a.at === R.HOST_ID) apic.writeTscDeadline(a.low, a.high);
    if (a.read) return [a.msr ? apic.readMsr(a.at >> 4) : apic.mmioRead(a.at), apic.msrHigh, apic.pendingVector()];
    if (a.msr) return [apic.writeMsr(a.at >> 4, a.low, a.high), apic.acknowledge(), ...m.sent.splice(0)];
    apic.mmioWrite(a.at, a.low);
    return [m.deadlines.earliest(), ...m.sent.splice(0)];
  }

  it("never throws, and goes on the same after save and restore", () => {
    fc.assert(
      fc.property(
        fc.boolean(),
        fc.array(access, { maxLength: 80 }),
        fc.array(access, { maxLength: 80 }),
        (two, a, b) => {
          const first = two ? x2(2) : enabled(2);
          for (const step of a) perform(first, step);
          first.sent.length = 0; // what it has sent is no part of it
          const state = structuredClone(first.apic.save());
          const second = machine(2);
          second.time.now = first.time.now;
          second.apic.restore(state);
          for (const step of b) assert.deepEqual(perform(second, step), perform(first, step));
          assert.deepEqual(second.apic.save(), first.apic.save());
        },
      ),
    );
  });
});
