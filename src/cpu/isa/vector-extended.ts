/** SSE3, SSSE3, SSE4.1, SSE4.2, AES, PCLMULQDQ, SHA (Intel SDM vol. 2). */
import { Vp } from "../layout.js";
import { RAX, RCX, RDX, setPacked } from "./integer.js";
import type { Definition, Sem, Value } from "./sem.js";
import { element, inserted } from "./vector.js";
import { VectorOp } from "./vector-codes.js";
import { codeOf, type Format, packedArithmetic, scalar, slowFloat, slowVector, whenOrdinary } from "./vector-float.js";
import {
  type Binary,
  bytes,
  dwords,
  half,
  imm8,
  iota,
  low64,
  qwords,
  readMm,
  Simd,
  source,
  v,
  words,
  writeMm,
  zero,
} from "./vector-ops.js";

// ---- SSE3 -----------------------------------------------------------------------------------------------------------------------

/** The even and the odd elements of a, then b. */
const evenLanes = (size: number, odd: number): number[] =>
  iota(16).map((i) => (Math.floor(i / size) * 2 + odd) * size + (i % size));
/** HADD, HSUB: a pair's lower element is the first operand. */
export const horizontal =
  (operation: "add" | "sub", format: "ps" | "pd"): Definition =>
  (s) => {
    const b = source(s, 1);
    const a = s.readV(0);
    const size = format === "pd" ? 8 : 4;
    packedArithmetic(s, operation, format, s.shuffle(a, b, evenLanes(size, 0)), s.shuffle(a, b, evenLanes(size, 1)));
  };
/** ADDSUB: even elements are subtracted. */
export const addSub =
  (format: "ps" | "pd"): Definition =>
  (s) => {
    const b = source(s, 1);
    const a = s.readV(0);
    const signs = format === "pd" ? dwords(s, [0, 0x80000000, 0, 0]) : dwords(s, [0x80000000, 0, 0x80000000, 0]);
    const r = v(s, format === "pd" ? Simd.f64Add : Simd.f32Add, a, v(s, Simd.xor, b, signs));
    whenOrdinary(
      s,
      format,
      r,
      () => s.writeV(0, r),
      () => s.writeV(0, slowVector(s, codeOf("addsub", format), a, b)),
    );
  };

// ---- SSSE3 ----------------------------------------------------------------------------------------------------------------------

/** A swizzle gives 0 for an index from 16 on, as a set top bit asks. */
export const pshufb: Binary = (s, a, b) => v(s, Simd.swizzle, a, v(s, Simd.and, b, qwords(s, 0x8f8f8f8f, 0x8f8f8f8f)));
export const pshufbMm: Binary = (s, a, b) =>
  v(s, Simd.swizzle, a, v(s, Simd.and, b, qwords(s, 0x87878787, 0x87878787)));
/** PHADD, PHSUB: pairs of neighbours, of a and then of b. */
export const pairs =
  (code: number, size: number): Binary =>
  (s, a, b) =>
    v(s, code, s.shuffle(a, b, evenLanes(size, 0)), s.shuffle(a, b, evenLanes(size, 1)));
/** The two operands of an MMX instruction side by side, as both operands. */
export const sideBySide =
  (f: Binary): Binary =>
  (s, a, b) => {
    const c = s.shuffle(a, b, [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23]);
    return f(s, c, c);
  };
/** Unsigned bytes of a times signed bytes of b; sums of pairs, saturated. */
export const pmaddubsw: Binary = (s, a, b) => {
  const eight = s.const32(8);
  const even = v(
    s,
    Simd.mul16,
    v(s, Simd.and, a, qwords(s, 0x00ff00ff, 0x00ff00ff)),
    v(s, Simd.shrS16, v(s, Simd.shl16, b, eight), eight),
  );
  const odd = v(s, Simd.mul16, v(s, Simd.shrU16, a, eight), v(s, Simd.shrS16, b, eight));
  return v(s, Simd.addSatS16, even, odd);
};
const SIGN = {
  8: [Simd.gtS8, Simd.eq8, Simd.sub8],
  16: [Simd.gtS16, Simd.eq16, Simd.sub16],
  32: [Simd.gtS32, Simd.eq32, Simd.sub32],
} as const;
export const psign =
  (width: 8 | 16 | 32): Binary =>
  (s, a, b) => {
    const [gt, eq, sub] = SIGN[width];
    const negative = v(s, gt, zero(s), b);
    return v(s, Simd.andnot, v(s, sub, v(s, Simd.xor, a, negative), negative), v(s, eq, b, zero(s)));
  };
