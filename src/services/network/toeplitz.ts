/** The Toeplitz hash that spreads flows over channels (NDIS, "RSS hashing functions"). */

/** Bytes of a key. */
export const KEY_BYTES = 40;
/** Longest input: two IPv6 addresses and two ports. */
export const MAX_INPUT_BYTES = 36;

export class Toeplitz {
  readonly key = new Uint8Array(KEY_BYTES);
  /** What each value of each input byte adds: 256 for each byte. */
  readonly #table = new Uint32Array(MAX_INPUT_BYTES * 256);

  /** A change of the key is some 10,000 steps. */
  setKey(key: Uint8Array): void {
    this.key.set(key.subarray(0, KEY_BYTES));
    const table = this.#table;
    for (let byte = 0; byte < MAX_INPUT_BYTES; byte++) {
      const base = byte * 256;
      for (let bit = 0; bit < 8; bit++) table[base + (0x80 >>> bit)] = this.#window(byte * 8 + bit);
      for (let value = 1; value < 256; value++) {
        const lowest = value & -value;
        if (value !== lowest) table[base + value] = table[base + lowest]! ^ table[base + value - lowest]!;
      }
    }
  }
  /** 32 bits of the key from a bit on. */
  #window(bit: number): number {
    const at = bit >>> 3;
    const shift = bit & 7;
    const k = this.key;
    const high = ((k[at]! << 24) | (k[at + 1]! << 16) | (k[at + 2]! << 8) | k[at + 3]!) >>> 0;
    return shift === 0 ? high : ((high << shift) | (k[at + 4]! >>> (8 - shift))) >>> 0;
  }
  /** Hash of `count` bytes that follow each other, after a hash of `position` bytes before. */
  add(bytes: Uint8Array, at: number, count: number, position = 0, before = 0): number {
    const table = this.#table;
    let hash = before;
    for (let i = 0; i < count; i++) hash ^= table[(position + i) * 256 + bytes[at + i]!]!;
    return hash >>> 0;
  }
}
