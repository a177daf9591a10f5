/** The limit against a clock that is a number. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { CpuLimit } from "./cpu-limit.js";

describe("CpuLimit", () => {
  it("keeps what is run under its part of any stretch of time, but for a burst and a slice", () => {
    const slice = fc.record({
      run: fc.integer({ min: 0, max: 2_000_000 }),
      idle: fc.integer({ min: 0, max: 5_000_000 }),
    });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 100 }), fc.array(slice, { maxLength: 60 }), (percent, slices) => {
        const part = percent / 100;
        const limit = new CpuLimit(part, 0);
        let now = 0;
        const runs: { from: number; to: number }[] = [];
        for (const { run, idle } of slices) {
          const from = now;
          now += run;
          runs.push({ from, to: now });
          now += limit.ran(from, now) + idle;
        }
        for (const [i, { from }] of runs.entries()) {
          let ran = 0;
          for (const r of runs.slice(i)) {
            ran += r.to - r.from;
            assert.ok(ran <= part * (r.to - from) + part * 20e6 + 2_000_000 + 1, `${ran} of ${r.to - from}`);
          }
        }
      }),
    );
  });
  it("lets a busy thread have all of its part", () => {
    for (const part of [0.05, 0.25, 0.5, 0.9, 1]) {
      const limit = new CpuLimit(part, 0);
      let now = 0;
      let ran = 0;
      while (now < 10e9) {
        const from = now;
        now += 200_000;
        ran += 200_000;
        now += limit.ran(from, now);
      }
      assert.ok(Math.abs(ran / now - part) < 0.01, `${part}: ${ran / now}`);
    }
  });
  it("takes a clock that is set back for no time at all", () => {
    const limit = new CpuLimit(0.5, 1e9);
    limit.ran(1e9, 1.001e9);
    assert.ok(limit.ran(0.5e9, 0.501e9) <= 20e6);
  });
});
