import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { EthernetPort, FrameFlags } from "../../net/port.js";
import { NetworkAdapter, type NetworkAdapterOptions } from "./adapter.js";
import { type FrameSpec, frame, GUEST_MAC, pattern, plainSum, segments } from "./scripted-frames.js";
import { ALL_OFFLOADS, hex, join, ScriptedGuest, type StartOptions, testMemory, u32s } from "./scripted-guest.js";

const { partialChecksum, verified } = FrameFlags;
const CHECKSUM = 0;
const VLAN = 6;
const HASH = 8;
const TCP_OK = 0x08;
const UDP_OK = 0x10;
const IP_OK = 0x20;
/** All but coalescing. */
const NO_RSC = [...ALL_OFFLOADS.slice(0, 18), 1, 1, 0, 0, 0, 0];

function machine(start: StartOptions = {}, options: Partial<NetworkAdapterOptions> = {}) {
  const memory = testMemory();
  const [port, other] = EthernetPort.cable();
  const adapter = new NetworkAdapter({
    instanceId: "00000000-0000-0000-0000-000000000007",
    mac: Uint8Array.from(GUEST_MAC),
    port,
    memory,
    ...options,
  });
  adapter.attach({ device: adapter, offerSubChannels: () => {}, rescind: () => {} });
  const guest = new ScriptedGuest(adapter, memory).start(start);
  const room = { told: 0 };
  other.onRoom = () => void room.told++;
  /** One frame, as the guest has it. */
  const receive = (f: Uint8Array, flags = 0, segmentSize = 0) => {
    assert.ok(other.transmit(f, flags, segmentSize));
    guest.poll();
    return guest.received.splice(0);
  };
  return { memory, other, adapter, guest, room, receive };
}

