import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { referenceTime } from "../../hypervisor/reference-time.js";
import { HeartbeatService } from "./heartbeat.js";
import { type IcDriver, IcGuest, type Version } from "./scripted-guest.js";
import { type ShutdownOutcome, type ShutdownRequest, ShutdownService } from "./shutdown.js";
import { TimeSyncService } from "./time-sync.js";

const S = 1e9;
const view = (request: Uint8Array): DataView => new DataView(request.buffer, request.byteOffset);
/** As Linux's heartbeat handler: adds 1 to the sequence, leaves the rest. */
const beat =
  (state = 0) =>
  (v: DataView): void => {
    v.setBigUint64(28, v.getBigUint64(28, true) + 1n, true);
    v.setUint32(36, state, true);
  };

describe("the heartbeat", () => {
  const start = () => {
    const g = new IcGuest();
    const service = new HeartbeatService(g);
    const driver = g.load(service);
    driver.negotiateAsLinux([3, 0], [1, 0]);
    return { g, service, driver };
  };
  it("asks at once, then every two seconds, with the next sequence and the full block of 40 bytes", () => {
    const { g, driver } = start();
    let last = -1n;
    for (let i = 0; i < 5; i++) {
      const request = driver.request();
      assert.deepEqual([request[12], request[18], request.length], [1, 40, 72]);
      const sequence = view(request).getBigUint64(28, true);
      assert.ok(sequence > last);
      last = sequence;
      driver.answer(request, beat());
      g.runTo(g.nowNs + 2 * S - 1);
      assert.deepEqual(driver.requests(), []);
      g.runTo(g.nowNs + 1);
    }
  });
  it("is unknown, well, lost after ten seconds of silence, and well again", () => {
    const { g, service, driver } = start();
    assert.deepEqual(service.status, { health: "no-contact", replies: 0 });
    driver.answer(driver.request(), beat());
    assert.deepEqual(service.status, { health: "ok", replies: 1 });
    g.runTo(10 * S);
    assert.equal(service.status.health, "ok");
    g.runTo(10 * S + 1);
    assert.equal(service.status.health, "lost");
    // one request has waited all the time, and no other was made
    driver.answer(driver.request(), beat());
    assert.deepEqual(service.status, { health: "ok", replies: 2 });
  });
  it("says critical when the guest does, and only then", () => {
    const { g, service, driver } = start();
    for (const [state, health] of [
      [2, "critical"],
      [1, "ok"],
      [3, "ok"],
      [0, "ok"],
    ] as const) {
      driver.answer(driver.request(), beat(state));
      assert.equal(service.status.health, health);
      g.runTo(g.nowNs + 2 * S);
    }
  });
  it("counts only answers with the right sequence and no error", () => {
    const { g, service, driver } = start();
    for (const wrong of [
      () => {},
      (v: DataView) => v.setUint32(28, 77, true),
      (v: DataView) => {
        beat()(v);
        v.setUint32(20, 0x80004005, true);
      },
    ]) {
      driver.answer(driver.request(), wrong);
      assert.deepEqual(service.status, { health: "no-contact", replies: 0 });
      g.runTo(g.nowNs + 2 * S);
    }
    driver.answer(driver.request(), beat());
    assert.equal(service.status.replies, 1);
    g.runTo(g.nowNs + 2 * S);
    const short = driver.request();
    const reply = short.slice(0, 36);
    reply[25] = 5;
    driver.send(reply);
    assert.equal(service.status.replies, 1);
    assert.deepEqual(g.violations(), []);
  });
  it("is unknown again when the driver goes, and stops asking", () => {
    const { g, service, driver } = start();
    driver.answer(driver.request(), beat());
    driver.channel.close();
    assert.equal(service.status.health, "no-contact");
    g.runTo(60 * S);
    assert.equal(g.deadlines.earliest(), Number.POSITIVE_INFINITY);
    const again = g.open(service);
    again.negotiateAsLinux([3, 0]);
    again.answer(again.request(), beat());
    assert.deepEqual(service.status, { health: "ok", replies: 2 });
  });
});

const POWER_OFF: ShutdownRequest = { restart: false, force: false, message: "bye", timeoutSeconds: 30 };

