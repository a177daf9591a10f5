/** Addresses, checksums, headers, options and messages: vectors of the documents, round trips, plain references. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import * as address from "./address.js";
import { addBytes, checksumOf, fold } from "./checksum.js";
import { isNowhere, NatConfigError, workOut } from "./config.js";
import { DhcpOption, encodeDhcp, parseDhcp } from "./dhcp.js";
import { encodeDhcpv6, parseDhcpv6 } from "./dhcpv6.js";
import * as dns from "./dns.js";
import { checksumHolds, FrameBuffer, TcpFlags, TcpHeader, writeIp, writeTransportChecksum } from "./header.js";
import { encodeRouterAdvertisement, linkAddressOption } from "./icmp.js";
import { EtherType, IpProtocol, Packet } from "./packet.js";
import { FrameFlags } from "./port.js";

const bytes = (hex: string): Uint8Array =>
  Uint8Array.from(hex.replace(/\s/g, "").match(/../g) ?? [], (h) => Number.parseInt(h, 16));
const viewOf = (b: Uint8Array): DataView => new DataView(b.buffer, b.byteOffset, b.byteLength);

/** RFC 1071 as it is written: 16-bit words, carries folded at once. */
function plainChecksum(b: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < b.length; i += 2) {
    sum += (b[i]! << 8) | (b[i + 1] ?? 0);
    if (sum > 0xffff) sum -= 0xffff;
  }
  return ~sum & 0xffff;
}

describe("addresses", () => {
  it("reads and writes texts as RFC 5952 has them", () => {
    for (const [text, canonical] of [
      ["2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"],
      ["2001:0DB8::0001", "2001:db8::1"],
      ["2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"],
      ["::", "::"],
      ["::1", "::1"],
      ["1::", "1::"],
      ["::ffff:192.0.2.1", "::ffff:c000:201"],
      ["1:2:3:4:5:6:7.8.9.10", "1:2:3:4:5:6:708:90a"],
      ["192.0.2.1", "192.0.2.1"],
    ] as const)
      assert.equal(address.formatIp(address.ip(text)), canonical);
    for (const text of [
      "",
      ":",
      ":::",
      "1::2::3",
      "1:2:3:4:5:6:7",
      "1:2:3:4:5:6:7:8:9",
      "1:2:3:4:5:6:7::8",
      "12345::",
      "g::",
      "1.2.3",
      "1.2.3.256",
      "1.2.3.4.5",
      "::1.2.3.4:5",
      "fe80::1%eth0",
    ])
      assert.equal(address.parseIp(text), undefined, text);
    assert.throws(() => address.ip("host"), RangeError);
  });
  it("goes through text and back", () => {
    const any = fc.oneof(
      fc.uint8Array({ minLength: 4, maxLength: 4 }),
      fc.array(fc.oneof(fc.constant(0), fc.nat(255)), { minLength: 16, maxLength: 16 }).map((a) => Uint8Array.from(a)),
    );
    fc.assert(fc.property(any, (a) => assert.deepEqual(address.ip(address.formatIp(a)), a)));
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 6, maxLength: 6 }), (m) =>
        assert.deepEqual(address.parseMac(address.formatMac(m)), m),
      ),
    );
    fc.assert(fc.property(fc.nat(0xffff_ffff), (n) => assert.equal(address.ipv4Number(address.ipv4Of(n)), n)));
    assert.equal(address.parseMac("02-00-00-00-00-0G"), undefined);
  });
  it("knows prefixes and kinds", () => {
    const p = address.parsePrefix("10.0.2.128/25")!;
    assert.ok(address.inPrefix(address.ip("10.0.2.200"), p) && !address.inPrefix(address.ip("10.0.2.127"), p));
    assert.ok(!address.inPrefix(address.ip("::1"), p));
    assert.equal(address.parsePrefix("fd00::1")!.bits, 128);
    for (const text of ["10.0.0.0/33", "10.0.0.0/", "10.0.0/8", "x/8", "1.2.3.4/-1"])
      assert.equal(address.parsePrefix(text), undefined);
    assert.deepEqual(
      ["224.0.0.1", "ff02::1", "10.0.0.1", "fe80::1"].map((t) => address.isMulticast(address.ip(t))),
      [true, true, false, false],
    );
    assert.deepEqual(
      ["fe80::1", "fec0::1", "10.0.0.1"].map((t) => address.isLinkLocal(address.ip(t))),
      [true, false, false],
    );
    assert.equal(address.formatIp(address.linkLocalOf(address.parseMac("02:00:00:00:00:01")!)), "fe80::ff:fe00:1");
    assert.equal(address.formatIp(address.solicitedNodeOf(address.ip("4037::01:800:200e:8c6c"))), "ff02::1:ff0e:8c6c");
    assert.equal(address.formatEndpoint({ address: address.ip("::1"), port: 80 }), "[::1]:80");
  });
  it("knows what is no place outside", () => {
    for (const text of [
      "0.0.0.0",
      "0.1.2.3",
      "127.0.0.1",
      "169.254.169.254",
      "224.0.0.1",
      "255.255.255.255",
      "::",
      "::1",
      "::ffff:127.0.0.1",
      "::127.0.0.1",
      "fe80::1",
      "ff02::1",
    ])
      assert.ok(isNowhere(address.ip(text)), text);
    for (const text of ["1.1.1.1", "10.0.0.1", "192.168.1.1", "2606:4700::1111", "fd00::1"])
      assert.ok(!isNowhere(address.ip(text)), text);
  });
});

