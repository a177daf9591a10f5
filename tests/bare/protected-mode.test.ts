/** 32-bit and 16-bit code: the stack's instructions, addressing, segment bases, decimal arithmetic, far transfers. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ModeKey, SegIndex, Vp } from "../../src/cpu/layout.js";
import { CODE, DATA, RSP0, Selector, STACK, SystemMachine } from "./system-machine.js";

/** Both surroundings of 32-bit code: protected mode proper, and compatibility mode. */
function* machines(): Generator<{ readonly m: SystemMachine; readonly name: string }> {
  yield { m: new SystemMachine(), name: "compatibility mode" };
  const m = new SystemMachine();
  m.leaveLongMode();
  yield { m, name: "protected mode" };
}
function run32(
  m: SystemMachine,
  source: string,
  registers: Parameters<SystemMachine["set"]>[0] = {},
): ReturnType<SystemMachine["run"]> {
  m.load(source, CODE, 32);
  m.code32(0);
  m.set(registers);
  return m.run();
}

test("PUSH and POP of segment registers: the slot's upper half is left alone", () => {
  for (const { m, name } of machines()) {
    const o = run32(m, "push dword 0x12345678\npop eax\npush ss\npop ss\npush ds\npop es\nhlt");
    assert.deepEqual([o.vector, o.rsp], [-1, STACK], name);
    assert.deepEqual(
      [m.segment(SegIndex.ss).selector, m.segment(SegIndex.es).selector],
      [Selector.data, Selector.data],
    );
    assert.equal(m.ram.getUint32(STACK - 4, true), 0x12340000 | Selector.data, name);
  }
});

test("PUSHA, POPA, PUSH ESP, POP [ESP], PUSH and POP of all kinds", () => {
  for (const { m, name } of machines()) {
    const o = run32(m, "pusha\nmov eax, [esp + 12]\nmov [esp + 16], dword 77\npopa\nhlt", {
      rax: 1,
      rcx: 2,
      rdx: 3,
      rbx: 4,
      rbp: 5,
      rsi: 6,
      rdi: 7,
    });
    assert.deepEqual([o.vector, o.rsp], [-1, STACK], name);
    assert.deepEqual(
      ["rax", "rcx", "rdx", "rbx", "rbp", "rsi", "rdi"].map((r) => m.number(r as "rax")),
      [1, 2, 3, 77, 5, 6, 7],
      name,
    );
    assert.deepEqual(
      [7, 6, 5, 4, 3, 2, 1, 0].map((i) => m.ram.getUint32(STACK - 4 - i * 4, true)),
      [7, 6, 5, STACK, 77, 3, 2, 1],
    );
    run32(
      m,
      "push esp\npop eax\npush 5\npush -2\npop dword [esp + 8]\npop ebx\npush word 0x1234\npop cx\npush dword [data]\npop dword [esp]\nmov edx, esp\nhlt\nalign 4\ndata: dd 0x89abcdef",
      { rcx: 0xffff0000 },
    );
    // POP [ESP + 8] computes its address with ESP moved: 5's slot is ESP, so the value goes to ESP + 8 behind it
    assert.deepEqual(
      [m.number("rax"), m.number("rbx"), m.number("rcx"), m.number("rdx")],
      [STACK, 5, 0xffff1234, STACK],
      name,
    );
    assert.equal(m.ram.getUint32(STACK + 4, true), 0xfffffffe, name);
    run32(
      m,
      "mov esp, 0x30000\npush dword 1\npush dword 2\npush dword 3\npop dword [esp]\nmov eax, [esp]\npop dword [esp + 4]\nhlt",
    );
    assert.deepEqual([m.number("rax"), m.ram.getUint32(0x30000, true), m.number("rsp")], [3, 3, 0x2fffc], name);
  }
});

