/**
 * SCSI as a target needs it: operation codes, sense data, and the fields of command descriptor blocks (SPC-4, SBC-3, MMC-6).
 * Numbers in CDBs and data are big-endian.
 */

export const Opcode = {
  testUnitReady: 0x00,
  requestSense: 0x03,
  read6: 0x08,
  write6: 0x0a,
  inquiry: 0x12,
  modeSelect6: 0x15,
  modeSense6: 0x1a,
  startStopUnit: 0x1b,
  sendDiagnostic: 0x1d,
  preventAllow: 0x1e,
  readCapacity10: 0x25,
  read10: 0x28,
  write10: 0x2a,
  seek10: 0x2b,
  verify10: 0x2f,
  synchronizeCache10: 0x35,
  writeSame10: 0x41,
  unmap: 0x42,
  readToc: 0x43,
  getConfiguration: 0x46,
  getEventStatus: 0x4a,
  readDiscInformation: 0x51,
  readTrackInformation: 0x52,
  modeSelect10: 0x55,
  modeSense10: 0x5a,
  read16: 0x88,
  write16: 0x8a,
  verify16: 0x8f,
  synchronizeCache16: 0x91,
  writeSame16: 0x93,
  serviceActionIn16: 0x9e,
  reportLuns: 0xa0,
  read12: 0xa8,
  write12: 0xaa,
  getPerformance: 0xac,
  readDvdStructure: 0xad,
  setStreaming: 0xb6,
  setCdSpeed: 0xbb,
  mechanismStatus: 0xbd,
} as const;

/** SERVICE ACTION IN(16): READ CAPACITY(16). */
export const READ_CAPACITY_16 = 0x10;

const NAMES = new Map<number, string>([
  [Opcode.testUnitReady, "TEST UNIT READY"],
  [Opcode.requestSense, "REQUEST SENSE"],
  [Opcode.read6, "READ(6)"],
  [Opcode.write6, "WRITE(6)"],
  [Opcode.inquiry, "INQUIRY"],
  [Opcode.modeSelect6, "MODE SELECT(6)"],
  [Opcode.modeSense6, "MODE SENSE(6)"],
  [Opcode.startStopUnit, "START STOP UNIT"],
  [Opcode.sendDiagnostic, "SEND DIAGNOSTIC"],
  [Opcode.preventAllow, "PREVENT ALLOW MEDIUM REMOVAL"],
  [Opcode.readCapacity10, "READ CAPACITY(10)"],
  [Opcode.read10, "READ(10)"],
  [Opcode.write10, "WRITE(10)"],
  [Opcode.seek10, "SEEK(10)"],
  [Opcode.verify10, "VERIFY(10)"],
  [Opcode.synchronizeCache10, "SYNCHRONIZE CACHE(10)"],
  [Opcode.writeSame10, "WRITE SAME(10)"],
  [Opcode.unmap, "UNMAP"],
  [Opcode.readToc, "READ TOC"],
  [Opcode.getConfiguration, "GET CONFIGURATION"],
  [Opcode.getEventStatus, "GET EVENT STATUS NOTIFICATION"],
  [Opcode.readDiscInformation, "READ DISC INFORMATION"],
  [Opcode.readTrackInformation, "READ TRACK INFORMATION"],
  [Opcode.modeSelect10, "MODE SELECT(10)"],
  [Opcode.modeSense10, "MODE SENSE(10)"],
  [Opcode.read16, "READ(16)"],
  [Opcode.write16, "WRITE(16)"],
  [Opcode.verify16, "VERIFY(16)"],
  [Opcode.synchronizeCache16, "SYNCHRONIZE CACHE(16)"],
  [Opcode.writeSame16, "WRITE SAME(16)"],
  [Opcode.serviceActionIn16, "SERVICE ACTION IN(16)"],
  [Opcode.reportLuns, "REPORT LUNS"],
  [Opcode.read12, "READ(12)"],
  [Opcode.write12, "WRITE(12)"],
  [Opcode.getPerformance, "GET PERFORMANCE"],
  [Opcode.readDvdStructure, "READ DVD STRUCTURE"],
  [Opcode.setStreaming, "SET STREAMING"],
  [Opcode.setCdSpeed, "SET CD SPEED"],
  [Opcode.mechanismStatus, "MECHANISM STATUS"],
]);

