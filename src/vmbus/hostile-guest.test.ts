/**
 * Guests that break every rule. They begin with valid traffic, so that what is spoilt gets past the first checks. A case is one
 * hostile input with all that the host does about it. FUZZ_CASES multiplies their number, FUZZ_SEED repeats a run.
 */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { CONNECTION_BASE } from "./device.js";
import { MAX_ASSEMBLIES, MAX_GPADLS } from "./gpadl.js";
import * as protocol from "./protocol.js";
import { ScriptedDevice, testGuid } from "./scripted-device.js";
import { type GuestChannel, gpadlMessages, ScriptedGuest } from "./scripted-guest.js";
import { type PageRange, packetBytes } from "./scripted-ring.js";

const MULTIPLE = Number(process.env.FUZZ_CASES ?? 1);
const SEED = Number(process.env.FUZZ_SEED ?? 20250);

/** xorshift32 */
class Chance {
  #x: number;
  constructor(seed: number) {
    this.#x = Math.imul(seed + 1, 0x9e3779b1) | 1;
    for (let i = 0; i < 8; i++) this.below(2);
  }
  below(n: number): number {
    let x = this.#x;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#x = x;
    return (x >>> 0) % n;
  }
  oneOf<T>(values: readonly T[]): T {
    return values[this.below(values.length)]!;
  }
  /** Once in `n`. */
  rarely(n: number): boolean {
    return this.below(n) === 0;
  }
  /** A number that somebody might have forgotten. */
  odd(): number {
    return this.oneOf([
      0,
      1,
      2,
      7,
      8,
      16,
      0xff,
      0x1000,
      4096 * 3,
      0x7fff_ffff,
      0x8000_0000,
      0xffff_fff8,
      0xffff_ffff,
      this.below(5000),
    ]);
  }
}

/** Runs `cases` cases over rounds of a fresh machine each; a failure names the seed of its round. */
function fuzz(cases: number, perRound: number, round: (chance: Chance, cases: number) => void): void {
  for (let done = 0, seed = SEED; done < cases * MULTIPLE; done += perRound, seed++) {
    try {
      round(new Chance(seed), perRound);
    } catch (error) {
      throw new Error(`FUZZ_SEED=${seed}`, { cause: error });
    }
  }
}

const DEVICES = 4;
class Target {
  readonly guest = new ScriptedGuest({ bytes: 512 * 1024, processors: 2 });
  readonly devices = Array.from({ length: DEVICES }, (_, i) => new ScriptedDevice(i + 1));
  /** Of the devices that are plugged in, and those devices. */
  readonly offers = this.devices.map((d) => this.guest.server.offer(d));
  readonly plugged = [...this.devices];
  readonly chance: Chance;
  readonly channels: GuestChannel[] = [];
  /** Messages of ordinary life, to be spoilt or put out of order. */
  readonly valid: Uint8Array[] = [];
  #onMessage: (message: Uint8Array, connection: number) => void;

