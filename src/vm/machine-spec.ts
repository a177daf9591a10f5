/** What one machine is made of, as plain data: it crosses to the processor's thread and into checkpoints. */
import type { Stress } from "../cpu/region/stress.js";
import type { BootImage } from "../firmware/linux-boot.js";
import type { SavedPartition } from "./partition.js";

/** A serial port: COM1 (0, the console) to COM4. */
export type SerialNumber = 0 | 1 | 2 | 3;

export interface MachineSpec {
  readonly ramBytes: number;
  /** Names of CPUID features. */
  readonly features: readonly string[];
  /** A kernel, ready to be put into memory; absent when `saved` is given. */
  readonly boot?: BootImage;
  /** A machine saved before, to go on with. */
  readonly saved?: SavedPartition;
  readonly debugExit: boolean;
  /** MXCSR's flags are exact, at a price (cpu/layout.ts, MXCSR_STRICT). */
  readonly strictFloat: boolean;
  /** Hot code is compiled (cpu/region). */
  readonly regions: boolean | Stress;
  /** The guest sees Hyper-V. */
  readonly hypervisor: boolean;
  /** Send trace records, not only keep them. */
  readonly trace: boolean;
  /** Every instruction is told before it runs: some thousand times slower. */
  readonly traceCpu: boolean;
}
