/**
 * SSE arithmetic. The fast path is the host's own: MXCSR says nearest rounding, all exceptions masked, no DAZ or FTZ, and its
 * inexact flag is set already, and every result is a normal number, so that no other flag can change (but DE, which a
 * denormal operand with a normal result does not set here, unless MXCSR_STRICT forbids the fast path). All else goes to the runtime (assembly/vector-float.ts).
 */
import { Vp } from "../layout.js";
import { setPacked } from "./integer.js";
import type { Definition, Sem, Value } from "./sem.js";
import { FloatFormat, FloatOp } from "./vector-codes.js";
import { dwords, imm8, iota, low64, qwords, Simd, source, v, zero } from "./vector-ops.js";

export type Format = keyof typeof FloatFormat;
const wide = (f: Format): boolean => f === "sd" || f === "pd";
const packed = (f: Format): boolean => f === "ps" || f === "pd";
export const codeOf = (operation: keyof typeof FloatOp, format: Format): number =>
  FloatOp[operation] | (FloatFormat[format] << 8);

/** Calls the runtime; leaves by the fault path for an unmasked exception. Result in Vp.vectorResult. */
export function slowFloat(s: Sem, code: Value, a: Value, b: Value): void {
  s.faultUnless(s.call("vectorFloat", code, a, b));
}
export const slowVector = (s: Sem, code: number, a: Value, b: Value): Value => {
  slowFloat(s, s.const32(code), a, b);
  return s.slotV(Vp.vectorResult);
};
/** A scalar operand as f32 or f64, and in the low end of a vector. */
interface Scalar {
  readonly value: Value;
  vector(): Value;
}
export function scalar(s: Sem, i: number, format: Format): Scalar {
  if (wide(format)) {
    const value = s.readF64(i);
    return { value, vector: () => low64(s, s.wasm("i64_reinterpret_f64", "i64", value)) };
  }
  const value = s.readF32(i);
  return { value, vector: () => low64(s, s.extendU(s.wasm("i32_reinterpret_f32", "i32", value))) };
}
/** Exponents in 2..max-2: neither zero, nor denormal or next to it, nor infinite, nor NaN, nor huge. */
function normal(s: Sem, format: Format, r: Value): Value {
  switch (format) {
    case "ss": {
      const bits = s.wasm("i32_reinterpret_f32", "i32", r);
      return s.bin("and", s.bin("add", bits, s.const32(0x01000000)), s.const32(0x7e000000));
    }
    case "sd": {
      const bits = s.wasm("i64_reinterpret_f64", "i64", r);
      return s.cmp(
        "ne",
        s.bin("and", s.bin("add", bits, s.const64(2 ** 53)), s.const64(0x7fc * 2 ** 52)),
        s.const64(0),
      );
    }
    case "ps":
      return s.simd(Simd.allTrue32, "i32", [
        v(
          s,
          Simd.and,
          v(
            s,
            Simd.add32,
            r,
            dwords(
              s,
              iota(4).map(() => 0x01000000),
            ),
          ),
          dwords(
            s,
            iota(4).map(() => 0x7e000000),
          ),
        ),
      ]);
    case "pd":
      return s.simd(Simd.allTrue64, "i32", [
        v(s, Simd.and, v(s, Simd.add64, r, qwords(s, 0, 0x00200000)), qwords(s, 0, 0x7fc00000)),
      ]);
  }
}
const writeScalar = (s: Sem, format: Format, r: Value): void => (wide(format) ? s.writeF64(0, r) : s.writeF32(0, r));

