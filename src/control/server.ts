/** The machine's side of the control protocol: takes requests of a connection and does what they ask with a machine. */
import type { Integration } from "../vm/integration.js";
import type { Vm } from "../vm/vm.js";
import { VmError } from "../vm/vm-error.js";
import type { VmNetwork } from "../vm/vm-network.js";
import type { WaitOptions } from "../vm/wait.js";
import { type Answer, type Failure, isVerb, type Request, request, VERBS, type VerbName } from "./catalogue.js";
import { GuestCommands, type OutputStore } from "./commands.js";
import { ControlConnection, type Exchange, type Transport } from "./connection.js";
import { watchConsole } from "./console.js";
import { copy } from "./copies.js";
import { LoadMeter, type Usage } from "./load.js";
import { ShapeError } from "./shape.js";

/** What of a machine is controlled: tests put a script in its place. */
export interface ControlledMachine
  extends Pick<
    Vm,
    | "state"
    | "paused"
    | "uptimeNs"
    | "reboots"
    | "end"
    | "consoleText"
    | "consoleTail"
    | "write"
    | "pressPowerButton"
    | "onOutput"
    | "stats"
    | "spawn"
    | "copyIn"
    | "copyOut"
    | "shares"
    | "waitForEnd"
    | "kill"
  > {
  readonly integration: Pick<Integration, "status" | "shutdown" | "onProblem">;
  readonly network: Pick<VmNetwork, "publish" | "unpublish" | "published">;
}

export interface ControlHost {
  /** Monotonic, in ns. */
  now(): number;
  setTimer(ms: number, fire: () => void): () => void;
  usage(): Usage;
  readonly store: OutputStore;
}

export interface MachineFacts {
  /** What people call the guest: "debian:12". */
  readonly guest: string;
  readonly memoryMiB: number;
}

/** A guest whose driver is not there yet is asked again after this time. */
const ASK_AGAIN_MS = 500;
const STATUS_MS = 5000;
/** Problems that status remembers. */
const KEPT_PROBLEMS = 20;

export class ControlServer {
  readonly #machine: ControlledMachine;
  readonly #facts: MachineFacts;
  readonly #host: ControlHost;
  readonly #connections = new Set<ControlConnection>();
  readonly #commands: GuestCommands;
  readonly #load: LoadMeter;
  readonly #problems: string[] = [];
  readonly #running = new Set<Promise<void>>();
  #isUp = false;
  #isStopping = false;

