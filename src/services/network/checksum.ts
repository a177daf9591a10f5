/** The Internet checksum (RFC 1071): sums of 16-bit words in the order of the network, added up before they are folded. */

/** Below this, views are not worth it. */
const SHORT_BYTES = 64;

/** Adds bytes to a sum, byte by byte; an odd last byte counts as followed by 0. Sums of what a frame has stay small integers. */
export function sum(bytes: Uint8Array, from: number, to: number, start = 0): number {
  let total = start;
  let at = from;
  for (const end = to - 1; at < end; at += 2) total += (bytes[at]! << 8) | bytes[at + 1]!;
  if (at < to) total += bytes[at]! << 8;
  return total;
}
/** To 16 bits. */
export function fold(total: number): number {
  while (total > 0xffff) total = (total & 0xffff) + (total >>> 16);
  return total;
}
/** The checksum of a sum. */
export const finish = (total: number): number => ~fold(total) & 0xffff;

/**
 * The same for many bytes, four at a time: 64 KiB take 30 us instead of 50. It keeps a view of the buffer that it was used for last.
 * The sum of words with their bytes swapped is the sum of the words with its bytes swapped.
 */
export class LongSum {
  #buffer: ArrayBufferLike | undefined;
  #words: Uint32Array = new Uint32Array(0);

  /** Of up to 64 KiB: halves of so many words add up below 2^31. */
  add(bytes: Uint8Array, from: number, to: number, start: number): number {
    let at = bytes.byteOffset + from;
    if (to - from < SHORT_BYTES || (at & 1) !== 0) return sum(bytes, from, to, start);
    if (this.#buffer !== bytes.buffer) {
      this.#buffer = bytes.buffer;
      this.#words = new Uint32Array(bytes.buffer, 0, bytes.buffer.byteLength >>> 2);
    }
    const words = this.#words;
    let total = start;
    if ((at & 2) !== 0) {
      total = sum(bytes, from, from + 2, total);
      from += 2;
      at += 2;
    }
    const first = at >>> 2;
    const end = first + ((to - from) >>> 2);
    let low = 0;
    let high = 0;
    for (let i = first; i < end; i++) {
      const word = words[i]!;
      low += word & 0xffff;
      high += word >>> 16;
    }
    const swapped = fold(fold(low) + fold(high));
    total += ((swapped & 0xff) << 8) | (swapped >>> 8);
    return sum(bytes, from + (end - first) * 4, to, total);
  }
}
