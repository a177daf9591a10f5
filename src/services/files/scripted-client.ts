/** For tests: an NFS client that says what it is told to. */
import type { FileServer } from "./file-server.js";
import { MOUNT_PROGRAM } from "./mount3.js";
import { NFS_PROGRAM } from "./nfs3.js";
import type { Attributes } from "./share.js";
import { XdrReader, XdrWriter } from "./xdr.js";

const NO_AUTH = new Uint8Array(0);

/** A call's record, without its mark. */
export function callRecord(
  program: number,
  procedure: number,
  args: (w: XdrWriter) => void,
  o: { readonly xid?: number; readonly version?: number; readonly uid?: number } = {},
): Uint8Array {
  const w = new XdrWriter(0)
    .u32(o.xid ?? 1)
    .u32(0)
    .u32(2)
    .u32(program)
    .u32(o.version ?? 3)
    .u32(procedure);
  const auth = new XdrWriter(0)
    .u32(0)
    .opaque(NO_AUTH)
    .u32(o.uid ?? 0)
    .u32(o.uid ?? 0)
    .u32(0);
  w.u32(1).opaque(auth.bytes).u32(0).opaque(NO_AUTH);
  args(w);
  return w.bytes.slice();
}

export interface Reply {
  readonly xid: number;
  /** accept_stat; -1: denied. */
  readonly accepted: number;
  readonly results: XdrReader;
}
/** @param bytes with the record mark */
export function parseReply(bytes: Uint8Array): Reply {
  const r = new XdrReader(bytes.subarray(4));
  const xid = r.u32();
  if (r.u32() !== 1) throw new Error("no reply");
  if (r.u32() !== 0) return { xid, accepted: -1, results: r };
  r.u32();
  r.opaque(400);
  return { xid, accepted: r.u32(), results: r };
}

export function readAttributes(r: XdrReader): Attributes {
  const [type, mode, nlink, uid, gid] = [r.u32(), r.u32(), r.u32(), r.u32(), r.u32()];
  const [size, used, major, minor] = [r.u64(), r.u64(), r.u32(), r.u32()];
  r.u64(); // fsid
  const fileid = r.u64();
  const time = (): bigint => BigInt(r.u32()) * 1_000_000_000n + BigInt(r.u32());
  const [atime, mtime, ctime] = [time(), time(), time()];
  return {
    type: type as Attributes["type"],
    mode,
    nlink,
    uid,
    gid,
    size,
    used,
    major,
    minor,
    fileid,
    atime,
    mtime,
    ctime,
  };
}
export const optionalAttributes = (r: XdrReader): Attributes | undefined => (r.bool() ? readAttributes(r) : undefined);
/** wcc_data */
export function readChange(r: XdrReader): Attributes | undefined {
  if (r.bool()) {
    r.u64();
    r.u64();
    r.u64();
  }
  return optionalAttributes(r);
}

export class ScriptedClient {
  readonly #server: FileServer;
  /** For "uid" of calls. */
  uid = 0;

  constructor(server: FileServer) {
    this.#server = server;
  }
  async call(program: number, procedure: number, args: (w: XdrWriter) => void): Promise<XdrReader> {
    const replies: Uint8Array[] = [];
    await this.#server.answer(callRecord(program, procedure, args, { uid: this.uid }), (b) => void replies.push(b));
    if (replies.length !== 1) throw new Error(`${replies.length} replies`);
    const reply = parseReply(replies[0]!);
    if (reply.accepted !== 0) throw new Error(`accept_stat ${reply.accepted}`);
    return reply.results;
  }
  async mount(name: string): Promise<Uint8Array | number> {
    const r = await this.call(MOUNT_PROGRAM, 1, (w) => w.opaque(new TextEncoder().encode(name)));
    const status = r.u32();
    return status === 0 ? r.opaque(64).slice() : status;
  }
  /** @returns the status, and what follows it */
  async nfs(
    procedure: number,
    ...args: readonly (Uint8Array | string | number | bigint)[]
  ): Promise<[number, XdrReader]> {
    const r = await this.call(NFS_PROGRAM, procedure, (w) => {
      for (const arg of args)
        if (typeof arg === "number") w.u32(arg);
        else if (typeof arg === "bigint") w.u64(arg);
        else w.opaque(typeof arg === "string" ? new TextEncoder().encode(arg) : arg);
    });
    return [r.u32(), r];
  }
}
