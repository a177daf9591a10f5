/**
 * A machine's network, for all of its boots: the cable that its adapter has one end of, a switch, and the router to the platform's
 * sockets. It lives on the device side's thread; its time is the machine's, and stands still between two machines.
 *
 *     adapter ── cable ── [capture] ── Switch ── cable ── Nat ── Backend
 */
import type { Clock } from "../machine/device.js";
import { formatMac } from "../net/address.js";
import type { Backend } from "../net/backend.js";
import type { NatState } from "../net/nat.js";
import { PcapngWriter, tap } from "../net/pcapng.js";
import { EthernetPort } from "../net/port.js";
import type { PublishedPort, PublishSpec } from "../net/publish.js";
import { type FileServer, type FileServerState, NFS_PORT } from "../services/files/file-server.js";
import type { NetworkAdapter } from "../services/network/adapter.js";
import type { NatStatus, NetworkDeviceStatus, NetworkSpec } from "./device-messages.js";
import { RoutedSwitch } from "./routed-switch.js";

/** Where the bytes of a capture file go, and what is added to the machine's time for that since 1970. */
export interface Capture {
  readonly sink: (bytes: Uint8Array) => void;
  readonly epochNs: number;
}

export interface MachineNetworkOptions {
  readonly spec: NetworkSpec;
  readonly backend: Backend;
  /** 32 bits by chance. */
  readonly random32: () => number;
  readonly capture?: Capture;
  /** Shares, that only this machine reaches. */
  readonly files?: FileServer;
  /** A turn of the device side is due. */
  readonly onWork: () => void;
}

/** What an adapter is plugged in to, as the device side sees it: a network of the machine's own, or one that it shares. */
export interface NetworkPlug {
  /** The adapter's end of the cable. */
  readonly port: EthernetPort;
  /** A new machine has the adapter: connections of the one before are gone. */
  attach(clock: Clock): void;
  /** The machine stands still, or goes on. What comes for it waits. */
  set isHeld(held: boolean);
  /** In the machine's time; Infinity: never. */
  nextDeadline(): number;
  runDue(now: number): void;
  /** The end of a turn: what was collected goes out. */
  flush(): void;
  /** Changes whenever a frame passes: there may be something soon. */
  readonly activity: number;
  /** @throws PublishError, at last */
  publish(spec: PublishSpec): Promise<PublishedPort>;
  /** @returns false if there is no such port */
  unpublish(id: number): boolean;
  /** @throws PolicyError */
  setAllowed(list: readonly string[] | undefined): void;
  save(): MachineNetworkState;
  restore(state: MachineNetworkState, allow: readonly string[] | undefined): void;
  status(): NetworkDeviceStatus["nat"];
  /** Calls that the guest's file system has made. */
  readonly fileCalls: number;
  close(): void;
}

/** Holds frames for a machine that stands still. */
export class Hold {
  readonly #port: EthernetPort;
  #isHeld = false;
  /** Something was refused meanwhile. */
  #isRefused = false;

  /** @param port the adapter's end, with the adapter's taker */
  constructor(port: EthernetPort) {
    this.#port = port;
    const take = port.receive;
    port.receive = (frame, flags, segmentSize) => {
      if (!this.#isHeld) return take(frame, flags, segmentSize);
      this.#isRefused = true;
      return false;
    };
  }
  set isHeld(held: boolean) {
    this.#isHeld = held;
    if (held || !this.#isRefused) return;
    this.#isRefused = false;
    this.#port.room();
  }
}

/** What is left of the network in a saved machine: who has which address, what it was shown of shares; not connections. */
export interface MachineNetworkState {
  /** Undefined where the network is shared: it has them. */
  readonly nat?: NatState;
  /** What the guest knows of shares. */
  readonly files?: FileServerState;
}

export class MachineNetwork implements NetworkPlug {
  /** The adapter's end of the cable. */
  readonly port: EthernetPort;
  readonly #router: RoutedSwitch;
  readonly #files: FileServer | undefined;
  #clock: Clock | undefined;
  /** Router's time less the machine's. */
  #offsetNs = 0;
  /** Without a machine the router's time stands still here. */
  #stoodAtNs = 0;
  #hold: Hold | undefined;

  /** @throws PolicyError */
  constructor(o: MachineNetworkOptions) {
    const clock = { now: () => this.#now() };
    const [adapterEnd, cable] = EthernetPort.cable();
    this.port = adapterEnd;
    const { capture, files, spec } = o;
    this.#files = files;
    this.#router = new RoutedSwitch({
      clock,
      backend: o.backend,
      random32: o.random32,
      onDeadline: o.onWork,
      config: spec.allow === undefined ? {} : { allow: spec.allow },
      impairments: spec.impairments,
      ...(files === undefined
        ? {}
        : { service: (port, guest, events) => (port === NFS_PORT ? files.session(guest.port, events) : undefined) }),
    });
    this.#router.switch.attach(
      capture === undefined ? cable : tap(cable, new PcapngWriter(capture.sink, "eth0", capture.epochNs), clock),
    );
  }

