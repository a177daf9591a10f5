/** Stack and near-transfer instructions outside 64-bit mode, and the decimal adjustments. */
import { VP } from "./env";
import * as L from "./layout";
import { readable, write } from "./mmu";
import * as S from "./segment";
import { AF, CF, fault, get16, get64, gpr, packedFlags, PF, set16, set64, setArithmetic, setGpr, SF, ud, ZF } from "./state";
import { ea, isMemory, nextRip, peekValue, pushValue, setRegister, setStack, topValue } from "./system";

@inline function zext(v: u64, size: i32): u64 { return size == 4 ? v & 0xffffffff : v & 0xffff; }
let value: u64 = 0;
function readOperand(r: i32, size: i32): i32 {
  if (isMemory(r)) {
    const at = readable(ea(r), size);
    if (at == 0) return 0;
    value = size == 4 ? u64(load<u32>(at)) : u64(load<u16>(at));
  } else value = zext(get64(load<u16>(r, L.Rec_dst)), size);
  return 1;
}
function jump(target: u64, size: i32): i32 {
  const b = S.base(L.SegIndex_cs);
  set64(L.Vp_rip, (zext(target, size) + b) & 0xffffffff);
  return L.Status_redispatch;
}
function byteFlags(al: u32): u32 {
  return (al == 0 ? ZF : 0) | (al & SF) | ((popcnt<u32>(al) & 1) == 0 ? PF : 0);
}

export function legacy(r: i32): i32 {
  const size = i32(load<u8>(r, L.Rec_link)) >> 3;
  const b = S.base(L.SegIndex_cs);
  switch (i32(load<u8>(r, L.Rec_src2))) {
    case L.System_push:
      if (!readOperand(r, size)) return L.Status_fault;
      return pushValue(value, size) ? L.Status_next : L.Status_fault;
    case L.System_pushImmediate: return pushValue(zext(load<u64>(r, L.Rec_imm), size), size) ? L.Status_next : L.Status_fault;
    case L.System_pop: {
      if (!peekValue(size, 0)) return L.Status_fault;
      const v = topValue;
      const old = gpr(4);
      setStack(old + u64(size));
      if (isMemory(r)) {
        if (!write(ea(r), size, v)) {
          setGpr(4, old);
          return L.Status_fault;
        }
      } else setRegister(load<u16>(r, L.Rec_dst), size * 8, v);
      return L.Status_next;
    }
    case L.System_leave: {
      const old = gpr(4);
      setStack(gpr(5));
      if (!peekValue(size, 0)) {
        setGpr(4, old);
        return L.Status_fault;
      }
      setStack(gpr(4) + u64(size));
      setRegister(L.Vp_gpr + 40, size * 8, topValue);
      return L.Status_next;
    }
    case L.System_callNear:
      if (!pushValue(zext(nextRip(r) - b, size), size)) return L.Status_fault;
      return jump(get64(L.Vp_ripPage) + load<u64>(r, L.Rec_imm) - b, size);
    case L.System_callNearIndirect: {
      if (!readOperand(r, size)) return L.Status_fault;
      const t = value;
      // FF /4: a jump where CS has a base (block-builder.ts)
      if (((load<u32>(r, L.Rec_link) >> 27) & 7) == 4) return jump(t, size);
      if (!pushValue(zext(nextRip(r) - b, size), size)) return L.Status_fault;
      return jump(t, size);
    }
    case L.System_retNear: {
      if (!peekValue(size, 0)) return L.Status_fault;
      const release = ((load<u32>(r, L.Rec_link) >> 16) & 0xff) == 0xc2 ? u64(load<u16>(r, L.Rec_imm)) : 0;
      setStack(gpr(4) + u64(size) + release);
      return jump(topValue, size);
    }
    case L.System_pusha: {
      const sp = gpr(4);
      for (let i = 0; i < 8; i++) {
        if (!pushValue(zext(i == 4 ? sp : gpr(i), size), size)) {
          setGpr(4, sp);
          return L.Status_fault;
        }
      }
      return L.Status_next;
    }
    case L.System_popa: {
      for (let i = 0; i < 8; i++) if (!peekValue(size, i * size)) return L.Status_fault;
      for (let i = 0; i < 8; i++) {
        if (i == 3) continue;
        peekValue(size, i * size);
        setRegister(L.Vp_gpr + (7 - i) * 8, size * 8, topValue);
      }
      setStack(gpr(4) + u64(8 * size));
      return L.Status_next;
    }
    case L.System_daa:
    case L.System_das: {
      const sub = i32(load<u8>(r, L.Rec_src2)) == L.System_das;
      const f = u32(packedFlags());
      const old = u32(load<u8>(VP + L.Vp_gpr));
      let al = old, cf: u32 = 0, af: u32 = 0;
      if ((old & 15) > 9 || (f & AF) != 0) {
        al = sub ? al - 6 : al + 6;
        cf = (f & CF) | u32(sub ? old < 6 : al > 0xff);
        af = AF;
      }
      if (old > 0x99 || (f & CF) != 0) {
        al = sub ? al - 0x60 : al + 0x60;
        cf = CF;
      } else if (!sub) cf = 0;
      store<u8>(VP + L.Vp_gpr, <u8>al);
      setArithmetic(byteFlags(al & 0xff) | cf | af);
      return L.Status_next;
    }
    case L.System_aaa:
    case L.System_aas: {
      const sub = i32(load<u8>(r, L.Rec_src2)) == L.System_aas;
      const ax = get16(L.Vp_gpr);
      const f = u32(packedFlags());
      let v = ax, c: u32 = 0;
      if ((ax & 15) > 9 || (f & AF) != 0) {
        v = sub ? ax - 0x106 : ax + 0x106;
        c = AF | CF;
      }
      set16(L.Vp_gpr, v & 0xff0f);
      setArithmetic(byteFlags(v & 0x0f) | c);
      return L.Status_next;
    }
    case L.System_aam: {
      const by = u32(load<u8>(r, L.Rec_imm));
      if (by == 0) {
        fault(0, -1);
        return L.Status_fault;
      }
      const al = u32(load<u8>(VP + L.Vp_gpr));
      set16(L.Vp_gpr, ((al / by) << 8) | (al % by));
      setArithmetic(byteFlags(al % by));
      return L.Status_next;
    }
    case L.System_aad: {
      const ax = get16(L.Vp_gpr);
      const al = ((ax & 0xff) + (ax >> 8) * u32(load<u8>(r, L.Rec_imm))) & 0xff;
      set16(L.Vp_gpr, al);
      setArithmetic(byteFlags(al));
      return L.Status_next;
    }
    case L.System_salc:
      store<u8>(VP + L.Vp_gpr, (u32(packedFlags()) & CF) != 0 ? 0xff : 0);
      return L.Status_next;
    default:
      ud();
      return L.Status_fault;
  }
}
