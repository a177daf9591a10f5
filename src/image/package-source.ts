/** What assembling a guest needs from its host: a mirror, keys, a cache, hashes, the time. */

/** A distribution keeps its main archive and its security archive at two places of a mirror. */
export type Archive = "main" | "security";

export interface FetchOptions {
  readonly signal?: AbortSignal | undefined;
  /** Refuse more than this. */
  readonly maxBytes?: number;
  /** Called with the number of bytes so far. */
  readonly onBytes?: (bytes: number) => void;
}

export interface PackageSource {
  /** For messages: which mirror this is. */
  readonly name: string;
  /** @param path below the archive's root: "dists/bookworm/InRelease" */
  fetch(archive: Archive, path: string, options?: FetchOptions): Promise<Uint8Array>;
  /** The public keys that sign the archives. */
  keyring(): Promise<Uint8Array>;
}

export interface PackageCache {
  /** What was written under this hash, checked; undefined when it is not there or no longer whole. */
  read(sha256: string): Promise<Uint8Array | undefined>;
  /** Writes all or nothing. */
  write(sha256: string, bytes: Uint8Array): Promise<void>;
  /** A small named record of plain data. */
  readRecord(name: string): Promise<unknown>;
  writeRecord(name: string, value: unknown): Promise<void>;
}

/** How far a guest is that is being made. */
export type Progress = FetchProgress | AssemblyProgress | LongWorkStart | BuildProgress | AssemblyWarning;
/** Something comes from the mirror. */
export interface FetchProgress {
  /** What it is: a list of packages, or a package. */
  readonly step: "index" | "package";
  /** Its name. */
  readonly name: string;
  /** So many are here. */
  readonly bytes: number;
  /** Of so many. */
  readonly totalBytes: number;
}
/** A package is unpacked, or a file put together. */
export interface AssemblyProgress {
  /** Which of the two. */
  readonly step: "unpack" | "assemble";
  /** Of the package or the file. */
  readonly name: string;
}
/** The start of a work that is done once. */
export interface LongWorkStart {
  /** Tells it from the others. */
  readonly step: "long-work";
  /** What is made. */
  readonly name: string;
  /** How many packages it takes. */
  readonly packages: number;
  /** Of these packages. */
  readonly bytes: number;
  /** About so long. */
  readonly seconds: number;
}
/** How far that work is. */
export interface BuildProgress {
  /** Tells it from the others. */
  readonly step: "build";
  /** What it does now. */
  readonly name: string;
  /** With which package. */
  readonly item: string;
  /** How much of its time has gone, 0 to 1. */
  readonly part: number;
}
/** Something is not as it should be, and does not stop the work. */
export interface AssemblyWarning {
  /** Tells it from the others. */
  readonly step: "warning";
  /** For programs. */
  readonly code: string;
  /** What it is about. */
  readonly name: string;
}

export interface AssemblyHost {
  readonly source: PackageSource;
  readonly cache: PackageCache;
  /** Lower-case hexadecimal. */
  readonly sha256: (bytes: Uint8Array) => Promise<string>;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}
