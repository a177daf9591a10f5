import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { GuestMemory, UNWATCHED } from "../machine/guest-memory.js";
import { GuestViolation } from "../machine/guest-violation.js";
import type { OutboundPacket } from "./device.js";
import { InRing, OutRing, PacketCopy } from "./ring.js";
import { GuestRing, packetBytes } from "./scripted-ring.js";

/** A control page and data pages, in no order. */
const PAGES = [9, 3, 12, 5, 6, 1] as const;

function memory(watcher = UNWATCHED): GuestMemory {
  return new GuestMemory(new Uint8Array(new SharedArrayBuffer(16 * 4096)), watcher);
}
function inRing(dataPages = PAGES.length - 1) {
  const ram = memory();
  const pages = PAGES.slice(0, dataPages + 1);
  const guest = new GuestRing(ram, pages);
  guest.prepare();
  return { ram, guest, host: new InRing(ram, Float64Array.from(pages), "test"), copy: new PacketCopy() };
}
function outRing(dataPages = PAGES.length - 1, ram = memory()) {
  const pages = PAGES.slice(0, dataPages + 1);
  const guest = new GuestRing(ram, pages);
  guest.prepare();
  return { ram, guest, host: new OutRing(ram, Float64Array.from(pages), "test") };
}
function outbound(payload: Uint8Array, transaction = 0): OutboundPacket {
  return {
    type: 6,
    flags: 0,
    transactionLow: transaction,
    transactionHigh: ~transaction,
    payload,
    payloadLength: payload.length,
  };
}
function contents(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 7 + seed * 13 + (i >> 8)) & 0xff);
}
const padded = (bytes: Uint8Array): number[] => [...bytes, ...new Array((8 - (bytes.length % 8)) % 8).fill(0)];
const sizes = fc.array(fc.oneof(fc.nat(64), fc.nat(1200), fc.nat(9000)), { minLength: 1, maxLength: 60 });

