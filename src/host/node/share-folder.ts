/**
 * A folder of the host for a guest (services/files/share.ts). Every path is walked by open folders and single names (folder.ts), so that
 * nothing outside is reached: not by "..", not by links (their text is handed out, and followed by the guest in its own world), not by
 * something that changes meanwhile. What the host's user owns is root's in the guest; what a guest writes is the host's user's.
 */
import {
  type BigIntStats,
  chmodSync,
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  fsync,
  ftruncateSync,
  futimesSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  readlinkSync,
  readSync,
  renameSync,
  rmdirSync,
  statfsSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeSync,
} from "node:fs";
import { performance } from "node:perf_hooks";
import { promisify } from "node:util";
import {
  type Attributes,
  type Entry,
  FileType,
  type Found,
  type NewAttributes,
  NfsStatus,
  type Share,
  ShareError,
  type Space,
} from "../../services/files/share.js";
import { isName } from "../../vm/copy-protocol.js";
import { Folder } from "./folder.js";
import { type ChangedPaths, ShareChanges } from "./share-changes.js";
import { type Node, type SavedNodes, ShareNodes } from "./share-nodes.js";
import { ShareScans } from "./share-scans.js";

const synced = promisify(fsync);
const { O_RDONLY, O_RDWR, O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW = 0 } = constants;
/** Linux: an open file that stands for its inode alone. */
const O_PATH = 0o10000000;
const HAS_O_PATH = process.platform === "linux";
/** Open at once. */
const MAX_FOLDERS = 300;
const MAX_FILES = 64;
/** Deeper is nothing that a path could name in one piece; and all folders of a path are open at once. */
const MAX_DEPTH = 128;
/** How long an open folder counts as where it was: a user may move it away. */
const CHECK_MS = 500;
const MAX_LISTINGS = 32;
const MAX_LISTED_NAMES = 500_000;
const MAX_VERIFIERS = 1000;
/** Others than the host's user. */
const NOBODY = 65_534;
/** A guest does not lend the host's user's rights to others: without setuid and setgid. */
const MODE_BITS = 0o1777;

const STATUS: Record<string, NfsStatus> = {
  EPERM: NfsStatus.PERM,
  ENOENT: NfsStatus.NOENT,
  EIO: NfsStatus.IO,
  ENXIO: NfsStatus.NXIO,
  EACCES: NfsStatus.ACCES,
  EEXIST: NfsStatus.EXIST,
  EXDEV: NfsStatus.XDEV,
  ENODEV: NfsStatus.NODEV,
  ENOTDIR: NfsStatus.NOTDIR,
  EISDIR: NfsStatus.ISDIR,
  EINVAL: NfsStatus.INVAL,
  EFBIG: NfsStatus.FBIG,
  ENOSPC: NfsStatus.NOSPC,
  EROFS: NfsStatus.ROFS,
  EMLINK: NfsStatus.MLINK,
  ENAMETOOLONG: NfsStatus.NAMETOOLONG,
  ENOTEMPTY: NfsStatus.NOTEMPTY,
  EDQUOT: NfsStatus.DQUOT,
  ESTALE: NfsStatus.STALE,
  // a link where something else was
  ELOOP: NfsStatus.STALE,
  ENOTSUP: NfsStatus.NOTSUPP,
  EOPNOTSUPP: NfsStatus.NOTSUPP,
};
/** Runs calls of the system; their errors are the guest's to know. */
function system<T>(run: () => T): T {
  try {
    return run();
  } catch (error) {
    throw asShareError(error);
  }
}
function asShareError(error: unknown): unknown {
  const { code } = error as NodeJS.ErrnoException;
  if (error instanceof ShareError || code === undefined || !/^E[A-Z0-9]+$/.test(code)) return error;
  return new ShareError(STATUS[code] ?? NfsStatus.IO, (error as Error).message);
}

function typeOf(s: BigIntStats): FileType {
  if (s.isFile()) return FileType.REG;
  if (s.isDirectory()) return FileType.DIR;
  if (s.isSymbolicLink()) return FileType.LNK;
  if (s.isFIFO()) return FileType.FIFO;
  if (s.isSocket()) return FileType.SOCK;
  return s.isBlockDevice() ? FileType.BLK : FileType.CHR;
}

