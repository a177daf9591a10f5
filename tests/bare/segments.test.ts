/** Segment registers, descriptors, LAR and its kin, far transfers, LDTR and TR, UMIP (SDM vol. 3, chapters 3 and 5). */
import assert from "node:assert/strict";
import { test } from "node:test";
import { SegAttr, SegIndex, Vp } from "../../src/cpu/layout.js";
import { CODE, GDT, Selector, STACK, SystemMachine, TSS } from "./system-machine.js";

const free = Selector.free;
/** A descriptor of every kind, from `free` on: name, high word, selector with RPL 0. */
const KINDS = [
  ["read-only data", 0x00cf9100],
  ["data, level 3", 0x00cff300],
  ["data, not present", 0x00cf1300],
  ["execute-only code", 0x00af9900],
  ["readable code", 0x00af9b00],
  ["conforming code", 0x00af9f00],
  ["LDT", 0x00008200],
  ["free TSS", 0x00008900],
  ["busy TSS", 0x00008b00],
  ["call gate", 0x00008c00],
  ["interrupt gate", 0x00008e00],
  ["80286 TSS", 0x00008100],
  ["stack, not accessed", 0x00cf9200],
] as const;
type Kind = (typeof KINDS)[number][0];
const selectorOf = (kind: Kind): number => free + KINDS.findIndex(([k]) => k === kind) * 8;
function machine(): SystemMachine {
  const m = new SystemMachine();
  KINDS.forEach(([, high], i) => {
    m.descriptor(free + i * 8, high, 0x12340000 | 0x5678);
  });
  return m;
}

test("loads of DS and SS: what each kind of descriptor gives", () => {
  const m = machine();
  const load = (register: string, selector: number, cpl: 0 | 3 = 0): readonly [number, number | undefined] => {
    m.load(`mov eax, ${selector}\nmov ${register}, eax\nmov ebx, ${register}\nud2`);
    m.level(cpl);
    const o = m.run();
    return [o.vector, o.error];
  };
  const good = [6, undefined] as const;
  const bad = (vector: number, kind: Kind): readonly [number, number] => [vector, selectorOf(kind)];
  const ds: readonly [Kind, readonly [number, number | undefined]][] = [
    ["read-only data", good],
    ["data, level 3", good],
    ["data, not present", bad(11, "data, not present")],
    ["execute-only code", bad(13, "execute-only code")],
    ["readable code", good],
    ["conforming code", good],
    ["LDT", bad(13, "LDT")],
    ["free TSS", bad(13, "free TSS")],
    ["call gate", bad(13, "call gate")],
  ];
  for (const [kind, result] of ds) assert.deepEqual(load("ds", selectorOf(kind)), result, `DS, ${kind}`);
  const ss: readonly [Kind, readonly [number, number | undefined]][] = [
    ["read-only data", bad(13, "read-only data")],
    ["data, level 3", bad(13, "data, level 3")],
    ["readable code", bad(13, "readable code")],
    ["call gate", bad(13, "call gate")],
    ["data, not present", bad(12, "data, not present")],
    ["stack, not accessed", good],
  ];
  for (const [kind, result] of ss) assert.deepEqual(load("ss", selectorOf(kind)), result, `SS, ${kind}`);
  // privilege: RPL and CPL against DPL; conforming code has none
  assert.deepEqual(load("es", selectorOf("read-only data") | 1), [13, selectorOf("read-only data")]);
  assert.deepEqual(load("es", selectorOf("read-only data") | 3, 3), [13, selectorOf("read-only data")]);
  assert.deepEqual(load("es", selectorOf("conforming code") | 3, 3), good);
  assert.deepEqual(load("ss", Selector.datau, 3), good);
  assert.deepEqual(load("ss", Selector.datau & ~3, 3), [13, Selector.datau & ~3]);
  // tables: beyond the GDT, an LDT that is not there
  assert.deepEqual(load("ds", 0x200), [13, 0x200]);
  assert.deepEqual(load("ds", 0x0f), [13, 0x0c]);
  // null selectors: any but SS; SS at level 0 of 64-bit code, with RPL 0
  for (const s of ["ds", "es", "fs", "gs"]) assert.deepEqual(load(s, 3, 3), good, s);
  assert.deepEqual([load("ss", 0), load("ss", 1), load("ss", 3, 3)], [good, [13, 0], [13, 0]]);
  assert.equal(m.execute("mov cs, eax").vector, 6);
});

