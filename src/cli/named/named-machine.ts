/**
 * Named machines in the program. Each is a process of its own that runs `run` and serves the control protocol (this file); the
 * other files are the verbs that talk to it.
 */
import { join } from "node:path";
import type { CommandOutput } from "../../control/commands.js";
import { type ControlledMachine, ControlServer } from "../../control/server.js";
import { listenForControl } from "../../host/node/control/endpoint.js";
import { type Claim, Registry } from "../../host/node/control/registry.js";
import { LOG_BYTES, RotatingLog } from "../../host/node/control/rotating-log.js";
import { stateFolder } from "../../host/node/control/state-folder.js";
import { VmError } from "../../vm/vm-error.js";

/** Of the process's load. */
const SAMPLE_MS = 2000;
/** A command that runs beside others keeps less. */
const COMMAND_LOG_BYTES = LOG_BYTES / 4;
/** `--exec` of a detached machine. */
export const MAIN_COMMAND = "0";
/** A guest that is asked to go by SIGTERM gets this long. */
const SHUTDOWN_MS = 60_000;

export interface NamedWhat {
  readonly guest: string;
  readonly memoryMiB: number;
}

export class NamedMachine {
  readonly #claim: Claim;
  readonly #what: NamedWhat;
  readonly #logs = new Set<RotatingLog>();
  #server: ControlServer | undefined;
  #stopListening: (() => Promise<void>) | undefined;
  #timer: NodeJS.Timeout | undefined;

  private constructor(claim: Claim, what: NamedWhat) {
    this.#claim = claim;
    this.#what = what;
  }
  /** @throws VmError when the name is taken */
  static claim(name: string, what: NamedWhat): NamedMachine {
    const registry = new Registry(stateFolder(process.env));
    return new NamedMachine(registry.claim(name, { ...what, detached: false }), what);
  }
  /** The name that was taken for this process. */
  static adopt(name: string, what: NamedWhat): NamedMachine {
    return new NamedMachine(new Registry(stateFolder(process.env)).adopt(name), what);
  }
  get name(): string {
    return this.#claim.entry.name;
  }

  /** Takes verbs for a machine, and keeps its console. */
  async serve(vm: ControlledMachine): Promise<void> {
    const { folder, socket } = this.#claim.entry;
    const say = (error: Error): void =>
      void process.stderr.write(`enlighten: a log of ${this.name} cannot be written: ${error.message}\n`);
    const log = new RotatingLog(join(folder, "console.log"), LOG_BYTES, say);
    this.#logs.add(log);
    vm.onOutput(0, (bytes) => log.write(bytes));
    const server = new ControlServer(vm, this.#what, {
      now: () => Number(process.hrtime.bigint()),
      setTimer(ms, fire) {
        const timer = setTimeout(fire, ms);
        return () => clearTimeout(timer);
      },
      usage() {
        const { user, system } = process.cpuUsage();
        return { cpuMs: (user + system) / 1000, rssBytes: process.memoryUsage.rss() };
      },
      store: { open: (id) => this.keep(id) },
    });
    this.#server = server;
    this.#timer = setInterval(() => server.sample(), SAMPLE_MS).unref();
    this.#stopListening = await listenForControl(socket, server).catch((error: NodeJS.ErrnoException) => {
      throw new VmError(
        "failed",
        `the control socket ${socket} cannot be made (${error.code ?? error.message})`,
        "set ENLIGHTEN_STATE to a folder on a file system with sockets",
      );
    });
    this.#claim.ready();
  }
  /** A log for a command's output. */
  keep(id: string): CommandOutput {
    const { folder } = this.#claim.entry;
    const log = new RotatingLog(join(folder, `exec-${id}.log`), COMMAND_LOG_BYTES);
    const end = new RotatingLog(join(folder, `exec-${id}.end`));
    this.#logs.add(log).add(end);
    return {
      write: (bytes) => log.write(bytes),
      close: (exit) => {
        end.write(Buffer.from(JSON.stringify(exit)));
        for (const one of [log, end]) {
          one.close();
          this.#logs.delete(one);
        }
      },
    };
  }
  isUp(): void {
    this.#server?.isUp();
  }
  /** Asks the guest to go. @throws VmError when it does not */
  async shutDown(): Promise<void> {
    await this.#server?.shutDown(SHUTDOWN_MS);
  }
  /** The machine is over: its name is free, then who waits is told. @param how for people */
  async close(how: string): Promise<void> {
    clearInterval(this.#timer);
    for (const log of this.#logs) log.close();
    this.#claim.release(how);
    await this.#stopListening?.();
  }
}
