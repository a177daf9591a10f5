/** A check that a reader gives a result or an ImageError, whatever bytes it is given. */
import fc from "fast-check";
import { ImageError } from "../../src/image/errors.js";

/** Tries any bytes, many ways to cut `sample` off, and changed bytes in it. */
export function assertSurvives(read: (bytes: Uint8Array) => unknown, sample: Uint8Array): void {
  const attempt = (bytes: Uint8Array): void => {
    try {
      read(bytes);
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
    }
  };
  fc.assert(fc.property(fc.uint8Array({ maxLength: 600 }), attempt), { numRuns: 50 });
  fc.assert(
    fc.property(fc.nat(sample.length), (length) => attempt(sample.subarray(0, length))),
    { numRuns: 100 },
  );
  const change = fc.tuple(fc.nat(sample.length - 1), fc.integer({ min: 1, max: 255 }));
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 8 }), (changes) => {
      const bytes = sample.slice();
      for (const [at, bits] of changes) bytes[at]! ^= bits;
      attempt(bytes);
    }),
    { numRuns: 300 },
  );
}
