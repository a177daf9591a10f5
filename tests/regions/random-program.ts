/**
 * Random programs for both tiers: instructions of the integer and the vector tests with jumps, inner loops, calls and indirect jumps
 * among them, and a loop around all. Each instruction with a memory operand has a page of its own, which is the window's page under
 * another address: so that a page that is taken away stops that instruction and no other.
 */
import { Decoder } from "../../src/cpu/decode/decode.js";
import { disassemble } from "../../src/cpu/decode/disassemble.js";
import { forms, operationWidths } from "../../src/cpu/isa/forms.js";
import { type Row, rows } from "../../src/cpu/isa/table.js";
import { addIntegerCase, shapesOf, value } from "../reference/integer-encoding.js";
import { isMmxRow, isVectorRow } from "../reference/isa-coverage.js";
import { Batch, Field, WINDOW } from "../reference/native-runner.js";
import type { Random } from "../reference/values.js";
import { addVectorCase, vectorShapes } from "../reference/vector-encoding.js";

forms();
export const START = 0x200000;
/** Counters of the loops, on a page that the programs do not reach otherwise. */
export const COUNTERS = 0x340000;
/** Pages by pairs: one that is the window's, and the one behind it. */
export const ALIASES = 0x40000000;
export const PAIR_BYTES = 0x2000;
const MAX_PAIRS = 120;
/** The page table of the aliases, as the program can write it; and the aliases again, where they have the same place in the TLB. */
export const TABLE = ALIASES + 511 * 0x1000;
export const EVICTING = ALIASES + 0x1000000;
/** Pages of the stack: the program's calls are in this pair. */
const WINDOW_PAGE = WINDOW & ~0xfff;
const MIDDLE = BigInt(WINDOW + 128);

/** TF would make each instruction an exit of its own; a program that jumps anywhere ends nowhere. */
const LEFT_OUT =
  /^(popf|call|ret|jmp|enter|leave|loop\w*|jcxz|cli|sti|cmpxchg16b|rd\w+|xgetbv|cpuid|syscall|sysenter|(ins|outs)b?|emms)$/;
const PROCEDURES = new Set(["pushf", "crc32", "cmpxchg8b", "xlat"]);
const integerRows = rows.filter(
  (r) =>
    !LEFT_OUT.test(r.mnemonic) &&
    r.options.not64 === undefined &&
    r.options.ends === undefined &&
    r.options.cc === undefined &&
    r.options.sse === undefined &&
    r.options.fpu === undefined &&
    !r.operands.some((o) => /^[VWPQCDSRJO]/.test(o)) &&
    (r.options.selector === undefined || r.options.string === true || PROCEDURES.has(r.mnemonic)),
);
/** Without approximations, whose last bits are nobody's business, and what a skipped fault would make a processor's choice. */
const vectorRows = rows.filter((r) => isVectorRow(r) && !isMmxRow(r));
const strings = integerRows.filter((r) => r.options.string === true && r.mnemonic !== "xlat");
/** What looks at flags. */
const flagReaders = integerRows.filter((r) => /^(set|cmov|adc|sbb|adcx|adox|rc[lr]|lahf|pushf|cmc)/.test(r.mnemonic));
const arithmetic = integerRows.filter((r) => /^(inc|dec|add|sub|neg|adc|sbb|cmp|xadd)$/.test(r.mnemonic));
/** A mnemonic first, then one of its rows. */
function byMnemonic(list: readonly Row[]): readonly (readonly Row[])[] {
  return [...new Set(list.map((r) => r.mnemonic))].map((m) => list.filter((r) => r.mnemonic === m));
}
const arithmeticRows = byMnemonic(arithmetic);
const flagReaderRows = byMnemonic(flagReaders);
const stackRows = /^(push|pop|pushf)$/;

