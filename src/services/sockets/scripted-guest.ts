/**
 * A guest for tests of Hyper-V sockets, over the scripted guest of VMBus: connections as Linux's hv_sock makes, reads, writes and
 * closes them. It looks at a FIN in its ring and leaves it there, and its last close waits for the host's rescind.
 */
import { DeadlineQueue } from "../../machine/deadlines.js";
import { TraceKind, TraceRing } from "../../trace/trace.js";
import * as protocol from "../../vmbus/protocol.js";
import { type GuestChannel, type GuestOffer, type OpenOptions, ScriptedGuest } from "../../vmbus/scripted-guest.js";
import type { HvSocket, SocketEvents } from "./hv-socket.js";
import { SocketService } from "./socket-service.js";

/** A packet without data in the ring, its trailer included. */
const FIN_BYTES = 32;
/** Most that Linux sends in a packet: a page without the header. */
export const GUEST_PACKET = 4088;
const template = (port: number): string => `${port.toString(16).padStart(8, "0")}-facb-11e6-bd58-64006a7986d3`;

export class SocketGuest {
  readonly guest: ScriptedGuest;
  readonly deadlines = new DeadlineQueue();
  readonly trace = new TraceRing(() => 0, 4000);
  readonly service: SocketService;
  nowNs = 0;
  readonly #initial: number;

  constructor(o: { bytes?: number; connect?: boolean; version?: number } = {}) {
    this.guest = new ScriptedGuest({ trace: this.trace, bytes: o.bytes ?? 2 << 20 });
    this.service = new SocketService({
      bus: this.guest.server,
      clock: { now: () => this.nowNs },
      deadlines: this.deadlines,
    });
    this.guest.server.onTlConnect = (endpoint, service) => this.service.onTlConnect(endpoint, service);
    if (o.connect !== false) this.guest.connect(o.version);
    this.#initial = this.guest.server.freeRelids;
  }
  /** Relids in use. */
  get relids(): number {
    return this.#initial - this.guest.server.freeRelids;
  }
  /** A turn of the device side, and what the guest takes of it. */
  turn(): void {
    this.guest.turn();
    this.service.check();
    this.guest.turn();
  }
  runTo(ns: number): void {
    while (this.deadlines.earliest() <= ns) {
      this.nowNs = Math.max(this.nowNs, this.deadlines.earliest());
      this.deadlines.runDue(this.nowNs);
      this.turn();
    }
    this.nowNs = Math.max(this.nowNs, ns);
    this.turn();
  }
  violations(): string[] {
    const records = this.trace.take().filter((r) => r.kind === TraceKind.violation);
    return records.map((r) => new TextDecoder().decode(r.bytes));
  }
  /** `connect` of a program: asks. */
  ask(port: number, localPort: number): void {
    this.guest.post(protocol.TlConnectRequest.encode({ endpoint: template(localPort), service: template(port) }));
    this.turn();
  }
  /** The offer for a service and an endpoint that the host has not taken back. */
  offer(port: number, endpoint?: number): GuestOffer | undefined {
    return [...this.guest.offers.values()].find(
      (o) =>
        o.classId === template(port) &&
        (endpoint === undefined || o.instanceId === template(endpoint)) &&
        !this.guest.rescinded.has(o.relid),
    );
  }
  /** Opens a socket's channel. */
  open(offer: GuestOffer, options: OpenOptions = {}): GuestSocket {
    return new GuestSocket(this, this.guest.open(offer.relid, { ringPages: 6, ...options }));
  }
  /** `connect` with all that follows. */
  connect(port: number, localPort: number, options: OpenOptions = {}): GuestSocket {
    this.ask(port, localPort);
    const offer = this.offer(port, localPort);
    if (offer === undefined) throw new Error("not offered");
    return this.open(offer, options);
  }
}

export class GuestSocket {
  readonly channel: GuestChannel;
  readonly #guest: SocketGuest;
  /** Bytes of the packet that is being read. */
  #rest = new Uint8Array(0);

