/** The register stack, the status word and the way from an operation's exceptions to both (Intel SDM vol. 1, chapters 8.1 and 8.4 to 8.6). */
import { VP } from "./env";
import * as L from "./layout";
import { beginOperation, DE, IE, indefinite, OE, raised, resultHigh, resultLow, roundedUp, setA, setB, UE, ZE } from "./softfloat80";
import { fault, get16, get64, set16, set64 } from "./state";
import { ripOf } from "./system";

/** Bits of the status word above the exceptions. */
export const SF: u32 = 0x40, ES: u32 = 0x80, C0: u32 = 0x100, C1: u32 = 0x200, C2: u32 = 0x400, C3: u32 = 0x4000, BUSY: u32 = 0x8000;
const EXCEPTIONS: u32 = 0x3f;
const NE: u64 = 0x20;

/**
 * #MF of an earlier instruction, which the next waiting one delivers. With CR0.NE clear the PC's FERR# would be asked; nothing is
 * connected to it, so the instruction goes on as with IGNNE# asserted.
 * @returns whether the fault was recorded
 */
export function pendingException(): bool {
  if ((get16(L.Vp_fsw) & ES) == 0 || (get64(L.Vp_cr0) & NE) == 0) return false;
  fault(16, -1);
  return true;
}
/** ES and B follow from the flags and their masks. */
export function summarize(): void {
  const fsw = get16(L.Vp_fsw);
  const open = (fsw & ~get16(L.Vp_fcw) & EXCEPTIONS) != 0;
  set16(L.Vp_fsw, open ? fsw | ES | BUSY : fsw & ~(ES | BUSY));
}
export function initialize(): void {
  set16(L.Vp_fcw, 0x37f);
  set16(L.Vp_fsw, 0);
  set16(L.Vp_ftw, 0);
  set16(L.Vp_fop, 0);
  set64(L.Vp_fip, 0);
  set64(L.Vp_fdp, 0);
}
/** The control word as it can be: bit 6 is 1, the reserved ones are 0. */
export function setControlWord(fcw: u32): void {
  set16(L.Vp_fcw, (fcw & 0x1f3f) | 0x40);
}

/** Sets what the control word says for the operation that follows. */
export function beginOp(): void { beginOperation(get16(L.Vp_fcw)); }
/** Notes a non-control instruction in the last-instruction registers: all of them each time (CPUID's FDP_EXCPTN_ONLY is 0). */
export function note(r: i32): void {
  const bits = load<u32>(r, L.Rec_link);
  set64(L.Vp_fip, ripOf(r));
  set16(L.Vp_fop, ((bits >> 8) & 0x700) | (bits >> 24));
}
export function noteMemory(r: i32, va: u64): void {
  note(r);
  set64(L.Vp_fdp, va);
}

// ---- stack ---------------------------------------------------------------------------------------------------------------------

@inline function physical(i: i32): i32 { return i32(((get16(L.Vp_fsw) >> 11) + u32(i)) & 7); }
/** Address of ST(i). */
@inline export function st(i: i32): i32 { return VP + L.Vp_x87 + physical(i) * 16; }
@inline export function isEmpty(i: i32): bool { return ((get16(L.Vp_ftw) >> u32(physical(i))) & 1) == 0; }
export function free(i: i32): void { set16(L.Vp_ftw, get16(L.Vp_ftw) & ~(u32(1) << u32(physical(i)))); }
export function moveTop(by: i32): void {
  const fsw = get16(L.Vp_fsw);
  set16(L.Vp_fsw, (fsw & ~u32(0x3800)) | ((fsw + (u32(by) << 11)) & 0x3800));
}
export function put(i: i32, high: u32, low: u64): void {
  const at = st(i);
  store<u64>(at, low);
  store<u16>(at, <u16>high, 8);
  set16(L.Vp_ftw, get16(L.Vp_ftw) | (u32(1) << u32(physical(i))));
}
export function push(high: u32, low: u64): void {
  moveTop(-1);
  put(0, high, low);
}
export function pop(): void {
  free(0);
  moveTop(1);
}
@inline export function high(i: i32): u32 { return load<u16>(st(i), 8); }
@inline export function low(i: i32): u64 { return load<u64>(st(i)); }
export function loadA(i: i32): void { setA(high(i), low(i)); }
export function loadB(i: i32): void { setB(high(i), low(i)); }

// ---- exceptions ------------------------------------------------------------------------------------------------------------------

export function setConditions(which: u32, bits: u32): void {
  set16(L.Vp_fsw, (get16(L.Vp_fsw) & ~which) | bits);
}
/** Records stack overflow or underflow. @returns whether it is masked */
export function stackFault(overflow: bool): bool {
  setConditions(C1, IE | SF | (overflow ? C1 : 0));
  summarize();
  return (get16(L.Vp_fcw) & IE) != 0;
}
/** Stack underflow of an operation with its result in ST(i). */
export function underflowTo(i: i32): bool {
  if (!stackFault(false)) return false;
  indefinite();
  put(i, resultHigh, resultLow);
  return true;
}
/** What the operation raised and the masks leave open. */
export function openExceptions(): u32 { return raised & ~get16(L.Vp_fcw); }
/**
 * Brings the exceptions of the operation and C1 to the status word.
 * @param toMemory an unmasked overflow or underflow has no result either
 * @returns whether the result is to be stored
 */
export function settle(toMemory: bool): bool {
  let flags = raised;
  let up = roundedUp;
  const open = openExceptions();
  if ((open & (IE | DE | ZE)) != 0) {
    // met before anything was computed
    flags &= IE | DE | ZE;
    up = false;
  }
  setConditions(C1, flags | (up ? C1 : 0));
  if (open != 0) setConditions(0, ES | BUSY);
  return (open & (toMemory ? IE | DE | ZE | OE | UE : IE | DE | ZE)) == 0;
}
/** Settles and puts the result in ST(i). @returns whether it was stored */
export function settleTo(i: i32): bool {
  if (!settle(false)) return false;
  put(i, resultHigh, resultLow);
  return true;
}
