/**
 * xz files ("The .xz File Format" 1.1). LZMA2 itself is decoded by the `xz-decompress` package (Wasm), which knows
 * neither the BCJ filters that Linux kernels are packed with nor SHA-256 checks. So the container is read here: each
 * block is handed over as a plain xz file without check, and the filter and the check are done here.
 */
import xz from "xz-decompress";
import { ByteReader, concatBytes, hasBytes } from "./byte-reader.js";
import { crc32, crc64 } from "./checksum.js";
import { damaged, ImageError, unsupported } from "./errors.js";
import { readAll, streamOf } from "./streams.js";

const HEADER_MAGIC = [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00];
const FOOTER_MAGIC = "YZ";
const CHECK_SIZES = [0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64];
const Check = { None: 0, Crc32: 1, Crc64: 4, Sha256: 10 } as const;
const Filter = { X86: 4, Lzma2: 0x21 } as const;

interface Block {
  /** Filters of the block but for the closing LZMA2, in the order of packing. */
  readonly filters: readonly { readonly id: number; readonly startOffset: number }[];
  readonly lzma2Properties: number;
  readonly packed: Uint8Array;
  readonly check: Uint8Array;
  readonly unpackedSize: number;
}

interface Stream {
  readonly checkType: number;
  readonly blocks: readonly Block[];
}

/** A variable-length integer: seven bits a byte, lowest first. */
function variableInteger(reader: ByteReader, at: number): { value: number; next: number } {
  let value = 0;
  for (let i = 0; i < 8; i++) {
    const byte = reader.u8(at + i);
    value += (byte & 0x7f) * 2 ** (7 * i);
    if (byte < 0x80) {
      if (value > Number.MAX_SAFE_INTEGER) break;
      return { value, next: at + i + 1 };
    }
  }
  throw damaged("xz data", "a number is too long");
}

function readBlock(reader: ByteReader, at: number, unpadded: number, unpackedSize: number, checkSize: number): Block {
  const headerSize = (reader.u8(at) + 1) * 4;
  if (headerSize === 4 || headerSize + checkSize > unpadded) throw damaged("xz data", "a block header is too long");
  if (crc32(reader.slice(at, headerSize - 4)) !== reader.u32(at + headerSize - 4)) {
    throw damaged("xz data", "a block header's checksum is wrong");
  }
  const flags = reader.u8(at + 1);
  let field = at + 2;
  if (flags & 0x40) field = variableInteger(reader, field).next; // packed size: the index has it
  if (flags & 0x80) field = variableInteger(reader, field).next;
  const filters: { id: number; startOffset: number }[] = [];
  let lzma2Properties: number | undefined;
  for (let i = 0; i <= (flags & 3); i++) {
    const id = variableInteger(reader, field);
    const size = variableInteger(reader, id.next);
    if (size.next + size.value > at + headerSize - 4) throw damaged("xz data", "a filter runs past its header");
    if (id.value === Filter.Lzma2) lzma2Properties = reader.u8(size.next);
    else filters.push({ id: id.value, startOffset: size.value >= 4 ? reader.u32(size.next) : 0 });
    field = size.next + size.value;
  }
  if (lzma2Properties === undefined) throw unsupported("the xz data is not packed with LZMA2", "repack it with xz");
  const packedSize = unpadded - headerSize - checkSize;
  const packedAt = at + headerSize;
  return {
    filters,
    lzma2Properties,
    packed: reader.slice(packedAt, packedSize),
    check: reader.slice(packedAt + packedSize + (-packedSize & 3), checkSize),
    unpackedSize,
  };
}

