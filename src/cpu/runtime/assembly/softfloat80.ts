/**
 * Double extended precision in software: operands, exceptions, rounding (Intel SDM vol. 1, chapters 4.2, 4.8, 4.9 and 8.5).
 *
 * A number is (-1)^sign * significand/2^63 * 2^(exponent - 16383), the significand with its integer bit. Operands are taken apart
 * into the globals a* and b*; a result is the pair (resultHigh = sign and exponent, resultLow = significand).
 */
import { divide128, divideRemainder } from "./arithmetic";

export const IE: u32 = 1, DE: u32 = 2, ZE: u32 = 4, OE: u32 = 8, UE: u32 = 16, PE: u32 = 32;
export const BIAS: i32 = 16383;
export const INTEGER_BIT: u64 = 1 << 63;
const QUIET_BIT: u64 = 1 << 62;
/** Added to or taken from the exponent of a result that an unmasked overflow or underflow leaves in a register. */
const WRAP: i32 = 24576;

// ---- the operation that runs ------------------------------------------------------------------------------------------------

let control: u32 = 0x37f;
/** Exceptions that the operation met. */
export let raised: u32 = 0;
/** The last rounding was away from zero: C1. */
export let roundedUp: bool = false;
export let resultHigh: u32 = 0;
export let resultLow: u64 = 0;

/** @param fcw the control word that holds for it */
export function beginOperation(fcw: u32): void {
  control = fcw;
  raised = 0;
  roundedUp = false;
}
export function raiseFlags(flags: u32): void { raised |= flags; }
export function setRaised(flags: u32): void { raised = flags; }
export function setRoundedUp(up: bool): void { roundedUp = up; }
@inline export function masked(flag: u32): bool { return (control & flag) != 0; }
/** RC: 0 nearest, 1 down, 2 up, 3 toward zero. */
@inline export function roundingMode(): u32 { return (control >> 10) & 3; }
/** Low bits of a 64-bit significand that the precision control drops. */
export function droppedBits(): u64 {
  const pc = (control >> 8) & 3;
  return pc == 0 ? 40 : pc == 2 ? 11 : 0;
}
@inline export function setResult(high: u32, low: u64): void {
  resultHigh = high;
  resultLow = low;
}
export function indefinite(): void { setResult(0xffff, 0xc000000000000000); }
/** Masked response to an invalid operation. */
export function invalid(): void {
  raised |= IE;
  indefinite();
}
export function zero(sign: u32): void { setResult(sign << 15, 0); }
export function infinity(sign: u32): void { setResult((sign << 15) | 0x7fff, INTEGER_BIT); }
export function divideByZero(sign: u32): void {
  raised |= ZE;
  infinity(sign);
}

// ---- operands -----------------------------------------------------------------------------------------------------------------

export const ZERO: i32 = 0, FINITE: i32 = 1, INFINITE: i32 = 2, QNAN: i32 = 3, SNAN: i32 = 4, UNSUPPORTED: i32 = 5;

/** Operand A: a finite one has its integer bit set, whatever its exponent then is. */
export let aSign: u32 = 0;
export let aExp: i32 = 0;
export let aSig: u64 = 0;
export let aClass: i32 = 0;
export let aDenormal: bool = false;
export let bSign: u32 = 0;
export let bExp: i32 = 0;
export let bSig: u64 = 0;
export let bClass: i32 = 0;
export let bDenormal: bool = false;

