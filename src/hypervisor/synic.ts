/**
 * The synthetic interrupt controller of one virtual processor (TLFS, "Virtual interrupts"): 16 SINTs, a message page with a slot
 * for each, a page of event flags. All of it belongs to the processor's own thread; others leave messages and flags in the
 * shared area, and this side puts them where the guest looks. Message and flags pages are guest RAM, as KVM has them, not overlays.
 */
import type { GuestMemory } from "../machine/guest-memory.js";
import { type Trace, TraceKind } from "../trace/trace.js";
import {
  Attention,
  type HvAreas,
  MAX_PAYLOAD,
  QUEUE_SLOTS,
  queueNext,
  SINTS,
  SLOT_BYTES,
  SLOT_PAYLOAD,
  STIMER_BYTES,
  STIMERS,
  SynicArea,
  VMBUS_SINT,
} from "./shared-areas.js";

/** SINT register (TLFS, "SINTx registers"). */
const MASKED = 1 << 16;
const AUTO_EOI = 1 << 17;
const POLLING = 1 << 18;
/** Reset value: masked. */
const SINT_RESET = 0x10000;
const ENABLED = 1;
/** Offsets in a slot of the message page. */
const MESSAGE = { type: 0, size: 4, flags: 5, sender: 8, payload: 16 } as const;
const MESSAGE_PENDING = 1;
/** Message type of an expired timer. */
export const TIMER_EXPIRED = 0x8000_0010;

export interface SynicOptions {
  readonly areas: HvAreas;
  readonly memory: GuestMemory;
  readonly trace: Trace;
  /** Raises an edge-triggered vector on the own local APIC. */
  readonly raise: (vector: number) => void;
  /** The device side waited for room in the queue. */
  readonly ringDoorbell: () => void;
}

export class Synic {
  readonly #areas: HvAreas;
  readonly #words: Int32Array;
  readonly #memory: GuestMemory;
  readonly #trace: Trace;
  readonly #raise: (vector: number) => void;
  readonly #ringDoorbell: () => void;
  /** Bit = vector: it leaves service by itself. */
  readonly #autoEoi = new Uint32Array(8);
  readonly #timerMessage = new Uint8Array(24);
  readonly #timerView = new DataView(this.#timerMessage.buffer);
  /** Reference time, for timer messages. */
  readonly #referenceNow: () => number;

