/** The Internet checksum: RFC 1071 "Computing the Internet Checksum". Sums are kept unfolded until the end. */

/**
 * Adds big-endian 16-bit words. A last odd byte counts as the high half of a word, so that only the last part of a datagram may
 * have an odd length.
 *
 * @param sum what was added so far, from 0 on
 * @returns an integer below 2^52 for anything below 64 KiB
 */
export function addBytes(view: DataView, at: number, length: number, sum: number): number {
  // 32-bit words in doubles: a carry out of 16 bits is worth one, wherever it is folded in. Four sums hide the latency.
  let a = sum;
  let b = 0;
  let c = 0;
  let d = 0;
  const end = at + length;
  let i = at;
  for (; i + 16 <= end; i += 16) {
    a += view.getUint32(i);
    b += view.getUint32(i + 4);
    c += view.getUint32(i + 8);
    d += view.getUint32(i + 12);
  }
  for (; i + 4 <= end; i += 4) a += view.getUint32(i);
  if (i + 2 <= end) {
    b += view.getUint16(i);
    i += 2;
  }
  if (i < end) c += view.getUint8(i) << 8;
  return a + b + c + d;
}

/** Folds a sum into 16 bits, without the complement. */
export function fold(sum: number): number {
  let s = (sum % 0x1_0000_0000) + Math.floor(sum / 0x1_0000_0000);
  while (s > 0xffff) s = (s % 0x1_0000) + Math.floor(s / 0x1_0000);
  return s;
}

/** The checksum of a sum: its folded complement. */
export function checksumOf(sum: number): number {
  return ~fold(sum) & 0xffff;
}

/**
 * The sum of the pseudo-header: RFC 9293 "Header Format", RFC 8200 "Upper-Layer Checksums".
 *
 * @param sourceAt offset of the source address; the destination follows it in both families
 * @param addressBytes 4 or 16
 * @param length of the transport's header and data
 */
export function pseudoSum(
  view: DataView,
  sourceAt: number,
  addressBytes: number,
  protocol: number,
  length: number,
): number {
  return addBytes(view, sourceAt, 2 * addressBytes, protocol + length);
}
