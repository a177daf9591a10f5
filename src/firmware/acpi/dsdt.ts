/**
 * The DSDT: the devices that a guest cannot find by itself. Linux and FreeBSD load their VMBus driver only if there is
 * a device with hardware id `VMBUS` (FreeBSD: in upper case, inside an ACPI0004 container), and find the MMIO ranges
 * that VMBus devices may use in the container's resources.
 */
import { HIGH_MMIO_WINDOW, IO_APIC_BASE, LOCAL_APIC_BASE, LOW_MMIO_WINDOW } from "../../machine/memory-map.js";
import {
  concat,
  device,
  eisaId,
  integer,
  interrupt,
  io,
  irq,
  memory32Fixed,
  name,
  pack,
  qwordMemory,
  resources,
  scope,
  string,
} from "./aml.js";

export interface SerialPortDescription {
  readonly base: number;
  readonly irq: number;
}

/** Present, enabled, shown, working. */
const STATUS_PRESENT = 0xf;

/** The table's body, after its header. */
export function dsdtBody(processors: number, serial: readonly SerialPortDescription[], vmbus: boolean): Uint8Array {
  const sleep = (state: string) => name(`\\${state}`, pack(integer(0), integer(0), integer(0), integer(0)));
  return concat(
    sleep("_S0"),
    sleep("_S5"),
    scope(
      "\\_SB",
      ...(vmbus ? [vmod()] : []),
      ...serial.map(uart),
      rtc(),
      apics(),
      ...Array.from({ length: processors }, (_, i) => cpu(i)),
    ),
  );
}

function vmod(): Uint8Array {
  return device(
    "VMOD",
    name("_HID", string("ACPI0004")),
    name("_UID", integer(0)),
    name(
      "_CRS",
      resources(
        qwordMemory(LOW_MMIO_WINDOW.base, LOW_MMIO_WINDOW.lengthBytes),
        qwordMemory(HIGH_MMIO_WINDOW.base, HIGH_MMIO_WINDOW.lengthBytes),
      ),
    ),
    device(
      "VMBS",
      name("_HID", string("VMBUS")),
      name("_UID", integer(0)),
      name("_STA", integer(STATUS_PRESENT)),
      name("_CRS", resources()), // Linux refuses the device without one; its interrupt is a fixed vector
    ),
  );
}

function uart(port: SerialPortDescription, i: number): Uint8Array {
  return device(
    `UAR${i + 1}`,
    name("_HID", eisaId("PNP0501")),
    name("_UID", integer(i + 1)),
    name("_CRS", resources(io(port.base, 8), interrupt(port.irq, "edge"))),
  );
}

function rtc(): Uint8Array {
  return device("RTC0", name("_HID", eisaId("PNP0B00")), name("_CRS", resources(io(0x70, 2), irq(8))));
}

function apics(): Uint8Array {
  return device(
    "APIC",
    name("_HID", eisaId("PNP0003")),
    name("_CRS", resources(memory32Fixed(LOCAL_APIC_BASE, 0x1000, true), memory32Fixed(IO_APIC_BASE, 0x1000, true))),
  );
}

/** The unique id is the one in the MADT: index + 1, as OpenVMM numbers them. */
function cpu(index: number): Uint8Array {
  const at = `P${index.toString(16).toUpperCase().padStart(3, "0")}`;
  return device(
    at,
    name("_HID", string("ACPI0007")),
    name("_UID", integer(index + 1)),
    name("_STA", integer(STATUS_PRESENT)),
  );
}
