/**
 * What other threads asked of a local APIC, as its owner takes it: vectors go on to IRR at once, NMI, INIT and start-up
 * wait here until the processor is ready for them. The words and the protocol are in machine/apic-page.
 */
import { LEVEL_REQUESTS, REQUEST_FLAGS, REQUEST_SIPI_VECTOR, RequestFlag } from "../machine/apic-page.js";

const EVENTS = RequestFlag.Nmi | RequestFlag.Init | RequestFlag.Sipi;

export interface ApicInboxState {
  readonly requests: Int32Array;
  readonly events: number;
  readonly startUpVector: number;
}

export class ApicInbox {
  readonly #requests: Int32Array;
  readonly #accept: (vector: number, level: boolean) => void;
  /** RequestFlag bits taken from the words, not yet by the processor. */
  #events = 0;
  #startUpVector = 0;

  constructor(requests: Int32Array, accept: (vector: number, level: boolean) => void) {
    this.#requests = requests;
    this.#accept = accept;
  }

  get startUpVector(): number {
    return this.#startUpVector;
  }

  /** Hands on every requested vector. One word load when nothing was asked for. */
  collect(): void {
    if (Atomics.load(this.#requests, REQUEST_FLAGS) !== 0) this.#collect();
  }

  has(flag: number): boolean {
    this.collect();
    return (this.#events & flag) !== 0;
  }

  take(flag: number): boolean {
    const had = this.has(flag);
    this.#events &= ~flag;
    return had;
  }

  /** An event from the processor's own pins. */
  raise(flag: number): void {
    this.#events |= flag & EVENTS;
  }

  reset(): void {
    this.#requests.fill(0);
    this.#events = 0;
  }

  save(): ApicInboxState {
    return { requests: Int32Array.from(this.#requests), events: this.#events, startUpVector: this.#startUpVector };
  }

  restore(s: ApicInboxState): void {
    this.#requests.set(s.requests);
    this.#events = s.events;
    this.#startUpVector = s.startUpVector;
  }

  #collect(): void {
    const requests = this.#requests;
    const flags = Atomics.exchange(requests, REQUEST_FLAGS, 0);
    this.#events |= flags & EVENTS;
    if ((flags & RequestFlag.Sipi) !== 0) this.#startUpVector = Atomics.load(requests, REQUEST_SIPI_VECTOR) & 0xff;
    for (let word = 0; word < 2 * LEVEL_REQUESTS; word++) {
      if (Atomics.load(requests, word) === 0) continue;
      let bits = Atomics.exchange(requests, word, 0);
      while (bits !== 0) {
        const bit = 31 - Math.clz32(bits);
        bits &= ~(1 << bit);
        this.#accept((word & 7) * 32 + bit, word >= LEVEL_REQUESTS);
      }
    }
  }
}
