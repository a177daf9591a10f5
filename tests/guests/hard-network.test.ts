/** A real guest's network where it is hard: a thousand connections, slow readers, an adapter that goes and comes. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { after, before, describe, it } from "node:test";
import type { Vm } from "../../src/vm/index.js";
import { startDebian } from "./guests.js";
import { assertQuiet, BOOT_MS, COMMAND_MS, eventually, sh, sha256 } from "./hyperv-guest.js";
import { dial, listening, perl, TAKE } from "./socket-scripts.js";

const MIB = 1 << 20;
const GATEWAY = "10.0.2.2";
describe("a network with a lot to do", () => {
  let vm: Vm;
  before(async () => {
    vm = await startDebian({ network: { publish: ["0:7"] } });
    await sh(vm, "true", BOOT_MS);
  });
  after(() => vm?.kill());
  /** Connections that are at rest on both sides. */
  const assertIdle = (): Promise<true> =>
    eventually("connections to be gone", async () => {
      const { flows } = (await vm.network.status())!.nat!;
      return flows.every((f) => f.protocol !== "tcp") || undefined;
    });

  it("has 1,000 connections from the guest at once, each with its own bytes", async () => {
    const COUNT = 1000;
    const waiting: (() => void)[] = [];
    const port = await listening((socket) => {
      let got = "";
      socket.on("data", (bytes) => {
        got += bytes;
      });
      // nobody is answered before all are there
      socket.on("end", () => {
        waiting.push(() => socket.end(`<${got}>`));
        if (waiting.length === COUNT) for (const answer of waiting) answer();
      });
    });
    const body = `for $i (1 .. ${COUNT}) { ${dial(port, "$s[$i]")}; syswrite($s[$i], "number $i"); shutdown($s[$i], 1) }
for $i (1 .. ${COUNT}) { $a = ""; 1 while sysread($s[$i], $a, 100, length $a); $a eq "<number $i>" or die "$i: $a"; $n++ } print $n`;
    assert.equal(await sh(vm, `ulimit -n 2000; ${perl(body)}`), String(COUNT));
    await assertIdle();
  });

  it("has 200 connections to the guest at once, each with its own bytes", async () => {
    const COUNT = 200;
    const body = `socket(L, 2, 1, 0); bind(L, pack("Snx12", 2, 7)) && listen(L, 256) or die "$!";
for $i (1 .. ${COUNT}) { accept($s[$i], L) or die "$!" }
for $i (1 .. ${COUNT}) { $a = ""; 1 while sysread($s[$i], $a, 100, length $a); syswrite($s[$i], "<$a>"); close($s[$i]) }`;
    await sh(vm, `(${perl(body)}) </dev/null >/dev/null 2>&1 & until netstat -ltn | grep -q :7; do sleep 0.05; done`);
    const [published] = await vm.network.published();
    const ask = async (i: number): Promise<string> => {
      const socket = connect({ port: published!.hostPort, host: "127.0.0.1", allowHalfOpen: true });
      socket.end(`number ${i}`);
      let got = "";
      for await (const bytes of socket) got += bytes;
      return got;
    };
    const answers = await Promise.all(Array.from({ length: COUNT }, (_, i) => ask(i)));
    assert.deepEqual(
      answers,
      Array.from({ length: COUNT }, (_, i) => `<number ${i}>`),
    );
    await assertIdle();
  });

  it("has a refusal at once where nobody listens, and no connection left of it", async () => {
    const { tcpFailed } = (await vm.network.status())!.nat!.counters;
    const dead = await new Promise<number>((resolve) => {
      const server = createServer().listen(0, "127.0.0.1", () => {
        const { port: free } = server.address() as AddressInfo;
        server.close(() => resolve(free));
      });
    });
    // ECONNREFUSED, and not the timeout of a connection that is not answered
    const body = `socket(S, 2, 1, 0); connect(S, pack("SnC4x8", 2, ${dead}, 10, 0, 2, 2)) and die; print $!+0`;
    assert.equal(await sh(vm, perl(body)), "111");
    assert.equal((await vm.network.status())!.nat!.counters.tcpFailed! - tcpFailed!, 1);
    await assertIdle();
  });

  it("waits for a slow reader on either side, and keeps little meanwhile", async () => {
    const data = randomBytes(24 * MIB);
    let source: Socket | undefined;
    const from = await listening((socket) => {
      source = socket;
      socket.end(data);
    });
    const slow = `${dial(from)}; for (1 .. 20) { sysread(S, $b, 3000); print $b; select(undef, undef, undef, 0.02) } ${TAKE}`;
    const reading = sh(vm, `${perl(slow)} | sha256sum`);
    const written = await eventually("the source to wait", () =>
      source !== undefined && source.bytesWritten > 0 ? source.bytesWritten - source.writableLength : undefined,
    );
    assert.ok(written < data.length, String(written));
    assert.match(await reading, new RegExp(`^${sha256(data)} `));

    const hash = createHash("sha256");
    let sink: Socket | undefined;
    const to = await listening((socket) => {
      sink = socket.pause();
      socket.on("end", () => socket.end(hash.digest("hex")));
    });
    const give = `${dial(to)}; $b = join "", map { pack "N", $_ } 1 .. 1 << 18; for (1 .. 24) { $o = 0; $o += syswrite(S, $b, length($b) - $o, $o) while $o < length $b } shutdown(S, 1); ${TAKE}`;
    const giving = sh(vm, perl(give));
    const queued = await eventually("the guest to wait", async () => {
      const { receivedBytes, sentBytes } = (await vm.network.status())!;
      await new Promise((resolve) => setTimeout(resolve, 200));
      const later = (await vm.network.status())!.sentBytes;
      return sink !== undefined && later === sentBytes && receivedBytes > 0 ? sentBytes : undefined;
    });
    assert.ok(queued > 0);
    sink!.on("data", (bytes) => hash.update(bytes)).resume();
    const sent = Buffer.alloc(MIB);
    for (let i = 0; i < MIB / 4; i++) sent.writeUInt32BE(i + 1, 4 * i);
    const expected = createHash("sha256");
    for (let i = 0; i < 24; i++) expected.update(sent);
    assert.equal(await giving, expected.digest("hex"));
    await assertIdle();
  });

  it("goes on with its transfers while the adapter has another MTU, again and again", async () => {
    let done = false;
    const [there, back] = [createHash("sha256"), createHash("sha256")];
    let pieces = 0;
    const port = await listening((socket) => {
      const go = async (): Promise<void> => {
        while (!done) {
          const piece = randomBytes(20_000);
          there.update(piece);
          pieces++;
          if (!socket.write(piece)) await once(socket, "drain");
          await new Promise((resolve) => setTimeout(resolve, 5));
        }
        socket.end();
      };
      void go();
      socket.on("data", (bytes) => back.update(bytes));
    });
    // an echo: what comes goes back
    const echo = `${dial(port)}; while ($n = sysread(S, $b, 65536)) { print $b; $o = 0; $o += syswrite(S, $b, $n - $o, $o) while $o < $n } shutdown(S, 1)`;
    const transfer = sh(vm, `${perl(echo)} | sha256sum`);
    for (const mtu of [1400, 9000, 576, 1280, 1500]) {
      const before = pieces;
      await sh(vm, `ifconfig eth0 mtu ${mtu}`);
      await eventually("more to be on its way", () => pieces > before + 3 || undefined);
    }
    done = true;
    const [sum] = (await transfer).split(" ");
    assert.equal(sum, there.digest("hex"));
    await assertIdle();
    assert.equal(back.digest("hex"), sum);
    const { drops } = (await vm.network.status({ timeoutMs: COMMAND_MS }))!;
    assert.deepEqual([drops.malformed, drops.unfit], [0, 0]);
    await assertQuiet(vm);
  });

  it("has a cable that is taken out and put in: the guest sees it, and a connection goes on", async () => {
    const [first, second] = [randomBytes(MIB), randomBytes(MIB)];
    let source: Socket | undefined;
    const port = await listening((socket) => {
      source = socket;
      socket.write(first);
    });
    const transfer = sh(vm, `${perl(`${dial(port)}; ${TAKE}`)} | tee /tmp/got | sha256sum`);
    await sh(vm, `until [ -f /tmp/got ] && [ $(wc -c </tmp/got) -eq ${MIB} ]; do sleep 0.05; done`);
    const carrier = (is: number): Promise<string> =>
      sh(vm, `until [ $(cat /sys/class/net/eth0/carrier) = ${is} ]; do sleep 0.05; done`);
    await vm.network.setLink(false);
    await carrier(0);
    assert.equal((await vm.network.status())!.link, false);
    source!.end(second);
    const { exitCode } = await vm.exec(`ping -c1 -W1 ${GATEWAY}`, { timeoutMs: COMMAND_MS });
    assert.notEqual(exitCode, 0);
    await vm.network.setLink(true);
    await carrier(1);
    assert.match(await transfer, new RegExp(`^${sha256(Buffer.concat([first, second]))} `));
    assert.equal((await vm.network.status())!.link, true);
    await sh(vm, `ping -c1 ${GATEWAY}`);
  });

  it("is there again after the adapter was taken down or unbound under traffic, and nothing is left over", async () => {
    const ROUNDS = 5;
    const data = randomBytes(2 * MIB);
    const port = await listening((socket) => socket.end(data));
    const fetched = `timeout 30 ${perl(`${dial(port)}; ${TAKE}`)} | sha256sum | grep -q ${sha256(data)}`;
    const atRest = async (): Promise<string> => {
      await assertIdle();
      const channels = (await vm.integration.status()).channels.filter((c) => c.name !== "socket");
      const { channels: ofNetwork, mtu } = (await vm.network.status())!;
      return JSON.stringify([channels.map((c) => c.state), ofNetwork, mtu]);
    };
    const before = await atRest();
    await sh(
      vm,
      `rm -f /tmp/enough; for i in 1 2; do (while [ ! -e /tmp/enough ]; do timeout 1 nc ${GATEWAY} ${port} </dev/null; done) </dev/null >/dev/null 2>&1 & done`,
    );
    // a round begins when there is traffic: frames that came meanwhile
    await sh(
      vm,
      `frames() { cat /sys/class/net/eth0/statistics/rx_packets; }
busy() { from=$(frames); until [ $(frames) -gt $((from + 20)) ]; do sleep 0.02; done; }
device=$(basename $(readlink -f /sys/class/net/eth0/device))
cd /sys/bus/vmbus/drivers/hv_netvsc
i=0; while [ $i -lt ${ROUNDS} ]; do
  busy
  ifconfig eth0 down || exit 1
  ifconfig eth0 up || exit 2
  ${fetched} || exit 3
  busy
  echo $device >unbind || exit 4
  [ -e /sys/class/net/eth0 ] && exit 5
  echo $device >bind || exit 6
  udhcpc -i eth0 -n -q -t 5 -T 1 >/dev/null 2>&1 || exit 7
  ${fetched} || exit 8
  i=$((i+1))
done
touch /tmp/enough`,
      120_000,
    );
    assert.equal(await atRest(), before);
    const s = (await vm.network.status())!;
    assert.equal(s.freeReceiveSections, s.receiveSections);
    assert.deepEqual([s.drops.malformed, s.drops.tooLong, s.drops.unfit], [0, 0, 0]);
    await assertQuiet(vm);
  });
});
