import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { guidBytes } from "../machine/guid.js";
import { bytes, checkFields, u32, u64 } from "./layout.js";
import * as protocol from "./protocol.js";

/** Type, direction and size of each message, as the protocol's table has them. */
const SIZES: readonly (readonly [number, string, boolean, number])[] = [
  [1, "OfferChannel", true, 196],
  [2, "RescindChannelOffer", true, 12],
  [3, "RequestOffers", false, 8],
  [4, "AllOffersDelivered", true, 8],
  [5, "OpenChannel", false, 148],
  [6, "OpenChannelResult", true, 20],
  [7, "CloseChannel", false, 12],
  [8, "GpadlHeader", false, 20],
  [9, "GpadlBody", false, 16],
  [10, "GpadlCreated", true, 20],
  [11, "GpadlTeardown", false, 16],
  [12, "GpadlTorndown", true, 12],
  [13, "RelIdReleased", false, 12],
  [14, "InitiateContact", false, 40],
  [15, "VersionResponse", true, 16],
  [16, "Unload", false, 8],
  [17, "UnloadResponse", true, 8],
  [21, "TlConnectRequest", false, 40],
  [22, "ModifyChannel", false, 16],
  [23, "TlConnectResult", true, 44],
  [24, "ModifyChannelResponse", true, 16],
];
const CLASS = "f8615163-df3e-46c5-913f-f2d2f965ed0e";
const INSTANCE = "00112233-4455-6677-8899-aabbccddeeff";

