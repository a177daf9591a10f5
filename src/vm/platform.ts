/** What the API needs of the platform it runs on; host/node and host/browser provide it. */
import type { HostFiles } from "./copy-files.js";
import type { DeviceSpec, DiskSpec, FromDevices, ToDevices } from "./device-messages.js";
import type { MachineDisks } from "./machine-disks.js";
import type { EngineBytes, FromProcessor, ProcessorStart, TimeBase, ToProcessor } from "./messages.js";

/** A processor that runs somewhere: another thread, or this one in turns. */
export interface ProcessorHandle {
  post(message: ToProcessor): void;
  /** Ends it at once, whatever it does. */
  terminate(): Promise<void>;
}

export interface ProcessorEvents {
  readonly onMessage: (message: FromProcessor) => void;
  /** The thread died: a bug of ours. */
  readonly onFailure: (error: Error) => void;
}

/** The device side somewhere: on another thread, or in turns on this one. */
export interface DeviceHandle {
  /** @param transfer what this thread gives away: buffers, and cables */
  post(message: ToDevices, transfer?: readonly (ArrayBuffer | object)[]): void;
  terminate(): Promise<void>;
}

export interface DeviceEvents {
  readonly onMessage: (message: FromDevices) => void;
  readonly onFailure: (error: Error) => void;
}

/** What a guest boots from. */
export interface GuestFiles {
  /** Reads them anew at each boot, so that nothing of some 60 MB is kept while the guest runs. */
  load(): Promise<{
    /** A bzImage, or what `method` says. */
    readonly kernel: Uint8Array;
    /** Initial file systems, in their order. */
    readonly initrds: readonly Uint8Array[];
  }>;
  /** The kernel's; `append` comes behind it. */
  readonly commandLine: string;
  /** How it boots (default: as Linux). */
  readonly method?: "linux-boot" | "multiboot";
  /** Whether its init runs what `execCpio` carries. */
  readonly takesExec: boolean;
  /** Whether it has the agent (image/init/agent.ts). */
  readonly hasAgent?: boolean;
  /** What its console shows when it takes commands. */
  readonly prompt?: RegExp;
  /** For people: "debian:12". */
  readonly description: string;
  /** Disks that it needs, before all others on the controller. */
  readonly disks?: readonly DiskSpec[];
}

/** What a machine needs of what it runs on. */
export interface Platform {
  /** Starts a processor on a thread of its own. */
  /** @param transfer buffers of `start` that this thread gives away */
  startProcessor(start: ProcessorStart, events: ProcessorEvents, transfer: readonly ArrayBuffer[]): ProcessorHandle;
  /** Starts the device side; its first message is "started" or "failed". */
  /** @param cables to networks that are shared, by adapter, as their `plug` gave them */
  startDevices(spec: DeviceSpec, events: DeviceEvents, cables: readonly unknown[]): DeviceHandle;
  /**
   * Opens the machine's disks for a device side on this thread: everything completes inline.
   * @throws what a user can do something about (code, message, hint)
   */
  openDisks(disks: readonly DiskSpec[], onProblem: (text: string) => void): Promise<MachineDisks>;
  /** For copies. */
  readonly files: HostFiles;
  /** Virtual time is `timeNs` now. */
  timeBase(timeNs: number): TimeBase;
  /** Gives memory back that large buffers took, if the platform can be asked for it. */
  trim(): void;
  engine(): Promise<EngineBytes>;
  /** Monotonic, in ns. */
  now(): number;
  /** Seconds since 1970 and 32 random bits, for the guest. */
  wallClockSeconds(): number;
  random(): number;
  setTimer(ms: number, fire: () => void): () => void;
  /** Lets the event loop turn. */
  yield(): Promise<void>;
}
