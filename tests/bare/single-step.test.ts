/** The single-step trap, and the instruction after STI and MOV SS (SDM vol. 3, "Single-Step Exception Condition", "Masking Exceptions and Interrupts When Switching Stacks"). */
import assert from "node:assert/strict";
import { test } from "node:test";
import { LOG, PartitionMachine, VECTOR } from "./partition-machine.js";
import { CODE } from "./system-machine.js";

const p = new PartitionMachine();
const SET = "pushfq\nor qword [rsp], 0x100\npopfq\n";
const CLEAR = "pushfq\nand qword [rsp], ~0x100\n";
/** Runs a program at level 0 and gives the labels, or distances from CODE, at which it was trapped. */
function trapped(source: string, registers: Parameters<typeof p.image.set>[0] = {}, flags = 2): string[] {
  const { image } = p;
  for (const name of Object.keys(image.labels)) delete image.labels[name];
  image.load(source);
  image.level(0);
  image.vp.runtime.setRflags(flags);
  image.set({ r14: 0, r13: 0, r15: LOG, ...registers });
  p.start(CODE);
  p.run();
  const names = new Map(Object.entries(image.labels).map(([name, at]) => [at, name]));
  return p.traps().map((at) => names.get(at) ?? `+${at - CODE}`);
}

test("POPF sets TF: one more instruction runs before the first trap; the POPF that clears it is trapped too", () => {
  assert.deepEqual(
    trapped(
      `${SET}mov eax, 5\na: inc eax\nb: jmp c\nud2\nc: cmp eax, 6\nd: jne $\ne: ${CLEAR.replace("and", "f: and")}g: popfq\nh: nop\nhlt`,
    ),
    ["a", "b", "c", "d", "e", "f", "g", "h"],
  );
});

test("blocks, calls, loops and an instruction across pages are stepped one by one", () => {
  const traps = trapped(
    `jmp 0x40fe9\ntimes 0x40fe9 - ($ - $$) - 0x40000 nop\n${SET}nop\na: mov ecx, 2\nl: dec ecx\nm: jnz l\nn: mov eax, 0x12345678\no: call f\nq: push 2\nr: popfq\ns: hlt\nf: ret`,
  );
  assert.deepEqual(traps, ["a", "l", "m", "l", "m", "n", "o", "f", "q", "r", "s"]);
  assert.deepEqual([p.image.labels.n, p.image.labels.o], [0x40ffd, 0x41002]);
});

test("HLT is left by its trap", () => {
  assert.deepEqual(trapped(`${SET}nop\na: hlt\nb: ${CLEAR}c: popfq\nd: hlt`).slice(0, 2), ["a", "b"]);
});

test("IRET sets TF: one more instruction; the handler runs without", () => {
  assert.deepEqual(
    trapped(
      "mov rax, rsp\npush 0x18\npush rax\npush 0x102\npush 0x10\npush a\niretq\na: nop\nb: nop\nc: push 2\nd: popfq\ne: hlt",
    ),
    ["b", "c", "d", "e"],
  );
});

test("INT n is not trapped behind itself; the return is followed by one instruction", () => {
  p.image.gate(0x50, { offset: 0x41000 });
  p.image.load("nop\nnop\niretq", 0x41000);
  assert.deepEqual(trapped(`${SET}nop\na: int 0x50\nb: nop\nc: push 2\nd: popfq\ne: hlt`), ["a", "c", "d", "e"]);
});

test("an instruction that faults is not trapped", () => {
  p.image.gate(6, { offset: 0x41000 });
  p.image.load("add qword [rsp], 2\niretq", 0x41000);
  assert.deepEqual(trapped(`${SET}nop\na: ud2\nb: nop\nc: push 2\nd: popfq\ne: hlt`), ["a", "c", "d", "e"]);
  p.image.gate(6, {});
});

test("a repeated string instruction is trapped after each repetition", () => {
  assert.deepEqual(trapped(`mov ecx, 3\nmov edi, 0x30000\n${SET}nop\na: rep stosb\nb: push 2\nc: popfq\nd: hlt`), [
    "a",
    "a",
    "a",
    "b",
    "c",
    "d",
  ]);
});

test("MOV SS and POP SS hold the trap off until after the next instruction, STI does not", () => {
  assert.deepEqual(
    trapped(`mov eax, 0x18\n${SET}nop\na: mov ss, eax\nb: nop\nc: sti\nd: cli\ne: push 2\nf: popfq\ng: hlt`),
    ["a", "c", "d", "e", "f", "g"],
  );
});

