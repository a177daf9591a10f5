/** Decoded code: blocks by physical address, the pages that they are in, and what stores to those pages do. */
import { hostDecode, LINE_MASKS, PAGE_BLOCKS, RAM, RAM_BYTES, VP } from "./env";
import { dropBanks } from "./address-spaces";
import { breakBeforeFetch } from "./debug";
import * as L from "./layout";
import { drop, dropVictims, fetchAddress, inRam, linear, MISSED } from "./mmu";
import { count, flushJumps, get32, get64, gp, set32, set64 } from "./state";

@inline function bucket(physical: u32, mode: u32): i32 {
  return VP + L.Vp_blockHash + i32(((physical * 0x9e3779b1) >> 16 ^ mode) & (L.BLOCK_HASH_ENTRIES - 1)) * 4;
}
function insertPage(header: i32): void {
  const page = load<u32>(header, L.Head_start) >> 12;
  const list = PAGE_BLOCKS + i32(page) * 4;
  store<i32>(header, load<i32>(list), L.Head_next);
  store<i32>(list, header);
  const mask = LINE_MASKS + i32(page) * 8;
  const had = load<u64>(mask);
  store<u64>(mask, had | linesOf(load<u32>(header, L.Head_start), load<u32>(header, L.Head_end)));
  if (had == 0) protect(page);
}
@inline export function linesOf(start: u32, end: u32): u64 {
  const first = (start & 0xfff) >> 6;
  const last = ((end - 1) & 0xfff) >> 6;
  return (u64.MAX_VALUE << u64(first)) & (u64.MAX_VALUE >> u64(63 - last));
}
/** Takes the write entries of a page out of the TLBs: from now on its stores are looked at. */
function protect(page: u32): void {
  dropBanks();
  dropVictims();
  const host = RAM + (page << 12);
  for (let set = L.Vp_tlbSupervisor + L.TLB_WRITE; set <= L.Vp_tlbUser + L.TLB_WRITE; set += 2 * L.TLB_WRITE) {
    for (let slot = VP + set; slot < VP + set + L.TLB_ENTRIES * 16; slot += 16) {
      if (u32(load<u64>(slot)) + load<u32>(slot, 8) == u32(host) && (load<u64>(slot) >> 60) != 8) drop(slot);
    }
  }
}

/** The block at `rip` for `mode`, decoded if need be; 0 = its fetch faults (recorded, RIP set). Sets ripPage. */
function blockAt(rip: u64, mode: u32): i32 {
  set64(L.Vp_rip, rip);
  const p = fetchAddress(rip);
  if (p == MISSED) return breakBeforeFetch(rip);
  if (!inRam(p)) return gp(0);
  const physical = u32(p);
  let header = findBlock(physical, mode);
  if (header == 0) {
    if (get32(L.Vp_arenaNext) + u32(L.MAX_BLOCK) > u32(VP + L.Vp_arena + L.ARENA_BYTES)) flushArena();
    header = hostDecode(physical, mode);
    if (header == 0) return 0;
    count(L.Stat_decodedBlocks);
    const b = bucket(physical, mode);
    store<i32>(header, load<i32>(b), L.Head_hashNext);
    store<i32>(b, header);
    insertPage(header);
    const alias = i32(get32(L.Vp_blockAlias));
    if (alias != 0) insertPage(alias);
  }
  set64(L.Vp_ripPage, rip & ~u64(0xfff));
  return header;
}
/** The record to run at `rip`; 0 = its fetch faults (recorded, RIP set). Fills the jump cache and sets ripPage. */
export function lookup(address: u64): i32 {
  const rip = linear(address);
  const other = VP + L.Vp_jumpCache + ((placeOf(rip) ^ 1) << 4);
  if (load<u64>(other) == rip && load<u32>(other, 12) == get32(L.Vp_jumpTag)) {
    const record = load<i32>(other, 8);
    remember(rip, record);
    set64(L.Vp_ripPage, rip & ~u64(0xfff));
    return record;
  }
  count(L.Stat_jumpMisses);
  const header = blockAt(rip, get32(L.Vp_mode));
  if (header == 0) return 0;
  remember(rip, header + L.REC_BYTES);
  return header + L.REC_BYTES;
}
/** Of an address in the jump cache, by its present tag. */
@inline function placeOf(rip: u64): i32 {
  return i32((u32(rip) ^ (u32(rip >> 12) * 5) ^ get32(L.Vp_jumpTag)) & (L.JUMP_CACHE_ENTRIES - 1));
}
/** Into the jump cache; what was there goes into the slot beside it: two that are hot may have the same place. */
function remember(rip: u64, record: i32): void {
  const n = placeOf(rip);
  const slot = VP + L.Vp_jumpCache + (n << 4);
  const gate = VP + L.Vp_jumpGates + (n << 2);
  if (load<u32>(slot, 12) == get32(L.Vp_jumpTag)) {
    memory.copy(VP + L.Vp_jumpCache + ((n ^ 1) << 4), slot, 16);
    store<u32>(VP + L.Vp_jumpGates + ((n ^ 1) << 2), load<u32>(gate));
  }
  store<u32>(gate, 0);
  store<u64>(slot, rip);
  store<i32>(slot, record, 8);
  store<u32>(slot, get32(L.Vp_jumpTag), 12);
}
/** The same for the one instruction at `rip`, which a region has left to the interpreter: no gate stands there. */
export function lookupSingle(rip: u64): i32 {
  const header = blockAt(rip, get32(L.Vp_mode) | L.ModeKey_single);
  return header == 0 ? 0 : header + L.REC_BYTES;
}

