/**
 * Reference time: 100-ns units since the partition was made (TLFS, "Timers"). The counter register and the TSC page must agree
 * to the tick, since guests make timer deadlines from one and we compare them with the other; so the counter is computed to be
 * exactly what a reader of the page gets.
 */

/** `floor(10^7 * 2^64 / hz)` as two words, for the 1-GHz TSC: 2^64 / 100. */
const SCALE_LOW = 0xf5c28f5c;
const SCALE_HIGH = 0x028f5c28;
/** Time-stamp counter of the machine: a tick is a nanosecond. */
export const TSC_HZ = 1_000_000_000;
/** Never 0 (invalid) and never all ones (invalid to old guests). */
const SEQUENCE = 1;

/**
 * Reference time at `ns` of virtual time. The page's scale is rounded down, so a reader gets `ceil(ns / 100) - 1`, at every time
 * that a partition can reach.
 */
export function referenceTime(ns: number): number {
  return ns <= 0 ? 0 : Math.floor((ns - 1) / 100);
}
/** First ns at which `referenceTime` is `time` or later. */
export function nsOfReferenceTime(time: number): number {
  return time <= 0 ? 0 : time * 100 + 1;
}

/** The page (TLFS, "Reference TSC page"): sequence u32 @0, scale u64 @8, offset i64 @16. */
export function referenceTscPage(tscOffset: { readonly low: number; readonly high: number }): Uint8Array {
  const page = new Uint8Array(4096);
  const view = new DataView(page.buffer);
  view.setUint32(8, SCALE_LOW, true);
  view.setUint32(12, SCALE_HIGH, true);
  // The guest's TSC is virtual time plus its own offset: that is taken off again, to the nearest tick below. A guest that moves
  // its TSC by no whole number of ticks reads a time that is one tick ahead at most.
  const ticks = (BigInt(tscOffset.high | 0) << 32n) + BigInt(tscOffset.low >>> 0);
  const rest = ((ticks % 100n) + 100n) % 100n;
  view.setBigInt64(16, -((ticks - rest) / 100n), true);
  view.setUint32(0, SEQUENCE, true);
  return page;
}
