/**
 * One channel of a storage controller: packets become requests, requests become completions. A completion that finds no room waits
 * in order; meanwhile, and while too much is under way, the guest's packets stay in the ring.
 */
import type { GuestMemory } from "../../machine/guest-memory.js";
import {
  type Channel,
  type ChannelHandler,
  COMPLETION_REQUESTED,
  type InboundPacket,
  type OutboundPacket,
  PacketType,
} from "../../vmbus/device.js";
import { PACKET_BYTES } from "./protocol.js";
import { type RequestOwner, StorageRequest } from "./request.js";

/** Requests under way at which no more are taken: a guest's queue is shorter than that. */
export const MAX_IN_FLIGHT = 256;

/** What a channel asks of its controller. */
export interface ChannelOwner {
  readonly memory: GuestMemory;
  /** Does what the packet asks; ends the request exactly once. */
  execute(channel: StorageChannel, request: StorageRequest, packet: InboundPacket): void;
  /** A request has ended: its completion has been sent, waits, or is not wanted any more. */
  ended(request: StorageRequest): void;
  closed(channel: StorageChannel): void;
  violation(relid: number, text: string): void;
}

/** A completion that waits for room. */
export interface SavedCompletion {
  readonly transactionLow: number;
  readonly transactionHigh: number;
  readonly payload: Uint8Array;
}

export class StorageChannel implements ChannelHandler, RequestOwner {
  readonly subIndex: number;
  readonly relid: number;
  readonly #channel: Channel;
  readonly #owner: ChannelOwner;
  readonly #outbound: OutboundPacket;
  /** All that were made, and those that are not in use. */
  readonly #all: StorageRequest[] = [];
  readonly #free: StorageRequest[] = [];
  readonly #waiting: StorageRequest[] = [];
  #inFlight = 0;
  #paused = false;
  #closed = false;
  /** A packet of our own that waits for room behind the completions. */
  #unsolicited: Uint8Array | undefined;

  constructor(channel: Channel, owner: ChannelOwner) {
    this.#channel = channel;
    this.#owner = owner;
    this.subIndex = channel.subIndex;
    this.relid = channel.relid;
    this.#outbound = {
      type: PacketType.completion,
      flags: 0,
      transactionLow: 0,
      transactionHigh: 0,
      payload: new Uint8Array(0),
      payloadLength: 0,
    };
  }

  onPacket(packet: InboundPacket): void {
    if (packet.type !== PacketType.inBand && packet.type !== PacketType.gpaDirect) {
      this.#owner.violation(this.relid, `packet type ${packet.type} has no meaning in VSTOR`);
      if (packet.type === PacketType.completion) return;
    }
    if ((packet.flags & COMPLETION_REQUESTED) === 0) {
      // The guest could not know what became of it, and its id may be anything.
      this.#owner.violation(this.relid, "VSTOR packet without a wish for its completion");
      return;
    }
    const request = this.#take();
    request.begin(packet);
    this.#inFlight++;
    this.#owner.execute(this, request, packet);
    this.#flow();
  }
  onSpace(): void {
    while (this.#waiting.length > 0 && this.#sendCompletion(this.#waiting[0]!)) this.#free.push(this.#waiting.shift()!);
    this.#sendUnsolicited();
    this.#flow();
  }
  onClose(): void {
    this.#closed = true;
    for (const request of this.#all) request.cancelled = true;
    this.#waiting.length = 0;
    this.#unsolicited = undefined;
    this.#owner.closed(this);
  }
  /** Of a request of this channel. */
  ended(request: StorageRequest): void {
    this.#inFlight--;
    if (!this.#closed) {
      if (this.#waiting.length === 0 && this.#sendCompletion(request)) this.#free.push(request);
      else this.#waiting.push(request);
      this.#flow();
    }
    this.#owner.ended(request);
  }
  /** Sends a packet of our own as soon as there is room; one of a kind is enough. */
  notify(payload: Uint8Array): void {
    this.#unsolicited = payload;
    if (this.#waiting.length === 0) this.#sendUnsolicited();
  }

  get isNotifying(): boolean {
    return this.#unsolicited !== undefined;
  }
  saveCompletions(): SavedCompletion[] {
    return this.#waiting.map((r) => ({
      transactionLow: r.transactionLow,
      transactionHigh: r.transactionHigh,
      payload: r.reply.slice(0, r.payloadLength),
    }));
  }
  /** Puts them into the queue of a channel made anew, and sends what it can. */
  restoreCompletions(saved: readonly SavedCompletion[]): void {
    for (const completion of saved) {
      const request = this.#take();
      request.transactionLow = completion.transactionLow;
      request.transactionHigh = completion.transactionHigh;
      request.payloadLength = completion.payload.length;
      request.reply.set(completion.payload);
      this.#waiting.push(request);
    }
    this.onSpace();
  }

  #take(): StorageRequest {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    const made = new StorageRequest(this, this.#owner.memory);
    this.#all.push(made);
    return made;
  }
  #sendCompletion(request: StorageRequest): boolean {
    const out = this.#outbound;
    out.type = PacketType.completion;
    out.transactionLow = request.transactionLow;
    out.transactionHigh = request.transactionHigh;
    out.payload = request.reply;
    out.payloadLength = request.payloadLength;
    return this.#channel.send(out);
  }
  #sendUnsolicited(): void {
    if (this.#unsolicited === undefined || this.#waiting.length > 0) return;
    const out = this.#outbound;
    out.type = PacketType.inBand;
    out.transactionLow = 0;
    out.transactionHigh = 0;
    out.payload = this.#unsolicited;
    out.payloadLength = PACKET_BYTES;
    if (this.#channel.send(out)) this.#unsolicited = undefined;
  }
  #flow(): void {
    const full = this.#waiting.length > 0 || this.#inFlight >= MAX_IN_FLIGHT;
    if (full === this.#paused || this.#closed) return;
    this.#paused = full;
    if (full) this.#channel.pause();
    else this.#channel.resume();
  }
}
