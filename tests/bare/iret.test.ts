/** IRET in long mode: to the same level, outwards, to 32-bit code; bad frames (SDM vol. 2, IRET). */
import assert from "node:assert/strict";
import { test } from "node:test";
import { SegAttr, SegIndex } from "../../src/cpu/layout.js";
import { CODE, Selector, STACK, SystemMachine } from "./system-machine.js";

/** Runs IRETQ at level 0 with a frame on the stack. */
function iret(
  m: SystemMachine,
  frame: { rip: number | bigint; cs: number; flags?: number; rsp?: number | bigint; ss: number },
  rflags = 2,
): ReturnType<SystemMachine["run"]> {
  m.load("iretq", CODE);
  m.level(0);
  m.vp.runtime.setRflags(rflags);
  m.set({ rsp: STACK - 40 });
  [frame.rip, frame.cs, frame.flags ?? 2, frame.rsp ?? 0x27ff0, frame.ss].forEach((v, i) => {
    m.ram.setBigUint64(STACK - 40 + i * 8, BigInt(v), true);
  });
  return m.run();
}
const TARGET = 0x41000;

test("to the same level, RSP and SS come from the frame", () => {
  const m = new SystemMachine();
  m.load("hlt", TARGET);
  const o = iret(m, { rip: TARGET, cs: Selector.code, flags: 0x246, rsp: 0x12345, ss: Selector.data });
  assert.deepEqual([o.vector, o.rip, o.rsp, o.rflags], [-1, TARGET + 1, 0x12345, 0x246]);
  // SS may be null at level 0
  assert.deepEqual(
    [iret(m, { rip: TARGET, cs: Selector.code, ss: 0 }).vector, m.segment(SegIndex.ss).selector],
    [-1, 0],
  );
});

test("to level 3, 64-bit and 32-bit; segments of the inner level become null", () => {
  const m = new SystemMachine();
  for (const bits of [64, 32] as const) {
    m.load("ud2", TARGET, bits);
    const cs = bits === 64 ? Selector.codeu : Selector.code32u;
    const o = iret(m, { rip: TARGET, cs, rsp: 0x27ff0, ss: Selector.datau, flags: 0x202 });
    assert.deepEqual([o.vector, o.rip, o.cs, o.rsp, o.ss], [6, TARGET, cs, 0x27ff0, Selector.datau]);
    for (const s of [SegIndex.ds, SegIndex.es, SegIndex.fs, SegIndex.gs])
      assert.equal(m.segment(s).attributes & SegAttr.unusable, SegAttr.unusable);
  }
  // 32-bit: INC EAX is 40, a REX prefix in 64-bit code
  m.load("inc eax\ninc eax\nint 0x50", TARGET, 32);
  m.gate(0x50, { type: 0xee });
  m.set({ rax: 0xffff_ffff_ffff_fffen });
  assert.deepEqual(
    [iret(m, { rip: TARGET, cs: Selector.code32u, ss: Selector.datau }).vector, m.get("rax")],
    [0x50, 0n],
  );
});

test("outwards, a null selector loses its RPL, and FS keeps its base", () => {
  const m = new SystemMachine();
  m.load("ud2", TARGET);
  m.load(`mov eax, 3
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov rax, cr4
    or rax, 0x10000
    mov cr4, rax
    mov eax, 0x123000
    wrfsbase rax
    push ${Selector.datau}
    push 0x27ff0
    push 0x202
    push ${Selector.codeu}
    push ${TARGET}
    iretq`);
  m.level(0);
  const o = m.run();
  assert.deepEqual([o.vector, o.rip], [6, TARGET]);
  for (const s of [SegIndex.ds, SegIndex.es, SegIndex.fs, SegIndex.gs]) assert.equal(m.segment(s).selector, 0);
  assert.equal(Number(m.segment(SegIndex.fs).base), 0x123000);
});

test("which flags a level may change", () => {
  const m = new SystemMachine();
  m.load("hlt", TARGET);
  const all = 0x3f7fd7;
  // TF is left out: it would trap. VIF and VIP (19, 20) are the supervisor's
  assert.equal(iret(m, { rip: TARGET, cs: Selector.code, ss: 0, flags: all & ~0x20100 }).rflags, all & ~0x20100);
  // at level 3: neither IOPL nor IF
  m.load("push 0x2b\npush 0x27000\npush 0x247ed7\npush 0x33\npush after\niretq\nafter: ud2");
  m.level(3);
  const o = m.run();
  assert.deepEqual([o.vector, o.rip, o.rflags & ~0x10000], [6, m.labels.after, 0x244cd7]);
});

