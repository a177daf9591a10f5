/** The router's end of the link, and the plug, by themselves. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { formatIp, ip } from "./address.js";
import { workOut } from "./config.js";
import { FrameBuffer, writeIp } from "./header.js";
import { Link, quotedPacket } from "./link.js";
import { IpProtocol, Packet } from "./packet.js";
import { EthernetPort } from "./port.js";
import { NatStatistics } from "./statistics.js";
import { Timers } from "./timers.js";

const MAC = Uint8Array.of(2, 0, 0, 0, 0, 1);
const GATEWAY = { address: ip("10.0.2.2"), port: 1 };
const GUEST = { address: ip("10.0.2.15"), port: 2 };

function link(): { link: Link; guest: EthernetPort; sent: number[] } {
  const [port, guest] = EthernetPort.cable();
  const sent: number[] = [];
  guest.receive = (frame) => sent.push(frame.length) > 0;
  const it = new Link(workOut({}), port, { now: () => 0 }, new Timers(), new NatStatistics(), () => 7);
  return { link: it, guest, sent };
}

describe("the link", () => {
  it("sends only so many frames from within each other", () => {
    const { link: l, sent } = link();
    const frames = [l.begin()!, l.begin()!, l.begin()!];
    assert.equal(new Set(frames).size, 3);
    // one is left, which a datagram in fragments does not get along with
    assert.ok(l.sendUdp(MAC, GATEWAY, GUEST, new Uint8Array(10)));
    assert.ok(!l.sendUdp(MAC, GATEWAY, GUEST, new Uint8Array(3000)));
    const last = l.begin()!;
    assert.equal(l.begin(), undefined);
    assert.ok(!l.sendUdp(MAC, GATEWAY, GUEST, new Uint8Array(10)));
    assert.ok(!l.sendIcmp(MAC, GATEWAY.address, GUEST.address, new Uint8Array(8)));
    l.solicit(GUEST.address);
    l.solicit(ip("fd65:6e6c:6967:2::100"));
    assert.deepEqual(sent, [52]);
    assert.equal(l.statistics.dropped.get("reentered"), 6);
    for (const f of [last, ...frames.reverse()]) assert.ok(l.end(f, 60));
    l.solicit(GUEST.address);
    l.solicit(ip("fd65:6e6c:6967:2::100"));
    assert.deepEqual(sent.slice(-2), [42, 86]);
  });
  it("sends no datagram that is longer than a packet", () => {
    const { link: l } = link();
    const six = { address: ip("fd65:6e6c:6967:2::2"), port: 1 };
    assert.ok(!l.sendUdp(MAC, GATEWAY, GUEST, new Uint8Array(65_508)));
    assert.ok(l.sendUdp(MAC, six, six, new Uint8Array(65_527)));
    assert.ok(!l.sendUdp(MAC, six, six, new Uint8Array(65_528)));
  });
  it("knows neighbours by what they sent last, as many as it may", () => {
    const { link: l } = link();
    const heard: string[] = [];
    l.onNeighbour = (a) => heard.push(formatIp(a));
    const from = (address: string, mac: number): void => {
      const f = new FrameBuffer(100);
      const source = ip(address);
      const other = source.length === 4 ? GATEWAY.address : ip("fd65:6e6c:6967:2::2");
      const fields = { source, destination: other, protocol: IpProtocol.UDP, hopLimit: 1, identification: 0 };
      const at = writeIp(f, MAC, Uint8Array.of(2, 0, 0, 0, 0, mac), fields, 8);
      const p = new Packet();
      assert.equal(p.parse(f.bytes.subarray(0, at + 8), 0, 0), undefined);
      l.learn(p);
    };
    from("10.0.2.15", 1);
    from("10.0.2.15", 1);
    from("10.0.2.15", 2);
    // another address with the same hash takes the place of the first
    const x = Math.imul(0xfd65_6e6c | 0, 31) ^ 0x6967_0002;
    const word = (Math.imul(Math.imul(x, 31) ^ 1, 31) ^ Math.imul(Math.imul(x, 31) ^ 2, 31) ^ 5) >>> 0;
    const first = "fd65:6e6c:6967:2:0:1:0:5";
    const second = `fd65:6e6c:6967:2:0:2:${(word >>> 16).toString(16)}:${(word & 0xffff).toString(16)}`;
    from(first, 3);
    from(first, 3);
    from(second, 3);
    assert.deepEqual([l.macOf(ip(first)), l.macOf(ip(second))![5], l.neighbours], [undefined, 3, 2]);
    l.learnAddress(GUEST.address, Uint8Array.of(2, 0, 0, 0, 0, 2));
    assert.deepEqual(heard, ["10.0.2.15", "10.0.2.15", first, second]);
    assert.equal(l.macOf(GUEST.address)![5], 2);
    assert.equal(l.macOf(ip("10.0.2.16")), undefined);
    for (let i = 0; i < 2000; i++) l.learnAddress(Uint8Array.of(10, 0, i >> 8, i & 255), MAC);
    assert.equal(l.neighbours, 1024);
  });
  it("does not answer what is no question with an error", () => {
    const { link: l, sent } = link();
    const quoted = quotedPacket(l.network, MAC, GUEST, GATEWAY, IpProtocol.ICMP, 0);
    quoted.payloadAt = quoted.ipEnd;
    l.sendError(quoted, "port");
    const echo = quotedPacket(l.network, MAC, { ...GUEST, port: 0x0800 }, GATEWAY, IpProtocol.ICMP, 0);
    l.sendError(echo, "port");
    const six = { address: ip("fd65:6e6c:6967:2::2"), port: 0x8000 };
    l.sendError(quotedPacket(l.network, MAC, six, six, IpProtocol.ICMPV6, 0), "port");
    l.sendError(quotedPacket(l.network, MAC, { ...six, port: 1 }, six, IpProtocol.ICMPV6, 0), "port");
    assert.equal(sent.length, 2);
  });
});

describe("a cable", () => {
  it("loses frames while an end is out, or nobody is there", () => {
    const alone = new EthernetPort();
    assert.ok(alone.transmit(new Uint8Array(14)) && !alone.link);
    alone.room();
    alone.up = false;
    const [a, b] = EthernetPort.cable();
    assert.ok(a.transmit(new Uint8Array(14)));
    let links = 0;
    let rooms = 0;
    b.onLink = () => links++;
    b.onRoom = () => rooms++;
    a.room();
    a.up = true;
    assert.equal(links, 0);
    assert.ok(a.link && rooms === 1);
    a.up = false;
    b.receive = () => assert.fail("it is out");
    assert.ok(a.transmit(new Uint8Array(14)));
    assert.ok(!a.link && !b.link);
    assert.equal(links, 1);
  });
});
