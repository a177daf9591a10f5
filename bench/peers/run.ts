/**
 * guestbench in this machine and in those of others that are installed, against native: one table of one run.
 *
 *   npm run bench -- peers --help
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { cpus, release, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import {
  argumentsOf,
  type Bits,
  benchAppend,
  buildGuestbench,
  type GuestPaths,
  type Selection,
  type Workload,
  writeGuest,
} from "../guestbench/guestbench.js";
import { readOptions } from "../options.js";
import { DEFAULT_MACHINES, findMachine, isMissing, MACHINE_NAMES, type Machine } from "./machines.js";
import { measure, type Run } from "./measure.js";
import { plot } from "./plot.js";
import { type Measured, makeReport, type Native, type Report } from "./report.js";
import { table } from "./table.js";
import { writeGuest32 } from "./v86-files.js";

const HELP = `npm run bench -- peers [options] [workload or group ...]

CPU time of whole machines against native, by workload: 20 of them, in the groups int sha mem fp vm lz sys.
Machines: ${MACHINE_NAMES.join(" ")}; of these, ${DEFAULT_MACHINES.join(" ")} as far as they are installed.

  -d, --divide N       divide all iteration counts: quick, but compiling counts more (default: 1)
  -r, --rounds N       medians of so many rounds of all machines (default: 1)
  -m, --machines LIST  these machines, commas between
      --v86 FOLDER     of the npm package v86 (or ENLIGHTEN_BENCH_V86)
      --json FILE      all figures, for programs
      --svg FILE       a plot of the groups
      --from FILE      show the figures of an earlier --json instead of measuring
      --timeout MIN    for each run of a machine (default: 30)`;

/** On one processor, as guests have one. */
const ONE_PROCESSOR = spawnSync("taskset", ["--version"]).status === 0 ? ["taskset", "-c", "0"] : [];

function fail(text: string): never {
  console.error(`${text}\n  try: npm run bench -- peers --help`);
  process.exit(2);
}
const options = {
  divide: { type: "string", short: "d", default: "1" },
  rounds: { type: "string", short: "r", default: "1" },
  machines: { type: "string", short: "m", default: DEFAULT_MACHINES.join(",") },
  v86: { type: "string" },
  json: { type: "string" },
  svg: { type: "string" },
  from: { type: "string" },
  timeout: { type: "string", default: "30" },
} as const;
const { values, positionals: names } = readOptions(HELP, options, true);
const count = (name: "divide" | "rounds" | "timeout"): number => {
  const n = Number(values[name]);
  return Number.isInteger(n) && n > 0 ? n : fail(`--${name} ${values[name]}: not a whole number above 0`);
};
const [divide, rounds, timeoutMinutes] = [count("divide"), count("rounds"), count("timeout")];

const say = (text: string): void => void process.stderr.write(process.stderr.isTTY ? `\r\x1b[K${text}\n` : `${text}\n`);
/** What goes on right now, where it can be overwritten. */
const show = (text: string): void => void (process.stderr.isTTY && process.stderr.write(`\r\x1b[K${text}`));

/** Machines that are here, in the order they were named; the others get a line. */
function machinesHere(): Machine[] {
  const unknown = values.machines.split(",").filter((name) => !MACHINE_NAMES.includes(name));
  if (unknown.length > 0) fail(`no machine "${unknown.join(", ")}"; machines: ${MACHINE_NAMES.join(" ")}`);
  return values.machines.split(",").flatMap((name) => {
    const machine = findMachine(name, { v86: values.v86 ?? process.env.ENLIGHTEN_BENCH_V86 });
    if (!isMissing(machine)) return machine;
    say(`${name} is not here: ${machine.hint}`);
    return [];
  });
}

/** One build of guestbench: native, and in the guest of its size. */
interface Build {
  readonly program: string;
  readonly guest: GuestPaths;
  readonly native: { readonly runs: Workload[][]; readonly expected: readonly Workload[] };
}

async function runNative(program: string, selection: Selection): Promise<readonly Workload[]> {
  const [first, ...rest] = [...ONE_PROCESSOR, program, ...argumentsOf(selection)];
  const { workloads, failure } = await measure({ program: first!, arguments: rest }, { timeoutMs: 10 * 60_000 });
  if (failure !== undefined) throw new Error(`guestbench, native: ${failure}`);
  if (workloads.length === 0) throw new Error(`no workload or group is called ${names.join(" or ")}`);
  return workloads;
}

async function makeBuild(bits: Bits, folder: string, selection: Selection): Promise<Build> {
  const program = buildGuestbench(folder, bits);
  const expected = await runNative(program, selection);
  show(`fetching the kernel of ${bits} bits`);
  mkdirSync(join(folder, String(bits)));
  const guest = await (bits === 64 ? writeGuest : writeGuest32)(program, join(folder, String(bits)));
  return { program, guest, native: { runs: selection.divide === 1 ? [[...expected]] : [], expected } };
}

async function compare(machines: readonly Machine[], folder: string): Promise<Report> {
  const selection = { divide, names };
  const builds = new Map<Bits, Build>();
  for (const bits of new Set(machines.map((machine) => machine.bits)))
    builds.set(bits, await makeBuild(bits, folder, selection));
  const measured = machines.map((machine) => ({ machine, runs: [] as Run[] }));
  for (let round = 1; round <= rounds; round++)
    for (const { machine, runs } of measured) {
      const { program, guest, native } = builds.get(machine.bits)!;
      const prefix = `round ${round} of ${rounds}: `;
      show(`${prefix}native`);
      native.runs.push([...(await runNative(program, { divide: 1, names }))]);
      show(`${prefix}${machine.name}, booting`);
      const run = await measure(machine.command(guest, benchAppend(selection)), {
        timeoutMs: timeoutMinutes * 60_000,
        onBegin: (name) => show(`${prefix}${machine.name}, ${name}`),
      });
      runs.push(run);
      const computed = run.workloads.reduce((sum, { cpuSeconds }) => sum + cpuSeconds, run.boot?.cpuSeconds ?? 0);
      say(`${prefix}${machine.name}, ${run.workloads.length} workloads, ${computed.toFixed(1)} s CPU`);
      if (run.failure !== undefined) {
        say(`${machine.name} ${run.failure}`);
        process.exitCode = 1;
      }
    }
  const [processor] = cpus();
  const host = { processor: processor!.model, kernel: `Linux ${release()}`, node: process.versions.node };
  const natives = new Map<Bits, Native>([...builds].map(([bits, { native }]) => [bits, native]));
  return makeReport({ divide, rounds, host }, natives, measured satisfies Measured[]);
}

async function measureAll(): Promise<Report> {
  const machines = machinesHere();
  if (machines.length === 0) fail("none of these machines is here");
  const folder = await mkdtemp(join(tmpdir(), "enlighten-peers-"));
  try {
    return await compare(machines, folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

function showReport(report: Report): void {
  console.log(table(report));
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(report, null, 2)}\n`);
  if (values.svg !== undefined) {
    mkdirSync(dirname(values.svg), { recursive: true });
    writeFileSync(values.svg, plot(report));
  }
  if (report.wrong.length > 0) process.exitCode = 1;
}

try {
  const earlier = values.from;
  showReport(earlier === undefined ? await measureAll() : (JSON.parse(readFileSync(earlier, "utf8")) as Report));
} catch (error) {
  say((error as Error).message);
  process.exitCode ??= 1;
}
