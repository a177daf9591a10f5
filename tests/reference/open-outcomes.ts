/**
 * Differences between two outcomes that the random test lets pass, each rule with its reason and counted in the summary: what the
 * manuals leave open, and what is known to be otherwise on AMD's processors (ours is one of Intel's).
 */
import { readFileSync } from "node:fs";
import { SegIndex } from "../../src/cpu/layout.js";
import type { Parts } from "./instruction-bytes.js";
import { At, codeSize, Outcome } from "./user-case.js";
import type { Compared } from "./user-difference.js";
import { isStore } from "./x87-undefined.js";

export interface OutcomeRule {
  readonly name: string;
  readonly applies: (c: Compared, trap: number, ourTrap: number) => boolean;
}
const UD = 6;
const GP = 13;
const PF = 14;
const AC = 17;
const isMemoryFault = (trap: number): boolean => (trap >= 12 && trap <= 14) || trap === AC;
const bothFault = (trap: number, ourTrap: number): boolean => isMemoryFault(trap) && isMemoryFault(ourTrap);
const mnemonic = (c: Compared): string => c.instruction?.row.mnemonic ?? "";
/** A memory form of an x87 instruction. */
const isX87 = (c: Compared, opcode: number, ...regs: readonly number[]): boolean => {
  const o = c.instruction;
  return o?.row.form === "x87" && o.row.opcode === opcode && o.memory && regs.includes((o.modrm >> 3) & 7);
};
const register = (c: Compared, n: number): number => c.before.getUint32(c.at + At.gpr + n * 8, true);

/** Both have set ZF: LAR and LSL have found a descriptor. */
const bothZero = ({ native, ours, at }: Compared): boolean =>
  (native.getUint32(at + At.rflags, true) & ours.getUint32(at + At.rflags, true) & 0x40) !== 0;
export const OPEN: readonly OutcomeRule[] = [
  {
    name: "an address that is the native program's own: its stack and libraries are somewhere else in each run",
    applies: (c, trap, ourTrap) =>
      ourTrap === PF &&
      (trap === Outcome.completed || trap === Outcome.died) &&
      c.faultAddress >= 0x5000_0000_0000n &&
      c.faultAddress < 0x8000_0000_0000n,
  },
  {
    name: "IRET, ENTER, far calls and returns: which slot of the stack faults first",
    applies: (c, trap, ourTrap) =>
      bothFault(trap, ourTrap) && ["iret", "enter", "ret far", "call far"].includes(mnemonic(c)),
  },
  {
    name: "indirect CALL to a non-canonical address: it has pushed, or faulted in that, before",
    applies: (c, trap, ourTrap) => bothFault(trap, ourTrap) && c.instruction?.row.form === "callIndirect",
  },
  {
    name: "x87 environments and images, operands of 80 bits: which part faults first, and what has been stored then",
    applies: (c, trap, ourTrap) =>
      bothFault(trap, ourTrap) &&
      (["fxsave", "fxrstor"].includes(mnemonic(c)) ||
        isX87(c, 0xd9, 4, 6) ||
        isX87(c, 0xdd, 4, 6) ||
        isX87(c, 0xdb, 5, 7) ||
        isX87(c, 0xdf, 4, 6)),
  },
  {
    name: "POPA that faults: what it has loaded before",
    applies: (c, trap) => isMemoryFault(trap) && mnemonic(c) === "popa",
  },
  {
    name: "MASKMOV: faults of bytes that it does not write, and the alignment of those that it does",
    applies: (c, trap) => isMemoryFault(trap) && mnemonic(c).startsWith("maskmov"),
  },
  {
    name: "LSL of Linux's segment whose limit is the processor's number",
    applies: (c, trap) => mnemonic(c) === "lsl" && trap === Outcome.completed && bothZero(c),
  },
  {
    name: "XGETBV of XINUSE, which our CPUID does not have",
    applies: (c) => mnemonic(c) === "xgetbv" && register(c, 1) === 1,
  },
  {
    name: "a store of a procedure (x87, system) through CS outside 64-bit code: we do not check the rights of segments (#GP)",
    applies: ({ instruction, before, at }, trap) =>
      instruction?.segment === SegIndex.cs &&
      instruction.row.options.selector !== undefined &&
      trap === GP &&
      codeSize(before, at) === 32,
  },
  {
    name: "an access over the end of the 4 GiB of 32-bit code: Linux comes back to it again and again",
    applies: (c, trap, ourTrap) =>
      trap === Outcome.ranAway &&
      ourTrap === PF &&
      codeSize(c.before, c.at) === 32 &&
      (c.faultAddress + 16n) % (1n << 32n) < 32n,
  },
  {
    name: "near jumps of 16 bits outside 64-bit code: we keep the upper half of EIP",
    applies: (c, _trap, ourTrap) =>
      ourTrap === Outcome.completed &&
      codeSize(c.before, c.at) === 32 &&
      /^(j|loop)/.test(mnemonic(c)) &&
      (c.native.getUint32(c.at + At.rip, true) ^ c.ours.getUint32(c.at + At.rip, true)) >>> 16 !== 0 &&
      c.native.getUint32(c.at + At.rip, true) >>> 16 === 0,
  },
];

/** CALL, JMP or Jcc with an immediate of the operand's size. */
const isLongBranch = ({ map, opcode }: Parts): boolean =>
  (map === 1 && (opcode & 0xf0) === 0x80) || (map === 0 && (opcode & 0xfe) === 0xe8);

/** @param p the instruction's parts; the others as in `applies` */
type AmdRule = readonly [
  name: string,
  applies: (c: Compared, trap: number, ourTrap: number, p: Parts | undefined) => boolean,
];
/** Vendor of the processor of this machine, as CPUID has it. */
export const hostVendor = (): string => /^vendor_id\s*: (.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1] ?? "";

