import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { EthernetPort, FrameFlags } from "../../net/port.js";
import { NetworkAdapter } from "./adapter.js";
import { type FrameSpec, frame, GUEST_MAC, OTHER_MAC, pattern, segments } from "./scripted-frames.js";
import { ALL_OFFLOADS, hex, join, rndisPacket, ScriptedGuest, testMemory, u32s } from "./scripted-guest.js";

const CHANNELS = 3;
const KEY = pattern(40, 5);

/** What a far end, a guest and a bus may do. */
type Step =
  | { readonly do: "receive"; readonly count: number; readonly length: number; readonly long: boolean }
  | {
      readonly do: "transmit";
      readonly channel: number;
      readonly count: number;
      readonly length: number;
      readonly pages: boolean;
    }
  | { readonly do: "poll"; readonly room: number }
  | { readonly do: "complete"; readonly count: number }
  | { readonly do: "keep"; readonly keep: boolean }
  | { readonly do: "room"; readonly room: number }
  | { readonly do: "link" }
  | { readonly do: "query" }
  | { readonly do: "restore" };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("receive" as const),
      count: fc.integer({ min: 1, max: 12 }),
      length: fc.nat(1400),
      long: fc.boolean(),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("transmit" as const),
      channel: fc.nat(CHANNELS - 1),
      count: fc.integer({ min: 1, max: 4 }),
      length: fc.nat(1200),
      pages: fc.boolean(),
    }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("poll" as const), room: fc.constantFrom(0, 1, 3, 1000) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("complete" as const), count: fc.nat(10) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("keep" as const), keep: fc.boolean() }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("room" as const), room: fc.nat(6) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("link" as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("query" as const) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("restore" as const) }) },
);

/** A machine in traffic; `restores`: "restore" makes a new adapter of the old one's state, otherwise nothing. */
class Traffic {
  readonly memory = testMemory();
  readonly #ends = EthernetPort.cable();
  readonly #restores: boolean;
  readonly guest: ScriptedGuest;
  /** Frames that the far end has taken, by source port, and room for more. */
  readonly seen: string[] = [];
  farRoom = 4;
  /** Frames for the guest that the adapter took, and those that the far end keeps since it was refused. */
  readonly accepted: Uint8Array[] = [];
  readonly waiting: (readonly [Uint8Array, number, number])[] = [];
  refusals = 0;
  readonly sent: string[] = [];
  readonly packets: number[] = [];
  #number = 0;

