/** Generators of arbitrary instructions: bytes that are random, nearly an instruction, or one that is too long. */
import { forms } from "../../src/cpu/isa/forms.js";
import { type Row, rows } from "../../src/cpu/isa/table.js";
import { WINDOW, WINDOW_BYTES, WINDOW_END } from "./user-case.js";
import type { Random } from "./values.js";

forms();
const table: Readonly<Record<32 | 64, readonly Row[]>> = {
  64: rows.filter((r) => !r.options.not64),
  // what is not in 64-bit code first of all
  32: [
    ...rows.filter((r) => !r.options.only64),
    ...Array<Row[]>(10)
      .fill(rows.filter((r) => r.options.not64))
      .flat(),
  ],
};
const PREFIXES = [0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65];
const OPERAND_PREFIXES = [0x66, 0xf2, 0xf3];

const BMI = [
  [2, 0xf2],
  [2, 0xf3],
  [2, 0xf5],
  [2, 0xf6],
  [2, 0xf7],
  [3, 0xf0],
] as const;

class Writer {
  readonly bytes: number[] = [];
  readonly random: Random;
  /** Address of the first byte. */
  readonly at: number;
  readonly code: 32 | 64;
  constructor(random: Random, at: number, code: 32 | 64) {
    this.random = random;
    this.at = at;
    this.code = code;
  }
  put(...bytes: number[]): void {
    this.bytes.push(...bytes);
  }
  byte(): void {
    this.bytes.push(this.random.u32() & 0xff);
  }
  little(value: number, size: number): void {
    for (let i = 0; i < size; i++) this.bytes.push(Math.floor(value / 256 ** i) & 0xff);
  }
  prefixes(most: number, from: readonly number[] = PREFIXES): void {
    for (let n = this.random.below(most + 1); n > 0; n--) this.put(this.random.pick(from));
  }
  rex(): void {
    if (this.code === 64 && this.random.below(2) === 0) this.put(0x40 | (this.random.u32() & 15));
  }
  map(map: number): void {
    if (map > 0) this.put(0x0f);
    if (map === 2) this.put(0x38);
    if (map === 3) this.put(0x3a);
  }
  /** SIB and a displacement that often leads into the window. */
  address(modrm: number): void {
    const { random } = this;
    const mod = modrm >> 6;
    if (mod === 3) return;
    if ((modrm & 7) === 4) {
      let sib = random.u32() & 0xff;
      if (random.below(3) !== 0) sib = (sib & 0xc7) | 0x20; // no index
      this.put(sib);
      if (mod === 0 && (sib & 7) === 5) {
        this.little(random.below(2) === 0 ? WINDOW + random.below(WINDOW_BYTES) : random.u32(), 4);
        return;
      }
    } else if (mod === 0 && (modrm & 7) === 5) {
      const to = WINDOW + random.below(WINDOW_BYTES);
      const from = this.code === 64 ? this.at + this.bytes.length + 4 : 0;
      this.little(random.below(4) === 0 ? random.u32() : to - from, 4);
      return;
    }
    if (mod === 1) this.put((random.below(4) === 0 ? random.u32() : (random.below(9) - 4) * 8) & 0xff);
    if (mod === 2) this.little(random.below(4) === 0 ? random.u32() : (random.below(129) - 64) >>> 0, 4);
  }
  tail(): void {
    const { random } = this;
    // an absolute offset, for the opcodes that have one
    if (random.below(8) === 0) this.little(WINDOW + random.below(WINDOW_BYTES), 8);
    while (this.bytes.length < 32) this.byte();
  }
  /** An instruction of the table, with operands of any kind. */
  row(): void {
    const { random } = this;
    const row = random.pick(table[this.code]);
    if (random.below(4) === 0) this.put(random.pick(PREFIXES));
    if (row.prefix && row.map < 4) this.put(row.prefix);
    if (row.options.lock && random.below(4) === 0) this.put(0xf0);
    if (row.map < 4) this.rex();
    if (row.map > 3) {
      const pp = row.prefix === 0x66 ? 1 : row.prefix === 0xf3 ? 2 : row.prefix === 0xf2 ? 3 : 0;
      this.put(0xc4, (random.u32() & 0xe0) | (row.map - 4), (random.u32() & 0xf8) | pp);
    } else this.map(row.map);
    this.put(row.opcode);
    if (!row.modrm) return;
    const reg = row.reg ?? random.below(8);
    let mod: number = row.mod ?? random.pick([0, 1, 1, 2, 3, 3]);
    if (row.mod === 0) mod = random.below(3);
    const modrm = (mod << 6) | (reg << 3) | (row.rm ?? random.below(8));
    this.put(modrm);
    this.address(modrm);
  }
  modrm(): void {
    const modrm = this.random.u32() & 0xff;
    this.put(modrm);
    this.address(modrm);
  }
}

