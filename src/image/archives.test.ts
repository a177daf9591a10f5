import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import fc from "fast-check";
import { assertSurvives } from "../../tests/image/hostile-bytes.js";
import { readAr } from "./ar.js";
import { concatBytes, encodeUtf8, utf8 } from "./byte-reader.js";
import { type CpioEntry, readCpio, writeCpio } from "./cpio.js";
import { readDeb } from "./deb.js";
import { readTar, type TarEntry } from "./tar.js";

const missing = (tool: string): string | false =>
  spawnSync(tool, ["--version"]).error === undefined ? false : `${tool} is not installed`;

describe("archives", () => {
  let folder: string;
  const long = `${"directory/".repeat(12)}${"long-name-".repeat(8)}.txt`;
  const content = "content\n".repeat(200);
  before(() => {
    folder = mkdtempSync(join(tmpdir(), "enlighten-archives-"));
    mkdirSync(join(folder, "tree", "directory/".repeat(12)), { recursive: true });
    writeFileSync(join(folder, "tree", long), content);
    writeFileSync(join(folder, "tree/empty"), "");
    writeFileSync(join(folder, "tree/odd"), "abc", { mode: 0o751 });
    symlinkSync("../target of link", join(folder, "tree/link"));
    symlinkSync("x".repeat(180), join(folder, "tree/long-link"));
    spawnSync("ln", ["tree/odd", "tree/hard"], { cwd: folder });
  });
  after(() => rmSync(folder, { recursive: true }));

  for (const format of ["gnu", "pax", "ustar", "oldgnu"]) {
    it(`reads tar's ${format} format`, { skip: missing("tar") }, () => {
      const { stdout } = spawnSync("tar", ["-c", `--format=${format}`, "-C", join(folder, "tree"), "."], {
        maxBuffer: 1 << 24,
      });
      const entries = new Map(readTar(stdout).map((entry): [string, TarEntry] => [entry.path, entry]));
      if (format !== "ustar") assert.equal(entries.get("long-link")!.link, "x".repeat(180));
      assert.equal(utf8(entries.get(long)!.data), content);
      assert.equal(entries.get("link")!.link, "../target of link");
      assert.equal(entries.get("odd")!.mode & 0o777, 0o751);
      const kinds = [entries.get("odd")!, entries.get("hard")!].map(({ kind }) => kind).sort();
      assert.deepEqual(kinds, ["file", "hardlink"]);
      assert.equal(entries.get("empty")!.data.length, 0);
      assert.equal(entries.get("directory")!.kind, "directory");
    });
  }

  it("survives damaged tar files", { skip: missing("tar") }, () => {
    const { stdout } = spawnSync("tar", ["-c", "--format=pax", "-C", join(folder, "tree"), "."], {
      maxBuffer: 1 << 24,
    });
    assertSurvives(readTar, stdout);
  });

  it("reads ar", { skip: missing("ar") }, () => {
    writeFileSync(join(folder, "one"), "1");
    writeFileSync(join(folder, "two.tar.xz"), "22");
    const { status } = spawnSync("ar", ["rc", "test.a", "one", "two.tar.xz"], { cwd: folder });
    assert.equal(status, 0);
    const bytes = readFileSync(join(folder, "test.a"));
    assert.deepEqual(
      readAr(bytes).map(({ name, data }) => [name, utf8(data)]),
      [
        ["one", "1"],
        ["two.tar.xz", "22"],
      ],
    );
    assertSurvives(readAr, bytes);
  });

  for (const packing of ["xz", "gzip", "zstd", "none"]) {
    it(`reads a package of dpkg-deb packed with ${packing}`, { skip: missing("dpkg-deb") }, async () => {
      const root = join(folder, `package-${packing}`);
      mkdirSync(join(root, "DEBIAN"), { recursive: true });
      writeFileSync(
        join(root, "DEBIAN/control"),
        "Package: test\nVersion: 1.2-3\nArchitecture: all\nMaintainer: a <a@b>\nDescription: x\n more\n",
      );
      writeFileSync(join(root, "file"), content);
      const file = `${root}.deb`;
      const { status, stderr } = spawnSync("dpkg-deb", [`-Z${packing}`, "-b", root, file], { encoding: "utf8" });
      assert.equal(status, 0, stderr);
      const deb = await readDeb(readFileSync(file));
      assert.equal(deb.control.get("version"), "1.2-3");
      assert.equal(deb.control.get("description"), "x\nmore");
      assert.equal(utf8(deb.files.find(({ path }) => path === "file")!.data), content);
    });
  }

  const name = fc.stringMatching(/^[a-z][a-z0-9._-]{0,30}$/);
  const mode = fc.nat(0o7777);
  const plain = { noNullPrototype: true } as const;
  const entry: fc.Arbitrary<CpioEntry> = fc.oneof(
    fc.record({ kind: fc.constant("file" as const), path: name, mode, data: fc.uint8Array({ maxLength: 50 }) }, plain),
    fc.record({ kind: fc.constant("directory" as const), path: name, mode }, plain),
    fc.record({ kind: fc.constant("fifo" as const), path: name, mode }, plain),
    fc.record({ kind: fc.constant("symlink" as const), path: name, target: name }, plain),
    fc.record(
      { kind: fc.constant("character" as const), path: name, mode, major: fc.nat(255), minor: fc.nat(255) },
      plain,
    ),
  );

  it("reads back every cpio it writes, and several in a row", () => {
    fc.assert(
      fc.property(fc.array(entry), fc.array(entry), (first, second) => {
        const both = concatBytes([writeCpio(first), writeCpio(second)]);
        assert.deepEqual(readCpio(both), [...first, ...second]);
        assert.equal(both.length % 512, 0);
      }),
    );
  });

  it("writes what cpio reads, and reads what cpio writes", { skip: missing("cpio") }, () => {
    const archive = writeCpio([
      { kind: "directory", path: "d", mode: 0o750 },
      { kind: "file", path: "d/f", mode: 0o640, data: encodeUtf8("hello") },
      { kind: "symlink", path: "l", target: "d/f" },
      { kind: "character", path: "null", mode: 0o666, major: 1, minor: 3 },
    ]);
    const { stdout, stderr } = spawnSync("cpio", ["-itv"], {
      input: archive,
      encoding: "utf8",
      env: { ...process.env, LC_ALL: "C" },
    });
    assert.match(stdout, /^drwxr-x--- .* d$/m, stderr);
    assert.match(stdout, /^-rw-r----- .* 5 .* d\/f$/m);
    assert.match(stdout, /^l.* l -> d\/f$/m);
    assert.match(stdout, /^crw-rw-rw- .*1, +3 .* null$/m);

    const made = spawnSync("cpio", ["-o", "-H", "newc"], { cwd: join(folder, "tree"), input: "link\nempty\n" });
    const entries = readCpio(made.stdout);
    assert.deepEqual(
      entries.map(({ path, kind }) => [path, kind]),
      [
        ["link", "symlink"],
        ["empty", "file"],
      ],
    );
    assertSurvives(readCpio, archive);
  });
});
