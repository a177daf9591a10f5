/** Delivery: gates, stacks, levels, double faults, what INT n may do; IRET. */
import { atLevels, type Case, Flag, faults, type Level, type Manual } from "./case.js";

const UK: readonly Level[] = ["u64", "k64"];
const ALL: readonly Level[] = ["u64", "k64", "u32", "k32"];

/** INT 0x40 through a gate that is changed like this. The handler of the image is at its own place. */
const GATE = "mov rax, [abs IDT + 0x40 * 16]\n";
const GATES: Readonly<Record<string, string>> = {
  plain: "mov byte [abs IDT + 0x40 * 16 + 5], 0xee",
  trap: "mov byte [abs IDT + 0x40 * 16 + 5], 0xef",
  "dpl-0": "mov byte [abs IDT + 0x40 * 16 + 5], 0x8e",
  missing: "mov byte [abs IDT + 0x40 * 16 + 5], 0x6e",
  "missing-dpl-0": "mov byte [abs IDT + 0x40 * 16 + 5], 0x0e",
  "call-gate-type": "mov byte [abs IDT + 0x40 * 16 + 5], 0xec",
  "task-gate-type": "mov byte [abs IDT + 0x40 * 16 + 5], 0xe5",
  "16-bit-type": "mov byte [abs IDT + 0x40 * 16 + 5], 0xe6",
  "null-selector": "mov byte [abs IDT + 0x40 * 16 + 5], 0xee\nmov word [abs IDT + 0x40 * 16 + 2], 3",
  "data-selector": "mov byte [abs IDT + 0x40 * 16 + 5], 0xee\nmov word [abs IDT + 0x40 * 16 + 2], S_kdata",
  "user-code": "mov byte [abs IDT + 0x40 * 16 + 5], 0xee\nmov word [abs IDT + 0x40 * 16 + 2], S_ucode64",
  "code-32": "mov byte [abs IDT + 0x40 * 16 + 5], 0xee\nmov word [abs IDT + 0x40 * 16 + 2], S_kcode32",
  "both-sizes": "mov byte [abs IDT + 0x40 * 16 + 5], 0xee\nmov word [abs IDT + 0x40 * 16 + 2], S_bothSizes",
  "missing-code": "mov byte [abs IDT + 0x40 * 16 + 5], 0xee\nmov word [abs IDT + 0x40 * 16 + 2], S_missingCode",
  "beyond-gdt": "mov byte [abs IDT + 0x40 * 16 + 5], 0xee\nmov word [abs IDT + 0x40 * 16 + 2], 0x1230",
  "in-ldt": "mov byte [abs IDT + 0x40 * 16 + 5], 0xee\nmov word [abs IDT + 0x40 * 16 + 2], 0x1c",
  "rpl-3": "mov byte [abs IDT + 0x40 * 16 + 5], 0xee\nmov word [abs IDT + 0x40 * 16 + 2], S_kcode64 | 3",
  limit: "sub rsp, 16\nmov word [rsp], 0x40 * 16 + 14\nmov qword [rsp + 2], IDT\nlidt [rsp]\nadd rsp, 16",
};
const gates: readonly Case[] = Object.entries(GATES).flatMap(([name, setup]) =>
  UK.map((level): Case => ({ name: `gate.${name}.${level}`, level, code: "int 0x40\nstop", setup: `${GATE}${setup}` })),
);
const ist = (n: number): string => `mov word [abs IDT + 0x40 * 16 + 4], 0xee00 | ${n}`;
const stacks: readonly Case[] = [
  { name: "ist.2.u64", level: "u64", code: "int 0x40", setup: ist(2) },
  { name: "ist.2.k64", level: "k64", code: "int 0x40", setup: ist(2) },
  { name: "ist.missing.u64", level: "u64", code: "int 0x40", setup: ist(3) },
  { name: "ist.missing.k64", level: "k64", code: "int 0x40", setup: ist(3) },
  { name: "ist.noncanonical.u64", level: "u64", code: "int 0x40", setup: ist(4) },
  { name: "ist.noncanonical.k64", level: "k64", code: "int 0x40", setup: ist(4) },
  { name: "ist.zero.u64", level: "u64", code: "int 0x40", setup: ist(5) },
  {
    name: "ist.beyond-limit.u64",
    level: "u64",
    code: "int 0x40",
    setup: `desc S_tss2, 0x0000892070000040\nmov ax, S_tss2\nltr ax\n${ist(7)}`,
  },
  { name: "ist.misaligned.u64", level: "u64", code: "int 0x40", setup: `${ist(2)}\nadd qword [abs TSS + 0x2c], -5` },
  { name: "rsp0.misaligned", level: "u64", code: "int 0x80", setup: "add qword [abs TSS + 4], -3" },
  { name: "rsp0.missing", level: "u64", code: "int 0x80", setup: "mov qword [abs TSS + 4], HOLE + 0x800" },
  {
    name: "rsp0.missing-ist",
    level: "u64",
    code: "int 0x80",
    setup: "mov qword [abs TSS + 4], HOLE + 0x800\nmov byte [abs IDT + 14 * 16 + 4], 2",
  },
  {
    name: "rsp0.read-only-ist",
    level: "u64",
    code: "int 0x80",
    setup: "mov qword [abs TSS + 4], SUPERRO + 0x800\nmov byte [abs IDT + 14 * 16 + 4], 2",
  },
  {
    name: "rsp0.noncanonical",
    level: "u64",
    code: "int 0x80",
    setup: "mov rax, NONCANONICAL + 0x100\nmov [abs TSS + 4], rax",
  },
  {
    name: "rsp0.noncanonical-ist",
    level: "u64",
    code: "int 0x80",
    setup: "mov rax, NONCANONICAL + 0x100\nmov [abs TSS + 4], rax\nmov byte [abs IDT + 12 * 16 + 4], 2",
  },
  {
    name: "rsp0.crossing",
    level: "u64",
    code: "int 0x80",
    setup: "mov qword [abs TSS + 4], SUPER + 0x10\nmov byte [abs IDT + 14 * 16 + 4], 2",
  },
  { name: "rsp0.user-page", level: "u64", code: "int 0x80", setup: "mov qword [abs TSS + 4], DATA + 0x800" },
  {
    name: "rsp0.user-page-smap",
    level: "u64",
    code: "int 0x80",
    setup: "mov qword [abs TSS + 4], DATA + 0x800\nmov byte [abs IDT + 14 * 16 + 4], 2\ncr cr4, 0x200000",
  },
  ...[1, 4, 7, 8, 15].map((n): Case => ({ name: `misaligned.${n}`, level: "k64", code: `sub esp, ${n}\nint 0x80` })),
];

