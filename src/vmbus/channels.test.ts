import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { GuestViolation } from "../machine/guest-violation.js";
import { type Channel, PacketType } from "./device.js";
import * as protocol from "./protocol.js";
import { VmbusVersion } from "./protocol.js";
import type { ScriptedGuest } from "./scripted-guest.js";
import { bytes, machine, states, works } from "./scripted-machine.js";

describe("VMBus channels", () => {
  it("open, close and open again", () => {
    const { guest, device, server } = machine();
    const changes: string[] = [];
    server.onChannelState = (relid, name, state) => changes.push(`${relid} ${name} ${state}`);
    guest.connect();
    for (let i = 1; i <= 3; i++) {
      const channel = guest.open(device.offer.classId, {
        ringPages: 1 + i,
        inRingPages: 3,
        targetVp: i,
        userData: bytes(i, 9),
      });
      assert.deepEqual([...guest.synic.connections], [1]);
      const { relid, subIndex, outRingBytes, userData } = device.channel;
      assert.deepEqual(
        [relid, subIndex, outRingBytes, userData.length, userData[0], userData[1]],
        [1, 0, 8192, 120, i, 9],
      );
      assert.ok(works(guest, channel));
      assert.ok(channel.interrupts > 0);
      assert.ok(device.channel.outEmpty);
      channel.close();
      assert.deepEqual([device.opens, device.closes, guest.synic.connections.size], [i, i, 0]);
    }
    assert.deepEqual(changes.slice(0, 3), ["1 test1 offered", "1 test1 open", "1 test1 closed"]);
    assert.deepEqual(server.channels()[0], {
      name: "test1",
      relid: 1,
      subIndex: 0,
      state: "closed",
      inBytes: 0,
      outBytes: 0,
      packetsIn: 3,
      packetsOut: 3,
      ringBytes: 0,
      version: undefined,
      problem: undefined,
    });
  });
  it("do not touch the rings before they are opened, nor after they are closed", () => {
    const { guest, device, server } = machine();
    guest.connect();
    const channel = guest.open(device.offer.classId);
    const old: Channel = device.channel;
    channel.send(bytes(1));
    guest.post(protocol.CloseChannel.encode({ relid: 1 }));
    const before = guest.memory.ram.slice();
    server.onSignal(1);
    guest.turn();
    const packet = { type: 6, flags: 0, transactionLow: 0, transactionHigh: 0, payload: bytes(1), payloadLength: 1 };
    assert.equal(old.send(packet), false);
    old.pause();
    old.resume();
    assert.ok(old.outEmpty);
    assert.equal(old.gpadl(channel.gpadl), undefined);
    guest.turn();
    assert.ok(Buffer.compare(before, guest.memory.ram) === 0);
    assert.equal(device.packets.length, 0);
  });
  it("are refused: by the device, and where rings cannot be", () => {
    const { guest, device, server, violations } = machine(1, { processors: 2 });
    guest.connect();
    device.refuse = true;
    assert.throws(() => guest.open(1), /3221225473/);
    device.refuse = false;
    device.onOpen = () => {
      throw new GuestViolation("test", "bad user data");
    };
    assert.throws(() => guest.open(1), /not opened/);
    device.onOpen = undefined;
    device.channels.clear();
    assert.throws(() => guest.open(1, { ringPages: 1 }), /not opened/);
    assert.throws(() => guest.open(1, { inRingPages: 1 }), /not opened/);
    assert.throws(() => guest.open(1, { targetVp: 2 }), /not opened/);
    assert.deepEqual([server.gpadls.count, guest.synic.connections.size], [0, 0]);
    const open = (ringGpadl: number, downstreamOffset = 2): unknown => {
      guest.post(
        protocol.OpenChannel.encode({
          relid: 1,
          openId: 5,
          ringGpadl,
          targetVp: 0,
          downstreamOffset,
          userData: bytes(),
        }),
      );
      return guest.answer("OpenChannelResult")?.status;
    };
    assert.notEqual(open(1), 0, "no such GPADL");
    const odd = guest.pages(5);
    assert.notEqual(open(guest.gpadl(1, odd, 4 * 4096, 8)), 0, "a ring does not begin within a page");
    assert.notEqual(open(guest.gpadl(1, odd.slice(1), 4 * 4096 - 8)), 0, "nor end in one");
    const indices = guest.gpadl(1, guest.pages(4));
    guest.memory.writeU32((odd[0] as number) * 4096, 0);
    assert.equal(open(indices), 0);
    assert.notEqual(open(indices), 0, "open already, not answered");
    const text = violations().join();
    for (const rule of [
      /bad user data/,
      /offset of the second ring/,
      /no such processor/,
      /no such GPADL/,
      /whole pages/,
      /open already/,
    ])
      assert.match(text, rule);
  });
  it("are refused when the indices are nonsense at the start", () => {
    const { guest } = machine();
    guest.connect();
    const pages = guest.pages(4);
    guest.memory.writeU32(pages[0]! * 4096 + 4, 0x5000);
    const gpadl = guest.gpadl(1, pages);
    guest.post(
      protocol.OpenChannel.encode({
        relid: 1,
        openId: 5,
        ringGpadl: gpadl,
        targetVp: 0,
        downstreamOffset: 2,
        userData: bytes(),
      }),
    );
    assert.notEqual(guest.answer("OpenChannelResult")?.status, 0);
    assert.deepEqual(states(guest), ["1 offered"]);
  });
  it("may send before the guest hears that they are open", () => {
    const { guest, device } = machine();
    guest.connect();
    device.onOpen = () =>
      device.send({
        type: PacketType.inBand,
        flags: 0,
        transactionLow: 0,
        transactionHigh: 0,
        payload: bytes(5),
        payloadLength: 1,
      });
    const channel = guest.open(device.offer.classId);
    assert.equal(channel.receive()?.payload[0], 5);
    assert.equal(channel.interrupts, 1);
  });
  it("may lose their device while it opens them", () => {
    const { guest, device, offer } = machine();
    guest.connect();
    device.onOpen = () => offer.rescind();
    assert.throws(() => guest.open(device.offer.classId), /not opened: undefined/);
    assert.deepEqual([device.opens, device.closes, guest.synic.connections.size], [1, 1, 0]);
    assert.deepEqual([...guest.rescinded], [1]);
    guest.release(1);
    assert.deepEqual(states(guest), []);
  });
  it("move to another processor by ModifyChannel, answered from 5.3 on", () => {
    for (const [version, status] of [
      [VmbusVersion.win10Rs3, undefined],
      [VmbusVersion.iron, 0],
    ] as const) {
      const { guest, device } = machine(2);
      guest.connect(version);
      const channel = guest.open(device.offer.classId, { targetVp: 1 });
      channel.modify(3);
      assert.equal(guest.answer("ModifyChannelResponse")?.status, status);
      assert.ok(works(guest, channel), "flags are at processor 3 now, which the scripted guest checks");
      assert.ok(channel.interrupts > 0);
      guest.post(protocol.ModifyChannel.encode({ relid: 1, targetVp: 4 }));
      guest.post(protocol.ModifyChannel.encode({ relid: 2, targetVp: 0 }));
      if (status === 0)
        assert.ok(
          [1, 2].every((relid) => {
            const answer = guest.answer("ModifyChannelResponse");
            return answer?.relid === relid && answer.status !== 0;
          }),
        );
      assert.ok(works(guest, channel));
    }
  });
  it("take a 16 MiB buffer in 146 bodies, and give it to the service", () => {
    const { guest, device, server } = machine(1, { bytes: 32 << 20 });
    guest.connect();
    const channel = guest.open(device.offer.classId);
    const pages = guest.pages(4096);
    const before = guest.log.length;
    const gpadl = guest.gpadl(1, pages);
    assert.equal(guest.log.length, before + 1);
    const ranges = device.channel.gpadl(gpadl)!;
    assert.deepEqual([...ranges.pages.subarray(0, ranges.pageCount)], pages);
    assert.equal(device.channel.gpadl(1), undefined);
    guest.teardown(1, gpadl);
    assert.equal(device.channel.gpadl(gpadl), undefined);
    assert.ok(works(guest, channel));
    assert.equal(server.gpadls.count, 1);
  });
  it("are shut down when the guest takes the ring's pages back without closing", () => {
    const { guest, device, violations, server } = machine();
    guest.connect();
    const channel = guest.open(device.offer.classId);
    guest.teardown(1, channel.gpadl);
    assert.deepEqual([device.closes, states(guest)], [1, ["1 failed"]]);
    assert.match(violations().join(), /open channel's ring/);
    assert.match(server.channels()[0]!.problem ?? "", /open channel.s ring/);
    const before = guest.memory.ram.slice();
    channel.send(bytes(1));
    server.onSignal(1);
    guest.turn();
    assert.equal(channel.out.read, 0);
    assert.ok(before.length > 0);
    guest.post(protocol.CloseChannel.encode({ relid: 1 }));
    assert.equal(device.closes, 1);
    assert.ok(works(guest, guest.open(1)));
    guest.post(protocol.GpadlTeardown.encode({ relid: 1, gpadl: 5 }));
    assert.match(violations().join(), /no such list/);
  });
  it("cannot be closed when they are not open", () => {
    const { guest, violations, device } = machine();
    guest.connect();
    guest.post(protocol.CloseChannel.encode({ relid: 1 }));
    guest.post(protocol.CloseChannel.encode({ relid: 9 }));
    assert.deepEqual([violations().length, device.closes], [2, 0]);
  });
});

describe("VMBus packets", () => {
  it("carry the guest's buffers, at any pages", () => {
    const { guest, device } = machine();
    guest.connect();
    const channel = guest.open(device.offer.classId);
    const buffer = guest.buffer(
      Uint8Array.from({ length: 10_000 }, (_, i) => i % 251),
      100,
    );
    device.onPacket = (packet) => {
      const data: number[] = [];
      packet.ranges.forEachPiece((gpa, length) => data.push(...guest.memory.ram.subarray(gpa, gpa + length)));
      assert.deepEqual(data, [...buffer.read()]);
    };
    channel.send(bytes(1, 2), { ranges: [buffer], completion: true, transaction: 5 });
    guest.turn();
    assert.deepEqual(
      device.packets.map((p) => [p.type, p.flags, p.pages]),
      [[9, 1, buffer.pages]],
    );
  });
  it("are taken from channels in turn, so many at a time", () => {
    const { guest, devices, server } = machine(3);
    guest.connect();
    const channels = devices.map((d) => guest.open(d.offer.classId, { ringPages: 9 }));
    guest.turn();
    for (const channel of channels) for (let i = 0; i < 200; i++) channel.send(bytes(i));
    const order: number[] = [];
    devices.forEach((d, i) => {
      d.onPacket = () => order.push(i);
    });
    assert.equal(server.run(96), true);
    assert.deepEqual(
      [0, 1, 2].map((i) => order.filter((o) => o === i).length),
      [32, 32, 32],
    );
    assert.equal(server.run(4), true);
    assert.equal(order.length, 100);
    assert.equal(server.run(1000), false);
    assert.equal(order.length, 600);
    assert.equal(server.run(0), false);
  });
  it("stay in the ring while the service pauses, and the guest comes to wait", () => {
    const { guest, device } = machine();
    guest.connect();
    const channel = guest.open(device.offer.classId, { ringPages: 2 });
    guest.turn();
    device.echo = false;
    device.onPacket = (_, c) => c.pause();
    let sent = 0;
    while (channel.send(new Uint8Array(100))) sent++;
    channel.out.store(12, 1000);
    guest.turn();
    assert.deepEqual([device.packets.length, channel.interrupts], [1, 0]);
    device.channel.resume();
    device.channel.resume();
    device.onPacket = undefined;
    guest.turn();
    assert.equal(device.packets.length, sent);
    assert.equal(channel.interrupts, 1, "there is room again");
    assert.ok(channel.send(new Uint8Array(100)));
  });
  it("wait for room towards the guest, which signals it, or which an old guest does not", () => {
    for (const signals of [true, false]) {
      const { guest, device, server } = machine();
      guest.connect();
      const channel = guest.open(device.offer.classId, { inRingPages: 2 });
      if (!signals) channel.signal = () => {};
      const send = (n: number): void =>
        device.send({
          type: 6,
          flags: 0,
          transactionLow: n,
          transactionHigh: 0,
          payload: new Uint8Array(300),
          payloadLength: 300,
        });
      for (let i = 0; i < 30; i++) send(i);
      server.flush();
      assert.ok(device.backlogLength() > 0);
      assert.ok(!device.channel.outEmpty);
      const seen: number[] = [];
      for (let n = 0; n < 10; n++) {
        seen.push(...channel.receiveAll().map((p) => p.transactionLow));
        guest.turn();
      }
      assert.deepEqual(
        seen,
        Array.from({ length: 30 }, (_, i) => i),
      );
      assert.ok(device.spaces > 0);
      assert.equal(device.backlogLength(), 0);
    }
  });
  it("that are broken end the channel, and the service is told once", () => {
    const spoilers: [RegExp, (c: ReturnType<ScriptedGuest["open"]>, m: ReturnType<typeof machine>) => void][] = [
      [/write index/, (c) => c.out.store(0, 0xffff_fff0)],
      [/header length/, (c) => c.sendRaw(new Uint8Array(16))],
      [/outside RAM/, (c) => c.send(bytes(), { ranges: [{ byteCount: 1, byteOffset: 0, pages: [2 ** 40] }] })],
      [
        /read index/,
        (c) => {
          c.in.store(4, 3);
          c.send(bytes(1));
        },
      ],
      [
        /bad request/,
        (c, m) => {
          m.device.onPacket = () => {
            throw new GuestViolation("test", "bad request");
          };
          c.send(bytes(1));
        },
      ],
      [
        /ring too small/,
        (c, m) => {
          m.device.onPacket = () =>
            m.device.send({
              type: 6,
              flags: 0,
              transactionLow: 0,
              transactionHigh: 0,
              payload: new Uint8Array(20_000),
              payloadLength: 20_000,
            });
          c.send(bytes(1));
        },
      ],
    ];
    for (const [rule, spoil] of spoilers) {
      const m = machine(2);
      const { guest, device, devices, server, violations } = m;
      guest.connect();
      const channel = guest.open(1);
      const other = guest.open(2);
      guest.turn();
      spoil(channel, m);
      server.onSignal(1);
      guest.turn();
      assert.match(violations().join(), rule);
      assert.deepEqual([device.closes, states(guest)], [1, ["1 failed", "2 open"]], String(rule));
      assert.deepEqual([...guest.synic.connections], [2]);
      channel.send(bytes(1));
      server.onSignal(1);
      guest.turn();
      channel.close();
      assert.equal(device.closes, 1);
      device.onPacket = undefined;
      assert.ok(works(guest, guest.open(1)), "it can be opened anew");
      assert.ok(works(guest, other));
      assert.equal(devices[1]!.closes, 0);
    }
  });
  it("cannot keep the host busy by moving the write index to and fro", () => {
    const { guest, server } = machine();
    guest.connect();
    const channel = guest.open(1);
    guest.turn();
    const { memory } = guest;
    const control = channel.out.pages[0]! * 4096;
    memory.written = (gpa) => {
      if (gpa === control + 8) channel.out.store(0, channel.out.mask === 0 ? 64 : 0);
    };
    server.onSignal(1);
    assert.equal(server.run(100), true);
    assert.equal(server.run(100), true);
  });
  it("do not hide our own mistakes", () => {
    const { guest, device, server } = machine();
    guest.connect();
    const channel = guest.open(1);
    device.onPacket = () => {
      throw new TypeError("ours");
    };
    channel.send(bytes(1));
    assert.throws(() => server.run(10), TypeError);
    device.onPacket = () => void server.run(1);
    channel.send(bytes(1));
    server.onSignal(1);
    assert.throws(() => server.run(10), /not called by services/);
    device.onOpen = () => {
      throw new TypeError("ours");
    };
    channel.close();
    device.channels.clear();
    assert.throws(() => guest.open(1), TypeError);
  });
  it("that fail while the service sends from elsewhere are told at the next flush", () => {
    const { guest, device, server } = machine();
    guest.connect();
    const channel = guest.open(1);
    channel.in.store(4, 7);
    device.send({ type: 6, flags: 0, transactionLow: 0, transactionHigh: 0, payload: bytes(1), payloadLength: 1 });
    assert.equal(device.closes, 0);
    server.flush();
    assert.equal(device.closes, 1);
  });
  it("that fail while the channel opens refuse it", () => {
    const { guest, device } = machine();
    guest.connect();
    device.onOpen = () =>
      device.send({
        type: 6,
        flags: 0,
        transactionLow: 0,
        transactionHigh: 0,
        payload: new Uint8Array(50_000),
        payloadLength: 50_000,
      });
    assert.throws(() => guest.open(1), /not opened: \{/);
    assert.deepEqual([device.opens, device.closes, guest.synic.connections.size], [1, 1, 0]);
    device.onOpen = undefined;
    assert.ok(works(guest, guest.open(1)));
  });
});
