/** What a machine's threads had recorded when it crashed or failed: for a report. */
import type { TraceRecord } from "../trace/trace.js";
import type { Integration } from "./integration.js";
import type { Platform } from "./platform.js";

/** Trace records of a report. */
const LAST_RECORDS = 1000;
/** A report waits this long for them. */
const RECORDS_MS = 500;

export class LastRecords {
  readonly #records: TraceRecord[] = [];
  #came: (() => void) | undefined;
  #collected: Promise<void> | undefined;

  /** By time. */
  get sorted(): readonly TraceRecord[] {
    return [...this.#records].sort((a, b) => a.timeNs - b.timeNs).slice(-LAST_RECORDS);
  }
  /** From the processor's thread. */
  push(records: readonly TraceRecord[]): void {
    this.#records.push(...records);
    this.#came?.();
  }
  /** Asks both threads, once; one that is dead or busy does not hold the end up. */
  collect(platform: Platform, integration: Integration, askProcessor: () => void): Promise<void> {
    this.#collected ??= this.#collect(platform, integration, askProcessor);
    return this.#collected;
  }
  async #collect(platform: Platform, integration: Integration, askProcessor: () => void): Promise<void> {
    const processor = new Promise<void>((resolve) => {
      this.#came = resolve;
      if (this.#records.length > 0) resolve();
      else askProcessor();
    });
    const devices = integration.traceRecords({ timeoutMs: RECORDS_MS }).then(
      (records) => void this.#records.push(...records),
      () => {},
    );
    const late = new Promise<void>((resolve) => void platform.setTimer(RECORDS_MS, resolve));
    await Promise.race([Promise.all([processor, devices]), late]);
  }
}
