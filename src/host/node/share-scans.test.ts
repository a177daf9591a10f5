import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { FolderShare } from "./share-folder.js";

const name = (text: string): Buffer => Buffer.from(text);

describe("a guest that goes through a share", () => {
  let folder: string;
  let share: FolderShare;
  /** Folders that are to be listed; of trees, where to begin. */
  let asked: string[] = [];
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "enlighten-scans-"));
    asked = [];
    for (const path of ["a/1", "a/2", "a/3", "b/1", "b/2", "c"]) {
      mkdirSync(join(folder, path), { recursive: true });
      for (let i = 0; i < 30; i++) writeFileSync(join(folder, path, `f${i}`), "");
    }
    for (let i = 0; i < 30; i++) writeFileSync(join(folder, `f${i}`), "");
    share = new FolderShare(folder, false, {
      onChanged: () => {},
      onScan: (path, from) => void asked.push(`/${path}${from === undefined ? "" : ` from /${from}`}`),
    });
  });
  afterEach(() => {
    share.close();
    rmSync(folder, { recursive: true });
  });
  /** @param path of a folder */
  const node = (path: string): number =>
    path.split("/").reduce((at, part) => (part === "" ? at : share.lookup(at, name(part)).node), share.root);
  function goThrough(path: string, files = 30): void {
    const at = node(path);
    for (let i = 0; i < files; i++) share.lookup(at, name(`f${i}`));
  }

  it("has a folder listed, once", () => {
    goThrough("c");
    assert.deepEqual(asked.splice(0), ["/c"]);
    goThrough("c");
    assert.deepEqual(asked.splice(0), []);
  });
  it("has the share's own folder listed", () => {
    goThrough("");
    assert.deepEqual(asked, ["/"]);
  });
  it("has those listed that come next, and then those beside them", () => {
    goThrough("a/1");
    assert.deepEqual(asked.splice(0), ["/a/1"]);
    goThrough("a/2");
    assert.deepEqual(asked.splice(0), ["/a from /a/2"]);
    // it goes on faster than it is helped
    goThrough("b/1");
    assert.deepEqual(asked.splice(0), ["/b/1"]);
    goThrough("b/2");
    assert.deepEqual(asked.splice(0), ["/ from /b"]);
  });
  it("is let alone while it looks for a few files, or lists folders itself", () => {
    for (const path of ["a/1", "a/2", "c"]) goThrough(path, 11);
    const c = node("c");
    const list = (): void => {
      for (const { entries } = share.list(c, 0n, 0n, true); entries.next().done !== true; );
    };
    for (let n = 0; n < 5; n++) {
      list();
      goThrough("c", 11);
    }
    assert.deepEqual(asked, []);
  });
  it("is let alone when what it looks for is not there", () => {
    for (let i = 0; i < 50; i++) assert.throws(() => share.lookup(share.root, name(`no${i}`)));
    assert.deepEqual(asked, []);
  });
});
