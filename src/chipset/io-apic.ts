/**
 * The IO-APIC: 24 interrupt inputs turned into messages to local APICs (Intel 82093AA data sheet; version 0x20 adds
 * the EOI register).
 *
 * Edge inputs send on the rise of the line; a rise while masked is lost, as in hardware. Level inputs send while the
 * line is asserted, unmasked, and the last message was acknowledged (remote IRR clear). Polarity is not modelled: a
 * line is asserted or not. Linux clears a stuck remote IRR through the EOI register, or by switching to edge and back.
 */
import type { AccessWidth, Checkpointed, IrqLine, MmioDevice } from "../machine/device.js";
import type { InterruptRouter } from "../machine/interrupt-router.js";
import { IO_APIC_BASE } from "../machine/memory-map.js";

export const IO_APIC_PINS = 24;

const VERSION = ((IO_APIC_PINS - 1) << 16) | 0x20;

/** Low half of a redirection entry; the high half holds the destination in bits 31:24. */
const Entry = { VECTOR: 0xff, LOGICAL: 1 << 11, REMOTE_IRR: 1 << 14, LEVEL: 1 << 15, MASKED: 1 << 16 } as const;
/** Vector, delivery mode, destination mode, polarity, trigger, mask; the rest is read-only or reserved. */
const ENTRY_WRITABLE = 0x1_afff;
const DESTINATION = 0xff00_0000;

export interface IoApicState {
  readonly version: 1;
  readonly select: number;
  readonly id: number;
  readonly low: Int32Array;
  readonly high: Int32Array;
  /** Bit n: line n is asserted. */
  readonly lines: number;
}

export class IoApic implements MmioDevice, Checkpointed<IoApicState> {
  readonly name = "io-apic";
  readonly base = IO_APIC_BASE;
  readonly size = 0x1000;
  readonly stateVersion = 1;
  readonly #router: InterruptRouter;
  readonly #low = new Int32Array(IO_APIC_PINS).fill(Entry.MASKED);
  readonly #high = new Int32Array(IO_APIC_PINS);
  readonly #pins: IrqLine[] = [];
  #select = 0;
  #id = 0;
  #lines = 0;

  constructor(router: InterruptRouter) {
    this.#router = router;
    for (let pin = 0; pin < IO_APIC_PINS; pin++) this.#pins.push({ set: (level) => this.#set(pin, level) });
  }

  /** The input `pin` (0..23), which is also the global system interrupt of that number. */
  line(pin: number): IrqLine {
    return this.#pins[pin]!;
  }

  /** A local APIC finished a level-triggered vector. */
  eoi(vector: number): void {
    for (let pin = 0; pin < IO_APIC_PINS; pin++) {
      const entry = this.#low[pin]!;
      if ((entry & Entry.REMOTE_IRR) === 0 || (entry & Entry.VECTOR) !== vector) continue;
      this.#low[pin] = entry & ~Entry.REMOTE_IRR;
      this.#sendLevel(pin);
    }
  }

  read(offset: number, _width: AccessWidth): number {
    const value = (offset & 0xfc) === 0 ? this.#select : (offset & 0xfc) === 0x10 ? this.#readRegister() : 0;
    return value >>> ((offset & 3) * 8);
  }

  write(offset: number, _width: AccessWidth, value: number): void {
    switch (offset & 0xff) {
      case 0x00:
        this.#select = value & 0xff;
        return;
      case 0x10:
        this.#writeRegister(value);
        return;
      case 0x40:
        this.eoi(value & 0xff);
        return;
    }
  }

  reset(): void {
    this.#low.fill(Entry.MASKED);
    this.#high.fill(0);
    this.#select = 0;
    this.#id = 0;
  }

  save(): IoApicState {
    return {
      version: 1,
      select: this.#select,
      id: this.#id,
      low: this.#low.slice(),
      high: this.#high.slice(),
      lines: this.#lines,
    };
  }

  restore(s: IoApicState): void {
    this.#select = s.select;
    this.#id = s.id;
    this.#low.set(s.low);
    this.#high.set(s.high);
    this.#lines = s.lines;
  }

  #readRegister(): number {
    const n = this.#select;
    if (n === 0) return this.#id << 24;
    if (n === 1) return VERSION;
    if (n === 2) return this.#id << 24; // arbitration id
    if (n < 0x10 || n >= 0x10 + 2 * IO_APIC_PINS) return 0;
    const half = (n & 1) === 0 ? this.#low : this.#high;
    return half[(n - 0x10) >> 1]! >>> 0;
  }

  #writeRegister(value: number): void {
    const n = this.#select;
    if (n === 0) this.#id = (value >>> 24) & 0xf;
    if (n < 0x10 || n >= 0x10 + 2 * IO_APIC_PINS) return;
    const pin = (n - 0x10) >> 1;
    if ((n & 1) !== 0) {
      this.#high[pin] = value & DESTINATION;
      return;
    }
    // Remote IRR stays, unless the entry becomes edge-triggered, where it has no meaning.
    const remoteIrr = (value & Entry.LEVEL) !== 0 ? this.#low[pin]! & Entry.REMOTE_IRR : 0;
    this.#low[pin] = (value & ENTRY_WRITABLE) | remoteIrr;
    this.#sendLevel(pin);
  }

  #set(pin: number, level: boolean): void {
    const bit = 1 << pin;
    if (level === ((this.#lines & bit) !== 0)) return;
    this.#lines ^= bit;
    if (!level) return;
    const entry = this.#low[pin]!;
    if ((entry & Entry.LEVEL) !== 0) this.#sendLevel(pin);
    else if ((entry & Entry.MASKED) === 0) this.#send(pin);
  }

  #sendLevel(pin: number): void {
    const entry = this.#low[pin]!;
    const quiet = Entry.MASKED | Entry.REMOTE_IRR;
    if ((entry & Entry.LEVEL) === 0 || (entry & quiet) !== 0 || (this.#lines & (1 << pin)) === 0) return;
    if (this.#send(pin)) this.#low[pin] = entry | Entry.REMOTE_IRR;
  }

  #send(pin: number): boolean {
    const entry = this.#low[pin]!;
    const destination = this.#high[pin]! >>> 24;
    const level = (entry & Entry.LEVEL) !== 0;
    return this.#router.deliver(destination, (entry & Entry.LOGICAL) !== 0, (entry >>> 8) & 7, entry & 0xff, level);
  }
}