describe("ring from the guest", () => {
  it("delivers packets of any sizes intact, over the wrap and over pages", () => {
    fc.assert(
      fc.property(sizes, fc.infiniteStream(fc.boolean()), (lengths, more) => {
        const { guest, host, copy } = inRing();
        const sent: Uint8Array[] = [];
        let received = 0;
        const take = (): boolean => {
          if (!host.next(copy)) return false;
          const payload = sent[received]!;
          assert.equal(copy.type, 6);
          assert.deepEqual([copy.transactionLow, copy.transactionHigh], [received, 0xffff_ffff]);
          assert.deepEqual([...copy.payload.subarray(0, copy.payloadLength)], padded(payload));
          assert.equal(copy.ranges.count, 0);
          received++;
          return true;
        };
        for (const [i, length] of lengths.entries()) {
          const payload = contents(length, i);
          const packet = packetBytes(payload, { type: 6, flags: 1, transactionLow: i, transactionHigh: 0xffff_ffff });
          while (guest.produce(packet) === undefined) {
            assert.ok(take(), "there is room in an empty ring");
            host.publish();
          }
          sent.push(payload);
          if (more.next().value) continue;
          while (take());
          host.publish();
          assert.equal(guest.read, guest.write);
        }
        while (take());
        assert.equal(received, sent.length);
      }),
      { numRuns: 150 },
    );
  });
  it("copies the ranges of GPA-direct packets, and what does not fit is refused", () => {
    const range = fc.record({ offset: fc.nat(4095), bytes: fc.nat(20000) }).map(({ offset, bytes }) => ({
      byteOffset: offset,
      byteCount: bytes,
      pages: Array.from({ length: Math.ceil((offset + bytes) / 4096) }, (_, i) => (i * 5) % 16),
    }));
    fc.assert(
      fc.property(
        fc.array(range, { minLength: 1, maxLength: 12 }),
        fc.uint8Array({ maxLength: 50 }),
        (ranges, payload) => {
          const { guest, host, copy } = inRing();
          guest.produce(packetBytes(payload, { type: 9, flags: 1, transactionLow: 1, transactionHigh: 2, ranges }));
          assert.ok(host.next(copy));
          assert.deepEqual([...copy.payload.subarray(0, copy.payloadLength)], padded(payload));
          assert.equal(copy.ranges.count, ranges.length);
          assert.deepEqual(
            ranges.map((_, r) => ({
              byteOffset: copy.ranges.byteOffset[r],
              byteCount: copy.ranges.byteCount[r],
              pages: [...copy.ranges.pages.subarray(copy.ranges.firstPage[r], copy.ranges.firstPage[r + 1])],
            })),
            ranges,
          );
        },
      ),
      { numRuns: 200 },
    );
    const cases: [string, RegExp, (view: DataView, bytes: Uint8Array) => void][] = [
      ["page beyond RAM", /outside RAM/, (v) => v.setUint32(32, 16, true)],
      ["high half of a page number", /outside RAM/, (v) => v.setUint32(36, 1, true)],
      ["more ranges than bytes", /exceed their buffer/, (v) => v.setUint32(20, 0xffff_ffff, true)],
      ["more pages than bytes", /pages exceed/, (v) => v.setUint32(24, 0xffff_ffff, true)],
      ["offset beyond the page", /offset beyond/, (v) => v.setUint32(28, 4096, true)],
      ["no ranges", /no range/, (v) => v.setUint32(20, 0, true)],
      ["no list", /no range/, (v) => v.setUint16(2, 2, true)],
    ];
    for (const [what, rule, spoil] of cases) {
      const { guest, host, copy } = inRing();
      const ranges = [{ byteCount: 8, byteOffset: 0, pages: [4] }];
      const bytes = packetBytes(new Uint8Array(8), {
        type: 9,
        flags: 0,
        transactionLow: 0,
        transactionHigh: 0,
        ranges,
      });
      spoil(new DataView(bytes.buffer), bytes);
      guest.produce(bytes);
      assert.throws(() => host.next(copy), rule, what);
    }
  });
  it("refuses indices and lengths that cannot be", () => {
    const good = packetBytes(new Uint8Array(40), { type: 6, flags: 0, transactionLow: 0, transactionHigh: 0 });
    const cases: [string, RegExp, (guest: GuestRing) => void][] = [
      ["write index beyond the ring", /write index/, (g) => g.store(0, g.size)],
      ["write index not a multiple of 8", /write index/, (g) => g.store(0, 68)],
      ["less than a descriptor and a trailer", /less than a packet/, (g) => g.store(0, 16)],
      ["header of less than 16 bytes", /header length/, (g) => g.putBytes(2, Uint8Array.of(1, 0))],
      ["header beyond the packet", /header length/, (g) => g.putBytes(2, Uint8Array.of(8, 0))],
      ["no length", /header length/, (g) => g.putBytes(4, Uint8Array.of(0, 0))],
      ["longer than the ring's contents", /exceeds the ring/, (g) => g.putBytes(4, Uint8Array.of(8, 0))],
      ["the longest", /exceeds the ring/, (g) => g.putBytes(4, Uint8Array.of(255, 255))],
    ];
    for (const [what, rule, spoil] of cases) {
      const { guest, host, copy } = inRing();
      guest.produce(good);
      spoil(guest);
      assert.throws(
        () => host.next(copy),
        (e) => e instanceof GuestViolation && rule.test(e.message),
        what,
      );
    }
    const { ram, guest } = inRing();
    guest.store(4, 4096 * 5);
    assert.throws(() => new InRing(ram, Float64Array.from(PAGES), "test"), /read index/);
    assert.throws(() => new InRing(ram, Float64Array.of(1), "test"), /invariant/);
  });
  it("keeps its own read index, whatever the guest writes there", () => {
    const { guest, host, copy } = inRing();
    const packet = packetBytes(new Uint8Array(8), { type: 6, flags: 0, transactionLow: 0, transactionHigh: 0 });
    guest.produce(packet);
    guest.store(4, 0x1234);
    assert.ok(host.next(copy));
    host.publish();
    assert.equal(guest.read, 32);
    assert.equal(host.readIndex, 32);
    assert.equal(host.usedBytes, 0);
    guest.store(0, 0xffff_fff8);
    assert.equal(host.usedBytes, 0);
  });
  it("signals a waiting guest once there is more room than it waits for, and only if it knows of that", () => {
    const fill = () => {
      const ring = inRing(1);
      const packet = packetBytes(new Uint8Array(1000), { type: 6, flags: 0, transactionLow: 0, transactionHigh: 0 });
      while (ring.guest.produce(packet) !== undefined);
      return ring;
    };
    // 4096 bytes hold 3 packets of 1024 bytes; 1024 are free, and a 4th needs more than that.
    for (const [pending, signalAfter] of [
      [1024, 1],
      [2047, 1],
      [2048, 2],
      [4095, 3],
      [4096, undefined],
      [1023, undefined],
    ] as const) {
      const { guest, host, copy } = fill();
      guest.store(12, pending);
      let signalled: number | undefined;
      for (let n = 1; host.next(copy); n++) if (host.publish()) signalled = n;
      assert.equal(signalled, signalAfter, `pending ${pending}`);
      assert.equal(host.publish(), false);
    }
    const { guest, host, copy } = fill();
    guest.store(64, 0);
    guest.store(12, 2000);
    while (host.next(copy)) assert.equal(host.publish(), false);
  });
  it("masks while it reads, and finds what came meanwhile", () => {
    const { guest, host, copy } = inRing();
    host.mask();
    const packet = packetBytes(new Uint8Array(8), { type: 6, flags: 0, transactionLow: 0, transactionHigh: 0 });
    assert.equal(guest.produce(packet), false, "masked: no signal");
    assert.equal(host.unmask(), false);
    assert.ok(host.next(copy));
    host.publish();
    assert.equal(host.unmask(), true);
    assert.equal(guest.produce(packet), true, "empty and not masked: a signal");
    assert.equal(guest.produce(packet), false, "not empty: none");
  });
});

