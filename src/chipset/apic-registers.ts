/**
 * Which registers a local APIC has, named by their xAPIC offset: values after reset, writable bits, which of them are
 * x2APIC MSRs (Intel SDM vol. 3, "Local APIC Register Address Map", "x2APIC Register Address Space").
 */
import { ApicBase, ApicRegister as R } from "../machine/apic-page.js";

/** Version 0x14 (integrated, Pentium 4 and later), LVT entries 0..5. */
const VERSION = 0x0005_0014;
export const LVT_MASKED = 1 << 16;

/** Writable bits of the local vector table. What is not named is read-only or reserved. */
export const LVT_BITS: ReadonlyMap<number, number> = new Map([
  [R.LVT_TIMER, 0x0007_00ff],
  [R.LVT_THERMAL, 0x0001_07ff],
  [R.LVT_PERFORMANCE, 0x0001_07ff],
  [R.LVT_LINT0, 0x0001_a7ff],
  [R.LVT_LINT1, 0x0001_a7ff],
  [R.LVT_ERROR, 0x0001_00ff],
]);
/** Read-only LVT bits that software may write back: delivery status and remote IRR. */
const LVT_READ_ONLY = 0x5000;

export const SVR_BITS = 0x3ff;
export const ICR_BITS = 0x000c_cfff;
/** Delivery status: gone in x2APIC mode, but software that wrote it in xAPIC mode still may. */
const ICR_BUSY = 1 << 12;
export const DIVIDE_BITS = 0xb;

/** The local vector table. */
export const LVTS: readonly number[] = [...LVT_BITS.keys()];

const ABSENT = -1;
/** Per MSR index: bits that may be written, ABSENT if a write is #GP. EOI and ESR take 0 only. */
const writable = new Float64Array(0x100).fill(ABSENT);
const readable = new Uint8Array(0x100);

const at = (register: number) => register >> 4;
for (const [register, bits] of LVT_BITS) writable[at(register)] = bits | LVT_READ_ONLY;
for (const [register, bits] of [
  [R.TPR, 0xff],
  [R.EOI, 0],
  [R.SVR, SVR_BITS],
  [R.ESR, 0],
  [R.ICR_LOW, ICR_BITS | ICR_BUSY],
  [R.TIMER_INITIAL, 0xffff_ffff],
  [R.TIMER_DIVIDE, DIVIDE_BITS],
  [R.SELF_IPI, 0xff],
] as const) {
  writable[at(register)] = bits;
}
for (const register of [
  R.ID,
  R.VERSION,
  R.TPR,
  R.PPR,
  R.LDR,
  R.SVR,
  R.ESR,
  R.ICR_LOW,
  R.TIMER_INITIAL,
  R.TIMER_CURRENT,
  R.TIMER_DIVIDE,
]) {
  readable[at(register)] = 1;
}
for (const register of LVT_BITS.keys()) readable[at(register)] = 1;
for (let i = 0; i < 8; i++) readable[at(R.ISR) + i] = readable[at(R.TMR) + i] = readable[at(R.IRR) + i] = 1;

/** @param index MSR number - 0x800 */
export function isX2Readable(index: number): boolean {
  return readable[index] === 1;
}

/** Whether the low half may be written with this value. */
export function isX2Writable(index: number, low: number): boolean {
  const bits = writable[index] ?? ABSENT;
  return bits !== ABSENT && (low & ~bits) === 0;
}

/** Everything but the mode and the id as after power-up (SDM, "Local APIC State After Power-Up or Reset"). */
export function resetRegisters(registers: Int32Array, id: number): void {
  const base = registers[R.HOST_BASE >> 2]!;
  registers.fill(0);
  registers[R.HOST_BASE >> 2] = base;
  registers[R.VERSION >> 2] = VERSION;
  registers[R.SVR >> 2] = 0xff;
  registers[R.DFR >> 2] = -1;
  for (const lvt of LVTS) registers[lvt >> 2] = LVT_MASKED;
  setIdentity(registers, id);
}

/** ID and LDR change their form with the mode; x2APIC derives the logical id from the physical one. */
export function setIdentity(registers: Int32Array, id: number): void {
  Atomics.store(registers, R.HOST_ID >> 2, id);
  if ((registers[R.HOST_BASE >> 2]! & ApicBase.EXTD) !== 0) {
    registers[R.ID >> 2] = id;
    Atomics.store(registers, R.LDR >> 2, ((id >>> 4) << 16) | (1 << (id & 0xf)));
  } else {
    registers[R.ID >> 2] = id << 24;
  }
}

const X2APIC = ApicBase.EN | ApicBase.EXTD;
/** Bits 7:0 and 9 of IA32_APIC_BASE, and what is above 40 address bits (CPUID 80000008) in its high half. */
const BASE_RESERVED = 0x2ff;
const BASE_HIGH_RESERVED = 0xffff_ff00;

/** Whether IA32_APIC_BASE may be written so (SDM, "x2APIC States"): x2APIC is entered from xAPIC and left by disabling. */
export function isLegalBase(fromLow: number, low: number, high: number): boolean {
  if ((low & BASE_RESERVED) !== 0 || (high & BASE_HIGH_RESERVED) !== 0) return false;
  const from = fromLow & X2APIC;
  const to = low & X2APIC;
  if (to === ApicBase.EXTD) return false;
  if (from === 0) return to !== X2APIC;
  return from !== X2APIC || to !== ApicBase.EN;
}
