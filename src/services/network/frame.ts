/** Where the headers of an Ethernet frame are, and what their checksums should be. One object is used for many frames. */
import { addBytes, checksumOf, fold } from "../../net/checksum.js";
import { ETHERNET_HEADER, EtherType, IPV4_HEADER, IPV6_HEADER, IpProtocol } from "../../net/packet.js";
import { readBe16, writeBe16 } from "./wire.js";

export const TAG_BYTES = 4;
/** Extension headers of IPv6 that are gone over. More of them than that are not. */
const MAX_EXTENSIONS = 8;

export class FrameHeaders {
  /** 4, 6, or 0 when it is not IP, or not in order. */
  version: 0 | 4 | 6 = 0;
  ip = 0;
  /** TCP or UDP with their whole header, not a fragment; else 0. */
  protocol: 0 | typeof IpProtocol.TCP | typeof IpProtocol.UDP = 0;
  /** Of the TCP or UDP header. */
  transport = 0;
  /** Behind the TCP or UDP header. */
  payload = 0;
  /** Behind the IP packet: a short frame is padded. */
  end = 0;
  /** Of the buffer that was used last. */
  #view: DataView = new DataView(new ArrayBuffer(0));

  /**
   * Finds the headers of the frame in `bytes` from `from` to `to`.
   * @param toEnd the IP length is not looked at: it may be 0 or that of another length, and the packet goes to the frame's end
   */
  parse(bytes: Uint8Array, from: number, to: number, toEnd = false): void {
    this.version = 0;
    this.protocol = 0;
    if (to - from < ETHERNET_HEADER) return;
    let at = from + 12;
    let type = readBe16(bytes, at);
    if (type === EtherType.VLAN) {
      if (to - from < ETHERNET_HEADER + TAG_BYTES) return;
      at += TAG_BYTES;
      type = readBe16(bytes, at);
    }
    this.ip = at + 2;
    if (type === EtherType.IPV4) this.#parse4(bytes, to, toEnd);
    else if (type === EtherType.IPV6) this.#parse6(bytes, to, toEnd);
  }
  #parse4(bytes: Uint8Array, to: number, toEnd: boolean): void {
    const { ip } = this;
    if (to - ip < IPV4_HEADER) return;
    const headerBytes = (bytes[ip]! & 0xf) * 4;
    if (bytes[ip]! >>> 4 !== 4 || headerBytes < IPV4_HEADER || headerBytes > to - ip) return;
    const length = toEnd ? to - ip : readBe16(bytes, ip + 2);
    if (length < headerBytes || length > to - ip) return;
    this.version = 4;
    this.end = ip + length;
    if ((readBe16(bytes, ip + 6) & 0x3fff) !== 0) return;
    this.#parseTransport(bytes, bytes[ip + 9]!, ip + headerBytes);
  }
  #parse6(bytes: Uint8Array, to: number, toEnd: boolean): void {
    const { ip } = this;
    if (to - ip < IPV6_HEADER || bytes[ip]! >>> 4 !== 6) return;
    const length = toEnd ? to - ip - IPV6_HEADER : readBe16(bytes, ip + 4);
    if (length > to - ip - IPV6_HEADER) return;
    this.version = 6;
    this.end = ip + IPV6_HEADER + length;
    let next = bytes[ip + 6]!;
    let at = ip + IPV6_HEADER;
    for (let i = 0; i < MAX_EXTENSIONS; i++) {
      const isKnown =
        next === IpProtocol.HOP_BY_HOP || next === IpProtocol.ROUTING || next === IpProtocol.DESTINATION_OPTIONS;
      if (!isKnown) break;
      if (this.end - at < 8) return;
      // On its way the packet has another destination than its checksum says.
      if (next === IpProtocol.ROUTING && bytes[at + 3] !== 0) return;
      next = bytes[at]!;
      at += (bytes[at + 1]! + 1) * 8;
    }
    this.#parseTransport(bytes, next, at);
  }
  #parseTransport(bytes: Uint8Array, protocol: number, at: number): void {
    const left = this.end - at;
    if (protocol === IpProtocol.TCP && left >= 20) {
      const headerBytes = (bytes[at + 12]! >>> 4) * 4;
      if (headerBytes < 20 || headerBytes > left) return;
      this.payload = at + headerBytes;
    } else if (protocol === IpProtocol.UDP && left >= 8) this.payload = at + 8;
    else return;
    this.transport = at;
    this.protocol = protocol;
  }

  /** Where the checksum of TCP or UDP is. */
  get checksumAt(): number {
    return this.transport + (this.protocol === IpProtocol.TCP ? 16 : 6);
  }
  #sum(bytes: Uint8Array, from: number, to: number, start: number): number {
    if (this.#view.buffer !== bytes.buffer) this.#view = new DataView(bytes.buffer);
    return addBytes(this.#view, bytes.byteOffset + from, to - from, start);
  }
  /** Sum of the pseudo-header's addresses and protocol. */
  pseudoSum(bytes: Uint8Array): number {
    const { ip } = this;
    return this.version === 4
      ? this.#sum(bytes, ip + 12, ip + 20, this.protocol)
      : this.#sum(bytes, ip + 8, ip + 40, this.protocol);
  }
  /** Puts the right TCP or UDP checksum in, whatever was there. */
  finishTransport(bytes: Uint8Array): void {
    const at = this.checksumAt;
    writeBe16(bytes, at, 0);
    const start = this.pseudoSum(bytes) + this.end - this.transport;
    const value = checksumOf(this.#sum(bytes, this.transport, this.end, start));
    // Of UDP, 0 says that there is none.
    writeBe16(bytes, at, value === 0 && this.protocol === IpProtocol.UDP ? 0xffff : value);
  }
  /** Puts the length up to `end` into the IP header, and for IPv4 the header's checksum. It must fit in 16 bits. */
  finishIp(bytes: Uint8Array): void {
    const { ip } = this;
    if (this.version === 4) {
      writeBe16(bytes, ip + 2, this.end - ip);
      this.finishIpChecksum(bytes);
    } else writeBe16(bytes, ip + 4, this.end - ip - IPV6_HEADER);
  }
  /** Of IPv4. */
  finishIpChecksum(bytes: Uint8Array): void {
    const { ip } = this;
    writeBe16(bytes, ip + 10, 0);
    writeBe16(bytes, ip + 10, checksumOf(this.#sum(bytes, ip, ip + (bytes[ip]! & 0xf) * 4, 0)));
  }
  /** The sum of the pseudo-header without the length, as a long segment has it. */
  seedLongSegment(bytes: Uint8Array): void {
    writeBe16(bytes, this.checksumAt, fold(this.pseudoSum(bytes)));
  }
}
/** The length of IPv4's or IPv6's header field for a packet up to `end` fits. */
export function lengthFits(headers: FrameHeaders): boolean {
  return headers.end - headers.ip - (headers.version === 6 ? IPV6_HEADER : 0) <= 0xffff;
}
