/**
 * Errors and echoes: RFC 792 (ICMP), RFC 4443 (ICMPv6), and messages of neighbour discovery: RFC 4861 "Message Formats", RFC 8106
 * (name servers in router advertisements).
 */
import type { IpAddress, MacAddress } from "./address.js";

/** Types of RFC 792. */
export const IcmpType = { ECHO_REPLY: 0, DESTINATION_UNREACHABLE: 3, ECHO: 8, TIME_EXCEEDED: 11 } as const;
/** Types of RFC 4443 and 4861. */
export const Icmpv6Type = {
  DESTINATION_UNREACHABLE: 1,
  PACKET_TOO_BIG: 2,
  TIME_EXCEEDED: 3,
  PARAMETER_PROBLEM: 4,
  ECHO_REQUEST: 128,
  ECHO_REPLY: 129,
  ROUTER_SOLICITATION: 133,
  ROUTER_ADVERTISEMENT: 134,
  NEIGHBOR_SOLICITATION: 135,
  NEIGHBOR_ADVERTISEMENT: 136,
} as const;

/** What went wrong, for both families. */
export type IcmpError = "no-route" | "no-host" | "protocol" | "port" | "prohibited" | "time-exceeded";

/** Type and code by error: IPv4's, then IPv6's. */
const CODES: Readonly<Record<IcmpError, readonly [number, number, number, number]>> = {
  "no-route": [3, 0, 1, 0],
  "no-host": [3, 1, 1, 3],
  // RFC 8200: IPv6 knows an unknown next header as a parameter problem
  protocol: [3, 2, 4, 1],
  port: [3, 3, 1, 4],
  prohibited: [3, 13, 1, 1],
  "time-exceeded": [11, 0, 3, 0],
};

/** Type and code as one number, type in the upper byte. */
export function icmpCode(error: IcmpError, family: number): number {
  const [type4, code4, type6, code6] = CODES[error];
  return family === 4 ? (type4 << 8) | code4 : (type6 << 8) | code6;
}

/** Bytes of the packet in question that an error carries: RFC 1812 "ICMP Message Original Datagram", RFC 4443 (minimum MTU). */
export function quotedBytes(family: number): number {
  return family === 4 ? 548 : 1232;
}

/** Options of neighbour discovery: RFC 4861 "Option Formats". */
export const NdOption = {
  SOURCE_LINK_ADDRESS: 1,
  TARGET_LINK_ADDRESS: 2,
  PREFIX: 3,
  MTU: 5,
  RDNSS: 25,
  DNSSL: 31,
} as const;

/** A link address option. @returns undefined if it is not there; null if the options contradict themselves */
export function linkAddressOption(
  bytes: Uint8Array,
  from: number,
  end: number,
  kind: number,
): MacAddress | undefined | null {
  let found: MacAddress | undefined;
  for (let at = from; at < end; ) {
    if (at + 8 > end) return null;
    const length = bytes[at + 1]! * 8;
    if (length === 0 || at + length > end) return null;
    if (bytes[at] === kind && length === 8) found = bytes.slice(at + 2, at + 8);
    at += length;
  }
  return found;
}

/** What a router says of its link. */
export interface RouterAdvertisement {
  readonly mac: MacAddress;
  readonly prefix: IpAddress;
  readonly mtu: number;
  readonly dns: IpAddress;
  /** Encoded as a name of the DNS. */
  readonly domain: Uint8Array;
  readonly lifetimeSeconds: number;
}

/** The message, its checksum still zero. Addresses form by themselves; other configuration is by DHCPv6 (flag O) and in here. */
export function encodeRouterAdvertisement(ra: RouterAdvertisement): Uint8Array {
  const domainUnits = Math.ceil((8 + ra.domain.length) / 8);
  const out = new Uint8Array(16 + 8 + 8 + 32 + 24 + domainUnits * 8);
  const view = new DataView(out.buffer);
  out[0] = Icmpv6Type.ROUTER_ADVERTISEMENT;
  out[4] = 64;
  out[5] = 0x40;
  view.setUint16(6, ra.lifetimeSeconds);
  let at = 16;
  out.set([NdOption.SOURCE_LINK_ADDRESS, 1, ...ra.mac], at);
  at += 8;
  out.set([NdOption.MTU, 1], at);
  view.setUint32(at + 4, ra.mtu);
  at += 8;
  out.set([NdOption.PREFIX, 4, 64, 0xc0], at);
  view.setUint32(at + 4, 86_400);
  view.setUint32(at + 8, 14_400);
  out.set(ra.prefix, at + 16);
  at += 32;
  out.set([NdOption.RDNSS, 3], at);
  view.setUint32(at + 4, ra.lifetimeSeconds);
  out.set(ra.dns, at + 8);
  at += 24;
  out.set([NdOption.DNSSL, domainUnits], at);
  view.setUint32(at + 4, ra.lifetimeSeconds);
  out.set(ra.domain, at + 8);
  return out;
}

/** @param solicited an answer to one neighbour; else to all. Its checksum is still zero */
export function encodeNeighborAdvertisement(target: IpAddress, mac: MacAddress, solicited: boolean): Uint8Array {
  const out = new Uint8Array(32);
  out[0] = Icmpv6Type.NEIGHBOR_ADVERTISEMENT;
  out[4] = 0x80 | (solicited ? 0x40 : 0) | 0x20; // router, solicited, override
  out.set(target, 8);
  out.set([NdOption.TARGET_LINK_ADDRESS, 1, ...mac], 24);
  return out;
}

/** Its checksum is still zero. */
export function encodeNeighborSolicitation(target: IpAddress, mac: MacAddress): Uint8Array {
  const out = new Uint8Array(32);
  out[0] = Icmpv6Type.NEIGHBOR_SOLICITATION;
  out.set(target, 8);
  out.set([NdOption.SOURCE_LINK_ADDRESS, 1, ...mac], 24);
  return out;
}
