/**
 * GPADLs: lists of guest pages that the guest lends to a channel, for its rings and for buffers (VMBus, "GPADL"). A list comes in
 * a header message and, when it is long, bodies. Their message numbers are always 0, so bodies count in order of arrival.
 * Everything between the first and the last entry is taken as 64-bit words: page numbers, and the headers of further ranges.
 */
import type { GuestMemory } from "../machine/guest-memory.js";
import { GuestViolation } from "../machine/guest-violation.js";
import { GpaRanges } from "./gpa-ranges.js";
import { GPADL_BODY_PAGES, GPADL_HEADER_RANGES, VmbusStatus } from "./protocol.js";
import { appendRanges } from "./ring.js";

const SOURCE = "vmbus/gpadl";
/** Live lists at most; a machine full of channels uses some hundreds. */
export const MAX_GPADLS = 8192;
/** Lists that are incomplete at the same time; each holds at most 64 KiB. */
export const MAX_ASSEMBLIES = 256;
/** Pages of all lists, as a multiple of RAM: the same page may be lent several times, but not without end. */
const MAX_PAGES_OF_RAM = 4;
/** So that a small machine can lend its ring pages. */
const MIN_PAGE_BOUND = 16384;

/** What the guest is told, once for each list. */
export interface GpadlAnswer {
  readonly relid: number;
  readonly gpadl: number;
  readonly status: number;
  /** The rule that was broken. */
  readonly rule?: string;
}

interface Gpadl {
  readonly relid: number;
  readonly ranges: GpaRanges;
  readonly entries: number;
}
interface Assembly {
  readonly relid: number;
  readonly rangeCount: number;
  readonly words: Int32Array;
  readonly bytes: Uint8Array;
  filled: number;
}

export interface SavedGpadls {
  readonly complete: readonly {
    readonly gpadl: number;
    readonly relid: number;
    readonly entries: number;
    readonly ranges: readonly {
      readonly byteCount: number;
      readonly byteOffset: number;
      readonly pages: readonly number[];
    }[];
  }[];
  readonly incomplete: readonly {
    readonly gpadl: number;
    readonly relid: number;
    readonly rangeCount: number;
    readonly bytes: Uint8Array;
    readonly filled: number;
  }[];
}

export class GpadlTable {
  readonly #memory: GuestMemory;
  /** By handle: the guest keeps handles unique over all channels, since bodies name nothing else. */
  readonly #complete = new Map<number, Gpadl>();
  readonly #incomplete = new Map<number, Assembly>();
  /** 64-bit words of all lists: what the bound is on. */
  #entries = 0;

