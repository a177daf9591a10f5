/** A guest by reference, "debian:12": its packages fetched through the chain of signatures, unpacked and assembled. */
import { encodeUtf8 } from "./byte-reader.js";
import { readDeb } from "./deb.js";
import { DebianArchive } from "./debian-archive.js";
import type { FoundPackage } from "./debian-index.js";
import { ImageError } from "./errors.js";
import { assembleGuest, guestRecipe, missingLibraries } from "./guest-initramfs.js";
import type { Archive, AssemblyHost, Progress } from "./package-source.js";
import { dependencyClosure, parseDepends } from "./resolve.js";
import type { TarEntry } from "./tar.js";

export interface GuestPackage {
  readonly name: string;
  readonly version: string;
  readonly sha256: string;
}

export interface DebianGuest {
  /** A bzImage. */
  readonly kernel: Uint8Array;
  readonly kernelVersion: string;
  /** An uncompressed newc cpio; a second one (execCpio) may be appended. */
  readonly initramfs: Uint8Array;
  readonly packages: readonly GuestPackage[];
}

export interface AssembleOptions extends AssemblyHost {
  /** "debian:12", "debian:12-generic", "debian:13-rt", ... */
  readonly reference: string;
  /** Use the cache alone. */
  readonly offline?: boolean;
  /** Go on when the mirror's index is past its Valid-Until, as apt's Acquire::Check-Valid-Until "false" does. */
  readonly allowExpired?: boolean;
  /** Keep the modules' signatures: slow to load in an emulator, but the kernel stays untainted. */
  readonly keepModuleSignatures?: boolean;
  /** Kernel modules beside those that every guest has. */
  readonly moreModules?: readonly string[];
  readonly progress?: (progress: Progress) => void;
  readonly signal?: AbortSignal;
}

export const RELEASES: Record<string, string | undefined> = { "11": "bullseye", "12": "bookworm", "13": "trixie" };
const KERNELS: Record<string, string | undefined> = {
  "": "linux-image-cloud-amd64",
  "-cloud": "linux-image-cloud-amd64",
  "-generic": "linux-image-amd64",
  "-rt": "linux-image-rt-amd64",
};
/** An index younger than this is used again without asking the mirror. */
export const INDEX_LIFE_MS = 24 * 60 * 60 * 1000;
/** Packages that a guest without Debian's init and package system can do without. */
const NOT_NEEDED = new Set(["init-system-helpers", "perl-base", "debconf", "dpkg"]);

interface Distribution {
  readonly codename: string;
  readonly kernelPackage: string;
}

export function parseReference(reference: string): Distribution {
  const match = /^debian:(\d+)(-[a-z0-9]+)?$/.exec(reference);
  const codename = match === null ? undefined : RELEASES[match[1]!];
  const kernelPackage = match === null ? undefined : KERNELS[match[2] ?? ""];
  if (codename === undefined || kernelPackage === undefined) {
    throw new ImageError("unknown-guest", `there is no guest "${reference}"`, "try debian:12");
  }
  return { codename, kernelPackage };
}

/** What the cache keeps about a guest that was assembled before. */
interface GuestRecord {
  readonly fetchedAt: number;
  readonly kernelVersion: string;
  readonly kernelSha256: string;
  readonly initramfsSha256: string;
  readonly packages: readonly GuestPackage[];
  /** The earliest Valid-Until of the indexes it comes from. */
  readonly validUntil: number | undefined;
}

function isGuestRecord(value: unknown): value is GuestRecord {
  if (typeof value !== "object" || value === null) return false;
  const record = value as Record<string, unknown>;
  return (
    typeof record.fetchedAt === "number" &&
    typeof record.kernelVersion === "string" &&
    typeof record.kernelSha256 === "string" &&
    typeof record.initramfsSha256 === "string" &&
    Array.isArray(record.packages)
  );
}

async function fromCache(options: AssembleOptions, recordName: string): Promise<DebianGuest | undefined> {
  const record = await options.cache.readRecord(recordName);
  if (!isGuestRecord(record)) return undefined;
  const age = options.now() - record.fetchedAt;
  if (!options.offline && !(age >= 0 && age < INDEX_LIFE_MS)) return undefined;
  const kernel = await options.cache.read(record.kernelSha256);
  const initramfs = await options.cache.read(record.initramfsSha256);
  if (kernel === undefined || initramfs === undefined) return undefined;
  if (typeof record.validUntil === "number" && options.now() > record.validUntil) {
    options.progress?.({ step: "warning", code: "release-expired", name: options.reference });
  }
  return { kernel, kernelVersion: record.kernelVersion, initramfs, packages: record.packages };
}

