/**
 * Paging: the walker, the software TLB and what memory accesses do when they miss it (Intel SDM vol. 3, "Paging").
 * TLB entries stand for RAM pages that need nothing special; MMIO, clean pages and pages with decoded code never enter.
 */
import { hostMmioRead, hostMmioWrite, LINE_MASKS, RAM, RAM_BYTES, VP } from "./env";
import { dropBanks } from "./address-spaces";
import { dirtyCode } from "./code";
import { touch, watched } from "./debug";
import * as L from "./layout";
import { checksAlignment, code64, count, cpl, fault, flushJumps, flushUserJumps, get32, get64, gp, set32, set64, longMode, AC } from "./state";

export const READ: i32 = 0, WRITE: i32 = 1, EXEC: i32 = 2;
const P: u64 = 1, RW: u64 = 2, US: u64 = 4, A: u64 = 32, D: u64 = 64, PS: u64 = 128, G: u64 = 256, NX: u64 = 1 << 63;
const FRAME: u64 = 0x000ffffffffff000;
/** Physical addresses have 40 bits (CPUID 80000008): the bits above are reserved. */
const RESERVED: u64 = 0x000fff0000000000;
const BAD_TAG: u64 = 0x8000000000001000;

let walkGlobal: bool = false;
let walkLarge: bool = false;
/** A page of 1 GiB. */
let walkHuge: bool = false;
let walkDirty: bool = false;
/** The page is the user's, reached by the supervisor while SMAP is on and AC lets it. */
let walkUser: bool = false;
/** The access is the processor's own (descriptor tables, TSS, interrupt stacks), not the program's. */
let implicit: bool = false;
/** It is a push of a frame below level 3: SMAP's implicit accesses are those to tables (SDM vol. 3, "Access Rights"), so AC counts. */
let ofFrame: bool = false;

function pte(physical: u64): u64 {
  return physical < u64(RAM_BYTES) ? load<u64>(RAM + u32(physical)) : 0;
}
function setPte(physical: u64, v: u64, size: i32): void {
  if (physical < u64(RAM_BYTES)) {
    if (size == 8) store<u64>(RAM + u32(physical), v);
    else store<u32>(RAM + u32(physical), u32(v));
    dirtyCode(physical, size);
  }
}
/** Loading CR3 in PAE mode: are the reserved bits of the four pointers clear? */
export function pointersValid(cr3: u64): bool {
  for (let i: u64 = 0; i < 4; i++) {
    const entry = pte((cr3 & 0xffffffe0) + i * 8);
    if ((entry & P) != 0 && (entry & 0xffffff00000001e6) != 0) return false;
  }
  return true;
}

function pageFault(va: u64, access: i32, user: bool, present: bool, reserved: bool): u64 {
  let e = 0;
  if (present) e |= 1;
  if (access == WRITE) e |= 2;
  if (user) e |= 4;
  if (reserved) e |= 8;
  const cr4 = get64(L.Vp_cr4);
  if (access == EXEC && (((get64(L.Vp_efer) & 0x800) != 0 && (cr4 & 0x20) != 0) || (cr4 & (1 << 20)) != 0)) e |= 16;
  set64(L.Vp_faultAddress, va);
  fault(14, e);
  return u64.MAX_VALUE;
}

