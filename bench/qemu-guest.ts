/** Our small guest in QEMU (TCG), with virtio devices, for what is compared: the same kernel, the same userland, the same commands. */
import { spawn, spawnSync } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { debianGuest } from "../src/host/node/guest.js";
import { cacheFolder } from "../src/host/node/package-cache.js";
import { readDeb } from "../src/image/deb.js";
import { execCpio, writeCpio } from "../src/image/index.js";

export const hasQemu = (): boolean => spawnSync("qemu-system-x86_64", ["--version"]).status === 0;

/** What each virtio device needs first, in load order. */
const VIRTIO = ["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci"];

export interface QemuRun {
  /** Modules after virtio's own, in load order. */
  readonly modules: readonly string[];
  /** Options of QEMU. */
  readonly devices: readonly string[];
  /** Commands before the first test. */
  readonly prepare: readonly string[];
  /** Commands; each is measured. */
  readonly tests: readonly string[];
  readonly rounds: number;
  /** In a folder /bench. */
  readonly files?: ReadonlyMap<string, Uint8Array>;
}
/** One test once: CPU time of the whole process, and the time by the clock. */
export interface Used {
  readonly cpuSeconds: number;
  readonly seconds: number;
}

/** Modules from the kernel package that the guest was made of. */
async function virtioModules(version: string, names: readonly string[]): Promise<{ name: string; data: Uint8Array }[]> {
  const folder = join(cacheFolder(process.env), "sha256");
  for (const shard of await readdir(folder))
    for (const file of await readdir(join(folder, shard))) {
      const bytes = new Uint8Array(await readFile(join(folder, shard, file)));
      if (bytes.length < 10e6 || new TextDecoder().decode(bytes.subarray(0, 7)) !== "!<arch>") continue;
      const { files } = await readDeb(bytes);
      const found = names.flatMap((name) => {
        const entry = files.find(({ path }) => path.includes(`/${version}/`) && path.endsWith(`/${name}.ko`));
        return entry?.kind === "file" ? [{ name, data: entry.data }] : [];
      });
      if (found.some(({ name }) => name === names.at(-1))) return found;
    }
  throw new Error(`the cache has no kernel package with ${names.at(-1)}: remove the cache folder and run again`);
}

/** @returns by test, what each round used */
export async function inQemu({
  modules: more,
  devices,
  prepare,
  tests,
  rounds,
  files: own,
}: QemuRun): Promise<Used[][]> {
  const folder = await mkdtemp(join(tmpdir(), "enlighten-qemu-"));
  try {
    const guest = await debianGuest("debian:12");
    const files = await guest.load();
    const modules = await virtioModules(/Linux (\S+)/.exec(guest.description)![1]!, [...VIRTIO, ...more]);
    const steps = [
      ...modules.map(({ name }) => `insmod /bench/${name}.ko 2>/dev/null`),
      ...prepare,
      'say() { echo "$1" >/dev/ttyS0; }',
      ...Array.from({ length: rounds }, () =>
        tests.map((test, i) => `say BEGIN${i}; (${test}) || { say FAILED${i}; exit; }; say END${i}`),
      ).flat(),
    ];
    const initrd = join(folder, "initrd");
    await writeFile(
      initrd,
      Buffer.concat([
        ...files.initrds,
        writeCpio([
          { kind: "directory", path: "bench", mode: 0o755 },
          ...modules.map(({ name, data }) => ({ kind: "file" as const, path: `bench/${name}.ko`, mode: 0o644, data })),
          ...[...(own ?? [])].map(([name, data]) => ({
            kind: "file" as const,
            path: `bench/${name}`,
            mode: 0o755,
            data,
          })),
        ]),
        execCpio(steps.join("\n")),
      ]),
    );
    const kernel = join(folder, "vmlinuz");
    await writeFile(kernel, files.kernel);
    return await measure(
      [...devices, "-kernel", kernel, "-initrd", initrd, "-append", guest.commandLine],
      tests.map(() => []),
    );
  } finally {
    await rm(folder, { recursive: true });
  }
}

async function measure(options: readonly string[], result: Used[][]): Promise<Used[][]> {
  const serial = ["stdio", "null", "null", "null"].flatMap((s) => ["-serial", s]);
  const machine = ["-accel", "tcg", "-cpu", "max", "-m", "512", "-display", "none", "-no-reboot", "-nodefaults"];
  const child = spawn("qemu-system-x86_64", [...machine, ...serial, ...options]);
  const ticks = Number(spawnSync("getconf", ["CLK_TCK"]).stdout.toString()) || 100;
  const cpu = async (): Promise<number> => {
    const fields = (await readFile(`/proc/${child.pid}/stat`, "utf8")).split(") ")[1]!.split(" ");
    return (Number(fields[11]) + Number(fields[12])) / ticks;
  };
  const begun = result.map(() => ({ cpuSeconds: 0, seconds: 0 }));
  let text = "";
  child.stderr.pipe(process.stderr);
  for await (const data of child.stdout) {
    text += String(data);
    const lines = text.split("\n");
    text = lines.pop()!;
    for (const line of lines) {
      const match = /^(BEGIN|END|FAILED)(\d)\r?$/.exec(line);
      if (match === null) continue;
      const i = Number(match[2]);
      if (match[1] === "FAILED") throw new Error(`test ${i} failed in QEMU`);
      const now = { cpuSeconds: await cpu(), seconds: performance.now() / 1e3 };
      const from = begun[i]!;
      if (match[1] === "BEGIN") begun[i] = now;
      else result[i]!.push({ cpuSeconds: now.cpuSeconds - from.cpuSeconds, seconds: now.seconds - from.seconds });
    }
  }
  return result;
}
