/**
 * A virtual processor for tests of its hypervisor: plain memory, a clock that the test moves, and lists of what happened to the
 * processor. Around guest RAM and each shared area lies a canary.
 */
import { DeadlineQueue } from "../machine/deadlines.js";
import { GuestMemory, UNWATCHED, type WriteWatcher } from "../machine/guest-memory.js";
import { NO_TRACE, type Trace } from "../trace/trace.js";
import { DeviceDoor } from "./device-door.js";
import type { HypercallTargets } from "./hypercall.js";
import { type GuestCrash, Hypervisor } from "./hypervisor.js";
import { HvMsr } from "./msr-names.js";
import { AREA_BYTES, type HvAreas, hvAreas, PartitionArea, POSTED_BYTES, SynicArea } from "./shared-areas.js";

const CANARY = 0xa5;
const GAP = 4096;
/** Where `enableSynic` puts the pages. */
export const SIMP = 0x3000;
export const SIEFP = 0x4000;

export interface ScriptedOptions {
  readonly ramBytes?: number;
  readonly vpIndex?: number;
  /** Processors that calls may name. */
  readonly processors?: number;
  readonly trace?: Trace;
  readonly tscOffset?: { low: number; high: number };
  readonly watcher?: WriteWatcher;
  readonly nowNs?: number;
}
export interface Call {
  readonly code: number;
  readonly fast?: boolean;
  /** Words of the variable header. */
  readonly variable?: number;
  readonly reps?: number;
  readonly start?: number;
  /** Bits set in the control word besides. */
  readonly bits?: bigint;
  /** Put in the registers, or at the input address. */
  readonly input?: Uint8Array;
  readonly inputGpa?: number;
  readonly outputGpa?: number;
}

export class ScriptedProcessor {
  readonly buffer: SharedArrayBuffer;
  readonly memory: GuestMemory;
  readonly areas: HvAreas;
  readonly deadlines = new DeadlineQueue();
  readonly hypervisor: Hypervisor;
  readonly door: DeviceDoor;
  /** Vectors raised on the own local APIC, in order. */
  raised: number[] = [];
  /** Flushes and IPIs: the processors that were meant. */
  flushes: number[][] = [];
  ipis: { vector: number; vps: number[] }[] = [];
  eois = 0;
  idles = 0;
  resets = 0;
  /** Calls of the device side's wake. */
  wakes = 0;
  icr: [low: number, high: number] = [0, 0];
  taskPriority = 0;
  crashes: GuestCrash[] = [];
  hostWrites: number[][] = [];
  nowNs: number;
  readonly tscOffset: { low: number; high: number };
  readonly #areaOffsets: readonly (readonly [at: number, bytes: number])[];

