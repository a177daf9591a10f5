/** The runtime's functions that definitions may call (AssemblyScript, src/cpu/runtime): parameter and result types. */
import type { ValueType } from "./sem.js";

export interface HelperSignature {
  readonly params: readonly ValueType[];
  readonly result: ValueType | undefined;
  /** Touches no architectural state and cannot fault. */
  readonly pure?: true;
  /** Can record a fault (it then returns 0). */
  readonly faults?: true;
}

const h = (params: readonly ValueType[], result?: ValueType, more: Partial<HelperSignature> = {}): HelperSignature => ({
  params,
  result,
  ...more,
});
const cold = h(["i32"], "i32", { faults: true });

/** By name. A "cold" one takes the record and returns a Status. */
export const Helper = {
  // memory: linear address, size in bytes -> address in the memory, 0 = fault recorded
  readSlow: h(["i64", "i32", "i32"], "i32", { faults: true }),
  writeSlow: h(["i64", "i32", "i64", "i32"], "i32", { faults: true }),
  writeSlowV: h(["i64", "i64", "i64", "i32"], "i32", { faults: true }),
  rmwSlow: h(["i64", "i32", "i32"], "i32", { faults: true }),
  rmwDone: h(["i32"], undefined),
  raise: h(["i32", "i32", "i32"], undefined, { faults: true }),
  // flags
  condition: h(["i32"], "i32", { pure: true }),
  carry: h([], "i32", { pure: true }),
  packedFlags: h([], "i32", { pure: true }),
  // arithmetic
  div: h(["i64", "i32"], "i32", { faults: true }),
  idiv: h(["i64", "i32"], "i32", { faults: true }),
  rcl: h(["i64", "i32", "i32", "i32"], "i64"),
  rcr: h(["i64", "i32", "i32", "i32"], "i64"),
  // PDEP, PEXT: source, mask
  depositBits: h(["i64", "i64"], "i64", { pure: true }),
  extractBits: h(["i64", "i64"], "i64", { pure: true }),
  // SSE arithmetic off the fast path: code (FloatOp), operands; the result is in Vp.vectorResult
  // vector operations that are no formula: code (VectorOp; immediate from bit 16 on), operands
  vectorOp: h(["i32", "v128", "v128"], "v128", { pure: true }),
  sha256rounds: h(["v128", "v128", "v128"], "v128", { pure: true }),
  // PCMPxSTRx: immediate, operands, lengths -> mask in bits 0..15, flags at their places from bit 16 on
  compareStrings: h(["i32", "v128", "v128", "i32", "i32"], "i32", { pure: true }),
  vectorFloat: h(["i32", "v128", "v128"], "i32", { faults: true }),
  // control
  lookup: h(["i64"], "i32", { faults: true }),
  lookupSingle: h(["i64"], "i32", { faults: true }),
  deliverFault: h(["i32"], "i32"),
  // everything that is a procedure rather than a formula: the record says what to do
  system: cold,
  string: cold,
  farTransfer: cold,
  x87: cold,
  vector: cold,
  legacy: cold,
} as const satisfies Record<string, HelperSignature>;
export type HelperName = keyof typeof Helper;
