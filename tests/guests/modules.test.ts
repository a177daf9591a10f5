/** Drivers that are unloaded and loaded again, many times: channels close and open, and nothing is left over on either side. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { KEPT_IDLE } from "../../src/vm/guest-agent.js";
import type { Vm } from "../../src/vm/index.js";
import { startDebian } from "./guests.js";
import { assertQuiet, BOOT_MS, eventually, sh, sha256, testFolder } from "./hyperv-guest.js";

const TIMES = process.env.ENLIGHTEN_LONG ? 200 : 20;
/** So that a step that hangs is named by the failure, and not the file. */
const STEP_MS = process.env.ENLIGHTEN_LONG ? 1_200_000 : 240_000;
const SERVICES = ["storage", "network", "heartbeat", "shutdown", "timesync"] as const;

describe(`drivers that are loaded ${TIMES} times`, () => {
  let vm: Vm;
  /** Channels and connections at rest: nothing but the devices, all open, and connections to the agent that wait for a command. */
  const atRest = (): Promise<string> =>
    eventually("the devices alone, open", async () => {
      const { channels: all, sockets } = await vm.integration.status();
      const channels = all.filter((c) => c.name !== "socket");
      const isGood =
        sockets <= KEPT_IDLE && channels.length === SERVICES.length && channels.every((c) => c.state === "open");
      // what was counted meanwhile is not at rest
      const shown = channels.map(({ packetsIn: _in, packetsOut: _out, ...c }) => c);
      return isGood ? JSON.stringify(shown) : undefined;
    });
  const folder = testFolder("modules");
  before(async () => {
    vm = await startDebian({ disks: [{ file: join(folder, "disk"), readOnly: false, createBytes: 16 << 20 }] });
    await vm.integration.waitForLights(SERVICES, { timeoutMs: BOOT_MS });
    await sh(vm, "until [ -b /dev/sda ]; do sleep 0.1; done", BOOT_MS);
  });
  after(() => vm?.kill());

  it("hv_storvsc finds its disk every time, with its data", async () => {
    const before = await atRest();
    await sh(
      vm,
      `i=0; while [ $i -lt ${TIMES} ]; do
  echo "round $i" | dd of=/dev/sda bs=512 conv=sync,fsync 2>/dev/null
  rmmod hv_storvsc || exit 1
  [ -b /dev/sda ] && exit 2
  modprobe -a hv_storvsc sd_mod || exit 3
  until [ -b /dev/sda ]; do sleep 0.05; done
  read -r line </dev/sda; [ "$line" = "round $i" ] || exit 4
  i=$((i+1))
done`,
      STEP_MS,
    );
    assert.equal(await atRest(), before);
    await assertQuiet(vm);
  });

  it("hv_utils is bound every time, and answers", async () => {
    const before = await atRest();
    const { replies } = await vm.integration.heartbeat();
    await sh(
      vm,
      `i=0; while [ $i -lt ${TIMES} ]; do
  rmmod hv_utils || exit 1
  modprobe hv_utils || exit 2
  set -- /sys/bus/vmbus/drivers/hv_utils/*-*-*; [ $# -eq 3 ] || exit 3
  i=$((i+1))
done`,
      STEP_MS,
    );
    assert.equal(await atRest(), before);
    const messages = (await sh(vm, "dmesg")).match(/Heartbeat IC version 3\.0/g) ?? [];
    assert.ok(messages.length > TIMES / 2, `negotiated ${messages.length} times`);
    await eventually("more replies", async () => {
      const now = await vm.integration.heartbeat();
      return now.health === "ok" && now.replies > replies ? true : undefined;
    });
    await assertQuiet(vm);
  });

  it("hv_netvsc has its network every time, though it is taken away in the middle of connections", async () => {
    const before = await atRest();
    const piece = randomBytes(3 << 20);
    const server = createServer((_request, response) => response.end(piece));
    after(() => server.close());
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const url = `http://10.0.2.2:${(server.address() as AddressInfo).port}/`;
    await sh(
      vm,
      `(while [ ! -e /tmp/enough ]; do timeout 1 wget -qO /dev/null ${url}; done) </dev/null >/dev/null 2>&1 &`,
    );
    await sh(
      vm,
      `i=0; while [ $i -lt ${TIMES} ]; do
  rmmod hv_netvsc || exit 1
  [ -e /sys/class/net/eth0 ] && exit 2
  modprobe hv_netvsc || exit 3
  udhcpc -i eth0 -n -q -t 5 -T 1 >/dev/null 2>&1 || exit 4
  timeout 30 wget -qO- ${url} | sha256sum | grep -q ${sha256(piece)} || exit 5
  i=$((i+1))
done`,
      STEP_MS,
    );
    // another MTU is another buffer, and another start of the protocol
    await sh(
      vm,
      `for mtu in 1400 9000 1500 576 4000 1400 9000 1500 1280 1500; do
  ifconfig eth0 mtu $mtu || exit 1
  timeout 30 wget -qO- ${url} | sha256sum | grep -q ${sha256(piece)} || exit 2
done
touch /tmp/enough`,
      STEP_MS,
    );
    assert.equal(await atRest(), before);
    const { drops } = (await vm.network.status())!;
    assert.deepEqual([drops.malformed, drops.tooLong, drops.unfit], [0, 0, 0]);
    await assertQuiet(vm);
  });

  it("hv_utils gives the services to the host again: it powers the guest off", async () => {
    const end = vm.waitForEnd({ timeoutMs: 60_000 });
    await vm.integration.shutdown({ timeoutMs: 60_000 });
    assert.equal((await end).how, "power-off");
  });
});
