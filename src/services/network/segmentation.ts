/**
 * Cuts a long TCP segment into frames, for a guest that takes none of it: headers repeated, with sequence number, identification,
 * lengths, flags and checksums of each piece.
 */
import type { FrameHeaders } from "./frame.js";
import { readBe16, readBe32, writeBe16, writeBe32 } from "./wire.js";

/** Flags in byte 13 of a TCP header: the last piece has these, */
const LAST_ONLY = 0x01 | 0x08;
/** and the first one this (RFC 3168: congestion window reduced). */
const FIRST_ONLY = 0x80;
const FLAGS_AT = 13;

export class Segmentation {
  #bytes: Uint8Array = new Uint8Array(0);
  #from = 0;
  #size = 0;
  #ip = 0;
  #transport = 0;
  #payload = 0;
  #end = 0;
  /** How many frames it makes. */
  count = 0;

  /**
   * @param from where the frame begins in `bytes`; its headers were found, and are a TCP segment's
   * @param size bytes of payload in each piece, at least 1
   */
  begin(bytes: Uint8Array, from: number, headers: FrameHeaders, size: number): void {
    this.#bytes = bytes;
    this.#from = from;
    this.#size = size;
    this.#ip = headers.ip;
    this.#transport = headers.transport;
    this.#payload = headers.payload;
    this.#end = headers.end;
    this.count = Math.max(1, Math.ceil((headers.end - headers.payload) / size));
  }
  /** Bytes of the headers before the payload. */
  get headerBytes(): number {
    return this.#payload - this.#from;
  }
  /**
   * Writes frame number `i` to `at`; `headers` are then those of the frame that was written.
   * @returns its length
   */
  write(i: number, into: Uint8Array, at: number, headers: FrameHeaders): number {
    const bytes = this.#bytes;
    const { headerBytes } = this;
    const start = this.#payload + i * this.#size;
    const length = Math.min(this.#size, this.#end - start);
    const moved = at - this.#from;
    into.set(bytes.subarray(this.#from, this.#payload), at);
    into.set(bytes.subarray(start, start + length), at + headerBytes);
    headers.ip = this.#ip + moved;
    headers.transport = this.#transport + moved;
    headers.payload = this.#payload + moved;
    headers.end = headers.payload + length;
    const { ip, transport } = headers;
    if (headers.version === 4) writeBe16(into, ip + 4, (readBe16(into, ip + 4) + i) & 0xffff);
    writeBe32(into, transport + 4, (readBe32(into, transport + 4) + i * this.#size) >>> 0);
    let flags = into[transport + FLAGS_AT]!;
    if (i < this.count - 1) flags &= ~LAST_ONLY;
    if (i > 0) flags &= ~FIRST_ONLY;
    into[transport + FLAGS_AT] = flags;
    headers.finishIp(into);
    headers.finishTransport(into);
    return headerBytes + length;
  }
}
