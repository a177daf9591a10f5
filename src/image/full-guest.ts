/**
 * A whole Debian on a disk, "debian:12-full": which packages, and what a builder guest needs to install them. The host runs the
 * builder (host/node/full-guest.ts); here is what does not depend on the platform.
 */
import { encodeUtf8, latin1 } from "./byte-reader.js";
import { type CpioEntry, writeCpio } from "./cpio.js";
import { readDeb, unpackDeb } from "./deb.js";
import { parseParagraph } from "./deb822.js";
import { type ArchiveOptions, DebianArchive } from "./debian-archive.js";
import { INDEX_LIFE_MS, kernelImage, RELEASES } from "./debian-guest.js";
import type { FoundPackage, PackageRecord } from "./debian-index.js";
import { damaged, ImageError } from "./errors.js";
import { addModules, libraryFiles, need, Tree } from "./guest-initramfs.js";
import { BUSYBOX_APPLETS } from "./init/applets.js";
import { buildScript, extendScript, PAYLOAD, payloadLayer, payloadPackage, shownName } from "./init/build-script.js";
import { GUEST_PACKAGE, GUEST_PACKAGE_CONTROL, guestPackage, ROOT_INIT, ROOT_MODULES } from "./init/full-guest-init.js";
import { installLayers, installSet, type PackageUniverse } from "./install-set.js";
import { type ImageSink, IsoWriter } from "./iso-writer.js";
import { nearNames } from "./near-names.js";
import type { Archive } from "./package-source.js";
import { parseDepends } from "./resolve.js";
import type { TarEntry } from "./tar.js";
import { withoutEndMark } from "./tar-writer.js";

/** Beside what Debian itself calls essential, required or important. */
export const WANTED_PACKAGES: readonly string[] = `
systemd-sysv libpam-systemd dbus udev kmod apt openssh-server openssh-client hyperv-daemons
python3 gcc libc6-dev make perl ca-certificates openssl sqlite3
iproute2 ifupdown isc-dhcp-client procps less
`
  .trim()
  .split(/\s+/);

/** Preferred to what other packages name first: the new disk has a merged /usr from the start, as debootstrap makes it. */
const PREFERRED: readonly string[] = ["usr-is-merged"];

/** The host brings the initramfs; man-db's index costs minutes here and is of use to nobody yet. */
const AVOIDED: ReadonlySet<string> = new Set(["usrmerge", "initramfs-tools", "dracut", "tiny-initramfs", "man-db"]);

/** The root disk's size; the image is sparse, and a copy may be made larger. */
export const ROOT_BYTES = 8 * 2 ** 30;

export interface FullReference {
  readonly codename: string;
  readonly hostName: string;
}
export function parseFullReference(reference: string): FullReference | undefined {
  const match = /^debian:(\d+)-full$/.exec(reference);
  const codename = match === null ? undefined : RELEASES[match[1]!];
  return codename === undefined ? undefined : { codename, hostName: "debian" };
}

function known(reference: string): FullReference {
  const parsed = parseFullReference(reference);
  if (parsed !== undefined) return parsed;
  throw new ImageError("unknown-guest", `there is no guest "${reference}"`, "try debian:12-full");
}
export const codenameOf = (reference: string): string => known(reference).codename;

export interface FullGuestPlan {
  readonly archive: DebianArchive;
  /** The disk that this one begins as; undefined for one that is made from nothing. */
  readonly base: FullGuestPlan | undefined;
  /** All that are installed, beyond what the base has. */
  readonly packages: readonly FoundPackage<Archive>[];
  /**
   * Names in the order of installation: the essential packages, which are installed together (none where there is a base), then
   * one list for each run of dpkg.
   */
  readonly essential: readonly string[];
  readonly layers: readonly (readonly string[])[];
  readonly kernel: FoundPackage<Archive>;
  /** Lower-case hexadecimal: of everything that the image is made of. */
  readonly key: string;
  readonly uuid: string;
  readonly hostName: string;
  readonly codename: string;
}

/** All that the image is made of beside its packages, as one text. */
export const fullRecipe = (): string =>
  JSON.stringify([
    1,
    ROOT_BYTES,
    WANTED_PACKAGES,
    [...AVOIDED],
    ROOT_INIT,
    buildScript("", ""),
    extendScript(),
    latin1(guestPackage()),
  ]);

interface Universe extends PackageUniverse {
  readonly base: readonly string[];
  readonly essential: readonly string[];
  /** Of packages, and virtual ones. */
  readonly names: () => Iterable<string>;
}

