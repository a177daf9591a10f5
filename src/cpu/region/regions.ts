/**
 * Which code becomes a region, and where the regions are: the processor is sampled every so many instructions, an address that
 * is seen often is asked for, and when its region is there gates are put at its entries (cpu-engine.md 3.9).
 *
 * Between the two the guest goes on. What comes back is taken only where the code still has the bytes that it was made of.
 */
import { ARENA_BYTES, Head, ModeKey, REC_BYTES, REGION_HEAD, Vp } from "../layout.js";
import {
  BatchCompiler,
  type CompiledBatch,
  exportOf,
  InlineCompiler,
  type PlacedRegion,
  type RegionCompiler,
  type RegionRequest,
  type RegionStore,
} from "./batch-compiler.js";
import { CodePages, DEAD } from "./code-pages.js";
import { PAGE } from "./region.js";
import { codeHash } from "./region-cache.js";
import { keptName } from "./region-code.js";
import type { RegionWay } from "./region-function.js";

/** Slots of the regions' table; the first stays empty. */
export const MAX_REGIONS = 8192;
/**
 * Sampled this often, an address is asked for: fewer, and a boot compiles what soon is not run any more; more, and a program that does
 * many things is interpreted for too long. Where many are waited for, the next has to be hotter.
 */
const HOT = 12;
const hotWith = (waiting: number): number => HOT + (waiting >> 1);
/** The same, where it was hot in another run: its region costs less, and will be worth it. */
const KNOWN_HOT = 2;
/** Of an address where there is nothing to compile, until all are counted anew. */
const REFUSED = Number.NEGATIVE_INFINITY;
/** After so many deaths the host is asked to give back modules that nobody refers to: V8 does not see what they take. */
const COLLECT_AFTER = 1000;
/** Requests without an answer. What is hot will be sampled again. */
export const MAX_IN_FLIGHT = 64;
/** So many requests go together, or what there is when the first has waited for so many samples: a module has its price, whatever is in it. */
const TOGETHER = 8;
const PATIENCE = 100;
/** Installations of which the times are kept. */
const MAX_TIMES = 5000;
/** So often it is looked how often regions have been left in the middle, in samples; and how often one may be in between (3 % of the time). */
const LEAVES_EVERY = 256;
const MAX_LEAVES = 2000;
/** Regions that were left too often, at most. */
const MAX_CAREFUL = 4096;
/** Addresses counted at a time. */
const MAX_COUNTED = 4096;

/** The runtime's functions that this asks. */
export interface RegionRuntime {
  /** RAM offsets, -1 = none. Those from 2 GiB on come as negative numbers. */
  peekCode(): number;
  peekPage(va: bigint): number;
  findBlock(physical: number, mode: number): number;
  lookup(rip: bigint): number;
  watchCode(header: number): void;
  dropRegion(header: number): void;
  flushArena(): void;
}
export interface RegionsOptions {
  readonly memory: WebAssembly.Memory;
  readonly shared: boolean;
  /** Of the processor's block. */
  readonly base: number;
  /** Of guest RAM. */
  readonly ram: number;
  /** Of the processor's table of blocks by guest page. */
  readonly pageBlocks: number;
  /** Handler number of the gate to a region. */
  readonly gate: number;
  readonly runtime: RegionRuntime & Record<string, unknown>;
  /** The interpreter's exports. */
  readonly interpreter: Record<string, unknown>;
  readonly table: WebAssembly.Table;
  /** Sampled this often, an address is compiled. Default: hotWith. */
  readonly hot?: number;
  /** Default: on this thread. */
  readonly compiler?: RegionCompiler;
  /** Regions that were compiled before, for what is compiled on this thread. */
  readonly store?: RegionStore;
  /** Of the table (default: MAX_REGIONS). */
  readonly slots?: number;
  /** Requests that are sent at a time (default: TOGETHER). */
  readonly together?: number;
  /** Of regions that nothing is known of yet (default: usual). */
  readonly way?: RegionWay;
  /** Monotonic, in ns, for the counters (default: no time passes). */
  readonly now?: () => number;
}
export interface RegionCounters {
  requested: number;
  /** Requests that were not made: too many had no answer yet. */
  postponed: number;
  installed: number;
  instructions: number;
  /** Nothing to compile there. */
  refused: number;
  /** Their code had changed, or was not decoded any more, when they came. */
  stale: number;
  dead: number;
  /** Left too often in the middle. */
  remade: number;
  /** Answers that came from the cache. */
  known: number;
  modules: number;
  bytes: number;
  /** What compiling took beside the processor's thread. */
  backgroundMs: number;
  /** How long the processor's thread stood still for what came at one time, in us. */
  longestInstallUs: number;
  install999Us: number;
}

