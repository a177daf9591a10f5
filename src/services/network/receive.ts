/**
 * Frames to the guest: filtered, put into sections of its receive buffer with what is known beside the frame, collected in a ring
 * packet for each channel. Who sends is refused while there is no room, and told when there is.
 */

import { ETHERNET_HEADER, EtherType, IpProtocol } from "../../net/packet.js";
import { FrameFlags } from "../../net/port.js";
import { writeU32 } from "../../vmbus/byte-order.js";
import { FrameHeaders, lengthFits, TAG_BYTES } from "./frame.js";
import { RECEIVE } from "./ndis-offload.js";
import { ENTRY_BYTES, Fragment, fromTag, InfoType, packetId, RxChecksum, writeInfo } from "./packet-info.js";
import { MAX_RANGES, type ReceiveBatch } from "./receive-batch.js";
import { RESERVED_SECTIONS, type ReceiveBuffer } from "./receive-buffer.js";
import { OFFSET_BASE, PACKET_HEADER_BYTES, PacketAt, RndisType } from "./rndis.js";
import { Segmentation } from "./segmentation.js";
import { Filter, MAC_BYTES, type NetworkStatistics, type Session } from "./session.js";
import { readBe16 } from "./wire.js";

/** Checksum, tag, hash, packet id. */
const MAX_INFO_BYTES = 4 * ENTRY_BYTES;
/**
 * The frame in the scratch buffer; headers are written right before it. They have 4 bytes more than a multiple of 8, and so has this:
 * then messages begin at such a multiple, as sections do, and V8 copies words (1,514 bytes took 1.9 us, bytewise).
 */
const FRAME_AT = 132;
/** A long segment: 64 KiB behind headers of Ethernet and IPv6. */
const MAX_LONG_BYTES = 0xffff + 40 + ETHERNET_HEADER + TAG_BYTES;
/** Where pieces of a long segment are made, behind the segment. */
const PIECE_AT = Math.ceil((FRAME_AT + MAX_LONG_BYTES) / 8) * 8 + FRAME_AT;
/** Free sections at which a refused sender is told: as many as it needed, and so many. */
const ROOM_SECTIONS = 64;

/** Bytes of a section for frames with this payload: what the information needs, in steps that real hosts have too. */
export const sectionBytesFor = (mtu: number): number =>
  Math.ceil((PACKET_HEADER_BYTES + MAX_INFO_BYTES + ETHERNET_HEADER + TAG_BYTES + mtu) / 256) * 256;

/** What the path asks of its adapter. */
export interface ReceiveOwner {
  readonly session: Session;
  readonly statistics: NetworkStatistics;
  /** Where frames for a channel are collected: that of the primary channel if it is not open; undefined when nothing is. */
  batchOf(channel: number): ReceiveTarget | undefined;
  /** A frame has been refused: nothing may wait for the other end now. */
  refused(): void;
}
/** A channel's collected frames. */
export interface ReceiveTarget {
  readonly batch: ReceiveBatch;
  receivedFrames: number;
  receivedBytes: number;
  /** Sends what is collected. @returns false when there is no room in the ring */
  flush(): boolean;
  /** Something has been collected. */
  collected(): void;
}

export class ReceivePath {
  readonly #owner: ReceiveOwner;
  readonly #headers = new FrameHeaders();
  readonly #segmentation = new Segmentation();
  readonly #scratch = new Uint8Array(PIECE_AT + 0x10000);
  /** Sections that the last refused frame needed; 0 when nobody waits. */
  #awaited = 0;
  /** Number of the next coalesced packet. */
  #packetId = 0;
  /** Tag of the frame; -1: none, or it stays in the frame. */
  #tag = -1;

