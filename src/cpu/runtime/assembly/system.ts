/** Procedures of the system instructions. The record names the operands; the result is a Status. */
import {
  hostCpuid, hostPortIn, hostPortOut, hostRandom, hostRdmsr, hostReadCr8, hostTsc, hostVmcall, hostWriteCr8, hostWrmsr, VP,
} from "./env";
import { checkDebug, movFromDr, movToDr, touchPort } from "./debug";
import { iret, softwareInterrupt } from "./interrupt";
import * as L from "./layout";
import { flushSpace, flushSpaces, invalidateIn, PCIDE, switchSpace } from "./address-spaces";
import { checkSecond } from "./code";
import { flushTlb, forgetUserPages, invalidatePage, misaligned, modifiable, modified, noteStack, plainWritable, pointersValid, readable, stackAccess, systemRead, write, writeBytes } from "./mmu";
import * as S from "./segment";
import {
  AC, afterFlags, checksAlignment, code64, cpl, fault, get16, get32, get64, gp, gpr, IF, longMode, NT, packedFlags, protectedMode, RF, rflags, set16, set32, set64,
  mxcsr, setArithmetic, setGpr, setMxcsr, setRflags, TF, ud, updateMode, VM, ZF, ID, flushJumps,
} from "./state";
import { fxrstor, fxsave, xrstor, xsave } from "./fpstate";
import { far } from "./far";
import { fwait } from "./x87";

@inline function width(r: i32): i32 { return load<u8>(r, L.Rec_link); }
@inline export function isMemory(r: i32): bool { return (load<u32>(r, L.Rec_link) & L.ProcedureFlag_memory) != 0; }
@inline export function nextRip(r: i32): u64 { return ripOf(r) + u64(load<u8>(r, L.Rec_length)); }
@inline export function ripOf(r: i32): u64 { return get64(L.Vp_ripPage) + u64(load<u16>(r, L.Rec_pageOffset)); }
@inline export function ea(r: i32): u64 {
  return get64(load<u16>(r, L.Rec_base)) + (get64(load<u16>(r, L.Rec_index)) << u64(load<u8>(r, L.Rec_scale))) + u64(i64(load<i32>(r, L.Rec_disp)));
}
function redispatchNext(r: i32): i32 {
  set64(L.Vp_rip, nextRip(r));
  return L.Status_redispatch;
}
export function exit(r: i32, reason: i32): i32 {
  set64(L.Vp_rip, nextRip(r));
  set32(L.Vp_exitReason, reason);
  return L.Status_exit;
}
/** Writes `bits` of v to the register at block offset `at`: 32 bits clear the upper half. */
export function setRegister(at: i32, bits: i32, v: u64): void {
  if (bits == 64) set64(at, v);
  else if (bits == 32) set64(at, v & 0xffffffff);
  else if (bits == 16) set16(at, u32(v));
  else store<u8>(VP + at, <u8>v);
}
let operand: u64 = 0;
/** Reads the E operand of 16 bits or more, in field `field`. @returns 0 = fault */
function readE(r: i32, bits: i32, field: i32): i32 {
  if (isMemory(r)) {
    const at = readable(ea(r), bits >> 3);
    if (at == 0) return 0;
    operand = bits == 64 ? load<u64>(at) : bits == 32 ? u64(load<u32>(at)) : bits == 16 ? u64(load<u16>(at)) : u64(load<u8>(at));
  } else {
    const at = VP + i32(load<u16>(r + field));
    operand = bits == 64 ? load<u64>(at) : bits == 32 ? u64(load<u32>(at)) : bits == 16 ? u64(load<u16>(at)) : u64(load<u8>(at));
  }
  return 1;
}
function writeE(r: i32, bits: i32, v: u64): i32 {
  if (isMemory(r)) return write(ea(r), bits >> 3, v) ? L.Status_next : L.Status_fault;
  setRegister(load<u16>(r, L.Rec_dst), bits, v);
  return L.Status_next;
}
@inline function failed(x: i32): i32 { return L.Status_fault; }
/** #GP(0) unless CPL is 0. */
function privileged(): bool {
  if (cpl() == 0) return true;
  gp(0);
  return false;
}

