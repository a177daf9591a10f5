/**
 * What a page walk does, written from the manual's text (Intel SDM vol. 3, "Paging") over a table of entries and nothing of
 * ours: the model that the engine's walker and its TLBs are compared with. All in bigint, one branch a sentence.
 */
export type Access = "read" | "write" | "fetch";
export interface PagingState {
  readonly mode: "4-level" | "pae" | "32-bit";
  readonly cr3: bigint;
  readonly wp: boolean;
  readonly pse: boolean;
  readonly nxe: boolean;
  readonly smep: boolean;
  readonly smap: boolean;
  readonly ac: boolean;
}
export interface Tables {
  read(address: bigint, bytes: 4 | 8): bigint;
  write(address: bigint, bytes: 4 | 8, value: bigint): void;
}
export type Walk = { readonly fault: number } | { readonly fault: undefined; readonly physical: bigint };

const PHYSICAL_BITS = 40n;
const bit = (value: bigint, n: number): boolean => ((value >> BigInt(n)) & 1n) === 1n;
const bits = (value: bigint, high: number, low: number): bigint =>
  (value >> BigInt(low)) & ((1n << BigInt(high - low + 1)) - 1n);

export function modelWalk(s: PagingState, tables: Tables, va: bigint, access: Access, user: boolean): Walk {
  const wide = s.mode !== "32-bit";
  const bytes = wide ? 8 : 4;
  const code = (present: boolean, reserved: boolean): number =>
    (present ? 1 : 0) |
    (access === "write" ? 2 : 0) |
    (user ? 4 : 0) |
    (reserved ? 8 : 0) |
    (access === "fetch" && ((wide && s.nxe) || s.smep) ? 16 : 0);
  let levels = s.mode === "4-level" ? 4 : 2;
  let table: bigint;
  if (s.mode === "pae") {
    const pointer = tables.read((s.cr3 & 0xffffffe0n) + bits(va, 31, 30) * 8n, 8);
    if (!bit(pointer, 0)) return { fault: code(false, false) };
    table = bits(pointer, 39, 12) << 12n;
  } else table = s.mode === "4-level" ? bits(s.cr3, 39, 12) << 12n : bits(s.cr3, 31, 12) << 12n;
  let writable = true;
  let userPage = true;
  let executable = true;
  for (;;) {
    const shift = 12 + (levels - 1) * (wide ? 9 : 10);
    const index = bits(va, shift + (wide ? 8 : 9), shift);
    const at = table + index * BigInt(bytes);
    const entry = tables.read(at, bytes);
    if (!bit(entry, 0)) return { fault: code(false, false) };
    const leaf = levels === 1 || (levels <= 3 && bit(entry, 7) && (wide || s.pse));
    let reserved = false;
    if (wide) {
      if (bits(entry, 51, Number(PHYSICAL_BITS)) !== 0n) reserved = true;
      if (s.mode === "pae" && bits(entry, 62, 52) !== 0n) reserved = true;
      if (!s.nxe && bit(entry, 63)) reserved = true;
      if (levels === 4 && bit(entry, 7)) reserved = true;
      if (leaf && levels > 1 && bits(entry, shift - 1, 13) !== 0n) reserved = true;
    } else if (leaf && levels > 1 && bit(entry, 21)) reserved = true;
    if (reserved) return { fault: code(true, true) };
    writable &&= bit(entry, 1);
    userPage &&= bit(entry, 2);
    executable &&= !(wide && s.nxe && bit(entry, 63));
    if (!leaf) {
      // used for the translation: accessed, whatever comes below (the manual lets a processor do so; QEMU does it too)
      if (!bit(entry, 5)) tables.write(at, bytes, entry | 0x20n);
      table = wide ? bits(entry, 39, 12) << 12n : bits(entry, 31, 12) << 12n;
      levels--;
      continue;
    }
    let allowed: boolean;
    if (user) allowed = userPage && (access !== "write" || writable) && (access !== "fetch" || executable);
    else if (access === "fetch") allowed = executable && !(s.smep && userPage);
    else allowed = (access === "read" || writable || !s.wp) && !(s.smap && userPage && !s.ac);
    if (!allowed) return { fault: code(true, false) };
    const marked = entry | 0x20n | (access === "write" ? 0x40n : 0n);
    if (marked !== entry) tables.write(at, bytes, marked);
    const offset = va & ((1n << BigInt(shift)) - 1n);
    if (wide || levels === 1)
      return {
        fault: undefined,
        physical:
          ((wide ? bits(entry, 39, 12) << 12n : bits(entry, 31, 12) << 12n) & ~((1n << BigInt(shift)) - 1n)) | offset,
      };
    return { fault: undefined, physical: (bits(entry, 20, 13) << 32n) | (bits(entry, 31, 22) << 22n) | offset };
  }
}
