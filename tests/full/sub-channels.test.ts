/**
 * Sub-channels (vRSS) of real guests: hv_netvsc with a queue for each processor. The guest has one, and its driver is told that it has more;
 * all else is the driver's own doing. Where frames have to go is worked out here, bit by bit, from what `ethtool -x` shows.
 *
 *   ENLIGHTEN_LONG=1 node --test dist/tests/full/sub-channels.test.js
 */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import { after, before, describe, it } from "node:test";
import { createVm, type Vm } from "../../src/host/node/index.js";
import { COMMAND_MS, eventually, sh, sha256, testFolder } from "../guests/hyperv-guest.js";
import { listening } from "../guests/socket-scripts.js";
import { assertDriverQuiet, loadDriver, RELOAD } from "./believed-processors.js";
import { FULL_BOOT_MS, NETWORK_PACKAGES } from "./network-guest.js";

const skip = process.env.ENLIGHTEN_LONG === "1" ? false : "takes minutes: set ENLIGHTEN_LONG=1";
const CHANNELS = 8;
const FLOWS = 64;
const FLOW_BYTES = 512 << 10;
const RELOADS = 10;
const TRANSFER_MS = 300_000;

/** Many connections at once, each with its own bytes both ways; says of each its number, its port and the hash of what came. */
const FLOWS_SCRIPT = `import hashlib, socket, sys, threading
server, flows, size = (int(a) for a in sys.argv[1:])
lines = []
def flow(number):
    s = socket.create_connection(("10.0.2.2", server))
    port = s.getsockname()[1]
    def send():
        s.sendall(number.to_bytes(4, "big") * (size // 4))
        s.shutdown(socket.SHUT_WR)
    sender = threading.Thread(target=send)
    sender.start()
    got = hashlib.sha256()
    while True:
        piece = s.recv(65536)
        if not piece: break
        got.update(piece)
    sender.join()
    lines.append(f"{number} {port} {got.hexdigest()}")
threads = [threading.Thread(target=flow, args=(n,)) for n in range(1, flows + 1)]
for t in threads: t.start()
for t in threads: t.join()
print("\\n".join(lines))
`;

/** NDIS, "RSS hashing functions": for each bit of the input that is set, the 32 bits of the key from there on. */
function toeplitz(key: Uint8Array, input: Uint8Array): number {
  const bits = BigInt(`0x${Buffer.from(key).toString("hex")}`);
  let hash = 0;
  for (let i = 0; i < input.length * 8; i++) {
    if ((input[i >> 3]! & (0x80 >> (i & 7))) === 0) continue;
    hash ^= Number((bits >> BigInt(key.length * 8 - 32 - i)) & 0xffff_ffffn);
  }
  return hash >>> 0;
}
const repeated = (number: number): Buffer => {
  const word = Buffer.alloc(4);
  word.writeUInt32BE(number);
  return Buffer.alloc(FLOW_BYTES, word);
};

/** Without systemd, which has another opinion of an adapter that comes as soon as it goes. */
const ADDRESS = "ip addr add 10.0.2.15/24 dev eth0 && ip link set eth0 up && ip route add default via 10.0.2.2";

