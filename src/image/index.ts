/**
 * Guests and images: what is this file, and how does a guest come out of a distribution's packages? Everything here
 * works on bytes; files, networks, keys and the time come in through the interfaces of `package-source.ts`, so that it
 * runs in a browser as in Node (where `host/node` implements them).
 *
 *   reference -> debian-guest -> debian-archive (index, signature) -> deb (ar, tar, compression)
 *             -> guest-initramfs (modules, init, cpio) -> kernel + initramfs
 *   "-full"   -> full-guest -> install-set (which packages) -> iso-writer (for the guest that installs them) + initramfs
 *   file      -> identify -> kernel-image (bzImage -> vmlinux ELF)
 */
export { type CpioEntry, readCpio, writeCpio } from "./cpio.js";
export { type AssembleOptions, assembleDebianGuest, type DebianGuest, type GuestPackage } from "./debian-guest.js";
export { ImageError } from "./errors.js";
export {
  type Architecture,
  type Bootable,
  type ByteSource,
  bytesAsSource,
  type Identity,
  identify,
} from "./identify.js";
export { type ExecText, execCpio } from "./init/exec-cpio.js";
export { type BzImageHeader, type KernelImage, readBzImageHeader, readKernelImage } from "./kernel-image.js";
export type { AssemblyHost, PackageCache, PackageSource, Progress } from "./package-source.js";
