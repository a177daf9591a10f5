/** Files of the host as copies need them; host/node/copy-source.ts and copy-sink.ts are those of Node. */
import type { CopyStep } from "./copy-protocol.js";

/** What is to be copied. */
export interface CopySource {
  /** Its last name, for a destination that is a folder; empty: the content is meant ("folder/."). */
  readonly name: Uint8Array;
  /** Bytes of all files, if that is known beforehand. */
  readonly totalBytes: number | undefined;
  /** @throws VmError */
  steps(): AsyncGenerator<CopyStep, void, void>;
}

/** Where a copy goes. What it is told comes from a guest, and is checked for its form alone. */
export interface CopySink {
  /** @throws VmError */
  take(step: CopyStep): Promise<void>;
  /** All has come. @throws VmError */
  finish(): Promise<void>;
  /** It ends here, whole or not: lets go of everything. */
  close(): void;
}

export interface HostFiles {
  /** @throws VmError */
  openSource(path: string): Promise<CopySource>;
  /** @param warn gets what was left out. @throws VmError */
  openSink(path: string, sourceName: string, warn: (path: string, reason: string) => void): Promise<CopySink>;
}