  #now(): number {
    return this.#clock === undefined ? this.#stoodAtNs : this.#clock.now() + this.#offsetNs;
  }
  /** A new machine has the adapter: connections of the one before are gone. */
  attach(clock: Clock): void {
    const now = this.#now();
    this.#clock = clock;
    this.#offsetNs = now - clock.now();
    this.#stoodAtNs = now;
    this.#router.nat.disconnect();
    this.#hold = new Hold(this.port);
  }
  set isHeld(held: boolean) {
    if (this.#hold !== undefined) this.#hold.isHeld = held;
  }

  /** In the machine's time; Infinity: never. */
  nextDeadline(): number {
    return this.#router.nextDeadline() - this.#offsetNs;
  }
  /** @param now the machine's time */
  runDue(now: number): void {
    this.#router.runDue(now + this.#offsetNs);
  }
  flush(): void {}
  get activity(): number {
    const { framesIn, framesOut } = this.#router.nat.statistics;
    return framesIn + framesOut;
  }

  /** @throws PublishError, at last */
  publish(spec: PublishSpec): Promise<PublishedPort> {
    return this.#router.publish(spec);
  }
  /** @returns false if there is no such port */
  unpublish(id: number): boolean {
    return this.#router.nat.unpublish(id);
  }
  /** Replaces the allow list; connections that are open stay. @throws PolicyError */
  setAllowed(list: readonly string[] | undefined): void {
    this.#router.nat.setAllowed(list);
  }

  save(): MachineNetworkState {
    return { nat: this.#router.nat.save(), ...(this.#files === undefined ? {} : { files: this.#files.save() }) };
  }
  /** Leases of before; what is allowed is what this machine was told. */
  restore(state: MachineNetworkState, allow: readonly string[] | undefined): void {
    if (state.nat !== undefined) this.#router.nat.restore({ ...state.nat, allow });
    if (state.files !== undefined) this.#files?.restore(state.files);
  }
  status(): NatStatus {
    return this.#router.status();
  }
  /** Calls that the guest's file system has made. */
  get fileCalls(): number {
    return this.#files?.calls ?? 0;
  }
  close(): void {
    this.#files?.close();
    this.#router.nat.close();
  }
}

/** The adapter and what is behind it, for people. */
export function networkStatus(
  adapter: NetworkAdapter,
  network: NetworkPlug | undefined,
): Omit<NetworkDeviceStatus, "number"> {
  const s = adapter.status();
  const { drops, transmittedFrames, transmittedBytes, receivedFrames, receivedBytes } = s.statistics;
  return {
    mac: formatMac(s.mac),
    protocol: s.protocol,
    isReady: s.isReady,
    link: s.link,
    mtu: s.mtu,
    channels: s.channels.length,
    receiveSections: s.receiveSections,
    freeReceiveSections: s.freeReceiveSections,
    sentFrames: transmittedFrames,
    sentBytes: transmittedBytes,
    receivedFrames,
    receivedBytes,
    drops: { ...drops },
    nat: network?.status(),
  };
}
