import { damaged, truncated } from "./errors.js";

/** Reads numbers and byte ranges out of untrusted bytes. Every access is checked and fails as an ImageError. */
export class ByteReader {
  readonly bytes: Uint8Array;
  readonly #view: DataView;
  readonly #what: string;

  /** @param what the format's name, for error messages */
  constructor(bytes: Uint8Array, what: string) {
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#what = what;
  }

  get length(): number {
    return this.bytes.length;
  }

  #check(at: number, size: number): void {
    if (!(at >= 0 && size >= 0 && at + size <= this.bytes.length)) throw truncated(this.#what);
  }

  u8(at: number): number {
    this.#check(at, 1);
    return this.#view.getUint8(at);
  }

  u16(at: number, littleEndian = true): number {
    this.#check(at, 2);
    return this.#view.getUint16(at, littleEndian);
  }

  u32(at: number, littleEndian = true): number {
    this.#check(at, 4);
    return this.#view.getUint32(at, littleEndian);
  }

  /** A 64-bit number that must fit a double exactly; anything above 2^53 is no offset or size of a real file. */
  u64(at: number, littleEndian = true): number {
    this.#check(at, 8);
    const value = Number(this.#view.getBigUint64(at, littleEndian));
    if (value > Number.MAX_SAFE_INTEGER) throw damaged(this.#what, `a size or offset is 0x${value.toString(16)}`);
    return value;
  }

  /** A view, not a copy. */
  slice(at: number, size: number): Uint8Array {
    this.#check(at, size);
    return this.bytes.subarray(at, at + size);
  }

  /** Text up to a zero byte or `size` bytes, one character per byte. */
  text(at: number, size: number): string {
    const raw = this.slice(at, size);
    const end = raw.indexOf(0);
    return latin1(end < 0 ? raw : raw.subarray(0, end));
  }
}

const latin1Decoder = new TextDecoder("latin1");
const utf8Decoder = new TextDecoder();
const utf8Encoder = new TextEncoder();

export const latin1 = (bytes: Uint8Array): string => latin1Decoder.decode(bytes);
export const utf8 = (bytes: Uint8Array): string => utf8Decoder.decode(bytes);
export const encodeUtf8 = (text: string): Uint8Array => utf8Encoder.encode(text);

/** Whether `bytes` has exactly `expected` at offset `at`. */
export function hasBytes(bytes: Uint8Array, at: number, expected: readonly number[] | string): boolean {
  if (at + expected.length > bytes.length) return false;
  for (let i = 0; i < expected.length; i++) {
    const want = typeof expected === "string" ? expected.charCodeAt(i) : expected[i];
    if (bytes[at + i] !== want) return false;
  }
  return true;
}

export function concatBytes(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  let total = 0;
  for (const part of parts) total += part.length;
  const out = new Uint8Array(total);
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