/** Reads the stream that ends at `end`; returns where it starts. */
function readStream(reader: ByteReader, end: number): { stream: Stream; start: number } {
  const footer = end - 12;
  if (footer < 12 || !hasBytes(reader.bytes, end - 2, FOOTER_MAGIC)) throw damaged("xz data", "it has no end mark");
  if (crc32(reader.slice(footer + 4, 6)) !== reader.u32(footer)) throw damaged("xz data", "its footer is wrong");
  const indexSize = (reader.u32(footer + 4) + 1) * 4;
  const index = footer - indexSize;
  const checkType = reader.u8(footer + 9) & 15;
  const checkSize = CHECK_SIZES[checkType]!;
  if (crc32(reader.slice(index, indexSize - 4)) !== reader.u32(footer - 4) || reader.u8(index) !== 0) {
    throw damaged("xz data", "its index is wrong");
  }
  const count = variableInteger(reader, index + 1);
  if (count.value > indexSize / 2) throw damaged("xz data", "its index states too many blocks");
  const sizes: { unpadded: number; unpacked: number }[] = [];
  let total = 0;
  for (let i = 0, at = count.next; i < count.value; i++) {
    const unpadded = variableInteger(reader, at);
    const unpacked = variableInteger(reader, unpadded.next);
    if (unpacked.next > footer - 4) throw damaged("xz data", "its index is too short");
    sizes.push({ unpadded: unpadded.value, unpacked: unpacked.value });
    total += Math.ceil(unpadded.value / 4) * 4;
    at = unpacked.next;
  }
  const start = index - total - 12;
  if (start < 0 || !hasBytes(reader.bytes, start, HEADER_MAGIC)) throw damaged("xz data", "its index is wrong");
  if (reader.u16(start + 6) !== reader.u16(footer + 8)) throw damaged("xz data", "header and footer differ");
  let at = start + 12;
  const blocks = sizes.map(({ unpadded, unpacked }) => {
    const block = readBlock(reader, at, unpadded, unpacked, checkSize);
    at += Math.ceil(unpadded / 4) * 4;
    return block;
  });
  return { stream: { checkType, blocks }, start };
}

function littleEndian32(value: number): Uint8Array {
  return Uint8Array.of(value, value >>> 8, value >>> 16, value >>> 24);
}

function variableBytes(value: number): Uint8Array {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return Uint8Array.from([...bytes, rest]);
    bytes.push((rest % 128) | 0x80);
  }
}

/** The block's LZMA2 data as an xz file of its own, without filters and check. */
function asPlainFile(block: Block): Uint8Array<ArrayBuffer> {
  const flags = Uint8Array.of(0, Check.None);
  const blockHeader = Uint8Array.of(2, 0, Filter.Lzma2, 1, block.lzma2Properties, 0, 0, 0);
  const unpadded = 12 + block.packed.length;
  const records = concatBytes([Uint8Array.of(0, 1), variableBytes(unpadded), variableBytes(block.unpackedSize)]);
  const index = concatBytes([records, new Uint8Array(-records.length & 3)]);
  const footer = concatBytes([littleEndian32((index.length + 4) / 4 - 1), flags]);
  return concatBytes([
    Uint8Array.from(HEADER_MAGIC),
    flags,
    littleEndian32(crc32(flags)),
    blockHeader,
    littleEndian32(crc32(blockHeader)),
    block.packed,
    new Uint8Array(-block.packed.length & 3),
    index,
    littleEndian32(crc32(index)),
    littleEndian32(crc32(footer)),
    footer,
    Uint8Array.from([...FOOTER_MAGIC].map((c) => c.charCodeAt(0))),
  ]);
}

/**
 * Undoes the x86 branch filter: relative targets of CALL (E8) and JMP (E9) were made absolute before packing.
 *
 * `marks` has one bit for each of the three bytes before an opcode that looked like an opcode too but was left alone
 * (bit 0 the nearest). Such bytes overlap this opcode's operand in the encoder's eyes, so the encoder treated the
 * operand byte at that place with care, and the decoder has to mirror it.
 */
