/**
 * Ways of running with regions that find their mistakes sooner: for tests and developers (ENLIGHTEN_STRESS, see CONTRIBUTING.md).
 * What is done is counted in slices, so that a run can be repeated.
 */
import type { RegionWay } from "./region-function.js";
import type { Regions } from "./regions.js";

/** Ways to make the second tier work harder, for its tests. */
export interface Stress {
  /** Instructions between two samples, the first of which compiles an address. */
  readonly sampleEvery: number;
  /** After so many slices all regions die: their code is written to, and every other time all records go. 0 = never. */
  readonly invalidateEvery: number;
  /** After so many slices the TLB is emptied. 0 = never. */
  readonly flushEvery: number;
  /** Regions live at a time: the oldest makes room. */
  readonly maxLive: number;
  /** How all regions are written. */
  readonly way: RegionWay;
}
/** Names in ENLIGHTEN_STRESS. The last two are flags of the engine, for the host to set. */
export const STRESS_NAMES = [
  "eager",
  "invalidate",
  "flush",
  "tiny",
  "segments",
  "careful",
  "liftoff",
  "turbofan",
] as const;

/** No multiple of what loops are made of. */
const EAGER = 97;

/** @param names separated by commas; "" = undefined. All of them sample often; eager=N: every N instructions. */
export function parseStress(names: string | undefined): Stress | undefined {
  const words = (names ?? "").split(",").filter((n) => n !== "");
  const list = words.map((word) => word.split("=")[0]!);
  const every = Number(words.find((word) => word.startsWith("eager="))?.slice(6) ?? EAGER);
  if (!(Number.isInteger(every) && every > 0)) throw new RangeError(`eager=N needs a number of instructions`);
  for (const name of list)
    if (!(STRESS_NAMES as readonly string[]).includes(name))
      throw new RangeError(`no stress mode ${name}\n  try: ${STRESS_NAMES.join(", ")}`);
  if (list.length === 0) return undefined;
  return {
    sampleEvery: every,
    invalidateEvery: list.includes("invalidate") ? 13 : 0,
    flushEvery: list.includes("flush") ? 3 : 0,
    maxLive: list.includes("tiny") ? 4 : Number.POSITIVE_INFINITY,
    way: list.includes("careful") ? "careful" : list.includes("segments") ? "segments" : "usual",
  };
}

/** What the runtime does for it. */
export interface StressRuntime {
  flushArena(): void;
  resetTlb(): void;
  ramWritten(gpa: number, size: number): void;
}

export class StressedRegions {
  readonly #stress: Stress;
  readonly #regions: Regions;
  readonly #runtime: StressRuntime;
  #slices = 0;
  #invalidations = 0;
  constructor(stress: Stress, regions: Regions, runtime: StressRuntime) {
    this.#stress = stress;
    this.#regions = regions;
    this.#runtime = runtime;
  }
  /** Between two slices, before the sample. */
  afterSlice(): void {
    const { invalidateEvery, flushEvery, maxLive } = this.#stress;
    this.#slices++;
    const live = this.#regions.liveCode();
    if (live.length >= maxLive) this.#runtime.ramWritten(live[0]!, 1);
    if (flushEvery > 0 && this.#slices % flushEvery === 0) this.#runtime.resetTlb();
    if (invalidateEvery === 0 || this.#slices % invalidateEvery !== 0) return;
    if (this.#invalidations++ % 2 === 1) this.#runtime.flushArena();
    else for (const at of live) this.#runtime.ramWritten(at, 1);
  }
}
