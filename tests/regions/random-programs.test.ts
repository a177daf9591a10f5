/**
 * Random programs, interpreted and compiled to regions: the same registers, flags, memory and faults in the end. Instructions are
 * those of the integer tests, with jumps over some of them and a loop around all; operands may miss their page, so that a program
 * may fault at any of its memory accesses.
 *
 * SEED and PROGRAMS make other and longer runs.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { operationWidths } from "../../src/cpu/isa/forms.js";
import { type Row, rows } from "../../src/cpu/isa/table.js";
import { Exit, Vp } from "../../src/cpu/layout.js";
import { addIntegerCase, shapesOf } from "../reference/integer-encoding.js";
import { Batch, CODE, EngineRunner, Field, WINDOW, WINDOW_BYTES } from "../reference/native-runner.js";
import { Random } from "../reference/values.js";

const PROGRAMS = Number(process.env.PROGRAMS ?? 400);
const MIDDLE = BigInt(WINDOW + 128);
/** A page for the loop's counter, which the programs do not reach otherwise. */
const COUNTER = 0x340000;
const START = CODE;
/** TF would make each instruction an exit of its own; a program that jumps anywhere ends nowhere. */
const LEFT_OUT =
  /^(popf|call|ret|jmp|enter|leave|loop\w*|jcxz|std|cli|sti|cmpxchg16b|rd\w+|xgetbv|cpuid|syscall|sysenter)$/;
const usable = rows.filter(
  (r) =>
    !LEFT_OUT.test(r.mnemonic) &&
    r.options.not64 === undefined &&
    r.options.ends === undefined &&
    r.options.cc === undefined &&
    r.options.sse === undefined &&
    r.options.fpu === undefined &&
    !r.operands.some((o) => /^[VWPQCDSRJO]/.test(o)) &&
    (r.options.selector === undefined || r.options.string === true) &&
    r.mnemonic !== "emms" &&
    !/^(ins|outs)b?$/.test(r.mnemonic),
);

/** MOV r64, imm32 */
const loadRegister = (n: number, value: bigint): number[] => {
  const v = Number(BigInt.asIntN(32, value));
  return [0x48 | (n >> 3), 0xc7, 0xc0 | (n & 7), v & 255, (v >> 8) & 255, (v >> 16) & 255, (v >> 24) & 255];
};

interface Program {
  readonly code: number[];
  readonly text: string[];
}
function randomProgram(random: Random): Program {
  const code: number[] = [];
  const text: string[] = [];
  const count = 4 + random.below(28);
  /** Jumps whose distance is still open: place of the distance, and after how many instructions they land. */
  let open: { at: number; left: number }[] = [];
  for (let n = 0; n < count; n++) {
    const row: Row = random.pick(usable);
    const batch = new Batch();
    const width = random.pick(operationWidths(row));
    const shape = random.pick(shapesOf(row).filter((s) => s !== "rip"));
    if (!addIntegerCase(batch, random, row, { width, shape })) continue;
    const registers = Array.from({ length: 16 }, (_, i) => batch.view.getBigUint64(Field.gpr + i * 8, true));
    // what the operand's address is made of, mostly
    registers.forEach((value, i) => {
      const small = BigInt.asIntN(64, value);
      const part = (value >= MIDDLE - 128n && value <= MIDDLE + 128n) || (small >= -9n && small <= 9n);
      if (part && random.below(10) < 8) code.push(...loadRegister(i, value));
    });
    const length = batch.view.getUint32(Field.length, true);
    code.push(...batch.bytes.subarray(0, length));
    text.push(batch.labels[0]!);
    open = open.filter((jump) => {
      if (--jump.left > 0) return true;
      code[jump.at] = code.length - jump.at - 1;
      return code[jump.at]! > 127 ? assert.fail("the jump is too far") : false;
    });
    if (random.below(5) === 0 && open.length < 2) {
      const cc = random.below(16);
      code.push(0x70 | cc, 0);
      text.push(`j${cc}`);
      open.push({ at: code.length - 1, left: 1 + random.below(2) });
    }
  }
  for (const { at } of open) code[at] = code.length - at - 1;
  // dec dword [COUNTER]; jnz START; hlt
  code.push(0xff, 0x0c, 0x25, COUNTER & 255, (COUNTER >> 8) & 255, (COUNTER >> 16) & 255, 0);
  const back = START - (START + code.length + 6);
  code.push(0x0f, 0x85, back & 255, (back >> 8) & 255, (back >> 16) & 255, (back >> 24) & 255, 0xf4);
  return { code, text };
}

