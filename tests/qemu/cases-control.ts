/** Control registers and model-specific registers: values that are legal and that are not. */
import { type Case, faults } from "./case.js";

const K64 = "k64" as const;
const MOVE_TO_CONTROL = 'SDM vol. 2, "MOV - Move to/from Control Registers"';
const move = (register: string, value: string): string => `mov rbx, ${value}\nmov ${register}, rbx\nstop`;

const CR0: Readonly<Record<string, string>> = {
  cd: "0xc0010033",
  "cd-nw": "0xe0010033",
  ts: "0x8001003b",
  am: "0x80050033",
  "no-et": "0x80010023",
};
const CR4: Readonly<Record<string, string>> = {
  vme: "0x506a9",
  pcide: "0x706a8",
  pge: "0x50628",
  smep: "0x1506a8",
  smap: "0x3506a8",
  "no-sse": "0x504a8",
};
const CR3: Readonly<Record<string, string>> = {
  "pwt-pcd": "LIVE + 0x18",
  "low-bits": "LIVE + 0xfe7",
};

const controls: readonly Case[] = [
  ...Object.entries(CR0).map(([name, v]): Case => ({ name: `cr0.${name}`, level: K64, code: move("cr0", v) })),
  ...Object.entries(CR4).map(([name, v]): Case => ({ name: `cr4.${name}`, level: K64, code: move("cr4", v) })),
  ...Object.entries(CR3).map(([name, v]): Case => ({ name: `cr3.${name}`, level: K64, code: move("cr3", v) })),
  {
    name: "cr0.nw-without-cd",
    level: K64,
    code: move("cr0", "0xa0010033"),
    ...faults("d", `${MOVE_TO_CONTROL}: #GP(0) for NW set with CD clear`, "400005"),
  },
  {
    name: "cr0.high",
    level: K64,
    code: move("cr0", "0x180010033"),
    ...faults("d", `${MOVE_TO_CONTROL}: #GP(0) for a bit of CR0[63:32]`, "40000a"),
  },
  {
    name: "cr0.reserved",
    level: K64,
    code: move("cr0", "0x9002ffb3"),
    manual: {
      fields: { c0: "80000033" },
      why: 'SDM vol. 3, "Control Registers": setting reserved bits of CR0[31:0] is ignored',
    },
  },
  {
    name: "cr4.pcide-with-pcid",
    level: K64,
    code: `mov rax, LIVE + 8\nmov cr3, rax\n${move("cr4", "0x706a8")}`,
    ...faults("d", `${MOVE_TO_CONTROL}: #GP(0) for PCIDE set while CR3[11:0] is not 0`, "40000d"),
  },
  {
    name: "cr4.pcide-then-cr3",
    level: K64,
    code: "mov rbx, LIVE + 5\nmov cr3, rbx\nmov rax, cr3\nstop",
    setup: "cr cr4, 0x20000",
  },
  { name: "cr2.wide", level: K64, code: "mov rbx, 0x123456789abcdef0\nmov cr2, rbx\nmov rax, cr2\nstop" },
  { name: "cr2.narrow", level: "k32", code: "mov ebx, 0x89abcdef\nmov cr2, ebx\nmov eax, cr2\nstop" },
  { name: "cr8", level: K64, code: "mov eax, 15\nmov cr8, rax\nmov rbx, cr8\nxor eax, eax\nmov cr8, rax\nstop" },
  {
    name: "cr8.bad",
    level: K64,
    code: "mov eax, 16\nmov cr8, rax\nstop",
    ...faults("d", `${MOVE_TO_CONTROL}: #GP(0) for a reserved bit of CR8`, "400005"),
  },
  {
    name: "cr8.lock",
    level: "k32",
    code: "db 0xf0, 0x0f, 0x20, 0xc0\nstop",
    ...faults("6", `${MOVE_TO_CONTROL}: #UD with LOCK (CR8 by it is AMD's)`),
  },
  { name: "cr0.mod-0", level: K64, code: "db 0x0f, 0x20, 0x03\nstop" },
  { name: "cr0.read", level: K64, code: "mov rbx, cr0\nsmsw rcx\nsmsw dx\nstop" },
  { name: "lmsw.pe-stays", level: K64, code: "xor eax, eax\nlmsw ax\nmov rbx, cr0\nstop" },
  { name: "lmsw.all", level: K64, code: "mov eax, 0xffff\nlmsw ax\nmov rbx, cr0\nclts\nmov rcx, cr0\nstop" },
];

