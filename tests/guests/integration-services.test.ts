/** Heartbeat, shutdown and time by Debian's hv_utils, asked from the host. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { createVm } from "../../src/host/node/index.js";
import type { Vm } from "../../src/vm/index.js";
import { enlighten, PROMPT } from "./guests.js";
import { assertQuiet, BOOT_MS, clockDifference, eventually, sh, testFolder } from "./hyperv-guest.js";

const SERVICES = ["storage", "heartbeat", "shutdown", "timesync"] as const;
const PAUSE_MS = process.env.ENLIGHTEN_LONG ? 30_000 : 5000;

describe("integration services", () => {
  let vm: Vm;
  const file = join(testFolder("services"), "disk");
  before(async () => {
    vm = await createVm({ memoryMiB: 256, disks: [{ file, readOnly: false, createBytes: 16 << 20 }] });
  });
  after(() => vm?.kill());

  it("say that nobody has taken them yet, while the guest boots", async () => {
    await vm.start();
    assert.deepEqual(await vm.integration.heartbeat({ timeoutMs: 10_000 }), { health: "no-contact", replies: 0 });
    await assert.rejects(vm.integration.shutdown({ timeoutMs: 10_000 }), { code: "not-ready" });
    assert.deepEqual(vm.integration.lights, { vmbusVersion: undefined, services: [] });
  });

  it("light up", async () => {
    const lights = await vm.integration.waitForLights(SERVICES, { timeoutMs: BOOT_MS });
    assert.equal(lights.vmbusVersion, "5.3");
  });

  it("have a clock within a second of the host's right after boot", async () => {
    const { seconds, error } = await clockDifference(vm);
    assert.ok(Math.abs(seconds) < 1 + error, `${seconds} s`);
    assert.equal(await sh(vm, "cat /sys/class/ptp/ptp0/clock_name"), "hyperv");
  });

  it("have a heartbeat that goes on", async () => {
    const first = await eventually("a reply", async () => {
      const now = await vm.integration.heartbeat();
      return now.health === "ok" ? now : undefined;
    });
    await eventually("more replies", async () => {
      const now = await vm.integration.heartbeat();
      assert.equal(now.health, "ok");
      return now.replies >= first.replies + 2 ? true : undefined;
    });
  });

  it(`set the clock right after a pause of ${PAUSE_MS / 1000} s, in which the guest stood still`, async () => {
    const uptime = async (): Promise<number> => Number((await sh(vm, "cat /proc/uptime")).split(" ")[0]);
    const from = Date.now();
    const before = await uptime();
    await vm.pause({ timeoutMs: 30_000 });
    assert.ok(vm.paused);
    await delay(PAUSE_MS);
    vm.resume();
    const after = await uptime();
    const host = (Date.now() - from) / 1000;
    assert.ok(host - (after - before) > PAUSE_MS / 1000 - 0.1, `host ${host} s, guest ${after - before} s`);
    const { seconds } = await eventually("the clock to be right", async () => {
      const difference = await clockDifference(vm);
      return Math.abs(difference.seconds) < 1 ? difference : undefined;
    });
    assert.ok(Math.abs(seconds) < 1);
    const replies = (await vm.integration.heartbeat()).replies;
    await eventually("heartbeats after the pause", async () => {
      const now = await vm.integration.heartbeat();
      return now.health === "ok" && now.replies > replies ? now : undefined;
    });
  });

  it("set a clock right that somebody in the guest has set wrong", async () => {
    await sh(vm, "date -s '2001-02-03 04:05:06' >/dev/null");
    vm.integration.synchronizeTime();
    await eventually("the clock to be right", async () =>
      Math.abs((await clockDifference(vm)).seconds) < 1 ? true : undefined,
    );
  });

  it("refuse a shutdown when the driver has gone, and take it when it is back", async () => {
    await sh(vm, "rmmod hv_utils");
    await assert.rejects(vm.integration.shutdown({ timeoutMs: 10_000 }), { code: "not-ready" });
    await sh(vm, "modprobe hv_utils");
    await vm.integration.waitForLights(SERVICES, { timeoutMs: 60_000 });
  });

  it("restart the guest, which comes up again with services, console and disks", async () => {
    await assertQuiet(vm);
    await sh(vm, "echo kept | dd of=/dev/sda bs=512 conv=sync,fsync 2>/dev/null");
    let reboots = 0;
    vm.onReboot(() => {
      reboots++;
    });
    const from = vm.mark();
    await vm.integration.shutdown({ restart: true, timeoutMs: 60_000 });
    await eventually("the restart", () => (reboots === 1 ? true : undefined));
    await vm.integration.waitForLights(SERVICES, { timeoutMs: BOOT_MS });
    assert.equal(await sh(vm, "until [ -b /dev/sda ]; do sleep 0.1; done; head -c 4 /dev/sda", BOOT_MS), "kept");
    await vm.waitFor(PROMPT, { from, timeoutMs: BOOT_MS });
    vm.write("echo again $((40+2))\n");
    await vm.waitFor("again 42", { from, timeoutMs: 60_000 });
    await eventually("a heartbeat", async () =>
      (await vm.integration.heartbeat()).health === "ok" ? true : undefined,
    );
    await assertQuiet(vm);
  });

  it("power the guest off", async () => {
    const end = vm.waitForEnd({ timeoutMs: 60_000 });
    await vm.integration.shutdown({ timeoutMs: 60_000, message: "tests have ended" });
    assert.equal((await end).how, "power-off");
    assert.equal(vm.reboots, 1);
    await assert.rejects(vm.integration.heartbeat(), { code: "ended" });
  });
});

it("a kernel panic ends the program with 125 and the panic's text", async () => {
  const r = await enlighten(["run", "-m", "256M", "--exec", "echo c >/proc/sysrq-trigger"]);
  assert.equal(r.code, 125, r.stderr);
  assert.match(r.stderr, /the guest crashed\n.*Kernel panic - not syncing: sysrq triggered crash/s);
});
