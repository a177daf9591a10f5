/**
 * String instructions. A repeated one works by runs that stay inside a page on both sides, so that MOVS and STOS are one
 * memory.copy or memory.fill; it comes back to the loop between runs, with RIP at itself, so that interrupts get in.
 */
import { hostPortIn, hostPortOut, RAM, VP } from "./env";
import * as L from "./layout";
import { plainReadable, plainWritable, readable, stackAccess, write } from "./mmu";
import { DF, get32, get64, gpr, set32, set64, setGpr, RF, TF } from "./state";
import { touchPort } from "./debug";
import { addressMask, nextRip, portAllowed, ripOf, setRegister } from "./system";

/** Elements done in one visit of a repeated instruction: bounds the time to the next look at interrupts. */
const VISIT: u64 = 16384;

function read(va: u64, size: i32): i32 {
  const at = readable(va, size);
  if (at == 0) return 0;
  value = size == 8 ? load<u64>(at) : size == 4 ? u64(load<u32>(at)) : size == 2 ? u64(load<u16>(at)) : u64(load<u8>(at));
  return 1;
}
let value: u64 = 0;

/** Flags of a - b at the element's size. */
function compare(a: u64, b: u64, size: i32): void {
  const shift = u64(64 - size * 8);
  const x = u64(i64(a << shift) >> i64(shift)), y = u64(i64(b << shift) >> i64(shift));
  set64(L.Vp_flagA, x);
  set64(L.Vp_flagB, y);
  set64(L.Vp_flagR, u64(i64((x - y) << shift) >> i64(shift)));
  set32(L.Vp_flagKind, L.FlagKind_sub);
}
function setIndex(n: i32, v: u64, mask: u64): void {
  if (mask == u64.MAX_VALUE) setGpr(n, v);
  else if (mask == 0xffffffff) setGpr(n, v & mask);
  else setGpr(n, (gpr(n) & ~mask) | (v & mask));
}