describe("the Internet checksum", () => {
  it("is that of RFC 1071's example", () => {
    const b = bytes("0001 f203 f4f5 f6f7");
    assert.equal(fold(addBytes(viewOf(b), 0, b.length, 0)), 0xddf2);
  });
  it("is that of a plain reference, at any place, length and split", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(300), fc.nat(7), (data, cut, shift) => {
        const room = new Uint8Array(data.length + shift);
        room.set(data, shift);
        const even = Math.min(data.length, cut) & ~1;
        const sum = addBytes(viewOf(room), shift, even, 0);
        assert.equal(
          checksumOf(addBytes(viewOf(room), shift + even, data.length - even, sum)) % 0xffff,
          plainChecksum(data) % 0xffff,
        );
      }),
    );
    const most = new Uint8Array(65_535).fill(0xff);
    assert.equal(checksumOf(addBytes(viewOf(most), 0, most.length, 0)), plainChecksum(most));
  });
});

describe("packets", () => {
  it("reads a header from a book: 192.168.0.1 to 192.168.0.199, UDP", () => {
    const frame = bytes("ffffffffffff 020000000001 0800 45000073000040004011b861c0a80001c0a800c7");
    const p = new Packet();
    assert.equal(p.parse(frame, 0, 0), "ip-header"); // its data is not there
    const whole = new Uint8Array(14 + 0x73);
    whole.set(frame);
    assert.equal(p.parse(whole, 0, 0), undefined);
    assert.deepEqual([p.etherType, p.family, p.protocol, p.hopLimit, p.isGroup], [EtherType.IPV4, 4, 17, 64, true]);
    assert.deepEqual([address.formatIp(p.source), address.formatIp(p.destination)], ["192.168.0.1", "192.168.0.199"]);
    whole[24]! ^= 1;
    assert.equal(p.parse(whole, 0, 0), "ip-checksum");
    assert.equal(p.parse(whole, FrameFlags.verified, 0), undefined);
  });

  it("writes what it reads, in both families, with checksums that hold", () => {
    fc.assert(
      fc.property(
        fc.boolean(),
        fc.uint8Array({ minLength: 8, maxLength: 200 }),
        fc.constantFrom(6, 17),
        fc.nat(255),
        fc.boolean(),
        (v6, data, protocol, hopLimit, tagged) => {
          const f = new FrameBuffer(400);
          const source = address.ip(v6 ? "fd00::1" : "10.0.0.1");
          const destination = address.ip(v6 ? "fd00::2" : "10.0.0.2");
          const mac = Uint8Array.of(2, 0, 0, 0, 0, 1);
          const at = writeIp(f, mac, mac, { source, destination, protocol, hopLimit, identification: 5 }, data.length);
          f.bytes.set(data, at);
          const field = protocol === 6 ? 6 : 4;
          writeTransportChecksum(f, source.length, protocol, at, field, data.length, false);
          let frame: Uint8Array = f.bytes.subarray(0, at + data.length);
          if (tagged) frame = Uint8Array.of(...frame.subarray(0, 12), 0x81, 0, 0x60, 7, ...frame.subarray(12));
          const p = new Packet();
          assert.equal(p.parse(frame, 0, 0), undefined);
          assert.deepEqual(
            [p.source, p.destination, p.protocol, p.hopLimit, p.vlan],
            [source, destination, protocol, hopLimit, tagged ? 7 : 0],
          );
          assert.ok(checksumHolds(p.view, p.sourceAt, p.family, protocol, p.payloadAt, p.ipEnd));
          assert.equal(p.ipEnd - p.payloadAt, data.length);
          // every change of a byte but of pairs is seen
          p.bytes[p.payloadAt]! ^= 0x10;
          assert.ok(!checksumHolds(p.view, p.sourceAt, p.family, protocol, p.payloadAt, p.ipEnd));
        },
      ),
    );
  });

  it("refuses what contradicts itself", () => {
    const parse = (hex: string): unknown =>
      new Packet().parse(bytes(`020000000002 020000000001 ${hex}`), FrameFlags.verified, 0);
    assert.equal(parse("08"), "short");
    assert.equal(parse("8100 00"), "short");
    assert.equal(parse("0800 45"), "short");
    assert.equal(parse("86dd 60"), "short");
    const ip4 = (start: string, rest: string): string => `0800 ${start} 0000 0000 4011 0000 0a000001 0a000002 ${rest}`;
    assert.equal(parse(ip4("6500 0014", "")), "ip-header");
    assert.equal(parse(ip4("4400 0014", "")), "ip-header");
    assert.equal(parse(ip4("4600 0014", "")), "ip-header");
    assert.equal(parse(ip4("4500 0013", "")), "ip-header");
    assert.equal(parse(ip4("4500 0015", "")), "ip-header");
    assert.equal(parse(ip4("4500 0014", "")), undefined);
    assert.equal(parse(ip4("4600 0018", "01010100")), undefined);
    assert.equal(parse(ip4("4600 0018", "94040000")), undefined); // router alert
    for (const options of ["83030400", "89030400", "44010000", "44050000", "01010144"])
      assert.equal(parse(ip4("4600 0018", options)), "ip-option", options);
    const ip6 = (length: string, next: string, rest: string): string =>
      `86dd 60000000 ${length} ${next} 40 ${"fd".padEnd(32, "0")} ${"fe".padEnd(32, "0")} ${rest}`;
    assert.equal(parse(ip6("0001", "11", "")), "ip-header");
    assert.equal(parse(ip6("0000", "11", "").replace("60000000", "40000000")), "ip-header");
    assert.equal(parse(ip6("0008", "00", "1100 000000000000")), undefined);
    assert.equal(parse(ip6("0008", "00", "1101 000000000000")), "ip-header"); // longer than the packet
    assert.equal(parse(ip6("0004", "00", "11000000")), "ip-header");
    assert.equal(parse(ip6("0010", "3c", "0000000000000000 1100000000000000")), "ip-header"); // hop-by-hop is first or nowhere
    assert.equal(parse(ip6("0008", "2b", "1100000000000000")), undefined);
    assert.equal(parse(ip6("0008", "2b", "1100000100000000")), "ip-option");
    assert.equal(parse(ip6("0048", "3c", "3c00000000000000".repeat(9))), "ip-header"); // too many
  });

  it("knows fragments, and that an atomic one is none", () => {
    const p = new Packet();
    const frame = (field: string): Uint8Array =>
      bytes(
        `020000000002 020000000001 86dd 60000000 0010 2c 40 ${"fd".padEnd(32, "0")} ${"fe".padEnd(32, "0")} 11 00 ${field} 00000007 0001020304050607`,
      );
    assert.equal(p.parse(frame("0000"), 0, 0), undefined);
    assert.deepEqual([p.isFragment, p.protocol, p.ipEnd - p.payloadAt], [false, 17, 8]);
    assert.equal(p.parse(frame("0011"), 0, 0), undefined);
    assert.deepEqual([p.isFragment, p.moreFragments, p.fragmentOffset, p.identification], [true, true, 16, 7]);
  });

  it("takes the length of a long segment from the frame if the header has none", () => {
    const f = new FrameBuffer(3000);
    const mac = Uint8Array.of(2, 0, 0, 0, 0, 1);
    for (const [a, field] of [
      ["10.0.0.1", 16],
      ["fd00::1", 18],
    ] as const) {
      const source = address.ip(a);
      const at = writeIp(
        f,
        mac,
        mac,
        { source, destination: source, protocol: IpProtocol.TCP, hopLimit: 1, identification: 0 },
        2000,
      );
      f.view.setUint16(field, 0);
      const p = new Packet();
      assert.equal(p.parse(f.bytes.subarray(0, at + 2000), FrameFlags.partialChecksum, 1460), undefined);
      assert.equal(p.ipEnd - p.payloadAt, 2000);
    }
  });
});

