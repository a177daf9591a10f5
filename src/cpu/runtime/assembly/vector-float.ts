/**
 * SSE arithmetic off the fast path of the definitions (isa/vector-float.ts): MXCSR's rounding, DAZ and FTZ, its flags, and #XM.
 * Operands and results are vectors; a packed operation is a loop over elements, and an exception keeps the whole result back.
 */
import { VP } from "./env";
import * as L from "./layout";
import * as F from "./softfloat";
import { fault, get32, get64, set32, ud } from "./state";

const A: i32 = L.Vp_vectorResult;
const B: i32 = L.Vp_bounce2;
const NORMAL: u64 = 0x7fc0000000000000;

@inline function get(at: i32, i: i32, wide: bool): u64 { return wide ? load<u64>(at + i * 8) : u64(load<u32>(at + i * 4)); }
@inline function put(at: i32, i: i32, wide: bool, x: u64): void {
  if (wide) store<u64>(at + i * 8, x);
  else store<u32>(at + i * 4, <u32>x);
}

/** Length of a significand without its trailing zeros. */
@inline function digits(x: u64): u64 { return 53 - min<u64>(ctz((x & 0xfffffffffffff) | 0x10000000000000), 52); }
@inline function plain64(x: u64): bool { return (x << 1) == 0 || ((x + 0x20000000000000) & NORMAL) != 0; }
/**
 * Under the default control, results that are exact or have nothing to report: no flag but PE could change, and PE is set or
 * the result is exact. @returns 1 and the result in `quick`
 */
let quick: u64 = 0;
function quick64(op: i32, x: u64, y: u64, inexact: bool): bool {
  if (!plain64(x) || !plain64(y)) return false;
  const a = reinterpret<f64>(x), b = reinterpret<f64>(y);
  let r: f64;
  if (op == L.FloatOp_add || op == L.FloatOp_sub) {
    const c = op == L.FloatOp_sub ? -b : b;
    r = a + c;
    quick = reinterpret<u64>(r);
    if (r == 0) return true;
    if (!plain64(quick)) return false;
    const t = r - a;
    return inexact || (a - (r - t)) + (c - t) == 0;
  }
  if (op == L.FloatOp_mul) {
    r = a * b;
    quick = reinterpret<u64>(r);
    if (a == 0 || b == 0) return true;
    return r != 0 && plain64(quick) && (inexact || digits(x) + digits(y) <= 53);
  }
  if (op != L.FloatOp_div || b == 0) return false;
  r = a / b;
  quick = reinterpret<u64>(r);
  if (a == 0) return true;
  return r != 0 && plain64(quick) && (inexact || (digits(quick) + digits(y) <= 53 && r * b == a));
}
function quick32(op: i32, x: u64, y: u64, inexact: bool): bool {
  const a = f64(reinterpret<f32>(u32(x))), b = f64(reinterpret<f32>(u32(y)));
  if (F.isDenormal(x, false) || F.isDenormal(y, false) || !(abs<f64>(a) < 1e38) || !(abs<f64>(b) < 1e38)) return false;
  // a sum of two f32 in f64 is exact or so long that its f32 is not
  if (op == L.FloatOp_div && b == 0) return false;
  const wide = op == L.FloatOp_add ? a + b : op == L.FloatOp_sub ? a - b : op == L.FloatOp_mul ? a * b : op == L.FloatOp_div ? a / b : NaN;
  const r = f32(wide);
  quick = u64(reinterpret<u32>(r));
  if (wide == 0) return op != L.FloatOp_div || a == 0;
  if (!(abs<f64>(wide) < 1e38) || !(abs<f64>(wide) > 1e-37)) return false;
  const exact = op == L.FloatOp_div ? f64(r) * b == a : f64(r) == wide;
  if (!exact) return inexact && op != L.FloatOp_add && op != L.FloatOp_sub;
  if (op == L.FloatOp_add || op == L.FloatOp_sub) {
    const c = op == L.FloatOp_sub ? -b : b;
    const t = wide - a;
    return (a - (wide - t)) + (c - t) == 0;
  }
  return true;
}

function approximate(op: i32, x: u64): u64 {
  if (F.isNan(x, false)) return x | 0x400000;
  const v = F.isDenormal(x, false) ? reinterpret<f32>(u32(x) & 0x80000000) : reinterpret<f32>(u32(x));
  if (op == L.FloatOp_rsqrt && v < 0) return 0xffc00000;
  const r = u64(reinterpret<u32>(op == L.FloatOp_rcp ? f32(1) / v : f32(1 / sqrt<f64>(f64(v)))));
  return F.isDenormal(r, false) ? r & 0x80000000 : r;
}
/** MIN, MAX: the second operand unless both are numbers and the first one wins. */
function extreme(op: i32, x: u64, y: u64, wide: bool): u64 {
  const r = F.relation(x, y, wide);
  if (r == 3) {
    F.raiseInvalid();
    return F.flushed(y, wide);
  }
  return F.flushed((op == L.FloatOp_min ? r == 1 : r == 0) ? x : y, wide);
}
function compare(p: i32, x: u64, y: u64, wide: bool): u64 {
  const r = F.relation(x, y, wide);
  const low = p & 3;
  if (r == 3 && (low == 1 || low == 2 || F.isSignalling(x, wide) || F.isSignalling(y, wide))) F.raiseInvalid();
  const t = low == 0 ? r == 2 : low == 1 ? r == 1 : low == 2 ? r == 1 || r == 2 : r == 3;
  return t != ((p & 4) != 0) ? u64.MAX_VALUE : 0;
}
function arithmetic(op: i32, x: u64, y: u64, wide: bool, odd: bool): u64 {
  switch (op) {
    case L.FloatOp_add: return F.add(x, y, false, wide);
    case L.FloatOp_sub: return F.add(x, y, true, wide);
    case L.FloatOp_addsub: return F.add(x, y, !odd, wide);
    case L.FloatOp_mul: return F.mul(x, y, wide);
    case L.FloatOp_div: return F.div(x, y, wide);
    case L.FloatOp_sqrt: return F.sqrt(y, wide);
    case L.FloatOp_min:
    case L.FloatOp_max: return extreme(op, x, y, wide);
    default: return approximate(op, y);
  }
}

