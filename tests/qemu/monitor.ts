/**
 * The image's own program, in nasm: from the multiboot entry to long mode, then for each case a fixed state and the case.
 * Its end is the handler's (report.ts).
 */
import type { Case } from "./case.js";
import { CONSTANTS, Place } from "./layout.js";
import { FIELDS, HANDLER, SAVED } from "./report.js";
import { tablesTemplate } from "./tables.js";

/** What a case's text may use. */
const MACROS = `
%define stop int 0x80
%macro pte 2 ; a test page's entry
  mov rax, %2
  mov [abs PT + (((%1) >> 9) & 0xff8)], rax
%endmacro
%macro gate 2-5 0x8e, 0, S_kcode64 ; vector, handler, type, IST, selector
  mov rax, %2
  mov [abs IDT + (%1) * 16], ax
  shr rax, 16
  mov [abs IDT + (%1) * 16 + 6], ax
  mov word [abs IDT + (%1) * 16 + 2], %5
  mov word [abs IDT + (%1) * 16 + 4], ((%3) << 8) | (%4)
%endmacro
%macro desc 2 ; selector, descriptor
  mov rax, %2
  mov [abs GDT + ((%1) & ~7)], rax
%endmacro
%macro data 2 ; a quadword of the data pages, whatever their entries say
  mov rax, %2
  mov [abs ALIAS + (%1)], rax
%endmacro
%macro reg 2 ; a general register's value at the start, by number
  mov rax, %2
  mov [abs INIT + (%1) * 8], rax
%endmacro
%macro msr 2
  mov rax, %2
  mov rdx, rax
  shr rdx, 32
  mov ecx, %1
  wrmsr
%endmacro
%macro cr 2 ; sets bits
  mov rax, %1
  or rax, %2
  mov %1, rax
%endmacro
%macro uncr 2 ; clears bits
  mov rax, %1
  mov rcx, ~(%2)
  and rax, rcx
  mov %1, rax
%endmacro
%macro bp 2 ; DR0 and DR7
  mov rax, %1
  mov dr0, rax
  mov eax, %2
  mov dr7, rax
%endmacro
`;

const ENTRY = `
align 4
header:
dd 0x1badb002, 0x10000, -(0x1badb002 + 0x10000)
dd header, ${Place.image}, 0, 0, entry
; at SKIP_AT: which cases are left out
skip: dd 0
bits 32
entry:
  cli
  mov esp, ${Place.driverStack}
  mov al, 0xff
  out 0x21, al
  out 0xa1, al
  cld
  mov esi, template
  mov edi, LIVE
  mov ecx, BLOCK / 4
  rep movsd
  mov eax, 0x6a0
  mov cr4, eax
  mov eax, LIVE
  mov cr3, eax
  mov ecx, 0xc0000080
  mov eax, 0x901
  xor edx, edx
  wrmsr
  mov eax, CR0_START
  mov cr0, eax
  lgdt [gdtr]
  jmp S_kcode64:entry64
gdtr: dw 0x1ff
  dq GDT
idtr: dw 0xfff
  dq IDT
bits 64
entry64:
  mov rax, cases
  mov [abs CURRENT], rax
  mov dx, 0x3fb ; 8 bits, no parity; no interrupts
  mov al, 3
  out dx, al
  mov dx, 0x3f9
  xor eax, eax
  out dx, al
`;

