import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { DeadlineQueue } from "../../machine/deadlines.js";
import { EthernetPort, FrameFlags } from "../../net/port.js";
import { TraceKind, TraceRing } from "../../trace/trace.js";
import { NetworkAdapter, type NetworkAdapterOptions } from "./adapter.js";
import { type FrameSpec, frame, GUEST_MAC, OTHER_MAC, pattern } from "./scripted-frames.js";
import { hex, join, rndisPacket, ScriptedGuest, type StartOptions, testMemory, u32s } from "./scripted-guest.js";

interface Seen {
  readonly frame: Uint8Array;
  readonly flags: number;
  readonly segmentSize: number;
}

function machine(start: StartOptions = {}, options: Partial<NetworkAdapterOptions> = {}) {
  const memory = testMemory();
  const [port, other] = EthernetPort.cable();
  const trace = new TraceRing(() => 0, 1000);
  const adapter = new NetworkAdapter({
    instanceId: "00000000-0000-0000-0000-000000000007",
    mac: Uint8Array.from(GUEST_MAC),
    port,
    memory,
    trace,
    maxSubChannels: 1,
    ...options,
  });
  adapter.attach({ device: adapter, offerSubChannels: () => {}, rescind: () => {} });
  const seen: Seen[] = [];
  /** Frames that the other end has room for. */
  const far = { room: Number.POSITIVE_INFINITY };
  other.receive = (f, flags, segmentSize) => {
    if (far.room === 0) return false;
    far.room--;
    seen.push({ frame: f.slice(), flags, segmentSize });
    return true;
  };
  const guest = new ScriptedGuest(adapter, memory).start(start);
  const violations = (): number => trace.take().filter((r) => r.kind === TraceKind.violation).length;
  return { memory, other, adapter, guest, seen, far, violations };
}
const mine = (spec: FrameSpec = {}): Uint8Array => frame({ destination: OTHER_MAC, source: GUEST_MAC, ...spec });
const CHECKSUM = 0;
const LSO = 2;
const VLAN = 6;
const lso = (mss: number, version: 4 | 6 = 4): { type: number; value: number } => ({
  type: LSO,
  value: (mss | (34 << 20) | (1 << 30) | (version === 6 ? 0x80000000 : 0)) >>> 0,
});

