/**
 * Boot of a multiboot kernel (Multiboot Specification 0.6.96): an ELF file of 32 or 64 bits, or a plain image whose header says
 * where it goes. It starts in 32-bit protected mode, with a description of the machine.
 *
 *     0x9000 information, command line, names, module list, memory map    kernel where it was linked    modules behind it
 */
import { memoryMap } from "../machine/memory-map.js";
import { type ElfImage, loadableSegments, loadableSegments32 } from "./elf.js";
import { BootError, type BootImage, checkMemorySize, type GuestWrite } from "./linux-boot.js";

const HEADER_MAGIC = 0x1badb002;
/** In EAX at the entry. */
const LOADER_MAGIC = 0x2badb002;
const HEADER_SEARCH = 8192;
/** Header flags: the address fields are there; what is needed and we do not have. */
const HAS_ADDRESSES = 1 << 16;
const NEEDS_VIDEO = 1 << 2;
const NEEDS_UNKNOWN = 0xfff8;

const INFO = 0x9000;
const INFO_END = 0x9f000;
/** Below are the real mode's vectors and what a BIOS keeps. */
const FIRST_FREE = 0x1000;
const INFO_BYTES = 116;
/** Offsets in the information, and the flags that say which fields are valid. */
const Info = {
  flags: 0,
  memLower: 4,
  memUpper: 8,
  commandLine: 16,
  moduleCount: 20,
  moduleList: 24,
  mapLength: 44,
  mapAddress: 48,
  loaderName: 64,
} as const;
const InfoFlag = { memory: 1, commandLine: 4, modules: 8, memoryMap: 64, loaderName: 512 } as const;
const MODULE_BYTES = 16;
const MAP_ENTRY_BYTES = 24;
const KIB = 1024;
const MIB = 0x10_0000;
const PAGE = 4096;

export interface MultibootOptions {
  /** The whole file. */
  readonly kernel: Uint8Array;
  /** Loaded behind the kernel, each at a page. */
  readonly modules: readonly Uint8Array[];
  readonly commandLine: string;
  readonly memoryBytes: number;
  readonly acpi: { readonly writes: readonly GuestWrite[] };
}

interface Header {
  /** Offset in the file. */
  readonly at: number;
  readonly flags: number;
}

function findHeader(view: DataView): Header | undefined {
  for (let at = 0; at + 12 <= Math.min(view.byteLength, HEADER_SEARCH); at += 4) {
    if (view.getUint32(at, true) !== HEADER_MAGIC) continue;
    const flags = view.getUint32(at + 4, true);
    if ((HEADER_MAGIC + flags + view.getUint32(at + 8, true)) >>> 0 === 0) return { at, flags };
  }
  return undefined;
}

/** A plain image: the header's fields header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr. */
function plainImage(file: Uint8Array, view: DataView, at: number): ElfImage | undefined {
  if (at + 32 > file.length) return undefined;
  const [headerAt, loadAt, loadEnd, bssEnd, entry] = [12, 16, 20, 24, 28].map((o) => view.getUint32(at + o, true)) as [
    number,
    number,
    number,
    number,
    number,
  ];
  const offset = at - (headerAt - loadAt);
  const end = loadEnd === 0 ? file.length : offset + (loadEnd - loadAt);
  if (headerAt < loadAt || offset < 0 || end > file.length || end < offset) return undefined;
  const bytes = file.subarray(offset, end);
  const memoryBytes = bssEnd === 0 ? bytes.length : bssEnd - loadAt;
  if (memoryBytes < bytes.length) return undefined;
  return { entry, segments: [{ gpa: loadAt, bytes, memoryBytes }] };
}

