/** Structures of control messages, and big-endian fields of what is in Ethernet frames (vmbus/byte-order.ts has the others). */
import { checkFields, type Fields, type Values } from "../../vmbus/layout.js";

export function readBe16(b: Uint8Array, at: number): number {
  return (b[at]! << 8) | b[at + 1]!;
}
export function readBe32(b: Uint8Array, at: number): number {
  return ((b[at]! << 24) | (b[at + 1]! << 16) | (b[at + 2]! << 8) | b[at + 3]!) >>> 0;
}
export function writeBe16(b: Uint8Array, at: number, value: number): void {
  b[at] = value >>> 8;
  b[at + 1] = value;
}
export function writeBe32(b: Uint8Array, at: number, value: number): void {
  b[at] = value >>> 24;
  b[at + 1] = value >>> 16;
  b[at + 2] = value >>> 8;
  b[at + 3] = value;
}

/** A wire structure for control paths. */
export interface Structure<F extends Fields> {
  readonly size: number;
  /** From at least `size` bytes. */
  read(from: Uint8Array, at?: number): Values<F>;
  write(into: Uint8Array, at: number, values: Values<F>): void;
}

/** @throws RangeError when the fields do not fit the stated size: a mistake in our own tables */
export function structure<F extends Fields>(what: string, size: number, fields: F): Structure<F> {
  checkFields(what, size, 0, fields);
  const entries = Object.entries(fields);
  return {
    size,
    read(from, at = 0) {
      const view = new DataView(from.buffer, from.byteOffset + at, size);
      return Object.fromEntries(entries.map(([name, f]) => [name, f.get(view)])) as Values<F>;
    },
    write(into, at, values) {
      into.fill(0, at, at + size);
      const view = new DataView(into.buffer, into.byteOffset + at, size);
      for (const [name, f] of entries) f.set(view, values[name]);
    },
  };
}
