/**
 * Random programs, interpreted and compiled to regions, side by side: the same registers, flags, memory and faults after each slice.
 * Operands may miss their page and programs take pages from themselves; a fault's handler goes on behind the instruction, or mends
 * the page and does it again.
 *
 * SEED and PROGRAMS make other and longer runs; PROGRAM=n repeats one.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../reference/values.js";
import { FRAMES, ProgramPair } from "./program-machine.js";
import { ProgramBuilder } from "./random-program.js";

const PROGRAMS = Number(process.env.PROGRAMS ?? 400);
const SEED = Number(process.env.SEED ?? 1);
const ONLY = process.env.PROGRAM;
/** A pair of machines is used for so many: its processor compiles only so much in its life. */
const PROGRAMS_OF_A_PAIR = 1500;
const MAX_SLICES = 20_000;

/** @param faults counts them by vector. @returns false = it did not come to an end */
function runProgram(pair: ProgramPair, n: number, faults: Map<number, number>, budget?: number): boolean {
  const random = new Random(SEED * 100_000 + n);
  const options = { ...FRAMES, rounds: 6, unmaps: n % 2 === 0, length: 4 + random.below(28) };
  const program = new ProgramBuilder(random, options).build();
  pair.load(program, random, options.rounds, n % 3 === 0, n % 4 !== 0);
  // what is decided on the way does not hang on the slices
  const choices = new Random(n);
  try {
    for (let slices = 0; slices < MAX_SLICES; slices++) {
      const stop = pair.slice(budget ?? random.pick([1, 7, 50, 1000]));
      if (stop === "end") return true;
      if (stop === undefined) continue;
      faults.set(stop.vector, (faults.get(stop.vector) ?? 0) + 1);
      const mends = stop.vector === 14 && choices.below(2) === 0;
      if (mends) pair.mend();
      // what is wrong for good is skipped the second time
      if (!pair.goOn(!mends)) return true;
    }
    return false;
  } catch (error) {
    if (error instanceof Error) error.message = `program ${n} (SEED=${SEED} PROGRAM=${n}): ${error.message}`;
    throw error;
  }
}

test("programs do the same in both tiers", (t) => {
  let pair = new ProgramPair();
  const faults = new Map<number, number>();
  let compiled = 0;
  let instructions = 0;
  let unfinished = 0;
  const count = (): void => {
    compiled += pair.regions.counters.compiled;
    instructions += pair.regions.counters.instructions;
  };
  for (let n = 0; n < PROGRAMS; n++) {
    if (ONLY !== undefined && n !== Number(ONLY)) continue;
    if (n % PROGRAMS_OF_A_PAIR === PROGRAMS_OF_A_PAIR - 1) {
      count();
      pair = new ProgramPair();
    }
    try {
      if (!runProgram(pair, n, faults)) unfinished++;
    } catch (error) {
      // again, from the start and in the smallest steps, for where it begins
      if (ONLY === undefined) runProgram(new ProgramPair(), n, new Map(), 1);
      throw error;
    }
  }
  count();
  const list = [...faults].sort(([a], [b]) => a - b).map(([vector, times]) => `#${vector} ${times}`);
  t.diagnostic(
    `${PROGRAMS} programs, ${compiled} regions with ${instructions} instructions; faults: ${list.join(", ")}; without end ${unfinished}`,
  );
  if (ONLY !== undefined) return;
  assert.ok(compiled > PROGRAMS);
  for (const vector of [0, 13, 14]) assert.ok((faults.get(vector) ?? 0) > PROGRAMS / 40, `#${vector}`);
});
