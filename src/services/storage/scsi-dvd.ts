/** A DVD-ROM drive (MMC-6) with the commands that Linux `sr` and FreeBSD `cd` use; the disc is a `Disk` of 2,048-byte blocks. */
import { type Disk, DiskStatus } from "../../disk/disk.js";
import { DeviceType, type InquiryFacts, inquiry } from "./inquiry.js";
import { type ModePage, modeSense } from "./mode-pages.js";
import { Direction } from "./protocol.js";
import type { StorageRequest } from "./request.js";
import { be16, be32, blocksOf, commandName, lbaOf, Opcode, putBe16, putBe32, Sense } from "./scsi.js";
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

export const DVD_BLOCK_BYTES = 2048;
const PROFILE_DVD_ROM = 0x0010;
/** ADR 1, control 4: a data track (MMC-6, "Q Sub-channel"). */
const DATA_TRACK = 0x14;
const LEAD_OUT = 0xaa;
/** Event codes and notification class of the media (MMC-6, "Media Notification Class"). */
const MediaEvent = { none: 0, newMedia: 2, removal: 3 } as const;
const MEDIA_CLASS = 4;
/** Sector numbers of a DVD's data area begin here. */
const FIRST_SECTOR = 0x30000;
/** 1,352 KB/s is a DVD's single speed; a drive of 16 times that. */
const KILOBYTES_PER_SECOND = 21_632;

export class ScsiDvd implements ScsiTarget {
  readonly statistics = newStatistics();
  readonly #host: TargetHost;
  readonly #facts: InquiryFacts;
  readonly #attentions = new UnitAttentions();
  readonly #transfer: Transfer;
  #disc: Disk | undefined;
  #trayOpen = false;
  #locked = false;
  #event: number = MediaEvent.none;

  constructor(disc: Disk | undefined, identity: Uint8Array, host: TargetHost) {
    checkDisc(disc);
    this.#disc = disc;
    this.#host = host;
    this.#transfer = new Transfer(host.memory);
    this.#facts = { type: DeviceType.dvd, removable: true, product: "Virtual DVD-ROM", identity };
  }

