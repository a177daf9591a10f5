/**
 * VMBus control messages, named as in the protocol. Guest to host they travel by the hypercall PostMessage, host to guest
 * through the SynIC message slot. Each message is a header (type, 4 bytes of padding) and fields at fixed offsets.
 */
import { bytes, checkFields, type Fields, guid, u8, u16, u32, u64, type Values } from "./layout.js";

/** SynIC message type of a channel message. */
export const CHANNEL_MESSAGE = 1;
/** SINT of VMBus messages and event flags (TLFS leaves the choice to the parent; every guest uses 2). */
export const VMBUS_SINT = 2;
/** PostMessage connections: the old one, and the one for versions from 5.0. */
export const MessageConnection = { legacy: 1, current: 4 } as const;
/** Largest message: the payload of a SynIC message. */
export const MAX_MESSAGE_BYTES = 240;
export const MESSAGE_HEADER_BYTES = 8;

/** Versions of the protocol: major << 16 | minor. */
export const VmbusVersion = {
  ws2008: 0x0000_000d,
  win7: 0x0001_0001,
  win8: 0x0002_0004,
  win81: 0x0003_0000,
  win10: 0x0004_0000,
  win10Rs3: 0x0004_0001,
  win10V5: 0x0005_0000,
  win10V51: 0x0005_0001,
  win10V52: 0x0005_0002,
  iron: 0x0005_0003,
  copper: 0x0006_0000,
} as const;
/** What we speak. Below 2.4 signals go through a shared page; 6.0 has features that no guest of ours needs. */
export const SUPPORTED_VERSIONS: readonly number[] = [
  VmbusVersion.win8,
  VmbusVersion.win81,
  VmbusVersion.win10,
  VmbusVersion.win10Rs3,
  VmbusVersion.win10V5,
  VmbusVersion.win10V51,
  VmbusVersion.win10V52,
  VmbusVersion.iron,
];
export const versionText = (version: number): string => `${version >>> 16}.${version & 0xffff}`;

/** Status of results: NTSTATUS; guests only tell 0 from the rest. */
export const VmbusStatus = {
  success: 0,
  unsuccessful: 0xc000_0001,
  invalidParameter: 0xc000_000d,
  insufficientResources: 0xc000_009a,
  connectionRefused: 0xc000_0236,
} as const;

/** GPADL contents begin here; page numbers of a body too. */
export const GPADL_HEADER_RANGES = 20;
export const GPADL_BODY_PAGES = 16;
/** Page numbers that fit in the messages. */
export const GPADL_HEADER_MAX_PAGES = 26;
export const GPADL_BODY_MAX_PAGES = 28;
/** TlConnectRequest is so long when it has a silo id (from 5.2). */
export const TL_CONNECT_SILO_BYTES = 56;

export interface Message<F extends Fields> {
  readonly name: string;
  readonly type: number;
  /** Bytes with the header, without a variable part. */
  readonly size: number;
  readonly toGuest: boolean;
  readonly fields: F;
  /** The whole message; `extra` more bytes of 0 behind it. */
  encode(values: Values<F>, extra?: number): Uint8Array<ArrayBuffer>;
  /** From at least `size` bytes. */
  decode(message: Uint8Array): Values<F>;
}

const byType = new Map<number, Message<Fields>>();

function message<F extends Fields>(type: number, name: string, way: "in" | "out", size: number, fields: F): Message<F> {
  checkFields(name, size, MESSAGE_HEADER_BYTES, fields);
  const entries = Object.entries(fields);
  const made: Message<F> = {
    name,
    type,
    size,
    toGuest: way === "out",
    fields,
    encode(values, extra = 0) {
      const out = new Uint8Array(size + extra);
      const view = new DataView(out.buffer);
      view.setUint32(0, type, true);
      for (const [field, f] of entries) f.set(view, values[field]);
      return out;
    },
    decode(from) {
      const view = new DataView(from.buffer, from.byteOffset, from.byteLength);
      return Object.fromEntries(entries.map(([field, f]) => [field, f.get(view)])) as Values<F>;
    },
  };
  byType.set(type, made as unknown as Message<Fields>);
  return made;
}

