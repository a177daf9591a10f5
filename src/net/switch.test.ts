/** The switch, the capture file, deadlines and reassembly by themselves. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { ip } from "./address.js";
import { FrameBuffer, fragmentBytes, writeEthernet, writeFragmentHeader, writeIpv4, writeIpv6 } from "./header.js";
import { EtherType, IpProtocol, Packet } from "./packet.js";
import { PcapngWriter, tap } from "./pcapng.js";
import { EthernetPort, FrameFlags } from "./port.js";
import { Reassembler } from "./reassembly.js";
import { noise, seeded } from "./scripted-network.js";
import { Switch, type SwitchOptions } from "./switch.js";
import { Timer, Timers } from "./timers.js";

const frame = (to: number, from: number, more: number[] = []): Uint8Array =>
  Uint8Array.of(2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 8, 0, ...more);
const broadcast = (from: number): Uint8Array => Uint8Array.of(255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, from, 8, 0);

class Bed {
  now = 0;
  readonly got: string[] = [];
  readonly ends: EthernetPort[] = [];
  readonly inner: EthernetPort[] = [];
  readonly sw: Switch;
  readonly full = new Set<number>();
  rooms: number[] = [];
  constructor(ports: number, options: Partial<SwitchOptions> = {}) {
    this.sw = new Switch({ clock: { now: () => this.now }, random32: seeded(3), ...options });
    for (let i = 0; i < ports; i++) {
      const [a, b] = EthernetPort.cable();
      this.sw.attach(a);
      b.receive = (f) => {
        if (this.full.has(i)) return false;
        this.got.push(`${i}<${f[11]}:${f.length}`);
        return true;
      };
      b.onRoom = () => this.rooms.push(i);
      this.inner.push(a);
      this.ends.push(b);
    }
  }
  send(port: number, f: Uint8Array): string[] {
    this.got.length = 0;
    this.ends[port]!.transmit(f);
    return [...this.got];
  }
}

describe("the switch", () => {
  it("floods what it does not know, and learns where everybody is", () => {
    const bed = new Bed(3);
    assert.deepEqual(bed.send(0, frame(2, 1)), ["1<1:14", "2<1:14"]);
    assert.deepEqual(bed.send(1, frame(1, 2)), ["0<2:14"]);
    assert.deepEqual(bed.send(0, frame(2, 1)), ["1<1:14"]);
    assert.deepEqual(bed.send(2, broadcast(3)), ["0<3:14", "1<3:14"]);
    assert.deepEqual(bed.send(0, frame(1, 1)), []); // to itself
    assert.deepEqual(bed.send(2, frame(2, 1)), ["1<1:14"]); // it has moved
    assert.deepEqual(bed.send(1, frame(1, 2)), ["2<2:14"]);
    assert.deepEqual(bed.sw.addresses, ["02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03"]);
    bed.send(0, frame(1, 1).subarray(0, 13));
    bed.send(0, Uint8Array.of(...frame(1, 1).subarray(0, 6), 3, 0, 0, 0, 0, 1, 8, 0));
    bed.send(0, Uint8Array.of(1, 0x80, 0xc2, 0, 0, 3, 2, 0, 0, 0, 0, 1, 8, 0));
    assert.deepEqual([bed.sw.statistics.filtered, bed.sw.statistics.forwarded, bed.sw.statistics.flooded], [4, 4, 2]);
  });
  it("forgets with time, with a cable, and above its bound", () => {
    const bed = new Bed(3, { maxAddresses: 4 });
    bed.send(0, broadcast(1));
    bed.now = 299e9;
    assert.equal(bed.send(1, frame(1, 2)).length, 1);
    bed.now = 301e9;
    assert.equal(bed.send(1, frame(1, 2)).length, 2);
    bed.ends[1]!.up = false;
    assert.deepEqual(bed.sw.addresses, []);
    bed.ends[1]!.up = true;
    for (let i = 10; i < 30; i++) bed.send(0, broadcast(i));
    assert.equal(bed.sw.addresses.length, 4);
    bed.now = 700e9;
    bed.send(0, broadcast(99));
    assert.equal(bed.sw.addresses.length, 1);
    bed.sw.detach(bed.inner[0]!);
    assert.equal(bed.sw.addresses.length, 0);
    assert.deepEqual(bed.send(0, broadcast(1)), []);
    bed.inner[0]!.onRoom();
    bed.inner[0]!.onLink();
  });
  it("tells the sender that a port has no room, and all when it has again", () => {
    const bed = new Bed(3);
    bed.send(1, broadcast(2));
    bed.full.add(1);
    assert.equal(bed.ends[0]!.transmit(frame(2, 1)), false);
    assert.equal(bed.ends[0]!.transmit(broadcast(1)), true);
    assert.equal(bed.sw.statistics.full, 2);
    bed.ends[1]!.room();
    assert.deepEqual(bed.rooms, [0, 2]);
  });
  it("harms frames as it was told, the same way each time", () => {
    const run = (): [string[], object] => {
      const bed = new Bed(2, { impairments: { loss: 0.1, duplicate: 0.1, reorder: 0.2, corrupt: 0.1, delayNs: 10 } });
      const all: string[] = [];
      for (let i = 0; i < 500; i++) {
        bed.send(0, frame(9, 1, new Array<number>(i).fill(0)));
        bed.now += 100_000;
        bed.sw.runDue(bed.now);
        all.push(...bed.got);
      }
      bed.now += 1e9;
      bed.sw.runDue(bed.now);
      assert.equal(bed.sw.nextDeadline(), Number.POSITIVE_INFINITY);
      return [all, bed.sw.statistics];
    };
    const [a, s] = run();
    assert.deepEqual(run(), [a, s]);
    for (const n of [s].flatMap((x) => [
      Reflect.get(x, "lost"),
      Reflect.get(x, "duplicated"),
      Reflect.get(x, "reordered"),
      Reflect.get(x, "corrupted"),
    ]))
      assert.ok(n > 20);
    const held = new Bed(2, { impairments: { delayNs: 1e9, reorder: 0 } });
    for (let i = 0; i < 5000; i++) held.send(0, frame(9, 1));
    assert.equal(held.sw.statistics.lost, 5000 - 4096);
    const instant = new Bed(2, { impairments: { loss: 0 } });
    assert.equal(instant.send(0, frame(9, 1)).length, 1);
  });
});

/** Blocks of a capture file. */
function blocks(file: Uint8Array): { type: number; body: DataView }[] {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const out = [];
  for (let at = 0; at < file.length; ) {
    const length = view.getUint32(at + 4, true);
    assert.equal(length & 3, 0);
    assert.equal(view.getUint32(at + length - 4, true), length);
    out.push({
      type: view.getUint32(at, true),
      body: new DataView(file.buffer, file.byteOffset + at + 8, length - 12),
    });
    at += length;
  }
  return out;
}

