import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { MemoryDisk } from "../../disk/memory.js";
import type { Trace } from "../../trace/trace.js";
import type { Offer } from "../../vmbus/device.js";
import { ScriptedChannel } from "../../vmbus/scripted-channel.js";
import { MAX_IN_FLIGHT } from "./channel.js";
import { StorageController, type StorageControllerOptions } from "./controller.js";
import { FailingDisk } from "./failing-disk.js";
import {
  assertCheck,
  assertGood,
  be,
  decode,
  hex,
  openChannel,
  read10,
  ScriptedGuest,
  srb,
  testMemory,
  unmap,
  unmapList,
  write10,
} from "./scripted-guest.js";

const MIB = 1 << 20;
const IDENTITY = new Uint8Array(12).fill(1);
const INSTANCE = "5b4a0cbf-7f05-4a3b-8d28-7bbf7cf2a8a1";

function rig(options: Partial<StorageControllerOptions> = {}) {
  const memory = testMemory();
  const violations: string[] = [];
  const trace: Trace = { record: () => {}, text: (_kind, _relid, text) => violations.push(text) };
  const controller = new StorageController({ instanceId: INSTANCE, memory, trace, ...options });
  return { controller, memory, violations };
}
const padded = (bytes: Uint8Array, length = 64): Uint8Array => {
  const out = new Uint8Array(length);
  out.set(bytes);
  return out;
};
const TUR = [0, 0, 0, 0, 0, 0];
const inquiry = [0x12, 0, 0, 0, 36, 0];
const reportLuns = (allocation: number): number[] => [0xa0, 0, 0, 0, 0, 0, ...be(allocation, 4), 0, 0];

