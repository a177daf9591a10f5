/** Control registers and EFER: what they refuse, and the ways into long mode and out of it (SDM vol. 3, "Initializing IA-32e Mode"). */
import assert from "node:assert/strict";
import { test } from "node:test";
import { CpuFeature, SegIndex, Vp } from "../../src/cpu/layout.js";
import { CODE, GDT, IDT, IDT32, Selector, STACK, SystemMachine } from "./system-machine.js";

test("CR0, CR3, CR4, CR8: reserved bits and forbidden combinations are #GP(0)", () => {
  const levels: number[] = [];
  const m = new SystemMachine(4 << 20, { writeCr8: (v) => void levels.push(v), readCr8: () => 9 });
  const write = (register: string, value: bigint): number => {
    m.load(`mov ${register}, rax\nhlt`);
    m.level(0);
    m.set({ rax: value });
    const o = m.run();
    assert.ok(o.vector === -1 || (o.vector === 13 && o.error === 0 && o.rip === CODE));
    return o.vector;
  };
  const cr0 = m.vp.register64(Vp.cr0);
  assert.equal(write("cr0", cr0 & ~1n), 13, "paging without protection");
  assert.equal(write("cr0", cr0 | 0x20000000n), 13, "NW without CD");
  assert.equal(write("cr0", cr0 | 0x1_0000_0000n), 13, "bit 32");
  assert.equal(write("cr0", cr0 & ~0x80000000n), 13, "paging off in 64-bit code");
  assert.equal(m.vp.register64(Vp.cr0), cr0);
  assert.equal(write("cr0", cr0 | 0x40n), -1);
  assert.equal(m.vp.register64(Vp.cr0), cr0, "reserved bits of the lower half are ignored");
  assert.equal(write("cr0", cr0 | 0x60000000n), -1);
  assert.equal(write("cr0", cr0 & ~0x10n), -1, "ET stays");
  assert.equal(m.vp.register64(Vp.cr0), cr0);
  assert.equal(write("cr3", 0x1000n | (1n << 40n)), 13);
  assert.equal(write("cr3", 0x1000n | (1n << 63n)), 13, "no process-context identifiers");
  assert.equal(write("cr3", 0x1018n), -1);
  const cr4 = m.vp.register64(Vp.cr4);
  assert.equal(write("cr4", cr4 & ~0x20n), 13, "no PAE in long mode");
  for (const bit of [12, 13, 14, 15, 17, 19, 22, 23, 24, 32, 63])
    assert.equal(write("cr4", cr4 | (1n << BigInt(bit))), 13, `CR4 bit ${bit}`);
  assert.equal(write("cr4", cr4 | 0x18n), -1);
  assert.deepEqual([write("cr8", 5n), write("cr8", 16n), levels], [-1, 13, [5]]);
  m.execute("mov rax, cr8\nhlt");
  assert.equal(m.number("rax"), 9);
  for (const source of ["mov cr1, rax", "mov cr5, rax", "mov rax, cr7"]) assert.equal(m.execute(source).vector, 6);
  for (const source of [
    "mov cr0, rax",
    "mov rax, cr3",
    "mov cr8, rax",
    "clts",
    "lmsw ax",
    "invlpg [rax]",
    "wbinvd",
    "mov rax, dr0",
    "mov dr7, rax",
    "lgdt [rax]",
    "lidt [rax]",
    "xor ecx, ecx\nrdmsr",
    "wrmsr",
  ])
    assert.equal(m.execute(source, 3).vector, 13, source);
});

test("LMSW, SMSW, CLTS", () => {
  const m = new SystemMachine();
  m.execute("mov eax, 0xfff8\nlmsw ax\nsmsw ebx\nclts\nsmsw ecx\nmov eax, 6\nlmsw ax\nsmsw edx\nhlt");
  assert.deepEqual([m.number("rbx"), m.number("rcx"), m.number("rdx")], [0x80010039, 0x80010031, 0x80010037]);
});