describe("network adapter: receive", () => {
  it("delivers frames as they are, with nothing beside them", () => {
    const { receive, guest, adapter } = machine();
    for (const f of [frame(), frame({ payload: pattern(1460) }), frame().slice(0, 14), frame({ checksum: "bad" })]) {
      const [got] = receive(f);
      assert.deepEqual(got?.frame, f);
      assert.equal(got?.info.size, 0);
    }
    assert.equal(adapter.statistics.receivedFrames, 4);
    assert.equal(adapter.status().channels[0]?.receivedFrames, 4);
    assert.equal(adapter.status().freeReceiveSections, guest.sections);
  });
  it("drops what is no frame, and what is longer than the MTU", () => {
    const { receive, adapter } = machine();
    assert.equal(receive(new Uint8Array(13)).length, 0);
    assert.equal(receive(frame({ payload: pattern(1461) })).length, 0);
    assert.equal(receive(frame({ payload: pattern(1461), tag: 5 })).length, 0);
    assert.equal(receive(frame({ payload: pattern(1460), tag: 5 })).length, 1);
    assert.equal(receive(frame({ payload: pattern(66_000) }), 0, 1400).length, 0);
    assert.deepEqual(
      { ...adapter.statistics.drops },
      { malformed: 0, tooLong: 3, notReady: 0, filtered: 0, refused: 0, unfit: 1 },
    );
  });
  it("takes the tag out where the guest wants it beside the frame, and leaves it in otherwise", () => {
    const beside = machine();
    const f = { payload: pattern(300), tag: 0xb123 };
    const [got] = beside.receive(frame(f));
    assert.deepEqual(got?.frame, frame({ payload: pattern(300) }));
    // Priority 5, CFI, id 0x123.
    assert.deepEqual([...got!.info], [[VLAN, 5 | 8 | (0x123 << 4)]]);
    const inside = machine({ capabilities: 0 });
    const [plain] = inside.receive(frame(f));
    assert.deepEqual(plain?.frame, frame(f));
    assert.equal(plain?.info.size, 0);
    const [first] = machine({ version: 2 }).receive(frame(f));
    assert.deepEqual(first?.frame, frame(f));
  });
  for (const version of [4, 6] as const)
    for (const protocol of ["tcp", "udp"] as const)
      it(`finishes a missing checksum of ${protocol} over IPv${version}, and says that it is good if the guest asks`, () => {
        const ok = (protocol === "tcp" ? TCP_OK : UDP_OK) | (version === 4 ? IP_OK : 0);
        const on = machine({ offloads: ALL_OFFLOADS });
        const off = machine();
        for (const length of [0, 1, 7, 64, 1400])
          for (const tag of [undefined, 9]) {
            const spec: FrameSpec = {
              version,
              protocol,
              ipOptions: 8,
              payload: pattern(length, length),
              ...(tag === undefined ? {} : { tag }),
            };
            const { tag: _, ...bare } = spec;
            for (const [how, flags] of [
              ["partial", partialChecksum],
              ["partial", partialChecksum | verified],
              ["good", verified],
            ] as const) {
              const [got] = on.receive(frame({ ...spec, checksum: how }), flags);
              assert.deepEqual(got?.frame, frame(bare));
              assert.equal(got?.info.get(CHECKSUM), ok);
              const [plain] = off.receive(frame({ ...spec, checksum: how }), flags);
              assert.deepEqual(plain?.frame, frame(bare));
              assert.equal(plain?.info.get(CHECKSUM), undefined);
            }
            const [unknown] = on.receive(frame({ ...spec, checksum: "bad" }));
            assert.deepEqual(unknown?.frame, frame({ ...bare, checksum: "bad" }));
            assert.equal(unknown?.info.get(CHECKSUM), undefined, "nobody has looked at it");
          }
      });
  it("says good of what each offload is for alone", () => {
    const kinds: FrameSpec[] = [{}, { protocol: "udp" }, { version: 6 }, { version: 6, protocol: "udp" }];
    // IPv4 header, TCP and UDP over IPv4, TCP and UDP over IPv6: receive only.
    const expected = [
      [IP_OK, IP_OK, undefined, undefined],
      [TCP_OK, undefined, undefined, undefined],
      [undefined, UDP_OK, undefined, undefined],
      [undefined, undefined, TCP_OK, undefined],
      [undefined, undefined, undefined, UDP_OK],
    ];
    expected.forEach((row, i) => {
      const offloads = new Array(24).fill(0);
      offloads[i] = 3;
      const { receive } = machine({ offloads });
      assert.deepEqual(
        kinds.map((spec) => receive(frame({ ...spec, checksum: "partial" }), partialChecksum)[0]?.info.get(CHECKSUM)),
        row,
      );
    });
  });
  it("says of a verified frame that is neither TCP nor UDP what is known of its IP header", () => {
    const { receive } = machine({ offloads: ALL_OFFLOADS });
    const icmp = frame();
    icmp[23] = 1;
    assert.equal(receive(icmp, verified)[0]?.info.get(CHECKSUM), IP_OK);
    const fragment = frame();
    fragment[20] = 0x20;
    assert.equal(receive(fragment, partialChecksum)[0]?.info.get(CHECKSUM), undefined);
    const arp = frame();
    arp[13] = 6;
    assert.equal(receive(arp, verified | partialChecksum)[0]?.info.size, 0);
  });
  it("has never a UDP checksum of 0, which would mean none", () => {
    const { receive } = machine();
    // The last word is chosen so that the sum is all ones.
    const base = frame({ protocol: "udp", payload: new Uint8Array(4) });
    const payload = new Uint8Array(4);
    payload[0] = base[40]!;
    payload[1] = base[41]!;
    const [got] = receive(frame({ protocol: "udp", payload, checksum: "partial" }), partialChecksum);
    assert.deepEqual(got?.frame.slice(40, 42), hex("ff ff"));
  });
  it("puts frames of one turn into one ring packet", () => {
    const { other, guest } = machine();
    for (let i = 0; i < 300; i++) assert.ok(other.transmit(frame({ payload: pattern(20, i) })));
    guest.batches.length = 0;
    guest.poll();
    assert.deepEqual(guest.batches, [128, 128, 44]);
    assert.deepEqual(
      guest.received.map((r) => r.frame),
      Array.from({ length: 300 }, (_, i) => frame({ payload: pattern(20, i) })),
    );
  });
  it("says once a turn that there is something to flush", () => {
    let work = 0;
    const { other, guest, adapter } = machine({}, { onWork: () => void work++ });
    work = 0;
    other.transmit(frame());
    other.transmit(frame());
    assert.equal(work, 1);
    adapter.flush();
    adapter.flush();
    assert.equal(guest.primary.sent.length, 1);
    other.transmit(frame());
    assert.equal(work, 2);
  });
});