test("a load takes base, limit and attributes, and sets the accessed bit", () => {
  const m = machine();
  m.descriptor(free, 0xab409256, 0x34125678);
  m.execute(`mov eax, ${free}\nmov fs, eax\nhlt`);
  assert.deepEqual(m.segment(SegIndex.fs), { selector: free, attributes: 0x4093, limit: 0x5678, base: 0xab563412 });
  assert.equal(m.ram.getUint8(GDT + free + 5), 0x93);
  assert.equal(m.vp.register64(Vp.segBase + 32), 0xab563412n);
  // a null selector takes FS.base to 0 on Intel's processors
  m.execute("xor eax, eax\nmov fs, eax\nhlt");
  assert.deepEqual(m.segment(SegIndex.fs), { selector: 0, attributes: SegAttr.unusable, limit: 0, base: 0 });
  // the accessed bit cannot be set: #PF, and the register keeps its value
  m.descriptor(free, 0x00cf9200, 0xffff);
  m.ram.setUint32(0x10000 + (GDT >> 12) * 8, GDT | 0x61, true);
  m.vp.runtime.resetTlb();
  const o = m.execute(`mov eax, ${free}\nmov es, eax\nhlt`);
  assert.deepEqual([o.vector, o.error, m.segment(SegIndex.es).selector], [14, 3, Selector.data]);
});

test("LAR, LSL, VERR, VERW", () => {
  const m = machine();
  const inspect = (selector: number, cpl: 0 | 3): string => {
    m.load(
      `mov eax, ${selector}\nmov ebx, -1\nmov ecx, -1\nlar ebx, eax\nsetz r8b\nlsl ecx, eax\nsetz r9b\nverr ax\nsetz r10b\nverw ax\nsetz r11b\nud2`,
    );
    m.level(cpl);
    m.set({ r8: 0, r9: 0, r10: 0, r11: 0 });
    assert.equal(m.run().vector, 6);
    const yes = (["r8", "r9", "r10", "r11"] as const).map((r, i) => (m.number(r) === 1 ? "alrw"[i] : "-")).join("");
    const rights = m.number("rbx");
    const limit = m.number("rcx");
    if (yes[0] === "-") assert.equal(rights, 0xffffffff);
    else assert.equal(rights & 0xf0ff00, m.ram.getUint32(GDT + (selector & ~7) + 4, true) & 0xf0ff00);
    const high = m.ram.getUint32(GDT + (selector & ~7) + 4, true);
    const raw = 0x5678 | (high & 0xf0000);
    assert.equal(limit, yes[1] === "-" ? 0xffffffff : high & 0x800000 ? ((raw << 12) | 0xfff) >>> 0 : raw);
    return yes;
  };
  const expected: Record<Kind, string> = {
    "read-only data": "alr-",
    "data, level 3": "alrw",
    "data, not present": "alrw",
    "execute-only code": "al--",
    "readable code": "alr-",
    "conforming code": "alr-",
    LDT: "al--",
    "free TSS": "al--",
    "busy TSS": "al--",
    "call gate": "a---",
    "interrupt gate": "----",
    "80286 TSS": "----",
    "stack, not accessed": "alrw",
  };
  for (const [kind] of KINDS) {
    assert.equal(inspect(selectorOf(kind), 0), expected[kind], kind);
    // at level 3 only what is of level 3, or conforming
    assert.equal(
      inspect(selectorOf(kind) | 3, 3),
      kind === "data, level 3" || kind === "conforming code" ? expected[kind] : "----",
      `${kind} at level 3`,
    );
  }
  m.load("xor eax, eax\nlar ebx, eax\nsetz cl\nmov eax, 0x200\nlsl ebx, eax\nsetz ch\nhlt");
  m.level(0);
  m.set({ rcx: 0xffff });
  m.run();
  assert.equal(m.number("rcx"), 0);
  // a table that is not mapped is #PF, not a "no"
  m.ram.setUint32(0x10000 + 0x50, 0, true);
  m.vp.setRegister(Vp.gdtrBase, 0xa000);
  m.vp.runtime.resetTlb();
  m.load("lar ebx, eax\nhlt");
  m.level(0);
  m.set({ rax: 8 });
  assert.equal(m.run().vector, -2); // and then the handler's own segment is not found either
});

