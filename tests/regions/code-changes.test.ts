/** What happens to a region when its code changes, and at the borders of what it may do. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Exit, Vp } from "../../src/cpu/layout.js";
import { type BareMachine, createBareMachine, stressAsked } from "../bare/bare-machine.js";
import { assemble } from "../bare/nasm.js";
import { EngineRunner } from "../reference/native-runner.js";

const CODE = 0x200000;
const DATA = 0x300000;

/** Runs a program from CODE with a region at `at` (a label) from the start. @returns RAX and RBX in the end */
function run(m: BareMachine, source: string, at?: string): readonly bigint[] {
  const { vp } = m;
  const { bytes, labels } = assemble(source, 64, CODE);
  vp.ram.fill(0, CODE, CODE + 0x3000);
  vp.ram.set(bytes, CODE);
  vp.runtime.ramWritten(CODE, 0x3000);
  for (let i = 0; i < 16; i++) vp.setRegister(Vp.gpr + i * 8, 0);
  vp.setRegister(Vp.gpr + 32, DATA + 0x8000);
  if (at !== undefined) assert.ok(vp.regions!.force(BigInt(labels[at]!)), "there is a gate");
  vp.setRegister(Vp.rip, CODE);
  let reason: number = Exit.slice;
  for (let i = 0; i < 100_000 && reason === Exit.slice; i++) reason = vp.run(100);
  assert.equal(reason, Exit.halt);
  return [vp.register64(Vp.gpr), vp.register64(Vp.gpr + 24)];
}
const compiled = createBareMachine(8 << 20, {}, 1, true);
const interpreted = createBareMachine(8 << 20, {}, 1, false);
function same(source: string, at: string): readonly bigint[] {
  const expected = run(interpreted, source);
  assert.deepEqual(run(compiled, source, at), expected);
  return expected;
}

test("a loop that writes the immediate of its next instruction sees it at once", () => {
  const [sum] = same(
    "mov ecx, 300\nloop1: mov [rel patched + 1], cl\npatched: mov edx, 0x11\nadd rax, rdx\ndec ecx\njnz loop1\nhlt",
    "loop1",
  );
  assert.equal(sum, BigInt(Array.from({ length: 300 }, (_, i) => (i + 1) & 255).reduce((a, b) => a + b)));
});

test("a write to the same page, but not to a line with code, leaves the region running", () => {
  const before = compiled.vp.regions!.counters.dead;
  same(
    "mov ecx, 5000\nloop1: mov [rel store], ecx\nadd eax, [rel store]\ndec ecx\njnz loop1\nhlt\nalign 256\nstore: dd 0",
    "loop1",
  );
  compiled.vp.regions!.sample();
  // the program before it has gone with the bytes that it was made of
  assert.ok(stressAsked !== undefined || compiled.vp.regions!.counters.dead - before <= 1);
});

test("code that is overwritten between two runs, by the program and by a device, is not run any more", () => {
  const source = (n: number): string => `mov ecx, 200\nloop1: add eax, ${n}\ndec ecx\njnz loop1\nhlt`;
  assert.equal(run(compiled, source(3), "loop1")[0], 600n);
  const { vp } = compiled;
  const { bytes } = assemble(source(7), 64, CODE);
  vp.ram.set(bytes, CODE);
  vp.runtime.ramWritten(CODE, bytes.length);
  vp.setRegister(Vp.gpr, 0);
  vp.setRegister(Vp.rip, CODE);
  while (vp.run(1000) === Exit.slice);
  assert.equal(vp.register64(Vp.gpr), 1400n);
  const before = vp.regions!.counters.dead;
  vp.regions!.sample();
  assert.ok(stressAsked !== undefined || vp.regions!.counters.dead > before, "its slot is free again");
});

test("what is compiled already is not compiled again, the first region of a processor neither", () => {
  const m = createBareMachine(8 << 20, {}, 1, true);
  const source = "mov ecx, 10\nloop1: add eax, 3\ndec ecx\njnz loop1\nhlt";
  assert.equal(run(m, source, "loop1")[0], 30n);
  const at = BigInt(assemble(source, 64, CODE).labels.loop1!);
  assert.equal(m.vp.regions!.force(at), false);
  // the gate that stood there has gone with the code
  assert.equal(run(m, source)[0], 30n);
  m.vp.regions!.sample();
  assert.equal(run(m, source)[0], 30n);
});

