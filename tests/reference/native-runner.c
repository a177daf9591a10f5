/* Runs single instructions on the processor of this machine: see native-runner.ts for the layout of a case. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

struct test_case {
  uint8_t code[16];
  uint32_t length;
  int32_t trap;
  uint64_t rip;
  uint64_t gpr[16];
  uint64_t rflags;
  uint64_t error;
  uint8_t fx[512];
  uint8_t padding[16];
  uint8_t window[256];
  uint8_t spare[64];
};
_Static_assert(sizeof(struct test_case) == 1024, "layout");

#define CODE ((uint8_t *)0x200000)
#define WINDOW ((uint8_t *)0x300f00)

uint64_t out_gpr[16], out_rflags, host_rsp, code_entry = 0x200000;
uint8_t out_fx[512] __attribute__((aligned(16)));
uint32_t default_mxcsr = 0x1f80;
static volatile int trap;
static uint64_t trap_rip, trap_error;
void run_case(struct test_case *);
void leave_case(void);
void leave_trap(void);

__asm__(
    ".globl run_case, leave_case, leave_trap\n"
    "run_case:\n"
    " push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    " mov %rsp, host_rsp(%rip)\n"
    " fxrstor 176(%rdi)\n"
    " push 160(%rdi); popfq\n"
    " mov 32(%rdi), %rax; mov 40(%rdi), %rcx; mov 48(%rdi), %rdx; mov 56(%rdi), %rbx\n"
    " mov 64(%rdi), %rsp; mov 72(%rdi), %rbp; mov 80(%rdi), %rsi\n"
    " mov 96(%rdi), %r8; mov 104(%rdi), %r9; mov 112(%rdi), %r10; mov 120(%rdi), %r11\n"
    " mov 128(%rdi), %r12; mov 136(%rdi), %r13; mov 144(%rdi), %r14; mov 152(%rdi), %r15\n"
    " mov 88(%rdi), %rdi\n"
    " jmp *code_entry(%rip)\n"
    "leave_case:\n"
    " mov %rax, out_gpr(%rip); mov %rcx, out_gpr+8(%rip); mov %rdx, out_gpr+16(%rip); mov %rbx, out_gpr+24(%rip)\n"
    " mov %rsp, out_gpr+32(%rip); mov %rbp, out_gpr+40(%rip); mov %rsi, out_gpr+48(%rip); mov %rdi, out_gpr+56(%rip)\n"
    " mov %r8, out_gpr+64(%rip); mov %r9, out_gpr+72(%rip); mov %r10, out_gpr+80(%rip); mov %r11, out_gpr+88(%rip)\n"
    " mov %r12, out_gpr+96(%rip); mov %r13, out_gpr+104(%rip); mov %r14, out_gpr+112(%rip); mov %r15, out_gpr+120(%rip)\n"
    " mov host_rsp(%rip), %rsp\n"
    " pushfq; pop %rax; mov %rax, out_rflags(%rip)\n"
    " fxsave out_fx(%rip)\n"
    "leave_trap:\n"
    " push $2; popfq\n"
    " fninit; ldmxcsr default_mxcsr(%rip)\n"
    " pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    " ret\n");

static void on_signal(int number, siginfo_t *info, void *context) {
  ucontext_t *u = context;
  static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  greg_t *g = u->uc_mcontext.gregs;
  uint64_t rip = (uint64_t)g[REG_RIP];
  (void)number;
  (void)info;
  if (trap != -1 || rip < 0x200000 || rip >= 0x201000) _exit(3);
  trap = (int)g[REG_TRAPNO];
  trap_rip = rip;
  trap_error = (uint64_t)g[REG_ERR];
  for (int i = 0; i < 16; i++) out_gpr[i] = (uint64_t)g[order[i]];
  out_rflags = (uint64_t)g[REG_EFL];
  memcpy(out_fx, u->uc_mcontext.fpregs, 512);
  g[REG_RIP] = (greg_t)leave_trap;
  g[REG_RSP] = (greg_t)host_rsp;
  g[REG_EFL] = 2;
}

static void whole_read(void *to, size_t size) {
  if (fread(to, 1, size, stdin) != size) exit(4);
}
int main(void) {
  static uint8_t stack[1 << 16];
  stack_t alt = {.ss_sp = stack, .ss_size = sizeof stack};
  sigaltstack(&alt, NULL);
  struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
  const int signals[] = {SIGSEGV, SIGILL, SIGFPE, SIGBUS, SIGTRAP};
  for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++) sigaction(signals[i], &action, NULL);
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
  if (mmap(CODE, 0x1000, PROT_READ | PROT_WRITE | PROT_EXEC, flags, -1, 0) != CODE) return 5;
  if (mmap((void *)0x300000, 0x1000, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED) return 5;
  uint32_t count;
  whole_read(&count, sizeof count);
  static struct test_case c __attribute__((aligned(16)));
  for (uint32_t i = 0; i < count; i++) {
    whole_read(&c, sizeof c);
    memcpy(CODE, c.code, c.length);
    uint8_t *end = CODE + c.length;
    uint64_t target = (uint64_t)leave_case;
    memcpy(end, "\xff\x25\0\0\0\0", 6);
    memcpy(end + 6, &target, 8);
    memcpy(WINDOW, c.window, 256);
    trap = -1;
    trap_rip = 0x200000 + c.length;
    trap_error = 0;
    run_case(&c);
    c.trap = trap;
    c.rip = trap_rip;
    c.error = trap_error;
    memcpy(c.gpr, out_gpr, sizeof out_gpr);
    c.rflags = out_rflags;
    memcpy(c.fx, out_fx, 512);
    memcpy(c.window, WINDOW, 256);
    if (fwrite(&c, 1, sizeof c, stdout) != sizeof c) return 6;
  }
  return fflush(stdout) != 0;
}
