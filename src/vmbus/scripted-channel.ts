/**
 * A channel for tests of services: it keeps VMBus's contract and nothing more. What a packet lends is spoilt after each call, so that
 * nothing can live on it.
 */
import { invariant } from "../machine/guest-violation.js";
import { type Channel, type ChannelHandler, COMPLETION_REQUESTED, type OutboundPacket, PacketType } from "./device.js";
import { GpaRanges } from "./gpa-ranges.js";

export interface SentPacket {
  readonly type: number;
  readonly flags: number;
  readonly low: number;
  readonly high: number;
  readonly payload: Uint8Array;
  readonly headerLength: number;
}
/** Guest memory of a range: any address, any length. */
export interface Piece {
  readonly gpa: number;
  readonly length: number;
}
export interface GuestPacket {
  readonly type?: number;
  readonly flags?: number;
  readonly low: number;
  readonly high?: number;
  readonly payload: Uint8Array;
  /** One VMBus range each, as pages. */
  readonly ranges?: readonly Piece[];
}

export class ScriptedChannel implements Channel {
  readonly relid: number;
  readonly subIndex: number;
  readonly vmbusVersion = 0x50003;
  readonly userData = new Uint8Array(120);
  readonly outRingBytes = 65_536;
  readonly sent: SentPacket[] = [];
  readonly gpadls: Map<number, GpaRanges>;
  /** Packets that the ring has room for now. */
  room = Number.POSITIVE_INFINITY;
  paused = false;
  handler: ChannelHandler | undefined;
  isClosed = false;
  #wantsSpace = false;
  #handing = false;
  readonly #ring: GuestPacket[] = [];
  readonly #payload = new Uint8Array(4096);
  readonly #ranges = new GpaRanges();

  constructor(subIndex = 0, gpadls = new Map<number, GpaRanges>()) {
    this.subIndex = subIndex;
    this.relid = 20 + subIndex;
    this.gpadls = gpadls;
  }
  send(packet: OutboundPacket): boolean {
    invariant(!this.isClosed, "sent on a closed channel");
    if (this.room === 0) {
      this.#wantsSpace = true;
      return false;
    }
    this.room--;
    this.sent.push({
      type: packet.type,
      flags: packet.flags,
      low: packet.transactionLow,
      high: packet.transactionHigh,
      payload: packet.payload.slice(0, packet.payloadLength),
      headerLength: packet.headerLength ?? 0,
    });
    return true;
  }
  get outEmpty(): boolean {
    return this.sent.length === 0;
  }
  /** Packets of the guest's that are still in the ring. */
  get backlog(): number {
    return this.#ring.length;
  }
  pause(): void {
    invariant(!this.isClosed && !this.paused, "paused twice");
    this.paused = true;
  }
  resume(): void {
    invariant(!this.isClosed && this.paused, "resumed twice");
    this.paused = false;
    this.run();
  }
  gpadl(handle: number): GpaRanges | undefined {
    return this.isClosed ? undefined : this.gpadls.get(handle);
  }
  /** The guest puts a packet into its ring. */
  put(packet: GuestPacket): void {
    this.#ring.push(packet);
    this.run();
  }
  /** The bus hands over what is in the ring; a packet may make room for the next from within. */
  run(): void {
    if (this.#handing || this.handler === undefined) return;
    this.#handing = true;
    while (!this.paused && !this.isClosed && this.#ring.length > 0) this.#hand(this.#ring.shift()!);
    this.#handing = false;
  }
  /** The guest takes what there is and makes room for `room` packets. */
  take(room = Number.POSITIVE_INFINITY): SentPacket[] {
    const taken = this.sent.splice(0);
    this.room = room;
    if (this.#wantsSpace && room > 0) {
      this.#wantsSpace = false;
      this.handler!.onSpace?.();
    }
    this.run();
    return taken;
  }
  close(): void {
    // a bus says so when all is over, and takes nothing back
    this.handler!.onClose();
    this.isClosed = true;
  }
  /** What was in the ring, for a channel that is restored. */
  moveTo(channel: ScriptedChannel): void {
    channel.#ring.push(...this.#ring);
    channel.paused = this.paused;
    channel.sent.push(...this.sent);
    channel.#wantsSpace = this.#wantsSpace;
    channel.room = this.room;
    this.isClosed = true;
  }
  #hand(packet: GuestPacket): void {
    this.#payload.fill(0xdd);
    this.#payload.set(packet.payload);
    this.#ranges.clear();
    for (const { gpa, length } of packet.ranges ?? []) {
      this.#ranges.addRange(length, gpa % 4096);
      for (let at = gpa - (gpa % 4096); at < gpa + length; at += 4096) this.#ranges.addPage(at / 4096);
    }
    this.handler!.onPacket({
      type: packet.type ?? (packet.ranges === undefined ? PacketType.inBand : PacketType.gpaDirect),
      flags: packet.flags ?? COMPLETION_REQUESTED,
      transactionLow: packet.low,
      transactionHigh: packet.high ?? 0,
      payload: this.#payload,
      payloadLength: packet.payload.length,
      ranges: this.#ranges,
    });
    this.#payload.fill(0xee);
    this.#ranges.clear();
  }
}