/** What is looked for is mostly not there: made once, as an error's stack takes longer than the look. */
const NO_ENTRY = new ShareError(NfsStatus.NOENT);

/** What the guest should know without asking. */
export interface ToGuest {
  /** What is not as it was shown. */
  readonly onChanged: (paths: ChangedPaths) => void;
  /** It goes through a folder file by file; with `from`, through all below it, and is at that one. */
  readonly onScan: (path: Uint8Array, from: Uint8Array | undefined) => void;
  /** Folders that are watched at most; in others changes are found by looking. */
  readonly maxWatched?: number;
}

interface OpenFile {
  readonly fd: number;
  readonly isWritable: boolean;
}

export class FolderShare implements Share {
  readonly isReadOnly: boolean;
  readonly root: number;
  readonly #root: Folder;
  readonly #nodes: ShareNodes;
  readonly #uid = BigInt(process.getuid?.() ?? 0);
  readonly #gid = BigInt(process.getgid?.() ?? 0);
  /** The end is the most recently used. */
  readonly #folders = new Map<Node, { readonly folder: Folder; checkedAt: number }>();
  readonly #files = new Map<Node, OpenFile>();
  readonly #listings = new Map<bigint, { readonly node: Node; readonly names: readonly Buffer[] }>();
  #listedNames = 0;
  #nextListing = 1n;
  readonly #verifiers = new Map<Node, bigint>();
  readonly #changes: ShareChanges | undefined;
  readonly #scans: ShareScans | undefined;