/** The command's name, for people. */
export function commandName(cdb: Uint8Array, at = 0): string {
  const opcode = cdb[at]!;
  if (opcode === Opcode.serviceActionIn16 && (cdb[at + 1]! & 0x1f) === READ_CAPACITY_16) return "READ CAPACITY(16)";
  return NAMES.get(opcode) ?? `opcode 0x${opcode.toString(16).padStart(2, "0")}`;
}

/** Key << 16 | additional code << 8 | qualifier (SPC-4, "Sense key and additional sense code definitions"). */
export const Sense = {
  none: 0,
  mediumNotPresentClosed: 0x02_3a_01,
  mediumNotPresentOpen: 0x02_3a_02,
  writeError: 0x03_0c_00,
  unrecoveredReadError: 0x03_11_00,
  parameterListLength: 0x05_1a_00,
  invalidOpcode: 0x05_20_00,
  lbaOutOfRange: 0x05_21_00,
  invalidFieldInCdb: 0x05_24_00,
  invalidFieldInParameters: 0x05_26_00,
  savingNotSupported: 0x05_39_00,
  removalPrevented: 0x05_53_02,
  mediumChanged: 0x06_28_00,
  reset: 0x06_29_00,
  capacityChanged: 0x06_2a_09,
  writeProtected: 0x07_27_00,
  /** Linux makes ENOSPC of it ("thin provisioning hard threshold"); a write error would become EIO. */
  spaceAllocationFailed: 0x07_27_07,
} as const;

export const SENSE_DATA_BYTES = 18;

/** Fixed format sense data (SPC-4, "Fixed format sense data"): 18 bytes. */
export function writeSense(into: Uint8Array, at: number, sense: number): void {
  into.fill(0, at, at + SENSE_DATA_BYTES);
  into[at] = 0x70;
  into[at + 2] = (sense >>> 16) & 0xf;
  into[at + 7] = SENSE_DATA_BYTES - 8;
  into[at + 12] = sense >>> 8;
  into[at + 13] = sense;
}

/** Length of a CDB by its group, the top three bits of the operation code (SPC-4, "Operation code"); 0 = not defined. */
export function cdbLengthOf(opcode: number): number {
  return GROUP_LENGTH[opcode >>> 5]!;
}
const GROUP_LENGTH = [6, 10, 10, 0, 16, 12, 0, 0] as const;

export function be16(b: Uint8Array, at: number): number {
  return (b[at]! << 8) | b[at + 1]!;
}
export function be32(b: Uint8Array, at: number): number {
  return ((b[at]! << 24) | (b[at + 1]! << 16) | (b[at + 2]! << 8) | b[at + 3]!) >>> 0;
}
/** A number beyond 2^53 comes out as infinity: no disk is that large, so every comparison with a size does the right thing. */
export function be64(b: Uint8Array, at: number): number {
  const high = be32(b, at);
  return high < 0x20_0000 ? high * 0x1_0000_0000 + be32(b, at + 4) : Number.POSITIVE_INFINITY;
}
export function putBe16(b: Uint8Array, at: number, value: number): void {
  b[at] = value >>> 8;
  b[at + 1] = value;
}
export function putBe32(b: Uint8Array, at: number, value: number): void {
  b[at] = value >>> 24;
  b[at + 1] = value >>> 16;
  b[at + 2] = value >>> 8;
  b[at + 3] = value;
}
export function putBe64(b: Uint8Array, at: number, value: number): void {
  putBe32(b, at, Math.floor(value / 0x1_0000_0000));
  putBe32(b, at + 4, value % 0x1_0000_0000);
}

/** First block of a READ, WRITE, VERIFY, WRITE SAME or SYNCHRONIZE CACHE. */
export function lbaOf(cdb: Uint8Array, at = 0): number {
  switch (cdb[at]! >>> 5) {
    case 0:
      return ((cdb[at + 1]! & 0x1f) << 16) | be16(cdb, at + 2);
    case 4:
      return be64(cdb, at + 2);
    default:
      return be32(cdb, at + 2);
  }
}
/** Its number of blocks. READ(6) and WRITE(6) count 256 as 0 (SBC-3, "READ (6) command"). */
export function blocksOf(cdb: Uint8Array, at = 0): number {
  switch (cdb[at]! >>> 5) {
    case 0:
      return cdb[at + 4]! || 256;
    case 4:
      return be32(cdb, at + 10);
    case 5:
      return be32(cdb, at + 6);
    default:
      return be16(cdb, at + 7);
  }
}
