/**
 * Where named machines are known: the user's state folder, for that user alone. This folder has what control needs of Node: the
 * register of machines (registry.ts), their sockets (endpoint.ts), their logs (rotating-log.ts, log-reader.ts).
 *
 *     vms/NAME/ID/      a machine: vm.json (who runs what), control.sock, console.log, process.log, exec-N.log
 *     ended/NAME.ID/    one that is over: the same without the socket; the last few
 *     claims/ID/        a name that is just being taken
 */
import { chmodSync, lstatSync, mkdirSync } from "node:fs";
import { homedir, tmpdir, userInfo } from "node:os";
import { isAbsolute, join, resolve } from "node:path";
import { VmError } from "../../../vm/vm-error.js";

type Environment = Readonly<Record<string, string | undefined>>;

/** $ENLIGHTEN_STATE, $XDG_STATE_HOME/enlighten, ~/.local/state/enlighten (XDG: relative paths are ignored). */
export function stateFolder(environment: Environment): string {
  const own = environment.ENLIGHTEN_STATE;
  if (own !== undefined && own !== "") return resolve(own);
  const base = environment.XDG_STATE_HOME;
  return join(base !== undefined && isAbsolute(base) ? base : join(homedir(), ".local", "state"), "enlighten");
}

/** Makes it if need be. @throws VmError when it is another user's, or cannot be made */
export function privateFolder(path: string): void {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    const found = lstatSync(path);
    if (!found.isDirectory()) throw new VmError("failed", `${path} is no folder`, "remove it, or set ENLIGHTEN_STATE");
    if (process.platform === "win32") return;
    if (found.uid !== userInfo().uid)
      throw new VmError("failed", `${path} belongs to another user`, "set ENLIGHTEN_STATE to a folder of your own");
    // one that others may look into: it was made by hand
    if ((found.mode & 0o077) !== 0) chmodSync(path, 0o700);
  } catch (error) {
    if (error instanceof VmError) throw error;
    throw new VmError(
      "failed",
      `the state folder ${path} cannot be made (${(error as NodeJS.ErrnoException).code ?? error})`,
      "set ENLIGHTEN_STATE to a folder that may be written",
    );
  }
}

/** A path of sockaddr_un has so many bytes with its zero (Linux 108, BSD and macOS 104). */
const MAX_SOCKET_PATH = process.platform === "linux" ? 107 : 103;

/** Where a machine's socket is: in its folder if the path is short enough. */
export function socketPath(folder: string, id: string): string {
  if (process.platform === "win32") return `\\\\.\\pipe\\enlighten-${id}`;
  const own = join(folder, "control.sock");
  if (Buffer.byteLength(own) <= MAX_SOCKET_PATH) return own;
  return join(shortFolder(), `${id}.sock`);
}
/** For sockets of state folders with long names. */
function shortFolder(): string {
  const temporary = Buffer.byteLength(tmpdir()) < MAX_SOCKET_PATH / 2 ? tmpdir() : "/tmp";
  const folder = join(temporary, `enlighten-${userInfo().uid}`);
  privateFolder(folder);
  return folder;
}
