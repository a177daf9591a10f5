/** For tests: a guest on the link, with addresses, a TCP of its own, and frames by hand. */
import {
  type Endpoint,
  formatEndpoint,
  formatIp,
  type IpAddress,
  ip,
  linkLocalOf,
  type MacAddress,
  parseMac,
} from "./address.js";
import { ArpOperation, parseArp, writeArp } from "./arp.js";
import { Budget } from "./byte-queue.js";
import { addBytes, checksumOf } from "./checksum.js";
import {
  checksumHolds,
  FrameBuffer,
  TcpFlags,
  TcpHeader,
  transportAt,
  UDP_HEADER,
  writeIp,
  writeTransportChecksum,
} from "./header.js";
import { encodeNeighborAdvertisement, Icmpv6Type } from "./icmp.js";
import { EtherType, IpProtocol, Packet } from "./packet.js";
import { type EthernetPort, FrameFlags } from "./port.js";
import type { TcpEnd, TcpUser, TcpWire } from "./tcp.js";
import { TcpEndpoint } from "./tcp-endpoint.js";
import { Timers } from "./timers.js";

/** One frame as it came. */
export interface Frame {
  readonly bytes: Uint8Array;
  readonly flags: number;
  readonly segmentSize: number;
}

/** A received datagram. */
export interface Received {
  readonly from: string;
  readonly to: string;
  readonly data: Uint8Array;
}

/** A received message of ICMP or ICMPv6. */
export interface ReceivedIcmp {
  readonly from: string;
  readonly type: number;
  readonly code: number;
  readonly bytes: Uint8Array;
  readonly hopLimit: number;
}

/** A connection's guest end. */
export class GuestTcp implements TcpUser, TcpWire {
  readonly endpoint: TcpEndpoint;
  readonly guest: ScriptedGuest;
  readonly local: Endpoint;
  readonly remote: Endpoint;
  readonly transportAt: number;
  readonly received: Uint8Array[] = [];
  bytes = 0;
  connected = false;
  ended = false;
  writable = true;
  closed: TcpEnd | undefined;
  released = false;
  /** Reads at once. */
  reading = true;
  keep = true;
  onBytes: (bytes: Uint8Array) => void = () => {};
  onPeerEnd: () => void = () => {};
  onRoom: () => void = () => {};

  constructor(guest: ScriptedGuest, local: Endpoint, remote: Endpoint) {
    this.guest = guest;
    this.local = local;
    this.remote = remote;
    this.transportAt = transportAt(local.address.length);
    const { mss, longSegment, receiveBytes } = guest.tcpSettings;
    this.endpoint = new TcpEndpoint(
      {
        localPort: local.port,
        remotePort: remote.port,
        mss,
        longSegment,
        receiveBytes,
        sendBytes: 256 << 10,
        budget: new Budget(256 << 20),
      },
      this,
      this,
      guest.timers,
      guest.random32(),
    );
  }
  now(): number {
    return this.guest.now();
  }
  begin(): FrameBuffer {
    return this.guest.buffers.pop() ?? new FrameBuffer(65_600);
  }
  end(f: FrameBuffer, headerBytes: number, dataBytes: number, segmentSize: number): boolean {
    const length = headerBytes + dataBytes;
    const at = this.#ip(f, length);
    writeTransportChecksum(f, this.local.address.length, IpProtocol.TCP, at, 16, length, segmentSize > 0);
    const flags = segmentSize > 0 ? FrameFlags.partialChecksum : 0;
    const ok = this.guest.transmit(f.bytes.subarray(0, at + length), flags, segmentSize);
    this.guest.buffers.push(f);
    return ok;
  }
  #ip(f: FrameBuffer, length: number): number {
    const fields = {
      source: this.local.address,
      destination: this.remote.address,
      protocol: IpProtocol.TCP,
      hopLimit: 64,
      identification: 7,
    };
    return writeIp(f, this.guest.router, this.guest.mac, fields, length);
  }
  onConnect(): void {
    this.connected = true;
  }
  onData(bytes: Uint8Array): void {
    this.bytes += bytes.length;
    if (this.keep) this.received.push(bytes.slice());
    if (this.reading) this.endpoint.consumed(bytes.length);
    this.onBytes(bytes);
  }
  /** Reads what waits. */
  read(): void {
    this.endpoint.consumed(this.endpoint.unread);
  }
  send(bytes: Uint8Array): void {
    this.writable = this.endpoint.send(bytes.slice());
  }
  onEnd(): void {
    this.ended = true;
    this.onPeerEnd();
  }
  onWritable(): void {
    this.writable = true;
    this.onRoom();
  }
  onClose(why: TcpEnd): void {
    this.closed = why;
  }
  onReleased(): void {
    this.released = true;
    this.guest.connections.delete(keyOf(this.local.port, this.remote));
  }
}

