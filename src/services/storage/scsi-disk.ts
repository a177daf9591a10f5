/** A direct access block device (SBC-3) over a `Disk`. */
import { type Disk, DiskStatus } from "../../disk/disk.js";
import { DeviceType, type InquiryFacts, inquiry, MAX_UNMAP_DESCRIPTORS } from "./inquiry.js";
import { type ModePage, modeListLength, modeSelect, modeSense } from "./mode-pages.js";
import { Direction } from "./protocol.js";
import type { StorageRequest } from "./request.js";
import {
  be16,
  be32,
  be64,
  blocksOf,
  commandName,
  lbaOf,
  Opcode,
  putBe32,
  putBe64,
  READ_CAPACITY_16,
  Sense,
} from "./scsi.js";
import {
  diskFailed,
  newStatistics,
  requestSense,
  type ScsiTarget,
  type TargetHost,
  type TargetState,
  UnitAttentions,
} from "./target.js";
import { Transfer } from "./transfer.js";

/** Largest WRITE SAME: it is done at once when the pattern is not zero. */
const MAX_WRITE_SAME_BYTES = 32 << 20;
/** Patterns are written in pieces of this size. */
const PATTERN_BYTES = 1 << 16;
/** Device-specific parameter of the mode parameter header (SBC-3, "Mode parameters"). */
const WRITE_PROTECT = 0x80;
const DPOFUA = 0x10;
/** In byte 1 of a CDB: protection information, which we do not have; force unit access. */
const PROTECT = 0xe0;
const FUA = 0x08;
const CACHING_PAGE = 0x08;
const CONTROL_PAGE = 0x0a;
const WRITE_CACHE_ENABLE = 0x04;

/** Bytes that are being given back or zeroed: reads and writes of them wait. */
interface BusyRange {
  readonly from: number;
  readonly to: number;
}

export class ScsiDisk implements ScsiTarget {
  readonly statistics = newStatistics();
  readonly #disk: Disk;
  readonly #host: TargetHost;
  readonly #facts: InquiryFacts;
  readonly #attentions = new UnitAttentions();
  readonly #transfer: Transfer;
  readonly #block: number;
  readonly #maxWriteSameBlocks: number;
  #writeCache = true;
  readonly #busy = new Set<BusyRange>();
  /** Requests that wait for a busy range. */
  #waiting: StorageRequest[] = [];

