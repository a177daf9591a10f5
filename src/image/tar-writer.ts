/** Tar archives (ustar, POSIX.1-1988) for what we make ourselves: owner root, time 0, names of at most 99 bytes. */
import { concatBytes, encodeUtf8 } from "./byte-reader.js";

export type NewTarEntry =
  | { readonly kind: "file"; readonly path: string; readonly mode: number; readonly data: Uint8Array }
  | { readonly kind: "directory"; readonly path: string; readonly mode: number }
  | { readonly kind: "symlink"; readonly path: string; readonly target: string };

const BLOCK = 512;
const TYPES = { file: "0", symlink: "2", directory: "5" } as const;

function header(entry: NewTarEntry): Uint8Array {
  const block = new Uint8Array(BLOCK);
  const put = (at: number, text: string, room: number): void => {
    const bytes = encodeUtf8(text);
    if (bytes.length >= room) throw new Error(`"${text}" is too long for a tar header`);
    block.set(bytes, at);
  };
  const octal = (at: number, value: number, room: number): void =>
    put(at, value.toString(8).padStart(room - 1, "0"), room);
  put(0, `./${entry.path}${entry.kind === "directory" ? "/" : ""}`, 100);
  octal(100, entry.kind === "symlink" ? 0o777 : entry.mode, 8);
  octal(108, 0, 8);
  octal(116, 0, 8);
  octal(124, entry.kind === "file" ? entry.data.length : 0, 12);
  octal(136, 0, 12);
  put(156, TYPES[entry.kind], 2);
  if (entry.kind === "symlink") put(157, entry.target, 100);
  put(257, "ustar", 6);
  put(263, "00", 3);
  put(265, "root", 32);
  put(297, "root", 32);
  let sum = 8 * 0x20; // the field itself counts as spaces
  for (const byte of block) sum += byte;
  put(148, `${sum.toString(8).padStart(6, "0")}\0 `, 9);
  return block;
}

/** Directories above an entry come first: give them. */
export function writeTar(entries: readonly NewTarEntry[]): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [];
  for (const entry of entries) {
    parts.push(header(entry));
    if (entry.kind !== "file") continue;
    parts.push(entry.data, new Uint8Array(-entry.data.length & (BLOCK - 1)));
  }
  parts.push(new Uint8Array(2 * BLOCK));
  return concatBytes(parts);
}

/** An archive without its end mark, so that another may follow; padding behind the mark goes as well. */
export function withoutEndMark(tar: Uint8Array): Uint8Array {
  let end = tar.length;
  while (end >= BLOCK && tar.subarray(end - BLOCK, end).every((byte) => byte === 0)) end -= BLOCK;
  return tar.subarray(0, end);
}
