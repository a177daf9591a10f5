/** A deterministic machine that writes to its disk, for tests of saved states. */
import type { DeviceSideState } from "../../src/vm/device-messages.js";
import type { PartitionState } from "../../src/vm/partition.js";
import { bootDeterministic, type SteppedMachine } from "./deterministic-machine.js";

export interface SavedMachine {
  readonly partition: PartitionState;
  readonly devices: DeviceSideState;
  readonly console: string;
}
export const DISK_BYTES = 16 << 20;

/** Blocks of 64 KiB by O_DIRECT, each read back; then the sum of all. */
const SCRIPT = `exec >/dev/ttyS0 2>&1
until [ -b /dev/sda ]; do read -t 0.05 x <>/etc/enlighten/pause; done
echo begin
i=0; while [ $i -lt 30 ]; do
  dd if=/dev/urandom of=/dev/sda bs=64k count=2 seek=$((i*2)) oflag=direct 2>/dev/null
  dd if=/dev/sda of=/dev/null bs=64k count=2 skip=$((i*2)) iflag=direct 2>/dev/null
  echo "block $i"
  i=$((i+1))
done
echo all written
sleep 100000000
`;

/**
 * The clock's service sets the guest's clock after a restore, which is a difference: it is left out.
 * @param disk a file of DISK_BYTES, made if need be
 */
export function steppedFrom(disk: string, saved?: SavedMachine): Promise<SteppedMachine> {
  return bootDeterministic({
    exec: SCRIPT,
    devices: {
      services: ["storage", "heartbeat", "shutdown"],
      disks: [{ file: disk, readOnly: false, kind: "disk", createBytes: DISK_BYTES }],
      ...(saved === undefined ? {} : { saved: saved.devices }),
    },
    ...(saved === undefined ? {} : { saved: saved.partition, console: saved.console }),
  });
}