export function setA(high: u32, low: u64): void {
  aSign = (high >> 15) & 1;
  aExp = i32(high & 0x7fff);
  aSig = low;
  aDenormal = false;
  aClass = classify(aExp, low);
  if (aClass == FINITE && aExp == 0) {
    const shift = clz(low);
    aDenormal = true;
    aSig = low << shift;
    aExp = 1 - i32(shift);
  }
}
export function setB(high: u32, low: u64): void {
  bSign = (high >> 15) & 1;
  bExp = i32(high & 0x7fff);
  bSig = low;
  bDenormal = false;
  bClass = classify(bExp, low);
  if (bClass == FINITE && bExp == 0) {
    const shift = clz(low);
    bDenormal = true;
    bSig = low << shift;
    bExp = 1 - i32(shift);
  }
}
/** Operand B is a number made from another format. @param denormal it was a denormal there */
export function setConvertedB(high: u32, low: u64, denormal: bool): void {
  setB(high, low);
  bDenormal = denormal;
}
export function classify(exp: i32, low: u64): i32 {
  if (exp == 0) return low == 0 ? ZERO : FINITE;
  if ((low & INTEGER_BIT) == 0) return UNSUPPORTED;
  if (exp != 0x7fff) return FINITE;
  if (low == INTEGER_BIT) return INFINITE;
  return (low & QUIET_BIT) != 0 ? QNAN : SNAN;
}
export function swapOperands(): void {
  const sign = aSign, exp = aExp, sig = aSig, kind = aClass, denormal = aDenormal;
  aSign = bSign;
  aExp = bExp;
  aSig = bSig;
  aClass = bClass;
  aDenormal = bDenormal;
  bSign = sign;
  bExp = exp;
  bSig = sig;
  bClass = kind;
  bDenormal = denormal;
}
/** Notes denormal operands: after the checks for NaNs and invalid operations, which come first. */
export function noteDenormals(): void {
  if (aDenormal || bDenormal) raised |= DE;
}

// ---- NaNs (SDM table 4-7) -----------------------------------------------------------------------------------------------------

/** @returns whether A alone decided the result: unsupported or NaN */
export function settledByNanA(): bool {
  if (aClass < QNAN) return false;
  if (aClass == UNSUPPORTED) invalid();
  else {
    if (aClass == SNAN) raised |= IE;
    setResult((aSign << 15) | 0x7fff, aSig | QUIET_BIT);
  }
  return true;
}
/** @returns whether an unsupported operand or a NaN decided the result */
export function settledByNan(): bool {
  if (aClass < QNAN && bClass < QNAN) return false;
  if (aClass == UNSUPPORTED || bClass == UNSUPPORTED) {
    invalid();
    return true;
  }
  if (aClass == SNAN || bClass == SNAN) raised |= IE;
  let first = true;
  if (aClass < QNAN) first = false;
  else if (bClass >= QNAN) {
    // two NaNs: a quiet one before a signalling one; then the larger significand; then the positive one
    if (aClass != bClass) first = aClass == QNAN;
    else if (aSig != bSig) first = aSig > bSig;
    else first = aSign <= bSign;
  }
  if (first) setResult((aSign << 15) | 0x7fff, aSig | QUIET_BIT);
  else setResult((bSign << 15) | 0x7fff, bSig | QUIET_BIT);
  return true;
}

// ---- rounding -----------------------------------------------------------------------------------------------------------------

/** @param half the first bit that is dropped; @param rest whether a later one is set */
@inline export function roundsUp(sign: u32, odd: bool, half: bool, rest: bool): bool {
  switch (roundingMode()) {
    case 0: return half && (rest || odd);
    case 1: return sign != 0 && (half || rest);
    case 2: return sign == 0 && (half || rest);
    default: return false;
  }
}
/** high:low >> by, with every bit that falls out kept in the lowest. @param by 0 or more */
export let shiftedHigh: u64 = 0;
export let shiftedLow: u64 = 0;
export function shiftRightJam(high: u64, low: u64, by: i32): void {
  const n = u64(by);
  if (by == 0) {
    shiftedHigh = high;
    shiftedLow = low;
  } else if (by < 64) {
    shiftedHigh = high >> n;
    shiftedLow = (high << (64 - n)) | (low >> n) | u64(low << (64 - n) != 0);
  } else if (by < 128) {
    const lost = by == 64 ? low : low | (high << (128 - n));
    shiftedHigh = 0;
    shiftedLow = (by == 64 ? high : high >> (n - 64)) | u64(lost != 0);
  } else {
    shiftedHigh = 0;
    shiftedLow = u64((high | low) != 0);
  }
}
/** Results of `cut`. */
export let kept: u64 = 0;
export let inexact: bool = false;
export let up: bool = false;
/** Rounds high:low to a significand without its `dropped` low bits. `kept` is 0 when it grew to 2^64. */
export function cut(sign: u32, high: u64, low: u64, dropped: u64): void {
  let half: bool, rest: bool;
  const unit = u64(1) << dropped;
  if (dropped == 0) {
    half = low >> 63 != 0;
    rest = low << 1 != 0;
  } else {
    half = ((high >> (dropped - 1)) & 1) != 0;
    rest = (high & ((unit >> 1) - 1)) != 0 || low != 0;
  }
  inexact = half || rest;
  kept = high & ~(unit - 1);
  up = roundsUp(sign, (high & unit) != 0, half, rest);
  if (up) kept += unit;
}
/**
 * Makes the result from a significand of 128 bits whose highest is set (or is 0), at the exponent of its high half.
 * @param dropped bits of a 64-bit significand that the precision control takes away
 */
