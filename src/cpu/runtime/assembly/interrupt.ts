/** Delivery of exceptions and interrupts, and IRET (Intel SDM vol. 3, "Interrupt and Exception Handling"). */
import { VP } from "./env";
import * as L from "./layout";
import { enterHandler, takeHits } from "./debug";
import { readable, stackAccess, systemRead, systemWrite } from "./mmu";
import * as S from "./segment";
import {
  AC, afterFlags, IF, NT, RF, TF, VM, ID, code64, count, cpl, fault, get16, get32, get64, gp, gpr, longMode, protectedMode, rflags, set32, set64, setCpl,
  setGpr, setRflags, updateMode,
} from "./state";

/** ICEBP: an instruction's, but without a look at the gate's privilege. */
const EXCEPTION: i32 = 0, EXTERNAL: i32 = 1, SOFTWARE: i32 = 2, PRIVILEGED: i32 = 3;

/** @returns 0 = delivered, 1 = triple fault */
export function deliverFault(pc: i32): i32 {
  if (pc != 0) set64(L.Vp_rip, get64(L.Vp_ripPage) + u64(load<u16>(pc, L.Rec_pageOffset)));
  count(L.Stat_exceptions);
  // no record: the fetch of an instruction has faulted; what the one before it has touched is trapped first
  if (pc == 0 && takeHits()) return deliverNested(1, false, 0, EXCEPTION);
  const vector = i32(get32(L.Vp_faultVector));
  // faults (not traps) push RF set
  return deliverNested(vector, get32(L.Vp_faultHasError) != 0, i32(get32(L.Vp_faultError)), EXCEPTION);
}
function contributory(v: i32): bool { return v == 0 || (v >= 10 && v <= 13); }

function deliverNested(vector: i32, hasError: bool, error: i32, kind: i32): i32 {
  let v = vector;
  let k = kind;
  let e = error;
  let h = hasError;
  for (;;) {
    if (k == EXCEPTION && v == 14) set64(L.Vp_cr2, get64(L.Vp_faultAddress));
    if (deliver(v, h, e, k) != 0) return 0;
    const second = i32(get32(L.Vp_faultVector));
    if (second == 14) set64(L.Vp_cr2, get64(L.Vp_faultAddress));
    if (v == 8 && k == EXCEPTION) return 1;
    const first = k == EXCEPTION ? v : -1;
    if ((contributory(first) && contributory(second)) || (first == 14 && (second == 14 || contributory(second)))) {
      v = 8;
      h = true;
      e = 0;
    } else {
      v = second;
      h = get32(L.Vp_faultHasError) != 0;
      e = i32(get32(L.Vp_faultError));
      // EXT in a selector's error code: the program did not ask for what was being delivered
      if (second >= 10 && second <= 13) e |= 1;
    }
    k = EXCEPTION;
  }
  return 1;
}
/** An interrupt from outside (external = 1) or NMI. RIP is in the block. @returns 1 = triple fault */
export function interrupt(vector: i32): i32 {
  count(L.Stat_interrupts);
  return deliverNested(vector, false, 0, EXTERNAL);
}
/** INT n, INT3, INTO, and ICEBP (`privileged`): RIP is that of the next instruction. @returns Status */
export function softwareInterrupt(vector: i32, privileged: bool, rip: u64, next: u64): i32 {
  set64(L.Vp_rip, next);
  if (deliver(vector, false, 0, privileged ? PRIVILEGED : SOFTWARE) != 0) return L.Status_redispatch;
  set64(L.Vp_rip, rip);
  return L.Status_fault;
}
/** A trap such as #DB after the instruction: RIP is already the next one. */
export function trap(vector: i32): i32 {
  return deliverNested(vector, false, 0, EXCEPTION);
}

let sp: u64 = 0;
function push(v: u64, size: i32, ssBase: u64, mask: u64): i32 {
  sp = (sp - u64(size)) & mask;
  return systemWrite(ssBase + sp, size, v, true);
}