const NEXT = `
next:
  mov rbx, [abs CURRENT]
  cmp qword [rbx], 0
  je finish
  mov eax, [rbx + 56]
  test [abs skip], eax
  jnz leave_out
  mov rsp, ${Place.driverStack}
  cld
  ; the name first: a machine that dies tells where
  mov rsi, [rbx]
  call text
  mov rsi, template
  mov rdi, LIVE
  mov ecx, BLOCK / 8
  rep movsq
  mov rax, LIVE
  mov cr3, rax
  lgdt [gdtr]
  lidt [idtr]
  mov ax, S_ldt
  lldt ax
  mov ax, S_tss
  ltr ax
  mov eax, S_kdata
  mov ss, eax
  mov eax, S_udata
  mov ds, eax
  mov es, eax
  mov fs, eax
  mov gs, eax
  mov rdi, ALIAS + DATA
  mov ecx, ${(Place.dataEnd - Place.data) / 8}
  mov rax, 0x1122334455667700
.pattern:
  mov [rdi], rax
  add rax, 0x01010101
  add rdi, 8
  dec ecx
  jnz .pattern
  mov rdi, ALIAS + ${(Place.userStack & ~0xfff) - 4096}
  mov ecx, 1024
  xor eax, eax
  rep stosq
  mov rdi, ALIAS + ${(Place.kernelStack & ~0xfff) - 4096}
  mov ecx, 1024
  rep stosq
  mov rdi, ALIAS + CODE
  mov rsi, [rbx + 8]
  mov rcx, [rbx + 16]
  rep movsb
  mov rcx, ALIAS + CODE + 0x4000
  sub rcx, rdi
  mov al, 0xcc
  rep stosb
  movzx eax, word [rbx + 36] ; CS
  test al, 3
  jz .inner
  or qword [abs PT], 4
  or qword [abs PT + 8], 4
  or qword [abs PT + 16], 4
  or qword [abs PT + 24], 4
.inner:
  msr 0xc0000081, 0x0020001000000000
  msr 0xc0000082, CODE + 0x200
  msr 0xc0000083, CODE + 0x210
  msr 0xc0000084, 0
  msr 0x174, S_kcode64
  msr 0x175, KSTACK - 0x100
  msr 0x176, CODE + 0x200
  msr 0xc0000100, 0
  msr 0xc0000101, 0
  msr 0xc0000102, 0x12345678
  msr 0xc0000080, EFER_START
  msr 0x277, 0x0007040600070406
  mov eax, CR0_START
  mov cr0, rax
  mov eax, CR4_START
  mov cr4, rax
  xor ecx, ecx
  xor edx, edx
  mov eax, 3
  xsetbv
  fninit
  ldmxcsr [mxcsr]
  xor eax, eax
  mov dr7, rax
  mov dr0, rax
  mov dr1, rax
  mov dr2, rax
  mov dr3, rax
  mov eax, 0xffff0ff0
  mov dr6, rax
  xor eax, eax
  mov cr2, rax
  mov rsi, registers
  mov rdi, INIT
  mov ecx, 16
  rep movsq
  cmp word [rbx + 38], 0 ; compatibility mode: 32-bit registers
  je .wide
  mov rdi, INIT
  mov ecx, 16
.narrow:
  mov dword [rdi + 4], 0
  add rdi, 8
  loop .narrow
.wide:
  mov rax, [rbx + 40]
  mov [abs INIT + 32], rax
  mov rax, CODE
  mov [abs START], rax
  movzx eax, word [rbx + 36]
  mov [abs START + 8], rax
  mov eax, [rbx + 32]
  mov [abs START + 16], rax
  movzx eax, word [rbx + 48]
  mov [abs START + 24], rax
  mov rax, [rbx + 24]
  test rax, rax
  jz .ready
  call rax
.ready:
  mov rax, cr0
  mov [abs CR0AT], rax
  mov rax, cr4
  mov [abs CR4AT], rax
  xor rax, 0x80 ; PGE changed: nothing stays in the TLB
  mov cr4, rax
  xor rax, 0x80
  mov cr4, rax
  mov rax, cr3
  mov [abs CR3AT], rax
  mov rax, dr7
  mov [abs DR7AT], rax
  mov ecx, 0xc0000080
  mov rdi, EFERAT
  call readmsr
  mov ecx, 0xc0000100
  call readmsr
  mov ecx, 0xc0000101
  call readmsr
  mov ecx, 0xc0000102
  call readmsr
  mov rsi, LIVE
  mov rdi, ${Place.snapshot}
  mov ecx, BLOCK / 8
  rep movsq
  mov rsi, ALIAS + DATA
  mov rdi, ${Place.dataSnapshot}
  mov ecx, ${(Place.dataEnd - Place.data) / 8}
  rep movsq
  push qword [abs START + 24]
  push qword [abs INIT + 32]
  push qword [abs START + 16]
  push qword [abs START + 8]
  push qword [abs START]
  mov rcx, [abs INIT + 1 * 8]
  mov rdx, [abs INIT + 2 * 8]
  mov rbx, [abs INIT + 3 * 8]
  mov rbp, [abs INIT + 5 * 8]
  mov rsi, [abs INIT + 6 * 8]
  mov rdi, [abs INIT + 7 * 8]
  mov r8, [abs INIT + 8 * 8]
  mov r9, [abs INIT + 9 * 8]
  mov r10, [abs INIT + 10 * 8]
  mov r11, [abs INIT + 11 * 8]
  mov r12, [abs INIT + 12 * 8]
  mov r13, [abs INIT + 13 * 8]
  mov r14, [abs INIT + 14 * 8]
  mov r15, [abs INIT + 15 * 8]
  mov rax, [abs INIT]
  iretq
mxcsr: dd 0x1f80
registers:
%assign n 0
%rep 16
  dq 0x0101010101010101 * (n + 0x10)
%assign n n+1
%endrep
readmsr:
  rdmsr
  mov [rdi], eax
  mov [rdi + 4], edx
  add rdi, 8
  ret
finish:
  mov rsi, ended
  call text
  xor eax, eax
  out 0xf4, al
  hlt
ended: db "end", 10, 0
text:
  mov dx, 0x3f8
.next:
  lodsb
  test al, al
  jz .done
  out dx, al
  jmp .next
.done:
  ret
`;

