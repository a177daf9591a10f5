/** What is this file, and can it run here? Reads no more of it than that takes. */
import { hasBytes } from "./byte-reader.js";
import { type Compression, compressionOf, decompress } from "./compression.js";
import { readElf } from "./elf.js";
import { ImageError } from "./errors.js";
import { identifyDisk } from "./identify-disk.js";
import { identifyExecutable } from "./identify-executable.js";
import { integrationDrivers } from "./integration-drivers.js";
import { isBzImage, readBzImageHeader, readKernelImage } from "./kernel-image.js";

/** Of a processor; "unknown" where the file does not tell. */
export type Architecture =
  | "x86-64"
  | "x86"
  | "arm64"
  | "arm"
  | "riscv"
  | "power"
  | "s390"
  | "loongarch"
  | "other"
  | "unknown";

/** Whether a file can run here. */
export type Bootable = CanBoot | CannotBoot;
/** It can. */
export interface CanBoot {
  /** Tells it from the other. */
  readonly ok: true;
  /** How it boots. */
  readonly method: "linux-boot" | "pvh" | "multiboot" | "uefi" | "disk" | "cdrom";
}
/** It cannot. */
export interface CannotBoot {
  /** Tells it from the other. */
  readonly ok: false;
  /** Why, for people. */
  readonly reason: string;
  /** What to do instead, for people. */
  readonly hint: string;
}

/** What a file is. */
export interface Identity {
  /** Short and stable: "bzimage", "elf", "efi", "vhdx", ... */
  readonly format: string;
  /** For people: "Linux 6.1.0-56-cloud-amd64 (bzImage)". */
  readonly description: string;
  /** Of the processor that it is for. */
  readonly architecture: Architecture;
  /** Whether it can run here, and by what way; else why not. */
  readonly bootable: Bootable;
  /** As a Linux kernel tells it. */
  readonly kernelVersion?: string;
  /** How the file, or the kernel in it, is packed. */
  readonly compression?: Compression;
  /** Hyper-V drivers built into the kernel; those it has as modules are not in this file. */
  readonly integrationDrivers?: readonly string[];
}

/** Random access to a file; a read past the end gives what there is. */
export interface ByteSource {
  readonly size: number;
  read(offset: number, length: number): Promise<Uint8Array>;
}

export const bytesAsSource = (bytes: Uint8Array): ByteSource => ({
  size: bytes.length,
  read: async (offset, length) => bytes.subarray(Math.min(offset, bytes.length), offset + length),
});

const HEAD_SIZE = 64 << 10;
/** Kernels and packed files are read whole; larger than this they are no such thing. */
const WHOLE_MAX = 512 << 20;

export const refused = (reason: string, hint: string): Bootable => ({ ok: false, reason, hint });

export const PROCESSOR_NAMES: Record<Architecture, string> = {
  "x86-64": "x86-64",
  x86: "32-bit x86",
  arm64: "ARM64",
  arm: "32-bit ARM",
  riscv: "RISC-V",
  power: "POWER",
  s390: "IBM Z",
  loongarch: "LoongArch",
  other: "another",
  unknown: "an unknown",
};

/** The refusal for an image of another processor. */
export function wrongProcessor(architecture: Architecture): Bootable {
  const hint =
    architecture === "power"
      ? "AIX and other POWER systems need a POWER machine or its emulator (qemu-system-ppc64)"
      : "get the x86-64 (amd64) build of this image";
  return refused(`it is for ${PROCESSOR_NAMES[architecture]} processors; this is an x86-64 machine`, hint);
}

async function identifyLinux(source: ByteSource, head: Uint8Array, { headOnly }: IdentifyOptions): Promise<Identity> {
  const header = readBzImageHeader(head);
  const name = header.version === "" ? "Linux" : `Linux ${header.version}`;
  const base = { format: "bzimage", description: `${name} (bzImage)`, kernelVersion: header.version };
  if (!header.is64Bit) {
    const hint = "use its 64-bit (amd64) build";
    return { ...base, architecture: "x86", bootable: refused("the kernel has no 64-bit entry", hint) };
  }
  if (source.size > WHOLE_MAX) {
    const bootable = refused("the file is far larger than any kernel", "check that this is the file you meant");
    return { ...base, architecture: "x86-64", bootable };
  }
  if (headOnly === true) return { ...base, architecture: "x86-64", bootable: { ok: true, method: "linux-boot" } };
  const kernel = await readKernelImage(await source.read(0, source.size)).catch((error: unknown) => {
    if (error instanceof ImageError) return error;
    throw error;
  });
  if (kernel instanceof ImageError) {
    // Its own decompressor may know what ours does not.
    const isForeign = kernel.code === "unsupported";
    const bootable: Bootable = isForeign ? { ok: true, method: "linux-boot" } : refused(kernel.message, kernel.hint);
    return { ...base, architecture: "x86-64", bootable };
  }
  return {
    ...base,
    architecture: "x86-64",
    bootable: { ok: true, method: "linux-boot" },
    compression: kernel.compression,
    integrationDrivers: integrationDrivers(readElf(kernel.elf), kernel.elf),
  };
}

async function identifyPacked(source: ByteSource, compression: Compression): Promise<Identity> {
  if (source.size > WHOLE_MAX) {
    const bootable = refused(`a ${compression} file of this size is not looked into`, "unpack it first");
    return { format: compression, description: `${compression} data`, architecture: "unknown", compression, bootable };
  }
  try {
    const inner = await identify(bytesAsSource(await decompress(await source.read(0, source.size))));
    const bootable = inner.bootable.ok ? refused("it is packed", `unpack it first (${compression})`) : inner.bootable;
    return { ...inner, description: `${inner.description}, packed with ${compression}`, compression, bootable };
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    const bootable = refused(error.message, error.hint);
    return { format: compression, description: `${compression} data`, architecture: "unknown", compression, bootable };
  }
}

/** How closely to look. */
export interface IdentifyOptions {
  /** A Linux kernel is not unpacked: whoever boots it does so anyway, and is told then if it cannot be. */
  readonly headOnly?: boolean;
}
/** Never fails on what a file holds: damage is told in `bootable`. */
export async function identify(source: ByteSource, options: IdentifyOptions = {}): Promise<Identity> {
  const head = await source.read(0, HEAD_SIZE);
  try {
    if (isBzImage(head)) return await identifyLinux(source, head, options);
    const executable = await identifyExecutable(source, head);
    if (executable !== undefined) return executable;
    const disk = await identifyDisk(source, head);
    if (disk !== undefined) return disk;
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    const bootable = refused(error.message, error.hint);
    return { format: "unknown", description: "damaged file", architecture: "unknown", bootable };
  }
  if (hasBytes(head, 0, "070701") || hasBytes(head, 0, "070702")) {
    return {
      format: "cpio",
      description: "cpio archive (an initramfs)",
      architecture: "unknown",
      bootable: refused("an initramfs needs a kernel", "give it with --initrd beside --kernel vmlinuz"),
    };
  }
  const compression = compressionOf(head);
  if (compression !== "none") return identifyPacked(source, compression);
  return {
    format: "unknown",
    description: source.size === 0 ? "empty file" : "unknown data",
    architecture: "unknown",
    bootable: refused("it is no image that is known here", "give a Linux kernel (vmlinuz) or a disk image"),
  };
}
