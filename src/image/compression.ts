/** Unpacks what kernels, packages and initramfs files are packed with, told apart by their first bytes. */
import { decompress as unpackZstdWhole, Decompress as ZstdDecompress } from "fzstd";
import { ByteReader, concatBytes, hasBytes } from "./byte-reader.js";
import { damaged, ImageError, truncated, unsupported } from "./errors.js";
import { unpackLz4Frame, unpackLz4Legacy } from "./lz4.js";
import { readAll, streamOf } from "./streams.js";
import { unpackXz } from "./xz.js";

/** How bytes are packed. */
export type Compression = "none" | "gzip" | "xz" | "zstd" | "lz4" | "lz4-legacy" | "bzip2" | "lzma" | "lzop";

const MAGICS: readonly (readonly [Compression, readonly number[]])[] = [
  ["gzip", [0x1f, 0x8b, 0x08]],
  ["xz", [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
  ["zstd", [0x28, 0xb5, 0x2f, 0xfd]],
  ["lz4", [0x04, 0x22, 0x4d, 0x18]],
  ["lz4-legacy", [0x02, 0x21, 0x4c, 0x18]],
  ["bzip2", [0x42, 0x5a, 0x68]],
  ["lzop", [0x89, 0x4c, 0x5a, 0x4f, 0x00, 0x0d, 0x0a, 0x1a, 0x0a]],
  ["lzma", [0x5d, 0x00, 0x00]], // no magic of its own: the usual properties byte and dictionary size
];

/** More than any kernel, package or initramfs we know unpacks to; a guard against bombs. */
export const MAX_UNPACKED = 1 << 30;

export function compressionOf(bytes: Uint8Array): Compression {
  return MAGICS.find(([, magic]) => hasBytes(bytes, 0, magic))?.[0] ?? "none";
}

async function unpackGzip(bytes: Uint8Array, maxBytes: number): Promise<Uint8Array> {
  try {
    const gunzip = new DecompressionStream("gzip");
    return await readAll(streamOf(Uint8Array.from(bytes)).pipeThrough(gunzip), maxBytes, "gzip data");
  } catch (error) {
    if (error instanceof ImageError) throw error;
    if (error instanceof Error && /unexpected end/.test(error.message)) throw truncated("gzip data");
    throw damaged("gzip data", "it cannot be unpacked or its checksum is wrong");
  }
}

/** The size that a zstd frame's header states (RFC 8878, 3.1.1.1), or undefined when it states none. */
function zstdFrameSize(bytes: Uint8Array): number | undefined {
  const reader = new ByteReader(bytes, "zstd data");
  const descriptor = reader.u8(4);
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const at = 5 + (isSingleSegment ? 0 : 1) + [0, 1, 2, 4][descriptor & 3]!;
  switch (descriptor >> 6) {
    case 0:
      return isSingleSegment ? reader.u8(at) : undefined;
    case 1:
      return reader.u16(at) + 256;
    case 2:
      return reader.u32(at);
    default:
      return reader.u64(at);
  }
}

/** Content checksums (xxHash64) are not checked: what matters is covered by a package's SHA-256 or a stated size. */
function unpackZstd(bytes: Uint8Array, maxBytes: number, sizeHint: number | undefined): Uint8Array {
  const tooBig = (): ImageError => damaged("zstd data", `it unpacks to more than ${maxBytes} bytes`);
  try {
    const statedSize = zstdFrameSize(bytes);
    if (statedSize !== undefined) {
      if (statedSize > maxBytes) throw tooBig();
      const whole = unpackZstdWhole(bytes);
      if (whole.length < statedSize) throw truncated("zstd data");
      if (whole.length > maxBytes) throw tooBig();
      return whole;
    }
    // In pieces a large window is moved for each block: with a buffer of the right size ten times as fast.
    if (sizeHint !== undefined) return unpackZstdWhole(bytes, new Uint8Array(sizeHint));
    const parts: Uint8Array[] = [];
    let total = 0;
    let isFinished = false;
    const stream = new ZstdDecompress((chunk, isFinal) => {
      total += chunk.length;
      if (total > maxBytes) throw tooBig();
      parts.push(chunk.slice());
      isFinished ||= isFinal === true;
    });
    stream.push(bytes, true);
    if (!isFinished) throw truncated("zstd data");
    return concatBytes(parts);
  } catch (error) {
    if (error instanceof ImageError) throw error;
    if (error instanceof Error && /unexpected EOF/i.test(error.message)) throw truncated("zstd data");
    throw damaged("zstd data", "it cannot be unpacked");
  }
}

/**
 * Unpacks by magic; bytes without a known magic come back as they are.
 * @param maxBytes refuse what unpacks to more
 * @param sizeHint the unpacked size, if it is known from elsewhere; a zstd frame that states none is taken to have it
 */
export async function decompress(bytes: Uint8Array, maxBytes = MAX_UNPACKED, sizeHint?: number): Promise<Uint8Array> {
  const compression = compressionOf(bytes);
  switch (compression) {
    case "none":
      return bytes;
    case "gzip":
      return unpackGzip(bytes, maxBytes);
    case "xz":
      return unpackXz(bytes, maxBytes);
    case "zstd":
      return unpackZstd(bytes, maxBytes, sizeHint);
    case "lz4":
      return unpackLz4Frame(bytes, maxBytes);
    case "lz4-legacy":
      return unpackLz4Legacy(bytes, maxBytes, sizeHint);
    default:
      throw unsupported(`data packed with ${compression} cannot be unpacked here`, "repack it with gzip, xz or zstd");
  }
}
