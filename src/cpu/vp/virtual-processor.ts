/**
 * One virtual processor: its block in the memory, the runtime and interpreter instances made for it, and the calls that they
 * make. It runs until something has to be done outside (Exit); it owns no clock, no bus and no interrupt controller.
 */
import { BlockBuilder } from "../decode/block-builder.js";
import { generateInterpreter } from "../interpreter/generator.js";
import { formsFingerprint } from "../isa/forms.js";
import {
  Exit,
  JUMP_CACHE_ENTRIES,
  layoutMemory,
  type MemoryLayout,
  SEG_BYTES,
  SegAttr,
  SegIndex,
  Stat,
  Vp,
} from "../layout.js";
import type { RegionCompiler, RegionStore } from "../region/batch-compiler.js";
import type { RegionWay } from "../region/region-function.js";
import { MAX_REGIONS, type RegionRuntime, Regions } from "../region/regions.js";
import { type Stress, StressedRegions } from "../region/stress.js";

/** Instructions between two samples of what is hot, about. */
const SAMPLE_EVERY = 19_997;
/** Generations (Vp.lastGeneration) after which they begin anew; a tag has room for twice as many. */
const MAX_GENERATION = 2 ** 28;

/** The engine's memory with its map. */
export interface EngineMemory {
  readonly memory: WebAssembly.Memory;
  readonly layout: MemoryLayout;
  readonly shared: boolean;
}

export function createEngineMemory(ramBytes: number, vps = 1, shared = true): EngineMemory {
  const layout = layoutMemory(ramBytes, vps);
  const memory = new WebAssembly.Memory({ initial: layout.pages, maximum: layout.pages, shared });
  return { memory, layout, shared };
}

/** The engine's compiled modules, made at build time. */
export interface EngineModules {
  readonly runtime: WebAssembly.Module;
  /** For processor 0 over shared memory; others are generated where they are needed. */
  readonly interpreter: WebAssembly.Module | undefined;
}

/** The second tier, where it is on. */
export interface RegionTier {
  /** Default: on the processor's thread, at once. */
  readonly compiler?: (processor: { readonly base: number; readonly shared: boolean }) => RegionCompiler;
  /** Regions that were compiled before, where it is done on this thread. */
  readonly store?: RegionStore;
  /** Regions at a time, and requests that are sent at a time (regions.ts). */
  readonly slots?: number;
  readonly together?: number;
  /** Monotonic, in ns: for the counters. */
  readonly now?: () => number;
  /** For tests and developers. */
  readonly stress?: Stress;
  /** How they are written, where nothing is known of them yet (default: usual). */
  readonly way?: RegionWay;
}

/** What a processor asks of the machine around it. All calls are synchronous. */
export interface ProcessorHost {
  portIn(port: number, width: 1 | 2 | 4): number;
  portOut(port: number, width: 1 | 2 | 4, value: number): void;
  /** Reads `size` bytes at a guest-physical address outside RAM into `to`. */
  mmioRead(gpa: number, to: Uint8Array): void;
  mmioWrite(gpa: number, from: Uint8Array): void;
  /** CPUID leaf and sub-leaf; the answer goes to `out`: EAX, EBX, ECX, EDX. */
  cpuid(leaf: number, subleaf: number, out: Uint32Array): void;
  /** @returns false = #GP. `out`: low, high. */
  readMsr(index: number, out: Uint32Array): boolean;
  writeMsr(index: number, low: number, high: number): boolean;
  /** Time-stamp counter. `out`: low, high. */
  tsc(out: Uint32Array): void;
  /** 32 random bits. */
  random(): number;
  readCr8(): number;
  writeCr8(value: number): void;
  /** VMCALL. @returns false = #UD */
  vmcall(): boolean;
}

/** The runtime's exports that the host calls. */
interface Runtime extends RegionRuntime {
  rflags(): number;
  setRflags(flags: number): void;
  updateMode(): void;
  setCpl(level: number): void;
  flushTlb(all: number): void;
  resetTlb(): void;
  renewTags(): void;
  flushArena(): void;
  ramWritten(gpa: number, size: number): void;
  secondPage(): number;
  interrupt(vector: number): number;
  trap(vector: number): number;
}

/** State of a segment register, as descriptors have it. */
export interface SegmentState {
  readonly selector: number;
  /** Access byte in bits 0..7, AVL L D/B G in bits 12..15. */
  readonly attributes: number;
  readonly limit: number;
  readonly base: number;
}

