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
