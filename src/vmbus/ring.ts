/**
 * The host's ends of a channel's two rings (VMBus, "ring buffers"): a control page and data pages, anywhere in guest RAM, while
 * the guest runs beside us. Indices, mask and pending size are accessed atomically; sequentially consistent accesses are the
 * full barriers that the signalling rules ask for. Every packet is copied out once and checked in the copy.
 */
import type { GuestMemory } from "../machine/guest-memory.js";
import { GuestViolation, invariant } from "../machine/guest-violation.js";
import { type InboundPacket, type OutboundPacket, PacketType } from "./device.js";
import { GpaRanges } from "./gpa-ranges.js";

/** Control page: byte offsets. */
export const RingControl = {
  writeIndex: 0,
  readIndex: 4,
  interruptMask: 8,
  pendingSendSize: 12,
  featureBits: 64,
} as const;
/** Feature bit 0: the producer sets the pending size, so the consumer must signal when there is room. */
export const FEATURE_PENDING_SEND_SIZE = 1;

/** The same as words of the control page. */
const [WRITE, READ, MASK, PENDING, FEATURES] = [0, 1, 2, 3, 16] as const;
export const DESCRIPTOR_BYTES = 16;
/** Behind each packet: 32 bits of 0 and the offset at which the packet began. */
export const TRAILER_BYTES = 8;
/** Byte count and offset at the start of a range; reserved and count before the list. */
const RANGE_HEADER = 8;
const MAX_PACKET_BYTES = 0xffff * 8;
/** Below this, a loop is faster than making views for a block copy. */
const LOOP_BYTES = 512;

/** Where a packet of the guest is copied to; used again for the next packet of any channel. */
export class PacketCopy implements InboundPacket {
  type = 0;
  flags = 0;
  transactionLow = 0;
  transactionHigh = 0;
  payload = new Uint8Array(4096);
  payloadLength = 0;
  readonly ranges = new GpaRanges();
  /** The payload by words. */
  payloadWords = new Int32Array(this.payload.buffer);
  /** The header behind the descriptor, by words. */
  headerWords = new Int32Array(1024);

  /** Makes room. Packets have at most 512 KiB, so it stays bounded. */
  reserve(headerBytes: number, payloadBytes: number): void {
    if (headerBytes > this.headerWords.byteLength) this.headerWords = new Int32Array(roundUp(headerBytes) >> 2);
    if (payloadBytes <= this.payload.length) return;
    this.payload = new Uint8Array(roundUp(payloadBytes));
    this.payloadWords = new Int32Array(this.payload.buffer);
  }
}

function roundUp(bytes: number): number {
  return 2 ** Math.ceil(Math.log2(bytes));
}

/** What both ends have: the pages and the checks of indices. */
abstract class RingEnd {
  readonly sizeBytes: number;
  protected readonly memory: GuestMemory;
  protected readonly words: Int32Array;
  /** Addresses of the data pages. */
  protected readonly bases: Float64Array;
  protected readonly source: string;
  readonly #controlGpa: number;
  /** Of the control page in `words`. */
  readonly #control: number;

