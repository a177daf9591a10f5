/**
 * Frames between the API and the agent in the guest (image/init/agent.ts): type (1 byte), length (u32, little-endian), payload. A
 * session is one connection and runs one command; lengths mark all ends, since not every guest can close one direction.
 */
export const FrameType = {
  /** To the guest: what to run, as `key NUL value NUL` pairs. */
  run: "R",
  stdin: "I",
  stdinEnd: "E",
  /** u32 signal number, to the command's process group. */
  signal: "S",
  /** u16 rows, u16 columns. */
  windowSize: "W",
  /** From the guest: the process has its id (u32), and whether the connection may be for another command after it (u8). */
  started: "P",
  stdout: "O",
  stderr: "X",
  /** u32: so many bytes of stdin have been taken. */
  credit: "C",
  /** u32 exit code, u32 signal that ended it (0 = none). */
  done: "D",
  /** It could not be started: a text. */
  failed: "F",
} as const;
export type FrameType = (typeof FrameType)[keyof typeof FrameType];

const HEADER = 5;
/** A guest that announces more is not our agent. */
const MAX_FRAME = 1 << 20;

export function frame(type: FrameType, payload: Uint8Array = new Uint8Array(0)): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEADER + payload.length);
  bytes[0] = type.charCodeAt(0);
  new DataView(bytes.buffer).setUint32(1, payload.length, true);
  bytes.set(payload, HEADER);
  return bytes;
}
export function numbers(size: 2 | 4, ...values: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(values.length * size);
  const view = new DataView(bytes.buffer);
  values.forEach((v, i) => {
    if (size === 2) view.setUint16(i * 2, v, true);
    else view.setUint32(i * 4, v, true);
  });
  return bytes;
}

/** Cuts a stream into frames. */
export class FrameReader {
  #rest = new Uint8Array(0);

  /** @returns false when this is no stream of frames */
  push(data: Uint8Array, handle: (type: string, payload: Uint8Array) => void): boolean {
    let bytes = data;
    if (this.#rest.length > 0) {
      bytes = new Uint8Array(this.#rest.length + data.length);
      bytes.set(this.#rest);
      bytes.set(data, this.#rest.length);
    }
    let at = 0;
    while (bytes.length - at >= HEADER) {
      const length = new DataView(bytes.buffer, bytes.byteOffset + at).getUint32(1, true);
      if (length > MAX_FRAME) return false;
      if (bytes.length - at < HEADER + length) break;
      handle(String.fromCharCode(bytes[at]!), bytes.subarray(at + HEADER, at + HEADER + length));
      at += HEADER + length;
    }
    this.#rest = bytes.slice(at) as Uint8Array<ArrayBuffer>;
    return true;
  }
}
