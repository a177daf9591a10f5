/**
 * The parts of an instruction by prefixes and opcode alone (Intel SDM vol. 2, chapter 2), without the table: what kind of
 * encoding it is, also where it is none of ours. The second opinion that the rules of the random test go by.
 */

export interface Parts {
  /** "legacy", or the encoding that a first byte behind the prefixes selects in 64-bit mode. */
  readonly kind: "legacy" | "vex" | "evex" | "xop" | "rex2";
  readonly opsize: boolean;
  readonly lock: boolean;
  /** 0, 0xF2 or 0xF3: the last one. */
  readonly repeat: number;
  readonly rex: number;
  /** In VEX, any number up to 31. */
  readonly map: number;
  readonly opcode: number;
  /** The byte behind the opcode. */
  readonly modrm: number;
}

/** @returns undefined where there are 15 bytes or more without an opcode */
export function partsOf(bytes: Uint8Array, start: number, code: 32 | 64): Parts | undefined {
  let at = start;
  let opsize = false;
  let lock = false;
  let repeat = 0;
  let rex = 0;
  let b: number;
  for (;;) {
    if (at - start >= 15) return undefined;
    b = bytes[at++]!;
    if (code === 64 && b >= 0x40 && b <= 0x4f) {
      rex = b;
      continue;
    }
    if (b === 0x66) opsize = true;
    else if (b === 0xf0) lock = true;
    else if (b === 0xf2 || b === 0xf3) repeat = b;
    else if (b !== 0x67 && b !== 0x64 && b !== 0x65 && (b & 0xe7) !== 0x26) break;
    rex = 0;
  }
  const part = (kind: Parts["kind"], map = 0): Parts => ({
    kind,
    opsize,
    lock,
    repeat,
    rex,
    map,
    opcode: b,
    modrm: bytes[at]!,
  });
  // outside 64-bit mode, LES, LDS, BOUND and AAD have these places, but for register forms of ModRM
  const prefix = code === 64 || bytes[at]! >= 0xc0;
  if ((b === 0xc4 || b === 0xc5) && prefix) {
    const map = b === 0xc4 ? bytes[at++]! & 31 : 1;
    b = bytes[at + 1]!;
    at += 2;
    return part("vex", map);
  }
  if (b === 0x62 && prefix) return part("evex");
  if (b === 0xd5 && code === 64) return part("rex2");
  // XOP: as POP's group, with a map number from 8 on where ModRM would be
  if (b === 0x8f && (bytes[at]! & 0x1f) >= 8) return part("xop");
  if (b !== 0x0f) return part("legacy");
  b = bytes[at++]!;
  if (b !== 0x38 && b !== 0x3a) return part("legacy", 1);
  const map = b === 0x38 ? 2 : 3;
  b = bytes[at++]!;
  return part("legacy", map);
}

export const isMemory = (p: Parts): boolean => p.modrm < 0xc0;
export const regOf = (p: Parts): number => (p.modrm >> 3) & 7;
/** One opcode of the two-byte map. */
export const is0f = (p: Parts, opcode: number): boolean => p.kind === "legacy" && p.map === 1 && p.opcode === opcode;
