/**
 * Bytes to one decoded instruction: prefixes, opcode, ModRM, SIB, displacement, immediate, and the row of the table.
 * Intel SDM vol. 2, chapter 2 ("Instruction Format"). Used by the block builder, the disassembler and the tests.
 */

import { forms } from "../isa/forms.js";
import type { Width } from "../isa/sem.js";
import { type Row, rows } from "../isa/table.js";
import { CodeIndex, type Kind, KindSet, Trait } from "./kind.js";

/** A decoded instruction. One object is reused by a decoder; copy what has to stay. */
export interface Instruction {
  kind: Kind;
  row: Row;
  length: number;
  width: Width;
  /** 16, 32 or 64. */
  addressWidth: number;
  lock: boolean;
  /** 0, 0xF2 or 0xF3: the last one, where it is not a mandatory prefix. */
  repeat: number;
  /** Segment override: index in SegIndex order (ES CS SS DS FS GS), -1 = none. */
  segment: number;
  rex: number;
  modrm: number;
  /** Memory operand: register numbers, -1 = absent; base 16 = RIP. */
  memory: boolean;
  base: number;
  index: number;
  scale: number;
  /** Displacement, or absolute offset (low half) of an O operand. */
  disp: number;
  dispHigh: number;
  /** Immediate, sign-extended to the operation's width: low and high words. */
  immLow: number;
  immHigh: number;
  /** Second immediate (ENTER) or selector of a far pointer. */
  imm2: number;
  /** VEX.vvvv. */
  vvvv: number;
  /** Register number in the opcode's low three bits (with REX.B). */
  opcodeRegister: number;
  /** 32-bit code with a 66 prefix: a near jump is cut to 16 bits. */
  narrow: boolean;
}

/**
 * "undefined" is #UD, "long" #GP(0) for more than 15 bytes, "more" an instruction that goes on past the bytes there are. A
 * processor finds an instruction's end before it looks whether there is such an instruction: so a fetch that faults, and the
 * limit of 15 bytes, come before #UD.
 */
export type DecodeResult = "ok" | "undefined" | "long" | "more";

/** By map * 256 + opcode. */
const kinds: KindSet[] = [];
function prepare(): void {
  forms();
  const candidates: (Row[] | undefined)[] = [];
  for (const row of rows) {
    const k = row.map * 256 + row.opcode;
    (candidates[k] ??= []).push(row);
  }
  // rows with a mandatory prefix are looked at first, so that "f3 0f bc" wins over "0f bc"
  for (const list of candidates) list?.sort((a, b) => rank(b) - rank(a));
  for (let k = 0; k < 2048; k++) kinds.push(new KindSet(candidates[k] ?? [unknownRow(k >> 8, k & 0xff)]));
}
/** Opcodes of the two-byte map that are no instruction and have no ModRM. */
const WITHOUT_MODRM = new Set([0x04, 0x0a, 0x0c, 0x0e, 0x0f, 0x24, 0x25, 0x26, 0x27, 0x36, 0x37, 0xaa]);
let unknownRows = 0;
/**
 * The shape of an opcode that the table does not have (as Intel's processors read it): ModRM, and an immediate in map 0F 3A. Behind
 * VEX, where a processor without AVX has hardly any opcodes, there is nothing more to read.
 */
function unknownRow(map: number, opcode: number): Row {
  return {
    mnemonic: "(bad)",
    map: map as Row["map"],
    opcode,
    prefix: undefined,
    reg: undefined,
    rm: undefined,
    mod: undefined,
    modrm: map < 4 && (map > 1 || !WITHOUT_MODRM.has(opcode)),
    operands: map === 3 ? ["Ib"] : [],
    define: () => {},
    form: "",
    options: { width: 32, unknown: true },
    index: rows.length + unknownRows++,
  };
}
const rank = (r: Row): number =>
  (r.prefix === undefined ? 0 : r.prefix === 0 ? 1 : 2) * 4 +
  (r.rm !== undefined ? 2 : 0) +
  (r.mod !== undefined ? 1 : 0);

/** Registers of 16-bit addresses by ModRM.rm. */
const BASE16: readonly number[] = [3, 3, 5, 5, 6, 7, 5, 3];
const INDEX16: readonly number[] = [6, 7, 6, 7, -1, -1, -1, -1];

