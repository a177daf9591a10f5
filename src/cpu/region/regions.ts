/**
 * Which code becomes a region, and where the regions are: the processor is sampled every so many instructions, an address that
 * is seen often is compiled, and gates are put at its entries (cpu-engine.md 3.9).
 */
import type { BlockBuilder } from "../decode/block-builder.js";
import { ARENA_BYTES, Head, ModeKey, REC_BYTES, REGION_HEAD, Vp } from "../layout.js";
import { compileRegion, REGION_EXPORT } from "./compiler.js";
import { discoverRegion, type Region } from "./region.js";

/** Slots of the regions' table: live regions at most. */
export const MAX_REGIONS = 8192;
/** Sampled this often, an address is compiled. */
const HOT = 40;
/** Of an address where there is nothing to compile, until all are counted anew. */
const REFUSED = Number.NEGATIVE_INFINITY;
/** Regions compiled in the life of a processor: V8 may keep what each has taken, a guest that rewrites its code is to end there. */
const MAX_COMPILED = 16_000;
/** Bytes of the arena that a region may need. */
const ROOM = 1 << 15;
/** Addresses counted at a time. */
const MAX_COUNTED = 4096;

/** The runtime's functions that this asks. */
export interface RegionRuntime {
  peekCode(): number;
  peekPage(va: bigint): number;
  findBlock(physical: number, mode: number): number;
  lookup(rip: bigint): number;
  watchCode(header: number): void;
}
export interface RegionsOptions {
  readonly memory: WebAssembly.Memory;
  readonly shared: boolean;
  /** Of the processor's block. */
  readonly base: number;
  readonly blocks: BlockBuilder;
  readonly runtime: RegionRuntime & Record<string, unknown>;
  readonly interpreter: Record<string, unknown>;
  readonly table: WebAssembly.Table;
  /** Sampled this often, an address is compiled. Default: HOT. */
  readonly hot?: number;
}
export interface RegionCounters {
  compiled: number;
  instructions: number;
  bytes: number;
  refused: number;
  dead: number;
}

/** Of the region's instructions in the page at `distance`: where the first begins and the last ends, at most the page's end. */
function extent(region: Region, distance: number): readonly [number, number] {
  let start = 4096;
  let end = 0;
  for (const { instructions } of region.blocks)
    for (const { offset, decoded } of instructions) {
      const at = Math.max(offset - distance, 0);
      const behind = Math.min(offset + decoded.length - distance, 4096);
      if (at >= behind) continue;
      start = Math.min(start, at);
      end = Math.max(end, behind);
    }
  return [start, end];
}

export class Regions {
  readonly counters: RegionCounters = { compiled: 0, instructions: 0, bytes: 0, refused: 0, dead: 0 };
  readonly #o: RegionsOptions;
  readonly #view: DataView;
  /** Samples by physical address and mode. */
  readonly #counts = new Map<number, number>();
  /** Headers of live regions by table slot. */
  readonly #headers = new Map<number, number>();
  readonly #free: number[] = [];
  /** From 1: a gate of the first slot's first entry would be 0, as no gate is. */
  #next = 1;
  #deaths = 0;
  #generation = 0;

