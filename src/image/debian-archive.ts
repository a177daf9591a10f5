/** The suites of one Debian release on a mirror: verified indexes, and packages fetched by hash through the cache. */
import { decompress } from "./compression.js";
import {
  type FoundPackage,
  newestPackage,
  PackageIndex,
  type PackageSummary,
  parseRelease,
  type Release,
  verifyClearsigned,
} from "./debian-index.js";
import { damaged, ImageError } from "./errors.js";
import type { Archive, AssemblyHost, FetchOptions, Progress } from "./package-source.js";

export interface ArchiveOptions extends AssemblyHost {
  readonly offline?: boolean;
  readonly allowExpired?: boolean;
  readonly progress?: (progress: Progress) => void;
  readonly signal?: AbortSignal;
  /** Whose packages: "amd64" when not given. */
  readonly architecture?: string;
}

export type Fetching = Pick<ArchiveOptions, "progress" | "signal">;

const MAX_RELEASE = 4 << 20;
const MAX_INDEX = 64 << 20;
const MAX_INDEX_UNPACKED = 512 << 20;
const MAX_PACKAGE = 512 << 20;

interface Suite {
  readonly archive: Archive;
  readonly release: Release;
  readonly fetchedAt: number;
  readonly index: PackageIndex;
}

interface ReleaseRecord {
  readonly fetchedAt: number;
  readonly sha256: string;
}

const isReleaseRecord = (value: unknown): value is ReleaseRecord =>
  typeof value === "object" &&
  value !== null &&
  typeof (value as ReleaseRecord).fetchedAt === "number" &&
  typeof (value as ReleaseRecord).sha256 === "string";

const offlineMiss = (what: string): ImageError =>
  new ImageError("not-cached", `${what} is not in the cache`, "run once without --offline");

export class DebianArchive {
  readonly #options: ArchiveOptions;
  readonly #suites: readonly Suite[];

  private constructor(options: ArchiveOptions, suites: readonly Suite[]) {
    this.#options = options;
    this.#suites = suites;
  }

  /** @param lifeMs how long a fetched index is used again without asking the mirror */
  static async open(codename: string, options: ArchiveOptions, lifeMs: number): Promise<DebianArchive> {
    const places: { archive: Archive; suite: string }[] = [
      { archive: "security", suite: `${codename}-security` },
      { archive: "main", suite: codename },
    ];
    // When one suite fails the other is stopped, and waited for: nothing goes on behind the caller's back.
    const stop = new AbortController();
    const signal = options.signal === undefined ? stop.signal : AbortSignal.any([options.signal, stop.signal]);
    let failure: { readonly error: unknown } | undefined;
    const suites = await Promise.all(
      places.map(({ archive, suite }) =>
        openSuite(archive, suite, { ...options, signal }, lifeMs).catch((error: unknown) => {
          // A mirror of the main archive alone is a mirror still; only it has no fresh fixes.
          if (archive === "security" && error instanceof ImageError && error.code === "not-found") {
            options.progress?.({ step: "warning", code: "no-security-suite", name: suite });
            return undefined;
          }
          failure ??= { error };
          stop.abort();
          return undefined;
        }),
      ),
    );
    if (failure !== undefined) throw failure.error;
    return new DebianArchive(
      options,
      suites.filter((suite) => suite !== undefined),
    );
  }

