/** Connections through the router, in virtual time, against a second copy of the same TCP; the link may lose, double and delay. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { ip } from "./address.js";
import { TcpFlags } from "./header.js";
import type { GuestTcp } from "./scripted-guest.js";
import { digest, noise, type ScriptedNetwork, scriptedNetwork } from "./scripted-network.js";
import type { FarEnd } from "./scripted-outside.js";
import type { Impairments } from "./switch.js";

const SERVER = "192.0.2.1:80";
const SECOND = 1e9;

/** A guest's connection to a server outside, both ends. */
function connection(n: ScriptedNetwork, to = SERVER): { c: GuestTcp; far: FarEnd } {
  const fars: FarEnd[] = [];
  n.world.outside.tcp.set(to, (far) => fars.push(far));
  const m = /^\[?(.+?)\]?:(\d+)$/.exec(to)!;
  const c = n.guest.connect(m[1]!, Number(m[2]));
  assert.ok(
    n.world.run(60 * SECOND, () => c.connected && fars.length > 0),
    "connected",
  );
  return { c, far: fars.at(-1)! };
}

/** Sends through a queue with back-pressure, then ends. */
function sendAll(c: GuestTcp, data: Uint8Array, piece: number): void {
  let at = 0;
  const more = (): void => {
    while (at < data.length && c.writable) {
      c.send(data.subarray(at, at + piece));
      at += piece;
    }
    if (at >= data.length) c.endpoint.shutdown();
  };
  c.onRoom = more;
  more();
}

