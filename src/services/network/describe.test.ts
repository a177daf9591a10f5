import assert from "node:assert/strict";
import { it } from "node:test";
import fc from "fast-check";
import { describeNetwork } from "./describe.js";
import { join, u32s } from "./scripted-guest.js";

it("says what NVSP packets are", () => {
  const cases: [Uint8Array, "in" | "out", number | undefined, object][] = [
    [u32s(1, 0x60001, 0x60001), "in", 6, { message: "INIT", version: "6.1" }],
    [u32s(2, 0xffffffff, 34, 1), "out", 11, { message: "INIT_COMPLETE", status: 1 }],
    [u32s(101, 0xe1e10, 0xcafe), "in", 6, { message: "SEND_RECEIVE_BUFFER", gpadl: 0xe1e10, id: 0xcafe }],
    [u32s(133, 1, 3), "in", 6, { message: "SUBCHANNEL", count: 3 }],
    [u32s(133, 1, 2), "out", 11, { message: "SUBCHANNEL", status: 1, count: 2 }],
    [u32s(107, 0, 5, 100), "in", 6, { message: "RNDIS_PACKET", channel: "data", section: 5, bytes: 100 }],
    [u32s(107, 1, 0xffffffff, 0), "in", 9, { message: "RNDIS_PACKET", channel: "control" }],
    [u32s(107, 1), "in", 9, { message: "RNDIS_PACKET" }],
    [
      join(u32s(0xcafe, 1, 100, 0), u32s(107, 1, 0xffffffff, 0)),
      "out",
      7,
      { message: "RNDIS_PACKET", ranges: 1, channel: "control" },
    ],
    [u32s(0xcafe, 40, 100, 0), "out", 7, { message: "RNDIS_PACKET", ranges: 40 }],
    [u32s(0xcafe), "out", 7, { message: "RNDIS_PACKET" }],
    [u32s(108, 1), "out", 11, { message: "RNDIS_PACKET_COMPLETE", status: 1 }],
    [u32s(108), "out", 11, { message: "RNDIS_PACKET_COMPLETE" }],
    [u32s(1), "in", 6, { message: "INIT" }],
    [u32s(999), "in", 6, { message: "message 999" }],
    [new Uint8Array(3), "in", 6, { message: "too short", bytes: 3 }],
    [new Uint8Array(0), "out", undefined, { message: "completion" }],
  ];
  for (const [payload, direction, type, expected] of cases)
    assert.deepEqual(describeNetwork(payload, direction, type), expected);
});
it("takes any bytes", () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 64 }),
      fc.constantFrom("in" as const, "out" as const),
      fc.nat(12),
      (bytes, direction, type) => {
        for (const kind of [1, 107, 125, 133, 134]) {
          const payload = join(u32s(kind), bytes);
          assert.equal(typeof describeNetwork(payload, direction, type).message, "string");
        }
        assert.equal(typeof describeNetwork(bytes, direction).message, "string");
      },
    ),
  );
});
