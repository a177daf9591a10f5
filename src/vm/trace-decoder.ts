/** Trace records as people and programs read them: named by their specifications, one object each. */
import { hypercallName } from "../hypervisor/hypercall.js";
import { hvMsrName } from "../hypervisor/msr-names.js";
import { describeIc } from "../services/integration/ic-protocol.js";
import { describeNetwork } from "../services/network/describe.js";
import { NETWORK_CLASS } from "../services/network/nvsp.js";
import { describeStorage } from "../services/storage/describe.js";
import { TraceKind as K, type TraceRecord } from "../trace/trace.js";
import { describeMessage, describePacket } from "../vmbus/protocol.js";

export interface TraceEvent {
  /** ms of virtual time. */
  readonly timeMs: number;
  readonly event: string;
  readonly [detail: string]: unknown;
}

const hex = (n: number): string => `0x${(n >>> 0).toString(16)}`;
const word = (low: number, high: number): string =>
  `0x${(high >>> 0).toString(16).padStart(8, "0")}${(low >>> 0).toString(16).padStart(8, "0")}`;
const text = (r: TraceRecord): string => new TextDecoder().decode(r.bytes);

/** What a channel's packets mean, by the class of its offer. */
type PacketReader = (payload: Uint8Array, direction: "in" | "out", packetType: number) => object;
const SCSI = "ba6163d9-04a1-4d29-b605-72e2ffb1dc7f";
const COMPONENTS: Readonly<Record<string, string>> = {
  "57164f39-9115-4e78-ab55-382f3bd5422d": "heartbeat",
  "0e0b6031-5213-4934-818b-38d90ced39db": "shutdown",
  "9527e630-d0ae-497b-adce-e80ab0175caf": "timesync",
};

/** Knows which channel is whose from the offers that it has seen. Records go in by time. */
export class TraceDecoder {
  readonly #readers = new Map<number, { readonly service: string; readonly read: PacketReader | undefined }>();

  decode(r: TraceRecord): TraceEvent {
    return { timeMs: Math.round(r.timeNs / 1e3) / 1e3, ...this.#decode(r) };
  }
  #decode(r: TraceRecord): { readonly event: string; readonly [detail: string]: unknown } {
    switch (r.kind) {
      case K.hypercall:
        return {
          event: "hypercall",
          call: hypercallName(r.a & 0xffff),
          control: word(r.a, r.b),
          status: hex(r.c),
        };
      case K.msrWrite:
      case K.msrRead:
        return { event: r.kind === K.msrWrite ? "wrmsr" : "rdmsr", register: hvMsrName(r.a), value: word(r.b, r.c) };
      case K.synicMessage:
        return { event: "synic-message", sint: r.a, vector: hex(r.b), raised: r.c === 1 };
      case K.synicEvent:
        return { event: "synic-event", sint: r.a, flag: r.b };
      case K.interrupt:
        return { event: "interrupt", vector: hex(r.a) };
      case K.timerExpired:
        return { event: "timer-expired", timer: r.a, direct: r.b === 1 };
      case K.vmbusIn:
        return { event: "vmbus", from: "guest", ...describeMessage(r.bytes) };
      case K.vmbusOut: {
        const message = describeMessage(r.bytes);
        this.#learn(message);
        return { event: "vmbus", from: "host", vp: r.b, ...message };
      }
      case K.packetIn:
        return { event: "packet", from: "guest", ...this.#packet(r, "in") };
      case K.packetOut:
        return { event: "packet", from: "host", ...this.#packet(r, "out") };
      case K.signalIn:
        return { event: "signal", from: "guest", relid: r.a };
      case K.signalOut:
        return { event: "signal", from: "host", relid: r.a };
      case K.violation:
        return { event: "violation", relid: r.a, rule: text(r) };
      case K.note:
        return { event: "note", relid: r.a, text: text(r) };
    }
  }
  #learn(message: { readonly message: string; readonly [field: string]: unknown }): void {
    if (message.message !== "OfferChannel") return;
    const relid = Number(message.relid);
    const classId = String(message.classId);
    if (classId === SCSI) this.#readers.set(relid, { service: "storage", read: describeStorage });
    else if (classId === NETWORK_CLASS) this.#readers.set(relid, { service: "network", read: describeNetwork });
    else if (classId in COMPONENTS) this.#readers.set(relid, { service: COMPONENTS[classId]!, read: describeIc });
    else this.#readers.set(relid, { service: "socket", read: undefined });
  }
  #packet(r: TraceRecord, direction: "in" | "out"): object {
    const reader = this.#readers.get(r.a);
    const { packet, relid, payloadLength, payload } = describePacket(r.a, r.b, r.c, r.bytes);
    if (reader?.read === undefined) return { service: reader?.service, packet, relid, payloadLength, payload };
    return { service: reader.service, packet, relid, payloadLength, ...reader.read(r.bytes, direction, r.b) };
  }
}