/** DPPS, DPPD: products that the high half of the immediate picks, summed in pairs; the low half picks the places of the sum. */
function dotProduct(ra: i32, rb: i32, imm: i32, wide: bool): void {
  const n = wide ? 2 : 4;
  for (let i = 0; i < n; i++) put(rb, i, wide, (imm & (16 << i)) != 0 ? F.mul(get(ra, i, wide), get(rb, i, wide), wide) : 0);
  // an unmasked exception of one step keeps the next from happening
  if (!F.settle()) return;
  let sum = F.add(get(rb, 0, wide), get(rb, 1, wide), false, wide);
  if (!wide) {
    const upper = F.add(get(rb, 2, wide), get(rb, 3, wide), false, wide);
    if (!F.settle()) return;
    sum = F.add(sum, upper, false, wide);
  }
  for (let i = 0; i < n; i++) put(ra, i, wide, (imm & (1 << i)) != 0 ? sum : 0);
}

/** Takes over the flags. @returns 0 = an unmasked one: #XM, or #UD where the system does not handle it */
function finish(): i32 {
  const mxcsr = get32(L.Vp_mxcsr);
  const unmasked = ~(mxcsr >> 7) & 63;
  const before = F.flags & (F.IE | F.DE | F.ZE);
  // exceptions of the operands come before there is a result
  const raised = F.settled | ((before & unmasked) != 0 ? before : F.flags);
  set32(L.Vp_mxcsr, mxcsr | raised);
  if ((raised & unmasked) == 0) return 1;
  return (get64(L.Vp_cr4) & 0x400) != 0 ? fault(19, -1) : ud();
}

export function vectorFloat(code: i32, a: v128, b: v128): i32 {
  const op = code & 0xff, wide = (code & 0x100) != 0, packed = (code & 0x200) != 0, imm = code >> 16;
  const ra = VP + A, rb = VP + B;
  v128.store(ra, a);
  v128.store(rb, b);
  const n = packed ? (wide ? 2 : 4) : 1;
  const mxcsr = get32(L.Vp_mxcsr);
  F.begin(mxcsr);
  if (op <= L.FloatOp_div) {
    const ordinary = (mxcsr & (L.MXCSR_STRICT | 0xffc0)) == 0x1f80, inexact = (mxcsr & 0x20) != 0;
    for (let i = 0; i < n; i++) {
      const x = get(ra, i, wide), y = get(rb, i, wide);
      if (ordinary && (wide ? quick64(op, x, y, inexact) : quick32(op, x, y, inexact))) put(ra, i, wide, quick);
      else put(ra, i, wide, arithmetic(op, x, y, wide, false));
    }
    return F.flags == 0 ? 1 : finish();
  }
  switch (op) {
    case L.FloatOp_comi:
    case L.FloatOp_ucomi: {
      const x = get(ra, 0, wide), y = get(rb, 0, wide);
      const r = F.relation(x, y, wide);
      if (r == 3 && (op == L.FloatOp_comi || F.isSignalling(x, wide) || F.isSignalling(y, wide))) F.raiseInvalid();
      store<u32>(ra, r == 3 ? 0x45 : r == 2 ? 0x40 : r);
      break;
    }
    case L.FloatOp_cmp:
      for (let i = 0; i < n; i++) put(ra, i, wide, compare(imm, get(ra, i, wide), get(rb, i, wide), wide));
      break;
    case L.FloatOp_round:
      if ((imm & 4) == 0) F.setMode(imm & 3);
      for (let i = 0; i < n; i++) put(ra, i, wide, F.roundIntegral(get(rb, i, wide), wide));
      if ((imm & 8) != 0) F.clearFlags(F.PE);
      break;
    case L.FloatOp_dp:
      dotProduct(ra, rb, imm, wide);
      break;
    case L.FloatOp_toFloat:
      for (let i = 0; i < min(n, 2); i++) put(ra, i, !wide, F.convert(get(rb, i, wide), wide));
      if (packed && wide) store<u64>(ra, 0, 8);
      break;
    case L.FloatOp_toInt32:
    case L.FloatOp_truncate32:
      if (op == L.FloatOp_truncate32) F.setMode(3);
      for (let i = 0; i < n; i++) store<i32>(ra + i * 4, <i32>F.toInteger(get(rb, i, wide), wide, 32));
      if (packed && wide) store<u64>(ra, 0, 8);
      break;
    case L.FloatOp_toInt64:
    case L.FloatOp_truncate64:
      if (op == L.FloatOp_truncate64) F.setMode(3);
      store<i64>(ra, F.toInteger(get(rb, 0, wide), wide, 64));
      break;
    case L.FloatOp_fromInt32:
      for (let i = 0; i < n; i++) put(ra, i, wide, F.fromInteger(i64(load<i32>(rb + i * 4)), wide));
      break;
    case L.FloatOp_fromInt64:
      put(ra, 0, wide, F.fromInteger(load<i64>(rb), wide));
      break;
    default:
      for (let i = 0; i < n; i++) put(ra, i, wide, arithmetic(op, get(ra, i, wide), get(rb, i, wide), wide, (i & 1) != 0));
  }
  return (F.flags | F.settled) == 0 ? 1 : finish();
}