/** The image with the cases left out that QEMU does not come back from. */
export function forQemu(image: Uint8Array): Uint8Array {
  const copy = image.slice();
  copy[SKIP_AT] = 1;
  return copy;
}
/** Behind the multiboot header. */
const SKIP_AT = 32;

const STARTS = {
  k64: { cs: "S_kcode64", ss: "S_kdata", sp: "KSTACK", narrow: 0, bits: 64 },
  u64: { cs: "S_ucode64", ss: "S_udata", sp: "USTACK", narrow: 0, bits: 64 },
  k32: { cs: "S_kcode32", ss: "S_kdata", sp: "KSTACK", narrow: 1, bits: 32 },
  u32: { cs: "S_ucode32", ss: "S_udata", sp: "USTACK", narrow: 1, bits: 32 },
  k16: { cs: "S_kcode16", ss: "S_kdata", sp: "KSTACK", narrow: 1, bits: 16 },
  u16: { cs: "S_ucode16", ss: "S_udata", sp: "USTACK", narrow: 1, bits: 16 },
} as const;

/** The whole image's source. */
export function imageSource(cases: readonly Case[]): string {
  const table: string[] = [];
  const text: string[] = [];
  const sections: string[] = [];
  let previous = ".text";
  cases.forEach((c, i) => {
    const s = STARTS[c.level];
    text.push(`name${i}: db "${c.name}", 0`);
    // 64 bytes
    table.push(
      `dq name${i}, section.c${i}.start, end${i} - case${i}, ${c.setup === undefined ? 0 : `setup${i}`}`,
      `dd ${c.rflags ?? 2}`,
      `dw ${s.cs}, ${s.narrow}`,
      `dq ${s.sp}`,
      `dq ${s.ss}, ${c.manual?.notInQemu === true ? 1 : 0}`,
    );
    if (c.setup !== undefined) text.push(`setup${i}:`, c.setup.replaceAll(/@([a-z]\w*)/g, `case${i}.$1`), "ret");
    sections.push(
      `section c${i} follows=${previous} vstart=${Place.code} align=16`,
      `bits ${s.bits}`,
      `case${i}:`,
      c.code,
      `end${i}:`,
    );
    previous = `c${i}`;
  });
  return [
    CONSTANTS,
    SAVED,
    MACROS,
    FIELDS,
    ENTRY,
    NEXT,
    HANDLER,
    "align 8\ncases:",
    ...table,
    "dq 0",
    ...text,
    "align 4096\ntemplate:",
    tablesTemplate(),
    ...sections,
  ].join("\n");
}
