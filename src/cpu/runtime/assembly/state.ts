/** Access to the processor's block: registers, flags, faults, mode. */
import { VP } from "./env";
import * as L from "./layout";
import { fillTlbNone, forgetUserPages } from "./mmu";

export const CF: u32 = 1, PF: u32 = 4, AF: u32 = 16, ZF: u32 = 64, SF: u32 = 128, TF: u32 = 0x100, IF: u32 = 0x200, DF: u32 = 0x400, OF: u32 = 0x800;
export const NT: u32 = 0x4000, RF: u32 = 0x10000, VM: u32 = 0x20000, AC: u32 = 0x40000, ID: u32 = 0x200000;
export const ARITHMETIC: u32 = 0x8d5;

@inline export function get8(o: i32): u32 { return load<u8>(VP + o); }
@inline export function get16(o: i32): u32 { return load<u16>(VP + o); }
@inline export function get32(o: i32): u32 { return load<u32>(VP + o); }
@inline export function get64(o: i32): u64 { return load<u64>(VP + o); }
@inline export function set8(o: i32, v: u32): void { store<u8>(VP + o, <u8>v); }
@inline export function set16(o: i32, v: u32): void { store<u16>(VP + o, <u16>v); }
@inline export function set32(o: i32, v: u32): void { store<u32>(VP + o, v); }
@inline export function set64(o: i32, v: u64): void { store<u64>(VP + o, v); }
@inline export function gpr(n: i32): u64 { return get64(L.Vp_gpr + n * 8); }
@inline export function setGpr(n: i32, v: u64): void { set64(L.Vp_gpr + n * 8, v); }

export function count(stat: i32): void {
  const at = VP + L.Vp_stats + stat * 8;
  store<u64>(at, load<u64>(at) + 1);
}

// ---- flags (FlagKind in layout.ts) ------------------------------------------------------------------------------------

export function carry(): i32 {
  const a = get64(L.Vp_flagA), b = get64(L.Vp_flagB), r = get64(L.Vp_flagR);
  switch (get32(L.Vp_flagKind)) {
    case L.FlagKind_sub: return i32(a < b);
    case L.FlagKind_sbb: return i32(((~a & b) | (~(a ^ b) & r)) >> 63);
    case L.FlagKind_add: return i32(((a & b) | ((a | b) & ~r)) >> 63);
    default: return i32(b & 1);
  }
}

export function packedFlags(): i32 {
  const a = get64(L.Vp_flagA), b = get64(L.Vp_flagB), r = get64(L.Vp_flagR);
  const kind = get32(L.Vp_flagKind);
  const zf: u32 = r == 0 ? ZF : 0;
  if (kind == L.FlagKind_packed) return i32((u32(b) & (ARITHMETIC & ~ZF)) | zf);
  let f: u32 = zf | (u32(r >> 56) & SF);
  if ((popcnt<u32>(u32(r) & 0xff) & 1) == 0) f |= PF;
  if (kind == L.FlagKind_explicit) return i32(f | (u32(b) & (CF | AF | OF)));
  f |= u32(carry());
  switch (kind) {
    case L.FlagKind_sub:
    case L.FlagKind_sbb:
      f |= u32((a ^ b ^ r) & 0x10);
      if (((a ^ b) & (a ^ r)) >> 63) f |= OF;
      break;
    case L.FlagKind_add:
      f |= u32((a ^ b ^ r) & 0x10);
      if (((a ^ r) & (b ^ r)) >> 63) f |= OF;
      break;
    case L.FlagKind_inc:
      f |= u32((a ^ r) & 0x10);
      if ((~a & r) >> 63) f |= OF;
      break;
    case L.FlagKind_dec:
      f |= u32((a ^ r) & 0x10);
      if ((a & ~r) >> 63) f |= OF;
      break;
  }
  return i32(f);
}

