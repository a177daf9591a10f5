/**
 * Writing headers: Ethernet, IPv4 (RFC 791 "Internet Header Format"), IPv6 (RFC 8200 "IPv6 Header Format"), UDP (RFC 768), TCP (RFC
 * 9293 "Header Format"), and reading TCP's. All write in place and return where the next header begins.
 */
import type { IpAddress, MacAddress } from "./address.js";
import { addBytes, checksumOf, fold, pseudoSum } from "./checksum.js";
import { ETHERNET_HEADER, EtherType, FRAGMENT_HEADER, IPV4_HEADER, IPV6_HEADER, IpProtocol } from "./packet.js";

/** Bytes of a header. */
export const UDP_HEADER = 8;
/** Bytes of a header without options. */
export const TCP_HEADER = 20;

/** A buffer for one frame, with its view. */
export class FrameBuffer {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView;
  /** @param size the longest frame, in bytes */
  constructor(size: number) {
    this.bytes = new Uint8Array(size);
    this.view = new DataView(this.bytes.buffer);
  }
}

/** @returns where the network header begins: 14 */
export function writeEthernet(f: FrameBuffer, destination: MacAddress, source: MacAddress, etherType: number): number {
  f.bytes.set(destination, 0);
  f.bytes.set(source, 6);
  f.view.setUint16(12, etherType);
  return ETHERNET_HEADER;
}

/** Where the transport's header begins in a frame without tags and options. */
export function transportAt(addressBytes: number): number {
  return ETHERNET_HEADER + (addressBytes === 4 ? IPV4_HEADER : IPV6_HEADER);
}

/** What an Internet header says, for both families. */
export interface IpFields {
  readonly source: IpAddress;
  readonly destination: IpAddress;
  readonly protocol: number;
  readonly hopLimit: number;
  /** IPv4's field, and that of a fragment. */
  readonly identification: number;
}

/**
 * Ethernet and IP headers of a packet that is not a fragment. The address arrays decide the family.
 *
 * @param length bytes of the transport's header and data
 * @returns where the transport's header begins
 */
export function writeIp(
  f: FrameBuffer,
  destinationMac: MacAddress,
  sourceMac: MacAddress,
  fields: IpFields,
  length: number,
): number {
  const { source, destination, protocol, hopLimit, identification } = fields;
  if (source.length === 4) {
    const at = writeEthernet(f, destinationMac, sourceMac, EtherType.IPV4);
    writeIpv4(f, at, source, destination, protocol, hopLimit, identification, 0x4000, length);
    return at + IPV4_HEADER;
  }
  const at = writeEthernet(f, destinationMac, sourceMac, EtherType.IPV6);
  writeIpv6(f, at, source, destination, protocol, hopLimit, length);
  return at + IPV6_HEADER;
}

/** @param fragment flags and offset as in the header: 0x4000 do not fragment, 0x2000 more fragments, low bits offset / 8 */
export function writeIpv4(
  f: FrameBuffer,
  at: number,
  source: IpAddress,
  destination: IpAddress,
  protocol: number,
  hopLimit: number,
  identification: number,
  fragment: number,
  length: number,
): void {
  const { view, bytes } = f;
  view.setUint16(at, 0x4500);
  view.setUint16(at + 2, IPV4_HEADER + length);
  view.setUint16(at + 4, identification);
  view.setUint16(at + 6, fragment);
  view.setUint8(at + 8, hopLimit);
  view.setUint8(at + 9, protocol);
  view.setUint16(at + 10, 0);
  for (let i = 0; i < 4; i++) {
    bytes[at + 12 + i] = source[i]!;
    bytes[at + 16 + i] = destination[i]!;
  }
  view.setUint16(at + 10, checksumOf(addBytes(view, at, IPV4_HEADER, 0)));
}

/** The fixed header of IPv6. */
export function writeIpv6(
  f: FrameBuffer,
  at: number,
  source: IpAddress,
  destination: IpAddress,
  next: number,
  hopLimit: number,
  length: number,
): void {
  const { view, bytes } = f;
  view.setUint32(at, 0x6000_0000);
  view.setUint16(at + 4, length);
  view.setUint8(at + 6, next);
  view.setUint8(at + 7, hopLimit);
  bytes.set(source, at + 8);
  bytes.set(destination, at + 24);
}

/** RFC 8200 "Fragment Header" */
export function writeFragmentHeader(
  f: FrameBuffer,
  at: number,
  next: number,
  offset: number,
  more: boolean,
  identification: number,
): void {
  f.view.setUint8(at, next);
  f.view.setUint8(at + 1, 0);
  f.view.setUint16(at + 2, offset | (more ? 1 : 0));
  f.view.setUint32(at + 4, identification);
}

/**
 * Fills in the checksum of a transport whose header begins at `at` of a frame with plain headers.
 *
 * @param fieldAt where the checksum is in the transport's header
 * @param partial the sum of the pseudo-header alone
 */