export const FLAT_CODE64: SegmentState = {
  selector: 0x10,
  attributes: 0x9b | SegAttr.long | SegAttr.granular,
  limit: 0xffffffff,
  base: 0,
};
export const FLAT_CODE32: SegmentState = {
  selector: 0x10,
  attributes: 0x9b | SegAttr.big | SegAttr.granular,
  limit: 0xffffffff,
  base: 0,
};
export const FLAT_DATA: SegmentState = {
  selector: 0x18,
  attributes: 0x93 | SegAttr.big | SegAttr.granular,
  limit: 0xffffffff,
  base: 0,
};

export class VirtualProcessor {
  readonly index: number;
  readonly base: number;
  readonly view: DataView;
  readonly bytes: Uint8Array;
  readonly words: Int32Array;
  readonly ram: Uint8Array;
  readonly runtime: Runtime;
  readonly #run: (budget: number) => number;
  /** Scratch for CPUID and MSR answers. */
  readonly #answer = new Uint32Array(4);
  retired = 0;
  readonly #poisoned: number;
  readonly #attend: number;
  readonly #sampleEvery: number;
  #untilSample: number;
  #jitter = 1;
  /** The second tier, where it is on. */
  readonly regions: Regions | undefined;
  readonly #stressed: StressedRegions | undefined;

