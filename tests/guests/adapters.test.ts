/** Network adapters beside the first: from the start, plugged in and taken away while the guest runs, and saved with it. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, describe, it } from "node:test";
import { createNetwork, createVm, type VirtualNetwork } from "../../src/host/node/index.js";
import { type Vm, VmError } from "../../src/vm/index.js";
import { startDebian } from "./guests.js";
import { assertQuiet, BOOT_MS, eventually, sh } from "./hyperv-guest.js";
import { dial, listening, perl } from "./socket-scripts.js";

const names = (vm: Vm): Promise<string> => sh(vm, "ls /sys/class/net | grep -v lo | tr '\\n' ' '", BOOT_MS);
const DHCP = (n: number): string => `ip link set eth${n} up && udhcpc -i eth${n} -n -q -t 10 -T 1 >/dev/null 2>&1`;
const answers = async (vm: Vm, address: string): Promise<boolean> =>
  (await vm.exec(`ping -c 1 -W 1 ${address}`, { timeoutMs: BOOT_MS })).exitCode === 0;
const addressOf = (vm: Vm, n: number): Promise<string> =>
  sh(vm, `ip -4 -o addr show eth${n} | sed 's/.*inet //; s,/.*,,'`);

describe("network adapters beside the first", () => {
  let lan: VirtualNetwork;
  let vm: Vm;
  let other: Vm;
  before(async () => {
    lan = await createNetwork({ ipv4: "192.168.7.0/24", allow: ["none"] });
    [vm, other] = (await Promise.all([
      startDebian({ adapters: [{ join: lan }] }),
      startDebian({ network: { join: lan } }),
    ])) as [Vm, Vm];
    await Promise.all([names(vm), names(other)]);
  });
  after(async () => {
    await Promise.all([vm?.kill(), other?.kill()]);
    await lan?.close();
  });

  it("are there from the start, each with its own address and wire", async () => {
    assert.equal(await names(vm), "eth0 eth1");
    await sh(vm, DHCP(1));
    assert.match(await addressOf(vm, 0), /^10\.0\.2\.15$/);
    const own = await addressOf(vm, 1);
    assert.match(own, /^192\.168\.7\.1[56]$/);
    await sh(other, `ping -c 1 -W 5 ${own}`);
    const [first, second] = await vm.network.adapters();
    assert.deepEqual([first!.number, second!.number], [0, 1]);
    assert.notEqual(first!.mac, second!.mac);
    assert.equal(await sh(vm, "cat /sys/class/net/eth1/address"), second!.mac);
    assert.ok(first!.nat !== undefined && second!.nat === undefined);
  });

  it("come and go while the guest runs, and break nothing else", async () => {
    for (let round = 0; round < 3; round++) {
      const n = await vm.network.addAdapter({ join: lan });
      assert.equal(n, 2);
      await eventually("the new interface", async () => ((await names(vm)) === "eth0 eth1 eth2" ? true : undefined));
      await sh(vm, DHCP(2));
      await sh(other, `ping -c 1 -W 5 ${await addressOf(vm, 2)}`);
      assert.equal((await lan.status()).machines, 3);
      assert.equal(await vm.network.removeAdapter(n), true);
      await eventually("it to be gone", async () => ((await names(vm)) === "eth0 eth1" ? true : undefined));
      assert.equal(await vm.network.removeAdapter(n), false);
    }
    await eventually("its cable to be out", async () => ((await lan.status()).machines === 2 ? true : undefined));
    await sh(other, `ping -c 1 -W 5 ${await addressOf(vm, 1)}`);
    await sh(vm, "ping -c 1 -W 5 10.0.2.2");
    await assertQuiet(vm);
  });

  it("go in the middle of transfers, and come again", async () => {
    await using wide = await createNetwork({ ipv4: "10.77.0.0/24" });
    const data = randomBytes(1 << 20);
    const port = await listening((socket) => void socket.resume().end(data));
    const take = perl(`${dial(port).replace("10, 0, 2, 2", "10, 77, 0, 2")}; 1 while sysread S, $b, 65536`);
    for (let round = 0; round < 4; round++) {
      const n = await vm.network.addAdapter({ join: wide });
      await eventually("the new interface", async () => ((await names(vm)) === "eth0 eth1 eth2" ? true : undefined));
      await sh(vm, DHCP(2));
      await sh(
        vm,
        `rm -f /tmp/enough; for i in 1 2 3 4 5 6; do (until [ -e /tmp/enough ]; do timeout 2 ${take}; done) </dev/null >/dev/null 2>&1 & done`,
      );
      await eventually("traffic", async () => (await vm.network.adapters())[2]!.receivedBytes > 10e6 || undefined);
      assert.equal(await vm.network.removeAdapter(n), true);
      await eventually("it to be gone", async () => ((await names(vm)) === "eth0 eth1" ? true : undefined));
      await sh(vm, "touch /tmp/enough");
    }
    await sh(vm, "ping -c 1 -W 5 10.0.2.2");
    await assertQuiet(vm);
  });

  it("may have a router of their own", async () => {
    const n = await vm.network.addAdapter({ mac: "00:15:5d:77:00:01" });
    await eventually("the new interface", async () => ((await names(vm)).split(" ").length === 3 ? true : undefined));
    assert.equal(await sh(vm, "cat /sys/class/net/eth2/address"), "00:15:5d:77:00:01");
    assert.equal((await vm.network.adapters())[n]?.nat?.leases.length, 0);
    await vm.network.removeAdapter(n);
  });

  it("are seven at most, beside one that stays", async () => {
    const isBad = (error: unknown): boolean => error instanceof VmError && error.code === "bad-option";
    await assert.rejects(vm.network.removeAdapter(0), isBad);
    const seven = Array.from({ length: 8 }, () => ({ join: lan }));
    await assert.rejects(createVm({ adapters: seven }), isBad);
    await assert.rejects(createVm({ network: { mode: "none" }, adapters: [{ join: lan }] }), isBad);
  });

  it("are in a saved machine, with their addresses", async () => {
    const macs = (await vm.network.adapters()).map(({ mac }) => mac);
    const saved = await vm.save();
    const again = await createVm({ memoryMiB: 256, saved, adapters: [{ join: lan }] });
    try {
      await again.start();
      assert.deepEqual(
        (await again.network.adapters()).map(({ mac }) => mac),
        macs,
      );
      await vm.kill();
      // the guest is told of other wires: its links go down and come back
      await eventually("the router", async () => (await answers(again, "10.0.2.2")) || undefined);
      const own = await addressOf(again, 1);
      await eventually("the other machine", async () => (await answers(other, own)) || undefined);
      await assertQuiet(again);
    } finally {
      await again.kill();
    }
  });
});