describe("shutdown", () => {
  const start = (...versions: Version[]) => {
    const g = new IcGuest();
    const service = new ShutdownService(g);
    const driver = g.load(service);
    const outcomes: ShutdownOutcome[] = [];
    const ask = (o: Partial<ShutdownRequest> = {}): void =>
      service.shutDown({ ...POWER_OFF, ...o }, (outcome) => outcomes.push(outcome));
    if (versions.length > 0) driver.negotiateAsLinux(...versions);
    return { g, service, driver, outcomes, ask };
  };
  it("asks with reason, time-out, flags and text, in the whole 2060 bytes that Linux wants", () => {
    for (const [o, flags] of [
      [{}, 0],
      [{ force: true }, 1],
      [{ restart: true }, 2],
      [{ restart: true, force: true }, 3],
    ] as const) {
      const { driver, ask } = start([3, 2]);
      ask(o);
      const request = driver.request();
      const v = view(request);
      // 28 + 2060, and padding to 8
      assert.deepEqual([request.length, v.getUint16(18, true), v.getUint32(4, true)], [2088, 2060, 2080]);
      assert.equal(v.getUint16(12, true), 3);
      assert.deepEqual([v.getUint32(28, true), v.getUint32(32, true), v.getUint32(36, true)], [0x80000000, 30, flags]);
      assert.deepEqual([...request.subarray(40, 45)], [98, 121, 101, 0, 0]);
    }
  });
  it("tells what the guest said", () => {
    for (const [status, outcome] of [
      [0, "accepted"],
      [0x80004005, "refused"],
      [0x80070032, "refused"],
    ] as const) {
      const { driver, outcomes, ask } = start([3, 2]);
      ask();
      assert.deepEqual(outcomes, []);
      driver.answer(driver.request(), (v) => v.setUint32(20, status, true));
      assert.deepEqual(outcomes, [outcome]);
    }
  });
  it("is not ready before the driver has answered, and when it goes", () => {
    const { driver, outcomes, ask } = start();
    ask();
    assert.deepEqual(outcomes, ["not-ready"]);
    driver.negotiateAsLinux([3, 2]);
    ask();
    driver.channel.close();
    assert.deepEqual(outcomes, ["not-ready", "not-ready"]);
    ask();
    assert.equal(outcomes.length, 3);
  });
  it("is busy while one is asked, and not supported where restart is newer than the guest", () => {
    const { driver, outcomes, ask } = start([3, 0]);
    ask({ restart: true });
    assert.deepEqual(outcomes, ["unsupported"]);
    ask();
    ask();
    assert.deepEqual(outcomes, ["unsupported", "busy"]);
    driver.answer(driver.request());
    assert.deepEqual(outcomes, ["unsupported", "busy", "accepted"]);
    const old = start([1, 0]);
    old.ask({ restart: true });
    old.ask();
    assert.deepEqual(old.outcomes, ["unsupported"]);
    assert.equal(old.driver.request().length, 2088);
    const newer = start([3, 1]);
    newer.ask({ restart: true });
    assert.deepEqual(newer.outcomes, []);
  });
  it("cuts long text between characters, with a zero behind it", () => {
    const { driver, ask } = start([3, 2]);
    ask({ message: "x".repeat(2046) + "é".repeat(10) });
    const text = driver.request().subarray(40, 2088);
    assert.equal(text.length, 2048);
    assert.equal(text.indexOf(0), 2046);
    const decoded = new TextDecoder("utf-8", { fatal: true }).decode(text.subarray(0, 2046));
    assert.equal(decoded, "x".repeat(2046));
  });
  it("is not ready where the guest's ring is too small to ask", () => {
    const g = new IcGuest();
    const service = new ShutdownService(g);
    g.guest.server.offer(service);
    g.guest.connect();
    // the negotiation fits in 4096 bytes, and so does a request: fill it up by a guest that reads nothing
    const channel = g.guest.open(service.offer.classId, { ringPages: 2 });
    assert.equal(channel.in.size, 4096);
    g.guest.turn();
    assert.equal(service.version, undefined);
  });
  it("gives every host request exactly one outcome, whatever the order of events", () => {
    const event = fc.constantFrom("ask", "restart", "yes", "no", "garbage", "close", "open", "negotiate", "unload");
    fc.assert(
      fc.property(fc.array(event, { maxLength: 25 }), fc.constantFrom<Version>([3, 2], [3, 0]), (events, version) => {
        const g = new IcGuest();
        const service = new ShutdownService(g);
        let driver: IcDriver | undefined = g.load(service);
        let negotiation: Uint8Array<ArrayBuffer> | undefined = driver.request();
        let request: Uint8Array<ArrayBuffer> | undefined;
        const calls: number[] = [];
        const ask = (restart: boolean): void => {
          const n = calls.push(0) - 1;
          service.shutDown({ ...POWER_OFF, restart }, () => calls[n]!++);
          request ??= driver?.requests()[0];
        };
        for (const e of events) {
          if (e === "ask" || e === "restart") ask(e === "restart");
          else if (e === "open") {
            if (driver !== undefined) continue;
            if (g.guest.server.connection === undefined) g.guest.connect();
            driver = g.open(service);
            negotiation = driver.request();
          } else if (driver === undefined) continue;
          else if (e === "close" || e === "unload") {
            if (e === "close") driver.channel.close();
            else g.guest.unload();
            driver = request = negotiation = undefined;
          } else if (e === "negotiate") {
            if (negotiation !== undefined) driver.negotiate([[3, 0]], [version], negotiation);
            negotiation = undefined;
          } else if (e === "garbage") driver.send(new Uint8Array(40).fill(5));
          else if (request !== undefined) {
            driver.answer(request, (v) => v.setUint32(20, e === "yes" ? 0 : 1, true));
            request = undefined;
          }
          // one request is under way at most
          const open = calls.filter((n) => n === 0).length;
          assert.equal(open, request === undefined ? 0 : 1);
          assert.ok(calls.every((n) => n <= 1));
        }
        driver?.channel.close();
        assert.ok(calls.every((n) => n === 1));
      }),
      { numRuns: 150 },
    );
  });
});

