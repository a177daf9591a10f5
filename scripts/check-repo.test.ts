import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { checkFile, checkRepository } from "./check-repo.js";

const of = (file: string, text: string): string[] => checkFile(file, text).map((f) => f.what);

describe("repository rules", () => {
  it("hold for every file", () => {
    assert.deepEqual(checkRepository(), []);
  });
  it("find an import against the direction", () => {
    assert.deepEqual(of("src/cpu/a.ts", 'import { x } from "../machine/b.js";'), ["cpu imports machine"]);
    assert.deepEqual(of("src/machine/a.ts", 'import { x } from "../cpu/b.js";'), []);
    assert.deepEqual(of("src/vm/a.ts", 'import { x } from "../host/node/b.js";'), ["vm imports host"]);
  });
  it("find the platform, time and chance where they must not be", () => {
    assert.deepEqual(of("src/vm/a.ts", 'import { x } from "node:fs";'), ["imports node:fs"]);
    assert.deepEqual(of("src/chipset/a.ts", "const t = Date.now();"), ["time or chance that was not injected"]);
    assert.deepEqual(of("src/host/node/a.ts", 'import { x } from "node:fs"; const t = Date.now();'), []);
  });
  it("find files that are too long, and names that say nothing", () => {
    assert.equal(of("src/cpu/a.ts", "x\n".repeat(900)).length, 1);
    assert.deepEqual(of("src/cpu/utils.ts", ""), ["a name that says nothing"]);
    assert.match(of("src/nowhere/a.ts", "")[0]!, /no place/);
  });
});
