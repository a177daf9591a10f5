import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Chance } from "../../hypervisor/chance.js";
import { GuestViolation } from "../../machine/guest-violation.js";
import { EthernetPort, FrameFlags } from "../../net/port.js";
import { COMPLETION_REQUESTED, PacketType } from "../../vmbus/device.js";
import { GpaRanges } from "../../vmbus/gpa-ranges.js";
import { type Piece, ScriptedChannel } from "../../vmbus/scripted-channel.js";
import { NetworkAdapter } from "./adapter.js";
import { Oid } from "./oids.js";
import { type FrameSpec, frame, GUEST_MAC, pattern } from "./scripted-frames.js";
import { ALL_OFFLOADS, join, RECEIVE_GPADL, rndisPacket, SEND_GPADL, testMemory, u32s } from "./scripted-guest.js";

const CASES = process.env.ENLIGHTEN_LONG === "1" ? 1_000_000 : 10_000;
const SEED = Number(process.env.FUZZ_SEED ?? 0x5eed);
const RAM_BYTES = 4 << 20;
const CHANNELS = 3;
const RECEIVE_PAGES = 64;
const RECEIVE_PAGE = 0x200;
const SEND_PAGES = 15;
const SEND_PAGE = 0x100;
const CANARY = 0x3c;

/** Pages that somebody writes: the guest's messages, and the two buffers. */
const USED = [
  [0x10, 0x40],
  [SEND_PAGE, SEND_PAGES + 1],
  [RECEIVE_PAGE, RECEIVE_PAGES],
] as const;

const EDGES = [
  0, 1, 2, 3, 4, 8, 11, 12, 16, 17, 28, 35, 36, 43, 44, 64, 1514, 6144, 6145, 0xffff, 0x10000, 0x20000, 0x7fffffff,
  0x80000001, 0xfffffff0, 0xffffffff,
] as const;
const OIDS = [...Object.values(Oid), 0, 0xffffffff];

function pages(count: number, first: number): GpaRanges {
  const ranges = new GpaRanges();
  ranges.addRange(count * 4096, 0);
  for (let i = 0; i < count; i++) ranges.addPage(first + (i ^ 1));
  return ranges;
}
/** Frames are slow to make here: some are made once. */
function frames(c: Chance): Uint8Array[] {
  return Array.from({ length: 150 }, (_, i) => {
    const spec: FrameSpec = {
      version: c.oneOf([4, 6]),
      protocol: c.oneOf(["tcp", "udp"]),
      payload: pattern(i % 8 === 0 ? c.below(60_000) : c.below(1400), i),
      ipOptions: c.oneOf([0, 0, 8]),
      tcpOptions: c.oneOf([0, 12]),
      sourcePort: i,
      checksum: c.oneOf(["good", "partial", "long", "bad"]),
      noLengths: c.rarely(3),
      ...(c.rarely(4) ? { tag: c.below(65536) } : {}),
    };
    return frame(spec);
  });
}
const POOL = frames(new Chance(7));
function someFrame(c: Chance): Uint8Array {
  const f = c.oneOf(POOL).slice();
  if (c.rarely(3)) for (let i = c.below(3); i > 0; i--) f[c.below(Math.min(f.length, 80))] = c.below(256);
  return f;
}
/** RNDIS messages that are more or less in order. */
function packets(c: Chance): Uint8Array {
  const parts = Array.from({ length: 1 + c.below(3) }, () => {
    const infos = Array.from({ length: c.below(4) }, () => ({
      type: c.oneOf([0, 2, 6, 8, 0x80000001]),
      value: c.rarely(2) ? c.below(0x2000000) : c.oneOf(EDGES),
    }));
    return rndisPacket(c.rarely(10) ? c.bytes(c.below(100)) : someFrame(c), infos, true);
  });
  const bytes = join(...parts);
  const view = new DataView(bytes.buffer);
  for (let i = c.below(3); i > 0; i--)
    if (c.rarely(2) && bytes.length >= 84) view.setUint32(c.below(20) * 4, c.oneOf(EDGES), true);
  return bytes;
}
function controlMessage(c: Chance): Uint8Array {
  const oid = c.oneOf(OIDS);
  let information = c.rarely(3) ? c.bytes(c.below(80)) : c.rarely(2) ? u32s(c.oneOf(EDGES)) : new Uint8Array(0);
  if (oid === Oid.offloadParameters)
    information = join(
      Uint8Array.of(0x80, c.below(4), c.oneOf([20, 22, 28, 32]), 0),
      Uint8Array.from(c.rarely(2) ? ALL_OFFLOADS : c.bytes(24).map((b) => b % 6)),
    );
  if (oid === Oid.receiveScaleParameters) {
    const table = Array.from({ length: c.below(8) }, () => c.below(CHANNELS + (c.rarely(9) ? 1 : 0)));
    information = join(
      Uint8Array.of(0x89, 2, 40, 0),
      u32s(c.rarely(5) ? c.below(32) : 0, 0x1701, table.length * 4, 40, 40, 40 + table.length * 4, 0, 0, 0),
      u32s(...table),
      c.bytes(40),
    );
    if (c.rarely(4)) information[c.below(40)] = c.below(256);
  }
  if (oid === Oid.currentPacketFilter) information = u32s(c.rarely(4) ? c.below(64) : 0xd);
  const type = c.rarely(6) ? c.oneOf([0, 1, 3, 6, 7, 8, 99, 0x80000004]) : c.oneOf([2, 4, 5, 5]);
  const bytes =
    type === 2
      ? u32s(2, 24, c.below(99), c.rarely(9) ? c.below(3) : 1, 0, 0x4000)
      : join(u32s(type, 28 + information.length, c.below(99), oid, information.length, 20, 0), information);
  if (c.rarely(6)) new DataView(bytes.buffer).setUint32(c.below(bytes.length >>> 2) * 4, c.oneOf(EDGES), true);
  return c.rarely(20) ? bytes.slice(0, c.below(bytes.length)) : bytes;
}