describe("time synchronisation", () => {
  const WALL = 1_700_000_000_123.5;
  const start = (...versions: Version[]) => {
    const g = new IcGuest();
    const service = new TimeSyncService({
      clock: g.clock,
      deadlines: g.deadlines,
      trace: g.trace,
      wallClockMs: () => WALL + g.nowNs / 1e6,
    });
    const driver = g.load(service);
    g.runTo(12_345_678_901);
    driver.negotiateAsLinux(...versions);
    return { g, service, driver };
  };
  const EPOCH = 116444736000000000n;
  it("sets the clock right after negotiation: the time since 1601, and the reference time of the same instant", () => {
    const { g, driver } = start([4, 0]);
    const request = driver.request();
    const v = view(request);
    assert.deepEqual([v.getUint16(12, true), v.getUint16(18, true), v.getUint32(4, true)], [4, 22, 42]);
    // a double has steps of 200 ns there
    const expected = EPOCH + 17000000001235000n + 123456789n;
    const difference = v.getBigUint64(28, true) - expected;
    assert.ok(difference >= -4n && difference <= 4n, `${difference}`);
    assert.equal(v.getBigUint64(36, true), BigInt(referenceTime(g.nowNs)));
    assert.deepEqual([...request.subarray(44, 50)], [1, 0, 2, 0, 0, 0]);
  });
  it("tells older guests the time alone", () => {
    for (const version of [
      [3, 0],
      [1, 0],
    ] as const) {
      const { driver } = start(version);
      const request = driver.request();
      const v = view(request);
      assert.deepEqual([v.getUint16(18, true), v.getUint32(4, true)], [25, 45]);
      assert.ok(v.getBigUint64(28, true) > EPOCH + 17000000001235000n);
      assert.deepEqual([v.getBigUint64(36, true), v.getBigUint64(44, true), request[52]], [0n, 0n, 1]);
    }
  });
  it("sends samples every five seconds, one at a time", () => {
    const { g, service, driver } = start([4, 0]);
    driver.answer(driver.request());
    for (let i = 0; i < 3; i++) {
      g.runTo(g.nowNs + 5 * S - 1);
      assert.deepEqual(driver.requests(), []);
      g.runTo(g.nowNs + 1);
      const sample = driver.request();
      assert.equal(sample[44], 2);
      driver.answer(sample);
    }
    assert.equal(service.messages, 4);
    g.runTo(g.nowNs + 5 * S);
    g.runTo(g.nowNs + 60 * S);
    const waiting = driver.request();
    driver.answer(waiting, (v) => v.setUint32(20, 1, true));
    assert.equal(service.messages, 4);
  });
  it("sets the clock again when it is told to: now, or as soon as the guest listens", () => {
    const { g, service, driver } = start([4, 0]);
    driver.answer(driver.request());
    service.synchronize();
    const now = driver.request();
    assert.equal(now[44], 1);
    service.synchronize();
    assert.deepEqual(driver.requests(), []);
    driver.answer(now);
    assert.equal(driver.request()[44], 1);
    driver.channel.close();
    service.synchronize();
    const again = g.open(service);
    again.negotiateAsLinux([4, 0]);
    assert.equal(again.request()[44], 1);
  });
  it("is silent without a guest", () => {
    const { g, driver } = start([4, 0]);
    driver.channel.close();
    g.runTo(100 * S);
    assert.equal(g.deadlines.earliest(), Number.POSITIVE_INFINITY);
  });
});
