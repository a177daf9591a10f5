/**
 * A guest for tests: a driver that behaves as Linux's. It sends what that one sends, looks at lengths and offsets as that one does, and
 * puts coalesced packets together in the same way.
 */
import { GuestMemory, UNWATCHED } from "../../machine/guest-memory.js";
import { invariant } from "../../machine/guest-violation.js";
import { COMPLETION_REQUESTED, PacketType } from "../../vmbus/device.js";
import { GpaRanges } from "../../vmbus/gpa-ranges.js";
import { type Piece, ScriptedChannel, type SentPacket } from "../../vmbus/scripted-channel.js";
import type { NetworkAdapter } from "./adapter.js";

/** One per-packet information entry. */
export interface Info {
  readonly type: number;
  readonly value: number;
}
export interface ReceivedFrame {
  readonly frame: Uint8Array;
  readonly channel: number;
  /** Value of each information entry, by type. */
  readonly info: ReadonlyMap<number, number>;
  /** Sections that it was in. */
  readonly parts: number;
}
export interface QueryResult {
  readonly status: number;
  readonly length: number;
  readonly offset: number;
  readonly data: Uint8Array;
}
export interface StartOptions {
  readonly version?: number;
  readonly mtu?: number;
  /** Low word of NDIS_CONFIG's capability bits. */
  readonly capabilities?: number;
  readonly receiveBytes?: number;
  /** OFFLOAD_PARAMETERS from byte 4 on. */
  readonly offloads?: readonly number[];
  readonly filter?: number;
}

export const RECEIVE_GPADL = 0xe1e10;
export const SEND_GPADL = 0xe1e11;
export const RECEIVE_ID = 0xcafe;
const SEND_BYTES = 120 * 4096;
const SECTIONS = 80;
/** Where messages in pages are put. */
const MESSAGE_GPA = 0x10000;
/** Where packets in pages are put, one behind the other: what is in the ring must not be overwritten. */
const PAGES_GPA = 0x600000;
const PAGES_BYTES = 0x180000;
const SEND_PAGE = 0x100;
const RECEIVE_PAGE = 0x200;
/** All offloads on: checksums both ways, long segments, coalescing. */
export const ALL_OFFLOADS = [4, 4, 4, 4, 4, 0, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0];
const NO_SECTION = 0xffffffff;

export function testMemory(bytes = 8 << 20): GuestMemory {
  return new GuestMemory(new Uint8Array(new SharedArrayBuffer(bytes)), UNWATCHED);
}
/** Pages in an order that leaves no two of them beside each other where they were asked for so. */
function lend(bytes: number, firstPage: number): GpaRanges {
  const ranges = new GpaRanges();
  const pages = Math.ceil(bytes / 4096);
  ranges.addRange(bytes, 0);
  for (let i = pages - 1; i >= 0; i--) ranges.addPage(firstPage + i);
  return ranges;
}
export const u32s = (...values: readonly number[]): Uint8Array => {
  const out = new Uint8Array(values.length * 4);
  const view = new DataView(out.buffer);
  values.forEach((v, i) => {
    view.setUint32(i * 4, v >>> 0, true);
  });
  return out;
};
export const join = (...parts: readonly Uint8Array[]): Uint8Array => {
  const out = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const p of parts) {
    out.set(p, at);
    at += p.length;
  }
  return out;
};
/** "10 00, 00": for expected bytes. */
export const hex = (text: string): Uint8Array =>
  Uint8Array.from(
    text.split(/[\s,]+/).filter((t) => t !== ""),
    (t) => Number.parseInt(t, 16),
  );

/** An RNDIS PACKET message as Linux writes it. `pad`: to a multiple of 8, as in front of another one. */
export function rndisPacket(frame: Uint8Array, infos: readonly Info[] = [], pad = false): Uint8Array {
  const info = join(...infos.map(({ type, value }) => u32s(16, type, 12, value)));
  const length = 44 + info.length + frame.length;
  const padded = pad ? Math.ceil(length / 8) * 8 : length;
  return join(
    u32s(1, padded, 36 + info.length, frame.length, 0, 0, 0, infos.length > 0 ? 36 : 0, info.length, 0, 0),
    info,
    frame,
    new Uint8Array(padded - length),
  );
}

