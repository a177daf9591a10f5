/**
 * The fully emulated PC around the processors: makes the devices, puts them on the buses, wires their interrupts.
 *
 * It belongs to one thread (that of virtual processor 0); local APICs belong to their processors and are not here.
 * No 8259, no PIT, no keyboard controller, no PCI: see the reference, "Hardware-reduced or not".
 */
import type { MmioBus, PortBus } from "../machine/bus.js";
import type { Checkpointed, Clock, Deadlines } from "../machine/device.js";
import type { InterruptRouter } from "../machine/interrupt-router.js";
import { DebugExit } from "./debug-exit.js";
import { FwCfg, type FwCfgState } from "./fw-cfg.js";
import { IoApic, type IoApicState } from "./io-apic.js";
import { type PmState, PowerManagement, SCI_IRQ } from "./pm.js";
import { ResetPorts } from "./reset.js";
import { Rtc, type RtcState } from "./rtc.js";
import { TestDevice, type TestDeviceState } from "./test-device.js";
import { Uart, type UartState } from "./uart.js";

/** COM1..COM4. On a PC 3 and 4 share the lines of 1 and 2; the DSDT gives them lines of their own. */
export const SERIAL_PORTS = [
  { base: 0x3f8, irq: 4 },
  { base: 0x2f8, irq: 3 },
  { base: 0x3e8, irq: 5 },
  { base: 0x2e8, irq: 7 },
] as const;
export const RTC_IRQ = 8;

/** Where a serial port's characters go. */
export interface SerialSink {
  readonly onOutput: (byte: number) => void;
  readonly onInputSpace?: () => void;
  readonly holdInput?: boolean;
}

export interface ChipsetOptions {
  readonly ports: PortBus;
  readonly mmio: MmioBus;
  readonly clock: Clock;
  readonly deadlines: Deadlines;
  readonly router: InterruptRouter;
  /** Wall-clock time at virtual time 0, in seconds since 1970-01-01 UTC. */
  readonly wallClockSeconds: number;
  readonly serial: readonly [SerialSink, SerialSink, SerialSink, SerialSink];
  readonly onPowerOff: () => void;
  readonly onReset: () => void;
  /** Present with `--debug-exit`. */
  readonly onDebugExit?: (code: number) => void;
  readonly ramBytes: number;
  readonly processors: number;
}

export interface ChipsetState {
  readonly version: 1;
  readonly ioApic: IoApicState;
  readonly serial: readonly UartState[];
  readonly rtc: RtcState;
  readonly pm: PmState;
  /** Of a machine for tests. */
  readonly fwCfg?: FwCfgState;
  readonly testDevice?: TestDeviceState;
}

export interface Chipset extends Checkpointed<ChipsetState> {
  readonly ioApic: IoApic;
  readonly serial: readonly Uart[];
  readonly rtc: Rtc;
  readonly pm: PowerManagement;
  /** What a machine reset does to the devices; the real-time clock runs on. */
  reset(): void;
}

export function createChipset(o: ChipsetOptions): Chipset {
  const { ports, clock, deadlines } = o;
  const ioApic = new IoApic(o.router);
  const serial = SERIAL_PORTS.map(
    ({ base, irq }, i) => new Uart({ name: `com${i + 1}`, base, irq: ioApic.line(irq), ...o.serial[i]! }),
  );
  const rtc = new Rtc({ clock, deadlines, irq: ioApic.line(RTC_IRQ), wallClockSeconds: o.wallClockSeconds });
  const pm = new PowerManagement({ clock, deadlines, sci: ioApic.line(SCI_IRQ), onPowerOff: o.onPowerOff });
  o.mmio.attach(ioApic);
  for (const uart of serial) ports.attach(uart);
  ports.attach(rtc);
  ports.attach(pm);
  ports.attach(new ResetPorts(o.onReset));
  const fwCfg = o.onDebugExit === undefined ? undefined : new FwCfg(o);
  if (fwCfg !== undefined) ports.attach(fwCfg);
  const testDevice = o.onDebugExit === undefined ? undefined : new TestDevice((gsi) => ioApic.line(gsi));
  if (testDevice !== undefined) {
    ports.attach(testDevice);
    o.mmio.attach(testDevice.memory);
  }
  if (o.onDebugExit !== undefined) ports.attach(new DebugExit(o.onDebugExit));

  return {
    stateVersion: 1,
    ioApic,
    serial,
    rtc,
    pm,
    reset() {
      ioApic.reset();
      for (const uart of serial) uart.reset();
      pm.reset();
    },
    save: () => ({
      version: 1,
      ioApic: ioApic.save(),
      serial: serial.map((uart) => uart.save()),
      rtc: rtc.save(),
      pm: pm.save(),
      ...(fwCfg === undefined ? {} : { fwCfg: fwCfg.save() }),
      ...(testDevice === undefined ? {} : { testDevice: testDevice.save() }),
    }),
    restore(state) {
      ioApic.restore(state.ioApic); // first: it holds the levels of the lines that the others drive
      serial.forEach((uart, i) => {
        uart.restore(state.serial[i]!);
      });
      rtc.restore(state.rtc);
      pm.restore(state.pm);
      if (state.fwCfg !== undefined) fwCfg?.restore(state.fwCfg);
      if (state.testDevice !== undefined) testDevice?.restore(state.testDevice);
    },
  };
}