  /** @param pages page numbers, control page first; all of them RAM */
  constructor(memory: GuestMemory, pages: Float64Array, source: string) {
    invariant(pages.length >= 2, "a ring has a control page and a data page");
    this.memory = memory;
    this.words = memory.words;
    this.bases = pages.slice(1).map((page) => page * 4096);
    this.sizeBytes = this.bases.length * 4096;
    this.source = source;
    this.#controlGpa = pages[0]! * 4096;
    this.#control = this.#controlGpa / 4;
  }
  protected load(word: number): number {
    return Atomics.load(this.words, this.#control + word) >>> 0;
  }
  protected store(word: number, value: number): void {
    Atomics.store(this.words, this.#control + word, value);
    this.memory.written(this.#controlGpa + word * 4, 4);
  }
  /** An index that the guest writes. */
  protected index(word: number): number {
    const value = this.load(word);
    if (value >= this.sizeBytes || (value & 7) !== 0)
      throw new GuestViolation(
        this.source,
        word === WRITE ? "write index (VMBus ring)" : "read index (VMBus ring)",
        value,
      );
    return value;
  }
  /** Bytes from index `from` to index `to`. */
  protected distance(from: number, to: number): number {
    return to >= from ? to - from : to - from + this.sizeBytes;
  }
  protected advance(index: number, bytes: number): number {
    const next = index + bytes;
    return next >= this.sizeBytes ? next - this.sizeBytes : next;
  }
  /** Address of a byte of the data. */
  protected gpa(index: number): number {
    return this.bases[index >>> 12]! + (index & 4095);
  }
  /** Bytes in the ring as the indices have it, for status; 0 when they are nonsense. */
  get usedBytes(): number {
    const used = this.distance(this.load(READ), this.load(WRITE));
    return used >= 0 && used < this.sizeBytes ? used : 0;
  }
}

/** Guest to host: we consume. */
export class InRing extends RingEnd {
  /** Only we move it, so the copy in RAM is not trusted. */
  #read: number;
  /** What is published. */
  #published: number;
  /** The guest's write index when it was last looked at. */
  #write: number;

  /** Begins where the indices in RAM say, or at `read` (a restored channel). @throws GuestViolation when they are out of range */
  constructor(memory: GuestMemory, pages: Float64Array, source: string, read?: number) {
    super(memory, pages, source);
    this.#read = read ?? this.index(READ);
    this.#published = this.#read;
    this.#write = this.#read;
  }
  get readIndex(): number {
    return this.#read;
  }
  /** The guest need not signal from now on. */
  mask(): void {
    this.store(MASK, 1);
  }
  /** The guest must signal again. @returns whether the ring is empty; if not, packets may have come without a signal */
  unmask(): boolean {
    this.store(MASK, 0);
    return this.index(WRITE) === this.#read;
  }
  /**
   * Takes the next packet, copied and checked.
   * @returns false when there is none
   * @throws GuestViolation
   */
  next(into: PacketCopy): boolean {
    if (this.#write === this.#read) {
      this.#write = this.index(WRITE);
      if (this.#write === this.#read) return false;
    }
    const start = this.#read;
    const available = this.distance(start, this.#write);
    if (available < DESCRIPTOR_BYTES + TRAILER_BYTES)
      throw new GuestViolation(this.source, "less than a packet in the ring (VMBus packet descriptor)", available);
    const words = this.words;
    // Halves of 8 bytes: the second may be in another page.
    const first = this.gpa(start) / 4;
    const second = this.gpa(this.advance(start, 8)) / 4;
    const typeAndHeader = words[first]!;
    const totalAndFlags = words[first + 1]!;
    into.transactionLow = words[second]! >>> 0;
    into.transactionHigh = words[second + 1]! >>> 0;
    into.type = typeAndHeader & 0xffff;
    into.flags = totalAndFlags >>> 16;
    const headerBytes = (typeAndHeader >>> 16) * 8;
    const totalBytes = (totalAndFlags & 0xffff) * 8;
    if (headerBytes < DESCRIPTOR_BYTES || headerBytes > totalBytes)
      throw new GuestViolation(this.source, "header length (VMBus packet descriptor)", headerBytes);
    if (totalBytes + TRAILER_BYTES > available)
      throw new GuestViolation(this.source, "length exceeds the ring's contents (VMBus packet descriptor)", totalBytes);
    const extra = headerBytes - DESCRIPTOR_BYTES;
    const payloadBytes = totalBytes - headerBytes;
    into.reserve(extra, payloadBytes);
    into.payloadLength = payloadBytes;
    into.ranges.clear();
    if (into.type === PacketType.gpaDirect) {
      this.#copy(this.advance(start, DESCRIPTOR_BYTES), into.headerWords, extra);
      this.#parseRanges(into.headerWords, extra, into.ranges);
    }
    this.#copy(this.advance(start, headerBytes), into.payloadWords, payloadBytes);
    this.#read = this.advance(start, totalBytes + TRAILER_BYTES);
    return true;
  }
  /**
   * Tells the guest how far we have read.
   * @returns whether the guest waits for room and now has it, so that it must be signalled
   */
  publish(): boolean {
    if (this.#published === this.#read) return false;
    const freed = this.distance(this.#published, this.#read);
    this.#published = this.#read;
    this.store(READ, this.#read);
    // Looked at after the index is out: either the guest sees the room, or we see that it waits.
    const pending = this.load(PENDING);
    if (pending === 0 || (this.load(FEATURES) & FEATURE_PENDING_SEND_SIZE) === 0) return false;
    const free = this.sizeBytes - this.distance(this.#read, this.index(WRITE));
    return free > pending && free - freed <= pending;
  }

  #copy(index: number, into: Int32Array, bytes: number): void {
    const words = this.words;
    let at = 0;
    while (at < bytes) {
      const length = Math.min(4096 - (index & 4095), bytes - at);
      const from = this.gpa(index) / 4;
      const to = at >> 2;
      const count = length >> 2;
      if (length <= LOOP_BYTES) for (let i = 0; i < count; i++) into[to + i] = words[from + i]!;
      else into.set(words.subarray(from, from + count), to);
      at += length;
      index = this.advance(index, length);
    }
  }
  /** VMBus, "GPA direct": reserved, count, then ranges of byte count, byte offset and 64-bit page numbers. */
  #parseRanges(header: Int32Array, bytes: number, ranges: GpaRanges): void {
    const count = bytes >= RANGE_HEADER ? header[1]! >>> 0 : 0;
    const rule = appendRanges(ranges, header, RANGE_HEADER, bytes, count);
    if (rule !== undefined || count === 0)
      throw new GuestViolation(this.source, rule ?? "no range (VMBus GPA direct)", count);
    if (!ranges.isInside(this.memory)) throw new GuestViolation(this.source, "a range outside RAM (VMBus GPA direct)");
  }
}

/**
 * Reads `count` ranges from words: byte count, byte offset, page numbers.
 * @param from, to bytes; @returns the rule that was broken
 */
export function appendRanges(
  ranges: GpaRanges,
  words: Int32Array,
  from: number,
  to: number,
  count: number,
): string | undefined {
  let at = from >> 2;
  const end = to >> 2;
  for (let r = 0; r < count; r++) {
    if (at + 2 > end) return "ranges exceed their buffer (VMBus range list)";
    const byteCount = words[at]! >>> 0;
    const byteOffset = words[at + 1]! >>> 0;
    at += 2;
    if (byteOffset >= 4096) return "offset beyond the first page (VMBus range list)";
    const pages = Math.ceil((byteCount + byteOffset) / 4096);
    if (at + pages * 2 > end) return "pages exceed their buffer (VMBus range list)";
    ranges.addRange(byteCount, byteOffset);
    for (let p = 0; p < pages; p++, at += 2)
      ranges.addPage((words[at]! >>> 0) + (words[at + 1]! >>> 0) * 0x1_0000_0000);
  }
  return undefined;
}

/** Host to guest: we produce. */
export class OutRing extends RingEnd {
  #write: number;
  /** Room that somebody waits for; also in the ring as the pending size. */
  #waiting: number;
  /** A packet was written while the guest slept: it must be signalled. The caller clears it. */
  mustSignal = false;

  /** @param restored where a restored channel was. @throws GuestViolation when the indices are out of range */
  constructor(memory: GuestMemory, pages: Float64Array, source: string, restored?: { write: number; waiting: number }) {
    super(memory, pages, source);
    this.#write = restored?.write ?? this.index(WRITE);
    this.#waiting = restored?.waiting ?? 0;
    // A restored channel's indices are looked at in its first turn, where a violation has somewhere to go.
    if (restored === undefined) this.#free();
    this.store(FEATURES, this.load(FEATURES) | FEATURE_PENDING_SEND_SIZE);
  }
  get writeIndex(): number {
    return this.#write;
  }
  get waiting(): number {
    return this.#waiting;
  }
  get isEmpty(): boolean {
    return this.load(READ) === this.#write;
  }
  /** Whether a packet could ever be written to a ring of this size. */
  fits(payloadLength: number): boolean {
    return packetBytes(payloadLength) + TRAILER_BYTES < this.sizeBytes;
  }
  /**
   * Writes a packet and publishes it.
   * @returns false when there is no room: the guest is asked to tell when there is
   * @throws GuestViolation when the guest's read index is out of range
   */
  write(packet: OutboundPacket): boolean {
    const headerBytes = DESCRIPTOR_BYTES + (packet.headerLength ?? 0);
    const totalBytes = packetBytes(packet.payloadLength);
    invariant(totalBytes <= MAX_PACKET_BYTES, "a packet has at most 512 KiB");
    invariant((headerBytes & 7) === 0 && headerBytes <= totalBytes, "a packet's header is a part of it, in steps of 8");
    const needed = totalBytes + TRAILER_BYTES;
    // Strictly more: a full ring would look empty.
    if (this.#free() <= needed) {
      const before = this.#waiting;
      this.#setWaiting(before === 0 ? needed : Math.min(before, needed));
      if (this.#free() <= needed) return false;
      this.#setWaiting(before);
    }
    const start = this.#write;
    this.#putPair(start, packet.type | ((headerBytes / 8) << 16), (totalBytes / 8) | (packet.flags << 16));
    this.#putPair(this.advance(start, 8), packet.transactionLow, packet.transactionHigh);
    this.#put(
      this.advance(start, DESCRIPTOR_BYTES),
      packet.payload,
      packet.payloadLength,
      totalBytes - DESCRIPTOR_BYTES,
    );
    this.#putPair(this.advance(start, totalBytes), 0, start);
    this.memory.settle();
    this.#write = this.advance(start, needed);
    this.store(WRITE, this.#write);
    // Looked at after the index is out: a guest that goes to sleep now sees the packet.
    if (this.load(MASK) === 0 && this.load(READ) === start) this.mustSignal = true;
    return true;
  }
  /** Whether somebody waits for room and there is some; an impossible index counts, so that the channel's turn finds it. */
  get hasAwaitedRoom(): boolean {
    if (this.#waiting === 0) return false;
    const read = this.load(READ);
    return read >= this.sizeBytes || (read & 7) !== 0 || this.#free() > this.#waiting;
  }
  /** The same, and nobody waits any more. @throws GuestViolation */
  takeAwaitedRoom(): boolean {
    if (this.#waiting === 0 || this.#free() <= this.#waiting) return false;
    this.#setWaiting(0);
    return true;
  }

  #free(): number {
    return this.sizeBytes - this.distance(this.index(READ), this.#write);
  }
  #setWaiting(bytes: number): void {
    this.#waiting = bytes;
    this.store(PENDING, bytes);
  }
  /** 8 bytes at a multiple of 8: always in one page. */
  #putPair(index: number, low: number, high: number): void {
    const gpa = this.gpa(index);
    this.words[gpa / 4] = low;
    this.words[gpa / 4 + 1] = high;
    this.memory.written(gpa, 8);
  }
  #put(index: number, from: Uint8Array, used: number, bytes: number): void {
    const ram = this.memory.ram;
    let at = 0;
    while (at < bytes) {
      const length = Math.min(4096 - (index & 4095), bytes - at);
      const gpa = this.gpa(index);
      const data = Math.max(0, Math.min(length, used - at));
      if (data <= LOOP_BYTES) for (let i = 0; i < data; i++) ram[gpa + i] = from[at + i]!;
      else ram.set(from.subarray(at, at + data), gpa);
      for (let i = data; i < length; i++) ram[gpa + i] = 0;
      this.memory.written(gpa, length);
      at += length;
      index = this.advance(index, length);
    }
  }
}

/** Descriptor and padded payload. */
function packetBytes(payloadLength: number): number {
  return (DESCRIPTOR_BYTES + payloadLength + 7) & ~7;
}
