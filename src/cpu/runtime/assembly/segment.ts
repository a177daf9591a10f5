/** Segment registers and descriptors (Intel SDM vol. 3, "Protected-Mode Memory Management"). */
import * as L from "./layout";
import { systemRead, systemWrite } from "./mmu";
import { cpl, fault, get16, get32, get64, gp, longMode, protectedMode, set16, set32, set64, setCpl, updateMode } from "./state";

/** The descriptor last read: low and high words; the upper half of a 16-byte one. */
export let low: u32 = 0;
export let high: u32 = 0;
export let upper: u32 = 0;
export let upperHigh: u32 = 0;
let descriptorAt: u64 = 0;

@inline export function selector(seg: i32): u32 { return get16(L.Vp_seg + seg * L.SEG_BYTES); }
@inline export function attributes(seg: i32): u32 { return get16(L.Vp_seg + seg * L.SEG_BYTES + 2); }
@inline export function limit(seg: i32): u32 { return get32(L.Vp_seg + seg * L.SEG_BYTES + 4); }
@inline export function base(seg: i32): u64 { return get64(L.Vp_seg + seg * L.SEG_BYTES + 8); }

export function set(seg: i32, sel: u32, attr: u32, lim: u32, b: u64): void {
  const at = L.Vp_seg + seg * L.SEG_BYTES;
  set16(at, sel);
  set16(at + 2, attr);
  set32(at + 4, lim);
  set64(at + 8, b);
  if (seg < 6) set64(L.Vp_segBase + seg * 8, b);
}
export function setBase(seg: i32, b: u64): void {
  set64(L.Vp_seg + seg * L.SEG_BYTES + 8, b);
  set64(L.Vp_segBase + seg * 8, b);
}
/** Attributes, limit and base out of low and high. */
@inline export function descAttr(): u32 { return ((high >> 8) & 0xff) | ((high >> 8) & 0xf000); }
@inline export function descLimit(): u32 {
  const l = (low & 0xffff) | (high & 0xf0000);
  return (high & 0x800000) != 0 ? (l << 12) | 0xfff : l;
}
@inline export function descBase(): u64 { return u64((low >> 16) | ((high & 0xff) << 16) | (high & 0xff000000)); }
@inline export function descDpl(): u32 { return (high >> 13) & 3; }

/** Reads the descriptor of `sel` into low and high. @returns 0 = a fault `vector` with the selector is recorded */
export function readDescriptor(sel: u32, vector: i32, wide: bool): i32 {
  let table: u64, bound: u32;
  if ((sel & 4) != 0) {
    if ((attributes(L.SegIndex_ldtr) & L.SegAttr_unusable) != 0) return fault(vector, i32(sel & 0xfffc));
    table = base(L.SegIndex_ldtr);
    bound = limit(L.SegIndex_ldtr);
  } else {
    table = get64(L.Vp_gdtrBase);
    bound = get32(L.Vp_gdtrLimit);
  }
  const offset = sel & 0xfff8;
  if (offset + (wide ? 15 : 7) > bound) return fault(vector, i32(sel & 0xfffc));
  descriptorAt = table + u64(offset);
  const at = systemRead(descriptorAt, 8);
  if (at == 0) return 0;
  low = load<u32>(at);
  high = load<u32>(at, 4);
  upper = 0;
  if (wide) {
    const second = systemRead(descriptorAt + 8, 8);
    if (second == 0) return 0;
    upper = load<u32>(second);
    upperHigh = load<u32>(second, 4);
  }
  return 1;
}
/** Sets the accessed bit of the descriptor just read. */
export function markAccessed(): i32 {
  if ((high & 0x100) != 0) return 1;
  high |= 0x100;
  return systemWrite(descriptorAt + 4, 4, u64(high));
}

