import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { TraceKind, TraceRing } from "../trace/trace.js";
import { referenceTime } from "./reference-time.js";
import { HvMsr, ScriptedProcessor } from "./scripted-processor.js";

const CONFIG = HvMsr.STIMER0_CONFIG;
const COUNT = HvMsr.STIMER0_COUNT;
/** Linux: direct mode, vector 0xed, auto-enable, enable. */
const LINUX = 0x1ed9;
const ENABLE = 1;
const PERIODIC = 2;
const AUTO = 8;
const direct = (vector: number): number => 0x1000 | (vector << 4);
const sint = (n: number): number => n << 16;
/** ns at which the reference time becomes `t`. */
const ns = (t: number): number => t * 100 + 1;
const processor = (nowNs = 0): ScriptedProcessor => {
  const p = new ScriptedProcessor({ nowNs });
  p.enableSynic();
  p.wr(HvMsr.SINT0 + 4, 0x40);
  return p;
};
const enabled = (p: ScriptedProcessor, n = 0): boolean => (p.rd(CONFIG + 2 * n)! & 1n) !== 0n;
/** Timer, expiration and delivery time of a message. */
const message = (p: ScriptedProcessor, slot: number) => {
  const taken = p.takeMessage(slot);
  if (taken === undefined) return undefined;
  assert.deepEqual([taken.type, taken.payload.length], [0x80000010, 24]);
  const view = new DataView(taken.payload.buffer);
  assert.equal(view.getUint32(4, true), 0);
  return [view.getUint32(0, true), Number(view.getBigUint64(8, true)), Number(view.getBigUint64(16, true))];
};

describe("a one-shot timer", () => {
  it("fires once, not a ns before its time, and is then disabled", () => {
    const p = processor();
    p.wr(CONFIG, LINUX);
    p.wr(COUNT, 5000);
    p.runTo(ns(5000) - 1);
    assert.deepEqual([p.interrupts(), enabled(p)], [[], true]);
    p.runTo(ns(5000));
    assert.deepEqual([p.interrupts(), enabled(p)], [[0xed], false]);
    assert.equal(p.rd(COUNT), 5000n);
    p.runTo(1e12);
    assert.deepEqual(p.interrupts(), []);
  });
  it("fires at once for a time in the past", () => {
    const p = processor(1_000_000);
    p.wr(CONFIG, LINUX);
    p.wr(COUNT, 7);
    assert.deepEqual(p.interrupts(), []);
    p.runTo(1_000_000);
    assert.deepEqual(p.interrupts(), [0xed]);
  });
  it("is armed again by a new count alone, as Linux does it", () => {
    const p = processor();
    p.wr(CONFIG, LINUX);
    for (const t of [100, 250, 9000]) {
      p.wr(COUNT, t);
      p.runTo(ns(t));
      assert.deepEqual(p.interrupts(), [0xed]);
    }
  });
  it("moves when it is written while it runs", () => {
    const p = processor();
    p.wr(CONFIG, LINUX);
    p.wr(COUNT, 1000);
    p.wr(COUNT, 3000);
    p.runTo(ns(2999));
    assert.deepEqual(p.interrupts(), []);
    p.wr(COUNT, 5000);
    p.wr(CONFIG, LINUX & ~ENABLE);
    p.runTo(ns(6000));
    assert.deepEqual(p.interrupts(), []);
    // enabled again: its time is past
    p.wr(CONFIG, direct(0x55) | ENABLE);
    p.runTo(ns(6000));
    assert.deepEqual(p.interrupts(), [0x55]);
  });
  it("never fires for a time beyond reach, nor loses the count", () => {
    const p = processor();
    p.wr(CONFIG, LINUX);
    p.wr(COUNT, 0xffff_ffff_ffff_ffffn);
    assert.equal(p.rd(COUNT), 0xffff_ffff_ffff_ffffn);
    p.runTo(2 ** 52);
    assert.deepEqual([p.interrupts(), enabled(p)], [[], true]);
  });
});

