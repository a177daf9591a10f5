/**
 * Virtual LANs (IEEE 802.1Q) of real guests: two machines on one network, with interfaces of the kernel's 8021q over hv_netvsc. The driver
 * gives tags beside frames (NETIF_F_HW_VLAN_CTAG_TX) and takes them so; on the wire they are in the frames.
 *
 *   ENLIGHTEN_LONG=1 node --test dist/tests/full/virtual-lan.test.js
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { createNetwork, type VirtualNetwork } from "../../src/host/node/index.js";
import type { Vm } from "../../src/vm/index.js";
import { startDebian } from "../guests/guests.js";
import { assertQuiet, BOOT_MS, COMMAND_MS, sh, testFolder } from "../guests/hyperv-guest.js";
import { perl, TAKE } from "../guests/socket-scripts.js";
import { framesOf, tagOf } from "./capture-frames.js";

const skip = process.env.ENLIGHTEN_LONG === "1" ? false : "takes minutes: set ENLIGHTEN_LONG=1";
const MIB = 1 << 20;
const BYTES = 20 * MIB;
const LAN = 5;
/** The other machine's alone. */
const OTHER_LAN = 6;
/** Last byte of the address that asks for another by a frame made by hand. */
const ASKING = 77;
const PRIORITY = 3;
const TRANSFER_MS = 300_000;

/** Number and priority of the tag. */
const lan = (tag: number | undefined): number | undefined => (tag === undefined ? undefined : tag & 0xfff);
const priority = (tag: number): number => tag >>> 13;

