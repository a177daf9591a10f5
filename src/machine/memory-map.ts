/**
 * Where things are in the guest physical address space.
 *
 *     0x0000_0000  RAM                                   low memory; the boot structures of firmware/linux-boot
 *     0x000E_0000  firmware area: ACPI tables            reserved, although RAM backs it
 *     0x0010_0000  RAM up to the configured size         at most 3 GiB, so it ends below the device holes
 *     0xF800_0000  MMIO window of the VMBus container    offered in the DSDT
 *     0xFEC0_0000  IO-APIC
 *     0xFEE0_0000  local APICs
 *     0x10_0000_0000  high MMIO window of the VMBus container
 *
 * Guest RAM is one flat block: guest physical address = offset in it.
 */

/** Address range types of the e820 map (ACPI specification, "Address Range Types"). */
export const E820Type = { Ram: 1, Reserved: 2, AcpiData: 3, AcpiNvs: 4 } as const;

export interface E820Entry {
  /** First byte, guest physical. */
  readonly base: number;
  readonly lengthBytes: number;
  /** One of E820Type. */
  readonly type: number;
}

export const FIRMWARE_AREA_BASE = 0xe_0000;
export const FIRMWARE_AREA_END = 0x10_0000;
export const HIGH_RAM_BASE = 0x10_0000;
/** RAM ends here at the latest: above it are the device windows. */
export const MAX_RAM_BYTES = 0xc000_0000;
/** Below this there is not even room for the firmware area and a page of RAM above it. */
export const MIN_RAM_BYTES = 0x20_0000;

export const LOW_MMIO_WINDOW = { base: 0xf800_0000, lengthBytes: 0x6c0_0000 } as const;
export const HIGH_MMIO_WINDOW = { base: 0x10_0000_0000, lengthBytes: 0x10_0000_0000 } as const;
export const IO_APIC_BASE = 0xfec0_0000;
export const LOCAL_APIC_BASE = 0xfee0_0000;

export interface MemoryMap {
  readonly ramBytes: number;
  /** As handed to the guest, ascending. */
  readonly e820: readonly E820Entry[];
}

/** @throws RangeError when the size cannot be laid out; callers check what the user asked for before */
export function memoryMap(ramBytes: number): MemoryMap {
  if (!Number.isInteger(ramBytes) || ramBytes < MIN_RAM_BYTES || ramBytes > MAX_RAM_BYTES || ramBytes % 0x1000 !== 0) {
    throw new RangeError(`guest RAM of ${ramBytes} bytes: must be whole pages, from 2 MiB to 3 GiB`);
  }
  return {
    ramBytes,
    e820: [
      { base: 0, lengthBytes: FIRMWARE_AREA_BASE, type: E820Type.Ram },
      { base: FIRMWARE_AREA_BASE, lengthBytes: FIRMWARE_AREA_END - FIRMWARE_AREA_BASE, type: E820Type.Reserved },
      { base: HIGH_RAM_BASE, lengthBytes: ramBytes - HIGH_RAM_BASE, type: E820Type.Ram },
    ],
  };
}
