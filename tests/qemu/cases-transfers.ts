/** Far transfers and call gates; SYSCALL, SYSENTER and their ways back. */
import { type Case, Flag, faults, type Level, type Manual } from "./case.js";

const name = (s: string): string => s.replace("S_", "").replaceAll(" ", "");
/** To a code segment by far JMP, CALL and RET through memory; the target's code says what it found. */
const CODES = [
  "0",
  "3",
  "S_kcode32",
  "S_kcode64",
  "S_kcode64 | 3",
  "S_ucode32",
  "S_ucode64",
  "S_ucode64 & ~3",
  "S_conforming64",
  "S_conforming64 | 3",
  "S_kdata",
  "S_missingCode",
  "S_bothSizes",
  "S_freshCode",
  "S_tss",
  "S_ldt",
  "0x1230",
  "0x27",
  "S_gate",
  "S_missingGate",
  "S_kernelGate",
  "S_userGate",
  "S_conformingGate",
  "S_gate & ~3",
] as const;
/** At code offset 0x100, where the call gates lead. */
const AT_GATE =
  "\ntimes 0x100 - ($ - $$) nop\n.gate: mov ecx, cs\nmov ebx, ss\nmov rdx, rsp\nmov rax, [rsp]\nmov rdi, [rsp + 8]\nstop";
const ACCESSED =
  'SDM vol. 3, "Code- and Data-Segment Descriptor Types": loading a segment register sets the accessed bit';
