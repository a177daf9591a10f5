/**
 * DHCP for IPv6: RFC 8415, options of RFC 3646. Gives addresses to who asks, although addresses form by themselves here
 * (RFC 4862), and the name server to who asks for configuration alone.
 */
import { formatMac, type IpAddress, type MacAddress } from "./address.js";

/** Where servers listen. */
export const DHCPV6_SERVER_PORT = 547;
/** Where clients listen. */
export const DHCPV6_CLIENT_PORT = 546;

/** RFC 8415 "DHCP Message Types". */
export const Dhcpv6Type = {
  SOLICIT: 1,
  ADVERTISE: 2,
  REQUEST: 3,
  CONFIRM: 4,
  RENEW: 5,
  REBIND: 6,
  REPLY: 7,
  RELEASE: 8,
  DECLINE: 9,
  INFORMATION_REQUEST: 11,
} as const;
/** RFC 8415 "DHCP Options", RFC 3646. */
export const Dhcpv6Option = {
  CLIENTID: 1,
  SERVERID: 2,
  IA_NA: 3,
  IAADDR: 5,
  ORO: 6,
  STATUS_CODE: 13,
  RAPID_COMMIT: 14,
  DNS_SERVERS: 23,
  DOMAIN_LIST: 24,
} as const;
/** RFC 8415 "Status Codes". */
export const Dhcpv6Status = { Success: 0, NoAddrsAvail: 2, NoBinding: 3, NotOnLink: 4 } as const;

/** One option as it stands in a message. */
export interface Dhcpv6Field {
  readonly code: number;
  readonly data: Uint8Array;
}
/** A message between client and server. */
export interface Dhcpv6Message {
  readonly type: number;
  /** 24 bits. */
  readonly transaction: number;
  readonly options: readonly Dhcpv6Field[];
}

/** @returns undefined if it contradicts itself */
export function parseDhcpv6(bytes: Uint8Array): Dhcpv6Message | undefined {
  if (bytes.length < 4) return undefined;
  const options = parseOptions(bytes, 4);
  if (options === undefined) return undefined;
  return { type: bytes[0]!, transaction: (bytes[1]! << 16) | (bytes[2]! << 8) | bytes[3]!, options };
}

/** Options from `from` to the end. @returns undefined if they do not end there */
export function parseOptions(bytes: Uint8Array, from: number): Dhcpv6Field[] | undefined {
  const out: Dhcpv6Field[] = [];
  let at = from;
  while (at < bytes.length) {
    if (at + 4 > bytes.length || out.length === 64) return undefined;
    const code = (bytes[at]! << 8) | bytes[at + 1]!;
    const length = (bytes[at + 2]! << 8) | bytes[at + 3]!;
    at += 4;
    if (at + length > bytes.length) return undefined;
    out.push({ code, data: bytes.slice(at, at + length) });
    at += length;
  }
  return out;
}

/** The bytes of a message. */
export function encodeDhcpv6(m: Dhcpv6Message): Uint8Array {
  const options = encodeOptions(m.options);
  const out = new Uint8Array(4 + options.length);
  out.set([m.type, m.transaction >> 16, m.transaction >> 8, m.transaction]);
  out.set(options, 4);
  return out;
}
/** The bytes of options alone. */
export function encodeOptions(options: readonly Dhcpv6Field[]): Uint8Array {
  const out = new Uint8Array(options.reduce((n, o) => n + 4 + o.data.length, 0));
  let at = 0;
  for (const { code, data } of options) {
    out.set([code >> 8, code, data.length >> 8, data.length], at);
    out.set(data, at + 4);
    at += 4 + data.length;
  }
  return out;
}

/** What the server gives. */
export interface Dhcpv6Settings {
  readonly mac: MacAddress;
  /** The link's prefix; bits from 64 on are zero. */
  readonly prefix: IpAddress;
  readonly dns: IpAddress;
  /** Encoded as a name of the DNS. */
  readonly domain: Uint8Array;
  readonly leaseSeconds: number;
}

/** Who has an address; the client is its DUID and IAID. */
export interface Lease6 {
  readonly client: string;
  readonly address: IpAddress;
  readonly expiresAt: number;
}

const MAX_LEASES = 256;
const FIRST_SUFFIX = 0x1000;

/** The server. */
export class Dhcpv6Server {
  readonly #s: Dhcpv6Settings;
  readonly #serverId: Uint8Array;
  /** By the number that the address ends in. */
  readonly #leases = new Map<number, Lease6>();

  constructor(settings: Dhcpv6Settings) {
    this.#s = settings;
    // DUID-LL, RFC 8415 "DUID Based on Link-Layer Address"
    this.#serverId = Uint8Array.of(0, 3, 0, 1, ...settings.mac);
  }

