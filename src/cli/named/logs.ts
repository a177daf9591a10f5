/** `enlighten logs NAME`: what the guest's console showed, or what a command that runs beside wrote. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { withoutQueries } from "../../control/console.js";
import { optional, record, text, whole } from "../../control/shape.js";
import { readLog } from "../../host/node/control/log-reader.js";
import { type Entry, GONE } from "../../host/node/control/registry.js";
import { VmError } from "../../vm/vm-error.js";
import { openRegistry, unknownName } from "./find.js";

export interface LogsOptions {
  readonly follow?: boolean;
  /** Lines; all there are when it is not given. */
  readonly tail?: number;
  /** A command's. */
  readonly exec?: string;
  /** The machine's own process. */
  readonly process?: boolean;
}
const ending = record({ exitCode: whole(0, 0xffffffff), problem: optional(text) });

export async function logs(name: string, o: LogsOptions): Promise<number> {
  const registry = openRegistry();
  const found = registry.find(name) ?? registry.findEnded(name);
  if (found === undefined) throw unknownName(registry, name);
  const log = o.exec !== undefined ? `exec-${o.exec}.log` : o.process === true ? "process.log" : "console.log";
  // its folder moves when it ends
  let entry: Entry = found;
  const look = (): Entry => {
    if (!existsSync(entry.folder)) entry = registry.findAgain(entry) ?? entry;
    return entry;
  };
  const path = (): string => join(look().folder, log);
  if (o.exec !== undefined && (!/^\d+$/.test(o.exec) || !existsSync(path())))
    throw new VmError("not-found", `the VM "${name}" has no command ${o.exec}`, `enlighten status ${name} lists them`);
  const ended = (): boolean =>
    !registry.isAlive(entry) || (o.exec !== undefined && endOf(look(), o.exec) !== undefined);
  const controller = new AbortController();
  process.once("SIGINT", () => controller.abort());
  const follow = o.follow === true ? ended : undefined;
  for await (const piece of readLog(path, o.tail ?? Number.POSITIVE_INFINITY, follow, controller.signal))
    await new Promise<void>((resolve) => void process.stdout.write(shown(piece), () => resolve()));
  // cleans it, if it died
  registry.find(name);
  const { end: how } = look();
  if (follow !== undefined && how === GONE)
    throw new VmError("ended", `the VM "${name}" ended while its log was followed (${how})`);
  const end = o.exec === undefined ? undefined : endOf(look(), o.exec);
  if (end !== undefined && (end.exitCode !== 0 || end.problem !== undefined))
    process.stderr.write(
      `enlighten: the command ended with ${end.exitCode}${end.problem === undefined ? "" : `: ${end.problem}`}\n`,
    );
  return 0;
}

/** A file gets what was written; a terminal would answer to some of it. */
function shown(piece: Uint8Array): Uint8Array {
  return process.stdout.isTTY === true
    ? Buffer.from(withoutQueries(Buffer.from(piece).toString("latin1")), "latin1")
    : piece;
}

function endOf(entry: Entry, id: string): ReturnType<typeof ending> | undefined {
  try {
    return ending(JSON.parse(readFileSync(join(entry.folder, `exec-${id}.end`), "utf8")), "");
  } catch {
    // it runs still, or the machine went before it
    return undefined;
  }
}
