import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { RescindChannelOffer } from "./protocol.js";
import { ScriptedDevice } from "./scripted-device.js";
import { gpadlMessages, ScriptedGuest } from "./scripted-guest.js";
import type { SavedVmbus } from "./server.js";

/** Saves the guest's server and goes on with a new one over the same memory, with these devices. */
function move(guest: ScriptedGuest, devices: readonly ScriptedDevice[]) {
  const saved = structuredClone(guest.server.save()) as SavedVmbus;
  guest.synic.connections.clear();
  guest.server = guest.newServer();
  const offers = devices.map((d) => guest.server.offer(d));
  guest.server.restore(saved);
  return offers;
}
const states = (guest: ScriptedGuest): string[] => guest.server.channels().map((c) => `${c.relid} ${c.state}`);

describe("VMBus saved state", () => {
  it("goes on in another server, wherever it was saved, with the same packets", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(9), { minLength: 20, maxLength: 120 }), (steps) => {
        const guest = new ScriptedGuest({ bytes: 1 << 20 });
        let device = new ScriptedDevice(1);
        guest.server.offer(device);
        guest.connect();
        const channel = guest.open(device.offer.classId, { ringPages: 2 });
        const seen: number[] = [];
        let sent = 0;
        const receive = (): void => {
          for (const p of channel.receiveAll()) seen.push(p.transactionLow);
        };
        for (const step of steps) {
          if (step < 5) {
            if (channel.send(new Uint8Array(step * 150), { transaction: sent, completion: true })) sent++;
          } else if (step === 5) guest.server.run(3);
          else if (step === 6) guest.turn();
          else if (step === 7) receive();
          else if (step === 8) {
            const before = guest.server.channels();
            const next = new ScriptedDevice(1);
            move(guest, [next]);
            device = next;
            assert.deepEqual(guest.server.channels(), before);
          } else device.channel.resume();
        }
        for (let i = 0; i < 50; i++) {
          guest.turn();
          receive();
        }
        assert.deepEqual(
          seen,
          Array.from({ length: sent }, (_, i) => i),
        );
        channel.close();
        assert.equal(guest.server.gpadls.count, 0);
      }),
      { numRuns: 150 },
    );
  });
  it("keeps relids, sub-channels, half a GPADL, queued messages and what is not released", () => {
    const guest = new ScriptedGuest();
    const old = [1, 2, 3].map((n) => new ScriptedDevice(n));
    const offers = old.map((d) => guest.server.offer(d));
    guest.connect();
    guest.open(2);
    offers[1]!.offerSubChannels(2);
    guest.turn();
    const sub = guest.open(5);
    offers[0]!.rescind();
    const pages = guest.pages(60);
    const messages = gpadlMessages(3, 99, [{ byteCount: 60 * 4096, byteOffset: 0, pages }]);
    guest.post(messages[0]!);
    guest.post(messages[1]!);
    guest.synic.capacity = guest.synic.messages.length;
    guest.server.offer(new ScriptedDevice(4));
    assert.equal(guest.server.queuedMessages, 1);
    const before = guest.server.channels();

    // Offered in another order, without the rescinded one, with a new one.
    const next = [3, 7, 4, 2].map((n) => new ScriptedDevice(n));
    const nextOffers = move(guest, next);
    assert.deepEqual(guest.server.channels().slice(0, 6), before);
    guest.synic.capacity = 100;
    guest.turn();
    assert.deepEqual(states(guest), [
      "1 rescinded",
      "2 open",
      "3 offered",
      "4 offered",
      "5 open",
      "6 offered",
      "7 offered",
    ]);
    assert.deepEqual([guest.offers.size, [...guest.rescinded]], [7, [1]]);
    assert.deepEqual([...guest.synic.connections], [2, 5]);
    guest.post(messages[2]!);
    assert.equal(guest.answer("GpadlCreated")?.status, 0);
    sub.send(Uint8Array.of(4));
    guest.turn();
    assert.deepEqual(
      next[3]!.packets.map((p) => p.subIndex),
      [2],
    );
    guest.release(1);
    nextOffers[3]!.offerSubChannels(2);
    nextOffers[3]!.rescind();
    guest.turn();
    assert.deepEqual([...guest.rescinded], [4, 5, 2]);
    assert.equal(next[3]!.closes, 2);
    for (const relid of [4, 5, 2]) guest.release(relid);
    assert.deepEqual(states(guest), ["3 offered", "6 offered", "7 offered"]);
  });
  it("takes devices back that are missing, with their sub-channels", () => {
    const guest = new ScriptedGuest();
    const device = new ScriptedDevice(1);
    const offer = guest.server.offer(device);
    guest.server.offer(new ScriptedDevice(2));
    guest.connect();
    guest.open(1);
    offer.offerSubChannels(2);
    guest.turn();
    guest.open(3);
    guest.release(4);
    guest.server.offer(new ScriptedDevice(5)).rescind();
    guest.turn();
    move(guest, []);
    guest.turn();
    assert.deepEqual([...guest.rescinded].sort(), [1, 2, 3, 4]);
    assert.ok(states(guest).every((s) => s.endsWith("rescinded")));
    assert.equal(guest.log.filter((m) => m.message === RescindChannelOffer.name).length, 4);
    for (const relid of [1, 2, 3, 4]) guest.release(relid);
    assert.deepEqual(states(guest), []);
    // Before contact nobody must be told.
    const fresh = new ScriptedGuest();
    fresh.server.offer(new ScriptedDevice(1));
    move(fresh, [new ScriptedDevice(8)]);
    assert.deepEqual(states(fresh), ["1 unoffered"]);
    fresh.connect();
  });
  it("ends a restored channel whose indices were spoilt, in its first turn", () => {
    const guest = new ScriptedGuest();
    guest.server.offer(new ScriptedDevice(1));
    guest.connect();
    const channel = guest.open(1);
    channel.in.store(4, 5);
    channel.out.store(0, 3);
    const next = new ScriptedDevice(1);
    move(guest, [next]);
    guest.turn();
    assert.deepEqual([next.closes, states(guest)], [1, ["1 failed"]]);
    move(guest, [new ScriptedDevice(1)]);
    assert.deepEqual(states(guest), ["1 failed"], "as it was saved");
    channel.close();
    guest.open(1);
  });
  it("is refused when it is of another version, or comes too late", () => {
    const guest = new ScriptedGuest();
    assert.throws(() => guest.server.restore({ version: 2 }), /version 2/);
    const saved = guest.server.save();
    guest.connect();
    assert.throws(() => guest.server.restore(saved), /before the guest runs/);
  });
});
