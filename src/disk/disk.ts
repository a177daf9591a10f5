/**
 * A disk as storage services see it: bytes at offsets, whatever the file or format behind it. Reads and writes happen at once and
 * go straight between the backend and the caller's memory (guest RAM); flushing and zeroing may take their time.
 */

/** How an operation ended. A backend never throws for what its medium does: it says so here. */
export const DiskStatus = {
  ok: 0,
  /** The host has no room for the data. */
  noSpace: 1,
  ioError: 2,
  readOnly: 3,
} as const;
export type DiskStatus = (typeof DiskStatus)[keyof typeof DiskStatus];

/** Called once, inline or later. */
export type DiskDone = (status: DiskStatus) => void;

/**
 * Offsets and lengths are bytes inside the disk; callers check them. While a `discard` or `writeZeroes` runs, its range is
 * neither read nor written: the caller waits (it knows the ranges, a backend need not).
 */
export interface Disk {
  /** Size; a multiple of the logical block. */
  readonly bytes: number;
  /** What is addressed: 512, 2048 or 4096. */
  readonly logicalBlockBytes: number;
  /** What is written without reading first: the logical block times a power of two. */
  readonly physicalBlockBytes: number;
  readonly readOnly: boolean;
  /** Whether `discard` gives space back. */
  readonly canDiscard: boolean;
  /** Bytes that can be given back at the least; a multiple of the logical block. */
  readonly discardGranularity: number;
  /** Reads `length` bytes into `into` at `at`. After an error the contents of that piece are undefined. */
  read(offset: number, into: Uint8Array, at: number, length: number): DiskStatus;
  /** Writes `length` bytes of `from` at `at`. After an error some of them may have been written. */
  write(offset: number, from: Uint8Array, at: number, length: number): DiskStatus;
  /** What was written before the call survives a power cut once `done` says ok. */
  flush(done: DiskDone): void;
  /** Gives the space of the range back; it reads zero afterwards. Only where `canDiscard`. */
  discard(offset: number, length: number, done: DiskDone): void;
  /** The range reads zero afterwards; its space may be given back. */
  writeZeroes(offset: number, length: number, done: DiskDone): void;
  /** Called after the size has changed; set by who shows the disk to a guest. */
  onResized: (() => void) | undefined;
}