  constructor(
    engine: EngineMemory,
    index: number,
    host: ProcessorHost,
    modules: EngineModules,
    countForms = false,
    regions?: RegionTier,
  ) {
    const { memory, layout, shared } = engine;
    const buffer = memory.buffer;
    this.index = index;
    const { base, pageBlocks } = layout.vps[index]!;
    this.base = base;
    this.view = new DataView(buffer);
    this.bytes = new Uint8Array(buffer);
    this.words = new Int32Array(buffer);
    this.ram = new Uint8Array(buffer, layout.ram, layout.ramBytes);
    const constant = (value: number): WebAssembly.Global =>
      new WebAssembly.Global({ value: "i32", mutable: false }, value);
    const blocks = new BlockBuilder(buffer, layout, index);
    const source = { secondPage: (): number => this.runtime.secondPage() };
    const v = this.view;
    const gpr = base + Vp.gpr;
    const edxEax = (): void => {
      v.setUint32(gpr, this.#answer[0]!, true);
      v.setUint32(gpr + 4, 0, true);
      v.setUint32(gpr + 16, this.#answer[1]!, true);
      v.setUint32(gpr + 20, 0, true);
    };
    const calls = {
      decode: (physical: number, mode: number): number => {
        const header = blocks.build(physical >>> 0, mode, source);
        return header;
      },
      mmioRead: (gpa: number, size: number, to: number): void => host.mmioRead(gpa, this.bytes.subarray(to, to + size)),
      mmioWrite: (gpa: number, size: number, from: number): void =>
        host.mmioWrite(gpa, this.bytes.subarray(from, from + size)),
      portIn: (port: number, width: number): number => host.portIn(port, width as 1 | 2 | 4),
      portOut: (port: number, width: number, value: number): void =>
        host.portOut(port, width as 1 | 2 | 4, value >>> 0),
      cpuid: (): void => {
        host.cpuid(v.getUint32(gpr, true), v.getUint32(gpr + 8, true), this.#answer);
        [0, 3, 1, 2].forEach((reg, i) => {
          // EAX, EBX, ECX, EDX
          v.setUint32(gpr + reg * 8, this.#answer[i]!, true);
          v.setUint32(gpr + reg * 8 + 4, 0, true);
        });
      },
      rdmsr: (): number => {
        if (!host.readMsr(v.getUint32(gpr + 8, true), this.#answer)) return 0;
        edxEax();
        return 1;
      },
      wrmsr: (): number =>
        host.writeMsr(v.getUint32(gpr + 8, true), v.getUint32(gpr, true), v.getUint32(gpr + 16, true)) ? 1 : 0,
      tsc: (): void => {
        host.tsc(this.#answer);
        v.setUint32(base + Vp.tscNow, this.#answer[0]!, true);
        v.setUint32(base + Vp.tscNow + 4, this.#answer[1]!, true);
      },
      random: (): number => host.random(),
      readCr8: (): number => host.readCr8(),
      writeCr8: (value: number): void => host.writeCr8(value),
      vmcall: (): number => (host.vmcall() ? 1 : 0),
    };
    const runtime = new WebAssembly.Instance(modules.runtime, {
      env: {
        memory,
        VP: constant(base),
        RAM: constant(layout.ram | 0),
        RAM_BYTES: constant(layout.ramBytes | 0),
        LINE_MASKS: constant(layout.lineMasks),
        PAGE_BLOCKS: constant(pageBlocks | 0),
      },
      host: calls,
    });
    this.runtime = runtime.exports as unknown as Runtime;
    const made = index === 0 && shared && !countForms ? modules.interpreter : undefined;
    const module = made ?? new WebAssembly.Module(generateInterpreter(base, shared, countForms).bytes);
    const table = new WebAssembly.Table({ element: "anyfunc", initial: MAX_REGIONS });
    const instance = new WebAssembly.Instance(module, { env: { memory, regions: table }, runtime: runtime.exports });
    const run = instance.exports[`run-${formsFingerprint()}`];
    if (typeof run !== "function")
      throw new Error("invariant broken: the interpreter was built from other forms than the decoder's (build again)");
    this.#run = run as (budget: number) => number;
    const stress = regions?.stress;
    this.#untilSample = this.#sampleEvery = stress?.sampleEvery ?? SAMPLE_EVERY;
    if (regions !== undefined)
      this.regions = new Regions({
        memory,
        shared,
        base,
        ram: layout.ram,
        pageBlocks,
        gate: blocks.regionHandler,
        runtime: this.runtime as Runtime & Record<string, unknown>,
        interpreter: instance.exports,
        table,
        ...(stress === undefined ? {} : { hot: 1, way: stress.way }),
        ...(regions?.way === undefined ? {} : { way: regions.way }),
        ...(regions.compiler === undefined ? {} : { compiler: regions.compiler({ base, shared }) }),
        ...(regions.slots === undefined ? {} : { slots: regions.slots }),
        ...(regions.store === undefined ? {} : { store: regions.store }),
        ...(regions.together === undefined ? {} : { together: regions.together }),
        ...(regions.now === undefined ? {} : { now: regions.now }),
      });
    if (stress !== undefined) this.#stressed = new StressedRegions(stress, this.regions!, this.runtime);
    this.#poisoned = blocks.poisonedHandler;
    this.#attend = blocks.attendHandler;
    this.reset();
  }

  /** Registers as after RESET, but for the segments: flat real mode at 0xFFFF0 (firmware or a direct boot sets the rest). */
  reset(): void {
    const v = this.view;
    this.bytes.fill(0, this.base, this.base + Vp.apic);
    v.setUint16(this.base + Vp.poisoned, this.#poisoned, true);
    v.setUint16(this.base + Vp.attend, this.#attend, true);
    v.setUint32(this.base + Vp.arenaNext, this.base + Vp.arena, true);
    this.bytes.fill(0xff, this.base + Vp.jumpCache, this.base + Vp.jumpCache + JUMP_CACHE_ENTRIES * 16);
    this.setRegister(Vp.cr0, 0x60000010);
    this.setSegment(SegIndex.cs, { selector: 0xf000, attributes: 0x9b, limit: 0xffff, base: 0xffff0000 });
    for (const s of [SegIndex.es, SegIndex.ss, SegIndex.ds, SegIndex.fs, SegIndex.gs])
      this.setSegment(s, { selector: 0, attributes: 0x93, limit: 0xffff, base: 0 });
    this.setSegment(SegIndex.ldtr, { selector: 0, attributes: 0x82, limit: 0xffff, base: 0 });
    this.setSegment(SegIndex.tr, { selector: 0, attributes: 0x8b, limit: 0xffff, base: 0 });
    v.setUint32(this.base + Vp.idtrLimit, 0x3ff, true);
    v.setUint32(this.base + Vp.gdtrLimit, 0xffff, true);
    v.setUint32(this.base + Vp.mxcsr, 0x1f80, true);
    v.setUint16(this.base + Vp.fcw, 0x40, true);
    v.setUint32(this.base + Vp.dr + 6 * 8, 0xffff0ff0, true);
    v.setUint32(this.base + Vp.dr + 7 * 8, 0x400, true);
    v.setUint32(this.base + Vp.xcr0, 1, true);
    v.setUint32(this.base + Vp.pat, 0x00070406, true);
    v.setUint32(this.base + Vp.pat + 4, 0x00070406, true);
    v.setInt32(this.base + Vp.faultVector, -1, true);
    this.setRegister(Vp.rip, 0xfffffff0);
    this.runtime.flushArena();
    this.runtime.setRflags(2);
    this.runtime.setCpl(0);
    this.runtime.resetTlb();
    this.runtime.updateMode();
  }

  /** Sets a 64-bit slot from a number of up to 53 bits. */
  setRegister(offset: number, value: number): void {
    this.view.setUint32(this.base + offset, value >>> 0, true);
    this.view.setUint32(this.base + offset + 4, Math.floor(value / 2 ** 32) >>> 0, true);
  }
  setRegister64(offset: number, value: bigint): void {
    this.view.setBigUint64(this.base + offset, BigInt.asUintN(64, value), true);
  }
  register64(offset: number): bigint {
    return this.view.getBigUint64(this.base + offset, true);
  }
  setSegment(index: number, s: SegmentState): void {
    const at = this.base + Vp.seg + index * SEG_BYTES;
    this.view.setUint16(at, s.selector, true);
    this.view.setUint16(at + 2, s.attributes, true);
    this.view.setUint32(at + 4, s.limit, true);
    this.setRegister(Vp.seg + index * SEG_BYTES + 8, s.base);
    if (index < 6) this.setRegister(Vp.segBase + index * 8, s.base);
  }
  /** The block up to the APIC page, as `save` took it. What points into this process is made anew. */
  restoreRegisters(saved: Uint8Array): void {
    this.bytes.set(saved, this.base);
    this.view.setUint16(this.base + Vp.poisoned, this.#poisoned, true);
    this.view.setUint16(this.base + Vp.attend, this.#attend, true);
    this.view.setUint32(this.base + Vp.lastGeneration, 0, true);
    this.view.setUint32(this.base + Vp.jumpGeneration, 0, true);
    this.view.setUint32(this.base + Vp.userGeneration, 0, true);
    this.bytes.fill(0xff, this.base + Vp.jumpCache, this.base + Vp.jumpCache + JUMP_CACHE_ENTRIES * 16);
    this.runtime.flushArena();
    this.runtime.setCpl(this.view.getUint32(this.base + Vp.cpl, true));
    this.runtime.resetTlb();
    this.runtime.updateMode();
  }
  get rip(): bigint {
    return this.register64(Vp.rip);
  }
  /** The atomic word that makes the processor come out at its next look. */
  get pendingWord(): number {
    return (this.base + Vp.pending) >> 2;
  }
  /** Stands around each run: lockstep of two machines. */
  onRun: ((budget: number, run: (budget: number) => number) => number) | undefined;
  /** Runs at most about `budget` instructions (a block's end decides). @returns Exit */
  run(budget: number): number {
    return this.onRun === undefined ? this.#slice(budget) : this.onRun(budget, (b) => this.#slice(b));
  }
  #slice(budget: number): number {
    // a sample is due after so many instructions, however often the run is left before
    for (let left = budget; ; ) {
      const given = this.regions === undefined ? left : Math.min(left, this.#untilSample);
      const reason = this.#run(given);
      const used = given - this.view.getInt32(this.base + Vp.budget, true);
      this.retired += used;
      left -= used;
      if (this.view.getUint32(this.base + Vp.lastGeneration, true) > MAX_GENERATION) this.runtime.renewTags();
      if (this.regions === undefined) return reason;
      this.#untilSample -= used;
      if (this.#untilSample > 0 || reason !== Exit.slice) return reason;
      this.#untilSample = this.#nextSample();
      this.#stressed?.afterSlice();
      this.regions.sample();
      if (left <= 0 || Atomics.load(this.words, this.pendingWord) !== 0) return reason;
    }
  }
  /**
   * Instructions to the next sample. They vary: a run ends where regions do, and a loop over a few of them would have some that no
   * sample ever falls on.
   */
  #nextSample(): number {
    // Marsaglia's xorshift
    let x = this.#jitter;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#jitter = x;
    return Math.ceil(this.#sampleEvery * (0.75 + (x >>> 0) / 2 ** 33));
  }
  stat(name: keyof typeof Stat): number {
    return Number(this.view.getBigUint64(this.base + Vp.stats + Stat[name] * 8, true));
  }
}
export { Exit };