  constructor(o: SynicOptions, referenceNow: () => number) {
    this.#areas = o.areas;
    this.#words = o.areas.synic;
    this.#memory = o.memory;
    this.#trace = o.trace;
    this.#raise = o.raise;
    this.#ringDoorbell = o.ringDoorbell;
    this.#referenceNow = referenceNow;
  }
  reset(): void {
    this.#words.fill(0);
    for (let i = 0; i < SINTS; i++) this.#words[(SynicArea.sint >> 2) + i * 2] = SINT_RESET;
    this.refresh();
  }
  /** After the registers have been put in place from outside. */
  refresh(): void {
    this.#autoEoi.fill(0);
    for (let i = 0; i < SINTS; i++) {
      const sint = this.#sint(i);
      if ((sint & (MASKED | AUTO_EOI)) === AUTO_EOI) this.#autoEoi[(sint & 0xff) >> 5]! |= 1 << (sint & 31);
    }
  }
  #sint(i: number): number {
    return this.#words[(SynicArea.sint >> 2) + i * 2]!;
  }
  /** @returns false = #GP: an unmasked SINT with a vector below 16 */
  writeSint(i: number, low: number, high: number): boolean {
    if ((low & MASKED) === 0 && (low & 0xff) < 16) return false;
    const at = (SynicArea.sint >> 2) + i * 2;
    this.#words[at] = low;
    this.#words[at + 1] = high;
    this.refresh();
    this.deliver();
    return true;
  }
  /** SIMP or SIEFP. A page is cleared when it is enabled at a new place. */
  writePage(area: number, low: number, high: number): void {
    const at = area >> 2;
    const before = this.#page(area);
    this.#words[at] = low;
    this.#words[at + 1] = high;
    const page = this.#page(area);
    if (page >= 0 && page !== before) this.#memory.write(page, new Uint8Array(4096));
    this.deliver();
  }
  writeControl(low: number, high: number): void {
    this.#words[SynicArea.scontrol >> 2] = low;
    this.#words[(SynicArea.scontrol >> 2) + 1] = high;
    this.deliver();
  }
  /** Guest physical address of an enabled page, -1 = none (or not in RAM). */
  #page(area: number): number {
    const low = this.#words[area >> 2]!;
    if ((low & ENABLED) === 0) return -1;
    const gpa = (this.#words[(area >> 2) + 1]! >>> 0) * 2 ** 32 + ((low & ~0xfff) >>> 0);
    return this.#memory.contains(gpa, 4096) ? gpa : -1;
  }
  get #on(): boolean {
    return (this.#words[SynicArea.scontrol >> 2]! & ENABLED) !== 0;
  }
  /** Whether this vector leaves service when it is taken. */
  isAutoEoi(vector: number): boolean {
    return ((this.#autoEoi[vector >> 5]! >>> (vector & 31)) & 1) !== 0;
  }

  /** Takes what other threads left. One word load when there is nothing. */
  poll(): void {
    if (Atomics.load(this.#words, SynicArea.attention >> 2) === 0) return;
    // only our own bits: another thread may just now have asked for something else, and waits for it
    const mine = Attention.events | Attention.messages;
    const attention = Atomics.and(this.#words, SynicArea.attention >> 2, ~mine);
    if ((attention & Attention.events) !== 0) this.#takeEvents();
    if ((attention & Attention.messages) !== 0) this.deliver();
  }
  #takeEvents(): void {
    const page = this.#on ? this.#page(SynicArea.siefp) : -1;
    // no shift: RAM may be larger than 2 GiB
    const area = (page + VMBUS_SINT * 256) / 4;
    let raise = false;
    for (let w = 0; w < 64; w++) {
      if (Atomics.load(this.#words, (SynicArea.events >> 2) + w) === 0) continue;
      const bits = Atomics.exchange(this.#words, (SynicArea.events >> 2) + w, 0);
      // without a page the event is lost, as the guest asked for
      if (page < 0) continue;
      if ((~Atomics.or(this.#memory.words, area + w, bits) & bits) !== 0) raise = true;
    }
    if (!raise) return;
    this.#memory.written(page + VMBUS_SINT * 256, 256);
    this.#interrupt(VMBUS_SINT);
  }
  /** Moves messages into free slots of the message page: after each change that may have freed one. */
  deliver(): void {
    if (!this.#on) return;
    const page = this.#page(SynicArea.simp);
    if (page < 0) return;
    const head = SynicArea.queueHead >> 2;
    const first = this.#words[head]!;
    let taken = first;
    const tail = Atomics.load(this.#words, SynicArea.queueTail >> 2);
    while (taken !== tail) {
      const slot = taken % QUEUE_SLOTS;
      const at = (SynicArea.queue + slot * SLOT_BYTES) >> 2;
      const sint = this.#words[at]! & (SINTS - 1);
      const bytes = this.#areas.queueBytes;
      const from = slot * SLOT_BYTES + SLOT_PAYLOAD;
      const length = Math.min(this.#words[at + 2]!, MAX_PAYLOAD);
      const next = queueNext(taken, QUEUE_SLOTS);
      if (!this.#put(page, sint, this.#words[at + 1]!, bytes.subarray(from, from + length), next !== tail)) break;
      taken = next;
    }
    if (taken !== first) {
      Atomics.store(this.#words, head, taken);
      if (Atomics.exchange(this.#words, SynicArea.wantsRoom >> 2, 0) !== 0) this.#ringDoorbell();
    }
    if (this.#words[SynicArea.timersWaiting >> 2]! !== 0) this.#deliverTimers(page);
  }
  /** One message into its slot. @returns false: the slot is in use, and now says that another one waits */
  #put(page: number, sint: number, type: number, payload: Uint8Array, more: boolean): boolean {
    const memory = this.#memory;
    const at = page + sint * SLOT_BYTES;
    if (Atomics.load(memory.words, at / 4) !== 0) {
      memory.ram[at + MESSAGE.flags]! |= MESSAGE_PENDING;
      memory.written(at + MESSAGE.flags, 1);
      return false;
    }
    memory.ram[at + MESSAGE.size] = payload.length;
    memory.ram[at + MESSAGE.flags] = more ? MESSAGE_PENDING : 0;
    memory.ram.fill(0, at + MESSAGE.flags + 1, at + MESSAGE.payload);
    memory.ram.set(payload, at + MESSAGE.payload);
    Atomics.store(memory.words, at / 4, type | 0);
    memory.written(at, MESSAGE.payload + payload.length);
    const sintRegister = this.#sint(sint);
    this.#trace.record(TraceKind.synicMessage, sint, sintRegister & 0xff, (sintRegister & MASKED) === 0 ? 1 : 0);
    this.#interrupt(sint);
    return true;
  }
  #interrupt(sint: number): void {
    const register = this.#sint(sint);
    if ((register & (MASKED | POLLING)) === 0) this.#raise(register & 0xff);
  }

  // ---- messages of synthetic timers -------------------------------------------------------------------------------------
  /** Timer `n` has expired in message mode, at `expiration` (reference time). One message waits at most. */
  timerExpired(n: number, expiration: number): void {
    const at = (SynicArea.stimer + n * STIMER_BYTES + 16) >> 2;
    this.#words[at] = expiration | 0;
    this.#words[at + 1] = Math.floor(expiration / 2 ** 32);
    this.#words[SynicArea.timersWaiting >> 2]! |= 1 << n;
    const page = this.#on ? this.#page(SynicArea.simp) : -1;
    if (page >= 0) this.#deliverTimers(page);
  }
  timerStopped(n: number): void {
    this.#words[SynicArea.timersWaiting >> 2]! &= ~(1 << n);
  }
  #deliverTimers(page: number): void {
    for (let n = 0; n < STIMERS; n++) {
      if ((this.#words[SynicArea.timersWaiting >> 2]! & (1 << n)) === 0) continue;
      const at = (SynicArea.stimer + n * STIMER_BYTES) >> 2;
      const sint = (this.#words[at]! >>> 16) & 15;
      const now = this.#referenceNow();
      this.#timerView.setUint32(0, n, true);
      this.#timerView.setInt32(8, this.#words[at + 4]!, true);
      this.#timerView.setInt32(12, this.#words[at + 5]!, true);
      this.#timerView.setUint32(16, now >>> 0, true);
      this.#timerView.setUint32(20, Math.floor(now / 2 ** 32), true);
      if (this.#put(page, sint, TIMER_EXPIRED, this.#timerMessage, false))
        this.#words[SynicArea.timersWaiting >> 2]! &= ~(1 << n);
    }
  }
}
