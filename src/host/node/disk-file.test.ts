import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it, type TestContext } from "node:test";
import { DiskStatus } from "../../disk/disk.js";
import { RawDisk } from "../../disk/raw.js";
import { type NodeDiskFile, openDiskFile } from "./disk-file.js";

const MIB = 1 << 20;
const folder = mkdtempSync(join(tmpdir(), "enlighten-disk-"));
after(() => rmSync(folder, { recursive: true }));
let made = 0;
const newPath = (): string => join(folder, `disk ${made++}`);
const allocated = (path: string): number => statSync(path).blocks * 512;
const isRoot = process.getuid?.() === 0;
const hasCode = (code: string) => (error: unknown) => {
  assert.ok(error instanceof Error && error.name === "DiskFileError");
  assert.equal((error as unknown as { code: string }).code, code);
  assert.ok((error as unknown as { hint: string }).hint.length > 10);
  return true;
};
const ends = (start: (done: (s: DiskStatus) => void) => void): Promise<DiskStatus> => new Promise(start);
const fill = (file: NodeDiskFile, offset: number, length: number, byte: number): void =>
  assert.equal(file.write(offset, new Uint8Array(length).fill(byte), 0, length), DiskStatus.ok);
function at(file: NodeDiskFile, ...offsets: number[]): number[] {
  const one = new Uint8Array(1);
  return offsets.map((offset) => {
    assert.equal(file.read(offset, one, 0, 1), DiskStatus.ok);
    return one[0]!;
  });
}
function needsHoles(t: TestContext, file: NodeDiskFile): boolean {
  if (!file.canPunch) t.skip("no fallocate here, or the file system has no holes");
  return file.canPunch;
}

