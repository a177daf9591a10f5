/**
 * The MC146818 real-time clock and CMOS RAM at ports 0x70/0x71 (Motorola MC146818A data sheet), with the century at
 * register 0x32 that the FADT announces.
 *
 * Nothing ticks: the time registers are computed from the virtual clock when they are read, event flags (update,
 * alarm, periodic) from the time since they were last looked at, and a deadline is armed only for an event whose
 * interrupt is enabled and whose flag is clear. Time stands still while SET or the divider reset holds it; a release of
 * the divider lets the first second pass after half a second, as Linux assumes when it sets the clock.
 */
import type { AccessWidth, Checkpointed, Clock, Deadlines, IrqLine, PortDevice } from "../machine/device.js";
import { type CivilTime, civil, epochSeconds, newCivilTime } from "./calendar.js";

const Cmos = {
  SECOND: 0,
  SECOND_ALARM: 1,
  MINUTE: 2,
  MINUTE_ALARM: 3,
  HOUR: 4,
  HOUR_ALARM: 5,
  WEEKDAY: 6,
  DAY: 7,
  MONTH: 8,
  YEAR: 9,
  A: 0xa,
  B: 0xb,
  C: 0xc,
  D: 0xd,
  CENTURY: 0x32,
} as const;

const A_UIP = 0x80;
const B = { SET: 0x80, PIE: 0x40, AIE: 0x20, UIE: 0x10, BINARY: 4, HOURS_24: 2 } as const;
const C = { IRQ: 0x80, PERIODIC: 0x40, ALARM: 0x20, UPDATE: 0x10 } as const;
const VALID_RAM_AND_TIME = 0x80;

const SECOND_NS = 1_000_000_000;
/** UIP is set this long before the registers change, so that who reads it clear has time to read them. */
const UIP_NS = 244_000;
const DEADLINE = "rtc";

export interface RtcState {
  readonly version: 1;
  readonly index: number;
  readonly ram: Uint8Array;
  /** Seconds since 1970 at `sinceNs`; while the clock stands still, its time is in the registers instead. */
  readonly epoch: number;
  readonly sinceNs: number;
  readonly flags: number;
  readonly checkedNs: number;
  readonly periodicFromNs: number;
}

export interface RtcOptions {
  readonly clock: Clock;
  readonly deadlines: Deadlines;
  readonly irq: IrqLine;
  /** Wall-clock time at virtual time 0, in whole seconds since 1970-01-01 UTC. */
  readonly wallClockSeconds: number;
}

export class Rtc implements PortDevice, Checkpointed<RtcState> {
  readonly name = "rtc";
  readonly ports = [0x70, 0x71] as const;
  readonly maxWidth = 1;
  readonly stateVersion = 1;
  readonly #clock: Clock;
  readonly #deadlines: Deadlines;
  readonly #irq: IrqLine;
  #index = 0;
  /** The registers and the RAM. Those of the time are brought up to date when they are read; C is computed. */
  readonly #ram = new Uint8Array(128);
  #epoch: number;
  #sinceNs = 0;
  #flags = 0;
  #checkedNs = 0;
  #periodicFromNs = 0;
  readonly #scratch: CivilTime = newCivilTime();

