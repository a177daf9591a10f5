/** Commands in the guest that were asked for over the control protocol, many at once; those that run on when nobody waits. */
import type { GuestProcess } from "../vm/guest-process.js";
import { VmError } from "../vm/vm-error.js";
import { type Answer, type CommandStatus, type Request, Stream, VERBS } from "./catalogue.js";
import type { Exchange } from "./connection.js";
import type { ControlHost, ControlledMachine } from "./server.js";

/** Where the output of a detached command stays. */
export interface OutputStore {
  /** @param command for people */
  open(id: string, command: string): CommandOutput;
}
export interface CommandOutput {
  write(bytes: Uint8Array): void;
  /** @param how "3", "killed by signal 9": for people */
  close(exit: { readonly exitCode: number; readonly problem?: string }): void;
}

interface Entry {
  readonly id: string;
  readonly command: string;
  readonly sinceNs: number;
  readonly detached: boolean;
  process: GuestProcess | undefined;
  exitCode: number | undefined;
}

/** Detached commands that have ended and are still listed. */
const KEPT_ENDED = 32;
const SHOWN_COMMAND = 200;

export class GuestCommands {
  readonly #machine: ControlledMachine;
  readonly #host: ControlHost;
  readonly #entries = new Map<string, Entry>();
  #lastId = 0;

  constructor(machine: ControlledMachine, host: ControlHost) {
    this.#machine = machine;
    this.#host = host;
  }
  list(): CommandStatus[] {
    const now = this.#host.now();
    return [...this.#entries.values()].map(({ id, command, sinceNs, detached, process, exitCode }) => ({
      id,
      command,
      sinceMs: Math.round((now - sinceNs) / 1e6),
      detached,
      ...(process?.pid === undefined ? {} : { pid: process.pid }),
      ...(exitCode === undefined ? {} : { exitCode }),
    }));
  }
  /** @param signal aborted when nobody waits for it any more */
  async run(exchange: Exchange, o: Request<"exec">, signal: AbortSignal): Promise<Answer<"exec">> {
    if (o.command.length === 0) throw new VmError("bad-option", "there is no command", "exec NAME -- COMMAND");
    const entry: Entry = {
      id: String(++this.#lastId),
      command: o.command.join(" ").slice(0, SHOWN_COMMAND),
      sinceNs: this.#host.now(),
      detached: o.detached,
      process: undefined,
      exitCode: undefined,
    };
    this.#entries.set(entry.id, entry);
    try {
      return await (o.detached ? this.#detach(entry, o, signal) : this.#attend(entry, exchange, o, signal));
    } finally {
      if (!o.detached) this.#entries.delete(entry.id);
    }
  }
  #spawn(
    entry: Entry,
    o: Request<"exec">,
    signal: AbortSignal,
    onStdout: (data: Uint8Array) => void | Promise<void>,
    onStderr: (data: Uint8Array) => void | Promise<void>,
  ): Promise<GuestProcess> {
    return this.#machine
      .spawn(o.command, {
        env: o.env,
        ...(o.cwd === undefined ? {} : { cwd: o.cwd }),
        ...(o.user === undefined ? {} : { user: o.user }),
        ...(o.terminal === undefined ? {} : { pty: o.terminal }),
        onStdout,
        onStderr,
        signal,
        timeoutMs: o.patienceMs,
      })
      .then((process) => (entry.process = process));
  }
  async #attend(entry: Entry, exchange: Exchange, o: Request<"exec">, signal: AbortSignal): Promise<Answer<"exec">> {
    const output = new Set<Promise<void>>();
    const forward =
      (stream: number) =>
      (data: Uint8Array): Promise<void> => {
        const written = exchange.write(stream, data).finally(() => output.delete(written));
        output.add(written);
        return written;
      };
    const process = await this.#spawn(entry, o, signal, forward(Stream.output), forward(Stream.error));
    exchange.onClose(() => process.abandon());
    exchange.note({ id: entry.id });
    if (o.input)
      exchange.read(
        Stream.input,
        (bytes) => process.write(bytes),
        () => process.closeStdin(),
      );
    // the end of a terminal's input would be a key
    else if (o.terminal === undefined) process.closeStdin();
    exchange.onNote = (note) => {
      const { signal: name, size } = VERBS.exec.toServer(note, "");
      if (size !== undefined) process.resize(size.rows, size.columns);
      if (name === undefined) return;
      try {
        process.kill(name);
      } catch {
        // a signal that the guest has not
      }
    };
    const { exitCode, signal: by } = await process.exited;
    await Promise.allSettled(output);
    return {
      id: entry.id,
      exitCode,
      ...(by === undefined ? {} : { signal: by }),
      ...(process.failure === undefined ? {} : { failure: process.failure }),
    };
  }
  async #detach(entry: Entry, o: Request<"exec">, signal: AbortSignal): Promise<Answer<"exec">> {
    const output = this.#host.store.open(entry.id, entry.command);
    const keep = (data: Uint8Array): void => output.write(data);
    const finish = (exitCode: number, problem?: string): void => {
      entry.exitCode = exitCode;
      output.close({ exitCode, ...(problem === undefined ? {} : { problem }) });
      const ended = [...this.#entries.values()].filter((e) => e.exitCode !== undefined);
      if (ended.length > KEPT_ENDED) this.#entries.delete(ended[0]!.id);
    };
    try {
      const process = await this.#spawn(entry, o, signal, keep, keep);
      if (o.terminal === undefined) process.closeStdin();
      process.exited.then(
        ({ exitCode }) => finish(exitCode, process.failure),
        (error: Error) => finish(125, error.message.split("\n")[0]!),
      );
      return { id: entry.id, exitCode: 0 };
    } catch (error) {
      this.#entries.delete(entry.id);
      finish(125, error instanceof Error ? error.message.split("\n")[0]! : String(error));
      throw error;
    }
  }
}
