/** Between double extended precision and the formats of memory: single, double, integers, packed BCD. */
import {
  aClass, aExp, aSig, aSign, BIAS, cut, IE, inexact, INFINITE, INTEGER_BIT, kept, masked, OE, PE, QNAN, raiseFlags, roundingMode,
  roundsUp, setRaised, setRoundedUp, shiftedHigh, shiftedLow, shiftRightJam, SNAN, UE, UNSUPPORTED, up, ZERO,
} from "./softfloat80";

/** What a number in memory is in double extended precision; NaNs are not quieted. */
export let convertedHigh: u32 = 0;
export let convertedLow: u64 = 0;
/** It was a denormal of its format. */
export let convertedDenormal: bool = false;

@inline function converted(high: u32, low: u64, denormal: bool): void {
  convertedHigh = high;
  convertedLow = low;
  convertedDenormal = denormal;
}
/** @param fractionBits 23 or 52 */
function fromFloat(sign: u32, exp: i32, fraction: u64, fractionBits: i32, maxExp: i32): void {
  const s = sign << 15;
  const aligned = fraction << u64(63 - fractionBits);
  if (exp == maxExp) converted(s | 0x7fff, INTEGER_BIT | aligned, false);
  else if (exp != 0) converted(s | u32(exp - (maxExp >> 1) + BIAS), INTEGER_BIT | aligned, false);
  else if (fraction == 0) converted(s, 0, false);
  else {
    const n = clz(aligned);
    converted(s | u32(1 - i32(n) - (maxExp >> 1) + BIAS), aligned << n, true);
  }
}
export function fromSingle(bits: u32): void { fromFloat(bits >> 31, i32((bits >> 23) & 0xff), u64(bits & 0x7fffff), 23, 0xff); }
export function fromDouble(bits: u64): void { fromFloat(u32(bits >> 63), i32(u32(bits >> 52) & 0x7ff), bits & 0xfffffffffffff, 52, 0x7ff); }
export function fromInteger(value: i64): void { fromMagnitude(u32(value < 0), u64(value < 0 ? 0 - value : value)); }
function fromMagnitude(sign: u32, magnitude: u64): void {
  if (magnitude == 0) {
    converted(sign << 15, 0, false);
    return;
  }
  const n = clz(magnitude);
  converted((sign << 15) | u32(BIAS + 63 - i32(n)), magnitude << n, false);
}
/** Ten bytes of packed BCD: 18 digits and a sign. */
export function fromBcd(low: u64, high: u32): void {
  let value: u64 = 0;
  for (let shift = 4; shift >= 0; shift -= 4) value = value * 10 + u64((high >> shift) & 15);
  for (let shift: u64 = 60; i64(shift) >= 0; shift -= 4) value = value * 10 + ((low >> shift) & 15);
  fromMagnitude((high >> 15) & 1, value);
}

/** A as a single or a double, in the low bits. Exceptions are raised; unmasked, the value does not count. */
function toFloat(fractionBits: i32, maxExp: i32): u64 {
  const f = u64(fractionBits);
  const signBit = u64(aSign) << (fractionBits == 23 ? 31 : 63);
  const top = u64(maxExp) << f;
  if (aClass == ZERO) return signBit;
  if (aClass == INFINITE) return signBit | top;
  if (aClass == UNSUPPORTED) {
    raiseFlags(IE);
    return (u64(1) << (fractionBits == 23 ? 31 : 63)) | top | (u64(1) << (f - 1));
  }
  if (aClass >= QNAN) {
    if (aClass == SNAN) raiseFlags(IE);
    return signBit | top | (u64(1) << (f - 1)) | ((aSig & ~INTEGER_BIT) >> (63 - f));
  }
  const dropped = 63 - f;
  let e = aExp - BIAS + (maxExp >> 1);
  cut(aSign, aSig, 0, dropped);
  if (e <= 0) {
    const tiny = e < 0 || kept != 0;
    if (!tiny || masked(UE)) {
      shiftRightJam(aSig, 0, 1 - e);
      cut(aSign, shiftedHigh, shiftedLow, dropped);
      if (inexact) {
        raiseFlags(tiny ? UE | PE : PE);
        setRoundedUp(up);
      }
      // a significand that grew to the integer bit is the smallest normal number
      return signBit | (kept >> dropped);
    }
    raiseFlags(UE);
    return 0;
  }
  let significand = kept;
  if (significand == 0) {
    significand = INTEGER_BIT;
    e++;
  }
  if (e >= maxExp) {
    const mode = roundingMode();
    const away = mode == 0 || mode == 2 - aSign;
    if (masked(OE)) {
      raiseFlags(OE | PE);
      setRoundedUp(away);
      return signBit | (away ? top : top - 1);
    }
    raiseFlags(OE);
    return 0;
  }
  if (inexact) {
    raiseFlags(PE);
    setRoundedUp(up);
  }
  return signBit | (u64(e) << f) | ((significand & ~INTEGER_BIT) >> dropped);
}
export function toSingle(): u32 { return u32(toFloat(23, 0xff)); }
export function toDouble(): u64 { return toFloat(52, 0x7ff); }

let tooLarge: bool = false;
/** |A| rounded to an integer, or `tooLarge` for 64 bits. */
function toMagnitude(truncate: bool): u64 {
  tooLarge = false;
  if (aClass == ZERO) return 0;
  const e = aExp - BIAS;
  if (aClass >= INFINITE || e > 63) {
    tooLarge = true;
    return 0;
  }
  shiftRightJam(aSig, 0, 63 - e);
  let whole = shiftedHigh;
  if (shiftedLow != 0) {
    const away = !truncate && roundsUp(aSign, (whole & 1) != 0, shiftedLow >> 63 != 0, shiftedLow << 1 != 0);
    raiseFlags(PE);
    setRoundedUp(away);
    if (away) whole++;
  }
  return whole;
}
/** A as a signed integer of `bits` bits; IE alone and the integer indefinite when it is none. */
export function toInteger(bits: i32, truncate: bool): i64 {
  const magnitude = toMagnitude(truncate);
  const limit = u64(1) << u64(bits - 1);
  if (tooLarge || magnitude > limit || (magnitude == limit && aSign == 0)) {
    setRaised(IE);
    setRoundedUp(false);
    return 0 - i64(limit);
  }
  return aSign != 0 ? 0 - i64(magnitude) : i64(magnitude);
}
/** A as ten bytes of packed BCD at the address `to`; IE alone and the BCD indefinite when it has more than 18 digits. */
export function toBcd(to: i32): void {
  let magnitude = toMagnitude(false);
  if (tooLarge || magnitude > 999999999999999999) {
    setRaised(IE);
    setRoundedUp(false);
    bcdIndefinite(to);
    return;
  }
  for (let i = 0; i < 9; i++) {
    const pair = magnitude % 100;
    magnitude /= 100;
    store<u8>(to + i, u8((pair / 10 << 4) | pair % 10));
  }
  store<u8>(to, u8(aSign << 7), 9);
}
export function bcdIndefinite(to: i32): void {
  store<u64>(to, 0xc000000000000000);
  store<u16>(to, 0xffff, 8);
}
