import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Bits, Workload } from "../guestbench/guestbench.js";
import type { Run } from "./measure.js";
import { plot, ticks } from "./plot.js";
import { geomean, groupGeomeans, makeReport, median, type Native, type Report } from "./report.js";
import { columns, shownRatio, table } from "./table.js";

const workload = (name: string, group: string, iterations: number, ownCpuSeconds: number): Workload => ({
  name,
  group,
  iterations,
  seconds: ownCpuSeconds * 3, // waiting for a processor is not counted
  ownCpuSeconds,
  sum: `${name}${iterations}`,
});
function run(cpuSeconds: Readonly<Record<string, number>>, boot?: Run["boot"]): Run {
  const workloads = Object.entries(cpuSeconds).map(([name, seconds]) => ({
    ...workload(name, name.slice(0, 3), 10, 0),
    cpuSeconds: seconds,
  }));
  return { boot, workloads };
}
const native: Native = {
  runs: [0.9, 1, 5].map((seconds) => [workload("int1", "int", 100, seconds), workload("sys1", "sys", 100, seconds)]),
  expected: [workload("int1", "int", 10, 0.1), workload("sys1", "sys", 10, 0.1)],
};
const ABOUT = { divide: 10, rounds: 3, host: { processor: "Some <CPU> & more", kernel: "Linux 6", node: "20.19.0" } };
const machine = (name: string, bits: Bits = 64) => ({ name, title: `${name} "1.0"`, bits });
const boot = (cpuSeconds: number, guestRamBytes?: number) => ({
  seconds: cpuSeconds * 2,
  cpuSeconds,
  residentBytes: 200 * 2 ** 20,
  guestRamBytes,
});
function twoMachines(): Report {
  return makeReport(ABOUT, new Map([[64, native]]), [
    {
      machine: machine("enlighten"),
      runs: [
        run({ int1: 0.4, sys1: 1.6 }, boot(3, 80 * 2 ** 20)),
        run({ int1: 9, sys1: 1.6 }, boot(9, 90 * 2 ** 20)),
        run({ int1: 0.3, sys1: 1.6 }, boot(4, 70 * 2 ** 20)),
      ],
    },
    { machine: machine("v86"), runs: [run({ int1: 0.2 }, boot(5))] },
  ]);
}

describe("figures", () => {
  it("has medians and geometric means", () => {
    assert.equal(median([3, 1, 2]), 2);
    assert.equal(median([4, 1, 2, 3]), 2.5);
    assert.ok(Math.abs(geomean([2, 8]) - 4) < 1e-12);
    assert.deepEqual(groupGeomeans([]), {});
  });

  it("compares medians of rounds with native's, iteration by iteration", () => {
    const [ours, v86] = twoMachines().machines;
    assert.deepEqual(
      ours!.workloads.map(({ name, ratio }) => [name, Number(ratio.toFixed(6))]),
      [
        ["int1", 4],
        ["sys1", 16],
      ],
    );
    assert.deepEqual(
      Object.entries(ours!.geomeans).map(([group, ratio]) => [group, Number(ratio.toFixed(6))]),
      [
        ["int", 4],
        ["sys", 16],
        ["all", 8],
      ],
    );
    assert.deepEqual(ours!.boot, boot(4, 80 * 2 ** 20));
    assert.equal(v86!.boot!.guestRamBytes, undefined);
  });

  it("names what is missing and what is wrong, once", () => {
    assert.deepEqual(twoMachines().wrong, ["v86: sys1: native sys110, guest nothing"]);
    const bad: Run = { boot: undefined, workloads: [{ ...native.expected[0]!, sum: "bad", cpuSeconds: 1 }] };
    const only = { ...native, expected: native.expected.slice(0, 1) };
    const { wrong } = makeReport(ABOUT, new Map([[64, only]]), [{ machine: machine("qemu"), runs: [bad, bad] }]);
    assert.deepEqual(wrong, ["qemu: int1: native int110, guest bad"]);
  });
});

describe("table", () => {
  it("has a column a machine, and what did not run as a dash", () => {
    const lines = table(twoMachines()).split("\n");
    assert.ok(lines.includes("workload  group  native s  enlighten   v86"));
    assert.ok(lines.includes("int1      int      0.1000       4.0x  2.0x"));
    assert.ok(lines.includes("sys1      sys      0.1000      16.0x     -"));
    assert.ok(lines.includes("geomean   all                   8.0x  2.0x"));
    assert.ok(lines.some((line) => /^enlighten +4\.00 +8\.00 +200 +80 +120$/.test(line)));
    assert.ok(lines.some((line) => /^v86 +5\.00 +10\.00 +200 +- +-$/.test(line)));
    assert.equal(lines.at(-1), "checksum differs: v86: sys1: native sys110, guest nothing");
  });

  it("writes ratios short and columns flush", () => {
    assert.deepEqual([1, 12.34, 99.96, 123.4, undefined, Number.NaN].map(shownRatio), [
      "1.0x",
      "12.3x",
      "100.0x",
      "123x",
      "-",
      "-",
    ]);
    assert.equal(
      columns(
        [
          ["a", "bb"],
          ["ccc", "d"],
        ],
        1,
      ),
      "a    bb\nccc   d",
    );
  });
});

describe("plot", () => {
  it("has ticks up to the first that is not below the largest ratio", () => {
    assert.deepEqual(ticks(3), [1, 2, 5, 10]);
    assert.deepEqual(ticks(50), [1, 2, 5, 10, 20, 50]);
    assert.deepEqual(ticks(51), [1, 2, 5, 10, 20, 50, 100]);
  });

  it("draws a bar for each machine and group, as long as its ratio's logarithm", () => {
    const svg = plot(twoMachines());
    const bars = [...svg.matchAll(/<rect x="140" y="[\d.]+" width="([\d.]+)"/g)].map(([, width]) => Number(width));
    // all, int, sys of one; all and int of the other
    assert.equal(bars.length, 5);
    const [all, v86All, integer, , system] = bars;
    const near = (a: number, b: number): boolean => Math.abs(a - b) < 0.2;
    assert.ok(near(all! / Math.log(8), v86All! / Math.log(2)));
    assert.ok(near(integer! / Math.log(4), system! / Math.log(16)));
  });

  it("is well-formed, whatever processors and machines are called", () => {
    const svg = plot(twoMachines());
    assert.ok(svg.includes("Some &lt;CPU&gt; &amp; more"));
    assert.ok(svg.includes("enlighten &quot;1.0&quot;"));
    const open: string[] = [];
    for (const [, close, name, self] of svg.matchAll(/<(\/?)(\w+)[^<>]*?(\/?)>/g))
      if (close === "/") assert.equal(open.pop(), name);
      else if (self === "") open.push(name!);
    assert.deepEqual(open, []);
    assert.ok(!/NaN|undefined/.test(svg));
  });

  it("draws nothing for a machine that did not get to a workload", () => {
    const svg = plot(
      makeReport(ABOUT, new Map([[64, native]]), [{ machine: machine("qemu"), runs: [run({ int1: 0.05 })] }]),
    );
    assert.ok(svg.includes('width="0.0"')); // faster than native
    assert.ok(!/NaN|-\d+\.\d"/.test(svg));
  });
});
