/** NVSP's start-up: version, configuration, buffers, sub-channels. What a guest asks, and the answer for its completion. */
import type { GuestMemory } from "../../machine/guest-memory.js";
import { ETHERNET_HEADER } from "../../net/packet.js";
import { readU16, readU32, writeU32 } from "../../vmbus/byte-order.js";
import type { Channel, InboundPacket } from "../../vmbus/device.js";
import { GuestBuffer } from "./guest-buffer.js";
import {
  At,
  ConfigCapability,
  MAX_CONFIG_MTU,
  MAX_MDL_CHAIN,
  MESSAGE_BYTES,
  MIN_CONFIG_MTU,
  NvspStatus,
  NvspType,
  NvspVersion,
  SEND_SECTION_BYTES,
  SUBCHANNEL_ALLOCATE,
  VERSIONS,
} from "./nvsp.js";
import { sectionBytesFor } from "./receive.js";
import { ReceiveBuffer } from "./receive-buffer.js";
import type { Session } from "./session.js";

/** What is answered where INIT_COMPLETE names a version; guests do not look. */
const ANY_VERSION = 0xffff_ffff;

/** What the start-up needs of the adapter. */
export interface NegotiationOwner {
  readonly session: Session;
  readonly memory: GuestMemory;
  readonly maxVersion: number;
  readonly maxMtu: number;
  readonly maxSubChannels: number;
  /** The receive buffer is the guest's again: whatever was to be put into it is forgotten. */
  revoked(): void;
  violation(relid: number, text: string): void;
}

export class Negotiation {
  readonly #owner: NegotiationOwner;
  /** Of the receive buffer before. */
  #generation = 0;

