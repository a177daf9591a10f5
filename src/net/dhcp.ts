/** Messages of DHCP: RFC 2131 "The Client-Server Protocol", options of RFC 2132. */
import { ANY_IPV4, type IpAddress, type MacAddress } from "./address.js";

/** Where servers listen. */
export const DHCP_SERVER_PORT = 67;
/** Where clients listen. */
export const DHCP_CLIENT_PORT = 68;
/** Up to the options. */
const FIXED_BYTES = 240;
const MAGIC = 0x63825363;
/** Some clients drop what is shorter: RFC 1542 "BOOTP message". */
const MIN_BYTES = 300;

/** RFC 2132 "DHCP Message Type". */
export const DhcpType = {
  DISCOVER: 1,
  OFFER: 2,
  REQUEST: 3,
  DECLINE: 4,
  ACK: 5,
  NAK: 6,
  RELEASE: 7,
  INFORM: 8,
} as const;
/** Codes of RFC 2132. */
export const DhcpOption = {
  PAD: 0,
  SUBNET_MASK: 1,
  ROUTER: 3,
  DNS: 6,
  HOST_NAME: 12,
  DOMAIN: 15,
  MTU: 26,
  BROADCAST: 28,
  REQUESTED_ADDRESS: 50,
  LEASE_TIME: 51,
  MESSAGE_TYPE: 53,
  SERVER_ID: 54,
  RENEWAL_TIME: 58,
  REBINDING_TIME: 59,
  CLIENT_ID: 61,
  END: 255,
} as const;

/** What of a message matters to a server and its clients. */
export interface DhcpMessage {
  readonly op: 1 | 2;
  readonly xid: number;
  readonly secs?: number;
  readonly broadcast: boolean;
  readonly ciaddr: IpAddress;
  readonly yiaddr: IpAddress;
  readonly giaddr?: IpAddress;
  readonly chaddr: MacAddress;
  readonly options: ReadonlyMap<number, Uint8Array>;
}

/** @returns undefined if it is no DHCP message for Ethernet */
export function parseDhcp(bytes: Uint8Array): DhcpMessage | undefined {
  if (bytes.length < FIXED_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const op = bytes[0];
  if ((op !== 1 && op !== 2) || bytes[1] !== 1 || bytes[2] !== 6 || view.getUint32(236) !== MAGIC) return undefined;
  const options = new Map<number, Uint8Array>();
  for (let at = FIXED_BYTES; at < bytes.length; ) {
    const code = bytes[at++]!;
    if (code === DhcpOption.END) break;
    if (code === DhcpOption.PAD) continue;
    const length = bytes[at++];
    if (length === undefined || at + length > bytes.length) return undefined;
    if (!options.has(code)) options.set(code, bytes.slice(at, at + length));
    at += length;
  }
  return {
    op,
    xid: view.getUint32(4),
    secs: view.getUint16(8),
    broadcast: (view.getUint16(10) & 0x8000) !== 0,
    ciaddr: bytes.slice(12, 16),
    yiaddr: bytes.slice(16, 20),
    giaddr: bytes.slice(24, 28),
    chaddr: bytes.slice(28, 34),
    options,
  };
}

/** The bytes of a message. */
export function encodeDhcp(m: DhcpMessage): Uint8Array {
  let size = FIXED_BYTES + 1;
  for (const value of m.options.values()) size += 2 + value.length;
  const out = new Uint8Array(Math.max(MIN_BYTES, size));
  const view = new DataView(out.buffer);
  out.set([m.op, 1, 6, 0]);
  view.setUint32(4, m.xid);
  view.setUint16(8, m.secs ?? 0);
  view.setUint16(10, m.broadcast ? 0x8000 : 0);
  out.set(m.ciaddr, 12);
  out.set(m.yiaddr, 16);
  out.set(m.giaddr ?? ANY_IPV4, 24);
  out.set(m.chaddr, 28);
  view.setUint32(236, MAGIC);
  let at = FIXED_BYTES;
  for (const [code, value] of m.options) {
    out[at] = code;
    out[at + 1] = value.length;
    out.set(value, at + 2);
    at += 2 + value.length;
  }
  out[at] = DhcpOption.END;
  return out;
}
