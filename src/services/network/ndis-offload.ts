/** Offloads: what the adapter can do for the guest, and what of it the guest has turned on (NDIS_OFFLOAD, NDIS_OFFLOAD_PARAMETERS). */

import { readU16, writeU16, writeU32 } from "../../vmbus/byte-order.js";
import { RndisStatus } from "./rndis.js";

const OFFLOAD = 0xa7;
const OFFLOAD_PARAMETERS = 0x80;
/** Bytes of NDIS_OFFLOAD by revision. Linux refuses more than the last, both guests fewer than the first. */
const OFFLOAD_BYTES = [112, 144, 156] as const;
/** Largest segment of the guest's, with headers; what real hosts say. */
export const MAX_LARGE_SEND_BYTES = 0xf53c;

const ENCAPSULATION_802_3 = 2;
/** IP options, TCP options, TCP, UDP, IP header. */
const CHECKSUM_V4 = 0x1 | 0x4 | 0x10 | 0x40 | 0x100;
/** Extension headers, TCP options, TCP, UDP. */
const CHECKSUM_V6 = 0x1 | 0x4 | 0x10 | 0x40;
/** LSO over IPv6: extension headers, TCP options. */
const LARGE_SEND_V6 = 0x1 | 0x4;

/** @param revision 1 to 3, by what the guest asked for; @param coalescing the protocol knows coalesced packets */
export function offloadCapabilities(revision: number, coalescing: boolean): Uint8Array {
  const known = Math.min(Math.max(revision, 1), OFFLOAD_BYTES.length);
  const out = new Uint8Array(OFFLOAD_BYTES[known - 1]!);
  out[0] = OFFLOAD;
  out[1] = known;
  writeU16(out, 2, out.length);
  const checksum = [CHECKSUM_V4, CHECKSUM_V4, CHECKSUM_V6, CHECKSUM_V6];
  checksum.forEach((flags, i) => {
    writeU32(out, 4 + i * 8, ENCAPSULATION_802_3);
    writeU32(out, 8 + i * 8, flags);
  });
  // LSO version 2: encapsulation, largest size, fewest segments; for IPv6 also what may be in the headers.
  [ENCAPSULATION_802_3, MAX_LARGE_SEND_BYTES, 2, ENCAPSULATION_802_3, MAX_LARGE_SEND_BYTES, 2, LARGE_SEND_V6].forEach(
    (value, i) => {
      writeU32(out, 80 + i * 4, value);
    },
  );
  if (coalescing && known === 3) out[144] = out[145] = 1;
  return out;
}
/** The revision that a query's information asks for; `fallback` where it has none. */
export function requestedRevision(information: Uint8Array, fallback: number): number {
  return information.length >= 4 && information[0] === OFFLOAD ? information[1]! : fallback;
}

/** Bytes of the parameters, by offset. */
const At = { ipv4: 4, tcpv4: 5, udpv4: 6, tcpv6: 7, udpv6: 8, lsov2v4: 11, lsov2v6: 12, rscv4: 22, rscv6: 23 } as const;
type Name = keyof typeof At;
/** Values of a checksum offload: 0 leaves it. */
const CHECKSUM = { off: 1, tx: 2, rx: 3, both: 4 } as const;
/** Values of the others. */
const ON = 2;
const MIN_PARAMETER_BYTES = 20;

/** What the guest has turned on. Checksum: bit 0 transmit, bit 1 receive; others 0 or 1. Plain data. */
export type Offloads = Record<Name, number>;
export const RECEIVE = 2;
export const TRANSMIT = 1;

export const noOffloads = (): Offloads => ({
  ipv4: 0,
  tcpv4: 0,
  udpv4: 0,
  tcpv6: 0,
  udpv6: 0,
  lsov2v4: 0,
  lsov2v6: 0,
  rscv4: 0,
  rscv6: 0,
});

/** SET of the parameters: all of them are checked before one is changed. @returns RndisStatus */
export function setOffloads(offloads: Offloads, information: Uint8Array): number {
  if (information.length < MIN_PARAMETER_BYTES) return RndisStatus.invalidLength;
  const size = readU16(information, 2);
  if (
    information[0] !== OFFLOAD_PARAMETERS ||
    information[1] === 0 ||
    size < MIN_PARAMETER_BYTES ||
    size > information.length
  )
    return RndisStatus.invalidData;
  const given = (Object.keys(At) as Name[]).filter((name) => At[name] < size);
  const largest = (name: Name): number => (At[name] < At.lsov2v4 ? CHECKSUM.both : ON);
  if (given.some((name) => information[At[name]]! > largest(name))) return RndisStatus.invalidData;
  for (const name of given) {
    const value = information[At[name]]!;
    if (value === 0) continue;
    if (At[name] >= At.lsov2v4) offloads[name] = value === ON ? 1 : 0;
    else offloads[name] = value - CHECKSUM.off;
  }
  return RndisStatus.success;
}
