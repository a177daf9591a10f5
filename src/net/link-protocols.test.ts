/** What the router answers on its link: ARP, DHCP, DHCPv6, neighbour discovery, echoes and errors; by the message. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ANY_IPV4, ANY_IPV6, BROADCAST_MAC, formatIp, type IpAddress, ip, linkLocalOf } from "./address.js";
import { writeArp } from "./arp.js";
import { DhcpOption, DhcpType, encodeDhcp, parseDhcp } from "./dhcp.js";
import {
  type Dhcpv6Field,
  Dhcpv6Option,
  Dhcpv6Status,
  Dhcpv6Type,
  encodeDhcpv6,
  encodeOptions,
  parseDhcpv6,
  parseOptions,
} from "./dhcpv6.js";
import { FrameBuffer } from "./header.js";
import { encodeNeighborAdvertisement, encodeNeighborSolicitation } from "./icmp.js";
import type { ScriptedGuest } from "./scripted-guest.js";
import { noise, type ScriptedNetwork, scriptedNetwork } from "./scripted-network.js";

const SECOND = 1e9;
const GATEWAY6 = "fd65:6e6c:6967:2::2";
const ALL_NODES = ip("ff02::1");
const ALL_ROUTERS = ip("ff02::2");
const groupMac = (a: IpAddress): Uint8Array => Uint8Array.of(0x33, 0x33, ...a.subarray(12));

/** One message to the DHCP server. @returns its answer */
function dhcp(
  n: ScriptedNetwork,
  type: number,
  options: [number, Uint8Array][] = [],
  more: { ciaddr?: string; broadcast?: boolean; giaddr?: string; guest?: ScriptedGuest; unicast?: boolean } = {},
) {
  const guest = more.guest ?? n.guest;
  guest.udp.length = 0;
  guest.frames = [];
  const message = encodeDhcp({
    op: 1,
    xid: 0x1234,
    broadcast: more.broadcast ?? false,
    ciaddr: ip(more.ciaddr ?? "0.0.0.0"),
    yiaddr: ANY_IPV4,
    giaddr: ip(more.giaddr ?? "0.0.0.0"),
    chaddr: guest.mac,
    options: new Map([[DhcpOption.MESSAGE_TYPE, Uint8Array.of(type)], ...options]),
  });
  if (more.unicast) guest.sendUdp(68, "10.0.2.2", 67, message);
  else guest.sendUdp(68, "255.255.255.255", 67, message, { from: ANY_IPV4, mac: BROADCAST_MAC });
  n.world.settle();
  const got = guest.udp.find((d) => d.to.endsWith(":68"));
  if (got === undefined) return undefined;
  const m = parseDhcp(got.data)!;
  const frame = guest.frames.at(-1)!.bytes;
  return { type: m.options.get(53)![0], address: formatIp(m.yiaddr), m, to: got.to, mac: frame.subarray(0, 6) };
}
const wanted = (address: string): [number, Uint8Array] => [DhcpOption.REQUESTED_ADDRESS, ip(address)];
const server = (address = "10.0.2.2"): [number, Uint8Array] => [DhcpOption.SERVER_ID, ip(address)];
const named = (name: string): [number, Uint8Array] => [DhcpOption.HOST_NAME, new TextEncoder().encode(name)];

describe("ARP", () => {
  it("is answered for the gateway and the name server alone", () => {
    const n = scriptedNetwork();
    n.guest.frames = [];
    for (const a of ["10.0.2.2", "10.0.2.3", "10.0.2.4", "10.0.2.15"]) n.guest.askArp(a);
    n.world.settle();
    assert.deepEqual(
      n.guest.frames.map((f) => [formatIp(f.bytes.subarray(28, 32)), f.bytes.length]),
      [
        ["10.0.2.2", 42],
        ["10.0.2.3", 42],
      ],
    );
    assert.equal(n.nat.holdings.neighbours, 1);
  });
  it("believes nobody who says to be the gateway, and takes no message that is cut", () => {
    const n = scriptedNetwork();
    const f = new FrameBuffer(64);
    const length = writeArp(f, 2, n.guest.mac, ip("10.0.2.2"), n.guest.router, ip("10.0.2.15"));
    n.guest.transmit(f.bytes.subarray(0, length));
    n.guest.transmit(f.bytes.subarray(0, length - 1));
    f.bytes[15] = 6;
    n.guest.transmit(f.bytes.subarray(0, length));
    assert.equal(n.nat.holdings.neighbours, 0);
    assert.equal(n.nat.statistics.dropped.get("short"), 2);
  });
});

