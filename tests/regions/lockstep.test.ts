/**
 * Machines in lockstep: QEMU's cases run in both tiers and are equal after every slice; a mistake that is planted is found, and where.
 * A whole boot, plain and under stress: ENLIGHTEN_LONG=1 (boot-lockstep.test).
 */
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { SERIAL_PORTS } from "../../src/chipset/chipset.js";
import { Vp } from "../../src/cpu/layout.js";
import { parseStress } from "../../src/cpu/region/stress.js";
import { parseCpuModel } from "../../src/cpu/vp/cpuid.js";
import type { VirtualProcessor } from "../../src/cpu/vp/virtual-processor.js";
import { buildAcpiTables } from "../../src/firmware/acpi/tables.js";
import { prepareMultiboot } from "../../src/firmware/multiboot.js";
import { readEngine } from "../../src/host/node/platform.js";
import { DeterministicMachine } from "../../src/vm/deterministic.js";
import { type Inbox, LockstepMachine, type MakeMachine } from "../../src/vm/lockstep.js";
import { Control, type EngineBytes, type FromProcessor } from "../../src/vm/messages.js";
import { assemble } from "../bare/nasm.js";
import { CASES } from "../qemu/cases.js";
import { Place } from "../qemu/layout.js";
import { imageSource } from "../qemu/monitor.js";

const RAM_BYTES = 32 << 20;
/** Every so many of the cases. */
const STEP = process.env.ENLIGHTEN_LONG === "1" ? 1 : 40;

let engine: EngineBytes;
before(async () => {
  engine = await readEngine();
});

const emptyInbox = (): Inbox => ({ processor: [], devices: [], bump: () => {} });
/** @param plant is called between the samples of compiled machines */
function machineOf(
  kernel: Uint8Array,
  plant?: (vp: VirtualProcessor) => void,
  onEnd?: (how: string) => void,
): MakeMachine {
  const boot = prepareMultiboot({
    kernel,
    modules: [],
    commandLine: "",
    memoryBytes: RAM_BYTES,
    acpi: buildAcpiTables({ processors: 1, serial: SERIAL_PORTS, vmbus: false }),
  });
  return (regions, first) => {
    const spec = {
      ramBytes: RAM_BYTES,
      features: [...parseCpuModel("max")],
      debugExit: true,
      strictFloat: false,
      regions: regions && parseStress("eager")!,
      hypervisor: false,
      trace: false,
      traceCpu: false,
      boot,
    };
    const control = new Int32Array(Control.words);
    const start = { spec, engine, wallClockSeconds: 0, time: { timeNs: 0, origin: [0, 0] as const }, control };
    const post = (m: FromProcessor): void => {
      if (m.type === "ended" && first) onEnd?.(m.how);
    };
    const machine = new DeterministicMachine(start, 1, post, () => undefined);
    const { vp } = machine.thread.partition;
    if (vp.regions !== undefined && plant !== undefined) {
      const sample = vp.regions.sample.bind(vp.regions);
      vp.regions.sample = () => {
        sample();
        plant(vp);
      };
    }
    return { machine, inbox: emptyInbox() };
  };
}
const image = (): Uint8Array => assemble(imageSource(CASES.filter((_, i) => i % STEP === 0)), 32, Place.image).bytes;

test("QEMU's cases leave the same behind after every slice", (t) => {
  let end = "";
  const machine = new LockstepMachine(
    machineOf(image(), undefined, (how) => {
      end = how;
    }),
    emptyInbox(),
  );
  let quanta = 0;
  while (machine.quantum()) quanta++;
  t.diagnostic(`${quanta} quanta`);
  assert.equal(end, "debug-exit");
});

test("a register that is wrong is found, with where it became so", () => {
  const plant = (vp: VirtualProcessor): void => {
    if (vp.retired > 300_000) vp.view.setUint32(vp.base + Vp.xmm + 9 * 16, 0x1234567, true);
  };
  const machine = new LockstepMachine(machineOf(image(), plant), emptyInbox());
  assert.throws(() => {
    while (machine.quantum());
  }, /the tiers differ in \d{1,3} instructions behind 300\d\d\d, from [0-9a-f]+.*\n(exit.*\n)?xmm9: interpreted 0+, compiled 0+1234567\ninstructions/);
});

test("memory that is wrong is found although registers are not", () => {
  const at = RAM_BYTES - 0x1000 + 0x120;
  const plant = (vp: VirtualProcessor): void => {
    if (vp.retired > 200_000) vp.ram[at] = 7;
  };
  const machine = new LockstepMachine(machineOf(image(), plant), emptyInbox());
  assert.throws(
    () => {
      while (machine.quantum());
    },
    new RegExp(
      `the tiers differ in \\d{1,3} instructions behind (199|200)\\d\\d\\d, from .*\nmemory ${at.toString(16)}: interpreted 0, compiled 7\n`,
    ),
  );
});
