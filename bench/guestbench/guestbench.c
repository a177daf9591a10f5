/*
 * guestbench - the workloads a small Linux VM is used for, one program.
 *
 * Runs the same way natively and as a static binary inside a guest. For each
 * workload it prints
 *
 *   BEGIN <name>
 *   BENCH <name> group=<g> iters=<n> secs=<s> cpu=<s> sum=<8 hex digits>
 *
 * secs is CLOCK_MONOTONIC of the system it runs on (the guest's clock in a
 * guest), cpu what the program and its children computed by that system's
 * account; a host that timestamps the two lines gets the wall time as well, and
 * so can tell a guest clock that drifts. sum must be the same everywhere: a
 * different one is an emulation bug. Group "sys" sums count operations done.
 *
 * usage: guestbench [-d DIV] [-x MUL] [-l] [name-or-group ...]
 *   -d DIV  divide every iteration count by DIV (slow emulators)
 *   -x MUL  multiply every iteration count by MUL
 *   -l      list workloads
 *
 * With DIV > 1 the sums of workloads that depend on the count change; compare
 * them with a native run at the same DIV.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))

static double now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* Seconds that this process and the children it has waited for computed. */
static double computed(void)
{
    double secs = 0;
    for (int who = RUSAGE_CHILDREN; who <= RUSAGE_SELF; who++) {
        struct rusage u;
        getrusage(who, &u);
        secs += (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
    }
    return secs;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* Starts the clock of the current workload. main calls it, and a workload with a
 * costly setup calls it again after that: the last BEGIN counts. */
static const char *cur_name;
static double cur_start, cur_computed;
static void start(void)
{
    printf("BEGIN %s\n", cur_name);
    cur_computed = computed();
    cur_start = now();
}

static uint32_t rng_state;
static uint32_t rng(void)
{
    uint32_t x = rng_state;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return rng_state = x;
}

static uint32_t mix(uint32_t h, uint32_t v)
{
    h ^= v;
    h *= 0x01000193u;
    return h ^ (h >> 15);
}

static void *alloc(size_t n)
{
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        die("mmap");
    return p;
}

/* one translation unit, so that the code made from a workload does not depend on where it stands */
#include "compute.h"
#include "system.h"

struct bench {
    const char *name, *group;
    uint32_t (*fn)(uint32_t);
    uint32_t iters;
};

static const struct bench benches[] = {
    {"sieve", "int", w_sieve, 300},
    {"matmul", "int", w_matmul, 800},
    {"crc32", "int", w_crc, 1300},
    {"list", "int", w_list, 1200},
    {"state", "int", w_state, 2500},
    {"int64", "int", w_int64, 100000},
    {"sha256", "sha", w_sha256, 60},
    {"memcpy", "mem", w_memcpy, 60},
    {"memset", "mem", w_memset, 60},
    {"chase64m", "mem", w_chase64m, 3000},
    {"chase256k", "mem", w_chase256k, 60000},
    {"nbody", "fp", w_nbody, 40000},
    {"mandel", "fp", w_mandel, 300},
    {"interp", "vm", w_interp, 8000},
    {"lz77", "lz", w_lz77, 12},
    {"getpid", "sys", w_getpid, 2000},
    {"pipe", "sys", w_pipe, 500},
    {"forkexec", "sys", w_forkexec, 500},
    {"fault", "sys", w_fault, 700},
    {"fileio", "sys", w_fileio, 40000},
};

int main(int argc, char **argv)
{
    uint32_t div = 1, mul = 1;
    int list = 0, i = 1;
    if (argc > 1 && !strcmp(argv[1], "--nop"))
        return 0;
    for (; i < argc && argv[i][0] == '-'; i++) {
        if (!strcmp(argv[i], "-d") && i + 1 < argc)
            div = (uint32_t)strtoul(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "-x") && i + 1 < argc)
            mul = (uint32_t)strtoul(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "-l"))
            list = 1;
        else {
            fprintf(stderr, "usage: guestbench [-d DIV] [-x MUL] [-l] [name-or-group ...]\n");
            return 2;
        }
    }
    if (!div)
        div = 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!list)
        printf("GUESTBENCH bits=%d div=%u mul=%u\n", (int)sizeof(void *) * 8, div, mul);
    for (size_t b = 0; b < sizeof benches / sizeof *benches; b++) {
        int want = i >= argc;
        for (int k = i; k < argc; k++)
            want |= !strcmp(argv[k], benches[b].name) || !strcmp(argv[k], benches[b].group);
        if (!want)
            continue;
        uint32_t n = benches[b].iters * mul / div;
        if (!n)
            n = 1;
        if (list) {
            printf("%-10s %-4s %u\n", benches[b].name, benches[b].group, n);
            continue;
        }
        cur_name = benches[b].name;
        start();
        uint32_t sum = benches[b].fn(n);
        double secs = now() - cur_start;
        double cpu = computed() - cur_computed;
        printf("BENCH %s group=%s iters=%u secs=%.6f cpu=%.6f sum=%08x\n", cur_name, benches[b].group, n, secs, cpu, sum);
    }
    if (!list)
        printf("GUESTBENCH done\n");
    return 0;
}
