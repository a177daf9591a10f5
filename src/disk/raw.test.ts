import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type DiskDone, DiskStatus } from "./disk.js";
import { type DiskFile, RawDisk } from "./raw.js";

/** A file in memory that says what was asked of it, and takes its time when told. */
class FakeFile implements DiskFile {
  contents: Uint8Array;
  readonly readOnly: boolean;
  readonly canPunch: boolean;
  /** Bytes that may be written before the host has no room. */
  room = Number.POSITIVE_INFINITY;
  readonly log: string[] = [];
  readonly syncs: DiskDone[] = [];
  readonly punches: (() => void)[] = [];
  constructor(bytes: number, { readOnly = false, canPunch = true } = {}) {
    this.contents = new Uint8Array(bytes).fill(0xff);
    this.readOnly = readOnly;
    this.canPunch = canPunch;
  }
  get bytes(): number {
    return this.contents.length;
  }
  read(offset: number, into: Uint8Array, at: number, length: number): DiskStatus {
    into.fill(0, at, at + length);
    into.set(this.contents.subarray(offset, offset + length), at);
    return DiskStatus.ok;
  }
  write(offset: number, from: Uint8Array, at: number, length: number): DiskStatus {
    this.log.push(`write ${offset} ${length}`);
    if (length > this.room) return DiskStatus.noSpace;
    this.room -= length;
    this.contents.set(from.subarray(at, at + length), offset);
    return DiskStatus.ok;
  }
  sync(done: DiskDone): void {
    this.log.push("sync");
    this.syncs.push(done);
  }
  punch(offset: number, length: number, done: DiskDone): void {
    this.log.push(`punch ${offset} ${length}`);
    this.punches.push(() => {
      this.contents.fill(0, offset, offset + length);
      done(DiskStatus.ok);
    });
  }
  resize(bytes: number): DiskStatus {
    const contents = new Uint8Array(bytes);
    contents.set(this.contents.subarray(0, bytes));
    this.contents = contents;
    return DiskStatus.ok;
  }
  close(): void {
    this.log.push("close");
  }
}
const write = (disk: RawDisk): DiskStatus => disk.write(0, new Uint8Array(512), 0, 512);

