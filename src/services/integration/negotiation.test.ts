import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Channel } from "../../vmbus/device.js";
import { HeartbeatService } from "./heartbeat.js";
import { describeIc } from "./ic-protocol.js";
import { IcGuest, type Version } from "./scripted-guest.js";
import { ShutdownService } from "./shutdown.js";
import { TimeSyncService } from "./time-sync.js";

/** Bytes of hexadecimal text. */
const hex = (text: string): number[] => text.split(" ").map((b) => Number.parseInt(b, 16));
const heartbeat = (g: IcGuest): HeartbeatService => new HeartbeatService(g);
const timeSync = ({ clock, deadlines, trace }: IcGuest): TimeSyncService =>
  new TimeSyncService({ clock, deadlines, trace, wallClockMs: () => 0 });

describe("integration components", () => {
  it("are offered with the GUIDs of real hosts, as pipes in message mode", () => {
    const g = new IcGuest();
    const components = [heartbeat(g), new ShutdownService(g), timeSync(g)];
    for (const c of components) g.guest.server.offer(c);
    g.guest.connect();
    const offers = [...g.guest.offers.values()];
    assert.deepEqual(
      offers.map((o) => [o.classId, o.instanceId]),
      [
        ["57164f39-9115-4e78-ab55-382f3bd5422d", "fd149e91-82e0-4a7d-afa6-2a4166cbd7c0"],
        ["0e0b6031-5213-4934-818b-38d90ced39db", "b6650ff7-33bc-4840-8048-e0676786f393"],
        ["9527e630-d0ae-497b-adce-e80ab0175caf", "2dd1ce17-079e-403c-b352-a1921ee207ee"],
      ],
    );
    for (const o of offers) {
      assert.equal(o.flags, 0x11);
      assert.deepEqual([...o.userDefined], [4, ...new Uint8Array(119)]);
    }
  });
  it("speak first, with their versions, byte for byte", () => {
    const g = new IcGuest();
    const driver = g.load(heartbeat(g));
    const [packet, ...more] = driver.channel.receiveAll();
    assert.equal(more.length, 0);
    assert.deepEqual([packet!.type, packet!.flags], [6, 0]);
    // worked example 11
    assert.deepEqual(
      [...packet!.payload],
      [
        ...hex("01 00 00 00 2c 00 00 00 00 00 00 00 00 00 00 00 00 00 18 00 00 00 00 00 00 03 00 00"),
        ...hex("02 00 02 00 00 00 00 00 01 00 00 00 03 00 00 00 01 00 00 00 03 00 00 00"),
        ...[0, 0, 0, 0],
      ],
    );
  });
  it("list what real hosts list, ascending", () => {
    for (const [make, versions] of [
      [
        (g: IcGuest) => new ShutdownService(g),
        [
          [1, 0],
          [3, 0],
          [3, 1],
          [3, 2],
        ],
      ],
      [
        timeSync,
        [
          [1, 0],
          [3, 0],
          [4, 0],
        ],
      ],
    ] as const) {
      const g = new IcGuest();
      const view = new DataView(g.load(make(g)).request().buffer);
      assert.deepEqual([view.getUint16(28, true), view.getUint16(30, true)], [2, versions.length]);
      const listed = Array.from({ length: 2 + versions.length }, (_, i) => [
        view.getUint16(36 + i * 4, true),
        view.getUint16(38 + i * 4, true),
      ]);
      assert.deepEqual(listed, [[1, 0], [3, 0], ...versions]);
    }
  });
  it("use what the guest chose: new, old, or nothing", () => {
    for (const [framework, message, expected] of [
      [
        [
          [3, 0],
          [1, 0],
        ],
        [
          [3, 2],
          [3, 1],
          [3, 0],
          [1, 0],
        ],
        [3, 2],
      ],
      [
        [[3, 0]],
        [
          [3, 0],
          [1, 0],
        ],
        [3, 0],
      ],
      [[[1, 0]], [[1, 0]], [1, 0]],
      [[[3, 0]], [[5, 0]], undefined],
      [[[2, 0]], [[3, 0]], undefined],
    ] as [Version[], Version[], Version | undefined][]) {
      const g = new IcGuest();
      const shutdown = new ShutdownService(g);
      const driver = g.load(shutdown);
      assert.equal(shutdown.version, undefined);
      driver.negotiate(framework, message);
      assert.deepEqual(shutdown.version, expected);
      assert.equal(shutdown.free, expected !== undefined);
      assert.equal(g.violations().length, expected === undefined ? 1 : 0);
      assert.deepEqual(driver.requests(), []);
    }
  });
  it("send requests with the versions that were agreed, flag 3, a new transaction each", () => {
    const g = new IcGuest();
    const shutdown = new ShutdownService(g);
    const driver = g.load(shutdown);
    driver.negotiateAsLinux([3, 1]);
    for (let i = 1; i <= 300; i++) {
      shutdown.shutDown({ restart: false, force: false, message: "", timeoutSeconds: 0 }, () => {});
      const request = driver.request();
      assert.deepEqual(
        [...request.subarray(8, 28)],
        [3, 0, 0, 0, 3, 0, 3, 0, 1, 0, 0x0c, 8, 0, 0, 0, 0, i & 0xff, 3, 0, 0],
      );
      driver.answer(request);
    }
    assert.deepEqual(g.violations(), []);
  });
  it("take no version that they did not offer", () => {
    for (const [framework, message] of [
      [
        [3, 0],
        [3, 9],
      ],
      [
        [3, 1],
        [3, 0],
      ],
      [
        [0, 0],
        [0, 0],
      ],
    ] as const) {
      const g = new IcGuest();
      const shutdown = new ShutdownService(g);
      const driver = g.load(shutdown);
      driver.answer(driver.request(), (v) => {
        [1, 1, 0, 0, ...framework, ...message].forEach((n, i) => {
          v.setUint16(28 + i * 2, n, true);
        });
      });
      assert.equal(shutdown.version, undefined);
      assert.match(g.violations().join(), /none of our versions/);
    }
  });
  it("ignore what answers nothing, and go on", () => {
    const g = new IcGuest();
    const shutdown = new ShutdownService(g);
    const driver = g.load(shutdown);
    const negotiation = driver.request();
    const bad = (change: (v: DataView) => void, length = negotiation.length): void => {
      const reply = negotiation.slice(0, length);
      const view = new DataView(reply.buffer);
      view.setUint8(25, 5);
      change(view);
      driver.send(reply);
    };
    // too short, no data of the pipe, no response
    driver.send(negotiation.slice(0, 24));
    bad((v) => v.setUint32(0, 2, true));
    bad((v) => v.setUint8(25, 3));
    // an answer to a request that was not made
    bad((v) => v.setUint16(12, 3, true));
    bad((v) => v.setUint16(12, 5, true));
    driver.channel.send(negotiation, { type: 11 });
    g.guest.turn();
    assert.equal(g.violations().length, 6);
    driver.negotiate([[3, 0]], [[3, 2]], negotiation);
    assert.deepEqual(shutdown.version, [3, 2]);
  });
  it("negotiate once", () => {
    const g = new IcGuest();
    const shutdown = new ShutdownService(g);
    const driver = g.load(shutdown);
    const negotiation = driver.request();
    driver.answer(negotiation.slice(0, 40));
    assert.match(g.violations().join(), /none of our versions/);
    assert.equal(g.guest.server.channels()[0]?.state, "open");
    driver.answer(negotiation);
    assert.match(g.violations().join(), /answers nothing/);
    assert.equal(shutdown.version, undefined);
  });
  it("begin anew when the driver is unloaded and loaded, and when the guest boots anew", () => {
    const g = new IcGuest();
    const shutdown = new ShutdownService(g);
    let driver = g.load(shutdown);
    driver.negotiateAsLinux([3, 2]);
    driver.channel.close();
    assert.equal(shutdown.version, undefined);
    driver = g.open(shutdown);
    const first = driver.request();
    assert.deepEqual([first[12], first[24]], [0, 0]);
    driver.negotiate([[3, 0]], [[1, 0]], first);
    assert.deepEqual(shutdown.version, [1, 0]);
    g.guest.unload();
    assert.equal(shutdown.version, undefined);
    g.guest.connect();
    driver = g.open(shutdown);
    driver.negotiateAsLinux([3, 0]);
    assert.deepEqual(shutdown.version, [3, 0]);
    g.guest.server.reset();
    assert.equal(shutdown.free, false);
    assert.deepEqual(g.violations(), []);
  });
  it("have one channel", () => {
    const g = new IcGuest();
    const shutdown = new ShutdownService(g);
    const driver = g.load(shutdown);
    driver.negotiateAsLinux([3, 2]);
    for (const subIndex of [0, 1]) assert.equal(shutdown.open({ subIndex } as Channel), undefined);
    assert.deepEqual(shutdown.version, [3, 2]);
  });
  it("are described for traces", () => {
    const g = new IcGuest();
    const request = g.load(heartbeat(g)).request();
    assert.deepEqual(describeIc(request), {
      message: "negotiate",
      direction: "request",
      framework: "0.0",
      version: "0.0",
      status: 0,
      transaction: 0,
    });
    const reply = request.slice();
    reply[12] = 99;
    reply[25] = 5;
    assert.equal(describeIc(reply).message, "type 99");
    assert.equal(describeIc(reply).direction, "response");
    assert.deepEqual(describeIc(request.slice(0, 27)), { message: "short", bytes: 27 });
  });
});
