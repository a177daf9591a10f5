/**
 * stress-ng in debian:12-full, with its own checks of every result: computing, memory, processes, mappings, system calls, switches.
 *
 *   ENLIGHTEN_LONG=1 [MINUTES=120] node --test dist/tests/full/mixed-load.test.js
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { createVm } from "../../src/host/node/index.js";

const skip = process.env.ENLIGHTEN_LONG === "1" ? false : "takes half an hour: set ENLIGHTEN_LONG=1";
const minutes = Number(process.env.MINUTES ?? 30);
const MINUTE_MS = 60_000;
const BOOT_MS = 300_000;
const STRESSORS = ["cpu", "vm", "fork", "mmap", "syscall", "switch"];
/** What the host's process may grow by between the first half and the second: a leak of 1 KiB a region would be more. */
const MOST_GROWTH = 64 << 20;

test("a mixed load runs without one difference or leak", { skip, timeout: (minutes + 30) * MINUTE_MS }, async (t) => {
  await using vm = await createVm({ image: "debian:12-full", memoryMiB: 1024, packages: ["stress-ng"] });
  await vm.start();
  const { stdout: state } = await vm.exec("systemctl is-system-running --wait", { timeoutMs: BOOT_MS });
  assert.equal(state, "running\n");
  const resident: number[] = [];
  const timer = setInterval(() => resident.push(process.memoryUsage.rss()), MINUTE_MS);
  try {
    const load = STRESSORS.map((name) => `--${name} 1`).join(" ");
    const r = await vm.exec(`stress-ng ${load} --vm-bytes 256M --verify --metrics-brief -t ${minutes}m 2>&1`, {
      timeoutMs: (minutes + 15) * MINUTE_MS,
    });
    t.diagnostic(r.stdout);
    assert.equal(r.exitCode, 0, r.stdout.slice(-4000));
    assert.match(r.stdout, /successful run completed/);
  } finally {
    clearInterval(timer);
  }
  const { instructions, counters } = await vm.stats();
  const mebibytes = resident.map((bytes) => Math.round(bytes / 2 ** 20));
  t.diagnostic(`instructions ${instructions}, ${JSON.stringify(counters)}`);
  t.diagnostic(`resident MiB, by the minute: ${mebibytes.join(" ")}`);
  const { stdout: log } = await vm.exec("dmesg", { timeoutMs: BOOT_MS });
  assert.doesNotMatch(log, /BUG:|WARNING:|Call Trace|Oops|soft lockup/);
  const half = resident.length >> 1;
  const [first, second] = [Math.max(...resident.slice(0, half)), Math.max(...resident.slice(half))];
  assert.ok(second <= first + MOST_GROWTH, `from ${first} to ${second} bytes`);
});