  leases(now: number): Lease6[] {
    return [...this.#leases.values()].filter((l) => l.expiresAt > now);
  }
  restore(leases: readonly Lease6[]): void {
    this.#leases.clear();
    for (const lease of leases.slice(0, MAX_LEASES))
      this.#leases.set((lease.address[14]! << 8) | lease.address[15]!, lease);
  }

  /** @returns an answer to the client, or undefined */
  receive(bytes: Uint8Array, now: number): Uint8Array | undefined {
    const m = parseDhcpv6(bytes);
    if (m === undefined) return undefined;
    const find = (code: number): Uint8Array | undefined => m.options.find((o) => o.code === code)?.data;
    const client = find(Dhcpv6Option.CLIENTID);
    const server = find(Dhcpv6Option.SERVERID);
    const forUs = server !== undefined && formatMac(server) === formatMac(this.#serverId);
    if (server !== undefined && !forUs) return undefined;
    if (client !== undefined && (client.length < 3 || client.length > 130)) return undefined;
    const rapid = find(Dhcpv6Option.RAPID_COMMIT) !== undefined;
    const options: Dhcpv6Field[] = [{ code: Dhcpv6Option.SERVERID, data: this.#serverId }];
    if (client !== undefined) options.push({ code: Dhcpv6Option.CLIENTID, data: client });
    let type: number = Dhcpv6Type.REPLY;
    // RFC 8415 "Message Validation": who must name itself, who must name the server, who must not
    const T = Dhcpv6Type;
    const needsServer = m.type === T.REQUEST || m.type === T.RENEW || m.type === T.RELEASE || m.type === T.DECLINE;
    const mayNotName = m.type === T.SOLICIT || m.type === T.CONFIRM || m.type === T.REBIND;
    if ((needsServer && !forUs) || (mayNotName && forUs)) return undefined;
    if (client === undefined && m.type !== T.INFORMATION_REQUEST) return undefined;
    switch (m.type) {
      case T.SOLICIT:
        if (rapid) options.push({ code: Dhcpv6Option.RAPID_COMMIT, data: new Uint8Array(0) });
        else type = T.ADVERTISE;
        this.#addresses(m, client!, rapid, now, options);
        break;
      case T.REQUEST:
      case T.RENEW:
      case T.REBIND:
        this.#addresses(m, client!, true, now, options);
        break;
      case T.CONFIRM: {
        const asked = identityAddresses(m);
        if (asked.length === 0) return undefined;
        const onLink = asked.every((a) => a.subarray(0, 8).every((b, i) => b === this.#s.prefix[i]));
        options.push(status(onLink ? Dhcpv6Status.Success : Dhcpv6Status.NotOnLink));
        break;
      }
      case T.RELEASE:
      case T.DECLINE:
        for (const ia of m.options)
          if (ia.code === Dhcpv6Option.IA_NA && ia.data.length >= 12) this.#release(key(client!, ia.data));
        options.push(status(Dhcpv6Status.Success));
        break;
      case T.INFORMATION_REQUEST:
        break;
      default:
        return undefined;
    }
    options.push({ code: Dhcpv6Option.DNS_SERVERS, data: this.#s.dns });
    options.push({ code: Dhcpv6Option.DOMAIN_LIST, data: this.#s.domain });
    return encodeDhcpv6({ type, transaction: m.transaction, options });
  }

  /** Answers every identity association with its address. */
  #addresses(m: Dhcpv6Message, client: Uint8Array, bind: boolean, now: number, options: Dhcpv6Field[]): void {
    for (const { code, data } of m.options) {
      if (code !== Dhcpv6Option.IA_NA || data.length < 12) continue;
      const address = this.#give(key(client, data), bind, now);
      const seconds = this.#s.leaseSeconds;
      const body = new Uint8Array(address === undefined ? 18 : 40);
      const view = new DataView(body.buffer);
      body.set(data.subarray(0, 4));
      if (address === undefined) {
        view.setUint16(12, Dhcpv6Option.STATUS_CODE);
        view.setUint16(14, 2);
        view.setUint16(16, Dhcpv6Status.NoAddrsAvail);
      } else {
        view.setUint32(4, seconds >>> 1);
        view.setUint32(8, Math.floor((seconds * 4) / 5));
        view.setUint16(12, Dhcpv6Option.IAADDR);
        view.setUint16(14, 24);
        body.set(address, 16);
        view.setUint32(32, seconds);
        view.setUint32(36, seconds);
      }
      options.push({ code, data: body });
    }
  }

  #give(client: string, bind: boolean, now: number): IpAddress | undefined {
    let free: number | undefined;
    let at: number | undefined;
    for (let i = FIRST_SUFFIX; i < FIRST_SUFFIX + MAX_LEASES; i++) {
      const lease = this.#leases.get(i);
      if (lease?.client === client) at = i;
      if (free === undefined && (lease === undefined || lease.expiresAt <= now)) free = i;
    }
    const suffix = at ?? free;
    if (suffix === undefined) return undefined;
    const address = this.#s.prefix.slice();
    address[14] = suffix >> 8;
    address[15] = suffix & 255;
    if (bind) this.#leases.set(suffix, { client, address, expiresAt: now + this.#s.leaseSeconds * 1e9 });
    return address;
  }
  #release(client: string): void {
    for (const [suffix, lease] of this.#leases) if (lease.client === client) this.#leases.delete(suffix);
  }
}

/** The client's DUID and the association's identifier. */
function key(duid: Uint8Array, ia: Uint8Array): string {
  return `${formatMac(duid)}/${formatMac(ia.subarray(0, 4))}`;
}
function status(code: number): Dhcpv6Field {
  return { code: Dhcpv6Option.STATUS_CODE, data: Uint8Array.of(code >> 8, code) };
}
/** All addresses in the associations of a message. */
function identityAddresses(m: Dhcpv6Message): Uint8Array[] {
  return m.options
    .filter((o) => o.code === Dhcpv6Option.IA_NA && o.data.length >= 12)
    .flatMap((o) => parseOptions(o.data, 12) ?? [])
    .filter((o) => o.code === Dhcpv6Option.IAADDR && o.data.length >= 24)
    .map((o) => o.data.slice(0, 16));
}
