/**
 * Object identifiers: what a guest may ask of an adapter, and set (NDIS, "OIDs"). Linux and FreeBSD use a dozen; the others are what
 * every NDIS adapter answers.
 */

import { ETHERNET_HEADER } from "../../net/packet.js";
import { readU32, writeU32 } from "../../vmbus/byte-order.js";
import { u32 } from "../../vmbus/layout.js";
import { offloadCapabilities, requestedRevision, setOffloads } from "./ndis-offload.js";
import { NvspVersion } from "./nvsp.js";
import { RndisStatus } from "./rndis.js";
import { rssCapabilities } from "./rss.js";
import { MAC_BYTES, type NetworkStatistics, type Session } from "./session.js";
import { structure } from "./wire.js";

export const Oid = {
  supportedList: 0x0001_0101,
  hardwareStatus: 0x0001_0102,
  mediaSupported: 0x0001_0103,
  mediaInUse: 0x0001_0104,
  maximumLookahead: 0x0001_0105,
  maximumFrameSize: 0x0001_0106,
  linkSpeed: 0x0001_0107,
  transmitBufferSpace: 0x0001_0108,
  receiveBufferSpace: 0x0001_0109,
  transmitBlockSize: 0x0001_010a,
  receiveBlockSize: 0x0001_010b,
  vendorId: 0x0001_010c,
  vendorDescription: 0x0001_010d,
  currentPacketFilter: 0x0001_010e,
  currentLookahead: 0x0001_010f,
  driverVersion: 0x0001_0110,
  maximumTotalSize: 0x0001_0111,
  protocolOptions: 0x0001_0112,
  macOptions: 0x0001_0113,
  mediaConnectStatus: 0x0001_0114,
  maximumSendPackets: 0x0001_0115,
  vendorDriverVersion: 0x0001_0116,
  networkLayerAddresses: 0x0001_0118,
  receiveScaleCapabilities: 0x0001_0203,
  receiveScaleParameters: 0x0001_0204,
  friendlyName: 0x0002_0216,
  rndisConfigParameter: 0x0001_021b,
  xmitOk: 0x0002_0101,
  rcvOk: 0x0002_0102,
  xmitError: 0x0002_0103,
  rcvError: 0x0002_0104,
  rcvNoBuffer: 0x0002_0105,
  permanentAddress: 0x0101_0101,
  currentAddress: 0x0101_0102,
  multicastList: 0x0101_0103,
  maximumListSize: 0x0101_0104,
  rcvErrorAlignment: 0x0102_0101,
  xmitOneCollision: 0x0102_0102,
  xmitMoreCollisions: 0x0102_0103,
  offloadParameters: 0xfc01_020c,
  offloadHardwareCapabilities: 0xfc01_020d,
} as const;

/** Multicast addresses of a list. */
export const MAX_MULTICAST = 64;
/** Linux's room for the name, with its end. */
const MAX_NAME_BYTES = 512;
const NDIS_6_30 = 0x0006_001e;
const VENDOR_ID = 0x00ff_ffff;
const VENDOR = "enlighten network adapter";
/** No loopback, and 802.1p priorities are known. */
const MAC_OPTIONS = 0x1 | 0x8 | 0x40;

/** What answers come from. */
export interface OidContext {
  readonly session: Session;
  readonly statistics: Readonly<NetworkStatistics>;
  readonly permanentMac: Uint8Array;
  readonly friendlyName: string;
  /** Payload of the longest frame. */
  readonly maxMtu: number;
  readonly link: boolean;
  /** In units of 100 bit/s. */
  readonly speed: number;
  /** Channels that the guest may have. */
  readonly channels: number;
  /** Whether the guest may take another address. */
  readonly mayChangeMac: boolean;
}

type Answer = (c: OidContext, information: Uint8Array) => Uint8Array;

function number(value: number): Uint8Array {
  const out = new Uint8Array(4);
  writeU32(out, 0, value);
  return out;
}
const constant =
  (value: number): Answer =>
  () =>
    number(value);
const totalBytes: Answer = (c) => number(c.maxMtu + ETHERNET_HEADER);

const QUERIES: ReadonlyMap<number, Answer> = new Map<number, Answer>([
  [Oid.supportedList, () => supportedList()],
  [Oid.hardwareStatus, constant(0)],
  [Oid.mediaSupported, constant(0)],
  [Oid.mediaInUse, constant(0)],
  [Oid.maximumLookahead, (c) => number(c.maxMtu)],
  [Oid.maximumFrameSize, (c) => number(c.maxMtu)],
  [Oid.linkSpeed, (c) => number(c.speed)],
  [Oid.transmitBufferSpace, totalBytes],
  [Oid.receiveBufferSpace, totalBytes],
  [Oid.transmitBlockSize, totalBytes],
  [Oid.receiveBlockSize, totalBytes],
  [Oid.vendorId, constant(VENDOR_ID)],
  [Oid.vendorDescription, () => Uint8Array.from(`${VENDOR}\0`, (c) => c.charCodeAt(0))],
  [Oid.currentPacketFilter, (c) => number(c.session.filter)],
  [Oid.currentLookahead, (c) => number(c.maxMtu)],
  [Oid.driverVersion, constant(0x0600)],
  [Oid.maximumTotalSize, totalBytes],
  [Oid.macOptions, constant(MAC_OPTIONS)],
  [Oid.mediaConnectStatus, (c) => number(c.link ? 0 : 1)],
  [Oid.maximumSendPackets, constant(1)],
  [Oid.vendorDriverVersion, constant(0x0001_0000)],
  [Oid.xmitOk, (c) => number(c.statistics.transmittedFrames)],
  [Oid.rcvOk, (c) => number(c.statistics.receivedFrames)],
  [Oid.xmitError, (c) => number(c.statistics.drops.malformed + c.statistics.drops.tooLong)],
  [Oid.rcvError, (c) => number(c.statistics.drops.unfit)],
  [Oid.rcvNoBuffer, constant(0)],
  [Oid.permanentAddress, (c) => c.permanentMac.slice()],
  [Oid.currentAddress, (c) => c.session.mac.slice()],
  [Oid.multicastList, (c) => Uint8Array.from(c.session.multicast.flatMap((m) => [...m]))],
  [Oid.maximumListSize, constant(MAX_MULTICAST)],
  [Oid.rcvErrorAlignment, constant(0)],
  [Oid.xmitOneCollision, constant(0)],
  [Oid.xmitMoreCollisions, constant(0)],
  [Oid.friendlyName, (c) => utf16(c.friendlyName)],
  [
    Oid.offloadHardwareCapabilities,
    (c, information) =>
      offloadCapabilities(
        requestedRevision(information, c.session.ndisVersion >= NDIS_6_30 ? 3 : 1),
        c.session.version >= NvspVersion.v61 && c.session.rscOffered,
      ),
  ],
]);