export function unfilterX86(data: Uint8Array, startOffset: number): void {
  const isSignByte = (byte: number): boolean => byte === 0 || byte === 0xff;
  let marks = 0;
  let last = -1;
  for (let at = 0; at < data.length - 4; at++) {
    if ((data[at]! & 0xfe) !== 0xe8) continue;
    const distance = at - last;
    last = at;
    marks = distance > 3 ? 0 : (marks << (distance - 1)) & 7;
    const nearest = 32 - Math.clz32(marks); // 0: no mark; else how many bytes below the operand's top one
    const isOneMarkAtMost = (marks & (marks - 1)) === 0;
    const isBlocked = marks !== 0 && (!isOneMarkAtMost || isSignByte(data[at + 4 - nearest]!));
    if (isBlocked || !isSignByte(data[at + 4]!)) {
      marks = (marks << 1) | 1;
      continue;
    }
    const operand = data[at + 1]! | (data[at + 2]! << 8) | (data[at + 3]! << 16) | (data[at + 4]! << 24);
    const here = startOffset + at + 5;
    let target = (operand - here) | 0;
    // The encoder keeps the cared-for byte from turning into a sign byte by one more round on the flipped low part.
    if (marks !== 0 && isSignByte((target >>> (24 - 8 * nearest)) & 0xff)) {
      target = ((target ^ (2 ** (32 - 8 * nearest) - 1)) - here) | 0;
    }
    data[at + 1] = target;
    data[at + 2] = target >>> 8;
    data[at + 3] = target >>> 16;
    data[at + 4] = target & 0x1000000 ? 0xff : 0;
    at += 4;
  }
}

async function checkBlock(type: number, data: Uint8Array<ArrayBuffer>, check: Uint8Array): Promise<void> {
  const view = new ByteReader(check, "xz check");
  let isRight = true;
  if (type === Check.Crc32) isRight = crc32(data) === view.u32(0);
  else if (type === Check.Crc64) {
    const [low, high] = crc64(data);
    isRight = low === view.u32(0) && high === view.u32(4);
  } else if (type === Check.Sha256) {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
    isRight = digest.every((byte, i) => byte === check[i]);
  } else if (type !== Check.None) throw unsupported(`the xz data has check type ${type}`, "repack it with xz -C crc32");
  if (!isRight) throw damaged("xz data", "its checksum is wrong");
}

async function unpackLzma2(file: Uint8Array<ArrayBuffer>, unpackedSize: number): Promise<Uint8Array<ArrayBuffer>> {
  let data: Uint8Array<ArrayBuffer>;
  try {
    data = await readAll(new xz.XzReadableStream(streamOf(file)), unpackedSize, "xz data");
  } catch (error) {
    if (error instanceof ImageError) throw error;
    throw damaged("xz data", "it cannot be unpacked");
  }
  if (data.length !== unpackedSize) throw damaged("xz data", "its unpacked size differs from the size it states");
  return data;
}

export async function unpackXz(bytes: Uint8Array, maxBytes: number): Promise<Uint8Array> {
  const reader = new ByteReader(bytes, "xz data");
  const streams: Stream[] = [];
  for (let end = bytes.length; end > 0; ) {
    // Between streams and at the end there may be padding, in zero words.
    if (end >= 4 && hasBytes(bytes, end - 4, [0, 0, 0, 0])) {
      end -= 4;
      continue;
    }
    const { stream, start } = readStream(reader, end);
    streams.unshift(stream);
    end = start;
  }
  const blocks = streams.flatMap(({ checkType, blocks }) => blocks.map((block) => ({ ...block, checkType })));
  const total = blocks.reduce((sum, block) => sum + block.unpackedSize, 0);
  if (total > maxBytes) {
    throw new ImageError("too-big", `the xz data unpacks to ${total} bytes`, "check that this is the file you meant");
  }

  if (blocks.length === 0) return new Uint8Array(0);
  // The package checks CRCs itself, and one file is quicker than many.
  const isPlain = blocks.every(({ filters, checkType }) => filters.length === 0 && checkType !== Check.Sha256);
  if (isPlain && streams.length === 1) return unpackLzma2(Uint8Array.from(bytes), total);

  const parts: Uint8Array[] = [];
  for (const block of blocks) {
    const data = await unpackLzma2(asPlainFile(block), block.unpackedSize);
    for (const filter of block.filters.toReversed()) {
      if (filter.id !== Filter.X86) {
        throw unsupported(`the xz data uses filter ${filter.id}`, "repack it with xz --x86 or without a filter");
      }
      unfilterX86(data, filter.startOffset);
    }
    await checkBlock(block.checkType, data, block.check);
    parts.push(data);
  }
  return parts.length === 1 ? parts[0]! : concatBytes(parts);
}