/** MOV to a segment register, POP, and the loads of a task's registers. @returns 0 = fault */
export function loadSegment(seg: i32, sel: u32): i32 {
  if (!protectedMode()) {
    set(seg, sel, attributes(seg), limit(seg), u64(sel) << 4);
    return 1;
  }
  const e = i32(sel & 0xfffc);
  if (e == 0) {
    // SS may be null in 64-bit mode below CPL 3
    if (seg == L.SegIndex_ss) {
      if (!(longMode() && (attributes(L.SegIndex_cs) & L.SegAttr_long) != 0 && cpl() != 3 && i32(sel & 3) == cpl())) return gp(0);
      set(seg, sel, L.SegAttr_unusable | (cpl() << 5), 0, 0);
    } else {
      // a null selector leaves FS.base and GS.base as Intel does: cleared
      set(seg, sel, L.SegAttr_unusable, 0, 0);
    }
    return 1;
  }
  if (!readDescriptor(sel, 13, false)) return 0;
  const rpl = sel & 3, dpl = descDpl();
  if ((high & 0x1000) == 0) return gp(e);
  if (seg == L.SegIndex_ss) {
    if (rpl != u32(cpl()) || dpl != u32(cpl()) || (high & 0x800) != 0 || (high & 0x200) == 0) return gp(e);
    if ((high & 0x8000) == 0) return fault(12, e);
  } else {
    const code = (high & 0x800) != 0;
    if (code && (high & 0x200) == 0) return gp(e);
    if (!(code && (high & 0x400) != 0) && (rpl > dpl || u32(cpl()) > dpl)) return gp(e);
    if ((high & 0x8000) == 0) return fault(11, e);
  }
  if (!markAccessed()) return 0;
  set(seg, sel, descAttr(), descLimit(), descBase());
  return 1;
}

/** LLDT and LTR. */
export function loadSystemSegment(seg: i32, sel: u32): i32 {
  const e = i32(sel & 0xfffc);
  if (seg == L.SegIndex_ldtr && e == 0) {
    set(seg, sel, L.SegAttr_unusable, 0, 0);
    return 1;
  }
  if (e == 0 || (sel & 4) != 0) return gp(e);
  if (!readDescriptor(sel, 13, longMode())) return 0;
  const type = (high >> 8) & 0x1f;
  if (seg == L.SegIndex_ldtr ? type != 2 : type != 9 && (type != 1 || longMode())) return gp(e);
  // what stands for the type in the upper half says that it is one (SDM vol. 3, "TSS Descriptor in 64-bit mode")
  if (longMode() && (upperHigh & 0x1f00) != 0) return gp(e);
  if ((high & 0x8000) == 0) return fault(11, e);
  const b = descBase() | (u64(upper) << 32);
  if (u64((i64(b) << 16) >> 16) != b) return gp(e);
  if (seg == L.SegIndex_tr) {
    high |= 0x200;
    if (!systemWrite(descriptorAt + 4, 4, u64(high))) return 0;
  }
  set(seg, sel, descAttr(), descLimit(), b);
  return 1;
}

/** CS from the descriptor just read, at privilege level `level`. */
export function setCodeSegment(sel: u32, level: i32): void {
  set(L.SegIndex_cs, (sel & 0xfffc) | u32(level), descAttr(), descLimit(), longMode() && (high & 0x200000) != 0 ? 0 : descBase());
  setCpl(level);
  updateMode();
}
/** Flat CS and SS as SYSCALL, SYSRET, SYSENTER and SYSEXIT load them. */
export function setFlat(cs: u32, ss: u32, level: i32, long: bool): void {
  const dpl = u32(level) << 5;
  set(L.SegIndex_cs, cs, 0x9b | dpl | L.SegAttr_granular | (long ? L.SegAttr_long : L.SegAttr_big), 0xffffffff, 0);
  set(L.SegIndex_ss, ss, 0x93 | dpl | L.SegAttr_granular | L.SegAttr_big, 0xffffffff, 0);
  setCpl(level);
  updateMode();
}
/** After a return to an outer level: data segments that it may not use become null (SDM vol. 2, IRET and RET). */
export function dropInnerSegments(level: i32): void {
  for (let seg = 0; seg < 6; seg++) {
    if (seg == L.SegIndex_cs || seg == L.SegIndex_ss) continue;
    const attr = attributes(seg);
    if ((attr & L.SegAttr_unusable) != 0) {
      // a null selector loses its RPL; a base that was written by MSR stays
      set16(L.Vp_seg + seg * L.SEG_BYTES, 0);
      continue;
    }
    // non-conforming code and data
    if ((attr & 0x1c) != 0x1c && i32((attr >> 5) & 3) < level) set(seg, 0, L.SegAttr_unusable, 0, base(seg));
  }
}
/** Privilege level after CS was set by hand. */
export function setCodeLevel(level: i32): void {
  setCpl(level);
  updateMode();
}
