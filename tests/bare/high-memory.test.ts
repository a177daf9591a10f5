/** Code and data in guest RAM above 2 GiB, where addresses are negative as 32-bit integers. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Exit, Vp } from "../../src/cpu/layout.js";
import { createBareMachine } from "./bare-machine.js";
import { assemble } from "./nasm.js";

/** Linear address of the second GiB, which is mapped to the third of RAM. */
const LINEAR = 0x40000000;
const PHYSICAL = 0x80000000;
/** The loop's first instruction begins two bytes before the end of a page. */
const AT = 0x5ffe;

for (const compiled of [false, true])
  test(`a loop over two pages above 2 GiB, ${compiled ? "as a region" : "interpreted"}`, () => {
    const { vp } = createBareMachine(0xa0000000, {}, 1, compiled);
    const read = (at: number): number => Number(vp.view.getBigUint64(vp.ram.byteOffset + at, true)) & 0xffff000;
    const pointers = read(Number(vp.register64(Vp.cr3)));
    // present, writable, 1 GiB
    vp.view.setBigUint64(vp.ram.byteOffset + pointers + 8, BigInt(PHYSICAL) | 0x83n, true);
    vp.runtime.flushTlb(1);
    const source =
      "mov ecx, 1000\nloop1: add rbx, 0x12345\nmov [rel data], rbx\ndec ecx\njnz loop1\nmov rax, [rel data]\nhlt\ntimes 96 db 0\ndata: dq 0";
    const { bytes, labels } = assemble(source, 64, LINEAR + AT - 5);
    vp.ram.set(bytes, PHYSICAL + AT - 5);
    vp.setRegister(Vp.gpr + 24, 0);
    if (compiled) {
      // a page is a region's when it has been fetched from
      vp.setRegister(Vp.rip, LINEAR + AT + 0x10);
      vp.runtime.lookup(BigInt(LINEAR + 0x6000));
      vp.runtime.lookup(BigInt(labels.loop1!));
      assert.ok(vp.regions!.force(BigInt(labels.loop1!)));
    }
    vp.setRegister(Vp.rip, LINEAR + AT - 5);
    let reason: number = Exit.slice;
    for (let i = 0; i < 1000 && reason === Exit.slice; i++) reason = vp.run(1000);
    assert.equal(reason, Exit.halt);
    assert.equal(vp.register64(Vp.gpr), 0x12345n * 1000n);
    if (compiled) assert.ok(vp.stat("regionInstructions") > 3000);
  });
