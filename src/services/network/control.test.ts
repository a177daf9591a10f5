import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { EthernetPort } from "../../net/port.js";
import { TraceKind, TraceRing } from "../../trace/trace.js";
import { NetworkAdapter, type NetworkAdapterOptions } from "./adapter.js";
import { Oid } from "./oids.js";
import { BROADCAST, frame, GUEST_MAC, OTHER_MAC } from "./scripted-frames.js";
import { ALL_OFFLOADS, hex, join, ScriptedGuest, type StartOptions, testMemory, u32s } from "./scripted-guest.js";

const NOT_SUPPORTED = 0xc00000bb;
const INVALID_DATA = 0xc0010015;
const INVALID_LENGTH = 0xc0010014;

function machine(options: Partial<NetworkAdapterOptions> = {}, start: StartOptions = {}) {
  const memory = testMemory();
  const [port, other] = EthernetPort.cable();
  const trace = new TraceRing(() => 0, 1000);
  const adapter = new NetworkAdapter({
    instanceId: "00000000-0000-0000-0000-000000000007",
    mac: Uint8Array.from(GUEST_MAC),
    port,
    memory,
    trace,
    ...options,
  });
  const guest = new ScriptedGuest(adapter, memory).start(start);
  const violations = (): string[] =>
    trace
      .take()
      .filter((r) => r.kind === TraceKind.violation)
      .map((r) => new TextDecoder().decode(r.bytes));
  return { memory, port, other, adapter, guest, violations };
}
const number = (bytes: Uint8Array): number => new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
const utf16 = (text: string): Uint8Array => Uint8Array.from([...text].flatMap((c) => [c.charCodeAt(0), 0]));

