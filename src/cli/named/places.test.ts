/** What the operands of cp mean. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { VmError } from "../../vm/vm-error.js";
import { progressText } from "./cp.js";
import { copiesOf, placeOf } from "./places.js";

const copies = (...operands: string[]): string => {
  const { machine, direction, list } = copiesOf(operands, "/base/dir");
  return `${machine} ${direction} ${list.map(({ host = "-", guest }) => `${host} ${guest}`).join(", ")}`;
};
const refuses = (message: RegExp, ...operands: string[]): void =>
  assert.throws(
    () => copiesOf(operands),
    (e: unknown) => e instanceof VmError && e.code === "bad-option" && message.test(e.message) && e.hint !== "",
  );

describe("operands of cp", () => {
  it("are in a guest where a name and a colon stand before them", () => {
    assert.deepEqual(placeOf("web:/a:b"), { machine: "web", path: "/a:b" });
    assert.deepEqual(placeOf("web-1.x:a\nb"), { machine: "web-1.x", path: "a\nb" });
    assert.deepEqual(placeOf("./web:/a", "/w"), { path: "/w/web:/a" });
    assert.deepEqual(placeOf("a/web:b", "/w"), { path: "/w/a/web:b" });
    assert.deepEqual(placeOf("-"), { path: undefined });
    assert.deepEqual(placeOf("./-", "/w"), { path: "/w/-" });
  });
  it("are seen from the folder of who asks, and keep what their end says", () => {
    for (const [given, path] of [
      ["a", "/w/a"],
      ["a/", "/w/a/"],
      ["a/.", "/w/a/."],
      ["a/..", "/w/."],
      [".", "/w/."],
      ["..", "/."],
      ["../b/", "/b/"],
      ["/", "/"],
      ["/.", "/."],
      [".a", "/w/.a"],
      ["a..", "/w/a.."],
    ] as const)
      assert.equal(placeOf(given, "/w").path, path, given);
  });
  it("are sources and a destination", () => {
    assert.equal(copies("a", "web:/b"), "web in /base/dir/a /b");
    assert.equal(copies("web:/b", "."), "web out /base/dir/. /b");
    assert.equal(copies("-", "web:/b"), "web in - /b");
    assert.equal(copies("web:/b", "-"), "web out - /b");
    assert.equal(copies("a", "/c", "web:/b/"), "web in /base/dir/a /b/., /c /b/.");
    assert.equal(copies("a", "c", "web:/"), "web in /base/dir/a /., /base/dir/c /.");
    assert.equal(copies("web:/a", "web:/c", "to"), "web out /base/dir/to/. /a, /base/dir/to/. /c");
  });
  it("that make no copy are refused, with what to write", () => {
    refuses(/a source and a destination/, "a");
    refuses(/both are in a VM/, "web:/a", "db:/b");
    refuses(/neither is in a VM/, "a", "b");
    refuses(/not all in one place/, "a", "web:/b", "c");
    refuses(/not all in one place/, "db:/a", "web:/b", "c");
    refuses(/names no file/, "a", "web:");
    refuses(/an empty name/, "", "web:/a");
    refuses(/takes one file/, "web:/a", "web:/b", "-");
    refuses(/without a name/, "-", "a", "web:/b");
  });
});

describe("the line of a copy", () => {
  it("counts what came before, and shows nothing that a terminal would do", () => {
    const state = { bytes: 12_300_000, totalBytes: 99_000_000, files: 3, current: "a\x1b[2Jb" };
    const before = { bytes: 1_000_000, files: 1 };
    const text = progressText(state, before, 1000);
    assert.equal(text, "copying 13.3 MB of 100.0 MB · 4 files · 13.3 MB/s · a?[2Jb");
    const first = { bytes: 812, files: 1, current: "x" };
    assert.equal(progressText(first, { bytes: 0, files: 0 }, 0), "copying 812 B · 1 file · x");
  });
});
