/** The console's text so far, bounded, with waits for what appears in it. */
const KEEP = 1 << 20;

export class ConsoleLog {
  readonly #decoder = new TextDecoder("utf-8", { fatal: false });
  #text = "";
  /** Characters dropped from the front. */
  #dropped = 0;

  /** @returns the new text */
  push(bytes: Uint8Array): string {
    const text = this.#decoder.decode(bytes, { stream: true });
    this.#text += text;
    if (this.#text.length > KEEP * 2) {
      this.#dropped += this.#text.length - KEEP;
      this.#text = this.#text.slice(-KEEP);
    }
    return text;
  }
  get text(): string {
    return this.#text;
  }
  /** Position behind the last character, counted from the machine's start. */
  get end(): number {
    return this.#dropped + this.#text.length;
  }
  /** The last of it: where a panic has to be looked for. */
  get recent(): string {
    return this.#text.slice(-16384);
  }
  from(position: number): string {
    return this.#text.slice(Math.max(0, position - this.#dropped));
  }
  /** The last lines, without control characters. */
  tail(lines = 12): string {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
    const clean = this.#text.slice(-8192).replace(/\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]/g, "");
    return clean.split("\n").slice(-lines).join("\n").trim();
  }
}

/** The kernel's own line: behind its time stamp, or alone. Others may write the words in the middle of theirs. */
const PANIC = /(?:^|\n)(?:\[ *\d+\.\d+\] ?)?Kernel panic - not syncing/g;
/** The kernel's last words, if the console ends with them. */
export function findPanic(text: string): string | undefined {
  let at = -1;
  for (const match of text.matchAll(PANIC)) at = match.index;
  if (at < 0) return undefined;
  return text.slice(at).replaceAll("\r", "").trim();
}
/** What a kernel prints last when it does not restart after a panic. */
export const PANIC_IS_COMPLETE = /(?:^|\n)(?:\[ *\d+\.\d+\] ?)?---\[ end Kernel panic[^\n]*\n/;
