/*
 * Runs one arbitrary instruction after the other in user mode, each from a given state: see user-case.ts for the layout.
 *
 * Everything happens in one signal handler: it notes where an instruction has led to, puts the state of the next case into the
 * signal's context, with TF set, and returns. So exactly one instruction runs, wherever it jumps to, and comes back with SIGTRAP
 * or with the signal of its fault. The child that does this may make no system call but the handler's return and the exit, and
 * those from two addresses only; what an instruction calls is SIGSYS, an outcome like others. A case that does not come back
 * is given up by a timer; if one kills the child, another child goes on behind it.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

enum { CODE_BYTES = 32, WINDOW_BYTES = 512, PAGE = 4096 };
enum { SKIP = 1, COMPATIBILITY = 2 };
enum { COMPLETED = -1, RAN_AWAY = -2, DIED = -3, NOT_RUN = -4, SYSTEM_CALL = 0x100 };

struct test_case {
  uint8_t code[CODE_BYTES];
  int32_t trap;
  uint32_t options;
  uint64_t rip;
  uint64_t gpr[16];
  uint64_t rflags;
  uint64_t error;
  uint64_t fs_base, gs_base;
  uint16_t cs, ss, ds, es, fs, gs;
  uint32_t below;
  uint8_t fx[512];
  uint8_t window[WINDOW_BYTES];
  uint8_t spare[32];
};
_Static_assert(sizeof(struct test_case) == 1280, "layout");

#define CODE 0x200000ul
#define DATA 0x300000ul
#define WINDOW ((uint8_t *)DATA + PAGE - WINDOW_BYTES)
#define FRAME_MAGIC 0x46505853u

static uint8_t *code_alias; /* the code pages, where they can be written */
static struct test_case *cases;
static uint32_t count;
static volatile uint32_t *current; /* shared with the parent */
static uint32_t last_tick = -1, ticks;
static int running, fast_bases;

__asm__(".globl call_kernel, after_call, return_from_signal, after_return\n"
        "call_kernel: mov %rdi, %rax; mov %rsi, %rdi; mov %rdx, %rsi; syscall\n"
        "after_call: ret\n"
        "return_from_signal: mov $15, %eax; syscall\n"
        "after_return: ud2\n");
long call_kernel(long number, long a, long b);
void return_from_signal(void);
extern char after_call[], after_return[];

static void set_bases(uint64_t fs, uint64_t gs) {
  __asm__ volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%fs; mov %0, %%gs" ::"r"(0));
  if (fast_bases) __asm__ volatile("wrfsbase %0; wrgsbase %1" ::"r"(fs), "r"(gs));
  else {
    call_kernel(SYS_arch_prctl, 0x1002, (long)fs);
    call_kernel(SYS_arch_prctl, 0x1001, (long)gs);
  }
}
static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                              REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

/* Of the data page below the window, which is 0 before: 0 = still so. Leaves it 0. */
static uint32_t below_window(void) {
  uint32_t *w = (uint32_t *)DATA, hash = 0;
  for (unsigned i = 0; i < (PAGE - WINDOW_BYTES) / 4; i++)
    if (w[i] != 0) {
      hash = (hash ^ w[i] ^ (i << 20)) * 0x01000193u;
      w[i] = 0;
    }
  return hash;
}
static void finish(struct test_case *c, int trap, ucontext_t *u) {
  greg_t *g = u->uc_mcontext.gregs;
  uint64_t selectors = (uint64_t)g[REG_CSGSFS];
  c->trap = trap;
  c->rip = (uint64_t)g[REG_RIP];
  for (int i = 0; i < 16; i++) c->gpr[i] = (uint64_t)g[order[i]];
  c->rflags = (uint64_t)g[REG_EFL];
  c->error = (uint64_t)g[REG_ERR];
  c->cs = (uint16_t)selectors;
  c->ss = (uint16_t)(selectors >> 48);
  __asm__ volatile("mov %%ds, %0" : "=rm"(c->ds));
  __asm__ volatile("mov %%es, %0" : "=rm"(c->es));
  __asm__ volatile("mov %%fs, %0" : "=rm"(c->fs));
  __asm__ volatile("mov %%gs, %0" : "=rm"(c->gs));
  if (fast_bases) __asm__ volatile("rdfsbase %0; rdgsbase %1" : "=r"(c->fs_base), "=r"(c->gs_base));
  memcpy(c->fx, u->uc_mcontext.fpregs, 416);
  memcpy(c->window, WINDOW, WINDOW_BYTES);
  c->below = below_window();
}
static uint64_t code_at;
static void clear_code(void) {
  uint64_t room = 2 * PAGE - (code_at - CODE);
  memset(code_alias + (code_at - CODE), 0xcc, room < CODE_BYTES ? room : CODE_BYTES);
}
static void begin(const struct test_case *c, ucontext_t *u) {
  greg_t *g = u->uc_mcontext.gregs;
  uint64_t room = 2 * PAGE - (c->rip - CODE);
  code_at = c->rip;
  memcpy(code_alias + (code_at - CODE), c->code, room < CODE_BYTES ? room : CODE_BYTES);
  memcpy(WINDOW, c->window, WINDOW_BYTES);
  for (int i = 0; i < 16; i++) g[order[i]] = (greg_t)c->gpr[i];
  g[REG_RIP] = (greg_t)c->rip;
  g[REG_EFL] = (greg_t)(c->rflags | 0x100);
  const int narrow = (c->options & COMPATIBILITY) != 0;
  g[REG_CSGSFS] = (greg_t)((narrow ? 0x23 : 0x33) | 0x2bul << 48);
  uint8_t *fx = (uint8_t *)u->uc_mcontext.fpregs;
  memcpy(fx, c->fx, 416);
  uint32_t magic;
  memcpy(&magic, fx + 464, 4);
  /* x87 and SSE from the image, the rest as it is initially */
  uint64_t parts = 3;
  if (magic == FRAME_MAGIC) memcpy(fx + 512, &parts, 8);
  set_bases(c->fs_base, c->gs_base);
  /* a flat segment; the null selectors of 64-bit programs reach nothing outside 64-bit mode */
  if (narrow) __asm__ volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%fs; mov %0, %%gs" ::"r"(0x2b));
}

