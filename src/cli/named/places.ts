/** What `cp` is given: NAME:PATH is in a guest, all else on this host, as seen from where the program was started. */
import { resolve } from "node:path";
import { VmError } from "../../vm/vm-error.js";

export interface GuestPlace {
  readonly machine: string;
  readonly path: string;
}
export interface HostPlace {
  readonly machine?: undefined;
  /** Absolute; undefined: standard input or output. */
  readonly path: string | undefined;
}
export type Place = GuestPlace | HostPlace;

/** A path with a colon is meant by ./a:b. */
const IN_GUEST = /^([A-Za-z0-9][A-Za-z0-9_.-]*):(.*)$/s;
const DRIVE = /^[A-Za-z]:[\\/]/;

/** @throws VmError "bad-option" */
export function placeOf(text: string, folder = process.cwd()): Place {
  const match = process.platform === "win32" && DRIVE.test(text) ? null : IN_GUEST.exec(text);
  if (match !== null) {
    const [, machine = "", path = ""] = match;
    if (path === "")
      throw new VmError("bad-option", `${text} names no file`, `say where in the guest: ${machine}:/tmp`);
    return { machine, path };
  }
  if (text === "-") return { path: undefined };
  if (text === "") throw new VmError("bad-option", "an empty name is no file", "name a file or a folder");
  return { path: absolute(text, folder) };
}

/** What the end of a path says is kept: "folder/" is no link, "folder/." is what is in it. */
function absolute(text: string, folder: string): string {
  const path = resolve(folder, text);
  if (/(?:^|[\\/])\.\.?$/.test(text)) return path.endsWith("/") ? `${path}.` : `${path}/.`;
  return /[\\/]$/.test(text) && !path.endsWith("/") ? `${path}/` : path;
}

export interface Copies {
  readonly machine: string;
  readonly direction: "in" | "out";
  /** One after the other. */
  readonly list: readonly { readonly host: string | undefined; readonly guest: string; readonly shown: string }[];
}

/**
 * Which copies are meant. With several sources the destination is a folder that is there.
 * @throws VmError "bad-option"
 */
export function copiesOf(operands: readonly string[], folder = process.cwd()): Copies {
  const places = operands.map((text) => ({ text, place: placeOf(text, folder) }));
  const to = places.pop();
  if (to === undefined || places.length === 0)
    throw new VmError("bad-option", "a copy has a source and a destination", "enlighten cp FILE NAME:/tmp");
  const isSeveral = places.length > 1;
  // "folder/." is there, or the copy fails
  const into = (path: string): string => (isSeveral ? `${path.replace(/\/+$/, "")}/.` : path);
  if (isSeveral && to.text === "-")
    throw new VmError("bad-option", "standard output takes one file", "copy them one by one");
  if (isSeveral && places.some((p) => p.text === "-"))
    throw new VmError("bad-option", "standard input is a file without a name", "copy it by itself");
  const sources = new Set(places.map(({ place }) => place.machine));
  if (sources.size > 1)
    throw new VmError(
      "bad-option",
      "the sources are not all in one place",
      "copy from this host or from one VM at a time",
    );
  const [from] = sources;
  const { machine } = to.place;
  if (machine !== undefined && from !== undefined)
    throw new VmError("bad-option", "both are in a VM", "copy to this host first, and from there");
  if (machine === undefined && from === undefined)
    throw new VmError("bad-option", "neither is in a VM", "write NAME:/PATH for what is; enlighten ps lists names");
  const guest = into(to.place.path ?? "");
  return machine !== undefined
    ? {
        machine,
        direction: "in",
        list: places.map(({ text, place }) => ({ host: place.path, guest, shown: text })),
      }
    : {
        machine: from!,
        direction: "out",
        list: places.map(({ text, place }) => ({
          host: to.place.path === undefined ? undefined : into(to.place.path),
          guest: place.path!,
          shown: text,
        })),
      };
}
