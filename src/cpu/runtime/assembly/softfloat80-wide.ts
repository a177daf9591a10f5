/**
 * Numbers with a significand of 128 bits, for what the elementary functions do in between: high:low / 2^128 * 2^exponent with the
 * highest bit set. Signs are kept apart. Fixed-point fractions are high:low / 2^128.
 */
import { divide128, divideRemainder } from "./arithmetic";
import { multiply64, productLow, shiftedHigh, shiftedLow, shiftRightJam } from "./softfloat80";

/** The result of each operation. */
export let wideHigh: u64 = 0;
export let wideLow: u64 = 0;
export let wideExp: i32 = 0;

/** Takes high:low / 2^128 * 2^exp and normalizes it; 0 stays 0. */
export function setWide(high: u64, low: u64, exp: i32): void {
  let h = high, l = low, e = exp;
  if (h == 0) {
    h = l;
    l = 0;
    e -= 64;
  }
  const n = clz(h);
  if (n != 0 && n != 64) {
    h = (h << n) | (l >> (64 - n));
    l <<= n;
    e -= i32(n);
  }
  wideHigh = h;
  wideLow = l;
  wideExp = e;
}

let fixedHigh: u64 = 0;
let fixedLow: u64 = 0;
/** Product of two fractions, cut to 128 bits: fixedHigh:fixedLow. */
function multiplyFixed(ah: u64, al: u64, bh: u64, bl: u64): void {
  const carry = multiply64(al, bl);
  const h1 = multiply64(ah, bl), l1 = productLow;
  const h2 = multiply64(al, bh), l2 = productLow;
  const h = multiply64(ah, bh), l = productLow;
  const rest = l1 + l2;
  const rest2 = rest + carry;
  const up = u64(rest < l1) + u64(rest2 < rest);
  const m1 = l + h1;
  const m2 = m1 + h2;
  const m3 = m2 + up;
  fixedHigh = h + u64(m1 < l) + u64(m2 < m1) + u64(m3 < m2);
  fixedLow = m3;
}
export function wideMultiply(ah: u64, al: u64, ax: i32, bh: u64, bl: u64, bx: i32): void {
  multiplyFixed(ah, al, bh, bl);
  setWide(fixedHigh, fixedLow, ax + bx);
}

let restHigh: u64 = 0;
let rest: u64 = 0;
/** A digit of a long division: n2:n1:0 by dh:dl, whose highest bit is set; n2:n1 < dh:dl. What is left is restHigh:rest. */
function digit(n2: u64, n1: u64, dh: u64, dl: u64): u64 {
  let q: u64, r: u64;
  let fits = true;
  if (n2 >= dh) {
    q = u64.MAX_VALUE;
    r = n1 + dh;
    fits = r >= dh;
  } else {
    q = divide128(n2, n1, dh);
    r = divideRemainder();
  }
  while (fits) {
    const h = multiply64(q, dl);
    if (h < r || (h == r && productLow == 0)) break;
    q--;
    r += dh;
    fits = r >= dh;
  }
  // (n1:0) - q * (dh:dl), of which only the low 128 bits are left
  const h = multiply64(q, dl) + q * dh;
  rest = 0 - productLow;
  restHigh = n1 - h - u64(productLow != 0);
  return q;
}
export function wideDivide(ah: u64, al: u64, ax: i32, bh: u64, bl: u64, bx: i32): void {
  let h = ah, l = al, x = ax - bx;
  if (ah > bh || (ah == bh && al >= bl)) {
    l = (l >> 1) | (h << 63);
    h >>= 1;
    x++;
  }
  const q = digit(h, l, bh, bl);
  setWide(q, digit(restHigh, rest, bh, bl), x);
}

