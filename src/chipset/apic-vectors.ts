/**
 * The vectors of a local APIC: requested (IRR), in service (ISR), level-triggered (TMR), and which of them may interrupt
 * (Intel SDM vol. 3, "Interrupt Acceptance for Fixed Interrupts" and "Task and Processor Priorities").
 *
 * The bitmaps are the APIC's registers in the shared page: 32 vectors in every fourth word.
 */
import { ApicRegister as R } from "../machine/apic-page.js";

export class ApicVectors {
  readonly #registers: Int32Array;
  /** Highest vector in IRR and in ISR, -1 if none. */
  #requested = -1;
  #inService = -1;

  constructor(registers: Int32Array) {
    this.#registers = registers;
  }

  /** Recomputes what is cached, after the page was replaced. */
  refresh(): void {
    this.#requested = this.#highest(R.IRR);
    this.#inService = this.#highest(R.ISR);
    this.#updatePpr();
  }

  accept(vector: number, level: boolean): void {
    this.#setBit(R.IRR, vector);
    if (level) this.#setBit(R.TMR, vector);
    else this.#clearBit(R.TMR, vector);
    if (vector > this.#requested) this.#requested = vector;
  }

  /** The highest requested vector if its class is above the processor's priority, else -1. */
  pending(): number {
    const v = this.#requested;
    return v >= 0 && (v & 0xf0) > (this.#registers[R.PPR >> 2]! & 0xf0) ? v : -1;
  }

  /** Takes the pending vector into service. @returns it, or -1 */
  acknowledge(): number {
    const v = this.pending();
    if (v < 0) return -1;
    this.#clearBit(R.IRR, v);
    this.#requested = this.#highest(R.IRR);
    this.#setBit(R.ISR, v);
    this.#inService = v;
    this.#updatePpr();
    return v;
  }

  /** Ends the highest vector in service. @returns it if it was level-triggered, so that the IO-APIC must hear of it; else -1 */
  eoi(): number {
    const v = this.#inService;
    if (v < 0) return -1;
    this.#clearBit(R.ISR, v);
    this.#inService = this.#highest(R.ISR);
    this.#updatePpr();
    return this.#testBit(R.TMR, v) ? v : -1;
  }

  setTaskPriority(tpr: number): void {
    this.#registers[R.TPR >> 2] = tpr;
    this.#updatePpr();
  }

  /** PPR: the task priority, or the class in service where that is higher. Stored atomically, as routers arbitrate by it. */
  #updatePpr(): void {
    const tpr = this.#registers[R.TPR >> 2]! & 0xff;
    const inService = this.#inService < 0 ? 0 : this.#inService & 0xf0;
    Atomics.store(this.#registers, R.PPR >> 2, (tpr & 0xf0) >= inService ? tpr : inService);
  }

  #setBit(bitmap: number, v: number): void {
    const word = (bitmap >> 2) + ((v >> 5) << 2);
    this.#registers[word] = this.#registers[word]! | (1 << (v & 31));
  }

  #clearBit(bitmap: number, v: number): void {
    const word = (bitmap >> 2) + ((v >> 5) << 2);
    this.#registers[word] = this.#registers[word]! & ~(1 << (v & 31));
  }

  #testBit(bitmap: number, v: number): boolean {
    return (this.#registers[(bitmap >> 2) + ((v >> 5) << 2)]! & (1 << (v & 31))) !== 0;
  }

  #highest(bitmap: number): number {
    for (let i = 7; i >= 0; i--) {
      const bits = this.#registers[(bitmap >> 2) + i * 4]!;
      if (bits !== 0) return i * 32 + 31 - Math.clz32(bits);
    }
    return -1;
  }
}
