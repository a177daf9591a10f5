/**
 * What an opcode with its prefixes and the fields of its ModRM turns out to be: the row of the table, the operation's width, and all
 * that decoder and block builder have to know of them. Found once for each combination: a boot decodes some 400,000 instructions
 * of a few hundred kinds.
 */
import { type Form, lookupForm, operationWidths, sizeBits } from "../isa/forms.js";
import type { Width } from "../isa/sem.js";
import type { Row } from "../isa/table.js";

/** Yes or no about a kind. */
export const Trait = {
  /** There is no such instruction; the row tells its length. */
  unknown: 1,
  modrm: 2,
  /** ModRM.mod is not looked at: moves of control and debug registers. */
  registerAlways: 4,
  /** The prefix F2 or F3 is part of the opcode. */
  eatsRepeat: 8,
  lock: 0x10,
  noRexR: 0x20,
  ends: 0x40,
  /** Needs SSE, x87 or VEX state to be on. */
  state: 0x80,
  bitString: 0x100,
  string: 0x200,
  lea: 0x400,
  /** POP to memory. */
  popMemory: 0x800,
  /** Names RSP without an operand that says so. */
  stack: 0x1000,
  /** A shift by an immediate. */
  shift: 0x2000,
  enter: 0x4000,
  /** A second immediate belongs in the record. */
  imm2: 0x8000,
  /** A direct jump. */
  jump: 0x10000,
  legacyJump: 0x20000,
  /** The far pointer or the offset stands where an immediate would. */
  farPointer: 0x40000,
  offset: 0x80000,
  /** "1" is the immediate. */
  one: 0x100000,
  vvvv: 0x200000,
  /** Locked with memory, whether it has the prefix or not. */
  exchange: 0x400000,
} as const;

/** Where an operand's place in the record comes from. */
export const Place = {
  none: 0,
  accumulator: 1,
  e: 2,
  g: 3,
  opcode: 4,
  rm: 5,
  number: 6,
  v: 7,
  w: 8,
  p: 9,
  q: 10,
  jump: 11,
  vvvv: 12,
  segment: 13,
} as const;
const PLACES: Readonly<Record<string, number>> = {
  E: Place.e,
  G: Place.g,
  B: Place.vvvv,
  Z: Place.opcode,
  R: Place.rm,
  C: Place.number,
  D: Place.number,
  S: Place.segment,
  V: Place.v,
  W: Place.w,
  P: Place.p,
  Q: Place.q,
  J: Place.jump,
};

/** Code size as the table of kinds counts it. */
export const CodeIndex = { code16: 0, code32: 1, code64: 2 } as const;

/** Bits of a combination. */
const Key = { opsize: 1, f2: 2, f3: 4, rexW: 8, registers: 0x10, code: 5, reg: 7, rm: 10 } as const;

const STACK = new Set(["push", "pop", "pushImmediate", "leave", "call", "callIndirect", "ret", "retImmediate"]);
const SHIFTS = new Set(["shl", "shr", "sar", "rol", "ror"]);

export class Kind {
  readonly row: Row;
  readonly width: Width;
  readonly traits: number;
  /** Of a Jcc, else -1. */
  readonly cc: number;
  /** Of a procedure, else -1. */
  readonly selector: number;
  /** Bytes of the immediate, and of those that a sign is taken from: 0 = none, it is extended by zeros. */
  readonly immediate: number;
  readonly signBytes: number;
  /** Pairs of Place and size in bits, one for each operand of the row. */
  readonly plan: Uint8Array;
  #register: Form | undefined;
  #memory: Form | undefined;
  #indexed: Form | undefined;

  /**
   * @param row of the table
   * @param key the combination
   * @param unknown no row fits it: this one has its length
   */
  constructor(row: Row, key: number, unknown: boolean) {
    const { options, operands, form, mnemonic } = row;
    const code = (key >> Key.code) & 3;
    const opsize = (key & Key.opsize) !== 0;
    this.row = row;
    this.width = widthOf(row, key);
    this.cc = options.cc ?? -1;
    this.selector = options.selector ?? -1;
    let immediate = 0;
    let signBytes = 0;
    let traits = 0;
    const is = (trait: number, yes: boolean | undefined): void => {
      if (yes === true) traits |= trait;
    };
    for (const operand of operands)
      switch (operand) {
        case "Ib":
        case "Ibs":
        case "Jb":
          immediate = signBytes = 1;
          break;
        case "Iw":
          immediate = 2;
          break;
        case "Iz":
        case "Jz":
          // E9 with a 16-bit operand size outside 64-bit mode has a 16-bit distance: its width is forced to 64
          if (operand === "Jz" && code !== CodeIndex.code64 && options.width === 64)
            immediate = signBytes = (code === CodeIndex.code16) !== opsize ? 2 : 4;
          else immediate = signBytes = this.width === 16 && !(code === CodeIndex.code64 && operand === "Jz") ? 2 : 4;
          break;
        case "Iv":
          immediate = this.width / 8;
          signBytes = Math.min(4, immediate);
          break;
        case "Ob":
        case "Ov":
          traits |= Trait.offset;
          break;
        case "Ap":
          immediate = this.width === 16 ? 4 : 6;
          traits |= Trait.farPointer;
          break;
        case "1":
          traits |= Trait.one;
          break;
      }
    this.immediate = immediate;
    this.signBytes = signBytes;
    is(Trait.unknown, unknown || options.unknown);
    is(Trait.modrm, row.modrm);
    is(Trait.registerAlways, operands[0]?.[0] === "R" || operands[1]?.[0] === "R");
    is(Trait.eatsRepeat, row.prefix === 0xf2 || row.prefix === 0xf3);
    is(Trait.lock, options.lock);
    is(Trait.exchange, form === "xchg");
    is(Trait.noRexR, options.noRexR);
    is(Trait.ends, options.ends);
    is(Trait.state, options.sse || options.fpu || row.map > 3);
    is(Trait.bitString, options.bitString);
    is(Trait.string, options.string);
    is(Trait.lea, form === "lea");
    is(Trait.popMemory, mnemonic === "pop");
    is(Trait.stack, STACK.has(form));
    is(Trait.shift, SHIFTS.has(form) && operands[1] !== "CL");
    is(Trait.enter, mnemonic === "enter");
    is(Trait.imm2, mnemonic === "enter" || operands[0] === "Ap");
    is(Trait.jump, (options.cc !== undefined || mnemonic === "jmp") && operands[0]!.startsWith("J"));
    is(Trait.legacyJump, form === "jmpIndirectLegacy");
    is(
      Trait.vvvv,
      operands.some((x) => x[0] === "B"),
    );
    this.traits = traits;
    this.plan = planOf(row, this.width);
  }
  /** The form with a register, memory by base and displacement, or memory with an index for operand E. */
  get register(): Form {
    this.#register ??= lookupForm(this.row, this.width, "r");
    return this.#register;
  }
  get memory(): Form {
    this.#memory ??= lookupForm(this.row, this.width, "m");
    return this.#memory;
  }
  get indexed(): Form {
    this.#indexed ??= lookupForm(this.row, this.width, "x");
    return this.#indexed;
  }
}

