/**
 * The ACPI tables of the machine (ACPI specification 6, "System Description Table Architecture"), laid out in the
 * firmware area from the RSDP on, which older software finds there by scanning.
 *
 * The fixed hardware is described in full ("OVM style") although there is little of it: FreeBSD supports
 * hardware-reduced ACPI only in part, and so both guests see one machine.
 */
import { PmPort, SCI_IRQ } from "../../chipset/pm.js";
import { RESET_PORT, RESET_VALUE } from "../../chipset/reset.js";
import { FIRMWARE_AREA_BASE, FIRMWARE_AREA_END, IO_APIC_BASE, LOCAL_APIC_BASE } from "../../machine/memory-map.js";
import { dsdtBody, type SerialPortDescription } from "./dsdt.js";

export interface AcpiOptions {
  /** Virtual processors; APIC id = index. */
  readonly processors: number;
  readonly serial: readonly SerialPortDescription[];
  /** Whether there is a VMBus (default: yes). */
  readonly vmbus?: boolean;
}

export interface AcpiImage {
  /** Guest physical address of the RSDP. */
  readonly rsdp: number;
  readonly writes: readonly { readonly gpa: number; readonly bytes: Uint8Array }[];
}

const HEADER_BYTES = 36;
const FADT_BYTES = 276;
/** Processors with an 8-bit APIC id below the broadcast id get entries of the short form. */
const FIRST_X2APIC_ID = 255;
/** As many as their tables have room for, rounded down; the test would notice. */
const MAX_PROCESSORS = 1024;
/** CMOS register of the century. */
const CENTURY_REGISTER = 0x32;

/**
 * FADT fixed feature flags: WBINVD, C1, sleep button is a control method (there is none), RTC wakes from S4, 32-bit
 * timer, reset register, platform clock. Bit 4 is clear: the power button is the fixed one of the PM1 block.
 */
const FADT_FLAGS = (1 << 0) | (1 << 2) | (1 << 5) | (1 << 7) | (1 << 8) | (1 << 10) | (1 << 15);
/** IA-PC boot flags: legacy devices (serial ports), no VGA; the keyboard controller's bit 1 is clear. */
const IAPC_FLAGS = (1 << 0) | (1 << 2);

/** @throws RangeError for a number of processors that it cannot describe */
export function buildAcpiTables(o: AcpiOptions): AcpiImage {
  if (!Number.isInteger(o.processors) || o.processors < 1 || o.processors > MAX_PROCESSORS) {
    throw new RangeError(`${o.processors} processors: must be 1 to ${MAX_PROCESSORS}`);
  }
  const writes: { gpa: number; bytes: Uint8Array }[] = [];
  let next = FIRMWARE_AREA_BASE + 64; // the RSDP comes first
  const place = (bytes: Uint8Array): number => {
    const gpa = next;
    next = (next + bytes.length + 63) & ~63; // the FACS must be 64-byte aligned; the others do not mind
    if (next > FIRMWARE_AREA_END) throw new RangeError(`ACPI tables for ${o.processors} processors do not fit`);
    writes.push({ gpa, bytes });
    return gpa;
  };
  const facsAt = place(facs());
  const dsdtAt = place(table("DSDT", 2, dsdtBody(o.processors, o.serial, o.vmbus ?? true)));
  const fadtAt = place(fadt(facsAt, dsdtAt));
  const madtAt = place(madt(o.processors));
  const xsdtAt = place(xsdt([fadtAt, madtAt]));
  writes.push({ gpa: FIRMWARE_AREA_BASE, bytes: rsdp(xsdtAt) });
  return { rsdp: FIRMWARE_AREA_BASE, writes };
}

function rsdp(xsdtAt: number): Uint8Array {
  const bytes = new Uint8Array(36);
  const view = new DataView(bytes.buffer);
  text(bytes, 0, "RSD PTR ");
  text(bytes, 9, OEM_ID);
  bytes[15] = 2; // revision
  view.setUint32(20, bytes.length, true);
  view.setUint32(24, xsdtAt, true);
  bytes[8] = checksum(bytes.subarray(0, 20));
  bytes[32] = checksum(bytes);
  return bytes;
}

