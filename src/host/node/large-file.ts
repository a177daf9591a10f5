/**
 * Whole files of some megabytes, read so that their memory goes back when they are done with.
 *
 * glibc takes a freed block of up to 32 MiB as a sign to serve such sizes from its heaps from then on, where they stay. A
 * block beyond that always has a mapping of its own; pages that nobody touches cost nothing.
 */
import { open } from "node:fs/promises";

const OWN_MAPPING = 33 << 20;
const SMALL = 128 << 10;

export async function readLargeFile(path: string): Promise<Uint8Array> {
  const file = await open(path);
  try {
    const { size } = await file.stat();
    const bytes = new Uint8Array(new ArrayBuffer(size > SMALL ? Math.max(size, OWN_MAPPING) : size), 0, size);
    let at = 0;
    while (at < size) {
      const { bytesRead } = await file.read(bytes, at, size - at, at);
      if (bytesRead === 0) break;
      at += bytesRead;
    }
    return bytes.subarray(0, at);
  } finally {
    await file.close();
  }
}