describe("a timer's count and configuration", () => {
  it("stop it by a count of 0, which FreeBSD polls for", () => {
    const p = processor();
    for (const config of [LINUX, direct(0x50) | ENABLE | PERIODIC, sint(4) | ENABLE]) {
      p.wr(CONFIG, config);
      p.wr(COUNT, 1000);
      assert.ok(enabled(p));
      p.wr(COUNT, 0);
      assert.ok(!enabled(p));
      assert.equal(p.rd(CONFIG), BigInt(config & ~ENABLE));
    }
    p.runTo(1e9);
    assert.deepEqual(p.interrupts(), []);
  });
  it("wait for a count where it is enabled without one", () => {
    const p = processor();
    p.wr(CONFIG, direct(0x50) | ENABLE);
    p.runTo(1e9);
    assert.deepEqual([p.interrupts(), enabled(p)], [[], true]);
    p.wr(COUNT, 2e7);
    p.runTo(ns(2e7));
    assert.deepEqual(p.interrupts(), [0x50]);
  });
  it("enable it by a count only with auto-enable", () => {
    const p = processor();
    p.wr(CONFIG, direct(0x50));
    p.wr(COUNT, 10);
    p.runTo(1e6);
    assert.deepEqual([p.interrupts(), enabled(p)], [[], false]);
    p.wr(CONFIG, direct(0x50) | AUTO);
    p.runTo(2e6);
    assert.deepEqual([p.interrupts(), enabled(p)], [[], false]);
    p.wr(COUNT, 10);
    p.runTo(3e6);
    assert.deepEqual(p.interrupts(), [0x50]);
  });
  it("keep a message timer of SINT 0 off, by either register", () => {
    const p = processor();
    p.wr(HvMsr.SINT0, 0x30);
    p.wr(COUNT, 10);
    p.wr(CONFIG, ENABLE);
    assert.equal(p.rd(CONFIG), 0n);
    p.wr(CONFIG, ENABLE | AUTO);
    assert.equal(p.rd(CONFIG), BigInt(AUTO));
    p.wr(COUNT, 20);
    assert.equal(p.rd(CONFIG), BigInt(AUTO));
    p.runTo(1e6);
    assert.deepEqual([p.interrupts(), p.slot(0).type], [[], 0]);
    // direct mode has no need of a SINT
    p.wr(CONFIG, direct(0x50) | ENABLE);
    p.runTo(2e6);
    assert.deepEqual(p.interrupts(), [0x50]);
  });
});

describe("a periodic timer", () => {
  it("fires every period, first one period after it was enabled", () => {
    const p = processor();
    p.runTo(ns(500));
    p.wr(CONFIG, direct(0x50) | PERIODIC);
    p.wr(COUNT, 1000);
    p.wr(CONFIG, direct(0x50) | PERIODIC | ENABLE);
    const times: number[] = [];
    for (let t = 500; t <= 5600; t += 50) {
      p.runTo(ns(t));
      for (const _ of p.interrupts()) times.push(t);
    }
    assert.deepEqual(times, [1500, 2500, 3500, 4500, 5500]);
    assert.ok(enabled(p));
  });
  it("leaves out what nobody could have seen, and stays in step", () => {
    const p = processor();
    p.wr(CONFIG, direct(0x50) | PERIODIC | ENABLE);
    p.wr(COUNT, 1000);
    // the host slept
    p.nowNs = ns(3250);
    p.deadlines.runDue(p.nowNs);
    p.deadlines.runDue(p.nowNs);
    assert.equal(p.interrupts().length, 1);
    const times: number[] = [];
    for (let t = 3250; t <= 6000; t += 50) {
      p.runTo(ns(t));
      for (const _ of p.interrupts()) times.push(t);
    }
    assert.deepEqual(times, [4000, 5000, 6000]);
  });
  it("does not hold the host with a period of 1", () => {
    const p = processor();
    p.wr(CONFIG, direct(0x50) | PERIODIC | ENABLE);
    p.wr(COUNT, 1);
    for (let i = 1; i <= 100; i++) {
      p.nowNs = i * 1e6;
      p.deadlines.runDue(p.nowNs);
      assert.ok(p.interrupts().length <= 1);
      assert.ok(p.deadlines.earliest() > p.nowNs);
    }
  });
  it("begins anew when its period is written", () => {
    const p = processor();
    p.wr(CONFIG, direct(0x50) | PERIODIC | ENABLE);
    p.wr(COUNT, 1000);
    p.runTo(ns(900));
    p.wr(COUNT, 2000);
    p.runTo(ns(2899));
    assert.deepEqual(p.interrupts(), []);
    p.runTo(ns(2900));
    assert.deepEqual(p.interrupts(), [0x50]);
  });
  it("never comes with a period beyond reach", () => {
    const p = processor();
    p.wr(CONFIG, direct(0x50) | PERIODIC | ENABLE);
    p.wr(COUNT, 0xffff_ffff_ffff_ffffn);
    p.runTo(2 ** 52);
    assert.deepEqual(p.interrupts(), []);
  });
});

