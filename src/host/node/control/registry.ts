/**
 * The register of named machines. A name is a folder with one folder in it, whose name nobody else ever has: so a name is taken by
 * one `rename` (which fails on a folder that is not empty), and what is stale is moved away by another that cannot hit a newer
 * machine. No lock is needed, and whoever dies in the midst leaves nothing that another verb would not clean.
 */
import { randomBytes } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, renameSync, rmdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { flag, number, oneOf, optional, record, type Shaped, text, whole } from "../../../control/shape.js";
import { VmError } from "../../../vm/vm-error.js";
import { describeProcess, isProcessAlive } from "../process-identity.js";
import { privateFolder, socketPath } from "./state-folder.js";

const metadata = record({
  version: whole(1, 1),
  id: text,
  name: text,
  /** Process and its start. */
  process: text,
  /** "debian:12", or a kernel's file. */
  guest: text,
  memoryMiB: number,
  /** ms since 1970. */
  startedAt: number,
  detached: flag,
  socket: text,
  state: oneOf("starting", "ready", "ended"),
  /** Of one that has ended: how, for people. */
  end: optional(text),
  endedAt: optional(number),
});
export type Metadata = Shaped<typeof metadata>;

/** A machine that has a name. */
export interface Entry extends Metadata {
  readonly folder: string;
}

const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/;
const ID = /^[0-9a-f]{16}$/;
/** Machines that are over whose logs are kept. */
const KEPT_ENDED = 16;
const TRIES = 50;
/** How a machine ended that did not say so itself. */
export const GONE = "its process is gone";

export function checkName(name: string): void {
  if (!NAME.test(name))
    throw new VmError(
      "bad-option",
      `"${name.slice(0, 80)}" is no name for a machine`,
      "letters, digits, and . _ - behind the first; at most 63",
    );
}

export class Registry {
  readonly folder: string;
  readonly #now: () => number;