describe("raw disk", () => {
  it("the disk's bytes are the file's", () => {
    const file = new FakeFile(8192);
    const disk = new RawDisk(file);
    assert.deepEqual(
      [
        disk.bytes,
        disk.logicalBlockBytes,
        disk.physicalBlockBytes,
        disk.discardGranularity,
        disk.readOnly,
        disk.canDiscard,
      ],
      [8192, 512, 4096, 4096, false, true],
    );
    assert.equal(disk.write(1024, Uint8Array.of(0, 1, 2, 3), 1, 3), DiskStatus.ok);
    assert.deepEqual([...file.contents.subarray(1023, 1028)], [0xff, 1, 2, 3, 0xff]);
    const back = new Uint8Array(4);
    assert.equal(disk.read(1024, back, 1, 3), DiskStatus.ok);
    assert.deepEqual([...back], [0, 1, 2, 3]);
    disk.close();
    assert.equal(file.log.at(-1), "close");
  });

  it("an ISO's last block may be cut short in the file", () => {
    const disk = new RawDisk(new FakeFile(2048 + 512, { readOnly: true }), {
      logicalBlockBytes: 2048,
      physicalBlockBytes: 2048,
    });
    assert.deepEqual([disk.bytes, disk.physicalBlockBytes], [4096, 2048]);
    const back = new Uint8Array(2048).fill(7);
    disk.read(2048, back, 0, 2048);
    assert.deepEqual([back[511], back[512], back[2047]], [0xff, 0, 0]);
    // A larger one has more blocks.
    assert.equal(new RawDisk(new FakeFile(1), { logicalBlockBytes: 8192 }).discardGranularity, 8192);
  });

  it("flushes that come while one is under way share the next one", () => {
    const file = new FakeFile(4096);
    const disk = new RawDisk(file);
    const ended: string[] = [];
    const flush = (name: string): void => disk.flush((s) => ended.push(`${name} ${s}`));
    flush("first");
    write(disk);
    flush("second");
    flush("third");
    assert.deepEqual(file.log, ["sync", "write 0 512"]);
    assert.deepEqual(ended, []);
    file.syncs.shift()!(DiskStatus.ok);
    assert.deepEqual(ended, ["first 0"]);
    assert.deepEqual(file.log, ["sync", "write 0 512", "sync"]);
    file.syncs.shift()!(DiskStatus.ok);
    assert.deepEqual(ended, ["first 0", "second 0", "third 0"]);
    // Nothing was written since.
    flush("fourth");
    assert.equal(ended.at(-1), "fourth 0");
    assert.equal(file.syncs.length, 0);
    write(disk);
    flush("fifth");
    assert.equal(file.syncs.length, 1);
  });

  it("after a failed flush every flush fails: the system may have dropped the data", () => {
    const file = new FakeFile(4096);
    const disk = new RawDisk(file);
    const ended: DiskStatus[] = [];
    disk.flush((s) => ended.push(s));
    disk.flush((s) => ended.push(s));
    file.syncs.shift()!(DiskStatus.ioError);
    assert.deepEqual([...ended], [DiskStatus.ioError, DiskStatus.ioError]);
    disk.flush((s) => ended.push(s));
    assert.equal(ended.at(-1), DiskStatus.ioError);
    assert.equal(file.syncs.length, 0);
  });

  it("a hole that is punched while a flush is under way needs another flush", () => {
    const file = new FakeFile(8192);
    const disk = new RawDisk(file);
    const ended: string[] = [];
    disk.discard(0, 4096, () => ended.push("discard"));
    disk.flush(() => ended.push("flush"));
    file.syncs.shift()!(DiskStatus.ok);
    file.punches.shift()!();
    assert.deepEqual(ended, ["flush", "discard"]);
    disk.flush(() => ended.push("flush"));
    assert.equal(file.syncs.length, 1);
    assert.deepEqual([file.contents[4095], file.contents[4096]], [0, 0xff]);
  });

  it("where holes cannot be punched, zeroes are written", () => {
    const file = new FakeFile(3 << 20, { canPunch: false });
    const disk = new RawDisk(file);
    assert.equal(disk.canDiscard, false);
    const ended: DiskStatus[] = [];
    disk.writeZeroes(512, (2 << 20) + 512, (s) => ended.push(s));
    assert.deepEqual([...ended], [DiskStatus.ok]);
    assert.deepEqual(file.log, ["write 512 1048576", "write 1049088 1048576", "write 2097664 512"]);
    assert.deepEqual(
      [511, 512, (2 << 20) + 1023, (2 << 20) + 1024].map((at) => file.contents[at]),
      [0xff, 0, 0, 0xff],
    );
    file.room = 1 << 20;
    disk.writeZeroes(0, 3 << 20, (s) => ended.push(s));
    assert.equal(ended.at(-1), DiskStatus.noSpace);
    assert.equal(file.log.length, 5, "it stops where the room ends");
  });

  it("read-only and resize", () => {
    const locked = new FakeFile(4096, { readOnly: true });
    const disk = new RawDisk(locked);
    const ended: DiskStatus[] = [];
    assert.equal(write(disk), DiskStatus.readOnly);
    disk.discard(0, 512, (s) => ended.push(s));
    disk.flush((s) => ended.push(s));
    assert.deepEqual([...ended], [DiskStatus.readOnly, DiskStatus.ok]);
    assert.equal(disk.resize(8192), DiskStatus.readOnly);
    assert.deepEqual([locked.log, disk.canDiscard], [[], false]);

    const file = new FakeFile(4096);
    const grown = new RawDisk(file);
    assert.equal(grown.resize(8192), DiskStatus.ok);
    let told = 0;
    grown.onResized = () => told++;
    assert.equal(grown.resize(16_384), DiskStatus.ok);
    assert.deepEqual([grown.bytes, told], [16_384, 1]);
    file.resize = () => DiskStatus.noSpace;
    assert.equal(grown.resize(32_768), DiskStatus.noSpace);
    assert.equal(told, 1);
  });
});
