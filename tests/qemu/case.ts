/** One program of the image: what runs, and what is said about its end. */

/** Where it starts: k = level 0, u = level 3; 64-bit code, or compatibility mode with 32- or 16-bit code. */
export type Level = "k64" | "u64" | "k32" | "u32" | "k16" | "u16";

export interface Case {
  readonly name: string;
  readonly level: Level;
  /** nasm; its labels begin with a dot. It ends by an exception, or by `stop`. */
  readonly code: string;
  /** nasm of level 0 that runs before, with the macros of monitor.ts; `@x` is the label `.x` of the code. It may use any register. */
  readonly setup?: string;
  /** RFLAGS at the start. Default: 2. */
  readonly rflags?: number;
  /** Bits of RFLAGS that the manual leaves undefined. */
  readonly undefinedFlags?: number;
  /** It ends by INT n with the vector of a fault. */
  readonly software?: boolean;
  /** Fields that the manual leaves open; "t" and "m" stand for all of the tables and of the data. */
  readonly open?: readonly string[];
  readonly manual?: Manual;
}

/** QEMU is wrong: what the manual says, and where that is to be read. */
export interface Manual {
  /** "" = not there. With a vector, they stand for all of the outcome; else the others are QEMU's. */
  readonly fields: Readonly<Record<string, string>>;
  readonly why: string;
  /** It does not come back there. */
  readonly notInQemu?: true;
}
/** The manual's exception. @param ip default: that of the case's first instruction */
export const faults = (
  v: string,
  why: string,
  ip = "400000",
  e = v === "6" ? "" : "0",
): { readonly manual: Manual } => ({
  manual: { fields: { v, e, ip }, why },
});

export const Flag = {
  CF: 1,
  PF: 4,
  AF: 0x10,
  ZF: 0x40,
  SF: 0x80,
  TF: 0x100,
  IF: 0x200,
  DF: 0x400,
  OF: 0x800,
  IOPL3: 0x3000,
  NT: 0x4000,
  RF: 0x10000,
  AC: 0x40000,
} as const;
/** OF, SF, ZF, AF, PF, CF. */
export const ARITHMETIC = 0x8d5;

/** Same code at several levels: the level is put behind the name. */
export function atLevels(levels: readonly Level[], c: Omit<Case, "level">): Case[] {
  return levels.map((level) => ({ ...c, level, name: `${c.name}.${level}` }));
}
