/** Far jumps, calls and returns to code segments, and loads of far pointers (Intel SDM vol. 2, CALL, JMP, RET, LDS). */
import { throughGate } from "./call-gate";
import * as L from "./layout";
import { readable } from "./mmu";
import * as S from "./segment";
import { code64, cpl, fault, gp, gpr, longMode, protectedMode, set64, setGpr, updateMode } from "./state";
import { ea, nextRip, peekValue, pushValue, setRegister, setStack, topValue } from "./system";

/** In long mode, only the lower half of an offset counts for a segment of compatibility mode. */
@inline function offsetFor(long: bool, offset: u64): u64 { return long || !longMode() ? offset : offset & 0xffffffff; }
/** Checks a transfer to CS at the same level, changing nothing but the descriptor's accessed bit. @returns 0 = fault */
function checkTarget(sel: u32, offset: u64): i32 {
  if (!protectedMode()) return 1;
  const e = i32(sel & 0xfffc);
  if (e == 0) return gp(0);
  if (!S.readDescriptor(sel, 13, false)) return 0;
  if ((S.high & 0x1800) != 0x1800) return gp(e);
  const dpl = i32(S.descDpl());
  if ((S.high & 0x400) != 0 ? dpl > cpl() : i32(sel & 3) > cpl() || dpl != cpl()) return gp(e);
  if ((S.high & 0x8000) == 0) return fault(11, e);
  const long = longMode() && (S.high & 0x200000) != 0;
  if (long && (S.high & 0x400000) != 0) return gp(e);
  if (long ? u64((i64(offset) << 16) >> 16) != offset : offsetFor(long, offset) > u64(S.descLimit())) return gp(0);
  return S.markAccessed();
}
/** What checkTarget has found good. */
function enterTarget(sel: u32, offset: u64): i32 {
  if (!protectedMode()) {
    S.set(L.SegIndex_cs, sel, S.attributes(L.SegIndex_cs), S.limit(L.SegIndex_cs), u64(sel) << 4);
    updateMode();
    set64(L.Vp_rip, (offset & 0xffff) + (u64(sel) << 4));
  } else {
    S.setCodeSegment(sel, cpl());
    set64(L.Vp_rip, code64() ? offset : (offset + S.base(L.SegIndex_cs)) & 0xffffffff);
  }
  return L.Status_redispatch;
}

function retFar(r: i32): i32 {
  const size = i32(load<u8>(r, L.Rec_link)) >> 3;
  if (!peekValue(size, 0)) return L.Status_fault;
  const rip = topValue;
  if (!peekValue(size, size)) return L.Status_fault;
  const cs = u32(topValue) & 0xffff;
  const release = u64(((load<u32>(r, L.Rec_link) >> 16) & 0xff) == 0xca ? load<u16>(r, L.Rec_imm) : 0);
  if (!protectedMode() || i32(cs & 3) == cpl()) {
    if (!checkTarget(cs, rip)) return L.Status_fault;
    // by the stack's size of the code that returns
    setStack(gpr(4) + u64(2 * size) + release);
    return enterTarget(cs, rip);
  }
  const level = i32(cs & 3);
  const e = i32(cs & 0xfffc);
  if (e == 0 || level < cpl()) {
    gp(e);
    return L.Status_fault;
  }
  if (!peekValue(size, 2 * size + i32(release))) return L.Status_fault;
  const newSp = topValue;
  if (!peekValue(size, 3 * size + i32(release))) return L.Status_fault;
  const ss = u32(topValue) & 0xffff;
  if (!S.readDescriptor(cs, 13, false)) return L.Status_fault;
  if ((S.high & 0x1800) != 0x1800 || ((S.high & 0x400) != 0 ? i32(S.descDpl()) > level : i32(S.descDpl()) != level)) {
    gp(e);
    return L.Status_fault;
  }
  if ((S.high & 0x8000) == 0) {
    fault(11, e);
    return L.Status_fault;
  }
  const far64 = longMode() && (S.high & 0x200000) != 0;
  if (far64 && (S.high & 0x400000) != 0) {
    gp(e);
    return L.Status_fault;
  }
  if (far64 ? u64((i64(rip) << 16) >> 16) != rip : offsetFor(far64, rip) > u64(S.descLimit())) {
    gp(0);
    return L.Status_fault;
  }
  if (!S.markAccessed()) return L.Status_fault;
  const attr = S.descAttr(), lim = S.descLimit(), long = longMode() && (S.high & 0x200000) != 0;
  const b = long ? 0 : S.descBase();
  if ((ss & 0xfffc) != 0) {
    if (!S.readDescriptor(ss, 13, false)) return L.Status_fault;
    if (i32(ss & 3) != level || i32(S.descDpl()) != level || (S.high & 0x1a00) != 0x1200) {
      gp(i32(ss & 0xfffc));
      return L.Status_fault;
    }
    if ((S.high & 0x8000) == 0) {
      fault(12, i32(ss & 0xfffc));
      return L.Status_fault;
    }
    if (!S.markAccessed()) return L.Status_fault;
    S.set(L.SegIndex_ss, ss, S.descAttr(), S.descLimit(), S.descBase());
  } else if (!long || level == 3) {
    gp(0);
    return L.Status_fault;
  } else S.set(L.SegIndex_ss, ss, L.SegAttr_unusable | (level << 5), 0, 0);
  S.set(L.SegIndex_cs, cs, attr, lim, b);
  S.setCodeLevel(level);
  setStack(newSp + release);
  S.dropInnerSegments(level);
  set64(L.Vp_rip, long ? rip : (rip + b) & 0xffffffff);
  return L.Status_redispatch;
}

