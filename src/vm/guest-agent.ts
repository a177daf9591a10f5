/** The agent in the guest, from here: whether it is up, and processes run by it. */
import { concatBytes } from "../image/byte-reader.js";
import { AGENT_PORT } from "../image/init/agent.js";
import { AgentConnection } from "./agent-connection.js";
import { GuestProcess, type SpawnOptions } from "./guest-process.js";
import type { Integration } from "./integration.js";
import { VmError } from "./vm-error.js";
import { type WaitContext, type WaitOptions, waitUntil } from "./wait.js";

/** What a command left. */
export interface ExecResult {
  /** 128 + signal when a signal ended it; 126 or 127 when it could not be started. */
  readonly exitCode: number;
  /** As UTF-8. */
  readonly stdout: string;
  /** As UTF-8. */
  readonly stderr: string;
  /** Standard output as it came. */
  readonly stdoutBytes: Uint8Array;
}

/** How to run a command to its end. */
export interface ExecOptions extends WaitOptions, SpawnOptions {
  /** Standard input; without it, there is nothing to read. */
  readonly stdin?: string | Uint8Array;
}

/** Who gets a process's output; more comes when the promise is settled. */
export interface SpawnListeners {
  /** Standard output; with a terminal, all of it. */
  readonly onStdout?: (data: Uint8Array) => void | Promise<void>;
  /** Standard error. */
  readonly onStderr?: (data: Uint8Array) => void | Promise<void>;
}

/** From a broken connection to the report of a crash. */
const CRASH_MS = 2000;
/** Connections that are kept for the next commands. */
export const KEPT_IDLE = 4;

/** A program with its arguments, or a shell script. */
export type Command = string | readonly string[];
const argumentsOf = (command: Command): readonly string[] =>
  typeof command === "string" ? ["sh", "-c", command] : command;

export class GuestAgent {
  readonly #context: WaitContext;
  readonly #integration: Integration;
  #ready = false;
  #boots = 0;
  /** Connections that no command has now: making one costs the guest as much as half a fork. */
  readonly #idle: AgentConnection[] = [];
  readonly #listeners = new Set<() => void>();

  /** @param prepare what is done in the guest before it takes commands; it never fails */
  constructor(context: WaitContext, integration: Integration, prepare?: () => Promise<void>) {
    this.#context = context;
    this.#integration = integration;
    integration.listen(AGENT_PORT, (socket) => {
      // it says so once, and closes
      socket.onData = () => {
        socket.end();
        if (prepare === undefined) this.setReady(true);
        else {
          const boot = this.#boots;
          // a guest that reboots meanwhile says hello again
          void prepare().then(() => {
            if (boot === this.#boots) this.setReady(true);
          });
        }
      };
    });
  }
  get ready(): boolean {
    return this.#ready;
  }
  setReady(ready: boolean): void {
    this.#ready = ready;
    if (!ready) this.#boots++;
    if (ready) for (const f of [...this.#listeners]) f();
  }
  onReady(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }
  /** Starts a program in the guest. Settles when it has been asked for; `GuestProcess` tells how it goes on. */
  async spawn(command: Command, o: SpawnOptions & SpawnListeners & WaitOptions = {}): Promise<GuestProcess> {
    let connection = this.#idle.pop();
    while (connection?.isClosed === true) connection = this.#idle.pop();
    if (connection === undefined) {
      const socket = await this.#integration.connect(AGENT_PORT, o);
      const made: AgentConnection = new AgentConnection(
        socket,
        () => this.#idle.length < KEPT_IDLE && this.#idle.push(made) > 0,
      );
      connection = made;
    }
    return new GuestProcess(connection, argumentsOf(command), o, () => this.#whyBroken());
  }
  /** A guest that crashes lets go of its connections first: it gets a moment to say so. */
  #whyBroken(): Promise<VmError> {
    const ended = waitUntil<never>(this.#context, "the machine's end", { timeoutMs: CRASH_MS }, true, () => () => {});
    return ended.catch((error: VmError) =>
      error.code === "timeout"
        ? new VmError(
            "reset",
            "the connection to the command broke before it ended",
            "is the guest alive?",
            this.#context.consoleTail(),
          )
        : error,
    );
  }
  async exec(command: Command, o: ExecOptions = {}): Promise<ExecResult> {
    const output: Uint8Array[][] = [[], []];
    let child: GuestProcess | undefined;
    const collect = async (): Promise<number> => {
      child = await this.spawn(command, {
        ...o,
        onStdout: (data) => void output[0]!.push(data),
        onStderr: (data) => void output[1]!.push(data),
      });
      if (o.stdin !== undefined) await child.write(o.stdin);
      child.closeStdin();
      const { exitCode } = await child.exited;
      return exitCode;
    };
    const exitCode = await waitUntil<number>(this.#context, "the command to end", o, true, (done, fail) => {
      collect().then(done, fail);
      return () => child?.abandon();
    });
    const [stdout, stderr] = output.map((parts) => concatBytes(parts)) as [Uint8Array, Uint8Array];
    const failure = child?.failure === undefined ? "" : `${child.failure}\n`;
    return {
      exitCode,
      stdout: new TextDecoder().decode(stdout),
      stderr: new TextDecoder().decode(stderr) + failure,
      stdoutBytes: stdout,
    };
  }
}