const keyOf = (port: number, remote: Endpoint): string => `${port} ${formatEndpoint(remote)}`;

/** The guest. */
export class ScriptedGuest {
  readonly mac: MacAddress;
  address4: IpAddress;
  address6: IpAddress;
  readonly linkLocal: IpAddress;
  router: MacAddress = parseMac("52:55:0a:00:02:02")!;
  readonly timers = new Timers();
  readonly connections = new Map<string, GuestTcp>();
  readonly listening = new Map<number, (c: GuestTcp) => void>();
  readonly udp: Received[] = [];
  readonly icmp: ReceivedIcmp[] = [];
  /** TCP segments for no connection: flags and text. */
  readonly stray: TcpHeader[] = [];
  /** Buffers that no segment is in. */
  readonly buffers: FrameBuffer[] = [];
  /** Every frame, if wanted. */
  frames: Frame[] | undefined;
  frameCount = 0;
  /** Frames waiting above which there is no room. */
  capacity = Number.POSITIVE_INFINITY;
  answersArp = true;
  tcpSettings = { mss: 1460, longSegment: 62_000, receiveBytes: 512 << 10 };
  badChecksums = 0;
  readonly now: () => number;
  readonly random32: () => number;
  readonly #port: EthernetPort;
  #queue: Frame[] = [];
  #refusing = false;
  #nextPort = 40_000;