type Arithmetic = "add" | "sub" | "mul" | "div" | "sqrt";
const PACKED = {
  add: { ps: Simd.f32Add, pd: Simd.f64Add },
  sub: { ps: Simd.f32Sub, pd: Simd.f64Sub },
  mul: { ps: Simd.f32Mul, pd: Simd.f64Mul },
  div: { ps: Simd.f32Div, pd: Simd.f64Div },
  sqrt: { ps: Simd.f32Sqrt, pd: Simd.f64Sqrt },
} as const;
/** Takes the fast path's result if MXCSR and the result `r` allow it. */
export function whenOrdinary(
  s: Sem,
  format: Format,
  r: Value,
  fast: () => void,
  slow: () => void,
  exactZero?: () => Value,
): void {
  const fine = [(): Value => normal(s, format, r), ...(exactZero === undefined ? [] : [exactZero])];
  s.ifAll([[() => s.ordinaryFloat(true)], fine], fast, slow);
}
/** Whether a result that is no normal number is a zero that the operation gives exactly, of operands that set no flag either. */
function exactZero(s: Sem, operation: Arithmetic, format: "ss" | "sd", a: Value, b: Value, r: Value): Value {
  const type = wide(format) ? "f64" : "f32";
  const none = s.wasm(`${type}_sub`, type, r, r);
  const isZero = (x: Value): Value => s.wasm(`${type}_eq`, "i32", x, none);
  const isNormal = (x: Value): Value => s.cmp("ne", normal(s, format, x), s.const32(0));
  const and = (x: Value, y: Value): Value => s.bin("and", x, y);
  const or = (x: Value, y: Value): Value => s.bin("or", x, y);
  return and(isZero(r), operandsOfZero(operation, isZero, isNormal, and, or, a, b));
}
function operandsOfZero(
  operation: Arithmetic,
  isZero: (x: Value) => Value,
  isNormal: (x: Value) => Value,
  and: (x: Value, y: Value) => Value,
  or: (x: Value, y: Value) => Value,
  a: Value,
  b: Value,
): Value {
  switch (operation) {
    case "add":
    case "sub":
      return or(isZero(a), isNormal(a));
    case "mul":
      return or(and(isZero(a), or(isZero(b), isNormal(b))), and(isZero(b), isNormal(a)));
    case "div":
      return and(isZero(a), isNormal(b));
    case "sqrt":
      return isZero(b);
  }
}
/** The same of each element, or that it is normal. */
function exactZeros(s: Sem, operation: Arithmetic, format: "ps" | "pd", a: Value, b: Value, r: Value): Value {
  const double = wide(format);
  const none = zero(s);
  const isZero = (x: Value): Value => v(s, double ? Simd.f64Eq : Simd.f32Eq, x, none);
  const isNormal = (x: Value): Value => {
    const [add, mask] = double
      ? [qwords(s, 0, 0x00200000), qwords(s, 0, 0x7fc00000)]
      : [0x01000000, 0x7e000000].map((word) =>
          dwords(
            s,
            iota(4).map(() => word),
          ),
        );
    const field = v(s, Simd.and, v(s, double ? Simd.add64 : Simd.add32, x, add!), mask!);
    return v(s, Simd.not, v(s, double ? Simd.eq64 : Simd.eq32, field, none));
  };
  const and = (x: Value, y: Value): Value => v(s, Simd.and, x, y);
  const or = (x: Value, y: Value): Value => v(s, Simd.or, x, y);
  const lanes = or(isNormal(r), and(isZero(r), operandsOfZero(operation, isZero, isNormal, and, or, a, b)));
  return s.simd(double ? Simd.allTrue64 : Simd.allTrue32, "i32", [lanes]);
}
/** A packed operation on values already read. */
export function packedArithmetic(s: Sem, operation: Arithmetic, format: "ps" | "pd", a: Value, b: Value): void {
  const r = operation === "sqrt" ? v(s, PACKED.sqrt[format], b) : v(s, PACKED[operation][format], a, b);
  whenOrdinary(
    s,
    format,
    r,
    () => s.writeV(0, r),
    () => s.writeV(0, slowVector(s, codeOf(operation, format), a, b)),
    () => exactZeros(s, operation, format, a, b, r),
  );
}
export const arithmetic =
  (operation: Arithmetic, format: Format): Definition =>
  (s) => {
    if (format === "ps" || format === "pd") {
      const b = source(s, 1);
      packedArithmetic(s, operation, format, s.readV(0), b);
      return;
    }
    const type = wide(format) ? "f64" : "f32";
    const b = scalar(s, 1, format);
    const a = operation === "sqrt" ? b : scalar(s, 0, format);
    const r =
      operation === "sqrt"
        ? s.wasm(`${type}_sqrt`, type, b.value)
        : s.wasm(`${type}_${operation}`, type, a.value, b.value);
    whenOrdinary(
      s,
      format,
      r,
      () => writeScalar(s, format, r),
      () => s.writeV(0, slowVector(s, codeOf(operation, format), s.readV(0), b.vector())),
      () => exactZero(s, operation, format, a.value, b.value, r),
    );
  };