/** AMD64 Architecture Programmer's Manual, or seen there (Zen 4, in a virtual machine). */
const AMD: readonly AmdRule[] = [
  [
    "near branches take 66 as an operand size of 16 bits",
    // with an immediate that is shorter: of so many prefixes it is an instruction yet
    (c, _t, _o, p) => p?.opsize === true && (/^(j|call$|ret$|loop)/.test(mnemonic(c)) || isLongBranch(p)),
  ],
  [
    "far pointers have no offset of 64 bits",
    (c, _t, _o, p) =>
      p !== undefined &&
      (p.rex & 8) !== 0 &&
      ((p.map === 0 && p.opcode === 0xff && [3, 5].includes((p.modrm >> 3) & 7)) || /^l[sfg]s$/.test(mnemonic(c))),
  ],
  [
    "F2 and F3 say the condition of LOOPE and LOOPNE",
    (c) => c.instruction?.repeat !== 0 && /^loopn?e$/.test(mnemonic(c)),
  ],
  ["INT1, whose #DB is a fault to a hypervisor: RIP", (c, trap, ourTrap) => trap === ourTrap && mnemonic(c) === "int1"],
  [
    "SYSCALL and SYSRET are there in 32-bit code, and SYSRET looks at CPL first",
    (c, _t, ourTrap) => ourTrap === UD && /^sys(call|ret)$/.test(mnemonic(c)),
  ],
  [
    "unaligned vector operands are looked at for #AC",
    (c, trap) => trap === AC && c.instruction?.row.options.sse === true,
  ],
  [
    "SHLD and SHRD of 16 bits by more than their width",
    (c) => {
      const o = c.instruction;
      if (o === undefined || !/^sh[lr]d$/.test(o.row.mnemonic) || o.width !== 16) return false;
      return ((o.row.operands.includes("CL") ? register(c, 1) : o.immLow) & 31) > 16;
    },
  ],
  ["BOUND reads both bounds first", (c, trap, ourTrap) => trap === PF && ourTrap === 5 && mnemonic(c) === "bound"],
  [
    "the offset of a far return or IRET is checked before it is cut for 32-bit code",
    (c, trap, ourTrap) => trap === GP && ourTrap === Outcome.completed && /^(ret far|iret)$/.test(mnemonic(c)),
  ],
  [
    "how far an instruction that is none is read before #UD",
    (c, trap, ourTrap) => c.instruction === undefined && (trap === UD || ourTrap === UD),
  ],
  ["which fault of several comes first", (_c, trap, ourTrap) => bothFault(trap, ourTrap)],
  ["LOCK MOV CR0 is MOV CR8", (_c, _t, _o, p) => p?.lock === true && p.map === 1 && (p.opcode & 0xfd) === 0x20],
  ["the register form of PREFETCHW is #UD", (_c, trap, _o, p) => trap === UD && p?.map === 1 && p.opcode === 0x0d],
  ["F3 90 with REX.B exchanges", (_c, _t, _o, p) => p?.repeat === 0xf3 && p.map === 0 && p.opcode === 0x90],
  ["MOVSXD of 16 bits reads 32", (c, trap) => isMemoryFault(trap) && mnemonic(c) === "movsxd"],
  ["FLD of a denormal does not push when that is not masked", (c) => isX87(c, 0xd9, 0) || isX87(c, 0xdd, 0)],
  [
    "a store that an unmasked exception suppresses looks at its address",
    (c, trap) => {
      const o = c.instruction;
      return isMemoryFault(trap) && o?.row.form === "x87" && isStore({ op: o.row.opcode, modrm: (o.modrm & 0xf8) | 7 });
    },
  ],
  ["FXSAVE writes what it has to write only", (c, trap) => trap === Outcome.completed && mnemonic(c) === "fxsave"],
  ["ENTER does not look at the new top of the stack", (c) => mnemonic(c) === "enter"],
  [
    "POP of a segment register reads the whole slot",
    (c, trap) => isMemoryFault(trap) && /^pop [d-gs]s$/.test(mnemonic(c)),
  ],
  [
    "a null selector leaves the base of FS and GS alone",
    (c) => /^(pop [fg]s|l[fg]s)$/.test(mnemonic(c)) || c.instruction?.row.operands[0] === "Sw",
  ],
  ["PUSH of a segment register writes the whole slot", (c) => /^push [c-gs]s$/.test(mnemonic(c))],
  ["REX.R with a segment register", (c) => c.instruction?.row.operands.includes("Sw") === true],
  [
    "registers and flags in the middle of a repeated string instruction",
    (c) => c.instruction?.row.options.string === true && c.instruction.repeat !== 0,
  ],
  ["SHA instructions do not ask for alignment", (c) => mnemonic(c).startsWith("sha")],
  ["MXCSR bit 17", (c) => ["ldmxcsr", "fxrstor"].includes(mnemonic(c))],
  ["prefixes of XGETBV and XSETBV", (_c, _t, _o, p) => p?.map === 1 && p.opcode === 0x01 && (p.modrm & 0xfe) === 0xd0],
];

/** @returns the name of the rule by which the difference may be, undefined = by none */
export function openOutcome(
  c: Compared,
  trap: number,
  ourTrap: number,
  p: Parts | undefined,
  vendor: string,
): string | undefined {
  const rule = OPEN.find((r) => r.applies(c, trap, ourTrap));
  if (rule !== undefined || vendor !== "AuthenticAMD") return rule?.name;
  const amd = AMD.find(([, applies]) => applies(c, trap, ourTrap, p));
  return amd === undefined ? undefined : `AMD: ${amd[0]}`;
}
