/** Virtual time in Node: process-wide hrtime, so that all threads of a machine agree (performance.now() begins with each worker). */
import type { Clock } from "../../machine/device.js";
import type { TimeBase } from "../../vm/messages.js";

/** A clock that shows `base.timeNs` at host time `base.origin`. */
export function monotonicClock(base: TimeBase): Clock & { rebase(base: TimeBase): void } {
  let [s0, ns0] = base.origin;
  let { timeNs } = base;
  return {
    now(): number {
      const [s, ns] = process.hrtime();
      return timeNs + (s - s0) * 1e9 + (ns - ns0);
    },
    rebase(b) {
      [s0, ns0] = b.origin;
      timeNs = b.timeNs;
    },
  };
}