/** @returns the physical address, or all ones with #PF recorded */
export function walk(va: u64, access: i32, user: bool): u64 {
  const cr0 = get64(L.Vp_cr0);
  walkGlobal = false;
  walkLarge = false;
  walkHuge = false;
  walkDirty = true;
  walkUser = false;
  if ((cr0 & 0x80000000) == 0) return va & 0xffffffff;
  count(L.Stat_walks);
  const cr4 = get64(L.Vp_cr4);
  const nxe = (get64(L.Vp_efer) & 0x800) != 0;
  let rights: u64 = RW | US;
  let noExec = false;
  let table: u64, entry: u64 = 0, at: u64 = 0;
  let level: i32, size: u64 = 12;
  if ((cr4 & 0x20) == 0) {
    // two levels of 4-byte entries
    at = (get64(L.Vp_cr3) & 0xfffff000) + ((va >> 22) & 0x3ff) * 4;
    entry = at < u64(RAM_BYTES) ? load<u32>(RAM + u32(at)) : 0;
    if ((entry & P) == 0) return pageFault(va, access, user, false, false);
    let wide = false;
    if ((entry & PS) != 0 && (cr4 & 0x10) != 0) {
      // bits 13..20 are bits 32..39 of the address
      if ((entry & 0x200000) != 0) return pageFault(va, access, user, true, true);
      rights &= entry;
      wide = true;
      size = 22;
    } else {
      if ((entry & A) == 0) setPte(at, entry | A, 4);
      rights &= entry;
      at = (entry & 0xfffff000) + ((va >> 12) & 0x3ff) * 4;
      entry = at < u64(RAM_BYTES) ? load<u32>(RAM + u32(at)) : 0;
      if ((entry & P) == 0) return pageFault(va, access, user, false, false);
      rights &= entry;
    }
    if (!allowed(access, user, rights, false, cr0, cr4)) return pageFault(va, access, user, true, false);
    const want = entry | A | (access == WRITE ? D : 0);
    if (want != entry) setPte(at, want, 4);
    walkUser = !user && (rights & US) != 0 && (cr4 & (1 << 21)) != 0;
    walkDirty = (want & D) != 0;
    walkGlobal = (entry & G) != 0 && (cr4 & 0x80) != 0;
    walkLarge = wide;
    // 4 MiB: not found by its 2 MiB either
    walkHuge = wide;
    const base = wide ? (entry & 0xffc00000) | ((entry & 0x1fe000) << 19) : entry & 0xfffff000;
    return base | (va & ((u64(1) << size) - 1));
  }
  if (longMode()) {
    table = get64(L.Vp_cr3) & FRAME;
    level = 4;
  } else {
    // PAE: four pointers of 64 bits; they have no rights
    entry = pte((get64(L.Vp_cr3) & 0xffffffe0) + ((va >> 30) & 3) * 8);
    if ((entry & P) == 0) return pageFault(va, access, user, false, false);
    table = entry & FRAME;
    level = 2;
  }
  // bits 52..62 are free in four-level paging only
  const reservedBits = RESERVED | (nxe ? 0 : NX) | (longMode() ? 0 : u64(0x7ff0000000000000));
  for (;;) {
    const shift = u64(level * 9 + 3);
    at = table + ((va >> shift) & 0x1ff) * 8;
    entry = pte(at);
    if ((entry & P) == 0) return pageFault(va, access, user, false, false);
    if ((entry & reservedBits) != 0) return pageFault(va, access, user, true, true);
    rights &= entry;
    if ((entry & NX) != 0) noExec = true;
    if (level == 1) break;
    if ((entry & PS) != 0) {
      if (level == 4) return pageFault(va, access, user, true, true);
      size = shift;
      // the address bits under a large page's frame are reserved, bit 12 is PAT
      if ((entry & (((u64(1) << shift) - 1) & FRAME & ~u64(0x1000))) != 0) return pageFault(va, access, user, true, true);
      walkLarge = true;
      walkHuge = level == 3;
      break;
    }
    if ((entry & A) == 0) setPte(at, entry | A, 8);
    table = entry & FRAME;
    level--;
  }
  if (!allowed(access, user, rights, noExec, cr0, cr4)) return pageFault(va, access, user, true, false);
  const want = entry | A | (access == WRITE ? D : 0);
  if (want != entry) setPte(at, want, 8);
  walkUser = !user && (rights & US) != 0 && (cr4 & (1 << 21)) != 0;
  walkDirty = (want & D) != 0;
  walkGlobal = (entry & G) != 0 && (cr4 & 0x80) != 0;
  const mask = (u64(1) << size) - 1;
  return (entry & FRAME & ~mask) | (va & mask);
}

function allowed(access: i32, user: bool, rights: u64, noExec: bool, cr0: u64, cr4: u64): bool {
  if (user) {
    if ((rights & US) == 0) return false;
    if (access == WRITE && (rights & RW) == 0) return false;
  } else {
    if (access == WRITE && (rights & RW) == 0 && (cr0 & 0x10000) != 0) return false;
    if ((rights & US) != 0) {
      if (access == EXEC && (cr4 & (1 << 20)) != 0) return false; // SMEP
      if (access != EXEC && (cr4 & (1 << 21)) != 0 && ((implicit && !ofFrame) || (get32(L.Vp_rflags) & AC) == 0)) return false; // SMAP
    }
  }
  return !(access == EXEC && noExec);
}

