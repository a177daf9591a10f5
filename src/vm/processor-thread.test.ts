import assert from "node:assert/strict";
import { it } from "node:test";
import { nextSlice } from "./processor-thread.js";

it("finds the number of instructions that takes 200 us, by halves, within its bounds", () => {
  const settle = (perSecond: number, from: number): number => {
    let slice = from;
    for (let i = 0; i < 20; i++) slice = nextSlice(slice, slice, (slice / perSecond) * 1e9);
    return slice;
  };
  for (const from of [20_000, 400_000]) {
    assert.equal(settle(5e8, from), 100_000);
    assert.equal(settle(1e7, from), 20_000);
    assert.equal(settle(1e10, from), 400_000);
  }
  // not at once, however far it is
  assert.equal(nextSlice(100_000, 100_000, 1e9), 50_000);
  assert.equal(nextSlice(100_000, 100_000, 1), 150_000);
  // one that was left early says how quick it was, too; a clock that stands still says nothing against it
  assert.equal(nextSlice(100_000, 1000, 2000), 100_000);
  assert.equal(nextSlice(100_000, 1000, 0), 150_000);
});
