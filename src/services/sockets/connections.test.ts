/** Connections: how they are made in both directions, refused, ended in every way, and used again. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as protocol from "../../vmbus/protocol.js";
import type { HvSocket } from "./hv-socket.js";
import { HostEnd, listen, SocketGuest } from "./scripted-guest.js";
import { serviceGuid, servicePort } from "./socket-service.js";

const S = 1e9;
const PORT = 5000;
const text = (s: string): Uint8Array => new TextEncoder().encode(s);
const connected = (g: SocketGuest) => {
  const { ends } = listen(g.service, PORT);
  const guest = g.connect(PORT, 1024);
  const host = ends[0]!;
  return { guest, host, socket: host.socket! };
};
/** Nothing of any connection is left. */
const isClean = (g: SocketGuest): void => {
  assert.deepEqual([g.service.count, g.relids, g.guest.offers.size], [0, 0, 0]);
  assert.equal(g.deadlines.earliest(), Number.POSITIVE_INFINITY);
};
const results = (g: SocketGuest) => g.guest.log.filter((m) => m.message === "TlConnectResult");

describe("service ids", () => {
  it("are the template with the port", () => {
    assert.equal(serviceGuid(PORT), "00001388-facb-11e6-bd58-64006a7986d3");
    assert.equal(servicePort("00001234-facb-11e6-bd58-64006a7986d3"), 0x1234);
    assert.equal(servicePort("00001234-facb-11e6-bd58-64006a7986d4"), undefined);
    for (const port of [0, 1, 0x7fffffff, 0xffffffff]) assert.equal(servicePort(serviceGuid(port)), port);
    // worked example 21: in memory
    const offer = protocol.TlConnectRequest.encode({ endpoint: serviceGuid(0), service: serviceGuid(PORT) });
    assert.equal(Buffer.from(offer.subarray(24, 40)).toString("hex"), "88130000cbfae611bd5864006a7986d3");
  });
});

describe("a connection that the guest makes", () => {
  it("is offered under the service and the endpoint as they came, and is open when the guest opens it", () => {
    const g = new SocketGuest();
    const { ends, peers } = listen(g.service, PORT);
    g.ask(PORT, 0xfffffffe);
    const offer = g.offer(PORT)!;
    assert.equal(offer.classId, serviceGuid(PORT));
    assert.equal(offer.instanceId, serviceGuid(0xfffffffe));
    assert.equal(offer.flags, 0x2011);
    // the host accepts: byte 4 is 0; byte stream; version 1
    assert.deepEqual([...offer.userDefined], [0, 0, 0, 0, 0, 0, 1, ...new Uint8Array(113)]);
    assert.deepEqual([peers, ends[0]!.log], [[0xfffffffe], []]);
    assert.deepEqual(
      results(g).map((r) => [r.endpoint, r.service, r.status]),
      [[offer.instanceId, offer.classId, 0]],
    );
    g.open(offer);
    assert.deepEqual(ends[0]!.log, ["open"]);
    assert.equal(ends[0]!.socket?.state, "open");
  });
  it("is refused where nobody listens, or no longer, or the service is none", () => {
    const g = new SocketGuest();
    listen(g.service, PORT);
    g.service.unlisten(PORT);
    g.ask(PORT, 1024);
    g.ask(PORT + 1, 1025);
    const service = "00001388-1111-11e6-bd58-64006a7986d3";
    g.guest.post(protocol.TlConnectRequest.encode({ endpoint: serviceGuid(7), service }));
    g.turn();
    assert.deepEqual(
      results(g).map((r) => r.status),
      [0xc0000236, 0xc0000236, 0xc0000236],
    );
    isClean(g);
  });
  it("is taken back after five seconds if the guest does not open it", () => {
    const g = new SocketGuest();
    const { ends } = listen(g.service, PORT);
    g.ask(PORT, 1024);
    const { relid } = g.offer(PORT)!;
    g.runTo(5 * S - 1);
    assert.ok(!g.guest.rescinded.has(relid));
    g.runTo(5 * S);
    assert.ok(g.guest.rescinded.has(relid));
    assert.deepEqual(ends[0]!.log, ["close refused"]);
    assert.equal(g.service.count, 1);
    g.guest.release(relid);
    isClean(g);
  });
  it("is refused while another of the same pair is open, and the first lives on", () => {
    const g = new SocketGuest();
    const { host, guest } = connected(g);
    g.ask(PORT, 1024);
    assert.equal(results(g).at(-1)?.status, 0xc0000236);
    assert.equal(g.guest.offers.size, 1);
    guest.write(text("still here"));
    g.turn();
    assert.equal(new TextDecoder().decode(host.bytes), "still here");
  });
  it("that is asked for again before it was opened, is offered again when the guest has let go of the first", () => {
    const g = new SocketGuest();
    const { ends } = listen(g.service, PORT);
    g.ask(PORT, 1024);
    const first = g.offer(PORT)!;
    g.ask(PORT, 1024);
    assert.deepEqual(ends[0]!.log, ["close refused"]);
    assert.ok(g.guest.rescinded.has(first.relid));
    // two offers of one name would be dropped
    assert.equal(g.offer(PORT), undefined);
    g.guest.release(first.relid);
    g.open(g.offer(PORT, 1024)!);
    assert.deepEqual(ends[1]!.log, ["open"]);
    g.guest.unload();
    isClean(g);
  });
  it("may come from any processor of messages of old buses, without a result", () => {
    const g = new SocketGuest({ version: 0x40000 });
    const { host } = connected(g);
    assert.deepEqual([host.log, results(g)], [["open"], []]);
  });
});