export class Decoder {
  readonly out: Instruction = {
    kind: undefined as unknown as Kind,
    row: undefined as unknown as Row,
    length: 0,
    width: 32,
    addressWidth: 64,
    lock: false,
    repeat: 0,
    segment: -1,
    rex: 0,
    modrm: 0,
    memory: false,
    base: -1,
    index: -1,
    scale: 0,
    disp: 0,
    dispHigh: 0,
    immLow: 0,
    immHigh: 0,
    imm2: 0,
    vvvv: 0,
    opcodeRegister: 0,
    narrow: false,
  };

  constructor() {
    if (kinds.length === 0) prepare();
  }

  /**
   * @param code 16, 32 or 64
   * @param end  first byte that may not be read
   * @returns whether there is an instruction; out.length tells how much was read
   */
  decode(bytes: Uint8Array, start: number, end: number, code: number): DecodeResult {
    const o = this.out;
    let at = start;
    const limit = Math.min(end, start + 15);
    o.lock = false;
    o.repeat = 0;
    o.segment = -1;
    o.rex = 0;
    let opsize = false;
    let adsize = false;
    let b: number;
    for (;;) {
      if (at >= limit) return this.#short(start, end);
      b = bytes[at++]!;
      if (b === 0x66) opsize = true;
      else if (b === 0x67) adsize = true;
      else if (b === 0xf0) o.lock = true;
      else if (b === 0xf2 || b === 0xf3) o.repeat = b;
      else if (b === 0x26 || b === 0x2e || b === 0x36 || b === 0x3e) {
        if (code !== 64) o.segment = (b >> 3) & 3;
      } else if (b === 0x64) o.segment = 4;
      else if (b === 0x65) o.segment = 5;
      else if (code === 64 && b >= 0x40 && b <= 0x4f) {
        o.rex = b; // only the last one, right before the opcode, counts
        continue;
      } else break;
      o.rex = 0;
    }
    let unknown = false;
    let vvvv = 0;
    let map = 0;
    // C4 and C5 are LES and LDS outside 64-bit code, with a memory operand
    if ((b === 0xc4 || b === 0xc5) && (code === 64 || (at < limit && bytes[at]! >= 0xc0))) {
      unknown = opsize || o.lock || o.repeat !== 0 || o.rex !== 0;
      // the fields R, X, B and vvvv are inverted (SDM vol. 2, "The VEX Prefix")
      const three = b === 0xc4;
      if (at + (three ? 3 : 2) > limit) return this.#short(start, end);
      const first = bytes[at++]!;
      const last = three ? bytes[at++]! : first;
      b = bytes[at++]!;
      const select = three ? first & 31 : 1;
      if (select < 1 || select > 3) {
        o.length = at - start;
        return "undefined";
      }
      if ((last & 4) !== 0) unknown = true;
      map = select + 4;
      vvvv = ~(last >> 3) & 15;
      o.vvvv = code === 64 ? vvvv : vvvv & 7;
      if (code === 64) o.rex = (three ? ((last >> 4) & 8) | (~(first >> 5) & 7) : ~(first >> 5) & 4) | 0x40;
      const pp = last & 3;
      opsize = pp === 1;
      o.repeat = pp === 2 ? 0xf3 : pp === 3 ? 0xf2 : 0;
    }
    const { rex } = o;
    if (map === 0 && b === 0x0f) {
      if (at >= limit) return this.#short(start, end);
      b = bytes[at++]!;
      map = 1;
      if (b >> 3 === 7) {
        // 0F 38 and 0F 3A; the others of this line are read like them
        map = (b & 2) === 0 ? 2 : 3;
        unknown = (b & 5) !== 0;
        if (at >= limit) return this.#short(start, end);
        b = bytes[at++]!;
      }
    }
    // 90 with REX.B is XCHG r8, rAX; F3 90 is PAUSE even so
    const isExchange = b === 0x90 && map === 0 && (rex & 1) !== 0 && o.repeat !== 0xf3;
    const set = kinds[isExchange ? 0x91 : map * 256 + b]!;
    let modrm = 0;
    if (set.modrm) {
      if (at >= limit) return this.#short(start, end);
      modrm = bytes[at]!;
    }
    const codeIndex = code === 64 ? CodeIndex.code64 : code === 32 ? CodeIndex.code32 : CodeIndex.code16;
    const kind = set.find(opsize, o.repeat, rex, modrm, codeIndex);
    const { traits, row, width } = kind;
    // VEX.vvvv of an instruction that does not use it has all (inverted) bits clear, also the one that 32-bit code has no use for
    if ((traits & Trait.unknown) !== 0 || (vvvv !== 0 && (traits & Trait.vvvv) === 0)) {
      if (code === 64 && map === 0 && b === 0x62) {
        // no EVEX: BOUND outside 64-bit mode, and nothing more to read here
        o.length = at - start;
        return "undefined";
      }
      unknown = true;
    }
    o.kind = kind;
    o.row = row;
    if ((traits & Trait.eatsRepeat) !== 0) o.repeat = 0;
    o.width = width;
    o.narrow = opsize && code === 32;
    o.addressWidth = code === 64 ? (adsize ? 32 : 64) : (code === 32) !== adsize ? 32 : 16;
    o.modrm = modrm;
    o.memory = false;
    o.base = -1;
    o.index = -1;
    o.scale = 0;
    o.disp = 0;
    o.dispHigh = 0;
    o.immLow = 0;
    o.immHigh = 0;
    o.imm2 = 0;
    o.opcodeRegister = (b & 7) | ((rex & 1) << 3);

    if ((traits & Trait.modrm) !== 0) {
      at++;
      const mod = modrm >> 6;
      if (mod !== 3 && (traits & Trait.registerAlways) === 0) {
        o.memory = true;
        let size = mod === 1 ? 1 : mod === 2 ? (o.addressWidth === 16 ? 2 : 4) : 0;
        const rm = modrm & 7;
        if (o.addressWidth === 16) {
          o.base = BASE16[rm]!;
          o.index = INDEX16[rm]!;
          if (mod === 0 && rm === 6) {
            o.base = -1;
            size = 2;
          }
        } else if (rm === 4) {
          if (at >= limit) return this.#short(start, end);
          const sib = bytes[at++]!;
          o.base = (sib & 7) | ((rex & 1) << 3);
          o.index = ((sib >> 3) & 7) | ((rex & 2) << 2);
          o.scale = sib >> 6;
          if (o.index === 4) {
            o.index = -1;
            o.scale = 0;
          }
          if ((sib & 7) === 5 && mod === 0) {
            o.base = -1;
            size = 4;
          }
        } else {
          o.base = rm | ((rex & 1) << 3);
          if (rm === 5 && mod === 0) {
            o.base = code === 64 ? 16 : -1;
            size = 4;
          }
        }
        if (at + size > limit) return this.#short(start, end);
        if (size === 1) o.disp = (bytes[at]! << 24) >> 24;
        else if (size === 2) o.disp = ((bytes[at]! | (bytes[at + 1]! << 8)) << 16) >> 16;
        else if (size === 4)
          o.disp = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
        o.dispHigh = o.disp < 0 ? -1 : 0;
        at += size;
      }
    }
    const { immediate, signBytes } = kind;
    if (immediate !== 0) {
      if (at + immediate > limit) return this.#short(start, end);
      let low = bytes[at]!;
      let high = 0;
      if (immediate === 1) low = (low << 24) >> 24;
      else {
        low |= bytes[at + 1]! << 8;
        if (immediate >= 4) low |= (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
        else if (signBytes > 0) low = (low << 16) >> 16;
        for (let i = 4; i < immediate; i++) high |= bytes[at + i]! << (8 * (i - 4));
      }
      at += immediate;
      if ((traits & Trait.farPointer) !== 0) {
        o.immLow = width === 16 ? low & 0xffff : low;
        o.imm2 = width === 16 ? low >>> 16 : high & 0xffff;
      } else {
        o.immLow = low;
        o.immHigh = immediate === 8 ? high : signBytes > 0 && low < 0 ? -1 : 0;
      }
    } else if ((traits & Trait.one) !== 0) o.immLow = 1;
    else if ((traits & Trait.offset) !== 0) {
      const size = o.addressWidth / 8;
      if (at + size > limit) return this.#short(start, end);
      let low = 0;
      let high = 0;
      for (let i = 0; i < Math.min(4, size); i++) low |= bytes[at + i]! << (8 * i);
      for (let i = 4; i < size; i++) high |= bytes[at + i]! << (8 * (i - 4));
      at += size;
      o.memory = true;
      o.disp = low;
      o.dispHigh = high;
    }
    if ((traits & Trait.enter) !== 0) {
      if (at >= limit) return this.#short(start, end);
      o.imm2 = bytes[at++]!;
    }
    o.length = at - start;
    if (unknown || (o.lock && !((traits & Trait.lock) !== 0 && o.memory))) return "undefined";
    return (traits & Trait.noRexR) !== 0 && (rex & 4) !== 0 ? "undefined" : "ok";
  }
  /** It goes on past what may be read. */
  #short(start: number, end: number): DecodeResult {
    this.out.length = 15;
    return end < start + 15 ? "more" : "long";
  }
}
