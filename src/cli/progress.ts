/** Progress of long work on standard error: one line that changes on a terminal, one line a step elsewhere. */
import type { Progress } from "../image/package-source.js";

const WARNINGS: Readonly<Record<string, string>> = {
  "release-expired": "the package index is past its Valid-Until date; going on with it",
};

export class ProgressLine {
  readonly #stream: NodeJS.WriteStream;
  readonly #quiet: boolean;
  #shown = "";
  #lastStep = "";

  constructor(stream: NodeJS.WriteStream, quiet = false) {
    this.#stream = stream;
    this.#quiet = quiet;
  }
  show(text: string): void {
    if (this.#quiet) return;
    if (!this.#stream.isTTY) {
      const step = text.replace(/ \d.*$/, "");
      if (step === this.#lastStep) return;
      this.#lastStep = step;
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
      case "package": {
        const mb = (n: number): string => (n / 1e6).toFixed(1);
        this.show(`fetching ${p.name} ${mb(p.bytes)}${p.totalBytes > 0 ? ` of ${mb(p.totalBytes)}` : ""} MB`);
        break;
      }
      case "unpack":
        this.show(`unpacking ${p.name}`);
        break;
      case "assemble":
        this.show(`assembling ${p.name}`);
        break;
      case "build":
        this.show(`${p.name} ${p.done} of ${p.total}`);
        break;
      case "warning":
        this.clear();
        this.#stream.write(`enlighten: warning: ${WARNINGS[p.code] ?? p.code} (${p.name})\n`);
        break;
    }
  };
  clear(): void {
    if (this.#shown !== "") this.#stream.write("\r\x1b[K");
    this.#shown = "";
  }
}
