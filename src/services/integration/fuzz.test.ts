/** Guests whose drivers answer anything. A case is one packet, with all that the host does about it. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Chance, fuzz, fuzzSettings } from "../../hypervisor/chance.js";
import { DeadlineQueue } from "../../machine/deadlines.js";
import { NO_TRACE } from "../../trace/trace.js";
import type { Channel, OutboundPacket } from "../../vmbus/device.js";
import { HeartbeatService } from "./heartbeat.js";
import type { IcDevice } from "./ic-device.js";
import { ShutdownService } from "./shutdown.js";
import { TimeSyncService } from "./time-sync.js";

class Target {
  nowNs = 0;
  readonly deadlines = new DeadlineQueue();
  readonly clock = { now: (): number => this.nowNs };
  readonly #common = { clock: this.clock, deadlines: this.deadlines, trace: NO_TRACE };
  readonly heartbeat = new HeartbeatService(this.#common);
  readonly shutdown = new ShutdownService(this.#common);
  readonly timeSync = new TimeSyncService({ ...this.#common, wallClockMs: () => 1.7e12 });
  readonly devices: readonly IcDevice[] = [this.heartbeat, this.shutdown, this.timeSync];
  /** What each has sent and the guest has not taken; undefined = closed. */
  readonly rings: (Uint8Array[] | undefined)[] = [undefined, undefined, undefined];
  /** Requests that were seen, to be answered again. */
  readonly seen: Uint8Array[][] = [[], [], []];
  opens = 0;
  asked = 0;
  answered = 0;
  readonly chance: Chance;

  constructor(chance: Chance) {
    this.chance = chance;
  }
  open(i: number): void {
    const ring: Uint8Array[] = [];
    this.rings[i] = ring;
    this.opens++;
    const channel = {
      relid: i + 1,
      subIndex: 0,
      send: ({ payload, payloadLength }: OutboundPacket) => {
        assert.equal(this.rings[i], ring, "sent to a closed channel");
        if (ring.length >= 2) return false;
        ring.push(payload.slice(0, payloadLength));
        return true;
      },
    } as unknown as Channel;
    assert.equal(this.devices[i]!.open(channel), this.devices[i]);
  }
  close(i: number): void {
    this.rings[i] = undefined;
    this.devices[i]!.onClose();
  }
  /** A valid answer, spoilt more or less. */
  packet(i: number): void {
    const { chance } = this;
    const taken = this.rings[i]?.shift();
    if (taken !== undefined) {
      this.seen[i]!.unshift(taken);
      this.seen[i]!.length = Math.min(this.seen[i]!.length, 4);
    }
    const request = chance.rarely(6) ? chance.oneOf(this.seen.flat()) : this.seen[i]![0];
    let reply = (request ?? chance.bytes(chance.below(80))).slice();
    const view = new DataView(reply.buffer);
    if (reply.length > 40) {
      view.setUint8(25, 5);
      if (view.getUint16(12, true) === 0) {
        const words = [1, 1, 0, 0, chance.oneOf([1, 3, 3]), 0, chance.oneOf([1, 3, 3, 4]), chance.oneOf([0, 0, 1, 2])];
        if (!chance.rarely(8))
          words.forEach((w, k) => {
            view.setUint16(28 + k * 2, w, true);
          });
      } else if (i === 0 && !chance.rarely(4)) view.setUint32(28, view.getUint32(28, true) + 1, true);
    }
    for (let n = chance.oneOf([0, 0, 0, 1, 2, 8]); n > 0 && reply.length > 0; n--) {
      const at = chance.below(Math.min(reply.length, 56));
      reply[at] = chance.rarely(2) ? chance.word() : reply[at]! ^ (1 << chance.below(8));
    }
    if (chance.rarely(10)) reply = reply.slice(0, chance.below(reply.length + 1));
    // the copy of a packet is in a larger buffer, used again for the next
    const copy = new Uint8Array(reply.length + 32).fill(0xee);
    copy.set(reply);
    const packet = { type: chance.rarely(20) ? 11 : 6, payload: copy, payloadLength: reply.length };
    this.devices[i]!.onPacket(packet as never);
    copy.fill(0x77);
  }
  step(): void {
    const { chance } = this;
    const i = chance.below(3);
    if (this.rings[i] === undefined) this.open(i);
    else if (chance.rarely(200)) {
      this.close(i);
      return;
    }
    this.packet(i);
    if (chance.rarely(3)) this.devices[i]!.onSpace();
    if (chance.rarely(5)) {
      this.asked++;
      const restart = chance.rarely(2);
      let outcomes = 0;
      this.shutdown.shutDown({ restart, force: false, message: "", timeoutSeconds: 1 }, () => {
        assert.equal(++outcomes, 1);
        this.answered++;
      });
    }
    if (chance.rarely(10)) this.timeSync.synchronize();
    if (chance.rarely(4)) {
      this.nowNs += chance.below(4e9);
      this.deadlines.runDue(this.nowNs);
    }
    assert.ok(this.asked - this.answered <= 1);
    assert.ok(this.heartbeat.status.replies <= this.opens + this.nowNs / 2e9);
    for (const [k, device] of this.devices.entries()) if (this.rings[k] === undefined) assert.ok(!device.free);
  }
}

describe("a guest that answers anything", () => {
  it("stops no component: 110,000 packets", () => {
    let [heartbeats, samples, shutdowns] = [0, 0, 0];
    fuzz(fuzzSettings(process.env), 110_000, 1000, (chance, cases) => {
      const target = new Target(chance);
      for (let i = 0; i < cases; i++) target.step();
      for (let i = 0; i < 3; i++) if (target.rings[i] !== undefined) target.close(i);
      assert.equal(target.asked, target.answered, "each request has its outcome");
      assert.equal(target.deadlines.earliest(), Number.POSITIVE_INFINITY);
      heartbeats += target.heartbeat.status.replies;
      samples += target.timeSync.messages;
      shutdowns += target.answered;
      // and an honest guest is served afterwards
      for (let i = 0; i < 3; i++) {
        target.open(i);
        const negotiation = target.rings[i]!.shift()!;
        const view = new DataView(negotiation.buffer);
        view.setUint8(25, 5);
        [1, 1, 0, 0, 3, 0, 3, 0].forEach((w, k) => {
          view.setUint16(28 + k * 2, w, true);
        });
        target.devices[i]!.onPacket({ type: 6, payload: negotiation, payloadLength: negotiation.length } as never);
        assert.deepEqual(target.devices[i]!.version, [3, 0]);
      }
    });
    assert.ok(heartbeats > 100 && samples > 100 && shutdowns > 1000, `${heartbeats} ${samples} ${shutdowns}`);
  });
});
