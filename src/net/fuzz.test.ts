/**
 * Hostile guests: frames of bytes by chance, frames of good headers with spoilt fields, good conversations with spoilt segments. The
 * router does not throw, does not loop, and holds no more than it may. `ENLIGHTEN_LONG=1` runs a hundred times as many.
 */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ANY_IPV4, ip } from "./address.js";
import { encodeDhcp } from "./dhcp.js";
import { encodeDhcpv6 } from "./dhcpv6.js";
import { encodeQuery } from "./dns.js";
import { encodeNeighborSolicitation } from "./icmp.js";
import { noise, type ScriptedNetwork, scriptedNetwork, seeded } from "./scripted-network.js";

const FRAMES = process.env.ENLIGHTEN_LONG === undefined ? 10_000 : 1_000_000;
const SEED = Number(process.env.FUZZ_SEED ?? 7);
const CONFIG = {
  maxTcp: 64,
  maxUdp: 32,
  maxBytes: 1 << 20,
  tcpBytes: 32 << 10,
  allow: ["*.example", "1.0.0.0/8", "2606::/16", "10.0.2.2"],
};

function check(n: ScriptedNetwork): void {
  for (const list of [n.guest.udp, n.guest.icmp, n.guest.stray, n.refusals]) list.length = 0;
  n.world.outside.connects.length = 0;
  const h = n.nat.holdings;
  assert.ok(h.tcp <= 64 && h.sockets <= 64 && h.udp <= 32, JSON.stringify(h));
  assert.ok(h.bytes >= 0 && h.bytes <= (1 << 20) + 64 * 80_000, JSON.stringify(h));
  assert.ok(h.fragments <= 16 * 65_536 && h.neighbours <= 1024 && h.dns <= 256, JSON.stringify(h));
}

/** Frames of every kind that the router looks into. */
function good(n: ScriptedNetwork, next: () => number): Uint8Array[] {
  const out: Uint8Array[] = [];
  const { guest } = n;
  const transmit = guest.transmit.bind(guest);
  guest.transmit = (frame) => {
    out.push(frame.slice());
    return true;
  };
  const data = noise(next() % 60, next());
  const port = 1024 + (next() % 8);
  for (const to of ["1.1.1.1", "2606:4700::1111", "10.0.2.2", "127.0.0.1"]) {
    const address = ip(to);
    const source = address.length === 4 ? guest.address4 : guest.address6;
    guest.sendUdp(port, to, next() % 3, data);
    for (const flags of [2, 16, 17, 24, 4, 18])
      guest.segment(
        { address: source, port },
        { address, port: 80 },
        next() % 100,
        next() % 100,
        flags,
        data,
        flags === 2 ? [2, 4, 5, 180, 4, 2, 3, 3, 7, 1, 1, 1] : [],
      );
  }
  guest.sendIcmp(guest.address4, ip("10.0.2.2"), Uint8Array.of(8, 0, 0, 0, 0, 1, 0, 1, ...data));
  guest.sendIcmp(
    guest.linkLocal,
    ip("ff02::1"),
    encodeNeighborSolicitation(ip("fd65:6e6c:6967:2::2"), guest.mac),
    255,
    Uint8Array.of(0x33, 0x33, 0, 0, 0, 1),
  );
  guest.sendIcmp(
    guest.linkLocal,
    ip("ff02::2"),
    Uint8Array.of(133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 1),
    255,
    Uint8Array.of(0x33, 0x33, 0, 0, 0, 2),
  );
  guest.sendUdp(5353, "10.0.2.3", 53, encodeQuery(next() & 0xffff, "www.example", 1));
  guest.sendUdp(
    68,
    "255.255.255.255",
    67,
    encodeDhcp({
      op: 1,
      xid: next(),
      broadcast: false,
      ciaddr: ANY_IPV4,
      yiaddr: ANY_IPV4,
      chaddr: guest.mac,
      options: new Map([
        [53, Uint8Array.of(1 + (next() % 8))],
        [50, Uint8Array.of(10, 0, 2, 15)],
      ]),
    }),
    { from: ANY_IPV4, mac: Uint8Array.of(255, 255, 255, 255, 255, 255) },
  );
  guest.sendUdp(
    546,
    "ff02::1:2",
    547,
    encodeDhcpv6({
      type: 1 + (next() % 12),
      transaction: 5,
      options: [
        { code: 1, data: noise(6, 1) },
        { code: 3, data: noise(12, 2) },
      ],
    }),
    { from: guest.linkLocal, mac: Uint8Array.of(0x33, 0x33, 0, 1, 0, 2) },
  );
  guest.askArp("10.0.2.2");
  guest.transmit = transmit;
  return out;
}

function network(seed: number): ScriptedNetwork {
  const n = scriptedNetwork(CONFIG, { seed });
  n.world.outside.dnsServers = [{ address: ip("9.9.9.9"), port: 53 }];
  n.world.outside.udp.set("9.9.9.9:53", (bytes, reply) => reply(noise(bytes.length * 2, seed)));
  for (const where of ["1.1.1.1:80", "[2606:4700::1111]:80", "127.0.0.1:80"])
    n.world.outside.tcp.set(where, (far) => {
      far.keep = false;
      far.write(noise(100_000, seed));
      far.onData = (bytes) => far.write(bytes);
    });
  n.nat.publish({ protocol: "tcp", hostPort: 8080, guestPort: 80 }, () => {});
  return n;
}

