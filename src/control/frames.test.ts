/** Frames, cut anywhere, and bytes that are none. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { encodeFrame, type Frame, FrameDecoder, FrameKind, MAX_FRAME_BYTES, MAX_PAYLOAD_BYTES } from "./frames.js";

const frames = fc.array(
  fc.record(
    {
      kind: fc.constantFrom(...Object.values(FrameKind)),
      id: fc.integer({ min: 0, max: 0xffffffff }),
      payload: fc.uint8Array({ maxLength: 300 }),
    },
    { noNullPrototype: true },
  ),
  { maxLength: 8 },
);

/** Cuts bytes at places that are given as parts of the whole. */
function pieces(bytes: Uint8Array, cuts: readonly number[]): Uint8Array[] {
  const at = [0, ...cuts.map((c) => Math.floor(c * bytes.length)).sort((a, b) => a - b), bytes.length];
  return at.slice(1).map((end, i) => bytes.subarray(at[i], end));
}
function decode(decoder: FrameDecoder, bytes: readonly Uint8Array[]): Frame[] | undefined {
  const out: Frame[] = [];
  for (const piece of bytes)
    if (!decoder.push(piece, (f) => out.push({ ...f, payload: f.payload.slice() }))) return undefined;
  return out;
}

describe("frames", () => {
  it("come out as they went in, however the stream is cut", () => {
    fc.assert(
      fc.property(frames, fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 12 }), (list, cuts) => {
        const stream = Buffer.concat(list.map((f) => encodeFrame(f.kind, f.id, f.payload)));
        assert.deepEqual(decode(new FrameDecoder(), pieces(new Uint8Array(stream), cuts)), list);
      }),
    );
  });

  it("are the same by single bytes", () => {
    const list = [1, 2, 3].map((n) => ({ kind: FrameKind.data, id: n, payload: new Uint8Array(n * 100).fill(n) }));
    const stream = Buffer.concat(list.map((f) => encodeFrame(f.kind, f.id, f.payload)));
    assert.deepEqual(
      decode(
        new FrameDecoder(),
        Array.from(stream, (b) => Uint8Array.of(b)),
      ),
      list,
    );
  });

  it("may be as long as the limit and no longer", () => {
    const payload = new Uint8Array(MAX_PAYLOAD_BYTES).fill(7);
    const [frame] = decode(new FrameDecoder(), [encodeFrame(FrameKind.data, 1, payload)])!;
    assert.deepEqual(frame!.payload, payload);
    assert.throws(() => encodeFrame(FrameKind.data, 1, payload, Uint8Array.of(1)), RangeError);
  });

  it("are refused for good when a length or a kind cannot be", () => {
    const header = (length: number, kind: number): Uint8Array => {
      const bytes = new Uint8Array(9);
      new DataView(bytes.buffer).setUint32(0, length, true);
      bytes[4] = kind;
      return bytes;
    };
    for (const bad of [header(0, 1), header(4, 1), header(MAX_FRAME_BYTES + 1, 1), header(5, 0), header(5, 10)]) {
      const decoder = new FrameDecoder();
      assert.equal(decode(decoder, [bad]), undefined);
      assert.equal(decode(decoder, [encodeFrame(FrameKind.data, 1)]), undefined);
    }
  });

  it("never throw for bytes that are anything, and hand over no more than came", () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 400 }), { maxLength: 10 }), (list) => {
        const decoder = new FrameDecoder();
        let handed = 0;
        for (const bytes of list)
          decoder.push(bytes, (f) => {
            handed += f.payload.length + 9;
          });
        assert.ok(handed <= list.reduce((sum, b) => sum + b.length, 0));
      }),
    );
  });
});
