/** ONC RPC version 2 over TCP (RFC 5531): records in fragments, calls, replies. */
import { XdrError, XdrReader, XdrWriter } from "./xdr.js";

/** Record mark (RFC 5531, 11): 31 bits of length, and whether it is the last fragment. */
const MARK = 4;
const LAST = 0x8000_0000;
const CALL = 0;
const REPLY = 1;
const RPC_VERSION = 2;
const MSG_ACCEPTED = 0;
const MSG_DENIED = 1;
const RPC_MISMATCH = 0;
const AUTH_SYS = 1;
const MAX_AUTH = 400;
const MAX_GROUPS = 16;

/** accept_stat. */
export const AcceptStatus = {
  SUCCESS: 0,
  PROG_UNAVAIL: 1,
  PROG_MISMATCH: 2,
  PROC_UNAVAIL: 3,
  GARBAGE_ARGS: 4,
  SYSTEM_ERR: 5,
} as const;
export type AcceptStatus = (typeof AcceptStatus)[keyof typeof AcceptStatus];

/** Who calls, as the guest's kernel says it (AUTH_SYS); without: nobody. */
export interface Caller {
  readonly uid: number;
  readonly gids: readonly number[];
}
const NOBODY: Caller = { uid: 65_534, gids: [65_534] };

export interface Call {
  readonly xid: number;
  readonly program: number;
  readonly version: number;
  readonly procedure: number;
  readonly caller: Caller;
  readonly args: XdrReader;
}

/** Cuts a stream into records. It holds one at most, of at most `max` bytes. */
export class RecordStream {
  readonly #max: number;
  readonly #mark = new Uint8Array(MARK);
  #marked = 0;
  /** The record so far, and of its present fragment what is to come. */
  #record: Uint8Array | undefined;
  #length = 0;
  #left = 0;
  #isLast = false;

  constructor(max: number) {
    this.#max = max;
  }
  /**
   * @param handle gets each record, valid until it returns
   * @returns false when this is no stream of records
   */
  push(bytes: Uint8Array, handle: (record: Uint8Array) => void): boolean {
    let at = 0;
    while (at < bytes.length) {
      if (this.#marked < MARK) {
        this.#mark[this.#marked++] = bytes[at++]!;
        if (this.#marked < MARK) continue;
        const mark = new DataView(this.#mark.buffer).getUint32(0);
        this.#isLast = mark >= LAST;
        this.#left = mark % LAST;
        if (this.#left + this.#length > this.#max) return false;
        // an empty fragment that is not the last leads nowhere
        if (this.#left === 0 && !this.#isLast) return false;
        // most records come whole: those are looked at where they are
        if (this.#isLast && this.#length === 0 && bytes.length - at >= this.#left) {
          const end = at + this.#left;
          this.#marked = 0;
          handle(bytes.subarray(at, end));
          at = end;
          continue;
        }
        this.#grow();
      }
      const n = Math.min(this.#left, bytes.length - at);
      this.#record!.set(bytes.subarray(at, at + n), this.#length);
      at += n;
      this.#length += n;
      this.#left -= n;
      if (this.#left > 0) continue;
      this.#marked = 0;
      if (!this.#isLast) continue;
      const record = this.#record!.subarray(0, this.#length);
      this.#record = undefined;
      this.#length = 0;
      handle(record);
    }
    return true;
  }
  #grow(): void {
    const need = this.#length + this.#left;
    if (this.#record !== undefined && this.#record.length >= need) return;
    // fragments of a few bytes each must not cost a copy of the whole each
    const size = this.#record === undefined ? need : Math.min(this.#max, Math.max(need, this.#record.length * 2));
    const more = new Uint8Array(size);
    if (this.#record !== undefined) more.set(this.#record.subarray(0, this.#length));
    this.#record = more;
  }
}

/** @returns the call; or the reply to one that cannot be; undefined for what is no call at all */
export function parseCall(record: Uint8Array): Call | Uint8Array<ArrayBuffer> | undefined {
  const r = new XdrReader(record);
  try {
    const xid = r.u32();
    if (r.u32() !== CALL) return undefined;
    if (r.u32() !== RPC_VERSION) {
      const w = new XdrWriter(MARK).u32(xid).u32(REPLY).u32(MSG_DENIED).u32(RPC_MISMATCH);
      return sealed(w.u32(RPC_VERSION).u32(RPC_VERSION));
    }
    const program = r.u32();
    const version = r.u32();
    const procedure = r.u32();
    const flavor = r.u32();
    const credentials = r.opaque(MAX_AUTH);
    r.u32();
    r.opaque(MAX_AUTH); // the verifier of AUTH_SYS is empty
    const caller = flavor === AUTH_SYS ? parseAuthSys(credentials) : NOBODY;
    return { xid, program, version, procedure, caller, args: r };
  } catch (error) {
    if (error instanceof XdrError) return undefined;
    throw error;
  }
}
/** authsys_parms: stamp, machinename, uid, gid, gids. */
function parseAuthSys(bytes: Uint8Array): Caller {
  const r = new XdrReader(bytes);
  r.u32();
  r.opaque(255);
  const uid = r.u32();
  const gids = [r.u32()];
  const more = r.u32();
  if (more > MAX_GROUPS) throw new XdrError("too many groups");
  for (let i = 0; i < more; i++) gids.push(r.u32());
  return { uid, gids };
}

/** The beginning of a reply; results follow where it is a success. */
export function beginReply(xid: number, status: AcceptStatus, size?: number): XdrWriter {
  // verifier: AUTH_NONE, empty
  return new XdrWriter(MARK, size).u32(xid).u32(REPLY).u32(MSG_ACCEPTED).u32(0).u32(0).u32(status);
}
/** Puts the record mark in front. */
export function sealed(w: XdrWriter): Uint8Array<ArrayBuffer> {
  w.setU32(0, (LAST | (w.length - MARK)) >>> 0);
  return w.bytes;
}