test("LLDT and LTR: kinds, the busy bit, an LDT in use", () => {
  const m = machine();
  // 16 bytes each in long mode: keep their upper halves zero
  for (let at = free; at < free + 0x40; at += 8) m.descriptor(at, 0, 0);
  m.descriptor(free, 0x00008200, (0x6800 << 16) | 0xff);
  m.descriptor(free + 0x10, 0x00008900, (TSS << 16) | 0x1fff);
  m.descriptor(free + 0x20, 0x00000200 | (0x8200 - 0x8000), 0xff);
  m.descriptor(free + 0x30, 0x00008100, 0xff);
  const load = (name: string, selector: number, cpl: 0 | 3 = 0): readonly (number | undefined)[] => {
    const o = m.execute(`mov eax, ${selector}\n${name} ax\nud2`, cpl);
    return [o.vector, o.error];
  };
  assert.deepEqual(load("lldt", free), [6, undefined]);
  assert.deepEqual(m.segment(SegIndex.ldtr), { selector: free, attributes: 0x82, limit: 0xff, base: 0x6800 });
  m.ram.setUint32(0x6808, 0xffff, true);
  m.ram.setUint32(0x680c, 0x00cf9300, true);
  assert.deepEqual(
    [m.execute("mov eax, 0x0c\nmov es, eax\nsldt ebx\nud2").vector, m.segment(SegIndex.es).selector, m.number("rbx")],
    [6, 0x0c, free],
  );
  assert.deepEqual(load("lldt", 0), [6, undefined]);
  assert.equal(m.segment(SegIndex.ldtr).attributes & SegAttr.unusable, SegAttr.unusable);
  assert.deepEqual(load("lldt", free + 0x10), [13, free + 0x10]);
  assert.deepEqual(load("lldt", free + 4), [13, free + 4]);
  assert.deepEqual(load("lldt", free + 0x20), [11, free + 0x20]);
  assert.deepEqual(load("ltr", free + 0x10), [6, undefined]);
  assert.equal(m.ram.getUint8(GDT + free + 0x15), 0x8b);
  assert.deepEqual(load("ltr", free + 0x10), [13, free + 0x10], "busy");
  assert.deepEqual(load("ltr", 0), [13, 0]);
  assert.deepEqual(load("ltr", free), [13, free]);
  assert.deepEqual(load("ltr", free + 0x30), [13, free + 0x30], "a TSS of the 80286");
  assert.deepEqual(load("ltr", 0x1f8), [13, 0x1f8], "half a descriptor");
  assert.deepEqual(load("ltr", free + 0x10, 3), [13, 0]);
});

test("UMIP keeps the tables' addresses from level 3", () => {
  const m = machine();
  const names = ["sgdt [rbx]", "sidt [rbx]", "sldt ax", "str ax", "smsw ax"];
  for (const umip of [false, true]) {
    m.vp.setRegister(Vp.cr4, umip ? 0xea0 : 0x6a0);
    for (const name of names) {
      const o = m.execute(`mov ebx, 0x30000\nx: ${name}\nud2`, 3);
      assert.deepEqual([o.vector, o.error], umip ? [13, 0] : [6, undefined], name);
      assert.equal(m.execute(`mov ebx, 0x30000\nx: ${name}\nud2`, 0).vector, 6);
    }
  }
  m.execute("mov ebx, 0x30000\nsgdt [rbx]\nsmsw ecx\nhlt");
  assert.deepEqual(
    [m.ram.getUint16(0x30000, true), m.read64(0x30002), m.number("rcx")],
    [0x1ff, BigInt(GDT), 0x80010033],
  );
  m.load("lgdt [rbx]\nud2");
  m.level(0);
  m.ram.setBigUint64(0x30002, 0x8000_0000_0000n, true);
  m.set({ rbx: 0x30000 });
  assert.deepEqual(
    [m.run()].map((o) => [o.vector, o.error]),
    [[13, 0]],
  );
});

