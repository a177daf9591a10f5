import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ScriptedDevice } from "./scripted-device.js";
import { ScriptedGuest } from "./scripted-guest.js";

describe("VMBus server", () => {
  it("opens a channel, echoes packets and closes it", () => {
    const guest = new ScriptedGuest();
    const device = new ScriptedDevice(1);
    guest.server.offer(device);
    assert.equal(guest.connect(), 0x50003);
    const channel = guest.open(device.offer.classId);
    for (let i = 0; i < 2000; i++) {
      assert.ok(channel.send(Uint8Array.of(i, i >> 8, 3), { transaction: [i, 7], completion: true }));
      guest.turn();
      const packet = channel.receive();
      assert.deepEqual(
        [packet?.type, packet?.transactionLow, packet?.transactionHigh, packet?.payload[0], packet?.payload[1]],
        [11, i, 7, i & 255, i >> 8],
      );
    }
    channel.close();
    assert.equal(device.closes, 1);
  });
});
