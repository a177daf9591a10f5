/** How busy a machine is, over the last seconds: its process, and its processor. */
export interface Usage {
  /** ms that the process has run, all threads. */
  readonly cpuMs: number;
  readonly rssBytes: number;
}

interface Sample {
  readonly atNs: number;
  readonly cpuMs: number;
}
/** A load is over this many samples; a new one of the guest's processor needs this much time. */
const KEPT = 3;
const LEAST_NS = 500e6;

export class LoadMeter {
  readonly #host: { now(): number; usage(): Usage };
  readonly #samples: Sample[] = [];
  #guest: { readonly timeNs: number; readonly haltedNs: number } = { timeNs: 0, haltedNs: 0 };
  #guestLoad: number | undefined;

  constructor(host: { now(): number; usage(): Usage }) {
    this.#host = host;
    this.sample();
  }
  sample(): void {
    this.#samples.push({ atNs: this.#host.now(), cpuMs: this.#host.usage().cpuMs });
    if (this.#samples.length > KEPT) this.#samples.shift();
  }
  /** Of one processor of the host. */
  host(): number {
    const first = this.#samples[0]!;
    const ns = this.#host.now() - first.atNs;
    return ns <= 0 ? 0 : ((this.#host.usage().cpuMs - first.cpuMs) * 1e6) / ns;
  }
  /** The part of the time since it was last asked for that the guest's processor was not halted. */
  guest({ timeNs, haltedNs }: { readonly timeNs: number; readonly haltedNs: number }): number | undefined {
    // the guest has been reset meanwhile
    if (timeNs < this.#guest.timeNs || haltedNs < this.#guest.haltedNs) this.#guest = { timeNs: 0, haltedNs: 0 };
    const ns = timeNs - this.#guest.timeNs;
    if (ns >= LEAST_NS) {
      this.#guestLoad = Math.min(1, Math.max(0, 1 - (haltedNs - this.#guest.haltedNs) / ns));
      this.#guest = { timeNs, haltedNs };
    }
    return this.#guestLoad;
  }
}