static void on_signal(int number, siginfo_t *info, void *context) {
  ucontext_t *u = context;
  (void)info;
  /* an instruction may have set AC, NT, ID: no alignment checks for us, and none of them in the next case, where a return keeps them */
  __asm__ volatile("pushfq; andl $~0x244000, (%%rsp); popfq" ::: "memory", "cc");
  if (number == SIGVTALRM) {
    if (!running || *current != last_tick) {
      last_tick = *current;
      ticks = 0;
    }
    if (++ticks < 10) return;
  }
  if (running) {
    int trap = (int)u->uc_mcontext.gregs[REG_TRAPNO];
    if (number == SIGSYS) trap = SYSTEM_CALL;
    else if (number == SIGVTALRM) trap = RAN_AWAY;
    else if (number == SIGTRAP && trap == 1) trap = COMPLETED;
    finish(&cases[*current], trap, u);
    clear_code();
    ++*current;
  }
  running = 1;
  while (*current < count && cases[*current].options & SKIP) cases[(*current)++].trap = NOT_RUN;
  if (*current == count) {
    set_bases(0, 0);
    call_kernel(SYS_exit_group, 0, 0);
  }
  begin(&cases[*current], u);
}

struct kernel_sigaction {
  void (*handler)(int, siginfo_t *, void *);
  unsigned long flags;
  void (*restorer)(void);
  unsigned long mask;
};
static void catch_signals(void) {
  stack_t stack = {.ss_size = 1 << 16};
  stack.ss_sp = mmap(NULL, stack.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (stack.ss_sp == MAP_FAILED || sigaltstack(&stack, NULL) != 0) _exit(5);
  const int signals[] = {SIGSEGV, SIGILL, SIGFPE, SIGBUS, SIGTRAP, SIGSYS, SIGVTALRM};
  const struct kernel_sigaction action = {on_signal, SA_SIGINFO | SA_ONSTACK | 0x04000000, return_from_signal, ~0ul};
  for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++)
    if (syscall(SYS_rt_sigaction, signals[i], &action, NULL, 8) != 0) _exit(5);
  const struct itimerval tick = {{0, 100000}, {0, 100000}};
  if (setitimer(ITIMER_VIRTUAL, &tick, NULL) != 0) _exit(5);
}
/* Two system calls by the address behind them; everything else is SIGSYS. */
static void lock(void) {
  uint64_t call = (uint64_t)after_call, back = (uint64_t)after_return;
#define LOAD(field, high) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field) + (high))
#define EQUAL(value, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(value), 0, no)
  struct sock_filter filter[] = {
      LOAD(arch, 0),
      EQUAL(AUDIT_ARCH_X86_64, 14),
      LOAD(nr, 0),
      EQUAL(SYS_rt_sigreturn, 5),
      LOAD(instruction_pointer, 0),
      EQUAL(back, 10),
      LOAD(instruction_pointer, 4),
      EQUAL(back >> 32, 8),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 1, 0),
      EQUAL(SYS_arch_prctl, 5),
      LOAD(instruction_pointer, 0),
      EQUAL(call, 3),
      LOAD(instruction_pointer, 4),
      EQUAL(call >> 32, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
  };
  const struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
  const struct rlimit none = {0, 0};
  setrlimit(RLIMIT_CORE, &none);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) _exit(7);
}
static void *shared(size_t bytes) {
  void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) _exit(5);
  return p;
}
static void whole(ssize_t (*move)(int, void *, size_t), int file, void *at, size_t size) {
  for (size_t done = 0; done < size;) {
    ssize_t n = move(file, (uint8_t *)at + done, size - done);
    if (n <= 0) _exit(4);
    done += (size_t)n;
  }
}
static ssize_t put(int file, void *from, size_t size) { return write(file, from, size); }

int main(void) {
  whole(read, 0, &count, sizeof count);
  const size_t bytes = count * sizeof(struct test_case);
  cases = shared(bytes + PAGE);
  current = shared(PAGE);
  whole(read, 0, cases, bytes);
  fast_bases = (getauxval(AT_HWCAP2) & 2) != 0;
  /* readable and executable for the instructions, writable by another address for us */
  int file = memfd_create("code", 0);
  if (file < 0 || ftruncate(file, 2 * PAGE) != 0) return 5;
  code_alias = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  const int fixed = MAP_FIXED_NOREPLACE;
  if (code_alias == MAP_FAILED ||
      mmap((void *)CODE, 2 * PAGE, PROT_READ | PROT_EXEC, MAP_SHARED | fixed, file, 0) != (void *)CODE)
    return 5;
  if (mmap((void *)DATA, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | fixed, -1, 0) != (void *)DATA)
    return 5;
  close(file);
  memset(code_alias, 0xcc, 2 * PAGE);
  while (*current < count) {
    pid_t child = fork();
    if (child < 0) return 5;
    if (child == 0) {
      catch_signals();
      lock();
      __asm__ volatile("int3");
      __builtin_unreachable();
    }
    int status;
    if (waitpid(child, &status, 0) != child) return 5;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) continue;
    if (WIFEXITED(status)) return WEXITSTATUS(status);
    cases[*current].trap = DIED;
    ++*current;
    memset(code_alias, 0xcc, 2 * PAGE);
  }
  whole(put, 1, cases, bytes);
  return 0;
}
