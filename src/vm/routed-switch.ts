/** A switch with a router to the platform's sockets: what one machine has for itself, or several share. */
import type { Clock } from "../machine/device.js";
import type { Backend } from "../net/backend.js";
import type { NatConfig } from "../net/config.js";
import { Nat, type NatOptions } from "../net/nat.js";
import { EthernetPort } from "../net/port.js";
import { PublishError, type PublishedPort, type PublishSpec } from "../net/publish.js";
import type { Refusal } from "../net/statistics.js";
import { type Impairments, Switch } from "../net/switch.js";
import type { NatStatus } from "./device-messages.js";

/** Refusals that are kept. */
const MAX_REFUSALS = 32;

export interface RoutedSwitchOptions {
  readonly config: NatConfig;
  readonly backend: Backend;
  readonly clock: Clock;
  /** 32 bits by chance. */
  readonly random32: () => number;
  /** `nextDeadline` has come nearer. */
  readonly onDeadline: () => void;
  readonly service?: NatOptions["service"];
  readonly impairments?: Impairments | undefined;
}

export class RoutedSwitch {
  readonly switch: Switch;
  readonly nat: Nat;
  /** By what was refused. */
  readonly #refused = new Map<string, Refusal>();

  /** @throws PolicyError, NatConfigError */
  constructor({ impairments, service, ...o }: RoutedSwitchOptions) {
    const [switchEnd, natEnd] = EthernetPort.cable();
    this.switch = new Switch({ ...o, ...(impairments === undefined ? {} : { impairments }) });
    this.nat = new Nat({
      ...o,
      port: natEnd,
      onRefused: (refusal) => this.#keep(refusal),
      ...(service === undefined ? {} : { service }),
    });
    this.switch.attach(switchEnd);
  }
  /** The last ones, each once. */
  #keep(refusal: Refusal): void {
    const key = `${refusal.protocol} ${refusal.to}`;
    this.#refused.delete(key);
    if (this.#refused.size >= MAX_REFUSALS) this.#refused.delete(this.#refused.keys().next().value!);
    this.#refused.set(key, refusal);
  }
  nextDeadline(): number {
    return Math.min(this.nat.nextDeadline(), this.switch.nextDeadline());
  }
  runDue(now: number): void {
    this.switch.runDue(now);
    this.nat.runDue(now);
  }
  /** @throws PublishError, at last */
  publish(spec: PublishSpec): Promise<PublishedPort> {
    return new Promise((resolve, reject) => {
      this.nat.publish(spec, (result) => {
        if (result instanceof PublishError) reject(result);
        else resolve(result);
      });
    });
  }
  /** The router, for people. */
  status(): NatStatus {
    const { nat } = this;
    const { dropped, ...counters } = nat.statistics;
    return {
      counters: { ...counters },
      dropped: Object.fromEntries(dropped),
      flows: nat.flows(),
      leases: nat.leases().map(({ address, mac, hostName }) => ({ address: address.join("."), mac, hostName })),
      published: nat.published,
      refused: [...this.#refused.values()],
    };
  }
}