/** The image package that the meta package stands for at present. */
export function kernelImage(archive: DebianArchive, metaName: string): FoundPackage<Archive> {
  const meta = archive.need(metaName);
  const names = parseDepends(meta.record.control.get("depends"))
    .flat()
    .map(({ name }) => name);
  const image = names.find((name) => name.startsWith("linux-image-"));
  if (image === undefined) {
    throw new ImageError("missing-package", `${metaName} names no kernel`, "use another mirror (--mirror)");
  }
  return archive.need(image);
}

async function assemble(options: AssembleOptions, distribution: Distribution): Promise<[DebianGuest, DebianArchive]> {
  const { reference, progress } = options;
  const archive = await DebianArchive.open(distribution.codename, options, INDEX_LIFE_MS);
  const kernelPackage = kernelImage(archive, distribution.kernelPackage);
  const daemonPackage = archive.find("hyperv-daemons");
  const used: FoundPackage<Archive>[] = [];
  const files = async (found: FoundPackage<Archive> | undefined): Promise<readonly TarEntry[]> => {
    if (found === undefined) return [];
    const bytes = await archive.fetch(found);
    progress?.({ step: "unpack", name: found.record.name });
    used.push(found);
    return (await readDeb(bytes)).files;
  };

  const kernel = await files(kernelPackage);
  const busybox = await files(archive.need("busybox-static"));
  const identity = await files(archive.need("base-files"));
  const daemons = await files(daemonPackage);
  const perlPackage = archive.find("perl-base");
  const perl = await files(perlPackage);
  const libraries: TarEntry[] = [];
  for (const program of [daemonPackage, perlPackage]) {
    if (program === undefined) continue;
    const closure = dependencyClosure(
      program.record,
      (name) => archive.find(name)?.record,
      (name) => NOT_NEEDED.has(name),
    );
    for (const { name } of closure.slice(1)) {
      if (missingLibraries([...daemons, ...perl], libraries).length === 0) break;
      if (used.some(({ record }) => record.name === name)) continue;
      libraries.push(...(await files(archive.need(name))));
    }
  }
  options.signal?.throwIfAborted();
  progress?.({ step: "assemble", name: reference });
  const keepModuleSignatures = options.keepModuleSignatures ?? false;
  const image = await assembleGuest(reference, {
    kernel,
    busybox,
    identity,
    daemons,
    perl,
    libraries,
    keepModuleSignatures,
    moreModules: options.moreModules ?? [],
  });
  const packages = used.map(({ record: { name, version, sha256 } }) => ({ name, version, sha256 }));
  return [{ ...image, packages }, archive];
}

/**
 * Signed index, package hash, cached file, at each step checked; then kernel and initramfs, which are cached too.
 * Fails with an ImageError, or with the signal's reason when it is aborted.
 */
export async function assembleDebianGuest(options: AssembleOptions): Promise<DebianGuest> {
  const distribution = parseReference(options.reference);
  const variant =
    (options.keepModuleSignatures ? "-signed" : "") + (options.moreModules ?? []).map((m) => `-${m}`).join("");
  const recipe = (await options.sha256(encodeUtf8(guestRecipe()))).slice(0, 12);
  const recordName = `guest-${options.reference.replace(":", "-")}${variant}-${recipe}`;
  const known = await fromCache(options, recordName);
  if (known !== undefined) return known;

  const [guest, archive] = await assemble(options, distribution);
  const kernelSha256 = await options.sha256(guest.kernel);
  const initramfsSha256 = await options.sha256(guest.initramfs);
  await options.cache.write(kernelSha256, guest.kernel);
  await options.cache.write(initramfsSha256, guest.initramfs);
  const record: GuestRecord = {
    fetchedAt: archive.fetchedAt,
    kernelVersion: guest.kernelVersion,
    kernelSha256,
    initramfsSha256,
    packages: guest.packages,
    validUntil: archive.validUntil,
  };
  await options.cache.writeRecord(recordName, record);
  return guest;
}
