/**
 * VSTOR: the packets between a guest's storage driver (Linux hv_storvsc, FreeBSD storvsc) and the host, as those drivers lay
 * them out. 64 bytes: operation, flags, status, then a union; most of them carry a SCSI request block (SRB) in it.
 */

/** Class of SCSI controllers. */
export const SCSI_CLASS = "ba6163d9-04a1-4d29-b605-72e2ffb1dc7f";

/** Bytes of a packet since version 5.1. Linux loses its place in the ring over a longer completion. */
export const PACKET_BYTES = 64;

export const Operation = {
  completeIo: 1,
  removeDevice: 2,
  executeSrb: 3,
  resetLun: 4,
  resetAdapter: 5,
  resetBus: 6,
  beginInitialization: 7,
  endInitialization: 8,
  queryProtocolVersion: 9,
  queryProperties: 10,
  enumerateBus: 11,
  fchbaData: 12,
  createSubChannels: 13,
  eventNotification: 14,
} as const;

/** Offsets from the packet's first byte. */
export const At = {
  operation: 0,
  flags: 4,
  status: 8,
  /** QUERY_PROTOCOL_VERSION: u16. */
  version: 12,
  /** QUERY_PROPERTIES. */
  maxSubChannels: 16,
  propertyFlags: 20,
  maxTransferBytes: 24,
  /** CREATE_SUB_CHANNELS: u16. */
  subChannelCount: 12,
  srbLength: 12,
  srbStatus: 14,
  scsiStatus: 15,
  path: 17,
  target: 18,
  lun: 19,
  cdbLength: 20,
  senseLength: 21,
  direction: 22,
  transferLength: 24,
  /** CDB in the request, sense data in the completion. */
  cdb: 28,
} as const;

/** Places for the CDB; 16 are used. */
export const CDB_BYTES = 16;
/** Places for sense data. */
export const SENSE_BYTES = 20;
/** Length of the SRB since version 5.1, for its first field. */
export const SRB_BYTES = 0x34;

/** Versions that we speak, newest first: all with 64-byte packets. Windows 10/2016, 8.1/2012 R2, 8/2012. */
export const VERSIONS: readonly number[] = [0x0602, 0x0600, 0x0501];
/** Largest transfer that the properties tell. */
export const MAX_TRANSFER_BYTES = 0x40000;
/** Property flag. */
export const MULTI_CHANNEL = 1;

export const Direction = { toDevice: 0, fromDevice: 1, none: 2 } as const;

/** SRB status; the low six bits. */
export const SrbStatus = {
  success: 0x01,
  aborted: 0x02,
  error: 0x04,
  invalidRequest: 0x06,
  invalidLun: 0x20,
  invalidTarget: 0x21,
} as const;
/** With sense data in the completion. */
export const AUTOSENSE_VALID = 0x80;

export const ScsiStatus = { good: 0, checkCondition: 2 } as const;

export const NtStatus = {
  success: 0,
  invalidParameter: 0xc000000d,
  invalidDeviceRequest: 0xc0000010,
  revisionMismatch: 0xc0000059,
  invalidDeviceState: 0xc0000184,
} as const;

/** LUNs of a controller: path 0, target 0. */
export const LUNS = 64;
