/** What the engine asks of V8, whose flags hold for the whole process: as little as can be, for as short as can be. */
import { setFlagsFromString } from "node:v8";

/** Regions say which of their branches are rare; an engine that does not know the flag or the section goes without. */
export function takeBranchHints(): void {
  setFlagsFromString("--experimental-wasm-branch-hinting");
}
/** V8's own figure: bytes of code that a function runs in the first compiler's version before it is compiled by the second. */
const TIERING_BUDGET = 1_800_000;
/** Of regions: the second compiler takes some 6 ms for one, which is earned back later than after half a millisecond of running. */
const REGION_TIERING_BUDGET = 30_000_000;
/** For the modules that are made meanwhile. */
export function tieringUpLater<T>(make: () => T): T {
  setFlagsFromString(`--wasm-tiering-budget=${REGION_TIERING_BUDGET}`);
  try {
    return make();
  } finally {
    setFlagsFromString(`--wasm-tiering-budget=${TIERING_BUDGET}`);
  }
}
/**
 * For a process that is the program's own: its JavaScript is a little of everything, once, and optimizing it as soon as V8 does
 * costs more than it brings (a tenth of a boot's CPU time).
 */
export function optimizeLess(): void {
  setFlagsFromString("--interrupt-budget=300000");
}
/**
 * The same process while it reads and unpacks a guest: V8's young generation stays as small as it begins, since what is made then is
 * large and lives outside of it. Not for longer: a network makes much that is short-lived.
 */
export function stayYoung(): void {
  setFlagsFromString("--semi-space-growth-factor=1");
}
export function growUp(): void {
  setFlagsFromString("--semi-space-growth-factor=2");
}

/**
 * For threads of the program's own, whose JavaScript makes little garbage that lives: V8's young generation would grow to some 30 MB in
 * each before it is looked through.
 */
export const SMALL_YOUNG_GENERATION = { maxYoungGenerationSizeMb: 6 } as const;
