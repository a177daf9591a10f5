import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { EthernetPort } from "../../net/port.js";
import { TraceKind, TraceRing } from "../../trace/trace.js";
import { COMPLETION_REQUESTED, PacketType } from "../../vmbus/device.js";
import { GpaRanges } from "../../vmbus/gpa-ranges.js";
import { NetworkAdapter, type NetworkAdapterOptions } from "./adapter.js";
import { frame, GUEST_MAC } from "./scripted-frames.js";
import {
  ALL_OFFLOADS,
  hex,
  join,
  RECEIVE_GPADL,
  ScriptedGuest,
  SEND_GPADL,
  testMemory,
  u32s,
} from "./scripted-guest.js";

const VERSIONS = [0x60001, 0x60000, 0x50000, 0x40000, 0x30002, 2];

function machine(options: Partial<NetworkAdapterOptions> = {}) {
  const memory = testMemory();
  const [port, other] = EthernetPort.cable();
  const trace = new TraceRing(() => 0, 1000);
  const adapter = new NetworkAdapter({
    instanceId: "00000000-0000-0000-0000-000000000007",
    mac: Uint8Array.from(GUEST_MAC),
    port,
    memory,
    trace,
    ...options,
  });
  const offered: number[] = [];
  adapter.attach({ device: adapter, offerSubChannels: (n) => void offered.push(n), rescind: () => {} });
  const guest = new ScriptedGuest(adapter, memory);
  const violations = (): number => trace.take().filter((r) => r.kind === TraceKind.violation).length;
  return { memory, port, other, adapter, guest, offered, violations };
}
const status = (answer: Uint8Array | undefined, at = 4): number => new DataView(answer!.buffer).getUint32(at, true);
const padded = (text: string, length = 40): Uint8Array => join(hex(text), new Uint8Array(length)).slice(0, length);