describe("capture files", () => {
  it("have a section, an interface, and every frame with its time and way", () => {
    const parts: Uint8Array[] = [];
    const writer = new PcapngWriter((b) => parts.push(b), "guest", 1.7e18);
    const small = noise(61, 1);
    writer.frame(small, "out", 5);
    writer.frame(noise(62_000, 2), "in", 2 ** 33, FrameFlags.partialChecksum, 1460);
    const file = Uint8Array.from(parts.flatMap((p) => [...p]));
    const [section, description, first, second] = blocks(file);
    assert.deepEqual(
      [section!.type, section!.body.getUint32(0, true), description!.type, description!.body.getUint16(0, true)],
      [0x0a0d0d0a, 0x1a2b3c4d, 1, 1],
    );
    const time = (b: DataView): number => b.getUint32(4, true) * 2 ** 32 + b.getUint32(8, true);
    assert.equal(time(first!.body), 1.7e18);
    assert.deepEqual([first!.type, first!.body.getUint32(12, true)], [6, 61]);
    assert.deepEqual(new Uint8Array(first!.body.buffer, first!.body.byteOffset + 20, 61), small);
    assert.deepEqual([first!.body.getUint16(84, true), first!.body.getUint8(88)], [2, 2]);
    assert.equal(second!.body.getUint32(16, true), 62_000);
    assert.equal(second!.body.getUint8(20 + 62_000 + 4), 1);
    assert.match(
      new TextDecoder().decode(new Uint8Array(second!.body.buffer, second!.body.byteOffset + 62_028)),
      /checksum left out, segments of 1460 bytes/,
    );
    writer.frame(small, "in", 5, FrameFlags.partialChecksum);
    writer.frame(small, "in", 5, 0, 100);
    assert.match(new TextDecoder().decode(parts.at(-2)), /checksum left out/);
    assert.match(new TextDecoder().decode(parts.at(-1)), /segments of 100/);
  });
  it("are written by listening in on a cable, without changing anything", () => {
    let count = 0;
    const writer = new PcapngWriter(() => count++, "guest");
    const [guest, end] = EthernetPort.cable();
    const router = tap(end, writer, { now: () => 0 });
    const got: string[] = [];
    let room = true;
    guest.receive = (f, flags, size) => {
      got.push(`guest ${f.length} ${flags} ${size}`);
      return room;
    };
    router.receive = (f, flags, size) => {
      got.push(`router ${f.length} ${flags} ${size}`);
      return room;
    };
    const events: string[] = [];
    router.onRoom = () => events.push("router room");
    guest.onRoom = () => events.push("guest room");
    router.onLink = () => events.push(`link ${router.link}`);
    assert.ok(guest.transmit(frame(1, 2), 1, 7));
    assert.ok(router.transmit(frame(1, 2), 2));
    assert.equal(count, 4);
    room = false;
    assert.ok(!router.transmit(frame(1, 2)));
    assert.equal(count, 4);
    guest.room();
    router.room();
    guest.up = false;
    guest.up = true;
    assert.deepEqual(got, ["router 14 1 7", "guest 14 2 0", "guest 14 0 0"]);
    assert.deepEqual(events, ["router room", "guest room", "link false", "link true"]);
  });
});

