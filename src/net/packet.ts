/**
 * One received frame taken apart: where its headers and its payload are. Objects are reused from frame to frame, so that a packet
 * costs no allocation; offsets are those in the whole buffer that the frame lies in.
 *
 * Documents: IEEE 802.3 and 802.1Q (Ethernet, tags), RFC 791 (IPv4), RFC 8200 (IPv6).
 */
import { type IpAddress, isGroupMac } from "./address.js";
import { addBytes, checksumOf } from "./checksum.js";
import { FrameFlags } from "./port.js";

/** What the two bytes after the addresses say. */
export const EtherType = { IPV4: 0x0800, ARP: 0x0806, VLAN: 0x8100, IPV6: 0x86dd } as const;
/** "Protocol" of IPv4, "next header" of IPv6. */
export const IpProtocol = {
  HOP_BY_HOP: 0,
  ICMP: 1,
  TCP: 6,
  UDP: 17,
  ROUTING: 43,
  FRAGMENT: 44,
  ICMPV6: 58,
  NONE: 59,
  DESTINATION_OPTIONS: 60,
} as const;

/** Bytes of a header without a tag. */
export const ETHERNET_HEADER = 14;
/** Bytes of a header without options. */
export const IPV4_HEADER = 20;
/** Bytes of the fixed header. */
export const IPV6_HEADER = 40;
/** Bytes of IPv6's extension header of a fragment. */
export const FRAGMENT_HEADER = 8;
/** Extension headers looked at before a packet is given up. */
const MAX_EXTENSIONS = 8;

/** Why a packet was dropped; the statistics count by it. */
export type DropReason =
  | "short"
  | "vlan"
  | "not-for-us"
  | "ether-type"
  | "ip-header"
  | "ip-checksum"
  | "ip-option"
  | "source-address"
  | "fragment"
  | "protocol"
  | "checksum"
  | "transport-header"
  | "ttl"
  | "no-room"
  | "no-neighbour"
  | "too-many"
  | "refused"
  | "unsolicited"
  | "reentered";

/** A parsed frame. Everything but the frame is meaningless unless `parse` returned undefined. */
export class Packet {
  /** The whole buffer that the frame lies in. */
  bytes: Uint8Array = new Uint8Array(0);
  view: DataView = new DataView(new ArrayBuffer(0));
  /** Where the frame begins and ends. */
  frameAt = 0;
  frameEnd = 0;
  /** `FrameFlags` */
  flags = 0;
  segmentSize = 0;
  etherType = 0;
  /** Tag of the virtual LAN, 0 without. */
  vlan = 0;
  /** The network header, or ARP. */
  ipAt = 0;
  ipEnd = 0;
  /** Bytes of an address: 4 or 16; 0 if this is no IP. */
  family = 0;
  sourceAt = 0;
  destinationAt = 0;
  hopLimit = 0;
  protocol = 0;
  /** The transport's header; its data ends at `ipEnd`. */
  payloadAt = 0;
  isFragment = false;
  moreFragments = false;
  /** In bytes. */
  fragmentOffset = 0;
  identification = 0;

  /** @returns why the frame is to be dropped, or undefined */
  parse(frame: Uint8Array, flags: number, segmentSize: number): DropReason | undefined {
    if (frame.buffer !== this.view.buffer) {
      this.view = new DataView(frame.buffer);
      this.bytes = new Uint8Array(frame.buffer);
    }
    const at = (this.frameAt = frame.byteOffset);
    const end = (this.frameEnd = at + frame.length);
    this.flags = flags;
    this.segmentSize = segmentSize;
    this.family = 0;
    this.vlan = 0;
    this.isFragment = false;
    if (frame.length < ETHERNET_HEADER) return "short";
    this.etherType = this.view.getUint16(at + 12);
    this.ipAt = at + ETHERNET_HEADER;
    this.ipEnd = end;
    if (this.etherType === EtherType.VLAN) {
      if (frame.length < ETHERNET_HEADER + 4) return "short";
      this.vlan = this.view.getUint16(at + 14) & 0xfff;
      this.etherType = this.view.getUint16(at + 16);
      this.ipAt += 4;
    }
    if (this.etherType === EtherType.IPV4) return this.#ipv4();
    if (this.etherType === EtherType.IPV6) return this.#ipv6();
    return undefined;
  }

