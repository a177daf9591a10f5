import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { describe, it } from "node:test";
import { assertSurvives } from "../../tests/image/hostile-bytes.js";
import { moduleOf } from "../../tests/image/synthetic-archive.js";
import { concatBytes, encodeUtf8 } from "./byte-reader.js";
import { readCpio } from "./cpio.js";
import { parseParagraphs } from "./deb822.js";
import { PackageIndex } from "./debian-index.js";
import { ImageError } from "./errors.js";
import { execCpio } from "./init/exec-cpio.js";
import { type ModuleInfo, readModuleInfo, withoutSignature } from "./modinfo.js";
import { loadOrder, writeModulesDep } from "./module-closure.js";
import { dependencyClosure, parseDepends } from "./resolve.js";

const info = (name: string, ...depends: string[]): [string, ModuleInfo] => [
  name,
  { name, depends, softBefore: [], aliases: [], vermagic: "" },
];

describe("kernel modules", () => {
  it("tell their name, dependencies and aliases", () => {
    const bytes = moduleOf({ depends: "a-b,c", name: "x", alias: "vmbus:00", softdep: "pre: d e post: f" });
    const module = readModuleInfo(bytes, "x.ko");
    assert.deepEqual(module, {
      name: "x",
      depends: ["a_b", "c"],
      softBefore: ["d", "e"],
      aliases: ["vmbus:00"],
      vermagic: "",
    });
    assertSurvives((damaged) => readModuleInfo(damaged, "x.ko"), bytes);
  });

  it("lose nothing but their signature", () => {
    const module = moduleOf({ name: "x" });
    const signature = new Uint8Array(300).fill(7);
    const tail = Uint8Array.of(0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 44);
    const signed = concatBytes([module, signature, tail, encodeUtf8("~Module signature appended~\n")]);
    assert.deepEqual(withoutSignature(signed), module);
    assert.equal(withoutSignature(module), module);
    assertSurvives(withoutSignature, signed);
  });

  it("are loaded after what they depend on, each once", () => {
    const modules = new Map([info("a", "b", "c"), info("b", "c"), info("c"), info("d", "built_in")]);
    const order = loadOrder(["a", "c", "absent", "d"], modules, new Set(["built_in"])).map(({ name }) => name);
    assert.deepEqual(order, ["c", "b", "a", "d"]);
    assert.throws(() => loadOrder(["d"], modules), { code: "damaged", message: /built_in/ });
    const circle = new Map([info("a", "b"), info("b", "a")]);
    assert.throws(() => loadOrder(["a"], circle), { code: "damaged", message: /depends on itself/ });
    const all = loadOrder(["a"], modules);
    assert.equal(
      writeModulesDep(all, ({ name }) => `k/${name}.ko`, modules, new Set()),
      "k/c.ko:\nk/b.ko: k/c.ko\nk/a.ko: k/b.ko k/c.ko\n",
    );
  });
});

describe("packages", () => {
  const index = new PackageIndex(
    encodeUtf8(
      ["a 1 b|x, c (>= 2)", "b 1 ", "c 1 ", "c 2 d:any", "d 1 a", "e 1 c (>= 3)"]
        .map((line) => /^(\S+) (\S+) (.*)$/.exec(line)!)
        .map(
          ([, name, version, depends]) =>
            `Package: ${name}\nVersion: ${version}\nDepends: ${depends}\nFilename: pool/${name}.deb\nSize: 1\nSHA256: ${"0".repeat(64)}\n`,
        )
        .join("\n"),
    ),
  );
  const find = (name: string) => index.versions(name).at(-1);

  it("are found with all they depend on", () => {
    assert.deepEqual(
      dependencyClosure(find("a")!, find, () => false).map(({ name }) => name),
      ["a", "b", "c", "d"],
    );
    assert.throws(() => dependencyClosure(find("e")!, find, () => false), {
      code: "missing-package",
      message: /e needs c/,
    });
    assert.deepEqual(parseDepends("a (>= 1) [amd64] | b:any, c"), [
      [
        { name: "a", relation: ">=", version: "1" },
        { name: "b", relation: undefined, version: undefined },
      ],
      [{ name: "c", relation: undefined, version: undefined }],
    ]);
  });

  it("whose path leads out of the archive are refused", () => {
    const entry = `Package: a\nVersion: 1\nFilename: pool/../../etc/passwd\nSize: 1\nSHA256: ${"0".repeat(64)}\n`;
    assert.throws(() => new PackageIndex(encodeUtf8(entry)).versions("a"), { code: "damaged" });
  });

  it("have fields over several lines, comments and any case", () => {
    const [first, second] = parseParagraphs("A: 1\n# note\nB:\n x\n  y\n\n\nc: 3\n");
    assert.deepEqual(
      [...first!],
      [
        ["a", "1"],
        ["b", "\nx\n y"],
      ],
    );
    assert.deepEqual([...second!], [["c", "3"]]);
  });
});

describe("a command for the guest", () => {
  const script = (archive: Uint8Array, path: string): Uint8Array => {
    const entry = readCpio(archive).find((e) => e.path === path);
    assert.equal(entry?.kind, "file");
    return (entry as { data: Uint8Array }).data;
  };
  /** What a shell makes of it, as the guest's does. */
  const run = (archive: Uint8Array) => {
    const [env, exec] = ["env", "exec"].map((name) => script(archive, `etc/enlighten/${name}`));
    return spawnSync("sh", [], { input: concatBytes([env!, encodeUtf8("\n"), exec!]) });
  };

  it("reaches the program with every byte of its arguments", () => {
    const args = ["", "a b", "it's", '$HOME `x` \\ "q"', "*", "line\nline", "-n", "é"];
    const result = run(execCpio(["printf", "%s|", ...args]));
    assert.equal(result.stdout.toString(), `${args.join("|")}|`);
    const bytes = Uint8Array.from({ length: 255 }, (_, i) => i + 1);
    assert.deepEqual(new Uint8Array(run(execCpio(["printf", "%s", bytes])).stdout), bytes);
  });

  it("has its variables, and keeps a shell's text as it is", () => {
    const result = run(execCpio('echo "$A" && exit 3', { A: "it's $B" }));
    assert.equal(result.stdout.toString(), "it's $B\n");
    assert.equal(result.status, 3);
  });

  it("is refused when it cannot be passed on", () => {
    for (const attempt of [() => execCpio([]), () => execCpio(["a\0b"]), () => execCpio("a", { "A B": "" })]) {
      assert.throws(attempt, (error) => error instanceof ImageError && error.code === "bad-command");
    }
  });
});
