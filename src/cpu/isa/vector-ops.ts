/** SIMD opcodes of WebAssembly by name, and the small pieces that the definitions of vector instructions are made of. */
import { Vp } from "../layout.js";
import type { Definition, Sem, Value } from "./sem.js";

/** Opcodes behind the prefix 0xFD (WebAssembly Core Specification 2.0, "Binary Format", vector instructions). */
export const Simd = {
  swizzle: 14,
  splat8: 15,
  splat16: 16,
  splat32: 17,
  splat64: 18,
  extract8: 22,
  extract32: 27,
  replace32: 28,
  extract64: 29,
  replace64: 30,
  eq8: 35,
  gtS8: 39,
  eq16: 45,
  gtS16: 49,
  eq32: 55,
  gtS32: 59,
  eq64: 214,
  gtS64: 217,
  f32Eq: 65,
  f32Ne: 66,
  f32Lt: 67,
  f32Le: 69,
  f64Eq: 71,
  f64Ne: 72,
  f64Lt: 73,
  f64Le: 75,
  f64Ge: 76,
  f32Ge: 70,
  not: 77,
  and: 78,
  andnot: 79,
  or: 80,
  xor: 81,
  bitselect: 82,
  anyTrue: 83,
  demote: 94,
  promote: 95,
  abs8: 96,
  bitmask8: 100,
  narrow16S: 101,
  narrow16U: 102,
  shl8: 107,
  add8: 110,
  addSatS8: 111,
  addSatU8: 112,
  sub8: 113,
  subSatS8: 114,
  subSatU8: 115,
  minS8: 118,
  minU8: 119,
  maxS8: 120,
  maxU8: 121,
  avg8: 123,
  extaddU8: 125,
  extaddU16: 127,
  abs16: 128,
  q15mulr: 130,
  narrow32S: 133,
  narrow32U: 134,
  extendS8: 135,
  extendU8: 137,
  shl16: 139,
  shrS16: 140,
  shrU16: 141,
  add16: 142,
  addSatS16: 143,
  addSatU16: 144,
  sub16: 145,
  subSatS16: 146,
  subSatU16: 147,
  mul16: 149,
  minS16: 150,
  minU16: 151,
  maxS16: 152,
  maxU16: 153,
  avg16: 155,
  extmulLowS8: 156,
  abs32: 160,
  allTrue32: 163,
  bitmask32: 164,
  extendS16: 167,
  extendU16: 169,
  shl32: 171,
  shrS32: 172,
  shrU32: 173,
  add32: 174,
  sub32: 177,
  mul32: 181,
  minS32: 182,
  minU32: 183,
  maxS32: 184,
  maxU32: 185,
  dot: 186,
  mulLowS16: 188,
  mulHighS16: 189,
  mulLowU16: 190,
  mulHighU16: 191,
  allTrue64: 195,
  bitmask64: 196,
  extendS32: 199,
  extendU32: 201,
  shl64: 203,
  shrS64: 204,
  shrU64: 205,
  add64: 206,
  sub64: 209,
  mulLowS32: 220,
  mulLowU32: 222,
  f32Ceil: 103,
  f32Floor: 104,
  f32Trunc: 105,
  f32Nearest: 106,
  f64Ceil: 116,
  f64Floor: 117,
  f64Trunc: 122,
  f64Nearest: 148,
  f32Sqrt: 227,
  f32Add: 228,
  f32Sub: 229,
  f32Mul: 230,
  f32Div: 231,
  f32Pmin: 234,
  f32Pmax: 235,
  f64Sqrt: 239,
  f64Add: 240,
  f64Sub: 241,
  f64Mul: 242,
  f64Div: 243,
  f64Pmin: 246,
  f64Pmax: 247,
  truncF32: 248,
  convert32: 250,
  truncF64: 252,
  convert32F64: 254,
} as const;

/** Two vectors to one. */
export type Binary = (s: Sem, a: Value, b: Value) => Value;