export function system(r: i32): i32 {
  noteStack(isMemory(r) ? r : 0);
  switch (i32(load<u8>(r, L.Rec_src2))) {
    case L.System_cli:
      if (cpl() > iopl()) return failed(gp(0));
      set32(L.Vp_rflags, get32(L.Vp_rflags) & ~IF);
      return L.Status_next;
    case L.System_sti:
      if (cpl() > iopl()) return failed(gp(0));
      if ((get32(L.Vp_rflags) & IF) == 0) {
        set32(L.Vp_rflags, get32(L.Vp_rflags) | IF);
        // the last instruction of a block is followed by a jump without length: the budget may end there
        if (get32(L.Vp_pending) != 0 || load<u8>(r + L.REC_BYTES, L.Rec_length) == 0) return shadowed(r, 1);
      }
      return L.Status_next;
    case L.System_pushf: return pushf(r);
    case L.System_popf: return popf(r);
    case L.System_iret: return iret(width(r) >> 3);
    case L.System_syscall: return syscall(r);
    case L.System_sysret: return sysret(r);
    case L.System_swapgs: {
      if (!code64()) return failed(ud());
      if (!privileged()) return L.Status_fault;
      const old = S.base(L.SegIndex_gs);
      S.setBase(L.SegIndex_gs, get64(L.Vp_kernelGsBase));
      set64(L.Vp_kernelGsBase, old);
      return L.Status_next;
    }
    case L.System_movFromCr: return movFromCr(r);
    case L.System_movToCr: return movToCr(r);
    case L.System_movFromDr: return movFromDr(r);
    case L.System_movToDr: return movToDr(r) ? redispatchNext(r) : L.Status_fault;
    case L.System_checkDebug: return checkDebug(r);
    case L.System_lgdt:
    case L.System_lidt: {
      if (!privileged()) return L.Status_fault;
      const size = code64() ? 8 : 4;
      const at = readable(ea(r), 2);
      if (at == 0) return L.Status_fault;
      const lim = u32(load<u16>(at));
      const b = readable(ea(r) + 2, size);
      if (b == 0) return L.Status_fault;
      let v = size == 8 ? load<u64>(b) : u64(load<u32>(b));
      if (size == 4 && width(r) == 16) v &= 0xffffff;
      if (!canonical(v)) return failed(gp(0));
      const to = i32(load<u8>(r, L.Rec_src2)) == L.System_lgdt ? L.Vp_gdtrBase : L.Vp_idtrBase;
      set64(to, v);
      set32(to + 8, lim);
      return L.Status_next;
    }
    case L.System_sgdt:
    case L.System_sidt: {
      if (cpl() != 0 && (get64(L.Vp_cr4) & 0x800) != 0) return failed(gp(0));
      const from = i32(load<u8>(r, L.Rec_src2)) == L.System_sgdt ? L.Vp_gdtrBase : L.Vp_idtrBase;
      const size = code64() ? 8 : 4;
      const tmp = VP + L.Vp_bounce;
      store<u16>(tmp, <u16>get32(from + 8));
      store<u64>(tmp, get64(from), 2);
      return writeBytes(ea(r), 2 + size, tmp) ? L.Status_next : L.Status_fault;
    }
    case L.System_lldt:
    case L.System_ltr: {
      if (!protectedMode()) return failed(ud());
      if (!privileged()) return L.Status_fault;
      if (!readE(r, 16, L.Rec_dst)) return L.Status_fault;
      return S.loadSystemSegment(i32(load<u8>(r, L.Rec_src2)) == L.System_lldt ? L.SegIndex_ldtr : L.SegIndex_tr, u32(operand)) ? L.Status_next : L.Status_fault;
    }
    case L.System_sldt:
    case L.System_str: {
      if (!protectedMode()) return failed(ud());
      if (cpl() != 0 && (get64(L.Vp_cr4) & 0x800) != 0) return failed(gp(0));
      const sel = S.selector(i32(load<u8>(r, L.Rec_src2)) == L.System_sldt ? L.SegIndex_ldtr : L.SegIndex_tr);
      return writeE(r, isMemory(r) ? 16 : width(r), u64(sel));
    }
    case L.System_smsw:
      if (cpl() != 0 && (get64(L.Vp_cr4) & 0x800) != 0) return failed(gp(0));
      return writeE(r, isMemory(r) ? 16 : width(r), get64(L.Vp_cr0));
    case L.System_lmsw: {
      if (!privileged()) return L.Status_fault;
      if (!readE(r, 16, L.Rec_dst)) return L.Status_fault;
      const old = get64(L.Vp_cr0);
      if (!setCr0((old & ~u64(0xe)) | (operand & 0xf) | (old & 1))) return L.Status_fault;
      return redispatchNext(r);
    }
    case L.System_clts:
      if (!privileged()) return L.Status_fault;
      set64(L.Vp_cr0, get64(L.Vp_cr0) & ~u64(8));
      updateMode();
      return redispatchNext(r);
    case L.System_invlpg:
      if (!privileged()) return L.Status_fault;
      invalidatePage(ea(r));
      return redispatchNext(r);
    case L.System_invpcid: {
      if (!privileged()) return L.Status_fault;
      const at = readable(ea(r), 16);
      if (at == 0) return L.Status_fault;
      const type = code64() ? get64(load<u16>(r, L.Rec_dst)) : get64(load<u16>(r, L.Rec_dst)) & 0xffffffff;
      const id = load<u64>(at);
      if (type > 3 || id >> 12 != 0 || (type < 2 && id != 0 && (get64(L.Vp_cr4) & PCIDE) == 0)) return failed(gp(0));
      if (type == 0 && !canonical(load<u64>(at, 8))) return failed(gp(0));
      if (type == 0) invalidateIn(i32(id), load<u64>(at, 8));
      else if (type == 1) flushSpace(i32(id));
      else flushSpaces(type == 2);
      return redispatchNext(r);
    }
    case L.System_wbinvd: return privileged() ? L.Status_next : L.Status_fault;
    case L.System_movToSeg: return movToSeg(r);
    case L.System_movFromSeg: {
      const n = i32(load<u16>(r + (isMemory(r) ? L.Rec_dst : L.Rec_src)));
      if (n > 5) return failed(ud());
      return writeE(r, isMemory(r) ? 16 : width(r), u64(S.selector(n)));
    }
    case L.System_hlt:
      if (!privileged()) return L.Status_fault;
      return exit(r, L.Exit_halt);
    case L.System_int: return softwareInterrupt(load<u8>(r, L.Rec_imm), false, ripOf(r), nextRip(r));
    case L.System_int3: return softwareInterrupt(3, false, ripOf(r), nextRip(r));
    case L.System_icebp: return softwareInterrupt(1, true, ripOf(r), nextRip(r));
    case L.System_into:
      if ((u32(packedFlags()) & 0x800) == 0) return redispatchNext(r);
      return softwareInterrupt(4, false, ripOf(r), nextRip(r));
    case L.System_ud: return failed(ud());
    case L.System_gp: return failed(gp(0));
    case L.System_noFpu: return failed(fault(7, -1));
    case L.System_fwait: return fwait();
    case L.System_rdfsbase:
    case L.System_rdgsbase:
    case L.System_wrfsbase:
    case L.System_wrgsbase: return fsgsbase(r);
    case L.System_fxsave: return fxsave(r);
    case L.System_fxrstor: return fxrstor(r);
    case L.System_xsave: return xsave(r, false);
    case L.System_xsavec: return xsave(r, true);
    case L.System_xrstor: return xrstor(r);
    case L.System_ldmxcsr: {
      const at = readable(ea(r), 4);
      if (at == 0) return L.Status_fault;
      const v = load<u32>(at);
      if ((v & 0xffff0000) != 0) return failed(gp(0));
      setMxcsr(v);
      return L.Status_next;
    }
    case L.System_stmxcsr: return write(ea(r), 4, u64(mxcsr())) ? L.Status_next : L.Status_fault;
    case L.System_xgetbv:
      if ((get64(L.Vp_cr4) & 0x40000) == 0) return failed(ud());
      if (u32(gpr(1)) != 0) return failed(gp(0));
      setGpr(0, get64(L.Vp_xcr0));
      setGpr(2, 0);
      return L.Status_next;
    case L.System_xsetbv: {
      if ((get64(L.Vp_cr4) & 0x40000) == 0) return failed(ud());
      if (!privileged()) return L.Status_fault;
      const v = (gpr(0) & 0xffffffff) | (gpr(2) << 32);
      if (u32(gpr(1)) != 0 || (v & 1) == 0 || (v & ~u64(3)) != 0) return failed(gp(0));
      set64(L.Vp_xcr0, v);
      return L.Status_next;
    }
    case L.System_cmpxchg8b: return cmpxchgWide(r);
    case L.System_cpuid:
      hostCpuid();
      return L.Status_next;
    case L.System_rdmsr: {
      if (!privileged()) return L.Status_fault;
      if (!hostRdmsr()) return failed(gp(0));
      // a register may suspend the processor (TLFS, GUEST_IDLE)
      return get32(L.Vp_pending) != 0 ? redispatchNext(r) : L.Status_next;
    }
    case L.System_wrmsr:
      if (!privileged()) return L.Status_fault;
      if (!hostWrmsr()) return failed(gp(0));
      return redispatchNext(r);
    case L.System_rdtscp:
    case L.System_rdtsc: {
      if (cpl() != 0 && (get64(L.Vp_cr4) & 4) != 0) return failed(gp(0));
      if (i32(load<u8>(r, L.Rec_src2)) == L.System_rdtscp) setGpr(1, get64(L.Vp_tscAux) & 0xffffffff);
      hostTsc();
      const t = get64(L.Vp_tscNow);
      setGpr(0, t & 0xffffffff);
      setGpr(2, t >> 32);
      return L.Status_next;
    }
    case L.System_rdpid:
      setRegister(load<u16>(r, L.Rec_dst), 64, get64(L.Vp_tscAux) & 0xffffffff);
      return L.Status_next;
    case L.System_rdpmc: return failed(gp(0));
    case L.System_in:
    case L.System_out: return portIo(r);
    case L.System_rdrand:
    case L.System_rdseed: {
      const v = u64(u32(hostRandom())) | (u64(u32(hostRandom())) << 32);
      setRegister(load<u16>(r, L.Rec_dst), width(r), v);
      setArithmetic(1);
      return L.Status_next;
    }
    case L.System_crc32: return crc32(r);
    case L.System_bound: return bound(r);
    case L.System_arpl: return arpl(r);
    case L.System_vmcall:
      if (!hostVmcall()) return failed(ud());
      // what the call did to this processor (an interrupt) shows before the next instruction
      return redispatchNext(r);
    case L.System_clac:
    case L.System_stac:
      if ((get32(L.Vp_features) & L.CpuFeature_smap) == 0 || cpl() != 0) return failed(ud());
      if (i32(load<u8>(r, L.Rec_src2)) == L.System_stac) set32(L.Vp_rflags, get32(L.Vp_rflags) | AC);
      else {
        set32(L.Vp_rflags, get32(L.Vp_rflags) & ~AC);
        forgetUserPages();
      }
      return L.Status_next;
    case L.System_pushSeg: return pushSeg(r);
    case L.System_popSeg: return popSeg(r);
    case L.System_enter: return enter(r);
    case L.System_loop:
    case L.System_loope:
    case L.System_loopne:
    case L.System_jcxz: return loop(r);
    case L.System_xlat: {
      const mask: u64 = addressMask(r);
      const at = readable(((gpr(3) + (gpr(0) & 0xff)) & mask) + get64(load<u16>(r, L.Rec_base)), 1);
      if (at == 0) return L.Status_fault;
      store<u8>(VP + L.Vp_gpr, load<u8>(at));
      return L.Status_next;
    }
    case L.System_lar:
    case L.System_lsl:
    case L.System_verr:
    case L.System_verw: return inspect(r);
    case L.System_sysenter: return sysenter();
    case L.System_sysexit: return sysexit(r);
    case L.System_jmpNarrow:
      set64(L.Vp_rip, narrow(get64(L.Vp_ripPage) + load<u64>(r, L.Rec_imm)));
      return L.Status_redispatch;
    case L.System_checkSecondPage: return checkSecond(r);
    case L.System_callFar:
    case L.System_jmpFar:
    case L.System_retFar:
    case L.System_farPointerCall:
    case L.System_farPointerJmp:
    case L.System_lds: return far(r);
    default: return failed(ud());
  }
}