describe("network adapter: start-up", () => {
  it("offers the class of network adapters, without flags or data", () => {
    const { offer } = machine().adapter;
    assert.equal(offer.classId, "f8615163-df3e-46c5-913f-f2d2f965ed0e");
    assert.deepEqual([offer.flags, offer.mmioMegabytes, offer.userDefined.length], [0, 0, 0]);
  });
  it("answers INIT with exactly the bytes of real hosts", () => {
    const { guest } = machine();
    assert.deepEqual(
      guest.nvsp(hex("01 00 00 00 00 00 05 00 00 00 05 00")),
      padded("02 00 00 00 FF FF FF FF 22 00 00 00 01 00 00 00"),
    );
  });
  it("answers version 1 with the version", () => {
    assert.deepEqual(machine().guest.nvsp([1, 2, 2]), padded("02 00 00 00 02 00 00 00 22 00 00 00 01 00 00 00"));
  });
  for (const version of VERSIONS)
    it(`starts with version 0x${version.toString(16)}, as Linux tries them down from the newest`, () => {
      const { guest, adapter } = machine({ maxVersion: version });
      const refused = VERSIONS.filter((v) => v > version);
      for (const v of refused) assert.equal(guest.init(v), 3, "too new");
      guest.start({ version });
      assert.ok(adapter.isReady);
      assert.equal(
        adapter.status().protocol,
        { 393217: "6.1", 393216: "6", 327680: "5", 262144: "4", 196610: "2", 2: "1" }[version],
      );
      assert.equal(guest.sectionBytes, 1792);
    });
  it("refuses versions that nobody knows", () => {
    const { guest } = machine();
    assert.deepEqual([guest.init(0x70000), guest.init(0x45000), guest.init(0), guest.init(0xffffffff)], [3, 4, 4, 3]);
    assert.equal(guest.init(0x50000), 1);
    assert.equal(guest.init(0x40000), 1, "again, as long as nothing has been lent");
    guest.lendSend();
    assert.equal(guest.init(0x50000), 2);
  });
  it("takes nothing before a version is agreed on", () => {
    const { guest, violations } = machine();
    assert.equal(status(guest.nvsp([101, RECEIVE_GPADL, 0xcafe])), 2);
    assert.equal(status(guest.nvsp([104, SEND_GPADL, 0])), 2);
    assert.equal(status(guest.nvsp([133, 1, 1])), 2);
    assert.deepEqual(guest.nvsp([129, 0]), new Uint8Array(0));
    assert.equal(violations(), 4);
  });
  it("cuts the receive buffer as the reference's example has it", () => {
    const { guest } = machine();
    guest.init(0x50000);
    guest.configure(1500, 0x2c);
    const memory = 16 << 20;
    // The guest of the example has 16 MiB for this alone: the pages repeat here.
    const pages = new GpaRanges();
    pages.addRange(memory, 0);
    for (let i = 0; i < 4096; i++) pages.addPage(0x200 + (i % 256));
    guest.gpadls.set(RECEIVE_GPADL, pages);
    assert.deepEqual(
      guest.nvsp([101, RECEIVE_GPADL, 0xcafe]),
      padded("66 00 00 00 01 00 00 00 01 00 00 00 00 00 00 00 00 07 00 00 92 24 00 00 00 FE FF 00"),
    );
  });
  it("completes exactly what asks for it", () => {
    const { guest } = machine();
    guest.init(0x60001);
    assert.equal(guest.nvsp([125, 1514, 0, 0x2c, 0], 0), undefined);
    assert.deepEqual(guest.nvsp([125, 1514, 0, 0x2c, 0], COMPLETION_REQUESTED), new Uint8Array(0));
    assert.equal(guest.nvsp([100, 6, 30], 0), undefined);
    guest.lendReceive(1 << 20);
    assert.equal(guest.nvsp([103, 0xcafe], 0), undefined);
    assert.equal(status(guest.lendReceive(1 << 20)), 1);
    assert.deepEqual(guest.nvsp([129, 1]), new Uint8Array(0), "SWITCH_DATA_PATH: no payload at all");
    assert.deepEqual(guest.nvsp([999, 1]), new Uint8Array(0));
    assert.equal(guest.nvsp([999, 1], 0), undefined);
    assert.deepEqual(guest.nvsp([131, 0]), new Uint8Array(0));
  });
  it("sends the RNDIS completion in 8 bytes", () => {
    const { guest } = machine();
    guest.start();
    guest.primary.put({
      low: 0x77,
      high: 0xfedc0001,
      payload: join(u32s(107, 1, 0xffffffff, 0), new Uint8Array(24)),
      ranges: [{ gpa: 0x3000, length: 12 }],
    });
    const [packet] = guest.primary.sent;
    assert.deepEqual([packet?.type, packet?.low, packet?.high], [PacketType.completion, 0x77, 0xfedc0001]);
    assert.deepEqual(packet?.payload, hex("6C 00 00 00 01 00 00 00"));
  });
  it("wants buffers of whole pages, large enough, each once", () => {
    const { guest, violations } = machine();
    guest.init(0x50000);
    assert.equal(status(guest.nvsp([101, 5, 0xcafe])), 2, "no such list");
    assert.equal(status(guest.lendReceive(8 * 1792 + 1791)), 2, "answers alone would fit");
    assert.equal(status(guest.lendReceive(9 * 1792)), 1);
    assert.equal(status(guest.lendReceive(1 << 20)), 2, "a second one");
    assert.equal(status(guest.lendSend(6143)), 2);
    assert.equal(status(guest.lendSend(6144)), 1);
    assert.equal(status(guest.lendSend(), 8), 0, "a second one has no section size");
    const odd = new GpaRanges();
    odd.addRange(8192, 1);
    for (const page of [1, 2, 3]) odd.addPage(page);
    guest.gpadls.set(9, odd);
    assert.equal(status(guest.nvsp([104, 9, 0])), 2);
    assert.equal(violations(), 6);
  });
  it("has MTUs from 1514 to 9216 with the header; others count as the smallest, and its own is the largest", () => {
    for (const [given, mtu] of [
      [1514, 1500],
      [9014, 9000],
      [9216, 9000],
      [9217, 1500],
      [82, 1500],
      [1513, 1500],
      [4096, 4082],
    ] as const) {
      const { guest, adapter } = machine();
      guest.init(0x50000);
      guest.nvsp([125, given, 0, 0x2c, 0], 0);
      assert.equal(adapter.status().mtu, mtu, `${given}`);
    }
    assert.throws(() => machine({ mtu: 9203 }), RangeError);
    assert.throws(() => machine({ mac: Uint8Array.of(1, 2, 3, 4, 5, 6) }), RangeError);
  });
  it("has no NDIS_CONFIG in version 1, nor after the receive buffer", () => {
    const { guest, adapter, violations } = machine();
    guest.init(2);
    guest.nvsp([125, 9014, 0, 0x2c, 0], 0);
    assert.equal(adapter.status().mtu, 1500);
    guest.init(0x50000);
    guest.lendReceive(1 << 20);
    guest.nvsp([125, 9014, 0, 0x2c, 0], 0);
    assert.equal(adapter.status().mtu, 1500);
    assert.equal(violations(), 2);
  });
  it("changes the MTU by closing and opening again, with larger sections", () => {
    const { guest, adapter, other } = machine();
    guest.start();
    guest.primary.close();
    assert.equal(adapter.isReady, false);
    guest.gpadls.clear();
    guest.open(0);
    guest.start({ mtu: 9000 });
    assert.equal(guest.sectionBytes, 9216);
    const jumbo = frame({ payload: new Uint8Array(8960) });
    assert.ok(other.transmit(jumbo));
    guest.poll();
    assert.deepEqual(guest.received[0]?.frame, jumbo);
    assert.equal(guest.received[0]?.parts, 1);
    assert.equal(guest.transmit(jumbo, [], "pages"), 1);
    assert.equal(adapter.statistics.transmittedFrames, 1);
  });
});