  constructor(o: RtcOptions) {
    this.#clock = o.clock;
    this.#deadlines = o.deadlines;
    this.#irq = o.irq;
    this.#epoch = Math.floor(o.wallClockSeconds);
    this.#ram[Cmos.A] = 0x26; // 32.768 kHz, 1024 Hz periodic rate
    this.#ram[Cmos.B] = B.HOURS_24;
    o.deadlines.register(DEADLINE, () => this.#settle());
  }

  read(port: number, _width: AccessWidth): number {
    if (port !== 0x71) return 0xff; // the index is write-only
    const i = this.#index;
    if (isTime(i)) {
      if (this.#running) this.#latch(this.#seconds(this.#clock.now()));
      return this.#ram[i]!;
    }
    switch (i) {
      case Cmos.A:
        return this.#ram[Cmos.A]! | (this.#updateInProgress() ? A_UIP : 0);
      case Cmos.C: {
        this.#settle();
        const flags = this.#flags | (this.#irqFlag() ? C.IRQ : 0);
        this.#flags = 0;
        this.#settle();
        return flags;
      }
      case Cmos.D:
        return VALID_RAM_AND_TIME;
      default:
        return this.#ram[i]!;
    }
  }

  write(port: number, _width: AccessWidth, value: number): void {
    const byte = value & 0xff;
    if (port !== 0x71) {
      this.#index = byte & 0x7f; // bit 7 masks NMI on a PC; nothing here raises one
      return;
    }
    const i = this.#index;
    if (i === Cmos.C || i === Cmos.D) return;
    this.#settle();
    if (isTime(i)) this.#writeTime(i, byte);
    else if (i === Cmos.A) this.#writeControl(byte & 0x7f, this.#ram[Cmos.B]!);
    else if (i === Cmos.B) this.#writeControl(this.#ram[Cmos.A]!, (byte & B.SET) !== 0 ? byte & ~B.UIE : byte);
    else this.#ram[i] = byte;
    this.#settle();
  }

  save(): RtcState {
    return {
      version: 1,
      index: this.#index,
      ram: this.#ram.slice(),
      epoch: this.#epoch,
      sinceNs: this.#sinceNs,
      flags: this.#flags,
      checkedNs: this.#checkedNs,
      periodicFromNs: this.#periodicFromNs,
    };
  }

  restore(s: RtcState): void {
    this.#index = s.index;
    this.#ram.set(s.ram);
    this.#epoch = s.epoch;
    this.#sinceNs = s.sinceNs;
    this.#flags = s.flags;
    this.#checkedNs = s.checkedNs;
    this.#periodicFromNs = s.periodicFromNs;
    this.#drive();
  }

  // --- Time ------------------------------------------------------------------------------------------------------

  get #running(): boolean {
    return (this.#ram[Cmos.B]! & B.SET) === 0 && (this.#ram[Cmos.A]! & 0x60) !== 0x60;
  }

  /** Seconds since 1970, while the clock runs. */
  #seconds(now: number): number {
    return this.#epoch + Math.floor((now - this.#sinceNs) / SECOND_NS);
  }

  #updateInProgress(): boolean {
    if (!this.#running) return false;
    const phase = (this.#clock.now() - this.#sinceNs) % SECOND_NS;
    return (phase < 0 ? phase + SECOND_NS : phase) >= SECOND_NS - UIP_NS;
  }

  /** Writes the time into its registers, from where it is read, or decoded again when the clock starts. */
  #latch(seconds: number): void {
    const t = this.#scratch;
    civil(seconds, t);
    const ram = this.#ram;
    ram[Cmos.SECOND] = this.#encode(t.second);
    ram[Cmos.MINUTE] = this.#encode(t.minute);
    ram[Cmos.HOUR] = this.#encodeHour(t.hour);
    ram[Cmos.WEEKDAY] = this.#encode(t.weekday);
    ram[Cmos.DAY] = this.#encode(t.day);
    ram[Cmos.MONTH] = this.#encode(t.month);
    ram[Cmos.YEAR] = this.#encode(t.year % 100);
    ram[Cmos.CENTURY] = this.#encode(Math.floor(t.year / 100) % 100);
  }

  /** The time in the registers. Fields out of range carry over; the weekday follows from the date. */
  #latched(): number {
    const t = this.#scratch;
    const ram = this.#ram;
    t.second = this.#decode(ram[Cmos.SECOND]!);
    t.minute = this.#decode(ram[Cmos.MINUTE]!);
    t.hour = this.#decodeHour(ram[Cmos.HOUR]!);
    t.day = this.#decode(ram[Cmos.DAY]!);
    t.month = this.#decode(ram[Cmos.MONTH]!);
    t.year = this.#decode(ram[Cmos.CENTURY]!) * 100 + this.#decode(ram[Cmos.YEAR]!);
    return epochSeconds(t);
  }

