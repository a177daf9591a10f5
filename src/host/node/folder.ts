/**
 * A folder of the host that is open, and what is in it by a single name: for copies and shares, whose other end is a guest. What a
 * name leads to is never followed: on Linux every call goes by the open folder itself (/proc/self/fd/N/name), so that nothing can
 * come between looking and using. Elsewhere the folder's path is looked at before each call: whether it is still the same folder.
 */
import { closeSync, constants, existsSync, fstatSync, lstatSync, openSync, readdirSync, realpathSync } from "node:fs";

/** 0 where the platform has no such flag (Windows). */
const { O_RDONLY, O_DIRECTORY = 0, O_NOFOLLOW = 0, O_NONBLOCK = 0 } = constants;
const BY_DESCRIPTOR = process.platform === "linux" && existsSync("/proc/self/fd");
const SLASH = Buffer.from("/");

/** As the system's calls fail. */
export function systemError(code: string, text: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: ${text}`), { code });
}

export class Folder {
  readonly fd: number;
  readonly #path: Buffer;
  readonly #dev: bigint;
  readonly #ino: bigint;

  private constructor(path: Buffer, flags: number) {
    this.fd = openSync(path, O_RDONLY | O_DIRECTORY | O_NONBLOCK | flags);
    try {
      const s = fstatSync(this.fd, { bigint: true });
      if (!s.isDirectory()) throw systemError("ENOTDIR", "not a directory");
      this.#dev = s.dev;
      this.#ino = s.ino;
      this.#path = BY_DESCRIPTOR ? Buffer.from(`/proc/self/fd/${this.fd}`) : realpathSync(path, { encoding: "buffer" });
      if (!BY_DESCRIPTOR) this.#check();
    } catch (error) {
      closeSync(this.fd);
      throw error;
    }
  }
  /** By a path of the user's own, links included. */
  static open(path: string | Buffer): Folder {
    return new Folder(Buffer.from(path), 0);
  }
  /** By a path whose last name may be no link. */
  static openNoFollow(path: string | Buffer): Folder {
    return new Folder(Buffer.from(path), O_NOFOLLOW);
  }
  #check(): void {
    const s = lstatSync(this.#path, { bigint: true, throwIfNoEntry: false });
    if (s === undefined || s.dev !== this.#dev || s.ino !== this.#ino)
      throw systemError("ESTALE", "the folder was replaced");
  }
  /** A path for one call that does not follow its last name. @param name a single name (`isName`) */
  at(name: Uint8Array): Buffer {
    if (!BY_DESCRIPTOR) this.#check();
    return Buffer.concat([this.#path, SLASH, name]);
  }
  /** A folder in it; fails for a link. */
  folder(name: Uint8Array): Folder {
    return new Folder(this.at(name), O_NOFOLLOW);
  }
  /** Opens a file in it; fails for a link, and does not wait for the other end of a fifo. */
  open(name: Uint8Array, flags: number, mode?: number): number {
    return openSync(this.at(name), flags | O_NOFOLLOW | O_NONBLOCK, mode);
  }
  names(): Buffer[] {
    if (!BY_DESCRIPTOR) this.#check();
    return readdirSync(this.#path, { encoding: "buffer" });
  }
  close(): void {
    closeSync(this.fd);
  }
}
