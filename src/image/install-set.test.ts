import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { parseParagraph } from "./deb822.js";
import type { PackageRecord } from "./debian-index.js";
import { ImageError } from "./errors.js";
import { installLayers, installSet, type PackageUniverse, satisfies } from "./install-set.js";
import { parseDepends } from "./resolve.js";

type Fields = Readonly<Record<string, string>>;

function record(name: string, version: string, fields: Fields = {}): PackageRecord {
  const control = parseParagraph(
    Object.entries({ Package: name, Version: version, ...fields })
      .map(([field, value]) => `${field}: ${value}`)
      .join("\n"),
  );
  return { name, version, path: `pool/${name}.deb`, size: 1, sha256: "0".repeat(64), control };
}

function universe(records: readonly PackageRecord[]): PackageUniverse {
  const byName = new Map(records.map((r): [string, PackageRecord] => [r.name, r]));
  return {
    find: (name) => byName.get(name),
    providers: (virtual) =>
      records
        .filter((r) =>
          parseDepends(r.control.get("provides"))
            .flat()
            .some(({ name }) => name === virtual),
        )
        .map(({ name }) => name),
  };
}
const names = (records: readonly PackageRecord[]): string[] => records.map(({ name }) => name);
const hasCode =
  (code: string, text: string) =>
  (error: unknown): boolean =>
    error instanceof ImageError && error.code === code && error.message.includes(text) && error.hint !== "";

describe("install set", () => {
  it("takes Depends and Pre-Depends, each after what it needs", () => {
    const all = universe([
      record("shell", "1", { "Pre-Depends": "libc" }),
      record("libc", "1"),
      record("tool", "1", { Depends: "shell, data" }),
      record("data", "1"),
      record("unrelated", "1"),
    ]);
    assert.deepEqual(names(installSet(["tool"], all)), ["data", "libc", "shell", "tool"]);
  });

  it("takes the first alternative that the archive has in the version asked for", () => {
    const all = universe([
      record("tool", "1", { Depends: "new (>= 2) | gone | old (<< 2)" }),
      record("new", "1.9"),
      record("old", "1"),
    ]);
    assert.deepEqual(names(installSet(["tool"], all)), ["old", "tool"]);
    const wanting = universe([record("tool", "1", { Depends: "new (>= 2)" }), record("new", "2~rc1")]);
    assert.throws(() => installSet(["tool"], wanting), hasCode("missing-package", "tool needs new (>= 2)"));
  });

  it("prefers an alternative that is there anyway, even when it comes later", () => {
    const all = universe([
      record("a-tool", "1", { Depends: "first | second" }),
      record("first", "1"),
      record("second", "1"),
    ]);
    assert.deepEqual(names(installSet(["a-tool", "second"], all)), ["second", "a-tool"]);
  });

  it("meets virtual packages by what provides them, the more important first", () => {
    const all = universe([
      record("tool", "1", { Depends: "mail-server" }),
      record("big-mail", "1", { Provides: "mail-server", Priority: "optional" }),
      record("small-mail", "1", { Provides: "mail-server", Priority: "important" }),
    ]);
    assert.deepEqual(names(installSet(["tool"], all)), ["small-mail", "tool"]);
    assert.deepEqual(names(installSet(["mail-server"], all)), ["small-mail"]);
    assert.deepEqual(names(installSet(["tool", "big-mail"], all)), ["big-mail", "tool"]);
  });

  it("meets a versioned relation by a versioned Provides alone", () => {
    const wanted = { name: "api", relation: ">=", version: "3" };
    assert.equal(satisfies(record("a", "9", { Provides: "api" }), wanted), false);
    assert.equal(satisfies(record("a", "1", { Provides: "api (= 3.1)" }), wanted), true);
    assert.equal(satisfies(record("a", "9", { Provides: "api (= 2)" }), wanted), false);
    assert.equal(
      satisfies(record("a", "1", { Provides: "api" }), { name: "api", relation: undefined, version: undefined }),
      true,
    );
  });

  it("never takes what is to be avoided, and counts what comes from elsewhere", () => {
    const all = universe([
      record("kernel", "1", { Depends: "maker | maker-api" }),
      record("maker", "1"),
      record("other", "1", { Provides: "maker-api" }),
    ]);
    const ours = record("ours", "1", { Provides: "maker-api" });
    assert.deepEqual(names(installSet(["kernel"], all, { avoid: new Set(["maker"]) })), ["other", "kernel"]);
    const options = { avoid: new Set(["maker"]), present: [ours] };
    assert.deepEqual(names(installSet(["kernel"], all, options)), ["kernel"]);
    assert.throws(
      () => installSet(["kernel"], all, { avoid: new Set(["maker", "other"]) }),
      hasCode("missing-package", "maker or maker-api"),
    );
  });

  it("names two packages that exclude each other; one may replace what it provides", () => {
    const all = universe([
      record("a", "1", { Provides: "mail", Conflicts: "mail" }),
      record("b", "1", { Provides: "mail" }),
      record("c", "1", { Breaks: "d (<< 2)" }),
      record("d", "2"),
    ]);
    assert.deepEqual(names(installSet(["a", "c", "d"], all)), ["a", "c", "d"]);
    assert.throws(() => installSet(["a", "b"], all), hasCode("package-conflict", "a and b"));
  });

  it("puts what is pre-depended on, with all that it needs, into a run before", () => {
    const system = record("system", "1", { "Pre-Depends": "library", Depends: "data" });
    const records = [
      record("library", "1", { Depends: "base" }),
      record("data", "1", { Depends: "system" }),
      system,
      record("boot", "1", { "Pre-Depends": "gone | system", Depends: "tool" }),
      record("tool", "1"),
      record("late", "1", { Depends: "boot, base" }),
    ];
    const base = record("base", "1");
    assert.deepEqual(installLayers(records, [base]).map(names), [
      ["library", "tool"],
      ["data", "system"],
      ["boot", "late"],
    ]);
    const circle = [record("a", "1", { "Pre-Depends": "b" }), record("b", "1", { "Pre-Depends": "a" })];
    assert.throws(() => installLayers(circle, []), hasCode("package-circle", "pre-depend"));
  });

  it("ends on circles and has each package once, whatever depends on whatever", () => {
    const count = 8;
    const graph = fc.array(fc.array(fc.nat(count - 1), { maxLength: 3 }), { minLength: count, maxLength: count });
    fc.assert(
      fc.property(graph, fc.nat(count - 1), (edges, start) => {
        const all = edges.map((to, i) =>
          record(`p${i}`, "1", to.length === 0 ? {} : { Depends: to.map((t) => `p${t}`).join(", ") }),
        );
        const set = names(installSet([`p${start}`], universe(all)));
        assert.equal(new Set(set).size, set.length);
        // closed, and no more than what is reached
        const reached = new Set([start]);
        for (const i of reached) for (const t of edges[i]!) reached.add(t);
        assert.deepEqual([...set].sort(), [...reached].map((i) => `p${i}`).sort());
        // where there is no circle through a pair, the needed one comes first
        const reach = (from: number): Set<number> => {
          const seen = new Set(edges[from]!);
          for (const i of seen) for (const t of edges[i]!) seen.add(t);
          return seen;
        };
        for (const i of reached) {
          for (const t of edges[i]!) {
            if (t !== i && !reach(t).has(i)) assert.ok(set.indexOf(`p${t}`) < set.indexOf(`p${i}`));
          }
        }
      }),
    );
  });
});
