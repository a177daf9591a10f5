/** What differs between two outcomes of an arbitrary instruction, without what the manuals leave undefined. */
import type { Instruction } from "../../src/cpu/decode/decode.js";
import type { Row } from "../../src/cpu/isa/table.js";
import { ALL, shiftCount, undefinedFlags } from "./undefined-flags.js";
import { At, Outcome, outcomeName, WINDOW_BYTES } from "./user-case.js";
import {
  distance,
  type Encoding,
  isExact,
  isTiny,
  isTranscendental,
  outOfDomain,
  undefinedBits,
} from "./x87-undefined.js";

const hex = (x: bigint | number): string => x.toString(16);
/** Where Linux's own part of the address space begins for this purpose. */
const KERNEL = (1n << 47n) - 4096n;
const TF_RF = 0x10100;
const IF = 0x200;

export interface Compared {
  readonly before: DataView;
  readonly native: DataView;
  readonly ours: DataView;
  /** Offset of the record in all three. */
  readonly at: number;
  /** As our decoder reads it; undefined = it does not know it. */
  readonly instruction: Instruction | undefined;
  /** CR2 of ours. */
  readonly faultAddress: bigint;
}

/** Registers that are not compared: clocks, chance, identities. */
function unknownRegisters({ instruction, before, at }: Compared): ReadonlySet<number> {
  if (instruction === undefined) return new Set();
  const { row, modrm, rex } = instruction;
  const rm = (modrm & 7) | ((rex & 1) << 3);
  switch (row.mnemonic) {
    case "rdtsc":
    case "xgetbv":
      return new Set([0, 2]);
    case "rdtscp":
      return new Set([0, 1, 2]);
    case "cpuid":
      return new Set([0, 1, 2, 3]);
    case "rdrand":
    case "rdseed":
    case "rdpid":
      return new Set([rm]);
    case "bswap": // of 16 bits
      return new Set(instruction.width === 16 ? [instruction.opcodeRegister] : []);
    case "shld":
    case "shrd": {
      const count = row.operands.includes("CL") ? before.getUint8(at + At.gpr + 8) : instruction.immLow;
      return new Set(!instruction.memory && instruction.width === 16 && (count & 31) > 16 ? [rm] : []);
    }
    default:
      return new Set();
  }
}
/** Bits of RFLAGS that count. */
function flagMask(c: Compared, trap: number): number {
  const everything = ALL | IF | 0x247400; // and DF, IOPL, NT, AC, ID
  const row = c.instruction?.row;
  if (row === undefined) return everything;
  const { width, immLow } = c.instruction!;
  if (trap !== Outcome.completed)
    // a fault in a repeated compare leaves RFLAGS as they were (SDM, REP); AMD keeps those of the last element
    return /^i?div$/.test(row.mnemonic) ? everything & ~ALL : everything;
  if (row.mnemonic === "rdseed" || row.mnemonic === "rdrand") return everything & ~ALL;
  const count = shiftCount(row, width, c.before.getUint8(c.at + At.gpr + 8), immLow);
  return everything & ~undefinedFlags(row, width, count);
}
/** RCP and RSQRT need only be near. */
function near({ native, ours, at }: Compared): string {
  for (let i = 0; i < 64; i++) {
    const a = native.getFloat32(at + At.xmm + i * 4, true);
    const b = ours.getFloat32(at + At.xmm + i * 4, true);
    if (Object.is(a, b) || (Number.isNaN(a) && Number.isNaN(b))) continue;
    if (Math.abs(a) < 2 ** -125 && Math.abs(b) < 2 ** -125) continue;
    if (!(Math.abs(a - b) <= Math.abs(a) * 2 * 1.5 * 2 ** -12)) return `xmm${i >> 2}.${i & 3} ${b}, not near ${a}`;
  }
  return "";
}
/** An MMX instruction whose memory operand faults: Intel's processors have made the x87 registers MMX's already. */
const isMmxFault = (row: Row | undefined, trap: number): boolean =>
  trap !== Outcome.completed && row?.options.fpu === true && row.form !== "x87" && row.form !== "system";