/** Two faults: the second while the first is delivered. Gates of vectors that are missing. */
const missing = (...vectors: readonly number[]): string =>
  vectors.map((v) => `mov byte [abs IDT + ${v} * 16 + 5], 0x0e`).join("\n");
const FIRST_FAULTS: Readonly<Record<string, readonly [vector: number, code: string]>> = {
  de: [0, "xor ecx, ecx\ndiv ecx"],
  ud: [6, "ud2"],
  gp: [13, "mov rax, NONCANONICAL\nmov eax, [rax]"],
  pf: [14, "mov eax, [abs HOLE]"],
  np: [11, "mov eax, S_missingData\nmov ds, eax"],
  ss: [12, "mov rbp, NONCANONICAL\nmov eax, [rbp]"],
  bp: [3, "int3"],
};
const EXT = 'SDM vol. 3, "Error Code": EXT for what happens while an earlier exception is delivered';
const SS_FIRST =
  'SDM vol. 3, "Interrupt 12 - Stack Fault Exception": a reference through RBP that is not canonical is #SS, not #GP';
/** Where QEMU 7.2 is wrong. */
const SECOND: Readonly<Record<string, Manual>> = {
  "ud-missing": { fields: { e: "33" }, why: EXT },
  "ud-no-code": { fields: { e: "81" }, why: EXT },
  "ss-missing": { fields: { v: "8", e: "0" }, why: SS_FIRST },
  "ss-no-code": { fields: { v: "8", e: "0" }, why: SS_FIRST },
  "ss-ist-missing": { fields: { v: "e", e: "2", c2: "4197f8" }, why: SS_FIRST },
};
const byManual = (name: string): Pick<Case, "manual"> => (SECOND[name] === undefined ? {} : { manual: SECOND[name] });
const double: readonly Case[] = [
  ...Object.entries(FIRST_FAULTS).flatMap(([name, [vector, code]]) =>
    UK.map(
      (level): Case => ({
        name: `second.${name}-missing.${level}`,
        level,
        code,
        setup: missing(vector),
        ...byManual(`${name}-missing`),
      }),
    ),
  ),
  ...Object.entries(FIRST_FAULTS).map(
    ([name, [vector, code]]): Case => ({
      name: `second.${name}-no-code`,
      level: "u64",
      code,
      setup: `mov word [abs IDT + ${vector} * 16 + 2], S_missingCode`,
      ...byManual(`${name}-no-code`),
    }),
  ),
  ...Object.entries(FIRST_FAULTS).map(
    ([name, [vector, code]]): Case => ({
      name: `second.${name}-ist-missing`,
      level: "u64",
      code,
      setup: `mov byte [abs IDT + ${vector} * 16 + 4], 3`,
      ...byManual(`${name}-ist-missing`),
    }),
  ),
  {
    name: "second.ud-missing-np-ist",
    level: "u64",
    code: "ud2",
    setup: `${missing(6)}\nmov byte [abs IDT + 11 * 16 + 4], 2`,
    ...byManual("ud-missing"),
  },
  { name: "second.gp-then-pf", level: "u64", code: "hlt", setup: "mov byte [abs IDT + 13 * 16 + 4], 3" },
  {
    name: "second.pf-then-gp",
    level: "u64",
    code: "mov eax, [abs HOLE]",
    setup: "mov word [abs IDT + 14 * 16 + 2], 0x1230",
  },
];

