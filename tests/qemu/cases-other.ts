/** Non-canonical addresses, what comes before what, LOCK, alignment checks, code that changes itself. */
import { ARITHMETIC, atLevels, type Case, Flag, faults } from "./case.js";

const BAD = "mov rbx, NONCANONICAL\n";
const NONCANONICAL: Readonly<Record<string, string>> = {
  read: "mov eax, [rbx]",
  write: "mov [rbx], eax",
  "read-high": "mov rbx, 0xffff7ffffffffff8\nmov eax, [rbx]",
  "read-into-hole": "mov rbx, 0x7ffffffffffc\nmov rax, [rbx]",
  "read-wrapped": "mov rbx, -4\nmov rax, [rbx]",
  modify: "inc qword [rbx]",
  sse: "movups xmm0, [rbx]",
  "sse-aligned": "movaps [rbx], xmm0",
  x87: "fld qword [rbx]",
  lea: "lea rax, [rbx]",
  nop: "nop dword [rbx]",
  prefetch: "prefetcht0 [rbx]",
  stos: "mov rdi, rbx\nstosb",
  "jmp-memory": "jmp [rbx]",
  cmpxchg16b: "cmpxchg16b [rbx]",
  xlat: "xlatb",
  bt: "mov ebx, DATA\nmov rax, 0x3fffff8000000000\nbt [rbx], rax",
  fs: "mov ebx, 0\nmov eax, [fs:rbx]",
  sgdt: "sgdt [rbx]",
  bsf: "bsf rax, [rbx]",
  divide: "div qword [rbx]",
  "verr-memory": "verr [rbx]",
};
const noncanonical: readonly Case[] = [
  ...Object.entries(NONCANONICAL).flatMap(([name, code]) =>
    (["u64"] as const).map(
      (level): Case => ({
        name: `noncanonical.${name}`,
        level,
        code: `${BAD}${code}\nstop`,
        setup: "msr 0xc0000100, UPPER",
        undefinedFlags: name === "bt" ? 0x894 : 0,
      }),
    ),
  ),
];
const STACK_FAULT = 'SDM vol. 3, "Interrupt 12 - Stack Fault Exception": a reference through SS that is not canonical';
const BEFORE = (what: string): string => `SDM vol. 2, "${what}": #GP(0) before it jumps`;
const byManual = (name: string, code: string, v: string, ip: string, why: string): Case => ({
  name: `noncanonical.${name}`,
  level: "u64",
  code: `${code}\nstop`,
  manual: { fields: { v, e: "0", ip }, why },
});
const noncanonicalOther: readonly Case[] = [
  byManual("rbp", "mov rbp, NONCANONICAL\nmov eax, [rbp]", "c", "40000a", STACK_FAULT),
  byManual("rsp", "mov rsp, NONCANONICAL\nmov eax, [rsp]", "c", "40000a", STACK_FAULT),
  byManual("push", "mov rsp, NONCANONICAL + 256\npush rax", "c", "40000a", STACK_FAULT),
  byManual("pop", "mov rsp, NONCANONICAL\npop rax", "c", "40000a", STACK_FAULT),
  byManual("call-stack", "mov rsp, NONCANONICAL + 256\ncall .next\n.next:", "c", "40000a", STACK_FAULT),
  byManual("ret-stack", "mov rsp, NONCANONICAL\nret", "c", "40000a", STACK_FAULT),
  byManual("pushf", "mov rsp, NONCANONICAL + 256\npushfq", "c", "40000a", STACK_FAULT),
  byManual("enter", "mov rsp, NONCANONICAL + 256\nenter 0, 0", "c", "40000a", STACK_FAULT),
  byManual("leave", "mov rbp, NONCANONICAL\nleave", "c", "40000a", STACK_FAULT),
  byManual("jmp", "mov rbx, NONCANONICAL\njmp rbx", "d", "40000a", BEFORE("JMP")),
  byManual("call", "mov rbx, NONCANONICAL\ncall rbx", "d", "40000a", BEFORE("CALL")),
  byManual("ret", "mov rbx, NONCANONICAL\npush rbx\nret", "d", "40000b", BEFORE("RET")),
  byManual(
    "jmp-memory-target",
    "mov rbx, NONCANONICAL\nmov [abs DATA], rbx\njmp [abs DATA]",
    "d",
    "400012",
    BEFORE("JMP"),
  ),
];

