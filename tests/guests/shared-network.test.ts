/** Two machines on one network: each other, the host, what they may reach, and what is left when one goes. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, describe, it } from "node:test";
import { createNetwork, type VirtualNetwork } from "../../src/host/node/index.js";
import { type Vm, VmError } from "../../src/vm/index.js";
import { startDebian } from "./guests.js";
import { assertQuiet, BOOT_MS, eventually, sh, sha256 } from "./hyperv-guest.js";

describe("two machines on one network", () => {
  let network: VirtualNetwork;
  let vms: readonly Vm[] = [];
  let addresses: readonly string[] = [];
  const addressOf = (vm: Vm): Promise<string> =>
    sh(vm, "ip -4 -o addr show eth0 | sed 's/.*inet //; s,/.*,,'", BOOT_MS);
  before(async () => {
    network = await createNetwork({ ipv4: "10.77.0.0/24", allow: ["host.enlighten.internal"] });
    vms = await Promise.all([0, 1].map(() => startDebian({ network: { join: network } })));
    addresses = await Promise.all(vms.map(addressOf));
  });
  after(async () => {
    await Promise.all(vms.map((vm) => vm.kill()));
    await network?.close();
  });

  it("have addresses of their own", async () => {
    assert.deepEqual([...addresses].sort(), ["10.77.0.15", "10.77.0.16"]);
    const { machines, nat } = await network.status();
    assert.equal(machines, 2);
    assert.deepEqual(nat.leases.map(({ address }) => address).sort(), [...addresses].sort());
  });

  it("reach each other, with all bytes, both at once", async () => {
    await Promise.all(
      vms.map((vm) =>
        sh(vm, "mkdir -p /tmp/www; head -c 5000000 /dev/urandom >/tmp/www/data; httpd -p 80 -h /tmp/www"),
      ),
    );
    const sums = await Promise.all(vms.map((vm) => sh(vm, "sha256sum </tmp/www/data")));
    const got = await Promise.all(
      vms.map((vm, i) =>
        sh(vm, `ping -c 1 -W 5 ${addresses[1 - i]} >&2 && wget -qO- http://${addresses[1 - i]}/data | sha256sum`),
      ),
    );
    assert.deepEqual(got, [sums[1], sums[0]]);
    assert.notEqual(sums[0], sums[1]);
    await Promise.all(vms.map(assertQuiet));
  });

  it("reach the host by the network's router, and nothing that is not allowed", async () => {
    const piece = randomBytes(100_000);
    const server = createServer((_request, response) => response.end(piece));
    after(() => server.close());
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    for (const vm of vms)
      assert.match(
        await sh(vm, `wget -qO- http://host.enlighten.internal:${port}/ | sha256sum`),
        new RegExp(sha256(piece)),
      );
    const { exitCode } = await vms[0]!.exec("wget -qO- http://192.0.2.1/", { timeoutMs: 30_000 });
    assert.notEqual(exitCode, 0);
    const { refused } = (await network.status()).nat;
    assert.deepEqual(
      refused.map(({ protocol, to }) => [protocol, to]),
      [["tcp", "192.0.2.1:80"]],
    );
  });

  it("have ports of the host that lead to the one that is meant", async () => {
    const pages: string[] = [];
    for (const [i, vm] of vms.entries()) {
      await sh(vm, `echo machine ${i} >/tmp/www/who`);
      const { host } = await network.publish({
        protocol: "tcp",
        hostPort: 0,
        guestPort: 80,
        guestAddress: addresses[i]!,
      });
      pages.push(await (await fetch(`http://${host}/who`)).text());
    }
    assert.deepEqual(pages, ["machine 0\n", "machine 1\n"]);
    await assert.rejects(vms[0]!.network.publish("0:80"), /the network's guest|by the network/);
  });

  it("are told that a machine on a shared network has nothing of its own to say", async () => {
    await assert.rejects(
      startDebian({ network: { join: network, publish: ["0:80"] } }),
      (error) => error instanceof VmError && error.code === "bad-option",
    );
    await assert.rejects(
      createNetwork({ ipv4: "10.77.0.0/30" }),
      (error) => error instanceof VmError && error.code === "bad-option",
    );
  });

  it("go on when one is killed, and lose their link when the network is closed", async () => {
    const [left, gone] = vms as [Vm, Vm];
    await gone.kill();
    await eventually("the other to be off", async () => ((await network.status()).machines === 1 ? true : undefined));
    const { exitCode } = await left.exec(`ping -c 1 -W 1 ${addresses[1]}`, { timeoutMs: 30_000 });
    assert.notEqual(exitCode, 0);
    await sh(left, "ping -c 1 -W 5 10.77.0.2");
    await network.close();
    await eventually("no carrier", async () =>
      (await sh(left, "cat /sys/class/net/eth0/carrier")) === "0" ? true : undefined,
    );
    await assert.rejects(network.status(), /has been closed/);
  });
});
