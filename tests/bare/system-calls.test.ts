/** SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS, FSGSBASE (SDM vol. 2), as an Intel processor has them. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { SegAttr, SegIndex, Vp } from "../../src/cpu/layout.js";
import { CODE, Selector, SystemMachine } from "./system-machine.js";

const LSTAR = 0xc0000082;
const SFMASK = 0xc0000084;
const ENTRY = 0x41000;
const flat = SegAttr.granular;

test("SYSCALL: RCX, R11, masked flags, flat segments of level 0, the stack untouched", () => {
  const m = new SystemMachine();
  m.msrs.write(LSTAR, ENTRY, 0);
  m.msrs.write(SFMASK, 0x47700, 0);
  m.load("hlt", ENTRY);
  m.load("syscall\nafter:");
  m.level(3);
  m.vp.runtime.setRflags(0x246ed7);
  m.set({ rsp: 0x1234567 });
  const o = m.run();
  assert.deepEqual([o.vector, o.rip, o.cs, o.ss, o.rsp], [-1, ENTRY + 1, Selector.code, Selector.data, 0x1234567]);
  assert.deepEqual([m.number("rcx"), m.number("r11"), o.rflags], [m.labels.after, 0x246ed7, 0x2008d7]);
  assert.deepEqual(m.segment(SegIndex.cs), {
    selector: Selector.code,
    attributes: 0x9b | flat | SegAttr.long,
    limit: 0xffffffff,
    base: 0,
  });
  assert.deepEqual(m.segment(SegIndex.ss), {
    selector: Selector.data,
    attributes: 0x93 | flat | SegAttr.big,
    limit: 0xffffffff,
    base: 0,
  });
});

test("SYSCALL is #UD without EFER.SCE, and in compatibility mode; SYSRET too, and #GP at level 3", () => {
  const m = new SystemMachine();
  m.msrs.write(LSTAR, ENTRY, 0);
  m.load("hlt", ENTRY);
  m.load("syscall", CODE, 32);
  m.code32(3);
  assert.equal(m.run().vector, 6);
  assert.deepEqual(
    [m.execute("o64 sysret", 3)].map((o) => [o.vector, o.error]),
    [[13, 0]],
  );
  m.vp.setRegister(Vp.efer, 0xd00);
  assert.equal(m.execute("syscall", 3).vector, 6);
  assert.equal(m.execute("o64 sysret", 0).vector, 6);
});

test("SYSRET: to 64-bit and to 32-bit code; RF and VM stay clear; a bad RCX faults at level 0", () => {
  const m = new SystemMachine();
  m.gate(0x50, { type: 0xee });
  for (const wide of [true, false]) {
    m.load("int 0x50", ENTRY, wide ? 64 : 32);
    m.load(wide ? "o64 sysret" : "sysret");
    m.level(0);
    m.set({ rcx: wide ? ENTRY : 0xffff_ffff_0000_0000n + BigInt(ENTRY), r11: 0xffffffff & ~0x100, rsp: 0x27000 });
    const o = m.run();
    assert.deepEqual(
      [o.vector, o.rip, o.cs, o.ss, o.rsp, o.rflags],
      [0x50, ENTRY + 2, wide ? Selector.codeu : Selector.code32u, Selector.datau, 0x27000, 0x3c7ed7],
    );
  }
  m.load("o64 sysret");
  m.level(0);
  m.set({ rcx: 0x8000_0000_0000n });
  assert.deepEqual(
    [m.run()].map((o) => [o.vector, o.error, o.rip, o.cs]),
    [[13, 0, CODE, Selector.code]],
  );
});

test("SYSENTER and SYSEXIT", () => {
  const m = new SystemMachine();
  m.load("hlt", ENTRY);
  // a null selector in the MSR
  assert.deepEqual(
    [m.execute("sysenter", 3)].map((o) => [o.vector, o.error]),
    [[13, 0]],
  );
  assert.deepEqual(
    [m.execute("sysexit", 0)].map((o) => [o.vector, o.error]),
    [[13, 0]],
  );
  m.msrs.write(0x174, Selector.code, 0);
  m.msrs.write(0x175, 0x1f000, 0);
  m.msrs.write(0x176, ENTRY, 0);
  for (const bits of [64, 32] as const) {
    m.load("sysenter", CODE, bits);
    if (bits === 64) m.level(3);
    else m.code32(3);
    m.vp.runtime.setRflags(0x3202);
    const o = m.run();
    assert.deepEqual(
      [o.vector, o.rip, o.cs, o.ss, o.rsp, o.rflags],
      [-1, ENTRY + 1, Selector.code, Selector.data, 0x1f000, 0x3002],
    );
  }
  m.gate(0x50, { type: 0xee });
  for (const wide of [true, false]) {
    m.load("int 0x50", ENTRY, wide ? 64 : 32);
    m.load(wide ? "o64 sysexit" : "sysexit");
    m.level(0);
    m.set({ rdx: ENTRY, rcx: 0x1_0002_7000n });
    const o = m.run();
    // the selectors lie at fixed distances from the MSR's
    assert.deepEqual(
      [o.vector, o.rip, o.cs, o.ss, o.rsp],
      [
        0x50,
        ENTRY + 2,
        Selector.code + (wide ? 35 : 19),
        Selector.code + (wide ? 43 : 27),
        wide ? 0x100027000 : 0x27000,
      ],
    );
  }
  for (const bad of ["rcx", "rdx"] as const) {
    m.load("o64 sysexit");
    m.level(0);
    m.set({ rcx: ENTRY, rdx: ENTRY, [bad]: 0x8000_0000_0000n });
    assert.deepEqual(
      [m.run()].map((o) => [o.vector, o.error, o.rip]),
      [[13, 0, CODE]],
      bad,
    );
  }
  assert.deepEqual(
    [m.execute("sysexit", 3)].map((o) => [o.vector, o.error]),
    [[13, 0]],
  );
});

test("SWAPGS swaps with the MSR, in 64-bit code of level 0 only", () => {
  const m = new SystemMachine();
  m.ram.setUint32(0x30010, 0x11111111, true);
  m.ram.setUint32(0x31010, 0x22222222, true);
  m.msrs.write(0xc0000102, 0x31000, 0);
  m.load("mov eax, [gs:0x10]\nswapgs\nmov ebx, [gs:0x10]\nswapgs\nmov ecx, [gs:0x10]\nswapgs\nhlt");
  m.level(0);
  m.msrs.write(0xc0000101, 0x30000, 0);
  m.run();
  assert.deepEqual([m.number("rax"), m.number("rbx"), m.number("rcx")], [0x11111111, 0x22222222, 0x11111111]);
  const out = new Uint32Array(4);
  assert.ok(m.msrs.read(0xc0000102, out));
  assert.equal(out[0], 0x30000);
  assert.deepEqual(
    [m.execute("swapgs", 3)].map((o) => [o.vector, o.error]),
    [[13, 0]],
  );
  m.load("db 0x0f, 0x01, 0xf8", CODE, 32);
  m.code32(0);
  assert.equal(m.run().vector, 6);
});

test("RDFSBASE and the others: widths, #UD without CR4.FSGSBASE, #GP for a base that is not canonical", () => {
  const m = new SystemMachine();
  assert.equal(m.execute("rdfsbase rax", 3).vector, 6);
  m.vp.setRegister(Vp.cr4, 0x106a0);
  m.load(
    "mov rax, 0x123456789abc\nwrfsbase rax\nrdfsbase rbx\nrdfsbase ecx\nmov rax, -8\nwrgsbase eax\nrdgsbase rdx\nwrgsbase rax\nrdgsbase rsi\nud2",
  );
  m.level(3);
  m.set({ rcx: -1n });
  assert.equal(m.run().vector, 6);
  assert.deepEqual(
    [m.get("rbx"), m.get("rcx"), m.get("rdx"), m.get("rsi")],
    [0x123456789abcn, 0x56789abcn, 0xfffffff8n, 0xfffffffffffffff8n],
  );
  m.load("mov rax, 0x800000000000\nbad: wrgsbase rax");
  m.level(3);
  assert.deepEqual(
    [m.run()].map((o) => [o.vector, o.error, o.rip]),
    [[13, 0, m.labels.bad]],
  );
  m.load("db 0xf3, 0x0f, 0xae, 0xc0", CODE, 32);
  m.code32(3);
  assert.equal(m.run().vector, 6);
});

test("what the MSRs refuse", () => {
  const m = new SystemMachine();
  const write = (index: number, value: bigint): number => {
    m.load("wrmsr\nhlt");
    m.level(0);
    m.set({ rcx: index, rax: value & 0xffffffffn, rdx: value >> 32n });
    return m.run().vector;
  };
  for (const index of [LSTAR, 0xc0000100, 0xc0000101, 0xc0000102, 0x175, 0x176]) {
    assert.equal(write(index, 0xffff_8000_0000_0000n), -1, index.toString(16));
    assert.equal(write(index, 0x8000_0000_0000n), 13, index.toString(16));
    assert.equal(write(index, 0x0001_0000_0000_0000n), 13, index.toString(16));
  }
  // EFER: reserved bits, and LME while paging is on; LMA cannot be written
  assert.deepEqual([write(0xc0000080, 0xd02n), write(0xc0000080, 0xc01n), write(0xc0000080, 0x901n)], [13, 13, -1]);
  assert.equal(m.vp.view.getUint32(m.vp.base + Vp.efer, true), 0xd01);
  assert.equal(m.execute("mov ecx, 0xc0000080\nrdmsr", 3).vector, 13);
  assert.equal(m.execute("mov ecx, 0x12345678\nrdmsr").vector, 13);
});
