import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { DeadlineQueue } from "../machine/deadlines.js";
import { ApicTimer, TimerMode } from "./apic-timer.js";

const DIVIDE_BY_1 = 0xb;

function machine() {
  const time = { now: 1_000_000 };
  const deadlines = new DeadlineQueue();
  const m = { time, deadlines, expired: 0, timer: undefined as unknown as ApicTimer, passTo: (_: number) => {} };
  m.timer = new ApicTimer("timer", { now: () => time.now }, deadlines, () => m.expired++);
  /** Lets time pass the way a run loop does: up to the next deadline, again and again. */
  m.passTo = (end) => {
    while (deadlines.earliest() <= end) {
      time.now = Math.max(time.now, deadlines.earliest());
      deadlines.runDue(time.now);
    }
    time.now = end;
  };
  return m;
}

describe("APIC timer", () => {
  it("counts down once", () => {
    const m = machine();
    m.timer.setDivide(DIVIDE_BY_1);
    m.timer.setInitialCount(1000);
    m.time.now += 400;
    assert.equal(m.timer.currentCount(), 600);
    assert.equal(m.deadlines.earliest(), 1_001_000);
    m.passTo(1_000_999);
    assert.equal(m.expired, 0);
    m.passTo(1_100_000);
    assert.equal(m.expired, 1);
    assert.equal(m.timer.currentCount(), 0);
    assert.equal(m.deadlines.earliest(), Number.POSITIVE_INFINITY);
  });

  it("divides as its code says", () => {
    for (const [code, divide] of [
      [0, 2],
      [1, 4],
      [2, 8],
      [3, 16],
      [8, 32],
      [9, 64],
      [10, 128],
      [11, 1],
    ] as const) {
      const m = machine();
      m.timer.setDivide(code);
      m.timer.setInitialCount(100);
      assert.equal(m.deadlines.earliest(), 1_000_000 + 100 * divide);
    }
  });

  it("repeats without drift, however late it is looked at", () => {
    const m = machine();
    m.timer.setDivide(DIVIDE_BY_1);
    m.timer.setMode(TimerMode.Periodic);
    m.timer.setInitialCount(1000);
    m.passTo(1_010_000);
    assert.equal(m.expired, 10);
    m.time.now = 1_015_500; // five and a half periods without a look: one interrupt, then back in step
    m.deadlines.runDue(m.time.now);
    assert.equal(m.expired, 11);
    assert.equal(m.deadlines.earliest(), 1_016_000);
    assert.equal(m.timer.currentCount(), 500);
  });

  it("stops for count 0 and goes on from its count with a new divider", () => {
    const m = machine();
    m.timer.setDivide(DIVIDE_BY_1);
    m.timer.setInitialCount(1000);
    m.time.now += 400;
    m.timer.setDivide(0); // by 2
    assert.equal(m.timer.currentCount(), 600);
    assert.equal(m.deadlines.earliest(), m.time.now + 1200);
    m.timer.setInitialCount(0);
    assert.equal(m.deadlines.earliest(), Number.POSITIVE_INFINITY);
  });

  it("fires at a TSC deadline, once, and reads as 0 then", () => {
    const m = machine();
    m.timer.setDeadline(2_000_000, 0);
    assert.equal(m.timer.deadlineLow, 0); // not in this mode
    m.timer.setMode(TimerMode.TscDeadline);
    m.timer.setDeadline(2_000_000, 0);
    m.timer.setInitialCount(5);
    assert.equal(m.timer.initialCount, 0);
    assert.equal(m.timer.deadlineLow, 2_000_000);
    m.passTo(1_999_999);
    assert.equal(m.expired, 0);
    m.passTo(2_000_000);
    assert.equal(m.expired, 1);
    assert.equal(m.timer.deadlineLow, 0);
    m.timer.setDeadline(1, 0); // past: at once
    m.passTo(2_000_001);
    assert.equal(m.expired, 2);
    m.timer.setDeadline(0xffff_ffff, 0xffff_ffff);
    assert.equal(m.deadlines.earliest(), Number.POSITIVE_INFINITY);
    m.timer.setDeadline(3_000_000, 0);
    m.timer.setMode(TimerMode.OneShot); // leaving the mode disarms
    assert.equal(m.deadlines.earliest(), Number.POSITIVE_INFINITY);
  });

  it("follows the guest's TSC", () => {
    const m = machine();
    m.timer.setMode(TimerMode.TscDeadline);
    m.timer.setDeadline(0, 1);
    m.timer.tscOffset = 1000;
    assert.equal(m.deadlines.earliest(), 2 ** 32 - 1000);
  });

  it("never counts outside its range, whatever is written when", () => {
    const step = fc.record({
      what: fc.constantFrom("mode", "divide", "count", "deadline", "wait"),
      value: fc.oneof(fc.nat(15), fc.nat()),
    });
    fc.assert(
      fc.property(fc.array(step), (steps) => {
        const m = machine();
        for (const { what, value } of steps) {
          if (what === "mode") m.timer.setMode(value % 3);
          if (what === "divide") m.timer.setDivide(value);
          if (what === "count") m.timer.setInitialCount(value);
          if (what === "deadline") m.timer.setDeadline(value, value & 1);
          if (what === "wait") {
            m.time.now += value;
            m.deadlines.runDue(m.time.now);
          }
          const count = m.timer.currentCount();
          assert.ok(Number.isInteger(count) && count >= 0 && count <= m.timer.initialCount);
          assert.ok(m.deadlines.earliest() >= 0);
        }
      }),
    );
  });
});
