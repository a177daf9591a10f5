/**
 * A guest for tests, of VMBus and of the services behind it: it connects, opens channels, sends and receives as the reference says a
 * Linux-like guest does. Its pages are handed out in an order that leaves no two of them beside each other.
 */
import { GuestMemory, UNWATCHED } from "../machine/guest-memory.js";
import { NO_TRACE, type Trace } from "../trace/trace.js";
import { COMPLETION_REQUESTED, CONNECTION_BASE, PacketType, type SynicPort } from "./device.js";
import type { Values } from "./layout.js";
import * as protocol from "./protocol.js";
import { VmbusVersion } from "./protocol.js";
import { type GuestPacket, GuestRing, type PageRange, packetBytes } from "./scripted-ring.js";
import { VmbusServer } from "./server.js";

/** Keeps what the host does to the SynIC. */
export class FakeSynic implements SynicPort {
  processors = 4;
  /** Messages that a SINT's queue takes before it is full. */
  capacity = Number.POSITIVE_INFINITY;
  messages: { vp: number; sint: number; type: number; bytes: Uint8Array<ArrayBuffer> }[] = [];
  /** Event flags that are set: what `${vp}/${sint}/${flag}` says. */
  flags = new Set<string>();
  connections = new Set<number>();
  /** Signals so far, those that found the flag set included. */
  signals = 0;

  post(vp: number, sint: number, type: number, payload: Uint8Array, lengthBytes: number): boolean {
    if (vp >= this.processors || sint >= 16 || lengthBytes > 240) throw new Error(`message to VP ${vp}, SINT ${sint}`);
    if (this.messages.length >= this.capacity) return false;
    this.messages.push({ vp, sint, type, bytes: payload.slice(0, lengthBytes) });
    return true;
  }
  signal(vp: number, sint: number, flag: number): void {
    if (vp >= this.processors || flag < 1 || flag > 2047) throw new Error(`signal to VP ${vp}, flag ${flag}`);
    this.signals++;
    this.flags.add(`${vp}/${sint}/${flag}`);
  }
  setConnection(relid: number, connected: boolean): void {
    if (this.connections.has(relid) === connected) throw new Error(`connection of relid ${relid} set twice`);
    if (connected) this.connections.add(relid);
    else this.connections.delete(relid);
  }
}

export type GuestOffer = Values<typeof protocol.OfferChannel.fields>;

/** Guest memory at pages that do not follow each other. */
export class GuestBuffer implements PageRange {
  readonly byteCount: number;
  readonly byteOffset: number;
  readonly pages: readonly number[];
  readonly #memory: GuestMemory;

  constructor(memory: GuestMemory, pages: readonly number[], byteCount: number, byteOffset: number) {
    this.#memory = memory;
    this.pages = pages;
    this.byteCount = byteCount;
    this.byteOffset = byteOffset;
  }
  read(): Uint8Array<ArrayBuffer> {
    return Uint8Array.from({ length: this.byteCount }, (_, i) => this.#memory.ram[this.#at(i)]!);
  }
  write(bytes: Uint8Array, at = 0): void {
    bytes.forEach((byte, i) => {
      this.#memory.ram[this.#at(at + i)] = byte;
    });
  }
  #at(i: number): number {
    const at = i + this.byteOffset;
    return this.pages[Math.floor(at / 4096)]! * 4096 + (at % 4096);
  }
}

export interface GuestOptions {
  readonly bytes?: number;
  readonly processors?: number;
  readonly trace?: Trace;
  readonly memory?: GuestMemory;
  readonly maxVersion?: number;
}
export interface OpenOptions {
  /** Pages of each ring, its control page included. */
  readonly ringPages?: number;
  /** The same of the ring towards the guest, where it differs. */
  readonly inRingPages?: number;
  readonly targetVp?: number;
  readonly userData?: Uint8Array;
  readonly subIndex?: number;
}
export interface SendOptions {
  readonly type?: number;
  /** Low and high half, or the low half alone. */
  readonly transaction?: number | readonly [low: number, high: number];
  /** Whether a completion is asked for. */
  readonly completion?: boolean;
  /** Buffers: the packet is of the GPA-direct type then. */
  readonly ranges?: readonly PageRange[];
}

