/**
 * The control protocol of a named machine: how another process of the same user talks to the one that runs it. This folder knows
 * no platform: bytes come from somewhere and go there (host/node/control has the sockets). This file has the frames, catalogue.ts
 * what they say, connection.ts one end of a connection, server.ts the machine's side, client.ts the other.
 *
 *     u32 length of the rest, little-endian | u8 kind | u32 request id | payload
 *
 * Both ends begin with `hello`. Then a client opens requests, many at a time, each with an id of its own; `answer` or `failure`
 * ends one. Between the two, both ends may send notes (JSON), and bytes on numbered streams, against credit.
 */
export const FrameKind = {
  /** Magic and version, as JSON: the first frame of both ends, id 0. */
  hello: 1,
  /** From the client: a verb with what it needs, as JSON. */
  request: 2,
  /** From the server: the end of a request that went well, as JSON. */
  answer: 3,
  /** From the server: the end of one that did not, as JSON. */
  failure: 4,
  /** In the midst of a request: JSON. */
  note: 5,
  /** u8 stream, bytes. */
  data: 6,
  /** u8 stream: no more bytes of it. */
  end: 7,
  /** u8 stream, u32: so many bytes more may be sent. */
  credit: 8,
  /** From the client: nobody waits for the answer any more. */
  cancel: 9,
} as const;
export type FrameKind = (typeof FrameKind)[keyof typeof FrameKind];

const LENGTH_BYTES = 4;
const HEAD_BYTES = 5;
/** A peer that announces more is none of ours. */
export const MAX_FRAME_BYTES = 1 << 20;
export const MAX_PAYLOAD_BYTES = MAX_FRAME_BYTES - HEAD_BYTES;
const LAST_KIND = FrameKind.cancel;

export interface Frame {
  readonly kind: FrameKind;
  readonly id: number;
  readonly payload: Uint8Array;
}

/** @throws RangeError when the payload is too long */
export function encodeFrame(kind: FrameKind, id: number, ...payload: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const length = payload.reduce((sum, p) => sum + p.length, HEAD_BYTES);
  if (length > MAX_FRAME_BYTES) throw new RangeError(`a frame of ${length} bytes`);
  const bytes = new Uint8Array(LENGTH_BYTES + length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, length, true);
  bytes[LENGTH_BYTES] = kind;
  view.setUint32(LENGTH_BYTES + 1, id, true);
  let at = LENGTH_BYTES + HEAD_BYTES;
  for (const p of payload) {
    bytes.set(p, at);
    at += p.length;
  }
  return bytes;
}

/** Cuts a stream into frames; keeps at most one unfinished. */
export class FrameDecoder {
  #parts: Uint8Array[] = [];
  #length = 0;
  #isBroken = false;

  /**
   * @param handle gets each frame; its payload is a view that is valid during the call
   * @returns false when this is no stream of frames; nothing is taken any more
   */
  push(data: Uint8Array, handle: (frame: Frame) => void): boolean {
    if (this.#isBroken) return false;
    this.#parts.push(data);
    this.#length += data.length;
    for (;;) {
      if (this.#length < LENGTH_BYTES) return true;
      const head = this.#first(LENGTH_BYTES);
      const length = new DataView(head.buffer, head.byteOffset).getUint32(0, true);
      if (length < HEAD_BYTES || length > MAX_FRAME_BYTES) return this.#broken();
      if (this.#length < LENGTH_BYTES + length) return true;
      const whole = this.#first(LENGTH_BYTES + length);
      this.#drop(LENGTH_BYTES + length);
      const kind = whole[LENGTH_BYTES]!;
      if (kind < 1 || kind > LAST_KIND) return this.#broken();
      const id = new DataView(whole.buffer, whole.byteOffset).getUint32(LENGTH_BYTES + 1, true);
      handle({
        kind: kind as FrameKind,
        id,
        payload: whole.subarray(LENGTH_BYTES + HEAD_BYTES, LENGTH_BYTES + length),
      });
    }
  }
  #broken(): false {
    this.#isBroken = true;
    this.#parts = [];
    this.#length = 0;
    return false;
  }
  /** The first bytes in one piece; there are so many. */
  #first(bytes: number): Uint8Array {
    if (this.#parts[0]!.length < bytes) {
      const whole = new Uint8Array(this.#length);
      let at = 0;
      for (const part of this.#parts) {
        whole.set(part, at);
        at += part.length;
      }
      this.#parts = [whole];
    }
    return this.#parts[0]!;
  }
  #drop(bytes: number): void {
    this.#length -= bytes;
    const rest = this.#parts[0]!.subarray(bytes);
    if (rest.length > 0) this.#parts[0] = rest;
    else this.#parts.shift();
  }
}
