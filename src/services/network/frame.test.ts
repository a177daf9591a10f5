import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { FrameHeaders, lengthFits } from "./frame.js";
import { type FrameSpec, frame, pattern } from "./scripted-frames.js";

function parse(bytes: Uint8Array, from = 0, to = bytes.length, toEnd = false): FrameHeaders {
  const headers = new FrameHeaders();
  headers.parse(bytes, from, to, toEnd);
  return headers;
}
/** With extension headers of IPv6 in front of TCP: type and its 8 bytes from the third on. */
function withExtensions(
  ...extensions: readonly (readonly [type: number, third: number, fourth: number])[]
): Uint8Array {
  const plain = frame({ version: 6 });
  const chain = extensions.flatMap(([, third, fourth], i) => [
    extensions[i + 1]?.[0] ?? 6,
    0,
    third,
    fourth,
    0,
    0,
    0,
    0,
  ]);
  const bytes = Uint8Array.from([...plain.subarray(0, 54), ...chain, ...plain.subarray(54)]);
  bytes[20] = extensions[0]?.[0] ?? 6;
  const length = bytes.length - 54;
  bytes[18] = length >>> 8;
  bytes[19] = length;
  return bytes;
}

describe("headers of a frame", () => {
  it("are where they are", () => {
    const at = (spec: FrameSpec): (number | undefined)[] => {
      const bytes = frame({ ...spec, payload: pattern(10) });
      const h = parse(Uint8Array.from([1, 2, 3, ...bytes, 9, 9]), 3, 3 + bytes.length + 2);
      return [h.version, h.protocol, h.ip - 3, h.transport - 3, h.payload - 3, h.end - 3, h.checksumAt - 3];
    };
    assert.deepEqual(at({}), [4, 6, 14, 34, 54, 64, 50]);
    assert.deepEqual(at({ tag: 1, tcpOptions: 12, ipOptions: 8 }), [4, 6, 18, 46, 78, 88, 62]);
    assert.deepEqual(at({ protocol: "udp" }), [4, 17, 14, 34, 42, 52, 40]);
    assert.deepEqual(at({ version: 6, protocol: "udp", ipOptions: 16 }), [6, 17, 14, 70, 78, 88, 76]);
  });
  it("are gone over in IPv6 as far as they say where the packet goes", () => {
    assert.equal(parse(withExtensions([0, 1, 4], [60, 1, 4], [43, 0, 0])).protocol, 6);
    assert.equal(parse(withExtensions([43, 0, 1])).protocol, 0, "a stop on the way is to come");
    assert.equal(parse(withExtensions([44, 0, 0])).protocol, 0, "a fragment");
    const many = (n: number): Uint8Array => withExtensions(...Array.from({ length: n }, () => [60, 1, 4] as const));
    assert.equal(parse(many(8)).protocol, 6);
    assert.equal(parse(many(9)).protocol, 0);
    const short = withExtensions([0, 1, 4]);
    short[19] = 7;
    assert.equal(parse(short).protocol, 0);
    short[19] = 8;
    assert.equal(parse(short).protocol, 0);
  });
  it("are none where a length lies", () => {
    const change = (at: number, value: number, spec: FrameSpec = {}): number[] => {
      const bytes = frame(spec);
      bytes[at] = value;
      const h = parse(bytes);
      return [h.version, h.protocol];
    };
    assert.deepEqual(change(14, 0x55), [0, 0], "version");
    assert.deepEqual(change(14, 0x44), [0, 0], "IHL below 5");
    assert.deepEqual(change(17, 19), [0, 0], "length below the header");
    assert.deepEqual(change(16, 1), [0, 0], "length beyond the frame");
    assert.deepEqual(change(20, 0x20), [4, 0], "more fragments");
    assert.deepEqual(change(21, 1), [4, 0], "a later fragment");
    assert.deepEqual(change(23, 1), [4, 0], "ICMP");
    assert.deepEqual(change(46, 0x40), [4, 0], "TCP header below 20 bytes");
    assert.deepEqual(change(46, 0xf0, { payload: pattern(8) }), [4, 0], "TCP header beyond the packet");
    assert.deepEqual(change(18, 1, { version: 6 }), [0, 0]);
    assert.deepEqual(change(14, 0x40, { version: 6 }), [0, 0]);
    assert.deepEqual(change(13, 0xdd), [0, 0]);
    for (const length of [0, 13, 14, 17, 33]) assert.equal(parse(frame().slice(0, length)).version, 0);
    assert.equal(parse(frame({ tag: 1 }).slice(0, 17)).version, 0);
    assert.equal(parse(frame({ version: 6 }).slice(0, 53)).version, 0);
    assert.equal(parse(frame({ protocol: "udp", payload: new Uint8Array(0) }).slice(0, 41), 0, 41, true).protocol, 0);
  });
  it("are inside the frame, whatever it has", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 120 }),
        fc.constantFrom(0x0800, 0x86dd, 0x8100),
        fc.nat(255),
        fc.boolean(),
        (bytes, type, first, toEnd) => {
          if (bytes.length > 14) {
            bytes[12] = type >>> 8;
            bytes[13] = type;
            bytes[14] = first;
          }
          const h = parse(bytes, 0, bytes.length, toEnd);
          if (h.version !== 0) assert.ok(h.ip >= 14 && h.end <= bytes.length && h.end >= h.ip + 20);
          if (h.protocol !== 0) {
            assert.ok(h.transport >= h.ip + 20 && h.payload >= h.transport + 8 && h.payload <= h.end);
            const copy = bytes.slice();
            h.finishTransport(copy);
            h.finishIp(copy);
            assert.equal(copy.length, bytes.length);
          }
        },
      ),
    );
  });
  it("have a length of 16 bits", () => {
    const fits = (spec: FrameSpec): boolean =>
      lengthFits(parse(frame({ ...spec, noLengths: true }), 0, undefined, true));
    assert.ok(fits({ payload: new Uint8Array(0xffff - 40) }));
    assert.ok(!fits({ payload: new Uint8Array(0xffff - 39) }));
    assert.ok(fits({ version: 6, payload: new Uint8Array(0xffff - 20) }));
    assert.ok(!fits({ version: 6, payload: new Uint8Array(0xffff - 19) }));
  });
});