/**
 * QEMU 7.2 takes these for the exit of a guest of its SVM, or goes on in a mode that is none: the processor hangs.
 * Name, register, value, what it breaks.
 */
const HANGING: readonly (readonly [name: string, register: string, value: string, why: string])[] = [
  ["pg-without-pe", "cr0", "0x80010032", "PG set with PE clear"],
  ["no-paging", "cr0", "0x00010033", "PG cleared in 64-bit mode"],
  ["no-pae", "cr4", "0x50688", "PAE cleared in IA-32e mode"],
  ["high", "cr4", "0x1000506a8", "a reserved bit of CR4"],
  ["bit-15", "cr4", "0x586a8", "a reserved bit of CR4"],
  ["bit-24", "cr4", "0x10506a8", "a reserved bit of CR4"],
  ["bit-31", "cr4", "0x800506a8", "a reserved bit of CR4"],
  ["bit-40", "cr3", "LIVE | 0x10000000000", "a reserved bit of CR3, from MAXPHYADDR on"],
  ["bit-51", "cr3", "LIVE | 0x8000000000000", "a reserved bit of CR3, from MAXPHYADDR on"],
  ["bit-52", "cr3", "LIVE | 0x10000000000000", "a reserved bit of CR3, from MAXPHYADDR on"],
  ["bit-63", "cr3", "LIVE | 0x8000000000000000", "a reserved bit of CR3: bit 63 is for CR4.PCIDE"],
];
const hanging: readonly Case[] = [
  ...HANGING.map(
    ([name, register, value, why]): Case => ({
      name: `${register}.${name}`,
      level: K64,
      code: move(register, value),
      manual: { fields: { v: "d", e: "0" }, why: `${MOVE_TO_CONTROL}: #GP(0) for ${why}`, notInQemu: true },
    }),
  ),
  {
    name: "cr0.paging-off-with-pcide",
    level: "k32",
    code: "mov eax, 0x10033\nmov cr0, eax\nstop",
    setup: "cr cr4, 0x20000",
    manual: {
      fields: { v: "d", e: "0", ip: "400005" },
      why: `${MOVE_TO_CONTROL}: #GP(0) for PG cleared while CR4.PCIDE is set`,
      notInQemu: true,
    },
  },
  {
    name: "cr3.no-flush-bit",
    level: K64,
    code: "mov rbx, LIVE | 0x8000000000000005\nmov cr3, rbx\nmov rax, cr3\nstop",
    setup: "cr cr4, 0x20000",
    manual: {
      fields: { v: "80", r0: "200005", c3: "200005" },
      why: `${MOVE_TO_CONTROL}: with CR4.PCIDE, bit 63 is not kept`,
      notInQemu: true,
    },
  },
];

