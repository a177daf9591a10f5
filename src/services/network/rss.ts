/** Receive-side scaling: which channel a frame goes to (NDIS, "RSS"). The guest gives a key and a table of channels. */

import { IpProtocol } from "../../net/packet.js";
import { readU32 } from "../../vmbus/byte-order.js";
import { u8, u16, u32 } from "../../vmbus/layout.js";
import type { FrameHeaders } from "./frame.js";
import { RndisStatus } from "./rndis.js";
import { KEY_BYTES, Toeplitz } from "./toeplitz.js";
import { structure } from "./wire.js";

const RSS_CAPABILITIES = 0x88;
const RSS_PARAMETERS = 0x89;
/** Capability flags: the Toeplitz function, and TCP over IPv4, IPv6, and IPv6 with extension headers. */
const CAPABILITIES = 0x1 | 0x100 | 0x200 | 0x400;
/** Entries that we offer. FreeBSD takes no more. */
const TABLE_ENTRIES = 128;
/** Entries that a guest may give: Linux takes up to so many from other hosts. */
const MAX_TABLE_ENTRIES = 256;

export const ParameterFlag = {
  tableUnchanged: 2,
  keyUnchanged: 8,
  disable: 0x10,
} as const;
export const HashType = { ipv4: 0x100, tcpIpv4: 0x200, ipv6: 0x400, tcpIpv6: 0x1000 } as const;

export const RssCapabilities = structure("NDIS_RECEIVE_SCALE_CAPABILITIES", 18, {
  type: u8(0),
  revision: u8(1),
  size: u16(2),
  flags: u32(4),
  interruptMessages: u32(8),
  receiveQueues: u32(12),
  tableEntries: u16(16),
});
export const RssParameters = structure("NDIS_RECEIVE_SCALE_PARAMETERS", 28, {
  type: u8(0),
  revision: u8(1),
  size: u16(2),
  flags: u16(4),
  baseCpu: u16(6),
  hashInfo: u32(8),
  tableBytes: u16(12),
  tableOffset: u32(16),
  keyBytes: u16(20),
  keyOffset: u32(24),
});

/** 18 bytes: Linux takes a longer answer for none. */
export function rssCapabilities(channels: number): Uint8Array {
  const out = new Uint8Array(RssCapabilities.size);
  RssCapabilities.write(out, 0, {
    type: RSS_CAPABILITIES,
    revision: 2,
    size: RssCapabilities.size,
    flags: CAPABILITIES,
    interruptMessages: channels,
    receiveQueues: channels,
    tableEntries: TABLE_ENTRIES,
  });
  return out;
}

/** Plain data. */
export interface SavedRss {
  readonly enabled: boolean;
  readonly hashInfo: number;
  readonly key: Uint8Array;
  readonly table: readonly number[];
}

export class ReceiveScaling {
  enabled = false;
  hashInfo = 0;
  readonly toeplitz = new Toeplitz();
  #table: number[] = [];
  /** Of the last frame: its hash. */
  hash = 0;
  /** Of the last frame: the hash is over addresses and ports. */
  isFlowHash = false;

  get table(): readonly number[] {
    return this.#table;
  }
  reset(): void {
    this.enabled = false;
    this.hashInfo = 0;
    this.#table = [];
  }
  /** SET of the parameters. @returns RndisStatus */
  set(information: Uint8Array, channels: number): number {
    if (information.length < RssParameters.size) return RndisStatus.invalidLength;
    const p = RssParameters.read(information);
    if (p.type !== RSS_PARAMETERS) return RndisStatus.invalidData;
    if ((p.flags & ParameterFlag.disable) !== 0) {
      this.enabled = false;
      return RndisStatus.success;
    }
    // Both are checked before either is used.
    const keyKept = (p.flags & ParameterFlag.keyUnchanged) !== 0;
    const tableKept = (p.flags & ParameterFlag.tableUnchanged) !== 0;
    const entries = p.tableBytes >>> 2;
    if (!keyKept && (p.keyBytes !== KEY_BYTES || p.keyOffset + KEY_BYTES > information.length))
      return RndisStatus.invalidData;
    if (!tableKept) {
      if (entries === 0 || entries > MAX_TABLE_ENTRIES || p.tableOffset + entries * 4 > information.length)
        return RndisStatus.invalidData;
      for (let i = 0; i < entries; i++)
        if (readU32(information, p.tableOffset + i * 4) >= channels) return RndisStatus.invalidData;
      this.#table = Array.from({ length: entries }, (_, i) => readU32(information, p.tableOffset + i * 4));
    }
    if (!keyKept) this.toeplitz.setKey(information.subarray(p.keyOffset, p.keyOffset + KEY_BYTES));
    this.hashInfo = p.hashInfo;
    this.enabled = this.#table.length > 0;
    return RndisStatus.success;
  }
  /** The channel for a frame whose headers were found. */
  channelOf(bytes: Uint8Array, headers: FrameHeaders): number {
    this.hash = 0;
    this.isFlowHash = false;
    if (!this.enabled || headers.version === 0) return 0;
    const isV4 = headers.version === 4;
    const flow = isV4 ? HashType.tcpIpv4 : HashType.tcpIpv6;
    const isFlow = headers.protocol === IpProtocol.TCP && (this.hashInfo & flow) !== 0;
    if (!isFlow && (this.hashInfo & (isV4 ? HashType.ipv4 : HashType.ipv6)) === 0) return 0;
    const addresses = isV4 ? 8 : 32;
    let hash = this.toeplitz.add(bytes, headers.ip + (isV4 ? 12 : 8), addresses);
    if (isFlow) hash = this.toeplitz.add(bytes, headers.transport, 4, addresses, hash);
    this.hash = hash;
    this.isFlowHash = isFlow;
    return this.#table[hash % this.#table.length]!;
  }
  save(): SavedRss {
    return {
      enabled: this.enabled,
      hashInfo: this.hashInfo,
      key: this.toeplitz.key.slice(),
      table: [...this.#table],
    };
  }
  restore(saved: SavedRss): void {
    this.enabled = saved.enabled;
    this.hashInfo = saved.hashInfo;
    this.toeplitz.setKey(saved.key);
    this.#table = [...saved.table];
  }
}
