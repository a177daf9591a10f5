/**
 * One request of the guest, from its packet to its completion. The objects are used again, so that a read or write allocates
 * nothing; an object is its target's from `execute` until `end`, once.
 */
import type { GuestMemory } from "../../machine/guest-memory.js";
import { readU32, writeU16, writeU32 } from "../../vmbus/byte-order.js";
import type { InboundPacket } from "../../vmbus/device.js";
import { GpaRanges } from "../../vmbus/gpa-ranges.js";
import {
  At,
  AUTOSENSE_VALID,
  CDB_BYTES,
  Direction,
  NtStatus,
  Operation,
  PACKET_BYTES,
  ScsiStatus,
  SENSE_BYTES,
  SRB_BYTES,
  SrbStatus,
} from "./protocol.js";
import { SENSE_DATA_BYTES, writeSense } from "./scsi.js";
import type { ScsiTarget } from "./target.js";

/** A target at its LUN, with what is under way for it. */
export interface Slot {
  readonly target: ScsiTarget;
  inFlight: number;
  /** It was removed: called when nothing is under way any more. */
  released: (() => void) | undefined;
}

/** Who takes finished requests. */
export interface RequestOwner {
  ended(request: StorageRequest): void;
}

export class StorageRequest {
  transactionLow = 0;
  transactionHigh = 0;
  /** Length of the guest's payload. The completion's is the same, up to a packet: Linux drops a shorter one. */
  payloadLength = 0;
  /** Whose LUN it is under way for; the controller's. */
  slot: Slot | undefined = undefined;
  /** Its channel has been closed: nothing of the guest's memory may be touched for it any more. */
  cancelled = false;
  direction: number = Direction.none;
  /** Bytes that the guest says it gives or takes. */
  transferLength = 0;
  cdbLength = 0;
  readonly cdb = new Uint8Array(CDB_BYTES);
  /** The guest's buffer: the packet's list, valid during `execute`; see `keepRanges`. */
  ranges: GpaRanges;
  /** The completion's payload. */
  readonly reply = new Uint8Array(PACKET_BYTES);
  /** Room in the completion for sense data, as the guest says. */
  senseCapacity = 0;
  readonly memory: GuestMemory;
  readonly #owner: RequestOwner;
  readonly #own = new GpaRanges();
  #source: Uint8Array = this.cdb;
  #sourceAt = 0;
  readonly #toGuest = (gpa: number, length: number): void => {
    this.memory.write(gpa, this.#source, this.#sourceAt, length);
    this.#sourceAt += length;
  };
  readonly #fromGuest = (gpa: number, length: number): void => {
    this.memory.read(gpa, this.#source, this.#sourceAt, length);
    this.#sourceAt += length;
  };

  constructor(owner: RequestOwner, memory: GuestMemory) {
    this.#owner = owner;
    this.memory = memory;
    this.ranges = this.#own;
  }