describe("network adapter: transmit", () => {
  for (const way of ["section", "pages", 60, 76] as const)
    it(`sends a frame that is in ${typeof way === "number" ? `a section up to byte ${way}, and in pages` : way}`, () => {
      const { guest, seen, adapter } = machine();
      const frames = [mine(), mine({ payload: pattern(1446) }), new Uint8Array(14)];
      for (const f of frames) assert.equal(guest.transmit(f, [], way), 1);
      assert.deepEqual(
        seen,
        frames.map((f) => ({ frame: f, flags: 0, segmentSize: 0 })),
      );
      assert.equal(
        adapter.statistics.transmittedBytes,
        frames.reduce((n, f) => n + f.length, 0),
      );
    });
  it("sends several frames of one packet in order, the last of them in pages", () => {
    const { guest, seen } = machine();
    const frames = Array.from({ length: 8 }, (_, i) => mine({ payload: pattern(10 + i, i) }));
    const messages = frames.map((f, i) => rndisPacket(f, [], i < 7));
    const id = guest.sendRndis(join(...messages), join(...messages.slice(0, 7)).length + 44);
    guest.poll();
    assert.equal(guest.statusOf(id), 1);
    assert.deepEqual(
      seen.map((s) => s.frame),
      frames,
    );
  });
  it("sends no completion that was not asked for", () => {
    const { guest, seen } = machine();
    const id = guest.sendRndis(rndisPacket(mine()), "section", guest.primary, 0);
    guest.poll();
    assert.equal(guest.statusOf(id), -1);
    assert.equal(seen.length, 1);
  });
  for (const version of [4, 6] as const)
    for (const protocol of ["tcp", "udp"] as const)
      it(`leaves the checksum of ${protocol} over IPv${version} to the other end`, () => {
        const { guest, seen } = machine();
        const f = mine({ version, protocol, checksum: "partial", ipOptions: 8 });
        const value = (version === 4 ? 1 : 2) | (protocol === "tcp" ? 4 : 8) | (34 << 16);
        assert.equal(guest.transmit(f, [{ type: CHECKSUM, value }]), 1);
        assert.deepEqual(seen, [{ frame: f, flags: FrameFlags.partialChecksum, segmentSize: 0 }]);
      });
  it("puts the checksum of an IPv4 header in", () => {
    const { guest, seen } = machine();
    const good = mine();
    const f = good.slice();
    f[24] = f[25] = 0;
    assert.equal(guest.transmit(f, [{ type: CHECKSUM, value: 1 | 0x10 }]), 1);
    assert.deepEqual(seen, [{ frame: good, flags: 0, segmentSize: 0 }]);
  });
  for (const version of [4, 6] as const)
    it(`makes a long segment over IPv${version} whole: lengths, sum without the length`, () => {
      for (const way of ["pages", 60 + 44] as const) {
        const { guest, seen, adapter } = machine();
        const spec: FrameSpec = {
          version,
          payload: pattern(40_000),
          tcpOptions: 12,
          destination: OTHER_MAC,
          source: GUEST_MAC,
        };
        const given = frame({ ...spec, checksum: "long", noLengths: true });
        assert.equal(guest.transmit(given, [lso(1448, version)], way), 1);
        assert.deepEqual(seen, [
          { frame: frame({ ...spec, checksum: "long" }), flags: FrameFlags.partialChecksum, segmentSize: 1448 },
        ]);
        assert.equal(adapter.statistics.largeSends, 1);
      }
    });
  it("finishes a long segment that is not longer than its segments", () => {
    const { guest, seen } = machine();
    const spec: FrameSpec = { payload: pattern(1000) };
    assert.equal(guest.transmit(mine({ ...spec, checksum: "long", noLengths: true }), [lso(1000)]), 1);
    assert.deepEqual(seen, [{ frame: mine(spec), flags: 0, segmentSize: 0 }]);
  });
  it("puts the tag in", () => {
    const { guest, seen } = machine();
    for (const way of ["section", "pages"] as const) {
      // Id 0x123, priority 5, CFI.
      const value = 5 | 8 | (0x123 << 4);
      assert.equal(
        guest.transmit(
          mine({ checksum: "partial" }),
          [
            { type: 8, value: 77 },
            { type: VLAN, value },
            { type: CHECKSUM, value: 5 },
          ],
          way,
        ),
        1,
      );
      assert.deepEqual(seen.pop(), { frame: mine({ checksum: "partial", tag: 0xb123 }), flags: 1, segmentSize: 0 });
    }
    const long = { payload: pattern(5000) };
    guest.transmit(
      mine({ ...long, checksum: "long", noLengths: true }),
      [{ type: VLAN, value: 0x10 }, lso(1400)],
      "pages",
    );
    assert.deepEqual(seen.pop(), { frame: mine({ ...long, checksum: "long", tag: 1 }), flags: 1, segmentSize: 1400 });
    // A tag that is in the frame is none of our business.
    guest.transmit(mine({ tag: 5, payload: pattern(1460) }));
    assert.deepEqual(seen.pop()?.frame, mine({ tag: 5, payload: pattern(1460) }));
  });
  it("drops what is longer than the MTU", () => {
    const { guest, seen, adapter } = machine();
    assert.equal(guest.transmit(new Uint8Array(1514)), 1);
    assert.equal(guest.transmit(new Uint8Array(1515)), 1);
    assert.equal(guest.transmit(mine({ tag: 1, payload: pattern(1461) })), 1);
    assert.equal(seen.length, 1);
    assert.equal(adapter.statistics.drops.tooLong, 2);
  });
  it("drops frames whose information contradicts them", () => {
    const { guest, seen, adapter } = machine();
    const arp = mine();
    arp[13] = 6;
    const fragment = mine({ checksum: "partial" });
    fragment[20] = 0x20;
    const short = mine({ payload: pattern(0) }).slice(0, 40);
    const cases: [Uint8Array, number, number][] = [
      [arp, CHECKSUM, 5],
      [mine({ protocol: "udp" }), CHECKSUM, 5],
      [mine(), CHECKSUM, 9],
      [fragment, CHECKSUM, 5],
      [short, CHECKSUM, 5],
      [mine({ protocol: "udp", payload: pattern(3000) }), LSO, lso(1400).value],
      [mine({ payload: pattern(3000), noLengths: true }), LSO, lso(31).value],
      [mine({ payload: pattern(66_000), noLengths: true }), LSO, lso(1400).value],
      [mine({ version: 6, payload: pattern(65_520), noLengths: true }), LSO, lso(1400, 6).value],
    ];
    for (const [f, type, value] of cases) assert.equal(guest.transmit(f, [{ type, value }], "pages"), 1);
    assert.equal(seen.length, 0);
    assert.equal(adapter.statistics.drops.malformed, cases.length);
    guest.transmit(
      mine({ version: 6, payload: pattern(65_000), noLengths: true, checksum: "long" }),
      [lso(1400, 6)],
      "pages",
    );
    assert.equal(seen.length, 1);
  });
  it("says of a message that is none that it is invalid, and sends what was before it", () => {
    const { guest, seen, violations } = machine();
    const good = rndisPacket(mine(), [{ type: VLAN, value: 0x10 }], true);
    const change = (at: number, value: number): Uint8Array => {
      const bytes = good.slice();
      new DataView(bytes.buffer).setUint32(at, value, true);
      return bytes;
    };
    const bad = [
      change(0, 2),
      change(4, 43),
      change(4, 0xffffffff),
      change(8, 35),
      change(8, 0xfffffff0),
      change(12, 13),
      change(12, 0xffffffff),
      change(28, 35),
      change(28, 0xffffffff),
      change(32, 0xffffffff),
      change(32, 11),
      change(44, 0),
      change(44, 11),
      change(44, 18),
      change(44, 20),
      change(52, 11),
      change(52, 13),
      change(52, 0xffffffff),
      join(
        u32s(1, 44 + 17 * 12 + 14, 36 + 17 * 12, 14, 0, 0, 0, 36, 17 * 12, 0, 0),
        ...Array.from({ length: 17 }, () => u32s(12, 5, 12)),
        new Uint8Array(14),
      ),
    ];
    for (const bytes of bad) {
      const id = guest.sendRndis(join(good, bytes, good));
      guest.poll();
      assert.equal(guest.statusOf(id), 5);
      assert.equal(seen.splice(0).length, 1);
    }
    assert.equal(violations(), bad.length);
    // Sixteen entries of kinds that mean nothing here are fine, and so is what is too short for a message behind one.
    const sixteen = join(
      u32s(1, 44 + 16 * 12 + 14, 36 + 16 * 12, 14, 0, 0, 0, 36, 16 * 12, 0, 0),
      ...Array.from({ length: 16 }, () => u32s(12, 5, 12)),
      new Uint8Array(14),
    );
    const id = guest.sendRndis(join(sixteen, new Uint8Array(2 + 7)));
    guest.poll();
    assert.equal(guest.statusOf(id), 1);
    assert.equal(seen.length, 1);
  });
  it("refuses sections and channel types that are none", () => {
    const { guest, violations } = machine();
    const put = (payload: Uint8Array, type?: number): Uint8Array | undefined => {
      guest.primary.put({ low: 9, payload, ...(type === undefined ? {} : { type }) });
      return guest.primary.sent.splice(0).find((p) => p.type === 11)?.payload;
    };
    const message = (...fields: number[]): Uint8Array => join(u32s(107, ...fields), new Uint8Array(24));
    const invalid = hex("6c 00 00 00 05 00 00 00");
    assert.deepEqual(put(message(0, 80, 100)), invalid, "80 sections");
    assert.deepEqual(put(message(0, 0xfffffffe, 100)), invalid);
    assert.deepEqual(put(message(0, 0, 6145)), invalid);
    assert.deepEqual(put(message(0, 0, 0xffffffff)), invalid);
    assert.deepEqual(put(message(2, 0xffffffff, 0)), invalid);
    assert.deepEqual(put(u32s(107, 0, 0)), invalid);
    assert.deepEqual(put(u32s(107)), invalid);
    assert.deepEqual(put(new Uint8Array(3)), new Uint8Array(0));
    assert.deepEqual(put(message(0, 0, 0), 7), new Uint8Array(0));
    assert.equal(violations(), 9);
    assert.deepEqual(put(message(0, 0xffffffff, 0)), hex("6c 00 00 00 01 00 00 00"), "nothing at all is fine");
    guest.primary.put({
      low: 10,
      payload: message(0, 0xffffffff, 0),
      ranges: Array.from({ length: 40 }, () => ({ gpa: 0x10000, length: 4096 })),
    });
    assert.deepEqual(guest.primary.sent.pop()?.payload, invalid, "160 KiB");
  });
});

