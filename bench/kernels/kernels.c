/* Seven integer kernels for measuring the processor: compiled once for the host and once as a flat image for the guest. */
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;
#define NOINLINE __attribute__((noinline))

static u8 flags[2 << 20];
NOINLINE u64 k_sieve(u64 n) {
  u64 total = 0;
  for (u64 r = 0; r < n; r++) {
    for (u64 i = 0; i < sizeof flags; i++) flags[i] = 1;
    for (u64 i = 2; i * i < sizeof flags; i++)
      if (flags[i])
        for (u64 j = i * i; j < sizeof flags; j += i) flags[j] = 0;
    for (u64 i = 2; i < sizeof flags; i++) total += flags[i];
  }
  return total;
}
static u32 table[256];
static u8 text[1 << 16];
static void fill(void) {
  u32 x = 12345;
  for (u32 i = 0; i < sizeof text; i++) { x = x * 1664525 + 1013904223; text[i] = x >> 24; }
}
NOINLINE u64 k_crc(u64 n) {
  fill();
  for (u32 i = 0; i < 256; i++) {
    u32 c = i;
    for (int k = 0; k < 8; k++) c = c & 1 ? (c >> 1) ^ 0xedb88320 : c >> 1;
    table[i] = c;
  }
  u32 c = ~0u;
  for (u64 r = 0; r < n; r++)
    for (u32 i = 0; i < sizeof text; i++) c = table[(c ^ text[i]) & 255] ^ (c >> 8);
  return c;
}
NOINLINE u64 fib(u64 n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
NOINLINE u64 k_fib(u64 n) { return fib(n); }
static u64 heap[1 << 15];
NOINLINE u64 k_heap(u64 n) {
  u64 sum = 0, x = 88172645463325252UL;
  const long size = sizeof heap / 8;
  for (u64 r = 0; r < n; r++) {
    for (long i = 0; i < size; i++) { x ^= x << 13; x ^= x >> 7; x ^= x << 17; heap[i] = x; }
    for (long start = size / 2 - 1, end = size; end > 1;) {
      long root;
      if (start >= 0) root = start--;
      else { end--; u64 t = heap[end]; heap[end] = heap[0]; heap[0] = t; root = 0; }
      u64 v = heap[root];
      for (;;) {
        long child = 2 * root + 1;
        if (child >= end) break;
        if (child + 1 < end && heap[child] < heap[child + 1]) child++;
        if (heap[child] <= v) break;
        heap[root] = heap[child];
        root = child;
      }
      heap[root] = v;
    }
    sum = sum * 31 + heap[7] + heap[size / 2];
  }
  return sum;
}
static const u32 K[64] = {
  0x428a2f98,0x71374491,0xb5c0fbcf,0xe9b5dba5,0x3956c25b,0x59f111f1,0x923f82a4,0xab1c5ed5,0xd807aa98,0x12835b01,0x243185be,0x550c7dc3,0x72be5d74,0x80deb1fe,0x9bdc06a7,0xc19bf174,
  0xe49b69c1,0xefbe4786,0x0fc19dc6,0x240ca1cc,0x2de92c6f,0x4a7484aa,0x5cb0a9dc,0x76f988da,0x983e5152,0xa831c66d,0xb00327c8,0xbf597fc7,0xc6e00bf3,0xd5a79147,0x06ca6351,0x14292967,
  0x27b70a85,0x2e1b2138,0x4d2c6dfc,0x53380d13,0x650a7354,0x766a0abb,0x81c2c92e,0x92722c85,0xa2bfe8a1,0xa81a664b,0xc24b8b70,0xc76c51a3,0xd192e819,0xd6990624,0xf40e3585,0x106aa070,
  0x19a4c116,0x1e376c08,0x2748774c,0x34b0bcb5,0x391c0cb3,0x4ed8aa4a,0x5b9cca4f,0x682e6ff3,0x748f82ee,0x78a5636f,0x84c87814,0x8cc70208,0x90befffa,0xa4506ceb,0xbef9a3f7,0xc67178f2};
#define ROR(x, n) (((x) >> (n)) | ((x) << (32 - (n))))
NOINLINE static void block(u32 *h, const u8 *p) {
  u32 w[64];
  for (int i = 0; i < 16; i++) w[i] = p[4 * i] << 24 | p[4 * i + 1] << 16 | p[4 * i + 2] << 8 | p[4 * i + 3];
  for (int i = 16; i < 64; i++) {
    u32 a = w[i - 15], b = w[i - 2];
    w[i] = w[i - 16] + (ROR(a, 7) ^ ROR(a, 18) ^ a >> 3) + w[i - 7] + (ROR(b, 17) ^ ROR(b, 19) ^ b >> 10);
  }
  u32 s[8];
  for (int i = 0; i < 8; i++) s[i] = h[i];
  for (int i = 0; i < 64; i++) {
    u32 t1 = s[7] + (ROR(s[4], 6) ^ ROR(s[4], 11) ^ ROR(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) + K[i] + w[i];
    u32 t2 = (ROR(s[0], 2) ^ ROR(s[0], 13) ^ ROR(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
    for (int k = 7; k > 0; k--) s[k] = s[k - 1];
    s[4] += t1;
    s[0] = t1 + t2;
  }
  for (int i = 0; i < 8; i++) h[i] += s[i];
}
NOINLINE u64 k_sha(u64 n) {
  fill();
  u32 h[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  for (u64 r = 0; r < n; r++)
    for (u32 i = 0; i + 64 <= sizeof text; i += 64) block(h, text + i);
  return (u64)h[0] << 32 | h[7];
}
static const u8 program[] = {0, 10, 1, 3, 2, 4, 7, 5, 1, 6, 3, 0, 2, 5, 4, 1, 3, 6, 7, 2, 8};
NOINLINE u64 k_vm(u64 n) {
  u64 a = 1, b = 2, c = 3, steps = 0;
  for (u64 r = 0; r < n; r++) {
    const u8 *p = program;
    for (;;) {
      steps++;
      switch (*p++) {
        case 0: a += b; break;
        case 1: b ^= a; break;
        case 2: c += a & 0xff; break;
        case 3: a = a * 5 + 1; break;
        case 4: b -= c; break;
        case 5: c ^= b >> 3; break;
        case 6: a = (a << 7) | (a >> 57); break;
        case 7: if (c & 1) b += 3; break;
        case 8: goto out;
        case 9: a ^= 7; break;
        default: c -= 9; break;
      }
    }
  out:;
  }
  return a ^ b ^ c ^ steps;
}
NOINLINE u64 k_hash(u64 n) {
  fill();
  u64 h = 14695981039346656037UL;
  for (u64 r = 0; r < n; r++)
    for (u32 i = 0; i < sizeof text; i++) h = (h ^ text[i]) * 1099511628211UL;
  return h;
}
u64 run(u64 which, u64 n) {
  switch (which) {
    case 0: return k_sieve(n);
    case 1: return k_crc(n);
    case 2: return k_fib(n);
    case 3: return k_heap(n);
    case 4: return k_sha(n);
    case 5: return k_vm(n);
    default: return k_hash(n);
  }
}
#ifdef NATIVE
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
int main(int argc, char **argv) {
  u64 which = strtoul(argv[1], 0, 0), n = strtoul(argv[2], 0, 0);
  struct timespec a, b;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
  u64 r = run(which, n);
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
  printf("%lu %.6f\n", r, (b.tv_sec - a.tv_sec) + (b.tv_nsec - a.tv_nsec) * 1e-9);
}
#else
__attribute__((section(".start"), naked)) void _start(void) { __asm__("call run\n hlt"); }
#endif
