/**
 * The seven kernels on the processor, against the same code native: CPU time of each, in one run.
 *
 *   npm run bench -- kernels [--interpreter]
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { Exit } from "../../src/cpu/layout.js";
import { createBareMachine } from "../../tests/bare/bare-machine.js";

// as the processor's worker does (src/host/node)
setFlagsFromString("--experimental-wasm-branch-hinting");
const interpreted = process.argv.includes("--interpreter");
const names = ["sieve", "crc", "fib", "heap", "sha", "vm", "hash"];
const counts = [150, 1600, 40, 100, 500, 20_000_000, 1500];
const source = join(import.meta.dirname, "../../../bench/kernels/kernels.c");
const dir = mkdtempSync(join(tmpdir(), "enlighten-kernels-"));
process.on("exit", () => rmSync(dir, { recursive: true, force: true }));
const gcc = (args: string[]): void =>
  void execFileSync("gcc", ["-O2", "-fno-tree-vectorize", "-fno-stack-protector", "-fcf-protection=none", ...args]);
gcc(["-DNATIVE", "-o", join(dir, "native"), source]);
gcc([
  "-ffreestanding",
  "-nostdlib",
  "-static",
  "-no-pie",
  "-fno-pic",
  "-mno-sse",
  "-fno-asynchronous-unwind-tables",
  "-Wl,-Ttext=0x400000",
  "-Wl,--section-start=.start=0x3ff000",
  "-Wl,--build-id=none",
  "-o",
  join(dir, "image.elf"),
  source,
]);
const elf = readFileSync(join(dir, "image.elf"));

const rows: { name: string; native: number; guest: number; ratio: number; mips: number }[] = [];
for (const [i, name] of names.entries()) {
  const n = counts[i]!;
  let native = Number.POSITIVE_INFINITY;
  let expected = 0n;
  for (let k = 0; k < 3; k++) {
    const [value, seconds] = execFileSync(join(dir, "native"), [String(i), String(n)], { encoding: "utf8" }).split(" ");
    expected = BigInt(value!);
    native = Math.min(native, Number(seconds));
  }
  const m = createBareMachine(64 << 20, {}, 1, !interpreted);
  m.loadElf(elf);
  m.vp.setRegister(7 * 8, i);
  m.vp.setRegister(6 * 8, n);
  m.vp.setRegister(4 * 8, 0x3e00000);
  m.vp.setRegister(0xf0, 0x3ff000);
  const start = process.cpuUsage();
  let reason: number = Exit.slice;
  while (reason === Exit.slice) reason = m.vp.run(100_000);
  const used = process.cpuUsage(start);
  const guest = (used.user + used.system) / 1e6;
  if (reason !== Exit.halt)
    throw new Error(
      `${name}: exit ${reason} at ${m.vp.rip.toString(16)} fault ${m.vp.view.getInt32(m.vp.base + 0x638, true)}`,
    );
  const result = m.vp.register64(0);
  if (result !== expected) throw new Error(`${name}: ${result} is not ${expected}`);
  const row = { name, native, guest, ratio: guest / native, mips: m.vp.retired / guest / 1e6 };
  rows.push(row);
  console.log(
    `${name.padEnd(6)} native ${native.toFixed(3)} s   guest ${guest.toFixed(2)} s   ${row.ratio.toFixed(1)}x   ${row.mips.toFixed(0)} MIPS`,
  );
}
const geo = (f: (r: (typeof rows)[number]) => number): number =>
  Math.exp(rows.reduce((s, r) => s + Math.log(f(r)), 0) / rows.length);
console.log(`geomean ${geo((r) => r.ratio).toFixed(1)}x   ${geo((r) => r.mips).toFixed(0)} MIPS`);
