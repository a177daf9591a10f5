/** One TCP endpoint against a scripted peer: segment by segment, with the numbers of RFC 9293's states. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { Budget, EarlyQueue, SendQueue } from "./byte-queue.js";
import { FrameBuffer, TcpFlags, TcpHeader } from "./header.js";
import { noise } from "./scripted-network.js";
import type { TcpEnd, TcpSettings } from "./tcp.js";
import { TcpEndpoint } from "./tcp-endpoint.js";
import { Timers } from "./timers.js";

const { SYN, ACK, FIN, RST, PSH } = TcpFlags;
const ISS = 0x7fff_fff0; // wraps round soon
const PEER = 0xffff_fff0 | 0;

interface Sent {
  flags: number;
  seq: number;
  ack: number;
  window: number;
  data: Uint8Array;
  options: number[];
  segmentSize: number;
}

class Bed {
  now = 1e9;
  room = true;
  depth = true;
  readonly sent: Sent[] = [];
  readonly log: string[] = [];
  readonly data: number[] = [];
  consume = true;
  readonly timers = new Timers();
  readonly budget = new Budget(1 << 30);
  readonly tcp: TcpEndpoint;
  readonly #f = new FrameBuffer(70_000);
  constructor(settings: Partial<TcpSettings> = {}) {
    const bed = this;
    this.tcp = new TcpEndpoint(
      {
        localPort: 80,
        remotePort: 1000,
        mss: 1000,
        longSegment: 1000,
        receiveBytes: 60_000,
        sendBytes: 50_000,
        budget: this.budget,
        ...settings,
      },
      {
        now: () => this.now,
        transportAt: 0,
        begin: () => (this.depth ? this.#f : undefined),
        end: (f, header, data, segmentSize) => {
          if (!this.room) return false;
          const v = f.view;
          this.sent.push({
            flags: v.getUint8(13),
            seq: v.getInt32(4),
            ack: v.getInt32(8),
            window: v.getUint16(14),
            data: f.bytes.slice(header, header + data),
            options: [...f.bytes.subarray(20, header)],
            segmentSize,
          });
          return true;
        },
      },
      {
        onConnect: () => void this.log.push("connect"),
        onData(bytes) {
          bed.data.push(...bytes);
          if (bed.consume) bed.tcp.consumed(bytes.length);
        },
        onEnd: () => void this.log.push("end"),
        onWritable: () => void this.log.push("writable"),
        onClose: (why: TcpEnd) => void this.log.push(why),
        onReleased: () => void this.log.push("released"),
      },
      this.timers,
      ISS,
    );
  }
  /** A segment from the peer; numbers relative to the first byte of each side. */
  in(
    flags: number,
    seq: number,
    ack: number,
    data: Uint8Array = new Uint8Array(0),
    window = 0xffff,
    options: number[] = [],
  ): Sent[] {
    const header = 20 + options.length;
    const bytes = new Uint8Array(header + data.length);
    const view = new DataView(bytes.buffer);
    view.setInt32(4, PEER + 1 + seq);
    view.setInt32(8, ISS + 1 + ack);
    view.setUint16(12, ((header >> 2) << 12) | flags);
    view.setUint16(14, window);
    bytes.set(options, 20);
    bytes.set(data, header);
    const h = new TcpHeader();
    assert.ok(h.parse(view, 0, bytes.length));
    if (this.tcp.state === "closed" && this.sent.length === 0 && this.log.length === 0) this.tcp.hold(h);
    else this.tcp.input(h, bytes);
    return this.take();
  }
  take(): Sent[] {
    return this.sent
      .splice(0)
      .map((s) => ({ ...s, seq: (s.seq - ISS - 1) | 0, ack: (s.flags & ACK) === 0 ? 0 : (s.ack - PEER - 1) | 0 }));
  }
  wait(ns: number): Sent[] {
    const end = this.now + ns;
    for (;;) {
      const next = this.timers.next();
      if (next > end) break;
      this.now = next;
      this.timers.runDue(next);
    }
    this.now = end;
    return this.take();
  }
  /** Accepted, with the handshake done. */
  static open(settings: Partial<TcpSettings> = {}, options: number[] = [2, 4, 3, 232], window = 0xffff): Bed {
    const bed = new Bed(settings);
    bed.in(SYN, -1, 0, undefined, 0xffff, options);
    bed.tcp.accept();
    assert.deepEqual(
      bed.take().map((s) => [s.flags, s.seq, s.ack]),
      [[SYN | ACK, -1, 0]],
    );
    bed.in(ACK, 0, 0, undefined, window);
    assert.equal(bed.tcp.state, "established");
    return bed;
  }
}
const brief = (list: Sent[]): unknown[] => list.map((s) => [s.flags, s.seq, s.ack, s.data.length]);