  constructor(o: RegionsOptions) {
    this.#o = o;
    this.#view = new DataView(o.memory.buffer);
    this.#generation = this.#slot(Vp.arenaGeneration);
  }
  #slot(offset: number): number {
    return this.#view.getUint32(this.#o.base + offset, true);
  }
  /** Call it between two runs: RIP is where the processor is. */
  sample(): void {
    this.#bury();
    const mode = this.#slot(Vp.mode);
    if ((mode & (ModeKey.codeMask | ModeKey.single | ModeKey.debug | ModeKey.aligned)) !== ModeKey.code64) return;
    const physical = this.#o.runtime.peekCode();
    if (physical < 0) return;
    const key = physical * 4096 + mode;
    const count = (this.#counts.get(key) ?? 0) + 1;
    if (count === 1 && this.#counts.size >= MAX_COUNTED) this.#counts.clear();
    this.#counts.set(key, count);
    if (count < (this.#o.hot ?? HOT)) return;
    // a gate needs a block to stand at; where one stands the region itself was sampled
    const block = this.#o.runtime.findBlock(physical, mode);
    if (block === 0 || this.#view.getUint32(block + Head.region, true) !== 0) return;
    if (!this.#compile(physical, mode)) this.#counts.set(key, REFUSED);
  }
  /** RAM offsets of the first bytes of the live regions, oldest first. */
  liveCode(): readonly number[] {
    this.#bury();
    return [...this.#headers.values()].map((header) => this.#view.getUint32(header + Head.start, true));
  }
  /** Compiles what is at an address, hot or not: for tests. @returns whether a gate stands there now */
  force(rip: bigint): boolean {
    this.#bury();
    const before = this.counters.compiled;
    const { runtime, base } = this.#o;
    this.#view.setBigUint64(base + Vp.rip, rip, true);
    const record = runtime.lookup(rip);
    const physical = runtime.peekCode();
    if (record === 0 || physical < 0) return false;
    this.#compile(physical, this.#slot(Vp.mode));
    return this.counters.compiled > before;
  }
  /** Gives back what died by stores to its code, or with all blocks. */
  #bury(): void {
    const generation = this.#slot(Vp.arenaGeneration);
    if (generation !== this.#generation) {
      this.#generation = generation;
      for (const slot of this.#headers.keys()) this.#release(slot);
      this.#counts.clear();
      this.#deaths = this.#slot(Vp.regionDeaths);
      return;
    }
    const deaths = this.#slot(Vp.regionDeaths);
    if (deaths === this.#deaths) return;
    this.#deaths = deaths;
    for (const [slot, header] of this.#headers)
      if (this.#view.getUint32(header + Head.start, true) === 0xffffffff) this.#release(slot);
    this.#counts.clear();
  }
  #release(slot: number): void {
    this.#o.table.set(slot, null);
    this.#headers.delete(slot);
    this.#free.push(slot);
    this.counters.dead++;
  }

  /** @returns false = there is nothing to compile */
  #compile(physical: number, mode: number): boolean {
    const { blocks, runtime, base, shared, memory } = this.#o;
    const rip = this.#view.getBigUint64(base + Vp.rip, true) & ~0xfffn;
    const pages = new Map<number, number | undefined>([[0, physical & ~0xfff]]);
    const pageAt = (offset: number): number | undefined => {
      if (pages.has(offset)) return pages.get(offset);
      const found = runtime.peekPage(BigInt.asUintN(64, rip + BigInt(offset)));
      const page = found < 0 ? undefined : found;
      pages.set(offset, page);
      return page;
    };
    const physicalOf = (offset: number): number | undefined => {
      const page = pageAt(Math.floor(offset / 4096) * 4096);
      return page === undefined ? undefined : page + (offset & 0xfff);
    };
    const blockAt = (offset: number): number => {
      const at = physicalOf(offset);
      return at === undefined ? 0 : runtime.findBlock(at, mode);
    };
    const region = discoverRegion(
      {
        instruction: (offset) => {
          const at = physicalOf(offset);
          if (at === undefined) return undefined;
          return blocks.instruction(at, mode, pageAt((Math.floor(offset / 4096) + 1) * 4096) ?? -1);
        },
        wasEntered: (offset) => blockAt(offset) !== 0,
        enteredIn: (offset) => {
          const list: number[] = [];
          for (let at = offset; at < offset + 4096; at++) if (blockAt(at) !== 0) list.push(at);
          return list;
        },
        pageAt,
      },
      physical & 0xfff,
    );
    const slot = this.#free.at(-1) ?? this.#next;
    if (region === undefined || slot >= MAX_REGIONS || this.counters.compiled >= MAX_COMPILED) {
      this.counters.refused++;
      return false;
    }
    const v = this.#view;
    const arenaEnd = base + Vp.arena + ARENA_BYTES;
    let next = this.#slot(Vp.arenaNext);
    if (next + ROOM > arenaEnd) return true; // the next block decoded empties the arena
    const keep = (data: Uint8Array): number => {
      const at = next;
      new Uint8Array(memory.buffer, at, data.length).set(data);
      next += data.length;
      return at;
    };
    const bytes = compileRegion(region, base, (mode & ModeKey.user) !== 0, shared, keep);
    const module = new WebAssembly.Module(bytes);
    const instance = new WebAssembly.Instance(module, {
      env: { memory },
      runtime,
      interpreter: this.#o.interpreter,
    });
    const entries = region.entries.map((b) => blockAt(region.blocks[b]!.offset));
    const align = (at: number): number => Math.ceil(at / REC_BYTES) * REC_BYTES;
    // one header for each page; the first owns the others
    const header = align(next);
    const headers = [...region.pages].map(([distance, address], i) => {
      const at = i === 0 ? header : align(header + REC_BYTES + 4 + entries.length * 4) + (i - 1) * REC_BYTES;
      const [start, end] = extent(region, distance);
      v.setUint32(at + Head.region, slot, true);
      v.setUint32(at + Head.start, address + start, true);
      v.setUint32(at + Head.end, address + end, true);
      v.setUint16(at + Head.records, 0, true);
      v.setUint16(at + Head.handler, REGION_HEAD, true);
      v.setUint32(at + Head.hashNext, 0, true);
      v.setUint32(at + Head.mode, mode, true);
      v.setUint32(at + Head.owner, header, true);
      return at;
    });
    next = align(header + REC_BYTES + 4 + entries.length * 4) + headers.length * REC_BYTES;
    v.setUint32(base + Vp.arenaNext, next, true);
    let gates = 0;
    entries.forEach((block, entry) => {
      if (block === 0 || v.getUint32(block + Head.region, true) !== 0) return;
      v.setUint16(block + Head.handler, v.getUint16(block + REC_BYTES, true), true);
      v.setUint16(block + REC_BYTES, blocks.regionHandler, true);
      v.setUint32(block + Head.region, (slot << 8) | entry, true);
      v.setUint32(header + REC_BYTES + 4 + gates * 4, block, true);
      gates++;
    });
    v.setUint32(header + REC_BYTES, gates, true);
    if (gates === 0) return true;
    this.#o.table.set(slot, instance.exports[REGION_EXPORT] as () => void);
    if (this.#free.length > 0) this.#free.pop();
    else this.#next++;
    this.#headers.set(slot, header);
    for (const each of headers) runtime.watchCode(each);
    this.counters.compiled++;
    this.counters.bytes += bytes.length;
    this.counters.instructions += region.blocks.reduce((n, b) => n + b.instructions.length, 0);
    return true;
  }
}