@inline function iopl(): i32 { return i32((get32(L.Vp_rflags) >> 12) & 3); }
export function addressMask(r: i32): u64 {
  const f = load<u32>(r, L.Rec_link);
  return (f & L.ProcedureFlag_address32) != 0 ? 0xffffffff : (f & L.ProcedureFlag_address16) != 0 ? 0xffff : u64.MAX_VALUE;
}
@inline function canonical(v: u64): bool { return u64((i64(v) << 16) >> 16) == v; }
/** The next instruction still runs before an interrupt is taken: the loop is left, so that it runs alone. */
function shadowed(r: i32, how: i32): i32 {
  set32(L.Vp_shadow, how);
  set64(L.Vp_rip, nextRip(r));
  set32(L.Vp_exitReason, L.Exit_event);
  return L.Status_exit;
}

// ---- stack ------------------------------------------------------------------------------------------------------------------

let stackAt: u64 = 0;
@inline export function stackMask(): u64 {
  return code64() ? u64.MAX_VALUE : (get32(L.Vp_mode) & L.ModeKey_stack32) != 0 ? 0xffffffff : 0xffff;
}
@inline export function stackBase(): u64 { return code64() ? 0 : get64(L.Vp_segBase + L.SegIndex_ss * 8); }
export function setStack(sp: u64): void {
  const m = stackMask();
  if (m == 0xffff) set16(L.Vp_gpr + 32, u32(sp));
  else setGpr(4, sp & m);
}
export function pushValue(v: u64, size: i32): i32 {
  const sp = (gpr(4) - u64(size)) & stackMask();
  stackAccess(true);
  if (!write(stackBase() + sp, size, v)) return 0;
  setStack(sp);
  return 1;
}
export let topValue: u64 = 0;
/** Reads the top of the stack without moving it. */
export function peekValue(size: i32, offset: i32): i32 {
  stackAccess(true);
  const at = readable(stackBase() + ((gpr(4) + u64(offset)) & stackMask()), size);
  if (at == 0) return 0;
  topValue = size == 8 ? load<u64>(at) : size == 4 ? u64(load<u32>(at)) : u64(load<u16>(at));
  return 1;
}

