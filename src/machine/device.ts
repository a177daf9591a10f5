/**
 * What a device of the machine looks like to the buses, and what a device may touch.
 * Devices get these by their constructor; they never reach for globals, timers or sockets.
 */

/** Width of one bus access, in bytes. 64-bit MMIO is done as two halves, low half first, unless a device says otherwise. */
export type AccessWidth = 1 | 2 | 4;

/** A device on the x86 port bus. An unhandled read floats high, as on a PC. */
export interface PortDevice {
  readonly name: string;
  /** Every port that it answers. */
  readonly ports: readonly number[];
  /**
   * Widest access that the device decodes (default 4). The bus splits a wider one into accesses of this width to
   * consecutive ports, low part first, as a PC's ISA bridge does for an 8-bit card.
   */
  readonly maxWidth?: AccessWidth;
  /** @returns the value, zero-extended, of `width` bytes */
  read(port: number, width: AccessWidth): number;
  write(port: number, width: AccessWidth, value: number): void;
}

/** A device in the guest physical address space. */
export interface MmioDevice {
  readonly name: string;
  /** First guest physical address, page-aligned. */
  readonly base: number;
  /** Bytes, a multiple of the page size. */
  readonly size: number;
  read(offset: number, width: AccessWidth): number;
  write(offset: number, width: AccessWidth, value: number): void;
}

/** Anything a checkpoint must keep. State is plain data (structured-cloneable, no closures); wiring is rebuilt by the constructor. */
export interface Checkpointed<S> {
  readonly stateVersion: number;
  save(): S;
  restore(state: S): void;
}

/** The one time of the VM. */
export interface Clock {
  /** Virtual time since the VM was created, in whole nanoseconds (an integer below 2^53). */
  now(): number;
}

/** Where the guest's random numbers come from. */
export interface Entropy {
  /** 32 random bits. */
  next(): number;
  /** A repeatable source's state; undefined for one that cannot be repeated. */
  readonly state: number | undefined;
  restore(state: number): void;
}

/** The VM's one deadline queue; a device owns no timer, it asks here. */
export interface Deadlines {
  /**
   * Arms, moves or (with `undefined`) disarms the deadline called `id`.
   * @param whenNs virtual time in ns; a time in the past fires at the next check
   */
  set(id: string, whenNs: number | undefined): void;
  /** Registers what runs when `id` is due. Registered once by the device's constructor. */
  register(id: string, fire: (nowNs: number) => void): void;
  /** The device is gone: `id` may be registered again. */
  unregister(id: string): void;
}

/** One interrupt input. `set(true)` asserts, `set(false)` deasserts; edge inputs latch on the rise. */
export interface IrqLine {
  set(level: boolean): void;
}
