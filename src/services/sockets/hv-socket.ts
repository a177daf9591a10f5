/**
 * Hyper-V sockets: a stream over one VMBus channel (Linux: net/vmw_vsock/hyperv_transport). Data packets carry a pipe header;
 * a length of 0 ends a direction. The last close in a Linux guest waits until the host rescinds the channel, so that it always must.
 */
import type { Deadlines } from "../../machine/device.js";
import { GuestViolation, invariant } from "../../machine/guest-violation.js";
import {
  type Channel,
  type ChannelHandler,
  type InboundPacket,
  type Offer,
  OfferFlag,
  type OfferParameters,
  type OutboundPacket,
  PacketType,
  type VmbusDevice,
} from "../../vmbus/device.js";
import { PIPE_DATA } from "../integration/ic-protocol.js";

const PIPE_HEADER = 8;
/** Most data of a packet to the guest: four times what the guest sends at once, and no more than Linux's buffer takes. */
export const MAX_PACKET_DATA = 16384;
/** Descriptor, pipe header and trailer: what a FIN takes in the ring, and a packet beside its data. */
const PACKET_OVERHEAD = 32;
/** Bytes that wait for room in the ring; beyond it the writer is told to wait. */
const HIGH_WATER = 256 << 10;
/** How long a guest may take to open the channel that it was offered, from when it last opened one: it takes them one after the other. */
const OPEN_PATIENCE_NS = 5e9;
/** However many it opens. */
const LONGEST_PATIENCE_NS = 30e9;
/** How long after both ends have closed, the guest may go on reading what is in its ring. */
const LINGER_NS = 5e9;
/** Guests do not signal that they have read: first look after so long, then after twice that, and so on. */
const FIRST_LOOK_NS = 1e6;

/** Byte 4 of the offer's user-defined data: the guest is to accept the connection (it has not asked for it). */
const ACCEPTS = 4;

export type SocketState = "opening" | "open" | "closing" | "closed";
export type SocketFailure = "refused" | "reset";

export interface SocketEvents {
  onOpen(): void;
  /** A copy, the receiver's own. */
  onData(data: Uint8Array<ArrayBuffer>): void;
  /** The guest will send no more. */
  onEnd(): void;
  /** There is room again after `write` returned false. */
  onDrain(): void;
  /** The last event. */
  onClose(failure: SocketFailure | undefined): void;
}

export interface SocketOptions {
  readonly classId: string;
  readonly instanceId: string;
  /** The guest listens and we connect; false: it asked for the connection. */
  readonly guestAccepts: boolean;
  readonly events: SocketEvents;
  readonly now: () => number;
  readonly deadlines: Deadlines;
  /** Unique among the sockets' deadlines. */
  readonly deadline: string;
  /** When the guest opened the channel of a socket last, of any; they share the object. */
  readonly opened: { at: number };
}
/** The bus's channels show this beside their contract; where they do not, only an empty ring counts as read. */
type RingChannel = Channel & { readonly outBytes?: number };

