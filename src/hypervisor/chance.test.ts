import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Chance, fuzz, fuzzSettings } from "./chance.js";

describe("chance", () => {
  it("is repeated by its seed", () => {
    const draw = (seed: number): number[] => {
      const chance = new Chance(seed);
      return [chance.word(), chance.below(1000), chance.odd(), ...chance.bytes(8), chance.oneOf([1, 2, 3])];
    };
    assert.deepEqual(draw(7), draw(7));
    assert.notDeepEqual(draw(7), draw(8));
  });
  it("takes number of cases and seed from the environment", () => {
    assert.deepEqual(fuzzSettings({}), { multiple: 1, seed: 20250 });
    assert.deepEqual(fuzzSettings({ FUZZ_CASES: "3", FUZZ_SEED: "5" }), { multiple: 3, seed: 5 });
  });
  it("names the seed of the round that fails", () => {
    let rounds = 0;
    assert.equal(
      fuzz({ multiple: 2, seed: 1 }, 100, 50, () => rounds++),
      200,
    );
    assert.equal(rounds, 4);
    const fail = (): never => {
      throw new Error("third");
    };
    assert.throws(
      () => fuzz({ multiple: 1, seed: 5 }, 100, 10, () => (++rounds === 7 ? fail() : undefined)),
      (error: Error) => error.message === "FUZZ_SEED=7" && (error.cause as Error).message === "third",
    );
  });
});
