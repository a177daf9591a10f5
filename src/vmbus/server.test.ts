import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { TraceKind } from "../trace/trace.js";
import { OfferFlag } from "./device.js";
import * as protocol from "./protocol.js";
import { VmbusVersion } from "./protocol.js";
import { ScriptedDevice, testGuid } from "./scripted-device.js";
import type { ScriptedGuest } from "./scripted-guest.js";
import { bytes, machine, states, works } from "./scripted-machine.js";

const relids = (guest: ScriptedGuest): number[] => [...guest.offers.keys()];
const contact = (values: Partial<Parameters<typeof protocol.InitiateContact.encode>[0]>): Uint8Array =>
  protocol.InitiateContact.encode({
    version: VmbusVersion.iron,
    targetVp: 0,
    messageSint: 2,
    messageVtl: 0,
    featureFlags: 0,
    monitorPage1: 0,
    monitorPage2: 0,
    ...values,
  });

describe("VMBus connection", () => {
  it("is made with the versions that we speak, on both connection ids, and no others", () => {
    const { guest, server } = machine();
    const connected: number[] = [];
    server.onConnected = (v) => connected.push(v);
    const spoken = [
      0xd, 0x10001, 0x20004, 0x30000, 0x40000, 0x40001, 0x50000, 0x50001, 0x50002, 0x50003, 0x60000, 0x40002,
    ]
      .filter((version) => guest.negotiate(version))
      .map((v) => v.toString(16));
    assert.deepEqual(spoken, ["20004", "30000", "40000", "40001", "50000", "50001", "50002", "50003"]);
    assert.equal(connected.length, 8);
    assert.equal(guest.connect(), VmbusVersion.iron);
    assert.equal(server.connection?.version, VmbusVersion.iron);
    for (const [connection, selected] of [
      [1, 1],
      [4, 4],
    ] as const) {
      guest.post(contact({ version: VmbusVersion.win10V5 }), connection);
      assert.equal(guest.answer("VersionResponse")?.selected, selected);
    }
    guest.post(contact({ version: VmbusVersion.win10 }), 1);
    assert.equal(guest.answer("VersionResponse")?.selected, VmbusVersion.win10);
  });
  it("falls back to the newest version that the host allows", () => {
    const { guest, device } = machine(1, { maxVersion: VmbusVersion.win10 });
    assert.equal(guest.connect(), VmbusVersion.win10);
    assert.deepEqual(
      guest.log.filter((m) => m.message === "VersionResponse").map((m) => m.supported),
      [0, 0, 0, 0, 0, 1],
    );
    const channel = guest.open(device.offer.classId);
    assert.equal(device.channel.vmbusVersion, VmbusVersion.win10);
    assert.ok(works(guest, channel));
  });
  it("answers contact exactly once with 16 bytes, at the processor and SINT that were asked for", () => {
    const { guest, violations } = machine(1, { processors: 3 });
    for (const [fields, vp, sint, supported] of [
      [{ targetVp: 2, messageSint: 5 }, 2, 5, 1],
      [{ messageSint: 16 }, 0, 2, 1],
      [{ messageSint: 7, version: VmbusVersion.win10 }, 0, 2, 1],
      [{ targetVp: 3 }, 0, 2, 0],
    ] as const) {
      guest.synic.messages = [];
      guest.post(contact(fields));
      assert.deepEqual(
        guest.synic.messages.map((m) => [m.vp, m.sint, m.bytes.length, m.bytes[0], m.bytes[8]]),
        [[vp, sint, 16, 15, supported]],
      );
    }
    assert.match(violations().join(), /no such processor/);
    assert.equal(guest.server.connection, undefined);
  });
  it("ignores all but contact and unload before it is made", () => {
    const { guest, violations } = machine();
    guest.post(protocol.RequestOffers.encode({}));
    guest.post(protocol.RelIdReleased.encode({ relid: 1 }));
    guest.turn();
    assert.equal(guest.log.length, 0);
    assert.equal(violations().length, 2);
    guest.unload();
    assert.deepEqual(
      guest.log.map((m) => m.message),
      ["UnloadResponse"],
    );
  });
  it("ignores messages that are short, unknown, or of a later version", () => {
    const { guest, violations } = machine();
    guest.connect(VmbusVersion.win81);
    const before = guest.log.length;
    violations();
    guest.post(bytes(3, 0, 0));
    guest.post(bytes(5, 0, 0, 0, 0, 0, 0, 0, 1));
    for (const type of [0, 1, 18, 25, 200]) guest.post(bytes(type, 0, 0, 0, 0, 0, 0, 0));
    guest.post(protocol.ModifyChannel.encode({ relid: 1, targetVp: 0 }));
    guest.post(protocol.TlConnectRequest.encode({ endpoint: testGuid(1), service: testGuid(2) }));
    guest.turn();
    assert.equal(guest.log.length, before);
    assert.equal(violations().length, 9);
    // A longer buffer than message: only the message counts.
    guest.server.onMessage(new Uint8Array(240), 4, 1);
    assert.match(violations().join(), /without a header/);
  });
  it("is left by Unload, and made anew with everything offered again", () => {
    const { guest, server, devices, device } = machine(3);
    let unloads = 0;
    server.onUnload = () => unloads++;
    guest.connect();
    const ids = relids(guest);
    guest.open(device.offer.classId);
    guest.unload();
    assert.deepEqual([unloads, device.closes, server.connection, server.gpadls.count], [1, 1, undefined, 0]);
    assert.deepEqual([...guest.synic.connections], []);
    guest.connect(VmbusVersion.win8);
    assert.deepEqual(relids(guest), ids);
    assert.ok(devices.every((d) => works(guest, guest.open(d.offer.classId))));
    assert.equal(device.opens, 2);
  });
  it("is reset by contact alone, as by a kernel that was started by another", () => {
    const { guest, server, device } = machine(2);
    guest.connect();
    guest.open(device.offer.classId);
    const long = guest.pages(60);
    guest.post(
      protocol.GpadlHeader.encode({ relid: 1, gpadl: 77, rangeBufferLength: 8 + 60 * 8, rangeCount: 1 }, 26 * 8 + 8),
    );
    assert.deepEqual([server.gpadls.count, server.gpadls.incompleteCount], [1, 1]);
    guest.freePages(long);
    guest.connect(VmbusVersion.win10);
    assert.deepEqual(
      [device.closes, server.gpadls.count, server.gpadls.incompleteCount, server.gpadls.entries],
      [1, 0, 0, 0],
    );
    assert.ok(works(guest, guest.open(device.offer.classId)));
  });
  it("does not outlive a reset of the machine", () => {
    const { guest, server, device } = machine();
    guest.connect();
    guest.open(device.offer.classId);
    guest.synic.capacity = 0;
    server.offer(new ScriptedDevice(9));
    assert.equal(server.queuedMessages, 1);
    server.reset();
    assert.deepEqual([server.queuedMessages, device.closes, server.connection], [0, 1, undefined]);
    assert.deepEqual(states(guest), ["1 unoffered", "2 unoffered"]);
    guest.synic.capacity = 100;
    guest.connect();
    assert.deepEqual(relids(guest), [1, 2]);
  });
});

