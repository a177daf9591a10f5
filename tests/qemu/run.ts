/** Runs the image, in QEMU and in our own machine: the text on COM1. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SERIAL_PORTS } from "../../src/chipset/chipset.js";
import { generateInterpreter } from "../../src/cpu/interpreter/generator.js";
import { FIRST_BLOCK } from "../../src/cpu/layout.js";
import { parseCpuModel } from "../../src/cpu/vp/cpuid.js";
import { buildAcpiTables } from "../../src/firmware/acpi/tables.js";
import { prepareMultiboot } from "../../src/firmware/multiboot.js";
import { Partition } from "../../src/vm/partition.js";
import { loadRuntime, stressAsked } from "../bare/bare-machine.js";

const RAM_MIB = 64;
/** What our processor does not have either: its bits would be legal there. */
const CPU = "max,vendor=GenuineIntel,-la57,-avx,-avx2,-pku,-pks,-svm,-mpx,-fma,-f16c,-vaes,-vpclmulqdq";

/** @throws when it does not come to the image's end */
export function runInQemu(image: Uint8Array, timeout = 30_000): string {
  const folder = mkdtempSync(join(tmpdir(), "enlighten-qemu-"));
  try {
    const file = join(folder, "image");
    // not a pipe: what does not fit would wait, and the guest does not
    const output = join(folder, "output");
    writeFileSync(file, image);
    const r = spawnSync(
      "qemu-system-x86_64",
      [
        ...["-kernel", file, "-nodefaults", "-cpu", CPU, "-m", `${RAM_MIB}`, "-accel", "tcg", "-display", "none"],
        ...["-serial", `file:${output}`, "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"],
      ],
      { encoding: "latin1", timeout },
    );
    if ((r.error as NodeJS.ErrnoException | undefined)?.code === "ENOENT")
      throw new Error(
        "this test compares with qemu-system-x86_64, which is not here\n  try: apt-get install qemu-system-x86",
      );
    const text = existsSync(output) ? readFileSync(output, "latin1") : "";
    if (r.error !== undefined || r.status !== 1)
      throw new Error(`QEMU ends with ${r.error?.message ?? r.status}: ${r.stderr}\nafter: ${text.slice(-300)}`);
    return text;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

let interpreter: WebAssembly.Module | undefined;

/** @throws when it does not come to the image's end */
export function runHere(image: Uint8Array, regions: boolean): string {
  interpreter ??= new WebAssembly.Module(generateInterpreter(FIRST_BLOCK, true).bytes);
  const text: number[] = [];
  let end: number | undefined;
  const silent = { onOutput: (): void => {}, onInputSpace: (): void => {} };
  let now = 0;
  const partition = new Partition({
    ramBytes: RAM_MIB << 20,
    features: parseCpuModel("max"),
    modules: { runtime: loadRuntime(), interpreter },
    shared: true,
    clock: { now: () => now },
    entropy: { next: () => 1, state: undefined, restore: () => {} },
    wallClockSeconds: 0,
    serial: [{ onOutput: (byte) => void text.push(byte), onInputSpace: () => {} }, silent, silent, silent],
    onDebugExit: (code) => {
      end = code;
    },
    regions: regions ? (stressAsked ?? true) : false,
  });
  partition.load(
    prepareMultiboot({
      kernel: image,
      modules: [],
      commandLine: "",
      memoryBytes: RAM_MIB << 20,
      acpi: buildAcpiTables({ processors: 1, serial: SERIAL_PORTS, vmbus: false }),
    }),
  );
  const soFar = (): string => Buffer.from(text).toString("latin1");
  while (end === undefined) {
    const result = partition.step(20_000);
    now = partition.vp.retired;
    if (end === undefined && (result !== "running" || partition.vp.retired > 2e9))
      throw new Error(`${result} at ${partition.describe()} after: ${soFar().slice(-300)}`);
  }
  return soFar();
}
