/** Every integer form against the processor of this machine: registers, defined flags, memory, faults. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { forms, lookupForm, operationWidths } from "../../src/cpu/isa/forms.js";
import { type Row, rows } from "../../src/cpu/isa/table.js";
import { addIntegerCase, type CaseOptions, shapesOf } from "./integer-encoding.js";
import { notInIntegerTest } from "./isa-coverage.js";
import { Batch, CASE_BYTES, difference, EngineRunner, Field, nativeProgram, runNative } from "./native-runner.js";
import { hostVendor } from "./open-outcomes.js";
import { ALL, shiftCount, undefinedFlags } from "./undefined-flags.js";
import { Random } from "./values.js";

forms();

const COUNT = Number(process.env.CASES ?? 24);
const only = process.env.ONLY === undefined ? undefined : new RegExp(process.env.ONLY);

test("integer instructions do what this machine's processor does", {
  skip: nativeProgram() === undefined ? "no gcc, or no x86-64" : false,
}, (t) => {
  const random = new Random(Number(process.env.SEED ?? 1));
  const engine = new EngineRunner();
  const otherwise = new Map<string, number>();
  const todo: { row: Row; options: CaseOptions }[] = [];
  const covered = new Set<string>();
  const defined = new Set<string>();
  for (const row of rows) {
    if (only !== undefined && !only.test(row.mnemonic)) continue;
    const reason = notInIntegerTest(row);
    if (reason !== undefined) {
      otherwise.set(reason, (otherwise.get(reason) ?? 0) + 1);
      continue;
    }
    for (const width of operationWidths(row)) {
      // AMD processors take 66 as a 16-bit jump, Intel's ignore it, and so does ours
      if (width === 16 && row.operands.some((o) => o[0] === "J")) continue;
      for (const shape of shapesOf(row)) {
        if (shape !== "rip") defined.add(lookupForm(row, width, shape === "x" || shape === "m" ? shape : "r").name);
        todo.push({ row, options: { width, shape } });
        if (row.options.lock && shape !== "r") todo.push({ row, options: { width, shape, lock: true } });
      }
      if (row.options.string && row.mnemonic !== "xlat") {
        todo.push({ row, options: { width, shape: "r", repeat: 0xf3 } });
        if (/^(cmps|scas)/.test(row.mnemonic)) todo.push({ row, options: { width, shape: "r", repeat: 0xf2 } });
      }
    }
  }
  const isAmd = hostVendor() === "AuthenticAMD";
  let cases = 0;
  let failed = 0;
  const bad = new Map<string, string>();
  for (let first = 0; first < todo.length; first += 100) {
    const batch = new Batch();
    const owner: (typeof todo)[number][] = [];
    for (const entry of todo.slice(first, first + 100)) {
      for (let n = 0; n < COUNT; n++) if (addIntegerCase(batch, random, entry.row, entry.options)) owner.push(entry);
    }
    if (batch.count === 0) continue;
    const native = runNative(batch);
    const ours = engine.run(batch);
    const nativeView = new DataView(native.buffer, native.byteOffset);
    for (let i = 0; i < batch.count; i++) {
      const { row, options } = owner[i]!;
      const at = i * CASE_BYTES;
      cases++;
      if (options.shape !== "rip") covered.add(lookupForm(row, options.width as 64, options.shape).name);
      const trapped = nativeView.getInt32(at + Field.trap, true) !== -1;
      // BSWAP of 16 bits is undefined; so are SHLD and SHRD by more than their width
      const length = batch.view.getUint32(at + Field.length, true);
      const count = shiftCount(row, options.width, batch.bytes[at + Field.gpr + 8]!, batch.bytes[at + length - 1]!);
      if (row.mnemonic === "bswap" && options.width === 16) continue;
      if (/^sh[lr]d$/.test(row.mnemonic) && count > options.width) continue;
      // AMD's processors read 32 bits of memory where 16 are extended
      if (isAmd && row.mnemonic === "movsxd" && options.width === 16 && trapped) continue;
      const flags = trapped
        ? // a fault in a repeated compare leaves RFLAGS as they were (SDM, REP); AMD keeps those of the last element
          /^(i?div|(cmps|scas)[a-z]?)$/.test(row.mnemonic)
          ? 0
          : ALL
        : ALL & ~undefinedFlags(row, options.width, count);
      const d = difference(native, ours, at, { flags, mxcsr: 0 });
      if (d === "") continue;
      failed++;
      const key = `${row.mnemonic} ${row.operands.join()} ${options.width}${options.shape}`;
      if (!bad.has(key))
        bad.set(
          key,
          `${batch.labels[i]}: ${d}  [rflags ${batch.view.getUint32(at + Field.rflags, true).toString(16)}, rax ${batch.view.getBigUint64(at + Field.gpr, true).toString(16)}, rcx ${batch.view.getBigUint64(at + Field.gpr + 8, true).toString(16)}]`,
        );
    }
  }
  t.diagnostic(
    `integer forms: defined ${defined.size}, tested ${covered.size}; cases ${cases}, in regions ${engine.compiled}, wrong ${failed} in ${bad.size} kinds`,
  );
  for (const [reason, n] of otherwise) t.diagnostic(`${n} rows otherwise: ${reason}`);
  assert.equal(failed, 0, `\n${[...bad.values()].slice(0, Number(process.env.SHOW ?? 40)).join("\n")}\n`);
  assert.equal(covered.size, defined.size);
});
