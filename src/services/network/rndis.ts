/**
 * RNDIS: messages that carry frames, and requests for what an adapter is and does (Linux `rndis.h`, FreeBSD `sys/net/rndis.h`). Each
 * begins with type and length; offsets inside are relative to byte 8.
 */
import { u32 } from "../../vmbus/layout.js";
import { structure } from "./wire.js";

export const RndisType = {
  packet: 1,
  initialize: 2,
  halt: 3,
  query: 4,
  set: 5,
  reset: 6,
  indicateStatus: 7,
  keepalive: 8,
} as const;
/** In the type of an answer. */
export const COMPLETE = 0x8000_0000;

export const RndisStatus = {
  success: 0,
  failure: 0xc000_0001,
  notSupported: 0xc000_00bb,
  invalidData: 0xc001_0015,
  invalidLength: 0xc001_0014,
} as const;

/** Of INDICATE_STATUS. */
export const Indication = {
  mediaConnect: 0x4001_000b,
  mediaDisconnect: 0x4001_000c,
  linkSpeedChange: 0x4001_0013,
  networkChange: 0x4001_0018,
} as const;

/** Type and length. */
export const HEADER_BYTES = 8;
/** Requests with an information buffer: it may follow here. */
export const REQUEST_BYTES = 28;
/** What offsets are relative to. */
export const OFFSET_BASE = 8;

export const Request = structure("RNDIS QUERY and SET", REQUEST_BYTES, {
  type: u32(0),
  length: u32(4),
  requestId: u32(8),
  oid: u32(12),
  informationLength: u32(16),
  informationOffset: u32(20),
  deviceVc: u32(24),
});
export const InitializeRequest = structure("RNDIS INITIALIZE", 24, {
  type: u32(0),
  length: u32(4),
  requestId: u32(8),
  major: u32(12),
  minor: u32(16),
  maxTransferBytes: u32(20),
});
export const InitializeComplete = structure("RNDIS INITIALIZE complete", 52, {
  type: u32(0),
  length: u32(4),
  requestId: u32(8),
  status: u32(12),
  major: u32(16),
  minor: u32(20),
  deviceFlags: u32(24),
  medium: u32(28),
  maxPacketsPerMessage: u32(32),
  maxTransferBytes: u32(36),
  packetAlignmentFactor: u32(40),
  afListOffset: u32(44),
  afListSize: u32(48),
});
export const QueryComplete = structure("RNDIS QUERY complete", 24, {
  type: u32(0),
  length: u32(4),
  requestId: u32(8),
  status: u32(12),
  informationLength: u32(16),
  informationOffset: u32(20),
});
/** Of SET and KEEPALIVE. */
export const StatusComplete = structure("RNDIS SET complete", 16, {
  type: u32(0),
  length: u32(4),
  requestId: u32(8),
  status: u32(12),
});
export const ResetComplete = structure("RNDIS RESET complete", 16, {
  type: u32(0),
  length: u32(4),
  status: u32(8),
  addressingReset: u32(12),
});
export const IndicateStatus = structure("RNDIS INDICATE_STATUS", 20, {
  type: u32(0),
  length: u32(4),
  status: u32(8),
  bufferLength: u32(12),
  bufferOffset: u32(16),
});
/** Offset of data right behind a QUERY completion. Linux takes a smaller one for a failure, even where there is no data. */
export const QUERY_DATA_OFFSET = QueryComplete.size - OFFSET_BASE;

/** Offsets in a PACKET message. */
export const PacketAt = {
  type: 0,
  length: 4,
  dataOffset: 8,
  dataLength: 12,
  infoOffset: 28,
  infoLength: 32,
} as const;
/** Bytes before the per-packet information. */
export const PACKET_HEADER_BYTES = 44;

/** What we announce: messages are aligned to 8 bytes, and so many may be together. */
export const PACKET_ALIGNMENT_FACTOR = 3;
export const MAX_PACKETS_PER_MESSAGE = 8;
/** Bytes of one transmission at most, all RNDIS messages of it. A long segment has 64 KiB. */
export const MAX_TRANSFER_BYTES = 0x20000;
