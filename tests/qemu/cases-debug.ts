/** #DB: breakpoints on instructions, data and ports, single steps, DR7.GD; and what comes first. */
import { type Case, Flag, type Level } from "./case.js";

/** DR7 of DR0: kind (0 execute, 1 write, 2 port, 3 read or write), LEN (0 = 1 byte, 1 = 2, 3 = 4, 2 = 8). */
const arm = (kind: number, length = 0): string => `0x${(1 | (kind << 16) | (length << 18)).toString(16)}`;
const c = (name: string, level: Level, code: string, setup: string, more: Partial<Case> = {}): Case => ({
  name: `debug.${name}`,
  level,
  code,
  setup,
  ...more,
});
/** Records RIP and DR6 of each #DB, with RF set for the way back, at DATA4; R15 counts. */
const LOG =
  "\n.db: push rax\npush rbx\nmov ebx, [abs DATA4]\nmov rax, [rsp + 16]\nmov [rbx + DATA4 + 8], rax\nmov rax, dr6\nmov [rbx + DATA4 + 16], rax\nadd dword [abs DATA4], 16\nmov eax, 0xffff0ff0\nmov dr6, rax\npop rbx\npop rax\nor dword [rsp + 16], 0x10000\niretq";
const LOGGED = "gate 1, @db\ndata DATA4, 0";
const logged = (name: string, level: Level, code: string, setup: string, more: Partial<Case> = {}): Case =>
  c(`log.${name}`, level, `${code}\nstop${LOG}`, `${LOGGED}\n${setup}`, more);