const software: readonly Case[] = [
  ...atLevels(ALL, { name: "int.13", code: "int 13\nstop" }),
  ...atLevels(["u64"], {
    name: "int.13-allowed",
    code: "int 13",
    setup: "mov byte [abs IDT + 13 * 16 + 5], 0xee",
    software: true,
  }),
  ...atLevels(["u64"], {
    name: "int.14-allowed",
    code: "int 14",
    setup: "mov byte [abs IDT + 14 * 16 + 5], 0xee",
    software: true,
  }),
  ...atLevels(["u64"], { name: "int.8-allowed", code: "int 8", setup: "mov byte [abs IDT + 8 * 16 + 5], 0xee" }),
  ...atLevels(["u64", "k64"], { name: "int.1", code: "int 1\nstop" }),
  ...atLevels(["u64", "k64"], { name: "int.2", code: "int 2\nstop" }),
  ...atLevels(["u64", "k64", "u32"], { name: "int.3-two-bytes", code: "db 0xcd, 3\nstop" }),
  ...atLevels(["u64"], { name: "int3.dpl-0", code: "int3\nstop", setup: "mov byte [abs IDT + 3 * 16 + 5], 0x8e" }),
  ...atLevels(["u32", "k32"], { name: "into", code: "mov al, 0x7f\ninc al\ninto\nstop" }),
  ...atLevels(["u32"], { name: "into.no-overflow", code: "xor eax, eax\ninto\nstop" }),
  ...atLevels(["u32"], {
    name: "into.dpl-0",
    code: "mov al, 0x7f\ninc al\ninto\nstop",
    setup: "mov byte [abs IDT + 4 * 16 + 5], 0x8e",
  }),
  ...atLevels(["u32", "k32"], {
    name: "bound",
    code: "mov eax, 5\nbound eax, [abs .b]\nmov eax, 11\nbound eax, [abs .b]\nstop\n.b: dd 5, 10",
  }),
  ...atLevels(["u32"], { name: "bound.below", code: "mov eax, -1\nbound eax, [abs .b]\nstop\n.b: dd 5, 10" }),
  ...atLevels(["u32"], { name: "bound.hole", code: "mov eax, 0x7fffffff\nbound eax, [abs HOLE - 4]\nstop" }),
  ...atLevels(["u32"], { name: "bound.register", code: "db 0x62, 0xc0\nstop" }),
  ...atLevels(["u64", "k64"], {
    name: "flags",
    code: "int 0x80",
    rflags: 2 | Flag.NT | Flag.DF | Flag.IOPL3 | Flag.AC | Flag.OF | Flag.CF,
  }),
  ...atLevels(["u64", "k64"], {
    name: "flags.trap-gate",
    code: "sti\nnop\nint 0x80",
    setup: "mov byte [abs IDT + 0x80 * 16 + 5], 0xef",
    rflags: 2 | Flag.IOPL3,
  }),
  {
    name: "conforming.handler",
    level: "u64",
    code: "int 0x40\n.h: mov ecx, cs\nmov eax, ss\nmov rdx, [rsp]\nmov rbx, rsp\nstop",
    setup: "gate 0x40, @h, 0xee, 0, S_conforming64",
  },
  {
    name: "conforming.handler-kernel",
    level: "k64",
    code: "int 0x40\n.h: mov ecx, cs\nmov eax, ss\nmov rdx, [rsp]\nstop",
    setup: "gate 0x40, @h, 0xee, 0, S_conforming64",
  },
  {
    name: "conforming.ist",
    level: "u64",
    code: "int 0x40\n.h: mov ecx, cs\nmov rbx, rsp\nstop",
    setup: "gate 0x40, @h, 0xee, 2, S_conforming64",
    manual: { fields: { ss: "2b" }, why: 'SDM vol. 2, "INT n": without a change of the level SS is not loaded' },
  },
  {
    name: "handler.noncanonical",
    level: "u64",
    code: "int 0x40",
    setup: "gate 0x40, NONCANONICAL, 0xee\nmov dword [abs IDT + 0x40 * 16 + 8], 0x8000",
    open: ["e"],
  },
  { name: "handler.hole", level: "u64", code: "int 0x40", setup: "gate 0x40, HOLE, 0xee" },
  { name: "handler.smep", level: "u64", code: "int 0x40\n.h: nop", setup: "gate 0x40, @h, 0xee\ncr cr4, 0x100000" },
  { name: "handler.swapgs", level: "u64", code: "int 0x40\n.h: swapgs\nstop", setup: "gate 0x40, @h, 0xee" },
];

