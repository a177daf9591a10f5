/**
 * An advisory lock on a disk's file, so that two machines do not write one disk: a file beside it that names the process. It is
 * stale when that process is gone. Other programs do not look at it, nor do processes that cannot see each other (containers).
 */
import { linkSync, readFileSync, realpathSync, renameSync, unlinkSync, writeFileSync } from "node:fs";
import { threadId } from "node:worker_threads";
import { DiskFileError } from "./disk-file-error.js";
import { describeProcess, isProcessAlive } from "./process-identity.js";

export interface DiskLock {
  release(): void;
}

/** @throws DiskFileError "in-use" when a living process holds it */
export function lockDiskFile(path: string): DiskLock {
  const lock = `${realpathSync(path)}.enlighten-lock`;
  const own = `${lock}-${process.pid}-${threadId}`;
  try {
    // Written first and linked then, so that nobody sees a lock without its text.
    writeFileSync(own, describeProcess(process.pid));
    try {
      for (let tries = 0; ; tries++) {
        try {
          linkSync(own, lock);
          return { release: () => removed(lock) };
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
          if (tries === 3 || !clearIfStale(lock, `${own}-stale`)) throw inUse(path, lock, error);
        }
      }
    } finally {
      removed(own);
    }
  } catch (error) {
    if (error instanceof DiskFileError) throw error;
    throw new DiskFileError(
      "no-lock",
      `${path}: its lock ${lock} cannot be made: ${error instanceof Error ? error.message : error}`,
      "put the disk where its folder may be written, or use it read-only",
      error,
    );
  }
}

/** @returns whether it was stale (and is gone now) */
function clearIfStale(lock: string, aside: string): boolean {
  const text = read(lock);
  if (text === undefined) return true;
  if (isProcessAlive(text)) return false;
  // Another process may have done the same and hold a new lock by now: only a renamed file can be looked at safely.
  try {
    renameSync(lock, aside);
  } catch {
    return true;
  }
  const moved = read(aside);
  const stale = moved === text;
  if (!stale) {
    try {
      linkSync(aside, lock);
    } catch {
      // A third process has it: then two hold it, and the one that was moved cannot know. Not one in a million starts.
    }
  }
  removed(aside);
  return stale;
}

function inUse(path: string, lock: string, cause: unknown): DiskFileError {
  return new DiskFileError(
    "in-use",
    `${path} is in use by process ${read(lock)?.split(" ")[0] ?? "(gone just now)"}`,
    "stop the other machine, use a copy of the disk, or use it read-only",
    cause,
  );
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

function removed(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // It is gone: that is what was wanted.
  }
}
