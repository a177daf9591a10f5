import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { describe, it } from "node:test";
import fc from "fast-check";
import { compareDebianVersions, meetsRelation } from "./debian-version.js";

const hasDpkg = spawnSync("dpkg", ["--version"]).status === 0;

/** Versions that look like versions, with the characters whose order is special. */
const version = fc
  .tuple(
    fc.option(fc.nat(3), { nil: undefined }),
    fc.array(fc.constantFrom("0", "1", "9", "10", "00", "a", "z", "A", ".", "+", "~", "~~", "rc", "-"), {
      minLength: 1,
      maxLength: 7,
    }),
    fc.option(fc.constantFrom("1", "1~bpo12", "1+b1", "0", "2.1"), { nil: undefined }),
  )
  .map(([epoch, parts, revision]) => {
    const upstream = `1${parts.join("")}`.replace(/-+$/, "");
    return `${epoch === undefined ? "" : `${epoch}:`}${upstream}${revision === undefined ? "" : `-${revision}`}`;
  });

describe("Debian versions", () => {
  it("orders the samples of the policy and of real packages", () => {
    const ascending = [
      "1~~",
      "1~~a",
      "1~",
      "1",
      "1+b1",
      "1.0a",
      "1.1",
      "1.10",
      "2",
      "1:0",
      "1:1.35.0-4",
      "1:1.35.0-4+deb12u1",
    ];
    ascending.reduce((before, after) => {
      assert.ok(compareDebianVersions(before, after) < 0, `${before} < ${after}`);
      assert.ok(compareDebianVersions(after, before) > 0, `${after} > ${before}`);
      return after;
    });
    assert.equal(compareDebianVersions("0:1.0-0", "1.0"), 0);
    assert.ok(compareDebianVersions("6.1.176-1", "6.1.192-2") < 0);
    assert.ok(meetsRelation("2.36-9", ">=", "2.34"));
  });

  it("is an order", () => {
    fc.assert(
      fc.property(version, version, version, (a, b, c) => {
        assert.equal(Math.sign(compareDebianVersions(a, b)), -Math.sign(compareDebianVersions(b, a)) || 0);
        const [low, middle, high] = [a, b, c].sort(compareDebianVersions) as [string, string, string];
        assert.ok(compareDebianVersions(low, middle) <= 0 && compareDebianVersions(middle, high) <= 0);
        assert.ok(compareDebianVersions(low, high) <= 0);
      }),
    );
  });

  it("agrees with dpkg", { skip: hasDpkg ? false : "dpkg is not installed" }, () => {
    const pairs = fc.sample(fc.tuple(version, version), 300);
    // One shell for all: a process for each comparison would take minutes.
    const script = pairs
      .map(
        ([a, b]) =>
          `dpkg --compare-versions '${a}' lt '${b}' && echo lt || { dpkg --compare-versions '${a}' eq '${b}' && echo eq || echo gt; }`,
      )
      .join("\n");
    const { stdout } = spawnSync("sh", ["-c", script], { encoding: "utf8" });
    const expected = stdout.trim().split("\n");
    for (const [i, [a, b]] of pairs.entries()) {
      const order = compareDebianVersions(a, b);
      assert.equal(order < 0 ? "lt" : order === 0 ? "eq" : "gt", expected[i], `${a} against ${b}`);
    }
  });
});
