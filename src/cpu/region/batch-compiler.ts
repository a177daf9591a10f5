/**
 * Requests for regions to one WebAssembly module. What comes out depends on the requests and on the engine's constants alone, so
 * it can be made on any thread: nothing of the engine's memory is looked at, what is there may change while it is made.
 */
import { BlockBuilder, type DecodedInstruction } from "../decode/block-builder.js";
import { ModeKey } from "../layout.js";
import { compileRegion } from "./compiler.js";
import { discoverRegion, PAGE, pageOf, type Region } from "./region.js";
import { type RegionCode, type RegionFacts, RegionModule, type RegionPage } from "./region-code.js";
import type { RegionWay } from "./region-function.js";

/** Requests that become one module at most: beyond it the first of them wait too long for the last. */
export const MAX_BATCH = 12;

/** A page of code as it was when a region was asked for. */
export interface CodePage {
  /** RAM offset of its first byte. */
  readonly physical: number;
  /** Where it is in the region's code: distance from the first byte of the page that the region was asked for in. */
  readonly distance: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Offsets in the page where the interpreter has begun blocks of the region's mode, ascending. */
  readonly entered: Uint16Array<ArrayBuffer>;
  /** Those of them where other regions begin. */
  readonly gates: Uint16Array<ArrayBuffer>;
}
/** Plain data, as it crosses between threads. */
export interface RegionRequest {
  /** RAM offset of the hot instruction. */
  readonly physical: number;
  /** ModeKey bits. */
  readonly mode: number;
  /** MXCSR is not as SSE arithmetic goes the host's way with (region-function.ts). */
  readonly oddFloat: boolean;
  readonly way: RegionWay;
  /** Asked for before it is hot: where no other run has compiled it, it is too early to say what belongs to it. */
  readonly onlyKnown?: true;
  /** The first is that of the hot instruction. */
  readonly pages: readonly CodePage[];
}
/** A region in a module. */
export interface PlacedRegion extends RegionFacts {
  /** Where among the module's kept bytes its own begin. */
  readonly kept: number;
}
export interface EmittedBatch {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** For the engine's memory: the module gets the address of region n's own as its global `keptName(n)`. */
  readonly kept: Uint8Array<ArrayBuffer>;
  /** By request; undefined where there is nothing to compile. Region n is the export `exportOf(n)`. */
  readonly regions: readonly (PlacedRegion | undefined)[];
  /** Regions among them that had been compiled before. */
  readonly known: number;
}
export interface CompiledBatch extends Omit<EmittedBatch, "bytes"> {
  readonly module: WebAssembly.Module;
  /** Of the module. */
  readonly bytes: number;
}
/** What generated code has as constants. */
export interface EngineConstants {
  /** Of the processor's block. */
  readonly base: number;
  /** Whether the memory is shared. */
  readonly shared: boolean;
}

/** Regions that were compiled before, by the bytes of their code. */
export interface RegionStore {
  /** One that is right for the request, as it would be if it were compiled now: its code is that of the request's pages. */
  find(request: RegionRequest): RegionCode | undefined;
  add(request: RegionRequest, code: RegionCode): void;
}

export const exportOf = (region: number): string => `region${region}`;

/** Where the copies of a request's pages begin in the builder's memory, above what it takes for a processor's block. */
const COPIES = 0x1000;

/** The decoder over copies of pages. */
class CodeCopies {
  #bytes = new Uint8Array(0);
  #blocks: BlockBuilder | undefined;
  /** Places of the copies, by the pages' distances. */
  #places = new Map<number, number>();

  load(pages: readonly CodePage[]): BlockBuilder {
    const needed = COPIES + pages.length * PAGE;
    if (this.#blocks === undefined || this.#bytes.length < needed) {
      this.#bytes = new Uint8Array(needed);
      const layout = {
        pages: 0,
        lineMasks: 0,
        vps: [{ base: 0, pageBlocks: 0 }],
        ram: COPIES,
        ramBytes: needed - COPIES,
      };
      this.#blocks = new BlockBuilder(this.#bytes.buffer, layout, 0);
    }
    this.#places = new Map(pages.map(({ distance }, place) => [distance, place]));
    pages.forEach(({ bytes }, i) => {
      this.#bytes.set(bytes, COPIES + i * PAGE);
    });
    return this.#blocks;
  }
  /** Address of the page's copy for the builder, -1 = there is none. */
  at(distance: number): number {
    const place = this.#places.get(distance);
    return place === undefined ? -1 : place * PAGE;
  }
}

function extent(region: Region, distance: number): RegionPage {
  let start = PAGE;
  let end = 0;
  for (const { instructions } of region.blocks)
    for (const { offset, decoded } of instructions) {
      const at = Math.max(offset - distance, 0);
      const behind = Math.min(offset + decoded.length - distance, PAGE);
      if (at >= behind) continue;
      start = Math.min(start, at);
      end = Math.max(end, behind);
    }
  return { distance, start, end };
}