describe("the DHCP server", () => {
  it("offers, gives, prolongs and takes back a lease", () => {
    const n = scriptedNetwork({ mtu: 1400, leaseSeconds: 1000 });
    const offer = dhcp(n, DhcpType.DISCOVER)!;
    assert.deepEqual([offer.type, offer.address, offer.to], [DhcpType.OFFER, "10.0.2.15", "10.0.2.15:68"]);
    assert.deepEqual([...offer.mac], [...n.guest.mac]);
    assert.equal(n.nat.leases().length, 0);
    const ack = dhcp(n, DhcpType.REQUEST, [server(), wanted("10.0.2.15"), named("Alpha")])!;
    assert.equal(ack.type, DhcpType.ACK);
    const option = (code: number): number[] => [...ack.m.options.get(code)!];
    assert.deepEqual(option(DhcpOption.SUBNET_MASK), [255, 255, 255, 0]);
    assert.deepEqual(option(DhcpOption.ROUTER), [10, 0, 2, 2]);
    assert.deepEqual(option(DhcpOption.DNS), [10, 0, 2, 3]);
    assert.deepEqual(option(DhcpOption.BROADCAST), [10, 0, 2, 255]);
    assert.deepEqual(option(DhcpOption.MTU), [5, 120]);
    assert.deepEqual(option(DhcpOption.LEASE_TIME), [0, 0, 3, 232]);
    assert.deepEqual(option(DhcpOption.RENEWAL_TIME), [0, 0, 1, 244]);
    assert.deepEqual(option(DhcpOption.REBINDING_TIME), [0, 0, 3, 107]);
    assert.equal(String.fromCharCode(...option(DhcpOption.DOMAIN)), "enlighten.internal");
    assert.deepEqual(
      n.nat.leases().map((l) => [formatIp(l.address), l.hostName, l.mac]),
      [["10.0.2.15", "alpha", "02:00:00:00:00:01"]],
    );
    n.world.run(900 * SECOND);
    assert.equal(dhcp(n, DhcpType.REQUEST, [], { ciaddr: "10.0.2.15", unicast: true })!.type, DhcpType.ACK); // renewing
    n.world.run(900 * SECOND);
    assert.equal(n.nat.leases().length, 1);
    assert.equal(dhcp(n, DhcpType.REQUEST, [], { ciaddr: "10.0.2.15" })!.to, "10.0.2.15:68"); // rebinding
    assert.equal(dhcp(n, DhcpType.RELEASE, [server()], { ciaddr: "10.0.2.15", unicast: true }), undefined);
    assert.equal(n.nat.leases().length, 0);
    n.world.run(SECOND);
    assert.equal(dhcp(n, DhcpType.DISCOVER)!.address, "10.0.2.15", "the same again");
  });
  it("says no to an address of another network, of another guest, and leaves other servers' clients alone", () => {
    const n = scriptedNetwork({}, { guests: 2 });
    const second = n.guests[1]!;
    assert.equal(dhcp(n, DhcpType.REQUEST, [wanted("10.0.2.15")])!.type, DhcpType.ACK); // after a reboot
    const nak = dhcp(n, DhcpType.REQUEST, [wanted("192.168.0.7")])!;
    assert.deepEqual(
      [nak.type, nak.to, nak.address, [...nak.mac]],
      [DhcpType.NAK, "255.255.255.255:68", "0.0.0.0", [...BROADCAST_MAC]],
    );
    assert.equal(nak.m.options.has(DhcpOption.LEASE_TIME), false);
    assert.equal(dhcp(n, DhcpType.REQUEST, [wanted("10.0.2.15"), server()], { guest: second })!.type, DhcpType.NAK);
    assert.equal(dhcp(n, DhcpType.DISCOVER, [wanted("10.0.2.15")], { guest: second })!.address, "10.0.2.16");
    assert.equal(dhcp(n, DhcpType.REQUEST, [wanted("10.0.2.16"), server("10.0.2.99")], { guest: second }), undefined);
    assert.equal(dhcp(n, DhcpType.DISCOVER, [wanted("10.0.2.77")], { guest: second })!.address, "10.0.2.77");
    assert.equal(dhcp(n, DhcpType.REQUEST, [server()], { guest: second }), undefined); // asks for nothing
  });
  it("answers to everybody if asked to, and to INFORM without a lease", () => {
    const n = scriptedNetwork();
    assert.equal(dhcp(n, DhcpType.DISCOVER, [], { broadcast: true })!.to, "255.255.255.255:68");
    const inform = dhcp(n, DhcpType.INFORM, [], { ciaddr: "10.0.2.20" })!;
    assert.deepEqual([inform.type, inform.to, inform.m.options.has(51)], [DhcpType.ACK, "10.0.2.20:68", false]);
    assert.equal(dhcp(n, DhcpType.INFORM)!.to, "255.255.255.255:68");
    assert.equal(dhcp(n, DhcpType.DISCOVER, [], { giaddr: "10.0.2.9" }), undefined);
    assert.equal(dhcp(n, 99), undefined);
  });
  it("leaves an address alone that somebody declined", () => {
    const n = scriptedNetwork();
    dhcp(n, DhcpType.DISCOVER);
    dhcp(n, DhcpType.REQUEST, [server(), wanted("10.0.2.15")]);
    dhcp(n, DhcpType.DECLINE, [server(), wanted("10.0.2.200")]); // not its own
    dhcp(n, DhcpType.DECLINE, [server()]);
    dhcp(n, DhcpType.DECLINE, [server(), wanted("10.0.2.15")]);
    assert.equal(dhcp(n, DhcpType.DISCOVER)!.address, "10.0.2.16");
    n.world.run(700 * SECOND);
    assert.equal(dhcp(n, DhcpType.REQUEST, [wanted("10.0.2.15")])!.type, DhcpType.ACK);
  });
  it("has no more when all are given, and gives those whose time is over", () => {
    const n = scriptedNetwork({ ipv4: "10.0.2.0/28", leaseSeconds: 100 });
    const client = (i: number): [number, Uint8Array] => [DhcpOption.CLIENT_ID, Uint8Array.of(255, i)];
    for (let i = 0; i < 11; i++) {
      const offer = dhcp(n, DhcpType.DISCOVER, [client(i)])!;
      assert.deepEqual([...offer.m.options.get(DhcpOption.CLIENT_ID)!], [255, i]);
      dhcp(n, DhcpType.REQUEST, [client(i), server(), wanted(offer.address)]);
    }
    assert.equal(new Set(n.nat.leases().map((l) => formatIp(l.address))).size, 11);
    assert.equal(dhcp(n, DhcpType.DISCOVER, [client(99)]), undefined);
    n.world.run(101 * SECOND);
    assert.equal(dhcp(n, DhcpType.DISCOVER, [client(99)])!.type, DhcpType.OFFER);
  });
  it("keeps its leases over a save", () => {
    const n = scriptedNetwork({ leaseSeconds: 1000 });
    dhcp(n, DhcpType.REQUEST, [wanted("10.0.2.33"), named("bad name!")]);
    n.world.run(400 * SECOND);
    const state = structuredClone(n.nat.save());
    const other = scriptedNetwork({ leaseSeconds: 1000 });
    other.nat.restore(state);
    assert.deepEqual(
      other.nat.leases().map((l) => [formatIp(l.address), l.hostName]),
      [["10.0.2.33", ""]],
    );
    other.world.run(599 * SECOND);
    assert.equal(other.nat.leases().length, 1);
    other.world.run(2 * SECOND);
    assert.equal(other.nat.leases().length, 0);
    other.nat.restore({ ...state, leases: [{ ...state.leases[0]!, address: "nonsense" }] });
    assert.equal(other.nat.leases().length, 0);
  });
});