describe("hostile guests", () => {
  it("with bytes by chance", () => {
    const next = seeded(SEED);
    const n = network(SEED);
    for (let i = 0; i < FRAMES; i++) {
      const f = noise(next() % 120, next());
      if (f.length > 14) {
        f.set(n.guest.router);
        f[6]! &= 0xfe;
        f.set(
          [
            [8, 0],
            [8, 6],
            [0x86, 0xdd],
            [0x81, 0],
          ][next() % 4]!,
          12,
        );
        if (f.length > 40 && next() % 2 === 0) f[14] = f[12] === 8 ? 0x45 : 0x60;
      }
      n.guest.transmit(f, next() % 4, next() % 3 === 0 ? next() % 2000 : 0);
      if (i % 100 === 0) {
        n.world.run(next() % 1e9);
        check(n);
      }
    }
  });

  it("with good frames that are spoilt in a byte, cut, or doubled", () => {
    const next = seeded(SEED + 1);
    const n = network(SEED + 1);
    let sent = 0;
    // conversations by a whole stack, too, of which a frame in ten is spoilt
    const transmit = n.guest.transmit.bind(n.guest);
    while (sent < FRAMES) {
      if (next() % 3 === 0 && n.guest.connections.size < 50) {
        const c = n.guest.connect(["1.1.1.1", "2606:4700::1111", "10.0.2.2"][next() % 3]!, 80);
        c.keep = false;
        c.reading = next() % 4 !== 0;
        c.send(noise(next() % 100_000, next()));
        if (next() % 2 === 0) c.endpoint.shutdown();
      }
      for (const f of good(n, next)) {
        sent++;
        let frame = f;
        for (let k = next() % 3; k > 0; k--) {
          const at = 12 + (next() % (f.length - 12));
          frame[at] = next() % 3 === 0 ? next() : next() % 2 === 0 ? 0xff : 0;
        }
        if (next() % 8 === 0) frame = frame.subarray(0, next() % frame.length);
        n.guest.transmit(frame, next() % 4, next() % 6 === 0 ? next() % 3000 : 0);
        if (next() % 20 === 0) n.guest.transmit(frame, 2);
      }
      if (next() % 10 === 0) n.world.outside.dial("127.0.0.1:8080");
      n.guest.transmit = (frame, flags, size) => {
        sent++;
        if (next() % 10 === 0) frame[14 + (next() % 60)] = next();
        return transmit(frame, flags, size);
      };
      n.world.run(next() % (next() % 10 === 0 ? 100e9 : 1e8));
      n.guest.transmit = transmit;
      check(n);
    }
    assert.ok(n.nat.statistics.tcpBytesToGuest > 0 && n.nat.statistics.udpToHost > 0);
    n.nat.close();
    const h = n.nat.holdings;
    assert.deepEqual([h.tcp, h.sockets, h.udp, h.bytes, h.fragments, h.neighbours, h.dns], [0, 0, 0, 0, 0, 0, 0]);
    assert.equal(n.nat.nextDeadline(), Number.POSITIVE_INFINITY);
    assert.equal(n.world.outside.udpSockets, 0);
  });

  it("with fragments", () => {
    const next = seeded(SEED + 2);
    const n = network(SEED + 2);
    let most = 0;
    const transmit = n.guest.transmit.bind(n.guest);
    for (let i = 0; i < FRAMES; i++) {
      const out: Uint8Array[] = [];
      n.guest.transmit = (frame) => {
        out.push(frame.slice());
        return true;
      };
      n.guest.sendUdp(1, "1.1.1.1", 9, noise(next() % 200, 1));
      n.guest.transmit = transmit;
      const f = out[0]!;
      f[19] = next() % 20; // identification
      f[20] = next() % 2 === 0 ? 0x20 : next() % 32;
      f[21] = next() % 16;
      n.guest.transmit(f, 2);
      most = Math.max(most, n.nat.holdings.fragments);
      if (i % 500 === 0) {
        n.world.run(next() % 10e9);
        check(n);
      }
    }
    assert.ok(most > 0);
  });

  it("who answers from within being sent to, again and again", () => {
    const n = network(SEED + 3);
    let depth = 0;
    let deepest = 0;
    const c = n.guest.connect("1.1.1.1", 80);
    n.world.run(1e9);
    assert.ok(c.connected);
    const frames: Uint8Array[] = good(n, seeded(1));
    // the guest's end answers every frame at once, with frames that are answered again
    const loop = (frame: Uint8Array): boolean => {
      deepest = Math.max(deepest, ++depth);
      for (const f of frames) n.guest.transmit(f, 2);
      depth--;
      return frame.length > 0;
    };
    n.guest.answerWith(loop);
    for (const f of frames) n.guest.transmit(f, 2);
    assert.ok(deepest >= 2 && deepest <= 6, `${deepest}`);
    assert.ok(n.nat.statistics.dropped.get("reentered")! > 0);
    check(n);
  });
});
