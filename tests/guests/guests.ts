/** Guests for the tests that need a real kernel, and the program as a child process. */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { debianGuest } from "../../src/host/node/guest.js";
import { type CreateVmOptions, createVm } from "../../src/host/node/index.js";
import type { GuestFiles, Vm } from "../../src/vm/index.js";

let files: Promise<GuestFiles> | undefined;
/** debian:12, fetched once. */
export const debian = (): Promise<GuestFiles> => (files ??= debianGuest("debian:12"));

export const PROMPT = /debian:12 \S+ # /;

/** A started machine of the small guest. */
export async function startDebian(options: CreateVmOptions = {}): Promise<Vm> {
  const vm = await createVm({ memoryMiB: 256, ...options });
  await vm.start();
  return vm;
}

export interface ProgramResult {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

const program = join(import.meta.dirname, "../../src/cli/main.js");

/** Runs the command line program to its end. @param during is called with the process while it runs */
export function enlighten(
  args: readonly string[],
  options: {
    env?: Record<string, string>;
    cwd?: string;
    input?: string | Uint8Array;
    /** Until the program ends. */
    inputStaysOpen?: boolean;
    during?: (kill: (s: NodeJS.Signals) => void, stderr: () => string, stdout: () => string) => void;
  } = {},
): Promise<ProgramResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [program, ...args], {
      env: { ...process.env, ...options.env },
      stdio: ["pipe", "pipe", "pipe"],
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    child.stdout.on("data", (b: Buffer) => out.push(b));
    child.stderr.on("data", (b: Buffer) => err.push(b));
    child.on("error", reject);
    child.on("close", (code, signal) =>
      resolve({ code, signal, stdout: Buffer.concat(out), stderr: Buffer.concat(err).toString() }),
    );
    if (options.input !== undefined) child.stdin.write(options.input);
    if (options.inputStaysOpen !== true) child.stdin.end();
    options.during?.(
      (s) => void child.kill(s),
      () => Buffer.concat(err).toString(),
      () => Buffer.concat(out).toString(),
    );
  });
}
