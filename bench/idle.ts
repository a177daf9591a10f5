/**
 * What an idle guest costs, and what the process takes beside the guest's memory.
 *
 *   node dist/bench/idle.js [seconds of settling] [seconds measured]
 */
import { spawn } from "node:child_process";
import { closeSync, openSync, readFileSync, readSync } from "node:fs";
import { join } from "node:path";
import { layoutMemory } from "../src/cpu/layout.js";

const [settle = 30, measured = 60] = process.argv.slice(2).map(Number);
const memoryMiB = 512;
const child = spawn(
  process.execPath,
  [join(import.meta.dirname, "../src/cli/main.js"), "run", "debian:12", "--memory", `${memoryMiB}M`],
  { stdio: ["pipe", "pipe", "inherit"] },
);
let text = "";
await new Promise<void>((resolve) =>
  child.stdout.on("data", (b: Buffer) => {
    text += b.toString("latin1");
    if (/debian:12 \S+ # /.test(text)) resolve();
  }),
);
const sleep = (s: number): Promise<void> => new Promise((r) => setTimeout(r, s * 1000));
/** User and system time of the process, in seconds. */
function cpuSeconds(): number {
  const fields = readFileSync(`/proc/${child.pid}/stat`, "utf8").split(") ")[1]!.split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}
const toPrompt = cpuSeconds();
await sleep(settle);
const before = cpuSeconds();
await sleep(measured);
const used = cpuSeconds() - before;

/** Resident bytes of the guest's RAM: the pages of the engine's memory from RAM's offset on. */
function residentRam(): number {
  const layout = layoutMemory(memoryMiB << 20, 1);
  for (const line of readFileSync(`/proc/${child.pid}/maps`, "utf8").split("\n")) {
    const range = /^([0-9a-f]+)-([0-9a-f]+) rw/.exec(line);
    if (range === null) continue;
    const start = Number.parseInt(range[1]!, 16);
    if (Number.parseInt(range[2]!, 16) - start !== layout.pages * 65536) continue;
    const pagemap = openSync(`/proc/${child.pid}/pagemap`, "r");
    const pages = layout.ramBytes / 4096;
    const buffer = Buffer.alloc(pages * 8);
    readSync(pagemap, buffer, 0, buffer.length, ((start + layout.ram) / 4096) * 8);
    closeSync(pagemap);
    let n = 0;
    for (let i = 0; i < pages; i++) if ((buffer[i * 8 + 7]! & 0x80) !== 0) n++;
    return n * 4096;
  }
  throw new Error("the engine's memory is not among the mappings");
}
const rss = Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"))![1]) * 1024;
const ram = residentRam();
const mib = (n: number): string => `${(n / 2 ** 20).toFixed(0)} MiB`;
console.log(`to the prompt: ${toPrompt.toFixed(2)} s CPU`);
console.log(`idle: ${((100 * used) / measured).toFixed(2)} % of a core over ${measured} s`);
console.log(`resident: ${mib(rss)}, of it guest RAM ${mib(ram)}; beside it ${mib(rss - ram)}`);
child.kill("SIGTERM");
