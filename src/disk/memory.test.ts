import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { DiskStatus } from "./disk.js";
import { MemoryDisk } from "./memory.js";

const KIB = 1024;

describe("disk in memory", () => {
  it("agrees with an array, whatever the order of reads, writes and zeroes", () => {
    const SIZE = 300 * KIB;
    const operation = fc.record({
      what: fc.constantFrom("write", "zero", "discard"),
      offset: fc.integer({ min: 0, max: SIZE - 1 }),
      length: fc.integer({ min: 0, max: 200 * KIB }),
      fill: fc.integer({ min: 1, max: 255 }),
    });
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 20 }), (operations) => {
        const disk = new MemoryDisk({ bytes: SIZE });
        const model = new Uint8Array(SIZE);
        for (const { what, offset, length, fill } of operations) {
          const n = Math.min(length, SIZE - offset);
          if (what === "write") {
            const data = new Uint8Array(n + 7).fill(fill);
            assert.equal(disk.write(offset, data, 7, n), DiskStatus.ok);
            model.fill(fill, offset, offset + n);
          } else {
            let status = -1;
            const done = (s: DiskStatus): void => {
              status = s;
            };
            if (what === "zero") disk.writeZeroes(offset, n, done);
            else disk.discard(offset, n, done);
            assert.equal(status, DiskStatus.ok);
            model.fill(0, offset, offset + n);
          }
        }
        const back = new Uint8Array(SIZE + 5).fill(0xaa);
        assert.equal(disk.read(0, back, 5, SIZE), DiskStatus.ok);
        assert.ok(Buffer.compare(back.subarray(5), model) === 0);
        assert.deepEqual([...back.subarray(0, 5)], [0xaa, 0xaa, 0xaa, 0xaa, 0xaa]);
      }),
      { numRuns: 100 },
    );
  });

  it("takes memory for what was written only, and gives it back", () => {
    const disk = new MemoryDisk({ bytes: 2 ** 50 });
    assert.equal(disk.allocatedBytes, 0);
    disk.write(2 ** 49, new Uint8Array(2), 0, 2);
    disk.write(64 * KIB - 1, new Uint8Array(2).fill(1), 0, 2);
    assert.equal(disk.allocatedBytes, 3 * 64 * KIB);
    let ended = 0;
    disk.discard(0, 64 * KIB, () => ended++);
    assert.equal(disk.allocatedBytes, 2 * 64 * KIB);
    disk.discard(0, 2 ** 50, () => ended++);
    assert.equal(disk.allocatedBytes, 0);
    disk.flush((s) => {
      assert.equal(s, DiskStatus.ok);
      ended++;
    });
    assert.equal(ended, 3);
  });

  it("read-only", () => {
    const disk = new MemoryDisk({ bytes: 4096, readOnly: true });
    assert.equal(disk.canDiscard, false);
    assert.equal(disk.write(0, new Uint8Array(512), 0, 512), DiskStatus.readOnly);
    const statuses: DiskStatus[] = [];
    disk.discard(0, 512, (s) => statuses.push(s));
    disk.writeZeroes(0, 512, (s) => statuses.push(s));
    assert.deepEqual(statuses, [DiskStatus.readOnly, DiskStatus.readOnly]);
  });

  it("resized: what was cut off is gone", () => {
    const disk = new MemoryDisk({ bytes: 8192, logicalBlockBytes: 4096 });
    assert.deepEqual([disk.logicalBlockBytes, disk.physicalBlockBytes, disk.discardGranularity], [4096, 4096, 4096]);
    let told = 0;
    disk.write(4096, new Uint8Array(4096).fill(1), 0, 4096);
    disk.resize(4096);
    disk.onResized = () => told++;
    disk.resize(8192);
    assert.equal(told, 1);
    const back = new Uint8Array(4096).fill(9);
    disk.read(4096, back, 0, 4096);
    assert.ok(back.every((b) => b === 0));
    for (const bytes of [0, -4096, 512, 4097, 2 ** 60, Number.NaN]) assert.throws(() => disk.resize(bytes), RangeError);
    assert.throws(() => new MemoryDisk({ bytes: 1000 }), /1000 bytes/);
  });
});