describe("TCP headers", () => {
  it("reads the options of a SYN, and stops where they make no sense", () => {
    const h = new TcpHeader();
    const parse = (options: string, flags: number = TcpFlags.SYN): boolean => {
      const o = bytes(options);
      const b = new Uint8Array(20 + o.length);
      b[12] = ((20 + o.length) >> 2) << 4;
      b[13] = flags;
      b.set(o, 20);
      return h.parse(viewOf(b), 0, b.length);
    };
    assert.ok(parse("020405b4 0402 080a0000000000000000 01 030307"));
    assert.deepEqual([h.mss, h.windowScale, h.sackPermitted], [1460, 7, true]);
    assert.ok(parse("0303ff00"));
    assert.equal(h.windowScale, 14); // RFC 7323: more than 14 is 14
    assert.ok(parse("00020405"));
    assert.ok(parse("02000000"));
    assert.ok(parse("02ff0000"));
    assert.ok(parse("01010102"));
    assert.ok(parse("02030500 04030000 03020000".slice(0, 8)));
    assert.deepEqual([h.mss, h.windowScale, h.sackPermitted], [0, -1, false]);
    assert.ok(parse("020405b4", TcpFlags.ACK));
    assert.equal(h.mss, 0);
    const short = viewOf(new Uint8Array(20));
    assert.ok(!h.parse(short, 0, 19));
    assert.ok(!h.parse(short, 0, 20)); // a header of no bytes
    const long = new Uint8Array(20);
    long[12] = 0xf0;
    assert.ok(!h.parse(viewOf(long), 0, 20));
  });
});

