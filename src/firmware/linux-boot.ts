/**
 * Direct boot of a Linux kernel: what must be in memory and in the registers when an unpacked vmlinux gets control
 * at its 64-bit entry (Linux, Documentation/x86/boot.rst "64-bit Boot Protocol", zero-page.rst).
 *
 * The kernel was unpacked on the host, so its decompressor does not run; what that would have done for us is done
 * here: the segments are at their physical addresses, and no address randomisation has taken place (the relocations
 * behind the ELF file are not used).
 *
 *     0x1000 GDT   0x2000 zero page   0x3000 command line   0x4000 page tables   0xC000 stack, growing down
 *     0xE0000 ACPI    kernel where it was linked    initrd as high as it may be
 */
import { MAX_RAM_BYTES, type MemoryMap, MIN_RAM_BYTES, memoryMap } from "../machine/memory-map.js";
import { loadableSegments } from "./elf.js";

export interface GuestWrite {
  readonly gpa: number;
  readonly bytes: Uint8Array;
}

export interface LinuxBootOptions {
  /** The bzImage file's bytes from 0x1F1 on, at least to the end of the header. */
  readonly setupHeader: Uint8Array;
  /** The unpacked vmlinux. */
  readonly elf: Uint8Array;
  /** Loaded one after the other, each at a multiple of 4; the kernel unpacks them as one. */
  readonly initrds: readonly Uint8Array[];
  readonly commandLine: string;
  readonly memoryBytes: number;
  /** From acpi/tables. */
  readonly acpi: { readonly rsdp: number; readonly writes: readonly GuestWrite[] };
}

/** Processor state at a 64-bit entry; what is not named is at its reset value. Interrupts are off. */
export interface LinuxBootEntry {
  readonly mode: "long";
  readonly rip: number;
  /** The zero page. */
  readonly rsi: number;
  readonly rsp: number;
  readonly cr0: number;
  readonly cr3: number;
  readonly cr4: number;
  readonly efer: number;
  readonly gdt: { readonly base: number; readonly limit: number };
  /** Flat 64-bit code. */
  readonly cs: number;
  /** Flat data: DS, ES, SS. */
  readonly ds: number;
}

/** Processor state at a 32-bit entry: protected mode without paging, flat segments; the rest as above. */
export interface ProtectedEntry {
  readonly mode: "protected";
  readonly rip: number;
  readonly eax: number;
  readonly ebx: number;
}

export interface LinuxBoot extends BootImage {
  readonly entry: LinuxBootEntry;
}

/** A kernel made ready: what memory must hold, and where the processor starts. */
export interface BootImage {
  /** In order; nothing overlaps. */
  readonly writes: readonly GuestWrite[];
  /** Must be zero: fresh memory is, that of a machine that was reset is not. */
  readonly zeroes: readonly { readonly gpa: number; readonly lengthBytes: number }[];
  readonly entry: LinuxBootEntry | ProtectedEntry;
}

export type BootErrorCode =
  | "bad-kernel"
  | "kernel-too-old"
  | "command-line-too-long"
  | "not-enough-memory"
  | "bad-memory-size";

/** The user's mistake or the image's: what is wrong, and what to try next. */
export class BootError extends Error {
  override readonly name = "BootError";
  readonly code: BootErrorCode;
  readonly hint: string;

  constructor(code: BootErrorCode, message: string, hint: string) {
    super(message);
    this.code = code;
    this.hint = hint;
  }
}

const GDT = 0x1000;
const ZERO_PAGE = 0x2000;
const COMMAND_LINE = 0x3000;
const PAGE_TABLES = 0x4000;
const STACK_TOP = 0xc000;

const CODE_SELECTOR = 0x10;
const DATA_SELECTOR = 0x18;

/** Offsets in the zero page, which are those in the bzImage file for the setup header. */
const Zero = {
  RSDP: 0x70,
  E820_COUNT: 0x1e8,
  HEADER: 0x1f1,
  BOOT_FLAG: 0x1fe,
  JUMP_LENGTH: 0x201,
  MAGIC: 0x202,
  VERSION: 0x206,
  LOADER: 0x210,
  LOAD_FLAGS: 0x211,
  RAMDISK_IMAGE: 0x218,
  RAMDISK_SIZE: 0x21c,
  COMMAND_LINE: 0x228,
  RAMDISK_MAX: 0x22c,
  COMMAND_LINE_SIZE: 0x238,
  INIT_SIZE: 0x260,
  E820_TABLE: 0x2d0,
} as const;

const HDRS = 0x5372_6448; // "HdrS"
const VERSION_64BIT_ENTRY = 0x020c;
const LOADER_UNKNOWN = 0xff;
const LOADED_HIGH = 1;
/** Set by the decompressor when it has moved the kernel; must not be set by us. */
const KASLR_FLAG = 2;
const MIB = 0x10_0000;

