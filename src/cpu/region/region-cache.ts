/**
 * Regions that outlive a run: found again by the bytes of their code, whatever machine it is in (cpu-engine.md 11). A record has all
 * the code that a region was made of and is compared byte by byte, so what is found is what would be compiled; where other code was
 * entered or compiled before, it may only be another cut of it.
 */
import { ByteWriter } from "../wasm/assembler.js";
import type { RegionRequest, RegionStore } from "./batch-compiler.js";
import { PAGE } from "./region.js";
import { CALLED_NAMES, type RegionCode, type RegionPage } from "./region-code.js";
import { REGION_WAYS } from "./region-function.js";

/** Bytes that are hashed: where a page ends earlier, what there is. */
const HASHED = 16;
/** Regions that begin with the same bytes and are looked at: functions begin alike. */
const MAX_ALIKE = 32;

/**
 * FNV-1a of the first bytes of code and of where in its page it is.
 * @param page place of the page's first byte in `bytes`
 */
export function codeHash(bytes: Uint8Array, page: number, offset: number): number {
  let hash = Math.imul(0x811c9dc5 ^ offset, 0x01000193);
  const end = page + Math.min(offset + HASHED, PAGE);
  for (let at = page + offset; at < end; at++) hash = Math.imul(hash ^ bytes[at]!, 0x01000193);
  return hash >>> 0;
}

/** Where records are kept: a file, or memory. */
export interface RegionRecords {
  /** Hashes and places of all that there are, oldest first. */
  readonly index: Iterable<{ readonly hash: number; readonly place: number }>;
  /** @returns undefined when it is damaged or gone */
  read(place: number): Uint8Array | undefined;
  /** @returns its place; undefined where it was not taken */
  append(hash: number, record: Uint8Array): number | undefined;
}

interface CachedRegion {
  readonly mode: number;
  readonly oddFloat: boolean;
  readonly way: RegionRequest["way"];
  readonly offset: number;
  readonly pages: readonly (RegionPage & { readonly bytes: Uint8Array })[];
  readonly code: RegionCode;
}

export class RegionCache implements RegionStore {
  readonly #records: RegionRecords;
  /** By hash: places of records, newest first. */
  readonly #places = new Map<number, number[]>();

  constructor(records: RegionRecords) {
    this.#records = records;
    for (const { hash, place } of records.index) this.#note(hash, place);
  }
  #note(hash: number, place: number): void {
    const places = this.#places.get(hash);
    if (places === undefined) {
      this.#places.set(hash, [place]);
      return;
    }
    places.unshift(place);
    if (places.length > MAX_ALIKE) places.pop();
  }
  /** Of all code that a region begins with. */
  get hashes(): Uint32Array<ArrayBuffer> {
    return Uint32Array.from(this.#places.keys());
  }
  find(request: RegionRequest): RegionCode | undefined {
    const hash = hashOf(request);
    let best: RegionCode | undefined;
    for (const place of this.#places.get(hash) ?? []) {
      const record = this.#records.read(place);
      const region = record === undefined ? undefined : parseRecord(record);
      if (region === undefined || !isFor(region, request)) continue;
      if (best === undefined || region.code.facts.instructions > best.facts.instructions) best = region.code;
    }
    return best;
  }
  add(request: RegionRequest, code: RegionCode): void {
    const hash = hashOf(request);
    // code that is dropped and becomes hot again, or is in another process, is found from now on
    const place = this.#records.append(hash, writeRecord(request, code));
    if (place !== undefined) this.#note(hash, place);
  }
}

const hashOf = ({ physical, pages }: RegionRequest): number => codeHash(pages[0]!.bytes, 0, physical & (PAGE - 1));

function isFor(region: CachedRegion, request: RegionRequest): boolean {
  if (region.mode !== request.mode || region.oddFloat !== request.oddFloat || region.way !== request.way) return false;
  if (region.offset !== (request.physical & (PAGE - 1))) return false;
  return region.pages.every(({ distance, start, bytes }) => {
    const page = request.pages.find((p) => p.distance === distance);
    if (page === undefined) return false;
    for (let i = 0; i < bytes.length; i++) if (page.bytes[start + i] !== bytes[i]) return false;
    return true;
  });
}

// ---- records ------------------------------------------------------------------------------------------------------------

