import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { EthernetPort, FrameFlags } from "../../net/port.js";
import { TraceKind, TraceRing } from "../../trace/trace.js";
import { type Offer, PacketType } from "../../vmbus/device.js";
import { type GuestChannel, ScriptedGuest } from "../../vmbus/scripted-guest.js";
import type { GuestPacket } from "../../vmbus/scripted-ring.js";
import { NetworkAdapter } from "./adapter.js";
import { NETWORK_CLASS } from "./nvsp.js";
import { frame, GUEST_MAC, OTHER_MAC, pattern } from "./scripted-frames.js";
import { ALL_OFFLOADS, join, rndisPacket, u32s } from "./scripted-guest.js";

const RECEIVE_PAGES = 64;

/** A guest's driver over real rings and GPADLs. */
class Driver {
  readonly trace = new TraceRing(() => 0, 4000);
  readonly guest = new ScriptedGuest({ trace: this.trace });
  readonly ends = EthernetPort.cable();
  adapter = this.make();
  offer: Offer;
  primary!: GuestChannel;
  receiveGpadl = 0;
  receivePages: number[] = [];
  sendGpadl = 0;
  sendPages: number[] = [];
  readonly subs: GuestChannel[] = [];
  readonly seen: Uint8Array[] = [];
  readonly frames: { readonly relid: number; readonly frame: Uint8Array }[] = [];
  readonly completions = new Map<number, Uint8Array>();
  readonly inBand: Uint8Array[] = [];
  #id = 1;

  constructor() {
    this.offer = this.guest.server.offer(this.adapter);
    this.adapter.attach(this.offer);
    this.ends[1].receive = (f) => this.seen.push(f.slice()) > 0;
    this.guest.connect();
  }
  make(): NetworkAdapter {
    return new NetworkAdapter({
      instanceId: "12345678-0000-0000-0000-000000000007",
      mac: Uint8Array.from(GUEST_MAC),
      port: this.ends[0],
      memory: this.guest.memory,
      trace: this.trace,
      maxSubChannels: 2,
    });
  }
  turn(): void {
    this.adapter.flush();
    this.guest.turn();
    this.adapter.flush();
    this.guest.turn();
    for (const channel of [this.primary, ...this.subs])
      for (const packet of channel.receiveAll()) this.take(channel, packet);
    this.guest.turn();
  }
  take(channel: GuestChannel, packet: GuestPacket): void {
    if (packet.type === PacketType.completion) this.completions.set(packet.transactionLow, packet.payload);
    else if (packet.type === PacketType.inBand) this.inBand.push(packet.payload);
    else {
      const head = new DataView(packet.header.buffer, packet.header.byteOffset, packet.header.byteLength);
      assert.equal(packet.type, PacketType.transferPages);
      assert.equal(head.getUint16(0, true), 0xcafe);
      for (let i = 0; i < head.getUint32(4, true); i++) {
        const message = this.read(head.getUint32(12 + i * 8, true), head.getUint32(8 + i * 8, true));
        const view = new DataView(message.buffer);
        if (view.getUint32(0, true) === 1) {
          const at = 8 + view.getUint32(8, true);
          this.frames.push({ relid: channel.relid, frame: message.slice(at, at + view.getUint32(12, true)) });
        }
      }
      channel.send(u32s(108, 1), {
        type: PacketType.completion,
        transaction: [packet.transactionLow, packet.transactionHigh],
      });
    }
  }
  read(offset: number, length: number): Uint8Array {
    return Uint8Array.from(
      { length },
      (_, i) => this.guest.memory.ram[this.receivePages[(offset + i) >>> 12]! * 4096 + ((offset + i) & 4095)]!,
    );
  }
  nvsp(...fields: number[]): Uint8Array {
    const id = this.#id++;
    assert.ok(
      this.primary.send(join(u32s(...fields), new Uint8Array(40 - fields.length * 4)), {
        transaction: id,
        completion: true,
      }),
    );
    this.turn();
    return this.completions.get(id)!;
  }
  control(message: Uint8Array): void {
    const buffer = this.guest.buffer(message, 100);
    this.primary.send(join(u32s(107, 1, 0xffffffff, 0), new Uint8Array(24)), {
      transaction: this.#id++,
      completion: true,
      ranges: [buffer],
    });
    this.turn();
    this.guest.freePages(buffer.pages);
  }
  start(): this {
    this.primary = this.guest.open(NETWORK_CLASS, { ringPages: 17 });
    this.nvsp(1, 0x60001, 0x60001);
    this.nvsp(125, 1514, 0, 0xac, 0);
    this.nvsp(100, 6, 30);
    this.receivePages = this.guest.pages(RECEIVE_PAGES);
    this.receiveGpadl = this.guest.gpadl(this.primary.relid, this.receivePages);
    this.sendPages = this.guest.pages(15);
    this.sendGpadl = this.guest.gpadl(this.primary.relid, this.sendPages);
    assert.equal(this.nvsp(101, this.receiveGpadl, 0xcafe)[4], 1);
    assert.equal(this.nvsp(104, this.sendGpadl, 0)[4], 1);
    this.control(u32s(2, 24, 1, 1, 0, 0x4000));
    this.control(join(u32s(5, 56, 2, 0xfc01020c, 28, 20, 0), Uint8Array.of(0x80, 3, 28, 0, ...ALL_OFFLOADS)));
    this.control(u32s(5, 32, 3, 0x0001010e, 4, 20, 0, 0xd));
    return this;
  }
  transmit(f: Uint8Array, channel = this.primary): void {
    const buffer = this.guest.buffer(rndisPacket(f), 4000);
    channel.send(join(u32s(107, 0, 0xffffffff, 0), new Uint8Array(24)), {
      transaction: this.#id++,
      completion: true,
      ranges: [buffer],
    });
    this.turn();
    this.guest.freePages(buffer.pages);
  }
  get violations(): string[] {
    return this.trace
      .take()
      .filter((r) => r.kind === TraceKind.violation)
      .map((r) => new TextDecoder().decode(r.bytes));
  }
}
const mine = (seed: number): Uint8Array =>
  frame({ destination: OTHER_MAC, source: GUEST_MAC, payload: pattern(1000, seed) });

