/** Datagrams, the name server, the allow list and published ports; by the message. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ANY_IPV4, BROADCAST_MAC, type Endpoint, formatIp, type IpAddress, ip } from "./address.js";
import { DhcpOption, DhcpType, encodeDhcp } from "./dhcp.js";
import * as dns from "./dns.js";
import { type Flow, FlowTable } from "./flow-table.js";
import { EgressPolicy, PolicyError } from "./policy.js";
import { PublishError, type PublishedPort, type PublishSpec, parsePublish } from "./publish.js";
import { digest, noise, type ScriptedNetwork, scriptedNetwork } from "./scripted-network.js";

const SECOND = 1e9;
const { A, AAAA, PTR, CNAME } = { ...dns.DnsType };
const text = (s: string): Uint8Array => new TextEncoder().encode(s);

describe("datagrams of guests", () => {
  it("go out and come back, in both families and from the gateway's loopback", () => {
    const n = scriptedNetwork();
    for (const where of ["1.1.1.1:7", "[2606:4700::1111]:7", "127.0.0.1:7", "[::1]:7"])
      n.world.outside.udp.set(where, (bytes, reply) => reply(Uint8Array.of(...bytes, where.length)));
    for (const to of ["1.1.1.1", "2606:4700::1111", "10.0.2.2", "fd65:6e6c:6967:2::2"])
      n.guest.sendUdp(5000, to, 7, text("x"));
    n.world.settle();
    assert.deepEqual(
      n.guest.udp.map((d) => [d.from, d.data[1]]),
      [
        ["1.1.1.1:7", 9],
        ["[2606:4700::1111]:7", 19],
        ["10.0.2.2:7", 11],
        ["[fd65:6e6c:6967:2::2]:7", 7],
      ],
    );
    assert.equal(n.nat.holdings.udp, 4);
    assert.equal(n.guest.badChecksums, 0);
    assert.equal(n.nat.flows()[0]!.protocol, "udp");
  });
  it("are put together from fragments, and cut into them", () => {
    for (const to of ["1.1.1.1", "2606:4700::1111"]) {
      const n = scriptedNetwork({ partialChecksums: false });
      const where = to.includes(":") ? `[${to}]:7` : `${to}:7`;
      const data = noise(5000, 1);
      let got: Uint8Array | undefined;
      n.world.outside.udp.set(where, (bytes, reply) => {
        got = bytes;
        reply(bytes);
      });
      n.guest.sendUdp(5000, to, 7, data);
      n.world.settle();
      assert.equal(digest([got!]), digest([data]));
      // back in fragments of the MTU: the router's own reassembly, by a second network, reads them
      n.guest.frames = [];
      n.guest.sendUdp(5000, to, 7, data);
      n.world.settle();
      assert.ok(n.guest.frames.length >= 4);
      assert.ok(n.guest.frames.every((f) => f.bytes.length <= 1514));
      const other = scriptedNetwork();
      let back: Uint8Array | undefined;
      for (const f of n.guest.frames.reverse()) {
        // turned round: from the guest to the server
        const v6 = f.bytes[12] === 0x86;
        const [s, l] = v6 ? [22, 16] : [26, 4];
        const source = f.bytes.slice(s, s + l);
        f.bytes.copyWithin(s, s + l, s + 2 * l);
        f.bytes.set(source, s + l);
        f.bytes.set(n.guest.router, 0);
        f.bytes.set(n.guest.mac, 6);
        other.guest.transmit(f.bytes);
      }
      assert.equal(other.nat.holdings.fragments, 0);
      other.world.outside.udp.set(`${to.includes(":") ? `[${to}]` : to}:5000`, (bytes) => {
        back = bytes;
      });
      other.world.settle();
      assert.equal(digest([back!]), digest([data]));
    }
  });
  it("are told of ports where nobody listens", () => {
    const n = scriptedNetwork();
    n.world.outside.errors.set("[2606:4700::1111]:9", "no-route");
    n.world.outside.errors.set("1.1.1.1:10", "other");
    n.guest.sendUdp(5000, "1.1.1.1", 9, text("x"));
    n.guest.sendUdp(5000, "2606:4700::1111", 9, text("x"));
    n.guest.sendUdp(5000, "10.0.2.3", 99, text("x"));
    n.guest.sendUdp(5000, "1.1.1.1", 10, text("x"));
    n.world.settle();
    assert.deepEqual(n.guest.icmp.map((m) => [m.type, m.code]).sort(), [
      [1, 0],
      [3, 3],
      [3, 3],
    ]);
  });
  it("end when nothing comes for a while, the oldest first if there are too many", () => {
    const n = scriptedNetwork({ maxUdp: 10, udpIdleSeconds: 30 });
    for (let i = 0; i < 25; i++) {
      n.guest.sendUdp(5000 + i, "1.1.1.1", 9, text("x"));
      n.world.run(1000);
    }
    assert.deepEqual([n.nat.holdings.udp, n.world.outside.udpSockets], [10, 10]);
    assert.ok(n.nat.flows().every((f) => Number(f.guest.split(":")[1]) >= 5015));
    n.world.run(29 * SECOND);
    n.guest.sendUdp(5024, "1.1.1.1", 9, text("x"));
    n.world.run(10 * SECOND);
    assert.equal(n.nat.holdings.udp, 1);
    n.world.run(30 * SECOND);
    assert.deepEqual(
      [n.nat.holdings.udp, n.world.outside.udpSockets, n.nat.nextDeadline()],
      [0, 0, Number.POSITIVE_INFINITY],
    );
  });
  it("are lost where the guest has no room, and counted", () => {
    const n = scriptedNetwork();
    n.world.outside.udp.set("1.1.1.1:7", (bytes, reply) => reply(bytes));
    n.guest.capacity = 0;
    n.guest.sendUdp(5000, "1.1.1.1", 7, text("x"));
    n.world.settle();
    assert.equal(n.nat.statistics.dropped.get("no-room"), 1);
  });
  it("that are too long for a packet are lost; long ones are not", () => {
    const n = scriptedNetwork();
    n.world.outside.udp.set("1.1.1.1:7", (_bytes, reply) => reply(noise(65_508, 1)));
    n.guest.sendUdp(5000, "1.1.1.1", 7, text("x"));
    n.world.settle();
    assert.equal(n.nat.statistics.dropped.get("no-room"), 1);
    n.world.outside.udp.set("1.1.1.1:7", (_bytes, reply) => reply(noise(65_507, 1)));
    n.guest.frames = [];
    n.guest.sendUdp(5000, "1.1.1.1", 7, text("x"));
    n.world.settle();
    assert.equal(n.guest.frames.length, 45);
    // without room in the middle of it
    n.guest.capacity = 10;
    n.guest.sendUdp(5000, "1.1.1.1", 7, text("x"));
    n.world.settle();
    assert.equal(n.nat.statistics.dropped.get("no-room"), 2);
  });
  it("end with the guest that is reset, not with others", () => {
    const n = scriptedNetwork({}, { guests: 2 });
    n.world.outside.tcp.set("1.1.1.1:80", () => {});
    for (const g of n.guests) {
      g.sendUdp(5000, "1.1.1.1", 7, text("x"));
      g.connect("1.1.1.1", 80);
    }
    n.world.settle();
    n.nat.disconnect(n.guests[0]!.mac);
    assert.deepEqual(
      n.nat.flows().map((f) => `${f.protocol} ${f.guest}`),
      ["tcp 10.0.2.16:40000", "udp 10.0.2.16:5000"],
    );
  });
  it("with lengths that lie are dropped", () => {
    const n = scriptedNetwork();
    const transmit = n.guest.transmit.bind(n.guest);
    for (const length of [0, 7, 200]) {
      n.guest.transmit = (frame) => {
        const f = frame.slice();
        f[39] = length;
        return transmit(f, 2);
      };
      n.guest.sendUdp(5000, "1.1.1.1", 7, text("x"));
    }
    n.guest.transmit = transmit;
    n.guest.sendUdp(5000, "1.1.1.1", 0, text("x"));
    assert.equal(n.nat.statistics.dropped.get("transport-header"), 4);
  });
});

/** One query by datagram. */
function ask(n: ScriptedNetwork, name: string, type: number, server = "10.0.2.3") {
  n.guest.udp.length = 0;
  n.guest.sendUdp(5353, server, 53, dns.encodeQuery(77, name, type));
  n.world.run(30 * SECOND, () => n.guest.udp.length > 0);
  const data = n.guest.udp[0]?.data;
  if (data === undefined) return undefined;
  assert.equal((data[0]! << 8) | data[1]!, 77);
  return { code: data[3]! & 15, records: dns.parseAnswers(data), data };
}
const addresses = (r: ReturnType<typeof ask>): string[] =>
  r!.records.flatMap((x) => (x.address ? [formatIp(x.address)] : []));

