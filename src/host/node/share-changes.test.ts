import assert from "node:assert/strict";
import {
  appendFileSync,
  chmodSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, beforeEach, describe, it } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import type { Found } from "../../services/files/share.js";
import type { ChangedPaths } from "./share-changes.js";
import { FolderShare } from "./share-folder.js";

const top = mkdtempSync(join(tmpdir(), "enlighten-changes-"));
after(() => rmSync(top, { recursive: true, force: true }));
const PATIENCE_MS = 20_000;
const name = (text: string): Buffer => Buffer.from(text);

describe("what the host changes in a share", () => {
  let folder: string;
  let share: FolderShare;
  /** What was told since the last look. */
  let told: string[] = [];
  const open = (maxWatched?: number): FolderShare =>
    new FolderShare(folder, false, {
      onChanged: (paths: ChangedPaths) => void told.push(...paths.map((path) => `/${path}`)),
      onScan: () => {},
      ...(maxWatched === undefined ? {} : { maxWatched }),
    });
  beforeEach(() => {
    folder = mkdtempSync(join(top, "share-"));
    share = open();
  });
  afterEach(() => share.close());
  /** Nothing is left to be told of what was done before. */
  function reopen(): void {
    share.close();
    told = [];
    share = open();
  }

  /** As a guest that asks for a path, from the top; its folders are asked for as well. */
  function look(...path: string[]): Found {
    let found: Found = { node: share.root, attributes: share.attributes(share.root) };
    for (const part of path) found = share.lookup(found.node, name(part));
    return found;
  }
  /** All that was told until this is; the guest looks at it. */
  async function toldUntil(path: string): Promise<string[]> {
    const from = performance.now();
    while (!told.includes(path)) {
      assert.ok(performance.now() - from < PATIENCE_MS, `not told of ${path}, but of: ${told}`);
      await pause(5);
    }
    return told.splice(0).sort();
  }

  it("is told: a file's bytes, length, mode and times", async () => {
    writeFileSync(join(folder, "f"), "one");
    reopen();
    look("f");
    const changes = [
      () => writeFileSync(join(folder, "f"), "two"),
      () => appendFileSync(join(folder, "f"), "more"),
      () => chmodSync(join(folder, "f"), 0o600),
      () => utimesSync(join(folder, "f"), 1, 2),
    ];
    for (const change of changes) {
      look("f");
      change();
      // the folder is as it was
      assert.deepEqual(await toldUntil("/f"), ["/f"]);
    }
  });
  it("is told: what is made, renamed and removed, as changes of the folder", async () => {
    mkdirSync(join(folder, "a/b"), { recursive: true });
    writeFileSync(join(folder, "a/b/old"), "");
    reopen();
    look("a", "b", "old");
    const b = join(folder, "a/b");
    for (const change of [
      () => writeFileSync(join(b, "new"), ""),
      () => symlinkSync("new", join(b, "link")),
      () => rmSync(join(b, "new")),
      () => renameSync(join(b, "link"), join(b, "other")),
    ]) {
      look("a", "b");
      change();
      assert.deepEqual(await toldUntil("/a/b"), ["/a/b"]);
    }
    look("a", "b", "old");
    renameSync(join(b, "old"), join(folder, "moved"));
    const paths = await toldUntil("/a/b");
    // it is the file that the guest knows, by another name
    assert.deepEqual(
      paths.filter((path) => path !== "/" && path !== "/moved"),
      ["/a/b"],
    );
  });
  it("is not told when the guest did it itself, or never saw it", async () => {
    writeFileSync(join(folder, "mine"), "x");
    mkdirSync(join(folder, "unseen"));
    writeFileSync(join(folder, "marker"), "");
    reopen();
    const { node } = look("mine");
    look("marker");
    look();
    writeFileSync(join(folder, "unseen/file"), "");
    for (let i = 0; i < 20; i++) {
      share.write(node, BigInt(i), name("y"));
      share.attributes(node);
    }
    share.setAttributes(node, { mode: 0o600, size: 3n });
    share.attributes(node);
    const made = share.makeFolder(share.root, name("made"), {});
    share.create(made.node, name("file"), "unchecked", {}, 0n);
    share.rename(share.root, name("mine"), made.node, name("renamed"));
    share.link(node, made.node, name("second"));
    share.attributes(node);
    share.remove(made.node, name("renamed"));
    share.attributes(made.node);
    share.attributes(share.root);
    writeFileSync(join(folder, "marker"), "changed");
    assert.deepEqual(await toldUntil("/marker"), ["/marker"]);
  });
  it("is told in the order in which a guest has to look, folders first", async () => {
    mkdirSync(join(folder, "a/b"), { recursive: true });
    for (const path of ["a/b/f", "a/f", "f"]) writeFileSync(join(folder, path), "");
    reopen();
    for (const path of [["a", "b", "f"], ["a", "f"], ["f"]]) look(...path);
    look();
    for (const path of ["a/b/f", "f", "a/f"]) writeFileSync(join(folder, path), "changed");
    for (const path of ["a/b", "a", "."]) writeFileSync(join(folder, path, "new"), "");
    const from = performance.now();
    while (new Set(told).size < 6 && performance.now() - from < PATIENCE_MS) await pause(5);
    assert.deepEqual([...new Set(told)].sort(), ["/", "/a", "/a/b", "/a/b/f", "/a/f", "/f"]);
    for (const [folderPath, path] of [
      ["/", "/f"],
      ["/a", "/a/f"],
      ["/a/b", "/a/b/f"],
    ])
      assert.ok(told.indexOf(folderPath!) < told.lastIndexOf(path!), String(told));
  });
  it("is found by looking around, where nothing was heard", async () => {
    const outside = mkdtempSync(join(top, "outside-"));
    writeFileSync(join(folder, "f"), "");
    linkSync(join(folder, "f"), join(outside, "other-name"));
    reopen();
    look("f");
    look("f");
    // by a name in a folder that nobody watches
    writeFileSync(join(outside, "other-name"), "changed");
    share.lookAround();
    assert.deepEqual(told.splice(0), ["/f"]);
    look("f");
    share.lookAround();
    assert.deepEqual(told, []);
  });
  it("is found by a share that goes on from a saved one", async () => {
    mkdirSync(join(folder, "a"));
    for (const path of ["a/changed", "a/same"]) writeFileSync(join(folder, path), "");
    reopen();
    look("a", "changed");
    look("a", "same");
    look();
    const saved = structuredClone(share.save());
    share.close();
    writeFileSync(join(folder, "a/changed"), "while nobody looked");
    share = open();
    share.restore(saved);
    assert.equal(share.watched, 1);
    share.lookAround();
    assert.deepEqual(told.splice(0), ["/a/changed"]);
    // and is watched again
    assert.equal(share.watched, 2);
    look("a", "changed");
    writeFileSync(join(folder, "a/same"), "changed");
    assert.deepEqual(await toldUntil("/a/same"), ["/a/same"]);
  });
  it("is found by looking, where no more folders can be watched", async () => {
    for (const path of ["a", "b"]) {
      mkdirSync(join(folder, path));
      writeFileSync(join(folder, path, "f"), "");
    }
    share.close();
    // the share's own folder, and one more
    share = open(2);
    look("a", "f");
    look("b", "f");
    assert.equal(share.watched, 2);
    writeFileSync(join(folder, "b/f"), "changed");
    writeFileSync(join(folder, "b/new"), "");
    writeFileSync(join(folder, "a/f"), "changed");
    // what was heard of, without what was not
    assert.deepEqual(await toldUntil("/a/f"), ["/a/f"]);
    look("a", "f");
    share.lookAround();
    assert.deepEqual(told.splice(0), ["/b", "/b/f"]);
    // there is room again
    look("b", "f");
    rmSync(join(folder, "a"), { recursive: true });
    await toldUntil("/");
    while (share.watched > 1) {
      share.lookAround();
      await pause(5);
    }
    look("b", "f");
    assert.equal(share.watched, 2);
    told = [];
    writeFileSync(join(folder, "b/f"), "changed again");
    assert.deepEqual(await toldUntil("/b/f"), ["/b/f"]);
  });
  it("is told whole, where it is much at once", async () => {
    mkdirSync(join(folder, "many"));
    for (let i = 0; i < 5000; i++) writeFileSync(join(folder, `many/${i}`), "");
    reopen();
    const many = look("many");
    for (let i = 0; i < 5000; i++) share.lookup(many.node, name(String(i)));
    for (let i = 0; i < 5000; i++) writeFileSync(join(folder, `many/${i}`), "changed");
    const from = performance.now();
    while (new Set(told).size < 5000 && performance.now() - from < PATIENCE_MS) await pause(5);
    assert.equal(new Set(told).size, 5000);
  });
  it("is told of no folder that was removed or moved away", async () => {
    const outside = mkdtempSync(join(top, "outside-"));
    for (const path of ["gone", "away"]) {
      mkdirSync(join(folder, path));
      writeFileSync(join(folder, path, "f"), "");
    }
    reopen();
    for (const path of ["gone", "away"]) look(path, "f");
    assert.equal(share.watched, 3);
    look();
    rmSync(join(folder, "gone"), { recursive: true });
    renameSync(join(folder, "away"), join(outside, "away"));
    await toldUntil("/");
    look();
    writeFileSync(join(outside, "away/f"), "changed");
    // long enough for what is heard of it, to be let go of
    const from = performance.now();
    while (share.watched > 1 && performance.now() - from < PATIENCE_MS) {
      share.lookAround();
      await pause(5);
    }
    assert.equal(share.watched, 1);
    assert.deepEqual(
      told.filter((path) => path.includes("/f")),
      [],
    );
  });
});
