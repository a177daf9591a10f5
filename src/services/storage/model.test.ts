/** Random commands through the controller against a plain array, over a disk in memory and over a raw file. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import fc from "fast-check";
import type { Disk } from "../../disk/disk.js";
import { MemoryDisk } from "../../disk/memory.js";
import { RawDisk } from "../../disk/raw.js";
import { openDiskFile } from "../../host/node/disk-file.js";
import type { Piece } from "../../vmbus/scripted-channel.js";
import { StorageController } from "./controller.js";
import {
  read10,
  read16,
  ScriptedGuest,
  testMemory,
  unmap,
  unmapList,
  write10,
  write16,
  writeSame16,
} from "./scripted-guest.js";

const BLOCK = 512;
const BLOCKS = 512;
const CANARY = 0xc7;

type Step =
  | {
      readonly do: "read" | "write";
      readonly lba: number;
      readonly blocks: number;
      readonly fill: number;
      readonly cuts: readonly number[];
      readonly odd: number;
      readonly wide: boolean;
      readonly fua: boolean;
    }
  | {
      readonly do: "same";
      readonly lba: number;
      readonly blocks: number;
      readonly fill: number;
      readonly unmap: boolean;
    }
  | { readonly do: "unmap"; readonly ranges: readonly (readonly [number, number])[] }
  | { readonly do: "flush" };

const extent = { lba: fc.integer({ min: 0, max: BLOCKS - 1 }), blocks: fc.integer({ min: 0, max: 40 }) };
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    do: fc.constantFrom("read" as const, "write" as const),
    ...extent,
    fill: fc.integer({ min: 0, max: 255 }),
    cuts: fc.array(fc.integer({ min: 1, max: 9000 }), { maxLength: 4 }),
    odd: fc.integer({ min: 0, max: 4095 }),
    wide: fc.boolean(),
    fua: fc.boolean(),
  }),
  fc.record({ do: fc.constant("same" as const), ...extent, fill: fc.constantFrom(0, 0, 3), unmap: fc.boolean() }),
  fc.record({
    do: fc.constant("unmap" as const),
    ranges: fc.array(fc.tuple(extent.lba, extent.blocks), { maxLength: 5 }),
  }),
  fc.constant({ do: "flush" as const }),
);

/** Cuts a buffer into pieces that lie apart, at odd addresses, some of them backwards. */
function scattered(length: number, cuts: readonly number[], odd: number): Piece[] {
  const pieces: Piece[] = [];
  let left = length;
  let gpa = 0x4000 + odd;
  for (let i = 0; left > 0; i++) {
    const n = Math.min(left, cuts[i] ?? left);
    pieces.push({ gpa, length: n });
    gpa += n + 1 + ((odd * 7 + i * 1031) % 9000);
    left -= n;
  }
  return odd % 2 === 0 ? pieces : pieces.map((_, i) => pieces[pieces.length - 1 - i]!);
}

function check(disk: Disk, steps: readonly Step[]): Uint8Array {
  const memory = testMemory();
  const controller = new StorageController({ instanceId: "00000000-0000-0000-0000-000000000004", memory });
  controller.addDisk(0, disk, new Uint8Array(12));
  const guest = new ScriptedGuest(controller, memory).start();
  const model = new Uint8Array(BLOCKS * BLOCK);
  const good = (c: { srb: number; scsi: number }, fits: boolean): boolean => {
    assert.deepEqual([c.srb, c.scsi], fits ? [1, 0] : [0x84, 2]);
    return fits;
  };
  for (const [i, s] of steps.entries()) {
    switch (s.do) {
      case "read":
      case "write": {
        const length = s.blocks * BLOCK;
        const fits = s.lba + s.blocks <= BLOCKS;
        const pieces = length === 0 ? undefined : scattered(length, s.cuts, s.odd);
        const at = { from: s.lba * BLOCK, to: (s.lba + s.blocks) * BLOCK };
        memory.ram.fill(CANARY);
        if (s.do === "read") {
          const cdb = s.wide ? read16(s.lba, s.blocks) : read10(s.lba, s.blocks);
          const c = guest.run({ cdb, in: length, ...(pieces === undefined ? {} : { pieces }) });
          const expected = new Uint8Array(memory.bytes).fill(CANARY);
          if (good(c, fits)) {
            let done = at.from;
            for (const { gpa, length: n } of pieces ?? []) expected.set(model.subarray(done, (done += n)), gpa);
          }
          assert.ok(Buffer.compare(memory.ram, expected) === 0, `step ${i}: guest memory`);
        } else {
          const data = Uint8Array.from({ length }, (_, n) => s.fill + n * 3 + i);
          const cdb = s.wide ? write16(s.lba, s.blocks, s.fua ? 8 : 0) : write10(s.lba, s.blocks, s.fua ? 8 : 0);
          const c = guest.run({ cdb, out: data, ...(pieces === undefined ? {} : { pieces }) });
          if (good(c, fits)) model.set(data, at.from);
        }
        break;
      }
      case "same": {
        const pattern = Uint8Array.from({ length: BLOCK }, (_, n) => s.fill * (n + 1));
        const c = guest.run({ cdb: writeSame16(s.lba, s.blocks, s.unmap ? 8 : 0), out: pattern });
        if (!good(c, s.blocks > 0 && s.lba + s.blocks <= BLOCKS)) break;
        for (let n = 0; n < s.blocks; n++) model.set(pattern, (s.lba + n) * BLOCK);
        break;
      }
      case "unmap": {
        const list = unmapList(...s.ranges);
        const fits = s.ranges.every(([lba, blocks]) => lba + blocks <= BLOCKS);
        if (!good(guest.run({ cdb: unmap(list.length), out: list }), fits)) break;
        for (const [lba, blocks] of s.ranges) model.fill(0, lba * BLOCK, (lba + blocks) * BLOCK);
        break;
      }
      case "flush":
        good(guest.run({ cdb: [0x35, ...new Array(9).fill(0)] }), true);
        break;
    }
  }
  const back = new Uint8Array(model.length);
  disk.read(0, back, 0, back.length);
  assert.ok(Buffer.compare(back, model) === 0, "the disk at the end");
  return model;
}

describe("storage against a model", () => {
  it("a disk in memory", () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 40 }), (steps) => {
        check(new MemoryDisk({ bytes: BLOCKS * BLOCK }), steps);
      }),
      { numRuns: 150 },
    );
  });

  it("a raw file", () => {
    const folder = mkdtempSync(join(tmpdir(), "enlighten-storage-"));
    try {
      let n = 0;
      fc.assert(
        fc.property(fc.array(step, { minLength: 1, maxLength: 25 }), (steps) => {
          const path = join(folder, `disk-${n++}`);
          const disk = new RawDisk(openDiskFile(path, { createBytes: BLOCKS * BLOCK, inline: true }));
          try {
            const model = check(disk, steps);
            assert.ok(Buffer.compare(readFileSync(path), model) === 0, "the file");
          } finally {
            disk.close();
          }
        }),
        { numRuns: 12 },
      );
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
