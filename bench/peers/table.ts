/** The comparison as text for people. */
import type { MachineFigures, Report } from "./report.js";

export const shownRatio = (ratio: number | undefined): string =>
  ratio === undefined || !Number.isFinite(ratio) ? "-" : `${ratio >= 100 ? ratio.toFixed(0) : ratio.toFixed(1)}x`;
const mib = (bytes: number): string => (bytes / 2 ** 20).toFixed(0);

/** Columns as wide as they need: the first `left` flush left, the others flush right. */
export function columns(rows: readonly (readonly string[])[], left: number): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => (row[column] ?? "").length)));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => (column < left ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)))
      .join("  ");
  return rows.map((row) => line(row).trimEnd()).join("\n");
}

function slowdowns({ machines }: Report): string {
  const rows = new Map(machines.flatMap(({ workloads }) => workloads.map((row) => [row.name, row])));
  const native64 = new Map(
    machines.filter(({ bits }) => bits === 64).flatMap(({ workloads }) => workloads.map((w) => [w.name, w])),
  );
  const ratio = (machine: MachineFigures, name: string): string =>
    shownRatio(machine.workloads.find((row) => row.name === name)?.ratio);
  const groups = [...new Set([...rows.values()].map(({ group }) => group))];
  return columns(
    [
      ["workload", "group", "native s", ...machines.map(({ name }) => name)],
      ...[...rows.values()].map(({ name, group, nativeSeconds }) => [
        name,
        group,
        (native64.get(name)?.nativeSeconds ?? nativeSeconds).toFixed(4),
        ...machines.map((machine) => ratio(machine, name)),
      ]),
      ...[...groups, "all"].map((group) => [
        "geomean",
        group,
        "",
        ...machines.map(({ geomeans }) => shownRatio(geomeans[group])),
      ]),
    ],
    2,
  );
}

function boots({ machines }: Report): string {
  return columns(
    [
      ["to /init's first line", "CPU s", "s", "resident MiB", "guest RAM", "beside it"],
      ...machines.flatMap(({ name, boot }) => {
        if (boot === undefined) return [];
        const { cpuSeconds, seconds, residentBytes, guestRamBytes: ram } = boot;
        const memory = ram === undefined ? ["-", "-"] : [mib(ram), mib(residentBytes - ram)];
        return [[name, cpuSeconds.toFixed(2), seconds.toFixed(2), mib(residentBytes), ...memory]];
      }),
    ],
    1,
  );
}

export function table(report: Report): string {
  const { divide, rounds, host, machines, wrong } = report;
  const iterations = divide === 1 ? "" : `, iterations divided by ${divide}`;
  return [
    `CPU time against native, median of ${rounds} ${rounds === 1 ? "round" : "rounds"}${iterations}`,
    `${host.processor}, ${host.kernel}, Node ${host.node}`,
    ...machines.map(({ name, title, bits }) => `${name}: ${title}${bits === 32 ? ", against native of 32 bits" : ""}`),
    "",
    slowdowns(report),
    "",
    boots(report),
    "",
    wrong.length === 0 ? "all checksums are native's" : wrong.map((line) => `checksum differs: ${line}`).join("\n"),
  ].join("\n");
}
