/**
 * The file that keeps compiled regions from one run to the next, in the user's cache folder, one for each build of the engine. All
 * machines of a user append to it; records are found by hopping from one to the next. It may go at any time.
 */
import {
  closeSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  statSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import type { EngineConstants } from "../../cpu/region/batch-compiler.js";
import { RegionCache, type RegionRecords } from "../../cpu/region/region-cache.js";
import { ENGINE_FILES } from "./engine-files.js";
import { cacheFolder } from "./package-cache.js";

/** Length, hash and checksum, before each record; 32 bits each, little-endian. */
const HEADER = 12;
const MAX_RECORD = 1 << 20;
/** A file that is larger is made anew with its younger half. */
const MAX_FILE = 32 << 20;
/** New records are written together. */
const WRITE_AFTER_MS = 500;
const WRITE_AT_BYTES = 256 << 10;
/** Files of other builds that nobody has written to for so long are removed. */
const OLD_MS = 14 * 24 * 3600 * 1000;

function checksum(bytes: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < bytes.length; i++) hash = Math.imul(hash ^ bytes[i]!, 0x01000193);
  return hash >>> 0;
}

export class RegionFile implements RegionRecords {
  readonly index: readonly { readonly hash: number; readonly place: number }[];
  #fd: number;
  #unwritten: { readonly place: number; readonly bytes: Uint8Array }[] = [];
  #unwrittenBytes = 0;
  /** Of what was appended here: where it is in the file. Places are below 0, as nobody knows before who else writes. */
  readonly #offsets = new Map<number, number>();
  #lastPlace = 0;
  #timer: NodeJS.Timeout | undefined;

  /** Makes the file where there is none. @throws what the file system says */
  constructor(path: string, maxBytes = MAX_FILE) {
    mkdirSync(dirname(path), { recursive: true });
    this.#fd = openSync(path, "a+", 0o600);
    let index = this.#scan();
    const size = fstatSync(this.#fd).size;
    const end = index.at(-1)?.end ?? 0;
    // behind a damaged record nothing is found any more
    if (size > maxBytes || end < size) {
      const kept = size > maxBytes ? index.filter(({ place }) => place > end - maxBytes / 2) : index;
      this.#rewrite(path, kept);
      index = this.#scan();
    }
    this.index = index;
  }
  #scan(): { hash: number; place: number; end: number }[] {
    const found: { hash: number; place: number; end: number }[] = [];
    const header = Buffer.alloc(HEADER);
    const { size } = fstatSync(this.#fd);
    for (let at = 0; readSync(this.#fd, header, 0, HEADER, at) === HEADER; ) {
      const length = header.readUInt32LE(0);
      const place = at;
      at += HEADER + length;
      if (length === 0 || length > MAX_RECORD || at > size) break;
      found.push({ hash: header.readUInt32LE(4), place, end: at });
    }
    return found;
  }
  #rewrite(path: string, records: readonly { readonly hash: number; readonly place: number }[]): void {
    const beside = `${path}.${process.pid}.part`;
    const fd = openSync(beside, "w+", 0o600);
    try {
      for (const { hash, place } of records) {
        const record = this.read(place);
        if (record !== undefined) writeSync(fd, framed(hash, record));
      }
      renameSync(beside, path);
    } catch (error) {
      unlinkSync(beside);
      throw error;
    } finally {
      closeSync(fd);
    }
    closeSync(this.#fd);
    this.#fd = openSync(path, "a+", 0o600);
  }
  read(place: number): Uint8Array | undefined {
    if (place >= 0) return this.#readAt(place);
    const waiting = this.#unwritten.find((record) => record.place === place);
    if (waiting !== undefined) return waiting.bytes.subarray(HEADER);
    const offset = this.#offsets.get(place);
    return offset === undefined ? undefined : this.#readAt(offset);
  }
  #readAt(place: number): Uint8Array | undefined {
    const header = Buffer.alloc(HEADER);
    if (readSync(this.#fd, header, 0, HEADER, place) !== HEADER) return undefined;
    const length = header.readUInt32LE(0);
    if (length === 0 || length > MAX_RECORD) return undefined;
    const record = new Uint8Array(length);
    if (readSync(this.#fd, record, 0, length, place + HEADER) !== length) return undefined;
    return checksum(record) === header.readUInt32LE(8) ? record : undefined;
  }
  append(hash: number, record: Uint8Array): number | undefined {
    if (record.length > MAX_RECORD) return undefined;
    const place = --this.#lastPlace;
    const bytes = framed(hash, record);
    this.#unwritten.push({ place, bytes });
    this.#unwrittenBytes += bytes.length;
    if (this.#unwrittenBytes >= WRITE_AT_BYTES) this.write();
    else this.#timer ??= setTimeout(() => this.write(), WRITE_AFTER_MS).unref();
    return place;
  }
  /** Writes what is new. */
  write(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const written = this.#unwritten;
    const all = Buffer.concat(written.map(({ bytes }) => bytes));
    this.#unwritten = [];
    this.#unwrittenBytes = 0;
    if (all.length === 0) return;
    try {
      // at the file's end as one piece, whoever else writes
      writeSync(this.#fd, all);
      let at = fstatSync(this.#fd).size - all.length;
      if (!this.#has(at, all)) return;
      for (const { place, bytes } of written) {
        this.#offsets.set(place, at);
        at += bytes.length;
      }
    } catch {
      // a full disk: the next run compiles them again
    }
  }
  /** Whether what was written is there: another process may have written since. */
  #has(at: number, bytes: Uint8Array): boolean {
    const header = Buffer.alloc(HEADER);
    return readSync(this.#fd, header, 0, HEADER, at) === HEADER && header.equals(bytes.subarray(0, HEADER));
  }
  close(): void {
    this.write();
    closeSync(this.#fd);
  }
}
/** No Buffer: who reads what is still to be written may call `slice`, which of a Buffer copies nothing. */
function framed(hash: number, record: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(HEADER + record.length);
  const header = new DataView(bytes.buffer);
  header.setUint32(0, record.length, true);
  header.setUint32(4, hash, true);
  header.setUint32(8, checksum(record), true);
  bytes.set(record, HEADER);
  return bytes;
}

/**
 * Regions of other runs; undefined where there is no place for them, or none are wanted (ENLIGHTEN_REGION_CACHE=off; a folder: there).
 */
export function openRegionCache(
  { base, shared }: EngineConstants,
  environment: Readonly<Record<string, string | undefined>> = process.env,
): RegionCache | undefined {
  const wanted = environment.ENLIGHTEN_REGION_CACHE ?? "";
  if (wanted === "off") return undefined;
  const folder = wanted === "" ? join(cacheFolder(environment), "regions") : wanted;
  try {
    const key = readFileSync(ENGINE_FILES.engineKey, "utf8").slice(0, 32);
    const path = join(folder, `${key}-${base.toString(16)}${shared ? "s" : ""}`);
    const cache = new RegionCache(new RegionFile(path));
    removeOld(folder);
    return cache;
  } catch {
    // read-only, full, of another user: a cache is not worth a machine
    return undefined;
  }
}
/** Names of our files: the folder may be one that the user has given, with others in it. */
const OUR_NAME = /^[0-9a-f]{32}-[0-9a-f]+s?(\.\d+\.part)?$/;
export function removeOld(folder: string): void {
  for (const name of readdirSync(folder)) {
    if (!OUR_NAME.test(name)) continue;
    const path = join(folder, name);
    if (Date.now() - statSync(path).mtimeMs > OLD_MS) unlinkSync(path);
  }
}
