/** Code that changes under the processor: by itself, through another mapping, from outside, across pages, and when the record arena is full. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ARENA_BYTES, Vp } from "../../src/cpu/layout.js";
import { CODE, SystemMachine } from "./system-machine.js";

const pte = (page: number): number => 0x10000 + (page >> 12) * 8;
/** `mov eax, imm32` is b8 and the immediate. */
const immediate = (label: string): string => `[rel ${label} + 1]`;

test("a store to the next instruction, to one further on, and to the same line behind a jump", () => {
  const m = new SystemMachine();
  m.load(`
    mov ecx, 3
    again: mov dword ${immediate("next")}, ecx
    next: mov eax, 0x7777
    add ebx, eax
    mov dword ${immediate("later")}, 100
    nop
    nop
    later: mov eax, 0x7777
    add ebx, eax
    dec ecx
    jnz again
    hlt`);
  m.level(0);
  m.set({ rbx: 0 });
  m.run();
  assert.equal(m.number("rbx"), 3 + 2 + 1 + 300);
  // the same program again, its code now being known and changed back
  m.level(0);
  m.set({ rbx: 0 });
  m.run();
  assert.equal(m.number("rbx"), 306);
});

test("a locked store to the next instruction is done once, also at the end of a page", () => {
  for (const [name, store, at] of [
    ["lock add", `lock add dword ${immediate("next")}, 5`, "align 64"],
    ["xchg", `mov edx, 12\nxchg ${immediate("next")}, edx`, "align 64"],
    // its last byte is the page's: what is behind it is the next page's
    [
      "lock add, page",
      `lock add dword ${immediate("next")}, 5`,
      "times 4096 - (locked.end - locked) - ($ - $$) db 0x90",
    ],
  ] as const) {
    const m = new SystemMachine();
    m.load(`jmp locked\n${at}\nlocked: ${store}\n.end:\nnext: mov eax, 7\nhlt`);
    m.level(0);
    assert.equal(m.run().vector, -1, name);
    assert.equal(m.number("rax"), 12, name);
  }
});

test("a store over the instruction that one arm would run behind it", () => {
  // each is one of isa/sequences.ts
  const cases: readonly [string, string, string][] = [
    // the first 8 bytes at `next` become `mov rbx, rdx` and nops
    ["store, mov", "mov [rel next], rax", "mov rbx, rcx"],
    ["store, store", "mov [rel next], rax", "mov [rel scratch], rcx"],
    ["push, mov", "lea rsp, [rel next + 8]\npush rax", "mov rbx, rcx"],
    ["push, push", "lea rsp, [rel next + 8]\npush rax", "push rcx"],
    // one byte: the immediate of the compare
    ["mov, add, byte store, compare", "mov ebp, edi\nadd ebp, edi\nmov byte [r8 + rsi], 9", "cmp edi, 0x7f\njbe small"],
  ];
  for (const [name, store, next] of cases) {
    const m = new SystemMachine();
    m.load(
      `lea r8, [rel next]\nmov esi, 2\nmov rbx, 0\nmov rax, [rel code]\nmov rcx, 1\nmov rdx, 2\nmov edi, 20\n` +
        `jmp start\nalign 64\nstart: ${store}\nnext: ${next}\ntimes 8 nop\nhlt\nsmall: mov ebx, 3\nhlt\nalign 16\n` +
        "code: mov rbx, rdx\ntimes 8 nop\nscratch: dq 0",
    );
    m.level(0);
    assert.equal(m.run().vector, -1, name);
    assert.equal(m.number("rbx"), name.includes("compare") ? 0 : 2, name);
  }
});

test("an instruction that overwrites itself has its effect once; the new one runs at the next visit", () => {
  const m = new SystemMachine();
  // the store replaces its own first bytes by "inc ebx; nop ..." (10 bytes long)
  m.load(
    "mov edx, 2\nagain: mov dword [rel again], 0x9090c3ff\nn: dec edx\njz end\nmov dword [rel again + 4], 0x90909090\nmov word [rel again + 8], 0x9090\njmp again\nend: hlt",
  );
  m.level(0);
  m.set({ rbx: 0 });
  m.run();
  assert.equal(m.number("rbx"), 1);
});

