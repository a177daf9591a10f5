/** Vector instructions that are procedures rather than formulas. */
import { VP } from "./env";
import * as L from "./layout";
import { write } from "./mmu";
import { get64, gpr, ud } from "./state";

/** MASKMOVDQU, MASKMOVQ: bytes of the first operand whose mask byte has its top bit set go to [rDI]. */
function maskmov(r: i32, size: i32): i32 {
  const bits = load<u32>(r, L.Rec_link);
  let to = gpr(7);
  if ((bits & L.ProcedureFlag_address32) != 0) to &= 0xffffffff;
  if ((bits & L.ProcedureFlag_address16) != 0) to &= 0xffff;
  to += get64(load<u16>(r, L.Rec_base));
  const from = VP + i32(load<u16>(r, L.Rec_dst)), mask = VP + i32(load<u16>(r, L.Rec_src));
  for (let i = 0; i < size; i++) {
    if ((load<u8>(mask + i) & 0x80) != 0 && !write(to + u64(i), 1, u64(load<u8>(from + i)))) return L.Status_fault;
  }
  return L.Status_next;
}

export function vector(r: i32): i32 {
  switch (i32(load<u8>(r, L.Rec_src2))) {
    case L.VectorOp_maskmov: return maskmov(r, 16);
    default:
      ud();
      return L.Status_fault;
  }
}