/** Of several NaNs that meet in a dot product, processors pass on different ones. */
function equalNumbers({ native, ours, at }: Compared, wide: boolean): string {
  const size = wide ? 8 : 4;
  for (let i = 0; i < 256; i += size) {
    const [a, b] = [native, ours].map((v) =>
      wide ? v.getFloat64(at + At.xmm + i, true) : v.getFloat32(at + At.xmm + i, true),
    );
    if (!Object.is(a, b)) return `xmm${i >> 4}.${(i & 15) / size} ${b}, not ${a}`;
  }
  return "";
}
/** The encoding of an x87 instruction, its memory forms by ModRM.reg alone. */
const x87Encoding = ({ row, modrm }: Instruction): Encoding => ({
  op: row.opcode,
  modrm: modrm < 0xc0 ? (modrm & 0x38) | 7 : modrm,
});
const isX87 = (row: Row | undefined): boolean => row?.form === "x87";

function x87Difference({ before, native, ours, at, instruction }: Compared): string {
  const word = (name: string, offset: number, mask = 0xffff): string => {
    const a = native.getUint16(at + offset, true) & mask;
    const b = ours.getUint16(at + offset, true) & mask;
    return a === b ? "" : `${name} ${hex(b)}, not ${hex(a)}`;
  };
  let skip = 0;
  let approximate = false;
  const open = native.getUint16(at + At.fsw, true) & ~native.getUint16(at + At.fcw, true) & 0x3f;
  if (isX87(instruction?.row)) {
    const e = x87Encoding(instruction!);
    const high = before.getUint16(at + At.st + 8, true);
    if (outOfDomain(e, high)) return "";
    skip = undefinedBits(e, open).fsw;
    approximate = isTranscendental(e);
    if (approximate) skip |= 0x200;
    if (approximate && isExact(e, high, before.getBigUint64(at + At.st, true))) skip |= 0x80b0;
    if (approximate && isTiny(native, at + At.st)) skip |= 0x8090;
  }
  const first =
    word("fsw", At.fsw, 0xffff & ~skip) ||
    word("fcw", At.fcw) ||
    word("tags", At.ftw, 0xff) ||
    // instruction and operand are only kept by every processor while an exception waits
    (open === 0 || (before.getUint16(at + At.fsw, true) & 0x80) !== 0
      ? ""
      : word("fop", At.fop, 0x7ff) || word("fip", At.fip) || word("fip+2", At.fip + 2));
  if (first !== "") return first;
  for (let i = 0; i < 8; i++) {
    const p = at + At.st + i * 16;
    const h1 = native.getUint16(p + 8, true);
    const h2 = ours.getUint16(p + 8, true);
    const l1 = native.getBigUint64(p, true);
    const l2 = ours.getBigUint64(p, true);
    if (h1 === h2 && l1 === l2) continue;
    if (approximate && i < 2 && (h1 & 0x7fff) !== 0x7fff && (h2 & 0x7fff) !== 0x7fff)
      if (distance(h1, l1, h2, l2) <= 1n) continue;
    return `st${i} ${hex(h2)}:${hex(l2)}, not ${hex(h1)}:${hex(l1)}`;
  }
  return "";
}