describe("network adapter under a hostile guest", () => {
  it(`throws nothing, completes what is asked once, writes nowhere but into its sections: ${CASES} cases`, () => {
    const c = new Chance(SEED);
    const memory = testMemory(RAM_BYTES);
    const { ram } = memory;
    const [port, other] = EthernetPort.cable();
    let farRoom = 100;
    other.receive = (f, _flags, segmentSize) => {
      assert.ok(f.length >= 14 && f.length <= 65_600 && (segmentSize === 0 || segmentSize >= 32));
      return farRoom > 0 && farRoom-- > 0;
    };
    const make = (): NetworkAdapter => {
      const made = new NetworkAdapter({
        instanceId: "00000000-0000-0000-0000-000000000007",
        mac: Uint8Array.from(GUEST_MAC),
        port,
        memory,
        maxSubChannels: CHANNELS - 1,
      });
      made.attach({ device: made, offerSubChannels: () => {}, rescind: () => {} });
      return made;
    };
    let adapter = make();
    const gpadls = new Map<number, GpaRanges>();
    const channels: (ScriptedChannel | undefined)[] = [];
    const owed = new Map<number, number>();
    /** Ids of packets that the guest has, by channel. */
    const lent: { channel: number; low: number; high: number }[] = [];
    let id = 0;
    const lend = (): void => {
      gpadls.set(RECEIVE_GPADL, pages(RECEIVE_PAGES, RECEIVE_PAGE));
      gpadls.set(SEND_GPADL, pages(SEND_PAGES, SEND_PAGE));
    };
    const open = (subIndex: number): void => {
      const channel = new ScriptedChannel(subIndex, gpadls);
      channel.handler = adapter.open(channel);
      if (channel.handler !== undefined) channels[subIndex] = channel;
    };
    const close = (subIndex: number): void => {
      const channel = channels[subIndex];
      if (channel === undefined) return;
      channel.close();
      channels[subIndex] = undefined;
      for (const [key, sub] of owed) if (sub === subIndex) owed.delete(key);
    };
    const live = (): ScriptedChannel[] => channels.filter((x) => x !== undefined);
    /** A violation may come out of a handler: the bus closes the channel then. */
    const guarded = (subIndex: number, act: () => void): void => {
      try {
        act();
      } catch (error) {
        if (!(error instanceof GuestViolation)) throw error;
        for (let i = CHANNELS - 1; i >= 0; i--) if (subIndex === 0 || i === subIndex) close(i);
      }
    };
    const put = (channel: ScriptedChannel, payload: Uint8Array, ranges?: readonly Piece[], type?: number): void => {
      const wanted = c.rarely(4) ? 0 : COMPLETION_REQUESTED;
      id++;
      if (wanted !== 0 && type !== PacketType.completion) owed.set(id, channel.subIndex);
      guarded(channel.subIndex, () =>
        channel.put({
          low: id,
          high: 0xabcd0000,
          flags: wanted,
          payload,
          ...(ranges === undefined ? {} : { ranges }),
          ...(type === undefined ? {} : { type }),
        }),
      );
    };
    const start = (): void => {
      lend();
      open(0);
      const primary = channels[0]!;
      const version = c.oneOf([0x60001, 0x60001, 0x50000, 2]);
      for (const m of [
        u32s(1, version, version),
        u32s(125, c.oneOf([1514, 9014]), 0, 0xac, 0),
        u32s(100, 6, 30),
        u32s(101, RECEIVE_GPADL, 0xcafe),
        u32s(104, SEND_GPADL, 0),
        u32s(133, 1, CHANNELS - 1),
      ])
        put(primary, join(m, new Uint8Array(40 - m.length)));
      for (const m of [
        u32s(2, 24, 1, 1, 0, 0x4000),
        join(u32s(5, 56, 2, Oid.offloadParameters, 28, 20, 0), Uint8Array.of(0x80, 3, 28, 0, ...ALL_OFFLOADS)),
        u32s(5, 32, 3, Oid.currentPacketFilter, 4, 20, 0, 0xd),
      ]) {
        memory.write(0x8000, m);
        put(primary, join(u32s(107, 1, 0xffffffff, 0), new Uint8Array(24)), [{ gpa: 0x8000, length: m.length }]);
        ram.fill(CANARY, 0x8000, 0x8000 + m.length);
      }
      for (let i = 1; i < CHANNELS; i++) open(i);
    };
    const collect = (room: number): void => {
      for (const channel of live())
        guarded(channel.subIndex, () => {
          for (const packet of channel.take(room)) {
            if (packet.type === PacketType.completion) {
              assert.equal(packet.high, 0xabcd0000);
              assert.equal(owed.get(packet.low), channel.subIndex, `id ${packet.low} was not owed`);
              owed.delete(packet.low);
            } else if (packet.type === PacketType.transferPages)
              lent.push({ channel: channel.subIndex, low: packet.low, high: packet.high });
          }
        });
    };
    const untouched = new Uint8Array(4096).fill(CANARY);
    let kind = "";
    ram.fill(CANARY);
    try {
      start();
      for (let n = 0; n < CASES; n++) {
        const primary = channels[0];
        if (primary === undefined) {
          if (c.rarely(3)) start();
          continue;
        }
        const channel = c.rarely(2) ? primary : c.oneOf(live());
        const what = c.below(100);
        if (what < 30) {
          kind = "transmit";
          const bytes = packets(c);
          const inSection = c.oneOf([0, bytes.length, c.below(bytes.length)]);
          const section = c.rarely(20) ? c.oneOf(EDGES) : c.below(10);
          const offset = section * 6144;
          for (let i = 0; i < Math.min(inSection, 6144) && offset + i < SEND_PAGES * 4096; i++)
            ram[(SEND_PAGE + (((offset + i) >>> 12) ^ 1)) * 4096 + ((offset + i) & 4095)] = bytes[i]!;
          // The list above swaps pages in pairs; the last one has no partner.
          const rest = bytes.subarray(inSection);
          ram.set(rest, 0x10000);
          const ranges: Piece[] =
            rest.length === 0
              ? []
              : c.rarely(3)
                ? [
                    { gpa: 0x10000, length: rest.length >>> 1 },
                    { gpa: 0x10000 + (rest.length >>> 1), length: rest.length - (rest.length >>> 1) },
                  ]
                : [{ gpa: 0x10000, length: rest.length }];
          const used = c.rarely(20) ? c.oneOf(EDGES) : inSection;
          put(
            channel,
            join(
              u32s(107, c.rarely(30) ? c.below(4) : 0, inSection === 0 ? 0xffffffff : section, used),
              new Uint8Array(24),
            ),
            ranges.length > 0 ? ranges : undefined,
          );
        } else if (what < 45) {
          kind = "control";
          const bytes = controlMessage(c);
          ram.set(bytes, 0x8000);
          put(
            channel,
            join(u32s(107, 1, 0xffffffff, 0), new Uint8Array(c.oneOf([24, 12]))),
            bytes.length > 0 ? [{ gpa: 0x8000, length: bytes.length }] : undefined,
          );
          ram.fill(CANARY, 0x8000, 0x8000 + bytes.length);
        } else if (what < 52) {
          kind = "nvsp";
          const type = c.rarely(5) ? c.below(140) : c.oneOf([1, 100, 101, 103, 104, 106, 107, 125, 129, 133]);
          const payload = join(
            u32s(
              type,
              c.rarely(2) ? c.oneOf(EDGES) : RECEIVE_GPADL,
              c.oneOf([0, 0xcafe, 1, 0xffffffff]),
              c.oneOf(EDGES),
            ),
            new Uint8Array(24),
          );
          put(
            channel,
            payload.slice(0, c.rarely(6) ? c.below(41) : 40),
            undefined,
            c.rarely(20) ? c.oneOf([6, 7, 9, 11, 0, 0xffff]) : undefined,
          );
        } else if (what < 72) {
          kind = "receive";
          const f = someFrame(c);
          other.transmit(
            f,
            c.oneOf([0, FrameFlags.partialChecksum, FrameFlags.verified, 3]),
            c.rarely(3) ? c.oneOf([1, 40, 536, 1448, 9000]) : 0,
          );
        } else if (what < 82) {
          kind = "complete";
          const given = c.rarely(10)
            ? { channel: c.below(CHANNELS), low: c.oneOf(EDGES), high: c.below(9) }
            : lent.splice(c.below(lent.length + 1), 1)[0];
          if (given !== undefined)
            guarded(given.channel, () =>
              channels[given.channel]?.put({
                type: PacketType.completion,
                flags: c.below(2),
                low: given.low,
                high: given.high,
                payload: u32s(108, c.below(3)),
              }),
            );
        } else if (what < 92) {
          kind = "poll";
          adapter.flush();
          collect(c.rarely(4) ? c.below(3) : 1000);
        } else if (what < 95) {
          kind = "room";
          farRoom = c.below(20);
          other.room();
        } else if (what < 96) {
          kind = "link";
          other.up = c.rarely(4) ? !other.up : true;
        } else if (what < 97) {
          kind = "gpadl";
          if (c.rarely(3)) gpadls.delete(c.oneOf([RECEIVE_GPADL, SEND_GPADL]));
          else lend();
        } else if (what < 98) {
          kind = "close";
          const sub = c.rarely(4) ? 0 : 1 + c.below(CHANNELS - 1);
          if (sub === 0) for (let i = CHANNELS - 1; i >= 0; i--) close(i);
          else close(sub);
          if (sub === 0) lent.length = 0;
          else if (c.rarely(2)) open(sub);
        } else if (c.rarely(3)) {
          kind = "restore";
          const state: unknown = structuredClone(adapter.save());
          adapter = make();
          const old = live();
          const moved = old.map((o) => new ScriptedChannel(o.subIndex, gpadls));
          old.forEach((o, i) => {
            o.moveTo(moved[i]!);
            channels[o.subIndex] = moved[i];
          });
          adapter.restore(state, moved).forEach((handler, i) => {
            moved[i]!.handler = handler;
          });
          for (const m of moved) guarded(m.subIndex, () => m.run());
        }
        for (const each of live()) if (each.backlog > 50) collect(1000);
        if (n % 256 === 0)
          for (let page = 0; page < RAM_BYTES >>> 12; page++)
            if (!USED.some(([first, count]) => page >= first && page < first + count))
              assert.equal(Buffer.compare(untouched, ram.subarray(page * 4096, page * 4096 + 4096)), 0, `page ${page}`);
        const status = adapter.status();
        assert.ok(status.freeReceiveSections <= status.receiveSections);
        assert.ok(lent.length <= 40_000);
        if (lent.length > 2000) lent.splice(0, 1000);
      }
      kind = "end";
      for (let i = 0; i < 100; i++) {
        farRoom = 10_000;
        other.room();
        adapter.flush();
        collect(10_000);
      }
      assert.equal(owed.size, 0, "every packet was completed");
    } catch (error) {
      throw new Error(`case of seed ${SEED}, id ${id}, ${kind}: ${(error as Error).stack}`, { cause: error });
    }
  });
});
