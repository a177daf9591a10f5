/** The procedures of NFS version 3 (RFC 1813, 3.3): arguments from XDR, one call of the share, results as XDR. */
import { type At, type FileHandles, MAX_HANDLE } from "./handles.js";
import { AcceptStatus, type Call, type Caller } from "./rpc.js";
import { type Attributes, FileType, type Found, type NewAttributes, NfsStatus, ShareError } from "./share.js";
import { XdrError, type XdrReader, type XdrWriter } from "./xdr.js";

export const NFS_PROGRAM = 100_003;
export const NFS_VERSION = 3;
/** Most bytes of one READ or WRITE (rtmax, wtmax), and of a listing. */
export const MAX_IO = 256 << 10;
const MAX_LISTING = 64 << 10;
const MAX_NAME = 255;
const MAX_PATH = 4095;
const NS = 1_000_000_000n;

/** nfsproc3. */
export const NfsProcedure = {
  NULL: 0,
  GETATTR: 1,
  SETATTR: 2,
  LOOKUP: 3,
  ACCESS: 4,
  READLINK: 5,
  READ: 6,
  WRITE: 7,
  CREATE: 8,
  MKDIR: 9,
  SYMLINK: 10,
  MKNOD: 11,
  REMOVE: 12,
  RMDIR: 13,
  RENAME: 14,
  LINK: 15,
  READDIR: 16,
  READDIRPLUS: 17,
  FSSTAT: 18,
  FSINFO: 19,
  PATHCONF: 20,
  COMMIT: 21,
} as const;

/** What follows the status of a call that failed: of the first object, "a": post_op_attr, "w": wcc_data. */
const FAILURES: readonly string[] = [
  "",
  "",
  "w",
  "a",
  "a",
  "a",
  "a",
  "w",
  "w",
  "w",
  "w",
  "w",
  "w",
  "w",
  "ww",
  "aw",
  "a",
  "a",
  "a",
  "a",
  "a",
  "w",
];
/** ACCESS3_*. */
const Access = { READ: 1, LOOKUP: 2, MODIFY: 4, EXTEND: 8, DELETE: 16, EXECUTE: 32 } as const;
/** FSF3_LINK, FSF3_SYMLINK, FSF3_HOMOGENEOUS, FSF3_CANSETTIME. */
const PROPERTIES = 1 | 2 | 8 | 16;
/** createmode3. */
const CREATE_HOW = ["unchecked", "guarded", "exclusive"] as const;
/** stable_how. */
const UNSTABLE = 0;
const FILE_SYNC = 2;
const MAX_FILE_SIZE = (1n << 53n) - 1n;
/** writeverf3: only a server that forgot what it had not committed would change it. */
const WRITE_VERIFIER = 1n;

/** @param w stands behind the accepted reply's head */
export function nfsProcedure(call: Call, w: XdrWriter, handles: FileHandles): AcceptStatus | Promise<void> {
  const failure = FAILURES[call.procedure];
  if (failure === undefined) return AcceptStatus.PROC_UNAVAIL;
  if (call.procedure === NfsProcedure.NULL) return AcceptStatus.SUCCESS;
  const start = w.length;
  const run = new Run(call, w, handles);
  const failed = (error: unknown): void => {
    if (!(error instanceof ShareError)) throw error;
    w.truncate(start);
    w.u32(error.status);
    for (const kind of failure) {
      if (kind === "w") w.bool(false);
      run.attributesOf(failure.length === 1 ? run.first : undefined);
    }
  };
  try {
    w.u32(NfsStatus.OK);
    return run.procedure()?.catch(failed) ?? AcceptStatus.SUCCESS;
  } catch (error) {
    failed(error);
    return AcceptStatus.SUCCESS;
  }
}

class Run {
  readonly #call: Call;
  readonly #r: XdrReader;
  readonly #w: XdrWriter;
  readonly #handles: FileHandles;
  /** What the call is about. */
  first: At | undefined;

  constructor(call: Call, w: XdrWriter, handles: FileHandles) {
    this.#call = call;
    this.#r = call.args;
    this.#w = w;
    this.#handles = handles;
  }