describe("a timer in message mode", () => {
  it("posts its number, expiration and delivery time, and interrupts", () => {
    const p = processor();
    p.wr(CONFIG + 6, sint(4) | ENABLE);
    p.wr(COUNT + 6, 5000);
    p.nowNs = ns(5123);
    p.deadlines.runDue(p.nowNs);
    assert.deepEqual(p.interrupts(), [0x40]);
    assert.deepEqual(message(p, 4), [3, 5000, 5123]);
    assert.ok(!enabled(p, 3));
  });
  it("has times of more than 32 bits", () => {
    const late = 2 ** 45;
    const p = processor(late * 100);
    p.wr(CONFIG, sint(4) | ENABLE);
    p.wr(COUNT, late + 7);
    p.runTo(ns(late + 7));
    assert.deepEqual(message(p, 4), [0, late + 7, late + 7]);
  });
  it("waits while its slot is busy, says so, and comes with EOM, with the time of delivery", () => {
    const p = processor();
    p.post(1, 4);
    p.hypervisor.poll();
    p.wr(CONFIG, sint(4) | ENABLE);
    p.wr(COUNT, 1000);
    p.runTo(ns(1000));
    assert.equal(p.slot(4).flags, 1);
    p.runTo(ns(1700));
    p.interrupts();
    assert.equal(p.takeMessage(4)?.type, 1);
    assert.deepEqual(p.interrupts(), [0x40]);
    assert.deepEqual(message(p, 4), [0, 1000, 1700]);
    assert.equal(message(p, 4), undefined);
  });
  it("waits for the SynIC and the message page", () => {
    const p = processor();
    p.wr(HvMsr.SCONTROL, 0);
    p.wr(CONFIG, sint(4) | ENABLE);
    p.wr(COUNT, 1000);
    p.runTo(ns(2000));
    assert.deepEqual(p.interrupts(), []);
    p.wr(HvMsr.SCONTROL, 1);
    assert.deepEqual(p.interrupts(), [0x40]);
    assert.deepEqual(message(p, 4), [0, 1000, 2000]);
  });
  it("has at most one message waiting, and none when it is stopped", () => {
    const p = processor();
    p.post(1, 4);
    p.hypervisor.poll();
    p.wr(CONFIG, sint(4) | ENABLE | PERIODIC);
    p.wr(COUNT, 1000);
    for (let t = 1000; t <= 5000; t += 1000) p.runTo(ns(t));
    p.takeMessage(4);
    assert.deepEqual(message(p, 4), [0, 5000, 5000]);
    assert.equal(message(p, 4), undefined);
    for (const [register, value] of [
      [COUNT, 0],
      [CONFIG, sint(4)],
    ] as const) {
      p.wr(CONFIG, sint(4) | ENABLE | PERIODIC);
      p.wr(COUNT, 1000);
      p.post(1, 4);
      p.hypervisor.poll();
      p.runTo(p.nowNs + 150_000);
      assert.equal(p.slot(4).flags, 1);
      p.wr(register, value);
      p.takeMessage(4);
      assert.equal(message(p, 4), undefined);
    }
  });
  it("shares a slot with others, one after the other", () => {
    const p = processor();
    for (let n = 0; n < 4; n++) {
      p.wr(CONFIG + 2 * n, sint(4) | ENABLE);
      p.wr(COUNT + 2 * n, 1000 - n);
    }
    p.runTo(ns(1000));
    const seen = [];
    for (let m = message(p, 4); m !== undefined; m = message(p, 4)) seen.push([m[0], m[1]]);
    assert.deepEqual(seen, [
      [3, 997],
      [0, 1000],
      [1, 999],
      [2, 998],
    ]);
  });
  it("fills a masked SINT's slot without an interrupt", () => {
    const p = processor();
    p.wr(CONFIG, sint(7) | ENABLE);
    p.wr(COUNT, 10);
    p.runTo(ns(10));
    assert.deepEqual([p.interrupts(), message(p, 7)?.[0]], [[], 0]);
  });
});

