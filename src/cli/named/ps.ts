/** `enlighten ps`: the machines that run. */
import type { Summary } from "../../control/catalogue.js";
import { connectToControl } from "../../host/node/control/endpoint.js";
import type { Entry } from "../../host/node/control/registry.js";
import { VmError } from "../../vm/vm-error.js";
import { openRegistry } from "./find.js";
import { duration, megabytes, percent, table } from "./table.js";

const PATIENCE_MS = 2000;

/** What a machine says of itself; undefined when it says nothing in time. */
async function ask(entry: Entry): Promise<Summary | undefined> {
  if (entry.state === "starting") return undefined;
  try {
    const gone = async (): Promise<Error> => new VmError("ended", "it is gone");
    const client = await connectToControl(entry.socket, gone, PATIENCE_MS);
    try {
      return await client.ask("summary", {}, { timeoutMs: PATIENCE_MS });
    } finally {
      client.close();
    }
  } catch {
    return undefined;
  }
}

export async function ps(o: { readonly json?: boolean; readonly quiet?: boolean }): Promise<number> {
  const registry = openRegistry();
  const entries = registry.list();
  if (o.quiet === true) {
    process.stdout.write(entries.map((e) => `${e.name}\n`).join(""));
    return 0;
  }
  const asked = await Promise.all(entries.map(async (entry) => ({ entry, summary: await ask(entry) })));
  // what has ended meanwhile is not there
  const machines = asked.filter(({ entry, summary }) => summary !== undefined || registry.isAlive(entry));
  const stateOf = (entry: Entry, summary: Summary | undefined): string =>
    summary?.state ?? (entry.state === "starting" ? "preparing" : "not answering");
  if (o.json === true) {
    for (const { entry, summary } of machines) {
      const { name, guest, memoryMiB, startedAt, detached } = entry;
      const pid = Number.parseInt(entry.process, 10);
      process.stdout.write(
        `${JSON.stringify({ name, pid, guest, memoryMiB, startedAt, detached, ...summary, state: stateOf(entry, summary) })}\n`,
      );
    }
    return 0;
  }
  const rows = machines.map(({ entry, summary }) => [
    entry.name,
    entry.guest,
    stateOf(entry, summary),
    summary === undefined ? "-" : duration(summary.upMs),
    `${entry.memoryMiB} MiB`,
    summary === undefined ? "-" : megabytes(summary.rssBytes),
    summary === undefined ? "-" : percent(summary.load),
    summary?.ports.map((p) => `${p.host}→${p.guest}${p.protocol === "udp" ? "/udp" : ""}`).join(" ") ?? "",
  ]);
  process.stdout.write(table(["NAME", "GUEST", "STATE", "UP", "MEMORY", "RSS", "CPU", "PORTS"], rows));
  return 0;
}