/** @throws BootError */
export function prepareLinuxBoot(o: LinuxBootOptions): LinuxBoot {
  checkMemorySize(o.memoryBytes);
  const header = checkedHeader(o.setupHeader);
  const field = (offset: number) => new DataView(header.buffer).getUint32(offset - Zero.HEADER, true);

  const kernel = loadableSegments(o.elf);
  if (kernel === undefined) {
    throw new BootError("bad-kernel", "the unpacked kernel is not a 64-bit x86 ELF file", "use an x86-64 kernel image");
  }
  const commandLine = checkedCommandLine(o.commandLine, field(Zero.COMMAND_LINE_SIZE));
  const kernelStart = Math.min(...kernel.segments.map((s) => s.gpa));
  // The kernel uses a little beyond its segments early on (its brk area): the header's init size counts that.
  const kernelEnd = Math.max(kernelStart + field(Zero.INIT_SIZE), ...kernel.segments.map((s) => s.gpa + s.memoryBytes));
  if (kernelStart < MIB) {
    throw new BootError("bad-kernel", "the kernel is linked below 1 MiB", "use a distribution's kernel image");
  }

  const initrd = placeInitrds(o, kernelEnd, field(Zero.RAMDISK_MAX));
  const map = memoryMap(o.memoryBytes);
  const zeroPage = buildZeroPage(header, map, o.acpi.rsdp, initrd);

  return {
    writes: [
      { gpa: GDT, bytes: gdt() },
      { gpa: ZERO_PAGE, bytes: zeroPage },
      { gpa: COMMAND_LINE, bytes: commandLine },
      { gpa: PAGE_TABLES, bytes: identityMap() },
      ...o.acpi.writes,
      ...kernel.segments.filter((s) => s.bytes.length > 0).map((s) => ({ gpa: s.gpa, bytes: s.bytes })),
      ...initrd.writes,
    ],
    zeroes: kernel.segments
      .filter((s) => s.memoryBytes > s.bytes.length)
      .map((s) => ({ gpa: s.gpa + s.bytes.length, lengthBytes: s.memoryBytes - s.bytes.length }))
      .concat(initrd.zeroes),
    entry: {
      mode: "long",
      rip: kernel.entry,
      rsi: ZERO_PAGE,
      rsp: STACK_TOP,
      cr0: 0x8000_0011, // PG, ET, PE
      cr3: PAGE_TABLES,
      cr4: 0x20, // PAE
      efer: 0xd01, // NXE, LMA, LME, SCE
      gdt: { base: GDT, limit: 31 },
      cs: CODE_SELECTOR,
      ds: DATA_SELECTOR,
    },
  };
}

export function checkMemorySize(bytes: number): void {
  if (bytes >= MIN_RAM_BYTES && bytes <= MAX_RAM_BYTES && bytes % MIB === 0) return;
  throw new BootError(
    "bad-memory-size",
    `a guest cannot have ${bytes / MIB} MiB of memory`,
    `give it a whole number of MiB, from ${MIN_RAM_BYTES / MIB} to ${MAX_RAM_BYTES / MIB} (--memory 512M)`,
  );
}

/** A copy of the setup header, cut at its end, which the length of the jump at its start tells. */
function checkedHeader(bytes: Uint8Array): Uint8Array {
  const end = Zero.MAGIC + (bytes[Zero.JUMP_LENGTH - Zero.HEADER] ?? 0);
  const header = Uint8Array.from(bytes.subarray(0, end - Zero.HEADER)); // not slice(): that of a Buffer is no copy
  const view = new DataView(header.buffer);
  const whole = header.length === end - Zero.HEADER && end >= Zero.INIT_SIZE + 4;
  const at = (offset: number) => offset - Zero.HEADER;
  if (!whole || view.getUint16(at(Zero.BOOT_FLAG), true) !== 0xaa55 || view.getUint32(at(Zero.MAGIC), true) !== HDRS) {
    throw new BootError("bad-kernel", "this is not a bzImage: no setup header", "give the distribution's vmlinuz file");
  }
  if (view.getUint16(at(Zero.VERSION), true) < VERSION_64BIT_ENTRY) {
    throw new BootError("kernel-too-old", "the kernel has no 64-bit entry", "use Linux 3.8 or later for x86-64");
  }
  return header;
}

