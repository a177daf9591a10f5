/**
 * The hypervisor as one virtual processor meets it (TLFS): synthetic registers, hypercalls, SynIC, synthetic timers, reference
 * time. Runs on that processor's thread; state is in the shared areas.
 *
 * A guest talks to its hypervisor in four ways: CPUID leaves from 0x40000000 (cpuid.ts), registers from 0x40000000 (here),
 * the hypercall page (hypercall.ts), and pages that it lends: messages, event flags, reference time.
 */
import type { Clock, Deadlines } from "../machine/device.js";
import type { GuestMemory } from "../machine/guest-memory.js";
import { type Trace, TraceKind } from "../trace/trace.js";
import { HvStatus, HypercallHandler, type HypercallRegisters, type HypercallTargets } from "./hypercall.js";
import { FIRST_HV_MSR, HvMsr, LAST_HV_MSR } from "./msr-names.js";
import { referenceTime, referenceTscPage, TSC_HZ } from "./reference-time.js";
import { Attention, type HvAreas, PartitionArea, SINTS, STIMERS, SynicArea } from "./shared-areas.js";
import { Synic } from "./synic.js";
import { SyntheticTimers } from "./synthetic-timers.js";

/** VMCALL, RET; then INT3. */
const HYPERCALL_CODE = [0x0f, 0x01, 0xc1, 0xc3] as const;
const ENABLE = 1;
const HYPERCALL_LOCKED = 2;
/** CRASH_CTL: notify, message; what we can do. */
const CRASH_NOTIFY = 0x80000000;
const CRASH_MESSAGE = 0x40000000;
/** Longest text of a crash (TLFS, "Crash MSRs"). */
const MAX_CRASH_TEXT = 4096;

/** What the registers do to the processor. */
export interface ProcessorControls {
  eoi(): void;
  writeIcr(low: number, high: number): void;
  readIcr(out: Uint32Array): void;
  taskPriority: number;
  /** GUEST_IDLE was read: no more instructions until an interrupt is pending. */
  idle(): void;
  raise(vector: number): void;
}

export interface GuestCrash {
  readonly parameters: readonly string[];
  /** The end of the guest's kernel log, where it gave it. */
  readonly text: string;
}

export interface HypervisorOptions {
  readonly vpIndex: number;
  readonly areas: HvAreas;
  readonly memory: GuestMemory;
  readonly clock: Clock;
  readonly deadlines: Deadlines;
  readonly trace: Trace;
  readonly targets: HypercallTargets;
  readonly processor: ProcessorControls;
  /** Guest TSC minus virtual time. */
  readonly tscOffset: () => { readonly low: number; readonly high: number };
  readonly onReset: () => void;
  readonly onCrash: (crash: GuestCrash) => void;
  /** The device side wrote to pages (numbers) that code has been decoded from. */
  readonly hostWrites: (pages: Int32Array, count: number) => void;
}

export class Hypervisor {
  readonly synic: Synic;
  readonly timers: SyntheticTimers;
  readonly #o: HypervisorOptions;
  readonly #hypercalls: HypercallHandler;
  readonly #partition: Int32Array;
  readonly #synicWords: Int32Array;

  constructor(o: HypervisorOptions) {
    this.#o = o;
    this.#partition = o.areas.partition;
    this.#synicWords = o.areas.synic;
    this.#hypercalls = new HypercallHandler({ memory: o.memory, areas: o.areas, trace: o.trace, targets: o.targets });
    this.synic = new Synic(
      {
        areas: o.areas,
        memory: o.memory,
        trace: o.trace,
        raise: (vector) => o.processor.raise(vector),
        ringDoorbell: () => this.#hypercalls.ringDoorbell(),
      },
      () => referenceTime(o.clock.now()),
    );
    this.timers = new SyntheticTimers({
      name: `hypervisor/vp${o.vpIndex}`,
      words: o.areas.synic,
      clock: o.clock,
      deadlines: o.deadlines,
      trace: o.trace,
      raise: (vector) => o.processor.raise(vector),
      post: (timer, expiration) => this.synic.timerExpired(timer, expiration),
      stopped: (timer) => this.synic.timerStopped(timer),
    });
    this.synic.reset();
  }

