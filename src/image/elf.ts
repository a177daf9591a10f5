/** ELF files (System V ABI), of 32 and 64 bits and both byte orders: headers, sections, and what a loader looks up. */
import { ByteReader, hasBytes } from "./byte-reader.js";
import { damaged, ImageError } from "./errors.js";

export interface ElfSection {
  readonly name: string;
  readonly type: number;
  readonly flags: number;
  readonly offset: number;
  readonly size: number;
}

export interface ElfSegment {
  readonly type: number;
  readonly offset: number;
  readonly fileSize: number;
  readonly virtualAddress: number;
  readonly physicalAddress: number;
  readonly memorySize: number;
}

export interface Elf {
  readonly bits: 32 | 64;
  readonly isLittleEndian: boolean;
  /** ET_*: 1 relocatable, 2 executable, 3 shared or position independent. */
  readonly type: number;
  /** EM_* number. */
  readonly machine: number;
  readonly segments: readonly ElfSegment[];
  readonly sections: readonly ElfSection[];
}

export const ElfMachine = {
  I386: 3,
  PPC: 20,
  PPC64: 21,
  S390: 22,
  ARM: 40,
  X86_64: 62,
  AARCH64: 183,
  RISCV: 243,
  LOONGARCH: 258,
} as const;

export const SegmentType = { Load: 1, Dynamic: 2, Interpreter: 3, Note: 4 } as const;
const SECTION_NO_BITS = 8;
const Dynamic = { Null: 0, Needed: 1, StringTable: 5 } as const;

export const isElf = (bytes: Uint8Array): boolean => hasBytes(bytes, 0, "\x7fELF");

export function readElf(bytes: Uint8Array): Elf {
  if (!isElf(bytes)) throw new ImageError("not-elf", "this is no ELF file", "give an ELF executable or module");
  const reader = new ByteReader(bytes, "ELF file");
  const bits = reader.u8(4) === 1 ? 32 : 64;
  const isLittleEndian = reader.u8(5) !== 2;
  const is64 = bits === 64;
  const u16 = (at: number): number => reader.u16(at, isLittleEndian);
  const u32 = (at: number): number => reader.u32(at, isLittleEndian);
  /** An address-sized number. Kernel addresses use the top bits: these are wanted only modulo 2^53, never as offsets. */
  const word = (at: number): number => {
    if (!is64) return u32(at);
    const [low, high] = isLittleEndian ? [u32(at), u32(at + 4)] : [u32(at + 4), u32(at)];
    return high * 2 ** 32 + low;
  };
  const step = is64 ? 8 : 4;

  const afterEntry = 24 + step; // e_phoff
  const segmentsAt = word(afterEntry);
  const sectionsAt = word(afterEntry + step);
  const counts = afterEntry + 2 * step + 6; // e_phentsize
  const segmentSize = u16(counts);
  const segmentCount = u16(counts + 2);
  const sectionSize = u16(counts + 4);
  const sectionCount = u16(counts + 6);
  const namesIndex = u16(counts + 8);

  const segments: ElfSegment[] = [];
  for (let i = 0; i < segmentCount; i++) {
    const at = segmentsAt + i * segmentSize;
    const segment = is64
      ? {
          offset: word(at + 8),
          virtualAddress: word(at + 16),
          physicalAddress: word(at + 24),
          fileSize: word(at + 32),
          memorySize: word(at + 40),
        }
      : {
          offset: u32(at + 4),
          virtualAddress: u32(at + 8),
          physicalAddress: u32(at + 12),
          fileSize: u32(at + 16),
          memorySize: u32(at + 20),
        };
    reader.slice(segment.offset, segment.fileSize);
    segments.push({ type: u32(at), ...segment });
  }

  const rows: { nameAt: number; section: Omit<ElfSection, "name"> }[] = [];
  for (let i = 0; i < (sectionsAt === 0 ? 0 : sectionCount); i++) {
    const at = sectionsAt + i * sectionSize;
    const body = at + 8 + 2 * step; // past name, type, flags, address
    const section = { type: u32(at + 4), flags: word(at + 8), offset: word(body), size: word(body + step) };
    if (section.type !== SECTION_NO_BITS) reader.slice(section.offset, section.size);
    rows.push({ nameAt: u32(at), section });
  }
  const names = rows[namesIndex]?.section;
  if (rows.length > 0 && names === undefined && namesIndex !== 0) throw damaged("ELF file", "it has no section names");
  const sections = rows.map(({ nameAt, section }) => {
    const isNamed = names !== undefined && names.type !== SECTION_NO_BITS && nameAt < names.size;
    return { name: isNamed ? reader.text(names.offset + nameAt, names.size - nameAt) : "", ...section };
  });
  return { bits, isLittleEndian, type: u16(16), machine: u16(18), segments, sections };
}

/** The bytes of the named section, or undefined. */
export function sectionBytes(elf: Elf, bytes: Uint8Array, name: string): Uint8Array | undefined {
  const section = elf.sections.find((s) => s.name === name && s.type !== SECTION_NO_BITS);
  return section === undefined ? undefined : bytes.subarray(section.offset, section.offset + section.size);
}

/** What a dynamically linked 64-bit program wants loaded: its interpreter and the names of its libraries. */
export function readElfNeeds(bytes: Uint8Array): { interpreter: string | undefined; libraries: string[] } {
  const elf = readElf(bytes);
  const reader = new ByteReader(bytes, "ELF file");
  const u64 = (at: number): number => reader.u64(at, elf.isLittleEndian);
  const interpreterSegment = elf.segments.find(({ type }) => type === SegmentType.Interpreter);
  const interpreter =
    interpreterSegment === undefined ? undefined : reader.text(interpreterSegment.offset, interpreterSegment.fileSize);
  const dynamic = elf.segments.find(({ type }) => type === SegmentType.Dynamic);
  const libraries: string[] = [];
  if (dynamic === undefined || elf.bits !== 64) return { interpreter, libraries };

  const nameOffsets: number[] = [];
  let stringsAddress: number | undefined;
  for (let at = dynamic.offset; at + 16 <= dynamic.offset + dynamic.fileSize; at += 16) {
    const tag = reader.u32(at, elf.isLittleEndian);
    if (tag === Dynamic.Null) break;
    if (tag === Dynamic.Needed) nameOffsets.push(u64(at + 8));
    if (tag === Dynamic.StringTable) stringsAddress = u64(at + 8);
  }
  if (nameOffsets.length === 0 || stringsAddress === undefined) return { interpreter, libraries };
  const address = stringsAddress;
  const home = elf.segments.find(
    (s) => s.type === SegmentType.Load && address >= s.virtualAddress && address < s.virtualAddress + s.fileSize,
  );
  if (home === undefined) throw damaged("ELF file", "its string table lies outside its segments");
  const strings = home.offset + (address - home.virtualAddress);
  const end = home.offset + home.fileSize;
  for (const offset of nameOffsets) libraries.push(reader.text(strings + offset, Math.max(0, end - strings - offset)));
  return { interpreter, libraries };
}