describe("VMBus messages to the guest", () => {
  it("wait in order while the SynIC takes none, and the guest's must wait then too", () => {
    const { guest, server, violations } = machine(300);
    guest.negotiate(VmbusVersion.iron);
    guest.synic.capacity = 10;
    assert.ok(server.acceptsMessages);
    guest.post(protocol.RequestOffers.encode({}));
    assert.equal(server.queuedMessages, 291);
    assert.ok(!server.acceptsMessages);
    while (guest.takeMessages());
    assert.ok(server.acceptsMessages);
    assert.deepEqual(
      relids(guest),
      Array.from({ length: 300 }, (_, i) => i + 1),
    );
    assert.equal(guest.log.at(-1)?.message, "AllOffersDelivered");
    // Who feeds messages on regardless cannot fill our memory.
    guest.synic.capacity = 0;
    for (let i = 0; i < 6000; i++)
      guest.post(protocol.GpadlHeader.encode({ relid: 1, gpadl: i, rangeBufferLength: 0, rangeCount: 0 }));
    assert.equal(server.queuedMessages, 4096);
    assert.match(violations().join(), /takes no answers/);
    guest.synic.capacity = 1e9;
    guest.unload();
  });
  it("are recorded both ways, and can be read", () => {
    const { guest, trace, device } = machine();
    guest.connect();
    const channel = guest.open(device.offer.classId);
    works(guest, channel);
    channel.close();
    const records = trace.take();
    assert.deepEqual(
      records
        .filter((r) => r.kind === TraceKind.vmbusIn || r.kind === TraceKind.vmbusOut)
        .map((r) => (r.kind === TraceKind.vmbusIn ? "> " : "< ") + protocol.describeMessage(r.bytes).message),
      [
        "> InitiateContact",
        "< VersionResponse",
        "> RequestOffers",
        "< OfferChannel",
        "< AllOffersDelivered",
        "> GpadlHeader",
        "< GpadlCreated",
        "> OpenChannel",
        "< OpenChannelResult",
        "> CloseChannel",
        "> GpadlTeardown",
        "< GpadlTorndown",
      ],
    );
    const packets = records.filter((r) => r.kind === TraceKind.packetIn || r.kind === TraceKind.packetOut);
    assert.deepEqual(
      packets.map((r) => [r.kind, r.a, r.b, r.c, [...r.bytes.subarray(0, 3)]]),
      [
        [TraceKind.packetIn, 1, 6, 8, [7, 8, 9]],
        [TraceKind.packetOut, 1, 11, 8, [7, 8, 9]],
      ],
    );
    assert.deepEqual(
      records.filter((r) => r.kind === TraceKind.signalIn || r.kind === TraceKind.signalOut).map((r) => [r.kind, r.a]),
      [
        [TraceKind.signalIn, 1],
        [TraceKind.signalOut, 1],
      ],
    );
  });
});