describe("virtual LANs between two machines", { skip, timeout: 1_200_000 }, () => {
  let network: VirtualNetwork;
  let vms: readonly [Vm, Vm] | undefined;
  const folder = skip === false ? testFolder("vlan") : "";
  const captureOf = (n: number): string => join(folder, `machine${n}.pcapng`);
  const run = (n: 0 | 1, script: string, timeoutMs = COMMAND_MS): Promise<string> => sh(vms![n], script, timeoutMs);
  const received = async (n: 0 | 1, name: string): Promise<number> =>
    Number(await run(n, `cat /sys/class/net/${name}/statistics/rx_packets`));

  before(async () => {
    network = await createNetwork({ ipv4: "10.77.0.0/24", ipv6: false, allow: ["none"] });
    const start = (n: number): Promise<Vm> =>
      startDebian({ moreModules: ["8021q"], network: { join: network, pcap: captureOf(n) } });
    vms = [await start(0), await start(1)];
    for (const n of [0, 1] as const)
      await run(
        n,
        `until ip -4 -o addr show eth0 | grep -q 10.77.0; do sleep 0.1; done; modprobe 8021q
ip link add link eth0 name eth0.${LAN} type vlan id ${LAN} && ip addr add 10.5.0.${n + 1}/24 dev eth0.${LAN}
ip link set eth0.${LAN} up`,
        BOOT_MS,
      );
    await run(
      1,
      `ip link add link eth0 name eth0.${OTHER_LAN} type vlan id ${OTHER_LAN}
ip addr add 10.6.0.2/24 dev eth0.${OTHER_LAN}; ip link set eth0.${OTHER_LAN} up`,
    );
  });
  after(async () => {
    await Promise.all(vms?.map((vm) => vm.kill()) ?? []);
    await network?.close();
  });

  it("the driver gives the host its tags, and takes the host's", async () => {
    // NETIF_F_HW_VLAN_CTAG_TX and _RX of the driver, by the kernel's own SIOCETHTOOL: ETHTOOL_GFLAGS has bits 7 and 8 for them
    const flags = `$v = pack("LL", 0x25, 0); socket(S, 2, 2, 0); $r = pack("a16P", "eth0", $v); ioctl(S, 0x8946, $r) or die "$!"; print +(unpack "LL", $v)[1] & 0x180`;
    assert.equal(await run(0, perl(flags)), String(0x180));
  });

  it("machines reach each other by it, both ways", async () => {
    assert.match(await run(0, `ping -c 3 -s 1472 10.5.0.2`), /3 packets received/);
    assert.match(await run(1, `ping -c 3 10.5.0.1`), /3 packets received/);
  });

  it("a transfer by it is whole, both ways", async () => {
    for (const from of [0, 1] as const) {
      const to = (1 - from) as 0 | 1;
      const take = `socket(L, 2, 1, 0); setsockopt(L, 1, 2, 1); bind(L, pack("Snx12", 2, 9000)) && listen(L, 1) && accept(S, L) or die "$!"; ${TAKE}`;
      await run(
        to,
        `rm -f /tmp/sum; (${perl(take)} | sha256sum >/tmp/sum.part; mv /tmp/sum.part /tmp/sum) </dev/null >/dev/null 2>&1 &
until netstat -ltn | grep -q :9000; do sleep 0.05; done`,
      );
      const give = `socket(S, 2, 1, 0) && connect(S, pack("SnC4x8", 2, 9000, 10, 5, 0, ${to + 1})) or die "$!"; while ($n = sysread(STDIN, $b, 65536)) { $o = 0; $o += syswrite(S, $b, $n - $o, $o) while $o < $n }`;
      const sent = await run(
        from,
        `head -c ${BYTES} /dev/urandom >/tmp/sent; ${perl(give)} </tmp/sent && sha256sum </tmp/sent; rm /tmp/sent`,
        TRANSFER_MS,
      );
      assert.equal(await run(to, "until [ -e /tmp/sum ]; do sleep 0.05; done; cat /tmp/sum", TRANSFER_MS), sent);
    }
  });

  it("another virtual LAN and the untagged network hear nothing of it", async () => {
    const heard = await received(1, `eth0.${OTHER_LAN}`);
    assert.notEqual((await vms![0].exec("ping -c 2 -W 2 10.6.0.2", { timeoutMs: COMMAND_MS })).exitCode, 0);
    // the other machine's address in the LAN it is not in
    await run(0, `ip addr add 10.6.0.1/24 dev eth0.${LAN}`);
    assert.notEqual((await vms![0].exec("ping -c 2 -W 2 10.6.0.2", { timeoutMs: COMMAND_MS })).exitCode, 0);
    await run(0, `ip addr del 10.6.0.1/24 dev eth0.${LAN}; ip addr add 10.6.0.1/24 dev eth0`);
    assert.notEqual((await vms![0].exec("ping -c 2 -W 2 10.6.0.2", { timeoutMs: COMMAND_MS })).exitCode, 0);
    await run(0, "ip addr del 10.6.0.1/24 dev eth0");
    assert.equal(await received(1, `eth0.${OTHER_LAN}`), heard);
  });

  it("the router is no part of it, and answers without tags", async () => {
    await run(0, "ping -c 1 -W 5 10.77.0.2");
    await run(0, `ip addr add 10.77.0.99/32 dev eth0.${LAN}; ip route add 10.77.0.3/32 dev eth0.${LAN} src 10.77.0.99`);
    assert.notEqual((await vms![0].exec("ping -c 2 -W 2 10.77.0.3", { timeoutMs: COMMAND_MS })).exitCode, 0);
    await run(0, `ip route del 10.77.0.3/32; ip addr del 10.77.0.99/32 dev eth0.${LAN}; ping -c 1 -W 5 10.77.0.3`);
    const { dropped } = (await network.status()).nat;
    assert.ok(dropped.vlan! > 0, JSON.stringify(dropped));
  });

  it("priorities are in the tags", async () => {
    await run(0, `vconfig set_egress_map eth0.${LAN} 0 ${PRIORITY}; ping -c 2 10.5.0.2`);
  });

  it("a tag that the guest has put into the frame is as good as one beside it", async () => {
    // a question of ARP by a packet socket: who has the other machine's address, for one that nobody else asks for
    const ask = `socket(S, 17, 3, 0) or die "$!"; open F, "/sys/class/net/eth0/ifindex"; $i = <F>; open F, "/sys/class/net/eth0/address"; $m = pack "H12", join "", split /[:\\n]/, <F>;
$f = "\\xff" x 6 . $m . pack("nnn", 0x8100, ${LAN}, 0x806) . pack("nnCCn", 1, 0x800, 6, 4, 1) . $m . pack("C4x6C4", 10, 5, 0, ${ASKING}, 10, 5, 0, 2);
send(S, $f, 0, pack("SnlSCCa8", 17, 0, $i, 0, 0, 6, "")) or die "$!"`;
    await run(0, perl(ask));
    await run(1, `until ip neigh show dev eth0.${LAN} | grep -q '^10.5.0.${ASKING} '; do sleep 0.05; done`);
  });

  it("frames of the virtual LAN have its tag on the wire, all others none", async () => {
    for (const vm of vms!) {
      await assertQuiet(vm);
      const { drops } = (await vm.network.status())!;
      assert.deepEqual([drops.malformed, drops.tooLong, drops.unfit], [0, 0, 0]);
    }
    await Promise.all(vms!.map((vm) => vm.kill()));
    for (const n of [0, 1]) {
      const frames = framesOf(captureOf(n));
      const inLan = frames.filter((f) => lan(tagOf(f)) === LAN);
      assert.ok(inLan.reduce((sum, f) => sum + f.length, 0) > 2 * BYTES, `${inLan.length} frames`);
      // the kernel's own segments, longer than a frame may be, with their tags
      assert.ok(
        inLan.some((f) => f.length > 3000),
        "long segments",
      );
      // the answer to the frame made by hand
      const asker = Buffer.from([10, 5, 0, ASKING]);
      assert.ok(inLan.some((f) => f.readUInt16BE(16) === 0x0806 && f.subarray(42, 46).equals(asker)));
      const prefix = Buffer.from([10, 5, 0]);
      for (const frame of frames) {
        const tag = tagOf(frame);
        const ip = tag === undefined ? 14 : 18;
        if (frame.readUInt16BE(ip - 2) !== 0x0800) continue;
        if (frame.subarray(ip + 12, ip + 15).equals(prefix)) assert.equal(lan(tag), LAN);
      }
      const important = inLan.filter((f) => priority(tagOf(f)!) === PRIORITY);
      assert.ok(important.length >= 2, `${important.length} frames of priority ${PRIORITY}`);
    }
  });
});
