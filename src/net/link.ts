/**
 * The router's end of the guests' link: frames to send, who is where (neighbours), datagrams and errors to guests. It is what the
 * protocols of the router share.
 */
import {
  BROADCAST_MAC,
  bytesAt,
  type Endpoint,
  type IpAddress,
  isMulticast,
  linkLocalOf,
  type MacAddress,
  solicitedNodeOf,
} from "./address.js";
import { ArpOperation, writeArp } from "./arp.js";
import { addBytes, checksumOf } from "./checksum.js";
import type { Network } from "./config.js";
import {
  FrameBuffer,
  fragmentBytes,
  type IpFields,
  transportAt,
  UDP_HEADER,
  writeEthernet,
  writeFragmentHeader,
  writeIp,
  writeIpv4,
  writeIpv6,
  writeTransportChecksum,
} from "./header.js";
import { encodeNeighborSolicitation, type IcmpError, icmpCode, quotedBytes } from "./icmp.js";
import { EtherType, FRAGMENT_HEADER, IPV4_HEADER, IPV6_HEADER, IpProtocol, Packet } from "./packet.js";
import { type EthernetPort, FrameFlags } from "./port.js";
import type { NatStatistics } from "./statistics.js";
import type { Timers } from "./timers.js";

/** Where time comes from, in ns. */
export interface NetClock {
  now(): number;
}

/** Who has an address, by what it sent last. */
interface Neighbour {
  readonly address: IpAddress;
  readonly mac: MacAddress;
}

const MAX_NEIGHBOURS = 1024;
/** Frames being sent from within each other: a peer may answer before `transmit` returns. */
const MAX_DEPTH = 4;
const FRAME_BYTES = 65_536 + 64;
/** Errors are limited to these in a second: RFC 4443 "Message Processing Rules" (f). */
const ERRORS_A_SECOND = 100;
const HOP_LIMIT = 64;

/** The link. */
export class Link {
  readonly network: Network;
  readonly port: EthernetPort;
  readonly clock: NetClock;
  readonly timers: Timers;
  readonly statistics: NatStatistics;
  readonly random32: () => number;
  readonly linkLocal: IpAddress;
  /** A neighbour that was not known, or has moved. */
  onNeighbour: (address: IpAddress) => void = () => {};

  readonly #buffers: FrameBuffer[] = [];
  #depth = 0;
  readonly #neighbours = new Map<number, Neighbour>();
  #identification = 0;
  #errorTokens = ERRORS_A_SECOND;
  #errorAt = 0;

  constructor(
    network: Network,
    port: EthernetPort,
    clock: NetClock,
    timers: Timers,
    statistics: NatStatistics,
    random32: () => number,
  ) {
    this.network = network;
    this.port = port;
    this.clock = clock;
    this.timers = timers;
    this.statistics = statistics;
    this.random32 = random32;
    this.linkLocal = linkLocalOf(network.mac);
    this.#identification = random32() & 0xffff;
  }

