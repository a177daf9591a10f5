/** A machine's shares in Node: folders that are open, and the server that shows them. */
import { randomBytes } from "node:crypto";
import { statSync } from "node:fs";
import { resolve } from "node:path";
import { FileServer } from "../../services/files/file-server.js";
import type { PlainError, ShareSpec } from "../../vm/device-messages.js";
import type { ShareOptions } from "../../vm/guest-shares.js";
import { VmError } from "../../vm/vm-error.js";
import { hostFailure } from "./copy-failure.js";
import { FolderShare } from "./share-folder.js";

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
    return { ...share, directory };
  });
}

/** @throws VmError */
export function openShares(specs: readonly ShareSpec[], onProblem: (text: string) => void): FileServer | undefined {
  if (specs.length === 0) return undefined;
  const shares: FolderShare[] = [];
  for (const { directory, readOnly } of specs)
    try {
      shares.push(new FolderShare(directory, readOnly));
    } catch (error) {
      for (const share of shares) share.close();
      throw hostFailure(error, directory);
    }
  return new FileServer(shares, randomBytes(4).readUInt32LE(), (error) =>
    onProblem(`a call to a share failed by a mistake of this program's: ${(error as Error).stack ?? String(error)}`),
  );
}

/** Of a share that could not be opened. */
export function shareError(error: unknown): PlainError | undefined {
  if (!(error instanceof VmError)) return undefined;
  return { about: "share", code: error.code, message: error.message, hint: error.hint };
}
