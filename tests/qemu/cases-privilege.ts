/** Instructions that ask for a level, an I/O level or a bit of CR0, CR4, EFER. */
import { atLevels, type Case, Flag, faults, type Level } from "./case.js";

const K: readonly Level[] = ["k64", "k32"];
const U: readonly Level[] = ["u64", "u32"];
const ALL: readonly Level[] = [...K, ...U];

/** #GP(0) outside level 0. */
const LEVEL_0: Readonly<Record<string, string>> = {
  clts: "clts",
  hlt: "hlt",
  invd: "invd",
  wbinvd: "wbinvd",
  invlpg: "invlpg [abs DATA]",
  lgdt: "lgdt [abs DATA]",
  lidt: "lidt [abs DATA]",
  "lgdt-hole": "lgdt [abs HOLE]",
  lldt: "mov eax, S_ldt\nlldt ax",
  ltr: "mov eax, S_tss\nltr ax",
  "ltr-hole": "ltr [abs HOLE]",
  lmsw: "lmsw ax",
  "lmsw-hole": "lmsw [abs HOLE]",
  rdmsr: "mov ecx, 0xc0000080\nrdmsr",
  wrmsr: "mov ecx, 0xc0000080\nwrmsr",
  "rdmsr-unknown": "mov ecx, 0x12345678\nrdmsr",
  xsetbv: "xor ecx, ecx\nxsetbv",
};
const FROM_REGISTERS: Readonly<Record<string, string>> = {
  "mov-from-cr0": "0x0f, 0x20, 0xc0",
  "mov-from-cr2": "0x0f, 0x20, 0xd0",
  "mov-from-cr3": "0x0f, 0x20, 0xd8",
  "mov-from-cr4": "0x0f, 0x20, 0xe0",
  "mov-to-cr0": "0x0f, 0x22, 0xc0",
  "mov-to-cr3": "0x0f, 0x22, 0xd8",
  "mov-to-cr4": "0x0f, 0x22, 0xe0",
  "mov-from-dr0": "0x0f, 0x21, 0xc0",
  "mov-from-dr7": "0x0f, 0x21, 0xf8",
  "mov-to-dr7": "0x0f, 0x23, 0xf8",
};
const NO_REGISTER: Readonly<Record<string, string>> = {
  "mov-from-cr1": "0x0f, 0x20, 0xc8",
  "mov-from-cr5": "0x0f, 0x20, 0xe8",
  "mov-from-cr7": "0x0f, 0x20, 0xf8",
  "mov-to-cr1": "0x0f, 0x22, 0xc8",
  "mov-to-cr6": "0x0f, 0x22, 0xf0",
};
const DECODED =
  'SDM vol. 3, "Priority Among Concurrent Events": an invalid opcode is found before the level is looked at';
const INTEL_SYSRET = 'SDM vol. 2, "SYSRET": #UD outside 64-bit mode, before the level';
const INTEL_SYSCALL = 'SDM vol. 2, "SYSCALL": #UD outside 64-bit mode';
const NO_INVPCID = 'QEMU 7.2 has no INVPCID; SDM vol. 2, "INVPCID": #GP(0) outside level 0';

const needsLevel0: readonly Case[] = [
  ...Object.entries(LEVEL_0).flatMap(([name, code]) =>
    atLevels(U, { name: `user.${name}`, code: `${code}\nstop`, rflags: 2 | Flag.IOPL3 }),
  ),
  ...Object.entries(FROM_REGISTERS).flatMap(([name, bytes]) =>
    atLevels(["u64"], { name: `user.${name}`, code: `db ${bytes}\nstop` }),
  ),
  ...Object.entries(NO_REGISTER).map(
    ([name, bytes]): Case => ({
      name: `user.${name}`,
      level: "u64",
      code: `db ${bytes}\nstop`,
      ...faults("6", DECODED),
    }),
  ),
  ...Object.entries(NO_REGISTER).map(
    ([name, bytes]): Case => ({ name: `kernel.${name}`, level: "k64", code: `db ${bytes}\nstop` }),
  ),
  ...atLevels(U, {
    name: "user.invpcid-hole",
    code: "db 0x66, 0x0f, 0x38, 0x82, 0x04, 0x25\ndd HOLE\nstop",
    ...faults("d", NO_INVPCID),
  }),
  ...atLevels(ALL, { name: "swapgs", code: "db 0x0f, 0x01, 0xf8\nstop" }),
  ...atLevels(U, { name: "sysexit-null", code: "sysexit\nstop", setup: "msr 0x174, 3" }),
  ...atLevels(K, {
    name: "sysexit-null",
    code: "sysexit\nstop",
    setup: "msr 0x174, 3",
    ...faults("d", 'SDM vol. 2, "SYSEXIT": #GP(0) if IA32_SYSENTER_CS[15:2] = 0'),
  }),
  { name: "sysret.u64", level: "u64", code: "sysret\nstop" },
  { name: "sysret.u32", level: "u32", code: "sysret\nstop", ...faults("6", INTEL_SYSRET) },
];