describe("the DHCPv6 server", () => {
  const DUID = Uint8Array.of(0, 1, 9, 9, 9);
  const IA = encodeOptions([]);
  const ia = (n: number, inner: Uint8Array = IA): Dhcpv6Field => ({
    code: Dhcpv6Option.IA_NA,
    data: Uint8Array.of(0, 0, 0, n, 0, 0, 0, 0, 0, 0, 0, 0, ...inner),
  });
  const client: Dhcpv6Field = { code: Dhcpv6Option.CLIENTID, data: DUID };
  function ask(n: ScriptedNetwork, type: number, options: Dhcpv6Field[]) {
    n.guest.udp.length = 0;
    const m = encodeDhcpv6({ type, transaction: 0xabcdef, options });
    n.guest.sendUdp(546, "ff02::1:2", 547, m, { from: n.guest.linkLocal, mac: groupMac(ip("ff02::1:2")) });
    n.world.settle();
    const got = n.guest.udp[0];
    if (got === undefined) return undefined;
    assert.equal(got.to, `[${formatIp(n.guest.linkLocal)}]:546`);
    const reply = parseDhcpv6(got.data)!;
    const find = (code: number): Uint8Array | undefined => reply.options.find((o) => o.code === code)?.data;
    const inner = find(Dhcpv6Option.IA_NA);
    const address =
      inner &&
      parseOptions(inner, 12)!
        .find((o) => o.code === Dhcpv6Option.IAADDR)
        ?.data.slice(0, 16);
    return { type: reply.type, find, address: address && formatIp(address), inner };
  }
  it("advertises, gives, prolongs, confirms and takes back", () => {
    const n = scriptedNetwork();
    const advertise = ask(n, Dhcpv6Type.SOLICIT, [client, ia(1)])!;
    assert.equal(advertise.type, Dhcpv6Type.ADVERTISE);
    assert.equal(n.nat.leases6().length, 0);
    const theServer = { code: Dhcpv6Option.SERVERID, data: advertise.find(Dhcpv6Option.SERVERID)! };
    const reply = ask(n, Dhcpv6Type.REQUEST, [client, theServer, ia(1)])!;
    assert.deepEqual([reply.type, reply.address], [Dhcpv6Type.REPLY, advertise.address]);
    assert.equal(formatIp(reply.find(Dhcpv6Option.DNS_SERVERS)!), "fd65:6e6c:6967:2::3");
    assert.equal(n.nat.leases6().length, 1);
    const binding = encodeOptions([
      { code: Dhcpv6Option.IAADDR, data: Uint8Array.of(...ip(reply.address!), 0, 0, 0, 0, 0, 0, 0, 0) },
    ]);
    const status = (r: ReturnType<typeof ask>): number => r!.find(Dhcpv6Option.STATUS_CODE)![1]!;
    assert.equal(ask(n, Dhcpv6Type.RENEW, [client, theServer, ia(1)])!.address, reply.address);
    assert.equal(ask(n, Dhcpv6Type.REBIND, [client, ia(1)])!.address, reply.address);
    assert.equal(status(ask(n, Dhcpv6Type.CONFIRM, [client, ia(1, binding)])), Dhcpv6Status.Success);
    const elsewhere = encodeOptions([{ code: Dhcpv6Option.IAADDR, data: new Uint8Array(24) }]);
    assert.equal(status(ask(n, Dhcpv6Type.CONFIRM, [client, ia(1, elsewhere)])), Dhcpv6Status.NotOnLink);
    assert.equal(ask(n, Dhcpv6Type.CONFIRM, [client, ia(1)]), undefined);
    assert.notEqual(ask(n, Dhcpv6Type.REQUEST, [client, theServer, ia(2)])!.address, reply.address);
    const state = n.nat.save();
    n.nat.restore(state);
    assert.equal(n.nat.leases6().length, 2);
    assert.equal(status(ask(n, Dhcpv6Type.RELEASE, [client, theServer, ia(1)])), Dhcpv6Status.Success);
    assert.equal(status(ask(n, Dhcpv6Type.DECLINE, [client, theServer, ia(2)])), Dhcpv6Status.Success);
    assert.equal(n.nat.leases6().length, 0);
  });
  it("gives at once to who asks for that, and only configuration to who wants no more", () => {
    const n = scriptedNetwork();
    const rapid = ask(n, Dhcpv6Type.SOLICIT, [
      client,
      ia(1),
      { code: Dhcpv6Option.RAPID_COMMIT, data: new Uint8Array(0) },
    ])!;
    assert.equal(rapid.type, Dhcpv6Type.REPLY);
    assert.ok(rapid.find(Dhcpv6Option.RAPID_COMMIT) !== undefined);
    const info = ask(n, Dhcpv6Type.INFORMATION_REQUEST, [])!;
    assert.ok(info.find(Dhcpv6Option.DNS_SERVERS) !== undefined && info.inner === undefined);
  });
  it("runs out of addresses with a word", () => {
    const n = scriptedNetwork();
    const rapid = { code: Dhcpv6Option.RAPID_COMMIT, data: new Uint8Array(0) };
    for (let i = 0; i < 256; i++) assert.ok(ask(n, Dhcpv6Type.SOLICIT, [client, ia(i), rapid])!.address !== undefined);
    const none = ask(n, Dhcpv6Type.SOLICIT, [{ ...client, data: Uint8Array.of(1, 2, 3) }, ia(1), rapid])!;
    assert.equal(parseOptions(none.inner!, 12)![0]!.data[1], Dhcpv6Status.NoAddrsAvail);
  });
  it("ignores who is not to be answered", () => {
    const n = scriptedNetwork();
    const other = { code: Dhcpv6Option.SERVERID, data: Uint8Array.of(1, 2, 3) };
    const ours = { code: Dhcpv6Option.SERVERID, data: Uint8Array.of(0, 3, 0, 1, ...n.nat.network.mac) };
    for (const [type, options] of [
      [Dhcpv6Type.REQUEST, [client, ia(1)]],
      [Dhcpv6Type.REQUEST, [client, other, ia(1)]],
      [Dhcpv6Type.SOLICIT, [client, ours, ia(1)]],
      [Dhcpv6Type.SOLICIT, [ia(1)]],
      [Dhcpv6Type.SOLICIT, [{ ...client, data: Uint8Array.of(1) }, ia(1)]],
      [Dhcpv6Type.REPLY, [client]],
    ] as const)
      assert.equal(ask(n, type, [...options]), undefined);
    n.guest.sendUdp(546, "ff02::1:2", 547, Uint8Array.of(1), {
      from: n.guest.linkLocal,
      mac: groupMac(ip("ff02::1:2")),
    });
    n.world.settle();
    assert.equal(n.guest.udp.length, 0);
  });
});

