/** FXSAVE, FXRSTOR, XSAVE, XRSTOR (Intel SDM vol. 1, chapters 10.5 and 13). x87 registers are kept by physical number; the images by stack position. */
import { VP } from "./env";
import * as L from "./layout";
import { plainWritable, readable, writeBytes } from "./mmu";
import { ea } from "./system";
import { initialize, setControlWord, summarize } from "./x87-stack";
import { checksAlignment, code64, fault, get16, get32, get64, gp, gpr, mxcsr as guestMxcsr, set16, set32, set64, setMxcsr, ud } from "./state";

const IMAGE: i32 = L.Vp_scratch;

/** @param wide REX.W: instruction and data pointer have 64 bits; else 32, and a selector that is 0 here (CPUID's ZERO_FCS_FDS) */
function x87ToImage(to: i32, wide: bool): void {
  const top = (get16(L.Vp_fsw) >> 11) & 7;
  store<u16>(to, <u16>get16(L.Vp_fcw));
  store<u16>(to, <u16>get16(L.Vp_fsw), 2);
  store<u16>(to, <u16>get16(L.Vp_ftw), 4);
  store<u16>(to, <u16>get16(L.Vp_fop), 6);
  store<u64>(to, wide ? get64(L.Vp_fip) : get64(L.Vp_fip) & 0xffffffff, 8);
  store<u64>(to, wide ? get64(L.Vp_fdp) : get64(L.Vp_fdp) & 0xffffffff, 16);
  for (let i: u32 = 0; i < 8; i++) {
    const from = VP + L.Vp_x87 + i32((top + i) & 7) * 16;
    store<u64>(to + 32 + i32(i) * 16, load<u64>(from));
    store<u64>(to + 32 + i32(i) * 16, u64(load<u16>(from, 8)), 8);
  }
}
function x87FromImage(from: i32, wide: bool): void {
  setControlWord(load<u16>(from));
  set16(L.Vp_fsw, load<u16>(from, 2));
  summarize();
  set16(L.Vp_ftw, load<u8>(from, 4));
  set16(L.Vp_fop, load<u16>(from, 6) & 0x7ff);
  set64(L.Vp_fip, wide ? load<u64>(from, 8) : u64(load<u32>(from, 8)));
  set64(L.Vp_fdp, wide ? load<u64>(from, 16) : u64(load<u32>(from, 16)));
  const top = (load<u16>(from, 2) >> 11) & 7;
  for (let i: u32 = 0; i < 8; i++) {
    const to = VP + L.Vp_x87 + i32((top + i) & 7) * 16;
    store<u64>(to, load<u64>(from + 32 + i32(i) * 16));
    store<u16>(to, load<u16>(from + 32 + i32(i) * 16, 8), 8);
  }
}
@inline function wide(r: i32): bool { return load<u8>(r, L.Rec_link) == 64; }

/** FXSAVE and FXRSTOR at no multiple of 16: #GP, or #AC where alignment is checked (SDM vol. 2, FXSAVE). */
function unaligned(va: u64): i32 {
  if (checksAlignment() && (va & 7) != 0 && u64((i64(va) << 16) >> 16) == va) fault(17, 0);
  else gp(0);
  return L.Status_fault;
}
export function fxsave(r: i32): i32 {
  const va = ea(r);
  if ((va & 15) != 0) return unaligned(va);
  const image = VP + IMAGE;
  x87ToImage(image, wide(r));
  store<u32>(image, guestMxcsr(), 24);
  store<u32>(image, 0xffff, 28);
  const n = code64() ? 16 : 8;
  memory.copy(image + 160, VP + L.Vp_xmm, n * 16);
  // bytes 416..511 (288.. outside 64-bit mode) are not written, but have to be there
  if (plainWritable(va, 1) == 0 || plainWritable(va + 511, 1) == 0) return L.Status_fault;
  return writeBytes(va, 160 + n * 16, image) ? L.Status_next : L.Status_fault;
}
/** Copies a guest structure of up to 1 KiB to the scratch area. */
function fetch(va: u64, size: i32): i32 {
  for (let done = 0; done < size; done += 16) {
    const at = readable(va + u64(done), 16);
    if (at == 0) return 0;
    memory.copy(VP + IMAGE + done, at, 16);
  }
  return 1;
}
export function fxrstor(r: i32): i32 {
  const va = ea(r);
  if ((va & 15) != 0) return unaligned(va);
  if (!fetch(va, 512)) return L.Status_fault;
  const image = VP + IMAGE;
  const mxcsr = load<u32>(image, 24);
  if ((mxcsr & 0xffff0000) != 0) {
    gp(0);
    return L.Status_fault;
  }
  x87FromImage(image, wide(r));
  setMxcsr(mxcsr);
  memory.copy(VP + L.Vp_xmm, image + 160, (code64() ? 16 : 8) * 16);
  return L.Status_next;
}

