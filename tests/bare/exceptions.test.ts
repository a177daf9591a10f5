/** Delivery in long mode: saved state, error codes, stacks, gates, and what happens when delivery itself faults (SDM vol. 3, chapter 6). */
import assert from "node:assert/strict";
import { test } from "node:test";
import { SegAttr, SegIndex, Vp } from "../../src/cpu/layout.js";
import { CODE, GDT, IST1, IST2, RSP0, Selector, STACK, SystemMachine, TSS, USER_STACK } from "./system-machine.js";

const RF = 0x10000;
/** Page of the identity map. */
const pte = (page: number): number => 0x10000 + (page >> 12) * 8;

test("a fault pushes the faulting instruction, RF set, and all that the manual says", () => {
  const m = new SystemMachine();
  for (const cpl of [0, 3] as const) {
    m.load("stc\nnop\nfault: div ecx");
    m.level(cpl);
    m.set({ rcx: 0, rsp: 0x20123 });
    const o = m.run();
    assert.deepEqual(o, {
      vector: 0,
      error: undefined,
      rip: m.labels.fault,
      cs: cpl === 0 ? Selector.code : Selector.codeu,
      rflags: 2 | 1 | RF,
      rsp: 0x20123,
      ss: cpl === 0 ? Selector.data : Selector.datau,
      sp: cpl === 0 ? 0x20120 - 40 : RSP0 - 40,
    });
    assert.equal(m.segment(SegIndex.cs).selector, Selector.code);
    // the stack segment of an inner level is null, with the level as its RPL
    assert.equal(m.segment(SegIndex.ss).selector, cpl === 0 ? Selector.data : 0);
    assert.equal(m.vp.view.getUint32(m.vp.base + Vp.cpl, true), 0);
  }
});

test("vectors, error codes and saved RIP of program exceptions", () => {
  const m = new SystemMachine();
  for (const n of [1, 3, 4, 0x80]) m.gate(n, { type: 0xee });
  const cases: readonly [
    source: string,
    cpl: 0 | 3,
    vector: number,
    error: number | undefined,
    after: number,
    rf: boolean,
  ][] = [
    ["ud2", 3, 6, undefined, 0, true],
    ["int3", 3, 3, undefined, 1, false],
    ["db 0xf1", 3, 1, undefined, 1, false],
    ["int 0x80", 3, 0x80, undefined, 2, false],
    ["int 0x40", 3, 13, 0x40 * 8 + 2, 0, true],
    ["int 0x40", 0, 0x40, undefined, 2, false],
    ["hlt", 3, 13, 0, 0, true],
    ["cli", 3, 13, 0, 0, true],
    ["mov rax, cr0", 3, 13, 0, 0, true],
    ["mov rax, cr1", 0, 6, undefined, 0, true],
    ["db 0x0e", 0, 6, undefined, 0, true],
    ["db 0xce", 0, 6, undefined, 0, true],
    ["lock nop", 0, 6, undefined, 0, true],
    ["mov eax, 0x1234\nmov ds, eax", 3, 13, 0x1234, 5, true],
    ["mov rbx, 0x7ffffffffffc\nmov eax, [rbx]", 3, 14, 4, 10, true],
    // an operand whose end is no canonical address, whatever its beginning is
    ["mov rbx, 0x7fffffffffff\nmov eax, [rbx]", 3, 13, 0, 10, true],
    ["mov rbx, 0x7ffffffffffd\nadd [rbx], eax", 3, 13, 0, 10, true],
    ["mov rbp, 0x7ffffffffffd\nmov [rbp], eax", 3, 12, 0, 10, true],
    ["mov rsp, 0x7ffffffffffc\npop rax", 3, 12, 0, 10, true],
    // of 15 bytes and of 16
    ["times 13 db 0x26\nud2", 0, 6, undefined, 0, true],
    ["times 14 db 0x26\nud2", 0, 13, 0, 0, true],
    ["times 15 db 0x26", 0, 13, 0, 0, true],
    ["mov rbx, 0x7fffffffffff\nadd byte [rbx], 1", 0, 14, 2, 10, true],
  ];
  for (const [source, cpl, vector, error, after, rf] of cases) {
    const o = m.execute(source, cpl);
    assert.deepEqual([o.vector, o.error, o.rip - CODE, (o.rflags & RF) !== 0], [vector, error, after, rf], source);
  }
});