describe("a connection that the host makes", () => {
  it("is offered with the guest to accept it", () => {
    const g = new SocketGuest();
    const host = new HostEnd();
    const socket = g.service.connect(PORT, host.events)!;
    assert.equal(socket.state, "opening");
    g.turn();
    const offer = g.offer(PORT)!;
    assert.equal(offer.flags, 0x2011);
    // worked example 20
    assert.deepEqual([...offer.userDefined], [0, 0, 0, 0, 1, 0, 1, ...new Uint8Array(113)]);
    const port = servicePort(offer.instanceId)!;
    assert.ok(port >= 0x40000000 && port < 0x80000000);
    socket.write(text("before"));
    const guest = g.open(offer);
    assert.deepEqual([host.log, socket.state], [["open"], "open"]);
    g.turn();
    assert.equal(new TextDecoder().decode(guest.readAll()), "before");
  });
  it("has an endpoint of its own each time", () => {
    const g = new SocketGuest();
    const endpoints = new Set<string>();
    for (let i = 0; i < 20; i++) {
      g.service.connect(PORT, new HostEnd().events);
      g.turn();
    }
    for (const { instanceId } of g.guest.offers.values()) endpoints.add(instanceId);
    assert.equal(endpoints.size, 20);
  });
  it("is refused after five seconds where nobody listens, and the guest told", () => {
    const g = new SocketGuest();
    const host = new HostEnd();
    const socket = g.service.connect(PORT, host.events)!;
    g.turn();
    const { relid } = g.offer(PORT)!;
    g.runTo(5 * S - 1);
    assert.deepEqual(host.log, []);
    g.runTo(5 * S);
    assert.deepEqual([host.log, socket.state], [["close refused"], "closed"]);
    g.guest.release(relid);
    isClean(g);
    // and is nothing any more
    socket.write(text("x"));
    socket.end();
    socket.destroy();
    assert.equal(host.log.length, 1);
  });
  it("is refused where no guest is connected", () => {
    const g = new SocketGuest({ connect: false });
    const host = new HostEnd();
    g.service.connect(PORT, host.events);
    g.runTo(5 * S);
    assert.deepEqual(host.log, ["close refused"]);
    isClean(g);
  });
  it("can be given up before it is open", () => {
    const g = new SocketGuest();
    const host = new HostEnd();
    g.service.connect(PORT, host.events)!.destroy();
    g.turn();
    assert.deepEqual(host.log, ["close reset"]);
    assert.equal(g.guest.rescinded.size, 1);
  });
  it("can be destroyed in the moment in which it opens", () => {
    const g = new SocketGuest();
    const host = new HostEnd();
    host.onOpen = () => socket.destroy();
    const socket: HvSocket = g.service.connect(PORT, host.events)!;
    g.turn();
    assert.throws(() => g.open(g.offer(PORT)!));
    g.turn();
    assert.deepEqual(host.log, ["open", "close reset"]);
    for (const relid of g.guest.rescinded) g.guest.release(relid);
    isClean(g);
  });
});