describe("VSTOR start-up", () => {
  it("the offer", () => {
    const { controller } = rig();
    assert.deepEqual(controller.offer, {
      name: "storage",
      classId: "ba6163d9-04a1-4d29-b605-72e2ffb1dc7f",
      instanceId: INSTANCE,
      flags: 0,
      mmioMegabytes: 0,
      userDefined: new Uint8Array(0),
    });
  });

  it("byte for byte", () => {
    const { controller } = rig({ subChannels: 3 });
    const channel = openChannel(controller);
    const exchange = (request: string): Uint8Array => {
      // An id of 64 bits, as Linux has for these: it must come back whole.
      channel.put({ low: 0xfffffffd, high: 0xffffffff, payload: padded(hex(request)) });
      const [answer, ...rest] = channel.take();
      assert.equal(rest.length, 0);
      assert.deepEqual([answer!.type, answer!.flags, answer!.low, answer!.high], [11, 0, 0xfffffffd, 0xffffffff]);
      return answer!.payload;
    };
    assert.deepEqual(exchange("07 00 00 00 01"), padded(hex("01 00 00 00 00 00 00 00 00 00 00 00")));
    // 7.0 and the versions of 48-byte packets are refused, and the guest may go on asking.
    for (const version of ["00 07", "02 04", "00 02", "03 06"])
      assert.deepEqual(
        exchange(`09 00 00 00 01 00 00 00 00 00 00 00 ${version}`),
        padded(hex("01 00 00 00 00 00 00 00 59 00 00 c0")),
      );
    assert.deepEqual(exchange("09 00 00 00 01 00 00 00 00 00 00 00 02 06"), padded(hex("01")));
    assert.equal(controller.protocolVersion, 0x0602);
    assert.deepEqual(
      exchange("0a 00 00 00 01"),
      padded(hex("01 00 00 00 00 00 00 00 00 00 00 00  00 00 00 00 03 00 00 00 01 00 00 00 00 00 04 00")),
    );
    assert.equal(controller.isReady, false);
    assert.deepEqual(exchange("08 00 00 00 01"), padded(hex("01")));
    assert.equal(controller.isReady, true);
    controller.addDisk(0, new MemoryDisk({ bytes: MIB }), IDENTITY);
    const [unsolicited] = channel.take();
    assert.deepEqual(unsolicited, {
      type: 6,
      flags: 0,
      low: 0,
      high: 0,
      headerLength: 0,
      payload: padded(hex("0b 00 00 00")),
    });
  });

  it("each of the versions 6.2, 6.0 and 5.1, without sub-channels", () => {
    for (const version of [0x0602, 0x0600, 0x0501]) {
      const { controller, memory } = rig();
      const guest = new ScriptedGuest(controller, memory);
      assert.equal(guest.control(7).ntStatus, 0);
      assert.equal(guest.control(9, version).ntStatus, 0);
      assert.deepEqual(
        guest.control(10).payload,
        padded(hex("01 00 00 00 00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00 00 00 00 00 00 00 04 00")),
      );
      assert.equal(guest.control(8).ntStatus, 0);
      assert.equal(controller.protocolVersion, version);
    }
  });

  it("every step out of its order is refused and changes nothing", () => {
    const steps = [
      [7, 0],
      [9, 0x0600],
      [10, 0],
      [8, 0],
    ] as const;
    const { controller, memory, violations } = rig({ subChannels: 1 });
    controller.addDisk(0, new MemoryDisk({ bytes: MIB }), IDENTITY);
    const guest = new ScriptedGuest(controller, memory);
    for (let done = 0; done <= steps.length; done++) {
      for (const [i, [operation, field]] of steps.entries())
        if (i !== done)
          assert.equal(guest.control(operation, field).ntStatus, 0xc0000184, `${operation} after ${done}`);
      assert.equal(guest.control(12).ntStatus, done === 3 ? 0xc0000010 : 0xc0000184);
      if (done < steps.length) {
        for (const operation of [4, 5, 6, 13]) assert.equal(guest.control(operation).ntStatus, 0xc0000184);
        const c = guest.run({ cdb: TUR });
        assert.deepEqual([c.ntStatus, c.srb], [0xc0000184, 6]);
        const [operation, field] = steps[done]!;
        assert.equal(guest.control(operation, field).ntStatus, 0);
      }
    }
    for (const operation of [0, 1, 2, 11, 14, 15, 0x100]) assert.equal(guest.control(operation).ntStatus, 0xc0000010);
    assertGood(guest.run({ cdb: TUR }));
    assert.ok(violations.length > 20);
  });

  it("a completion is as long as its request, up to 64 bytes", () => {
    const { controller } = rig();
    const channel = openChannel(controller);
    for (const length of [0, 3, 4, 12, 48, 63, 64, 65, 200]) {
      channel.put({ low: 5, payload: padded(hex("07 00 00 00 01").subarray(0, length), length) });
      assert.equal(channel.take()[0]!.payload.length, Math.min(length, 64));
    }
    const other = rig();
    const guest = new ScriptedGuest(other.controller, other.memory).start();
    for (const length of [4, 12, 28, 48, 63]) {
      guest.channel.put({ low: 1, payload: srb({ cdb: TUR }, 0, 2).subarray(0, length) });
      const [answer] = guest.channel.take();
      assert.equal(answer!.payload.length, length);
      if (length >= 28) assert.deepEqual([decode(answer!.payload).ntStatus, answer!.payload[14]], [0xc000000d, 6]);
    }
    // Fields that are not in the packet.
    const third = rig({ subChannels: 1 });
    const begun = new ScriptedGuest(third.controller, third.memory);
    begun.control(7);
    begun.channel.put({ low: 1, payload: padded(hex("09"), 13) });
    assert.deepEqual(begun.channel.take()[0]!.payload.subarray(8, 12), hex("0d 00 00 c0"));
    begun.control(9, 0x602);
    begun.control(10);
    begun.control(8);
    for (const operation of ["0d", "04"]) {
      begun.channel.put({ low: 1, payload: padded(hex(operation), 13) });
      assert.deepEqual(begun.channel.take()[0]!.payload.subarray(8, 12), hex("0d 00 00 c0"));
    }
  });

  it("packets that nobody waits for are not executed", () => {
    const { controller, memory, violations } = rig();
    const disk = new FailingDisk({ bytes: MIB });
    controller.addDisk(0, disk, IDENTITY);
    const guest = new ScriptedGuest(controller, memory).start();
    const payload = srb({ cdb: write10(0, 1) }, 512, 0);
    const ranges = [{ gpa: 0x1000, length: 512 }];
    guest.channel.put({ low: 1, payload, ranges, flags: 0 });
    guest.channel.put({ low: 1, payload, ranges, type: 11 });
    assert.deepEqual(guest.channel.take(), []);
    assert.deepEqual(disk.log, []);
    assert.equal(violations.length, 2);
  });

  it("sub-channels: as many as were promised, no more", () => {
    const { controller, memory } = rig({ subChannels: 2 });
    let offered = 0;
    const offer: Offer = {
      device: controller,
      offerSubChannels: (count) => {
        offered += count;
      },
      rescind: () => {},
    };
    controller.attach(offer);
    controller.addDisk(0, new MemoryDisk({ bytes: MIB }), IDENTITY);
    const guest = new ScriptedGuest(controller, memory).start();
    assert.equal(controller.open(new ScriptedChannel(1)), undefined, "not asked for yet");
    assert.equal(guest.control(13, 3).ntStatus, 0xc000000d);
    assert.equal(offered, 0);
    assert.equal(guest.control(13, 2).ntStatus, 0);
    assert.equal(offered, 2);
    assert.equal(guest.control(13, 1).ntStatus, 0xc0000184);
    assert.equal(controller.open(new ScriptedChannel(3)), undefined);
    const second = openChannel(controller, 2);
    assert.equal(controller.open(new ScriptedChannel(2)), undefined, "open already");
    // The completion comes on the channel of the request.
    second.put({ low: 77, payload: srb({ cdb: TUR }, 0, 2) });
    assert.equal(guest.channel.take().length, 0);
    assertGood(decode(second.take()[0]!.payload));
    // The start-up belongs to the primary channel.
    for (const operation of [7, 8, 9, 10, 13]) {
      second.put({ low: 78, payload: padded(Uint8Array.of(operation)) });
      assert.equal(decode(second.take()[0]!.payload).ntStatus, 0xc0000184);
    }
    second.close();
    assert.equal(controller.isReady, true);
    guest.channel.close();
    assert.equal(controller.isReady, false);
    assert.equal(controller.open(new ScriptedChannel(1)), undefined);
    // Promised without an offer to make them with: our own mistake.
    const other = rig({ subChannels: 1 });
    const lost = new ScriptedGuest(other.controller, other.memory).start();
    assert.throws(() => lost.control(13, 1), /no offer/);
  });

  it("closed and opened again, everything begins anew; the disks stay", () => {
    const { controller, memory } = rig();
    const disk = new MemoryDisk({ bytes: MIB });
    controller.addDisk(0, disk, IDENTITY);
    for (let i = 0; i < 3; i++) {
      const guest = new ScriptedGuest(controller, memory);
      assert.equal(controller.open(new ScriptedChannel()), undefined, "open already");
      assert.equal(controller.isReady, false);
      assert.equal(guest.run({ cdb: TUR }).ntStatus, 0xc0000184);
      guest.start();
      assertGood(guest.run({ cdb: TUR }));
      guest.channel.close();
      assert.equal(controller.protocolVersion, 0);
    }
  });
});