test("read-modify-write, strings, pushes and vector stores over code", () => {
  const m = new SystemMachine();
  const stores: readonly [string, string, number][] = [
    ["add", "add dword [rel f + 1], 5", 12],
    ["xchg", "mov eax, 12\nxchg [rel f + 1], eax", 12],
    ["lock cmpxchg", "mov eax, 7\nmov edx, 12\nlock cmpxchg [rel f + 1], edx", 12],
    ["movups", "movups xmm0, [rel code]\nmovups [rel f], xmm0", 12],
    ["rep movsb", "lea rsi, [rel code]\nlea rdi, [rel f]\nmov ecx, 16\nrep movsb", 12],
    ["rep stosb", "lea rdi, [rel f + 1]\nmov ecx, 1\nmov al, 12\nrep stosb", 12],
    ["movsq", "lea rsi, [rel code]\nlea rdi, [rel f]\nmovsq", 12],
    ["push", "mov rbp, rsp\nlea rsp, [rel f + 8]\npush qword [rel code]\nmov rsp, rbp", 12],
    ["bts", "bts dword [rel f + 1], 3", 15],
    [
      "cmpxchg8b",
      "mov rax, [rel f]\nmov rdx, rax\nshr rdx, 32\nmov rbx, [rel code]\nmov rcx, rbx\nshr rcx, 32\ncmpxchg8b [rel f]",
      12,
    ],
    ["fstp", "fld tword [rel code]\nfstp tword [rel f]", 12],
    [
      "call's return address",
      "mov rbp, rsp\nlea rsp, [rel f + 8]\ncall g\ng: mov rsp, rbp\nmov rax, [rel code]\nmov [rel f], rax",
      12,
    ],
  ];
  for (const [name, source, result] of stores) {
    m.load(
      `call f\nmov r8, rax\n${source}\ncall f\nhlt\nalign 64\nf: mov eax, 7\nret\ntimes 10 nop\nalign 16\ncode: mov eax, 12\nret\ntimes 10 nop`,
    );
    m.level(0);
    assert.equal(m.run().vector, -1, name);
    assert.deepEqual([m.number("r8"), m.number("rax")], [7, result], name);
  }
});

test("through another mapping of the page, and by a store across two pages", () => {
  const m = new SystemMachine();
  m.ram.setUint32(pte(0x50000), 0x41067, true);
  m.vp.runtime.resetTlb();
  m.load("f: mov eax, 1\nret", 0x41000);
  m.load(
    "call 0x41000\nmov ebx, eax\nmov dword [0x50001], 2\ncall 0x41000\nmov ecx, eax\nmov dword [0x50001], 3\ncall 0x50000\nmov edx, eax\nhlt",
  );
  m.level(0);
  m.run();
  assert.deepEqual([m.number("rbx"), m.number("rcx"), m.number("rdx")], [1, 2, 3]);
  // mov eax, imm32 whose immediate lies across the boundary; the store writes both halves at once
  m.load("mov eax, 0x11111111\nret", 0x42ffd);
  m.load(
    "call 0x42ffd\nmov ebx, eax\nmov rax, 0xc322222222b8\nmov [0x42ffd], rax\ncall 0x42ffd\nmov ecx, eax\nmov byte [0x43001], 0x33\ncall 0x42ffd\nmov edx, eax\nhlt",
  );
  m.level(0);
  m.run();
  assert.deepEqual([m.number("rbx"), m.number("rcx"), m.number("rdx")], [0x11111111, 0x22222222, 0x33222222]);
});

test("an instruction across pages, whose second page is remapped, or goes away", () => {
  const m = new SystemMachine();
  m.load("mov eax, 0x11111111\nret", 0x42ffd);
  m.vp.ram.copyWithin(0x51000, 0x43000, 0x44000);
  m.ram.setUint16(0x51000, 0x4444, true);
  m.load(
    "call 0x42ffd\nmov ebx, eax\nmov qword [rel 0x10000 + 0x43 * 8], 0x51067\ninvlpg [0x43000]\ncall 0x42ffd\nmov ecx, eax\nmov qword [rel 0x10000 + 0x43 * 8], 0\ninvlpg [0x43000]\ncall 0x42ffd",
  );
  m.level(0);
  const o = m.run();
  assert.deepEqual([m.number("rbx"), m.number("rcx")], [0x11111111, 0x44441111]);
  // the fault is of the second page; the instruction is the one before the boundary
  assert.deepEqual([o.vector, o.error, o.rip, m.vp.register64(Vp.cr2)], [14, 0x10, 0x42ffd, 0x43000n]);
});

test("from outside: a device writes RAM", () => {
  const m = new SystemMachine();
  m.load("mov eax, 1\nhlt");
  m.level(0);
  m.run();
  m.ram.setUint32(CODE + 1, 2, true);
  m.vp.runtime.ramWritten(CODE + 3, 1);
  m.run();
  assert.equal(m.number("rax"), 2);
});

test("the page of the running code becomes another: the block that runs goes on, the next one is new", () => {
  const m = new SystemMachine();
  m.load("mov qword [rel 0x10000 + 0x45 * 8], 0x46067\ninvlpg [0x45000]\nmov eax, 1\nhlt", 0x45000);
  m.vp.ram.copyWithin(0x46000, 0x45000, 0x46000);
  const at = m.vp.ram.indexOf(0xb8, 0x46000);
  m.ram.setUint32(at + 1, 2, true);
  m.level(0);
  m.run(0x45000);
  assert.equal(m.number("rax"), 2);
});