describe("DHCP messages", () => {
  it("go through bytes and back", () => {
    const four = fc.uint8Array({ minLength: 4, maxLength: 4 });
    const options = fc.array(fc.tuple(fc.integer({ min: 1, max: 254 }), fc.uint8Array({ maxLength: 60 })), {
      maxLength: 8,
    });
    fc.assert(
      fc.property(
        fc.nat(0xffff_ffff),
        fc.boolean(),
        four,
        four,
        fc.uint8Array({ minLength: 6, maxLength: 6 }),
        options,
        (xid, broadcast, ciaddr, yiaddr, chaddr, list) => {
          const m = {
            op: 1 as const,
            xid,
            secs: 3,
            broadcast,
            ciaddr,
            yiaddr,
            giaddr: Uint8Array.of(0, 0, 0, 0),
            chaddr,
            options: new Map(list),
          };
          assert.deepEqual(parseDhcp(encodeDhcp(m)), m);
        },
      ),
    );
  });
  it("are refused when cut or strange", () => {
    const four = new Uint8Array(4);
    const m = encodeDhcp({
      op: 1,
      xid: 1,
      broadcast: false,
      ciaddr: four,
      yiaddr: four,
      chaddr: new Uint8Array(6),
      options: new Map([[DhcpOption.CLIENT_ID, new Uint8Array(20)]]),
    });
    assert.equal(parseDhcp(m.subarray(0, 239)), undefined);
    assert.equal(parseDhcp(m.subarray(0, 250)), undefined);
    assert.equal(parseDhcp(m.subarray(0, 241)), undefined);
    for (const at of [0, 1, 2, 236]) assert.equal(parseDhcp(m.with(at, 9)), undefined);
    assert.ok(parseDhcp(m.with(240, 0)) !== undefined); // padding
  });
});