/** @param compact XSAVEC: the header says so; with x87 and SSE alone the layout is the same */
export function xsave(r: i32, compact: bool): i32 {
  if ((get64(L.Vp_cr4) & 0x40000) == 0) {
    ud();
    return L.Status_fault;
  }
  const va = ea(r);
  if ((va & 63) != 0) {
    gp(0);
    return L.Status_fault;
  }
  const mask = ((gpr(0) & 0xffffffff) | (gpr(2) << 32)) & get64(L.Vp_xcr0);
  const image = VP + IMAGE;
  if ((mask & 1) != 0) {
    x87ToImage(image, wide(r));
    if (!writeBytes(va, 24, image)) return L.Status_fault;
    if (!writeBytes(va + 32, 128, image + 32)) return L.Status_fault;
  }
  if ((mask & 2) != 0) {
    store<u32>(image, guestMxcsr(), 24);
    store<u32>(image, 0xffff, 28);
    if (!writeBytes(va + 24, 8, image + 24)) return L.Status_fault;
    if (!writeBytes(va + 160, (code64() ? 16 : 8) * 16, VP + L.Vp_xmm)) return L.Status_fault;
  }
  const at = readable(va + 512, 8);
  if (at == 0) return L.Status_fault;
  store<u64>(image, compact ? mask : (load<u64>(at) & ~mask) | mask);
  store<u64>(image, compact ? mask | (u64(1) << 63) : 0, 8);
  return writeBytes(va + 512, compact ? 16 : 8, image) ? L.Status_next : L.Status_fault;
}
export function xrstor(r: i32): i32 {
  if ((get64(L.Vp_cr4) & 0x40000) == 0) {
    ud();
    return L.Status_fault;
  }
  const va = ea(r);
  if ((va & 63) != 0) {
    gp(0);
    return L.Status_fault;
  }
  if (!fetch(va, 576)) return L.Status_fault;
  const image = VP + IMAGE;
  const present = load<u64>(image, 512), layout = load<u64>(image, 520);
  const compact = (layout >> 63) != 0;
  const xcr0 = get64(L.Vp_xcr0);
  // the standard form checks bytes 8..23 of the header, the compact one 16..63
  let reserved = load<u64>(image, 528);
  if (compact) for (let i = 536; i < 576; i += 8) reserved |= load<u64>(image + i);
  if (reserved != 0 || (present & ~xcr0) != 0 || (compact ? ((layout << 1 >> 1) & ~xcr0) != 0 || (present & ~layout) != 0 : layout != 0)) {
    gp(0);
    return L.Status_fault;
  }
  const mask = ((gpr(0) & 0xffffffff) | (gpr(2) << 32)) & xcr0;
  if ((mask & 2) != 0) {
    // the standard form takes MXCSR whatever XSTATE_BV says; in the compact form it is a part of SSE
    const mxcsr = compact && (present & 2) == 0 ? 0x1f80 : load<u32>(image, 24);
    if ((mxcsr & 0xffff0000) != 0) {
      gp(0);
      return L.Status_fault;
    }
    setMxcsr(mxcsr);
    if ((present & 2) != 0) memory.copy(VP + L.Vp_xmm, image + 160, (code64() ? 16 : 8) * 16);
    else memory.fill(VP + L.Vp_xmm, 0, (code64() ? 16 : 8) * 16);
  }
  if ((mask & 1) != 0) {
    if ((present & 1) != 0) x87FromImage(image, wide(r));
    else {
      initialize();
      memory.fill(VP + L.Vp_x87, 0, 128);
    }
  }
  return L.Status_next;
}
