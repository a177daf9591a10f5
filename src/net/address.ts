/**
 * Addresses of the link and the Internet as bytes in network order. An Internet address is an array of 4 or 16 bytes, which tells
 * the family; nobody changes one after it was made. Texts are as in RFC 4291 "Text Representation of Addresses" and RFC 5952.
 */

/** An Internet address: 4 bytes (IPv4) or 16 (IPv6). */
export type IpAddress = Uint8Array;
/** A link address of 6 bytes. */
export type MacAddress = Uint8Array;

/** An address and a port of a transport protocol. */
export interface Endpoint {
  readonly address: IpAddress;
  readonly port: number;
}

/** The first `bits` bits of an address. */
export interface Prefix {
  readonly address: IpAddress;
  readonly bits: number;
}

/** "This host", which has no address yet. */
export const ANY_IPV4: IpAddress = Uint8Array.of(0, 0, 0, 0);
/** Everybody on the link. */
export const BROADCAST_IPV4: IpAddress = Uint8Array.of(255, 255, 255, 255);
/** The host to itself. */
export const LOOPBACK_IPV4: IpAddress = Uint8Array.of(127, 0, 0, 1);
/** The unspecified address. */
export const ANY_IPV6: IpAddress = new Uint8Array(16);
/** The host to itself. */
export const LOOPBACK_IPV6: IpAddress = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1);
/** Everybody on the link. */
export const BROADCAST_MAC: MacAddress = Uint8Array.of(255, 255, 255, 255, 255, 255);

/** Whether two addresses are the same, family included. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Whether `bytes` at `at` has exactly `expected`. The caller knows that there are enough. */
export function bytesAt(bytes: Uint8Array, at: number, expected: Uint8Array): boolean {
  for (let i = 0; i < expected.length; i++) if (bytes[at + i] !== expected[i]) return false;
  return true;
}

/** @returns undefined if the text is no IPv4 address of four decimal numbers */
export function parseIpv4(text: string): IpAddress | undefined {
  const m = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text);
  if (m === null) return undefined;
  const out = new Uint8Array(4);
  for (let i = 0; i < 4; i++) {
    const n = Number(m[i + 1]);
    if (n > 255) return undefined;
    out[i] = n;
  }
  return out;
}

/** @returns undefined if the text is no IPv6 address. Zones (`%eth0`) are not taken. */
export function parseIpv6(text: string): IpAddress | undefined {
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const head = groups(halves[0]!, halves.length === 1);
  const tail = halves.length === 2 ? groups(halves[1]!, true) : [];
  if (head === undefined || tail === undefined) return undefined;
  const missing = 16 - head.length - tail.length;
  if (halves.length === 1 ? missing !== 0 : missing < 2) return undefined;
  return Uint8Array.from([...head, ...new Array<number>(missing).fill(0), ...tail]);
}

/** Groups of hexadecimal digits as bytes; the last may be an IPv4 address if `last`. */
function groups(text: string, last: boolean): number[] | undefined {
  if (text === "") return [];
  const out: number[] = [];
  const parts = text.split(":");
  for (const [i, part] of parts.entries()) {
    if (/^[0-9a-f]{1,4}$/i.test(part)) {
      const n = Number.parseInt(part, 16);
      out.push(n >> 8, n & 255);
    } else {
      const v4 = last && i === parts.length - 1 ? parseIpv4(part) : undefined;
      if (v4 === undefined) return undefined;
      out.push(...v4);
    }
  }
  return out;
}

/** Either family. */
export function parseIp(text: string): IpAddress | undefined {
  return parseIpv4(text) ?? parseIpv6(text);
}

/** For addresses written in our own source or checked before. @throws RangeError */
export function ip(text: string): IpAddress {
  const out = parseIp(text);
  if (out === undefined) throw new RangeError(`not an Internet address: ${text}`);
  return out;
}

/** @returns undefined if the text is neither an address nor an address with "/bits" */
export function parsePrefix(text: string): Prefix | undefined {
  const slash = text.indexOf("/");
  const address = parseIp(slash < 0 ? text : text.slice(0, slash));
  if (address === undefined) return undefined;
  const most = address.length * 8;
  if (slash < 0) return { address, bits: most };
  const digits = text.slice(slash + 1);
  if (!/^\d{1,3}$/.test(digits) || Number(digits) > most) return undefined;
  return { address, bits: Number(digits) };
}