describe("sub-channels of the network adapter", { skip, timeout: 1_800_000 }, () => {
  let vm: Vm;
  const folder = skip === false ? testFolder("sub-channels") : "";
  const run = (script: string, timeoutMs = COMMAND_MS): Promise<string> => sh(vm, script, timeoutMs);
  const opened = async (): Promise<number> =>
    Number(await run("ls /sys/class/net/eth0/device/channels | wc -l")) as number;
  const combined = async (): Promise<number> =>
    Number(/Current hardware settings:.*Combined:\s+(\d+)/s.exec(await run("ethtool -l eth0"))![1]);
  /** A counter of all queues. */
  const queues = async (counter: string): Promise<number[]> => {
    const lines = await run("ethtool -S eth0");
    return [...lines.matchAll(new RegExp(`${counter.replace("N", "\\d+")}: (\\d+)`, "g"))].map((m) => Number(m[1]));
  };
  const received = (): Promise<number[]> => queues("rx_queue_N_bytes");
  const sent = (): Promise<number[]> => queues("tx_queue_N_bytes");
  const indirection = async (): Promise<{ key: Uint8Array; table: number[] }> => {
    const text = await run("ethtool -x eth0");
    const table = [...text.matchAll(/^\s*\d+:((?:\s+\d+)+)$/gm)].flatMap((m) => m[1]!.trim().split(/\s+/).map(Number));
    return { table, key: Buffer.from(/key:\n([0-9a-f:]+)/.exec(text)![1]!.replaceAll(":", ""), "hex") };
  };
  /** Many flows both ways. @returns bytes that went by each queue, and those that had to come by it */
  const flows = async (): Promise<{ sent: number[]; received: number[]; due: number[] }> => {
    const port = await listening((socket) => {
      const got: Buffer[] = [];
      socket.once("data", (first: Buffer) => socket.end(repeated(first.readUInt32BE() ^ 0xffff)));
      socket.on("data", (bytes: Buffer) => got.push(bytes));
      socket.on("end", () => {
        const all = Buffer.concat(got);
        arrived.set(all.readUInt32BE(), sha256(all));
      });
    });
    const arrived = new Map<number, string>();
    const before = [await sent(), await received()];
    const said = await run(`python3 /root/flows.py ${port} ${FLOWS} ${FLOW_BYTES}`, TRANSFER_MS);
    const later = [await sent(), await received()];
    const { key, table } = await indirection();
    const due: number[] = new Array(later[1]!.length).fill(0);
    const lines = said.split("\n").map((line) => line.split(" "));
    assert.equal(lines.length, FLOWS);
    for (const [number, local, sum] of lines) {
      assert.equal(sum, sha256(repeated(Number(number) ^ 0xffff)), `to the guest, flow ${number}`);
      assert.equal(arrived.get(Number(number)), sha256(repeated(Number(number))), `to the host, flow ${number}`);
      const input = Buffer.from([10, 0, 2, 2, 10, 0, 2, 15, port >> 8, port & 255, 0, 0]);
      input.writeUInt16BE(Number(local), 10);
      due[table[toeplitz(key, input) % table.length]!]! += FLOW_BYTES;
    }
    const [out, into] = [0, 1].map((way) => later[way]!.map((n, i) => n - (before[way]![i] ?? 0)));
    return { sent: out!, received: into!, due };
  };
  /** Connections that come and go by all queues until /tmp/enough is there. */
  const beBusy = async (): Promise<void> => {
    const port = await listening((socket) => {
      socket.resume().end(randomBytes(2 << 20));
    });
    const once = `timeout 2 bash -c "exec 3<>/dev/tcp/10.0.2.2/${port}; head -c 1000000 /dev/zero >&3; cat <&3 >/dev/null"`;
    await run(
      `rm -f /tmp/enough; for i in 1 2 3 4; do (until [ -e /tmp/enough ]; do ${once}; done) </dev/null >/dev/null 2>&1 & done`,
    );
  };
  const beIdle = (): Promise<string> =>
    run("touch /tmp/enough; while pgrep -f '[d]ev/tcp' >/dev/null; do sleep 0.1; done");
  /** What came is what was due, and headers, acknowledgements, and on the first queue what has no flow. */
  const assertSpread = ({ received: came, due }: { received: number[]; due: number[] }): void => {
    for (const [i, n] of came.entries()) {
      const more = n - due[i]!;
      const flowsThere = due[i]! / FLOW_BYTES;
      assert.ok(more >= 0 && more < 100_000 * (flowsThere + 1), `queue ${i}: ${came} for ${due}`);
    }
  };

  before(async () => {
    vm = await createVm({
      image: "debian:12-full",
      packages: NETWORK_PACKAGES,
      memoryMiB: 1024,
      network: { maxSubChannels: CHANNELS - 1 },
    });
    await vm.start();
    await run("systemctl is-system-running --wait", FULL_BOOT_MS);
  });
  after(() => vm?.kill());

  it("a driver that knows of one processor asks for none", async () => {
    assert.deepEqual([await opened(), await combined()], [1, 1]);
    assert.equal((await vm.network.status())!.channels, 1);
  });

  it("one that knows of more opens all that it is granted", async () => {
    await run("systemctl mask --runtime ifup@eth0.service; ifdown --force eth0");
    await loadDriver(vm, CHANNELS, folder);
    await run(ADDRESS);
    await vm.exec("cat >/root/flows.py", { stdin: FLOWS_SCRIPT, timeoutMs: COMMAND_MS });
    assert.deepEqual([await opened(), await combined()], [CHANNELS, CHANNELS]);
    const { channels, protocol } = (await vm.network.status())!;
    assert.deepEqual([channels, protocol], [CHANNELS, "6.1"]);
    assert.equal(await run("ls -d /sys/class/net/eth0/queues/rx-* | wc -l"), String(CHANNELS));
    const { table } = await indirection();
    assert.deepEqual(
      table,
      Array.from({ length: 128 }, (_, i) => i % CHANNELS),
    );
  });

  it("flows are spread over all queues, each to the one that the guest's key and table say", async () => {
    const went = await flows();
    assertSpread(went);
    for (const way of [went.sent, went.received])
      assert.ok(way.filter((n) => n > FLOW_BYTES).length >= CHANNELS - 2, JSON.stringify(went));
  });

  it("another table and another key are followed", async () => {
    await run("ethtool -X eth0 equal 3");
    const three = await flows();
    assertSpread(three);
    assert.deepEqual(
      three.due.map((n) => n > 0),
      Array.from({ length: CHANNELS }, (_, i) => i < 3),
    );
    await run(`ethtool -X eth0 equal ${CHANNELS} hkey ${randomBytes(40).toString("hex").match(/../g)!.join(":")}`);
    assertSpread(await flows());
    // with a table of its own, it does not give up queues that are in it
    await run("ethtool -X eth0 default");
  });

  it("connections go on while queues go and come", async () => {
    let done = false;
    const [there, back] = [createHash("sha256"), createHash("sha256")];
    let pieces = 0;
    const serve = async (socket: Socket): Promise<void> => {
      while (!done) {
        const piece = randomBytes(20_000);
        there.update(piece);
        if (!socket.write(piece)) await new Promise((resolve) => socket.once("drain", resolve));
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      socket.end();
    };
    const port = await listening((socket) => {
      socket.on("data", (bytes: Buffer) => {
        back.update(bytes);
        pieces++;
      });
      void serve(socket);
    });
    const echo = `import hashlib, socket
s = socket.create_connection(("10.0.2.2", ${port})); got = hashlib.sha256()
while True:
    piece = s.recv(65536)
    if not piece: break
    got.update(piece); s.sendall(piece)
s.shutdown(socket.SHUT_WR); print(got.hexdigest())`;
    await beBusy();
    const transfer = vm.exec("python3 -", { stdin: echo, timeoutMs: TRANSFER_MS });
    for (const count of [1, CHANNELS, 3, 1, 2, CHANNELS, 4, CHANNELS]) {
      await run(`ethtool -L eth0 combined ${count}`);
      await eventually(`${count} channels`, async () => ((await opened()) === count ? true : undefined));
      assert.equal(await combined(), count);
      assert.equal((await vm.network.status())!.channels, count);
      const before = pieces;
      await eventually("more to be on its way", () => pieces > before + 5 || undefined);
    }
    done = true;
    await beIdle();
    const sum = there.digest("hex");
    const { stdout, stderr } = await transfer;
    assert.equal(stdout.trim(), sum, stderr);
    assert.equal(back.digest("hex"), sum);
    assertSpread(await flows());
  });

  it("the driver is unloaded and loaded with them, and nothing is left over", async () => {
    await beBusy();
    for (let i = 0; i < RELOADS; i++) {
      const from = (await vm.network.status())!.receivedBytes;
      await eventually("traffic", async () => (await vm.network.status())!.receivedBytes > from + 100_000 || undefined);
      await run(`${RELOAD} && ${ADDRESS}`);
      assert.equal(await opened(), CHANNELS);
    }
    await beIdle();
    const s = (await vm.network.status())!;
    assert.equal(s.channels, CHANNELS);
    assert.equal(s.freeReceiveSections, s.receiveSections);
    assert.deepEqual([s.drops.malformed, s.drops.tooLong, s.drops.unfit], [0, 0, 0]);
    assertSpread(await flows());
    await assertDriverQuiet(vm);
  });
});
