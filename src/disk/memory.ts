/** A disk in memory, for tests and scratch: chunks of 64 KiB that exist once they have been written. */
import { type Disk, type DiskDone, DiskStatus } from "./disk.js";

const CHUNK = 65_536;

export interface MemoryDiskOptions {
  readonly bytes: number;
  readonly logicalBlockBytes?: number;
  readonly physicalBlockBytes?: number;
  readonly readOnly?: boolean;
}

export class MemoryDisk implements Disk {
  readonly logicalBlockBytes: number;
  readonly physicalBlockBytes: number;
  readonly readOnly: boolean;
  readonly canDiscard: boolean;
  readonly discardGranularity: number;
  onResized: (() => void) | undefined;
  readonly #chunks = new Map<number, Uint8Array>();
  #bytes: number;

  /** @throws RangeError when the size is not a positive multiple of the logical block */
  constructor(options: MemoryDiskOptions) {
    this.logicalBlockBytes = options.logicalBlockBytes ?? 512;
    this.physicalBlockBytes = options.physicalBlockBytes ?? Math.max(4096, this.logicalBlockBytes);
    this.readOnly = options.readOnly ?? false;
    this.canDiscard = !this.readOnly;
    this.discardGranularity = Math.max(4096, this.logicalBlockBytes);
    this.#bytes = checkedSize(options.bytes, this.logicalBlockBytes);
  }
  get bytes(): number {
    return this.#bytes;
  }
  /** Bytes of the chunks that exist. */
  get allocatedBytes(): number {
    return this.#chunks.size * CHUNK;
  }
  read(offset: number, into: Uint8Array, at: number, length: number): DiskStatus {
    for (let done = 0; done < length; ) {
      const within = (offset + done) % CHUNK;
      const n = Math.min(length - done, CHUNK - within);
      const chunk = this.#chunks.get((offset + done - within) / CHUNK);
      if (chunk === undefined) into.fill(0, at + done, at + done + n);
      else into.set(chunk.subarray(within, within + n), at + done);
      done += n;
    }
    return DiskStatus.ok;
  }
  write(offset: number, from: Uint8Array, at: number, length: number): DiskStatus {
    if (this.readOnly) return DiskStatus.readOnly;
    for (let done = 0; done < length; ) {
      const within = (offset + done) % CHUNK;
      const n = Math.min(length - done, CHUNK - within);
      const index = (offset + done - within) / CHUNK;
      let chunk = this.#chunks.get(index);
      if (chunk === undefined) this.#chunks.set(index, (chunk = new Uint8Array(CHUNK)));
      chunk.set(from.subarray(at + done, at + done + n), within);
      done += n;
    }
    return DiskStatus.ok;
  }
  flush(done: DiskDone): void {
    done(DiskStatus.ok);
  }
  discard(offset: number, length: number, done: DiskDone): void {
    this.writeZeroes(offset, length, done);
  }
  writeZeroes(offset: number, length: number, done: DiskDone): void {
    if (this.readOnly) {
      done(DiskStatus.readOnly);
      return;
    }
    const end = offset + length;
    // By the chunks that there are: a range may cover terabytes.
    for (const [index, chunk] of this.#chunks) {
      const from = Math.max(offset - index * CHUNK, 0);
      const to = Math.min(end - index * CHUNK, CHUNK);
      if (from >= to) continue;
      if (to - from === CHUNK) this.#chunks.delete(index);
      else chunk.fill(0, from, to);
    }
    done(DiskStatus.ok);
  }
  /** Grows or shrinks; what is cut off is gone. @throws RangeError as the constructor */
  resize(bytes: number): void {
    const before = this.#bytes;
    this.#bytes = checkedSize(bytes, this.logicalBlockBytes);
    if (bytes < before) this.writeZeroes(bytes, before - bytes, () => {});
    this.onResized?.();
  }
}

function checkedSize(bytes: number, block: number): number {
  if (!Number.isSafeInteger(bytes) || bytes <= 0 || bytes % block !== 0)
    throw new RangeError(`a disk of ${bytes} bytes does not have a whole number of blocks of ${block}`);
  return bytes;
}