function pushf(r: i32): i32 {
  const size = width(r) >> 3;
  return pushValue(u64(rflags() & ~(RF | VM)), size) ? L.Status_next : L.Status_fault;
}
function popf(r: i32): i32 {
  const size = width(r) >> 3;
  if (!peekValue(size, 0)) return L.Status_fault;
  let change: u32 = 0x8d5 | TF | 0x400 | NT | AC | ID;
  if (cpl() == 0) change |= 0x3000;
  if (cpl() <= iopl()) change |= IF;
  if (size == 2) change &= 0xffff;
  const old = rflags();
  setStack(gpr(4) + u64(size));
  setRflags((old & ~(change | RF)) | (u32(topValue) & change));
  set64(L.Vp_rip, nextRip(r));
  return afterFlags();
}
function pushSeg(r: i32): i32 {
  const op = (load<u32>(r, L.Rec_link) >> 16) & 0xff;
  const seg = op >= 0xa0 ? (op == 0xa0 ? L.SegIndex_fs : L.SegIndex_gs) : i32(op >> 3) & 3;
  const size = width(r) >> 3;
  if (size != 4) return pushValue(u64(S.selector(seg)), size) ? L.Status_next : L.Status_fault;
  // of a slot of 32 bits, the upper half is left alone (SDM vol. 2, PUSH, of newer processors)
  const sp = (gpr(4) - 4) & stackMask();
  stackAccess(true);
  if (!write(stackBase() + sp, 2, u64(S.selector(seg)))) return L.Status_fault;
  setStack(sp);
  return L.Status_next;
}
function popSeg(r: i32): i32 {
  const op = (load<u32>(r, L.Rec_link) >> 16) & 0xff;
  const seg = op >= 0xa0 ? (op == 0xa1 ? L.SegIndex_fs : L.SegIndex_gs) : i32(op >> 3) & 3;
  const size = width(r) >> 3;
  // the upper part of the stack's slot is not read
  if (!peekValue(2, 0)) return L.Status_fault;
  if (!S.loadSegment(seg, u32(topValue) & 0xffff)) return L.Status_fault;
  setStack(gpr(4) + u64(size));
  updateMode();
  return seg == L.SegIndex_ss ? shadowed(r, 2) : redispatchNext(r);
}
function enter(r: i32): i32 {
  stackAccess(true);
  const size = width(r) >> 3;
  const level = i32(load<u16>(r, L.Rec_dst)) & 31;
  const m = stackMask();
  let sp = (gpr(4) - u64(size)) & m;
  const b = stackBase();
  if (!write(b + sp, size, gpr(5))) return L.Status_fault;
  const frame = sp;
  if (level > 0) {
    let bp = gpr(5);
    for (let i = 1; i < level; i++) {
      bp -= u64(size);
      sp = (sp - u64(size)) & m;
      const at = readable(b + (bp & m), size);
      if (at == 0) return L.Status_fault;
      if (!write(b + sp, size, load<u64>(at))) return L.Status_fault;
    }
    sp = (sp - u64(size)) & m;
    if (!write(b + sp, size, frame)) return L.Status_fault;
  }
  sp = (sp - u64(load<u16>(r, L.Rec_imm))) & m;
  // the new top of the stack has to be one that can be written
  if ((checksAlignment() && misaligned(b + sp, size)) || plainWritable(b + sp, 1) == 0) return L.Status_fault;
  setRegister(L.Vp_gpr + 40, size * 8, frame);
  setStack(sp);
  return L.Status_next;
}
/** An instruction pointer of 16 bits, relative to CS: what a jump of that operand size leaves (SDM vol. 2, JMP). */
function narrow(target: u64): u64 {
  const b = S.base(L.SegIndex_cs);
  return (((target - b) & 0xffff) + b) & 0xffffffff;
}
function loop(r: i32): i32 {
  const m = addressMask(r);
  let c = gpr(1);
  const which = i32(load<u8>(r, L.Rec_src2));
  let taken: bool;
  if (which == L.System_jcxz) taken = (c & m) == 0;
  else {
    c = (c - 1) & m;
    setRegister(L.Vp_gpr + 8, m == u64.MAX_VALUE ? 64 : m == 0xffff ? 16 : 32, c);
    taken = c != 0;
    const zf = get64(L.Vp_flagR) == 0;
    if (which == L.System_loope) taken = taken && zf;
    if (which == L.System_loopne) taken = taken && !zf;
  }
  const target = get64(L.Vp_ripPage) + load<u64>(r, L.Rec_imm);
  set64(L.Vp_rip, !taken ? nextRip(r) : width(r) == 16 && !code64() ? narrow(target) : target);
  return L.Status_redispatch;
}