// ---- TLB --------------------------------------------------------------------------------------------------------------------

@inline function slotOf(set: i32, va: u64): i32 {
  return set + i32((u32(va >> 12) & (L.TLB_ENTRIES - 1)) << 4);
}
/** Notes an entry that a load of CR3 takes away. */
export function logFill(slot: i32): void {
  const n = get32(L.Vp_tlbLogLength);
  if (n < u32(L.TLB_LOG_ENTRIES)) store<u32>(VP + L.Vp_tlbLog + i32(n) * 4, slot);
  set32(L.Vp_tlbLogLength, n + 1);
}
@inline function isEmpty(slot: i32): bool { return load<u64>(slot) >> 60 == 8; }
function fill(slot: i32, va: u64, physical: u64): void {
  if (!walkGlobal && (isEmpty(slot) || (load<u32>(slot, 12) & L.TlbFlag_global) != 0)) logFill(slot);
  keepVictim(slot, va);
  store<u64>(slot, va & ~u64(0xfff));
  store<u32>(slot, RAM + u32(physical & ~u64(0xfff)) - u32(va & ~u64(0xfff)), 8);
  store<u32>(slot, (walkGlobal ? L.TlbFlag_global : 0) | (walkLarge ? L.TlbFlag_large : 0) | (walkUser ? L.TlbFlag_user : 0), 12);
  if (walkLarge) set32(L.Vp_tlbLarge, get32(L.Vp_tlbLarge) | largeBit(va));
  if (walkUser) {
    if (userFills < USER_SLOTS) store<i32>(userSlots + userFills * 4, slot);
    userFills++;
  }
}
/**
 * Victims: two pages that a program uses in turn may have the same place in the TLB (its stack and its data, as chance will have it);
 * the one that goes stays beside it, and comes back without a walk. All go whenever the TLB loses
 * more than one page, or what may be written in one.
 */
let victims: bool = true;
@inline function victimOf(slot: i32): i32 {
  const part = (slot - (VP + L.Vp_tlbSupervisor)) / L.TLB_WRITE;
  return VP + L.Vp_tlbVictims + ((part * L.VICTIMS + ((slot >> 4) & (L.VICTIMS - 1))) << 4);
}
function keepVictim(slot: i32, va: u64): void {
  // a user's page goes from the supervisor's TLB when AC is cleared, and is found by its slot then
  if (isEmpty(slot) || load<u64>(slot) == (va & ~u64(0xfff)) || (load<u32>(slot, 12) & L.TlbFlag_user) != 0) return;
  const victim = victimOf(slot);
  store<u64>(victim, load<u64>(slot));
  store<u64>(victim, load<u64>(slot, 8), 8);
  victims = true;
}
export function dropVictims(): void {
  if (!victims) return;
  victims = false;
  for (let victim = VP + L.Vp_tlbVictims; victim < VP + L.Vp_tlbVictims + 4 * L.VICTIMS * 16; victim += 16) drop(victim);
}
/**
 * Puts the page back into its slot, and what is there in its stead. (The slot is in the log if the page is not global: it was there.)
 * @returns whether it was among the victims
 */
