/**
 * The synthetic network adapter: the host side of Linux hv_netvsc and FreeBSD hn. This folder has all of it:
 *
 *   adapter          the device on the bus, one for each network card of a machine
 *   channel          a channel's packets and completions
 *   negotiation      NVSP's start-up (`nvsp`: the messages), `session`: what was agreed on
 *   control, oids    RNDIS requests (`rndis`: the messages), `ndis-offload` and `rss`: what some of them carry
 *   transmit         frames from the guest to the port
 *   receive          frames from the port to the guest, by `receive-buffer` and `receive-batch`
 *   frame, checksum, segmentation, toeplitz, packet-info   what network cards compute
 *
 * The other end of `port` is a switch or a router (`net`).
 */
import type { Clock, Deadlines } from "../../machine/device.js";
import type { GuestMemory } from "../../machine/guest-memory.js";
import { invariant } from "../../machine/guest-violation.js";
import type { EthernetPort } from "../../net/port.js";
import { NO_TRACE, type Trace, TraceKind } from "../../trace/trace.js";
import { writeU32 } from "../../vmbus/byte-order.js";
import {
  type Channel,
  type ChannelHandler,
  type InboundPacket,
  type Offer,
  type OfferParameters,
  type OutboundPacket,
  PacketType,
  type VmbusDevice,
} from "../../vmbus/device.js";
import { type ChannelOwner, NetworkChannel, type NetworkChannelStatus, type SavedNetworkChannel } from "./channel.js";
import { control, indication, MAX_ANSWER_BYTES } from "./control.js";
import { GuestBuffer } from "./guest-buffer.js";
import { Negotiation } from "./negotiation.js";
import {
  At,
  ChannelType,
  NETWORK_CLASS,
  NvspType,
  NvspVersion,
  SEND_TABLE_ENTRIES,
  SEND_TABLE_OFFSET,
  versionName,
} from "./nvsp.js";
import type { OidContext } from "./oids.js";
import { ReceivePath } from "./receive.js";
import { ReceiveBatch } from "./receive-batch.js";
import { ReceiveBuffer, type SavedReceiveBuffer } from "./receive-buffer.js";
import { Indication } from "./rndis.js";
import { MAC_BYTES, type NetworkStatistics, noStatistics, type SavedSession, Session } from "./session.js";

/** Answers that wait for room; guests have one request under way. */
const MAX_ANSWERS = 16;
/** 10 Gb/s, in units of 100 bit/s. */
const DEFAULT_SPEED = 100_000_000;
/** What jumbo frames mean. */
const DEFAULT_MAX_MTU = 9000;
/** So long a frame of the guest waits for the other end: a driver that lets go of its adapter waits for all of its frames. */
const PATIENCE_NS = 1e9;
/** What Linux takes for no name at all. */
const DEFAULT_NAME = "Network Adapter";

export interface NetworkAdapterOptions {
  /** Text in lower case; the same at every start of the machine. */
  readonly instanceId: string;
  /** 6 bytes. */
  readonly mac: Uint8Array;
  /** Our end of the cable: its `receive`, `onRoom` and `onLink` are the adapter's. */
  readonly port: EthernetPort;
  readonly memory: GuestMemory;
  readonly trace?: Trace;
  /** Sub-channels that a guest may ask for: one fewer than processors; 0 unless given. With any, `attach` must have been called. */
  readonly maxSubChannels?: number;
  /** Payload of the longest frame; 9000 unless given. Guests begin with 1500. */
  readonly mtu?: number;
  /** Linux has it as the interface's alias. */
  readonly friendlyName?: string;
  /** Newest NvspVersion that is spoken. */
  readonly maxVersion?: number;
  /** Whether the guest may take another address; it may unless this is false. */
  readonly mayChangeMac?: boolean;
  /**
   * Time, for a frame that the other end has no room for: after a second it is lost, and so are those behind it until there is room.
   * Without it they wait for ever. The deadline is registered by the instance id.
   */
  readonly patience?: { readonly clock: Clock; readonly deadlines: Deadlines };
  /** Something waits for `flush`: a turn of the device side is due. Called once until it has been flushed. */
  readonly onWork?: () => void;
}

/** An adapter, for people. */
export interface NetworkStatus {
  /** "none" while there is no driver. */
  readonly protocol: string;
  readonly isReady: boolean;
  readonly mac: Uint8Array;
  readonly mtu: number;
  readonly filter: number;
  readonly link: boolean;
  readonly receiveSections: number;
  readonly freeReceiveSections: number;
  readonly channels: readonly NetworkChannelStatus[];
  readonly rss: boolean;
  readonly statistics: NetworkStatistics;
}

