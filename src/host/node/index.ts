/** The package's entry in Node: `createVm` and what belongs to it. */
import { SERVICE_NAMES } from "../../vm/device-messages.js";
import { SHARE_MODULES } from "../../vm/guest-shares.js";
import { type PartitionState, Vm, VmError, type VmOptions } from "../../vm/index.js";
import { type FullGuestOptions, fullGuest, isFullReference } from "./full-guest.js";
import { debianGuest, kernelGuest } from "./guest.js";
import { checkShares } from "./machine-shares.js";
import { nodePlatform } from "./platform.js";

export type { Compression } from "../../image/compression.js";
export type { Architecture, Bootable, CanBoot, CannotBoot, IdentifyOptions, Identity } from "../../image/identify.js";
export type {
  AssemblyProgress,
  AssemblyWarning,
  BuildProgress,
  FetchProgress,
  LongWorkStart,
  Progress,
} from "../../image/package-source.js";
export type { FlowInfo, Refusal } from "../../net/statistics.js";
export type { Health } from "../../services/integration/heartbeat.js";
export type { TraceKind, TraceRecord } from "../../trace/trace.js";
export {
  type BytesListener,
  type ChannelStatus,
  type Command,
  type CopyFrom,
  type CopyOptions,
  type CopyProgress,
  type CopyResult,
  type CopyTo,
  type CopyWarning,
  type DeviceStatus,
  type DiskOptions,
  type DiskSpec,
  type DiskStatus,
  type ExecOptions,
  type ExecResult,
  type GuestFiles,
  type GuestProcess,
  type GuestSocket,
  type HeartbeatStatus,
  type Integration,
  type JoinableNetwork,
  type LeaseStatus,
  type Lights,
  type NatStatus,
  type NetworkDeviceStatus,
  type NetworkOptions,
  type OutputListener,
  type ProcessExit,
  type ProcessorStats,
  type PublishedPort,
  type PublishSpec,
  SERVICE_NAMES,
  type SerialNumber,
  type ServiceName,
  type SharedNetworkStatus,
  type ShareOptions,
  type ShareSpec,
  type ShutdownOptions,
  type SpawnListeners,
  type SpawnOptions,
  type TerminalSize,
  type TimeSyncStatus,
  VM_ERROR_CODES,
  Vm,
  type VmEnd,
  VmError,
  type VmErrorCode,
  type VmNetwork,
  type WaitOptions,
} from "../../vm/index.js";
export { inspectFile } from "./guest.js";
export { createNetwork, type VirtualNetwork, type VirtualNetworkOptions } from "./virtual-network.js";

/** What a machine is made from: a guest by reference or by its files, and all else. */
export interface CreateVmOptions extends Omit<VmOptions, "guest" | "saved">, FullGuestOptions {
  /** A guest by reference: "debian:12". */
  readonly image?: string;
  /** Or a kernel file with its initial file systems. */
  readonly kernel?: string;
  /** Files with initial file systems, in their order; modules of a multiboot kernel. */
  readonly initrd?: string | readonly string[];
  /** What `Vm.save` gave: it goes on from there. */
  readonly saved?: PartitionState;
}

/** Makes a machine; `start()` runs it. Fetches and assembles the guest if need be. */
export async function createVm(asked: CreateVmOptions): Promise<Vm> {
  const options = asked.shares === undefined ? asked : { ...asked, shares: checkShares(asked.shares) };
  const { image, kernel, initrd = [], ...rest } = options;
  if (kernel === undefined && image !== undefined && isFullReference(image)) return createFullVm(image, options);
  if (options.packages !== undefined || options.rootFile !== undefined)
    throw new VmError(
      "bad-option",
      "only a guest with a root disk takes packages or a root file",
      "take debian:12-full",
    );
  const guest =
    kernel !== undefined
      ? await kernelGuest(kernel, typeof initrd === "string" ? [initrd] : initrd)
      : await debianGuest(image ?? "debian:12", {
          ...options,
          moreModules: [...(options.moreModules ?? []), ...((options.shares ?? []).length > 0 ? SHARE_MODULES : [])],
        });
  return new Vm(nodePlatform, { ...rest, guest });
}

/** A machine with a root disk of its own, which goes with it. */
async function createFullVm(image: string, options: CreateVmOptions): Promise<Vm> {
  const { services = SERVICE_NAMES, deterministic, exec } = options;
  if (services === "none" || !services.includes("storage"))
    throw new VmError("bad-option", `${image} lives on a disk`, "add storage to --services");
  if (exec !== undefined && (deterministic !== undefined || !services.includes("sockets")))
    throw new VmError(
      "no-exec",
      `${image} takes commands through its agent alone`,
      "add sockets to --services, and leave --deterministic out",
    );
  const { files, remove } = await fullGuest(image, options);
  try {
    const vm = new Vm(nodePlatform, { ...options, guest: files });
    void vm.waitForEnd().then(remove);
    return vm;
  } catch (error) {
    remove();
    throw error;
  }
}