export const v = (s: Sem, op: number, ...args: Value[]): Value => s.simd(op, "v128", args);
/** A binary operation that is one opcode. */
export const op =
  (code: number): Binary =>
  (s, a, b) =>
    s.simd(code, "v128", [a, b]);

export const bytes = (s: Sem, list: readonly number[]): Value => s.constV(Uint8Array.from(list));
export const words = (s: Sem, list: readonly number[]): Value =>
  s.constV(new Uint8Array(Uint16Array.from(list).buffer));
export const dwords = (s: Sem, list: readonly number[]): Value =>
  s.constV(new Uint8Array(Uint32Array.from(list).buffer));
/** The same 64 bits, given as their low and high halves, in both lanes. */
export const qwords = (s: Sem, low: number, high: number): Value => dwords(s, [low, high, low, high]);
export const zero = (s: Sem): Value => dwords(s, [0, 0, 0, 0]);
export const iota = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/** 64 bits in the low half, zeros above. */
export const low64 = (s: Sem, value: Value): Value => s.simd(Simd.replace64, "v128", [zero(s), value], 0);
export const half = (s: Sem, a: Value, lane: 0 | 1): Value => s.simd(Simd.extract64, "i64", [a], lane);
export const replaceHalf = (s: Sem, a: Value, value: Value, lane: 0 | 1): Value =>
  s.simd(Simd.replace64, "v128", [a, value], lane);
/** An immediate byte as i32. */
export const imm8 = (s: Sem): Value => s.bin("and", s.wrap(s.immediate()), s.const32(0xff));

/** #GP(0) unless a memory operand is aligned to 16 bytes. */
export function aligned(s: Sem, i: number): void {
  if (!s.isMemory(i)) return;
  const low = s.bin("and", s.wrap(s.address(i)), s.const32(15));
  s.if(low, () => s.raise(13, 0));
}
/** A source of 16 bytes, which has to be aligned in memory; or of 32 or 64 bits, in the low end of a vector. */
export function source(s: Sem, i: number): Value {
  const width = s.operandWidth(i);
  if (width === 64) return low64(s, s.readLow(i, 64));
  if (width === 32) return low64(s, s.extendU(s.readLow(i, 32)));
  if (width < 32) return low64(s, s.extendU(s.readU(i)));
  aligned(s, i);
  return s.readV(i);
}

/** dst = f(dst, src). */
export const binary =
  (f: Binary): Definition =>
  (s) => {
    const b = source(s, 1);
    s.writeV(0, f(s, s.readV(0), b));
  };
/** dst = f(src). */
export const unary =
  (f: (s: Sem, a: Value) => Value): Definition =>
  (s) =>
    s.writeV(0, f(s, source(s, 1)));

// ---- MMX: registers are the significands of the x87 registers -------------------------------------------------------------

/** What every MMX instruction but EMMS does to the x87 state: all registers in use, top of stack 0. */
export function enterMmx(s: Sem): void {
  s.setSlot(Vp.ftw, 16, s.const32(0xff));
  s.setSlot(Vp.fsw, 16, s.bin("and", s.slot(Vp.fsw, 16, false), s.const32(0xc7ff)));
}
/** A register or 64 bits of memory in both halves of a vector. */
export const readMm = (s: Sem, i: number): Value => v(s, Simd.splat64, s.readLow(i, 64));
/** Writes an MMX register; sign and exponent become ones. */
export function writeMm(s: Sem, i: number, value64: Value): void {
  s.writeV(i, replaceHalf(s, low64(s, value64), s.const64(0xffff), 1));
  enterMmx(s);
}
/** An MMX instruction from the operation on vectors: the low 64 bits of its result. */
export const mm =
  (f: Binary): Definition =>
  (s) => {
    const b = readMm(s, 1);
    writeMm(s, 0, half(s, f(s, readMm(s, 0), b), 0));
  };
export const mmUnary =
  (f: (s: Sem, a: Value) => Value): Definition =>
  (s) =>
    writeMm(s, 0, half(s, f(s, readMm(s, 1)), 0));
