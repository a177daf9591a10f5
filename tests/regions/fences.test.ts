/** Which instructions are fences in a region: each one `atomic.fence`, behind what the instruction does (tests/bare/memory-order). */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ModeKey } from "../../src/cpu/layout.js";
import { BatchCompiler } from "../../src/cpu/region/batch-compiler.js";
import { assemble } from "../bare/nasm.js";

/** A region of one block. @returns its fences */
function fences(source: string): number {
  const bytes = new Uint8Array(4096);
  bytes.set(assemble(`${source}\nhlt`, 64, 0).bytes);
  const entered = Uint16Array.of(0);
  const request = {
    physical: 0,
    mode: ModeKey.code64 | ModeKey.flat,
    oddFloat: false,
    way: "usual",
    pages: [{ physical: 0, distance: 0, bytes, entered, gates: new Uint16Array(0) }],
  } as const;
  const { bytes: module, regions } = new BatchCompiler({ base: 0x40000, shared: true }).emit([request]);
  new WebAssembly.Module(module);
  assert.equal(regions[0]!.instructions, `${source}\nhlt`.split("\n").length);
  let found = 0;
  for (let at = 0; at + 2 < module.length; at++)
    if (module[at] === 0xfe && module[at + 1] === 0x03 && module[at + 2] === 0x00) found++;
  return found;
}

test("LOCK with memory, XCHG with memory and MFENCE are fences in a region, nothing else is", () => {
  const one = ["lock add [rbx], rax", "lock xadd [rbx], rax", "lock cmpxchg [rbx], rcx", "lock bts [rbx], eax"];
  for (const source of [...one, "xchg [rbx], rax", "mfence"]) assert.equal(fences(source), 1, source);
  for (const source of ["add [rbx], rax", "xchg rbx, rax", "lfence", "sfence", "mov [rbx], rax"])
    assert.equal(fences(source), 0, source);
  assert.equal(fences("lock inc dword [rbx]\nadd rax, [rcx]\nxchg [rcx], dl"), 2);
});
