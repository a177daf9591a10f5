/** Loads from counters that a test sets. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { LoadMeter } from "./load.js";

describe("LoadMeter", () => {
  const setUp = (): { host: { ns: number; cpuMs: number }; meter: LoadMeter } => {
    const host = { ns: 5e9, cpuMs: 700 };
    const meter = new LoadMeter({ now: () => host.ns, usage: () => ({ cpuMs: host.cpuMs, rssBytes: 0 }) });
    return { host, meter };
  };
  it("has the process's over the last samples, not over its life", () => {
    const { host, meter } = setUp();
    assert.equal(meter.host(), 0);
    host.ns += 1e9;
    host.cpuMs += 1500;
    assert.equal(meter.host(), 1.5);
    for (let i = 0; i < 4; i++) {
      host.ns += 2e9;
      host.cpuMs += 500;
      meter.sample();
    }
    assert.equal(meter.host(), 0.25);
  });
  it("has the guest's since it was asked for last, where that is long enough ago, and anew after a reset", () => {
    const { meter } = setUp();
    assert.equal(meter.guest({ timeNs: 1e8, haltedNs: 0 }), undefined);
    assert.equal(meter.guest({ timeNs: 4e9, haltedNs: 3e9 }), 0.25);
    assert.equal(meter.guest({ timeNs: 4.1e9, haltedNs: 3e9 }), 0.25);
    assert.equal(meter.guest({ timeNs: 6e9, haltedNs: 3e9 }), 1);
    assert.equal(meter.guest({ timeNs: 1e9, haltedNs: 0.5e9 }), 0.5);
  });
});