  constructor(o: ScriptedOptions = {}) {
    const { ramBytes = 1 << 20, vpIndex = 0, processors = 1, trace = NO_TRACE } = o;
    this.nowNs = o.nowNs ?? 0;
    this.tscOffset = o.tscOffset ?? { low: 0, high: 0 };
    const synic = GAP;
    const posted = synic + AREA_BYTES + GAP;
    const partition = posted + POSTED_BYTES + GAP;
    const ram = partition + AREA_BYTES + GAP;
    this.#areaOffsets = [
      [synic, AREA_BYTES],
      [posted, POSTED_BYTES],
      [partition, AREA_BYTES],
      [ram, ramBytes],
    ];
    this.buffer = new SharedArrayBuffer(ram + ramBytes + GAP);
    const all = new Uint8Array(this.buffer);
    for (const gap of this.#gaps()) all.fill(CANARY, gap, gap + GAP);
    this.areas = hvAreas(this.buffer, { synic, posted, partition });
    this.memory = new GuestMemory(new Uint8Array(this.buffer, ram, ramBytes), o.watcher ?? UNWATCHED);
    const members = (included: (vp: number) => boolean): number[] =>
      Array.from({ length: processors }, (_, vp) => vp).filter(included);
    const targets: HypercallTargets = {
      processors,
      flushTlb: (included) => this.flushes.push(members(included)),
      sendIpi: (vector, included) => this.ipis.push({ vector, vps: members(included) }),
    };
    const self = this;
    this.hypervisor = new Hypervisor({
      vpIndex,
      areas: this.areas,
      memory: this.memory,
      clock: { now: () => this.nowNs },
      deadlines: this.deadlines,
      trace,
      targets,
      processor: {
        eoi: () => this.eois++,
        writeIcr: (low, high) => {
          this.icr = [low >>> 0, high >>> 0];
        },
        readIcr: (out) => out.set(this.icr),
        get taskPriority() {
          return self.taskPriority;
        },
        set taskPriority(value) {
          self.taskPriority = value;
        },
        idle: () => this.idles++,
        raise: (vector) => this.raised.push(vector),
      },
      tscOffset: () => this.tscOffset,
      onReset: () => this.resets++,
      onCrash: (crash) => this.crashes.push(crash),
      hostWrites: (pages, count) => this.hostWrites.push([...pages.subarray(0, count)]),
    });
    this.door = new DeviceDoor([this.areas], () => this.wakes++);
  }
  #gaps(): number[] {
    return [0, ...this.#areaOffsets.map(([at, bytes]) => at + bytes)];
  }
  /** @throws Error when something was written between the areas or beside RAM */
  checkCanaries(): void {
    const all = new Uint8Array(this.buffer);
    for (const gap of this.#gaps())
      for (let i = gap; i < gap + GAP; i++) if (all[i] !== CANARY) throw new Error(`written at ${i}`);
  }
  /** Goes on to a time, calling what is due on the way. */
  runTo(ns: number): void {
    while (this.deadlines.earliest() <= ns) {
      this.nowNs = Math.max(this.nowNs, this.deadlines.earliest());
      this.deadlines.runDue(this.nowNs);
    }
    this.nowNs = Math.max(this.nowNs, ns);
  }
  /** The interrupts since the last call. */
  interrupts(): number[] {
    return this.raised.splice(0);
  }

  // ---- what the guest does ------------------------------------------------------------------------------------------------
  /** @returns undefined = #GP */
  rd(index: number): bigint | undefined {
    const out = new Uint32Array(2);
    if (!this.hypervisor.read(index, out)) return undefined;
    return (BigInt(out[1]!) << 32n) | BigInt(out[0]!);
  }
  /** @returns false = #GP */
  wr(index: number, value: bigint | number): boolean {
    const bits = BigInt.asUintN(64, BigInt(value));
    return this.hypervisor.write(index, Number(bits & 0xffff_ffffn), Number(bits >> 32n));
  }
  /** As guests begin: an identity, the hypercall page. */
  enableHypercalls(gpa = 0x2000): void {
    this.wr(HvMsr.GUEST_OS_ID, 0x8100_0006_01c0_0000n);
    this.wr(HvMsr.HYPERCALL, gpa | 1);
  }
  enableSynic(vector = 0xf3): void {
    this.wr(HvMsr.SCONTROL, 1);
    this.wr(HvMsr.SIMP, SIMP | 1);
    this.wr(HvMsr.SIEFP, SIEFP | 1);
    this.wr(HvMsr.SINT0 + 2, vector);
  }
  call(c: Call): { status: number; reps: number } {
    const control =
      BigInt(c.code) |
      (c.fast === true ? 1n << 16n : 0n) |
      (BigInt(c.variable ?? 0) << 17n) |
      (BigInt(c.reps ?? 0) << 32n) |
      (BigInt(c.start ?? 0) << 48n) |
      (c.bits ?? 0n);
    const inputGpa = c.inputGpa ?? 0x8000;
    if (c.input !== undefined && c.fast !== true) this.memory.ram.set(c.input, inputGpa);
    const out = new Uint32Array(2);
    const registers = {
      controlLow: Number(control & 0xffff_ffffn),
      controlHigh: Number(control >> 32n),
      inputGpa,
      outputGpa: c.outputGpa ?? 0x9000,
      fastInput: (into: Uint8Array) => into.set((c.input ?? new Uint8Array(0)).subarray(0, 112)),
    };
    this.hypervisor.hypercall(registers, out);
    return { status: out[0]!, reps: out[1]! };
  }
  /** A slot of the message page at its usual place. */
  slot(sint: number): { type: number; size: number; flags: number; payload: Uint8Array } {
    const at = SIMP + sint * 256;
    const { ram } = this.memory;
    return {
      type: this.memory.readU32(at),
      size: ram[at + 4]!,
      flags: ram[at + 5]!,
      payload: ram.slice(at + 16, at + 16 + ram[at + 4]!),
    };
  }
  /** As Linux takes a message: frees the slot, and says so if another one waits. @returns its type, 0 = none */
  takeMessage(sint: number): { type: number; payload: Uint8Array } | undefined {
    const { type, payload, flags } = this.slot(sint);
    if (type === 0) return undefined;
    this.memory.writeU32(SIMP + sint * 256, 0);
    if ((flags & 1) !== 0) this.wr(HvMsr.EOM, 0);
    return { type, payload };
  }
  /** A message from the device side, of one byte. */
  post(value: number, sint = 2): boolean {
    return this.door.post(0, sint, 1, Uint8Array.of(value), 1);
  }
}

export { HvMsr, PartitionArea, SynicArea };
