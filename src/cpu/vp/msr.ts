/**
 * Model-specific registers of the processor itself (Intel SDM vol. 4). Those of the local APIC and of the hypervisor are asked
 * of `others`. An unknown register is #GP, as on hardware: Linux reads the doubtful ones with a fix-up.
 */
import { SEG_BYTES, SegIndex, Vp } from "../layout.js";
import { takesMemoryTypes } from "./memory-types.js";
import { Msr } from "./msr-numbers.js";
import type { VirtualProcessor } from "./virtual-processor.js";

export { Msr };

/**
 * ARCH_CAPABILITIES: everything that a side channel would need is declared absent, with enhanced IBRS, so that Linux takes
 * no retpolines: RDCL_NO IBRS_ALL SSB_NO MDS_NO PSCHANGE_MC_NO TAA_NO SBDR_SSDP_NO FBSDP_NO PSDP_NO BHI_NO PBRSB_NO GDS_NO
 * RFDS_NO, and ITS_NO in the high half.
 */
const ARCH_CAPABILITIES = [0x0d10e173, 0x40000000] as const;

/** Registers kept as 64-bit slots of the block, written as they are (after a canonical check where asked). */
const SLOTS: Readonly<Record<number, { at: number; canonical?: true }>> = {
  [Msr.SYSENTER_CS]: { at: Vp.sysenterCs },
  [Msr.SYSENTER_ESP]: { at: Vp.sysenterEsp, canonical: true },
  [Msr.SYSENTER_EIP]: { at: Vp.sysenterEip, canonical: true },
  [Msr.STAR]: { at: Vp.star },
  [Msr.LSTAR]: { at: Vp.lstar, canonical: true },
  [Msr.CSTAR]: { at: Vp.cstar, canonical: true },
  [Msr.SFMASK]: { at: Vp.sfmask },
  [Msr.KERNEL_GS_BASE]: { at: Vp.kernelGsBase, canonical: true },
  [Msr.TSC_AUX]: { at: Vp.tscAux },
  [Msr.PAT]: { at: Vp.pat },
};

export interface OtherMsrs {
  read(index: number, out: Uint32Array): boolean;
  write(index: number, low: number, high: number): boolean;
}

export interface MsrState {
  readonly version: 1;
  readonly values: readonly (readonly [number, number, number])[];
  readonly tscOffset: readonly [low: number, high: number];
}

const isCanonical = (low: number, high: number): boolean => {
  void low;
  return (high << 16) >> 16 === (high | 0);
};

export class MsrFile {
  readonly #vp: VirtualProcessor;
  readonly #others: OtherMsrs;
  /** Plain registers that are only remembered: MTRRs, SPEC_CTRL and so on. */
  readonly #kept = new Map<number, readonly [number, number]>();
  readonly #now: () => number;
  readonly #onTscOffset: (offset: number) => void;
  /** Guest TSC minus virtual time, modulo 2^64, in halves. */
  #offsetLow = 0;
  #offsetHigh = 0;

