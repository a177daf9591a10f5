/** DR0..DR3, DR6 and DR7: breakpoints on instructions, data and ports (SDM vol. 3, "Debug Registers", "Debug Exceptions"). */
import assert from "node:assert/strict";
import { test } from "node:test";
import { DB_HANDLER, LOG, PartitionMachine } from "./partition-machine.js";
import { CODE } from "./system-machine.js";

const p = new PartitionMachine();
// as the machine's own handler, but returns with RF set, so that a breakpoint's instruction runs
p.image.load(
  "push rax\nmov rax, [rsp + 8]\nmov [r15], rax\nmov rax, dr6\nmov [r15 + 8], rax\nadd r15, 16\nxor eax, eax\nmov dr6, rax\npop rax\nor dword [rsp + 16], 0x10000\niretq",
  DB_HANDLER,
);
/** DR7: `kind` (0 execute, 1 write, 2 port, 3 read or write) and LEN (0 = 1 byte, 1 = 2, 3 = 4, 2 = 8) for a register. */
const arm = (n: number, kind: number, length = 0): number =>
  (1 << (n * 2)) | (kind << (16 + n * 4)) | (length << (18 + n * 4));
const DATA = 0x30000;
const SET_TF = "pushfq\nor qword [rsp], 0x100\npopfq\n";
const CLEAR_TF = "push 2\npopfq\n";
/**
 * Runs a program at level 0, DR0..DR3 at labels or addresses. @returns "label:bits" for each #DB, with DR6's bits 0..3, "s" for BS
 * and "d" for BD
 */
function breaks(source: string, registers: readonly (string | number)[], dr7: number): string[] {
  const { image } = p;
  for (const name of Object.keys(image.labels)) delete image.labels[name];
  const program = `${source}\nend: hlt`;
  image.load(program);
  const set = registers
    .map((r, i) => `mov rax, ${typeof r === "string" ? image.labels[r] : r}\nmov dr${i}, rax`)
    .join("\n");
  image.load(
    `${set}\nmov eax, ${dr7 >>> 0}\nmov dr7, rax\nxor eax, eax\nxor ecx, ecx\nmov edi, ${DATA}\njmp ${CODE}`,
    0x48000,
  );
  image.level(0);
  image.vp.ram.fill(0, DATA, DATA + 0x3000);
  image.set({ r14: 0, r13: 0, r15: LOG });
  p.start(0x48000);
  p.run();
  const names = new Map(Object.entries(image.labels).map(([name, at]) => [at, name]));
  return p.log().map(({ rip, dr6 }) => {
    assert.equal(dr6 & ~0x600f, 0xffff0ff0 | 0);
    const bits = [0, 1, 2, 3].filter((i) => dr6 & (1 << i)).join("");
    return `${names.get(rip) ?? (rip - CODE).toString()}:${bits}${dr6 & 0x4000 ? "s" : ""}${dr6 & 0x2000 ? "d" : ""}`;
  });
}

test("an instruction breakpoint is a fault before the instruction, which RF lets run", () => {
  assert.deepEqual(breaks("nop\na: inc eax\nb: inc eax\nc: inc eax", ["b"], arm(0, 0)), ["b:0"]);
  assert.equal(p.register(0), 3);
  // each time it is come to
  assert.deepEqual(breaks("mov ecx, 3\na: dec ecx\njnz a", ["a"], arm(0, 0)), ["a:0", "a:0", "a:0"]);
  // the global enable counts as the local one; one that is not enabled does nothing
  assert.deepEqual(breaks("a: nop\nb: nop\nc: nop", ["c", "b", "a"], (2 << 2) | (1 << 0)), ["b:1", "c:0"]);
  // two at one place
  assert.deepEqual(breaks("a: nop\nb: nop", ["b", "b"], arm(0, 0) | arm(1, 0)), ["b:01"]);
  // in the middle of an instruction there is nothing
  assert.deepEqual(breaks("a: mov eax, 0x11223344\nb: nop", [CODE + 1], arm(0, 0)), []);
});

test("jumps, calls and returns come to instruction breakpoints", () => {
  assert.deepEqual(
    breaks(
      "call f\na: mov rax, b\njmp rax\nud2\nb: nop\nhlt\nf: nop\nret",
      ["f", "a", "b"],
      arm(0, 0) | arm(1, 0) | arm(2, 0),
    ),
    ["f:0", "a:1", "b:2"],
  );
});