describe("network adapter: no room", () => {
  it("refuses frames when its sections are used up, and tells when they are given back", () => {
    const { other, guest, adapter, room } = machine({ receiveBytes: 30 * 1792 });
    guest.keep = true;
    let sent = 0;
    for (;;) {
      if (!other.transmit(frame({ payload: pattern(30, sent) }))) break;
      sent++;
      guest.poll();
    }
    assert.equal(sent, 22, "eight are for answers");
    assert.ok(!other.transmit(frame()));
    assert.equal(guest.query(0x00010106).status, 0, "which still come");
    assert.equal(room.told, 0);
    guest.completeAll(14);
    assert.equal(room.told, 0, "one at a time would be a frame for each completion");
    guest.completeAll(1);
    assert.equal(room.told, 1);
    guest.completeAll();
    assert.equal(room.told, 1);
    guest.keep = false;
    other.transmit(frame());
    guest.poll();
    assert.deepEqual(
      guest.received.slice(0, 22).map((r) => r.frame),
      Array.from({ length: 22 }, (_, i) => frame({ payload: pattern(30, i) })),
    );
    assert.equal(guest.received.length, 23);
    assert.equal(adapter.statistics.waited, 2);
    assert.equal(adapter.status().freeReceiveSections, 30);
  });
  it("refuses frames when the ring is full, and goes on when it is not", () => {
    const { other, guest, room } = machine();
    guest.primary.room = 0;
    let sent = 0;
    while (other.transmit(frame({ payload: pattern(30, sent) }))) sent++;
    assert.equal(sent, 128);
    guest.poll();
    assert.equal(room.told, 1);
    assert.equal(guest.received.length, 128);
    assert.ok(other.transmit(frame()));
  });
  it("never gives a section twice, takes no completion twice, nor from another channel", () => {
    const { other, guest, adapter } = machine({ receiveBytes: 40 * 1792 }, { maxSubChannels: 1 });
    guest.openSubChannels(1);
    guest.keep = true;
    for (let i = 0; i < 3; i++) {
      other.transmit(frame());
      guest.poll();
    }
    const free = (): number => adapter.status().freeReceiveSections;
    assert.equal(free(), 37);
    const give = (low: number, high: number, channel = 0): void =>
      guest.channels[channel]!.put({ type: 11, flags: 0, low, high, payload: u32s(108, 1) });
    const [a, b] = guest.kept;
    give(a!.low, a!.high);
    assert.equal(free(), 38);
    give(a!.low, a!.high);
    give(a!.low, 0);
    give(b!.low, b!.high, 1);
    give(0, b!.high);
    give(41, b!.high);
    give(0xffffffff, b!.high);
    give(b!.low, a!.high);
    assert.equal(free(), 38);
    give(b!.low, b!.high);
    assert.equal(free(), 39);
  });
  it("takes no completion of a packet that was not sent yet", () => {
    const { other, guest, adapter } = machine({ receiveBytes: 40 * 1792 });
    guest.primary.room = 0;
    assert.ok(other.transmit(frame()));
    adapter.flush();
    for (let low = 1; low <= 40; low++)
      for (let high = 0; high < 20; high++) guest.primary.put({ type: 11, flags: 0, low, high, payload: u32s(108, 1) });
    assert.equal(adapter.status().freeReceiveSections, 39);
    guest.poll();
    assert.deepEqual(guest.received[0]?.frame, frame());
    assert.equal(adapter.status().freeReceiveSections, 40);
  });
  it("tells who waits when the guest stops taking frames for good", () => {
    for (const end of ["close", "halt", "filter", "revoke"]) {
      const { other, guest, room } = machine({ receiveBytes: 12 * 1792 });
      guest.keep = true;
      while (other.transmit(frame())) guest.poll();
      assert.equal(room.told, 0);
      if (end === "close") guest.primary.close();
      if (end === "halt") guest.request(u32s(3, 12, 0));
      if (end === "filter") guest.set(0x0001010e, u32s(0));
      if (end === "revoke") guest.nvsp([103, 0xcafe], 0);
      assert.equal(room.told, 1, end);
      assert.ok(other.transmit(frame()));
    }
  });
  it("has its sections back when a sub-channel is closed", () => {
    const { other, guest, adapter } = machine({ version: 0x50000 }, { maxSubChannels: 1 });
    guest.openSubChannels(1);
    const table = join(hex("89 02 28 00"), u32s(0, 0x1701, 4, 40, 40, 44, 0, 0, 0), u32s(1), new Uint8Array(40));
    assert.equal(guest.set(0x00010204, table), 0);
    guest.keep = true;
    other.transmit(frame());
    guest.poll();
    other.transmit(frame());
    assert.equal(guest.received[0]?.channel, 1);
    assert.equal(adapter.status().freeReceiveSections, guest.sections - 2);
    guest.channels[1]!.close();
    assert.equal(adapter.status().freeReceiveSections, guest.sections);
    guest.keep = false;
    other.transmit(frame());
    guest.poll();
    assert.equal(guest.received[1]?.channel, 0, "the primary channel takes its place");
  });
});