describe("connections of guests", () => {
  for (const long of [true, false])
    it(`carries data both ways and ends in order, ${long ? "long segments" : "segments of the MTU"}`, () => {
      const n = scriptedNetwork({ longSegments: long, partialChecksums: long });
      if (!long) n.guest.tcpSettings.longSegment = 1460;
      const { c, far } = connection(n);
      const up = noise(3_000_000, 1);
      const down = noise(2_000_000, 2);
      sendAll(c, up, 50_000);
      for (let at = 0; at < down.length; at += 65_536) far.write(down.subarray(at, at + 65_536));
      far.end();
      assert.ok(n.world.run(60 * SECOND, () => far.ended && c.ended));
      assert.equal(digest(far.received), digest([up]));
      assert.equal(digest(c.received), digest([down]));
      assert.ok(far.closed);
      n.world.run(10 * SECOND);
      assert.equal(c.closed, "done");
      assert.deepEqual(n.nat.holdings, { ...n.nat.holdings, tcp: 0, sockets: 0, bytes: 0 });
      assert.equal(n.nat.statistics.tcpBytesToHost, up.length);
      assert.equal(n.nat.statistics.tcpBytesToGuest, down.length);
      assert.equal(n.guest.badChecksums, 0);
      assert.equal(n.nat.statistics.tcpRetransmissions, 0);
      assert.equal(c.endpoint.retransmissions, 0);
      assert.deepEqual([...n.nat.statistics.dropped], []);
    });

  it("sends long segments with the size to cut them to, and short ones where they are not wanted", () => {
    for (const longSegments of [true, false]) {
      const n = scriptedNetwork({ longSegments });
      const { far } = connection(n);
      n.guest.frames = [];
      far.write(noise(200_000, 3));
      n.world.run(SECOND);
      const longest = Math.max(...n.guest.frames.map((f) => f.bytes.length));
      assert.ok(longSegments ? longest > 60_000 && longest < 62_100 : longest === 1514, `${longest}`);
      for (const f of n.guest.frames) assert.equal(f.segmentSize, f.bytes.length > 1514 ? 1460 : 0);
    }
  });

  it("takes frames of large send offload whose length fields are zero", () => {
    const n = scriptedNetwork();
    const { c, far } = connection(n);
    const transmit = n.guest.transmit.bind(n.guest);
    n.guest.transmit = (frame, flags, size) => {
      if ((size ?? 0) > 0) frame.fill(0, 16, 18);
      return transmit(frame, flags, size);
    };
    const data = noise(100_000, 4);
    c.send(data);
    n.world.run(SECOND);
    assert.equal(digest(far.received), digest([data]));
  });

  it("goes over IPv6", () => {
    const n = scriptedNetwork();
    const { c, far } = connection(n, "[2001:db8::1]:443");
    const data = noise(300_000, 5);
    c.send(data);
    far.write(data);
    n.world.run(SECOND);
    assert.equal(digest(far.received), digest([data]));
    assert.equal(digest(c.received), digest([data]));
    assert.match(n.nat.flows()[0]!.remote, /^\[2001:db8::1\]:443$/);
  });

  it("tells a refusal by a reset at once, and an unreachable host by ICMP", () => {
    const n = scriptedNetwork();
    const refused = n.guest.connect("192.0.2.9", 81);
    n.world.settle();
    assert.equal(refused.closed, "refused");
    for (const [code, icmp] of [
      ["no-route", 0],
      ["no-host", 1],
      ["timeout", 1],
      ["no-permission", 13],
    ] as const) {
      n.world.outside.errors.set("192.0.2.9:82", code);
      n.guest.icmp.length = 0;
      const c = n.guest.connect("192.0.2.9", 82);
      n.world.settle();
      assert.deepEqual(
        n.guest.icmp.map((m) => [m.type, m.code, m.from]),
        [[3, icmp, "10.0.2.2"]],
      );
      // the packet in question: addresses and ports, so that the guest finds its socket
      const quoted = n.guest.icmp[0]!.bytes.subarray(8);
      assert.deepEqual(
        [...quoted.subarray(12, 24)],
        [10, 0, 2, 15, 192, 0, 2, 9, c.local.port >> 8, c.local.port & 255, 0, 82],
      );
      c.endpoint.forget();
    }
    n.world.outside.errors.set("[2001:db8::9]:82", "no-route");
    n.guest.icmp.length = 0;
    n.guest.connect("2001:db8::9", 82);
    n.world.settle();
    assert.deepEqual(
      n.guest.icmp.map((m) => [m.type, m.code]),
      [[1, 0]],
    );
    assert.equal(n.nat.holdings.tcp, 0);
    assert.equal(n.nat.statistics.tcpFailed, 6);
  });

  it("leads the gateway's address to the host's loopback address", () => {
    const n = scriptedNetwork();
    n.world.outside.tcp.set("127.0.0.1:8080", (far) => far.write(Uint8Array.of(1)));
    n.world.outside.tcp.set("[::1]:8080", (far) => far.write(Uint8Array.of(2)));
    const four = n.guest.connect("10.0.2.2", 8080);
    const six = n.guest.connect("fd65:6e6c:6967:2::2", 8080);
    n.world.run(SECOND);
    assert.deepEqual([four.received[0]![0], six.received[0]![0]], [1, 2]);
  });

  it("lets each direction end by itself", () => {
    const n = scriptedNetwork();
    const { c, far } = connection(n);
    c.endpoint.shutdown();
    n.world.run(SECOND);
    assert.ok(far.ended && !c.ended);
    far.write(noise(100_000, 6));
    n.world.run(SECOND);
    assert.equal(c.bytes, 100_000);
    far.end();
    n.world.run(SECOND);
    assert.equal(c.closed, "done");

    const { c: d, far: farther } = connection(n);
    farther.end();
    n.world.run(SECOND);
    assert.ok(d.ended && !farther.ended);
    d.send(noise(100_000, 7));
    n.world.run(SECOND);
    assert.equal(farther.bytes, 100_000);
    d.endpoint.shutdown();
    n.world.run(SECOND);
    assert.ok(farther.ended);
    n.world.run(10 * SECOND);
    assert.equal(n.nat.holdings.tcp, 0);
  });

  it("passes resets on both ways", () => {
    const n = scriptedNetwork();
    const a = connection(n);
    a.far.reset();
    n.world.run(SECOND);
    assert.equal(a.c.closed, "reset");
    const b = connection(n);
    b.c.endpoint.abort();
    n.world.run(SECOND);
    assert.ok(b.far.dropped && b.far.wasReset);
    assert.equal(n.nat.holdings.tcp, 0);
  });

  it("survives both ends closing at once", () => {
    const n = scriptedNetwork({}, { impairments: { delayNs: 1e6 } });
    const { c, far } = connection(n);
    c.endpoint.shutdown();
    far.end();
    assert.ok(n.world.run(20 * SECOND, () => n.nat.holdings.tcp === 0 && c.released));
    assert.equal(c.closed, "done");
  });

  it("keeps a bounded amount for a guest that reads slowly, pausing the socket", () => {
    const n = scriptedNetwork({ tcpBytes: 100_000 });
    const { c, far } = connection(n);
    c.reading = false;
    const data = noise(3_000_000, 8);
    for (let at = 0; at < data.length; at += 20_000) far.write(data.subarray(at, at + 20_000));
    far.end();
    n.world.run(SECOND);
    assert.ok(far.paused > 0);
    assert.ok(n.nat.holdings.bytes <= 130_000, `${n.nat.holdings.bytes}`);
    assert.ok(c.endpoint.unread <= 512 << 10);
    // a window that stays closed for a minute, probed, opens again
    n.world.run(60 * SECOND);
    assert.equal(c.closed, undefined);
    c.reading = true;
    c.read();
    assert.ok(n.world.run(60 * SECOND, () => c.ended));
    assert.equal(digest(c.received), digest([data]));
  });

  it("finds out that a window opened although the word of it was lost", () => {
    const n = scriptedNetwork();
    const { c, far } = connection(n);
    c.reading = false;
    far.write(noise(1_000_000, 9));
    n.world.run(SECOND);
    const before = c.bytes;
    const transmit = n.guest.transmit.bind(n.guest);
    n.guest.transmit = () => true;
    c.reading = true;
    c.read();
    n.world.settle();
    n.guest.transmit = transmit;
    assert.ok(
      n.world.run(30 * SECOND, () => c.bytes === 1_000_000),
      `${before} ${c.bytes}`,
    );
  });

  it("keeps the guest's window closed while the host does not take bytes", () => {
    const n = scriptedNetwork({ tcpBytes: 100_000 });
    const { c, far } = connection(n);
    far.reading = false;
    const data = noise(1_000_000, 10);
    sendAll(c, data, 10_000);
    n.world.run(5 * SECOND);
    assert.ok(far.waiting <= 100_000, `${far.waiting}`);
    n.world.run(60 * SECOND);
    far.read(true);
    assert.ok(n.world.run(60 * SECOND, () => far.ended));
    assert.equal(digest(far.received), digest([data]));
  });

  it("shares a bounded budget among all connections", () => {
    const n = scriptedNetwork({ maxBytes: 1_000_000 });
    const ends = Array.from({ length: 20 }, () => connection(n));
    for (const { c, far } of ends) {
      c.reading = false;
      far.reading = false;
      for (let i = 0; i < 50; i++) far.write(noise(50_000, i));
      sendAll(c, noise(1_000_000, 11), 50_000);
    }
    n.world.run(5 * SECOND);
    // what each connection may always hold, and the last chunk of each
    assert.ok(n.nat.holdings.bytes < 1_000_000 + 20 * (8192 + 50_000 + 8192), `${n.nat.holdings.bytes}`);
    for (const { c, far } of ends) {
      c.reading = true;
      c.read();
      far.read(true);
    }
    assert.ok(
      n.world.run(300 * SECOND, () => ends.every(({ c, far }) => c.bytes === 2_500_000 && far.bytes === 1_000_000)),
    );
  });

  it("waits where the port has no room, and goes on when there is", () => {
    const n = scriptedNetwork();
    n.guest.capacity = 3;
    const { c, far } = connection(n);
    const data = noise(4_000_000, 12);
    for (let at = 0; at < data.length; at += 65_536) far.write(data.subarray(at, at + 65_536));
    far.end();
    assert.ok(n.world.run(10 * SECOND, () => c.ended));
    assert.equal(digest(c.received), digest([data]));
    assert.equal(n.nat.statistics.tcpRetransmissions, 0);
  });

  it("carries 1,000 connections at once", () => {
    const n = scriptedNetwork();
    const fars: FarEnd[] = [];
    n.world.outside.tcp.set(SERVER, (far) => {
      fars.push(far);
      far.onData = (bytes) => far.write(bytes);
      far.onEnd = () => far.end();
    });
    const all = Array.from({ length: 1000 }, (_, i) => {
      const c = n.guest.connect("192.0.2.1", 80, 1024 + i);
      return { c, data: noise(2000 + i, i) };
    });
    n.world.run(SECOND);
    assert.equal(n.nat.holdings.tcp, 1000);
    for (const { c, data } of all) sendAll(c, data, 700);
    assert.ok(n.world.run(30 * SECOND, () => all.every(({ c }) => c.ended)));
    for (const { c, data } of all) assert.equal(digest(c.received), digest([data]));
    n.world.run(10 * SECOND);
    assert.deepEqual([n.nat.holdings.tcp, n.nat.holdings.sockets, n.nat.holdings.bytes], [0, 0, 0]);
  });

  it("refuses connections above its limit, and takes the place of those that are over", () => {
    const n = scriptedNetwork({ maxTcp: 3 });
    const all = [connection(n), connection(n), connection(n)];
    const fourth = n.guest.connect("192.0.2.1", 80);
    n.world.settle();
    assert.equal(fourth.closed, "refused");
    assert.equal(n.nat.statistics.dropped.get("too-many"), 1);
    all[0]!.far.end();
    n.world.settle();
    all[0]!.c.endpoint.shutdown();
    n.world.settle();
    assert.ok(n.nat.flows().some((f) => f.state === "time-wait"));
    connection(n);
  });

  it("gives up the connection that is idle the longest, if it is for minutes, where there are too many", () => {
    const n = scriptedNetwork({ maxTcp: 3 });
    const a = connection(n);
    const b = connection(n);
    n.world.run(200 * SECOND);
    const c = connection(n);
    n.world.run(200 * SECOND);
    a.far.write(noise(1, 1));
    n.world.settle();
    const d = connection(n);
    assert.deepEqual([a.c.closed, b.c.closed, c.c.closed], [undefined, "reset", undefined]);
    assert.ok(b.far.wasReset && !d.far.dropped);
    assert.equal(n.nat.holdings.tcp, 3);
    const refused = n.guest.connect("192.0.2.1", 80);
    n.world.settle();
    assert.equal(refused.closed, "refused");
  });

  it("lets a new connection take the ports of one in TIME-WAIT, not of a live one", () => {
    const n = scriptedNetwork();
    const { c, far } = connection(n);
    far.end();
    n.world.settle();
    c.endpoint.shutdown();
    n.world.settle();
    assert.equal(n.nat.flows()[0]!.state, "time-wait");
    // the guest's next initial number is higher, as those of real stacks are
    let last = 0;
    const { transmit } = n.guest;
    n.guest.transmit = (frame, flags, size) => {
      last = new DataView(frame.buffer, frame.byteOffset).getInt32(38);
      return transmit.call(n.guest, frame, flags, size);
    };
    const early = connection(n);
    far.end();
    early.far.end();
    n.world.settle();
    early.c.endpoint.shutdown();
    n.world.settle();
    const chance = n.guest as { random32: () => number };
    chance.random32 = () => last + 1000;
    const again = n.guest.connect("192.0.2.1", 80, early.c.local.port);
    n.world.settle();
    assert.ok(again.connected);
    // from the same ports while this one lives: the guest has forgotten it, which a challenge brings out
    n.guest.connections.clear();
    const third = n.guest.connect("192.0.2.1", 80, early.c.local.port);
    assert.ok(n.world.run(3 * SECOND, () => third.connected));
    assert.equal(n.nat.statistics.tcpReset, 1);
  });

  it("answers what belongs to nothing with a reset, and nothing at all to a reset", () => {
    const n = scriptedNetwork();
    const from = { address: n.guest.address4, port: 1000 };
    const to = { address: ip("192.0.2.1"), port: 80 };
    n.guest.segment(from, to, 100, 555, TcpFlags.ACK);
    n.guest.segment(from, to, 100, 0, TcpFlags.FIN, noise(10, 1));
    n.guest.segment(from, to, 100, 0, TcpFlags.RST);
    n.world.settle();
    assert.deepEqual(
      n.guest.stray.map((h) => [h.flags, h.seq, h.ack]),
      [
        [TcpFlags.RST, 555, 0],
        [TcpFlags.RST | TcpFlags.ACK, 0, 111],
      ],
    );
  });

  it("forgets connections at a save: the guest is told by a reset", () => {
    const n = scriptedNetwork();
    const { c } = connection(n);
    n.nat.restore(n.nat.save());
    n.world.settle();
    c.send(noise(10, 1));
    n.world.settle();
    assert.equal(c.closed, "reset");
  });
});