test("process-context identifiers: CR4.PCIDE, CR3, INVPCID", () => {
  const m = new SystemMachine();
  const cr3 = m.vp.register64(Vp.cr3);
  const PCIDE = "mov rax, cr4\nbts rax, 17\nmov cr4, rax\n";
  const invpcid = (type: number, id: number): string =>
    `mov eax, ${type}\nmov qword [0x30000], ${id}\nmov qword [0x30008], 0x30000\ninvpcid rax, [0x30000]`;
  const vector = (source: string): number => m.execute(`${source}\nhlt`).vector;
  assert.equal(vector(PCIDE), 13, "a processor without them");
  assert.equal(vector(invpcid(0, 1)), 13);
  assert.equal(vector(invpcid(1, 0)), -1);
  m.vp.view.setUint32(m.vp.base + Vp.features, CpuFeature.pcid, true);
  assert.equal(vector(`mov rax, cr3\nor rax, 8\nmov cr3, rax\n${PCIDE}`), 13, "CR3 has low bits");
  assert.equal(vector(`mov rax, ${cr3}\nmov cr3, rax\n${PCIDE}`), -1);
  // an identifier, and the hint to flush nothing, which does not stay
  assert.equal(vector("mov rax, cr3\nor rax, 0x123\nbts rax, 63\nmov cr3, rax\nmov rbx, cr3"), -1);
  assert.equal(m.get("rbx"), cr3 | 0x123n);
  for (const [type, id, expected] of [
    [0, 0x123, -1],
    [1, 0xfff, -1],
    [2, 0, -1],
    [3, 0, -1],
    [4, 0, 13],
    [1, 0x1000, 13],
  ] as const)
    assert.equal(vector(invpcid(type, id)), expected, `INVPCID ${type} ${id}`);
  assert.equal(vector("mov rax, cr0\nbtr rax, 31\nmov cr0, rax"), 13, "paging stays on");
  assert.equal(
    vector("mov rax, cr4\nbtr rax, 17\nmov cr4, rax\nmov rax, cr3\nbts rax, 63\nmov cr3, rax"),
    13,
    "bit 63 without PCIDE",
  );
});

test("debug registers: aliases, fixed bits, CR4.DE", () => {
  const m = new SystemMachine();
  m.execute(
    "mov rax, 0x123456789abc\nmov dr1, rax\nmov rbx, dr1\nmov rax, -1\nshr rax, 32\nmov dr6, rax\nmov rcx, dr4\nbtr rax, 13\nmov dr5, rax\nmov rdx, dr7\nhlt",
  );
  // bit 11 of DR7 is for RTM, which there is not
  assert.deepEqual([m.number("rbx"), m.number("rcx"), m.number("rdx")], [0x123456789abc, 0xffffefff - 0, 0xffff07ff]);
  assert.deepEqual(
    [m.execute("mov rax, -1\nmov dr7, rax")].map((o) => [o.vector, o.error]),
    [[13, 0]],
  );
  assert.equal(m.execute("mov rax, cr4\nor eax, 8\nmov cr4, rax\nmov rax, dr4").vector, 6);
});

