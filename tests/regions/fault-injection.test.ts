/**
 * A fault at every memory access of random programs, while they run as regions: before a round of the program's loop the page of one
 * instruction's operand is taken away or may not be written, and everything is compared where the handler stops. Accesses that go
 * over the end of a page have their second page taken in the same way. Faults in a later round of one execution of a region are in
 * random-programs.test: its programs unmap pages themselves.
 *
 * SEED and PROGRAMS make other and longer runs.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { stressAsked } from "../bare/bare-machine.js";
import { Random } from "../reference/values.js";
import { type Damage, FRAMES, type ProgramPair, ProgramPairs } from "./program-machine.js";
import { ProgramBuilder } from "./random-program.js";

const PROGRAMS = Number(process.env.PROGRAMS ?? 45);
const SEED = Number(process.env.SEED ?? 1);
const PROGRAMS_OF_A_PAIR = 1500;
/** Rounds are as many as there is to try. */
const ENDLESS = 0x7fffffff;
const MAX_SLICES = 1000;

interface Tally {
  /** Faults that were to come, those that came, and rounds that did not begin in a region. */
  tried: number;
  came: number;
  interpreted: number;
  readonly kinds: Map<string, number>;
}

/** To the start of the next round, over all faults. @returns those of `page`; undefined = the program went astray */
function round(pair: ProgramPair, page: number, random: Random): number | undefined {
  let hits = 0;
  let mended = false;
  for (let slices = 0; slices < MAX_SLICES; slices++) {
    // back edges end a slice, so that the start of the next round does
    const stop = pair.slice(1);
    if (stop === undefined) {
      if (pair.atStart) return hits;
      continue;
    }
    if (stop === "end") return undefined;
    let skip = true;
    if (stop.vector === 14 && pair.faultPage() === page) {
      hits++;
      // the handler brings the page and the instruction is done again, or it is left out
      if (!mended && random.below(2) === 0) {
        pair.mend();
        mended = true;
        skip = false;
      }
    }
    if (!pair.goOn(skip)) return undefined;
  }
  return undefined;
}

function injectInto(pair: ProgramPair, n: number, tally: Tally): void {
  const random = new Random(SEED * 100_000 + n);
  const options = { ...FRAMES, rounds: 1, unmaps: false, length: 8 + random.below(32) };
  const program = new ProgramBuilder(random, options).build();
  const user = n % 2 === 0;
  pair.load(program, random, ENDLESS, user, true);
  // what changes from round to round has come to rest after some
  for (let i = 0; i < 3; i++) if (round(pair, -1, random) === undefined) return;
  pair.forgetUse();
  if (round(pair, -1, random) === undefined) return;
  const { read, written } = pair.used();
  const kinds: readonly Damage[] = user ? ["absent", "read-only", "supervisor"] : ["absent", "read-only"];
  for (const page of read)
    for (const kind of kinds) {
      if (kind === "read-only" && !written.has(page)) continue;
      pair.mend();
      pair.damage(page, kind);
      if (!pair.gated) tally.interpreted++;
      const hits = round(pair, page, random);
      if (hits === undefined) return;
      tally.tried++;
      if (hits === 0) continue;
      tally.came++;
      tally.kinds.set(kind, (tally.kinds.get(kind) ?? 0) + 1);
      if (page % 2 === 1) tally.kinds.set("second page", (tally.kinds.get("second page") ?? 0) + 1);
    }
}

test("a fault at each access leaves the same behind in both tiers", (t) => {
  const pairs = new ProgramPairs(PROGRAMS_OF_A_PAIR);
  const tally: Tally = { tried: 0, came: 0, interpreted: 0, kinds: new Map() };
  for (let n = 0; n < PROGRAMS; n++) {
    try {
      injectInto(pairs.of(n), n, tally);
    } catch (error) {
      if (error instanceof Error) error.message = `program ${n} (SEED=${SEED}): ${error.message}`;
      throw error;
    }
  }
  const kinds = [...tally.kinds].map(([kind, times]) => `${kind} ${times}`).join(", ");
  t.diagnostic(
    `${PROGRAMS} programs; pages damaged ${tally.tried}, faults that came ${tally.came} (${kinds}); begun in the interpreter ${tally.interpreted}`,
  );
  assert.ok(tally.tried > PROGRAMS * 5);
  assert.ok(tally.came > tally.tried * 0.8);
  assert.ok(stressAsked !== undefined || tally.interpreted < tally.tried * 0.1);
  for (const kind of ["absent", "read-only", "supervisor", "second page"])
    assert.ok((tally.kinds.get(kind) ?? 0) > PROGRAMS / 20, kind);
});
