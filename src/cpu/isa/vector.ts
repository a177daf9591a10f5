/** Moves, logic and integer arithmetic of the vector registers (Intel SDM vol. 2). */
import { setPacked } from "./integer.js";
import type { Definition, Sem, Value } from "./sem.js";
import {
  aligned,
  type Binary,
  bytes,
  dwords,
  half,
  imm8,
  iota,
  low64,
  op,
  qwords,
  readMm,
  replaceHalf,
  Simd,
  source,
  v,
  words,
  writeMm,
  zero,
} from "./vector-ops.js";

// ---- moves ------------------------------------------------------------------------------------------------------------------

/** MOVUPS and its kin: 16 bytes, anywhere. */
export const move: Definition = (s) => s.writeV(0, s.readV(1));
/** MOVAPS and its kin: 16 bytes, aligned. */
export const moveAligned: Definition = (s) => {
  aligned(s, 0);
  s.writeV(0, source(s, 1));
};
/** MOVSS, MOVSD: the other elements stay. */
export const moveLow =
  (width: 32 | 64): Definition =>
  (s) =>
    s.writeLow(0, width, s.readLow(1, width));
/** From memory (MOVSS, MOVSD) or from a register (MOVQ): the rest of the register is cleared. */
export const loadLow: Definition = (s) => s.writeV(0, source(s, 1));
export const moveQ: Definition = (s) => {
  if (s.isMemory(0)) s.writeLow(0, 64, s.readLow(1, 64));
  else s.writeV(0, low64(s, s.readLow(1, 64)));
};
export const loadHigh: Definition = (s) => {
  const b = s.readLow(1, 64);
  s.writeV(0, replaceHalf(s, s.readV(0), b, 1));
};
export const storeHigh: Definition = (s) => s.writeLow(0, 64, half(s, s.readV(1), 1));
export const moveHighToLow: Definition = (s) => s.writeLow(0, 64, half(s, s.readV(1), 1));
/** MOVD, MOVQ between general and vector registers. */
export const fromGeneral: Definition = (s) => {
  const a = s.read(1);
  s.writeV(0, low64(s, s.extendU(a)));
};
export const toGeneral: Definition = (s) => s.write(0, s.readLow(1, s.operandWidth(0) as 32 | 64));
export const moveMask =
  (code: number): Definition =>
  (s) =>
    s.write(0, s.simd(code, "i32", [s.readV(1)]));
export const duplicate =
  (lanes: readonly number[]): ((s: Sem, a: Value) => Value) =>
  (s, a) =>
    s.shuffle(a, a, lanes);

// ---- shuffles -----------------------------------------------------------------------------------------------------------------

const unpackLanes = (size: number, from: number): number[] =>
  iota(16).map((i) => {
    const element = Math.floor(i / size);
    return from + (element >> 1) * size + (i % size) + (element & 1) * 16;
  });
export const unpackLow =
  (size: number): Binary =>
  (s, a, b) =>
    s.shuffle(a, b, unpackLanes(size, 0));
export const unpackHigh =
  (size: number): Binary =>
  (s, a, b) =>
    s.shuffle(a, b, unpackLanes(size, 8));
/** The high half of an MMX register. */
export const unpackHighMm =
  (size: number): Binary =>
  (s, a, b) =>
    s.shuffle(a, b, unpackLanes(size, 4));
/** An MMX pack: the two operands side by side, packed. */
export const packMm =
  (code: number): Binary =>
  (s, a, b) => {
    const both = s.shuffle(a, b, [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23]);
    return v(s, code, both, both);
  };

/** MMX with a memory operand of 32 bits. */
export const mmLow32 =
  (f: Binary): Definition =>
  (s) => {
    const b = low64(s, s.extendU(s.readU(1)));
    writeMm(s, 0, half(s, f(s, readMm(s, 0), b), 0));
  };

