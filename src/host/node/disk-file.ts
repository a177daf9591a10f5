/**
 * The file under a raw disk in Node: synchronous reads and writes straight from and to guest RAM, fsync in the thread pool, holes
 * by util-linux's `fallocate`, since Node has no call for them.
 */
import { spawn, spawnSync } from "node:child_process";
import {
  closeSync,
  constants,
  fstatSync,
  fsync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { type DiskDone, DiskStatus } from "../../disk/disk.js";
import type { DiskFile } from "../../disk/raw.js";
import { DiskFileError } from "./disk-file-error.js";
import { type DiskLock, lockDiskFile } from "./disk-lock.js";

export interface DiskFileOptions {
  readonly readOnly?: boolean;
  /** Makes the file when there is none: this many bytes, all of them a hole. */
  readonly createBytes?: number;
  /** The size need not be a multiple of 512: ISO images. */
  readonly anySize?: boolean;
  /** Everything ends before the call returns: for deterministic runs. */
  readonly inline?: boolean;
  /** False: others may have it open for writing too. */
  readonly exclusive?: boolean;
  /** After each `done` that comes later than the call it answers: whoever sleeps meanwhile has to look. */
  readonly onCompleted?: () => void;
}

const SECTOR = 512;
/** Holes that one child process punches. */
const PUNCHES_AT_ONCE = 64;
/** The child gets the open file as descriptor 3, so a rename cannot make it punch another file. */
const CHILD_FILE = "/proc/self/fd/3";
const PUNCH_SCRIPT = `while [ $# -gt 0 ]; do
fallocate --punch-hole --keep-size --offset "$1" --length "$2" ${CHILD_FILE} || exit 1
shift 2
done`;

/**
 * Opens the file of a raw disk.
 * @throws DiskFileError with a code and the next thing to try
 */
export function openDiskFile(path: string, options: DiskFileOptions = {}): NodeDiskFile {
  const readOnly = options.readOnly ?? false;
  const created = readOnly ? undefined : create(path, options.createBytes);
  const fd = created ?? open(path, readOnly);
  let lock: DiskLock | undefined;
  try {
    const { size } = checkedStat(fd, path, options);
    if (!readOnly && options.exclusive !== false) lock = lockDiskFile(path);
    return new NodeDiskFile(fd, size, readOnly, options.inline ?? false, lock, options.onCompleted);
  } catch (error) {
    lock?.release();
    closeSync(fd);
    throw error;
  }
}

function create(path: string, bytes: number | undefined): number | undefined {
  if (bytes === undefined) return undefined;
  if (!Number.isSafeInteger(bytes) || bytes <= 0 || bytes % SECTOR !== 0)
    throw new DiskFileError(
      "size",
      `a disk of ${bytes} bytes cannot be made`,
      "give a size that is a multiple of 512, at least 512",
    );
  let fd: number;
  try {
    fd = openSync(path, "wx+");
  } catch (error) {
    if (codeOf(error) === "EEXIST") return undefined;
    throw openingFailed(path, error);
  }
  try {
    ftruncateSync(fd, bytes);
  } catch (error) {
    closeSync(fd);
    unlinkSync(path);
    throw codeOf(error) === "EFBIG"
      ? new DiskFileError(
          "too-large",
          `${path}: the file system has no files of ${bytes} bytes`,
          "give a smaller size or another folder",
          error,
        )
      : new DiskFileError(
          "no-space",
          `${path}: no room to make a disk of ${bytes} bytes`,
          "free some space or give another folder",
          error,
        );
  }
  return fd;
}

function open(path: string, readOnly: boolean): number {
  try {
    // Without O_NONBLOCK, opening a pipe would wait for its other end.
    return openSync(path, (readOnly ? constants.O_RDONLY : constants.O_RDWR) | constants.O_NONBLOCK);
  } catch (error) {
    throw openingFailed(path, error);
  }
}

function checkedStat(fd: number, path: string, options: DiskFileOptions): { readonly size: number } {
  const stat = fstatSync(fd);
  if (stat.isDirectory()) throw isFolder(path);
  if (!stat.isFile())
    throw new DiskFileError("not-a-file", `${path} is not a regular file`, "give the path of a disk image");
  if (stat.size === 0)
    throw new DiskFileError("empty", `${path} is empty`, "give a disk image, or a path that does not exist and a size");
  if (options.anySize !== true && stat.size % SECTOR !== 0)
    throw new DiskFileError(
      "size",
      `${path} has ${stat.size} bytes, which is not a whole number of sectors of 512`,
      `if it is a raw disk that was cut off, lengthen it: truncate --size=%512 '${path}'`,
    );
  return stat;
}

function isFolder(path: string, cause?: unknown): DiskFileError {
  return new DiskFileError("is-folder", `${path} is a folder`, "give the path of a disk image", cause);
}

function openingFailed(path: string, error: unknown): DiskFileError {
  switch (codeOf(error)) {
    case "ENOENT":
      return new DiskFileError("missing", `there is no ${path}`, "check the path, or give a size to make it", error);
    case "EISDIR":
      return isFolder(path, error);
    case "EACCES":
    case "EPERM":
    case "EROFS":
      return new DiskFileError(
        "not-allowed",
        `${path} may not be opened: ${textOf(error)}`,
        "change its permissions, or use it read-only if reading is allowed",
        error,
      );
    case "ENOSPC":
    case "EDQUOT":
      return new DiskFileError("no-space", `no room to make ${path}`, "free some space or give another folder", error);
    default:
      return new DiskFileError("not-opened", `${path} cannot be opened: ${textOf(error)}`, "check the path", error);
  }
}

/** A range that is to become a hole, and who waits for it. */
interface Punch {
  offset: number;
  end: number;
  readonly waiting: DiskDone[];
}

export class NodeDiskFile implements DiskFile {
  readonly readOnly: boolean;
  readonly canPunch: boolean;
  readonly #fd: number;
  readonly #inline: boolean;
  readonly #lock: DiskLock | undefined;
  readonly #onCompleted: (() => void) | undefined;
  #bytes: number;
  /** By offset, apart from each other; none of them has been begun. */
  #punches: Punch[] = [];
  #punching = false;
  /** fsyncs and children that use the descriptor. */
  #underWay = 0;
  #closing = false;

  /** @param fd open file, ours from now on */
  constructor(
    fd: number,
    bytes: number,
    readOnly: boolean,
    inline: boolean,
    lock: DiskLock | undefined,
    onCompleted: (() => void) | undefined,
  ) {
    this.#fd = fd;
    this.#bytes = bytes;
    this.readOnly = readOnly;
    this.#inline = inline;
    this.#lock = lock;
    this.#onCompleted = onCompleted;
    // Behind the end there is nothing to punch: this only asks whether program and file system can.
    this.canPunch = !readOnly && punchNow(fd, bytes, SECTOR) === DiskStatus.ok;
  }
  get bytes(): number {
    return this.#bytes;
  }
  read(offset: number, into: Uint8Array, at: number, length: number): DiskStatus {
    try {
      for (let done = 0; done < length; ) {
        const n = readSync(this.#fd, into, at + done, length - done, offset + done);
        if (n === 0) {
          into.fill(0, at + done, at + length);
          break;
        }
        done += n;
      }
      return DiskStatus.ok;
    } catch (error) {
      return statusOf(error);
    }
  }
  write(offset: number, from: Uint8Array, at: number, length: number): DiskStatus {
    try {
      for (let done = 0; done < length; ) done += writeSync(this.#fd, from, at + done, length - done, offset + done);
      return DiskStatus.ok;
    } catch (error) {
      return statusOf(error);
    }
  }
  sync(done: DiskDone): void {
    if (this.#inline) {
      try {
        fsyncSync(this.#fd);
      } catch (error) {
        done(statusOf(error));
        return;
      }
      done(DiskStatus.ok);
      return;
    }
    this.#underWay++;
    fsync(this.#fd, (error) => {
      this.#ended();
      done(error === null ? DiskStatus.ok : statusOf(error));
      this.#onCompleted?.();
    });
  }
  punch(offset: number, length: number, done: DiskDone): void {
    if (this.#inline) {
      done(punchNow(this.#fd, offset, length));
      return;
    }
    this.#queue(offset, offset + length, done);
    this.#startPunching();
  }
  resize(bytes: number): DiskStatus {
    try {
      ftruncateSync(this.#fd, bytes);
    } catch (error) {
      return statusOf(error);
    }
    this.#bytes = bytes;
    return DiskStatus.ok;
  }
  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    this.#underWay++;
    this.#ended();
  }

  /** Puts a range into the queue; what it touches becomes one with it. */
  #queue(offset: number, end: number, done: DiskDone): void {
    const merged: Punch = { offset, end, waiting: [] };
    let at = 0;
    while (at < this.#punches.length && this.#punches[at]!.end < offset) at++;
    let behind = at;
    for (; behind < this.#punches.length && this.#punches[behind]!.offset <= end; behind++) {
      const other = this.#punches[behind]!;
      merged.offset = Math.min(merged.offset, other.offset);
      merged.end = Math.max(merged.end, other.end);
      merged.waiting.push(...other.waiting);
    }
    merged.waiting.push(done);
    this.#punches.splice(at, behind - at, merged);
  }
  /** One child at a time; what comes meanwhile gathers in the queue. */
  #startPunching(): void {
    if (this.#punching || this.#punches.length === 0) return;
    const batch = this.#punches.splice(0, PUNCHES_AT_ONCE);
    this.#punching = true;
    this.#underWay++;
    let over = false;
    const ended = (status: DiskStatus): void => {
      // A child that cannot be started says "error", perhaps "close" too.
      if (over) return;
      over = true;
      this.#punching = false;
      this.#startPunching();
      this.#ended();
      for (const punch of batch) for (const done of punch.waiting) done(status);
      this.#onCompleted?.();
    };
    const ranges = batch.flatMap((p) => [String(p.offset), String(p.end - p.offset)]);
    try {
      const child = spawn("sh", ["-c", PUNCH_SCRIPT, "sh", ...ranges], {
        stdio: ["ignore", "ignore", "ignore", this.#fd],
      });
      child.once("error", () => ended(DiskStatus.ioError));
      child.once("close", (code) => ended(code === 0 ? DiskStatus.ok : DiskStatus.ioError));
    } catch {
      ended(DiskStatus.ioError);
    }
  }
  #ended(): void {
    this.#underWay--;
    if (!this.#closing || this.#underWay > 0 || this.#punches.length > 0) return;
    closeSync(this.#fd);
    this.#lock?.release();
  }
}

function punchNow(fd: number, offset: number, length: number): DiskStatus {
  const child = spawnSync("sh", ["-c", PUNCH_SCRIPT, "sh", String(offset), String(length)], {
    stdio: ["ignore", "ignore", "ignore", fd],
  });
  return child.status === 0 ? DiskStatus.ok : DiskStatus.ioError;
}

function statusOf(error: unknown): DiskStatus {
  switch (codeOf(error)) {
    case "ENOSPC":
    case "EDQUOT":
    case "EFBIG":
      return DiskStatus.noSpace;
    case "EROFS":
      return DiskStatus.readOnly;
    default:
      return DiskStatus.ioError;
  }
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error ? String(error.code) : undefined;
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
