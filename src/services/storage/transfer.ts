/** Data between a disk and guest RAM, piece by piece and without a copy of our own. */
import { type Disk, DiskStatus } from "../../disk/disk.js";
import type { GuestMemory } from "../../machine/guest-memory.js";
import type { GpaRanges } from "../../vmbus/gpa-ranges.js";

export class Transfer {
  readonly #memory: GuestMemory;
  #disk: Disk | undefined;
  #at = 0;
  #status: DiskStatus = DiskStatus.ok;
  // Made once: a closure for each request would be its only allocation.
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

  constructor(memory: GuestMemory) {
    this.#memory = memory;
  }
  /** Reads `length` bytes at `offset` into the beginning of the guest's buffer. */
  read(disk: Disk, offset: number, ranges: GpaRanges, length: number): DiskStatus {
    return this.#run(this.#readPiece, disk, offset, ranges, length);
  }
  /** Writes the beginning of the guest's buffer. */
  write(disk: Disk, offset: number, ranges: GpaRanges, length: number): DiskStatus {
    return this.#run(this.#writePiece, disk, offset, ranges, length);
  }
  #run(
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
