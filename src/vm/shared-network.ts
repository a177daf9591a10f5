/**
 * A network that several machines are plugged in to: one switch, one router, on a thread of its own, with cables to the machines' device
 * sides (net/remote-port). Its time is the platform's.
 *
 *     machine ── RemotePort ═══ RemotePort ── Switch ── cable ── Nat ── Backend
 */
import { EthernetPort } from "../net/port.js";
import type { PublishedPort, PublishSpec } from "../net/publish.js";
import { type RemoteMessage, RemotePort } from "../net/remote-port.js";
import type { SharedNetworkStatus } from "./device-messages.js";
import { RoutedSwitch, type RoutedSwitchOptions } from "./routed-switch.js";

export class SharedNetwork {
  readonly #router: RoutedSwitch;
  readonly #remotes = new Map<RemotePort, EthernetPort>();

  /** @throws PolicyError, NatConfigError */
  constructor(o: Omit<RoutedSwitchOptions, "service" | "impairments">) {
    this.#router = new RoutedSwitch(o);
  }

  /** A cable for one more machine. @param send gets what is to go to its other end */
  plug(send: (message: RemoteMessage, transfer: readonly ArrayBuffer[]) => void): RemotePort {
    const [switchEnd, end] = EthernetPort.cable();
    const remote = new RemotePort(end, send);
    this.#remotes.set(remote, switchEnd);
    this.#router.switch.attach(switchEnd);
    return remote;
  }
  unplug(remote: RemotePort): void {
    const port = this.#remotes.get(remote);
    if (port === undefined) return;
    this.#remotes.delete(remote);
    this.#router.switch.detach(port);
  }
  /** Sends what the last turn brought. */
  flush(): void {
    for (const remote of this.#remotes.keys()) remote.flush();
  }

  nextDeadline(): number {
    return this.#router.nextDeadline();
  }
  runDue(now: number): void {
    this.#router.runDue(now);
  }
  /** @throws PublishError, at last */
  publish(spec: PublishSpec): Promise<PublishedPort> {
    return this.#router.publish(spec);
  }
  /** @returns false if there is no such port */
  unpublish(id: number): boolean {
    return this.#router.nat.unpublish(id);
  }
  /** @throws PolicyError */
  setAllowed(list: readonly string[] | undefined): void {
    this.#router.nat.setAllowed(list);
  }
  status(): SharedNetworkStatus {
    return {
      machines: this.#remotes.size,
      frames: { ...this.#router.switch.statistics },
      nat: this.#router.status(),
    };
  }
  close(): void {
    for (const remote of this.#remotes.keys()) remote.unplug();
    this.#router.nat.close();
  }
}