export function wideAdd(ah: u64, al: u64, ax: i32, bh: u64, bl: u64, bx: i32): void {
  if (bx > ax) {
    wideAdd(bh, bl, bx, ah, al, ax);
    return;
  }
  shiftRightJam(bh, bl, ax - bx);
  const low = al + shiftedLow;
  const c = u64(low < al);
  const high = ah + shiftedHigh + c;
  if (high < ah || (c != 0 && high == ah)) setWide((high >> 1) | (u64(1) << 63), (high << 63) | (low >> 1), ax + 1);
  else setWide(high, low, ax);
}
/** a - b for a > b > 0 or b = 0. */
export function wideSubtract(ah: u64, al: u64, ax: i32, bh: u64, bl: u64, bx: i32): void {
  shiftRightJam(bh, bl, ax - bx);
  setWide(ah - shiftedHigh - u64(al < shiftedLow), al - shiftedLow, ax);
}
/** A number below 1 as a fraction. */
export function toFixed(high: u64, low: u64, exp: i32): void { shiftRightJam(high, low, 0 - exp); }

export let seriesHigh: u64 = 0;
export let seriesLow: u64 = 0;
/** z * (c[from] -+ z * (c[from + step] -+ ...)) over `terms` coefficients of a table of fractions. */
export function series(table: usize, from: i32, step: i32, terms: i32, zh: u64, zl: u64, alternating: bool): void {
  let at = table + ((from + step * (terms - 1)) << 4);
  let h = load<u64>(at), l = load<u64>(at, 8);
  for (let i = 1; i < terms; i++) {
    at -= step << 4;
    multiplyFixed(zh, zl, h, l);
    const ch = load<u64>(at), cl = load<u64>(at, 8);
    if (alternating) {
      l = cl - fixedLow;
      h = ch - fixedHigh - u64(cl < fixedLow);
    } else {
      l = cl + fixedLow;
      h = ch + fixedHigh + u64(l < cl);
    }
  }
  multiplyFixed(zh, zl, h, l);
  seriesHigh = fixedHigh;
  seriesLow = fixedLow;
}
export let squareHigh: u64 = 0;
export let squareLow: u64 = 0;
/** Square of a fraction. */
export function square(high: u64, low: u64): void {
  multiplyFixed(high, low, high, low);
  squareHigh = fixedHigh;
  squareLow = fixedLow;
}

