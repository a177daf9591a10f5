/** Makes a root disk: a small guest of ours, with Debian's mke2fs and dpkg, installs packages on it. No root is needed here. */
import { chmod, open, rm } from "node:fs/promises";
import { concatBytes } from "../../image/byte-reader.js";
import type { PackageRecord } from "../../image/debian-index.js";
import { ImageError } from "../../image/errors.js";
import { builderTools, type FullGuestPlan, ROOT_BYTES, writePayload } from "../../image/full-guest.js";
import { BUILD_COMMAND } from "../../image/init/build-script.js";
import type { Progress } from "../../image/package-source.js";
import { type GuestFiles, Vm } from "../../vm/index.js";
import { nodePlatform } from "./platform.js";
import { copySparse } from "./sparse-copy.js";

const MEMORY_MIB = 1024;
/** Packages that are fetched at a time: a mirror answers in turns of some 50 ms. */
const FETCHES = 6;
const SHUTDOWN_MS = 20_000;
const LOG_LINES = 40;

export interface BuildOptions {
  readonly plan: FullGuestPlan;
  /** The small guest of the same release. */
  readonly builder: GuestFiles;
  /** Of the plan's base: the disk that it has. */
  readonly baseDisk: string | undefined;
  readonly progress: (progress: Progress) => void;
  readonly signal?: AbortSignal | undefined;
  /** Gets each line of the builder's standard output, for measurement. */
  readonly onLine?: (line: string) => void;
}

/** Parts of the whole time at which a phase begins, as measured; the installation is the rest. */
const PARTS = { fetch: 0, payload: 0.05, start: 0.08, install: 0.1, end: 0.99 } as const;
const between = (from: number, to: number, done: number, total: number): number =>
  from + (to - from) * Math.min(1, total === 0 ? 1 : done / total);

/**
 * How long a package takes, in seconds of one measured build: files to unpack, and scripts. Those that are slow run programs over
 * many files.
 */
const SLOW: readonly (readonly [RegExp, number])[] = [
  [/^python3\.\d+(-minimal)?$/, 40],
  [/^ca-certificates$/, 25],
  [/^(udev|python3|hyperv-daemons|linux-image-.*)$/, 15],
];
const unpackTime = (installedKib: number): number => 0.4 + installedKib / 10_000;
const configureTime = (name: string): number => SLOW.find(([pattern]) => pattern.test(name))?.[1] ?? 0.6;

const installedKib = ({ control }: PackageRecord): number => Number(control.get("installed-size")) || 0;
const timeOf = ({ record }: FullGuestPlan["packages"][number]): number =>
  unpackTime(installedKib(record)) + configureTime(record.name);
/** Until the builder is up, without the network. */
const START_SECONDS = 20;
/** Of a whole build on a quiet machine like the measured one, without the network. */
export const expectedSeconds = ({ packages }: FullGuestPlan): number =>
  packages.reduce((sum, found) => sum + timeOf(found), START_SECONDS);

/** All into the cache. The first failure ends the others, and is waited for. */
async function fetchAll({ plan, signal, progress }: BuildOptions): Promise<void> {
  const total = plan.packages.reduce((sum, { record }) => sum + record.size, 0);
  const got = new Map<string, number>();
  const report = (name: string, bytes: number): void => {
    got.set(name, bytes);
    const done = [...got.values()].reduce((a, b) => a + b, 0);
    const item = `${(done / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB`;
    progress({
      step: "build",
      name: "fetching packages",
      item,
      part: between(PARTS.fetch, PARTS.payload, done, total),
    });
  };
  const stop = new AbortController();
  const fetching = {
    signal: signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal]),
    progress: (p: Progress): void => {
      if (p.step === "package") report(p.name, p.bytes);
    },
  };
  const open = plan.packages.values();
  let failure: { readonly error: unknown } | undefined;
  const work = async (): Promise<void> => {
    try {
      for (const found of open) {
        fetching.signal.throwIfAborted();
        await plan.archive.fetch(found, fetching);
        report(found.record.name, found.record.size);
      }
    } catch (error) {
      failure ??= { error };
      stop.abort();
    }
  };
  await Promise.all(Array.from({ length: FETCHES }, work));
  if (failure !== undefined) throw failure.error;
}

async function makePayload(file: string, o: BuildOptions): Promise<void> {
  const handle = await open(file, "wx");
  try {
    const size = await writePayload(
      o.plan,
      async (offset, bytes) => {
        for (let at = 0; at < bytes.length; )
          at += (await handle.write(bytes, at, bytes.length - at, offset + at)).bytesWritten;
      },
      (n, name) => {
        o.signal?.throwIfAborted();
        const part = between(PARTS.payload, PARTS.start, n, o.plan.packages.length);
        o.progress({ step: "build", name: "preparing packages", item: name, part });
      },
    );
    await handle.truncate(size);
  } finally {
    await handle.close();
  }
}