const priorities: readonly Case[] = [
  { name: "priority.div-missing-operand", level: "u64", code: "xor edx, edx\ndiv dword [abs HOLE]\nstop" },
  {
    name: "priority.div-overflow",
    level: "u64",
    code: "mov edx, 5\nmov ecx, 5\ndiv ecx\nstop",
    undefinedFlags: ARITHMETIC,
  },
  { name: "priority.idiv-min", level: "u64", code: "mov eax, 0x80000000\nmov edx, -1\nmov ecx, -1\nidiv ecx\nstop" },
  {
    name: "priority.idiv-wide",
    level: "u64",
    code: "mov rax, 0x8000000000000000\nmov rdx, -1\nmov rcx, -1\nidiv rcx\nstop",
  },
  { name: "priority.div-8", level: "u64", code: "mov eax, 0x1234\nmov cl, 0x12\ndiv cl\nstop" },
  { name: "priority.aam-0", level: "u32", code: "db 0xd4, 0\nstop" },
  { name: "priority.push-memory-missing", level: "u64", code: "mov esp, HOLE2 + 8\npush qword [abs HOLE]\nstop" },
  { name: "priority.pop-memory-missing", level: "u64", code: "mov esp, HOLE2\npop qword [abs HOLE]\nstop" },
  { name: "priority.pop-destination-missing", level: "u64", code: "pop qword [abs HOLE]\nstop" },
  { name: "priority.pop-rsp-relative", level: "u64", code: "mov esp, HOLE - 16\npop qword [rsp + 8]\nstop" },
  { name: "priority.call-memory-missing", level: "u64", code: "mov esp, HOLE2 + 8\ncall [abs HOLE]\nstop" },
  { name: "priority.call-stack-missing", level: "u64", code: "mov esp, HOLE2 + 8\nmov ebx, HOLE\ncall rbx\nstop" },
  { name: "priority.call-target-missing", level: "u64", code: "mov ebx, HOLE\ncall rbx\nstop" },
  { name: "priority.ret-target-missing", level: "u64", code: "mov ebx, HOLE\npush rbx\nret 8\nstop" },
  { name: "priority.xchg-stack", level: "u64", code: "mov esp, HOLE - 4\nxchg [rsp], rax\nstop", open: ["e", "t"] },
  { name: "priority.sse-ud-missing", level: "u64", code: "addps xmm0, [abs HOLE]\nstop", setup: "uncr cr4, 0x200" },
  { name: "priority.nm-missing", level: "u64", code: "fadd dword [abs HOLE]\nstop", setup: "cr cr0, 8" },
  { name: "priority.pusha-missing", level: "u32", code: "mov esp, HOLE2 + 8\npusha\nstop" },
  {
    name: "priority.pusha-crossing",
    level: "u32",
    code: "mov esp, DATA3 + 8\npusha\nmov esp, USTACK\nstop",
    open: ["m"],
  },
  { name: "priority.popa-crossing", level: "u32", code: "mov esp, HOLE - 8\npopa\nstop" },
  { name: "priority.enter-levels", level: "u64", code: "mov ebp, HOLE\nenter 16, 3\nstop" },
  {
    name: "priority.enter-room",
    level: "u64",
    code: "mov esp, DATA + 16\nenter 0x100, 0\nstop",
    setup: "mov qword [abs PT + 0x78], 0",
    open: ["t"],
  },
  { name: "priority.cmov-false-missing", level: "u64", code: "xor ecx, ecx\ncmovnz eax, [abs HOLE]\nstop" },
  { name: "priority.cmov-false-clears", level: "u64", code: "xor ecx, ecx\ncmovnz eax, ebx\nstop" },
  { name: "priority.bsf-zero-missing", level: "u64", code: "bsf eax, [abs HOLE]\nstop" },
  { name: "priority.shld-missing", level: "u64", code: "xor ecx, ecx\nshld [abs HOLE], eax, cl\nstop", open: ["e"] },
  {
    name: "priority.maskmov-none",
    level: "u64",
    code: "pxor xmm1, xmm1\nmov edi, HOLE\nmaskmovdqu xmm0, xmm1\nstop",
    open: ["v", "e", "ip", "fl", "hs", "c2"],
  },
  { name: "priority.loop-32", level: "u64", code: "mov rcx, 0x100000001\na32 loop .a\nmov eax, 1\n.a: stop" },
  { name: "priority.jrcxz", level: "u64", code: "mov rcx, 0x100000000\njrcxz .a\njecxz .b\n.a: mov eax, 1\n.b: stop" },
  { name: "priority.ud-registers", level: "u64", code: "db 0x8d, 0xc0\nstop" },
  { name: "priority.ud-0fff", level: "u64", code: "db 0x0f, 0xff, 0xc0\nstop" },
  { name: "priority.ud-0fb9-missing", level: "u64", code: "db 0x0f, 0xb9, 0x04, 0x25\ndd HOLE\nstop" },
  { name: "priority.sahf-lahf", level: "u64", code: "mov ah, 0xff\nsahf\nlahf\nstop" },
];
const narrowJumps: readonly Case[] = [
  { name: "narrow.jmp-16.u32", level: "u32", code: "o16 jmp near .a\n.a: stop" },
  { name: "narrow.call-16.u32", level: "u32", code: "db 0x66, 0xe8, 0, 0\nstop" },
  { name: "narrow.jcc-16.u32", level: "u32", code: "xor eax, eax\ndb 0x66, 0x0f, 0x84, 0, 0\nstop" },
  { name: "narrow.ret-16.u32", level: "u32", code: "push dword 0x12345678\no16 ret" },
  { name: "narrow.jmp-register-16.u32", level: "u32", code: "mov eax, 0x12345678\njmp ax" },
  { name: "narrow.loop-16.u32", level: "u32", code: "mov ecx, 2\ndb 0x66, 0xe2, 0" },
  { name: "narrow.short-16.u32", level: "u32", code: "db 0x66, 0xeb, 0" },
  { name: "narrow.wrap.u32", level: "u32", code: "mov eax, -1\njmp eax" },
];