/** The saturating opcode of WebAssembly differs for -1 * -1 only. */
export const pmulhrsw: Binary = (s, a, b) => {
  const least = qwords(s, 0x80008000, 0x80008000);
  return v(s, Simd.xor, v(s, Simd.q15mulr, a, b), v(s, Simd.and, v(s, Simd.eq16, a, least), v(s, Simd.eq16, b, least)));
};
/** Bytes i + n of b:a, zeros behind. `n` is 0..32. */
function aligned32(s: Sem, high: Value, low: Value, n: Value): Value {
  const at = v(s, Simd.add8, bytes(s, iota(16)), v(s, Simd.splat8, n));
  return v(
    s,
    Simd.or,
    v(s, Simd.swizzle, low, at),
    v(s, Simd.swizzle, high, v(s, Simd.sub8, at, qwords(s, 0x10101010, 0x10101010))),
  );
}
const atMost = (s: Sem, n: Value, most: number): Value =>
  s.select(s.cmp("gt_u", n, s.const32(most)), s.const32(most), n);
export const palignr: Definition = (s) => {
  const b = source(s, 1);
  s.writeV(0, aligned32(s, s.readV(0), b, atMost(s, imm8(s), 32)));
};
export const palignrMm: Definition = (s) => {
  const b = readMm(s, 1);
  const both = s.shuffle(b, readMm(s, 0), [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23]);
  writeMm(s, 0, half(s, aligned32(s, zero(s), both, atMost(s, imm8(s), 16)), 0));
};

// ---- SSE4.1 ---------------------------------------------------------------------------------------------------------------------

const xmm0 = (s: Sem): Value => s.slotV(Vp.xmm);
/** Elements of b where the top bit of XMM0's element is set. */
export const blendVariable =
  (mask: (s: Sem, m: Value) => Value): Binary =>
  (s, a, b) =>
    v(s, Simd.bitselect, b, a, mask(s, xmm0(s)));
export const byteMask = (s: Sem, m: Value): Value => v(s, Simd.gtS8, zero(s), m);
export const dwordMask = (s: Sem, m: Value): Value => v(s, Simd.shrS32, m, s.const32(31));
export const qwordMask = (s: Sem, m: Value): Value => v(s, Simd.shrS64, m, s.const32(63));
/** Elements of b where the immediate has a bit. */
export const blend =
  (width: 16 | 32 | 64): Binary =>
  (s, a, b) => {
    let mask: Value;
    if (width === 16) {
      const bits = words(
        s,
        iota(8).map((i) => 1 << i),
      );
      mask = v(s, Simd.eq16, v(s, Simd.and, v(s, Simd.splat16, imm8(s)), bits), bits);
    } else {
      const bits = width === 32 ? dwords(s, [1, 2, 4, 8]) : dwords(s, [1, 1, 2, 2]);
      mask = v(s, Simd.eq32, v(s, Simd.and, v(s, Simd.splat32, imm8(s)), bits), bits);
    }
    return v(s, Simd.bitselect, b, a, mask);
  };
/** PMOVSX, PMOVZX: by steps of doubling. */
export const extend =
  (...codes: number[]): ((s: Sem, a: Value) => Value) =>
  (s, a) =>
    codes.reduce((x, code) => v(s, code, x), a);
export const extractElement =
  (width?: 8 | 16): Definition =>
  (s) =>
    s.write(0, element(s, s.readV(1), width ?? (s.operandWidth(0) as 32 | 64)));
export const insertElement =
  (width?: 8): Definition =>
  (s) => {
    const value = s.read(1);
    s.writeV(0, inserted(s, s.readV(0), value, width ?? (s.operandWidth(1) as 32 | 64)));
  };
/** INSERTPS: element imm[7:6] of a register (or the dword in memory) to place imm[5:4], then zeros by imm[3:0]. */
export const insertps: Definition = (s) => {
  const imm = imm8(s);
  let value: Value;
  if (s.isMemory(1)) value = s.readLow(1, 32);
  else {
    const b = s.readV(1);
    const lane = s.bin("shr_u", imm, s.const32(6));
    const word = s.select(s.bin("and", lane, s.const32(2)), half(s, b, 1), half(s, b, 0));
    value = s.wrap(s.bin("shr_u", word, s.extendU(s.bin("mul", s.bin("and", lane, s.const32(1)), s.const32(32)))));
  }
  const place = s.bin("and", s.bin("shr_u", imm, s.const32(4)), s.const32(3));
  const mask = v(s, Simd.eq32, dwords(s, [0, 1, 2, 3]), v(s, Simd.splat32, place));
  const r = v(s, Simd.bitselect, v(s, Simd.splat32, value), s.readV(0), mask);
  const bits = dwords(s, [1, 2, 4, 8]);
  s.writeV(0, v(s, Simd.andnot, r, v(s, Simd.eq32, v(s, Simd.and, v(s, Simd.splat32, imm), bits), bits)));
};
/** ROUND: by the immediate, or by MXCSR when its bit 2 is set; bit 3 keeps PE back. */
export const round =
  (format: Format): Definition =>
  (s) => {
    const wide = format === "sd" || format === "pd";
    const packed = format === "ps" || format === "pd";
    const imm = s.bin("and", imm8(s), s.const32(15));
    const b = packed ? source(s, 1) : scalar(s, 1, format).vector();
    const eq = v(s, wide ? Simd.f64Eq : Simd.f32Eq, b, b);
    const ordered = s.simd(Simd.allTrue32, "i32", [eq]);
    const silent = s.bin("or", s.bin("and", imm, s.const32(8)), s.bin("and", s.slot(Vp.mxcsr, 32), s.const32(0x20)));
    const code = s.bin("or", s.const32(codeOf("round", format)), s.bin("shl", imm, s.const32(16)));
    s.ifAll(
      [[() => s.ordinaryFloat(false)], [() => s.select(silent, ordered, s.const32(0))]],
      () => {
        const mode = s.bin("and", imm, s.const32(7));
        const is = (n: number): Value => s.cmp("eq", mode, s.const32(n));
        const down = v(s, wide ? Simd.f64Floor : Simd.f32Floor, b);
        const up = v(s, wide ? Simd.f64Ceil : Simd.f32Ceil, b);
        const cut = v(s, wide ? Simd.f64Trunc : Simd.f32Trunc, b);
        const r = s.select(
          is(1),
          down,
          s.select(is(2), up, s.select(is(3), cut, v(s, wide ? Simd.f64Nearest : Simd.f32Nearest, b))),
        );
        if (packed) s.writeV(0, r);
        else if (wide) s.writeLow(0, 64, half(s, r, 0));
        else s.writeLow(0, 32, s.simd(Simd.extract32, "i32", [r], 0));
      },
      () => {
        slowFloat(s, code, s.readV(0), b);
        s.writeV(0, s.slotV(Vp.vectorResult));
      },
    );
  };
