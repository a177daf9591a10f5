/** Sum, product, quotient, root, remainder, rounding to an integer, scaling: each on the operands A and B of softfloat80.ts, to its result. */
import { divide128, divideRemainder } from "./arithmetic";
import {
  aClass, aDenormal, aExp, aSig, aSign, bClass, bExp, bSig, bSign, BIAS, DE, divideByZero, divideSignificands, droppedBits, IE,
  INFINITE, infinity, INTEGER_BIT, invalid, multiply64, normalizeRoundPack, noteDenormals, PE, productLow, QNAN, quotientLow, raiseFlags,
  roundingMode, roundPack, roundsUp, setResult, setRoundedUp, settledByNan, settledByNanA, shiftedHigh, shiftedLow, shiftRightJam,
  zero, ZERO, ZE,
} from "./softfloat80";

/** A + B, or A - B. */
export function add(subtract: bool): void {
  if (settledByNan()) return;
  const sign = aSign;
  const other = bSign ^ u32(subtract);
  if (aClass == INFINITE || bClass == INFINITE) {
    if (aClass == INFINITE && bClass == INFINITE && sign != other) {
      invalid();
      return;
    }
    noteDenormals();
    infinity(aClass == INFINITE ? sign : other);
    return;
  }
  noteDenormals();
  if (aClass == ZERO && bClass == ZERO) {
    zero(sign == other ? sign : u32(roundingMode() == 1));
    return;
  }
  if (bClass == ZERO) {
    roundPack(sign, aExp, aSig, 0, droppedBits());
    return;
  }
  if (aClass == ZERO) {
    roundPack(other, bExp, bSig, 0, droppedBits());
    return;
  }
  let bigSign = sign, bigExp = aExp, big = aSig, smallExp = bExp, small = bSig;
  if (bExp > aExp || (bExp == aExp && bSig > aSig)) {
    bigSign = other;
    bigExp = bExp;
    big = bSig;
    smallExp = aExp;
    small = aSig;
  }
  shiftRightJam(small, 0, bigExp - smallExp);
  if (sign == other) {
    const sum = big + shiftedHigh;
    if (sum < big) roundPack(bigSign, bigExp + 1, (sum >> 1) | INTEGER_BIT, (sum << 63) | (shiftedLow >> 1) | (shiftedLow & 1), droppedBits());
    else roundPack(bigSign, bigExp, sum, shiftedLow, droppedBits());
    return;
  }
  const high = big - shiftedHigh - u64(shiftedLow != 0);
  const low = 0 - shiftedLow;
  if ((high | low) == 0) zero(u32(roundingMode() == 1));
  else normalizeRoundPack(bigSign, bigExp, high, low, droppedBits());
}

export function multiply(): void {
  if (settledByNan()) return;
  const sign = aSign ^ bSign;
  if (aClass == INFINITE || bClass == INFINITE) {
    if (aClass == ZERO || bClass == ZERO) {
      invalid();
      return;
    }
    noteDenormals();
    infinity(sign);
    return;
  }
  noteDenormals();
  if (aClass == ZERO || bClass == ZERO) {
    zero(sign);
    return;
  }
  const high = multiply64(aSig, bSig);
  normalizeRoundPack(sign, aExp + bExp - BIAS + 1, high, productLow, droppedBits());
}

/** A / B */
export function divide(): void {
  if (settledByNan()) return;
  const sign = aSign ^ bSign;
  if (aClass == INFINITE) {
    if (bClass == INFINITE) {
      invalid();
      return;
    }
    noteDenormals();
    infinity(sign);
    return;
  }
  if (bClass == ZERO) {
    if (aClass == ZERO) invalid();
    else divideByZero(sign);
    return;
  }
  noteDenormals();
  if (bClass == INFINITE || aClass == ZERO) {
    zero(sign);
    return;
  }
  const high = divideSignificands(aSig, bSig);
  roundPack(sign, aExp - bExp + BIAS - i32(aSig < bSig), high, quotientLow, droppedBits());
}

