/** Debian's own drivers find the hypervisor, its clocks and its devices; without services there is nothing to find. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { Vm } from "../../src/vm/index.js";
import { startDebian } from "./guests.js";
import { assertQuiet, BOOT_MS, CLASSES, eventually, isSocket, OFFERED, sh, testFolder } from "./hyperv-guest.js";

describe("a guest with every service", () => {
  let vm: Vm;
  let dmesg: string;
  const folder = testFolder("detection");
  before(async () => {
    vm = await startDebian({ disks: [{ file: join(folder, "disk"), readOnly: false, createBytes: 16 << 20 }] });
    await vm.integration.waitForLights(["storage", "network", "heartbeat", "shutdown", "timesync"], {
      timeoutMs: BOOT_MS,
    });
    dmesg = await sh(vm, "dmesg", BOOT_MS);
  });
  after(() => vm?.kill());

  it("detects the hypervisor with the full set of features", () => {
    assert.match(dmesg, /Hypervisor detected: Microsoft Hyper-V\n/);
    assert.match(dmesg, /Hyper-V: privilege flags low 0x8eff, high 0x100030, hints 0xe2c, misc 0x80510\n/);
    assert.match(dmesg, /Hyper-V: Host Build 10\.0\.20348\.0-0-0\n/);
    assert.match(dmesg, /Booting paravirtualized kernel on Hyper-V\n/);
    assert.match(dmesg, /Hyper-V: Using IPI hypercalls\n/);
    assert.match(dmesg, /Hyper-V: Using hypercall for remote TLB flush\n/);
    assert.match(dmesg, /Hyper-V: Using enlightened APIC/);
    assert.doesNotMatch(dmesg, /running as root partition|Isolation Config/);
  });

  it("has its time from the hypervisor", async () => {
    assert.match(dmesg, /tsc: Detected 1000\.000 MHz processor\n/);
    assert.match(dmesg, /Hyper-V: LAPIC Timer Frequency: 0x[0-9a-f]+\n/);
    assert.match(dmesg, /clocksource: hyperv_clocksource_tsc_page: mask: 0xffffffffffffffff/);
    assert.doesNotMatch(dmesg, /Fast TSC calibration|Marking TSC unstable|clocksource watchdog/i);
    const clocks = await sh(vm, "cat /sys/devices/system/clocksource/clocksource0/available_clocksource");
    assert.ok(clocks.split(" ").includes("hyperv_clocksource_tsc_page"), clocks);
    // TscInvariant is offered, and with it Linux prefers the processor's own
    assert.equal(await sh(vm, "cat /sys/devices/system/clocksource/clocksource0/current_clocksource"), "tsc");
  });

  it("negotiates the newest version of everything", async () => {
    assert.match(dmesg, /hv_vmbus: Vmbus version:5\.3\n/);
    assert.match(dmesg, /hv_utils: Heartbeat IC version 3\.0\n/);
    assert.match(dmesg, /hv_utils: Shutdown IC version 3\.2\n/);
    assert.match(dmesg, /hv_utils: TimeSync IC version 4\.0\n/);
    assert.match(dmesg, /NET: Registered PF_VSOCK protocol family/);
    assert.equal(vm.integration.lights.vmbusVersion, "5.3");
    await assertQuiet(vm);
  });

  it("has a driver on each device that was offered", async () => {
    const offers = (await vm.integration.status()).channels.filter((c) => c.name !== "socket" && c.subIndex === 0);
    const lines = (await sh(vm, OFFERED)).split("\n").filter((line) => !isSocket(line));
    assert.deepEqual(
      lines.sort(),
      Object.values(CLASSES)
        .map(({ classId, driver }) => `${classId} 3 ${driver}`)
        .sort(),
    );
    assert.equal(lines.length, offers.length);
    assert.ok(offers.every((c) => c.state === "open"));
  });

  it("takes its interrupts by the hypervisor's vectors", async () => {
    const counts = async (): Promise<Record<string, number>> => {
      const lines = (await sh(vm, "cat /proc/interrupts")).matchAll(/^\s*(HYP|HVS|LOC):\s+(\d+)/gm);
      return Object.fromEntries([...lines].map(([, name, n]) => [name!, Number(n)]));
    };
    const first = await counts();
    assert.ok(first.HYP! > 0 && first.HVS! > 0, JSON.stringify(first));
    await eventually("both to grow", async () => {
      const now = await counts();
      return now.HYP! > first.HYP! && now.HVS! > first.HVS! ? now : undefined;
    });
    assert.equal((await counts()).LOC, 0, "no local timer beside the synthetic one");
  });

  it("keeps no connection of the agent's beside the one that asks", async () => {
    await eventually("the other connections to go", async () => {
      const lines = (await sh(vm, OFFERED)).split("\n").filter(isSocket);
      return lines.length === 1 ? true : undefined;
    });
  });
});

it("a guest without services sees no hypervisor, and takes commands over serial ports", async () => {
  await using vm = await startDebian({ services: "none" });
  const dmesg = await sh(vm, "dmesg", BOOT_MS);
  assert.doesNotMatch(dmesg, /Hypervisor detected|Hyper-V|hv_vmbus|Vmbus/);
  assert.equal(await sh(vm, "ls -d /sys/bus/vmbus /sys/bus/acpi/devices/VMB* 2>/dev/null | wc -l"), "0");
  assert.equal(await sh(vm, "grep -c hypervisor /proc/cpuinfo || true"), "1");
  await vm.waitForPrompt({ timeoutMs: BOOT_MS });
  assert.equal((await vm.exec("echo out; echo err >&2; exit 3", { timeoutMs: BOOT_MS })).exitCode, 3);
  await assert.rejects(vm.integration.status(), { code: "no-services" });
});

it("a guest with some services has exactly those", async () => {
  await using vm = await startDebian({ services: ["heartbeat", "storage"] });
  const lines = (await sh(vm, OFFERED, BOOT_MS)).split("\n").sort();
  assert.deepEqual(lines, [`${CLASSES.heartbeat!.classId} 3 hv_utils`, `${CLASSES.storage!.classId} 3 hv_storvsc`]);
  assert.equal(await sh(vm, "ls /sys/class/ptp | wc -l"), "0");
  await assertQuiet(vm);
  await assert.rejects(vm.integration.shutdown({ timeoutMs: 10_000 }), { code: "not-ready" });
});

/** Versions of the bus: major << 16 | minor. */
const OLDER = [
  ["4.0", 0x40000, true],
  ["2.4", 0x20004, false],
] as const;
for (const [name, number, hasSockets] of OLDER) {
  it(`a guest that knows VMBus ${name} at most has storage, network and services all the same`, async () => {
    const folder = testFolder("older-bus");
    await using vm = await startDebian({
      append: `hv_vmbus.max_version=${number}`,
      disks: [{ file: join(folder, "disk"), readOnly: false, createBytes: 16 << 20 }],
      ...(hasSockets ? {} : { services: ["storage", "network", "heartbeat", "shutdown", "timesync"] as const }),
    });
    assert.match(await sh(vm, "dmesg", BOOT_MS), new RegExp(`hv_vmbus: Vmbus version:${name.replace(".", "\\.")}\n`));
    assert.equal(vm.integration.lights.vmbusVersion, name);
    await sh(vm, "head -c 4194304 /dev/urandom >/tmp/a && dd if=/tmp/a of=/dev/sda bs=64k oflag=direct 2>/dev/null");
    await sh(vm, "dd if=/dev/sda of=/tmp/b bs=64k count=64 iflag=direct 2>/dev/null; cmp /tmp/a /tmp/b");
    assert.match(await sh(vm, "ping -c1 10.0.2.2"), /1 packets received/);
    await vm.integration.waitForLights(["heartbeat", "shutdown", "timesync"], { timeoutMs: BOOT_MS });
    await assertQuiet(vm);
  });
}
