/**
 * Hypercalls (TLFS, "Hypercall interface"): registers and input in, status out. Everything is answered on the calling processor:
 * messages and signals go into bounded shared queues that the device side empties.
 */
import type { GuestMemory } from "../machine/guest-memory.js";
import { type Trace, TraceKind } from "../trace/trace.js";
import {
  EVENT_CONNECTION_BASE,
  type HvAreas,
  MAX_PAYLOAD,
  MESSAGE_CONNECTIONS,
  PartitionArea,
  POSTED_SLOTS,
  PostedArea,
  queueNext,
  queueUsed,
  SLOT_BYTES,
  SLOT_PAYLOAD,
} from "./shared-areas.js";

/** Call codes. */
export const Hypercall = {
  FlushVirtualAddressSpace: 0x0002,
  FlushVirtualAddressList: 0x0003,
  NotifyLongSpinWait: 0x0008,
  SendSyntheticClusterIpi: 0x000b,
  FlushVirtualAddressSpaceEx: 0x0013,
  FlushVirtualAddressListEx: 0x0014,
  SendSyntheticClusterIpiEx: 0x0015,
  PostMessage: 0x005c,
  SignalEvent: 0x005d,
  ExtQueryCapabilities: 0x8001,
} as const;
const names = new Map<number, string>(Object.entries(Hypercall).map(([name, code]) => [code, name]));
export const hypercallName = (code: number): string => names.get(code) ?? `0x${code.toString(16)}`;

export const HvStatus = {
  success: 0x00,
  invalidHypercallCode: 0x02,
  invalidHypercallInput: 0x03,
  invalidAlignment: 0x04,
  invalidParameter: 0x05,
  invalidConnectionId: 0x12,
  insufficientBuffers: 0x13,
} as const;

/** How a call's input is made. */
interface Shape {
  /** Bytes of the fixed part of the input; 0 = none. */
  readonly input: number;
  /** Bytes of output. */
  readonly output: number;
  /** May be called with its input in registers. */
  readonly fast: boolean;
  /** Has a list of u64 entries behind the input. */
  readonly rep: boolean;
  /** May have a variable header (u64 words behind the fixed input). */
  readonly variable: boolean;
}
const shape = (input: number, o: Partial<Shape> = {}): Shape => ({
  input,
  output: 0,
  fast: false,
  rep: false,
  variable: false,
  ...o,
});
const SHAPES: ReadonlyMap<number, Shape> = new Map([
  [Hypercall.FlushVirtualAddressSpace, shape(24, { fast: true })],
  [Hypercall.FlushVirtualAddressList, shape(24, { fast: true, rep: true })],
  [Hypercall.NotifyLongSpinWait, shape(8, { fast: true })],
  [Hypercall.SendSyntheticClusterIpi, shape(16, { fast: true })],
  [Hypercall.FlushVirtualAddressSpaceEx, shape(32, { fast: true, variable: true })],
  [Hypercall.FlushVirtualAddressListEx, shape(32, { fast: true, variable: true, rep: true })],
  [Hypercall.SendSyntheticClusterIpiEx, shape(24, { fast: true, variable: true })],
  [Hypercall.PostMessage, shape(256)],
  [Hypercall.SignalEvent, shape(8, { fast: true })],
  [Hypercall.ExtQueryCapabilities, shape(0, { output: 8 })],
]);
/** Input that registers can hold: RDX, R8, XMM0..5. */
const FAST_BYTES = 112;
/** Flush flags. */
const ALL_PROCESSORS = 1;
/** Formats of a VP set: banks of 64 processors, or all processors. */
const SET_SPARSE = 0;
const SET_ALL = 1;
const PAGE = 4096;

/** The caller's registers. */
export interface HypercallRegisters {
  /** Two words of the control register. */
  readonly controlLow: number;
  readonly controlHigh: number;
  /** Guest physical address of input and output block. */
  readonly inputGpa: number;
  readonly outputGpa: number;
  /** Copies the input of a fast call: RDX, R8, XMM0.. */
  fastInput(into: Uint8Array): void;
}

/** What calls do to processors. A mask or set of processors comes as a function. */
export interface HypercallTargets {
  readonly processors: number;
  flushTlb(included: (vp: number) => boolean): void;
  sendIpi(vector: number, included: (vp: number) => boolean): void;
}