export class ScriptedGuest {
  readonly memory: GuestMemory;
  adapter: NetworkAdapter;
  readonly channels: ScriptedChannel[] = [];
  readonly gpadls = new Map<number, GpaRanges>();
  readonly received: ReceivedFrame[] = [];
  /** INDICATE_STATUS: status, and its number. */
  readonly indications: (readonly [number, number | undefined])[] = [];
  /** In-band packets of the host's. */
  readonly inBand: Uint8Array[] = [];
  /** Frames are kept: their sections are not given back until `completeAll`. */
  keep = false;
  readonly kept: { readonly channel: number; readonly low: number; readonly high: number }[] = [];
  /** Ranges of each transfer-pages packet. */
  readonly batches: number[] = [];
  sectionBytes = 0;
  sections = 0;
  readonly #completions = new Map<number, Uint8Array>();
  readonly #answers = new Map<number, Uint8Array>();
  #nextId = 1;
  #nextRequest = 1;
  #nextSection = 0;
  #pagesAt = 0;

  constructor(adapter: NetworkAdapter, memory: GuestMemory) {
    this.adapter = adapter;
    this.memory = memory;
    this.open(0);
  }
  open(subIndex: number): ScriptedChannel {
    const channel = new ScriptedChannel(subIndex, this.gpadls);
    channel.handler = this.adapter.open(channel);
    invariant(channel.handler !== undefined, "the adapter refuses the channel");
    this.channels[subIndex] = channel;
    return channel;
  }
  /** The machine is restored: another adapter has the state of ours, and goes on with what is in the rings. */
  moveTo(adapter: NetworkAdapter): void {
    const state: unknown = structuredClone(this.adapter.save());
    const open = this.channels.filter((c) => c !== undefined && !c.isClosed);
    const channels = open.map((old) => {
      const channel = new ScriptedChannel(old.subIndex, this.gpadls);
      old.moveTo(channel);
      this.channels[old.subIndex] = channel;
      return channel;
    });
    this.adapter = adapter;
    adapter.restore(state, channels).forEach((handler, i) => {
      channels[i]!.handler = handler;
    });
    for (const channel of channels) channel.run();
  }
  get primary(): ScriptedChannel {
    return this.channels[0]!;
  }

