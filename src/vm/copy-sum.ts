/**
 * The checksum of a copied file: against faults on the way, not against a sender who means ill (who could send a wrong file as well).
 * Chosen by what it takes in a guest, where Perl has no modules: 100 MiB in 0.06 s by a few operations of Perl's on whole chunks. MD5 by
 * busybox takes 0.65 s and a process for each file; SHA-256 2.7 s.
 *
 * Of each chunk of data: its pieces are xored into one, every 64-bit word of which is mixed with one of a mask of random words, so that its
 * place counts (not that of a single bit, but that of a packet's many words), and all are added up; chunks are taken together by a
 * rotation, with their offsets.
 */
import { COPY_CHUNK } from "./copy-protocol.js";

/** Bytes. Seven make a chunk; no packets are as long, so that two which change places do not fall on each other. */
export const SUM_PIECE = 37_456;
const WORDS = SUM_PIECE / 4;

/** Always the same; the guest is told it. */
export const COPY_MASK: Uint8Array = (() => {
  const words = new Uint32Array(WORDS);
  let x = 0x9e3779b9;
  for (let i = 0; i < WORDS; i++) {
    // xorshift32 (Marsaglia 2003), with a multiplication to hide its linearity
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    words[i] = Math.imul(x, 0x2c1b3c6d) ^ (x >>> 15);
  }
  return new Uint8Array(words.buffer);
})();
const MASK = new Uint32Array(COPY_MASK.buffer as ArrayBuffer);

export class CopySum {
  #low = 0;
  #high = 0;
  readonly #scratch = new Uint32Array(COPY_CHUNK / 4);
  readonly #scratchBytes = new Uint8Array(this.#scratch.buffer);
  readonly #piece = new Uint32Array(WORDS);

  reset(): void {
    this.#low = this.#high = 0;
  }
  /** @param bytes at most COPY_CHUNK */
  add(offset: number, bytes: Uint8Array): void {
    const words = this.#folded(bytes);
    let low = 0;
    let high = 0;
    for (let i = 0; i < words.length; i += 2) {
      low += (words[i]! ^ MASK[i]!) >>> 0;
      high += (words[i + 1]! ^ MASK[i + 1]!) >>> 0;
    }
    high += Math.floor(low / 2 ** 32);
    const l = this.#low;
    const h = this.#high;
    this.#low = (((l << 5) | (h >>> 27)) ^ (low % 2 ** 32) ^ (offset % 2 ** 32)) >>> 0;
    this.#high = (((h << 5) | (l >>> 27)) ^ (high % 2 ** 32) ^ Math.floor(offset / 2 ** 32)) >>> 0;
  }
  /** All of its pieces in one, whole 64-bit words. */
  #folded(bytes: Uint8Array): Uint32Array {
    const words = this.#words(bytes);
    if (words.length <= WORDS) return words;
    const piece = this.#piece;
    piece.set(words.subarray(0, WORDS));
    for (let from = WORDS; from < words.length; from += WORDS) {
      const to = Math.min(WORDS, words.length - from);
      for (let i = 0; i < to; i++) piece[i]! ^= words[from + i]!;
    }
    return piece;
  }
  #words(bytes: Uint8Array): Uint32Array {
    const length = bytes.length;
    const padded = (length + 7) & ~7;
    if ((bytes.byteOffset & 3) === 0 && padded === length)
      return new Uint32Array(bytes.buffer as ArrayBuffer, bytes.byteOffset, length >> 2);
    this.#scratchBytes.set(bytes);
    this.#scratchBytes.fill(0, length, padded);
    return this.#scratch.subarray(0, padded >> 2);
  }
  get value(): bigint {
    return (BigInt(this.#high) << 32n) | BigInt(this.#low);
  }
}