describe("network adapter: revocation", () => {
  const revoke = (guest: ScriptedGuest): void => void guest.nvsp([103, 0xcafe], 0);
  it("stops using the receive buffer at once; answers to it are late, not wrong", () => {
    const { guest, other, adapter, violations } = machine();
    guest.start();
    guest.keep = true;
    other.transmit(frame());
    guest.poll();
    const first = guest.kept[0]!;
    // One is collected and not sent.
    other.transmit(frame());
    revoke(guest);
    const before = guest.memory.ram.slice();
    assert.ok(other.transmit(frame()), "lost, not refused");
    adapter.flush();
    assert.equal(Buffer.compare(guest.memory.ram, before), 0);
    guest.completeAll();
    assert.equal(violations(), 0);
    assert.equal(guest.kept.length, 0);
    // The next buffer begins with other ids.
    assert.equal(status(guest.lendReceive(1 << 20)), 1);
    other.transmit(frame());
    guest.poll();
    const second = guest.kept[0]!;
    assert.equal(second.low, first.low);
    assert.ok(second.high > first.high);
  });
  it("wants the id of the buffer", () => {
    const { guest, other, violations } = machine();
    guest.start();
    guest.nvsp([103, 0xcaff], 0);
    guest.nvsp([106, 1], 0);
    assert.equal(violations(), 2);
    other.transmit(frame());
    guest.poll();
    assert.equal(guest.received.length, 1);
    guest.nvsp([106, 0], 0);
    assert.equal(guest.transmit(frame(), [], "section"), 5, "no send buffer any more");
    assert.equal(guest.transmit(frame(), [], "pages"), 1);
  });
  for (const order of ["revocation, then teardown, then close", "close, then teardown", "teardown without revocation"])
    it(`takes ${order}`, () => {
      const { guest, other, adapter } = machine();
      guest.start({ offloads: ALL_OFFLOADS });
      guest.keep = true;
      other.transmit(frame());
      guest.poll();
      other.transmit(frame());
      if (order.startsWith("revocation")) {
        revoke(guest);
        guest.nvsp([106, 0], 0);
      }
      if (order.startsWith("close")) guest.primary.close();
      guest.gpadls.clear();
      const before = guest.memory.ram.slice();
      assert.ok(other.transmit(frame()), "lost, not refused");
      adapter.flush();
      assert.equal(Buffer.compare(guest.memory.ram, before), 0, "nothing is written to pages that are the guest's");
      if (!order.startsWith("close")) {
        assert.equal(guest.transmit(frame(), [], 100), 5, "the section is not there");
        guest.primary.close();
      }
      guest.kept.length = 0;
      guest.keep = false;
      guest.open(0);
      guest.start();
      other.transmit(frame());
      guest.poll();
      assert.equal(guest.received.length, 2);
      assert.equal(adapter.status().freeReceiveSections, adapter.status().receiveSections);
    });
});

