/** Where the headers of an Ethernet frame are, and what their checksums should be. One object is used for many frames. */
import { finish, fold, LongSum, sum } from "./checksum.js";
import { readBe16, writeBe16 } from "./wire.js";

export const ETHERNET_BYTES = 14;
export const TAG_BYTES = 4;
export const EtherType = { ipv4: 0x0800, ipv6: 0x86dd, vlan: 0x8100 } as const;
export const IpProtocol = { tcp: 6, udp: 17 } as const;
const IPV6_BYTES = 40;
/** Extension headers of IPv6 that are gone over. More of them than that are not. */
const MAX_EXTENSIONS = 8;
const Extension = { hopByHop: 0, routing: 43, destination: 60 } as const;

export class FrameHeaders {
  /** 4, 6, or 0 when it is not IP, or not in order. */
  version: 0 | 4 | 6 = 0;
  ip = 0;
  /** TCP or UDP with their whole header, not a fragment; else 0. */
  protocol: 0 | typeof IpProtocol.tcp | typeof IpProtocol.udp = 0;
  /** Of the TCP or UDP header. */
  transport = 0;
  /** Behind the TCP or UDP header. */
  payload = 0;
  /** Behind the IP packet: a short frame is padded. */
  end = 0;
  readonly #sums = new LongSum();

  /**
   * Finds the headers of the frame in `bytes` from `from` to `to`.
   * @param toEnd the IP length is not looked at: it may be 0 or that of another length, and the packet goes to the frame's end
   */
  parse(bytes: Uint8Array, from: number, to: number, toEnd = false): void {
    this.version = 0;
    this.protocol = 0;
    if (to - from < ETHERNET_BYTES) return;
    let at = from + 12;
    let type = readBe16(bytes, at);
    if (type === EtherType.vlan) {
      if (to - from < ETHERNET_BYTES + TAG_BYTES) return;
      at += TAG_BYTES;
      type = readBe16(bytes, at);
    }
    this.ip = at + 2;
    if (type === EtherType.ipv4) this.#parse4(bytes, to, toEnd);
    else if (type === EtherType.ipv6) this.#parse6(bytes, to, toEnd);
  }
  #parse4(bytes: Uint8Array, to: number, toEnd: boolean): void {
    const { ip } = this;
    if (to - ip < 20) return;
    const headerBytes = (bytes[ip]! & 0xf) * 4;
    if (bytes[ip]! >>> 4 !== 4 || headerBytes < 20 || headerBytes > to - ip) return;
    const length = toEnd ? to - ip : readBe16(bytes, ip + 2);
    if (length < headerBytes || length > to - ip) return;
    this.version = 4;
    this.end = ip + length;
    if ((readBe16(bytes, ip + 6) & 0x3fff) !== 0) return;
    this.#parseTransport(bytes, bytes[ip + 9]!, ip + headerBytes);
  }
  #parse6(bytes: Uint8Array, to: number, toEnd: boolean): void {
    const { ip } = this;
    if (to - ip < IPV6_BYTES || bytes[ip]! >>> 4 !== 6) return;
    const length = toEnd ? to - ip - IPV6_BYTES : readBe16(bytes, ip + 4);
    if (length > to - ip - IPV6_BYTES) return;
    this.version = 6;
    this.end = ip + IPV6_BYTES + length;
    let next = bytes[ip + 6]!;
    let at = ip + IPV6_BYTES;
    for (let i = 0; i < MAX_EXTENSIONS; i++) {
      const isKnown = next === Extension.hopByHop || next === Extension.routing || next === Extension.destination;
      if (!isKnown) break;
      if (this.end - at < 8) return;
      // On its way the packet has another destination than its checksum says.
      if (next === Extension.routing && bytes[at + 3] !== 0) return;
      next = bytes[at]!;
      at += (bytes[at + 1]! + 1) * 8;
    }
    this.#parseTransport(bytes, next, at);
  }
  #parseTransport(bytes: Uint8Array, protocol: number, at: number): void {
    const left = this.end - at;
    if (protocol === IpProtocol.tcp && left >= 20) {
      const headerBytes = (bytes[at + 12]! >>> 4) * 4;
      if (headerBytes < 20 || headerBytes > left) return;
      this.payload = at + headerBytes;
    } else if (protocol === IpProtocol.udp && left >= 8) this.payload = at + 8;
    else return;
    this.transport = at;
    this.protocol = protocol;
  }

  /** Where the checksum of TCP or UDP is. */
  get checksumAt(): number {
    return this.transport + (this.protocol === IpProtocol.tcp ? 16 : 6);
  }
  /** Sum of the pseudo-header's addresses and protocol. */
  pseudoSum(bytes: Uint8Array): number {
    const { ip } = this;
    return this.version === 4
      ? sum(bytes, ip + 12, ip + 20, this.protocol)
      : sum(bytes, ip + 8, ip + 40, this.protocol);
  }
  /** Puts the right TCP or UDP checksum in, whatever was there. */
  finishTransport(bytes: Uint8Array): void {
    const at = this.checksumAt;
    writeBe16(bytes, at, 0);
    const start = this.pseudoSum(bytes) + this.end - this.transport;
    const value = finish(this.#sums.add(bytes, this.transport, this.end, start));
    // Of UDP, 0 says that there is none.
    writeBe16(bytes, at, value === 0 && this.protocol === IpProtocol.udp ? 0xffff : value);
  }
  /** Puts the length up to `end` into the IP header, and for IPv4 the header's checksum. It must fit in 16 bits. */
  finishIp(bytes: Uint8Array): void {
    const { ip } = this;
    if (this.version === 4) {
      writeBe16(bytes, ip + 2, this.end - ip);
      this.finishIpChecksum(bytes);
    } else writeBe16(bytes, ip + 4, this.end - ip - IPV6_BYTES);
  }
  /** Of IPv4. */
  finishIpChecksum(bytes: Uint8Array): void {
    const { ip } = this;
    writeBe16(bytes, ip + 10, 0);
    writeBe16(bytes, ip + 10, finish(sum(bytes, ip, ip + (bytes[ip]! & 0xf) * 4)));
  }
  /** The sum of the pseudo-header without the length, as a long segment has it. */
  seedLongSegment(bytes: Uint8Array): void {
    writeBe16(bytes, this.checksumAt, fold(this.pseudoSum(bytes)));
  }
}
/** The length of IPv4's or IPv6's header field for a packet up to `end` fits. */
export function lengthFits(headers: FrameHeaders): boolean {
  return headers.end - headers.ip - (headers.version === 6 ? IPV6_BYTES : 0) <= 0xffff;
}
