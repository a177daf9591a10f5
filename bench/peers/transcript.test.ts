import assert from "node:assert/strict";
import { it } from "node:test";
import { Transcript, type Usage } from "./transcript.js";

const BOOT = { seconds: 3, cpuSeconds: 2, residentBytes: 300, guestRamBytes: 100 };
/** CPU time goes on by a second at each look. */
function usage(): Usage & { boots: number } {
  let seconds = 0;
  return {
    boots: 0,
    cpuSeconds: () => ++seconds,
    boot() {
      this.boots++;
      return BOOT;
    },
  };
}
const bench = (name: string, cpu = "0.020000"): string =>
  `BENCH ${name} group=int iters=300 secs=0.250000 cpu=${cpu} sum=0badcafe\r\n`;

it("reads a console that comes in pieces, with carriage returns and the kernel's lines", () => {
  const used = usage();
  const transcript = new Transcript(used);
  assert.equal(transcript.take("[    1.0] x86: something\r\nIN"), undefined);
  assert.equal(transcript.boot, undefined);
  assert.equal(transcript.take("IT\r\nGUESTBENCH bits=64 div=1 mul=1\r\nBEGIN si"), undefined);
  assert.deepEqual(transcript.boot, BOOT);
  assert.equal(transcript.take("eve\r\n"), "sieve");
  transcript.take(bench("sieve"));
  assert.equal(transcript.done, false);
  transcript.take("GUESTBENCH done\r\nINIT\r\n");
  assert.equal(transcript.done, true);
  assert.equal(used.boots, 1);
  assert.deepEqual(transcript.workloads, [
    {
      name: "sieve",
      group: "int",
      iterations: 300,
      seconds: 0.25,
      ownCpuSeconds: 0.02,
      sum: "0badcafe",
      cpuSeconds: 1,
    },
  ]);
});

it("counts from the last BEGIN, which comes after a workload's preparations", () => {
  const transcript = new Transcript(usage());
  assert.equal(transcript.take(`BEGIN a\nBEGIN b\n`), "b");
  transcript.take("BEGIN b\n");
  transcript.take(bench("b"));
  assert.equal(transcript.workloads[0]?.cpuSeconds, 1);
});

it("falls back to the guest's clock where the process's account does not move", () => {
  const transcript = new Transcript({ cpuSeconds: () => 7, boot: () => BOOT });
  transcript.take(`BEGIN sieve\n${bench("sieve")}`);
  assert.equal(transcript.workloads[0]?.cpuSeconds, 0.25);
});

it("keeps the last lines, to say what a machine did that stopped", () => {
  const transcript = new Transcript(usage());
  transcript.take("1\n2\n3\n4\n5\n6\n7");
  assert.deepEqual(transcript.lastLines, ["2", "3", "4", "5", "6"]);
});
