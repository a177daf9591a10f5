/**
 * Copies of files between the host and a guest: records over a Hyper-V socket, the same in both directions. The other end is a
 * program that the host sends along (guest-copier.ts).
 *
 *     record     type (1 byte), length (u32), payload; all numbers little-endian
 *     entry      a file, a folder that is entered, a link, ...: by its name in the folder that is open (the first one's name is ignored)
 *     data       offset (u64), bytes: of the file that is open; offsets grow, holes are left out
 *     file-end   size (u64), checksum (u64) of what data brought
 *     leave      the folder is complete: its mode and time can be set now
 *     end, done  all there is; all of it is there
 */
import { VmError } from "./vm-error.js";

export const CopyRecord = {
  /** To the copier: direction, path, name. */
  request: "R",
  entry: "T",
  data: "D",
  fileEnd: "E",
  leave: "L",
  /** Something was left out: path, NUL, reason. */
  warning: "W",
  /** errno of Linux (u32; 0: the checksum differs), path, NUL, text. */
  failed: "F",
  end: "Q",
  done: "K",
} as const;

/** Bytes of a file in one record. */
export const COPY_CHUNK = 256 << 10;
const HEADER = 5;
const DATA_HEADER = 8;
const MAX_RECORD = COPY_CHUNK + DATA_HEADER;
const ENTRY_FIXED = 37;
const MAX_NAME = 255;
const MAX_PATH = 4096;
/** Linux's paths end at 4,096 bytes; what is deeper than this is no tree of a user's. */
export const MAX_DEPTH = 256;

const KINDS = {
  f: "file",
  d: "directory",
  l: "symlink",
  h: "hardlink",
  p: "fifo",
  s: "socket",
  c: "character-device",
  b: "block-device",
} as const;
export type EntryKind = (typeof KINDS)[keyof typeof KINDS];
const LETTERS = new Map<string, string>(Object.entries(KINDS).map(([letter, kind]) => [kind, letter]));

export interface CopyEntry {
  readonly kind: EntryKind;
  /** Bytes as the file system has them, without "/". */
  readonly name: Uint8Array;
  /** Permissions, with setuid, setgid and sticky: 12 bits. */
  readonly mode: number;
  readonly mtime: { readonly seconds: number; readonly ns: number };
  /** Of a file: what it had when it was looked at. */
  readonly size: number;
  /** Of a device. */
  readonly major: number;
  readonly minor: number;
  /** Of a symbolic link its text; of a hard link the path from the copy's root. */
  readonly target: Uint8Array;
}

/** What a source tells and a sink does, one after the other. */
export type CopyStep =
  | { readonly is: "entry"; readonly entry: CopyEntry }
  /** The bytes are the receiver's until the next step is asked for. */
  | { readonly is: "data"; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly is: "file-end"; readonly size: number }
  | { readonly is: "leave" }
  | { readonly is: "warning"; readonly path: string; readonly reason: string };

/** The other end says what is no copy. */
export class CopyViolation extends Error {
  override readonly name = "CopyViolation";
}

const textOf = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

