/** Loss between two endpoints, in virtual time: everything arrives, in how many round trips, and whatever the peer says that it has. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { Budget } from "./byte-queue.js";
import { FrameBuffer, TcpHeader, TcpOption } from "./header.js";
import { Scoreboard } from "./scoreboard.js";
import { digest, noise, seeded } from "./scripted-network.js";
import type { TcpEnd, TcpSettings } from "./tcp.js";
import { TcpEndpoint } from "./tcp-endpoint.js";
import { Timer, Timers } from "./timers.js";

const MSS = 1000;
const DELAY_NS = 20e6;
const ROUND_TRIP_NS = 2 * DELAY_NS;

interface Line {
  readonly loss: number;
  readonly duplicate: number;
  readonly reorder: number;
}
/** Chances at a sender's end; changed while it runs. */
const PERFECT: Line = { loss: 0, duplicate: 0, reorder: 0 };

/** One end with what it received; segments go to `peer` after a delay. */
class End {
  readonly tcp: TcpEndpoint;
  readonly got: Uint8Array[] = [];
  bytes = 0;
  ended = false;
  why: TcpEnd | undefined;
  peer!: End;
  line = PERFECT;
  /** Looks at each segment on its way; may change it; false: lost. */
  onSegment: (segment: Uint8Array, dataLength: number) => boolean = () => true;
  readonly budget = new Budget(1 << 26);

  constructor(bed: Pair, settings: Partial<TcpSettings>, iss: number) {
    const f = new FrameBuffer(70_000);
    const later = (segment: Uint8Array, ns: number): void =>
      new Timer(bed.timers, () => this.peer.take(segment)).set(bed.now + ns + bed.nextPlace());
    this.tcp = new TcpEndpoint(
      {
        localPort: 1,
        remotePort: 2,
        mss: MSS,
        longSegment: MSS,
        receiveBytes: 1 << 20,
        sendBytes: 1 << 26,
        budget: this.budget,
        ...settings,
      },
      {
        now: () => bed.now,
        transportAt: 0,
        begin: () => f,
        end: (_, header, data) => {
          const segment = f.bytes.slice(0, header + data);
          if (!this.onSegment(segment, data)) return true;
          const { loss, duplicate, reorder } = this.line;
          if (bed.chance(loss)) return true;
          if (bed.chance(duplicate)) later(segment, DELAY_NS);
          later(segment, DELAY_NS + (bed.chance(reorder) ? bed.random() % 5e6 : 0));
          return true;
        },
      },
      {
        onConnect() {},
        onData: (bytes) => {
          this.got.push(bytes.slice());
          this.bytes += bytes.length;
          this.tcp.consumed(bytes.length);
        },
        onEnd: () => {
          this.ended = true;
        },
        onWritable() {},
        onClose: (why) => {
          this.why = why;
        },
        onReleased() {},
      },
      bed.timers,
      iss,
    );
  }
  take(segment: Uint8Array): void {
    const h = new TcpHeader();
    assert.ok(h.parse(new DataView(segment.buffer), 0, segment.length));
    if (this.tcp.state === "closed" && this.why === undefined) {
      this.tcp.hold(h);
      this.tcp.accept();
    } else this.tcp.input(h, segment);
  }
}

/** Two ends that are connected. */
class Pair {
  now = 1e9;
  readonly timers = new Timers();
  readonly random: () => number;
  readonly a: End;
  readonly b: End;
  constructor(seed: number, settings: Partial<TcpSettings> = {}) {
    this.random = seeded(seed);
    this.a = new End(this, settings, this.random());
    this.b = new End(this, settings, this.random());
    this.a.peer = this.b;
    this.b.peer = this.a;
    this.a.tcp.connect();
    this.until(() => this.b.tcp.state === "established");
    // a first exchange, by which the sender knows the round trip
    this.a.tcp.send(Uint8Array.of(0));
    this.until(() => this.a.tcp.queued === 0);
    this.b.got.length = this.b.bytes = 0;
  }
  /** Some ns, so that what is sent in one moment arrives in its order. */
  nextPlace(): number {
    return this.#place++;
  }
  #place = 0;
  chance(of: number): boolean {
    return of > 0 && this.random() / 2 ** 32 < of;
  }
  /** @returns how long it took, in ns */
  until(done: () => boolean, limitNs = 3600e9): number {
    const from = this.now;
    while (!done()) {
      const next = this.timers.next();
      assert.ok(next - from < limitNs, `still waiting after ${(next - from) / 1e9} s`);
      this.now = Math.max(this.now, next);
      this.timers.runDue(this.now);
    }
    return this.now - from;
  }
  /** One window of data and its acknowledgements. @returns round trips */
  roundTrips(data: Uint8Array): number {
    this.b.got.length = this.b.bytes = 0;
    this.a.tcp.send(data.slice());
    const ns = this.until(() => this.a.tcp.queued === 0);
    assert.equal(digest(this.b.got), digest([data]));
    return ns / ROUND_TRIP_NS;
  }
}
const median = (list: readonly number[]): number => [...list].sort((x, y) => x - y)[list.length >> 1]!;
/** Gives a segment's options another content; its data go. */
function withSacks(segment: Uint8Array, edges: readonly number[]): Uint8Array {
  const out = new Uint8Array(20 + 4 + 4 * edges.length);
  out.set(segment.subarray(0, 20));
  const view = new DataView(out.buffer);
  view.setUint8(12, (out.length >> 2) << 4);
  view.setUint32(20, (TcpOption.NOP << 24) | (TcpOption.NOP << 16) | (TcpOption.SACK << 8) | (2 + 4 * edges.length));
  for (const [i, edge] of edges.entries()) view.setInt32(24 + 4 * i, edge);
  return out;
}