  /** Sends an NVSP message of 40 bytes. @returns the completion's payload; undefined when there was none */
  nvsp(
    fields: readonly number[] | Uint8Array,
    flags = COMPLETION_REQUESTED,
    channel = this.primary,
  ): Uint8Array | undefined {
    const payload = new Uint8Array(40);
    payload.set(fields instanceof Uint8Array ? fields : u32s(...fields));
    const id = this.#nextId++;
    channel.put({ low: id, high: 0xabcd, payload, flags });
    this.poll();
    const completion = this.#completions.get(id);
    this.#completions.delete(id);
    return completion;
  }
  /** INIT. @returns the status */
  init(version: number): number {
    const answer = this.nvsp([1, version, version]);
    invariant(answer !== undefined && answer.length >= 28, "INIT_COMPLETE is too short for Linux");
    return new DataView(answer.buffer).getUint32(12, true);
  }
  configure(mtu: number, capabilities: number): void {
    invariant(this.nvsp([125, mtu + 14, 0, capabilities, 0], 0) === undefined, "NDIS_CONFIG wants no completion");
  }
  lendReceive(bytes: number, handle = RECEIVE_GPADL): Uint8Array {
    this.gpadls.set(handle, lend(bytes, RECEIVE_PAGE));
    const answer = this.nvsp([101, handle, RECEIVE_ID])!;
    const view = new DataView(answer.buffer);
    if (view.getUint32(4, true) === 1) {
      invariant(view.getUint32(8, true) === 1 && view.getUint32(12, true) === 0, "Linux wants one section at 0");
      this.sectionBytes = view.getUint32(16, true);
      this.sections = view.getUint32(20, true);
      invariant(this.sectionBytes >= 68 && this.sectionBytes * this.sections <= bytes, "sections fit");
    }
    return answer;
  }
  lendSend(bytes = SEND_BYTES): Uint8Array {
    this.gpadls.set(SEND_GPADL, lend(bytes, SEND_PAGE));
    return this.nvsp([104, SEND_GPADL, 0])!;
  }
  /** The start-up as Linux does it. */
  start(options: StartOptions = {}): this {
    const { version = 0x60001, mtu = 1500, capabilities = version >= 0x60001 ? 0xac : 0x2c } = options;
    invariant(this.init(version) === 1, "INIT was refused");
    if (version > 2) this.configure(mtu, capabilities);
    const ndis = version >= 0x50000 ? [6, 30] : [6, 1];
    invariant(this.nvsp([100, ...ndis], 0) === undefined, "SEND_NDIS_VERSION wants no completion");
    invariant(
      new DataView(this.lendReceive(options.receiveBytes ?? 1 << 20).buffer).getUint32(4, true) === 1,
      "receive",
    );
    invariant(new DataView(this.lendSend().buffer).getUint32(4, true) === 1, "send");
    this.initialize();
    if (options.offloads !== undefined) {
      const size = version >= 0x50000 ? 28 : 22;
      const parameters = join(hex("80 03"), Uint8Array.of(size, 0), Uint8Array.from(options.offloads));
      invariant(this.set(0xfc01020c, parameters.slice(0, size)) === 0, "OFFLOAD_PARAMETERS");
    }
    invariant(this.set(0x0001010e, u32s(options.filter ?? 0xd)) === 0, "PACKET_FILTER");
    return this;
  }
  /** Asks for sub-channels and opens what is granted. */
  openSubChannels(count: number): number {
    const answer = new DataView(this.nvsp([133, 1, count])!.buffer);
    invariant(answer.getUint32(4, true) === 1, "SUBCHANNEL");
    const granted = answer.getUint32(8, true);
    for (let i = 1; i <= granted; i++) this.open(i);
    return granted;
  }
  /** RNDIS INITIALIZE. */
  initialize(): Uint8Array {
    const answer = this.request(join(u32s(2, 24, 0, 1, 0, 0x4000)));
    invariant(answer !== undefined && answer.length === 52, "INITIALIZE complete");
    return answer;
  }
  /** Sends an RNDIS message whose request id (at byte 8) is set here. @returns the answer */
  request(message: Uint8Array): Uint8Array | undefined {
    const id = this.#nextRequest++;
    const bytes = message.slice();
    new DataView(bytes.buffer).setUint32(8, id, true);
    this.control(bytes);
    const answer = this.#answers.get(id);
    this.#answers.delete(id);
    return answer;
  }
  /** An answer with this request id that has come, once. */
  answerOf(requestId: number): Uint8Array | undefined {
    const answer = this.#answers.get(requestId);
    this.#answers.delete(requestId);
    return answer;
  }
  /** Sends bytes of control in pages, as Linux does. @returns the completion's status */
  control(bytes: Uint8Array): number {
    this.memory.write(MESSAGE_GPA + 100, bytes);
    const id = this.#nextId++;
    this.primary.put({
      low: id,
      payload: join(u32s(107, 1, NO_SECTION, 0), new Uint8Array(24)),
      ranges: [{ gpa: MESSAGE_GPA + 100, length: bytes.length }],
    });
    this.poll();
    return this.statusOf(id);
  }
  /** Status of a RNDIS_PACKET_COMPLETE that has come. */
  statusOf(id: number): number {
    const completion = this.#completions.get(id);
    this.#completions.delete(id);
    if (completion === undefined) return -1;
    invariant(completion.length === 8 && completion[0] === 108, "RNDIS_PACKET_COMPLETE");
    return new DataView(completion.buffer).getUint32(4, true);
  }
  query(oid: number, input: Uint8Array = new Uint8Array(0)): QueryResult {
    const answer = this.request(join(u32s(4, 28 + input.length, 0, oid, input.length, 20, 0), input));
    invariant(answer !== undefined, "a QUERY that is not answered stops Linux for ever");
    const view = new DataView(answer.buffer);
    const [length, offset] = [view.getUint32(16, true), view.getUint32(20, true)];
    invariant(offset >= 16 && offset + length <= answer.length - 8, "Linux does not take this answer");
    return { status: view.getUint32(12, true), length, offset, data: answer.slice(8 + offset, 8 + offset + length) };
  }
  set(oid: number, input: Uint8Array): number {
    const answer = this.request(join(u32s(5, 28 + input.length, 0, oid, input.length, 20, 0), input));
    invariant(answer !== undefined && answer.length === 16, "SET complete");
    return new DataView(answer.buffer).getUint32(12, true);
  }