export class HypercallHandler {
  readonly #memory: GuestMemory;
  readonly #areas: HvAreas;
  readonly #trace: Trace;
  readonly #targets: HypercallTargets;
  readonly #input = new Uint8Array(PAGE);
  readonly #view = new DataView(this.#input.buffer);
  /** Entries of a rep call done, for the result. */
  #reps = 0;

  constructor(o: { memory: GuestMemory; areas: HvAreas; trace: Trace; targets: HypercallTargets }) {
    this.#memory = o.memory;
    this.#areas = o.areas;
    this.#trace = o.trace;
    this.#targets = o.targets;
  }

  /** The result word's two halves in `out`. */
  call(r: HypercallRegisters, out: Uint32Array): void {
    this.#reps = 0;
    const status = this.#call(r);
    out[0] = status;
    out[1] = status === HvStatus.success ? this.#reps : 0;
    this.#trace.record(TraceKind.hypercall, r.controlLow, r.controlHigh, status, this.#input, 16);
  }
  #call(r: HypercallRegisters): number {
    const code = r.controlLow & 0xffff;
    const s = SHAPES.get(code);
    if (s === undefined) return HvStatus.invalidHypercallCode;
    const fast = (r.controlLow & 0x10000) !== 0;
    const variable = ((r.controlLow >>> 17) & 0x3ff) * 8;
    const count = r.controlHigh & 0xfff;
    const start = (r.controlHigh >>> 16) & 0xfff;
    // reserved: bits 30:27, 31 (nested), 47:44, 63:60
    if ((r.controlLow & 0xf8000000) !== 0 || (r.controlHigh & 0xf000f000) !== 0) return HvStatus.invalidHypercallInput;
    if (s.rep ? count === 0 || start >= count : count !== 0 || start !== 0) return HvStatus.invalidHypercallInput;
    if (variable !== 0 && !s.variable) return HvStatus.invalidHypercallInput;
    if (fast && !s.fast) return HvStatus.invalidHypercallInput;
    const bytes = s.input + variable + count * 8;
    if (bytes > 0) {
      if (fast) {
        if (bytes > FAST_BYTES) return HvStatus.invalidHypercallInput;
        r.fastInput(this.#input);
      } else {
        const bad = this.#badBlock(r.inputGpa, bytes);
        if (bad !== 0) return bad;
        this.#memory.read(r.inputGpa, this.#input, 0, bytes);
      }
    }
    if (s.output > 0) {
      const bad = this.#badBlock(r.outputGpa, s.output);
      if (bad !== 0) return bad;
    }
    switch (code) {
      case Hypercall.PostMessage:
        return this.#postMessage();
      case Hypercall.SignalEvent:
        return this.#signalEvent();
      case Hypercall.FlushVirtualAddressSpace:
      case Hypercall.FlushVirtualAddressList:
        this.#flush(this.#mask(16));
        this.#reps = count;
        return HvStatus.success;
      case Hypercall.FlushVirtualAddressSpaceEx:
      case Hypercall.FlushVirtualAddressListEx: {
        const set = this.#set(16, variable >> 3);
        if (typeof set === "number") return set;
        this.#flush(set);
        this.#reps = count;
        return HvStatus.success;
      }
      case Hypercall.SendSyntheticClusterIpi:
        return this.#ipi(this.#mask(8));
      case Hypercall.SendSyntheticClusterIpiEx: {
        const set = this.#set(8, variable >> 3);
        return typeof set === "number" ? set : this.#ipi(set);
      }
      case Hypercall.ExtQueryCapabilities:
        this.#memory.write(r.outputGpa, new Uint8Array(8));
        return HvStatus.success;
      default: // NotifyLongSpinWait: a hint
        return HvStatus.success;
    }
  }
  /** TLFS: 8-byte aligned, inside a page, inside RAM. @returns 0 = good */
  #badBlock(gpa: number, bytes: number): number {
    const inside = gpa % 8 === 0 && (gpa % PAGE) + bytes <= PAGE && this.#memory.contains(gpa, bytes);
    return inside ? 0 : HvStatus.invalidAlignment;
  }
  #mask(at: number): (vp: number) => boolean {
    const low = this.#view.getUint32(at, true);
    const high = this.#view.getUint32(at + 4, true);
    return (vp) => vp < 64 && (((vp < 32 ? low : high) >>> (vp & 31)) & 1) !== 0;
  }
  /**
   * A VP set: format, mask of banks, then a u64 for each bank that is there; the variable header is as long as there are banks
   * (TLFS, "Sparse virtual processor set"). @returns a status where it is wrong
   */
  #set(at: number, banks: number): ((vp: number) => boolean) | number {
    const format = this.#view.getUint32(at + 4, true) === 0 ? this.#view.getUint32(at, true) : -1;
    if (format === SET_ALL) return () => true;
    if (format !== SET_SPARSE) return HvStatus.invalidParameter;
    const present: number[] = [];
    for (let b = 0; b < 64; b++)
      if (((this.#view.getUint32(at + 8 + (b >> 5) * 4, true) >>> (b & 31)) & 1) !== 0) present.push(b);
    if (present.length !== banks) return HvStatus.invalidHypercallInput;
    const words = present.map((_, i) => [
      this.#view.getUint32(at + 16 + i * 8, true),
      this.#view.getUint32(at + 20 + i * 8, true),
    ]);
    return (vp) => {
      const word = words[present.indexOf(vp >> 6)]?.[(vp >> 5) & 1];
      return word !== undefined && ((word >>> (vp & 31)) & 1) !== 0;
    };
  }
  #flush(included: (vp: number) => boolean): void {
    // whole, whatever the list: a software TLB fills again quickly
    this.#targets.flushTlb((this.#view.getUint32(8, true) & ALL_PROCESSORS) !== 0 ? () => true : included);
  }
  #ipi(included: (vp: number) => boolean): number {
    const vector = this.#view.getUint32(0, true);
    if (vector < 0x10 || vector > 0xff || this.#view.getUint8(4) !== 0) return HvStatus.invalidParameter;
    this.#targets.sendIpi(vector, included);
    return HvStatus.success;
  }

  #postMessage(): number {
    const connection = this.#view.getUint32(0, true) & 0xffffff;
    const type = this.#view.getUint32(8, true);
    const length = this.#view.getUint32(12, true);
    if (length > MAX_PAYLOAD || type === 0 || type >= 0x80000000) return HvStatus.invalidParameter;
    if (!MESSAGE_CONNECTIONS.includes(connection)) return HvStatus.invalidConnectionId;
    const { posted, postedBytes } = this.#areas;
    const tail = posted[PostedArea.tail >> 2]!;
    const head = Atomics.load(posted, PostedArea.head >> 2);
    if (queueUsed(head, tail, POSTED_SLOTS) >= POSTED_SLOTS) return HvStatus.insufficientBuffers;
    const slot = tail % POSTED_SLOTS;
    const at = (PostedArea.slots + slot * SLOT_BYTES) >> 2;
    posted[at] = connection;
    posted[at + 1] = type;
    posted[at + 2] = length;
    postedBytes.set(this.#input.subarray(16, 16 + length), slot * SLOT_BYTES + SLOT_PAYLOAD);
    Atomics.store(posted, PostedArea.tail >> 2, queueNext(tail, POSTED_SLOTS));
    this.ringDoorbell();
    return HvStatus.success;
  }
  #signalEvent(): number {
    const connection = this.#view.getUint32(0, true) & 0xffffff;
    // all flags of a channel's port are its first
    if (this.#view.getUint16(4, true) !== 0) return HvStatus.invalidParameter;
    const relid = connection - EVENT_CONNECTION_BASE;
    const { partition } = this.#areas;
    if (relid < 1 || relid > 2047) return HvStatus.invalidConnectionId;
    const bit = 1 << (relid & 31);
    const known = Atomics.load(partition, (PartitionArea.connections >> 2) + (relid >> 5));
    if ((known & bit) === 0) return HvStatus.invalidConnectionId;
    Atomics.or(partition, (PartitionArea.signals >> 2) + (relid >> 5), bit);
    this.ringDoorbell();
    return HvStatus.success;
  }
  /** Makes the device side look. */
  ringDoorbell(): void {
    const { partition } = this.#areas;
    Atomics.add(partition, PartitionArea.doorbell >> 2, 1);
    if (partition.buffer instanceof SharedArrayBuffer) Atomics.notify(partition, PartitionArea.doorbell >> 2);
  }
}
