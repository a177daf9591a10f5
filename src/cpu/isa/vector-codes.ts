/** Numbers that the definitions of the vector instructions and the runtime share (written into assembly/layout.ts). */

/**
 * First argument of the helper `vectorFloat`: operation in bits 0..7, format (FloatFormat) in bits 8..9, and from bit 16 on
 * the immediate (predicate of CMP, rounding of ROUND).
 */
export const FloatOp = {
  add: 0,
  sub: 1,
  mul: 2,
  div: 3,
  sqrt: 4,
  min: 5,
  max: 6,
  cmp: 7,
  comi: 8,
  ucomi: 9,
  round: 10,
  /** Conversions; "format" is the source's. To the other float format; to integers of 32 and 64 bits; with truncation. */
  toFloat: 11,
  toInt32: 12,
  toInt64: 13,
  truncate32: 14,
  truncate64: 15,
  /** From integers in the second operand; "format" is the destination's. */
  fromInt32: 16,
  fromInt64: 17,
  rcp: 18,
  rsqrt: 19,
  addsub: 20,
  dp: 21,
} as const;
/** Bit 0: 64-bit elements. Bit 1: packed. */
export const FloatFormat = { ss: 0, sd: 1, ps: 2, pd: 3 } as const;

/** Procedures of the runtime's `vector`. */
export const VectorProcedure = { maskmovdqu: 0, maskmovq: 1 } as const;
/** First argument of the helper `vectorOp`, with the immediate from bit 16 on. The order matters there. */
export const VectorOp = {
  aesimc: 0,
  aesenc: 1,
  aesenclast: 2,
  aesdec: 3,
  aesdeclast: 4,
  aeskeygenassist: 5,
  sha1rnds4: 6,
  sha1nexte: 7,
  sha1msg1: 8,
  sha1msg2: 9,
  sha256msg1: 10,
  sha256msg2: 11,
  pclmulqdq: 12,
  mpsadbw: 13,
  phminposuw: 14,
} as const;