describe("timers", () => {
  it("are four, each with its own deadline, and say in the trace when they expire", () => {
    const trace = new TraceRing(() => 0);
    const p = new ScriptedProcessor({ trace });
    p.enableSynic();
    for (let n = 0; n < 4; n++) {
      p.wr(CONFIG + 2 * n, n === 3 ? sint(2) | ENABLE : direct(0x50 + n) | ENABLE);
      p.wr(COUNT + 2 * n, 4000 - n * 1000);
    }
    p.runTo(ns(4000));
    assert.deepEqual(p.interrupts(), [0xf3, 0x52, 0x51, 0x50]);
    assert.deepEqual(
      trace
        .take()
        .filter((r) => r.kind === TraceKind.timerExpired)
        .map((r) => [r.a, r.b]),
      [
        [3, 0],
        [2, 1],
        [1, 1],
        [0, 1],
      ],
    );
  });
  it("fire for an expired deadline only while they are enabled", () => {
    const p = processor();
    p.deadlines.restore({ version: 1, armed: [{ id: "hypervisor/vp0/stimer0", whenNs: 5 }] });
    p.runTo(10);
    assert.deepEqual(p.interrupts(), []);
  });
  it("keep the model's schedule, whatever is written when", () => {
    const write = fc.record({
      register: fc.constantFrom("config" as const, "count" as const),
      config: fc.constantFrom(0, 1, 2, 3, 8, 9, 10, 11),
      count: fc.oneof(fc.constantFrom(0, 1, 2), fc.nat(400)),
      after: fc.nat(300),
    });
    fc.assert(
      fc.property(fc.array(write, { maxLength: 12 }), (writes) => {
        const p = processor();
        // the model counts ticks one by one
        let now = 0;
        let [config, count, next] = [0, 0, 0];
        let expected = 0;
        let fired = 0;
        const arm = (): void => {
          next = (config & ENABLE) === 0 || count === 0 ? -1 : (config & PERIODIC) !== 0 ? now + count : count;
        };
        arm();
        for (const w of writes) {
          if (w.register === "config") {
            config = w.config;
            p.wr(CONFIG, direct(0x50) | config);
          } else {
            count = w.count;
            if (count === 0) config &= ~ENABLE;
            else if ((config & AUTO) !== 0) config |= ENABLE;
            p.wr(COUNT, count);
          }
          arm();
          for (const end = now + w.after; ; now++) {
            if (next >= 0 && next <= now) {
              expected++;
              if ((config & PERIODIC) !== 0) next += count;
              else {
                config &= ~ENABLE;
                next = -1;
              }
            }
            p.runTo(ns(now));
            fired += p.interrupts().length;
            assert.equal(fired, expected, `at ${now}`);
            assert.equal(enabled(p), (config & ENABLE) !== 0);
            if (now === end) break;
          }
          assert.equal(referenceTime(p.nowNs), now);
        }
      }),
      { numRuns: 150 },
    );
  });
});