test("far jumps, calls and returns between 64-bit and 32-bit code", () => {
  const m = machine();
  // 64 -> 32 -> 64, on one stack
  m.load(`call dword far [rel to32]\nmov rdx, rsp\nhlt\nto32: dd 0x41000\ndw ${Selector.code32}`);
  m.load("mov ebx, esp\ninc eax\ninc eax\nretf", 0x41000, 32);
  m.level(0);
  m.set({ rax: 0xffff_ffff_0000_0000n });
  let o = m.run();
  assert.deepEqual(
    [o.vector, o.cs, m.number("rax"), m.number("rbx"), m.number("rdx")],
    [-1, Selector.code, 2, STACK - 8, STACK],
  );
  assert.deepEqual([m.ram.getUint32(STACK - 8, true), m.ram.getUint32(STACK - 4, true)], [CODE + 6, Selector.code]);
  // REX.W: slots of 8 bytes; RET with a release
  m.load(`call qword far [rel to64]\nhlt\nto64: dq 0x41000\ndw ${Selector.code}`);
  m.load("mov rbx, [rsp + 8]\nretfq 16", 0x41000);
  m.level(0);
  o = m.run();
  assert.deepEqual([o.vector, m.number("rbx"), o.rsp], [-1, Selector.code, STACK + 16]);
  // outwards: to level 3, with the stack behind the release
  m.load(`push ${Selector.datau}\npush 0x27000\npush 1\npush ${Selector.codeu}\npush 0x41000\nretfq 8`);
  m.load("ud2", 0x41000);
  m.level(0);
  o = m.run();
  assert.deepEqual([o.vector, o.rip, o.cs, o.ss, o.rsp], [6, 0x41000, Selector.codeu, Selector.datau, 0x27008]);
  assert.equal(m.segment(SegIndex.ds).attributes & SegAttr.unusable, SegAttr.unusable);
});

test("bad targets of far transfers fault before anything is pushed", () => {
  const m = machine();
  m.descriptor(free + 0x68, 0x00ef9b00, 0xffff);
  m.descriptor(free + 0x70, 0x00af1b00, 0xffff);
  const cases: readonly [string, number, bigint, number, number][] = [
    ["null", 3, 0n, 13, 0],
    ["data", Selector.data, 0n, 13, Selector.data],
    ["outer level", Selector.codeu, 0n, 13, Selector.codeu & ~3],
    ["RPL above CPL", Selector.code | 3, 0n, 13, Selector.code],
    ["L and D", free + 0x68, 0n, 13, free + 0x68],
    ["not present", free + 0x70, 0n, 11, free + 0x70],
    ["not canonical", Selector.code, 0x8000_0000_0000n, 13, 0],
    ["beyond the GDT", 0x1000, 0n, 13, 0x1000],
  ];
  for (const [name, selector, offset, vector, error] of cases) {
    for (const op of ["jmp", "call"]) {
      m.load(`${op} qword far [rbx]`);
      m.level(0);
      m.set({ rbx: 0x30000 });
      m.ram.setBigUint64(0x30000, offset, true);
      m.ram.setUint16(0x30008, selector, true);
      m.ram.setBigUint64(STACK - 8, 0x5555n, true);
      m.gate(vector, { ist: 1 });
      const o = m.run();
      assert.deepEqual(
        [o.vector, o.error, o.rip, o.rsp, o.cs],
        [vector, error, CODE, STACK, Selector.code],
        `${op}, ${name}`,
      );
      assert.equal(m.read64(STACK - 8), 0x5555n);
      m.gate(vector, {});
    }
  }
});