describe("VMBus messages", () => {
  it("have the sizes of the protocol's table", () => {
    assert.deepEqual(
      protocol.messages().map((m) => [m.type, m.name, m.toGuest, m.size]),
      SIZES,
    );
  });
  it("lay an offer out byte by byte", () => {
    const offer = protocol.OfferChannel.encode({
      classId: CLASS,
      instanceId: INSTANCE,
      flags: 0x2010,
      mmioMegabytes: 0x0708,
      userDefined: Uint8Array.of(0x11, 0x22),
      subIndex: 0x0102,
      relid: 0x0304_0506,
      monitorId: 0x31,
      monitorAllocated: 0,
      isDedicatedInterrupt: 1,
      connectionId: 0x0001_0005,
    });
    const expected = new Uint8Array(196);
    expected.set([1]);
    // The wire form of the network class, as module aliases show it.
    expected.set(Buffer.from("635161f83edfc546913ff2d2f965ed0e", "hex"), 8);
    expected.set(guidBytes(INSTANCE), 24);
    expected.set([0x10, 0x20, 0x08, 0x07, 0x11, 0x22], 56);
    expected.set([0x02, 0x01, 0, 0, 0x06, 0x05, 0x04, 0x03, 0x31, 0, 1, 0, 0x05, 0, 1, 0], 180);
    assert.deepEqual(offer, expected);
  });
  it("read what the guest's bytes say", () => {
    const contact = new Uint8Array(40);
    const view = new DataView(contact.buffer);
    for (const [at, value] of [
      [0, 14],
      [8, 0x50003],
      [12, 3],
      [16, 0x0000_0102],
      [20, 5],
      [24, 0x5000],
      [36, 2],
    ] as const)
      view.setUint32(at, value, true);
    assert.deepEqual(protocol.InitiateContact.decode(contact), {
      version: 0x50003,
      targetVp: 3,
      messageSint: 2,
      messageVtl: 1,
      featureFlags: 5,
      monitorPage1: 0x5000,
      monitorPage2: 0x2_0000_0000,
    });
    const open = new Uint8Array(148);
    [5, 0, 9, 8, 7, 6, 4].forEach((value, i) => {
      new DataView(open.buffer).setUint32(i * 4, value, true);
    });
    open[28] = 0xaa;
    open[147] = 0xbb;
    const { userData, ...fields } = protocol.OpenChannel.decode(open);
    assert.deepEqual(fields, { relid: 9, openId: 8, ringGpadl: 7, targetVp: 6, downstreamOffset: 4 });
    assert.deepEqual([userData.length, userData[0], userData[119]], [120, 0xaa, 0xbb]);
  });
  it("come back from their bytes as they went in", () => {
    for (const message of protocol.messages()) {
      const fields = Object.fromEntries(
        Object.entries(message.fields).map(([name, f]) => {
          if (f.size === 16) return [name, fc.uint8Array({ minLength: 16, maxLength: 16 }).map((b) => hexGuid(b))];
          if (f.size === 120) return [name, fc.uint8Array({ minLength: 120, maxLength: 120 })];
          return [name, fc.integer({ min: 0, max: Math.min(2 ** (f.size * 8) - 1, Number.MAX_SAFE_INTEGER) })];
        }),
      );
      fc.assert(
        fc.property(fc.record(fields as Record<string, fc.Arbitrary<unknown>>), (values) => {
          const encoded = message.encode(values as never);
          assert.equal(encoded.length, message.size);
          assert.equal(protocol.messageType(encoded), message.type);
          assert.deepEqual(message.decode(encoded), { ...values });
        }),
        { numRuns: 50 },
      );
    }
  });
  it("describe themselves as plain data", () => {
    const header = protocol.GpadlHeader.encode({ relid: 1, gpadl: 2, rangeBufferLength: 16, rangeCount: 1 }, 16);
    header.set([0, 0x10], 20);
    header[28] = 0x77;
    assert.deepEqual(protocol.describeMessage(header), {
      message: "GpadlHeader",
      relid: 1,
      gpadl: 2,
      rangeBufferLength: 16,
      rangeCount: 1,
      ranges: ["0x1000", "0x77"],
    });
    const body = protocol.GpadlBody.encode({ messageNumber: 0, gpadl: 2 }, 8);
    body.fill(0xff, 16);
    assert.deepEqual(protocol.describeMessage(body).pages, ["0xffffffffffffffff"]);
    const socket = protocol.TlConnectRequest.encode({ endpoint: INSTANCE, service: CLASS }, 16);
    socket.set(guidBytes(CLASS), 40);
    assert.equal(protocol.describeMessage(socket).silo, CLASS);
    assert.equal(protocol.describeMessage(socket.subarray(0, 40)).silo, undefined);
    const contact = new Uint8Array(40);
    contact.set([14, 0, 0, 0, 0, 0, 0, 0, 3, 0, 5, 0]);
    assert.equal(protocol.describeMessage(contact).versionText, "5.3");
    const open = new Uint8Array(148);
    open.set([5]);
    open.set([1, 2, 0], 28);
    assert.equal(protocol.describeMessage(open).userData, "0102");
    assert.deepEqual(protocol.describeMessage(Uint8Array.of(1, 2)), { message: "Truncated", bytes: "0102" });
    assert.deepEqual(protocol.describeMessage(Uint8Array.of(27, 0, 0, 0, 0, 0, 0, 0)), {
      message: "PauseChannels",
      type: 27,
      bytes: "1b00000000000000",
    });
    assert.equal(protocol.describeMessage(Uint8Array.of(99, 0, 0, 0, 0, 0, 0, 0)).message, "Unknown");
    assert.equal(protocol.describeMessage(Uint8Array.of(5, 0, 0, 0, 0, 0, 0, 0)).tooShort, 8);
  });
  it("describe any bytes, and JSON can hold what they say", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 40 }), fc.uint8Array({ maxLength: 240 }), (type, of) => {
        if (of.length > 3) of.set([type, 0, 0, 0]);
        const described = protocol.describeMessage(of);
        assert.deepEqual(JSON.parse(JSON.stringify(described)), described);
      }),
      { numRuns: 2000 },
    );
  });
  it("name packets", () => {
    assert.deepEqual(protocol.describePacket(5, 9, 300, Uint8Array.of(1, 0xab)), {
      packet: "DataUsingGpaDirect",
      relid: 5,
      payloadLength: 300,
      payload: "01ab",
    });
    assert.equal(protocol.packetName(77), "Type77");
  });
  it("refuse layouts that are wrong and values that are too long", () => {
    assert.throws(() => checkFields("x", 8, 0, { a: u32(0), b: u32(2) }), RangeError);
    assert.throws(() => checkFields("x", 8, 0, { a: u64(4) }), RangeError);
    assert.throws(() => bytes(0, 2).set(new DataView(new ArrayBuffer(2)), new Uint8Array(3)), RangeError);
  });
});

function hexGuid(b: Uint8Array): string {
  const t = Buffer.from(b).toString("hex");
  return `${t.slice(0, 8)}-${t.slice(8, 12)}-${t.slice(12, 16)}-${t.slice(16, 20)}-${t.slice(20)}`;
}
