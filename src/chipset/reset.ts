/**
 * The ports by which software resets a PC, and those that it pokes in passing.
 *
 * 0xCF9 is the reset register of the FADT; the keyboard controller's pulse (0xFE to port 0x64) and port 0x92 bit 0 are
 * the older ways, which guests try when they distrust ACPI. There is no keyboard controller: 0x64 reads as all ones.
 * 0x80 (delay, POST codes) and 0x61 (NMI status, speaker) are answered so that they do not count as unhandled.
 */
import type { AccessWidth, PortDevice } from "../machine/device.js";

export const RESET_PORT = 0xcf9;
export const RESET_VALUE = 6;

/** Bit 2 of 0xCF9: reset now; bit 1 (hard) makes no difference here. */
const RESET_CPU = 4;
const KEYBOARD_PULSE_RESET = 0xfe;
/** Port 0x92: A20 on, as the memory system has no gate. */
const A20_ENABLED = 2;
/** Port 0x61: output of timer 2 high, no NMI reason. */
const TIMER_2_OUTPUT = 0x20;

export class ResetPorts implements PortDevice {
  readonly name = "reset";
  readonly ports = [0x61, 0x64, 0x80, 0x92, RESET_PORT] as const;
  readonly maxWidth = 1;
  readonly #onReset: () => void;

  constructor(onReset: () => void) {
    this.#onReset = onReset;
  }

  read(port: number, _width: AccessWidth): number {
    if (port === 0x61) return TIMER_2_OUTPUT;
    if (port === 0x92) return A20_ENABLED;
    return port === RESET_PORT ? 0 : 0xff;
  }

  write(port: number, _width: AccessWidth, value: number): void {
    const asked =
      (port === RESET_PORT && (value & RESET_CPU) !== 0) ||
      (port === 0x64 && (value & 0xff) === KEYBOARD_PULSE_RESET) ||
      (port === 0x92 && (value & 1) !== 0);
    if (asked) this.#onReset();
  }
}
