/** Runs one machine, or guestbench itself, in a process of its own to its end, and says what that took. */
import { spawn } from "node:child_process";
import { cpuSeconds, type RamPlace, residentBytes, residentRam } from "./process-usage.js";
import { type Boot, type MachineWorkload, Transcript } from "./transcript.js";

export interface Command {
  readonly program: string;
  readonly arguments: readonly string[];
  /** Beside this process's own. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Where the guest's RAM is in the process; undefined where that is not known. */
  readonly ram?: RamPlace;
}
export interface Run {
  readonly boot: Boot | undefined;
  readonly workloads: readonly MachineWorkload[];
  /** Why it did not get to its end. */
  readonly failure?: string;
}

/** For a machine to go away by itself once its guest has said that it is done. */
const GRACE_MS = 5_000;

export async function measure(
  command: Command,
  options: { readonly timeoutMs: number; readonly onBegin?: (workload: string) => void },
): Promise<Run> {
  const started = performance.now();
  const env = { ...process.env, ...command.environment };
  const child = spawn(command.program, command.arguments, { stdio: ["ignore", "pipe", "pipe"], env });
  const pid = child.pid;
  if (pid === undefined) {
    const error = await new Promise<Error>((resolve) => child.once("error", resolve));
    return { boot: undefined, workloads: [], failure: error.message };
  }
  const transcript = new Transcript({
    cpuSeconds: () => usageOr(() => cpuSeconds(pid)) ?? Number.NaN,
    boot: () => ({
      cpuSeconds: usageOr(() => cpuSeconds(pid)) ?? Number.NaN,
      seconds: (performance.now() - started) / 1000,
      residentBytes: usageOr(() => residentBytes(pid)) ?? Number.NaN,
      guestRamBytes: command.ram === undefined ? undefined : usageOr(() => residentRam(pid, command.ram!)),
    }),
  });
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    child.kill("SIGKILL");
  }, options.timeoutMs);
  let grace: NodeJS.Timeout | undefined;
  let interrupted = false;
  const interrupt = (): void => {
    interrupted = true;
    process.exitCode = 130;
    child.kill("SIGKILL");
  };
  process.on("SIGINT", interrupt);
  let errors = "";
  child.stderr.on("data", (bytes: Buffer) => {
    errors = (errors + bytes.toString()).slice(-2000);
  });
  child.stdout.on("data", (bytes: Buffer) => {
    const begun = transcript.take(bytes.toString("latin1"));
    if (begun !== undefined) options.onBegin?.(begun);
    if (transcript.done) grace ??= setTimeout(() => child.kill("SIGKILL"), GRACE_MS);
  });
  const how = await new Promise<string>((resolve) =>
    child.once("close", (code, signal) => resolve(signal ?? `exit code ${code}`)),
  );
  clearTimeout(timer);
  clearTimeout(grace);
  process.off("SIGINT", interrupt);
  if (interrupted) throw new Error("interrupted");
  const { boot, workloads, done } = transcript;
  if (done) return { boot, workloads };
  const why = timedOut ? `not done after ${options.timeoutMs / 60_000} minutes` : `ended early (${how})`;
  const said = errors.trim() || transcript.lastLines.join("\n").trim();
  return { boot, workloads, failure: said === "" ? why : `${why}:\n${said}` };
}

/** The process may have ended since it wrote the line. */
function usageOr<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
