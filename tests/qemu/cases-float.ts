/** #NM, #MF, #XM and #UD by CR0.TS, EM, MP and CR4.OSFXSR, OSXMMEXCPT, OSXSAVE; alignment and headers of the state's images. */
import { atLevels, type Case, faults } from "./case.js";

const INSTRUCTIONS: Readonly<Record<string, string>> = {
  x87: "fld1\nfstp st0",
  fwait: "fwait",
  fninit: "fninit",
  fnstsw: "fnstsw ax",
  mmx: "paddb mm0, mm1\nemms",
  sse: "addps xmm0, xmm1",
  movups: "movups xmm0, [abs DATA]",
  "movups-hole": "movups xmm0, [abs HOLE]",
  "x87-hole": "fld qword [abs HOLE]",
  pshufb: "pshufb xmm0, xmm1",
  ldmxcsr: "stmxcsr [abs DATA]\nldmxcsr [abs DATA]",
  fxsave: "fxsave [abs DATA2]\nmov rdi, DATA2\nmov ecx, 64\nxor eax, eax\nrep stosq",
  xsave: "mov eax, 0\nxor edx, edx\nxsave [abs DATA2]",
  movnti: "movnti [abs DATA], eax",
  prefetch: "prefetchnta [abs HOLE]",
  fence: "lfence\nsfence\nmfence\npause",
  crc32: "crc32 eax, ecx",
  popcnt: "popcnt eax, ecx",
  maskmovq: "mov edi, HOLE\nmaskmovq mm0, mm1",
};
const MODES: Readonly<Record<string, string>> = {
  ts: "cr cr0, 8",
  "ts-mp0": "cr cr0, 8\nuncr cr0, 2",
  em: "cr cr0, 4",
  "em-ts": "cr cr0, 12",
  "no-osfxsr": "uncr cr4, 0x200",
  "no-osxsave": "uncr cr4, 0x40000",
};
const XSAVE_TS = faults("7", 'SDM vol. 2, "XSAVE": #NM if CR0.TS = 1', "400007", "");
const EM_FIRST =
  'SDM vol. 3, "Emulation of the MMX Instruction Set" and "Providing Operating System Support for SSE": with EM, #UD whatever TS is';
/** Where QEMU 7.2 is wrong. */
function byManual(mode: string, name: string): Pick<Case, "manual"> {
  if (name === "xsave" && (mode.startsWith("ts") || mode === "em-ts")) return XSAVE_TS;
  if (mode === "em-ts" && ["mmx", "sse", "movups", "movups-hole", "pshufb"].includes(name))
    return faults("6", EM_FIRST);
  if (mode === "em-ts" && name === "maskmovq") return faults("6", EM_FIRST, "400005");
  return {};
}
const available: readonly Case[] = [
  ...Object.entries(MODES).flatMap(([mode, setup]) =>
    Object.entries(INSTRUCTIONS).map(
      ([name, code]): Case => ({
        name: `${mode}.${name}`,
        level: "u64",
        code: `${code}\nstop`,
        setup,
        ...byManual(mode, name),
      }),
    ),
  ),
  ...(
    [
      ["ts", "7"],
      ["em", "6"],
      ["no-osfxsr", "6"],
    ] as const
  ).map(
    ([mode, vector]): Case => ({
      name: `${mode}.cvtpi2ps`,
      level: "u64",
      code: "cvtpi2ps xmm0, mm0\nstop",
      setup: MODES[mode]!,
      ...faults(vector, 'SDM vol. 2, "CVTPI2PS": #NM and #UD as other instructions on XMM registers', "400000", ""),
    }),
  ),
  {
    name: "clflush",
    level: "u64",
    code: "clflush [abs DATA]\nstop",
    manual: {
      fields: { t203080: "410027" },
      why: 'SDM vol. 2, "CLFLUSH": as a byte load in protection and accessed bits',
    },
  },
  {
    name: "clflush.hole",
    level: "u64",
    code: "clflush [abs HOLE]\nstop",
    ...faults("e", 'SDM vol. 2, "CLFLUSH": #PF as a byte load', "400000", "4"),
  },
];

/** Two divisions that leave the stack's top where it is: QEMU pops where the manual's instruction does not end. */
const X87_ZERO_DIVIDE = "push qword 0x37b\nfldcw [rsp]\nfldz\nfld1\nfdiv st0, st1\n";
const XMM_ZERO_DIVIDE =
  "push qword 0x1d80\nldmxcsr [rsp]\nmov eax, 0x3f800000\nmovd xmm0, eax\nxorps xmm1, xmm1\ndivss xmm0, xmm1\n";
