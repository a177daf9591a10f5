/**
 * Frames into a capture file: "PCAP Next Generation (pcapng) Capture File Format", an IETF draft, read by Wireshark and tcpdump.
 * One section, one Ethernet interface, times in nanoseconds.
 */
import type { NetClock } from "./link.js";
import { EthernetPort, FrameFlags } from "./port.js";

const SECTION_HEADER = 0x0a0d0d0a;
const INTERFACE_DESCRIPTION = 1;
const ENHANCED_PACKET = 6;
const LINKTYPE_ETHERNET = 1;
const OPT_ENDOFOPT = 0;
const OPT_COMMENT = 1;
const IF_NAME = 2;
const IF_TSRESOL = 9;
const SHB_USERAPPL = 4;
const EPB_FLAGS = 2;

/** Which way a frame went, as seen from the network towards the guest. */
export type Direction = "in" | "out";

/** Writes blocks to a sink. */
export class PcapngWriter {
  readonly #sink: (bytes: Uint8Array) => void;
  readonly #epochNs: number;

  /**
   * @param sink gets bytes of the file in order; they are its own
   * @param name of the interface
   * @param epochNs what to add to times for those since 1970
   */
  constructor(sink: (bytes: Uint8Array) => void, name: string, epochNs = 0) {
    this.#sink = sink;
    this.#epochNs = epochNs;
    const header = new Uint8Array(16);
    const view = new DataView(header.buffer);
    view.setUint32(0, 0x1a2b3c4d, true);
    view.setUint16(4, 1, true);
    view.setUint32(8, 0xffff_ffff, true); // length of the section: not known
    view.setUint32(12, 0xffff_ffff, true);
    sink(block(SECTION_HEADER, [header, option(SHB_USERAPPL, ascii("enlighten")), option(OPT_ENDOFOPT, NOTHING)]));
    const description = new Uint8Array(8);
    new DataView(description.buffer).setUint16(0, LINKTYPE_ETHERNET, true);
    sink(
      block(INTERFACE_DESCRIPTION, [
        description,
        option(IF_NAME, ascii(name)),
        option(IF_TSRESOL, Uint8Array.of(9)),
        option(OPT_ENDOFOPT, NOTHING),
      ]),
    );
  }

  /**
   * Adds a frame, whole. Checksums that were left out stay so; a comment says it, as it does of long segments.
   *
   * @param direction "in": to the guest
   */
  frame(frame: Uint8Array, direction: Direction, now: number, flags = 0, segmentSize = 0): void {
    const head = new Uint8Array(20);
    const view = new DataView(head.buffer);
    const time = now + this.#epochNs;
    view.setUint32(4, Math.floor(time / 2 ** 32), true);
    view.setUint32(8, time % 2 ** 32, true);
    view.setUint32(12, frame.length, true);
    view.setUint32(16, frame.length, true);
    const said = new Uint8Array(4);
    said[0] = direction === "in" ? 1 : 2;
    const parts = [head, padded(frame), option(EPB_FLAGS, said)];
    const partial = (flags & FrameFlags.partialChecksum) !== 0;
    if (partial || segmentSize > 0) {
      const words = [partial ? "checksum left out" : "", segmentSize > 0 ? `segments of ${segmentSize} bytes` : ""];
      parts.push(option(OPT_COMMENT, ascii(words.filter((w) => w !== "").join(", "))));
    }
    parts.push(option(OPT_ENDOFOPT, NOTHING));
    this.#sink(block(ENHANCED_PACKET, parts));
  }
}

/**
 * Listens in on a cable.
 *
 * @param guest the end that was to be the router's or the switch's, of a cable whose other end the guest has
 * @returns the end for the router or the switch instead
 */
export function tap(guest: EthernetPort, writer: PcapngWriter, clock: NetClock): EthernetPort {
  const [inner, outer] = EthernetPort.cable();
  guest.receive = (frame, flags, segmentSize) => {
    writer.frame(frame, "out", clock.now(), flags, segmentSize);
    return inner.transmit(frame, flags, segmentSize);
  };
  inner.receive = (frame, flags, segmentSize) => {
    const ok = guest.transmit(frame, flags, segmentSize);
    if (ok) writer.frame(frame, "in", clock.now(), flags, segmentSize); // one without room comes again
    return ok;
  };
  guest.onRoom = () => inner.room();
  inner.onRoom = () => guest.room();
  // a guest's cable that is out is out for who is behind the tap
  guest.onLink = () => {
    inner.up = guest.link;
  };
  return outer;
}

const NOTHING = new Uint8Array(0);

function ascii(text: string): Uint8Array {
  return Uint8Array.from(text, (c) => c.charCodeAt(0) & 0x7f);
}
function padded(bytes: Uint8Array): Uint8Array {
  if ((bytes.length & 3) === 0) return bytes;
  const out = new Uint8Array((bytes.length + 3) & ~3);
  out.set(bytes);
  return out;
}
function option(code: number, value: Uint8Array): Uint8Array {
  const out = new Uint8Array(4 + ((value.length + 3) & ~3));
  const view = new DataView(out.buffer);
  view.setUint16(0, code, true);
  view.setUint16(2, value.length, true);
  out.set(value, 4);
  return out;
}
function block(type: number, parts: readonly Uint8Array[]): Uint8Array {
  const length = parts.reduce((n, p) => n + p.length, 12);
  const out = new Uint8Array(length);
  const view = new DataView(out.buffer);
  view.setUint32(0, type, true);
  view.setUint32(4, length, true);
  let at = 8;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  view.setUint32(length - 4, length, true);
  return out;
}
