/** A deterministic boot of debian:12, stepped by instruction counts; with synthetic devices if need be. */
import { SERIAL_PORTS } from "../../src/chipset/chipset.js";
import { parseCpuModel } from "../../src/cpu/vp/cpuid.js";
import { buildAcpiTables } from "../../src/firmware/acpi/tables.js";
import { prepareLinuxBoot } from "../../src/firmware/linux-boot.js";
import { openMachineDisks } from "../../src/host/node/machine-disks.js";
import { readEngine } from "../../src/host/node/platform.js";
import { execCpio } from "../../src/image/init/exec-cpio.js";
import { readKernelImage } from "../../src/image/kernel-image.js";
import { DeterministicMachine, type LocalDevices } from "../../src/vm/deterministic.js";
import type { DeviceSideState, DeviceSpec } from "../../src/vm/device-messages.js";
import { Control, type FromProcessor, type ProcessorStart } from "../../src/vm/messages.js";
import type { PartitionState } from "../../src/vm/partition.js";
import { debian } from "./guests.js";

const RAM = 128 << 20;

export interface SteppedMachine {
  runTo(instructions: number): void;
  digest(): string;
  save(): PartitionState;
  console(): string;
  readonly machine: DeterministicMachine;
  /** Lets go of the disks. */
  close(): Promise<void>;
}
export interface SteppedOptions {
  readonly seed?: number;
  readonly saved?: PartitionState;
  readonly console?: string;
  /** Synthetic devices; without them the guest sees no hypervisor. */
  readonly devices?: Pick<DeviceSpec, "services" | "disks"> & { readonly saved?: DeviceSideState };
  /** Hot code is compiled, on this thread. Default: false. */
  readonly regions?: boolean;
  /** A script that the guest runs instead of its shell. */
  readonly exec?: string;
}

export async function bootDeterministic(o: SteppedOptions = {}): Promise<SteppedMachine> {
  const hypervisor = o.devices !== undefined;
  const common = {
    ramBytes: RAM,
    features: [...parseCpuModel("default")],
    debugExit: false,
    strictFloat: false,
    regions: o.regions ?? false,
    traceCpu: false,
    hypervisor,
    trace: false,
  };
  let spec: ProcessorStart["spec"];
  if (o.saved !== undefined) spec = { ...common, saved: o.saved };
  else {
    const guest = await debian();
    const files = await guest.load();
    const kernel = await readKernelImage(files.kernel);
    spec = {
      ...common,
      boot: prepareLinuxBoot({
        setupHeader: kernel.setupHeader,
        elf: kernel.elf,
        initrds: o.exec === undefined ? files.initrds : [...files.initrds, execCpio(o.exec)],
        commandLine: guest.commandLine.replace(" quiet loglevel=3", ""),
        memoryBytes: RAM,
        acpi: buildAcpiTables({ processors: 1, serial: SERIAL_PORTS, vmbus: hypervisor }),
      }),
    };
  }
  const problems = (problem: string): void => {
    throw new Error(problem);
  };
  const disks =
    o.devices === undefined
      ? undefined
      : await openMachineDisks(o.devices.disks, { inline: true, onProblem: problems });
  const side: LocalDevices | undefined =
    o.devices === undefined
      ? undefined
      : { spec: { ...o.devices, trace: false }, disks, saved: o.devices.saved, post: () => {} };
  let text = o.console ?? "";
  const control = new Int32Array(new SharedArrayBuffer(Control.words * 4));
  const machine = new DeterministicMachine(
    { spec, engine: await readEngine(), wallClockSeconds: 1_700_000_000, time: { timeNs: 0, origin: [0, 0] }, control },
    o.seed ?? 1,
    (m: FromProcessor) => {
      if (m.type !== "output") return;
      Atomics.sub(control, Control.outstanding, m.bytes.length);
      if (m.serial === 0) text += Buffer.from(m.bytes).toString("latin1");
    },
    () => undefined,
    side,
  );
  const { partition } = machine.thread;
  return {
    machine,
    runTo(instructions) {
      while (partition.vp.retired < instructions) {
        const before = partition.vp.retired;
        if (!machine.quantum()) throw new Error(`the machine ended after ${before} instructions`);
      }
      machine.thread.flushOutput();
    },
    digest: () => partition.digest(),
    save: () => partition.save(),
    console: () => text,
    close: async () => void (await disks?.close()),
  };
}
export function goOn(m: SteppedMachine, instructions: number): void {
  m.runTo(m.machine.thread.partition.vp.retired + instructions);
}
