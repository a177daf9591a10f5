/** What an idle guest costs, and what the process takes beside the guest's memory. */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { layoutMemory } from "../src/cpu/layout.js";
import { readOptions } from "./options.js";
import { cpuSeconds, residentBytes, residentRam } from "./peers/process-usage.js";

const HELP = `npm run bench -- idle [seconds of settling] [seconds measured]

CPU time of an idle guest at its prompt, and what the process takes beside the guest's memory (default: 30, 60).`;
const [settle = 30, measured = 60] = readOptions(HELP, {}, true).positionals.map(Number);
if (!(settle >= 0 && measured > 0)) {
  console.error("no numbers of seconds\n  try: npm run bench -- idle 30 60");
  process.exit(2);
}
const memoryMiB = 512;
const child = spawn(
  process.execPath,
  [join(import.meta.dirname, "../src/cli/main.js"), "run", "debian:12", "--memory", `${memoryMiB}M`],
  { stdio: ["pipe", "pipe", "inherit"] },
);
const pid = child.pid!;
let text = "";
await new Promise<void>((resolve) =>
  child.stdout.on("data", (b: Buffer) => {
    text += b.toString("latin1");
    if (/debian:12 \S+ # /.test(text)) resolve();
  }),
);
const sleep = (s: number): Promise<void> => new Promise((r) => setTimeout(r, s * 1000));
const toPrompt = cpuSeconds(pid);
await sleep(settle);
const before = cpuSeconds(pid);
await sleep(measured);
const used = cpuSeconds(pid) - before;

const layout = layoutMemory(memoryMiB << 20, 1);
const rss = residentBytes(pid);
const ram = residentRam(pid, { mappingBytes: layout.pages * 65536, offset: layout.ram, bytes: layout.ramBytes });
if (ram === undefined) throw new Error("the engine's memory is not among the mappings");
const mib = (n: number): string => `${(n / 2 ** 20).toFixed(0)} MiB`;
console.log(`to the prompt: ${toPrompt.toFixed(2)} s CPU`);
console.log(`idle: ${((100 * used) / measured).toFixed(2)} % of a core over ${measured} s`);
console.log(`resident: ${mib(rss)}, of it guest RAM ${mib(ram)}; beside it ${mib(rss - ram)}`);
child.kill("SIGTERM");