/** QUERY. @returns undefined when there is no such object */
export function query(oid: number, c: OidContext, information: Uint8Array): Uint8Array | undefined {
  if (oid === Oid.receiveScaleCapabilities)
    return c.session.version >= NvspVersion.v5 ? rssCapabilities(c.channels) : undefined;
  return QUERIES.get(oid)?.(c, information);
}

type Setter = (c: OidContext, information: Uint8Array) => number;
const accept: Setter = () => RndisStatus.success;

const SETS: ReadonlyMap<number, Setter> = new Map<number, Setter>([
  [Oid.currentPacketFilter, setFilter],
  [Oid.currentLookahead, accept],
  [Oid.protocolOptions, accept],
  [Oid.networkLayerAddresses, accept],
  [Oid.multicastList, setMulticast],
  [Oid.offloadParameters, (c, information) => setOffloads(c.session.offloads, information)],
  [
    Oid.receiveScaleParameters,
    (c, information) =>
      c.session.version >= NvspVersion.v5 ? c.session.rss.set(information, c.channels) : RndisStatus.notSupported,
  ],
  [Oid.rndisConfigParameter, setParameter],
]);

/** SET. @returns RndisStatus */
export function set(oid: number, c: OidContext, information: Uint8Array): number {
  return SETS.get(oid)?.(c, information) ?? RndisStatus.notSupported;
}

function supportedList(): Uint8Array {
  const oids = [...new Set([...QUERIES.keys(), ...SETS.keys(), Oid.receiveScaleCapabilities])].sort((a, b) => a - b);
  const out = new Uint8Array(oids.length * 4);
  oids.forEach((oid, i) => {
    writeU32(out, i * 4, oid);
  });
  return out;
}
/** UTF-16 with an end, no longer than what Linux takes. */
function utf16(text: string): Uint8Array {
  const units = Math.min(text.length, MAX_NAME_BYTES / 2 - 1);
  const out = new Uint8Array((units + 1) * 2);
  for (let i = 0; i < units; i++) {
    out[i * 2] = text.charCodeAt(i);
    out[i * 2 + 1] = text.charCodeAt(i) >>> 8;
  }
  return out;
}
function setFilter(c: OidContext, information: Uint8Array): number {
  if (information.length < 4) return RndisStatus.invalidLength;
  c.session.filter = readU32(information, 0);
  return RndisStatus.success;
}
function setMulticast(c: OidContext, information: Uint8Array): number {
  const count = information.length / MAC_BYTES;
  if (!Number.isInteger(count) || count > MAX_MULTICAST) return RndisStatus.invalidLength;
  c.session.multicast = Array.from({ length: count }, (_, i) => information.slice(i * MAC_BYTES, (i + 1) * MAC_BYTES));
  return RndisStatus.success;
}

const Parameter = structure("RNDIS config parameter", 20, {
  nameOffset: u32(0),
  nameLength: u32(4),
  type: u32(8),
  valueOffset: u32(12),
  valueLength: u32(16),
});
const STRING = 2;
const MAC_DIGITS = 2 * MAC_BYTES;

/** The one parameter that is known: "NetworkAddress", 12 hexadecimal digits. */
function setParameter(c: OidContext, information: Uint8Array): number {
  if (information.length < Parameter.size) return RndisStatus.invalidLength;
  const p = Parameter.read(information);
  if (p.nameOffset + p.nameLength > information.length || p.valueOffset + p.valueLength > information.length)
    return RndisStatus.invalidData;
  const text = (at: number, length: number): string => {
    let out = "";
    for (let i = 0; i + 1 < Math.min(length, 64); i += 2)
      out += String.fromCharCode(information[at + i]! | (information[at + i + 1]! << 8));
    return out;
  };
  const digits = text(p.valueOffset, p.valueLength);
  if (
    !c.mayChangeMac ||
    p.type !== STRING ||
    text(p.nameOffset, p.nameLength) !== "NetworkAddress" ||
    digits.length !== MAC_DIGITS ||
    !/^[0-9a-fA-F]+$/.test(digits)
  )
    return RndisStatus.invalidData;
  const mac = Uint8Array.from({ length: MAC_BYTES }, (_, i) => Number.parseInt(digits.slice(i * 2, i * 2 + 2), 16));
  // A group's address names no adapter.
  if ((mac[0]! & 1) !== 0 || mac.every((b) => b === 0)) return RndisStatus.invalidData;
  c.session.mac.set(mac);
  return RndisStatus.success;
}