export function roundPack(sign: u32, exp: i32, high: u64, low: u64, dropped: u64): void {
  const s = sign << 15;
  if (high == 0) {
    setResult(s, 0);
    return;
  }
  let e = exp;
  cut(sign, high, low, dropped);
  if (e <= 0) {
    // tiny unless rounding without a lower bound of the exponent reaches the smallest normal number
    const tiny = e < 0 || kept != 0;
    if (tiny && !masked(UE)) {
      raised |= UE;
      e += WRAP;
      if (e <= 0) {
        // massive underflow (FSCALE): not even the adjusted exponent will do
        raised |= PE;
        setResult(s, 0);
        return;
      }
    } else {
      shiftRightJam(high, low, 1 - e);
      cut(sign, shiftedHigh, shiftedLow, dropped);
      if (inexact) {
        raised |= tiny ? UE | PE : PE;
        roundedUp = up;
      }
      setResult(s | u32(kept >> 63), kept);
      return;
    }
  }
  if (kept == 0) {
    kept = INTEGER_BIT;
    e++;
  }
  if (e >= 0x7fff) {
    raised |= OE;
    if (masked(OE)) {
      raised |= PE;
      const mode = roundingMode();
      roundedUp = mode == 0 || mode == 2 - u32(sign);
      if (roundedUp) infinity(sign);
      else setResult(s | 0x7ffe, u64.MAX_VALUE << dropped);
      return;
    }
    e -= WRAP;
    if (e >= 0x7fff) {
      raised |= PE;
      roundedUp = true;
      infinity(sign);
      return;
    }
  }
  if (inexact) {
    raised |= PE;
    roundedUp = up;
  }
  setResult(s | u32(e), kept);
}
/** The same for a significand that may have leading zeros. */
export function normalizeRoundPack(sign: u32, exp: i32, high: u64, low: u64, dropped: u64): void {
  if (high == 0) {
    if (low == 0) {
      setResult(sign << 15, 0);
      return;
    }
    const n = clz(low);
    roundPack(sign, exp - 64 - i32(n), low << n, 0, dropped);
    return;
  }
  const n = clz(high);
  if (n == 0) roundPack(sign, exp, high, low, dropped);
  else roundPack(sign, exp - i32(n), (high << n) | (low >> (64 - n)), low << n, dropped);
}

// ---- integers of 128 bits -------------------------------------------------------------------------------------------------------

export let productLow: u64 = 0;
/** @returns the high half of a * b */
export function multiply64(a: u64, b: u64): u64 {
  const al = a & 0xffffffff, ah = a >> 32, bl = b & 0xffffffff, bh = b >> 32;
  const ll = al * bl, lh = al * bh, hl = ah * bl;
  const middle = (ll >> 32) + (lh & 0xffffffff) + (hl & 0xffffffff);
  productLow = (middle << 32) | (ll & 0xffffffff);
  return ah * bh + (lh >> 32) + (hl >> 32) + (middle >> 32);
}
export let quotientLow: u64 = 0;
/** a / b as a quotient of 128 bits with the highest set, for a and b with their highest set. @returns its high half; its exponent is that of a - b, less one if a < b */
export function divideSignificands(a: u64, b: u64): u64 {
  const high = a >= b ? divide128(a >> 1, a << 63, b) : divide128(a, 0, b);
  quotientLow = divide128(divideRemainder(), 0, b);
  if (divideRemainder() != 0) quotientLow |= 1;
  return high;
}