  constructor(chance: Chance) {
    this.chance = chance;
    for (const device of this.devices) device.keep = false;
    const { server } = this.guest;
    this.#onMessage = (message, connection) => server.onMessage(message, message.length, connection);
    const post = this.guest.post.bind(this.guest);
    this.guest.post = (message, connection) => {
      this.valid.push(message.slice());
      post(message, connection);
    };
    server.onTlConnect = (endpoint, service) => {
      if (chance.rarely(2)) server.sendTlConnectResult(endpoint, service, 1);
    };
    this.guest.connect(chance.oneOf([0x50003, 0x50003, 0x50000, 0x40000, 0x20004]));
    for (const device of this.devices.slice(1))
      this.channels.push(this.guest.open(device.offer.classId, { ringPages: 2 }));
    this.offers[1]!.offerSubChannels(2);
    this.guest.turn();
    this.guest.gpadl(1, this.guest.pages(60));
    const [endpoint, service] = [testGuid(1), testGuid(2)];
    this.valid.push(
      protocol.TlConnectRequest.encode({ endpoint, service }, 16),
      protocol.ModifyChannel.encode({ relid: 2, targetVp: 1 }),
      protocol.CloseChannel.encode({ relid: 3 }),
      protocol.RelIdReleased.encode({ relid: 4 }),
      protocol.GpadlTeardown.encode({ relid: 1, gpadl: 0xe1e13 }),
      ...gpadlMessages(2, 7, [{ byteCount: 8192, byteOffset: 0, pages: [3, 4] }]),
    );
  }
  post(message: Uint8Array): void {
    this.#onMessage(message, this.chance.oneOf([1, 4, 4, 4, 0, 99]));
  }
  /** Lets the host work, and checks that it stays within its bounds. */
  settle(answers?: Map<number, number>): void {
    const { server, synic } = this.guest;
    let turns = 0;
    while (server.run(64)) assert.ok(++turns < 10_000, "the host comes to an end");
    server.flush();
    const { gpadls } = server;
    assert.ok(gpadls.count <= MAX_GPADLS && gpadls.incompleteCount <= MAX_ASSEMBLIES && gpadls.entries <= 16384);
    assert.ok(server.queuedMessages <= 4096);
    assert.ok(synic.messages.length < 5000 && synic.flags.size < 5000);
    assert.equal(gpadls.count + gpadls.incompleteCount > 0, gpadls.entries > 0);
    for (const { bytes } of synic.messages) {
      const type = protocol.messageType(bytes);
      answers?.set(type, (answers.get(type) ?? 0) + 1);
    }
    synic.messages.length = 0;
    synic.flags.clear();
    const status = server.channels();
    assert.ok(status.length <= DEVICES * 2 + 8);
    // The processors know exactly the connections of open channels, and services exactly those they were not told to leave.
    const open = status.filter((c) => c.state === "open").map((c) => c.relid);
    assert.deepEqual(
      [...synic.connections].sort((a, b) => a - b),
      open,
    );
    assert.equal(
      this.devices.reduce((sum, d) => sum + d.channels.size, 0),
      open.length,
    );
    assert.equal(
      this.devices.reduce((sum, d) => sum + d.opens - d.closes, 0),
      open.length,
    );
  }
  /** The host unplugs a device and plugs in another of the same name. */
  replug(): void {
    const i = this.chance.below(DEVICES);
    this.offers[i]!.rescind();
    const device = new ScriptedDevice(i + 1);
    device.keep = false;
    this.devices.push(device);
    this.plugged[i] = device;
    this.offers[i] = this.guest.server.offer(device);
  }
  /** After everything a new kernel must still find a working host. */
  finish(): void {
    for (const device of this.devices) {
      device.echo = true;
      device.onPacket = undefined;
    }
    this.guest.synic.capacity = Number.POSITIVE_INFINITY;
    this.guest.connect();
    const device = this.plugged[3]!;
    const channel = this.guest.open(device.offer.classId);
    channel.send(Uint8Array.of(1, 2, 3), { transaction: 77 });
    this.guest.turn();
    assert.equal(channel.receive()?.transactionLow, 77);
  }
}

function spoil(message: Uint8Array, chance: Chance): Uint8Array {
  const out = message.slice();
  const view = new DataView(out.buffer);
  for (let n = chance.below(3); n > 0; n--) {
    // Mostly whole fields, which are at multiples of 4; the type rarely.
    const at = 4 * (chance.rarely(12) ? 0 : 2 + chance.below(Math.max(1, Math.min(8, out.length / 4 - 2))));
    if (at + 4 > out.length) continue;
    const old = view.getUint32(at, true);
    view.setUint32(
      at,
      chance.oneOf([
        old,
        old + 1,
        old - 1,
        old ^ (1 << chance.below(32)),
        chance.below(8),
        chance.below(26),
        chance.odd(),
        0xe1e10 + chance.below(8),
      ]),
      true,
    );
  }
  if (chance.rarely(10)) return out.slice(0, chance.below(out.length + 1));
  if (!chance.rarely(20)) return out;
  const longer = new Uint8Array(240);
  longer.set(out);
  return longer;
}

