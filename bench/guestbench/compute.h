/* guestbench: workloads that compute. Part of guestbench.c. */

/* ---------------------------------------------------------------- integer */

static NOINLINE uint32_t w_sieve(uint32_t iters)
{
    enum { N = 1 << 18 };
    static uint8_t flags[N];
    uint32_t h = 1;
    for (uint32_t it = 0; it < iters; it++) {
        memset(flags, 1, N);
        uint32_t count = 0;
        for (uint32_t i = 2; i < N; i++) {
            if (!flags[i])
                continue;
            count++;
            for (uint32_t j = i + i; j < N; j += i)
                flags[j] = 0;
        }
        h = mix(h, count);
    }
    return h;
}

static NOINLINE uint32_t w_matmul(uint32_t iters)
{
    enum { N = 96 };
    static int32_t a[N][N], b[N][N], c[N][N];
    uint32_t h = 1;
    rng_state = 12345;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            a[i][j] = (int32_t)(rng() & 0xffff);
            b[i][j] = (int32_t)(rng() & 0xffff);
        }
    for (uint32_t it = 0; it < iters; it++) {
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++) {
                uint32_t s = 0;
                for (int k = 0; k < N; k++)
                    s += (uint32_t)a[i][k] * (uint32_t)b[k][j];
                c[i][j] = (int32_t)s;
            }
        h = mix(h, (uint32_t)c[it % N][(it * 7) % N]);
        a[it % N][(it * 3) % N] ^= (int32_t)(h & 0xff);
    }
    return h;
}

static NOINLINE uint32_t w_crc(uint32_t iters)
{
    enum { N = 1 << 16 };
    static uint32_t table[256];
    static uint8_t buf[N];
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = (c & 1) ? 0xedb88320u ^ (c >> 1) : c >> 1;
        table[i] = c;
    }
    rng_state = 777;
    for (int i = 0; i < N; i++)
        buf[i] = (uint8_t)rng();
    uint32_t crc = 0xffffffffu;
    for (uint32_t it = 0; it < iters; it++)
        for (int i = 0; i < N; i++)
            crc = table[(crc ^ buf[i]) & 0xff] ^ (crc >> 8);
    return ~crc;
}

struct node {
    struct node *next;
    int32_t key;
    int32_t data;
};

static struct node *merge_sort(struct node *list)
{
    /* bottom-up merge sort of a singly linked list */
    for (int size = 1;; size *= 2) {
        struct node *p = list, *tail = NULL;
        int merges = 0;
        list = NULL;
        while (p) {
            merges++;
            struct node *q = p;
            int ps = 0, qs = size;
            while (ps < size && q) {
                ps++;
                q = q->next;
            }
            while (ps > 0 || (qs > 0 && q)) {
                struct node *e;
                if (ps == 0) {
                    e = q, q = q->next, qs--;
                } else if (qs == 0 || !q || p->key <= q->key) {
                    e = p, p = p->next, ps--;
                } else {
                    e = q, q = q->next, qs--;
                }
                if (tail)
                    tail->next = e;
                else
                    list = e;
                tail = e;
            }
            p = q;
        }
        tail->next = NULL;
        if (merges <= 1)
            return list;
    }
}

static NOINLINE uint32_t w_list(uint32_t iters)
{
    enum { N = 2000 };
    static struct node pool[N];
    uint32_t h = 1;
    rng_state = 4242;
    for (uint32_t it = 0; it < iters; it++) {
        for (int i = 0; i < N; i++) {
            pool[i].key = (int32_t)(rng() & 0xffffff);
            pool[i].data = i;
            pool[i].next = i + 1 < N ? &pool[i + 1] : NULL;
        }
        struct node *l = merge_sort(pool);
        /* reverse, then walk */
        struct node *r = NULL;
        while (l) {
            struct node *n = l->next;
            l->next = r;
            r = l;
            l = n;
        }
        int pos = 0;
        for (; r; r = r->next)
            if ((pos++ & 15) == 0)
                h = mix(h, (uint32_t)(r->key ^ r->data));
    }
    return h;
}

