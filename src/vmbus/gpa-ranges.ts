/**
 * Lists of guest buffers as VMBus has them: ranges of a byte count, an offset in the first page and page numbers. Kept in flat
 * arrays that are reused, so that a packet allocates nothing.
 */
import type { GuestMemory } from "../machine/guest-memory.js";

export class GpaRanges {
  /** Number of ranges. */
  count = 0;
  /** By range. */
  byteCount = new Uint32Array(8);
  byteOffset = new Uint32Array(8);
  /** Index in `pages` of each range's first page number; entry `count` is the end. */
  firstPage = new Uint32Array(9);
  /** Page numbers; they are below 2^52, so doubles hold them. */
  pages = new Float64Array(64);

  clear(): void {
    this.count = 0;
    this.firstPage[0] = 0;
  }
  /** Begins a range; its pages follow by `addPage`. */
  addRange(byteCount: number, byteOffset: number): void {
    if (this.count === this.byteCount.length) {
      this.byteCount = grown(this.byteCount);
      this.byteOffset = grown(this.byteOffset);
      const first = new Uint32Array(this.byteCount.length + 1);
      first.set(this.firstPage);
      this.firstPage = first;
    }
    this.byteCount[this.count] = byteCount;
    this.byteOffset[this.count] = byteOffset;
    this.count++;
    this.firstPage[this.count] = this.firstPage[this.count - 1]!;
  }
  /** Adds to the last range. */
  addPage(page: number): void {
    const at = this.firstPage[this.count]!;
    if (at === this.pages.length) {
      const pages = new Float64Array(at * 2);
      pages.set(this.pages);
      this.pages = pages;
    }
    this.pages[at] = page;
    this.firstPage[this.count] = at + 1;
  }
  /** Pages of all ranges. */
  get pageCount(): number {
    return this.firstPage[this.count]!;
  }
  /** Bytes of all ranges. */
  get totalBytes(): number {
    let total = 0;
    for (let i = 0; i < this.count; i++) total += this.byteCount[i]!;
    return total;
  }
  /**
   * Calls `visit` for each piece of contiguous guest memory, in order: pages that follow each other become one piece.
   * @param skip bytes to leave out at the beginning; @param limit bytes at most
   */
  forEachPiece(visit: (gpa: number, lengthBytes: number) => void, skip = 0, limit = Number.POSITIVE_INFINITY): void {
    let start = -1;
    let length = 0;
    for (let r = 0; r < this.count && limit > 0; r++) {
      let left = this.byteCount[r]!;
      let offset = this.byteOffset[r]!;
      for (let p = this.firstPage[r]!; p < this.firstPage[r + 1]! && left > 0 && limit > 0; p++) {
        let gpa = this.pages[p]! * 4096 + offset;
        let bytes = Math.min(left, 4096 - offset);
        left -= bytes;
        offset = 0;
        if (skip >= bytes) {
          skip -= bytes;
          continue;
        }
        gpa += skip;
        bytes = Math.min(bytes - skip, limit);
        skip = 0;
        limit -= bytes;
        if (gpa === start + length) length += bytes;
        else {
          if (length > 0) visit(start, length);
          start = gpa;
          length = bytes;
        }
      }
    }
    if (length > 0) visit(start, length);
  }
  /** Whether every page is RAM and every range has the pages that its bytes need. */
  isInside(memory: GuestMemory): boolean {
    for (let r = 0; r < this.count; r++) {
      const offset = this.byteOffset[r]!;
      const pages = this.firstPage[r + 1]! - this.firstPage[r]!;
      if (offset >= 4096 || pages < Math.ceil((offset + this.byteCount[r]!) / 4096)) return false;
      for (let p = this.firstPage[r]!; p < this.firstPage[r + 1]!; p++)
        if (!memory.contains(this.pages[p]! * 4096, 4096)) return false;
    }
    return true;
  }
}

function grown(a: Uint32Array<ArrayBuffer>): Uint32Array<ArrayBuffer> {
  const b = new Uint32Array(a.length * 2);
  b.set(a);
  return b;
}
