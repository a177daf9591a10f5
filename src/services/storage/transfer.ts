/**
 * Data between a disk and guest RAM. A buffer of one piece (guest pages that follow each other are one) goes straight; the pieces
 * of a scattered one go through a buffer of ours, since a call of the disk for each costs more than the copy: 256 KiB in 64 pieces
 * took 106 us that way and take 44 us this way.
 */
import { type Disk, DiskStatus } from "../../disk/disk.js";
import type { GuestMemory } from "../../machine/guest-memory.js";
import type { GpaRanges } from "../../vmbus/gpa-ranges.js";

/** Larger transfers go piece by piece: ours are at most 256 KiB, but a guest may ask for more than it was told. */
const GATHER_BYTES = 1 << 20;

export class Transfer {
  readonly #memory: GuestMemory;
  #gathered = new Uint8Array(0);
  #disk: Disk | undefined;
  #at = 0;
  #pieces = 0;
  #status: DiskStatus = DiskStatus.ok;
  // Made once: closures for each request would be its only allocations.
  readonly #count = (): void => {
    this.#pieces++;
  };
  readonly #readPiece = (gpa: number, length: number): void => {
    if (this.#status !== DiskStatus.ok) return;
    this.#status = this.#disk!.read(this.#at, this.#memory.ram, gpa, length);
    this.#memory.written(gpa, length);
    this.#at += length;
  };
  readonly #writePiece = (gpa: number, length: number): void => {
    if (this.#status !== DiskStatus.ok) return;
    this.#status = this.#disk!.write(this.#at, this.#memory.ram, gpa, length);
    this.#at += length;
  };
  readonly #scatterPiece = (gpa: number, length: number): void => {
    this.#memory.write(gpa, this.#gathered, this.#at, length);
    this.#at += length;
  };
  readonly #gatherPiece = (gpa: number, length: number): void => {
    this.#memory.read(gpa, this.#gathered, this.#at, length);
    this.#at += length;
  };

  constructor(memory: GuestMemory) {
    this.#memory = memory;
  }
  /** Reads `length` bytes at `offset` into the beginning of the guest's buffer. */
  read(disk: Disk, offset: number, ranges: GpaRanges, length: number): DiskStatus {
    if (!this.#isScattered(ranges, length)) return this.#direct(this.#readPiece, disk, offset, ranges, length);
    const status = disk.read(offset, this.#gathered, 0, length);
    this.#at = 0;
    if (status === DiskStatus.ok) ranges.forEachPiece(this.#scatterPiece, 0, length);
    return status;
  }
  /** Writes the beginning of the guest's buffer. */
  write(disk: Disk, offset: number, ranges: GpaRanges, length: number): DiskStatus {
    if (!this.#isScattered(ranges, length)) return this.#direct(this.#writePiece, disk, offset, ranges, length);
    this.#at = 0;
    ranges.forEachPiece(this.#gatherPiece, 0, length);
    return disk.write(offset, this.#gathered, 0, length);
  }

  /** Whether the pieces are to be gathered; there is room for them then. */
  #isScattered(ranges: GpaRanges, length: number): boolean {
    if (length > GATHER_BYTES) return false;
    this.#pieces = 0;
    ranges.forEachPiece(this.#count, 0, length);
    if (this.#pieces < 2) return false;
    if (this.#gathered.length < length) this.#gathered = new Uint8Array(length);
    return true;
  }
  #direct(
    piece: (gpa: number, length: number) => void,
    disk: Disk,
    offset: number,
    ranges: GpaRanges,
    length: number,
  ): DiskStatus {
    this.#disk = disk;
    this.#at = offset;
    this.#status = DiskStatus.ok;
    ranges.forEachPiece(piece, 0, length);
    return this.#status;
  }
}