/** IRETQ from level 0 with a frame; what comes behind it is told by `stop` at `.there`. */
const frame = (rip: string, cs: string, flags: string, rsp: string, ss: string): string =>
  `mov eax, ${ss}\npush rax\nmov rax, ${rsp}\npush rax\nmov rax, ${flags}\npush rax\nmov eax, ${cs}\npush rax\nmov rax, ${rip}\npush rax\niretq\n.there: stop`;
const IRETS: Readonly<Record<string, string>> = {
  same: frame(".there", "S_kcode64", "2", "KSTACK - 0x100", "S_kdata"),
  user: frame(".there", "S_ucode64", "2", "USTACK", "S_udata"),
  "user-32": frame(".there", "S_ucode32", "2", "USTACK", "S_udata"),
  "user-16": frame(".there", "S_ucode16", "2", "USTACK", "S_udata"),
  "kernel-32": frame(".there", "S_kcode32", "2", "KSTACK", "S_kdata"),
  "null-ss": frame(".there", "S_kcode64", "2", "KSTACK", "0"),
  "null-ss-rpl": frame(".there", "S_kcode64", "2", "KSTACK", "3"),
  "null-ss-user": frame(".there", "S_ucode64", "2", "USTACK", "3"),
  "null-ss-32": frame(".there", "S_kcode32", "2", "KSTACK", "0"),
  "null-cs": frame(".there", "0", "2", "KSTACK", "S_kdata"),
  "null-cs-3": frame(".there", "3", "2", "KSTACK", "S_kdata"),
  "data-cs": frame(".there", "S_kdata", "2", "KSTACK", "S_kdata"),
  "rpl-mismatch": frame(".there", "S_kcode64 | 3", "2", "KSTACK", "S_udata"),
  "user-code-rpl-0": frame(".there", "S_ucode64 & ~3", "2", "KSTACK", "S_kdata"),
  conforming: frame(".there", "S_conforming64", "2", "KSTACK", "S_kdata"),
  "conforming-3": frame(".there", "S_conforming64 | 3", "2", "USTACK", "S_udata"),
  "missing-cs": frame(".there", "S_missingCode", "2", "KSTACK", "S_kdata"),
  "both-sizes": frame(".there", "S_bothSizes", "2", "KSTACK", "S_kdata"),
  "beyond-cs": frame(".there", "0x1230", "2", "KSTACK", "S_kdata"),
  "ldt-cs": frame(".there", "0x27", "2", "USTACK", "S_udata"),
  "ldt-ss": frame(".there", "S_ucode64", "2", "USTACK", "7"),
  "ss-missing": frame(".there", "S_ucode64", "2", "USTACK", "0x17"),
  "ss-code": frame(".there", "S_ucode64", "2", "USTACK", "S_ucode32"),
  "ss-read-only": frame(".there", "S_ucode64", "2", "USTACK", "S_readOnlyData"),
  "ss-level": frame(".there", "S_ucode64", "2", "USTACK", "S_kdata"),
  "ss-level-0": frame(".there", "S_kcode64", "2", "KSTACK", "S_udata"),
  "ss-fresh": frame(".there", "S_ucode64", "2", "USTACK", "S_freshData"),
  "cs-fresh": frame(".there", "S_freshCode", "2", "KSTACK", "S_kdata"),
  "ss-beyond": frame(".there", "S_ucode64", "2", "USTACK", "0x1233"),
  "rip-noncanonical": frame("NONCANONICAL", "S_kcode64", "2", "KSTACK", "S_kdata"),
  "rip-noncanonical-user": frame("NONCANONICAL", "S_ucode64", "2", "USTACK", "S_udata"),
  "rip-high-32": frame("0x1200000000 + .there", "S_ucode32", "2", "USTACK", "S_udata"),
  "rsp-high-32": frame(".there", "S_ucode32", "2", "0x3400000000 + USTACK", "S_udata"),
  "rsp-noncanonical": frame(".there", "S_ucode64", "2", "NONCANONICAL", "S_udata"),
  nt: frame(".there", "S_kcode64", "0x4002", "KSTACK", "S_kdata"),
  "all-flags": frame(".there", "S_kcode64", "0xffffffffffffffff & ~0x30300", "KSTACK", "S_kdata"),
  "vm-flag": frame(".there", "S_ucode64", "0x20002", "USTACK", "S_udata"),
  tf: frame(".there", "S_ucode64", "0x102", "USTACK", "S_udata"),
  "tf-rf": frame(".there", "S_ucode64", "0x10102", "USTACK", "S_udata"),
};
const IRET = 'SDM vol. 2, "IRET/IRETD/IRETQ"';
const ACCESSED =
  'SDM vol. 3, "Code- and Data-Segment Descriptor Types": loading a segment register sets the accessed bit';
