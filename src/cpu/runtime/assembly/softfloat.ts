/**
 * Binary floating point with every rounding mode and all flags, for f32 and f64 (IEEE 754-2019; Intel SDM vol. 1, chapter 4.9
 * and 11.5 for what it leaves open: tininess is found after rounding, NaN operands win over other exceptions).
 *
 * A finite number is sign, exponent and 128 bits of significand whose top bit is set: 1.xxx * 2^exponent. Two formats share
 * all code; encodings of f32 are in the low half of a u64.
 */
import { divide128, divideRemainder } from "./arithmetic";

export const IE: u32 = 1, DE: u32 = 2, ZE: u32 = 4, OE: u32 = 8, UE: u32 = 16, PE: u32 = 32;
const NEAREST: u32 = 0, DOWN: u32 = 1, UP: u32 = 2;
/** What an encoding stands for. */
const ZERO: i32 = 0, FINITE: i32 = 1, INFINITE: i32 = 2, QUIET: i32 = 3, SIGNALLING: i32 = 4;
const TOP: u64 = u64(1) << 63;

/** Flags raised since `begin`. */
export let flags: u32 = 0;
/** Flags of the steps that are done. */
export let settled: u32 = 0;
export let mode: u32 = 0;
let masks: u32 = 0;
let daz: bool = false;
let ftz: bool = false;

/** @param mxcsr control bits to work by */
export function begin(mxcsr: u32): void {
  flags = 0;
  settled = 0;
  mode = (mxcsr >> 13) & 3;
  masks = (mxcsr >> 7) & 63;
  daz = (mxcsr & 0x40) != 0;
  ftz = (mxcsr & 0x8000) != 0;
}
/** Ends a step of an operation of several. @returns false = an unmasked exception: the next step does not happen */
export function settle(): bool {
  if ((flags & ~masks) != 0) return false;
  settled |= flags;
  flags = 0;
  return true;
}
export function setMode(to: u32): void {
  mode = to;
}
export function clearFlags(which: u32): void {
  flags &= ~which;
}

let uS: u64 = 0;
let uE: i32 = 0;
let uM: u64 = 0;
let uDenormal: bool = false;
/** Takes an encoding apart into uS, uE, uM. @returns its kind */
function unpack(x: u64, wide: bool): i32 {
  const fb: u64 = wide ? 52 : 23;
  const max = wide ? 0x7ff : 0xff;
  uS = (wide ? x >> 63 : x >> 31) & 1;
  const e = i32(x >> fb) & max;
  const f = x & ((u64(1) << fb) - 1);
  uDenormal = false;
  if (e == max) {
    if (f == 0) return INFINITE;
    return (f >> (fb - 1)) != 0 ? QUIET : SIGNALLING;
  }
  if (e == 0) {
    if (f == 0 || daz) return ZERO;
    const z = clz(f);
    uDenormal = true;
    uM = f << z;
    uE = 1 - (max >> 1) - i32(fb) + 63 - i32(z);
    return FINITE;
  }
  uM = TOP | (f << (63 - fb));
  uE = e - (max >> 1);
  return FINITE;
}
export function raiseInvalid(): void {
  flags |= IE;
}
/** With DAZ a denormal is a zero. */
export function flushed(x: u64, wide: bool): u64 {
  return daz && isDenormal(x, wide) ? zeroOf((wide ? x >> 63 : x >> 31) & 1, wide) : x;
}
export function isNan(x: u64, wide: bool): bool {
  return wide ? (x << 1) > 0xffe0000000000000 : (x & 0x7fffffff) > 0x7f800000;
}
export function isSignalling(x: u64, wide: bool): bool {
  return isNan(x, wide) && (wide ? (x >> 51) & 1 : (x >> 22) & 1) == 0;
}
export function isDenormal(x: u64, wide: bool): bool {
  return wide ? (x << 12) != 0 && ((x >> 52) & 0x7ff) == 0 : (x & 0x7fffff) != 0 && ((x >> 23) & 0xff) == 0;
}
/** The operand as arithmetic sees it: with DAZ a denormal is a zero. Raises DE for it otherwise. */
export function operand(x: u64, wide: bool): u64 {
  if (!isDenormal(x, wide)) return x;
  if (daz) return x & (wide ? TOP : 0x80000000);
  flags |= DE;
  return x;
}
@inline function quiet(x: u64, wide: bool): u64 { return x | (wide ? 0x8000000000000 : 0x400000); }
@inline function infinity(s: u64, wide: bool): u64 { return wide ? (s << 63) | 0x7ff0000000000000 : (s << 31) | 0x7f800000; }
@inline function zeroOf(s: u64, wide: bool): u64 { return wide ? s << 63 : s << 31; }
function invalid(wide: bool): u64 {
  flags |= IE;
  return wide ? 0xfff8000000000000 : 0xffc00000;
}
/** One operand at least is a NaN: the first one of them, made quiet. */
function nanOf(x: u64, kx: i32, y: u64, ky: i32, wide: bool): u64 {
  if (kx == SIGNALLING || ky == SIGNALLING) flags |= IE;
  return quiet(kx >= QUIET ? x : y, wide);
}