export const OfferChannel = message(1, "OfferChannel", "out", 196, {
  classId: guid(8),
  instanceId: guid(24),
  flags: u16(56),
  mmioMegabytes: u16(58),
  userDefined: bytes(60, 120),
  subIndex: u16(180),
  relid: u32(184),
  monitorId: u8(188),
  monitorAllocated: u8(189),
  isDedicatedInterrupt: u16(190),
  connectionId: u32(192),
});
export const RescindChannelOffer = message(2, "RescindChannelOffer", "out", 12, { relid: u32(8) });
export const RequestOffers = message(3, "RequestOffers", "in", 8, {});
export const AllOffersDelivered = message(4, "AllOffersDelivered", "out", 8, {});
export const OpenChannel = message(5, "OpenChannel", "in", 148, {
  relid: u32(8),
  openId: u32(12),
  ringGpadl: u32(16),
  targetVp: u32(20),
  /** In pages: where the ring towards the guest begins. */
  downstreamOffset: u32(24),
  userData: bytes(28, 120),
});
export const OpenChannelResult = message(6, "OpenChannelResult", "out", 20, {
  relid: u32(8),
  openId: u32(12),
  status: u32(16),
});
export const CloseChannel = message(7, "CloseChannel", "in", 12, { relid: u32(8) });
export const GpadlHeader = message(8, "GpadlHeader", "in", GPADL_HEADER_RANGES, {
  relid: u32(8),
  gpadl: u32(12),
  /** Bytes of all ranges, in this message and the bodies. */
  rangeBufferLength: u16(16),
  rangeCount: u16(18),
});
export const GpadlBody = message(9, "GpadlBody", "in", GPADL_BODY_PAGES, { messageNumber: u32(8), gpadl: u32(12) });
export const GpadlCreated = message(10, "GpadlCreated", "out", 20, { relid: u32(8), gpadl: u32(12), status: u32(16) });
export const GpadlTeardown = message(11, "GpadlTeardown", "in", 16, { relid: u32(8), gpadl: u32(12) });
export const GpadlTorndown = message(12, "GpadlTorndown", "out", 12, { gpadl: u32(8) });
export const RelIdReleased = message(13, "RelIdReleased", "in", 12, { relid: u32(8) });
export const InitiateContact = message(14, "InitiateContact", "in", 40, {
  version: u32(8),
  targetVp: u32(12),
  /** From 5.0; before, these 8 bytes are the address of an interrupt page that only versions below 2.4 use. */
  messageSint: u8(16),
  messageVtl: u8(17),
  featureFlags: u32(20),
  monitorPage1: u64(24),
  monitorPage2: u64(32),
});
export const VersionResponse = message(15, "VersionResponse", "out", 16, {
  supported: u8(8),
  connectionState: u8(9),
  /** From 5.0 the connection for later messages; before, the version. */
  selected: u32(12),
});
export const Unload = message(16, "Unload", "in", 8, {});
export const UnloadResponse = message(17, "UnloadResponse", "out", 8, {});
export const TlConnectRequest = message(21, "TlConnectRequest", "in", 40, { endpoint: guid(8), service: guid(24) });
export const ModifyChannel = message(22, "ModifyChannel", "in", 16, { relid: u32(8), targetVp: u32(12) });
export const TlConnectResult = message(23, "TlConnectResult", "out", 44, {
  endpoint: guid(8),
  service: guid(24),
  status: u32(40),
});
export const ModifyChannelResponse = message(24, "ModifyChannelResponse", "out", 16, {
  relid: u32(8),
  status: u32(12),
});

/** Messages that nobody sends here, known by name. */
const OTHER_NAMES: Readonly<Record<number, string>> = {
  18: "OpenReservedChannel",
  19: "CloseReservedChannel",
  20: "CloseReservedChannelResponse",
  25: "ModifyConnection",
  26: "ModifyConnectionResponse",
  27: "PauseChannels",
  28: "PauseResponse",
  29: "ResumeChannels",
};