describe("network adapter: RNDIS", () => {
  it("answers INITIALIZE with the bytes that guests look at", () => {
    const { guest } = machine();
    const answer = guest.initialize();
    const words = Array.from({ length: 13 }, (_, i) => number(answer.subarray(i * 4)));
    assert.deepEqual(words.slice(0, 2), [0x80000002, 52]);
    assert.deepEqual(words.slice(3), [0, 1, 0, 1, 0, 8, 0x20000, 3, 0, 0]);
  });
  it("refuses another major version, and is not ready then", () => {
    const { guest } = machine();
    guest.request(u32s(3, 12, 0));
    const answer = guest.request(u32s(2, 24, 0, 2, 0, 0x4000))!;
    assert.equal(number(answer.subarray(12)), NOT_SUPPORTED);
    assert.equal(guest.query(Oid.permanentAddress).status, 0xc0000001);
    assert.equal(guest.set(Oid.currentPacketFilter, u32s(1)), 0xc0000001);
  });
  it("forgets what was set at HALT, and has no answer for it", () => {
    const { guest, adapter, other } = machine({}, { offloads: ALL_OFFLOADS });
    assert.equal(guest.request(u32s(3, 12, 0)), undefined);
    assert.equal(adapter.isReady, false);
    assert.ok(other.transmit(frame()));
    assert.equal(adapter.statistics.drops.notReady, 1);
    assert.equal(guest.transmit(frame()), 1);
    assert.equal(adapter.statistics.drops.notReady, 2);
  });
  it("answers KEEPALIVE and RESET", () => {
    const { guest, adapter } = machine();
    assert.deepEqual(guest.request(u32s(8, 12, 0))?.slice(0, 8), u32s(0x80000008, 16));
    const reset = guest.request(u32s(6, 12, 0));
    assert.deepEqual(reset, u32s(0x80000006, 16, 0, 1));
    assert.equal(adapter.isReady, false, "the filter is to be set again");
    assert.equal(guest.query(Oid.currentPacketFilter).status, 0);
    guest.request(u32s(3, 12, 0));
    assert.deepEqual(guest.request(u32s(6, 12, 0)), reset);
    assert.equal(guest.query(Oid.currentPacketFilter).status, 0xc0000001, "still not initialized");
  });
  it("repeats any request id, FreeBSD's too", () => {
    const { guest } = machine();
    guest.control(u32s(4, 28, 0x00170000, Oid.hardwareStatus, 0, 0, 0));
    guest.control(u32s(8, 12, 0xfedc0000));
    assert.equal(guest.answerOf(0x00170000)?.length, 28);
    assert.equal(guest.answerOf(0xfedc0000)?.length, 16);
  });
  it("records what is no request, completes its packet, and answers nothing", () => {
    const { guest, violations } = machine();
    const cases = [
      u32s(4, 28),
      u32s(4, 32, 1, Oid.hardwareStatus, 0, 0, 0),
      u32s(4, 8, 1),
      u32s(4, 24, 1, Oid.hardwareStatus, 0, 0),
      u32s(5, 24, 1, Oid.hardwareStatus, 0, 0),
      u32s(2, 20, 1, 1, 0),
      u32s(0x80000004, 12, 1),
      u32s(7, 12, 1),
      u32s(1, 12, 1),
      u32s(99, 12, 1),
    ];
    for (const bytes of cases) assert.equal(guest.control(bytes), 1);
    assert.equal(violations().length, cases.length);
  });
  it("answers a request whose information is not in the message with a status", () => {
    const { guest } = machine();
    for (const [length, offset] of [
      [4, 20],
      [4, 0xfffffff8],
      [0xffffffff, 20],
      [4, 16],
    ]) {
      const query = guest.request(u32s(4, 28, 0, Oid.hardwareStatus, length!, offset!, 0))!;
      assert.deepEqual(
        [number(query.subarray(12)), number(query.subarray(16)), number(query.subarray(20))],
        [INVALID_DATA, 0, 16],
      );
      const set = guest.request(u32s(5, 28, 0, Oid.currentPacketFilter, length!, offset!, 0))!;
      assert.equal(number(set.subarray(12)), INVALID_DATA);
    }
    // An offset without a length means nothing.
    assert.equal(guest.request(u32s(4, 28, 0, Oid.hardwareStatus, 0, 0xffff, 0))?.length, 28);
  });
  it("waits with answers while there is no room, and keeps no more than a few", () => {
    const { guest, violations } = machine();
    const ask = (id: number): void =>
      guest.primary.put({
        low: id,
        flags: 0,
        payload: join(u32s(107, 1, 0xffffffff, 0), new Uint8Array(24)),
        ranges: [{ gpa: 0x3000, length: 12 }],
      });
    guest.primary.room = 0;
    for (let i = 0; i < 20; i++) {
      guest.memory.write(0x3000, u32s(8, 12, 1000 + i));
      ask(i + 1);
    }
    assert.equal(violations().length, 4);
    guest.poll();
    for (let i = 0; i < 20; i++) assert.equal(guest.answerOf(1000 + i) !== undefined, i < 16, `${i}`);
  });
});

