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

/** How far a guest is that is being made: by `step`, with the name of what is fetched or unpacked, in bytes. */
export type Progress =
  | { readonly step: "index" | "package"; readonly name: string; readonly bytes: number; readonly totalBytes: number }
  | { readonly step: "unpack" | "assemble"; readonly name: string }
  /** The start of a work that is done once. @property bytes of the packages that it takes  @property seconds about so long */
  | {
      readonly step: "long-work";
      readonly name: string;
      readonly packages: number;
      readonly bytes: number;
      readonly seconds: number;
    }
  /** How far it is: what it does now, with which package, and how much of its time has gone, 0 to 1. */
  | { readonly step: "build"; readonly name: string; readonly item: string; readonly part: number }
  | { readonly step: "warning"; readonly code: string; readonly name: string };

export interface AssemblyHost {
  readonly source: PackageSource;
  readonly cache: PackageCache;
  /** Lower-case hexadecimal. */
  readonly sha256: (bytes: Uint8Array) => Promise<string>;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}
