import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { FrameHeaders } from "./frame.js";
import { ReceiveScaling, rssCapabilities } from "./rss.js";
import { frame } from "./scripted-frames.js";
import { hex, join, u32s } from "./scripted-guest.js";
import { KEY_BYTES, Toeplitz } from "./toeplitz.js";

/** The key of Microsoft's "Verifying the RSS Hash Calculation". */
const KEY = hex(`6d 5a 56 da 25 5b 0e c2 41 67 25 3d 43 a3 8f b0 d0 ca 2b cb ae 7b 30 b4
  77 cb 2d a3 80 30 f2 0c 6a 42 b7 3b be ac 01 fa`);

/** An IPv6 address as bytes. */
function v6(text: string): number[] {
  const [left = "", right = ""] = text.split("::");
  const words = (half: string): number[] => (half === "" ? [] : half.split(":").map((w) => Number.parseInt(w, 16)));
  const [a, b] = [words(left), words(right)];
  return [...a, ...new Array(8 - a.length - b.length).fill(0), ...b].flatMap((w) => [w >>> 8, w & 0xff]);
}
const v4 = (text: string): number[] => text.split(".").map(Number);

/** Microsoft's vectors: destination, port, source, port, hash of the addresses, hash with the ports. */
const VECTORS = [
  ["161.142.100.80", 1766, "66.9.149.187", 2794, 0x323e8fc2, 0x51ccc178],
  ["65.69.140.83", 4739, "199.92.111.2", 14230, 0xd718262a, 0xc626b0ea],
  ["12.22.207.184", 38024, "24.19.198.95", 12898, 0xd2d0a5de, 0x5c2b394a],
  ["209.142.163.6", 2217, "38.27.205.30", 48228, 0x82989176, 0xafc7327f],
  ["202.188.127.2", 1303, "153.39.163.191", 44251, 0x5d1809c5, 0x10e828a2],
  ["3ffe:2501:200:3::1", 1766, "3ffe:2501:200:1fff::7", 2794, 0x2cc18cd5, 0x40207d3d],
  ["ff02::1", 4739, "3ffe:501:8::260:97ff:fe40:efab", 14230, 0x0f0c461c, 0xdde51bbf],
  ["fe80::200:f8ff:fe21:67cf", 38024, "3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251, 0x4b61e985, 0x02d1feef],
] as const;

/** Bit by bit, as the specification's text has it. */
function plainToeplitz(key: Uint8Array, input: readonly number[]): number {
  let window = [...key].reduce((n, b) => (n << 8n) | BigInt(b), 0n);
  const bits = BigInt(key.length * 8);
  let hash = 0n;
  for (const byte of input)
    for (let bit = 7; bit >= 0; bit--) {
      if (((byte >>> bit) & 1) !== 0) hash ^= window >> (bits - 32n);
      window = (window << 1n) & ((1n << bits) - 1n);
    }
  return Number(hash & 0xffffffffn);
}
function parameters(table: readonly number[], key: Uint8Array, hashInfo = 0x1701, flags = 0): Uint8Array {
  const head = join(
    hex("89 02 28 00"),
    u32s(flags, hashInfo, table.length * 4, 40, 40, 40 + table.length * 4, 0, 0, 0),
  );
  return join(head, u32s(...table), key);
}

describe("Toeplitz hash", () => {
  for (const [destination, to, source, from, pair, flow] of VECTORS)
    it(`gives the published values for ${source} to ${destination}`, () => {
      const version = destination.includes(":") ? 6 : 4;
      const address = version === 6 ? v6 : v4;
      const bytes = frame({
        version,
        from: address(source),
        to: address(destination),
        sourcePort: from,
        destinationPort: to,
      });
      const headers = new FrameHeaders();
      headers.parse(bytes, 0, bytes.length);
      const rss = new ReceiveScaling();
      const table = Array.from({ length: 128 }, (_, i) => i % 7);
      assert.equal(rss.set(parameters(table, KEY), 8), 0);
      assert.equal(rss.channelOf(bytes, headers), table[flow % 128]);
      assert.equal(rss.hash, flow);
      assert.ok(rss.isFlowHash);
      // Without the flow types the addresses alone are hashed.
      assert.equal(rss.set(parameters(table, KEY, 0x501), 8), 0);
      assert.equal(rss.channelOf(bytes, headers), table[pair % 128]);
      assert.equal(rss.hash, pair);
      assert.ok(!rss.isFlowHash);
    });
  it("is that of the definition for any key and input", () => {
    const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
    fc.assert(
      fc.property(bytes(KEY_BYTES), bytes(36), fc.nat(36), (key, input, length) => {
        const toeplitz = new Toeplitz();
        toeplitz.setKey(key);
        assert.equal(toeplitz.add(input, 0, length), plainToeplitz(key, [...input.subarray(0, length)]));
        const half = length >>> 1;
        const first = toeplitz.add(input, 0, half);
        assert.equal(toeplitz.add(input, half, length - half, half, first), toeplitz.add(input, 0, length));
      }),
      { numRuns: 50 },
    );
  });
});

describe("receive-side scaling", () => {
  it("tells its capabilities in 18 bytes", () => {
    assert.deepEqual(rssCapabilities(4), hex("88 02 12 00 01 07 00 00 04 00 00 00 04 00 00 00 80 00"));
  });
  it("finds table and key where the offsets say", () => {
    const rss = new ReceiveScaling();
    const moved = join(
      hex("89 02 28 00"),
      u32s(0, 0x1701, 8, 92, 40, 44, 0, 0, 0),
      hex("ff ff ff ff"),
      KEY,
      new Uint8Array(8),
      u32s(1, 0),
    );
    assert.equal(rss.set(moved, 2), 0);
    assert.deepEqual(rss.table, [1, 0]);
    assert.deepEqual(rss.toeplitz.key, KEY);
    assert.ok(rss.enabled);
  });
  it("refuses what is not in the message, and keeps what it had", () => {
    const rss = new ReceiveScaling();
    const good = parameters([0, 1], KEY);
    assert.equal(rss.set(good, 2), 0);
    const bad = (change: (view: DataView) => void, bytes = good): number => {
      const copy = bytes.slice();
      change(new DataView(copy.buffer));
      return rss.set(copy, 2);
    };
    assert.equal(rss.set(good.slice(0, 27), 2), 0xc0010014);
    assert.equal(
      bad((v) => v.setUint8(0, 0x88)),
      0xc0010015,
    );
    assert.equal(
      bad((v) => v.setUint16(12, 0, true)),
      0xc0010015,
      "no table",
    );
    assert.equal(
      bad((v) => v.setUint16(12, 2000, true)),
      0xc0010015,
      "too long a table",
    );
    assert.equal(
      bad((v) => v.setUint32(16, 0xfffffff0, true)),
      0xc0010015,
      "table outside",
    );
    assert.equal(
      bad((v) => v.setUint16(20, 41, true)),
      0xc0010015,
      "length of the key",
    );
    assert.equal(
      bad((v) => v.setUint32(24, 49, true)),
      0xc0010015,
      "key outside",
    );
    assert.equal(
      bad((v) => v.setUint32(44, 2, true)),
      0xc0010015,
      "no such channel",
    );
    assert.deepEqual(rss.table, [0, 1]);
    assert.ok(rss.enabled);
    assert.equal(rss.set(parameters([1], new Uint8Array(40), 0x1701, 0x10), 2), 0);
    assert.ok(!rss.enabled, "switched off");
    // Table and key are kept where the flags say so.
    assert.equal(rss.set(parameters([1], new Uint8Array(40), 0x201, 2 | 8), 2), 0);
    assert.ok(rss.enabled);
    assert.deepEqual(rss.table, [0, 1]);
    assert.deepEqual(rss.toeplitz.key, KEY);
  });
  it("sends what it cannot hash to the primary channel", () => {
    const rss = new ReceiveScaling();
    const headers = new FrameHeaders();
    const bytes = frame({ protocol: "udp" });
    headers.parse(bytes, 0, bytes.length);
    assert.equal(rss.channelOf(bytes, headers), 0, "switched off");
    rss.set(parameters([1], KEY, 0x1 | 0x200), 2);
    assert.equal(rss.channelOf(bytes, headers), 0, "UDP, and addresses alone are not hashed");
    const arp = bytes.slice();
    arp[13] = 6;
    headers.parse(arp, 0, arp.length);
    assert.equal(rss.channelOf(arp, headers), 0, "not IP");
  });
});