describe("network adapter: sub-channels", () => {
  it("grants what it offers, and sends the table when all are open", () => {
    const { guest, offered } = machine({ maxSubChannels: 3 });
    guest.start({ version: 0x50000 });
    const answer = guest.nvsp([133, 1, 2]);
    assert.deepEqual(answer, padded("85 00 00 00 01 00 00 00 02 00 00 00"));
    assert.deepEqual(offered, [2]);
    guest.open(1);
    guest.poll();
    assert.equal(guest.inBand.length, 0);
    guest.open(2);
    guest.poll();
    const [table] = guest.inBand;
    assert.equal(table?.length, 104);
    assert.deepEqual(table?.slice(0, 12), u32s(134, 16, 40));
    assert.deepEqual(table?.slice(40), u32s(...Array.from({ length: 16 }, (_, i) => i % 3)));
  });
  it("grants no more than there are, and once", () => {
    const { guest, offered, violations, adapter } = machine({ maxSubChannels: 3 });
    guest.start({ version: 0x50000 });
    assert.equal(guest.openSubChannels(63), 3);
    assert.deepEqual(offered, [3]);
    assert.equal(status(guest.nvsp([133, 1, 1])), 2);
    assert.deepEqual(offered, [3]);
    assert.equal(violations(), 1);
    assert.equal(adapter.status().channels.length, 4);
    // After closing, anew.
    for (const channel of guest.channels.slice(1).reverse()) channel.close();
    guest.primary.close();
    guest.gpadls.clear();
    guest.open(0);
    guest.start({ version: 0x50000 });
    assert.equal(guest.openSubChannels(1), 1);
    assert.deepEqual(offered, [3, 1]);
  });
  it("grants none without further processors, before version 5, or for another operation", () => {
    const one = machine();
    one.guest.start({ version: 0x50000 });
    assert.equal(one.guest.openSubChannels(3), 0);
    assert.deepEqual(one.offered, []);
    const old = machine({ maxSubChannels: 3 });
    old.guest.start({ version: 0x40000 });
    assert.equal(status(old.guest.nvsp([133, 1, 1])), 2);
    const other = machine({ maxSubChannels: 3 });
    other.guest.start();
    assert.equal(status(other.guest.nvsp([133, 2, 1])), 2);
    assert.equal(status(other.guest.nvsp(hex("85 00 00 00 01 00 00"))), 1, "40 bytes all the same");
  });
  it("opens no channel that was not granted, and none twice", () => {
    const { guest, adapter } = machine({ maxSubChannels: 3 });
    assert.throws(() => guest.open(0), /refuses/);
    guest.start();
    assert.throws(() => guest.open(1), /refuses/);
    guest.openSubChannels(1);
    assert.throws(() => guest.open(1), /refuses/);
    assert.throws(() => guest.open(2), /refuses/);
    assert.throws(() => guest.open(9), /refuses/);
    assert.equal(adapter.status().channels.length, 2);
  });
  it("takes transmissions on them, and nothing else", () => {
    const { guest, other, adapter, violations } = machine({ maxSubChannels: 1 });
    guest.start();
    guest.openSubChannels(1);
    const seen: Uint8Array[] = [];
    other.receive = (f) => seen.push(f.slice()) > 0;
    const id = guest.sendRndis(
      join(u32s(1, 60 + 44, 36, 60, 0, 0, 0, 0, 0, 0, 0), frame().slice(0, 60)),
      "section",
      guest.channels[1],
    );
    guest.poll();
    assert.equal(guest.statusOf(id), 1);
    assert.equal(seen.length, 1);
    assert.equal(adapter.status().channels[1]?.transmittedFrames, 1);
    assert.deepEqual(guest.nvsp([1, 0x50000, 0x50000], 1, guest.channels[1]), new Uint8Array(0));
    assert.equal(violations(), 1);
  });
});
