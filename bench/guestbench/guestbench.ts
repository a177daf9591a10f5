/** Builds guestbench, runs it natively and in the guest, and reads what it says. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { debianGuest } from "../../src/host/node/guest.js";
import { createVm } from "../../src/host/node/index.js";
import { ImageError, readCpio, writeCpio } from "../../src/image/index.js";
import type { ProcessorStats } from "../../src/vm/index.js";

const here = join(import.meta.dirname, "../../../bench/guestbench");

export interface Workload {
  readonly name: string;
  readonly group: string;
  readonly iterations: number;
  /** By the clock of the system that it ran on. */
  readonly seconds: number;
  /** Computed by the program and its children, by the account of the system that it ran on. */
  readonly ownCpuSeconds: number;
  readonly sum: string;
}
export interface GuestWorkload extends Workload {
  /** Computed by all threads of this process meanwhile. */
  readonly cpuSeconds: number;
}

/** Whatever the program is to run: iteration counts divided by `divide`, workloads or groups by name (none: all). */
export interface Selection {
  readonly divide: number;
  readonly names?: readonly string[];
}
export const argumentsOf = ({ divide, names = [] }: Selection): string[] => ["-d", String(divide), ...names];

export function parseLine(line: string): Workload | undefined {
  const match = /^BENCH (\S+) group=(\S+) iters=(\d+) secs=([\d.]+) cpu=([\d.]+) sum=([0-9a-f]+)\r?$/.exec(line);
  if (match === null) return undefined;
  const [, name, group, iterations, seconds, cpu, sum] = match;
  return {
    name: name!,
    group: group!,
    iterations: Number(iterations),
    seconds: Number(seconds),
    ownCpuSeconds: Number(cpu),
    sum: sum!,
  };
}

export type Bits = 32 | 64;

/** SSE2 for doubles, so that the sums are those of the 64-bit build. */
const TARGET: Readonly<Record<Bits, readonly string[]>> = {
  32: ["-m32", "-march=pentium4", "-mfpmath=sse"],
  64: ["-m64"],
};

/** Static, so that it runs in the guest as it is. @returns the program's path in `folder` */
export function buildGuestbench(folder: string, bits: Bits = 64): string {
  const program = join(folder, `guestbench${bits}`);
  const flags = [
    "-O2",
    "-g0",
    "-std=gnu11",
    "-Wall",
    "-Wextra",
    "-ffp-contract=off",
    "-fno-math-errno",
    ...TARGET[bits],
    "-static",
  ];
  const { error, status, stderr } = spawnSync("gcc", [...flags, "-o", program, join(here, "guestbench.c")], {
    encoding: "utf8",
  });
  if (error !== undefined || status !== 0)
    throw new Error(
      `guestbench for ${bits} bits could not be built: ${error?.message ?? stderr}\n  try: apt-get install ${bits === 32 ? "gcc-multilib" : "gcc libc6-dev"}`,
    );
  return program;
}

/** On one processor, as the guest has one. */
export function runNative(program: string, selection: Selection): Workload[] {
  const args = argumentsOf(selection);
  const hasTaskset = spawnSync("taskset", ["--version"]).status === 0;
  const text = hasTaskset
    ? execFileSync("taskset", ["-c", "0", program, ...args], { encoding: "utf8" })
    : execFileSync(program, args, { encoding: "utf8" });
  return text.split("\n").flatMap((line) => parseLine(line) ?? []);
}

export interface GuestPaths {
  readonly kernel: string;
  readonly initrd: string;
}

/** An initramfs of busybox, the program and the init that runs it, and a kernel beside it. */
export async function writeGuestFiles(
  folder: string,
  kernel: Uint8Array,
  busybox: Uint8Array,
  program: string,
): Promise<GuestPaths> {
  const executable = (path: string, data: Uint8Array) => ({ kind: "file", path, mode: 0o755, data }) as const;
  const initrd = writeCpio([
    ...["bin", "dev", "proc", "tmp"].map((path) => ({ kind: "directory", path, mode: 0o755 }) as const),
    { kind: "character", path: "dev/console", mode: 0o600, major: 5, minor: 1 },
    executable("bin/busybox", busybox),
    executable("bin/guestbench", await readFile(program)),
    executable("init", await readFile(join(here, "init"))),
  ]);
  const paths = { kernel: join(folder, "vmlinuz"), initrd: join(folder, "initrd") };
  await writeFile(paths.kernel, kernel);
  await writeFile(paths.initrd, initrd);
  return paths;
}

