/**
 * What a request for a region takes along: copies of the pages that its code leads to, by direct jumps and calls, as far as the
 * interpreter has come. Blocks that it has decoded are looked at, nothing is decoded anew.
 */
import { forms, specialForm } from "../isa/forms.js";
import { Head, MXCSR_ORDINARY, REC_BYTES, REGION_HEAD, Rec, Vp } from "../layout.js";
import type { CodePage, RegionRequest } from "./batch-compiler.js";
import { MAX_DISTANCE, PAGE, pageOf } from "./region.js";
import type { RegionWay } from "./region-function.js";

/** Head.start of a block or region that is gone. */
export const DEAD = 0xffffffff;
/** Blocks that are looked at, and pages that are copied, at most. */
const MAX_BLOCKS = 240;
const MAX_COPIES = 24;

export interface CodePagesOptions {
  readonly memory: WebAssembly.Memory;
  /** Of the processor's block. */
  readonly base: number;
  /** Of guest RAM. */
  readonly ram: number;
  /** Of the processor's table of blocks by guest page. */
  readonly pageBlocks: number;
  readonly runtime: {
    /** RAM offset of the code page at a linear address, -1 = it has not been fetched from lately. */
    peekPage(va: bigint): number;
    /** The block at a RAM offset, 0 = none. */
    findBlock(physical: number, mode: number): number;
  };
}

/** Where a record has its direct target, by handler: 0 = it has none, else its offset in the record. */
let targetPlaces: Uint8Array | undefined;
function findTargetPlaces(): Uint8Array {
  const all = forms();
  const places = new Uint8Array(all.length);
  for (const form of all) {
    const first = form.parts?.[0] ?? form;
    if (first.fused) places[form.id] = Rec.imm + 4;
    else if (/^(jmp|call|j[a-z]+)\//.test(first.name) && first.operands.length === 0) places[form.id] = Rec.imm;
  }
  return places;
}

export class CodePages {
  readonly #o: CodePagesOptions;
  readonly #view: DataView;
  readonly #bytes: Uint8Array;
  readonly #targets: Uint8Array;
  readonly #gate = specialForm("enlighten.region").id;

  constructor(o: CodePagesOptions) {
    this.#o = o;
    this.#view = new DataView(o.memory.buffer);
    this.#bytes = new Uint8Array(o.memory.buffer);
    targetPlaces ??= findTargetPlaces();
    this.#targets = targetPlaces;
  }
  /**
   * What is to become a region, as it is now.
   * @param physical RAM offset of the instruction at RIP
   */
  request(physical: number, mode: number, way: RegionWay): RegionRequest {
    const { base } = this.#o;
    const oddFloat = (this.#view.getUint32(base + Vp.mxcsr, true) & MXCSR_ORDINARY.mask) !== MXCSR_ORDINARY.value;
    const pages = [...this.#reached(physical, mode)].map(([distance, page]) => this.#copy(page, distance, mode));
    return { physical, mode, oddFloat, way, pages };
  }
  /** Pages by distance. */
  #reached(physical: number, mode: number): ReadonlyMap<number, number> {
    const v = this.#view;
    const rip = v.getBigUint64(this.#o.base + Vp.rip, true) & ~0xfffn;
    const offset = physical % PAGE;
    const pages = new Map<number, number>([[0, physical - offset]]);
    const absent = new Set<number>();
    const seen = new Set<number>();
    const queue: number[] = [];
    const pageAt = (distance: number): number | undefined => {
      const known = pages.get(distance);
      if (known !== undefined || absent.has(distance)) return known;
      const found =
        pages.size < MAX_COPIES && Math.abs(distance) <= MAX_DISTANCE
          ? this.#o.runtime.peekPage(BigInt.asUintN(64, rip + BigInt(distance)))
          : -1;
      if (found === -1) {
        absent.add(distance);
        return undefined;
      }
      pages.set(distance, found >>> 0);
      return found >>> 0;
    };
    const follow = (to: number): void => {
      if (seen.has(to) || seen.size >= MAX_BLOCKS) return;
      seen.add(to);
      const distance = pageOf(to);
      const page = pageAt(distance);
      if (page === undefined) return;
      const block = this.#o.runtime.findBlock(page + to - distance, mode);
      if (block !== 0) queue.push(distance, block);
    };
    // a jump table's targets, and what lies over the page's end
    for (const distance of [PAGE, -PAGE]) pageAt(distance);
    follow(offset);
    for (let i = 0; i < queue.length; i += 2) {
      const distance = queue[i]!;
      const block = queue[i + 1]!;
      const records = v.getUint16(block + Head.records, true);
      for (let n = 1; n <= records; n++) {
        const at = block + n * REC_BYTES;
        let handler = v.getUint16(at, true);
        if (handler === this.#gate) handler = v.getUint16(block + Head.handler, true);
        const place = this.#targets[handler];
        if (place !== undefined && place !== 0) follow(distance + v.getInt32(at + place, true));
      }
      // behind a call; behind a jump nobody comes in
      follow(distance + v.getUint32(block + Head.end, true) - pages.get(distance)!);
    }
    return pages;
  }
  #copy(physical: number, distance: number, mode: number): CodePage {
    const at = this.#o.ram + physical;
    const bytes = this.#bytes.slice(at, at + PAGE) as Uint8Array<ArrayBuffer>;
    return { physical, distance, bytes, ...this.#blocksIn(physical, mode) };
  }
  /** Offsets in a page where live blocks of a mode begin, and those of them that have a gate. */
  #blocksIn(page: number, mode: number): Pick<CodePage, "entered" | "gates"> {
    const v = this.#view;
    const entered: number[] = [];
    const gates: number[] = [];
    let header = v.getUint32(this.#o.pageBlocks + (page >>> 12) * 4, true);
    for (; header !== 0; header = v.getUint32(header + Head.next, true)) {
      // a second page's part of a block belongs to another header, a region's header is no block
      if (v.getUint32(header + Head.owner, true) !== header) continue;
      if (v.getUint16(header + Head.handler, true) === REGION_HEAD) continue;
      const start = v.getUint32(header + Head.start, true);
      if (start === DEAD || v.getUint32(header + Head.mode, true) !== mode) continue;
      entered.push(start & (PAGE - 1));
      if (v.getUint32(header + Head.region, true) !== 0) gates.push(start & (PAGE - 1));
    }
    return { entered: Uint16Array.from(entered).sort(), gates: Uint16Array.from(gates).sort() };
  }
}
