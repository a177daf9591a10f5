/** AES, carry-less multiplication and SHA (Intel SDM vol. 2; FIPS 197, FIPS 180-4). */
import * as L from "./layout";

/** Bytes of `a` in row * 16..row * 16 + 15, looked up; 0 for the others, as a swizzle gives for an index out of range. */
@inline function part(a: v128, row: i32, table: v128): v128 { return i8x16.swizzle(table, i8x16.sub(a, i8x16.splat(<i8>(row * 16)))); }
/** The inverse in GF(2^8) and an affine map (FIPS 197, 5.1.1), a row of the table at a time. */
function substitute(a: v128): v128 {
  let r = i8x16.splat(0);
  r = v128.or(r, part(a, 0, i8x16(99, 124, 119, 123, -14, 107, 111, -59, 48, 1, 103, 43, -2, -41, -85, 118)));
  r = v128.or(r, part(a, 1, i8x16(-54, -126, -55, 125, -6, 89, 71, -16, -83, -44, -94, -81, -100, -92, 114, -64)));
  r = v128.or(r, part(a, 2, i8x16(-73, -3, -109, 38, 54, 63, -9, -52, 52, -91, -27, -15, 113, -40, 49, 21)));
  r = v128.or(r, part(a, 3, i8x16(4, -57, 35, -61, 24, -106, 5, -102, 7, 18, -128, -30, -21, 39, -78, 117)));
  r = v128.or(r, part(a, 4, i8x16(9, -125, 44, 26, 27, 110, 90, -96, 82, 59, -42, -77, 41, -29, 47, -124)));
  r = v128.or(r, part(a, 5, i8x16(83, -47, 0, -19, 32, -4, -79, 91, 106, -53, -66, 57, 74, 76, 88, -49)));
  r = v128.or(r, part(a, 6, i8x16(-48, -17, -86, -5, 67, 77, 51, -123, 69, -7, 2, 127, 80, 60, -97, -88)));
  r = v128.or(r, part(a, 7, i8x16(81, -93, 64, -113, -110, -99, 56, -11, -68, -74, -38, 33, 16, -1, -13, -46)));
  r = v128.or(r, part(a, 8, i8x16(-51, 12, 19, -20, 95, -105, 68, 23, -60, -89, 126, 61, 100, 93, 25, 115)));
  r = v128.or(r, part(a, 9, i8x16(96, -127, 79, -36, 34, 42, -112, -120, 70, -18, -72, 20, -34, 94, 11, -37)));
  r = v128.or(r, part(a, 10, i8x16(-32, 50, 58, 10, 73, 6, 36, 92, -62, -45, -84, 98, -111, -107, -28, 121)));
  r = v128.or(r, part(a, 11, i8x16(-25, -56, 55, 109, -115, -43, 78, -87, 108, 86, -12, -22, 101, 122, -82, 8)));
  r = v128.or(r, part(a, 12, i8x16(-70, 120, 37, 46, 28, -90, -76, -58, -24, -35, 116, 31, 75, -67, -117, -118)));
  r = v128.or(r, part(a, 13, i8x16(112, 62, -75, 102, 72, 3, -10, 14, 97, 53, 87, -71, -122, -63, 29, -98)));
  r = v128.or(r, part(a, 14, i8x16(-31, -8, -104, 17, 105, -39, -114, -108, -101, 30, -121, -23, -50, 85, 40, -33)));
  r = v128.or(r, part(a, 15, i8x16(-116, -95, -119, 13, -65, -26, 66, 104, 65, -103, 45, 15, -80, 84, -69, 22)));
  return r;
}
function unsubstitute(a: v128): v128 {
  let r = i8x16.splat(0);
  r = v128.or(r, part(a, 0, i8x16(82, 9, 106, -43, 48, 54, -91, 56, -65, 64, -93, -98, -127, -13, -41, -5)));
  r = v128.or(r, part(a, 1, i8x16(124, -29, 57, -126, -101, 47, -1, -121, 52, -114, 67, 68, -60, -34, -23, -53)));
  r = v128.or(r, part(a, 2, i8x16(84, 123, -108, 50, -90, -62, 35, 61, -18, 76, -107, 11, 66, -6, -61, 78)));
  r = v128.or(r, part(a, 3, i8x16(8, 46, -95, 102, 40, -39, 36, -78, 118, 91, -94, 73, 109, -117, -47, 37)));
  r = v128.or(r, part(a, 4, i8x16(114, -8, -10, 100, -122, 104, -104, 22, -44, -92, 92, -52, 93, 101, -74, -110)));
  r = v128.or(r, part(a, 5, i8x16(108, 112, 72, 80, -3, -19, -71, -38, 94, 21, 70, 87, -89, -115, -99, -124)));
  r = v128.or(r, part(a, 6, i8x16(-112, -40, -85, 0, -116, -68, -45, 10, -9, -28, 88, 5, -72, -77, 69, 6)));
  r = v128.or(r, part(a, 7, i8x16(-48, 44, 30, -113, -54, 63, 15, 2, -63, -81, -67, 3, 1, 19, -118, 107)));
  r = v128.or(r, part(a, 8, i8x16(58, -111, 17, 65, 79, 103, -36, -22, -105, -14, -49, -50, -16, -76, -26, 115)));
  r = v128.or(r, part(a, 9, i8x16(-106, -84, 116, 34, -25, -83, 53, -123, -30, -7, 55, -24, 28, 117, -33, 110)));
  r = v128.or(r, part(a, 10, i8x16(71, -15, 26, 113, 29, 41, -59, -119, 111, -73, 98, 14, -86, 24, -66, 27)));
  r = v128.or(r, part(a, 11, i8x16(-4, 86, 62, 75, -58, -46, 121, 32, -102, -37, -64, -2, 120, -51, 90, -12)));
  r = v128.or(r, part(a, 12, i8x16(31, -35, -88, 51, -120, 7, -57, 49, -79, 18, 16, 89, 39, -128, -20, 95)));
  r = v128.or(r, part(a, 13, i8x16(96, 81, 127, -87, 25, -75, 74, 13, 45, -27, 122, -97, -109, -55, -100, -17)));
  r = v128.or(r, part(a, 14, i8x16(-96, -32, 59, 77, -82, 42, -11, -80, -56, -21, -69, 60, -125, 83, -103, 97)));
  r = v128.or(r, part(a, 15, i8x16(23, 43, 4, 126, -70, 119, -42, 38, -31, 105, 20, 99, 85, 33, 12, 125)));
  return r;
}
// a state is column after column: byte r + 4c is row r of column c
@inline function shiftRows(a: v128): v128 { return i8x16.shuffle(a, a, 0, 5, 10, 15, 4, 9, 14, 3, 8, 13, 2, 7, 12, 1, 6, 11); }
@inline function unshiftRows(a: v128): v128 { return i8x16.shuffle(a, a, 0, 13, 10, 7, 4, 1, 14, 11, 8, 5, 2, 15, 12, 9, 6, 3); }
@inline function rotate1(a: v128): v128 { return v128.or(i32x4.shr_u(a, 8), i32x4.shl(a, 24)); }
@inline function rotate2(a: v128): v128 { return v128.or(i32x4.shr_u(a, 16), i32x4.shl(a, 16)); }
/** Twice each byte in GF(2^8). */
@inline function twice(a: v128): v128 { return v128.xor(i8x16.shl(a, 1), v128.and(i8x16.shr_s(a, 7), i8x16.splat(0x1b))); }
/** 2 a0 + 3 a1 + a2 + a3 for each byte of a column. */
function mixColumns(a: v128): v128 {
  const b = v128.xor(a, rotate1(a));
  return v128.xor(v128.xor(twice(b), rotate1(a)), rotate2(b));
}
/** The inverse matrix is the forward one times (5 0 4 0). */
function unmixColumns(a: v128): v128 {
  return mixColumns(v128.xor(a, twice(twice(v128.xor(a, rotate2(a))))));
}
export function aes(op: i32, imm: i32, a: v128, b: v128): v128 {
  switch (op) {
    case L.VectorOp_aesenc: return v128.xor(mixColumns(substitute(shiftRows(a))), b);
    case L.VectorOp_aesenclast: return v128.xor(substitute(shiftRows(a)), b);
    case L.VectorOp_aesdec: return v128.xor(unmixColumns(unsubstitute(unshiftRows(a))), b);
    case L.VectorOp_aesdeclast: return v128.xor(unsubstitute(unshiftRows(a)), b);
    case L.VectorOp_aesimc: return unmixColumns(b);
    default: {
      // AESKEYGENASSIST: words 1 and 3 substituted, and the same rotated with the round constant
      const s = substitute(b);
      const c = i32x4.replace_lane(i32x4.replace_lane(i32x4.splat(0), 1, imm), 3, imm);
      const r = rotate1(s);
      return v128.xor(i8x16.shuffle(s, r, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31), c);
    }
  }
}

