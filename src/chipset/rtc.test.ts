import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { DeadlineQueue } from "../machine/deadlines.js";
import { Rtc } from "./rtc.js";

const SECOND = 1_000_000_000;
/** 2024-02-29 23:59:57 UTC, a Thursday. */
const START = Date.UTC(2024, 1, 29, 23, 59, 57) / 1000;
const [A, B, C, D, CENTURY] = [0xa, 0xb, 0xc, 0xd, 0x32];

function machine(wallClockSeconds = START) {
  const deadlines = new DeadlineQueue();
  const m = {
    time: 0,
    deadlines,
    edges: 0,
    line: false,
    rtc: undefined as unknown as Rtc,
    get: (register: number) => {
      m.rtc.write(0x70, 1, register);
      return m.rtc.read(0x71, 1);
    },
    set: (register: number, value: number) => {
      m.rtc.write(0x70, 1, register);
      m.rtc.write(0x71, 1, value);
    },
    /** Year, month, day, hour, minute, second, weekday, as the registers have them. */
    now: () => [m.get(CENTURY), m.get(9), m.get(8), m.get(7), m.get(4), m.get(2), m.get(0), m.get(6)],
    pass: (ns: number) => {
      const end = m.time + ns;
      while (deadlines.earliest() <= end) {
        m.time = Math.max(m.time, deadlines.earliest());
        deadlines.runDue(m.time);
      }
      m.time = end;
    },
  };
  const irq = {
    set(level: boolean) {
      if (level && !m.line) m.edges++;
      m.line = level;
    },
  };
  m.rtc = new Rtc({ clock: { now: () => m.time }, deadlines, irq, wallClockSeconds });
  return m;
}

describe("real-time clock", () => {
  it("tells the time in BCD, over a leap day, and is valid", () => {
    const m = machine();
    assert.deepEqual(m.now(), [0x20, 0x24, 0x02, 0x29, 0x23, 0x59, 0x57, 5]);
    m.pass(3 * SECOND);
    assert.deepEqual(m.now(), [0x20, 0x24, 0x03, 0x01, 0x00, 0x00, 0x00, 6]);
    assert.equal(m.get(D), 0x80);
  });

  it("tells it in binary, and in 12 hours", () => {
    const m = machine();
    m.set(B, 6);
    assert.deepEqual(m.now(), [20, 24, 2, 29, 23, 59, 57, 5]);
    m.set(B, 4);
    assert.equal(m.get(4), 0x80 | 11);
    m.pass(3 * SECOND);
    assert.equal(m.get(4), 12);
  });

  it("warns of an update and is stable for 244 microseconds without a warning", () => {
    const m = machine();
    m.pass(SECOND - 244_001);
    assert.equal(m.get(A), 0x26);
    m.pass(1);
    assert.equal(m.get(A), 0xa6);
    m.pass(244_000);
    assert.equal(m.get(A), 0x26);
    assert.equal(m.get(0), 0x58);
  });

  it("is set as Linux sets it: SET, divider reset, registers, divider, SET off; half a second to the next", () => {
    const m = machine(Date.UTC(2024, 2, 31) / 1000);
    m.set(B, m.get(B) | 0x80);
    m.set(A, 0x76);
    for (const [register, value] of [
      [9, 0x25],
      [8, 0x02],
      [7, 0x28],
      [4, 0x12],
      [2, 0x34],
      [0, 0x56],
      [CENTURY, 0x20],
    ] as const) {
      m.set(register, value);
    }
    m.pass(10 * SECOND);
    m.set(A, 0x26);
    m.set(B, 2);
    m.pass(0);
    assert.deepEqual(m.now().slice(0, 7), [0x20, 0x25, 0x02, 0x28, 0x12, 0x34, 0x56]);
    m.pass(SECOND + 1);
    assert.deepEqual(m.now().slice(0, 7), [0x20, 0x25, 0x02, 0x28, 0x12, 0x34, 0x57]);
  });

  it("starts half a second before its first update when the divider is released last", () => {
    const m = machine();
    m.set(A, 0x76);
    m.pass(5 * SECOND);
    assert.equal(m.get(0), 0x57);
    m.set(A, 0x26);
    m.pass(SECOND / 2 - 1);
    assert.equal(m.get(0), 0x57);
    m.pass(1);
    assert.equal(m.get(0), 0x58);
  });

  it("keeps what is in its RAM", () => {
    const m = machine();
    m.set(0x0f, 0x12);
    m.set(0x7f, 0x34);
    assert.deepEqual([m.get(0x0f), m.get(0x7f)], [0x12, 0x34]);
    assert.equal(m.rtc.read(0x70, 1), 0xff);
  });
});