describe("LUNs", () => {
  it("what is absent says so in INQUIRY's data; other commands fail", () => {
    const { controller, memory } = rig();
    controller.addDisk(0, new MemoryDisk({ bytes: MIB }), IDENTITY);
    const guest = new ScriptedGuest(controller, memory).start();
    for (const where of [
      { lun: 1 },
      { lun: 63 },
      { lun: 64 },
      { lun: 255 },
      { target: 1 },
      { path: 1 },
      { path: 7, target: 1 },
    ]) {
      const c = guest.run({ ...where, cdb: inquiry, in: 36 });
      assertGood(c);
      assert.equal(c.transferred, 36);
      assert.equal(c.data[0], 0x7f);
      assert.equal(guest.run({ ...where, cdb: [0x12, 1, 0x83, 0, 255, 0], in: 255 }).data[0], 0x7f);
      const r = guest.run({ ...where, cdb: read10(0, 1), in: 512 });
      assert.deepEqual([r.ntStatus, r.srb, r.scsi, r.transferred], [0, "lun" in where ? 0x20 : 0x21, 2, 0]);
      assert.equal(guest.run({ ...where, cdb: TUR }).srb, "lun" in where ? 0x20 : 0x21);
      // The address comes back.
      assert.deepEqual([...r.payload.subarray(17, 20)], [where.path ?? 0, where.target ?? 0, where.lun ?? 0]);
    }
  });

  it("REPORT LUNS, also where LUN 0 is empty", () => {
    const { controller, memory } = rig();
    const guest = new ScriptedGuest(controller, memory).start();
    const list = (cdb: number[], address = {}): number[] => [...guest.run({ ...address, cdb, in: 1024 }).data];
    assert.deepEqual(list(reportLuns(1024)), [0, 0, 0, 0, 0, 0, 0, 0]);
    for (const lun of [5, 2, 63]) controller.addDisk(lun, new MemoryDisk({ bytes: MIB }), IDENTITY);
    const three = [
      ...hex("00 00 00 18 00 00 00 00"),
      ...hex("00 02 00 00 00 00 00 00  00 05 00 00 00 00 00 00  00 3f 00 00 00 00 00 00"),
    ];
    assert.deepEqual(list(reportLuns(1024)), three);
    assert.deepEqual(list(reportLuns(1024), { lun: 5 }), three);
    assert.deepEqual(list(reportLuns(16)), three.slice(0, 16));
    assert.deepEqual(list(reportLuns(1024), { target: 1 }), [0, 0, 0, 0, 0, 0, 0, 0]);
    const select = reportLuns(1024);
    select[2] = 1;
    assert.deepEqual(list(select), [0, 0, 0, 0, 0, 0, 0, 0]);
    select[2] = 2;
    assert.deepEqual(list(select), three);
    select[2] = 3;
    assertCheck(guest.run({ cdb: select, in: 1024 }), 0x052400);
  });

  it("added and removed while the guest runs", () => {
    const { controller, memory } = rig();
    const guest = new ScriptedGuest(controller, memory).start();
    const told = (): number[] => guest.channel.take().map((p) => p.payload[0]!);
    const disk = new FailingDisk({ bytes: MIB });
    controller.addDisk(3, disk, IDENTITY);
    assert.deepEqual(told(), [11]);
    assertGood(guest.run({ lun: 3, cdb: TUR }));
    assert.equal(controller.statistics(3)!.reads, 0);

    // A flush is under way: the disk is let go of when it has ended.
    disk.slow = true;
    const flush = guest.submit({ lun: 3, cdb: [0x35, ...new Array(9).fill(0)] });
    let released = 0;
    controller.remove(3, () => released++);
    assert.deepEqual(told(), [11]);
    assert.equal(controller.statistics(3), undefined);
    assert.equal(guest.run({ lun: 3, cdb: TUR }).srb, 0x20);
    assert.equal(released, 0);
    disk.go();
    assertGood(guest.completionOf(flush)!);
    assert.equal(released, 1);
    disk.resize(2 * MIB);
    assert.deepEqual(told(), [], "a removed disk's size is nobody's business");

    controller.addDisk(3, new MemoryDisk({ bytes: MIB }), IDENTITY);
    controller.remove(3, () => released++);
    assert.equal(released, 2);
    assert.throws(() => controller.remove(3), /nothing to remove at LUN 3/);
    controller.addDisk(3, new MemoryDisk({ bytes: MIB }), IDENTITY);
    controller.remove(3);
    assert.throws(() => controller.addDisk(64, disk, IDENTITY), /0 to 63/);
    assert.throws(() => controller.addDisk(-1, disk, IDENTITY), /0 to 63/);
    assert.throws(() => controller.addDisk(0, disk, new Uint8Array(11)), /12 bytes, not 11/);
    controller.addDisk(0, disk, IDENTITY);
    assert.throws(() => controller.addDisk(0, disk, IDENTITY), /taken/);
  });

  it("a resized disk: the guest is made to ask, and is told at its TEST UNIT READY", () => {
    const { controller, memory } = rig();
    const disk = new MemoryDisk({ bytes: MIB });
    controller.addDisk(0, disk, IDENTITY);
    disk.resize(2 * MIB);
    const guest = new ScriptedGuest(controller, memory).start();
    assert.equal(guest.channel.sent.length, 0, "no ENUMERATE_BUS before the guest is there");
    assertCheck(guest.run({ cdb: TUR }), 0x062a09);
    disk.resize(4 * MIB);
    assert.deepEqual(
      guest.channel.take().map((p) => p.payload[0]),
      [11],
    );
    assertCheck(guest.run({ cdb: TUR }), 0x062a09);
    assertGood(guest.run({ cdb: TUR }));
    const c = guest.run({ cdb: [0x9e, 0x10, ...new Array(8).fill(0), 0, 0, 0, 32, 0, 0], in: 32 });
    assert.deepEqual([...c.data.subarray(0, 8)], be((4 * MIB) / 512 - 1, 8));
  });

  it("resets: what is under way is completed, power-on settings return, the guest is told", () => {
    const { controller, memory } = rig();
    const disks = [new FailingDisk({ bytes: MIB }), new FailingDisk({ bytes: MIB })];
    disks.forEach((d, lun) => {
      controller.addDisk(lun, d, IDENTITY);
      d.slow = true;
    });
    const guest = new ScriptedGuest(controller, memory).start();
    for (const operation of [6, 5]) {
      const flush = guest.submit({ lun: 1, cdb: write10(0, 1, 8), out: new Uint8Array(512) });
      assert.equal(guest.control(operation).ntStatus, 0);
      assert.equal(guest.completionOf(flush), undefined);
      for (const lun of [0, 1]) assertCheck(guest.run({ lun, cdb: TUR }), 0x062900);
      disks[1]!.go();
      assertGood(guest.completionOf(flush)!);
      for (const lun of [0, 1]) assertGood(guest.run({ lun, cdb: TUR }));
    }
    const resetLun = (lun: number, target: number): void => {
      const payload = padded(Uint8Array.of(4));
      payload[18] = target;
      payload[19] = lun;
      guest.channel.put({ low: 500, payload });
      assert.equal(decode(guest.channel.take()[0]!.payload).ntStatus, 0);
    };
    resetLun(1, 0);
    resetLun(0, 1);
    resetLun(9, 0);
    assertGood(guest.run({ lun: 0, cdb: TUR }));
    assertCheck(guest.run({ lun: 1, cdb: TUR }), 0x062900);
  });
});

