/** Ports: IOPL, the permission map of the TSS, widths, strings (SDM vol. 1, "Input/Output"). */
import assert from "node:assert/strict";
import { test } from "node:test";
import { SegIndex, Vp } from "../../src/cpu/layout.js";
import { Selector, SystemMachine, TSS } from "./system-machine.js";

function machine(): { readonly m: SystemMachine; readonly seen: string[] } {
  const seen: string[] = [];
  const m = new SystemMachine(4 << 20, {
    portIn: (port, width) => {
      seen.push(`in ${port.toString(16)} ${width}`);
      return 0x12345678 + port;
    },
    portOut: (port, width, value) => void seen.push(`out ${port.toString(16)} ${width} ${value.toString(16)}`),
  });
  return { m, seen };
}

test("widths and forms", () => {
  const { m, seen } = machine();
  m.load(
    "in al, 0x10\nmov dx, 0x1234\nin ax, dx\nmov rbx, rax\nin eax, dx\nmov rcx, rax\nmov eax, 0xaabbccdd\nout dx, eax\nout 0x80, al\nout dx, ax\nhlt",
  );
  m.level(0);
  m.set({ rax: -1n });
  m.run();
  assert.deepEqual(seen, [
    "in 10 1",
    "in 1234 2",
    "in 1234 4",
    "out 1234 4 aabbccdd",
    "out 80 1 dd",
    "out 1234 2 ccdd",
  ]);
  assert.deepEqual([m.get("rbx"), m.get("rcx")], [0xffff_ffff_ffff_68acn, 0x123468acn]);
});

test("at level 3: by IOPL, else by every bit of the map; a map that ends too early is a no", () => {
  const { m, seen } = machine();
  // as a kernel has it: the TSS is the supervisor's
  m.ram.setUint32(0x10000 + (TSS >> 12) * 8, TSS | 0x63, true);
  m.vp.runtime.resetTlb();
  const allow = (...ports: number[]): void => {
    m.vp.ram.fill(0xff, TSS + 0x68, TSS + 0x1000);
    for (const p of ports) m.vp.ram[TSS + 0x68 + (p >> 3)]! &= ~(1 << (p & 7));
  };
  const run = (source: string, flags = 2): readonly (number | undefined)[] => {
    m.load(`${source}\nud2`);
    m.level(3);
    m.vp.runtime.setRflags(flags);
    m.set({ rdx: 0x3f7 });
    const o = m.run();
    return [o.vector, o.error];
  };
  assert.deepEqual(run("in al, dx", 0x3002), [6, undefined]);
  assert.deepEqual(run("in al, dx", 0x2002), [13, 0]);
  allow(0x3f7);
  assert.deepEqual(run("in al, dx"), [6, undefined]);
  assert.deepEqual(run("in ax, dx"), [13, 0]);
  allow(0x3f7, 0x3f8, 0x3f9);
  assert.deepEqual(run("in ax, dx"), [6, undefined]);
  assert.deepEqual(run("out dx, eax"), [13, 0]);
  allow(0x3f7, 0x3f8, 0x3f9, 0x3fa);
  assert.deepEqual(run("out dx, eax"), [6, undefined]);
  assert.deepEqual(seen.length, 4);
  // two bytes are always read: the last one must be inside the limit
  const tss = { selector: Selector.tss, attributes: 0x8b, base: TSS };
  m.vp.setSegment(SegIndex.tr, { ...tss, limit: 0x68 + (0x3f7 >> 3) + 1 });
  assert.deepEqual(run("in al, dx"), [6, undefined]);
  m.vp.setSegment(SegIndex.tr, { ...tss, limit: 0x68 + (0x3f7 >> 3) });
  assert.deepEqual(run("in al, dx"), [13, 0]);
  m.vp.setSegment(SegIndex.tr, { ...tss, limit: 0x66 });
  assert.deepEqual(run("in al, dx"), [13, 0]);
  // the map is in a page that is not there
  m.ram.setUint16(TSS + 0x66, 0x1000, true);
  m.vp.setSegment(SegIndex.tr, { ...tss, limit: 0x1fff });
  m.ram.setUint32(0x10000 + 7 * 8, 0x7062, true);
  m.gate(14, { offset: 0x42000, ist: 1 });
  m.load("hlt", 0x42000);
  m.vp.runtime.resetTlb();
  m.load("in al, dx");
  m.level(3);
  m.set({ rdx: 0x10 });
  m.run();
  assert.deepEqual([m.vp.rip, m.vp.register64(Vp.cr2), m.read64(0xa000 - 48)], [0x42001n, 0x7002n, 0n]);
});

test("INS and OUTS: direction, repetition, a page that is not writable asks nothing of the port", () => {
  const { m, seen } = machine();
  m.load(
    "cld\nmov dx, 0x300\nmov ecx, 3\nmov edi, 0x30000\nrep insd\nmov ebx, edi\nstd\nmov ecx, 2\nmov esi, 0x30002\nrep outsw\nhlt",
  );
  m.level(0);
  m.run();
  assert.deepEqual(seen, ["in 300 4", "in 300 4", "in 300 4", "out 300 2 1234", "out 300 2 5978"]);
  assert.deepEqual(
    [m.number("rbx"), m.number("rsi"), m.number("rcx"), m.ram.getUint32(0x30008, true)],
    [0x3000c, 0x2fffe, 0, 0x12345978],
  );
  seen.length = 0;
  m.ram.setUint32(0x10000 + 0x31 * 8, 0x31061, true);
  m.vp.runtime.resetTlb();
  m.load("mov ecx, 4\nmov edi, 0x30ff9\nx: rep insd\nhlt");
  m.level(0);
  m.set({ rdx: 0x300 });
  const o = m.run();
  // one fits; the next lies across
  assert.deepEqual(
    [o.vector, o.error, o.rip, m.number("rcx"), m.number("rdi"), seen.length],
    [14, 3, m.labels.x, 3, 0x30ffd, 1],
  );
});
