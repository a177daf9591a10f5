/**
 * Connections of guests: each ends here (`TcpEndpoint`) and goes on as a socket of the platform's. Neither end reads faster than the
 * other takes: a full queue pauses the socket, bytes that the socket has not sent keep the guest's window closed.
 */
import { type Endpoint, formatEndpoint, type IpAddress, type MacAddress, sameBytes } from "./address.js";
import type { BackendError, IncomingTcp, TcpSocket, TcpSocketEvents } from "./backend.js";
import { Budget } from "./byte-queue.js";
import { type Flow, FlowTable } from "./flow-table.js";
import {
  checksumHolds,
  type FrameBuffer,
  TcpFlags,
  TcpHeader,
  transportAt,
  writeIp,
  writeTransportChecksum,
} from "./header.js";
import type { IcmpError } from "./icmp.js";
import { type Link, quotedPacket } from "./link.js";
import { IPV4_HEADER, IPV6_HEADER, IpProtocol, type Packet } from "./packet.js";
import { FrameFlags } from "./port.js";
import type { FlowInfo } from "./statistics.js";
import type { TcpEnd, TcpSettings, TcpUser, TcpWire } from "./tcp.js";
import { TcpEndpoint } from "./tcp-endpoint.js";
import { Timer } from "./timers.js";

/** What a guest's connection leads to; undefined: it is refused. */
export type TcpOpener = (guest: Endpoint, remote: Endpoint, events: TcpSocketEvents) => InnerSocket | undefined;
/** A socket, or something in this process that is used like one. */
export interface InnerSocket extends TcpSocket {
  /** The connection is known now, and may be accepted. */
  start?(): void;
}

/** Of a published port. */
export interface Published {
  /** The guest has answered on this port before: a refusal is final. */
  answered: boolean;
}

const HOP_LIMIT = 64;
/** Between attempts to reach a guest that is not up yet. */
const RETRY_NS = 250e6;
const ROOM_NS = 1e6;
/** A connection without data for so long may be given up for a new one, if there are too many. */
const IDLE_NS = 300e9;
const EPHEMERAL = 49_152;
/** What a guest is told when the outside does not answer; the others are refused by reset. */
const ERRORS: Partial<Record<BackendError["code"], IcmpError>> = {
  "no-route": "no-route",
  "no-host": "no-host",
  timeout: "no-host",
  "no-permission": "prohibited",
};

/** One connection. */
class TcpFlow implements Flow, TcpWire, TcpUser {
  readonly guest: Endpoint;
  readonly remote: Endpoint;
  mac: MacAddress;
  hash = 0;
  nextInBucket: this | undefined;
  readonly transportAt: number;
  readonly owner: TcpNat;
  readonly direction: "out" | "in";
  endpoint: TcpEndpoint;
  socket: TcpSocket | undefined;
  /** The socket has told its last. */
  socketClosed = false;
  wasConnected = false;
  inTable = true;
  bytesToHost = 0;
  bytesToGuest = 0;
  /** When data went through, or the connection was made. */
  lastUsed: number;
  /** The guest's SYN. */
  synSeq = 0;
  readonly attempt: Attempt | undefined;

  constructor(owner: TcpNat, guest: Endpoint, remote: Endpoint, mac: MacAddress, attempt?: Attempt) {
    this.owner = owner;
    this.guest = guest;
    this.remote = remote;
    this.mac = mac;
    this.attempt = attempt;
    this.direction = attempt === undefined ? "out" : "in";
    this.transportAt = transportAt(guest.address.length);
    this.lastUsed = owner.link.clock.now();
    this.endpoint = this.newEndpoint();
  }
  newEndpoint(): TcpEndpoint {
    const { link } = this.owner;
    return new TcpEndpoint(this.owner.settings(this), this, this, link.timers, link.random32());
  }