describe("network adapter: the other end is full", () => {
  it("keeps the frame, and the guest's packets in the ring, until there is room", () => {
    const { guest, seen, far, other, adapter } = machine();
    const frames = Array.from({ length: 5 }, (_, i) => mine({ payload: pattern(50, i) }));
    far.room = 1;
    const first = guest.sendRndis(
      join(...frames.slice(0, 3).map((f) => rndisPacket(f, [{ type: VLAN, value: 16 }], true))),
    );
    const others = frames.slice(3).map((f) => guest.sendRndis(rndisPacket(f)));
    guest.poll();
    assert.ok(guest.primary.paused);
    assert.equal(guest.primary.backlog, 2);
    assert.equal(guest.statusOf(first), -1);
    assert.equal(seen.length, 1);
    assert.ok(adapter.status().channels[0]?.isHeld);
    // Its bytes are ours: what the guest does to the section now is not seen.
    guest.writeSend(0, new Uint8Array(200).fill(0xbb));
    far.room = 1;
    other.room();
    guest.poll();
    assert.equal(guest.primary.backlog, 2);
    assert.equal(seen.length, 2);
    other.room();
    far.room = Number.POSITIVE_INFINITY;
    guest.poll();
    assert.equal(guest.statusOf(first), -1, "not told of room");
    other.room();
    guest.poll();
    assert.deepEqual(
      [first, ...others].map((id) => guest.statusOf(id)),
      [1, 1, 1],
    );
    assert.deepEqual(
      seen.map((s) => s.frame),
      frames.map((f, i) => (i < 3 ? join(f.slice(0, 12), hex("81 00 00 01"), f.slice(12)) : f)),
    );
    assert.equal(adapter.statistics.held, 2);
    assert.equal(adapter.statistics.drops.refused, 0);
    other.room();
    assert.equal(seen.length, 5);
  });
  it("does not wait while the guest takes nothing itself: two that wait for each other would wait for ever", () => {
    const { guest, seen, far, other, adapter } = machine({ receiveBytes: 12 * 1792 });
    guest.keep = true;
    far.room = 0;
    const id = guest.sendRndis(join(rndisPacket(mine(), [], true), rndisPacket(mine())));
    guest.sendRndis(rndisPacket(mine()));
    guest.poll();
    assert.ok(guest.primary.paused);
    let told = 0;
    other.onRoom = () => told++;
    for (let i = 0; i < 4; i++) assert.ok(other.transmit(frame()));
    assert.ok(guest.primary.paused);
    assert.equal(other.transmit(frame()), false, "its receive buffer is full");
    assert.ok(!guest.primary.paused);
    guest.primary.run();
    guest.poll();
    assert.equal(guest.statusOf(id), 1);
    assert.equal(adapter.statistics.drops.refused, 3);
    assert.equal(seen.length, 0);
    assert.equal(guest.primary.backlog, 0);
    guest.completeAll();
    assert.equal(told, 1);
    // Now there is room, so it waits again.
    guest.sendRndis(rndisPacket(mine()));
    assert.ok(guest.primary.paused);
    far.room = 1;
    other.room();
    assert.equal(seen.length, 1);
  });
  it("sends a frame once, though the other end says from within that there is room, or sends to a guest that takes nothing", () => {
    const { guest, other, adapter } = machine({ receiveBytes: 12 * 1792 });
    const taken: Uint8Array[] = [];
    let isFull = true;
    other.receive = (f) => {
      if (isFull) return false;
      taken.push(f.slice());
      other.room();
      // The guest's receive buffer is full at the fifth.
      other.transmit(frame());
      return true;
    };
    const frames = Array.from({ length: 8 }, (_, i) => mine({ payload: pattern(40, i) }));
    guest.keep = true;
    const id = guest.sendRndis(join(...frames.map((f) => rndisPacket(f, [], true))));
    assert.ok(guest.primary.paused);
    isFull = false;
    other.room();
    guest.poll();
    assert.deepEqual(taken, frames);
    assert.equal(guest.statusOf(id), 1);
    assert.equal(adapter.statistics.drops.refused, 0);
    assert.equal(adapter.statistics.waited, 4);
  });
  it("loses frames after a second, so that the guest can let go of the adapter, and waits again when there was room", () => {
    const deadlines = new DeadlineQueue();
    let now = 5e9;
    const { guest, far, other, seen, adapter } = machine({}, { patience: { clock: { now: () => now }, deadlines } });
    const send = (): number => guest.sendRndis(rndisPacket(mine()));
    const wait = (ns: number): void => {
      now += ns;
      deadlines.runDue(now);
      guest.primary.run();
      guest.poll();
    };
    far.room = 0;
    const first = send();
    const second = send();
    wait(0.9e9);
    assert.ok(guest.primary.paused);
    far.room = 1;
    other.room();
    guest.poll();
    assert.equal(guest.statusOf(first), 1);
    wait(0.9e9);
    assert.equal(guest.statusOf(second), -1, "it waits since 0.9 s");
    wait(0.1e9);
    assert.equal(guest.statusOf(second), 1);
    assert.equal(adapter.statistics.drops.refused, 1);
    assert.equal(guest.transmit(mine()), 1);
    assert.equal(adapter.statistics.drops.refused, 2, "the next is lost at once");
    assert.equal(deadlines.earliest(), Number.POSITIVE_INFINITY);
    far.room = 1;
    assert.equal(guest.transmit(mine()), 1);
    assert.equal(seen.length, 2);
    const third = send();
    assert.ok(guest.primary.paused, "there was room, so it waits");
    wait(1e9);
    assert.equal(guest.statusOf(third), 1);
    other.room();
    send();
    assert.ok(guest.primary.paused, "it was told of room, so it waits");
    far.room = 9;
    other.room();
    wait(1e9);
    assert.equal(adapter.statistics.drops.refused, 3);
    assert.equal(seen.length, 3);
  });
  it("forgets the frame when the channel is closed", () => {
    const { guest, far, other, seen } = machine();
    far.room = 0;
    guest.sendRndis(rndisPacket(mine()));
    assert.ok(guest.primary.paused);
    guest.primary.close();
    far.room = 5;
    other.room();
    assert.equal(seen.length, 0);
  });
  it("waits with completions while the ring to the guest is full", () => {
    const { guest, seen } = machine();
    guest.primary.room = 0;
    const ids = [1, 2, 3].map((i) => guest.sendRndis(rndisPacket(mine({ payload: pattern(20, i) }))));
    assert.ok(guest.primary.paused);
    assert.equal(seen.length, 1);
    guest.poll();
    assert.ok(!guest.primary.paused);
    assert.deepEqual(
      ids.map((id) => guest.statusOf(id)),
      [1, 1, 1],
    );
    assert.equal(seen.length, 3);
  });
  it("pauses the channel that the frame came on alone", () => {
    const { guest, far, other, seen } = machine();
    guest.openSubChannels(1);
    far.room = 0;
    const id = guest.sendRndis(rndisPacket(mine()), "pages", guest.channels[1]);
    assert.ok(guest.channels[1]?.paused);
    assert.ok(!guest.primary.paused);
    far.room = 9;
    guest.transmit(mine());
    assert.equal(seen.length, 1);
    other.room();
    guest.poll();
    assert.equal(guest.statusOf(id), 1);
    assert.equal(seen.length, 2);
  });
});
