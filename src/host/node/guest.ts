/** Guests by reference or by files, on Node: what product.md calls GUEST becomes a kernel, initial file systems and a command line. */
import { open } from "node:fs/promises";
import { assembleDebianGuest, parseReference } from "../../image/debian-guest.js";
import { ImageError } from "../../image/errors.js";
import { type ByteSource, type IdentifyOptions, type Identity, identify } from "../../image/identify.js";
import type { Progress } from "../../image/package-source.js";
import type { GuestFiles } from "../../vm/platform.js";
import { readAptSettings } from "./apt-sources.js";
import { readKeyring } from "./keyring.js";
import { readLargeFile } from "./large-file.js";
import { Mirror } from "./mirror.js";
import { cacheFolder, FolderCache, sha256 } from "./package-cache.js";

/**
 * Console on the first serial port; no KASLR, since the kernel is loaded where it was linked; no mitigations, since there is
 * nothing to leak to; a panic ends the machine at once, and the host tells it.
 */
export const COMMAND_LINE = "console=ttyS0,115200 nokaslr mitigations=off panic=-1";

/** Where a guest comes from. */
export interface GuestOptions {
  /** Debian mirror, a URL. Default: ENLIGHTEN_MIRROR, else what this host's apt uses. */
  readonly mirror?: string | undefined;
  /** A file with the keys that sign the archive. Default: this host's, else those that come with enlighten. */
  readonly keyring?: string | undefined;
  /** Use the cache alone, never the network. */
  readonly offline?: boolean;
  /** Called as it goes on. */
  readonly progress?: (progress: Progress) => void;
  /** Gives it up. */
  readonly signal?: AbortSignal;
  /** Kernel modules beside those that every guest has. */
  readonly moreModules?: readonly string[];
  /** In place of `process.env`, for the places of cache and mirror. */
  readonly environment?: Readonly<Record<string, string | undefined>>;
}

export async function debianGuest(reference: string, o: GuestOptions = {}): Promise<GuestFiles> {
  parseReference(reference);
  const environment = o.environment ?? process.env;
  const apt = await readAptSettings();
  const source = new Mirror({
    mirror: o.mirror,
    offline: o.offline,
    environment,
    apt,
    keyring: () => readKeyring(o.keyring),
  });
  const assemble = (): ReturnType<typeof assembleDebianGuest> =>
    assembleDebianGuest({
      reference,
      source,
      cache: new FolderCache(cacheFolder(environment)),
      sha256,
      now: () => Date.now(),
      allowExpired: apt.configuration.get("acquire::check-valid-until") === "false",
      ...(o.moreModules === undefined ? {} : { moreModules: o.moreModules }),
      ...(o.offline === undefined ? {} : { offline: o.offline }),
      ...(o.progress === undefined ? {} : { progress: o.progress }),
      ...(o.signal === undefined ? {} : { signal: o.signal }),
    });
  // the first boot takes what is here now; a reboot reads it again
  let ready: Awaited<ReturnType<typeof assemble>> | undefined = await assemble();
  const { kernelVersion } = ready;
  return {
    async load() {
      const { kernel, initramfs } = ready ?? (await assemble());
      ready = undefined;
      return { kernel, initrds: [initramfs] };
    },
    commandLine: `${COMMAND_LINE} quiet loglevel=3`,
    takesExec: true,
    hasAgent: true,
    prompt: new RegExp(`${reference} \\S+ # `),
    description: `${reference} · Linux ${kernelVersion}`,
  };
}

async function fileSource(path: string): Promise<ByteSource & { close(): Promise<void> }> {
  let handle: Awaited<ReturnType<typeof open>>;
  try {
    handle = await open(path);
  } catch (error) {
    throw fileError(path, error);
  }
  const { size } = await handle.stat();
  return {
    size,
    async read(offset, length) {
      const buffer = new Uint8Array(Math.max(0, Math.min(length, size - offset)));
      const { bytesRead } = await handle.read(buffer, 0, buffer.length, offset);
      return buffer.subarray(0, bytesRead);
    },
    close: () => handle.close(),
  };
}
function fileError(path: string, error: unknown): ImageError {
  const { code } = error as NodeJS.ErrnoException;
  if (code === "ENOENT") return new ImageError("not-found", `there is no file ${path}`, "check the path");
  if (code === "EACCES") return new ImageError("not-readable", `${path} may not be read`, "check its permissions");
  if (code === "EISDIR") return new ImageError("not-a-file", `${path} is a folder`, "name a file");
  return new ImageError("not-readable", `${path} cannot be read (${code ?? String(error)})`, "check the file");
}

/**
 * Says what a file is, and whether it can run here. Damage is told in `bootable`.
 * @throws an Error with code and hint when the file cannot be read
 */
export async function inspectFile(path: string, options: IdentifyOptions = {}): Promise<Identity> {
  const source = await fileSource(path);
  try {
    return await identify(source, options);
  } catch (error) {
    throw (error as NodeJS.ErrnoException).code === "EISDIR" ? fileError(path, error) : error;
  } finally {
    await source.close();
  }
}

async function wholeFile(path: string): Promise<Uint8Array> {
  try {
    return await readLargeFile(path);
  } catch (error) {
    throw fileError(path, error);
  }
}

/** A kernel from a file, refused by name when it is for another processor or no kernel at all. */
export async function kernelGuest(kernel: string, initrds: readonly string[]): Promise<GuestFiles> {
  const identity = await inspectFile(kernel, { headOnly: true });
  if (!identity.bootable.ok) {
    throw new ImageError(
      "cannot-run",
      `${kernel} is ${identity.description}: ${identity.bootable.reason}`,
      identity.bootable.hint,
    );
  }
  const { method } = identity.bootable;
  if (method !== "linux-boot" && method !== "multiboot") {
    throw new ImageError(
      "cannot-run",
      `${kernel} is ${identity.description}: this boot method (${method}) is not there yet`,
      "give a Linux bzImage (vmlinuz) or a multiboot kernel",
    );
  }
  return {
    load: async () => ({ kernel: await wholeFile(kernel), initrds: await Promise.all(initrds.map(wholeFile)) }),
    // a multiboot kernel finds its own name first, as GRUB and QEMU give it
    commandLine: method === "linux-boot" ? COMMAND_LINE : kernel,
    method,
    takesExec: false,
    description: identity.description,
  };
}
