/** XDR (RFC 4506): big-endian words; opaques filled up to a multiple of four. */

/** What was read is no such message. */
export class XdrError extends Error {
  override readonly name = "XdrError";
}

export class XdrReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }
  #take(length: number): number {
    const at = this.#at;
    if (length > this.#bytes.length - at) throw new XdrError("cut off");
    this.#at = at + length;
    return at;
  }
  u32(): number {
    return this.#view.getUint32(this.#take(4));
  }
  u64(): bigint {
    return this.#view.getBigUint64(this.#take(8));
  }
  bool(): boolean {
    const n = this.u32();
    if (n > 1) throw new XdrError("a truth value that is none");
    return n === 1;
  }
  fixed(length: number): Uint8Array {
    const at = this.#take(Math.ceil(length / 4) * 4);
    return this.#bytes.subarray(at, at + length);
  }
  /** A view: whoever keeps it copies it. */
  opaque(max: number): Uint8Array {
    const length = this.u32();
    if (length > max) throw new XdrError("longer than it may be");
    return this.fixed(length);
  }
}

export class XdrWriter {
  #bytes: Uint8Array<ArrayBuffer>;
  #view: DataView;
  #at: number;

  /** @param reserve room for what the sender puts in front */
  constructor(reserve: number, size = 512) {
    this.#bytes = new Uint8Array(Math.max(size, reserve));
    this.#view = new DataView(this.#bytes.buffer);
    this.#at = reserve;
  }
  get length(): number {
    return this.#at;
  }
  /** All of it, the reserved bytes included. */
  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes.subarray(0, this.#at);
  }
  /** Takes back what was written from `length` on. */
  truncate(length: number): void {
    this.#at = length;
  }
  #room(length: number): number {
    const at = this.#at;
    if (at + length > this.#bytes.length) {
      const more = new Uint8Array(Math.max(this.#bytes.length * 2, at + length));
      more.set(this.#bytes.subarray(0, at));
      this.#bytes = more;
      this.#view = new DataView(more.buffer);
    }
    this.#at = at + length;
    return at;
  }
  u32(value: number): this {
    const at = this.#room(4);
    this.#view.setUint32(at, value);
    return this;
  }
  u64(value: bigint): this {
    const at = this.#room(8);
    this.#view.setBigUint64(at, BigInt.asUintN(64, value));
    return this;
  }
  bool(value: boolean): this {
    return this.u32(value ? 1 : 0);
  }
  fixed(bytes: Uint8Array): this {
    const at = this.#room((bytes.length + 3) & ~3);
    this.#bytes.set(bytes, at);
    this.#bytes.fill(0, at + bytes.length, this.#at);
    return this;
  }
  opaque(bytes: Uint8Array): this {
    return this.u32(bytes.length).fixed(bytes);
  }
  /** An opaque of up to `max` bytes that `fill` puts there and counts. */
  filled(max: number, fill: (into: Uint8Array) => number): number {
    const at = this.#room(4 + ((max + 3) & ~3));
    const length = fill(this.#bytes.subarray(at + 4, at + 4 + max));
    this.#view.setUint32(at, length);
    this.#at = at + 4 + ((length + 3) & ~3);
    this.#bytes.fill(0, at + 4 + length, this.#at);
    return length;
  }
  /** Writes over a word. */
  setU32(at: number, value: number): void {
    this.#view.setUint32(at, value);
  }
}
