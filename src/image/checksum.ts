/** CRC-32 (IEEE) and CRC-64 (ECMA), the checks of xz files. Reflected, as xz and gzip use them. */

const crc32Table = new Uint32Array(256);
const crc64Low = new Uint32Array(256);
const crc64High = new Uint32Array(256);
for (let i = 0; i < 256; i++) {
  let crc = i;
  let low = i;
  let high = 0;
  for (let bit = 0; bit < 8; bit++) {
    crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
    const isOdd = low & 1;
    low = (low >>> 1) | (high << 31);
    high >>>= 1;
    if (isOdd) {
      low ^= 0xd7870f42;
      high ^= 0xc96c5795;
    }
  }
  crc32Table[i] = crc;
  crc64Low[i] = low;
  crc64High[i] = high;
}

export function crc32(bytes: Uint8Array): number {
  let crc = -1;
  for (let i = 0; i < bytes.length; i++) crc = crc32Table[(crc ^ bytes[i]!) & 0xff]! ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** Low and high half of the CRC-64. */
export function crc64(bytes: Uint8Array): readonly [low: number, high: number] {
  let low = -1;
  let high = -1;
  for (let i = 0; i < bytes.length; i++) {
    const index = (low ^ bytes[i]!) & 0xff;
    low = ((low >>> 8) | (high << 24)) ^ crc64Low[index]!;
    high = (high >>> 8) ^ crc64High[index]!;
  }
  return [~low >>> 0, ~high >>> 0];
}