/** A name server outside. */
function nameServer(n: ScriptedNetwork, where: string, zone: Record<string, IpAddress[]>): string[] {
  const asked: string[] = [];
  n.world.outside.udp.set(where, (bytes, reply) => {
    const q = dns.parseQuestion(bytes)!;
    asked.push(q.name);
    const found = zone[q.name];
    reply(
      dns.encodeAnswer(
        bytes,
        q,
        found === undefined ? 3 : 0,
        (found ?? []).filter((a) => a.length === (q.type === A ? 4 : 16)),
        30,
      ),
    );
  });
  return asked;
}

describe("the name server", () => {
  it("passes queries on to the host's servers, the next when one is silent", () => {
    const n = scriptedNetwork();
    n.world.outside.dnsServers = [
      { address: ip("9.9.9.9"), port: 53 },
      { address: ip("8.8.8.8"), port: 53 },
    ];
    n.world.outside.errors.set("9.9.9.9:53", "silent");
    nameServer(n, "8.8.8.8:53", { "www.example": [ip("5.6.7.8"), ip("2001:db8::5")] });
    assert.deepEqual(addresses(ask(n, "www.example", A)), ["5.6.7.8"]);
    assert.deepEqual(addresses(ask(n, "www.example", AAAA, "fd65:6e6c:6967:2::3")), ["2001:db8::5"]);
    assert.equal(ask(n, "nothing.example", A)!.code, 3);
    n.world.outside.errors.set("9.9.9.9:53", "refused");
    n.world.outside.errors.set("8.8.8.8:53", "silent");
    assert.equal(ask(n, "www.example", A)!.code, 2);
    assert.equal(n.nat.statistics.dnsFailed, 1);
    assert.deepEqual([n.nat.holdings.dns, n.world.outside.udpSockets], [0, 0]);
  });
  it("takes answers to its own question alone, and gives it back as it was written", () => {
    const n = scriptedNetwork();
    n.world.outside.dnsServers = [{ address: ip("9.9.9.9"), port: 53 }];
    n.world.outside.udp.set("9.9.9.9:53", (bytes, reply) => {
      const q = dns.parseQuestion(bytes)!;
      const good = dns.encodeAnswer(bytes, q, 0, [ip("1.2.3.4")], 1);
      const lower = dns.encodeQuery(q.id, "mixed.example", A);
      reply(good.with(0, good[0]! ^ 1));
      reply(bytes);
      const other = dns.encodeQuery(q.id, "other.example", A);
      reply(dns.encodeAnswer(other, dns.parseQuestion(other)!, 0, [ip("6.6.6.6")], 1));
      reply(Uint8Array.of(1, 2, 3));
      reply(dns.encodeAnswer(lower, dns.parseQuestion(lower)!, 0, [ip("1.2.3.4")], 1));
    });
    n.guest.sendUdp(5353, "10.0.2.3", 53, dns.encodeQuery(77, "MiXed.example", A));
    n.world.settle();
    assert.equal(n.guest.udp.length, 1);
    assert.deepEqual(
      dns.parseAnswers(n.guest.udp[0]!.data).map((r) => formatIp(r.address!)),
      ["1.2.3.4"],
    );
    assert.match(String.fromCharCode(...n.guest.udp[0]!.data), /MiXed/);
  });
  it("knows the host, itself and the guests by name, and back", () => {
    const n = scriptedNetwork();
    const message = encodeDhcp({
      op: 1,
      xid: 1,
      broadcast: false,
      ciaddr: ANY_IPV4,
      yiaddr: ANY_IPV4,
      chaddr: n.guest.mac,
      options: new Map([
        [DhcpOption.MESSAGE_TYPE, Uint8Array.of(DhcpType.REQUEST)],
        [DhcpOption.REQUESTED_ADDRESS, ip("10.0.2.15")],
        [DhcpOption.HOST_NAME, text("alpha")],
      ]),
    });
    n.guest.sendUdp(68, "255.255.255.255", 67, message, { from: ANY_IPV4, mac: BROADCAST_MAC });
    n.world.settle();
    assert.deepEqual(addresses(ask(n, "host.enlighten.internal", A)), ["10.0.2.2"]);
    assert.deepEqual(addresses(ask(n, "HOST.enlighten.internal", A)), ["10.0.2.2"]);
    const none = ask(n, "host.enlighten.internal", AAAA)!;
    assert.deepEqual([none.code, none.records.length], [0, 0]);
    assert.deepEqual(addresses(ask(n, "dns.enlighten.internal", AAAA)), ["fd65:6e6c:6967:2::3"]);
    assert.deepEqual(addresses(ask(n, "alpha.enlighten.internal", A)), ["10.0.2.15"]);
    assert.equal(ask(n, "beta.enlighten.internal", A)!.code, 3);
    assert.equal(ask(n, "enlighten.internal", A)!.code, 0);
    const reverse = (a: string): string | number => {
      const r = ask(n, dns.reverseName(ip(a)), PTR)!;
      if (r.code !== 0) return r.code;
      const q = dns.parseQuestion(r.data)!;
      return dns.readName(r.data, q.end + 12)!.text;
    };
    assert.equal(reverse("10.0.2.2"), "host.enlighten.internal");
    assert.equal(reverse("10.0.2.3"), "dns.enlighten.internal");
    assert.equal(reverse("10.0.2.15"), "alpha.enlighten.internal");
    assert.equal(reverse("10.0.2.99"), 3);
    assert.equal(reverse("fd65:6e6c:6967:2::2"), "host.enlighten.internal");
    assert.equal(reverse("fd65:6e6c:6967:2::99"), 3);
    assert.equal(ask(n, dns.reverseName(ip("10.0.2.2")), A)!.records.length, 0);
  });
  it("has no addresses of a family that the network is without", () => {
    const n = scriptedNetwork({ ipv6: false });
    assert.deepEqual(addresses(ask(n, "dns.enlighten.internal", AAAA)), []);
    assert.deepEqual(addresses(ask(n, "dns.enlighten.internal", A)), ["10.0.2.3"]);
  });
  it("asks by the host's own means where there are no servers", () => {
    const n = scriptedNetwork();
    n.world.outside.names.set("www.example", [ip("5.6.7.8"), ip("2001:db8::5")]);
    assert.deepEqual(addresses(ask(n, "www.example", A)), ["5.6.7.8"]);
    assert.deepEqual(addresses(ask(n, "www.example", AAAA)), ["2001:db8::5"]);
    assert.equal(ask(n, "nothing.example", A)!.code, 3);
    assert.equal(ask(n, "www.example", 16)!.code, 4);
    n.world.outside.resolve = (_name, _family, done) =>
      n.world.outside.soon(() => done({ code: "other", message: "" }));
    assert.equal(ask(n, "www.example", A)!.code, 2);
    n.world.outside.resolve = () => {};
    assert.equal(ask(n, "www.example", A)!.code, 2);
  });
  it("answers over TCP, several questions in one connection, and goes on asking over TCP", () => {
    const n = scriptedNetwork();
    n.world.outside.dnsServers = [
      { address: ip("9.9.9.9"), port: 53 },
      { address: ip("8.8.8.8"), port: 53 },
    ];
    n.world.outside.errors.set("9.9.9.9:53", "refused");
    n.world.outside.tcp.set("8.8.8.8:53", (far) => {
      far.onData = (bytes) => {
        const query = bytes.slice(2);
        const q = dns.parseQuestion(query)!;
        if (q.name === "closes.example") {
          far.end();
          return;
        }
        const big = dns.encodeAnswer(
          query,
          q,
          0,
          Array.from({ length: 100 }, (_, i) => Uint8Array.of(1, 2, 3, i)),
          1,
        );
        const framed = Uint8Array.of(big.length >> 8, big.length & 255, ...big);
        far.write(framed.subarray(0, 5));
        far.write(framed.subarray(5));
      };
    });
    const c = n.guest.connect("10.0.2.3", 53);
    n.world.settle();
    const query = (name: string): Uint8Array => {
      const q = dns.encodeQuery(9, name, A);
      return Uint8Array.of(q.length >> 8, q.length & 255, ...q);
    };
    const both = Uint8Array.of(...query("host.enlighten.internal"), ...query("big.example"), 0, 3, 1, 2, 3);
    c.send(both.subarray(0, 10));
    c.send(both.subarray(10));
    c.endpoint.shutdown();
    n.world.run(60 * SECOND, () => c.ended);
    const all = Uint8Array.from(c.received.flatMap((b) => [...b]));
    const first = (all[0]! << 8) | all[1]!;
    assert.deepEqual(
      dns.parseAnswers(all.subarray(2, 2 + first)).map((r) => formatIp(r.address!)),
      ["10.0.2.2"],
    );
    assert.equal(dns.parseAnswers(all.subarray(4 + first)).length, 100);
    n.world.run(10 * SECOND);
    assert.equal(c.closed, "done");
    const d = n.guest.connect("10.0.2.3", 53);
    n.world.settle();
    d.send(query("closes.example"));
    n.world.run(60 * SECOND, () => d.bytes > 0);
    assert.equal(d.received[0]![5]! & 15, 2);
    // 33 questions at once are too many
    const e = n.guest.connect("10.0.2.3", 53);
    n.world.settle();
    n.world.outside.errors.set("8.8.8.8:53", "silent");
    for (let i = 0; i < 33; i++) e.send(query(`n${i}.example`));
    n.world.settle();
    assert.equal(e.closed, "reset");
    // other ports of the name server are closed
    const f = n.guest.connect("10.0.2.3", 80);
    n.world.settle();
    assert.equal(f.closed, "refused");
  });
  it("says what it does not do, and nothing to what is no question", () => {
    const n = scriptedNetwork();
    const query = dns.encodeQuery(77, "a.example", A);
    n.guest.sendUdp(1, "10.0.2.3", 53, query.with(2, 0x11)); // an inverse query
    n.guest.sendUdp(1, "10.0.2.3", 53, query.with(2, 0x81)); // an answer
    n.guest.sendUdp(1, "10.0.2.3", 53, query.subarray(0, 13));
    n.world.settle();
    assert.deepEqual(
      n.guest.udp.map((d) => d.data[3]! & 15),
      [4],
    );
    n.world.outside.dnsServers = [{ address: ip("9.9.9.9"), port: 53 }];
    n.world.outside.errors.set("9.9.9.9:53", "silent");
    for (let i = 0; i < 300; i++) n.guest.sendUdp(2000 + i, "10.0.2.3", 53, query);
    n.world.settle();
    assert.equal(n.nat.holdings.dns, 256);
    assert.equal(n.guest.udp.length, 1 + 44);
    n.nat.disconnect();
    assert.equal(n.nat.holdings.dns, 0);
  });
});

