/** Frames that go to the guest in one ring packet: a list of sections of the receive buffer (VMBus, "transfer pages"). */

import { writeU16, writeU32 } from "../../vmbus/byte-order.js";
import { type Channel, COMPLETION_REQUESTED, type OutboundPacket, PacketType } from "../../vmbus/device.js";
import { At, type ChannelType, MESSAGE_BYTES, NO_SECTION, NvspType } from "./nvsp.js";
import type { ReceiveBuffer } from "./receive-buffer.js";

/** Sections of a ring packet: a coalesced packet must be in one. Linux takes 375 of others, 562 of those. */
export const MAX_RANGES = 128;
const SET_BYTES = 8;
const RANGE_BYTES = 8;

export class ReceiveBatch {
  readonly #payload = new Uint8Array(SET_BYTES + MAX_RANGES * RANGE_BYTES + MESSAGE_BYTES);
  readonly #packet: OutboundPacket = {
    type: PacketType.transferPages,
    flags: COMPLETION_REQUESTED,
    transactionLow: 0,
    transactionHigh: 0,
    payload: this.#payload,
    payloadLength: 0,
    headerLength: 0,
  };
  readonly #channelType: number;
  #count = 0;
  #first = -1;
  #last = -1;

  constructor(channelType: (typeof ChannelType)[keyof typeof ChannelType]) {
    this.#channelType = channelType;
  }
  get count(): number {
    return this.#count;
  }
  /** Writes a message into a free section (there must be one), and adds it. @returns false when the pages are the guest's again */
  add(receive: ReceiveBuffer, from: Uint8Array, at: number, length: number): boolean {
    const section = receive.take(this.#last);
    if (this.#count === 0) this.#first = section;
    this.#last = section;
    const offset = receive.offsetOf(section);
    writeU32(this.#payload, SET_BYTES + this.#count * RANGE_BYTES, length);
    writeU32(this.#payload, SET_BYTES + this.#count * RANGE_BYTES + 4, offset);
    this.#count++;
    return receive.buffer.write(offset, from, at, length);
  }
  /** @returns false when there is no room in the ring: it stays as it is */
  send(receive: ReceiveBuffer, channel: Channel): boolean {
    const payload = this.#payload;
    const packet = this.#packet;
    const header = SET_BYTES + this.#count * RANGE_BYTES;
    writeU16(payload, 0, receive.buffer.id);
    writeU16(payload, 2, 0);
    writeU32(payload, 4, this.#count);
    payload.fill(0, header, header + MESSAGE_BYTES);
    writeU32(payload, header + At.type, NvspType.rndisPacket);
    writeU32(payload, header + At.channelType, this.#channelType);
    writeU32(payload, header + At.sectionIndex, NO_SECTION);
    packet.headerLength = header;
    packet.payloadLength = header + MESSAGE_BYTES;
    packet.transactionLow = this.#first + 1;
    packet.transactionHigh = receive.lend(this.#first, channel.subIndex);
    if (!channel.send(packet)) {
      receive.unlend(this.#first);
      return false;
    }
    this.#clear();
    return true;
  }
  /** Its sections are free again. */
  drop(receive: ReceiveBuffer | undefined): void {
    if (this.#count > 0) receive?.drop(this.#first);
    this.#clear();
  }
  #clear(): void {
    this.#count = 0;
    this.#first = this.#last = -1;
  }
  /** The ranges, with the first and the last section. */
  save(): SavedBatch | undefined {
    if (this.#count === 0) return undefined;
    const ranges = this.#payload.slice(SET_BYTES, SET_BYTES + this.#count * RANGE_BYTES);
    return { first: this.#first, last: this.#last, ranges };
  }
  restore(saved: SavedBatch | undefined): void {
    if (saved === undefined) return;
    this.#first = saved.first;
    this.#last = saved.last;
    this.#count = saved.ranges.length / RANGE_BYTES;
    this.#payload.set(saved.ranges, SET_BYTES);
  }
}

/** Plain data. */
export interface SavedBatch {
  readonly first: number;
  readonly last: number;
  readonly ranges: Uint8Array;
}