describe("an endpoint that is opened", () => {
  it("agrees on what the peer offers, and on nothing else", () => {
    const all = new Bed();
    all.in(SYN, -1, 0, undefined, 0xffff, [2, 4, 5, 180, 4, 2, 3, 3, 9, 1, 1, 1]);
    all.tcp.accept();
    assert.deepEqual(all.take()[0]!.options, [2, 4, 3, 232, 4, 2, 1, 1, 1, 3, 3, 7]);
    assert.equal(all.tcp.peerMss, 1460);
    const none = new Bed();
    none.in(SYN, -1, 0);
    none.tcp.accept();
    none.tcp.accept();
    assert.deepEqual(
      none.take().map((s) => s.options),
      [[2, 4, 3, 232, 1, 1, 1, 1]],
    );
    assert.equal(none.tcp.peerMss, 536);
  });
  it("refuses by a reset that acknowledges the SYN", () => {
    const bed = new Bed();
    bed.in(SYN, -1, 0);
    bed.tcp.refuse();
    bed.tcp.refuse();
    assert.deepEqual(
      bed.take().map((s) => [s.flags, s.ack]),
      [[RST | ACK, 0]],
    );
    assert.deepEqual(bed.log, ["released"]);
    const other = new Bed();
    other.in(SYN, -1, 0);
    assert.deepEqual(brief(other.in(SYN, -1, 0)), []);
    other.in(RST, 5, 0);
    assert.equal(other.tcp.state, "held");
    other.in(RST, 0, 0);
    assert.deepEqual(other.log, ["reset", "released"]);
    const third = new Bed();
    third.in(SYN, -1, 0);
    third.tcp.abort();
    assert.equal(third.take()[0]!.flags, RST | ACK);
  });
  it("sends its SYN again, to a bound", () => {
    const bed = new Bed();
    bed.in(SYN, -1, 0);
    bed.tcp.accept();
    bed.take();
    assert.deepEqual(brief(bed.in(SYN, -1, 0)), [[SYN | ACK, -1, 0, 0]]); // the peer's came twice
    assert.deepEqual(
      bed.wait(3.5e9).map((s) => s.flags),
      [SYN | ACK, SYN | ACK],
    );
    bed.in(ACK, 0, 99);
    const reset = bed.in(ACK, 0, -1);
    assert.ok(reset.every((s) => (s.flags & RST) !== 0));
    assert.equal(bed.wait(500e9).at(-1)!.flags, RST | ACK);
    assert.deepEqual(bed.log, ["timeout", "released"]);
  });
  it("connects, and is not misled by what is not for it", () => {
    const bed = new Bed();
    bed.tcp.connect();
    assert.deepEqual(
      bed.take().map((s) => [s.flags, s.seq, s.options.length]),
      [[SYN, -1, 12]],
    );
    assert.deepEqual(brief(bed.in(ACK, 0, 5)), [[RST, 5, 0, 0]]);
    assert.deepEqual(brief(bed.in(RST | ACK, 0, 5)), []);
    assert.deepEqual(brief(bed.in(RST, 0, 0)), []);
    assert.deepEqual(brief(bed.in(ACK, 0, 0)), []);
    bed.tcp.hurry();
    assert.equal(bed.take().length, 1);
    assert.deepEqual(brief(bed.in(SYN | ACK, -1, 0)), [[ACK, 0, 0, 0]]);
    bed.tcp.hurry();
    assert.deepEqual([bed.tcp.state, bed.log], ["established", ["connect"]]);
    const refused = new Bed();
    refused.tcp.connect();
    refused.in(RST | ACK, 0, 0);
    assert.deepEqual(refused.log, ["refused", "released"]);
    const silent = new Bed();
    silent.tcp.connect();
    silent.wait(500e9);
    assert.deepEqual(silent.log, ["timeout", "released"]);
    silent.tcp.connect();
    silent.tcp.abort();
    assert.ok(silent.take().every((s) => s.flags === SYN));
  });
  it("opens from both ends at once", () => {
    const bed = new Bed();
    bed.tcp.connect();
    bed.take();
    assert.deepEqual(brief(bed.in(SYN, -1, 0)), [[SYN | ACK, -1, 0, 0]]);
    assert.deepEqual(brief(bed.in(SYN | ACK, -1, 0)), [[ACK, 0, 0, 0]]);
    assert.deepEqual([bed.tcp.state, bed.log], ["established", ["connect"]]);
  });
  it("sends what was given before, and the end too", () => {
    const bed = new Bed();
    bed.tcp.connect();
    bed.tcp.send(Uint8Array.of(1, 2));
    bed.tcp.shutdown();
    bed.tcp.shutdown();
    bed.tcp.send(Uint8Array.of(3));
    bed.take();
    assert.deepEqual(brief(bed.in(SYN | ACK, -1, 0)), [[ACK | PSH | FIN, 0, 0, 2]]);
    assert.equal(bed.tcp.state, "fin-wait-1");
  });
});