  /**
   * Sends RNDIS bytes: in a section, in pages, or the first `mixed` bytes in a section and the rest in pages.
   * @returns the packet's id
   */
  sendRndis(
    bytes: Uint8Array,
    way: "section" | "pages" | number = "section",
    channel = this.primary,
    flags = 1,
  ): number {
    const id = this.#nextId++;
    const inSection = way === "section" ? bytes.length : way === "pages" ? 0 : Math.min(way, bytes.length);
    const section = this.#nextSection++ % SECTIONS;
    if (inSection > 0) this.writeSend(section * 6144, bytes.subarray(0, inSection));
    const rest = bytes.subarray(inSection);
    // Ranges as Linux has them: one for each piece of a page, at odd offsets.
    const ranges: Piece[] = [];
    if (this.#pagesAt + 0x40000 > PAGES_BYTES) this.#pagesAt = 0;
    for (let at = 0, gpa = PAGES_GPA + this.#pagesAt + 0x801; at < rest.length; ) {
      const length = Math.min(rest.length - at, 4096 - (gpa % 4096), 3000);
      this.memory.write(gpa, rest, at, length);
      ranges.push({ gpa, length });
      at += length;
      gpa += length + 32;
      this.#pagesAt = gpa - PAGES_GPA;
    }
    channel.put({
      low: id,
      high: 0xabcd,
      flags,
      payload: join(u32s(107, 0, inSection > 0 ? section : NO_SECTION, inSection), new Uint8Array(24)),
      ...(ranges.length > 0 ? { ranges } : {}),
    });
    return id;
  }
  /** Bytes of the send buffer. */
  writeSend(offset: number, bytes: Uint8Array): void {
    const pages = this.gpadls.get(SEND_GPADL)?.pages ?? [];
    for (let i = 0; i < bytes.length && pages.length > 0; i++) {
      const at = offset + i;
      this.memory.ram[pages[at >>> 12]! * 4096 + (at & 4095)] = bytes[i]!;
    }
  }
  /** Sends a frame. @returns the completion's status; -1 when it has not come */
  transmit(frame: Uint8Array, infos: readonly Info[] = [], way: "section" | "pages" | number = "section"): number {
    const id = this.sendRndis(rndisPacket(frame, infos), way);
    this.poll();
    return this.statusOf(id);
  }

  /** Ends the host's turn, then takes and handles everything. */
  poll(room = Number.POSITIVE_INFINITY): void {
    for (let again = true; again; ) {
      this.adapter.flush();
      again = false;
      for (const channel of this.channels) {
        if (channel === undefined || channel.isClosed) continue;
        for (const packet of channel.take(room)) {
          this.#take(channel, packet);
          again = true;
        }
        // Room may have been waited for.
        if (channel.sent.length > 0) again = true;
      }
    }
  }
  /** Gives everything back that was kept. */
  completeAll(count = Number.POSITIVE_INFINITY): void {
    for (const { channel, low, high } of this.kept.splice(0, count)) this.#complete(channel, low, high);
    this.poll();
  }
  #complete(channel: number, low: number, high: number): void {
    this.channels[channel]!.put({ type: PacketType.completion, flags: 0, low, high, payload: u32s(108, 1) });
  }
  #take(channel: ScriptedChannel, packet: SentPacket): void {
    if (packet.type === PacketType.completion) {
      invariant(packet.flags === 0 && !this.#completions.has(packet.low), `id ${packet.low} completed twice`);
      this.#completions.set(packet.low, packet.payload);
    } else if (packet.type === PacketType.inBand) {
      invariant(packet.low === 0 && packet.high === 0 && packet.flags === 0, "an unsolicited packet has no id");
      this.inBand.push(packet.payload);
    } else {
      invariant(packet.type === PacketType.transferPages, `packet of type ${packet.type}`);
      this.#transferPages(channel, packet);
    }
  }
  #transferPages(channel: ScriptedChannel, packet: SentPacket): void {
    const view = new DataView(packet.payload.buffer);
    const count = view.getUint32(4, true);
    invariant(
      packet.low !== 0 && packet.flags === COMPLETION_REQUESTED,
      "receive packets have an id and want a completion",
    );
    invariant(view.getUint16(0, true) === RECEIVE_ID && packet.payload[2] === 0, "set id");
    invariant(packet.headerLength === 8 + count * 8 && count >= 1 && count <= 375, "ranges");
    const nvsp = new DataView(packet.payload.buffer, packet.headerLength);
    invariant(nvsp.byteLength === 40 && nvsp.getUint32(0, true) === 107, "NVSP message");
    invariant(nvsp.getUint32(8, true) === NO_SECTION && nvsp.getUint32(12, true) === 0, "no send section");
    this.batches.push(count);
    let pending: { parts: Uint8Array[]; info: Map<number, number> } | undefined;
    for (let i = 0; i < count; i++) {
      const length = view.getUint32(8 + i * 8, true);
      const offset = view.getUint32(12 + i * 8, true);
      invariant(length <= this.sectionBytes && offset % this.sectionBytes === 0, "a range is in one section");
      invariant(offset + length <= this.sectionBytes * this.sections, "a range is in the buffer");
      const message = this.#readReceive(offset, length);
      const type = new DataView(message.buffer).getUint32(0, true);
      invariant(new DataView(message.buffer).getUint32(4, true) === length, "message length");
      if (type !== 1) {
        invariant(nvsp.getUint32(4, true) === 1, "control is on the control channel");
        this.#control(type, message);
        continue;
      }
      invariant(nvsp.getUint32(4, true) === 0, "frames are on the data channel");
      const { frame, info } = parsePacket(message);
      const id = info.get(0x80000001);
      const flags = id === undefined ? 0 : (id >>> 8) & 0xff;
      if ((flags & 1) === 0) pending = { parts: [frame], info };
      else {
        if ((flags & 2) !== 0) pending = { parts: [], info };
        invariant(pending !== undefined && pending.parts.length < 562, "Linux drops a part without its first");
        pending.parts.push(frame);
        if ((flags & 4) === 0) {
          invariant(i < count - 1, "Linux drops a packet whose last part is not in the ring packet");
          continue;
        }
      }
      const done = pending!;
      pending = undefined;
      this.received.push({
        frame: join(...done.parts),
        channel: channel.subIndex,
        info: done.info,
        parts: done.parts.length,
      });
    }
    if (this.keep && nvsp.getUint32(4, true) === 0)
      this.kept.push({ channel: channel.subIndex, low: packet.low, high: packet.high });
    else this.#complete(channel.subIndex, packet.low, packet.high);
  }
  #readReceive(offset: number, length: number): Uint8Array {
    const { pages } = [...this.gpadls].find(([handle]) => handle !== SEND_GPADL)![1];
    return Uint8Array.from({ length }, (_, i) => {
      const at = offset + i;
      return this.memory.ram[pages[at >>> 12]! * 4096 + (at & 4095)]!;
    });
  }
  #control(type: number, message: Uint8Array): void {
    const view = new DataView(message.buffer);
    if (type === 7) {
      const length = view.getUint32(12, true);
      this.indications.push([
        view.getUint32(8, true),
        length === 0 ? undefined : view.getUint32(8 + view.getUint32(16, true), true),
      ]);
      return;
    }
    // RESET has no request id.
    this.#answers.set(type === 0x80000006 ? this.#nextRequest - 1 : view.getUint32(8, true), message);
  }
}

