/** A file or a tree of the host, step by step: what is copied into a guest. */
import {
  type BigIntStats,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  read,
  readlinkSync,
  statSync,
} from "node:fs";
import { basename } from "node:path";
import { promisify } from "node:util";
import type { CopySource } from "../../vm/copy-files.js";
import { COPY_CHUNK, type CopyEntry, type CopyStep, type EntryKind, MAX_DEPTH } from "../../vm/copy-protocol.js";
import { lastName } from "../../vm/guest-copy.js";
import { hostFailure } from "./copy-failure.js";
import { Folder } from "./folder.js";

const readAt = promisify(read);
/** Unit in which zeros are looked for. */
const BLOCK = 4096;
const ZERO = Buffer.alloc(BLOCK);
const NOTHING = new Uint8Array(0);

export async function openSource(path: string): Promise<CopySource> {
  // "link/" means what it leads to, "link" the link
  const follows = /[/\\]$/.test(path) || lastName(path) === "";
  try {
    const root = follows ? statSync(path, { bigint: true }) : lstatSync(path, { bigint: true });
    const totalBytes = root.isDirectory() ? await sizeOf(Folder.open(path), 0) : root.isFile() ? dataBytes(root) : 0;
    return {
      name: Buffer.from(lastName(path) === "" ? "" : basename(path)),
      totalBytes,
      steps: () => new Walk(path, follows).steps(root),
    };
  } catch (error) {
    throw hostFailure(error, path);
  }
}

const dataBytes = (s: BigIntStats): number => {
  const held = Number(s.blocks) * 512;
  return s.blocks === undefined || held > Number(s.size) ? Number(s.size) : held;
};
/** What there is to copy, by a look at all of it; what cannot be read here fails later, with its name. */
async function sizeOf(folder: Folder, depth: number): Promise<number> {
  let bytes = 0;
  try {
    for (const name of folder.names()) {
      try {
        const s = lstatSync(folder.at(name), { bigint: true });
        if (s.isFile()) bytes += dataBytes(s);
        else if (s.isDirectory() && depth < MAX_DEPTH) bytes += await sizeOf(folder.folder(name), depth + 1);
      } catch {
        // gone meanwhile, or not for us
      }
    }
  } finally {
    folder.close();
  }
  await new Promise((resolve) => setImmediate(resolve));
  return bytes;
}

function kindOf(s: BigIntStats): EntryKind {
  if (s.isFile()) return "file";
  if (s.isDirectory()) return "directory";
  if (s.isSymbolicLink()) return "symlink";
  if (s.isFIFO()) return "fifo";
  if (s.isSocket()) return "socket";
  return s.isBlockDevice() ? "block-device" : "character-device";
}

const vanished = (error: unknown): boolean => (error as NodeJS.ErrnoException).code === "ENOENT";

/** One walk, depth first. */
class Walk {
  readonly #path: string;
  readonly #follows: boolean;
  readonly #buffer = Buffer.alloc(COPY_CHUNK);
  /** Files with several names, by device and inode: the path from the root under which they were sent. */
  readonly #linked = new Map<string, Buffer>();

