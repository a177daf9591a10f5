/**
 * What the random test does not hold against the engine, each rule with its reason and counted in the summary: instructions that
 * would harm the sandbox or that the operating system carries out, and features of the host that our CPUID does not have.
 */
import type { Instruction } from "../../src/cpu/decode/decode.js";
import { EXTRA_FEATURES, FEATURES } from "../../src/cpu/vp/cpuid.js";
import { effectiveAddress } from "./effective-address.js";
import { is0f, isMemory, type Parts, regOf } from "./instruction-bytes.js";
import { At, Outcome } from "./user-case.js";
import type { Compared } from "./user-difference.js";

export interface Rule {
  readonly name: string;
  readonly matches: (p: Parts) => boolean;
}

/**
 * A locked access over the end of a cache line holds up all processors of a machine; hosts punish it by slowing the program down.
 * @param view with the state before, in the record at `at`
 */
export function isSplitLock(o: Instruction, view: DataView, at: number): boolean {
  if (!o.memory || !(o.lock || o.row.form === "xchg")) return false;
  const start = effectiveAddress(o, view, at) & 63n;
  return start + 16n > 64n;
}
export const SPLIT_LOCK = "locked accesses over the end of a cache line: hosts slow the program down for them";

/** 0F 01 with a register form of ModRM. */
const is0f01 = (p: Parts, ...modrm: readonly number[]): boolean => is0f(p, 0x01) && modrm.includes(p.modrm);

/** Not run by the real processor; the engine runs them all the same, and must come back. */
export const NOT_NATIVE: readonly Rule[] = [
  {
    name: "SGDT, SIDT, SMSW, SLDT, STR: Linux carries them out where UMIP forbids them, and one instruction more runs",
    matches: (p) =>
      (is0f(p, 0x01) && (isMemory(p) ? regOf(p) < 2 || regOf(p) === 4 : regOf(p) === 4)) ||
      (is0f(p, 0x00) && regOf(p) < 2),
  },
  {
    name: "MOV SS: holds the single-step trap off (tests/bare/single-step.test)",
    matches: (p) => p.kind === "legacy" && p.map === 0 && p.opcode === 0x8e && regOf(p) === 2,
  },
  { name: "SYSENTER: loses RIP", matches: (p) => is0f(p, 0x34) },
  {
    name: "VMCALL, VMMCALL, VMFUNC, ENCLU: ask the hypervisor or an enclave",
    matches: (p) => is0f01(p, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xcf, 0xd4, 0xd7, 0xd9),
  },
  { name: "WRPKRU: may take away the handler's own memory", matches: (p) => is0f01(p, 0xef) },
  {
    name: "XSAVE, XRSTOR and their kin: depend on the host's XCR0 (x87-state.test)",
    matches: (p) =>
      (is0f(p, 0xae) && isMemory(p) && regOf(p) >= 4 && regOf(p) <= 6 && !p.opsize && p.repeat === 0) ||
      (is0f(p, 0xc7) && isMemory(p) && regOf(p) >= 3 && regOf(p) <= 5),
  },
];

/** Opcodes of BMI1 and BMI2 behind VEX. */
const isBmi = ({ map, opcode }: Parts): boolean =>
  (map === 2 && [0xf2, 0xf3, 0xf5, 0xf6, 0xf7].includes(opcode)) || (map === 3 && opcode === 0xf0);
