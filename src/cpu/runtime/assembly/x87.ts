/** x87 instructions. */
import { VP } from "./env";
import { fninit } from "./fpstate";
import * as L from "./layout";
import { readable, write } from "./mmu";
import { ea } from "./system";
import { get16, set16, setGpr, gpr, ud } from "./state";

export function x87(r: i32): i32 {
  const bits = load<u32>(r, L.Rec_link);
  const op = (bits >> 16) & 0xff;
  const modrm = bits >> 24;
  const reg = (modrm >> 3) & 7;
  if ((modrm >> 6) != 3) {
    const va = ea(r);
    if (op == 0xd9 && reg == 5) {
      const at = readable(va, 2);
      if (at == 0) return L.Status_fault;
      set16(L.Vp_fcw, load<u16>(at) | 0x40);
      return L.Status_next;
    }
    if (op == 0xd9 && reg == 7) return write(va, 2, u64(get16(L.Vp_fcw))) ? L.Status_next : L.Status_fault;
    if (op == 0xdd && reg == 7) return write(va, 2, u64(get16(L.Vp_fsw))) ? L.Status_next : L.Status_fault;
  } else {
    if (op == 0xdb && modrm == 0xe3) {
      fninit();
      return L.Status_next;
    }
    if (op == 0xdb && modrm == 0xe2) {
      set16(L.Vp_fsw, get16(L.Vp_fsw) & 0x7f00);
      return L.Status_next;
    }
    if (op == 0xdf && modrm == 0xe0) {
      set16(L.Vp_gpr, get16(L.Vp_fsw));
      return L.Status_next;
    }
  }
  ud();
  return L.Status_fault;
}