describe("recovery from loss", () => {
  const data = noise(100 * MSS, 1);

  it("takes a few round trips for a window of which 5 % are lost", () => {
    const all = Array.from({ length: 40 }, (_, i) => {
      const pair = new Pair(i);
      pair.a.line = { ...PERFECT, loss: 0.05 };
      return pair.roundTrips(data);
    });
    const mean = all.reduce((x, y) => x + y) / all.length;
    if (process.env.ENLIGHTEN_PRINT)
      console.log(`round trips: median ${median(all)}, mean ${mean}, most ${Math.max(...all)}`);
    assert.ok(median(all) <= 3 && mean < 5, `${median(all)} ${mean}`);
  });

  it("sends nothing twice but what was lost", () => {
    const pair = new Pair(1);
    const lost = new Set([3, 4, 20, 50, 51, 52, 80]);
    let n = 0;
    pair.a.onSegment = (_, length) => length === 0 || !lost.has(n++);
    assert.ok(pair.roundTrips(data) <= 4);
    assert.equal(pair.a.tcp.retransmissions, lost.size);
  });

  it("is begun by a probe where the end of what was sent is lost, and by nothing where all came", () => {
    const pair = new Pair(1);
    let n = 0;
    pair.a.onSegment = (_, length) => length === 0 || n++ < 90 || n > 100;
    assert.ok(pair.roundTrips(data) < 8);
    // the probe is the last segment, which need not come again
    assert.equal(pair.a.tcp.retransmissions, 10);
    const other = new Pair(1);
    assert.ok(other.roundTrips(data) < 1.1);
    assert.equal(other.a.tcp.retransmissions, 0);
  });

  it("sends again what was lost again, without the long timer", () => {
    const pair = new Pair(1);
    const seen = new Map<number, number>();
    pair.a.onSegment = (segment, length) => {
      if (length === 0) return true;
      const seq = new DataView(segment.buffer).getInt32(4);
      const times = (seen.get(seq) ?? 0) + 1;
      seen.set(seq, times);
      return seen.size !== 30 || times > 2;
    };
    assert.ok(pair.roundTrips(data) <= 8);
  });

  it("does not take a peer at its word that throws away what it said that it had", () => {
    const pair = new Pair(1);
    let n = 0;
    pair.a.onSegment = (_, length) => length === 0 || n++ < 50 || n > 60;
    let told = false;
    const { b } = pair;
    b.onSegment = (segment) => {
      if (told || b.bytes !== 50 * MSS) return true;
      told = true;
      const ack = new DataView(segment.buffer).getInt32(8);
      b.peer.take(withSacks(segment, [ack + MSS, ack + 50 * MSS]));
      return true;
    };
    pair.roundTrips(data);
    assert.ok(told);
  });

  it("brings everything, in any order of loss, doubles and overtaking, both ways at once, and the ends", () => {
    const chance = fc.double({ min: 0, max: 0.25, noNaN: true });
    const line = fc.record({ loss: chance, duplicate: chance, reorder: chance });
    const long = fc.constantFrom(MSS, 7 * MSS + 300, 64_000);
    fc.assert(
      fc.property(
        fc.nat(),
        line,
        line,
        fc.nat(200_000),
        fc.nat(200_000),
        long,
        (seed, there, back, x, y, longSegment) => {
          const pair = new Pair(seed, { longSegment });
          const { a, b } = pair;
          a.line = there;
          b.line = back;
          const [mine, yours] = [noise(x, 1), noise(y, 2)];
          a.tcp.send(mine.slice());
          a.tcp.shutdown();
          b.tcp.send(yours.slice());
          b.tcp.shutdown();
          pair.until(() => a.ended && b.ended && a.why !== undefined && b.why !== undefined);
          assert.deepEqual([digest(b.got), digest(a.got)], [digest([mine]), digest([yours])]);
          // the last acknowledgement may be lost so often that who is owed it does not wait any longer
          assert.ok(a.why === "done" || b.why === "done", `${a.why} ${b.why}`);
          assert.deepEqual([a.tcp.queued, b.tcp.queued], [0, 0]);
          pair.until(() => a.tcp.state === "closed" && b.tcp.state === "closed");
          assert.deepEqual([a.budget.used, b.budget.used], [0, 0]);
        },
      ),
      { numRuns: 60 },
    );
  });

  it("comes to its end whatever the peer says that it has", () => {
    const edge = fc.oneof(fc.integer(), fc.integer({ min: -3000, max: 120_000 }));
    const blocks = fc.array(fc.array(fc.tuple(edge, edge), { minLength: 1, maxLength: 4 }), {
      minLength: 1,
      maxLength: 40,
    });
    fc.assert(
      fc.property(fc.nat(), blocks, (seed, said) => {
        const pair = new Pair(seed);
        const { a, b } = pair;
        a.line = { ...PERFECT, loss: 0.1 };
        let i = 0;
        b.onSegment = (segment) => {
          if (i >= 200) return true;
          const ack = new DataView(segment.buffer).getInt32(8);
          a.take(
            withSacks(
              segment,
              said[i++ % said.length]!.flat().map((n) => (ack + n) | 0),
            ),
          );
          return true;
        };
        pair.roundTrips(data);
        assert.ok(a.tcp.retransmissions < 1000, String(a.tcp.retransmissions));
      }),
      { numRuns: 60 },
    );
  });
});

