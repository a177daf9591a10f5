/**
 * LZ4: the legacy frame that Linux kernels and initramfs files use (`lz4 -l`) and the current frame
 * ("LZ4 Frame Format Description" and "LZ4 Block Format Description" of the LZ4 project). Frame checksums (xxHash32)
 * are skipped over, not checked: what matters to us is covered by a package's SHA-256 or an unpacked size.
 */
import { ByteReader, concatBytes } from "./byte-reader.js";
import { damaged, ImageError, unsupported } from "./errors.js";

export const LZ4_LEGACY_MAGIC = 0x184c2102;
export const LZ4_FRAME_MAGIC = 0x184d2204;
const LEGACY_BLOCK_MAX = 8 << 20;
const FRAME_BLOCK_MAX: Record<number, number | undefined> = { 4: 64 << 10, 5: 256 << 10, 6: 1 << 20, 7: 4 << 20 };
/** A match may reach this far back, over block ends too when blocks are linked. */
const WINDOW = 64 << 10;

/**
 * Decodes one block into `out` from `at`; returns the end of what was written.
 * Matches may reach back to index `floor` of `out`.
 */
function decodeBlock(block: Uint8Array, out: Uint8Array, at: number, floor: number): number {
  // no variable of this loop is in a closure: it would live in memory
  let from = 0;
  let to = at;
  const size = block.length;
  while (from < size) {
    const token = block[from++]!;
    let literals = token >> 4;
    if (literals === 15)
      for (let byte = 255; byte === 255; literals += byte) {
        if (from >= size) throw bad("a length runs past its block");
        byte = block[from++]!;
      }
    if (from + literals > size || to + literals > out.length) throw bad("literals run past their block");
    if (literals < SHORT) for (let i = 0; i < literals; i++) out[to + i] = block[from + i]!;
    else out.set(block.subarray(from, from + literals), to);
    from += literals;
    to += literals;
    if (from === size) return to; // the last sequence has no match
    if (from + 2 > size) throw bad("a match has no offset");
    const offset = block[from]! | (block[from + 1]! << 8);
    from += 2;
    let source = to - offset;
    if (offset === 0 || source < floor) throw bad("a match reaches before the data");
    let length = token & 15;
    if (length === 15)
      for (let byte = 255; byte === 255; length += byte) {
        if (from >= size) throw bad("a length runs past its block");
        byte = block[from++]!;
      }
    length += 4;
    const end = to + length;
    if (end > out.length) throw bad("a match runs past its block");
    if (length < SHORT || offset < length) while (to < end) out[to++] = out[source++]!;
    else {
      out.copyWithin(to, source, source + length);
      to = end;
    }
  }
  return to;
}
/** Bytes up to which a loop copies faster than a call. */
const SHORT = 64;
const bad = (why: string): ImageError => damaged("LZ4 data", why);

function tooBig(): ImageError {
  return new ImageError("too-big", "LZ4 data unpacks to more than is allowed", "check that this is the file you meant");
}

/**
 * Legacy frame(s). A trailing 32-bit size, which kernel builds append, is checked when it is there.
 * @param size the unpacked size, if it is known: then it is unpacked in place
 */
export function unpackLz4Legacy(bytes: Uint8Array, maxBytes: number, size?: number): Uint8Array {
  const reader = new ByteReader(bytes, "LZ4 data");
  if (size !== undefined && size <= maxBytes) {
    const out = new Uint8Array(size);
    let end = 0;
    for (let at = 0; at < bytes.length; ) {
      const length = reader.u32(at);
      at += 4;
      if (length === LZ4_LEGACY_MAGIC) continue;
      if (length === 0) break; // padding
      end = decodeBlock(reader.slice(at, length), out, end, end);
      at += length;
    }
    return out.subarray(0, end);
  }
  const scratch = new Uint8Array(LEGACY_BLOCK_MAX);
  const parts: Uint8Array[] = [];
  let total = 0;
  let at = 0;
  while (at < bytes.length) {
    if (bytes.length - at === 4 && at > 0) {
      if (reader.u32(at) !== total) throw damaged("LZ4 data", "its unpacked size differs from the size it states");
      break;
    }
    const size = reader.u32(at);
    at += 4;
    if (size === LZ4_LEGACY_MAGIC) continue;
    if (size === 0) break; // padding
    const end = decodeBlock(reader.slice(at, size), scratch, 0, 0);
    total += end;
    if (total > maxBytes) throw tooBig();
    parts.push(scratch.slice(0, end));
    at += size;
  }
  return concatBytes(parts);
}

/** Current frame(s), with independent or linked blocks; skippable frames are skipped. */
export function unpackLz4Frame(bytes: Uint8Array, maxBytes: number): Uint8Array {
  const reader = new ByteReader(bytes, "LZ4 data");
  const parts: Uint8Array[] = [];
  let total = 0;
  let at = 0;
  while (at < bytes.length) {
    const magic = reader.u32(at);
    if (magic >>> 4 === 0x184d2a5) {
      at += 8 + reader.u32(at + 4);
      continue;
    }
    if (magic !== LZ4_FRAME_MAGIC) throw damaged("LZ4 data", "no frame starts where one should");
    const flags = reader.u8(at + 4);
    if (flags >> 6 !== 1) throw unsupported(`LZ4 frame version ${flags >> 6}`, "pack the file with a current lz4");
    if (flags & 1) throw unsupported("the LZ4 frame needs a dictionary", "pack the file without one");
    const isLinked = (flags & 0x20) === 0;
    const hasBlockChecksum = (flags & 0x10) !== 0;
    const hasSize = (flags & 0x08) !== 0;
    const hasChecksum = (flags & 0x04) !== 0;
    const blockMax = FRAME_BLOCK_MAX[(reader.u8(at + 5) >> 4) & 7];
    if (blockMax === undefined) throw damaged("LZ4 data", "its block size is unknown");
    const statedSize = hasSize ? reader.u64(at + 6) : undefined;
    at += 7 + (hasSize ? 8 : 0);

    // [0, floor..history) what earlier blocks ended with, then this block
    const scratch = new Uint8Array(WINDOW + blockMax);
    let history = 0;
    let frameSize = 0;
    for (;;) {
      const word = reader.u32(at);
      at += 4;
      if (word === 0) break;
      const isStored = word >>> 31 === 1;
      const block = reader.slice(at, word & 0x7fffffff);
      at += block.length + (hasBlockChecksum ? 4 : 0);
      if (isStored && block.length > blockMax) throw damaged("LZ4 data", "a stored block is too large");
      let end: number;
      if (isStored) {
        scratch.set(block, history);
        end = history + block.length;
      } else end = decodeBlock(block, scratch.subarray(0, history + blockMax), history, 0);
      total += end - history;
      frameSize += end - history;
      if (total > maxBytes) throw tooBig();
      parts.push(scratch.slice(history, end));
      if (isLinked) {
        const keep = Math.min(WINDOW, end);
        scratch.copyWithin(0, end - keep, end);
        history = keep;
      }
    }
    if (hasChecksum) at += 4;
    if (statedSize !== undefined && statedSize !== frameSize) {
      throw damaged("LZ4 data", "its unpacked size differs from the size it states");
    }
    if (at > bytes.length) reader.slice(at, 0); // throws: the checksum is missing
  }
  return concatBytes(parts);
}
