import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { distance, nearNames } from "./near-names.js";

describe("near names", () => {
  it("counts what has to be changed, up to a limit", () => {
    for (const [a, b, d] of [
      ["strace", "strace", 0],
      ["srtace", "strace", 1],
      ["strce", "strace", 1],
      ["straace", "strace", 1],
      ["stradce", "straxce", 1],
      ["abcd", "badc", 2],
      ["python", "perl", 3],
      ["a", "abcdef", 3],
    ] as const)
      assert.equal(distance(a, b, 2), d, `${a} ${b}`);
  });

  it("finds names that are one slip away, then longer ones", () => {
    const names = ["strace", "ltrace", "strace64", "sqlite3", "sqlite3-doc", "jq", "jp", "bc"];
    assert.deepEqual(nearNames("srtace", names), ["strace"]);
    assert.deepEqual(nearNames("sqlite", names), ["sqlite3", "sqlite3-doc"]);
    assert.deepEqual(nearNames("strace", names), ["strace"]);
    assert.deepEqual(nearNames("jz", names), ["jp", "jq"]);
    assert.deepEqual(nearNames("something-else", names), []);
  });
});