export function writeRecord(request: RegionRequest, { facts, ...code }: RegionCode): Uint8Array {
  const w = new ByteWriter();
  const bytes = (b: Uint8Array): void => {
    w.u32(b.length);
    w.raw(b);
  };
  w.u32(request.mode);
  w.u8(request.oddFloat ? 1 : 0);
  w.u8(REGION_WAYS.indexOf(request.way));
  w.u32(request.physical & (PAGE - 1));
  w.u32(facts.pages.length);
  for (const { distance, start, end } of facts.pages) {
    w.s32(distance);
    w.u32(start);
    const page = request.pages.find((p) => p.distance === distance)!;
    bytes(page.bytes.subarray(start, end));
  }
  w.u32(facts.entries.length);
  for (const entry of facts.entries) w.s32(entry);
  w.u32(facts.instructions);
  w.u32(facts.leaves);
  w.s32(code.pagesAt);
  w.u32(code.helpers.length);
  for (const helper of code.helpers) w.u32(CALLED_NAMES.indexOf(helper));
  w.u32(code.hints.length);
  for (const { at, taken } of code.hints) w.u32(at * 2 + (taken ? 1 : 0));
  w.u32(code.references.length);
  for (const { at, n } of code.references) {
    w.u32(at);
    w.u32(n);
  }
  bytes(code.kept);
  bytes(code.body);
  return w.take();
}

class Malformed extends Error {}
class RecordReader {
  readonly #bytes: Uint8Array;
  #at = 0;
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }
  u8(): number {
    const byte = this.#bytes[this.#at++];
    if (byte === undefined) throw new Malformed();
    return byte;
  }
  u32(): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.u8();
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value >>> 0;
    }
    throw new Malformed();
  }
  s32(): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.u8();
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return shift < 25 && (byte & 0x40) !== 0 ? value | (-1 << (shift + 7)) : value;
    }
    throw new Malformed();
  }
  bytes(): Uint8Array {
    const length = this.u32();
    if (length > this.#bytes.length - this.#at) throw new Malformed();
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }
  /** @param most of such things that a record may have */
  list<T>(most: number, read: () => T): T[] {
    const count = this.u32();
    if (count > most) throw new Malformed();
    return Array.from({ length: count }, read);
  }
  below(limit: number): number {
    const value = this.u32();
    if (value >= limit) throw new Malformed();
    return value;
  }
  get isAtEnd(): boolean {
    return this.#at === this.#bytes.length;
  }
}

/** @returns undefined when it is no record: cut off, of something else */
export function parseRecord(record: Uint8Array): CachedRegion | undefined {
  try {
    return readRecord(new RecordReader(record));
  } catch (error) {
    if (error instanceof Malformed) return undefined;
    throw error;
  }
}
const MOST = 1 << 16;
function readRecord(r: RecordReader): CachedRegion {
  const mode = r.u32();
  const oddFloat = r.below(2) === 1;
  const way = REGION_WAYS[r.below(REGION_WAYS.length)]!;
  const offset = r.below(PAGE);
  const pages = r.list(MOST, () => {
    const distance = r.s32();
    const start = r.below(PAGE);
    const bytes = r.bytes();
    if (start + bytes.length > PAGE) throw new Malformed();
    return { distance, start, end: start + bytes.length, bytes };
  });
  const entries = r.list(MOST, () => r.s32());
  const instructions = r.u32();
  const leaves = r.u32();
  const pagesAt = r.s32();
  const helpers = r.list(MOST, () => CALLED_NAMES[r.below(CALLED_NAMES.length)]!);
  const hints = r.list(MOST, () => {
    const hint = r.u32();
    return { at: hint >>> 1, taken: (hint & 1) === 1 };
  });
  const references = r.list(MOST, () => ({ at: r.u32(), n: r.below(helpers.length + 1) }));
  const kept = r.bytes();
  const body = r.bytes();
  if (!r.isAtEnd || pages.length === 0 || references.some(({ at }) => at + 2 > body.length)) throw new Malformed();
  const facts = { pages: pages.map(({ bytes: _, ...page }) => page), entries, instructions, leaves };
  return { mode, oddFloat, way, offset, pages, code: { body, hints, references, helpers, kept, pagesAt, facts } };
}