/** Is the number `keep` + `rest` * 2^-64 rounded away from zero? */
function roundsUp(s: u64, keep: u64, rest: u64): bool {
  switch (mode) {
    case NEAREST: return rest > TOP || (rest == TOP && (keep & 1) != 0);
    case DOWN: return s != 0 && rest != 0;
    case UP: return s == 0 && rest != 0;
    default: return false;
  }
}
/** Rounds hi:lo (top bit set) * 2^e to the format. */
export function roundPack(s: u64, e: i32, hi: u64, lo: u64, wide: bool): u64 {
  const p: u64 = wide ? 53 : 24;
  const cut: u64 = 64 - p;
  const bias = wide ? 1023 : 127;
  const emin = 1 - bias;
  let keep = hi >> cut;
  let rest = (hi << p) | u64(lo != 0);
  let up = roundsUp(s, keep, rest);
  if (e < emin) {
    const tiny = !(e == emin - 1 && up && keep == (u64(1) << p) - 1);
    if (tiny) {
      if ((masks & UE) == 0) {
        flags |= UE;
        if (rest != 0) flags |= PE;
        return 0;
      }
      if (ftz) {
        flags |= UE | PE;
        return zeroOf(s, wide);
      }
    }
    const d = u64(emin - e);
    const sticky = lo != 0 || (d >= 64 ? hi != 0 : (hi << (64 - d)) != 0);
    const h = d >= 64 ? 0 : hi >> d;
    keep = h >> cut;
    rest = (h << p) | u64(sticky);
    up = roundsUp(s, keep, rest);
    if (rest != 0) flags |= tiny ? UE | PE : PE;
    return zeroOf(s, wide) | (keep + u64(up));
  }
  if (rest != 0) flags |= PE;
  keep += u64(up);
  if ((keep >> p) != 0) {
    keep >>= 1;
    e++;
  }
  if (e > bias) {
    flags |= OE;
    if ((masks & OE) == 0) return 0;
    flags |= PE;
    const toInfinity = mode == NEAREST || (s != 0 ? mode == DOWN : mode == UP);
    return infinity(s, wide) - u64(!toInfinity);
  }
  return zeroOf(s, wide) | ((u64(e + bias) << (p - 1)) + (keep - (u64(1) << (p - 1))));
}