describe("the allow list", () => {
  it("is read, and refused where it makes no sense", () => {
    for (const list of [
      ["none", "1.2.3.4"],
      ["1.2.3.4:0"],
      ["1.2.3.4:70000"],
      ["*"],
      ["a.*.b"],
      ["1.2.3"],
      ["10.0.0.0/33"],
      ["[::1"],
      ["[host]:80"],
      ["a b"],
      [":80"],
      ["1.2.3.4:x"],
    ])
      assert.throws(() => new EgressPolicy(list), PolicyError, list.join());
    const p = new EgressPolicy([
      "10.0.0.0/8:443",
      "1.2.3.4",
      "[2001:db8::/32]:80",
      "fd00::1",
      "Example.com.",
      "*.example.org:80",
      " ",
    ]);
    const g = ip("10.0.2.15");
    const allows = (a: string, port: number): boolean => p.allows(g, ip(a), port, 0);
    assert.deepEqual(
      [allows("10.9.9.9", 443), allows("10.9.9.9", 80), allows("1.2.3.4", 5), allows("1.2.3.5", 5)],
      [true, false, true, false],
    );
    assert.deepEqual(
      [allows("2001:db8:9::1", 80), allows("2001:db8:9::1", 81), allows("fd00::1", 9)],
      [true, false, true],
    );
    assert.deepEqual(
      ["example.com", "www.example.com", "ftp.example.org", "example.org", ".example.org", "xexample.org"].map((x) =>
        p.allowsName(x),
      ),
      [true, false, true, false, false, false],
    );
    assert.ok(new EgressPolicy(undefined).allows(g, g, 1, 0) && new EgressPolicy(undefined).allowsName("x"));
    assert.ok(!new EgressPolicy(["none"]).allows(g, g, 1, 0) && !new EgressPolicy([]).allowsName("x"));
  });

  it("opens what names lead to, for who asked and as long as they may be used", () => {
    const n = scriptedNetwork(
      { allow: ["*.example:80", "1.1.1.1:443", "host.enlighten.internal:8080"] },
      { guests: 2 },
    );
    n.world.outside.dnsServers = [{ address: ip("9.9.9.9"), port: 53 }];
    nameServer(n, "9.9.9.9:53", {
      "www.example": [ip("5.6.7.8")],
      "evil.test": [ip("6.6.6.6")],
      "inside.example": [ip("10.0.2.2")],
    });
    const tryIt = (to: string, port: number, guest = n.guest): string => {
      n.world.outside.tcp.set(`${to === "10.0.2.2" ? "127.0.0.1" : to}:${port}`, () => {});
      const c = guest.connect(to, port);
      n.world.settle();
      return c.connected ? "open" : (c.closed ?? "nothing");
    };
    assert.equal(tryIt("5.6.7.8", 80), "refused");
    assert.deepEqual(addresses(ask(n, "www.example", A)), ["5.6.7.8"]);
    assert.equal(tryIt("5.6.7.8", 80), "open");
    assert.equal(tryIt("5.6.7.8", 81), "refused");
    assert.equal(tryIt("5.6.7.8", 80, n.guests[1]!), "refused");
    assert.equal(ask(n, "evil.test", A)!.code, 5);
    assert.equal(tryIt("1.1.1.1", 443), "open");
    assert.equal(tryIt("10.0.2.2", 8080), "open");
    assert.equal(tryIt("10.0.2.2", 22), "refused");
    assert.deepEqual(addresses(ask(n, "inside.example", A)), ["10.0.2.2"]);
    assert.equal(tryIt("10.0.2.2", 80), "refused", "a name outside does not open the host");
    n.guest.sendUdp(1, "6.6.6.6", 9, text("x"));
    n.world.settle();
    assert.deepEqual(
      n.guest.icmp.map((m) => [m.type, m.code]),
      [[3, 13]],
    );
    assert.deepEqual(
      n.refusals.map((r) => `${r.protocol} ${r.to}`),
      [
        "tcp 5.6.7.8:80",
        "tcp 5.6.7.8:81",
        "tcp 5.6.7.8:80",
        "dns evil.test",
        "tcp 10.0.2.2:22",
        "tcp 10.0.2.2:80",
        "udp 6.6.6.6:9",
      ],
    );
    assert.equal(n.nat.statistics.refused, 7);
    n.world.run(331 * SECOND);
    assert.equal(tryIt("5.6.7.8", 80), "refused");
    n.nat.setAllowed(undefined);
    assert.equal(tryIt("5.6.7.8", 80), "open");
    n.nat.setAllowed(["none"]);
    assert.equal(tryIt("5.6.7.8", 80), "refused");
    assert.deepEqual(n.nat.save().allow, ["none"]);
  });

  it("follows aliases from the name asked for, not strangers in the answer", () => {
    const p = new EgressPolicy(["www.example"]);
    const g = ip("10.0.2.15");
    const query = dns.encodeQuery(1, "www.example", A);
    const record = (name: string, type: number, data: Uint8Array): number[] => [
      ...dns.encodeName(name)!,
      0,
      type,
      0,
      1,
      0,
      0,
      0,
      60,
      0,
      data.length,
      ...data,
    ];
    const answer = Uint8Array.from([
      ...dns.encodeAnswer(query, dns.parseQuestion(query)!, 0, [], 0),
      ...record("www.example", CNAME, dns.encodeName("cdn.test")!),
      ...record("cdn.test", A, ip("5.5.5.5")),
      ...record("stranger.test", A, ip("6.6.6.6")),
    ]);
    answer[7] = 3;
    p.watch(g, answer, 0);
    assert.ok(p.allows(g, ip("5.5.5.5"), 80, 0));
    assert.ok(!p.allows(g, ip("6.6.6.6"), 80, 0));
    p.watch(g, Uint8Array.of(1), 0);
    // what it remembers is bounded, the oldest go
    const many = dns.encodeAnswer(
      query,
      dns.parseQuestion(query)!,
      0,
      Array.from({ length: 256 }, (_, i) => Uint8Array.of(7, 7, 7, i)),
      60,
    );
    for (let i = 0; i < 6; i++)
      p.watch(
        g,
        many.map((b, at) => (at > 40 && b === 7 ? 10 + i : b)),
        0,
      );
    assert.ok(!p.allows(g, ip("5.5.5.5"), 80, 0));
    for (let i = 0; i < 300; i++) p.watch(ip(`10.1.${i >> 8}.${i & 255}`), many, 0);
    assert.ok(!p.allows(g, ip("15.15.15.5"), 80, 0));
  });
});

