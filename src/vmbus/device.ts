/**
 * The contract between VMBus and the services behind it: a service offers devices, the guest opens their channels, packets go
 * both ways. Everything is synchronous; a service that must wait answers later, from another event.
 */
import type { GpaRanges } from "./gpa-ranges.js";

/** Ring packet types (VMBus, "packet descriptor"). */
export const PacketType = {
  inBand: 6,
  transferPages: 7,
  gpaDirect: 9,
  completion: 11,
} as const;
/** Descriptor flag: the sender wants a completion. */
export const COMPLETION_REQUESTED = 1;

/** Channel flags of an offer. */
export const OfferFlag = { enumerate: 0x1, namedPipe: 0x10, tlnpi: 0x2000 } as const;

export interface OfferParameters {
  /** For people: "storage", "heartbeat". */
  readonly name: string;
  /** GUIDs, text in lower case. */
  readonly classId: string;
  readonly instanceId: string;
  /** OfferFlag bits. */
  readonly flags: number;
  readonly mmioMegabytes: number;
  /** Up to 120 bytes; the rest is 0. */
  readonly userDefined: Uint8Array;
}

/** A packet from the guest: one object for all of a channel's packets, valid during the call, all of it copied out of guest memory. */
export interface InboundPacket {
  readonly type: number;
  readonly flags: number;
  /** Opaque 64 bits, to be repeated in the completion. */
  readonly transactionLow: number;
  readonly transactionHigh: number;
  /** Bytes behind descriptor and range list; only the first `payloadLength` belong to this packet. */
  readonly payload: Uint8Array;
  readonly payloadLength: number;
  /** The buffers of a GPA-direct packet, all inside guest RAM; empty for other types. */
  readonly ranges: GpaRanges;
}

/** A packet to the guest. Callers keep and reuse the object. */
export interface OutboundPacket {
  type: number;
  flags: number;
  transactionLow: number;
  transactionHigh: number;
  payload: Uint8Array;
  /** Bytes of `payload` that are sent; the ring pads to 8. */
  payloadLength: number;
  /** Bytes at the beginning of `payload` that belong to the header (set and ranges of a transfer-pages packet); a multiple of 8. */
  headerLength?: number;
}

/** An open channel, as its service sees it. */
export interface Channel {
  readonly relid: number;
  /** 0 for the primary channel of the device. */
  readonly subIndex: number;
  /** Version of the connection: major << 16 | minor. */
  readonly vmbusVersion: number;
  /** The 120 bytes that the guest gave when it opened; a copy. */
  readonly userData: Uint8Array;
  /** Data bytes of the ring towards the guest: a packet of `ring - 8` bytes with descriptor and trailer is the largest. */
  readonly outRingBytes: number;
  /**
   * Puts a packet into the ring. The guest is signalled, if it must be, at the end of the turn (`VmbusServer.flush`).
   * @returns false when there is no room now: nothing was written, and the handler's `onSpace` is called once when there may be
   */
  send(packet: OutboundPacket): boolean;
  /** Whether the guest has taken everything that was sent. */
  readonly outEmpty: boolean;
  /** No more packets are handed over until `resume`: they stay in the ring, and the guest's writer comes to wait. */
  pause(): void;
  resume(): void;
  /** The pages of a GPADL of this channel; undefined when there is none of this handle. To be asked each time: the guest takes them back. */
  gpadl(handle: number): GpaRanges | undefined;
}

/** What a service does with an open channel. */
export interface ChannelHandler {
  /** A GuestViolation that it throws (`onSpace` and `VmbusDevice.open` too) is recorded and shuts the channel down. */
  onPacket(packet: InboundPacket): void;
  /** There may be room in the ring again, after `send` said there was none. */
  onSpace?(): void;
  /** The guest has closed it or broken its rings, the device was rescinded, or the machine reset: nothing can be sent any more. */
  onClose(): void;
}

/** A device that a service offers. */
export interface VmbusDevice {
  readonly offer: OfferParameters;
  /** For people: the protocol version that the guest's driver agreed on, "3.2"; undefined before, and where there is none. */
  readonly negotiated?: string | undefined;
  /** The guest opens a channel of it. @returns undefined to refuse */
  open(channel: Channel): ChannelHandler | undefined;
  /** Plain data; `channels` are saved by the bus. */
  save(): unknown;
  /** Into a device made anew. @returns a handler for each of the channels that were open, in the order given */
  restore(state: unknown, channels: readonly Channel[]): readonly ChannelHandler[];
}

/** What the bus gives for an offered device. */
export interface Offer {
  readonly device: VmbusDevice;
  /** Offers sub-channels 1..count, once; a guest that connects anew must ask its service again. */
  offerSubChannels(count: number): void;
  /** Takes the device away. `released` is called when the guest has let go of it (or was never told). */
  rescind(released?: () => void): void;
}

/** How the bus reaches the processors' SynICs. All calls from the device side's thread. */
export interface SynicPort {
  /** Queues a message (type, payload up to 240 bytes) for a SINT. @returns false when the queue is full: again later (`VmbusServer.onQueueSpace`) */
  post(vp: number, sint: number, type: number, payload: Uint8Array, lengthBytes: number): boolean;
  /** Sets an event flag. */
  signal(vp: number, sint: number, flag: number): void;
  /** From now on SignalEvent knows (or no longer knows) the connection of this relid: CONNECTION_BASE + relid. */
  setConnection(relid: number, connected: boolean): void;
  readonly processors: number;
}

/** SignalEvent's connection id of a channel: this plus its relid. Ids 1 to 4 have fixed meanings. */
export const CONNECTION_BASE = 0x10000;
export const MAX_RELID = 2047;