export class BatchCompiler {
  readonly #constants: EngineConstants;
  readonly #store: RegionStore | undefined;
  readonly #copies = new CodeCopies();

  constructor(constants: EngineConstants, store?: RegionStore) {
    this.#constants = constants;
    this.#store = store;
  }
  compile(requests: readonly RegionRequest[]): CompiledBatch {
    const { bytes, ...rest } = this.emit(requests);
    return { module: new WebAssembly.Module(bytes), bytes: bytes.length, ...rest };
  }
  emit(requests: readonly RegionRequest[]): EmittedBatch {
    const into = new RegionModule(this.#constants.shared);
    let known = 0;
    // what begins in one region of the batch is not compiled into the others
    const taken = new Set<number>();
    const regions = requests.map((request, i): PlacedRegion | undefined => {
      if (taken.has(request.physical)) return undefined;
      const found = this.#store?.find(request);
      const code = found ?? (request.onlyKnown ? undefined : this.#compile(request, taken));
      if (code === undefined) return undefined;
      if (found !== undefined) known++;
      else this.#store?.add(request, code);
      const pageAt = (distance: number): number => request.pages.find((page) => page.distance === distance)!.physical;
      for (const offset of code.facts.entries) taken.add(pageAt(pageOf(offset)) + (offset & (PAGE - 1)));
      return { ...code.facts, kept: into.add(code, i, exportOf(i), pageAt) };
    });
    return { bytes: into.finish(), kept: into.keptBytes(), regions, known };
  }
  #compile(
    { physical, mode, oddFloat, way, pages }: RegionRequest,
    taken: ReadonlySet<number>,
  ): RegionCode | undefined {
    const blocks = this.#copies.load(pages);
    const byDistance = new Map(pages.map((page) => [page.distance, page]));
    const entered = new Set(pages.flatMap((page) => Array.from(page.entered, (offset) => page.distance + offset)));
    const gates = new Set(pages.flatMap((page) => Array.from(page.gates, (offset) => page.distance + offset)));
    // small functions are looked through before they are taken in
    const known = new Map<number, DecodedInstruction | undefined>();
    const region = discoverRegion(
      {
        hasGate: (offset) => {
          // one that is made anew has others all around it by now: cut at each of them, a loop would go from one to the next
          if (way === "careful") return false;
          const page = byDistance.get(pageOf(offset))?.physical;
          return gates.has(offset) || (page !== undefined && taken.has(page + (offset & (PAGE - 1))));
        },
        instruction: (offset) => {
          if (known.has(offset)) return known.get(offset);
          const at = this.#copies.at(pageOf(offset));
          const next = this.#copies.at(pageOf(offset) + PAGE);
          const found = at < 0 ? undefined : blocks.instruction(at + (offset & (PAGE - 1)), mode, next);
          known.set(offset, found);
          return found;
        },
        wasEntered: (offset) => entered.has(offset),
        enteredIn: (distance) => Array.from(byDistance.get(distance)?.entered ?? [], (offset) => distance + offset),
        pageAt: (distance) => byDistance.get(distance)?.physical,
      },
      physical & (PAGE - 1),
    );
    if (region === undefined) return undefined;
    const user = (mode & ModeKey.user) !== 0;
    const { leaves, ...code } = compileRegion(region, this.#constants.base, { user, oddFloat, way });
    const facts: RegionFacts = {
      leaves,
      pages: [...region.pages.keys()].map((distance) => extent(region, distance)),
      entries: region.entries.map((b) => region.blocks[b]!.offset),
      instructions: region.blocks.reduce((n, b) => n + b.instructions.length, 0),
    };
    return { ...code, facts };
  }
}

/** Who compiles what a processor asks for; answers come in the order of the requests. */
export interface RegionCompiler {
  /** Those that are to become one module, if it can be. */
  request(requests: readonly RegionRequest[]): void;
  /** Whether code like this has been worth a region before (codeHash), so that it need not become hot first. */
  knows?(hash: number): boolean;
  /** Whether `take` has something. It is asked every some 50 us. */
  readonly ready: boolean;
  take(): FinishedBatch | undefined;
  /** Many modules are not referred to any more. */
  collect?(): void;
}
export interface FinishedBatch {
  readonly batch: CompiledBatch;
  /** Beside the processor's thread. */
  readonly backgroundMs: number;
}

/** Compiles on the processor's thread when the answer is fetched: the same at every run. */
export class InlineCompiler implements RegionCompiler {
  readonly #compiler: BatchCompiler;
  #waiting: RegionRequest[] = [];
  constructor(constants: EngineConstants, store?: RegionStore) {
    this.#compiler = new BatchCompiler(constants, store);
  }
  request(requests: readonly RegionRequest[]): void {
    this.#waiting.push(...requests);
  }
  get ready(): boolean {
    return this.#waiting.length > 0;
  }
  take(): FinishedBatch | undefined {
    if (this.#waiting.length === 0) return undefined;
    return { batch: this.#compiler.compile(this.#waiting.splice(0, MAX_BATCH)), backgroundMs: 0 };
  }
}
