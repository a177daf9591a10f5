/**
 * Downloaded and assembled files by their SHA-256, and small JSON records, in the user's cache folder. A file appears
 * whole or not at all (written beside, then renamed), and is checked each time it is read.
 */
import { createHash, randomBytes } from "node:crypto";
import { mkdir, open, rename, unlink } from "node:fs/promises";
import { homedir } from "node:os";
import { isAbsolute, join } from "node:path";
import { ImageError } from "../../image/errors.js";
import type { PackageCache } from "../../image/package-source.js";
import { readLargeFile } from "./large-file.js";

export const sha256 = async (bytes: Uint8Array): Promise<string> => createHash("sha256").update(bytes).digest("hex");

/** $XDG_CACHE_HOME/enlighten or ~/.cache/enlighten (XDG Base Directory Specification: relative paths are ignored). */
export function cacheFolder(environment: Readonly<Record<string, string | undefined>>): string {
  const base = environment.XDG_CACHE_HOME;
  return join(base !== undefined && isAbsolute(base) ? base : join(homedir(), ".cache"), "enlighten");
}

/** The file system, as far as it is used here; tests put a full disk in its place. */
export interface CacheFiles {
  mkdir(path: string): Promise<void>;
  read(path: string): Promise<Uint8Array>;
  write(path: string, bytes: Uint8Array): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
}

const nodeFiles: CacheFiles = {
  mkdir: async (path) => {
    await mkdir(path, { recursive: true });
  },
  read: readLargeFile,
  write: async (path, bytes) => {
    const file = await open(path, "wx");
    try {
      await file.writeFile(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
  },
  rename,
  remove: unlink,
};

const codeOf = (error: unknown): string | undefined =>
  error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined;

export class FolderCache implements PackageCache {
  readonly folder: string;
  readonly #files: CacheFiles;

  constructor(folder: string, files: CacheFiles = nodeFiles) {
    this.folder = folder;
    this.#files = files;
  }

  #path(hash: string): string {
    if (!/^[0-9a-f]{64}$/.test(hash)) throw new Error(`"${hash}" is no SHA-256`);
    return join(this.folder, "sha256", hash.slice(0, 2), hash);
  }

  async #readIfThere(path: string): Promise<Uint8Array | undefined> {
    try {
      return await this.#files.read(path);
    } catch (error) {
      if (codeOf(error) === "ENOENT") return undefined;
      throw this.#failure(error);
    }
  }

  #failure(error: unknown): ImageError {
    const code = codeOf(error);
    if (code === "ENOSPC" || code === "EDQUOT") {
      const hint = `free some space there, or set XDG_CACHE_HOME to a larger disk`;
      return new ImageError("disk-full", `the cache folder ${this.folder} is full`, hint, { cause: error });
    }
    const hint = "check the folder's owner and permissions, or set XDG_CACHE_HOME to another place";
    const why = code ?? (error instanceof Error ? error.message : String(error));
    return new ImageError("cache", `the cache folder ${this.folder} cannot be used: ${why}`, hint, { cause: error });
  }

  async #writeWhole(path: string, bytes: Uint8Array): Promise<void> {
    const partial = `${path}.${process.pid}.${randomBytes(4).toString("hex")}.part`;
    try {
      await this.#files.mkdir(join(path, ".."));
      await this.#files.write(partial, bytes);
      await this.#files.rename(partial, path);
    } catch (error) {
      await this.#files.remove(partial).catch(() => {}); // it may never have come to be
      throw this.#failure(error);
    }
  }

  async read(hash: string): Promise<Uint8Array | undefined> {
    const path = this.#path(hash);
    const bytes = await this.#readIfThere(path);
    if (bytes === undefined || (await sha256(bytes)) === hash) return bytes;
    await this.#files.remove(path).catch(() => {}); // another process may have been quicker
    return undefined;
  }

  async write(hash: string, bytes: Uint8Array): Promise<void> {
    await this.#writeWhole(this.#path(hash), bytes);
  }

  async readRecord(name: string): Promise<unknown> {
    const bytes = await this.#readIfThere(this.#recordPath(name));
    if (bytes === undefined) return undefined;
    try {
      return JSON.parse(new TextDecoder().decode(bytes));
    } catch {
      return undefined; // a damaged record is as good as none: it is made anew
    }
  }

  async writeRecord(name: string, value: unknown): Promise<void> {
    await this.#writeWhole(this.#recordPath(name), new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`));
  }

  #recordPath(name: string): string {
    if (!/^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name)) throw new Error(`"${name}" is no record name`);
    return join(this.folder, "records", `${name}.json`);
  }
}
