/** What the router is told: addresses of its link, limits, what may leave. */
import { type IpAddress, ipv4Number, ipv4Of, type MacAddress, type Prefix, parseMac, parsePrefix } from "./address.js";

/** Configuration as its user writes it; everything has a default. */
export interface NatConfig {
  /** Network of the guests, at least a /28: gateway .2, name server .3, leases from .15 on. Default 10.0.2.0/24. */
  readonly ipv4?: string;
  /** A /64 of the guests: gateway ::2, name server ::3. Default fd65:6e6c:6967:2::/64; false: no IPv6. */
  readonly ipv6?: string | false;
  /** The gateway's link address. */
  readonly mac?: string;
  /** Bytes of an IP packet on the link. */
  readonly mtu?: number;
  /** Domain of the guests' names. */
  readonly domain?: string;
  /** Send TCP segments longer than the MTU to the guest. Default true. */
  readonly longSegments?: boolean;
  /** Leave checksums of TCP and UDP out towards the guest (`FrameFlags.partialChecksum`). Default true. */
  readonly partialChecksums?: boolean;
  /** The allow list of `EgressPolicy`; undefined: everything. The host itself is on it as `host.DOMAIN` or by the gateway's address. */
  readonly allow?: readonly string[] | undefined;
  readonly maxTcp?: number;
  readonly maxUdp?: number;
  /** Bytes that one connection may hold in each direction. */
  readonly tcpBytes?: number;
  /** Bytes that all connections may hold together. */
  readonly maxBytes?: number;
  readonly udpIdleSeconds?: number;
  readonly leaseSeconds?: number;
  /** How long a connection to a published port waits for a guest that does not answer yet. */
  readonly holdSeconds?: number;
}

/** The configuration worked out. */
export interface Network {
  readonly ipv4: Prefix;
  readonly gateway4: IpAddress;
  readonly dns4: IpAddress;
  readonly broadcast4: IpAddress;
  readonly firstLease: IpAddress;
  readonly lastLease: IpAddress;
  readonly ipv6: Prefix | undefined;
  readonly gateway6: IpAddress;
  readonly dns6: IpAddress;
  readonly mac: MacAddress;
  readonly mtu: number;
  readonly domain: string;
  /** Most bytes of TCP data in a frame, 0: a segment. */
  readonly longSegment: number;
  readonly partialChecksums: boolean;
  readonly maxTcp: number;
  readonly maxUdp: number;
  readonly tcpBytes: number;
  readonly maxBytes: number;
  readonly udpIdleNs: number;
  readonly leaseSeconds: number;
  readonly holdNs: number;
}

/** A configuration that cannot be. */
export class NatConfigError extends Error {
  override readonly name = "NatConfigError";
  readonly code = "bad-network";
}

const LONG_SEGMENT = 62_000;
/** Least MTU of IPv6, which every link here can have: RFC 8200 "Packet Size Issues". */
const MIN_MTU = 1280;
const MAX_MTU = 65_535;

/** @throws NatConfigError */
export function workOut(config: NatConfig): Network {
  const ipv4 = parsePrefix(config.ipv4 ?? "10.0.2.0/24");
  if (ipv4 === undefined || ipv4.address.length !== 4 || ipv4.bits < 8 || ipv4.bits > 28)
    throw new NatConfigError(`not an IPv4 network of /8 to /28: ${config.ipv4}`);
  const mask = (-1 << (32 - ipv4.bits)) >>> 0;
  const base = (ipv4Number(ipv4.address) & mask) >>> 0;
  const broadcast = (base | ~mask) >>> 0;
  const first = ipv4.bits <= 27 ? 15 : 4;
  const six = config.ipv6 === false ? undefined : parsePrefix(config.ipv6 ?? "fd65:6e6c:6967:2::/64");
  if (config.ipv6 !== false && (six === undefined || six.address.length !== 16 || six.bits !== 64))
    throw new NatConfigError(`not an IPv6 network of /64: ${config.ipv6}`);
  const mac = parseMac(config.mac ?? "52:55:0a:00:02:02");
  if (mac === undefined || (mac[0]! & 1) !== 0) throw new NatConfigError(`not a link address: ${config.mac}`);
  const mtu = config.mtu ?? 1500;
  if (!(Number.isInteger(mtu) && mtu >= MIN_MTU && mtu <= MAX_MTU))
    throw new NatConfigError(`an MTU is ${MIN_MTU} to ${MAX_MTU}: ${mtu}`);
  const in6 = (n: number): IpAddress => {
    const out = (six?.address ?? new Uint8Array(16)).slice();
    out.fill(0, 8);
    out[15] = n;
    return out;
  };
  return {
    ipv4: { address: ipv4Of(base), bits: ipv4.bits },
    gateway4: ipv4Of(base + 2),
    dns4: ipv4Of(base + 3),
    broadcast4: ipv4Of(broadcast),
    firstLease: ipv4Of(base + first),
    lastLease: ipv4Of(Math.min(broadcast - 1, base + first + 1023)),
    ipv6: six === undefined ? undefined : { address: in6(0), bits: 64 },
    gateway6: in6(2),
    dns6: in6(3),
    mac,
    mtu,
    domain: config.domain ?? "enlighten.internal",
    longSegment: config.longSegments === false ? 0 : LONG_SEGMENT,
    partialChecksums: config.partialChecksums ?? true,
    maxTcp: config.maxTcp ?? 2048,
    maxUdp: config.maxUdp ?? 1024,
    tcpBytes: config.tcpBytes ?? 512 << 10,
    maxBytes: config.maxBytes ?? 64 << 20,
    udpIdleNs: (config.udpIdleSeconds ?? 60) * 1e9,
    leaseSeconds: config.leaseSeconds ?? 86_400,
    holdNs: (config.holdSeconds ?? 20) * 1e9,
  };
}

/** An address that cannot be one of a peer outside: RFC 6890, and what would reach this host by another name. */
export function isNowhere(address: IpAddress): boolean {
  const a = address[0]!;
  const b = address[1]!;
  // RFC 3927: link-local addresses are not forwarded, which keeps guests from metadata services too
  if (address.length === 4) return a === 0 || a === 127 || a >= 224 || (a === 169 && b === 254);
  if (a === 0xff || (a === 0xfe && b >= 0x80)) return true;
  for (let i = 0; i < 10; i++) if (address[i] !== 0) return false;
  return true; // unspecified, loopback, IPv4-mapped and -compatible
}
