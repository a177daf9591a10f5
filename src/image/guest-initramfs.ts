/** From unpacked Debian packages to a guest's kernel and initramfs: which files are kept, and what is added. */
import { encodeUtf8, utf8 } from "./byte-reader.js";
import { decompress } from "./compression.js";
import { type CpioEntry, writeCpio } from "./cpio.js";
import { isElf, readElfNeeds } from "./elf.js";
import { damaged } from "./errors.js";
import { AGENT, AGENT_PERL } from "./init/agent.js";
import { BUSYBOX_APPLETS } from "./init/applets.js";
import { DHCP_SCRIPT, FSTAB, INITTAB, POWEROFF, profile, RECIPE_VERSION, SESSION } from "./init/init-script.js";
import { type ModuleInfo, moduleName, readModuleInfo, withoutSignature } from "./modinfo.js";
import { loadOrder, writeModulesAlias, writeModulesDep } from "./module-closure.js";
import type { TarEntry } from "./tar.js";

/**
 * Modules that the guest may want: Hyper-V's own drivers, what sits on them, and file systems. Names that a kernel
 * has built in or lacks are skipped; dependencies come by themselves.
 */
const WANTED_MODULES: readonly string[] = `
hv_vmbus hv_utils hv_balloon hv_storvsc hv_netvsc hv_sock vsock_diag hyperv_keyboard hid_hyperv hyperv_fb hyperv_drm
pci_hyperv uio_hv_generic hid_generic evdev mousedev sd_mod sr_mod sg scsi_transport_fc
ext4 vfat isofs overlay fuse squashfs nls_cp437 nls_ascii nls_utf8 nls_iso8859_1 crc32c_generic loop af_packet
`
  .trim()
  .split(/\s+/);

/** All that a guest is made of beside its packages, as one text: its hash is part of the cache's key. */
export const guestRecipe = (): string =>
  JSON.stringify([
    RECIPE_VERSION,
    WANTED_MODULES,
    BUSYBOX_APPLETS,
    INITTAB,
    SESSION,
    POWEROFF,
    FSTAB,
    DHCP_SCRIPT,
    AGENT,
    profile(""),
  ]);

export interface GuestParts {
  /** The kernel package's files. */
  readonly kernel: readonly TarEntry[];
  readonly busybox: readonly TarEntry[];
  /** Integration daemons; may be empty. */
  readonly daemons: readonly TarEntry[];
  /** perl-base, for the agent; may be empty. */
  readonly perl: readonly TarEntry[];
  /** Packages in which the daemons' libraries are looked up. */
  readonly libraries: readonly TarEntry[];
  /** base-files: who the distribution is. */
  readonly identity: readonly TarEntry[];
  /** See `withoutSignature`. */
  readonly keepModuleSignatures: boolean;
  readonly moreModules: readonly string[];
}

export interface GuestImage {
  /** The bzImage as Debian ships it. */
  readonly kernel: Uint8Array;
  readonly kernelVersion: string;
  /** Uncompressed newc cpio. */
  readonly initramfs: Uint8Array<ArrayBuffer>;
}

/** Collects entries and makes the directories above each, once. */
export class Tree {
  readonly entries: CpioEntry[] = [];
  readonly #directories = new Set<string>([""]);

  directory(path: string, mode = 0o755): void {
    if (this.#directories.has(path)) return;
    this.#above(path);
    this.#directories.add(path);
    this.entries.push({ kind: "directory", path, mode });
  }

  #above(path: string): void {
    const slash = path.lastIndexOf("/");
    if (slash > 0) this.directory(path.slice(0, slash));
  }

  file(path: string, content: Uint8Array | string, mode = 0o644): void {
    this.#above(path);
    const data = typeof content === "string" ? encodeUtf8(content) : content;
    this.entries.push({ kind: "file", path, mode, data });
  }

  link(path: string, target: string): void {
    this.#above(path);
    this.entries.push({ kind: "symlink", path, target });
  }

  add(entry: CpioEntry): void {
    this.#above(entry.path);
    this.entries.push(entry);
  }
}

/** A file by path, through symlinks and with Debian's merged /usr in mind (both /lib/x and /usr/lib/x mean one file). */
function find(files: readonly TarEntry[], path: string, depth = 0): TarEntry | undefined {
  const other = path.startsWith("usr/") ? path.slice(4) : `usr/${path}`;
  const entry = files.find((file) => file.path === path) ?? files.find((file) => file.path === other);
  if (entry?.kind !== "symlink" && entry?.kind !== "hardlink") return entry;
  if (depth === 8) throw damaged("Debian package", `the links of ${path} go in circles`);
  if (entry.kind === "hardlink") return find(files, entry.link, depth + 1);
  const base = entry.link.startsWith("/") ? [] : entry.path.split("/").slice(0, -1);
  const parts: string[] = [];
  for (const part of [...base, ...entry.link.split("/")]) {
    if (part === "..") parts.pop();
    else if (part !== "." && part !== "") parts.push(part);
  }
  return find(files, parts.join("/"), depth + 1);
}