  constructor(vp: VirtualProcessor, others: OtherMsrs, now: () => number, onTscOffset: (offset: number) => void) {
    this.#vp = vp;
    this.#others = others;
    this.#now = now;
    this.#onTscOffset = onTscOffset;
    this.reset();
  }
  reset(): void {
    const kept = this.#kept;
    kept.clear();
    kept.set(Msr.FEATURE_CONTROL, [1, 0]);
    kept.set(Msr.SPEC_CTRL, [0, 0]);
    kept.set(Msr.BIOS_SIGN_ID, [0, 1]);
    kept.set(Msr.MCG_STATUS, [0, 0]);
    kept.set(Msr.MISC_ENABLE, [1, 0]);
    for (let i = 0; i < 16; i++) kept.set(Msr.MTRR_PHYS + i, [0, 0]);
    for (const i of [Msr.MTRR_FIX64K, Msr.MTRR_FIX16K, Msr.MTRR_FIX16K + 1]) kept.set(i, [0x06060606, 0x06060606]);
    for (let i = 0; i < 8; i++) kept.set(Msr.MTRR_FIX4K + i, [0x06060606, 0x06060606]);
    // MTRRs and fixed ranges on, default write-back
    kept.set(Msr.MTRR_DEF_TYPE, [0xc06, 0]);
    this.#setOffset(0, 0);
  }
  /** Guest TSC minus virtual time, modulo 2^64. */
  get tscOffset(): { readonly low: number; readonly high: number } {
    return { low: this.#offsetLow, high: this.#offsetHigh };
  }
  #setOffset(low: number, high: number): void {
    this.#offsetLow = low >>> 0;
    this.#offsetHigh = high >>> 0;
    this.#onTscOffset((high | 0) * 2 ** 32 + (low >>> 0));
  }
  /** The guest's time-stamp counter: one tick a nanosecond, plus what the guest has added. */
  tsc(out: Uint32Array): void {
    const now = this.#now();
    const low = (now >>> 0) + this.#offsetLow;
    out[0] = low;
    out[1] = Math.floor(now / 2 ** 32) + this.#offsetHigh + (low > 0xffffffff ? 1 : 0);
  }
  read(index: number, out: Uint32Array): boolean {
    const v = this.#vp.view;
    const { base } = this.#vp;
    const slot = SLOTS[index];
    if (slot !== undefined)
      return this.#answer(out, v.getUint32(base + slot.at, true), v.getUint32(base + slot.at + 4, true));
    const kept = this.#kept.get(index);
    if (kept !== undefined) return this.#answer(out, kept[0], kept[1]);
    switch (index) {
      case Msr.TSC:
        this.tsc(out);
        return true;
      case Msr.TSC_ADJUST:
        return this.#answer(out, this.#offsetLow, this.#offsetHigh);
      case Msr.EFER:
        return this.#answer(out, v.getUint32(base + Vp.efer, true), 0);
      case Msr.FS_BASE:
        return this.#base(out, SegIndex.fs);
      case Msr.GS_BASE:
        return this.#base(out, SegIndex.gs);
      case Msr.MTRRCAP:
        return this.#answer(out, 0x508, 0);
      case Msr.ARCH_CAPABILITIES:
        return this.#answer(out, ARCH_CAPABILITIES[0], ARCH_CAPABILITIES[1]);
      case Msr.MCG_CAP:
        return this.#answer(out, 0, 0);
      default:
        return this.#others.read(index, out);
    }
  }
  #answer(out: Uint32Array, low: number, high: number): boolean {
    out[0] = low;
    out[1] = high;
    return true;
  }
  #base(out: Uint32Array, segment: number): boolean {
    const at = this.#vp.base + Vp.segBase + segment * 8;
    return this.#answer(out, this.#vp.view.getUint32(at, true), this.#vp.view.getUint32(at + 4, true));
  }
  write(index: number, low: number, high: number): boolean {
    const v = this.#vp.view;
    const { base } = this.#vp;
    if (index <= Msr.MTRR_DEF_TYPE && !takesMemoryTypes(index, low, high)) return false;
    const slot = SLOTS[index];
    if (slot !== undefined) {
      if (slot.canonical && !isCanonical(low, high)) return false;
      v.setUint32(base + slot.at, low, true);
      v.setUint32(base + slot.at + 4, high, true);
      return true;
    }
    switch (index) {
      case Msr.TSC: {
        // the offset that makes it so, modulo 2^64
        const now = this.#now();
        const difference = (low >>> 0) - (now >>> 0);
        this.#setOffset(difference, (high >>> 0) - Math.floor(now / 2 ** 32) - (difference < 0 ? 1 : 0));
        return true;
      }
      case Msr.TSC_ADJUST:
        this.#setOffset(low, high);
        return true;
      case Msr.EFER:
        return this.#writeEfer(low, high);
      case Msr.FS_BASE:
        return this.#writeBase(SegIndex.fs, low, high);
      case Msr.GS_BASE:
        return this.#writeBase(SegIndex.gs, low, high);
      case Msr.PRED_CMD:
        return (low & ~1) === 0 && high === 0;
      case Msr.BIOS_SIGN_ID:
        return true;
      case Msr.ARCH_CAPABILITIES:
      case Msr.MTRRCAP:
      case Msr.MCG_CAP:
        return false;
    }
    if (this.#kept.has(index)) {
      if (index === Msr.FEATURE_CONTROL) return false; // locked
      this.#kept.set(index, [low, high]);
      return true;
    }
    return this.#others.write(index, low, high);
  }
  #writeEfer(low: number, high: number): boolean {
    const at = this.#vp.base + Vp.efer;
    const old = this.#vp.view.getUint32(at, true);
    // SCE, LME, LMA (read-only), NXE
    if ((low & ~0xd01) !== 0 || high !== 0) return false;
    const paging = (this.#vp.view.getUint32(this.#vp.base + Vp.cr0, true) & 0x80000000) !== 0;
    if (paging && ((old ^ low) & 0x100) !== 0) return false;
    this.#vp.view.setUint32(at, (low & ~0x400) | (old & 0x400), true);
    if (((old ^ low) & 0x800) !== 0) this.#vp.runtime.flushTlb(1);
    this.#vp.runtime.updateMode();
    return true;
  }
  #writeBase(segment: number, low: number, high: number): boolean {
    if (!isCanonical(low, high)) return false;
    const v = this.#vp.view;
    for (const at of [this.#vp.base + Vp.segBase + segment * 8, this.#vp.base + Vp.seg + segment * SEG_BYTES + 8]) {
      v.setUint32(at, low, true);
      v.setUint32(at + 4, high, true);
    }
    return true;
  }
  save(): MsrState {
    return {
      version: 1,
      values: [...this.#kept].map(([i, [l, h]]) => [i, l, h] as const),
      tscOffset: [this.#offsetLow, this.#offsetHigh],
    };
  }
  restore(s: MsrState): void {
    for (const [i, l, h] of s.values) this.#kept.set(i, [l, h]);
    this.#setOffset(s.tscOffset[0], s.tscOffset[1]);
  }
}