const breakpoints: readonly Case[] = [
  c("execute", "u64", "nop\n.a: inc eax\nstop", `bp @a, ${arm(0)}`),
  c("execute.kernel", "k64", "nop\n.a: inc eax\nstop", `bp @a, ${arm(0)}`),
  c("execute.first", "u64", ".a: inc eax\nstop", `bp @a, ${arm(0)}`),
  c("execute.rf", "u64", ".a: inc eax\nstop", `bp @a, ${arm(0)}`, { rflags: 2 | Flag.RF }),
  c("execute.32", "u32", "nop\n.a: inc eax\nstop", `bp @a, ${arm(0)}`),
  c("execute.middle", "u64", ".a: mov eax, 0x12345678\nstop", `bp @a + 1, ${arm(0)}`),
  c("execute.before-fault", "u64", "nop\n.a: mov eax, [abs HOLE]\nstop", `bp @a, ${arm(0)}`),
  c("execute.before-ud", "u64", "nop\n.a: ud2", `bp @a, ${arm(0)}`),
  c("execute.before-gp", "u64", "nop\n.a: hlt", `bp @a, ${arm(0)}`),
  c("execute.hole", "u64", "mov eax, HOLE\njmp rax", `bp HOLE, ${arm(0)}`),
  c("execute.after-mov-ss", "u64", "mov eax, ss\nmov ss, eax\n.a: inc eax\nstop", `bp @a, ${arm(0)}`),
  c("execute.int-target", "u64", "int 0x40\n.h: inc eax\nstop", `gate 0x40, @h, 0xee\nbp @h, ${arm(0)}`),
  c("execute.global", "u64", "nop\n.a: inc eax\nstop", "bp @a, 2"),
  c("execute.disabled", "u64", "nop\n.a: inc eax\nstop", "bp @a, 0x8"),
  c("execute.two", "u64", "nop\n.a: inc eax\nstop", "mov rax, @a\nmov dr1, rax\nbp @a, 5"),
  c("write", "u64", "mov [abs DATA + 4], eax\ninc eax\nstop", `bp DATA + 4, ${arm(1, 3)}`),
  c("write.kernel", "k64", "mov [abs DATA + 4], eax\ninc eax\nstop", `bp DATA + 4, ${arm(1, 3)}`),
  c("write.read", "u64", "mov eax, [abs DATA + 4]\nstop", `bp DATA + 4, ${arm(1, 3)}`),
  c("write.partial", "u64", "mov [abs DATA + 1], rax\nnop\nstop", `bp DATA + 8, ${arm(1)}`),
  c("write.beside", "u64", "mov [abs DATA], rax\nnop\nstop", `bp DATA + 8, ${arm(1)}`),
  c("write.8", "u64", "mov [abs DATA + 15], al\nnop\nstop", `bp DATA + 8, ${arm(1, 2)}`),
  c("write.low-bits", "u64", "mov [abs DATA + 9], al\nnop\nstop", `bp DATA + 10, ${arm(1, 3)}`),
  c("write.fault-first", "u64", "mov [abs HOLE], eax\nstop", `bp HOLE, ${arm(1, 3)}`),
  c("write.read-only", "u64", "mov [abs RDONLY], eax\nstop", `bp RDONLY, ${arm(1, 3)}`),
  c("write.push", "u64", "push rax\nnop\nstop", `bp USTACK - 8, ${arm(1, 2)}`),
  c("write.call", "u64", "call .a\nnop\n.a: nop\nstop", `bp USTACK - 8, ${arm(1, 2)}`),
  c("write.then-int", "u64", "mov [abs DATA], eax\nint 0x80", `bp DATA, ${arm(1, 3)}`),
  c("write.then-ud", "u64", "mov [abs DATA], eax\nud2", `bp DATA, ${arm(1, 3)}`),
  c("read", "u64", "mov eax, [abs DATA + 4]\ninc ebx\nstop", `bp DATA + 4, ${arm(3, 3)}`),
  c("read.modify", "u64", "inc dword [abs DATA + 4]\nnop\nstop", `bp DATA + 4, ${arm(3, 3)}`),
  c("read.prefetch", "u64", "prefetcht0 [abs DATA]\nnop\nstop", `bp DATA, ${arm(3, 3)}`),
  c("read.code", "u64", "nop\n.a: nop\nstop", `bp @a, ${arm(3, 3)}`),
  c("io", "k64", "in al, 0x80\nnop\nstop", `cr cr4, 8\nbp 0x80, ${arm(2)}`),
  c("io.out", "u64", "out 0x84, al\nnop\nstop", `cr cr4, 8\nbp 0x84, ${arm(2)}`),
  c("io.wide", "u64", "mov edx, 0x82\nout dx, eax\nnop\nstop", `cr cr4, 8\nbp 0x84, ${arm(2, 1)}`),
  c("io.gp-first", "u64", "out 0x88, al\nstop", `cr cr4, 8\nbp 0x88, ${arm(2)}`),
  c("gd.read", "k64", "mov eax, 0x2000\nmov dr7, rax\nmov rax, dr0\nstop", ""),
  c("gd.write", "k64", "mov eax, 0x2000\nmov dr7, rax\nmov dr6, rax\nstop", ""),
  c("dr4", "k64", "db 0x0f, 0x21, 0xe0\nstop", "mov eax, 0xffff4ff0\nmov dr6, rax"),
  c("dr5", "k64", "db 0x0f, 0x21, 0xe8\nstop", ""),
  c("dr4.de", "k64", "db 0x0f, 0x21, 0xe0\nstop", "cr cr4, 8"),
  c("dr8", "k64", "db 0x44, 0x0f, 0x21, 0xc0\nstop", ""),
  c("dr7.high", "k64", "mov rax, 0x100000400\nmov dr7, rax\nstop", ""),
  c("dr6.high", "k64", "mov rax, 0x1ffff0ff0\nmov dr6, rax\nstop", ""),
  c("dr7.bits", "k64", "mov eax, 0xdc00\nmov dr7, rax\nmov rbx, dr7\nmov eax, 0x400\nmov dr7, rax\nstop", ""),
  c(
    "dr6.bits",
    "k64",
    "mov eax, 0xffffffff\nmov dr6, rax\nmov rbx, dr6\nxor eax, eax\nmov dr6, rax\nmov rcx, dr6\nstop",
    "",
  ),
  c("dr0.wide", "k64", "mov rax, 0x123456789abcdef0\nmov dr0, rax\nmov dr3, rax\nmov rbx, dr0\nmov rcx, dr3\nstop", ""),
  c("dr0.narrow", "k32", "mov eax, 0x9abcdef0\nmov dr2, eax\nmov ebx, dr2\nstop", ""),
];
const SET_TF = "pushfq\nor dword [rsp], 0x100\npopfq\n";
const CLEAR_TF = "pushfq\nand dword [rsp], ~0x100\npopfq\n";
const steps: readonly Case[] = [
  c("step", "u64", "nop\nnop\nstop", "", { rflags: 2 | Flag.TF }),
  c("step.kernel", "k64", "nop\nnop\nstop", "", { rflags: 2 | Flag.TF }),
  c("step.rf", "u64", "nop\nnop\nstop", "", { rflags: 2 | Flag.TF | Flag.RF }),
  c("step.fault-first", "u64", "mov eax, [abs HOLE]\nstop", "", { rflags: 2 | Flag.TF }),
  c("step.int", "u64", "int 0x40\nnop\n.h: nop\nstop", "gate 0x40, @h, 0xee", { rflags: 2 | Flag.TF }),
  c("step.int3", "u64", "int3\nnop", "", { rflags: 2 | Flag.TF }),
  c("step.mov-ss", "u64", "mov eax, ss\nstop", "", { rflags: 2 | Flag.TF }),
  c("step.syscall", "u64", "syscall\ntimes 0x200 - ($ - $$) nop\nnop\nint 0x80", "", { rflags: 2 | Flag.TF }),
  c("step.syscall-masked", "u64", "syscall\ntimes 0x200 - ($ - $$) nop\nnop\nint 0x80", "msr 0xc0000084, 0x100", {
    rflags: 2 | Flag.TF,
  }),
  c("step.sysenter", "u64", "sysenter\ntimes 0x200 - ($ - $$) nop\nnop\nint 0x80", "", { rflags: 2 | Flag.TF }),
  logged("step.popf", "u64", `${SET_TF}nop\ninc eax\n${CLEAR_TF}nop`, ""),
  logged("step.mov-ss", "u64", `mov ebx, ss\n${SET_TF}nop\nmov ss, ebx\nnop\nnop\n${CLEAR_TF}nop`, ""),
  logged("step.rep", "u64", `mov edi, DATA2\nmov ecx, 4\nxor eax, eax\n${SET_TF}rep stosb\nnop\n${CLEAR_TF}nop`, "", {
    open: ["m417000"],
  }),
  logged("step.rep-none", "u64", `mov edi, DATA2\nxor ecx, ecx\n${SET_TF}rep stosb\nnop\n${CLEAR_TF}nop`, ""),
  logged(
    "step.jumps",
    "u64",
    `mov ecx, 2\n${SET_TF}.l: dec ecx\njnz .l\njmp .n\nnop\n.n: call .f\n${CLEAR_TF}nop\njmp .end\n.f: ret\n.end: nop`,
    "",
  ),
  logged(
    "step.page-fault",
    "u64",
    `${SET_TF}mov eax, [abs HOLE]\nnop\n${CLEAR_TF}nop\njmp .end\n.pf: add rsp, 8\nmov qword [abs PT + 0x88], HOLE | 7\niretq\n.end: nop`,
    "gate 14, @pf",
  ),
  logged(
    "step.iret",
    "k64",
    `mov eax, ss\npush rax\nmov rax, rsp\npush rax\npush qword 0x102\nmov eax, cs\npush rax\nmov eax, .to\npush rax\niretq\n.to: nop\nnop\n${CLEAR_TF}add rsp, 8`,
    "",
  ),
  logged("step.sti-cli", "k64", `${SET_TF}sti\ncli\nnop\n${CLEAR_TF}nop`, ""),
  logged(
    "step.in",
    "u64",
    `${SET_TF}in al, 0x80\ncpuid\n${CLEAR_TF}xor eax, eax\nxor ebx, ebx\nxor ecx, ecx\nxor edx, edx`,
    "",
  ),
  logged("step.mov-dr", "k64", `${SET_TF}mov rax, dr3\nmov dr3, rax\nmov rax, cr0\nmov cr0, rax\n${CLEAR_TF}nop`, ""),
  logged(
    "step.wrmsr",
    "k64",
    `mov ecx, 0xc0000102\nxor eax, eax\nxor edx, edx\n${SET_TF}wrmsr\nlfence\ninvlpg [abs DATA]\n${CLEAR_TF}nop`,
    "",
  ),
  logged("step.write", "u64", `${SET_TF}mov [abs DATA], eax\nnop\n${CLEAR_TF}nop`, `bp DATA, ${arm(1, 3)}`),
  logged("step.execute", "u64", `${SET_TF}nop\n.a: nop\nnop\n${CLEAR_TF}nop`, `bp @a, ${arm(0)}`),
  logged("execute.loop", "u64", "mov ecx, 3\n.a: dec ecx\njnz .a", `bp @a, ${arm(0)}`),
  logged("execute.rep", "u64", "mov edi, DATA2\nmov ecx, 4\nxor eax, eax\n.a: rep stosb", `bp @a, ${arm(0)}`, {
    open: ["m417000"],
  }),
  logged("write.rep", "u64", "mov edi, DATA2\nmov ecx, 6\nxor eax, eax\nrep stosb\nnop", `bp DATA2 + 2, ${arm(1)}`, {
    open: ["m417000"],
  }),
  logged(
    "write.mov-ss",
    "u64",
    "mov ebx, ss\nmov [abs DATA], bx\nmov ss, [abs DATA]\nmov ecx, 1\nnop",
    `bp DATA, ${arm(3, 1)}`,
  ),
  logged("write.two", "u64", "mov [abs DATA + 4], rax\nnop", "mov eax, DATA + 8\nmov dr1, rax\nbp DATA + 4, 0xdd0005"),
];