describe("VMBus offers", () => {
  it("come once for each connection, in order, as the device describes itself", () => {
    const { guest, device, violations } = machine(3);
    guest.connect();
    assert.deepEqual(relids(guest), [1, 2, 3]);
    const { userDefined, ...fields } = guest.offers.get(1)!;
    assert.deepEqual(fields, {
      classId: device.offer.classId,
      instanceId: device.offer.instanceId,
      flags: OfferFlag.enumerate,
      mmioMegabytes: 3,
      subIndex: 0,
      relid: 1,
      monitorId: 0,
      monitorAllocated: 0,
      isDedicatedInterrupt: 1,
      connectionId: 0x10001,
    });
    assert.deepEqual([...userDefined.subarray(0, 4)], [1, 2, 3, 0]);
    guest.post(protocol.RequestOffers.encode({}));
    guest.turn();
    assert.match(violations().join(), /requested twice/);
    assert.equal(guest.allOffersDelivered, 1);
  });
  it("come later for devices that are plugged in later", () => {
    const { guest, server } = machine(1);
    guest.negotiate(VmbusVersion.iron);
    server.offer(new ScriptedDevice(2));
    guest.turn();
    assert.equal(guest.offers.size, 0, "not asked for yet");
    guest.post(protocol.RequestOffers.encode({}));
    guest.turn();
    assert.deepEqual(relids(guest), [1, 2]);
    const late = new ScriptedDevice(3);
    server.offer(late);
    guest.turn();
    assert.deepEqual(relids(guest), [1, 2, 3]);
    assert.ok(works(guest, guest.open(late.offer.classId)));
  });
  it("are refused when the device is there already, or all relids are used", () => {
    const { server } = machine(1);
    assert.throws(() => server.offer(new ScriptedDevice(1)), RangeError);
    for (let i = 2; i <= 2047; i++) server.offer(new ScriptedDevice(i));
    assert.equal(server.freeRelids, 0);
    assert.throws(() => server.offer(new ScriptedDevice(3000)), RangeError);
  });
  it("are taken back: unoffered, offered, open, closed", () => {
    const released: string[] = [];
    const { guest, offers, devices, server } = machine(4);
    offers[0]!.rescind(() => released.push("unoffered"));
    offers[0]!.rescind(() => released.push("again"));
    assert.deepEqual(released, ["unoffered", "again"]);
    guest.connect();
    assert.deepEqual(relids(guest), [2, 3, 4]);
    const open = guest.open(devices[2]!.offer.classId);
    guest.open(devices[3]!.offer.classId).close();
    assert.deepEqual(states(guest), ["2 offered", "3 open", "4 closed"]);
    offers.forEach((o, i) => {
      o.rescind(() => released.push(String(i)));
      o.rescind();
    });
    guest.turn();
    assert.deepEqual([...guest.rescinded], [2, 3, 4]);
    assert.deepEqual(states(guest), ["2 rescinded", "3 rescinded", "4 rescinded"]);
    assert.equal(devices[2]!.closes, 1, "the service hears of it at once");
    assert.equal(guest.synic.connections.size, 0);
    // Nothing is read from its ring any more, and an open is not answered.
    assert.ok(open.send(bytes(1)));
    guest.turn();
    assert.equal(open.out.read, 0);
    guest.post(
      protocol.OpenChannel.encode({
        relid: 2,
        openId: 2,
        ringGpadl: 1,
        targetVp: 0,
        downstreamOffset: 2,
        userData: bytes(),
      }),
    );
    assert.equal(guest.answer("OpenChannelResult"), undefined);
    open.modify(1);
    assert.equal(guest.answer("ModifyChannelResponse"), undefined);
    // Close, teardown and release are as ever.
    assert.deepEqual(released, ["unoffered", "again", "0"]);
    open.close();
    assert.equal(server.gpadls.count, 0);
    guest.gpadl(3, guest.pages(2));
    guest.post(protocol.GpadlHeader.encode({ relid: 3, gpadl: 7, rangeBufferLength: 400, rangeCount: 1 }, 8));
    assert.deepEqual([server.gpadls.count, server.gpadls.incompleteCount], [1, 1]);
    for (const relid of [3, 2, 4]) guest.release(relid);
    assert.deepEqual([server.gpadls.count, server.gpadls.incompleteCount, server.gpadls.entries], [0, 0, 0]);
    assert.deepEqual(released, ["unoffered", "again", "0", "2", "1", "3"]);
    assert.deepEqual(states(guest), []);
  });
  it("reuse a relid only when the guest has released it", () => {
    const { guest, server, offers } = machine(2);
    guest.connect();
    offers[0]!.rescind();
    server.offer(new ScriptedDevice(3));
    guest.turn();
    assert.deepEqual(relids(guest), [1, 2, 3]);
    guest.release(1);
    server.offer(new ScriptedDevice(4));
    guest.turn();
    assert.deepEqual(guest.offers.get(1)?.classId, testGuid(4));
  });
  it("hold a device of the same name back until the guest has let the first go", () => {
    const { guest, server, offers, device } = machine(2);
    guest.connect();
    const channel = guest.open(device.offer.classId);
    offers[0]!.rescind();
    const again = new ScriptedDevice(1);
    const offer = server.offer(again);
    guest.turn();
    assert.deepEqual(states(guest), ["1 rescinded", "2 offered", "3 unoffered"]);
    channel.close();
    guest.turn();
    assert.equal(guest.offers.has(3), false);
    guest.release(1);
    assert.deepEqual(states(guest), ["2 offered", "3 offered"]);
    assert.ok(works(guest, guest.open(again.offer.classId)));
    // One that waits can be taken back, and the guest never hears of it.
    offer.rescind();
    const third = server.offer(new ScriptedDevice(1));
    let isGone = false;
    third.rescind(() => {
      isGone = true;
    });
    assert.ok(isGone);
    guest.turn();
    assert.deepEqual(states(guest), ["2 offered", "3 rescinded"]);
  });
  it("forget what was not released when the guest starts anew", () => {
    const { guest, server, offers } = machine(2);
    let isGone = false;
    guest.connect();
    offers[0]!.rescind(() => {
      isGone = true;
    });
    server.offer(new ScriptedDevice(1));
    guest.connect();
    assert.ok(isGone);
    assert.deepEqual(states(guest), ["2 offered", "3 offered"]);
  });
  it("may go with the connection: sockets", () => {
    const { guest, server } = machine(1);
    guest.connect();
    const gone: string[] = [];
    const socket = new ScriptedDevice(50);
    const offer = server.offer(socket, { transient: true, released: () => gone.push("released") });
    guest.turn();
    assert.ok(works(guest, guest.open(socket.offer.classId)));
    socket.onClose = () => offer.rescind(() => gone.push("rescinded"));
    guest.unload();
    assert.deepEqual([socket.closes, gone.sort()], [1, ["released", "rescinded"]]);
    server.offer(new ScriptedDevice(51), { transient: true });
    server.reset();
    assert.deepEqual(states(guest), ["1 unoffered"]);
  });
  it("cannot be released by a guest that was not asked to, nor those it does not know", () => {
    const { guest, violations } = machine(1);
    guest.connect();
    for (const relid of [1, 2, 0, 5000]) guest.post(protocol.RelIdReleased.encode({ relid }));
    assert.equal(violations().length, 4);
    assert.deepEqual(states(guest), ["1 offered"]);
  });
});