/** By IOPL and level; ports 0x80 to 0x87 are level 3's by the map. */
const IO: Readonly<Record<string, string>> = {
  cli: "cli",
  sti: "sti",
  "in-mapped": "in al, 0x80",
  "out-mapped": "mov edx, 0x84\nout dx, eax",
  "in-unmapped": "in al, 0x88",
  "in-half-mapped": "mov edx, 0x86\nin eax, dx",
  "in-half-mapped-word": "mov edx, 0x87\nin ax, dx",
  "out-high": "mov edx, 0xffff\nout dx, al",
  insb: "mov edi, DATA\nmov edx, 0x88\ninsb",
  "outsb-hole": "mov esi, HOLE\nmov edx, 0x88\noutsb",
  "outsb-hole-mapped": "mov esi, HOLE\nmov edx, 0x80\noutsb",
  "insb-hole-mapped": "mov edi, HOLE\nmov edx, 0x80\ninsb",
  "popf-if": "push 0x202\nBITS_POPF",
  "popf-iopl": "push 0x3002\nBITS_POPF",
  "popf-all": "push 0x247fd5 & ~0x100\nBITS_POPF",
  "popfw-all": "pushw 0x7ed5\nBITS_POPFW",
};
const io: readonly Case[] = [0, Flag.IOPL3].flatMap((iopl) =>
  (["u64", "u32", "k64"] as const).flatMap((level) =>
    Object.entries(IO)
      // level 0 would really ask the ports
      .filter(([name]) => (level !== "k64" || !/^(in|out)/.test(name)) && (iopl === 0 || !/^in-(half|un)/.test(name)))
      .map(
        ([name, code]): Case => ({
          name: `${iopl === 0 ? "iopl0" : "iopl3"}.${name}.${level}`,
          level,
          code: `${code
            .replace("pushw 0x7ed5", level.endsWith("64") ? "mov ax, 0x7ed5\npush ax" : "push word 0x7ed5")
            .replace("push 0x", `push ${level.endsWith("64") ? "qword" : "dword"} 0x`)
            .replace("BITS_POPFW", "popfw")
            .replace("BITS_POPF", level.endsWith("64") ? "popfq" : "popfd")}\nstop`,
          rflags: 2 | iopl,
        }),
      ),
  ),
);
const map: readonly Case[] = [
  {
    name: "map.limit-before",
    level: "u64",
    code: "in al, 0x80\nstop",
    setup: "desc S_tss, 0x0000892070000067\nmov ax, S_tss\nltr ax",
  },
  {
    name: "map.limit-inside",
    level: "u64",
    code: "in al, 0x80\nstop",
    setup: "desc S_tss, 0x0000892070000078\nmov ax, S_tss\nltr ax",
  },
  {
    name: "map.limit-just",
    level: "u64",
    code: "in al, 0x80\nstop",
    setup: "desc S_tss, 0x0000892070000079\nmov ax, S_tss\nltr ax",
  },
  { name: "map.base-beyond", level: "u64", code: "in al, 0x80\nstop", setup: "mov word [abs TSS + 0x66], 0x2070" },
];

/** CR4.UMIP, and what these say without it. */
const UMIP: Readonly<Record<string, string>> = {
  sgdt: "sgdt [abs DATA]",
  sidt: "sidt [abs DATA]",
  sldt: "sldt eax",
  "sldt-memory": "sldt [abs DATA]",
  str: "str eax",
  smsw: "smsw eax",
  "smsw-16": "smsw ax",
  "smsw-memory": "smsw [abs DATA]",
  "str-hole": "str [abs HOLE]",
};
const umip: readonly Case[] = [
  ...Object.entries(UMIP).flatMap(([name, code]) => atLevels(ALL, { name: `noumip.${name}`, code: `${code}\nstop` })),
  ...Object.entries(UMIP).flatMap(([name, code]) =>
    atLevels(["u64", "u32", "k64"], { name: `umip.${name}`, code: `${code}\nstop`, setup: "cr cr4, 0x800" }),
  ),
];