interface NetworkState {
  readonly version: 1;
  readonly session: SavedSession;
  readonly receive: SavedReceiveBuffer | undefined;
  readonly send: { readonly handle: number; readonly id: number } | undefined;
  readonly generation: number;
  readonly path: { readonly packetId: number; readonly awaited: number };
  readonly channels: readonly SavedNetworkChannel[];
  readonly answers: readonly Uint8Array[];
  readonly isTableDue: boolean;
  readonly isOfferDue: boolean;
  readonly isImpatient: boolean;
  readonly speed: number;
  readonly statistics: NetworkStatistics;
}

export class NetworkAdapter implements VmbusDevice {
  readonly offer: OfferParameters;
  readonly #memory: GuestMemory;
  readonly #trace: Trace;
  readonly #port: EthernetPort;
  readonly #permanentMac: Uint8Array;
  readonly #maxSubChannels: number;
  readonly #onWork: (() => void) | undefined;
  readonly #session = new Session();
  #statistics = noStatistics();
  readonly #negotiation: Negotiation;
  readonly #receivePath: ReceivePath;
  readonly #channelOwner: ChannelOwner;
  readonly #oidContext: OidContext;
  /** By sub-index. */
  readonly #channels: (NetworkChannel | undefined)[];
  /** Answers to the guest that wait for room. */
  readonly #answers: Uint8Array[] = [];
  readonly #answerBatch = new ReceiveBatch(ChannelType.control);
  readonly #tablePacket: OutboundPacket;
  #patience: { readonly clock: Clock; readonly deadlines: Deadlines } | undefined;
  readonly #deadline: string;
  #attached: Offer | undefined;
  /** The other end has had no room for so long that nothing waits for it now. */
  #isImpatient = false;
  #speed = DEFAULT_SPEED;
  /** SEND_INDIRECTION_TABLE waits for room. */
  #isTableDue = false;
  /** Sub-channels were granted, and are offered when the guest has been told. */
  #isOfferDue = false;
  /** Restored: nobody will say that there is room for the frames that wait. */
  #isRetryDue = false;
  /** Something has been collected since the last flush. */
  #isWorkDue = false;