test("RF holds for one instruction only", () => {
  // two breakpoints in a row: the first one's RF does not hold off the second
  assert.deepEqual(breaks("a: nop\nb: nop\nc: nop", ["a", "b", "c"], arm(0, 0) | arm(1, 0) | arm(2, 0)), [
    "a:0",
    "b:1",
    "c:2",
  ]);
  // IRET with RF to an instruction without one
  assert.deepEqual(
    breaks(
      "mov rax, rsp\npush 0x18\npush rax\npush 0x10002\npush 0x10\npush a\niretq\na: nop\nb: nop",
      ["a", "b"],
      arm(0, 0) | arm(1, 0),
    ),
    ["b:1"],
  );
});

test("a data breakpoint is a trap behind the instruction", () => {
  const program = "mov [rdi + 7], al\na: mov [rdi + 8], al\nb: mov al, [rdi + 8]\nc: mov [rdi + 9], al\nd: nop";
  assert.deepEqual(breaks(program, [DATA + 8], arm(0, 1)), ["b:0"]);
  assert.deepEqual(breaks(program, [DATA + 8], arm(0, 3)), ["b:0", "c:0"]);
  assert.deepEqual(breaks(program, [DATA + 8], arm(0, 1, 1)), ["b:0", "d:0"]);
  // the address's low bits do not count, and an access that only overlaps does
  assert.deepEqual(
    breaks("mov [rdi + 5], eax\na: mov [rdi + 4], eax\nb: mov [rdi + 1], rax\nc: nop", [DATA + 15], arm(0, 1, 2)),
    ["a:0", "c:0"],
  );
});

test("all kinds of accesses: read-modify-write, vectors, stack, call, strings, x87", () => {
  const hit = (source: string, at = DATA): string[] => breaks(source, [at], arm(0, 3, 2));
  assert.deepEqual(hit("add [rdi], rax\na: nop"), ["a:0"]);
  assert.deepEqual(hit("lock xadd [rdi], rax\na: nop"), ["a:0"]);
  assert.deepEqual(hit("movdqu xmm0, [rdi - 15]\na: movdqu xmm0, [rdi - 16]\nb: movups [rdi - 3], xmm0\nc: nop"), [
    "a:0",
    "c:0",
  ]);
  assert.deepEqual(hit("lea rsp, [rdi + 8]\ncall f\na: hlt\nf: nop\nret"), ["f:0", "a:0"]);
  assert.deepEqual(hit("lea rsp, [rdi + 8]\npush rax\na: pop rax\nb: nop"), ["a:0", "b:0"]);
  assert.deepEqual(hit("fild qword [rdi]\na: fstp qword [rdi]\nb: nop"), ["a:0", "b:0"]);
  assert.deepEqual(hit("mov ecx, 3\nlea rsi, [rdi - 16]\nlea rdi, [rdi + 64]\na: rep movsq\nb: nop"), ["b:0"]);
  // across a page boundary
  assert.deepEqual(hit("mov [rdi + 0xffd], eax\na: nop", DATA + 0x1000), ["a:0"]);
});

test("a repeated string instruction is trapped behind the repetition that touched it", () => {
  assert.deepEqual(breaks("mov ecx, 32\na: rep stosb\nb: nop", [DATA + 4], arm(0, 1)), ["a:0"]);
  assert.deepEqual([p.register(1), p.register(7)], [0, DATA + 32]);
  assert.deepEqual(breaks("mov ecx, 32\na: rep stosb\nb: nop", [DATA + 4], arm(0, 1, 3)), ["a:0", "a:0", "a:0", "a:0"]);
  // an instruction breakpoint of its own comes once
  assert.deepEqual(breaks("mov ecx, 5\na: rep stosb\nb: nop", ["a", DATA + 2], arm(0, 0) | arm(1, 1)), ["a:0", "a:1"]);
});

test("other accesses of a watched page are as ever", () => {
  assert.deepEqual(
    breaks(
      "mov ecx, 100\nl: mov [rdi + rcx * 8 + 16], rcx\nadd rax, [rdi + rcx * 8 + 16]\ndec ecx\njnz l",
      [DATA],
      arm(0, 3, 2),
    ),
    [],
  );
  assert.equal(p.register(0), 5050);
});

test("an instruction that faults drops what it touched before", () => {
  p.image.gate(14, { offset: 0x41000 });
  // the handler maps the page by going around it: it skips MOVSQ, two bytes
  p.image.load("add rsp, 8\nadd qword [rsp], 2\niretq", 0x41000);
  assert.deepEqual(breaks("mov rsi, rdi\nmov rdi, 0x7fff0000000\nmovsq\na: nop", [DATA], arm(0, 3, 2)), []);
  p.image.gate(14, {});
});