/** The archive as the resolver sees it. */
function universeOf(archive: DebianArchive): Universe {
  const providers = new Map<string, string[]>();
  const essential = new Set<string>();
  const base = new Set<string>();
  const names = new Set<string>();
  for (const { name, isEssential, priority, provides } of archive.summaries()) {
    names.add(name);
    if (isEssential) essential.add(name);
    if (priority === "required" || priority === "important") base.add(name);
    for (const { name: virtual } of provides === "" ? [] : parseDepends(provides).flat()) {
      const names = providers.get(virtual);
      if (names === undefined) providers.set(virtual, [name]);
      else if (!names.includes(name)) names.push(name);
    }
  }
  const found = new Map<string, PackageRecord | undefined>();
  const find = (name: string): PackageRecord | undefined => {
    if (!found.has(name)) found.set(name, archive.find(name)?.record);
    return found.get(name);
  };
  return {
    find,
    providers: (name) => providers.get(name) ?? [],
    base: [...base].filter((name) => !AVOIDED.has(name)).sort(),
    essential: [...essential].sort(),
    names: () => new Set([...names, ...providers.keys()]),
  };
}

/** Names that no package has are told before anything is fetched, with what may have been meant. */
function checkNames(extra: readonly string[], codename: string, universe: Universe): void {
  for (const name of extra) {
    if (!/^[a-z0-9][a-z0-9+.-]+$/.test(name)) {
      throw new ImageError(
        "bad-package",
        `"${name}" is no name of a Debian package`,
        "give names as apt takes them, with commas between",
      );
    }
  }
  const unknown = extra.filter((name) => universe.find(name) === undefined && universe.providers(name).length === 0);
  if (unknown.length === 0) return;
  const near = new Set(unknown.flatMap((name) => nearNames(name, universe.names())));
  throw new ImageError(
    "missing-package",
    `Debian's ${codename} has no package ${unknown.join(" and no ")}`,
    near.size > 0 ? `one of these: ${[...near].join(", ")}` : "look the name up with apt-cache search, on a Debian",
  );
}

/** Our own package, which comes from nowhere. */
function ownRecord(): PackageRecord {
  const control = parseParagraph(GUEST_PACKAGE_CONTROL);
  return {
    name: control.get("package")!,
    version: control.get("version")!,
    path: "",
    size: 0,
    sha256: "",
    control,
  };
}

/**
 * Which packages, in which versions. Reads indexes only. A disk with extra packages begins as one without: that takes a minute
 * rather than ten. Where an extra package makes others of the base give way, it is made from nothing.
 */
export async function planFullGuest(
  reference: string,
  extra: readonly string[],
  options: ArchiveOptions,
): Promise<FullGuestPlan> {
  const { codename, hostName } = known(reference);
  const archive = await DebianArchive.open(codename, options, INDEX_LIFE_MS);
  const universe = universeOf(archive);
  checkNames(extra, codename, universe);
  const kernel = kernelImage(archive, "linux-image-cloud-amd64");
  const ours = ownRecord();
  const preferred = PREFERRED.filter((name) => universe.find(name) !== undefined);
  const essential = installSet([...universe.essential, ...preferred], universe, { avoid: AVOIDED });
  const isEssential = new Set(essential.map(({ name }) => name));
  const system = [...universe.essential, ...preferred, ...universe.base, ...WANTED_PACKAGES, kernel.record.name];
  const closure = (names: readonly string[]): PackageRecord[] =>
    installSet(names, universe, { avoid: AVOIDED, present: [ours] });

  const planOf = async (
    first: readonly PackageRecord[],
    others: readonly PackageRecord[],
    present: readonly PackageRecord[],
    base?: FullGuestPlan,
  ): Promise<FullGuestPlan> => {
    const all = [...first, ...others];
    const versions = all.map(({ name, version, sha256 }) => `${name}=${version} ${sha256}`).sort();
    const key = await options.sha256(encodeUtf8([fullRecipe(), hostName, base?.key ?? "", ...versions].join("\n")));
    return {
      archive,
      base,
      packages: all.map(({ name }) => archive.need(name)),
      essential: first.map(({ name }) => name),
      layers: installLayers(base === undefined ? [...others, ours] : others, present).map((layer) =>
        layer.map(({ name }) => name),
      ),
      kernel,
      key,
      uuid: base?.uuid ?? key.replace(/^(.{8})(.{4}).(.{3}).(.{3})(.{12}).*$/, "$1-$2-4$3-8$4-$5"),
      hostName,
      codename,
    };
  };
  const fromNothing = (all: readonly PackageRecord[]): Promise<FullGuestPlan> =>
    planOf(
      essential,
      all.filter(({ name }) => !isEssential.has(name)),
      essential,
    );

  const plain = closure(system);
  if (extra.length === 0) return fromNothing(plain);
  const all = closure([...system, ...extra]);
  const names = new Set(all.map(({ name }) => name));
  if (plain.some(({ name }) => !names.has(name))) return fromNothing(all);
  const base = await fromNothing(plain);
  const isThere = new Set(plain.map(({ name }) => name));
  const added = all.filter(({ name }) => !isThere.has(name));
  return added.length === 0 ? base : planOf([], added, [...plain, ours], base);
}

