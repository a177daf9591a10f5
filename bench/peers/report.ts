/** Figures from runs: medians of rounds, ratios to native, geometric means, and checksums that are not native's. */
import { type Bits, differences, type Workload } from "../guestbench/guestbench.js";
import type { Run } from "./measure.js";
import type { Boot } from "./transcript.js";

/** Where it was measured. */
export interface Host {
  readonly processor: string;
  readonly kernel: string;
  readonly node: string;
}
export interface WorkloadFigures {
  readonly name: string;
  readonly group: string;
  readonly iterations: number;
  /** Medians of rounds; native's is for as many iterations. */
  readonly cpuSeconds: number;
  readonly nativeSeconds: number;
  readonly ratio: number;
}
export interface MachineFigures {
  readonly name: string;
  readonly title: string;
  readonly bits: Bits;
  /** Medians of rounds. */
  readonly boot: Boot | undefined;
  readonly workloads: readonly WorkloadFigures[];
  /** Ratios by group, and of "all" workloads. */
  readonly geomeans: Readonly<Record<string, number>>;
}
export interface Report {
  readonly divide: number;
  readonly rounds: number;
  readonly host: Host;
  readonly machines: readonly MachineFigures[];
  /** Checksums that differ from native's, and workloads that are missing. */
  readonly wrong: readonly string[];
}

/** All that was measured natively with one build. */
export interface Native {
  /** Workloads of all iterations. */
  readonly runs: readonly (readonly Workload[])[];
  /** With the iterations that machines do, for the sums. */
  readonly expected: readonly Workload[];
}
export interface Measured {
  readonly machine: { readonly name: string; readonly title: string; readonly bits: Bits };
  readonly runs: readonly Run[];
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1]! + sorted[sorted.length >> 1]!) / 2;
}
export const geomean = (ratios: readonly number[]): number =>
  Math.exp(ratios.reduce((sum, ratio) => sum + Math.log(ratio), 0) / ratios.length);

function medianBoot(boots: readonly Boot[]): Boot | undefined {
  if (boots.length === 0) return undefined;
  const ram = boots.flatMap(({ guestRamBytes }) => guestRamBytes ?? []);
  return {
    seconds: median(boots.map(({ seconds }) => seconds)),
    cpuSeconds: median(boots.map(({ cpuSeconds }) => cpuSeconds)),
    residentBytes: median(boots.map(({ residentBytes }) => residentBytes)),
    guestRamBytes: ram.length === 0 ? undefined : median(ram),
  };
}

function workloadFigures(native: Native, runs: readonly Run[]): WorkloadFigures[] {
  return native.expected.flatMap(({ name, group, iterations }) => {
    const inMachine = runs.flatMap(({ workloads }) => workloads.filter((workload) => workload.name === name));
    const natively = native.runs.flat().filter((workload) => workload.name === name);
    if (inMachine.length === 0 || natively.length === 0) return [];
    const cpuSeconds = median(inMachine.map((workload) => workload.cpuSeconds));
    const nativeSeconds = median(natively.map((w) => w.ownCpuSeconds / w.iterations)) * iterations;
    return { name, group, iterations, cpuSeconds, nativeSeconds, ratio: cpuSeconds / nativeSeconds };
  });
}

export function groupGeomeans(rows: readonly Pick<WorkloadFigures, "group" | "ratio">[]): Record<string, number> {
  if (rows.length === 0) return {};
  const groups = [...new Set(rows.map(({ group }) => group))];
  const of = (group: string): number => geomean(rows.filter((row) => row.group === group).map(({ ratio }) => ratio));
  return { ...Object.fromEntries(groups.map((group) => [group, of(group)])), all: geomean(rows.map((r) => r.ratio)) };
}

export function makeReport(
  about: Pick<Report, "divide" | "rounds" | "host">,
  natives: ReadonlyMap<Bits, Native>,
  measured: readonly Measured[],
): Report {
  const wrong: string[] = [];
  const machines = measured.map(({ machine: { name, title, bits }, runs }) => {
    const native = natives.get(bits)!;
    for (const run of runs)
      for (const difference of differences(native.expected, run.workloads)) wrong.push(`${name}: ${difference}`);
    const workloads = workloadFigures(native, runs);
    const boot = medianBoot(runs.flatMap((run) => run.boot ?? []));
    return { name, title, bits, boot, workloads, geomeans: groupGeomeans(workloads) };
  });
  return { ...about, machines, wrong: [...new Set(wrong)] };
}