/**
 * Generations begin anew, which must not meet what was noted by them the first time: for the host, between two runs, long before
 * they are used up (29 bits of a tag).
 */
export function renewTags(): void {
  dropBanks();
  memory.fill(VP + L.Vp_jumpCache, 0xff, L.JUMP_CACHE_ENTRIES * 16);
  set32(L.Vp_lastGeneration, 0);
  flushArena();
}

/** Throws all records away. */
export function flushArena(): void {
  count(L.Stat_arenaFlushes);
  set32(L.Vp_arenaNext, VP + L.Vp_arena);
  set32(L.Vp_arenaGeneration, get32(L.Vp_arenaGeneration) + 1);
  memory.fill(VP + L.Vp_blockHash, 0, L.BLOCK_HASH_ENTRIES * 4);
  const pages = i32(RAM_BYTES >> 12);
  for (let i = 0; i < pages; i++) {
    if (load<i32>(PAGE_BLOCKS + i * 4) != 0) {
      store<i32>(PAGE_BLOCKS + i * 4, 0);
      store<u64>(LINE_MASKS + i * 8, 0);
    }
  }
  flushJumps();
}

function unhash(header: i32): void {
  let at = bucket(load<u32>(header, L.Head_start), load<u32>(header, L.Head_mode));
  let h = load<i32>(at);
  while (h != 0) {
    if (h == header) {
      store<i32>(at, load<i32>(h, L.Head_hashNext));
      return;
    }
    at = h + L.Head_hashNext;
    h = load<i32>(at);
  }
}
/** Every record of the block now leads back to the dispatcher; links to them need not be found. */
function kill(header: i32): void {
  if (load<u16>(header, L.Head_handler) == L.REGION_HEAD) { closeGates(header); return; }
  const handler = load<u16>(VP + L.Vp_poisoned);
  const n = i32(load<u16>(header, L.Head_records));
  for (let i = 1; i <= n; i++) store<u16>(header + i * L.REC_BYTES, handler);
  // no region, so that the first record has no instructions before it (Rec_count of the header)
  store<u32>(header, 0, L.Head_region);
  unhash(header);
  store<u32>(header, u32.MAX_VALUE, L.Head_start);
}
/** A region's code has changed: its entries are blocks like others again. */
function closeGates(region: i32): void {
  const n = load<i32>(region, L.REC_BYTES);
  for (let i = 1; i <= n; i++) {
    const block = load<i32>(region + L.REC_BYTES + i * 4);
    if (load<u32>(block, L.Head_start) == u32.MAX_VALUE || load<u32>(block, L.Head_region) >> 8 != load<u32>(region, L.Head_region)) continue;
    store<u32>(block, 0, L.Head_region);
    store<u16>(block + L.REC_BYTES, load<u16>(block, L.Head_handler));
  }
  store<u32>(region, u32.MAX_VALUE, L.Head_start);
  set32(L.Vp_regionDeaths, get32(L.Vp_regionDeaths) + 1);
}
/** For the region compiler: a region is not wanted any more. */
export function dropRegion(header: i32): void {
  if (load<u32>(header, L.Head_start) == u32.MAX_VALUE) return;
  closeGates(header);
  // ways out of others remember its gates
  flushJumps();
}
/** For the region compiler: a header that it has written is to die with the bytes it names. */
export function watchCode(header: i32): void { insertPage(header); }
/** The block that is decoded from `physical` for `mode`, 0 = none. */
export function findBlock(physical: u32, mode: u32): i32 {
  let header = load<i32>(bucket(physical, mode));
  while (header != 0) {
    if (load<u32>(header, L.Head_start) == physical && load<u32>(header, L.Head_mode) == mode) break;
    header = load<i32>(header, L.Head_hashNext);
  }
  return header;
}