describe("deadlines", () => {
  it("come in order, however they were moved", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(9), fc.option(fc.nat(100))), { maxLength: 60 }), (acts) => {
        const fired: [number, number][] = [];
        const timers = new Timers();
        const all = Array.from({ length: 10 }, (_, i) => new Timer(timers, (now) => fired.push([i, now])));
        const model = new Array<number>(10).fill(Number.POSITIVE_INFINITY);
        for (const [i, when] of acts) {
          model[i] = when ?? Number.POSITIVE_INFINITY;
          if (when === null) all[i]!.cancel();
          else all[i]!.set(when);
          assert.equal(timers.next(), Math.min(...model));
        }
        for (let now = 0; now <= 100; now += 10) timers.runDue(now);
        assert.deepEqual(
          fired.map(([i]) => i).sort(),
          model.flatMap((w, i) => (w === Number.POSITIVE_INFINITY ? [] : [i])),
        );
        for (const [i, now] of fired) assert.equal(now, Math.ceil(model[i]! / 10) * 10);
        assert.equal(timers.next(), Number.POSITIVE_INFINITY);
      }),
    );
  });
  it("tell when the next comes nearer, and do not run for ever", () => {
    let told = 0;
    const timers = new Timers(() => told++);
    const a = new Timer(timers, (now) => a.set(now));
    a.set(10);
    a.set(20);
    a.set(5);
    assert.equal(told, 2);
    timers.runDue(5); // comes to an end
    assert.equal(timers.next(), 5);
  });
});