test("FPU state kept away: TS, EM, OSFXSR", () => {
  const m = new SystemMachine();
  const vectors = (cr0: number, cr4 = 0x6a0): number[] => {
    m.vp.setRegister(Vp.cr0, 0x80010031 | cr0);
    m.vp.setRegister(Vp.cr4, cr4);
    m.vp.runtime.updateMode();
    return [
      "fld1",
      "fwait",
      "paddb mm0, mm1",
      "emms",
      "addps xmm0, xmm1",
      "movq2dq xmm0, mm0",
      "ldmxcsr [rel x]\nx: dd 0x1f80",
      "fxsave [rbx]",
      "mfence",
      "pause",
    ].map((source) => {
      m.load(`jmp go\nalign 16\ngo: ${source.split("\n")[0]}\nhlt\n${source.split("\n")[1] ?? ""}`);
      m.level(0);
      m.set({ rbx: 0x30000 });
      for (const [at, value] of [
        [Vp.fcw, 0x37f],
        [Vp.fsw, 0],
        [Vp.ftw, 0],
      ] as const)
        m.vp.view.setUint16(m.vp.base + at, value, true);
      return m.run().vector;
    });
  };
  const ok = -1;
  assert.deepEqual(vectors(2), [ok, ok, ok, ok, ok, ok, ok, ok, ok, ok]);
  // TS: all that has state; WAIT only with MP
  assert.deepEqual(vectors(8), [7, ok, 7, 7, 7, 7, 7, 7, ok, ok]);
  assert.deepEqual(vectors(0xa), [7, 7, 7, 7, 7, 7, 7, 7, ok, ok]);
  // EM: x87 is #NM, MMX and SSE are #UD
  assert.deepEqual(vectors(4), [7, ok, 6, 6, 6, 6, 6, 7, ok, ok]);
  assert.deepEqual(vectors(0xe), [7, 7, 6, 6, 6, 6, 6, 7, ok, ok]);
  // without OSFXSR there is no SSE; MMX stays
  assert.deepEqual(vectors(2, 0xa0), [ok, ok, ok, ok, 6, 6, 6, ok, ok, ok]);
});

/** Protected mode without paging to 64-bit code and back, by the book. */
const INTO_LONG_MODE = `
  mov eax, cr4
  or eax, 0x20
  mov cr4, eax
  mov eax, 0x1000
  mov cr3, eax
  mov ecx, 0xc0000080
  rdmsr
  or eax, 0x100
  wrmsr
  mov eax, cr0
  or eax, 0x80000000
  mov cr0, eax`;

test("into long mode, through compatibility mode, and back to protected mode", () => {
  const m = new SystemMachine();
  m.leaveLongMode();
  const efer = (): number => m.vp.view.getUint32(m.vp.base + Vp.efer, true);
  m.load(
    `${INTO_LONG_MODE}
    rdmsr
    mov ebx, eax
    inc edi         ; still 32-bit code
    jmp ${Selector.code}:wide
    bits 64
    wide: mov rsi, 0x123456789abcdef0
    lidt [rel idt64]
    call dword far [rel pointer]
    mov r15, rsi
    int 0x50
    bits 32
    back: mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    rdmsr
    mov edx, eax
    mov eax, 0
    mov cr4, eax
    lidt [idt32]
    int 0x51
    align 8
    pointer: dd back
    dw ${Selector.code32}
    idt64: dw 0xfff
    dq ${IDT}
    idt32: dw 0x7ff
    dd ${IDT32}`,
    CODE,
    32,
  );
  m.code32(0);
  m.set({ rdi: 0 });
  const o = m.run();
  assert.deepEqual(
    [o.vector, o.cs, m.number("rbx") & 0xd00, m.number("rdx") & 0xd00, m.number("rdi")],
    [0x51, Selector.code32, 0xd00, 0x900, 1],
  );
  assert.equal(efer() & 0xd00, 0x900);
  assert.equal(m.get("rsi"), 0x123456789abcdef0n, "upper halves are kept here, though no program may count on it");
  assert.equal(m.number("rsp"), STACK - 8 - 12);
});

test("what the way into long mode refuses", () => {
  const m = new SystemMachine();
  const attempt = (source: string): readonly (number | undefined)[] => {
    m.leaveLongMode();
    m.load(source, CODE, 32);
    m.code32(0);
    const o = m.run();
    return [o.vector, o.error, o.rip];
  };
  // LME without PAE
  assert.deepEqual(attempt(INTO_LONG_MODE.replace("or eax, 0x20", "bad: ")).slice(0, 2), [13, 0]);
  // LME and PG both on: LME may not change, PAE may not go
  assert.deepEqual(
    attempt(`${INTO_LONG_MODE}\nlidt [idt64]\nrdmsr\nand eax, ~0x100\nx: wrmsr\nidt64: dw 0xfff\ndd ${IDT}`),
    [13, 0, undefined].map((v, i) => (i === 2 ? m.labels.x : v)),
  );
});

