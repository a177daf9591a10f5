import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { DiskStatus } from "../../disk/disk.js";
import { GuestMemory } from "../../machine/guest-memory.js";
import { GpaRanges } from "../../vmbus/gpa-ranges.js";
import { FailingDisk } from "./failing-disk.js";
import { Transfer } from "./transfer.js";

const MIB = 1 << 20;

function rig() {
  const written: string[] = [];
  const memory = new GuestMemory(new Uint8Array(8 * MIB), {
    written: (gpa, length) => {
      written.push(`${gpa.toString(16)}+${length.toString(16)}`);
      return false;
    },
    settle: () => {},
  });
  const disk = new FailingDisk({ bytes: 4 * MIB });
  for (let i = 0; i < 4 * MIB; i += 4096) disk.write(i, new Uint8Array(4096).fill(1 + ((i / 4096) % 200)), 0, 4096);
  disk.log.length = 0;
  return { memory, disk, transfer: new Transfer(memory), written };
}
/** Pages of one range. */
function pages(bytes: number, offset: number, ...list: number[]): GpaRanges {
  const ranges = new GpaRanges();
  ranges.addRange(bytes, offset);
  for (const page of list) ranges.addPage(page);
  return ranges;
}

describe("transfer", () => {
  it("one call of the disk for pages that follow each other, and for scattered ones", () => {
    const { memory, disk, transfer, written } = rig();
    assert.equal(transfer.read(disk, 4096, pages(12_288, 0, 5, 6, 7), 8192), DiskStatus.ok);
    assert.deepEqual(written, ["5000+2000"], "who decodes code is told of what was written");
    assert.deepEqual([memory.ram[0x5000], memory.ram[0x6fff], memory.ram[0x7000]], [2, 3, 0]);
    written.length = 0;
    assert.equal(transfer.read(disk, 0, pages(8192, 100, 9, 20, 8), 8192), DiskStatus.ok);
    assert.deepEqual(written, ["9064+f9c", "14000+1000", "8000+64"]);
    assert.deepEqual(
      [0x9063, 0x9064, 0x9fff, 0x14000, 0x14063, 0x14064, 0x14fff, 0x8063, 0x8064].map((at) => memory.ram[at]),
      [0, 1, 1, 1, 1, 2, 2, 2, 0],
    );
    // A buffer that is larger than the command: nothing behind the data, above all nothing of an earlier command.
    memory.ram.fill(0);
    written.length = 0;
    assert.equal(transfer.read(disk, 0, pages(8192, 0, 9, 20), 4608), DiskStatus.ok);
    assert.deepEqual(written, ["9000+1000", "14000+200"]);
    assert.equal(memory.ram[0x14200], 0);
    assert.equal(transfer.read(disk, 0, pages(8192, 100, 9, 20, 8), 8192), DiskStatus.ok);
    assert.equal(transfer.write(disk, 65_536, pages(8192, 100, 9, 20, 8), 8192), DiskStatus.ok);
    assert.equal(transfer.write(disk, 0, pages(4096, 0, 5), 4096), DiskStatus.ok);
    assert.deepEqual(disk.log, ["write 65536 8192", "write 0 4096"]);
    const back = new Uint8Array(8192);
    disk.read(65_536, back, 0, 8192);
    assert.deepEqual([back[0], back[4095], back[4096], back[8191]], [1, 1, 2, 2]);
  });

  it("very large ones go piece by piece", () => {
    const { memory, disk, transfer, written } = rig();
    const first = Array.from({ length: 256 }, (_, i) => i);
    const second = Array.from({ length: 256 }, (_, i) => 1024 + i);
    const ranges = pages(2 * MIB, 0, ...first, ...second);
    assert.equal(transfer.read(disk, 0, ranges, 2 * MIB), DiskStatus.ok);
    assert.deepEqual(written, ["0+100000", "400000+100000"]);
    assert.deepEqual([memory.ram[MIB - 1], memory.ram[4 * MIB], memory.ram[5 * MIB - 1]], [56, 57, 1 + (511 % 200)]);
    assert.equal(transfer.write(disk, 0, ranges, 2 * MIB), DiskStatus.ok);
    assert.deepEqual(disk.log, [`write 0 ${MIB}`, `write ${MIB} ${MIB}`]);
    // It stops at the first that fails.
    disk.log.length = 0;
    written.length = 0;
    disk.failWrite = DiskStatus.noSpace;
    disk.failRead = DiskStatus.ioError;
    assert.equal(transfer.write(disk, 0, ranges, 2 * MIB), DiskStatus.noSpace);
    assert.equal(disk.log.length, 1);
    assert.equal(transfer.read(disk, 0, ranges, 2 * MIB), DiskStatus.ioError);
    assert.deepEqual(written, ["0+100000"]);
  });

  it("a scattered read that fails leaves the guest's buffer alone", () => {
    const { disk, transfer, written } = rig();
    disk.failRead = DiskStatus.ioError;
    assert.equal(transfer.read(disk, 0, pages(8192, 0, 5, 9), 8192), DiskStatus.ioError);
    assert.deepEqual(written, []);
  });
});
