/** A process in the guest, run by its agent over a Hyper-V socket. */

import type { AgentConnection } from "./agent-connection.js";
import { FrameReader, FrameType, frame, numbers } from "./agent-protocol.js";
import { VmError } from "./vm-error.js";

/** Of a terminal, in characters. */
export interface TerminalSize {
  /** Lines. */
  readonly rows: number;
  /** Characters of a line. */
  readonly columns: number;
}
/** How to start a program. */
export interface SpawnOptions {
  /** Variables beside those that the agent sets. */
  readonly env?: Readonly<Record<string, string>>;
  /** Where it runs. Default: the user's home. */
  readonly cwd?: string;
  /** Name or number. Default: root. */
  readonly user?: string;
  /** A terminal of this size: standard error comes with standard output. */
  readonly pty?: TerminalSize;
}

/** How a process ended. */
export interface ProcessExit {
  /** 128 + signal when a signal ended it, as shells say it; 126 or 127 when it could not be started. */
  readonly exitCode: number;
  /** The one that ended it. */
  readonly signal: number | undefined;
}

/** Linux's numbers (x86-64) of signals that programs send to each other. */
export const SIGNALS: Readonly<Record<string, number>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGKILL: 9,
  SIGUSR1: 10,
  SIGUSR2: 12,
  SIGTERM: 15,
  SIGCONT: 18,
  SIGSTOP: 19,
  SIGTSTP: 20,
  SIGWINCH: 28,
};

/** Gets bytes; more come when its promise is settled. */
type DataListener = (data: Uint8Array) => void | Promise<void>;
/** Bytes of standard input that the guest may have and not yet have used: signals must not wait behind more. */
const STDIN_WINDOW = 256 << 10;
const STDIN_PIECE = 64 << 10;

/** A process in the guest that `Vm.spawn` started. */
export class GuestProcess {
  readonly #connection: AgentConnection;
  readonly #reader = new FrameReader();
  #stdout: DataListener = () => {};
  #stderr: DataListener = () => {};
  #credit = STDIN_WINDOW;
  #waitingWriter: (() => void) | undefined;
  #settled = false;
  #isKept = false;
  #resolve!: (exit: ProcessExit) => void;
  #reject!: (error: Error) => void;
  /** Process id in the guest, once it is known. */
  pid: number | undefined;
  /** Settles when it has ended and all its output has been handed over. */
  readonly exited: Promise<ProcessExit>;
  /** Why it could not be started. */
  failure: string | undefined;
  readonly #whyBroken: () => Promise<Error>;

  /** @internal @param whyBroken asked when the connection goes before the process has ended */
  constructor(
    connection: AgentConnection,
    command: readonly string[],
    o: SpawnOptions & { readonly onStdout?: DataListener; readonly onStderr?: DataListener },
    whyBroken: () => Promise<Error>,
  ) {
    this.#connection = connection;
    this.#whyBroken = whyBroken;
    this.exited = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // whoever does not look at `exited` does not want to hear of it
    this.exited.catch(() => {});
    if (o.onStdout !== undefined) this.#stdout = o.onStdout;
    if (o.onStderr !== undefined) this.#stderr = o.onStderr;
    connection.attend(
      (data) => this.#received(data),
      () => this.#broken(),
    );
    this.#send(FrameType.run, request(command, o));
  }
  #send(type: FrameType, payload?: Uint8Array): void {
    this.#connection.write(frame(type, payload)).catch(() => this.#broken());
  }
  #broken(): void {
    if (this.#settled) return;
    this.#settled = true;
    this.#waitingWriter?.();
    void this.#whyBroken().then(this.#reject);
  }
  #received(data: Uint8Array): void | Promise<void> {
    const slow: Promise<void>[] = [];
    const good = this.#reader.push(data, (type, payload) => {
      const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
      switch (type) {
        case FrameType.started:
          if (payload.length >= 4) this.pid = view.getUint32(0, true);
          // an agent of before, on a disk that was kept, says nothing of it
          this.#isKept = payload[4] === 1;
          break;
        case FrameType.stdout:
        case FrameType.stderr: {
          const taken = (type === FrameType.stdout ? this.#stdout : this.#stderr)(payload.slice());
          if (taken !== undefined) slow.push(taken);
          break;
        }
        case FrameType.credit:
          if (payload.length >= 4) this.#credit += view.getUint32(0, true);
          this.#waitingWriter?.();
          break;
        case FrameType.done:
          if (payload.length >= 8) this.#done(view.getUint32(0, true), view.getUint32(4, true));
          break;
        case FrameType.failed:
          this.failure = new TextDecoder().decode(payload);
          this.#done(/No such file|not found/i.test(this.failure) ? 127 : 126, 0);
          break;
      }
    });
    if (!good) this.#connection.destroy();
    if (slow.length > 0) return Promise.allSettled(slow).then(() => {});
  }
  #done(code: number, signal: number): void {
    if (this.#settled) return;
    this.#settled = true;
    this.#waitingWriter?.();
    this.#resolve({ exitCode: signal === 0 ? code : 128 + signal, signal: signal === 0 ? undefined : signal });
    this.#connection.release(this.#isKept);
  }
  /** Settles when there is room for more. What a process that has ended does not read is dropped. */
  async write(data: Uint8Array | string): Promise<void> {
    const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
    for (let at = 0; at < bytes.length; at += STDIN_PIECE) {
      const piece = bytes.subarray(at, at + STDIN_PIECE);
      while (this.#credit < piece.length && !this.#settled)
        await new Promise<void>((resolve) => {
          this.#waitingWriter = resolve;
        });
      if (this.#settled) return;
      this.#credit -= piece.length;
      await this.#connection.write(frame(FrameType.stdin, piece)).catch(() => this.#broken());
    }
  }
  /** Ends its standard input. */
  closeStdin(): void {
    if (!this.#settled) this.#send(FrameType.stdinEnd);
  }
  /** Sends it a signal. @param signal a name ("SIGINT"), or a number */
  kill(signal: string | number = "SIGTERM"): void {
    const n = typeof signal === "number" ? signal : SIGNALS[signal];
    if (n === undefined)
      throw new VmError("bad-option", `there is no signal ${signal}`, Object.keys(SIGNALS).join(", "));
    if (!this.#settled) this.#send(FrameType.signal, numbers(4, n));
  }
  /** Its terminal has another size. Nothing without `pty`. */
  resize(rows: number, columns: number): void {
    if (!this.#settled) this.#send(FrameType.windowSize, numbers(2, rows, columns));
  }
  /** Nobody waits for it any more: the guest kills it. */
  abandon(): void {
    // it has ended: its connection is another's
    if (this.#settled) return;
    this.#broken();
    this.#connection.destroy();
  }
}

function request(command: readonly string[], o: SpawnOptions): Uint8Array {
  const pairs: [string, string][] = [["keep", "1"], ...command.map((arg): [string, string] => ["arg", arg])];
  for (const [name, value] of Object.entries(o.env ?? {})) pairs.push(["env", `${name}=${value}`]);
  if (o.cwd !== undefined) pairs.push(["cwd", o.cwd]);
  if (o.user !== undefined) pairs.push(["user", o.user]);
  if (o.pty !== undefined) pairs.push(["pty", `${o.pty.rows}x${o.pty.columns}`]);
  for (const [key, value] of pairs)
    if (value.includes("\0"))
      throw new VmError("bad-option", `an ${key} of the command has a zero byte`, "Linux ends texts at a zero byte");
  return new TextEncoder().encode(pairs.map(([key, value]) => `${key}\0${value}\0`).join(""));
}
