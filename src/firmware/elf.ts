/**
 * Reads what must be loaded from a 64-bit x86 ELF executable (System V ABI, "Object Files" and "Program Loading").
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
const MACHINE_X86_64 = 62;
const PT_LOAD = 1;
const HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;

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