  /** @param identity 12 bytes, the same for this disk at every start */
  constructor(disk: Disk, identity: Uint8Array, host: TargetHost) {
    this.#disk = disk;
    this.#host = host;
    this.#transfer = new Transfer(host.memory);
    this.#block = disk.logicalBlockBytes;
    this.#maxWriteSameBlocks = MAX_WRITE_SAME_BYTES / this.#block;
    this.#facts = {
      type: DeviceType.disk,
      removable: false,
      product: "Virtual Disk",
      identity,
      blocks: {
        logicalBlockBytes: this.#block,
        physicalBlockBytes: disk.physicalBlockBytes,
        canDiscard: disk.canDiscard,
        discardGranularity: disk.discardGranularity,
        maxWriteSameBlocks: this.#maxWriteSameBlocks,
      },
    };
    disk.onResized = () => {
      this.#attentions.add(Sense.capacityChanged);
      host.changed();
    };
  }

  execute(request: StorageRequest): void {
    const opcode = request.cdb[0]!;
    if (
      this.#attentions.any &&
      opcode !== Opcode.inquiry &&
      opcode !== Opcode.reportLuns &&
      opcode !== Opcode.requestSense
    )
      request.check(this.#attentions.take());
    else this.#run(request);
  }
  reset(): void {
    this.#writeCache = true;
    this.#attentions.add(Sense.reset);
  }
  detach(): void {
    this.#disk.onResized = undefined;
  }
  save(): TargetState {
    return { unitAttentions: this.#attentions.save(), writeCache: this.#writeCache };
  }
  restore(state: TargetState): void {
    this.#attentions.restore(state.unitAttentions);
    this.#writeCache = state.writeCache ?? true;
  }

  #run(request: StorageRequest): void {
    const cdb = request.cdb;
    switch (cdb[0]!) {
      case Opcode.read10:
      case Opcode.read16:
      case Opcode.read12:
      case Opcode.read6:
        this.#read(request);
        break;
      case Opcode.write10:
      case Opcode.write16:
      case Opcode.write12:
      case Opcode.write6:
        this.#write(request);
        break;
      case Opcode.synchronizeCache10:
      case Opcode.synchronizeCache16:
        if (this.#inRange(request)) this.#flush(request, 0);
        break;
      case Opcode.unmap:
        this.#unmap(request);
        break;
      case Opcode.writeSame10:
      case Opcode.writeSame16:
        this.#writeSame(request);
        break;
      case Opcode.testUnitReady:
      case Opcode.startStopUnit:
        request.good();
        break;
      case Opcode.inquiry:
        inquiry(request, this.#facts);
        break;
      case Opcode.requestSense:
        requestSense(request, this.#attentions);
        break;
      case Opcode.readCapacity10:
        this.#readCapacity10(request);
        break;
      case Opcode.serviceActionIn16:
        if ((cdb[1]! & 0x1f) === READ_CAPACITY_16) this.#readCapacity16(request);
        else request.check(Sense.invalidFieldInCdb);
        break;
      case Opcode.modeSense6:
      case Opcode.modeSense10:
        modeSense(
          request,
          (this.#disk.readOnly ? WRITE_PROTECT : 0) | DPOFUA,
          modePages(this.#writeCache),
          modePages(true),
        );
        break;
      case Opcode.modeSelect6:
      case Opcode.modeSelect10:
        this.#modeSelect(request);
        break;
      case Opcode.verify10:
      case Opcode.verify16:
        // BYTCHK would compare with data of the guest's.
        if ((cdb[1]! & (PROTECT | 0x06)) !== 0) request.check(Sense.invalidFieldInCdb);
        else if (this.#inRange(request)) request.good();
        break;
      case Opcode.sendDiagnostic:
        // The default self-test, or nothing at all.
        if ((cdb[1]! & 0x04) !== 0 || be16(cdb, 3) === 0) request.good();
        else request.check(Sense.invalidFieldInCdb);
        break;
      default:
        request.check(Sense.invalidOpcode);
    }
  }

  get #blocks(): number {
    return Math.floor(this.#disk.bytes / this.#block);
  }
  /** Whether the command's blocks exist; otherwise it has ended. */
  #inRange(request: StorageRequest): boolean {
    if (lbaOf(request.cdb) + blocksOf(request.cdb) <= this.#blocks) return true;
    request.check(Sense.lbaOutOfRange);
    return false;
  }
  /** READ and WRITE: whether the CDB asks for what we have; otherwise it has ended. */
  #transferable(request: StorageRequest, direction: number): boolean {
    const cdb = request.cdb;
    // Byte 1 of the 6 byte forms is part of the address.
    if (cdb[0]! >>> 5 !== 0 && (cdb[1]! & PROTECT) !== 0) {
      request.check(Sense.invalidFieldInCdb);
      return false;
    }
    if (!this.#inRange(request)) return false;
    if (!request.carries(direction, blocksOf(cdb) * this.#block)) {
      request.invalid();
      return false;
    }
    return true;
  }

  #read(request: StorageRequest): void {
    if (!this.#transferable(request, Direction.fromDevice)) return;
    const offset = lbaOf(request.cdb) * this.#block;
    const length = blocksOf(request.cdb) * this.#block;
    if (this.#mustWait(request, offset, length)) return;
    const status = this.#transfer.read(this.#disk, offset, request.ranges, length);
    if (status !== DiskStatus.ok) {
      this.#fail(request, status, Sense.unrecoveredReadError);
      return;
    }
    this.statistics.reads++;
    this.statistics.bytesRead += length;
    request.good(length);
  }
  #write(request: StorageRequest): void {
    if (this.#disk.readOnly) {
      request.check(Sense.writeProtected);
      return;
    }
    if (!this.#transferable(request, Direction.toDevice)) return;
    const cdb = request.cdb;
    const offset = lbaOf(cdb) * this.#block;
    const length = blocksOf(cdb) * this.#block;
    if (this.#mustWait(request, offset, length)) return;
    const status = this.#transfer.write(this.#disk, offset, request.ranges, length);
    if (status !== DiskStatus.ok) {
      this.#fail(request, status, Sense.writeError);
      return;
    }
    this.statistics.writes++;
    this.statistics.bytesWritten += length;
    if (cdb[0] !== Opcode.write6 && (cdb[1]! & FUA) !== 0) this.#flush(request, length);
    else this.#written(request, length);
  }
  /** Ends a write; without a write cache, only when it is on the medium. */
  #written(request: StorageRequest, transferred: number): void {
    if (this.#writeCache) request.good(transferred);
    else this.#flush(request, transferred);
  }
  #flush(request: StorageRequest, transferred: number): void {
    this.statistics.flushes++;
    this.#disk.flush((status) => {
      if (status === DiskStatus.ok) request.good(transferred);
      else this.#fail(request, status, Sense.writeError);
    });
  }
  #fail(request: StorageRequest, status: DiskStatus, otherwise: number): void {
    request.check(diskFailed(this.#host, this.statistics, status, commandName(request.cdb), otherwise));
  }

  /** SBC-3, "UNMAP command". */
  #unmap(request: StorageRequest): void {
    const cdb = request.cdb;
    if (this.#disk.readOnly) {
      request.check(Sense.writeProtected);
      return;
    }
    if (!this.#disk.canDiscard) {
      request.check(Sense.invalidOpcode);
      return;
    }
    if ((cdb[1]! & 0x01) !== 0) {
      request.check(Sense.invalidFieldInCdb); // ANCHOR
      return;
    }
    const length = be16(cdb, 7);
    if (!request.carries(Direction.toDevice, length)) {
      request.invalid();
      return;
    }
    const list = new Uint8Array(length);
    request.dataOut(list, length);
    const ranges = this.#unmapRanges(list);
    if (typeof ranges === "number") request.check(ranges);
    else this.#zero(request, ranges, length, true);
  }
  /** @returns the ranges of the list in bytes, or the sense value of what is wrong with it */
  #unmapRanges(list: Uint8Array): BusyRange[] | number {
    if (list.length === 0) return [];
    if (list.length < 8) return Sense.parameterListLength;
    const descriptorBytes = be16(list, 2);
    if (8 + descriptorBytes > list.length) return Sense.parameterListLength;
    const count = Math.floor(descriptorBytes / 16);
    if (count > MAX_UNMAP_DESCRIPTORS) return Sense.invalidFieldInParameters;
    const ranges: BusyRange[] = [];
    for (let i = 0; i < count; i++) {
      const lba = be64(list, 8 + i * 16);
      const blocks = be32(list, 16 + i * 16);
      if (lba + blocks > this.#blocks) return Sense.lbaOutOfRange;
      if (blocks > 0) ranges.push({ from: lba * this.#block, to: (lba + blocks) * this.#block });
    }
    return ranges;
  }
  /** SBC-3, "WRITE SAME (10) command", "WRITE SAME (16) command". */
  #writeSame(request: StorageRequest): void {
    const cdb = request.cdb;
    if (this.#disk.readOnly) {
      request.check(Sense.writeProtected);
      return;
    }
    const blocks = blocksOf(cdb);
    const unmap = (cdb[1]! & 0x08) !== 0;
    // Protection, ANCHOR, and the obsolete PBDATA and LBDATA; zero blocks are not "to the end" (WSNZ in the block limits).
    if (
      (cdb[1]! & (PROTECT | 0x16)) !== 0 ||
      (unmap && !this.#disk.canDiscard) ||
      blocks === 0 ||
      blocks > this.#maxWriteSameBlocks
    ) {
      request.check(Sense.invalidFieldInCdb);
      return;
    }
    const noData = (cdb[1]! & 0x01) !== 0; // NDOB, in WRITE SAME(16)
    if (noData && cdb[0] === Opcode.writeSame10) {
      request.check(Sense.invalidFieldInCdb);
      return;
    }
    if (!this.#inRange(request)) return;
    const dataBytes = noData ? 0 : this.#block;
    if (!request.carries(Direction.toDevice, dataBytes)) {
      request.invalid();
      return;
    }
    const from = lbaOf(cdb) * this.#block;
    const to = from + blocks * this.#block;
    const pattern = new Uint8Array(this.#block);
    request.dataOut(pattern, dataBytes);
    if (pattern.every((b) => b === 0)) this.#zero(request, [{ from, to }], dataBytes, unmap);
    else if (!this.#mustWait(request, from, to - from)) this.#writePattern(request, from, to, pattern);
  }
  #writePattern(request: StorageRequest, from: number, to: number, pattern: Uint8Array): void {
    const piece = new Uint8Array(Math.min(PATTERN_BYTES, to - from));
    for (let at = 0; at < piece.length; at += pattern.length) piece.set(pattern, at);
    for (let at = from; at < to; at += piece.length) {
      const status = this.#disk.write(at, piece, 0, Math.min(piece.length, to - at));
      if (status === DiskStatus.ok) continue;
      this.#fail(request, status, Sense.writeError);
      return;
    }
    this.statistics.writes++;
    this.statistics.bytesWritten += to - from;
    this.#written(request, pattern.length);
  }

  /** Gives ranges back or zeroes them; ends the request when all of them are done. */
  #zero(request: StorageRequest, ranges: readonly BusyRange[], transferred: number, discard: boolean): void {
    let left = 1;
    let failed: DiskStatus = DiskStatus.ok;
    const ended = (): void => {
      if (--left > 0) return;
      if (failed === DiskStatus.ok) this.#written(request, transferred);
      else this.#fail(request, failed, Sense.writeError);
    };
    for (const range of ranges) {
      left++;
      this.#busy.add(range);
      this.statistics.discards++;
      const done = (status: DiskStatus): void => {
        if (status !== DiskStatus.ok) failed = status;
        this.#busy.delete(range);
        ended();
        this.#runWaiting();
      };
      if (discard) this.#disk.discard(range.from, range.to - range.from, done);
      else this.#disk.writeZeroes(range.from, range.to - range.from, done);
    }
    ended();
  }
  /**
   * A read or write of a range that is being zeroed comes after it: the disk does not order them. The order of commands that
   * are under way together is ours to choose (SAM-5, "SIMPLE task attribute").
   */
  #mustWait(request: StorageRequest, offset: number, length: number): boolean {
    if (this.#busy.size === 0) return false;
    for (const range of this.#busy) {
      if (offset >= range.to || offset + length <= range.from) continue;
      request.keepRanges();
      this.#waiting.push(request);
      return true;
    }
    return false;
  }
  #runWaiting(): void {
    if (this.#waiting.length === 0) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const request of waiting) {
      if (request.cancelled) request.abort();
      else this.#run(request);
    }
  }

  #readCapacity10(request: StorageRequest): void {
    const data = new Uint8Array(8);
    putBe32(data, 0, Math.min(this.#blocks - 1, 0xffff_ffff));
    putBe32(data, 4, this.#block);
    request.goodWithData(data, data.length);
  }
  /** SBC-3, "READ CAPACITY (16) parameter data". Linux looks at the provisioning page only when LBPME is set here. */
  #readCapacity16(request: StorageRequest): void {
    const data = new Uint8Array(32);
    putBe64(data, 0, this.#blocks - 1);
    putBe32(data, 8, this.#block);
    data[13] = Math.log2(this.#disk.physicalBlockBytes / this.#block);
    if (this.#disk.canDiscard) data[14] = 0x80 | 0x40; // LBPME, LBPRZ
    request.goodWithData(data, be32(request.cdb, 10));
  }
  #modeSelect(request: StorageRequest): void {
    const length = modeListLength(request.cdb);
    if (!request.carries(Direction.toDevice, length)) {
      request.invalid();
      return;
    }
    const list = new Uint8Array(length);
    request.dataOut(list, length);
    const before = this.#writeCache;
    const wrong = modeSelect(request.cdb, list, modePages(before), (page) => {
      if ((page[0]! & 0x3f) === CACHING_PAGE) this.#writeCache = (page[2]! & WRITE_CACHE_ENABLE) !== 0;
    });
    if (wrong !== Sense.none) request.check(wrong);
    else if (before && !this.#writeCache) this.#flush(request, length);
    else request.good(length);
  }
}

/** SBC-3, "Caching mode page"; SPC-4, "Control mode page" (commands may be reordered without restriction). */
function modePages(writeCache: boolean): readonly ModePage[] {
  const caching = new Uint8Array(20);
  caching[0] = CACHING_PAGE;
  caching[1] = caching.length - 2;
  const mayChange = caching.slice();
  mayChange[2] = WRITE_CACHE_ENABLE;
  if (writeCache) caching[2] = WRITE_CACHE_ENABLE;
  const control = new Uint8Array(12);
  control[0] = CONTROL_PAGE;
  control[1] = control.length - 2;
  const fixed = control.slice();
  control[3] = 0x10;
  return [
    { current: caching, changeable: mayChange },
    { current: control, changeable: fixed },
  ];
}
