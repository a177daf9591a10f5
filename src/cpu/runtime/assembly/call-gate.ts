/** Call gates: far calls and jumps to a code segment that a descriptor names (Intel SDM vol. 3, "Call Gates"). */
import * as L from "./layout";
import { stackAccess, systemRead, systemWrite } from "./mmu";
import * as S from "./segment";
import { code64, cpl, fault, gp, gpr, longMode, set64, setGpr, updateMode } from "./state";

const LARGE: u32 = 0xc, SMALL: u32 = 4;

let sp: u64 = 0;
function push(v: u64, size: i32, base: u64, mask: u64): i32 {
  sp = (sp - u64(size)) & mask;
  return systemWrite(base + sp, size, v, true);
}

/**
 * Through the gate whose descriptor was just read (S.low, S.high).
 * @param back RIP behind the instruction, relative to CS
 * @returns Status
 */
export function throughGate(gate: u32, calls: bool, back: u64): i32 {
  const e = i32(gate & 0xfffc);
  const type = (S.high >> 8) & 0x1f;
  const long = longMode();
  // task gates and task states are not for long mode, and tasks are not switched by hardware here
  if (type != LARGE && (type != SMALL || long)) { gp(e); return L.Status_fault; }
  if (S.descDpl() < u32(cpl()) || S.descDpl() < (gate & 3)) { gp(e); return L.Status_fault; }
  if (long) {
    if (!S.readDescriptor(gate, 13, true)) return L.Status_fault;
    if ((S.upperHigh & 0x1f00) != 0) { gp(e); return L.Status_fault; }
  }
  if ((S.high & 0x8000) == 0) { fault(11, e); return L.Status_fault; }
  const size = long ? 8 : type == LARGE ? 4 : 2;
  const parameters = i32(S.high & 31);
  const offset = u64(S.low & 0xffff) | (size == 2 ? 0 : u64(S.high & 0xffff0000)) | (long ? u64(S.upper) << 32 : 0);
  const sel = S.low >> 16;
  const t = i32(sel & 0xfffc);
  if (t == 0) { gp(0); return L.Status_fault; }
  if (!S.readDescriptor(sel, 13, false)) return L.Status_fault;
  const conforming = (S.high & 0x400) != 0;
  const dpl = i32(S.descDpl());
  if ((S.high & 0x1800) != 0x1800 || dpl > cpl() || (!calls && !conforming && dpl != cpl())) { gp(t); return L.Status_fault; }
  if (long && ((S.high & 0x200000) == 0 || (S.high & 0x400000) != 0)) { gp(t); return L.Status_fault; }
  if ((S.high & 0x8000) == 0) { fault(11, t); return L.Status_fault; }
  if (long ? u64((i64(offset) << 16) >> 16) != offset : offset > u64(S.descLimit())) { gp(0); return L.Status_fault; }
  const level = conforming ? cpl() : dpl;
  if (!calls) return S.markAccessed() ? enter(sel, level, offset) : L.Status_fault;

  const oldCs = u64(S.selector(L.SegIndex_cs)), oldSs = S.selector(L.SegIndex_ss), oldSp = gpr(4);
  const oldBase: u64 = code64() ? 0 : S.base(L.SegIndex_ss);
  const oldMask: u64 = code64() ? u64.MAX_VALUE : (S.attributes(L.SegIndex_ss) & L.SegAttr_big) != 0 ? 0xffffffff : 0xffff;
  let ssSel = oldSs, ssAttr = S.attributes(L.SegIndex_ss), ssLimit = S.limit(L.SegIndex_ss), base = oldBase;
  let mask: u64 = long ? u64.MAX_VALUE : oldMask;
  sp = oldSp;
  if (level < cpl()) {
    const tr = i32(S.selector(L.SegIndex_tr) & 0xfffc);
    const small = !long && (S.attributes(L.SegIndex_tr) & 8) == 0;
    const at: u32 = long ? 4 + 8 * u32(level) : small ? 2 + 4 * u32(level) : 4 + 8 * u32(level);
    if (at + (long ? 7 : small ? 3 : 5) > S.limit(L.SegIndex_tr)) { fault(10, tr); return L.Status_fault; }
    const tss = systemRead(S.base(L.SegIndex_tr) + u64(at), long ? 8 : small ? 4 : 6);
    if (tss == 0) return L.Status_fault;
    if (long) {
      sp = load<u64>(tss);
      ssSel = u32(level);
      ssAttr = L.SegAttr_unusable | (level << 5);
      ssLimit = 0;
      base = 0;
    } else {
      sp = small ? u64(load<u16>(tss)) : u64(load<u32>(tss));
      ssSel = small ? load<u16>(tss, 2) : load<u16>(tss, 4);
      if (!S.readDescriptor(ssSel, 10, false)) return L.Status_fault;
      const s = i32(ssSel & 0xfffc);
      if ((ssSel & 3) != u32(level) || i32(S.descDpl()) != level || (S.high & 0x1a00) != 0x1200) { fault(10, s); return L.Status_fault; }
      if ((S.high & 0x8000) == 0) { fault(12, s); return L.Status_fault; }
      if (!S.markAccessed()) return L.Status_fault;
      ssAttr = S.descAttr();
      ssLimit = S.descLimit();
      base = S.descBase();
      mask = (ssAttr & L.SegAttr_big) != 0 ? 0xffffffff : 0xffff;
    }
    stackAccess(true);
    if (!push(u64(oldSs), size, base, mask) || !push(oldSp, size, base, mask)) return L.Status_fault;
    // 64-bit gates copy no parameters
    for (let i = long ? 0 : parameters; i > 0; i--) {
      const from = systemRead(oldBase + ((oldSp + u64((i - 1) * size)) & oldMask), size);
      if (from == 0) return L.Status_fault;
      if (!push(size == 4 ? u64(load<u32>(from)) : u64(load<u16>(from)), size, base, mask)) return L.Status_fault;
    }
  }
  stackAccess(true);
  if (!push(oldCs, size, base, mask) || !push(back, size, base, mask)) return L.Status_fault;
  if (!S.readDescriptor(sel, 13, false) || !S.markAccessed()) return L.Status_fault;
  S.set(L.SegIndex_ss, ssSel, ssAttr, ssLimit, long ? (ssAttr & L.SegAttr_unusable) != 0 ? 0 : S.base(L.SegIndex_ss) : base);
  setGpr(4, mask == u64.MAX_VALUE ? sp : (oldSp & ~mask) | sp);
  return enter(sel, level, offset);
}
function enter(sel: u32, level: i32, offset: u64): i32 {
  S.setCodeSegment(sel, level);
  updateMode();
  set64(L.Vp_rip, code64() ? offset : (offset + S.base(L.SegIndex_cs)) & 0xffffffff);
  return L.Status_redispatch;
}