  get isGroup(): boolean {
    return isGroupMac(this.bytes, this.frameAt);
  }
  /** Copies. */
  get sourceMac(): Uint8Array {
    return this.bytes.slice(this.frameAt + 6, this.frameAt + 12);
  }
  get source(): IpAddress {
    return this.bytes.slice(this.sourceAt, this.sourceAt + this.family);
  }
  get destination(): IpAddress {
    return this.bytes.slice(this.destinationAt, this.destinationAt + this.family);
  }
  /** Nobody needs to verify checksums. */
  get isTrusted(): boolean {
    return (this.flags & (FrameFlags.partialChecksum | FrameFlags.verified)) !== 0;
  }

  #ipv4(): DropReason | undefined {
    const { view, ipAt: at } = this;
    const room = this.frameEnd - at;
    if (room < IPV4_HEADER) return "short";
    const first = view.getUint8(at);
    const headerBytes = (first & 15) * 4;
    if (first >> 4 !== 4 || headerBytes < IPV4_HEADER || headerBytes > room) return "ip-header";
    let length = view.getUint16(at + 2);
    if (length === 0 && this.segmentSize > 0)
      length = room; // large send offload leaves it to the card
    else if (!this.isTrusted && checksumOf(addBytes(view, at, headerBytes, 0)) !== 0) return "ip-checksum";
    if (length < headerBytes || length > room) return "ip-header";
    if (headerBytes > IPV4_HEADER && !this.#ipv4Options(at + IPV4_HEADER, at + headerBytes)) return "ip-option";
    const fragment = view.getUint16(at + 6);
    this.family = 4;
    this.identification = view.getUint16(at + 4);
    this.moreFragments = (fragment & 0x2000) !== 0;
    this.fragmentOffset = (fragment & 0x1fff) * 8;
    this.isFragment = (fragment & 0x3fff) !== 0;
    this.hopLimit = view.getUint8(at + 8);
    this.protocol = view.getUint8(at + 9);
    this.sourceAt = at + 12;
    this.destinationAt = at + 16;
    this.payloadAt = at + headerBytes;
    this.ipEnd = at + length;
    return undefined;
  }

  /** RFC 7126: source routes are refused, other options ignored if they are well-formed. */
  #ipv4Options(from: number, end: number): boolean {
    for (let at = from; at < end; ) {
      const kind = this.bytes[at]!;
      if (kind === 0) return true;
      if (kind === 1) {
        at++;
        continue;
      }
      if (kind === 131 || kind === 137 || at + 1 >= end) return false;
      const length = this.bytes[at + 1]!;
      if (length < 2 || at + length > end) return false;
      at += length;
    }
    return true;
  }

  #ipv6(): DropReason | undefined {
    const { view, ipAt: at } = this;
    const room = this.frameEnd - at;
    if (room < IPV6_HEADER) return "short";
    if (view.getUint8(at) >> 4 !== 6) return "ip-header";
    let length = view.getUint16(at + 4);
    if (length === 0 && this.segmentSize > 0) length = room - IPV6_HEADER;
    if (length + IPV6_HEADER > room) return "ip-header";
    this.family = 16;
    this.hopLimit = view.getUint8(at + 7);
    this.sourceAt = at + 8;
    this.destinationAt = at + 24;
    this.ipEnd = at + IPV6_HEADER + length;
    let next = view.getUint8(at + 6);
    let header = at + IPV6_HEADER;
    for (let n = 0; ; n++) {
      const isExtension =
        next === IpProtocol.HOP_BY_HOP || next === IpProtocol.ROUTING || next === IpProtocol.DESTINATION_OPTIONS;
      if (!isExtension && (next !== IpProtocol.FRAGMENT || this.isFragment)) break;
      if (n === MAX_EXTENSIONS || header + 8 > this.ipEnd) return "ip-header";
      if (next === IpProtocol.HOP_BY_HOP && n > 0) return "ip-header";
      // RFC 5095: routing type 0 with segments left is refused; so is every other that wants to go on from here
      if (next === IpProtocol.ROUTING && view.getUint8(header + 3) !== 0) return "ip-option";
      if (next === IpProtocol.FRAGMENT) {
        const fragment = view.getUint16(header + 2);
        this.identification = view.getUint32(header + 4);
        this.fragmentOffset = fragment & 0xfff8;
        this.moreFragments = (fragment & 1) !== 0;
        next = view.getUint8(header);
        header += FRAGMENT_HEADER;
        if (this.fragmentOffset > 0 || this.moreFragments) {
          this.isFragment = true;
          break; // what follows is in the first fragment only
        }
        continue; // RFC 6946: an atomic fragment is a whole packet
      }
      const bytes = (view.getUint8(header + 1) + 1) * 8;
      next = view.getUint8(header);
      header += bytes;
      if (header > this.ipEnd) return "ip-header";
    }
    this.protocol = next;
    this.payloadAt = header;
    return undefined;
  }
}