export class Regions {
  readonly #o: RegionsOptions;
  readonly #view: DataView;
  readonly #bytes: Uint8Array;
  readonly #compiler: RegionCompiler;
  readonly #pages: CodePages;
  #forced: BatchCompiler | undefined;
  readonly #now: () => number;
  /** Samples by physical address and mode. */
  readonly #counts = new Map<number, number>();
  /** Of addresses that were asked for early, in vain: they have to become hot. */
  readonly #unknown = new Set<number>();
  /** Requests without an answer, in order, and their keys. */
  readonly #asked: RegionRequest[] = [];
  readonly #askedKeys = new Set<number>();
  /** Those of them that the compiler has not been given yet. */
  #held: RegionRequest[] = [];
  #heldFor = 0;
  #uncollected = 0;
  readonly #slots: number;
  /** By table slot. */
  readonly #live = new Map<number, LiveRegion>();
  #leavesIn = LEAVES_EVERY;
  /** Keys of those that were left too often. */
  readonly #careful = new Set<number>();
  readonly #free: number[] = [];
  /** A gate is never 0, so neither is a slot. */
  #next = 1;
  #deaths = 0;
  #generation = 0;
  readonly #installNs: number[] = [];
  #longestNs = 0;
  readonly #counters = {
    requested: 0,
    postponed: 0,
    installed: 0,
    instructions: 0,
    refused: 0,
    stale: 0,
    dead: 0,
    remade: 0,
    known: 0,
    modules: 0,
    bytes: 0,
    backgroundMs: 0,
  };

  constructor(o: RegionsOptions) {
    this.#o = o;
    this.#view = new DataView(o.memory.buffer);
    this.#bytes = new Uint8Array(o.memory.buffer);
    this.#compiler = o.compiler ?? new InlineCompiler(o, o.store);
    this.#pages = new CodePages(o);
    this.#slots = o.slots ?? MAX_REGIONS;
    this.#now = o.now ?? ((): number => 0);
    this.#generation = this.#slot(Vp.arenaGeneration);
  }
  get counters(): Readonly<RegionCounters> {
    const times = this.#installNs.toSorted((a, b) => a - b);
    const us = (part: number): number => Math.round((times[Math.ceil(times.length * part) - 1] ?? 0) / 1000);
    const backgroundMs = Math.round(this.#counters.backgroundMs);
    return {
      ...this.#counters,
      backgroundMs,
      longestInstallUs: Math.round(this.#longestNs / 1000),
      install999Us: us(0.999),
    };
  }
  #slot(offset: number): number {
    return this.#view.getUint32(this.#o.base + offset, true);
  }
  /** Call it between two runs: RIP is where the processor is. */
  sample(): void {
    this.#bury();
    if (this.#uncollected >= COLLECT_AFTER) {
      this.#uncollected = 0;
      this.#compiler.collect?.();
    }
    if (this.#compiler.ready) this.#takeAll();
    if (--this.#leavesIn === 0) this.#lookAtLeaves();
    if (this.#held.length > 0 && ++this.#heldFor >= PATIENCE) this.#sendHeld();
    const mode = this.#slot(Vp.mode);
    if ((mode & (ModeKey.codeMask | ModeKey.single | ModeKey.debug | ModeKey.aligned)) !== ModeKey.code64) return;
    const found = this.#o.runtime.peekCode();
    if (found === -1) return;
    const physical = found >>> 0;
    const key = keyOf(physical, mode);
    const count = (this.#counts.get(key) ?? 0) + 1;
    if (count === 1 && this.#counts.size >= MAX_COUNTED) this.#counts.clear();
    this.#counts.set(key, count);
    if (this.#askedKeys.has(key)) return;
    const isHot = count >= (this.#o.hot ?? hotWith(this.#asked.length));
    const isEarly =
      !isHot &&
      count >= KNOWN_HOT &&
      !this.#unknown.has(key) &&
      this.#compiler.knows?.(this.#hashAt(physical)) === true;
    if (!isHot && !isEarly) return;
    // a gate needs a block to stand at; where one stands the region itself was sampled
    const block = this.#o.runtime.findBlock(physical, mode);
    if (block === 0 || this.#view.getUint32(block + Head.region, true) !== 0) return;
    // the table is full: all records go, and with them all regions; what is hot comes back
    if (this.#live.size + this.#asked.length + 1 >= this.#slots) {
      this.#o.runtime.flushArena();
      this.#bury();
    } else if (this.#asked.length >= MAX_IN_FLIGHT) this.#counters.postponed++;
    else this.#ask(physical, mode, isEarly);
  }
  /** What is left too often in the middle (accesses that lie in two pages, or miss the TLB) is made anew, so that it asks the runtime. */
  #lookAtLeaves(): void {
    this.#leavesIn = LEAVES_EVERY;
    for (const region of this.#live.values()) {
      const now = this.#view.getUint32(region.leavesAt, true);
      const since = (now - region.leaves) >>> 0;
      region.leaves = now;
      if (since < MAX_LEAVES || this.#careful.has(region.key) || this.#careful.size >= MAX_CAREFUL) continue;
      this.#careful.add(region.key);
      this.#o.runtime.dropRegion(region.header);
      this.#counters.remade++;
    }
  }
  /** RAM offsets of the first bytes of the live regions, oldest first. */
  liveCode(): readonly number[] {
    this.#bury();
    return [...this.#live.values()].map(({ header }) => this.#view.getUint32(header + Head.start, true));
  }
  #ask(physical: number, mode: number, isEarly: boolean): void {
    const known = this.#pages.request(physical, mode, this.#wayOf(physical, mode));
    const request: RegionRequest = isEarly ? { ...known, onlyKnown: true } : known;
    this.#asked.push(request);
    this.#askedKeys.add(keyOf(physical, mode));
    this.#counters.requested++;
    this.#held.push(request);
    if (this.#held.length >= (this.#o.together ?? TOGETHER)) this.#sendHeld();
  }
  #hashAt(physical: number): number {
    const offset = physical & (PAGE - 1);
    const page = this.#o.ram + physical - offset;
    return codeHash(this.#bytes, page, offset);
  }
  #wayOf(physical: number, mode: number): RegionWay {
    return this.#careful.has(keyOf(physical, mode)) ? "careful" : (this.#o.way ?? "usual");
  }
  #sendHeld(): void {
    this.#compiler.request(this.#held);
    this.#held = [];
    this.#heldFor = 0;
  }
  /** Compiles what is at an address, hot or not, at once: for tests. @returns whether a gate stands there now */
  force(rip: bigint): boolean {
    this.#bury();
    const { runtime, base } = this.#o;
    this.#view.setBigUint64(base + Vp.rip, rip, true);
    const record = runtime.lookup(rip);
    const found = runtime.peekCode();
    const physical = found >>> 0;
    if (record === 0 || found === -1) return false;
    const before = this.#counters.installed;
    const mode = this.#slot(Vp.mode);
    const requests = [this.#pages.request(physical, mode, this.#wayOf(physical, mode))];
    this.#forced ??= new BatchCompiler(this.#o, this.#o.store);
    this.#install(this.#forced.compile(requests), requests);
    return this.#counters.installed > before;
  }
  /** Gives back what died by stores to its code, or with all blocks. */
  #bury(): void {
    const generation = this.#slot(Vp.arenaGeneration);
    if (generation !== this.#generation) {
      this.#generation = generation;
      for (const slot of this.#live.keys()) this.#release(slot);
      this.#counts.clear();
      this.#deaths = this.#slot(Vp.regionDeaths);
      return;
    }
    const deaths = this.#slot(Vp.regionDeaths);
    if (deaths === this.#deaths) return;
    this.#deaths = deaths;
    for (const [slot, { header }] of this.#live)
      if (this.#view.getUint32(header + Head.start, true) === DEAD) this.#release(slot);
    this.#counts.clear();
  }
  #release(slot: number): void {
    this.#o.table.set(slot, null);
    this.#live.delete(slot);
    this.#free.push(slot);
    this.#counters.dead++;
    this.#uncollected++;
  }

  /** Everything that has been compiled. */
  #takeAll(): void {
    const from = this.#now();
    for (let done = this.#compiler.take(); done !== undefined; done = this.#compiler.take()) {
      const requests = this.#asked.splice(0, done.batch.regions.length);
      for (const { physical, mode } of requests) this.#askedKeys.delete(keyOf(physical, mode));
      this.#counters.backgroundMs += done.backgroundMs;
      this.#install(done.batch, requests);
    }
    const took = this.#now() - from;
    this.#longestNs = Math.max(this.#longestNs, took);
    // the last ones alone: a guest that rewrites its code is not to make this grow
    if (this.#installNs.length >= 2 * MAX_TIMES) this.#installNs.splice(0, MAX_TIMES);
    this.#installNs.push(took);
  }
  #install(batch: CompiledBatch, requests: readonly RegionRequest[]): void {
    const { runtime, interpreter } = this.#o;
    this.#counters.modules++;
    this.#counters.bytes += batch.bytes;
    this.#counters.known += batch.known;
    const kept = this.#keep(batch.kept.length);
    // the arena is at its end: the next block decoded empties it
    if (kept < 0) {
      this.#counters.stale += requests.length;
      return;
    }
    this.#bytes.set(batch.kept, kept);
    let instance: WebAssembly.Instance | undefined;
    requests.forEach((request, i) => {
      const facts = batch.regions[i];
      const key = keyOf(request.physical, request.mode);
      if (facts === undefined && request.onlyKnown) {
        // it only begins alike, or not all of its pages are there yet
        if (this.#unknown.size >= MAX_COUNTED) this.#unknown.clear();
        this.#unknown.add(key);
        return;
      }
      if (facts === undefined) {
        this.#counters.refused++;
        this.#counts.set(key, REFUSED);
        return;
      }
      const slot = this.#free.at(-1) ?? this.#next;
      const header = slot < this.#slots ? this.#watch(request, facts, slot) : 0;
      if (header === 0 || this.#open(request, facts, header, slot) === 0) {
        this.#counters.stale++;
        // it has to become hot anew
        this.#counts.delete(key);
        return;
      }
      instance ??= new WebAssembly.Instance(batch.module, {
        env: this.#environment(batch, kept),
        runtime,
        interpreter,
      });
      this.#o.table.set(slot, instance.exports[exportOf(i)] as () => void);
      if (this.#free.length > 0) this.#free.pop();
      else this.#next++;
      this.#live.set(slot, { header, key, leavesAt: kept + facts.kept + facts.leaves, leaves: 0 });
      this.#counters.installed++;
      this.#counters.instructions += facts.instructions;
    });
  }
  /** @param kept address of the batch's kept bytes */
  #environment({ regions }: CompiledBatch, kept: number): Record<string, WebAssembly.Memory | WebAssembly.Global> {
    const env: Record<string, WebAssembly.Memory | WebAssembly.Global> = { memory: this.#o.memory };
    regions.forEach((region, i) => {
      if (region === undefined) return;
      env[keptName(i)] = new WebAssembly.Global({ value: "i32", mutable: false }, (kept + region.kept) | 0);
    });
    return env;
  }
  /** Room in the arena, whole records. @returns its address, -1 = there is not enough */
  #keep(bytes: number): number {
    const at = this.#slot(Vp.arenaNext);
    const next = at + Math.ceil(bytes / REC_BYTES) * REC_BYTES;
    if (next > this.#o.base + Vp.arena + ARENA_BYTES) return -1;
    this.#view.setUint32(this.#o.base + Vp.arenaNext, next, true);
    return at;
  }
  /**
   * Writes a region's headers, one for each page, so that it dies with its code. The first owns the others.
   * @returns its address, 0 = the code is not what the region was made of
   */
  #watch({ mode, pages: copies }: RegionRequest, { pages, entries }: PlacedRegion, slot: number): number {
    const v = this.#view;
    const first = REC_BYTES + Math.ceil((4 + entries.length * 4) / REC_BYTES) * REC_BYTES;
    const header = this.#keep(first + (pages.length - 1) * REC_BYTES);
    if (header < 0) return 0;
    let same = true;
    pages.forEach(({ distance, start, end }, i) => {
      const { physical, bytes } = copies.find((copy) => copy.distance === distance)!;
      const at = i === 0 ? header : header + first + (i - 1) * REC_BYTES;
      v.setUint32(at + Head.region, slot, true);
      v.setUint32(at + Head.start, physical + start, true);
      v.setUint32(at + Head.end, physical + end, true);
      v.setUint16(at + Head.records, 0, true);
      v.setUint16(at + Head.handler, REGION_HEAD, true);
      v.setUint32(at + Head.hashNext, 0, true);
      v.setUint32(at + Head.mode, mode, true);
      v.setUint32(at + Head.owner, header, true);
      if (i === 0) v.setUint32(header + REC_BYTES, 0, true);
      // first the mark, then the look: what a device writes after it is told to this thread
      this.#o.runtime.watchCode(at);
      const now = this.#o.ram + physical;
      for (let n = start; n < end; n++) same &&= this.#bytes[now + n] === bytes[n];
    });
    if (same) return header;
    v.setUint32(header + Head.start, DEAD, true);
    return 0;
  }
  /** Puts gates at a region's entries. @returns how many: 0 = nothing is decoded there, or it has gates; the header is dead then */
  #open({ mode, pages }: RegionRequest, { entries }: PlacedRegion, header: number, slot: number): number {
    const v = this.#view;
    let gates = 0;
    entries.forEach((offset, entry) => {
      const page = pages.find(({ distance }) => offset >= distance && offset < distance + PAGE)!;
      const block = this.#o.runtime.findBlock(page.physical + offset - page.distance, mode);
      if (block === 0 || v.getUint32(block + Head.region, true) !== 0) return;
      v.setUint16(block + Head.handler, v.getUint16(block + REC_BYTES, true), true);
      v.setUint16(block + REC_BYTES, this.#o.gate, true);
      v.setUint32(block + Head.region, (slot << 8) | entry, true);
      v.setUint32(header + REC_BYTES + 4 + gates * 4, block, true);
      gates++;
    });
    v.setUint32(header + REC_BYTES, gates, true);
    if (gates === 0) v.setUint32(header + Head.start, DEAD, true);
    return gates;
  }
}

interface LiveRegion {
  readonly header: number;
  /** Of the address that it was asked for. */
  readonly key: number;
  /** Address of the count of its ways out in the middle (CompiledRegion), and the count when it was last looked at. */
  readonly leavesAt: number;
  leaves: number;
}
const keyOf = (physical: number, mode: number): number => physical * 4096 + mode;
