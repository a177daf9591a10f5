/**
 * The image's handler for every vector, in nasm: it writes a line of text about a case's end to COM1. A line has the case's name and
 * fields "key=value" in hexadecimal:
 *
 *   v vector, e error code, ip cs fl sp ss the frame, hs hf hc hd the handler's RSP, RFLAGS, CS and SS, c2 CR2;
 *   and where they are not as they were: d6 d7, r0..rf, c0 c3 c4, ef EFER, xc XCR0, fb gb kb bases of FS and GS,
 *   ds es fs gs, sw the x87 status word, mx MXCSR, t<address> a quadword of the tables, m<address> one of the data pages.
 */
import { Place } from "./layout.js";

/** Places in SAVE behind the registers. */
export const SAVED = `
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

/** Macros for the line. */
export const FIELDS = `
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

export const HANDLER = `
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
