/**
 * The deadline queue: when must which device be called next, in virtual time.
 *
 * Devices own no timers. The run loop asks `earliest()` how long it may run or sleep, and calls `runDue()`. Order is
 * by (time, order of registration), so that two runs of the same guest fire in the same order.
 * There are a few dozen deadlines at most, hence plain arrays and a cached minimum instead of a heap.
 */
import type { Checkpointed, Deadlines } from "./device.js";
import { invariant } from "./guest-violation.js";

export interface DeadlineQueueState {
  readonly version: 1;
  readonly armed: readonly { readonly id: string; readonly whenNs: number }[];
}

const DISARMED = Number.POSITIVE_INFINITY;

export class DeadlineQueue implements Deadlines, Checkpointed<DeadlineQueueState> {
  readonly stateVersion = 1;
  readonly #index = new Map<string, number>();
  readonly #ids: string[] = [];
  readonly #fire: ((nowNs: number) => void)[] = [];
  readonly #when: number[] = [];
  /** The pass of `runDue` in which each deadline fired last. */
  readonly #firedIn: number[] = [];
  /** Those whose device is gone; their places are kept for others of the same name. */
  readonly #gone = new Set<string>();
  #pass = 0;
  #earliest = DISARMED;

  register(id: string, fire: (nowNs: number) => void): void {
    const before = this.#index.get(id);
    if (before !== undefined) {
      invariant(this.#gone.delete(id), `deadline ${id} registered twice`);
      this.#fire[before] = fire;
      return;
    }
    this.#index.set(id, this.#ids.length);
    this.#ids.push(id);
    this.#fire.push(fire);
    this.#when.push(DISARMED);
    this.#firedIn.push(0);
  }

  set(id: string, whenNs: number | undefined): void {
    const i = this.#index.get(id);
    invariant(i !== undefined, `deadline ${id} is not registered`);
    const old = this.#when[i]!;
    const when = whenNs ?? DISARMED;
    this.#when[i] = when;
    if (when <= this.#earliest) this.#earliest = when;
    else if (old === this.#earliest) this.#recompute();
  }

  unregister(id: string): void {
    this.set(id, undefined);
    this.#gone.add(id);
  }

  /** Virtual time in ns at which something is due; Infinity if nothing is armed. */
  earliest(): number {
    return this.#earliest;
  }

  /**
   * Fires what is due. Each deadline fires at most once per call: one that is armed again for a time already past (a
   * guest may ask for a period of a nanosecond) waits for the next call, so that a call always ends.
   */
  runDue(nowNs: number): void {
    if (this.#earliest > nowNs) return;
    const pass = ++this.#pass;
    for (;;) {
      let next = -1;
      let when = DISARMED;
      for (let i = 0; i < this.#when.length; i++) {
        const w = this.#when[i]!;
        if (w <= nowNs && w < when && this.#firedIn[i] !== pass) {
          next = i;
          when = w;
        }
      }
      if (next < 0) return;
      this.#firedIn[next] = pass;
      this.#when[next] = DISARMED;
      this.#recompute();
      this.#fire[next]!(nowNs);
    }
  }

  save(): DeadlineQueueState {
    const armed: { id: string; whenNs: number }[] = [];
    for (let i = 0; i < this.#ids.length; i++) {
      if (this.#when[i] !== DISARMED) armed.push({ id: this.#ids[i]!, whenNs: this.#when[i]! });
    }
    return { version: 1, armed };
  }

  /** Replaces what is armed; every id must have been registered by its device before. */
  restore(state: DeadlineQueueState): void {
    this.#when.fill(DISARMED);
    this.#earliest = DISARMED;
    for (const { id, whenNs } of state.armed) this.set(id, whenNs);
  }

  #recompute(): void {
    let earliest = DISARMED;
    for (let i = 0; i < this.#when.length; i++) if (this.#when[i]! < earliest) earliest = this.#when[i]!;
    this.#earliest = earliest;
  }
}