describe("an endpoint that receives", () => {
  it("acknowledges every segment, keeps what comes early, and says what it has (SACK)", () => {
    const bed = Bed.open({}, [2, 4, 3, 232, 4, 2, 1, 1]);
    const data = noise(50, 1);
    assert.deepEqual(brief(bed.in(ACK, 0, 0, data.subarray(0, 10))), [[ACK, 0, 10, 0]]);
    const early = bed.in(ACK, 20, 0, data.subarray(20, 30));
    assert.deepEqual(brief(early), [[ACK, 0, 10, 0]]);
    assert.deepEqual(early[0]!.options.slice(0, 4), [1, 1, 5, 10]);
    const second = bed.in(ACK, 40, 0, data.subarray(40, 50))[0]!;
    const edges = new DataView(Uint8Array.from(second.options).buffer);
    assert.deepEqual(
      [4, 8, 12, 16].map((at) => (edges.getInt32(at) - PEER - 1) | 0),
      [40, 50, 20, 30],
    );
    assert.deepEqual(brief(bed.in(ACK, 5, 0, data.subarray(5, 25))), [[ACK, 0, 30, 0]]);
    assert.deepEqual(brief(bed.in(ACK, 30, 0, data.subarray(30, 40))), [[ACK, 0, 50, 0]]);
    assert.deepEqual(bed.data, [...data]);
    assert.equal(bed.budget.used, 0);
    assert.deepEqual(brief(bed.in(ACK, 0, 0, data)), [[ACK, 0, 50, 0]]); // came twice
  });
  it("takes no more than its window, which opens when the user has consumed", () => {
    const bed = Bed.open({ receiveBytes: 3000 });
    bed.consume = false;
    assert.equal(bed.in(ACK, 0, 0, noise(1000, 1))[0]!.window, 2000);
    assert.equal(bed.in(ACK, 1000, 0, noise(5000, 2))[0]!.window, 0);
    assert.equal(bed.data.length, 3000);
    assert.deepEqual(brief(bed.in(ACK, 3000, 0, noise(1, 3))), [[ACK, 0, 3000, 0]]); // a probe
    bed.tcp.consumed(500);
    assert.deepEqual(bed.take(), []);
    bed.tcp.consumed(600);
    assert.equal(bed.take()[0]!.window, 1100);
    bed.in(ACK, 3000, 0, noise(1000, 4));
    assert.equal(bed.data.length, 4000);
  });
  it("takes the end in its turn, even early", () => {
    const bed = Bed.open();
    bed.in(ACK | FIN, 10, 0, Uint8Array.of(9));
    assert.deepEqual(bed.log, ["connect"]);
    assert.deepEqual(brief(bed.in(ACK, 0, 0, noise(10, 1))), [[ACK, 0, 12, 0]]);
    assert.deepEqual([bed.tcp.state, bed.log], ["close-wait", ["connect", "end"]]);
    assert.deepEqual(brief(bed.in(ACK | FIN, 10, 0, Uint8Array.of(9))), [[ACK, 0, 12, 0]]);
    assert.deepEqual(brief(bed.in(ACK, 12, 0, Uint8Array.of(9))), [[ACK, 0, 12, 0]]); // after the end
    bed.tcp.consumed(0);
    bed.tcp.shutdown();
    assert.deepEqual(brief(bed.take()), [[ACK | FIN, 0, 12, 0]]);
    bed.in(ACK, 12, 1);
    assert.deepEqual(bed.log, ["connect", "end", "done", "released"]);
  });
  it("goes through every way to the end", () => {
    const first = Bed.open();
    first.tcp.shutdown();
    first.in(ACK, 0, 1);
    assert.equal(first.tcp.state, "fin-wait-2");
    first.in(ACK | FIN, 0, 1);
    assert.equal(first.tcp.state, "time-wait");
    assert.deepEqual(brief(first.in(ACK | FIN, 0, 1)), [[ACK, 1, 1, 0]]);
    assert.deepEqual(brief(first.in(ACK, 0, 1, Uint8Array.of(1))), [[ACK, 1, 1, 0]]);
    first.tcp.shutdown();
    first.wait(3e9);
    assert.deepEqual(first.log, ["connect", "end", "done", "released"]);
    const both = Bed.open();
    both.tcp.shutdown();
    both.in(ACK | FIN, 0, 0);
    assert.equal(both.tcp.state, "closing");
    both.in(ACK, 1, 1);
    assert.equal(both.tcp.state, "time-wait");
    both.tcp.abort();
    assert.deepEqual(both.log, ["connect", "end", "done", "released"]);
    const fast = Bed.open();
    fast.tcp.shutdown();
    fast.take();
    fast.in(ACK | FIN, 0, 1);
    assert.equal(fast.tcp.state, "time-wait");
  });
});