describe("its interrupts", () => {
  it("interrupts every second", () => {
    const m = machine();
    m.set(B, 0x12);
    m.pass(SECOND);
    assert.equal(m.edges, 1);
    m.pass(3 * SECOND);
    assert.equal(m.edges, 1); // not read: the line stays up
    assert.equal(m.get(C) & 0xd0, 0x80 | 0x10 | 0x40);
    assert.equal(m.line, false);
    assert.equal(m.get(C) & 0xb0, 0);
    m.pass(SECOND);
    assert.equal(m.edges, 2);
  });

  it("interrupts at 1024 Hz", () => {
    const m = machine();
    m.set(B, 0x42);
    let n = 0;
    for (let i = 0; i < 2048; i++) {
      m.pass(Math.round(((i + 1) * SECOND) / 2048) - m.time);
      if (m.line) n++;
      m.get(C);
    }
    assert.equal(n, 1024);
  });

  it("alarms at a time of day, or every minute at a second, or never for nonsense", () => {
    const m = machine();
    for (const [register, value] of [
      [5, 0x00],
      [3, 0x01],
      [1, 0x30],
    ] as const)
      m.set(register, value);
    m.set(B, 0x22);
    m.pass(92 * SECOND);
    assert.equal(m.edges, 0);
    m.pass(SECOND);
    assert.equal(m.edges, 1);
    assert.equal(m.get(C) & 0xa0, 0xa0);
    m.pass(86_399 * SECOND);
    assert.equal(m.edges, 1);
    m.pass(SECOND);
    assert.equal(m.edges, 2);
    m.get(C);
    m.set(5, 0xff);
    m.set(3, 0xff);
    m.pass(60 * SECOND);
    assert.equal(m.edges, 3);
    m.get(C);
    m.set(1, 0x61);
    m.pass(2 * 86_400 * SECOND);
    assert.equal(m.edges, 3);
    assert.equal(m.deadlines.earliest(), Number.POSITIVE_INFINITY);
  });

  it("alarms at the same second as a walk over all seconds would", () => {
    const field = (limit: number) => fc.oneof(fc.nat(limit - 1), fc.constant(0xff));
    fc.assert(
      fc.property(fc.nat(86_399), field(24), field(60), field(60), (start, hour, minute, second) => {
        const m = machine(start);
        m.set(B, 6);
        m.set(5, hour);
        m.set(3, minute);
        m.set(1, second);
        m.set(B, 0x26);
        let at = start + 1;
        const matches = (t: number) =>
          (hour === 0xff || Math.floor(t / 3600) % 24 === hour) &&
          (minute === 0xff || Math.floor(t / 60) % 60 === minute) &&
          (second === 0xff || t % 60 === second);
        while (!matches(at)) at++;
        assert.equal(m.deadlines.earliest(), (at - start) * SECOND);
      }),
    );
  });
});

describe("any guest", () => {
  const step = fc.record({
    what: fc.constantFrom("read", "write", "wait"),
    register: fc.oneof(fc.nat(0xf), fc.constant(CENTURY), fc.nat(255)),
    value: fc.oneof(fc.nat(255), fc.integer()),
    wait: fc.oneof(
      fc.nat(SECOND),
      fc.nat(86_400 * 4).map((s) => s * SECOND),
    ),
  });
  type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

  function perform(m: ReturnType<typeof machine>, s: Step): unknown[] {
    let got = 0;
    if (s.what === "read") got = m.get(s.register);
    if (s.what === "write") m.set(s.register, s.value);
    if (s.what === "wait") {
      m.time += s.wait;
      m.deadlines.runDue(m.time);
    }
    assert.ok(got >= 0 && got <= 255);
    return [got, m.line, m.deadlines.earliest()];
  }

  it("cannot make it throw, and it goes on the same after save and restore", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.array(step, { maxLength: 60 }), (a, b) => {
        const first = machine();
        for (const s of a) perform(first, s);
        const second = machine();
        second.time = first.time;
        second.rtc.restore(structuredClone(first.rtc.save()));
        assert.equal(second.line, first.line);
        for (const s of b) assert.deepEqual(perform(second, s), perform(first, s));
        assert.deepEqual(second.rtc.save(), first.rtc.save());
      }),
    );
  });
});