  constructor(machine: ControlledMachine, facts: MachineFacts, host: ControlHost) {
    this.#machine = machine;
    this.#facts = facts;
    this.#host = host;
    this.#commands = new GuestCommands(machine, host);
    this.#load = new LoadMeter(host);
    machine.integration.onProblem((problem) => {
      this.#problems.push(problem);
      if (this.#problems.length > KEPT_PROBLEMS) this.#problems.shift();
    });
  }
  /** The guest takes commands, as far as anybody can tell. */
  isUp(): void {
    this.#isUp = true;
  }
  /** To be called every few seconds. */
  sample(): void {
    this.#load.sample();
  }
  /** A peer has connected. @returns where its bytes go */
  accept(transport: Transport): ControlConnection {
    const connection: ControlConnection = new ControlConnection(transport, {
      onRequest: (exchange, body) => this.#begin(connection, exchange, body),
      onClose: () => void this.#connections.delete(connection),
    });
    this.#connections.add(connection);
    return connection;
  }
  /** Settles when all requests that are there now have their answers. */
  async answered(): Promise<void> {
    await Promise.allSettled(this.#running);
  }
  /** Lets answers go out and closes all connections. */
  close(): void {
    for (const connection of [...this.#connections]) connection.end();
  }

  #begin(connection: ControlConnection, exchange: Exchange, said: unknown): boolean {
    let verb: string;
    let body: unknown;
    try {
      ({ verb, body } = request(said, ""));
    } catch {
      return false;
    }
    const fail = (error: unknown): void => connection.finish(exchange, false, failureOf(error, this.#machine));
    if (!isVerb(verb)) {
      fail(
        new VmError(
          "unsupported",
          `this machine was started by an enlighten that does not know "${verb.slice(0, 40)}"`,
          "stop it, and start it again",
        ),
      );
      return true;
    }
    const running = this.#run(verb, exchange, body)
      .then((answer) => connection.finish(exchange, true, answer))
      // one that is too long for a frame, too
      .catch(fail)
      .finally(() => this.#running.delete(running));
    this.#running.add(running);
    return true;
  }
  async #run(verb: VerbName, exchange: Exchange, body: unknown): Promise<unknown> {
    const asked = VERBS[verb].request(body, "");
    const controller = new AbortController();
    exchange.onClose(() => controller.abort());
    const { signal } = controller;
    switch (verb) {
      case "summary":
        return this.#summary({ signal, timeoutMs: STATUS_MS });
      case "status":
        return this.#status({ signal, timeoutMs: STATUS_MS });
      case "stop":
        return this.#stop(asked as Request<"stop">, signal);
      case "exec":
        return this.#commands.run(exchange, asked as Request<"exec">, signal);
      case "console":
        return watchConsole(this.#machine, exchange, asked as Request<"console">);
      case "copy":
        return copy(this.#machine, this.#host, exchange, asked as Request<"copy">, controller);
      case "publish": {
        const port = await this.#machine.network.publish((asked as Request<"publish">).port, {
          signal,
          timeoutMs: STATUS_MS,
        });
        return { host: port.host, guest: port.guest, protocol: port.protocol } satisfies Answer<"publish">;
      }
      case "unpublish":
        return this.#unpublish(asked as Request<"unpublish">, { signal, timeoutMs: STATUS_MS });
    }
  }

  get #state(): Answer<"summary">["state"] {
    const { state, paused } = this.#machine;
    if (state === "ended") return "ended";
    if (paused) return "paused";
    if (this.#isStopping) return "stopping";
    return state === "new" || !this.#isUp ? "starting" : "running";
  }
  async #summary(o: WaitOptions): Promise<Answer<"summary">> {
    const machine = this.#machine;
    const isRunning = machine.state === "running" && !machine.paused;
    const [stats, ports] = await Promise.all([
      isRunning ? machine.stats(o).catch(() => undefined) : undefined,
      // a machine without a network has no ports
      isRunning ? machine.network.published(o).catch(() => []) : [],
    ]);
    const guestLoad = stats === undefined ? undefined : this.#load.guest(stats);
    return {
      state: this.#state,
      guest: this.#facts.guest,
      upMs: machine.state === "new" ? 0 : Math.round(machine.uptimeNs / 1e6),
      memoryMiB: this.#facts.memoryMiB,
      rssBytes: this.#host.usage().rssBytes,
      load: this.#load.host(),
      ...(guestLoad === undefined ? {} : { guestLoad }),
      ports: ports.map(({ host, guest, protocol }) => ({ host, guest, protocol })),
    };
  }
  async #status(o: WaitOptions): Promise<Answer<"status">> {
    const machine = this.#machine;
    const [summary, stats, devices] = await Promise.all([
      this.#summary(o),
      machine.state === "running" && !machine.paused ? machine.stats(o) : undefined,
      machine.state !== "running"
        ? undefined
        : machine.integration.status(o).catch((error: unknown) => {
            // a PC without a hypervisor has no devices
            if (error instanceof VmError && error.code === "no-services") return undefined;
            throw error;
          }),
    ]);
    return {
      summary,
      ...(devices?.vmbusVersion === undefined ? {} : { vmbusVersion: devices.vmbusVersion }),
      channels: (devices?.channels ?? []).map(({ version, problem, ...channel }) => ({
        ...channel,
        ...(version === undefined ? {} : { version }),
        ...(problem === undefined ? {} : { problem }),
      })),
      ...(devices?.heartbeat === undefined ? {} : { heartbeat: devices.heartbeat.health }),
      instructions: stats?.instructions ?? 0,
      reboots: machine.reboots,
      commands: this.#commands.list(),
      network: devices?.network ?? null,
      disks: devices?.disks ?? [],
      shares: machine.shares.map(({ directory, mountPoint, readOnly }) => ({ directory, mountPoint, readOnly })),
      problems: [...this.#problems],
    };
  }

  async #stop({ force, timeoutMs }: Request<"stop">, signal: AbortSignal): Promise<Answer<"stop">> {
    const machine = this.#machine;
    if (force) {
      await machine.kill();
      return { how: machine.end?.how ?? "killed" };
    }
    const end = await this.shutDown(timeoutMs, signal);
    return { how: end.how };
  }
  /**
   * Asks the guest to power off, and waits for it.
   * @throws VmError when it has not in time
   */
  async shutDown(timeoutMs: number, signal?: AbortSignal): Promise<NonNullable<ControlledMachine["end"]>> {
    const machine = this.#machine;
    const until = this.#host.now() + timeoutMs * 1e6;
    const options = (): WaitOptions => ({
      timeoutMs: Math.max(1, Math.round((until - this.#host.now()) / 1e6)),
      ...(signal === undefined ? {} : { signal }),
    });
    this.#isStopping = true;
    try {
      if (machine.state === "running") await this.#askToPowerOff(options, signal);
      return await machine.waitForEnd(options());
    } catch (error) {
      if (machine.end !== undefined) return machine.end;
      if (error instanceof VmError && error.code === "timeout")
        throw new VmError(
          "timeout",
          `the guest has not powered off within ${timeoutMs / 1000} s`,
          "give it more time (--timeout), or end it at once (--force)",
          machine.consoleTail,
        );
      throw error;
    } finally {
      this.#isStopping = machine.state !== "running";
    }
  }
  async #askToPowerOff(options: () => WaitOptions, signal: AbortSignal | undefined): Promise<void> {
    for (;;) {
      try {
        return await this.#machine.integration.shutdown(options());
      } catch (error) {
        if (!(error instanceof VmError)) throw error;
        // a PC without a hypervisor has its button
        if (error.code === "no-services") return this.#machine.pressPowerButton();
        // its driver is not there yet
        if (error.code !== "not-ready" || options().timeoutMs === 1) throw error;
        await new Promise<void>((resolve) => {
          const forget = this.#host.setTimer(ASK_AGAIN_MS, resolve);
          signal?.addEventListener("abort", () => {
            forget();
            resolve();
          });
        });
        if (this.#machine.end !== undefined) return;
      }
    }
  }
  async #unpublish({ port, protocol }: Request<"unpublish">, o: WaitOptions): Promise<Answer<"unpublish">> {
    const { network } = this.#machine;
    const all = await network.published(o);
    const found = all.find((p) => p.hostPort === port && p.protocol === protocol);
    if (found === undefined) {
      const there = all.map((p) => `${p.hostPort}${p.protocol === "udp" ? "/udp" : ""}`).join(", ");
      throw new VmError(
        "not-found",
        `port ${port} is not published`,
        there === "" ? "no port is" : `those that are: ${there}`,
      );
    }
    await network.unpublish(found, o);
    return {};
  }
}

/** What the other end is told. */
function failureOf(error: unknown, machine: ControlledMachine): Failure {
  if (error instanceof VmError) {
    // the text of the error has the console's lines already
    const tail = error.consoleTail;
    const message =
      tail === "" ? error.message : error.message.slice(0, error.message.indexOf("\nlast console lines:"));
    return { code: error.code, message, hint: error.hint, consoleTail: tail };
  }
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof ShapeError)
    return { code: "bad-option", message: `the request is not in order: ${message}`, hint: "", consoleTail: "" };
  return { code: "failed", message, hint: "", consoleTail: machine.consoleTail };
}