const LOCKED = [
  "mov eax, [abs DATA]",
  "mov [abs DATA], eax",
  "add eax, [abs DATA]",
  "cmp [abs DATA], eax",
  "test [abs DATA], eax",
  "bt dword [abs DATA], 1",
  "push rax",
  "nop",
  "movsb",
  "mul dword [abs DATA]",
  "shl dword [abs DATA], 1",
  "lea eax, [abs DATA]",
  "jmp .a\n.a:",
  "imul eax, [abs DATA]",
  "movups [abs DATA], xmm0",
  "fld1",
  "cpuid",
  "pop qword [abs DATA]",
  "inc eax",
  "xchg eax, ecx",
  "cmpxchg eax, ecx",
  "movnti [abs DATA], eax",
  "setz [abs DATA]",
  "sfence",
  "ud2",
  "shld [abs DATA], eax, 1",
  "mov eax, [abs HOLE]",
  "invlpg [abs DATA]",
  "hlt",
  "rdtsc",
] as const;
/** QEMU 7.2 looks at LOCK in some instructions only. */
const QEMU_REFUSES = new Set<string>([
  "add eax, [abs DATA]",
  "cmp [abs DATA], eax",
  "nop",
  "movups [abs DATA], xmm0",
  "inc eax",
  "cmpxchg eax, ecx",
  "sfence",
  "ud2",
]);
const LOCKABLE = [
  "add [abs DATA], eax",
  "or [abs DATA], al",
  "adc dword [abs DATA], 1",
  "sbb [abs DATA], rax",
  "and byte [abs DATA], 7",
  "sub [abs DATA], ax",
  "xor [abs DATA], rcx",
  "inc dword [abs DATA]",
  "dec byte [abs DATA]",
  "not dword [abs DATA]",
  "neg qword [abs DATA]",
  "bts dword [abs DATA], 1",
  "btr [abs DATA], ecx",
  "btc word [abs DATA], 3",
  "xchg [abs DATA], eax",
  "xadd [abs DATA], eax",
  "cmpxchg [abs DATA], ecx",
  "cmpxchg8b [abs DATA]",
] as const;
const locks: readonly Case[] = [
  ...LOCKED.map(
    (i): Case => ({
      name: `lock.${i.replaceAll(/[^a-z0-9]+/gi, "-")}`,
      level: "u64",
      code: `db 0xf0\n${i}\nstop`,
      ...(QEMU_REFUSES.has(i)
        ? { open: ["t"] }
        : faults("6", 'SDM vol. 2, "LOCK": #UD for other instructions, and without a memory destination')),
    }),
  ),
  ...LOCKABLE.map(
    (i): Case => ({
      name: `lock.${i.replaceAll(/[^a-z0-9]+/gi, "-")}`,
      level: "u64",
      code: `mov ecx, 9\ndb 0xf0\n${i}\nstop`,
      undefinedFlags: /^b|^and|^or|^xor/.test(i) ? 0x8d4 & (/^b/.test(i) ? 0x894 : 0x10) : 0,
    }),
  ),
];