test("PUSHA and others with a fault in the middle keep ESP", () => {
  const m = new SystemMachine();
  m.ram.setUint32(0x10000 + 0x2f * 8, 0, true);
  m.vp.runtime.resetTlb();
  m.gate(14, { ist: 1 });
  for (const source of ["pusha", "enter 0, 8", "call $+5", "push dword [esp]"]) {
    const before = source === "pusha" || source.startsWith("enter") ? 0x30010 : 0x30000;
    const o = run32(m, source, { rsp: before, rbp: 0x30020 });
    assert.deepEqual([o.vector, o.error, o.rip, o.rsp, m.number("rbp")], [14, 2, CODE, before, 0x30020], source);
  }
  const o = run32(m, "pop dword [ebx]", { rsp: STACK, rbx: 0x2f000 });
  assert.deepEqual([o.vector, o.error, o.rsp], [14, 2, STACK]);
});

test("ENTER with levels and LEAVE, against a model", () => {
  const { m } = machines().next().value!;
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 0, max: 200 }), (levels, bytes) => {
      for (let i = 0; i < 40; i++) m.ram.setUint32(DATA + 0x100 - i * 4, 0x1000 + i, true);
      run32(m, `enter ${bytes}, ${levels}\nmov eax, esp\nmov ebx, ebp\nleave\nhlt`, { rbp: DATA + 0x100 });
      const depth = levels & 31;
      const frame = STACK - 4;
      assert.equal(m.ram.getUint32(frame, true), DATA + 0x100);
      for (let i = 1; i < depth; i++) assert.equal(m.ram.getUint32(frame - i * 4, true), 0x1000 + i);
      if (depth > 0) assert.equal(m.ram.getUint32(frame - depth * 4, true), frame);
      assert.deepEqual(
        [m.number("rax"), m.number("rbx"), m.number("rsp"), m.number("rbp")],
        [frame - depth * 4 - bytes, frame, STACK, DATA + 0x100],
      );
    }),
    { numRuns: 40 },
  );
});

test("CALL, RET and indirect jumps, with a code segment that has a base or none", () => {
  for (const { m, name } of machines()) {
    for (const base of [0, 0x30000]) {
      // assembled for its offset in the segment
      const program = m.load(
        `
        call near f
        mov ebx, g
        call ebx
        mov ecx, h
        jmp ecx
        ud2
      h: mov [${DATA}], dword i
        jmp [${DATA}]
        ud2
      i: call near [cs:table]
        hlt
      f: mov eax, [esp]
        ret
      g: mov edx, [esp]
        push edx
        ret 4
      table: dd j
      j: mov esi, [esp]
        jmp short k
        ud2
      k: ret`,
        CODE - base,
        32,
      );
      m.vp.ram.set(program.bytes, CODE);
      m.vp.runtime.ramWritten(CODE, program.bytes.length);
      m.code32(0);
      m.vp.setSegment(SegIndex.cs, { selector: Selector.code32, attributes: 0xc09b, limit: 0xffffffff, base });
      m.vp.runtime.updateMode();
      const o = m.run(CODE);
      const at = (label: string): number => m.labels[label]!;
      assert.equal(o.vector, -1, `${name}, base ${base}`);
      assert.deepEqual(
        [m.number("rax"), m.number("rdx"), m.number("rsi"), m.number("rsp")],
        [CODE - base + 5, CODE - base + 12, at("f") - 1, STACK],
        `${name}, base ${base}`,
      );
    }
  }
});

test("RET with a release, and 16-bit operands cut EIP", () => {
  const { m } = machines().next().value!;
  m.load("hlt", 0x1234, 32);
  const o = run32(m, "push 5\npush 6\npush word 0\npush word 0x1234\no16 ret 8");
  assert.deepEqual([o.vector, o.rip, o.rsp], [-1, 0x1235, STACK - 2]);
});

