/** A device for tests: it answers every packet, or keeps them, and remembers what became of its channels. */
import { guidText } from "../machine/guid.js";
import {
  type Channel,
  type ChannelHandler,
  type InboundPacket,
  OfferFlag,
  type OutboundPacket,
  PacketType,
  type VmbusDevice,
} from "./device.js";

/** A GUID out of a number, for classes and instances of tests. */
export function testGuid(n: number): string {
  const bytes = new Uint8Array(16).fill(0x5a);
  new DataView(bytes.buffer).setUint32(0, n, true);
  return guidText(bytes);
}

/** A packet as it was handed over, copied. */
export interface KeptPacket {
  readonly subIndex: number;
  readonly type: number;
  readonly flags: number;
  readonly transactionLow: number;
  readonly transactionHigh: number;
  readonly payload: Uint8Array<ArrayBuffer>;
  readonly pages: readonly number[];
}

export class ScriptedDevice implements VmbusDevice {
  readonly offer;
  readonly packets: KeptPacket[] = [];
  /** Open channels by sub-index. */
  readonly channels = new Map<number, Channel>();
  opens = 0;
  closes = 0;
  spaces = 0;
  /** Whether packets are answered with a completion of the same payload. */
  echo = true;
  refuse = false;
  /** Whether packets are remembered. */
  keep = true;
  /** Called with each packet, before it is answered. */
  onPacket: ((packet: InboundPacket, channel: Channel) => void) | undefined;
  onOpen: ((channel: Channel) => void) | undefined;
  onClose: ((channel: Channel) => void) | undefined;
  /** Answers that found no room, in order, by sub-index. */
  readonly #backlog = new Map<number, OutboundPacket[]>();

  constructor(classNumber: number, instanceNumber = classNumber) {
    this.offer = {
      name: `test${classNumber}`,
      classId: testGuid(classNumber),
      instanceId: testGuid(0x1000_0000 + instanceNumber),
      flags: OfferFlag.enumerate,
      mmioMegabytes: 3,
      userDefined: Uint8Array.of(1, 2, 3),
    };
  }
  /** The primary channel. @throws Error when it is not open */
  get channel(): Channel {
    const channel = this.channels.get(0);
    if (channel === undefined) throw new Error("not open");
    return channel;
  }
  open(channel: Channel): ChannelHandler | undefined {
    if (this.refuse) return undefined;
    this.opens++;
    const handler = this.#attach(channel, []);
    this.onOpen?.(channel);
    return handler;
  }
  #attach(channel: Channel, backlog: OutboundPacket[]): ChannelHandler {
    if (this.channels.has(channel.subIndex)) throw new Error(`channel ${channel.subIndex} opened twice`);
    this.channels.set(channel.subIndex, channel);
    this.#backlog.set(channel.subIndex, backlog);
    return {
      onPacket: (packet) => {
        if (this.keep) this.packets.push(copyOf(packet, channel.subIndex));
        this.onPacket?.(packet, channel);
        if (this.echo && packet.type !== PacketType.completion) this.send(echoOf(packet), channel.subIndex);
      },
      onSpace: () => {
        this.spaces++;
        while (backlog.length > 0 && channel.send(backlog[0]!)) backlog.shift();
        if (backlog.length === 0) channel.resume();
      },
      onClose: () => {
        if (this.channels.get(channel.subIndex) !== channel)
          throw new Error(`channel ${channel.subIndex} closed twice`);
        this.closes++;
        this.channels.delete(channel.subIndex);
        this.onClose?.(channel);
      },
    };
  }
  /** Sends, or keeps it until there is room. */
  send(packet: OutboundPacket, subIndex = 0): void {
    const channel = this.channels.get(subIndex);
    const backlog = this.#backlog.get(subIndex);
    if (channel === undefined || backlog === undefined) return;
    // A service that has answers left reads no more: else a guest that never reads would fill our memory.
    if (backlog.length > 0 || !channel.send(packet)) backlog.push(packet);
    if (backlog.length < 64) return;
    channel.pause();
  }
  backlogLength(subIndex = 0): number {
    return this.#backlog.get(subIndex)?.length ?? 0;
  }
  save(): unknown {
    return { packets: this.packets.length, backlog: [...this.#backlog].filter(([i]) => this.channels.has(i)) };
  }
  restore(state: unknown, channels: readonly Channel[]): readonly ChannelHandler[] {
    const backlogs = new Map((state as { backlog: [number, OutboundPacket[]][] }).backlog);
    return channels.map((channel) => this.#attach(channel, backlogs.get(channel.subIndex) ?? []));
  }
}

function copyOf(packet: InboundPacket, subIndex: number): KeptPacket {
  const { type, flags, transactionLow, transactionHigh, ranges } = packet;
  return {
    subIndex,
    type,
    flags,
    transactionLow,
    transactionHigh,
    payload: packet.payload.slice(0, packet.payloadLength) as Uint8Array<ArrayBuffer>,
    pages: [...ranges.pages.subarray(0, ranges.pageCount)],
  };
}
function echoOf(packet: InboundPacket): OutboundPacket {
  return {
    type: PacketType.completion,
    flags: 0,
    transactionLow: packet.transactionLow,
    transactionHigh: packet.transactionHigh,
    payload: packet.payload.slice(0, packet.payloadLength),
    payloadLength: packet.payloadLength,
  };
}