  /** While the clock stands still the register just takes the byte; while it runs, the phase within the second stays. */
  #writeTime(register: number, byte: number): void {
    if (!this.#running) {
      this.#ram[register] = byte;
      return;
    }
    const before = this.#seconds(this.#clock.now());
    this.#latch(before);
    this.#ram[register] = byte;
    this.#epoch += this.#latched() - before;
  }

  /** Registers A and B: the clock may stop or start with this, and the periodic rate change. */
  #writeControl(a: number, b: number): void {
    const now = this.#clock.now();
    const wasRunning = this.#running;
    if (wasRunning) this.#latch(this.#seconds(now));
    const dividerReleased = (this.#ram[Cmos.A]! & 0x60) === 0x60 && (a & 0x60) !== 0x60;
    if ((a & 0xf) !== (this.#ram[Cmos.A]! & 0xf)) this.#periodicFromNs = now;
    this.#ram[Cmos.A] = a;
    this.#ram[Cmos.B] = b;
    if (wasRunning || !this.#running) return;
    this.#epoch = this.#latched();
    this.#sinceNs = dividerReleased ? now - SECOND_NS / 2 : now;
  }

  #encode(value: number): number {
    return (this.#ram[Cmos.B]! & B.BINARY) !== 0 ? value : (Math.floor(value / 10) << 4) | (value % 10);
  }
  #decode(byte: number): number {
    return (this.#ram[Cmos.B]! & B.BINARY) !== 0 ? byte : (byte >> 4) * 10 + (byte & 0xf);
  }
  #encodeHour(hour: number): number {
    if ((this.#ram[Cmos.B]! & B.HOURS_24) !== 0) return this.#encode(hour);
    return this.#encode(hour % 12 === 0 ? 12 : hour % 12) | (hour >= 12 ? 0x80 : 0);
  }
  #decodeHour(byte: number): number {
    if ((this.#ram[Cmos.B]! & B.HOURS_24) !== 0) return this.#decode(byte);
    return (this.#decode(byte & 0x7f) % 12) + ((byte & 0x80) !== 0 ? 12 : 0);
  }

  // --- Events ----------------------------------------------------------------------------------------------------

  /** Raises the flags of what happened since the last look, drives the line and arms the next deadline. */
  #settle(): void {
    const now = this.#clock.now();
    const from = this.#checkedNs;
    if (now > from) {
      if (this.#nextPeriodic(from) <= now) this.#flags |= C.PERIODIC;
      if (this.#nextUpdate(from) <= now) this.#flags |= C.UPDATE;
      if ((this.#flags & C.ALARM) === 0 && this.#nextAlarm(from) <= now) this.#flags |= C.ALARM;
      this.#checkedNs = now;
    }
    this.#drive();
  }

  #drive(): void {
    this.#irq.set(this.#irqFlag());
    const waiting = this.#ram[Cmos.B]! & ~this.#flags;
    const from = this.#checkedNs;
    let next = Number.POSITIVE_INFINITY;
    if ((waiting & B.PIE) !== 0) next = Math.min(next, this.#nextPeriodic(from));
    if ((waiting & B.UIE) !== 0) next = Math.min(next, this.#nextUpdate(from));
    if ((waiting & B.AIE) !== 0) next = Math.min(next, this.#nextAlarm(from));
    this.#deadlines.set(DEADLINE, next === Number.POSITIVE_INFINITY ? undefined : next);
  }

  /** The enable bits of B and the flags of C have the same places. */
  #irqFlag(): boolean {
    return (this.#flags & this.#ram[Cmos.B]! & (B.PIE | B.AIE | B.UIE)) !== 0;
  }

  /** First periodic event after `from`. Rates 1 and 2 repeat 8 and 9 (data sheet, "Periodic Interrupt Rate"). */
  #nextPeriodic(from: number): number {
    const rate = this.#ram[Cmos.A]! & 0xf;
    if (rate === 0 || (this.#ram[Cmos.A]! & 0x60) === 0x60) return Number.POSITIVE_INFINITY;
    const period = (SECOND_NS * (1 << ((rate < 3 ? rate + 7 : rate) - 1))) / 32_768;
    const done = Math.floor((from - this.#periodicFromNs) / period);
    const next = Math.ceil(this.#periodicFromNs + (done + 1) * period);
    return next > from ? next : Math.ceil(this.#periodicFromNs + (done + 2) * period);
  }

  #nextUpdate(from: number): number {
    if (!this.#running) return Number.POSITIVE_INFINITY;
    return this.#sinceNs + (Math.floor((from - this.#sinceNs) / SECOND_NS) + 1) * SECOND_NS;
  }

  #nextAlarm(from: number): number {
    if (!this.#running) return Number.POSITIVE_INFINITY;
    const ahead = this.#secondsToAlarm(this.#seconds(from));
    return ahead < 0 ? Number.POSITIVE_INFINITY : this.#nextUpdate(from) + (ahead - 1) * SECOND_NS;
  }

  /** Seconds from `seconds` to the next alarm, 1..86400, or -1 if the alarm names no time of day. */
  #secondsToAlarm(seconds: number): number {
    const second = this.#alarm(Cmos.SECOND_ALARM, 60);
    const minute = this.#alarm(Cmos.MINUTE_ALARM, 60);
    const hour = this.#alarm(Cmos.HOUR_ALARM, 24);
    if (second === NO_TIME || minute === NO_TIME || hour === NO_TIME) return -1;
    const start = (((seconds + 1) % 86_400) + 86_400) % 86_400;
    // Walk hours, then minutes: at most 25 + 120 steps. The first minute may be partly over.
    for (let passed = 0; passed <= 86_400; ) {
      const at = (start + passed) % 86_400;
      if (hour !== ANY && Math.floor(at / 3600) !== hour) {
        passed += 3600 - (at % 3600);
      } else if (minute !== ANY && Math.floor(at / 60) % 60 !== minute) {
        passed += 60 - (at % 60);
      } else {
        const wait = second === ANY ? 0 : second - (at % 60);
        if (wait >= 0) return passed + wait + 1;
        passed += 60 - (at % 60);
      }
    }
    return -1;
  }

  /** An alarm field: a value, ANY for the "don't care" codes 0xC0..0xFF, NO_TIME for nonsense. */
  #alarm(register: number, limit: number): number {
    const byte = this.#ram[register]!;
    if (byte >= 0xc0) return ANY;
    const value = register === Cmos.HOUR_ALARM ? this.#decodeHour(byte) : this.#decode(byte);
    return value < limit ? value : NO_TIME;
  }
}

const ANY = -1;
const NO_TIME = -2;

function isTime(register: number): boolean {
  return register === Cmos.CENTURY || (register <= Cmos.YEAR && ((register & 1) === 0 || register >= Cmos.DAY));
}