// ---- system calls -------------------------------------------------------------------------------------------------------------

function syscall(r: i32): i32 {
  if ((get64(L.Vp_efer) & 1) == 0 || !code64()) return failed(ud()); // 64-bit code only, as Intel
  setGpr(1, nextRip(r));
  const f = rflags();
  setGpr(11, u64(f & ~RF));
  set64(L.Vp_rip, get64(L.Vp_lstar));
  setRflags(f & ~(u32(get64(L.Vp_sfmask)) | RF));
  const cs = u32(get64(L.Vp_star) >> 32) & 0xfffc;
  S.setFlat(cs, cs + 8, 0, true);
  return stepNow();
}
/** SYSCALL and SYSRET: whether a single-step trap follows is decided by the new TF, not by the old one. */
function stepNow(): i32 {
  set32(L.Vp_debugTrap, (get32(L.Vp_rflags) & TF) != 0 ? 1 : 0);
  return afterFlags();
}
function sysret(r: i32): i32 {
  if ((get64(L.Vp_efer) & 1) == 0 || !code64()) return failed(ud());
  if (!privileged()) return L.Status_fault;
  const wide = width(r) == 64;
  const rip = wide ? gpr(1) : gpr(1) & 0xffffffff;
  if (wide && u64((i64(rip) << 16) >> 16) != rip) return failed(gp(0));
  const f = u32(gpr(11));
  setRflags((f & 0x3c7fd7) & ~(RF | VM));
  const star = u32(get64(L.Vp_star) >> 48);
  S.setFlat((star + (wide ? 16 : 0)) | 3, (star + 8) | 3, 3, wide);
  set64(L.Vp_rip, rip);
  return stepNow();
}
function sysenter(): i32 {
  const cs = u32(get64(L.Vp_sysenterCs));
  if (!protectedMode() || (cs & 0xfffc) == 0) return failed(gp(0));
  set32(L.Vp_rflags, get32(L.Vp_rflags) & ~(IF | VM));
  const long = longMode();
  S.setFlat(cs & 0xfffc, (cs & 0xfffc) + 8, 0, long);
  setGpr(4, long ? get64(L.Vp_sysenterEsp) : get64(L.Vp_sysenterEsp) & 0xffffffff);
  set64(L.Vp_rip, long ? get64(L.Vp_sysenterEip) : get64(L.Vp_sysenterEip) & 0xffffffff);
  return L.Status_redispatch;
}
function sysexit(r: i32): i32 {
  const cs = u32(get64(L.Vp_sysenterCs));
  if (!protectedMode() || (cs & 0xfffc) == 0 || cpl() != 0) return failed(gp(0));
  const wide = width(r) == 64;
  const sp = gpr(1), ip = gpr(2);
  if (wide && (!canonical(sp) || !canonical(ip))) return failed(gp(0));
  S.setFlat(((cs & 0xfffc) + (wide ? 32 : 16)) | 3, ((cs & 0xfffc) + (wide ? 40 : 24)) | 3, 3, wide);
  setGpr(4, wide ? sp : sp & 0xffffffff);
  set64(L.Vp_rip, wide ? ip : ip & 0xffffffff);
  return L.Status_redispatch;
}