export class ScriptedGuest {
  readonly memory: GuestMemory;
  readonly synic = new FakeSynic();
  readonly trace: Trace;
  /** May be replaced by a server into which the old one's state was restored. */
  server: VmbusServer;
  version = 0;
  /** Offers that the host has not taken back, by relid. */
  readonly offers = new Map<number, GuestOffer>();
  readonly channels = new Map<number, GuestChannel>();
  /** Relids that the host has rescinded and the guest has not released. */
  readonly rescinded = new Set<number>();
  /** All messages that have come, described. */
  readonly log: protocol.DescribedMessage[] = [];
  allOffersDelivered = 0;
  unloadResponses = 0;
  readonly #freePages: number[] = [];
  readonly #pagesOf = new Map<number, readonly number[]>();
  #answers: protocol.DescribedMessage[] = [];
  #nextGpadl = 0xe1e10;
  #messageConnection: number = protocol.MessageConnection.current;

  constructor({ bytes = 16 << 20, processors = 4, trace = NO_TRACE, memory, maxVersion }: GuestOptions = {}) {
    this.memory = memory ?? new GuestMemory(new Uint8Array(new SharedArrayBuffer(bytes)), UNWATCHED);
    this.trace = trace;
    this.synic.processors = processors;
    this.server = this.newServer(maxVersion);
    // Even pages upwards, then odd ones downwards; page 0 is nobody's.
    const pages = this.memory.bytes / 4096;
    for (let page = 1; page < pages; page += 2) this.#freePages.push(page);
    for (let page = (pages - 1) & ~1; page > 0; page -= 2) this.#freePages.push(page);
  }
  /** A server over the same memory and SynIC. */
  newServer(maxVersion: number = VmbusVersion.iron): VmbusServer {
    return new VmbusServer({ memory: this.memory, synic: this.synic, trace: this.trace, maxVersion });
  }