  /** When the oldest of the indexes was fetched. */
  get fetchedAt(): number {
    return Math.min(...this.#suites.map(({ fetchedAt }) => fetchedAt));
  }

  get validUntil(): number | undefined {
    const dates = this.#suites.map(({ release }) => release.validUntil).filter((date) => date !== undefined);
    return dates.length === 0 ? undefined : Math.min(...dates);
  }

  find(name: string): FoundPackage<Archive> | undefined {
    return newestPackage(this.#suites, name);
  }

  /** What all packages of all suites say of themselves in brief; a name may come more than once. */
  *summaries(): Generator<PackageSummary> {
    for (const { index } of this.#suites) yield* index.summaries();
  }

  need(name: string): FoundPackage<Archive> {
    const found = this.find(name);
    if (found !== undefined) return found;
    throw new ImageError("missing-package", `the mirror has no package ${name}`, "use another mirror (--mirror)");
  }

  /**
   * The .deb, from the cache or the mirror, with the size and hash that the index states.
   * @param fetching instead of what `open` got: who fetches many gives account of them together, and stops them together
   */
  fetch({ archive, record }: FoundPackage<Archive>, fetching: Fetching = {}): Promise<Uint8Array> {
    const { name, path, size, sha256 } = record;
    return fetchByHash({ ...this.#options, ...fetching }, archive, [path], { step: "package", name, size, sha256 });
  }
}

interface Expected {
  readonly step: "index" | "package";
  readonly name: string;
  readonly size: number;
  readonly sha256: string;
}

/** Tries the paths in turn; what does not have the stated size and hash is refused by name. */
async function fetchByHash(
  options: ArchiveOptions,
  archive: Archive,
  paths: readonly string[],
  { step, name, size, sha256 }: Expected,
): Promise<Uint8Array> {
  const cached = await options.cache.read(sha256);
  if (cached !== undefined) return cached;
  if (options.offline) throw offlineMiss(name);
  const maxBytes = step === "package" ? MAX_PACKAGE : MAX_INDEX;
  if (size > maxBytes) throw damaged(name, `its index states a size of ${size} bytes`);
  const fetchOptions: FetchOptions = {
    signal: options.signal,
    maxBytes: size,
    onBytes: (bytes) => options.progress?.({ step, name, bytes, totalBytes: size }),
  };
  let failure: unknown;
  for (const path of paths) {
    let bytes: Uint8Array | undefined;
    try {
      bytes = await options.source.fetch(archive, path, fetchOptions);
    } catch (error) {
      if (!(error instanceof ImageError) || (error.code !== "not-found" && error.code !== "too-big")) throw error;
      failure = error;
      if (error.code === "not-found") continue;
    }
    if (bytes?.length === size && (await options.sha256(bytes)) === sha256) {
      await options.cache.write(sha256, bytes);
      return bytes;
    }
    failure = new ImageError(
      "wrong-hash",
      `${name} from ${options.source.name} is not what the signed index promises`,
      "try again later or use another mirror (--mirror): this one is damaged, or is being updated",
    );
  }
  throw failure;
}

async function openSuite(archive: Archive, suite: string, options: ArchiveOptions, lifeMs: number): Promise<Suite> {
  const name = `${suite}'s InRelease`;
  const { bytes, fetchedAt, isNew } = await readRelease(archive, suite, options, lifeMs);
  const text = await verifyClearsigned(bytes, await options.source.keyring(), name, options.now());
  const release = parseRelease(text, name);
  if (release.codename !== suite) {
    throw new ImageError(
      "wrong-suite",
      `${name} is that of ${release.codename || "an unnamed suite"}`,
      "use another mirror (--mirror)",
    );
  }
  if (release.validUntil !== undefined && options.now() > release.validUntil) {
    if (!options.offline && !options.allowExpired) {
      throw new ImageError(
        "release-expired",
        `${name} was valid until ${new Date(release.validUntil).toISOString()} only`,
        "use another mirror (--mirror), check this computer's clock, or use the cache alone (--offline)",
      );
    }
    options.progress?.({ step: "warning", code: "release-expired", name: suite });
  }
  if (isNew) {
    const sha256 = await options.sha256(bytes);
    await options.cache.write(sha256, bytes);
    const record: ReleaseRecord = { fetchedAt, sha256 };
    await options.cache.writeRecord(`release-${suite}`, record);
  }

  const packages = `main/binary-${options.architecture ?? "amd64"}/Packages.xz`;
  const stated = release.files.get(packages);
  if (stated === undefined) throw damaged(name, `it does not list ${packages}`);
  const folder = `dists/${suite}`;
  const byHash = `${folder}/${packages.replace(/[^/]*$/, "")}by-hash/SHA256/${stated.sha256}`;
  const paths = [...(release.hasByHash ? [byHash] : []), `${folder}/${packages}`];
  const packed = await fetchByHash(options, archive, paths, { step: "index", name: `${suite}'s index`, ...stated });
  const index = new PackageIndex(await decompress(packed, MAX_INDEX_UNPACKED));
  return { archive, release, fetchedAt, index };
}

/** The suite's InRelease: the cached one while it is young, or for ever when offline. */
async function readRelease(
  archive: Archive,
  suite: string,
  options: ArchiveOptions,
  lifeMs: number,
): Promise<{ bytes: Uint8Array; fetchedAt: number; isNew: boolean }> {
  const record = await options.cache.readRecord(`release-${suite}`);
  if (isReleaseRecord(record)) {
    const age = options.now() - record.fetchedAt;
    const bytes = options.offline || (age >= 0 && age < lifeMs) ? await options.cache.read(record.sha256) : undefined;
    if (bytes !== undefined) return { bytes, fetchedAt: record.fetchedAt, isNew: false };
  }
  if (options.offline) throw offlineMiss(`the index of ${suite}`);
  const path = `dists/${suite}/InRelease`;
  const bytes = await options.source.fetch(archive, path, { signal: options.signal, maxBytes: MAX_RELEASE });
  return { bytes, fetchedAt: options.now(), isNew: true };
}