  constructor(memory: GuestMemory) {
    this.#memory = memory;
  }
  get count(): number {
    return this.#complete.size;
  }
  get incompleteCount(): number {
    return this.#incomplete.size;
  }
  get entries(): number {
    return this.#entries;
  }
  get maxEntries(): number {
    return Math.max(MIN_PAGE_BOUND, (this.#memory.bytes / 4096) * MAX_PAGES_OF_RAM);
  }
  get(relid: number, gpadl: number): GpaRanges | undefined {
    const found = this.#complete.get(gpadl);
    return found?.relid === relid ? found.ranges : undefined;
  }

  /**
   * Begins a list.
   * @param message the whole message; contents follow the fixed part
   * @returns the answer, or undefined when bodies must follow
   */
  begin(
    relid: number,
    gpadl: number,
    rangeBufferLength: number,
    rangeCount: number,
    message: Uint8Array,
  ): GpadlAnswer | undefined {
    const refuse = (status: number, rule: string): GpadlAnswer => ({ relid, gpadl, status, rule });
    if (this.#complete.has(gpadl) || this.#incomplete.has(gpadl))
      return refuse(VmbusStatus.invalidParameter, "handle in use (VMBus GpadlHeader)");
    if (rangeCount === 0 || rangeBufferLength < rangeCount * 8 || (rangeBufferLength & 7) !== 0)
      return refuse(VmbusStatus.invalidParameter, "length of the ranges (VMBus GpadlHeader)");
    const entries = rangeBufferLength / 8;
    if (
      this.#complete.size + this.#incomplete.size >= MAX_GPADLS ||
      this.#incomplete.size >= MAX_ASSEMBLIES ||
      this.#entries + entries > this.maxEntries
    )
      return refuse(VmbusStatus.insufficientResources, "too many pages lent (VMBus GpadlHeader)");
    const bytes = new Uint8Array(rangeBufferLength);
    const assembly = { relid, rangeCount, bytes, words: new Int32Array(bytes.buffer), filled: 0 };
    this.#incomplete.set(gpadl, assembly);
    this.#entries += entries;
    return this.#fill(gpadl, assembly, message, GPADL_HEADER_RANGES);
  }
  /** A body of a list that was begun. @throws GuestViolation when there is none */
  continue(gpadl: number, message: Uint8Array): GpadlAnswer | undefined {
    const assembly = this.#incomplete.get(gpadl);
    if (assembly === undefined) throw new GuestViolation(SOURCE, "body of no list (VMBus GpadlBody)", gpadl);
    return this.#fill(gpadl, assembly, message, GPADL_BODY_PAGES);
  }
  #fill(gpadl: number, assembly: Assembly, message: Uint8Array, from: number): GpadlAnswer | undefined {
    const { relid, bytes } = assembly;
    const available = (message.length - from) & ~7;
    // Bodies without contents would let an incomplete list be kept busy for ever; nobody sends them.
    if (available <= 0 && assembly.filled < bytes.length && from === GPADL_BODY_PAGES)
      return this.#refuse(gpadl, assembly, "body without pages (VMBus GpadlBody)");
    const taken = Math.min(available, bytes.length - assembly.filled);
    bytes.set(message.subarray(from, from + taken), assembly.filled);
    assembly.filled += taken;
    if (assembly.filled < bytes.length) return undefined;
    const ranges = new GpaRanges();
    const rule = appendRanges(ranges, assembly.words, 0, bytes.length, assembly.rangeCount);
    if (rule !== undefined) return this.#refuse(gpadl, assembly, rule);
    if (!ranges.isInside(this.#memory)) return this.#refuse(gpadl, assembly, "a page outside RAM (VMBus GpadlHeader)");
    this.#incomplete.delete(gpadl);
    this.#complete.set(gpadl, { relid, ranges, entries: bytes.length / 8 });
    return { relid, gpadl, status: VmbusStatus.success };
  }
  #refuse(gpadl: number, assembly: Assembly, rule: string): GpadlAnswer {
    this.#incomplete.delete(gpadl);
    this.#entries -= assembly.bytes.length / 8;
    return { relid: assembly.relid, gpadl, status: VmbusStatus.invalidParameter, rule };
  }

  /** @returns whether there was such a list */
  remove(relid: number, gpadl: number): boolean {
    const found = this.#complete.get(gpadl);
    if (found?.relid !== relid) return false;
    this.#complete.delete(gpadl);
    this.#entries -= found.entries;
    return true;
  }
  /** Everything of a channel whose relid goes. */
  removeAll(relid: number): void {
    for (const [handle, g] of this.#complete) if (g.relid === relid) this.remove(relid, handle);
    for (const [handle, a] of this.#incomplete)
      if (a.relid === relid) {
        this.#incomplete.delete(handle);
        this.#entries -= a.bytes.length / 8;
      }
  }
  clear(): void {
    this.#complete.clear();
    this.#incomplete.clear();
    this.#entries = 0;
  }

  save(): SavedGpadls {
    return {
      complete: [...this.#complete].map(([gpadl, { relid, ranges, entries }]) => ({
        gpadl,
        relid,
        entries,
        ranges: Array.from({ length: ranges.count }, (_, r) => ({
          byteCount: ranges.byteCount[r]!,
          byteOffset: ranges.byteOffset[r]!,
          pages: [...ranges.pages.subarray(ranges.firstPage[r], ranges.firstPage[r + 1])],
        })),
      })),
      incomplete: [...this.#incomplete].map(([gpadl, { relid, rangeCount, bytes, filled }]) => ({
        gpadl,
        relid,
        rangeCount,
        bytes: bytes.slice(),
        filled,
      })),
    };
  }
  restore(state: SavedGpadls): void {
    this.clear();
    for (const { gpadl, relid, entries, ranges: saved } of state.complete) {
      const ranges = new GpaRanges();
      for (const { byteCount, byteOffset, pages } of saved) {
        ranges.addRange(byteCount, byteOffset);
        for (const page of pages) ranges.addPage(page);
      }
      this.#complete.set(gpadl, { relid, ranges, entries });
      this.#entries += entries;
    }
    for (const { gpadl, relid, rangeCount, bytes: saved, filled } of state.incomplete) {
      const bytes = saved.slice();
      this.#incomplete.set(gpadl, { relid, rangeCount, bytes, words: new Int32Array(bytes.buffer), filled });
      this.#entries += bytes.length / 8;
    }
  }
}