  constructor(options: NetworkAdapterOptions) {
    if (options.mac.length !== MAC_BYTES || (options.mac[0]! & 1) !== 0)
      throw new RangeError("a network adapter's address has 6 bytes and is not that of a group");
    const maxMtu = options.mtu ?? DEFAULT_MAX_MTU;
    if (!Number.isInteger(maxMtu) || maxMtu < 1500 || maxMtu > 9202)
      throw new RangeError(`an MTU is 1500 to 9202 bytes, not ${maxMtu}`);
    this.#memory = options.memory;
    this.#trace = options.trace ?? NO_TRACE;
    this.#port = options.port;
    this.#permanentMac = options.mac.slice();
    this.#maxSubChannels = options.maxSubChannels ?? 0;
    this.#onWork = options.onWork;
    this.#patience = options.patience;
    this.#deadline = `network-${options.instanceId}`;
    options.patience?.deadlines.register(this.#deadline, () => this.#loseWhatWaits());
    this.#channels = new Array(this.#maxSubChannels + 1).fill(undefined);
    this.#session.reset(options.mac);
    this.offer = {
      name: "network",
      classId: NETWORK_CLASS,
      instanceId: options.instanceId,
      flags: 0,
      mmioMegabytes: 0,
      userDefined: new Uint8Array(0),
    };
    const violation = (relid: number, text: string): void => this.#trace.text(TraceKind.violation, relid, text);
    const adapter = this;
    const session = this.#session;
    this.#negotiation = new Negotiation({
      session,
      memory: options.memory,
      maxVersion: options.maxVersion ?? NvspVersion.v61,
      maxMtu,
      maxSubChannels: this.#maxSubChannels,
      revoked: () => this.#revoked(),
      violation,
    });
    this.#receivePath = new ReceivePath({
      session,
      get statistics() {
        return adapter.#statistics;
      },
      batchOf: (channel) => this.#channels[channel] ?? this.#channels[0],
      refused: () => this.#forEachChannel((c) => c.giveUp()),
    });
    this.#channelOwner = {
      session,
      transmit: {
        memory: options.memory,
        session,
        get statistics() {
          return adapter.#statistics;
        },
        get mustNotWait() {
          return adapter.#isImpatient || adapter.#receivePath.isRefusing;
        },
        transmit: (frame, flags, segmentSize) => {
          const isTaken = options.port.transmit(frame, flags, segmentSize);
          if (isTaken) this.#isImpatient = false;
          return isTaken;
        },
        held: () => this.#patience?.deadlines.set(this.#deadline, this.#patience.clock.now() + PATIENCE_NS),
      },
      control: (message) => this.#control(message),
      negotiate: (channel, type, packet, reply) => this.#negotiate(channel, type, packet, reply),
      released: (channel, packet) => this.#released(channel, packet),
      after: () => this.#after(),
      space: () => this.#space(),
      collected: () => this.#workIsDue(),
      closed: (channel) => this.#closed(channel),
      violation,
    };
    this.#oidContext = {
      session,
      permanentMac: this.#permanentMac,
      friendlyName: options.friendlyName ?? DEFAULT_NAME,
      maxMtu,
      channels: this.#maxSubChannels + 1,
      mayChangeMac: options.mayChangeMac ?? true,
      get statistics() {
        return adapter.#statistics;
      },
      get link() {
        return adapter.#port.link;
      },
      get speed() {
        return adapter.#speed;
      },
    };
    this.#tablePacket = {
      type: PacketType.inBand,
      flags: 0,
      transactionLow: 0,
      transactionHigh: 0,
      payload: new Uint8Array(SEND_TABLE_OFFSET + SEND_TABLE_ENTRIES * 4),
      payloadLength: SEND_TABLE_OFFSET + SEND_TABLE_ENTRIES * 4,
    };
    options.port.receive = (frame, flags, segmentSize) => this.#receivePath.receive(frame, flags, segmentSize);
    options.port.onRoom = () => {
      this.#isImpatient = false;
      this.#forEachChannel((c) => c.resume());
    };
    options.port.onLink = () => this.#linkMoved();
  }

  /** What the bus gave for the offer: sub-channels are offered through it. */
  attach(offer: Offer): void {
    this.#attached = offer;
  }
  /**
   * Hands what has been collected to the rings. To be called at the end of each turn of the device side, before the bus delivers its
   * signals.
   */
  flush(): void {
    if (!this.#isWorkDue) return;
    if (this.#isRetryDue) this.#forEachChannel((c) => c.resume());
    this.#isRetryDue = false;
    // what the other end answered to that goes too
    this.#isWorkDue = false;
    this.#forEachChannel((c) => void c.flush());
    this.#send();
  }
  /** Whether there is something for `flush`: what came while the bus delivered its signals has to have another turn. */
  get isFlushDue(): boolean {
    return this.#isWorkDue;
  }
  /** It is going to be taken away: the guest is told that the cable is out, and sends no more; frames are lost. */
  leave(): void {
    this.setLink(false);
    this.#isRetryDue = true;
    this.#workIsDue();
  }
  /** Whether the guest knows that the cable is out, and has answered all that was sent to it. */
  get isQuiet(): boolean {
    const { receive, linkChanged, initialized } = this.#session;
    return !(initialized && linkChanged) && (receive === undefined || receive.free === receive.sections);
  }
  /** It has been taken away: another one may have its name. */
  retire(): void {
    this.#patience?.deadlines.unregister(this.#deadline);
    this.#patience = undefined;
  }
  /** Takes our end of the cable out, or puts it in. */
  setLink(up: boolean): void {
    this.#port.up = up;
  }
  /** Tells the guest that the network is another one: it asks for its address anew. */
  networkChange(): void {
    if (!this.#session.initialized) return;
    this.#session.networkChanged = true;
    this.#send();
  }
  /** Of the cable, in units of 100 bit/s; the guest is told. */
  set speed(speed: number) {
    this.#speed = speed;
    if (!this.#session.initialized) return;
    this.#session.speedChanged = true;
    this.#send();
  }
  get statistics(): Readonly<NetworkStatistics> {
    return this.#statistics;
  }
  /** Whether the guest's driver is there and takes frames. */
  get isReady(): boolean {
    return this.#session.initialized && this.#session.filter !== 0;
  }
  get negotiated(): string | undefined {
    const { version } = this.#session;
    return version === undefined || version === 0 ? undefined : versionName(version);
  }
  status(): NetworkStatus {
    const session = this.#session;
    return {
      protocol: versionName(session.version),
      isReady: this.isReady,
      mac: session.mac.slice(),
      mtu: session.mtu,
      filter: session.filter,
      link: this.#port.link,
      receiveSections: session.receive?.sections ?? 0,
      freeReceiveSections: session.receive?.free ?? 0,
      channels: this.#channels.flatMap((c) => (c === undefined ? [] : [c.status])),
      rss: session.rss.enabled,
      statistics: { ...this.#statistics, drops: { ...this.#statistics.drops } },
    };
  }

  open(channel: Channel): ChannelHandler | undefined {
    const { subIndex } = channel;
    if (subIndex > this.#maxSubChannels || this.#channels[subIndex] !== undefined) return undefined;
    if (subIndex === 0) this.#forget();
    else if (this.#channels[0] === undefined || subIndex > this.#session.grantedSubChannels) return undefined;
    const opened = this.#opened(channel);
    const isLast = this.#channels.filter((c) => c !== undefined).length === this.#session.grantedSubChannels + 1;
    if (subIndex > 0 && isLast) {
      this.#isTableDue = true;
      this.#send();
    }
    return opened;
  }
  save(): NetworkState {
    const session = this.#session;
    return {
      version: 1,
      session: session.save(),
      receive: session.receive?.save(),
      send: session.send === undefined ? undefined : { handle: session.send.handle, id: session.send.id },
      generation: this.#negotiation.generation,
      path: this.#receivePath.state,
      channels: this.#channels.flatMap((c) => (c === undefined ? [] : [c.save()])),
      answers: this.#answers.map((a) => a.slice()),
      isTableDue: this.#isTableDue,
      isOfferDue: this.#isOfferDue,
      isImpatient: this.#isImpatient,
      speed: this.#speed,
      statistics: { ...this.#statistics, drops: { ...this.#statistics.drops } },
    };
  }
  restore(saved: unknown, channels: readonly Channel[]): readonly ChannelHandler[] {
    const state = saved as NetworkState;
    invariant(state.version === 1, `network state of version ${state.version}`);
    const session = this.#session;
    session.restore(state.session);
    const handlers = channels.map((channel) => this.#opened(channel));
    const primary = channels.find((c) => c.subIndex === 0);
    if (primary !== undefined) {
      const { receive, send } = state;
      const lent = (b: { handle: number; id: number } | undefined): GuestBuffer | undefined =>
        b === undefined ? undefined : GuestBuffer.of(this.#memory, primary, b.handle, b.id);
      session.send = lent(send);
      const buffer = lent(receive);
      if (buffer !== undefined && receive !== undefined) {
        session.receive = new ReceiveBuffer(buffer, receive.sectionBytes);
        session.receive.restore(receive);
      }
    }
    for (const handler of handlers) {
      const channel = state.channels.find((c) => c.subIndex === handler.subIndex);
      if (channel !== undefined) handler.restore(channel);
    }
    this.#negotiation.generation = state.generation;
    this.#receivePath.state = state.path;
    this.#answers.push(...state.answers.map((a) => a.slice()));
    this.#isTableDue = state.isTableDue;
    this.#isOfferDue = state.isOfferDue;
    this.#isImpatient = state.isImpatient;
    this.#speed = state.speed;
    this.#statistics = { ...state.statistics, drops: { ...state.statistics.drops } };
    this.#isRetryDue = true;
    this.#workIsDue();
    this.#linkMoved();
    return handlers;
  }

  #opened(channel: Channel): NetworkChannel {
    const opened = new NetworkChannel(channel, this.#channelOwner);
    this.#channels[channel.subIndex] = opened;
    return opened;
  }
  #closed(channel: NetworkChannel): void {
    this.#channels[channel.subIndex] = undefined;
    this.#session.receive?.releaseAll(channel.subIndex);
    if (channel.subIndex === 0) this.#forget();
    this.#offerRoom();
  }
  #forget(): void {
    this.#answers.length = 0;
    this.#isTableDue = false;
    this.#isOfferDue = false;
    this.#forEachChannel((c) => c.batch.drop(this.#session.receive));
    this.#session.reset(this.#permanentMac);
    this.#negotiation.generation = 0;
  }
  #forEachChannel(act: (channel: NetworkChannel) => void): void {
    for (const channel of this.#channels) if (channel !== undefined) act(channel);
  }
  #loseWhatWaits(): void {
    if (!this.#channels.some((c) => c?.status.isHeld === true)) return;
    this.#isImpatient = true;
    this.#forEachChannel((c) => c.giveUp());
  }
  #workIsDue(): void {
    if (this.#isWorkDue) return;
    this.#isWorkDue = true;
    this.#onWork?.();
  }
  #linkMoved(): void {
    const session = this.#session;
    const { link } = this.#port;
    if (!session.initialized) return;
    // Out and in again before the guest was told: it may be another network.
    if (session.linkChanged && link === session.toldLink) session.networkChanged = true;
    session.linkChanged = link !== session.toldLink;
    this.#send();
  }

  #negotiate(channel: NetworkChannel, type: number, packet: InboundPacket, reply: Uint8Array): number {
    const before = this.#session.grantedSubChannels;
    const length = this.#negotiation.handle(channel.channel, type, packet, reply);
    if (this.#session.grantedSubChannels > before) this.#isOfferDue = true;
    return length;
  }
  #revoked(): void {
    this.#answers.length = 0;
    this.#forEachChannel((c) => c.batch.drop(this.#session.receive));
  }
  #control(message: Uint8Array): void {
    const session = this.#session;
    const { initialized } = session;
    const answer = control(message, this.#oidContext);
    if (initialized && !session.initialized) this.#answers.length = 0;
    const relid = this.#channels[0]?.relid ?? 0;
    if (typeof answer === "string") this.#trace.text(TraceKind.violation, relid, answer);
    else if (answer !== undefined) {
      invariant(answer.length <= MAX_ANSWER_BYTES, "answers fit a section");
      if (session.receive !== undefined && this.#answers.length < MAX_ANSWERS) this.#answers.push(answer);
      else this.#trace.text(TraceKind.violation, relid, "RNDIS request whose answer has no place to go");
    }
  }
  #released(channel: NetworkChannel, packet: InboundPacket): void {
    const { receive } = this.#session;
    // What comes after a revocation is for a buffer that is no more.
    if (receive === undefined) return;
    if (!receive.release(packet.transactionLow, packet.transactionHigh, channel.subIndex)) {
      this.#trace.text(TraceKind.violation, channel.relid, "completion of a packet that the guest does not have");
      return;
    }
    this.#send();
    this.#offerRoom();
  }
  #offerRoom(): void {
    if (this.#receivePath.takeRoom()) this.#port.room();
  }
  #space(): void {
    this.#send();
    this.#offerRoom();
  }
  #after(): void {
    if (this.#isOfferDue) {
      this.#isOfferDue = false;
      invariant(this.#attached !== undefined, "sub-channels are promised, but there is no offer to make them with");
      this.#attached.offerSubChannels(this.#session.grantedSubChannels);
    }
    this.#send();
    this.#offerRoom();
  }
  /** Sends what waits for the primary channel: the table, answers, then indications. */
  #send(): void {
    const primary = this.#channels[0];
    if (primary === undefined) return;
    if (this.#isTableDue && this.#sendTable(primary)) this.#isTableDue = false;
    while (this.#answers.length > 0 && this.#sendMessage(primary, this.#answers[0]!)) this.#answers.shift();
    if (this.#answers.length > 0) return;
    const session = this.#session;
    if (session.linkChanged) {
      const link = !session.toldLink;
      if (!this.#sendMessage(primary, indication(link ? Indication.mediaConnect : Indication.mediaDisconnect))) return;
      session.toldLink = link;
      session.linkChanged = false;
    }
    if (session.networkChanged && this.#sendMessage(primary, indication(Indication.networkChange)))
      session.networkChanged = false;
    if (session.speedChanged && this.#sendMessage(primary, indication(Indication.linkSpeedChange, this.#speed)))
      session.speedChanged = false;
  }
  #sendMessage(primary: NetworkChannel, message: Uint8Array): boolean {
    const { receive } = this.#session;
    if (receive === undefined || receive.free === 0 || !receive.buffer.isLent) return false;
    this.#answerBatch.add(receive, message, 0, message.length);
    if (this.#answerBatch.send(receive, primary.channel)) return true;
    this.#answerBatch.drop(receive);
    return false;
  }
  #sendTable(primary: NetworkChannel): boolean {
    const { payload } = this.#tablePacket;
    const channels = this.#session.grantedSubChannels + 1;
    writeU32(payload, At.type, NvspType.sendIndirectionTable);
    writeU32(payload, At.tableCount, SEND_TABLE_ENTRIES);
    writeU32(payload, At.tableOffset, SEND_TABLE_OFFSET);
    for (let i = 0; i < SEND_TABLE_ENTRIES; i++) writeU32(payload, SEND_TABLE_OFFSET + i * 4, i % channels);
    return primary.channel.send(this.#tablePacket);
  }
}
