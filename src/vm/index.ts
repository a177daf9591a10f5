/** The library's names that know no platform. */
export { parseCpuModel } from "../cpu/vp/cpuid.js";
export type { PublishedPort, PublishSpec } from "../net/publish.js";
export type { BytesListener } from "./copy-bytes.js";
export {
  type ChannelStatus,
  type DeviceStatus,
  type DiskSpec,
  type DiskStatus,
  type HeartbeatStatus,
  type LeaseStatus,
  type NatStatus,
  type NetworkDeviceStatus,
  SERVICE_NAMES,
  type ServiceName,
  type SharedNetworkStatus,
  type ShareSpec,
  type TimeSyncStatus,
} from "./device-messages.js";
export type { Command, ExecOptions, ExecResult, SpawnListeners } from "./guest-agent.js";
export type { CopyFrom, CopyOptions, CopyProgress, CopyResult, CopyTo, CopyWarning } from "./guest-copy.js";
export type { GuestProcess, ProcessExit, SpawnOptions, TerminalSize } from "./guest-process.js";
export { parseShare, type ShareOptions } from "./guest-shares.js";
export type { GuestSocket } from "./guest-socket.js";
export type { Integration, Lights, ShutdownOptions } from "./integration.js";
export type { SerialNumber } from "./machine-spec.js";
export type { ProcessorStats } from "./messages.js";
export type { PartitionState } from "./partition.js";
export type { GuestFiles, Platform } from "./platform.js";
export { type OutputListener, Vm } from "./vm.js";
export { VM_ERROR_CODES, VmError, type VmErrorCode } from "./vm-error.js";
export type { JoinableNetwork, NetworkOptions, VmNetwork } from "./vm-network.js";
export type { DiskOptions, VmEnd, VmOptions } from "./vm-options.js";
export type { WaitOptions } from "./wait.js";