test("interrupt gates clear IF, trap gates do not; TF, NT and RF are cleared, AC and DF stay", () => {
  const m = new SystemMachine();
  m.gate(0x81, { type: 0xef });
  m.gate(0x80, { type: 0xee });
  for (const [n, now] of [
    [0x80, 0x40402],
    [0x81, 0x40602],
  ] as const) {
    m.load(`int ${n}`);
    m.level(3);
    m.vp.runtime.setRflags(0x44602);
    const o = m.run();
    assert.deepEqual([o.vector, o.rflags, m.vp.runtime.rflags() >>> 0], [n, 0x44602, now]);
  }
});

test("a stack of the TSS, by IST, at any level; aligned to 16", () => {
  const m = new SystemMachine();
  m.gate(6, { ist: 2 });
  m.ram.setUint32(TSS + 0x2c, IST2 + 7, true);
  for (const cpl of [0, 3] as const) {
    const o = m.execute("ud2", cpl);
    assert.deepEqual([o.vector, o.sp, o.rsp], [6, IST2 - 40, cpl === 0 ? STACK : USER_STACK]);
    // the stack segment is replaced only when the level changes
    assert.equal(m.segment(SegIndex.ss).selector, cpl === 0 ? Selector.data : 0);
  }
});

test("bad gates and bad targets: error codes with IDT and EXT", () => {
  const m = new SystemMachine();
  m.gate(13, { ist: 1 });
  m.gate(11, { ist: 1 });
  m.gate(10, { ist: 1 });
  m.descriptor(Selector.free, 0x00af1b00, 0xffff); // not present
  m.descriptor(Selector.free + 8, 0x00affb00, 0xffff); // level 3
  m.descriptor(Selector.free + 16, 0x00ef9b00, 0xffff); // L and D
  const free = Selector.free;
  const gates: readonly [string, Parameters<SystemMachine["gate"]>[1], number, number][] = [
    ["wrong type", { type: 0x85 }, 13, -1],
    ["not present", { type: 0x0e }, 11, -1],
    ["null selector", { selector: 0 }, 13, 0],
    ["segment not present", { selector: free }, 11, free],
    ["segment of an outer level", { selector: free + 8 }, 13, free + 8],
    ["L and D", { selector: free + 16 }, 13, free + 16],
    ["32-bit code", { selector: Selector.code32 }, 13, Selector.code32],
    ["data", { selector: Selector.data }, 13, Selector.data],
    ["beyond the GDT", { selector: 0x1f8 + 8 }, 13, 0x200],
    ["LDT without one", { selector: 0x0c }, 13, 0x0c],
  ];
  for (const [name, gate, vector, error] of gates) {
    const idt = error === -1;
    // an exception on the way: EXT
    m.gate(6, gate);
    let o = m.execute("ud2");
    assert.deepEqual([o.vector, o.error, o.rip], [vector, (idt ? 6 * 8 + 2 : error) | 1, CODE], name);
    // the program's own INT: no EXT
    m.gate(6, {});
    m.gate(0x50, gate);
    o = m.execute("int 0x50");
    assert.deepEqual([o.vector, o.error, o.rip], [vector, idt ? 0x50 * 8 + 2 : error, CODE], name);
    m.gate(0x50, {});
  }
  // INT1 is not asked for its level, and counts as external
  m.gate(1, { type: 0x0e });
  assert.deepEqual(
    [m.execute("db 0xf1", 3)].map((o) => [o.vector, o.error]),
    [[11, 1 * 8 + 2 + 1]],
  );
  // beyond the IDT
  m.vp.view.setUint32(m.vp.base + Vp.idtrLimit, 0x3f * 16 + 14, true);
  assert.deepEqual(
    [m.execute("int 0x3f")].map((o) => [o.vector, o.error]),
    [[13, 0x3f * 8 + 2]],
  );
});

test("a TSS that is too short for the stack is #TS with its selector", () => {
  const m = new SystemMachine();
  m.vp.setSegment(SegIndex.tr, { selector: Selector.tss, attributes: 0x8b, limit: 0x2b, base: TSS });
  m.gate(10, { ist: 1 });
  m.gate(6, { ist: 2 });
  const o = m.execute("ud2");
  assert.deepEqual([o.vector, o.error, o.rip, o.sp], [10, Selector.tss | 1, CODE, IST1 - 48]);
});

test("a conforming handler runs at the program's level, on its stack", () => {
  const m = new SystemMachine();
  m.descriptor(Selector.free, 0x00af9f00, 0xffff);
  m.load("mov rbx, rsp\nud2", 0x41000);
  m.gate(0x80, { type: 0xee, selector: Selector.free, offset: 0x41000 });
  const o = m.execute("int 0x80", 3);
  assert.deepEqual([o.vector, o.cs, m.number("rbx")], [6, Selector.free | 3, USER_STACK - 40]);
});