/** Bytes that pick dwords by two bits each of the immediate. */
function dwordControl(s: Sem): Value {
  const spread = v(s, Simd.mul32, v(s, Simd.splat32, imm8(s)), dwords(s, [64, 16, 4, 1]));
  const index = v(s, Simd.and, v(s, Simd.shrU32, spread, s.const32(6)), dwords(s, [3, 3, 3, 3]));
  const four = v(
    s,
    Simd.mul32,
    index,
    dwords(
      s,
      iota(4).map(() => 0x04040404),
    ),
  );
  return v(
    s,
    Simd.add32,
    four,
    dwords(
      s,
      iota(4).map(() => 0x03020100),
    ),
  );
}
const dwordLanes = (imm: number): number[] => iota(16).map((i) => ((imm >> ((i >> 2) * 2)) & 3) * 4 + (i & 3));
export const pshufd: Definition = (s) => {
  const a = source(s, 1);
  const imm = s.knownImmediate();
  s.writeV(0, imm === undefined ? v(s, Simd.swizzle, a, dwordControl(s)) : s.shuffle(a, a, dwordLanes(imm)));
};
export const shufps: Definition = (s) => {
  const b = source(s, 1);
  const a = s.readV(0);
  const imm = s.knownImmediate();
  if (imm !== undefined) {
    s.writeV(
      0,
      s.shuffle(
        a,
        b,
        dwordLanes(imm).map((lane, i) => lane + (i >= 8 ? 16 : 0)),
      ),
    );
    return;
  }
  const control = dwordControl(s);
  s.writeV(
    0,
    s.shuffle(
      v(s, Simd.swizzle, a, control),
      v(s, Simd.swizzle, b, control),
      iota(16).map((i) => (i < 8 ? i : i + 16)),
    ),
  );
};
export const shufpd: Definition = (s) => {
  const b = source(s, 1);
  const a = s.readV(0);
  const imm = imm8(s);
  const low = s.select(s.bin("and", imm, s.const32(1)), half(s, a, 1), half(s, a, 0));
  const high = s.select(s.bin("and", imm, s.const32(2)), half(s, b, 1), half(s, b, 0));
  s.writeV(0, replaceHalf(s, low64(s, low), high, 1));
};
/** Four words at `from` by two bits each of the immediate; the other four stay. */
function shuffleWords(s: Sem, a: Value, from: 0 | 4): Value {
  const here = (f: (i: number) => number, other: (i: number) => number): Value =>
    words(
      s,
      iota(8).map((i) => (i >= from && i < from + 4 ? f(i - from) : other(i))),
    );
  const spread = v(
    s,
    Simd.mul16,
    v(s, Simd.splat16, imm8(s)),
    here(
      (i) => [64, 16, 4, 1][i]!,
      () => 0,
    ),
  );
  const two = words(
    s,
    iota(8).map(() => 3),
  );
  const index = v(
    s,
    Simd.add16,
    v(s, Simd.and, v(s, Simd.shrU16, spread, s.const32(6)), two),
    here(
      () => from,
      (i) => i,
    ),
  );
  const control = v(
    s,
    Simd.add16,
    v(
      s,
      Simd.mul16,
      index,
      words(
        s,
        iota(8).map(() => 0x0202),
      ),
    ),
    words(
      s,
      iota(8).map(() => 0x0100),
    ),
  );
  return v(s, Simd.swizzle, a, control);
}
export const pshuflw: Definition = (s) => s.writeV(0, shuffleWords(s, source(s, 1), 0));
export const pshufhw: Definition = (s) => s.writeV(0, shuffleWords(s, source(s, 1), 4));
export const pshufw: Definition = (s) => writeMm(s, 0, half(s, shuffleWords(s, readMm(s, 1), 0), 0));

// ---- integer arithmetic -------------------------------------------------------------------------------------------------------

const HIGH_WORDS = iota(16).map((i) => 2 + (i >> 1) * 4 + (i & 1));
/** High halves of 16-bit products. */
export const mulHigh =
  (low: number, high: number): Binary =>
  (s, a, b) =>
    s.shuffle(v(s, low, a, b), v(s, high, a, b), HIGH_WORDS);
const EVEN_DWORDS = [0, 1, 2, 3, 8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11];
/** 64-bit products of the even dwords. */
export const mulEven =
  (code: number): Binary =>
  (s, a, b) =>
    v(s, code, s.shuffle(a, a, EVEN_DWORDS), s.shuffle(b, b, EVEN_DWORDS));
/** dst & ~... of PANDN: the first operand is the complemented one. */
export const andNot: Binary = (s, a, b) => v(s, Simd.andnot, b, a);
/** Sums of absolute differences of the eight bytes of each half. */
export const psadbw: Binary = (s, a, b) => {
  const d = v(s, Simd.or, v(s, Simd.subSatU8, a, b), v(s, Simd.subSatU8, b, a));
  const sums = v(s, Simd.extaddU16, v(s, Simd.extaddU8, d));
  return v(s, Simd.add64, v(s, Simd.and, sums, qwords(s, 0xffffffff, 0)), v(s, Simd.shrU64, sums, s.const32(32)));
};

