/** What regions ask of the runtime: addresses of memory for their accesses, and whether their code is still where it was. */
import { LINE_MASKS, RAM, VP } from "./env";
import * as L from "./layout";
import { dirtyCode, linesOf } from "./code";
import { access, canonical, fetchAddress, inRam, MISSED, READ, readSlow, WRITE } from "./mmu";
import { count, cpl, get32, get64, set32 } from "./state";

/**
 * For a region: address in the memory of readable bytes; 0 = fault, 1 = for the interpreter, which knows whose fault an address that is
 * not canonical is (#SS or #GP).
 */
export function regionRead(va: u64, size: i32): i32 {
  if (!canonical(va) || !canonical(va + u64(size - 1))) return 1;
  return readSlow(va, size, 0);
}
/** The same for writing: plain RAM without code there. */
export function regionWrite(va: u64, size: i32): i32 {
  count(L.Stat_tlbMisses);
  if (!canonical(va) || 4096 - i32(va & 0xfff) < size) return 1;
  const a = access(va, WRITE);
  if (a == MISSED) return 0;
  if (!inRam(a)) return 1;
  const code = load<u64>(LINE_MASKS + i32(a >> 12) * 8);
  if (code != 0) {
    if ((code & linesOf(u32(a), u32(a) + u32(size))) != 0) return 1;
    dirtyCode(a, size);
  }
  return RAM + u32(a);
}

/**
 * For a region that has missed often: the same for accesses in one page, with nothing done but what the access would do. A fault is not
 * recorded: 1 = for the interpreter, which begins with what comes before.
 */
export function regionRefill(va: u64, size: i32, write: i32): i32 {
  if (!canonical(va) || 4096 - i32(va & 0xfff) < size) return 1;
  if (write != 0) {
    const host = regionWrite(va, size);
    if (host == 0) forgetFault();
    return max(host, 1);
  }
  count(L.Stat_tlbMisses);
  const a = access(va, READ);
  if (a == MISSED) {
    forgetFault();
    return 1;
  }
  return inRam(a) ? RAM + u32(a) : 1;
}
function forgetFault(): void {
  set32(L.Vp_faultVector, u32(-1));
}

/** RAM offset of the code page at `va`, if it has been fetched from lately; -1 = nothing is known. */
export function peekPage(va: u64): i32 {
  const slot = VP + L.Vp_execTlb + i32((u32(va >> 12) & (L.EXEC_TLB_ENTRIES - 1)) << 4);
  if (load<u64>(slot) != ((va & ~u64(0xfff)) | u64(cpl() == 3))) return -1;
  const physical = load<u64>(slot, 8) & ~u64(0xfff);
  return inRam(physical) ? i32(physical) : -1;
}
/** Are the pages of a region (RegionPages) still those that it was made of? What is not there is fetched later, by the interpreter. */
export function regionPages(base: u64, at: i32): i32 {
  count(L.Stat_regionChecks);
  const n = load<i32>(at, L.RegionPages_count);
  for (let i = 0; i < n; i++) {
    const va = base + u64(i64(load<i32>(at + i * 8, L.RegionPages_pages)));
    if (!canonical(va)) return 0;
    const physical = fetchAddress(va);
    if (physical == MISSED) {
      forgetFault();
      return 0;
    }
    if (physical != u64(load<u32>(at + i * 8, L.RegionPages_pages + 4))) return 0;
  }
  store<u32>(at, get32(L.Vp_jumpTag), L.RegionPages_tag);
  store<u64>(at, base, L.RegionPages_base);
  return 1;
}