describe("neighbour discovery", () => {
  const routerLl = linkLocalOf(Uint8Array.of(0x52, 0x55, 0x0a, 0, 2, 2));
  const rs = (option: number[] = []): Uint8Array => Uint8Array.of(133, 0, 0, 0, 0, 0, 0, 0, ...option);
  it("advertises the router to who asks, and to all from time to time", () => {
    const n = scriptedNetwork();
    n.guest.sendIcmp(n.guest.linkLocal, ALL_ROUTERS, rs([1, 1, ...n.guest.mac]), 255, groupMac(ALL_ROUTERS));
    n.world.settle();
    const [ra] = n.guest.icmp;
    assert.deepEqual([ra!.type, ra!.from, ra!.hopLimit, ra!.bytes[5]], [134, formatIp(routerLl), 255, 0x40]);
    n.guest.icmp.length = 0;
    n.guest.frames = [];
    n.guest.sendIcmp(ANY_IPV6, ALL_ROUTERS, rs(), 255, groupMac(ALL_ROUTERS));
    n.world.settle();
    assert.deepEqual([...n.guest.frames[0]!.bytes.subarray(0, 6)], [0x33, 0x33, 0, 0, 0, 1]);
    n.world.run(601 * SECOND);
    assert.equal(n.guest.icmp.filter((m) => m.type === 134).length, 2);
  });
  it("answers for its addresses, defends them, and stays silent about others", () => {
    const n = scriptedNetwork();
    for (const target of [GATEWAY6, "fd65:6e6c:6967:2::3", formatIp(routerLl), "fd65:6e6c:6967:2::77"]) {
      const group = Uint8Array.of(0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, ...ip(target).subarray(13));
      n.guest.sendIcmp(
        n.guest.address6,
        group,
        encodeNeighborSolicitation(ip(target), n.guest.mac),
        255,
        groupMac(group),
      );
    }
    n.world.settle();
    assert.deepEqual(
      n.guest.icmp.map((m) => [m.type, m.bytes[4]! & 0xe0, formatIp(m.bytes.subarray(8, 24))]),
      [
        [136, 0xe0, GATEWAY6],
        [136, 0xe0, "fd65:6e6c:6967:2::3"],
        [136, 0xe0, formatIp(routerLl)],
      ],
    );
    n.guest.icmp.length = 0;
    n.guest.frames = [];
    const dad = encodeNeighborSolicitation(ip(GATEWAY6), n.guest.mac).subarray(0, 24);
    n.guest.sendIcmp(ANY_IPV6, ALL_NODES, dad, 255, groupMac(ALL_NODES));
    n.world.settle();
    assert.deepEqual([n.guest.icmp[0]!.bytes[4]! & 0x40, n.guest.frames[0]!.bytes[0]], [0, 0x33]);
  });
  it("takes nothing that came over a router, is cut, or lies", () => {
    const n = scriptedNetwork();
    const { guest } = n;
    const send = (message: Uint8Array, source = guest.linkLocal, hops = 255): void =>
      guest.sendIcmp(source, ALL_NODES, message, hops, groupMac(ALL_NODES));
    const ns = encodeNeighborSolicitation(ip(GATEWAY6), guest.mac);
    send(ns, guest.linkLocal, 64);
    send(ns.subarray(0, 20));
    send(ns.subarray(0, 4));
    send(ns.with(1, 1));
    send(ns.with(25, 0));
    send(ns, ANY_IPV6);
    send(rs([1, 1, ...guest.mac]), ANY_IPV6);
    send(rs([1, 0]));
    send(ns, ip("2001:db8::1"));
    send(ns, ip(GATEWAY6));
    send(Uint8Array.of(134, ...new Uint8Array(15)));
    send(encodeNeighborAdvertisement(guest.address6, guest.mac, true), ANY_IPV6);
    send(encodeNeighborAdvertisement(guest.address6, guest.mac, true).with(25, 0));
    send(encodeNeighborAdvertisement(ip(GATEWAY6), guest.mac, true));
    n.world.settle();
    assert.deepEqual(n.guest.icmp, []);
    send(encodeNeighborAdvertisement(guest.address6, guest.mac, true).subarray(0, 24));
    assert.ok(n.nat.holdings.neighbours >= 1);
  });
  it("is silent without IPv6", () => {
    const n = scriptedNetwork({ ipv6: false });
    n.guest.sendIcmp(n.guest.linkLocal, ALL_ROUTERS, rs(), 255, groupMac(ALL_ROUTERS));
    n.world.settle();
    assert.equal(n.nat.statistics.dropped.get("ether-type"), 1);
  });
});

