/** Debian's own kernel on the processor, from power-on to its several ends, through the library. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, it } from "node:test";
import { createVm } from "../../src/host/node/index.js";
import { VmError } from "../../src/vm/index.js";
import { PROMPT, startDebian } from "./guests.js";

const BOOT_MS = 120_000;

describe("debian:12 through the library", () => {
  it("boots to a shell that answers, and ends with it", async () => {
    await using vm = await startDebian();
    await vm.waitFor(PROMPT, { timeoutMs: BOOT_MS });
    const from = vm.mark();
    vm.write("echo $((6*7)) $(uname -m) $(cat /proc/cmdline | wc -w)\n");
    // the whole line: output comes in pieces, and a pattern with an open end would take the first
    assert.match(await vm.waitFor(/42 \S+ \d+\r?\n/, { from, timeoutMs: 30_000 }), /42 x86_64 [1-9]/);
    vm.write("exit\n");
    const end = await vm.waitForEnd({ timeoutMs: 60_000 });
    assert.equal(end.how, "power-off");
  });

  it("has a right clock, the features that were asked for, and no retpolines", async () => {
    await using vm = await startDebian({
      exec: "date +%s; cat /proc/cpuinfo; cat /sys/devices/system/cpu/vulnerabilities/spectre_v2",
      cpu: "default,-rdrand",
    });
    let out = "";
    vm.onOutput(1, (b) => {
      out += Buffer.from(b).toString();
    });
    const end = await vm.waitForEnd({ timeoutMs: BOOT_MS });
    assert.equal(end.exitCode, 0);
    const seconds = Number(out.split("\n")[0]);
    assert.ok(Math.abs(seconds - Date.now() / 1000) < 60, `guest time ${seconds}`);
    const { counters } = await vm.stats();
    assert.ok(counters["regions installed"]! > 0 && counters["regions backgroundMs"]! > 0, JSON.stringify(counters));
    const flags = /^flags\s*: (.*)$/m.exec(out)?.[1]?.split(" ") ?? [];
    for (const f of ["lm", "nx", "sse2", "fsgsbase", "tsc_deadline_timer", "x2apic", "hypervisor"])
      assert.ok(flags.includes(f), `no ${f}`);
    assert.ok(!flags.includes("rdrand"));
    assert.doesNotMatch(out, /[Rr]etpolines,/);
  });

  it("moves 1 MiB of binary output intact, with standard error apart and the exit code", async () => {
    await using vm = await startDebian({
      exec: "dd if=/dev/urandom of=/tmp/r bs=4096 count=256 2>/dev/null; sha256sum </tmp/r >&2; cat /tmp/r; exit 7",
    });
    const out: Uint8Array[] = [];
    let err = "";
    vm.onOutput(1, (b) => void out.push(b));
    vm.onOutput(2, (b) => {
      err += Buffer.from(b).toString();
    });
    const end = await vm.waitForEnd({ timeoutMs: BOOT_MS });
    assert.equal(end.how, "power-off");
    assert.equal(end.exitCode, 7);
    const bytes = Buffer.concat(out);
    assert.equal(bytes.length, 1 << 20);
    assert.equal(createHash("sha256").update(bytes).digest("hex"), err.split(" ")[0]);
  });

  it("runs a program with awkward arguments and an environment", async () => {
    await using vm = await startDebian({ exec: ["printf", "%s|%s|", "it's", 'a "b" $c'], env: { X: "1" } });
    let out = "";
    vm.onOutput(1, (b) => {
      out += Buffer.from(b).toString();
    });
    assert.equal((await vm.waitForEnd({ timeoutMs: BOOT_MS })).exitCode, 0);
    assert.equal(out, 'it\'s|a "b" $c|');
  });

  it("runs one command after the other beside the console, with their streams and codes", async () => {
    await using vm = await startDebian();
    const results = await Promise.all([
      vm.exec("echo one; echo two >&2; exit 3", { timeoutMs: BOOT_MS }),
      vm.exec(["printf", "%s", "it's $HOME"], { timeoutMs: BOOT_MS }),
      vm.exec("head -c 100000 /dev/zero | tr '\\0' x", { timeoutMs: BOOT_MS }),
    ]);
    assert.deepEqual([results[0].exitCode, results[0].stdout, results[0].stderr], [3, "one\n", "two\n"]);
    assert.deepEqual([results[1].exitCode, results[1].stdout], [0, "it's $HOME"]);
    assert.equal(results[2].stdout, "x".repeat(100000));
    await assert.rejects(
      vm.exec("sleep 2; echo late; exit 9", { timeoutMs: 200 }),
      (e: unknown) => e instanceof VmError && e.code === "timeout",
    );
    const next = await vm.exec("echo next; exit 4", { timeoutMs: 60_000 });
    assert.deepEqual([next.exitCode, next.stdout], [4, "next\n"]);
    vm.write("echo console $((1+1))\n");
    await vm.waitFor("console 2", { timeoutMs: 30_000 });
  });

  it("goes on from a saved state in a new machine, which takes commands at once", async () => {
    await using vm = await startDebian({ memoryMiB: 128 });
    assert.equal((await vm.exec("echo kept >/tmp/mark; cat /tmp/mark", { timeoutMs: BOOT_MS })).stdout, "kept\n");
    const state = await vm.save({ timeoutMs: 60_000 });
    await vm.kill();
    await using other = await createVm({ saved: state });
    await other.start();
    await other.waitForPrompt({ timeoutMs: 10_000 });
    assert.equal((await other.exec("cat /tmp/mark", { timeoutMs: 30_000 })).stdout, "kept\n");
  });

  it("goes on after a reboot", async () => {
    await using vm = await startDebian();
    await vm.waitFor(PROMPT, { timeoutMs: BOOT_MS });
    let reboots = 0;
    vm.onReboot(() => {
      reboots++;
    });
    const from = vm.mark();
    vm.write("reboot\n");
    await vm.waitFor(PROMPT, { from: from + 20, timeoutMs: BOOT_MS });
    assert.equal(reboots, 1);
    vm.write("cat /proc/uptime; exit\n");
    assert.equal((await vm.waitForEnd({ timeoutMs: 60_000 })).how, "power-off");
  });

  it("ends with the panic's text when the kernel panics", async () => {
    await using vm = await startDebian({ exec: "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger" });
    const end = await vm.waitForEnd({ timeoutMs: BOOT_MS });
    assert.equal(end.how, "crashed");
    assert.match(end.detail, /Kernel panic - not syncing: sysrq triggered crash/);
    assert.match(end.detail, /sysrq_handle_crash/);
  });

  it("fails its waits when the time is up, when they are aborted, and when the machine ends", async () => {
    await using vm = await startDebian();
    await assert.rejects(
      vm.waitFor("never shown", { timeoutMs: 50 }),
      (e: unknown) => e instanceof VmError && e.code === "timeout",
    );
    const controller = new AbortController();
    const wait = vm.waitFor("never shown", { signal: controller.signal });
    controller.abort();
    await assert.rejects(wait, (e: unknown) => e instanceof VmError && e.code === "aborted");
    const ending = assert.rejects(
      vm.waitFor("never shown"),
      (e: unknown) => e instanceof VmError && e.code === "ended",
    );
    await vm.kill();
    await ending;
    assert.equal(vm.state, "ended");
    assert.throws(() => vm.write("x"), VmError);
  });
});