  // ---- arguments and results --------------------------------------------------------------------------------------------
  #object(): At {
    const at = this.#handles.decode(this.#r.opaque(MAX_HANDLE));
    this.first ??= at;
    return at;
  }
  /** One that is changed. */
  #writable(): At {
    const at = this.#object();
    if (at.share.isReadOnly) throw new ShareError(NfsStatus.ROFS);
    return at;
  }
  #name(): Uint8Array {
    const name = this.#r.opaque(MAX_PATH);
    if (name.length > MAX_NAME) throw new ShareError(NfsStatus.NAMETOOLONG);
    return name.slice();
  }
  #time(): bigint {
    const seconds = this.#r.u32();
    return BigInt(seconds) * NS + BigInt(this.#r.u32() % 1_000_000_000);
  }
  #newTime(): bigint | "now" | undefined {
    const how = this.#r.u32();
    if (how > 2) throw new XdrError("no such time_how");
    return how === 0 ? undefined : how === 1 ? "now" : this.#time();
  }
  /** sattr3 */
  #newAttributes(): NewAttributes {
    const r = this.#r;
    const set: { -readonly [K in keyof NewAttributes]: NewAttributes[K] } = {};
    if (r.bool()) set.mode = r.u32() & 0o7777;
    if (r.bool()) set.uid = r.u32();
    if (r.bool()) set.gid = r.u32();
    if (r.bool()) set.size = r.u64();
    const atime = this.#newTime();
    if (atime !== undefined) set.atime = atime;
    const mtime = this.#newTime();
    if (mtime !== undefined) set.mtime = mtime;
    return set;
  }
  #putTime(ns: bigint): void {
    const seconds = ns < 0n ? 0n : ns / NS;
    this.#w.u32(Number(BigInt.asUintN(32, seconds))).u32(ns < 0n ? 0 : Number(ns % NS));
  }
  /** fattr3 */
  #put(a: Attributes, index: number): void {
    const w = this.#w;
    w.u32(a.type).u32(a.mode).u32(a.nlink).u32(a.uid).u32(a.gid).u64(a.size).u64(a.used).u32(a.major).u32(a.minor);
    w.u64(BigInt(index + 1)).u64(a.fileid);
    this.#putTime(a.atime);
    this.#putTime(a.mtime);
    this.#putTime(a.ctime);
  }
  /** post_op_attr; without, where they cannot be had */
  attributesOf(at: At | undefined): void {
    let a: Attributes | undefined;
    try {
      a = at?.share.attributes(at.node);
    } catch (error) {
      if (!(error instanceof ShareError)) throw error;
    }
    this.#w.bool(a !== undefined);
    if (a !== undefined) this.#put(a, at!.index);
  }
  /** wcc_data: how it was before, and how it is now. */
  #change(before: Attributes, at: At): void {
    this.#w.bool(true).u64(before.size);
    this.#putTime(before.mtime);
    this.#putTime(before.ctime);
    this.attributesOf(at);
  }
  #putFound(found: Found, at: At): void {
    this.#w.bool(true).opaque(this.#handles.encode(at.index, found.node));
    this.#w.bool(true);
    this.#put(found.attributes, at.index);
  }
  /** What changes a folder by one of its names. */
  #inFolder(change: (folder: At, name: Uint8Array) => Found | undefined): void {
    const folder = this.#writable();
    const name = this.#name();
    const before = folder.share.attributes(folder.node);
    const found = change(folder, name);
    if (found !== undefined) this.#putFound(found, folder);
    this.#change(before, folder);
  }

  // ---- procedures -------------------------------------------------------------------------------------------------------
  procedure(): Promise<void> | undefined {
    const r = this.#r;
    const w = this.#w;
    switch (this.#call.procedure) {
      case NfsProcedure.GETATTR: {
        const at = this.#object();
        this.#put(at.share.attributes(at.node), at.index);
        return;
      }
      case NfsProcedure.SETATTR: {
        const at = this.#writable();
        const set = this.#newAttributes();
        const before = at.share.attributes(at.node);
        // guard: only while nobody else has changed it
        if (r.bool() && this.#time() !== before.ctime) throw new ShareError(NfsStatus.NOT_SYNC);
        at.share.setAttributes(at.node, set);
        this.#change(before, at);
        return;
      }
      case NfsProcedure.LOOKUP: {
        const at = this.#object();
        const name = this.#name();
        const wait = at.share.lookupWaits(at.node);
        if (wait !== undefined) return wait.then(() => this.#lookUp(at, name));
        this.#lookUp(at, name);
        return;
      }
      case NfsProcedure.ACCESS: {
        const at = this.#object();
        const wanted = r.u32();
        const a = at.share.attributes(at.node);
        w.bool(true);
        this.#put(a, at.index);
        w.u32(wanted & allowed(a, this.#call.caller, at.share.isReadOnly));
        return;
      }
      case NfsProcedure.READLINK: {
        const at = this.#object();
        const text = at.share.readLink(at.node);
        this.attributesOf(at);
        w.opaque(text);
        return;
      }
      case NfsProcedure.READ:
        return this.#read();
      case NfsProcedure.WRITE:
        return this.#write();
      case NfsProcedure.CREATE:
        this.#inFolder((folder, name) => {
          const how = CREATE_HOW[r.u32()];
          if (how === undefined) throw new XdrError("no such createmode3");
          return how === "exclusive"
            ? folder.share.create(folder.node, name, how, {}, r.u64())
            : folder.share.create(folder.node, name, how, this.#newAttributes(), 0n);
        });
        return;
      case NfsProcedure.MKDIR:
        this.#inFolder((folder, name) => folder.share.makeFolder(folder.node, name, this.#newAttributes()));
        return;
      case NfsProcedure.SYMLINK:
        this.#inFolder((folder, name) => {
          this.#newAttributes();
          return folder.share.makeLink(folder.node, name, r.opaque(MAX_PATH).slice());
        });
        return;
      case NfsProcedure.MKNOD:
        // fifos and sockets are between programs of one system
        this.#writable();
        throw new ShareError(NfsStatus.NOTSUPP);
      case NfsProcedure.REMOVE:
        this.#inFolder((folder, name) => void folder.share.remove(folder.node, name));
        return;
      case NfsProcedure.RMDIR:
        this.#inFolder((folder, name) => void folder.share.removeFolder(folder.node, name));
        return;
      case NfsProcedure.RENAME: {
        const from = this.#writable();
        const name = this.#name();
        const to = this.#object();
        const newName = this.#name();
        if (from.share !== to.share) throw new ShareError(NfsStatus.XDEV);
        const before = from.share.attributes(from.node);
        const beforeTo = to.share.attributes(to.node);
        from.share.rename(from.node, name, to.node, newName);
        this.#change(before, from);
        this.#change(beforeTo, to);
        return;
      }
      case NfsProcedure.LINK: {
        const at = this.#writable();
        const folder = this.#object();
        const name = this.#name();
        if (at.share !== folder.share) throw new ShareError(NfsStatus.XDEV);
        const before = folder.share.attributes(folder.node);
        at.share.link(at.node, folder.node, name);
        this.attributesOf(at);
        this.#change(before, folder);
        return;
      }
      case NfsProcedure.READDIR:
        this.#list(false);
        return;
      case NfsProcedure.READDIRPLUS:
        this.#list(true);
        return;
      case NfsProcedure.FSSTAT: {
        const at = this.#object();
        this.attributesOf(at);
        const s = at.share.space();
        w.u64(s.totalBytes).u64(s.freeBytes).u64(s.availableBytes);
        w.u64(s.totalFiles).u64(s.freeFiles).u64(s.freeFiles).u32(0);
        return;
      }
      case NfsProcedure.FSINFO:
        this.attributesOf(this.#object());
        // rtmax, rtpref, rtmult, wtmax, wtpref, wtmult, dtpref, maxfilesize, time_delta, properties
        w.u32(MAX_IO).u32(MAX_IO).u32(4096).u32(MAX_IO).u32(MAX_IO).u32(4096).u32(MAX_LISTING);
        w.u64(MAX_FILE_SIZE).u32(0).u32(1).u32(PROPERTIES);
        return;
      case NfsProcedure.PATHCONF:
        this.attributesOf(this.#object());
        // linkmax, name_max, no_trunc, chown_restricted, case_insensitive, case_preserving
        w.u32(32_000).u32(MAX_NAME).bool(true).bool(true).bool(false).bool(true);
        return;
      case NfsProcedure.COMMIT: {
        const at = this.#writable();
        const before = at.share.attributes(at.node);
        return at.share.commit(at.node).then(() => {
          this.#change(before, at);
          w.u64(WRITE_VERIFIER);
        });
      }
    }
  }
  #lookUp(at: At, name: Uint8Array): void {
    const found = isDots(name, 1)
      ? { node: at.node, attributes: at.share.attributes(at.node) }
      : isDots(name, 2)
        ? at.share.parent(at.node)
        : at.share.lookup(at.node, name);
    this.#w.opaque(this.#handles.encode(at.index, found.node)).bool(true);
    this.#put(found.attributes, at.index);
    this.attributesOf(at);
  }
  #read(): undefined {
    const at = this.#object();
    const offset = this.#r.u64();
    const count = Math.min(this.#r.u32(), MAX_IO);
    const a = at.share.attributes(at.node);
    if (a.type !== FileType.REG) throw new ShareError(a.type === FileType.DIR ? NfsStatus.ISDIR : NfsStatus.INVAL);
    const left = a.size > offset ? a.size - offset : 0n;
    const most = left < BigInt(count) ? Number(left) : count;
    this.#w.bool(true);
    this.#put(a, at.index);
    const place = this.#w.length;
    this.#w.u32(0).u32(0);
    const n = this.#w.filled(most, (into) => (most === 0 ? 0 : at.share.read(at.node, offset, into)));
    this.#w.setU32(place, n);
    this.#w.setU32(place + 4, offset + BigInt(n) >= a.size || n < most ? 1 : 0);
  }
  #write(): undefined {
    const at = this.#writable();
    const offset = this.#r.u64();
    const count = this.#r.u32();
    const stable = this.#r.u32();
    const data = this.#r.opaque(MAX_IO);
    if (count > data.length || stable > FILE_SYNC) throw new XdrError("fewer data than it says");
    if (offset + BigInt(count) > MAX_FILE_SIZE) throw new ShareError(NfsStatus.FBIG);
    const before = at.share.attributes(at.node);
    at.share.write(at.node, offset, data.subarray(0, count));
    this.#change(before, at);
    // it is the host's kernel's now, and outlives this process: that is as stable as what the host's own programs write
    this.#w
      .u32(count)
      .u32(stable === UNSTABLE ? UNSTABLE : FILE_SYNC)
      .u64(WRITE_VERIFIER);
  }
  #list(plus: boolean): void {
    const at = this.#object();
    const cookie = this.#r.u64();
    const verifier = this.#r.u64();
    if (plus) this.#r.u32(); // dircount: the size without attributes
    const limit = Math.min(this.#r.u32(), MAX_LISTING);
    const w = this.#w;
    const start = w.length;
    this.attributesOf(at);
    const listing = at.share.list(at.node, cookie, verifier, plus);
    w.u64(listing.verifier);
    let isAtEnd = false;
    let count = 0;
    for (;;) {
      const next = listing.entries.next();
      if (next.done === true) {
        isAtEnd = true;
        break;
      }
      const before = w.length;
      const { name, fileid, found } = next.value;
      w.bool(true).u64(fileid).opaque(name).u64(next.value.cookie);
      if (plus && found !== undefined) {
        w.bool(true);
        this.#put(found.attributes, at.index);
        w.bool(true).opaque(this.#handles.encode(at.index, found.node));
      } else if (plus) w.bool(false).bool(false);
      // with the end of the list, and what precedes the results
      if (w.length - start + 16 > limit) {
        w.truncate(before);
        break;
      }
      count++;
    }
    if (count === 0 && !isAtEnd) throw new ShareError(NfsStatus.TOOSMALL);
    w.bool(false).bool(isAtEnd);
  }
}

const isDots = (name: Uint8Array, count: number): boolean => name.length === count && name.every((b) => b === 0x2e);

/** What a caller may do, by mode bits; the guest's root may what the host's user may. */
export function allowed(a: Attributes, caller: Caller, isReadOnly: boolean): number {
  const isFolder = a.type === FileType.DIR;
  const shift = caller.uid === a.uid ? 6 : caller.gids.includes(a.gid) ? 3 : 0;
  let bits = (a.mode >> shift) & 7;
  if (caller.uid === 0) bits = 6 | (isFolder || (a.mode & 0o111) !== 0 ? 1 : 0);
  let access = 0;
  if ((bits & 4) !== 0) access |= Access.READ;
  if ((bits & 2) !== 0 && !isReadOnly) access |= Access.MODIFY | Access.EXTEND | (isFolder ? Access.DELETE : 0);
  if ((bits & 1) !== 0) access |= isFolder ? Access.LOOKUP : Access.EXECUTE;
  return access;
}
