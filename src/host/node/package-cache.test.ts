import assert from "node:assert/strict";
import { chmod, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { ImageError } from "../../image/errors.js";
import { type CacheFiles, cacheFolder, FolderCache, sha256 } from "./package-cache.js";

describe("package cache", () => {
  let folder: string;
  let cache: FolderCache;
  const bytes = new TextEncoder().encode("content");
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "enlighten-cache-"));
    cache = new FolderCache(folder);
  });
  afterEach(() => rm(folder, { recursive: true }));

  it("gives back what was written, and nothing else", async () => {
    const hash = await sha256(bytes);
    assert.equal(await cache.read(hash), undefined);
    await cache.write(hash, bytes);
    assert.deepEqual(new Uint8Array((await cache.read(hash))!), bytes);
    await cache.write(hash, bytes);
    assert.equal((await readdir(join(folder, "sha256", hash.slice(0, 2)))).length, 1);
  });

  it("drops what was damaged on the disk", async () => {
    const hash = await sha256(bytes);
    await cache.write(hash, bytes);
    await writeFile(join(folder, "sha256", hash.slice(0, 2), hash), "damage");
    assert.equal(await cache.read(hash), undefined);
    assert.deepEqual(await readdir(join(folder, "sha256", hash.slice(0, 2))), []);
  });

  it("keeps records, and takes damaged ones for none", async () => {
    assert.equal(await cache.readRecord("a"), undefined);
    await cache.writeRecord("a", { x: [1] });
    assert.deepEqual(await cache.readRecord("a"), { x: [1] });
    await writeFile(join(folder, "records/a.json"), "{");
    assert.equal(await cache.readRecord("a"), undefined);
    await assert.rejects(cache.writeRecord("../a", 1));
    await assert.rejects(cache.read("../../etc/passwd"));
  });

  it("survives many writers of the same file", async () => {
    const hash = await sha256(bytes);
    await Promise.all(Array.from({ length: 20 }, () => cache.write(hash, bytes)));
    assert.deepEqual(await readdir(join(folder, "sha256", hash.slice(0, 2))), [hash]);
  });

  it("tells a full disk and a forbidden folder apart, and leaves no parts", async () => {
    for (const [code, expected] of [
      ["ENOSPC", "disk-full"],
      ["EDQUOT", "disk-full"],
      ["EACCES", "cache"],
    ]) {
      const left = new Set<string>();
      const files: CacheFiles = {
        mkdir: async () => {},
        read: async () => bytes,
        write: async (path) => {
          left.add(path);
          throw Object.assign(new Error(code), { code });
        },
        rename: async () => {},
        remove: async (path) => {
          left.delete(path);
        },
      };
      await assert.rejects(new FolderCache(folder, files).write("0".repeat(64), bytes), (error) => {
        assert.ok(error instanceof ImageError && error.code === expected);
        return error.message.includes(folder);
      });
      assert.equal(left.size, 0);
    }
  });

  it("refuses a folder it may not write to", {
    skip: process.getuid?.() === 0 ? "root may write anywhere" : false,
  }, async () => {
    await chmod(folder, 0o500);
    await assert.rejects(cache.write(await sha256(bytes), bytes), { code: "cache" });
    await chmod(folder, 0o700);
  });

  it("is where XDG says, if that is absolute", () => {
    assert.equal(cacheFolder({ XDG_CACHE_HOME: "/x" }), "/x/enlighten");
    for (const environment of [{}, { XDG_CACHE_HOME: "relative" }]) {
      assert.equal(cacheFolder(environment), join(homedir(), ".cache/enlighten"));
    }
  });
});
