/** `enlighten exec NAME -- COMMAND`: a command in the guest, as if it ran here: streams, terminal, signals, exit code. */
import { type Size, Stream } from "../../control/catalogue.js";
import type { Session } from "../../control/client.js";
import { VmError } from "../../vm/vm-error.js";
import { ExitCode } from "../exit-codes.js";
import { connect, openRegistry } from "./find.js";

export interface ExecOptions {
  readonly interactive?: boolean;
  readonly tty?: boolean;
  readonly env: readonly string[];
  readonly cwd?: string;
  readonly user?: string;
  readonly detach?: boolean;
  /** Seconds: for the command, once the guest is up. */
  readonly timeout?: number;
}

/** For a guest that is not up yet. */
const PATIENCE_MS = 120_000;
/** Those that a command gets instead of this process. */
const FORWARDED = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"] as const;
/** Whoever sends so many of them wants to get away from a command that takes none. */
const ENOUGH_SIGNALS = 3;

const SHELL = ["sh", "-c", "exec $(command -v bash || echo sh) -l"];

export async function exec(name: string, given: readonly string[], o: ExecOptions): Promise<number> {
  const { stdin, stdout } = process;
  const isTerminal = stdin.isTTY === true && stdout.isTTY === true;
  if (given.length === 0 && !isTerminal)
    throw new VmError("bad-option", "there is no command", `enlighten exec ${name} -- COMMAND`);
  const command = given.length === 0 ? SHELL : given;
  const detached = o.detach === true;
  const tty = !detached && (o.tty ?? isTerminal);
  const input = !detached && (o.interactive === true || (tty && isTerminal));
  const client = await connect(openRegistry(), name, "running a command in it");
  const undo: (() => void)[] = [];
  try {
    // before the machine hears of the command: a signal may come as soon as it runs
    let begun: Session<"exec"> | undefined;
    forwardSignals(() => begun, undo);
    const session = client.begin("exec", {
      command,
      // a program that draws asks what it draws on
      env: { ...(tty && process.env.TERM !== undefined ? { TERM: process.env.TERM } : {}), ...environment(o.env) },
      ...(o.cwd === undefined ? {} : { cwd: o.cwd }),
      ...(o.user === undefined ? {} : { user: o.user }),
      ...(tty ? { terminal: size() } : {}),
      input,
      detached,
      patienceMs: PATIENCE_MS,
    });
    begun = session;
    let timedOut = false;
    if (o.timeout !== undefined) {
      const timer = setTimeout(() => {
        timedOut = true;
        session.cancel(new VmError("timeout", `the command has not ended within ${o.timeout} s`, "give it more time"));
      }, o.timeout * 1000);
      undo.push(() => clearTimeout(timer));
    }
    for (const [stream, to] of [
      [Stream.output, stdout],
      [Stream.error, process.stderr],
    ] as const)
      session.read(stream, (bytes) => new Promise<void>((resolve) => void to.write(bytes, () => resolve())));
    if (tty && isTerminal) {
      stdin.setRawMode(true);
      undo.push(() => void stdin.setRawMode(false));
      const resized = (): void => session.note({ size: size() });
      stdout.on("resize", resized);
      undo.push(() => void stdout.off("resize", resized));
    }
    if (input) forwardInput(session, undo);
    const { exitCode, failure, id } = await session.result;
    for (const f of undo.splice(0)) f();
    if (failure !== undefined) process.stderr.write(`enlighten: ${name}: ${failure}\n`);
    if (detached) process.stdout.write(`${id}\n`);
    return timedOut ? ExitCode.timeout : exitCode & 0xff;
  } finally {
    for (const f of undo.splice(0)) f();
    client.close();
  }
}

function size(): Size {
  return { rows: process.stdout.rows || 24, columns: process.stdout.columns || 80 };
}
/** NAME=VALUE; NAME alone takes this process's. */
function environment(list: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    list.flatMap((item): [string, string][] => {
      const at = item.indexOf("=");
      if (at > 0) return [[item.slice(0, at), item.slice(at + 1)]];
      const value = process.env[item];
      return value === undefined ? [] : [[item, value]];
    }),
  );
}
function forwardSignals(session: () => Session<"exec"> | undefined, undo: (() => void)[]): void {
  let count = 0;
  const forward = (signal: NodeJS.Signals): void => {
    if (++count < ENOUGH_SIGNALS) session()?.note({ signal });
    else session()?.cancel(new VmError("aborted", "interrupted: the command did not end by the signals it got"));
  };
  for (const signal of FORWARDED) {
    // Windows knows but some of them
    try {
      process.on(signal, forward);
    } catch {
      continue;
    }
    undo.push(() => void process.off(signal, forward));
  }
}
function forwardInput(session: Session<"exec">, undo: (() => void)[]): void {
  const { stdin } = process;
  const onData = (data: Buffer): void => {
    stdin.pause();
    void session.write(Stream.input, data).then(() => stdin.resume());
  };
  const onEnd = (): void => session.end(Stream.input);
  stdin.on("data", onData);
  stdin.once("end", onEnd);
  // input that cannot be read is no input
  stdin.once("error", onEnd);
  undo.push(() => {
    stdin.off("data", onData);
    stdin.off("end", onEnd);
    stdin.pause();
    stdin.unref?.();
  });
}
