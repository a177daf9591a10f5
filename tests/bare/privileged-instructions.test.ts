/** What is left of the privileged instructions, and those whose answer only the system around knows (SDM vol. 2). */
import assert from "node:assert/strict";
import { test } from "node:test";
import { CpuFeature, Vp } from "../../src/cpu/layout.js";
import { SystemMachine } from "./system-machine.js";

const AC = 0x40000;
const UD = 6;
const GP = 13;

test("CLAC and STAC: #UD without SMAP and outside level 0, else AC", () => {
  const m = new SystemMachine();
  assert.equal(m.execute("stac").vector, UD);
  m.vp.setRegister(Vp.features, CpuFeature.smap);
  assert.equal(m.execute("stac\nhlt").rflags & AC, AC);
  assert.equal(m.execute("stac\nclac\nhlt").rflags & AC, 0);
  assert.equal(m.execute("clac", 3).vector, UD);
});

test("XSETBV and XGETBV: CR4.OSXSAVE, XCR0's bits, register 0 alone", () => {
  const m = new SystemMachine();
  const set = "mov eax, 3\nxor ecx, ecx\nxor edx, edx\n";
  assert.equal(m.execute(`${set}xsetbv`).vector, UD);
  assert.equal(m.execute("xgetbv").vector, UD);
  m.vp.setRegister(Vp.cr4, 0x406a0);
  const o = m.execute(`${set}xsetbv\nmov rax, -1\nmov rdx, -1\nxgetbv\nhlt`);
  assert.deepEqual([o.vector, m.get("rax"), m.get("rdx")], [-1, 3n, 0n]);
  // the x87 part cannot be off; AVX is none of ours; no other register; level 3
  for (const wrong of ["mov eax, 2", "mov eax, 7", "mov ecx, 1", "mov edx, 1"])
    assert.equal(m.execute(`${set}${wrong}\nxsetbv`).vector, GP, wrong);
  assert.equal(m.execute(`${set}xsetbv`, 3).vector, GP);
  assert.equal(m.execute("mov ecx, 2\nxgetbv").vector, GP);
});

test("MONITOR, MWAIT and VMCALL are #UD where CPUID and the host do not have them", () => {
  const m = new SystemMachine();
  for (const source of ["monitor", "mwait", "vmcall"])
    for (const level of [0, 3] as const) assert.equal(m.execute(source, level).vector, UD, source);
});
test("VMCALL asks the host", () => {
  let calls = 0;
  const m = new SystemMachine(4 << 20, {
    vmcall: () => {
      calls++;
      return true;
    },
  });
  assert.deepEqual([m.execute("vmcall\nhlt").vector, calls], [-1, 1]);
});

test("INVD, RDPMC, RDTSC with CR4.TSD: #GP where they may not be used", () => {
  const m = new SystemMachine(4 << 20, { tsc: (out) => void out.set([0x89abcdef, 0x01234567]) });
  assert.equal(m.execute("invd\nhlt").vector, -1);
  assert.equal(m.execute("invd", 3).vector, GP);
  // there is no performance counter
  assert.equal(m.execute("xor ecx, ecx\nrdpmc").vector, GP);
  m.vp.setRegister(Vp.tscAux, 77);
  assert.equal(m.execute("mov rcx, -1\nrdtscp\nhlt").vector, -1);
  assert.deepEqual([m.get("rax"), m.get("rdx"), m.get("rcx")], [0x89abcdefn, 0x01234567n, 77n]);
  m.vp.setRegister(Vp.cr4, 0x6a4);
  assert.equal(m.execute("rdtsc\nhlt").vector, -1);
  assert.deepEqual([m.execute("rdtsc", 3).vector, m.execute("rdtscp", 3).vector], [GP, GP]);
});

test("INSB to INSD, OUTSB to OUTSD: port, width, memory, direction", () => {
  const seen: string[] = [];
  const m = new SystemMachine(4 << 20, {
    portIn: (port, width) => {
      seen.push(`in ${port.toString(16)} ${width}`);
      return 0xa1b2c3d4;
    },
    portOut: (port, width, value) => void seen.push(`out ${port.toString(16)} ${width} ${value.toString(16)}`),
  });
  m.ram.setBigUint64(0x30000, 0n, true);
  m.execute("mov edx, 0x77\nmov edi, 0x30000\ninsb\ninsw\ninsd\nmov esi, 0x30000\noutsb\noutsw\nstd\noutsd\nhlt");
  assert.deepEqual(
    [m.ram.getBigUint64(0x30000, true), m.number("rdi"), m.number("rsi")],
    [0xa1b2c3d4c3d4d4n, 0x30007, 0x2ffff],
  );
  assert.deepEqual(seen, ["in 77 1", "in 77 2", "in 77 4", "out 77 1 d4", "out 77 2 c3d4", "out 77 4 a1b2c3d4"]);
});
