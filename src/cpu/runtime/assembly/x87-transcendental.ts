/** F2XM1, FYL2X, FYL2XP1, FPTAN, FPATAN, FSIN, FCOS, FSINCOS: their special operands and the stack (Intel SDM vol. 2, the tables of each). */
import {
  aClass, aDenormal, aExp, aSig, aSign, bClass, bSign, BIAS, DE, divideByZero, FINITE, INFINITE, infinity, INTEGER_BIT, invalid,
  noteDenormals, PE, raiseFlags, resultHigh, resultLow, setResult, settledByNan, settledByNanA, zero, ZERO,
} from "./softfloat80";
import {
  angleOfEighths, arcTangent, cosine, exponentialMinusOne, logarithmPlusOneTimes, logarithmTimes, sine, tangent,
} from "./softfloat80-elementary";
import { C1, C2, isEmpty, loadA, loadB, pop, push, put, setConditions, settle, settleTo, stackFault, underflowTo } from "./x87-stack";

/** @param which the opcode's low bits: F0 is 0, FF is 15 */
export function transcendental(which: i32): void {
  switch (which) {
    case 0: return powerMinusOne();
    case 1:
    case 3:
    case 9: return ofTwo(which);
    case 2:
    case 11: return ofAnglePushing(which == 2);
    default: return ofAngle(which == 14);
  }
}

/** F2XM1. Outside of [-1, 1] the result is not defined; the operand stays. */
function powerMinusOne(): void {
  if (isEmpty(0)) {
    underflowTo(0);
    return;
  }
  loadA(0);
  if (!settledByNanA()) {
    if (aClass == ZERO) zero(aSign);
    else if (aClass == INFINITE) {
      if (aSign == 0) infinity(0);
      else setResult(0xbfff, INTEGER_BIT);
    } else {
      if (aDenormal) raiseFlags(DE);
      if (aExp < BIAS) exponentialMinusOne();
      else if (aExp == BIAS && aSig == INTEGER_BIT) setResult(aSign != 0 ? 0xbffe : 0x3fff, INTEGER_BIT);
      else {
        raiseFlags(PE);
        setResult((aSign << 15) | u32(aExp), aSig);
      }
    }
  }
  settleTo(0);
}

/** FYL2X, FPATAN, FYL2XP1: the result replaces ST(1), and ST(0) is popped. */
function ofTwo(which: i32): void {
  if (isEmpty(0) || isEmpty(1)) {
    if (underflowTo(1)) pop();
    return;
  }
  if (which == 3) {
    loadA(1);
    loadB(0);
    if (!settledByNan()) angle();
  } else {
    loadA(0);
    loadB(1);
    if (!settledByNan()) {
      if (which == 1) logarithm();
      else logarithmPlusOne();
    }
  }
  if (settleTo(1)) pop();
}
/** The angle of the point (B, A). */
function angle(): void {
  noteDenormals();
  if (aClass == INFINITE) angleOfEighths(aSign, bClass != INFINITE ? 2 : bSign != 0 ? 3 : 1);
  else if (bClass == INFINITE || aClass == ZERO) {
    if (bSign == 0) zero(aSign);
    else angleOfEighths(aSign, 4);
  } else if (bClass == ZERO) angleOfEighths(aSign, 2);
  else arcTangent();
}
/** B * log2(A) */
function logarithm(): void {
  if (aClass == ZERO) {
    if (bClass == ZERO) invalid();
    else if (bClass == INFINITE) infinity(bSign ^ 1);
    else divideByZero(bSign ^ 1);
    return;
  }
  if (aSign != 0) {
    invalid();
    return;
  }
  const one = aClass == FINITE && aExp == BIAS && aSig == INTEGER_BIT;
  if (bClass == INFINITE ? one : aClass == INFINITE && bClass == ZERO) {
    invalid();
    return;
  }
  noteDenormals();
  const negative = u32(aClass == FINITE && aExp < BIAS);
  if (aClass == INFINITE || bClass == INFINITE) infinity(bSign ^ negative);
  else if (bClass == ZERO) zero(bSign ^ negative);
  else logarithmTimes();
}
/** B * log2(1 + A). Below -1 + sqrt(1/2) and above sqrt(2) - 1 the manual promises nothing; the function goes on to -1 all the same. */
function logarithmPlusOne(): void {
  const bad = aClass == INFINITE ? aSign != 0 || bClass == ZERO : aClass == ZERO ? bClass == INFINITE : aSign != 0 && aExp >= BIAS;
  if (bad) {
    invalid();
    return;
  }
  noteDenormals();
  const sign = aSign ^ bSign;
  if (aClass == INFINITE || bClass == INFINITE) infinity(sign);
  else if (aClass == ZERO || bClass == ZERO) zero(sign);
  else logarithmPlusOneTimes();
}

/** Above 2^63 the trigonometric functions only set C2. */
@inline function outOfRange(): bool { return aClass == FINITE && aExp >= BIAS + 63; }
function sineOfA(): void {
  if (aClass == ZERO) zero(aSign);
  else sine();
}
function cosineOfA(): void {
  if (aClass == ZERO) setResult(0x3fff, INTEGER_BIT);
  else cosine();
}
/** FSIN, FCOS. */
function ofAngle(isSine: bool): void {
  if (isEmpty(0)) {
    underflowTo(0);
    setConditions(C2, 0);
    return;
  }
  loadA(0);
  if (outOfRange()) {
    setConditions(C1 | C2, C2);
    return;
  }
  if (!settledByNanA()) {
    if (aClass == INFINITE) invalid();
    else {
      if (aDenormal) raiseFlags(DE);
      if (isSine) sineOfA();
      else cosineOfA();
    }
  }
  settleTo(0);
  setConditions(C2, 0);
}
/** FPTAN, FSINCOS: the tangent and 1, or the sine and the cosine. */
function ofAnglePushing(isTangent: bool): void {
  const empty = isEmpty(0);
  if (empty || !isEmpty(7)) {
    if (stackFault(!empty)) {
      put(0, 0xffff, 0xc000000000000000);
      push(0xffff, 0xc000000000000000);
    }
    setConditions(C2, 0);
    return;
  }
  loadA(0);
  if (outOfRange()) {
    setConditions(C1 | C2, C2);
    return;
  }
  let high: u32, low: u64;
  if (settledByNanA() || aClass == INFINITE) {
    if (aClass == INFINITE) invalid();
    high = resultHigh;
    low = resultLow;
  } else {
    if (aDenormal) raiseFlags(DE);
    if (isTangent) {
      if (aClass == ZERO) zero(aSign);
      else tangent();
    } else sineOfA();
    high = resultHigh;
    low = resultLow;
    if (isTangent) setResult(0x3fff, INTEGER_BIT);
    else cosineOfA();
  }
  if (settle(false)) {
    put(0, high, low);
    push(resultHigh, resultLow);
  }
  setConditions(C2, 0);
}