export function writeTransportChecksum(
  f: FrameBuffer,
  addressBytes: number,
  protocol: number,
  at: number,
  fieldAt: number,
  length: number,
  partial: boolean,
): void {
  const { view } = f;
  view.setUint16(at + fieldAt, 0);
  const pseudo = pseudoSum(view, at - 2 * addressBytes, addressBytes, protocol, length);
  if (partial) view.setUint16(at + fieldAt, fold(pseudo));
  else {
    const sum = checksumOf(addBytes(view, at, length, pseudo));
    // RFC 768: zero means that there is none
    view.setUint16(at + fieldAt, sum === 0 && protocol === IpProtocol.UDP ? 0xffff : sum);
  }
}

/** Whether the bytes from `at` to `end` sum up with their pseudo-header. */
export function checksumHolds(
  view: DataView,
  sourceAt: number,
  addressBytes: number,
  protocol: number,
  at: number,
  end: number,
): boolean {
  return checksumOf(addBytes(view, at, end - at, pseudoSum(view, sourceAt, addressBytes, protocol, end - at))) === 0;
}

/** Bytes of data in each fragment but the last, for a link of this MTU. */
export function fragmentBytes(addressBytes: number, mtu: number): number {
  return (mtu - (addressBytes === 4 ? IPV4_HEADER : IPV6_HEADER + FRAGMENT_HEADER)) & ~7;
}

/** "Control bits". */
export const TcpFlags = { FIN: 1, SYN: 2, RST: 4, PSH: 8, ACK: 16, URG: 32 } as const;
/** Kinds of options: RFC 9293 "Specific Option Definitions", RFC 7323, RFC 2018. */
export const TcpOption = { END: 0, NOP: 1, MSS: 2, WINDOW_SCALE: 3, SACK_PERMITTED: 4, SACK: 5 } as const;

/** As many as 40 bytes of options hold. */
const MAX_SACK_BLOCKS = 4;

/** A received TCP header; reused. */
export class TcpHeader {
  sourcePort = 0;
  destinationPort = 0;
  /** Sequence numbers are 32 bits, compared by the sign of their difference. */
  seq = 0;
  ack = 0;
  flags = 0;
  /** Not scaled yet. */
  window = 0;
  dataAt = 0;
  dataLength = 0;
  /** Of a SYN: 0 if the option was not there. */
  mss = 0;
  /** Of a SYN: -1 if the option was not there. */
  windowScale = -1;
  sackPermitted = false;
  /** Pairs of left and right edge, as many as `sackCount` says: RFC 2018 "Sack Option Format". Nothing about them has been looked at. */
  readonly sackEdges = new Int32Array(2 * MAX_SACK_BLOCKS);
  sackCount = 0;

  /** @returns false if it contradicts itself */
  parse(view: DataView, at: number, end: number): boolean {
    if (end - at < TCP_HEADER) return false;
    this.sourcePort = view.getUint16(at);
    this.destinationPort = view.getUint16(at + 2);
    this.seq = view.getInt32(at + 4);
    this.ack = view.getInt32(at + 8);
    const header = (view.getUint8(at + 12) >> 4) * 4;
    this.flags = view.getUint8(at + 13) & 0x3f;
    this.window = view.getUint16(at + 14);
    if (header < TCP_HEADER || at + header > end) return false;
    this.dataAt = at + header;
    this.dataLength = end - at - header;
    this.mss = 0;
    this.windowScale = -1;
    this.sackPermitted = false;
    this.sackCount = 0;
    if (header > TCP_HEADER) this.#options(view, at + TCP_HEADER, this.dataAt, (this.flags & TcpFlags.SYN) !== 0);
    return true;
  }

  #options(view: DataView, from: number, end: number, isSyn: boolean): void {
    for (let at = from; at < end; ) {
      const kind = view.getUint8(at);
      if (kind === TcpOption.END) return;
      if (kind === TcpOption.NOP) {
        at++;
        continue;
      }
      const length = at + 1 < end ? view.getUint8(at + 1) : 0;
      if (length < 2 || at + length > end) return;
      if (!isSyn) {
        // all others are agreed on in a SYN; timestamps never are
        if (kind === TcpOption.SACK && (length & 7) === 2) this.#sacks(view, at + 2, length >> 3);
      } else if (kind === TcpOption.MSS && length === 4) this.mss = view.getUint16(at + 2);
      else if (kind === TcpOption.WINDOW_SCALE && length === 3) this.windowScale = Math.min(14, view.getUint8(at + 2));
      else if (kind === TcpOption.SACK_PERMITTED && length === 2) this.sackPermitted = true;
      at += length;
    }
  }
  #sacks(view: DataView, at: number, count: number): void {
    this.sackCount = count;
    for (let i = 0; i < 2 * count; i++) this.sackEdges[i] = view.getInt32(at + 4 * i);
  }
}
