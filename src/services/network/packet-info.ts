/**
 * Per-packet information of RNDIS PACKET messages: entries of size, type, offset of the value, value. A guest's list is read into
 * one reused object. Our own entries are exactly 16 bytes, since Linux 6.1 loops for ever over one that is not as it expects.
 */
import { readU32, writeU32 } from "../../vmbus/byte-order.js";

export const InfoType = {
  checksum: 0,
  largeSend: 2,
  vlan: 6,
  hashValue: 8,
  /** Internal: parts of a coalesced packet. */
  packetId: 0x8000_0001,
} as const;

/** Checksum information of what a guest sends. */
export const TxChecksum = { ipv4: 1, ipv6: 2, tcp: 4, udp: 8, ipHeader: 0x10 } as const;
/** Of what it receives. */
export const RxChecksum = { tcpOk: 0x08, udpOk: 0x10, ipOk: 0x20, tcpValueInvalid: 0x80 } as const;
/** Flags of a packet id. */
export const Fragment = { subAllocated: 1, first: 2, last: 4 } as const;

const ENTRY_HEADER = 12;
/** Bytes of each of our entries. */
export const ENTRY_BYTES = 16;
/** Entries that a guest may give: there are a dozen types. */
const MAX_ENTRIES = 16;

/** What a guest says of a frame. */
export class PacketInfo {
  /** TxChecksum bits; 0 when there is none. */
  checksum = 0;
  isLargeSend = false;
  /** Bytes of TCP payload of each segment. */
  mss = 0;
  /** Tag control information in the frame's layout; -1: no tag. */
  vlan = -1;

  /** Reads `length` bytes at `at`. @returns false when the list is malformed */
  read(from: Uint8Array, at: number, length: number): boolean {
    this.checksum = 0;
    this.isLargeSend = false;
    this.mss = 0;
    this.vlan = -1;
    const end = at + length;
    for (let entries = 0; at < end; entries++) {
      if (entries === MAX_ENTRIES || end - at < ENTRY_HEADER) return false;
      const size = readU32(from, at);
      const value = readU32(from, at + 8);
      if (size < ENTRY_HEADER || (size & 3) !== 0 || size > end - at || value < ENTRY_HEADER || value > size)
        return false;
      if (!this.#take(readU32(from, at + 4), from, at + value, size - value)) return false;
      at += size;
    }
    return true;
  }
  #take(type: number, from: Uint8Array, at: number, bytes: number): boolean {
    if (type !== InfoType.checksum && type !== InfoType.largeSend && type !== InfoType.vlan) return true;
    if (bytes < 4) return false;
    const value = readU32(from, at);
    if (type === InfoType.checksum) this.checksum = value & 0x1f;
    else if (type === InfoType.vlan) this.vlan = toTag(value);
    else {
      this.isLargeSend = true;
      this.mss = value & 0xfffff;
    }
    return true;
  }
}

/** Writes an entry. @returns where the next one goes */
export function writeInfo(into: Uint8Array, at: number, type: number, value: number): number {
  writeU32(into, at, ENTRY_BYTES);
  writeU32(into, at + 4, type);
  writeU32(into, at + 8, ENTRY_HEADER);
  writeU32(into, at + 12, value);
  return at + ENTRY_BYTES;
}
/** Value of a packet id: version, flags, number. */
export const packetId = (flags: number, id: number): number => (1 | (flags << 8) | (id << 16)) >>> 0;

/** VLAN information (priority in bits 0-2, CFI in 3, id from 4) to the frame's (priority in the highest bits), and back. */
export const toTag = (info: number): number => ((info & 7) << 13) | ((info & 8) << 9) | ((info >>> 4) & 0xfff);
export const fromTag = (tag: number): number => (tag >>> 13) | ((tag & 0x1000) >>> 9) | ((tag & 0xfff) << 4);