describe("DHCPv6 messages", () => {
  it("go through bytes and back, and are refused when cut", () => {
    const option = fc.record(
      { code: fc.nat(0xffff), data: fc.uint8Array({ maxLength: 40 }) },
      { noNullPrototype: true },
    );
    fc.assert(
      fc.property(
        fc.nat(255),
        fc.nat(0xff_ffff),
        fc.array(option, { minLength: 1, maxLength: 6 }),
        (type, transaction, options) => {
          const m = { type, transaction, options };
          const b = encodeDhcpv6(m);
          assert.deepEqual(parseDhcpv6(b), m);
          const whole = new Set([4]);
          for (let at = 4, i = 0; i < options.length; i++) whole.add((at += 4 + options[i]!.data.length));
          for (let n = 0; n < b.length; n++) assert.equal(parseDhcpv6(b.subarray(0, n)) === undefined, !whole.has(n));
        },
      ),
    );
  });
});

describe("router advertisements", () => {
  it("have their options in whole units", () => {
    const ra = encodeRouterAdvertisement({
      mac: new Uint8Array(6),
      prefix: address.ip("fd00::"),
      mtu: 1400,
      dns: address.ip("fd00::3"),
      domain: dns.encodeName("a.example")!,
      lifetimeSeconds: 1800,
    });
    const kinds: number[] = [];
    for (let at = 16; at < ra.length; at += ra[at + 1]! * 8) kinds.push(ra[at]!);
    assert.deepEqual(kinds, [1, 5, 3, 25, 31]);
    assert.deepEqual(linkAddressOption(ra, 16, ra.length, 1), new Uint8Array(6));
    assert.equal(linkAddressOption(ra, 16, ra.length, 2), undefined);
    assert.equal(linkAddressOption(ra.with(17, 0), 16, ra.length, 1), null);
    assert.equal(linkAddressOption(ra, 16, 20, 1), null);
    assert.equal(linkAddressOption(ra.with(17, 99), 16, ra.length, 1), null);
  });
});