  /** Puts a disc in (instead of the one there was) and closes the tray. Who removes a disc may close it at once. */
  insert(disc: Disk): void {
    checkDisc(disc);
    this.#disc = disc;
    this.#trayOpen = false;
    this.#mediumCame();
  }
  /** Takes the disc out, whether the guest has locked the tray or not. */
  eject(): void {
    if (this.#disc === undefined) return;
    this.#disc = undefined;
    this.#event = MediaEvent.removal;
  }
  execute(request: StorageRequest): void {
    const opcode = request.cdb[0]!;
    const always =
      opcode === Opcode.inquiry ||
      opcode === Opcode.reportLuns ||
      opcode === Opcode.requestSense ||
      // MMC-6: these two answer while a unit attention waits, so that polling does not eat it.
      opcode === Opcode.getConfiguration ||
      opcode === Opcode.getEventStatus;
    if (this.#attentions.any && !always) request.check(this.#attentions.take());
    else this.#run(request);
  }
  reset(): void {
    this.#locked = false;
    this.#attentions.add(Sense.reset);
  }
  detach(): void {}
  save(): TargetState {
    return {
      unitAttentions: this.#attentions.save(),
      trayOpen: this.#trayOpen,
      locked: this.#locked,
      mediaEvent: this.#event,
    };
  }
  restore(state: TargetState): void {
    this.#attentions.restore(state.unitAttentions);
    this.#trayOpen = state.trayOpen ?? false;
    this.#locked = state.locked ?? false;
    this.#event = state.mediaEvent ?? MediaEvent.none;
  }

  #run(request: StorageRequest): void {
    const cdb = request.cdb;
    switch (cdb[0]!) {
      case Opcode.inquiry:
        inquiry(request, this.#facts);
        break;
      case Opcode.requestSense:
        requestSense(request, this.#attentions);
        break;
      case Opcode.modeSense6:
      case Opcode.modeSense10: {
        const pages = modePages(this.#locked);
        modeSense(request, 0, pages, pages);
        break;
      }
      case Opcode.getConfiguration:
        this.#getConfiguration(request);
        break;
      case Opcode.getEventStatus:
        this.#getEventStatus(request);
        break;
      case Opcode.startStopUnit:
        this.#startStop(request);
        break;
      case Opcode.preventAllow:
        this.#locked = (cdb[4]! & 0x01) !== 0;
        request.good();
        break;
      case Opcode.mechanismStatus: {
        const data = new Uint8Array(8);
        if (this.#trayOpen) data[1] = 0x10;
        request.goodWithData(data, be16(cdb, 8));
        break;
      }
      case Opcode.sendDiagnostic:
        if ((cdb[1]! & 0x04) !== 0 || be16(cdb, 3) === 0) request.good();
        else request.check(Sense.invalidFieldInCdb);
        break;
      case Opcode.setCdSpeed:
        request.good();
        break;
      case Opcode.setStreaming:
        if (request.carries(Direction.toDevice, be16(cdb, 9))) request.good(be16(cdb, 9));
        else request.invalid();
        break;
      case Opcode.getPerformance:
      case Opcode.testUnitReady:
      case Opcode.read10:
      case Opcode.read12:
      case Opcode.read16:
      case Opcode.readCapacity10:
      case Opcode.readToc:
      case Opcode.readDiscInformation:
      case Opcode.readTrackInformation:
      case Opcode.readDvdStructure:
      case Opcode.seek10: {
        const disc = this.#present;
        if (disc === undefined)
          request.check(this.#trayOpen ? Sense.mediumNotPresentOpen : Sense.mediumNotPresentClosed);
        else this.#runOnDisc(request, disc);
        break;
      }
      default:
        request.check(Sense.invalidOpcode);
    }
  }
  #runOnDisc(request: StorageRequest, disc: Disk): void {
    const cdb = request.cdb;
    const blocks = disc.bytes / DVD_BLOCK_BYTES;
    let data: Uint8Array | undefined;
    let allocation: number;
    switch (cdb[0]!) {
      case Opcode.read10:
      case Opcode.read12:
      case Opcode.read16:
        this.#read(request, disc, blocks);
        return;
      case Opcode.seek10:
        if (be32(cdb, 2) >= blocks) request.check(Sense.lbaOutOfRange);
        else request.good();
        return;
      case Opcode.testUnitReady:
        request.good();
        return;
      case Opcode.readCapacity10:
        data = new Uint8Array(8);
        putBe32(data, 0, blocks - 1);
        putBe32(data, 4, DVD_BLOCK_BYTES);
        allocation = 8;
        break;
      case Opcode.readToc:
        data = tableOfContents(cdb, blocks);
        allocation = be16(cdb, 7);
        break;
      case Opcode.readDiscInformation:
        data = discInformation(cdb);
        allocation = be16(cdb, 7);
        break;
      case Opcode.readTrackInformation:
        data = trackInformation(cdb, blocks);
        allocation = be16(cdb, 7);
        break;
      case Opcode.getPerformance:
        data = performance(cdb, blocks);
        allocation = be16(cdb, 8) * 16 + 8; // a number of descriptors
        break;
      default:
        data = dvdStructure(cdb, blocks);
        allocation = be16(cdb, 8);
    }
    if (data === undefined) request.check(Sense.invalidFieldInCdb);
    else request.goodWithData(data, allocation);
  }

  get #present(): Disk | undefined {
    return this.#trayOpen ? undefined : this.#disc;
  }
  #mediumCame(): void {
    this.#attentions.add(Sense.mediumChanged);
    this.#event = MediaEvent.newMedia;
  }
  #read(request: StorageRequest, disc: Disk, discBlocks: number): void {
    const cdb = request.cdb;
    const lba = lbaOf(cdb);
    const blocks = blocksOf(cdb);
    const length = blocks * DVD_BLOCK_BYTES;
    if (lba + blocks > discBlocks) {
      request.check(Sense.lbaOutOfRange);
      return;
    }
    if (!request.carries(Direction.fromDevice, length)) {
      request.invalid();
      return;
    }
    const status = this.#transfer.read(disc, lba * DVD_BLOCK_BYTES, request.ranges, length);
    if (status !== DiskStatus.ok) {
      const sense = Sense.unrecoveredReadError;
      request.check(diskFailed(this.#host, this.statistics, status, commandName(cdb), sense));
      return;
    }
    this.statistics.reads++;
    this.statistics.bytesRead += length;
    request.good(length);
  }
  /** MMC-6, "START STOP UNIT Command": only its tray part does something. */
  #startStop(request: StorageRequest): void {
    const loadEject = (request.cdb[4]! & 0x02) !== 0;
    const start = (request.cdb[4]! & 0x01) !== 0;
    if (loadEject && !start) {
      if (this.#locked) {
        request.check(Sense.removalPrevented);
        return;
      }
      if (!this.#trayOpen && this.#disc !== undefined) this.#event = MediaEvent.removal;
      this.#trayOpen = true;
    } else if (loadEject && this.#trayOpen) {
      this.#trayOpen = false;
      if (this.#disc !== undefined) this.#mediumCame();
    }
    request.good();
  }
  /** MMC-6, "GET EVENT STATUS NOTIFICATION Command", polled. Linux asks for the media class every 2 s. */
  #getEventStatus(request: StorageRequest): void {
    const cdb = request.cdb;
    if ((cdb[1]! & 0x01) === 0) {
      request.check(Sense.invalidFieldInCdb); // asynchronous
      return;
    }
    if ((cdb[4]! & (1 << MEDIA_CLASS)) === 0) {
      request.goodWithData(Uint8Array.of(0, 2, 0x80, 1 << MEDIA_CLASS), be16(cdb, 7));
      return;
    }
    const status = (this.#present !== undefined ? 0x02 : 0) | (this.#trayOpen ? 0x01 : 0);
    const allocation = be16(cdb, 7);
    const data = Uint8Array.of(0, 6, MEDIA_CLASS, 1 << MEDIA_CLASS, this.#event, status, 0, 0);
    // An event is told once; not when only the header was asked for.
    if (Math.min(allocation, request.transferLength) > 4) this.#event = MediaEvent.none;
    request.goodWithData(data, allocation);
  }
  /** MMC-6, "GET CONFIGURATION Command". */
  #getConfiguration(request: StorageRequest): void {
    const cdb = request.cdb;
    const which = cdb[1]! & 0x03;
    const first = be16(cdb, 2);
    if (which === 3) {
      request.check(Sense.invalidFieldInCdb);
      return;
    }
    const present = this.#present !== undefined;
    const features = featuresOf(present).filter((f) => {
      if (which === 2) return be16(f, 0) === first;
      return be16(f, 0) >= first && (which === 0 || (f[2]! & 0x01) !== 0);
    });
    const data = new Uint8Array(features.reduce((n, f) => n + f.length, 8));
    putBe32(data, 0, data.length - 4);
    putBe16(data, 6, present ? PROFILE_DVD_ROM : 0);
    let at = 8;
    for (const feature of features) {
      data.set(feature, at);
      at += feature.length;
    }
    request.goodWithData(data, be16(cdb, 7));
  }
}

function checkDisc(disc: Disk | undefined): void {
  if (disc !== undefined && disc.logicalBlockBytes !== DVD_BLOCK_BYTES)
    throw new RangeError(`a disc has blocks of ${DVD_BLOCK_BYTES} bytes, this one of ${disc.logicalBlockBytes}`);
}

/** Feature descriptors in ascending order: code, version << 2 | persistent << 1 | current, length of the rest (MMC-6, "Features"). */
function featuresOf(discPresent: boolean): readonly Uint8Array[] {
  const current = discPresent ? 1 : 0;
  return [
    Uint8Array.of(0x00, 0x00, 0x03, 4, 0x00, PROFILE_DVD_ROM, current, 0), // profile list
    Uint8Array.of(0x00, 0x01, 0x0b, 8, 0, 0, 0, 1, 0x01, 0, 0, 0), // core: SCSI; device busy event
    Uint8Array.of(0x00, 0x02, 0x07, 4, 0, 0, 0, 0), // morphing
    Uint8Array.of(0x00, 0x03, 0x0b, 4, 0x29, 0, 0, 0), // removable medium: tray, eject, lock
    Uint8Array.of(0x00, 0x10, current, 8, 0, 0, 0x08, 0x00, 0x00, 0x10, 0, 0), // random readable: 2,048, blocks of 16
    Uint8Array.of(0x00, 0x1f, 0x04 | current, 4, 0, 0, 0, 0), // DVD read
  ];
}

/** MMC-6, "READ TOC/PMA/ATIP Command": formats 0 (tracks) and 1 (sessions). One data track. */
function tableOfContents(cdb: Uint8Array, blocks: number): Uint8Array | undefined {
  const asTime = (cdb[1]! & 0x02) !== 0;
  const track = cdb[6]!;
  switch (cdb[2]! & 0x0f || cdb[9]! >>> 6) {
    case 0: {
      if (track > 1 && track !== LEAD_OUT) return undefined;
      const entries = track === LEAD_OUT ? [LEAD_OUT] : [1, LEAD_OUT];
      const data = new Uint8Array(4 + entries.length * 8);
      putBe16(data, 0, data.length - 2);
      data[2] = 1;
      data[3] = 1;
      entries.forEach((entry, i) => {
        data[5 + i * 8] = DATA_TRACK;
        data[6 + i * 8] = entry;
        putAddress(data, 8 + i * 8, entry === LEAD_OUT ? blocks : 0, asTime);
      });
      return data;
    }
    case 1: {
      const data = Uint8Array.of(0, 0x0a, 1, 1, 0, DATA_TRACK, 1, 0, 0, 0, 0, 0);
      putAddress(data, 8, 0, asTime);
      return data;
    }
    default:
      return undefined;
  }
}

/** A block address, or minute, second and frame: 75 frames a second, block 0 at 2 s. Beyond 255 minutes it stays at the end. */
function putAddress(data: Uint8Array, at: number, block: number, asTime: boolean): void {
  if (!asTime) {
    putBe32(data, at, block);
    return;
  }
  const frames = Math.min(block + 150, 256 * 60 * 75 - 1);
  data[at + 1] = Math.floor(frames / (60 * 75));
  data[at + 2] = Math.floor(frames / 75) % 60;
  data[at + 3] = frames % 75;
}

/** MMC-6, "READ DISC INFORMATION Command": a finished disc of one session. */
function discInformation(cdb: Uint8Array): Uint8Array | undefined {
  if ((cdb[1]! & 0x07) !== 0) return undefined;
  const data = new Uint8Array(34);
  putBe16(data, 0, data.length - 2);
  data[2] = 0x0e; // last session and disc complete
  data[3] = 1; // first track
  data[4] = 1; // sessions
  data[5] = 1; // first and last track in the last session
  data[6] = 1;
  data[7] = 0x20; // unrestricted use
  data.fill(0xff, 16, 24); // no further lead-in, no further lead-out
  return data;
}

/** MMC-6, "READ TRACK INFORMATION Command", for the only track. */
function trackInformation(cdb: Uint8Array, blocks: number): Uint8Array | undefined {
  const number = be32(cdb, 2);
  // By address, by track, by session.
  const known = [number < blocks, number === 1, number === 1][cdb[1]! & 0x03] ?? false;
  if (!known) return undefined;
  const data = new Uint8Array(36);
  putBe16(data, 0, data.length - 2);
  data[2] = 1;
  data[3] = 1;
  data[5] = 0x04; // data track
  data[6] = 0x01; // mode 1
  putBe32(data, 24, blocks);
  putBe32(data, 28, blocks - 1);
  return data;
}

/** MMC-6, "GET PERFORMANCE Command": nominal read performance over the whole disc. */
function performance(cdb: Uint8Array, blocks: number): Uint8Array | undefined {
  if (cdb[10] !== 0 || (cdb[1]! & 0x04) !== 0) return undefined;
  const data = new Uint8Array(24);
  putBe32(data, 0, data.length - 4);
  putBe32(data, 12, KILOBYTES_PER_SECOND);
  putBe32(data, 16, blocks - 1);
  putBe32(data, 20, KILOBYTES_PER_SECOND);
  return data;
}

/** MMC-6, "READ DISC STRUCTURE Command": physical format and copyright of a single-layer DVD-ROM. */
function dvdStructure(cdb: Uint8Array, blocks: number): Uint8Array | undefined {
  if ((cdb[1]! & 0x0f) !== 0 || cdb[6] !== 0) return undefined;
  switch (cdb[7]) {
    case 0: {
      const data = new Uint8Array(4 + 2048);
      putBe16(data, 0, data.length - 2);
      data[4] = 0x01; // DVD-ROM, part version 1
      data[5] = 0x02; // 120 mm, 10.08 Mbit/s
      data[6] = 0x01; // one layer, embossed
      putBe32(data, 8, FIRST_SECTOR);
      putBe32(data, 12, FIRST_SECTOR + blocks - 1);
      return data;
    }
    case 1:
      return Uint8Array.of(0, 6, 0, 0, 0, 0, 0, 0);
    default:
      return undefined;
  }
}

/** MMC-6, "Read/Write Error Recovery Mode Page"; MMC-3, "CD/DVD Capabilities and Mechanical Status Page", which Linux reads. */
function modePages(locked: boolean): readonly ModePage[] {
  const recovery = new Uint8Array(12);
  recovery[0] = 0x01;
  recovery[1] = recovery.length - 2;
  const capabilities = new Uint8Array(22);
  capabilities[0] = 0x2a;
  capabilities[1] = capabilities.length - 2;
  capabilities[2] = 0x08; // reads DVD-ROM
  capabilities[6] = 0x29 | (locked ? 0x02 : 0); // tray, eject, lock
  return [recovery, capabilities].map((current) => {
    const changeable = new Uint8Array(current.length);
    changeable.set(current.subarray(0, 2));
    return { current, changeable };
  });
}