  /** A frame to fill; each is ended. @returns undefined if too many are being sent from within each other */
  begin(): FrameBuffer | undefined {
    if (this.#depth === MAX_DEPTH) {
      this.statistics.drop("reentered");
      return undefined;
    }
    return (this.#buffers[this.#depth++] ??= new FrameBuffer(FRAME_BYTES));
  }
  /** Sends a frame that `begin` gave. @returns false if there was no room */
  end(f: FrameBuffer, length: number, flags = FrameFlags.verified as number, segmentSize = 0): boolean {
    const ok = this.port.transmit(f.bytes.subarray(0, length), flags, segmentSize);
    this.#depth--;
    if (ok) {
      this.statistics.framesOut++;
      this.statistics.bytesOut += length;
    }
    return ok;
  }

  /** The identification of the next packet. */
  identification(): number {
    return (this.#identification = (this.#identification + 1) & 0xffff);
  }

  /** Remembers who sent a packet. */
  learn(p: Packet): void {
    const { view, bytes, sourceAt, family } = p;
    let h = 0;
    for (let i = 0; i < family; i += 4) h = Math.imul(h, 31) ^ view.getInt32(sourceAt + i);
    const known = this.#neighbours.get(h);
    if (known !== undefined && bytesAt(bytes, p.frameAt + 6, known.mac)) {
      if (known.address.length === family && bytesAt(bytes, sourceAt, known.address)) return;
    }
    this.#remember(h, p.source, p.sourceMac);
  }
  /** Remembers what a message of address resolution says. */
  learnAddress(address: IpAddress, mac: MacAddress): void {
    const h = hashOf(address);
    const known = this.#neighbours.get(h);
    if (known === undefined || !bytesAt(known.mac, 0, mac) || !sameAddress(known.address, address))
      this.#remember(h, address, mac);
  }
  #remember(h: number, address: IpAddress, mac: MacAddress): void {
    this.#neighbours.delete(h);
    if (this.#neighbours.size >= MAX_NEIGHBOURS) this.#neighbours.delete(this.#neighbours.keys().next().value!);
    this.#neighbours.set(h, { address, mac });
    this.onNeighbour(address);
  }
  macOf(address: IpAddress): MacAddress | undefined {
    const known = this.#neighbours.get(hashOf(address));
    return known !== undefined && sameAddress(known.address, address) ? known.mac : undefined;
  }
  get neighbours(): number {
    return this.#neighbours.size;
  }
  forgetNeighbours(): void {
    this.#neighbours.clear();
  }
  /** Asks the link who has an address. */
  solicit(address: IpAddress): void {
    if (address.length === 16) {
      const group = solicitedNodeOf(address);
      this.sendIcmp(
        multicastMac(group),
        this.linkLocal,
        group,
        encodeNeighborSolicitation(address, this.network.mac),
        255,
      );
      return;
    }
    const f = this.begin();
    if (f === undefined) return;
    const { mac, gateway4 } = this.network;
    this.end(f, writeArp(f, ArpOperation.REQUEST, mac, gateway4, undefined, address));
  }

  /** A datagram to a guest, in fragments if it is longer than the link's MTU. @returns false if there was no room */
  sendUdp(mac: MacAddress, from: Endpoint, to: Endpoint, data: Uint8Array): boolean {
    const family = from.address.length;
    const length = UDP_HEADER + data.length;
    const f = this.begin();
    if (f === undefined) return false;
    const header = family === 4 ? IPV4_HEADER : IPV6_HEADER;
    if (length > 65_535 - (family === 4 ? IPV4_HEADER : 0)) {
      this.#depth--;
      return false;
    }
    const fields = this.#fields(from.address, to.address, IpProtocol.UDP, HOP_LIMIT);
    const at = writeIp(f, mac, this.network.mac, fields, length);
    f.view.setUint16(at, from.port);
    f.view.setUint16(at + 2, to.port);
    f.view.setUint16(at + 4, length);
    f.bytes.set(data, at + UDP_HEADER);
    const fits = header + length <= this.network.mtu;
    const partial = fits && this.network.partialChecksums;
    writeTransportChecksum(f, family, IpProtocol.UDP, at, 6, length, partial);
    if (fits)
      return this.end(f, at + length, partial ? FrameFlags.partialChecksum | FrameFlags.verified : FrameFlags.verified);
    const ok = this.#fragments(mac, fields, f, at, length);
    this.#depth--;
    return ok;
  }
  #fields(source: IpAddress, destination: IpAddress, protocol: number, hopLimit: number): IpFields {
    return { source, destination, protocol, hopLimit, identification: this.identification() };
  }
  /** Cuts what stands in `whole` from `at` on. */
  #fragments(mac: MacAddress, fields: IpFields, whole: FrameBuffer, at: number, length: number): boolean {
    const { source, destination, protocol, hopLimit, identification } = fields;
    const isV4 = source.length === 4;
    const step = fragmentBytes(source.length, this.network.mtu);
    for (let offset = 0; offset < length; offset += step) {
      const f = this.begin();
      if (f === undefined) return false;
      const n = Math.min(step, length - offset);
      const more = offset + n < length;
      const ip = writeEthernet(f, mac, this.network.mac, isV4 ? EtherType.IPV4 : EtherType.IPV6);
      let body = ip + IPV4_HEADER;
      if (isV4)
        writeIpv4(
          f,
          ip,
          source,
          destination,
          protocol,
          hopLimit,
          identification,
          (offset >> 3) | (more ? 0x2000 : 0),
          n,
        );
      else {
        writeIpv6(f, ip, source, destination, IpProtocol.FRAGMENT, hopLimit, FRAGMENT_HEADER + n);
        writeFragmentHeader(f, ip + IPV6_HEADER, protocol, offset, more, identification);
        body = ip + IPV6_HEADER + FRAGMENT_HEADER;
      }
      f.bytes.set(whole.bytes.subarray(at + offset, at + offset + n), body);
      if (!this.end(f, body + n)) return false;
    }
    return true;
  }

