/**
 * Where a copy out of a guest goes. Its steps come from a guest that may mean ill: everything is made anew by a single name in a folder
 * that this copy has open, and nothing that exists is written through. Setuid and setgid are left out: a file of the host's user may
 * not lend that user's rights to others because a guest says so.
 */
import {
  closeSync,
  constants,
  fchmodSync,
  ftruncateSync,
  futimesSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  renameSync,
  statSync,
  symlinkSync,
  unlinkSync,
  write,
  writeSync,
} from "node:fs";
import { basename, dirname } from "node:path";
import { promisify } from "node:util";
import type { CopySink } from "../../vm/copy-files.js";
import { type CopyEntry, type CopyStep, fileError, namesOf } from "../../vm/copy-protocol.js";
import { hostFailure } from "./copy-failure.js";
import { Folder, systemError } from "./folder.js";

const writeAt = promisify(write);
/** Up to here a write on this thread takes less time than one on another. */
const INLINE_BYTES = 64 << 10;
const MODE_BITS = 0o1777;
/** Files begun by this process. */
let parts = 0;

interface OpenFolder {
  readonly folder: Folder;
  readonly entry: CopyEntry;
  readonly path: string;
}
interface OpenFile {
  readonly fd: number;
  readonly folder: Folder;
  readonly name: Buffer;
  /** What it is called until it is whole: whatever happens on the way, half a file never has the name, and an older one keeps it. */
  readonly partName: Buffer;
  readonly entry: CopyEntry;
  readonly path: string;
  end: number;
}

export async function openSink(
  path: string,
  sourceName: string,
  warn: (path: string, reason: string) => void,
): Promise<CopySink> {
  const trimmed = path.replace(/(?<=.)\/+$/, "");
  try {
    const isFolder = statSync(trimmed, { throwIfNoEntry: false })?.isDirectory() === true;
    if (isFolder) return new Sink(Folder.open(trimmed), Buffer.from(sourceName), path, warn, false);
    const last = basename(trimmed);
    if (last === "." || last === "..") throw systemError("ENOENT", "no such file or directory");
    return new Sink(Folder.open(dirname(trimmed)), Buffer.from(last), path, warn, trimmed !== path);
  } catch (error) {
    throw hostFailure(error, path);
  }
}

class Sink implements CopySink {
  /** The folder that the copy is made in. */
  readonly #base: Folder;
  /** What the copy is called there; empty: its content goes into the base itself. */
  readonly #rootName: Buffer;
  readonly #shown: string;
  readonly #warn: (path: string, reason: string) => void;
  readonly #mustBeFolder: boolean;
  readonly #open: OpenFolder[] = [];
  #file: OpenFile | undefined;
  #isFirst = true;
  #isClosed = false;