export function record(type: string, ...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const length = parts.reduce((n, p) => n + p.length, 0);
  const bytes = new Uint8Array(HEADER + length);
  bytes[0] = type.charCodeAt(0);
  new DataView(bytes.buffer).setUint32(1, length, true);
  let at = HEADER;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

export function u64(...values: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(values.length * 8);
  const view = new DataView(bytes.buffer);
  values.forEach((v, i) => {
    view.setBigUint64(i * 8, BigInt(v), true);
  });
  return bytes;
}

export function encodeEntry(e: CopyEntry): Uint8Array {
  const bytes = new Uint8Array(ENTRY_FIXED + e.name.length + e.target.length);
  const view = new DataView(bytes.buffer);
  bytes[0] = LETTERS.get(e.kind)!.charCodeAt(0);
  view.setUint32(1, e.mode, true);
  view.setBigInt64(5, BigInt(e.mtime.seconds), true);
  view.setUint32(13, e.mtime.ns, true);
  view.setBigUint64(17, BigInt(e.size), true);
  view.setUint32(25, e.major, true);
  view.setUint32(29, e.minor, true);
  view.setUint16(33, e.name.length, true);
  view.setUint16(35, e.target.length, true);
  bytes.set(e.name, ENTRY_FIXED);
  bytes.set(e.target, ENTRY_FIXED + e.name.length);
  return bytes;
}

/** Whether it names something in a folder: not empty, no way up, no "/" and no zero byte. */
export function isName(bytes: Uint8Array): boolean {
  if (bytes.length === 0 || bytes.length > MAX_NAME || bytes.includes(0x2f) || bytes.includes(0)) return false;
  return !(bytes.every((b) => b === 0x2e) && bytes.length <= 2);
}
/** The names of a path from the copy's root. @throws CopyViolation for one that could lead elsewhere */
export function namesOf(path: Uint8Array): Uint8Array[] {
  const names: Uint8Array[] = [];
  for (let from = 0; from <= path.length; ) {
    const slash = path.indexOf(0x2f, from);
    const to = slash < 0 ? path.length : slash;
    const name = path.subarray(from, to);
    if (!isName(name)) throw new CopyViolation("a link's path that leads elsewhere");
    names.push(name);
    from = to + 1;
  }
  if (names.length > MAX_DEPTH) throw new CopyViolation("a path that is too deep");
  return names;
}

const MAX_SECONDS = 1n << 47n;
const clampSeconds = (s: bigint): number => Number(s > MAX_SECONDS ? MAX_SECONDS : s < -MAX_SECONDS ? -MAX_SECONDS : s);
function safeNumber(n: bigint): number {
  if (n > BigInt(Number.MAX_SAFE_INTEGER)) throw new CopyViolation("a file size beyond all file systems");
  return Number(n);
}

/** @param isFirst the first entry's name is the sender's own */
export function decodeEntry(bytes: Uint8Array, isFirst: boolean): CopyEntry {
  if (bytes.length < ENTRY_FIXED) throw new CopyViolation("an entry that is cut off");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const kind = (KINDS as Record<string, EntryKind | undefined>)[String.fromCharCode(bytes[0]!)];
  const nameLength = view.getUint16(33, true);
  const targetLength = view.getUint16(35, true);
  if (kind === undefined || bytes.length !== ENTRY_FIXED + nameLength + targetLength)
    throw new CopyViolation("an entry that is none");
  const name = bytes.slice(ENTRY_FIXED, ENTRY_FIXED + nameLength);
  const target = bytes.slice(ENTRY_FIXED + nameLength);
  if (!isFirst && !isName(name)) throw new CopyViolation("a name that leads elsewhere");
  if (target.length > MAX_PATH || target.includes(0)) throw new CopyViolation("a link that is none");
  if (kind === "symlink" && target.length === 0) throw new CopyViolation("a link to nowhere");
  if (kind === "hardlink") namesOf(target);
  return {
    kind,
    name,
    mode: view.getUint32(1, true) & 0o7777,
    mtime: { seconds: clampSeconds(view.getBigInt64(5, true)), ns: view.getUint32(13, true) % 1_000_000_000 },
    size: safeNumber(view.getBigUint64(17, true)),
    major: view.getUint32(25, true),
    minor: view.getUint32(29, true),
    target,
  };
}
export function decodeData(bytes: Uint8Array): { readonly offset: number; readonly bytes: Uint8Array } {
  if (bytes.length < DATA_HEADER) throw new CopyViolation("data that are cut off");
  const offset = safeNumber(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  return { offset, bytes: bytes.subarray(DATA_HEADER) };
}
export function decodeFileEnd(bytes: Uint8Array): { readonly size: number; readonly sum: bigint } {
  if (bytes.length !== 16) throw new CopyViolation("a file's end that is none");
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return { size: safeNumber(view.getBigUint64(0, true)), sum: view.getBigUint64(8, true) };
}
export function decodeWarning(bytes: Uint8Array): { readonly path: string; readonly reason: string } {
  const nul = bytes.indexOf(0);
  const end = nul < 0 ? bytes.length : nul;
  return { path: textOf(bytes.subarray(0, end)), reason: textOf(bytes.subarray(end + 1)) };
}
export function decodeFailure(bytes: Uint8Array): { errno: number; path: string; text: string } {
  if (bytes.length < 4) throw new CopyViolation("a failure that is cut off");
  const { path, reason } = decodeWarning(bytes.subarray(4));
  return { errno: new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true), path, text: reason };
}

/** Cuts a stream into records. */
export class RecordReader {
  readonly #read: () => Promise<Uint8Array | undefined>;
  #piece = new Uint8Array(0);
  readonly #header = new Uint8Array(HEADER);
  /** Data begin at a multiple of 8, for whoever sums them up. */
  readonly #buffer = new Uint8Array(MAX_RECORD + 8);

  /** @param read the next piece; undefined at the end */
  constructor(read: () => Promise<Uint8Array | undefined>) {
    this.#read = read;
  }
  async #fill(into: Uint8Array): Promise<boolean> {
    for (let at = 0; at < into.length; ) {
      if (this.#piece.length === 0) {
        const piece = await this.#read();
        if (piece === undefined) {
          if (at > 0) throw new CopyViolation("a record that is cut off");
          return false;
        }
        this.#piece = piece as Uint8Array<ArrayBuffer>;
      }
      const n = Math.min(into.length - at, this.#piece.length);
      into.set(this.#piece.subarray(0, n), at);
      this.#piece = this.#piece.subarray(n);
      at += n;
    }
    return true;
  }
  /** Its payload is valid until the next call; undefined at the end. */
  async next(): Promise<{ readonly type: string; readonly payload: Uint8Array } | undefined> {
    if (!(await this.#fill(this.#header))) return undefined;
    const length = new DataView(this.#header.buffer).getUint32(1, true);
    if (length > MAX_RECORD) throw new CopyViolation("a record that is too long");
    const payload = this.#buffer.subarray(0, length);
    if (!(await this.#fill(payload))) throw new CopyViolation("a record that is cut off");
    return { type: String.fromCharCode(this.#header[0]!), payload };
  }
}

/** Errors of a file system, whichever side had them. */
export type FileFailure = "not-found" | "no-permission" | "no-space" | "exists" | "mismatch" | "failed";
const HINTS: Record<FileFailure, string> = {
  "not-found": "check the path; the folder that is to hold the copy must be there",
  "no-permission": "check permissions, and who it is done as",
  "no-space": "free some space there, or copy to another place",
  exists: "something of another kind has that name: remove it, or name another destination",
  mismatch: "copy it again; was the file written to meanwhile?",
  failed: "",
};
const ERRNO: Record<number, FileFailure> = {
  0: "mismatch",
  1: "no-permission",
  2: "not-found",
  13: "no-permission",
  17: "exists",
  20: "exists",
  21: "exists",
  27: "no-space",
  28: "no-space",
  30: "no-permission",
  39: "exists",
  122: "no-space",
};
export const failureOfErrno = (errno: number): FileFailure => ERRNO[errno] ?? "failed";

/** @param where "in the guest", "on this host" */
export function fileError(code: FileFailure, path: string, where: string, text: string): VmError {
  const what = code === "mismatch" ? "what arrived is not what was sent" : text;
  return new VmError(code, `${path} ${where}: ${what}`, HINTS[code]);
}
