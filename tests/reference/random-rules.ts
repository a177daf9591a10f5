/**
 * What the random test does not hold against the engine, each rule with its reason and counted in the summary: instructions that
 * would harm the sandbox or that the operating system carries out, and features of the host that our CPUID does not have.
 */
import type { Instruction } from "../../src/cpu/decode/decode.js";
import { EXTRA_FEATURES, FEATURES } from "../../src/cpu/vp/cpuid.js";
import { effectiveAddress } from "./effective-address.js";
import { is0f, isMemory, type Parts, regOf } from "./instruction-bytes.js";

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
  // where in a bit string is not looked at here
  if (o.row.options.bitString === true && o.row.operands[1] !== "Ib") return true;
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
    name: "MOV SS, POP SS: hold the single-step trap off (tests/bare/single-step.test)",
    matches: (p) => p.kind === "legacy" && p.map === 0 && ((p.opcode === 0x8e && regOf(p) === 2) || p.opcode === 0x17),
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
  { name: "XTEST, XEND: may be there although CPUID hides them", features: [], matches: (p) => is0f01(p, 0xd5, 0xd6) },
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
