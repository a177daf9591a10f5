/** A machine that is a script, for tests of the control protocol: no guest, and everything happens when the test says so. */
import type { DeviceStatus } from "../vm/device-messages.js";
import type { CopyFrom, CopyOptions, CopyResult, CopyTo } from "../vm/guest-copy.js";
import type { GuestProcess, ProcessExit, SpawnOptions } from "../vm/guest-process.js";
import { VmError } from "../vm/vm-error.js";
import type { VmEnd } from "../vm/vm-options.js";
import type { WaitOptions } from "../vm/wait.js";
import type { ControlHost, ControlledMachine } from "./server.js";

type Output = (data: Uint8Array) => void | Promise<void>;

/** A command in it. */
export class ScriptedProcess {
  readonly command: readonly string[];
  readonly options: SpawnOptions;
  readonly onStdout: Output;
  readonly onStderr: Output;
  readonly exited: Promise<ProcessExit>;
  exit!: (exit: ProcessExit) => void;
  break!: (error: Error) => void;
  readonly input: Uint8Array[] = [];
  readonly signals: (string | number)[] = [];
  readonly sizes: (readonly [number, number])[] = [];
  isInputClosed = false;
  isAbandoned = false;
  pid: number | undefined = 42;
  failure: string | undefined;

  constructor(command: readonly string[], o: SpawnOptions & { onStdout?: Output; onStderr?: Output }) {
    this.command = command;
    this.options = o;
    this.onStdout = o.onStdout ?? (() => {});
    this.onStderr = o.onStderr ?? (() => {});
    this.exited = new Promise((resolve, reject) => {
      this.exit = resolve;
      this.break = reject;
    });
    this.exited.catch(() => {});
  }
  async write(data: Uint8Array | string): Promise<void> {
    this.input.push(typeof data === "string" ? new TextEncoder().encode(data) : data);
  }
  closeStdin(): void {
    this.isInputClosed = true;
  }
  kill(signal: string | number = "SIGTERM"): void {
    if (signal === "SIGNONSENSE") throw new VmError("bad-option", "there is no such signal");
    this.signals.push(signal);
  }
  resize(rows: number, columns: number): void {
    this.sizes.push([rows, columns]);
  }
  abandon(): void {
    this.isAbandoned = true;
  }
}

export interface ScriptedCopy {
  readonly direction: "in" | "out";
  readonly guest: string;
  /** The other end: a host path, bytes, or who gets them. */
  readonly other: unknown;
  readonly options: CopyOptions;
  readonly finish: (result: CopyResult) => void;
  readonly fail: (error: Error) => void;
}

export class ScriptedMachine implements ControlledMachine {
  state: ControlledMachine["state"] = "running";
  paused = false;
  uptimeNs = 5e9;
  reboots = 0;
  end: VmEnd | undefined;
  consoleText = "one\ntwo\nthree\n";
  readonly typed: Uint8Array[] = [];
  buttons = 0;
  readonly processes: ScriptedProcess[] = [];
  /** What the guest says to a request to power off, one after another. */
  shutdownAnswers: (VmError | undefined)[] = [];
  status: () => Promise<DeviceStatus> = () => Promise.reject(new VmError("no-services", "a PC"));
  readonly #outputs = new Set<(bytes: Uint8Array) => void | Promise<void>>();
  readonly #ends: ((end: VmEnd) => void)[] = [];
  readonly problems: ((text: string) => void)[] = [];

