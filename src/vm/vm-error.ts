/** Errors of the public API: a stable code, what happened, and the next thing to try. */
export const VM_ERROR_CODES = [
  "timeout",
  "aborted",
  "ended",
  "not-started",
  "already-started",
  "bad-option",
  "wrong-architecture",
  "no-exec",
  "guest-crashed",
  "failed",
  // of the integration services
  "no-services",
  "not-ready",
  "busy",
  "refused",
  "unsupported",
  "reset",
  "closed",
  // of disks, with the reason in the message
  "disk",
  // of the network, the same way; a port of the host that another program has
  "network",
  "port-in-use",
  "not-found",
  // of copies and shares
  "no-permission",
  "no-space",
  "exists",
  "mismatch",
  // of named machines
  "name-taken",
] as const;
export type VmErrorCode = (typeof VM_ERROR_CODES)[number];

export class VmError extends Error {
  override readonly name = "VmError";
  readonly code: VmErrorCode;
  readonly hint: string;
  /** The console's last lines, where they help. */
  readonly consoleTail: string;

  constructor(code: VmErrorCode, message: string, hint = "", consoleTail = "") {
    super(consoleTail === "" ? message : `${message}\nlast console lines:\n${consoleTail}`);
    this.code = code;
    this.hint = hint;
    this.consoleTail = consoleTail;
  }
}
