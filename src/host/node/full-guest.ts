/**
 * "debian:12-full" on Node: the root disk is made once for a list of packages and kept in the cache folder; each machine gets a copy
 * of its own, which goes when the machine ends.
 */
import { rmSync } from "node:fs";
import {
  access,
  chmod,
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  truncate,
  utimes,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { encodeUtf8 } from "../../image/byte-reader.js";
import type { ArchiveOptions } from "../../image/debian-archive.js";
import { INDEX_LIFE_MS } from "../../image/debian-guest.js";
import { ImageError } from "../../image/errors.js";
import {
  codenameOf,
  type FullGuestPlan,
  fullRecipe,
  parseFullReference,
  planFullGuest,
  ROOT_BYTES,
  rootBoot,
  sourcesOverlay,
} from "../../image/full-guest.js";
import type { GuestFiles } from "../../vm/platform.js";
import { readAptSettings } from "./apt-sources.js";
import { COMMAND_LINE, debianGuest, type GuestOptions } from "./guest.js";
import { readKeyring } from "./keyring.js";
import { Mirror } from "./mirror.js";
import { cacheFolder, FolderCache, sha256 } from "./package-cache.js";
import { buildRootDisk, expectedSeconds } from "./root-disk-builder.js";
import { copySparse } from "./sparse-copy.js";

/** Where a guest comes from, and what its root disk is to be. */
export interface FullGuestOptions extends GuestOptions {
  /** Debian packages beside those that the guest has anyway. */
  readonly packages?: readonly string[];
  /** Size of the root disk; its file system grows to it. Default: 8 GiB, which is also the least. */
  readonly rootBytes?: number;
  /** Keep the root disk in this file, and go on with it where it is there already. */
  readonly rootFile?: string;
  /** Gets each line that the builder prints, for measurement. */
  readonly onBuildLine?: (line: string) => void;
}

export const isFullReference = (reference: string): boolean => parseFullReference(reference) !== undefined;

/** What the cache keeps about a root disk. */
interface RootRecord {
  readonly fetchedAt: number;
  /** Of what the disk is made of beside the archive's packages. */
  readonly recipe: string;
  readonly key: string;
  /** Those that were asked for beside the guest's own. */
  readonly packages: readonly string[];
  readonly kernelVersion: string;
  readonly kernelSha256: string;
  readonly initramfsSha256: string;
}
function isRootRecord(value: unknown): value is RootRecord {
  if (typeof value !== "object" || value === null) return false;
  const r = value as Record<string, unknown>;
  return (
    typeof r.fetchedAt === "number" &&
    typeof r.recipe === "string" &&
    typeof r.key === "string" &&
    /^[0-9a-f]{64}$/.test(r.key) &&
    Array.isArray(r.packages) &&
    r.packages.every((name) => typeof name === "string") &&
    typeof r.kernelVersion === "string" &&
    typeof r.kernelSha256 === "string" &&
    typeof r.initramfsSha256 === "string"
  );
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );

const UNUSED_MS = 30 * 24 * 3_600_000;

/** Root disks in the cache folder, by key. */
class RootDisks {
  readonly folder: string;
  constructor(cache: string) {
    this.folder = join(cache, "disks");
  }
  path(key: string): string {
    return join(this.folder, `${key}.raw`);
  }
  /** A disk's time is that of its last use. */
  async use(key: string): Promise<string> {
    const now = new Date();
    await utimes(this.path(key), now, now).catch(() => {}); // in a cache that may only be read
    return this.path(key);
  }
  /** Removes disks that have not been used for long: each is a gigabyte, and lists of extra packages come and go. */
  async forget(): Promise<void> {
    for (const name of await readdir(this.folder)) {
      if (!/^[0-9a-f]{64}\.raw$/.test(name)) continue;
      const file = join(this.folder, name);
      // another process may have been quicker
      const used = await stat(file).catch(() => undefined);
      if (used !== undefined && Date.now() - used.mtimeMs > UNUSED_MS) await rm(file, { force: true });
    }
  }
  /** A half-made disk has another name, so one that is there is whole. */
  async make(key: string, build: (file: string) => Promise<void>): Promise<void> {
    await mkdir(this.folder, { recursive: true });
    await sweep(this.folder, /^[0-9a-f]{64}\.(\d+)\.part/);
    await this.forget();
    const partial = join(this.folder, `${key}.${process.pid}.part`);
    try {
      await rm(partial, { force: true });
      await build(partial);
      await chmod(partial, 0o444); // nothing boots from it: each machine has a copy
      await rename(partial, this.path(key));
    } catch (error) {
      await rm(partial, { force: true });
      throw error;
    }
  }
}

/** apt's lines for the mirror in use; a mirror in this host's files is of no use to a guest. */
function aptLines(mirror: Mirror, codename: string): string {
  const line = (url: string | undefined, suite: string): string =>
    url === undefined || !/^https?:/.test(url) ? "" : `deb ${url} ${suite} main\n`;
  return line(mirror.urls("main")[0], codename) + line(mirror.urls("security")[0], `${codename}-security`);
}

interface Prepared {
  readonly record: RootRecord;
  readonly disk: string;
  /** What a new disk has as apt's sources; undefined for one that has been used. */
  readonly aptSources?: string;
}

interface Workplace {
  readonly archive: ArchiveOptions;
  readonly mirror: Mirror;
  readonly cache: FolderCache;
  readonly disks: RootDisks;
}

async function workplace(o: FullGuestOptions): Promise<Workplace> {
  const environment = o.environment ?? process.env;
  const apt = await readAptSettings();
  const mirror = new Mirror({
    mirror: o.mirror,
    offline: o.offline,
    environment,
    apt,
    keyring: () => readKeyring(o.keyring),
  });
  const cache = new FolderCache(cacheFolder(environment));
  const archive: ArchiveOptions = {
    source: mirror,
    cache,
    sha256,
    now: () => Date.now(),
    allowExpired: apt.configuration.get("acquire::check-valid-until") === "false",
    ...(o.offline === undefined ? {} : { offline: o.offline }),
    ...(o.progress === undefined ? {} : { progress: o.progress }),
    ...(o.signal === undefined ? {} : { signal: o.signal }),
  };
  return { archive, mirror, cache, disks: new RootDisks(cache.folder) };
}

async function prepare(reference: string, o: FullGuestOptions): Promise<Prepared> {
  const w = await workplace(o);
  const { cache, disks, archive } = w;
  const extra = [...new Set(o.packages ?? [])].sort();
  const aptSources = aptLines(w.mirror, codenameOf(reference));
  const recipe = await sha256(encodeUtf8(fullRecipe()));
  const known = await cache.readRecord(await recordName(reference, extra, recipe));
  if (isRootRecord(known) && known.recipe === recipe && (await exists(disks.path(known.key)))) {
    const age = archive.now() - known.fetchedAt;
    if (o.offline || (age >= 0 && age < INDEX_LIFE_MS))
      return { record: known, disk: await disks.use(known.key), aptSources };
  }
  const plan = await planFullGuest(reference, extra, archive);
  if (plan.base !== undefined) await disks.use((await makeDisk(reference, plan.base, [], w, o)).key);
  const record = await makeDisk(reference, plan, extra, w, o);
  return { record, disk: await disks.use(record.key), aptSources };
}

/** Versions of this program with other recipes have records of their own, and do not take each other's disks away. */
async function recordName(reference: string, extra: readonly string[], recipe: string): Promise<string> {
  const name = `root-${reference.replace(":", "-")}-${recipe.slice(0, 12)}`;
  return extra.length === 0 ? name : `${name}-${(await sha256(encodeUtf8(extra.join(" ")))).slice(0, 12)}`;
}

/** The disk of a plan, if it is not there, and what is known of it. */
async function makeDisk(
  reference: string,
  plan: FullGuestPlan,
  extra: readonly string[],
  { cache, disks }: Workplace,
  o: FullGuestOptions,
): Promise<RootRecord> {
  const { kernel, kernelVersion, initramfs } = await rootBoot(plan);
  if (!(await exists(disks.path(plan.key)))) await build(reference, plan, extra, disks, o);
  const recipe = await sha256(encodeUtf8(fullRecipe()));
  const record: RootRecord = {
    fetchedAt: plan.archive.fetchedAt,
    recipe,
    key: plan.key,
    packages: extra,
    kernelVersion,
    kernelSha256: await sha256(kernel),
    initramfsSha256: await sha256(initramfs),
  };
  await cache.write(record.kernelSha256, kernel);
  await cache.write(record.initramfsSha256, initramfs);
  const name = await recordName(reference, extra, recipe);
  const known = await cache.readRecord(name);
  await cache.writeRecord(name, record);
  // there are newer packages: the disk before is a gigabyte that nothing leads to any more
  if (isRootRecord(known) && known.key !== record.key) await rm(disks.path(known.key), { force: true });
  return record;
}

async function build(
  reference: string,
  plan: FullGuestPlan,
  extra: readonly string[],
  disks: RootDisks,
  o: FullGuestOptions,
): Promise<void> {
  const builder = await debianGuest(reference.replace(/-full$/, ""), o);
  o.progress?.({
    step: "long-work",
    name: `the disk of ${[reference, ...extra].join(" + ")}`,
    packages: plan.packages.length,
    bytes: plan.packages.reduce((sum, { record }) => sum + record.size, 0),
    seconds: expectedSeconds(plan),
  });
  await disks.make(plan.key, (file) =>
    buildRootDisk(file, {
      plan,
      builder,
      baseDisk: plan.base === undefined ? undefined : disks.path(plan.base.key),
      progress: o.progress ?? (() => {}),
      signal: o.signal,
      ...(o.onBuildLine === undefined ? {} : { onLine: o.onBuildLine }),
    }),
  );
}

/** Removes what processes that are gone, killed perhaps, have left. @param pattern its first group is the process's number */
async function sweep(folder: string, pattern: RegExp): Promise<void> {
  for (const name of await readdir(folder).catch(() => [])) {
    const pid = Number(pattern.exec(name)?.[1]);
    if (!Number.isSafeInteger(pid)) continue;
    try {
      process.kill(pid, 0);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ESRCH")
        await rm(join(folder, name), { recursive: true, force: true });
    }
  }
}

let copies = 0;

/** A machine's own copy of the root disk. */
async function temporaryCopy(disk: string, cache: string): Promise<{ file: string; remove: () => void }> {
  const machines = join(cache, "machines");
  await sweep(machines, /^(\d+)-\d+$/);
  const folder = join(machines, `${process.pid}-${++copies}`);
  await mkdir(folder, { recursive: true });
  const remove = (): void => {
    process.off("exit", remove);
    rmSync(folder, { recursive: true, force: true });
  };
  process.on("exit", remove);
  try {
    const file = join(folder, "root.raw");
    await copySparse(disk, file);
    await chmod(file, 0o600);
    return { file, remove };
  } catch (error) {
    remove();
    throw error;
  }
}

/** A kept disk has the modules of one kernel: which one stands beside it, since the archive goes on to others. */
const besideRoot = (file: string): string => `${file}.boot.json`;
async function keptRecord(file: string): Promise<Prepared | undefined> {
  if (!(await exists(file))) return undefined;
  const text = await readFile(besideRoot(file), "utf8").catch(() => "");
  try {
    const record: unknown = JSON.parse(text);
    return isRootRecord(record) ? { record, disk: file } : undefined;
  } catch {
    return undefined; // it has gone or was damaged: the present kernel is the best guess
  }
}

async function grow(file: string, bytes: number): Promise<void> {
  const { size } = await stat(file);
  if (bytes < size) {
    throw new ImageError(
      "too-small",
      `the root disk has ${size} bytes already and cannot be made smaller`,
      `give a size of at least ${size / 2 ** 30}G`,
    );
  }
  if (bytes > size) await truncate(file, bytes);
}

export interface FullGuest {
  readonly files: GuestFiles;
  /** Removes what is the machine's alone: call it when the machine has ended. */
  readonly remove: () => void;
}

/** Prepares the root disk, which takes minutes the first time, and a copy of it. */
export async function fullGuest(reference: string, o: FullGuestOptions = {}): Promise<FullGuest> {
  const environment = o.environment ?? process.env;
  const cache = new FolderCache(cacheFolder(environment));
  if (o.rootBytes !== undefined && o.rootBytes < ROOT_BYTES) {
    throw new ImageError("too-small", `the root disk of ${reference} has 8G at least`, "give a larger size");
  }
  const kept = o.rootFile === undefined ? undefined : await keptRecord(o.rootFile);
  const isMissing = (o.packages ?? []).filter((name) => kept !== undefined && !kept.record.packages.includes(name));
  if (isMissing.length > 0) {
    throw new ImageError(
      "disk-exists",
      `${o.rootFile} is there already, made without ${isMissing.join(", ")}`,
      "name another file, or leave --packages out",
    );
  }
  const { record, disk, aptSources } = kept ?? (await prepare(reference, o));
  o.progress?.({ step: "assemble", name: `the disk of ${reference}` });
  let file = o.rootFile;
  let remove = (): void => {};
  if (file === undefined) ({ file, remove } = await temporaryCopy(disk, cache.folder));
  else if (!(await exists(file))) {
    await copySparse(disk, file);
    await chmod(file, 0o600);
    await writeFile(besideRoot(file), `${JSON.stringify({ ...record, reference }, null, 2)}\n`);
  }
  try {
    if (o.rootBytes !== undefined) await grow(file, o.rootBytes);
  } catch (error) {
    remove();
    throw error;
  }
  const load = async (): Promise<{ kernel: Uint8Array; initrds: Uint8Array[] }> => {
    const [kernel, initramfs] = await Promise.all([
      cache.read(record.kernelSha256),
      cache.read(record.initramfsSha256),
    ]);
    if (kernel === undefined || initramfs === undefined) {
      throw new ImageError("not-cached", `the kernel of ${reference} has gone from the cache`, "start it again");
    }
    return { kernel, initrds: aptSources === undefined ? [initramfs] : [initramfs, sourcesOverlay(aptSources)] };
  };
  const files: GuestFiles = {
    load,
    commandLine: `${COMMAND_LINE} root=/dev/sda rw quiet loglevel=3`,
    takesExec: true,
    hasAgent: true,
    prompt: /root@[\w-]+:~# /,
    description: `${reference} · Linux ${record.kernelVersion}`,
    disks: [{ file, readOnly: false, kind: "disk" }],
  };
  return { files, remove };
}