test("addressing with 16 bits: all eight forms, wrap at 64 KiB", () => {
  for (const { m, name } of machines()) {
    const forms = ["bx+si", "bx+di", "bp+si", "bp+di", "si", "di", "bp+2", "bx"];
    const rbx = 0xf123,
      rbp = 0xe456,
      rsi = 0x3789,
      rdi = 0xfedc;
    const sums = [rbx + rsi, rbx + rdi, rbp + rsi, rbp + rdi, rsi, rdi, rbp + 2, rbx];
    for (const [extra, text] of [
      [0, ""],
      [0x12, "+0x12"],
      [0x7abc, "+0x7abc"],
    ] as const) {
      const source = forms
        .map(
          (f, i) => `a16 mov byte [${f}${text}], ${i + 1}\na16 lea eax, [${f}${text}]\nmov [${0x3f000 + i * 4}], eax`,
        )
        .join("\n");
      // low memory holds the tables: 16-bit addresses go to a segment of their own
      m.load(`${source.replaceAll("[b", "[ds:b").replaceAll("mov byte [s", "mov byte [ds:s")}\nhlt`, CODE, 32);
      m.code32(0);
      for (const s of [SegIndex.ds, SegIndex.ss])
        m.vp.setSegment(s, { selector: Selector.data, attributes: 0xc093, limit: 0xffffffff, base: 0x200000 });
      m.vp.runtime.updateMode();
      m.vp.ram.fill(0, 0x200000, 0x210000);
      m.set({
        rbx: 0x55550000 + rbx,
        rbp: 0x66660000 + rbp,
        rsi: 0x77770000 + rsi,
        rdi: 0x88880000 + rdi,
        rsp: 0xf000,
      });
      assert.equal(m.run().vector, -1);
      sums.forEach((sum, i) => {
        const at = (sum + extra) & 0xffff;
        assert.equal(m.ram.getUint32(0x200000 + 0x3f000 + i * 4, true), at, `${name}: ${forms[i]}${text}`);
        assert.equal(m.vp.ram[0x200000 + at], i + 1, `${name}: ${forms[i]}${text}`);
      });
    }
  }
});

test("segment bases: data, stack, string and override; linear addresses wrap at 4 GiB", () => {
  for (const { m, name } of machines()) {
    m.load(
      "mov eax, [0x10]\nmov ecx, [ss:0x10]\nmov edx, [es:0x10]\nmov ebx, [fs:0x10]\nmov ebp, 0x10\nmov esi, [ebp]\npush esi\nmov esi, 0x10\nmov edi, 0x20\nes movsd\nmov edi, [gs:0x20010]\nhlt",
      CODE,
      32,
    );
    m.code32(0);
    const bases: readonly (readonly [number, number])[] = [
      [SegIndex.ds, 0x100000],
      [SegIndex.ss, 0x110000],
      [SegIndex.es, 0x120000],
      [SegIndex.fs, 0x130000],
      [SegIndex.gs, 0xffff0000],
    ];
    for (const [s, base] of bases)
      m.vp.setSegment(s, { selector: Selector.data, attributes: 0xc093, limit: 0xffffffff, base });
    for (let i = 0; i < 4; i++) m.ram.setUint32(0x100010 + i * 0x10000, 0xa0 + i, true);
    m.ram.setUint32(0x10010, 0x77, true);
    m.vp.runtime.updateMode();
    m.set({ rsp: 0x1000 });
    const before = m.ram.getUint32(0x10010, true);
    assert.equal(m.run().vector, -1, name);
    assert.deepEqual(
      ["rax", "rcx", "rdx", "rbx", "rdi"].map((r) => m.number(r as "rax")),
      [0xa0, 0xa1, 0xa2, 0xa3, before],
      name,
    );
    assert.deepEqual([m.ram.getUint32(0x110ffc, true), m.ram.getUint32(0x120020, true)], [0xa1, 0xa2], name);
  }
});