describe("disk file in Node", () => {
  it("says when something has ended later than the call that began it, after its answer", async (t) => {
    const said: string[] = [];
    const onCompleted = (): void => void said.push("completed");
    const file = openDiskFile(newPath(), { createBytes: MIB, onCompleted });
    await ends((done) =>
      file.sync((s) => {
        said.push("synced");
        done(s);
      }),
    );
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(said.splice(0), ["synced", "completed"]);
    if (needsHoles(t, file)) {
      await ends((done) =>
        file.punch(0, 65536, (s) => {
          said.push("punched");
          done(s);
        }),
      );
      await new Promise((resolve) => setImmediate(resolve));
      assert.deepEqual(said.splice(0), ["punched", "completed"]);
    }
    file.close();
    const inline = openDiskFile(newPath(), { createBytes: MIB, inline: true, onCompleted });
    inline.sync(() => said.push("synced"));
    assert.deepEqual(said, ["synced"]);
    inline.close();
  });

  it("is made sparse, and reads and writes shared memory", () => {
    const path = newPath();
    const file = openDiskFile(path, { createBytes: 64 * MIB });
    assert.deepEqual([file.bytes, statSync(path).size, file.readOnly], [64 * MIB, 64 * MIB, false]);
    assert.ok(allocated(path) < MIB);
    const ram = new Uint8Array(new SharedArrayBuffer(8192));
    ram.fill(5, 100, 4196);
    assert.equal(file.write(MIB + 3, ram, 100, 4096), DiskStatus.ok);
    assert.equal(file.read(MIB, ram, 4, 4096), DiskStatus.ok);
    assert.deepEqual([ram[3], ram[6], ram[7], ram[4099]], [0, 0, 5, 5]);
    // What lies behind the end reads zero.
    assert.equal(file.read(64 * MIB - 10, ram, 100, 100), DiskStatus.ok);
    assert.ok(ram.subarray(100, 200).every((b) => b === 0));
    file.close();
    file.close();
    // It exists now: the size to make it with does not matter any more.
    const again = openDiskFile(path, { createBytes: 512 });
    assert.equal(again.bytes, 64 * MIB);
    assert.deepEqual(at(again, MIB + 3), [5]);
    again.close();
  });

  it("syncs, resizes, and closes when what is under way has ended", async () => {
    for (const inline of [false, true]) {
      const path = newPath();
      const file = openDiskFile(path, { createBytes: MIB, inline });
      fill(file, 0, 512, 1);
      let ended = 0;
      const first = ends((done) =>
        file.sync((status) => {
          ended++;
          done(status);
        }),
      );
      assert.equal(ended, inline ? 1 : 0);
      const last = ends((done) => file.sync(done));
      file.close();
      assert.deepEqual(await Promise.all([first, last]), [DiskStatus.ok, DiskStatus.ok]);
      assert.deepEqual(
        readdirSync(folder).filter((n) => n.endsWith("-lock")),
        [],
      );
      const again = openDiskFile(path, { inline });
      assert.equal(again.resize(2 * MIB), DiskStatus.ok);
      assert.deepEqual([again.bytes, statSync(path).size], [2 * MIB, 2 * MIB]);
      assert.equal(again.resize(2 ** 52), DiskStatus.noSpace);
      assert.equal(again.bytes, 2 * MIB);
      again.close();
    }
  });

  it("a closed descriptor is an I/O error, not an exception", async () => {
    for (const inline of [false, true]) {
      const file = openDiskFile(newPath(), { createBytes: MIB, inline });
      file.close();
      const byte = new Uint8Array(1);
      assert.equal(file.read(0, byte, 0, 1), DiskStatus.ioError);
      assert.equal(file.write(0, byte, 0, 1), DiskStatus.ioError);
      assert.equal(file.resize(MIB), DiskStatus.ioError);
      if (inline) assert.equal(await ends((done) => file.sync(done)), DiskStatus.ioError);
    }
  });

  it("holes give space back, inline and in the background", async (t) => {
    for (const inline of [true, false]) {
      const path = newPath();
      const file = openDiskFile(path, { createBytes: 16 * MIB, inline });
      if (!needsHoles(t, file)) return;
      const disk = new RawDisk(file);
      fill(file, 0, 8 * MIB, 7);
      assert.equal(await ends((done) => disk.flush(done)), DiskStatus.ok);
      const before = allocated(path);
      assert.ok(before >= 8 * MIB);
      // Odd edges: the bytes beside the range stay.
      assert.equal(await ends((done) => disk.discard(MIB - 512, 6 * MIB, done)), DiskStatus.ok);
      assert.ok(allocated(path) < before - 5 * MIB, `${before} -> ${allocated(path)}`);
      assert.equal(statSync(path).size, 16 * MIB);
      assert.deepEqual(at(file, MIB - 513, MIB - 512, 7 * MIB - 513, 7 * MIB - 512), [7, 0, 0, 7]);
      disk.close();
    }
  });

  it("ranges that touch are punched as one; the file is meant, not its name", async (t) => {
    const path = newPath();
    const file = openDiskFile(path, { createBytes: 4 * MIB });
    if (!needsHoles(t, file)) return;
    fill(file, 0, 4 * MIB, 3);
    renameSync(path, `${path}-moved`);
    const done: Promise<DiskStatus>[] = [];
    // The first is begun at once, the others gather: two that touch, one apart, one between, and over a hundred single ones.
    for (const [from, to] of [
      [0, 1],
      [10, 12],
      [14, 16],
      [30, 31],
      [12, 14],
      [9, 11],
      ...Array.from({ length: 120 }, (_, i) => [100 + i * 4, 101 + i * 4] as const),
    ] as const)
      done.push(ends((d) => file.punch(from * 4096, (to - from) * 4096, d)));
    let closed = false;
    void Promise.all(done).then(() => {
      closed = true;
    });
    file.close();
    assert.equal(closed, false);
    assert.deepEqual(new Set(await Promise.all(done)), new Set([DiskStatus.ok]));
    const bytes = readFileSync(`${path}-moved`);
    for (let block = 0; block < 1024; block++) {
      const hole =
        block === 0 || (block >= 9 && block < 16) || block === 30 || (block >= 100 && block < 580 && block % 4 === 0);
      assert.equal(bytes[block * 4096], hole ? 0 : 3, `block ${block}`);
      assert.equal(bytes[block * 4096 + 4095], hole ? 0 : 3, `block ${block}`);
    }
  });

  it("a punch that fails is an I/O error", async (t) => {
    const file = openDiskFile(newPath(), { createBytes: MIB });
    if (!needsHoles(t, file)) return;
    // fallocate refuses a length of 0.
    assert.equal(await ends((done) => file.punch(0, 0, done)), DiskStatus.ioError);
    assert.equal(await ends((done) => file.punch(0, 4096, done)), DiskStatus.ok);
    file.close();
    const inline = openDiskFile(newPath(), { createBytes: MIB, inline: true });
    assert.equal(await ends((done) => inline.punch(0, 0, done)), DiskStatus.ioError);
    inline.close();
  });

  it("without fallocate there are no holes", () => {
    const path = process.env.PATH;
    try {
      process.env.PATH = folder;
      const file = openDiskFile(newPath(), { createBytes: MIB });
      assert.equal(file.canPunch, false);
      file.close();
    } finally {
      process.env.PATH = path;
    }
  });

  it("read-only", () => {
    const path = newPath();
    writeFileSync(path, new Uint8Array(1024).fill(9));
    const file = openDiskFile(path, { readOnly: true });
    assert.deepEqual([file.readOnly, file.canPunch, file.bytes], [true, false, 1024]);
    assert.deepEqual(at(file, 1023), [9]);
    assert.equal(file.write(0, new Uint8Array(1), 0, 1), DiskStatus.ioError);
    // Readers do not lock.
    const second = openDiskFile(path, { readOnly: true });
    second.close();
    file.close();
    assert.equal(existsSync(`${path}.enlighten-lock`), false);
  });

  it("a full file system is told as such", (t) => {
    if (!isRoot) {
      t.skip("mounting a small tmpfs needs root");
      return;
    }
    const mount = join(folder, "small");
    mkdirSync(mount);
    if (spawnSync("mount", ["-t", "tmpfs", "-o", "size=256k", "none", mount]).status !== 0) {
      t.skip("no tmpfs may be mounted here");
      return;
    }
    try {
      const file = openDiskFile(join(mount, "disk"), { createBytes: MIB, inline: true });
      assert.equal(file.write(0, new Uint8Array(512 * 1024), 0, 512 * 1024), DiskStatus.noSpace);
      file.close();
    } finally {
      spawnSync("umount", [mount]);
    }
  });

  it("what is wrong with a file, and what to do", () => {
    const path = newPath();
    assert.throws(() => openDiskFile(path), hasCode("missing"));
    assert.throws(() => openDiskFile(path, { readOnly: true, createBytes: 512 }), hasCode("missing"));
    assert.throws(() => openDiskFile(folder), hasCode("is-folder"));
    assert.throws(() => openDiskFile(folder, { readOnly: true }), hasCode("is-folder"));
    assert.throws(() => openDiskFile("/dev/null"), hasCode("not-a-file"));
    assert.throws(() => openDiskFile(join(folder, "no", "disk"), { createBytes: 512 }), hasCode("missing"));
    assert.throws(() => openDiskFile(`${path}/x`.repeat(3000), { createBytes: 512 }), hasCode("not-opened"));
    for (const createBytes of [0, -512, 513, 2 ** 60, Number.NaN])
      assert.throws(() => openDiskFile(path, { createBytes }), hasCode("size"));
    assert.throws(() => openDiskFile(path, { createBytes: 2 ** 52 }), hasCode("too-large"));
    assert.equal(existsSync(path), false, "nothing is left of it");
    writeFileSync(path, "");
    assert.throws(() => openDiskFile(path), hasCode("empty"));
    truncateSync(path, 1000);
    assert.throws(() => openDiskFile(path), hasCode("size"));
    openDiskFile(path, { anySize: true, readOnly: true }).close();
  });

  it("permissions", (t) => {
    if (isRoot) {
      t.skip("root may read everything");
      return;
    }
    const path = newPath();
    writeFileSync(path, new Uint8Array(512));
    chmodSync(path, 0o400);
    assert.throws(() => openDiskFile(path), hasCode("not-allowed"));
    openDiskFile(path, { readOnly: true }).close();
  });
});

