/**
 * Linux bzImage files (Linux, Documentation/x86/boot.rst): the setup header, the kernel's version, and the ELF kernel
 * inside, unpacked. A compiled kernel's own decompressor takes long on an emulated processor; on the host it is quick.
 */
import { ByteReader, hasBytes } from "./byte-reader.js";
import { type Compression, compressionOf, decompress } from "./compression.js";
import { isElf, readElf, SegmentType } from "./elf.js";
import { damaged, ImageError, truncated, unsupported } from "./errors.js";

/** Offsets of the setup header, in the file as in the zero page. */
const Setup = {
  START: 0x1f1,
  SECTORS: 0x1f1,
  BOOT_FLAG: 0x1fe,
  JUMP: 0x201,
  MAGIC: 0x202,
  VERSION: 0x206,
  KERNEL_VERSION: 0x20e,
  LOAD_FLAGS: 0x211,
  INITRD_MAX: 0x22c,
  ALIGNMENT: 0x230,
  RELOCATABLE: 0x234,
  XLOADFLAGS: 0x236,
  COMMAND_LINE_SIZE: 0x238,
  PAYLOAD_OFFSET: 0x248,
  PAYLOAD_LENGTH: 0x24c,
  PREFERRED_ADDRESS: 0x258,
  INIT_SIZE: 0x260,
} as const;

const BOOT_FLAG = 0xaa55;
/** The protocol that brought the payload's place (2.08) and the 64-bit entry (2.12). */
const VERSION_WITH_PAYLOAD = 0x0208;
const VERSION_64_BIT = 0x020c;
const XLF_KERNEL_64 = 1;
/** Far above any kernel's unpacked size. */
const MAX_KERNEL = 512 << 20;

export interface BzImageHeader {
  /** File bytes from 0x1F1 to the header's end, to be copied into the zero page. */
  readonly setupHeader: Uint8Array;
  /** Boot protocol, 0x020F for 2.15. */
  readonly protocol: number;
  /** "6.1.0-56-cloud-amd64 (debian-kernel@...) #1 SMP ...", or "" when the image names none. */
  readonly versionText: string;
  /** Its first word. */
  readonly version: string;
  readonly is64Bit: boolean;
  readonly isRelocatable: boolean;
  readonly alignment: number;
  readonly preferredAddress: number;
  /** RAM needed from the load address on. */
  readonly initSize: number;
  readonly commandLineSize: number;
  readonly initrdMax: number;
  /** Where the protected-mode part starts in the file. */
  readonly protectedModeOffset: number;
}

export interface KernelImage extends BzImageHeader {
  /** The vmlinux ELF; what follows it in the payload (relocations) is in `relocations`. */
  readonly elf: Uint8Array;
  /** 32-bit relocation words that a build with KASLR appends; empty without. */
  readonly relocations: Uint8Array;
  readonly compression: Compression;
  /** 32-bit physical entry of the PVH note (ELF note "Xen", type 18), when there is one. */
  readonly pvhEntry: number | undefined;
}

export const isBzImage = (bytes: Uint8Array): boolean =>
  hasBytes(bytes, Setup.MAGIC, "HdrS") && hasBytes(bytes, Setup.BOOT_FLAG, [0x55, 0xaa]);

