/**
 * A raw image: the disk's bytes are the file's bytes. Also for ISO images, whose last block may be cut short in the file.
 */
import { type Disk, type DiskDone, DiskStatus } from "./disk.js";

/** The file under a disk, as the platform gives it. Offsets and lengths are bytes. */
export interface DiskFile {
  readonly bytes: number;
  readonly readOnly: boolean;
  /** Whether `punch` can be asked for. */
  readonly canPunch: boolean;
  /** What lies behind the end of the file reads zero. */
  read(offset: number, into: Uint8Array, at: number, length: number): DiskStatus;
  write(offset: number, from: Uint8Array, at: number, length: number): DiskStatus;
  /** What was written before the call is on stable storage once `done` says ok. */
  sync(done: DiskDone): void;
  /** The range becomes a hole: it reads zero and takes no space. */
  punch(offset: number, length: number, done: DiskDone): void;
  resize(bytes: number): DiskStatus;
  /** When what is under way has ended. */
  close(): void;
}

export interface RawDiskOptions {
  /** 512 unless given; 2048 for optical media. */
  readonly logicalBlockBytes?: number;
  /** 4096 (or the logical block) unless given. */
  readonly physicalBlockBytes?: number;
}

/** Zeroes are written in pieces of this size where holes cannot be punched. */
const ZEROES = new Uint8Array(1 << 20);
/** File systems give space back by blocks of this size. */
const FILE_BLOCK = 4096;

export class RawDisk implements Disk {
  readonly logicalBlockBytes: number;
  readonly physicalBlockBytes: number;
  readonly readOnly: boolean;
  readonly canDiscard: boolean;
  readonly discardGranularity: number;
  onResized: (() => void) | undefined;
  readonly #file: DiskFile;
  /** Written since the last flush began; who wrote the file before us may not have flushed it either. */
  #dirty: boolean;
  #syncing = false;
  /** A flush has failed: the system may have dropped what it could not write, and would not tell again. */
  #broken = false;
  /** Flushes that came while one was under way: writes may have come between, so they share the next. */
  #next: DiskDone[] = [];

  constructor(file: DiskFile, options: RawDiskOptions = {}) {
    this.#file = file;
    this.logicalBlockBytes = options.logicalBlockBytes ?? 512;
    this.physicalBlockBytes = options.physicalBlockBytes ?? Math.max(FILE_BLOCK, this.logicalBlockBytes);
    this.readOnly = file.readOnly;
    this.#dirty = !file.readOnly;
    this.canDiscard = file.canPunch && !file.readOnly;
    this.discardGranularity = Math.max(FILE_BLOCK, this.logicalBlockBytes);
  }
  get bytes(): number {
    const block = this.logicalBlockBytes;
    return Math.ceil(this.#file.bytes / block) * block;
  }
  read(offset: number, into: Uint8Array, at: number, length: number): DiskStatus {
    return this.#file.read(offset, into, at, length);
  }
  write(offset: number, from: Uint8Array, at: number, length: number): DiskStatus {
    if (this.readOnly) return DiskStatus.readOnly;
    this.#dirty = true;
    return this.#file.write(offset, from, at, length);
  }
  flush(done: DiskDone): void {
    if (this.#broken) done(DiskStatus.ioError);
    else if (this.#syncing) this.#next.push(done);
    else if (this.#dirty) this.#sync([done]);
    else done(DiskStatus.ok);
  }
  discard(offset: number, length: number, done: DiskDone): void {
    this.writeZeroes(offset, length, done);
  }
  writeZeroes(offset: number, length: number, done: DiskDone): void {
    if (this.readOnly) {
      done(DiskStatus.readOnly);
      return;
    }
    this.#dirty = true;
    if (this.#file.canPunch) {
      this.#file.punch(offset, length, (status) => {
        // A flush that began meanwhile need not have covered the hole.
        this.#dirty = true;
        done(status);
      });
      return;
    }
    let status: DiskStatus = DiskStatus.ok;
    for (let at = 0; at < length && status === DiskStatus.ok; at += ZEROES.length)
      status = this.#file.write(offset + at, ZEROES, 0, Math.min(ZEROES.length, length - at));
    done(status);
  }
  /** Grows or shrinks the file. Not below or between blocks: the caller checks. */
  resize(bytes: number): DiskStatus {
    if (this.readOnly) return DiskStatus.readOnly;
    this.#dirty = true;
    const status = this.#file.resize(bytes);
    if (status === DiskStatus.ok) this.onResized?.();
    return status;
  }
  close(): void {
    this.#file.close();
  }
  #sync(waiting: readonly DiskDone[]): void {
    this.#syncing = true;
    this.#dirty = false;
    this.#file.sync((status) => {
      this.#syncing = false;
      if (status !== DiskStatus.ok) this.#broken = true;
      const next = this.#next;
      this.#next = [];
      if (next.length > 0 && !this.#broken) this.#sync(next);
      for (const done of waiting) done(status);
      if (this.#broken) for (const done of next) done(status);
    });
  }
}
