/** Exit codes (product.md) and what error has which. */
import { VmError } from "../vm/vm-error.js";

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

/** Errors that tell a user what to do, by name: their classes would bring half of the program with them. */
const TELLING = new Set(["ImageError", "BootError"]);
function isTelling(error: unknown): error is Error & { readonly code: string; readonly hint: string } {
  return error instanceof Error && TELLING.has(error.name) && "code" in error && "hint" in error;
}

function codeOf({ code }: VmError): number {
  if (code === "timeout") return ExitCode.timeout;
  // by its user
  if (code === "aborted") return ExitCode.interrupted;
  return NOT_FOUND.has(code) ? ExitCode.notFound : ExitCode.failed;
}
/** Turns any error into what the user sees. A bug of ours keeps its stack for ENLIGHTEN_DEBUG. */
export function describeFailure(error: unknown): Failure {
  if (isTelling(error)) {
    const exitCode = NOT_FOUND.has(error.code)
      ? ExitCode.notFound
      : CANNOT_RUN.has(error.code)
        ? ExitCode.cannotRun
        : ExitCode.failed;
    return { exitCode, code: error.code, message: error.message, hint: error.hint };
  }
  if (error instanceof VmError)
    return { exitCode: codeOf(error), code: error.code, message: error.message, hint: error.hint };
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

/** On standard error. */
export function reportFailure(failure: Failure, error?: unknown): void {
  process.stderr.write(`enlighten: ${failure.message}\n`);
  if (failure.hint !== "") process.stderr.write(`  try: ${failure.hint}\n`);
  if (process.env.ENLIGHTEN_DEBUG && error instanceof Error) process.stderr.write(`${error.stack}\n`);
}
