/**
 * The image's own program, in nasm: from the multiboot entry to long mode, then for each case a fixed state, the case, and
 * a line of text about its end on COM1. A line has a name and fields "key=value" in hexadecimal:
 *
 *   v vector, e error code, ip cs fl sp ss the frame, hs hf hc hd the handler's RSP, RFLAGS, CS and SS, c2 CR2;
 *   and where they are not as they were: d6 d7, r0..rf, c0 c3 c4, ef EFER, xc XCR0, fb gb kb bases of FS and GS,
 *   ds es fs gs, sw the x87 status word, mx MXCSR, t<address> a quadword of the tables, m<address> one of the data pages.
 */
import type { Case } from "./case.js";
import { CONSTANTS, Place } from "./layout.js";
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

/** Places in SAVE behind the registers. */
const SAVED = `
V equ SAVE + 0x80
ERR equ SAVE + 0x88
HASERR equ SAVE + 0x90
FRAME equ SAVE + 0x98
HFL equ SAVE + 0xa0
HCS equ SAVE + 0xa8
HSS equ SAVE + 0xb0
XCR2 equ SAVE + 0xb8
XDR6 equ SAVE + 0xc0
XDR7 equ SAVE + 0xc8
XDS equ SAVE + 0xd0
XES equ SAVE + 0xd8
XFS equ SAVE + 0xe0
XGS equ SAVE + 0xe8
XCR0 equ SAVE + 0xf0
XCR3 equ SAVE + 0xf8
XCR4 equ SAVE + 0x100
XEFER equ SAVE + 0x108
XFSB equ SAVE + 0x110
XGSB equ SAVE + 0x118
XKGSB equ SAVE + 0x120
XXCR0 equ SAVE + 0x128
CURRENT equ SAVE + 0x200
CR0AT equ SAVE + 0x208
CR3AT equ SAVE + 0x210
CR4AT equ SAVE + 0x218
EFERAT equ SAVE + 0x220
FSBAT equ SAVE + 0x228
GSBAT equ SAVE + 0x230
KGSBAT equ SAVE + 0x238
DR7AT equ SAVE + 0x240
BLOCK equ ${Place.liveEnd - Place.live}
; PE MP ET NE WP PG; PAE PGE OSFXSR OSXMMEXCPT FSGSBASE OSXSAVE, DE
CR0_START equ 0x80010033
CR4_START equ 0x506a8
EFER_START equ 0xd01
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

const HANDLER = `
align 16
stubs:
%assign n 0
%rep 256
  align 16
  push dword n
  jmp handler
%assign n n+1
%endrep
align 16
handler:
  mov [abs SAVE], rax
  mov [abs SAVE + 1 * 8], rcx
  mov [abs SAVE + 2 * 8], rdx
  mov [abs SAVE + 3 * 8], rbx
  mov [abs SAVE + 5 * 8], rbp
  mov [abs SAVE + 6 * 8], rsi
  mov [abs SAVE + 7 * 8], rdi
  mov [abs SAVE + 8 * 8], r8
  mov [abs SAVE + 9 * 8], r9
  mov [abs SAVE + 10 * 8], r10
  mov [abs SAVE + 11 * 8], r11
  mov [abs SAVE + 12 * 8], r12
  mov [abs SAVE + 13 * 8], r13
  mov [abs SAVE + 14 * 8], r14
  mov [abs SAVE + 15 * 8], r15
  pop rax
  and eax, 0xff
  mov [abs V], rax
  pushfq
  pop rax
  mov [abs HFL], rax
  mov eax, cs
  mov [abs HCS], rax
  mov eax, ss
  mov [abs HSS], rax
  ; a frame ends at a multiple of 16: an error code is a sixth word
  mov rbx, rsp
  xor ecx, ecx
  xor edx, edx
  test bl, 8
  jnz .plain
  mov rdx, [rbx]
  inc ecx
  add rbx, 8
.plain:
  mov [abs ERR], rdx
  mov [abs HASERR], rcx
  mov [abs FRAME], rbx
  mov [abs SAVE + 4 * 8], rsp
  mov eax, ds
  mov [abs XDS], rax
  mov eax, es
  mov [abs XES], rax
  mov eax, fs
  mov [abs XFS], rax
  mov eax, gs
  mov [abs XGS], rax
  mov rax, cr0
  mov [abs XCR0], rax
  mov rax, cr2
  mov [abs XCR2], rax
  mov rax, cr3
  mov [abs XCR3], rax
  mov rax, cr4
  mov [abs XCR4], rax
  mov rax, dr6
  mov [abs XDR6], rax
  mov rax, dr7
  mov [abs XDR7], rax
  xor eax, eax
  mov dr7, rax
  mov ecx, 0xc0000080
  mov rdi, XEFER
  call readmsr
  mov ecx, 0xc0000100
  call readmsr
  mov ecx, 0xc0000101
  call readmsr
  mov ecx, 0xc0000102
  call readmsr
  mov rax, LIVE
  mov cr3, rax
  mov eax, CR0_START
  mov cr0, rax
  mov eax, CR4_START
  mov cr4, rax
  cld
  xor ecx, ecx
  xgetbv
  mov [abs XXCR0], eax
  mov [abs XXCR0 + 4], edx
  mov rbx, [abs FRAME]
  mov rsp, ${Place.driverStack}
  mov edi, LINE
  field ' v', [abs V]
  cmp qword [abs HASERR], 0
  je .noerror
  field ' e', [abs ERR]