describe("VMBus sub-channels", () => {
  function withSubs(count = 3) {
    const m = machine(2);
    m.guest.connect();
    const primary = m.guest.open(m.device.offer.classId);
    m.offer.offerSubChannels(count);
    m.guest.turn();
    return { ...m, primary };
  }
  it("are offered under the device's name with indices and relids of their own, once for each opening", () => {
    const { guest, offer, device, offers } = withSubs();
    assert.deepEqual(
      [...guest.offers.values()].map((o) => [o.relid, o.subIndex, o.instanceId === device.offer.instanceId]),
      [
        [1, 0, true],
        [2, 0, false],
        [3, 1, true],
        [4, 2, true],
        [5, 3, true],
      ],
    );
    offer.offerSubChannels(2);
    offers[1]!.offerSubChannels(2);
    guest.turn();
    assert.equal(guest.offers.size, 5, "not twice, and not for a device that is not open");
    const sub = guest.open(device.offer.classId, { subIndex: 2 });
    assert.ok(works(guest, sub));
    assert.deepEqual(
      device.packets.map((p) => p.subIndex),
      [2],
    );
  });
  it("go when the primary channel closes, and may be offered at its next opening", () => {
    const { guest, offer, device, primary } = withSubs(2);
    const sub = guest.open(3);
    primary.close();
    guest.turn();
    assert.deepEqual([...guest.rescinded], [3, 4]);
    assert.equal(device.closes, 2);
    sub.close();
    guest.release(3);
    guest.open(1);
    offer.offerSubChannels(2);
    guest.turn();
    assert.deepEqual(states(guest), ["1 open", "2 offered", "3 offered", "4 rescinded", "5 unoffered"]);
    guest.release(4);
    assert.deepEqual(states(guest), ["1 open", "2 offered", "3 offered", "5 offered"]);
    assert.ok(works(guest, guest.open(device.offer.classId, { subIndex: 2 })));
  });
  it("may be released by the guest before it closes the primary, as Linux does", () => {
    const { guest, offer, primary, device } = withSubs(2);
    const sub = guest.open(3);
    sub.close();
    guest.release(3);
    guest.open(4);
    guest.release(4);
    assert.equal(device.closes, 2, "one was still open");
    primary.close();
    guest.turn();
    assert.equal(guest.rescinded.size, 0);
    guest.open(1);
    offer.offerSubChannels(1);
    guest.turn();
    assert.deepEqual(states(guest), ["1 open", "2 offered", "3 offered"]);
  });
  it("go with the device, and with the connection", () => {
    const { guest, offer } = withSubs(2);
    offer.rescind();
    guest.turn();
    assert.deepEqual([...guest.rescinded].sort(), [1, 3, 4]);
    offer.offerSubChannels(1);
    for (const relid of [1, 3, 4]) guest.release(relid);
    assert.deepEqual(states(guest), ["2 offered"]);
    const m = withSubs(2);
    m.guest.open(4);
    m.guest.connect();
    assert.deepEqual(states(m.guest), ["1 offered", "2 offered"]);
    assert.equal(m.device.closes, 2);
    m.guest.open(1);
    m.offer.offerSubChannels(1);
    m.guest.turn();
    assert.equal(m.guest.offers.size, 3);
  });
  it("are fewer when no relid is left", () => {
    const { server, guest, offers, violations } = withSubs(0);
    for (let i = 10; server.freeRelids > 3; i++) server.offer(new ScriptedDevice(i));
    offers[1]!.offerSubChannels(2);
    guest.open(2);
    offers[1]!.offerSubChannels(10);
    assert.equal(server.freeRelids, 0);
    assert.match(violations().join(), /no relid is left/);
    guest.turn();
  });
});

