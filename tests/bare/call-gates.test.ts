/** Far calls and jumps through call gates (SDM vol. 3, "Call Gates", "Stack Switching in 64-bit Mode"). */
import assert from "node:assert/strict";
import { test } from "node:test";
import { CODE, RSP0, Selector, STACK, SystemMachine, TSS, TSS32, USER_STACK } from "./system-machine.js";

const TARGET = 0x41000;
const GATE = Selector.free;

interface Gate {
  readonly selector?: number;
  readonly offset?: number;
  readonly dpl?: number;
  readonly present?: boolean;
  readonly type?: number;
  readonly parameters?: number;
  readonly upper?: number;
  readonly upperType?: number;
}
function setGate(m: SystemMachine, g: Gate): void {
  const { selector = Selector.code, offset = TARGET, dpl = 3, present = true, type = 0xc, parameters = 0 } = g;
  m.descriptor(
    GATE,
    (offset & 0xffff0000) | (present ? 0x8000 : 0) | (dpl << 13) | (type << 8) | parameters,
    (selector << 16) | (offset & 0xffff),
  );
  m.descriptor(GATE + 8, g.upperType ?? 0, g.upper ?? 0);
}
const far = (operation: string, rpl = 0): string =>
  `mov rbx, rsp\n${operation} dword far [rel pointer]\nback: hlt\nalign 8\npointer: dd 0x12345678\ndw ${GATE | rpl}`;

test("a call from level 3 to level 0: stack of the TSS, null SS, return address and old stack on it", () => {
  const m = new SystemMachine();
  setGate(m, {});
  m.load(
    "mov rcx, [rsp]\nmov rdx, [rsp + 8]\nmov rsi, [rsp + 16]\nmov rdi, [rsp + 24]\nmov eax, ss\nhlt\nend:",
    TARGET,
  );
  const o = m.execute(far("call", 3), 3);
  assert.deepEqual([o.vector, o.rip, o.cs, o.rsp], [-1, m.labels.end, Selector.code, RSP0 - 32]);
  assert.deepEqual(
    ["rcx", "rdx", "rsi", "rdi", "rax"].map((r) => m.number(r as "rax")),
    [m.labels.back, Selector.codeu, USER_STACK, Selector.datau, 0],
  );
  // RETF comes back to where it was
  m.load("retfq", TARGET);
  const back = m.execute(`${far("call", 3)}`, 3);
  // HLT at level 3 is #GP
  assert.deepEqual(
    [back.vector, back.rip, back.cs, back.rsp, back.ss],
    [13, m.labels.back, Selector.codeu, USER_STACK, Selector.datau],
  );
});

test("a call at one level pushes CS and RIP only; a jump nothing", () => {
  const m = new SystemMachine();
  setGate(m, { offset: TARGET });
  m.load("hlt", TARGET);
  const call = m.execute(far("call"));
  assert.deepEqual([call.rip, call.cs, call.rsp], [TARGET + 1, Selector.code, STACK - 16]);
  assert.deepEqual([Number(m.read64(STACK - 16)), Number(m.read64(STACK - 8))], [m.labels.back, Selector.code]);
  const jump = m.execute(far("jmp"));
  assert.deepEqual([jump.rip, jump.cs, jump.rsp], [TARGET + 1, Selector.code, STACK]);
});

test("what a gate refuses, with which selector, and that nothing has changed", () => {
  const m = new SystemMachine();
  const refused = (g: Gate, operation = "call", cpl: 0 | 3 = 3): readonly (number | undefined)[] => {
    setGate(m, g);
    const o = m.execute(far(operation, cpl), cpl);
    assert.equal(o.rip, CODE + 3, JSON.stringify(g));
    assert.equal(o.rsp, cpl === 3 ? USER_STACK : STACK);
    return [o.vector, o.error];
  };
  assert.deepEqual(refused({ dpl: 2 }), [13, GATE]);
  assert.deepEqual(refused({ present: false }), [11, GATE]);
  assert.deepEqual(refused({ type: 4 }), [13, GATE], "16-bit gates are gone in long mode");
  assert.deepEqual(refused({ type: 5 }), [13, GATE]);
  assert.deepEqual(refused({ upperType: 0xc00 }), [13, GATE]);
  assert.deepEqual(refused({ selector: 0 }), [13, 0]);
  assert.deepEqual(refused({ selector: Selector.data }), [13, Selector.data]);
  assert.deepEqual(refused({ selector: Selector.code32 }), [13, Selector.code32], "the target has to be 64-bit code");
  assert.deepEqual(refused({ upper: 0x8000 }), [13, 0], "the target is not canonical");
  // a jump does not change the level
  assert.deepEqual(refused({}, "jmp"), [13, Selector.code]);
  // from level 0 to level 3
  assert.deepEqual(refused({ selector: Selector.codeu }, "call", 0), [13, Selector.codeu & ~3]);
  m.gate(12, { ist: 1 });
  m.ram.setBigUint64(TSS + 4, 0x8000_0000_0000_0000n, true);
  assert.deepEqual(refused({}), [12, 0], "the new stack is not canonical");
});

test("protected mode: a gate copies parameters to the inner stack, and RETF releases them on both", () => {
  const m = new SystemMachine();
  m.leaveLongMode();
  setGate(m, { selector: Selector.code32, parameters: 2 });
  m.ram.setUint32(TSS32 + 4, RSP0, true);
  m.load(
    "mov ecx, [esp + 8]\nmov edx, [esp + 12]\nmov esi, [esp + 16]\nmov edi, [esp + 20]\nmov eax, ss\nretf 8",
    TARGET,
    32,
  );
  m.load(`push 11\npush 22\ncall ${GATE | 3}:0\nback: int3`, CODE, 32);
  m.code32(3);
  const o = m.run();
  // INT3 is not for level 3
  assert.deepEqual(
    [o.vector, o.rip, o.cs, o.rsp, o.ss],
    [13, m.labels.back, Selector.code32u, USER_STACK, Selector.datau],
  );
  assert.deepEqual(
    ["rcx", "rdx", "rsi", "rdi", "rax"].map((r) => m.number(r as "rax")),
    [22, 11, USER_STACK - 8, Selector.datau, Selector.data],
  );
  // a 16-bit gate pushes words
  setGate(m, { selector: Selector.code32, type: 4, offset: 0x1100 });
  m.load("hlt", 0x1100, 32);
  m.load(`call ${GATE}:0\nback16: hlt`, CODE, 32);
  m.code32(0);
  const small = m.run();
  assert.deepEqual(
    [small.rip, small.rsp, m.ram.getUint16(STACK - 4, true)],
    [0x1101, STACK - 4, m.labels.back16! & 0xffff],
  );
});
