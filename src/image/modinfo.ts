/** What a kernel module says about itself: the zero-separated "key=value" strings of its .modinfo section. */
import { ByteReader, hasBytes, utf8 } from "./byte-reader.js";
import { readElf, sectionBytes } from "./elf.js";
import { damaged } from "./errors.js";

export interface ModuleInfo {
  /** With "_" for "-", as the kernel knows it. */
  readonly name: string;
  readonly depends: readonly string[];
  /** Modules that "softdep=pre:" wants loaded before, if they are there. */
  readonly softBefore: readonly string[];
  readonly aliases: readonly string[];
  readonly vermagic: string;
}

/** Module names are compared with "-" and "_" alike; file names use either. */
export const moduleName = (name: string): string => name.replaceAll("-", "_");

/** @param fileName "hv_vmbus.ko", for modules too old to hold their own name */
export function readModuleInfo(bytes: Uint8Array, fileName: string): ModuleInfo {
  const info = sectionBytes(readElf(bytes), bytes, ".modinfo");
  if (info === undefined) throw damaged(`kernel module ${fileName}`, "it has no .modinfo section");
  const fields = utf8(info)
    .split("\0")
    .filter((field) => field.includes("="))
    .map((field) => [field.slice(0, field.indexOf("=")), field.slice(field.indexOf("=") + 1)] as const);
  const all = (key: string): string[] => fields.filter(([k]) => k === key).map(([, value]) => value);
  const names = (value: string | undefined, separator: RegExp): string[] =>
    (value ?? "")
      .split(separator)
      .filter((name) => name !== "")
      .map(moduleName);
  return {
    name: moduleName(all("name")[0] ?? fileName.replace(/\.ko$/, "")),
    depends: names(all("depends")[0], /,/),
    softBefore: all("softdep").flatMap((value) => names(/\bpre:([^:]*)(?=\s\w+:|$)/.exec(value)?.[1], /\s+/)),
    aliases: all("alias"),
    vermagic: all("vermagic")[0] ?? "",
  };
}

const SIGNATURE_MAGIC = "~Module signature appended~\n";
const SIGNATURE_INFO_SIZE = 12;

/**
 * The module without the signature that is appended to it (Linux, Documentation/admin-guide/module-signing). Code and
 * data stay as they are. Checking the signature is four fifths of the work of loading a module: without, the
 * seven modules vsock, overlay, fuse, scsi_mod, sd_mod, fat and sg took 55 million instructions instead of 295 (6.1.0-56
 * cloud kernel, counted by QEMU). The kernel notes the missing signature once and marks itself tainted (E).
 */
export function withoutSignature(bytes: Uint8Array): Uint8Array {
  const info = bytes.length - SIGNATURE_MAGIC.length - SIGNATURE_INFO_SIZE;
  if (info < 0 || !hasBytes(bytes, info + SIGNATURE_INFO_SIZE, SIGNATURE_MAGIC)) return bytes;
  const size = new ByteReader(bytes, "kernel module").u32(info + 8, false);
  return bytes.subarray(0, Math.max(0, info - size));
}