.noerror:
  field 'ip', [rbx]
  field 'cs', [rbx + 8]
  field 'fl', [rbx + 16]
  field 'sp', [rbx + 24]
  field 'ss', [rbx + 32]
  field 'hs', [abs SAVE + 4 * 8]
  field 'hf', [abs HFL]
  field 'hc', [abs HCS]
  field 'hd', [abs HSS]
  changed 'c2', [abs XCR2], 0
  mov edx, 0xffff0ff0
  changed 'd6', [abs XDR6], rdx
  changed 'd7', [abs XDR7], [abs DR7AT]
%assign n 0
%rep 16
%if n != 4
  changed 'r0' + ((n > 9) * ('a' - '0' - 10) + n) * 256, [abs SAVE + n * 8], [abs INIT + n * 8]
%endif
%assign n n+1
%endrep
  changed 'c0', [abs XCR0], [abs CR0AT]
  changed 'c3', [abs XCR3], [abs CR3AT]
  changed 'c4', [abs XCR4], [abs CR4AT]
  changed 'ef', [abs XEFER], [abs EFERAT]
  changed 'xc', [abs XXCR0], 3
  changed 'fb', [abs XFSB], [abs FSBAT]
  changed 'gb', [abs XGSB], [abs GSBAT]
  changed 'kb', [abs XKGSB], [abs KGSBAT]
  changed 'ds', [abs XDS], S_udata
  changed 'es', [abs XES], S_udata
  changed 'fs', [abs XFS], S_udata
  changed 'gs', [abs XGS], S_udata
  fnstsw ax
  movzx eax, ax
  mov [abs V], rax
  changed 'sw', [abs V], 0
  mov qword [abs V], 0
  stmxcsr [abs V]
  changed 'mx', [abs V], 0x1f80
  mov rsi, LIVE
  mov rdx, ${Place.snapshot}
  mov ecx, BLOCK / 8
  mov r8d, 't'
  xor r9d, r9d
  call differences
  mov rsi, ALIAS + DATA
  mov rdx, ${Place.dataSnapshot}
  mov ecx, ${(Place.dataEnd - Place.data) / 8}
  mov r8d, 'm'
  mov r9d, ALIAS
  call differences
  mov word [rdi], 10
  mov esi, LINE
  call text
leave_out:
  add qword [abs CURRENT], 64
  jmp next
; RAX as hexadecimal to RDI
hex:
  mov r10, rax
  bsr rcx, r10
  jnz .some
  xor ecx, ecx
.some:
  and ecx, 0x3c
.digit:
  mov rax, r10
  shr rax, cl
  and eax, 15
  cmp eax, 10
  jb .decimal
  add eax, 'a' - '0' - 10
.decimal:
  add eax, '0'
  stosb
  sub ecx, 4
  jns .digit
  ret
; quadwords at RSI that are not as at RDX: at most 16 of them
differences:
  mov r11d, 16
.next:
  mov rax, [rsi]
  cmp rax, [rdx]
  jne .found
.go:
  add rsi, 8
  add rdx, 8
  dec ecx
  jnz .next
  ret
.found:
  push rcx
  mov byte [rdi], ' '
  mov [rdi + 1], r8b
  add rdi, 2
  mov rax, rsi
  sub rax, r9
  call hex
  mov byte [rdi], '='
  inc rdi
  mov rax, [rsi]
  call hex
  pop rcx
  dec r11d
  jnz .go
  mov dword [rdi], ' +=1'
  add rdi, 4
  ret
`;

const FIELDS = `
%macro key 1
%if (%1) & 0xff == ' '
  mov word [rdi], ' ' | ((%1) & 0xff00)
  mov byte [rdi + 2], '='
  add rdi, 3
%else
  mov dword [rdi], ' ' | ((%1) << 8) | ('=' << 24)
  add rdi, 4
%endif
%endmacro
%macro field 2
  key %1
  mov rax, %2
  call hex
%endmacro
%macro changed 3
  mov rax, %2
  mov r10, %3
  cmp rax, r10
  je %%same
  key %1
  call hex
%%same:
%endmacro
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
