/**
 * Disk images: container formats by their signatures, and what a raw disk's partition table tells about its processor.
 * What a container holds is not looked into here: that takes the disk formats' readers.
 */
import { ByteReader, hasBytes } from "./byte-reader.js";
import {
  type Architecture,
  type Bootable,
  type ByteSource,
  type Identity,
  refused,
  wrongProcessor,
} from "./identify.js";

const SECTOR = 512;
const MBR_PREP = 0x41;
const MBR_GPT = 0xee;
const PREP_GUID = "9e1a2d38-c612-4316-aa26-8b49521e5a8b";
/** Root partitions' types name their processor (Discoverable Partitions Specification). */
const ROOT_GUIDS: Record<string, Architecture | undefined> = {
  "4f68bce3-e8cd-4db1-96e7-fbcaf984b709": "x86-64",
  "44479540-f297-41b2-9af7-d131d5f0458a": "x86",
  "b921b045-1df0-41c3-af44-4c6f280d3fae": "arm64",
  "69dad710-2ce4-4e3c-b16c-21a1d49abed3": "arm",
  "72ec70a6-cf74-40e6-bd49-4bda08e8f224": "riscv",
  "c31c45e6-3f39-412e-80fb-4809c4980599": "power",
  "912ade1d-a839-4913-8964-a10eee08fbd2": "power",
  "77055800-792c-4f94-b39a-98c91b762bb6": "loongarch",
  "5eead9a9-fe09-4a1e-a1d7-520d00531306": "s390",
};

const DISK: Bootable = { ok: true, method: "disk" };

interface Container {
  readonly format: string;
  readonly name: string;
  readonly isReadable: boolean;
}

function containerOf(head: Uint8Array, tail: Uint8Array): Container | undefined {
  if (hasBytes(head, 0, "vhdxfile")) return { format: "vhdx", name: "VHDX disk", isReadable: true };
  if (hasBytes(head, 0, "conectix")) return { format: "vhd", name: "VHD disk (dynamic)", isReadable: true };
  if (hasBytes(tail, 0, "conectix")) return { format: "vhd", name: "VHD disk (fixed)", isReadable: true };
  if (hasBytes(head, 0, [0x51, 0x46, 0x49, 0xfb])) {
    const version = new ByteReader(head, "qcow2 disk").u32(4, false);
    if (version === 2 || version === 3) return { format: "qcow2", name: "qcow2 disk", isReadable: true };
    return { format: "qcow", name: `qcow disk of version ${version}`, isReadable: false };
  }
  if (hasBytes(head, 0, "KDMV")) return { format: "vmdk", name: "VMDK disk", isReadable: false };
  if (hasBytes(head, 0x40, [0x7f, 0x10, 0xda, 0xbe])) return { format: "vdi", name: "VDI disk", isReadable: false };
  return undefined;
}

function guidAt(reader: ByteReader, at: number): string {
  const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, "0");
  const rest = [...reader.slice(at + 8, 8)].map((byte) => hex(byte, 2)).join("");
  const front = `${hex(reader.u32(at), 8)}-${hex(reader.u16(at + 4), 4)}-${hex(reader.u16(at + 6), 4)}`;
  return `${front}-${rest.slice(0, 4)}-${rest.slice(4)}`;
}

/** The processor that a GPT's partition types tell, or undefined. */
async function gptArchitecture(source: ByteSource, sectorSize: number): Promise<Architecture | undefined> {
  const header = new ByteReader(await source.read(sectorSize, 92), "GPT");
  const tableAt = header.u64(72) * sectorSize;
  const count = Math.min(header.u32(80), 1024);
  const entrySize = header.u32(84);
  if (entrySize < 128 || entrySize > 4096 || tableAt > source.size) return undefined;
  const table = new ByteReader(await source.read(tableAt, count * entrySize), "GPT");
  let found: Architecture | undefined;
  for (let at = 0; at + entrySize <= table.length; at += entrySize) {
    const guid = guidAt(table, at);
    if (guid === PREP_GUID) return "power";
    found ??= ROOT_GUIDS[guid];
  }
  return found;
}

/** Types of the four partitions of an MBR, or undefined when there is none. */
function mbrTypes(head: Uint8Array): number[] | undefined {
  if (!hasBytes(head, 510, [0x55, 0xaa])) return undefined;
  const reader = new ByteReader(head, "MBR");
  const entries = [0, 1, 2, 3].map((i) => ({ flag: reader.u8(446 + i * 16), type: reader.u8(450 + i * 16) }));
  if (entries.some(({ flag }) => (flag & 0x7f) !== 0)) return undefined; // a boot sector with code there
  return entries.map(({ type }) => type).filter((type) => type !== 0);
}

async function identifyIso(source: ByteSource, head: Uint8Array): Promise<Identity> {
  const CD_SECTOR = 2048;
  const label = new ByteReader(head, "ISO image").text(0x8028, 32).trim();
  const base = { format: "iso", description: label === "" ? "ISO image" : `ISO image "${label}"` };
  const record = new ByteReader(await source.read(17 * CD_SECTOR, CD_SECTOR), "ISO image");
  const hasElTorito = record.length === CD_SECTOR && hasBytes(record.bytes, 1, "CD001\x01EL TORITO SPECIFICATION");
  if (mbrTypes(head)?.includes(MBR_PREP)) return { ...base, architecture: "power", bootable: wrongProcessor("power") };
  if (!hasElTorito) {
    const bootable = refused(
      "the ISO image has no boot record",
      "add it as a disk (--disk FILE,ro), boot from another",
    );
    return { ...base, architecture: "unknown", bootable };
  }
  const catalog = await source.read(record.u32(0x47) * CD_SECTOR, CD_SECTOR);
  const platform = catalog[1];
  if (platform === 1 || platform === 2) return { ...base, architecture: "power", bootable: wrongProcessor("power") };
  const architecture = platform === 0 ? "x86" : "unknown"; // BIOS code, or UEFI of some processor
  return { ...base, architecture, bootable: { ok: true, method: "cdrom" } };
}

export async function identifyDisk(source: ByteSource, head: Uint8Array): Promise<Identity | undefined> {
  const tail = await source.read(Math.max(0, source.size - SECTOR), SECTOR);
  const container = containerOf(head, tail);
  if (container !== undefined && container.name !== "VHD disk (fixed)") {
    const { format, name, isReadable } = container;
    const hint = `convert it: qemu-img convert -O vhdx FILE FILE.vhdx`;
    const bootable = isReadable ? DISK : refused(`${format} is not read here`, hint);
    return { format, description: name, architecture: "unknown", bootable };
  }
  if (hasBytes(head, 0x8001, "CD001")) return identifyIso(source, head);

  const format = container?.format ?? "raw";
  const gptSector = [512, 4096].find((size) => hasBytes(head, size, "EFI PART"));
  const types = mbrTypes(head);
  if (types === undefined && gptSector === undefined && container === undefined) return undefined;
  const scheme =
    gptSector !== undefined || types?.includes(MBR_GPT) ? "GPT" : types === undefined ? "no partitions" : "MBR";
  const description = `${container?.name ?? "raw disk"}, ${scheme}`;
  const told = gptSector === undefined ? undefined : await gptArchitecture(source, gptSector);
  const architecture = types?.includes(MBR_PREP) ? "power" : (told ?? "unknown");
  const isForeign = architecture !== "unknown" && architecture !== "x86-64" && architecture !== "x86";
  return { format, description, architecture, bootable: isForeign ? wrongProcessor(architecture) : DISK };
}
