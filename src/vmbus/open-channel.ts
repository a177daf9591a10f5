/**
 * A channel between its opening and its closing: rings, the service's handler, flow control. What is opened anew is a new object,
 * so a service that keeps an old one can do no harm with it.
 */
import type { GuestMemory } from "../machine/guest-memory.js";
import { GuestViolation } from "../machine/guest-violation.js";
import { type Trace, TraceKind } from "../trace/trace.js";
import type { Channel, ChannelHandler, OutboundPacket } from "./device.js";
import type { GpaRanges } from "./gpa-ranges.js";
import { InRing, OutRing, type PacketCopy } from "./ring.js";

/** What the guest said when it opened. */
export interface OpenParameters {
  readonly openId: number;
  readonly ringGpadl: number;
  readonly downstreamOffset: number;
  readonly userData: Uint8Array;
  targetVp: number;
}
/** What of an open channel is not in guest RAM. */
export interface SavedOpenChannel {
  readonly openId: number;
  readonly ringGpadl: number;
  readonly downstreamOffset: number;
  readonly userData: Uint8Array;
  readonly targetVp: number;
  readonly read: number;
  readonly write: number;
  readonly waiting: number;
  readonly mustSignal: boolean;
  readonly paused: boolean;
}

/** What a channel needs of the server. */
export interface ChannelOwner {
  readonly memory: GuestMemory;
  readonly trace: Trace;
  readonly packet: PacketCopy;
  gpadl(relid: number, handle: number): GpaRanges | undefined;
  /** It has something to do in `run`. */
  makeReady(channel: OpenChannel): void;
  /** It waits for room. */
  addWaiting(channel: OpenChannel): void;
  /** The guest must be signalled at the end of the turn. */
  addSignal(channel: OpenChannel): void;
  hasSignal(channel: OpenChannel): boolean;
  /** The guest broke a rule, or has to be treated as if: the handler must be told. */
  addFailed(channel: OpenChannel): void;
}

export class OpenChannel implements Channel {
  readonly relid: number;
  readonly subIndex: number;
  readonly vmbusVersion: number;
  readonly parameters: OpenParameters;
  readonly #owner: ChannelOwner;
  readonly #in: InRing;
  readonly #out: OutRing;
  #handler: ChannelHandler | undefined;
  #state: "open" | "failed" | "closed" = "open";
  #paused = false;
  packetsIn = 0;
  packetsOut = 0;

  /** @throws GuestViolation when the guest's ring or indices will not do */
  constructor(
    owner: ChannelOwner,
    channel: { relid: number; subIndex: number; name: string; vmbusVersion: number },
    parameters: OpenParameters,
    restored?: SavedOpenChannel,
  ) {
    this.#owner = owner;
    this.relid = channel.relid;
    this.subIndex = channel.subIndex;
    this.vmbusVersion = channel.vmbusVersion;
    this.parameters = parameters;
    const source = channel.subIndex === 0 ? channel.name : `${channel.name}/${channel.subIndex}`;
    const ring = owner.gpadl(channel.relid, parameters.ringGpadl);
    if (ring === undefined) throw new GuestViolation(source, "no such GPADL (VMBus OpenChannel)", parameters.ringGpadl);
    const pages = ring.pageCount;
    if (ring.count !== 1 || ring.byteOffset[0] !== 0 || ring.byteCount[0] !== pages * 4096)
      throw new GuestViolation(source, "a ring is one range of whole pages (VMBus OpenChannel)", ring.count);
    const split = parameters.downstreamOffset;
    if (split < 2 || split + 2 > pages)
      throw new GuestViolation(source, "offset of the second ring (VMBus OpenChannel)", split);
    // Copies: the GPADL may go before the channel does.
    this.#in = new InRing(owner.memory, ring.pages.slice(0, split), source, restored?.read);
    this.#out = new OutRing(owner.memory, ring.pages.slice(split, pages), source, restored);
    if (restored === undefined) return;
    this.#paused = restored.paused;
    if (restored.mustSignal) this.#owner.addSignal(this);
    if (restored.waiting > 0) owner.addWaiting(this);
  }
  /** Why it was shut down from our side. */
  problem: string | undefined;
  get userData(): Uint8Array {
    return this.parameters.userData;
  }
  get outRingBytes(): number {
    return this.#out.sizeBytes;
  }
  get outEmpty(): boolean {
    return this.#state !== "open" || this.#out.isEmpty;
  }
  get state(): "open" | "failed" | "closed" {
    return this.#state;
  }
  /** Bytes in the rings, for status. */
  get inBytes(): number {
    return this.#in.usedBytes;
  }
  get outBytes(): number {
    return this.#out.usedBytes;
  }
  gpadl(handle: number): GpaRanges | undefined {
    return this.#state === "open" ? this.#owner.gpadl(this.relid, handle) : undefined;
  }