/** Every message that has a layout here. */
export const messages = (): readonly Message<Fields>[] => [...byType.values()];

export function messageType(of: Uint8Array): number {
  return new DataView(of.buffer, of.byteOffset, of.byteLength).getUint32(0, true);
}

const SILO = guid(40);
/** The silo of a TlConnectRequest that is long enough to have one. */
export function siloOf(request: Uint8Array): string {
  return SILO.get(new DataView(request.buffer, request.byteOffset, request.byteLength));
}

/** A message for people and traces. */
export interface DescribedMessage {
  readonly message: string;
  readonly [field: string]: unknown;
}

/** Name and fields of a message's bytes, both ways; plain data that JSON can hold. Any bytes will do. */
export function describeMessage(of: Uint8Array): DescribedMessage {
  if (of.length < MESSAGE_HEADER_BYTES) return { message: "Truncated", bytes: hex(of) };
  const type = messageType(of);
  const known = byType.get(type);
  if (known === undefined) return { message: OTHER_NAMES[type] ?? "Unknown", type, bytes: hex(of) };
  if (of.length < known.size) return { message: known.name, tooShort: of.length, bytes: hex(of) };
  const out: { message: string; [field: string]: unknown } = { message: known.name };
  for (const [name, value] of Object.entries(known.decode(of)))
    out[name] = value instanceof Uint8Array ? hexWithoutZeros(value) : value;
  if (type === GpadlHeader.type) out.ranges = words64(of, GPADL_HEADER_RANGES);
  if (type === GpadlBody.type) out.pages = words64(of, GPADL_BODY_PAGES);
  if (type === TlConnectRequest.type && of.length >= TL_CONNECT_SILO_BYTES) out.silo = siloOf(of);
  if (type === InitiateContact.type || (type === VersionResponse.type && (out.selected as number) > 4)) {
    const version = (type === InitiateContact.type ? out.version : out.selected) as number;
    out.versionText = versionText(version);
  }
  return out;
}

const PACKET_NAMES: Readonly<Record<number, string>> = {
  1: "Synch",
  2: "AddTransferPageSet",
  3: "RemoveTransferPageSet",
  4: "EstablishGpadl",
  5: "TeardownGpadl",
  6: "DataInBand",
  7: "DataUsingTransferPages",
  8: "DataUsingGpadl",
  9: "DataUsingGpaDirect",
  10: "CancelRequest",
  11: "Completion",
  12: "DataUsingAdditionalPacket",
  13: "AdditionalData",
};
/** Name of a ring packet's type. */
export const packetName = (type: number): string => PACKET_NAMES[type] ?? `Type${type}`;

export interface DescribedPacket {
  readonly packet: string;
  readonly relid: number;
  readonly payloadLength: number;
  /** The beginning of the payload, in hexadecimal. */
  readonly payload: string;
}
/** A packet as traces keep it: channel, type, length, the beginning of its payload. */
export function describePacket(relid: number, type: number, payloadLength: number, of: Uint8Array): DescribedPacket {
  return { packet: packetName(type), relid, payloadLength, payload: hex(of) };
}

function hex(of: Uint8Array): string {
  return Array.from(of, (b) => b.toString(16).padStart(2, "0")).join("");
}
function hexWithoutZeros(of: Uint8Array): string {
  let end = of.length;
  while (end > 0 && of[end - 1] === 0) end--;
  return hex(of.subarray(0, end));
}
/** The 64-bit words from `at` on, as hexadecimal text: page numbers may be any. */
function words64(of: Uint8Array, at: number): string[] {
  const view = new DataView(of.buffer, of.byteOffset, of.byteLength);
  const out: string[] = [];
  for (let i = at; i + 8 <= of.length; i += 8) out.push(`0x${view.getBigUint64(i, true).toString(16)}`);
  return out;
}
