/** All Hyper-V sockets of a machine: connections to ports that the guest listens on, and listeners for those that it makes. */
import type { Clock, Deadlines } from "../../machine/device.js";
import type { Offer, VmbusDevice } from "../../vmbus/device.js";
import type { OfferOptions } from "../../vmbus/server.js";
import { HvSocket, type SocketEvents } from "./hv-socket.js";

/** Last twelve bytes of a service id (Linux: "the well-known GUID template"). */
const TEMPLATE = "-facb-11e6-bd58-64006a7986d3";
/** STATUS_CONNECTION_REFUSED. */
const REFUSED = 0xc0000236;
/** Connections at once, those that the guest has not let go of included: each takes a relid. */
const MAX_SOCKETS = 1024;
/** The guest shows the first word of an instance as the peer's port: of connections that we make, in this range. */
const FIRST_PORT = 0x40000000;
const PORTS = 0x3fffffff;

export const servicePort = (guid: string): number | undefined =>
  guid.endsWith(TEMPLATE) ? Number.parseInt(guid.slice(0, 8), 16) : undefined;
export const serviceGuid = (port: number): string => (port >>> 0).toString(16).padStart(8, "0") + TEMPLATE;

/** What of the bus it needs. */
export interface SocketBus {
  /** How many channels more there may be; at 0 `offer` throws. */
  readonly freeRelids: number;
  /** Throws for a class and instance that is offered already. */
  offer(device: VmbusDevice, options: OfferOptions): Offer;
  sendTlConnectResult(endpoint: string, service: string, status: number): void;
}

export class SocketService {
  readonly #bus: SocketBus;
  readonly #clock: Clock;
  readonly #deadlines: Deadlines;
  /** All that the guest has not let go of. */
  readonly #sockets = new Set<HvSocket>();
  /** When the guest last opened one of their channels. */
  readonly #opened = { at: 0 };
  /** The newest of each pair of service and endpoint. */
  readonly #byPair = new Map<string, HvSocket>();
  readonly #byDeadline = new Map<string, HvSocket>();
  readonly #listeners = new Map<number, (socket: () => HvSocket, peerPort: number) => SocketEvents>();
  readonly #freeDeadlines: string[] = [];
  #deadlineCount = 0;
  #serial = 0;

  constructor(o: { readonly bus: SocketBus; readonly clock: Clock; readonly deadlines: Deadlines }) {
    this.#bus = o.bus;
    this.#clock = o.clock;
    this.#deadlines = o.deadlines;
  }
  /** Connections, those included that have ended and that the guest has not let go of. */
  get count(): number {
    return this.#sockets.size;
  }
  /**
   * To a port that the guest listens on. It takes the connection, or (there is nobody) it says nothing and we give up.
   * @returns undefined when there are too many connections
   */
  connect(port: number, events: SocketEvents): HvSocket | undefined {
    const service = serviceGuid(port);
    let endpoint: string;
    do endpoint = serviceGuid(FIRST_PORT + (++this.#serial % PORTS));
    while (this.#byPair.has(service + endpoint));
    return this.#make(service, endpoint, true, () => events);
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
    // a guest that asks anew has given up an offer that it did not open, and a connection that it has closed
    const earlier = this.#byPair.get(service + endpoint);
    earlier?.giveUp();
    const isTaken = earlier !== undefined && earlier.state !== "closed";
    const socket =
      accept === undefined || isTaken
        ? undefined
        : this.#make(service, endpoint, false, (get) => accept(get, peerPort));
    this.#bus.sendTlConnectResult(endpoint, service, socket === undefined ? REFUSED : 0);
  }
  #make(
    classId: string,
    instanceId: string,
    guestAccepts: boolean,
    eventsOf: (socket: () => HvSocket) => SocketEvents,
  ): HvSocket | undefined {
    if (this.#sockets.size >= MAX_SOCKETS || this.#bus.freeRelids === 0) return undefined;
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
      opened: this.#opened,
    });
    this.#sockets.add(socket);
    this.#byPair.set(classId + instanceId, socket);
    this.#byDeadline.set(deadline, socket);
    const released = (): void => {
      socket.released();
      this.#forget(socket);
    };
    socket.offered(this.#bus.offer(socket, { transient: true, released }));
    return socket;
  }
  #forget(socket: HvSocket): void {
    const pair = socket.offer.classId + socket.offer.instanceId;
    this.#sockets.delete(socket);
    if (this.#byPair.get(pair) === socket) this.#byPair.delete(pair);
    this.#byDeadline.delete(socket.deadline);
    this.#freeDeadlines.push(socket.deadline);
  }
  #newDeadline(): string {
    const id = `socket${this.#deadlineCount++}`;
    this.#deadlines.register(id, () => this.#byDeadline.get(id)?.onDeadline());
    return id;
  }
  /** After each turn of the bus: connections that only wait for the guest to have read everything. */
  check(): void {
    for (const socket of this.#sockets) socket.checkReader();
  }
}
