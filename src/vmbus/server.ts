/**
 * The host side of VMBus: a state machine without I/O. The guest's messages and signals go in, messages and signals come out
 * through the SynIC port, packets go to the services' handlers. Whatever a guest sends is answered, recorded or ignored;
 * nothing it does throws, loops or takes unbounded memory.
 */
import type { GuestMemory } from "../machine/guest-memory.js";
import { GuestViolation, invariant } from "../machine/guest-violation.js";
import { type Trace, TraceKind } from "../trace/trace.js";
import { ChannelRecord, type ChannelState, channelKey, type SavedChannel } from "./channel-record.js";
import { MAX_RELID, type Offer, type SynicPort, type VmbusDevice } from "./device.js";
import { type GpadlAnswer, GpadlTable, type SavedGpadls } from "./gpadl.js";
import type { Fields, Values } from "./layout.js";
import { MessageQueue, type QueuedMessage } from "./message-queue.js";
import { type ChannelOwner, OpenChannel, type OpenParameters } from "./open-channel.js";
import * as protocol from "./protocol.js";
import { VMBUS_SINT, VmbusStatus, VmbusVersion } from "./protocol.js";
import { PacketCopy } from "./ring.js";
import { ChannelScheduler } from "./scheduler.js";

/** From so many outgoing messages on, the guest's must wait: it posts faster than it takes the answers. */
const ACCEPT_BELOW = 256;
/** Beyond this, messages are dropped: whoever feeds us has not asked `acceptsMessages`. More than all relids' offers. */
const DROP_FROM = 4096;
const SAVED_VERSION = 1;

export interface VmbusServerOptions {
  readonly memory: GuestMemory;
  readonly synic: SynicPort;
  readonly trace: Trace;
  /** Newest version that is offered: VmbusVersion. */
  readonly maxVersion?: number;
}
export interface OfferOptions {
  /** The offer goes, as if rescinded and released, when the guest disconnects or resets: sockets. */
  readonly transient?: boolean;
  /** It has gone. */
  readonly released?: () => void;
}
/** What the guest agreed to when it made contact. */
export interface Connection {
  /** major << 16 | minor. */
  readonly version: number;
  /** Where its messages go. */
  readonly targetVp: number;
  readonly messageSint: number;
  readonly offersRequested: boolean;
}
/** A channel, for status. */
export interface ChannelStatus {
  readonly name: string;
  readonly relid: number;
  readonly subIndex: number;
  readonly state: ChannelState;
  /** Bytes in the rings from and to the guest; 0 when it is not open. */
  readonly inBytes: number;
  readonly outBytes: number;
  /** Of the ring to the guest; 0 when it is not open. */
  readonly ringBytes: number;
  readonly packetsIn: number;
  readonly packetsOut: number;
  /** Of the device's protocol, as its service tells it. */
  readonly version: string | undefined;
  /** What the guest did wrong last. */
  readonly problem: string | undefined;
}
/** Plain data. */
export interface SavedVmbus {
  readonly version: typeof SAVED_VERSION;
  readonly connection: Connection | undefined;
  readonly channels: readonly SavedChannel[];
  readonly gpadls: SavedGpadls;
  readonly messages: readonly QueuedMessage[];
  /** By relid of the primary channel. */
  readonly devices: readonly { readonly relid: number; readonly state: unknown }[];
}

export class VmbusServer {
  readonly #synic: SynicPort;
  readonly #trace: Trace;
  readonly #maxVersion: number;
  readonly #queue: MessageQueue;
  readonly #gpadls: GpadlTable;
  readonly #records = new Map<number, ChannelRecord>();
  /** Primaries that are not rescinded, by key. */
  readonly #live = new Map<string, ChannelRecord>();
  /** Rescinded, and the guest has not let go. */
  readonly #rescinded = new Set<ChannelRecord>();
  readonly #owner: ChannelOwner;
  #connection: Connection | undefined;
  readonly #scheduler: ChannelScheduler;

