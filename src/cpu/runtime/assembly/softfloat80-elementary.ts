/**
 * The elementary functions of finite, non-zero operands, to about 120 bits before the one rounding: results are correctly rounded
 * but for arguments that nobody has found yet. Taylor series after exact reductions of the argument; tables are in softfloat80-wide.ts.
 */
import { aExp, aSig, aSign, bExp, bSig, bSign, BIAS, INTEGER_BIT, roundPack, shiftedHigh, shiftedLow } from "./softfloat80";
import {
  ARC_TANGENTS, FACTORIALS, LN2_HIGH, LN2_LOW, LOG2E_HIGH, LOG2E_LOW, ODDS, PI_HIGH, PI_LOW, series, seriesHigh, seriesLow, setWide, square,
  squareHigh, squareLow, toFixed, wideAdd, wideDivide, wideExp, wideHigh, wideLow, wideMultiply, wideSubtract,
} from "./softfloat80-wide";

/** Rounds the wide number; one that is not exact gets a bit below all others. */
function finish(sign: u32, exact: bool): void {
  roundPack(sign, wideExp - 1 + BIAS, wideHigh, exact ? wideLow : wideLow | 1, 0);
}
/** Multiplies the wide number by 1 - series, kept below 1. */
function timesOneMinusSeries(high: u64, low: u64, exp: i32): void {
  let h = 0 - seriesHigh - u64(seriesLow != 0), l = 0 - seriesLow;
  if ((h | l) == 0) h = l = u64.MAX_VALUE;
  wideMultiply(high, low, exp, h, l, 0);
}

// ---- trigonometric functions --------------------------------------------------------------------------------------------------

/** pi/2 with 66 bits, in units of 2^-65: the period that the processor has (Intel SDM vol. 1, chapter 8.3.8). */
const HALF_PI_HIGH: u64 = 3, HALF_PI_LOW: u64 = 0x243f6a8885a308d3;

/** |A| = quadrant * pi/2 +- rest, the rest in [0, pi/4]. */
let quadrant: u32 = 0;
let restNegative: u32 = 0;
let restHigh: u64 = 0;
let restLow: u64 = 0;
let restExp: i32 = 0;
function reduce(): void {
  const e = aExp - BIAS;
  quadrant = 0;
  restNegative = 0;
  if (e < -1) {
    restHigh = aSig;
    restLow = 0;
    restExp = e + 1;
    return;
  }
  const shift = u64(e + 2);
  let high = shift == 64 ? aSig : aSig >> (64 - shift), low = shift == 64 ? 0 : aSig << shift;
  let q: u64 = 0;
  for (let k: u64 = u64(max(e, 0)); i64(k) >= 0; k--) {
    const ph = k == 0 ? HALF_PI_HIGH : (HALF_PI_HIGH << k) | (HALF_PI_LOW >> (64 - k)), pl = HALF_PI_LOW << k;
    q <<= 1;
    if (high > ph || (high == ph && low >= pl)) {
      high = high - ph - u64(low < pl);
      low -= pl;
      q |= 1;
    }
  }
  // past the middle: the next multiple is nearer (the period is odd, so there is no tie)
  const twice = (high << 1) | (low >> 63);
  if (twice > HALF_PI_HIGH || (twice == HALF_PI_HIGH && low << 1 > HALF_PI_LOW)) {
    high = HALF_PI_HIGH - high - u64(HALF_PI_LOW < low);
    low = HALF_PI_LOW - low;
    q++;
    restNegative = 1;
  }
  quadrant = u32(q) & 3;
  setWide(high, low, 63);
  restHigh = wideHigh;
  restLow = wideLow;
  restExp = wideExp;
}
function squareOfRest(): void {
  toFixed(restHigh, restLow, restExp);
  square(shiftedHigh, shiftedLow);
}
function sineOfRest(): void {
  squareOfRest();
  series(FACTORIALS, 1, 2, 16, squareHigh, squareLow, true);
  timesOneMinusSeries(restHigh, restLow, restExp);
}
function cosineOfRest(): void {
  squareOfRest();
  series(FACTORIALS, 0, 2, 17, squareHigh, squareLow, true);
  timesOneMinusSeries(INTEGER_BIT, 0, 1);
}
export function sine(): void {
  reduce();
  if ((quadrant & 1) != 0) {
    cosineOfRest();
    finish(aSign ^ (quadrant >> 1), false);
  } else {
    sineOfRest();
    finish(aSign ^ (quadrant >> 1) ^ restNegative, false);
  }
}
export function cosine(): void {
  reduce();
  if ((quadrant & 1) != 0) {
    sineOfRest();
    finish(1 ^ (quadrant >> 1) ^ restNegative, false);
  } else {
    cosineOfRest();
    finish(quadrant >> 1, false);
  }
}
export function tangent(): void {
  reduce();
  const sign = aSign ^ restNegative ^ (quadrant & 1);
  if (restExp < -64) {
    // x + x^3/3 is x and a little
    setWide(restHigh, restLow, restExp);
    finish(sign, false);
    return;
  }
  sineOfRest();
  const h = wideHigh, l = wideLow, x = wideExp;
  cosineOfRest();
  if ((quadrant & 1) != 0) wideDivide(wideHigh, wideLow, wideExp, h, l, x);
  else wideDivide(h, l, x, wideHigh, wideLow, wideExp);
  finish(sign, false);
}

