/** Frames for tests, and plain implementations of what network cards compute, written without looking at the adapter's. */

export interface FrameSpec {
  readonly destination?: readonly number[];
  readonly source?: readonly number[];
  /** Tag control information. */
  readonly tag?: number;
  readonly version?: 4 | 6;
  readonly protocol?: "tcp" | "udp";
  readonly from?: readonly number[];
  readonly to?: readonly number[];
  readonly sourcePort?: number;
  readonly destinationPort?: number;
  readonly sequence?: number;
  readonly identification?: number;
  /** Flags of TCP. */
  readonly flags?: number;
  /** Bytes of options in the IPv4 header, and in the TCP header; an extension header of IPv6 instead of the former. */
  readonly ipOptions?: number;
  readonly tcpOptions?: number;
  readonly payload?: Uint8Array;
  /** What the checksum field of TCP or UDP has: the checksum, the pseudo-header's sum, or that without the length. */
  readonly checksum?: "good" | "partial" | "long" | "bad";
  /** The IP lengths and IPv4's checksum are left at 0. */
  readonly noLengths?: boolean;
}

export const GUEST_MAC = [0x00, 0x15, 0x5d, 0x01, 0x02, 0x03] as const;
export const OTHER_MAC = [0x00, 0x15, 0x5d, 0xaa, 0xbb, 0xcc] as const;
export const BROADCAST = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] as const;

/** Bytes that are not all the same. */
export const pattern = (length: number, seed = 1): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => (i * 7 + (i >>> 8) * 13 + seed * 31) & 0xff);

const be16 = (x: number): number[] => [(x >>> 8) & 0xff, x & 0xff];
const be32 = (x: number): number[] => [...be16(Math.floor(x / 65536)), ...be16(x % 65536)];

/** RFC 1071, word by word. */
export function plainSum(bytes: readonly number[]): number {
  let total = 0;
  for (let i = 0; i < bytes.length; i += 2) {
    total += bytes[i]! * 256 + (bytes[i + 1] ?? 0);
    if (total > 0xffff) total -= 0xffff;
  }
  return total;
}

export function frame(spec: FrameSpec = {}): Uint8Array {
  const { version = 4, protocol = "tcp", checksum = "good", payload = pattern(32), noLengths = false } = spec;
  const from = spec.from ?? (version === 4 ? [10, 0, 0, 2] : [0xfd, ...new Array(14).fill(0), 2]);
  const to = spec.to ?? (version === 4 ? [10, 0, 0, 1] : [0xfd, ...new Array(14).fill(0), 1]);
  const number = protocol === "tcp" ? 6 : 17;
  const ports = [...be16(spec.sourcePort ?? 40000), ...be16(spec.destinationPort ?? 80)];
  const tcpOptions = spec.tcpOptions ?? 0;
  const head =
    protocol === "tcp"
      ? [
          ...ports,
          ...be32(spec.sequence ?? 0x1000),
          ...be32(0x2000),
          ((20 + tcpOptions) / 4) << 4,
          spec.flags ?? 0x18,
          ...be16(500),
          ...[0, 0, 0, 0],
          ...new Array(tcpOptions).fill(1),
        ]
      : [...ports, ...be16(8 + payload.length), 0, 0];
  const transport = [...head, ...payload];
  const pseudo = [...from, ...to, 0, number];
  const at = protocol === "tcp" ? 16 : 6;
  const seed = plainSum(pseudo);
  const whole = plainSum([...pseudo, ...be16(transport.length), ...transport]);
  const good = 0xffff - whole;
  const field = {
    good: good === 0 && protocol === "udp" ? 0xffff : good,
    partial: plainSum([...pseudo, ...be16(transport.length)]),
    long: seed,
    bad: 0x1234,
  }[checksum];
  transport.splice(at, 2, ...be16(field));
  const ipOptions = spec.ipOptions ?? 0;
  let ip: number[];
  if (version === 4) {
    const length = 20 + ipOptions + transport.length;
    ip = [
      0x40 | ((20 + ipOptions) / 4),
      0,
      ...be16(noLengths ? 0 : length),
      ...be16(spec.identification ?? 7),
      ...[0x40, 0, 64, number, 0, 0],
      ...from,
      ...to,
      ...new Array(ipOptions).fill(1),
    ];
    if (!noLengths) ip.splice(10, 2, ...be16(0xffff - plainSum(ip)));
  } else {
    const extension =
      ipOptions === 0 ? [] : [number, ipOptions / 8 - 1, 1, ipOptions - 4, ...new Array(ipOptions - 4).fill(0)];
    const length = extension.length + transport.length;
    ip = [
      ...[0x60, 0, 0, 0],
      ...be16(noLengths ? 0 : length),
      ipOptions === 0 ? number : 0,
      64,
      ...from,
      ...to,
      ...extension,
    ];
  }
  return Uint8Array.from([
    ...(spec.destination ?? GUEST_MAC),
    ...(spec.source ?? OTHER_MAC),
    ...(spec.tag === undefined ? [] : [0x81, 0, ...be16(spec.tag)]),
    ...(version === 4 ? [0x08, 0] : [0x86, 0xdd]),
    ...ip,
    ...transport,
  ]);
}

/** What a network card makes of a long segment: the frames that this description gives, piece by piece. */
export function segments(spec: FrameSpec, size: number): Uint8Array[] {
  const payload = spec.payload ?? new Uint8Array(0);
  const flags = spec.flags ?? 0x18;
  const frames: Uint8Array[] = [];
  for (let at = 0; at < payload.length; at += size) {
    const isFirst = at === 0;
    const isLast = at + size >= payload.length;
    frames.push(
      frame({
        ...spec,
        payload: payload.slice(at, at + size),
        sequence: ((spec.sequence ?? 0x1000) + at) % 0x1_0000_0000,
        identification: ((spec.identification ?? 7) + frames.length) & 0xffff,
        flags: (isLast ? flags : flags & ~0x09) & (isFirst ? 0xff : 0x7f),
        checksum: "good",
        noLengths: false,
      }),
    );
  }
  return frames;
}
