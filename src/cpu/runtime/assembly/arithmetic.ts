/** Divisions, rotates through the carry, and the bits of a mask (PDEP, PEXT). */
import * as L from "./layout";
import { fault, get16, gpr, set16, set32, setGpr, get8, set8 } from "./state";

let quotientHigh: u64 = 0;
let remainder: u64 = 0;
/** 128 by 64 bits, quotient of 64 bits (high < by). Knuth's algorithm D with 32-bit digits. */
export function divide128(high: u64, low: u64, by: u64): u64 {
  const s = clz(by);
  const v = by << s;
  const vh = v >> 32, vl = v & 0xffffffff;
  const un = s == 0 ? high : (high << s) | (low >> (64 - s));
  const l = low << s;
  const l1 = l >> 32, l0 = l & 0xffffffff;
  let q1 = un / vh, r = un % vh;
  while (q1 >> 32 != 0 || q1 * vl > ((r << 32) | l1)) {
    q1--;
    r += vh;
    if (r >> 32 != 0) break;
  }
  const un2 = ((un << 32) | l1) - q1 * v;
  let q0 = un2 / vh;
  r = un2 % vh;
  while (q0 >> 32 != 0 || q0 * vl > ((r << 32) | l0)) {
    q0--;
    r += vh;
    if (r >> 32 != 0) break;
  }
  remainder = (((un2 << 32) | l0) - q0 * v) >> s;
  return (q1 << 32) | q0;
}
/** Of the last `divide128`. */
export function divideRemainder(): u64 { return remainder; }
function de(): i32 { return fault(0, -1); }

export function div(by: u64, width: i32): i32 {
  if (by == 0) return de();
  if (width == 64) {
    const h = gpr(2), l = gpr(0);
    if (h >= by) return de();
    if (h == 0) {
      setGpr(0, l / by);
      setGpr(2, l % by);
    } else {
      setGpr(0, divide128(h, l, by));
      setGpr(2, remainder);
    }
    return 1;
  }
  if (width == 32) {
    const n = (gpr(2) << 32) | (gpr(0) & 0xffffffff);
    const q = n / by;
    if (q >> 32 != 0) return de();
    setGpr(0, q);
    setGpr(2, n % by);
  } else if (width == 16) {
    const n = (get16(L.Vp_gpr + 16) << 16) | get16(L.Vp_gpr);
    const q = n / u32(by);
    if (q > 0xffff) return de();
    set16(L.Vp_gpr, q);
    set16(L.Vp_gpr + 16, n % u32(by));
  } else {
    const n = get16(L.Vp_gpr);
    const q = n / u32(by);
    if (q > 0xff) return de();
    set8(L.Vp_gpr, q);
    set8(L.Vp_gpr + 1, n % u32(by));
  }
  return 1;
}
export function idiv(by: u64, width: i32): i32 {
  if (by == 0) return de();
  const b = i64(by);
  if (width == 64) {
    let h = gpr(2), l = gpr(0);
    const negative = i64(h) < 0;
    if (negative) {
      l = 0 - l;
      h = ~h + u64(l == 0);
    }
    const m = b < 0 ? u64(0 - b) : by;
    if (h >= m) return de();
    const q = h == 0 ? l / m : divide128(h, l, m);
    const r = h == 0 ? l % m : remainder;
    const minus = negative != b < 0;
    if (minus ? q > (u64(1) << 63) : q >> 63 != 0) return de();
    setGpr(0, minus ? 0 - q : q);
    setGpr(2, negative ? 0 - r : r);
    return 1;
  }
  if (width == 32) {
    const n = i64((gpr(2) << 32) | (gpr(0) & 0xffffffff));
    if (n == i64.MIN_VALUE && b == -1) return de();
    const q = n / b;
    if (i64(i32(q)) != q) return de();
    setGpr(0, u64(q) & 0xffffffff);
    setGpr(2, u64(n % b) & 0xffffffff);
  } else if (width == 16) {
    const n = i64(i32((get16(L.Vp_gpr + 16) << 16) | get16(L.Vp_gpr)));
    const q = n / b;
    if (i64(i16(q)) != q) return de();
    set16(L.Vp_gpr, u32(q));
    set16(L.Vp_gpr + 16, u32(n % b));
  } else {
    const n = i64(i16(get16(L.Vp_gpr)));
    const q = n / b;
    if (i64(i8(q)) != q) return de();
    set8(L.Vp_gpr, u32(q));
    set8(L.Vp_gpr + 1, u32(n % b));
  }
  return 1;
}

/** New CF in bit 0 and OF in bit 1 of Vp.tempAddress2. */
export function rcl(a: u64, count: i32, width: i32, carry: i32): u64 {
  let n = width < 32 ? count % (width + 1) : count;
  let v = a, c = u64(carry);
  const top = u64(width - 1);
  while (n-- > 0) {
    const out = (v >> top) & 1;
    v = (v << 1) | c;
    c = out;
  }
  set32(L.Vp_tempAddress2, u32(c) | (u32(((v >> top) & 1) ^ c) << 1));
  return v;
}
export function rcr(a: u64, count: i32, width: i32, carry: i32): u64 {
  let n = width < 32 ? count % (width + 1) : count;
  let v = width == 64 ? a : a & ((u64(1) << u64(width)) - 1), c = u64(carry);
  const top = u64(width - 1);
  while (n-- > 0) {
    const out = v & 1;
    v = (v >> 1) | (c << top);
    c = out;
  }
  set32(L.Vp_tempAddress2, u32(c) | (u32(((v >> top) & 1) ^ ((v >> (top - 1)) & 1)) << 1));
  return v;
}

/** PDEP: the low bits of `from` go to the places of the mask's bits. */
export function depositBits(from: u64, mask: u64): u64 {
  let r: u64 = 0, bits = from;
  for (let m = mask; m != 0; m &= m - 1) {
    if ((bits & 1) != 0) r |= m & (0 - m);
    bits >>= 1;
  }
  return r;
}
/** PEXT: the bits at the mask's places, next to each other. */
export function extractBits(from: u64, mask: u64): u64 {
  let r: u64 = 0, to: u64 = 1;
  for (let m = mask; m != 0; m &= m - 1) {
    if ((from & m & (0 - m)) != 0) r |= to;
    to <<= 1;
  }
  return r;
}