/** Turns the wide number, an angle in [0, pi/2], into that of (|B| or B, A) and rounds it: A = y, B = x. */
function finishAngle(): void {
  if (bSign != 0) wideSubtract(PI_HIGH, PI_LOW, 2, wideHigh, wideLow, wideExp);
  finish(aSign, false);
}
/** The angle of multiples of pi/4 that limits have: `eighths` of a turn. */
export function angleOfEighths(sign: u32, eighths: i32): void {
  if (eighths == 3) wideAdd(PI_HIGH, PI_LOW, 1, PI_HIGH, PI_LOW, 0);
  else setWide(PI_HIGH, PI_LOW, eighths == 4 ? 2 : eighths - 1);
  finish(sign, false);
}
/** The angle of the point (B, A). */
export function arcTangent(): void {
  const steep = aExp > bExp || (aExp == bExp && aSig > bSig);
  if (aExp == bExp && aSig == bSig) setWide(PI_HIGH, PI_LOW, 0);
  else {
    if (steep) wideDivide(bSig, 0, bExp, aSig, 0, aExp);
    else wideDivide(aSig, 0, aExp, bSig, 0, bExp);
    let h = wideHigh, l = wideLow, x = wideExp;
    // nearest eighth c: atan t = atan c + atan((t - c) / (1 + t * c))
    toFixed(h, l, x);
    const th = shiftedHigh, tl = shiftedLow;
    const c = ((th >> 60) + 1) >> 1;
    let below: bool = false;
    if (c != 0) {
      const base = c << 61;
      below = c == 8 || th < base;
      let nh = th - base, nl = tl;
      if (below) {
        nh = 0 - nh - u64(nl != 0);
        nl = 0 - nl;
      }
      const dl = ((tl >> 4) | (th << 60)) * c;
      const dh = (th >> 4) * c + highProduct((tl >> 4) | (th << 60), c);
      setWide(nh, nl, 0);
      if (wideHigh != 0) wideDivide(wideHigh, wideLow, wideExp, INTEGER_BIT + dh, dl, 1);
      h = wideHigh;
      l = wideLow;
      x = wideExp;
    }
    if (h != 0) {
      toFixed(h, l, x);
      square(shiftedHigh, shiftedLow);
      series(ODDS, 0, 1, 18, squareHigh, squareLow, true);
      timesOneMinusSeries(h, l, x);
    }
    if (c != 0) {
      const at = ARC_TANGENTS + (usize(c - 1) << 4);
      const exp = c == 1 ? -3 : c == 2 ? -2 : c < 5 ? -1 : 0;
      if (wideHigh == 0) setWide(load<u64>(at), load<u64>(at, 8), exp);
      else if (below) wideSubtract(load<u64>(at), load<u64>(at, 8), exp, wideHigh, wideLow, wideExp);
      else wideAdd(load<u64>(at), load<u64>(at, 8), exp, wideHigh, wideLow, wideExp);
    }
    if (steep) wideSubtract(PI_HIGH, PI_LOW, 1, wideHigh, wideLow, wideExp);
  }
  finishAngle();
}
/** High half of a product with a small number. */
@inline function highProduct(a: u64, small: u64): u64 { return ((a >> 32) * small + (((a & 0xffffffff) * small) >> 32)) >> 32; }

// ---- exponential and logarithm ------------------------------------------------------------------------------------------------

