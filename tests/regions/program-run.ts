/** A random program on a pair of machines, with what its faults are answered with; one that fails is made smaller. */
import { Random } from "../reference/values.js";
import { FRAMES, type ProgramPair } from "./program-machine.js";
import { formatProgram, leaveOut, type Program, ProgramBuilder } from "./random-program.js";

const MAX_SLICES = 20_000;
/** Runs that the search for a smaller program may take. */
const MAX_TRIALS = 300;

export interface ProgramRun {
  readonly seed: number;
  readonly number: number;
  /** Faults by vector, counted on. */
  readonly faults: Map<number, number>;
  /** Of each slice. Default: all kinds. */
  readonly budget?: number;
  /** Instructions that NOPs stand for, by number. */
  readonly without?: ReadonlySet<number>;
}

function build(
  pair: ProgramPair,
  { seed, number: n }: ProgramRun,
): { program: Program; random: Random; rounds: number } {
  const random = new Random(seed * 100_000 + n);
  const options = { ...FRAMES, rounds: 6, unmaps: !pair.flushes && n % 2 === 0, length: 4 + random.below(28) };
  return { program: new ProgramBuilder(random, options).build(), random, rounds: options.rounds };
}
/** One random program to its end. @returns false = it did not come to one */
function run(pair: ProgramPair, o: ProgramRun): boolean {
  const { number: n, faults, budget, without } = o;
  const { program, random, rounds } = build(pair, o);
  const used = without === undefined ? program : leaveOut(program, without);
  pair.load(used, random, rounds, n % 3 === 0, n % 4 !== 0);
  // what is decided on the way does not hang on the slices
  const choices = new Random(n);
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
}

/** The same with as few instructions, and as small slices, as still fail. @returns the message of that */
function smallest(makePair: () => ProgramPair, o: ProgramRun, count: number): string {
  let trials = 0;
  let pair = makePair();
  const failure = (without: ReadonlySet<number>, budget: number | undefined): string | undefined => {
    trials++;
    try {
      run(pair, { ...o, faults: new Map(), without, ...(budget === undefined ? {} : { budget }) });
      return undefined;
    } catch (error) {
      // what it left behind is not to be trusted
      pair = makePair();
      const text = error instanceof Error ? error.message : String(error);
      // a trap or a module that is not valid does not tell of what
      return text.startsWith("\n") ? text : `${text}\n${formatProgram(leaveOut(build(pair, o).program, without))}`;
    }
  };
  const budget = failure(new Set(), 1) === undefined ? o.budget : 1;
  let without = new Set<number>();
  let message = failure(without, budget) ?? "it does not fail when it is run again";
  for (let chunk = count >> 1; chunk >= 1; chunk >>= 1)
    for (let from = 0; from < count && trials < MAX_TRIALS; from += chunk) {
      const more = new Set(without);
      for (let i = from; i < from + chunk; i++) more.add(i);
      if (more.size === without.size) continue;
      const failed = failure(more, budget);
      if (failed === undefined) continue;
      without = more;
      message = failed;
    }
  return message;
}

/** Runs a program. @returns false = it did not come to an end @throws what differs, of the smallest program that still does */
export function runProgram(pair: ProgramPair, makePair: () => ProgramPair, o: ProgramRun): boolean {
  try {
    return run(pair, o);
  } catch (error) {
    const { program } = build(pair, o);
    const text = smallest(makePair, o, program.instructions.length);
    throw new Error(`program ${o.number} (SEED=${o.seed} PROGRAM=${o.number}): ${text}`, { cause: error });
  }
}