  send(packet: OutboundPacket): boolean {
    if (this.#state !== "open") return false;
    try {
      if (!this.#out.fits(packet.payloadLength)) {
        this.fail("ring too small for the device's packets (VMBus OpenChannel)");
        return false;
      }
      if (!this.#out.write(packet)) {
        this.#owner.addWaiting(this);
        return false;
      }
    } catch (error) {
      this.failBy(error);
      return false;
    }
    this.packetsOut++;
    this.#owner.trace.record(
      TraceKind.packetOut,
      this.relid,
      packet.type,
      packet.payloadLength,
      packet.payload,
      packet.payloadLength,
    );
    if (this.#out.mustSignal) {
      this.#out.mustSignal = false;
      this.#owner.addSignal(this);
    }
    return true;
  }
  pause(): void {
    this.#paused = true;
  }
  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    if (this.#state === "open") this.#owner.makeReady(this);
  }

  /** Gives it what handles its packets. */
  attach(handler: ChannelHandler): void {
    this.#handler = handler;
    this.#owner.makeReady(this);
  }
  /** Whether room has come that somebody waits for. */
  get hasAwaitedRoom(): boolean {
    return this.#state === "open" && this.#out.hasAwaitedRoom;
  }
  get isWaiting(): boolean {
    return this.#state === "open" && this.#out.waiting > 0;
  }
  /**
   * Hands over at most `budget` packets (VMBus, "signalling": masked while reading, then unmasked and looked at once more).
   * @returns how many; when more are left it has made itself ready again
   */
  turn(budget: number): number {
    const handler = this.#handler;
    if (this.#state !== "open" || handler === undefined) return 0;
    const { packet, trace } = this.#owner;
    let taken = 0;
    try {
      if (this.#out.takeAwaitedRoom()) handler.onSpace?.();
      // The handler may pause, or rescind the device.
      if (this.#stopped) return taken;
      this.#in.mask();
      let drained = false;
      while (taken < budget && !this.#stopped) {
        if (!this.#in.next(packet)) {
          drained = true;
          break;
        }
        taken++;
        this.packetsIn++;
        trace.record(
          TraceKind.packetIn,
          this.relid,
          packet.type,
          packet.payloadLength,
          packet.payload,
          packet.payloadLength,
        );
        handler.onPacket(packet);
      }
      if (this.#state !== "open") return taken;
      if (this.#in.publish()) this.#owner.addSignal(this);
      // While paused it stays masked: `resume` looks at the ring.
      if (this.#paused) return taken;
      if (!drained || !this.#in.unmask()) this.#owner.makeReady(this);
    } catch (error) {
      this.failBy(error);
    }
    return taken;
  }
  get #stopped(): boolean {
    return this.#paused || this.#state !== "open";
  }

  /** A broken rule, found in the rings or by the handler; anything else is our own bug and goes on. */
  failBy(error: unknown): void {
    if (!(error instanceof GuestViolation)) throw error;
    this.fail(error.message);
  }
  /** Shuts the channel down from our side: the guest sees a dead device until it closes. */
  fail(text: string): void {
    if (this.#state !== "open") return;
    this.#state = "failed";
    this.problem = text;
    this.#owner.trace.text(TraceKind.violation, this.relid, text);
    this.#owner.addFailed(this);
  }
  /** Tells the handler, once, that it is over. */
  end(): void {
    const handler = this.#handler;
    this.#handler = undefined;
    handler?.onClose();
  }
  /** The rings are the guest's again. */
  close(): void {
    this.#state = "closed";
    this.end();
  }

  save(): SavedOpenChannel {
    return {
      ...this.parameters,
      userData: this.userData.slice(),
      read: this.#in.readIndex,
      write: this.#out.writeIndex,
      waiting: this.#out.waiting,
      mustSignal: this.#owner.hasSignal(this),
      paused: this.#paused,
    };
  }
}
