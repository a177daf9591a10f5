/** The options of `run`: what their values must be, and what is said of those that are not. */
import { type Command, InvalidArgumentError, Option } from "commander";
import { parseCpuModel } from "../cpu/vp/cpuid.js";
import { checkName } from "../host/node/control/registry.js";
import { EgressPolicy } from "../net/policy.js";
import { PublishError, type PublishSpec, parsePublish } from "../net/publish.js";
import { SERVICE_NAMES, type ServiceName } from "../vm/device-messages.js";
import { parseShare, type ShareOptions } from "../vm/guest-shares.js";
import type { DiskArgument, RunOptions } from "./run.js";

/** "512", "512M", "1G": MiB. */
function megabytes(text: string): number {
  const match = /^(\d+)\s*([MG]i?B?)?$/i.exec(text);
  if (match === null) throw new InvalidArgumentError("give a size like 512M or 2G.");
  const n = Number(match[1]) * (match[2]?.[0]?.toUpperCase() === "G" ? 1024 : 1);
  if (n < 2 || n > 3072) throw new InvalidArgumentError("a guest has 2M to 3G of memory.");
  return n;
}
function positive(text: string): number {
  const n = Number(text);
  if (!(n > 0 && n <= 2_000_000)) throw new InvalidArgumentError("give a number of seconds above 0, at most 2000000.");
  return n;
}
function cpu(text: string): string {
  try {
    parseCpuModel(text);
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
  return text;
}
function seed(text: string): number {
  const n = Number(text);
  if (!Number.isSafeInteger(n)) throw new InvalidArgumentError("give a whole number.");
  return n;
}

/** "512M", "4G": bytes. */
function bytes(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGT]?)(i?B)?$/i.exec(text);
  if (match === null) throw new InvalidArgumentError("give a size like 512M or 4G.");
  const n = Number(match[1]) * 1024 ** ["", "K", "M", "G", "T"].indexOf(match[2]!.toUpperCase());
  if (!Number.isSafeInteger(n) || n < 512 || n % 512 !== 0)
    throw new InvalidArgumentError("a disk has a whole number of 512-byte sectors.");
  return n;
}
/** FILE or FILE,ro or FILE,dvd. An ISO image is a DVD. */
function disk(text: string, all: DiskArgument[]): DiskArgument[] {
  const [file = "", ...flags] = text.split(",");
  if (file === "") throw new InvalidArgumentError("name a file.");
  for (const flag of flags)
    if (flag !== "ro" && flag !== "dvd") throw new InvalidArgumentError(`"${flag}" is neither "ro" nor "dvd".`);
  const dvd = flags.includes("dvd") || /\.iso$/i.test(file);
  return [...all, { file, readOnly: dvd || flags.includes("ro"), kind: dvd ? "dvd" : "disk" }];
}
/** Names with commas or spaces between; the option may be repeated. */
function packages(text: string, all: string[] | undefined): string[] {
  return [...(all ?? []), ...text.split(/[\s,]+/).filter((name) => name !== "")];
}
function services(text: string): RunOptions["services"] {
  if (text === "none") return "none";
  const names = text.split(",");
  for (const name of names)
    if (!(SERVICE_NAMES as readonly string[]).includes(name))
      throw new InvalidArgumentError(`there is no service "${name}"; there are ${SERVICE_NAMES.join(", ")}, or none.`);
  return names as ServiceName[];
}
/** nat, nat,allow=RULE[,RULE…], none. */
function net(text: string): RunOptions["net"] {
  const [mode = "", ...settings] = text.split(",");
  if (mode !== "nat" && mode !== "none")
    throw new InvalidArgumentError(`there is no network "${mode}"; there are nat, nat,allow=…, and none.`);
  if (settings.length === 0) return { mode };
  if (mode === "none" || !settings[0]!.startsWith("allow="))
    throw new InvalidArgumentError(
      `"${settings[0]}" is no setting of ${mode}: write nat,allow=example.com:443,10.0.0.0/8.`,
    );
  const allow = settings.map((rule) => rule.replace(/^allow=/, ""));
  try {
    new EgressPolicy(allow);
  } catch (error) {
    const { message, hint } = error as Error & { hint: string };
    throw new InvalidArgumentError(`${message}: ${hint}.`);
  }
  return { mode, allow };
}
function share(text: string, all: ShareOptions[]): ShareOptions[] {
  try {
    return [...all, parseShare(text)];
  } catch (error) {
    const { message, hint } = error as Error & { hint: string };
    throw new InvalidArgumentError(`${message}: ${hint}.`);
  }
}
function publish(text: string, all: PublishSpec[]): PublishSpec[] {
  try {
    return [...all, parsePublish(text)];
  } catch (error) {
    if (!(error instanceof PublishError)) throw error;
    throw new InvalidArgumentError(`${error.message}: ${error.hint}.`);
  }
}