export function need(files: readonly TarEntry[], path: string, packageName: string): TarEntry {
  const entry = find(files, path);
  if (entry?.kind !== "file") throw damaged(`package ${packageName}`, `it has no /${path}`);
  return entry;
}

/** Modules by name; Debian packs them from release 13 on. */
function moduleFiles(kernel: readonly TarEntry[], root: string): Map<string, TarEntry> {
  const files = new Map<string, TarEntry>();
  for (const entry of kernel) {
    const match = /^(?:usr\/)?(.*\/)([^/]+)\.ko(\.xz|\.zst|\.gz)?$/.exec(entry.path);
    if (entry.kind === "file" && match !== null && match[1]!.startsWith(root)) files.set(moduleName(match[2]!), entry);
  }
  return files;
}

export async function addModules(
  tree: Tree,
  parts: Pick<GuestParts, "kernel" | "keepModuleSignatures">,
  version: string,
  wanted: readonly string[],
): Promise<void> {
  const root = `lib/modules/${version}/`;
  const files = moduleFiles(parts.kernel, root);
  const builtInFile = find(parts.kernel, `${root}modules.builtin`);
  const builtIn = new Set(
    utf8(builtInFile?.data ?? new Uint8Array(0))
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => moduleName(line.slice(line.lastIndexOf("/") + 1).replace(/\.ko$/, ""))),
  );

  // Unpack and read only what is wanted and what that leads to.
  const infos = new Map<string, ModuleInfo>();
  const dataOf = new Map<string, Uint8Array>();
  const open = new Set(wanted.map(moduleName));
  for (const name of open) {
    const file = files.get(name);
    if (file === undefined) continue;
    const data = await decompress(file.data);
    const info = readModuleInfo(data, name);
    infos.set(name, info);
    dataOf.set(name, parts.keepModuleSignatures ? data : withoutSignature(data));
    for (const other of [...info.depends, ...info.softBefore]) open.add(other);
  }
  const order = loadOrder(wanted, infos, builtIn);
  const pathOf = ({ name }: ModuleInfo): string =>
    files
      .get(name)!
      .path.replace(/^usr\//, "")
      .slice(root.length)
      .replace(/\.ko\..*$/, ".ko");
  for (const module of order) tree.file(root + pathOf(module), dataOf.get(module.name)!);
  tree.file(`${root}modules.dep`, writeModulesDep(order, pathOf, infos, builtIn));
  tree.file(`${root}modules.alias`, writeModulesAlias(order));
  if (builtInFile !== undefined) tree.file(`${root}modules.builtin`, builtInFile.data);
}

/** The files that `programs` need from `libraries`, and the names of those that are in none of them. */
export function libraryFiles(
  programs: readonly TarEntry[],
  libraries: readonly TarEntry[],
): { files: Map<string, TarEntry>; missing: string[] } {
  const folders = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];
  const files = new Map<string, TarEntry>();
  const missing: string[] = [];
  const seen = new Set<string>();
  const visit = (data: Uint8Array): void => {
    if (!isElf(data)) return;
    const { interpreter, libraries: names } = readElfNeeds(data);
    for (const name of interpreter === undefined ? names : [interpreter.replace(/^\/+/, ""), ...names]) {
      const fileName = name.replace(/^.*\//, "");
      if (seen.has(fileName)) continue;
      seen.add(fileName);
      const places = [name, ...folders.map((folder) => `${folder}/${fileName}`)];
      const file = places.map((place) => find(libraries, place)).find((entry) => entry?.kind === "file");
      if (file === undefined) missing.push(name);
      else {
        files.set(name.includes("/") ? name : `lib/x86_64-linux-gnu/${name}`, file);
        visit(file.data);
      }
    }
  };
  for (const program of programs) if (program.kind === "file") visit(program.data);
  return { files, missing };
}

const isDaemonFile = ({ path, kind }: TarEntry): boolean =>
  kind === "file" && (/^usr\/sbin\/hv_[a-z]+_daemon$/.test(path) || path.startsWith("usr/libexec/hypervkvpd/"));