/** 1 if no element of a or b is a NaN. */
const ordered = (s: Sem, format: Format, a: Value, b: Value): Value => {
  if (!packed(format)) {
    const ne = wide(format) ? "f64_eq" : "f32_eq";
    return s.bin("and", s.wasm(ne, "i32", a, a), s.wasm(ne, "i32", b, b));
  }
  const eq = wide(format) ? Simd.f64Eq : Simd.f32Eq;
  return s.simd(wide(format) ? Simd.allTrue64 : Simd.allTrue32, "i32", [
    v(s, Simd.and, v(s, eq, a, a), v(s, eq, b, b)),
  ]);
};
/** MIN, MAX: the second operand when they are equal (both zero) or one is a NaN. */
export const minMax =
  (operation: "min" | "max", format: Format): Definition =>
  (s) => {
    const code = codeOf(operation, format);
    if (packed(format)) {
      const b = source(s, 1);
      const a = s.readV(0);
      const pick =
        operation === "min" ? (wide(format) ? Simd.f64Pmin : Simd.f32Pmin) : wide(format) ? Simd.f64Pmax : Simd.f32Pmax;
      s.ifAll(
        [[() => s.ordinaryFloat(false)], [() => ordered(s, format, a, b)]],
        () => s.writeV(0, v(s, pick, b, a)),
        () => s.writeV(0, slowVector(s, code, a, b)),
      );
      return;
    }
    const b = scalar(s, 1, format);
    const a = scalar(s, 0, format);
    const take = s.wasm(
      `${wide(format) ? "f64" : "f32"}_${operation === "min" ? "lt" : "gt"}`,
      "i32",
      a.value,
      b.value,
    );
    s.ifAll(
      [[() => s.ordinaryFloat(false)], [() => ordered(s, format, a.value, b.value)]],
      () => writeScalar(s, format, s.select(take, a.value, b.value)),
      () => s.writeV(0, slowVector(s, code, s.readV(0), b.vector())),
    );
  };

/** CMPPS and its kin: a mask by the predicate in the immediate. */
export const compare =
  (format: Format): Definition =>
  (s) => {
    const b = packed(format) ? source(s, 1) : scalar(s, 1, format).vector();
    const a = s.readV(0);
    const [eq, lt, le] = wide(format) ? [Simd.f64Eq, Simd.f64Lt, Simd.f64Le] : [Simd.f32Eq, Simd.f32Lt, Simd.f32Le];
    const predicate = s.bin("and", imm8(s), s.const32(7));
    // a NaN in the elements that a scalar form does not look at only costs time
    s.ifAll(
      [[() => s.ordinaryFloat(false)], [() => ordered(s, wide(format) ? "pd" : "ps", a, b)]],
      () => {
        const which = s.bin("and", predicate, s.const32(3));
        const is = (n: number): Value => s.cmp("eq", which, s.const32(n));
        const positive = s.select(
          is(0),
          v(s, eq, a, b),
          s.select(is(1), v(s, lt, a, b), s.select(is(2), v(s, le, a, b), zero(s))),
        );
        const flip = v(s, Simd.splat32, s.bin("sub", s.const32(0), s.bin("shr_u", predicate, s.const32(2))));
        const mask = v(s, Simd.xor, positive, flip);
        if (packed(format)) s.writeV(0, mask);
        else if (wide(format)) s.writeLow(0, 64, s.simd(Simd.extract64, "i64", [mask], 0));
        else s.writeLow(0, 32, s.simd(Simd.extract32, "i32", [mask], 0));
      },
      () => {
        slowFloat(s, s.bin("or", s.const32(codeOf("cmp", format)), s.bin("shl", predicate, s.const32(16))), a, b);
        s.writeV(0, s.slotV(Vp.vectorResult));
      },
    );
  };