// ---- control registers -----------------------------------------------------------------------------------------------------------

/** A control register that is none is #UD whatever the level. */
function controlRegister(n: i32): bool {
  if (n == 0 || n == 2 || n == 3 || n == 4 || n == 8) return privileged();
  ud();
  return false;
}
function movFromCr(r: i32): i32 {
  if (!controlRegister(load<u16>(r, L.Rec_src))) return L.Status_fault;
  let v: u64;
  switch (i32(load<u16>(r, L.Rec_src))) {
    case 0: v = get64(L.Vp_cr0); break;
    case 2: v = get64(L.Vp_cr2); break;
    case 3: v = get64(L.Vp_cr3); break;
    case 4: v = get64(L.Vp_cr4); break;
    default: v = u64(hostReadCr8());
  }
  setRegister(load<u16>(r, L.Rec_dst), code64() ? 64 : 32, v);
  return L.Status_next;
}
export function setCr0(value: u64): i32 {
  const old = get64(L.Vp_cr0);
  // reserved bits of the lower half are ignored
  const v = value & 0xffffffffe005003f;
  if ((v >> 32) != 0 || ((v & 0x80000000) != 0 && (v & 1) == 0) || ((v & 0x20000000) != 0 && (v & 0x40000000) == 0)) return gp(0);
  let efer = get64(L.Vp_efer);
  if ((v & 0x80000000) != 0 && (old & 0x80000000) == 0) {
    if ((efer & 0x100) != 0) {
      if ((get64(L.Vp_cr4) & 0x20) == 0 || (S.attributes(L.SegIndex_cs) & L.SegAttr_long) != 0) return gp(0);
      efer |= 0x400;
    } else if ((get64(L.Vp_cr4) & 0x20) != 0 && !pointersValid(get64(L.Vp_cr3))) return gp(0);
  } else if ((v & 0x80000000) == 0 && (old & 0x80000000) != 0) {
    if (code64() || (get64(L.Vp_cr4) & PCIDE) != 0) return gp(0);
    efer &= ~u64(0x400);
  }
  set64(L.Vp_efer, efer);
  set64(L.Vp_cr0, v | 0x10);
  if (((old ^ v) & 0x80010001) != 0) flushTlb(true);
  updateMode();
  return 1;
}
function pagingPae(cr4: u64): bool {
  return (get64(L.Vp_cr0) & 0x80000000) != 0 && (cr4 & 0x20) != 0 && !longMode();
}
function movToCr(r: i32): i32 {
  if (!controlRegister(load<u16>(r, L.Rec_dst))) return L.Status_fault;
  let v = get64(load<u16>(r, L.Rec_src));
  if (!code64()) v &= 0xffffffff;
  switch (i32(load<u16>(r, L.Rec_dst))) {
    case 0:
      if (!setCr0(v)) return L.Status_fault;
      break;
    case 2: set64(L.Vp_cr2, v); break;
    case 3:
      const spaces = (get64(L.Vp_cr4) & PCIDE) != 0;
      const keeps = spaces && v >> 63 != 0;
      if (spaces) v &= 0x7fffffffffffffff;
      if (longMode() && (v & 0xffffff0000000000) != 0) return failed(gp(0));
      if (pagingPae(get64(L.Vp_cr4)) && !pointersValid(v)) return failed(gp(0));
      if (spaces) switchSpace(i32(v & 0xfff), keeps);
      else flushTlb(false);
      set64(L.Vp_cr3, v);
      break;
    case 4: {
      // VME PVI TSD DE PSE PAE MCE PGE PCE OSFXSR OSXMMEXCPT UMIP FSGSBASE OSXSAVE SMEP SMAP
      const known = (get32(L.Vp_features) & L.CpuFeature_pcid) != 0 ? 0x350fff | PCIDE : u64(0x350fff);
      if ((v & ~known) != 0) return failed(gp(0));
      const old = get64(L.Vp_cr4);
      if ((v & ~old & PCIDE) != 0 && (!longMode() || (get64(L.Vp_cr3) & 0xfff) != 0)) return failed(gp(0));
      if (longMode() && (v & 0x20) == 0) return failed(gp(0));
      if (((old ^ v) & 0xb0) != 0 && pagingPae(v) && !pointersValid(get64(L.Vp_cr3))) return failed(gp(0));
      set64(L.Vp_cr4, v);
      if (((old ^ v) & (0x3100b0 | PCIDE)) != 0) flushTlb(true);
      updateMode();
      break;
    }
    default:
      if ((v & ~u64(15)) != 0) return failed(gp(0));
      hostWriteCr8(i32(v));
  }
  return redispatchNext(r);
}