  // the wire
  now(): number {
    return this.owner.link.clock.now();
  }
  begin(): FrameBuffer | undefined {
    const f = this.owner.link.begin();
    if (f === undefined) this.owner.waitForRoom(this, true);
    return f;
  }
  end(f: FrameBuffer, headerBytes: number, dataBytes: number, segmentSize: number): boolean {
    const { link } = this.owner;
    const length = headerBytes + dataBytes;
    const family = this.guest.address.length;
    const fields = {
      source: this.remote.address,
      destination: this.guest.address,
      protocol: IpProtocol.TCP,
      hopLimit: HOP_LIMIT,
      identification: link.identification(),
    };
    writeIp(f, this.mac, link.network.mac, fields, length);
    const partial = link.network.partialChecksums;
    // for a long segment the sum is that of the pseudo-header without the length
    if (partial && segmentSize > 0) {
      writeTransportChecksum(f, family, IpProtocol.TCP, this.transportAt, 16, 0, true);
    } else writeTransportChecksum(f, family, IpProtocol.TCP, this.transportAt, 16, length, partial);
    const flags = partial ? FrameFlags.partialChecksum | FrameFlags.verified : FrameFlags.verified;
    const ok = link.end(f, this.transportAt + length, flags, segmentSize);
    if (!ok) this.owner.waitForRoom(this, false);
    return ok;
  }

  // the guest's side
  onConnect(): void {
    this.wasConnected = true;
    this.owner.link.statistics.tcpOpened++;
    if (this.attempt !== undefined) {
      this.attempt.published.answered = true;
      this.attempt.timer.cancel();
      this.socket?.resume();
    }
  }
  onData(bytes: Uint8Array): void {
    this.bytesToHost += bytes.length;
    this.lastUsed = this.now();
    this.owner.link.statistics.tcpBytesToHost += bytes.length;
    this.socket?.write(bytes);
  }
  onEnd(): void {
    this.socket?.end();
  }
  onWritable(): void {
    this.socket?.resume();
  }
  onClose(why: TcpEnd): void {
    const { statistics } = this.owner.link;
    if (why === "done") {
      statistics.tcpClosed++;
      return; // the socket sends what it still has, and closes
    }
    if (!this.wasConnected && this.attempt !== undefined && this.owner.tryAgain(this)) return;
    if (this.wasConnected) statistics.tcpReset++;
    else statistics.tcpFailed++;
    this.dropSocket(true);
  }
  onReleased(): void {
    this.owner.link.statistics.tcpRetransmissions += this.endpoint.retransmissions;
    if (this.attempt?.isWaiting) return;
    this.owner.released(this);
  }
  dropSocket(reset: boolean): void {
    if (this.socketClosed) return;
    this.socketClosed = true;
    this.socket?.destroy(reset);
    this.owner.gone(this);
  }

  // the other side
  readonly events: TcpSocketEvents = {
    onConnect: () => this.endpoint.accept(),
    onData: (chunk) => {
      this.bytesToGuest += chunk.length;
      this.lastUsed = this.now();
      this.owner.link.statistics.tcpBytesToGuest += chunk.length;
      if (!this.endpoint.send(chunk)) this.socket?.pause();
    },
    onEnd: () => this.endpoint.shutdown(),
    onSent: (bytes) => this.endpoint.consumed(bytes),
    onClose: (error) => {
      if (this.socketClosed) return;
      this.socketClosed = true;
      this.owner.gone(this);
      this.attempt?.timer.cancel();
      if (this.endpoint.state === "held") this.owner.failed(this, error);
      else if (error !== undefined) this.endpoint.abort();
      else this.endpoint.shutdown();
      if (this.attempt !== undefined && !this.wasConnected) this.owner.giveUp(this);
    },
  };
}

/** A connection from outside that waits for its guest. */
interface Attempt {
  readonly published: Published;
  readonly until: number;
  readonly timer: Timer;
  /** Between two attempts. */
  isWaiting: boolean;
  /** There was an attempt. */
  wasUsed: boolean;
}