describe("flows by their ends", () => {
  it("are found and taken out, even where their hashes are the same", () => {
    const table = new FlowTable<Flow>(1);
    const end = (port: number): Endpoint => ({ address: ip("10.0.2.15"), port });
    const flows = Array.from(
      { length: 4 },
      (): Flow => ({ guest: end(1), remote: end(2), mac: new Uint8Array(6), hash: 0, nextInBucket: undefined }),
    );
    for (const f of flows) table.add(f);
    assert.equal(table.get(end(1), end(2)), flows[3]);
    table.remove(flows[1]!);
    table.remove(flows[1]!);
    assert.deepEqual([table.size, [...table].length], [3, 3]);
    table.remove(flows[3]!);
    assert.equal(table.get(end(1), end(2)), flows[2]);
    table.remove(flows[0]!);
    table.remove(flows[2]!);
    table.remove(flows[2]!);
    assert.deepEqual([table.size, table.get(end(1), end(2)), [...table]], [0, undefined, []]);
  });
});

describe("published ports", () => {
  function publish(n: ScriptedNetwork, spec: PublishSpec): PublishedPort | PublishError {
    let out: PublishedPort | PublishError | undefined;
    n.nat.publish(spec, (result) => {
      out = result;
    });
    n.world.settle();
    return out!;
  }
  const rule = { protocol: "tcp", hostPort: 8080, guestPort: 80 } as const;

  it("are written as on a command line", () => {
    assert.deepEqual(parsePublish("8080:80"), rule);
    assert.deepEqual(parsePublish("0.0.0.0:0:53/udp"), {
      protocol: "udp",
      hostAddress: "0.0.0.0",
      hostPort: 0,
      guestPort: 53,
    });
    assert.deepEqual(parsePublish("[::1]:8080:80/tcp"), { ...rule, hostAddress: "::1" });
    for (const bad of ["", "80", "80:", ":80", "x:80", "80:0", "70000:80", "80:70000", "80:80/sctp", "1:2:3:4"])
      assert.throws(() => parsePublish(bad), PublishError, bad);
  });
  it("lead to the guest, from the gateway's address", () => {
    const n = scriptedNetwork();
    n.guest.announce();
    const p = publish(n, rule) as PublishedPort;
    assert.deepEqual(p, {
      id: 1,
      protocol: "tcp",
      host: "127.0.0.1:8080",
      hostPort: 8080,
      guest: "10.0.2.15:80",
      connections: 0,
    });
    const data = noise(500_000, 1);
    let from = "";
    n.guest.listening.set(80, (c) => {
      from = formatIp(c.remote.address);
      c.onBytes = (bytes) => c.send(bytes);
      c.onPeerEnd = () => c.endpoint.shutdown();
    });
    const far = n.world.outside.dial("127.0.0.1:8080")!;
    far.write(data);
    far.end();
    assert.ok(n.world.run(10 * SECOND, () => far.ended));
    assert.equal(digest(far.received), digest([data]));
    assert.equal(from, "10.0.2.2");
    n.world.run(10 * SECOND);
    assert.deepEqual([n.nat.holdings.tcp, n.nat.holdings.sockets], [0, 0]);
    assert.equal(n.nat.published[0]!.connections, 1);
    assert.ok(n.nat.unpublish(1) && !n.nat.unpublish(1));
    assert.equal(n.world.outside.dial("127.0.0.1:8080"), undefined);
    assert.deepEqual(n.nat.published, []);
  });
  it("hold a connection until the guest is up and listens", () => {
    const n = scriptedNetwork();
    publish(n, rule);
    n.guest.answersArp = false;
    const far = n.world.outside.dial("127.0.0.1:8080")!;
    far.write(text("hello"));
    n.world.run(5 * SECOND);
    assert.deepEqual(
      n.nat.flows().map((f) => [f.state, f.direction]),
      [["waiting", "in"]],
    );
    n.guest.answersArp = true;
    n.guest.announce(); // up, but nothing listens: it is refused
    n.world.run(3 * SECOND);
    assert.ok(!far.dropped);
    let got = "";
    n.guest.listening.set(80, (c) => {
      c.onBytes = (bytes) => {
        got += new TextDecoder().decode(bytes);
      };
    });
    n.world.run(SECOND);
    assert.equal(got, "hello");
    // once it has answered, a refusal is one
    n.guest.listening.clear();
    const second = n.world.outside.dial("127.0.0.1:8080")!;
    n.world.settle();
    assert.ok(second.dropped && second.wasReset);
  });
  it("reset a connection after a while, or when its client goes", () => {
    const n = scriptedNetwork({ holdSeconds: 10 });
    publish(n, rule);
    n.guest.answersArp = false;
    const far = n.world.outside.dial("127.0.0.1:8080")!;
    const gone = n.world.outside.dial("127.0.0.1:8080")!;
    n.world.settle();
    gone.reset();
    n.world.settle();
    assert.equal(n.nat.holdings.tcp, 1);
    n.world.run(11 * SECOND);
    assert.ok(far.wasReset);
    assert.deepEqual([n.nat.holdings.tcp, n.nat.holdings.sockets], [0, 0]);
    // a guest that answers ARP and nothing else
    n.guest.announce();
    n.guest.listening.set(80, () => {});
    n.guest.transmit = () => true;
    const silent = n.world.outside.dial("127.0.0.1:8080")!;
    n.world.run(11 * SECOND);
    assert.ok(silent.wasReset);
    const waiting = n.world.outside.dial("127.0.0.1:8080")!;
    n.world.settle();
    n.nat.close();
    assert.ok(waiting.wasReset);
    assert.deepEqual(
      [n.nat.holdings.tcp, n.nat.holdings.sockets, n.nat.nextDeadline()],
      [0, 0, Number.POSITIVE_INFINITY],
    );
  });
  it("have codes for what is wrong", () => {
    const n = scriptedNetwork();
    n.world.outside.errors.set("127.0.0.1:22", "no-permission");
    n.world.outside.errors.set("192.0.2.1:8080", "no-address");
    n.world.outside.errors.set("127.0.0.1:1", "other");
    publish(n, rule);
    const code = (spec: Partial<PublishSpec>): string => {
      const e = publish(n, { ...rule, ...spec });
      assert.ok(e instanceof PublishError);
      assert.ok(e.hint !== "");
      return e.code;
    };
    assert.equal(code({}), "port-in-use");
    assert.equal(code({ hostPort: 22 }), "no-permission");
    assert.equal(code({ hostAddress: "192.0.2.1" }), "no-address");
    assert.equal(code({ hostPort: 1 }), "failed");
    assert.equal(code({ hostPort: 70_000 }), "bad-port");
    assert.equal(code({ guestPort: 0 }), "bad-port");
    assert.equal(code({ hostAddress: "localhost" }), "bad-address");
    assert.equal(code({ guestAddress: "192.168.0.1" }), "bad-address");
    assert.equal(code({ guestAddress: "guest" }), "bad-address");
    assert.equal(n.nat.published.length, 1);
    const free = publish(n, { ...rule, hostPort: 0, guestAddress: "10.0.2.16" }) as PublishedPort;
    assert.ok(free.hostPort >= 40_000 && free.guest === "10.0.2.16:80");
  });
  it("lead datagrams to the guest, each peer by a port of its own, and answers back", () => {
    const n = scriptedNetwork();
    publish(n, { protocol: "udp", hostPort: 5000, guestPort: 7 });
    assert.ok(publish(n, { protocol: "udp", hostPort: 5000, guestPort: 7 }) instanceof PublishError);
    const { events, sent } = n.world.outside.bound.get("127.0.0.1:5000")!;
    const peer = (port: number) => ({ address: ip("127.0.0.1"), port });
    events.onDatagram(text("lost"), peer(1)); // the guest is not known yet
    n.world.settle();
    events.onDatagram(text("a"), peer(1));
    events.onDatagram(text("b"), peer(2));
    events.onDatagram(text("c"), peer(1));
    n.world.settle();
    const [a, b, c] = n.guest.udp;
    assert.ok(a!.from === c!.from && a!.from !== b!.from && a!.to === "10.0.2.15:7");
    n.guest.sendUdp(7, "10.0.2.2", Number(b!.from.split(":")[1]), text("answer"));
    n.world.settle();
    assert.deepEqual(
      sent.map((s) => s.to),
      ["127.0.0.1:2"],
    );
    assert.equal(n.nat.published[0]!.connections, 2);
    assert.ok(n.nat.unpublish(n.nat.published[0]!.id));
    assert.equal(n.nat.holdings.udp, 0);
    events.onDatagram(text("d"), peer(1));
    events.onError({ code: "other", message: "" });
  });
  it("lead to IPv6 addresses of guests", () => {
    const n = scriptedNetwork();
    publish(n, { ...rule, guestAddress: formatIp(n.guest.address6) });
    let connected = 0;
    n.guest.listening.set(80, () => connected++);
    n.world.outside.dial("127.0.0.1:8080");
    n.world.run(SECOND);
    assert.equal(connected, 1);
  });
});
