/**
 * The fixed ACPI power management block (ACPI specification, "ACPI Hardware Specification", fixed hardware): PM1 event
 * and control, the PM timer, one general-purpose event block, and the SCI they raise.
 *
 * ACPI mode is always on: there is no SMI command port and SCI_EN reads 1. \_S5 is sleep type 0.
 */
import type { AccessWidth, Checkpointed, Clock, Deadlines, IrqLine, PortDevice } from "../machine/device.js";

/** Where the blocks are; the FADT tells the guest. */
export const PmPort = { PM1_EVENT: 0x600, PM1_CONTROL: 0x604, TIMER: 0x608, GPE0: 0x60c, END: 0x610 } as const;
export const SCI_IRQ = 9;
/** Sleep type of \_S5, soft off. */
export const SLEEP_TYPE_S5 = 0;

const PM_TIMER_HZ = 3_579_545;
const SECOND_NS = 1_000_000_000;
const DEADLINE = "pm-timer";

/** PM1 status and enable bits share their places. */
const Pm1 = {
  TIMER: 1 << 0,
  GLOBAL: 1 << 5,
  POWER_BUTTON: 1 << 8,
  SLEEP_BUTTON: 1 << 9,
  RTC: 1 << 10,
  WAKE: 1 << 15,
} as const;
const PM1_STATUS_BITS = Pm1.TIMER | Pm1.GLOBAL | Pm1.POWER_BUTTON | Pm1.SLEEP_BUTTON | Pm1.RTC | Pm1.WAKE;
const PM1_ENABLE_BITS = Pm1.TIMER | Pm1.GLOBAL | Pm1.POWER_BUTTON | Pm1.SLEEP_BUTTON | Pm1.RTC;
const Control = { SCI_EN: 1, BM_RLD: 2, SLP_TYP_SHIFT: 10, SLP_TYP: 7 << 10, SLP_EN: 1 << 13 } as const;

export interface PmState {
  readonly version: 1;
  readonly status: number;
  readonly enable: number;
  readonly control: number;
  readonly gpeStatus: number;
  readonly gpeEnable: number;
  readonly timerCheckedNs: number;
}

export interface PmOptions {
  readonly clock: Clock;
  readonly deadlines: Deadlines;
  readonly sci: IrqLine;
  /** The guest switched itself off. */
  readonly onPowerOff: () => void;
}

export class PowerManagement implements PortDevice, Checkpointed<PmState> {
  readonly name = "acpi-pm";
  readonly ports: readonly number[] = Array.from(
    { length: PmPort.END - PmPort.PM1_EVENT },
    (_, i) => PmPort.PM1_EVENT + i,
  );
  readonly stateVersion = 1;
  readonly #clock: Clock;
  readonly #deadlines: Deadlines;
  readonly #sci: IrqLine;
  readonly #onPowerOff: () => void;
  #status = 0;
  #enable = 0;
  #control = 0;
  #gpeStatus = 0;
  #gpeEnable = 0;
  /** TMR_STS accounts for the time up to here. */
  #timerCheckedNs = 0;