/** 1/2!, 1/3!, ... 1/34! as fractions. */
export const FACTORIALS: usize = memory.data<u64>([
  0x8000000000000000, 0x0000000000000000, // 1/2!
  0x2aaaaaaaaaaaaaaa, 0xaaaaaaaaaaaaaaab, // 1/3!
  0x0aaaaaaaaaaaaaaa, 0xaaaaaaaaaaaaaaab, // 1/4!
  0x0222222222222222, 0x2222222222222222, // 1/5!
  0x005b05b05b05b05b, 0x05b05b05b05b05b0, // 1/6!
  0x000d00d00d00d00d, 0x00d00d00d00d00d0, // 1/7!
  0x0001a01a01a01a01, 0xa01a01a01a01a01a, // 1/8!
  0x00002e3bc74aad8e, 0x671f5583911ca003, // 1/9!
  0x0000049f93edde27, 0xd71cbbc05b4fa99a, // 1/10!
  0x0000006b99159fd5, 0x138e3f9d1f92e0df, // 1/11!
  0x00000008f76c77fc, 0x6c4bdaa26d4c3d68, // 1/12!
  0x00000000b092309d, 0x43684be51c198e92, // 1/13!
  0x000000000c9cba54, 0x603e4e905d6f8a2f, // 1/14!
  0x0000000000d73f9f, 0x399dc0f88ec32b58, // 1/15!
  0x00000000000d73f9, 0xf399dc0f88ec32b6, // 1/16!
  0x000000000000ca96, 0x3b81856a53593029, // 1/17!
  0x0000000000000b41, 0x3c31dcbecbbdd802, // 1/18!
  0x0000000000000097, 0xa4da340a0ab92651, // 1/19!
  0x0000000000000007, 0x950ae900808941ea, // 1/20!
  0x0000000000000000, 0x5c6e3bdb73d5c630, // 1/21!
  0x0000000000000000, 0x04338e5b6dfe14a5, // 1/22!
  0x0000000000000000, 0x002ec368262c7034, // 1/23!
  0x0000000000000000, 0x0001f2cf01972f57, // 1/24!
  0x0000000000000000, 0x000013f3ccdd1660, // 1/25!
  0x0000000000000000, 0x000000c4742fe352, // 1/26!
  0x0000000000000000, 0x0000000746ac70b7, // 1/27!
  0x0000000000000000, 0x0000000042862899, // 1/28!
  0x0000000000000000, 0x00000000024b3f31, // 1/29!
  0x0000000000000000, 0x000000000013932c, // 1/30!
  0x0000000000000000, 0x000000000000a1a7, // 1/31!
  0x0000000000000000, 0x000000000000050d, // 1/32!
  0x0000000000000000, 0x0000000000000027, // 1/33!
  0x0000000000000000, 0x0000000000000001, // 1/34!
]);
/** 1/3, 1/5, ... 1/47 as fractions. */
export const ODDS: usize = memory.data<u64>([
  0x5555555555555555, 0x5555555555555555, // 1/3
  0x3333333333333333, 0x3333333333333333, // 1/5
  0x2492492492492492, 0x4924924924924925, // 1/7
  0x1c71c71c71c71c71, 0xc71c71c71c71c71c, // 1/9
  0x1745d1745d1745d1, 0x745d1745d1745d17, // 1/11
  0x13b13b13b13b13b1, 0x3b13b13b13b13b14, // 1/13
  0x1111111111111111, 0x1111111111111111, // 1/15
  0x0f0f0f0f0f0f0f0f, 0x0f0f0f0f0f0f0f0f, // 1/17
  0x0d79435e50d79435, 0xe50d79435e50d794, // 1/19
  0x0c30c30c30c30c30, 0xc30c30c30c30c30c, // 1/21
  0x0b21642c8590b216, 0x42c8590b21642c86, // 1/23
  0x0a3d70a3d70a3d70, 0xa3d70a3d70a3d70a, // 1/25
  0x097b425ed097b425, 0xed097b425ed097b4, // 1/27
  0x08d3dcb08d3dcb08, 0xd3dcb08d3dcb08d4, // 1/29
  0x0842108421084210, 0x8421084210842108, // 1/31
  0x07c1f07c1f07c1f0, 0x7c1f07c1f07c1f08, // 1/33
  0x0750750750750750, 0x7507507507507507, // 1/35
  0x06eb3e45306eb3e4, 0x5306eb3e45306eb4, // 1/37
  0x0690690690690690, 0x6906906906906907, // 1/39
  0x063e7063e7063e70, 0x63e7063e7063e706, // 1/41
  0x05f417d05f417d05, 0xf417d05f417d05f4, // 1/43
  0x05b05b05b05b05b0, 0x5b05b05b05b05b06, // 1/45
  0x0572620ae4c415c9, 0x882b9310572620ae, // 1/47
]);
/** Significands of the arc tangents of 1/8, 2/8, ... 8/8. */
export const ARC_TANGENTS: usize = memory.data<u64>([
  0xfeadd4d5617b6e32, 0xc897989f3e888ef8, // atan(1/8), exponent -3
  0xfadbafc96406eb15, 0x6dc79ef5f7a217e6, // atan(2/8), exponent -2
  0xb7b0ca0f26f78473, 0x8aa32122dcfe4483, // atan(3/8), exponent -1
  0xed63382b0dda7b45, 0x6fe445ecbc3a8d03, // atan(4/8), exponent -1
  0x8f005d5ef7f59f9b, 0x5c835e1665c43748, // atan(5/8), exponent 0
  0xa4bc7d1934f70924, 0x19a87f2a457dac9f, // atan(6/8), exponent 0
  0xb8053e2bc2319e73, 0xcb2da55210a4443d, // atan(7/8), exponent 0
  0xc90fdaa22168c234, 0xc4c6628b80dc1cd1, // atan(8/8), exponent 0
]);
/** Significand of pi, pi/2, pi/4; exponents 2, 1, 0. */
export const PI_HIGH: u64 = 0xc90fdaa22168c234, PI_LOW: u64 = 0xc4c6628b80dc1cd1;
/** ln 2, exponent 0. */
export const LN2_HIGH: u64 = 0xb17217f7d1cf79ab, LN2_LOW: u64 = 0xc9e3b39803f2f6af;
/** 1 / ln 2, exponent 1. */
export const LOG2E_HIGH: u64 = 0xb8aa3b295c17f0bb, LOG2E_LOW: u64 = 0xbe87fed0691d3e89;
