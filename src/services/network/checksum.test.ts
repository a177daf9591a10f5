import assert from "node:assert/strict";
import { it } from "node:test";
import fc from "fast-check";
import { finish, fold, LongSum, sum } from "./checksum.js";
import { pattern, plainSum } from "./scripted-frames.js";

it("sums are those of RFC 1071, at any place, of any length", () => {
  const sums = new LongSum();
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 400 }),
      fc.nat(9),
      fc.nat(9),
      fc.nat(0xffff),
      (bytes, offset, skip, start) => {
        const view = new Uint8Array(new ArrayBuffer(offset + bytes.length), offset);
        view.set(bytes);
        const from = Math.min(skip, bytes.length);
        const start16 = [start >>> 8, start & 0xff];
        const expected = plainSum([...start16, ...bytes.subarray(from)]);
        for (const total of [sum(view, from, view.length, start), sums.add(view, from, view.length, start)]) {
          // All ones and 0 are the same number.
          assert.equal(fold(total) % 0xffff, expected % 0xffff);
          assert.equal(finish(total) % 0xffff, (0xffff - expected) % 0xffff);
        }
      },
    ),
  );
});
it("64 KiB of ones do not overflow", () => {
  const sums = new LongSum();
  const bytes = new Uint8Array(0x10000 + 40).fill(0xff);
  assert.equal(fold(sums.add(bytes, 0, bytes.length, 0xffff)), 0xffff);
  const others = pattern(0x10000);
  assert.equal(fold(sums.add(others, 0, others.length, 5)), fold(sum(others, 0, others.length, 5)));
});
