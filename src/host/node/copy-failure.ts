/** What goes wrong with the host's files, as the API says it. */
import { type FileFailure, fileError } from "../../vm/copy-protocol.js";
import { VmError } from "../../vm/vm-error.js";

const CODES: Record<string, FileFailure> = {
  ENOENT: "not-found",
  EACCES: "no-permission",
  EPERM: "no-permission",
  EROFS: "no-permission",
  ENOSPC: "no-space",
  EDQUOT: "no-space",
  EFBIG: "no-space",
  EEXIST: "exists",
  ENOTDIR: "exists",
  EISDIR: "exists",
  ENOTEMPTY: "exists",
};

/** @param path as the user knows it */
export function hostFailure(error: unknown, path: string): Error {
  if (error instanceof VmError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === undefined) return error as Error;
  // "ENOENT: no such file or directory, open '...'"
  const text = /^[A-Z0-9]+: ([^,]*)/.exec(message)?.[1] ?? message;
  return fileError(CODES[code] ?? "failed", path, "on this host", text);
}
