/** What the library exports is described: typedoc finds nothing that is not, and would say so. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";

const root = join(import.meta.dirname, "../..");
const typedoc = (...args: string[]): { readonly status: number | null; readonly text: string } => {
  const program = join(root, "node_modules/typedoc/bin/typedoc");
  const env = { ...process.env, NO_COLOR: "1" };
  const r = spawnSync(process.execPath, [program, "--emit", "none", ...args], { cwd: root, encoding: "utf8", env });
  return { status: r.status, text: r.stdout + r.stderr };
};

describe("the library's documentation", () => {
  it("has all that is exported, with each member and type that it leads to", () => {
    assert.deepEqual(typedoc(), { status: 0, text: "" });
  });
  it("fails for what is not described", () => {
    const folder = mkdtempSync(join(tmpdir(), "enlighten-docs-"));
    try {
      const file = join(folder, "index.d.ts");
      const lines = [
        "/** Described. */",
        "export interface Shown {",
        "  /** A member. */",
        "  a: string;",
        "  b: string;",
        "}",
      ];
      writeFileSync(file, lines.join("\n"));
      const tsconfig = join(folder, "tsconfig.json");
      writeFileSync(tsconfig, JSON.stringify({ files: [file], compilerOptions: { noEmit: true, types: [] } }));
      const options = join(folder, "typedoc.json");
      writeFileSync(
        options,
        JSON.stringify({
          extends: [join(root, "typedoc.json")],
          entryPoints: [file],
          tsconfig,
          readme: "none",
        }),
      );
      const { status, text } = typedoc("--options", options);
      assert.notEqual(status, 0);
      assert.match(text, /Shown\.b .*does not have any documentation/);
      assert.doesNotMatch(text, /Shown\.a .*does not have any documentation/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
