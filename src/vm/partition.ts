/**
 * One virtual machine's parts, wired: memory, buses, chipset, processor with its local APIC, clock and deadlines. It has no
 * thread of its own: a scheduler (parallel.ts, deterministic.ts) calls `step`.
 */

import { type Chipset, type ChipsetState, createChipset, type SerialSink } from "../chipset/chipset.js";
import { LocalApic, type LocalApicState } from "../chipset/local-apic.js";
import { CpuFeature, Exit, ModeKey, MXCSR_STRICT, Pending, SegIndex, Vp } from "../cpu/layout.js";
import type { Stress } from "../cpu/region/stress.js";
import { Cpuid } from "../cpu/vp/cpuid.js";
import { Msr, MsrFile, type MsrState } from "../cpu/vp/msr.js";
import {
  createEngineMemory,
  type EngineModules,
  FLAT_CODE32,
  FLAT_CODE64,
  FLAT_DATA,
  type ProcessorHost,
  type RegionTier,
  VirtualProcessor,
} from "../cpu/vp/virtual-processor.js";
import type { BootImage } from "../firmware/linux-boot.js";
import { readHvLeaf } from "../hypervisor/cpuid.js";
import { type GuestCrash, Hypervisor } from "../hypervisor/hypervisor.js";
import { TSC_HZ } from "../hypervisor/reference-time.js";
import { AREA_BYTES, type HvAreas, hvAreas, POSTED_BYTES } from "../hypervisor/shared-areas.js";
import { RequestFlag, requestEvent } from "../machine/apic-page.js";
import { MmioBus, PortBus } from "../machine/bus.js";
import { DeadlineQueue, type DeadlineQueueState } from "../machine/deadlines.js";
import type { AccessWidth, Clock, Entropy } from "../machine/device.js";
import { GuestMemory } from "../machine/guest-memory.js";
import { invariant } from "../machine/guest-violation.js";
import { InterruptRouter } from "../machine/interrupt-router.js";
import { NO_TRACE, type Trace, TraceKind } from "../trace/trace.js";
import type { DeviceSideState } from "./device-messages.js";
import { connectHypervisor, hypercall } from "./partition-hypervisor.js";

export interface PartitionOptions {
  readonly ramBytes: number;
  readonly features: ReadonlySet<string>;
  readonly modules: EngineModules;
  readonly shared: boolean;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly wallClockSeconds: number;
  readonly serial: readonly [SerialSink, SerialSink, SerialSink, SerialSink];
  readonly onDebugExit?: (code: number) => void;
  /** Counts executions by form (benchmarks). */
  readonly countForms?: boolean;
  /** The guest sees Hyper-V. Default: it sees a PC without a hypervisor. */
  readonly hypervisor?: {
    readonly onCrash: (crash: GuestCrash) => void;
  };
  readonly trace?: Trace;
  /** MXCSR's flags are exact (cpu/layout.ts, MXCSR_STRICT). */
  readonly strictFloat?: boolean;
  /** Hot code is compiled to WebAssembly. Default: false. */
  readonly regions?: boolean | Stress;
  /** Who compiles it. Default: the processor's thread. */
  readonly regionCompiler?: RegionTier["compiler"];
}

/** A machine at rest, complete: plain data. RAM is kept by page, all-zero pages left out. */
export interface PartitionState {
  readonly version: 1;
  readonly ramBytes: number;
  readonly pages: readonly number[];
  /** The pages' bytes, one after the other. */
  readonly ram: Uint8Array;
  /** Registers of the processor: the block up to the APIC page. */
  readonly registers: Uint8Array;
  readonly retired: number;
  readonly halted: boolean;
  /** Suspended by a read of GUEST_IDLE. */
  readonly idle: boolean;
  readonly apic: LocalApicState;
  readonly msrs: MsrState;
  /** Vp.synic, Vp.posted and Vp.partition, one after the other. */
  readonly hypervisor?: Uint8Array;
  readonly chipset: ChipsetState;
  readonly deadlines: DeadlineQueueState;
  readonly timeNs: number;
  /** The device side's, where there is one. */
  readonly devices?: DeviceSideState;
  /** What the API knows of the guest: whether it takes commands, and its console's last text. */
  readonly guest?: { readonly ready: boolean; readonly agent?: boolean; readonly console: string };
  /** State of a repeatable entropy source. */
  readonly entropy: number | undefined;
}
export type SavedPartition = PartitionState;