/** DPPS, DPPD: always by the runtime. */
export const dotProduct =
  (format: "ps" | "pd"): Definition =>
  (s) => {
    const b = source(s, 1);
    slowFloat(s, s.bin("or", s.const32(codeOf("dp", format)), s.bin("shl", imm8(s), s.const32(16))), s.readV(0), b);
    s.writeV(0, s.slotV(Vp.vectorResult));
  };

// ---- helpers of the runtime -----------------------------------------------------------------------------------------------------

/** dst = operation(dst, src, immediate). */
export const operation =
  (name: keyof typeof VectorOp): Definition =>
  (s) => {
    const b = source(s, 1);
    const code = s.bin("or", s.const32(VectorOp[name]), s.bin("shl", imm8(s), s.const32(16)));
    s.writeV(0, s.call("vectorOp", code, s.readV(0), b));
  };
export const sha256rnds2: Definition = (s) => {
  const b = source(s, 1);
  s.writeV(0, s.call("sha256rounds", s.readV(0), b, xmm0(s)));
};

/** An explicit length: |EAX| or |RAX|, 16 at most. */
function length(s: Sem, slot: number): Value {
  const wide = s.width === 64;
  const raw = wide ? s.slot(slot, 64) : s.extendS(s.slot(slot, 32));
  const sign = s.bin("shr_s", raw, s.const64(63));
  const positive = s.bin("sub", s.bin("xor", raw, sign), sign);
  return s.wrap(s.select(s.cmp("gt_u", positive, s.const64(16)), s.const64(16), positive));
}
/** PCMPxSTRx. The memory operand need not be aligned. */
export const compareStrings =
  (explicit: boolean, result: "index" | "mask"): Definition =>
  (s) => {
    const b = s.readV(1);
    const a = s.readV(0);
    const imm = imm8(s);
    const la = explicit ? length(s, RAX) : s.const32(-1);
    const lb = explicit ? length(s, RDX) : s.const32(-1);
    const r = s.call("compareStrings", imm, a, b, la, lb);
    const mask = s.bin("and", r, s.const32(0xffff));
    const wordItems = s.bin("and", imm, s.const32(1));
    const expanded = s.bin("and", imm, s.const32(0x40));
    if (result === "index") {
      const n = s.select(wordItems, s.const32(8), s.const32(16));
      const found = s.select(expanded, s.bin("sub", s.const32(31), s.clz(mask)), s.ctz(mask));
      s.setSlot(RCX, 64, s.extendU(s.select(mask, found, n)));
    } else {
      const bits = bytes(s, [1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128]);
      const low = v(s, Simd.splat16, mask);
      const spread = s.shuffle(low, low, [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]);
      const byByte = v(s, Simd.eq8, v(s, Simd.and, spread, bits), bits);
      const wordBits = words(
        s,
        iota(8).map((i) => 1 << i),
      );
      const byWord = v(s, Simd.eq16, v(s, Simd.and, low, wordBits), wordBits);
      writeXmm0(s, s.select(expanded, s.select(wordItems, byWord, byByte), low64(s, s.extendU(mask))));
    }
    setPacked(s, s.bin("shr_u", r, s.const32(16)));
  };
function writeXmm0(s: Sem, value: Value): void {
  s.setSlot(Vp.xmm, 64, half(s, value, 0));
  s.setSlot(Vp.xmm + 8, 64, half(s, value, 1));
}