  /** Lets the host work until nothing is left, and takes what it sends. */
  turn(): void {
    do {
      let turns = 0;
      while (this.server.run(64)) if (++turns > 100_000) throw new Error("the host does not come to an end");
      this.server.flush();
    } while (this.takeMessages());
    for (const flag of [...this.synic.flags]) {
      const [vp, sint, relid] = flag.split("/").map(Number) as [number, number, number];
      this.synic.flags.delete(flag);
      const channel = this.channels.get(relid);
      if (channel === undefined) continue;
      if (vp !== channel.targetVp || sint !== protocol.VMBUS_SINT)
        throw new Error(`flag of relid ${relid} at VP ${vp}`);
      channel.interrupts++;
    }
  }
  /** Takes the messages that the SynIC has. @returns whether there were any */
  takeMessages(): boolean {
    const messages = this.synic.messages.splice(0);
    for (const { type, bytes } of messages) {
      if (type !== protocol.CHANNEL_MESSAGE) throw new Error(`SynIC message of type ${type}`);
      this.#take(bytes);
    }
    if (messages.length > 0) this.server.onQueueSpace();
    return messages.length > 0;
  }
  #take(bytes: Uint8Array): void {
    const described = protocol.describeMessage(bytes);
    this.log.push(described);
    switch (protocol.messageType(bytes)) {
      case protocol.OfferChannel.type: {
        const offer = protocol.OfferChannel.decode(bytes);
        if (this.offers.has(offer.relid)) throw new Error(`relid ${offer.relid} offered twice`);
        for (const [relid, o] of this.offers)
          if (o.instanceId === offer.instanceId && o.classId === offer.classId && o.subIndex === offer.subIndex)
            throw new Error(`relid ${offer.relid} is offered under the name of ${relid}`);
        if (offer.connectionId !== CONNECTION_BASE + offer.relid || offer.monitorAllocated !== 0)
          throw new Error(`offer of relid ${offer.relid}: ${JSON.stringify(described)}`);
        this.offers.set(offer.relid, offer);
        break;
      }
      case protocol.RescindChannelOffer.type:
        this.rescinded.add(protocol.RescindChannelOffer.decode(bytes).relid);
        break;
      case protocol.AllOffersDelivered.type:
        this.allOffersDelivered++;
        break;
      case protocol.UnloadResponse.type:
        this.unloadResponses++;
        break;
      default:
        this.#answers.push(described);
    }
  }
  /** The answer of this name that has come; later ones of the name stay. */
  answer(name: string): protocol.DescribedMessage | undefined {
    this.turn();
    const at = this.#answers.findIndex((a) => a.message === name);
    return at < 0 ? undefined : this.#answers.splice(at, 1)[0];
  }
  /** Posts a message as it is. */
  post(message: Uint8Array, connectionId = this.#messageConnection): void {
    this.server.onMessage(message.slice(), message.length, connectionId);
  }

  /** Makes contact with one version. @returns whether the host speaks it */
  negotiate(version: number, targetVp = 0): boolean {
    const isCurrent = version >= VmbusVersion.win10V5;
    this.forgetAll();
    const connection = isCurrent ? protocol.MessageConnection.current : protocol.MessageConnection.legacy;
    this.post(
      protocol.InitiateContact.encode({
        version,
        targetVp,
        messageSint: isCurrent ? 2 : 0,
        messageVtl: 0,
        featureFlags: 0,
        monitorPage1: 0x5000,
        monitorPage2: 0x6000,
      }),
      connection,
    );
    const response = this.answer(protocol.VersionResponse.name);
    if (response === undefined) throw new Error("no VersionResponse");
    if (response.supported !== 1) return false;
    this.version = version;
    this.#messageConnection = isCurrent ? (response.selected as number) : protocol.MessageConnection.legacy;
    return true;
  }
  /**
   * Connects with the newest version not above `version` that the host speaks, and asks for the offers.
   * @returns the version
   */
  connect(version: number = VmbusVersion.iron): number {
    const known = Object.values(VmbusVersion).filter(
      (v) => v <= version && v >= VmbusVersion.win8 && v < VmbusVersion.copper,
    );
    for (const v of known.sort((a, b) => b - a)) {
      if (!this.negotiate(v)) continue;
      this.post(protocol.RequestOffers.encode({}));
      const before = this.allOffersDelivered;
      this.turn();
      if (this.allOffersDelivered !== before + 1) throw new Error("no AllOffersDelivered");
      return v;
    }
    throw new Error("the host speaks no version");
  }
  /** Leaves as a guest does before a reboot. */
  unload(): void {
    const before = this.unloadResponses;
    this.post(protocol.Unload.encode({}));
    this.turn();
    if (this.unloadResponses !== before + 1) throw new Error("no UnloadResponse");
    this.forgetAll();
  }
  /** What a guest that starts anew knows. */
  forgetAll(): void {
    this.offers.clear();
    this.channels.clear();
    this.rescinded.clear();
    this.#answers = [];
    this.synic.messages = [];
    this.synic.flags.clear();
    for (const pages of this.#pagesOf.values()) this.#freePages.push(...pages);
    this.#pagesOf.clear();
  }

  /** @throws Error when memory is used up */
  pages(count: number): number[] {
    if (count > this.#freePages.length) throw new Error("the guest has no pages left");
    return this.#freePages.splice(this.#freePages.length - count, count);
  }
  freePages(pages: readonly number[]): void {
    this.#freePages.push(...pages);
  }
  /** A buffer for packets, with these contents or of so many bytes. */
  buffer(contents: Uint8Array | number, byteOffset = 0): GuestBuffer {
    const byteCount = typeof contents === "number" ? contents : contents.length;
    const buffer = new GuestBuffer(
      this.memory,
      this.pages(Math.ceil((byteCount + byteOffset) / 4096)),
      byteCount,
      byteOffset,
    );
    buffer.write(typeof contents === "number" ? new Uint8Array(contents) : contents);
    return buffer;
  }
  /** Lends pages to a channel, in as many messages as it takes. @returns the handle. @throws Error when the host refuses */
  gpadl(relid: number, pages: readonly number[], byteCount = pages.length * 4096, byteOffset = 0): number {
    const gpadl = this.#nextGpadl++;
    for (const message of gpadlMessages(relid, gpadl, [{ byteCount, byteOffset, pages }])) this.post(message);
    const created = this.answer(protocol.GpadlCreated.name);
    if (created?.gpadl !== gpadl || created.relid !== relid) throw new Error(`GPADL: ${JSON.stringify(created)}`);
    if (created.status !== 0) throw new Error(`GPADL refused: ${created.status}`);
    this.#pagesOf.set(gpadl, pages);
    return gpadl;
  }
  teardown(relid: number, gpadl: number): void {
    this.post(protocol.GpadlTeardown.encode({ relid, gpadl }));
    const torndown = this.answer(protocol.GpadlTorndown.name);
    if (torndown?.gpadl !== gpadl) throw new Error(`teardown: ${JSON.stringify(torndown)}`);
    this.#freePages.push(...(this.#pagesOf.get(gpadl) ?? []));
    this.#pagesOf.delete(gpadl);
  }
  /** The offer of a device. @throws Error when there is none */
  offerOf(classId: string, subIndex = 0): GuestOffer {
    for (const offer of this.offers.values())
      if (offer.classId === classId && offer.subIndex === subIndex && !this.rescinded.has(offer.relid)) return offer;
    throw new Error(`nothing of class ${classId} is offered`);
  }
  /** Opens a device's channel. @param device class, or relid. @throws Error when the host refuses */
  open(device: string | number, options: OpenOptions = {}): GuestChannel {
    const relid = typeof device === "number" ? device : this.offerOf(device, options.subIndex).relid;
    const { ringPages = 5, inRingPages = ringPages, targetVp = 0, userData = new Uint8Array(0) } = options;
    const pages = this.pages(ringPages + inRingPages);
    const gpadl = this.gpadl(relid, pages);
    const channel = new GuestChannel(this, relid, gpadl, pages, ringPages, targetVp);
    // Before OpenChannel the rings are the guest's alone.
    channel.out.prepare();
    channel.in.prepare();
    this.channels.set(relid, channel);
    this.post(
      protocol.OpenChannel.encode({
        relid,
        openId: relid,
        ringGpadl: gpadl,
        targetVp,
        downstreamOffset: ringPages,
        userData,
      }),
    );
    const result = this.answer(protocol.OpenChannelResult.name);
    if (result?.relid === relid && result.openId === relid && result.status === 0) return channel;
    this.channels.delete(relid);
    this.teardown(relid, gpadl);
    throw new Error(`not opened: ${JSON.stringify(result)}`);
  }
  /** Lets go of a channel that the host took back (or of a sub-channel). */
  release(relid: number): void {
    this.post(protocol.RelIdReleased.encode({ relid }));
    this.offers.delete(relid);
    this.rescinded.delete(relid);
    this.turn();
  }
}

export class GuestChannel {
  readonly guest: ScriptedGuest;
  readonly relid: number;
  readonly gpadl: number;
  readonly ringPages: number;
  /** Towards the host. */
  readonly out: GuestRing;
  /** Towards the guest. */
  readonly in: GuestRing;
  targetVp: number;
  /** Event flags seen. */
  interrupts = 0;

  constructor(
    guest: ScriptedGuest,
    relid: number,
    gpadl: number,
    pages: readonly number[],
    ringPages: number,
    targetVp: number,
  ) {
    this.guest = guest;
    this.relid = relid;
    this.gpadl = gpadl;
    this.ringPages = ringPages;
    this.targetVp = targetVp;
    this.out = new GuestRing(guest.memory, pages.slice(0, ringPages));
    this.in = new GuestRing(guest.memory, pages.slice(ringPages));
  }
  /**
   * Puts a packet in the ring and signals the host if the rule says so. The host does not run: `guest.turn`.
   * @returns false when there is no room: the pending size is set, and the host will signal
   */
  send(payload: Uint8Array, options: SendOptions = {}): boolean {
    const { ranges, completion = false, transaction = 0 } = options;
    const type = options.type ?? (ranges === undefined ? PacketType.inBand : PacketType.gpaDirect);
    const [transactionLow, transactionHigh] = typeof transaction === "number" ? [transaction, 0] : transaction;
    const flags = completion ? COMPLETION_REQUESTED : 0;
    return this.sendRaw(
      packetBytes(payload, {
        type,
        flags,
        transactionLow,
        transactionHigh,
        ...(ranges === undefined ? {} : { ranges }),
      }),
    );
  }
  /** The same with the bytes of the whole packet. */
  sendRaw(packet: Uint8Array): boolean {
    let signal = this.out.produce(packet);
    if (signal === undefined) {
      this.out.store(12, packet.length + 8);
      // Room may have come before the host could see the pending size.
      signal = this.out.produce(packet);
      if (signal === undefined) return false;
    }
    this.out.store(12, 0);
    if (signal) this.signal();
    return true;
  }
  /** The next packet; undefined when there is none. */
  receive(): GuestPacket | undefined {
    const taken = this.in.consume();
    if (taken?.signal === true) this.signal();
    return taken?.packet;
  }
  /** All packets, as an interrupt handler takes them: masked, then unmasked and looked at again. */
  receiveAll(): GuestPacket[] {
    const packets: GuestPacket[] = [];
    do {
      this.in.store(8, 1);
      for (let packet = this.receive(); packet !== undefined; packet = this.receive()) packets.push(packet);
      this.in.store(8, 0);
    } while (this.in.read !== this.in.write);
    return packets;
  }
  /** SignalEvent: the processor knows only connections that the host has set. */
  signal(): void {
    if (this.guest.synic.connections.has(this.relid)) this.guest.server.onSignal(this.relid);
  }
  /** Closes it, and takes the ring's pages back. */
  close(): void {
    this.guest.post(protocol.CloseChannel.encode({ relid: this.relid }));
    this.guest.channels.delete(this.relid);
    this.guest.teardown(this.relid, this.gpadl);
  }
  /** Moves its interrupt to another processor. */
  modify(targetVp: number): void {
    this.guest.post(protocol.ModifyChannel.encode({ relid: this.relid, targetVp }));
    this.targetVp = targetVp;
  }
}

/** The messages that lend ranges of pages: a header with up to 26 words behind the first range's head, bodies with up to 28. */
export function gpadlMessages(relid: number, gpadl: number, ranges: readonly PageRange[]): Uint8Array[] {
  const length = ranges.reduce((sum, r) => sum + 8 + r.pages.length * 8, 0);
  const contents = new Uint8Array(length);
  const view = new DataView(contents.buffer);
  let at = 0;
  for (const { byteCount, byteOffset, pages } of ranges) {
    view.setUint32(at, byteCount, true);
    view.setUint32(at + 4, byteOffset, true);
    at += 8;
    for (const page of pages) {
      view.setBigUint64(at, BigInt(page), true);
      at += 8;
    }
  }
  const inHeader = Math.min(length, 8 + protocol.GPADL_HEADER_MAX_PAGES * 8);
  const header = protocol.GpadlHeader.encode(
    { relid, gpadl, rangeBufferLength: length, rangeCount: ranges.length },
    inHeader,
  );
  header.set(contents.subarray(0, inHeader), protocol.GpadlHeader.size);
  const messages: Uint8Array[] = [header];
  for (let from = inHeader; from < length; ) {
    const part = contents.subarray(from, from + protocol.GPADL_BODY_MAX_PAGES * 8);
    const body = protocol.GpadlBody.encode({ messageNumber: 0, gpadl }, part.length);
    body.set(part, protocol.GpadlBody.size);
    messages.push(body);
    from += part.length;
  }
  return messages;
}
