/** The Internet checksum (RFC 1071): sums of 16-bit words, added up before they are folded. */

/** Adds bytes to a sum; an odd last byte counts as followed by 0. Sums of up to 2^21 bytes stay exact integers below 2^37. */
export function sum(bytes: Uint8Array, from: number, to: number, start = 0): number {
  let total = start;
  let at = from;
  // Four words at a time, in a small integer that cannot overflow.
  for (const end = to - 7; at < end; at += 8)
    total +=
      ((bytes[at]! << 8) | bytes[at + 1]!) +
      ((bytes[at + 2]! << 8) | bytes[at + 3]!) +
      ((bytes[at + 4]! << 8) | bytes[at + 5]!) +
      ((bytes[at + 6]! << 8) | bytes[at + 7]!);
  for (const end = to - 1; at < end; at += 2) total += (bytes[at]! << 8) | bytes[at + 1]!;
  if (at < to) total += bytes[at]! << 8;
  return total;
}
/** To 16 bits. */
export function fold(total: number): number {
  while (total > 0xffff) total = (total % 0x10000) + Math.floor(total / 0x10000);
  return total;
}
/** The checksum of a sum. */
export const finish = (total: number): number => ~fold(total) & 0xffff;
