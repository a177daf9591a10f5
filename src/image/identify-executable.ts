/** Kernels and boot programs as files: ELF, PE/COFF (UEFI), Linux Image of ARM64 and RISC-V, XCOFF of AIX. */
import { ByteReader, hasBytes } from "./byte-reader.js";
import { ElfMachine, isElf, readElf, SegmentType } from "./elf.js";
import {
  type Architecture,
  type Bootable,
  type ByteSource,
  type Identity,
  PROCESSOR_NAMES,
  refused,
  wrongProcessor,
} from "./identify.js";
import { integrationDrivers } from "./integration-drivers.js";
import { findPvhEntry } from "./kernel-image.js";

const ELF_ARCHITECTURES: Record<number, Architecture | undefined> = {
  [ElfMachine.X86_64]: "x86-64",
  [ElfMachine.I386]: "x86",
  [ElfMachine.AARCH64]: "arm64",
  [ElfMachine.ARM]: "arm",
  [ElfMachine.RISCV]: "riscv",
  [ElfMachine.PPC]: "power",
  [ElfMachine.PPC64]: "power",
  [ElfMachine.S390]: "s390",
  [ElfMachine.LOONGARCH]: "loongarch",
};

const PE_ARCHITECTURES: Record<number, Architecture | undefined> = {
  34404: "x86-64",
  332: "x86",
  43620: "arm64",
  448: "arm",
  450: "arm",
  452: "arm",
  20580: "riscv",
  20530: "riscv",
  25188: "loongarch",
  25138: "loongarch",
};

const ELF_RELOCATABLE = 1;
const EFI_SUBSYSTEMS = [10, 11, 12]; // application, boot driver, runtime driver
const ELF_MAX = 512 << 20;
const MULTIBOOT_MAGIC = 0x1badb002;
const MULTIBOOT_SEARCH = 8192;

/** Multiboot 1: a word-aligned header in the first 8 KiB whose three words sum to zero. */
function hasMultiboot(head: Uint8Array): boolean {
  const reader = new ByteReader(head.subarray(0, MULTIBOOT_SEARCH), "kernel");
  for (let at = 0; at + 12 <= reader.length; at += 4) {
    if (reader.u32(at) !== MULTIBOOT_MAGIC) continue;
    if ((reader.u32(at) + reader.u32(at + 4) + reader.u32(at + 8)) >>> 0 === 0) return true;
  }
  return false;
}

async function identifyElf(source: ByteSource, head: Uint8Array): Promise<Identity> {
  const machine = new ByteReader(head, "ELF file").u16(18, head[5] !== 2);
  const architecture = ELF_ARCHITECTURES[machine] ?? "other";
  const description = `ELF file for ${PROCESSOR_NAMES[architecture]} processors`;
  const base = { format: "elf", description, architecture };
  if (architecture !== "x86-64" && architecture !== "x86") return { ...base, bootable: wrongProcessor(architecture) };
  if (source.size > ELF_MAX) {
    return {
      ...base,
      bootable: refused("the file is far larger than any kernel", "check that this is the right file"),
    };
  }
  const bytes = await source.read(0, source.size);
  const elf = readElf(bytes);
  const isModule = elf.type === ELF_RELOCATABLE;
  const drivers = isModule ? [] : integrationDrivers(elf, bytes);
  let bootable: Bootable;
  if (isModule) bootable = refused("it is an object file or kernel module", "give a kernel (vmlinuz or vmlinux)");
  else if (elf.segments.some(({ type }) => type === SegmentType.Interpreter)) {
    bootable = refused("it is a program, not a kernel", "run it inside a guest: --exec");
  } else if (findPvhEntry(bytes) !== undefined) bootable = { ok: true, method: "pvh" };
  else if (hasMultiboot(head)) bootable = { ok: true, method: "multiboot" };
  else bootable = refused("it has neither a PVH nor a multiboot entry", "give the vmlinuz beside it");
  return { ...base, bootable, ...(drivers.length > 0 ? { integrationDrivers: drivers } : {}) };
}

function identifyPe(head: Uint8Array): Identity | undefined {
  const reader = new ByteReader(head, "EFI program");
  const at = reader.u32(0x3c);
  if (!hasBytes(head, at, "PE\0\0")) return undefined;
  const architecture = PE_ARCHITECTURES[reader.u16(at + 4)] ?? "other";
  const isEfi = EFI_SUBSYSTEMS.includes(reader.u16(at + 24 + 68));
  const name = PROCESSOR_NAMES[architecture];
  if (!isEfi) {
    const bootable = refused("it is a Windows program", "give a kernel or a disk image");
    return { format: "pe", description: `Windows program for ${name} processors`, architecture, bootable };
  }
  const bootable: Bootable = architecture === "x86-64" ? { ok: true, method: "uefi" } : wrongProcessor(architecture);
  return { format: "efi", description: `UEFI program for ${name} processors`, architecture, bootable };
}

export async function identifyExecutable(source: ByteSource, head: Uint8Array): Promise<Identity | undefined> {
  if (isElf(head)) return identifyElf(source, head);
  const linuxImage: [Architecture, boolean][] = [
    ["arm64", hasBytes(head, 0x38, "ARM\x64")],
    ["riscv", hasBytes(head, 0x30, "RISCV") || hasBytes(head, 0x38, "RSC\x05")],
  ];
  for (const [architecture, isThis] of linuxImage) {
    if (!isThis) continue;
    const description = `Linux kernel (Image) for ${PROCESSOR_NAMES[architecture]} processors`;
    return { format: "linux-image", description, architecture, bootable: wrongProcessor(architecture) };
  }
  if (hasBytes(head, 0, "MZ")) return identifyPe(head);
  // XCOFF of 32 and 64 bits; two bytes are little, so the section count and the header's size must fit too.
  if (hasBytes(head, 0, [0x01, 0xdf]) || hasBytes(head, 0, [0x01, 0xf7])) {
    const reader = new ByteReader(head, "XCOFF file");
    const is64 = head[1] === 0xf7;
    const optionalSize = reader.u16(16, false);
    if (
      reader.u16(2, false) > 0 &&
      reader.u16(2, false) < 256 &&
      (optionalSize === 0 || optionalSize >= 28) &&
      optionalSize <= 128
    ) {
      const description = `AIX program (XCOFF, ${is64 ? 64 : 32} bit)`;
      return { format: "xcoff", description, architecture: "power", bootable: wrongProcessor("power") };
    }
  }
  return undefined;
}
