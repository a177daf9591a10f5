/**
 * Hostile guests on Hyper-V sockets, and hosts that do anything at any time. A case is one act of either, with all that the other
 * does about it.
 */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Chance, fuzz, fuzzSettings } from "../../hypervisor/chance.js";
import * as protocol from "../../vmbus/protocol.js";
import type { HvSocket } from "./hv-socket.js";
import { type GuestSocket, HostEnd, listen, SocketGuest } from "./scripted-guest.js";
import { serviceGuid } from "./socket-service.js";

const PORTS = [5000, 5001, 5002];
const MAX_OPEN = 6;

class Target {
  readonly g = new SocketGuest({ bytes: 512 << 10 });
  readonly ends: HostEnd[] = [];
  readonly listeners = [PORTS[0]!, PORTS[1]!].map((port) => listen(this.g.service, port));
  readonly open: GuestSocket[] = [];
  readonly chance: Chance;
  packets = 0;

  constructor(chance: Chance) {
    this.chance = chance;
  }
  get sockets(): HvSocket[] {
    return this.#all.flatMap((end) => end.socket ?? []).filter((s) => s.state !== "closed");
  }
  get #all(): HostEnd[] {
    return [...this.ends, ...this.listeners.flatMap((l) => l.ends)];
  }
  #payload(): Uint8Array {
    const { chance } = this;
    const length = chance.oneOf([0, 1, 8, 100, 1000]);
    const out = new Uint8Array(8 + length);
    const view = new DataView(out.buffer);
    view.setUint32(0, chance.rarely(40) ? chance.odd() : 1, true);
    view.setUint32(4, chance.rarely(40) ? chance.odd() : chance.rarely(30) ? 0 : length, true);
    return chance.rarely(60) ? out.subarray(0, chance.below(9)) : out;
  }
  guest(): void {
    const { chance, g, open } = this;
    const socket = chance.oneOf(open);
    const offers = [...g.guest.offers.values()].filter((o) => !g.guest.channels.has(o.relid));
    switch (socket === undefined ? chance.below(3) : chance.oneOf([0, 1, 2, 3, 3, 3, 3, 3, 3, 4, 4, 4, 5, 6, 7])) {
      case 0:
        g.guest.post(
          protocol.TlConnectRequest.encode({
            endpoint: serviceGuid(chance.oneOf([1024, 1025, 0x40000001])),
            service: chance.rarely(10) ? "11111111-2222-3333-4444-555555555555" : serviceGuid(chance.oneOf(PORTS)),
          }),
        );
        break;
      case 1: {
        const offer = chance.oneOf(offers);
        if (offer === undefined || open.length >= MAX_OPEN) break;
        try {
          open.push(g.open(offer, { ringPages: chance.oneOf([2, 3]), inRingPages: chance.oneOf([2, 4]) }));
        } catch (error) {
          // rescinded meanwhile; the ring is given back below
          assert.match((error as Error).message, /not opened/);
        }
        break;
      }
      case 2: {
        // lets go of what the host took back
        const relid = [...g.guest.rescinded][0];
        if (relid === undefined) break;
        const at = open.findIndex((s) => s.channel.relid === relid);
        if (at >= 0) open.splice(at, 1)[0]!.channel.close();
        g.guest.release(relid);
        break;
      }
      case 3:
        if (socket!.channel.send(this.#payload(), { type: chance.rarely(80) ? chance.below(14) : 6 })) this.packets++;
        break;
      case 4:
        if (!socket!.isRescinded) for (let n = chance.below(4); n > 0; n--) this.#read(socket!);
        break;
      case 5:
        if (chance.rarely(4)) socket!.channel.send(Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0));
        break;
      case 6:
        if (chance.rarely(30))
          socket!.channel[chance.rarely(2) ? "in" : "out"].store(chance.oneOf([0, 4, 8, 12]), chance.odd());
        break;
      default:
        if (chance.rarely(200)) {
          open.length = 0;
          if (chance.rarely(2)) g.guest.unload();
          g.guest.connect();
        }
    }
  }
  #read(socket: GuestSocket): void {
    try {
      socket.channel.receive();
    } catch {
      // its own index is spoilt
    }
  }
  host(): void {
    const { chance, g } = this;
    const socket = chance.oneOf(this.sockets);
    switch (socket === undefined ? 0 : chance.below(9)) {
      case 0: {
        if (g.service.count >= 40) break;
        const end = new HostEnd();
        this.ends.push(end);
        end.socket = g.service.connect(chance.oneOf(PORTS), end.events);
        break;
      }
      case 1:
      case 2:
      case 3:
        socket!.write(new Uint8Array(chance.oneOf([1, 100, 5000])));
        break;
      case 4:
        if (chance.rarely(4)) socket!.end();
        break;
      case 5:
        if (chance.rarely(8)) socket!.destroy();
        break;
      case 6:
        if (chance.rarely(3)) socket!.pause();
        break;
      case 7:
        socket!.resume();
        break;
      default:
        g.nowNs += chance.below(chance.oneOf([1e6, 1e9]));
        g.deadlines.runDue(g.nowNs);
    }
  }
  turn(): void {
    const { g } = this;
    g.turn();
    assert.ok(g.service.count <= 1024);
    assert.equal(g.relids, g.service.count, "relids are those of sockets");
    for (const channel of g.guest.server.channels())
      assert.ok(channel.state !== "failed", "a broken channel is rescinded");
    if (this.ends.length > 50)
      this.ends.splice(0, this.ends.length, ...this.ends.filter((e) => e.socket?.state !== "closed"));
    for (const { ends, peers } of this.listeners) {
      ends.splice(0, ends.length, ...ends.filter((e) => !e.log.some((l) => l.startsWith("close"))));
      peers.length = 0;
    }
  }
  /** Everybody goes: nothing is left. */
  finish(): void {
    const { g } = this;
    const all = this.#all;
    g.guest.unload();
    assert.deepEqual([g.service.count, g.relids], [0, 0]);
    assert.equal(g.deadlines.earliest(), Number.POSITIVE_INFINITY);
    // of a pair that waited for an earlier one, and of all others: one last event each
    for (const end of all)
      if (end.log.length > 0 || end.socket !== undefined)
        assert.equal(end.log.filter((l) => l.startsWith("close")).length, 1, end.log.join());
  }
}

describe("a hostile guest with sockets", () => {
  it("leaves nothing behind: 160,000 acts", () => {
    let packets = 0;
    fuzz(fuzzSettings(process.env), 160_000, 1000, (chance, cases) => {
      const target = new Target(chance);
      for (let i = 0; i < cases; i++) {
        if (chance.rarely(3)) target.host();
        else target.guest();
        if (chance.rarely(2)) target.turn();
      }
      target.turn();
      target.finish();
      packets += target.packets;
    });
    assert.ok(packets > 10_000, `${packets}`);
  });
});