describe("network adapter: OIDs", () => {
  it("answers what Linux asks at its start", () => {
    const { guest } = machine({ friendlyName: "Ethernet 1", maxSubChannels: 3, mtu: 9000 });
    assert.deepEqual(guest.query(Oid.maximumFrameSize).data, u32s(9000));
    assert.deepEqual(guest.query(Oid.permanentAddress).data, Uint8Array.from(GUEST_MAC));
    assert.deepEqual(guest.query(Oid.friendlyName).data, join(utf16("Ethernet 1"), hex("00 00")));
    assert.deepEqual(guest.query(Oid.mediaConnectStatus).data, u32s(0));
    assert.deepEqual(guest.query(Oid.linkSpeed).data, u32s(100_000_000));
    const scale = guest.query(
      Oid.receiveScaleCapabilities,
      hex("88 02 12 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"),
    );
    assert.equal(scale.length, 18);
    assert.deepEqual([scale.data[8], scale.data[12]], [4, 4]);
  });
  it("cuts a long name to Linux's room for it", () => {
    const { guest } = machine({ friendlyName: "n".repeat(600) });
    assert.equal(guest.query(Oid.friendlyName).length, 512);
  });
  it("tells the offloads in the revision that is asked for", () => {
    const { guest } = machine();
    const ask = (revision: number, size: number): Uint8Array =>
      guest.query(
        Oid.offloadHardwareCapabilities,
        join(Uint8Array.of(0xa7, revision, size, 0), new Uint8Array(size - 4)),
      ).data;
    for (const [revision, size] of [
      [1, 112],
      [2, 144],
      [3, 156],
    ] as const) {
      const answer = ask(revision, size);
      assert.deepEqual([answer[0], answer[1], answer[2], answer.length], [0xa7, revision, size, size]);
    }
    assert.equal(ask(4, 200).length, 156, "what Linux has room for");
    assert.equal(ask(0, 112).length, 112);
    assert.equal(guest.query(Oid.offloadHardwareCapabilities).length, 156);
    const full = ask(3, 156);
    const u = (at: number): number => number(full.subarray(at));
    // Linux wants these masks exactly: TCP with options, UDP; for IPv6 extension headers too.
    assert.deepEqual([u(8) & 0x54, u(24) & 0x55], [0x54, 0x55]);
    assert.deepEqual([u(80), u(84), u(88), u(92), u(96), u(100), u(104)], [2, 0xf53c, 2, 2, 0xf53c, 2, 5]);
    assert.deepEqual([full[144], full[145]], [1, 1]);
  });
  it("has no coalescing before version 6.1, or where the guest does not know it", () => {
    for (const start of [{ version: 0x50000 }, { version: 0x60001, capabilities: 0x2c }]) {
      const { data } = machine({}, start).guest.query(Oid.offloadHardwareCapabilities);
      assert.deepEqual([data.length, data[144], data[145]], [156, 0, 0]);
    }
    assert.equal(machine({}, { version: 0x40000 }).guest.query(Oid.offloadHardwareCapabilities).length, 112);
  });
  it("answers everything that it lists, and lists everything that it knows", () => {
    const { guest } = machine();
    const { data } = guest.query(Oid.supportedList);
    const listed = Array.from({ length: data.length / 4 }, (_, i) => number(data.subarray(i * 4)));
    assert.deepEqual(new Set(listed), new Set(Object.values(Oid)));
    const setOnly: number[] = [
      Oid.protocolOptions,
      Oid.networkLayerAddresses,
      Oid.receiveScaleParameters,
      Oid.rndisConfigParameter,
      Oid.offloadParameters,
    ];
    for (const oid of listed)
      assert.equal(guest.query(oid).status, setOnly.includes(oid) ? NOT_SUPPORTED : 0, oid.toString(16));
  });
  it("answers other ones with status 0xC00000BB, no data, and offset 16", () => {
    const { guest } = machine();
    for (const oid of [0, 0x00010117, 0xfc010999, 0xffffffff]) {
      const { status, length, offset } = guest.query(oid);
      assert.deepEqual([status, length, offset], [NOT_SUPPORTED, 0, 16]);
      assert.equal(guest.set(oid, u32s(1)), NOT_SUPPORTED);
    }
    const old = machine({}, { version: 0x40000 }).guest;
    assert.equal(old.query(Oid.receiveScaleCapabilities).status, NOT_SUPPORTED);
    assert.equal(old.set(Oid.receiveScaleParameters, new Uint8Array(40)), NOT_SUPPORTED);
  });
  it("counts", () => {
    const { guest, other } = machine();
    guest.transmit(frame());
    other.transmit(frame());
    other.transmit(frame());
    guest.transmit(new Uint8Array(1600));
    guest.poll();
    assert.deepEqual(
      [Oid.xmitOk, Oid.rcvOk, Oid.xmitError, Oid.rcvError, Oid.rcvNoBuffer].map((oid) => number(guest.query(oid).data)),
      [1, 2, 1, 0, 0],
    );
  });
  it("takes what FreeBSD and Windows set besides", () => {
    const { guest } = machine();
    for (const oid of [Oid.currentLookahead, Oid.protocolOptions, Oid.networkLayerAddresses])
      assert.equal(guest.set(oid, u32s(1)), 0);
    assert.equal(guest.set(Oid.currentPacketFilter, new Uint8Array(3)), INVALID_LENGTH);
  });
  it("sets offloads of any revision, and none at all when one is wrong", () => {
    const { guest, other } = machine();
    const checksums = (): number | undefined => {
      other.transmit(frame({ checksum: "partial" }), 1);
      guest.poll();
      return guest.received.pop()?.info.get(0);
    };
    const set = (bytes: readonly number[], head: readonly number[]): number =>
      guest.set(Oid.offloadParameters, Uint8Array.from([...head, ...bytes]));
    assert.equal(checksums(), undefined);
    assert.equal(set(ALL_OFFLOADS, [0x80, 3, 28, 0]), 0);
    assert.equal(checksums(), 0x28);
    assert.equal(set(new Array(24).fill(0), [0x80, 3, 28, 0]), 0, "no change");
    assert.equal(checksums(), 0x28);
    assert.equal(
      set([1, 2, 1, 1, 1, 5, ...new Array(18).fill(0)], [0x80, 3, 28, 0]),
      0,
      "LSO version 1 is not looked at",
    );
    assert.equal(checksums(), undefined);
    assert.equal(set([3, 3, ...new Array(14).fill(0)], [0x80, 1, 20, 0]), 0, "revision 1");
    assert.equal(checksums(), 0x28);
    const bad: (readonly [readonly number[], readonly number[]])[] = [
      [ALL_OFFLOADS, [0x81, 3, 28, 0]],
      [ALL_OFFLOADS, [0x80, 0, 28, 0]],
      [ALL_OFFLOADS, [0x80, 3, 29, 0]],
      [ALL_OFFLOADS, [0x80, 3, 19, 0]],
      [
        [1, 1, 1, 1, 5, ...new Array(19).fill(0)],
        [0x80, 3, 28, 0],
      ],
      [
        [1, 1, 1, 1, 1, 0, 0, 3, ...new Array(16).fill(0)],
        [0x80, 3, 28, 0],
      ],
    ];
    for (const [bytes, head] of bad) assert.equal(set(bytes, head), INVALID_DATA);
    assert.equal(set([1, 1], [0x80, 3, 28, 0]), INVALID_LENGTH);
    assert.equal(checksums(), 0x28, "as it was");
  });
});

