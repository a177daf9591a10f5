/** From a guest's files to what memory holds when it starts. */
import { SERIAL_PORTS } from "../chipset/chipset.js";
import { buildAcpiTables } from "../firmware/acpi/tables.js";
import { type BootImage, prepareLinuxBoot } from "../firmware/linux-boot.js";
import { prepareMultiboot } from "../firmware/multiboot.js";
import { ImageError } from "../image/errors.js";
import { COMMAND_SERVER } from "../image/init/command-server.js";
import { type AgentMode, execCpio } from "../image/init/exec-cpio.js";
import { readKernelImage } from "../image/kernel-image.js";
import type { GuestFiles } from "./platform.js";

export interface BootOptions {
  readonly guest: GuestFiles;
  readonly memoryBytes: number;
  /** Added to the kernel's command line. */
  readonly append: string;
  readonly exec: string | readonly string[] | undefined;
  readonly env: Readonly<Record<string, string>> | undefined;
  /** Commands are taken over serial ports, beside the console. */
  readonly serves: boolean;
  readonly agent: AgentMode | undefined;
  /** The machine has a VMBus. */
  readonly vmbus: boolean;
}

export async function bootImage(o: BootOptions): Promise<BootImage> {
  const { guest } = o;
  const files = await guest.load();
  const common = {
    commandLine: [guest.commandLine, o.append].filter((s) => s !== "").join(" "),
    memoryBytes: o.memoryBytes,
    acpi: buildAcpiTables({ processors: 1, serial: SERIAL_PORTS, vmbus: o.vmbus }),
  };
  if (guest.method === "multiboot")
    return prepareMultiboot({ ...common, kernel: files.kernel, modules: files.initrds });
  const kernel = await readKernelImage(files.kernel).catch((error: unknown) => {
    if (!(error instanceof ImageError)) throw error;
    throw new ImageError("cannot-run", `${guest.description}: ${error.message}`, error.hint);
  });
  const command = o.exec ?? (o.serves ? COMMAND_SERVER : undefined);
  const session = command === undefined && o.agent === undefined ? [] : [execCpio(command, o.env, o.agent)];
  return prepareLinuxBoot({
    ...common,
    setupHeader: kernel.setupHeader,
    elf: kernel.elf,
    initrds: [...files.initrds, ...session],
  });
}