test("a data breakpoint is trapped before the fault of the next instruction's fetch", () => {
  p.image.gate(14, { offset: 0x41000, ist: 1 });
  p.image.load("mov rbx, cr2\nhlt", 0x41000);
  const found = breaks("mov rax, 0x7f0000000000\nlea rsp, [rdi + 8]\ncall rax", [DATA], arm(0, 1, 2));
  assert.deepEqual(found, [`${0x7f0000000000 - CODE}:0`]);
  assert.equal(p.register(3), 0x7f0000000000);
  p.image.gate(14, {});
});

test("a single step and a data breakpoint are one trap", () => {
  assert.deepEqual(breaks(`${SET_TF}nop\na: mov [rdi], al\nb: nop\nc: ${CLEAR_TF}`, [DATA], arm(0, 1)).slice(0, 3), [
    "a:s",
    "b:0s",
    "c:s",
  ]);
});

test("MOV SS holds a data breakpoint off until behind the next instruction, whose own breakpoint does not count", () => {
  assert.deepEqual(breaks("mov word [rdi], 0x18\nmov ss, [rdi]\na: nop\nb: nop", [DATA, "a"], arm(0, 3) | arm(1, 0)), [
    "5:0",
    "b:0",
  ]);
});

test("ports, where CR4.DE allows it", () => {
  const program = "mov al, 1\nout 0x80, al\na: out 0x81, al\nb: nop";
  assert.deepEqual(breaks(program, [0x80], arm(0, 2)), []);
  assert.deepEqual(breaks(`mov rax, cr4\nor eax, 8\nmov cr4, rax\n${program}`, [0x80], arm(0, 2)), ["a:0"]);
  assert.deepEqual(breaks(`mov rax, cr4\nor eax, 8\nmov cr4, rax\n${program}`, [0x80], arm(0, 2, 1)), ["a:0", "b:0"]);
});

test("DR7.GD: a look at the debug registers is a fault, once", () => {
  assert.deepEqual(breaks("a: mov rax, dr0\nb: mov rax, dr7\nmov rbx, rax", [], 0x2000), ["a:d"]);
  // the handler finds GD cleared, and its own MOVs run; the instruction then runs too
  assert.equal(p.register(3) & 0x2000, 0);
  assert.deepEqual(breaks("mov eax, 0x2400\nmov dr7, rax\na: mov dr6, rax", [], 0), ["a:d"]);
});

test("arming takes effect at once, and disarming too", () => {
  assert.deepEqual(
    breaks(
      `mov rax, a\nmov dr0, rax\nmov eax, ${arm(0, 0)}\nmov dr7, rax\na: nop\nxor eax, eax\nmov dr7, rax\nmov rbx, a\nmov ecx, 2\nb: dec ecx\njnz b`,
      [],
      0,
    ),
    ["a:0"],
  );
  // a page that is in the TLB already
  assert.deepEqual(
    breaks(
      `mov [rdi], al\nmov eax, ${DATA}\nmov dr0, rax\nmov eax, ${arm(0, 1)}\nmov dr7, rax\nmov [rdi], al\na: xor eax, eax\nmov dr7, rax\nmov [rdi], al`,
      [],
      0,
    ),
    ["a:0"],
  );
});

test("a saved machine keeps its breakpoints", () => {
  const { image } = p;
  for (const name of Object.keys(image.labels)) delete image.labels[name];
  image.level(0);
  image.load("nop\na: nop\nmov [rdi], al\nb: hlt", 0x42000);
  image.load(
    `mov rax, a\nmov dr0, rax\nmov eax, ${DATA}\nmov dr1, rax\nmov eax, ${arm(0, 0) | arm(1, 1)}\nmov dr7, rax\nhlt`.replaceAll(
      ", a\n",
      `, ${image.labels.a}\n`,
    ),
  );
  image.set({ r15: LOG, rdi: DATA });
  p.start(CODE);
  p.run();
  const state = p.partition.save();
  p.start(0x42000);
  p.partition.restore({ ...state, halted: false });
  p.partition.vp.setRegister(0xf0, 0x42000);
  p.run();
  assert.deepEqual(
    p.log().map((x) => [x.rip, x.dr6 & 15]),
    [
      [image.labels.a, 1],
      [image.labels.b, 2],
    ],
  );
});
