/** Frames of a capture file (pcapng, "Enhanced Packet Block"), in their order. */
import { readFileSync } from "node:fs";

const ENHANCED_PACKET = 6;

export function framesOf(file: string): Buffer[] {
  const bytes = readFileSync(file);
  const frames: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += bytes.readUInt32LE(at + 4)) {
    if (bytes.readUInt32LE(at) !== ENHANCED_PACKET) continue;
    frames.push(bytes.subarray(at + 28, at + 28 + bytes.readUInt32LE(at + 20)));
  }
  return frames;
}
/** Tag control information of IEEE 802.1Q; undefined without a tag. */
export const tagOf = (frame: Buffer): number | undefined =>
  frame.readUInt16BE(12) === 0x8100 ? frame.readUInt16BE(14) : undefined;
