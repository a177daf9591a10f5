/**
 * Delivers interrupt messages (IO-APIC, MSI, IPI) to the local APICs they name.
 *
 * The router only reads the targets' register pages and sets their request bits (apic-page), so it may run on any
 * thread. Destinations are matched as in the Intel SDM vol. 3, "Determining IPI Destination" and "Logical x2APIC ID".
 */
import {
  ApicBase,
  type ApicDoor,
  ApicRegister,
  DeliveryMode,
  RequestFlag,
  requestEvent,
  requestVector,
  SVR_ENABLED,
} from "./apic-page.js";
import { invariant } from "./guest-violation.js";

/** A destination that every APIC answers, in physical mode. */
export const BROADCAST = 0xffff_ffff;

const SHORTHAND_SELF = 1;
const SHORTHAND_ALL = 2;

export class InterruptRouter {
  readonly #doors: ApicDoor[] = [];
  /** Messages that no APIC accepted. */
  undelivered = 0;

  /** Virtual processors are added in index order; the APIC id is read from the register page. */
  add(door: ApicDoor): void {
    invariant(this.#doors.length < 1024, "too many local APICs");
    this.#doors.push(door);
  }

  /**
   * A message from the IO-APIC or an MSI: an 8-bit destination, where 0xFF is everybody in physical mode.
   * @returns whether some APIC took it
   */
  deliver(destination: number, logical: boolean, mode: number, vector: number, level: boolean): boolean {
    const to = !logical && (destination & 0xff) === 0xff ? BROADCAST : destination & 0xff;
    return this.#deliver(to, logical, mode, vector, level, -1);
  }

  /** An MSI as written by a device: address 0xFEExxxxx and 16 bits of data (Intel SDM vol. 3, "Message Signalled Interrupts"). */
  deliverMsi(address: number, data: number): boolean {
    const logical = (address & 4) !== 0;
    const level = (data & 0x8000) !== 0;
    if (level && (data & 0x4000) === 0) return true; // level deassert: nothing to do
    return this.deliver((address >>> 12) & 0xff, logical, (data >>> 8) & 7, data & 0xff, level);
  }

  /**
   * An IPI.
   * @param sender index of the sending virtual processor
   * @param icrLow low half of the ICR
   * @param destination 8 bits from xAPIC mode (0xFFFFFFFF for its physical broadcast), 32 bits from x2APIC mode
   */
  sendIpi(sender: number, icrLow: number, destination: number): boolean {
    const mode = (icrLow >>> 8) & 7;
    const vector = icrLow & 0xff;
    // INIT level de-assert only set arbitration ids on old parts; later ones ignore it (SDM, "Interrupt Command Register").
    if (mode === DeliveryMode.Init && (icrLow & 0xc000) === 0x8000) return true;
    const shorthand = (icrLow >>> 18) & 3;
    if (shorthand === 0) return this.#deliver(destination >>> 0, (icrLow & 0x800) !== 0, mode, vector, false, -1);
    if (shorthand === SHORTHAND_SELF) {
      const self = this.#doors[sender];
      return self !== undefined && this.#give(self, mode, vector, false);
    }
    return this.#deliver(BROADCAST, false, mode, vector, false, shorthand === SHORTHAND_ALL ? -1 : sender);
  }

  #deliver(to: number, logical: boolean, mode: number, vector: number, level: boolean, except: number): boolean {
    let taken = false;
    let best: ApicDoor | undefined;
    let bestPriority = 0x100;
    for (let i = 0; i < this.#doors.length; i++) {
      if (i === except) continue;
      const door = this.#doors[i]!;
      if (!(logical ? matchesLogical(door, to) : matchesPhysical(door, to))) continue;
      if (mode !== DeliveryMode.LowestPriority) {
        if (this.#give(door, mode, vector, level)) taken = true;
        continue;
      }
      // Ties go to the lowest index: repeatable, and no state to keep.
      const priority = Atomics.load(door.registers, ApicRegister.PPR >> 2) & 0xff;
      if (acceptsVectors(door) && priority < bestPriority) {
        best = door;
        bestPriority = priority;
      }
    }
    if (best !== undefined) taken = this.#give(best, DeliveryMode.Fixed, vector, level);
    if (!taken) this.undelivered++;
    return taken;
  }

  #give(door: ApicDoor, mode: number, vector: number, level: boolean): boolean {
    switch (mode) {
      case DeliveryMode.Fixed:
      case DeliveryMode.LowestPriority:
        if (!acceptsVectors(door)) return false;
        requestVector(door, vector, level);
        return true;
      case DeliveryMode.Nmi:
        requestEvent(door, RequestFlag.Nmi);
        return true;
      case DeliveryMode.Init:
        requestEvent(door, RequestFlag.Init);
        return true;
      case DeliveryMode.StartUp:
        requestEvent(door, RequestFlag.Sipi, vector);
        return true;
      default:
        return false; // SMI: no system management mode; ExtINT: no 8259; remote read: obsolete
    }
  }
}

function acceptsVectors(door: ApicDoor): boolean {
  const base = Atomics.load(door.registers, ApicRegister.HOST_BASE >> 2);
  return (base & ApicBase.EN) !== 0 && (Atomics.load(door.registers, ApicRegister.SVR >> 2) & SVR_ENABLED) !== 0;
}

function matchesPhysical(door: ApicDoor, to: number): boolean {
  return to === BROADCAST || Atomics.load(door.registers, ApicRegister.HOST_ID >> 2) >>> 0 === to;
}

function matchesLogical(door: ApicDoor, to: number): boolean {
  const ldr = Atomics.load(door.registers, ApicRegister.LDR >> 2) >>> 0;
  if ((Atomics.load(door.registers, ApicRegister.HOST_BASE >> 2) & ApicBase.EXTD) !== 0) {
    if (to === BROADCAST) return true;
    return ldr >>> 16 === to >>> 16 && (ldr & to & 0xffff) !== 0;
  }
  const own = ldr >>> 24;
  const mda = to & 0xff;
  const flat = Atomics.load(door.registers, ApicRegister.DFR >> 2) >>> 28 === 0xf;
  if (flat) return (own & mda) !== 0;
  const cluster = mda >>> 4;
  return (cluster === 0xf || cluster === own >>> 4) && (own & mda & 0xf) !== 0;
}