/** COMIS, UCOMIS: ZF PF CF = 111 unordered, 000 greater, 001 less, 100 equal; the others are cleared. */
export const compareFlags =
  (operation: "comi" | "ucomi", format: "ss" | "sd"): Definition =>
  (s) => {
    const b = scalar(s, 1, format);
    const a = scalar(s, 0, format);
    const type = wide(format) ? "f64" : "f32";
    s.ifAll(
      [[() => s.ordinaryFloat(false)], [() => ordered(s, format, a.value, b.value)]],
      () => {
        const lt = s.wasm(`${type}_lt`, "i32", a.value, b.value);
        const eq = s.wasm(`${type}_eq`, "i32", a.value, b.value);
        setPacked(s, s.bin("or", lt, s.bin("shl", eq, s.const32(6))));
      },
      () => {
        slowFloat(s, s.const32(codeOf(operation, format)), s.readV(0), b.vector());
        setPacked(s, s.slot(Vp.vectorResult, 32));
      },
    );
  };

// ---- conversions ----------------------------------------------------------------------------------------------------------------

/** CVTSI2SS, CVTSI2SD. */
export const fromInteger =
  (format: "ss" | "sd"): Definition =>
  (s) => {
    const a = s.read(1);
    const type = wide(format) ? "f64" : "f32";
    const r = s.wasm(`${type}_convert_${a.type}_s`, type, a);
    if (wide(format) && a.type === "i32") {
      writeScalar(s, format, r);
      return;
    }
    s.if(
      s.ordinaryFloat(true),
      () => writeScalar(s, format, r),
      () =>
        s.writeV(
          0,
          slowVector(
            s,
            codeOf(a.type === "i32" ? "fromInt32" : "fromInt64", format),
            s.readV(0),
            low64(s, s.extendU(a)),
          ),
        ),
    );
  };
/** CVTSS2SI and its kin: by the rounding mode or with truncation; out of range gives the integer indefinite. */
export const toInteger =
  (format: "ss" | "sd", truncate: boolean): Definition =>
  (s) => {
    const b = scalar(s, 1, format);
    const type = wide(format) ? "f64" : "f32";
    const wideResult = s.operandWidth(0) === 64;
    const whole = truncate ? b.value : s.wasm(`${type}_nearest`, type, b.value);
    const limit = wideResult ? 2 ** 63 : 2 ** 31;
    const bound = (n: number): Value =>
      wide(format)
        ? s.wasm("f64_convert_i64_s", "f64", s.const64(n))
        : s.wasm("f32_convert_i64_s", "f32", s.const64(n));
    // -limit itself is in range; a bound of -limit - 1 has no f32 or f64 of its own at 64 bits
    const within = s.bin(
      "and",
      s.wasm(`${type}_ge`, "i32", whole, bound(-limit)),
      s.wasm(`${type}_lt`, "i32", whole, bound(wideResult ? 2 ** 63 - 1024 : limit)),
    );
    s.ifAll(
      [[() => s.ordinaryFloat(true)], [() => within]],
      () => s.write(0, s.wasm(`${wideResult ? "i64" : "i32"}_trunc_${type}_s`, wideResult ? "i64" : "i32", whole)),
      () => {
        const x = b.vector();
        slowFloat(
          s,
          s.const32(
            codeOf(truncate ? (wideResult ? "truncate64" : "truncate32") : wideResult ? "toInt64" : "toInt32", format),
          ),
          x,
          x,
        );
        s.write(0, s.slot(Vp.vectorResult, wideResult ? 64 : 32));
      },
    );
  };
