/** Cables between threads: order, windows, a far side that has no room or does not keep to what was agreed. */
import assert from "node:assert/strict";
import { it } from "node:test";
import fc from "fast-check";
import { EthernetPort } from "./port.js";
import { type RemoteMessage, RemotePort } from "./remote-port.js";

/** Two sides; messages wait until they are carried over. */
class Bed {
  readonly ways: RemoteMessage[][] = [[], []];
  readonly outer: EthernetPort[] = [];
  readonly remotes: RemotePort[] = [];
  readonly got: number[][] = [[], []];
  readonly rooms = [0, 0];
  readonly full = [false, false];
  constructor() {
    for (const side of [0, 1]) {
      const [outer, inner] = EthernetPort.cable();
      outer.receive = (frame, flags, segmentSize) => {
        if (this.full[side]) return false;
        assert.deepEqual([flags, segmentSize], [frame[0]! & 1, frame.length]);
        this.got[side]!.push(frame[0]! | (frame[1]! << 8));
        return true;
      };
      outer.onRoom = () => void this.rooms[side]!++;
      this.outer.push(outer);
      this.remotes.push(new RemotePort(inner, (message) => this.ways[side]!.push(structuredClone(message))));
    }
  }
  send(side: number, n: number, length = 1000): boolean {
    const frame = new Uint8Array(length);
    frame.set([n & 255, n >> 8]);
    return this.outer[side]!.transmit(frame, n & 1, length);
  }
  carry(side: number): void {
    this.remotes[side]!.flush();
    for (const message of this.ways[side]!.splice(0)) this.remotes[1 - side]!.take(message);
  }
}

it("frames arrive in order, as they were, many in one message", () => {
  const bed = new Bed();
  for (let n = 0; n < 5; n++) assert.ok(bed.send(0, n));
  bed.send(1, 7, 60);
  bed.remotes[0]!.flush();
  assert.equal(bed.ways[0]!.length, 1);
  bed.carry(0);
  bed.carry(1);
  assert.deepEqual(bed.got, [[7], [0, 1, 2, 3, 4]]);
});

it("a side that has no room stops the sender after a window, and nothing is lost", () => {
  const bed = new Bed();
  bed.full[1] = true;
  let sent = 0;
  while (bed.send(0, sent, 60_000)) sent++;
  assert.ok(sent > 20 && sent < 40, `${sent} frames`);
  for (let i = 0; i < 3; i++) {
    bed.carry(0);
    bed.carry(1);
  }
  assert.equal(bed.send(0, sent, 60_000), false);
  assert.deepEqual([bed.got[1]!.length, bed.rooms[0]], [0, 0]);
  bed.full[1] = false;
  bed.outer[1]!.room();
  bed.carry(1);
  assert.equal(bed.rooms[0], 1);
  assert.ok(bed.send(0, sent, 60_000));
  bed.carry(0);
  assert.deepEqual(bed.got[1], [...Array(sent + 1).keys()]);
});

it("a peer that sends beyond the window loses frames, and memory does not grow", () => {
  const bed = new Bed();
  bed.full[1] = true;
  const frames = Array.from({ length: 100 }, () => ({ bytes: new Uint8Array(60_000), flags: 0, segmentSize: 60_000 }));
  for (let i = 0; i < 50; i++) bed.remotes[1]!.take({ type: "frames", frames });
  assert.ok(bed.remotes[1]!.dropped > 4900);
  bed.full[1] = false;
  bed.outer[1]!.room();
  assert.equal(bed.got[1]!.length + bed.remotes[1]!.dropped, 5000);
  // nor does one that takes more than there was
  bed.remotes[0]!.take({ type: "taken", bytes: 1e12 });
  assert.ok(bed.send(0, 1));
});

it("whatever the order of sending, carrying and room: nothing is lost, doubled or overtaken", () => {
  const step = fc.record({ what: fc.integer({ min: 0, max: 4 }), side: fc.integer({ min: 0, max: 1 }) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
      const bed = new Bed();
      const sent = [0, 0];
      for (const { what, side } of steps) {
        if (what === 0 && bed.send(side, sent[side]!, 50_000)) sent[side]!++;
        if (what === 1) for (let i = 0; i < 30 && bed.send(side, sent[side]!, 50_000); i++) sent[side]!++;
        if (what === 2) bed.carry(side);
        if (what === 3) bed.full[side] = true;
        if (what !== 4) continue;
        bed.full[side] = false;
        bed.outer[side]!.room();
      }
      for (const side of [0, 1]) {
        bed.full[side] = false;
        bed.outer[side]!.room();
      }
      for (let i = 0; i < 4; i++) for (const side of [0, 1]) bed.carry(side);
      for (const side of [0, 1]) assert.deepEqual(bed.got[1 - side], [...Array(sent[side]!).keys()]);
    }),
    { numRuns: 100 },
  );
});

it("a cable that is pulled out has no link", () => {
  const bed = new Bed();
  bed.remotes[0]!.unplug();
  bed.carry(0);
  assert.equal(bed.outer[1]!.link, false);
});
