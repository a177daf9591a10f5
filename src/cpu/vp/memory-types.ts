/** What PAT and the MTRRs take (Intel SDM vol. 3, "Memory Type Range Registers" and "Page Attribute Table"): the rest is #GP. */
import { Msr } from "./msr-numbers.js";

/** Encodings by bit: UC, WC, WT, WP, WB; PAT has UC- (7) too. */
const MTRR_TYPES = 0b0111_0011;
const PAT_TYPES = 0b1111_0011;
/** Physical addresses have 40 bits (CPUID 80000008): the high half's bits from here on are reserved. */
const RESERVED_HIGH = 0xffffff00;

const isType = (types: number, byte: number): boolean => byte < 8 && ((types >>> byte) & 1) !== 0;
const allTypes = (types: number, low: number, high: number): boolean =>
  [low, high].every((word) => [0, 8, 16, 24].every((shift) => isType(types, (word >>> shift) & 0xff)));

/** Whether the register takes the value; one that is none of these does. */
export function takesMemoryTypes(index: number, low: number, high: number): boolean {
  if (index === Msr.PAT) return allTypes(PAT_TYPES, low, high);
  // type, fixed ranges on, MTRRs on
  if (index === Msr.MTRR_DEF_TYPE) return isType(MTRR_TYPES, low & 0xff) && (low & ~0xcff) === 0 && high === 0;
  if (index >= Msr.MTRR_PHYS && index < Msr.MTRR_PHYS + 16) {
    if ((high & RESERVED_HIGH) !== 0) return false;
    // a mask has its valid bit, a base its type
    return (index & 1) === 1 ? (low & 0x7ff) === 0 : (low & 0xf00) === 0 && isType(MTRR_TYPES, low & 0xff);
  }
  const fixed = index === Msr.MTRR_FIX64K || (index >= Msr.MTRR_FIX16K && index <= Msr.MTRR_FIX4K + 7);
  return !fixed || allTypes(MTRR_TYPES, low, high);
}
