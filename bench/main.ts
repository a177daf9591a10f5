/**
 * `npm run bench`: the kernels, then guestbench here, in other machines and native. `npm run bench -- NAME [arguments]`: one of them.
 */
import { spawnSync } from "node:child_process";
import { join } from "node:path";

const SCRIPTS: Readonly<Record<string, string>> = {
  kernels: "kernels/run.js",
  guest: "guest.js",
  peers: "peers/run.js",
  idle: "idle.js",
  storage: "storage.js",
  network: "network.js",
};
const HELP = `npm run bench                   the kernels, then peers
npm run bench -- [options]      the same; options and workloads are those of peers
npm run bench -- kernels        seven integer kernels, no operating system
npm run bench -- peers          guestbench in a guest here, in QEMU and v86 where they are installed, and native (--help)
npm run bench -- guest          guestbench in a guest here and native, with the machine's counters (--counters)
npm run bench -- idle           CPU time of an idle guest, and resident memory
npm run bench -- storage        disk requests for a CPU second, here and in QEMU
npm run bench -- network        throughput for a CPU second, and the round trip of a published port; --qemu: in QEMU too; --iperf3`;

const [first, ...rest] = process.argv.slice(2);
if (first === "--help" || first === "-h") {
  console.log(HELP);
  process.exit(0);
}
const isOne = first !== undefined && Object.hasOwn(SCRIPTS, first);
if (first !== undefined && !isOne && !first.startsWith("-")) {
  console.error(`no benchmark "${first}"; benchmarks: ${Object.keys(SCRIPTS).join(" ")}`);
  process.exit(2);
}
for (const name of isOne ? [first] : ["kernels", "peers"]) {
  const args = isOne ? rest : name === "peers" ? process.argv.slice(2) : [];
  if (!isOne) console.log(`\n${name}`);
  const { status } = spawnSync(process.execPath, [join(import.meta.dirname, SCRIPTS[name]!), ...args], {
    stdio: "inherit",
  });
  if (status !== 0) process.exitCode = status ?? 1;
}