export function far(r: i32): i32 {
  const which = i32(load<u8>(r, L.Rec_src2));
  if (which == L.System_retFar) return retFar(r);
  const bits = i32(load<u8>(r, L.Rec_link));
  const size = bits >> 3;
  let offset: u64;
  let sel: u32;
  if (which == L.System_farPointerCall || which == L.System_farPointerJmp) {
    offset = u64(load<u32>(r, L.Rec_imm));
    sel = load<u16>(r, L.Rec_dst);
  } else {
    const va = ea(r);
    const a = readable(va, size);
    if (a == 0) return L.Status_fault;
    offset = size == 8 ? load<u64>(a) : size == 4 ? u64(load<u32>(a)) : u64(load<u16>(a));
    const s = readable(va + u64(size), 2);
    if (s == 0) return L.Status_fault;
    sel = load<u16>(s);
  }
  if (which == L.System_lds) {
    const op = (load<u32>(r, L.Rec_link) >> 16) & 0xff;
    const seg = op == 0xc4 ? L.SegIndex_es : op == 0xc5 ? L.SegIndex_ds : op == 0xb2 ? L.SegIndex_ss : op == 0xb4 ? L.SegIndex_fs : L.SegIndex_gs;
    if (!S.loadSegment(seg, sel)) return L.Status_fault;
    setRegister(load<u16>(r, L.Rec_dst), bits, offset);
    updateMode();
    set64(L.Vp_rip, nextRip(r));
    return L.Status_redispatch;
  }
  const calls = which == L.System_callFar || which == L.System_farPointerCall;
  if (protectedMode() && (sel & 0xfffc) != 0) {
    if (!S.readDescriptor(sel, 13, false)) return L.Status_fault;
    if ((S.high & 0x1000) == 0) return throughGate(sel, calls, nextRip(r) - (code64() ? 0 : S.base(L.SegIndex_cs)));
  }
  if (calls) {
    const oldCs = u64(S.selector(L.SegIndex_cs));
    const back = nextRip(r) - (code64() ? 0 : S.base(L.SegIndex_cs));
    const sp = gpr(4);
    if (!checkTarget(sel, offset)) return L.Status_fault;
    if (!pushValue(oldCs, size)) return L.Status_fault;
    if (!pushValue(back, size)) {
      setGpr(4, sp);
      return L.Status_fault;
    }
    return enterTarget(sel, offset);
  }
  return checkTarget(sel, offset) ? enterTarget(sel, offset) : L.Status_fault;
}
export function farTransfer(r: i32): i32 { return far(r); }