/** One attempt. @returns 0 = a fault during delivery is recorded, nothing has changed */
function deliver(vector: i32, hasError: bool, error: i32, kind: i32): i32 {
  stackAccess(false);
  const done = longMode() ? deliverLong(vector, hasError, error, kind) : protectedMode() ? deliverProtected(vector, hasError, error, kind) : deliverReal(vector);
  stackAccess(false);
  if (done != 0) {
    set32(L.Vp_debugTrap, 0);
    // what an instruction before INT n has touched is trapped in its handler (MOV SS holds it off that long)
    if (kind != SOFTWARE) set32(L.Vp_debugHits, 0);
    if (vector == 1 && kind != SOFTWARE) enterHandler();
  }
  return done;
}
/** RIP as it is pushed: relative to CS. */
function instructionPointer(): u64 {
  const rip = get64(L.Vp_rip);
  return code64() ? rip : (rip - S.base(L.SegIndex_cs)) & 0xffffffff;
}

/** RFLAGS for a frame: RF is kept exactly while there are breakpoints (partition.ts); else it is an old one, of a return long ago. */
function flagsForFrame(): u32 {
  return (get32(L.Vp_mode) & L.ModeKey_debug) != 0 ? rflags() : rflags() & ~RF;
}

function deliverLong(vector: i32, hasError: bool, error: i32, kind: i32): i32 {
  const ext = kind == SOFTWARE ? 0 : 1;
  const bad = vector * 8 + 2 + ext;
  if (u32(vector * 16 + 15) > get32(L.Vp_idtrLimit)) return gp(bad);
  const gate = systemRead(get64(L.Vp_idtrBase) + u64(vector * 16), 16);
  if (gate == 0) return 0;
  const g0 = load<u32>(gate), g1 = load<u32>(gate, 4), g2 = load<u32>(gate, 8);
  const type = (g1 >> 8) & 0x1f;
  if (type != 0xe && type != 0xf) return gp(bad);
  if (kind == SOFTWARE && i32((g1 >> 13) & 3) < cpl()) return gp(vector * 8 + 2);
  if ((g1 & 0x8000) == 0) return fault(11, bad);
  const target = u64(g0 & 0xffff) | u64(g1 & 0xffff0000) | (u64(g2) << 32);
  const sel = g0 >> 16;
  if ((sel & 0xfffc) == 0) return gp(ext);
  if (!S.readDescriptor(sel, 13, false)) return 0;
  if ((S.high & 0x1800) != 0x1800 || i32(S.descDpl()) > cpl() || (S.high & 0x200000) == 0 || (S.high & 0x400000) != 0) return gp(i32(sel & 0xfffc) | ext);
  if ((S.high & 0x8000) == 0) return fault(11, i32(sel & 0xfffc) | ext);
  if (!S.markAccessed()) return 0;
  const level = (S.high & 0x400) != 0 ? cpl() : i32(S.descDpl());
  const ist = g1 & 7;
  const oldSp = gpr(4);
  if (ist != 0 || level < cpl()) {
    const offset: u32 = ist != 0 ? 0x1c + 8 * ist : 4 + 8 * u32(level);
    if (offset + 7 > S.limit(L.SegIndex_tr)) return fault(10, i32(S.selector(L.SegIndex_tr) & 0xfffc) | ext);
    const at = systemRead(S.base(L.SegIndex_tr) + u64(offset), 8);
    if (at == 0) return 0;
    sp = load<u64>(at);
  } else sp = oldSp;
  sp &= ~u64(15);
  let flags = flagsForFrame();
  if (kind == EXCEPTION && vector != 1 && vector != 3 && vector != 4 && vector != 8 && vector != 18) flags |= RF;
  const ss = u64(S.selector(L.SegIndex_ss));
  const cs = u64(S.selector(L.SegIndex_cs));
  stackAccess(true);
  if (!push(ss, 8, 0, u64.MAX_VALUE)) return 0;
  if (!push(oldSp, 8, 0, u64.MAX_VALUE)) return 0;
  if (!push(u64(flags), 8, 0, u64.MAX_VALUE)) return 0;
  if (!push(cs, 8, 0, u64.MAX_VALUE)) return 0;
  if (!push(instructionPointer(), 8, 0, u64.MAX_VALUE)) return 0;
  if (hasError && !push(u64(error), 8, 0, u64.MAX_VALUE)) return 0;
  const change = level != cpl();
  S.setCodeSegment(sel, level);
  if (change) {
    S.set(L.SegIndex_ss, u32(level), L.SegAttr_unusable | (level << 5), 0, 0);
    updateMode();
  }
  setGpr(4, sp);
  let f = get32(L.Vp_rflags) & ~(TF | NT | RF | VM);
  if (type == 0xe) f &= ~IF;
  set32(L.Vp_rflags, f);
  set64(L.Vp_rip, target);
  return 1;
}