  /** Takes what other threads left for this processor. Called before each slice. */
  poll(): void {
    const words = this.#synicWords;
    if ((Atomics.load(words, SynicArea.attention >> 2) & Attention.hostWrites) !== 0) this.takeHostWrites();
    this.synic.poll();
  }
  /** The device side wrote to pages with decoded code, and waits. */
  takeHostWrites(): void {
    const p = this.#partition;
    // first: what is asked from now on sets it again
    Atomics.and(this.#synicWords, SynicArea.attention >> 2, ~Attention.hostWrites);
    const asked = Atomics.load(p, PartitionArea.writesAsked >> 2);
    if (asked === Atomics.load(p, PartitionArea.writesDone >> 2)) return;
    this.#o.hostWrites(p.subarray(PartitionArea.writes >> 2), p[PartitionArea.writesCount >> 2]!);
    Atomics.store(p, PartitionArea.writesDone >> 2, asked);
    if (p.buffer instanceof SharedArrayBuffer) Atomics.notify(p, PartitionArea.writesDone >> 2);
  }

  /** The processor has run for the last time. */
  stop(): void {
    const p = this.#partition;
    Atomics.store(p, PartitionArea.stopped >> 2, 1);
    if (p.buffer instanceof SharedArrayBuffer) Atomics.notify(p, PartitionArea.writesDone >> 2);
  }

  // ---- hypercalls -------------------------------------------------------------------------------------------------------
  get hypercallsEnabled(): boolean {
    return (this.#partition[PartitionArea.hypercall >> 2]! & ENABLE) !== 0;
  }
  /** @param out the two words of the result */
  hypercall(r: HypercallRegisters, out: Uint32Array): void {
    if (this.hypercallsEnabled) this.#hypercalls.call(r, out);
    else {
      out[0] = HvStatus.invalidHypercallCode;
      out[1] = 0;
    }
  }

  // ---- registers --------------------------------------------------------------------------------------------------------
  static owns(index: number): boolean {
    return index >= FIRST_HV_MSR && index <= LAST_HV_MSR;
  }
  /** @returns false = #GP */
  read(index: number, out: Uint32Array): boolean {
    out[0] = 0;
    out[1] = 0;
    const synic = (area: number): boolean => this.#pair(this.#synicWords, area, out);
    const partition = (area: number): boolean => this.#pair(this.#partition, area, out);
    if (index >= HvMsr.SINT0 && index < HvMsr.SINT0 + SINTS) return synic(SynicArea.sint + (index - HvMsr.SINT0) * 8);
    if (index >= HvMsr.STIMER0_CONFIG && index < HvMsr.STIMER0_CONFIG + STIMERS * 2) {
      const n = (index - HvMsr.STIMER0_CONFIG) >> 1;
      const isCount = (index & 1) !== 0;
      out[0] = isCount ? this.timers.countLow(n) : this.timers.config(n);
      out[1] = isCount ? this.timers.countHigh(n) : this.timers.configHigh(n);
      return true;
    }
    if (index >= HvMsr.CRASH_P0 && index < HvMsr.CRASH_CTL)
      return partition(PartitionArea.crash + (index - HvMsr.CRASH_P0) * 8);
    switch (index) {
      case HvMsr.GUEST_OS_ID:
        return partition(PartitionArea.guestOsId);
      case HvMsr.HYPERCALL:
        return partition(PartitionArea.hypercall);
      case HvMsr.VP_INDEX:
        out[0] = this.#o.vpIndex;
        return true;
      case HvMsr.RESET:
      case HvMsr.EOM:
        return true;
      case HvMsr.VP_RUNTIME: // counts while the processor sleeps, too
      case HvMsr.TIME_REF_COUNT:
        return this.#number(referenceTime(this.#o.clock.now()), out);
      case HvMsr.REFERENCE_TSC:
        return partition(PartitionArea.referenceTsc);
      case HvMsr.TSC_FREQUENCY:
      case HvMsr.APIC_FREQUENCY:
        return this.#number(TSC_HZ, out);
      case HvMsr.ICR:
        this.#o.processor.readIcr(out);
        return true;
      case HvMsr.TPR:
        out[0] = this.#o.processor.taskPriority;
        return true;
      case HvMsr.VP_ASSIST_PAGE:
        return synic(SynicArea.vpAssist);
      case HvMsr.SCONTROL:
        return synic(SynicArea.scontrol);
      case HvMsr.SVERSION:
        out[0] = 1;
        return true;
      case HvMsr.SIEFP:
        return synic(SynicArea.siefp);
      case HvMsr.SIMP:
        return synic(SynicArea.simp);
      case HvMsr.GUEST_IDLE:
        this.#o.processor.idle();
        return true;
      case HvMsr.CRASH_CTL:
        out[1] = CRASH_NOTIFY | CRASH_MESSAGE;
        return true;
      case HvMsr.TSC_INVARIANT_CONTROL:
        return partition(PartitionArea.tscInvariant);
      default:
        return false;
    }
  }
  #pair(words: Int32Array, area: number, out: Uint32Array): boolean {
    out[0] = words[area >> 2]!;
    out[1] = words[(area >> 2) + 1]!;
    return true;
  }
  #number(value: number, out: Uint32Array): boolean {
    out[0] = value;
    out[1] = Math.floor(value / 2 ** 32);
    return true;
  }
  /** @returns false = #GP */
  write(index: number, low: number, high: number): boolean {
    const ok = this.#write(index, low | 0, high | 0);
    // the timer's count is written for every tick: not worth a record
    if (index < HvMsr.EOI || index > HvMsr.TPR)
      if (index < HvMsr.STIMER0_CONFIG || index >= HvMsr.STIMER0_CONFIG + STIMERS * 2 || !ok)
        this.#o.trace.record(TraceKind.msrWrite, index, low >>> 0, high >>> 0);
    return ok;
  }
  #write(index: number, low: number, high: number): boolean {
    const set = (words: Int32Array, area: number): boolean => {
      words[area >> 2] = low;
      words[(area >> 2) + 1] = high;
      return true;
    };
    if (index >= HvMsr.SINT0 && index < HvMsr.SINT0 + SINTS)
      return this.synic.writeSint(index - HvMsr.SINT0, low, high);
    if (index >= HvMsr.STIMER0_CONFIG && index < HvMsr.STIMER0_CONFIG + STIMERS * 2) {
      const n = (index - HvMsr.STIMER0_CONFIG) >> 1;
      if ((index & 1) === 0) this.timers.writeConfig(n, low, high);
      else this.timers.writeCount(n, low, high);
      return true;
    }
    if (index >= HvMsr.CRASH_P0 && index < HvMsr.CRASH_CTL)
      return set(this.#partition, PartitionArea.crash + (index - HvMsr.CRASH_P0) * 8);
    switch (index) {
      case HvMsr.GUEST_OS_ID:
        set(this.#partition, PartitionArea.guestOsId);
        // without an identity there are no hypercalls (TLFS, "Establishing the hypercall interface")
        if (low === 0 && high === 0) this.#partition[PartitionArea.hypercall >> 2]! &= ~ENABLE;
        return true;
      case HvMsr.HYPERCALL:
        return this.#writeHypercall(low, high);
      case HvMsr.RESET:
        if ((low & 1) !== 0) this.#o.onReset();
        return true;
      case HvMsr.REFERENCE_TSC: {
        set(this.#partition, PartitionArea.referenceTsc);
        this.publishReferenceTsc();
        return true;
      }
      case HvMsr.EOI:
        this.#o.processor.eoi();
        return true;
      case HvMsr.ICR:
        this.#o.processor.writeIcr(low, high);
        return true;
      case HvMsr.TPR:
        this.#o.processor.taskPriority = low & 0xff;
        return true;
      case HvMsr.VP_ASSIST_PAGE:
        return set(this.#synicWords, SynicArea.vpAssist);
      case HvMsr.SCONTROL:
        this.synic.writeControl(low, high);
        return true;
      case HvMsr.SIEFP:
        this.synic.writePage(SynicArea.siefp, low, high);
        return true;
      case HvMsr.SIMP:
        this.synic.writePage(SynicArea.simp, low, high);
        return true;
      case HvMsr.EOM:
        this.synic.deliver();
        return true;
      case HvMsr.CRASH_CTL:
        if ((high & CRASH_NOTIFY) !== 0) this.#crash(high);
        return true;
      case HvMsr.TSC_INVARIANT_CONTROL:
        return set(this.#partition, PartitionArea.tscInvariant);
      default:
        return false;
    }
  }
  #writeHypercall(low: number, high: number): boolean {
    const p = this.#partition;
    const at = PartitionArea.hypercall >> 2;
    if ((p[at]! & HYPERCALL_LOCKED) !== 0) return false;
    const identified = p[PartitionArea.guestOsId >> 2] !== 0 || p[(PartitionArea.guestOsId >> 2) + 1] !== 0;
    const enabled = identified && (low & ENABLE) !== 0;
    const gpa = pageOf(low, high);
    // a fault leaves the register as it was
    if (enabled && !this.#o.memory.contains(gpa, 4096)) return false;
    p[at] = enabled ? low : low & ~ENABLE;
    p[at + 1] = high;
    if (!enabled) return true;
    const page = new Uint8Array(4096).fill(0xcc);
    page.set(HYPERCALL_CODE);
    this.#o.memory.write(gpa, page);
    return true;
  }
  /** Fills the guest's page; also after time has moved on without the guest. */
  publishReferenceTsc(): void {
    const low = this.#partition[PartitionArea.referenceTsc >> 2]!;
    const high = this.#partition[(PartitionArea.referenceTsc >> 2) + 1]!;
    const gpa = pageOf(low, high);
    if ((low & ENABLE) === 0 || !this.#o.memory.contains(gpa, 4096)) return;
    this.#o.memory.write(gpa, referenceTscPage(this.#o.tscOffset()));
  }
  #crash(ctlHigh: number): void {
    const p = this.#partition;
    const word = (n: number): number => p[(PartitionArea.crash >> 2) + n]! >>> 0;
    const parameters = [0, 1, 2, 3, 4].map(
      (n) =>
        word(n * 2 + 1)
          .toString(16)
          .padStart(8, "0") +
        word(n * 2)
          .toString(16)
          .padStart(8, "0"),
    );
    let text = "";
    if ((ctlHigh & CRASH_MESSAGE) !== 0) {
      const gpa = word(7) * 2 ** 32 + word(6);
      const length = Math.min(word(9) * 2 ** 32 + word(8), MAX_CRASH_TEXT);
      if (this.#o.memory.contains(gpa, length)) {
        const bytes = new Uint8Array(length);
        this.#o.memory.read(gpa, bytes);
        text = new TextDecoder().decode(bytes).replace(/\0+$/, "");
      }
    }
    this.#o.onCrash({ parameters, text });
  }
}

const pageOf = (low: number, high: number): number => (high >>> 0) * 2 ** 32 + ((low & ~0xfff) >>> 0);