function reinstate(slot: i32, va: u64): bool {
  const victim = victimOf(slot);
  const tag = load<u64>(victim);
  if (tag != (va & ~u64(0xfff))) return false;
  const addend = load<u32>(victim, 8), flags = load<u32>(victim, 12);
  drop(victim);
  keepVictim(slot, va);
  store<u64>(slot, tag);
  store<u32>(slot, addend, 8);
  store<u32>(slot, flags, 12);
  return true;
}
/** Of the 1 GiB that the address is in. */
@inline export function largeBit(va: u64): u32 { return 1 << ((u32(va >> 30) * 0x9e3779b1) >> 27); }
/** Supervisor entries of user pages, filled while AC was set: gone when it is cleared. */
const USER_SLOTS: i32 = 64;
const userSlots: i32 = i32(memory.data(256));
let userFills: i32 = 0;
export function forgetUserPages(): void {
  if (userFills == 0) return;
  if (userFills <= USER_SLOTS) {
    for (let i = 0; i < userFills; i++) {
      const slot = load<i32>(userSlots + i * 4);
      if ((load<u32>(slot, 12) & L.TlbFlag_user) != 0) drop(slot);
    }
  } else {
    for (let set = L.Vp_tlbSupervisor; set < L.Vp_tlbUser; set += 16) if ((load<u32>(VP + set, 12) & L.TlbFlag_user) != 0) drop(VP + set);
  }
  userFills = 0;
}
/** Of the TLB, or among its victims. */
@inline export function drop(slot: i32): void {
  // a tag that its own slot can never match
  store<u64>(slot, ((slot >> 4) & (L.VICTIMS - 1)) == 1 ? BAD_TAG + 0x1000 : BAD_TAG);
}
function dropAll(): void {
  dropVictims();
  for (let set = L.Vp_tlbSupervisor; set < L.Vp_tlbUser + 2 * L.TLB_WRITE; set += 16) drop(VP + set);
  set32(L.Vp_tlbLogLength, 0);
  set32(L.Vp_tlbLarge, 0);
}


/** @param all global pages too, and those of other address spaces */
export function flushTlb(all: bool): void {
  count(L.Stat_tlbFlushes);
  if (all) dropBanks();
  const n = get32(L.Vp_tlbLogLength);
  if (all || n > u32(L.TLB_LOG_ENTRIES)) dropAll();
  else {
    dropVictims();
    for (let i: u32 = 0; i < n; i++) {
      const slot = load<i32>(VP + L.Vp_tlbLog + i32(i) * 4);
      if ((load<u32>(slot, 12) & L.TlbFlag_global) == 0) drop(slot);
    }
    set32(L.Vp_tlbLogLength, 0);
  }
  if (all || (get32(L.Vp_codeKinds) & LOCAL_SUPERVISOR) != 0) flushExec();
  else {
    // the supervisor's code is all in global pages: it stays
    for (let slot = VP + L.Vp_execTlb; slot < VP + L.Vp_execTlb + L.EXEC_TLB_ENTRIES * 16; slot += 16)
      if ((load<u64>(slot, 8) & EXEC_GLOBAL) == 0) store<u64>(slot, u64.MAX_VALUE);
    memory.fill(VP + L.Vp_codePages, 0, 256);
    flushUserJumps();
  }
}
/** In the second word of an entry of the execute TLB. */
const EXEC_GLOBAL: u64 = 1;
/** Bits of Vp.codeKinds. */
const LOCAL_SUPERVISOR: u32 = 1, HUGE: u32 = 2;
function flushExec(): void {
  memory.fill(VP + L.Vp_execTlb, 0xff, L.EXEC_TLB_ENTRIES * 16);
  memory.fill(VP + L.Vp_codeRegions, 0, 64);
  memory.fill(VP + L.Vp_codePages, 0, 512);
  set32(L.Vp_codeKinds, 0);
  flushJumps();
}
@inline function codeRegion(va: u64): i32 { return VP + L.Vp_codeRegions + i32((va >> 24) & 63); }
@inline function codeRegionBit(va: u64): u32 { return 1 << (u32(va >> 21) & 7); }
@inline function codePage(va: u64, user: bool): i32 { return VP + L.Vp_codePages + (user ? 0 : 256) + i32((va >> 15) & 255); }
@inline function codePageBit(va: u64): u32 { return 1 << (u32(va >> 12) & 7); }
/** Code of the page, or of the large page that the address is in, may be known. */
function knowsCode(va: u64): bool {
  const pages = load<u8>(codePage(va, true)) | load<u8>(codePage(va, false));
  return (get32(L.Vp_codeKinds) & HUGE) != 0 || (u32(load<u8>(codeRegion(va))) & codeRegionBit(va)) != 0 || (u32(pages) & codePageBit(va)) != 0;
}
export function invalidatePage(va: u64): void {
  if ((get32(L.Vp_tlbLarge) & largeBit(va)) != 0) {
    dropVictims();
    // the page may be a piece of a large one: its pieces are not known by address
    for (let set = L.Vp_tlbSupervisor; set < L.Vp_tlbUser + 2 * L.TLB_WRITE; set += 16) {
      const tag = load<u64>(VP + set);
      if ((tag >> 12) == (va >> 12) || ((load<u32>(VP + set, 12) & L.TlbFlag_large) != 0 && (tag >> 30) == (va >> 30))) drop(VP + set);
    }
  } else {
    for (let set = L.Vp_tlbSupervisor; set <= L.Vp_tlbUser + L.TLB_WRITE; set += L.TLB_WRITE) {
      const slot = slotOf(VP + set, va);
      if ((load<u64>(slot) >> 12) == (va >> 12)) drop(slot);
      const victim = victimOf(slot);
      if ((load<u64>(victim) >> 12) == (va >> 12)) drop(victim);
    }
  }
  if (knowsCode(va)) flushExec();
}
export function resetTlb(): void {
  dropBanks();
  dropAll();
  flushExec();
}