export interface ProgramInstruction {
  readonly offset: number;
  readonly length: number;
  /** Number of the pair of pages that its operand is in. */
  readonly pair?: number;
}
export interface Program {
  readonly code: readonly number[];
  readonly instructions: readonly ProgramInstruction[];
  /** Offsets where a region may begin: the start, heads of loops, functions. */
  readonly entries: readonly number[];
  /** Offset of the HLT that ends it. */
  readonly end: number;
  readonly pairs: number;
  /** Pairs whose second page is absent. */
  readonly without: ReadonlySet<number>;
}
export interface ProgramOptions {
  /** Rounds of the loop around all. */
  readonly rounds: number;
  /** Now and then the program takes a page from itself, by a store to the page table. */
  readonly unmaps: boolean;
  /** Instructions, beside those that load registers. */
  readonly length: number;
  /** What the pages of a pair stand for. */
  readonly frame: number;
  readonly secondFrame: number;
}

const decoder = new Decoder();
const words = (value: number): number[] => [value & 255, (value >> 8) & 255, (value >> 16) & 255, (value >> 24) & 255];
/** MOV r64, imm32 */
const loadRegister = (n: number, value: bigint): number[] => [
  0x48 | (n >> 3),
  0xc7,
  0xc0 | (n & 7),
  ...words(Number(BigInt.asIntN(32, value))),
];

export class ProgramBuilder {
  readonly #random: Random;
  readonly #o: ProgramOptions;
  readonly #code: number[] = [];
  readonly #instructions: ProgramInstruction[] = [];
  readonly #entries = [0];
  readonly #without = new Set<number>();
  #pairs = 1; // the first is the stack of the calls
  /** Forward jumps: place of the distance, and after how many instructions they land. */
  #open: { at: number; left: number }[] = [];
  /** Calls and addresses of functions: place, function; `relative`: a distance. */
  readonly #calls: { at: number; to: number; relative: boolean }[] = [];
  #functions = 0;
  #loops = 1;

