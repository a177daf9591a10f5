/**
 * Random programs with regions under stress: everything is compiled at once and dies often, the TLB is emptied, few regions live, and
 * V8 has one of its compilers only. ENLIGHTEN_STRESS does the same to the other tests (CONTRIBUTING.md).
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { parseStress, STRESS_NAMES } from "../../src/cpu/region/stress.js";
import { setCompiler } from "../../src/host/node/stress.js";
import { ProgramPair } from "./program-machine.js";
import { runProgram } from "./program-run.js";

const PROGRAMS = Number(process.env.PROGRAMS ?? 24);
const SEED = Number(process.env.SEED ?? 1);
/** Each mode has programs of its own. */
const APART = 1000;

after(() => setCompiler(""));

[...STRESS_NAMES, "invalidate,flush,tiny"].forEach((names, mode) => {
  test(names, (t) => {
    const makePair = (): ProgramPair => {
      setCompiler("");
      const pair = new ProgramPair(undefined, parseStress(names));
      // behind the interpreter, which takes the second compiler long
      setCompiler(names);
      return pair;
    };
    const pair = makePair();
    const faults = new Map<number, number>();
    for (let n = 0; n < PROGRAMS; n++)
      runProgram(pair, makePair, { seed: SEED, number: APART * (mode + 1) + n, faults });
    const { installed, dead } = pair.regions.counters;
    t.diagnostic(`${PROGRAMS} programs, ${installed} regions, ${dead} died`);
    assert.ok(installed > PROGRAMS);
  });
});
