/**
 * Folders of the host as a guest sees them: NFS version 3 (RFC 1813) over ONC RPC (RFC 5531), spoken by the guest's own kernel, with a
 * server in this process that nothing but the guest's own network adapter reaches.
 *
 *     guest's kernel ── hv_netvsc ── net/nat (10.0.2.3:2049) ── file-server: records, limits
 *                                                                rpc: calls;  mount3, nfs3: procedures
 *                                                                Share: the folder (host/node/share-folder.ts)
 *
 * This file is what the procedures need of a folder. Nodes are numbers that the share gives out: a guest can only name what it was
 * shown. Everything is checked by the share, which trusts no name and no number.
 */

/** nfsstat3 (RFC 1813, 2.6), those that are used. */
export const NfsStatus = {
  OK: 0,
  PERM: 1,
  NOENT: 2,
  IO: 5,
  NXIO: 6,
  ACCES: 13,
  EXIST: 17,
  XDEV: 18,
  NODEV: 19,
  NOTDIR: 20,
  ISDIR: 21,
  INVAL: 22,
  FBIG: 27,
  NOSPC: 28,
  ROFS: 30,
  MLINK: 31,
  NAMETOOLONG: 63,
  NOTEMPTY: 66,
  DQUOT: 69,
  STALE: 70,
  BADHANDLE: 10001,
  NOT_SYNC: 10002,
  BAD_COOKIE: 10003,
  NOTSUPP: 10004,
  TOOSMALL: 10005,
  SERVERFAULT: 10006,
  BADTYPE: 10007,
} as const;
export type NfsStatus = (typeof NfsStatus)[keyof typeof NfsStatus];

/** A procedure's answer when it did not work. */
export class ShareError extends Error {
  override readonly name = "ShareError";
  readonly status: NfsStatus;
  constructor(status: NfsStatus, message = `status ${status}`) {
    super(message);
    this.status = status;
  }
}

/** ftype3. */
export const FileType = { REG: 1, DIR: 2, BLK: 3, CHR: 4, LNK: 5, SOCK: 6, FIFO: 7 } as const;
export type FileType = (typeof FileType)[keyof typeof FileType];

/** Of a file (fattr3); times in ns since 1970. */
export interface Attributes {
  readonly type: FileType;
  readonly mode: number;
  readonly nlink: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: bigint;
  /** Bytes that it takes. */
  readonly used: bigint;
  readonly major: number;
  readonly minor: number;
  readonly fileid: bigint;
  readonly atime: bigint;
  readonly mtime: bigint;
  readonly ctime: bigint;
}
/** What SETATTR changes (sattr3). */
export interface NewAttributes {
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly size?: bigint;
  /** "now": the host's time. */
  readonly atime?: bigint | "now";
  readonly mtime?: bigint | "now";
}

export interface Found {
  readonly node: number;
  readonly attributes: Attributes;
}
export interface Entry {
  readonly name: Uint8Array;
  /** Where the next call goes on. */
  readonly cookie: bigint;
  readonly fileid: bigint;
  /** Undefined where it went meanwhile, or was not asked for. */
  readonly found: Found | undefined;
}
export interface Space {
  readonly totalBytes: bigint;
  readonly freeBytes: bigint;
  readonly availableBytes: bigint;
  readonly totalFiles: bigint;
  readonly freeFiles: bigint;
}

/** One folder. Every call may throw a ShareError. Names are single ones; the share checks them. */
export interface Share {
  readonly isReadOnly: boolean;
  readonly root: number;
  attributes(node: number): Attributes;
  setAttributes(node: number, set: NewAttributes): void;
  /** Looking something up in the folder comes behind that, which does not take long; undefined: at once. */
  lookupWaits(folder: number): Promise<void> | undefined;
  lookup(folder: number, name: Uint8Array): Found;
  parent(folder: number): Found;
  readLink(node: number): Uint8Array;
  /** @returns how many bytes there were */
  read(node: number, offset: bigint, into: Uint8Array): number;
  write(node: number, offset: bigint, bytes: Uint8Array): void;
  /** Puts what was written on the disk. */
  commit(node: number): Promise<void>;
  /** @param how "exclusive": with a verifier, so that a call which is repeated finds its own file */
  create(
    folder: number,
    name: Uint8Array,
    how: "unchecked" | "guarded" | "exclusive",
    set: NewAttributes,
    verifier: bigint,
  ): Found;
  makeFolder(folder: number, name: Uint8Array, set: NewAttributes): Found;
  makeLink(folder: number, name: Uint8Array, target: Uint8Array): Found;
  remove(folder: number, name: Uint8Array): void;
  removeFolder(folder: number, name: Uint8Array): void;
  rename(from: number, name: Uint8Array, to: number, newName: Uint8Array): void;
  link(node: number, folder: number, name: Uint8Array): void;
  /**
   * Entries behind a cookie (0n: from the beginning), one by one.
   * @param verifier of the listing that the cookie is from
   */
  list(folder: number, cookie: bigint, verifier: bigint, plus: boolean): { verifier: bigint; entries: Iterator<Entry> };
  space(): Space;
  /** What the guest was shown, as plain data. */
  save(): unknown;
  /** Of the same folder, perhaps by another process; of another one nothing is taken over, and the guest's handles are stale. */
  restore(state: unknown): void;
  close(): void;
}
