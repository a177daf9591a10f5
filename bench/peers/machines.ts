/** The machines that are compared: how each is started with a kernel and an initramfs, and whether it is installed here. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { layoutMemory } from "../../src/cpu/layout.js";
import { COMMAND_LINE } from "../../src/host/node/guest.js";
import type { Bits, GuestPaths } from "../guestbench/guestbench.js";
import type { Command } from "./measure.js";
import { findV86, type V86Files } from "./v86-files.js";

/** Of every machine's guest. */
export const MEMORY_MIB = 512;
const MEMORY = MEMORY_MIB << 20;
const root = join(import.meta.dirname, "../../..");

export interface Machine {
  readonly name: string;
  /** For people, with its version. */
  readonly title: string;
  /** Of its guest: what its figures are compared with is the native build of the same size. */
  readonly bits: Bits;
  command(guest: GuestPaths, append: string): Command;
}

export interface Missing {
  readonly name: string;
  /** What to do to have it. */
  readonly hint: string;
}

interface SearchOptions {
  /** The folder of the npm package v86, or one that has it among its node_modules. */
  readonly v86?: string | undefined;
}

/** What one run compiled, for the next: the cold one empties it first. */
let cache: string | undefined;
function cacheFolder(isWarm: boolean): string {
  if (cache === undefined) {
    const folder = mkdtempSync(join(tmpdir(), "enlighten-bench-regions-"));
    process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
    cache = folder;
  }
  if (!isWarm) for (const name of readdirSync(cache)) rmSync(join(cache, name));
  return cache;
}

/** @param isWarm with the regions that the run before left in the cache */
function enlighten(isWarm: boolean): Machine {
  const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { version: string };
  const layout = layoutMemory(MEMORY, 1);
  return {
    name: isWarm ? "enlighten-warm" : "enlighten",
    title: `enlighten ${version}, ${isWarm ? "with the regions of the run before" : "its cache empty"}`,
    bits: 64,
    command: ({ kernel, initrd }, append) => ({
      program: process.execPath,
      arguments: [
        join(root, "dist/src/cli/main.js"),
        "run",
        ...["--memory", `${MEMORY_MIB}M`, "--kernel", kernel, "--initrd", initrd],
        ...["--append", append],
      ],
      environment: { ENLIGHTEN_REGION_CACHE: cacheFolder(isWarm) },
      ram: { mappingBytes: layout.pages * 65536, offset: layout.ram, bytes: MEMORY },
    }),
  };
}

/** TCG: QEMU's own translation, no KVM. A machine without what is not used, and one processor. */
function qemu(name: string, processor: "qemu64" | "max", thread: "single" | "multi"): Machine | Missing {
  const { status, stdout } = spawnSync("qemu-system-x86_64", ["--version"], { encoding: "utf8" });
  if (status !== 0) return { name, hint: "apt install qemu-system-x86" };
  const version = /version (\d+\.\d+)/.exec(stdout)?.[1] ?? "";
  return {
    name,
    title: `QEMU ${version} TCG, -cpu ${processor}${thread === "single" ? ", thread=single" : ""}`,
    bits: 64,
    command: ({ kernel, initrd }, append) => ({
      program: "qemu-system-x86_64",
      arguments: [
        ...["-accel", `tcg,thread=${thread}`, "-cpu", processor, "-smp", "1", "-m", `${MEMORY_MIB}M`],
        ...["-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"],
        ...["-kernel", kernel, "-initrd", initrd, "-append", `${COMMAND_LINE} ${append}`],
      ],
      ram: { mappingBytes: MEMORY, offset: 0, bytes: MEMORY },
    }),
  };
}

function v86(files: V86Files | string): Machine | Missing {
  if (typeof files === "string") return { name: "v86", hint: files };
  return {
    name: "v86",
    title: `v86 ${files.version}, 32-bit guest`,
    bits: 32,
    command: ({ kernel, initrd }, append) => ({
      program: process.execPath,
      arguments: [
        join(import.meta.dirname, "v86-child.js"),
        ...[files.library, files.wasm, files.bios, files.vgaBios, kernel, initrd],
        ...[String(MEMORY_MIB), `${COMMAND_LINE} ${append}`],
      ],
    }),
  };
}

const MACHINES: Readonly<Record<string, (options: SearchOptions) => Machine | Missing>> = {
  enlighten: () => enlighten(false),
  "enlighten-warm": () => enlighten(true),
  qemu: () => qemu("qemu", "qemu64", "multi"),
  "qemu-max": () => qemu("qemu-max", "max", "multi"),
  "qemu-single": () => qemu("qemu-single", "qemu64", "single"),
  v86: (options) => v86(findV86(options.v86)),
};
export const MACHINE_NAMES = Object.keys(MACHINES);
/** One processor is one thread to QEMU either way, so that the two differ little. */
export const DEFAULT_MACHINES = MACHINE_NAMES.filter((name) => name !== "qemu-single");

export const isMissing = (machine: Machine | Missing): machine is Missing => "hint" in machine;

/** @param name one of MACHINE_NAMES */
export const findMachine = (name: string, options: SearchOptions): Machine | Missing => MACHINES[name]!(options);