  /** @param now ms since 1970 */
  constructor(folder: string, now: () => number = () => Date.now()) {
    this.folder = folder;
    this.#now = now;
  }
  #path(...parts: readonly string[]): string {
    return join(this.folder, ...parts);
  }

  /**
   * Takes a name for this process.
   * @throws VmError "name-taken" when another machine has it
   */
  claim(name: string, what: { readonly guest: string; readonly memoryMiB: number; readonly detached: boolean }): Claim {
    checkName(name);
    const id = randomBytes(8).toString("hex");
    privateFolder(this.folder);
    const folder = this.#path("vms", name, id);
    const data: Metadata = {
      version: 1,
      id,
      name,
      process: describeProcess(process.pid),
      startedAt: this.#now(),
      socket: socketPath(folder, id),
      state: "starting",
      ...what,
    };
    const claim = this.#path("claims", id);
    mkdirSync(join(claim, id), { recursive: true, mode: 0o700 });
    mkdirSync(this.#path("vms"), { recursive: true, mode: 0o700 });
    try {
      writeFileSync(join(claim, id, "vm.json"), JSON.stringify(data));
      for (let tries = 0; tries < TRIES; tries++) {
        if (moved(claim, this.#path("vms", name))) return new Claim(this, { ...data, folder });
        const there = this.#find(name);
        if (there !== undefined && isProcessAlive(there.process))
          throw new VmError(
            "name-taken",
            `there is a VM "${name}" already (process ${Number.parseInt(there.process, 10)})`,
            `take another name, or stop it: enlighten stop ${name}`,
          );
        this.#cleanName(name);
      }
      throw new VmError("failed", `the name "${name}" could not be taken in ${this.folder}`, "try again");
    } finally {
      rmSync(claim, { recursive: true, force: true });
    }
  }
  /** Takes the first free one of NAME, NAME-2, NAME-3, … */
  claimLike(name: string, what: Parameters<Registry["claim"]>[1]): Claim {
    for (let n = 1; ; n++) {
      try {
        return this.claim(n === 1 ? name : `${name}-${n}`, what);
      } catch (error) {
        if (!(error instanceof VmError && error.code === "name-taken")) throw error;
      }
    }
  }
  /** The machine that this process was started for. @throws VmError when it is not */
  adopt(name: string): Claim {
    const entry = this.#find(name);
    if (entry === undefined || entry.process !== describeProcess(process.pid))
      throw new VmError("failed", `the VM "${name}" is not this process's`, "start it with enlighten run --detach");
    return new Claim(this, entry);
  }

  /** Machines whose process is there, by name. What is stale is cleaned. */
  list(): Entry[] {
    this.#cleanClaims();
    return names(this.#path("vms"))
      .sort()
      .flatMap((name) => {
        const entry = NAME.test(name) ? this.#find(name) : undefined;
        if (entry !== undefined && isProcessAlive(entry.process)) return [entry];
        this.#cleanName(name);
        return [];
      });
  }
  find(name: string): Entry | undefined {
    if (!NAME.test(name)) return undefined;
    const entry = this.#find(name);
    if (entry !== undefined && isProcessAlive(entry.process)) return entry;
    this.#cleanName(name);
    return undefined;
  }
  /** Whether it is still the same. */
  isAlive(entry: Entry): boolean {
    return this.#find(entry.name)?.id === entry.id && isProcessAlive(entry.process);
  }
  /** The last of this name that is over. */
  findEnded(name: string): Entry | undefined {
    if (!NAME.test(name)) return undefined;
    return this.#ended().findLast((e) => e.name === name);
  }
  /** One that was there, wherever it is by now. */
  findAgain(entry: Entry): Entry | undefined {
    return this.#read(entry.name, entry.id) ?? this.#ended().find((e) => e.id === entry.id);
  }
  /** Those that are over, the oldest first. */
  #ended(): Entry[] {
    return names(this.#path("ended"))
      .flatMap((folder) => readEntry(this.#path("ended", folder)) ?? [])
      .sort((a, b) => (a.endedAt ?? 0) - (b.endedAt ?? 0));
  }

  #find(name: string): Entry | undefined {
    for (const id of names(this.#path("vms", name))) {
      const entry = this.#read(name, id);
      if (entry !== undefined) return entry;
    }
    return undefined;
  }
  #read(name: string, id: string): Entry | undefined {
    const entry = ID.test(id) ? readEntry(this.#path("vms", name, id)) : undefined;
    return entry?.name === name && entry.id === id ? entry : undefined;
  }
  /** Moves away what is in a name's folder and belongs to nobody. */
  #cleanName(name: string): void {
    for (const id of names(this.#path("vms", name))) {
      const entry = this.#read(name, id);
      if (isProcessAlive(entry?.process ?? ownerOf(this.#path("vms", name, id)))) continue;
      if (entry === undefined) rmSync(this.#path("vms", name, id), { recursive: true, force: true });
      else this.retire(entry, GONE);
    }
    emptied(this.#path("vms", name));
  }
  /** Claims whose process died in the midst of it. */
  #cleanClaims(): void {
    for (const id of names(this.#path("claims"))) {
      const entry = readEntry(this.#path("claims", id, id));
      if (entry !== undefined && isProcessAlive(entry.process)) continue;
      const age = this.#now() - changedAt(this.#path("claims", id));
      // one that is just being written
      if (entry === undefined && age < 60_000) continue;
      rmSync(this.#path("claims", id), { recursive: true, force: true });
    }
  }
  /** A machine is over: its name is free, its logs are kept for a while. */
  retire(entry: Entry, how: string): void {
    if (process.platform !== "win32") rmSync(entry.socket, { force: true });
    const { folder, ...data } = entry;
    const to = this.#path("ended", `${entry.name}.${entry.id}`);
    try {
      writeMetadata(folder, { ...data, state: "ended", end: data.end ?? how, endedAt: data.endedAt ?? this.#now() });
      mkdirSync(this.#path("ended"), { recursive: true, mode: 0o700 });
      renameSync(folder, to);
    } catch {
      // another verb was quicker
    }
    emptied(this.#path("vms", entry.name));
    for (const old of this.#ended().slice(0, -KEPT_ENDED)) rmSync(old.folder, { recursive: true, force: true });
  }
}

/** A name that a process has. */
export class Claim {
  readonly #registry: Registry;
  #entry: Entry;

  constructor(registry: Registry, entry: Entry) {
    this.#registry = registry;
    this.#entry = entry;
  }
  get entry(): Entry {
    return this.#entry;
  }
  #write(change: Partial<Metadata>): void {
    const { folder, ...data } = { ...this.#entry, ...change };
    writeMetadata(folder, data);
    this.#entry = { ...data, folder };
  }
  /** It is another process's from now on. */
  giveTo(pid: number): void {
    this.#write({ process: describeProcess(pid) });
  }
  /** Its socket listens. */
  ready(): void {
    this.#write({ state: "ready" });
  }
  /** The machine is over. @param how for people */
  release(how: string): void {
    this.#registry.retire(this.#entry, how);
  }
}

function readEntry(folder: string): Entry | undefined {
  try {
    const data = metadata(JSON.parse(readFileSync(join(folder, "vm.json"), "utf8")), "");
    return NAME.test(data.name) && ID.test(data.id) ? { ...data, folder } : undefined;
  } catch {
    // it has gone, or somebody else has written it
    return undefined;
  }
}
/** The process of an entry that is not in order: of a newer enlighten, for one. Its name is taken as long as that is there. */
function ownerOf(folder: string): string {
  try {
    return String((JSON.parse(readFileSync(join(folder, "vm.json"), "utf8")) as { process?: unknown }).process);
  } catch {
    return "";
  }
}
/** Whole or not at all. */
function writeMetadata(folder: string, data: Metadata): void {
  const beside = join(folder, `vm.json.${process.pid}`);
  writeFileSync(beside, JSON.stringify(data));
  renameSync(beside, join(folder, "vm.json"));
}
function names(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
function changedAt(path: string): number {
  try {
    return statSync(path).mtimeMs;
  } catch {
    return 0;
  }
}
/** Removes a folder that is empty. */
function emptied(path: string): void {
  try {
    rmdirSync(path);
  } catch {
    // it is not, or it is gone
  }
}
/** Puts a folder in the place of one that is empty, or of none. @returns whether it went */
function moved(from: string, to: string): boolean {
  // Windows replaces no folder, not even an empty one
  if (process.platform === "win32") emptied(to);
  try {
    renameSync(from, to);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOTEMPTY" || code === "EEXIST" || (process.platform === "win32" && code === "EPERM")) return false;
    throw error;
  }
}