/** All connections. */
export class TcpNat {
  readonly link: Link;
  readonly budget: Budget;
  readonly #flows: FlowTable<TcpFlow>;
  readonly #open: TcpOpener;
  readonly #blocked = new Set<TcpFlow>();
  readonly #roomTimer: Timer;
  readonly #headers = [new TcpHeader(), new TcpHeader(), new TcpHeader(), new TcpHeader(), new TcpHeader()];
  #depth = 0;
  /** Connections of which an end or a socket is left. */
  #live = 0;
  /** Flows that wait for their guest, for `onNeighbour`. */
  readonly #waiting = new Set<TcpFlow>();

  constructor(link: Link, open: TcpOpener) {
    this.link = link;
    this.#open = open;
    this.budget = new Budget(link.network.maxBytes);
    this.#flows = new FlowTable(link.random32());
    this.#roomTimer = new Timer(link.timers, () => this.room());
  }

  get count(): number {
    return this.#flows.size;
  }
  /** Connections of which anything is left here. */
  get live(): number {
    return this.#live;
  }

  settings(flow: TcpFlow): TcpSettings {
    const { mtu, longSegment, tcpBytes } = this.link.network;
    const mss = mtu - (flow.guest.address.length === 4 ? IPV4_HEADER : IPV6_HEADER) - 20;
    return {
      localPort: flow.remote.port,
      remotePort: flow.guest.port,
      mss,
      longSegment: Math.max(mss, longSegment),
      receiveBytes: tcpBytes,
      sendBytes: tcpBytes,
      budget: this.budget,
    };
  }

  /**
   * A packet from a guest.
   *
   * @param isNew where it goes was looked at, and it may begin a connection
   * @returns false if it belongs to no connection, and nothing was done about it
   */
  receive(p: Packet, isNew: boolean): boolean {
    const { statistics } = this.link;
    if (!p.isTrusted && !checksumHolds(p.view, p.sourceAt, p.family, IpProtocol.TCP, p.payloadAt, p.ipEnd)) {
      statistics.drop("checksum");
      return true;
    }
    const h = this.#headers[this.#depth];
    if (h === undefined) {
      statistics.drop("reentered");
      return true;
    }
    if (!h.parse(p.view, p.payloadAt, p.ipEnd)) {
      statistics.drop("transport-header");
      return true;
    }
    let flow = this.#flows.find(p, h.sourcePort, h.destinationPort);
    if (flow?.endpoint.isReplacedBy(h) === true) {
      flow.endpoint.forget();
      flow = undefined;
    }
    if (flow === undefined && !isNew) return false;
    this.#depth++;
    if (flow !== undefined && flow.endpoint.state !== "closed") flow.endpoint.input(h, p.bytes);
    else {
      const isSyn = (h.flags & (TcpFlags.SYN | TcpFlags.ACK | TcpFlags.RST)) === TcpFlags.SYN;
      if (isSyn && flow === undefined) this.#opens(p, h);
      else if ((h.flags & TcpFlags.RST) === 0) this.sendReset(p, h);
    }
    this.#depth--;
    return true;
  }

