/**
 * NVSP: the messages between a guest's network driver (Linux hv_netvsc, FreeBSD hn) and the host, as those drivers lay them out. They
 * agree on a version, lend buffers, and wrap RNDIS, which carries frames and control.
 */

/** Class of network adapters. */
export const NETWORK_CLASS = "f8615163-df3e-46c5-913f-f2d2f965ed0e";

/** Bytes of a message of ours: Linux looks at no more than 40, and at no fewer than 28 of some. */
export const MESSAGE_BYTES = 40;
/** Bytes of RNDIS_PACKET_COMPLETE. */
export const PACKET_COMPLETE_BYTES = 8;

export const NvspType = {
  init: 1,
  initComplete: 2,
  sendNdisVersion: 100,
  sendReceiveBuffer: 101,
  receiveBufferComplete: 102,
  revokeReceiveBuffer: 103,
  sendSendBuffer: 104,
  sendBufferComplete: 105,
  revokeSendBuffer: 106,
  rndisPacket: 107,
  rndisPacketComplete: 108,
  sendNdisConfig: 125,
  vfAssociation: 128,
  switchDataPath: 129,
  subChannel: 133,
  sendIndirectionTable: 134,
} as const;

/** Success is not 0. */
export const NvspStatus = {
  success: 1,
  failure: 2,
  versionTooNew: 3,
  versionTooOld: 4,
  invalidRndisPacket: 5,
  busy: 6,
} as const;

export const NvspVersion = {
  v1: 0x00002,
  v2: 0x30002,
  v4: 0x40000,
  v5: 0x50000,
  v6: 0x60000,
  v61: 0x60001,
} as const;
/** Newest first. */
export const VERSIONS: readonly number[] = [
  NvspVersion.v61,
  NvspVersion.v6,
  NvspVersion.v5,
  NvspVersion.v4,
  NvspVersion.v2,
  NvspVersion.v1,
];
export const versionName = (version: number): string =>
  ({ 2: "1", 196610: "2", 262144: "4", 327680: "5", 393216: "6", 393217: "6.1" })[version] ?? "none";

/** Offsets from the message's first byte. */
export const At = {
  type: 0,
  /** INIT. */
  minVersion: 4,
  maxVersion: 8,
  /** INIT_COMPLETE. */
  negotiatedVersion: 4,
  maxMdlChain: 8,
  initStatus: 12,
  /** SEND_NDIS_VERSION. */
  ndisMajor: 4,
  ndisMinor: 8,
  /** SEND_RECEIVE_BUFFER, SEND_SEND_BUFFER. */
  gpadl: 4,
  bufferId: 8,
  /** RECEIVE_BUFFER_COMPLETE. */
  status: 4,
  sectionCount: 8,
  sectionOffset: 12,
  subAllocationSize: 16,
  subAllocationCount: 20,
  sectionEnd: 24,
  /** SEND_BUFFER_COMPLETE. */
  sectionSize: 8,
  /** REVOKE_RECEIVE_BUFFER, REVOKE_SEND_BUFFER. */
  revokedId: 4,
  /** RNDIS_PACKET. */
  channelType: 4,
  sectionIndex: 8,
  sectionUsed: 12,
  /** SEND_NDIS_CONFIG. */
  mtu: 4,
  capabilities: 12,
  /** SUBCHANNEL and its completion. */
  operation: 4,
  requested: 8,
  granted: 8,
  /** SEND_INDIRECTION_TABLE. */
  tableCount: 4,
  tableOffset: 8,
} as const;

export const ChannelType = { data: 0, control: 1 } as const;
/** No section of the send buffer: all of the message is in the packet's pages. */
export const NO_SECTION = 0xffff_ffff;
/** Bytes of a section of the send buffer, what real hosts say. */
export const SEND_SECTION_BYTES = 6144;
export const MAX_MDL_CHAIN = 34;
export const SUBCHANNEL_ALLOCATE = 1;

/** NDIS_CONFIG, low word of the capability bits. */
export const ConfigCapability = { vlan8021q: 1 << 3, sriov: 1 << 2, teaming: 1 << 5, rsc: 1 << 7 } as const;
/** What NDIS_CONFIG may ask for, with the 14 bytes of the Ethernet header; anything else counts as the smallest. */
export const MIN_CONFIG_MTU = 1514;
export const MAX_CONFIG_MTU = 9216;

/** The indirection table for the guest's transmissions: Linux ignores another size, and looks at offset 40 below 6.1. */
export const SEND_TABLE_ENTRIES = 16;
export const SEND_TABLE_OFFSET = 40;