describe("VMBus and a hostile guest", () => {
  it("survives messages spoilt, out of order, and of no sense", () => {
    let opens = 0;
    const answers = new Map<number, number>();
    fuzz(120_000, 400, (chance, cases) => {
      const t = new Target(chance);
      t.settle();
      for (let i = 0; i < cases; i++) {
        if (chance.rarely(20)) t.post(Uint8Array.from({ length: chance.below(241) }, () => chance.below(256)));
        else if (chance.rarely(150)) t.post(protocol.Unload.encode({}));
        else if (chance.rarely(30)) for (const m of t.valid.slice(0, 2 + chance.below(30))) t.post(m);
        else t.post(spoil(chance.oneOf(t.valid), chance));
        if (chance.rarely(8))
          t.guest.server.onSignal(chance.oneOf([0, 1, 2, 3, 2047, 2048, CONNECTION_BASE + 1, -1, 1e9]));
        if (chance.rarely(60)) t.guest.synic.capacity = chance.oneOf([0, 3, 1e9]);
        if (chance.rarely(40)) t.offers[1]!.offerSubChannels(chance.below(3));
        if (chance.rarely(50)) t.replug();
        t.settle(answers);
      }
      opens += t.devices.reduce((sum, d) => sum + d.opens, 0);
      t.finish();
    });
    // Far enough in to matter: channels were opened, and every answer occurs.
    for (const message of protocol.messages())
      if (message.toGuest)
        assert.ok((answers.get(message.type) ?? 0) > 100 * Math.min(1, MULTIPLE), `${message.name} was sent`);
    assert.ok(opens > 2000 * Math.min(1, MULTIPLE), `${opens} opened`);
  });

  it("survives GPADLs of every wrong kind", () => {
    let complete = 0;
    let refused = 0;
    fuzz(60_000, 400, (chance, cases) => {
      const t = new Target(chance);
      const bodies: Uint8Array[] = [];
      for (let i = 0; i < cases; i++) {
        const ranges: PageRange[] = Array.from({ length: 1 + chance.below(3) }, () => {
          const byteOffset = chance.rarely(3) ? chance.below(4096) : 0;
          const byteCount = chance.rarely(20) ? chance.odd() % 0x100000 : chance.below(200_000);
          const length = Math.ceil((byteOffset + byteCount) / 4096) + (chance.rarely(10) ? chance.below(5) - 2 : 0);
          const page = (): number => (chance.rarely(2000) ? 128 + chance.below(2 ** 30) : chance.below(128));
          return { byteCount, byteOffset, pages: Array.from({ length: Math.max(0, length) }, page) };
        });
        const messages = gpadlMessages(1 + chance.below(5), 0xe1e10 + chance.below(300), ranges);
        for (const message of messages) {
          const m = chance.rarely(6) ? spoil(message, chance) : message;
          if (chance.rarely(8)) bodies.push(m);
          else t.post(m);
        }
        if (chance.rarely(3) && bodies.length > 0) t.post(bodies.splice(chance.below(bodies.length), 1)[0]!);
        if (chance.rarely(2))
          t.post(protocol.GpadlTeardown.encode({ relid: 1 + chance.below(5), gpadl: 0xe1e10 + chance.below(300) }));
        if (chance.rarely(30)) {
          const relid = 1 + chance.below(5);
          t.post(protocol.CloseChannel.encode({ relid }));
          t.post(
            protocol.OpenChannel.encode({
              relid,
              openId: 1,
              ringGpadl: 0xe1e10 + chance.below(300),
              targetVp: chance.below(3),
              downstreamOffset: chance.oneOf([2, 2, 3, 0, 1, 40, 0xffff_ffff]),
              userData: new Uint8Array(4),
            }),
          );
        }
        for (const { bytes } of t.guest.synic.messages) {
          if (protocol.messageType(bytes) !== protocol.GpadlCreated.type) continue;
          if (protocol.GpadlCreated.decode(bytes).status === 0) complete++;
          else refused++;
        }
        t.settle();
      }
      t.finish();
    });
    assert.ok(Math.min(complete, refused) > 10_000 * Math.min(1, MULTIPLE), `${complete} complete, ${refused} refused`);
  });

  it("survives rings whose indices and packets are spoilt", () => {
    let failed = 0;
    let packets = 0;
    fuzz(140_000, 700, (chance, cases) => {
      const t = new Target(chance);
      for (const device of t.devices) {
        device.onPacket = (_packet, channel) => {
          packets++;
          if (chance.rarely(50)) channel.pause();
          else if (chance.rarely(10)) channel.resume();
        };
        device.echo = chance.rarely(2);
      }
      for (let i = 0; i < cases; i++) {
        const at = chance.below(t.channels.length);
        const channel = t.channels[at]!;
        spoilRing(channel, chance);
        t.guest.server.onSignal(channel.relid);
        t.settle();
        for (const device of t.devices) for (const c of device.channels.values()) if (chance.rarely(4)) c.resume();
        if (t.guest.server.channels().find((c) => c.relid === channel.relid)?.state === "open") continue;
        // The guest's driver starts again.
        failed++;
        channel.close();
        t.channels[at] = t.guest.open(channel.relid, { ringPages: 2 + chance.below(2) });
      }
      t.finish();
    });
    // Both kinds of cases occur: those that the host must refuse, and those that look right.
    assert.ok(
      failed > 10_000 * Math.min(1, MULTIPLE) && packets > 50_000 * Math.min(1, MULTIPLE),
      `${failed} failed, ${packets} packets`,
    );
  });

  it("survives a guest that writes to its rings while they are read", () => {
    // Every record in the trace and every store of the host lets the guest change a word: what was checked must be what is used.
    fuzz(30_000, 500, (chance, cases) => {
      const t = new Target(chance);
      let channel = t.channels[0]!;
      const { memory } = t.guest;
      const written = memory.written.bind(memory);
      let isArmed = false;
      memory.written = (gpa, length) => {
        written(gpa, length);
        if (!isArmed || !chance.rarely(3)) return;
        const ring = chance.rarely(2) ? channel.out : channel.in;
        if (chance.rarely(2))
          ring.store(chance.oneOf([0, 4, 8, 12, 64]), chance.oneOf([chance.odd(), chance.below(512) * 8]));
        else memory.words[(ring.pages[1]! * 4096) / 4 + chance.below(64)] = chance.odd();
      };
      for (let i = 0; i < cases; i++) {
        for (let n = chance.below(4); n > 0; n--) channel.send(new Uint8Array(chance.below(300)));
        t.guest.server.onSignal(channel.relid);
        isArmed = true;
        t.settle();
        isArmed = false;
        if (t.devices[1]!.channels.has(0)) continue;
        channel.close();
        channel = t.guest.open(channel.relid, { ringPages: 2 });
      }
      t.finish();
    });
  });
});