/** Where QEMU 7.2 is wrong. */
function farByManual(kind: "jmp" | "call" | "ret", s: string, level: Level): Pick<Case, "manual"> {
  if (s === "S_bothSizes" && level === "k64")
    return faults(
      "d",
      'SDM vol. 2, "JMP": #GP(selector) for code with L and D',
      kind === "ret" ? "400013" : "400000",
      "b0",
    );
  if (s === "S_freshCode" && level === "k64")
    return { manual: { fields: { t2040a8: "af9b000000ffff" }, why: ACCESSED } };
  if (s === "S_conformingGate" && kind === "call" && level === "u64")
    return {
      manual: {
        fields: { cs: "6b", r1: "6b", hd: "0" },
        why: 'SDM vol. 2, "CALL", CALL-GATE: the RPL of CS becomes CPL',
      },
    };
  return {};
}
const far: readonly Case[] = (["k64", "u64"] as const).flatMap((level) =>
  CODES.flatMap((s): Case[] => {
    const common = { level, setup: "or qword [abs PT], 4" };
    return [
      {
        ...common,
        name: `far.jmp.${name(s)}.${level}`,
        code: `jmp dword far [abs .to]\n.to: dd .there\ndw ${s}\n.there: stop${AT_GATE}`,
        ...farByManual("jmp", s, level),
      },
      {
        ...common,
        name: `far.call.${name(s)}.${level}`,
        code: `call dword far [abs .to]\nstop\n.to: dd .there\ndw ${s}\n.there: stop${AT_GATE}`,
        ...farByManual("call", s, level),
      },
      {
        ...common,
        name: `far.ret.${name(s)}.${level}`,
        code: `push qword S_udata\nmov eax, USTACK - 64\npush rax\npush qword ${s}\nmov eax, .there\npush rax\no64 retf\n.there: stop`,
        ...farByManual("ret", s, level),
      },
    ];
  }),
);
const far32: readonly Case[] = (["k32", "u32"] as const).flatMap((level) =>
  [
    "0",
    "S_kcode32",
    "S_kcode64",
    "S_ucode32",
    "S_ucode64",
    "S_gate",
    "S_kernelGate",
    "S_userGate",
    "S_missingGate",
    "S_conforming32",
    "S_tss",
  ].flatMap((s): Case[] => [
    {
      name: `far.jmp.${name(s)}.${level}`,
      level,
      code: `jmp ${s}:.there\n.there: stop\nbits 64${AT_GATE}`,
      setup: "or qword [abs PT], 4",
    },
    {
      name: `far.call.${name(s)}.${level}`,
      level,
      code: `call ${s}:.there\nstop\n.there: stop\nbits 64${AT_GATE}`,
      setup: "or qword [abs PT], 4",
    },
    {
      name: `far.ret.${name(s)}.${level}`,
      level,
      code: `push dword S_udata\npush dword USTACK - 64\npush dword ${s}\npush dword .there\nretf\n.there: stop`,
      setup: "or qword [abs PT], 4",
    },
  ]),
);
const farMore: readonly Case[] = [
  {
    name: "far.jmp.wide-operand",
    level: "u64",
    code: "o64 jmp far [abs .to]\n.to: dq .there\ndw S_ucode64\n.there: stop",
  },
  {
    name: "far.jmp.wide-noncanonical",
    level: "u64",
    code: "o64 jmp far [abs .to]\n.to: dq NONCANONICAL\ndw S_ucode64",
    ...faults("d", 'SDM vol. 2, "JMP": #GP(0) before it jumps'),
  },
  {
    name: "far.call.wide",
    level: "u64",
    code: "o64 call far [abs .to]\n.to: dq .there\ndw S_ucode64\n.there: mov rax, [rsp]\nmov rbx, [rsp + 8]\nstop",
  },
  { name: "far.call.word", level: "u32", code: "o16 call far [abs .to]\n.to: dw 0x1234, S_ucode32" },
  { name: "far.hole", level: "u64", code: "jmp dword far [abs HOLE - 4]" },
  { name: "far.register", level: "u64", code: "db 0xff, 0xe8" },
  { name: "far.call.register", level: "u64", code: "db 0xff, 0xd8" },
  {
    name: "far.call.stack-hole",
    level: "k64",
    code: "mov esp, HOLE2 + 4\ncall dword far [abs .to]\n.to: dd .there\ndw S_kcode64\n.there: stop",
    open: ["m"],
  },
  {
    name: "far.retf-imm",
    level: "u64",
    code: "push qword S_ucode64\nlea rax, [rel .there]\npush rax\no64 retf 16\n.there: stop",
  },
  {
    name: "far.retf-outer-imm",
    level: "k64",
    code: "push qword S_udata\nmov eax, USTACK - 64\npush rax\nsub rsp, 16\npush qword S_ucode64\nmov eax, .there\npush rax\no64 retf 16\n.there: stop",
    setup: "or qword [abs PT], 4",
  },
  {
    name: "far.retf-outer-null-ss",
    level: "k64",
    code: "push qword 3\nmov eax, USTACK - 64\npush rax\npush qword S_ucode64\nmov eax, .there\npush rax\no64 retf\n.there: stop",
  },
  {
    name: "far.retf-noncanonical",
    level: "u64",
    code: "push qword S_ucode64\nmov rax, NONCANONICAL\npush rax\no64 retf",
    ...faults("d", 'SDM vol. 2, "RET": #GP(0) before it returns', "40000d"),
  },
  {
    name: "far.retf-32-high",
    level: "k64",
    code: "push qword S_kcode32\nmov rax, .there + 0x700000000\npush rax\no64 retf\n.there: stop",
    manual: { fields: { ip: "400011" }, why: 'SDM vol. 2, "RET": compatibility mode has EIP' },
  },
  {
    name: "far.retf-drops-segments",
    level: "k64",
    code: "mov eax, S_kdata\nmov ds, eax\nmov eax, S_conforming64\nmov es, eax\npush qword S_udata\nmov eax, USTACK\npush rax\npush qword S_ucode64\nmov eax, .there\npush rax\no64 retf\n.there: stop",
    setup: "or qword [abs PT], 4",
  },
  {
    name: "far.gate.noncanonical",
    level: "u64",
    code: "call dword far [abs .to]\n.to: dd 0\ndw S_gate",
    setup: "mov dword [abs GDT + (S_gate & ~7) + 8], 0x8000",
    ...faults("d", 'SDM vol. 2, "CALL": #GP(0) for an offset in the gate that is not canonical'),
  },
  {
    name: "far.gate.type-in-upper-half",
    level: "u64",
    code: "call dword far [abs .to]\n.to: dd 0\ndw S_gate",
    setup: "mov dword [abs GDT + (S_gate & ~7) + 12], 0x1f00",
  },
  {
    name: "far.gate.null-target",
    level: "u64",
    code: "call dword far [abs .to]\n.to: dd 0\ndw S_gate",
    setup: "mov word [abs GDT + (S_gate & ~7) + 2], 0",
  },
  {
    name: "far.gate.code-32",
    level: "u64",
    code: "call dword far [abs .to]\n.to: dd 0\ndw S_gate",
    setup: "mov word [abs GDT + (S_gate & ~7) + 2], S_kcode32",
  },
  {
    name: "far.gate.parameters",
    level: "u64",
    code: `push 1\npush 2\ncall dword far [abs .to]\n.to: dd 0\ndw S_gate${AT_GATE}`,
    setup: "mov byte [abs GDT + (S_gate & ~7) + 4], 2",
  },
  {
    name: "far.gate.rsp0-missing",
    level: "u64",
    code: `call dword far [abs .to]\n.to: dd 0\ndw S_gate${AT_GATE}`,
    setup: "mov qword [abs TSS + 4], HOLE2 + 0x800\nmov byte [abs IDT + 14 * 16 + 4], 2",
  },
  {
    name: "far.gate.rsp0-noncanonical",
    level: "u64",
    code: `call dword far [abs .to]\n.to: dd 0\ndw S_gate${AT_GATE}`,
    setup: "mov rax, NONCANONICAL + 256\nmov [abs TSS + 4], rax\nmov byte [abs IDT + 12 * 16 + 4], 2",
  },
  {
    name: "far.gate.return",
    level: "u64",
    code: "call dword far [abs .to]\n.back: mov ecx, ss\nstop\n.to: dd 0\ndw S_gate\ntimes 0x100 - ($ - $$) nop\no64 retf",
  },
];

