/**
 * Adapters with sub-channels that are saved, reset and taken away in the middle of transfers, with a real guest's driver.
 *
 *   ENLIGHTEN_LONG=1 node --test dist/tests/full/sub-channel-states.test.js
 */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, it } from "node:test";
import { createNetwork, createVm } from "../../src/host/node/index.js";
import type { Vm } from "../../src/vm/index.js";
import { startDebian } from "../guests/guests.js";
import { BOOT_MS, eventually, sh, sha256, testFolder } from "../guests/hyperv-guest.js";
import { dial, listening, perl } from "../guests/socket-scripts.js";
import { assertDriverQuiet, loadDriver } from "./believed-processors.js";

const skip = process.env.ENLIGHTEN_LONG === "1" ? false : "takes minutes: set ENLIGHTEN_LONG=1";
const CHANNELS = 8;
const TIMES = 5;
const BYTES = 2 << 20;
const network = { maxSubChannels: CHANNELS - 1 };
/** All that comes by `S`; an error is none that is passed over. */
const TAKE = '1 while $n = sysread(S, $b, 65536) and print $b; defined $n or die "$!"';
const hashed = (body: string): string => `(timeout 60 ${perl(body)} | sha256sum) 2>&1`;
const DHCP = "udhcpc -i eth0 -n -q -t 5 -T 1 >/dev/null 2>&1";

const opened = async (vm: Vm, name = "eth0"): Promise<number> =>
  Number(await sh(vm, `ls /sys/class/net/${name}/device/channels | wc -l`));
/** Six transfers at once, again and again until /tmp/enough is there. */
const beBusy = (vm: Vm, transfer: string): Promise<string> =>
  sh(
    vm,
    `rm -f /tmp/enough; for i in 1 2 3 4 5 6; do (until [ -e /tmp/enough ]; do ${transfer}; done) </dev/null >/dev/null 2>&1 & done`,
  );

describe("an adapter with sub-channels", { skip, timeout: 1_800_000 }, () => {
  const data = randomBytes(BYTES);
  const right = new RegExp(`^${sha256(data)} `);
  const serve = (): Promise<number> =>
    listening((socket) => {
      socket.resume().end(data);
    });

  it("is saved in the middle of transfers, and goes on", async () => {
    const transfer = hashed(`${dial(await serve())}; ${TAKE}`);
    await using vm = await startDebian({ network });
    await sh(vm, "mkdir -p /root", BOOT_MS);
    await loadDriver(vm, CHANNELS, testFolder("sub-channels-saved"));
    await sh(vm, DHCP);
    assert.equal(await opened(vm), CHANNELS);
    await beBusy(vm, transfer);
    await eventually("traffic", async () => (await vm.network.status())!.receivedBytes > 10 * BYTES || undefined);
    const state = await vm.save({ timeoutMs: 60_000 });
    assert.match(await sh(vm, transfer), right, "it goes on");
    await vm.kill();
    await using other = await createVm({ saved: state, network });
    await other.start();
    // the driver is told that its network is another one, and has no link for two seconds
    await sh(other, "until ping -c 1 -W 1 10.0.2.2 >/dev/null; do sleep 0.1; done", BOOT_MS);
    assert.match(await sh(other, `touch /tmp/enough; ${transfer}`, BOOT_MS), right);
    assert.equal(await opened(other), CHANNELS);
    assert.equal((await other.network.status())!.channels, CHANNELS);
    await assertDriverQuiet(other);
  });

  it("is there again after a reset in the middle of transfers", async () => {
    const transfer = hashed(`${dial(await serve())}; ${TAKE}`);
    await using vm = await startDebian({ network });
    const folder = testFolder("sub-channels-reset");
    for (let i = 0; i < TIMES; i++) {
      await sh(vm, "mkdir -p /root", BOOT_MS);
      assert.equal(await opened(vm), 1);
      await loadDriver(vm, CHANNELS, folder);
      await sh(vm, DHCP);
      assert.equal(await opened(vm), CHANNELS);
      assert.match(await sh(vm, transfer), right);
      await assertDriverQuiet(vm);
      await beBusy(vm, transfer);
      await eventually("traffic", async () => (await vm.network.status())!.receivedBytes > 10 * BYTES || undefined);
      const rebooted = new Promise<void>((resolve) => {
        vm.onReboot(resolve);
      });
      // no driver is told
      vm.exec("echo 1 >/proc/sys/kernel/sysrq; echo b >/proc/sysrq-trigger", { timeoutMs: BOOT_MS }).catch(() => {});
      await rebooted;
    }
    assert.match(await sh(vm, transfer, BOOT_MS), right);
    assert.equal((await vm.network.status())!.channels, 1);
  });

  it("comes and goes while the guest runs, in the middle of transfers", async () => {
    const transfer = hashed(`${dial(await serve()).replace("10, 0, 2, 2", "10, 77, 0, 2")}; ${TAKE}`);
    await using lan = await createNetwork({ ipv4: "10.77.0.0/24", ipv6: false });
    await using vm = await startDebian();
    await sh(vm, "mkdir -p /root", BOOT_MS);
    await loadDriver(vm, CHANNELS, testFolder("sub-channels-plugged"));
    await sh(vm, DHCP);
    const channels = async (): Promise<string> =>
      JSON.stringify((await vm.integration.status()).channels.filter((c) => c.name !== "socket").map((c) => c.state));
    const before = await channels();
    for (let i = 0; i < TIMES; i++) {
      const n = await vm.network.addAdapter({ join: lan, ...network });
      await sh(
        vm,
        "until [ -e /sys/class/net/eth1 ]; do sleep 0.05; done; ip addr add 10.77.0.50/24 dev eth1 && ip link set eth1 up",
      );
      await eventually("all channels", async () => ((await opened(vm, "eth1")) === CHANNELS ? true : undefined));
      assert.match(await sh(vm, transfer), right);
      await beBusy(vm, transfer.replace("timeout 60", "timeout 2"));
      const busy = async (): Promise<boolean> => (await vm.network.adapters())[1]!.receivedBytes > 10 * BYTES;
      await eventually("traffic", async () => (await busy()) || undefined);
      assert.equal(await vm.network.removeAdapter(n), true);
      await sh(vm, "until [ ! -e /sys/class/net/eth1 ]; do sleep 0.05; done; touch /tmp/enough");
      await eventually("its channels to be gone", async () => ((await channels()) === before ? true : undefined));
    }
    await assertDriverQuiet(vm);
  });
});
