/** Real sockets on the loopback address behind a router with a scripted guest. Waits end by what happens, not by time. */
import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { createServer, connect as netConnect, type Server, type Socket } from "node:net";
import { describe, it } from "node:test";
import { formatEndpoint, ip } from "../../net/address.js";
import type { BackendError } from "../../net/backend.js";
import type { NatConfig } from "../../net/config.js";
import * as dns from "../../net/dns.js";
import { Nat } from "../../net/nat.js";
import { EthernetPort } from "../../net/port.js";
import { PublishError, type PublishedPort, type PublishSpec } from "../../net/publish.js";
import { ScriptedGuest } from "../../net/scripted-guest.js";
import { digest, noise, seeded } from "../../net/scripted-network.js";
import { NodeBackend, type NodeBackendOptions } from "./network-sockets.js";

/** A guest and its router in real time. */
class Bed {
  readonly nat: Nat;
  readonly guest: ScriptedGuest;
  readonly backend: NodeBackend;
  constructor(config: NatConfig = {}, options: NodeBackendOptions = { dnsServers: [] }) {
    const [a, b] = EthernetPort.cable();
    const now = (): number => Number(process.hrtime.bigint());
    const random32 = seeded(5);
    this.backend = new NodeBackend(options);
    this.nat = new Nat({ port: a, clock: { now }, backend: this.backend, random32, config });
    this.guest = new ScriptedGuest(b, now, random32);
  }
  /** Turns guest and router until it is so. */
  async until(done: () => boolean): Promise<void> {
    while (!done()) {
      this.guest.turn();
      const now = this.guest.now();
      this.nat.runDue(now);
      this.guest.runDue(now);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
  publish(spec: PublishSpec): Promise<PublishedPort | PublishError> {
    return new Promise((resolve) => this.nat.publish(spec, resolve));
  }
}
const listening = (server: Server): Promise<number> =>
  new Promise((resolve) =>
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      resolve(typeof address === "object" && address !== null ? address.port : 0);
    }),
  );
const echo = (): Server =>
  createServer({ allowHalfOpen: true }, (s) => {
    s.on("error", () => {});
    s.pipe(s);
  });