test("bad frames are #GP, #NP or #SS with the selector, and change nothing", () => {
  const m = new SystemMachine();
  m.descriptor(Selector.free, 0x00af1b00, 0xffff);
  m.descriptor(Selector.free + 8, 0x00cf7300, 0xffff);
  m.descriptor(Selector.free + 16, 0x00effb00, 0xffff);
  m.descriptor(Selector.free + 24, 0x0040fb00, 0x0fff); // 32-bit code of 4 KiB
  const free = Selector.free;
  const cases: readonly [string, Parameters<typeof iret>[1], number, number][] = [
    ["null CS", { rip: TARGET, cs: 3, ss: Selector.datau }, 13, 0],
    ["data as CS", { rip: TARGET, cs: Selector.datau, ss: Selector.datau }, 13, Selector.datau & ~3],
    ["beyond the table", { rip: TARGET, cs: 0x203, ss: Selector.datau }, 13, 0x200],
    ["RPL is not DPL", { rip: TARGET, cs: Selector.code | 3, ss: Selector.datau }, 13, Selector.code],
    ["CS not present", { rip: TARGET, cs: free, ss: Selector.data }, 11, free],
    ["L and D", { rip: TARGET, cs: free + 16 + 3, ss: Selector.datau }, 13, free + 16],
    ["RIP not canonical", { rip: 0x8000_0000_0000n, cs: Selector.codeu, ss: Selector.datau }, 13, 0],
    ["EIP beyond the limit", { rip: 0x1000, cs: free + 24 + 3, ss: Selector.datau }, 13, 0],
    ["null SS at level 3", { rip: TARGET, cs: Selector.codeu, ss: 3 }, 13, 0],
    ["null SS with 32-bit code", { rip: TARGET, cs: Selector.code32, ss: 0 }, 13, 0],
    ["null SS with another RPL", { rip: TARGET, cs: Selector.code, ss: 1 }, 13, 0],
    ["SS of another level", { rip: TARGET, cs: Selector.codeu, ss: Selector.data | 3 }, 13, Selector.data],
    ["SS with another RPL", { rip: TARGET, cs: Selector.codeu, ss: Selector.datau & ~3 }, 13, Selector.datau & ~3],
    ["code as SS", { rip: TARGET, cs: Selector.codeu, ss: Selector.codeu }, 13, Selector.codeu & ~3],
    ["SS not present", { rip: TARGET, cs: Selector.codeu, ss: free + 8 + 3 }, 12, free + 8],
  ];
  for (const [name, frame, vector, error] of cases) {
    const o = iret(m, { ...frame, flags: 0x244ed7 });
    assert.deepEqual(
      [o.vector, o.error, o.rip, o.rsp, o.cs, o.ss, o.rflags],
      [vector, error, CODE, STACK - 40, Selector.code, Selector.data, 0x10002],
      name,
    );
  }
  // long mode has no nested tasks
  assert.deepEqual(
    [iret(m, { rip: TARGET, cs: Selector.code, ss: 0 }, 0x4002)].map((o) => [o.vector, o.error, o.rip]),
    [[13, 0, CODE]],
  );
});

test("from compatibility mode: 32-bit frames; the stack only when the level changes", () => {
  const m = new SystemMachine();
  m.load(
    `push dword 0x202\npush dword ${Selector.code32}\npush dword next\niretd\nnext: mov ebx, esp\njmp far [pointer]\npointer: dd done\ndw ${Selector.code}\ndone:`,
    CODE,
    32,
  );
  m.ram.setUint8(m.labels.done!, 0xf4);
  m.code32(0);
  const o = m.run();
  assert.deepEqual(
    [o.vector, o.rip, m.number("rbx"), o.cs, o.rflags],
    [-1, m.labels.done! + 1, STACK, Selector.code, 0x202],
  );
  // inwards is not for IRET
  m.load(`push dword 0x202\npush dword ${Selector.code32}\npush dword 0\niretd`, CODE, 32);
  m.code32(3);
  assert.deepEqual(
    [m.run()].map((x) => [x.vector, x.error]),
    [[13, Selector.code32]],
  );
});