test("a full record arena is emptied while code runs", () => {
  const m = new SystemMachine();
  const { vp } = m;
  // 47 pages of small blocks, each of which jumps to the next, in a loop that starts with a nearly full arena
  const from = 0x100000;
  const blocks = 3000;
  for (let i = 0; i < blocks; i++) {
    const at = from + i * 64;
    vp.ram.set([0x48, 0xff, 0xc0, 0xe9, 56, 0, 0, 0], at); // inc rax; jmp to the next one
  }
  const end = from + blocks * 64;
  const back = m.load(`dec ecx\njnz ${from}\nhlt`, end);
  assert.ok(back.bytes.length < 64);
  vp.runtime.ramWritten(from, blocks * 64 + 64);
  const flushes = vp.stat("arenaFlushes");
  for (let round = 0; round < 4; round++) {
    vp.view.setUint32(vp.base + Vp.arenaNext, vp.base + Vp.arena + ARENA_BYTES - 20000 - round * 8192, true);
    m.level(0);
    m.set({ rax: 0, rcx: 5 });
    m.run(from);
    assert.equal(m.number("rax"), blocks * 5);
  }
  assert.ok(vp.stat("arenaFlushes") > flushes);
});

test("random code that rewrites itself agrees with the same code read anew for every instruction", () => {
  // 16 cells of 16 bytes: one loads the immediate at its byte 9 and adds it up, another stores into some cell's byte 9
  const cell = fc.record({
    store: fc.boolean(),
    target: fc.integer({ min: 0, max: 15 }),
    value: fc.integer({ min: 0, max: 127 }),
  });
  const m = new SystemMachine();
  const base = 0x60fa0; // the cells lie across a page boundary
  fc.assert(
    fc.property(fc.array(cell, { minLength: 16, maxLength: 16 }), fc.integer({ min: 1, max: 6 }), (cells, rounds) => {
      const bytes: number[] = [];
      for (const c of cells) {
        const to = base + c.target * 16 + 9;
        // mov byte [to], value; mov cl, 0x90; nops
        if (c.store)
          bytes.push(
            0xc6,
            0x04,
            0x25,
            to & 255,
            (to >> 8) & 255,
            (to >> 16) & 255,
            to >>> 24,
            c.value,
            0xb1,
            0x90,
            0x90,
            0x90,
            0x90,
            0x90,
            0x90,
            0x90,
          );
        // nops; mov cl, value; movzx ecx, cl; add eax, ecx
        else
          bytes.push(0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0xb1, c.value, 0x0f, 0xb6, 0xc9, 0x01, 0xc8, 0x90);
      }
      m.vp.ram.set(bytes, base);
      m.vp.runtime.ramWritten(base, bytes.length);
      m.load("cld\ndec ebx\njnz 0x60fa0\nhlt", base + 256);
      // model: the values of byte 9
      const values = cells.map((_, i) => bytes[i * 16 + 9]!);
      let sum = 0;
      for (let r = 0; r < rounds; r++)
        cells.forEach((c, i) => {
          if (c.store) values[c.target] = c.value;
          else sum += values[i]!;
        });
      m.level(0);
      m.set({ rax: 0, rbx: rounds, rcx: 0 });
      assert.equal(m.run(base).vector, -1);
      assert.equal(m.number("rax"), sum);
    }),
    { numRuns: Number(process.env.CASES ?? 300) },
  );
});

test("a page whose code is not run any more is written to like any other, and its code runs when it is", () => {
  const m = new SystemMachine();
  // one round of the loop stores beside the code of its own page's second line
  m.load(`
    call old
    mov ecx, 2000
    again: mov [rel data], ecx
    dec ecx
    jnz again
    call old
    hlt
    align 4096
    old: mov eax, 0x7777
    ret
    align 64
    data: dd 0`);
  m.level(0);
  m.run();
  assert.equal(m.number("rax"), 0x7777);
  // every store takes the long way until the code of `old` is given up
  assert.ok(m.vp.stat("tlbMisses") > 256);
  assert.ok(m.vp.stat("tlbMisses") < 600, `${m.vp.stat("tlbMisses")} stores took the long way`);
  assert.equal(m.vp.stat("storesToCode"), 1);
  // a store to the code itself is seen as ever
  m.load(`mov dword ${immediate("old")}, 5\ncall old\nhlt\nalign 64\nold: mov eax, 0x7777\nret`);
  m.level(0);
  m.run();
  assert.equal(m.number("rax"), 5);
});

test("generations of the jump tag begin anew between two runs, long before they are used up, and no code of before is met", () => {
  const m = new SystemMachine();
  m.load("mov eax, 1\ncall next\nhlt\nnext: add eax, 1\nret");
  for (const last of [0, 2 ** 28 + 1]) {
    if (last > 0) m.vp.view.setUint32(m.vp.base + Vp.lastGeneration, last, true);
    m.level(0);
    m.run();
    assert.equal(m.number("rax"), 2);
    assert.ok(m.vp.view.getUint32(m.vp.base + Vp.lastGeneration, true) < 100);
  }
  // what was noted by the first generations is gone
  m.load("mov eax, 3\nhlt");
  m.level(0);
  m.run();
  assert.equal(m.number("rax"), 3);
});