export function readBzImageHeader(bytes: Uint8Array): BzImageHeader {
  const reader = new ByteReader(bytes, "Linux kernel");
  if (!isBzImage(bytes)) {
    if (bytes.length < Setup.MAGIC + 4 && bytes.length > 0) throw truncated("Linux kernel");
    throw new ImageError("not-bzimage", "this is no Linux bzImage", "give the file that distributions name vmlinuz");
  }
  if (reader.u16(Setup.BOOT_FLAG) !== BOOT_FLAG) throw damaged("Linux kernel", "its boot flag is missing");
  const protocol = reader.u16(Setup.VERSION);
  if (protocol < VERSION_WITH_PAYLOAD) {
    throw unsupported(`the kernel speaks boot protocol 0x${protocol.toString(16)}`, "use Linux 2.6.26 or later");
  }
  const end = Setup.MAGIC + reader.u8(Setup.JUMP);
  const has64BitFields = protocol >= VERSION_64_BIT;
  const protectedModeOffset = ((reader.u8(Setup.SECTORS) || 4) + 1) * 512;
  if (end > protectedModeOffset || end < Setup.INIT_SIZE) throw damaged("Linux kernel", "its header's size is wrong");

  // The pointer is relative to the boot sector's end.
  const versionAt = reader.u16(Setup.KERNEL_VERSION);
  const versionText =
    versionAt === 0 ? "" : reader.text(versionAt + 0x200, Math.min(512, Math.max(0, bytes.length - versionAt - 0x200)));
  return {
    setupHeader: reader.slice(Setup.START, end - Setup.START),
    protocol,
    versionText,
    version: versionText.split(" ")[0]!,
    is64Bit: has64BitFields && (reader.u16(Setup.XLOADFLAGS) & XLF_KERNEL_64) !== 0,
    isRelocatable: reader.u8(Setup.RELOCATABLE) !== 0,
    alignment: reader.u32(Setup.ALIGNMENT),
    preferredAddress: protocol >= 0x020a ? reader.u64(Setup.PREFERRED_ADDRESS) : 0,
    initSize: protocol >= 0x020a ? reader.u32(Setup.INIT_SIZE) : 0,
    commandLineSize: reader.u32(Setup.COMMAND_LINE_SIZE),
    initrdMax: reader.u32(Setup.INITRD_MAX),
    protectedModeOffset,
  };
}

/** Where the ELF file ends: its last segment, section or header table. */
function elfEnd(bytes: Uint8Array): number {
  const elf = readElf(bytes);
  const reader = new ByteReader(bytes, "Linux kernel");
  const is64 = elf.bits === 64;
  const tableAt = is64 ? reader.u64(40) : reader.u32(32);
  const tableSize = reader.u16(is64 ? 58 : 46) * reader.u16(is64 ? 60 : 48);
  const ends = [
    ...elf.segments.map(({ offset, fileSize }) => offset + fileSize),
    ...elf.sections.filter(({ type }) => type !== 8).map(({ offset, size }) => offset + size),
    tableAt + tableSize,
  ];
  return Math.min(bytes.length, Math.max(...ends));
}

export function findPvhEntry(bytes: Uint8Array): number | undefined {
  const reader = new ByteReader(bytes, "Linux kernel");
  const NOTE_PHYS32_ENTRY = 18;
  for (const segment of readElf(bytes).segments) {
    if (segment.type !== SegmentType.Note) continue;
    const end = segment.offset + segment.fileSize;
    for (let at = segment.offset; at + 12 <= end; ) {
      const nameSize = reader.u32(at);
      const size = reader.u32(at + 4);
      const dataAt = at + 12 + Math.ceil(nameSize / 4) * 4;
      if (dataAt + size > end) break;
      const isXen = nameSize === 4 && reader.text(at + 12, 4) === "Xen";
      if (isXen && reader.u32(at + 8) === NOTE_PHYS32_ENTRY && size >= 4) return reader.u32(dataAt);
      at = dataAt + Math.ceil(size / 4) * 4;
    }
  }
  return undefined;
}

/** Reads the header and unpacks the kernel. */
export async function readKernelImage(bytes: Uint8Array): Promise<KernelImage> {
  const header = readBzImageHeader(bytes);
  const reader = new ByteReader(bytes, "Linux kernel");
  const payloadAt = header.protectedModeOffset + reader.u32(Setup.PAYLOAD_OFFSET);
  const payload = reader.slice(payloadAt, reader.u32(Setup.PAYLOAD_LENGTH));
  const compression = compressionOf(payload);
  let kernel: Uint8Array;
  if (compression === "none") kernel = payload;
  else {
    // All but gzip, which has it itself, are followed by the unpacked size.
    const statedSize = new ByteReader(payload, "Linux kernel").u32(payload.length - 4);
    const packed = compression === "gzip" ? payload : payload.subarray(0, -4);
    if (statedSize > MAX_KERNEL) throw damaged("Linux kernel", "it states an impossible unpacked size");
    kernel = await decompress(packed, MAX_KERNEL, statedSize);
    if (kernel.length !== statedSize) {
      throw damaged("Linux kernel", "its unpacked size differs from the size it states");
    }
  }
  if (!isElf(kernel)) throw damaged("Linux kernel", "what it unpacks to is no ELF file");
  const end = elfEnd(kernel);
  const elf = kernel.subarray(0, end);
  return { ...header, elf, relocations: kernel.subarray(end), compression, pvhEntry: findPvhEntry(elf) };
}
