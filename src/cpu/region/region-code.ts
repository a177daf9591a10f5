/**
 * A compiled region by itself: a function that knows neither its module nor where its pages and its kept bytes are, so that it can be
 * kept for another run; and modules that are put together from such.
 */
import { CHAIN_EXPORT } from "../interpreter/generator.js";
import { Helper, type HelperName, type HelperSignature } from "../isa/runtime-calls.js";
import { RegionPages } from "../layout.js";
import { type FunctionBody, fillReference, ModuleBuilder } from "../wasm/assembler.js";
import { RegionHelper, type RegionHelperName } from "./region-function.js";

export type CalledName = HelperName | RegionHelperName;
const SIGNATURES: Readonly<Record<CalledName, HelperSignature>> = { ...Helper, ...RegionHelper };
/** All functions that a region may call, in the order of their numbers in what is kept. */
export const CALLED_NAMES = Object.keys(SIGNATURES) as readonly CalledName[];

/** Reference of a region's function to the address of its kept bytes; those from 1 on are to `helpers`. */
export const KEPT_REFERENCE = 0;
/** Kept bytes are in multiples of this. */
export const KEPT_ALIGNMENT = 16;
/** Name of the global in `env` that holds the address of a region's kept bytes. */
export const keptName = (region: number): string => `kept${region}`;

/** What a region turned out to be. */
export interface RegionFacts {
  /** The pages that its code is in; the first is the request's. */
  readonly pages: readonly RegionPage[];
  /** Where it can be entered, by number of the entry: distances from the first page. */
  readonly entries: readonly number[];
  readonly instructions: number;
  /** Where among its kept bytes it counts (32 bits) how often it is left for the interpreter in the middle. */
  readonly leaves: number;
}
export interface RegionPage {
  readonly distance: number;
  /** Offsets in the page: where the first instruction begins, where the last one ends. */
  readonly start: number;
  readonly end: number;
}
export interface RegionCode {
  /** Local declarations, code, end. */
  readonly body: Uint8Array;
  /** Of the body, offsets in it. */
  readonly hints: FunctionBody["hints"];
  readonly references: readonly { readonly at: number; readonly n: number }[];
  readonly helpers: readonly CalledName[];
  /** Bytes that have to be in the engine's memory while it lives. */
  readonly kept: Uint8Array;
  /** RegionPages among them, where the pages' places are written; -1 = it has one page. */
  readonly pagesAt: number;
  readonly facts: RegionFacts;
}
export type RegionFunctionCode = Omit<RegionCode, "facts"> & Pick<RegionFacts, "leaves">;

/** A module that regions are added to. All of them belong to one processor. */
export class RegionModule {
  readonly #module: ModuleBuilder;
  readonly #helpers = new Map<CalledName, number>();
  readonly #kept: Uint8Array[] = [];
  #keptBytes = 0;

  constructor(shared: boolean) {
    this.#module = new ModuleBuilder({ minimum: 1, maximum: 65536, shared });
  }
  /**
   * @param region its number, which names the address of its kept bytes
   * @param name of its export
   * @param physicalOf RAM offset of the page at a distance
   * @returns where in the module's kept bytes its own begin
   */
  add(code: RegionCode, region: number, name: string, physicalOf: (distance: number) => number): number {
    const indices = [
      this.#module.importGlobal("env", keptName(region), "i32"),
      ...code.helpers.map((helper) => this.#helper(helper)),
    ];
    // copies, whatever kind of view they are: `slice` of a Buffer is none
    const body = new Uint8Array(code.body);
    for (const { at, n } of code.references) fillReference(body, at, indices[n]!);
    this.#module.add(
      { params: ["i32", "i32"], results: ["i32"], hints: code.hints, declarationBytes: 0, finish: () => body },
      name,
    );
    const kept = new Uint8Array(code.kept);
    if (code.pagesAt >= 0) {
      const view = new DataView(kept.buffer);
      const count = view.getUint32(code.pagesAt + RegionPages.count, true);
      for (let i = 0; i < count; i++) {
        const at = code.pagesAt + RegionPages.pages + i * 8;
        view.setUint32(at + 4, physicalOf(view.getInt32(at, true)), true);
      }
    }
    this.#kept.push(kept);
    this.#keptBytes += kept.length;
    return this.#keptBytes - kept.length;
  }
  /**
   * Imports a function of the runtime that a region calls. Those that none calls are left out: for every signature among its
   * imports V8 compiles a way to JavaScript with each module, needed or not (150 us).
   */
  #helper(name: CalledName): number {
    let index = this.#helpers.get(name);
    if (index !== undefined) return index;
    const { params, result } = SIGNATURES[name];
    index = this.#module.importFunction({
      module: name === CHAIN_EXPORT ? "interpreter" : "runtime",
      name,
      params,
      results: result === undefined ? [] : [result],
    });
    this.#helpers.set(name, index);
    return index;
  }
  finish(): Uint8Array<ArrayBuffer> {
    return this.#module.finish();
  }
  keptBytes(): Uint8Array<ArrayBuffer> {
    const all = new Uint8Array(this.#keptBytes);
    let at = 0;
    for (const bytes of this.#kept) {
      all.set(bytes, at);
      at += bytes.length;
    }
    return all;
  }
}