  constructor(o: PmOptions) {
    this.#clock = o.clock;
    this.#deadlines = o.deadlines;
    this.#sci = o.sci;
    this.#onPowerOff = o.onPowerOff;
    o.deadlines.register(DEADLINE, () => this.#settle());
  }

  /** The host's power button: the guest's operating system shuts down if it listens. */
  pressPowerButton(): void {
    this.#status |= Pm1.POWER_BUTTON;
    this.#settle();
  }

  /** Raises general-purpose event `n` (0..15). */
  raiseGpe(n: number): void {
    this.#gpeStatus |= (1 << n) & 0xffff;
    this.#settle();
  }

  read(port: number, width: AccessWidth): number {
    const at = port - PmPort.PM1_EVENT;
    const value = this.#readWord(at & ~3) >>> ((at & 3) * 8);
    const over = (at & 3) + width - 4; // bytes of an unaligned access that lie in the next register
    return over > 0 ? value | (this.#readWord((at & ~3) + 4) << ((width - over) * 8)) : value;
  }

  write(port: number, width: AccessWidth, value: number): void {
    for (let i = 0; i < width; i++) this.#stage(port - PmPort.PM1_EVENT + i, (value >>> (i * 8)) & 0xff);
    // Sleep enable acts when the whole access is in, so that the type of the same access counts.
    const sleep = (this.#control & Control.SLP_EN) !== 0;
    this.#control &= ~Control.SLP_EN;
    this.#settle();
    if (sleep && (this.#control & Control.SLP_TYP) >> Control.SLP_TYP_SHIFT === SLEEP_TYPE_S5) this.#onPowerOff();
  }

  reset(): void {
    this.#status = 0;
    this.#enable = 0;
    this.#control = 0;
    this.#gpeStatus = 0;
    this.#gpeEnable = 0;
    this.#settle();
  }

  save(): PmState {
    return {
      version: 1,
      status: this.#status,
      enable: this.#enable,
      control: this.#control,
      gpeStatus: this.#gpeStatus,
      gpeEnable: this.#gpeEnable,
      timerCheckedNs: this.#timerCheckedNs,
    };
  }

  restore(s: PmState): void {
    this.#status = s.status;
    this.#enable = s.enable;
    this.#control = s.control;
    this.#gpeStatus = s.gpeStatus;
    this.#gpeEnable = s.gpeEnable;
    this.#timerCheckedNs = s.timerCheckedNs;
    this.#drive();
  }

  #readWord(at: number): number {
    switch (at) {
      case 0:
        this.#settle();
        return this.#status | (this.#enable << 16);
      case 4:
        return this.#control | Control.SCI_EN;
      case 8:
        return ticks(this.#clock.now()) % 0x1_0000_0000;
      case 12:
        return this.#gpeStatus | (this.#gpeEnable << 16);
      default:
        return 0xffff_ffff;
    }
  }

  /** One byte of a write; status bits are cleared by writing ones. */
  #stage(at: number, byte: number): void {
    const shift = (at & 1) * 8;
    const lane = byte << shift;
    const keep = ~(0xff << shift);
    switch (at & ~1) {
      case 0:
        this.#settle();
        this.#status &= ~lane;
        return;
      case 2:
        this.#enable = ((this.#enable & keep) | lane) & PM1_ENABLE_BITS;
        return;
      case 4:
        this.#control = ((this.#control & keep) | lane) & (Control.BM_RLD | Control.SLP_TYP | Control.SLP_EN);
        return;
      case 12:
        this.#gpeStatus &= ~lane;
        return;
      case 14:
        this.#gpeEnable = (this.#gpeEnable & keep) | lane;
        return;
    }
  }

  /** TMR_STS is set whenever bit 31 of the timer changes. */
  #settle(): void {
    const now = this.#clock.now();
    if (halfTurns(now) !== halfTurns(this.#timerCheckedNs)) this.#status |= Pm1.TIMER;
    this.#timerCheckedNs = now;
    this.#drive();
  }

  #drive(): void {
    const pm1 = this.#status & this.#enable & PM1_STATUS_BITS;
    this.#sci.set(pm1 !== 0 || (this.#gpeStatus & this.#gpeEnable) !== 0);
    const waiting = (this.#enable & ~this.#status & Pm1.TIMER) !== 0;
    this.#deadlines.set(DEADLINE, waiting ? nextHalfTurn(this.#timerCheckedNs) : undefined);
  }
}

/** PM timer ticks since the VM's start. Seconds and the rest are taken apart to stay below 2^53. */
function ticks(nowNs: number): number {
  const seconds = Math.floor(nowNs / SECOND_NS);
  return seconds * PM_TIMER_HZ + Math.floor(((nowNs - seconds * SECOND_NS) * PM_TIMER_HZ) / SECOND_NS);
}

function halfTurns(nowNs: number): number {
  return Math.floor(ticks(nowNs) / 0x8000_0000);
}

function nextHalfTurn(nowNs: number): number {
  const tick = (halfTurns(nowNs) + 1) * 0x8000_0000;
  const seconds = Math.floor(tick / PM_TIMER_HZ);
  return seconds * SECOND_NS + Math.ceil(((tick - seconds * PM_TIMER_HZ) * SECOND_NS) / PM_TIMER_HZ);
}