test("decimal adjustments, all inputs, against the manual's pseudo-code", () => {
  const { m } = machines().next().value!;
  const CF = 1;
  const AF = 16;
  const ops: Record<
    string,
    (al: number, ah: number, cf: boolean, af: boolean) => readonly [ax: number, cf: boolean, af: boolean]
  > = {
    daa: (al, ah, cf, af) => {
      let r = al;
      let c = false;
      let a = false;
      if ((al & 15) > 9 || af) {
        c = cf || r + 6 > 255;
        r = (r + 6) & 255;
        a = true;
      }
      if (al > 0x99 || cf) {
        r = (r + 0x60) & 255;
        c = true;
      } else c = false;
      return [(ah << 8) | r, c, a];
    },
    das: (al, ah, cf, af) => {
      let r = al;
      let c = false;
      let a = false;
      if ((al & 15) > 9 || af) {
        c = cf || r < 6;
        r = (r - 6) & 255;
        a = true;
      }
      if (al > 0x99 || cf) {
        r = (r - 0x60) & 255;
        c = true;
      }
      return [(ah << 8) | r, c, a];
    },
    aaa: (al, ah, _cf, af) =>
      (al & 15) > 9 || af ? [(((ah << 8) | al) + 0x106) & 0xff0f, true, true] : [(ah << 8) | (al & 15), false, false],
    aas: (al, ah, _cf, af) => {
      if (!((al & 15) > 9 || af)) return [(ah << 8) | (al & 15), false, false];
      const ax = (((ah << 8) | al) - 6) & 0xffff;
      return [((((ax >> 8) - 1) & 255) << 8) | (ax & 15), true, true];
    },
  };
  for (const [name, model] of Object.entries(ops)) {
    // every AX of these with each CF and AF, in one guest loop: AX and flags go in and come out by memory
    m.load(
      `mov esi, 0x100000\nmov ecx, 2048\nl: mov eax, [esi]\nmov bl, [esi + 4]\npushfd\npop edx\nand edx, ~0x11\nor dl, bl\npush edx\npopfd\n${name}\npushfd\npop edx\nmov [esi], eax\nmov [esi + 4], edx\nadd esi, 8\ndec ecx\njnz l\nhlt`,
      CODE,
      32,
    );
    const cases: (readonly [number, number, boolean, boolean])[] = [];
    for (let al = 0; al < 256; al++)
      for (let f = 0; f < 4; f++) for (const ah of [0x00, 0xff]) cases.push([al, ah, (f & 1) !== 0, (f & 2) !== 0]);
    cases.forEach(([al, ah, cf, af], i) => {
      m.ram.setUint32(0x100000 + i * 8, (ah << 8) | al, true);
      m.ram.setUint32(0x100004 + i * 8, (cf ? CF : 0) | (af ? AF : 0), true);
    });
    m.code32(0);
    assert.equal(m.run().vector, -1);
    cases.forEach(([al, ah, cf, af], i) => {
      const [ax, c, a] = model(al, ah, cf, af);
      const f = m.ram.getUint32(0x100004 + i * 8, true);
      const text = `${name} ${al.toString(16)} ah ${ah.toString(16)} cf ${cf} af ${af}`;
      assert.deepEqual([m.ram.getUint32(0x100000 + i * 8, true), (f & CF) !== 0, (f & AF) !== 0], [ax, c, a], text);
      if (name[0] === "d")
        assert.deepEqual([(f & 0x40) !== 0, (f & 0x80) !== 0], [(ax & 255) === 0, (ax & 128) !== 0], text);
    });
  }
});

