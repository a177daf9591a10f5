/** The hypervisor connected to a virtual processor: its APIC, its TLB, its registers at a hypercall. */
import type { LocalApic } from "../chipset/local-apic.js";
import { ModeKey, Vp } from "../cpu/layout.js";
import type { VirtualProcessor } from "../cpu/vp/virtual-processor.js";
import { type GuestCrash, Hypervisor } from "../hypervisor/hypervisor.js";
import type { HvAreas } from "../hypervisor/shared-areas.js";
import { ApicRegister } from "../machine/apic-page.js";
import type { Clock, Deadlines } from "../machine/device.js";
import type { GuestMemory } from "../machine/guest-memory.js";
import type { InterruptRouter } from "../machine/interrupt-router.js";
import type { Trace } from "../trace/trace.js";

export interface HypervisorConnection {
  readonly vp: VirtualProcessor;
  readonly apic: LocalApic;
  readonly areas: HvAreas;
  readonly memory: GuestMemory;
  readonly clock: Clock;
  readonly deadlines: Deadlines;
  readonly trace: Trace;
  readonly router: InterruptRouter;
  readonly tscOffset: () => { readonly low: number; readonly high: number };
  /** No more instructions until an interrupt is pending. */
  readonly idle: () => void;
  readonly onReset: () => void;
  readonly onCrash: (crash: GuestCrash) => void;
}

export function connectHypervisor(o: HypervisorConnection): Hypervisor {
  const { vp, apic, router } = o;
  return new Hypervisor({
    vpIndex: 0,
    areas: o.areas,
    memory: o.memory,
    clock: o.clock,
    deadlines: o.deadlines,
    trace: o.trace,
    targets: {
      processors: 1,
      flushTlb: (included) => {
        if (included(0)) vp.runtime.flushTlb(1);
      },
      sendIpi: (vector, included) => {
        if (included(0)) void router.sendIpi(0, vector, 0);
      },
    },
    processor: {
      eoi: () => apic.eoi(),
      readIcr: (out) => {
        out[0] = apic.registers[ApicRegister.ICR_LOW >> 2]!;
        out[1] = apic.registers[ApicRegister.ICR_HIGH >> 2]!;
      },
      writeIcr: (low, high) => {
        if (apic.x2apic) apic.writeMsr(ApicRegister.ICR_LOW >> 4, low, high);
        else {
          apic.mmioWrite(ApicRegister.ICR_HIGH, high);
          apic.mmioWrite(ApicRegister.ICR_LOW, low);
        }
      },
      get taskPriority() {
        return apic.registers[ApicRegister.TPR >> 2]!;
      },
      set taskPriority(value) {
        if (apic.x2apic) apic.writeMsr(ApicRegister.TPR >> 4, value, 0);
        else apic.mmioWrite(ApicRegister.TPR, value);
      },
      idle: o.idle,
      raise: (vector) => apic.raise(vector),
    },
    tscOffset: o.tscOffset,
    onReset: o.onReset,
    onCrash: o.onCrash,
    hostWrites: (pages, count) => {
      for (let i = 0; i < count; i++) vp.runtime.ramWritten(pages[i]! * 4096, 4096);
    },
  });
}

const Register = { rax: 0, rcx: 1, rdx: 2, rbx: 3, rsi: 6, rdi: 7, r8: 8 } as const;
/** XMM0..5: what a fast call can carry behind its first two words. */
const XMM_INPUT_BYTES = 96;
const result = new Uint32Array(2);

/** A VMCALL: registers as "Hypercall interface" of the TLFS has them, in 64-bit mode or outside it. @returns false = #UD */
export function hypercall(vp: VirtualProcessor, hypervisor: Hypervisor): boolean {
  const { view, base } = vp;
  const protectedMode = (view.getUint32(base + Vp.cr0, true) & 1) !== 0;
  if (view.getUint32(base + Vp.cpl, true) !== 0 || !protectedMode) return false;
  const word = (register: number, half = 0): number => view.getUint32(base + Vp.gpr + register * 8 + half * 4, true);
  const address = (register: number): number => word(register, 1) * 2 ** 32 + word(register);
  const { rax, rcx, rdx, rbx, rsi, rdi, r8 } = Register;
  const long = (view.getUint32(base + Vp.mode, true) & ModeKey.codeMask) === ModeKey.code64;
  hypervisor.hypercall(
    {
      controlLow: word(long ? rcx : rax),
      controlHigh: long ? word(rcx, 1) : word(rdx),
      inputGpa: long ? address(rdx) : word(rbx) * 2 ** 32 + word(rcx),
      outputGpa: long ? address(r8) : word(rdi) * 2 ** 32 + word(rsi),
      fastInput: (into) => {
        const input = new DataView(into.buffer, into.byteOffset);
        const words = long
          ? [word(rdx), word(rdx, 1), word(r8), word(r8, 1)]
          : [word(rcx), word(rbx), word(rsi), word(rdi)];
        words.forEach((w, i) => {
          input.setUint32(i * 4, w, true);
        });
        into.set(vp.bytes.subarray(base + Vp.xmm, base + Vp.xmm + XMM_INPUT_BYTES), 16);
      },
    },
    result,
  );
  view.setUint32(base + Vp.gpr, result[0]!, true);
  if (long) view.setUint32(base + Vp.gpr + 4, result[1]!, true);
  else vp.setRegister(Vp.gpr + rdx * 8, result[1]!);
  return true;
}