describe("storage channel", () => {
  it("completions that find no room wait in order, and the guest's packets with them", () => {
    const { controller, memory } = rig();
    controller.addDisk(0, new MemoryDisk({ bytes: MIB }), IDENTITY);
    const guest = new ScriptedGuest(controller, memory).start();
    const { channel } = guest;
    channel.take(2);
    const put = (low: number): void => channel.put({ low, payload: srb({ cdb: TUR }, 0, 2) });
    for (let id = 100; id < 110; id++) put(id);
    assert.equal(channel.paused, true);
    assert.equal(channel.backlog, 7, "one waits inside, the others in the ring");
    controller.addDisk(1, new MemoryDisk({ bytes: MIB }), IDENTITY);
    const seen: number[] = [];
    for (let i = 0; i < 20; i++) for (const p of channel.take(1)) seen.push(p.type === 11 ? p.low : -p.payload[0]!);
    assert.deepEqual(
      seen.filter((n) => n > 0),
      [100, 101, 102, 103, 104, 105, 106, 107, 108, 109],
    );
    assert.deepEqual(
      seen.filter((n) => n < 0),
      [-11],
      "ENUMERATE_BUS, once",
    );
    assert.equal(channel.paused, false);
  });

  it("a completion does not overtake those that wait, though there is room by now", () => {
    const { controller, memory } = rig();
    const disk = new FailingDisk({ bytes: MIB });
    disk.slow = true;
    controller.addDisk(0, disk, IDENTITY);
    const guest = new ScriptedGuest(controller, memory).start();
    const { channel } = guest;
    const flush = guest.submit({ cdb: [0x35, ...new Array(9).fill(0)] });
    channel.take(0);
    channel.put({ low: 100, payload: srb({ cdb: TUR }, 0, 2) });
    // The guest has made room, but the bus has not said so yet.
    channel.room = 5;
    disk.go();
    assert.deepEqual(channel.sent, []);
    assert.deepEqual(
      [...channel.take(), ...channel.take()].map((p) => p.low),
      [100, flush],
    );
  });

  it("takes no more than it can hold, while flushes take their time", () => {
    const { controller, memory } = rig();
    const disk = new FailingDisk({ bytes: MIB });
    disk.slow = true;
    controller.addDisk(0, disk, IDENTITY);
    const guest = new ScriptedGuest(controller, memory).start();
    const ids = Array.from({ length: 1000 }, () => guest.submit({ cdb: [0x35, ...new Array(9).fill(0)] }));
    assert.equal(disk.held.length, MAX_IN_FLIGHT);
    assert.equal(guest.channel.backlog, 1000 - MAX_IN_FLIGHT);
    while (disk.held.length > 0) disk.go();
    for (const id of ids) assertGood(guest.completionOf(id)!);
    assert.equal(guest.channel.paused, false);
  });

  it("a closed channel's requests end in silence, and touch neither guest memory nor disk", () => {
    const { controller, memory } = rig();
    const disk = new FailingDisk({ bytes: MIB });
    disk.write(0, new Uint8Array(4096).fill(5), 0, 4096);
    controller.addDisk(0, disk, IDENTITY);
    const guest = new ScriptedGuest(controller, memory).start();
    disk.slow = true;
    guest.submit({ cdb: unmap(24), out: unmapList([0, 4]) });
    guest.submit({ cdb: write10(0, 1), out: new Uint8Array(512).fill(6), pieces: [{ gpa: 0x3000, length: 512 }] });
    memory.ram.fill(0x77, 0x4000, 0x4200);
    guest.submit({ cdb: read10(0, 1), in: 512, pieces: [{ gpa: 0x4000, length: 512 }] });
    let quiet = 0;
    controller.quiesce(() => quiet++);
    guest.channel.close();
    const writes = disk.log.filter((l) => l.startsWith("write")).length;
    const again = new ScriptedGuest(controller, memory).start();
    assert.equal(quiet, 0);
    disk.go();
    assert.equal(quiet, 1);
    assert.deepEqual(again.channel.sent, []);
    assert.equal(memory.ram[0x4000], 0x77);
    assert.equal(disk.log.filter((l) => l.startsWith("write")).length, writes);
    assert.equal(again.run({ cdb: read10(0, 1), in: 512 }).data[0], 0);
  });

  it("a CDB or a buffer that contradicts itself", () => {
    const { controller, memory } = rig();
    controller.addDisk(0, new MemoryDisk({ bytes: MIB }), IDENTITY);
    const guest = new ScriptedGuest(controller, memory).start();
    const send = (change: (p: Uint8Array) => void, length = 512, rangeLength = 512) => {
      const payload = srb({ cdb: read10(0, 1) }, length, 1);
      change(payload);
      guest.channel.put({ low: 900, payload, ranges: [{ gpa: 0x2000, length: rangeLength }] });
      return decode(guest.channel.take()[0]!.payload);
    };
    assertGood(send(() => {}));
    for (const cdbLength of [0, 6, 9, 17, 255]) {
      const c = send((p) => {
        p[20] = cdbLength;
      });
      assert.deepEqual([c.ntStatus, c.srb], [0xc000000d, 6]);
    }
    assert.equal(send(() => {}, 512, 511).srb, 6);
    assert.equal(send(() => {}, 1024, 512).srb, 6);
    // Room for sense data: all of it, some, none.
    const fail = (capacity: number) =>
      send((p) => {
        p[28] = 0xff;
        p[20] = 10;
        p[21] = capacity;
      });
    assert.equal(fail(255).payload[21], 18);
    const short = fail(8);
    assert.deepEqual([short.payload[21], short.payload[14]], [8, 0x84]);
    assert.deepEqual(
      [...short.payload.subarray(28, 48)],
      [...hex("70 00 05 00 00 00 00 0a"), ...new Array(12).fill(0)],
    );
    const none = fail(0);
    assert.deepEqual([none.srb, none.scsi, none.payload[21]], [0x04, 2, 0]);
    assert.deepEqual([...none.payload.subarray(28, 48)], new Array(20).fill(0));
  });
});