  constructor(path: string, follows: boolean) {
    this.#path = path;
    this.#follows = follows;
  }
  #entry(s: BigIntStats, kind: EntryKind, name: Uint8Array, target: Uint8Array): CopyEntry {
    const rdev = s.rdev;
    return {
      kind,
      name,
      mode: Number(s.mode & 0o7777n),
      mtime: {
        seconds: Number(s.mtimeNs / 1_000_000_000n),
        ns: Number(((s.mtimeNs % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n),
      },
      size: Number(s.size),
      // Linux: makedev(3)
      major: Number((rdev >> 8n) & 0xfffn),
      minor: Number((rdev & 0xffn) | ((rdev >> 12n) & 0xfff00n)),
      target,
    };
  }
  async *steps(root: BigIntStats): AsyncGenerator<CopyStep, void, void> {
    const name = Buffer.from(basename(this.#path));
    let shown = this.#path;
    const open: { folder: Folder; names: Buffer[]; next: number; path: Buffer }[] = [];
    try {
      if (!root.isDirectory()) {
        if (root.isFile()) {
          const fd = openSync(
            this.#path,
            constants.O_RDONLY | (constants.O_NONBLOCK ?? 0) | (this.#follows ? 0 : (constants.O_NOFOLLOW ?? 0)),
          );
          yield* this.#file(fd, name);
        } else yield { is: "entry", entry: this.#other(root, name, () => readlinkSync(this.#path, "buffer")) };
        return;
      }
      const top = this.#follows ? Folder.open(this.#path) : Folder.openNoFollow(this.#path);
      open.push({ folder: top, names: top.names(), next: 0, path: Buffer.alloc(0) });
      yield { is: "entry", entry: this.#entry(fstatSync(top.fd, { bigint: true }), "directory", name, NOTHING) };
      for (let last = open.at(-1); last !== undefined; last = open.at(-1)) {
        const child = last.names[last.next++];
        if (child === undefined) {
          last.folder.close();
          open.pop();
          yield { is: "leave" };
          continue;
        }
        const path = last.path.length === 0 ? child : Buffer.concat([last.path, Buffer.from("/"), child]);
        shown = `${this.#path}/${path.toString()}`;
        try {
          const s = lstatSync(last.folder.at(child), { bigint: true });
          if (s.isDirectory()) {
            if (open.length >= MAX_DEPTH)
              throw Object.assign(new Error("folders that are too deep"), { code: "ELOOP" });
            const folder = last.folder.folder(child);
            open.push({ folder, names: folder.names(), next: 0, path });
            yield {
              is: "entry",
              entry: this.#entry(fstatSync(folder.fd, { bigint: true }), "directory", child, NOTHING),
            };
            continue;
          }
          if (s.nlink > 1n) {
            const key = `${s.dev} ${s.ino}`;
            const first = this.#linked.get(key);
            if (first !== undefined) {
              yield { is: "entry", entry: this.#entry(s, "hardlink", child, first) };
              continue;
            }
            this.#linked.set(key, path);
          }
          if (s.isFile()) yield* this.#file(last.folder.open(child, constants.O_RDONLY), child);
          else
            yield {
              is: "entry",
              entry: this.#other(s, child, () => readlinkSync(last.folder.at(child), "buffer")),
            };
        } catch (error) {
          if (!vanished(error)) throw error;
          yield { is: "warning", path: shown, reason: "it went away meanwhile" };
        }
      }
    } catch (error) {
      throw hostFailure(error, shown);
    } finally {
      for (const { folder } of open) folder.close();
    }
  }
  #other(s: BigIntStats, name: Uint8Array, readLink: () => Uint8Array): CopyEntry {
    const kind = kindOf(s);
    return this.#entry(s, kind, name, kind === "symlink" ? readLink() : NOTHING);
  }
  async *#file(fd: number, name: Uint8Array): AsyncGenerator<CopyStep, void, void> {
    try {
      const s = fstatSync(fd, { bigint: true });
      const kind = kindOf(s);
      yield { is: "entry", entry: this.#entry(s, kind, name, NOTHING) };
      if (kind !== "file") return;
      const isSparse = s.blocks !== undefined && s.blocks * 512n < s.size;
      let at = 0;
      for (;;) {
        const { bytesRead } = await readAt(fd, this.#buffer, 0, COPY_CHUNK, at);
        if (bytesRead === 0) break;
        const bytes = this.#buffer.subarray(0, bytesRead);
        if (isSparse) yield* withoutHoles(bytes, at);
        else yield { is: "data", offset: at, bytes };
        at += bytesRead;
      }
      yield { is: "file-end", size: at };
    } finally {
      closeSync(fd);
    }
  }
}

/** Runs of blocks that are not zero. */
function* withoutHoles(bytes: Buffer, offset: number): Generator<CopyStep> {
  let from = -1;
  for (let at = 0; at < bytes.length; at += BLOCK) {
    const block = bytes.subarray(at, Math.min(at + BLOCK, bytes.length));
    const isZero = block.equals(block.length === BLOCK ? ZERO : ZERO.subarray(0, block.length));
    if (!isZero && from < 0) from = at;
    if (isZero && from >= 0) {
      yield { is: "data", offset: offset + from, bytes: bytes.subarray(from, at) };
      from = -1;
    }
  }
  if (from >= 0) yield { is: "data", offset: offset + from, bytes: bytes.subarray(from) };
}