/** QEMU 7.2 has no #AC: what is checked, and that it is, by the manual. */
const ALIGNMENT = 'SDM vol. 3, "Interrupt 17 - Alignment Check Exception"';
const checked = (name: string, code: string, ip: string, level: "u64" | "u32" = "u64"): Case => ({
  name: `alignment.${name}`,
  level,
  code: `${code}\nstop`,
  setup: "cr cr0, 0x40000",
  rflags: 2 | Flag.AC,
  manual: { fields: { v: "11", e: "0", ip }, why: ALIGNMENT },
});
const unchecked = (name: string, code: string, more: Partial<Case> = {}): Case => ({
  name: `alignment.${name}`,
  level: "u64",
  code: `${code}\nstop`,
  setup: "cr cr0, 0x40000",
  rflags: 2 | Flag.AC,
  ...more,
});
const alignment: readonly Case[] = [
  checked("read-2", "mov ax, [abs DATA + 1]", "400000"),
  checked("read-4", "mov eax, [abs DATA + 2]", "400000"),
  checked("read-8", "mov rax, [abs DATA + 4]", "400000"),
  checked("write-8", "mov [abs DATA + 1], rax", "400000"),
  checked("modify", "add [abs DATA + 2], eax", "400000"),
  checked("xchg", "xchg [abs DATA + 2], eax", "400000"),
  checked("push", "mov esp, USTACK + 4\npush rax", "400005"),
  checked("call", "mov esp, USTACK + 1\ncall .a\n.a:", "400005"),
  checked("movsq", "mov esi, DATA + 1\nmov edi, DATA2\nmovsq", "40000a"),
  checked("crossing-mapped", "mov rax, [abs DATA3 - 4]", "400000"),
  checked("x87", "fld qword [abs DATA + 4]", "400000"),
  {
    // the page has been read before, and a descriptor is read meanwhile; then it runs on for longer than a slice
    ...checked(
      "after-descriptor",
      "mov rax, [abs DATA]\npushfq\nor dword [rsp], 0x40000\npopfq\nmov ecx, cs\nlar edx, ecx\nmov ecx, 100000\n.a: dec ecx\njnz .a\nmov rax, [abs DATA + 4]",
      "40001f",
    ),
    rflags: 2,
  },
  checked("narrow", "mov eax, [DATA + 2]", "400000", "u32"),
  unchecked("read-1", "mov al, [abs DATA + 1]"),
  unchecked("aligned", "mov ax, [abs DATA + 2]\nmov eax, [abs DATA + 4]\nmov rax, [abs DATA + 8]"),
  unchecked("kernel", "mov eax, [abs DATA + 1]", { level: "k64" }),
  unchecked("no-ac", "mov eax, [abs DATA + 1]", { rflags: 2 }),
  unchecked("no-am", "mov eax, [abs DATA + 1]", { setup: "" }),
  unchecked("hole", "mov eax, [abs HOLE + 4]"),
  unchecked("system-stack", "mov eax, 1\nint3"),
];

