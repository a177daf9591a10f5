/**
 * The part of a local APIC that other threads see: its register page and its request words, in shared memory.
 *
 * Only the owning virtual processor writes the register page (chipset/local-apic). Others read destination registers
 * from it (a stale value means an interrupt sent a moment earlier or later, which hardware does not promise either)
 * and ask for interrupts by the request words:
 *
 *     [0..7]   edge-triggered vectors, bit v of 256      [16] RequestFlag bits
 *     [8..15]  level-triggered vectors                   [17] vector of the last start-up IPI
 *
 * A request sets its bit first and the flag after it; the owner clears the flags first and takes the bits after. So a
 * request may be seen early but is never lost.
 */

/** Byte offsets in the xAPIC register page; bits 4.. of them are the x2APIC MSR index (Intel SDM vol. 3, "Local APIC Register Address Map"). */
export const ApicRegister = {
  ID: 0x20,
  VERSION: 0x30,
  TPR: 0x80,
  APR: 0x90,
  PPR: 0xa0,
  EOI: 0xb0,
  RRD: 0xc0,
  LDR: 0xd0,
  DFR: 0xe0,
  SVR: 0xf0,
  ISR: 0x100,
  TMR: 0x180,
  IRR: 0x200,
  ESR: 0x280,
  ICR_LOW: 0x300,
  ICR_HIGH: 0x310,
  LVT_TIMER: 0x320,
  LVT_THERMAL: 0x330,
  LVT_PERFORMANCE: 0x340,
  LVT_LINT0: 0x350,
  LVT_LINT1: 0x360,
  LVT_ERROR: 0x370,
  TIMER_INITIAL: 0x380,
  TIMER_CURRENT: 0x390,
  TIMER_DIVIDE: 0x3e0,
  SELF_IPI: 0x3f0,
  /** Ours, in words that the architecture leaves undefined: low half of IA32_APIC_BASE, and the x2APIC id. */
  HOST_BASE: 0x4,
  HOST_ID: 0x8,
} as const;

/** IA32_APIC_BASE (Intel SDM vol. 3, "Local APIC Status and Location"). */
export const ApicBase = { BSP: 1 << 8, EXTD: 1 << 10, EN: 1 << 11 } as const;

/** SVR bit 8: the APIC is software-enabled. */
export const SVR_ENABLED = 1 << 8;

export const REQUEST_WORDS = 24;
export const LEVEL_REQUESTS = 8;
export const REQUEST_FLAGS = 16;
export const REQUEST_SIPI_VECTOR = 17;

export const RequestFlag = { Some: 1, Nmi: 2, Init: 4, Sipi: 8 } as const;

/** Delivery modes, as encoded in ICR, LVT, IO-APIC and MSI data bits 10:8. */
export const DeliveryMode = {
  Fixed: 0,
  LowestPriority: 1,
  Smi: 2,
  RemoteRead: 3,
  Nmi: 4,
  Init: 5,
  StartUp: 6,
  ExtInt: 7,
} as const;

/** What a thread needs to interrupt a virtual processor. */
export interface ApicDoor {
  readonly registers: Int32Array;
  readonly requests: Int32Array;
  /** Makes the owner look at its requests soon, asleep or not. */
  readonly wake: () => void;
}

/** Asks for a vector; callable by any thread. */
export function requestVector(door: ApicDoor, vector: number, level: boolean): void {
  const word = ((vector & 0xff) >> 5) + (level ? LEVEL_REQUESTS : 0);
  Atomics.or(door.requests, word, 1 << (vector & 31));
  Atomics.or(door.requests, REQUEST_FLAGS, RequestFlag.Some);
  door.wake();
}

/** Asks for an NMI, INIT or start-up; callable by any thread. */
export function requestEvent(door: ApicDoor, flag: number, sipiVector = 0): void {
  if (flag === RequestFlag.Sipi) Atomics.store(door.requests, REQUEST_SIPI_VECTOR, sipiVector);
  Atomics.or(door.requests, REQUEST_FLAGS, flag | RequestFlag.Some);
  door.wake();
}
