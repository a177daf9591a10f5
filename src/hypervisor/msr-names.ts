/** Synthetic MSRs, named as in the TLFS (appendix "MSRs") with the prefix HV_X64_MSR_ dropped. */
export const HvMsr = {
  GUEST_OS_ID: 0x4000_0000,
  HYPERCALL: 0x4000_0001,
  VP_INDEX: 0x4000_0002,
  RESET: 0x4000_0003,
  VP_RUNTIME: 0x4000_0010,
  TIME_REF_COUNT: 0x4000_0020,
  REFERENCE_TSC: 0x4000_0021,
  TSC_FREQUENCY: 0x4000_0022,
  APIC_FREQUENCY: 0x4000_0023,
  EOI: 0x4000_0070,
  ICR: 0x4000_0071,
  TPR: 0x4000_0072,
  VP_ASSIST_PAGE: 0x4000_0073,
  SCONTROL: 0x4000_0080,
  SVERSION: 0x4000_0081,
  SIEFP: 0x4000_0082,
  SIMP: 0x4000_0083,
  EOM: 0x4000_0084,
  /** SINT0..15 are consecutive. */
  SINT0: 0x4000_0090,
  /** Timers 0..3: CONFIG at 2n, COUNT at 2n + 1. */
  STIMER0_CONFIG: 0x4000_00b0,
  STIMER0_COUNT: 0x4000_00b1,
  GUEST_IDLE: 0x4000_00f0,
  /** P0..P4 are consecutive. */
  CRASH_P0: 0x4000_0100,
  CRASH_CTL: 0x4000_0105,
  TSC_INVARIANT_CONTROL: 0x4000_0118,
} as const;

/** First and last register of the hypervisor's range (TLFS, "Guest privileges and feature discovery"). */
export const FIRST_HV_MSR = 0x4000_0000;
export const LAST_HV_MSR = 0x4000_01ff;

/** The register's name, for traces. */
export function hvMsrName(index: number): string {
  if (index >= HvMsr.SINT0 && index < HvMsr.SINT0 + 16) return `SINT${index - HvMsr.SINT0}`;
  if (index >= HvMsr.STIMER0_CONFIG && index < HvMsr.STIMER0_CONFIG + 8) {
    const n = (index - HvMsr.STIMER0_CONFIG) >> 1;
    return `STIMER${n}_${(index & 1) === 0 ? "CONFIG" : "COUNT"}`;
  }
  if (index >= HvMsr.CRASH_P0 && index < HvMsr.CRASH_CTL) return `CRASH_P${index - HvMsr.CRASH_P0}`;
  return Object.entries(HvMsr).find(([, at]) => at === index)?.[0] ?? `0x${index.toString(16)}`;
}
