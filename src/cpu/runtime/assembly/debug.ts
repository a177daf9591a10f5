/**
 * Breakpoints of DR0..DR3 (Intel SDM vol. 3, "Debug Registers"). While DR7 arms one, ModeKey.debug is set: the decoder puts a
 * look at the debug registers before every instruction, and pages with a data breakpoint stay out of the TLB, so that their
 * accesses come by here. What an instruction touches is collected in Vp.debugHits and trapped behind it (partition.ts).
 */
import { VP } from "./env";
import * as L from "./layout";
import { flushTlb } from "./mmu";
import { code64, cpl, fault, get32, get64, gp, RF, set32, set64, ud, updateMode } from "./state";
import { ripOf, setRegister } from "./system";

const DR6: i32 = L.Vp_dr + 48, DR7: i32 = L.Vp_dr + 56;
const BD: u64 = 0x2000, GD: u64 = 0x2000, DE: u64 = 8;
const EXECUTE: u32 = 0, WRITE: u32 = 1, IO: u32 = 2, READ_WRITE: u32 = 3;

@inline function address(i: i32): u64 { return get64(L.Vp_dr + i * 8); }
@inline function armed(i: i32): bool { return ((get64(DR7) >> u64(i * 2)) & 3) != 0; }
@inline function kind(i: i32): u32 { return u32(get64(DR7) >> u64(16 + i * 4)) & 3; }
/** LEN: 0 = 1 byte, 1 = 2, 3 = 4, 2 = 8. */
@inline function length(i: i32): u64 {
  const n = u32(get64(DR7) >> u64(18 + i * 4)) & 3;
  return n == 0 ? 1 : n == 1 ? 2 : n == 3 ? 4 : 8;
}
/** The low bits that the length covers do not count. */
@inline function start(i: i32): u64 { return address(i) & ~(length(i) - 1); }

function changed(): void {
  let watch: u32 = 0;
  for (let i = 0; i < 4; i++) if (armed(i) && (kind(i) == WRITE || kind(i) == READ_WRITE)) watch |= 1 << i;
  if ((watch | get32(L.Vp_watch)) != 0) flushTlb(true);
  set32(L.Vp_watch, watch);
  updateMode();
}

/** Whether the page of `va` has a data breakpoint: it gets no TLB entry. */
export function watched(va: u64): bool {
  const watch = get32(L.Vp_watch);
  if (watch == 0) return false;
  for (let i = 0; i < 4; i++) if ((watch & (1 << i)) != 0 && (address(i) >> 12) == (va >> 12)) return true;
  return false;
}
/** Notes the data breakpoints that an access of the program touches. */
export function touch(va: u64, size: i32, writes: bool): void {
  const watch = get32(L.Vp_watch);
  for (let i = 0; i < 4; i++) {
    if ((watch & (1 << i)) == 0 || (!writes && kind(i) != READ_WRITE)) continue;
    if (va < start(i) + length(i) && va + u64(size) > start(i)) set32(L.Vp_debugHits, get32(L.Vp_debugHits) | (1 << i));
  }
}
/** The same for I/O ports, which CR4.DE allows to watch. */
export function touchPort(port: i32, size: i32): void {
  if ((get32(L.Vp_mode) & L.ModeKey_debug) == 0 || (get64(L.Vp_cr4) & DE) == 0) return;
  for (let i = 0; i < 4; i++) {
    if (!armed(i) || kind(i) != IO) continue;
    if (u64(port) < start(i) + length(i) && u64(port + size) > start(i)) set32(L.Vp_debugHits, get32(L.Vp_debugHits) | (1 << i));
  }
}

/** Records the breakpoints on the instruction at `rip`, a fault. @returns false = there are none */
function stopsAt(rip: u64): bool {
  let hits: u64 = 0;
  for (let i = 0; i < 4; i++) if (armed(i) && kind(i) == EXECUTE && address(i) == rip) hits |= 1 << i;
  if (hits == 0) return false;
  set64(DR6, (get64(DR6) & ~u64(15)) | hits);
  fault(1, -1);
  return true;
}
/** A fetch has faulted: the instruction's own breakpoint comes before (SDM vol. 3, "Priority Among Concurrent Events"). @returns 0 */
export function breakBeforeFetch(rip: u64): i32 {
  if ((get32(L.Vp_mode) & L.ModeKey_debug) != 0 && get32(L.Vp_resume) == 0) stopsAt(rip);
  return 0;
}
/** Before each instruction: a trap that is due comes first, then the instruction's own breakpoint, a fault. @returns Status */
export function checkDebug(r: i32): i32 {
  if (get32(L.Vp_resume) != 0) return L.Status_next;
  const rip = ripOf(r);
  if (get32(L.Vp_debugHits) != 0) {
    set64(L.Vp_rip, rip);
    set32(L.Vp_exitReason, L.Exit_event);
    return L.Status_exit;
  }
  return stopsAt(rip) ? L.Status_fault : L.Status_next;
}
/** Breakpoints that the last instruction has touched go to DR6. @returns whether there are any */
export function takeHits(): bool {
  const hits = get32(L.Vp_debugHits);
  if (hits == 0) return false;
  set32(L.Vp_debugHits, 0);
  set64(DR6, (get64(DR6) & ~u64(15)) | u64(hits));
  return true;
}
/** #DB is being delivered: DR7.GD is taken back, so that the handler may look at the registers. */
export function enterHandler(): void {
  set64(DR7, get64(DR7) & ~GD);
}

/** Number of the register that MOV names, -1 = a fault is recorded (SDM vol. 2, "MOV - Move to/from Debug Registers"). */
function named(n: i32): i32 {
  if (cpl() != 0) {
    gp(0);
    return -1;
  }
  if (n > 7 || ((n == 4 || n == 5) && (get64(L.Vp_cr4) & DE) != 0)) {
    ud();
    return -1;
  }
  if ((get64(DR7) & GD) != 0) {
    set64(DR6, (get64(DR6) & ~u64(15)) | BD);
    fault(1, -1);
    return -1;
  }
  return n == 4 || n == 5 ? n + 2 : n;
}
export function movFromDr(r: i32): i32 {
  const n = named(i32(load<u16>(r, L.Rec_src)));
  if (n < 0) return L.Status_fault;
  setRegister(load<u16>(r, L.Rec_dst), code64() ? 64 : 32, get64(L.Vp_dr + n * 8));
  return L.Status_next;
}
/** @returns false = fault */
export function movToDr(r: i32): bool {
  const n = named(i32(load<u16>(r, L.Rec_dst)));
  if (n < 0) return false;
  let v = get64(load<u16>(r, L.Rec_src));
  if (!code64()) v &= 0xffffffff;
  if (n >= 6) {
    if (v >> 32 != 0) {
      gp(0);
      return false;
    }
    v = n == 6 ? (v & 0xe00f) | 0xffff0ff0 : (v & 0xffff27ff) | 0x400;
  }
  set64(L.Vp_dr + n * 8, v);
  // an RF that was for an instruction before this one means nothing to the breakpoints from here on
  set32(L.Vp_rflags, get32(L.Vp_rflags) & ~RF);
  if (n != 6) changed();
  return true;
}