test("SYSCALL is trapped behind itself if TF is still set then", () => {
  const { image } = p;
  image.msrs.write(0xc0000082, 0x41000, 0);
  for (const mask of [0x100, 0]) {
    image.msrs.write(0xc0000084, mask, 0);
    image.load(mask === 0 ? "nop\npush 2\npopfq\nhlt" : "hlt", 0x41000);
    const traps = trapped(`${SET}nop\na: syscall`);
    assert.deepEqual(traps, mask === 0 ? ["a", "+4096", "+4097", "+4099", "+4100"] : ["a"]);
  }
});

test("SYSRET that sets TF is trapped before the first instruction there", () => {
  const { image } = p;
  image.load("nop\nnop\nhlt", 0x41000);
  image.gate(13, { offset: 0x42000 });
  image.load("hlt", 0x42000);
  // HLT at level 3 is #GP, whose handler halts
  assert.deepEqual(trapped("o64 sysret", { rcx: 0x41000, r11: 0x102 }), [`+${0x1000}`, `+${0x1001}`, `+${0x1002}`]);
  image.gate(13, {});
});

/** Runs with an interrupt already requested while IF = 0; gives where it was taken. */
function takenAt(source: string, flags = 2): number {
  const { image } = p;
  for (const name of Object.keys(image.labels)) delete image.labels[name];
  image.load(source);
  image.level(0);
  image.vp.runtime.setRflags(flags);
  image.set({ r14: 0, r13: 0, r15: LOG });
  p.start(CODE);
  p.interrupt();
  p.run();
  assert.ok(p.register(14) <= 1);
  return p.register(14) === 0 ? 0 : p.register(13) - CODE;
}

test("STI: the next instruction still runs before the interrupt", () => {
  assert.equal(takenAt("sti\nhlt\ncli\nhlt"), 2);
  assert.equal(takenAt("sti\nnop\ncli\nhlt"), 2);
  assert.equal(takenAt("sti\nsti\nnop\ncli\nhlt"), 2);
  assert.equal(takenAt("jmp a\nalign 16\na: sti\ncall b\nhlt\nb: cli\nhlt"), 16 + 7);
  // never open: the interrupt stays
  assert.equal(takenAt("sti\ncli\nhlt"), 0);
  assert.equal(p.partition.apic.pendingVector(), VECTOR);
});

test("POPF and IRET open the window at once; MOV SS closes it for one instruction", () => {
  assert.equal(takenAt("push 0x202\npopfq\nnop\ncli\nhlt"), 6);
  assert.equal(
    takenAt("mov rax, rsp\npush 0x18\npush rax\npush 0x202\npush 0x10\npush a\niretq\na: nop\ncli\nhlt"),
    p.image.labels.a! - CODE,
  );
  assert.equal(takenAt("mov eax, 0x18\nmov dx, 0x80\nsti\nmov ss, eax\nnop\nnop\ncli\nhlt"), 5 + 4 + 1 + 2 + 1);
  assert.equal(takenAt("mov rax, cr8\ncli\nhlt"), 0);
});

test("an interrupt that comes between STI and HLT, where a block ends, wakes the HLT", () => {
  const { image } = p;
  // STI is the last byte of its page: the next instruction is in another block
  image.load("sti\nhlt\ncli\nhlt", 0x43fff);
  image.level(0);
  image.set({ r14: 0, r13: 0, r15: LOG });
  p.start(0x43fff);
  assert.equal(p.partition.step(0), "running");
  assert.equal(Number(p.partition.vp.rip), 0x44000);
  p.interrupt();
  p.run();
  assert.deepEqual([p.register(14), p.register(13)], [1, 0x44001]);
});

test("one instruction at a time comes to the same end", () => {
  const { image } = p;
  image.load(
    "mov ecx, 50\nl: mov eax, ecx\nimul eax, eax\nadd ebx, eax\npush rbx\npop rdx\nmov [0x30000 + rcx * 8], rdx\nmov edi, 0x31000\nmov r9, rcx\nmov ecx, 40\nrep stosb\nmov rcx, r9\nsti\nnop\ncli\ndec ecx\njnz l\nhlt",
  );
  const digests = [() => p.partition.step(1000), () => p.partition.step(0), () => p.partition.stepOne()].map((step) => {
    image.level(0);
    image.set({ rbx: 0, r14: 0, r15: LOG });
    p.start(CODE);
    p.run(step);
    return p.partition.digest();
  });
  assert.deepEqual(digests, [digests[0], digests[0], digests[0]]);
});
