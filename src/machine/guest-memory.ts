/**
 * Guest RAM as devices see it. Guest physical address = offset. A device copies out, then checks, then uses; every write goes
 * through here, so that decoded code in the page is thrown away (and, later, dirty pages are known).
 */

/** Who must know of host writes. */
export interface WriteWatcher {
  /** @returns whether code has been decoded from the range, so that processors must be told before the guest can know of the write */
  written(gpa: number, lengthBytes: number): boolean;
  /** All writes so far are seen by the processors when it returns. */
  settle(): void;
}

export class GuestMemory {
  /** The RAM itself. Who writes to it directly (a read of a file into it) calls `written` afterwards. */
  readonly ram: Uint8Array;
  /** The same as 32-bit words, for atomic accesses. */
  readonly words: Int32Array;
  readonly #view: DataView;
  readonly #watcher: WriteWatcher;
  #unsettled = false;

  constructor(ram: Uint8Array, watcher: WriteWatcher) {
    this.ram = ram;
    this.words = new Int32Array(ram.buffer, ram.byteOffset, ram.byteLength >>> 2);
    this.#view = new DataView(ram.buffer, ram.byteOffset, ram.byteLength);
    this.#watcher = watcher;
  }
  get bytes(): number {
    return this.ram.length;
  }
  /** Whether the whole range is RAM. */
  contains(gpa: number, lengthBytes: number): boolean {
    return gpa >= 0 && lengthBytes >= 0 && gpa + lengthBytes <= this.ram.length;
  }
  /** Copies out. The range must be RAM (`contains`). */
  read(gpa: number, into: Uint8Array, at = 0, lengthBytes = into.length - at): void {
    into.set(this.ram.subarray(gpa, gpa + lengthBytes), at);
  }
  write(gpa: number, from: Uint8Array, at = 0, lengthBytes = from.length - at): void {
    this.ram.set(at === 0 && lengthBytes === from.length ? from : from.subarray(at, at + lengthBytes), gpa);
    this.written(gpa, lengthBytes);
  }
  readU32(gpa: number): number {
    return this.#view.getUint32(gpa, true);
  }
  writeU32(gpa: number, value: number): void {
    this.#view.setUint32(gpa, value, true);
    this.written(gpa, 4);
  }
  /** After a direct write to `ram`. */
  written(gpa: number, lengthBytes: number): void {
    if (this.#watcher.written(gpa, lengthBytes)) this.#unsettled = true;
  }
  /** Before the guest is told of what has been written: a ring's index moves, a message is posted. */
  settle(): void {
    if (!this.#unsettled) return;
    this.#unsettled = false;
    this.#watcher.settle();
  }
}

/** Nobody executes from this RAM: tests, and devices of a machine that has not started. */
export const UNWATCHED: WriteWatcher = { written: () => false, settle: () => {} };
