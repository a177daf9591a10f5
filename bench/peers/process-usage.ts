/** What another process has used so far: CPU time of all its threads, resident memory, and how much of that is a guest's RAM. */
import { closeSync, openSync, readdirSync, readFileSync, readSync } from "node:fs";

const TICKS_PER_SECOND = 100; // USER_HZ: the same for all of x86 Linux
const PAGE = 4096;

/** @returns user and system time in seconds, 10 ms apart, of threads that have ended too */
export function ticksToSeconds(stat: string): number {
  // the name, in parentheses, may have any characters
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

/**
 * CPU seconds of a process: the scheduler's own account in nanoseconds, but without threads that have ended; when those matter, the
 * process's account, which has them.
 */
export function cpuSeconds(pid: number): number {
  const seconds = ticksToSeconds(readFileSync(`/proc/${pid}/stat`, "utf8"));
  let threads = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`))
    try {
      threads += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "utf8").split(" ")[0]) / 1e9;
    } catch {
      // ended meanwhile, or a kernel that does not keep this account
    }
  return Math.max(seconds, threads);
}

export function residentBytes(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? Number.NaN) * 1024;
}

/** Where a guest's RAM is: a part of a mapping that is known by its size. */
export interface RamPlace {
  readonly mappingBytes: number;
  readonly offset: number;
  readonly bytes: number;
}

/** @returns the addresses at which writable mappings of that size start */
export function mappingsOfSize(maps: string, bytes: number): number[] {
  return maps.split("\n").flatMap((line) => {
    const range = /^([0-9a-f]+)-([0-9a-f]+) rw/.exec(line);
    if (range === null) return [];
    const start = Number.parseInt(range[1]!, 16);
    return Number.parseInt(range[2]!, 16) - start === bytes ? [start] : [];
  });
}

/** Resident bytes of the guest's RAM; undefined where its mapping is not found. */
export function residentRam(pid: number, { mappingBytes, offset, bytes }: RamPlace): number | undefined {
  const [start] = mappingsOfSize(readFileSync(`/proc/${pid}/maps`, "utf8"), mappingBytes);
  if (start === undefined) return undefined;
  const pages = bytes / PAGE;
  const entries = Buffer.alloc(pages * 8);
  const pagemap = openSync(`/proc/${pid}/pagemap`, "r");
  try {
    readSync(pagemap, entries, 0, entries.length, ((start + offset) / PAGE) * 8);
  } finally {
    closeSync(pagemap);
  }
  let resident = 0;
  for (let page = 0; page < pages; page++) if ((entries[page * 8 + 7]! & 0x80) !== 0) resident++; // bit 63: present
  return resident * PAGE;
}