/** What a generator writes may be cut or filled up to 32 bytes. */
const GENERATORS: Readonly<Record<string, { readonly weight: number; readonly write: (w: Writer) => void }>> = {
  bytes: { weight: 2, write: () => {} },
  opcode: {
    weight: 8,
    write: (w) => {
      w.prefixes(3);
      w.rex();
      w.map(w.random.pick([0, 0, 1, 1, 2, 3]));
      w.byte();
      w.modrm();
    },
  },
  row: { weight: 8, write: (w) => w.row() },
  mutated: {
    weight: 4,
    write: (w) => {
      w.row();
      const { bytes, random } = w;
      const at = random.below(bytes.length);
      switch (random.below(4)) {
        case 0:
          bytes[at]! ^= 1 << random.below(8);
          break;
        case 1:
          bytes.splice(at, 1);
          break;
        case 2:
          bytes.splice(at, 0, random.pick(PREFIXES));
          break;
        default:
          bytes[at] = random.u32() & 0xff;
      }
    },
  },
  long: {
    weight: 2,
    write: (w) => {
      for (let n = 6 + w.random.below(11); n > 0; n--) w.put(w.random.pick(PREFIXES.filter((p) => p !== 0xf0)));
      w.row();
    },
  },
  vex: {
    weight: 2,
    write: (w) => {
      w.prefixes(1);
      if (w.random.below(4) === 0) w.rex();
      w.put(w.random.pick([0xc4, 0xc4, 0xc5, 0xc5, 0x62, 0x8f, 0xd5]));
      if (w.bytes.at(-1) !== 0xc4 || w.random.below(2) === 0) return;
      // BMI1, BMI2
      const [map, opcode] = w.random.pick(BMI);
      w.put((w.random.u32() & 0xe0) | map, w.random.u32() & (w.random.below(4) === 0 ? 0xff : 0xfb), opcode);
      w.modrm();
    },
  },
  lock: {
    weight: 3,
    write: (w) => {
      w.put(0xf0);
      w.row();
    },
  },
  rex: {
    weight: 2,
    write: (w) => {
      w.put(0x40 | (w.random.u32() & 15));
      w.prefixes(2);
      w.rex();
      w.rex();
      w.row();
    },
  },
  operandPrefixes: {
    weight: 3,
    write: (w) => {
      w.prefixes(4, OPERAND_PREFIXES);
      w.rex();
      w.map(w.random.pick([1, 1, 1, 2, 3]));
      w.byte();
      w.modrm();
    },
  },
  x87: {
    weight: 3,
    write: (w) => {
      w.prefixes(1);
      w.put(0xd8 + w.random.below(8));
      w.modrm();
    },
  },
};
const names = Object.keys(GENERATORS).flatMap((n) => Array<string>(GENERATORS[n]!.weight).fill(n));

/** 32 bytes for the address `at`, the first of which are some kind of instruction. */
export function randomInstruction(
  random: Random,
  at: number,
  code: 32 | 64,
): { readonly generator: string; readonly bytes: number[] } {
  const generator = random.pick(names);
  const w = new Writer(random, at, code);
  GENERATORS[generator]!.write(w);
  w.tail();
  return { generator, bytes: w.bytes.slice(0, 32) };
}
/** A data address in the window, near its end, or over it. */
export function windowAddress(random: Random): number {
  const how = random.below(8);
  if (how === 0) return WINDOW_END - random.below(20);
  if (how === 1) return WINDOW + random.below(WINDOW_BYTES);
  return WINDOW + random.below(WINDOW_BYTES / 16) * 16;
}