describe("ring towards the guest", () => {
  it("delivers packets of any sizes intact, over the wrap and over pages", () => {
    fc.assert(
      fc.property(sizes, fc.infiniteStream(fc.boolean()), (lengths, more) => {
        const { guest, host } = outRing();
        const sent: Uint8Array[] = [];
        let received = 0;
        const take = (): boolean => {
          const packet = guest.consume()?.packet;
          if (packet === undefined) return false;
          assert.deepEqual([packet.transactionLow, packet.transactionHigh], [received, ~received >>> 0]);
          assert.deepEqual([...packet.payload], padded(sent[received]!));
          received++;
          return true;
        };
        for (const [i, length] of lengths.entries()) {
          // A payload in the middle of a larger array: only `payloadLength` bytes of it go.
          const payload = contents(length + 5, i);
          sent.push(payload.subarray(0, length));
          while (!host.write({ ...outbound(payload, i), payloadLength: length })) {
            assert.ok(take());
            assert.equal(host.takeAwaitedRoom(), host.waiting === 0);
          }
          if (!more.next().value) while (take());
        }
        while (take());
        assert.equal(received, sent.length);
        assert.ok(host.isEmpty);
      }),
      { numRuns: 150 },
    );
  });
  it("puts the ranges of transfer pages into the header", () => {
    const { guest, host } = outRing();
    host.write({ ...outbound(contents(40, 1)), type: 7, headerLength: 16 });
    const packet = guest.consume()!.packet;
    assert.deepEqual([...packet.header, ...packet.payload], [...contents(40, 1)]);
    assert.equal(packet.payload.length, 24);
    assert.throws(() => host.write({ ...outbound(contents(40, 1)), headerLength: 12 }), /invariant/);
    assert.throws(() => host.write({ ...outbound(contents(8, 1)), headerLength: 16 }), /invariant/);
    assert.throws(() => host.write(outbound(new Uint8Array(600_000))), /invariant/);
  });
  it("is never filled up completely, and knows what can never fit", () => {
    const { guest, host } = outRing(1);
    assert.ok(host.fits(4096 - 32));
    assert.ok(!host.fits(4096 - 24));
    // 4096 bytes: descriptor, payload and trailer must leave something.
    assert.equal(host.write(outbound(new Uint8Array(4096 - 24))), false);
    assert.equal(guest.pending, 4096);
    assert.ok(host.write(outbound(new Uint8Array(4096 - 32))));
    assert.equal(guest.free, 8);
    assert.equal(host.usedBytes, 4088);
  });
  it("tells a guest that sleeps, once, and none that is awake", () => {
    const { guest, host } = outRing();
    host.write(outbound(new Uint8Array(8)));
    assert.ok(host.mustSignal);
    host.mustSignal = false;
    host.write(outbound(new Uint8Array(8)));
    assert.ok(!host.mustSignal, "not empty before");
    guest.store(8, 1);
    while (guest.consume());
    host.write(outbound(new Uint8Array(8)));
    assert.ok(!host.mustSignal, "masked");
  });
  it("settles decoded code before the write index moves", () => {
    const log: string[] = [];
    const ram = memory({
      written: (gpa, length) => {
        log.push(`${gpa >>> 12}+${gpa & 4095}:${length}`);
        return true;
      },
      settle: () => void log.push("settle"),
    });
    const { host } = outRing(5, ram);
    log.length = 0;
    host.write(outbound(new Uint8Array(8)));
    assert.deepEqual(log, ["3+0:8", "3+8:8", "3+16:8", "3+24:8", "settle", "9+0:4"]);
  });
  it("refuses read indices that cannot be", () => {
    for (const bad of [5 * 4096, 4, 0xffff_fff8]) {
      const { ram, guest, host } = outRing();
      host.write(outbound(new Uint8Array(8)));
      guest.store(4, bad);
      assert.throws(() => host.write(outbound(new Uint8Array(8))), /read index/);
      assert.throws(() => new OutRing(ram, Float64Array.from(PAGES), "test"), /read index/);
      new OutRing(ram, Float64Array.from(PAGES), "test", { write: 32, waiting: 0 });
    }
  });
  it("treats an impossible index as room, so that somebody looks", () => {
    const { guest, host } = outRing(1);
    while (host.write(outbound(new Uint8Array(1000))));
    assert.equal(host.hasAwaitedRoom, false);
    for (const bad of [3, 0xffff_fff8]) {
      guest.store(4, bad);
      assert.equal(host.hasAwaitedRoom, true);
      assert.throws(() => host.takeAwaitedRoom(), /read index/);
    }
  });
  it("waits for the smallest of what found no room", () => {
    const { guest, host } = outRing(1);
    while (host.write(outbound(new Uint8Array(1000))));
    assert.equal(guest.pending, 1024);
    assert.equal(host.write(outbound(new Uint8Array(2000))), false);
    assert.equal(guest.pending, 1024);
    assert.equal(host.write(outbound(new Uint8Array(996))), false);
    assert.equal(guest.free, 1024);
    assert.equal(host.takeAwaitedRoom(), false, "room for exactly the bytes is too little");
    assert.ok(host.write(outbound(new Uint8Array(0))), "a small one goes");
    assert.equal(host.waiting, 1024, "and takes nothing from who waits");
    assert.equal(host.takeAwaitedRoom(), false);
    assert.equal(host.takeAwaitedRoom(), false);
    guest.consume();
    assert.equal(host.takeAwaitedRoom(), true);
    assert.equal(guest.pending, 0);
  });
});
