/**
 * The guest's ends of the rings for tests, written from the rules that a Linux-like guest follows, not from our own ends. Bytes
 * go one at a time through page numbers, slowly and plainly.
 */
import type { GuestMemory } from "../machine/guest-memory.js";

export interface GuestPacket {
  readonly type: number;
  readonly flags: number;
  readonly transactionLow: number;
  readonly transactionHigh: number;
  /** Behind the header; padded to a multiple of 8. */
  readonly payload: Uint8Array<ArrayBuffer>;
  /** Between descriptor and payload: set and ranges of a transfer-pages packet. */
  readonly header: Uint8Array<ArrayBuffer>;
}

export class GuestRing {
  readonly memory: GuestMemory;
  readonly pages: readonly number[];
  readonly size: number;

  constructor(memory: GuestMemory, pages: readonly number[]) {
    this.memory = memory;
    this.pages = pages;
    this.size = (pages.length - 1) * 4096;
  }
  load(offset: number): number {
    return Atomics.load(this.memory.words, (this.pages[0]! * 4096 + offset) / 4) >>> 0;
  }
  store(offset: number, value: number): void {
    Atomics.store(this.memory.words, (this.pages[0]! * 4096 + offset) / 4, value);
  }
  get write(): number {
    return this.load(0);
  }
  get read(): number {
    return this.load(4);
  }
  get mask(): number {
    return this.load(8);
  }
  get pending(): number {
    return this.load(12);
  }
  get free(): number {
    const { write, read } = this;
    return write >= read ? this.size - (write - read) : read - write;
  }
  /** As Linux does after the GPADL is there and before it opens. */
  prepare(): void {
    for (const offset of [0, 4, 8, 12]) this.store(offset, 0);
    this.store(64, 1);
  }
  byteAt(index: number): number {
    const at = index % this.size;
    return this.pages[1 + Math.floor(at / 4096)]! * 4096 + (at % 4096);
  }
  putBytes(index: number, bytes: Uint8Array): void {
    bytes.forEach((byte, i) => {
      this.memory.ram[this.byteAt(index + i)] = byte;
    });
  }
  getBytes(index: number, length: number): Uint8Array<ArrayBuffer> {
    return Uint8Array.from({ length }, (_, i) => this.memory.ram[this.byteAt(index + i)]!);
  }

  /** Puts a packet in. @returns undefined when there is no room, else whether the host must be signalled */
  produce(packet: Uint8Array): boolean | undefined {
    if (this.free <= packet.length + 8) return undefined;
    const start = this.write;
    this.putBytes(start, packet);
    const trailer = new Uint8Array(8);
    new DataView(trailer.buffer).setUint32(4, start, true);
    this.putBytes(start + packet.length, trailer);
    this.store(0, (start + packet.length + 8) % this.size);
    return this.mask === 0 && this.read === start;
  }
  /**
   * Takes a packet out.
   * @returns it, and whether the host waits for room and has it now
   */
  consume(): { packet: GuestPacket; signal: boolean } | undefined {
    const { read, write } = this;
    if (read === write) return undefined;
    const view = new DataView(this.getBytes(read, 16).buffer);
    const header = view.getUint16(2, true) * 8;
    const total = view.getUint16(4, true) * 8;
    const available = this.size - this.free;
    if (header < 16 || header > total || total + 8 > available)
      throw new Error(`the host wrote a packet with header ${header}, total ${total}, of ${available} in the ring`);
    const trailer = new DataView(this.getBytes(read + total, 8).buffer);
    if (trailer.getUint32(0, true) !== 0 || trailer.getUint32(4, true) !== read)
      throw new Error("the host wrote a packet without its trailer");
    const packet = {
      type: view.getUint16(0, true),
      flags: view.getUint16(6, true),
      transactionLow: view.getUint32(8, true),
      transactionHigh: view.getUint32(12, true),
      header: this.getBytes(read + 16, header - 16),
      payload: this.getBytes(read + header, total - header),
    };
    const freed = total + 8;
    this.store(4, (read + freed) % this.size);
    const pending = (this.load(64) & 1) !== 0 ? this.pending : 0;
    // the room before is counted back from the room now: the host may have written, and begun to wait, while this packet was read
    const { free } = this;
    return { packet, signal: pending !== 0 && free > pending && free - freed <= pending };
  }
}

/** Guest memory that a packet names. */
export interface PageRange {
  readonly byteCount: number;
  readonly byteOffset: number;
  readonly pages: readonly number[];
}

/** The bytes of a packet: descriptor, ranges if there are any, payload, padding. */
export function packetBytes(
  payload: Uint8Array,
  {
    type,
    flags,
    transactionLow,
    transactionHigh,
    ranges,
  }: { type: number; flags: number; transactionLow: number; transactionHigh: number; ranges?: readonly PageRange[] },
): Uint8Array<ArrayBuffer> {
  const rangeBytes = ranges === undefined ? 0 : 8 + ranges.reduce((sum, r) => sum + 8 + r.pages.length * 8, 0);
  const header = 16 + rangeBytes;
  const out = new Uint8Array((header + payload.length + 7) & ~7);
  const view = new DataView(out.buffer);
  view.setUint16(0, type, true);
  view.setUint16(2, header / 8, true);
  view.setUint16(4, out.length / 8, true);
  view.setUint16(6, flags, true);
  view.setUint32(8, transactionLow, true);
  view.setUint32(12, transactionHigh, true);
  if (ranges !== undefined) view.setUint32(20, ranges.length, true);
  let at = 24;
  for (const range of ranges ?? []) {
    view.setUint32(at, range.byteCount, true);
    view.setUint32(at + 4, range.byteOffset, true);
    at += 8;
    for (const page of range.pages) {
      view.setBigUint64(at, BigInt(page), true);
      at += 8;
    }
  }
  out.set(payload, header);
  return out;
}