  constructor(owner: NegotiationOwner) {
    this.#owner = owner;
  }
  /** Does what a message asks. @returns bytes of the answer in `reply`; 0: a completion of it has no payload */
  handle(channel: Channel, type: number, packet: InboundPacket, reply: Uint8Array): number {
    const { session } = this.#owner;
    const payload = packet.payload.subarray(0, packet.payloadLength);
    reply.fill(0);
    if (channel.subIndex !== 0) return this.#wrong(channel, `NVSP message ${type} on a sub-channel`);
    const needed = BYTES[type];
    if (needed === undefined) return this.#wrong(channel, `NVSP message ${type}`);
    if (type === NvspType.init) return this.#init(channel, payload, reply);
    if (session.version === 0 || payload.length < needed) {
      this.#wrong(
        channel,
        `NVSP message ${type} of ${payload.length} bytes, version 0x${session.version.toString(16)}`,
      );
      return refusal(type, reply);
    }
    switch (type) {
      case NvspType.sendNdisVersion:
        session.ndisVersion = (readU32(payload, At.ndisMajor) << 16) | (readU32(payload, At.ndisMinor) & 0xffff);
        return 0;
      case NvspType.sendNdisConfig:
        return this.#configure(channel, payload);
      case NvspType.sendReceiveBuffer:
        return this.#receiveBuffer(channel, payload, reply);
      case NvspType.sendSendBuffer:
        return this.#sendBuffer(channel, payload, reply);
      case NvspType.revokeReceiveBuffer:
        return this.#revokeReceive(channel, readU16(payload, At.revokedId));
      case NvspType.revokeSendBuffer:
        return this.#revokeSend(channel, readU16(payload, At.revokedId));
      case NvspType.subChannel:
        return this.#subChannels(channel, payload, reply);
      default:
        // SWITCH_DATA_PATH: there is one path only. The guest waits for the completion.
        return 0;
    }
  }
  /** Of saved state. */
  get generation(): number {
    return this.#generation;
  }
  set generation(value: number) {
    this.#generation = value;
  }

  #wrong(channel: Channel, text: string): 0 {
    this.#owner.violation(channel.relid, text);
    return 0;
  }
  #init(channel: Channel, payload: Uint8Array, reply: Uint8Array): number {
    const { session } = this.#owner;
    const isShort = payload.length < BYTES[NvspType.init]!;
    const low = isShort ? 0 : readU32(payload, At.minVersion);
    const high = isShort ? 0 : readU32(payload, At.maxVersion);
    const ours = VERSIONS.filter((v) => v <= this.#owner.maxVersion);
    const version = ours.find((v) => v >= low && v <= high);
    let status: number = NvspStatus.success;
    if (session.receive !== undefined || session.send !== undefined || session.initialized || isShort) {
      this.#wrong(channel, "NVSP INIT too late, or too short");
      status = NvspStatus.failure;
    } else if (version === undefined) status = low > ours[0]! ? NvspStatus.versionTooNew : NvspStatus.versionTooOld;
    else session.version = version;
    writeU32(reply, At.type, NvspType.initComplete);
    writeU32(reply, At.negotiatedVersion, version === NvspVersion.v1 ? version : ANY_VERSION);
    writeU32(reply, At.maxMdlChain, MAX_MDL_CHAIN);
    writeU32(reply, At.initStatus, status);
    return MESSAGE_BYTES;
  }
  #configure(channel: Channel, payload: Uint8Array): number {
    const { session } = this.#owner;
    // Sections of the receive buffer are as long as the frames that were agreed on.
    if (session.version < NvspVersion.v2 || session.receive !== undefined)
      return this.#wrong(channel, "NDIS_CONFIG too late, or in version 1");
    const given = readU32(payload, At.mtu);
    const mtu = given < MIN_CONFIG_MTU || given > MAX_CONFIG_MTU ? MIN_CONFIG_MTU : given;
    const capabilities = readU32(payload, At.capabilities);
    session.mtu = Math.min(mtu - ETHERNET_HEADER, this.#owner.maxMtu);
    session.vlan = (capabilities & ConfigCapability.vlan8021q) !== 0;
    session.rscOffered = (capabilities & ConfigCapability.rsc) !== 0;
    return 0;
  }
  #receiveBuffer(channel: Channel, payload: Uint8Array, reply: Uint8Array): number {
    const { session, memory } = this.#owner;
    const buffer = GuestBuffer.of(memory, channel, readU32(payload, At.gpadl), readU16(payload, At.bufferId));
    const receive =
      buffer === undefined ? undefined : new ReceiveBuffer(buffer, sectionBytesFor(session.mtu), this.#generation);
    if (receive?.couldHold(1) !== true || session.receive !== undefined) {
      this.#wrong(channel, "SEND_RECEIVE_BUFFER without a buffer that will do, or with a second one");
      return refusal(NvspType.sendReceiveBuffer, reply);
    }
    session.receive = receive;
    writeU32(reply, At.type, NvspType.receiveBufferComplete);
    writeU32(reply, At.status, NvspStatus.success);
    writeU32(reply, At.sectionCount, 1);
    writeU32(reply, At.sectionOffset, 0);
    writeU32(reply, At.subAllocationSize, receive.sectionBytes);
    writeU32(reply, At.subAllocationCount, receive.sections);
    writeU32(reply, At.sectionEnd, receive.sectionBytes * receive.sections);
    return MESSAGE_BYTES;
  }
  #sendBuffer(channel: Channel, payload: Uint8Array, reply: Uint8Array): number {
    const { session, memory } = this.#owner;
    const buffer = GuestBuffer.of(memory, channel, readU32(payload, At.gpadl), readU16(payload, At.bufferId));
    if (buffer === undefined || buffer.bytes < SEND_SECTION_BYTES || session.send !== undefined) {
      this.#wrong(channel, "SEND_SEND_BUFFER without a buffer that will do, or with a second one");
      return refusal(NvspType.sendSendBuffer, reply);
    }
    session.send = buffer;
    writeU32(reply, At.type, NvspType.sendBufferComplete);
    writeU32(reply, At.status, NvspStatus.success);
    writeU32(reply, At.sectionSize, SEND_SECTION_BYTES);
    return MESSAGE_BYTES;
  }
  #revokeReceive(channel: Channel, id: number): number {
    const { session } = this.#owner;
    if (session.receive?.buffer.id !== id) return this.#wrong(channel, "REVOKE_RECEIVE_BUFFER of another buffer");
    this.#generation = session.receive.generation;
    this.#owner.revoked();
    session.receive = undefined;
    return 0;
  }
  #revokeSend(channel: Channel, id: number): number {
    const { session } = this.#owner;
    if (session.send?.id !== id) return this.#wrong(channel, "REVOKE_SEND_BUFFER of another buffer");
    session.send = undefined;
    return 0;
  }
  /** Grants what will be offered, no more: guests wait for all of them. */
  #subChannels(channel: Channel, payload: Uint8Array, reply: Uint8Array): number {
    const { session, maxSubChannels } = this.#owner;
    const isGood =
      session.version >= NvspVersion.v5 &&
      session.grantedSubChannels === 0 &&
      readU32(payload, At.operation) === SUBCHANNEL_ALLOCATE;
    if (!isGood) {
      this.#wrong(channel, "SUBCHANNEL a second time, of another kind, or before version 5");
      return refusal(NvspType.subChannel, reply);
    }
    session.grantedSubChannels = Math.min(readU32(payload, At.requested), maxSubChannels);
    writeU32(reply, At.type, NvspType.subChannel);
    writeU32(reply, At.status, NvspStatus.success);
    writeU32(reply, At.granted, session.grantedSubChannels);
    return MESSAGE_BYTES;
  }
}

/** Bytes that are needed of each message that a guest may send. */
const BYTES: Readonly<Record<number, number>> = {
  [NvspType.init]: 12,
  [NvspType.sendNdisVersion]: 12,
  [NvspType.sendReceiveBuffer]: 10,
  [NvspType.revokeReceiveBuffer]: 6,
  [NvspType.sendSendBuffer]: 10,
  [NvspType.revokeSendBuffer]: 6,
  [NvspType.sendNdisConfig]: 20,
  [NvspType.switchDataPath]: 8,
  [NvspType.subChannel]: 12,
};
/** The answer that says no, where a message has one. */
function refusal(type: number, reply: Uint8Array): number {
  const answer = ANSWERS[type];
  if (answer === undefined) return 0;
  writeU32(reply, At.type, answer);
  writeU32(reply, At.status, NvspStatus.failure);
  return MESSAGE_BYTES;
}
const ANSWERS: Readonly<Record<number, number>> = {
  [NvspType.sendReceiveBuffer]: NvspType.receiveBufferComplete,
  [NvspType.sendSendBuffer]: NvspType.sendBufferComplete,
  [NvspType.subChannel]: NvspType.subChannel,
};