describe("guessed segments (RFC 5961)", () => {
  it("reset only by the exact number; else they are challenged, not too often", () => {
    const bed = Bed.open();
    bed.now += 1e9;
    assert.deepEqual(brief(bed.in(RST, 10, 0)), [[ACK, 0, 0, 0]]);
    assert.deepEqual(brief(bed.in(RST, 11, 0)), []);
    assert.deepEqual(brief(bed.in(RST, 100_000, 0)), []);
    bed.now += 1e9;
    assert.deepEqual(brief(bed.in(SYN, 10, 0)), [[ACK, 0, 0, 0]]);
    assert.equal(bed.tcp.state, "established");
    bed.in(RST, 0, 0);
    assert.deepEqual(bed.log, ["connect", "reset", "released"]);
    assert.deepEqual(brief(bed.in(ACK, 0, 0)), []);
  });
  it("are answered without being believed", () => {
    const bed = Bed.open();
    bed.tcp.send(noise(100, 1));
    bed.take();
    assert.deepEqual(brief(bed.in(ACK, 0, 5000)), [[ACK, 100, 0, 0]]); // of what was never sent
    assert.deepEqual(brief(bed.in(ACK, 1_000_000, 100)), [[ACK, 100, 0, 0]]); // outside the window
    assert.deepEqual(brief(bed.in(PSH, 0, 0, Uint8Array.of(1))), []); // no acknowledgement
    assert.equal(bed.tcp.queued, 100);
    assert.equal(bed.data.length, 0);
  });
});