/** Product of two polynomials over GF(2), by four bits of b at a time. */
export function carrylessMultiply(a: u64, b: u64): v128 {
  let lo: u64 = 0, hi: u64 = 0;
  for (let shift = 60; shift >= 0; shift -= 4) {
    hi = (hi << 4) | (lo >> 60);
    lo <<= 4;
    const d = (b >> u64(shift)) & 15;
    const m0 = 0 - (d & 1), m1 = 0 - ((d >> 1) & 1), m2 = 0 - ((d >> 2) & 1), m3 = 0 - (d >> 3);
    lo ^= (a & m0) ^ ((a << 1) & m1) ^ ((a << 2) & m2) ^ ((a << 3) & m3);
    hi ^= ((a >> 63) & m1) ^ ((a >> 62) & m2) ^ ((a >> 61) & m3);
  }
  return i64x2.replace_lane(i64x2.splat(lo), 1, hi);
}

@inline function word(a: v128, i: i32): u32 {
  return i == 0 ? i32x4.extract_lane(a, 0) : i == 1 ? i32x4.extract_lane(a, 1) : i == 2 ? i32x4.extract_lane(a, 2) : i32x4.extract_lane(a, 3);
}
@inline function words(w0: u32, w1: u32, w2: u32, w3: u32): v128 {
  return i32x4.replace_lane(i32x4.replace_lane(i32x4.replace_lane(i32x4.splat(w0), 1, w1), 2, w2), 3, w3);
}
@inline function choose(x: u32, y: u32, z: u32): u32 { return (x & y) ^ (~x & z); }
@inline function majority(x: u32, y: u32, z: u32): u32 { return (x & y) ^ (x & z) ^ (y & z); }
/** SHA-1 keeps its state with A in the top word. */
export function sha1(op: i32, imm: i32, a: v128, b: v128): v128 {
  const b3 = word(b, 3), b2 = word(b, 2), b1 = word(b, 1), b0 = word(b, 0);
  switch (op) {
    case L.VectorOp_sha1rnds4: {
      let s0 = word(a, 3), s1 = word(a, 2), s2 = word(a, 1), s3 = word(a, 0), e: u32 = 0;
      const which = imm & 3;
      const k: u32 = which == 0 ? 0x5a827999 : which == 1 ? 0x6ed9eba1 : which == 2 ? 0x8f1bbcdc : 0xca62c1d6;
      for (let i = 0; i < 4; i++) {
        const f = which == 0 ? choose(s1, s2, s3) : which == 2 ? majority(s1, s2, s3) : s1 ^ s2 ^ s3;
        // E is in the first message word already
        const t = f + rotl<u32>(s0, 5) + (i == 0 ? b3 : i == 1 ? b2 : i == 2 ? b1 : b0) + e + k;
        e = s3;
        s3 = s2;
        s2 = rotl<u32>(s1, 30);
        s1 = s0;
        s0 = t;
      }
      return words(s3, s2, s1, s0);
    }
    case L.VectorOp_sha1nexte: return words(b0, b1, b2, b3 + rotl<u32>(word(a, 3), 30));
    case L.VectorOp_sha1msg1:
      return v128.xor(a, words(b2, b3, word(a, 0), word(a, 1)));
    default: {
      const w16 = rotl<u32>(word(a, 3) ^ b2, 1), w17 = rotl<u32>(word(a, 2) ^ b1, 1), w18 = rotl<u32>(word(a, 1) ^ b0, 1);
      return words(rotl<u32>(word(a, 0) ^ w16, 1), w18, w17, w16);
    }
  }
}
/** Two rounds: a = C D G H from the top, b = A B E F, c = two words of message plus constant. */
export function sha256rounds(x: v128, y: v128, wk: v128): v128 {
  let a = word(y, 3), b = word(y, 2), e = word(y, 1), f = word(y, 0), c = word(x, 3), d = word(x, 2), g = word(x, 1), h = word(x, 0);
  for (let i = 0; i < 2; i++) {
    const t1 = choose(e, f, g) + (rotr<u32>(e, 6) ^ rotr<u32>(e, 11) ^ rotr<u32>(e, 25)) + word(wk, i) + h;
    const t2 = majority(a, b, c) + (rotr<u32>(a, 2) ^ rotr<u32>(a, 13) ^ rotr<u32>(a, 22));
    h = g;
    g = f;
    f = e;
    e = d + t1;
    d = c;
    c = b;
    b = a;
    a = t1 + t2;
  }
  return words(f, e, b, a);
}
@inline function sigma0(x: u32): u32 { return rotr<u32>(x, 7) ^ rotr<u32>(x, 18) ^ (x >> 3); }
@inline function sigma1(x: u32): u32 { return rotr<u32>(x, 17) ^ rotr<u32>(x, 19) ^ (x >> 10); }
export function sha256message(op: i32, a: v128, b: v128): v128 {
  const a0 = word(a, 0), a1 = word(a, 1), a2 = word(a, 2), a3 = word(a, 3);
  if (op == L.VectorOp_sha256msg1) return words(a0 + sigma0(a1), a1 + sigma0(a2), a2 + sigma0(a3), a3 + sigma0(word(b, 0)));
  const w16 = a0 + sigma1(word(b, 2)), w17 = a1 + sigma1(word(b, 3));
  return words(w16, w17, a2 + sigma1(w16), a3 + sigma1(w17));
}
