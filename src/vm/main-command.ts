/** The command that a machine was made for (`exec`), run by the agent as soon as it is up; then the machine goes down. */
import type { GuestAgent, SpawnListeners } from "./guest-agent.js";
import type { GuestProcess } from "./guest-process.js";

/** Its script and environment came with the boot (image/init/exec-cpio.ts). */
const COMMAND = ["sh", "-c", ". /etc/enlighten/env; exec sh /etc/enlighten/exec"];

export class MainCommand {
  readonly #agent: GuestAgent;
  readonly #hasInput: boolean;
  #process: GuestProcess | undefined;
  #started = false;
  /** Input that came before the command ran; undefined is its end. */
  readonly #early: (Uint8Array | string | undefined)[] = [];
  /** Its exit code, once it has ended. */
  exitCode: number | undefined;

  constructor(agent: GuestAgent, hasInput: boolean) {
    this.#agent = agent;
    this.#hasInput = hasInput;
  }
  get hasStarted(): boolean {
    return this.#started;
  }
  /** Settles when it has ended and all its output has been handed over. */
  async run(listeners: SpawnListeners): Promise<void> {
    this.#started = true;
    const main = await this.#agent.spawn(COMMAND, listeners);
    this.#process = main;
    if (this.#hasInput) for (const data of this.#early.splice(0)) await this.write(data);
    else main.closeStdin();
    this.exitCode = (await main.exited).exitCode;
  }
  /** Standard input; undefined ends it. */
  async write(data: Uint8Array | string | undefined): Promise<void> {
    const main = this.#process;
    if (main === undefined) this.#early.push(data);
    else if (data === undefined) main.closeStdin();
    else await main.write(data);
  }
  /** The machine boots anew: the command has not run there. */
  forget(): void {
    this.#process = undefined;
    this.#started = false;
  }
}
