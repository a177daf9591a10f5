/**
 * The receive buffer, cut into sections of equal size: which are free, and which the guest has. The sections of one ring packet are a
 * list, named by its first section; the guest gives all of them back with the packet's transaction id.
 */
import type { GuestBuffer } from "./guest-buffer.js";

/** Sections at most: Linux gives no more than 31 MiB. */
const MAX_SECTIONS = 32_768;
/** Sections that frames do not get: an answer to the guest's request must find one. */
export const RESERVED_SECTIONS = 8;
const END = -1;

/** Plain data. */
export interface SavedReceiveBuffer {
  readonly handle: number;
  readonly id: number;
  readonly sectionBytes: number;
  readonly generation: number;
  readonly free: Int32Array;
  readonly next: Int32Array;
  readonly owners: Int16Array;
  readonly tags: Uint32Array;
}

export class ReceiveBuffer {
  readonly buffer: GuestBuffer;
  readonly sectionBytes: number;
  readonly sections: number;
  /** Free sections: a stack. */
  readonly #free: Int32Array;
  #freeCount: number;
  /** Of a section that is not free: the next of its packet. */
  readonly #next: Int32Array;
  /** Of a packet's first section: the channel that it was sent on; -1 of all others. */
  readonly #owners: Int16Array;
  /** Of a packet's first section: high half of the transaction id, so that an id is not taken twice. */
  readonly #tags: Uint32Array;
  #generation: number;

  /** @param generation of the buffer before it on the same channel, so that what comes late for that one is known */
  constructor(buffer: GuestBuffer, sectionBytes: number, generation = 0) {
    this.#generation = generation;
    this.buffer = buffer;
    this.sectionBytes = sectionBytes;
    this.sections = Math.min(MAX_SECTIONS, Math.floor(buffer.bytes / sectionBytes));
    this.#free = Int32Array.from({ length: this.sections }, (_, i) => this.sections - 1 - i);
    this.#freeCount = this.sections;
    this.#next = new Int32Array(this.sections).fill(END);
    this.#owners = new Int16Array(this.sections).fill(-1);
    this.#tags = new Uint32Array(this.sections);
  }
  get generation(): number {
    return this.#generation;
  }
  /** All that are free. */
  get free(): number {
    return this.#freeCount;
  }
  /** Those that frames may have. */
  get freeForFrames(): number {
    return Math.max(0, this.#freeCount - RESERVED_SECTIONS);
  }
  /** Whether so many sections could ever be free for frames. */
  couldHold(sections: number): boolean {
    return sections <= this.sections - RESERVED_SECTIONS;
  }
  offsetOf(section: number): number {
    return section * this.sectionBytes;
  }
  /**
   * Takes a section that is free (there must be one) and puts it behind `last`, the packet's last section so far.
   * @returns the section
   */
  take(last: number): number {
    const section = this.#free[--this.#freeCount]!;
    this.#next[section] = END;
    if (last >= 0) this.#next[last] = section;
    return section;
  }
  /** A packet that begins with this section is about to be sent. @returns high half of its transaction id; the low one is `first` + 1 */
  lend(first: number, channel: number): number {
    this.#owners[first] = channel;
    this.#generation = (this.#generation + 1) >>> 0;
    this.#tags[first] = this.#generation;
    return this.#generation;
  }
  /** It could not be sent after all. */
  unlend(first: number): void {
    this.#owners[first] = -1;
  }
  /** The guest gives a packet back. @returns false when it does not have it */
  release(transactionLow: number, transactionHigh: number, channel: number): boolean {
    const first = transactionLow - 1;
    if (first < 0 || first >= this.sections) return false;
    if (this.#owners[first] !== channel || this.#tags[first] !== transactionHigh) return false;
    this.drop(first);
    return true;
  }
  /** The sections of a packet are free again. */
  drop(first: number): void {
    this.#owners[first] = -1;
    for (let section = first; section !== END; section = this.#next[section]!) this.#free[this.#freeCount++] = section;
  }
  /** Everything that was sent on a channel is given back: it is closed. */
  releaseAll(channel: number): void {
    for (let first = 0; first < this.sections; first++) if (this.#owners[first] === channel) this.drop(first);
  }
  save(): SavedReceiveBuffer {
    return {
      handle: this.buffer.handle,
      id: this.buffer.id,
      sectionBytes: this.sectionBytes,
      generation: this.#generation,
      free: this.#free.slice(0, this.#freeCount),
      next: this.#next.slice(),
      owners: this.#owners.slice(),
      tags: this.#tags.slice(),
    };
  }
  /** Into one made anew over the same guest buffer. */
  restore(saved: SavedReceiveBuffer): void {
    this.#generation = saved.generation;
    this.#free.set(saved.free);
    this.#freeCount = saved.free.length;
    this.#next.set(saved.next);
    this.#owners.set(saved.owners);
    this.#tags.set(saved.tags);
  }
}