/** MSR: name, index, legal values. */
const LEGAL: readonly (readonly [string, number, readonly string[]])[] = [
  ["efer", 0xc0000080, ["0xd01", "0x501", "0x901"]],
  ["pat", 0x277, ["0x0007040600070406", "0x0001040506070001"]],
  ["lstar", 0xc0000082, ["0x7fffffffffff", "0xffff800000000000"]],
  ["cstar", 0xc0000083, ["0x12345678"]],
  ["star", 0xc0000081, ["0x1234567890abcdef"]],
  ["sfmask", 0xc0000084, ["0x47700", "0xffffffff"]],
  ["fsbase", 0xc0000100, ["0x1234567890"]],
  ["gsbase", 0xc0000101, ["0xffffffff81000000"]],
  ["kernelgsbase", 0xc0000102, ["0xffff800000000000"]],
  ["sysenter-cs", 0x174, ["0x10"]],
  ["sysenter-esp", 0x175, ["0xffff800000001234"]],
  ["sysenter-eip", 0x176, ["0x1234"]],
  ["mtrr-base-0", 0x200, ["0x6", "0x8000001", "0xfffffff000"]],
  ["mtrr-mask-0", 0x201, ["0xfffffff800", "0xff00000800"]],
  ["mtrr-def-type", 0x2ff, ["0xc06", "0xc00"]],
  ["mtrr-64k", 0x250, ["0x0606060606060606", "0x0505050505050505"]],
  ["mtrr-16k", 0x259, ["0x0000000000000000"]],
  ["mtrr-4k", 0x26f, ["0x0404040404040404"]],
];
const CANONICAL = 'SDM vol. 2, "WRMSR": #GP(0) for an address that is not canonical';
const EFER = 'SDM vol. 3, "Extended Feature Enable Register": #GP(0) for a reserved bit';
const MTRR = 'SDM vol. 3, "MTRR Feature Identification": #GP(0) for a reserved type or bit';
/** Those that QEMU 7.2 takes. */
const ILLEGAL: readonly (readonly [string, number, readonly string[], why: string])[] = [
  ["efer", 0xc0000080, ["0xd03", "0x100000d01", "0xf01", "0x8d01"], EFER],
  [
    "efer",
    0xc0000080,
    ["0xc01"],
    'SDM vol. 3, "Initializing IA-32e Mode": #GP(0) for a change of LME while paging is on',
  ],
  [
    "pat",
    0x277,
    ["0x0007040600070402", "0x0007040600070403", "0x0807040600070406"],
    'SDM vol. 3, "Programming the PAT": #GP(0) for a reserved type',
  ],
  ["lstar", 0xc0000082, ["0x800000000000"], CANONICAL],
  ["cstar", 0xc0000083, ["0x800000000000"], CANONICAL],
  ["fsbase", 0xc0000100, ["0x800000000000"], CANONICAL],
  ["gsbase", 0xc0000101, ["0xffff7fffffffffff"], CANONICAL],
  ["kernelgsbase", 0xc0000102, ["0x8000000000000000"], CANONICAL],
  ["sysenter-esp", 0x175, ["0x800000000000"], CANONICAL],
  ["sysenter-eip", 0x176, ["0x800000000000"], CANONICAL],
  ["mtrr-base-0", 0x200, ["0x2", "0x7", "0x100", "0x10000000000"], MTRR],
  ["mtrr-mask-0", 0x201, ["0x100", "0x1", "0x10000000000"], MTRR],
  ["mtrr-def-type", 0x2ff, ["0xc02", "0xc07", "0x1000", "0x100000000"], MTRR],
  ["mtrr-64k", 0x250, ["0x0606060602060606"], MTRR],
  ["mtrr-16k", 0x259, ["0x0700000000000000"], MTRR],
  ["unknown", 0x40000100, ["0"], 'SDM vol. 2, "WRMSR": #GP(0) for a register that is not there'],
  ["unknown-high", 0xc0001234, ["0"], 'SDM vol. 2, "WRMSR": #GP(0) for a register that is not there'],
];
const write = (index: number, value: string): string =>
  `mov ecx, ${index}\nmov rax, strict qword ${value}\nmov rdx, rax\nshr rdx, 32\n`;
const msrs: readonly Case[] = [
  ...LEGAL.flatMap(([name, index, values]) =>
    values.map((v): Case => ({ name: `msr.${name}.${v}`, level: K64, code: `${write(index, v)}wrmsr\nrdmsr\nstop` })),
  ),
  ...ILLEGAL.flatMap(([name, index, values, why]) =>
    values.map(
      (v): Case => ({
        name: `msr.${name}.${v}`,
        level: K64,
        code: `${write(index, v)}wrmsr\nrdmsr\nstop`,
        ...faults("d", why, "400016"),
      }),
    ),
  ),
];
/** The upper halves of ECX, EAX, EDX do not count, and are cleared by RDMSR. */
const halves: readonly Case[] = [
  { name: "msr.wide-ecx", level: K64, code: "mov rcx, 0x12345678c0000082\nrdmsr\nstop" },
  {
    name: "msr.wide-value",
    level: K64,
    code: "mov rcx, 0xc0000082\nmov rax, 0xabcdef0012345678\nmov rdx, 0x1234567800000001\nwrmsr\nrdmsr\nstop",
  },
];

export const CONTROL: readonly Case[] = [...controls, ...hanging, ...msrs, ...halves];