describe("an endpoint that sends", () => {
  it("keeps to the peer's window and size, and cuts long segments to whole ones", () => {
    const bed = Bed.open({ longSegment: 3500 }, [2, 4, 3, 232], 5000);
    bed.tcp.send(noise(20_000, 1));
    assert.deepEqual(
      bed.take().map((s) => [s.data.length, s.segmentSize]),
      [
        [3000, 1000],
        [2000, 1000],
      ],
    );
    assert.deepEqual(brief(bed.in(ACK, 0, 3000, undefined, 2500)), []); // 500 bytes would be silly
    assert.deepEqual(
      bed.in(ACK, 0, 5000, undefined, 500).map((s) => s.data.length),
      [500],
    );
  });
  it("asks to wait above its limit, and says when it goes on", () => {
    const bed = Bed.open({ sendBytes: 10_000 });
    assert.ok(bed.tcp.send(noise(6000, 1)));
    assert.ok(!bed.tcp.send(noise(6000, 2)));
    bed.in(ACK, 0, 6000);
    assert.deepEqual(bed.log, ["connect"]);
    bed.in(ACK, 0, 8000);
    assert.deepEqual(bed.log, ["connect", "writable"]);
  });
  it("sends again after a time that doubles, and gives up", () => {
    const bed = Bed.open();
    bed.tcp.send(noise(2500, 1));
    assert.equal(bed.take().length, 3);
    bed.now += 10e6;
    bed.in(ACK, 0, 1000);
    assert.deepEqual(bed.wait(0.99e9), []);
    const again = bed.wait(6.1e9);
    assert.deepEqual(
      again.map((s) => [s.seq, s.data.length]),
      [
        [1000, 1000],
        [1000, 1000],
        [1000, 1000],
      ],
    );
    assert.deepEqual(
      bed.in(ACK, 0, 2000).map((s) => [s.seq, s.data.length]),
      [[2000, 500]],
    );
    bed.tcp.shutdown();
    const end = bed.wait(1000e9);
    assert.ok(end.length > 8 && end.at(-1)!.flags === (RST | ACK));
    assert.deepEqual(bed.log, ["connect", "timeout", "released"]);
    assert.equal(bed.budget.used, 0);
  });
  it("fills one hole after the other on duplicate acknowledgements", () => {
    const bed = Bed.open();
    bed.tcp.send(noise(10_000, 1));
    bed.in(ACK, 0, 1000);
    for (let i = 0; i < 2; i++) assert.deepEqual(bed.in(ACK, 0, 1000), []);
    assert.deepEqual(
      bed.in(ACK, 0, 1000).map((s) => s.seq),
      [1000],
    );
    for (let i = 0; i < 5; i++) bed.in(ACK, 0, 1000);
    assert.deepEqual(
      bed.in(ACK, 0, 4000).map((s) => s.seq),
      [4000],
    );
    assert.deepEqual(bed.in(ACK, 0, 10_000), []);
    bed.tcp.send(noise(3000, 2));
    assert.ok(bed.take().length >= 1);
    assert.equal(bed.tcp.retransmissions, 2);
  });
  it("probes a closed window, with less and less zeal, and gives up only without answers", () => {
    const bed = Bed.open({}, [], 0);
    bed.tcp.send(noise(600, 1));
    assert.deepEqual(bed.take(), []);
    let probes = 0;
    for (let i = 0; i < 20; i++) {
      for (const p of bed.wait(30e9)) {
        assert.deepEqual([p.seq, p.data.length], [-1, 0]);
        probes++;
        bed.in(ACK, 0, 0, undefined, 0);
      }
    }
    assert.ok(probes > 8 && probes < 30, `${probes}`);
    assert.deepEqual(
      bed.in(ACK, 0, 0, undefined, 1000).map((s) => [s.seq, s.data.length]),
      [
        [0, 536],
        [536, 64],
      ],
    );
    // the end alone behind a closed window
    bed.in(ACK, 0, 600, undefined, 0);
    bed.tcp.shutdown();
    assert.deepEqual(bed.take(), []);
    assert.deepEqual(brief(bed.wait(1.1e9)), [[ACK, 599, 0, 0]]);
    assert.deepEqual(brief(bed.in(ACK, 0, 600, undefined, 100)), [[ACK | FIN, 600, 0, 0]]);
    bed.in(ACK, 0, 601, undefined, 0);
    assert.equal(bed.tcp.state, "fin-wait-2");
    // a window that closes over what is on its way
    const other = Bed.open();
    other.tcp.send(noise(2000, 1));
    other.take();
    other.in(ACK, 0, 1000, undefined, 0);
    assert.ok(other.wait(2e9).every((s) => s.seq === 999 && s.data.length === 0));
    other.wait(1000e9);
    assert.deepEqual(other.log, ["connect", "timeout", "released"]);
  });
  it("waits for room and loses nothing", () => {
    const bed = Bed.open();
    bed.room = false;
    bed.tcp.send(noise(1500, 1));
    assert.ok(bed.tcp.isBlocked);
    bed.in(ACK, 0, 0, noise(10, 1)); // its acknowledgement has no room either
    bed.wait(3e9);
    bed.room = true;
    bed.tcp.room();
    bed.tcp.room();
    assert.deepEqual(brief(bed.take()), [
      [ACK, 0, 10, 1000],
      [ACK | PSH, 1000, 10, 500],
    ]);
    bed.depth = false;
    bed.in(ACK, 10, 0, noise(10, 2));
    bed.depth = true;
    bed.tcp.room();
    assert.deepEqual(
      bed.take().map((s) => s.ack),
      [20],
    );
    const opening = new Bed();
    opening.room = false;
    opening.tcp.connect();
    opening.room = true;
    opening.tcp.room();
    assert.deepEqual(
      opening.take().map((s) => s.flags),
      [SYN],
    );
    bed.tcp.forget();
    bed.tcp.forget();
    assert.deepEqual(bed.take(), []);
  });
});