  /** Begins with a packet: whose it is, and a completion that says success and nothing more. */
  begin(packet: InboundPacket): void {
    this.transactionLow = packet.transactionLow;
    this.transactionHigh = packet.transactionHigh;
    this.payloadLength = Math.min(packet.payloadLength, PACKET_BYTES);
    this.slot = undefined;
    this.reply.fill(0);
    this.reply[At.operation] = Operation.completeIo;
  }
  /** Takes what an SRB asks; the packet has a whole one. */
  beginSrb(payload: Uint8Array, ranges: GpaRanges): void {
    this.cdbLength = payload[At.cdbLength]!;
    this.senseCapacity = Math.min(payload[At.senseLength]!, SENSE_BYTES);
    this.direction = payload[At.direction]!;
    this.transferLength = readU32(payload, At.transferLength);
    for (let i = 0; i < CDB_BYTES; i++) this.cdb[i] = payload[At.cdb + i]!;
    for (let i = At.path; i <= At.lun; i++) this.reply[i] = payload[i]!;
    writeU16(this.reply, At.srbLength, SRB_BYTES);
    this.ranges = ranges;
    // FreeBSD leaves the length alone where there is no data.
    if (this.direction === Direction.none) this.transferLength = 0;
  }
  /** The packet's list dies with the packet: keeps a copy, for a request that has to wait. */
  keepRanges(): void {
    const from = this.ranges;
    if (from === this.#own) return;
    this.#own.clear();
    for (let r = 0; r < from.count; r++) {
      this.#own.addRange(from.byteCount[r]!, from.byteOffset[r]!);
      for (let p = from.firstPage[r]!; p < from.firstPage[r + 1]!; p++) this.#own.addPage(from.pages[p]!);
    }
    this.ranges = this.#own;
  }
  /** Whether the guest gives or takes at least this many bytes, in this direction. */
  carries(direction: number, length: number): boolean {
    return length === 0 || (this.direction === direction && this.transferLength >= length);
  }
  /** Copies the guest's data out. Only what `carries` has allowed. */
  dataOut(into: Uint8Array, length: number): void {
    this.#source = into;
    this.#sourceAt = 0;
    this.ranges.forEachPiece(this.#fromGuest, 0, length);
  }

  /** Good, with data for the guest: as much of it as the command allows and the guest takes. */
  goodWithData(data: Uint8Array, allocationLength: number): void {
    let length = Math.min(data.length, allocationLength);
    if (length > 0 && this.direction !== Direction.fromDevice) {
      this.invalid();
      return;
    }
    length = Math.min(length, this.transferLength);
    this.#source = data;
    this.#sourceAt = 0;
    if (length > 0) this.ranges.forEachPiece(this.#toGuest, 0, length);
    this.good(length);
  }
  /** Good; `transferred` bytes were moved. */
  good(transferred = 0): void {
    this.#end(NtStatus.success, SrbStatus.success, ScsiStatus.good, transferred);
  }
  /**
   * CHECK CONDITION. Nothing counts as transferred: Linux makes a success of every INQUIRY and MODE SENSE, and would take
   * whatever its buffer holds for an answer.
   */
  check(sense: number): void {
    const length = Math.min(this.senseCapacity, SENSE_DATA_BYTES);
    if (length > 0) {
      writeSense(this.reply, At.cdb, sense);
      this.reply.fill(0, At.cdb + length, At.cdb + SENSE_BYTES);
      this.reply[At.senseLength] = length;
    }
    const srb = length > 0 ? SrbStatus.error | AUTOSENSE_VALID : SrbStatus.error;
    this.#end(NtStatus.success, srb, ScsiStatus.checkCondition, 0);
  }
  /** The SRB contradicts itself. */
  invalid(): void {
    this.#end(NtStatus.invalidParameter, SrbStatus.invalidRequest, ScsiStatus.good, 0);
  }
  /** There is nothing at the address. */
  absent(srbStatus: number): void {
    this.#end(NtStatus.success, srbStatus, ScsiStatus.checkCondition, 0);
  }
  /** Given up before it was executed. */
  abort(): void {
    this.#end(NtStatus.success, SrbStatus.aborted, ScsiStatus.good, 0);
  }
  /** The end of a packet that is not an SRB. */
  answer(ntStatus: number): void {
    writeU32(this.reply, At.status, ntStatus);
    this.#owner.ended(this);
  }
  /** An SRB that is not executed at all. */
  refuse(ntStatus: number): void {
    this.#end(ntStatus, SrbStatus.invalidRequest, ScsiStatus.good, 0);
  }

  #end(ntStatus: number, srbStatus: number, scsiStatus: number, transferred: number): void {
    const reply = this.reply;
    writeU32(reply, At.status, ntStatus);
    reply[At.srbStatus] = srbStatus;
    reply[At.scsiStatus] = scsiStatus;
    writeU32(reply, At.transferLength, transferred);
    this.#owner.ended(this);
  }
}