/** Why `step` came back. */
export type StepResult = "running" | "halted" | "power-off" | "reset" | "triple-fault";

/** What of the block is architectural: general registers; segment bases; RIP, vector and x87 state; segments to MSRs. */
const DIGEST_RANGES = [
  [Vp.gpr, Vp.zero],
  [Vp.segBase, Vp.flagA],
  [Vp.rip, 0x3a0],
  [Vp.seg, Vp.features],
  [Vp.cpl, Vp.cpl + 4],
] as const;
/** CR0: PE and ET. */
const PROTECTED_MODE = 0x11;
/** CPUID leaf 1, EDX: the local APIC is on. */
const CPUID_APIC = 1 << 9;
const NMI = 2;
const IF = 0x200;
const TF = 0x100;
const RF = 0x10000;
/** Vp.shadow after MOV SS and POP SS. */
const SHADOW_SS = 2;
/** DR6: the trap is that of a single step. */
const DR6_BS = 0x4000;

export class Partition {
  readonly ports = new PortBus();
  readonly mmio = new MmioBus();
  readonly deadlines: DeadlineQueue;
  readonly chipset: Chipset;
  readonly vp: VirtualProcessor;
  readonly apic: LocalApic;
  readonly msrs: MsrFile;
  readonly clock: Clock;
  /** Undefined when the guest sees none. */
  readonly hypervisor: Hypervisor | undefined;
  readonly memory: GuestMemory;
  readonly #cpuid: Cpuid;
  readonly #entropy: Entropy;
  readonly #trace: Trace;
  #halted = false;
  /** The guest asked to be suspended until an interrupt is pending, whether it takes interrupts or not. */
  #idle = false;
  /** A device asked for the end of the run. */
  #end: "power-off" | "reset" | undefined;