describe("network adapter on the bus", () => {
  it("starts, sends and receives over rings, lists of pages and transfer pages", () => {
    const d = new Driver().start();
    d.transmit(mine(1));
    assert.deepEqual(d.seen, [mine(1)]);
    const frames = Array.from({ length: 100 }, (_, i) => frame({ payload: pattern(20 + i * 13, i) }));
    for (const f of frames) assert.ok(d.ends[1].transmit(f));
    d.turn();
    assert.deepEqual(
      d.frames.map((f) => f.frame),
      frames,
    );
    assert.deepEqual(d.violations, []);
    const status = d.adapter.status();
    assert.equal(status.freeReceiveSections, status.receiveSections);
    // One interrupt for many frames.
    const before = d.primary.interrupts;
    for (const f of frames) d.ends[1].transmit(f);
    d.turn();
    assert.ok(d.primary.interrupts <= before + 2);
  });
  it("opens its sub-channels and spreads flows over them", () => {
    const d = new Driver().start();
    assert.deepEqual(d.nvsp(133, 1, 5).slice(0, 12), u32s(133, 1, 2));
    d.subs.push(
      d.guest.open(NETWORK_CLASS, { subIndex: 1, targetVp: 1 }),
      d.guest.open(NETWORK_CLASS, { subIndex: 2, targetVp: 2 }),
    );
    d.turn();
    assert.equal(d.inBand.length, 1);
    d.control(
      join(
        u32s(5, 28 + 40 + 16 + 40, 4, 0x00010204, 96, 20, 0),
        Uint8Array.of(0x89, 2, 40, 0),
        u32s(0, 0x1701, 16, 40, 40, 56, 0, 0, 0),
        u32s(0, 1, 2, 1),
        pattern(40),
      ),
    );
    for (let i = 0; i < 40; i++) d.ends[1].transmit(frame({ sourcePort: i }), FrameFlags.verified);
    d.turn();
    assert.equal(d.frames.length, 40);
    assert.equal(new Set(d.frames.map((f) => f.relid)).size, 3);
    d.transmit(mine(2), d.subs[1]);
    assert.deepEqual(d.seen, [mine(2)]);
    assert.deepEqual(d.violations, []);
  });
  it("lets go of everything as Linux does it, and starts again", () => {
    const d = new Driver().start();
    d.ends[1].transmit(frame());
    d.control(u32s(3, 12, 9));
    d.nvsp(103, 0xcafe);
    d.nvsp(106, 0);
    d.primary.close();
    d.guest.teardown(d.primary.relid, d.receiveGpadl);
    d.guest.teardown(d.primary.relid, d.sendGpadl);
    assert.ok(d.ends[1].transmit(frame()));
    d.adapter.flush();
    d.start();
    const before = d.frames.length;
    d.ends[1].transmit(frame());
    d.turn();
    assert.equal(d.frames.length, before + 1);
    assert.deepEqual(d.violations, []);
  });
  it("is taken away while frames wait both ways", () => {
    const d = new Driver().start();
    d.ends[1].receive = () => false;
    const buffer = d.guest.buffer(rndisPacket(mine(1)));
    d.primary.send(join(u32s(107, 0, 0xffffffff, 0), new Uint8Array(24)), {
      transaction: 99,
      completion: true,
      ranges: [buffer],
    });
    d.turn();
    assert.ok(d.adapter.status().channels[0]?.isHeld);
    d.ends[1].transmit(frame());
    let isReleased = false;
    d.offer.rescind(() => {
      isReleased = true;
    });
    d.adapter.flush();
    d.guest.turn();
    assert.equal(d.adapter.status().channels.length, 0);
    d.ends[1].room();
    assert.ok(d.ends[1].transmit(frame()));
    d.guest.release(d.primary.relid);
    assert.ok(isReleased);
  });
  it("goes on in another server: lists of pages, paused channel, frames both ways", () => {
    const d = new Driver().start();
    let room = 0;
    d.ends[1].receive = (f) => room-- > 0 && d.seen.push(f.slice()) > 0;
    const packets = [1, 2, 3].map((i) => d.guest.buffer(rndisPacket(mine(i))));
    packets.forEach((buffer, i) => {
      d.primary.send(join(u32s(107, 0, 0xffffffff, 0), new Uint8Array(24)), {
        transaction: 1000 + i,
        completion: true,
        ranges: [buffer],
      });
    });
    d.guest.turn();
    for (let i = 0; i < 20; i++) d.ends[1].transmit(frame({ payload: pattern(100, i) }));
    d.adapter.flush();
    for (let i = 20; i < 30; i++) d.ends[1].transmit(frame({ payload: pattern(100, i) }));
    const saved: unknown = structuredClone(d.guest.server.save());
    d.adapter = d.make();
    d.guest.synic.connections.clear();
    d.guest.server = d.guest.newServer();
    d.offer = d.guest.server.offer(d.adapter);
    d.adapter.attach(d.offer);
    d.guest.server.restore(saved);
    room = 10;
    d.turn();
    assert.deepEqual(d.seen, [1, 2, 3].map(mine));
    assert.deepEqual(
      d.frames.map((f) => f.frame),
      Array.from({ length: 30 }, (_, i) => frame({ payload: pattern(100, i) })),
    );
    for (const id of [1000, 1001, 1002]) assert.deepEqual(d.completions.get(id), u32s(108, 1));
    d.turn();
    const status = d.adapter.status();
    assert.equal(status.freeReceiveSections, status.receiveSections);
    assert.deepEqual(d.violations, []);
  });
});