describe("storage: save and restore", () => {
  it("goes on where it was: phase, version, unit attentions, write cache, completions that wait", () => {
    const make = (): ReturnType<typeof rig> => {
      const r = rig();
      r.controller.addDisk(0, new FailingDisk({ bytes: MIB }), IDENTITY);
      r.controller.addDisk(1, new MemoryDisk({ bytes: MIB }), IDENTITY);
      return r;
    };
    const first = make();
    const guest = new ScriptedGuest(first.controller, first.memory).start(0x0600);
    const off = [0, 0, 0, 0, 0x08, 0x12, ...new Array(18).fill(0)];
    assertGood(guest.run({ cdb: [0x15, 0x10, 0, 0, 24, 0], out: Uint8Array.from(off) }));
    guest.control(6);
    assertCheck(guest.run({ lun: 1, cdb: TUR }), 0x062900);
    assertGood(guest.run({ cdb: [0x12, 0, 0, 0, 36, 0], in: 36 }));
    assertCheck(guest.run({ cdb: TUR }), 0x062900);
    assertGood(guest.run({ cdb: [0x15, 0x10, 0, 0, 24, 0], out: Uint8Array.from(off) }));
    guest.channel.take(1);
    for (const low of [50, 51, 52]) guest.channel.put({ low, high: 0x80000000, payload: srb({ cdb: TUR }, 0, 2) });
    first.controller.addDisk(2, new MemoryDisk({ bytes: MIB }), IDENTITY);
    const sent = guest.channel.sent.length;
    assert.equal(sent, 1);
    const state = structuredClone(first.controller.save());

    const second = make();
    second.controller.addDisk(2, new MemoryDisk({ bytes: MIB }), IDENTITY);
    const channel = new ScriptedChannel();
    channel.room = 0;
    [channel.handler] = second.controller.restore(state, [channel]);
    assert.equal(channel.paused, true);
    assert.equal(second.controller.protocolVersion, 0x0600);
    assert.deepEqual(structuredClone(second.controller.save()), state);
    channel.take();
    assert.deepEqual(
      channel.take().map((p) => [p.type, p.low, p.high]),
      [
        [11, 51, 0x80000000],
        [6, 0, 0],
      ],
    );
    assert.equal(channel.paused, false);
    // 52 was still in the ring: the bus keeps it.
    channel.put({ low: 52, payload: srb({ cdb: [0x1a, 0, 8, 0, 255, 0] }, 255, 1), ranges: [{ gpa: 0, length: 255 }] });
    assert.equal(decode(channel.take()[0]!.payload).transferred, 24);
    assert.equal(second.memory.ram[6], 0, "the write cache is still off");
  });

  it("an attention that nobody has heard of yet is kept", () => {
    const first = rig();
    const disk = new MemoryDisk({ bytes: MIB });
    first.controller.addDisk(0, disk, IDENTITY);
    new ScriptedGuest(first.controller, first.memory).start();
    disk.resize(2 * MIB);
    const second = rig();
    second.controller.addDisk(0, new MemoryDisk({ bytes: 2 * MIB }), IDENTITY);
    const channel = new ScriptedChannel();
    [channel.handler] = second.controller.restore(structuredClone(first.controller.save()), [channel]);
    channel.put({ low: 1, payload: srb({ cdb: TUR }, 0, 2) });
    assertCheck(decode(channel.take()[0]!.payload), 0x062a09);
    assert.throws(() => second.controller.restore({ version: 2 }, []), /version 2/);
  });

  it("is not saved while something is under way; quiesce waits for it", () => {
    const { controller, memory } = rig();
    const disk = new FailingDisk({ bytes: MIB });
    disk.slow = true;
    controller.addDisk(0, disk, IDENTITY);
    const guest = new ScriptedGuest(controller, memory).start();
    let quiet = 0;
    controller.quiesce(() => quiet++);
    assert.equal(quiet, 1);
    guest.submit({ cdb: [0x35, ...new Array(9).fill(0)] });
    guest.submit({ cdb: unmap(24), out: unmapList([0, 4]) });
    controller.quiesce(() => quiet++);
    assert.throws(() => controller.save(), /under way/);
    disk.held.shift()!();
    assert.equal(quiet, 1);
    disk.go();
    assert.equal(quiet, 2);
    assert.equal((structuredClone(controller.save()) as { phase: string }).phase, "ready");
  });
});