export type ShiftKind = "shl" | "shrU" | "shrS";
const SHIFTS = {
  shl: { 16: Simd.shl16, 32: Simd.shl32, 64: Simd.shl64 },
  shrU: { 16: Simd.shrU16, 32: Simd.shrU32, 64: Simd.shrU64 },
  shrS: { 16: Simd.shrS16, 32: Simd.shrS32, 64: Simd.shrS64 },
} as const;
/** Counts from the element's width on give zeros, or copies of the sign. `count` is i64. */
function shiftBy(s: Sem, kind: ShiftKind, width: 16 | 32 | 64, a: Value, count: Value): Value {
  const code = SHIFTS[kind][width];
  const within = s.cmp("lt_u", count, s.const64(width));
  const n = s.wrap(count);
  if (kind === "shrS") return v(s, code, a, s.select(within, n, s.const32(width - 1)));
  return s.select(within, v(s, code, a, n), zero(s));
}
export const shift =
  (kind: ShiftKind, width: 16 | 32 | 64): Binary =>
  (s, a, b) =>
    shiftBy(s, kind, width, a, half(s, b, 0));
const immediateCount = (s: Sem): Value => s.bin("and", s.immediate(), s.const64(0xff));
export const shiftImmediate =
  (kind: ShiftKind, width: 16 | 32 | 64): Definition =>
  (s) =>
    s.writeV(0, shiftBy(s, kind, width, s.readV(0), immediateCount(s)));
export const shiftImmediateMm =
  (kind: ShiftKind, width: 16 | 32 | 64): Definition =>
  (s) =>
    writeMm(s, 0, half(s, shiftBy(s, kind, width, readMm(s, 0), immediateCount(s)), 0));
/** PSLLDQ, PSRLDQ. A swizzle gives 0 for an index outside. */
export const shiftBytes =
  (left: boolean): Definition =>
  (s) => {
    const raw = imm8(s);
    const n = v(s, Simd.splat8, s.select(s.cmp("gt_u", raw, s.const32(16)), s.const32(16), raw));
    s.writeV(0, v(s, Simd.swizzle, s.readV(0), v(s, left ? Simd.sub8 : Simd.add8, bytes(s, iota(16)), n)));
  };

// ---- single elements ------------------------------------------------------------------------------------------------------------

/** The element of `width` bits that the immediate names, zero-extended to 32 bits or as i64. */
export function element(s: Sem, a: Value, width: 8 | 16 | 32 | 64, lanes = 128 / width): Value {
  const per = 64 / width;
  const lane = s.bin("and", imm8(s), s.const32(lanes - 1));
  const word = s.select(s.bin("and", lane, s.const32(per)), half(s, a, 1), half(s, a, 0));
  if (width === 64) return word;
  const down = s.bin("mul", s.bin("and", lane, s.const32(per - 1)), s.const32(width));
  return s.zext(s.wrap(s.bin("shr_u", word, s.extendU(down))), width);
}
export const extract =
  (width: 8 | 16 | 32 | 64): Definition =>
  (s) =>
    s.write(0, element(s, s.readV(1), width));
const INSERT = {
  8: [Simd.eq8, Simd.splat8, 16],
  16: [Simd.eq16, Simd.splat16, 8],
  32: [Simd.eq32, Simd.splat32, 4],
  64: [Simd.eq64, Simd.splat64, 2],
} as const;
/** a with the element that the immediate names replaced. */
export function inserted(
  s: Sem,
  a: Value,
  value: Value,
  width: 8 | 16 | 32 | 64,
  lanes: number = INSERT[width][2],
): Value {
  const [eq, splat, n] = INSERT[width];
  const lane = s.bin("and", imm8(s), s.const32(lanes - 1));
  const places = new Uint8Array(16);
  for (let i = 0; i < n; i++) places[(i * width) / 8] = i;
  const mask = v(s, eq, s.constV(places), v(s, splat, width === 64 ? s.extendU(lane) : lane));
  return v(s, Simd.bitselect, v(s, splat, value), a, mask);
}
export const insert =
  (width: 8 | 16 | 32 | 64): Definition =>
  (s) => {
    const value = s.read(1);
    s.writeV(0, inserted(s, s.readV(0), value, width));
  };

// ---- comparisons that set flags -----------------------------------------------------------------------------------------------

/** PTEST: ZF = no bit in common, CF = no bit of the source outside the destination. */
export const ptest: Definition = (s) => {
  const b = source(s, 1);
  const a = s.readV(0);
  const any = (x: Value): Value => s.eqz(s.simd(Simd.anyTrue, "i32", [x]));
  const zf = any(v(s, Simd.and, a, b));
  const cf = any(v(s, Simd.andnot, b, a));
  setPacked(s, s.bin("or", s.bin("shl", zf, s.const32(6)), cf));
};
export const logicOps: Readonly<Record<string, Binary>> = {
  and: op(Simd.and),
  andn: andNot,
  or: op(Simd.or),
  xor: op(Simd.xor),
};