test("AAM, AAD, SALC, BOUND, ARPL, INTO", () => {
  for (const { m, name } of machines()) {
    run32(
      m,
      "mov eax, 0xff3f\naam\nmov ebx, eax\nmov eax, 0x0603\naad\nmov ecx, eax\nmov eax, 77\ndb 0xd4, 16\nmov edx, eax\nstc\ndb 0xd6\nmov esi, eax\nhlt",
    );
    assert.deepEqual(
      ["rbx", "rcx", "rdx", "rsi"].map((r) => m.number(r as "rax")),
      [0x0603, 63, 0x040d, 0x04ff],
      name,
    );
    assert.equal(run32(m, "db 0xd4, 0").vector, 0, name);
    m.ram.setInt32(DATA, -5, true);
    m.ram.setInt32(DATA + 4, 5, true);
    for (const [v, vector] of [
      [-5, -1],
      [5, -1],
      [-6, 5],
      [6, 5],
    ] as const) {
      const o = run32(m, `bound eax, [${DATA}]\nhlt`, { rax: v >>> 0 });
      assert.deepEqual([o.vector, vector === 5 ? o.rip : CODE], [vector, CODE], `${name} ${v}`);
    }
    run32(m, `arpl ax, bx\nsetz cl\nmov [${DATA}], word 0x13\narpl [${DATA}], bx\nsetz ch\nhlt`, {
      rax: 0x10,
      rbx: 2,
      rcx: 0xffff,
    });
    assert.deepEqual([m.number("rax"), m.number("rcx"), m.ram.getUint16(DATA, true)], [0x12, 0x0001, 0x13], name);
    assert.equal(run32(m, "mov al, 0x7f\nadd al, 1\ninto\nhlt").vector, 4, name);
    assert.equal(run32(m, "mov al, 0x7e\nadd al, 1\ninto\nhlt").vector, -1, name);
  }
});

test("interrupts and IRET in protected mode; an inner level takes its stack from the TSS", () => {
  const m = new SystemMachine();
  m.leaveLongMode();
  m.load("ud2", CODE, 32);
  m.code32(3);
  m.vp.runtime.setRflags(0x202);
  let o = m.run();
  assert.deepEqual(
    [o.vector, o.rip, o.cs, o.ss, o.rsp, o.rflags, o.sp],
    [6, CODE, Selector.code32u, Selector.datau, 0x28000, 0x10202, RSP0 - 20],
  );
  assert.deepEqual(
    [m.segment(SegIndex.ss).selector, m.segment(SegIndex.cs).selector],
    [Selector.data, Selector.code32],
  );
  o = run32(m, "mov eax, 0x1230\nmov ds, eax");
  assert.deepEqual([o.vector, o.error, o.rip, o.sp], [13, 0x1230, CODE + 5, STACK - 16]);
  m.load("ud2", 0x41000, 32);
  o = run32(m, `push ${Selector.datau}\npush 0x27000\npush 0x202\npush ${Selector.code32u}\npush 0x41000\niretd`);
  assert.deepEqual(
    [o.vector, o.rip, o.cs, o.rsp, o.ss, o.rflags],
    [6, 0x41000, Selector.code32u, 0x27000, Selector.datau, 0x10202],
  );
  // a TSS without a stack for the level: #TS, whose own delivery needs it too
  m.vp.setSegment(SegIndex.tr, { selector: Selector.tss, attributes: 0x8b, limit: 8, base: 0xd000 });
  m.load("ud2", CODE, 32);
  m.code32(3);
  assert.equal(m.run().vector, -2);
});

test("a 16-bit stack wraps at 64 KiB and leaves the upper half of ESP alone", () => {
  const { m } = machines().next().value!;
  m.load("push dword 0x11223344\nmov eax, esp\npop ebx\npush word 1\npop cx\nhlt", CODE, 32);
  m.code32(0);
  m.vp.setSegment(SegIndex.ss, { selector: Selector.data, attributes: 0x93, limit: 0xffff, base: 0x200000 });
  m.vp.runtime.updateMode();
  assert.equal(m.vp.view.getUint32(m.vp.base + Vp.mode, true) & ModeKey.stack32, 0);
  m.set({ rsp: 0x55550002 });
  m.run();
  assert.deepEqual(
    [m.number("rax"), m.number("rbx"), m.number("rcx") & 0xffff, m.number("rsp"), m.ram.getUint16(0x20fffe, true)],
    [0x5555fffe, 0x11223344, 1, 0x55550002, 0x3344],
  );
});