  constructor(owner: ReceiveOwner) {
    this.#owner = owner;
  }
  /** Whether somebody was refused, and has not been told of room. */
  get isRefusing(): boolean {
    return this.#awaited > 0;
  }
  /** Of saved state: the next packet id, and what somebody waits for. */
  get state(): { readonly packetId: number; readonly awaited: number } {
    return { packetId: this.#packetId, awaited: this.#awaited };
  }
  set state(saved: { readonly packetId: number; readonly awaited: number }) {
    this.#packetId = saved.packetId;
    this.#awaited = saved.awaited;
  }
  /** Whether a refused sender can be told that there is room now; once. */
  takeRoom(): boolean {
    if (this.#awaited === 0) return false;
    const { receive, initialized, filter } = this.#owner.session;
    // A guest that takes no frames loses them, so that nobody waits for it.
    if (receive !== undefined && initialized && filter !== 0) {
      const plenty = Math.max(this.#awaited, Math.min(this.#awaited + ROOM_SECTIONS, receive.sections >> 1));
      if (receive.freeForFrames < Math.min(plenty, receive.sections - RESERVED_SECTIONS)) return false;
    }
    this.#awaited = 0;
    return true;
  }

  /** FrameTaker of the adapter's port. */
  receive(frame: Uint8Array, flags: number, segmentSize: number): boolean {
    const { session, statistics } = this.#owner;
    const { drops } = statistics;
    const { receive } = session;
    if (receive === undefined || !session.initialized || session.filter === 0) return lost(drops, "notReady");
    if (frame.length < ETHERNET_HEADER) return lost(drops, "unfit");
    if (!this.#passes(frame)) return lost(drops, "filtered");
    const hasTag = frame.length >= ETHERNET_HEADER + TAG_BYTES && readBe16(frame, 12) === EtherType.VLAN;
    const isLong = segmentSize > 0 && frame.length - ETHERNET_HEADER - (hasTag ? TAG_BYTES : 0) > session.mtu;
    if (frame.length > (isLong ? MAX_LONG_BYTES : session.mtu + ETHERNET_HEADER + (hasTag ? TAG_BYTES : 0)))
      return lost(drops, "tooLong");
    if (!receive.buffer.isLent) return lost(drops, "notReady");
    const end = this.#copy(frame, hasTag && session.vlan);
    const headers = this.#headers;
    headers.parse(this.#scratch, FRAME_AT, end, segmentSize > 0);
    const target = this.#owner.batchOf(session.rss.channelOf(this.#scratch, headers));
    if (target === undefined) return lost(drops, "notReady");
    if (isLong) return this.#long(receive, target, segmentSize);
    if (!this.#hasRoom(receive, target, 1)) return false;
    this.#frame(receive, target, FRAME_AT, end, this.#checksums(flags, segmentSize > 0));
    return true;
  }

  /** The packet filter. */
  #passes(frame: Uint8Array): boolean {
    const { filter, mac, multicast } = this.#owner.session;
    if ((filter & Filter.promiscuous) !== 0) return true;
    if ((frame[0]! & 1) === 0) return (filter & Filter.directed) !== 0 && startsWith(frame, mac);
    if (isBroadcast(frame)) return (filter & Filter.broadcast) !== 0;
    if ((filter & Filter.allMulticast) !== 0) return true;
    if ((filter & Filter.multicast) === 0) return false;
    for (const address of multicast) if (startsWith(frame, address)) return true;
    return false;
  }
  /** Copies the frame to the scratch buffer, its tag beside it if it is to be taken out. @returns its end */
  #copy(frame: Uint8Array, takeTag: boolean): number {
    const scratch = this.#scratch;
    this.#tag = -1;
    if (!takeTag) {
      scratch.set(frame, FRAME_AT);
      return FRAME_AT + frame.length;
    }
    this.#tag = readBe16(frame, 14);
    scratch.set(frame, FRAME_AT - TAG_BYTES);
    scratch.copyWithin(FRAME_AT, FRAME_AT - TAG_BYTES, FRAME_AT - TAG_BYTES + 2 * MAC_BYTES);
    return FRAME_AT + frame.length - TAG_BYTES;
  }
  /** Whether `sections` can be taken now for a channel's packet. The sender is to be told if not. */
  #hasRoom(receive: ReceiveBuffer, target: ReceiveTarget, sections: number): boolean {
    if (target.batch.count + sections > MAX_RANGES && !target.flush()) return this.#refuse(sections);
    if (receive.freeForFrames < sections) return this.#refuse(sections);
    return true;
  }
  #refuse(sections: number): boolean {
    this.#awaited = Math.max(this.#awaited, sections);
    this.#owner.statistics.waited++;
    this.#owner.refused();
    return false;
  }
  /**
   * What may be said of the checksums of the frame whose headers were found. A missing checksum is put into the frame in any case:
   * a guest that forwards the frame, or looks at it before its IP stack does (DHCP), would see it.
   */
  #checksums(flags: number, isLongSeed: boolean): number {
    const headers = this.#headers;
    const { offloads } = this.#owner.session;
    if (headers.version === 0) return 0;
    const missing = (flags & FrameFlags.partialChecksum) !== 0 || isLongSeed;
    if (missing && isLongSeed) headers.finishIp(this.#scratch);
    if (missing && headers.protocol !== 0) headers.finishTransport(this.#scratch);
    else if ((flags & FrameFlags.verified) === 0) return 0;
    let known = headers.version === 4 && (offloads.ipv4 & RECEIVE) !== 0 ? RxChecksum.ipOk : 0;
    if (headers.protocol === IpProtocol.TCP) {
      const offload = headers.version === 4 ? offloads.tcpv4 : offloads.tcpv6;
      if ((offload & RECEIVE) !== 0) known |= RxChecksum.tcpOk;
    } else if (headers.protocol === IpProtocol.UDP) {
      const offload = headers.version === 4 ? offloads.udpv4 : offloads.udpv6;
      if ((offload & RECEIVE) !== 0) known |= RxChecksum.udpOk;
    }
    return known;
  }
  /** A frame of the scratch buffer that fits a section. */
  #frame(receive: ReceiveBuffer, target: ReceiveTarget, from: number, end: number, checksums: number): void {
    this.#put(receive, target, from, end, checksums, 0);
    this.#count(target, 1, end - from);
    target.collected();
  }
  #count(target: ReceiveTarget, frames: number, bytes: number): void {
    const { statistics } = this.#owner;
    statistics.receivedFrames += frames;
    statistics.receivedBytes += bytes;
    target.receivedFrames += frames;
    target.receivedBytes += bytes;
  }
  /** Writes an RNDIS message with these bytes of the scratch buffer. `id`: of a part of a coalesced packet. */
  #put(receive: ReceiveBuffer, target: ReceiveTarget, from: number, end: number, checksums: number, id: number): void {
    const { rss } = this.#owner.session;
    const scratch = this.#scratch;
    const isFirst = id === 0 || ((id >>> 8) & Fragment.first) !== 0;
    const hasHash = rss.isFlowHash && isFirst;
    const entries = (id !== 0 ? 1 : 0) + (checksums !== 0 ? 1 : 0) + (this.#tag >= 0 ? 1 : 0) + (hasHash ? 1 : 0);
    const header = PACKET_HEADER_BYTES + entries * ENTRY_BYTES;
    const at = from - header;
    scratch.fill(0, at, at + PACKET_HEADER_BYTES);
    writeU32(scratch, at + PacketAt.type, RndisType.packet);
    writeU32(scratch, at + PacketAt.length, header + end - from);
    writeU32(scratch, at + PacketAt.dataOffset, header - OFFSET_BASE);
    writeU32(scratch, at + PacketAt.dataLength, end - from);
    if (entries > 0) {
      writeU32(scratch, at + PacketAt.infoOffset, PACKET_HEADER_BYTES - OFFSET_BASE);
      writeU32(scratch, at + PacketAt.infoLength, entries * ENTRY_BYTES);
      let info = at + PACKET_HEADER_BYTES;
      if (this.#tag >= 0) info = writeInfo(scratch, info, InfoType.vlan, fromTag(this.#tag));
      if (checksums !== 0) info = writeInfo(scratch, info, InfoType.checksum, checksums);
      if (hasHash) info = writeInfo(scratch, info, InfoType.hashValue, rss.hash);
      if (id !== 0) writeInfo(scratch, info, InfoType.packetId, id);
    }
    target.batch.add(receive, scratch, at, header + end - from);
  }

  /** A segment of TCP that is longer than the MTU: as one coalesced packet, or as frames. */
  #long(receive: ReceiveBuffer, target: ReceiveTarget, segmentSize: number): boolean {
    const { session, statistics } = this.#owner;
    const headers = this.#headers;
    if (headers.protocol !== IpProtocol.TCP || !lengthFits(headers)) return lost(statistics.drops, "unfit");
    return session.coalesces(headers.version)
      ? this.#coalesced(receive, target)
      : this.#segmented(receive, target, segmentSize);
  }
  /** All parts are in one ring packet; what is known of the packet is with the first. */
  #coalesced(receive: ReceiveBuffer, target: ReceiveTarget): boolean {
    const { statistics, session } = this.#owner;
    const headers = this.#headers;
    const { end } = headers;
    const partBytes = (receive.sectionBytes - PACKET_HEADER_BYTES - MAX_INFO_BYTES) & ~7;
    const parts = Math.ceil((end - FRAME_AT) / partBytes);
    if (!receive.couldHold(parts) || parts > MAX_RANGES) return lost(statistics.drops, "unfit");
    if (!this.#hasRoom(receive, target, parts)) return false;
    headers.finishIp(this.#scratch);
    // The checksum field holds no checksum of this packet: it is not looked at where it is said to be good.
    const offload = headers.version === 4 ? session.offloads.tcpv4 : session.offloads.tcpv6;
    const isKnown = (offload & RECEIVE) !== 0;
    if (!isKnown) headers.finishTransport(this.#scratch);
    let checksums = isKnown ? RxChecksum.tcpOk | RxChecksum.tcpValueInvalid : 0;
    if (isKnown && headers.version === 4 && (session.offloads.ipv4 & RECEIVE) !== 0) checksums |= RxChecksum.ipOk;
    const number = this.#packetId;
    this.#packetId = (number + 1) & 0xffff;
    for (let i = 0; i < parts; i++) {
      const from = FRAME_AT + i * partBytes;
      const flags = Fragment.subAllocated | (i === 0 ? Fragment.first : 0) | (i === parts - 1 ? Fragment.last : 0);
      // The message's header goes over the end of the part before, which the guest has.
      this.#put(receive, target, from, Math.min(from + partBytes, end), checksums, packetId(flags, number));
      this.#tag = -1;
      checksums = 0;
    }
    statistics.coalesced++;
    this.#count(target, 1, end - FRAME_AT);
    target.collected();
    return true;
  }
  #segmented(receive: ReceiveBuffer, target: ReceiveTarget, segmentSize: number): boolean {
    const { statistics, session } = this.#owner;
    const headers = this.#headers;
    const room = session.mtu - (headers.payload - headers.ip);
    if (room <= 0) return lost(statistics.drops, "unfit");
    const segmentation = this.#segmentation;
    segmentation.begin(this.#scratch, FRAME_AT, headers, Math.min(segmentSize, room));
    const { count } = segmentation;
    if (!receive.couldHold(count)) return lost(statistics.drops, "unfit");
    if (!this.#hasRoomForMany(receive, target, count)) return false;
    const offload = headers.version === 4 ? session.offloads.tcpv4 : session.offloads.tcpv6;
    let checksums = (offload & RECEIVE) !== 0 ? RxChecksum.tcpOk : 0;
    if (headers.version === 4 && (session.offloads.ipv4 & RECEIVE) !== 0) checksums |= RxChecksum.ipOk;
    for (let i = 0; i < count; i++) {
      // Beyond what one packet holds; `flush` was tried before, and what does not go now is lost as on a wire.
      if (target.batch.count === MAX_RANGES && !target.flush()) break;
      const length = segmentation.write(i, this.#scratch, PIECE_AT, headers);
      this.#frame(receive, target, PIECE_AT, PIECE_AT + length, checksums);
      statistics.segments++;
    }
    return true;
  }
  #hasRoomForMany(receive: ReceiveBuffer, target: ReceiveTarget, sections: number): boolean {
    if (receive.freeForFrames < sections) return this.#refuse(sections);
    return this.#hasRoom(receive, target, Math.min(sections, MAX_RANGES));
  }
}

function lost(drops: NetworkStatistics["drops"], why: keyof NetworkStatistics["drops"]): true {
  drops[why]++;
  return true;
}
function startsWith(frame: Uint8Array, address: Uint8Array): boolean {
  for (let i = 0; i < MAC_BYTES; i++) if (frame[i] !== address[i]) return false;
  return true;
}
function isBroadcast(frame: Uint8Array): boolean {
  for (let i = 0; i < MAC_BYTES; i++) if (frame[i] !== 0xff) return false;
  return true;
}