function cpuLimit(text: string): number {
  const n = Number(text.replace(/ ?%$/, ""));
  if (!(n >= 1 && n <= 100)) throw new InvalidArgumentError("give a percentage from 1 to 100.");
  return n;
}
function machineName(text: string): string {
  try {
    checkName(text);
  } catch (error) {
    const { message, hint } = error as Error & { hint: string };
    throw new InvalidArgumentError(`${message}: ${hint}.`);
  }
  return text;
}

export function addRun(program: Command): void {
  program
    .command("run", { isDefault: true })
    .description("boot a guest; its console is this terminal")
    .argument("[guest]", "a guest by reference", "debian:12")
    .option("-m, --memory <size>", "guest memory", megabytes, 512)
    .option("--append <text>", "add to the kernel's command line")
    .option("--kernel <file>", "boot this Linux bzImage instead of a guest by reference")
    .option(
      "--initrd <file>",
      "initial file system for --kernel (repeat for more)",
      (f: string, all: string[]) => [...all, f],
      [] as string[],
    )
    .option(
      "--disk <file[,ro]>",
      "a disk on the synthetic SCSI controller (repeat for more; .iso or ,dvd: a DVD)",
      disk,
      [],
    )
    .option("--size <size>", "make disks of this size where there are none (debian:12-full: its own disk too)", bytes)
    .option("--packages <names>", "debian:12-full: install these Debian packages too (jq,strace)", packages)
    .option("--root <file>", "debian:12-full: keep its disk in this file, made where there is none")
    .option(
      "--net <nat|none>",
      "network: nat (default; nat,allow=example.com:443,10.0.0.0/8 lets nothing else out, nat,allow=none nothing), or none",
      net,
    )
    .option(
      "--publish <[address:]port:guest-port[/udp]>",
      "a port of this host that leads to the guest, on 127.0.0.1 unless said otherwise; port 0: a free one (repeat for more)",
      publish,
      [],
    )
    .option(
      "--share <folder[:/guest/path][:ro]>",
      "a folder of this host in the guest, at /mnt/NAME unless said otherwise (repeat for more)",
      share,
      [],
    )
    .option("--pcap <file>", "write all frames of the network adapter to a file (pcapng)")
    .option(
      "--services <names>",
      `synthetic devices to offer (${SERVICE_NAMES.join(",")}), or none: a PC without a hypervisor`,
      services,
    )
    .option("--exec <command>", "run this in the guest; its output and exit code are ours; then power off")
    .option("--name <name>", "give it a name, for ps, status, stop, exec, console and logs", machineName)
    .option("-d, --detach", "run it in the background: prints its name when the guest is up")
    .addOption(new Option("--detached-child").hideHelp())
    .option("--timeout <seconds>", "end after this time with code 124", positive)
    .option("--serial-log <file>", "write the guest's console to a file as well")
    .option("--json", "events as JSON, one object a line")
    .option("--offline", "use the cache alone, never the network")
    .option("--mirror <url>", "Debian mirror (default: ENLIGHTEN_MIRROR, else what this host's apt uses)")
    .option(
      "--keyring <file>",
      "keys that sign the archive (default: this host's, else the ones that come with enlighten)",
    )
    .option("--cpu <model>", "what CPUID advertises: default, max, +feature, -feature", cpu, "default")
    .option("--cpu-limit <percent>", "how much of one of this host's processors the guest's may take", cpuLimit)
    .option("--regions", "compile hot code: what is done anyway but with --deterministic")
    .option("--no-regions", "interpret only: hot code is not compiled")
    .option("--strict-float", "all flags of SSE arithmetic exact, MXCSR.DE too (floating point 7 to 25 times slower)")
    .option("--stats", "print counters at the end")
    .addOption(
      new Option("--deterministic [seed]", "one thread, time from instructions: repeatable")
        .preset("1")
        .argParser(seed),
    )
    // for developers: see CONTRIBUTING.md
    .addOption(
      new Option("--lockstep", "run both tiers side by side and compare").implies({ deterministic: 1 }).hideHelp(),
    )
    .option("--trace <file>", "write every VMBus and service message, hypercall and interrupt to a file (JSON lines)")
    .option("--trace-cpu <file>", "write every instruction to a file before it runs (very slow)")
    .option("--debug-exit", "port 0xF4 ends the machine with (value << 1) | 1")
    .addHelpText(
      "after",
      `
Examples:
  $ enlighten run
  $ enlighten run debian:12 --exec 'uname -a'
  $ enlighten run debian:12 --name web --publish 8080:80 --detach
`,
    )
    .action(async (guest: string, options: RunOptions) => {
      if (options.detach === true && options.detachedChild !== true) {
        const { runDetached } = await import("./named/detach.js");
        const what = { guest: options.kernel ?? guest, memoryMiB: options.memory, json: options.json === true };
        process.exitCode = await runDetached(options.name, what);
        return;
      }
      // loaded when it is asked for, so that help comes at once
      const { run } = await import("./run.js");
      process.exitCode = await run(guest, options);
    });
}