/** Everything that a program can change, as text. */
function outcome(engine: EngineRunner, random: Random, program: Program, forced: boolean): string {
  const { vp } = engine.machine;
  vp.ram.fill(0xcc, START, START + 0x1000);
  vp.ram.set(program.code, START);
  vp.runtime.ramWritten(START, 0x1000);
  for (let i = 0; i < 16; i++)
    vp.setRegister64(Vp.gpr + i * 8, i === 4 ? MIDDLE : (BigInt(random.u32()) << 32n) | BigInt(random.u32()));
  for (let i = 0; i < WINDOW_BYTES; i += 4) vp.view.setUint32(vp.ram.byteOffset + WINDOW + i, random.u32(), true);
  vp.view.setUint32(vp.ram.byteOffset + COUNTER, 4, true);
  vp.runtime.setRflags(2 | (random.u32() & 0x8d5));
  vp.runtime.resetTlb();
  if (forced) vp.regions!.force(BigInt(START));
  vp.setRegister(Vp.rip, START);
  let reason: number = Exit.slice;
  const budget = random.pick([1, 7, 50, 1000]);
  for (let i = 0; i < 20_000 && (reason === Exit.slice || reason === Exit.event); i++) reason = vp.run(budget);
  const registers = Array.from({ length: 16 }, (_, i) => vp.register64(Vp.gpr + i * 8).toString(16));
  const sp = Number(vp.register64(Vp.gpr + 32));
  const frame =
    sp > 0x8000 && sp < 0xa000
      ? Array.from({ length: 6 }, (_, i) => vp.view.getBigUint64(vp.ram.byteOffset + sp + i * 8, true).toString(16))
      : [];
  const window = Buffer.from(vp.ram.slice(WINDOW, WINDOW + WINDOW_BYTES)).toString("hex");
  return `exit ${reason} rip ${vp.rip.toString(16)} flags ${(vp.runtime.rflags() >>> 0).toString(16)} cr2 ${vp.register64(Vp.cr2).toString(16)} counter ${vp.view.getUint32(vp.ram.byteOffset + COUNTER, true)}\nregisters ${registers.join(" ")}\nframe ${frame.join(" ")}\n${window}`;
}

test("programs come to the same end in both tiers", (t) => {
  const seed = Number(process.env.SEED ?? 1);
  const interpreted = new EngineRunner(false, false);
  const compiled = new EngineRunner(false, true);
  let faults = 0;
  for (let n = 0; n < PROGRAMS; n++) {
    const program = randomProgram(new Random(seed * 100_000 + n));
    const state = seed * 100_000 + n + 50_000;
    const expected = outcome(interpreted, new Random(state), program, false);
    const got = outcome(compiled, new Random(state), program, true);
    if (!expected.includes("counter 0")) faults++;
    assert.equal(got, expected, `program ${n} (SEED=${seed}):\n${program.text.join("\n")}`);
  }
  const { regions } = compiled.machine.vp;
  t.diagnostic(
    `${PROGRAMS} programs, ${regions!.counters.installed} regions with ${regions!.counters.instructions} instructions; ${faults} programs ended by a fault`,
  );
  assert.ok(regions!.counters.installed > PROGRAMS * 0.8);
  assert.ok(faults > PROGRAMS / 20 && faults < PROGRAMS * 0.9);
});