/** Code that is overwritten; an instruction behind a jump, or the one that comes next (SDM vol. 3, "Handling Self- and Cross-Modifying Code"). */
const selfModifying: readonly Case[] = [
  { name: "code.next", level: "u64", code: "mov byte [abs .a + 1], 7\njmp .a\n.a: mov al, 1\nstop" },
  { name: "code.next-straight", level: "u64", code: "mov byte [abs .a + 1], 7\n.a: mov al, 1\nstop" },
  {
    name: "code.before",
    level: "u64",
    code: "mov ecx, 3\n.a: mov al, 1\ninc byte [abs .a + 1]\ndec ecx\njnz .a\nstop",
  },
  {
    name: "code.own-operand",
    level: "u64",
    code: "mov ecx, 4\n.a: add dword [abs .a + 7], 0x01\ndec ecx\njnz .a\nmov eax, [abs .a + 7]\nstop",
  },
  { name: "code.alias", level: "k64", code: "mov byte [abs ALIAS + .a + 1], 9\njmp .a\n.a: mov al, 1\nstop" },
  {
    name: "code.alias-large",
    level: "k64",
    code: "call .f\nmov byte [abs ALIAS + .f + 1], 9\ncall .f\nstop\n.f: mov al, 1\nret",
  },
  {
    name: "code.rep",
    level: "u64",
    code: "mov edi, .a\nmov ecx, 4\nmov al, 0x90\nrep stosb\njmp .a\n.a: inc ebx\ninc ebx\nstop",
  },
  {
    name: "code.over-border",
    level: "u64",
    code: "jmp .a\ntimes 0xffe - ($ - $$) nop\n.a: mov eax, 0x11223344\ncmp byte [abs CODE + 0x1000], 0x99\nje .end\nmov byte [abs CODE + 0x1000], 0x99\njmp .a\n.end: stop",
  },
  {
    name: "code.other-page",
    level: "u64",
    code: "call .f\nmov byte [abs .f + 1], 5\ncall .f\nstop\ntimes 0x1000 - ($ - $$) nop\n.f: mov bl, 1\nret",
  },
  {
    name: "code.remapped",
    level: "k64",
    code: "call CODE + 0x1000\nmov bl, al\nmov rax, CODE + 0x2003\nmov [abs PT + 8], rax\ninvlpg [abs CODE + 0x1000]\ncall CODE + 0x1000\nstop\ntimes 0x1000 - ($ - $$) nop\nmov al, 1\nret\ntimes 0x2000 - ($ - $$) nop\nmov al, 2\nret",
  },
  {
    name: "code.cmpxchg",
    level: "u64",
    code: "mov eax, [abs .a]\nmov ecx, 0xcccccccc\nlock cmpxchg [abs .a], ecx\njmp .a\n.a: nop\nnop\nnop\nnop\nstop",
  },
  {
    name: "code.two-views",
    level: "u64",
    code: "mov ecx, 2\n.l: mov rdx, UPPER + .f\ncall rdx\ninc byte [abs .f + 1]\ndec ecx\njnz .l\nstop\n.f: add bl, 1\nret",
  },
  {
    name: "code.dirty-fault",
    level: "u64",
    code: "mov byte [abs .a], 0x90\njmp .a\n.a: ud2\nnop\nstop",
    setup: "and qword [abs PT], ~2",
  },
  ...atLevels(["u64", "u32"], {
    name: "code.push",
    code: "mov esp, .a + 8\npush 0x0f909090\njmp .a\n.a: times 8 nop\nmov esp, USTACK\nstop",
  }),
];

/** Where QEMU 7.2 is wrong, or the manual leaves it open. */
const BY_MANUAL: Readonly<Record<string, Pick<Case, "manual" | "open">>> = {
  "noncanonical.read-into-hole": faults(
    "d",
    'SDM vol. 3, "Priority Among Concurrent Events": what is not canonical is found before the pages are walked',
    "400014",
  ),
  // which slot is written first
  "priority.pusha-missing": { open: ["c2", "t", "m"] },
  "priority.popa-crossing": {
    manual: {
      fields: { r6: "", r7: "" },
      why: 'SDM vol. 3, "Program or Task Restart": a fault leaves the registers as they were',
    },
  },
  "priority.enter-room": {
    manual: {
      fields: { v: "e", e: "6", ip: "400005", c2: "40ff08" },
      why: 'SDM vol. 2, "ENTER": #PF if a write with the final stack pointer would be one',
    },
  },
};

export const OTHER: readonly Case[] = [
  ...noncanonical,
  ...noncanonicalOther,
  ...priorities,
  ...narrowJumps,
  ...locks,
  ...alignment,
  ...selfModifying,
].map((x) => ({ ...x, ...BY_MANUAL[x.name] }));
