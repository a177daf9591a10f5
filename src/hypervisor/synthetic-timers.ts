/**
 * The four synthetic timers of one virtual processor (TLFS, "Timers"). Linux uses timer 0 in direct mode, one-shot, and writes
 * nothing but COUNT for the next event; FreeBSD timer 0 in message mode, and polls CONFIG until writing COUNT = 0 has cleared enable.
 */
import type { Clock, Deadlines } from "../machine/device.js";
import { type Trace, TraceKind } from "../trace/trace.js";
import { nsOfReferenceTime, referenceTime } from "./reference-time.js";
import { STIMER_BYTES, STIMERS, SynicArea } from "./shared-areas.js";

/** CONFIG (TLFS, "Synthetic timer configuration register"). */
const Config = { enable: 1, periodic: 2, autoEnable: 8, direct: 1 << 12 } as const;
/** Nothing that a guest asks for lies further ahead than a double holds exactly. */
const LATEST = 2 ** 53;

export interface SyntheticTimersOptions {
  readonly name: string;
  /** The processor's SynicArea. */
  readonly words: Int32Array;
  readonly clock: Clock;
  readonly deadlines: Deadlines;
  readonly trace: Trace;
  /** Direct mode: a vector on the own local APIC. */
  readonly raise: (vector: number) => void;
  /** Message mode. */
  readonly post: (timer: number, expiration: number) => void;
  readonly stopped: (timer: number) => void;
}

export class SyntheticTimers {
  readonly #o: SyntheticTimersOptions;
  readonly #words: Int32Array;

  constructor(o: SyntheticTimersOptions) {
    this.#o = o;
    this.#words = o.words;
    for (let n = 0; n < STIMERS; n++) o.deadlines.register(`${o.name}/stimer${n}`, (now) => this.#due(n, now));
  }
  #at(n: number): number {
    return (SynicArea.stimer + n * STIMER_BYTES) >> 2;
  }
  config(n: number): number {
    return this.#words[this.#at(n)]! >>> 0;
  }
  configHigh(n: number): number {
    return this.#words[this.#at(n) + 1]! >>> 0;
  }
  countLow(n: number): number {
    return this.#words[this.#at(n) + 2]! >>> 0;
  }
  countHigh(n: number): number {
    return this.#words[this.#at(n) + 3]! >>> 0;
  }
  #count(n: number): number {
    return Math.min(this.countHigh(n) * 2 ** 32 + this.countLow(n), LATEST);
  }
  /** Reference time of the next expiration of a periodic timer. */
  #next(n: number): number {
    return (this.#words[this.#at(n) + 7]! >>> 0) * 2 ** 32 + (this.#words[this.#at(n) + 6]! >>> 0);
  }
  #setNext(n: number, time: number): void {
    this.#words[this.#at(n) + 6] = time % 2 ** 32;
    this.#words[this.#at(n) + 7] = Math.floor(time / 2 ** 32);
  }
  /** Message mode to SINT 0 is no target: such a timer stays off (TLFS). */
  #hasTarget(config: number): boolean {
    return (config & Config.direct) !== 0 || ((config >>> 16) & 15) !== 0;
  }
  writeConfig(n: number, low: number, high: number): void {
    const at = this.#at(n);
    this.#o.stopped(n);
    this.#words[at] = this.#hasTarget(low) ? low : low & ~Config.enable;
    this.#words[at + 1] = high;
    this.#arm(n);
  }
  writeCount(n: number, low: number, high: number): void {
    const at = this.#at(n);
    this.#words[at + 2] = low;
    this.#words[at + 3] = high;
    this.#o.stopped(n);
    const config = this.#words[at]!;
    if (low === 0 && high === 0) this.#words[at] = config & ~Config.enable;
    else if ((config & Config.autoEnable) !== 0 && this.#hasTarget(config)) this.#words[at] = config | Config.enable;
    this.#arm(n);
  }
  #arm(n: number): void {
    const config = this.#words[this.#at(n)]!;
    const count = this.#count(n);
    let when: number | undefined;
    if ((config & Config.enable) !== 0 && count !== 0) {
      if ((config & Config.periodic) === 0) when = count;
      else {
        when = Math.min(referenceTime(this.#o.clock.now()) + count, LATEST);
        this.#setNext(n, when);
      }
    }
    this.#o.deadlines.set(`${this.#o.name}/stimer${n}`, when === undefined ? undefined : nsOfReferenceTime(when));
  }
  #due(n: number, nowNs: number): void {
    const at = this.#at(n);
    const config = this.#words[at]!;
    const count = this.#count(n);
    if ((config & Config.enable) === 0 || count === 0) return;
    let expiration = count;
    if ((config & Config.periodic) === 0) this.#words[at] = config & ~Config.enable;
    else {
      expiration = this.#next(n);
      // expirations that nobody could have seen are left out; the others stay where they were
      const missed = Math.max(0, Math.floor((referenceTime(nowNs) - expiration) / count));
      const next = Math.min(expiration + (missed + 1) * count, LATEST);
      this.#setNext(n, next);
      this.#o.deadlines.set(`${this.#o.name}/stimer${n}`, nsOfReferenceTime(next));
    }
    const direct = (config & Config.direct) !== 0;
    this.#o.trace.record(TraceKind.timerExpired, n, direct ? 1 : 0);
    if (direct) this.#o.raise((config >>> 4) & 0xff);
    else this.#o.post(n, expiration);
  }
}
