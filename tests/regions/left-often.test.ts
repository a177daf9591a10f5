/** Regions that are left in the middle again and again: their accesses lie in two pages, or the TLB does not know them. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Exit, TLB_ENTRIES, Vp } from "../../src/cpu/layout.js";
import { createBareMachine } from "../bare/bare-machine.js";
import { assemble } from "../bare/nasm.js";

const CODE = 0x200000;
const DATA = 0x300000;
/** No tight loop: those ask the runtime anyway. */
const LONG = "nop\n".repeat(110);
const ROUNDS = 100_000;

interface Outcome {
  readonly sums: readonly bigint[];
  readonly remade: number;
  readonly inRegions: number;
  readonly misses: number;
  readonly walks: number;
}
function run(regions: boolean, source: string): Outcome {
  const { vp } = createBareMachine(32 << 20, {}, 1, regions);
  const { bytes } = assemble(source, 64, CODE);
  vp.ram.set(bytes, CODE);
  for (let i = 0; i < 0x4000; i++) vp.ram[DATA + i] = (i * 7) & 255;
  vp.setRegister(Vp.rip, CODE);
  let reason: number = Exit.slice;
  while (reason === Exit.slice) reason = vp.run(20_000);
  assert.equal(reason, Exit.halt);
  return {
    sums: [vp.register64(Vp.gpr), vp.register64(Vp.gpr + 16)],
    remade: vp.regions?.counters.remade ?? 0,
    inRegions: vp.stat("regionInstructions") / vp.retired,
    misses: vp.stat("tlbMisses"),
    walks: vp.stat("walks"),
  };
}

test("fields of a structure that lies in two pages are looked up by themselves in the end", () => {
  const source = `mov ecx, ${ROUNDS}\nmov ebx, ${DATA + 0xff0}\nround: ${LONG}add rax, [rbx]\nadd rdx, [rbx + 0x40]\nmov [rbx + 0x20], ecx\ndec ecx\njnz round\nhlt`;
  const compiled = run(true, source);
  assert.deepEqual(compiled.sums, run(false, source).sums);
  assert.equal(compiled.remade, 1);
  assert.ok(compiled.inRegions > 0.5, String(compiled.inRegions));
});

/** Two addresses with one entry of the TLB. */
const inTurn = (rounds: number, filling: string): string =>
  `mov ecx, ${rounds}\nmov ebx, ${DATA}\nround: ${filling}add rax, [rbx]\nadd rdx, [rbx + ${TLB_ENTRIES * 4096}]\ndec ecx\njnz round\nhlt`;
test("what misses the TLB at each round is found among its victims in the end", () => {
  const compiled = run(true, inTurn(ROUNDS, LONG));
  assert.deepEqual(compiled.sums, run(false, inTurn(ROUNDS, LONG)).sums);
  assert.equal(compiled.remade, 1);
  // those of the time before
  assert.equal(run(true, inTurn(4 * ROUNDS, LONG)).misses, compiled.misses);
  assert.ok(compiled.walks < 10, String(compiled.walks));
});
test("in a tight loop too", () => {
  const compiled = run(true, inTurn(10 * ROUNDS, ""));
  assert.deepEqual(compiled.sums, run(false, inTurn(10 * ROUNDS, "")).sums);
  assert.equal(run(true, inTurn(40 * ROUNDS, "")).misses, compiled.misses);
  assert.ok(compiled.walks < 10, String(compiled.walks));
});

test("a region that is left now and then stays", () => {
  const source = `mov ecx, ${ROUNDS}\nround: ${LONG}mov ebx, ecx\nand ebx, 0x1fff\nadd rax, [rbx + ${DATA}]\nadd rdx, [rbx + ${DATA + 0x40}]\ndec ecx\njnz round\nhlt`;
  const compiled = run(true, source);
  assert.deepEqual(compiled.sums, run(false, source).sums);
  assert.equal(compiled.remade, 0);
});
