/**
 * A hostile guest: packets that are right, then bent. Whatever comes, nothing is thrown, every packet that wants a completion gets
 * one with its id, guest memory changes inside the given buffers only, and a refused command leaves the disk alone.
 *
 * FUZZ_CASES multiplies the number of cases, FUZZ_SEED repeats a run.
 */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { DiskStatus } from "../../disk/disk.js";
import { Chance } from "../../hypervisor/chance.js";
import { COMPLETION_REQUESTED } from "../../vmbus/device.js";
import type { Piece, ScriptedChannel } from "../../vmbus/scripted-channel.js";
import { MAX_IN_FLIGHT } from "./channel.js";
import { StorageController } from "./controller.js";
import { FailingDisk } from "./failing-disk.js";
import { decode, openChannel, srb, testMemory } from "./scripted-guest.js";

const CASES = 200_000 * Number(process.env.FUZZ_CASES ?? 1);
const SEED = Number(process.env.FUZZ_SEED ?? 0x5eed);
const DISK_BYTES = 1 << 20;
const RAM_BYTES = 1 << 18;
const CANARY = 0x3c;

/** Commands that may write to the disk when they succeed. */
const WRITERS = new Set([0x0a, 0x2a, 0xaa, 0x8a, 0x41, 0x93, 0x42]);
const OPCODES = [
  0x00, 0x03, 0x08, 0x0a, 0x12, 0x15, 0x1a, 0x1b, 0x1d, 0x1e, 0x25, 0x28, 0x2a, 0x2b, 0x2f, 0x35, 0x41, 0x42, 0x43,
  0x46, 0x4a, 0x51, 0x52, 0x55, 0x5a, 0x88, 0x8a, 0x8f, 0x91, 0x93, 0x9e, 0xa0, 0xa8, 0xaa, 0xac, 0xad, 0xb6, 0xbb,
  0xbd,
] as const;
const CDB_LENGTH = [6, 10, 10, 16, 16, 12, 16, 16] as const;
const LBAS = [0, 1, 7, 2040, 2047, 2048, 0xffff, 0x7fffffff, 0xffffffff] as const;
const COUNTS = [0, 1, 2, 8, 16, 255, 0xffff, 0xffffffff] as const;

function put(cdb: Uint8Array, at: number, value: number, bytes: number): void {
  for (let i = bytes - 1; i >= 0; i--) {
    cdb[at + i] = value;
    value = Math.floor(value / 256);
  }
}

/** A command with plausible fields; `bytes` is what it would move. */
function command(c: Chance): { cdb: Uint8Array; bytes: number } {
  const opcode = c.oneOf(OPCODES);
  const cdb = new Uint8Array(CDB_LENGTH[opcode >>> 5]!);
  cdb[0] = opcode;
  const lba = c.rarely(4) ? c.oneOf(LBAS) : c.below(2048);
  const count = c.rarely(6) ? c.oneOf(COUNTS) : c.below(9);
  let bytes = count * 512;
  switch (opcode) {
    case 0x08:
    case 0x0a:
      put(cdb, 1, lba & 0x1fffff, 3);
      cdb[4] = count;
      break;
    case 0x28:
    case 0x2a:
    case 0x2f:
    case 0x35:
    case 0x41:
      put(cdb, 2, lba, 4);
      put(cdb, 7, count, 2);
      if (opcode === 0x41) bytes = 512;
      break;
    case 0xa8:
    case 0xaa:
      put(cdb, 2, lba, 4);
      put(cdb, 6, count, 4);
      break;
    case 0x88:
    case 0x8a:
    case 0x8f:
    case 0x91:
    case 0x93:
      put(cdb, 2, lba, 8);
      put(cdb, 10, count, 4);
      if (opcode === 0x93) bytes = 512;
      break;
    case 0x42:
      bytes = c.oneOf([0, 7, 8, 24, 40, 88]);
      put(cdb, 7, bytes, 2);
      break;
    case 0x12:
      cdb[1] = c.below(3);
      cdb[2] = c.oneOf([0, 0x80, 0x83, 0xb0, 0xb1, 0xb2, 0xff]);
      bytes = c.oneOf([0, 4, 36, 96, 255]);
      put(cdb, 3, bytes, 2);
      break;
    default:
      for (let i = 1; i < cdb.length; i++) cdb[i] = c.rarely(3) ? c.below(256) : 0;
      bytes = c.oneOf([0, 8, 18, 64, 255, 4096]);
  }
  if (c.rarely(8)) cdb[1] = cdb[1]! ^ (1 << c.below(8));
  return { cdb, bytes };
}

