/**
 * A 16550A serial port (National Semiconductor PC16550D data sheet), without a baud rate: a character is on the wire
 * the moment it is written, and comes in the moment the guest has room for it.
 *
 * What Linux's 8250 driver relies on, and this keeps exactly: loopback for its probe; THRE interrupts when IER bit 1
 * rises while the holding register is empty (else output stalls when the kernel goes from polling to interrupts); a
 * fresh edge for every character written, as the IO-APIC input is edge-triggered; the interrupt pin gated by OUT2.
 *
 * Input waits in a bounded queue on the host side. It flows while the guest raises RTS or takes receive interrupts, so
 * that what is typed before the guest opens the port is not thrown away by its FIFO reset. No character is ever lost
 * on the way out. Left out: parity and framing errors, break.
 */
import type { AccessWidth, Checkpointed, IrqLine, PortDevice } from "../machine/device.js";

/** Registers by offset from the base port. Offsets 0 and 1 are the divisor while LCR.DLAB is set. */
const Register = { DATA: 0, IER: 1, IIR_FCR: 2, LCR: 3, MCR: 4, LSR: 5, MSR: 6, SCR: 7 } as const;
const Ier = { RECEIVED: 1, THR_EMPTY: 2, LINE_STATUS: 4, MODEM: 8 } as const;
const Iir = { NONE: 1, MODEM: 0, THR_EMPTY: 2, RECEIVED: 4, LINE_STATUS: 6, TIME_OUT: 0xc, FIFOS: 0xc0 } as const;
const Fcr = { ENABLE: 1, CLEAR_RECEIVE: 2 } as const;
const LCR_DLAB = 0x80;
const Mcr = { DTR: 1, RTS: 2, OUT1: 4, OUT2: 8, LOOP: 0x10, ALL: 0x1f } as const;
const Lsr = { DATA_READY: 1, OVERRUN: 2, THR_EMPTY: 0x20, TRANSMITTER_EMPTY: 0x40 } as const;
const Msr = { D_CTS: 1, D_DSR: 2, T_RI: 4, D_DCD: 8, CTS: 0x10, DSR: 0x20, RI: 0x40, DCD: 0x80 } as const;

const FIFO_DEPTH = 16;
const TRIGGER_LEVELS = [1, 4, 8, 14] as const;
/** Host-side input queue, a power of two. */
export const INPUT_QUEUE_BYTES = 4096;

export interface UartOptions {
  readonly name: string;
  readonly base: number;
  readonly irq: IrqLine;
  /** One character from the guest. It must be taken. */
  readonly onOutput: (byte: number) => void;
  /** The input queue has room again, after `receive` took less than it was given. */
  readonly onInputSpace?: () => void;
  /** Whether input waits for RTS or receive interrupts (default). Off for guests that poll without a modem control write. */
  readonly holdInput?: boolean;
}

export interface UartState {
  readonly version: 1;
  readonly registers: { ier: number; lcr: number; mcr: number; msr: number; scr: number; fcr: number; divisor: number };
  readonly overrun: boolean;
  readonly thrEmptyPending: boolean;
  readonly fifo: Uint8Array;
  readonly lastReceived: number;
  readonly input: Uint8Array;
  readonly refused: boolean;
}

export class Uart implements PortDevice, Checkpointed<UartState> {
  readonly name: string;
  readonly ports: readonly number[];
  readonly maxWidth = 1;
  readonly stateVersion = 1;
  readonly #base: number;
  readonly #irq: IrqLine;
  readonly #onOutput: (byte: number) => void;
  readonly #onInputSpace: () => void;
  readonly #holdInput: boolean;
  #ier = 0;
  #lcr = 0;
  #mcr = 0;
  #msr: number = Msr.CTS | Msr.DSR | Msr.DCD;
  #scr = 0;
  #fcr = 0;
  #divisor = 12; // 9600 baud
  #overrun = false;
  #thrEmptyPending = false;
  readonly #fifo = new Uint8Array(FIFO_DEPTH);
  #fifoHead = 0;
  #fifoCount = 0;
  #lastReceived = 0;
  readonly #input = new Uint8Array(INPUT_QUEUE_BYTES);
  #inputHead = 0;
  #inputCount = 0;
  /** The host was refused some input and waits to be told of room. */
  #refused = false;

  constructor(o: UartOptions) {
    this.name = o.name;
    this.#base = o.base;
    this.ports = Array.from({ length: 8 }, (_, i) => o.base + i);
    this.#irq = o.irq;
    this.#onOutput = o.onOutput;
    this.#onInputSpace = o.onInputSpace ?? (() => {});
    this.#holdInput = o.holdInput ?? true;
  }

