/**
 * Random programs, interpreted and compiled to regions, side by side: the same registers, flags, memory and faults after each slice.
 * Operands may miss their page and programs take pages from themselves; a fault's handler goes on behind the instruction, or mends
 * the page and does it again.
 *
 * SEED and PROGRAMS make other and longer runs; PROGRAM=n repeats one.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ProgramPairs } from "./program-machine.js";
import { runProgram } from "./program-run.js";

const PROGRAMS = Number(process.env.PROGRAMS ?? 300);
const SEED = Number(process.env.SEED ?? 1);
const ONLY = process.env.PROGRAM;
/** A pair of machines is used for so many: its processor compiles only so much in its life. */
const PROGRAMS_OF_A_PAIR = 1500;

test("programs do the same in both tiers", (t) => {
  const faults = new Map<number, number>();
  let compiled = 0;
  let instructions = 0;
  let unfinished = 0;
  const pairs = new ProgramPairs(PROGRAMS_OF_A_PAIR, ({ regions: { counters } }) => {
    compiled += counters.installed;
    instructions += counters.instructions;
  });
  for (let n = 0; n < PROGRAMS; n++) {
    if (ONLY !== undefined && n !== Number(ONLY)) continue;
    if (!runProgram(pairs.of(n), () => pairs.make(n), { seed: SEED, number: n, faults })) unfinished++;
  }
  pairs.end();
  const list = [...faults].sort(([a], [b]) => a - b).map(([vector, times]) => `#${vector} ${times}`);
  t.diagnostic(
    `${PROGRAMS} programs, ${compiled} regions with ${instructions} instructions; faults: ${list.join(", ")}; without end ${unfinished}`,
  );
  if (ONLY !== undefined) return;
  assert.ok(compiled > PROGRAMS);
  for (const vector of [0, 13, 14]) assert.ok((faults.get(vector) ?? 0) > PROGRAMS / 40, `#${vector}`);
});
