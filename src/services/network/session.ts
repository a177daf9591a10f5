/**
 * What a guest has agreed on with an adapter since it opened the primary channel, and what is counted. Nothing of the agreement
 * outlives the channel.
 */
import type { GuestBuffer } from "./guest-buffer.js";
import { noOffloads, type Offloads } from "./ndis-offload.js";
import { NvspVersion } from "./nvsp.js";
import type { ReceiveBuffer } from "./receive-buffer.js";
import { ReceiveScaling, type SavedRss } from "./rss.js";

/** Payload of a frame that every network carries. */
export const DEFAULT_MTU = 1500;
export const MAC_BYTES = 6;

/** Bits of the packet filter. */
export const Filter = { directed: 1, multicast: 2, allMulticast: 4, broadcast: 8, promiscuous: 0x20 } as const;

/** Plain data; buffers are saved beside it. */
export interface SavedSession {
  readonly version: number;
  readonly ndisVersion: number;
  readonly mtu: number;
  readonly vlan: boolean;
  readonly rscOffered: boolean;
  readonly initialized: boolean;
  readonly filter: number;
  readonly mac: Uint8Array;
  readonly multicast: readonly Uint8Array[];
  readonly offloads: Offloads;
  readonly rss: SavedRss;
  readonly grantedSubChannels: number;
  readonly toldLink: boolean;
  readonly linkChanged: boolean;
  readonly networkChanged: boolean;
  readonly speedChanged: boolean;
}

export class Session {
  /** NvspVersion; 0 when there is none yet. */
  version = 0;
  /** Major << 16 | minor. */
  ndisVersion = 0;
  mtu = DEFAULT_MTU;
  /** Tags of virtual LANs are given and taken beside the frame. */
  vlan = false;
  /** The guest knows coalesced packets. */
  rscOffered = false;
  /** RNDIS has been initialized. */
  initialized = false;
  /** Filter bits; 0: no frames at all. */
  filter = 0;
  readonly mac = new Uint8Array(MAC_BYTES);
  multicast: Uint8Array[] = [];
  offloads = noOffloads();
  readonly rss = new ReceiveScaling();
  grantedSubChannels = 0;
  receive: ReceiveBuffer | undefined;
  send: GuestBuffer | undefined;
  /** What the guest believes of the cable. */
  toldLink = false;
  /** Indications that wait to be sent. */
  linkChanged = false;
  networkChanged = false;
  speedChanged = false;

  /** Forgets all of it. */
  reset(mac: Uint8Array): void {
    this.version = 0;
    this.ndisVersion = 0;
    this.mtu = DEFAULT_MTU;
    this.vlan = this.rscOffered = false;
    this.grantedSubChannels = 0;
    this.receive = undefined;
    this.send = undefined;
    this.mac.set(mac);
    this.halt();
  }
  /** Forgets what RNDIS has set. */
  halt(): void {
    this.initialized = false;
    this.filter = 0;
    this.multicast = [];
    this.offloads = noOffloads();
    this.rss.reset();
    this.toldLink = this.linkChanged = this.networkChanged = this.speedChanged = false;
  }
  /** Whether packets over this IP version may be coalesced. */
  coalesces(ipVersion: number): boolean {
    if (!this.rscOffered || this.version < NvspVersion.v61) return false;
    return (ipVersion === 4 ? this.offloads.rscv4 : this.offloads.rscv6) !== 0;
  }
  save(): SavedSession {
    const { version, ndisVersion, mtu, vlan, rscOffered, initialized, filter, grantedSubChannels } = this;
    const { toldLink, linkChanged, networkChanged, speedChanged } = this;
    return {
      ...{ version, ndisVersion, mtu, vlan, rscOffered, initialized, filter, grantedSubChannels },
      ...{ toldLink, linkChanged, networkChanged, speedChanged },
      mac: this.mac.slice(),
      multicast: this.multicast.map((m) => m.slice()),
      offloads: { ...this.offloads },
      rss: this.rss.save(),
    };
  }
  restore(saved: SavedSession): void {
    const { mac, multicast, offloads, rss, ...plain } = saved;
    Object.assign(this, plain);
    this.mac.set(mac);
    this.multicast = multicast.map((m) => m.slice());
    this.offloads = { ...offloads };
    this.rss.restore(rss);
  }
}

/** Why frames were not delivered. */
export interface NetworkDrops {
  /** From the guest: not an RNDIS message, or contradicting itself. */
  malformed: number;
  /** Longer than the MTU. */
  tooLong: number;
  /** Sent or received before the adapter was set up. */
  notReady: number;
  /** For somebody else, by the packet filter. */
  filtered: number;
  /** From the guest, refused by the other end while the guest itself took nothing. */
  refused: number;
  /** To the guest: a long segment that its receive buffer could never hold, or that is none. */
  unfit: number;
}
/** Counters since the adapter was made. "Transmitted" and "received" are the guest's words. */
export interface NetworkStatistics {
  transmittedFrames: number;
  transmittedBytes: number;
  receivedFrames: number;
  receivedBytes: number;
  /** Long segments from the guest. */
  largeSends: number;
  /** Long segments to the guest, as they were. */
  coalesced: number;
  /** Frames that long segments to the guest were cut into. */
  segments: number;
  /** Times that a frame of the guest had to wait for the other end, and that one had to wait for the guest. */
  held: number;
  waited: number;
  readonly drops: NetworkDrops;
}
export const noStatistics = (): NetworkStatistics => ({
  transmittedFrames: 0,
  transmittedBytes: 0,
  receivedFrames: 0,
  receivedBytes: 0,
  largeSends: 0,
  coalesced: 0,
  segments: 0,
  held: 0,
  waited: 0,
  drops: { malformed: 0, tooLong: 0, notReady: 0, filtered: 0, refused: 0, unfit: 0 },
});
