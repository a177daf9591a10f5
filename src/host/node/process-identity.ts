/** Which process something belongs to: its number and its start, since numbers are used again. */
import { readFileSync } from "node:fs";

/** Number and start ("-" where nothing tells it), one line. */
export function describeProcess(pid: number): string {
  return `${pid} ${processStart(pid) ?? "-"}\n`;
}

/** Whether the process of that line is there. */
export function isProcessAlive(text: string): boolean {
  const [pid, start] = text.trim().split(" ");
  const number = Number(pid);
  if (!Number.isSafeInteger(number) || number <= 0) return false;
  try {
    process.kill(number, 0);
  } catch (error) {
    // EPERM: it is there and somebody else's.
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
  }
  const stat = readStat(number);
  if (stat === undefined) return true;
  // one that has ended and whose parent has not looked yet
  if (stat[0] === "Z" || stat[0] === "X") return false;
  return start === "-" || stat[19] === start;
}

function processStart(pid: number): string | undefined {
  return readStat(pid)?.[19];
}

/** Where there is /proc: the fields behind the name, which may contain spaces and ends in ")"; the start in clock ticks is the 22nd. */
function readStat(pid: number): readonly string[] | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  } catch {
    return undefined;
  }
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ");
}