  /** Input from the host. @returns how many of the bytes were taken; for the rest, wait for `onInputSpace` */
  receive(bytes: Uint8Array): number {
    const taken = Math.min(bytes.length, INPUT_QUEUE_BYTES - this.#inputCount);
    for (let i = 0; i < taken; i++)
      this.#input[(this.#inputHead + this.#inputCount + i) % INPUT_QUEUE_BYTES] = bytes[i]!;
    this.#inputCount += taken;
    if (taken < bytes.length) this.#refused = true;
    this.#fill();
    this.#update();
    return taken;
  }

  read(port: number, _width: AccessWidth): number {
    switch ((port - this.#base) & 7) {
      case Register.DATA:
        return this.#dlab ? this.#divisor & 0xff : this.#readData();
      case Register.IER:
        return this.#dlab ? this.#divisor >>> 8 : this.#ier;
      case Register.IIR_FCR:
        return this.#readIir();
      case Register.LCR:
        return this.#lcr;
      case Register.MCR:
        return this.#mcr;
      case Register.LSR: {
        const lsr = this.#lsr();
        this.#overrun = false;
        this.#update();
        return lsr;
      }
      case Register.MSR: {
        const msr = this.#msr;
        this.#msr &= 0xf0;
        this.#update();
        return msr;
      }
      default:
        return this.#scr;
    }
  }

  write(port: number, _width: AccessWidth, value: number): void {
    const byte = value & 0xff;
    switch ((port - this.#base) & 7) {
      case Register.DATA:
        if (this.#dlab) this.#divisor = (this.#divisor & 0xff00) | byte;
        else this.#transmit(byte);
        return;
      case Register.IER:
        if (this.#dlab) this.#divisor = (this.#divisor & 0xff) | (byte << 8);
        else this.#writeIer(byte & 0xf);
        return;
      case Register.IIR_FCR:
        this.#writeFcr(byte);
        return;
      case Register.LCR:
        this.#lcr = byte;
        return;
      case Register.MCR:
        this.#mcr = byte & Mcr.ALL;
        this.#updateModem();
        this.#fill();
        this.#update();
        return;
      case Register.SCR:
        this.#scr = byte;
        return;
      // LSR and MSR are read-only.
    }
  }

  reset(): void {
    this.#ier = 0;
    this.#lcr = 0;
    this.#mcr = 0;
    this.#msr = Msr.CTS | Msr.DSR | Msr.DCD;
    this.#scr = 0;
    this.#fcr = 0;
    this.#divisor = 12;
    this.#overrun = false;
    this.#thrEmptyPending = false;
    this.#fifoCount = 0;
    this.#update();
  }

  save(): UartState {
    const fifo = Uint8Array.from({ length: this.#fifoCount }, (_, i) => this.#fifo[(this.#fifoHead + i) % FIFO_DEPTH]!);
    const input = new Uint8Array(this.#inputCount);
    for (let i = 0; i < input.length; i++) input[i] = this.#input[(this.#inputHead + i) % INPUT_QUEUE_BYTES]!;
    return {
      version: 1,
      registers: {
        ier: this.#ier,
        lcr: this.#lcr,
        mcr: this.#mcr,
        msr: this.#msr,
        scr: this.#scr,
        fcr: this.#fcr,
        divisor: this.#divisor,
      },
      overrun: this.#overrun,
      thrEmptyPending: this.#thrEmptyPending,
      fifo,
      lastReceived: this.#lastReceived,
      input,
      refused: this.#refused,
    };
  }

  /** The interrupt line's level is part of the IO-APIC's state and must be restored there first: it is driven again here. */
  restore(s: UartState): void {
    this.#ier = s.registers.ier;
    this.#lcr = s.registers.lcr;
    this.#mcr = s.registers.mcr;
    this.#msr = s.registers.msr;
    this.#scr = s.registers.scr;
    this.#fcr = s.registers.fcr;
    this.#divisor = s.registers.divisor;
    this.#overrun = s.overrun;
    this.#thrEmptyPending = s.thrEmptyPending;
    this.#fifo.set(s.fifo);
    this.#fifoHead = 0;
    this.#fifoCount = s.fifo.length;
    this.#lastReceived = s.lastReceived;
    this.#input.set(s.input);
    this.#inputHead = 0;
    this.#inputCount = s.input.length;
    this.#refused = s.refused;
    this.#update();
  }

  get #dlab(): boolean {
    return (this.#lcr & LCR_DLAB) !== 0;
  }
  get #loop(): boolean {
    return (this.#mcr & Mcr.LOOP) !== 0;
  }
  get #depth(): number {
    return (this.#fcr & Fcr.ENABLE) !== 0 ? FIFO_DEPTH : 1;
  }

  #lsr(): number {
    return (
      Lsr.THR_EMPTY |
      Lsr.TRANSMITTER_EMPTY |
      (this.#fifoCount > 0 ? Lsr.DATA_READY : 0) |
      (this.#overrun ? Lsr.OVERRUN : 0)
    );
  }

  #readData(): number {
    if (this.#fifoCount > 0) {
      this.#lastReceived = this.#fifo[this.#fifoHead]!;
      this.#fifoHead = (this.#fifoHead + 1) % FIFO_DEPTH;
      this.#fifoCount--;
      this.#fill();
      this.#update();
    }
    return this.#lastReceived;
  }

  #readIir(): number {
    const source = this.#source();
    if (source === Iir.THR_EMPTY) {
      this.#thrEmptyPending = false; // reading it as the source is what clears it
      this.#update();
    }
    return source | ((this.#fcr & Fcr.ENABLE) !== 0 ? Iir.FIFOS : 0);
  }

  /** The highest-priority interrupt source that is enabled (data sheet, "Interrupt Identification Register"). */
  #source(): number {
    if ((this.#ier & Ier.LINE_STATUS) !== 0 && this.#overrun) return Iir.LINE_STATUS;
    if ((this.#ier & Ier.RECEIVED) !== 0 && this.#fifoCount > 0) {
      const trigger = (this.#fcr & Fcr.ENABLE) !== 0 ? TRIGGER_LEVELS[(this.#fcr >> 6) as 0 | 1 | 2 | 3] : 1;
      // Below the trigger level the data is announced by the time-out of four character times. What is in the FIFO is
      // all there is, as it takes whatever the host has: nothing can come in that time, so the time-out is at once.
      return this.#fifoCount >= trigger ? Iir.RECEIVED : Iir.TIME_OUT;
    }
    if ((this.#ier & Ier.THR_EMPTY) !== 0 && this.#thrEmptyPending) return Iir.THR_EMPTY;
    if ((this.#ier & Ier.MODEM) !== 0 && (this.#msr & 0xf) !== 0) return Iir.MODEM;
    return Iir.NONE;
  }

  /** Drives the interrupt pin. In loopback mode OUT2 is off, and so is the pin. */
  #update(): void {
    const enabled = (this.#mcr & (Mcr.OUT2 | Mcr.LOOP)) === Mcr.OUT2;
    this.#irq.set(enabled && this.#source() !== Iir.NONE);
  }

  #transmit(byte: number): void {
    this.#thrEmptyPending = false;
    this.#update(); // the pin falls here, so that it rises again below
    if (this.#loop) this.#receiveOne(byte);
    else this.#onOutput(byte);
    this.#thrEmptyPending = true;
    this.#update();
  }

  #writeIer(ier: number): void {
    if ((ier & ~this.#ier & Ier.THR_EMPTY) !== 0) this.#thrEmptyPending = true; // the holding register is always empty
    this.#ier = ier;
    this.#fill();
    this.#update();
  }

  #writeFcr(value: number): void {
    const toggled = ((value ^ this.#fcr) & Fcr.ENABLE) !== 0;
    if (toggled || ((value & Fcr.ENABLE) !== 0 && (value & Fcr.CLEAR_RECEIVE) !== 0)) this.#fifoCount = 0;
    this.#fcr = (value & Fcr.ENABLE) !== 0 ? value & 0xc1 : 0;
    this.#fill();
    this.#update();
  }

  #receiveOne(byte: number): void {
    if (this.#fifoCount >= this.#depth) {
      this.#overrun = true;
      return;
    }
    this.#fifo[(this.#fifoHead + this.#fifoCount) % FIFO_DEPTH] = byte;
    this.#fifoCount++;
  }

  /** Moves input from the host's queue into the FIFO as far as there is room. */
  #fill(): void {
    if (this.#inputCount === 0 || this.#loop) return;
    if (this.#holdInput && (this.#mcr & Mcr.RTS) === 0 && (this.#ier & Ier.RECEIVED) === 0) return;
    while (this.#inputCount > 0 && this.#fifoCount < this.#depth) {
      this.#receiveOne(this.#input[this.#inputHead]!);
      this.#inputHead = (this.#inputHead + 1) % INPUT_QUEUE_BYTES;
      this.#inputCount--;
    }
    if (this.#refused && this.#inputCount <= INPUT_QUEUE_BYTES / 2) {
      this.#refused = false;
      this.#onInputSpace();
    }
  }

  /** Modem inputs: a connected peer, or in loopback the own outputs. Changes set the delta bits. */
  #updateModem(): void {
    const m = this.#mcr;
    const now = this.#loop
      ? ((m & Mcr.RTS) !== 0 ? Msr.CTS : 0) |
        ((m & Mcr.DTR) !== 0 ? Msr.DSR : 0) |
        ((m & Mcr.OUT1) !== 0 ? Msr.RI : 0) |
        ((m & Mcr.OUT2) !== 0 ? Msr.DCD : 0)
      : Msr.CTS | Msr.DSR | Msr.DCD;
    const changed = (this.#msr ^ now) & 0xf0;
    let delta = this.#msr & 0xf;
    if ((changed & Msr.CTS) !== 0) delta |= Msr.D_CTS;
    if ((changed & Msr.DSR) !== 0) delta |= Msr.D_DSR;
    if ((changed & Msr.DCD) !== 0) delta |= Msr.D_DCD;
    if ((changed & Msr.RI) !== 0 && (now & Msr.RI) === 0) delta |= Msr.T_RI; // trailing edge only
    this.#msr = now | delta;
  }
}