describe("DNS messages", () => {
  const name = fc
    .array(fc.stringMatching(/^[a-z0-9-]{1,20}$/), { minLength: 1, maxLength: 5 })
    .map((labels) => labels.join("."));
  it("carry a question there and an answer back", () => {
    fc.assert(
      fc.property(
        name,
        fc.nat(0xffff),
        fc.array(fc.uint8Array({ minLength: 4, maxLength: 4 }), { maxLength: 5 }),
        (n, id, records) => {
          const query = dns.encodeQuery(id, n, dns.DnsType.A);
          const q = dns.parseQuestion(query)!;
          assert.deepEqual([q.name, q.id, q.type, q.isQuery, q.class, q.end], [n, id, 1, true, 1, query.length]);
          const answer = dns.encodeAnswer(query, q, 0, records, 77);
          assert.equal(dns.parseQuestion(answer)!.isQuery, false);
          assert.deepEqual(
            dns.parseAnswers(answer),
            records.map((a) => ({ name: n, type: 1, ttl: 77, address: a })),
          );
        },
      ),
    );
  });
  it("undo compression, of RFC 1035's example, and follow no loops", () => {
    const b = new Uint8Array(93);
    b.set(bytes("0146 0349534904 41525041 00".replace(/ /g, "")), 20); // F.ISI.ARPA
    b.set(bytes("03464f4f c014".replace(/ /g, "")), 40); // FOO.F.ISI.ARPA
    b.set(bytes("c01a"), 64); // ARPA
    assert.deepEqual(dns.readName(b, 20), { text: "f.isi.arpa", end: 32 });
    assert.deepEqual(dns.readName(b, 40), { text: "foo.f.isi.arpa", end: 46 });
    assert.deepEqual(dns.readName(b, 64), { text: "arpa", end: 66 });
    assert.deepEqual(dns.readName(b, 92), { text: "", end: 93 });
    for (const hex of ["c000", "c005", "c0", "03414243", "80", "40", "", `3f${"41".repeat(63)}`.repeat(4)])
      assert.equal(dns.readName(bytes(hex), 0), undefined, hex);
    assert.deepEqual(dns.readName(bytes("04 2e 5c 20 7e 00".replace(/ /g, "")), 0), {
      text: "\\046\\092\\032~",
      end: 6,
    });
  });
  it("are looked into as far as they make sense", () => {
    const query = dns.encodeQuery(1, "a.b", 1);
    const q = dns.parseQuestion(query)!;
    const answer = dns.encodeAnswer(query, q, 0, [new Uint8Array(4)], 1);
    for (let n = 0; n < answer.length; n++) assert.deepEqual(dns.parseAnswers(answer.subarray(0, n)), []);
    assert.equal(dns.parseQuestion(query.with(5, 2)), undefined);
    assert.equal(dns.encodeName("a..b"), undefined);
    assert.equal(dns.encodeName("a".repeat(64)), undefined);
    assert.equal(dns.encodeName(`${"a".repeat(60)}.`.repeat(5).slice(0, -1)), undefined);
    assert.equal(dns.reverseName(address.ip("10.0.2.2")), "2.2.0.10.in-addr.arpa");
    assert.equal(
      dns.reverseName(address.ip("2001:db8::567:89ab")),
      "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
    );
  });
});

describe("the configuration", () => {
  it("is worked out from what is said", () => {
    const n = workOut({ ipv4: "192.168.7.9/24", ipv6: "fd12::/64", longSegments: false });
    assert.deepEqual([n.gateway4, n.dns4, n.firstLease, n.broadcast4, n.gateway6].map(address.formatIp), [
      "192.168.7.2",
      "192.168.7.3",
      "192.168.7.15",
      "192.168.7.255",
      "fd12::2",
    ]);
    assert.equal(n.longSegment, 0);
    assert.equal(workOut({ ipv6: false }).ipv6, undefined);
    assert.equal(address.formatIp(workOut({ ipv4: "10.0.0.0/28" }).firstLease), "10.0.0.4");
    for (const bad of [
      { ipv4: "10.0.0.0/29" },
      { ipv4: "x" },
      { ipv4: "fd00::/64" },
      { ipv6: "fd00::/48" },
      { ipv6: "10.0.0.0/24" },
      { mac: "01:00:00:00:00:00" },
      { mac: "x" },
      { mtu: 1000 },
      { mtu: 1500.5 },
      { mtu: 70_000 },
    ])
      assert.throws(() => workOut(bad), NatConfigError);
  });
});
