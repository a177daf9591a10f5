import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Disk, DiskStatus } from "../../disk/disk.js";
import { MemoryDisk } from "../../disk/memory.js";
import { StorageController } from "./controller.js";
import { FailingDisk } from "./failing-disk.js";
import {
  assertCheck,
  assertGood,
  be,
  hex,
  read10,
  read16,
  ScriptedGuest,
  testMemory,
  unmap,
  unmapList,
  write10,
  writeSame16,
} from "./scripted-guest.js";
import type { StorageProblem } from "./target.js";

const IDENTITY = hex("01 02 03 04 05 06 07 08 09 0a 0b 0c");
const MIB = 1 << 20;

interface Rig {
  readonly guest: ScriptedGuest;
  readonly controller: StorageController;
  readonly problems: StorageProblem[];
}
function rig(disk: Disk): Rig {
  const memory = testMemory();
  const problems: StorageProblem[] = [];
  const controller = new StorageController({
    instanceId: "00000000-0000-0000-0000-000000000001",
    memory,
    onProblem: (p) => problems.push(p),
  });
  controller.addDisk(0, disk, IDENTITY);
  return { guest: new ScriptedGuest(controller, memory).start(), controller, problems };
}
const text = (s: string): number[] => [...s].map((c) => c.charCodeAt(0));