describe("echoes and errors", () => {
  const echo = (type: number, data: Uint8Array): Uint8Array => Uint8Array.of(type, 0, 0, 0, 1, 2, 3, 4, ...data);
  it("answers an echo to the gateway and the name server, and prohibits others", () => {
    const n = scriptedNetwork();
    const { guest } = n;
    const data = noise(100, 1);
    for (const to of ["10.0.2.2", "10.0.2.3", "1.1.1.1"]) guest.sendIcmp(guest.address4, ip(to), echo(8, data));
    for (const to of [GATEWAY6, "2606:4700::1111"]) guest.sendIcmp(guest.address6, ip(to), echo(128, data));
    n.world.settle();
    assert.deepEqual(
      guest.icmp.map((m) => [m.from, m.type, m.code]),
      [
        ["10.0.2.2", 0, 0],
        ["10.0.2.3", 0, 0],
        ["10.0.2.2", 3, 13],
        [GATEWAY6, 129, 0],
        [GATEWAY6, 1, 1],
      ],
    );
    assert.deepEqual(guest.icmp[0]!.bytes.subarray(4), echo(0, data).subarray(4));
    assert.equal(n.nat.statistics.echoes, 3);
  });
  it("tells traceroute that it is the first hop, and unknown protocols that they are", () => {
    const n = scriptedNetwork();
    n.guest.sendUdp(1, "1.1.1.1", 33434, noise(4, 1), { hopLimit: 1 });
    n.guest.sendUdp(1, "2606:4700::1111", 33434, noise(4, 1), { hopLimit: 1 });
    n.guest.frames = [];
    const transmit = n.guest.transmit.bind(n.guest);
    n.guest.transmit = (frame) => {
      const f = frame.slice();
      f[14 + (f[12] === 8 ? 9 : 6)] = 132; // SCTP
      return transmit(f, 2);
    };
    n.guest.sendUdp(1, "1.1.1.1", 5, noise(4, 1));
    n.guest.sendUdp(1, "2606:4700::1111", 5, noise(4, 1));
    n.world.settle();
    assert.deepEqual(
      n.guest.icmp.map((m) => [m.type, m.code]),
      [
        [11, 0],
        [3, 0],
        [3, 2],
        [4, 1],
      ],
    );
  });
  it("knows no way to places that are none, nor to other guests", () => {
    const n = scriptedNetwork();
    for (const to of [
      "127.0.0.1",
      "169.254.169.254",
      "0.0.0.0",
      "10.0.2.77",
      "::ffff:127.0.0.1",
      "fd65:6e6c:6967:2::77",
    ]) {
      n.guest.icmp.length = 0;
      n.guest.connect(to, 80);
      n.world.settle();
      assert.equal(n.guest.icmp.length, 1, to);
    }
    assert.deepEqual(n.world.outside.connects, []);
    // a frame that was not for the router, a group, a tag
    n.guest.sendUdp(1, "1.1.1.1", 5, noise(4, 1), { mac: Uint8Array.of(2, 9, 9, 9, 9, 9) });
    n.guest.sendUdp(1, "224.0.0.251", 5353, noise(4, 1), { mac: Uint8Array.of(1, 0, 0x5e, 0, 0, 0xfb) });
    assert.equal(n.nat.statistics.dropped.get("not-for-us"), 8);
    assert.equal(n.world.outside.udpSockets, 0);
  });
  it("takes no packet from addresses that are not the guests'", () => {
    const n = scriptedNetwork();
    for (const from of ["10.0.2.2", "10.0.2.3", "10.0.2.0", "10.0.2.255", "192.168.0.1", "127.0.0.1"])
      n.guest.sendUdp(1, "1.1.1.1", 5, noise(4, 1), { from: ip(from) });
    for (const from of [GATEWAY6, "fd65:6e6c:6967:2::3", "2001:db8::1", "::1"])
      n.guest.sendUdp(1, "2606:4700::1111", 5, noise(4, 1), { from: ip(from) });
    assert.equal(n.nat.statistics.dropped.get("source-address"), 10);
    assert.equal(n.world.outside.udpSockets, 0);
  });
  it("limits its errors, and never answers an error with one", () => {
    const n = scriptedNetwork();
    for (let i = 0; i < 500; i++) n.guest.sendIcmp(n.guest.address4, ip("1.1.1.1"), echo(8, noise(4, 1)));
    assert.equal(n.nat.statistics.icmpErrors, 100);
    n.world.run(SECOND);
    n.guest.icmp.length = 0;
    n.guest.sendIcmp(n.guest.address4, ip("127.0.0.1"), echo(3, noise(4, 1)));
    n.guest.sendIcmp(n.guest.address4, ip("10.0.2.2"), echo(3, noise(4, 1)));
    n.world.settle();
    assert.deepEqual(n.guest.icmp, []);
  });
  it("drops echoes that are spoilt", () => {
    const n = scriptedNetwork();
    const transmit = n.guest.transmit.bind(n.guest);
    n.guest.transmit = (frame) => {
      const f = frame.slice();
      f[f.length - 1]! ^= 1;
      return transmit(f);
    };
    n.guest.sendIcmp(n.guest.address4, ip("10.0.2.2"), echo(8, noise(4, 1)));
    n.guest.sendIcmp(n.guest.address6, ip(GATEWAY6), echo(128, noise(4, 1)));
    n.guest.sendUdp(1, "1.1.1.1", 5, noise(4, 1));
    n.guest.connect("1.1.1.1", 5);
    assert.equal(n.nat.statistics.dropped.get("checksum"), 4);
  });
});