export function squareRoot(): void {
  if (settledByNanA()) return;
  if (aClass == ZERO) {
    zero(aSign);
    return;
  }
  if (aSign != 0) {
    invalid();
    return;
  }
  if (aClass == INFINITE) {
    infinity(0);
    return;
  }
  if (aDenormal) raiseFlags(DE);
  // the root of high:low * 2^128, bit by bit: 64 bits, then a rounding bit and what is left
  const e = aExp - BIAS;
  const odd = (e & 1) != 0;
  let high: u64 = odd ? aSig : aSig >> 1;
  let low: u64 = odd ? 0 : aSig << 63;
  let root: u64 = 0;
  let restHigh: u64 = 0, rest: u64 = 0;
  let last: u64 = 0;
  for (let i = 0; i < 65; i++) {
    restHigh = (restHigh << 2) | (rest >> 62);
    rest = (rest << 2) | (high >> 62);
    high = (high << 2) | (low >> 62);
    low <<= 2;
    // rest >= 4 * root + 1 ?
    const tryHigh = root >> 62, tryLow = (root << 2) | 1;
    const fits = restHigh > tryHigh || (restHigh == tryHigh && rest >= tryLow);
    if (fits) {
      restHigh = restHigh - tryHigh - u64(rest < tryLow);
      rest -= tryLow;
    }
    if (i == 64) last = u64(fits);
    else root = (root << 1) | u64(fits);
  }
  roundPack(0, (e >> 1) + BIAS, root, (last << 63) | u64((rest | restHigh) != 0), droppedBits());
}

/** Low three bits of the quotient of the last `remainder`; whether it was only a partial one (C2). */
export let remainderQuotient: u32 = 0;
export let partial: bool = false;
/** A rem B: by truncation (FPREM) or by rounding to nearest (FPREM1). */
export function remainder(nearest: bool): void {
  remainderQuotient = 0;
  partial = false;
  if (settledByNan()) return;
  if (aClass == INFINITE || bClass == ZERO) {
    invalid();
    return;
  }
  noteDenormals();
  if (aClass == ZERO) {
    zero(aSign);
    return;
  }
  if (bClass == INFINITE) {
    roundPack(aSign, aExp, aSig, 0, 0);
    return;
  }
  let sign = aSign;
  const apart = aExp - bExp;
  if (apart < -1 || (apart == -1 && !nearest)) {
    roundPack(sign, aExp, aSig, 0, 0);
    return;
  }
  if (apart >= 64) {
    // as many bits as fit, so that what is left to do is a multiple of 32
    const n = u64((apart & 31) | 32);
    divide128(aSig >> (64 - n), aSig << n, bSig);
    partial = true;
    normalizeRoundPack(sign, aExp - i32(n), divideRemainder(), 0, 0);
    return;
  }
  if (apart < 0) {
    // FPREM1 with |A| < |B|: past the half when 2A > B; at the half the quotient 0 is the even one
    if (aSig <= bSig) roundPack(sign, aExp, aSig, 0, 0);
    else {
      remainderQuotient = 1;
      normalizeRoundPack(sign ^ 1, aExp, (bSig << 1) - aSig, 0, 0);
    }
    return;
  }
  let q: u64, rest: u64;
  if (apart == 0) {
    q = u64(aSig >= bSig);
    rest = q != 0 ? aSig - bSig : aSig;
  } else {
    q = divide128(aSig >> u64(64 - apart), aSig << u64(apart), bSig);
    rest = divideRemainder();
  }
  if (nearest) {
    const other = bSig - rest;
    if (rest > other || (rest == other && (q & 1) != 0)) {
      rest = other;
      q++;
      sign ^= 1;
    }
  }
  remainderQuotient = u32(q) & 7;
  if (rest == 0) zero(aSign);
  else normalizeRoundPack(sign, bExp, rest, 0, 0);
}