/**
 * Stores beside the code of a page, counted for the last page that each entry met: page (u32), number (u32). They take the long way,
 * every one, as long as there is code: most often it is of a program that is over, and the page has become something else.
 */
const BESIDE_ENTRIES: i32 = 64;
const beside: i32 = i32(memory.data(512));
/** So many stores are worth decoding a page's code anew, and so many compiling its regions. */
const BESIDE_BLOCKS: u32 = 256, BESIDE_REGIONS: u32 = 0x40000;
/** A store beside the code of a page. @returns whether the code goes, so that stores can be quick */
function storedBeside(page: u32): bool {
  const entry = beside + (i32(page) & (BESIDE_ENTRIES - 1)) * 8;
  if (load<u32>(entry) != page) {
    store<u32>(entry, page);
    store<u32>(entry, 0, 4);
    return false;
  }
  const n = load<u32>(entry, 4) + 1;
  store<u32>(entry, n, 4);
  if (n < BESIDE_BLOCKS || (n & (BESIDE_BLOCKS - 1)) != 0) return false;
  if (n < BESIDE_REGIONS)
    for (let h = load<i32>(PAGE_BLOCKS + i32(page) * 4); h != 0; h = load<i32>(h, L.Head_next)) {
      const owner = load<i32>(h, L.Head_owner);
      if (load<u16>(owner, L.Head_handler) == L.REGION_HEAD && load<u32>(owner, L.Head_start) != u32.MAX_VALUE) return false;
    }
  store<u32>(entry, 0, 4);
  return true;
}

/** A store has changed RAM at `physical`: blocks made from those bytes go. */
export function dirtyCode(physical: u64, size: i32): void {
  const page = u32(physical >> 12);
  const mask = LINE_MASKS + i32(page) * 8;
  let start = u32(physical), end = start + u32(size);
  const lines = load<u64>(mask);
  if (lines == 0) return;
  if ((lines & linesOf(start, end)) == 0) {
    if (!storedBeside(page)) return;
    start = page << 12;
    end = start + 4096;
  }
  count(L.Stat_storesToCode);
  let at = PAGE_BLOCKS + i32(page) * 4;
  let left: u64 = 0;
  let any = false;
  let h = load<i32>(at);
  while (h != 0) {
    const next = load<i32>(h, L.Head_next);
    const owner = load<i32>(h, L.Head_owner);
    const s = load<u32>(h, L.Head_start), e = load<u32>(h, L.Head_end);
    const dead = load<u32>(owner, L.Head_start) == u32.MAX_VALUE;
    if (dead || (s < end && e > start)) {
      if (!dead) kill(owner);
      any = true;
      store<i32>(at, next);
    } else {
      left |= linesOf(s, e);
      at = h + L.Head_next;
    }
    h = next;
  }
  store<u64>(mask, left);
  if (any) {
    count(L.Stat_invalidations);
    flushJumps();
  }
}
/** Host side: RAM was written by a device. */
export function ramWritten(physical: u32, size: i32): void {
  let at = physical;
  let left = size;
  while (left > 0) {
    const n = min(left, 4096 - i32(at & 0xfff));
    dirtyCode(u64(at), n);
    at += u32(n);
    left -= n;
  }
}
/** Is the second page of a page-crossing block still the one it was decoded from? @returns a Status */
export function checkSecond(record: i32): i32 {
  const p = fetchAddress(get64(L.Vp_ripPage) + 4096);
  if (p == MISSED) return L.Status_fault;
  if (u32(p) == load<u32>(record, L.Rec_imm)) return L.Status_next;
  set64(L.Vp_rip, get64(L.Vp_ripPage) + u64(load<u16>(record, L.Rec_pageOffset)));
  kill(record - L.REC_BYTES);
  flushJumps();
  return L.Status_redispatch;
}