describe("disk lock", () => {
  const lockOf = (path: string): string => `${path}.enlighten-lock`;

  it("a disk is open for writing once, by whatever name", () => {
    const path = newPath();
    const file = openDiskFile(path, { createBytes: 512 });
    assert.throws(() => openDiskFile(path), hasCode("in-use"));
    symlinkSync(path, `${path}-link`);
    assert.throws(() => openDiskFile(`${path}-link`), hasCode("in-use"));
    openDiskFile(path, { exclusive: false }).close();
    openDiskFile(path, { readOnly: true }).close();
    assert.ok(existsSync(lockOf(path)));
    file.close();
    assert.equal(existsSync(lockOf(path)), false);
    openDiskFile(path).close();
  });

  it("a lock whose process is gone, or was another of the same number, does not count", () => {
    const path = newPath();
    writeFileSync(path, new Uint8Array(512));
    const gone = spawnSync("true").pid;
    for (const text of [`${gone} 1\n`, `${process.pid} 1\n`, "", "nonsense", "-1 5\n"]) {
      writeFileSync(lockOf(path), text);
      openDiskFile(path).close();
      assert.equal(existsSync(lockOf(path)), false, text);
    }
    // Process 1 lives; where its start is not known, that is enough.
    writeFileSync(lockOf(path), "1 -\n");
    assert.throws(() => openDiskFile(path), hasCode("in-use"));
    rmSync(lockOf(path));
    assert.deepEqual(
      readdirSync(folder).filter((n) => n.includes("-lock")),
      [],
    );
  });

  it("another process sees it", () => {
    const path = newPath();
    const file = openDiskFile(path, { createBytes: 512 });
    const script = `import { openDiskFile } from ${JSON.stringify(new URL("./disk-file.js", import.meta.url).href)};
      try { openDiskFile(${JSON.stringify(path)}); console.log("opened"); } catch (error) { console.log(error.code); }`;
    const run = (): string =>
      spawnSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" }).stdout.trim();
    assert.equal(run(), "in-use");
    file.close();
    assert.equal(run(), "opened");
    // That process ended without closing it.
    assert.ok(existsSync(lockOf(path)));
    openDiskFile(path).close();
  });

  it("a lock that cannot be made is an error with a hint", () => {
    const path = newPath();
    writeFileSync(path, new Uint8Array(512));
    mkdirSync(lockOf(path));
    assert.throws(() => openDiskFile(path));
    rmSync(lockOf(path), { recursive: true });
    const long = join(folder, "x".repeat(250));
    writeFileSync(long, new Uint8Array(512));
    assert.throws(() => openDiskFile(long), hasCode("no-lock"));
    openDiskFile(long, { exclusive: false }).close();
  });
});
