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

/** The kernel's last words, if the console has them. */
export function findPanic(text: string): string | undefined {
  const at = text.lastIndexOf("Kernel panic - not syncing");
  if (at < 0) return undefined;
  const start = text.lastIndexOf("\n", at) + 1;
  return text.slice(start).replaceAll("\r", "").trimEnd();
}
export const PANIC_IS_COMPLETE = /---\[ end Kernel panic[^\n]*\n|Rebooting in|Rebooting immediately/;