function checkedCommandLine(text: string, limit: number): Uint8Array {
  const bytes = new TextEncoder().encode(text);
  const room = Math.min(limit, PAGE_TABLES - COMMAND_LINE - 1);
  if (bytes.length > room) {
    throw new BootError(
      "command-line-too-long",
      `the kernel command line has ${bytes.length} bytes; this kernel takes ${room}`,
      "pass less with --append",
    );
  }
  const out = new Uint8Array(bytes.length + 1);
  out.set(bytes);
  return out;
}

interface PlacedInitrds {
  readonly gpa: number;
  readonly lengthBytes: number;
  readonly writes: readonly GuestWrite[];
  readonly zeroes: { gpa: number; lengthBytes: number }[];
}

/** As high as memory and the kernel allow, so that it is out of the way of what the kernel allocates early. */
function placeInitrds(o: LinuxBootOptions, kernelEnd: number, highest: number): PlacedInitrds {
  const length = o.initrds.reduce((n, initrd) => align(n, 4) + initrd.length, 0);
  const top = Math.min(o.memoryBytes, highest + 1);
  const gpa = Math.floor((top - length) / 0x1000) * 0x1000;
  if (kernelEnd > o.memoryBytes || gpa < kernelEnd) {
    const needMiB = Math.ceil((align(kernelEnd, 0x1000) + align(length, 0x1000)) / MIB) + UNPACKING_ROOM_MIB;
    throw new BootError(
      "not-enough-memory",
      `${Math.floor(o.memoryBytes / MIB)} MiB of memory do not hold the kernel and its initial file system`,
      `give the guest at least ${needMiB} MiB (--memory ${needMiB}M)`,
    );
  }
  const writes: GuestWrite[] = [];
  const zeroes: { gpa: number; lengthBytes: number }[] = [];
  let at = 0;
  for (const bytes of o.initrds) {
    if (at % 4 !== 0) zeroes.push({ gpa: gpa + at, lengthBytes: align(at, 4) - at });
    at = align(at, 4);
    writes.push({ gpa: gpa + at, bytes });
    at += bytes.length;
  }
  return { gpa: length === 0 ? 0 : gpa, lengthBytes: length, writes, zeroes };
}

/** What Linux needs beside the loaded images to come up at all, for the hint only. */
const UNPACKING_ROOM_MIB = 32;

function buildZeroPage(header: Uint8Array, map: MemoryMap, rsdp: number, initrd: PlacedInitrds): Uint8Array {
  const page = new Uint8Array(0x1000);
  const view = new DataView(page.buffer);
  page.set(header, Zero.HEADER);
  view.setUint32(Zero.RSDP, rsdp, true);
  page[Zero.LOADER] = LOADER_UNKNOWN;
  page[Zero.LOAD_FLAGS] = (page[Zero.LOAD_FLAGS]! | LOADED_HIGH) & ~KASLR_FLAG;
  view.setUint32(Zero.RAMDISK_IMAGE, initrd.gpa, true);
  view.setUint32(Zero.RAMDISK_SIZE, initrd.lengthBytes, true);
  view.setUint32(Zero.COMMAND_LINE, COMMAND_LINE, true);
  page[Zero.E820_COUNT] = map.e820.length;
  map.e820.forEach((entry, i) => {
    const at = Zero.E820_TABLE + 20 * i; // the high halves stay 0: all RAM is below 4 GiB
    view.setUint32(at, entry.base, true);
    view.setUint32(at + 8, entry.lengthBytes, true);
    view.setUint32(at + 16, entry.type, true);
  });
  return page;
}

/** Two null descriptors, flat 64-bit code, flat data; both marked accessed, so that loading them writes nothing. */
function gdt(): Uint8Array {
  const words = new Uint32Array([0, 0, 0, 0, 0x0000_ffff, 0x00af_9b00, 0x0000_ffff, 0x00cf_9300]);
  return new Uint8Array(words.buffer);
}

/** PML4, one PDPT, four directories of 2 MiB pages: the first 4 GiB, present, writable. */
function identityMap(): Uint8Array {
  const PRESENT_WRITABLE = 3;
  const LARGE = 0x80;
  const words = new Uint32Array((6 * 0x1000) / 4);
  const entry = (table: number, index: number, value: number) => {
    words[table * 0x400 + index * 2] = value;
  };
  entry(0, 0, (PAGE_TABLES + 0x1000) | PRESENT_WRITABLE);
  for (let gib = 0; gib < 4; gib++) {
    entry(1, gib, (PAGE_TABLES + 0x2000 + gib * 0x1000) | PRESENT_WRITABLE);
    for (let i = 0; i < 512; i++) entry(2 + gib, i, (gib * 0x4000_0000 + i * 0x20_0000) | PRESENT_WRITABLE | LARGE);
  }
  return new Uint8Array(words.buffer);
}

function align(value: number, to: number): number {
  return Math.ceil(value / to) * to;
}
