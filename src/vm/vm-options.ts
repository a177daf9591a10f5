/** What a machine is made from, and how it ended. */
import type { Stress } from "../cpu/region/stress.js";
import type { TraceRecord } from "../trace/trace.js";
import type { DiskSpec, ServiceName } from "./device-messages.js";
import type { ShareOptions } from "./guest-shares.js";
import type { PartitionState } from "./partition.js";
import type { GuestFiles } from "./platform.js";
import type { NetworkOptions } from "./vm-network.js";

/** A disk that a machine is made with. */
export interface DiskOptions extends Omit<DiskSpec, "kind"> {
  /** Default: "disk". */
  readonly kind?: DiskSpec["kind"];
}
/** What a machine is made from. */
export interface VmOptions {
  /** What it boots from. */
  readonly guest: GuestFiles;
  /** MiB of guest memory. */
  readonly memoryMiB?: number;
  /** "default", "max", "+feature,-feature". */
  readonly cpu?: string;
  /** Added to the kernel's command line. */
  readonly append?: string;
  /** Run this instead of a login shell, then power off: a shell script, or a program with its arguments. */
  readonly exec?: string | readonly string[];
  /** Variables of the command of `exec`. */
  readonly env?: Readonly<Record<string, string>>;
  /** The command of `exec` reads what `writeStdin` gets (default: it has no input). */
  readonly stdin?: boolean;
  /** The guest takes commands (`Vm.exec`) beside its console. Default: yes, where its init knows how. */
  readonly commands?: boolean;
  /**
   * Percent of one of the host's processors that the guest's processor may take, 1 to 100; what devices and the compiler do for it
   * comes on top. Not with `deterministic`.
   */
  readonly cpuLimit?: number;
  /** A seed: the deterministic scheduler. */
  readonly deterministic?: number;
  /** QEMU's devices for tests: exit port, firmware configuration, test device. Default: none. */
  readonly debugExit?: boolean;
  /**
   * All flags of SSE arithmetic are exact. Default: false; MXCSR.DE is then not set by an operation with a denormal operand and an
   * ordinary result, which lets the host's own arithmetic do it.
   */
  readonly strictFloat?: boolean;
  /** Hot code is compiled to WebAssembly. Default: yes, but not with `deterministic`. An object: under stress. */
  readonly regions?: boolean | Stress;
  /** With `deterministic`, without disks: both tiers side by side (lockstep.ts); where they differ the machine fails with a report. */
  readonly lockstep?: boolean;
  /** Gets a line for every instruction before it runs: count, RIP, bytes, text. Very slow. */
  readonly traceCpu?: (lines: string) => void | Promise<void>;
  /** Synthetic devices that are offered (default: all), or "none": a PC without a hypervisor. */
  readonly services?: "none" | readonly ServiceName[];
  /** Default: an adapter behind a router to the host's sockets; with `deterministic` there is none. */
  readonly network?: NetworkOptions;
  /** Adapters beside that one, up to 7: each with a router of its own, or on a network that is shared. */
  readonly adapters?: readonly NetworkOptions[];
  /** Folders of the host that the guest sees, mounted before the first command. */
  readonly shares?: readonly ShareOptions[];
  /** On the synthetic SCSI controller, LUN 0 and up. */
  readonly disks?: readonly DiskOptions[];
  /** Gets every VMBus and service message, hypercall and interrupt. */
  readonly trace?: (records: readonly TraceRecord[]) => void;
  /** Go on with a saved machine instead of booting. */
  readonly saved?: PartitionState;
}

/** How a machine ended. */
export interface VmEnd {
  /** "killed": from here; "failed": by an error of ours. */
  readonly how: "power-off" | "crashed" | "killed" | "debug-exit" | "failed";
  /** Panic text, registers after a triple fault, our own error. */
  readonly detail: string;
  /** Exit code of `exec`, or of the debug port. */
  readonly exitCode: number | undefined;
}