/** Everything that the builder installs, as an ISO image. */
export async function writePayload(
  plan: FullGuestPlan,
  sink: ImageSink,
  onPackage: (n: number, name: string) => void,
): Promise<number> {
  const iso = new IsoWriter(sink);
  const base: Uint8Array[] = [];
  const places = new Map<string, string>();
  const isEssential = new Set(plan.essential);
  const add = async (name: string, deb: Uint8Array): Promise<void> => {
    const place = payloadPackage(places.size);
    places.set(name, shownName(place));
    await iso.add(place, [deb]);
  };
  for (const [i, found] of plan.packages.entries()) {
    const { name } = found.record;
    onPackage(i + 1, name);
    const { deb, data } = await unpackDeb(await plan.archive.fetch(found));
    if (isEssential.has(name)) base.push(withoutEndMark(data));
    await add(name, deb);
  }
  const text = (content: string): Uint8Array[] => [encodeUtf8(content)];
  const list = (names: readonly string[]): Uint8Array[] => text(names.map((name) => `${places.get(name)!}\n`).join(""));
  if (plan.base === undefined) {
    await add(GUEST_PACKAGE, guestPackage());
    await iso.add(PAYLOAD.base, [...base, new Uint8Array(1024)]);
    await iso.add(PAYLOAD.essential, list(plan.essential));
  }
  for (const [i, layer] of plan.layers.entries()) await iso.add(payloadLayer(i), list(layer));
  const script = plan.base === undefined ? buildScript(plan.hostName, plan.uuid) : extendScript();
  await iso.add(PAYLOAD.script, text(script));
  return iso.finish("ENLIGHTEN");
}

async function filesOf(plan: FullGuestPlan, name: string): Promise<readonly TarEntry[]> {
  return (await readDeb(await plan.archive.fetch(plan.archive.need(name)))).files;
}

/** mke2fs and its libraries, a cpio to append to the small guest's. */
export async function builderTools(plan: FullGuestPlan): Promise<Uint8Array<ArrayBuffer>> {
  const e2fsprogs = await filesOf(plan, "e2fsprogs");
  const program = need(e2fsprogs, "sbin/mke2fs", "e2fsprogs");
  const libraries: TarEntry[] = [];
  for (const name of ["libc6", "libext2fs2", "libcom-err2", "libblkid1", "libuuid1"]) {
    libraries.push(...(await filesOf(plan, name)));
  }
  const { files, missing } = libraryFiles([program], libraries);
  if (missing.length > 0) throw damaged("library packages", `none of them has ${missing.join(", ")}`);
  const tree = new Tree();
  tree.file("usr/sbin/mke2fs", program.data, 0o755);
  for (const [path, file] of files) tree.file(path, file.data, 0o755);
  tree.file("etc/mke2fs.conf", need(e2fsprogs, "etc/mke2fs.conf", "e2fsprogs").data);
  return writeCpio(tree.entries);
}

/** A cpio beside the boot's own: apt's sources for a new disk. They are the host's of today, and so are no part of the image. */
export function sourcesOverlay(aptSources: string): Uint8Array<ArrayBuffer> {
  const tree = new Tree();
  tree.directory("etc/enlighten");
  tree.file("etc/enlighten/sources.list", encodeUtf8(aptSources));
  return writeCpio(tree.entries);
}

/** What boots the disk: the kernel that is on it too, and an initramfs that finds it. */
export async function rootBoot(
  plan: FullGuestPlan,
): Promise<{ kernel: Uint8Array; kernelVersion: string; initramfs: Uint8Array<ArrayBuffer> }> {
  const kernel = (await readDeb(await plan.archive.fetch(plan.kernel))).files;
  const vmlinuz = kernel.find(({ path, kind }) => kind === "file" && /^boot\/vmlinuz-/.test(path));
  if (vmlinuz === undefined) throw damaged("kernel package", "it has no /boot/vmlinuz-*");
  const kernelVersion = vmlinuz.path.slice("boot/vmlinuz-".length);
  const tree = new Tree();
  for (const path of ["bin", "dev", "etc", "proc", "root", "run", "sbin", "sys"]) tree.directory(path);
  const console: CpioEntry = { kind: "character", path: "dev/console", mode: 0o600, major: 5, minor: 1 };
  tree.add(console);
  tree.file("bin/busybox", need(await filesOf(plan, "busybox-static"), "bin/busybox", "busybox-static").data, 0o755);
  for (const applet of BUSYBOX_APPLETS) tree.link(`bin/${applet}`, "busybox");
  tree.link("sbin/modprobe", "../bin/busybox");
  tree.file("init", ROOT_INIT, 0o755);
  tree.directory("etc/enlighten");
  // signed, as the modules on the disk are: the kernel stays untainted
  await addModules(tree, { kernel, keepModuleSignatures: true }, kernelVersion, ROOT_MODULES);
  return { kernel: vmlinuz.data, kernelVersion, initramfs: writeCpio(tree.entries) };
}