  constructor(port: EthernetPort, now: () => number, random32: () => number, address4 = "10.0.2.15", n = 1) {
    this.#port = port;
    this.now = now;
    this.random32 = random32;
    this.mac = Uint8Array.of(2, 0, 0, 0, n >> 8, n);
    this.address4 = ip(address4);
    this.linkLocal = linkLocalOf(this.mac);
    this.address6 = ip("fd65:6e6c:6967:2::100");
    this.address6[15] = n;
    port.receive = (frame, flags, segmentSize) => {
      if (this.#queue.length >= this.capacity) {
        this.#refusing = true;
        return false;
      }
      this.#queue.push({ bytes: frame.slice(), flags, segmentSize });
      return true;
    };
    port.onRoom = () => {
      for (const c of [...this.connections.values()]) c.endpoint.room();
    };
  }
  /** From now on frames are taken from within the sending. */
  takeAtOnce(): void {
    this.#port.receive = (frame, flags, segmentSize) => {
      this.#take({ bytes: frame.slice(), flags, segmentSize });
      return true;
    };
  }
  /** Calls `take` for every frame from now on, from within the sending. */
  answerWith(take: (frame: Uint8Array) => boolean): void {
    this.#port.receive = take;
  }
  nextDeadline(): number {
    return this.timers.next();
  }
  runDue(now: number): void {
    this.timers.runDue(now);
  }
  transmit(frame: Uint8Array, flags = 0, segmentSize = 0): boolean {
    return this.#port.transmit(frame, flags, segmentSize);
  }

  turn(): boolean {
    const queue = this.#queue;
    if (queue.length === 0) return false;
    this.#queue = [];
    for (const frame of queue) this.#take(frame);
    if (this.#refusing) {
      this.#refusing = false;
      this.#port.room();
    }
    return true;
  }
  #take(frame: Frame): void {
    this.frames?.push(frame);
    this.frameCount++;
    const p = new Packet();
    if (p.parse(frame.bytes, frame.flags, frame.segmentSize) !== undefined) {
      this.badChecksums++;
      return;
    }
    if (p.etherType === EtherType.ARP) this.#arp(p);
    else if (p.isFragment) return;
    else if (p.protocol === IpProtocol.TCP) this.#tcp(p);
    else if (p.protocol === IpProtocol.UDP) {
      if (!p.isTrusted && !checksumHolds(p.view, p.sourceAt, p.family, IpProtocol.UDP, p.payloadAt, p.ipEnd))
        this.badChecksums++;
      this.udp.push({
        from: formatEndpoint({ address: p.source, port: p.view.getUint16(p.payloadAt) }),
        to: formatEndpoint({ address: p.destination, port: p.view.getUint16(p.payloadAt + 2) }),
        data: p.bytes.slice(p.payloadAt + UDP_HEADER, p.ipEnd),
      });
    } else if (p.family !== 0) this.#icmp(p);
  }
  #arp(p: Packet): void {
    const m = parseArp(p.bytes, p.view, p.ipAt, p.frameEnd)!;
    if (m.operation !== ArpOperation.REQUEST || !this.answersArp) return;
    if (formatIp(m.targetAddress) !== formatIp(this.address4)) return;
    const f = new FrameBuffer(64);
    const n = writeArp(f, ArpOperation.REPLY, this.mac, this.address4, m.senderMac, m.senderAddress);
    this.transmit(f.bytes.subarray(0, n));
  }
  #icmp(p: Packet): void {
    const type = p.bytes[p.payloadAt]!;
    this.icmp.push({
      from: formatIp(p.source),
      type,
      code: p.bytes[p.payloadAt + 1]!,
      bytes: p.bytes.slice(p.payloadAt, p.ipEnd),
      hopLimit: p.hopLimit,
    });
    if (p.family === 16 && type === Icmpv6Type.NEIGHBOR_SOLICITATION && this.answersArp) {
      const target = p.bytes.slice(p.payloadAt + 8, p.payloadAt + 24);
      if (formatIp(target) === formatIp(this.address6))
        this.sendIcmp(target, p.source, encodeNeighborAdvertisement(target, this.mac, true), 255);
    }
  }
  #tcp(p: Packet): void {
    const h = new TcpHeader();
    if (!p.isTrusted && !checksumHolds(p.view, p.sourceAt, p.family, IpProtocol.TCP, p.payloadAt, p.ipEnd)) {
      this.badChecksums++;
      return;
    }
    if (!h.parse(p.view, p.payloadAt, p.ipEnd)) {
      this.badChecksums++;
      return;
    }
    const remote = { address: p.source, port: h.sourcePort };
    let c = this.connections.get(keyOf(h.destinationPort, remote));
    if (c === undefined) {
      const accept = this.listening.get(h.destinationPort);
      if (accept === undefined || (h.flags & TcpFlags.SYN) === 0 || (h.flags & TcpFlags.ACK) !== 0) {
        this.stray.push(h);
        if ((h.flags & TcpFlags.RST) === 0) this.#reset(p, h);
        return;
      }
      c = new GuestTcp(this, { address: p.destination, port: h.destinationPort }, remote);
      this.connections.set(keyOf(h.destinationPort, remote), c);
      c.endpoint.hold(h);
      accept(c);
      c.endpoint.accept();
      return;
    }
    c.endpoint.input(h, p.bytes);
  }
  #reset(p: Packet, h: TcpHeader): void {
    const hasAck = (h.flags & TcpFlags.ACK) !== 0;
    this.segment(
      { address: p.destination, port: h.destinationPort },
      { address: p.source, port: h.sourcePort },
      hasAck ? h.ack : 0,
      hasAck ? 0 : h.seq + 1,
      TcpFlags.RST | (hasAck ? 0 : TcpFlags.ACK),
    );
  }

  /** Opens a connection. */
  connect(to: string, port: number, from = this.#nextPort++): GuestTcp {
    const address = ip(to);
    const local = { address: address.length === 4 ? this.address4 : this.address6, port: from };
    const c = new GuestTcp(this, local, { address, port });
    this.connections.set(keyOf(from, c.remote), c);
    c.endpoint.connect();
    return c;
  }
  /** A segment by hand. */
  segment(
    from: Endpoint,
    to: Endpoint,
    seq: number,
    ack: number,
    flags: number,
    data: Uint8Array = new Uint8Array(0),
    options: number[] = [],
  ): void {
    const f = new FrameBuffer(100 + options.length + data.length);
    const header = 20 + options.length;
    const length = header + data.length;
    const fields = {
      source: from.address,
      destination: to.address,
      protocol: IpProtocol.TCP,
      hopLimit: 64,
      identification: 1,
    };
    const at = writeIp(f, this.router, this.mac, fields, length);
    f.view.setUint16(at, from.port);
    f.view.setUint16(at + 2, to.port);
    f.view.setInt32(at + 4, seq);
    f.view.setInt32(at + 8, ack);
    f.view.setUint16(at + 12, ((header >> 2) << 12) | flags);
    f.view.setUint16(at + 14, 0xffff);
    f.bytes.set(options, at + 20);
    f.bytes.set(data, at + header);
    writeTransportChecksum(f, from.address.length, IpProtocol.TCP, at, 16, length, false);
    this.transmit(f.bytes.subarray(0, at + length));
  }
  /** A datagram. */
  sendUdp(
    fromPort: number,
    to: string,
    port: number,
    data: Uint8Array,
    options: { from?: IpAddress; mac?: MacAddress; hopLimit?: number } = {},
  ): void {
    const destination = ip(to);
    const source = options.from ?? (destination.length === 4 ? this.address4 : this.address6);
    const f = new FrameBuffer(100 + data.length);
    const length = UDP_HEADER + data.length;
    const fields = {
      source,
      destination,
      protocol: IpProtocol.UDP,
      hopLimit: options.hopLimit ?? 64,
      identification: 1,
    };
    const at = writeIp(f, options.mac ?? this.router, this.mac, fields, length);
    f.view.setUint16(at, fromPort);
    f.view.setUint16(at + 2, port);
    f.view.setUint16(at + 4, length);
    f.bytes.set(data, at + UDP_HEADER);
    writeTransportChecksum(f, source.length, IpProtocol.UDP, at, 6, length, false);
    this.transmit(f.bytes.subarray(0, at + length));
  }
  /** @param message its checksum is filled in */
  sendIcmp(source: IpAddress, destination: IpAddress, message: Uint8Array, hopLimit = 64, mac = this.router): void {
    const isV4 = source.length === 4;
    const f = new FrameBuffer(80 + message.length);
    const protocol = isV4 ? IpProtocol.ICMP : IpProtocol.ICMPV6;
    const at = writeIp(
      f,
      mac,
      this.mac,
      { source, destination, protocol, hopLimit, identification: 1 },
      message.length,
    );
    f.bytes.set(message, at);
    if (isV4) {
      f.view.setUint16(at + 2, 0);
      f.view.setUint16(at + 2, checksumOf(addBytes(f.view, at, message.length, 0)));
    } else writeTransportChecksum(f, 16, protocol, at, 2, message.length, false);
    this.transmit(f.bytes.subarray(0, at + message.length));
  }
  /** Asks who has an IPv4 address. */
  askArp(target: string): void {
    const f = new FrameBuffer(64);
    const n = writeArp(f, ArpOperation.REQUEST, this.mac, this.address4, undefined, ip(target));
    this.transmit(f.bytes.subarray(0, n));
  }
  /** Makes itself known to the router. */
  announce(): void {
    this.askArp(formatIp(this.address4));
  }
}