  /**
   * @param toGuest without, nothing is watched
   * @throws what the system says about the folder
   */
  constructor(directory: string, isReadOnly: boolean, toGuest?: ToGuest) {
    this.isReadOnly = isReadOnly;
    this.#root = Folder.open(directory);
    this.#nodes = new ShareNodes(fstatSync(this.#root.fd, { bigint: true }), (node) => this.#drop(node));
    this.root = this.#nodes.root.id;
    if (toGuest === undefined) return;
    const view = {
      nodes: this.#nodes,
      folder: (node: Node) => this.#folder(node),
      look: (folder: Folder, name: Buffer) => lstatSync(folder.at(name), { bigint: true, throwIfNoEntry: false }),
      lookAt: (node: Node) => this.#look(node).s,
    };
    this.#changes = new ShareChanges(view, toGuest.onChanged, toGuest.maxWatched);
    this.#changes.watch(this.#nodes.root, this.#root);
    this.#scans = new ShareScans(
      this.#nodes.root,
      () => performance.now(),
      (folder, from) => {
        const path = this.#nodes.pathOf(folder);
        const first = from === undefined ? undefined : this.#nodes.pathOf(from);
        if (path !== undefined) toGuest.onScan(path, first);
      },
    );
  }
  /** Folders in which changes are told of. */
  get watched(): number {
    return this.#changes?.watched ?? 0;
  }
  /** Tells what has changed without being heard of. */
  lookAround(): void {
    this.#changes?.lookAround();
  }
  get nodes(): number {
    return this.#nodes.count;
  }
  get openFiles(): number {
    return this.#files.size + this.#folders.size + 1;
  }

  // ---- from numbers to files --------------------------------------------------------------------------------------------
  #drop(node: Node): void {
    this.#closeFolder(node);
    this.#closeFile(node);
    this.#verifiers.delete(node);
    this.#changes?.forget(node);
    this.#scans?.forget(node);
  }
  #closeFolder(node: Node): void {
    const open = this.#folders.get(node);
    if (open === undefined) return;
    this.#folders.delete(node);
    open.folder.close();
  }
  #closeFile(node: Node): void {
    const file = this.#files.get(node);
    if (file === undefined) return;
    this.#files.delete(node);
    closeSync(file.fd);
  }
  #stale(node: Node): never {
    this.#nodes.forget(node);
    throw new ShareError(NfsStatus.STALE);
  }
  /** An open folder; it stays open for the next few calls at least. */
  #folder(node: Node, depth = 0): Folder {
    if (node === this.#nodes.root) return this.#root;
    const now = performance.now();
    const open = this.#folders.get(node);
    if (open !== undefined && now - open.checkedAt < CHECK_MS) return open.folder;
    const place = node.places[0];
    if (place === undefined) this.#stale(node);
    if (depth >= MAX_DEPTH) throw new ShareError(NfsStatus.NAMETOOLONG);
    const parent = this.#folder(place.parent, depth + 1);
    if (open !== undefined) {
      const s = lstatSync(parent.at(place.name), { bigint: true, throwIfNoEntry: false });
      if (s === undefined || !this.#nodes.matches(node, s)) this.#stale(node);
      open.checkedAt = now;
      this.#folders.delete(node);
      this.#folders.set(node, open);
      return open.folder;
    }
    let folder: Folder;
    try {
      folder = parent.folder(place.name);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "ENOENT" || code === "ELOOP") this.#stale(node);
      // not a folder any more, unless it never was one
      if (code === "ENOTDIR") throw new ShareError(NfsStatus.NOTDIR);
      throw error;
    }
    if (!this.#nodes.matches(node, fstatSync(folder.fd, { bigint: true }))) {
      folder.close();
      this.#stale(node);
    }
    this.#folders.set(node, { folder, checkedAt: now });
    if (this.#folders.size > MAX_FOLDERS) {
      const [oldest, { folder: last }] = this.#folders.entries().next().value!;
      this.#folders.delete(oldest);
      last.close();
    }
    return folder;
  }
  #folderOf(id: number): { readonly node: Node; readonly folder: Folder } {
    const node = this.#nodes.get(id);
    const folder = this.#folder(node);
    this.#changes?.watch(node, folder);
    return { node, folder };
  }
  /** Where it is now, and what it is. */
  #look(node: Node): { readonly s: BigIntStats; readonly folder: Folder; readonly name: Buffer | undefined } {
    if (node === this.#nodes.root) {
      const s = fstatSync(this.#root.fd, { bigint: true });
      // the folder itself was removed
      if (s.nlink === 0n) throw new ShareError(NfsStatus.STALE);
      return { s, folder: this.#root, name: undefined };
    }
    for (const place of [...node.places]) {
      const folder = this.#folder(place.parent);
      const s = lstatSync(folder.at(place.name), { bigint: true, throwIfNoEntry: false });
      if (s !== undefined && this.#nodes.matches(node, s)) return { s, folder, name: place.name };
      this.#nodes.left(node, place.parent, place.name);
    }
    return this.#stale(node);
  }
  #name(name: Uint8Array): Buffer {
    if (!isName(name)) throw new ShareError(name.length > 255 ? NfsStatus.NAMETOOLONG : NfsStatus.INVAL);
    return Buffer.from(name);
  }
  #convert(s: BigIntStats): Attributes {
    return {
      type: typeOf(s),
      mode: Number(s.mode & 0o7777n),
      nlink: Number(s.nlink),
      uid: s.uid === this.#uid ? 0 : NOBODY,
      gid: s.gid === this.#gid ? 0 : NOBODY,
      size: s.size,
      used: (s.blocks ?? 0n) * 512n,
      major: Number((s.rdev >> 8n) & 0xfffn),
      minor: Number((s.rdev & 0xffn) | ((s.rdev >> 12n) & 0xfff00n)),
      // another file system may have the same numbers
      fileid: s.dev === this.#nodes.root.dev ? s.ino : s.ino ^ (s.dev << 44n),
      atime: s.atimeNs,
      mtime: s.mtimeNs,
      ctime: s.ctimeNs,
    };
  }
  /** What the guest is told of it. */
  #show(node: Node, s: BigIntStats): Attributes {
    if (this.#changes !== undefined) node.shown = { ctime: s.ctimeNs, size: s.size };
    return this.#convert(s);
  }
  /** The guest has changed it itself, without being shown how it is now: it knows that, and will ask. */
  #isAskedFor(node: Node): void {
    node.shown = undefined;
  }
  #found(parent: Node, name: Buffer, s: BigIntStats): Found {
    const node = this.#nodes.found(parent, name, s);
    return { node: node.id, attributes: this.#show(node, s) };
  }
  #lookUp(parent: Node, folder: Folder, name: Buffer): Found {
    const s = lstatSync(folder.at(name), { bigint: true, throwIfNoEntry: false });
    if (s === undefined) throw NO_ENTRY;
    return this.#found(parent, name, s);
  }

  // ---- looking ----------------------------------------------------------------------------------------------------------
  attributes(id: number): Attributes {
    return system(() => {
      const node = this.#nodes.get(id);
      return this.#show(node, this.#look(node).s);
    });
  }
  lookupWaits(folder: number): Promise<void> | undefined {
    return this.#scans?.wait(this.#nodes.get(folder));
  }
  lookup(folder: number, name: Uint8Array): Found {
    const n = this.#name(name);
    return system(() => {
      const at = this.#folderOf(folder);
      const found = this.#lookUp(at.node, at.folder, n);
      this.#scans?.lookedUp(at.node);
      return found;
    });
  }
  parent(folder: number): Found {
    return system(() => {
      const { node } = this.#folderOf(folder);
      const parent = node.places[0]?.parent ?? this.#nodes.root;
      return { node: parent.id, attributes: this.#show(parent, this.#look(parent).s) };
    });
  }
  readLink(id: number): Uint8Array {
    return system(() => {
      const { s, folder, name } = this.#look(this.#nodes.get(id));
      if (!s.isSymbolicLink() || name === undefined) throw new ShareError(NfsStatus.INVAL);
      return readlinkSync(folder.at(name), "buffer");
    });
  }
  list(id: number, cookie: bigint, verifier: bigint, plus: boolean): { verifier: bigint; entries: Iterator<Entry> } {
    return system(() => {
      const { node, folder } = this.#folderOf(id);
      let of = verifier;
      if (plus) this.#scans?.lists(node);
      if (cookie === 0n) of = this.#newListing(node, folder.names());
      const listing = this.#listings.get(of);
      if (listing === undefined || listing.node !== node || cookie > BigInt(listing.names.length + 2))
        throw new ShareError(NfsStatus.BAD_COOKIE);
      return { verifier: of, entries: this.#entries(node, listing.names, Number(cookie), plus) };
    });
  }
  #newListing(node: Node, names: readonly Buffer[]): bigint {
    const id = this.#nextListing++;
    this.#listings.set(id, { node, names });
    this.#listedNames += names.length;
    for (const [old, listing] of this.#listings) {
      if (this.#listings.size <= MAX_LISTINGS && this.#listedNames <= MAX_LISTED_NAMES) break;
      if (old === id) break;
      this.#listings.delete(old);
      this.#listedNames -= listing.names.length;
    }
    return id;
  }
  *#entries(node: Node, names: readonly Buffer[], from: number, plus: boolean): Generator<Entry> {
    for (let i = from; i < names.length + 2; i++) {
      const cookie = BigInt(i + 1);
      if (i < 2) {
        const of = i === 0 ? node : (node.places[0]?.parent ?? node);
        const found = { node: of.id, attributes: system(() => this.#show(of, this.#look(of).s)) };
        const name = Buffer.from(i === 0 ? "." : "..");
        yield { name, cookie, fileid: found.attributes.fileid, found: plus ? found : undefined };
        continue;
      }
      const name = names[i - 2]!;
      // asked for each time: the folder may have been closed meanwhile
      const s = system(() => lstatSync(this.#folder(node).at(name), { bigint: true, throwIfNoEntry: false }));
      if (s === undefined) continue;
      const found = plus ? this.#found(node, name, s) : undefined;
      yield { name, cookie, fileid: found?.attributes.fileid ?? this.#convert(s).fileid, found };
    }
    if (plus) this.#scans?.hasListed(node);
  }
  space(): Space {
    return system(() => {
      const path = HAS_O_PATH ? `/proc/self/fd/${this.#root.fd}` : this.#root.at(Buffer.from("."));
      const s = statfsSync(path, { bigint: true });
      return {
        totalBytes: s.blocks * s.bsize,
        freeBytes: s.bfree * s.bsize,
        availableBytes: s.bavail * s.bsize,
        totalFiles: s.files,
        freeFiles: s.ffree,
      };
    });
  }

  // ---- content ----------------------------------------------------------------------------------------------------------
  #file(node: Node, toWrite: boolean): number {
    const open = this.#files.get(node);
    if (open !== undefined && (open.isWritable || !toWrite)) {
      this.#files.delete(node);
      this.#files.set(node, open);
      return open.fd;
    }
    const { s, folder, name } = this.#look(node);
    if (s.isDirectory()) throw new ShareError(NfsStatus.ISDIR);
    if (!s.isFile() || name === undefined) throw new ShareError(NfsStatus.INVAL);
    const fd = toWrite ? this.#openToWrite(node, folder, name, s) : folder.open(name, O_RDONLY);
    if (!this.#nodes.matches(node, fstatSync(fd, { bigint: true }))) {
      closeSync(fd);
      this.#stale(node);
    }
    this.#keep(node, { fd, isWritable: toWrite });
    return fd;
  }
  #keep(node: Node, file: OpenFile): void {
    this.#closeFile(node);
    this.#files.set(node, file);
    if (this.#files.size > MAX_FILES) this.#closeFile(this.#files.keys().next().value!);
  }
  /** Root in the guest writes to its files whatever their mode; the host's user changes the mode for the moment. */
  #openToWrite(node: Node, folder: Folder, name: Buffer, s: BigIntStats): number {
    try {
      return folder.open(name, O_RDWR);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EACCES" || s.uid !== this.#uid || !HAS_O_PATH) throw error;
    }
    return this.#pinned(node, (path) => {
      const mode = Number(s.mode & 0o7777n);
      chmodSync(path, mode | 0o600);
      try {
        return openSync(path, O_RDWR);
      } finally {
        chmodSync(path, mode);
      }
    });
  }
  /** Calls that take a path, on this very inode. */
  #pinned<T>(node: Node, run: (path: string) => T): T {
    const { folder, name } = this.#look(node);
    const fd = openSync(folder.at(name ?? Buffer.from(".")), O_PATH | O_NOFOLLOW);
    try {
      if (!this.#nodes.matches(node, fstatSync(fd, { bigint: true }))) this.#stale(node);
      return run(`/proc/self/fd/${fd}`);
    } finally {
      closeSync(fd);
    }
  }
  read(id: number, offset: bigint, into: Uint8Array): number {
    return system(() => {
      const fd = this.#file(this.#nodes.get(id), false);
      let n = 0;
      while (n < into.length) {
        const got = readSync(fd, into, n, into.length - n, Number(offset) + n);
        if (got === 0) break;
        n += got;
      }
      return n;
    });
  }
  write(id: number, offset: bigint, bytes: Uint8Array): void {
    system(() => {
      const fd = this.#file(this.#nodes.get(id), true);
      for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at, bytes.length - at, Number(offset) + at);
    });
  }
  async commit(id: number): Promise<void> {
    const node = this.#nodes.get(id);
    // one that is closed meanwhile would be another's number: a file of its own
    let fd: number | undefined;
    try {
      const { s, folder, name } = this.#look(node);
      if (!s.isFile() || name === undefined) return;
      try {
        fd = folder.open(name, O_RDONLY);
      } catch {
        // not readable: what was written by the one that is open
        fd = folder.open(name, O_WRONLY);
      }
      await synced(fd);
    } catch (error) {
      throw asShareError(error);
    } finally {
      if (fd !== undefined) closeSync(fd);
    }
  }

  // ---- changes ----------------------------------------------------------------------------------------------------------
  #mayChange(): void {
    if (this.isReadOnly) throw new ShareError(NfsStatus.ROFS);
  }
  setAttributes(id: number, set: NewAttributes): void {
    this.#mayChange();
    system(() => this.#set(this.#nodes.get(id), set));
  }
  #set(node: Node, set: NewAttributes): void {
    const { s, folder, name } = this.#look(node);
    const is = this.#convert(s);
    // all files are the host's user's, and stay that
    if ((set.uid ?? is.uid) !== is.uid || (set.gid ?? is.gid) !== is.gid) throw new ShareError(NfsStatus.PERM);
    const now = (): number => Date.now() / 1000;
    const time = (t: bigint | "now" | undefined, old: bigint): number => (t === "now" ? now() : Number(t ?? old) / 1e9);
    const hasTimes = set.atime !== undefined || set.mtime !== undefined;
    if (s.isSymbolicLink()) {
      if (hasTimes && name !== undefined)
        lutimesSync(folder.at(name), time(set.atime, s.atimeNs), time(set.mtime, s.mtimeNs));
      return;
    }
    if (set.size !== undefined) {
      if (s.isDirectory()) throw new ShareError(NfsStatus.ISDIR);
      if (set.size > BigInt(Number.MAX_SAFE_INTEGER)) throw new ShareError(NfsStatus.FBIG);
      ftruncateSync(this.#file(node, true), Number(set.size));
    }
    if (set.mode === undefined && !hasTimes) return;
    const change = (path: string | undefined, fd: number): void => {
      if (set.mode !== undefined) {
        if (path !== undefined) chmodSync(path, set.mode & MODE_BITS);
        else fchmodSync(fd, set.mode & MODE_BITS);
      }
      if (!hasTimes) return;
      const times = [time(set.atime, s.atimeNs), time(set.mtime, s.mtimeNs)] as const;
      if (path !== undefined) utimesSync(path, ...times);
      else futimesSync(fd, ...times);
    };
    if (HAS_O_PATH) this.#pinned(node, (path) => change(path, -1));
    else if (s.isDirectory()) change(undefined, this.#folder(node).fd);
    else change(undefined, this.#file(node, false));
  }
  create(
    folder: number,
    name: Uint8Array,
    how: "unchecked" | "guarded" | "exclusive",
    set: NewAttributes,
    verifier: bigint,
  ): Found {
    this.#mayChange();
    const n = this.#name(name);
    return system(() => {
      const at = this.#folderOf(folder);
      let fd: number;
      let isNew = true;
      try {
        fd = at.folder.open(n, O_RDWR | O_CREAT | O_EXCL, 0o600);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "EEXIST" || how === "guarded") throw error;
        const there = this.#lookUp(at.node, at.folder, n);
        const node = this.#nodes.get(there.node);
        // the same call, once more
        if (how === "exclusive" && this.#verifiers.get(node) === verifier) return there;
        if (how === "exclusive" || there.attributes.type !== FileType.REG) throw new ShareError(NfsStatus.EXIST);
        isNew = false;
        fd = -1;
      }
      if (!isNew) {
        const there = this.#lookUp(at.node, at.folder, n);
        if (set.size !== undefined) this.#set(this.#nodes.get(there.node), { size: set.size });
        return this.#lookUp(at.node, at.folder, n);
      }
      const node = this.#nodes.found(at.node, n, fstatSync(fd, { bigint: true }));
      this.#keep(node, { fd, isWritable: true });
      if (how === "exclusive") {
        this.#verifiers.set(node, verifier);
        if (this.#verifiers.size > MAX_VERIFIERS) this.#verifiers.delete(this.#verifiers.keys().next().value!);
      } else {
        fchmodSync(fd, (set.mode ?? 0o644) & MODE_BITS);
        if (set.size !== undefined && set.size > 0n) ftruncateSync(fd, Number(set.size));
        if (set.atime !== undefined || set.mtime !== undefined) this.#set(node, { ...times(set) });
      }
      return { node: node.id, attributes: this.#show(node, fstatSync(fd, { bigint: true })) };
    });
  }
  makeFolder(folder: number, name: Uint8Array, set: NewAttributes): Found {
    this.#mayChange();
    const n = this.#name(name);
    return system(() => {
      const at = this.#folderOf(folder);
      mkdirSync(at.folder.at(n), (set.mode ?? 0o755) & MODE_BITS);
      const made = this.#lookUp(at.node, at.folder, n);
      // the host's umask is not the guest's
      this.#set(this.#nodes.get(made.node), { mode: set.mode ?? 0o755 });
      return this.#lookUp(at.node, at.folder, n);
    });
  }
  makeLink(folder: number, name: Uint8Array, target: Uint8Array): Found {
    this.#mayChange();
    const n = this.#name(name);
    if (target.length === 0 || target.includes(0)) throw new ShareError(NfsStatus.INVAL);
    return system(() => {
      const at = this.#folderOf(folder);
      symlinkSync(Buffer.from(target), at.folder.at(n));
      return this.#lookUp(at.node, at.folder, n);
    });
  }
  remove(folder: number, name: Uint8Array): void {
    this.#mayChange();
    const n = this.#name(name);
    system(() => {
      const at = this.#folderOf(folder);
      const s = lstatSync(at.folder.at(n), { bigint: true });
      if (s.isDirectory()) throw new ShareError(NfsStatus.ISDIR);
      unlinkSync(at.folder.at(n));
      this.#unnamed(at.node, n, s);
    });
  }
  /** What had that name has it no more. */
  #unnamed(parent: Node, name: Buffer, s: BigIntStats): void {
    const node = this.#nodes.known(s);
    if (node === undefined) return;
    this.#nodes.left(node, parent, name);
    this.#isAskedFor(node);
    if (s.isDirectory() || s.nlink <= 1n) this.#nodes.forget(node);
  }
  removeFolder(folder: number, name: Uint8Array): void {
    this.#mayChange();
    const n = this.#name(name);
    system(() => {
      const at = this.#folderOf(folder);
      const s = lstatSync(at.folder.at(n), { bigint: true });
      if (!s.isDirectory()) throw new ShareError(NfsStatus.NOTDIR);
      rmdirSync(at.folder.at(n));
      this.#unnamed(at.node, n, s);
    });
  }
  rename(from: number, name: Uint8Array, to: number, newName: Uint8Array): void {
    this.#mayChange();
    const n = this.#name(name);
    const m = this.#name(newName);
    system(() => {
      this.#folderOf(from);
      const target = this.#folderOf(to);
      // the other may have been closed by that
      const source = this.#folderOf(from);
      const s = lstatSync(source.folder.at(n), { bigint: true });
      const over = lstatSync(target.folder.at(m), { bigint: true, throwIfNoEntry: false });
      renameSync(source.folder.at(n), target.folder.at(m));
      // two names of one file: nothing has happened
      if (over !== undefined && over.ino === s.ino && over.dev === s.dev) return;
      if (over !== undefined) this.#unnamed(target.node, m, over);
      // where open folders go by their paths, those below have another now
      if (!HAS_O_PATH && s.isDirectory()) for (const open of [...this.#folders.keys()]) this.#closeFolder(open);
      const node = this.#nodes.known(s);
      if (node === undefined) return;
      this.#nodes.left(node, source.node, n);
      this.#nodes.found(target.node, m, s);
      this.#isAskedFor(node);
    });
  }
  link(id: number, folder: number, name: Uint8Array): void {
    this.#mayChange();
    const n = this.#name(name);
    system(() => {
      const node = this.#nodes.get(id);
      const first = this.#look(node);
      if (first.s.isDirectory() || first.name === undefined) throw new ShareError(NfsStatus.ISDIR);
      const target = this.#folderOf(folder);
      const { folder: source, name: old } = this.#look(node);
      // a link in its place is not followed, and would be found to be no such file
      linkSync(source.at(old!), target.folder.at(n));
      const s = lstatSync(target.folder.at(n), { bigint: true });
      if (!this.#nodes.matches(node, s)) {
        unlinkSync(target.folder.at(n));
        this.#stale(node);
      }
      this.#nodes.found(target.node, n, s);
    });
  }
  save(): unknown {
    return this.#nodes.save();
  }
  restore(state: unknown): void {
    this.#nodes.restore(state as SavedNodes | undefined);
    this.#changes?.lookSoon();
  }
  close(): void {
    this.#changes?.close();
    this.#scans?.close();
    for (const { folder } of this.#folders.values()) folder.close();
    for (const { fd } of this.#files.values()) closeSync(fd);
    this.#folders.clear();
    this.#files.clear();
    this.#root.close();
  }
}

const times = (set: NewAttributes): NewAttributes => ({
  ...(set.atime === undefined ? {} : { atime: set.atime }),
  ...(set.mtime === undefined ? {} : { mtime: set.mtime }),
});