/** @throws BootError */
export function prepareMultiboot(o: MultibootOptions): BootImage {
  checkMemorySize(o.memoryBytes);
  const file = o.kernel;
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const header = findHeader(view);
  if (header === undefined)
    throw new BootError("bad-kernel", "there is no multiboot header in its first 8 KiB", "give a multiboot kernel");
  if ((header.flags & (NEEDS_VIDEO | NEEDS_UNKNOWN)) !== 0)
    throw new BootError(
      "bad-kernel",
      "this multiboot kernel wants a video mode, or what version 1 does not know",
      "build it without",
    );
  const kernel =
    (header.flags & HAS_ADDRESSES) !== 0
      ? plainImage(file, view, header.at)
      : (loadableSegments32(file) ?? loadableSegments(file));
  if (kernel === undefined)
    throw new BootError("bad-kernel", "the multiboot kernel is damaged: its parts lie outside it", "get it again");
  const kernelStart = Math.min(...kernel.segments.map((s) => s.gpa));
  const kernelEnd = Math.max(...kernel.segments.map((s) => s.gpa + s.memoryBytes));
  // a kernel below 1 MiB may lie where the information would be: that goes behind it then
  const low = kernel.segments.filter((s) => s.memoryBytes > 0 && s.gpa < MIB);
  const lowEnd = Math.max(0, ...low.map((s) => s.gpa + s.memoryBytes));
  const informationAt = lowEnd > INFO ? Math.ceil(lowEnd / PAGE) * PAGE : INFO;
  if (low.some((s) => s.gpa < FIRST_FREE) || informationAt >= INFO_END)
    throw new BootError(
      "bad-kernel",
      `the kernel is linked at 0x${kernelStart.toString(16)}, where the machine's own tables are`,
      "link it at 1 MiB or above",
    );
  const modules: GuestWrite[] = [];
  let next = Math.max(kernelEnd, MIB);
  for (const bytes of o.modules) {
    const gpa = Math.ceil(next / PAGE) * PAGE;
    modules.push({ gpa, bytes });
    next = gpa + bytes.length;
  }
  if (next > o.memoryBytes)
    throw new BootError(
      "not-enough-memory",
      `${Math.floor(o.memoryBytes / MIB)} MiB of memory do not hold the kernel and its modules`,
      `give the guest at least ${Math.ceil(next / MIB) + 1} MiB`,
    );
  const inside = kernel.segments.filter((s) => s.bytes.length > 0).map((s) => ({ gpa: s.gpa, bytes: s.bytes }));
  return {
    writes: [information(o, modules, informationAt), ...o.acpi.writes, ...inside, ...modules],
    zeroes: kernel.segments
      .filter((s) => s.memoryBytes > s.bytes.length)
      .map((s) => ({ gpa: s.gpa + s.bytes.length, lengthBytes: s.memoryBytes - s.bytes.length })),
    entry: { mode: "protected", rip: kernel.entry, eax: LOADER_MAGIC, ebx: informationAt },
  };
}

/** "Boot information format", with everything that it points to behind it. */
function information(o: MultibootOptions, modules: readonly GuestWrite[], at: number): GuestWrite {
  const encoder = new TextEncoder();
  const commandLine = encoder.encode(`${o.commandLine}\0`);
  const loader = encoder.encode("enlighten\0");
  const map = memoryMap(o.memoryBytes).e820;
  const align4 = (n: number): number => (n + 3) & ~3;
  const commandAt = INFO_BYTES;
  const loaderAt = commandAt + commandLine.length;
  const moduleAt = align4(loaderAt + loader.length);
  const mapAt = moduleAt + modules.length * MODULE_BYTES;
  const bytes = new Uint8Array(mapAt + map.length * MAP_ENTRY_BYTES);
  if (at + bytes.length > INFO_END)
    throw new BootError("command-line-too-long", "the command line or the modules are too many", "pass less");
  const view = new DataView(bytes.buffer);
  const put = (offset: number, value: number): void => view.setUint32(offset, value, true);
  const hasModules = modules.length > 0 ? InfoFlag.modules : 0;
  put(Info.flags, InfoFlag.memory | InfoFlag.commandLine | hasModules | InfoFlag.memoryMap | InfoFlag.loaderName);
  put(Info.memLower, 640);
  put(Info.memUpper, (o.memoryBytes - MIB) / KIB);
  put(Info.commandLine, at + commandAt);
  bytes.set(commandLine, commandAt);
  put(Info.loaderName, at + loaderAt);
  bytes.set(loader, loaderAt);
  put(Info.moduleCount, modules.length);
  put(Info.moduleList, at + moduleAt);
  modules.forEach(({ gpa, bytes: { length } }, i) => {
    put(moduleAt + i * MODULE_BYTES, gpa);
    put(moduleAt + i * MODULE_BYTES + 4, gpa + length);
    // its string: the command line's end, an empty text
    put(moduleAt + i * MODULE_BYTES + 8, at + commandAt + commandLine.length - 1);
  });
  put(Info.mapLength, map.length * MAP_ENTRY_BYTES);
  put(Info.mapAddress, at + mapAt);
  map.forEach((entry, i) => {
    const to = mapAt + i * MAP_ENTRY_BYTES;
    put(to, MAP_ENTRY_BYTES - 4);
    put(to + 4, entry.base);
    put(to + 12, entry.lengthBytes);
    put(to + 20, entry.type);
  });
  return { gpa: at, bytes };
}