/** A rounded to an integer by the rounding mode. */
export function roundToInteger(): void {
  if (settledByNanA()) return;
  if (aClass == ZERO) {
    zero(aSign);
    return;
  }
  if (aClass == INFINITE) {
    infinity(aSign);
    return;
  }
  if (aDenormal) raiseFlags(DE);
  const e = aExp - BIAS;
  if (e >= 63) {
    setResult((aSign << 15) | u32(aExp), aSig);
    return;
  }
  shiftRightJam(aSig, 0, 63 - e);
  let whole = shiftedHigh;
  if (shiftedLow != 0) {
    raiseFlags(PE);
    const up = roundsUp(aSign, (whole & 1) != 0, shiftedLow >> 63 != 0, shiftedLow << 1 != 0);
    setRoundedUp(up);
    if (up) whole++;
  }
  if (whole == 0) zero(aSign);
  else {
    const n = clz(whole);
    setResult((aSign << 15) | u32(BIAS + 63 - i32(n)), whole << n);
  }
}

/** A * 2^trunc(B) */
export function scale(): void {
  if (settledByNan()) return;
  if (bClass == INFINITE) {
    if (bSign == 0 ? aClass == ZERO : aClass == INFINITE) {
      invalid();
      return;
    }
    noteDenormals();
    if (bSign == 0) infinity(aSign);
    else zero(aSign);
    return;
  }
  noteDenormals();
  if (aClass == ZERO) {
    zero(aSign);
    return;
  }
  if (aClass == INFINITE) {
    infinity(aSign);
    return;
  }
  if (bClass == ZERO) {
    roundPack(aSign, aExp, aSig, 0, 0);
    return;
  }
  const e = bExp - BIAS;
  const n = e < 0 ? 0 : e > 16 ? 0x20000 : i32(bSig >> u64(63 - e));
  roundPack(aSign, aExp + (bSign != 0 ? 0 - n : n), aSig, 0, 0);
}

/** A = significand * 2^exponent: gives the significand in [1, 2), and the exponent as the second result. */
export let exponentHigh: u32 = 0;
export let exponentLow: u64 = 0;
export function extract(): void {
  if (settledByNanA()) {
    exponentHigh = 0;
    return;
  }
  if (aClass == INFINITE) {
    infinity(aSign);
    exponentHigh = 0x7fff;
    exponentLow = INTEGER_BIT;
    return;
  }
  if (aClass == ZERO) {
    raiseFlags(ZE);
    zero(aSign);
    exponentHigh = 0xffff;
    exponentLow = INTEGER_BIT;
    return;
  }
  if (aDenormal) raiseFlags(DE);
  setResult((aSign << 15) | u32(BIAS), aSig);
  const e = aExp - BIAS;
  if (e == 0) {
    exponentHigh = 0;
    exponentLow = 0;
  } else {
    const magnitude = u64(e < 0 ? 0 - e : e);
    const n = clz(magnitude);
    exponentHigh = (e < 0 ? 0x8000 : 0) | u32(BIAS + 63 - i32(n));
    exponentLow = magnitude << n;
  }
}

// ---- comparison -----------------------------------------------------------------------------------------------------------------

export const LESS: i32 = 0, EQUAL: i32 = 1, GREATER: i32 = 2, UNORDERED: i32 = 3;
/** A against B. @param quiet a quiet NaN is not an invalid operand (FUCOM) */
export function compare(quiet: bool): i32 {
  if (aClass >= QNAN || bClass >= QNAN) {
    if (!quiet || aClass > QNAN || bClass > QNAN) raiseFlags(IE);
    return UNORDERED;
  }
  noteDenormals();
  if (aClass == ZERO && bClass == ZERO) return EQUAL;
  if (aClass == ZERO) return bSign != 0 ? GREATER : LESS;
  if (bClass == ZERO) return aSign != 0 ? LESS : GREATER;
  if (aSign != bSign) return aSign != 0 ? LESS : GREATER;
  if (aExp == bExp && aSig == bSig) return EQUAL;
  const smaller = aExp < bExp || (aExp == bExp && aSig < bSig);
  return smaller == (aSign == 0) ? LESS : GREATER;
}
