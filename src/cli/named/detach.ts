/** `run --detach`: the machine in a process and session of its own; this one waits until it is up, and goes. */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type Claim, Registry } from "../../host/node/control/registry.js";
import { stateFolder } from "../../host/node/control/state-folder.js";
import type { Progress } from "../../image/package-source.js";
import { VmError } from "../../vm/vm-error.js";
import { describeFailure, ExitCode, type Failure, reportFailure } from "../exit-codes.js";
import { ProgressLine } from "../progress.js";

/** What the machine's process tells the one that started it, until it is up. */
export type FromDetached =
  | { readonly type: "progress"; readonly progress: Progress }
  | { readonly type: "up"; readonly summary: string }
  | { readonly type: "failed"; readonly failure: Failure; readonly consoleTail: string };
/** Its name is taken for it: it may begin. */
export const GO = "go";

/** One that has said that it failed has its threads and files to close. */
const ENDS_WITHIN_MS = 15_000;
/** Lines of the process's own log that are shown when it died. */
const SHOWN_LINES = 12;

/** "debian:12-full" is debian-12-full. */
export function nameOf(guest: string): string {
  const name = (guest.split("/").at(-1) ?? "").replace(/[^A-Za-z0-9_.-]+/g, "-").replace(/^[^A-Za-z0-9]+/, "");
  return name === "" ? "vm" : name.slice(0, 40);
}

export async function runDetached(
  name: string | undefined,
  o: { readonly guest: string; readonly memoryMiB: number; readonly json: boolean },
): Promise<number> {
  const progress = new ProgressLine(process.stderr, o.json);
  const say = (event: Record<string, unknown>): void => void process.stdout.write(`${JSON.stringify(event)}\n`);
  let child: ChildProcess | undefined;
  let interrupted: NodeJS.Signals | undefined;
  const onSignal = (signal: NodeJS.Signals): void => {
    interrupted = signal;
    child?.kill("SIGTERM");
  };
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const signal of signals) process.on(signal, onSignal);
  let claim: Claim | undefined;
  try {
    const registry = new Registry(stateFolder(process.env));
    const what = { guest: o.guest, memoryMiB: o.memoryMiB, detached: true };
    claim = name === undefined ? registry.claimLike(nameOf(o.guest), what) : registry.claim(name, what);
    const { entry } = claim;
    const log = openSync(join(entry.folder, "process.log"), "a", 0o600);
    child = spawn(process.execPath, [...process.execArgv, process.argv[1]!, ...argumentsFor(entry.name)], {
      detached: true,
      stdio: ["ignore", log, log, "ipc"],
    });
    closeSync(log);
    const outcome = await waitFor(child, claim, (p) => {
      if (o.json) say({ event: "progress", ...p });
      else progress.report(p);
    });
    progress.clear();
    if (outcome.type === "up") {
      if (o.json) say({ event: "up", name: entry.name, summary: outcome.summary, pid: child.pid });
      else {
        process.stdout.write(`${entry.name}\n`);
        process.stderr.write(`${outcome.summary}\n`);
      }
      return ExitCode.ok;
    }
    if (interrupted !== undefined) {
      if (!o.json) process.stderr.write("enlighten: interrupted\n");
      return interrupted === "SIGINT" ? ExitCode.interrupted : ExitCode.killed;
    }
    if (outcome.type === "failed") {
      // its name is free when this returns
      await ended(child);
      if (o.json) say({ event: "error", ...outcome.failure, consoleTail: outcome.consoleTail });
      else {
        reportFailure(outcome.failure);
        tellTail("last console lines", outcome.consoleTail);
      }
      return outcome.failure.exitCode;
    }
    const again = registry.findAgain(entry);
    const text = again === undefined ? "" : endOf(join(again.folder, "process.log"));
    const failure = describeFailure(
      new VmError("failed", `the process of "${entry.name}" ended before the guest was up (${outcome.how})`),
    );
    if (o.json) say({ event: "error", ...failure, processLog: text });
    else {
      reportFailure(failure);
      tellTail("its last words", text);
    }
    return failure.exitCode;
  } catch (error) {
    progress.clear();
    const failure = describeFailure(error);
    if (o.json) say({ event: "error", ...failure });
    else reportFailure(failure, error);
    if (child?.pid === undefined) claim?.release("it could not be started");
    return failure.exitCode;
  } finally {
    for (const signal of signals) process.off(signal, onSignal);
    if (child?.connected === true) child.disconnect();
    child?.unref();
  }
}

/** The same command line for the process that does it. */
function argumentsFor(name: string): string[] {
  const given = process.argv.slice(2);
  const at = given.indexOf("--");
  const own = ["--name", name, "--detached-child"];
  return at < 0 ? [...given, ...own] : [...given.slice(0, at), ...own, ...given.slice(at)];
}

type Outcome = Exclude<FromDetached, { type: "progress" }> | { readonly type: "died"; readonly how: string };
function waitFor(child: ChildProcess, claim: Claim, onProgress: (p: Progress) => void): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("spawn", () => {
      try {
        claim.giveTo(child.pid!);
        child.send(GO);
      } catch (error) {
        child.kill("SIGKILL");
        reject(error as Error);
      }
    });
    child.on("message", (m: FromDetached) => {
      if (m.type === "progress") onProgress(m.progress);
      else resolve(m);
    });
    child.on("exit", (code, signal) => resolve({ type: "died", how: signal ?? `exit code ${code}` }));
  });
}
/** Waits for the end of a process that is about to end; not for ever. */
async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, ENDS_WITHIN_MS);
    child.once("exit", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
function tellTail(what: string, text: string): void {
  if (text !== "") process.stderr.write(`${what}:\n${text}\n`);
}
function endOf(path: string): string {
  try {
    return readFileSync(path, "utf8").trimEnd().split("\n").slice(-SHOWN_LINES).join("\n");
  } catch {
    return "";
  }
}

/** The machine's process, towards the one that started it. */
export class Starter {
  readonly #gone: () => void;
  #isDone = false;

  /** @param onGone the one that started it has gone before the machine was up */
  constructor(onGone: () => void) {
    this.#gone = () => {
      if (!this.#isDone) onGone();
    };
    process.on("disconnect", this.#gone);
  }
  /** Its name is this process's. */
  async go(): Promise<void> {
    if (process.send === undefined) throw new VmError("bad-option", "--detached-child is for --detach alone");
    await new Promise<void>((resolve) => {
      process.once("message", () => resolve());
      process.once("disconnect", () => resolve());
    });
  }
  tell(message: FromDetached): void {
    if (this.#isDone || process.connected !== true) return;
    if (message.type === "progress") {
      process.send?.(message);
      return;
    }
    this.#isDone = true;
    process.send?.(message, () => {
      if (process.connected) process.disconnect();
    });
  }
}
