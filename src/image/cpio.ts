/**
 * cpio archives in the "newc" format, the form of an initramfs (Linux, Documentation/driver-api/early-userspace).
 * The writer is deterministic: times are 0, inode numbers count up, owner is root, entries come as given.
 */
import { ByteReader, encodeUtf8, hasBytes, utf8 } from "./byte-reader.js";
import { damaged, ImageError } from "./errors.js";

export type CpioEntry =
  | { readonly kind: "file"; readonly path: string; readonly mode: number; readonly data: Uint8Array }
  | { readonly kind: "directory"; readonly path: string; readonly mode: number }
  | { readonly kind: "symlink"; readonly path: string; readonly target: string }
  | {
      readonly kind: "character" | "block";
      readonly path: string;
      readonly mode: number;
      readonly major: number;
      readonly minor: number;
    }
  | { readonly kind: "fifo"; readonly path: string; readonly mode: number };

const TYPE_BITS = {
  fifo: 0o010000,
  character: 0o020000,
  directory: 0o040000,
  block: 0o060000,
  file: 0o100000,
  symlink: 0o120000,
} as const;
const MAGIC = "070701";
const MAGIC_WITH_SUM = "070702";
const HEADER_SIZE = 110;
const TRAILER = "TRAILER!!!";
/** Field numbers of the thirteen 8-digit fields behind the magic. */
const Field = { Mode: 1, Size: 6, DeviceMajor: 9, DeviceMinor: 10, NameSize: 11 } as const;
const NO_DATA = new Uint8Array(0);

const align4 = (size: number): number => (size + 3) & ~3;

function header(values: readonly number[]): Uint8Array {
  return encodeUtf8(MAGIC + values.map((value) => (value >>> 0).toString(16).padStart(8, "0")).join(""));
}

/** The archive with its trailer, padded to 512 bytes so that another archive may follow it. */
export function writeCpio(entries: readonly CpioEntry[]): Uint8Array<ArrayBuffer> {
  const rows = entries.map((entry, i) => {
    const name = encodeUtf8(`${entry.path}\0`);
    const data = entry.kind === "file" ? entry.data : entry.kind === "symlink" ? encodeUtf8(entry.target) : NO_DATA;
    const permissions = entry.kind === "symlink" ? 0o777 : entry.mode & 0o7777;
    const isDevice = entry.kind === "character" || entry.kind === "block";
    const head = header([
      i + 1, // inode
      TYPE_BITS[entry.kind] | permissions,
      0, // owner
      0, // group
      entry.kind === "directory" ? 2 : 1,
      0, // time
      data.length,
      0,
      0,
      isDevice ? entry.major : 0,
      isDevice ? entry.minor : 0,
      name.length,
      0, // check sum: only in the 070702 format
    ]);
    return { head, name, data };
  });
  const trailerName = encodeUtf8(`${TRAILER}\0`);
  rows.push({
    head: header([0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, trailerName.length, 0]),
    name: trailerName,
    data: NO_DATA,
  });

  let size = 0;
  for (const { name, data } of rows) size += align4(HEADER_SIZE + name.length) + align4(data.length);
  const out = new Uint8Array(Math.ceil(size / 512) * 512);
  let at = 0;
  for (const { head, name, data } of rows) {
    out.set(head, at);
    out.set(name, at + HEADER_SIZE);
    at += align4(HEADER_SIZE + name.length);
    out.set(data, at);
    at += align4(data.length);
  }
  return out;
}

/** Every entry of one archive or of several that follow each other, as the kernel would take them. */
export function readCpio(bytes: Uint8Array): CpioEntry[] {
  const reader = new ByteReader(bytes, "cpio archive");
  const entries: CpioEntry[] = [];
  let at = 0;
  let isInside = false;
  while (at < bytes.length) {
    if (!isInside && bytes[at] === 0) {
      at++; // padding between archives
      continue;
    }
    if (!hasBytes(bytes, at, MAGIC) && !hasBytes(bytes, at, MAGIC_WITH_SUM)) {
      if (at > 0) throw damaged("cpio archive", "an entry does not start where it should");
      throw new ImageError("not-cpio", "this is no newc cpio archive", "pack it with: cpio -o -H newc");
    }
    isInside = true;
    const start = at;
    const field = (index: number): number => {
      const digits = reader.text(start + 6 + index * 8, 8);
      if (!/^[0-9a-fA-F]{8}$/.test(digits)) throw damaged("cpio archive", "a header field is no hexadecimal number");
      return Number.parseInt(digits, 16);
    };
    const nameSize = field(Field.NameSize);
    const size = field(Field.Size);
    if (nameSize === 0) throw damaged("cpio archive", "an entry has no name");
    const path = utf8(reader.slice(start + HEADER_SIZE, nameSize).subarray(0, -1));
    const dataAt = start + align4(HEADER_SIZE + nameSize);
    const data = reader.slice(dataAt, size);
    at = dataAt + align4(size);
    if (path === TRAILER) {
      isInside = false;
      continue;
    }
    const bits = field(Field.Mode);
    const mode = bits & 0o7777;
    const kind = (Object.keys(TYPE_BITS) as (keyof typeof TYPE_BITS)[]).find((k) => TYPE_BITS[k] === (bits & 0o170000));
    if (kind === undefined) throw damaged("cpio archive", `${path} has an unknown type`);
    if (kind === "file") entries.push({ kind, path, mode, data });
    else if (kind === "symlink") entries.push({ kind, path, target: utf8(data) });
    else if (kind === "character" || kind === "block") {
      entries.push({ kind, path, mode, major: field(Field.DeviceMajor), minor: field(Field.DeviceMinor) });
    } else entries.push({ kind, path, mode });
  }
  if (isInside) throw damaged("cpio archive", "it has no trailer");
  return entries;
}