static NOINLINE uint32_t w_state(uint32_t iters)
{
    /* scan number-like tokens, counting how each ends */
    enum { N = 1 << 15 };
    static char text[N + 1];
    static const char alphabet[] = "0123456789012345+-..eE,, ,x";
    enum st { START, INT, S1, DEC, EXP, S2, SCI, BAD, NST };
    uint32_t ends[NST] = {0};
    rng_state = 99;
    for (int i = 0; i < N; i++)
        text[i] = alphabet[rng() % (sizeof alphabet - 1)];
    text[N] = 0;
    for (uint32_t it = 0; it < iters; it++) {
        enum st s = START;
        for (const char *p = text; *p; p++) {
            char c = *p;
            if (c == ',') {
                ends[s]++;
                s = START;
                continue;
            }
            int digit = c >= '0' && c <= '9';
            switch (s) {
            case START:
                s = digit ? INT : (c == '+' || c == '-') ? S1 : c == '.' ? DEC : BAD;
                break;
            case S1:
                s = digit ? INT : c == '.' ? DEC : BAD;
                break;
            case INT:
                s = digit ? INT : c == '.' ? DEC : (c == 'e' || c == 'E') ? EXP : BAD;
                break;
            case DEC:
                s = digit ? DEC : (c == 'e' || c == 'E') ? EXP : BAD;
                break;
            case EXP:
                s = digit ? SCI : (c == '+' || c == '-') ? S2 : BAD;
                break;
            case S2:
            case SCI:
                s = digit ? SCI : BAD;
                break;
            default:
                break;
            }
        }
        ends[s]++;
    }
    uint32_t h = 1;
    for (int i = 0; i < NST; i++)
        h = mix(h, ends[i]);
    return h;
}

/* 64-bit arithmetic: what a 32-bit guest has to do in pieces */
static NOINLINE uint32_t w_int64(uint32_t iters)
{
    uint64_t a = 0x9e3779b97f4a7c15ull, b = 0xbf58476d1ce4e5b9ull, c = 1;
    for (uint32_t it = 0; it < iters; it++)
        for (int i = 0; i < 1000; i++) {
            a = (a ^ (a >> 30)) * 0xbf58476d1ce4e5b9ull;
            b += a;
            b = (b << 27) | (b >> 37);
            c ^= b;
            if ((i & 63) == 0)
                c = c / ((a >> 40) | 1) + (c % ((b & 0xffff) | 1));
        }
    return (uint32_t)(a ^ (a >> 32) ^ b ^ (b >> 32) ^ c ^ (c >> 32));
}

/* ----------------------------------------------------------------- sha256 */

