/** The runtime: everything of the processor that is a procedure rather than a formula. Exports are Helper (runtime-calls.ts) and the host's entry points. */
export { condition, carry, packedFlags, raise, rflags, setRflags, updateMode, setCpl } from "./state";
export { readSlow, writeSlow, writeSlowV, rmwSlow, rmwDone, flushTlb, resetTlb, secondPage, peekCode, walk } from "./mmu";
export { findBlock, flushArena, lookup, lookupSingle, ramWritten, renewTags, dropRegion, watchCode } from "./code";
export { peekPage, regionPages, regionRead, regionRefill, regionWrite } from "./region";
export { depositBits, div, extractBits, idiv, rcl, rcr } from "./arithmetic";
export { deliverFault, interrupt, trap } from "./interrupt";
export { system } from "./system";
export { string } from "./strings";
export { farTransfer } from "./far";
export { legacy } from "./legacy";
export { x87 } from "./x87";
export { vector, vectorOp, compareStrings } from "./vector";
export { sha256rounds } from "./vector-crypto";
export { vectorFloat } from "./vector-float";