function spoilRing(channel: GuestChannel, chance: Chance): void {
  const { out } = channel;
  const ranges: PageRange[] | undefined = chance.rarely(2)
    ? undefined
    : Array.from({ length: chance.below(4) }, () => ({
        byteCount: chance.below(9000),
        byteOffset: chance.below(600),
        pages: Array.from({ length: 1 + chance.below(3) }, () =>
          chance.rarely(40) ? chance.odd() : chance.below(128),
        ),
      }));
  const packet = packetBytes(new Uint8Array(chance.below(400)), {
    type: ranges === undefined ? chance.oneOf([6, 6, 11, 7, 0, 0xffff]) : 9,
    flags: chance.below(2),
    transactionLow: chance.odd(),
    transactionHigh: chance.odd(),
    ...(ranges === undefined ? {} : { ranges }),
  });
  const view = new DataView(packet.buffer);
  switch (chance.below(12)) {
    case 0:
      view.setUint16(2, chance.oneOf([0, 1, 2, 3, 4, 0xffff, chance.below(80)]), true);
      break;
    case 1:
      view.setUint16(4, chance.oneOf([0, 1, 2, 3, 0xffff, chance.below(80)]), true);
      break;
    case 2:
      view.setUint32((4 * (4 + chance.below(Math.max(1, packet.length / 4 - 4)))) % packet.length, chance.odd(), true);
      break;
    case 3:
      out.store(chance.oneOf([0, 4, 8, 12, 64]), chance.odd());
      break;
    case 4:
      channel.in.store(chance.oneOf([0, 4, 8, 12, 64]), chance.oneOf([chance.odd(), chance.below(512) * 8]));
      break;
    default:
      break;
  }
  if (out.write < out.size) channel.sendRaw(packet);
  if (chance.rarely(20)) out.store(0, chance.below(out.size / 8) * 8);
  if (chance.rarely(3) && channel.in.read !== channel.in.write)
    try {
      channel.receiveAll();
    } catch {
      // The guest spoilt its own ring.
      channel.in.store(4, 0);
    }
}
