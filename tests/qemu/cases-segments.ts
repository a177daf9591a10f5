/** Segment registers, LAR, LSL, VERR, VERW, LLDT, LTR by descriptor. */
import { type Case, faults } from "./case.js";

const hex = (n: number): string => n.toString(16);

const NOT_IN_LONG_MODE = {
  manual: {
    fields: { fl: "46", r3: "0", r8: "", r9: "", ra: "", rb: "" },
    why: 'SDM vol. 2, "LAR" and "LSL", "Segment and Gate Types": not valid in IA-32e mode are 16-bit TSS and gates, and task gates',
  },
};
/** Each type of descriptor at each DPL, present, into the free slot; asked with each RPL, at levels 0 and 3. */
const inspected: readonly Case[] = Array.from({ length: 32 }, (_, type) => type).flatMap((type) =>
  [0, 3].flatMap((dpl) =>
    (["k64", "u64"] as const).map((level): Case => {
      const access = 0x80 | (dpl << 5) | type;
      // a limit with a page's granularity; nothing in the second half, as for a system descriptor of 16 bytes
      return {
        name: `inspect.${hex(type)}.dpl${dpl}.${level}`,
        level,
        setup: `desc S_free, 0x00c0${hex(access).padStart(2, "0")}0000000012\nmov qword [abs GDT + S_free + 8], 0`,
        code: [0, 3]
          .flatMap((rpl) => [
            `mov ecx, S_free | ${rpl}`,
            `lar r${8 + (rpl & 1)}, rcx\nsetz bl\nshl rbx, 8`,
            `lsl r${10 + (rpl & 1)}, ecx\nsetz bl\nshl rbx, 8`,
            "verr cx\nsetz bl\nshl rbx, 8\nverw cx\nsetz bl\nshl rbx, 8",
          ])
          .concat("stop")
          .join("\n"),
        ...([1, 3, 4, 5].includes(type) && !(dpl === 0 && level === "u64") ? NOT_IN_LONG_MODE : {}),
      };
    }),
  ),
);
const inspectedMore: readonly Case[] = [
  { name: "inspect.null", level: "u64", code: "mov ecx, 3\nlar eax, cx\nsetz bl\nlsl edx, cx\nsetz bh\nverr cx\nstop" },
  {
    name: "inspect.beyond",
    level: "u64",
    code: "mov ecx, 0x1233\nlar eax, cx\nsetz bl\nlsl edx, cx\nsetz bh\nverw cx\nstop",
  },
  {
    name: "inspect.ldt",
    level: "u64",
    code: "mov ecx, 7\nlar eax, cx\nsetz bl\nlsl edx, cx\nsetz bh\nverw cx\nand eax, 0xf0ff00 ; the limit is undefined there\nstop",
  },
  {
    name: "inspect.missing",
    level: "u64",
    code: "mov ecx, S_missingData\nlar eax, cx\nsetz bl\nlsl edx, cx\nsetz bh\nverw cx\nand eax, 0xf0ff00 ; the limit is undefined there\nstop",
  },
  { name: "inspect.16-bit", level: "u64", code: "mov ecx, S_udata\nlar ax, cx\nlsl dx, cx\nstop" },
  { name: "inspect.hole", level: "u64", code: "lar eax, [abs HOLE]\nstop" },
  {
    name: "inspect.half-system",
    level: "k64",
    code: "mov ecx, 0x1f8\nlar eax, cx\nsetz bl\nlsl edx, cx\nsetz bh\nstop",
    setup: "desc 0x1f8, 0x0000890000000012",
  },
];

