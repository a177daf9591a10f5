/** A machine's end of a network that it shares: a cable whose other end is on that network's thread. */
import type { Clock } from "../machine/device.js";
import { PcapngWriter, tap } from "../net/pcapng.js";
import { EthernetPort } from "../net/port.js";
import { PublishError, type PublishedPort } from "../net/publish.js";
import { type RemoteMessage, RemotePort } from "../net/remote-port.js";
import { type Capture, Hold, type MachineNetworkState, type NetworkPlug } from "./machine-network.js";

export interface JoinedNetworkOptions {
  readonly send: (message: RemoteMessage, transfer: readonly ArrayBuffer[]) => void;
  readonly capture?: Capture;
}

export class JoinedNetwork implements NetworkPlug {
  readonly port: EthernetPort;
  readonly #remote: RemotePort;
  #clock: Clock = { now: () => 0 };
  #hold: Hold | undefined;

  constructor({ send, capture }: JoinedNetworkOptions) {
    const [adapterEnd, far] = EthernetPort.cable();
    this.port = adapterEnd;
    const clock = { now: () => this.#clock.now() };
    this.#remote = new RemotePort(
      capture === undefined ? far : tap(far, new PcapngWriter(capture.sink, "eth0", capture.epochNs), clock),
      send,
    );
  }
  /** From the other end. */
  take(message: RemoteMessage): void {
    this.#remote.take(message);
  }
  attach(clock: Clock): void {
    this.#clock = clock;
    this.#hold = new Hold(this.port);
  }
  set isHeld(held: boolean) {
    if (this.#hold !== undefined) this.#hold.isHeld = held;
  }
  nextDeadline(): number {
    return Number.POSITIVE_INFINITY;
  }
  runDue(): void {}
  flush(): void {
    this.#remote.flush();
  }
  get activity(): number {
    return this.#remote.frames;
  }
  publish(): Promise<PublishedPort> {
    return Promise.reject(
      new PublishError(
        "failed",
        "this machine's network is shared: ports are published by the network",
        "call publish of the network, with the guest's address",
      ),
    );
  }
  unpublish(): boolean {
    return false;
  }
  setAllowed(): void {
    throw new PublishError(
      "failed",
      "this machine's network is shared: what may be reached is the network's to say",
      "call setAllowed of the network",
    );
  }
  save(): MachineNetworkState {
    return {};
  }
  restore(): void {}
  get fileCalls(): number {
    return 0;
  }
  status(): undefined {
    return undefined;
  }
  close(): void {
    this.#remote.unplug();
  }
}