const MXCSR_BITS = 'SDM vol. 1, "MXCSR Control and Status Register": #GP(0) for a reserved bit';
const X87_PENDING = 'SDM vol. 1, "x87 FPU Exception Synchronization": a waiting instruction raises #MF first';
const SIMD = 'SDM vol. 1, "SIMD Floating-Point Exceptions": unmasked ones raise #XM; QEMU 7.2 has none';
const numeric: readonly Case[] = [
  ...atLevels(["u64", "k64"], { name: "mf.fwait", code: `${X87_ZERO_DIVIDE}nop\nfwait\nstop` }),
  { name: "mf.no-wait", level: "u64", code: `${X87_ZERO_DIVIDE}fnstsw ax\nfnclex\nfwait\nstop` },
  { name: "mf.sse", level: "u64", code: `${X87_ZERO_DIVIDE}addps xmm0, xmm1\nstop` },
  { name: "mf.other-vector", level: "u64", code: `${X87_ZERO_DIVIDE}int3` },
  ...Object.entries({
    x87: "fld1",
    "x87-hole": "fld qword [abs HOLE]",
    mmx: "paddb mm0, mm1",
    "mmx-hole": "paddb mm0, [abs HOLE]",
    emms: "emms",
  }).map(
    ([name, code]): Case => ({
      name: `mf.${name}`,
      level: "u64",
      code: `${X87_ZERO_DIVIDE}${code}\nstop`,
      ...faults("10", X87_PENDING, "40000e", ""),
    }),
  ),
  {
    name: "mf.stack",
    level: "u64",
    code: "push qword 0x37e\nfldcw [rsp]\nfstp qword [abs DATA]\nfwait\nstop",
    ...faults("10", 'SDM vol. 1, "Stack Overflow or Underflow Exception (#IS)"', "40000f", ""),
  },
  {
    name: "mf.unmasked-later",
    level: "u64",
    code: "fld1\nfldz\nfdivp\npush qword 0x37b\nfldcw [rsp]\nfwait\nstop",
    ...faults(
      "10",
      'SDM vol. 2, "FLDCW": a flag that is set and unmasked now raises #MF at the next waiting instruction',
      "40000e",
      "",
    ),
  },
  ...atLevels(["u64", "k64"], { name: "xm", code: `${XMM_ZERO_DIVIDE}stop`, ...faults("13", SIMD, "400015", "") }),
  {
    name: "xm.off",
    level: "u64",
    code: `${XMM_ZERO_DIVIDE}stop`,
    setup: "uncr cr4, 0x400",
    ...faults("6", 'SDM vol. 3, "Control Registers", OSXMMEXCPT: clear, the exception is #UD', "400015"),
  },
  {
    name: "xm.packed",
    level: "u64",
    code: "push qword 0x1f00\nldmxcsr [rsp]\nmov eax, 0x7f800001\nmovd xmm1, eax\npshufd xmm1, xmm1, 0x15\naddps xmm0, xmm1\nstop",
    ...faults("13", SIMD, "400017", ""),
  },
  {
    name: "xm.denormal",
    level: "u64",
    code: "push qword 0x1e80\nldmxcsr [rsp]\nmov eax, 1\nmovd xmm1, eax\naddss xmm0, xmm1\nstop",
    ...faults("13", SIMD, "400012", ""),
  },
  {
    name: "xm.convert",
    level: "u64",
    code: "push qword 0x1f00\nldmxcsr [rsp]\nmov eax, 0x7fc00000\nmovd xmm1, eax\ncvtss2si eax, xmm1\nstop",
    ...faults("13", SIMD, "400012", ""),
  },
  { name: "xm.hole", level: "u64", code: "push qword 0x1f00\nldmxcsr [rsp]\ndivps xmm0, [abs HOLE]\nstop" },
  {
    name: "ldmxcsr.reserved",
    level: "u64",
    code: "push qword 0x11f80\nldmxcsr [rsp]\nstop",
    ...faults("d", MXCSR_BITS, "400005"),
  },
];

const header = (offset: number, value: string): string => `data DATA2 + 512 + ${offset}, ${value}`;
const CLEAR =
  "mov rdi, ALIAS + DATA2\nmov ecx, 128\nxor eax, eax\nrep stosq\nmov dword [abs ALIAS + DATA2 + 24], 0x1f80\nmov word [abs ALIAS + DATA2], 0x37f\n";
