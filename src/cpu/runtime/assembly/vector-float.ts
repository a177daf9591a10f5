/** SSE arithmetic off the fast path. */
import { VP } from "./env";
import * as L from "./layout";
import { get32, set32 } from "./state";

const A: i32 = L.Vp_vectorResult;
const B: i32 = L.Vp_bounce2;

@inline function nan32(x: u32): bool { return (x & 0x7fffffff) > 0x7f800000; }
@inline function nan64(x: u64): bool { return (x & 0x7fffffffffffffff) > 0x7ff0000000000000; }

function arith32(op: i32, x: u32, y: u32): u32 {
  const a = reinterpret<f32>(x), b = reinterpret<f32>(y);
  if (op == L.FloatOp_min) return a < b ? x : y;
  if (op == L.FloatOp_max) return a > b ? x : y;
  if (op == L.FloatOp_sqrt || op == L.FloatOp_rcp || op == L.FloatOp_rsqrt) {
    if (nan32(y)) return y | 0x400000;
    const r = op == L.FloatOp_sqrt ? sqrt<f32>(b) : op == L.FloatOp_rcp ? 1 / b : 1 / sqrt<f32>(b);
    return r != r ? 0xffc00000 : reinterpret<u32>(r);
  }
  if (nan32(x)) return x | 0x400000;
  if (nan32(y)) return y | 0x400000;
  const r = op == L.FloatOp_add ? a + b : op == L.FloatOp_sub ? a - b : op == L.FloatOp_mul ? a * b : a / b;
  return r != r ? 0xffc00000 : reinterpret<u32>(r);
}
function arith64(op: i32, x: u64, y: u64): u64 {
  const a = reinterpret<f64>(x), b = reinterpret<f64>(y);
  if (op == L.FloatOp_min) return a < b ? x : y;
  if (op == L.FloatOp_max) return a > b ? x : y;
  if (op == L.FloatOp_sqrt) {
    if (nan64(y)) return y | 0x8000000000000;
    const r = sqrt<f64>(b);
    return r != r ? 0xfff8000000000000 : reinterpret<u64>(r);
  }
  if (nan64(x)) return x | 0x8000000000000;
  if (nan64(y)) return y | 0x8000000000000;
  const r = op == L.FloatOp_add ? a + b : op == L.FloatOp_sub ? a - b : op == L.FloatOp_mul ? a * b : a / b;
  return r != r ? 0xfff8000000000000 : reinterpret<u64>(r);
}
/** Relation of two values: 0 = greater, 1 = less, 2 = equal, 3 = unordered. */
function relation(a: f64, b: f64): i32 { return a > b ? 0 : a < b ? 1 : a == b ? 2 : 3; }
function compare(p: i32, a: f64, b: f64): bool {
  const r = relation(a, b);
  let t: bool;
  switch (p & 3) {
    case 0: t = r == 2; break;
    case 1: t = r == 1; break;
    case 2: t = r == 1 || r == 2; break;
    default: t = r == 3;
  }
  return ((p & 4) != 0) != t;
}
function rounded(v: f64, mode: u32): f64 {
  switch (mode) {
    case 0: return nearest<f64>(v);
    case 1: return floor<f64>(v);
    case 2: return ceil<f64>(v);
    default: return trunc<f64>(v);
  }
}
function promote(x: u32): u64 {
  if (nan32(x)) return (u64(x & 0x80000000) << 32) | 0x7ff8000000000000 | (u64(x & 0x3fffff) << 29);
  return reinterpret<u64>(f64(reinterpret<f32>(x)));
}
function demote(x: u64): u32 {
  if (nan64(x)) return u32((x >> 32) & 0x80000000) | 0x7fc00000 | (u32(x >> 29) & 0x3fffff);
  return reinterpret<u32>(f32(reinterpret<f64>(x)));
}

export function vectorFloat(code: i32, a: v128, b: v128): i32 {
  const op = code & 0xff, wide = (code & 0x100) != 0, packed = (code & 0x200) != 0, imm = code >> 16;
  const ra = VP + A, rb = VP + B;
  v128.store(ra, a);
  v128.store(rb, b);
  const n = packed ? (wide ? 2 : 4) : 1;
  const mxcsr = get32(L.Vp_mxcsr);
  set32(L.Vp_mxcsr, mxcsr | 0x20);
  const mode = (mxcsr >> 13) & 3;
  switch (op) {
    case L.FloatOp_comi:
    case L.FloatOp_ucomi: {
      const x = wide ? load<f64>(ra) : f64(load<f32>(ra)), y = wide ? load<f64>(rb) : f64(load<f32>(rb));
      const r = relation(x, y);
      store<u32>(ra, r == 3 ? 0x45 : r == 2 ? 0x40 : r);
      return 1;
    }
    case L.FloatOp_cmp:
      for (let i = 0; i < n; i++) {
        if (wide) store<i64>(ra + i * 8, compare(imm, load<f64>(ra + i * 8), load<f64>(rb + i * 8)) ? -1 : 0);
        else store<i32>(ra + i * 4, compare(imm, f64(load<f32>(ra + i * 4)), f64(load<f32>(rb + i * 4))) ? -1 : 0);
      }
      return 1;
    case L.FloatOp_toFloat:
      if (wide) {
        const x = demote(load<u64>(rb)), y = demote(load<u64>(rb, 8));
        store<u32>(ra, x);
        if (packed) {
          store<u32>(ra, y, 4);
          store<u64>(ra, 0, 8);
        }
      } else {
        store<u64>(ra, promote(load<u32>(rb)));
        if (packed) store<u64>(ra, promote(load<u32>(rb, 4)), 8);
      }
      return 1;
    case L.FloatOp_toInt32:
    case L.FloatOp_truncate32:
      for (let i = 0; i < n; i++) {
        const x = rounded(wide ? load<f64>(rb + i * 8) : f64(load<f32>(rb + i * 4)), op == L.FloatOp_truncate32 ? 3 : mode);
        store<i32>(ra + i * 4, x >= -2147483648.0 && x <= 2147483647.0 ? i32(x) : i32.MIN_VALUE);
      }
      if (packed && wide) store<u64>(ra, 0, 8);
      return 1;
    case L.FloatOp_toInt64:
    case L.FloatOp_truncate64: {
      const x = rounded(wide ? load<f64>(rb) : f64(load<f32>(rb)), op == L.FloatOp_truncate64 ? 3 : mode);
      store<i64>(ra, x >= -9223372036854775808.0 && x < 9223372036854775808.0 ? i64(x) : i64.MIN_VALUE);
      return 1;
    }
    case L.FloatOp_fromInt32:
      for (let i = 0; i < n; i++) {
        if (wide) store<f64>(ra + i * 8, f64(load<i32>(rb + i * 4)));
        else store<f32>(ra + i * 4, f32(load<i32>(rb + i * 4)));
      }
      return 1;
    case L.FloatOp_fromInt64:
      if (wide) store<f64>(ra, f64(load<i64>(rb)));
      else store<f32>(ra, f32(load<i64>(rb)));
      return 1;
    default:
      for (let i = 0; i < n; i++) {
        if (wide) store<u64>(ra + i * 8, arith64(op, load<u64>(ra + i * 8), load<u64>(rb + i * 8)));
        else store<u32>(ra + i * 4, arith32(op, load<u32>(ra + i * 4), load<u32>(rb + i * 4)));
      }
      return 1;
  }
}
