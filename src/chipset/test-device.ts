/**
 * The device of QEMU's machine for tests (pc-testdev), which whole-machine CPU tests use: a port that remembers, the inputs of the
 * IO-APIC by hand, and memory that is no RAM. There with `--debug-exit` only.
 */
import type { AccessWidth, Checkpointed, IrqLine, MmioDevice, PortDevice } from "../machine/device.js";

const STORE = 0xe0;
const FLUSH = 0xe4;
const LINES = 0x2000;
const LINE_COUNT = 24;
const MEMORY_BASE = 0xff00_0000;
const MEMORY_BYTES = 0x1_0000;

export interface TestDeviceState {
  readonly version: 1;
  readonly stored: number;
  readonly memory: Uint8Array;
}

export class TestDevice implements PortDevice, Checkpointed<TestDeviceState> {
  readonly name = "test-device";
  readonly ports = [
    ...Array.from({ length: 8 }, (_, i) => STORE + i),
    ...Array.from({ length: LINE_COUNT }, (_, i) => LINES + i),
  ];
  readonly stateVersion = 1;
  readonly #line: (gsi: number) => IrqLine;
  readonly #memory = new Uint8Array(MEMORY_BYTES);
  #stored = 0;

  constructor(line: (gsi: number) => IrqLine) {
    this.#line = line;
  }
  read(at: number, width: AccessWidth): number {
    if (at >= FLUSH) return 0;
    const mask = width === 4 ? 0xffff_ffff : 2 ** (8 * width) - 1;
    return ((this.#stored >>> ((at - STORE) * 8)) & mask) >>> 0;
  }
  write(at: number, width: AccessWidth, value: number): void {
    if (at >= LINES) {
      this.#line(at - LINES).set(value !== 0);
      return;
    }
    // a page whose mappings are to be forgotten: there are none
    if (at >= FLUSH) return;
    const shift = (at - STORE) * 8;
    const mask = (width === 4 ? 0xffff_ffff : 2 ** (8 * width) - 1) << shift;
    this.#stored = (this.#stored & ~mask) | ((value << shift) & mask);
  }
  /** Its memory, for the MMIO bus. */
  get memory(): MmioDevice {
    return {
      name: "test-memory",
      base: MEMORY_BASE,
      size: MEMORY_BYTES,
      read: (offset, width) => {
        let value = 0;
        for (let i = 0; i < width; i++) value |= this.#memory[offset + i]! << (8 * i);
        return value >>> 0;
      },
      write: (offset, width, value) => {
        for (let i = 0; i < width; i++) this.#memory[offset + i] = value >>> (8 * i);
      },
    };
  }
  save(): TestDeviceState {
    return { version: 1, stored: this.#stored, memory: this.#memory.slice() };
  }
  restore(s: TestDeviceState): void {
    this.#stored = s.stored;
    this.#memory.set(s.memory);
  }
}