/** Buffers at odd addresses that do not touch each other. */
function buffers(c: Chance, bytes: number): Piece[] {
  if (bytes === 0) return [];
  const parts = 1 + c.below(3);
  const pieces: Piece[] = [];
  let gpa = 64 + c.below(5000);
  for (let i = 0, left = bytes; i < parts && left > 0; i++) {
    const n = i === parts - 1 ? left : Math.min(left, 1 + c.below(bytes));
    if (gpa + n + 64 > RAM_BYTES) break;
    pieces.push({ gpa, length: n });
    gpa += n + 1 + c.below(6000);
    left -= n;
  }
  return pieces;
}

/** All of the buffers were zero: no more of them may have changed than the completion says, and the request allows. */
function checkBuffers(ram: Uint8Array, pieces: readonly Piece[], answer: Uint8Array, request: Uint8Array): void {
  let allowed = 0;
  if (answer.length === 64 && request[0] === 3) {
    allowed = decode(answer).transferred;
    assert.ok(allowed <= new DataView(request.buffer).getUint32(24, true), "more than the request's length");
    const given = pieces.reduce((sum, p) => sum + p.length, 0);
    if (request[22] !== 2) assert.ok(allowed <= given, "more than the buffers");
    if (request[22] === 0) allowed = 0;
  }
  for (const { gpa, length } of pieces) {
    const mine = Math.min(allowed, length);
    allowed -= mine;
    for (let at = gpa + mine; at < gpa + length; at++) if (ram[at] !== 0) assert.fail(`byte ${at} behind the data`);
  }
}