export function string(r: i32): i32 {
  stackAccess(false);
  const bits = load<u32>(r, L.Rec_link);
  const op = i32(load<u8>(r, L.Rec_src2));
  let size = i32(bits & 0xff) >> 3;
  if (size == 8 && (op == L.StringOp_ins || op == L.StringOp_outs)) size = 4;
  const mask = addressMask(r);
  const repeated = (bits & (L.ProcedureFlag_rep | L.ProcedureFlag_repne)) != 0;
  const back = (get32(L.Vp_rflags) & DF) != 0;
  const step = back ? -u64(size) : u64(size);
  const srcBase = get64(load<u16>(r, L.Rec_base)), dstBase = get64(load<u16>(r, L.Rec_index));
  let left: u64 = repeated ? gpr(1) & mask : 1;
  let si = gpr(6), di = gpr(7);
  // a single-step trap comes after each repetition
  let budget: u64 = (get32(L.Vp_rflags) & TF) != 0 ? 1 : VISIT;
  const compares = op == L.StringOp_cmps || op == L.StringOp_scas;
  const a0 = get64(L.Vp_flagA), b0 = get64(L.Vp_flagB), r0 = get64(L.Vp_flagR), kind0 = get32(L.Vp_flagKind);
  const wantZero = (bits & L.ProcedureFlag_repne) == 0;
  let status = L.Status_next;
  if ((op == L.StringOp_ins || op == L.StringOp_outs) && !portAllowed(i32(gpr(2) & 0xffff), size)) return L.Status_fault;
  while (left > 0) {
    if (op == L.StringOp_ins || op == L.StringOp_outs) touchPort(i32(gpr(2) & 0xffff), size);
    if (budget == 0) {
      // more to do: let the loop look at interrupts, then come back here; its breakpoint has been taken (SDM, "Resume Flag")
      if ((get32(L.Vp_mode) & L.ModeKey_debug) != 0) set32(L.Vp_rflags, get32(L.Vp_rflags) | RF);
      set64(L.Vp_rip, ripOf(r));
      set32(L.Vp_exitReason, L.Exit_event);
      status = L.Status_exit;
      break;
    }
    if (repeated && (op == L.StringOp_movs || op == L.StringOp_stos) && !back && left > 1) {
      // up to where an index wraps
      const room = min(mask - (di & mask), op == L.StringOp_movs ? mask - (si & mask) : mask) / u64(size);
      const n = run(op, srcBase + (si & mask), dstBase + (di & mask), min(min(left, budget), room), size);
      if (n == u64.MAX_VALUE) { status = L.Status_fault; break; }
      if (n > 0) {
        const bytes = n * u64(size);
        if (op == L.StringOp_movs) si += bytes;
        di += bytes;
        left -= n;
        budget -= n;
        continue;
      }
    }
    if (op == L.StringOp_movs) {
      if (!read(srcBase + (si & mask), size) || !write(dstBase + (di & mask), size, value)) { status = L.Status_fault; break; }
      si += step;
      di += step;
    } else if (op == L.StringOp_stos) {
      if (!write(dstBase + (di & mask), size, gpr(0))) { status = L.Status_fault; break; }
      di += step;
    } else if (op == L.StringOp_lods) {
      if (!read(srcBase + (si & mask), size)) { status = L.Status_fault; break; }
      setRegister(L.Vp_gpr, size * 8, value);
      si += step;
    } else if (op == L.StringOp_cmps) {
      // the second operand first, as Intel's processors do
      if (!read(dstBase + (di & mask), size)) { status = L.Status_fault; break; }
      const b = value;
      if (!read(srcBase + (si & mask), size)) { status = L.Status_fault; break; }
      compare(value, b, size);
      si += step;
      di += step;
    } else if (op == L.StringOp_scas) {
      if (!read(dstBase + (di & mask), size)) { status = L.Status_fault; break; }
      compare(gpr(0), value, size);
      di += step;
    } else if (op == L.StringOp_ins) {
      // what is read from the port cannot be given back: first see that it can be stored
      const to = dstBase + (di & mask);
      if (plainWritable(to, 1) == 0 || plainWritable(to + u64(size - 1), 1) == 0) { status = L.Status_fault; break; }
      if (!write(dstBase + (di & mask), size, u64(u32(hostPortIn(i32(gpr(2) & 0xffff), size))))) { status = L.Status_fault; break; }
      di += step;
    } else {
      if (!read(srcBase + (si & mask), size)) { status = L.Status_fault; break; }
      hostPortOut(i32(gpr(2) & 0xffff), size, i32(value));
      si += step;
    }
    left--;
    // a breakpoint that it touched is trapped behind this repetition
    budget = get32(L.Vp_debugHits) != 0 ? 0 : budget - 1;
    if (compares && repeated && (get64(L.Vp_flagR) == 0) != wantZero) break;
  }
  if (status != L.Status_next && compares) {
    // stopped by a fault, a trap or an interrupt: the flags are those from before the instruction, however far it came
    set64(L.Vp_flagA, a0);
    set64(L.Vp_flagB, b0);
    set64(L.Vp_flagR, r0);
    set32(L.Vp_flagKind, kind0);
  }
  // where no element was done, REP MOVS and REP STOS clear upper halves all the same, the others do not (as Intel's processors)
  const always = repeated && (op == L.StringOp_movs || op == L.StringOp_stos);
  if (si != gpr(6) || (always && op == L.StringOp_movs)) setIndex(6, si, mask);
  if (di != gpr(7) || always) setIndex(7, di, mask);
  if (repeated) setIndex(1, left, mask);
  return status;
}

/** Elements moved or stored at once; 0 = do one the slow way, all ones = fault. */
function run(op: i32, src: u64, dst: u64, left: u64, size: i32): u64 {
  let bytes = min<u64>(left * u64(size), 4096 - (dst & 0xfff));
  if (op == L.StringOp_movs) bytes = min<u64>(bytes, 4096 - (src & 0xfff));
  const n = bytes / u64(size);
  if (n < 2) return 0;
  const length = i32(n) * size;
  let from = 0;
  if (op == L.StringOp_movs) {
    from = plainReadable(src);
    if (from == 0) return u64.MAX_VALUE;
    if (from == 1) return 0;
  }
  const to = plainWritable(dst, 1);
  if (to == 0) return u64.MAX_VALUE;
  if (to == 1) return 0;
  if (op == L.StringOp_movs) {
    // a destination shortly behind the source sees what was just written
    if (u32(to - from) < u32(length)) return 0;
    memory.copy(to, from, length);
  } else if (size == 1 || gpr(0) == 0) memory.fill(to, <u8>gpr(0), length);
  else {
    const v = gpr(0);
    for (let i = 0; i < length; i += size) {
      if (size == 8) store<u64>(to + i, v);
      else if (size == 4) store<u32>(to + i, u32(v));
      else store<u16>(to + i, <u16>v);
    }
  }
  return n;
}
