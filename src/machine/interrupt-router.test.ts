import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import {
  ApicBase,
  DeliveryMode,
  ApicRegister as R,
  REQUEST_FLAGS,
  REQUEST_WORDS,
  RequestFlag,
  SVR_ENABLED,
} from "./apic-page.js";
import { BROADCAST, InterruptRouter } from "./interrupt-router.js";

/** A register page as its owner would leave it. */
function apic(id: number, o: { x2?: boolean; ldr?: number; cluster?: boolean; ppr?: number; off?: boolean } = {}) {
  const registers = new Int32Array(new SharedArrayBuffer(4096));
  const requests = new Int32Array(new SharedArrayBuffer(REQUEST_WORDS * 4));
  registers[R.HOST_ID >> 2] = id;
  registers[R.HOST_BASE >> 2] = ApicBase.EN | (o.x2 ? ApicBase.EXTD : 0);
  registers[R.SVR >> 2] = o.off ? 0xff : 0xff | SVR_ENABLED;
  registers[R.LDR >> 2] = o.x2 ? ((id >>> 4) << 16) | (1 << (id & 15)) : (o.ldr ?? 0) << 24;
  registers[R.DFR >> 2] = o.cluster ? 0x0fff_ffff : -1;
  registers[R.PPR >> 2] = o.ppr ?? 0;
  const door = { registers, requests, wakes: 0, wake: () => void door.wakes++ };
  return door;
}

const has = (door: { requests: Int32Array }, vector: number) =>
  (door.requests[vector >> 5]! & (1 << (vector & 31))) !== 0;

function machine(...doors: ReturnType<typeof apic>[]) {
  const router = new InterruptRouter();
  for (const door of doors) router.add(door);
  /** Which of them have the vector, after sending it. */
  const send = (destination: number, logical: boolean, mode: number = DeliveryMode.Fixed) => {
    for (const door of doors) door.requests.fill(0);
    const taken = router.deliver(destination, logical, mode, 0x40, false);
    const got = doors.flatMap((door, i) => (has(door, 0x40) ? [i] : []));
    assert.equal(taken, got.length > 0);
    return got;
  };
  return { router, send };
}

describe("interrupt router", () => {
  it("matches physical ids and the broadcast id", () => {
    const { send } = machine(apic(0), apic(1), apic(2));
    assert.deepEqual(send(1, false), [1]);
    assert.deepEqual(send(7, false), []);
    assert.deepEqual(send(0xff, false), [0, 1, 2]);
  });

  it("matches flat logical destinations", () => {
    const { send } = machine(apic(0, { ldr: 1 }), apic(1, { ldr: 2 }), apic(2, { ldr: 4 }));
    assert.deepEqual(send(0x5, true), [0, 2]);
    assert.deepEqual(send(0xff, true), [0, 1, 2]);
    assert.deepEqual(send(0x8, true), []);
  });

  it("matches cluster logical destinations", () => {
    const c = { cluster: true };
    const { send } = machine(apic(0, { ldr: 0x11, ...c }), apic(1, { ldr: 0x12, ...c }), apic(2, { ldr: 0x21, ...c }));
    assert.deepEqual(send(0x13, true), [0, 1]);
    assert.deepEqual(send(0x21, true), [2]);
    assert.deepEqual(send(0xf1, true), [0, 2]);
  });

  it("matches x2APIC logical ids, 16 in a cluster", () => {
    const doors = [0, 1, 16, 17].map((id) => apic(id, { x2: true }));
    const { router } = machine(...doors);
    const icr = 0x800 | 0x40;
    router.sendIpi(0, icr, (1 << 16) | 0b11);
    assert.deepEqual(
      doors.map((d) => has(d, 0x40)),
      [false, false, true, true],
    );
    router.sendIpi(0, icr + 1, BROADCAST);
    assert.ok(doors.every((d) => has(d, 0x41)));
  });

  it("gives lowest priority to one, the least busy", () => {
    const { send } = machine(
      apic(0, { ppr: 0x30 }),
      apic(1, { ppr: 0x20 }),
      apic(2, { ppr: 0x20 }),
      apic(3, { off: true }),
    );
    assert.deepEqual(send(0xff, false, DeliveryMode.LowestPriority), [1]);
  });

  it("does not give vectors to an APIC that is switched off, but NMI and INIT", () => {
    const off = apic(0, { off: true });
    const { router, send } = machine(off);
    assert.deepEqual(send(0, false), []);
    assert.equal(router.deliver(0, false, DeliveryMode.Nmi, 0, false), true);
    assert.equal(router.deliver(0, false, DeliveryMode.Init, 0, false), true);
    assert.equal(off.requests[REQUEST_FLAGS], RequestFlag.Some | RequestFlag.Nmi | RequestFlag.Init);
    assert.equal(off.wakes, 2);
  });

  it("knows the shorthands and ignores INIT de-assert", () => {
    const doors = [apic(0), apic(1), apic(2)];
    const { router } = machine(...doors);
    router.sendIpi(1, (1 << 18) | 0x50, 0);
    router.sendIpi(1, (2 << 18) | 0x51, 0);
    router.sendIpi(1, (3 << 18) | 0x52, 0);
    assert.deepEqual(
      doors.map((d) => has(d, 0x50)),
      [false, true, false],
    );
    assert.deepEqual(
      doors.map((d) => has(d, 0x51)),
      [true, true, true],
    );
    assert.deepEqual(
      doors.map((d) => has(d, 0x52)),
      [true, false, true],
    );
    router.sendIpi(0, 0x8500, 1);
    assert.equal(doors[1]!.requests[REQUEST_FLAGS]! & RequestFlag.Init, 0);
    router.sendIpi(0, 0xc500, 1);
    router.sendIpi(0, 0x0699, 1);
    assert.equal(
      doors[1]!.requests[REQUEST_FLAGS]! & (RequestFlag.Init | RequestFlag.Sipi),
      RequestFlag.Init | RequestFlag.Sipi,
    );
    assert.equal(doors[1]!.requests[17], 0x99);
  });

  it("decodes MSIs", () => {
    const doors = [apic(0, { ldr: 1 }), apic(1, { ldr: 2 })];
    const { router } = machine(...doors);
    router.deliverMsi(0xfee0_1000, 0x41);
    router.deliverMsi(0xfee0_3004, 0x42);
    assert.deepEqual(
      doors.map((d) => has(d, 0x41)),
      [false, true],
    );
    assert.deepEqual(
      doors.map((d) => has(d, 0x42)),
      [true, true],
    );
    router.deliverMsi(0xfee0_0000, 0xc043); // level: bits 8..15 of the request words
    assert.equal(doors[0]!.requests[8 + (0x43 >> 5)], 1 << (0x43 & 31));
  });

  it("takes any message", () => {
    const { router } = machine(apic(0), apic(1, { x2: true }));
    fc.assert(
      fc.property(fc.integer(), fc.integer(), fc.nat(3), (icr, destination, sender) => {
        router.sendIpi(sender, icr, destination);
        router.deliverMsi(destination, icr);
      }),
    );
  });
});
