import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { DiskStatus } from "../../disk/disk.js";
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
  write10,
} from "./scripted-guest.js";
import type { ScsiDvd } from "./scsi-dvd.js";

const IDENTITY = hex("01 02 03 04 05 06 07 08 09 0a 0b 0c");
const BLOCKS = 350;
const disc = (): FailingDisk => new FailingDisk({ bytes: BLOCKS * 2048, logicalBlockBytes: 2048 });

function rig(withDisc = true): {
  guest: ScriptedGuest;
  drive: ScsiDvd;
  disk: FailingDisk;
  controller: StorageController;
} {
  const memory = testMemory();
  const controller = new StorageController({ instanceId: "00000000-0000-0000-0000-000000000002", memory });
  const disk = disc();
  const drive = controller.addDvd(0, IDENTITY, withDisc ? disk : undefined);
  return { guest: new ScriptedGuest(controller, memory).start(), drive, disk, controller };
}
const TUR = [0, 0, 0, 0, 0, 0];
const START = (bits: number): number[] => [0x1b, 0, 0, 0, bits, 0];
const LOCK = (on: number): number[] => [0x1e, 0, 0, 0, on, 0];
const EVENTS = [0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0];
const toc = (format: number, msf: number, track = 0, allocation = 255): number[] => [
  0x43,
  msf << 1,
  format,
  0,
  0,
  0,
  track,
  ...be(allocation, 2),
  0,
];

