/**
 * One virtual machine's parts, wired: memory, buses, chipset, processor with its local APIC, clock and deadlines. It has no
 * thread of its own: a scheduler (parallel.ts, deterministic.ts) calls `step`.
 */
import { Exit, Pending, SegIndex, Vp } from "../cpu/layout.js";
import { Cpuid } from "../cpu/vp/cpuid.js";
import { Msr, MsrFile } from "../cpu/vp/msr.js";
import { createEngineMemory, FLAT_CODE64, FLAT_DATA, type ProcessorHost, VirtualProcessor } from "../cpu/vp/virtual-processor.js";
import { type Chipset, createChipset, type SerialSink } from "../chipset/chipset.js";
import { LocalApic } from "../chipset/local-apic.js";
import type { LinuxBoot } from "../firmware/linux-boot.js";
import { LOCAL_APIC_BASE } from "../machine/memory-map.js";
import { MmioBus, PortBus } from "../machine/bus.js";
import { DeadlineQueue } from "../machine/deadlines.js";
import type { AccessWidth, Clock } from "../machine/device.js";
import { InterruptRouter } from "../machine/interrupt-router.js";

export interface PartitionOptions {
  readonly ramBytes: number;
  readonly features: ReadonlySet<string>;
  readonly runtime: WebAssembly.Module;
  readonly shared: boolean;
  readonly clock: Clock;
  /** 32 random bits. */
  readonly random: () => number;
  readonly wallClockSeconds: number;
  readonly serial: readonly [SerialSink, SerialSink, SerialSink, SerialSink];
  readonly onDebugExit?: (code: number) => void;
}

/** Why `step` came back. */
export type StepResult = "running" | "halted" | "power-off" | "reset" | "triple-fault";

const IF = 0x200;
const TF = 0x100;

export class Partition {
  readonly ports = new PortBus();
  readonly mmio = new MmioBus();
  readonly deadlines: DeadlineQueue;
  readonly chipset: Chipset;
  readonly vp: VirtualProcessor;
  readonly apic: LocalApic;
  readonly msrs: MsrFile;
  readonly clock: Clock;
  readonly #cpuid: Cpuid;
  #halted = false;
  /** A device asked for the end of the run. */
  #end: "power-off" | "reset" | undefined;

  constructor(o: PartitionOptions) {
    this.clock = o.clock;
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
        const v = this.vp.view;
        this.#cpuid.read(leaf, sub, (v.getUint32(this.vp.base + Vp.cr4, true) & 0x40000) !== 0, 0, v.getUint32(this.vp.base + Vp.xcr0, true), out);
      },
      readMsr: (index, out) => this.msrs.read(index, out),
      writeMsr: (index, low, high) => {
        const ok = this.msrs.write(index, low >>> 0, high >>> 0);
        this.#attend();
        return ok;
      },
      tsc: () => this.msrs.tsc(),
      random: o.random,
      readCr8: () => this.apic.cr8,
      writeCr8: (value) => {
        this.apic.cr8 = value;
        this.#attend();
      },
      vmcall: () => false,
    };
    this.vp = new VirtualProcessor(engine, 0, host, o.runtime);
    const { base, words } = this.vp;
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
      { read: (i, out) => this.#readApicMsr(i, out), write: (i, l, h) => this.#writeApicMsr(i, l, h) },
      () => o.clock.now(),
      (offset) => {
        this.apic.tscOffset = offset;
      },
    );
    this.chipset = createChipset({
      ports: this.ports, mmio: this.mmio, clock: o.clock, deadlines: this.deadlines, router, wallClockSeconds: o.wallClockSeconds,
      serial: o.serial,
      onPowerOff: () => this.#endWith("power-off"),
      onReset: () => this.#endWith("reset"),
      ...(o.onDebugExit === undefined ? {} : { onDebugExit: o.onDebugExit }),
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

  #mmioRead(gpa: number, to: Uint8Array): void {
    for (let at = 0; at < to.length; ) {
      const width = (to.length - at >= 4 ? 4 : to.length - at >= 2 ? 2 : 1) as AccessWidth;
      const value = this.#inApic(gpa + at) ? this.apic.mmioRead(gpa + at - LOCAL_APIC_BASE) : this.mmio.read(gpa + at, width);
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
        this.apic.mmioWrite(gpa + at - LOCAL_APIC_BASE, value);
        this.#attend();
      } else this.mmio.write(gpa + at, width, value >>> 0);
      at += width;
    }
  }
  #inApic(gpa: number): boolean {
    return gpa >= LOCAL_APIC_BASE && gpa < LOCAL_APIC_BASE + 4096;
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
      return true;
    }
    if (index >= Msr.X2APIC && index < Msr.X2APIC + 0x100) return this.apic.writeMsr(index - Msr.X2APIC, low, high);
    return false;
  }

  /** Puts a prepared kernel into fresh memory and the processor at its entry. */
  loadLinux(boot: LinuxBoot): void {
    const { vp } = this;
    for (const { gpa, lengthBytes } of boot.zeroes) vp.ram.fill(0, gpa, gpa + lengthBytes);
    for (const { gpa, bytes } of boot.writes) vp.ram.set(bytes, gpa);
    const e = boot.entry;
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
    vp.runtime.setCpl(0);
    vp.runtime.updateMode();
    vp.runtime.resetTlb();
  }

  get halted(): boolean {
    return this.#halted;
  }

  /** Runs what is due, takes an interrupt if there is one, then at most about `budget` instructions. */
  step(budget: number): StepResult {
    const { vp, apic } = this;
    const now = this.clock.now();
    if (this.deadlines.earliest() <= now) this.deadlines.runDue(now);
    const flags = vp.view.getUint32(vp.base + Vp.rflags, true);
    const shadow = vp.view.getUint32(vp.base + Vp.shadow, true) !== 0;
    Atomics.store(vp.words, vp.pendingWord, 0);
    const vector = apic.pendingVector();
    if (vector >= 0) {
      if ((flags & IF) !== 0 && !shadow) {
        this.#halted = false;
        if (vp.runtime.interrupt(apic.acknowledge()) !== 0) return "triple-fault";
        // another one may wait behind it
        if (apic.pendingVector() >= 0) Atomics.or(vp.words, vp.pendingWord, Pending.interrupt);
      } else Atomics.or(vp.words, vp.pendingWord, Pending.interrupt);
    }
    if (this.#halted) return "halted";
    let reason: number;
    if (shadow) {
      vp.view.setUint32(vp.base + Vp.shadow, 0, true);
      reason = this.#single();
    } else if ((flags & TF) !== 0) {
      reason = this.#single();
      if (reason !== Exit.tripleFault && vp.runtime.trap(1) !== 0) return "triple-fault";
    } else reason = vp.run(budget);
    if (this.#end !== undefined) return this.#end;
    if (reason === Exit.tripleFault) return "triple-fault";
    if (reason === Exit.halt) {
      this.#halted = true;
      return apic.pendingVector() >= 0 || this.deadlines.earliest() <= this.clock.now() ? "running" : "halted";
    }
    return "running";
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
