/** What one machine is made of, as plain data: it crosses to the processor's thread and into checkpoints. */
import type { SavedPartition } from "./partition.js";

export type SerialNumber = 0 | 1 | 2 | 3;

export interface MachineSpec {
  readonly ramBytes: number;
  /** Names of CPUID features. */
  readonly features: readonly string[];
  /** Direct boot of a Linux kernel; absent when `saved` is given. */
  readonly linux?: {
    readonly setupHeader: Uint8Array;
    readonly elf: Uint8Array;
    readonly initrds: readonly Uint8Array[];
    readonly commandLine: string;
  };
  /** A machine saved before, to go on with. */
  readonly saved?: SavedPartition;
  readonly debugExit: boolean;
}
