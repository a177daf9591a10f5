import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { loadableSegments } from "./elf.js";

/** A 64-bit ELF with one PT_LOAD segment of four bytes at 16 MiB, and a note that must be skipped. */
function sampleElf(): Uint8Array {
  const file = new Uint8Array(64 + 2 * 56 + 4);
  const view = new DataView(file.buffer);
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(18, 62, true);
  view.setBigUint64(24, 0x100_0000n, true);
  view.setBigUint64(32, 64n, true);
  view.setUint16(54, 56, true);
  view.setUint16(56, 2, true);
  const header = (i: number, type: number, values: readonly bigint[]) => {
    view.setUint32(64 + 56 * i, type, true);
    values.forEach((v, at) => {
      view.setBigUint64(64 + 56 * i + 8 + 8 * at, v, true);
    });
  };
  header(0, 4, [0n, 0n, 0n, 0n, 0n]);
  header(1, 1, [176n, 0xffff_ffff_8100_0000n, 0x100_0000n, 4n, 0x2000n]);
  file.set([1, 2, 3, 4], 176);
  return file;
}

describe("ELF", () => {
  it("lists what is to be loaded", () => {
    assert.deepEqual(loadableSegments(sampleElf()), {
      entry: 0x100_0000,
      segments: [{ gpa: 0x100_0000, bytes: Uint8Array.of(1, 2, 3, 4), memoryBytes: 0x2000 }],
    });
  });

  it("refuses other files, and never throws for damaged ones", () => {
    assert.equal(loadableSegments(new Uint8Array(0)), undefined);
    assert.equal(
      loadableSegments(new TextEncoder().encode("not an ELF file at all, but long enough to have a header...........")),
      undefined,
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(179), fc.nat(255))), fc.nat(180), (damage, length) => {
        const file = sampleElf();
        for (const [at, byte] of damage) file[at] = byte;
        for (const s of loadableSegments(file.subarray(0, length))?.segments ?? []) {
          assert.ok(s.bytes.length <= s.memoryBytes && s.memoryBytes > 0);
        }
      }),
      { numRuns: 2000 },
    );
  });
});