  /** @param message with its checksum still zero */
  sendIcmp(mac: MacAddress, from: IpAddress, to: IpAddress, message: Uint8Array, hopLimit = HOP_LIMIT): boolean {
    const f = this.begin();
    if (f === undefined) return false;
    const family = from.length;
    const protocol = family === 4 ? IpProtocol.ICMP : IpProtocol.ICMPV6;
    const at = writeIp(f, mac, this.network.mac, this.#fields(from, to, protocol, hopLimit), message.length);
    f.bytes.set(message, at);
    writeIcmpChecksum(f, family, at, message.length);
    return this.end(f, at + message.length);
  }

  /**
   * Tells the sender of a packet what is wrong with it. Never about errors, broadcasts and fragments but the first: RFC 1122
   * "Internet Control Message Protocol", RFC 4443 "Message Processing Rules".
   */
  sendError(p: Packet, error: IcmpError): void {
    const { bytes, view, family } = p;
    if (p.isGroup || isMulticast(p.destination) || p.fragmentOffset > 0) return;
    if (p.protocol === IpProtocol.ICMP || p.protocol === IpProtocol.ICMPV6) {
      if (p.payloadAt >= p.ipEnd) return;
      const type = view.getUint8(p.payloadAt);
      const isQuery = p.protocol === IpProtocol.ICMP ? type === 8 || type >= 13 : type >= 128;
      if (!isQuery) return;
    }
    const now = this.clock.now();
    this.#errorTokens = Math.min(ERRORS_A_SECOND, this.#errorTokens + ((now - this.#errorAt) * ERRORS_A_SECOND) / 1e9);
    this.#errorAt = now;
    if (this.#errorTokens < 1) return;
    this.#errorTokens--;
    const n = Math.min(quotedBytes(family), p.ipEnd - p.ipAt);
    const message = new Uint8Array(8 + n);
    const code = icmpCode(error, family);
    message[0] = code >> 8;
    message[1] = code;
    if (family === 16 && error === "protocol") message[7] = 6; // where the next header stands
    message.set(bytes.subarray(p.ipAt, p.ipAt + n), 8);
    const from = family === 4 ? this.network.gateway4 : this.network.gateway6;
    this.statistics.icmpErrors++;
    this.sendIcmp(p.sourceMac, from, p.source, message);
  }
}

/**
 * A packet that a guest sent, as far as an error has to quote it.
 *
 * @param word what the transport's header has at offset 4: TCP's sequence number
 */
export function quotedPacket(
  network: Network,
  mac: MacAddress,
  guest: Endpoint,
  remote: Endpoint,
  protocol: number,
  word: number,
): Packet {
  const f = new FrameBuffer(transportAt(guest.address.length) + UDP_HEADER);
  const fields = {
    source: guest.address,
    destination: remote.address,
    protocol,
    hopLimit: HOP_LIMIT,
    identification: 0,
  };
  const at = writeIp(f, network.mac, mac, fields, UDP_HEADER);
  f.view.setUint16(at, guest.port);
  f.view.setUint16(at + 2, remote.port);
  f.view.setInt32(at + 4, word);
  const p = new Packet();
  p.parse(f.bytes, FrameFlags.verified, 0);
  return p;
}

function writeIcmpChecksum(f: FrameBuffer, family: number, at: number, length: number): void {
  if (family === 16) {
    writeTransportChecksum(f, family, IpProtocol.ICMPV6, at, 2, length, false);
    return;
  }
  f.view.setUint16(at + 2, 0);
  f.view.setUint16(at + 2, checksumOf(addBytes(f.view, at, length, 0)));
}

/** Where frames for a group go: RFC 2464 "Address Mapping -- Multicast"; everybody for IPv4. */
export function multicastMac(group: IpAddress): MacAddress {
  return group.length === 4 ? BROADCAST_MAC : Uint8Array.of(0x33, 0x33, ...group.subarray(12));
}

function hashOf(address: IpAddress): number {
  let h = 0;
  for (let i = 0; i < address.length; i += 4)
    h = Math.imul(h, 31) ^ ((address[i]! << 24) | (address[i + 1]! << 16) | (address[i + 2]! << 8) | address[i + 3]!);
  return h;
}
function sameAddress(a: IpAddress, b: IpAddress): boolean {
  return a.length === b.length && bytesAt(a, 0, b);
}