/** debian:12's kernel and busybox around the program. */
export async function writeGuest(program: string, folder: string): Promise<GuestPaths> {
  const files = await (await debianGuest("debian:12")).load();
  const busybox = readCpio(files.initrds[0]!).find(({ path }) => path === "bin/busybox");
  if (busybox?.kind !== "file")
    throw new ImageError(
      "no-busybox",
      "debian:12's initramfs has no /bin/busybox",
      "remove the cache folder, so that it is made anew",
    );
  return writeGuestFiles(folder, files.kernel, busybox.data, program);
}

/** For the kernel's command line. */
export const benchAppend = (selection: Selection): string =>
  `quiet loglevel=1 bench=${argumentsOf(selection).join(",")}`;

export interface GuestRunOptions extends Selection {
  readonly timeoutMs: number;
  readonly onWorkload?: (workload: GuestWorkload) => void;
  /** The machine's counters over each workload. */
  readonly onCounters?: (name: string, counters: Readonly<Record<string, number>>) => void;
}

export async function runInGuest(program: string, options: GuestRunOptions): Promise<GuestWorkload[]> {
  const folder = await mkdtemp(join(tmpdir(), "enlighten-guestbench-"));
  try {
    const files = await writeGuest(program, folder);
    const append = benchAppend(options);
    await using vm = await createVm({ ...files, memoryMiB: 512, append });
    const workloads: GuestWorkload[] = [];
    const cpuSeconds = (): number => {
      const { user, system } = process.cpuUsage();
      return (user + system) / 1e6;
    };
    let text = "";
    let begunAt = Number.NaN;
    let before = Promise.resolve<ProcessorStats | undefined>(undefined);
    let told = Promise.resolve();
    const tell = async (name: string, since: Promise<ProcessorStats | undefined>): Promise<void> => {
      const [first, last] = [await since, await vm.stats()];
      if (first === undefined) return;
      const counters: Record<string, number> = { instructions: last.instructions - first.instructions };
      for (const [key, value] of Object.entries(last.counters)) counters[key] = value - (first.counters[key] ?? 0);
      options.onCounters?.(name, counters);
    };
    vm.onOutput(0, (bytes) => {
      const now = cpuSeconds();
      text += Buffer.from(bytes).toString("latin1");
      const lines = text.split("\n");
      text = lines.pop()!;
      for (const line of lines) {
        if (line.startsWith("BEGIN ")) {
          begunAt = now; // the last one counts: a workload says it again after its preparations
          if (options.onCounters !== undefined) before = vm.stats();
        }
        const found = parseLine(line);
        if (found === undefined) continue;
        // both lines in one message: too short to be seen from here
        const workload = { ...found, cpuSeconds: now > begunAt ? now - begunAt : found.seconds };
        workloads.push(workload);
        const since = before;
        if (options.onCounters !== undefined) told = told.then(() => tell(workload.name, since));
        options.onWorkload?.(workload);
      }
    });
    await vm.start();
    await vm.waitFor("GUESTBENCH done", { timeoutMs: options.timeoutMs });
    await told.catch(() => {}); // the last one's may come too late
    await vm.waitForEnd({ timeoutMs: 20_000 });
    return workloads;
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Workloads whose checksums are not native's, or that one side lacks. */
export function differences(native: readonly Workload[], guest: readonly Workload[]): string[] {
  const names = new Set([...native, ...guest].map(({ name }) => name));
  return [...names].flatMap((name) => {
    const [a, b] = [native, guest].map((side) => side.find((workload) => workload.name === name)?.sum ?? "nothing");
    return a === b ? [] : [`${name}: native ${a}, guest ${b}`];
  });
}