describe("limits", () => {
  it("are 1024 connections, those included that the guest has not let go of", () => {
    const g = new SocketGuest();
    const { ends } = listen(g.service, PORT);
    for (let i = 0; i < 1024; i++) assert.ok(g.service.connect(PORT, new HostEnd().events));
    assert.equal(g.service.connect(PORT, new HostEnd().events), undefined);
    g.ask(PORT, 1024);
    assert.equal(results(g).at(-1)?.status, 0xc0000236);
    g.runTo(5 * S);
    assert.equal(g.service.connect(PORT, new HostEnd().events), undefined);
    g.guest.release([...g.guest.rescinded][0]!);
    g.ask(PORT, 1024);
    assert.equal(results(g).at(-1)?.status, 0);
    assert.equal(ends.length, 1);
  });
  it("are the relids that the bus has left", () => {
    const g = new SocketGuest();
    const { ends } = listen(g.service, PORT);
    const { server } = g.guest;
    const offer = (n: number) =>
      server.offer({
        offer: {
          name: "x",
          classId: serviceGuid(n),
          instanceId: serviceGuid(n),
          flags: 0,
          mmioMegabytes: 0,
          userDefined: new Uint8Array(0),
        },
        open: () => undefined,
        save: () => undefined,
        restore: () => [],
      });
    for (let n = 1; server.freeRelids > 1; n++) offer(n);
    assert.ok(g.service.connect(PORT, new HostEnd().events));
    assert.equal(g.service.connect(PORT, new HostEnd().events), undefined);
    g.ask(PORT, 1024);
    assert.equal(results(g).at(-1)?.status, 0xc0000236);
    assert.equal(ends.length, 0);
  });
});