describe("a link that loses frames", () => {
  function transfer(impairments: Impairments, seed: number, bytes: number, long: boolean): ScriptedNetwork {
    const n = scriptedNetwork({ longSegments: long, partialChecksums: false }, { impairments, seed });
    if (!long) n.guest.tcpSettings.longSegment = 1460;
    const { c, far } = connection(n);
    const up = noise(bytes, seed);
    const down = noise(bytes, seed + 1);
    sendAll(c, up, 9000);
    for (let at = 0; at < down.length; at += 30_000) far.write(down.subarray(at, at + 30_000));
    far.end();
    assert.ok(
      n.world.run(1200 * SECOND, () => far.ended && c.ended),
      `seed ${seed}: ${far.bytes} up, ${c.bytes} down of ${bytes}, ${JSON.stringify(n.nat.flows())} ${c.endpoint.state}`,
    );
    assert.equal(digest(far.received), digest([up]), `seed ${seed}`);
    assert.equal(digest(c.received), digest([down]), `seed ${seed}`);
    return n;
  }

  it("does not matter to the data: losses of 3 %", () => {
    const n = transfer({ loss: 0.03, delayNs: 100_000 }, 7, 1_000_000, false);
    assert.ok(n.theSwitch!.statistics.lost > 20);
    n.world.run(10 * SECOND);
    assert.ok(n.nat.statistics.tcpRetransmissions > 0);
  });

  it("does not matter, whatever it does", () => {
    const chance = fc.double({ min: 0, max: 0.1, noNaN: true });
    fc.assert(
      fc.property(
        fc.record({ loss: chance, duplicate: chance, reorder: chance, corrupt: fc.constantFrom(0, 0.02) }),
        fc.nat({ max: 1e6 }),
        fc.boolean(),
        (im, seed, long) => {
          transfer({ ...im, delayNs: 50_000, reorderNs: 500_000 }, seed, 150_000, long);
        },
      ),
      { numRuns: process.env.ENLIGHTEN_LONG === undefined ? 25 : 1000 },
    );
  });

  it("does not end in both sides sending again what the other has", () => {
    // each had all of a window and lost the word of it: the numbers of acknowledgements must not be those of what is sent again
    const n = scriptedNetwork({ longSegments: false, partialChecksums: false });
    n.guest.tcpSettings.longSegment = 1460;
    const { c, far } = connection(n);
    const { transmit } = n.guest;
    const input = c.endpoint.input.bind(c.endpoint);
    c.send(noise(20_000, 1));
    far.write(noise(20_000, 2));
    // data arrives, acknowledgements do not
    n.guest.transmit = (frame, flags, size) => frame.length < 100 || transmit.call(n.guest, frame, flags, size);
    c.endpoint.input = (h, bytes) => {
      if (h.dataLength > 0) input(h, bytes);
    };
    n.world.run(3 * SECOND);
    n.guest.transmit = transmit;
    c.endpoint.input = input;
    assert.ok(n.world.run(200 * SECOND, () => c.endpoint.queued === 0 && c.bytes === 20_000 && far.bytes === 20_000));
    far.write(noise(1000, 3));
    c.send(noise(1000, 3));
    assert.ok(n.world.run(200 * SECOND, () => c.bytes === 21_000 && far.bytes === 21_000));
    assert.equal(c.closed, undefined);
  });

  it("mends one loss without waiting for the timer", () => {
    const n = scriptedNetwork({ longSegments: false });
    const { c, far } = connection(n);
    const loses = n.guest.frameCount;
    const start = n.world.time;
    n.guest.capacity = Number.POSITIVE_INFINITY;
    // the guest's end drops the second data segment
    let count = 0;
    const input = c.endpoint.input.bind(c.endpoint);
    c.endpoint.input = (h, bytes) => {
      if (h.dataLength > 0 && ++count === 2) return;
      input(h, bytes);
    };
    far.write(noise(50_000, 1));
    n.world.settle();
    assert.equal(c.bytes, 50_000);
    assert.equal(n.world.time, start);
    assert.ok(n.guest.frameCount > loses);
  });

  it("gives a connection up whose guest is gone", () => {
    const n = scriptedNetwork();
    const { far } = connection(n);
    n.guest.transmit = () => true;
    far.write(noise(1000, 1));
    n.world.run(600 * SECOND);
    assert.ok(far.dropped && far.wasReset);
    assert.deepEqual([n.nat.holdings.tcp, n.nat.nextDeadline()], [0, Number.POSITIVE_INFINITY]);
  });
});

describe("a guest's end that answers before it returns", () => {
  it("gets all data in order, and can send as much", () => {
    const n = scriptedNetwork({ longSegments: false });
    const { c, far } = connection(n);
    // frames are taken from within the router's sending, and so are its own by the guest
    n.guest.takeAtOnce();
    const data = noise(2_000_000, 1);
    for (let at = 0; at < data.length; at += 65_536) far.write(data.subarray(at, at + 65_536));
    far.end();
    sendAll(c, data, 30_000);
    assert.ok(n.world.run(100 * SECOND, () => c.ended && far.ended));
    assert.equal(digest(c.received), digest([data]));
    assert.equal(digest(far.received), digest([data]));
    n.world.run(10 * SECOND);
    assert.deepEqual([n.nat.holdings.tcp, n.nat.holdings.bytes], [0, 0]);
  });
});
