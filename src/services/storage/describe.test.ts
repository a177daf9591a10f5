import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { MemoryDisk } from "../../disk/memory.js";
import { StorageController } from "./controller.js";
import { describeStorage } from "./describe.js";
import { be, hex, read10, read16, ScriptedGuest, srb, testMemory } from "./scripted-guest.js";

const packet = (start: string): Uint8Array => {
  const out = new Uint8Array(64);
  out.set(hex(start));
  return out;
};

describe("storage packets for people", () => {
  it("requests", () => {
    assert.deepEqual(describeStorage(srb({ lun: 3, cdb: read10(0x12345678, 8) }, 4096, 1), "in"), {
      message: "EXECUTE_SRB",
      lun: 3,
      command: "READ(10)",
      lba: 0x12345678,
      blocks: 8,
      direction: "read",
      bytes: 4096,
    });
    assert.equal(describeStorage(srb({ cdb: read16(2 ** 40, 1) }, 512, 1), "in").lba, 2 ** 40);
    assert.equal(describeStorage(srb({ cdb: read16(2 ** 60, 1) }, 512, 1), "in").lba, "beyond 2^53");
    assert.deepEqual(describeStorage(srb({ path: 1, target: 2, cdb: [0x12, 1, 0x83, 1, 0, 0] }, 256, 1), "in"), {
      message: "EXECUTE_SRB",
      path: 1,
      target: 2,
      lun: 0,
      command: "INQUIRY",
      page: 0x83,
      allocation: 256,
      direction: "read",
      bytes: 256,
    });
    assert.equal("page" in describeStorage(srb({ cdb: [0x12, 0, 0, 0, 36, 0] }, 36, 1), "in"), false);
    assert.equal(describeStorage(srb({ cdb: [0x5a, 0, 0x48, 0, 0, 0, 0, 0, 9, 0] }, 9, 1), "in").page, 8);
    assert.equal(
      describeStorage(srb({ cdb: [0xa0, 0, 0, 0, 0, 0, ...be(4096, 4), 0, 0] }, 9, 1), "in").allocation,
      4096,
    );
    assert.equal(describeStorage(srb({ cdb: [0x9e, 0x10] }, 32, 1), "in").command, "READ CAPACITY(16)");
    assert.equal(describeStorage(srb({ cdb: [0x9e, 0x12] }, 32, 9), "in").command, "SERVICE ACTION IN(16)");
    assert.equal(describeStorage(srb({ cdb: [0xc5] }, 32, 9), "in").command, "opcode 0xc5");
    assert.equal(describeStorage(srb({ cdb: [0xc5] }, 32, 9), "in").direction, "direction 9");
    assert.deepEqual(describeStorage(packet("09 00 00 00 01 00 00 00 00 00 00 00 02 06"), "in"), {
      message: "QUERY_PROTOCOL_VERSION",
      version: "6.2",
    });
    assert.deepEqual(describeStorage(packet("0d 00 00 00 01 00 00 00 00 00 00 00 03 00"), "in"), {
      message: "CREATE_SUB_CHANNELS",
      count: 3,
    });
    assert.deepEqual(describeStorage(packet("04"), "in"), { message: "RESET_LUN", lun: 0 });
    assert.deepEqual(describeStorage(packet("07"), "in"), { message: "BEGIN_INITIALIZATION" });
    assert.deepEqual(describeStorage(packet("63"), "in"), { message: "operation 99" });
    assert.deepEqual(describeStorage(hex("07 00 00 00"), "in"), { message: "BEGIN_INITIALIZATION", bytes: 4 });
    assert.deepEqual(describeStorage(hex("07"), "in"), { message: "too short", bytes: 1 });
  });

  it("completions, as the controller sends them", () => {
    const memory = testMemory();
    const controller = new StorageController({ instanceId: "00000000-0000-0000-0000-000000000003", memory });
    controller.addDisk(2, new MemoryDisk({ bytes: 1 << 20 }), new Uint8Array(12));
    const guest = new ScriptedGuest(controller, memory).start();
    const run = (cdb: number[]): unknown => describeStorage(guest.run({ lun: 2, cdb, in: 512 }).payload, "out");
    assert.deepEqual(run(read10(0, 1)), {
      message: "COMPLETE_IO",
      status: "0x00000000",
      lun: 2,
      srb: "0x01",
      scsi: 0,
      bytes: 512,
    });
    assert.deepEqual(run(read10(4096, 1)), {
      message: "COMPLETE_IO",
      status: "0x00000000",
      lun: 2,
      srb: "0x84",
      scsi: 2,
      bytes: 0,
      sense: "05/21/00",
    });
    assert.deepEqual(describeStorage(guest.control(9).payload, "out"), {
      message: "COMPLETE_IO",
      status: "0xc0000184",
    });
    assert.deepEqual(describeStorage(packet("0b"), "out"), { message: "ENUMERATE_BUS" });
  });

  it("takes any bytes, and gives what JSON can hold", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 80 }),
        fc.constantFrom("in", "out"),
        fc.integer({ min: 0, max: 15 }),
        (bytes, direction, operation) => {
          if (bytes.length >= 4) bytes.set([operation, 0, 0, 0]);
          const description = describeStorage(bytes, direction);
          assert.deepEqual(JSON.parse(JSON.stringify(description)), description);
        },
      ),
      { numRuns: 2000 },
    );
  });
});
