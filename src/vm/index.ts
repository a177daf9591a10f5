/** The library's names that know no platform. */
export { parseCpuModel } from "../cpu/vp/cpuid.js";
export type { ProcessorStats } from "./messages.js";
export type { PartitionState } from "./partition.js";
export type { GuestFiles, Platform } from "./platform.js";
export { type ExecResult, type OutputListener, Vm, type VmEnd, type VmOptions } from "./vm.js";
export { VmError } from "./vm-error.js";
export type { WaitOptions } from "./wait.js";