/** What the builder says on standard output: which step, and how far dpkg is. */
class BuildLog {
  step = "starting the builder guest";
  finished = false;
  readonly #o: BuildOptions;
  readonly #sizes: ReadonlyMap<string, number>;
  readonly #total: number;
  #rest = "";
  #done = 0;

  constructor(o: BuildOptions) {
    this.#o = o;
    const { packages } = o.plan;
    this.#sizes = new Map(packages.map(({ record }) => [record.name, installedKib(record)]));
    this.#total = packages.reduce((sum, found) => sum + timeOf(found), 0);
  }
  push(text: string): void {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop()!;
    for (const line of lines) this.#line(line);
  }
  report(item: string): void {
    const part = this.#done === 0 ? PARTS.start : between(PARTS.install, PARTS.end, this.#done, this.#total);
    this.#o.progress({ step: "build", name: this.step, item, part });
  }
  #line(line: string): void {
    this.#o.onLine?.(line);
    const step = /^@step (.*)$/.exec(line)?.[1];
    const work = /^processing: (install|configure|trigproc): ([^:\s]+)/.exec(line);
    if (line === "@done") this.finished = true;
    else if (step !== undefined) {
      this.step = step;
      this.report("");
    } else if (work !== null) {
      const [, what, name = ""] = work;
      // the line is the beginning of the work: its time is added afterwards
      this.report(what === "install" ? name : `${name} is configured`);
      if (what === "install") this.#done += unpackTime(this.#sizes.get(name) ?? 0);
      else if (what === "configure") this.#done += configureTime(name);
    }
  }
}

const FAILED = "build-failed";
const failure = (step: string, details: string, cause?: unknown): ImageError =>
  new ImageError(
    FAILED,
    `the root disk could not be made: ${step} failed${details === "" ? "" : `\n${details}`}`,
    "leave packages out (--packages), or try again",
    { cause },
  );

async function install(disk: string, payload: string, o: BuildOptions): Promise<void> {
  const tools = await builderTools(o.plan);
  const builder: GuestFiles = {
    ...o.builder,
    load: async () => {
      const files = await o.builder.load();
      return { ...files, initrds: [...files.initrds, tools] };
    },
  };
  const log = new BuildLog(o);
  log.report("");
  const errors: Uint8Array[] = [];
  const vm = new Vm(nodePlatform, {
    guest: builder,
    memoryMiB: MEMORY_MIB,
    disks: [
      { file: disk, readOnly: false, ...(o.baseDisk === undefined ? { createBytes: ROOT_BYTES } : {}) },
      { file: payload, readOnly: true, kind: "dvd" },
    ],
  });
  const problems: string[] = [];
  vm.integration.onProblem((text) => problems.push(text));
  const onAbort = (): void => void vm.kill();
  o.signal?.addEventListener("abort", onAbort);
  const stdout = new TextDecoder();
  try {
    o.signal?.throwIfAborted();
    await vm.start();
    const child = await vm.spawn(["sh", "-c", BUILD_COMMAND], {
      onStdout: (data) => log.push(stdout.decode(data, { stream: true })),
      onStderr: (data) => void errors.push(data),
    });
    child.closeStdin();
    const { exitCode } = await child.exited;
    if (exitCode !== 0 || !log.finished) {
      const text = new TextDecoder().decode(concatBytes(errors)).trimEnd();
      throw failure(log.step, [...problems, ...text.split("\n").slice(-LOG_LINES)].join("\n"));
    }
    await vm.integration.shutdown({ force: true, timeoutMs: SHUTDOWN_MS });
    await vm.waitForEnd({ timeoutMs: SHUTDOWN_MS });
  } catch (error) {
    o.signal?.throwIfAborted();
    if (error instanceof ImageError && error.code === FAILED) throw error;
    throw failure(log.step, error instanceof Error ? error.message : String(error), error);
  } finally {
    o.signal?.removeEventListener("abort", onAbort);
    await vm.kill();
  }
}

/** Makes the disk in a new file. Nothing stays of a failed one. */
export async function buildRootDisk(file: string, o: BuildOptions): Promise<void> {
  const payload = `${file}.iso`;
  try {
    await fetchAll(o);
    await makePayload(payload, o);
    if (o.baseDisk !== undefined) {
      await copySparse(o.baseDisk, file);
      await chmod(file, 0o600);
    }
    await install(file, payload, o);
  } catch (error) {
    await rm(file, { force: true });
    throw error;
  } finally {
    await rm(payload, { force: true });
  }
}