describe("VMBus sockets", () => {
  it("are asked for by the guest, with a silo from 5.2 on, and answered", () => {
    const { guest, server } = machine();
    const asked: unknown[] = [];
    server.onTlConnect = (...a) => asked.push(a);
    const [endpoint, service, silo] = [testGuid(1), testGuid(2), testGuid(3)];
    const request = protocol.TlConnectRequest.encode({ endpoint, service }, 16);
    request.set(protocol.TlConnectRequest.encode({ endpoint: silo, service }).subarray(8, 24), 40);
    for (const version of [VmbusVersion.iron, VmbusVersion.win10V51]) {
      guest.connect(version);
      guest.post(request);
    }
    guest.post(request.subarray(0, 40));
    assert.deepEqual(asked, [
      [endpoint, service, silo],
      [endpoint, service, undefined],
      [endpoint, service, undefined],
    ]);
    server.sendTlConnectResult(endpoint, service, 0xc0000001);
    assert.deepEqual(guest.answer("TlConnectResult"), {
      message: "TlConnectResult",
      endpoint,
      service,
      status: 0xc0000001,
    });
    server.onTlConnect = undefined;
    guest.post(request);
    assert.equal(guest.answer("TlConnectResult")?.status, 0xc0000236);
    guest.connect(VmbusVersion.win10);
    guest.post(request);
    assert.equal(guest.answer("TlConnectResult"), undefined, "a message that 4.0 does not know");
    guest.unload();
    server.sendTlConnectResult(endpoint, service, 1);
    assert.equal(guest.answer("TlConnectResult"), undefined);
  });
});
