/** Vector instructions that are procedures rather than formulas. */
import { VP } from "./env";
import * as L from "./layout";
import { plainWritable, reachesHole, stackAccess, write } from "./mmu";
import { get64, gpr, set16, get16, ud } from "./state";
import { aes, carrylessMultiply, sha1, sha256message } from "./vector-crypto";

/** MASKMOVDQU, MASKMOVQ: bytes of the first operand whose mask byte has its top bit set go to [rDI]. */
function maskmov(r: i32, size: i32): i32 {
  const bits = load<u32>(r, L.Rec_link);
  let to = gpr(7);
  if ((bits & L.ProcedureFlag_address32) != 0) to &= 0xffffffff;
  if ((bits & L.ProcedureFlag_address16) != 0) to &= 0xffff;
  to += get64(load<u16>(r, L.Rec_base));
  const from = VP + i32(load<u16>(r, L.Rec_dst)), mask = VP + i32(load<u16>(r, L.Rec_src));
  stackAccess(false);
  if (reachesHole(to, size)) return L.Status_fault;
  // all pages first: a fault leaves nothing written
  for (let i = 0; i < size; i++) {
    if ((load<u8>(mask + i) & 0x80) != 0 && plainWritable(to + u64(i), 1) == 0) return L.Status_fault;
  }
  for (let i = 0; i < size; i++) {
    if ((load<u8>(mask + i) & 0x80) != 0 && !write(to + u64(i), 1, u64(load<u8>(from + i)))) return L.Status_fault;
  }
  return L.Status_next;
}
/** Procedures: the record says what to do. @returns a Status */
export function vector(r: i32): i32 {
  switch (i32(load<u8>(r, L.Rec_src2))) {
    case L.VectorProcedure_maskmovdqu: return maskmov(r, 16);
    case L.VectorProcedure_maskmovq: {
      const status = maskmov(r, 8);
      if (status == L.Status_next) {
        set16(L.Vp_ftw, 0xff);
        set16(L.Vp_fsw, get16(L.Vp_fsw) & 0xc7ff);
      }
      return status;
    }
    default:
      ud();
      return L.Status_fault;
  }
}

/** Eight sums of absolute differences of four bytes: of one block of b and of eight overlapping ones of a. */
function mpsadbw(imm: i32, a: v128, b: v128): v128 {
  const at = VP + L.Vp_bounce2;
  v128.store(at, a);
  v128.store(at, b, 16);
  const from = at + (imm & 4), block = at + 16 + (imm & 3) * 4;
  for (let i = 0; i < 8; i++) {
    let sum: i32 = 0;
    for (let k = 0; k < 4; k++) sum += abs<i32>(i32(load<u8>(from + i + k)) - i32(load<u8>(block + k)));
    store<u16>(at + 32 + i * 2, <u16>sum);
  }
  return v128.load(at, 32);
}
/** PHMINPOSUW: the smallest word, and where it is. */
function minimum(b: v128): v128 {
  const at = VP + L.Vp_bounce2;
  v128.store(at, b);
  let best: u32 = 0x10000, where = 0;
  for (let i = 0; i < 8; i++) {
    const x = u32(load<u16>(at + i * 2));
    if (x < best) {
      best = x;
      where = i;
    }
  }
  return i64x2.replace_lane(i64x2.splat(0), 0, i64(best | (u32(where) << 16)));
}
export function vectorOp(code: i32, a: v128, b: v128): v128 {
  const op = code & 0xff, imm = (code >> 16) & 0xff;
  if (op <= L.VectorOp_aeskeygenassist) return aes(op, imm, a, b);
  if (op <= L.VectorOp_sha1msg2) return sha1(op, imm, a, b);
  if (op <= L.VectorOp_sha256msg2) return sha256message(op, a, b);
  if (op == L.VectorOp_mpsadbw) return mpsadbw(imm, a, b);
  if (op == L.VectorOp_phminposuw) return minimum(b);
  const x = (imm & 1) != 0 ? i64x2.extract_lane(a, 1) : i64x2.extract_lane(a, 0);
  const y = (imm & 16) != 0 ? i64x2.extract_lane(b, 1) : i64x2.extract_lane(b, 0);
  return carrylessMultiply(x, y);
}

@inline function item(at: i32, i: i32, imm: i32): i32 {
  switch (imm & 3) {
    case 0: return i32(load<u8>(at + i));
    case 1: return i32(load<u16>(at + i * 2));
    case 2: return i32(load<i8>(at + i));
    default: return i32(load<i16>(at + i * 2));
  }
}
/** Number of elements before the first zero. */
function implicitLength(at: i32, n: i32, imm: i32): i32 {
  for (let i = 0; i < n; i++) if (item(at, i, imm) == 0) return i;
  return n;
}
/**
 * PCMPESTRx and PCMPISTRx (Intel SDM vol. 2, "String comparison instructions").
 * @param la lengths of the operands in elements, negative = up to the first zero
 */
export function compareStrings(imm: i32, a: v128, b: v128, la: i32, lb: i32): i32 {
  const pa = VP + L.Vp_bounce2, pb = pa + 16;
  v128.store(pa, a);
  v128.store(pb, b);
  const n = (imm & 1) != 0 ? 8 : 16;
  const na = la < 0 ? implicitLength(pa, n, imm) : min(la, n), nb = lb < 0 ? implicitLength(pb, n, imm) : min(lb, n);
  let mask: u32 = 0;
  for (let j = 0; j < n; j++) {
    let t = false;
    switch ((imm >> 2) & 3) {
      case 0:
        if (j < nb) for (let i = 0; i < na; i++) t = t || item(pa, i, imm) == item(pb, j, imm);
        break;
      case 1:
        if (j < nb) {
          const x = item(pb, j, imm);
          for (let i = 0; i + 1 < na; i += 2) t = t || (item(pa, i, imm) <= x && x <= item(pa, i + 1, imm));
        }
        break;
      case 2:
        t = j < na && j < nb ? item(pa, j, imm) == item(pb, j, imm) : j >= na && j >= nb;
        break;
      default:
        t = true;
        for (let i = 0; i < na && i + j < n; i++) t = t && i + j < nb && item(pa, i, imm) == item(pb, i + j, imm);
    }
    if (t) mask |= 1 << j;
  }
  const all: u32 = n == 16 ? 0xffff : 0xff;
  if ((imm & 0x10) != 0) mask ^= (imm & 0x20) != 0 ? (u32(1) << nb) - 1 : all;
  const flags: u32 = u32(mask != 0) | (u32(nb < n) << 6) | (u32(na < n) << 7) | ((mask & 1) << 11);
  return i32(mask | (flags << 16));
}
