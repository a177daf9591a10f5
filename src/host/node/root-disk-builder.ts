/** Makes a root disk: a small guest of ours, with Debian's mke2fs and dpkg, installs packages on it. No root is needed here. */
import { open, rm } from "node:fs/promises";
import { concatBytes } from "../../image/byte-reader.js";
import { ImageError } from "../../image/errors.js";
import { builderTools, type FullGuestPlan, ROOT_BYTES, writePayload } from "../../image/full-guest.js";
import { BUILD_COMMAND } from "../../image/init/build-script.js";
import type { Progress } from "../../image/package-source.js";
import { type GuestFiles, Vm } from "../../vm/index.js";
import { nodePlatform } from "./platform.js";

const MEMORY_MIB = 1024;
/** Packages that are fetched at a time: a mirror answers in turns of some 50 ms. */
const FETCHES = 6;
const SHUTDOWN_MS = 20_000;
const LOG_LINES = 40;

export interface BuildOptions {
  readonly plan: FullGuestPlan;
  /** The small guest of the same release. */
  readonly builder: GuestFiles;
  readonly aptSources: string;
  readonly progress: (progress: Progress) => void;
  readonly signal?: AbortSignal | undefined;
  /** Gets each line of the builder's standard output, for measurement. */
  readonly onLine?: (line: string) => void;
}

async function fetchAll({ plan, signal }: BuildOptions): Promise<void> {
  const open = plan.packages.values();
  const work = async (): Promise<void> => {
    for (const found of open) {
      signal?.throwIfAborted();
      await plan.archive.fetch(found);
    }
  };
  await Promise.all(Array.from({ length: FETCHES }, work));
}

async function makePayload(file: string, o: BuildOptions): Promise<void> {
  const handle = await open(file, "wx");
  try {
    const size = await writePayload(
      o.plan,
      o.aptSources,
      async (offset, bytes) => {
        for (let at = 0; at < bytes.length; )
          at += (await handle.write(bytes, at, bytes.length - at, offset + at)).bytesWritten;
      },
      (n, name) => {
        o.signal?.throwIfAborted();
        o.progress({ step: "build", name: `unpacking ${name}`, done: n, total: o.plan.packages.length });
      },
    );
    await handle.truncate(size);
  } finally {
    await handle.close();
  }
}

/** What the builder says on standard output: which step, and how far dpkg is. */
class BuildLog {
  step = "starting the builder";
  finished = false;
  readonly #o: BuildOptions;
  #rest = "";
  #done = 0;

  constructor(o: BuildOptions) {
    this.#o = o;
  }
  push(text: string): void {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop()!;
    for (const line of lines) this.#line(line);
  }
  #line(line: string): void {
    this.#o.onLine?.(line);
    // each package is unpacked and configured
    const total = 2 * (this.#o.plan.packages.length + 1);
    const step = /^@step (.*)$/.exec(line)?.[1];
    const work = /^processing: (install|configure|trigproc): ([^:\s]+)/.exec(line);
    if (line === "@done") this.finished = true;
    else if (step !== undefined) {
      this.step = step;
      this.#o.progress({ step: "build", name: step, done: this.#done, total });
    } else if (work !== null) {
      if (work[1] !== "trigproc") this.#done = Math.min(this.#done + 1, total);
      const verb = work[1] === "install" ? "installing" : "configuring";
      this.#o.progress({ step: "build", name: `${verb} ${work[2]}`, done: this.#done, total });
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
  const errors: Uint8Array[] = [];
  const vm = new Vm(nodePlatform, {
    guest: builder,
    memoryMiB: MEMORY_MIB,
    disks: [
      { file: disk, readOnly: false, createBytes: ROOT_BYTES },
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
    await install(file, payload, o);
  } catch (error) {
    await rm(file, { force: true });
    throw error;
  } finally {
    await rm(payload, { force: true });
  }
}
