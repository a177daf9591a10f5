/**
 * Datagrams of guests: RFC 768. Each pair of ends has a socket of the platform's that is connected to its peer, so that only that
 * peer can answer, and is told when there is none. Flows end after some time without datagrams, the one longest unused first if there
 * are too many.
 */
import { type Endpoint, formatEndpoint, type IpAddress, type MacAddress, sameBytes } from "./address.js";
import type { BackendError, UdpSocket } from "./backend.js";
import { type Flow, FlowTable } from "./flow-table.js";
import { checksumHolds, UDP_HEADER } from "./header.js";
import type { IcmpError } from "./icmp.js";
import { type Link, quotedPacket } from "./link.js";
import { IpProtocol, type Packet } from "./packet.js";
import type { FlowInfo } from "./statistics.js";
import { Timer } from "./timers.js";

/** What a guest's datagrams lead to; undefined: they are refused. */
export type UdpOpener = (guest: Endpoint, remote: Endpoint, flow: UdpFlowEvents) => UdpSocket | undefined;
/** What comes back. */
export interface UdpFlowEvents {
  onDatagram(bytes: Uint8Array): void;
  onError(error: BackendError): void;
}

const EPHEMERAL = 49_152;
const ERRORS: Partial<Record<BackendError["code"], IcmpError>> = {
  refused: "port",
  "no-route": "no-route",
  "no-host": "no-host",
  "no-permission": "prohibited",
};

interface UdpFlow extends Flow {
  readonly direction: "out" | "in";
  mac: MacAddress;
  socket: UdpSocket | undefined;
  readonly timer: Timer;
  lastUsed: number;
  bytesToHost: number;
  bytesToGuest: number;
  nextInBucket: this | undefined;
}

/** A datagram's header, checked. */
export interface Datagram {
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly from: number;
  readonly end: number;
}

/** All flows of datagrams. */
export class UdpNat {
  readonly #link: Link;
  readonly #open: UdpOpener;
  readonly #flows: FlowTable<UdpFlow>;

  constructor(link: Link, open: UdpOpener) {
    this.#link = link;
    this.#open = open;
    this.#flows = new FlowTable(link.random32());
  }
  get count(): number {
    return this.#flows.size;
  }

  /** @returns undefined, and counts, if the header or the checksum is wrong */
  check(p: Packet): Datagram | undefined {
    const { view, payloadAt: at, ipEnd } = p;
    const { statistics } = this.#link;
    const length = ipEnd - at >= UDP_HEADER ? view.getUint16(at + 4) : 0;
    const sum = length >= UDP_HEADER ? view.getUint16(at + 6) : 0;
    if (length < UDP_HEADER || at + length > ipEnd) {
      statistics.drop("transport-header");
      return undefined;
    }
    const end = at + length;
    const hasSum = sum !== 0 || p.family === 16; // RFC 8200: none without
    if (!p.isTrusted && hasSum && !checksumHolds(view, p.sourceAt, p.family, IpProtocol.UDP, at, end)) {
      statistics.drop("checksum");
      return undefined;
    }
    return { sourcePort: view.getUint16(at), destinationPort: view.getUint16(at + 2), from: at + UDP_HEADER, end };
  }

