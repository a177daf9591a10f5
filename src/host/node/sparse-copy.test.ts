import assert from "node:assert/strict";
import { mkdtemp, open, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { copyNonZero, copySparse } from "./sparse-copy.js";

const SIZE = 64 << 20;
const ISLANDS = [
  [0, "start"],
  [(10 << 20) - 3, "across a piece's end"],
  [SIZE - 4, "end."],
] as const;

describe("sparse copies", () => {
  let folder: string;
  let source: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "enlighten-sparse-"));
    source = join(folder, "source");
    const file = await open(source, "wx");
    await file.truncate(SIZE);
    for (const [at, text] of ISLANDS) await file.write(text, at);
    await file.close();
  });
  after(() => rm(folder, { recursive: true }));

  for (const [name, copy] of Object.entries({ copySparse, copyNonZero })) {
    it(`${name} gives the same bytes and keeps the holes`, { skip: process.platform === "win32" }, async () => {
      const target = join(folder, name);
      await copy(source, target);
      assert.equal(Buffer.compare(await readFile(target), await readFile(source)), 0);
      const { size, blocks } = await stat(target);
      assert.equal(size, SIZE);
      assert.ok(blocks * 512 < 4 << 20, `${blocks} blocks`);
    });
  }

  it("does not write over a file, and leaves nothing when it fails", async () => {
    await assert.rejects(copySparse(source, source));
    assert.equal((await stat(source)).size, SIZE);
    await assert.rejects(copySparse(join(folder, "missing"), join(folder, "never")));
    assert.ok(!(await readdir(folder)).includes("never"));
  });
});
