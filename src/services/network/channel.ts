/**
 * One channel of a network adapter: the guest's packets are taken one after the other, each is ended exactly once, with a completion
 * if it wants one. While a completion finds no room, or a frame waits for the other end, the guest's packets stay in the ring.
 */

import { readU32, writeU32 } from "../../vmbus/byte-order.js";
import {
  type Channel,
  type ChannelHandler,
  COMPLETION_REQUESTED,
  type InboundPacket,
  type OutboundPacket,
  PacketType,
} from "../../vmbus/device.js";
import { At, ChannelType, MESSAGE_BYTES, NvspStatus, NvspType, PACKET_COMPLETE_BYTES } from "./nvsp.js";
import type { ReceiveTarget } from "./receive.js";
import { ReceiveBatch, type SavedBatch } from "./receive-batch.js";
import type { Session } from "./session.js";
import { type SavedTransmission, Transmission, type TransmitOwner } from "./transmit.js";

/** Bytes of RNDIS_PACKET that are needed. */
const RNDIS_PACKET_BYTES = 16;

/** What a channel asks of its adapter. */
export interface ChannelOwner {
  readonly session: Session;
  readonly transmit: TransmitOwner;
  /** A message of control, in RNDIS. */
  control(message: Uint8Array): void;
  /** An NVSP message that is not RNDIS. @returns bytes of the answer, written into `reply` */
  negotiate(channel: NetworkChannel, type: number, packet: InboundPacket, reply: Uint8Array): number;
  /** The guest gives a packet's sections back. */
  released(channel: NetworkChannel, packet: InboundPacket): void;
  /** What follows a packet, when its completion has been sent or waits: offers, answers. */
  after(): void;
  /** There may be room in the ring. */
  space(): void;
  collected(): void;
  closed(channel: NetworkChannel): void;
  violation(relid: number, text: string): void;
}

/** Plain data. */
export interface SavedNetworkChannel {
  readonly subIndex: number;
  readonly batch: SavedBatch | undefined;
  readonly transmission: SavedTransmission | undefined;
  readonly transactionLow: number;
  readonly transactionHigh: number;
  readonly isWanted: boolean;
  /** A completion that waits for room. */
  readonly owed: Uint8Array | undefined;
}

/** Counters of a channel, for people. */
export interface NetworkChannelStatus {
  readonly subIndex: number;
  readonly transmittedFrames: number;
  readonly transmittedBytes: number;
  readonly receivedFrames: number;
  readonly receivedBytes: number;
  /** A frame of the guest waits for the other end. */
  readonly isHeld: boolean;
}

