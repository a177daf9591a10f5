/** The package's entry in Node: `createVm` and what belongs to it. */
import { type PartitionState, Vm, type VmOptions } from "../../vm/index.js";
import { debianGuest, type GuestOptions, kernelGuest } from "./guest.js";
import { nodePlatform } from "./platform.js";

export type { Identity } from "../../image/identify.js";
export {
  type Command,
  type DeviceStatus,
  type DiskSpec,
  type ExecOptions,
  type ExecResult,
  type GuestFiles,
  type GuestProcess,
  type GuestSocket,
  type Integration,
  type Lights,
  type ProcessExit,
  type ProcessorStats,
  type ServiceName,
  type ShutdownOptions,
  type SpawnOptions,
  Vm,
  type VmEnd,
  VmError,
  type WaitOptions,
} from "../../vm/index.js";
export { inspectFile } from "./guest.js";

export interface CreateVmOptions extends Omit<VmOptions, "guest" | "saved">, GuestOptions {
  /** A guest by reference: "debian:12". */
  readonly image?: string;
  /** Or a kernel file with its initial file systems. */
  readonly kernel?: string;
  readonly initrd?: string | readonly string[];
  readonly saved?: PartitionState;
}

/** Makes a machine; `start()` runs it. Fetches and assembles the guest if need be. */
export async function createVm(options: CreateVmOptions): Promise<Vm> {
  const { image, kernel, initrd = [], ...rest } = options;
  const guest =
    kernel !== undefined
      ? await kernelGuest(kernel, typeof initrd === "string" ? [initrd] : initrd)
      : await debianGuest(image ?? "debian:12", options);
  return new Vm(nodePlatform, { ...rest, guest });
}