describe("queues", () => {
  it("of bytes to send give back what they were given, from anywhere", () => {
    const piece = fc.oneof(fc.integer({ min: 0, max: 200 }), fc.integer({ min: 3000, max: 20_000 }));
    fc.assert(
      fc.property(fc.array(fc.tuple(piece, fc.double({ min: 0, max: 1, noNaN: true })), { maxLength: 120 }), (acts) => {
        const budget = new Budget(1);
        const queue = new SendQueue(budget);
        let model: number[] = [];
        acts.forEach(([size, share], i) => {
          const bytes = noise(size, i);
          queue.push(bytes);
          model.push(...bytes);
          const drop = Math.floor(model.length * share * share);
          const out = new Uint8Array(Math.min(50, model.length - drop));
          if (out.length > 0) queue.copy(drop, out.length, out, 0);
          assert.deepEqual([...out], model.slice(drop, drop + out.length));
          queue.drop(drop);
          model = model.slice(drop);
          assert.deepEqual([queue.length, budget.used], [model.length, model.length]);
        });
        queue.clear();
        assert.equal(budget.used, 0);
      }),
      { numRuns: 30 },
    );
  });
  it("of early bytes give each byte once, in order", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(200), fc.nat(40)), { maxLength: 60 }), fc.integer(), (pieces, base) => {
        const budget = new Budget(1);
        const queue = new EarlyQueue(budget);
        const truth = noise(300, 1);
        const has = new Set<number>();
        for (const [from, length] of pieces) {
          queue.add((base + from) | 0, truth.subarray(from, from + length));
          for (let i = from; i < from + length; i++) has.add(i);
        }
        const blocks = new Int32Array(6);
        const n = queue.blocks(base, blocks, 3);
        for (let i = 0; i < n; i++)
          for (let s = blocks[2 * i]!; s !== blocks[2 * i + 1]!; s = (s + 1) | 0) assert.ok(has.has((s - base) | 0));
        for (let at = 0; at < 300; ) {
          const got = queue.take((base + at) | 0);
          if (got === undefined) {
            assert.ok(!has.has(at));
            at++;
          } else {
            assert.deepEqual(got, truth.slice(at, at + got.length));
            at += got.length;
          }
        }
        assert.deepEqual([queue.count, budget.used], [0, 0]);
      }),
    );
  });
  it("of early bytes are bounded in pieces", () => {
    const queue = new EarlyQueue(new Budget(1));
    for (let i = 0; i < 1000; i++) queue.add(i * 2, Uint8Array.of(1));
    assert.equal(queue.count, 256);
    queue.clear();
    assert.equal(queue.count, 0);
  });
});
