/** Boots a kernel and initramfs from files on this thread: for work on the engine. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { SERIAL_PORTS } from "../src/chipset/chipset.js";
import { PAIR_COUNTS, PAIR_FORMS } from "../src/cpu/interpreter/generator.js";
import { forms } from "../src/cpu/isa/forms.js";
import { Stat, Vp } from "../src/cpu/layout.js";
import { parseCpuModel } from "../src/cpu/vp/cpuid.js";
import { buildAcpiTables } from "../src/firmware/acpi/tables.js";
import { prepareLinuxBoot } from "../src/firmware/linux-boot.js";
import { readKernelImage } from "../src/image/kernel-image.js";
import { SeededEntropy } from "../src/vm/deterministic.js";
import { Partition } from "../src/vm/partition.js";

const [kernelFile, ...rest] = process.argv.slice(2);
const memory = 512 << 20;
const kernel = await readKernelImage(new Uint8Array(readFileSync(kernelFile!)));
const append = process.env.APPEND ?? "console=ttyS0,115200 earlyprintk=ttyS0,115200 mitigations=off nokaslr";
const boot = prepareLinuxBoot({
  setupHeader: kernel.setupHeader,
  elf: kernel.elf,
  initrds: rest.map((f) => new Uint8Array(readFileSync(f))),
  commandLine: append,
  memoryBytes: memory,
  acpi: buildAcpiTables({ processors: 1, serial: SERIAL_PORTS }),
});
const runtime = new WebAssembly.Module(new Uint8Array(readFileSync(join(import.meta.dirname, "../runtime.wasm"))));
const start = process.hrtime.bigint();
const out: number[] = [];
const flush = (): void => {
  process.stdout.write(Uint8Array.from(out.splice(0)));
};
const sink = {
  onOutput: (b: number): void => {
    out.push(b);
    if (b === 10) flush();
  },
};
const quiet = { onOutput: (): void => {} };
const p = new Partition({
  ramBytes: memory,
  features: parseCpuModel("default"),
  modules: { runtime, interpreter: undefined },
  shared: true,
  clock: { now: () => Number(process.hrtime.bigint() - start) },
  entropy: new SeededEntropy(1),
  wallClockSeconds: Math.floor(Date.now() / 1000),
  serial: [sink, quiet, quiet, quiet],
  countForms: process.env.COUNT === "1",
  ...(process.env.HYPERV === "1" ? { hypervisor: { onCrash: (crash) => console.log("crash", crash) } } : {}),
});
p.load(boot);
const limit = Number(process.env.LIMIT ?? 60) * 1e9;
let result = "running";
let lastIdle = 0;
while (p.clock.now() < limit) {
  result = p.step(20_000);
  if (result === "halted") {
    const wait = (p.deadlines.earliest() - p.clock.now()) / 1e6;
    if (!Number.isFinite(wait)) break;
    if (wait > 0) {
      flush();
      Atomics.wait(p.vp.words, p.vp.pendingWord, 0, wait);
      lastIdle += wait;
      if (lastIdle > Number(process.env.IDLE ?? 3) * 1000) break;
    }
  } else if (result !== "running") break;
}
flush();
const { vp } = p;
const hex = (n: bigint): string => n.toString(16);
console.log(
  `\n--- ${result}; ${(p.clock.now() / 1e9).toFixed(2)} s; ${(vp.retired / 1e6).toFixed(0)} M instructions; cpu ${JSON.stringify(process.cpuUsage())}`,
);
console.log(
  `rip ${hex(vp.rip)} rsp ${hex(vp.register64(32))} cr2 ${hex(vp.register64(Vp.cr2))} cr3 ${hex(vp.register64(Vp.cr3))} fault ${vp.view.getInt32(vp.base + Vp.faultVector, true)} err ${vp.view.getInt32(vp.base + Vp.faultError, true)} addr ${hex(vp.register64(Vp.faultAddress))}`,
);
console.log(
  Object.keys(Stat)
    .map((k) => `${k} ${vp.stat(k as keyof typeof Stat)}`)
    .join(", "),
);
if (process.env.COUNT === "1") {
  const total = vp.retired;
  const rows = forms()
    .map((f) => [Number(vp.view.getBigUint64(vp.base + Vp.formCounts + f.id * 8, true)), f] as const)
    .sort((a, b) => b[0] - a[0]);
  let sum = 0;
  for (const [n, f] of rows.slice(0, 160)) {
    sum += n;
    console.log(
      `${((100 * n) / total).toFixed(2).padStart(6)} ${((100 * sum) / total).toFixed(1).padStart(6)} ${f.hot ? "hot " : "COLD"} ${f.name}`,
    );
  }
  const all = forms();
  const pairs: [number, string, number, number][] = [];
  for (let a = 0; a < PAIR_FORMS; a++)
    for (let b = 0; b < PAIR_FORMS; b++) {
      const n = vp.view.getUint32(vp.base + PAIR_COUNTS + (a * PAIR_FORMS + b) * 4, true);
      if (n > 0) pairs.push([n, `${all[a]?.name} ; ${all[b]?.name}`, a, b]);
    }
  pairs.sort((x, y) => y[0] - x[0]);
  console.log("pairs");
  for (const [n, t] of pairs.slice(0, 150)) console.log(`${((100 * n) / total).toFixed(2).padStart(6)} ${t}`);
}
process.exit(0);