  readonly integration: ControlledMachine["integration"] = {
    status: () => this.status(),
    shutdown: async () => {
      const answer = this.shutdownAnswers.shift();
      if (answer !== undefined) throw answer;
    },
    onProblem: (listener) => {
      this.problems.push(listener);
      return () => {};
    },
  };
  readonly network: ControlledMachine["network"] = {
    publish: async () =>
      ({ id: 1, protocol: "tcp", host: "127.0.0.1:80", hostPort: 80, guest: "10.0.2.15:80", connections: 0 }) as never,
    unpublish: async () => true,
    published: async () => [],
  };
  get consoleTail(): string {
    return this.consoleText.trim();
  }
  write(data: string | Uint8Array): void {
    this.typed.push(typeof data === "string" ? new TextEncoder().encode(data) : data);
  }
  pressPowerButton(): void {
    this.buttons++;
  }
  onOutput(_serial: 0 | 1 | 2 | 3, listener: (bytes: Uint8Array) => void | Promise<void>): () => void {
    this.#outputs.add(listener);
    return () => void this.#outputs.delete(listener);
  }
  get watchers(): number {
    return this.#outputs.size;
  }
  print(text: string): (void | Promise<void>)[] {
    this.consoleText += text;
    return [...this.#outputs].map((f) => f(new TextEncoder().encode(text)));
  }
  async stats(): ReturnType<ControlledMachine["stats"]> {
    return { instructions: 1e6, timeNs: 4e9, haltedNs: 3e9, counters: {} };
  }
  async spawn(
    command: string | readonly string[],
    o: SpawnOptions & WaitOptions & { onStdout?: Output; onStderr?: Output } = {},
  ): Promise<GuestProcess> {
    const process = new ScriptedProcess(typeof command === "string" ? [command] : command, o);
    this.processes.push(process);
    return process as unknown as GuestProcess;
  }
  shares: ControlledMachine["shares"] = [];
  /** Copies that were asked for; each waits for the test. */
  readonly copies: ScriptedCopy[] = [];
  #copy(direction: "in" | "out", guest: string, other: unknown, o: CopyOptions): Promise<CopyResult> {
    return new Promise((resolve, reject) => {
      this.copies.push({ direction, guest, other, options: o, finish: resolve, fail: reject });
      o.signal?.addEventListener("abort", () => reject(new VmError("aborted", "waiting for the copy was aborted")));
    });
  }
  copyIn(from: CopyFrom, guestPath: string, o: CopyOptions = {}): Promise<CopyResult> {
    return this.#copy("in", guestPath, from, o);
  }
  copyOut(guestPath: string, to: CopyTo, o: CopyOptions = {}): Promise<CopyResult> {
    return this.#copy("out", guestPath, to, o);
  }
  waitForEnd({ signal, timeoutMs }: WaitOptions = {}): Promise<VmEnd> {
    if (this.end !== undefined) return Promise.resolve(this.end);
    return new Promise((resolve, reject) => {
      this.#ends.push(resolve);
      signal?.addEventListener("abort", () => reject(new VmError("aborted", "aborted")));
      if (timeoutMs !== undefined) this.timeUp.push(() => reject(new VmError("timeout", "time-out")));
    });
  }
  /** Ends waits that have a time-out. */
  readonly timeUp: (() => void)[] = [];
  finish(how: VmEnd["how"]): void {
    this.state = "ended";
    this.end = { how, detail: "", exitCode: undefined };
    for (const f of this.#ends.splice(0)) f(this.end);
    for (const p of this.processes)
      p.break(new VmError("ended", `the machine has ended (${how})`, "", this.consoleTail));
  }
  async kill(): Promise<void> {
    if (this.end === undefined) this.finish("killed");
  }
}

export interface ScriptedHost extends ControlHost {
  nowNs: number;
  /** Timers that have not fired, the first first. */
  readonly timers: (() => void)[];
  /** Output of detached commands. */
  readonly kept: Map<string, { text: string; exit: { exitCode: number; problem?: string } | undefined }>;
}
export function scriptedHost(): ScriptedHost {
  const kept: ScriptedHost["kept"] = new Map();
  return {
    nowNs: 10e9,
    timers: [],
    kept,
    now() {
      return this.nowNs;
    },
    setTimer(_ms, fire) {
      this.timers.push(fire);
      return () => void this.timers.splice(this.timers.indexOf(fire), 1);
    },
    usage: () => ({ cpuMs: 0, rssBytes: 1 << 20 }),
    store: {
      open(id) {
        const entry = { text: "", exit: undefined as { exitCode: number; problem?: string } | undefined };
        kept.set(id, entry);
        return {
          write: (bytes) => {
            entry.text += new TextDecoder().decode(bytes);
          },
          close: (exit) => {
            entry.exit = exit;
          },
        };
      },
    },
  };
}
