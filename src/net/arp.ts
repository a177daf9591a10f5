/** Address resolution for IPv4: RFC 826 "Packet format". */
import { BROADCAST_MAC, type IpAddress, type MacAddress } from "./address.js";
import { type FrameBuffer, writeEthernet } from "./header.js";
import { EtherType } from "./packet.js";

/** Bytes of a message for Ethernet and IPv4. */
export const ARP_BYTES = 28;
/** "Opcode". */
export const ArpOperation = { REQUEST: 1, REPLY: 2 } as const;

/** A received message; offsets are in the buffer that it was read from. */
export interface ArpMessage {
  readonly operation: number;
  readonly senderMac: MacAddress;
  readonly senderAddress: IpAddress;
  readonly targetAddress: IpAddress;
}

/** @returns undefined if it is not for Ethernet and IPv4 */
export function parseArp(bytes: Uint8Array, view: DataView, at: number, end: number): ArpMessage | undefined {
  if (end - at < ARP_BYTES) return undefined;
  if (view.getUint16(at) !== 1 || view.getUint16(at + 2) !== EtherType.IPV4 || view.getUint16(at + 4) !== 0x0604)
    return undefined;
  return {
    operation: view.getUint16(at + 6),
    senderMac: bytes.slice(at + 8, at + 14),
    senderAddress: bytes.slice(at + 14, at + 18),
    targetAddress: bytes.slice(at + 24, at + 28),
  };
}

/**
 * Writes a whole frame: a reply to `targetMac`, or a request to everybody.
 *
 * @returns bytes of the frame
 */
export function writeArp(
  f: FrameBuffer,
  operation: number,
  senderMac: MacAddress,
  sender: IpAddress,
  targetMac: MacAddress | undefined,
  target: IpAddress,
): number {
  const at = writeEthernet(f, targetMac ?? BROADCAST_MAC, senderMac, EtherType.ARP);
  f.view.setUint16(at, 1);
  f.view.setUint16(at + 2, EtherType.IPV4);
  f.view.setUint16(at + 4, 0x0604);
  f.view.setUint16(at + 6, operation);
  f.bytes.set(senderMac, at + 8);
  f.bytes.set(sender, at + 14);
  if (targetMac === undefined) f.bytes.fill(0, at + 18, at + 24);
  else f.bytes.set(targetMac, at + 18);
  f.bytes.set(target, at + 24);
  return at + ARP_BYTES;
}
