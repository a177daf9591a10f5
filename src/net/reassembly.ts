/**
 * Putting fragments together: RFC 791 "Fragmentation and Reassembly", RFC 8200 "Fragment Header". Bounded in datagrams, bytes,
 * pieces and time. Fragments that overlap discard their datagram (RFC 5722), in both families.
 */
import { addBytes, checksumOf } from "./checksum.js";
import { ETHERNET_HEADER, EtherType, IPV4_HEADER, IPV6_HEADER, type Packet } from "./packet.js";

const MAX_DATAGRAMS = 16;
const MAX_PIECES = 128;
const MAX_BYTES = 65_535;
const LIFE_NS = 30e9;

interface Piece {
  readonly from: number;
  readonly bytes: Uint8Array;
}

interface Partial {
  readonly key: string;
  readonly diesAt: number;
  readonly pieces: Piece[];
  bytes: number;
  /** Length of the whole data, once the last fragment is there. */
  total: number;
  /** `FrameFlags` that all fragments had. */
  flags: number;
  spoilt: boolean;
}

/** A whole packet, as if it had come in one frame. */
export interface Reassembled {
  readonly frame: Uint8Array;
  readonly flags: number;
}

/** The fragments that are still alone. */
export class Reassembler {
  readonly #partials = new Map<string, Partial>();
  /** Datagrams given up: too many, too old, overlapping, too long. */
  discarded = 0;

  /** Bytes held. */
  get bytes(): number {
    let sum = 0;
    for (const p of this.#partials.values()) sum += p.bytes;
    return sum;
  }
  get count(): number {
    return this.#partials.size;
  }

  /**
   * Takes a fragment.
   *
   * @returns the datagram if this was what was missing
   */
  add(packet: Packet, now: number): Reassembled | undefined {
    this.expire(now);
    const from = packet.fragmentOffset;
    const length = packet.ipEnd - packet.payloadAt;
    const key = `${packet.bytes.subarray(packet.sourceAt, packet.sourceAt + 2 * packet.family).join(".")} ${packet.identification} ${packet.protocol}`;
    let p = this.#partials.get(key);
    if (p === undefined) {
      if (this.#partials.size >= MAX_DATAGRAMS) {
        const oldest = this.#partials.keys().next().value!;
        this.#partials.delete(oldest);
        this.discarded++;
      }
      p = { key, diesAt: now + LIFE_NS, pieces: [], bytes: 0, total: -1, flags: packet.flags, spoilt: false };
      this.#partials.set(key, p);
    }
    if (p.spoilt) return undefined;
    p.flags &= packet.flags;
    if (p.pieces.some((x) => x.from === from && x.bytes.length === length)) return undefined; // came twice
    const bad =
      length === 0 ||
      from + length > MAX_BYTES - IPV4_HEADER ||
      (packet.moreFragments ? (length & 7) !== 0 || (p.total >= 0 && from + length > p.total) : p.total >= 0) ||
      p.pieces.length === MAX_PIECES ||
      p.pieces.some((x) => from < x.from + x.bytes.length && x.from < from + length) ||
      (!packet.moreFragments && p.pieces.some((x) => x.from + x.bytes.length > from + length));
    if (bad) {
      // the entry stays until it expires: what else comes of this datagram is not to begin another
      p.spoilt = true;
      p.pieces.length = 0;
      p.bytes = 0;
      this.discarded++;
      return undefined;
    }
    // the first fragment brings the headers along
    const start = from === 0 ? packet.frameAt : packet.payloadAt;
    const bytes = packet.bytes.slice(start, packet.ipEnd);
    p.pieces.push(from === 0 ? { from, bytes: bytes.subarray(packet.payloadAt - start) } : { from, bytes });
    if (!packet.moreFragments) p.total = from + length;
    p.bytes += length;
    if (p.bytes !== p.total) return undefined;
    this.#partials.delete(key);
    return { frame: assemble(p, packet), flags: p.flags };
  }

  /** Forgets what waited too long. */
  expire(now: number): void {
    for (const [key, p] of this.#partials) {
      if (p.diesAt > now) return; // in order of their coming
      this.#partials.delete(key);
      if (!p.spoilt) this.discarded++;
    }
  }

  clear(): void {
    this.#partials.clear();
  }
}

/** A frame with plain headers: addresses are those of all fragments, what else was in the first one's headers is dropped. */
function assemble(p: Partial, packet: Packet): Uint8Array {
  const isV4 = packet.family === 4;
  const header = isV4 ? IPV4_HEADER : IPV6_HEADER;
  const frame = new Uint8Array(ETHERNET_HEADER + header + p.total);
  const view = new DataView(frame.buffer);
  frame.set(packet.bytes.subarray(packet.frameAt, packet.frameAt + 12));
  view.setUint16(12, isV4 ? EtherType.IPV4 : EtherType.IPV6);
  const at = ETHERNET_HEADER;
  if (isV4) {
    view.setUint16(at, 0x4500);
    view.setUint16(at + 2, header + p.total);
    view.setUint8(at + 8, packet.hopLimit);
    view.setUint8(at + 9, packet.protocol);
  } else {
    view.setUint32(at, 0x6000_0000);
    view.setUint16(at + 4, p.total);
    view.setUint8(at + 6, packet.protocol);
    view.setUint8(at + 7, packet.hopLimit);
  }
  const addresses = packet.bytes.subarray(packet.sourceAt, packet.sourceAt + 2 * packet.family);
  frame.set(addresses, at + header - addresses.length);
  if (isV4) view.setUint16(at + 10, checksumOf(addBytes(view, at, IPV4_HEADER, 0)));
  for (const { from, bytes } of p.pieces) frame.set(bytes, at + header + from);
  return frame;
}