  constructor(guest: SocketGuest, channel: GuestChannel) {
    this.#guest = guest;
    this.channel = channel;
  }
  get isRescinded(): boolean {
    return this.#guest.guest.rescinded.has(this.channel.relid);
  }
  /** Sends as much as there is room for. @returns bytes sent */
  write(data: Uint8Array): number {
    let sent = 0;
    while (sent < data.length) {
      const n = Math.min(GUEST_PACKET, data.length - sent);
      const packet = new Uint8Array(8 + n);
      new DataView(packet.buffer).setUint32(0, 1, true);
      new DataView(packet.buffer).setUint32(4, n, true);
      packet.set(data.subarray(sent, sent + n), 8);
      // room for a FIN is kept at all times
      if (this.channel.out.free <= packet.length + 32 + FIN_BYTES) {
        this.channel.out.store(12, packet.length + 32 + FIN_BYTES);
        break;
      }
      this.channel.out.store(12, 0);
      if (!this.channel.send(packet)) break;
      sent += n;
    }
    return sent;
  }
  /** `shutdown(SHUT_WR)`, or the first part of `close`. */
  fin(): void {
    if (!this.channel.send(Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0))) throw new Error("no room for a FIN");
    this.#guest.turn();
  }
  /** Whether the host has ended its direction, and all before has been read. */
  get atEnd(): boolean {
    const { in: ring } = this.channel;
    return ring.size - ring.free === FIN_BYTES && this.#rest.length === 0;
  }
  /** At most `most` bytes; empty when there is nothing now. */
  read(most = Number.POSITIVE_INFINITY): Uint8Array {
    const { in: ring } = this.channel;
    if (this.#rest.length === 0) {
      if (ring.size - ring.free <= FIN_BYTES) return new Uint8Array(0);
      const { payload, type } = this.channel.receive()!;
      const view = new DataView(payload.buffer);
      const size = view.getUint32(4, true);
      if (type !== 6 || view.getUint32(0, true) !== 1 || size === 0 || size > 16384 || size > payload.length - 8)
        throw new Error(`the host sent a packet of type ${type} with ${size} of ${payload.length} bytes`);
      this.#rest = payload.slice(8, 8 + size);
    }
    const out = this.#rest.slice(0, most);
    this.#rest = this.#rest.slice(out.length);
    return out;
  }
  /** All that has come. */
  readAll(): Uint8Array {
    const parts: Uint8Array[] = [];
    for (let part = this.read(); part.length > 0; part = this.read()) parts.push(part);
    return Uint8Array.from(parts.flatMap((p) => [...p]));
  }
  /** After the rescind: closes, takes its ring back, lets go of the relid. @throws Error when it was not rescinded */
  release(): void {
    if (!this.isRescinded) throw new Error("the guest's close waits for the rescind");
    this.channel.close();
    this.#guest.guest.release(this.channel.relid);
    this.#guest.turn();
  }
}

/** The host's end: what has happened to a socket. */
export class HostEnd {
  socket: HvSocket | undefined;
  get: (() => HvSocket) | undefined;
  readonly log: string[] = [];
  readonly received: Uint8Array[] = [];
  onData: ((data: Uint8Array) => void) | undefined;
  onDrain: (() => void) | undefined;
  onOpen: (() => void) | undefined;
  onEnd: (() => void) | undefined;
  readonly events: SocketEvents = {
    onOpen: () => {
      this.log.push("open");
      this.socket ??= this.get?.();
      this.onOpen?.();
    },
    onData: (data) => {
      this.#alive();
      this.received.push(data);
      this.onData?.(data);
    },
    onEnd: () => {
      this.#alive();
      this.log.push("end");
      this.onEnd?.();
    },
    onDrain: () => {
      this.#alive();
      this.log.push("drain");
      this.onDrain?.();
    },
    onClose: (failure) => {
      this.#alive();
      this.log.push(`close ${failure ?? "well"}`);
    },
  };
  #alive(): void {
    if (this.log.at(-1)?.startsWith("close") === true) throw new Error("an event after the last");
  }
  get bytes(): Uint8Array {
    return Uint8Array.from(this.received.flatMap((p) => [...p]));
  }
}
/** A listener that keeps each connection's end. */
export function listen(service: SocketService, port: number): { ends: HostEnd[]; peers: number[] } {
  const ends: HostEnd[] = [];
  const peers: number[] = [];
  service.listen(port, (get, peerPort) => {
    const end = new HostEnd();
    end.get = get;
    ends.push(end);
    peers.push(peerPort);
    return end.events;
  });
  return { ends, peers };
}
