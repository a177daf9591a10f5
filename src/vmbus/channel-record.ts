/** What the server knows of a channel that has a relid, open or not. */
import { CONNECTION_BASE, type OfferParameters, type VmbusDevice } from "./device.js";
import type { OpenChannel, SavedOpenChannel } from "./open-channel.js";
import { OfferChannel } from "./protocol.js";

/** For people. "unoffered": the guest does not know of it; "failed": shut down from our side, the guest has not closed it. */
export type ChannelState = "unoffered" | "offered" | "open" | "failed" | "closed" | "rescinded";

export interface SavedChannel {
  readonly offer: OfferParameters;
  readonly relid: number;
  readonly subIndex: number;
  /** Of a sub-channel. */
  readonly primaryRelid: number | undefined;
  readonly transient: boolean;
  readonly told: boolean;
  readonly rescinded: boolean;
  readonly opening: "closed" | "open" | "failed";
  readonly wasOpen: boolean;
  readonly subsOffered: boolean;
  readonly packetsIn: number;
  readonly packetsOut: number;
  readonly open: SavedOpenChannel | undefined;
}

/** Two channels of the same key must not be known to the guest at the same time: it finds devices by class and instance. */
export function channelKey(offer: OfferParameters, subIndex: number): string {
  return `${offer.classId} ${offer.instanceId} ${subIndex}`;
}

export class ChannelRecord {
  readonly offer: OfferParameters;
  /** Undefined for a channel of a restored machine whose device is gone: the guest has still to release it. */
  readonly device: VmbusDevice | undefined;
  readonly primary: ChannelRecord | undefined;
  readonly subIndex: number;
  readonly key: string;
  /** It goes when the connection does. */
  readonly transient: boolean;
  relid: number;
  /** The guest has its offer and has not released it. */
  told = false;
  rescinded = false;
  /** As the guest sees it. */
  opening: "closed" | "open" | "failed" = "closed";
  /** What the guest did wrong last, for status. */
  problem: string | undefined;
  wasOpen = false;
  open: OpenChannel | undefined;
  readonly subs = new Set<ChannelRecord>();
  subsOffered = false;
  readonly released: (() => void)[] = [];
  /** Of earlier openings. */
  #packetsIn = 0;
  #packetsOut = 0;

  constructor(
    relid: number,
    offer: OfferParameters,
    device: VmbusDevice | undefined,
    {
      primary,
      subIndex = 0,
      transient = false,
    }: {
      primary?: ChannelRecord | undefined;
      subIndex?: number;
      transient?: boolean;
    } = {},
  ) {
    this.relid = relid;
    this.offer = offer;
    this.device = device;
    this.primary = primary;
    this.subIndex = subIndex;
    this.transient = transient;
    this.key = channelKey(offer, subIndex);
  }
  get state(): ChannelState {
    if (this.rescinded) return "rescinded";
    if (!this.told) return "unoffered";
    if (this.opening !== "closed") return this.opening;
    return this.wasOpen ? "closed" : "offered";
  }
  get packetsIn(): number {
    return this.#packetsIn + (this.open?.packetsIn ?? 0);
  }
  get packetsOut(): number {
    return this.#packetsOut + (this.open?.packetsOut ?? 0);
  }
  /** Lets go of the open channel, which ends. */
  takeOpen(): OpenChannel | undefined {
    const open = this.open;
    this.#packetsIn = this.packetsIn;
    this.#packetsOut = this.packetsOut;
    this.open = undefined;
    return open;
  }
  /** VMBus, "OfferChannel": never a monitor page, always an interrupt and a connection of its own. */
  offerMessage(): Uint8Array<ArrayBuffer> {
    const { classId, instanceId, flags, mmioMegabytes, userDefined } = this.offer;
    return OfferChannel.encode({
      classId,
      instanceId,
      flags,
      mmioMegabytes,
      userDefined,
      subIndex: this.subIndex,
      relid: this.relid,
      monitorId: 0,
      monitorAllocated: 0,
      isDedicatedInterrupt: 1,
      connectionId: CONNECTION_BASE + this.relid,
    });
  }
  save(): SavedChannel {
    const { name, classId, instanceId, flags, mmioMegabytes, userDefined } = this.offer;
    return {
      offer: { name, classId, instanceId, flags, mmioMegabytes, userDefined: userDefined.slice() },
      relid: this.relid,
      subIndex: this.subIndex,
      primaryRelid: this.primary?.relid,
      transient: this.transient,
      told: this.told,
      rescinded: this.rescinded,
      opening: this.opening,
      wasOpen: this.wasOpen,
      subsOffered: this.subsOffered,
      packetsIn: this.packetsIn,
      packetsOut: this.packetsOut,
      open: this.opening === "open" ? this.open?.save() : undefined,
    };
  }
  restore(saved: SavedChannel): void {
    this.relid = saved.relid;
    this.told = saved.told;
    this.rescinded = saved.rescinded;
    this.opening = saved.opening;
    this.wasOpen = saved.wasOpen;
    this.subsOffered = saved.subsOffered;
    this.#packetsIn = saved.packetsIn;
    this.#packetsOut = saved.packetsOut;
  }
}
