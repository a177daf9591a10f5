/**
 * The hypervisor's CPUID leaves (TLFS, "Feature and interface discovery"). What Linux and FreeBSD do with each bit, and which
 * must never be set: reference table "What Linux does with each"; EBX bits 1, 12 and 22 make Linux a root or isolated partition.
 */

/** EAX of 0x40000003: access to registers. */
const PRIVILEGES_LOW =
  0xff | // run time, reference counter, SynIC, timers, APIC, hypercalls, VP index, reset
  (1 << 9) | // reference TSC page
  (1 << 10) | // guest idle
  (1 << 11) | // frequencies
  (1 << 15); // invariant TSC
/** EBX: PostMessages, SignalEvents, ExtendedHypercalls. */
const PRIVILEGES_HIGH = (1 << 4) | (1 << 5) | (1 << 20);
/** EDX: XMM hypercall input, frequency MSRs, crash MSRs, direct synthetic timers. */
const FEATURES = (1 << 4) | (1 << 8) | (1 << 10) | (1 << 19);
/** EAX of 0x40000004: remote flush, APIC MSRs, relaxed timing, no auto-EOI, cluster IPI, extended processor masks. */
const RECOMMENDATIONS = (1 << 2) | (1 << 3) | (1 << 5) | (1 << 9) | (1 << 10) | (1 << 11);

/** Windows Server 2022. */
const BUILD = 20348;
const MAJOR_MINOR = 0x000a0000;
const PHYSICAL_ADDRESS_BITS = 40;
const MAX_PROCESSORS = 64;
/** A guest that spins this often on a lock says so. */
const SPIN_RETRIES = 0xfff;
/** Highest leaf: the timing leaf, which FreeBSD's early delay wants to know the TSC by. */
export const HIGHEST_HV_LEAF = 0x4000_0010;

const word = (text: string): number =>
  (text.charCodeAt(0) | (text.charCodeAt(1) << 8) | (text.charCodeAt(2) << 16) | (text.charCodeAt(3) << 24)) >>> 0;

/** EAX, EBX, ECX, EDX of a leaf from 0x40000000 on; all 0 where there is none. */
export function readHvLeaf(leaf: number, tscHz: number, out: Uint32Array): void {
  out.fill(0);
  const set = (a: number, b: number, c: number, d: number): void => {
    out[0] = a;
    out[1] = b;
    out[2] = c;
    out[3] = d;
  };
  switch (leaf) {
    case 0x4000_0000:
      set(HIGHEST_HV_LEAF, word("Micr"), word("osof"), word("t Hv"));
      break;
    case 0x4000_0001:
      set(word("Hv#1"), 0, 0, 0);
      break;
    case 0x4000_0002:
      set(BUILD, MAJOR_MINOR, 0, 0);
      break;
    case 0x4000_0003:
      set(PRIVILEGES_LOW, PRIVILEGES_HIGH, 0, FEATURES);
      break;
    case 0x4000_0004:
      set(RECOMMENDATIONS, SPIN_RETRIES, PHYSICAL_ADDRESS_BITS, 0);
      break;
    case 0x4000_0005:
      set(MAX_PROCESSORS, MAX_PROCESSORS, 0, 0);
      break;
    case HIGHEST_HV_LEAF:
      set(tscHz / 1000, tscHz / 1000, 0, 0);
      break;
  }
}