/** Of a row of 32-bit code, by the operation's width. */
export const legacyKind = (row: Row, width: 16 | 32): Kind =>
  new Kind(row, (CodeIndex.code32 << Key.code) | (width === 16 ? Key.opsize : 0), false);

function widthOf(row: Row, key: number): Width {
  const { options } = row;
  if (options.width !== undefined) return options.width;
  const code = (key >> Key.code) & 3;
  const opsize = (key & Key.opsize) !== 0;
  // 66 that is part of the opcode is not the operand size, but for MOVBE and CRC32, whose rows come with it
  const mandatory = row.prefix === 0x66 && row.map === 2 && row.opcode !== 0xf0 && row.opcode !== 0xf1;
  const normal: Width =
    (key & Key.rexW) !== 0
      ? 64
      : code === CodeIndex.code16
        ? opsize
          ? 32
          : 16
        : opsize && !mandatory
          ? 16
          : options.d64 && code === CodeIndex.code64
            ? 64
            : 32;
  const allowed = operationWidths(row);
  if (allowed.includes(normal)) return normal;
  return allowed.length > 1 && normal === 32 && allowed.includes(64) ? 64 : allowed[0]!;
}

function planOf(row: Row, width: Width): Uint8Array {
  return Uint8Array.from(
    row.operands.flatMap((operand) => {
      if (operand === "AL" || operand === "rAX") return [Place.accumulator, 0];
      if (operand === "DX" || operand === "CL" || operand === "Ap") return [Place.none, 0];
      return [PLACES[operand[0]!] ?? Place.none, sizeBits(operand[1] ?? "v", width)];
    }),
  );
}
/** The rows of one opcode. */
export class KindSet {
  readonly #rows: readonly Row[];
  /** Whether a ModRM byte follows: all rows of an opcode have one, or none. */
  readonly modrm: boolean;
  readonly #byReg: boolean;
  readonly #byRm: boolean;
  readonly #found: (Kind | undefined)[] = [];

  /** @param list of the same opcode and map, those that are looked at first in front */
  constructor(list: readonly Row[]) {
    this.#rows = list;
    this.modrm = list[0]!.modrm;
    this.#byReg = list.some(({ reg }) => reg !== undefined);
    this.#byRm = list.some(({ rm }) => rm !== undefined);
  }
  /**
   * @param repeat 0, 0xF2 or 0xF3
   * @param code CodeIndex
   */
  find(opsize: boolean, repeat: number, rex: number, modrm: number, code: number): Kind {
    let key = (repeat === 0 ? 0 : repeat === 0xf3 ? Key.f3 : Key.f2) | (rex & Key.rexW) | (code << Key.code);
    if (opsize) key |= Key.opsize;
    if (modrm >= 0xc0) key |= Key.registers;
    if (this.#byReg) key |= ((modrm >> 3) & 7) << Key.reg;
    if (this.#byRm) key |= (modrm & 7) << Key.rm;
    const known = this.#found[key];
    if (known !== undefined) return known;
    const made = this.#make(key);
    this.#found[key] = made;
    return made;
  }
  #make(key: number): Kind {
    const row = this.#rows.find((r) => fits(r, key));
    // the others of an opcode have the same length
    return new Kind(row ?? this.#rows[0]!, key, row === undefined);
  }
}
function fits(r: Row, key: number): boolean {
  const opsize = (key & Key.opsize) !== 0;
  const repeat = (key & Key.f2) !== 0 ? 0xf2 : (key & Key.f3) !== 0 ? 0xf3 : 0;
  const registers = (key & Key.registers) !== 0;
  if (r.prefix === 0 && (opsize || repeat !== 0)) return false;
  if (r.prefix === 0x66 && (!opsize || repeat !== 0)) return false;
  if ((r.prefix === 0xf2 || r.prefix === 0xf3) && repeat !== r.prefix) return false;
  if (r.reg !== undefined && r.reg !== ((key >> Key.reg) & 7)) return false;
  if (r.mod !== undefined && (r.mod === 3) !== registers) return false;
  if (r.rm !== undefined && r.rm !== ((key >> Key.rm) & 7)) return false;
  return !(((key >> Key.code) & 3) === CodeIndex.code64 ? r.options.not64 : r.options.only64);
}