describe("network adapter: long segments", () => {
  const long = (spec: FrameSpec): Uint8Array => frame({ ...spec, checksum: "long" });
  it("are cut for a guest that takes none, exactly as a network card would", () => {
    const one = { 4: machine({ offloads: NO_RSC, receiveBytes: 2 << 20 }), 6: machine({ receiveBytes: 2 << 20 }) };
    fc.assert(
      fc.property(
        fc.constantFrom(4 as const, 6 as const),
        fc.integer({ min: 1461, max: 20_000 }),
        fc.integer({ min: 100, max: 1448 }),
        fc.integer({ min: 0, max: 0xffffffff }),
        fc.integer({ min: 0, max: 0xffff }),
        fc.integer({ min: 0, max: 255 }),
        fc.constantFrom(0, 12),
        fc.constantFrom(0, 8),
        (version, length, size, sequence, identification, flags, tcpOptions, ipOptions) => {
          const { receive, guest } = one[version];
          const room = 1500 - (version === 4 ? 20 : 40) - 20 - tcpOptions - ipOptions;
          const spec: FrameSpec = {
            version,
            payload: pattern(length, size),
            sequence,
            identification,
            flags,
            tcpOptions,
            ipOptions,
          };
          const got = receive(long(spec), partialChecksum, size);
          assert.deepEqual(
            got.map((g) => g.frame),
            segments(spec, Math.min(size, room)),
          );
          assert.ok(got.every((g) => g.info.get(CHECKSUM) === (version === 4 ? TCP_OK | IP_OK : undefined)));
          assert.ok(guest.batches.every((n) => n <= 128));
        },
      ),
      { numRuns: 60 },
    );
  });
  it("keep the tag beside each piece", () => {
    const { receive, adapter } = machine();
    const got = receive(long({ payload: pattern(4000), tag: 5 }), partialChecksum, 1000);
    assert.deepEqual(
      got.map((g) => g.info.get(VLAN)),
      [0x50, 0x50, 0x50, 0x50],
    );
    assert.deepEqual(
      got.map((g) => g.frame),
      segments({ payload: pattern(4000) }, 1000),
    );
    assert.equal(adapter.statistics.segments, 4);
  });
  it("are frames like others when they fit the MTU", () => {
    for (const offloads of [ALL_OFFLOADS, new Array(24).fill(0)]) {
      const { receive } = machine({ offloads });
      const spec: FrameSpec = { payload: pattern(1460) };
      const got = receive(frame({ ...spec, checksum: "long", noLengths: true }), partialChecksum, 500);
      assert.deepEqual(
        got.map((g) => [g.frame, g.parts]),
        [[frame(spec), 1]],
      );
    }
  });
  for (const version of [4, 6] as const)
    it(`are one packet over IPv${version} for a guest that puts it together`, () => {
      const { receive, adapter, guest } = machine({ offloads: ALL_OFFLOADS });
      for (const length of [1461, 1684, 9000, 65_400, 65_480]) {
        const spec: FrameSpec = { version, payload: pattern(length) };
        const [got, ...none] = receive(long({ ...spec, tag: 7 }), partialChecksum, 1448);
        assert.equal(none.length, 0);
        // The sum of the checksum field is the sender's: it says so.
        assert.deepEqual(got?.frame, long(spec));
        assert.equal(got?.info.get(CHECKSUM), TCP_OK | 0x80 | (version === 4 ? IP_OK : 0));
        assert.equal(got?.info.get(VLAN), 0x70);
        assert.equal(got?.parts, Math.ceil((length + (version === 4 ? 54 : 74)) / 1680));
      }
      assert.equal(adapter.statistics.coalesced, 5);
      assert.equal(adapter.status().freeReceiveSections, guest.sections);
    });
  it("have a good checksum where the guest wants to look itself", () => {
    const offloads = [...ALL_OFFLOADS];
    offloads.fill(1, 0, 5);
    const { receive } = machine({ offloads });
    const [got] = receive(long({ payload: pattern(5000) }), partialChecksum, 1448);
    assert.deepEqual(got?.frame, frame({ payload: pattern(5000) }));
    assert.equal(got?.info.get(CHECKSUM), undefined);
  });
  it("are coalesced only with version 6.1, where the guest knows it, and for what it has turned on", () => {
    const parts = (start: StartOptions, spec: FrameSpec = {}): number[] =>
      machine(start)
        .receive(long({ ...spec, payload: pattern(3000) }), partialChecksum, 1000)
        .map((g) => g.parts);
    assert.deepEqual(parts({ offloads: ALL_OFFLOADS }), [2]);
    assert.deepEqual(parts({ offloads: ALL_OFFLOADS, version: 0x60000, capabilities: 0xac }), [1, 1, 1]);
    assert.deepEqual(parts({ offloads: ALL_OFFLOADS, capabilities: 0x2c }), [1, 1, 1]);
    const v6 = [...NO_RSC];
    v6[19] = 2;
    assert.deepEqual(parts({ offloads: v6 }), [1, 1, 1]);
    assert.deepEqual(parts({ offloads: v6 }, { version: 6 }), [2]);
  });
  it("have numbers that go up", () => {
    const { other, guest } = machine({ offloads: ALL_OFFLOADS });
    for (let i = 0; i < 3; i++) other.transmit(long({ payload: pattern(3000, i) }), partialChecksum, 1000);
    guest.poll();
    assert.deepEqual(
      guest.received.map((g) => (g.info.get(0x80000001) ?? 0) >>> 16),
      [0, 1, 2],
    );
    assert.deepEqual(guest.batches.slice(-1), [6]);
  });
  it("are all in one ring packet or wait", () => {
    const { other, guest, room } = machine({ offloads: ALL_OFFLOADS });
    guest.primary.room = 0;
    for (let i = 0; i < 100; i++) assert.ok(other.transmit(frame()));
    assert.equal(other.transmit(long({ payload: pattern(60_000) }), partialChecksum, 1448), false);
    guest.poll();
    assert.equal(room.told, 1);
    for (let i = 0; i < 100; i++) assert.ok(other.transmit(frame()));
    assert.ok(other.transmit(long({ payload: pattern(60_000) }), partialChecksum, 1448));
    guest.batches.length = 0;
    guest.poll();
    assert.deepEqual(guest.batches, [100, 36]);
    assert.equal(guest.received.at(-1)?.frame.length, 60_054);
  });
  it("are lost where the buffer could never hold them, and wait where it could", () => {
    for (const offloads of [ALL_OFFLOADS, NO_RSC]) {
      const { other, guest, adapter, room } = machine({ offloads, receiveBytes: 30 * 1792 });
      assert.ok(other.transmit(long({ payload: pattern(60_000) }), partialChecksum, 1448));
      assert.equal(adapter.statistics.drops.unfit, 1);
      guest.keep = true;
      other.transmit(frame());
      guest.poll();
      const most = long({ payload: pattern(21 * 1448) });
      assert.ok(other.transmit(most, partialChecksum, 1448));
      assert.equal(other.transmit(most, partialChecksum, 1448), false);
      assert.equal(room.told, 0);
      guest.poll();
      guest.completeAll();
      assert.equal(room.told, 1);
      assert.ok(other.transmit(most, partialChecksum, 1448));
    }
  });
  it("are more frames than a ring packet holds", () => {
    const { receive, guest } = machine({ offloads: NO_RSC, receiveBytes: 4 << 20 });
    guest.batches.length = 0;
    const spec: FrameSpec = { payload: pattern(65_000) };
    const got = receive(long(spec), partialChecksum, 300);
    assert.deepEqual(
      got.map((g) => g.frame),
      segments(spec, 300),
    );
    assert.deepEqual(guest.batches, [128, 89]);
  });
  it("are lost when they are not TCP, or too long for their header", () => {
    const { receive, adapter } = machine({ offloads: ALL_OFFLOADS });
    const arp = frame({ payload: pattern(3000) });
    arp[13] = 6;
    assert.equal(receive(frame({ protocol: "udp", payload: pattern(3000) }), partialChecksum, 1000).length, 0);
    assert.equal(receive(arp, 0, 1000).length, 0);
    assert.equal(receive(long({ payload: pattern(65_497), noLengths: true }), partialChecksum, 1000).length, 0);
    assert.equal(adapter.statistics.drops.unfit, 3);
  });
});