@inline export function canonical(va: u64): bool {
  return u64((i64(va) << 16) >> 16) == va;
}

// ---- translation with the permissions of the current or of the supervisor level ---------------------------------------------

/** The access is relative to SS: a non-canonical address is #SS, not #GP. */
let ofStack: bool = false;
/** The same where there may be a push or pop beside the memory operand. */
function noteAccess(pc: i32, va: u64): void {
  noteStack(pc);
  if (load<u8>(pc, L.Rec_src2) != L.BESIDE_STACK) return;
  const sp = get64(L.Vp_gpr + 32);
  if (va == sp || va + 8 == sp || va + 2 == sp) ofStack = true;
}
/** Whether the record's memory operand is the stack's: RSP or RBP as base, without FS or GS. */
export function noteStack(pc: i32): void {
  if (pc == 0) {
    ofStack = false;
    return;
  }
  const base = i32(load<u16>(pc, L.Rec_base)), index = i32(load<u16>(pc, L.Rec_index));
  if (base == L.Vp_tempAddress) {
    // an address that was made before: the decoder says whether it is the stack's
    ofStack = index == L.Vp_zero && load<u8>(pc, L.Rec_scale) != 0;
    return;
  }
  ofStack = (base == L.Vp_gpr + 32 || base == L.Vp_gpr + 40) && !(index >= L.Vp_segBase && index < L.Vp_segBase + 48);
}
export function stackAccess(yes: bool): void { ofStack = yes; }

/** An operand that begins below the hole of the non-canonical addresses and ends in it: that comes before any page fault. */
export function reachesHole(va: u64, size: i32): bool {
  const last = va + u64(size - 1);
  if (!longMode() || canonical(last) || !canonical(va)) return false;
  translate(last, READ, false);
  return true;
}
export function translate(va: u64, access: i32, user: bool): u64 {
  if (longMode() && !canonical(va)) {
    if (ofStack) fault(12, 0);
    else gp(0);
    return u64.MAX_VALUE;
  }
  return walk(va, access, user);
}
@inline export function inRam(physical: u64): bool {
  return physical < u64(RAM_BYTES);
}
@inline function hasCode(physical: u64): bool {
  return load<u64>(LINE_MASKS + i32(physical >> 12) * 8) != 0;
}
export const MISSED: u64 = u64.MAX_VALUE;

/** Linear addresses outside 64-bit code have 32 bits; the processor's own accesses in long mode have 64. */
@inline export function linear(va: u64): u64 {
  return code64() || (implicit && longMode()) ? va : va & 0xffffffff;
}
/** Translates for a data access of the current level and fills the TLB where it may. */
export function access(address: u64, kind: i32): u64 {
  const va = linear(address);
  const user = cpl() == 3;
  const set = i32(get32(L.Vp_tlb));
  if (!checksAlignment()) {
    const slot = slotOf(kind == WRITE ? set + L.TLB_WRITE : set, va);
    if (reinstate(slot, va)) return u64(u32(va) + load<u32>(slot, 8) - u32(RAM));
  }
  const physical = translate(va, kind, user);
  if (physical == MISSED) return MISSED;
  if (inRam(physical) && !watched(va) && !checksAlignment()) {
    fill(slotOf(set, va), va, physical);
    if (walkDirty && !hasCode(physical) && (kind == WRITE)) fill(slotOf(set + L.TLB_WRITE, va), va, physical);
  }
  return physical;
}

