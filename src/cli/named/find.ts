/** From a name to a connection: what is there, what somebody may have meant, and what to say when a machine goes meanwhile. */
import { join } from "node:path";
import type { ControlClient } from "../../control/client.js";
import { connectToControl } from "../../host/node/control/endpoint.js";
import { readLog } from "../../host/node/control/log-reader.js";
import { type Entry, Registry } from "../../host/node/control/registry.js";
import { stateFolder } from "../../host/node/control/state-folder.js";
import { nearNames } from "../../image/near-names.js";
import { VmError } from "../../vm/vm-error.js";

const TAIL_LINES = 12;
/** A process that has just begun makes its socket meanwhile. */
const BEGIN_MS = 60_000;
const LOOK_MS = 50;

export const openRegistry = (): Registry => new Registry(stateFolder(process.env));

/** @throws VmError "not-found", with names that are there */
export function findMachine(registry: Registry, name: string): Entry {
  const entry = registry.find(name);
  if (entry !== undefined) return entry;
  throw unknownName(registry, name);
}
export function unknownName(registry: Registry, name: string): VmError {
  const names = registry.list().map((e) => e.name);
  const near = nearNames(name, names);
  const there =
    names.length === 0
      ? "none runs; enlighten run debian:12 --name NAME --detach starts one"
      : near.length > 0
        ? `did you mean ${near.map((n) => `"${n}"`).join(" or ")}? There ${names.length === 1 ? "is" : "are"}: ${names.join(", ")}`
        : `there ${names.length === 1 ? "is" : "are"}: ${names.join(", ")}`;
  const ended = registry.findEnded(name);
  const message =
    ended === undefined
      ? `there is no VM "${name}"`
      : `the VM "${name}" has ended (${ended.end ?? "nobody knows how"}); enlighten logs ${name} shows its console`;
  return new VmError("not-found", message, there);
}

/**
 * Connects to a machine.
 * @param doing for people: "running a command in"
 */
export async function connect(registry: Registry, name: string, doing: string): Promise<ControlClient> {
  let entry = findMachine(registry, name);
  for (let waited = 0; entry.state === "starting"; waited += LOOK_MS) {
    if (waited >= BEGIN_MS)
      throw new VmError(
        "timeout",
        `the VM "${name}" has not begun within ${BEGIN_MS / 1000} s`,
        "it may be fetching its guest",
      );
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    entry = findMachine(registry, name);
  }
  try {
    return await connectToControl(entry.socket, () => explainEnd(registry, entry, doing));
  } catch (error) {
    if (error instanceof VmError && error.code === "timeout")
      throw new VmError(
        "timeout",
        `the VM "${name}" does not answer (process ${Number.parseInt(entry.process, 10)})`,
        `look at its log (${join(entry.folder, "process.log")}), or end it: kill -9 ${Number.parseInt(entry.process, 10)}`,
      );
    throw error;
  }
}

/** A process that has let go of its connection is gone at once, or will never be. */
const GOING_MS = 2000;
/** The connection went in the midst of something. */
async function explainEnd(registry: Registry, entry: Entry, doing: string): Promise<Error> {
  for (let waited = 0; registry.isAlive(entry) && waited < GOING_MS; waited += LOOK_MS)
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  if (registry.isAlive(entry))
    return new VmError("closed", `the VM "${entry.name}" closed the connection while ${doing}`, "try again");
  // cleans it, if it died
  registry.find(entry.name);
  const again = registry.findAgain(entry);
  const tail = again === undefined ? "" : await consoleTail(again);
  return new VmError("ended", `the VM "${entry.name}" ended while ${doing} (${again?.end ?? "it is gone"})`, "", tail);
}
/** The last console lines, without control characters. */
export async function consoleTail(entry: Entry): Promise<string> {
  const pieces: Uint8Array[] = [];
  for await (const piece of readLog(() => join(entry.folder, "console.log"), TAIL_LINES)) pieces.push(piece);
  const text = Buffer.concat(pieces).toString();
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
  return text.replace(/\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]/g, "").trim();
}
