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
/** What went wrong, for programs. */
export type VmErrorCode = (typeof VM_ERROR_CODES)[number];

/** What went wrong, with the next thing to try. */
export class VmError extends Error {
  /** "VmError". */
  override readonly name = "VmError";
  /** For programs: it does not change. */
  readonly code: VmErrorCode;
  /** The next thing to try, for people; may be empty. */
  readonly hint: string;
  /** The console's last lines, where they help. */
  readonly consoleTail: string;

  /** @internal */
  constructor(code: VmErrorCode, message: string, hint = "", consoleTail = "") {
    super(consoleTail === "" ? message : `${message}\nlast console lines:\n${consoleTail}`);
    this.code = code;
    this.hint = hint;
    this.consoleTail = consoleTail;
  }
}