/** One connection. */
export class HvSocket implements VmbusDevice, ChannelHandler {
  readonly offer: OfferParameters;
  readonly #o: SocketOptions;
  #offer: Offer | undefined;
  #channel: RingChannel | undefined;
  #state: SocketState = "opening";
  /** Data, and at the end an empty piece for FIN, that wait for room. */
  readonly #queue: Uint8Array[] = [];
  #queued = 0;
  /** Bytes of the first piece that have left. */
  #sentOfFirst = 0;
  #wantsDrain = false;
  #paused = false;
  #ended = false;
  /** Our direction has ended for the guest, by a FIN or because it will see the rescind. */
  #finished = false;
  #finInRing = false;
  #guestEnded = false;
  /** In state "closing": until when the guest may read, and the wait between two looks. */
  #lingerUntil = 0;
  #lookAfter = FIRST_LOOK_NS;
  #offeredAt = 0;
  readonly #packet: OutboundPacket = {
    type: PacketType.inBand,
    flags: 0,
    transactionLow: 0,
    transactionHigh: 0,
    payload: new Uint8Array(PIPE_HEADER + MAX_PACKET_DATA),
    payloadLength: 0,
  };
  readonly #header: DataView;
  bytesIn = 0;
  bytesOut = 0;

  constructor(o: SocketOptions) {
    this.#o = o;
    this.#header = new DataView(this.#packet.payload.buffer);
    this.#header.setUint32(0, PIPE_DATA, true);
    const userDefined = new Uint8Array(10);
    userDefined[ACCEPTS] = o.guestAccepts ? 1 : 0;
    userDefined[6] = 1; // version
    this.offer = {
      name: "socket",
      classId: o.classId,
      instanceId: o.instanceId,
      flags: OfferFlag.tlnpi | OfferFlag.enumerate | OfferFlag.namedPipe,
      mmioMegabytes: 0,
      userDefined,
    };
  }
  get state(): SocketState {
    return this.#state;
  }
  get deadline(): string {
    return this.#o.deadline;
  }
  /** The bus has taken the offer. */
  offered(offer: Offer): void {
    this.#offer = offer;
    this.#offeredAt = this.#o.now();
    this.#o.deadlines.set(this.#o.deadline, this.#openUntil);
  }
  get #openUntil(): number {
    const from = this.#offeredAt;
    return Math.min(Math.max(from, this.#o.opened.at) + OPEN_PATIENCE_NS, from + LONGEST_PATIENCE_NS);
  }

  // ---- for the host's end -----------------------------------------------------------------------------------------------
  /** @returns false: no more until `onDrain`. The bytes are kept until they have left: the caller gives them away */
  write(data: Uint8Array): boolean {
    if (this.#ended || this.#state === "closed" || data.length === 0) return true;
    this.#queue.push(data);
    this.#queued += data.length;
    this.#pump();
    this.#wantsDrain = this.#queued > HIGH_WATER;
    return !this.#wantsDrain;
  }
  /** No more data from this end. */
  end(): void {
    if (this.#ended || this.#state === "closed") return;
    this.#ended = true;
    this.#queue.push(new Uint8Array(0));
    this.#pump();
  }
  /** Ends it at once, in both directions. */
  destroy(): void {
    if (this.#state === "closed") return;
    this.#ended = true;
    this.#close("reset");
  }
  /** The receiver is busy: data stay in the ring, and the guest's writer waits. */
  pause(): void {
    this.#paused = true;
    this.#channel?.pause();
  }
  resume(): void {
    this.#paused = false;
    this.#channel?.resume();
  }

  // ---- for the bus ------------------------------------------------------------------------------------------------------
  open(channel: Channel): ChannelHandler | undefined {
    if (this.#channel !== undefined || this.#state !== "opening") return undefined;
    this.#channel = channel;
    this.#state = "open";
    this.#o.opened.at = this.#o.now();
    this.#o.deadlines.set(this.#o.deadline, undefined);
    if (this.#paused) channel.pause();
    this.#o.events.onOpen();
    this.#pump();
    return this;
  }
  onPacket(packet: InboundPacket): void {
    const { payload, payloadLength } = packet;
    const view = new DataView(payload.buffer, payload.byteOffset, payloadLength);
    const size = payloadLength >= PIPE_HEADER ? view.getUint32(4, true) : -1;
    const isData = packet.type === PacketType.inBand && size >= 0 && view.getUint32(0, true) === PIPE_DATA;
    // recorded, and the bus then closes the channel
    if (!isData) throw new GuestViolation("socket", "no packet of data (Hyper-V sockets, pipe header)", packet.type);
    if (size > payloadLength - PIPE_HEADER || size > MAX_PACKET_DATA)
      throw new GuestViolation("socket", "more data than the packet has (Hyper-V sockets, pipe header)", size);
    if (this.#guestEnded) return;
    if (size === 0) {
      this.#guestEnded = true;
      this.#o.events.onEnd();
      this.#closeWhenDone();
      return;
    }
    this.bytesIn += size;
    this.#o.events.onData(payload.slice(PIPE_HEADER, PIPE_HEADER + size) as Uint8Array<ArrayBuffer>);
  }
  onSpace(): void {
    this.#pump();
  }
  onClose(): void {
    this.#channel = undefined;
    this.#close(this.#guestEnded && this.#finished ? undefined : "reset");
  }
  /** The bus has let go of it: the guest has released it, or has let go of the whole bus. */
  released(): void {
    this.#close(this.#state === "opening" ? "refused" : "reset");
  }

  /** Sends what fits. */
  #pump(): void {
    const channel = this.#channel;
    if (channel === undefined || this.#state !== "open") return;
    while (this.#queue.length > 0) {
      const first = this.#queue[0]!;
      if (first.length === 0 && this.#guestEnded && channel.outEmpty) {
        // the guest has closed and has read everything: the rescind is its end, a FIN would only lie there
        this.#queue.shift();
        this.#finished = true;
        break;
      }
      // a packet that the ring can hold whole, with room for a FIN behind it
      const most = Math.min(MAX_PACKET_DATA, (channel.outRingBytes >> 1) - 2 * PACKET_OVERHEAD);
      const n = Math.min(first.length - this.#sentOfFirst, most);
      this.#header.setUint32(4, n, true);
      this.#packet.payload.set(first.subarray(this.#sentOfFirst, this.#sentOfFirst + n), PIPE_HEADER);
      this.#packet.payloadLength = PIPE_HEADER + n;
      if (!channel.send(this.#packet)) break;
      this.bytesOut += n;
      this.#queued -= n;
      this.#sentOfFirst += n;
      if (this.#sentOfFirst < first.length) continue;
      this.#queue.shift();
      this.#sentOfFirst = 0;
      if (first.length === 0) this.#finished = this.#finInRing = true;
    }
    if (this.#wantsDrain && this.#queued <= HIGH_WATER / 2) {
      this.#wantsDrain = false;
      this.#o.events.onDrain();
    }
    this.#closeWhenDone();
  }
  /** Both directions have ended: the guest gets time to read the rest, then the channel goes. */
  #closeWhenDone(): void {
    if (this.#state !== "open" || !this.#guestEnded || !this.#finished) return;
    this.#state = "closing";
    this.#lingerUntil = this.#o.now() + LINGER_NS;
    this.onDeadline();
  }
  /** Whether the guest has read everything. Linux looks at a FIN in the ring and leaves it there. */
  get #isRead(): boolean {
    const channel = this.#channel;
    if (channel === undefined || channel.outEmpty) return true;
    return this.#finInRing && channel.outBytes !== undefined && channel.outBytes <= PACKET_OVERHEAD;
  }
  /** It only waits for the guest to have read: looks whether it has. */
  checkReader(): void {
    if (this.#state === "closing" && this.#isRead) this.#close(undefined);
  }
  /** Its deadline is due. */
  onDeadline(): void {
    const now = this.#o.now();
    if (this.#state === "opening" && now < this.#openUntil) {
      this.#o.deadlines.set(this.#o.deadline, this.#openUntil);
      return;
    }
    if (this.#state === "opening" || (this.#state === "closing" && (this.#isRead || now >= this.#lingerUntil))) {
      this.giveUp();
      return;
    }
    if (this.#state !== "closing") return;
    this.#o.deadlines.set(this.#o.deadline, Math.min(now + this.#lookAfter, this.#lingerUntil));
    this.#lookAfter *= 2;
  }
  /** Waits no longer, for the guest to open it or to read the rest. */
  giveUp(): void {
    if (this.#state === "opening") this.#close("refused");
    else if (this.#state === "closing") this.#close(undefined);
  }
  /** The guest's close waits for the rescind without end (Linux: `hvs_destruct`), so that each way here leads to one. */
  #close(failure: SocketFailure | undefined): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#queue.length = 0;
    this.#queued = 0;
    this.#o.deadlines.set(this.#o.deadline, undefined);
    this.#offer?.rescind();
    this.#o.events.onClose(failure);
  }

  /** Nothing: the offer is transient, and the guest of a restored machine is told that it has gone. */
  save(): undefined {
    return undefined;
  }
  restore(): never {
    invariant(false, "transient offers are not restored");
  }
}
