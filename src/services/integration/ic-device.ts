/**
 * What all integration components share: the offer, version negotiation after each open, one request at a time. A component
 * gives the versions that it speaks and what it does when it may.
 */
import { type Trace, TraceKind } from "../../trace/trace.js";
import {
  type Channel,
  type ChannelHandler,
  type InboundPacket,
  OfferFlag,
  type OfferParameters,
  type OutboundPacket,
  PacketType,
  type VmbusDevice,
} from "../../vmbus/device.js";
import { IcMessageType, type IcVersion, icNegotiate, icRequest, readIcReply, readNegotiation } from "./ic-protocol.js";

/** Pipe mode "message" (VMBus, "Offer", user-defined data). */
const PIPE_MESSAGE_MODE = 4;

export interface IcDeviceState {
  readonly version: 1;
  readonly transaction: number;
  readonly outstanding: boolean;
  readonly negotiated: { readonly framework: IcVersion; readonly message: IcVersion } | undefined;
  /** A message that found the ring full. */
  readonly unsent: Uint8Array | undefined;
  readonly component: unknown;
}

export interface IcIdentity {
  readonly name: string;
  readonly classId: string;
  readonly instanceId: string;
  /** Ascending. */
  readonly versions: readonly IcVersion[];
  readonly messageType: number;
}

export abstract class IcDevice implements VmbusDevice, ChannelHandler {
  readonly offer: OfferParameters;
  readonly #identity: IcIdentity;
  readonly #trace: Trace;
  #channel: Channel | undefined;
  #transaction = 0;
  /** A request (or the negotiation) that the guest has not answered. */
  #outstanding = false;
  #negotiated: { readonly framework: IcVersion; readonly message: IcVersion } | undefined;
  /** A message that found the ring full. */
  #unsent: Uint8Array | undefined;
  readonly #packet: OutboundPacket = {
    type: PacketType.inBand,
    flags: 0,
    transactionLow: 0,
    transactionHigh: 0,
    payload: new Uint8Array(0),
    payloadLength: 0,
  };

  constructor(identity: IcIdentity, trace: Trace) {
    this.#identity = identity;
    this.#trace = trace;
    const userDefined = new Uint8Array(4);
    userDefined[0] = PIPE_MESSAGE_MODE;
    const { name, classId, instanceId } = identity;
    this.offer = {
      name,
      classId,
      instanceId,
      flags: OfferFlag.enumerate | OfferFlag.namedPipe,
      mmioMegabytes: 0,
      userDefined,
    };
  }

  // ---- for the component ------------------------------------------------------------------------------------------------
  /** Versions are agreed: requests may be made. */
  protected abstract onReady(version: IcVersion): void;
  /** The guest's answer to the last request; `view` is of the whole payload (Ic offsets), valid during the call. */
  protected abstract onReply(status: number, view: DataView, bodyBytes: number): void;
  /** The channel has gone. */
  protected abstract onGone(): void;
  protected abstract saveComponent(): unknown;
  protected abstract restoreComponent(state: unknown): void;

  get negotiated(): string | undefined {
    return this.version?.join(".");
  }
  /** Message version in use; undefined before the guest has answered. */
  get version(): IcVersion | undefined {
    return this.#negotiated?.message;
  }
  /** Whether a request may be sent now. */
  get free(): boolean {
    return this.#channel !== undefined && this.#negotiated !== undefined && !this.#outstanding;
  }
  /** @param fill writes the body, at Ic.body */
  protected request(bodyBytes: number, fill: (view: DataView, bytes: Uint8Array) => void): void {
    const { framework, message } = this.#negotiated!;
    this.#transaction = (this.#transaction + 1) & 0xff;
    const header = { framework, version: message, type: this.#identity.messageType, transaction: this.#transaction };
    const { bytes, view } = icRequest(header, bodyBytes);
    fill(view, bytes);
    this.#send(bytes);
  }
  #send(bytes: Uint8Array): void {
    this.#outstanding = true;
    this.#packet.payload = bytes;
    this.#packet.payloadLength = bytes.length;
    this.#packet.transactionLow = this.#transaction;
    this.#unsent = this.#channel!.send(this.#packet) ? undefined : bytes;
  }

  // ---- VmbusDevice ------------------------------------------------------------------------------------------------------
  open(channel: Channel): ChannelHandler | undefined {
    if (channel.subIndex !== 0 || this.#channel !== undefined) return undefined;
    this.#channel = channel;
    this.#negotiated = undefined;
    this.#transaction = 0;
    this.#send(icNegotiate(this.#identity.versions, 0));
    return this;
  }
  onPacket(packet: InboundPacket): void {
    const reply = packet.type === PacketType.inBand ? readIcReply(packet.payload, packet.payloadLength) : undefined;
    // while ours waits for room, nothing can answer it
    if (reply === undefined || !this.#outstanding || this.#unsent !== undefined) {
      this.#violation("a packet that answers nothing");
      return;
    }
    if (reply.type === IcMessageType.negotiate) {
      if (this.#negotiated !== undefined) {
        this.#violation("versions are agreed already");
        return;
      }
      this.#outstanding = false;
      this.#negotiated = readNegotiation(packet.payload, packet.payloadLength, this.#identity.versions);
      if (this.#negotiated === undefined) {
        this.#violation("the guest speaks none of our versions");
        return;
      }
      const { message } = this.#negotiated;
      this.#trace.text(TraceKind.note, this.#channel!.relid, `${this.#identity.name} ${message.join(".")}`);
      this.onReady(message);
      return;
    }
    if (reply.type !== this.#identity.messageType || reply.transaction !== this.#transaction) {
      this.#violation("an answer to another request");
      return;
    }
    if (this.#negotiated === undefined) {
      this.#violation("an answer before the versions are agreed");
      return;
    }
    this.#outstanding = false;
    const { buffer, byteOffset } = packet.payload;
    this.onReply(reply.status, new DataView(buffer, byteOffset, packet.payloadLength), reply.bodyBytes);
  }
  #violation(rule: string): void {
    this.#trace.text(TraceKind.violation, this.#channel?.relid ?? 0, `${this.#identity.name}: ${rule}`);
  }
  onSpace(): void {
    if (this.#unsent !== undefined) this.#send(this.#unsent);
  }
  onClose(): void {
    this.#channel = undefined;
    this.#negotiated = undefined;
    this.#outstanding = false;
    this.#unsent = undefined;
    this.onGone();
  }
  save(): IcDeviceState {
    return {
      version: 1,
      transaction: this.#transaction,
      outstanding: this.#outstanding,
      negotiated: this.#negotiated,
      unsent: this.#unsent?.slice(),
      component: this.saveComponent(),
    };
  }
  restore(state: unknown, channels: readonly Channel[]): readonly ChannelHandler[] {
    const s = state as IcDeviceState;
    this.#channel = channels[0];
    this.#transaction = s.transaction;
    this.#outstanding = s.outstanding;
    this.#negotiated = s.negotiated;
    this.#unsent = s.unsent?.slice();
    this.restoreComponent(s.component);
    return channels.map(() => this);
  }
}
