/** FLDENV, FNSTENV, FRSTOR, FNSAVE: the environment in its four formats (Intel SDM vol. 1, figures 8-9 to 8-12). FCS and FDS are 0 (CPUID's ZERO_FCS_FDS). */
import { VP } from "./env";
import * as L from "./layout";
import { readable, writeBytes } from "./mmu";
import { classify, FINITE, ZERO } from "./softfloat80";
import { get16, get32, get64, set16, set64, VM } from "./state";
import { initialize, setControlWord, st, summarize } from "./x87-stack";

const IMAGE: i32 = L.Vp_scratch;

@inline function wide(r: i32): bool { return load<u8>(r, L.Rec_link) != 16; }
@inline function realFormat(): bool { return (get32(L.Vp_mode) & L.ModeKey_real) != 0 || (get32(L.Vp_rflags) & VM) != 0; }

/** The tag word of the 8087, made from the registers: 0 valid, 1 zero, 2 special, 3 empty. */
function fullTags(): u32 {
  const ftw = get16(L.Vp_ftw);
  let tags: u32 = 0;
  for (let i: u32 = 0; i < 8; i++) {
    let tag: u32 = 3;
    if (((ftw >> i) & 1) != 0) {
      const at = VP + L.Vp_x87 + i32(i) * 16;
      const exp = i32(load<u16>(at, 8) & 0x7fff);
      const kind = classify(exp, load<u64>(at));
      tag = kind == ZERO ? 1 : kind == FINITE && exp != 0 ? 0 : 2;
    }
    tags |= tag << (i * 2);
  }
  return tags;
}
function setFullTags(tags: u32): void {
  let ftw: u32 = 0;
  for (let i: u32 = 0; i < 8; i++) if (((tags >> (i * 2)) & 3) != 3) ftw |= u32(1) << i;
  set16(L.Vp_ftw, ftw);
}
/** @returns its length */
function makeEnvironment(r: i32, to: i32): i32 {
  const fip = get64(L.Vp_fip), fdp = get64(L.Vp_fdp);
  const fop = get16(L.Vp_fop) & 0x7ff;
  if (wide(r)) {
    store<u32>(to, 0xffff0000 | get16(L.Vp_fcw));
    store<u32>(to, 0xffff0000 | get16(L.Vp_fsw), 4);
    store<u32>(to, 0xffff0000 | fullTags(), 8);
    if (realFormat()) {
      store<u32>(to, 0xffff0000 | u32(fip & 0xffff), 12);
      store<u32>(to, fop | ((u32(fip) >> 16) << 12), 16);
      store<u32>(to, 0xffff0000 | u32(fdp & 0xffff), 20);
      store<u32>(to, (u32(fdp) >> 16) << 12, 24);
    } else {
      store<u32>(to, u32(fip), 12);
      store<u32>(to, fop << 16, 16);
      store<u32>(to, u32(fdp), 20);
      store<u32>(to, 0xffff0000, 24);
    }
    return 28;
  }
  store<u16>(to, <u16>get16(L.Vp_fcw));
  store<u16>(to, <u16>get16(L.Vp_fsw), 2);
  store<u16>(to, <u16>fullTags(), 4);
  store<u16>(to, <u16>fip, 6);
  store<u16>(to, <u16>fdp, 10);
  const real = realFormat();
  store<u16>(to, real ? <u16>(fop | ((u32(fip) >> 16) << 12)) : 0, 8);
  store<u16>(to, real ? <u16>((u32(fdp) >> 16) << 12) : 0, 12);
  return 14;
}
/** @returns its length */
function takeEnvironment(r: i32, from: i32): i32 {
  const step = wide(r) ? 4 : 2;
  setControlWord(load<u16>(from));
  set16(L.Vp_fsw, load<u16>(from + step));
  setFullTags(load<u16>(from + step * 2));
  summarize();
  const real = realFormat();
  if (step == 2) {
    const upper = load<u16>(from, 8);
    set64(L.Vp_fip, u64(load<u16>(from, 6)) | (real ? u64(upper & 0xf000) << 4 : 0));
    set64(L.Vp_fdp, u64(load<u16>(from, 10)) | (real ? u64(load<u16>(from, 12) & 0xf000) << 4 : 0));
    set16(L.Vp_fop, real ? upper & 0x7ff : 0);
    return 14;
  }
  const upper = load<u32>(from, 16);
  if (real) {
    set64(L.Vp_fip, u64(load<u16>(from, 12)) | (u64((upper >> 12) & 0xffff) << 16));
    set64(L.Vp_fdp, u64(load<u16>(from, 20)) | (u64((load<u32>(from, 24) >> 12) & 0xffff) << 16));
    set16(L.Vp_fop, upper & 0x7ff);
  } else {
    set64(L.Vp_fip, u64(load<u32>(from, 12)));
    set64(L.Vp_fdp, u64(load<u32>(from, 20)));
    set16(L.Vp_fop, (upper >> 16) & 0x7ff);
  }
  return 28;
}

export function storeEnvironment(r: i32, va: u64): i32 {
  const image = VP + IMAGE;
  if (!writeBytes(va, makeEnvironment(r, image), image)) return L.Status_fault;
  set16(L.Vp_fcw, get16(L.Vp_fcw) | 0x3f);
  summarize();
  return L.Status_next;
}
export function loadEnvironment(r: i32, va: u64): i32 {
  const at = readable(va, wide(r) ? 28 : 14);
  if (at == 0) return L.Status_fault;
  takeEnvironment(r, at);
  return L.Status_next;
}
export function saveState(r: i32, va: u64): i32 {
  const image = VP + IMAGE;
  const length = makeEnvironment(r, image);
  for (let i = 0; i < 8; i++) {
    store<u64>(image + length + i * 10, load<u64>(st(i)));
    store<u16>(image + length + i * 10, load<u16>(st(i), 8), 8);
  }
  if (!writeBytes(va, length + 80, image)) return L.Status_fault;
  initialize();
  return L.Status_next;
}
export function restoreState(r: i32, va: u64): i32 {
  const at = readable(va, wide(r) ? 108 : 94);
  if (at == 0) return L.Status_fault;
  const length = takeEnvironment(r, at);
  for (let i = 0; i < 8; i++) {
    store<u64>(st(i), load<u64>(at + length + i * 10));
    store<u16>(st(i), load<u16>(at + length + i * 10, 8), 8);
  }
  return L.Status_next;
}
