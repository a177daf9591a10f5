/**
 * A local APIC: the interrupt controller of one virtual processor (Intel SDM vol. 3, "Advanced Programmable Interrupt
 * Controller"), in xAPIC and x2APIC mode.
 *
 * Its registers live in shared memory in the layout of the xAPIC page; machine/apic-page says who may touch what. All
 * methods belong to the owning processor's thread. What guests rely on: Linux tests nothing but reads back LVTs and
 * the version; FreeBSD reads the maximum LVT number. Left out: SMI and ExtINT (no system management mode, no 8259),
 * CMCI, suppression of EOI broadcasts.
 */
import {
  ApicBase,
  type ApicDoor,
  DeliveryMode,
  ApicRegister as R,
  RequestFlag,
  SVR_ENABLED,
} from "../machine/apic-page.js";
import type { Checkpointed, Clock, Deadlines } from "../machine/device.js";
import { BROADCAST } from "../machine/interrupt-router.js";
import { ApicInbox, type ApicInboxState } from "./apic-inbox.js";
import {
  DIVIDE_BITS,
  ICR_BITS,
  isLegalBase,
  isX2Readable,
  isX2Writable,
  LVT_BITS,
  LVT_MASKED,
  LVTS,
  resetRegisters,
  SVR_BITS,
  setIdentity,
} from "./apic-registers.js";
import { ApicTimer, type ApicTimerState, TimerMode } from "./apic-timer.js";
import { ApicVectors } from "./apic-vectors.js";

export interface LocalApicOptions {
  /** x2APIC id, equal to the index of the virtual processor. */
  readonly id: number;
  /** 1024 words: the 4 KiB xAPIC register page. */
  readonly registers: Int32Array;
  /** Request words, see machine/apic-page. */
  readonly requests: Int32Array;
  readonly wake: () => void;
  readonly clock: Clock;
  readonly deadlines: Deadlines;
  /** Sends an IPI: InterruptRouter.sendIpi without the sender. */
  readonly send: (icrLow: number, destination: number) => void;
  /** Tells the IO-APIC that a level-triggered vector was finished. */
  readonly eoiBroadcast: (vector: number) => void;
}

export interface LocalApicState {
  readonly version: 1;
  readonly registers: Int32Array;
  readonly inbox: ApicInboxState;
  readonly baseHigh: number;
  readonly errors: number;
  readonly lint: number;
  readonly timer: ApicTimerState;
}

/** ESR bits (SDM, "Error Handling"). */
const ErrorBit = { SendIllegalVector: 1 << 5, ReceiveIllegalVector: 1 << 6 } as const;

export class LocalApic implements ApicDoor, Checkpointed<LocalApicState> {
  readonly stateVersion = 1;
  readonly id: number;
  readonly registers: Int32Array;
  readonly requests: Int32Array;
  readonly wake: () => void;
  /** High half of the last MSR read. */
  msrHigh = 0;
  readonly #send: (icrLow: number, destination: number) => void;
  readonly #eoiBroadcast: (vector: number) => void;
  readonly #timer: ApicTimer;
  readonly #vectors: ApicVectors;
  readonly #inbox: ApicInbox;
  #baseHigh = 0;
  /** Errors since the last write to the ESR. */
  #errors = 0;
  /** Levels of the LINT pins, bit n = LINTn. */
  #lint = 0;