const CR4_BITS: readonly Case[] = [
  ...atLevels(ALL, { name: "tsd.rdtsc", code: "rdtsc\nxor eax, eax\nxor edx, edx\nstop", setup: "cr cr4, 4" }),
  ...atLevels(ALL, {
    name: "tsd.rdtscp",
    code: "rdtscp\nxor eax, eax\nxor edx, edx\nstop",
    setup: "cr cr4, 4\nmsr 0xc0000103, 0x77",
  }),
  ...atLevels(["u64", "u32"], { name: "rdpmc", code: "xor ecx, ecx\nrdpmc\nstop" }),
  ...atLevels(["k64", "u64", "u32"], { name: "fsgsbase.rd", code: "db 0xf3, 0x0f, 0xae, 0xc0\nstop" }),
  ...atLevels(["k64", "u64"], { name: "fsgsbase.wr", code: "mov rbx, 0x1234567890\nwrfsbase rbx\nwrgsbase rbx\nstop" }),
  ...atLevels(["k64", "u64"], {
    name: "fsgsbase.bad",
    code: "mov rbx, NONCANONICAL\nwrgsbase rbx\nstop",
    ...faults("d", 'SDM vol. 2, "WRFSBASE/WRGSBASE": #GP(0) for a base that is not canonical', "40000a"),
  }),
  ...atLevels(["k64", "u64"], { name: "fsgsbase.off", code: "rdgsbase rbx\nstop", setup: "uncr cr4, 0x10000" }),
  ...atLevels(["k64", "u64"], {
    name: "fsgsbase.short",
    code: "mov rbx, -2\nwrgsbase ebx\nrdgsbase eax\nrdgsbase rcx\nstop",
  }),
  ...atLevels(ALL, { name: "xgetbv.off", code: "xor ecx, ecx\nxgetbv\nstop", setup: "uncr cr4, 0x40000" }),
  ...atLevels(ALL, { name: "xgetbv", code: "xor ecx, ecx\nxgetbv\nstop" }),
  ...atLevels(["k64", "u64"], { name: "xgetbv.2", code: "mov ecx, 2\nxgetbv\nstop" }),
  { name: "xsetbv.off.k64", level: "k64", code: "xor ecx, ecx\nxsetbv\nstop", setup: "uncr cr4, 0x40000" },
  {
    name: "xsetbv.off.u64",
    level: "u64",
    code: "xor ecx, ecx\nxsetbv\nstop",
    setup: "uncr cr4, 0x40000",
    ...faults("6", DECODED, "400002"),
  },
  ...[0, 1, 2, 3, 4, 7, 0x80000003].map(
    (v): Case => ({
      name: `xsetbv.${v.toString(16)}`,
      level: "k64",
      code: `xor ecx, ecx\nxor edx, edx\nmov eax, ${v}\nxsetbv\nstop`,
    }),
  ),
  { name: "xsetbv.high", level: "k64", code: "xor ecx, ecx\nmov edx, 1\nmov eax, 3\nxsetbv\nstop" },
  { name: "xsetbv.ecx1", level: "k64", code: "mov ecx, 1\nxor edx, edx\nmov eax, 3\nxsetbv\nstop" },
  ...atLevels(["k64", "u64"], { name: "stac.off", code: "stac\nstop" }),
  ...atLevels(["k64", "u64"], { name: "clac", code: "clac\nstop", setup: "cr cr4, 0x200000" }),
  ...atLevels(["k64", "u64", "u32"], { name: "stac", code: "stac\nstop", setup: "cr cr4, 0x200000" }),
];

/** SYSCALL and the rest with EFER.SCE clear, and in the modes that do not have them. */
const absent: readonly Case[] = [
  ...atLevels(ALL, { name: "syscall.off", code: "syscall\nstop", setup: "msr 0xc0000080, 0xd00" }),
  { name: "sysret.off", level: "k64", code: "o64 sysret\nstop", setup: "msr 0xc0000080, 0xd00" },
  ...atLevels(["u32", "k32"], { name: "syscall.compatibility", code: "syscall\nstop", ...faults("6", INTEL_SYSCALL) }),
  { name: "sysret.compatibility", level: "k32", code: "sysret\nstop", ...faults("6", INTEL_SYSRET) },
  ...atLevels(["k64", "u64"], {
    name: "int1",
    code: "db 0xf1\nstop",
    ...faults(
      "1",
      'SDM vol. 2, "INT n/INTO/INT3/INT1": F1 raises #DB, a trap, whatever the gate\'s level',
      "400001",
      "",
    ),
  }),
  ...[
    "06",
    "07",
    "0e",
    "16",
    "17",
    "1e",
    "1f",
    "27",
    "2f",
    "37",
    "3f",
    "60",
    "61",
    "62c0",
    "82c001",
    "9a0000000000",
    "c402",
    "c502",
    "ce",
    "d400",
    "d500",
    "d6",
    "ea0000000000",
  ].map(
    (hex): Case => ({
      name: `not64.${hex}`,
      level: "u64",
      code: `db ${hex
        .match(/../g)!
        .map((b) => `0x${b}`)
        .join(", ")}\nstop`,
    }),
  ),
];

export const PRIVILEGE: readonly Case[] = [...needsLevel0, ...io, ...map, ...umip, ...CR4_BITS, ...absent];