const SELECTORS = [
  "0",
  "3",
  "S_kcode32",
  "S_kdata",
  "S_udata",
  "S_udata & ~3",
  "S_ucode32",
  "S_conforming64",
  "S_missingData",
  "S_executeOnly",
  "S_readOnlyData",
  "S_expandDown",
  "S_freshData",
  "S_tss",
  "0x1230",
  "7",
  "0x17",
  "0x1f",
  "0x107",
] as const;
const name = (s: string): string => s.replace("S_", "").replaceAll(" ", "");
const loads: readonly Case[] = SELECTORS.flatMap((s) => [
  ...(["u64", "k64", "u32"] as const).map(
    (level): Case => ({ name: `load.es.${name(s)}.${level}`, level, code: `mov eax, ${s}\nmov es, eax\nstop` }),
  ),
  ...(["k64", "u64", "k32"] as const).map(
    (level): Case => ({
      name: `load.ss.${name(s)}.${level}`,
      level,
      code: `mov eax, ${s}\nmov ss, eax\nnop\nstop`,
      ...(s === "3" && level === "k64"
        ? faults("d", 'SDM vol. 2, "MOV": #GP(0) for a null SS with another RPL than the level', "400005")
        : {}),
    }),
  ),
  {
    name: `load.pop-fs.${name(s)}`,
    level: "u64",
    code: `push qword ${s}\npop fs\nstop`,
    setup: "msr 0xc0000100, 0x123456789",
  },
  {
    name: `load.lgs.${name(s)}`,
    level: "u64",
    code: `mov word [abs DATA + 4], ${s}\nlgs eax, [abs DATA]\nstop`,
    setup: "msr 0xc0000101, 0x123456789",
    open: ["m"],
  },
]);
const SYSTEM = [
  "0",
  "3",
  "S_kdata",
  "S_udata",
  "S_ldt",
  "S_tss",
  "S_tss2",
  "S_missingTss",
  "S_missingLdt",
  "S_gate",
  "0x1f8",
  "0x1230",
  "4",
  "0x50 | 3",
] as const;
const systemLoads: readonly Case[] = SYSTEM.flatMap((s): Case[] => [
  { name: `lldt.${name(s)}`, level: "k64", code: `mov eax, ${s}\nlldt ax\nsldt ebx\nstop` },
  {
    name: `ltr.${name(s)}`,
    level: "k64",
    code: `mov eax, ${s}\nltr ax\nstr ebx\nstop`,
    ...(s === "0" || s === "3" ? faults("d", 'SDM vol. 2, "LTR": #GP(0) for a null selector', "400005") : {}),
  },
]);
const systemMore: readonly Case[] = [
  {
    name: "ltr.type-in-upper-half",
    level: "k64",
    code: "mov eax, S_tss2\nltr ax\nstop",
    setup: "mov dword [abs GDT + S_tss2 + 12], 0x1f00",
  },
  { name: "ldt.null-then-used", level: "k64", code: "xor eax, eax\nlldt ax\nmov eax, 7\nmov ds, eax\nstop" },
  { name: "mov-cs", level: "k64", code: "db 0x8e, 0xc8\nstop" },
  { name: "mov-seg-6", level: "k64", code: "db 0x8e, 0xf0\nstop" },
  { name: "mov-from-seg-7", level: "k64", code: "db 0x8c, 0xf8\nstop" },
  { name: "mov-from-seg", level: "u64", code: "mov rax, ds\nmov ebx, cs\nmov cx, ss\nmov [abs DATA], fs\nstop" },
  { name: "load.null-used.u32", level: "u32", code: "xor eax, eax\nmov es, eax\nmov eax, [es:DATA]\nstop" },
  { name: "load.null-used.k32", level: "k32", code: "xor eax, eax\nmov fs, eax\nmov eax, [fs:DATA]\nstop" },
  { name: "load.null-written.u32", level: "u32", code: "xor eax, eax\nmov gs, eax\nmov [gs:DATA], eax\nstop" },
  { name: "load.null-string.u32", level: "u32", code: "xor eax, eax\nmov es, eax\nmov edi, DATA\nstosd\nstop" },
  {
    name: "load.read-only-written.u32",
    level: "u32",
    code: "mov eax, S_readOnlyData\nmov es, eax\nmov [es:DATA], eax\nstop",
  },
  {
    name: "load.code-written.u32",
    level: "u32",
    code: "mov [cs:DATA], eax\nstop",
    ...faults("d", 'SDM vol. 3, "Type Checking": no instruction may write into a code segment'),
  },
  {
    name: "load.base.u32",
    level: "u32",
    code: "mov eax, S_free | 3\nmov fs, eax\nmov eax, [fs:0x10]\nmov [fs:0x18], eax\nstop",
    setup: "desc S_free, 0x00cff3410000ffff",
  },
  {
    name: "load.base.u64",
    level: "u64",
    code: "mov eax, S_free | 3\nmov fs, eax\nmov es, eax\nmov eax, [fs:0x10]\nmov edx, [es:DATA]\nstop",
    setup: "desc S_free, 0x00cff3410000ffff",
    manual: {
      fields: { v: "80", ip: "40001b", r2: "55667700" },
      why: 'SDM vol. 3, "Segmentation in IA-32e Mode": ES has base 0',
    },
  },
  {
    name: "segment-prefix.64",
    level: "u64",
    code: "mov rax, [ds:DATA]\nmov rbx, [es:DATA + 8]\nmov rcx, [gs:DATA]\nstop",
    setup: "msr 0xc0000101, 0x10",
  },
];

export const SEGMENTS: readonly Case[] = [...inspected, ...inspectedMore, ...loads, ...systemLoads, ...systemMore];