  constructor(o: LocalApicOptions) {
    this.id = o.id;
    this.registers = o.registers;
    this.requests = o.requests;
    this.wake = o.wake;
    this.#send = o.send;
    this.#eoiBroadcast = o.eoiBroadcast;
    this.#vectors = new ApicVectors(o.registers);
    this.#inbox = new ApicInbox(o.requests, (vector, level) => {
      if (this.hardwareEnabled) this.#accept(vector, level);
    });
    this.#timer = new ApicTimer(`local-apic#${o.id}`, o.clock, o.deadlines, () => this.#lvtFixed(R.LVT_TIMER));
    this.reset();
  }

  /** Power-up state; the bootstrap processor is id 0. */
  reset(): void {
    this.#baseHigh = 0;
    this.#setBase(0xfee0_0000 | ApicBase.EN | (this.id === 0 ? ApicBase.BSP : 0) | 0);
    this.#inbox.reset();
    this.#lint = 0;
    this.initReset();
  }

  /** What an INIT does: everything but the mode and the id (SDM, "Local APIC State After It Receives an INIT-Deassert IPI"). */
  initReset(): void {
    resetRegisters(this.registers, this.id);
    this.#errors = 0;
    this.#vectors.refresh();
    this.#timer.reset();
  }

  // --- Interrupts, as the processor sees them --------------------------------------------------------------------

  /** Moves what other threads asked for into IRR and TMR. One word load when nothing was asked for. */
  collectRequests(): void {
    this.#inbox.collect();
  }

  /** Highest-priority vector that may be delivered now, or -1. */
  pendingVector(): number {
    this.#inbox.collect();
    return this.#vectors.pending();
  }

  /** Takes the pending vector into service. @returns it, or -1 if there is none. For an auto-EOI SINT call `eoi()` right after. */
  acknowledge(): number {
    this.#inbox.collect();
    return this.#vectors.acknowledge();
  }

  eoi(): void {
    const level = this.#vectors.eoi();
    if (level >= 0) this.#eoiBroadcast(level);
  }

  /** Raises an edge-triggered vector on the own processor (SynIC, timers); any thread uses `requestVector`. */
  raise(vector: number): void {
    if (this.hardwareEnabled && (this.registers[R.SVR >> 2]! & SVR_ENABLED) !== 0) this.#accept(vector & 0xff, false);
  }

  hasNmi(): boolean {
    return this.#inbox.has(RequestFlag.Nmi);
  }
  takeNmi(): boolean {
    return this.#inbox.take(RequestFlag.Nmi);
  }
  /** The caller then resets the processor, calls `initReset()` and waits for a start-up. */
  takeInit(): boolean {
    return this.#inbox.take(RequestFlag.Init);
  }
  /** @returns the start-up vector (the processor starts at vector * 0x1000), or -1. Take INITs first. */
  takeStartUp(): number {
    return this.#inbox.take(RequestFlag.Sipi) ? this.#inbox.startUpVector : -1;
  }

  get cr8(): number {
    return (this.registers[R.TPR >> 2]! >>> 4) & 0xf;
  }
  set cr8(value: number) {
    this.#vectors.setTaskPriority((value & 0xf) << 4);
  }

  /** A wire to LINT0 or LINT1. */
  setLint(pin: 0 | 1, level: boolean): void {
    const bit = 1 << pin;
    const rise = level && (this.#lint & bit) === 0;
    this.#lint = level ? this.#lint | bit : this.#lint & ~bit;
    if (!rise) return;
    const lvt = this.registers[(pin === 0 ? R.LVT_LINT0 : R.LVT_LINT1) >> 2]!;
    if ((lvt & LVT_MASKED) !== 0) return;
    const mode = (lvt >>> 8) & 7;
    if (mode === DeliveryMode.Fixed) this.#accept(lvt & 0xff, false);
    else if (mode === DeliveryMode.Nmi) this.#inbox.raise(RequestFlag.Nmi);
    else if (mode === DeliveryMode.Init) this.#inbox.raise(RequestFlag.Init);
  }

  // --- IA32_APIC_BASE and the TSC deadline -----------------------------------------------------------------------

  get baseLow(): number {
    return this.registers[R.HOST_BASE >> 2]! >>> 0;
  }
  get baseHigh(): number {
    return this.#baseHigh;
  }
  get hardwareEnabled(): boolean {
    return (this.registers[R.HOST_BASE >> 2]! & ApicBase.EN) !== 0;
  }
  /** Where its page is, when it has one: 2^52 = nowhere (disabled, or in x2APIC mode). */
  get pageBase(): number {
    if (!this.hardwareEnabled || this.x2apic) return 2 ** 52;
    return this.#baseHigh * 2 ** 32 + ((this.registers[R.HOST_BASE >> 2]! & ~0xfff) >>> 0);
  }
  get x2apic(): boolean {
    return (this.registers[R.HOST_BASE >> 2]! & ApicBase.EXTD) !== 0;
  }

  /** @returns false for #GP: reserved bits, or a transition that the SDM forbids ("x2APIC State Transitions"). */
  writeBase(low: number, high: number): boolean {
    if (!isLegalBase(this.baseLow, low, high)) return false;
    const wasEnabled = this.hardwareEnabled;
    this.#baseHigh = high >>> 0;
    this.#setBase(low | 0);
    if (!this.hardwareEnabled && wasEnabled) this.initReset();
    else setIdentity(this.registers, this.id);
    return true;
  }

  get tscDeadlineLow(): number {
    return this.#timer.deadlineLow;
  }
  get tscDeadlineHigh(): number {
    return this.#timer.deadlineHigh;
  }
  writeTscDeadline(low: number, high: number): void {
    this.#timer.setDeadline(low, high);
  }
  /** Guest TSC minus virtual time, in ticks. */
  set tscOffset(ticks: number) {
    this.#timer.tscOffset = ticks;
  }

  // --- Register access -------------------------------------------------------------------------------------------

  /** The whole 32-bit register at `offset`; the three words after each register read as 0. */
  mmioRead(offset: number): number {
    if (!this.hardwareEnabled || this.x2apic || (offset & 0xc) !== 0) return 0;
    return this.#read(offset & 0xff0);
  }

  mmioWrite(offset: number, value: number): void {
    if (!this.hardwareEnabled || this.x2apic || (offset & 0xf) !== 0) return;
    const register = offset & 0xff0;
    const words = this.registers;
    switch (register) {
      case R.LDR:
        words[R.LDR >> 2] = value & 0xff00_0000;
        return;
      case R.DFR:
        words[R.DFR >> 2] = value | 0x0fff_ffff;
        return;
      case R.ICR_HIGH:
        words[R.ICR_HIGH >> 2] = value & 0xff00_0000;
        return;
      case R.ICR_LOW: {
        const to = words[R.ICR_HIGH >> 2]! >>> 24;
        this.#command(value, to === 0xff && (value & 0x800) === 0 ? BROADCAST : to);
        return;
      }
      case R.SELF_IPI:
        return; // x2APIC only
      default:
        this.#write(register, value | 0);
    }
  }

  /**
   * x2APIC MSR 0x800 + index.
   * @returns the low half (the high one is in `msrHigh`), or undefined for #GP
   */
  readMsr(index: number): number | undefined {
    this.msrHigh = 0;
    if (!this.x2apic || !isX2Readable(index)) return undefined;
    const register = index << 4;
    if (register === R.ICR_LOW) this.msrHigh = this.registers[R.ICR_HIGH >> 2]! >>> 0;
    return this.#read(register);
  }

  /** @returns false for #GP */
  writeMsr(index: number, low: number, high: number): boolean {
    if (!this.x2apic || !isX2Writable(index, low)) return false;
    const register = index << 4;
    if (register === R.ICR_LOW) {
      this.registers[R.ICR_HIGH >> 2] = high | 0;
      this.#command(low, high >>> 0);
      return true;
    }
    if (high !== 0) return false;
    if (register === R.SELF_IPI) this.#selfIpi(low & 0xff);
    else this.#write(register, low | 0);
    return true;
  }

  // --- State -----------------------------------------------------------------------------------------------------

  save(): LocalApicState {
    return {
      version: 1,
      registers: Int32Array.from(this.registers),
      inbox: this.#inbox.save(),
      baseHigh: this.#baseHigh,
      errors: this.#errors,
      lint: this.#lint,
      timer: this.#timer.save(),
    };
  }

  restore(s: LocalApicState): void {
    this.registers.set(s.registers);
    this.#inbox.restore(s.inbox);
    this.#baseHigh = s.baseHigh;
    this.#errors = s.errors;
    this.#lint = s.lint;
    this.#timer.restore(s.timer);
    this.#vectors.refresh();
  }

  // --- Inside ----------------------------------------------------------------------------------------------------

  #read(register: number): number {
    if (register === R.TIMER_CURRENT) return this.#timer.currentCount();
    if (register >= R.ISR && register < R.ESR) this.collectRequests(); // a poll of IRR sees what has been sent
    if (register === R.EOI || register === R.SELF_IPI) return 0;
    return this.registers[register >> 2]! >>> 0;
  }

  /** Writes that mean the same in both modes. Read-only and unknown registers ignore them. */
  #write(register: number, value: number): void {
    const words = this.registers;
    const lvtBits = LVT_BITS.get(register);
    if (lvtBits !== undefined) {
      this.#writeLvt(register, value & lvtBits);
      return;
    }
    switch (register) {
      case R.TPR:
        this.#vectors.setTaskPriority(value & 0xff);
        return;
      case R.EOI:
        this.eoi();
        return;
      case R.SVR:
        words[R.SVR >> 2] = value & SVR_BITS;
        if ((value & SVR_ENABLED) === 0) for (const lvt of LVTS) words[lvt >> 2] = words[lvt >> 2]! | LVT_MASKED;
        return;
      case R.ESR:
        words[R.ESR >> 2] = this.#errors;
        this.#errors = 0;
        return;
      case R.TIMER_INITIAL:
        this.#timer.setInitialCount(value);
        words[R.TIMER_INITIAL >> 2] = this.#timer.initialCount;
        return;
      case R.TIMER_DIVIDE:
        words[R.TIMER_DIVIDE >> 2] = value & DIVIDE_BITS;
        this.#timer.setDivide(value);
        return;
    }
  }

  #writeLvt(register: number, value: number): void {
    const words = this.registers;
    const enabled = (words[R.SVR >> 2]! & SVR_ENABLED) !== 0;
    words[register >> 2] = enabled ? value : value | LVT_MASKED;
    if (register !== R.LVT_TIMER) return;
    const mode = (value >>> 17) & 3;
    this.#timer.setMode(mode === 3 ? TimerMode.OneShot : mode); // 3 is reserved
    words[R.TIMER_INITIAL >> 2] = this.#timer.initialCount;
  }

  #command(icrLow: number, destination: number): void {
    this.registers[R.ICR_LOW >> 2] = icrLow & ICR_BITS;
    const mode = (icrLow >>> 8) & 7;
    const vector = icrLow & 0xff;
    if (mode <= DeliveryMode.LowestPriority && vector < 16) {
      this.#error(ErrorBit.SendIllegalVector);
      return;
    }
    this.#send(icrLow & ICR_BITS, destination);
  }

  #selfIpi(vector: number): void {
    if (vector < 16) this.#error(ErrorBit.SendIllegalVector);
    else this.raise(vector);
  }

  #accept(vector: number, level: boolean): void {
    if (vector < 16) {
      this.#error(ErrorBit.ReceiveIllegalVector);
      return;
    }
    this.#vectors.accept(vector, level);
  }

  #error(bit: number): void {
    const fresh = (this.#errors & bit) === 0;
    this.#errors |= bit;
    if (fresh) this.#lvtFixed(R.LVT_ERROR);
  }

  /** The timer and error entries have no delivery mode: always fixed. An illegal vector must not recurse by way of the error entry. */
  #lvtFixed(register: number): void {
    const lvt = this.registers[register >> 2]!;
    if ((lvt & LVT_MASKED) === 0) this.#accept(lvt & 0xff, false);
  }

  #setBase(low: number): void {
    Atomics.store(this.registers, R.HOST_BASE >> 2, low);
  }
}
