/**
 * How long the processor's thread may run, as a part of all time: between slices it sleeps off what it has run too much. What it runs
 * counts by the clock, so that a host with little time to give makes the guest slower still, never the other way round.
 */

/** A sleep lasts until this much of the time may be run at once. */
const BURST_NS = 10e6;
/** One that lasts longer than it was to, or that the guest took itself, saves up so much. */
const MOST_NS = 2 * BURST_NS;

export class CpuLimit {
  readonly #part: number;
  /** ns that may be run; below 0: too much has been. */
  #credit = 0;
  #at: number;

  /** @param part of one processor's time, above 0 and at most 1 */
  constructor(part: number, nowNs: number) {
    this.#part = part;
    this.#at = nowNs;
  }
  /**
   * The thread has run from `fromNs` until now.
   * @returns ns that it has to sleep before it runs on
   */
  ran(fromNs: number, nowNs: number): number {
    // the clock is set back when a machine goes on after a pause
    const passed = Math.max(0, nowNs - this.#at);
    this.#credit = Math.min(this.#credit + passed * this.#part, this.#part * MOST_NS) - Math.max(0, nowNs - fromNs);
    this.#at = nowNs;
    return this.#credit >= 0 ? 0 : BURST_NS - this.#credit / this.#part;
  }
}