  constructor(restores: boolean, rsc: boolean) {
    this.#restores = restores;
    const [, other] = this.#ends;
    other.receive = (f) => {
      if (this.farRoom === 0) return false;
      this.farRoom--;
      this.seen.push(Buffer.from(f).toString("hex"));
      return true;
    };
    other.onRoom = () => {
      while (this.waiting.length > 0 && this.#offer(this.waiting[0]!)) this.waiting.shift();
    };
    this.guest = new ScriptedGuest(this.#adapter(), this.memory).start({
      version: rsc ? 0x60001 : 0x50000,
      receiveBytes: 60 * 1792,
      offloads: ALL_OFFLOADS,
    });
    this.guest.openSubChannels(CHANNELS - 1);
    const entries = [0, 1, 2, 0];
    const table = join(hex("89 02 28 00"), u32s(0, 0x1701, 16, 40, 40, 56, 0, 0, 0), u32s(...entries), KEY);
    assert.equal(this.guest.set(0x00010204, table), 0);
  }
  #adapter(): NetworkAdapter {
    const adapter = new NetworkAdapter({
      instanceId: "00000000-0000-0000-0000-000000000007",
      mac: Uint8Array.from(GUEST_MAC),
      port: this.#ends[0],
      memory: this.memory,
      maxSubChannels: CHANNELS - 1,
    });
    adapter.attach({ device: adapter, offerSubChannels: () => {}, rescind: () => {} });
    return adapter;
  }
  #offer(f: readonly [Uint8Array, number, number]): boolean {
    if (this.#ends[1].transmit(...f)) return true;
    this.refusals++;
    return false;
  }
  run(s: Step): void {
    const { guest } = this;
    switch (s.do) {
      case "receive":
        for (let i = 0; i < s.count; i++) this.#receive(s.length, s.long && i === 0);
        break;
      case "transmit": {
        const frames = Array.from({ length: s.count }, () =>
          frame({
            destination: OTHER_MAC,
            source: GUEST_MAC,
            sourcePort: 1000 + s.channel,
            sequence: this.#number++,
            payload: pattern(s.length),
          }),
        );
        this.sent.push(...frames.map((f) => Buffer.from(f).toString("hex")));
        const bytes = join(...frames.map((f) => rndisPacket(f, [], true)));
        this.packets.push(guest.sendRndis(bytes, s.pages ? "pages" : "section", guest.channels[s.channel]!));
        break;
      }
      case "poll":
        guest.poll(s.room);
        break;
      case "complete":
        guest.completeAll(s.count);
        break;
      case "keep":
        guest.keep = s.keep;
        break;
      case "room":
        this.farRoom = s.room;
        this.#ends[1].room();
        break;
      case "link":
        this.#ends[1].up = !this.#ends[1].up;
        this.#ends[1].up = !this.#ends[1].up;
        break;
      case "query":
        guest.primary.put({
          low: 1_000_000 + this.#number++,
          flags: 0,
          payload: join(u32s(107, 1, 0xffffffff, 0), new Uint8Array(24)),
          ranges: [{ gpa: 0x3000, length: 12 }],
        });
        break;
      case "restore":
        if (this.#restores) guest.moveTo(this.#adapter());
        break;
    }
  }
  #receive(length: number, isLong: boolean): void {
    const spec: FrameSpec = {
      sourcePort: 1000 + (this.#number % 7),
      sequence: this.#number++,
      payload: pattern(isLong ? length + 2000 : length),
    };
    const f = frame({ ...spec, checksum: isLong ? "long" : "partial" });
    const entry = [f, FrameFlags.partialChecksum, isLong ? 1000 : 0] as const;
    if (this.waiting.length > 0 || !this.#offer(entry)) this.waiting.push(entry);
  }
  /** Everybody has all the room there is. */
  finish(): void {
    const { guest } = this;
    guest.keep = false;
    for (let i = 0; i < 200; i++) {
      this.farRoom = 1000;
      guest.poll();
      guest.completeAll();
      this.#ends[1].room();
      for (const channel of guest.channels) channel.run();
      guest.poll();
    }
  }
}

/** What belongs together stays in order: by source port. */
function flows(frames: readonly Uint8Array[]): Map<number, string[]> {
  const out = new Map<number, string[]>();
  for (const f of frames) {
    const port = (f[34]! << 8) | f[35]!;
    const flow = out.get(port) ?? [];
    flow.push(Buffer.from(f).toString("hex"));
    out.set(port, flow);
  }
  return out;
}

describe("network adapter in traffic", () => {
  for (const rsc of [true, false])
    it(`loses no frame, doubles none and keeps flows in order, ${rsc ? "coalescing" : "cutting"}, whatever happens and whenever it is restored`, () => {
      fc.assert(
        fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
          const traffic = new Traffic(true, rsc);
          for (const s of steps) traffic.run(s);
          traffic.finish();
          const { guest } = traffic;
          const { statistics } = guest.adapter;
          assert.equal(traffic.waiting.length, 0, "nobody waits for ever");
          // Frames of the guest: all but those that were given up since the guest took nothing itself.
          const lost = statistics.drops.refused;
          assert.equal(traffic.seen.length + lost, traffic.sent.length);
          if (lost === 0)
            assert.deepEqual(
              flows(traffic.seen.map((h) => Buffer.from(h, "hex"))),
              flows(traffic.sent.map((h) => Buffer.from(h, "hex"))),
            );
          else assert.equal(new Set(traffic.seen).size, traffic.seen.length);
          for (const id of traffic.packets) assert.equal(guest.statusOf(id), 1);
          const status = guest.adapter.status();
          assert.equal(status.freeReceiveSections, status.receiveSections);
          assert.equal(statistics.receivedFrames, guest.received.length);
          assert.ok(guest.channels.every((c) => !c.paused && c.backlog === 0));
        }),
        { numRuns: 60 },
      );
    });
  it("gives the guest each frame once, in the order of its flow", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 50 }), fc.boolean(), (steps, rsc) => {
        const traffic = new Traffic(true, rsc);
        const expected: Uint8Array[] = [];
        let number = 0;
        for (const s of steps) {
          if (s.do === "transmit") number += s.count;
          if (s.do === "query") number++;
          if (s.do === "receive")
            for (let i = 0; i < s.count; i++) {
              const isLong = s.long && i === 0;
              const spec: FrameSpec = {
                sourcePort: 1000 + (number % 7),
                sequence: number++,
                payload: pattern(isLong ? s.length + 2000 : s.length),
              };
              if (!isLong) expected.push(frame(spec));
              else if (rsc) expected.push(frame({ ...spec, checksum: "long" }));
              else expected.push(...segments(spec, 1000));
            }
          traffic.run(s);
        }
        traffic.finish();
        assert.deepEqual(flows(traffic.guest.received.map((r) => r.frame)), flows(expected));
      }),
      { numRuns: 60 },
    );
  });
  it("goes on after a restore as the machine that was not restored does", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 50 }), fc.boolean(), (steps, rsc) => {
        const [a, b] = [new Traffic(true, rsc), new Traffic(false, rsc)];
        for (const s of steps) {
          // A restored adapter looks at once whether the other end has room; one that went on waits to be told.
          const isHeld = a.guest.adapter.status().channels.some((c) => c.isHeld);
          for (const t of [a, b]) if (s.do !== "restore" || !isHeld) t.run(s);
          assert.equal(Buffer.compare(a.memory.ram, b.memory.ram), 0);
          assert.deepEqual(a.guest.adapter.save(), b.guest.adapter.save());
        }
        assert.deepEqual(a.seen, b.seen);
      }),
      { numRuns: 20 },
    );
  });
  it("sends the frame that waited when it is restored beside an end that has room", () => {
    const traffic = new Traffic(true, true);
    traffic.farRoom = 0;
    traffic.run({ do: "transmit", channel: 1, count: 3, length: 50, pages: false });
    traffic.run({ do: "transmit", channel: 0, count: 1, length: 50, pages: true });
    traffic.farRoom = 100;
    traffic.run({ do: "restore" });
    assert.equal(traffic.seen.length, 0, "not before the first turn");
    traffic.guest.poll();
    assert.deepEqual(traffic.seen.toSorted(), traffic.sent.toSorted());
    for (const id of traffic.packets) assert.equal(traffic.guest.statusOf(id), 1);
  });
  it("is restored before a guest has come, and when its buffers have gone", () => {
    const memory = testMemory();
    const [port] = EthernetPort.cable();
    const make = (): NetworkAdapter =>
      new NetworkAdapter({
        instanceId: "00000000-0000-0000-0000-000000000007",
        mac: Uint8Array.from(GUEST_MAC),
        port,
        memory,
      });
    const adapter = make();
    adapter.restore(structuredClone(make().save()), []);
    const guest = new ScriptedGuest(adapter, memory).start();
    guest.gpadls.clear();
    const next = make();
    guest.moveTo(next);
    assert.equal(next.status().receiveSections, 0);
    assert.equal(guest.transmit(frame(), [], "section"), 5);
    assert.throws(() => make().restore({ version: 2 }, []), /version 2/);
  });
  it("tells a guest whose cable was taken out while it was saved", () => {
    const memory = testMemory();
    const [port, other] = EthernetPort.cable();
    const make = (): NetworkAdapter =>
      new NetworkAdapter({
        instanceId: "00000000-0000-0000-0000-000000000007",
        mac: Uint8Array.from(GUEST_MAC),
        port,
        memory,
      });
    const guest = new ScriptedGuest(make(), memory).start();
    const next = make();
    port.onLink = () => {};
    other.up = false;
    guest.moveTo(next);
    guest.poll();
    assert.deepEqual(guest.indications, [[0x4001000c, undefined]]);
  });
});