function readPhysical(physical: u64, size: i32, to: i32): void {
  if (inRam(physical)) memory.copy(to, RAM + u32(physical), size);
  else {
    count(L.Stat_mmio);
    hostMmioRead(f64(physical), size, to);
  }
}
function writePhysical(physical: u64, size: i32, from: i32): void {
  if (inRam(physical)) {
    memory.copy(RAM + u32(physical), from, size);
    dirtyCode(physical, size);
  } else {
    count(L.Stat_mmio);
    hostMmioWrite(f64(physical), size, from);
    // it may have interrupted this very processor (an IPI to itself): that shows before the next instruction
    wroteMmio = get32(L.Vp_pending) != 0;
  }
}

let wroteMmio: bool = false;
/** Behind an instruction that wrote to a device: its successor looks at the pending word first. */
function attendAfter(pc: i32): void {
  if (!wroteMmio) return;
  wroteMmio = false;
  if (pc != 0) store<u16>(pc + L.REC_BYTES, load<u16>(VP + L.Vp_attend));
}

/** Tags that match no address, once. */
let tlbNoneReady: bool = false;
export function fillTlbNone(): void {
  if (tlbNoneReady) return;
  tlbNoneReady = true;
  for (let slot = VP + L.Vp_tlbNone; slot < VP + L.Vp_tlbNone + 2 * L.TLB_WRITE; slot += 16) drop(slot);
}
/** #AC(0) for an operand that is not where its type has to be (SDM vol. 3, "Interrupt 17 - Alignment Check Exception"). */
export function misaligned(va: u64, size: i32): bool {
  if (implicit) return false;
  // x87: 80 bits by 8, environments and images by the words they are made of; vectors have rules of their own
  const to: u64 = size == 2 || size == 14 || size == 94 ? 2 : size == 4 || size == 28 || size == 108 ? 4 : size == 8 || size == 10 ? 8 : 1;
  // an address that is not canonical is told first, a page that is not there after it
  if ((va & (to - 1)) == 0 || (longMode() && !canonical(va))) return false;
  fault(17, 0);
  return true;
}

export function readSlow(va: u64, size: i32, pc: i32): i32 {
  if (pc != 0) noteAccess(pc, va);
  count(L.Stat_tlbMisses);
  if (checksAlignment() && misaligned(va, size)) return 0;
  if (get32(L.Vp_watch) != 0 && !implicit) touch(va, size, false);
  const first = 4096 - i32(va & 0xfff);
  if (first < size && reachesHole(va, size)) return 0;
  const a = access(va, READ);
  if (a == MISSED) return 0;
  if (first >= size) {
    if (inRam(a)) return RAM + u32(a);
    readPhysical(a, size, VP + L.Vp_bounce);
    return VP + L.Vp_bounce;
  }
  const b = access(va + u64(first), READ);
  if (b == MISSED) return 0;
  readPhysical(a, first, VP + L.Vp_bounce);
  readPhysical(b, size - first, VP + L.Vp_bounce + first);
  return VP + L.Vp_bounce;
}