/** LSTAR and SYSENTER_EIP lead to the code's offset 0x200. */
const AT_ENTRY = "\ntimes 0x200 - ($ - $$) nop\n.entry: mov r8d, cs\nmov r9d, ss\nint 0x80";
const entry = (level: Level, n: string, code: string, more: Partial<Case> = {}): Case => ({
  name: `${n}.${level}`,
  level,
  code: `${code}${level.endsWith("32") ? "\nbits 64" : ""}${AT_ENTRY}`,
  ...more,
});
const SYSRETS: Readonly<Record<string, Manual>> = {
  "sysretq.flags": {
    fields: { fl: "3c7cd7", hf: "3c3402" },
    why: 'SDM vol. 2, "SYSRET": RFLAGS is R11 and 3C7FD7H, or 2',
  },
  "sysretq.noncanonical": faults("d", 'SDM vol. 2, "SYSRET": #GP(0) at the old level', "400010").manual,
  "sysexitq.noncanonical-rip": faults("d", 'SDM vol. 2, "SYSEXIT": #GP(0) for RDX', "40000f").manual,
  "sysexitq.noncanonical-rsp": faults("d", 'SDM vol. 2, "SYSEXIT": #GP(0) for RCX', "40000f").manual,
  "sysexitl.high": {
    fields: { ip: "400018", sp: "42f800" },
    why: 'SDM vol. 2, "SYSEXIT": EIP and ESP are EDX and ECX',
  },
};
const syscalls: readonly Case[] = [
  ...(["u64", "k64"] as const).flatMap((level) => [
    entry(level, "syscall", "syscall"),
    entry(level, "syscall.mask", "syscall", {
      setup: "msr 0xc0000084, 0x47701",
      rflags: 2 | Flag.DF | Flag.CF | Flag.AC | Flag.IOPL3 | Flag.NT,
    }),
    entry(level, "syscall.mask-all", "syscall", { setup: "msr 0xc0000084, 0xffffffff", rflags: 2 | Flag.DF | Flag.CF }),
    entry(level, "syscall.star-rpl", "syscall", { setup: "msr 0xc0000081, 0x0020001300000000" }),
    entry(level, "syscall.star-zero", "syscall", { setup: "msr 0xc0000081, 0" }),
    entry(level, "syscall.lstar-hole", "syscall", { setup: "msr 0xc0000082, HOLE" }),
    entry(level, "syscall.smep", "syscall", { setup: "cr cr4, 0x100000" }),
  ]),
  ...(["u64", "k64", "u32", "k32"] as const).flatMap((level) => [
    entry(level, "sysenter", "sysenter"),
    entry(level, "sysenter.null", "sysenter", { setup: "msr 0x174, 0" }),
    entry(level, "sysenter.flags", "sysenter", { rflags: 2 | Flag.DF | Flag.IOPL3 | Flag.NT | Flag.AC | Flag.CF }),
    entry(level, "sysenter.wide", "sysenter", { setup: "msr 0x176, UPPER + CODE + 0x200\nmsr 0x175, UPPER + KSTACK" }),
  ]),
  ...(
    [
      ["sysretq", "mov ecx, .to\nmov r11d, 0x3202\no64 sysret\n.to: mov r8d, cs\nmov r9d, ss\nstop"],
      ["sysretl", "mov ecx, .to\nmov r11d, 0x3202\nsysret\nbits 32\n.to: mov eax, cs\nmov edx, ss\nstop"],
      ["sysretq.flags", "mov ecx, .to\nmov r11, -1\nbtr r11, 8\nbtr r11, 9\no64 sysret\n.to: stop"],
      ["sysretq.noncanonical", "mov rcx, NONCANONICAL\nmov r11d, 2\no64 sysret"],
      ["sysretl.high-rcx", "mov rcx, 0x900000000 + .to\nmov r11d, 2\nsysret\nbits 32\n.to: stop"],
      ["sysretq.hole", "mov ecx, HOLE\nmov r11d, 2\no64 sysret"],
      ["sysexitq", "mov edx, .to\nmov ecx, USTACK\no64 sysexit\n.to: mov r8d, cs\nmov r9d, ss\nstop"],
      ["sysexitl", "mov edx, .to\nmov ecx, USTACK\nsysexit\nbits 32\n.to: mov eax, cs\nmov ebx, ss\nstop"],
      ["sysexitq.noncanonical-rip", "mov rdx, NONCANONICAL\nmov ecx, USTACK\no64 sysexit"],
      ["sysexitq.noncanonical-rsp", "mov edx, .to\nmov rcx, NONCANONICAL\no64 sysexit\n.to: stop"],
      ["sysexitl.high", "mov rdx, 0x900000000 + .to\nmov rcx, 0x900000000 + USTACK\nsysexit\nbits 32\n.to: stop"],
    ] as const
  ).map(
    ([n, code]): Case => ({
      name: n,
      level: "k64",
      code,
      setup: "or qword [abs PT], 4",
      ...(SYSRETS[n] === undefined ? {} : { manual: SYSRETS[n] }),
    }),
  ),
  {
    name: "sysexit.k32",
    level: "k32",
    code: "mov edx, .to\nmov ecx, USTACK\nsysexit\n.to: mov eax, cs\nmov ebx, ss\nstop",
    setup: "or qword [abs PT], 4",
  },
  { name: "syscall.round", level: "u64", code: `syscall\nnop\n.back: stop\ntimes 0x200 - ($ - $$) nop\no64 sysret` },
];

export const TRANSFERS: readonly Case[] = [...far, ...far32, ...farMore, ...syscalls];