function deliverProtected(vector: i32, hasError: bool, error: i32, kind: i32): i32 {
  const ext = kind == SOFTWARE ? 0 : 1;
  const bad = vector * 8 + 2 + ext;
  if (u32(vector * 8 + 7) > get32(L.Vp_idtrLimit)) return gp(bad);
  const gate = systemRead(get64(L.Vp_idtrBase) + u64(vector * 8), 8);
  if (gate == 0) return 0;
  const g0 = load<u32>(gate), g1 = load<u32>(gate, 4);
  const type = (g1 >> 8) & 0x1f;
  const wide = type >= 0xe;
  if (type != 0xe && type != 0xf && type != 6 && type != 7) return gp(bad);
  if (kind == SOFTWARE && i32((g1 >> 13) & 3) < cpl()) return gp(vector * 8 + 2);
  if ((g1 & 0x8000) == 0) return fault(11, bad);
  const sel = g0 >> 16;
  if ((sel & 0xfffc) == 0) return gp(ext);
  if (!S.readDescriptor(sel, 13, false)) return 0;
  if ((S.high & 0x1800) != 0x1800 || i32(S.descDpl()) > cpl()) return gp(i32(sel & 0xfffc) | ext);
  if ((S.high & 0x8000) == 0) return fault(11, i32(sel & 0xfffc) | ext);
  const level = (S.high & 0x400) != 0 ? cpl() : i32(S.descDpl());
  const oldSp = gpr(4), oldSs = S.selector(L.SegIndex_ss);
  let ssSel: u32 = oldSs, ssAttr = S.attributes(L.SegIndex_ss), ssLimit = S.limit(L.SegIndex_ss), ssBase = S.base(L.SegIndex_ss);
  sp = oldSp;
  const change = level < cpl();
  if (change) {
    const small = (S.attributes(L.SegIndex_tr) & 8) == 0; // a TSS of the 80286
    const offset: u32 = small ? 2 + 4 * level : 4 + 8 * level;
    if (offset + (small ? 3 : 5) > S.limit(L.SegIndex_tr)) return fault(10, i32(S.selector(L.SegIndex_tr) & 0xfffc) | ext);
    const tss = systemRead(S.base(L.SegIndex_tr) + u64(offset), small ? 4 : 6);
    if (tss == 0) return 0;
    sp = small ? u64(load<u16>(tss)) : u64(load<u32>(tss));
    ssSel = small ? load<u16>(tss, 2) : load<u16>(tss, 4);
    if (!S.readDescriptor(ssSel, 10, false)) return 0;
    if ((ssSel & 3) != u32(level) || i32(S.descDpl()) != level || (S.high & 0x1a00) != 0x1200) return fault(10, i32(ssSel & 0xfffc) | ext);
    if ((S.high & 0x8000) == 0) return fault(12, i32(ssSel & 0xfffc) | ext);
    if (!S.markAccessed()) return 0;
    ssAttr = S.descAttr();
    ssLimit = S.descLimit();
    ssBase = S.descBase();
  }
  const mask: u64 = (ssAttr & L.SegAttr_big) != 0 ? 0xffffffff : 0xffff;
  const size = wide ? 4 : 2;
  let flags = flagsForFrame();
  if (kind == EXCEPTION && vector != 1 && vector != 3 && vector != 4 && vector != 8) flags |= RF;
  if (change) {
    if (!push(u64(oldSs), size, ssBase, mask)) return 0;
    if (!push(oldSp, size, ssBase, mask)) return 0;
  }
  if (!push(u64(flags), size, ssBase, mask)) return 0;
  if (!push(u64(S.selector(L.SegIndex_cs)), size, ssBase, mask)) return 0;
  if (!push(instructionPointer(), size, ssBase, mask)) return 0;
  if (hasError && !push(u64(error), size, ssBase, mask)) return 0;
  if (!S.readDescriptor(sel, 13, false) || !S.markAccessed()) return 0;
  S.setCodeSegment(sel, level);
  if (change) S.set(L.SegIndex_ss, ssSel, ssAttr, ssLimit, ssBase);
  setGpr(4, (oldSp & ~mask) | sp);
  updateMode();
  let f = get32(L.Vp_rflags) & ~(TF | NT | RF | VM);
  if ((type & 1) == 0) f &= ~IF;
  set32(L.Vp_rflags, f);
  const t = u64(g0 & 0xffff) | (wide ? u64(g1 & 0xffff0000) : 0);
  set64(L.Vp_rip, (t + S.base(L.SegIndex_cs)) & 0xffffffff);
  return 1;
}