function writeFrom(va: u64, size: i32, from: i32): i32 {
  count(L.Stat_tlbMisses);
  if (checksAlignment() && misaligned(va, size)) return 0;
  if (get32(L.Vp_watch) != 0 && !implicit) touch(va, size, true);
  const first = 4096 - i32(va & 0xfff);
  if (first < size && reachesHole(va, size)) return 0;
  const a = access(va, WRITE);
  if (a == MISSED) return 0;
  if (first >= size) {
    writePhysical(a, size, from);
    return 1;
  }
  const b = access(va + u64(first), WRITE);
  if (b == MISSED) return 0;
  writePhysical(a, first, from);
  writePhysical(b, size - first, from + first);
  return 1;
}
export function writeSlow(va: u64, size: i32, value: u64, pc: i32): i32 {
  if (pc != 0) noteAccess(pc, va);
  store<u64>(VP + L.Vp_bounce2, value);
  const done = writeFrom(va, size, VP + L.Vp_bounce2);
  attendAfter(pc);
  return done;
}
export function writeSlowV(va: u64, low: u64, high: u64, pc: i32): i32 {
  noteStack(pc);
  store<u64>(VP + L.Vp_bounce2, low);
  store<u64>(VP + L.Vp_bounce2, high, 8);
  const done = writeFrom(va, 16, VP + L.Vp_bounce2);
  attendAfter(pc);
  return done;
}
/** Memory that is read and then written: an address in RAM, or the bounce buffer that rmwDone writes back. */
export function rmwSlow(va: u64, size: i32, pc: i32): i32 {
  noteStack(pc);
  count(L.Stat_tlbMisses);
  if (checksAlignment() && misaligned(va, size)) return 0;
  if (get32(L.Vp_watch) != 0 && !implicit) touch(va, size, true);
  const first = 4096 - i32(va & 0xfff);
  if (first < size && reachesHole(va, size)) return 0;
  const a = access(va, WRITE);
  if (a == MISSED) return 0;
  if (first >= size && inRam(a) && !hasCode(a)) return RAM + u32(a);
  const b = first >= size ? 0 : access(va + u64(first), WRITE);
  if (b == MISSED) return 0;
  set32(L.Vp_rmwSize, size);
  set64(L.Vp_rmwAddress, a);
  set64(L.Vp_rmwSecond, b);
  const here = min(first, size);
  readPhysical(a, here, VP + L.Vp_bounce);
  if (here < size) readPhysical(b, size - here, VP + L.Vp_bounce + here);
  return VP + L.Vp_bounce;
}
export function rmwDone(pc: i32): void {
  const size = i32(get32(L.Vp_rmwSize));
  const a = get64(L.Vp_rmwAddress);
  const here = min(4096 - i32(a & 0xfff), size);
  writePhysical(a, here, VP + L.Vp_bounce);
  if (here < size) writePhysical(get64(L.Vp_rmwSecond), size - here, VP + L.Vp_bounce + here);
  attendAfter(pc);
}

/** Accesses of procedures, at the current privilege level. Address in the memory of `size` readable bytes, 0 = fault. */
export function readable(va: u64, size: i32): i32 {
  const slot = slotOf(i32(get32(L.Vp_tlb)), va);
  if ((load<u64>(slot) ^ va) <= u64(4096 - size)) return i32(u32(va)) + load<i32>(slot, 8);
  return readSlow(va, size, 0);
}
/** Memory that a procedure reads and then writes, as rmwSlow has it: `modified` has to follow. 0 = fault. */
export function modifiable(va: u64, size: i32, r: i32): i32 {
  const slot = slotOf(i32(get32(L.Vp_tlb)) + L.TLB_WRITE, va);
  if ((load<u64>(slot) ^ va) <= u64(4096 - size)) return i32(u32(va)) + load<i32>(slot, 8);
  return rmwSlow(va, size, r);
}
export function modified(at: i32, r: i32): void {
  if (at == VP + L.Vp_bounce) rmwDone(r);
}
/** Like `readable`, for at most one page, for writing in place; 0 = fault, 1 = not plain RAM, or watched, or checked. */
export function plainWritable(va: u64, size: i32): i32 {
  const slot = slotOf(i32(get32(L.Vp_tlb)) + L.TLB_WRITE, va);
  if ((load<u64>(slot) ^ va) <= u64(4096 - size)) return i32(u32(va)) + load<i32>(slot, 8);
  const a = access(va, WRITE);
  if (a == MISSED) return 0;
  return !inRam(a) || hasCode(a) || watched(va) || checksAlignment() ? 1 : RAM + u32(a);
}
export function plainReadable(va: u64): i32 {
  const slot = slotOf(i32(get32(L.Vp_tlb)), va);
  if ((load<u64>(slot) ^ va) <= 4095) return i32(u32(va)) + load<i32>(slot, 8);
  const a = access(va, READ);
  if (a == MISSED) return 0;
  return inRam(a) && !watched(va) && !checksAlignment() ? RAM + u32(a) : 1;
}
export function writeBytes(va: u64, size: i32, from: i32): i32 {
  const slot = slotOf(i32(get32(L.Vp_tlb)) + L.TLB_WRITE, va);
  if ((load<u64>(slot) ^ va) <= u64(4096 - size)) {
    memory.copy(i32(u32(va)) + load<i32>(slot, 8), from, size);
    return 1;
  }
  return writeFrom(va, size, from);
}
export function write(va: u64, size: i32, value: u64): i32 {
  const slot = slotOf(i32(get32(L.Vp_tlb)) + L.TLB_WRITE, va);
  if ((load<u64>(slot) ^ va) <= u64(4096 - size)) {
    const at = i32(u32(va)) + load<i32>(slot, 8);
    switch (size) {
      case 1: store<u8>(at, <u8>value); break;
      case 2: store<u16>(at, <u16>value); break;
      case 4: store<u32>(at, <u32>value); break;
      default: store<u64>(at, value);
    }
    return 1;
  }
  return writeSlow(va, size, value, 0);
}

