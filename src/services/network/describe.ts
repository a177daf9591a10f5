/** NVSP packets for people: what a trace shows. Takes any bytes. RNDIS is in the guest's buffers, not in the rings. */

import { readU16, readU32 } from "../../vmbus/byte-order.js";
import { PacketType } from "../../vmbus/device.js";
import { At, ChannelType, NO_SECTION, NvspType, versionName } from "./nvsp.js";

export interface NetworkDescription {
  readonly message: string;
  readonly [field: string]: string | number;
}

/** What is in each message, by name, offset and bytes. */
type FieldList = readonly (readonly [name: string, at: number, bytes?: 2])[];
const MESSAGES: ReadonlyMap<number, readonly [name: string, fields: FieldList]> = new Map<
  number,
  readonly [string, FieldList]
>([
  [NvspType.init, ["INIT", [["version", At.maxVersion]]]],
  [NvspType.initComplete, ["INIT_COMPLETE", [["status", At.initStatus]]]],
  [
    NvspType.sendNdisVersion,
    [
      "SEND_NDIS_VERSION",
      [
        ["major", At.ndisMajor],
        ["minor", At.ndisMinor],
      ],
    ],
  ],
  [
    NvspType.sendReceiveBuffer,
    [
      "SEND_RECEIVE_BUFFER",
      [
        ["gpadl", At.gpadl],
        ["id", At.bufferId, 2],
      ],
    ],
  ],
  [
    NvspType.receiveBufferComplete,
    [
      "RECEIVE_BUFFER_COMPLETE",
      [
        ["status", At.status],
        ["sectionBytes", At.subAllocationSize],
        ["sections", At.subAllocationCount],
      ],
    ],
  ],
  [NvspType.revokeReceiveBuffer, ["REVOKE_RECEIVE_BUFFER", [["id", At.revokedId, 2]]]],
  [
    NvspType.sendSendBuffer,
    [
      "SEND_SEND_BUFFER",
      [
        ["gpadl", At.gpadl],
        ["id", At.bufferId, 2],
      ],
    ],
  ],
  [
    NvspType.sendBufferComplete,
    [
      "SEND_BUFFER_COMPLETE",
      [
        ["status", At.status],
        ["sectionBytes", At.sectionSize],
      ],
    ],
  ],
  [NvspType.revokeSendBuffer, ["REVOKE_SEND_BUFFER", [["id", At.revokedId, 2]]]],
  [NvspType.rndisPacketComplete, ["RNDIS_PACKET_COMPLETE", [["status", At.status]]]],
  [
    NvspType.sendNdisConfig,
    [
      "SEND_NDIS_CONFIG",
      [
        ["mtu", At.mtu],
        ["capabilities", At.capabilities],
      ],
    ],
  ],
  [NvspType.vfAssociation, ["VF_ASSOCIATION", []]],
  [NvspType.switchDataPath, ["SWITCH_DATA_PATH", []]],
  [NvspType.sendIndirectionTable, ["SEND_INDIRECTION_TABLE", [["entries", At.tableCount]]]],
]);

/**
 * @param payload the packet's payload, or its beginning; of a transfer-pages packet with the set and its ranges before it
 * @param direction "in": from the guest
 * @param packetType PacketType, where it is known
 */
export function describeNetwork(payload: Uint8Array, direction: "in" | "out", packetType?: number): NetworkDescription {
  if (packetType === PacketType.transferPages) return transfer(payload);
  if (payload.length === 0) return { message: "completion" };
  if (payload.length < 4) return { message: "too short", bytes: payload.length };
  const type = readU32(payload, At.type);
  if (type === NvspType.rndisPacket) return rndisPacket(payload);
  if (type === NvspType.subChannel)
    return fields(
      "SUBCHANNEL",
      payload,
      direction === "in"
        ? [["count", At.requested]]
        : [
            ["status", At.status],
            ["count", At.granted],
          ],
    );
  const [name, list] = MESSAGES.get(type) ?? [`message ${type}`, []];
  const described = fields(name, payload, list);
  return type === NvspType.init && typeof described.version === "number"
    ? { ...described, version: versionName(described.version) }
    : described;
}
function fields(message: string, payload: Uint8Array, list: FieldList): NetworkDescription {
  const found: Record<string, number> = {};
  for (const [name, at, bytes = 4] of list)
    if (at + bytes <= payload.length) found[name] = bytes === 2 ? readU16(payload, at) : readU32(payload, at);
  return { message, ...found };
}
function channelName(payload: Uint8Array, at: number): string {
  return readU32(payload, at) === ChannelType.control ? "control" : "data";
}
function rndisPacket(payload: Uint8Array): NetworkDescription {
  const message = "RNDIS_PACKET";
  if (payload.length < At.sectionUsed + 4) return { message };
  const section = readU32(payload, At.sectionIndex);
  const channel = channelName(payload, At.channelType);
  return section === NO_SECTION
    ? { message, channel }
    : { message, channel, section, bytes: readU32(payload, At.sectionUsed) };
}
function transfer(payload: Uint8Array): NetworkDescription {
  const message = "RNDIS_PACKET";
  if (payload.length < 8) return { message };
  const ranges = readU32(payload, 4);
  const at = 8 + ranges * 8;
  return at + At.channelType + 4 > payload.length
    ? { message, ranges }
    : { message, ranges, channel: channelName(payload, at + At.channelType) };
}