/** 2^A - 1 for |A| < 1. */
export function exponentialMinusOne(): void {
  wideMultiply(aSig, 0, aExp - BIAS + 1, LN2_HIGH, LN2_LOW, 0);
  // above a half: of half the exponent, (1 + t)^2 - 1 = t * (2 + t)
  const halved = aExp >= BIAS - 1;
  const h = wideHigh, l = wideLow, x = halved ? wideExp - 1 : wideExp;
  toFixed(h, l, x);
  series(FACTORIALS, 0, 1, 27, shiftedHigh, shiftedLow, aSign != 0);
  if (aSign != 0) timesOneMinusSeries(h, l, x);
  else wideMultiply(h, l, x, INTEGER_BIT | (seriesHigh >> 1), (seriesHigh << 63) | (seriesLow >> 1), 1);
  if (halved) {
    const th = wideHigh, tl = wideLow, tx = wideExp;
    if (aSign != 0) wideSubtract(INTEGER_BIT, 0, 2, th, tl, tx);
    else wideAdd(INTEGER_BIT, 0, 2, th, tl, tx);
    wideMultiply(wideHigh, wideLow, wideExp, th, tl, tx);
  }
  finish(aSign, false);
}

let logSign: u32 = 0;
/** The wide number s to log2((1 + s) / (1 - s)) = 2 / ln 2 * (s + s^3/3 + ...), for s below 0.18. */
function logarithmOfRatio(): void {
  const h = wideHigh, l = wideLow, x = wideExp;
  toFixed(h, l, x);
  square(shiftedHigh, shiftedLow);
  series(ODDS, 0, 1, 23, squareHigh, squareLow, false);
  wideMultiply(h, l, x, INTEGER_BIT | (seriesHigh >> 1), (seriesHigh << 63) | (seriesLow >> 1), 1);
  wideMultiply(wideHigh, wideLow, wideExp, LOG2E_HIGH, LOG2E_LOW, 2);
}
/** log2 of a positive wide number, to the wide number and logSign. @returns whether it is exact */
function logarithm(high: u64, low: u64, exp: i32): bool {
  let e = exp - 1;
  let nh: u64, nl: u64;
  if (high > 0xb504f333f9de6484) {
    // m in (0.7, 1)
    e++;
    logSign = 1;
    nh = 0 - high - u64(low != 0);
    nl = 0 - low;
    setWide(nh, nl, 0);
    wideDivide(wideHigh, wideLow, wideExp, INTEGER_BIT | (high >> 1), (high << 63) | (low >> 1), 1);
  } else {
    logSign = 0;
    setWide(high - INTEGER_BIT, low, 1);
    if (wideHigh == 0) {
      // a power of two
      logSign = u32(e < 0);
      setWide(u64(e < 0 ? 0 - e : e), 0, 64);
      return true;
    }
    wideDivide(wideHigh, wideLow, wideExp, (high >> 1) + (u64(1) << 62), (high << 63) | (low >> 1), 2);
  }
  logarithmOfRatio();
  if (e != 0) {
    const h = wideHigh, l = wideLow, x = wideExp;
    setWide(u64(e < 0 ? 0 - e : e), 0, 64);
    const sign = u32(e < 0);
    if (sign == logSign) wideAdd(wideHigh, wideLow, wideExp, h, l, x);
    else wideSubtract(wideHigh, wideLow, wideExp, h, l, x);
    logSign = sign;
  }
  return false;
}
/** The wide number, a logarithm, times B. */
function finishLogarithm(exact: bool): void {
  if (wideHigh == 0) {
    roundPack(bSign, 0, 0, 0, 0);
    return;
  }
  wideMultiply(wideHigh, wideLow, wideExp, bSig, 0, bExp - BIAS + 1);
  finish(logSign ^ bSign, exact);
}
/** B * log2(A) for A > 0. */
export function logarithmTimes(): void {
  finishLogarithm(logarithm(aSig, 0, aExp - BIAS + 1));
}
/** B * log2(1 + A) for A > -1. */
export function logarithmPlusOneTimes(): void {
  const exp = aExp - BIAS + 1;
  if (aExp < BIAS - 2) {
    // below a quarter: s = A / (2 + A)
    if (aSign != 0) wideSubtract(INTEGER_BIT, 0, 2, aSig, 0, exp);
    else wideAdd(INTEGER_BIT, 0, 2, aSig, 0, exp);
    wideDivide(aSig, 0, exp, wideHigh, wideLow, wideExp);
    logarithmOfRatio();
    logSign = aSign;
    finishLogarithm(false);
    return;
  }
  if (aSign != 0) wideSubtract(INTEGER_BIT, 0, 1, aSig, 0, exp);
  else wideAdd(INTEGER_BIT, 0, 1, aSig, 0, exp);
  finishLogarithm(logarithm(wideHigh, wideLow, wideExp));
}
