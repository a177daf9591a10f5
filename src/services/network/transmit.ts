/**
 * Frames from the guest: one ring packet's RNDIS messages are copied out of its memory, then taken apart. A frame that the other end
 * has no room for stays, with those behind it, and the channel takes no more packets.
 */

import type { GuestMemory } from "../../machine/guest-memory.js";
import { ETHERNET_HEADER, EtherType, IpProtocol } from "../../net/packet.js";
import { FrameFlags, type FrameTaker } from "../../net/port.js";
import { readU32 } from "../../vmbus/byte-order.js";
import type { GpaRanges } from "../../vmbus/gpa-ranges.js";
import { FrameHeaders, lengthFits, TAG_BYTES } from "./frame.js";
import type { GuestBuffer } from "./guest-buffer.js";
import { NO_SECTION, SEND_SECTION_BYTES } from "./nvsp.js";
import { PacketInfo, TxChecksum } from "./packet-info.js";
import { MAX_TRANSFER_BYTES, OFFSET_BASE, PACKET_HEADER_BYTES, PacketAt, RndisType } from "./rndis.js";
import { MAC_BYTES, type NetworkStatistics, type Session } from "./session.js";
import { readBe16, writeBe16 } from "./wire.js";

/** Smallest size of segments that is cut to: a long segment of 64 KiB is at most 2,048 frames. Linux sends none below 48. */
const MIN_SEGMENT_BYTES = 32;
/** Enough for a section; more when it is needed. */
const FIRST_BUFFER_BYTES = 8192;
/** Messages are aligned to this. */
const ALIGNMENT = 8;

/** What the path asks of its adapter. */
export interface TransmitOwner {
  readonly memory: GuestMemory;
  readonly session: Session;
  readonly statistics: NetworkStatistics;
  /** To the other end. */
  readonly transmit: FrameTaker;
  /** Nothing may wait for the other end: frames that it refuses are lost. */
  readonly mustNotWait: boolean;
  /** A frame waits from now on. */
  held(): void;
}
/** What has not been sent of a ring packet. Plain data. */
export interface SavedTransmission {
  readonly bytes: Uint8Array;
  readonly frameAt: number;
  readonly frameEnd: number;
  readonly next: number;
  readonly flags: number;
  readonly segmentSize: number;
  readonly isMalformed: boolean;
}