export function condition(cc: i32): i32 {
  const f = u32(packedFlags());
  let t: bool;
  switch (cc >> 1) {
    case 0: t = (f & OF) != 0; break;
    case 1: t = (f & CF) != 0; break;
    case 2: t = (f & ZF) != 0; break;
    case 3: t = (f & (CF | ZF)) != 0; break;
    case 4: t = (f & SF) != 0; break;
    case 5: t = (f & PF) != 0; break;
    case 6: t = ((f & SF) != 0) != ((f & OF) != 0); break;
    default: t = (f & ZF) != 0 || ((f & SF) != 0) != ((f & OF) != 0); break;
  }
  return i32(t) ^ (cc & 1);
}

export function setArithmetic(f: u32): void {
  set64(L.Vp_flagB, f & ARITHMETIC);
  set64(L.Vp_flagR, (f & ZF) ^ ZF);
  set64(L.Vp_flagA, 0);
  set32(L.Vp_flagKind, L.FlagKind_packed);
}
export function rflags(): u32 {
  return get32(L.Vp_rflags) | u32(packedFlags()) | 2;
}
export function setRflags(f: u32): void {
  if ((get32(L.Vp_rflags) & ~f & AC) != 0) forgetUserPages();
  const changed = (get32(L.Vp_rflags) ^ f) & AC;
  set32(L.Vp_rflags, f & ~ARITHMETIC & 0x3f7fd5);
  setArithmetic(f);
  if (changed != 0) setAlignmentCheck();
}

/** The guest's part of Vp.mxcsr. */
@inline export function mxcsr(): u32 { return get32(L.Vp_mxcsr) & 0xffff; }
export function setMxcsr(v: u32): void { set32(L.Vp_mxcsr, (get32(L.Vp_mxcsr) & L.MXCSR_STRICT) | v); }

// ---- faults ---------------------------------------------------------------------------------------------------------------

/**
 * After RFLAGS was loaded: with TF set the loop is left, so that just one instruction runs (partition.ts); so it is with RF where
 * there are breakpoints that it holds off. @returns Status
 */
export function afterFlags(): i32 {
  const stops = (get32(L.Vp_mode) & L.ModeKey_debug) != 0 ? TF | RF : TF;
  if ((get32(L.Vp_rflags) & stops) == 0) return L.Status_redispatch;
  set32(L.Vp_exitReason, L.Exit_event);
  return L.Status_exit;
}

/** Records an exception; error < 0 = it has no error code. @returns 0, what a faulting helper returns */
export function fault(vector: i32, error: i32): i32 {
  set32(L.Vp_faultVector, vector);
  set32(L.Vp_faultError, error < 0 ? 0 : error);
  set32(L.Vp_faultHasError, i32(error >= 0));
  return 0;
}
export function gp(error: i32): i32 { return fault(13, error); }
export function ud(): i32 { return fault(6, -1); }

/** Called by definitions: the record is only needed by the loop. */
export function raise(vector: i32, error: i32, pc: i32): void {
  fault(vector, error);
}

// ---- mode -------------------------------------------------------------------------------------------------------------------

@inline export function cpl(): i32 { return i32(get32(L.Vp_cpl)); }
@inline export function longMode(): bool { return (get64(L.Vp_efer) & 0x400) != 0; }
@inline export function code64(): bool { return (get32(L.Vp_mode) & L.ModeKey_codeMask) == L.ModeKey_code64; }
@inline export function protectedMode(): bool { return (get64(L.Vp_cr0) & 1) != 0; }