const INHIBITED =
  'SDM vol. 3, "Masking Exceptions and Interrupts When Switching Stacks": #DB waits for the instruction after MOV SS';
const MASKED = 'SDM vol. 3, "Breakpoint Field Recognition": the low address bits that LEN covers do not count';
const GD =
  'SDM vol. 3, "Debug Control Register (DR7)", GD: #DB before an access to a debug register, with DR6.BD, and GD is cleared';
/** Where QEMU 7.2 is wrong, or the manual leaves it open. */
const BY_MANUAL: Readonly<Record<string, Pick<Case, "manual" | "open">>> = {
  "execute.first": { open: ["t"] },
  "execute.after-mov-ss": { manual: { fields: { v: "80", ip: "400008", d6: "" }, why: INHIBITED } },
  "write.low-bits": { manual: { fields: { v: "1", e: "", ip: "400007", d6: "ffff0ff1" }, why: MASKED } },
  "gd.read": { manual: { fields: { v: "1", e: "", ip: "400008", d6: "ffff2ff0", d7: "" }, why: GD } },
  "gd.write": { manual: { fields: { v: "1", e: "", ip: "400008", d6: "ffff2ff0", d7: "" }, why: GD } },
  "dr7.bits": {
    manual: {
      fields: { r3: "400" },
      why: 'SDM vol. 3, "Debug Control Register (DR7)": bits 11 (without RTM), 12, 14, 15 are 0',
    },
  },
  "dr6.bits": { manual: { fields: { r3: "ffffefff" }, why: 'SDM vol. 3, "Debug Status Register (DR6)": bit 12 is 0' } },
  "log.step.sti-cli": {
    manual: {
      fields: { v: "80", m41d000: "60", m41d008: "40000a", m41d018: "40000b" },
      why: 'SDM vol. 2, "STI": what waits for the next instruction is external interrupts, not the single-step trap',
    },
  },
  "log.step.write": {
    manual: {
      fields: { v: "80", m41d000: "50", m41d008: "400010", m41d010: "ffff4ff1", m41d018: "400011" },
      why: 'SDM vol. 3, "Data Memory and I/O Breakpoint Exception Conditions": trapped behind the instruction, together with its step',
    },
  },
  // DR6 of the step before the breakpoint's instruction: its condition may be shown or not
  "log.step.execute": { open: ["m41d010"] },
  "log.execute.rep": {
    manual: {
      fields: { v: "80", m41d000: "10", m41d008: "40000c" },
      why: 'SDM vol. 3, "Instruction-Breakpoint Exception Condition": RF holds until all of a repeated instruction is done',
    },
  },
  "log.write.mov-ss": { manual: { fields: { m41d018: "400016" }, why: INHIBITED } },
  "log.write.two": {
    manual: {
      fields: { m41d010: "ffff0ff3" },
      why: 'SDM vol. 3, "Debug Status Register (DR6)": B0 to B3, each for its own condition',
    },
  },
};

export const DEBUG: readonly Case[] = [...breakpoints, ...steps].map((x) => ({
  ...x,
  ...BY_MANUAL[x.name.replace("debug.", "")],
}));
