/** Progress of long work on standard error: one line that changes on a terminal, one line a step elsewhere. */
import type { Progress } from "../image/package-source.js";

const WARNINGS: Readonly<Record<string, string>> = {
  "release-expired": "the package index is past its Valid-Until date; going on with it",
};

/** What a terminal is asked for: tests put their own in its place. */
export interface ProgressStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

/** Elsewhere than on a terminal a long work says how far it is at every tenth. */
const TENTHS = 10;
const about = (seconds: number): string => {
  const minutes = Math.max(1, Math.round(seconds / 60));
  return minutes === 1 ? "a minute" : `${minutes} minutes`;
};
const megabytes = (n: number): string => (n / 1e6).toFixed(1);

export class ProgressLine {
  readonly #stream: ProgressStream;
  readonly #quiet: boolean;
  /** Milliseconds since whenever. */
  readonly #now: () => number;
  #shown = "";
  readonly #steps = new Set<string>();
  #work = { name: "", startMs: 0, phase: "", tenth: 0 };

  constructor(stream: ProgressStream, quiet = false, now: () => number = () => performance.now()) {
    this.#stream = stream;
    this.#quiet = quiet;
    this.#now = now;
  }
  show(text: string): void {
    if (this.#quiet) return;
    if (!this.#stream.isTTY) {
      // several may go on at a time: each is told once, not at every turn
      const step = text.replace(/ \d.*$/, "");
      if (this.#steps.has(step)) return;
      this.#steps.add(step);
      this.#stream.write(`${step}\n`);
      return;
    }
    const line = text.slice(0, (this.#stream.columns ?? 80) - 1);
    if (line === this.#shown) return;
    this.#stream.write(`\r\x1b[K${line}`);
    this.#shown = line;
  }
  report = (p: Progress): void => {
    switch (p.step) {
      case "index":
      case "package":
        this.show(
          `fetching ${p.name} ${megabytes(p.bytes)}${p.totalBytes > 0 ? ` of ${megabytes(p.totalBytes)}` : ""} MB`,
        );
        break;
      case "unpack":
        this.show(`unpacking ${p.name}`);
        break;
      case "assemble":
        this.show(`assembling ${p.name}`);
        break;
      case "long-work":
        this.#work = { name: p.name, startMs: this.#now(), phase: "", tenth: 0 };
        this.#note(
          `making ${p.name}, once: ${p.packages} packages of ${megabytes(p.bytes)} MB, about ${about(p.seconds)}`,
        );
        break;
      case "build":
        this.#build(p.name, p.item, p.part);
        break;
      case "warning":
        this.clear();
        this.#stream.write(`enlighten: warning: ${WARNINGS[p.code] ?? p.code} (${p.name})\n`);
        break;
    }
  };
  #build(phase: string, item: string, part: number): void {
    const percent = Math.floor(part * 100);
    if (this.#stream.isTTY) {
      this.show(`${String(percent).padStart(3)} % ${this.#elapsed()} ${phase}${item === "" ? "" : ` · ${item}`}`);
      return;
    }
    const tenth = Math.floor(part * TENTHS);
    if (phase === this.#work.phase && tenth <= this.#work.tenth) return;
    this.#work = { ...this.#work, phase, tenth };
    this.#note(`${String(percent).padStart(3)} % ${this.#elapsed()} ${phase}`);
  }
  /** "1:05" since the work began. */
  #elapsed(): string {
    const seconds = Math.floor((this.#now() - this.#work.startMs) / 1000);
    return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  }
  /** A line that stays. */
  #note(text: string): void {
    if (this.#quiet) return;
    this.clear();
    this.#stream.write(`${text}\n`);
  }
  clear(): void {
    if (this.#shown !== "") this.#stream.write("\r\x1b[K");
    this.#shown = "";
  }
}