static const uint32_t K256[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static inline uint32_t ror(uint32_t x, int n)
{
    return (x >> n) | (x << (32 - n));
}

static NOINLINE void sha_block(uint32_t st[8], const uint8_t *p)
{
    uint32_t w[64];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t s0 = ror(w[i - 15], 7) ^ ror(w[i - 15], 18) ^ (w[i - 15] >> 3);
        uint32_t s1 = ror(w[i - 2], 17) ^ ror(w[i - 2], 19) ^ (w[i - 2] >> 10);
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    uint32_t a = st[0], b = st[1], c = st[2], d = st[3], e = st[4], f = st[5], g = st[6], h = st[7];
    for (int i = 0; i < 64; i++) {
        uint32_t t1 = h + (ror(e, 6) ^ ror(e, 11) ^ ror(e, 25)) + ((e & f) ^ (~e & g)) + K256[i] + w[i];
        uint32_t t2 = (ror(a, 2) ^ ror(a, 13) ^ ror(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    st[0] += a, st[1] += b, st[2] += c, st[3] += d, st[4] += e, st[5] += f, st[6] += g, st[7] += h;
}

static NOINLINE uint32_t w_sha256(uint32_t iters)
{
    enum { N = 1 << 20 };
    uint8_t *buf = alloc(N);
    rng_state = 31337;
    for (int i = 0; i < N; i++)
        buf[i] = (uint8_t)rng();
    uint32_t st[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    start();
    for (uint32_t it = 0; it < iters; it++)
        for (int i = 0; i < N; i += 64)
            sha_block(st, buf + i);
    munmap(buf, N);
    return st[0] ^ st[7];
}

/* ----------------------------------------------------------------- memory */

#define BIG (64u << 20)

static NOINLINE uint32_t w_memcpy(uint32_t iters)
{
    uint8_t *buf = alloc(BIG);
    memset(buf, 0x5a, BIG);
    uint32_t h = 1;
    start();
    for (uint32_t it = 0; it < iters; it++) {
        buf[it & 4095] = (uint8_t)it;
        if (it & 1)
            memcpy(buf, buf + BIG / 2, BIG / 2);
        else
            memcpy(buf + BIG / 2, buf, BIG / 2);
        h = mix(h, buf[BIG / 2 + (it & 4095)]);
    }
    munmap(buf, BIG);
    return h;
}

static NOINLINE uint32_t w_memset(uint32_t iters)
{
    uint8_t *buf = alloc(BIG);
    memset(buf, 1, BIG);
    uint32_t h = 1;
    start();
    for (uint32_t it = 0; it < iters; it++) {
        memset(buf, (int)(it + 3), BIG);
        h = mix(h, buf[(it * 4099u) % BIG]);
    }
    munmap(buf, BIG);
    return h;
}

/* follow one random cycle through every cache line of an area */
static uint32_t chase_in(uint32_t bytes, uint32_t hops)
{
    enum { STEP = 64 / 4 };
    uint32_t n = bytes / 64;
    uint32_t *next = alloc(bytes);
    for (uint32_t i = 0; i < n; i++)
        next[i * STEP] = i * STEP;
    rng_state = 2024;
    for (uint32_t i = n - 1; i > 0; i--) { /* Sattolo: a single cycle */
        uint32_t j = rng() % i;
        uint32_t t = next[i * STEP];
        next[i * STEP] = next[j * STEP];
        next[j * STEP] = t;
    }
    start();
    uint32_t p = 0;
    for (uint32_t i = 0; i < hops; i++)
        p = next[p];
    munmap(next, bytes);
    return p;
}

static NOINLINE uint32_t w_chase64m(uint32_t iters)
{
    return chase_in(BIG, iters * 1000u);
}

static NOINLINE uint32_t w_chase256k(uint32_t iters)
{
    return chase_in(256u << 10, iters * 1000u);
}

/* --------------------------------------------------------- floating point */

static uint32_t dbits(double d)
{
    uint64_t u;
    memcpy(&u, &d, 8);
    return (uint32_t)(u ^ (u >> 32));
}

static NOINLINE uint32_t w_nbody(uint32_t iters)
{
    enum { N = 5 };
    static const double init[N][7] = {
        {0, 0, 0, 0, 0, 0, 39.5},
        {4.8, -1.2, -0.1, 0.6, 2.8, -0.02, 0.0377},
        {8.3, 4.1, -0.4, -1.0, 1.8, 0.008, 0.0113},
        {12.9, -15.1, -0.2, 1.1, 0.9, -0.01, 0.0017},
        {15.4, -25.9, 0.2, 1.0, 0.6, -0.03, 0.0020},
    };
    double b[N][7];
    memcpy(b, init, sizeof b);
    for (uint32_t it = 0; it < iters * 100; it++) {
        const double dt = 0.01;
        for (int i = 0; i < N; i++)
            for (int j = i + 1; j < N; j++) {
                double dx = b[i][0] - b[j][0], dy = b[i][1] - b[j][1], dz = b[i][2] - b[j][2];
                double d2 = dx * dx + dy * dy + dz * dz;
                double mag = dt / (d2 * __builtin_sqrt(d2));
                b[i][3] -= dx * b[j][6] * mag;
                b[i][4] -= dy * b[j][6] * mag;
                b[i][5] -= dz * b[j][6] * mag;
                b[j][3] += dx * b[i][6] * mag;
                b[j][4] += dy * b[i][6] * mag;
                b[j][5] += dz * b[i][6] * mag;
            }
        for (int i = 0; i < N; i++)
            for (int k = 0; k < 3; k++)
                b[i][k] += dt * b[i][k + 3];
    }
    uint32_t h = 1;
    for (int i = 0; i < N; i++)
        for (int k = 0; k < 6; k++)
            h = mix(h, dbits(b[i][k]));
    return h;
}

static NOINLINE uint32_t w_mandel(uint32_t iters)
{
    enum { W = 64, H = 48, MAXI = 200 };
    uint32_t h = 1;
    for (uint32_t it = 0; it < iters; it++) {
        double zoom = 1.0 + it * 0.001;
        for (int y = 0; y < H; y++)
            for (int x = 0; x < W; x++) {
                double cr = (x * 3.0 / W - 2.1) / zoom, ci = (y * 2.4 / H - 1.2) / zoom;
                double zr = 0, zi = 0;
                int n = 0;
                while (n < MAXI && zr * zr + zi * zi < 4.0) {
                    double t = zr * zr - zi * zi + cr;
                    zi = 2 * zr * zi + ci;
                    zr = t;
                    n++;
                }
                h = mix(h, (uint32_t)n);
            }
    }
    return h;
}

/* ------------------------------------------------------------ interpreter */

enum op { PUSH, ADD, SUB, MUL, XOR, DUP, SWAP, LOAD, STORE, LT, JZ, JMP, SHR, AND, CALLV, HALT };

static NOINLINE uint32_t vm_add3(uint32_t x)
{
    return x + 3;
}
static NOINLINE uint32_t vm_rot(uint32_t x)
{
    return x << 5 | x >> 27;
}
static uint32_t (*volatile vm_table[2])(uint32_t) = {vm_add3, vm_rot};

static NOINLINE uint32_t vm_run(const int32_t *code, uint32_t arg)
{
    uint32_t stack[32], var[8] = {arg};
    int sp = 0, pc = 0;
    for (;;) {
        switch ((enum op)code[pc++]) {
        case PUSH: stack[sp++] = (uint32_t)code[pc++]; break;
        case ADD: sp--; stack[sp - 1] += stack[sp]; break;
        case SUB: sp--; stack[sp - 1] -= stack[sp]; break;
        case MUL: sp--; stack[sp - 1] *= stack[sp]; break;
        case XOR: sp--; stack[sp - 1] ^= stack[sp]; break;
        case AND: sp--; stack[sp - 1] &= stack[sp]; break;
        case SHR: sp--; stack[sp - 1] >>= stack[sp] & 31; break;
        case LT: sp--; stack[sp - 1] = stack[sp - 1] < stack[sp]; break;
        case DUP: stack[sp] = stack[sp - 1]; sp++; break;
        case SWAP: { uint32_t t = stack[sp - 1]; stack[sp - 1] = stack[sp - 2]; stack[sp - 2] = t; break; }
        case LOAD: stack[sp++] = var[code[pc++]]; break;
        case STORE: var[code[pc++]] = stack[--sp]; break;
        case JZ: { int t = code[pc++]; if (!stack[--sp]) pc = t; break; }
        case JMP: pc = code[pc]; break;
        case CALLV: stack[sp - 1] = vm_table[stack[sp - 1] & 1](stack[sp - 1]); break;
        case HALT: return stack[sp - 1];
        }
    }
}

static NOINLINE uint32_t w_interp(uint32_t iters)
{
    /* for (i = 0; i < 1000; i++) { acc = call(acc * 31 + i ^ (acc >> 7)); if (acc & 4) acc ^= i; } */
    /* the program is assembled here so that jump targets are never wrong */
    int32_t c[64];
    int n = 0;
#define E(x) c[n++] = (x)
    E(PUSH), E(0), E(STORE), E(1);
    int top = n;
    E(LOAD), E(1), E(PUSH), E(1000), E(LT), E(JZ);
    int fix_end = n++;
    E(LOAD), E(0), E(PUSH), E(31), E(MUL), E(LOAD), E(1), E(ADD);
    E(LOAD), E(0), E(PUSH), E(7), E(SHR), E(XOR), E(CALLV), E(STORE), E(0);
    E(LOAD), E(0), E(PUSH), E(4), E(AND), E(JZ);
    int fix_if = n++;
    E(LOAD), E(0), E(LOAD), E(1), E(XOR), E(STORE), E(0);
    c[fix_if] = n;
    E(LOAD), E(1), E(PUSH), E(1), E(ADD), E(STORE), E(1), E(JMP), E(top);
    c[fix_end] = n;
    E(LOAD), E(0), E(HALT);
#undef E
    uint32_t h = 1;
    for (uint32_t it = 0; it < iters; it++)
        h = mix(h, vm_run(c, it));
    return h;
}

/* ------------------------------------------------------------------- lz77 */

static NOINLINE uint32_t w_lz77(uint32_t iters)
{
    enum { N = 1 << 20, HB = 15 };
    static const char *words[] = {"the ", "kernel ", "page ", "fault ", "at ", "address ", "of ", "process ",
                                  "memory ", "driver ", "virtual ", "machine ", "bus ", "channel ", "ring ", "buffer\n"};
    uint8_t *in = alloc(N), *out = alloc(N * 2), *back = alloc(N);
    static int32_t head[1 << HB], prev[65536];
    uint32_t h = 1;
    rng_state = 5150;
    int n = 0;
    while (n < N) {
        uint32_t r = rng();
        const char *w = words[(r >> 8) & 15 & ((r & 1) ? 15 : 3)];
        if ((r & 0xf0) == 0) {
            in[n++] = (uint8_t)('a' + (r >> 20) % 26);
            continue;
        }
        for (; *w && n < N; w++)
            in[n++] = (uint8_t)*w;
    }
    start();
    for (uint32_t it = 0; it < iters; it++) {
        memset(head, 0xff, sizeof head);
        in[(it * 7919u) % N] ^= 1;
        int o = 0, i = 0, lit = 0, litpos = 0;
        /* tokens: 0..127 = that many + 1 literals; 128 + len-4 (max 127), dist16 */
        while (i < N) {
            int best = 0, bestd = 0;
            if (i + 4 <= N) {
                uint32_t v;
                memcpy(&v, in + i, 4);
                uint32_t k = (v * 2654435761u) >> (32 - HB);
                int cand = head[k], chain = 16;
                int max = N - i < 131 ? N - i : 131;
                while (cand >= 0 && i - cand < 65536 && chain-- > 0) {
                    int l = 0;
                    while (l < max && in[cand + l] == in[i + l])
                        l++;
                    if (l > best) {
                        best = l;
                        bestd = i - cand;
                        if (l == max)
                            break;
                    }
                    int c2 = prev[cand & 65535];
                    if (c2 >= cand)
                        break;
                    cand = c2;
                }
                prev[i & 65535] = head[k];
                head[k] = i;
            }
            if (best >= 4) {
                lit = 0;
                out[o++] = (uint8_t)(128 + best - 4);
                out[o++] = (uint8_t)bestd;
                out[o++] = (uint8_t)(bestd >> 8);
                for (int e = i + best, j = i + 1; j < e && j + 4 <= N; j++) {
                    uint32_t v;
                    memcpy(&v, in + j, 4);
                    uint32_t k = (v * 2654435761u) >> (32 - HB);
                    prev[j & 65535] = head[k];
                    head[k] = j;
                }
                i += best;
            } else {
                if (lit == 0 || lit == 128) {
                    litpos = o++;
                    lit = 0;
                }
                out[litpos] = (uint8_t)lit;
                lit++;
                out[o++] = in[i++];
            }
        }
        /* decompress and compare */
        int p = 0, q = 0;
        while (p < o) {
            int t = out[p++];
            if (t < 128) {
                for (int k = 0; k <= t; k++)
                    back[q++] = out[p++];
            } else {
                int d = out[p] | out[p + 1] << 8;
                p += 2;
                for (int k = 0; k < t - 124; k++, q++)
                    back[q] = back[q - d];
            }
        }
        if (q != N || memcmp(in, back, N)) {
            fprintf(stderr, "lz77: round trip differs\n");
            return 0xbad;
        }
        h = mix(h, (uint32_t)o);
    }
    munmap(in, N);
    munmap(out, N * 2);
    munmap(back, N);
    return h;
}