test("PAE paging outside long mode: the pointers' reserved bits are looked at when CR3, CR0.PG or CR4.PAE changes", () => {
  const m = new SystemMachine();
  m.leaveLongMode();
  // four pointers at 0x100000, a directory of 2 MiB pages at 0x101000
  m.ram.setBigUint64(0x100000, 0x101001n, true);
  for (let i = 0; i < 2; i++) m.ram.setBigUint64(0x101000 + i * 8, BigInt((i << 21) | 0xe3), true);
  const enable =
    "mov eax, cr4\nor eax, 0x20\nmov cr4, eax\nmov eax, 0x100000\nmov cr3, eax\nmov eax, cr0\nor eax, 0x80000000\npg: mov cr0, eax\n";
  const run = (source: string): readonly (number | undefined)[] => {
    m.leaveLongMode();
    m.load(source, CODE, 32);
    m.code32(0);
    const o = m.run();
    return [o.vector, o.error];
  };
  assert.deepEqual(run(`${enable}mov ebx, [${GDT + 0x10}]\nhlt`), [-1, undefined]);
  assert.equal(m.number("rbx"), 0xffff);
  for (const bad of [2n, 4n, 0x20n, 0x100n, 1n << 40n, 1n << 63n]) {
    m.ram.setBigUint64(0x100018, 0x101001n | bad, true);
    assert.deepEqual(run(`${enable}hlt`), [13, 0]);
    m.ram.setBigUint64(0x100018, bad, true);
    assert.deepEqual(run(`${enable}mov eax, cr3\nmov cr3, eax\nhlt`), [-1, undefined], "not present: not looked at");
    m.ram.setBigUint64(0x102000, 0x101001n | bad, true);
    m.ram.setBigUint64(0x100018, 0n, true);
    assert.deepEqual(run(`${enable}mov eax, 0x102000\nmov cr3, eax\nhlt`), [13, 0]);
  }
});

test("to real mode and back", () => {
  const m = new SystemMachine();
  m.leaveLongMode();
  m.descriptor(Selector.free, 0x00009b00, 0xffff); // 16-bit code, base 0
  m.descriptor(Selector.free + 8, 0x00009300, 0xffff); // 64 KiB of data
  // the vector table of real mode at 0: INT 0x21 to 0000:8400
  m.ram.setUint32(0x21 * 4, 0x00008400, true);
  m.load("mov bp, sp\nmov si, [bp]\nmov di, [bp + 2]\nmov ax, [bp + 4]\niret", 0x8400, 16);
  m.load(`done: mov eax, ${Selector.data}\nmov ss, eax\nmov ds, eax\nhlt`, 0x8600, 32);
  m.load(`jmp ${Selector.free}:0x8000`, CODE, 32);
  const program = m.load(
    `
    mov ax, ${Selector.free + 8}
    mov ss, ax
    mov ds, ax
    mov eax, cr0
    and al, 0xfe
    mov cr0, eax
    jmp 0:real
    real: lidt [cs:idt]
    mov ax, 0x3000
    mov ss, ax
    mov esp, 0x1000
    mov ax, 0xffff
    mov ds, ax
    mov bx, [0x20]
    stc
    int 0x21
    after: mov edx, esp
    pushf
    pop cx
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp dword ${Selector.code32}:0x8600
    idt: dw 0x3ff
    dd 0`,
    0x8000,
    16,
  );
  m.ram.setUint16(0x100010, 0xbeef, true);
  m.code32(0);
  const o = m.run();
  assert.ok(program.bytes.length < 0x400);
  assert.deepEqual(
    [o.vector, m.number("rbx") & 0xffff, m.number("rdx"), m.number("rsi") & 0xffff, m.number("rdi") & 0xffff],
    [-1, 0xbeef, 0x1000, m.labels.after, 0],
  );
  assert.deepEqual(
    [m.number("rcx") & 1, m.segment(SegIndex.cs).selector, m.ram.getUint16(0x30ffa, true)],
    [1, Selector.code32, m.labels.after],
  );
});