describe("the scoreboard", () => {
  /** Numbers are offsets from `una`; it holds what the model holds, as long as it has room. */
  it("keeps what it is told, in order and joined, and nothing that makes no sense", () => {
    const range = fc.tuple(fc.integer({ min: -20, max: 220 }), fc.integer({ min: -20, max: 220 }));
    fc.assert(
      fc.property(fc.integer(), fc.array(fc.oneof(range, fc.nat(30)), { maxLength: 60 }), (base, acts) => {
        const board = new Scoreboard();
        const has = new Set<number>();
        const max = 200;
        let una = 0;
        for (const act of acts) {
          if (typeof act === "number") {
            una = Math.min(max, una + act);
            const reneged = has.has(una);
            for (const n of has) if (n < una || reneged) has.delete(n);
            board.advance((base + una) | 0);
          } else {
            const [left, right] = act;
            const fits = left > una && left < right && right <= max;
            let news = false;
            for (let n = left; fits && n < right; n++) {
              news ||= !has.has(n);
              has.add(n);
            }
            assert.equal(board.add((base + left) | 0, (base + right) | 0, (base + una) | 0, (base + max) | 0), news);
          }
          for (let at = una; at < max; ) {
            const { from, end } = board.missing((base + at) | 0, (base + max) | 0);
            let first = at;
            while (first < max && has.has(first)) first++;
            let last = first;
            while (last < max && !has.has(last)) last++;
            assert.deepEqual([(from - base) | 0, (end - base) | 0], [first, last]);
            at = Math.max(at + 1, last);
          }
          assert.equal(board.below((base + max) | 0), has.size);
          // with all of it lost, only what is behind the highest range is on its way
          const highest = Math.max(una, ...[...has].map((n) => n + 1));
          assert.equal(board.pipe((base + una) | 0, (base + max) | 0, (base + una) | 0, 0), max - highest);
          const sent = board.pipe((base + una) | 0, (base + max) | 0, (base + max) | 0, 0);
          assert.equal(sent, max - highest + (max - una - has.size));
        }
      }),
    );
  });
  it("counts as lost what three ranges or more than two segments are above", () => {
    const board = new Scoreboard();
    board.add(1000, 3000, 0, 100_000);
    assert.equal(board.isFirstLost(1000), false);
    assert.deepEqual(board.nextHole(0, 1000), undefined);
    assert.deepEqual({ ...board.nextHole(0, 0) }, { from: 0, end: 1000 });
    assert.equal(board.pipe(0, 10_000, 0, 1000), 8000);
    board.add(5000, 5001, 0, 100_000);
    assert.equal(board.isFirstLost(1000), true);
    assert.equal(board.pipe(0, 10_000, 0, 1000), 2000 + 4999);
    board.add(7000, 7001, 0, 100_000);
    board.add(9000, 9001, 0, 100_000);
    assert.deepEqual({ ...board.nextHole(1500, 1000) }, { from: 3000, end: 5000 });
    assert.equal(board.nextHole(5001, 1000), undefined);
  });
  it("is bounded, and lets the highest go", () => {
    const board = new Scoreboard();
    for (let i = 999; i >= 0; i--) board.add(10 * i + 5, 10 * i + 6, 0, 100_000);
    assert.equal(board.count, 64);
    assert.equal(board.below(100_000), 64);
    assert.equal(board.below(640), 64);
    assert.equal(board.add(50_000, 50_001, 0, 100_000), false);
    board.clear();
    assert.equal(board.count, 0);
  });
});