describe("DVD drive", () => {
  it("INQUIRY and its pages", () => {
    const { guest } = rig();
    const text = (s: string): number[] => [...s].map((c) => c.charCodeAt(0));
    assert.deepEqual(
      [...guest.run({ cdb: [0x12, 0, 0, 0, 96, 0], in: 96 }).data],
      [0x05, 0x80, 0x05, 0x02, 31, 0, 0, 0x02, ...text("Msft    Virtual DVD-ROM 1.0 ")],
    );
    assert.deepEqual([...guest.run({ cdb: [0x12, 1, 0, 0, 96, 0], in: 96 }).data], [...hex("05 00 00 03 00 80 83")]);
    assert.equal(guest.run({ cdb: [0x12, 1, 0x83, 0, 96, 0], in: 96 }).transferred, 60);
    assertCheck(guest.run({ cdb: [0x12, 1, 0xb0, 0, 96, 0], in: 96 }), 0x052400);
  });

  it("reads blocks of 2,048 bytes", () => {
    const { guest, disk, controller } = rig();
    disk.write(5 * 2048, new Uint8Array(4096).fill(9), 0, 4096);
    assertGood(guest.run({ cdb: TUR }));
    assert.deepEqual(
      [...guest.run({ cdb: [0x25, ...new Array(9).fill(0)], in: 8 }).data],
      [...hex("00 00 01 5d 00 00 08 00")],
    );
    for (const cdb of [read10(5, 2), read16(5, 2), [0xa8, 0, ...be(5, 4), ...be(2, 4), 0, 0]]) {
      const c = guest.run({ cdb, in: 4096 });
      assertGood(c);
      assert.deepEqual(c.data, new Uint8Array(4096).fill(9));
    }
    assert.equal(controller.statistics(0)!.bytesRead, 3 * 4096);
    assertCheck(guest.run({ cdb: read10(BLOCKS, 1), in: 2048 }), 0x052100);
    assert.equal(guest.run({ cdb: read10(0, 1), in: 2047 }).srb, 6);
    assertGood(guest.run({ cdb: [0x2b, 0, ...be(BLOCKS - 1, 4), 0, 0, 0, 0] }));
    assertCheck(guest.run({ cdb: [0x2b, 0, ...be(BLOCKS, 4), 0, 0, 0, 0] }), 0x052100);
    assertCheck(guest.run({ cdb: write10(0, 1), out: new Uint8Array(2048) }), 0x052000);
    disk.failRead = DiskStatus.ioError;
    assertCheck(guest.run({ cdb: read10(0, 1), in: 2048 }), 0x031100);
    assert.equal(controller.statistics(0)!.errors, 1);
  });

  it("GET CONFIGURATION (MMC-6, Feature Descriptors)", () => {
    const { guest, drive } = rig();
    const get = (which: number, first: number, allocation = 255): number[] => [
      ...guest.run({ cdb: [0x46, which, ...be(first, 2), 0, 0, 0, ...be(allocation, 2), 0], in: 255 }).data,
    ];
    const features = [
      hex("00 00 03 04 00 10 01 00"),
      hex("00 01 0b 08 00 00 00 01 01 00 00 00"),
      hex("00 02 07 04 00 00 00 00"),
      hex("00 03 0b 04 29 00 00 00"),
      hex("00 10 01 08 00 00 08 00 00 10 00 00"),
      hex("00 1f 05 04 00 00 00 00"),
    ].map((f) => [...f]);
    const header = (n: number): number[] => [0, 0, 0, n, 0, 0, 0, 0x10];
    assert.deepEqual(get(0, 0), [...header(60), ...features.flat()]);
    assert.deepEqual(get(0, 0x10), [...header(24), ...features[4]!, ...features[5]!]);
    assert.deepEqual(get(2, 3), [...header(12), ...features[3]!]);
    assert.deepEqual(get(2, 0x21), header(4));
    assert.deepEqual(get(0, 0, 8), header(60));
    drive.eject();
    assert.deepEqual(get(1, 0).slice(0, 8), [0, 0, 0, 40, 0, 0, 0, 0], "without a disc: what does not need one");
    assert.equal(get(1, 0).length, 44);
    assertCheck(guest.run({ cdb: [0x46, 3, 0, 0, 0, 0, 0, 0, 255, 0], in: 255 }), 0x052400);
  });

  it("READ TOC: one data track", () => {
    const { guest } = rig();
    const get = (cdb: number[]): number[] => [...guest.run({ cdb, in: 255 }).data];
    const track = hex("00 14 01 00 00 00 00 00");
    const leadOut = hex("00 14 aa 00 00 00 01 5e");
    assert.deepEqual(get(toc(0, 0)), [...hex("00 12 01 01"), ...track, ...leadOut]);
    assert.deepEqual(get(toc(0, 0, 1, 4)), [...hex("00 12 01 01")]);
    assert.deepEqual(get(toc(0, 0, 0xaa)), [...hex("00 0a 01 01"), ...leadOut]);
    // 0 and 350 in minutes, seconds and frames: 2 s later, 75 frames a second.
    assert.deepEqual(get(toc(0, 1)), [...hex("00 12 01 01 00 14 01 00 00 00 02 00 00 14 aa 00 00 00 06 32")]);
    assert.deepEqual(get(toc(1, 0)), [...hex("00 0a 01 01 00 14 01 00 00 00 00 00")]);
    assert.deepEqual(get(toc(1, 1)), [...hex("00 0a 01 01 00 14 01 00 00 00 02 00")]);
    // The format where SFF-8020 had it.
    const old = toc(0, 0);
    old[9] = 0x40;
    assert.deepEqual(get(old), [...hex("00 0a 01 01 00 14 01 00 00 00 00 00")]);
    assertCheck(guest.run({ cdb: toc(0, 0, 2), in: 255 }), 0x052400);
    assertCheck(guest.run({ cdb: toc(2, 0), in: 255 }), 0x052400);
    const large = rig(false);
    large.drive.insert(new MemoryDisk({ bytes: 2048 * 4_000_000, logicalBlockBytes: 2048 }));
    assertCheck(large.guest.run({ cdb: TUR }), 0x062800);
    assert.deepEqual([...large.guest.run({ cdb: toc(0, 1, 0xaa), in: 255 }).data.subarray(8)], [0, 255, 59, 74]);
  });

  it("disc, track, structure, performance, mechanism", () => {
    const { guest } = rig();
    const get = (cdb: number[], n = 4096): number[] => [...guest.run({ cdb, in: n }).data];
    assert.deepEqual(get([0x51, 0, 0, 0, 0, 0, 0, 1, 0, 0]), [
      ...hex("00 20 0e 01 01 01 01 20 00 00 00 00 00 00 00 00"),
      ...hex("ff ff ff ff ff ff ff ff"),
      ...new Array(10).fill(0),
    ]);
    assertCheck(guest.run({ cdb: [0x51, 1, 0, 0, 0, 0, 0, 1, 0, 0], in: 255 }), 0x052400);
    const trackInfo = [
      ...hex("00 22 01 01 00 04 01 00"),
      ...new Array(16).fill(0),
      ...hex("00 00 01 5e 00 00 01 5d 00 00 00 00"),
    ];
    const info = (kind: number, n: number): number[] => [0x52, kind, ...be(n, 4), 0, 1, 0, 0];
    for (const cdb of [info(0, BLOCKS - 1), info(1, 1), info(2, 1)]) assert.deepEqual(get(cdb), trackInfo);
    for (const cdb of [info(0, BLOCKS), info(1, 2), info(2, 0), info(3, 1)])
      assertCheck(guest.run({ cdb, in: 255 }), 0x052400);
    const structure = (format: number, media = 0, layer = 0): number[] => [
      0xad,
      media,
      0,
      0,
      0,
      0,
      layer,
      format,
      0x10,
      0,
      0,
      0,
    ];
    const physical = get(structure(0));
    assert.equal(physical.length, 2052);
    assert.deepEqual(physical.slice(0, 22), [
      ...hex("08 02 00 00 01 02 01 00 00 03 00 00 00 03 01 5d 00 00 00 00 00 00"),
    ]);
    assert.deepEqual(get(structure(1)), [...hex("00 06 00 00 00 00 00 00")]);
    for (const cdb of [structure(4), structure(0, 1), structure(0, 0, 1)])
      assertCheck(guest.run({ cdb, in: 4096 }), 0x052400);
    const perf = (descriptors: number, type: number, flags = 0): number[] => [
      0xac,
      flags,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      descriptors,
      type,
      0,
    ];
    assert.deepEqual(get(perf(1, 0)), [
      ...hex("00 00 00 14 00 00 00 00  00 00 00 00 00 00 54 80 00 00 01 5d 00 00 54 80"),
    ]);
    assert.deepEqual(get(perf(0, 0)).length, 8);
    assertCheck(guest.run({ cdb: perf(1, 3), in: 64 }), 0x052400);
    assertCheck(guest.run({ cdb: perf(1, 0, 4), in: 64 }), 0x052400);
    assert.deepEqual(get([0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], 8), new Array(8).fill(0));
    assertGood(guest.run({ cdb: [0xbb, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0] }));
    assertGood(guest.run({ cdb: [0xb6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 28, 0], out: new Uint8Array(28) }));
    assert.equal(guest.run({ cdb: [0xb6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 28, 0] }).srb, 6);
    assertGood(guest.run({ cdb: [0x1d, 4, 0, 0, 0, 0] }));
    assertCheck(guest.run({ cdb: [0x1d, 0, 0, 0, 1, 0] }), 0x052400);
    assertGood(guest.run({ cdb: [0x03, 0, 0, 0, 18, 0], in: 18 }));
  });

  it("MODE SENSE: what Linux sr reads", () => {
    const { guest } = rig();
    const page2a = (lock: number): number[] => [0x2a, 20, 8, 0, 0, 0, 0x29 | lock, ...new Array(15).fill(0)];
    const get = (page: number): number[] => [
      ...guest.run({ cdb: [0x5a, 0, page, 0, 0, 0, 0, 0, 128, 0], in: 128 }).data,
    ];
    assert.deepEqual(get(0x2a), [...hex("00 1c 00 00 00 00 00 00"), ...page2a(0)]);
    assertGood(guest.run({ cdb: LOCK(1) }));
    assert.deepEqual(get(0x2a), [...hex("00 1c 00 00 00 00 00 00"), ...page2a(2)]);
    assert.deepEqual(get(0x01), [...hex("00 12 00 00 00 00 00 00 01 0a"), ...new Array(10).fill(0)]);
    assert.deepEqual([...guest.run({ cdb: [0x1a, 0, 0x3f, 0, 128, 0], in: 128 }).data.subarray(0, 4)], [37, 0, 0, 0]);
    assertCheck(guest.run({ cdb: [0x5a, 0, 0x08, 0, 0, 0, 0, 0, 128, 0], in: 128 }), 0x052400);
  });

  it("discs come and go: sense data, events, tray, lock", () => {
    const { guest, drive } = rig(false);
    const events = (): number[] => [...guest.run({ cdb: EVENTS, in: 8 }).data];
    const status = (event: number, media: number): number[] => [0, 6, 4, 0x10, event, media, 0, 0];
    for (const cdb of [TUR, read10(0, 1), toc(0, 0), [0x25, ...new Array(9).fill(0)]])
      assertCheck(guest.run({ cdb, in: 2048 }), 0x023a01);
    assert.deepEqual(events(), status(0, 0));
    drive.eject();
    assert.deepEqual(events(), status(0, 0), "nothing was in it");

    drive.insert(disc());
    // A poll tells of the disc and leaves the unit attention to who may act on it.
    assert.deepEqual([...guest.run({ cdb: EVENTS.with(8, 4), in: 8 }).data], [0, 6, 4, 0x10]);
    assert.deepEqual(events(), status(2, 2));
    assert.deepEqual(events(), status(0, 2));
    assertCheck(guest.run({ cdb: TUR }), 0x062800);
    assertGood(guest.run({ cdb: TUR }));

    assertGood(guest.run({ cdb: LOCK(1) }));
    assertCheck(guest.run({ cdb: START(2) }), 0x055302);
    assertGood(guest.run({ cdb: LOCK(0) }));
    assertGood(guest.run({ cdb: START(1) }));
    assertGood(guest.run({ cdb: START(0) }));
    assertGood(guest.run({ cdb: START(2) }));
    assertCheck(guest.run({ cdb: TUR }), 0x023a02);
    assert.deepEqual(events(), status(3, 1));
    assert.equal(guest.run({ cdb: [0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], in: 8 }).data[1], 0x10);
    assertGood(guest.run({ cdb: START(3) }));
    assertCheck(guest.run({ cdb: TUR }), 0x062800);
    assert.deepEqual(events(), status(2, 2));
    assertGood(guest.run({ cdb: START(3) }));

    drive.eject();
    assert.deepEqual(events(), status(3, 0));
    assertCheck(guest.run({ cdb: TUR }), 0x023a01);
    assertGood(guest.run({ cdb: START(2) }));
    assertGood(guest.run({ cdb: START(3) }));
    assertCheck(guest.run({ cdb: TUR }), 0x023a01);
    // Asynchronous notification does not exist; of other classes there is none.
    assertCheck(guest.run({ cdb: EVENTS.with(1, 0), in: 8 }), 0x052400);
    assert.deepEqual([...guest.run({ cdb: EVENTS.with(4, 2), in: 8 }).data], [0, 2, 0x80, 0x10]);
    assert.throws(() => drive.insert(new MemoryDisk({ bytes: 4096 })), /2048 bytes, this one of 512/);
  });

  it("reset unlocks; save and restore keep tray, lock and events", () => {
    const first = rig();
    assertGood(first.guest.run({ cdb: START(2) }));
    assertGood(first.guest.run({ cdb: LOCK(1) }));
    const second = rig();
    second.drive.restore(structuredClone(first.drive.save()));
    assert.deepEqual([...second.guest.run({ cdb: EVENTS, in: 8 }).data], [0, 6, 4, 0x10, 3, 1, 0, 0]);
    assertCheck(second.guest.run({ cdb: START(2) }), 0x055302);
    assert.equal(second.guest.control(6).ntStatus, 0);
    assertCheck(second.guest.run({ cdb: TUR }), 0x062900);
    assertGood(second.guest.run({ cdb: START(2) }));
    second.drive.restore({ unitAttentions: [] });
    assertGood(second.guest.run({ cdb: TUR }));
    second.controller.remove(0);
    assert.equal(second.guest.run({ cdb: TUR }).srb, 0x20);
  });
});
