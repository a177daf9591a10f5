/** The message catalogue between the API's thread and the processor's (foundations.md): the same in Node and in a browser. */
import type { TraceRecord } from "../trace/trace.js";
import type { MachineSpec, SerialNumber } from "./machine-spec.js";
import type { PartitionState } from "./partition.js";

/** Virtual time is `timeNs` at the host's time `origin` (seconds and ns, of a clock that all threads share). */
export interface TimeBase {
  readonly timeNs: number;
  readonly origin: readonly [seconds: number, ns: number];
}

export type ToProcessor =
  | { readonly type: "input"; readonly serial: SerialNumber; readonly bytes: Uint8Array }
  | { readonly type: "power-button" }
  | { readonly type: "nmi" }
  | { readonly type: "stats" }
  | { readonly type: "save" }
  /** Stand still and say at what time. */
  | { readonly type: "pause" }
  | { readonly type: "resume"; readonly time: TimeBase }
  /** The last trace records. */
  | { readonly type: "trace" }
  | { readonly type: "stop" };

export type FromProcessor =
  /** The machine is made: its memory, for wake-ups, with the index of the processor's pending word. */
  | { readonly type: "started"; readonly memory: SharedArrayBuffer | ArrayBuffer; readonly pendingWord: number }
  | { readonly type: "output"; readonly serial: SerialNumber; readonly bytes: Uint8Array<ArrayBuffer> }
  /** Lines of `--trace-cpu`. */
  | { readonly type: "trace"; readonly text: string }
  /** All records, where a trace was asked for, or the last ones. */
  | { readonly type: "records"; readonly records: readonly TraceRecord[]; readonly last: boolean }
  | { readonly type: "paused"; readonly timeNs: number }
  /** The guest said that it has crashed (crash MSRs). */
  | { readonly type: "crash"; readonly parameters: readonly string[]; readonly text: string }
  | { readonly type: "stats"; readonly stats: ProcessorStats }
  | { readonly type: "saved"; readonly state: PartitionState }
  | { readonly type: "ended"; readonly how: EndKind; readonly detail: string; readonly stats: ProcessorStats };

export type EndKind = "power-off" | "reset" | "triple-fault" | "deadlock" | "stopped" | "debug-exit" | "failed";

/** Counters, for `--stats`. Times in ns of virtual time. */
export interface ProcessorStats {
  /** That the guest has retired. */
  readonly instructions: number;
  /** Virtual time since the start. */
  readonly timeNs: number;
  /** Of that, how long the processor slept, halted or held back. */
  readonly haltedNs: number;
  /** By what is counted. */
  readonly counters: Readonly<Record<string, number>>;
}

/** The engine's modules, as built. */
export interface EngineBytes {
  readonly runtime: Uint8Array<ArrayBuffer>;
  readonly interpreter: Uint8Array<ArrayBuffer>;
}

export interface ProcessorStart {
  readonly spec: MachineSpec;
  readonly engine: EngineBytes;
  readonly wallClockSeconds: number;
  readonly time: TimeBase;
  /** The part of the host's time that the thread may run (cpu-limit.ts). */
  readonly cpuLimit?: number;
  /** Control words shared with the API's thread (Control). */
  readonly control: Int32Array;
}

/** Words of the control array. */
export const Control = {
  /** Counts messages to the processor: a look at one word tells whether to receive. */
  mail: 0,
  /** Output bytes posted and not yet taken: the processor pauses when there are too many. */
  outstanding: 1,
  words: 4,
} as const;
/** A guest that prints faster than its reader reads waits beyond this many bytes. */
export const MAX_OUTSTANDING = 4 << 20;