describe("storage under a hostile guest", () => {
  it(`completes every packet once and touches nothing else: ${CASES} cases`, () => {
    const c = new Chance(SEED);
    const memory = testMemory(RAM_BYTES);
    const { ram } = memory;
    ram.fill(CANARY);
    const controller = new StorageController({ instanceId: "00000000-0000-0000-0000-000000000005", memory });
    const disk = new FailingDisk({ bytes: DISK_BYTES });
    const disc = new FailingDisk({ bytes: DISK_BYTES, logicalBlockBytes: 2048 });
    const locked = new FailingDisk({ bytes: DISK_BYTES, readOnly: true });
    controller.addDisk(0, disk, new Uint8Array(12));
    const drive = controller.addDvd(1, new Uint8Array(12), disc);
    controller.addDisk(2, locked, new Uint8Array(12));
    let channel: ScriptedChannel = openChannel(controller);
    const disks = [disk, disc, locked];
    const owed = new Set<number>();
    let id = 0;
    /** What the guest has got back, and whether it was for one of its packets. */
    const collect = (): void => {
      for (const packet of channel.take(c.rarely(50) ? c.below(3) : Number.POSITIVE_INFINITY)) {
        if (packet.type === 6) continue;
        assert.equal(packet.high, 0xabcd0000);
        assert.ok(owed.delete(packet.low), `id ${packet.low} was not owed`);
      }
    };
    const control = (operation: number, field: number): void => {
      const payload = new Uint8Array(64);
      payload[0] = operation;
      payload[12] = field;
      payload[13] = field >>> 8;
      owed.add(++id);
      channel.put({ low: id, high: 0xabcd0000, payload });
    };
    const start = (): void => {
      for (const [operation, field] of [
        [7, 0],
        [9, 0x602],
        [10, 0],
        [8, 0],
      ] as const)
        control(operation, field);
    };
    const drain = (): void => {
      for (let i = 0; i < 10_000 && (owed.size > 0 || channel.backlog > 0); i++) {
        for (const d of disks) d.go();
        for (const packet of channel.take()) if (packet.type !== 6) assert.ok(owed.delete(packet.low));
      }
      assert.equal(owed.size, 0, "every packet was completed");
    };
    const untouched = new Uint8Array(RAM_BYTES).fill(CANARY);
    const lent: Piece[] = [];
    start();
    let kind = "";
    try {
      for (let n = 0; n < CASES; n++) {
        if (c.rarely(40)) {
          // The surroundings change: slow disks, failing disks, reset, close, discs.
          kind = "surroundings";
          const d = c.oneOf(disks);
          d.slow = c.rarely(2);
          d.failRead = c.rarely(4) ? DiskStatus.ioError : DiskStatus.ok;
          d.failWrite = c.rarely(4) ? c.oneOf([DiskStatus.ioError, DiskStatus.noSpace]) : DiskStatus.ok;
          d.failFlush = c.rarely(4) ? DiskStatus.ioError : DiskStatus.ok;
          for (const each of disks) each.go();
          const change = c.below(8);
          if (change === 0) drive.eject();
          if (change === 1) drive.insert(disc);
          if (c.rarely(20)) disk.resize(c.oneOf([DISK_BYTES, DISK_BYTES / 2]));
          if (c.rarely(30)) {
            if (c.rarely(2)) drain();
            channel.close();
            // What is still under way for the old channel must not touch guest memory any more.
            owed.clear();
            for (const { gpa, length } of lent.splice(0)) ram.fill(CANARY, gpa, gpa + length);
            for (const d of disks) d.go();
            assert.equal(Buffer.compare(ram, untouched), 0, "memory after the channel was closed");
            channel = openChannel(controller);
            start();
          }
        }
        for (const d of disks) d.log.length = 0;
        kind = "packet";
        const { cdb, bytes } = command(c);
        const direction =
          WRITERS.has(cdb[0]!) || cdb[0] === 0x15 || cdb[0] === 0x55 || cdb[0] === 0xb6 ? 0 : bytes === 0 ? 2 : 1;
        let length = Math.min(bytes, 200_000);
        const pieces = buffers(c, c.rarely(30) ? c.below(9000) : length);
        if (c.rarely(30)) length = c.oneOf([0, 1, 511, 512, 4096, 0xffffffff]);
        let payload = srb(
          { lun: c.rarely(20) ? c.oneOf([3, 63, 64, 255]) : c.below(3), cdb: [...cdb] },
          length,
          direction,
        );
        if (c.rarely(12)) payload[c.below(64)] = c.below(256);
        if (c.rarely(60)) payload = payload.slice(0, c.below(65));
        if (c.rarely(60)) payload[0] = c.below(256);
        const type = c.rarely(100) ? c.oneOf([6, 7, 9, 11]) : undefined;
        const flags = c.rarely(100) ? 0 : COMPLETION_REQUESTED;
        for (const { gpa, length: m } of pieces) {
          ram.fill(0, gpa, gpa + m);
          // What UNMAP and MODE SELECT find: a list, more or less.
          if (m >= 24 && direction === 0) {
            ram.set([0, 22, 0, 16 * c.below(4)], gpa);
            ram[gpa + 15] = c.below(9);
            ram[gpa + 19] = c.below(9);
          }
        }
        const slow = disks.some((d) => d.held.length > 0);
        const before = disks.map((d) => d.log.length);
        id++;
        const wanted = (flags & COMPLETION_REQUESTED) !== 0 && type !== 11;
        if (wanted) owed.add(id);
        const inRing = channel.paused;
        channel.put({
          low: id,
          high: 0xabcd0000,
          payload,
          flags,
          ranges: pieces,
          ...(type === undefined ? {} : { type }),
        });
        if (!inRing) {
          const mine = channel.sent.find((p) => p.low === id && p.type === 11);
          const refused = mine !== undefined && (mine.payload.length < 64 || decode(mine.payload).srb !== 1);
          if (mine !== undefined && direction !== 0) checkBuffers(ram, pieces, mine.payload, payload);
          if ((refused || !wanted) && !disks.some((d) => d.failWrite !== 0 || d.failFlush !== 0))
            for (const [i, d] of disks.entries())
              assert.deepEqual(
                d.log.slice(before[i]),
                [],
                `a refused command (${cdb[0]!.toString(16)}) reached the disk`,
              );
        }
        assert.ok(
          disks.reduce((sum, d) => sum + d.held.length, 0) <= MAX_IN_FLIGHT * 8,
          "what is under way is bounded",
        );
        collect();
        lent.push(...pieces);
        // While something is under way, its buffers may still change; their bytes are put back when nothing is.
        const busy = slow || channel.backlog > 0 || disks.some((d) => d.held.length > 0);
        if (busy && n % 16 !== 0) continue;
        if (busy) drain();
        for (const { gpa, length: m } of lent) ram.fill(CANARY, gpa, gpa + m);
        lent.length = 0;
        assert.ok(n % 8 !== 0 || Buffer.compare(ram, untouched) === 0, "memory outside all buffers");
      }
      kind = "end";
      drain();
    } catch (error) {
      throw new Error(`case of seed ${SEED}, id ${id}, ${kind}`, { cause: error });
    }
    assert.ok(
      disks[2]!.log.every((l) => l === "flush"),
      "a read-only disk was written",
    );
  });
});
