/** MOUNT version 3 (RFC 1813, appendix I): from the name of a share to its file handle. */
import type { FileHandles } from "./handles.js";
import type { AcceptStatus, Call } from "./rpc.js";
import { AcceptStatus as Status } from "./rpc.js";
import type { XdrWriter } from "./xdr.js";

export const MOUNT_PROGRAM = 100_005;
export const MOUNT_VERSION = 3;
/** mountproc3. */
const Procedure = { NULL: 0, MNT: 1, DUMP: 2, UMNT: 3, UMNTALL: 4, EXPORT: 5 } as const;
const MNT3_OK = 0;
const MNT3ERR_NOENT = 2;
const MNTPATHLEN = 1024;
const AUTH_SYS = 1;

/** @returns whether there is such a procedure */
export function mountProcedure(call: Call, w: XdrWriter, handles: FileHandles): AcceptStatus {
  switch (call.procedure) {
    case Procedure.NULL:
    case Procedure.UMNTALL:
      return Status.SUCCESS;
    case Procedure.UMNT:
      call.args.opaque(MNTPATHLEN);
      return Status.SUCCESS;
    case Procedure.MNT: {
      const name = new TextDecoder().decode(call.args.opaque(MNTPATHLEN));
      const handle = handles.rootOf(name);
      if (handle === undefined) w.u32(MNT3ERR_NOENT);
      else w.u32(MNT3_OK).opaque(handle).u32(1).u32(AUTH_SYS);
      return Status.SUCCESS;
    }
    case Procedure.DUMP:
      w.bool(false);
      return Status.SUCCESS;
    case Procedure.EXPORT:
      for (const name of handles.names) w.bool(true).opaque(new TextEncoder().encode(name)).bool(false);
      w.bool(false);
      return Status.SUCCESS;
    default:
      return Status.PROC_UNAVAIL;
  }
}