  constructor(random: Random, options: ProgramOptions) {
    this.#random = random;
    this.#o = options;
  }
  build(): Program {
    const random = this.#random;
    // what no region begins with would let the interpreter do the rest as well
    this.#emit(loadRegister(0, value(random)));
    for (let n = 0; n < this.#o.length; n++) this.#something(n);
    this.#landAll();
    this.#loopEnd(0, 0);
    const end = this.#code.length;
    this.#emit([0xf4]);
    for (let f = 0; f < this.#functions; f++) {
      const start = this.#code.length;
      this.#entries.push(start);
      for (const { at, to, relative } of this.#calls)
        if (to === f) this.#patch(at, relative ? start - (at + 4) : START + start);
      for (let n = 1 + random.below(5); n > 0; n--) this.#one(false);
      this.#landAll();
      this.#emit([0xc3]);
      // behind a RET that faulted and was skipped
      this.#emit([0xe9, ...words(end - (this.#code.length + 5))]);
    }
    return {
      code: this.#code,
      instructions: this.#instructions,
      entries: this.#entries,
      end,
      pairs: this.#pairs,
      without: this.#without,
    };
  }
  #emit(bytes: readonly number[], pair?: number): void {
    this.#instructions.push({
      offset: this.#code.length,
      length: bytes.length,
      ...(pair === undefined ? {} : { pair }),
    });
    this.#code.push(...bytes);
  }
  #patch(at: number, value: number): void {
    words(value).forEach((b, i) => {
      this.#code[at + i] = b;
    });
  }
  #landAll(): void {
    for (const { at } of this.#open) this.#patch(at, this.#code.length - (at + 4));
    this.#open = [];
  }
  #countJumps(): void {
    this.#open = this.#open.filter((jump) => {
      if (--jump.left > 0) return true;
      this.#patch(jump.at, this.#code.length - (jump.at + 4));
      return false;
    });
  }
  /** sub dword [counter], 1; jg head: also a loop that was jumped into comes to its end. */
  #loopEnd(loop: number, head: number): void {
    this.#emit([0x83, 0x2c, 0x25, ...words(COUNTERS + loop * 4), 1]);
    this.#emit([0x0f, 0x8f, ...words(head - (this.#code.length + 6))]);
  }
  #something(n: number): void {
    const random = this.#random;
    const kind = random.below(24);
    if (kind === 0 && this.#loops < 12 && n < this.#o.length - 1) {
      const loop = this.#loops++;
      // mov dword [counter], n
      this.#emit([0xc7, 0x04, 0x25, ...words(COUNTERS + loop * 4), ...words(2 + random.below(3))]);
      const head = this.#code.length;
      this.#entries.push(head);
      for (let k = 1 + random.below(4); k > 0; k--) this.#one(true);
      this.#loopEnd(loop, head);
    } else if (kind === 1 && this.#functions < 4) this.#call();
    else if (kind === 2) this.#jumpIndirect();
    else if (kind === 3 && this.#o.unmaps) this.#unmap();
    else this.#one(true);
    if (random.below(5) === 0 && this.#open.length < 2) {
      this.#emit([0x0f, 0x80 | random.below(16), 0, 0, 0, 0]);
      this.#open.push({ at: this.#code.length - 4, left: 1 + random.below(3) });
    }
  }
  /** A call of a new function or one that is there, by distance or by register, on the stack's own pages. */
  #call(): void {
    const random = this.#random;
    const to = random.below(this.#functions + 1);
    this.#functions = Math.max(this.#functions, to + 1);
    this.#emit(loadRegister(4, BigInt(ALIASES + 0x1000 + 0x800)));
    if (random.below(2) === 0) {
      this.#emit([0xe8, 0, 0, 0, 0]);
      this.#calls.push({ at: this.#code.length - 4, to, relative: true });
    } else {
      this.#emit(loadRegister(0, 0n));
      this.#calls.push({ at: this.#code.length - 4, to, relative: false });
      this.#emit([0xff, 0xd0]);
    }
  }
  /** mov rcx, target; jmp rcx, over an instruction. */
  #jumpIndirect(): void {
    this.#emit(loadRegister(1, 0n));
    const at = this.#code.length - 4;
    this.#emit([0xff, 0xe1]);
    this.#one(true);
    this.#patch(at, START + this.#code.length);
    this.#entries.push(this.#code.length);
  }
  /**
   * In one round the next instruction with a page of its own finds another entry in the page table, and in all of them nothing in
   * the TLB: so that the fault comes in the middle of what the region does, behind rounds that went well.
   */
  #unmap(): void {
    if (this.#pairs >= MAX_PAIRS) return;
    const pair = this.#pairs;
    const second = this.#random.below(4) === 0;
    const page = pair * 2 + Number(second);
    const frame = second ? this.#o.secondFrame : this.#o.frame;
    const bad = this.#random.pick([0, frame | 0x25, frame | 0x63]);
    const round = 1 + this.#random.below(this.#o.rounds);
    this.#emit([0x80, 0x0c, 0x25, ...words(EVICTING + page * 0x1000), 0]); // or byte [page], 0
    this.#emit([0x83, 0x3c, 0x25, ...words(COUNTERS), round]); // cmp dword [rounds left], round
    this.#emit([0xb8, ...words(frame | 0x67)]); // mov eax, good
    this.#emit([0xb9, ...words(bad)]); // mov ecx, bad
    this.#emit([0x48, 0x0f, 0x44, 0xc1]); // cmove rax, rcx
    this.#emit([0x48, 0x89, 0x04, 0x25, ...words(TABLE + page * 8)]); // mov [entry], rax
    for (let tries = 0; tries < 20 && this.#pairs === pair; tries++) this.#one(true);
  }
  #one(mayPush: boolean): void {
    const random = this.#random;
    const kind = random.below(20);
    // values at the borders, where flags are made
    if (random.below(4) === 0)
      this.#emit(loadRegister(random.pick([0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]), value(random)));
    if (kind >= 17) {
      this.#row(random.pick(random.pick(arithmeticRows)), mayPush, true);
      this.#row(random.pick(random.pick(flagReaderRows)), mayPush);
    } else this.#row(random.pick(kind < 5 ? vectorRows : kind === 5 ? strings : integerRows), mayPush);
    this.#countJumps();
  }
  /** @param atBorder with a value in its register that overflows easily */
  #row(row: Row, mayPush: boolean, atBorder = false): void {
    const random = this.#random;
    const vector = isVectorRow(row);
    if (!mayPush && stackRows.test(row.mnemonic)) return;
    const batch = new Batch();
    let memory: boolean;
    if (vector) {
      const shape = random.pick(vectorShapes(row));
      const width = random.pick(operationWidths(row));
      addVectorCase(batch, random, row, { width: width === 16 ? 32 : width, shape, n: random.below(64) });
      memory = shape === "m" || row.mnemonic.startsWith("maskmov");
    } else {
      const width = random.pick(operationWidths(row));
      const shape = random.pick(shapesOf(row).filter((s) => s !== "rip"));
      const repeat = row.options.string && row.mnemonic !== "xlat" && random.below(2) === 0;
      const options = { width, shape, ...(repeat ? { repeat: random.pick([0xf2, 0xf3] as const) } : {}) };
      if (!addIntegerCase(batch, random, row, options)) return;
      memory = shape !== "r" || row.options.string === true || stackRows.test(row.mnemonic);
    }
    const own = memory && this.#pairs < MAX_PAIRS;
    const pair = own ? this.#pairs++ : 0;
    if (own && random.below(3) === 0) this.#without.add(pair);
    const moved = BigInt(ALIASES + pair * PAIR_BYTES - WINDOW_PAGE);
    for (let i = 0; i < 16; i++) {
      // what the operand's address is made of, mostly
      const value = batch.view.getBigUint64(Field.gpr + i * 8, true);
      const small = BigInt.asIntN(64, value);
      const address = value >= MIDDLE - 128n && value <= MIDDLE + 128n;
      if ((address || (small >= -9n && small <= 9n)) && random.below(10) < 8)
        this.#emit(loadRegister(i, address ? value + moved : value));
    }
    const length = batch.view.getUint32(Field.length, true);
    if (atBorder && decoder.decode(batch.bytes, 0, length, 64) === "ok" && !decoder.out.memory) {
      const { modrm, rex, width } = decoder.out;
      const bits = row.operands[0]?.[1] === "b" ? 8n : BigInt(width);
      const border = BigInt.asIntN(64, random.pick([0n, -1n, 1n << (bits - 1n), (1n << (bits - 1n)) - 1n]));
      // mov r64, imm64
      const n = (modrm & 7) | ((rex & 1) << 3);
      if (n !== 4)
        this.#emit([
          0x48 | (n >> 3),
          0xb8 | (n & 7),
          ...words(Number(BigInt.asIntN(32, border))),
          ...words(Number(BigInt.asIntN(32, border >> 32n))),
        ]);
    }
    this.#emit([...batch.bytes.subarray(0, length)], own ? pair : undefined);
  }
}

/** The program with NOPs in place of some instructions, at the same addresses. @param numbers of instructions */
export function leaveOut(program: Program, numbers: ReadonlySet<number>): Program {
  const code = [...program.code];
  program.instructions.forEach(({ offset, length }, i) => {
    if (numbers.has(i)) code.fill(0x90, offset, offset + length);
  });
  return { ...program, code };
}

/** The program as text, for reports, without NOPs. */
export function formatProgram(program: Program): string {
  return program.instructions
    .filter(({ offset }) => program.code[offset] !== 0x90)
    .map(({ offset, length, pair }) => {
      const bytes = Uint8Array.from(program.code.slice(offset, offset + length));
      const hex = Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join(" ");
      const mark = `${program.entries.includes(offset) ? "*" : " "}${pair === undefined ? "" : ` ; pair ${pair}`}`;
      return `${(START + offset).toString(16)} ${hex.padEnd(36)} ${disassemble(bytes, 64, BigInt(START + offset)).text} ${mark}`;
    })
    .join("\n");
}
