/** A random program on a pair of machines, with what its faults are answered with. */
import { Random } from "../reference/values.js";
import { FRAMES, type ProgramPair } from "./program-machine.js";
import { ProgramBuilder } from "./random-program.js";

const MAX_SLICES = 20_000;

export interface ProgramRun {
  readonly seed: number;
  readonly number: number;
  /** Faults by vector, counted on. */
  readonly faults: Map<number, number>;
  /** Of each slice. Default: all kinds. */
  readonly budget?: number;
}
/** One random program to its end. @returns false = it did not come to one */
export function runProgram(pair: ProgramPair, { seed, number: n, faults, budget }: ProgramRun): boolean {
  const random = new Random(seed * 100_000 + n);
  const options = { ...FRAMES, rounds: 6, unmaps: !pair.flushes && n % 2 === 0, length: 4 + random.below(28) };
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
    if (error instanceof Error) error.message = `program ${n} (SEED=${seed} PROGRAM=${n}): ${error.message}`;
    throw error;
  }
}
