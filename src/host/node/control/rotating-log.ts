/** A log that stays within bounds: two files, FILE and FILE.1 before it. */
import { closeSync, openSync, renameSync, writeSync } from "node:fs";

export const LOG_BYTES = 8 << 20;

export class RotatingLog {
  readonly #path: string;
  readonly #mostBytes: number;
  #file: number | undefined;
  #length = 0;
  readonly #onFailure: (error: Error) => void;

  /** @param onFailure once, when it cannot be written any more: a full disk for one */
  constructor(path: string, mostBytes = LOG_BYTES, onFailure: (error: Error) => void = () => {}) {
    this.#path = path;
    this.#mostBytes = mostBytes;
    this.#onFailure = onFailure;
    this.#file = openSync(path, "a", 0o600);
  }
  write(bytes: Uint8Array): void {
    if (this.#file === undefined) return;
    try {
      if (this.#length > 0 && this.#length + bytes.length > this.#mostBytes) this.#turn();
      let at = 0;
      while (at < bytes.length) at += writeSync(this.#file, bytes, at);
      this.#length += bytes.length;
    } catch (error) {
      this.close();
      this.#onFailure(error as Error);
    }
  }
  #turn(): void {
    closeSync(this.#file!);
    this.#file = undefined;
    renameSync(this.#path, `${this.#path}.1`);
    this.#file = openSync(this.#path, "a", 0o600);
    this.#length = 0;
  }
  close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }
}