describe("network adapter: addresses and filter", () => {
  const parameter = (name: string, value: string, type = 2): Uint8Array =>
    join(u32s(20, name.length * 2, type, 20 + name.length * 2, value.length * 2), utf16(name), utf16(value));
  it("takes another address, and has its own again after the channel was closed", () => {
    const { guest, other, adapter } = machine();
    assert.equal(guest.set(Oid.rndisConfigParameter, parameter("NetworkAddress", "02aBcDeF0102")), 0);
    assert.deepEqual(guest.query(Oid.currentAddress).data, hex("02 ab cd ef 01 02"));
    assert.deepEqual(guest.query(Oid.permanentAddress).data, Uint8Array.from(GUEST_MAC));
    other.transmit(frame());
    other.transmit(frame({ destination: [2, 0xab, 0xcd, 0xef, 1, 2] }));
    guest.poll();
    assert.equal(guest.received.length, 1);
    guest.primary.close();
    assert.deepEqual(adapter.status().mac, Uint8Array.from(GUEST_MAC));
  });
  it("refuses what is no address, other parameters, and any where it may not change", () => {
    const { guest } = machine();
    const set = (bytes: Uint8Array): number => guest.set(Oid.rndisConfigParameter, bytes);
    assert.equal(set(parameter("NetworkAddress", "03abcdef0102")), INVALID_DATA, "a group");
    assert.equal(set(parameter("NetworkAddress", "000000000000")), INVALID_DATA);
    assert.equal(set(parameter("NetworkAddress", "02abcdef010")), INVALID_DATA);
    assert.equal(set(parameter("NetworkAddress", "02abcdef010x")), INVALID_DATA);
    assert.equal(set(parameter("NetworkAddresses", "02abcdef0102")), INVALID_DATA);
    assert.equal(set(parameter("NetworkAddress", "02abcdef0102", 0)), INVALID_DATA);
    assert.equal(set(u32s(20, 0xffffffff, 2, 20, 24)), INVALID_DATA);
    assert.equal(set(u32s(20, 0, 2, 20)), INVALID_LENGTH);
    const fixed = machine({ mayChangeMac: false }).guest;
    assert.equal(fixed.set(Oid.rndisConfigParameter, parameter("NetworkAddress", "02abcdef0102")), INVALID_DATA);
  });
  it("lets through what the filter says", () => {
    const { guest, other, adapter } = machine();
    const group = [0x01, 0x00, 0x5e, 0, 0, 5];
    const another = [0x01, 0x00, 0x5e, 0, 0, 6];
    const addresses = { mine: GUEST_MAC, theirs: OTHER_MAC, broadcast: BROADCAST, group, another };
    assert.equal(guest.set(Oid.multicastList, Uint8Array.from(group)), 0);
    const passing = (filter: number): string => {
      guest.set(Oid.currentPacketFilter, u32s(filter));
      return Object.entries(addresses)
        .filter(([, destination]) => {
          other.transmit(frame({ destination }));
          guest.poll();
          return guest.received.pop() !== undefined;
        })
        .map(([name]) => name)
        .join(" ");
    };
    assert.equal(passing(0), "");
    assert.equal(adapter.statistics.drops.notReady, 5);
    assert.equal(passing(1), "mine");
    assert.equal(passing(2), "group");
    assert.equal(passing(4), "group another");
    assert.equal(passing(8), "broadcast");
    assert.equal(passing(0xd), "mine broadcast group another");
    assert.equal(passing(0x20), "mine theirs broadcast group another");
    assert.equal(adapter.statistics.drops.filtered, 4 + 4 + 3 + 4 + 1);
    assert.equal(guest.set(Oid.multicastList, new Uint8Array(7)), INVALID_LENGTH);
    assert.equal(guest.set(Oid.multicastList, new Uint8Array(65 * 6)), INVALID_LENGTH);
    assert.equal(guest.set(Oid.multicastList, new Uint8Array(0)), 0);
    assert.equal(passing(2), "");
  });
});