export function add(x: u64, y: u64, subtract: bool, wide: bool): u64 {
  const kx = unpack(x, wide);
  let sx = uS, ex = uE, mx = uM;
  let denormal = uDenormal;
  const ky = unpack(y, wide);
  if (kx >= QUIET || ky >= QUIET) return nanOf(x, kx, y, ky, wide);
  let sy = uS ^ u64(subtract), ey = uE, my = uM;
  denormal = denormal || uDenormal;
  if (kx == INFINITE && ky == INFINITE && sx != sy) return invalid(wide);
  if (denormal) flags |= DE;
  if (kx == INFINITE) return infinity(sx, wide);
  if (ky == INFINITE) return infinity(sy, wide);
  if (kx == ZERO && ky == ZERO) return zeroOf(sx == sy ? sx : u64(mode == DOWN), wide);
  if (ky == ZERO) return roundPack(sx, ex, mx, 0, wide);
  if (kx == ZERO) return roundPack(sy, ey, my, 0, wide);
  if (ex < ey || (ex == ey && mx < my)) {
    const s = sx, e = ex, m = mx;
    sx = sy;
    ex = ey;
    mx = my;
    sy = s;
    ey = e;
    my = m;
  }
  const d = u64(ex - ey);
  let hi: u64, lo: u64;
  if (d == 0) {
    hi = my;
    lo = 0;
  } else if (d < 64) {
    hi = my >> d;
    lo = my << (64 - d);
  } else {
    hi = 0;
    lo = d == 64 ? my : d < 127 ? (my >> (d - 64)) | u64((my << (128 - d)) != 0) : 1;
  }
  if (sx == sy) {
    const sum = mx + hi;
    if (sum >= mx) return roundPack(sx, ex, sum, lo, wide);
    return roundPack(sx, ex + 1, (sum >> 1) | TOP, u64(lo != 0) | (sum << 63), wide);
  }
  const l = 0 - lo;
  const h = mx - hi - u64(lo != 0);
  if ((h | l) == 0) return zeroOf(u64(mode == DOWN), wide);
  if (h == 0) {
    const z = clz(l);
    return roundPack(sx, ex - 64 - i32(z), l << z, 0, wide);
  }
  const z = clz(h);
  return roundPack(sx, ex - i32(z), z == 0 ? h : (h << z) | (l >> (64 - z)), l << z, wide);
}

/** High half of a product; the low half is a * b. */
export function mulHigh(a: u64, b: u64): u64 {
  const a0 = a & 0xffffffff, a1 = a >> 32, b0 = b & 0xffffffff, b1 = b >> 32;
  const mid = a1 * b0 + ((a0 * b0) >> 32);
  const mid2 = a0 * b1 + (mid & 0xffffffff);
  return a1 * b1 + (mid >> 32) + (mid2 >> 32);
}
export function mul(x: u64, y: u64, wide: bool): u64 {
  const kx = unpack(x, wide);
  const sx = uS, ex = uE, mx = uM;
  let denormal = uDenormal;
  const ky = unpack(y, wide);
  if (kx >= QUIET || ky >= QUIET) return nanOf(x, kx, y, ky, wide);
  const s = sx ^ uS;
  denormal = denormal || uDenormal;
  if ((kx == INFINITE && ky == ZERO) || (kx == ZERO && ky == INFINITE)) return invalid(wide);
  if (denormal) flags |= DE;
  if (kx == INFINITE || ky == INFINITE) return infinity(s, wide);
  if (kx == ZERO || ky == ZERO) return zeroOf(s, wide);
  const hi = mulHigh(mx, uM), lo = mx * uM;
  if ((hi >> 63) != 0) return roundPack(s, ex + uE + 1, hi, lo, wide);
  return roundPack(s, ex + uE, (hi << 1) | (lo >> 63), lo << 1, wide);
}
export function div(x: u64, y: u64, wide: bool): u64 {
  const kx = unpack(x, wide);
  const sx = uS, ex = uE, mx = uM;
  let denormal = uDenormal;
  const ky = unpack(y, wide);
  if (kx >= QUIET || ky >= QUIET) return nanOf(x, kx, y, ky, wide);
  const s = sx ^ uS;
  denormal = denormal || uDenormal;
  if (kx == ky && kx != FINITE) return invalid(wide);
  if (kx == FINITE && ky == ZERO) {
    flags |= ZE;
    return infinity(s, wide);
  }
  if (denormal) flags |= DE;
  if (kx == INFINITE) return infinity(s, wide);
  if (ky == INFINITE || kx == ZERO) return zeroOf(s, wide);
  if (ky == ZERO) return infinity(s, wide);
  const less = mx < uM;
  const by = uM;
  const hi = less ? divide128(mx, 0, by) : divide128(mx >> 1, mx << 63, by);
  return roundPack(s, ex - uE - i32(less), hi, divideRemainder(), wide);
}
export function sqrt(x: u64, wide: bool): u64 {
  const k = unpack(x, wide);
  if (k >= QUIET) return nanOf(x, k, x, k, wide);
  if (k == ZERO) return zeroOf(uS, wide);
  if (uS != 0) return invalid(wide);
  if (uDenormal) flags |= DE;
  if (k == INFINITE) return x;
  const odd = (uE & 1) != 0;
  let nh = odd ? uM : uM >> 1, nl = odd ? 0 : uM << 63;
  // digit by digit: rem < 2 * root + 1 always
  let root: u64 = 0, rh: u64 = 0, rl: u64 = 0;
  for (let i = 0; i < 64; i++) {
    rh = (rh << 2) | (rl >> 62);
    rl = (rl << 2) | (nh >> 62);
    nh = (nh << 2) | (nl >> 62);
    nl <<= 2;
    const th = root >> 62, tl = (root << 2) | 1;
    root <<= 1;
    if (rh > th || (rh == th && rl >= tl)) {
      rh = rh - th - u64(rl < tl);
      rl -= tl;
      root |= 1;
    }
  }
  return roundPack(0, uE >> 1, root, rh | rl, wide);
}

