/**
 * A network that several machines are plugged in to: one switch, one router, on a thread of its own, with cables to the machines' device
 * sides (net/remote-port). Its time is the platform's.
 *
 *     machine ── RemotePort ═══ RemotePort ── Switch ── cable ── Nat ── Backend
 */
import type { Clock } from "../machine/device.js";
import type { Backend } from "../net/backend.js";
import type { NatConfig } from "../net/config.js";
import { Nat } from "../net/nat.js";
import { EthernetPort } from "../net/port.js";
import { PublishError, type PublishedPort, type PublishSpec } from "../net/publish.js";
import { type RemoteMessage, RemotePort } from "../net/remote-port.js";
import { Switch } from "../net/switch.js";
import type { SharedNetworkStatus } from "./device-messages.js";
import { natStatus, Refusals } from "./machine-network.js";

export interface SharedNetworkOptions {
  readonly config: NatConfig;
  readonly backend: Backend;
  readonly clock: Clock;
  /** 32 bits by chance. */
  readonly random32: () => number;
  /** `nextDeadline` has come nearer. */
  readonly onDeadline: () => void;
}

export class SharedNetwork {
  readonly #switch: Switch;
  readonly #nat: Nat;
  readonly #remotes = new Map<RemotePort, EthernetPort>();
  readonly #refusals = new Refusals();

  /** @throws PolicyError, NatConfigError */
  constructor({ clock, onDeadline, config, backend, random32 }: SharedNetworkOptions) {
    const [switchEnd, natEnd] = EthernetPort.cable();
    this.#switch = new Switch({ clock, onDeadline });
    this.#nat = new Nat({
      port: natEnd,
      clock,
      backend,
      random32,
      config,
      onDeadline,
      onRefused: (refusal) => this.#refusals.add(refusal),
    });
    this.#switch.attach(switchEnd);
  }

  /** A cable for one more machine. @param send gets what is to go to its other end */
  plug(send: (message: RemoteMessage, transfer: readonly ArrayBuffer[]) => void): RemotePort {
    const [switchEnd, end] = EthernetPort.cable();
    const remote = new RemotePort(end, send);
    this.#remotes.set(remote, switchEnd);
    this.#switch.attach(switchEnd);
    return remote;
  }
  unplug(remote: RemotePort): void {
    const port = this.#remotes.get(remote);
    if (port === undefined) return;
    this.#remotes.delete(remote);
    this.#switch.detach(port);
  }
  /** Sends what the last turn brought. */
  flush(): void {
    for (const remote of this.#remotes.keys()) remote.flush();
  }

  nextDeadline(): number {
    return Math.min(this.#nat.nextDeadline(), this.#switch.nextDeadline());
  }
  runDue(now: number): void {
    this.#switch.runDue(now);
    this.#nat.runDue(now);
  }
  /** @throws PublishError, at last */
  publish(spec: PublishSpec): Promise<PublishedPort> {
    return new Promise((resolve, reject) => {
      this.#nat.publish(spec, (result) => {
        if (result instanceof PublishError) reject(result);
        else resolve(result);
      });
    });
  }
  /** @returns false if there is no such port */
  unpublish(id: number): boolean {
    return this.#nat.unpublish(id);
  }
  /** @throws PolicyError */
  setAllowed(list: readonly string[] | undefined): void {
    this.#nat.setAllowed(list);
  }
  status(): SharedNetworkStatus {
    return {
      machines: this.#remotes.size,
      frames: { ...this.#switch.statistics },
      nat: natStatus(this.#nat, this.#refusals),
    };
  }
  close(): void {
    for (const remote of this.#remotes.keys()) remote.unplug();
    this.#nat.close();
  }
}