function movToSeg(r: i32): i32 {
  const n = i32(load<u16>(r, L.Rec_dst));
  if (n == L.SegIndex_cs || n > 5) return failed(ud());
  if (!readE(r, 16, L.Rec_src)) return L.Status_fault;
  if (!S.loadSegment(n, u32(operand))) return L.Status_fault;
  updateMode();
  if (n == L.SegIndex_ss) return shadowed(r, 2);
  return redispatchNext(r);
}
function fsgsbase(r: i32): i32 {
  if ((get64(L.Vp_cr4) & 0x10000) == 0 || !code64()) return failed(ud());
  const which = i32(load<u8>(r, L.Rec_src2));
  const seg = which == L.System_rdfsbase || which == L.System_wrfsbase ? L.SegIndex_fs : L.SegIndex_gs;
  const reg = i32(load<u16>(r, L.Rec_dst));
  const bits = width(r) == 64 ? 64 : 32;
  if (which == L.System_rdfsbase || which == L.System_rdgsbase) setRegister(reg, bits, S.base(seg));
  else {
    const v = bits == 64 ? get64(reg) : get64(reg) & 0xffffffff;
    if (u64((i64(v) << 16) >> 16) != v) return failed(gp(0));
    S.setBase(seg, v);
  }
  return L.Status_next;
}

// ---- others -----------------------------------------------------------------------------------------------------------------------