/** Whether the address is of the prefix's family and within it. */
export function inPrefix(address: IpAddress, prefix: Prefix): boolean {
  if (address.length !== prefix.address.length) return false;
  const whole = prefix.bits >> 3;
  for (let i = 0; i < whole; i++) if (address[i] !== prefix.address[i]) return false;
  const rest = prefix.bits & 7;
  return rest === 0 || ((address[whole]! ^ prefix.address[whole]!) & (0xff00 >> rest) & 0xff) === 0;
}

/** Text of an address, IPv6 with the longest run of zero groups left out (RFC 5952). */
export function formatIp(address: IpAddress): string {
  if (address.length === 4) return `${address[0]}.${address[1]}.${address[2]}.${address[3]}`;
  const words = Array.from({ length: 8 }, (_, i) => (address[2 * i]! << 8) | address[2 * i + 1]!);
  let best = -1;
  let length = 1;
  for (let i = 0; i < 8; i++) {
    let n = 0;
    while (i + n < 8 && words[i + n] === 0) n++;
    if (n > length) {
      best = i;
      length = n;
    }
  }
  const hex = (from: number, to: number): string =>
    words
      .slice(from, to)
      .map((w) => w.toString(16))
      .join(":");
  return best < 0 ? hex(0, 8) : `${hex(0, best)}::${hex(best + length, 8)}`;
}

/** `10.0.2.15:80`, `[fd00::1]:80` */
export function formatEndpoint({ address, port }: Endpoint): string {
  return address.length === 4 ? `${formatIp(address)}:${port}` : `[${formatIp(address)}]:${port}`;
}

/** @returns undefined if the text is not six pairs of hexadecimal digits with ":" or "-" between */
export function parseMac(text: string): MacAddress | undefined {
  if (!/^[0-9a-f]{2}([:-][0-9a-f]{2}){5}$/i.test(text)) return undefined;
  return Uint8Array.from(text.split(/[:-]/), (part) => Number.parseInt(part, 16));
}

/** `02:00:0a:00:02:02` */
export function formatMac(mac: Uint8Array): string {
  return Array.from(mac, (b) => b.toString(16).padStart(2, "0")).join(":");
}

/** The group bit of a link address: multicast or broadcast. */
export function isGroupMac(mac: Uint8Array, at = 0): boolean {
  return (mac[at]! & 1) !== 0;
}

/** 224.0.0.0/4, ff00::/8 */
export function isMulticast(address: IpAddress): boolean {
  return address.length === 4 ? address[0]! >> 4 === 0xe : address[0] === 0xff;
}

/** fe80::/10 */
export function isLinkLocal(address: IpAddress): boolean {
  return address.length === 16 && address[0] === 0xfe && (address[1]! & 0xc0) === 0x80;
}

/** The interface's link-local address by RFC 4291 "Modified EUI-64". */
export function linkLocalOf(mac: MacAddress): IpAddress {
  return Uint8Array.of(
    0xfe,
    0x80,
    0,
    0,
    0,
    0,
    0,
    0,
    mac[0]! ^ 2,
    mac[1]!,
    mac[2]!,
    0xff,
    0xfe,
    mac[3]!,
    mac[4]!,
    mac[5]!,
  ); // prettier-ignore
}

/** ff02::1:ffXX:XXXX, RFC 4291 "Multicast Addresses" */
export function solicitedNodeOf(address: IpAddress): IpAddress {
  const out = new Uint8Array(16);
  out.set([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff]);
  out.set(address.subarray(13), 13);
  return out;
}

/** An IPv4 address as a number below 2^32. */
export function ipv4Number(address: IpAddress): number {
  return ((address[0]! << 24) | (address[1]! << 16) | (address[2]! << 8) | address[3]!) >>> 0;
}

/** The IPv4 address of that number. */
export function ipv4Of(n: number): IpAddress {
  return Uint8Array.of(n >>> 24, n >>> 16, n >>> 8, n);
}
