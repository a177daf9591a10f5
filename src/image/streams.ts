/** Bytes to and from web streams, with a limit on what may come out. */
import { concatBytes } from "./byte-reader.js";
import { damaged } from "./errors.js";

const CHUNK = 256 << 10;

/** The bytes in chunks, so that a consumer that stops early stops the work. */
export function streamOf(bytes: Uint8Array<ArrayBuffer>): ReadableStream<Uint8Array<ArrayBuffer>> {
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      if (at >= bytes.length) return controller.close();
      controller.enqueue(bytes.slice(at, at + CHUNK)); // a copy: consumers may take the buffer over
      at += CHUNK;
    },
  });
}

/** Everything the stream gives; more than `maxBytes` is refused. */
export async function readAll(
  stream: ReadableStream<Uint8Array>,
  maxBytes: number,
  what: string,
): Promise<Uint8Array<ArrayBuffer>> {
  const reader = stream.getReader();
  const parts: Uint8Array[] = [];
  let total = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return concatBytes(parts);
    total += value.length;
    if (total > maxBytes) {
      await reader.cancel();
      throw damaged(what, `it unpacks to more than ${maxBytes} bytes`);
    }
    parts.push(value);
  }
}
