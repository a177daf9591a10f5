/** VSTOR packets for people: what a trace shows. Takes any bytes. */
import { readU16, readU32 } from "../../vmbus/byte-order.js";
import { At, CDB_BYTES, Direction, Operation, PACKET_BYTES, SENSE_BYTES } from "./protocol.js";
import { be16, be32, blocksOf, commandName, lbaOf, Opcode } from "./scsi.js";

const OPERATIONS = new Map<number, string>([
  [Operation.completeIo, "COMPLETE_IO"],
  [Operation.removeDevice, "REMOVE_DEVICE"],
  [Operation.executeSrb, "EXECUTE_SRB"],
  [Operation.resetLun, "RESET_LUN"],
  [Operation.resetAdapter, "RESET_ADAPTER"],
  [Operation.resetBus, "RESET_BUS"],
  [Operation.beginInitialization, "BEGIN_INITIALIZATION"],
  [Operation.endInitialization, "END_INITIALIZATION"],
  [Operation.queryProtocolVersion, "QUERY_PROTOCOL_VERSION"],
  [Operation.queryProperties, "QUERY_PROPERTIES"],
  [Operation.enumerateBus, "ENUMERATE_BUS"],
  [Operation.fchbaData, "FCHBA_DATA"],
  [Operation.createSubChannels, "CREATE_SUB_CHANNELS"],
  [Operation.eventNotification, "EVENT_NOTIFICATION"],
]);
const DIRECTIONS = new Map<number, string>([
  [Direction.toDevice, "write"],
  [Direction.fromDevice, "read"],
  [Direction.none, "none"],
]);
/** Commands whose CDB has an address and a number of blocks. */
const ADDRESSED = new Set<number>([
  Opcode.read6,
  Opcode.read10,
  Opcode.read12,
  Opcode.read16,
  Opcode.write6,
  Opcode.write10,
  Opcode.write12,
  Opcode.write16,
  Opcode.verify10,
  Opcode.verify16,
  Opcode.writeSame10,
  Opcode.writeSame16,
  Opcode.synchronizeCache10,
  Opcode.synchronizeCache16,
]);

export interface StorageDescription {
  readonly message: string;
  readonly [field: string]: string | number;
}

/**
 * @param payload the packet's payload, or its beginning
 * @param direction "in": from the guest
 */
export function describeStorage(payload: Uint8Array, direction: "in" | "out"): StorageDescription {
  if (payload.length < 4) return { message: "too short", bytes: payload.length };
  const operation = readU32(payload, At.operation);
  const message = OPERATIONS.get(operation) ?? `operation ${operation}`;
  if (payload.length < PACKET_BYTES) return { message, bytes: payload.length };
  if (direction === "out") return operation === Operation.completeIo ? completion(payload, message) : { message };
  switch (operation) {
    case Operation.executeSrb:
      return { message, ...address(payload), ...command(payload) };
    case Operation.resetLun:
      return { message, ...address(payload) };
    case Operation.queryProtocolVersion: {
      const version = readU16(payload, At.version);
      return { message, version: `${version >>> 8}.${version & 0xff}` };
    }
    case Operation.createSubChannels:
      return { message, count: readU16(payload, At.subChannelCount) };
    default:
      return { message };
  }
}

function address(payload: Uint8Array): Record<string, number> {
  const lun = payload[At.lun]!;
  const path = payload[At.path]!;
  const target = payload[At.target]!;
  return path === 0 && target === 0 ? { lun } : { path, target, lun };
}

function command(payload: Uint8Array): Record<string, string | number> {
  const cdb = payload.subarray(At.cdb, At.cdb + CDB_BYTES);
  const direction = payload[At.direction]!;
  const fields: Record<string, string | number> = { command: commandName(cdb) };
  if (ADDRESSED.has(cdb[0]!)) {
    // As JSON has no infinity.
    const lba = lbaOf(cdb);
    fields.lba = Number.isFinite(lba) ? lba : "beyond 2^53";
    fields.blocks = blocksOf(cdb);
  } else if (cdb[0] === Opcode.inquiry) {
    if ((cdb[1]! & 1) !== 0) fields.page = cdb[2]!;
    fields.allocation = be16(cdb, 3);
  } else if (cdb[0] === Opcode.modeSense6 || cdb[0] === Opcode.modeSense10) {
    fields.page = cdb[2]! & 0x3f;
  } else if (cdb[0] === Opcode.reportLuns) {
    fields.allocation = be32(cdb, 6);
  }
  fields.direction = DIRECTIONS.get(direction) ?? `direction ${direction}`;
  fields.bytes = readU32(payload, At.transferLength);
  return fields;
}

/** A completion does not say what it completes: an SRB's is told from the others by its structure length. */
function completion(payload: Uint8Array, message: string): StorageDescription {
  const status = `0x${readU32(payload, At.status).toString(16).padStart(8, "0")}`;
  if (payload[At.srbStatus] === 0) return { message, status };
  const fields: Record<string, string | number> = {
    status,
    ...address(payload),
    srb: `0x${payload[At.srbStatus]!.toString(16).padStart(2, "0")}`,
    scsi: payload[At.scsiStatus]!,
    bytes: readU32(payload, At.transferLength),
  };
  const length = Math.min(payload[At.senseLength]!, SENSE_BYTES);
  if (length >= 14) {
    const sense = payload.subarray(At.cdb, At.cdb + SENSE_BYTES);
    fields.sense = [sense[2]! & 0xf, sense[12]!, sense[13]!].map((n) => n.toString(16).padStart(2, "0")).join("/");
  }
  return { message, ...fields };
}
