/**
 * A buffer that the guest has lent as a GPADL: one range of whole pages. The guest may take the pages back at any time, so the list
 * is asked for anew at each use.
 */
import type { GuestMemory } from "../../machine/guest-memory.js";
import type { Channel } from "../../vmbus/device.js";
import type { GpaRanges } from "../../vmbus/gpa-ranges.js";

export class GuestBuffer {
  readonly handle: number;
  readonly id: number;
  readonly bytes: number;
  readonly #memory: GuestMemory;
  readonly #channel: Channel;

  private constructor(memory: GuestMemory, channel: Channel, handle: number, id: number, bytes: number) {
    this.#memory = memory;
    this.#channel = channel;
    this.handle = handle;
    this.id = id;
    this.bytes = bytes;
  }
  /** @returns undefined when there is no such list, or it is not one range from the beginning of a page on */
  static of(memory: GuestMemory, channel: Channel, handle: number, id: number): GuestBuffer | undefined {
    const ranges = channel.gpadl(handle);
    if (ranges === undefined || ranges.count !== 1 || ranges.byteOffset[0] !== 0) return undefined;
    return new GuestBuffer(memory, channel, handle, id, ranges.byteCount[0]!);
  }
  /** Whether the pages are still lent. */
  get isLent(): boolean {
    return this.#pages() !== undefined;
  }
  /** Copies out. @returns false when the range is not in the buffer, or the pages are the guest's again */
  read(offset: number, into: Uint8Array, at: number, length: number): boolean {
    const pages = this.#pages();
    if (pages === undefined || offset + length > this.bytes) return false;
    for (let done = 0; done < length; ) {
      const from = offset + done;
      const n = Math.min(4096 - (from & 4095), length - done);
      this.#memory.read(pages[from >>> 12]! * 4096 + (from & 4095), into, at + done, n);
      done += n;
    }
    return true;
  }
  /** @returns false when the pages are the guest's again */
  write(offset: number, from: Uint8Array, at: number, length: number): boolean {
    const pages = this.#pages();
    if (pages === undefined || offset + length > this.bytes) return false;
    for (let done = 0; done < length; ) {
      const to = offset + done;
      const n = Math.min(4096 - (to & 4095), length - done);
      this.#memory.write(pages[to >>> 12]! * 4096 + (to & 4095), from, at + done, n);
      done += n;
    }
    return true;
  }
  #pages(): Float64Array | undefined {
    const ranges: GpaRanges | undefined = this.#channel.gpadl(this.handle);
    // A handle that was taken back may name another list by now.
    if (ranges === undefined || ranges.count !== 1 || ranges.byteOffset[0] !== 0 || ranges.byteCount[0] !== this.bytes)
      return undefined;
    return ranges.pages;
  }
}