  constructor(o: PartitionOptions) {
    this.clock = o.clock;
    this.#entropy = o.entropy;
    this.deadlines = new DeadlineQueue();
    const router = new InterruptRouter();
    const engine = createEngineMemory(o.ramBytes, 1, o.shared);
    this.#cpuid = new Cpuid(o.features, 1);
    const host: ProcessorHost = {
      portIn: (port, width) => this.ports.read(port, width),
      portOut: (port, width, value) => this.ports.write(port, width, value),
      mmioRead: (gpa, to) => this.#mmioRead(gpa, to),
      mmioWrite: (gpa, from) => this.#mmioWrite(gpa, from),
      cpuid: (leaf, sub, out) => {
        if (this.hypervisor !== undefined && leaf >= 0x40000000 && leaf <= 0x400000ff) {
          readHvLeaf(leaf, TSC_HZ, out);
          return;
        }
        const v = this.vp.view;
        this.#cpuid.read(
          leaf,
          sub,
          (v.getUint32(this.vp.base + Vp.cr4, true) & 0x40000) !== 0,
          0,
          v.getUint32(this.vp.base + Vp.xcr0, true),
          out,
        );
        if (leaf === 1 && !this.apic.hardwareEnabled) out[3] = out[3]! & ~CPUID_APIC;
      },
      readMsr: (index, out) => this.msrs.read(index, out),
      writeMsr: (index, low, high) => {
        const ok = this.msrs.write(index, low >>> 0, high >>> 0);
        this.#attend();
        return ok;
      },
      tsc: (out) => this.msrs.tsc(out),
      random: () => o.entropy.next(),
      readCr8: () => this.apic.cr8,
      writeCr8: (value) => {
        this.apic.cr8 = value;
        this.#attend();
      },
      vmcall: () => this.hypervisor !== undefined && this.#hypercall(),
    };
    this.#trace = o.trace ?? NO_TRACE;
    const { regionCompiler: compiler, regions = false } = o;
    const tier = {
      now: () => o.clock.now(),
      ...(compiler === undefined ? {} : { compiler }),
      ...(typeof regions === "object" ? { stress: regions } : {}),
    };
    this.vp = new VirtualProcessor(engine, 0, host, o.modules, o.countForms, regions === false ? undefined : tier);
    const { base, words } = this.vp;
    const features = (["smap", "pcid"] as const).filter((f) => o.features.has(f));
    this.vp.view.setUint32(
      base + Vp.features,
      features.reduce((bits, f) => bits | CpuFeature[f], 0),
      true,
    );
    if (o.strictFloat === true) this.vp.view.setUint32(base + Vp.mxcsr, MXCSR_STRICT | 0x1f80, true);
    this.memory = new GuestMemory(this.vp.ram, {
      written: (gpa, lengthBytes) => {
        this.vp.runtime.ramWritten(gpa, lengthBytes);
        return false;
      },
      settle: () => {},
    });
    this.apic = new LocalApic({
      id: 0,
      registers: words.subarray((base + Vp.apic) >> 2, (base + Vp.apic + 4096) >> 2),
      requests: words.subarray((base + Vp.apicRequests) >> 2, (base + Vp.apicRequests + 96) >> 2),
      wake: () => this.wake(),
      clock: o.clock,
      deadlines: this.deadlines,
      send: (icrLow, destination) => void router.sendIpi(0, icrLow, destination),
      eoiBroadcast: (vector) => this.chipset.ioApic.eoi(vector),
    });
    router.add(this.apic);
    this.msrs = new MsrFile(
      this.vp,
      {
        read: (i, out) =>
          this.hypervisor !== undefined && Hypervisor.owns(i)
            ? this.hypervisor.read(i, out)
            : this.#readApicMsr(i, out),
        write: (i, l, h) =>
          this.hypervisor !== undefined && Hypervisor.owns(i)
            ? this.hypervisor.write(i, l, h)
            : this.#writeApicMsr(i, l, h),
      },
      () => o.clock.now(),
      (offset) => {
        this.apic.tscOffset = offset;
        this.hypervisor?.publishReferenceTsc();
      },
    );
    this.hypervisor =
      o.hypervisor === undefined
        ? undefined
        : connectHypervisor({
            vp: this.vp,
            apic: this.apic,
            areas: this.hvAreas(),
            memory: this.memory,
            clock: o.clock,
            deadlines: this.deadlines,
            trace: this.#trace,
            router,
            tscOffset: () => this.msrs.tscOffset,
            idle: () => {
              this.#idle = true;
              Atomics.or(this.vp.words, this.vp.pendingWord, Pending.other);
            },
            onReset: () => this.#endWith("reset"),
            onCrash: o.hypervisor.onCrash,
          });
    this.chipset = createChipset({
      ports: this.ports,
      mmio: this.mmio,
      clock: o.clock,
      deadlines: this.deadlines,
      router,
      wallClockSeconds: o.wallClockSeconds,
      ramBytes: o.ramBytes,
      processors: 1,
      serial: o.serial,
      onPowerOff: () => this.#endWith("power-off"),
      onReset: () => this.#endWith("reset"),
      ...(o.onDebugExit === undefined ? {} : { onDebugExit: o.onDebugExit }),
    });
  }

  /** The hypervisor's areas in the shared memory: the device side finds them at the same places. */
  hvAreas(): HvAreas {
    const { base, words } = this.vp;
    return hvAreas(words.buffer, {
      synic: base + Vp.synic,
      posted: base + Vp.posted,
      partition: base + Vp.partition,
    });
  }
  /** From any thread: makes the processor look up from what it does. */
  wake(): void {
    Atomics.or(this.vp.words, this.vp.pendingWord, Pending.interrupt);
    Atomics.notify(this.vp.words, this.vp.pendingWord);
  }
  #endWith(how: "power-off" | "reset"): void {
    this.#end = how;
    Atomics.or(this.vp.words, this.vp.pendingWord, Pending.stop);
  }
  /** After something that can make a vector deliverable. */
  #attend(): void {
    if (this.apic.pendingVector() >= 0) this.wake();
  }

  #hypercall(): boolean {
    const known = hypercall(this.vp, this.hypervisor!);
    this.#attend();
    return known;
  }
  #mmioRead(gpa: number, to: Uint8Array): void {
    for (let at = 0; at < to.length; ) {
      const width = (to.length - at >= 4 ? 4 : to.length - at >= 2 ? 2 : 1) as AccessWidth;
      const value = this.#inApic(gpa + at)
        ? this.apic.mmioRead(gpa + at - this.apic.pageBase)
        : this.mmio.read(gpa + at, width);
      for (let i = 0; i < width; i++) to[at + i] = value >>> (i * 8);
      at += width;
    }
  }
  #mmioWrite(gpa: number, from: Uint8Array): void {
    for (let at = 0; at < from.length; ) {
      const width = (from.length - at >= 4 ? 4 : from.length - at >= 2 ? 2 : 1) as AccessWidth;
      let value = 0;
      for (let i = 0; i < width; i++) value |= from[at + i]! << (i * 8);
      if (this.#inApic(gpa + at)) {
        this.apic.mmioWrite(gpa + at - this.apic.pageBase, value);
        this.#attend();
      } else this.mmio.write(gpa + at, width, value >>> 0);
      at += width;
    }
  }
  #inApic(gpa: number): boolean {
    const { pageBase } = this.apic;
    return gpa >= pageBase && gpa < pageBase + 4096;
  }
  #readApicMsr(index: number, out: Uint32Array): boolean {
    if (index === Msr.APIC_BASE) {
      out[0] = this.apic.baseLow;
      out[1] = this.apic.baseHigh;
      return true;
    }
    if (index === Msr.TSC_DEADLINE) {
      out[0] = this.apic.tscDeadlineLow;
      out[1] = this.apic.tscDeadlineHigh;
      return true;
    }
    if (index >= Msr.X2APIC && index < Msr.X2APIC + 0x100) {
      const low = this.apic.readMsr(index - Msr.X2APIC);
      if (low === undefined) return false;
      out[0] = low;
      out[1] = this.apic.msrHigh;
      return true;
    }
    return false;
  }
  #writeApicMsr(index: number, low: number, high: number): boolean {
    if (index === Msr.APIC_BASE) return this.apic.writeBase(low, high);
    if (index === Msr.TSC_DEADLINE) {
      this.apic.writeTscDeadline(low, high);
      // a time that has passed interrupts before the next instruction
      if (this.deadlines.earliest() <= this.clock.now()) this.deadlines.runDue(this.clock.now());
      return true;
    }
    if (index >= Msr.X2APIC && index < Msr.X2APIC + 0x100) return this.apic.writeMsr(index - Msr.X2APIC, low, high);
    return false;
  }

  /** Puts a prepared kernel into fresh memory and the processor at its entry. */
  load(boot: BootImage): void {
    const { vp } = this;
    for (const { gpa, lengthBytes } of boot.zeroes) vp.ram.fill(0, gpa, gpa + lengthBytes);
    for (const { gpa, bytes } of boot.writes) vp.ram.set(bytes, gpa);
    const e = boot.entry;
    if (e.mode === "protected") {
      vp.setRegister(Vp.cr0, PROTECTED_MODE);
      vp.setSegment(SegIndex.cs, FLAT_CODE32);
      for (const s of [SegIndex.es, SegIndex.ss, SegIndex.ds, SegIndex.fs, SegIndex.gs]) vp.setSegment(s, FLAT_DATA);
      vp.setRegister(Vp.gpr, e.eax);
      vp.setRegister(Vp.gpr + 3 * 8, e.ebx);
      vp.setRegister(Vp.rip, e.rip);
      this.#entered();
      return;
    }
    vp.setRegister(Vp.cr3, e.cr3);
    vp.setRegister(Vp.cr4, e.cr4);
    vp.setRegister(Vp.efer, e.efer);
    vp.setRegister(Vp.cr0, e.cr0);
    vp.setRegister(Vp.gdtrBase, e.gdt.base);
    vp.view.setUint32(vp.base + Vp.gdtrLimit, e.gdt.limit, true);
    vp.setSegment(SegIndex.cs, { ...FLAT_CODE64, selector: e.cs });
    for (const s of [SegIndex.es, SegIndex.ss, SegIndex.ds]) vp.setSegment(s, { ...FLAT_DATA, selector: e.ds });
    vp.setRegister(Vp.gpr + 4 * 8, e.rsp);
    vp.setRegister(Vp.gpr + 6 * 8, e.rsi);
    vp.setRegister(Vp.rip, e.rip);
    this.#entered();
  }
  #entered(): void {
    const { runtime } = this.vp;
    runtime.setCpl(0);
    runtime.updateMode();
    runtime.resetTlb();
  }

  /** All state, between two steps. The TLB is emptied, so that a machine restored from it goes on in the same way. */
  save(): PartitionState {
    const { vp } = this;
    vp.runtime.flushArena();
    vp.runtime.resetTlb();
    const pages: number[] = [];
    const words = new Float64Array(vp.ram.buffer, vp.ram.byteOffset, vp.ram.byteLength / 8);
    const bits = new BigUint64Array(vp.ram.buffer, vp.ram.byteOffset, vp.ram.byteLength / 8);
    for (let page = 0; page < vp.ram.length >>> 12; page++) {
      // a double of value 0 may be -0: the bits decide then
      for (let i = page * 512; i < page * 512 + 512; i++) {
        if (words[i] !== 0 || bits[i] !== 0n) {
          pages.push(page);
          break;
        }
      }
    }
    const ram = new Uint8Array(pages.length * 4096);
    pages.forEach((page, i) => {
      ram.set(vp.ram.subarray(page * 4096, page * 4096 + 4096), i * 4096);
    });
    return {
      version: 1,
      ramBytes: vp.ram.length,
      pages,
      ram,
      registers: vp.bytes.slice(vp.base, vp.base + Vp.apic),
      retired: vp.retired,
      halted: this.#halted,
      idle: this.#idle,
      apic: this.apic.save(),
      ...(this.hypervisor === undefined ? {} : { hypervisor: this.#saveAreas() }),
      msrs: this.msrs.save(),
      chipset: this.chipset.save(),
      deadlines: this.deadlines.save(),
      timeNs: this.clock.now(),
      entropy: this.#entropy.state,
    };
  }
  /** Into a fresh partition of the same size, whose clock goes on at the state's time. */
  restore(s: PartitionState): void {
    const { vp } = this;
    invariant(s.ramBytes === vp.ram.length, "a saved machine is restored into one of its own size");
    s.pages.forEach((page, i) => {
      vp.ram.set(s.ram.subarray(i * 4096, i * 4096 + 4096), page * 4096);
    });
    vp.restoreRegisters(s.registers);
    vp.retired = s.retired;
    this.#halted = s.halted;
    this.#idle = s.idle;
    if (s.entropy !== undefined) this.#entropy.restore(s.entropy);
    this.chipset.restore(s.chipset);
    this.msrs.restore(s.msrs);
    this.apic.restore(s.apic);
    invariant(
      (s.hypervisor === undefined) === (this.hypervisor === undefined),
      "a saved machine goes on with a hypervisor if it had one",
    );
    if (s.hypervisor !== undefined) this.#restoreAreas(s.hypervisor);
    this.deadlines.restore(s.deadlines);
  }
  #areaBounds(): readonly (readonly [from: number, bytes: number])[] {
    const { base } = this.vp;
    return [
      [base + Vp.synic, AREA_BYTES],
      [base + Vp.posted, POSTED_BYTES],
      [base + Vp.partition, AREA_BYTES],
    ];
  }
  #saveAreas(): Uint8Array {
    const out = new Uint8Array(2 * AREA_BYTES + POSTED_BYTES);
    let at = 0;
    for (const [from, bytes] of this.#areaBounds()) {
      out.set(this.vp.bytes.subarray(from, from + bytes), at);
      at += bytes;
    }
    return out;
  }
  #restoreAreas(saved: Uint8Array): void {
    let at = 0;
    for (const [from, bytes] of this.#areaBounds()) {
      this.vp.bytes.set(saved.subarray(at, at + bytes), from);
      at += bytes;
    }
    this.hypervisor!.synic.refresh();
  }
  /** FNV-1a over RAM and registers, as 16 hexadecimal digits: two machines with equal digests are in the same state. */
  digest(): string {
    const { vp } = this;
    let a = 0x811c9dc5;
    let b = 0x9e3779b9;
    const words = new Int32Array(vp.ram.buffer, vp.ram.byteOffset, vp.ram.length >>> 2);
    for (let i = 0; i < words.length; i++) {
      const w = words[i]!;
      if (w === 0) continue;
      a = Math.imul(a ^ w ^ i, 0x01000193);
      b = Math.imul((b ^ w) + i, 0x85ebca6b);
      b ^= b >>> 15;
    }
    for (const [from, to] of DIGEST_RANGES) {
      for (let i = from; i < to; i++) {
        a = Math.imul(a ^ vp.bytes[vp.base + i]!, 0x01000193);
        b = Math.imul(b + vp.bytes[vp.base + i]!, 0x85ebca6b);
      }
    }
    a = Math.imul(a ^ vp.runtime.rflags(), 0x01000193);
    const hex = (n: number): string => (n >>> 0).toString(16).padStart(8, "0");
    return hex(a) + hex(b);
  }
  /** Registers in text, for reports. */
  describe(): string {
    const { vp } = this;
    const names = [
      "rax",
      "rcx",
      "rdx",
      "rbx",
      "rsp",
      "rbp",
      "rsi",
      "rdi",
      "r8",
      "r9",
      "r10",
      "r11",
      "r12",
      "r13",
      "r14",
      "r15",
    ];
    const hex = (n: bigint): string => n.toString(16).padStart(16, "0");
    const regs = names
      .map((n, i) => `${n.padEnd(3)} ${hex(vp.register64(Vp.gpr + i * 8))}${i % 4 === 3 ? "\n" : "  "}`)
      .join("");
    const fault = vp.view.getInt32(vp.base + Vp.faultVector, true);
    return (
      `rip ${hex(vp.rip)}  rflags ${(vp.runtime.rflags() >>> 0).toString(16).padStart(8, "0")}  cpl ${vp.view.getUint32(vp.base + Vp.cpl, true)}  last fault ${fault}\n${regs}` +
      `cr0 ${hex(vp.register64(Vp.cr0))}  cr2 ${hex(vp.register64(Vp.cr2))}  cr3 ${hex(vp.register64(Vp.cr3))}  cr4 ${hex(vp.register64(Vp.cr4))}`
    );
  }

  get halted(): boolean {
    return this.#halted || this.#idle;
  }

  /** Runs what is due, takes an interrupt if there is one, then at most about `budget` instructions. */
  step(budget: number): StepResult {
    return this.#step(budget, false);
  }
  /** The same for one instruction. */
  stepOne(): StepResult {
    return this.#step(0, true);
  }
  /** Virtual time when the last step began. */
  steppedAt = 0;
  #step(budget: number, one: boolean): StepResult {
    const { vp, apic } = this;
    const now = this.clock.now();
    this.steppedAt = now;
    if (this.deadlines.earliest() <= now) this.deadlines.runDue(now);
    const shadow = vp.view.getUint32(vp.base + Vp.shadow, true);
    const shadowed = shadow !== 0;
    vp.view.setUint32(vp.base + Vp.shadow, 0, true);
    Atomics.store(vp.words, vp.pendingWord, 0);
    this.hypervisor?.poll();
    if (apic.hasNmi() && (shadowed || vp.view.getUint32(vp.base + Vp.nmiBlocked, true) !== 0)) {
      // looked at again behind the next instruction that may end the blocking
      Atomics.or(vp.words, vp.pendingWord, Pending.nmi);
    } else if (apic.hasNmi()) {
      // before any interrupt, and whatever IF says; until IRET there is no other (SDM vol. 3, "Nonmaskable Interrupt")
      apic.takeNmi();
      vp.view.setUint32(vp.base + Vp.nmiBlocked, 1, true);
      this.#halted = this.#idle = false;
      this.#trace.record(TraceKind.interrupt, NMI);
      if (vp.runtime.interrupt(NMI) !== 0) return "triple-fault";
    }
    const vector = apic.pendingVector();
    if (vector >= 0) {
      this.#idle = false;
      if ((vp.view.getUint32(vp.base + Vp.rflags, true) & IF) !== 0 && !shadowed) {
        this.#halted = false;
        const taken = apic.acknowledge();
        if (this.hypervisor?.synic.isAutoEoi(taken) === true) apic.eoi();
        this.#trace.record(TraceKind.interrupt, taken);
        if (vp.runtime.interrupt(taken) !== 0) return "triple-fault";
        // another one may wait behind it
        if (apic.pendingVector() >= 0) Atomics.or(vp.words, vp.pendingWord, Pending.interrupt);
      } else Atomics.or(vp.words, vp.pendingWord, Pending.interrupt);
    }
    if (this.#halted || this.#idle) return "halted";
    // a delivered interrupt has cleared TF and RF
    const flags = vp.view.getUint32(vp.base + Vp.rflags, true);
    const stepping = (flags & TF) !== 0;
    vp.view.setUint32(vp.base + Vp.debugTrap, stepping ? 1 : 0, true);
    const resuming = this.#holdsBreakpointsOff(flags, shadow);
    const reason = one || shadowed || stepping || resuming ? this.#single() : vp.run(budget);
    if (resuming) vp.view.setUint32(vp.base + Vp.resume, 0, true);
    if (this.#end !== undefined) return this.#end;
    if (reason === Exit.tripleFault) return "triple-fault";
    if (this.#takeDebugTrap()) {
      if (vp.runtime.trap(1) !== 0) return "triple-fault";
    } else if (reason === Exit.halt) {
      this.#halted = true;
      return apic.pendingVector() >= 0 || this.deadlines.earliest() <= this.clock.now() ? "running" : "halted";
    }
    return "running";
  }
  /** From any thread: a non-maskable interrupt. */
  injectNmi(): void {
    requestEvent(this.apic, RequestFlag.Nmi);
  }
  /** Bytes at RIP as far as their page goes, and the code size: what a trace shows. Undefined where the fetch would fault. */
  codeAtRip(): { readonly bytes: Uint8Array; readonly code: 16 | 32 | 64 } | undefined {
    const { vp } = this;
    const found = vp.runtime.peekCode();
    if (found === -1) return undefined;
    const physical = found >>> 0;
    const mode = vp.view.getUint32(vp.base + Vp.mode, true) & ModeKey.codeMask;
    const code = mode === ModeKey.code64 ? 64 : mode === ModeKey.code32 ? 32 : 16;
    return { bytes: vp.ram.subarray(physical, Math.min(physical + 15, physical - (physical % 4096) + 4096)), code };
  }
  /**
   * Whether breakpoints do not count for the next instruction (SDM vol. 3, "Instruction-Breakpoint Exception Condition"): RF says
   * so, which holds for that instruction alone, or MOV SS is before it. Without breakpoints RF is left as it is.
   */
  #holdsBreakpointsOff(flags: number, shadow: number): boolean {
    const { view, base } = this.vp;
    if ((view.getUint32(base + Vp.mode, true) & ModeKey.debug) === 0) return false;
    if ((flags & RF) === 0 && shadow !== SHADOW_SS) return false;
    view.setUint32(base + Vp.rflags, flags & ~RF, true);
    view.setUint32(base + Vp.resume, 1, true);
    return true;
  }
  /**
   * Whether what has run is followed by #DB as a trap, for a single step (SDM vol. 3, "Single-Step Exception Condition") or a data
   * or I/O breakpoint; DR6 then tells. MOV SS puts it off.
   */
  #takeDebugTrap(): boolean {
    const { view, base } = this.vp;
    const stepped = view.getUint32(base + Vp.debugTrap, true) !== 0;
    const hits = view.getUint32(base + Vp.debugHits, true);
    if (!stepped && hits === 0) return false;
    view.setUint32(base + Vp.debugTrap, 0, true);
    if (view.getUint32(base + Vp.shadow, true) === SHADOW_SS) return false;
    view.setUint32(base + Vp.debugHits, 0, true);
    const dr6 = base + Vp.dr + 6 * 8;
    // B0..B3 are those of the last #DB, the others stay until the program clears them
    view.setUint32(dr6, (view.getUint32(dr6, true) & ~15) | (stepped ? DR6_BS : 0) | hits, true);
    return true;
  }
  /** One instruction. */
  #single(): number {
    const { vp } = this;
    vp.view.setUint32(vp.base + Vp.singleStep, 1, true);
    vp.runtime.updateMode();
    const reason = vp.run(0);
    vp.view.setUint32(vp.base + Vp.singleStep, 0, true);
    vp.runtime.updateMode();
    return reason;
  }
}