test("double faults by the table of classes; a fault in its delivery is the end", () => {
  const m = new SystemMachine();
  m.gate(8, { ist: 1 });
  const absent = 0x3ff000;
  m.ram.setUint32(pte(absent), 0, true);
  const first = {
    de: "xor ecx, ecx\nfault: div ecx",
    gp: "fault: mov cr0, rax",
    pf: `fault: mov al, [${absent}]`,
    ud: "fault: ud2",
  };
  const spoil = {
    // the handler's gate is not present: #NP
    gate: (vector: number): void => m.gate(vector, { type: 0x0e }),
    // the handler's stack is not there: #PF
    stack: (vector: number): void => m.gate(vector, { ist: 2 }),
  };
  const expected: readonly [keyof typeof first, number, keyof typeof spoil, number, number | undefined][] = [
    ["de", 0, "gate", 8, 0],
    ["de", 0, "stack", 14, 2],
    ["gp", 13, "gate", 8, 0],
    ["gp", 13, "stack", 14, 2],
    ["pf", 14, "gate", 8, 0],
    ["pf", 14, "stack", 8, 0],
    ["ud", 6, "gate", 11, 6 * 8 + 3],
    ["ud", 6, "stack", 14, 2],
  ];
  m.ram.setUint32(TSS + 0x2c, absent + 0x800, true);
  for (const [name, vector, how, second, error] of expected) {
    m.gate(14, {});
    spoil[how](vector);
    m.vp.setRegister(Vp.cr2, 0);
    m.load(first[name]);
    m.level(3);
    const o = m.run();
    assert.deepEqual([o.vector, o.error, o.rip], [second, error, m.labels.fault], `${name}, ${how}`);
    // CR2 is that of the last page fault
    if (how === "stack") assert.equal(m.vp.register64(Vp.cr2), BigInt(absent + 0x7f8), name);
    m.gate(vector, {});
  }
  // INT n is of no class: its delivery's faults are just faults
  m.gate(0x50, { type: 0x6e });
  assert.deepEqual(
    [m.execute("int 0x50", 3)].map((o) => [o.vector, o.error]),
    [[11, 0x50 * 8 + 2]],
  );
  // and nothing can follow a double fault
  m.gate(13, { type: 0x0e });
  m.gate(8, { type: 0x0e });
  assert.equal(m.execute("mov cr0, rax", 3).vector, -2);
});

test("a fault in delivery leaves the processor where it was", () => {
  const m = new SystemMachine();
  m.gate(0x50, { type: 0xef, ist: 2 });
  m.ram.setUint32(TSS + 0x2c, 0x300010, true); // two slots there, the third is in the page before
  m.ram.setUint32(pte(0x2ff000), 0, true);
  m.load("int 0x50");
  m.level(3);
  m.vp.runtime.setRflags(0x642);
  const o = m.run();
  assert.deepEqual(
    [o.vector, o.error, o.rip, o.cs, o.ss, o.rsp, o.rflags],
    [14, 2, CODE, Selector.codeu, Selector.datau, USER_STACK, 0x642 | RF],
  );
  assert.equal(m.vp.register64(Vp.cr2), 0x2ffff8n);
});

test("a stack that is not canonical is #SS(EXT), or #SS(0) for INT", () => {
  const m = new SystemMachine();
  m.gate(12, { ist: 1 });
  m.ram.setBigUint64(TSS + 4, 0x8000_0000_0100n, true);
  for (const [source, error] of [
    ["ud2", 1],
    ["int 0x50", 0],
  ] as const) {
    m.gate(0x50, { type: 0xee });
    const o = m.execute(source, 3);
    assert.deepEqual([o.vector, o.error], [12, error]);
  }
});

test("from compatibility mode RIP is pushed relative to CS, and the code's descriptor gets its accessed bit", () => {
  const m = new SystemMachine();
  m.descriptor(Selector.code, 0x00af9a00, 0xffff);
  m.load("int3\nud2", CODE, 32);
  m.code32(0);
  m.vp.setSegment(SegIndex.cs, {
    selector: Selector.code32,
    attributes: 0x9b | SegAttr.big,
    limit: 0xfffff,
    base: 0x30000,
  });
  m.vp.runtime.updateMode();
  const o = m.run();
  assert.deepEqual([o.vector, o.rip, o.cs], [3, CODE + 1 - 0x30000, Selector.code32]);
  assert.equal(m.ram.getUint8(GDT + Selector.code + 5), 0x9b);
  assert.equal(m.segment(SegIndex.cs).base, 0);
});
