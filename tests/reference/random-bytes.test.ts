/**
 * Random bytes as instructions in user mode, one at a time, against the processor of this machine: 64-bit code, and 32-bit code in
 * compatibility mode. The engine never traps in WebAssembly, never hangs, and comes to the same outcome. ENLIGHTEN_LONG=1 makes the
 * long run, SEED another one, CASES one of another length, CASE=n repeats one case and shows its state.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { rows } from "../../src/cpu/isa/table.js";
import { inRandomTest } from "./isa-coverage.js";
import type { Findings, RandomRun } from "./random-run.js";
import { compatibilityMode, sandboxedProgram } from "./user-case.js";

const LONG = process.env.ENLIGHTEN_LONG === "1";
const CASES = Number(process.env.CASES ?? (LONG ? 1e7 : 1e5));
const SEED = Number(process.env.SEED ?? 1);
const ONE = process.env.CASE === undefined ? undefined : Number(process.env.CASE);
const SHOW = Number(process.env.SHOW ?? 30);
/** Looks at the counter without progress, a second apart, after which the engine counts as hanging: far more than a batch takes. */
const PATIENCE = 120;

/** Runs in a thread that is stopped if the engine does not come back from a case. */
function findings(run: RandomRun): Promise<Findings> {
  const progress = new Int32Array(new SharedArrayBuffer(4));
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL("./random-worker.js", import.meta.url), {
      workerData: { run, progress: progress.buffer },
    });
    let seen = -1;
    let waited = 0;
    const watch = setInterval(() => {
      const now = Atomics.load(progress, 0);
      waited = now === seen ? waited + 1 : 0;
      seen = now;
      if (waited < PATIENCE) return;
      clearInterval(watch);
      void worker.terminate();
      reject(new Error(`the engine does not come back from SEED=${run.seed} CASE=${now}`));
    }, 1000);
    worker.once("message", (result: Findings) => {
      clearInterval(watch);
      resolve(result);
    });
    worker.once("error", (error) => {
      clearInterval(watch);
      reject(error);
    });
  });
}

test("random bytes do what this machine's processor does with them", {
  skip: sandboxedProgram() === undefined ? "no gcc, or no x86-64" : false,
}, async (t) => {
  const from = ONE ?? 0;
  const to = ONE === undefined ? CASES : ONE + 1;
  const compatibility = compatibilityMode();
  const result = await findings({ seed: SEED, from, to, compatibility, show: ONE !== undefined });
  const { failed, kinds, outcomes, excused, compared } = result;
  t.diagnostic(`cases ${to - from}, seed ${SEED}; different ${failed} in ${kinds.length} kinds`);
  if (!compatibility) t.diagnostic("without 32-bit code, which this system does not run");
  for (const [name, n] of outcomes) t.diagnostic(`${n} ${name}`);
  for (const [name, n] of excused) t.diagnostic(`${n} not compared: ${name}`);
  assert.equal(failed, 0, `\n${kinds.slice(0, SHOW).join("\n")}\n`);
  // what the table of coverage says of this test
  if (to - from < 1e5 || !compatibility) return;
  const missed = rows.filter((row) => inRandomTest(row) && compared[row.index] === 0);
  t.diagnostic(`rows compared: ${rows.filter((r) => compared[r.index]! > 0).length} of ${rows.length}`);
  assert.deepEqual(
    missed.map((r) => `${r.mnemonic} ${r.map} ${r.opcode.toString(16)} ${r.operands.join()}`),
    [],
  );
});