describe("SCSI disk: what it says of itself", () => {
  it("standard INQUIRY (SPC-4, Standard INQUIRY data)", () => {
    const { guest } = rig(new MemoryDisk({ bytes: MIB }));
    const c = guest.run({ cdb: [0x12, 0, 0, 0, 36, 0], in: 36 });
    assertGood(c);
    assert.deepEqual([...c.data], [0x00, 0x00, 0x05, 0x02, 31, 0, 0, 0x02, ...text("Msft    Virtual Disk    1.0 ")]);
    // An allocation length that is too small cuts it off; a longer one changes nothing.
    assert.equal(guest.run({ cdb: [0x12, 0, 0, 0, 5, 0], in: 36 }).transferred, 5);
    assert.equal(guest.run({ cdb: [0x12, 0, 0, 0, 255, 0], in: 255 }).transferred, 36);
    assert.equal(guest.run({ cdb: [0x12, 0, 0, 0, 255, 0], in: 7 }).transferred, 7);
    assertCheck(guest.run({ cdb: [0x12, 0, 0x83, 0, 255, 0], in: 255 }), 0x052400);
    assertCheck(guest.run({ cdb: [0x12, 2, 0, 0, 255, 0], in: 255 }), 0x052400);
  });

  it("vital product data pages", () => {
    const { guest } = rig(new MemoryDisk({ bytes: MIB }));
    const page = (n: number): number[] => {
      const c = guest.run({ cdb: [0x12, 1, n, 0, 255, 0], in: 255 });
      assertGood(c);
      return [...c.data];
    };
    assert.deepEqual(page(0x00), [...hex("00 00 00 06  00 80 83 b0 b1 b2")]);
    assert.deepEqual(page(0x80), [0, 0x80, 0, 24, ...text("0102030405060708090a0b0c")]);
    assert.deepEqual(page(0x83), [
      ...hex("00 83 00 38"),
      ...hex("02 01 00 20"),
      ...text("Msft    0102030405060708090a0b0c"),
      ...hex("01 03 00 10  60 02 24 80 01 02 03 04 05 06 07 08 09 0a 0b 0c"),
    ]);
    // SBC-3, Block Limits: WSNZ, granularity 8 blocks, UNMAP limits, alignment valid, WRITE SAME up to 65,536 blocks.
    assert.deepEqual(page(0xb0), [
      ...hex("00 b0 00 3c  01 00 00 08  00 00 00 00  00 00 00 00  00 00 00 00"),
      ...hex("ff ff ff ff  00 00 0f ff  00 00 00 08  80 00 00 00"),
      ...hex("00 00 00 00 00 01 00 00"),
      ...new Array(20).fill(0),
    ]);
    assert.deepEqual(page(0xb1), [...hex("00 b1 00 3c 00 01"), ...new Array(58).fill(0)]);
    assert.deepEqual(page(0xb2), [...hex("00 b2 00 04  00 e4 02 00")]);
    assertCheck(guest.run({ cdb: [0x12, 1, 0x8f, 0, 255, 0], in: 255 }), 0x052400);
  });

  it("a disk that cannot give space back does not say it can", () => {
    const { guest } = rig(new MemoryDisk({ bytes: MIB, readOnly: true }));
    assert.deepEqual(
      [...guest.run({ cdb: [0x12, 1, 0, 0, 255, 0], in: 255 }).data],
      [...hex("00 00 00 05 00 80 83 b0 b1")],
    );
    assert.deepEqual(
      [...guest.run({ cdb: [0x12, 1, 0xb0, 0, 255, 0], in: 255 }).data.subarray(20, 36)],
      new Array(16).fill(0),
    );
    assert.equal(guest.run({ cdb: [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], in: 32 }).data[14], 0);
  });

  it("READ CAPACITY (10) and (16)", () => {
    const { guest } = rig(new MemoryDisk({ bytes: MIB }));
    const capacity10 = [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const capacity16 = (n: number): number[] => [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n, 0, 0];
    assert.deepEqual([...guest.run({ cdb: capacity10, in: 8 }).data], [...hex("00 00 07 ff 00 00 02 00")]);
    const c = guest.run({ cdb: capacity16(32), in: 32 });
    assert.deepEqual(
      [...c.data],
      [...hex("00 00 00 00 00 00 07 ff  00 00 02 00  00 03 c0 00"), ...new Array(16).fill(0)],
    );
    assert.equal(guest.run({ cdb: capacity16(12), in: 32 }).transferred, 12);
    assertCheck(guest.run({ cdb: [0x9e, 0x12, ...new Array(14).fill(0)], in: 32 }), 0x052400);

    const huge = rig(new MemoryDisk({ bytes: 4096 * 2 ** 33, logicalBlockBytes: 4096 })).guest;
    assert.deepEqual([...huge.run({ cdb: capacity10, in: 8 }).data], [...hex("ff ff ff ff 00 00 10 00")]);
    assert.deepEqual(
      [...huge.run({ cdb: capacity16(32), in: 32 }).data.subarray(0, 16)],
      [...hex("00 00 00 01 ff ff ff ff  00 00 10 00  00 00 c0 00")],
    );
  });

  it("MODE SENSE: write cache, DPO and FUA, write protection", () => {
    const caching = hex("08 12 04 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00");
    const control = hex("0a 0a 00 10 00 00 00 00 00 00 00 00");
    const { guest } = rig(new MemoryDisk({ bytes: MIB }));
    const sense6 = (page: number, sub = 0, n = 255): number[] => [0x1a, 0, page, sub, n, 0];
    const sense10 = (page: number): number[] => [0x5a, 0, page, 0, 0, 0, 0, 0, 255, 0];
    assert.deepEqual([...guest.run({ cdb: sense6(0x08), in: 255 }).data], [23, 0, 0x10, 0, ...caching]);
    assert.deepEqual([...guest.run({ cdb: sense6(0x3f), in: 255 }).data], [35, 0, 0x10, 0, ...caching, ...control]);
    assert.deepEqual([...guest.run({ cdb: sense6(0x3f, 0xff), in: 255 }).data.subarray(0, 1)], [35]);
    assert.deepEqual([...guest.run({ cdb: sense6(0x3f, 0, 4), in: 4 }).data], [35, 0, 0x10, 0]);
    assert.deepEqual([...guest.run({ cdb: sense10(0x08), in: 255 }).data], [0, 26, 0, 0x10, 0, 0, 0, 0, ...caching]);
    // Changeable values: only WCE. Default values: it is set.
    assert.deepEqual([...guest.run({ cdb: sense6(0x48), in: 255 }).data.subarray(4, 8)], [0x08, 0x12, 0x04, 0]);
    assert.deepEqual(
      [...guest.run({ cdb: sense6(0x4a), in: 255 }).data.subarray(4)],
      [0x0a, 10, ...new Array(10).fill(0)],
    );
    assert.deepEqual([...guest.run({ cdb: sense6(0x88), in: 255 }).data.subarray(4, 7)], [0x08, 0x12, 0x04]);
    assertCheck(guest.run({ cdb: sense6(0xc8), in: 255 }), 0x053900);
    assertCheck(guest.run({ cdb: sense6(0x1c), in: 255 }), 0x052400);
    assertCheck(guest.run({ cdb: sense6(0x08, 1), in: 255 }), 0x052400);

    const locked = rig(new MemoryDisk({ bytes: MIB, readOnly: true })).guest;
    assert.equal(locked.run({ cdb: sense6(0x3f), in: 255 }).data[2], 0x90);
    assert.equal(locked.run({ cdb: sense10(0x3f), in: 255 }).data[3], 0x90);
  });

  it("MODE SELECT changes the write cache and nothing else", () => {
    const disk = new FailingDisk({ bytes: MIB });
    const { guest } = rig(disk);
    const page = (wce: number, other = 0): number[] => [0x08, 0x12, wce, other, ...new Array(16).fill(0)];
    const select6 = (list: number[], flags = 0x10): ReturnType<ScriptedGuest["run"]> =>
      guest.run({ cdb: [0x15, flags, 0, 0, list.length, 0], out: Uint8Array.from(list) });
    const isWriteCacheOn = (): boolean => (guest.run({ cdb: [0x1a, 0, 8, 0, 255, 0], in: 255 }).data[6]! & 4) !== 0;
    const write = (): void => assertGood(guest.run({ cdb: write10(0, 1), out: new Uint8Array(512) }));

    assertGood(select6([0, 0, 0, 0, ...page(0)]));
    assert.equal(isWriteCacheOn(), false);
    assert.deepEqual(disk.log, ["flush"], "what was cached is written when the cache is switched off");
    write();
    assert.deepEqual(disk.log.splice(0), ["flush", "write 0 512", "flush"]);
    assertGood(
      guest.run({
        cdb: [0x55, 0x10, 0, 0, 0, 0, 0, 0, 28, 0],
        out: Uint8Array.from([...new Array(8).fill(0), ...page(4)]),
      }),
    );
    assert.equal(isWriteCacheOn(), true);
    write();
    assert.deepEqual(disk.log, ["write 0 512"]);
    // With a block descriptor of 8 bytes in front; both pages at once.
    assertGood(select6([0, 0, 0, 8, ...new Array(8).fill(0), ...page(4), 0x0a, 10, 0, 0x10, ...new Array(8).fill(0)]));
    assertGood(guest.run({ cdb: [0x15, 0x10, 0, 0, 0, 0] }));
    for (const [list, sense] of [
      [[0, 0, 0, 0, ...page(0, 1)], 0x052600],
      [[0, 0, 0, 0, 0x1c, 0x0a, ...new Array(10).fill(0)], 0x052600],
      [[0, 0, 0, 0, 0x08, 0x0a, ...new Array(10).fill(0)], 0x052600],
      [[0, 0, 0, 0, ...page(0).slice(0, 19)], 0x051a00],
      [[0, 0, 0, 0, 0x08], 0x052600],
      [[0, 0, 0], 0x051a00],
      [[0, 0, 0, 9, ...new Array(8).fill(0)], 0x051a00],
    ] as const)
      assertCheck(select6([...list]), sense);
    assertCheck(select6([0, 0, 0, 0, ...page(0)], 0x11), 0x052400);
    assert.equal(isWriteCacheOn(), true);
    assert.equal(guest.run({ cdb: [0x15, 0x10, 0, 0, 24, 0], out: new Uint8Array(23) }).srb, 6);
  });

  it("small commands", () => {
    const { guest } = rig(new MemoryDisk({ bytes: MIB }));
    assertGood(guest.run({ cdb: [0, 0, 0, 0, 0, 0] }));
    assertGood(guest.run({ cdb: [0x1b, 0, 0, 0, 0, 0] }));
    assertGood(guest.run({ cdb: [0x1d, 4, 0, 0, 0, 0] }));
    assertGood(guest.run({ cdb: [0x1d, 0, 0, 0, 0, 0] }));
    assertCheck(guest.run({ cdb: [0x1d, 0, 0, 0, 8, 0], out: new Uint8Array(8) }), 0x052400);
    assertGood(guest.run({ cdb: [0x2f, 0, ...be(2040, 4), 0, 0, 8, 0] }));
    assertCheck(guest.run({ cdb: [0x2f, 0, ...be(2041, 4), 0, 0, 8, 0] }), 0x052100);
    assertCheck(guest.run({ cdb: [0x2f, 2, ...be(0, 4), 0, 0, 8, 0] }), 0x052400);
    assertGood(guest.run({ cdb: [0x8f, 0, ...be(0, 8), ...be(2048, 4), 0, 0] }));
    // No sense: nothing has happened.
    assert.deepEqual(
      [...guest.run({ cdb: [0x03, 0, 0, 0, 18, 0], in: 18 }).data],
      [...hex("70 00 00 00 00 00 00 0a"), ...new Array(10).fill(0)],
    );
    assertCheck(guest.run({ cdb: [0x03, 1, 0, 0, 18, 0], in: 18 }), 0x052400);
    for (const opcode of [0x04, 0x16, 0x4d, 0x5e, 0x7f, 0x83, 0xa3, 0xc1, 0xff])
      assertCheck(guest.run({ cdb: [opcode, ...new Array(15).fill(0)] }), 0x052000);
    // An unknown opcode's sense data, byte by byte (SPC-4, Fixed format sense data).
    const c = guest.run({ cdb: [0xff, 0, 0, 0, 0, 0] });
    assert.deepEqual(
      [...c.payload.subarray(28, 48)],
      [...hex("70 00 05 00 00 00 00 0a 00 00 00 00 20 00 00 00 00 00 00 00")],
    );
    assert.equal(c.payload[21], 18);
  });
});

describe("SCSI disk: data", () => {
  it("all forms of READ and WRITE reach the same blocks", () => {
    const disk = new MemoryDisk({ bytes: MIB });
    const { guest, controller } = rig(disk);
    const block = (n: number): Uint8Array => new Uint8Array(512).fill(n);
    assertGood(guest.run({ cdb: [0x0a, 0, 0, 1, 1, 0], out: block(1) }));
    assertGood(guest.run({ cdb: write10(2, 1), out: block(2) }));
    assertGood(guest.run({ cdb: [0xaa, 0, ...be(3, 4), ...be(1, 4), 0, 0], out: block(3) }));
    assertGood(guest.run({ cdb: [0x8a, 0, ...be(4, 8), ...be(1, 4), 0, 0], out: block(4) }));
    for (const cdb of [[0x08, 0, 0, 1, 4, 0], read10(1, 4), [0xa8, 0, ...be(1, 4), ...be(4, 4), 0, 0], read16(1, 4)]) {
      const c = guest.run({ cdb, in: 2048 });
      assertGood(c);
      assert.equal(c.transferred, 2048);
      assert.deepEqual(c.data, Uint8Array.from([1, 2, 3, 4].flatMap((n) => [...block(n)])));
    }
    // READ(6) counts 256 as 0, and has 21 bits of address.
    assert.equal(guest.run({ cdb: [0x08, 0, 0, 0, 0, 0], in: 256 * 512 }).transferred, 256 * 512);
    assertCheck(guest.run({ cdb: [0x08, 0x1f, 0xff, 0xff, 1, 0], in: 512 }), 0x052100);
    assertCheck(guest.run({ cdb: [0x08, 0x10, 0, 1, 1, 0], in: 512 }), 0x052100);
    assert.deepEqual(controller.statistics(0), {
      reads: 5,
      writes: 4,
      bytesRead: 4 * 2048 + 256 * 512,
      bytesWritten: 4 * 512,
      flushes: 0,
      discards: 0,
      errors: 0,
    });
  });

  it("a guest that takes more than the command gives learns how much it was; one that takes less gets nothing", () => {
    const disk = new FailingDisk({ bytes: MIB });
    const { guest } = rig(disk);
    const more = guest.run({ cdb: read10(0, 1), in: 1024 });
    assertGood(more);
    assert.equal(more.transferred, 512);
    const less = guest.run({ cdb: read10(0, 2), in: 1023 });
    assert.deepEqual([less.ntStatus, less.srb, less.transferred], [0xc000000d, 6, 0]);
    assert.equal(guest.run({ cdb: write10(0, 2), out: new Uint8Array(512) }).srb, 6);
    assert.equal(guest.run({ cdb: write10(0, 1), in: 512 }).srb, 6);
    assert.equal(guest.run({ cdb: read10(0, 1), out: new Uint8Array(512) }).srb, 6);
    assert.equal(guest.run({ cdb: read10(0, 1) }).srb, 6);
    assert.equal(guest.run({ cdb: [0x12, 0, 0, 0, 36, 0], out: new Uint8Array(36) }).srb, 6);
    assert.deepEqual(disk.log, []);
    // No blocks at all is no error (SBC-3, READ (10) command).
    assertGood(guest.run({ cdb: read10(0, 0) }));
    assertGood(guest.run({ cdb: write10(2048, 0) }));
  });

  it("blocks that do not exist", () => {
    const disk = new FailingDisk({ bytes: MIB });
    const { guest } = rig(disk);
    assertGood(guest.run({ cdb: read10(2047, 1), in: 512 }));
    assertCheck(guest.run({ cdb: read10(2047, 2), in: 1024 }), 0x052100);
    assertCheck(guest.run({ cdb: write10(2048, 1), out: new Uint8Array(512) }), 0x052100);
    for (const lba of [2 ** 32, 2 ** 52, 2 ** 63]) assertCheck(guest.run({ cdb: read16(lba, 1), in: 512 }), 0x052100);
    const last = [0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0];
    assertCheck(guest.run({ cdb: last, in: 512 }), 0x052100);
    assertCheck(guest.run({ cdb: [0x35, 0, ...be(2048, 4), 0, 0, 1, 0] }), 0x052100);
    assert.deepEqual(disk.log, []);
    // Protection information is asked for.
    assertCheck(guest.run({ cdb: [0x28, 0x20, 0, 0, 0, 0, 0, 0, 1, 0], in: 512 }), 0x052400);
  });

  it("FUA and SYNCHRONIZE CACHE reach the disk before the completion", () => {
    const disk = new FailingDisk({ bytes: MIB });
    const { guest, controller } = rig(disk);
    disk.slow = true;
    const fua = guest.submit({ cdb: write10(0, 1, 0x08), out: new Uint8Array(512) });
    assert.deepEqual(disk.log, ["write 0 512", "flush"]);
    assert.equal(guest.completionOf(fua), undefined);
    const sync = guest.submit({ cdb: [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0] });
    const sync16 = guest.submit({ cdb: [0x91, 0, ...new Array(14).fill(0)] });
    // Others do not wait for it.
    assertGood(guest.run({ cdb: write10(0, 1), out: new Uint8Array(512) }));
    disk.go();
    const c = guest.completionOf(fua)!;
    assertGood(c);
    assert.equal(c.transferred, 512);
    assertGood(guest.completionOf(sync)!);
    assertGood(guest.completionOf(sync16)!);
    assert.equal(controller.statistics(0)!.flushes, 3);
    disk.failFlush = DiskStatus.ioError;
    const failed = guest.submit({ cdb: write10(0, 1, 0x08), out: new Uint8Array(512) });
    disk.go();
    assertCheck(guest.completionOf(failed)!, 0x030c00);
  });

  it("errors of the medium become sense data, and the host is told once", () => {
    const disk = new FailingDisk({ bytes: MIB });
    const { guest, controller, problems } = rig(disk);
    disk.failRead = DiskStatus.ioError;
    assertCheck(guest.run({ cdb: read10(0, 1), in: 512 }), 0x031100);
    assertCheck(guest.run({ cdb: read10(0, 1), in: 512 }), 0x031100);
    disk.failWrite = DiskStatus.ioError;
    assertCheck(guest.run({ cdb: write10(0, 1), out: new Uint8Array(512) }), 0x030c00);
    disk.failWrite = DiskStatus.noSpace;
    assertCheck(guest.run({ cdb: write10(0, 1), out: new Uint8Array(512) }), 0x072707);
    assertCheck(guest.run({ cdb: writeSame16(0, 8), out: new Uint8Array(512).fill(1) }), 0x072707);
    assertCheck(guest.run({ cdb: writeSame16(0, 8), out: new Uint8Array(512) }), 0x072707);
    disk.failWrite = DiskStatus.readOnly;
    assertCheck(guest.run({ cdb: write10(0, 1), out: new Uint8Array(512) }), 0x072700);
    assert.deepEqual(problems, [
      { lun: 0, kind: "io-error", command: "READ(10)" },
      { lun: 0, kind: "no-space", command: "WRITE(10)" },
      { lun: 0, kind: "read-only", command: "WRITE(10)" },
    ]);
    assert.equal(controller.statistics(0)!.errors, 7);
  });

  it("a read-only disk takes no writes", () => {
    const { guest } = rig(new MemoryDisk({ bytes: MIB, readOnly: true }));
    assertCheck(guest.run({ cdb: write10(0, 1), out: new Uint8Array(512) }), 0x072700);
    assertCheck(guest.run({ cdb: writeSame16(0, 1), out: new Uint8Array(512) }), 0x072700);
    assertCheck(guest.run({ cdb: unmap(24), out: unmapList([0, 1]) }), 0x072700);
    assertGood(guest.run({ cdb: [0x35, ...new Array(9).fill(0)] }));
  });

  it("UNMAP: lists as SBC-3 has them", () => {
    const disk = new FailingDisk({ bytes: MIB });
    const { guest } = rig(disk);
    assertGood(guest.run({ cdb: write10(0, 16), out: new Uint8Array(8192).fill(7) }));
    disk.log.length = 0;
    const c = guest.run({ cdb: unmap(56), out: unmapList([1, 2], [4, 0], [8, 8]) });
    assertGood(c);
    assert.deepEqual(disk.log, ["discard 512 1024", "discard 4096 4096"]);
    const after = guest.run({ cdb: read10(0, 16), in: 8192 }).data;
    assert.deepEqual(
      Array.from({ length: 16 }, (_, i) => after[i * 512]),
      [7, 0, 0, 7, 7, 7, 7, 7, 0, 0, 0, 0, 0, 0, 0, 0],
    );
    disk.log.length = 0;
    assertGood(guest.run({ cdb: unmap(0) }));
    assertGood(guest.run({ cdb: unmap(8), out: unmapList() }));
    // An incomplete descriptor at the end does not count.
    const cut = unmapList([0, 1]).subarray(0, 16);
    cut[3] = 8;
    assertGood(guest.run({ cdb: unmap(16), out: cut }));
    assertCheck(guest.run({ cdb: unmap(24), out: unmapList([2047, 2]) }), 0x052100);
    assertCheck(guest.run({ cdb: unmap(40), out: unmapList([0, 1], [2 ** 40, 1]) }), 0x052100);
    assertCheck(guest.run({ cdb: unmap(7), out: new Uint8Array(7) }), 0x051a00);
    assertCheck(guest.run({ cdb: unmap(16), out: unmapList([0, 1]).subarray(0, 16) }), 0x051a00);
    const anchored = unmap(24);
    anchored[1] = 1;
    assertCheck(guest.run({ cdb: anchored, out: unmapList([0, 1]) }), 0x052400);
    assert.equal(guest.run({ cdb: unmap(24), in: 24 }).srb, 6);
    assert.deepEqual(disk.log, [], "nothing of a refused list is done");
  });

  it("UNMAP where nothing can be given back", () => {
    class Solid extends MemoryDisk {
      override readonly canDiscard = false;
    }
    const { guest } = rig(new Solid({ bytes: MIB }));
    assertCheck(guest.run({ cdb: unmap(24), out: unmapList([0, 1]) }), 0x052000);
    assertCheck(guest.run({ cdb: writeSame16(0, 1, 0x08), out: new Uint8Array(512) }), 0x052400);
    assertGood(guest.run({ cdb: writeSame16(0, 1), out: new Uint8Array(512) }));
  });

  it("WRITE SAME (10) and (16)", () => {
    const disk = new FailingDisk({ bytes: 64 * MIB });
    const { guest } = rig(disk);
    const pattern = Uint8Array.from({ length: 512 }, (_, i) => i * 7);
    const c = guest.run({ cdb: [0x41, 0, ...be(3, 4), 0, ...be(1000, 2), 0], out: pattern });
    assertGood(c);
    const back = new Uint8Array(1002 * 512);
    disk.read(2 * 512, back, 0, back.length);
    const expected = new Uint8Array(back.length);
    for (let i = 1; i <= 1000; i++) expected.set(pattern, i * 512);
    assert.deepEqual(back, expected);

    disk.log.length = 0;
    assertGood(guest.run({ cdb: writeSame16(3, 10), out: new Uint8Array(512) }));
    assertGood(guest.run({ cdb: writeSame16(3, 10, 0x08), out: new Uint8Array(512) }));
    assertGood(guest.run({ cdb: writeSame16(3, 10, 0x01) })); // NDOB
    assertGood(guest.run({ cdb: writeSame16(3, 65_536, 0x09) }));
    assert.deepEqual(disk.log, [
      "zero 1536 5120",
      "discard 1536 5120",
      "zero 1536 5120",
      `discard 1536 ${65_536 * 512}`,
    ]);
    disk.log.length = 0;
    assertCheck(guest.run({ cdb: writeSame16(0, 0), out: pattern }), 0x052400);
    assertCheck(guest.run({ cdb: writeSame16(0, 65_537), out: pattern }), 0x052400);
    assertCheck(guest.run({ cdb: writeSame16(131_071, 2), out: pattern }), 0x052100);
    for (const flags of [0x10, 0x04, 0x02, 0x20])
      assertCheck(guest.run({ cdb: writeSame16(0, 1, flags), out: pattern }), 0x052400);
    assertCheck(guest.run({ cdb: [0x41, 1, ...be(3, 4), 0, 0, 1, 0], out: pattern }), 0x052400);
    assert.equal(guest.run({ cdb: writeSame16(0, 1), out: pattern.subarray(1) }).srb, 6);
    assert.deepEqual(disk.log, []);
  });

  it("a write of a range that is being given back comes after it", () => {
    const disk = new FailingDisk({ bytes: MIB });
    const { guest } = rig(disk);
    assertGood(guest.run({ cdb: write10(0, 16), out: new Uint8Array(8192).fill(1) }));
    disk.slow = true;
    const given = guest.submit({ cdb: unmap(40), out: unmapList([4, 4], [12, 2]) });
    const pieces = [{ gpa: 0x8001, length: 512 }];
    const written = guest.submit({ cdb: write10(7, 1), out: new Uint8Array(512).fill(9), pieces });
    const read = guest.submit({ cdb: read10(12, 1), in: 512, pieces: [{ gpa: 0x9003, length: 512 }] });
    const pattern = guest.submit({
      cdb: writeSame16(5, 1),
      out: new Uint8Array(512).fill(8),
      pieces: [{ gpa: 0xa000, length: 512 }],
    });
    // Beside the ranges nothing waits.
    assertGood(guest.run({ cdb: write10(8, 4), out: new Uint8Array(2048).fill(2) }));
    assertGood(guest.run({ cdb: read10(3, 1), in: 512 }));
    for (const id of [given, written, read, pattern]) assert.equal(guest.completionOf(id), undefined);
    disk.held.shift()!();
    assertGood(guest.completionOf(written)!);
    assertGood(guest.completionOf(pattern)!);
    assert.equal(guest.completionOf(read), undefined);
    disk.go();
    assertGood(guest.completionOf(read)!);
    assertGood(guest.completionOf(given)!);
    assert.equal(guest.memory.ram[0x9003], 0);
    const after = guest.run({ cdb: read10(0, 16), in: 8192 }).data;
    assert.deepEqual(
      Array.from({ length: 16 }, (_, i) => after[i * 512]),
      [1, 1, 1, 1, 0, 8, 0, 9, 2, 2, 2, 2, 0, 0, 1, 1],
    );
  });

  it("a unit attention is told once, by the next command that is not INQUIRY, REPORT LUNS or REQUEST SENSE", () => {
    const disk = new MemoryDisk({ bytes: MIB });
    const { guest } = rig(disk);
    disk.resize(2 * MIB);
    disk.resize(4 * MIB);
    assertGood(guest.run({ cdb: [0x12, 0, 0, 0, 36, 0], in: 36 }));
    assertGood(guest.run({ cdb: [0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], in: 16 }));
    assertCheck(guest.run({ cdb: read10(0, 1), in: 512 }), 0x062a09);
    assertGood(guest.run({ cdb: read10(8191, 1), in: 512 }));
    disk.resize(MIB);
    const c = guest.run({ cdb: [0x03, 0, 0, 0, 18, 0], in: 18 });
    assertGood(c);
    assert.deepEqual([...c.data], [...hex("70 00 06 00 00 00 00 0a 00 00 00 00 2a 09 00 00 00 00")]);
    assertGood(guest.run({ cdb: [0, 0, 0, 0, 0, 0] }));
    assertCheck(guest.run({ cdb: read10(2048, 1), in: 512 }), 0x052100);
  });
});