function deliverReal(vector: i32): i32 {
  if (u32(vector * 4 + 3) > get32(L.Vp_idtrLimit)) return gp(vector * 8 + 2);
  const at = systemRead(get64(L.Vp_idtrBase) + u64(vector * 4), 4);
  if (at == 0) return 0;
  const ip = load<u16>(at), cs = load<u16>(at, 2);
  const ss = S.base(L.SegIndex_ss);
  sp = gpr(4) & 0xffff;
  if (!push(u64(rflags()), 2, ss, 0xffff)) return 0;
  if (!push(u64(S.selector(L.SegIndex_cs)), 2, ss, 0xffff)) return 0;
  if (!push(get64(L.Vp_rip) - S.base(L.SegIndex_cs), 2, ss, 0xffff)) return 0;
  setGpr(4, (gpr(4) & ~u64(0xffff)) | sp);
  S.set(L.SegIndex_cs, u32(cs), S.attributes(L.SegIndex_cs), S.limit(L.SegIndex_cs), u64(cs) << 4);
  updateMode();
  set32(L.Vp_rflags, get32(L.Vp_rflags) & ~(TF | IF | AC | RF));
  set64(L.Vp_rip, u64(ip) + (u64(cs) << 4));
  return 1;
}

// ---- IRET -------------------------------------------------------------------------------------------------------------------------

function pop(at: u64, size: i32): i32 {
  const host = readable(at, size);
  if (host == 0) return 0;
  popped = size == 8 ? load<u64>(host) : size == 4 ? u64(load<u32>(host)) : u64(load<u16>(host));
  return 1;
}
let popped: u64 = 0;

