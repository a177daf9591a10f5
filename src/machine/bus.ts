/**
 * The port bus and the MMIO bus: which device answers an address.
 *
 * An access that nobody answers reads as all ones and a write to it is lost, as on a PC (no master abort is
 * signalled). Linux relies on it: it finds that there is no 8259 because its mask register does not hold a value.
 * Nothing here allocates per access, and no address or width can make it throw.
 */
import type { AccessWidth, MmioDevice, PortDevice } from "./device.js";
import { invariant } from "./guest-violation.js";

/** All ones of a width in bytes; index 3 is never used. */
const ONES = [0, 0xff, 0xffff, 0xffff_ff, 0xffff_ffff] as const;

/** How often a bus was used; `unhandled` is what a porter looks at first when a guest hangs in a probe. */
export interface BusCounters {
  reads: number;
  writes: number;
  unhandledReads: number;
  unhandledWrites: number;
}

const newCounters = (): BusCounters => ({ reads: 0, writes: 0, unhandledReads: 0, unhandledWrites: 0 });

/** The 64 Ki ports of the x86 I/O space. */
export class PortBus {
  readonly counters = newCounters();
  /** Per port: index into `#devices`, whose first is nobody. */
  readonly #owner = new Uint8Array(0x1_0000);
  readonly #devices: (PortDevice | undefined)[] = [undefined];

  attach(device: PortDevice): void {
    const index = this.#devices.push(device) - 1;
    invariant(index <= 0xff, "more than 255 port devices");
    for (const port of device.ports) {
      invariant(port >= 0 && port <= 0xffff && this.#owner[port] === 0, `port ${port.toString(16)} taken twice`);
      this.#owner[port] = index;
    }
  }

  /** The device that answers a port, if any. */
  find(port: number): PortDevice | undefined {
    return this.#devices[this.#owner[port & 0xffff]!];
  }

  read(port: number, width: AccessWidth): number {
    const p = port & 0xffff;
    this.counters.reads++;
    const device = this.#devices[this.#owner[p]!];
    if (device === undefined) {
      this.counters.unhandledReads++;
      return ONES[width];
    }
    const step = device.maxWidth ?? 4;
    if (width <= step) return (device.read(p, width) & ONES[width]) >>> 0;
    let value = 0;
    for (let at = 0; at < width; at += step) value |= this.#readPart((p + at) & 0xffff, step) << (at * 8);
    return value >>> 0;
  }

  write(port: number, width: AccessWidth, value: number): void {
    const p = port & 0xffff;
    this.counters.writes++;
    const device = this.#devices[this.#owner[p]!];
    if (device === undefined) {
      this.counters.unhandledWrites++;
      return;
    }
    const step = device.maxWidth ?? 4;
    if (width <= step) {
      device.write(p, width, (value & ONES[width]) >>> 0);
      return;
    }
    for (let at = 0; at < width; at += step) {
      const part = (p + at) & 0xffff;
      this.#devices[this.#owner[part]!]?.write(part, step, ((value >>> (at * 8)) & ONES[step]) >>> 0);
    }
  }

  /** One part of a split access: the next port may belong to another device, or to none. */
  #readPart(port: number, width: AccessWidth): number {
    const device = this.#devices[this.#owner[port]!];
    return device === undefined ? ONES[width] : device.read(port, width) & ONES[width];
  }
}

/** Devices in the guest physical address space. There are few, so a lookup walks them, the last one hit first. */
export class MmioBus {
  readonly counters = newCounters();
  /** High half of the last 8-byte read; the low half is its result. */
  readHigh = 0;
  readonly #devices: MmioDevice[] = [];
  #last: MmioDevice | undefined;

  attach(device: MmioDevice): void {
    const end = device.base + device.size;
    invariant(device.base % 0x1000 === 0 && device.size % 0x1000 === 0, `${device.name} is not page-aligned`);
    for (const d of this.#devices) {
      invariant(end <= d.base || d.base + d.size <= device.base, `${device.name} overlaps ${d.name}`);
    }
    this.#devices.push(device);
  }

  /** @param gpa guest physical address in bytes, below 2^52 */
  find(gpa: number): MmioDevice | undefined {
    const last = this.#last;
    if (last !== undefined && gpa >= last.base && gpa < last.base + last.size) return last;
    for (let i = 0; i < this.#devices.length; i++) {
      const device = this.#devices[i]!;
      if (gpa >= device.base && gpa < device.base + device.size) return (this.#last = device);
    }
    return undefined;
  }

  read(gpa: number, width: AccessWidth): number {
    this.counters.reads++;
    const device = this.find(gpa);
    if (device === undefined) {
      this.counters.unhandledReads++;
      return ONES[width];
    }
    const offset = gpa - device.base;
    if (offset + width <= device.size) return (device.read(offset, width) & ONES[width]) >>> 0;
    // Runs over the end of the device: byte by byte, each to whoever is there.
    let value = 0;
    for (let i = 0; i < width; i++) value |= this.read(gpa + i, 1) << (i * 8);
    return value >>> 0;
  }

  write(gpa: number, width: AccessWidth, value: number): void {
    this.counters.writes++;
    const device = this.find(gpa);
    if (device === undefined) {
      this.counters.unhandledWrites++;
      return;
    }
    const offset = gpa - device.base;
    if (offset + width <= device.size) {
      device.write(offset, width, (value & ONES[width]) >>> 0);
      return;
    }
    for (let i = 0; i < width; i++) this.write(gpa + i, 1, (value >>> (i * 8)) & 0xff);
  }

  /** 8-byte read as two halves, low half first. @returns the low half; the high one is in `readHigh` */
  read64(gpa: number): number {
    const low = this.read(gpa, 4);
    this.readHigh = this.read(gpa + 4, 4);
    return low;
  }

  /** 8-byte write as two halves, low half first. */
  write64(gpa: number, low: number, high: number): void {
    this.write(gpa, 4, low);
    this.write(gpa + 4, 4, high);
  }
}