describe("network adapter: receive-side scaling", () => {
  const KEY = pattern(40, 3);
  const table = (entries: readonly number[]): Uint8Array =>
    join(
      hex("89 02 28 00"),
      u32s(0, 0x1701, entries.length * 4, 40, 40, 40 + entries.length * 4, 0, 0, 0),
      u32s(...entries),
      KEY,
    );
  it("gives a flow to the channel of the guest's table, with the hash", () => {
    const { guest, other } = machine({ version: 0x50000 }, { maxSubChannels: 3 });
    guest.openSubChannels(3);
    const entries = Array.from({ length: 128 }, (_, i) => i % 4);
    assert.equal(guest.set(0x00010204, table(entries)), 0);
    for (let i = 0; i < 64; i++) other.transmit(frame({ sourcePort: 1000 + i }));
    guest.poll();
    const used = new Set<number>();
    for (const got of guest.received) {
      const hash = got.info.get(HASH)!;
      assert.equal(got.channel, entries[hash % 128]);
      used.add(got.channel);
    }
    assert.equal(guest.received.length, 64);
    assert.equal(used.size, 4);
    // A flow stays on its channel, in order; UDP is spread by addresses, without a hash of its flow.
    other.transmit(frame({ sourcePort: 1000, sequence: 5 }));
    other.transmit(frame({ protocol: "udp" }));
    guest.poll();
    const [again, udp] = guest.received.slice(64);
    assert.equal(again?.channel, guest.received.find((g) => g.info.get(HASH) === again?.info.get(HASH))?.channel);
    assert.equal(udp?.info.get(HASH), undefined);
  });
  it("gives everything to the primary channel while it is switched off", () => {
    const { guest, other } = machine({ version: 0x50000 }, { maxSubChannels: 1 });
    guest.openSubChannels(1);
    for (let i = 0; i < 16; i++) other.transmit(frame({ sourcePort: i }));
    guest.poll();
    assert.ok(guest.received.every((g) => g.channel === 0 && g.info.size === 0));
    assert.equal(guest.set(0x00010204, table([2])), 0xc0010015, "no such channel");
  });
});

it("the plain checksum of these tests is right: RFC 1071's example", () => {
  assert.equal(plainSum([0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
});