test("an alias of the code's page is another way to write it", () => {
  // the page after the code's, mapped to the same frame
  for (const m of [compiled, interpreted]) {
    const ram = new DataView(m.vp.ram.buffer, m.vp.ram.byteOffset, m.vp.ram.byteLength);
    ram.setUint32(0x10000 + ((CODE >> 12) + 1) * 8, CODE | 0x67, true);
    m.vp.runtime.resetTlb();
  }
  same(
    "mov ecx, 300\nlea rsi, [rel patched + 1 + 0x1000]\nloop1: mov [rsi], cl\npatched: mov edx, 0x11\nadd rax, rdx\ndec ecx\njnz loop1\nhlt",
    "loop1",
  );
  for (const m of [compiled, interpreted]) {
    const ram = new DataView(m.vp.ram.buffer, m.vp.ram.byteOffset, m.vp.ram.byteLength);
    ram.setUint32(0x10000 + ((CODE >> 12) + 1) * 8, (CODE + 0x1000) | 0x67, true);
    m.vp.runtime.resetTlb();
  }
});

test("calls, returns, indirect jumps and tables; loops in loops; a jump into the middle of a loop", () => {
  same(
    `mov r12d, 50
outer: mov ecx, 7
inner: lea rdx, [rel table]
mov esi, ecx
and esi, 3
mov rdx, [rdx + rsi * 8]
jmp rdx
a: add rax, 1
jmp next
b: call f
jmp next
c: imul rax, rax, 3
jmp middle
d: xor rax, rcx
middle: add rbx, rax
next: dec ecx
jnz inner
dec r12d
jnz outer
hlt
f: lea rax, [rax + rcx * 2]
test al, 1
jz g
ret
g: inc rax
ret
align 8
table: dq a, b, c, d`,
    "outer",
  );
  assert.ok(compiled.vp.regions!.counters.instructions > 20);
});

test("behind a HLT of a region the next block is not gone on with", () => {
  const m = createBareMachine(8 << 20, {}, 1, true);
  const source = "mov ecx, 10\nloop1: dec ecx\njs done\njmp f\ndone: hlt\nf: add eax, 3\njmp loop1";
  assert.equal(run(m, source)[0], 30n);
  // all blocks are known now
  const { vp } = m;
  vp.setRegister(Vp.gpr, 0);
  assert.ok(vp.regions!.force(BigInt(assemble(source, 64, CODE).labels.loop1!)));
  vp.setRegister(Vp.rip, CODE);
  while (vp.run(1000) === Exit.slice);
  assert.equal(vp.register64(Vp.gpr), 30n);
  assert.equal(Number(vp.rip), assemble(source, 64, CODE).labels.f!);
});

test("arithmetic behind a load of MXCSR goes by the new one, wherever else in the region there is arithmetic", () => {
  const [rounded] = same(
    `sub rsp, 16
mov dword [rsp], 0x1fa0
mov dword [rsp + 4], 0x5fa0
ldmxcsr [rsp]
mov rbx, 0x3ff0000000000000
mov rdx, 0x3c00000000000000
movq xmm1, rdx
mov ecx, 100
loop1: ldmxcsr [rsp + 4]
movq xmm0, rbx
addsd xmm0, xmm1
movq rdx, xmm0
add rax, rdx
sub rax, rbx
ldmxcsr [rsp]
movq xmm0, rbx
addsd xmm0, xmm1
movq rdx, xmm0
add rax, rdx
sub rax, rbx
dec ecx
jnz loop1
hlt`,
    "loop1",
  );
  // 1 + 2^-63 is the next number above 1 when it is rounded up, and 1 when it is rounded to the nearest
  assert.equal(rounded, 100n);
});

test("the budget is kept to: an endless loop comes back", () => {
  const { vp } = compiled;
  const { bytes, labels } = assemble("loop1: inc rax\njmp loop1", 64, CODE);
  vp.ram.fill(0xf4, CODE, CODE + 64);
  vp.ram.set(bytes, CODE);
  vp.runtime.ramWritten(CODE, 64);
  assert.ok(vp.regions!.force(BigInt(labels.loop1!)));
  vp.setRegister(Vp.gpr, 0);
  vp.setRegister(Vp.rip, CODE);
  const before = vp.retired;
  assert.equal(vp.run(10_000), Exit.slice);
  const counted = vp.retired - before;
  // two instructions a round, counted exactly
  assert.equal(vp.register64(Vp.gpr) * 2n, BigInt(counted));
  assert.ok(counted > 0 && counted < 10_010);
});

test("a fault handler in a region that faults at once, for ever, comes back", () => {
  const { vp } = new EngineRunner(false, true).machine;
  // #PF's gate, on a stack of its own each time; the page behind the window is absent
  const handler = 0x7000 + 14 * 16;
  vp.ram.set(assemble("mov eax, [0x301000]", 64, handler).bytes, handler);
  vp.runtime.ramWritten(handler, 16);
  assert.ok(vp.regions!.force(BigInt(handler)));
  vp.setRegister(Vp.rip, handler);
  const before = vp.retired;
  assert.equal(vp.run(1000), Exit.slice);
  // under stress a slice ends with its sample
  assert.ok(vp.retired - before >= (stressAsked?.sampleEvery ?? 1000) && vp.retired - before < 1010);
});
