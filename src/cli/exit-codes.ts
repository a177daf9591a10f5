/** Exit codes (product.md) and what error has which. */
import { BootError } from "../firmware/linux-boot.js";
import { ImageError } from "../image/errors.js";
import { VmError } from "../vm/index.js";

export const ExitCode = {
  ok: 0,
  usage: 2,
  timeout: 124,
  failed: 125,
  cannotRun: 126,
  notFound: 127,
  interrupted: 130,
  killed: 137,
} as const;

export interface Failure {
  readonly exitCode: number;
  readonly code: string;
  readonly message: string;
  readonly hint: string;
}

const NOT_FOUND = new Set(["not-found", "unknown-guest"]);
const CANNOT_RUN = new Set([
  "cannot-run",
  "wrong-architecture",
  "not-bzimage",
  "kernel-too-old",
  "bad-kernel",
  "unsupported",
]);

/** Turns any error into what the user sees. A bug of ours keeps its stack for ENLIGHTEN_DEBUG. */
export function describeFailure(error: unknown): Failure {
  if (error instanceof ImageError || error instanceof BootError) {
    const exitCode = NOT_FOUND.has(error.code)
      ? ExitCode.notFound
      : CANNOT_RUN.has(error.code)
        ? ExitCode.cannotRun
        : ExitCode.failed;
    return { exitCode, code: error.code, message: error.message, hint: error.hint };
  }
  if (error instanceof VmError) {
    return {
      exitCode:
        error.code === "timeout" ? ExitCode.timeout : NOT_FOUND.has(error.code) ? ExitCode.notFound : ExitCode.failed,
      code: error.code,
      message: error.message,
      hint: error.hint,
    };
  }
  if (error instanceof RangeError)
    return { exitCode: ExitCode.failed, code: "bad-option", message: error.message, hint: "see enlighten run --help" };
  const e = error instanceof Error ? error : new Error(String(error));
  return {
    exitCode: ExitCode.failed,
    code: "internal",
    message: `internal error: ${e.message}`,
    hint: "this is a bug of enlighten; ENLIGHTEN_DEBUG=1 prints where it happened",
  };
}
