/** `enlighten cp SOURCE… DESTINATION`: files and trees between this host and a guest, copied by the machine's own process. */
import { type CopyState, Stream } from "../../control/catalogue.js";
import type { ControlClient, Session } from "../../control/client.js";
import { VmError } from "../../vm/vm-error.js";
import { describeFailure } from "../exit-codes.js";
import { ProgressLine } from "../progress.js";
import { connect, openRegistry } from "./find.js";
import { type Copies, copiesOf } from "./places.js";
import { amount } from "./table.js";

export interface CpOptions {
  readonly user?: string;
  /** Seconds, for all of it. */
  readonly timeout?: number;
  readonly json?: boolean;
}

/** A machine's process that is told to stop, or whose time is up, says so within this time. */
const ANSWER_MS = 10_000;
const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

export async function cp(operands: readonly string[], o: CpOptions): Promise<number> {
  if (o.json !== true) return copyAll(operands, o);
  const say = (event: Record<string, unknown>): void => void process.stdout.write(`${JSON.stringify(event)}\n`);
  try {
    return await copyAll(operands, o, say);
  } catch (error) {
    const failure = describeFailure(error);
    say({ event: "error", ...failure, consoleTail: error instanceof VmError ? error.consoleTail : "" });
    return failure.exitCode;
  }
}

async function copyAll(
  operands: readonly string[],
  o: CpOptions,
  say?: (event: Record<string, unknown>) => void,
): Promise<number> {
  const copies = copiesOf(operands);
  const isOutput = copies.direction === "out" && copies.list[0]?.host === undefined;
  if (isOutput && say !== undefined)
    throw new VmError("bad-option", "standard output takes the file or the events", "leave --json out");
  const startedMs = performance.now();
  const line = new ProgressLine(
    process.stderr,
    say !== undefined || !process.stderr.isTTY || (isOutput && !!process.stdout.isTTY),
  );
  const client = await connect(openRegistry(), copies.machine, "copying");
  const interruption = new Interruption();
  const done = { bytes: 0, files: 0, warnings: 0 };
  try {
    for (const one of copies.list) {
      const answer = await copyOne(client, copies, one, o, startedMs, interruption, {
        progress: (p) => {
          say?.({ event: "progress", source: one.shown, ...p });
          line.show(progressText(p, done, performance.now() - startedMs));
        },
        warning: ({ path, reason }) => {
          say?.({ event: "warning", path, reason });
          line.clear();
          if (say === undefined) process.stderr.write(`enlighten: warning: ${printable(path)}: ${printable(reason)}\n`);
        },
      });
      done.bytes += answer.bytes;
      done.files += answer.files;
      done.warnings += answer.warnings;
    }
    say?.({ event: "end", ...done });
    return 0;
  } finally {
    line.clear();
    interruption.close();
    client.close();
  }
}

interface Told {
  readonly progress: (state: CopyState) => void;
  readonly warning: (warning: { readonly path: string; readonly reason: string }) => void;
}
async function copyOne(
  client: ControlClient,
  { direction }: Copies,
  { host, guest }: Copies["list"][number],
  o: CpOptions,
  startedMs: number,
  interruption: Interruption,
  told: Told,
): Promise<{ readonly bytes: number; readonly files: number; readonly warnings: number }> {
  const isTimed = o.timeout !== undefined;
  const leftMs = isTimed ? Math.max(1, Math.round(o.timeout * 1000 - (performance.now() - startedMs))) : 0;
  const session = client.begin(
    "copy",
    {
      direction,
      guest,
      ...(host === undefined ? {} : { host }),
      ...(o.user === undefined ? {} : { user: o.user }),
      ...(isTimed ? { timeoutMs: leftMs } : {}),
    },
    ({ progress, warning }) => {
      if (progress !== undefined) told.progress(progress);
      if (warning !== undefined) told.warning(warning);
    },
  );
  interruption.watch(session);
  const timer = isTimed
    ? setTimeout(
        () =>
          session.cancel(
            new VmError("timeout", `the copy has not ended within ${o.timeout} s`, "is the VM's process stopped?"),
          ),
        leftMs + ANSWER_MS,
      )
    : undefined;
  let stopInput = (): void => {};
  if (host === undefined && direction === "in") stopInput = sendInput(session);
  if (host === undefined && direction === "out")
    session.read(
      Stream.output,
      (bytes) => new Promise<void>((resolve) => void process.stdout.write(bytes, () => resolve())),
    );
  try {
    return await session.result;
  } catch (error) {
    if (error instanceof VmError && error.code === "aborted")
      throw new VmError("aborted", "interrupted: the copy is not complete");
    // of several, the last had what the others left
    if (isTimed && error instanceof VmError && error.code === "timeout")
      throw new VmError("timeout", `the copy has not ended within ${o.timeout} s`, error.hint, error.consoleTail);
    throw error;
  } finally {
    clearTimeout(timer);
    stopInput();
  }
}

/** The first signal aborts the copy in order, a second one leaves it alone. */
class Interruption {
  #session: Session<"copy"> | undefined;
  #count = 0;
  readonly #onSignal = (): void => {
    this.#count++;
    this.#tell();
  };

  constructor() {
    for (const signal of SIGNALS) process.on(signal, this.#onSignal);
  }
  watch(session: Session<"copy">): void {
    this.#session = session;
    if (this.#count > 0) this.#tell();
  }
  #tell(): void {
    if (this.#count === 1) this.#session?.note({ abort: true });
    else this.#session?.cancel(new VmError("aborted", "interrupted"));
  }
  close(): void {
    for (const signal of SIGNALS) process.off(signal, this.#onSignal);
  }
}

/** Standard input. @returns what lets go of it */
function sendInput(session: Session<"copy">): () => void {
  const { stdin } = process;
  const onData = (data: Buffer): void => {
    stdin.pause();
    void session.write(Stream.input, data).then(() => stdin.resume());
  };
  const onEnd = (): void => session.end(Stream.input);
  const onError = (error: Error): void =>
    session.cancel(new VmError("failed", `standard input cannot be read: ${error.message}`));
  stdin.on("data", onData);
  stdin.once("end", onEnd);
  stdin.once("error", onError);
  return () => {
    stdin.off("data", onData);
    stdin.off("end", onEnd);
    stdin.off("error", onError);
    stdin.pause();
    stdin.unref?.();
  };
}

/** "copying 12.3 MB of 100.0 MB · 34 files · 25.1 MB/s · usr/bin/perl". @param before of the sources that are done */
export function progressText(
  p: CopyState,
  before: { readonly bytes: number; readonly files: number },
  elapsedMs: number,
): string {
  const bytes = before.bytes + p.bytes;
  const files = before.files + p.files;
  const total = p.totalBytes === undefined ? "" : ` of ${amount(Math.max(before.bytes + p.totalBytes, bytes))}`;
  const rate = elapsedMs > 0 ? ` · ${amount((bytes / elapsedMs) * 1000)}/s` : "";
  return `copying ${amount(bytes)}${total} · ${files} ${files === 1 ? "file" : "files"}${rate} · ${printable(p.current)}`;
}
/** Names are a guest's, and a terminal does what it is told. */
function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
  return text.replace(/[\x00-\x1f\x7f-\x9f]/g, "?");
}
