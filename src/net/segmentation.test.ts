/** Frames as they go by a wire: what a receiver that looks at everything finds in them. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { checksumHolds, FrameBuffer, TcpFlags, TcpHeader, writeIp, writeTransportChecksum } from "./header.js";
import { IpProtocol, Packet } from "./packet.js";
import { FrameFlags } from "./port.js";
import { noise } from "./scripted-network.js";
import { asOnWire } from "./segmentation.js";

const MAC = Uint8Array.of(2, 0, 0, 0, 0, 1);
const ADDRESSES = {
  4: [Uint8Array.of(10, 0, 2, 2), Uint8Array.of(10, 0, 2, 15)],
  16: [new Uint8Array(16).fill(0xfd), new Uint8Array(16).fill(0xfe)],
} as const;

function frameOf(family: 4 | 16, protocol: number, header: number, data: Uint8Array, seq: number, flags: number) {
  const f = new FrameBuffer(70_000);
  const [source, destination] = ADDRESSES[family];
  const length = header + data.length;
  const at = writeIp(f, MAC, MAC, { source, destination, protocol, hopLimit: 64, identification: 0xffff }, length);
  if (protocol === IpProtocol.TCP) {
    f.view.setInt32(at + 4, seq);
    f.view.setUint16(at + 12, ((header >> 2) << 12) | flags);
    f.bytes.fill(1, at + 20, at + header);
  } else f.view.setUint16(at + 4, length);
  f.bytes.set(data, at + header);
  writeTransportChecksum(f, family, protocol, at, protocol === IpProtocol.TCP ? 16 : 6, length, true);
  return f.bytes.subarray(0, at + length);
}
const onWire = (frame: Uint8Array, flags: number, size: number): Uint8Array[] => {
  const out: Uint8Array[] = [];
  asOnWire(frame, flags, size, (f) => out.push(f));
  return out;
};
const holds = (p: Packet): boolean => checksumHolds(p.view, p.sourceAt, p.family, p.protocol, p.payloadAt, p.ipEnd);

describe("frames as they go by a wire", () => {
  it("are segments that fit, with the bytes, the numbers and the checksums", () => {
    const size = fc.integer({ min: 1, max: 3000 });
    fc.assert(
      fc.property(
        fc.constantFrom(4 as const, 16 as const),
        fc.nat(6000),
        size,
        fc.constantFrom(20, 32),
        fc.integer(),
        (family, length, most, header, seq) => {
          const data = noise(length, length);
          const { FIN, PSH, ACK } = TcpFlags;
          const frame = frameOf(family, IpProtocol.TCP, header, data, seq, FIN | PSH | ACK);
          const before = frame.slice();
          const list = onWire(frame, FrameFlags.partialChecksum, most);
          assert.deepEqual(frame, before);
          const got: number[] = [];
          for (const [i, one] of list.entries()) {
            const p = new Packet();
            assert.equal(p.parse(one, 0, 0), undefined);
            assert.ok(holds(p));
            const h = new TcpHeader();
            assert.ok(h.parse(p.view, p.payloadAt, p.ipEnd));
            assert.equal(h.seq, (seq + got.length) | 0);
            assert.equal(h.flags, i === list.length - 1 ? FIN | PSH | ACK : ACK);
            assert.ok(h.dataLength <= most);
            got.push(...one.subarray(h.dataAt, h.dataAt + h.dataLength));
          }
          assert.deepEqual(got, [...data]);
          assert.equal(list.length, Math.max(1, Math.ceil(length / most)));
        },
      ),
    );
  });
  it("have their checksum, if they are datagrams", () => {
    for (const family of [4, 16] as const) {
      const [one] = onWire(frameOf(family, IpProtocol.UDP, 8, noise(100, 1), 0, 0), FrameFlags.partialChecksum, 0);
      const p = new Packet();
      assert.equal(p.parse(one!, 0, 0), undefined);
      assert.ok(holds(p));
    }
  });
  it("are the same if nothing is to be done, or if they are no frames at all", () => {
    const whole = frameOf(4, IpProtocol.TCP, 20, noise(10, 1), 0, TcpFlags.ACK);
    assert.equal(onWire(whole, 0, 0)[0], whole);
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 80 }),
        fc.nat(3),
        fc.nat(60_000),
        fc.nat(80),
        (bytes, flags, size, cut) => {
          assert.ok(onWire(bytes, flags, size).length > 0);
          const part = Uint8Array.from([...whole.subarray(0, Math.min(cut, whole.length)), ...bytes]);
          assert.ok(onWire(part, flags, size).length > 0);
        },
      ),
    );
  });
});