  /** A checked datagram to the outside. */
  receive(p: Packet, d: Datagram): void {
    const { statistics, clock } = this.#link;
    let flow = this.#flows.find(p, d.sourcePort, d.destinationPort);
    if (flow === undefined) {
      if (d.destinationPort === 0) {
        statistics.drop("transport-header");
        return;
      }
      const guest = { address: p.source, port: d.sourcePort };
      const remote = { address: p.destination, port: d.destinationPort };
      flow = this.#new("out", guest, remote, p.sourceMac);
      const made = flow;
      flow.socket = this.#open(guest, remote, {
        onDatagram: (bytes) => this.#toGuest(made, bytes),
        onError: (error) => this.#failed(made, error),
      });
      if (flow.socket === undefined) {
        flow.timer.cancel();
        statistics.drop("refused");
        this.#link.sendError(p, "prohibited");
        return;
      }
      this.#add(flow);
    }
    flow.lastUsed = clock.now();
    flow.bytesToHost += d.end - d.from;
    statistics.udpToHost++;
    flow.socket?.send(p.bytes.subarray(d.from, d.end));
  }

  /**
   * A datagram to a published port.
   *
   * @param key of the flow's other end, kept by the caller: the port that stands for the peer outside
   * @returns that port, or undefined if the guest is not known or there is no room
   */
  fromOutside(
    guest: Endpoint,
    gateway: IpAddress,
    key: number | undefined,
    bytes: Uint8Array,
    reply: UdpSocket,
  ): number | undefined {
    const mac = this.#link.macOf(guest.address);
    if (mac === undefined) {
      this.#link.statistics.drop("no-neighbour");
      this.#link.solicit(guest.address);
      return undefined;
    }
    let flow = key === undefined ? undefined : this.#flows.get(guest, { address: gateway, port: key });
    if (flow !== undefined && flow.direction !== "in") flow = undefined;
    if (flow === undefined) {
      const port = this.#ephemeral(guest, gateway);
      if (port === undefined) return undefined;
      flow = this.#new("in", guest, { address: gateway, port }, mac);
      flow.socket = reply;
      this.#add(flow);
    }
    flow.mac = mac;
    this.#toGuest(flow, bytes);
    return flow.remote.port;
  }
  #ephemeral(guest: Endpoint, gateway: IpAddress): number | undefined {
    const first = this.#link.random32() >>> 0;
    for (let i = 0; i < 256; i++) {
      const port = EPHEMERAL + ((first + i) % (65_536 - EPHEMERAL));
      if (this.#flows.get(guest, { address: gateway, port }) === undefined) return port;
    }
    return undefined;
  }

  #new(direction: "out" | "in", guest: Endpoint, remote: Endpoint, mac: MacAddress): UdpFlow {
    const flow: UdpFlow = {
      direction,
      guest,
      remote,
      mac,
      socket: undefined,
      timer: new Timer(this.#link.timers, (now) => this.#idle(flow, now)),
      lastUsed: this.#link.clock.now(),
      bytesToHost: 0,
      bytesToGuest: 0,
      hash: 0,
      nextInBucket: undefined,
    };
    return flow;
  }
  #add(flow: UdpFlow): void {
    const { network, statistics } = this.#link;
    if (this.#flows.size >= network.maxUdp) {
      let oldest: UdpFlow | undefined;
      for (const f of this.#flows) if (oldest === undefined || f.lastUsed < oldest.lastUsed) oldest = f;
      if (oldest !== undefined) this.#close(oldest);
    }
    statistics.udpOpened++;
    this.#flows.add(flow);
    flow.timer.set(flow.lastUsed + network.udpIdleNs);
  }
  #idle(flow: UdpFlow, now: number): void {
    const due = flow.lastUsed + this.#link.network.udpIdleNs;
    if (due > now) flow.timer.set(due);
    else this.#close(flow);
  }
  #close(flow: UdpFlow): void {
    flow.timer.cancel();
    this.#flows.remove(flow);
    flow.socket?.close();
    flow.socket = undefined;
  }
  #toGuest(flow: UdpFlow, bytes: Uint8Array): void {
    if (flow.socket === undefined) return;
    const { statistics, clock } = this.#link;
    flow.lastUsed = clock.now();
    if (!this.#link.sendUdp(flow.mac, flow.remote, flow.guest, bytes)) {
      statistics.drop("no-room");
      return;
    }
    flow.bytesToGuest += bytes.length;
    statistics.udpToGuest++;
  }
  #failed(flow: UdpFlow, error: BackendError): void {
    const kind = ERRORS[error.code];
    if (flow.socket === undefined || kind === undefined) return;
    this.#link.sendError(quotedPacket(this.#link.network, flow.mac, flow.guest, flow.remote, IpProtocol.UDP, 0), kind);
  }

  /** Ends everything, or what is of one guest. */
  closeAll(mac?: MacAddress): void {
    for (const flow of this.#flows) if (mac === undefined || sameBytes(flow.mac, mac)) this.#close(flow);
  }
  /** Ends the flows that a published port's socket served. */
  closeOf(test: (socket: UdpSocket | undefined) => boolean): void {
    for (const flow of this.#flows) if (flow.direction === "in" && test(flow.socket)) this.#close(flow);
  }

  *flows(): Generator<FlowInfo> {
    for (const flow of this.#flows)
      yield {
        protocol: "udp",
        direction: flow.direction,
        guest: formatEndpoint(flow.guest),
        remote: formatEndpoint(flow.remote),
        state: "open",
        bytesToHost: flow.bytesToHost,
        bytesToGuest: flow.bytesToGuest,
      };
  }
}