const IRET_MANUAL: Readonly<Record<string, Manual>> = {
  "null-ss-rpl": faults("d", `${IRET}: #GP(0) for a null SS whose RPL is not the level's`, "400023").manual,
  "null-ss-32": faults("d", `${IRET}: #GP(0) for a null SS on the way to compatibility mode`, "400023").manual,
  "both-sizes": faults("d", `${IRET}: #GP(selector) for code with L and D`, "400023", "b0").manual,
  "ss-missing": faults("c", `${IRET}: #SS(selector) for a stack segment that is not present`, "400023", "14").manual,
  "ss-fresh": { fields: { t2040a0: "cff3000000ffff" }, why: ACCESSED },
  "cs-fresh": { fields: { t2040a8: "af9b000000ffff" }, why: ACCESSED },
  "rip-noncanonical": faults("d", `${IRET}: #GP(0) before it returns`, "400023").manual,
  "rip-noncanonical-user": faults("d", `${IRET}: #GP(0) before it returns`, "400023").manual,
  "rip-high-32": { fields: { ip: "400027" }, why: `${IRET}: compatibility mode has EIP` },
  "all-flags": { fields: { fl: "3c7cd7", hf: "3c3402" }, why: `${IRET}: at level 0, VIF and VIP are taken` },
};
const irets: readonly Case[] = [
  ...Object.entries(IRETS).map(
    ([name, code]): Case => ({
      name: `iret.${name}`,
      level: "k64",
      code,
      setup: "or qword [abs PT], 4",
      ...(IRET_MANUAL[name] === undefined ? {} : { manual: IRET_MANUAL[name] }),
    }),
  ),
  ...["same", "user", "tf", "null-ss-user", "rip-noncanonical"].map(
    (name): Case => ({
      name: `iret.from-user.${name}`,
      level: "u64",
      code: IRETS[name]!.replace("S_kcode64", "S_ucode64").replace("S_kdata", "S_udata").replace("KSTACK", "USTACK"),
      ...(name === "rip-noncanonical" ? { manual: IRET_MANUAL[name]! } : {}),
    }),
  ),
  ...["all-flags"].map(
    (name): Case => ({
      name: `iret.from-user.${name}`,
      level: "u64",
      code: IRETS[name]!.replace("S_kcode64", "S_ucode64").replace("S_kdata", "S_udata").replace("KSTACK", "USTACK"),
      rflags: 2,
    }),
  ),
  { name: "iret.inward", level: "u64", code: frame(".there", "S_kcode64", "2", "KSTACK", "S_kdata") },
  { name: "iret.nt-set", level: "k64", code: IRETS.same!, rflags: 2 | Flag.NT },
  {
    name: "iretd.64-bit",
    level: "k64",
    code: "mov dword [rsp - 4], S_kdata\nmov dword [rsp - 8], KSTACK\nmov dword [rsp - 12], 0x86\nmov dword [rsp - 16], S_kcode64\nmov dword [rsp - 20], .there\nsub rsp, 20\niretd\n.there: stop",
  },
  {
    name: "iretw.64-bit",
    level: "k64",
    code: "sub rsp, 10\nmov word [rsp], 0x1234\nmov word [rsp + 2], S_kcode64\nmov word [rsp + 4], 0x86\nmov word [rsp + 6], 0xf800\nmov word [rsp + 8], S_kdata\niretw",
  },
  {
    name: "iretd.same.k32",
    level: "k32",
    code: "push dword 0x86\npush dword S_kcode32\npush dword .there\niretd\n.there: stop",
  },
  {
    name: "iretd.outer.k32",
    level: "k32",
    code: "push dword S_udata\npush dword USTACK\npush dword 0x86\npush dword S_ucode32\npush dword .there\niretd\n.there: stop",
    setup: "or qword [abs PT], 4",
  },
  {
    name: "iretd.to-64.k32",
    level: "k32",
    code: "push dword 0x86\npush dword S_kcode64\npush dword .there\niretd\nbits 64\n.there: stop",
  },
  {
    name: "iretd.outer-64.k32",
    level: "k32",
    code: "push dword S_udata\npush dword USTACK\npush dword 0x86\npush dword S_ucode64\npush dword .there\niretd\nbits 64\n.there: stop",
    setup: "or qword [abs PT], 4",
  },
  {
    name: "iretd.null-ss.k32",
    level: "k32",
    code: "push dword 3\npush dword USTACK\npush dword 0x86\npush dword S_ucode64\npush dword .there\niretd\nbits 64\n.there: stop",
  },
  {
    name: "iretd.same.u32",
    level: "u32",
    code: "push dword 0x3286\npush dword S_ucode32\npush dword .there\niretd\n.there: stop",
  },
  { name: "iretw.same.u32", level: "u32", code: "push word 0x86\npush word S_ucode32\npush word 0x1234\niretw" },
  { name: "iret.hole", level: "k64", code: "mov esp, HOLE - 16\niretq", open: ["m"] },
  { name: "iret.stack-noncanonical", level: "k64", code: "mov rsp, NONCANONICAL - 16\niretq" },
];

export const DELIVERY: readonly Case[] = [...gates, ...stacks, ...double, ...software, ...irets];