/** @param size bytes of a stack slot @returns Status */
export function iret(size: i32): i32 {
  stackAccess(true);
  set32(L.Vp_nmiBlocked, 0);
  const mask: u64 = code64() ? u64.MAX_VALUE : (S.attributes(L.SegIndex_ss) & L.SegAttr_big) != 0 ? 0xffffffff : 0xffff;
  const ssBase = code64() ? 0 : S.base(L.SegIndex_ss);
  let at = gpr(4) & mask;
  if (!pop(ssBase + at, size)) return L.Status_fault;
  let rip = popped;
  at = (at + u64(size)) & mask;
  if (!pop(ssBase + at, size)) return L.Status_fault;
  const cs = u32(popped) & 0xffff;
  at = (at + u64(size)) & mask;
  if (!pop(ssBase + at, size)) return L.Status_fault;
  const flags = u32(popped);
  at = (at + u64(size)) & mask;
  if (!protectedMode()) {
    setGpr(4, (gpr(4) & ~mask) | at);
    S.set(L.SegIndex_cs, cs, S.attributes(L.SegIndex_cs), S.limit(L.SegIndex_cs), u64(cs) << 4);
    const keep: u32 = size == 2 ? rflags() & 0xffff0000 : 0;
    setRflags((flags & (size == 2 ? 0xffff : 0x257fd5)) | keep);
    updateMode();
    set64(L.Vp_rip, rip + (u64(cs) << 4));
    return afterFlags();
  }
  if ((get32(L.Vp_rflags) & NT) != 0) {
    gp(0); // long mode has no nested tasks; elsewhere, tasks are not switched by hardware here
    return L.Status_fault;
  }
  const e = i32(cs & 0xfffc);
  const level = i32(cs & 3);
  if (e == 0) { gp(0); return L.Status_fault; }
  const wide64 = code64();
  let sel: u32 = 0;
  let newSp: u64 = 0;
  const outer = level > cpl() || wide64;
  if (outer) {
    if (!pop(ssBase + at, size)) return L.Status_fault;
    newSp = popped;
    at = (at + u64(size)) & mask;
    if (!pop(ssBase + at, size)) return L.Status_fault;
    sel = u32(popped) & 0xffff;
  }
  stackAccess(false);
  if (!S.readDescriptor(cs, 13, false)) return L.Status_fault;
  if ((S.high & 0x1800) != 0x1800 || level < cpl() || ((S.high & 0x400) != 0 ? i32(S.descDpl()) > level : i32(S.descDpl()) != level)) {
    gp(e);
    return L.Status_fault;
  }
  if ((S.high & 0x8000) == 0) { fault(11, e); return L.Status_fault; }
  const long = longMode() && (S.high & 0x200000) != 0;
  if (long && (S.high & 0x400000) != 0) { gp(e); return L.Status_fault; }
  // compatibility mode has EIP
  if (!long) rip &= 0xffffffff;
  if (long ? u64((i64(rip) << 16) >> 16) != rip : rip > u64(S.descLimit())) { gp(0); return L.Status_fault; }
  if (!S.markAccessed()) return L.Status_fault;
  const csAttr = S.descAttr(), csLimit = S.descLimit(), csBase = long ? 0 : S.descBase();
  const from = cpl();
  if (outer) {
    if ((sel & 0xfffc) == 0) {
      if (!(long && level != 3) || i32(sel & 3) != level) { gp(0); return L.Status_fault; }
    } else {
      const se = i32(sel & 0xfffc);
      if (!S.readDescriptor(sel, 13, false)) return L.Status_fault;
      if (i32(sel & 3) != level || i32(S.descDpl()) != level || (S.high & 0x1a00) != 0x1200) { gp(se); return L.Status_fault; }
      if ((S.high & 0x8000) == 0) { fault(12, se); return L.Status_fault; }
      if (!S.markAccessed()) return L.Status_fault;
    }
  }
  // all checks are done
  let changeable: u32 = 0x8d5 | TF | 0x400 | NT | RF | AC | ID;
  if (from <= i32((get32(L.Vp_rflags) >> 12) & 3)) changeable |= IF;
  if (from == 0) changeable |= 0x3000 | 0x180000;
  if (size == 2) changeable &= 0xffff;
  setRflags((rflags() & ~changeable) | (flags & changeable));
  if (outer) {
    if ((sel & 0xfffc) == 0) S.set(L.SegIndex_ss, sel, L.SegAttr_unusable | (level << 5), 0, 0);
    else S.set(L.SegIndex_ss, sel, S.descAttr(), S.descLimit(), S.descBase());
  }
  S.set(L.SegIndex_cs, cs, csAttr, csLimit, csBase);
  setCpl(level);
  updateMode();
  if (outer) {
    if (long) setGpr(4, newSp);
    else if ((S.attributes(L.SegIndex_ss) & L.SegAttr_big) != 0) setGpr(4, newSp & 0xffffffff);
    else setGpr(4, (gpr(4) & ~u64(0xffff)) | (newSp & 0xffff));
  } else setGpr(4, (gpr(4) & ~mask) | at);
  if (level > from) S.dropInnerSegments(level);
  set64(L.Vp_rip, long ? rip : (rip + csBase) & 0xffffffff);
  return afterFlags();
}
