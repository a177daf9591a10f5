/**
 * Messages of the integration components (Linux: `struct icmsg_hdr`, `icmsg_negotiate`; FreeBSD: `vmbus_icreg.h`): a pipe header,
 * a component header, a body. The host speaks first; the guest answers in the same buffer, in band, with the response flag.
 */

/** Offsets from the start of a ring packet's payload. */
export const Ic = {
  pipeType: 0,
  pipeSize: 4,
  frameworkMajor: 8,
  frameworkMinor: 10,
  type: 12,
  messageMajor: 14,
  messageMinor: 16,
  bodySize: 18,
  status: 20,
  transaction: 24,
  flags: 25,
  body: 28,
} as const;
/** Bytes behind the pipe header before the body. */
const IC_HEADER = Ic.body - Ic.frameworkMajor;
/** The only pipe message that is used: data. */
export const PIPE_DATA = 1;

export const IcMessageType = {
  negotiate: 0,
  heartbeat: 1,
  kvpExchange: 2,
  shutdown: 3,
  timeSync: 4,
  vss: 5,
  fileCopy: 7,
} as const;
export const IcFlags = { transaction: 1, request: 2, response: 4 } as const;

/** major, minor. */
export type IcVersion = readonly [number, number];
/** Framework versions of a host since Windows 8, ascending. */
export const FRAMEWORK_VERSIONS: readonly IcVersion[] = [
  [1, 0],
  [3, 0],
];

export interface IcHeader {
  readonly framework: IcVersion;
  readonly version: IcVersion;
  readonly type: number;
  readonly transaction: number;
}

/** A request with its headers; `body` bytes follow zeroed, to be filled in. */
export function icRequest(header: IcHeader, bodyBytes: number): { bytes: Uint8Array<ArrayBuffer>; view: DataView } {
  const bytes = new Uint8Array(Ic.body + bodyBytes);
  const view = new DataView(bytes.buffer);
  view.setUint32(Ic.pipeType, PIPE_DATA, true);
  view.setUint32(Ic.pipeSize, IC_HEADER + bodyBytes, true);
  view.setUint16(Ic.frameworkMajor, header.framework[0], true);
  view.setUint16(Ic.frameworkMinor, header.framework[1], true);
  view.setUint16(Ic.type, header.type, true);
  view.setUint16(Ic.messageMajor, header.version[0], true);
  view.setUint16(Ic.messageMinor, header.version[1], true);
  view.setUint16(Ic.bodySize, bodyBytes, true);
  view.setUint8(Ic.transaction, header.transaction);
  view.setUint8(Ic.flags, IcFlags.transaction | IcFlags.request);
  return { bytes, view };
}

/** The first message on a channel: which versions the host has. */
export function icNegotiate(messageVersions: readonly IcVersion[], transaction: number): Uint8Array<ArrayBuffer> {
  const versions = [...FRAMEWORK_VERSIONS, ...messageVersions];
  const { bytes, view } = icRequest(
    { framework: [0, 0], version: [0, 0], type: IcMessageType.negotiate, transaction },
    8 + versions.length * 4,
  );
  view.setUint16(Ic.body, FRAMEWORK_VERSIONS.length, true);
  view.setUint16(Ic.body + 2, messageVersions.length, true);
  versions.forEach(([major, minor], i) => {
    view.setUint16(Ic.body + 8 + i * 4, major, true);
    view.setUint16(Ic.body + 10 + i * 4, minor, true);
  });
  return bytes;
}

/** What a guest's packet is; undefined when it is no answer of a component. */
export function readIcReply(
  payload: Uint8Array,
  length: number,
):
  | { readonly type: number; readonly status: number; readonly transaction: number; readonly bodyBytes: number }
  | undefined {
  if (length < Ic.body) return undefined;
  const view = new DataView(payload.buffer, payload.byteOffset, length);
  if (view.getUint32(Ic.pipeType, true) !== PIPE_DATA) return undefined;
  if ((view.getUint8(Ic.flags) & IcFlags.response) === 0) return undefined;
  return {
    type: view.getUint16(Ic.type, true),
    status: view.getUint32(Ic.status, true),
    transaction: view.getUint8(Ic.transaction),
    bodyBytes: length - Ic.body,
  };
}

/** The versions that a guest chose; undefined when it found none, or names one that was not offered. */
export function readNegotiation(
  payload: Uint8Array,
  length: number,
  offered: readonly IcVersion[],
): { readonly framework: IcVersion; readonly message: IcVersion } | undefined {
  if (length < Ic.body + 16) return undefined;
  const view = new DataView(payload.buffer, payload.byteOffset, length);
  if (view.getUint16(Ic.body, true) !== 1 || view.getUint16(Ic.body + 2, true) !== 1) return undefined;
  const at = (i: number): IcVersion => [
    view.getUint16(Ic.body + 8 + i * 4, true),
    view.getUint16(Ic.body + 10 + i * 4, true),
  ];
  const chosen = (list: readonly IcVersion[], [major, minor]: IcVersion): IcVersion | undefined =>
    list.find(([a, b]) => a === major && b === minor);
  const framework = chosen(FRAMEWORK_VERSIONS, at(0));
  const message = chosen(offered, at(1));
  return framework === undefined || message === undefined ? undefined : { framework, message };
}

const typeNames = new Map<number, string>(Object.entries(IcMessageType).map(([name, n]) => [n, name]));
/** A component's message for traces. */
export function describeIc(payload: Uint8Array): Readonly<Record<string, unknown>> {
  if (payload.length < Ic.body) return { message: "short", bytes: payload.length };
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
  const type = view.getUint16(Ic.type, true);
  const flags = view.getUint8(Ic.flags);
  return {
    message: typeNames.get(type) ?? `type ${type}`,
    direction: (flags & IcFlags.response) !== 0 ? "response" : "request",
    framework: `${view.getUint16(Ic.frameworkMajor, true)}.${view.getUint16(Ic.frameworkMinor, true)}`,
    version: `${view.getUint16(Ic.messageMajor, true)}.${view.getUint16(Ic.messageMinor, true)}`,
    status: view.getUint32(Ic.status, true),
    transaction: view.getUint8(Ic.transaction),
  };
}