/** #UD here, or a fault of the fetch; what the real processor does with them is not looked at. `features`: names in /proc/cpuinfo, one of which says that they exist; none = Linux has no name for it. */
export const NOT_ADVERTISED: readonly (Rule & { readonly features: readonly string[] })[] = [
  { name: "VEX, but BMI: AVX, AMX and others", features: ["avx"], matches: (p) => p.kind === "vex" && !isBmi(p) },
  { name: "EVEX: AVX-512", features: ["avx512f"], matches: (p) => p.kind === "evex" },
  { name: "XOP", features: ["xop", "tbm"], matches: (p) => p.kind === "xop" },
  { name: "REX2: APX", features: ["apx"], matches: (p) => p.kind === "rex2" },
  {
    name: "GFNI",
    features: ["gfni"],
    matches: (p) =>
      p.kind === "legacy" &&
      p.opsize &&
      ((p.map === 2 && p.opcode === 0xcf) || (p.map === 3 && (p.opcode & 0xfe) === 0xce)),
  },
  {
    name: "MOVDIRI, MOVDIR64B",
    features: ["movdiri", "movdir64b"],
    matches: (p) => p.kind === "legacy" && p.map === 2 && (p.opcode === 0xf8 || p.opcode === 0xf9),
  },
  { name: "SERIALIZE", features: ["serialize"], matches: (p) => is0f01(p, 0xe8) && p.repeat === 0 },
  { name: "XSUSLDTRK, XRESLDTRK", features: ["tsxldtrk"], matches: (p) => is0f01(p, 0xe8, 0xe9) && p.repeat === 0xf2 },
  { name: "RDPKRU", features: ["pku"], matches: (p) => is0f01(p, 0xee) },
  { name: "XTEST: may be there although CPUID hides it", features: [], matches: (p) => is0f01(p, 0xd6) },
  {
    name: "XBEGIN, XABORT: may be there although CPUID hides them",
    features: [],
    matches: (p) => p.kind === "legacy" && p.map === 0 && (p.opcode & 0xfe) === 0xc6 && p.modrm === 0xf8,
  },
  {
    name: "UMONITOR, UMWAIT, TPAUSE",
    features: ["waitpkg"],
    matches: (p) => is0f(p, 0xae) && !isMemory(p) && regOf(p) === 6 && (p.opsize || p.repeat !== 0),
  },
  { name: "PTWRITE", features: [], matches: (p) => is0f(p, 0xae) && regOf(p) === 4 && p.repeat === 0xf3 },
  {
    name: "TDCALL, SEAMCALL and others of TDX",
    features: [],
    matches: (p) => is0f01(p, 0xcc, 0xcd, 0xce, 0xcf) && p.opsize,
  },
  { name: "CLZERO", features: ["clzero"], matches: (p) => is0f01(p, 0xfc) },
  { name: "RDPRU", features: ["rdpru"], matches: (p) => is0f01(p, 0xfd) },
  { name: "MONITORX, MWAITX, MCOMMIT", features: ["monitorx"], matches: (p) => is0f01(p, 0xfa, 0xfb) },
  { name: "3DNow!", features: ["3dnow"], matches: (p) => is0f(p, 0x0e) || is0f(p, 0x0f) },
  {
    name: "SSE4a",
    features: ["sse4a"],
    matches: (p) => (is0f(p, 0x78) || is0f(p, 0x79) || is0f(p, 0x2b)) && (p.opsize || p.repeat !== 0),
  },
];
for (const { features, name } of NOT_ADVERTISED)
  for (const f of features)
    if (f in FEATURES || f in EXTRA_FEATURES)
      throw new Error(`rule "${name}": our CPUID has ${f}, so it must be implemented`);

/** Differences of outcomes that the manuals leave open. */
export interface OutcomeRule {
  readonly name: string;
  readonly applies: (c: Compared, trap: number, ourTrap: number) => boolean;
}
const isMemoryFault = (trap: number): boolean => trap >= 12 && trap <= 14;
const bothFault = (trap: number, ourTrap: number): boolean => isMemoryFault(trap) && isMemoryFault(ourTrap);
const isX87 = (c: Compared, opcode: number, ...regs: readonly number[]): boolean => {
  const o = c.instruction;
  return o?.row.form === "x87" && o.row.opcode === opcode && o.memory && regs.includes((o.modrm >> 3) & 7);
};
const mnemonic = (c: Compared): string => c.instruction?.row.mnemonic ?? "";
export const OPEN: readonly OutcomeRule[] = [
  {
    name: "IRET, far calls and returns: which slot of the stack faults first",
    applies: (c, trap, ourTrap) => bothFault(trap, ourTrap) && ["iret", "ret far", "call far"].includes(mnemonic(c)),
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
    name: "MASKMOV: faults of bytes that it does not write",
    applies: (c, trap) => isMemoryFault(trap) && mnemonic(c).startsWith("maskmov"),
  },
  {
    name: "CD 01: taken like F1, without a look at the gate's level (still to be made right in interrupt.ts)",
    applies: (c, trap, ourTrap) =>
      mnemonic(c) === "int" && c.instruction!.immLow === 1 && trap === 13 && ourTrap === Outcome.completed,
  },
  {
    name: "XGETBV of XINUSE, which our CPUID does not have",
    applies: (c) => mnemonic(c) === "xgetbv" && c.before.getUint32(c.at + At.gpr + 8, true) === 1,
  },
];
