/**
 * Reads what must be loaded from an x86 ELF executable, of 64 or 32 bits (System V ABI, "Object Files" and "Program Loading").
 * The file may come from anywhere: every number in it is checked, and a bad file is `undefined`, not an exception.
 */

export interface ElfSegment {
  /** Physical address of the first byte. */
  readonly gpa: number;
  /** A view of the file, no copy. */
  readonly bytes: Uint8Array;
  /** Size in memory; what is beyond the bytes is zero. */
  readonly memoryBytes: number;
}

export interface ElfImage {
  readonly entry: number;
  /** PT_LOAD segments of non-zero size, in the order of the file. */
  readonly segments: readonly ElfSegment[];
}

const MAGIC_64_LITTLE = [0x7f, 0x45, 0x4c, 0x46, 2, 1];
const MAGIC_32_LITTLE = [0x7f, 0x45, 0x4c, 0x46, 1, 1];
const MACHINE_X86_64 = 62;
const MACHINE_I386 = 3;
const PT_LOAD = 1;
const HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;
const HEADER_32_BYTES = 52;
const PROGRAM_HEADER_32_BYTES = 32;

/** The same of a 32-bit file, which may hold 64-bit code: boot loaders of old take no other. */
export function loadableSegments32(file: Uint8Array): ElfImage | undefined {
  if (file.length < HEADER_32_BYTES || MAGIC_32_LITTLE.some((byte, i) => file[i] !== byte)) return undefined;
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const machine = view.getUint16(18, true);
  if (machine !== MACHINE_I386 && machine !== MACHINE_X86_64) return undefined;
  const tableAt = view.getUint32(28, true);
  const count = view.getUint16(44, true);
  if (view.getUint16(42, true) !== PROGRAM_HEADER_32_BYTES || tableAt + count * PROGRAM_HEADER_32_BYTES > file.length)
    return undefined;
  const segments: ElfSegment[] = [];
  for (let i = 0; i < count; i++) {
    const at = tableAt + i * PROGRAM_HEADER_32_BYTES;
    if (view.getUint32(at, true) !== PT_LOAD) continue;
    const offset = view.getUint32(at + 4, true);
    const fileBytes = view.getUint32(at + 16, true);
    const memoryBytes = view.getUint32(at + 20, true);
    if (offset + fileBytes > file.length || fileBytes > memoryBytes) return undefined;
    if (memoryBytes > 0)
      segments.push({
        gpa: view.getUint32(at + 12, true),
        bytes: file.subarray(offset, offset + fileBytes),
        memoryBytes,
      });
  }
  return segments.length === 0 ? undefined : { entry: view.getUint32(24, true), segments };
}

export function loadableSegments(file: Uint8Array): ElfImage | undefined {
  if (file.length < HEADER_BYTES || MAGIC_64_LITTLE.some((byte, i) => file[i] !== byte)) return undefined;
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (view.getUint16(18, true) !== MACHINE_X86_64) return undefined;
  const tableAt = u64(view, 32);
  const count = view.getUint16(56, true);
  if (view.getUint16(54, true) !== PROGRAM_HEADER_BYTES || tableAt + count * PROGRAM_HEADER_BYTES > file.length) {
    return undefined;
  }
  const segments: ElfSegment[] = [];
  for (let i = 0; i < count; i++) {
    const at = tableAt + i * PROGRAM_HEADER_BYTES;
    if (view.getUint32(at, true) !== PT_LOAD) continue;
    const offset = u64(view, at + 8);
    const gpa = u64(view, at + 24);
    const fileBytes = u64(view, at + 32);
    const memoryBytes = u64(view, at + 40);
    if (offset + fileBytes > file.length || fileBytes > memoryBytes || gpa + memoryBytes > 2 ** 52) return undefined;
    if (memoryBytes > 0) segments.push({ gpa, bytes: file.subarray(offset, offset + fileBytes), memoryBytes });
  }
  return segments.length === 0 ? undefined : { entry: u64(view, 24), segments };
}

function u64(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * 0x1_0000_0000 + view.getUint32(at, true);
}