describe("sockets of Node behind the router", { timeout: 60_000 }, () => {
  it("carry megabytes there and back, both ends in order", async () => {
    const server = echo();
    const port = await listening(server);
    const bed = new Bed();
    const c = bed.guest.connect("10.0.2.2", port);
    await bed.until(() => c.connected);
    const data = noise(8_000_000, 1);
    let at = 0;
    const more = (): void => {
      while (at < data.length && c.writable) {
        c.send(data.subarray(at, at + 60_000));
        at += 60_000;
      }
      if (at >= data.length) c.endpoint.shutdown();
    };
    c.onRoom = more;
    more();
    await bed.until(() => c.ended);
    assert.equal(digest(c.received), digest([data]));
    bed.nat.close();
    server.close();
  });

  it("stop reading while the guest does not take bytes, and wait while the server does not", async () => {
    let theirs: Socket | undefined;
    const server = createServer((s) => {
      theirs = s;
      s.pause();
      s.on("error", () => {});
    });
    const port = await listening(server);
    const bed = new Bed({ tcpBytes: 64 << 10 });
    const c = bed.guest.connect("10.0.2.2", port);
    c.reading = false;
    await bed.until(() => c.connected && theirs !== undefined);
    const data = noise(30_000_000, 2);
    let flushed = false;
    theirs!.write(data, () => {
      flushed = true;
    });
    const window = 512 << 10;
    await bed.until(() => c.endpoint.unread > window - 2000 && bed.nat.holdings.bytes > 60_000);
    assert.ok(bed.nat.holdings.bytes < 300_000, `${bed.nat.holdings.bytes}`);
    assert.ok(!flushed);
    c.onBytes = () => c.read();
    c.read();
    await bed.until(() => c.bytes === data.length);
    assert.equal(digest(c.received), digest([data]));
    // the other way
    const up = noise(20_000_000, 3);
    c.send(up);
    const hash: Uint8Array[] = [];
    await bed.until(() => bed.nat.holdings.bytes >= 60_000);
    theirs!.on("data", (b) => hash.push(b));
    theirs!.resume();
    await bed.until(() => hash.reduce((n, b) => n + b.length, 0) === up.length);
    assert.equal(digest(hash), digest([up]));
    bed.nat.close();
    theirs!.destroy();
    server.close();
  });

  it("tell a port where nobody listens, and a reset", async () => {
    const server = createServer((s) => s.on("data", () => s.resetAndDestroy()));
    const port = await listening(server);
    const bed = new Bed();
    const reset = bed.guest.connect("10.0.2.2", port);
    reset.send(noise(1, 1));
    await bed.until(() => reset.closed !== undefined);
    assert.equal(reset.closed, "reset");
    await new Promise((resolve) => server.close(resolve));
    const refused = bed.guest.connect("10.0.2.2", port);
    await bed.until(() => refused.closed !== undefined);
    assert.equal(refused.closed, "refused");
    bed.guest.sendUdp(9, "10.0.2.2", port, noise(4, 1));
    await bed.until(() => bed.guest.icmp.length > 0);
    assert.deepEqual([bed.guest.icmp[0]!.type, bed.guest.icmp[0]!.code], [3, 3]);
    bed.nat.close();
  });

  it("pass the guest's reset on", async () => {
    let error: Error | undefined;
    const server = createServer((s) =>
      s.on("error", (e) => {
        error = e;
      }),
    );
    const bed = new Bed();
    const c = bed.guest.connect("10.0.2.2", await listening(server));
    await bed.until(() => c.connected);
    c.endpoint.abort();
    await bed.until(() => error !== undefined);
    assert.equal((error as NodeJS.ErrnoException).code, "ECONNRESET");
    bed.nat.close();
    server.close();
  });

  it("pass a reset on that comes right behind the guest's end, and let go of the socket", async () => {
    for (const bytes of [0, 1, 100_000]) {
      let theirs: Socket | undefined;
      let isClosed = false;
      const server = createServer({ allowHalfOpen: true }, (s) => {
        theirs = s.resume();
        s.on("error", () => {});
        s.on("close", () => {
          isClosed = true;
        });
      });
      const bed = new Bed();
      const c = bed.guest.connect("10.0.2.2", await listening(server));
      await bed.until(() => c.connected);
      if (bytes > 0) c.send(noise(bytes, 1));
      c.endpoint.shutdown();
      bed.guest.turn();
      c.endpoint.abort();
      bed.guest.turn();
      // a socket that has seen the end is told of a reset when it writes
      await bed.until(() => {
        theirs?.write("x");
        return isClosed;
      });
      bed.nat.close();
      await new Promise((resolve) => server.close(resolve));
    }
  });

  it("publish ports on the loopback address, and know one that is in use", async () => {
    const bed = new Bed();
    bed.guest.announce();
    bed.guest.listening.set(80, (c) => {
      c.onBytes = (bytes) => c.send(bytes);
      c.onPeerEnd = () => c.endpoint.shutdown();
    });
    const p = await bed.publish({ protocol: "tcp", hostPort: 0, guestPort: 80 });
    assert.ok(!(p instanceof PublishError));
    assert.match(p.host, /^127\.0\.0\.1:/);
    const again = await bed.publish({ protocol: "tcp", hostPort: p.hostPort, guestPort: 80 });
    assert.ok(again instanceof PublishError && again.code === "port-in-use");
    const got: Uint8Array[] = [];
    let ended = false;
    const client = netConnect(p.hostPort, "127.0.0.1");
    client.on("data", (b) => got.push(b));
    client.on("end", () => {
      ended = true;
    });
    const data = noise(1_000_000, 4);
    client.end(data);
    await bed.until(() => ended);
    assert.equal(digest(got), digest([data]));
    assert.ok(bed.nat.unpublish(p.id));
    const refused = await new Promise<NodeJS.ErrnoException>((resolve) =>
      netConnect(p.hostPort, "127.0.0.1").on("error", resolve),
    );
    assert.equal(refused.code, "ECONNREFUSED");
    bed.nat.close();
  });

  it("publish ports for datagrams", async () => {
    const bed = new Bed();
    bed.guest.announce();
    const client = createSocket("udp4");
    await new Promise<void>((resolve) => client.bind(0, "127.0.0.1", resolve));
    const taken = await bed.publish({ protocol: "udp", hostPort: client.address().port, guestPort: 7 });
    assert.ok(taken instanceof PublishError && taken.code === "port-in-use");
    const p = await bed.publish({ protocol: "udp", hostPort: 0, guestPort: 7 });
    assert.ok(!(p instanceof PublishError));
    let answer = "";
    client.on("message", (b) => {
      answer = b.toString();
    });
    client.send("question", p.hostPort, "127.0.0.1");
    await bed.until(() => bed.guest.udp.length > 0);
    const { from, data } = bed.guest.udp[0]!;
    assert.equal(new TextDecoder().decode(data), "question");
    bed.guest.sendUdp(7, "10.0.2.2", Number(from.split(":")[1]), new TextEncoder().encode("answer"));
    await bed.until(() => answer !== "");
    assert.equal(answer, "answer");
    client.close();
    bed.nat.close();
  });

  it("carry datagrams and names", async () => {
    const server = createSocket("udp4");
    await new Promise<void>((resolve) => server.bind(0, "127.0.0.1", resolve));
    server.on("message", (bytes, from) => {
      const q = dns.parseQuestion(bytes);
      const answer = q === undefined ? bytes : dns.encodeAnswer(bytes, q, 0, [ip("5.6.7.8")], 1);
      server.send(answer, from.port, from.address);
    });
    const where = { address: ip("127.0.0.1"), port: server.address().port };
    const bed = new Bed({}, { dnsServers: [where] });
    bed.guest.sendUdp(5000, "10.0.2.2", where.port, noise(1000, 5));
    bed.guest.sendUdp(5000, "10.0.2.2", where.port, noise(1000, 6));
    await bed.until(() => bed.guest.udp.length === 2);
    assert.deepEqual(
      bed.guest.udp.map((d) => digest([d.data])),
      [digest([noise(1000, 5)]), digest([noise(1000, 6)])],
    );
    bed.guest.udp.length = 0;
    bed.guest.sendUdp(5000, "10.0.2.3", 53, dns.encodeQuery(7, "www.example", 1));
    await bed.until(() => bed.guest.udp.length > 0);
    assert.deepEqual([...dns.parseAnswers(bed.guest.udp[0]!.data)[0]!.address!], [5, 6, 7, 8]);
    bed.nat.close();
    server.close();
    const own = new Bed();
    own.guest.sendUdp(5000, "10.0.2.3", 53, dns.encodeQuery(7, "localhost", 1));
    await own.until(() => own.guest.udp.length > 0);
    assert.deepEqual([...dns.parseAnswers(own.guest.udp[0]!.data)[0]!.address!], [127, 0, 0, 1]);
    own.nat.close();
  });

  it("have the host's name servers, and say what cannot be listened on", async () => {
    for (const s of new NodeBackend().dnsServers) assert.match(formatEndpoint(s), /:\d+$/);
    const backend = new NodeBackend({ dnsServers: [] });
    const said = await new Promise<number | BackendError>((resolve) =>
      backend.listenTcp({ address: ip("192.0.2.77"), port: 0 }, () => {}, resolve),
    );
    assert.ok(typeof said === "object" && said.code === "no-address");
    const bound = await new Promise<number | BackendError>((resolve) =>
      backend.bindUdp({ address: ip("192.0.2.77"), port: 0 }, { onDatagram() {}, onError() {} }, resolve),
    );
    assert.ok(typeof bound === "object" && bound.code === "no-address");
    const found = await new Promise((resolve) => backend.resolve("nothing.invalid", 4, resolve));
    assert.ok(!Array.isArray(found));
  });
});
