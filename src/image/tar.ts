/**
 * Tar archives as GNU tar and dpkg write them: ustar, GNU long names ('L', 'K'), pax headers ('x', 'g': path, linkpath,
 * size). Sparse files are refused: no package of a distribution holds one.
 */
import { ByteReader, utf8 } from "./byte-reader.js";
import { damaged, unsupported } from "./errors.js";

export type TarKind = "file" | "hardlink" | "symlink" | "character" | "block" | "directory" | "fifo";

export interface TarEntry {
  /** Without leading "./" or "/" and without trailing "/". */
  readonly path: string;
  readonly kind: TarKind;
  readonly mode: number;
  /** Target of a symlink (as stored) or of a hardlink (a path like `path`). */
  readonly link: string;
  readonly data: Uint8Array;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
}

const BLOCK = 512;
const NO_DATA = new Uint8Array(0);
const KINDS: Record<string, TarKind | undefined> = {
  "0": "file",
  "\0": "file",
  "7": "file",
  "1": "hardlink",
  "2": "symlink",
  "3": "character",
  "4": "block",
  "5": "directory",
  "6": "fifo",
};

/** An octal field, or the GNU base-256 form (top bit set) for what does not fit. */
function number(reader: ByteReader, at: number, size: number): number {
  if (reader.u8(at) & 0x80) {
    let value = reader.u8(at) & 0x7f;
    for (let i = 1; i < size; i++) value = value * 256 + reader.u8(at + i);
    if (value > Number.MAX_SAFE_INTEGER) throw damaged("tar archive", "a size is out of range");
    return value;
  }
  const text = reader.text(at, size).trim();
  if (text === "") return 0;
  if (!/^[0-7]+$/.test(text)) throw damaged("tar archive", `"${text}" is no octal number`);
  return Number.parseInt(text, 8);
}

function checkSum(reader: ByteReader, at: number): void {
  let sum = 8 * 0x20; // the field itself counts as spaces
  for (let i = 0; i < BLOCK; i++) if (i < 148 || i >= 156) sum += reader.u8(at + i);
  if (sum !== number(reader, at + 148, 8)) throw damaged("tar archive", "a header's checksum is wrong");
}

/** pax records: "length key=value\n", length in decimal and counting itself. */
function readPax(data: Uint8Array): Map<string, string> {
  const records = new Map<string, string>();
  let at = 0;
  while (at < data.length && data[at] !== 0) {
    const space = data.indexOf(0x20, at);
    const length = space < 0 ? Number.NaN : Number(utf8(data.subarray(at, space)));
    if (!Number.isInteger(length) || length <= space - at + 1 || at + length > data.length) {
      throw damaged("tar archive", "a pax record's length is wrong");
    }
    const record = utf8(data.subarray(space + 1, at + length - 1));
    const equals = record.indexOf("=");
    if (equals < 0) throw damaged("tar archive", "a pax record has no '='");
    records.set(record.slice(0, equals), record.slice(equals + 1));
    at += length;
  }
  return records;
}

function cleanPath(path: string): string {
  return path
    .replace(/^(\.?\/+)+/, "")
    .replace(/\/+$/, "")
    .replace(/^\.$/, "");
}

const zeroEnded = (data: Uint8Array): string => {
  const end = data.indexOf(0);
  return utf8(end < 0 ? data : data.subarray(0, end));
};

export function readTar(bytes: Uint8Array): TarEntry[] {
  const reader = new ByteReader(bytes, "tar archive");
  const entries: TarEntry[] = [];
  let longName: string | undefined;
  let longLink: string | undefined;
  const global = new Map<string, string>();
  let pax = new Map<string, string>();

  for (let at = 0; at < bytes.length; ) {
    if (reader.slice(at, BLOCK).every((byte) => byte === 0)) break; // end mark: zero blocks
    checkSum(reader, at);
    const type = String.fromCharCode(reader.u8(at + 156));
    const isHeaderRecord = type === "x" || type === "g" || type === "L" || type === "K";
    const paxValue = (key: string): string | undefined =>
      isHeaderRecord ? undefined : (pax.get(key) ?? global.get(key));
    const paxSize = paxValue("size");
    const size = paxSize === undefined ? number(reader, at + 124, 12) : Number(paxSize);
    if (!Number.isSafeInteger(size) || size < 0) throw damaged("tar archive", "a file's size is no number");
    const kind = KINDS[type];
    const hasData = isHeaderRecord || kind === "file";
    const data = hasData ? reader.slice(at + BLOCK, size) : NO_DATA;
    const next = at + BLOCK + (hasData ? Math.ceil(size / BLOCK) * BLOCK : 0);

    if (type === "L") longName = zeroEnded(data);
    else if (type === "K") longLink = zeroEnded(data);
    else if (type === "x") pax = readPax(data);
    else if (type === "g") for (const [key, value] of readPax(data)) global.set(key, value);
    else if (kind === undefined) {
      throw unsupported(`a tar entry has the unknown type "${type}"`, "repack the archive with plain files");
    } else {
      if (paxValue("GNU.sparse.major") !== undefined) {
        throw unsupported("the tar archive has a sparse file", "repack it without --sparse");
      }
      const isUstar = reader.text(at + 257, 5) === "ustar";
      const isPosix = isUstar && reader.u8(at + 262) === 0; // GNU's own format has a space there and no prefix field
      const prefix = isPosix ? zeroEnded(reader.slice(at + 345, 155)) : "";
      const shortName = zeroEnded(reader.slice(at, 100));
      const link = paxValue("linkpath") ?? longLink ?? zeroEnded(reader.slice(at + 157, 100));
      entries.push({
        path: cleanPath(paxValue("path") ?? longName ?? (prefix === "" ? shortName : `${prefix}/${shortName}`)),
        kind,
        mode: number(reader, at + 100, 8) & 0o7777,
        link: kind === "hardlink" ? cleanPath(link) : link,
        data,
        deviceMajor: isUstar ? number(reader, at + 329, 8) : 0,
        deviceMinor: isUstar ? number(reader, at + 337, 8) : 0,
      });
      longName = longLink = undefined;
      pax = new Map();
    }
    at = next;
  }
  return entries;
}