/** CVTSS2SD, CVTPS2PD: exact but for signalling NaNs. */
export const widen =
  (format: "ss" | "ps"): Definition =>
  (s) => {
    const code = codeOf("toFloat", format);
    if (format === "ss") {
      const b = scalar(s, 1, "ss");
      s.ifAll(
        [[() => s.ordinaryFloat(false)], [() => s.wasm("f32_eq", "i32", b.value, b.value)]],
        () => s.writeF64(0, s.wasm("f64_promote_f32", "f64", b.value)),
        () => s.writeV(0, slowVector(s, code, s.readV(0), b.vector())),
      );
      return;
    }
    const b = source(s, 1);
    s.ifAll(
      [[() => s.ordinaryFloat(false)], [() => ordered(s, "ps", b, b)]],
      () => s.writeV(0, v(s, Simd.promote, b)),
      () => s.writeV(0, slowVector(s, code, b, b)),
    );
  };
/** CVTSD2SS, CVTPD2PS. */
export const narrow =
  (format: "sd" | "pd"): Definition =>
  (s) => {
    const code = codeOf("toFloat", format);
    if (format === "sd") {
      const b = scalar(s, 1, "sd");
      const r = s.wasm("f32_demote_f64", "f32", b.value);
      const fine = normal(s, "ss", r);
      s.ifAll(
        [[() => s.ordinaryFloat(true)], [() => fine]],
        () => s.writeF32(0, r),
        () => s.writeV(0, slowVector(s, code, s.readV(0), b.vector())),
      );
      return;
    }
    const b = source(s, 1);
    const r = v(s, Simd.demote, b);
    const ones = s.shuffle(r, r, [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7]);
    s.ifAll(
      [[() => s.ordinaryFloat(true)], [() => normal(s, "ps", ones)]],
      () => s.writeV(0, r),
      () => s.writeV(0, slowVector(s, code, b, b)),
    );
  };
/** CVTDQ2PD is exact; CVTDQ2PS is not. */
export const convertDwordsPd: Definition = (s) => s.writeV(0, v(s, Simd.convert32F64, source(s, 1)));
export const convertDwordsPs: Definition = (s) => {
  const b = source(s, 1);
  s.if(
    s.ordinaryFloat(true),
    () => s.writeV(0, v(s, Simd.convert32, b)),
    () => s.writeV(0, slowVector(s, codeOf("fromInt32", "ps"), b, b)),
  );
};
/** CVT(T)PS2DQ, CVT(T)PD2DQ. */
export const toDwords =
  (format: "ps" | "pd", truncate: boolean): Definition =>
  (s) => {
    const b = source(s, 1);
    const ps = format === "ps";
    const whole = truncate
      ? v(s, ps ? Simd.f32Trunc : Simd.f64Trunc, b)
      : v(s, ps ? Simd.f32Nearest : Simd.f64Nearest, b);
    const low = ps
      ? dwords(
          s,
          iota(4).map(() => 0xcf000000),
        )
      : qwords(s, 0, 0xc1e00000);
    const high = ps
      ? dwords(
          s,
          iota(4).map(() => 0x4f000000),
        )
      : qwords(s, 0, 0x41e00000);
    const within = v(
      s,
      Simd.and,
      v(s, ps ? Simd.f32Ge : Simd.f64Ge, whole, low),
      v(s, ps ? Simd.f32Lt : Simd.f64Lt, whole, high),
    );
    s.ifAll(
      [[() => s.ordinaryFloat(true)], [() => s.simd(ps ? Simd.allTrue32 : Simd.allTrue64, "i32", [within])]],
      () => s.writeV(0, v(s, ps ? Simd.truncF32 : Simd.truncF64, whole)),
      () => s.writeV(0, slowVector(s, codeOf(truncate ? "truncate32" : "toInt32", format), b, b)),
    );
  };

// ---- approximations ---------------------------------------------------------------------------------------------------------------

/** RCP, RSQRT: always by the runtime; the exact value is within the bound of 1.5 * 2^-12. */
export const approximate =
  (operation: "rcp" | "rsqrt", format: "ss" | "ps"): Definition =>
  (s) => {
    const b = format === "ps" ? source(s, 1) : scalar(s, 1, "ss").vector();
    s.writeV(0, slowVector(s, codeOf(operation, format), s.readV(0), b));
  };
