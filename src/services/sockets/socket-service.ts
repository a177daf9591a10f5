/** All Hyper-V sockets of a machine: connections to ports that the guest listens on, and listeners for those that it makes. */
import type { Clock, Deadlines } from "../../machine/device.js";
import type { Offer, VmbusDevice } from "../../vmbus/device.js";
import { HvSocket, type SocketEvents } from "./hv-socket.js";

/** Last twelve bytes of a service id (Linux: "the well-known GUID template"). */
const TEMPLATE = "-facb-11e6-bd58-64006a7986d3";
/** STATUS_CONNECTION_REFUSED. */
const REFUSED = 0xc0000236;
/** Connections at once: each takes a relid. */
const MAX_SOCKETS = 1024;

export const servicePort = (guid: string): number | undefined =>
  guid.endsWith(TEMPLATE) ? Number.parseInt(guid.slice(0, 8), 16) : undefined;
export const serviceGuid = (port: number): string => (port >>> 0).toString(16).padStart(8, "0") + TEMPLATE;

/** What of the bus it needs. */
export interface SocketBus {
  offer(device: VmbusDevice): Offer;
  sendTlConnectResult(endpoint: string, service: string, status: number): void;
}

export class SocketService {
  readonly #bus: SocketBus;
  readonly #clock: Clock;
  readonly #deadlines: Deadlines;
  readonly #sockets = new Set<HvSocket>();
  readonly #listeners = new Map<number, (socket: () => HvSocket, peerPort: number) => SocketEvents>();
  readonly #freeDeadlines: string[] = [];
  #deadlineCount = 0;
  #serial = 0;
  /** Offers that wait until an older one of the same name is gone are the bus's business. */

  constructor(o: { readonly bus: SocketBus; readonly clock: Clock; readonly deadlines: Deadlines }) {
    this.#bus = o.bus;
    this.#clock = o.clock;
    this.#deadlines = o.deadlines;
  }
  get count(): number {
    return this.#sockets.size;
  }
  /** To a port that the guest listens on. It takes the connection, or (there is nobody) it says nothing and we give up. */
  connect(port: number, events: SocketEvents): HvSocket | undefined {
    // the guest shows the first word as the peer's port; the rest makes it unique
    const serial = ++this.#serial;
    const instanceId = `${(0x40000000 + (serial % 0x3fffffff)).toString(16).padStart(8, "0")}${TEMPLATE}`;
    return this.#make(serviceGuid(port), instanceId, true, () => events);
  }
  /** @param accept gets the new socket and gives what it does with it */
  listen(port: number, accept: (socket: () => HvSocket, peerPort: number) => SocketEvents): void {
    this.#listeners.set(port, accept);
  }
  unlisten(port: number): void {
    this.#listeners.delete(port);
  }
  /** The guest asks for a connection (TL_CONNECT_REQUEST). */
  onTlConnect(endpoint: string, service: string): void {
    const port = servicePort(service);
    const accept = port === undefined ? undefined : this.#listeners.get(port);
    const peerPort = Number.parseInt(endpoint.slice(0, 8), 16);
    const socket =
      accept === undefined ? undefined : this.#make(service, endpoint, false, (get) => accept(get, peerPort));
    this.#bus.sendTlConnectResult(endpoint, service, socket === undefined ? REFUSED : 0);
  }
  #make(
    classId: string,
    instanceId: string,
    guestAccepts: boolean,
    eventsOf: (socket: () => HvSocket) => SocketEvents,
  ): HvSocket | undefined {
    if (this.#sockets.size >= MAX_SOCKETS) return undefined;
    let socket: HvSocket;
    const events = eventsOf(() => socket);
    const deadline = this.#freeDeadlines.pop() ?? this.#newDeadline();
    socket = new HvSocket({
      classId,
      instanceId,
      guestAccepts,
      events,
      now: () => this.#clock.now(),
      deadlines: this.#deadlines,
      deadline,
      onReleased: (s) => {
        this.#sockets.delete(s);
        this.#byDeadline.delete(s.deadline);
        this.#freeDeadlines.push(s.deadline);
      },
    });
    this.#sockets.add(socket);
    this.#byDeadline.set(deadline, socket);
    socket.offered(this.#bus.offer(socket));
    return socket;
  }
  readonly #byDeadline = new Map<string, HvSocket>();
  #newDeadline(): string {
    const id = `socket${this.#deadlineCount++}`;
    this.#deadlines.register(id, () => this.#byDeadline.get(id)?.onDeadline());
    return id;
  }
  /** After each turn of the bus: connections that only wait for the guest to have read everything. */
  check(): void {
    for (const socket of this.#sockets) if (socket.waitsForReader) socket.checkReader();
  }
  /** The machine went on from a saved state, or the bus was reset. */
  destroyAll(): void {
    for (const socket of [...this.#sockets]) socket.destroy();
  }
}
