/** What `run` tells of a machine: what lit up, how it is, how it ended, counters. */
import type { Vm, VmEnd } from "../vm/index.js";
import { TraceDecoder } from "../vm/trace-decoder.js";
import { networkLines } from "./network-status.js";
import type { Emit, RunOptions } from "./run.js";
import { shareLines } from "./share-status.js";

const seconds = (ns: number): string => (ns / 1e9).toFixed(1);

/** The line that says what lit up waits this long for the agent. */
export const AGENT_MS = 700;
/** "debian:12 up in 2.4 s · VMBus 5.3 · storage heartbeat": what lit up. */
export function summary(machine: Vm): string {
  const { vmbusVersion, services } = machine.integration.lights;
  const lights =
    vmbusVersion === undefined ? [] : [`VMBus ${vmbusVersion}`, ...(services.length > 0 ? [services.join(" ")] : [])];
  const [name, ...more] = machine.guest.description.split(" · ");
  return [`${name} up in ${seconds(machine.uptimeNs)} s`, ...more, ...lights].join(" · ");
}

/** Records that people get to see before a panic's text; our own mistakes show all. */
const SHOWN_RECORDS = 40;
/** What passed between guest and host before it crashed. */
export function printRecords(vm: Vm, end: VmEnd, emit: Emit | undefined): void {
  const all = vm.lastRecords;
  if (all.length === 0) return;
  const decoder = new TraceDecoder();
  const decoded = all.map((r) => decoder.decode(r));
  if (emit !== undefined) {
    emit({ event: "trace", records: decoded });
    return;
  }
  // ticks are most of what there is, and say nothing
  const telling = decoded.filter(({ event }) => event !== "timer-expired" && event !== "interrupt");
  const shown = end.how === "failed" ? decoded : telling.slice(-SHOWN_RECORDS);
  const lines = shown.map((r) => `  ${JSON.stringify(r)}\n`).join("");
  process.stderr.write(
    `\nenlighten: the last ${shown.length} messages between guest and host (all: --trace FILE)\n${lines}`,
  );
}

/** One line, for who waited for it to come up. */
export function describeEnd(end: VmEnd, timedOut: boolean, o: RunOptions): string {
  if (timedOut) return `time-out after ${o.timeout} s, waiting for the guest to come up`;
  switch (end.how) {
    case "crashed":
      return `the guest crashed: ${end.detail.split("\n")[0]!.replace(/^\[ *\d+\.\d+\] /, "")}`;
    case "failed":
      return `internal error, the machine was stopped: ${end.detail.split("\n")[0]}`;
    case "killed":
      return "the machine was stopped before the guest was up";
    default:
      return "the guest powered off before it was up";
  }
}
/** What the user has to be told about an end that was not the guest's own wish. */
export function explain(vm: Vm, end: VmEnd, timedOut: boolean, o: RunOptions): void {
  const err = (text: string): void => void process.stderr.write(text);
  if (timedOut) {
    const what =
      o.exec === undefined ? "the guest to power off" : vm.ready ? "the command to end" : "the guest to come up";
    err(`enlighten: time-out after ${o.timeout} s, waiting for ${what}\n`);
    if (!vm.ready && vm.consoleTail !== "") err(`last console lines:\n${vm.consoleTail}\n`);
    return;
  }
  if (end.how === "crashed") err(`\nenlighten: the guest crashed\n${end.detail}\n`);
  else if (end.how === "failed") err(`\nenlighten: internal error, the machine was stopped\n${end.detail}\n`);
  else if (end.how === "power-off" && o.exec !== undefined && end.exitCode === undefined)
    err(`enlighten: the guest powered off before the command had ended\n${vm.consoleTail}\n`);
}

export async function status(vm: Vm): Promise<string> {
  const [s, network] = await Promise.all([
    vm.stats({ timeoutMs: 2000 }),
    // a guest without a hypervisor has no devices to ask
    vm.network.status({ timeoutMs: 2000 }).catch(() => undefined),
  ]);
  const lines = [
    `up ${seconds(vm.uptimeNs)} s · ${(s.instructions / 1e6).toFixed(0)} M instructions · ${(s.instructions / (vm.uptimeNs / 1e3)).toFixed(0)} MIPS over all`,
    ...(network === undefined ? [] : networkLines(network)),
    ...shareLines(vm.shares),
  ];
  return lines.join("\n");
}

export async function printStats(vm: Vm, emit: Emit | undefined): Promise<void> {
  const s = await vm.stats().catch(() => undefined);
  if (s === undefined) return;
  const cpu = process.cpuUsage();
  const used = (cpu.user + cpu.system) / 1e6;
  if (emit !== undefined) {
    emit({ event: "stats", ...s, cpuSeconds: used, rssBytes: process.memoryUsage().rss });
    return;
  }
  const lines = [
    `instructions ${(s.instructions / 1e6).toFixed(1)} M   cpu ${used.toFixed(2)} s   ${(s.instructions / used / 1e6).toFixed(0)} MIPS   rss ${(process.memoryUsage().rss / 2 ** 20).toFixed(0)} MiB`,
    ...Object.entries(s.counters).map(([name, n]) => `${name.padEnd(22)} ${n}`),
  ];
  process.stderr.write(`${lines.join("\n")}\n`);
}
