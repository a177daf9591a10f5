/** The command that a machine was made for (`exec`), run by the agent as soon as it is up; then the machine goes down. */
import type { GuestAgent, SpawnListeners } from "./guest-agent.js";
import type { GuestProcess } from "./guest-process.js";

/** Its script and environment came with the boot (image/init/exec-cpio.ts). */
const COMMAND = ". /etc/enlighten/env; exec sh /etc/enlighten/exec";
/**
 * Before it, where the machine has a network: an adapter that the guest has found gets some seconds for its route and the name of its
 * name server. The small guest has them by then; systemd brings the agent up beside the network.
 */
const WAIT_FOR_NETWORK = `up() {
  [ -s /etc/resolv.conf ] || return
  while read -r interface destination rest; do [ "$destination" = 00000000 ] && return; done </proc/net/route
  return 1
}
n=0
while [ $n -lt 50 ] && [ -e /sys/class/net/eth0 ] && ! up; do sleep 0.2; n=$((n+1)); done
`;

export class MainCommand {
  readonly #agent: GuestAgent;
  readonly #hasInput: boolean;
  readonly #command: readonly string[];
  #process: GuestProcess | undefined;
  #started = false;
  /** Input that came before the command ran; undefined is its end. */
  readonly #early: (Uint8Array | string | undefined)[] = [];
  /** Its exit code, once it has ended. */
  exitCode: number | undefined;

  constructor(agent: GuestAgent, o: { readonly hasInput: boolean; readonly hasNetwork: boolean }) {
    const { hasInput, hasNetwork } = o;
    this.#command = ["sh", "-c", hasNetwork ? WAIT_FOR_NETWORK + COMMAND : COMMAND];
    this.#agent = agent;
    this.#hasInput = hasInput;
  }
  get hasStarted(): boolean {
    return this.#started;
  }
  /** Settles when it has ended and all its output has been handed over. */
  async run(listeners: SpawnListeners): Promise<void> {
    this.#started = true;
    const main = await this.#agent.spawn(this.#command, listeners);
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