function retag(): void {
  const user: u32 = cpl() == 3 ? 4 : 0;
  set32(L.Vp_jumpTag, (get32(L.Vp_mode) & L.ModeKey_codeMask) | user | (get32(user != 0 ? L.Vp_userGeneration : L.Vp_jumpGeneration) << 3));
}
/** Forgets every virtual address in the jump cache. */
export function flushJumps(): void {
  nextGeneration(L.Vp_jumpGeneration);
  nextGeneration(L.Vp_userGeneration);
  retag();
}
/** Those of level 3 alone. */
export function flushUserJumps(): void {
  nextGeneration(L.Vp_userGeneration);
  retag();
}
/** None is given out twice until they all begin anew (code.ts, renewTags). */
function nextGeneration(at: i32): void {
  const g = get32(L.Vp_lastGeneration) + 1;
  set32(L.Vp_lastGeneration, g);
  set32(at, g);
}
/** The user's code is known by an earlier generation again. */
export function reviveUserJumps(generation: u32): void {
  set32(L.Vp_userGeneration, generation);
  retag();
}
export function setCpl(level: i32): void {
  set32(L.Vp_cpl, level);
  set32(L.Vp_mode, level == 3 ? get32(L.Vp_mode) | L.ModeKey_user : get32(L.Vp_mode) & ~L.ModeKey_user);
  set32(L.Vp_tlb, VP + (level == 3 ? L.Vp_tlbUser : L.Vp_tlbSupervisor));
  setAlignmentCheck();
  retag();
}
@inline export function checksAlignment(): bool { return (get32(L.Vp_mode) & L.ModeKey_aligned) != 0; }
/** Whether alignment is checked from here on. While it is, every access comes by the slow path, which looks. */
function setAlignmentCheck(): void {
  const on = cpl() == 3 && (get32(L.Vp_rflags) & AC) != 0 && (get64(L.Vp_cr0) & 0x40000) != 0;
  if (on) {
    fillTlbNone();
    set32(L.Vp_tlb, VP + L.Vp_tlbNone);
  } else if (cpl() == 3) set32(L.Vp_tlb, VP + L.Vp_tlbUser);
  if (on == checksAlignment()) return;
  set32(L.Vp_mode, get32(L.Vp_mode) ^ L.ModeKey_aligned);
  // regions know the TLB that they look into
  flushJumps();
}
/** What decoding depends on, after CS, SS, CR0, CR4 or EFER changed. */
export function updateMode(): void {
  const cs = get16(L.Vp_seg + L.SegIndex_cs * L.SEG_BYTES + 2);
  const ss = get16(L.Vp_seg + L.SegIndex_ss * L.SEG_BYTES + 2);
  let m: u32;
  if (longMode() && (cs & L.SegAttr_long) != 0) m = L.ModeKey_code64;
  else {
    m = (cs & L.SegAttr_big) != 0 ? L.ModeKey_code32 : L.ModeKey_code16;
    if ((ss & L.SegAttr_big) != 0) m |= L.ModeKey_stack32;
    if ((get64(L.Vp_segBase) | get64(L.Vp_segBase + 8) | get64(L.Vp_segBase + 16) | get64(L.Vp_segBase + 24)) == 0) m |= L.ModeKey_flat;
  }
  const cr0 = get64(L.Vp_cr0);
  if ((cr0 & 8) != 0) m |= L.ModeKey_noFpu;
  if ((cr0 & 4) != 0) m |= L.ModeKey_emulate;
  if ((get64(L.Vp_cr4) & 0x200) == 0) m |= L.ModeKey_noSse;
  if ((cr0 & 1) == 0) m |= L.ModeKey_real;
  if (get32(L.Vp_singleStep) != 0) m |= L.ModeKey_single;
  if ((get64(L.Vp_dr + 56) & 0xff) != 0) m |= L.ModeKey_debug;
  if (cpl() == 3) m |= L.ModeKey_user;
  m |= get32(L.Vp_mode) & L.ModeKey_aligned;
  const old = get32(L.Vp_mode);
  set32(L.Vp_mode, m);
  // the jump cache's tags have code size and level in them
  if (((old ^ m) & ~(L.ModeKey_codeMask | L.ModeKey_user)) != 0) flushJumps();
  else retag();
  // CR0.AM
  setAlignmentCheck();
}
