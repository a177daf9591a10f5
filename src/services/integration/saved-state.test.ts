/** Components that are saved and go on in a machine made anew, in each of their states; and rings that are full. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { DeadlineQueue } from "../../machine/deadlines.js";
import type { Channel, OutboundPacket } from "../../vmbus/device.js";
import { HeartbeatService } from "./heartbeat.js";
import type { IcDevice } from "./ic-device.js";
import { IcDriver, IcGuest } from "./scripted-guest.js";
import { type ShutdownOutcome, ShutdownService } from "./shutdown.js";
import { TimeSyncService } from "./time-sync.js";

const S = 1e9;
const timeSync = ({ clock, deadlines, trace }: IcGuest): TimeSyncService =>
  new TimeSyncService({ clock, deadlines, trace, wallClockMs: () => 1e12 });
const OFF = { restart: false, force: false, message: "", timeoutSeconds: 0 };

/** The same guest under a host made anew from the saved state: as JSON would keep it, but for bytes. */
function restored<D extends IcDevice>(g: IcGuest, make: (g: IcGuest) => D): D {
  const saved = structuredClone(g.guest.server.save());
  const armed = g.deadlines.save();
  g.guest.synic.connections.clear();
  (g as { deadlines: DeadlineQueue }).deadlines = new DeadlineQueue();
  const device = make(g);
  g.guest.server = g.guest.newServer();
  g.guest.server.offer(device);
  g.deadlines.restore(armed);
  g.guest.server.restore(saved);
  g.guest.turn();
  return device;
}

describe("a saved component", () => {
  it("goes on before the driver has come, and while it negotiates", () => {
    const g = new IcGuest();
    const first = new ShutdownService(g);
    g.guest.server.offer(first);
    g.guest.connect();
    const second = restored(g, (h) => new ShutdownService(h));
    const driver = g.open(second);
    const third = restored(g, (h) => new ShutdownService(h));
    assert.equal(third.version, undefined);
    driver.negotiateAsLinux([3, 2]);
    assert.deepEqual(third.version, [3, 2]);
    assert.ok(third.free);
  });
  it("goes on with its versions, and its request that is under way", () => {
    const g = new IcGuest();
    const first = new ShutdownService(g);
    const driver = g.load(first);
    driver.negotiateAsLinux([3, 2]);
    const second = restored(g, (h) => new ShutdownService(h));
    assert.deepEqual(second.version, [3, 2]);
    const outcomes: ShutdownOutcome[] = [];
    second.shutDown(OFF, (o) => outcomes.push(o));
    const request = driver.request();
    const third = restored(g, (h) => new ShutdownService(h));
    third.shutDown(OFF, (o) => outcomes.push(o));
    assert.deepEqual(outcomes, ["busy"]);
    driver.answer(request);
    assert.deepEqual(g.violations(), []);
    third.shutDown(OFF, (o) => outcomes.push(o));
    const next = driver.request();
    assert.equal(next[24], request[24]! + 1);
    driver.answer(next);
    assert.deepEqual(outcomes, ["busy", "accepted"]);
  });
  it("goes on beating", () => {
    const g = new IcGuest();
    const driver = g.load(new HeartbeatService(g));
    driver.negotiateAsLinux([3, 0]);
    const beat = (): void =>
      driver.answer(driver.request(), (v) => v.setBigUint64(28, v.getBigUint64(28, true) + 1n, true));
    beat();
    const second = restored(g, (h) => new HeartbeatService(h));
    assert.deepEqual(second.status, { health: "ok", replies: 1 });
    g.runTo(2 * S);
    beat();
    assert.equal(second.status.replies, 2);
    g.runTo(30 * S);
    assert.equal(second.status.health, "lost");
  });
  it("goes on with a sync that is wanted", () => {
    const g = new IcGuest();
    const first = timeSync(g);
    const driver = g.load(first);
    driver.negotiateAsLinux([4, 0]);
    const request = driver.request();
    first.synchronize();
    const second = restored(g, timeSync);
    assert.deepEqual(driver.requests(), []);
    driver.answer(request);
    assert.equal(second.messages, 1);
    assert.equal(driver.request()[44], 1);
  });
});

/** A ring whose room the test rules, under the component alone. */
class TightChannel {
  room = 0;
  readonly sent: Uint8Array[] = [];
  readonly channel = {
    relid: 1,
    subIndex: 0,
    send: ({ payload, payloadLength }: OutboundPacket): boolean => {
      if (this.room === 0) return false;
      this.room--;
      this.sent.push(payload.slice(0, payloadLength));
      return true;
    },
  } as unknown as Channel;
}
const packetOf = (payload: Uint8Array) => ({ type: 6, payload, payloadLength: payload.length }) as never;
const negotiated = (request: Uint8Array): Uint8Array => {
  const reply = request.slice();
  reply[25] = 5;
  new Uint16Array(reply.buffer, 28, 8).set([1, 1, 0, 0, 3, 0, 3, 0]);
  return reply;
};

describe("a component whose ring is full", () => {
  it("sends when there is room, also after it was saved, and takes no answer before", () => {
    const g = new IcGuest();
    let service = new ShutdownService(g);
    const tight = new TightChannel();
    service.open(tight.channel);
    const guessed = negotiated(new Uint8Array(64).fill(0, 0));
    guessed[0] = 1;
    service.onPacket(packetOf(guessed));
    assert.equal(service.version, undefined);
    const again = new IcGuest();
    const saved = structuredClone(service.save());
    service = new ShutdownService(again);
    assert.deepEqual(service.restore(saved, [tight.channel]), [service]);
    service.onSpace();
    assert.deepEqual(tight.sent, []);
    tight.room = 1;
    service.onSpace();
    service.onSpace();
    assert.equal(tight.sent.length, 1);
    service.onPacket(packetOf(negotiated(tight.sent[0]!)));
    assert.deepEqual(service.version, [3, 0]);
    const outcomes: string[] = [];
    service.shutDown(OFF, (o) => outcomes.push(o));
    assert.equal(tight.sent.length, 1);
    service.onClose();
    assert.deepEqual(outcomes, ["not-ready"]);
    tight.room = 1;
    service.onSpace();
    assert.equal(tight.sent.length, 1);
  });
  it("goes where the ring is too small for its message", () => {
    const g = new IcGuest();
    const service = new ShutdownService(g);
    const driver = g.load(service);
    driver.negotiateAsLinux([3, 2]);
    const outcomes: string[] = [];
    // 4096 bytes hold one request and no second one: the guest reads nothing, and closes
    driver.channel.close();
    const small = new IcDriver(g, g.guest.open(service.offer.classId, { ringPages: 2 }));
    small.negotiateAsLinux([3, 2]);
    service.shutDown(OFF, (o) => outcomes.push(o));
    small.answer(small.request());
    assert.deepEqual(outcomes, ["accepted"]);
  });
});