describe("network adapter: link", () => {
  it("tells of the cable, whichever end is taken out", () => {
    const { guest, other, adapter } = machine();
    other.up = false;
    guest.poll();
    assert.deepEqual(guest.indications.splice(0), [[0x4001000c, undefined]]);
    assert.deepEqual(guest.query(Oid.mediaConnectStatus).data, u32s(1));
    other.up = true;
    guest.poll();
    assert.deepEqual(guest.indications.splice(0), [[0x4001000b, undefined]]);
    adapter.setLink(false);
    adapter.setLink(false);
    guest.poll();
    assert.deepEqual(guest.indications.splice(0), [[0x4001000c, undefined]]);
    other.transmit(frame());
    guest.transmit(frame());
    assert.equal(adapter.statistics.receivedFrames, 0);
    adapter.setLink(true);
    adapter.networkChange();
    adapter.speed = 10_000_000;
    guest.poll();
    assert.deepEqual(guest.indications.splice(0), [
      [0x4001000b, undefined],
      [0x40010018, undefined],
      [0x40010013, 10_000_000],
    ]);
    assert.deepEqual(guest.query(Oid.linkSpeed).data, u32s(10_000_000));
  });
  it("says that the network is another one when the guest missed the change", () => {
    const { guest, other } = machine();
    guest.primary.room = 0;
    other.up = false;
    other.up = true;
    guest.poll();
    assert.deepEqual(guest.indications.splice(0), [[0x40010018, undefined]]);
    guest.primary.room = 0;
    other.up = false;
    other.up = true;
    other.up = false;
    guest.poll();
    assert.deepEqual(guest.indications, [
      [0x4001000c, undefined],
      [0x40010018, undefined],
    ]);
  });
  it("keeps quiet before the guest listens", () => {
    const memory = testMemory();
    const [port, other] = EthernetPort.cable();
    const adapter = new NetworkAdapter({
      instanceId: "00000000-0000-0000-0000-000000000007",
      mac: Uint8Array.from(GUEST_MAC),
      port,
      memory,
    });
    other.up = false;
    adapter.networkChange();
    adapter.speed = 1;
    const guest = new ScriptedGuest(adapter, memory);
    other.up = true;
    other.up = false;
    guest.start();
    assert.deepEqual(guest.indications, []);
    assert.deepEqual(guest.query(Oid.mediaConnectStatus).data, u32s(1));
    other.up = true;
    guest.poll();
    assert.deepEqual(guest.indications, [[0x4001000b, undefined]]);
  });
});
