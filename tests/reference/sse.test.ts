/** Every row of the vector instructions against the processor of this machine: special and random operands, MXCSR, faults. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { forms, operationWidths } from "../../src/cpu/isa/forms.js";
import { type Row, rows } from "../../src/cpu/isa/table.js";
import { Exit, Vp } from "../../src/cpu/layout.js";
import { isMmxRow, isVectorRow } from "./isa-coverage.js";
import { Batch, CASE_BYTES, CODE, difference, EngineRunner, Field, nativeProgram, runNative } from "./native-runner.js";
import { Random } from "./values.js";
import { addVectorCase, vectorShapes } from "./vector-encoding.js";

forms();
const vectorRows = rows.filter(isVectorRow);
const approximate = (row: Row): boolean => /^r(cp|sqrt)/.test(row.mnemonic);

/** Adds `count` cases of a row. */
function addCases(batch: Batch, random: Random, row: Row, count: number): void {
  const widths = operationWidths(row);
  for (const width of widths) {
    if (width === 16 && widths.length > 1) continue;
    for (const shape of vectorShapes(row))
      for (let n = 0; n < count; n++) addVectorCase(batch, random, row, { width, shape, n });
  }
}

/** Bits of MXCSR that count: the fast path under the default control does not raise DE (vector-float.ts). */
const mxcsrMask = (mxcsr: number, strict: boolean): number =>
  !strict && (mxcsr & 0xffc0) === 0x1f80 ? 0xfffd : 0xffff;
/** Of several NaNs that meet in a dot product processors pass on different ones, this one another in each lane. */
const dotProduct = (row: Row): boolean => row.mnemonic.startsWith("dpp");
/** Single and double results that are equal, or both a NaN. */
function equalNumbers(native: Uint8Array, ours: Uint8Array, at: number, wide: boolean): string {
  const [n, o] = [native, ours].map((x) => {
    const from = x.byteOffset + at + Field.xmm;
    return wide
      ? new Float64Array(x.buffer.slice(from, from + 256))
      : new Float32Array(x.buffer.slice(from, from + 256));
  });
  const i = n!.findIndex((x, k) => !Object.is(x, o![k]));
  return i < 0 ? "" : `element ${i} of xmm is ${o![i]}, not ${n![i]}`;
}
/** RCP and RSQRT need only be near. */
function near(native: Uint8Array, ours: Uint8Array, at: number): string {
  const n = new DataView(native.buffer, native.byteOffset);
  const o = new DataView(ours.buffer, ours.byteOffset);
  for (let i = 0; i < 64; i++) {
    const a = n.getFloat32(at + Field.xmm + i * 4, true);
    const b = o.getFloat32(at + Field.xmm + i * 4, true);
    if (Object.is(a, b) || (Number.isNaN(a) && Number.isNaN(b))) continue;
    // results at the edge of the normal range may be flushed
    if (Math.abs(a) < 2 ** -125 && Math.abs(b) < 2 ** -125) continue;
    if (!(Math.abs(a - b) <= Math.abs(a) * 2 * 1.5 * 2 ** -12)) return `xmm${i >> 2}.${i & 3} ${b}, not near ${a}`;
  }
  return "";
}

const COUNT = Number(process.env.CASES ?? 64);
const only = process.env.ONLY === undefined ? undefined : new RegExp(process.env.ONLY);
function compareVectors(t: TestContext, strict: boolean): void {
  const random = new Random(Number(process.env.SEED ?? 1));
  const engine = new EngineRunner(strict);
  let cases = 0;
  let failed = 0;
  const bad = new Map<string, string>();
  const tested = new Set<Row>();
  for (let first = 0; first < vectorRows.length; first += 50) {
    const batch = new Batch();
    const owner: Row[] = [];
    for (const row of vectorRows.slice(first, first + 50)) {
      if (only !== undefined && !only.test(row.mnemonic)) continue;
      addCases(batch, random, row, COUNT);
      while (owner.length < batch.count) owner.push(row);
    }
    if (batch.count === 0) continue;
    const native = runNative(batch);
    const ours = engine.run(batch);
    for (let i = 0; i < batch.count; i++) {
      const row = owner[i]!;
      tested.add(row);
      cases++;
      const d =
        difference(native, ours, i * CASE_BYTES, {
          x87:
            isMmxRow(row) &&
            new DataView(native.buffer, native.byteOffset).getInt32(i * CASE_BYTES + Field.trap, true) === -1,
          skipXmm: approximate(row) || dotProduct(row),
          mxcsr: mxcsrMask(batch.view.getUint32(i * CASE_BYTES + Field.mxcsr, true), strict),
        }) ||
        (approximate(row) ? near(native, ours, i * CASE_BYTES) : "") ||
        (dotProduct(row) ? equalNumbers(native, ours, i * CASE_BYTES, row.mnemonic === "dppd") : "");
      if (d === "") continue;
      failed++;
      const key = `${row.mnemonic} ${row.operands.join()}`;
      if (!bad.has(key))
        bad.set(
          key,
          `${batch.labels[i]}: ${d} (mxcsr was ${batch.view.getUint32(i * CASE_BYTES + Field.mxcsr, true).toString(16)})`,
        );
    }
  }
  t.diagnostic(
    `rows defined ${vectorRows.length}, tested ${tested.size}; cases ${cases}, wrong ${failed} in ${bad.size} rows`,
  );
  assert.equal(failed, 0, `\n${[...bad.values()].slice(0, Number(process.env.SHOW ?? 40)).join("\n")}\n`);
}
const skip = nativeProgram() === undefined ? "no gcc, or no x86-64" : false;
test("vector instructions do what this machine's processor does", { skip }, (t) => compareVectors(t, false));
test("strict: all of MXCSR's flags too", { skip }, (t) => compareVectors(t, true));

test("CR0 and CR4 decide whether there are vector registers", () => {
  const { vp } = new EngineRunner().machine;
  const vectorAfter = (code: number[], cr0: number, cr4: number): number => {
    vp.setRegister(Vp.cr0, cr0);
    vp.setRegister(Vp.cr4, cr4);
    vp.runtime.updateMode();
    vp.ram.set([...code, 0xf4], CODE);
    vp.runtime.ramWritten(CODE, 32);
    vp.setRegister(Vp.rip, CODE);
    assert.equal(vp.run(100), Exit.halt);
    const rip = Number(vp.rip);
    return rip < CODE ? (rip - 0x7000) >> 4 : -1;
  };
  const addps = [0x0f, 0x58, 0xc1];
  const paddb = [0x0f, 0xfc, 0xc1];
  const [present, switched] = [0x80010033, 0x8001003b];
  assert.equal(vectorAfter(addps, present, 0x6a0), -1);
  assert.equal(vectorAfter(addps, switched, 0x6a0), 7);
  assert.equal(vectorAfter(addps, present, 0x4a0), 6);
  assert.equal(vectorAfter(paddb, switched, 0x6a0), 7);
  assert.equal(vectorAfter(paddb, present, 0x4a0), -1);
  // an unmasked exception is #XM, or #UD for a system that does not know of it
  const divps = [0x0f, 0x5e, 0xc0];
  vp.view.setUint32(vp.base + Vp.mxcsr, 0, true);
  vp.bytes.fill(0, vp.base + Vp.xmm, vp.base + Vp.xmm + 16);
  assert.equal(vectorAfter(divps, present, 0x6a0), 19);
  assert.equal(vectorAfter(divps, present, 0x2a0), 6);
});
