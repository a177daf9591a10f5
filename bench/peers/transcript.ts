/** What a machine's console says while guestbench runs in it, and what its process had used at each line. No clock, no process. */
import { parseLine, type Workload } from "../guestbench/guestbench.js";

export interface Boot {
  /** From the start of the process to the first line of /init. */
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly residentBytes: number;
  /** Of it, the guest's RAM; undefined where that cannot be told apart. */
  readonly guestRamBytes: number | undefined;
}
export interface MachineWorkload extends Workload {
  /** Computed by all threads of the machine's process; by the guest's clock where that was too short to be seen. */
  readonly cpuSeconds: number;
}
export interface Usage {
  readonly cpuSeconds: () => number;
  readonly boot: () => Boot;
}

export class Transcript {
  readonly workloads: MachineWorkload[] = [];
  readonly #usage: Usage;
  #boot: Boot | undefined;
  #done = false;
  #rest = "";
  #begunAt = Number.NaN;
  /** The last lines, to say what a machine did that did not get to the end. */
  readonly #last: string[] = [];

  constructor(usage: Usage) {
    this.#usage = usage;
  }
  get boot(): Boot | undefined {
    return this.#boot;
  }
  get done(): boolean {
    return this.#done;
  }
  get lastLines(): readonly string[] {
    return this.#last;
  }

  /** @returns the workload that has begun last in this text, if one has */
  take(text: string): string | undefined {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop()!;
    let begun: string | undefined;
    for (const line of lines) begun = this.#line(line.replaceAll("\r", "")) ?? begun;
    return begun;
  }

  #line(line: string): string | undefined {
    this.#last.push(line);
    if (this.#last.length > 5) this.#last.shift();
    if (line.endsWith("INIT")) this.#boot ??= this.#usage.boot();
    else if (line === "GUESTBENCH done") this.#done = true;
    else if (line.startsWith("BEGIN ")) {
      this.#begunAt = this.#usage.cpuSeconds(); // the last one counts: a workload says it again after its preparations
      return line.slice("BEGIN ".length);
    } else {
      const found = parseLine(line);
      if (found === undefined) return undefined;
      const used = this.#usage.cpuSeconds() - this.#begunAt;
      this.workloads.push({ ...found, cpuSeconds: used > 0 ? used : found.seconds });
    }
    return undefined;
  }
}