/** A PACKET message as Linux 6.1 takes it apart; what would make it loop for ever is an error here. */
function parsePacket(message: Uint8Array): { frame: Uint8Array; info: Map<number, number> } {
  const view = new DataView(message.buffer);
  const u = (at: number): number => view.getUint32(at, true);
  const body = message.length - 8;
  const [dataOffset, dataLength, infoOffset, infoLength] = [u(8), u(12), u(28), u(32)];
  invariant(message.length >= 44 && dataOffset < body && dataLength <= body - dataOffset, "frame in its message");
  const info = new Map<number, number>();
  if (infoOffset === 0) invariant(infoLength === 0, "no information has no length");
  else {
    invariant(
      infoOffset >= 36 && infoOffset <= body && infoLength >= 12 && infoLength <= body - infoOffset,
      "information",
    );
    for (let at = 8 + infoOffset, left = infoLength; left > 0; ) {
      const [size, type, value] = [u(at), u(at + 4), u(at + 8)];
      invariant(size >= 12 && size <= left && value < size && size - value >= 4, "Linux would loop for ever");
      invariant(!info.has(type), "information twice");
      info.set(type, u(at + value));
      at += size;
      left -= size;
    }
  }
  return { frame: message.slice(8 + dataOffset, 8 + dataOffset + dataLength), info };
}
