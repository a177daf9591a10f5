/**
 * Address spaces that are not the current one: what the TLB knew of them is kept for their return (SDM vol. 3, "Process-Context
 * Identifiers"). Giving a bank up is always right: what is not there is walked for again.
 */
import { VP } from "./env";
import * as L from "./layout";
import { drop, flushTlb, invalidatePage, largeBit, logFill } from "./mmu";
import { get32, get64, reviveUserJumps, set32 } from "./state";

/** CR4.PCIDE. */
export const PCIDE: u64 = 0x20000;

const BANKS: i32 = VP + L.Vp_tlbBanks;
const BANKS_END: i32 = BANKS + L.TLB_BANKS * L.TlbBank_bytes;
/** The next one that is given up for another. */
let nextBank: i32 = 0;
function bankOf(id: i32): i32 {
  for (let bank = BANKS; bank < BANKS_END; bank += L.TlbBank_bytes) if (load<i32>(bank) == id + 1) return bank;
  return 0;
}
export function dropBanks(): void {
  for (let bank = BANKS; bank < BANKS_END; bank += L.TlbBank_bytes) store<i32>(bank, 0);
}
/** The current address space's own entries into a bank: what is not there is only walked for again. */
function saveBank(id: i32): void {
  let bank = bankOf(id);
  if (bank == 0) bank = bankOf(-1);
  if (bank == 0) {
    bank = BANKS + nextBank * L.TlbBank_bytes;
    nextBank = (nextBank + 1) % L.TLB_BANKS;
  }
  store<i32>(bank, id + 1);
  const n = min(get32(L.Vp_tlbLogLength), u32(L.TLB_LOG_ENTRIES));
  let to = bank + L.TlbBank_entries;
  const end = to + L.BANK_ENTRIES * L.BANK_ENTRY_BYTES;
  for (let i: u32 = 0; i < n && to < end; i++) {
    const slot = load<i32>(VP + L.Vp_tlbLog + i32(i) * 4);
    const tag = load<u64>(slot);
    const flags = load<u32>(slot, 12);
    // a user's page that is in the supervisor's TLB for as long as AC is set goes with it
    if (tag >> 60 == 8 || (flags & (L.TlbFlag_global | L.TlbFlag_user)) != 0) continue;
    store<u64>(to, tag);
    store<u32>(to, load<u32>(slot, 8), 8);
    store<u32>(to, flags, 12);
    store<i32>(to, slot, 16);
    to += L.BANK_ENTRY_BYTES;
    // it may be in the log once more
    drop(slot);
  }
  store<i32>(bank, (to - bank - L.TlbBank_entries) / L.BANK_ENTRY_BYTES, L.TlbBank_count);
  store<u32>(bank, get32(L.Vp_userGeneration), L.TlbBank_userGeneration);
  store<u32>(bank, get32(L.Vp_jumpGeneration), L.TlbBank_jumpGeneration);
  memory.copy(bank + L.TlbBank_codePages, VP + L.Vp_codePages, 256);
}
function restoreBank(bank: i32): void {
  let from = bank + L.TlbBank_entries;
  for (let n = load<i32>(bank, L.TlbBank_count); n > 0; n--) {
    const slot = load<i32>(from, 16);
    const tag = load<u64>(from);
    const flags = load<u32>(from, 12);
    store<u64>(slot, tag);
    store<u32>(slot, load<u32>(from, 8), 8);
    store<u32>(slot, flags, 12);
    logFill(slot);
    if ((flags & L.TlbFlag_large) != 0) set32(L.Vp_tlbLarge, get32(L.Vp_tlbLarge) | largeBit(tag));
    from += L.BANK_ENTRY_BYTES;
  }
  // no block or region has died since, and no mapping of code has changed
  if (load<u32>(bank, L.TlbBank_jumpGeneration) == get32(L.Vp_jumpGeneration)) {
    memory.copy(VP + L.Vp_codePages, bank + L.TlbBank_codePages, 256);
    reviveUserJumps(load<u32>(bank, L.TlbBank_userGeneration));
  }
  store<i32>(bank, 0);
}
/**
 * MOV to CR3 while CR4.PCIDE is set, before CR3 changes.
 * @param keeps bit 63 of the operand: what is known of the new address space stays
 */
export function switchSpace(id: i32, keeps: bool): void {
  const old = i32(get64(L.Vp_cr3) & 0xfff);
  if (id == old) {
    if (!keeps) flushTlb(false);
    return;
  }
  saveBank(old);
  flushTlb(false);
  const bank = bankOf(id);
  if (bank == 0) return;
  if (keeps) restoreBank(bank);
  else store<i32>(bank, 0);
}
/** Without CR4.PCIDE the only one is 0, and these bits of CR3 mean something else. */
function isCurrent(id: i32): bool {
  return (get64(L.Vp_cr4) & PCIDE) == 0 || id == i32(get64(L.Vp_cr3) & 0xfff);
}
/** INVPCID for one identifier. */
export function flushSpace(id: i32): void {
  if (isCurrent(id)) {
    flushTlb(false);
    return;
  }
  const bank = bankOf(id);
  if (bank != 0) store<i32>(bank, 0);
}
/** INVPCID for one address of one identifier. */
export function invalidateIn(id: i32, va: u64): void {
  if (isCurrent(id)) invalidatePage(va);
  else flushSpace(id);
}
/** INVPCID for all of them. @param global global pages too */
export function flushSpaces(global: bool): void {
  dropBanks();
  flushTlb(global);
}
