/** `enlighten stop NAME…`: asks the guests to power off, or ends them. */
import { describeFailure, ExitCode, reportFailure } from "../exit-codes.js";
import { connect, openRegistry, unknownName } from "./find.js";

export interface StopOptions {
  readonly force?: boolean;
  readonly all?: boolean;
  /** Seconds. */
  readonly timeout: number;
}
/** Beyond what the guest gets: the machine lets go of its disks. */
const GOING_MS = 40_000;

export async function stop(names: readonly string[], o: StopOptions): Promise<number> {
  const registry = openRegistry();
  const wanted = o.all === true ? registry.list().map((e) => e.name) : [...new Set(names)];
  if (wanted.length === 0) {
    if (o.all === true) return ExitCode.ok;
    process.stderr.write("enlighten: name a VM, or --all\n  try: enlighten ps\n");
    return ExitCode.usage;
  }
  // before any is stopped: a slip in the third name stops none
  for (const name of wanted) if (registry.find(name) === undefined) throw unknownName(registry, name);
  const codes = await Promise.all(
    wanted.map(async (name) => {
      try {
        await stopOne(name, o);
        process.stdout.write(`${name}\n`);
        return ExitCode.ok;
      } catch (error) {
        const failure = describeFailure(error);
        reportFailure({ ...failure, message: `${name}: ${failure.message}` }, error);
        return failure.exitCode;
      }
    }),
  );
  return Math.max(...codes);
}

async function stopOne(name: string, o: StopOptions): Promise<void> {
  const client = await connect(openRegistry(), name, "stopping it");
  try {
    const timeoutMs = Math.round(o.timeout * 1000);
    await client.ask("stop", { force: o.force === true, timeoutMs }, { timeoutMs: timeoutMs + GOING_MS });
    // its name is free, and its disks are closed, when its process lets go
    let timer: NodeJS.Timeout | undefined;
    await Promise.race([
      client.closed,
      new Promise<void>((resolve) => {
        timer = setTimeout(resolve, GOING_MS);
      }),
    ]);
    clearTimeout(timer);
  } finally {
    client.close();
  }
}