function xsdt(tables: readonly number[]): Uint8Array {
  const body = new Uint8Array(8 * tables.length);
  const view = new DataView(body.buffer);
  tables.forEach((at, i) => {
    view.setUint32(8 * i, at, true);
  });
  return table("XSDT", 1, body);
}

function facs(): Uint8Array {
  const bytes = new Uint8Array(64);
  text(bytes, 0, "FACS");
  bytes[4] = bytes.length;
  bytes[32] = 2; // version
  return bytes;
}

function fadt(facsAt: number, dsdtAt: number): Uint8Array {
  // Offsets are those of the whole table, as in the specification.
  const bytes = new Uint8Array(FADT_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(36, facsAt, true);
  view.setUint32(40, dsdtAt, true);
  view.setUint16(46, SCI_IRQ, true);
  view.setUint32(56, PmPort.PM1_EVENT, true);
  view.setUint32(64, PmPort.PM1_CONTROL, true);
  view.setUint32(76, PmPort.TIMER, true);
  view.setUint32(80, PmPort.GPE0, true);
  bytes[88] = 4; // bytes of the PM1 event block
  bytes[89] = 2; // PM1 control
  bytes[91] = 4; // PM timer
  bytes[92] = 4; // GPE0
  view.setUint16(96, 101, true); // C2 and C3 latencies that mean "not supported"
  view.setUint16(98, 1001, true);
  bytes[108] = CENTURY_REGISTER;
  view.setUint16(109, IAPC_FLAGS, true);
  view.setUint32(112, FADT_FLAGS, true);
  ioAddress(view, 116, RESET_PORT, 8, 1);
  bytes[128] = RESET_VALUE;
  view.setUint32(140, dsdtAt, true);
  ioAddress(view, 148, PmPort.PM1_EVENT, 32, 2);
  ioAddress(view, 172, PmPort.PM1_CONTROL, 16, 2);
  ioAddress(view, 208, PmPort.TIMER, 32, 3);
  ioAddress(view, 220, PmPort.GPE0, 32, 1);
  return table("FACP", 6, bytes.subarray(HEADER_BYTES));
}

/** Generic address structure in I/O space. @param access 1 byte, 2 word, 3 dword */
function ioAddress(view: DataView, at: number, port: number, bits: number, access: number): void {
  view.setUint8(at, 1);
  view.setUint8(at + 1, bits);
  view.setUint8(at + 3, access);
  view.setUint32(at + 4, port, true);
}

function madt(processors: number): Uint8Array {
  const body: number[] = [...u32(LOCAL_APIC_BASE), ...u32(0)]; // flags 0: no 8259 pair
  for (let id = 0; id < processors; id++) {
    if (id < FIRST_X2APIC_ID) body.push(0, 8, (id + 1) & 0xff, id, ...u32(1));
    else body.push(9, 16, 0, 0, ...u32(id), ...u32(1), ...u32(id + 1));
  }
  body.push(1, 12, 0, 0, ...u32(IO_APIC_BASE), ...u32(0));
  body.push(2, 10, 0, SCI_IRQ, ...u32(SCI_IRQ), 0x0d, 0x00); // level-triggered, active high
  body.push(4, 6, 0xff, 0, 0, 1); // NMI on LINT1 of all
  return table("APIC", 5, Uint8Array.from(body));
}

const OEM_ID = "ENLITE";

/** Header and body, with length and checksum. */
function table(signature: string, revision: number, body: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + body.length);
  const view = new DataView(bytes.buffer);
  text(bytes, 0, signature);
  view.setUint32(4, bytes.length, true);
  bytes[8] = revision;
  text(bytes, 10, OEM_ID);
  text(bytes, 16, "ENLIGHTN");
  view.setUint32(24, 1, true);
  text(bytes, 28, "ENLT");
  view.setUint32(32, 1, true);
  bytes.set(body, HEADER_BYTES);
  bytes[9] = checksum(bytes);
  return bytes;
}

function text(bytes: Uint8Array, at: number, value: string): void {
  for (let i = 0; i < value.length; i++) bytes[at + i] = value.charCodeAt(i);
}

function u32(value: number): number[] {
  return [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24];
}

/** The byte that makes the sum of all bytes 0. */
function checksum(bytes: Uint8Array): number {
  let sum = 0;
  for (const b of bytes) sum += b;
  return -sum & 0xff;
}