/** Between the two formats. @param wide format of x */
export function convert(x: u64, wide: bool): u64 {
  const k = unpack(x, wide);
  if (k >= QUIET) {
    if (k == SIGNALLING) flags |= IE;
    return wide ? ((x >> 32) & 0x80000000) | 0x7fc00000 | ((x >> 29) & 0x3fffff) : ((x & 0x80000000) << 32) | 0x7ff8000000000000 | ((x & 0x3fffff) << 29);
  }
  if (uDenormal) flags |= DE;
  if (k == INFINITE) return infinity(uS, !wide);
  if (k == ZERO) return zeroOf(uS, !wide);
  return roundPack(uS, uE, uM, 0, !wide);
}
export function fromInteger(x: i64, wide: bool): u64 {
  if (x == 0) return 0;
  const s = u64(x) >> 63;
  const m = s != 0 ? 0 - u64(x) : u64(x);
  const z = clz(m);
  return roundPack(s, 63 - i32(z), m << z, 0, wide);
}
/** Whole part of |uM * 2^uE|, rounded, for exponents below 64; raises PE when something is lost. */
function whole(): u64 {
  let keep: u64 = 0, rest: u64 = 1;
  if (uE >= 0) {
    keep = uM >> u64(63 - uE);
    rest = uE == 63 ? 0 : uM << u64(uE + 1);
  } else if (uE == -1) rest = uM;
  if (rest != 0) flags |= PE;
  return keep + u64(roundsUp(uS, keep, rest));
}
/** To a signed integer of `bits`; the integer indefinite when it does not fit. */
export function toInteger(x: u64, wide: bool, bits: i32): i64 {
  const k = unpack(x, wide);
  const limit = u64(1) << u64(bits - 1);
  if (k == ZERO) return 0;
  if (k == FINITE && uE < bits) {
    const before = flags;
    const m = whole();
    if (m < limit || (m == limit && uS != 0)) return uS != 0 ? 0 - m : m;
    flags = before;
  }
  flags |= IE;
  return i64(0 - limit);
}
/** To an integral value of the same format. */
export function roundIntegral(x: u64, wide: bool): u64 {
  const k = unpack(x, wide);
  if (k >= QUIET) return nanOf(x, k, x, k, wide);
  if (k == INFINITE) return x;
  if (k == ZERO) return zeroOf(uS, wide);
  if (uE >= (wide ? 52 : 23)) return x;
  const m = whole();
  if (m == 0) return zeroOf(uS, wide);
  const z = clz(m);
  return roundPack(uS, 63 - i32(z), m << z, 0, wide);
}
/** 0 = greater, 1 = less, 2 = equal, 3 = unordered. Raises DE. */
export function relation(x: u64, y: u64, wide: bool): i32 {
  if (isNan(x, wide) || isNan(y, wide)) return 3;
  const p = operand(x, wide), q = operand(y, wide);
  const a = wide ? reinterpret<f64>(p) : f64(reinterpret<f32>(u32(p)));
  const b = wide ? reinterpret<f64>(q) : f64(reinterpret<f32>(u32(q)));
  return a > b ? 0 : a < b ? 1 : 2;
}