/** Accesses to descriptor tables, TSS and interrupt stacks: supervisor rights whatever the CPL. */
export function systemRead(va: u64, size: i32): i32 {
  const level = enterSystem();
  const at = readable(va, size);
  leaveSystem(level);
  return at;
}
export function systemWrite(va: u64, size: i32, value: u64, frame: bool = false): i32 {
  ofFrame = frame && cpl() != 3;
  const level = enterSystem();
  const ok = write(va, size, value);
  leaveSystem(level);
  return ok;
}
function enterSystem(): i32 {
  const level = cpl();
  implicit = true;
  // AC means nothing to these accesses
  if ((get32(L.Vp_rflags) & AC) != 0) forgetUserPages();
  if (level == 3) {
    set32(L.Vp_cpl, 0);
    set32(L.Vp_tlb, VP + L.Vp_tlbSupervisor);
  }
  return level;
}
function leaveSystem(level: i32): void {
  implicit = ofFrame = false;
  if (level == 3) {
    set32(L.Vp_cpl, level);
    set32(L.Vp_tlb, VP + (checksAlignment() ? L.Vp_tlbNone : L.Vp_tlbUser));
  }
}

// ---- instruction fetches -----------------------------------------------------------------------------------------------------

/** Physical address of an instruction fetch, all ones = fault recorded. */
export function fetchAddress(rip: u64): u64 {
  const tag = (rip & ~u64(0xfff)) | u64(cpl() == 3);
  const slot = VP + L.Vp_execTlb + i32((u32(rip >> 12) & (L.EXEC_TLB_ENTRIES - 1)) << 4);
  if (load<u64>(slot) == tag) return (load<u64>(slot, 8) & ~u64(0xfff)) | (rip & 0xfff);
  ofStack = false;
  const physical = translate(rip, EXEC, cpl() == 3);
  if (physical == MISSED) return MISSED;
  store<u64>(slot, tag);
  store<u64>(slot, (physical & ~u64(0xfff)) | (walkGlobal ? EXEC_GLOBAL : 0), 8);
  const known = walkLarge ? codeRegion(rip) : codePage(rip, cpl() == 3 && !walkGlobal);
  store<u8>(known, load<u8>(known) | <u8>(walkLarge ? codeRegionBit(rip) : codePageBit(rip)));
  const kinds: u32 = (cpl() != 3 && !walkGlobal ? LOCAL_SUPERVISOR : 0) | (walkHuge ? HUGE : 0);
  set32(L.Vp_codeKinds, get32(L.Vp_codeKinds) | kinds);
  return physical;
}
/** RAM offset of the instruction at RIP, -1 = not to be had. For traces: no fault is left behind. */
export function peekCode(): i32 {
  const p = fetchAddress(get64(L.Vp_rip));
  return p == MISSED || !inRam(p) ? -1 : i32(p);
}
/** For the decoder: RAM offset of the page after the one of RIP, -1 = fault recorded. */
export function secondPage(): i32 {
  const p = fetchAddress((get64(L.Vp_rip) & ~u64(0xfff)) + 4096);
  if (p == MISSED) return -1;
  if (!inRam(p)) {
    gp(0);
    return -1;
  }
  return i32(p);
}
