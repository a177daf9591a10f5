import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { EthernetPort, FrameFlags } from "../../net/port.js";
import { NetworkAdapter } from "./adapter.js";
import { BROADCAST, frame, GUEST_MAC, OTHER_MAC, pattern } from "./scripted-frames.js";
import { hex, join, rndisPacket, ScriptedGuest, testMemory, u32s } from "./scripted-guest.js";

const CHIMNEY_ID = 0xface;

/** FreeBSD's driver: 32 bytes for each message, a send buffer with an id, request ids from bit 16 on. */
class FreeBsd {
  readonly memory = testMemory();
  readonly ends = EthernetPort.cable();
  readonly adapter = new NetworkAdapter({
    instanceId: "00000000-0000-0000-0000-000000000007",
    mac: Uint8Array.from(GUEST_MAC),
    port: this.ends[0],
    memory: this.memory,
    maxSubChannels: 1,
  });
  readonly guest = new ScriptedGuest(this.adapter, this.memory);
  #request = 0;

  nvs(...fields: number[]): Uint8Array | undefined {
    const id = 0xfffff800;
    const { primary } = this.guest;
    primary.put({ low: id, high: 0xffffffff, payload: join(u32s(...fields), new Uint8Array(32 - fields.length * 4)) });
    const packet = primary.sent.splice(0).find((p) => p.type === 11);
    assert.ok(
      packet === undefined || (packet.low === id && packet.high === 0xffffffff),
      "a kernel's pointer comes back whole",
    );
    return packet?.payload;
  }
  /** Without completion. */
  tell(...fields: number[]): void {
    this.guest.primary.put({
      low: 0,
      flags: 0,
      payload: join(u32s(...fields), new Uint8Array(32 - fields.length * 4)),
    });
    assert.equal(this.guest.primary.sent.length, 0);
  }
  rndis(message: Uint8Array): Uint8Array {
    const id = (++this.#request << 16) >>> 0;
    const bytes = message.slice();
    new DataView(bytes.buffer).setUint32(8, id, true);
    this.guest.control(bytes);
    const answer = this.guest.answerOf(id)!;
    assert.equal(new DataView(answer.buffer).getUint32(8, true), id);
    return answer;
  }
  query(oid: number, input: Uint8Array = new Uint8Array(0)): Uint8Array {
    // The offset is there with no data too.
    const answer = this.rndis(join(u32s(4, 28 + input.length, 0, oid, input.length, 20, 0), input));
    const view = new DataView(answer.buffer);
    assert.deepEqual([view.getUint32(0, true), view.getUint32(12, true)], [0x80000004, 0]);
    const at = 8 + view.getUint32(20, true);
    return answer.slice(at, at + view.getUint32(16, true));
  }
  set(oid: number, input: Uint8Array): void {
    const answer = this.rndis(join(u32s(5, 28 + input.length, 0, oid, input.length, 20, 0), input));
    assert.deepEqual(answer.slice(0, 8), u32s(0x80000005, 16));
    assert.deepEqual(answer.slice(12), u32s(0));
  }
  attach(version: number, refused: readonly number[] = []): void {
    for (const v of refused) assert.notEqual(this.nvs(1, v, v)?.[12], 1);
    const init = this.nvs(1, version, version)!;
    assert.deepEqual([init[0], init[12]], [2, 1]);
    assert.ok(init.length >= 16);
    if (version >= 0x30002) this.tell(125, 1514, 0, version >= 0x50000 ? 0xc : 8, 0);
    if (version >= 0x50000) this.tell(100, 6, 30);
    else this.tell(100, 6, 1);
    const { guest } = this;
    guest.lendReceive(1 << 20);
    guest.poll();
    guest.lendSend();
    this.tell(106, 0);
    const send = this.nvs(104, 0xe1e11, CHIMNEY_ID)!;
    assert.deepEqual(send.slice(0, 12), u32s(105, 1, 6144));
    const initialized = this.rndis(u32s(2, 24, 0, 1, 0, 2048));
    assert.deepEqual(initialized.slice(32, 44), u32s(8, 0x20000, 3));
    assert.deepEqual(this.query(0x01010101), Uint8Array.from(GUEST_MAC));
    const size = version >= 0x50000 ? 156 : 112;
    const capabilities = this.query(
      0xfc01020d,
      join(Uint8Array.of(0xa7, size === 156 ? 3 : 1, size, 0), new Uint8Array(size - 4)),
    );
    assert.deepEqual([capabilities[0], capabilities.length, capabilities[2]], [0xa7, size, size]);
    // All checksums both ways, long segments over IPv4.
    const parameters = new Uint8Array(version >= 0x50000 ? 28 : 22);
    parameters.set([0x80, version >= 0x50000 ? 3 : 2, parameters.length, 0, 4, 4, 4, 4, 4, 0, 0, 2]);
    this.set(0xfc01020c, parameters);
    assert.deepEqual(this.query(0x00010114), u32s(0));
    this.set(0x0001010e, u32s(0xd));
  }
}

describe("network adapter: FreeBSD", () => {
  for (const [version, refused] of [
    [0x50000, []],
    [0x40000, [0x50000]],
    [0x30002, [0x50000, 0x40000]],
    [2, [0x50000, 0x40000, 0x30002]],
  ] as const)
    it(`attaches with version 0x${version.toString(16)}`, () => {
      const d = new FreeBsd();
      // The host is one that has nothing newer.
      const old = new NetworkAdapter({
        instanceId: d.adapter.offer.instanceId,
        mac: Uint8Array.from(GUEST_MAC),
        port: d.ends[0],
        memory: d.memory,
        maxSubChannels: 1,
        maxVersion: version,
      });
      d.guest.primary.close();
      d.guest.adapter = old;
      d.guest.open(0);
      d.attach(version, refused);
      d.ends[1].transmit(frame());
      d.ends[1].transmit(frame({ destination: BROADCAST, checksum: "partial" }), FrameFlags.partialChecksum);
      d.guest.poll();
      assert.deepEqual(
        d.guest.received.map((r) => [r.frame.length, r.info.get(0)]),
        [
          [86, undefined],
          [86, 0x28],
        ],
      );
    });
  it("sends what it sends: checksums of IP too, long segments, several frames at once", () => {
    const d = new FreeBsd();
    d.attach(0x50000);
    const seen: [Uint8Array, number, number][] = [];
    d.ends[1].receive = (f, flags, size) => seen.push([f.slice(), flags, size]) > 0;
    const spec = { destination: OTHER_MAC, source: GUEST_MAC };
    const noIp = frame({ ...spec, checksum: "partial" });
    noIp[24] = noIp[25] = 0;
    // IPv4, TCP, IP header.
    assert.equal(
      d.guest.transmit(
        noIp,
        [
          { type: 9, value: 0x201 },
          { type: 8, value: 5 },
          { type: 0, value: 0x15 | (34 << 16) },
        ],
        "pages",
      ),
      1,
    );
    assert.deepEqual(seen.pop(), [frame({ ...spec, checksum: "partial" }), 1, 0]);
    const long = { ...spec, payload: pattern(20_000) };
    const given = frame({ ...long, checksum: "long", noLengths: true });
    assert.equal(d.guest.transmit(given, [{ type: 2, value: 1448 | (34 << 20) | (1 << 30) }], "pages"), 1);
    assert.deepEqual(seen.pop(), [frame({ ...long, checksum: "long" }), 1, 1448]);
    const two = join(rndisPacket(frame(spec), [], true), rndisPacket(frame(spec), [], true));
    const id = d.guest.sendRndis(two);
    d.guest.poll();
    assert.equal(d.guest.statusOf(id), 1);
    assert.equal(seen.length, 2);
  });
  it("asks for channels and sets the hash as it does", () => {
    const d = new FreeBsd();
    d.adapter.attach({ device: d.adapter, offerSubChannels: () => {}, rescind: () => {} });
    d.attach(0x50000);
    const scale = d.query(0x00010203, join(hex("88 02 12 00"), new Uint8Array(14)));
    const view = new DataView(scale.buffer);
    // At least one queue, the Toeplitz function, and no more entries than FreeBSD has.
    assert.deepEqual([view.getUint32(12, true), view.getUint32(4, true) & 1, view.getUint16(16, true)], [2, 1, 128]);
    assert.deepEqual(d.nvs(133, 1, 1)?.slice(0, 12), u32s(133, 1, 1));
    d.guest.open(1);
    d.guest.poll();
    const table = Array.from({ length: 128 }, (_, i) => i % 2);
    d.set(0x00010204, join(hex("89 02 28 00"), u32s(0, 0x1701, 512, 80, 40, 40, 0, 0, 0), pattern(40), u32s(...table)));
    for (let i = 0; i < 20; i++) d.ends[1].transmit(frame({ sourcePort: i }));
    d.guest.poll();
    assert.equal(new Set(d.guest.received.map((r) => r.channel)).size, 2);
  });
  it("detaches: HALT, revocations, teardown, close", () => {
    const d = new FreeBsd();
    d.attach(0x50000);
    d.guest.control(u32s(3, 12, 0x70000));
    d.tell(103, 0xcafe);
    d.tell(106, CHIMNEY_ID);
    d.guest.gpadls.clear();
    assert.ok(d.ends[1].transmit(frame()));
    d.guest.primary.close();
    d.guest.open(0);
    d.attach(0x50000);
    d.ends[1].transmit(frame());
    d.guest.poll();
    assert.equal(d.guest.received.length, 1);
  });
});
