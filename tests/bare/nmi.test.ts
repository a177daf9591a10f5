/** Non-maskable interrupts (SDM vol. 3, "Nonmaskable Interrupt (NMI)"), and transfers and forms that fault at themselves. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { LOG, PartitionMachine } from "./partition-machine.js";
import { CODE, STACK, SystemMachine } from "./system-machine.js";

const NMI_HANDLER = 0x18800;

/** Runs a program on a partition; `handler` is that of NMIs. */
function run(source: string, handler: string): PartitionMachine {
  const p = new PartitionMachine();
  p.image.gate(2, { offset: NMI_HANDLER });
  p.image.load(handler, NMI_HANDLER);
  p.image.load(source);
  p.image.level(0);
  // interrupts are off
  p.image.vp.runtime.setRflags(2);
  p.image.set({ r14: 0, r13: 0, r12: 0, r15: LOG });
  p.start(CODE);
  p.run();
  return p;
}
/** x2APIC ICR: an NMI to this very processor. */
const SELF_NMI = "mov ecx, 0x830\nmov eax, 0x400\nxor edx, edx\nwrmsr\n";
const register = (p: PartitionMachine, n: number): number => Number(p.partition.vp.register64(n * 8));

test("an NMI comes before the next instruction, although interrupts are off", () => {
  const p = run(`${SELF_NMI}inc r13\nhlt`, "mov r12, r13\ninc r14\niretq");
  assert.deepEqual([register(p, 12), register(p, 13), register(p, 14)], [0, 1, 1]);
});

test("another one waits for IRET, and comes right behind it", () => {
  // the handler sends one to itself once; R12 counts instructions of the program that ran before the second
  const p = run(
    `${SELF_NMI}inc r12\nhlt`,
    `inc r14\ncmp r14, 1\njne second\n${SELF_NMI}nop\nnop\nmov r13, r14\niretq\nsecond: mov rbx, r12\niretq`,
  );
  assert.deepEqual([register(p, 14), register(p, 13), register(p, 3), register(p, 12)], [2, 1, 0, 1]);
});

test("near transfers to a non-canonical address are #GP at themselves and change nothing", () => {
  const bad = "mov rax, 0x800000000000\n";
  for (const [source, pushed] of [
    [`${bad}here: jmp rax`, 0],
    [`${bad}here: call rax`, 0],
    [`${bad}push rax\nhere: ret`, 8],
    [`${bad}push rax\nhere: ret 16`, 8],
  ] as const) {
    const m = new SystemMachine();
    m.load(source);
    m.level(0);
    const o = m.run();
    assert.deepEqual([o.vector, o.error, o.rip, o.rsp], [13, 0, m.labels.here, STACK - pushed], source);
  }
});

test("instructions with a memory operand are #UD with a register", () => {
  for (const bytes of [
    "0x8d, 0xc0",
    "0x0f, 0x38, 0xf0, 0xc0",
    "0x0f, 0x38, 0xf1, 0xc0",
    "0x0f, 0xc3, 0xc0",
    "0x0f, 0xb2, 0xc0",
  ]) {
    const m = new SystemMachine();
    m.load(`here: db ${bytes}\ntimes 16 nop`);
    m.level(0);
    const o = m.run();
    assert.deepEqual([o.vector, o.rip], [6, m.labels.here], bytes);
  }
});