describe("reassembly", () => {
  /** Fragments of `data` in pieces, of either family. */
  function cut(data: Uint8Array, step: number, v6: boolean, id = 7): Packet[] {
    const out: Packet[] = [];
    for (let at = 0; at < data.length; at += step) {
      const n = Math.min(step, data.length - at);
      out.push(piece(data.subarray(at, at + n), at, at + n < data.length, v6, id));
    }
    return out;
  }
  function piece(data: Uint8Array, at: number, more: boolean, v6: boolean, id = 7): Packet {
    const f = new FrameBuffer(70_000);
    const mac = Uint8Array.of(2, 0, 0, 0, 0, 1);
    const start = writeEthernet(f, mac, mac, v6 ? EtherType.IPV6 : EtherType.IPV4);
    let body = start + 20;
    if (v6) {
      writeIpv6(f, start, ip("fd00::1"), ip("fd00::2"), IpProtocol.FRAGMENT, 64, 8 + data.length);
      writeFragmentHeader(f, start + 40, IpProtocol.UDP, at, more, id);
      body = start + 48;
    } else
      writeIpv4(
        f,
        start,
        ip("10.0.0.1"),
        ip("10.0.0.2"),
        IpProtocol.UDP,
        64,
        id,
        (at >> 3) | (more ? 0x2000 : 0),
        data.length,
      );
    f.bytes.set(data, body);
    const p = new Packet();
    assert.equal(p.parse(f.bytes.subarray(0, body + data.length), FrameFlags.verified, 0), undefined);
    return p;
  }
  it("puts fragments together in any order, some twice", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 17, max: 9000 }),
        fc.integer({ min: 1, max: 100 }),
        fc.boolean(),
        fc.infiniteStream(fc.nat()),
        (length, units, v6, order) => {
          const data = noise(length, length);
          const step = Math.max(units * 8, Math.ceil(length / 100 / 8) * 8);
          const pieces = cut(data, step, v6);
          fc.pre(pieces.length > 1);
          const doubled = [...pieces, pieces[0]!].sort(() => (order.next().value! & 1) - 0.5);
          const r = new Reassembler();
          const got = doubled.flatMap((p) => r.add(p, 0) ?? []);
          assert.equal(got.length, 1);
          const p = new Packet();
          assert.equal(p.parse(got[0]!.frame, 0, 0), undefined);
          assert.deepEqual([p.protocol, p.isFragment, got[0]!.flags], [IpProtocol.UDP, false, FrameFlags.verified]);
          assert.deepEqual(p.bytes.subarray(p.payloadAt, p.ipEnd), data);
        },
      ),
    );
  });
  it("discards what overlaps, is too long or contradicts itself", () => {
    const bad: [string, Packet[]][] = [
      ["overlap", [piece(noise(16, 1), 0, true, false), piece(noise(16, 1), 8, true, false)]],
      ["beyond the end", [piece(noise(8, 1), 16, false, false), piece(noise(16, 1), 16, true, false)]],
      ["two ends", [piece(noise(8, 1), 16, false, false), piece(noise(8, 1), 24, false, false)]],
      ["an end before a piece", [piece(noise(8, 1), 32, true, true), piece(noise(8, 1), 16, false, true)]],
      ["no whole units", [piece(noise(9, 1), 0, true, false)]],
      ["too long", [piece(noise(100, 1), 65_480, false, false)]],
      ["nothing", [piece(noise(0, 1), 8, false, false)]],
    ];
    for (const [what, pieces] of bad) {
      const r = new Reassembler();
      for (const p of pieces) assert.equal(r.add(p, 0), undefined);
      assert.deepEqual([r.discarded, r.bytes], [1, 0], what);
      // nor does the rest of it begin anew
      for (const p of cut(noise(64, 1), 32, pieces[0]!.family === 16)) assert.equal(r.add(p, 1), undefined);
      r.expire(31e9);
      assert.deepEqual([r.count, r.discarded], [0, 1]);
    }
  });
  it("is bounded in datagrams, pieces and time", () => {
    const r = new Reassembler();
    for (let id = 0; id < 50; id++) r.add(piece(noise(8, 1), 0, true, false, id), id);
    assert.deepEqual([r.count, r.bytes], [16, 128]);
    r.clear();
    for (let i = 0; i < 200; i++) r.add(piece(noise(8, 1), i * 16, true, true), 0);
    assert.equal(r.bytes, 0);
    r.add(piece(noise(8, 1), 0, true, false, 99), 100);
    r.add(piece(noise(8, 1), 0, true, false, 98), 31e9);
    assert.equal(r.count, 1);
    assert.deepEqual([fragmentBytes(4, 1500), fragmentBytes(16, 1500)], [1480, 1448]);
  });
});