function cmpxchgWide(r: i32): i32 {
  const wide = width(r) == 64;
  const size = wide ? 16 : 8;
  const va = ea(r);
  if (wide && (va & 15) != 0) return failed(gp(0));
  const at = modifiable(va, size, r);
  if (at == 0) return L.Status_fault;
  const a = load<u64>(at), b = wide ? load<u64>(at, 8) : 0;
  const f = u32(packedFlags()) & ~ZF;
  let equal: bool;
  if (wide) equal = a == gpr(0) && b == gpr(2);
  else equal = a == ((gpr(0) & 0xffffffff) | (gpr(2) << 32));
  // the destination is written in both cases
  if (equal) {
    if (wide) {
      store<u64>(at, gpr(3));
      store<u64>(at, gpr(1), 8);
    } else store<u64>(at, (gpr(3) & 0xffffffff) | (gpr(1) << 32));
  }
  modified(at, r);
  if (!equal) {
    if (wide) {
      setGpr(0, a);
      setGpr(2, b);
    } else {
      setGpr(0, a & 0xffffffff);
      setGpr(2, a >> 32);
    }
  }
  setArithmetic(equal ? f | ZF : f);
  return L.Status_next;
}
function portIo(r: i32): i32 {
  const op = (load<u32>(r, L.Rec_link) >> 16) & 0xff;
  const bits = width(r);
  const size = bits == 8 ? 1 : bits == 16 ? 2 : 4;
  const port = (op & 8) != 0 ? i32(gpr(2) & 0xffff) : i32(load<u8>(r, L.Rec_imm));
  if (!portAllowed(port, size)) return L.Status_fault;
  touchPort(port, size);
  if (i32(load<u8>(r, L.Rec_src2)) == L.System_in) setRegister(L.Vp_gpr, size * 8, u64(u32(hostPortIn(port, size))));
  else {
    hostPortOut(port, size, i32(gpr(0)) & (size == 4 ? -1 : (1 << (size * 8)) - 1));
    // a device may have ended the machine or asked for attention
    if (get32(L.Vp_pending) != 0) return redispatchNext(r);
  }
  return L.Status_next;
}
/** IOPL, else the I/O permission map of the TSS. */
export function portAllowed(port: i32, size: i32): bool {
  if (!protectedMode() || cpl() <= iopl()) return true;
  const lim = S.limit(L.SegIndex_tr);
  if (lim >= 0x67) {
    const m = systemRead(S.base(L.SegIndex_tr) + 0x66, 2);
    if (m == 0) return false;
    const at = u32(load<u16>(m)) + u32(port >> 3);
    if (at + 1 <= lim) {
      const bits = systemRead(S.base(L.SegIndex_tr) + u64(at), 2);
      if (bits == 0) return false;
      if (((u32(load<u16>(bits)) >> (port & 7)) & ((1 << size) - 1)) == 0) return true;
    }
  }
  gp(0);
  return false;
}
function crc32(r: i32): i32 {
  const op = (load<u32>(r, L.Rec_link) >> 16) & 0xff;
  const bits = op == 0xf0 ? 8 : width(r);
  if (!readE(r, bits, L.Rec_src)) return L.Status_fault;
  let c = u32(get64(load<u16>(r, L.Rec_dst)));
  let v = operand;
  for (let i = 0; i < bits; i += 8) {
    c ^= u32(v & 0xff);
    for (let k = 0; k < 8; k++) c = (c & 1) != 0 ? (c >> 1) ^ 0x82f63b78 : c >> 1;
    v >>= 8;
  }
  set64(load<u16>(r, L.Rec_dst), u64(c));
  return L.Status_next;
}
function bound(r: i32): i32 {
  const bits = width(r), size = bits >> 3;
  const reg = get64(load<u16>(r, L.Rec_dst));
  // one after the other: the upper bound is not read for an index below the lower one
  for (let i = 0; i < 2; i++) {
    const at = readable(ea(r) + u64(i * size), size);
    if (at == 0) return L.Status_fault;
    const limit = bits == 32 ? load<i32>(at) : i32(load<i16>(at));
    const index = bits == 32 ? i32(reg) : i32(i16(reg));
    if (i == 0 ? index < limit : index > limit) return failed(fault(5, -1));
  }
  return L.Status_next;
}
function arpl(r: i32): i32 {
  if (!protectedMode()) return failed(ud());
  if (!readE(r, 16, L.Rec_dst)) return L.Status_fault;
  const to = u32(operand), level = u32(get16(load<u16>(r + (isMemory(r) ? L.Rec_dst : L.Rec_src)))) & 3;
  const less = (to & 3) < level;
  if (less && writeE(r, 16, u64((to & ~3) | level)) == L.Status_fault) return L.Status_fault;
  const f = u32(packedFlags()) & ~ZF;
  setArithmetic(less ? f | ZF : f);
  return L.Status_next;
}
/** LAR, LSL, VERR, VERW. */
function inspect(r: i32): i32 {
  if (!protectedMode()) return failed(ud());
  const which = i32(load<u8>(r, L.Rec_src2));
  const verify = which == L.System_verr || which == L.System_verw;
  if (!readE(r, 16, verify ? L.Rec_dst : L.Rec_src)) return L.Status_fault;
  const sel = u32(operand);
  set32(L.Vp_faultVector, u32(-1));
  let ok = (sel & 0xfffc) != 0 && S.readDescriptor(sel, 13, false) != 0;
  // a selector without a descriptor is an answer, a page that is not there is not
  if (!ok && get32(L.Vp_faultVector) == 14) return L.Status_fault;
  if (ok) {
    const type = (S.high >> 8) & 0x1f;
    const isSegment = (type & 0x10) != 0;
    const conforming = isSegment && (type & 0xc) == 0xc;
    if (!conforming && (S.descDpl() < u32(cpl()) || S.descDpl() < (sel & 3))) ok = false;
    if (which == L.System_verr) ok = ok && isSegment && ((type & 8) == 0 || (type & 2) != 0);
    else if (which == L.System_verw) ok = ok && isSegment && (type & 8) == 0 && (type & 2) != 0;
    else if (!isSegment) {
      // system types that LAR and LSL know; call gates only LAR
      if (type != 2 && type != 9 && type != 11 && !(!longMode() && (type == 1 || type == 3)) && !(which == L.System_lar && (type == 12 || (!longMode() && (type == 4 || type == 5))))) ok = false;
    }
  }
  const f = u32(packedFlags()) & ~ZF;
  setArithmetic(ok ? f | ZF : f);
  if (ok && !verify) setRegister(load<u16>(r, L.Rec_dst), width(r), which == L.System_lar ? u64(S.high & 0xffff00) : u64(S.descLimit()));
  return L.Status_next;
}