const images: readonly Case[] = [
  ...["fxsave", "fxrstor", "xsave", "xrstor"].flatMap((i) => [
    ...atLevels(["u64", "k64"], {
      name: `${i}.misaligned`,
      code: `mov eax, 3\nxor edx, edx\n${i} [abs DATA2 + 8]\nstop`,
    }),
    ...atLevels(["u64"], { name: `${i}.16`, code: `mov eax, 0\nxor edx, edx\n${i} [abs HOLE + 16]\nstop` }),
    ...atLevels(["u64"], { name: `${i}.hole`, code: `mov eax, 3\nxor edx, edx\n${i} [abs HOLE]\nstop`, open: ["c2"] }),
    ...atLevels(["u64"], { name: `${i}.misaligned-hole`, code: `mov eax, 3\nxor edx, edx\n${i} [abs HOLE + 8]\nstop` }),
    ...atLevels(["u64"], {
      name: `${i}.noncanonical`,
      code: `mov rbx, NONCANONICAL\nmov eax, 3\nxor edx, edx\n${i} [rbx]\nstop`,
    }),
    ...atLevels(["u64"], { name: `${i}.lock`, code: `db 0xf0\n${i} [abs DATA2]\nstop` }),
  ]),
  { name: "fxsave.read-only", level: "u64", code: "fxsave [abs RDONLY]\nstop" },
  {
    name: "fxrstor.read-only",
    level: "u64",
    code: "fxrstor [abs RDONLY]\nstop",
    setup: CLEAR.replaceAll("DATA2", "RDONLY"),
  },
  {
    name: "fxrstor.mxcsr",
    level: "u64",
    code: "fxrstor [abs DATA2]\nstop",
    setup: `${CLEAR}mov dword [abs ALIAS + DATA2 + 24], 0x11f80`,
    ...faults("d", MXCSR_BITS),
  },
  { name: "fxrstor.good", level: "u64", code: "fxrstor [abs DATA2]\nstop", setup: CLEAR },
  ...(
    [
      ["bv", 0, "3"],
      ["bv-avx", 0, "7"],
      ["bv-high", 0, "0x8000000000000000"],
      ["comp-bv", 8, "3"],
      ["reserved-16", 16, "1"],
      ["reserved-56", 56, "1"],
    ] as const
  ).map(
    ([name, offset, value]): Case => ({
      name: `xrstor.${name}`,
      level: "u64",
      code: "mov eax, 3\nxor edx, edx\nxrstor [abs DATA2]\nstop",
      setup: `${CLEAR}${header(offset, value)}`,
    }),
  ),
  {
    name: "xrstor.mxcsr",
    level: "u64",
    code: "mov eax, 2\nxor edx, edx\nxrstor [abs DATA2]\nstop",
    setup: `${CLEAR}mov dword [abs ALIAS + DATA2 + 24], 0x11f80\n${header(0, "2")}`,
    ...faults("d", MXCSR_BITS, "400007"),
  },
  {
    name: "xrstor.mxcsr-unused",
    level: "u64",
    code: "mov eax, 1\nxor edx, edx\nxrstor [abs DATA2]\nstop",
    setup: `${CLEAR}mov dword [abs ALIAS + DATA2 + 24], 0x11f80\n${header(0, "3")}`,
  },
  { name: "movaps.misaligned", level: "u64", code: "movaps xmm0, [abs DATA + 8]\nstop" },
  { name: "movaps.store", level: "u64", code: "movaps [abs DATA + 4], xmm0\nstop" },
  { name: "movaps.misaligned-hole", level: "u64", code: "movaps xmm0, [abs HOLE + 8]\nstop" },
  { name: "movaps.misaligned-crossing", level: "u64", code: "movaps xmm0, [abs HOLE - 8]\nstop" },
  { name: "movaps.misaligned-stack", level: "u64", code: "movaps xmm0, [rsp + 8]\nstop" },
  { name: "movntdq.misaligned", level: "u64", code: "movntdq [abs DATA + 8], xmm0\nstop" },
  { name: "addps.misaligned", level: "k64", code: "addps xmm0, [abs DATA + 8]\nstop" },
  { name: "addps.misaligned-readonly", level: "k64", code: "addps xmm0, [abs SUPERRO + 8]\nstop" },
  { name: "cmpxchg16b.misaligned", level: "u64", code: "cmpxchg16b [abs DATA + 8]\nstop" },
  { name: "cmpxchg16b.misaligned-hole", level: "u64", code: "cmpxchg16b [abs HOLE + 8]\nstop" },
  { name: "cmpxchg16b.readonly", level: "u64", code: "cmpxchg16b [abs RDONLY]\nstop", open: ["t"] },
  { name: "cmpxchg8b.readonly-differs", level: "u64", code: "cmpxchg8b [abs RDONLY]\nstop", open: ["t"] },
  { name: "cmpxchg.readonly-differs", level: "u64", code: "cmpxchg [abs RDONLY], ecx\nstop", open: ["t"] },
  { name: "cmpxchg16b.differs", level: "u64", code: "lock cmpxchg16b [abs DATA]\nstop" },
];

export const FLOAT: readonly Case[] = [...available, ...numeric, ...images];
