/**
 * What a network card does with a frame that leaves the process: a long TCP segment becomes segments that fit, and checksums that were left
 * out are filled in. RFC 9293 "Segmentation", RFC 6864 (identifications of IPv4).
 */
import { addBytes, checksumOf } from "./checksum.js";
import { FrameBuffer, TCP_HEADER, TcpFlags, UDP_HEADER, writeTransportChecksum } from "./header.js";
import { ETHERNET_HEADER, EtherType, IPV4_HEADER, IPV6_HEADER, IpProtocol } from "./packet.js";
import { FrameFlags } from "./port.js";

/**
 * Gives the frames that go by a wire in place of one.
 *
 * @param emit gets the same frame if there is nothing to do to it; else one that is the receiver's to keep
 */
export function asOnWire(frame: Uint8Array, flags: number, segmentSize: number, emit: (f: Uint8Array) => void): void {
  const isPartial = (flags & FrameFlags.partialChecksum) !== 0;
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  const isTagged = frame.length > 18 && view.getUint16(12) === EtherType.VLAN;
  const ipAt = ETHERNET_HEADER + (isTagged ? 4 : 0);
  const family = frame.length < ipAt + IPV4_HEADER ? 0 : view.getUint16(ipAt - 2);
  const addressBytes = family === EtherType.IPV4 ? 4 : 16;
  const at = ipAt + (addressBytes === 4 ? IPV4_HEADER : IPV6_HEADER);
  const isPlain = family === EtherType.IPV4 ? frame[ipAt] === 0x45 : family === EtherType.IPV6;
  if ((!isPartial && segmentSize === 0) || !isPlain || frame.length < at + UDP_HEADER) {
    emit(frame);
    return;
  }
  const protocol = frame[ipAt + (addressBytes === 4 ? 9 : 6)]!;
  if (protocol === IpProtocol.UDP) {
    const out = copy(frame, frame.length);
    writeTransportChecksum(out, addressBytes, protocol, at, 6, frame.length - at, false);
    emit(out.bytes);
    return;
  }
  const header = protocol === IpProtocol.TCP && frame.length >= at + TCP_HEADER ? (frame[at + 12]! >> 4) * 4 : 0;
  const dataAt = at + header;
  if (header < TCP_HEADER || dataAt > frame.length) {
    emit(frame);
    return;
  }
  const data = frame.length - dataAt;
  const most = segmentSize > 0 ? segmentSize : Math.max(1, data);
  for (let from = 0, n = 0; from === 0 || from < data; from += most, n++) {
    const size = Math.min(most, data - from);
    const out = copy(frame, dataAt + size, dataAt);
    out.bytes.set(frame.subarray(dataAt + from, dataAt + from + size), dataAt);
    const length = header + size;
    if (addressBytes === 4) {
      out.view.setUint16(ipAt + 2, IPV4_HEADER + length);
      out.view.setUint16(ipAt + 4, view.getUint16(ipAt + 4) + n);
      out.view.setUint16(ipAt + 10, 0);
      out.view.setUint16(ipAt + 10, checksumOf(addBytes(out.view, ipAt, IPV4_HEADER, 0)));
    } else out.view.setUint16(ipAt + 4, length);
    out.view.setInt32(at + 4, view.getInt32(at + 4) + from);
    // the end, and the push, are the last one's
    if (from + size < data) out.bytes[at + 13]! &= ~(TcpFlags.FIN | TcpFlags.PSH);
    writeTransportChecksum(out, addressBytes, protocol, at, 16, length, false);
    emit(out.bytes);
  }
}

function copy(frame: Uint8Array, size: number, of = frame.length): FrameBuffer {
  const out = new FrameBuffer(size);
  out.bytes.set(frame.subarray(0, of));
  return out;
}
