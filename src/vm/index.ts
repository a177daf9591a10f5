/** The library's names that know no platform. */
export { parseCpuModel } from "../cpu/vp/cpuid.js";
export type { PublishedPort, PublishSpec } from "../net/publish.js";
export type {
  DeviceStatus,
  DiskSpec,
  NatStatus,
  NetworkDeviceStatus,
  ServiceName,
  SharedNetworkStatus,
} from "./device-messages.js";
export type { Command, ExecOptions, ExecResult } from "./guest-agent.js";
export type { CopyFrom, CopyOptions, CopyProgress, CopyResult, CopyTo, CopyWarning } from "./guest-copy.js";
export type { GuestProcess, ProcessExit, SpawnOptions } from "./guest-process.js";
export { parseShare, type ShareOptions } from "./guest-shares.js";
export type { GuestSocket } from "./guest-socket.js";
export type { Integration, Lights, ShutdownOptions } from "./integration.js";
export type { ProcessorStats } from "./messages.js";
export type { PartitionState } from "./partition.js";
export type { GuestFiles, Platform } from "./platform.js";
export { type OutputListener, Vm } from "./vm.js";
export { VmError, type VmErrorCode } from "./vm-error.js";
export type { JoinableNetwork, NetworkOptions, VmNetwork } from "./vm-network.js";
export type { VmEnd, VmOptions } from "./vm-options.js";
export type { WaitOptions } from "./wait.js";
