/** Reads a rotating log: its last lines, and what comes. */
import { closeSync, fstatSync, openSync, readSync, statSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";

const PIECE_BYTES = 64 << 10;
/** A log that is followed is looked at this often. */
const LOOK_MS = 100;

/** An open log: keeps its place when the file is renamed. */
class OpenLog {
  readonly #file: number;
  readonly inode: number;
  at = 0;
  constructor(path: string) {
    this.#file = openSync(path, "r");
    this.inode = fstatSync(this.#file).ino;
  }
  get length(): number {
    return fstatSync(this.#file).size;
  }
  read(): Uint8Array | undefined {
    const piece = new Uint8Array(PIECE_BYTES);
    const n = readSync(this.#file, piece, 0, piece.length, this.at);
    this.at += n;
    return n === 0 ? undefined : piece.subarray(0, n);
  }
  close(): void {
    closeSync(this.#file);
  }
}
function opened(path: string): OpenLog | undefined {
  try {
    return new OpenLog(path);
  } catch {
    return undefined;
  }
}

/** Puts two logs to the place where their last lines begin. */
function seekTail(logs: readonly OpenLog[], lines: number): void {
  let wanted = lines;
  for (const log of [...logs].reverse()) {
    if (wanted <= 0) {
      log.at = log.length;
      continue;
    }
    let end = log.length;
    // a line's end at the very end begins no new line
    let isLast = true;
    while (end > 0 && wanted > 0) {
      const from = Math.max(0, end - PIECE_BYTES);
      log.at = from;
      const piece = log.read()!.subarray(0, end - from);
      let i = piece.length - 1;
      if (isLast && log === logs.at(-1) && piece[i] === 0x0a) i--;
      isLast = false;
      for (; i >= 0; i--) if (piece[i] === 0x0a && --wanted === 0) break;
      end = wanted === 0 ? from + i + 1 : from;
    }
    log.at = end;
  }
}

/**
 * @param lines how many of the last ones (Infinity: all there are)
 * @param isOver for one that follows: whether nothing comes any more; undefined: what is there, and no more
 * @returns false when there is no such log
 */
export async function* readLog(
  path: () => string,
  lines: number,
  isOver?: () => boolean,
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array, boolean> {
  const logs = [opened(`${path()}.1`), opened(path())].filter((log) => log !== undefined);
  let current = logs.at(-1);
  if (current === undefined) return false;
  try {
    if (Number.isFinite(lines)) seekTail(logs, lines);
    for (const log of logs) for (let b = log.read(); b !== undefined; b = log.read()) yield b;
    while (isOver !== undefined && signal?.aborted !== true) {
      const over = isOver();
      for (let b = current.read(); b !== undefined; b = current.read()) yield b;
      if (inodeOf(path()) !== current.inode) {
        const next = opened(path());
        if (next !== undefined && next.inode !== current.inode) {
          // what came between the last look and the turn
          for (let b = current.read(); b !== undefined; b = current.read()) yield b;
          logs.push(next);
          current = next;
          continue;
        }
        next?.close();
      }
      if (over) break;
      await pause(LOOK_MS, undefined, signal === undefined ? {} : { signal }).catch(() => {});
    }
    return true;
  } finally {
    for (const log of logs) log.close();
  }
}
function inodeOf(path: string): number | undefined {
  try {
    return statSync(path).ino;
  } catch {
    return undefined;
  }
}
