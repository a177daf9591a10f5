/** guestbench in the guest against the same program native. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildGuestbench, differences, runInGuest, runNative, type Workload } from "./guestbench/guestbench.js";
import { readOptions } from "./options.js";

const HELP = `npm run bench -- guest [options] [workload or group ...]

guestbench in a guest against the same program native: CPU time an iteration, and whether all checksums are equal.

  -d, --divide N  divide all iteration counts (default: 20)
      --counters  the machine's counters too
      --json FILE all figures, for programs`;
const options = {
  divide: { type: "string", short: "d", default: "20" },
  json: { type: "string" },
  counters: { type: "boolean", default: false },
} as const;
const { values, positionals: names } = readOptions(HELP, options, true);
const divide = Math.max(1, Number(values.divide) || 20);
const NATIVE_ROUNDS = 3;

const geomean = (ratios: readonly number[]): number =>
  Math.exp(ratios.reduce((sum, ratio) => sum + Math.log(ratio), 0) / ratios.length);
const shown = (ratio: number): string => `${ratio >= 100 ? ratio.toFixed(0) : ratio.toFixed(1)}x`;

const folder = await mkdtemp(join(tmpdir(), "enlighten-bench-"));
try {
  const program = buildGuestbench(folder);
  // sums depend on the count, so they come from a run with the guest's; times from the best of several long ones
  const expected = runNative(program, { divide, names });
  const rounds = Array.from({ length: NATIVE_ROUNDS }, () => runNative(program, { divide: 1, names }));
  const iteration = ({ seconds, iterations }: Workload): number => seconds / iterations;
  const best = (name: string): number =>
    Math.min(
      ...rounds
        .flat()
        .filter((workload) => workload.name === name)
        .map(iteration),
    );

  console.log(
    `${"workload".padEnd(11)}${"group".padEnd(6)}${"native s".padStart(10)}${"guest s".padStart(10)}${"ratio".padStart(9)}`,
  );
  const rows: {
    name: string;
    group: string;
    iterations: number;
    nativeSeconds: number;
    guestCpuSeconds: number;
    guestClockSeconds: number;
    ratio: number;
    sum: string;
  }[] = [];
  const guest = await runInGuest(program, {
    divide,
    ...(values.counters
      ? {
          onCounters: (name: string, counters: Readonly<Record<string, number>>) => {
            const parts = Object.entries(counters).flatMap(([key, n]) => (n === 0 ? [] : `${key} ${n}`));
            console.log(`  ${name}: ${parts.join(", ")}`);
          },
        }
      : {}),
    names,
    timeoutMs: 30 * 60_000,
    onWorkload({ name, group, iterations, seconds, cpuSeconds, sum }) {
      const nativeSeconds = best(name) * iterations;
      const row = {
        name,
        group,
        iterations,
        nativeSeconds,
        guestCpuSeconds: cpuSeconds,
        guestClockSeconds: seconds,
        ratio: cpuSeconds / nativeSeconds,
        sum,
      };
      rows.push(row);
      const wrong = expected.find((workload) => workload.name === name)?.sum === sum ? "" : "  WRONG SUM";
      console.log(
        `${name.padEnd(11)}${group.padEnd(6)}${nativeSeconds.toFixed(4).padStart(10)}${cpuSeconds.toFixed(2).padStart(10)}${shown(row.ratio).padStart(9)}${wrong}`,
      );
    },
  });
  const groups = Object.fromEntries(
    [...new Set(rows.map(({ group }) => group))].map((group) => [
      group,
      geomean(rows.filter((row) => row.group === group).map(({ ratio }) => ratio)),
    ]),
  );
  const all = geomean(rows.map(({ ratio }) => ratio));
  console.log(
    `geomeans   ${Object.entries(groups)
      .map(([group, ratio]) => `${group} ${shown(ratio)}`)
      .join("   ")}   all ${shown(all)}`,
  );
  const wrong = differences(expected, guest);
  for (const line of wrong) console.error(`checksum differs: ${line}`);
  if (wrong.length === 0) console.log(`all ${rows.length} checksums are native's`);
  if (values.json !== undefined)
    await writeFile(
      values.json,
      `${JSON.stringify({ divide, workloads: rows, geomeans: { ...groups, all }, wrong }, null, 2)}\n`,
    );
  process.exitCode = wrong.length === 0 ? 0 : 1;
} finally {
  await rm(folder, { recursive: true });
}