/** perl-base has it under a second name too, as a hard link. */
const isPerl = ({ path, kind }: TarEntry): boolean => kind === "file" && path === "usr/bin/perl";
const isProgram = (entry: TarEntry): boolean => isDaemonFile(entry) || isPerl(entry);

/** Libraries that the programs need and `libraries` lacks: fetch more packages until there are none. */
export function missingLibraries(packages: readonly TarEntry[], libraries: readonly TarEntry[]): string[] {
  return libraryFiles(packages.filter(isProgram), libraries).missing;
}

function addPrograms(tree: Tree, packages: readonly TarEntry[], libraries: readonly TarEntry[]): void {
  const programs = packages.filter(isProgram);
  const { files, missing } = libraryFiles(programs, libraries);
  if (missing.length > 0) throw damaged("library packages", `none of them has ${missing.join(", ")}`);
  for (const program of programs) tree.file(isPerl(program) ? AGENT_PERL : program.path, program.data, program.mode);
  for (const [path, file] of files) tree.file(path, file.data, 0o755);
}

/** @param reference "debian:12", for the prompt and the host name */
export async function assembleGuest(reference: string, parts: GuestParts): Promise<GuestImage> {
  const vmlinuz = parts.kernel.find(({ path, kind }) => kind === "file" && /^boot\/vmlinuz-/.test(path));
  if (vmlinuz === undefined) throw damaged("kernel package", "it has no /boot/vmlinuz-*");
  const version = vmlinuz.path.slice("boot/vmlinuz-".length);
  const osRelease = need(parts.identity, "usr/lib/os-release", "base-files").data;

  const tree = new Tree();
  for (const path of [
    "bin",
    "dev",
    "etc",
    "lib",
    "mnt",
    "proc",
    "root",
    "run",
    "sbin",
    "sys",
    "usr",
    "var/lib/hyperv",
  ]) {
    tree.directory(path, path === "root" ? 0o700 : 0o755);
  }
  tree.directory("tmp", 0o1777);
  tree.add({ kind: "character", path: "dev/console", mode: 0o600, major: 5, minor: 1 });
  tree.add({ kind: "character", path: "dev/null", mode: 0o666, major: 1, minor: 3 });

  tree.file("bin/busybox", need(parts.busybox, "bin/busybox", "busybox-static").data, 0o755);
  for (const applet of BUSYBOX_APPLETS) tree.link(`bin/${applet}`, "busybox");
  tree.link("sbin/modprobe", "../bin/busybox"); // where the kernel looks
  tree.file("sbin/poweroff", POWEROFF, 0o755);
  tree.link("sbin/reboot", "poweroff");
  tree.link("sbin/halt", "poweroff");

  tree.link("init", "bin/busybox");
  tree.file("etc/inittab", INITTAB);
  tree.file("etc/enlighten/session", SESSION, 0o755);
  tree.file("etc/fstab", FSTAB);
  tree.file("etc/profile", profile(reference));
  tree.file("etc/hostname", `${reference.replace(/[^A-Za-z0-9]+/g, "-")}\n`);
  tree.file("etc/hosts", "127.0.0.1 localhost\n");
  tree.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n");
  tree.file("etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n");
  tree.file("etc/os-release", osRelease);
  const debianVersion = find(parts.identity, "etc/debian_version");
  if (debianVersion?.kind === "file") tree.file("etc/debian_version", debianVersion.data);
  tree.file("usr/share/udhcpc/default.script", DHCP_SCRIPT, 0o755);
  tree.link("etc/udhcpc/default.script", "/usr/share/udhcpc/default.script"); // Debian's place for it

  // What /dev has beside its devices; init copies it over the fresh devtmpfs.
  tree.directory("etc/enlighten/dev/pts");
  tree.directory("etc/enlighten/dev/shm", 0o1777);
  tree.link("etc/enlighten/dev/fd", "/proc/self/fd");
  for (const [i, name] of ["stdin", "stdout", "stderr"].entries()) {
    tree.link(`etc/enlighten/dev/${name}`, `/proc/self/fd/${i}`);
  }
  tree.add({ kind: "fifo", path: "etc/enlighten/pause", mode: 0o600 });

  await addModules(tree, parts, version, [...WANTED_MODULES, ...parts.moreModules]);
  if (parts.perl.some(isPerl)) tree.file("etc/enlighten/agent", AGENT);
  addPrograms(tree, [...parts.daemons, ...parts.perl], parts.libraries);
  return { kernel: vmlinuz.data, kernelVersion: version, initramfs: writeCpio(tree.entries) };
}