describe("the end of a connection", () => {
  it("comes at once when the guest closes first and the host then ends: hello", () => {
    const g = new SocketGuest();
    const { guest, host, socket } = connected(g);
    guest.write(text("hello\n"));
    guest.fin();
    assert.deepEqual(host.log, ["open", "end"]);
    assert.equal(new TextDecoder().decode(host.bytes), "hello\n");
    socket.end();
    assert.deepEqual([host.log, socket.state], [["open", "end", "close well"], "closed"]);
    g.turn();
    assert.ok(guest.isRescinded);
    // a FIN would lie in the ring for nobody
    assert.equal(guest.channel.in.write, 0);
    guest.release();
    isClean(g);
  });
  it("comes at once when the host ends first and the guest then closes, its FIN being left in the ring", () => {
    const g = new SocketGuest();
    const { guest, host, socket } = connected(g);
    socket.write(text("bye"));
    socket.end();
    g.turn();
    assert.deepEqual([socket.state, guest.atEnd], ["open", false]);
    assert.equal(new TextDecoder().decode(guest.readAll()), "bye");
    assert.ok(guest.atEnd);
    // worked example 19
    const ring = guest.channel.in;
    assert.deepEqual([...ring.getBytes(ring.read + 16, 8)], [1, 0, 0, 0, 0, 0, 0, 0]);
    guest.fin();
    assert.ok(guest.isRescinded);
    assert.deepEqual(host.log, ["open", "end", "close well"]);
    guest.release();
    isClean(g);
  });
  it("waits until the guest has read what was sent, looking often", () => {
    for (const endsFirst of ["host", "guest"] as const) {
      const g = new SocketGuest();
      const { guest, host, socket } = connected(g);
      socket.write(new Uint8Array(3000).fill(7));
      if (endsFirst === "host") socket.end();
      guest.fin();
      if (endsFirst === "guest") socket.end();
      g.turn();
      assert.deepEqual([socket.state, guest.isRescinded], ["closing", false]);
      g.runTo(0.5 * S);
      assert.equal(socket.state, "closing");
      assert.equal(guest.readAll().length, 3000);
      assert.ok(guest.atEnd);
      g.nowNs += 1;
      // without a signal and without a turn of the bus: the next look finds it
      const looked = g.deadlines.earliest();
      assert.ok(looked < 1.1 * S);
      g.deadlines.runDue(looked);
      assert.deepEqual(host.log.at(-1), "close well");
      g.turn();
      guest.release();
      isClean(g);
    }
  });
  it("waits no longer than five seconds for a guest that does not read", () => {
    const g = new SocketGuest();
    const { guest, host, socket } = connected(g);
    socket.write(text("nobody reads this"));
    guest.fin();
    socket.end();
    g.runTo(5 * S - 1);
    assert.equal(socket.state, "closing");
    g.runTo(5 * S);
    assert.deepEqual(host.log, ["open", "end", "close well"]);
    assert.ok(guest.isRescinded);
    guest.release();
    isClean(g);
  });
  it("is seen in each turn of the bus, too", () => {
    const g = new SocketGuest();
    const { guest, host, socket } = connected(g);
    socket.write(text("x"));
    guest.fin();
    socket.end();
    g.turn();
    guest.readAll();
    g.turn();
    assert.deepEqual(host.log.at(-1), "close well");
  });
  it("of one direction leaves the other: half closed, the answer comes whole", () => {
    const g = new SocketGuest();
    const { guest, host, socket } = connected(g);
    guest.write(text("request"));
    guest.fin();
    const answer = Uint8Array.from({ length: 100_000 }, (_, i) => i * 7);
    host.onDrain = () => {};
    socket.write(answer);
    socket.end();
    const parts: number[] = [];
    for (let i = 0; i < 50 && !guest.isRescinded; i++) {
      g.turn();
      parts.push(...guest.readAll());
    }
    assert.deepEqual(Uint8Array.from(parts), answer);
    g.runTo(1 * S);
    assert.ok(guest.isRescinded);
    guest.release();
    isClean(g);
  });
  it("by the host's destroy is a rescind without a FIN", () => {
    const g = new SocketGuest();
    const { guest, host, socket } = connected(g);
    socket.destroy();
    socket.destroy();
    g.turn();
    assert.deepEqual(host.log, ["open", "close reset"]);
    assert.equal(guest.channel.in.write, 0);
    guest.release();
    isClean(g);
  });
  it("by the guest's closing of the channel is a reset, and it is taken back", () => {
    const g = new SocketGuest();
    const { guest, host } = connected(g);
    const { relid } = guest.channel;
    guest.channel.close();
    g.turn();
    assert.deepEqual(host.log, ["open", "close reset"]);
    assert.ok(g.guest.rescinded.has(relid));
    g.guest.release(relid);
    isClean(g);
  });
  it("by the guest's closing of the channel is well when both directions have ended", () => {
    const g = new SocketGuest();
    const { guest, host, socket } = connected(g);
    socket.write(text("unread"));
    guest.fin();
    socket.end();
    guest.channel.close();
    g.turn();
    assert.deepEqual(host.log, ["open", "end", "close well"]);
  });
  it("by unload, reset or a new contact reaches all of them, opened or not", () => {
    for (const how of ["unload", "reset", "contact"] as const) {
      const g = new SocketGuest();
      const { host } = connected(g);
      const opening = new HostEnd();
      g.service.connect(PORT, opening.events);
      const closed = new HostEnd();
      g.service.connect(PORT + 1, closed.events)!.destroy();
      g.turn();
      assert.equal(g.service.count, 3);
      if (how === "unload") g.guest.unload();
      else if (how === "reset") {
        g.guest.server.reset();
        g.guest.forgetAll();
      } else g.guest.connect();
      assert.deepEqual(
        [host.log, opening.log, closed.log],
        [["open", "close reset"], ["close refused"], ["close reset"]],
      );
      isClean(g);
      if (how !== "contact") g.guest.connect();
      isClean(g);
      const again = g.connect(PORT, 1024);
      again.fin();
      assert.equal(g.service.count, 1);
    }
  });
  it("of a saved machine's connections: the guest is told that they have gone", () => {
    const g = new SocketGuest();
    const { guest, socket } = connected(g);
    assert.equal(socket.save(), undefined);
    assert.throws(() => socket.restore(), /transient/);
    const saved = structuredClone(g.guest.server.save());
    g.guest.synic.connections.clear();
    g.guest.server = g.guest.newServer();
    g.guest.server.restore(saved);
    g.guest.turn();
    assert.ok(guest.isRescinded);
    guest.channel.close();
    g.guest.release(guest.channel.relid);
    assert.deepEqual(g.guest.server.channels(), []);
  });
  it("leaves nothing behind in 1000 connections, in both directions", () => {
    const g = new SocketGuest();
    const { ends } = listen(g.service, PORT);
    for (let i = 0; i < 1000; i++) {
      let guest: ReturnType<SocketGuest["open"]>;
      let host = new HostEnd();
      if (i % 2 === 0) {
        guest = g.connect(PORT, 1024 + (i % 3), { ringPages: 2 });
        host = ends.pop()!;
      } else {
        host.socket = g.service.connect(PORT, host.events);
        g.turn();
        guest = g.open(g.offer(PORT)!, { ringPages: 2 });
      }
      guest.write(text("hello\n"));
      if (i % 5 === 0) host.socket!.end();
      guest.fin();
      host.socket!.end();
      assert.deepEqual(host.log, ["open", "end", "close well"]);
      g.turn();
      guest.release();
      isClean(g);
    }
    // names of deadlines are used again
    const armed = new Set<string>();
    g.service.connect(PORT, new HostEnd().events);
    for (const { id } of g.deadlines.save().armed) armed.add(id);
    assert.deepEqual([...armed], ["socket0"]);
    assert.deepEqual(g.violations(), []);
  });
});