  #opens(p: Packet, h: TcpHeader): void {
    const { network, statistics } = this.link;
    if (h.sourcePort === 0 || h.destinationPort === 0) {
      statistics.drop("transport-header");
      return;
    }
    if (this.#live >= network.maxTcp && !this.#evict()) {
      statistics.drop("too-many");
      this.sendReset(p, h);
      return;
    }
    const guest = { address: p.source, port: h.sourcePort };
    const remote = { address: p.destination, port: h.destinationPort };
    const flow = new TcpFlow(this, guest, remote, p.sourceMac);
    flow.synSeq = h.seq;
    const socket = this.#open(guest, remote, flow.events);
    if (socket === undefined) {
      statistics.drop("refused");
      this.sendReset(p, h);
      return;
    }
    flow.socket = socket;
    this.#add(flow);
    flow.endpoint.hold(h);
    socket.start?.();
  }
  #add(flow: TcpFlow): void {
    this.#flows.add(flow);
    this.#live++;
  }

  /** Makes room for a connection: forgets one that only waits for stray segments, or resets the one that is idle the longest. */
  #evict(): boolean {
    const now = this.link.clock.now();
    let idle: TcpFlow | undefined;
    for (const flow of this.#flows) {
      if (flow.endpoint.state === "time-wait" && flow.socketClosed) {
        flow.endpoint.forget();
        return true;
      }
      if (flow.wasConnected && now - flow.lastUsed > IDLE_NS && !(idle !== undefined && idle.lastUsed <= flow.lastUsed))
        idle = flow;
    }
    if (idle === undefined) return false;
    this.link.statistics.tcpReset++;
    idle.dropSocket(true);
    idle.endpoint.abort();
    return true;
  }

  /** The outside did not take a connection. */
  failed(flow: TcpFlow, error: BackendError | undefined): void {
    this.link.statistics.tcpFailed++;
    const kind = error === undefined ? undefined : ERRORS[error.code];
    if (kind === undefined) flow.endpoint.refuse();
    else {
      const { guest, remote, mac, synSeq } = flow;
      this.link.sendError(quotedPacket(this.link.network, mac, guest, remote, IpProtocol.TCP, synSeq), kind);
      flow.endpoint.forget();
    }
  }

  /**
   * A connection that came in by a published port.
   *
   * @returns false if there are too many
   */
  fromOutside(guest: Endpoint, gateway: IpAddress, incoming: IncomingTcp, published: Published): boolean {
    const { network, clock, timers } = this.link;
    const port = this.#live < network.maxTcp || this.#evict() ? this.#ephemeral(guest, gateway) : undefined;
    if (port === undefined) {
      this.link.statistics.drop("too-many");
      return false;
    }
    const attempt: Attempt = {
      published,
      until: clock.now() + network.holdNs,
      timer: new Timer(timers, () => this.#attempt(flow)),
      isWaiting: true,
      wasUsed: false,
    };
    const flow = new TcpFlow(this, guest, { address: gateway, port }, network.mac, attempt);
    this.link.statistics.publishedConnections++;
    this.#add(flow);
    flow.socket = incoming.accept(flow.events);
    flow.socket.pause();
    this.#attempt(flow);
    return true;
  }
  #ephemeral(guest: Endpoint, gateway: IpAddress): number | undefined {
    const first = this.link.random32() >>> 0;
    for (let i = 0; i < 256; i++) {
      const port = EPHEMERAL + ((first + i) % (65_536 - EPHEMERAL));
      if (this.#flows.get(guest, { address: gateway, port }) === undefined) return port;
    }
    return undefined;
  }
  #attempt(flow: TcpFlow): void {
    const attempt = flow.attempt!;
    const now = this.link.clock.now();
    if (now >= attempt.until) {
      this.link.statistics.tcpFailed++;
      this.giveUp(flow);
      return;
    }
    const mac = this.link.macOf(flow.guest.address);
    if (mac === undefined) {
      this.#waiting.add(flow);
      attempt.timer.set(now + RETRY_NS);
      this.link.solicit(flow.guest.address);
      return;
    }
    this.#waiting.delete(flow);
    flow.mac = mac;
    attempt.isWaiting = false;
    if (attempt.wasUsed) flow.endpoint = flow.newEndpoint();
    attempt.wasUsed = true;
    attempt.timer.set(attempt.until);
    flow.endpoint.connect();
  }
  /** @returns whether a guest that refused, or said nothing, is asked once more */
  tryAgain(flow: TcpFlow): boolean {
    const attempt = flow.attempt!;
    const now = this.link.clock.now();
    if (attempt.published.answered || now + RETRY_NS >= attempt.until || flow.socketClosed) return false;
    attempt.isWaiting = true;
    attempt.timer.set(now + RETRY_NS);
    return true;
  }
  /** The guest of a connection from outside does not answer, or nobody waits for it any more. */
  giveUp(flow: TcpFlow): void {
    const attempt = flow.attempt!;
    attempt.timer.cancel();
    attempt.isWaiting = false;
    flow.dropSocket(true);
    if (flow.endpoint.state !== "closed") flow.endpoint.abort();
    else this.released(flow);
  }
  /** A guest was heard of. */
  neighbour(address: IpAddress): void {
    for (const flow of this.#waiting)
      if (sameBytes(flow.guest.address, address)) flow.attempt!.timer.set(this.link.clock.now());
  }

  /** The endpoint is closed. */
  released(flow: TcpFlow): void {
    if (!flow.inTable) return;
    flow.inTable = false;
    flow.attempt?.timer.cancel();
    this.#flows.remove(flow);
    this.#blocked.delete(flow);
    this.#waiting.delete(flow);
    if (flow.socketClosed) this.#live--;
  }
  /** The socket is closed. */
  gone(flow: TcpFlow): void {
    if (!flow.inTable) this.#live--;
  }

  /** @param soon nobody will tell */
  waitForRoom(flow: TcpFlow, soon: boolean): void {
    if (flow.inTable) this.#blocked.add(flow);
    if (soon && !this.#roomTimer.isArmed) this.#roomTimer.set(this.link.clock.now() + ROOM_NS);
  }
  /** There is room again: whoever waited goes on, in the order of their coming. */
  room(): void {
    const waiting = [...this.#blocked];
    this.#blocked.clear();
    for (const flow of waiting) flow.endpoint.room();
  }

  /** Answers a segment that belongs to nothing: RFC 9293 "Reset Generation". */
  sendReset(p: Packet, h: TcpHeader): void {
    const f = this.link.begin();
    if (f === undefined) return;
    const { network } = this.link;
    const fields = {
      source: p.destination,
      destination: p.source,
      protocol: IpProtocol.TCP,
      hopLimit: HOP_LIMIT,
      identification: this.link.identification(),
    };
    const at = writeIp(f, p.sourceMac, network.mac, fields, 20);
    const { view } = f;
    view.setUint16(at, h.destinationPort);
    view.setUint16(at + 2, h.sourcePort);
    const hasAck = (h.flags & TcpFlags.ACK) !== 0;
    const length = h.dataLength + (h.flags & TcpFlags.SYN ? 1 : 0) + (h.flags & TcpFlags.FIN ? 1 : 0);
    view.setInt32(at + 4, hasAck ? h.ack : 0);
    view.setInt32(at + 8, hasAck ? 0 : (h.seq + length) | 0);
    view.setUint16(at + 12, (5 << 12) | (hasAck ? TcpFlags.RST : TcpFlags.RST | TcpFlags.ACK));
    view.setUint16(at + 14, 0);
    view.setUint32(at + 16, 0);
    writeTransportChecksum(f, p.family, IpProtocol.TCP, at, 16, 20, false);
    this.link.end(f, at + 20);
  }

  /** Resets everything, or what is of one guest. */
  closeAll(mac?: MacAddress): void {
    for (const flow of this.#flows) {
      if (mac !== undefined && !sameBytes(flow.mac, mac)) continue;
      if (flow.attempt !== undefined && !flow.wasConnected) this.giveUp(flow);
      else {
        flow.dropSocket(true);
        flow.endpoint.abort();
      }
    }
  }

  *flows(): Generator<FlowInfo> {
    for (const flow of this.#flows)
      yield {
        protocol: "tcp",
        direction: flow.direction,
        guest: formatEndpoint(flow.guest),
        remote: formatEndpoint(flow.remote),
        state: flow.attempt?.isWaiting === true ? "waiting" : flow.endpoint.state,
        bytesToHost: flow.bytesToHost,
        bytesToGuest: flow.bytesToGuest,
      };
  }
}