export class NetworkChannel implements ChannelHandler, ReceiveTarget {
  readonly subIndex: number;
  readonly relid: number;
  readonly channel: Channel;
  readonly batch = new ReceiveBatch(ChannelType.data);
  receivedFrames = 0;
  receivedBytes = 0;
  readonly #owner: ChannelOwner;
  readonly #transmission: Transmission;
  readonly #reply = new Uint8Array(MESSAGE_BYTES);
  readonly #completion: OutboundPacket = {
    type: PacketType.completion,
    flags: 0,
    transactionLow: 0,
    transactionHigh: 0,
    payload: this.#reply,
    payloadLength: 0,
  };
  /** The packet that is being handled wants a completion. */
  #isWanted = false;
  /** Its completion waits for room. */
  #isOwed = false;
  #paused = false;
  #closed = false;

  constructor(channel: Channel, owner: ChannelOwner) {
    this.channel = channel;
    this.subIndex = channel.subIndex;
    this.relid = channel.relid;
    this.#owner = owner;
    this.#transmission = new Transmission(owner.transmit);
  }

  onPacket(packet: InboundPacket): void {
    if (packet.type === PacketType.completion) {
      this.#owner.released(this, packet);
      return;
    }
    this.#isWanted = (packet.flags & COMPLETION_REQUESTED) !== 0;
    this.#completion.transactionLow = packet.transactionLow;
    this.#completion.transactionHigh = packet.transactionHigh;
    const type = packet.payloadLength < At.type + 4 ? 0 : readU32(packet.payload, At.type);
    const isKnown = packet.type === PacketType.inBand || packet.type === PacketType.gpaDirect;
    if (!isKnown) {
      this.#owner.violation(this.relid, `packet type ${packet.type} has no meaning in NVSP`);
      this.#end(0);
    } else if (type === NvspType.rndisPacket) this.#rndis(packet);
    else {
      const length = this.#owner.negotiate(this, type, packet, this.#reply);
      // A device may have been closed by what it was asked.
      if (!this.#closed) this.#end(length);
    }
    this.#owner.after();
  }
  onSpace(): void {
    if (this.#isOwed && this.channel.send(this.#completion)) this.#isOwed = false;
    this.flush();
    this.#owner.space();
    this.#flow();
  }
  onClose(): void {
    this.#closed = true;
    this.#isOwed = false;
    this.#transmission.clear();
    this.batch.drop(this.#owner.session.receive);
    this.#owner.closed(this);
  }
  /** There is room at the other end: goes on with the frame that waits. */
  resume(): void {
    if (this.#transmission.isHeld) this.#run();
  }
  /** Nothing may wait for the other end any more. */
  giveUp(): void {
    if (!this.#transmission.isHeld) return;
    this.#transmission.dropHeld();
    this.#run();
  }
  flush(): boolean {
    if (this.batch.count === 0) return true;
    const { receive } = this.#owner.session;
    if (receive?.buffer.isLent !== true) {
      this.batch.drop(receive);
      return true;
    }
    return this.batch.send(receive, this.channel);
  }
  collected(): void {
    this.#owner.collected();
  }
  get status(): NetworkChannelStatus {
    const { transmittedFrames, transmittedBytes, isHeld } = this.#transmission;
    const { subIndex, receivedFrames, receivedBytes } = this;
    return { subIndex, transmittedFrames, transmittedBytes, receivedFrames, receivedBytes, isHeld };
  }

  #rndis(packet: InboundPacket): void {
    const { payload } = packet;
    const transmission = this.#transmission;
    const channelType = packet.payloadLength < RNDIS_PACKET_BYTES ? -1 : readU32(payload, At.channelType);
    const isLoaded =
      (channelType === ChannelType.data || channelType === ChannelType.control) &&
      transmission.load(
        this.#owner.session.send,
        readU32(payload, At.sectionIndex),
        readU32(payload, At.sectionUsed),
        packet.ranges,
      );
    if (!isLoaded) {
      this.#owner.violation(this.relid, "RNDIS_PACKET of another kind, or with data that is not there");
      this.#complete(NvspStatus.invalidRndisPacket);
    } else if (channelType === ChannelType.data) this.#run();
    else {
      this.#owner.control(transmission.message);
      transmission.clear();
      this.#complete(NvspStatus.success);
    }
  }
  #run(): void {
    const transmission = this.#transmission;
    if (transmission.run()) {
      if (transmission.isMalformed) this.#owner.violation(this.relid, "not an RNDIS PACKET message");
      this.#complete(transmission.isMalformed ? NvspStatus.invalidRndisPacket : NvspStatus.success);
    }
    this.#flow();
  }
  #complete(status: number): void {
    writeU32(this.#reply, At.type, NvspType.rndisPacketComplete);
    writeU32(this.#reply, At.status, status);
    this.#end(PACKET_COMPLETE_BYTES);
  }
  #end(length: number): void {
    if (!this.#isWanted) return;
    this.#isWanted = false;
    this.#completion.payloadLength = length;
    if (!this.channel.send(this.#completion)) this.#isOwed = true;
    this.#flow();
  }
  #flow(): void {
    const mustPause = this.#isOwed || this.#transmission.isHeld;
    if (mustPause === this.#paused || this.#closed) return;
    this.#paused = mustPause;
    if (mustPause) this.channel.pause();
    else this.channel.resume();
  }

  save(): SavedNetworkChannel {
    return {
      subIndex: this.subIndex,
      batch: this.batch.save(),
      transmission: this.#transmission.save(),
      transactionLow: this.#completion.transactionLow,
      transactionHigh: this.#completion.transactionHigh,
      isWanted: this.#isWanted,
      owed: this.#isOwed ? this.#reply.slice(0, this.#completion.payloadLength) : undefined,
    };
  }
  /** The bus restores that the channel is paused. */
  restore(saved: SavedNetworkChannel): void {
    this.batch.restore(saved.batch);
    this.#completion.transactionLow = saved.transactionLow;
    this.#completion.transactionHigh = saved.transactionHigh;
    this.#isWanted = saved.isWanted;
    if (saved.transmission !== undefined) this.#transmission.restore(saved.transmission);
    if (saved.owed !== undefined) {
      this.#isOwed = true;
      this.#reply.set(saved.owed);
      this.#completion.payloadLength = saved.owed.length;
    }
    this.#paused = this.#isOwed || this.#transmission.isHeld;
  }
}
