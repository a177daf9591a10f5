/**
 * Port 0xF4: a test guest ends the VM and names its exit code, `(value << 1) | 1`, as with QEMU's isa-debug-exit.
 * Only there when asked for (`--debug-exit`).
 */
import type { AccessWidth, PortDevice } from "../machine/device.js";

export class DebugExit implements PortDevice {
  readonly name = "debug-exit";
  readonly ports = [0xf4] as const;
  readonly #onExit: (code: number) => void;

  /** @param onExit gets the exit code, 8 bits as of a process */
  constructor(onExit: (code: number) => void) {
    this.#onExit = onExit;
  }

  read(): number {
    return 0;
  }

  write(_port: number, _width: AccessWidth, value: number): void {
    this.#onExit(((value << 1) | 1) & 0xff);
  }
}
