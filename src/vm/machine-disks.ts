/** The machine's disks on their synthetic SCSI controller, as the device side needs them; the host opens the files. */
import type { GuestMemory } from "../machine/guest-memory.js";
import type { Trace } from "../trace/trace.js";
import type { Offer, VmbusDevice } from "../vmbus/device.js";
import type { DeviceStatus, DiskSpec } from "./device-messages.js";

export interface MachineDisks {
  /** Makes the controller, for a machine's memory. */
  controller(memory: GuestMemory, trace: Trace): VmbusDevice;
  readonly device: VmbusDevice | undefined;
  offered(offer: Offer): void;
  /** Whether something will complete later. */
  readonly isBusy: boolean;
  /** Calls when nothing is in flight. */
  quiesce(done: () => void): void;
  status(): DeviceStatus["disks"];
  /** Attaches one while the guest runs. @returns its LUN */
  add(disk: DiskSpec): Promise<number>;
  remove(lun: number): Promise<void>;
  /** Everything written is on the disks; the files are free. */
  close(): Promise<void>;
}