  constructor(base: Folder, rootName: Buffer, shown: string, warn: Sink["warn"], mustBeFolder: boolean) {
    this.#base = base;
    this.#rootName = rootName;
    this.#shown = shown;
    this.#warn = warn;
    this.#mustBeFolder = mustBeFolder;
  }
  get warn(): (path: string, reason: string) => void {
    return this.#warn;
  }
  #path(name: Uint8Array): string {
    const last = this.#open.at(-1);
    return last === undefined ? this.#shown : `${last.path}/${Buffer.from(name).toString()}`;
  }
  async take(step: CopyStep): Promise<void> {
    if (this.#isClosed) return;
    const path = step.is === "entry" ? this.#path(step.entry.name) : (this.#file?.path ?? this.#path(Buffer.alloc(0)));
    try {
      switch (step.is) {
        case "entry":
          this.#entry(step.entry, path);
          break;
        case "data":
          await this.#data(step.offset, step.bytes);
          break;
        case "file-end":
          this.#fileEnd(step.size);
          break;
        case "leave":
          this.#leave();
          break;
      }
    } catch (error) {
      throw hostFailure(error, path);
    }
  }
  #entry(entry: CopyEntry, path: string): void {
    const last = this.#open.at(-1);
    const folder = last?.folder ?? this.#base;
    const name = last === undefined ? this.#rootName : Buffer.from(entry.name);
    if (this.#isFirst && entry.kind !== "directory") {
      if (this.#mustBeFolder) throw systemError("ENOTDIR", "there is no such folder");
      if (name.length === 0) throw systemError("EISDIR", "it is a folder, and the source is none");
    }
    this.#isFirst = false;
    switch (entry.kind) {
      case "directory":
        this.#open.push({ folder: this.#enter(folder, name), entry, path });
        break;
      case "file": {
        refuseFolder(folder, name);
        this.#file = { ...beginPart(folder), folder, name, entry, path, end: 0 };
        break;
      }
      case "symlink":
        makeRoom(folder, name);
        symlinkSync(Buffer.from(entry.target), folder.at(name));
        lutimesSync(folder.at(name), ...times(entry));
        break;
      case "hardlink":
        this.#link(entry, folder, name, path);
        break;
      default:
        this.#warn(path, `a ${entry.kind.replace("-", " ")} cannot be made here`);
    }
  }
  #enter(folder: Folder, name: Buffer): Folder {
    if (name.length === 0) return folder.folder(Buffer.from("."));
    try {
      mkdirSync(folder.at(name), 0o700);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
    return folder.folder(name);
  }
  /** To another name of this copy: found anew from its root, as nothing on the way may be a link. */
  #link(entry: CopyEntry, into: Folder, name: Buffer, path: string): void {
    const names = namesOf(entry.target);
    const last = Buffer.from(names.pop()!);
    const opened: Folder[] = [];
    try {
      let folder = this.#open[0]!.folder;
      for (const step of names) {
        folder = folder.folder(step);
        opened.push(folder);
      }
      if (lstatSync(folder.at(last)).isDirectory()) throw systemError("EISDIR", "a folder has one name only");
      makeRoom(into, name);
      linkSync(folder.at(last), into.at(name));
    } catch (error) {
      // the first name of a fifo or a device was left out, and so is this one
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
      this.#warn(path, `its other name, ${Buffer.from(entry.target).toString()}, is not there`);
    } finally {
      for (const f of opened) f.close();
    }
  }
  async #data(offset: number, bytes: Uint8Array): Promise<void> {
    const file = this.#file!;
    for (let at = 0; at < bytes.length; ) {
      const left = bytes.length - at;
      at +=
        left <= INLINE_BYTES
          ? writeSync(file.fd, bytes, at, left, offset + at)
          : (await writeAt(file.fd, bytes, at, left, offset + at)).bytesWritten;
      // given up meanwhile: the file is closed, and its number may be another's
      if (this.#file !== file) return;
    }
    file.end = offset + bytes.length;
  }
  #fileEnd(size: number): void {
    const { fd, folder, name, partName, entry, end } = this.#file!;
    if (size !== end) ftruncateSync(fd, size);
    fchmodSync(fd, entry.mode & MODE_BITS);
    futimesSync(fd, ...times(entry));
    renameSync(folder.at(partName), folder.at(name));
    this.#file = undefined;
    closeSync(fd);
  }
  #leave(): void {
    const { folder, entry } = this.#open.pop()!;
    try {
      fchmodSync(folder.fd, entry.mode & MODE_BITS);
      futimesSync(folder.fd, ...times(entry));
    } finally {
      folder.close();
    }
  }
  async finish(): Promise<void> {
    this.close();
  }
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const file = this.#file;
    this.#file = undefined;
    if (file !== undefined) {
      closeSync(file.fd);
      // half a file is none
      try {
        unlinkSync(file.folder.at(file.partName));
      } catch {
        // gone already
      }
    }
    for (const { folder } of this.#open.splice(0)) folder.close();
    this.#base.close();
  }
}

const times = ({ mtime }: CopyEntry): [number, number] => {
  const seconds = mtime.seconds + mtime.ns / 1e9;
  return [seconds, seconds];
};

function beginPart(folder: Folder): Pick<OpenFile, "fd" | "partName"> {
  for (;;) {
    const partName = Buffer.from(`.enlighten-${process.pid}-${++parts}.part`);
    try {
      return { fd: folder.open(partName, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600), partName };
    } catch (error) {
      // of a process that was killed, and had the same number
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
  }
}
/** @returns whether there is something else */
function refuseFolder(folder: Folder, name: Buffer): boolean {
  const there = lstatSync(folder.at(name), { throwIfNoEntry: false });
  if (there?.isDirectory() === true) throw fileError("exists", name.toString(), "on this host", "it is a folder");
  return there !== undefined;
}
/** What has the name goes, unless it is a folder. */
function makeRoom(folder: Folder, name: Buffer): void {
  if (refuseFolder(folder, name)) unlinkSync(folder.at(name));
}