/** @returns "" = nothing */
export function userDifference(c: Compared): string {
  const { before, native, ours, at, instruction } = c;
  const row = instruction?.row;
  const trap = native.getInt32(at + At.trap, true);
  const ourTrap = ours.getInt32(at + At.trap, true);
  if (trap !== ourTrap) return `${outcomeName(ourTrap)}, not ${outcomeName(trap)}`;
  const word = (name: string, offset: number): string => {
    const a = native.getBigUint64(at + offset, true);
    const b = ours.getBigUint64(at + offset, true);
    return a === b ? "" : `${name} ${hex(b)}, not ${hex(a)}`;
  };
  const half = (name: string, offset: number, mask = 0xffff): string => {
    const a = native.getUint16(at + offset, true) & mask;
    const b = ours.getUint16(at + offset, true) & mask;
    return a === b ? "" : `${name} ${hex(b)}, not ${hex(a)}`;
  };
  if (trap >= 0 && trap !== Outcome.systemCall && trap !== 3 && trap !== 16 && trap !== 19 && trap !== 0) {
    // Linux says of every address of its own that the page is there
    const mask = trap === 14 && c.faultAddress >= KERNEL ? 0xfffe : 0xffff;
    const e = half("error code", At.error, mask);
    if (e !== "") return e;
  }
  const compatibility = native.getUint16(at + At.cs, true) === 0x23;
  // of a system call of 32-bit programs, Linux keeps the lower half of its number
  const unknown =
    trap === Outcome.completed
      ? unknownRegisters(c)
      : new Set(trap === Outcome.systemCall && row?.mnemonic === "int" ? [0] : []);
  for (let i = 0; i < 16; i++) {
    if (unknown.has(i)) continue;
    // outside 64-bit mode there is no upper half of RSP
    const d = i === 4 && compatibility ? half("esp", At.gpr + 32) : word(`r${i}`, At.gpr + i * 8);
    if (d !== "") return d;
  }
  const rip = compatibility ? half("ip", At.rip) || half("eip", At.rip + 2) : word("rip", At.rip);
  if (rip !== "") return rip;
  let mask = flagMask(c, trap) & ~TF_RF;
  if (isX87(row)) {
    const open = native.getUint16(at + At.fsw, true) & ~native.getUint16(at + At.fcw, true) & 0x3f;
    mask &= ~undefinedBits(x87Encoding(instruction!), open).flags;
  }
  const f1 = native.getUint32(at + At.rflags, true) & mask;
  const f2 = ours.getUint32(at + At.rflags, true) & mask;
  if (f1 !== f2) return `flags ${hex(f2)}, not ${hex(f1)}`;
  const approximate = row !== undefined && /^r(cp|sqrt)[ps]s$/.test(row.mnemonic);
  if (approximate || row?.mnemonic.startsWith("dpp")) {
    const d = approximate ? near(c) : equalNumbers(c, row?.mnemonic === "dppd");
    if (d !== "") return d;
  } else
    for (let i = 0; i < 32; i++) {
      const d = word(`xmm${i >> 1}.${i & 1}`, At.xmm + i * 8);
      if (d !== "") return d;
    }
  // the fast path under the default control does not raise DE (vector-float.ts)
  const control = before.getUint32(at + At.mxcsr, true);
  const m = half("mxcsr", At.mxcsr, (control & 0xffc0) === 0x1f80 ? 0xfffd : 0xffff);
  if (m !== "") return m;
  for (let i = 0; i < WINDOW_BYTES; i += 8) {
    const d = word(`memory+${i}`, At.window + i);
    if (d !== "") return d;
  }
  // Linux's return to user mode makes null selectors 0
  const selector = (name: string, offset: number): string =>
    native.getUint16(at + offset, true) === 0 && ours.getUint16(at + offset, true) < 4 ? "" : half(name, offset);
  const segments =
    trap === Outcome.systemCall
      ? ""
      : half("cs", At.cs) ||
        half("ss", At.ss) ||
        selector("ds", At.ds) ||
        selector("es", At.es) ||
        selector("fs", At.fs) ||
        selector("gs", At.gs) ||
        word("fs base", At.fsBase) ||
        word("gs base", At.gsBase);
  if (segments !== "") return segments;
  const below = ours.getUint32(at + At.below, true) - native.getUint32(at + At.below, true);
  if (below !== 0) return "memory below the window";
  return isMmxFault(row, trap) ? "" : x87Difference(c);
}