export class Transmission {
  readonly #owner: TransmitOwner;
  readonly #headers = new FrameHeaders();
  readonly #info = new PacketInfo();
  #bytes = new Uint8Array(0);
  /** End of the messages. */
  #end = 0;
  /** The message behind the frame. */
  #next = 0;
  #frameAt = 0;
  #frameEnd = 0;
  #flags = 0;
  #segmentSize = 0;
  /** There is a frame that was refused. */
  #isHeld = false;
  /** The ring packet had something that is no RNDIS message. */
  isMalformed = false;
  transmittedFrames = 0;
  transmittedBytes = 0;
  #gathered = 0;
  readonly #gather = (gpa: number, length: number): void => {
    this.#owner.memory.read(gpa, this.#bytes, this.#gathered, length);
    this.#gathered += length;
  };

  constructor(owner: TransmitOwner) {
    this.#owner = owner;
  }
  get isHeld(): boolean {
    return this.#isHeld;
  }
  /**
   * Copies a ring packet's messages: those of the section, then those of the pages. Linux puts the headers of one frame into a section
   * and leaves the frame in its pages.
   * @returns false when there is no such section, or too much of it
   */
  load(send: GuestBuffer | undefined, index: number, used: number, ranges: GpaRanges): boolean {
    const fromSection = index === NO_SECTION ? 0 : used;
    const fromPages = ranges.totalBytes;
    if (fromSection > SEND_SECTION_BYTES || fromSection + fromPages > MAX_TRANSFER_BYTES) return false;
    this.#reserve(fromSection + fromPages);
    if (fromSection > 0 && send?.read(index * SEND_SECTION_BYTES, this.#bytes, 0, fromSection) !== true) return false;
    this.#gathered = fromSection;
    if (fromPages > 0) ranges.forEachPiece(this.#gather);
    this.#end = fromSection + fromPages;
    this.#next = 0;
    this.isMalformed = false;
    return true;
  }
  #reserve(bytes: number): void {
    if (bytes <= this.#bytes.length) return;
    let size = FIRST_BUFFER_BYTES;
    while (size < bytes) size *= 2;
    this.#bytes = new Uint8Array(size);
  }
  /** What was loaded, when it is a message of control. */
  get message(): Uint8Array {
    return this.#bytes.subarray(0, this.#end);
  }
  /** Sends frames. @returns false when one of them has to wait: `run` again when there is room */
  run(): boolean {
    if (this.#isHeld && !this.#transmit()) return false;
    while (this.#end - this.#next >= PacketAt.length + 4) {
      if (!this.#prepare()) continue;
      if (!this.#transmit()) return false;
    }
    return true;
  }
  /** Forgets the frame that waits. */
  dropHeld(): void {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    this.#owner.statistics.drops.refused++;
  }
  /** Forgets all of it. */
  clear(): void {
    this.#isHeld = false;
    this.#end = this.#next = 0;
  }

  #transmit(): boolean {
    const owner = this.#owner;
    const { statistics } = owner;
    const length = this.#frameEnd - this.#frameAt;
    const wasHeld = this.#isHeld;
    // While the other end has it, nobody may send it once more: that end may answer, or say that it has room, from within.
    this.#isHeld = false;
    if (owner.transmit(this.#bytes.subarray(this.#frameAt, this.#frameEnd), this.#flags, this.#segmentSize)) {
      statistics.transmittedFrames++;
      statistics.transmittedBytes += length;
      this.transmittedFrames++;
      this.transmittedBytes += length;
      return true;
    }
    if (owner.mustNotWait) {
      statistics.drops.refused++;
      return true;
    }
    this.#isHeld = true;
    if (!wasHeld) {
      statistics.held++;
      owner.held();
    }
    return false;
  }
  /** Finds the next frame. @returns false when there is none in the message, which is passed over */
  #prepare(): boolean {
    const { session, statistics } = this.#owner;
    const at = this.#next;
    const length = readU32(this.#bytes, at + PacketAt.length);
    if (
      readU32(this.#bytes, at) !== RndisType.packet ||
      length < PACKET_HEADER_BYTES ||
      length > this.#end - at ||
      !this.#locate(at, length)
    ) {
      // Nothing behind it can be trusted.
      this.#next = this.#end;
      this.isMalformed = true;
      statistics.drops.malformed++;
      return false;
    }
    this.#next = Math.min(this.#end, at + Math.ceil(length / ALIGNMENT) * ALIGNMENT);
    if (!session.initialized) {
      statistics.drops.notReady++;
      return false;
    }
    return this.#complete();
  }
  /** Where the frame is, and what is said of it. */
  #locate(at: number, length: number): boolean {
    const bytes = this.#bytes;
    const dataOffset = readU32(bytes, at + PacketAt.dataOffset);
    const dataLength = readU32(bytes, at + PacketAt.dataLength);
    const infoOffset = readU32(bytes, at + PacketAt.infoOffset);
    const infoLength = readU32(bytes, at + PacketAt.infoLength);
    const least = PACKET_HEADER_BYTES - OFFSET_BASE;
    // Sums of two values below 2^32 are exact.
    if (dataOffset < least || dataOffset + dataLength > length - OFFSET_BASE || dataLength < ETHERNET_HEADER)
      return false;
    if (infoLength > 0 && (infoOffset < least || infoOffset + infoLength > length - OFFSET_BASE)) return false;
    this.#frameAt = at + OFFSET_BASE + dataOffset;
    this.#frameEnd = this.#frameAt + dataLength;
    return this.#info.read(bytes, at + OFFSET_BASE + infoOffset, infoLength);
  }
  /** Makes the frame what a port takes. @returns false when it is dropped */
  #complete(): boolean {
    const { session, statistics } = this.#owner;
    const info = this.#info;
    const bytes = this.#bytes;
    const hasTag = readBe16(bytes, this.#frameAt + 12) === EtherType.VLAN;
    const limit = session.mtu + ETHERNET_HEADER + (hasTag ? TAG_BYTES : 0);
    this.#flags = 0;
    this.#segmentSize = 0;
    if (!info.isLargeSend && this.#frameEnd - this.#frameAt > limit) {
      statistics.drops.tooLong++;
      return false;
    }
    if (!(info.isLargeSend ? this.#largeSend() : this.#checksums())) {
      statistics.drops.malformed++;
      return false;
    }
    if (info.vlan >= 0) {
      // The message's header is before the frame, so there is room.
      bytes.copyWithin(this.#frameAt - TAG_BYTES, this.#frameAt, this.#frameAt + 2 * MAC_BYTES);
      this.#frameAt -= TAG_BYTES;
      writeBe16(bytes, this.#frameAt + 12, EtherType.VLAN);
      writeBe16(bytes, this.#frameAt + 14, info.vlan);
    }
    return true;
  }
  /** A long segment: Linux leaves lengths and the IP checksum at 0. */
  #largeSend(): boolean {
    const headers = this.#headers;
    const bytes = this.#bytes;
    const { mss } = this.#info;
    headers.parse(bytes, this.#frameAt, this.#frameEnd, true);
    if (headers.protocol !== IpProtocol.TCP || !lengthFits(headers) || mss < MIN_SEGMENT_BYTES) return false;
    headers.finishIp(bytes);
    if (headers.end - headers.payload <= mss) {
      headers.finishTransport(bytes);
      return true;
    }
    headers.seedLongSegment(bytes);
    this.#flags = FrameFlags.partialChecksum;
    this.#segmentSize = mss;
    this.#owner.statistics.largeSends++;
    return true;
  }
  /** Checksums that the guest leaves to us: it means what it says, whatever it has turned on. */
  #checksums(): boolean {
    const { checksum } = this.#info;
    if ((checksum & (TxChecksum.tcp | TxChecksum.udp | TxChecksum.ipHeader)) === 0) return true;
    const headers = this.#headers;
    headers.parse(this.#bytes, this.#frameAt, this.#frameEnd);
    if (headers.version === 0) return false;
    if ((checksum & TxChecksum.ipHeader) !== 0 && headers.version === 4) headers.finishIpChecksum(this.#bytes);
    const wanted =
      (checksum & TxChecksum.tcp) !== 0 ? IpProtocol.TCP : (checksum & TxChecksum.udp) !== 0 ? IpProtocol.UDP : 0;
    if (wanted === 0) return true;
    if (headers.protocol !== wanted) return false;
    this.#flags = FrameFlags.partialChecksum;
    return true;
  }

  save(): SavedTransmission | undefined {
    if (!this.#isHeld) return undefined;
    return {
      bytes: this.#bytes.slice(0, this.#end),
      frameAt: this.#frameAt,
      frameEnd: this.#frameEnd,
      next: this.#next,
      flags: this.#flags,
      segmentSize: this.#segmentSize,
      isMalformed: this.isMalformed,
    };
  }
  restore(saved: SavedTransmission): void {
    this.#reserve(saved.bytes.length);
    this.#bytes.set(saved.bytes);
    this.#end = saved.bytes.length;
    this.#frameAt = saved.frameAt;
    this.#frameEnd = saved.frameEnd;
    this.#next = saved.next;
    this.#flags = saved.flags;
    this.#segmentSize = saved.segmentSize;
    this.isMalformed = saved.isMalformed;
    this.#isHeld = true;
  }
}
