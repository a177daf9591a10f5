/**
 * The timer of a local APIC (Intel SDM vol. 3, "APIC Timer"): one-shot, periodic, TSC-deadline.
 *
 * Its input clock runs at 1 GHz and so does the TSC, hence ticks are nanoseconds of virtual time and nothing is
 * rounded. Nothing counts: the current count is computed from the clock when it is read, and the next expiry is a
 * deadline. A guest may ask for a period of one nanosecond; it then gets one interrupt per check of the deadlines.
 */
import type { Clock, Deadlines } from "../machine/device.js";

/** LVT timer bits 18:17. */
export const TimerMode = { OneShot: 0, Periodic: 1, TscDeadline: 2 } as const;

/** 2^53: a TSC deadline beyond it is never reached. */
const NEVER = 0x20_0000_0000_0000;

export interface ApicTimerState {
  readonly mode: number;
  readonly divide: number;
  readonly initialCount: number;
  readonly startNs: number;
  readonly running: boolean;
  readonly deadlineLow: number;
  readonly deadlineHigh: number;
  readonly tscOffset: number;
}

export class ApicTimer {
  readonly #id: string;
  readonly #clock: Clock;
  readonly #deadlines: Deadlines;
  readonly #expire: () => void;
  #mode: number = TimerMode.OneShot;
  #divide = 2;
  #initialCount = 0;
  /** When the current run (one-shot) or the first period (periodic) began. */
  #startNs = 0;
  #running = false;
  #deadlineLow = 0;
  #deadlineHigh = 0;
  #tscOffset = 0;

  constructor(id: string, clock: Clock, deadlines: Deadlines, expire: () => void) {
    this.#id = id;
    this.#clock = clock;
    this.#deadlines = deadlines;
    this.#expire = expire;
    deadlines.register(id, (now) => this.#due(now));
  }

  get initialCount(): number {
    return this.#initialCount;
  }
  get deadlineLow(): number {
    return this.#deadlineLow;
  }
  get deadlineHigh(): number {
    return this.#deadlineHigh;
  }

  /** Guest TSC minus virtual time, in ticks: what the guest added by writing its TSC. A TSC deadline moves with it. */
  get tscOffset(): number {
    return this.#tscOffset;
  }
  set tscOffset(ticks: number) {
    this.#tscOffset = ticks;
    if (this.#mode === TimerMode.TscDeadline) this.#arm(this.#clock.now());
  }

  /** Entering or leaving TSC-deadline mode disarms the timer; one-shot and periodic may be exchanged while it runs. */
  setMode(mode: number): void {
    if (mode === this.#mode) return;
    const now = this.#clock.now();
    // it has expired, and nobody has looked yet: a new mode does not start it again
    if (this.#running && this.#mode === TimerMode.OneShot && this.currentCount() === 0) this.#due(now);
    if (mode === TimerMode.TscDeadline || this.#mode === TimerMode.TscDeadline) {
      this.#running = false;
      this.#initialCount = 0;
      this.#deadlineLow = 0;
      this.#deadlineHigh = 0;
    } else if (this.#running) {
      this.#startNs = now - (this.#initialCount - this.currentCount()) * this.#divide;
    }
    this.#mode = mode;
    this.#arm(now);
  }

  /** @param code the divide configuration register: bits 3, 1, 0 select 2, 4, … 128, 1 */
  setDivide(code: number): void {
    const divide = 1 << (((((code & 8) >> 1) | (code & 3)) + 1) & 7);
    if (divide === this.#divide) return;
    const now = this.#clock.now();
    if (this.#running) this.#startNs = now - (this.#initialCount - this.currentCount()) * divide;
    this.#divide = divide;
    this.#arm(now);
  }

  setInitialCount(count: number): void {
    if (this.#mode === TimerMode.TscDeadline) return; // ignored in this mode
    this.#initialCount = count >>> 0;
    this.#startNs = this.#clock.now();
    this.#running = this.#initialCount !== 0;
    this.#arm(this.#startNs);
  }

  currentCount(): number {
    if (!this.#running) return 0;
    const ticks = Math.floor((this.#clock.now() - this.#startNs) / this.#divide);
    if (this.#mode === TimerMode.Periodic) return this.#initialCount - (ticks % this.#initialCount);
    return Math.max(0, this.#initialCount - ticks);
  }

  /** IA32_TSC_DEADLINE; 0 disarms. Ignored outside TSC-deadline mode. */
  setDeadline(low: number, high: number): void {
    if (this.#mode !== TimerMode.TscDeadline) return;
    this.#deadlineLow = low >>> 0;
    this.#deadlineHigh = high >>> 0;
    this.#arm(this.#clock.now());
  }

  reset(): void {
    this.#mode = TimerMode.OneShot;
    this.#divide = 2;
    this.#initialCount = 0;
    this.#running = false;
    this.#deadlineLow = 0;
    this.#deadlineHigh = 0;
    this.#deadlines.set(this.#id, undefined);
  }

  save(): ApicTimerState {
    return {
      mode: this.#mode,
      divide: this.#divide,
      initialCount: this.#initialCount,
      startNs: this.#startNs,
      running: this.#running,
      deadlineLow: this.#deadlineLow,
      deadlineHigh: this.#deadlineHigh,
      tscOffset: this.#tscOffset,
    };
  }

  restore(s: ApicTimerState): void {
    this.#mode = s.mode;
    this.#divide = s.divide;
    this.#initialCount = s.initialCount;
    this.#startNs = s.startNs;
    this.#running = s.running;
    this.#deadlineLow = s.deadlineLow;
    this.#deadlineHigh = s.deadlineHigh;
    this.#tscOffset = s.tscOffset;
    this.#arm(this.#clock.now());
  }

  #arm(now: number): void {
    this.#deadlines.set(this.#id, this.#nextExpiry(now));
  }

  #nextExpiry(now: number): number | undefined {
    if (this.#mode === TimerMode.TscDeadline) {
      const deadline = this.#deadlineHigh * 0x1_0000_0000 + this.#deadlineLow;
      return deadline === 0 || deadline >= NEVER ? undefined : Math.max(0, deadline - this.#tscOffset);
    }
    if (!this.#running) return undefined;
    const length = this.#initialCount * this.#divide;
    if (this.#mode === TimerMode.OneShot) return this.#startNs + length;
    return this.#startNs + (Math.floor((now - this.#startNs) / length) + 1) * length;
  }

  #due(now: number): void {
    if (this.#mode === TimerMode.Periodic) {
      this.#arm(now);
    } else {
      this.#running = false;
      this.#deadlineLow = 0;
      this.#deadlineHigh = 0;
    }
    this.#expire();
  }
}
