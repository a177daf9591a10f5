/** A machine's shares in Node: folders that are open, and the server that shows them. */
import { randomBytes } from "node:crypto";
import { statfsSync, statSync } from "node:fs";
import { resolve } from "node:path";
import { FileServer } from "../../services/files/file-server.js";
import type { PlainError, ShareSpec } from "../../vm/device-messages.js";
import type { ShareOptions } from "../../vm/guest-shares.js";
import { VmError } from "../../vm/vm-error.js";
import { hostFailure } from "./copy-failure.js";
import type { ChangedPaths } from "./share-changes.js";
import { FolderShare } from "./share-folder.js";

/** statfs's f_type: NFS, SMB, CIFS, SMB2, AFS, 9p, FUSE, Ceph. Others change files there, and this system does not hear of it. */
const REMOTE = new Set([0x6969, 0x517b, 0xff534d42, 0xfe534d42, 0x5346414f, 0x01021997, 0x65735546, 0x00c36400]);
/** Of what cannot be watched. */
const REMOTE_CACHE_SECONDS = 10;

/** Absolute, and looked at before anything is fetched. @throws VmError */
export function checkShares(shares: readonly ShareOptions[]): ShareOptions[] {
  return shares.map((share) => {
    const directory = resolve(share.directory);
    let isFolder: boolean;
    try {
      isFolder = statSync(directory).isDirectory();
    } catch (error) {
      throw hostFailure(error, directory);
    }
    if (!isFolder) throw new VmError("bad-option", `${directory} is no folder`, "share the folder that it is in");
    const isRemote = process.platform === "linux" && REMOTE.has(statfsSync(directory).type >>> 0);
    return isRemote ? { cacheSeconds: REMOTE_CACHE_SECONDS, ...share, directory } : { ...share, directory };
  });
}

export interface ShareEvents {
  readonly onProblem: (text: string) => void;
  /** @param share place among the specs */
  readonly onShareChanged: (share: number, paths: ChangedPaths) => void;
  readonly onShareScanned: (share: number, path: Uint8Array, from: Uint8Array | undefined) => void;
}

/** @throws VmError */
export function openShares(specs: readonly ShareSpec[], events: ShareEvents): FileServer | undefined {
  if (specs.length === 0) return undefined;
  const shares: FolderShare[] = [];
  for (const [i, { directory, readOnly, isWatched }] of specs.entries())
    try {
      const toGuest = isWatched
        ? {
            onChanged: (paths: ChangedPaths) => events.onShareChanged(i, paths),
            onScan: (path: Uint8Array, from?: Uint8Array) => events.onShareScanned(i, path, from),
          }
        : undefined;
      shares.push(new FolderShare(directory, readOnly, toGuest));
    } catch (error) {
      for (const share of shares) share.close();
      throw hostFailure(error, directory);
    }
  return new FileServer(shares, randomBytes(4).readUInt32LE(), (error) =>
    events.onProblem(
      `a call to a share failed by a mistake of this program's: ${(error as Error).stack ?? String(error)}`,
    ),
  );
}

/** Of a share that could not be opened. */
export function shareError(error: unknown): PlainError | undefined {
  if (!(error instanceof VmError)) return undefined;
  return { about: "share", code: error.code, message: error.message, hint: error.hint };
}