  /** The guest has connected, with this version. */
  onConnected: ((version: number) => void) | undefined;
  /** It has let go of everything, in order (shutdown, kexec). */
  onUnload: (() => void) | undefined;
  onChannelState: ((relid: number, name: string, state: ChannelState | "released") => void) | undefined;
  /** It wants a socket: answer by an offer, or by `sendTlConnectResult`. */
  onTlConnect: ((endpoint: string, service: string, silo: string | undefined) => void) | undefined;

  constructor({ memory, synic, trace, maxVersion = VmbusVersion.iron }: VmbusServerOptions) {
    this.#synic = synic;
    this.#trace = trace;
    this.#maxVersion = maxVersion;
    this.#queue = new MessageQueue(memory, synic, trace);
    this.#gpadls = new GpadlTable(memory);
    const scheduler = new ChannelScheduler(memory, synic, trace);
    this.#scheduler = scheduler;
    this.#owner = {
      memory,
      trace,
      packet: new PacketCopy(),
      gpadl: (relid, handle) => this.#gpadls.get(relid, handle),
      makeReady: (channel) => scheduler.makeReady(channel),
      addWaiting: (channel) => scheduler.addWaiting(channel),
      addSignal: (channel) => scheduler.addSignal(channel),
      hasSignal: (channel) => scheduler.hasSignal(channel),
      addFailed: (channel) => this.#addFailed(channel),
    };
  }
  get connection(): Connection | undefined {
    return this.#connection;
  }
  /** False while the guest does not take our answers: its messages should stay where they are, so that it hears of it. */
  get acceptsMessages(): boolean {
    return this.#queue.length < ACCEPT_BELOW;
  }
  /** Messages that wait for the SynIC. */
  get queuedMessages(): number {
    return this.#queue.length;
  }
  get gpadls(): { readonly count: number; readonly incompleteCount: number; readonly entries: number } {
    return this.#gpadls;
  }
  /** How many channels more there may be. */
  get freeRelids(): number {
    return MAX_RELID - this.#records.size;
  }
  channels(): ChannelStatus[] {
    return [...this.#records.values()]
      .sort((a, b) => a.relid - b.relid)
      .map((r) => ({
        name: r.offer.name,
        relid: r.relid,
        subIndex: r.subIndex,
        state: r.state,
        inBytes: r.open?.inBytes ?? 0,
        outBytes: r.open?.outBytes ?? 0,
        packetsIn: r.packetsIn,
        packetsOut: r.packetsOut,
        ringBytes: r.open?.outRingBytes ?? 0,
        version: (r.primary ?? r).device?.negotiated,
        problem: r.problem,
      }));
  }

  /**
   * Offers a device, now or as soon as the guest asks.
   * @throws RangeError when the same class and instance is offered already, or all relids are taken (`freeRelids`)
   */
  offer(device: VmbusDevice, { transient = false, released }: OfferOptions = {}): Offer {
    const relid = this.#freeRelid();
    if (relid === undefined) throw new RangeError("VMBus has at most 2047 channels");
    const record = new ChannelRecord(relid, device.offer, device, { transient });
    if (this.#live.has(record.key)) throw new RangeError(`${device.offer.name} is offered already: ${record.key}`);
    if (released !== undefined) record.released.push(released);
    this.#live.set(record.key, record);
    this.#records.set(relid, record);
    this.#tell(record);
    return {
      device,
      offerSubChannels: (count) => this.#offerSubChannels(record, count),
      rescind: (callback) => {
        if (callback !== undefined) {
          if (this.#records.get(record.relid) === record) record.released.push(callback);
          else callback();
        }
        this.#rescind(record);
      },
    };
  }
  /** The answer to a TlConnectRequest that comes to nothing. @param status NTSTATUS, not 0 */
  sendTlConnectResult(endpoint: string, service: string, status: number): void {
    // Older guests do not know the message: for them the connection times out.
    if (this.#connection === undefined || this.#connection.version < VmbusVersion.win10Rs3) return;
    this.#post(protocol.TlConnectResult.encode({ endpoint, service, status }));
  }

  /** A message that the guest posted. @param payload a private copy; @param connectionId 1 or 4 */
  onMessage(payload: Uint8Array, lengthBytes: number, connectionId: number): void {
    const message = payload.subarray(0, Math.min(lengthBytes, payload.length));
    try {
      if (message.length < protocol.MESSAGE_HEADER_BYTES)
        throw new GuestViolation("vmbus", "message without a header (VMBus message)", message.length);
      const type = protocol.messageType(message);
      this.#trace.record(TraceKind.vmbusIn, type, connectionId, 0, message);
      this.#dispatch(type, message, connectionId);
    } catch (error) {
      if (!(error instanceof GuestViolation)) throw error;
      this.#violation(0, error.message);
    }
    this.#scheduler.endFailed();
  }
  #dispatch(type: number, message: Uint8Array, connectionId: number): void {
    const decode = <F extends Fields>(kind: protocol.Message<F>): Values<F> => {
      if (message.length < kind.size) throw new GuestViolation("vmbus", `${kind.name} is too short`, message.length);
      return kind.decode(message);
    };
    if (type === protocol.Unload.type) {
      this.#unload();
      return;
    }
    if (type === protocol.InitiateContact.type) {
      this.#initiateContact(decode(protocol.InitiateContact), connectionId);
      return;
    }
    if (this.#connection === undefined) throw new GuestViolation("vmbus", "message before contact (VMBus)", type);
    if (this.#queue.length >= DROP_FROM) throw new GuestViolation("vmbus", "the guest takes no answers (VMBus)", type);
    switch (type) {
      case protocol.RequestOffers.type:
        this.#requestOffers();
        break;
      case protocol.OpenChannel.type: {
        const { relid, ...parameters } = decode(protocol.OpenChannel);
        this.#open(relid, parameters);
        break;
      }
      case protocol.CloseChannel.type:
        this.#closeByGuest(decode(protocol.CloseChannel).relid);
        break;
      case protocol.GpadlHeader.type: {
        const { relid, gpadl, rangeBufferLength, rangeCount } = decode(protocol.GpadlHeader);
        this.#known(relid, protocol.GpadlHeader.name);
        this.#answer(this.#gpadls.begin(relid, gpadl, rangeBufferLength, rangeCount, message));
        break;
      }
      case protocol.GpadlBody.type:
        this.#answer(this.#gpadls.continue(decode(protocol.GpadlBody).gpadl, message));
        break;
      case protocol.GpadlTeardown.type: {
        const { relid, gpadl } = decode(protocol.GpadlTeardown);
        this.#teardown(relid, gpadl);
        break;
      }
      case protocol.RelIdReleased.type:
        this.#releasedByGuest(decode(protocol.RelIdReleased).relid);
        break;
      case protocol.ModifyChannel.type: {
        const { relid, targetVp } = decode(protocol.ModifyChannel);
        this.#modify(relid, targetVp);
        break;
      }
      case protocol.TlConnectRequest.type: {
        const { endpoint, service } = decode(protocol.TlConnectRequest);
        this.#tlConnect(endpoint, service, message);
        break;
      }
      default:
        throw new GuestViolation("vmbus", "message type (VMBus)", type);
    }
  }
  #violation(relid: number, text: string): void {
    this.#trace.text(TraceKind.violation, relid, text);
    const record = this.#records.get(relid);
    if (record !== undefined) record.problem = text;
  }

  // Connection

  #initiateContact(contact: ReturnType<typeof protocol.InitiateContact.decode>, connectionId: number): void {
    this.#disconnect();
    const { version, targetVp } = contact;
    const isCurrent = version >= VmbusVersion.win10V5;
    const messageSint = isCurrent && contact.messageSint < 16 ? contact.messageSint : VMBUS_SINT;
    const vpExists = targetVp < this.#synic.processors;
    const supported = vpExists && version <= this.#maxVersion && protocol.SUPPORTED_VERSIONS.includes(version);
    if (!vpExists)
      this.#violation(0, `vmbus: no such processor (VMBus InitiateContact) (got 0x${targetVp.toString(16)})`);
    if (supported) this.#connection = { version, targetVp, messageSint, offersRequested: false };
    // The guest waits for this answer without end, so there is always one.
    const response = protocol.VersionResponse.encode({
      supported: supported ? 1 : 0,
      connectionState: 0,
      selected: isCurrent ? legalConnection(connectionId) : version,
    });
    this.#queue.post(vpExists ? targetVp : 0, messageSint, response);
    if (supported) this.onConnected?.(version);
  }
  #unload(): void {
    const { targetVp = 0, messageSint = VMBUS_SINT } = this.#connection ?? {};
    this.#disconnect();
    this.#queue.post(targetVp, messageSint, protocol.UnloadResponse.encode({}));
    this.onUnload?.();
  }
  /** The machine has been reset: as if the guest had never made contact. */
  reset(): void {
    this.#disconnect();
  }
  #disconnect(): void {
    this.#connection = undefined;
    this.#queue.clear();
    this.#gpadls.clear();
    // Sub-channels first; handlers that offer or rescind meanwhile find a guest that knows nothing.
    const records = [...this.#records.values()].sort((a, b) => b.subIndex - a.subIndex);
    this.#rescinded.clear();
    for (const record of records) record.told = false;
    for (const record of records) {
      this.#close(record);
      record.subsOffered = false;
      record.wasOpen = false;
    }
    for (const record of records)
      if (record.rescinded || record.transient || record.subIndex > 0) this.#release(record);
    this.#scheduler.endFailed();
  }
  #post(message: Uint8Array): void {
    const connection = this.#connection;
    if (connection !== undefined) this.#queue.post(connection.targetVp, connection.messageSint, message);
  }
  /** The SynIC takes messages again. */
  onQueueSpace(): void {
    this.#queue.retry();
  }

  // Offers

  #requestOffers(): void {
    const connection = this.#connection!;
    if (connection.offersRequested) throw new GuestViolation("vmbus", "offers requested twice (VMBus RequestOffers)");
    this.#connection = { ...connection, offersRequested: true };
    for (const record of [...this.#records.values()].sort((a, b) => a.relid - b.relid)) this.#tell(record);
    this.#post(protocol.AllOffersDelivered.encode({}));
  }
  /** Sends the offer if the guest may have it now. */
  #tell(record: ChannelRecord): void {
    if (this.#connection?.offersRequested !== true || record.told || record.rescinded) return;
    // The guest finds devices by class and instance: an earlier one of the same name must have gone.
    for (const earlier of this.#rescinded) if (earlier.key === record.key) return;
    record.told = true;
    this.#post(record.offerMessage());
    this.onChannelState?.(record.relid, record.offer.name, record.state);
  }
  #offerSubChannels(primary: ChannelRecord, count: number): void {
    if (primary.opening !== "open" || primary.subsOffered || this.#records.get(primary.relid) !== primary) return;
    primary.subsOffered = true;
    for (let subIndex = 1; subIndex <= count; subIndex++) {
      const relid = this.#freeRelid();
      if (relid === undefined) {
        this.#violation(primary.relid, "vmbus: no relid is left for a sub-channel");
        break;
      }
      const sub = new ChannelRecord(relid, primary.offer, primary.device, { primary, subIndex });
      primary.subs.add(sub);
      this.#records.set(relid, sub);
      this.#tell(sub);
    }
  }
  #rescind(record: ChannelRecord): void {
    if (record.rescinded) return;
    for (const sub of [...record.subs]) this.#rescind(sub);
    record.rescinded = true;
    if (record.subIndex === 0) this.#live.delete(record.key);
    if (record.told) {
      this.#rescinded.add(record);
      this.#post(protocol.RescindChannelOffer.encode({ relid: record.relid }));
      this.onChannelState?.(record.relid, record.offer.name, record.state);
      this.#close(record);
    } else {
      this.#close(record);
      this.#release(record);
    }
  }
  #releasedByGuest(relid: number): void {
    const record = this.#known(relid, protocol.RelIdReleased.name);
    if (!record.rescinded && record.subIndex === 0)
      throw new GuestViolation(record.offer.name, "released without a rescind (VMBus RelIdReleased)", relid);
    // A guest that closes a primary channel lets go of its sub-channels by itself.
    this.#close(record);
    this.#release(record);
  }
  /** The relid is free again. */
  #release(record: ChannelRecord): void {
    if (this.#records.get(record.relid) !== record) return;
    this.#records.delete(record.relid);
    this.#rescinded.delete(record);
    if (this.#live.get(record.key) === record) this.#live.delete(record.key);
    this.#gpadls.removeAll(record.relid);
    record.told = false;
    record.rescinded = true;
    record.primary?.subs.delete(record);
    this.onChannelState?.(record.relid, record.offer.name, "released");
    for (const later of this.#records.values()) if (!later.told && later.key === record.key) this.#tell(later);
    for (const callback of record.released.splice(0)) callback();
  }
  #freeRelid(): number | undefined {
    for (let relid = 1; relid <= MAX_RELID; relid++) if (!this.#records.has(relid)) return relid;
    return undefined;
  }
  /** The channel of a relid that the guest has been told and has not released. @throws GuestViolation */
  #known(relid: number, message: string): ChannelRecord {
    const record = this.#records.get(relid);
    if (record?.told !== true) throw new GuestViolation("vmbus", `no such channel (VMBus ${message})`, relid);
    return record;
  }

  // Channels

  #open(relid: number, { targetVp, ...parameters }: OpenParameters): void {
    const record = this.#known(relid, protocol.OpenChannel.name);
    // A guest that waits for the result of opening is woken by the rescind.
    if (record.rescinded) return;
    if (record.opening !== "closed")
      throw new GuestViolation(record.offer.name, "open already (VMBus OpenChannel)", relid);
    const isOpen = this.#tryOpen(record, { ...parameters, targetVp });
    if (record.rescinded) return;
    if (!isOpen) this.#close(record);
    this.#post(
      protocol.OpenChannelResult.encode({
        relid,
        openId: parameters.openId,
        status: isOpen ? VmbusStatus.success : VmbusStatus.unsuccessful,
      }),
    );
    if (!isOpen) return;
    record.wasOpen = true;
    this.onChannelState?.(relid, record.offer.name, record.state);
  }
  #tryOpen(record: ChannelRecord, parameters: OpenParameters): boolean {
    const { relid, subIndex, offer, device } = record;
    try {
      if (parameters.targetVp >= this.#synic.processors)
        throw new GuestViolation(offer.name, "no such processor (VMBus OpenChannel)", parameters.targetVp);
      const vmbusVersion = this.#connection!.version;
      const channel = new OpenChannel(this.#owner, { relid, subIndex, name: offer.name, vmbusVersion }, parameters);
      record.open = channel;
      record.opening = "open";
      this.#synic.setConnection(relid, true);
      const handler = device?.open(channel);
      if (handler === undefined) {
        this.#trace.text(TraceKind.note, relid, `${offer.name}: the device refuses the channel`);
        return false;
      }
      channel.attach(handler);
      // The device may have been taken away, or have found the ring unusable, while it opened the channel.
      if (channel.state === "open") return true;
      channel.end();
      return false;
    } catch (error) {
      if (!(error instanceof GuestViolation)) throw error;
      this.#violation(relid, error.message);
      return false;
    }
  }
  #closeByGuest(relid: number): void {
    const record = this.#known(relid, protocol.CloseChannel.name);
    if (record.rescinded) return;
    if (record.opening === "closed")
      throw new GuestViolation(record.offer.name, "not open (VMBus CloseChannel)", relid);
    // The service hears of its sub-channels first, as at a reset.
    for (const sub of [...record.subs]) this.#rescind(sub);
    record.subsOffered = false;
    this.#close(record);
    this.onChannelState?.(relid, record.offer.name, record.state);
  }
  /** The rings are not touched from now on. */
  #close(record: ChannelRecord): void {
    if (record.opening === "open") this.#synic.setConnection(record.relid, false);
    record.opening = "closed";
    const open = record.takeOpen();
    if (open === undefined) return;
    this.#scheduler.remove(open);
    open.close();
  }
  #modify(relid: number, targetVp: number): void {
    const version = this.#connection!.version;
    if (version < VmbusVersion.win10Rs3)
      throw new GuestViolation("vmbus", "message of a later version (VMBus ModifyChannel)");
    const record = this.#known(relid, protocol.ModifyChannel.name);
    const isGood = record.open !== undefined && targetVp < this.#synic.processors;
    if (isGood) record.open!.parameters.targetVp = targetVp;
    else this.#violation(relid, "vmbus: not open, or no such processor (VMBus ModifyChannel)");
    if (version < VmbusVersion.iron || record.rescinded) return;
    this.#post(
      protocol.ModifyChannelResponse.encode({
        relid,
        status: isGood ? VmbusStatus.success : VmbusStatus.invalidParameter,
      }),
    );
  }
  #tlConnect(endpoint: string, service: string, message: Uint8Array): void {
    const version = this.#connection!.version;
    if (version < VmbusVersion.win10)
      throw new GuestViolation("vmbus", "message of a later version (VMBus TlConnectRequest)");
    const hasSilo = version >= VmbusVersion.win10V52 && message.length >= protocol.TL_CONNECT_SILO_BYTES;
    if (this.onTlConnect !== undefined)
      this.onTlConnect(endpoint, service, hasSilo ? protocol.siloOf(message) : undefined);
    else this.sendTlConnectResult(endpoint, service, VmbusStatus.connectionRefused);
  }

  // GPADLs

  #answer(answer: GpadlAnswer | undefined): void {
    if (answer === undefined) return;
    const { relid, gpadl, status, rule } = answer;
    if (rule !== undefined) this.#violation(relid, `vmbus/gpadl: ${rule} (got 0x${gpadl.toString(16)})`);
    this.#post(protocol.GpadlCreated.encode({ relid, gpadl, status }));
  }
  #teardown(relid: number, gpadl: number): void {
    const record = this.#known(relid, protocol.GpadlTeardown.name);
    // The pages are the guest's again, so we must not touch rings in them.
    if (record.opening === "open" && record.open?.parameters.ringGpadl === gpadl)
      record.open.fail(`${record.offer.name}: the open channel's ring (VMBus GpadlTeardown)`);
    if (!this.#gpadls.remove(relid, gpadl))
      throw new GuestViolation(record.offer.name, "no such list (VMBus GpadlTeardown)", gpadl);
    this.#post(protocol.GpadlTorndown.encode({ gpadl }));
  }

  // Packets

  /** The guest signalled a channel: there are packets, or room. Late signals of closed channels are nothing special. */
  onSignal(relid: number): void {
    this.#trace.record(TraceKind.signalIn, relid);
    const open = this.#records.get(relid)?.open;
    if (open !== undefined) this.#scheduler.makeReady(open);
  }
  /**
   * Hands packets to the services: channels in turn, a bounded number each.
   * Also looks whether room has come that somebody waits for, since old guests do not signal it: to be called now and then.
   * @param maxPackets after so many the rest is left; @returns whether work is left
   */
  run(maxPackets: number): boolean {
    return this.#scheduler.run(maxPackets);
  }
  /** Delivers the signals that have been collected: at most one for each channel. */
  flush(): void {
    this.#scheduler.endFailed();
    this.#queue.retry();
    this.#scheduler.flush();
  }
  /** The handler is told later: this may come from inside one of its own calls. */
  #addFailed(channel: OpenChannel): void {
    this.#scheduler.addFailed(channel);
    const record = this.#records.get(channel.relid);
    if (record?.open !== channel || record.opening !== "open") return;
    record.opening = "failed";
    record.problem = channel.problem;
    this.#synic.setConnection(channel.relid, false);
    this.onChannelState?.(record.relid, record.offer.name, record.state);
  }
  // Saved state

  /** Plain data: everything that is not in guest RAM or the SynIC. */
  save(): SavedVmbus {
    this.#scheduler.endFailed();
    const records = [...this.#records.values()];
    return {
      version: SAVED_VERSION,
      connection: this.#connection,
      channels: records.map((record) => record.save()),
      gpadls: this.#gpadls.save(),
      messages: this.#queue.save(),
      devices: records
        .filter((r) => r.subIndex === 0 && !r.rescinded && r.device !== undefined)
        .map((r) => ({ relid: r.relid, state: r.device!.save() })),
    };
  }
  /**
   * Into a server made anew, over the same guest RAM. Devices that were offered here are matched by class and instance; those
   * that are missing are rescinded, new ones are offered.
   * @throws Error when the state is of another version
   */
  restore(saved: unknown): void {
    const state = saved as SavedVmbus;
    if (state.version !== SAVED_VERSION) throw new Error(`saved VMBus state of version ${state.version}`);
    invariant(this.#connection === undefined, "VMBus state is restored before the guest runs");
    const here = new Map(this.#live);
    this.#records.clear();
    this.#live.clear();
    for (const channel of state.channels) if (channel.primaryRelid === undefined) this.#restorePrimary(channel, here);
    for (const channel of state.channels) if (channel.primaryRelid !== undefined) this.#restoreSub(channel);
    for (const record of here.values()) {
      const relid = this.#freeRelid();
      invariant(relid !== undefined, "there are relids for the devices of a restored machine");
      record.relid = relid;
      this.#live.set(record.key, record);
      this.#records.set(record.relid, record);
    }
    this.#connection = state.connection;
    this.#gpadls.restore(state.gpadls);
    this.#queue.restore(state.messages);
    const opened = new Map(state.channels.flatMap((c) => (c.open === undefined ? [] : [[c.relid, c.open] as const])));
    for (const device of state.devices) this.#restoreDevice(device.relid, device.state, opened);
    for (const record of [...this.#records.values()]) {
      if (record.device === undefined && !record.rescinded) this.#rescind(record);
      else this.#tell(record);
    }
  }
  #restorePrimary(saved: SavedChannel, here: Map<string, ChannelRecord>): void {
    const key = channelKey(saved.offer, saved.subIndex);
    const match = saved.rescinded ? undefined : here.get(key);
    if (match !== undefined) {
      here.delete(key);
      this.#live.set(key, match);
    } else if (!saved.told) return;
    this.#restoreRecord(saved, match ?? new ChannelRecord(saved.relid, saved.offer, undefined));
  }
  #restoreSub(saved: SavedChannel): void {
    const primary = this.#records.get(saved.primaryRelid!);
    const known = primary?.device === undefined ? undefined : primary;
    if (known === undefined && !saved.told) return;
    const sub = new ChannelRecord(saved.relid, saved.offer, known?.device, {
      primary: known,
      subIndex: saved.subIndex,
    });
    if (!saved.rescinded) known?.subs.add(sub);
    this.#restoreRecord(saved, sub);
  }
  #restoreRecord(saved: SavedChannel, record: ChannelRecord): void {
    record.restore(saved);
    if (record.device === undefined) record.opening = "closed";
    if (record.rescinded) this.#rescinded.add(record);
    this.#records.set(record.relid, record);
  }
  #restoreDevice(relid: number, state: unknown, opened: ReadonlyMap<number, NonNullable<SavedChannel["open"]>>): void {
    const primary = this.#records.get(relid);
    if (primary?.device === undefined) return;
    const { device } = primary;
    const channels: OpenChannel[] = [];
    for (const record of [primary, ...primary.subs]) {
      const saved = opened.get(record.relid);
      if (saved === undefined) continue;
      const { openId, ringGpadl, downstreamOffset, targetVp } = saved;
      const parameters = { openId, ringGpadl, downstreamOffset, targetVp, userData: saved.userData.slice() };
      const identity = { relid: record.relid, subIndex: record.subIndex, name: record.offer.name };
      const vmbusVersion = this.#connection!.version;
      record.open = new OpenChannel(this.#owner, { ...identity, vmbusVersion }, parameters, saved);
      this.#synic.setConnection(record.relid, true);
      channels.push(record.open);
    }
    const handlers = device.restore(state, channels);
    invariant(handlers.length === channels.length, `${device.offer.name} restores a handler for each open channel`);
    channels.forEach((channel, i) => {
      channel.attach(handlers[i]!);
    });
  }
}

/** The connection that the guest is to use from now on: the one it used, which is one of the two. */
function legalConnection(id: number): number {
  return id === protocol.MessageConnection.legacy ? id : protocol.MessageConnection.current;
}
