/** The network of a real guest: hv_netvsc, its address, connections both ways, what it may reach. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { createVm } from "../../src/host/node/index.js";
import type { Vm } from "../../src/vm/index.js";
import { enlighten, startDebian } from "./guests.js";
import { assertQuiet, BOOT_MS, COMMAND_MS, PERL, sh, sha256, testFolder } from "./hyperv-guest.js";

const MIB = 1 << 20;
const GATEWAY = "10.0.2.2";
const HOST = "host.enlighten.internal";

/** A server on the host's loopback address. @returns its port */
async function listening(server: Server): Promise<number> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  after(() => server.close());
  return (server.address() as AddressInfo).port;
}
/** Gives `data` to who asks. */
const webServer = (data: Uint8Array): Promise<number> =>
  listening(createHttpServer((_request, response) => response.end(data)));
/** Hashes what each connection sends, and answers with that. */
const hashServer = (): Promise<number> =>
  listening(
    createServer({ allowHalfOpen: true }, (socket: Socket) => {
      const hash = createHash("sha256");
      socket.on("data", (d) => hash.update(d));
      socket.on("end", () => socket.end(hash.digest("hex")));
      socket.on("error", () => {});
    }),
  );
/** A port of the host that nobody has now. */
async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}
/** Everything that a server sends. */
async function readAll(port: number, send = ""): Promise<Buffer> {
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  socket.end(send);
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

describe("the network of a Debian guest", () => {
  let vm: Vm;
  const capture = join(testFolder("network"), "frames.pcapng");
  before(async () => {
    vm = await startDebian({ network: { pcap: capture, publish: ["0:80"] } });
  });
  after(() => vm?.kill());

  it("is there before the first command: driver, address, routes, name server", async () => {
    const found = await sh(
      vm,
      `cat /sys/class/net/eth0/address; basename $(readlink /sys/class/net/eth0/device/driver); cat /sys/class/net/eth0/carrier
ip -4 -o addr show eth0; ip -4 route; cat /etc/resolv.conf; ip -o addr show lo`,
      BOOT_MS,
    );
    assert.match(found, /^00:15:5d:..:..:..\nhv_netvsc\n1\n/);
    assert.match(found, /inet 10\.0\.2\.15\/24 /);
    assert.match(found, /default via 10\.0\.2\.2 dev eth0/);
    assert.match(found, /search enlighten\.internal\nnameserver 10\.0\.2\.3/);
    assert.match(found, /inet 127\.0\.0\.1\/8/);
    const lights = await vm.integration.waitForLights(["network"], { timeoutMs: COMMAND_MS });
    assert.ok(lights.services.includes("network"));
  });

  it("has an IPv6 address from the router", async () => {
    await sh(vm, "until ip -6 -o addr show eth0 scope global | grep -q 'inet6 fd65'; do sleep 0.1; done");
    assert.match(await sh(vm, "ip -6 route"), /default via fe80::/);
    assert.match(await sh(vm, "ping -c1 fd65:6e6c:6967:2::2"), /1 packets received/);
  });

  it("reaches the gateway and the name server by ping", async () => {
    for (const address of [GATEWAY, "10.0.2.3"])
      assert.match(await sh(vm, `ping -c1 ${address}`), /1 packets received/);
  });

  it("fetches from a server of the host, whole", async () => {
    const data = randomBytes(4 * MIB + 123);
    const port = await webServer(data);
    assert.match(await sh(vm, `wget -qO- http://${HOST}:${port}/ | sha256sum`), new RegExp(`^${sha256(data)} `));
  });

  it("sends to a server of the host, whole", async () => {
    const port = await hashServer();
    const script = `head -c ${3 * MIB + 77} /dev/urandom >/tmp/sent; nc ${GATEWAY} ${port} </tmp/sent; echo; sha256sum </tmp/sent`;
    const [said, own] = (await sh(vm, script)).split("\n");
    assert.equal(said, own?.split(" ")[0]);
  });

  it("is told when nobody listens", async () => {
    const r = await vm.exec(`nc ${GATEWAY} ${await freePort()} </dev/null`, { timeoutMs: COMMAND_MS });
    assert.notEqual(r.exitCode, 0);
    assert.match(r.stderr, /refused/i);
  });

  it("answers on a published port, and on another one that is published while it runs", async () => {
    const [first] = await vm.network.published();
    assert.match(first!.host, /^127\.0\.0\.1:\d+$/);
    const page = sha256(randomBytes(8));
    await sh(vm, `mkdir -p /tmp/www; echo ${page} >/tmp/www/index.html; httpd -p 80 -h /tmp/www`);
    const answer = await fetch(`http://127.0.0.1:${first!.hostPort}/`, { signal: AbortSignal.timeout(COMMAND_MS) });
    assert.equal((await answer.text()).trim(), page);

    const second = await vm.network.publish("0:8000");
    await sh(
      vm,
      `(nc -l -p 8000 -e sha256sum) </dev/null >/dev/null 2>&1 & until netstat -ltn | grep -q :8000; do sleep 0.05; done`,
    );
    const sent = "x".repeat(200_000);
    assert.match((await readAll(second.hostPort, sent)).toString(), new RegExp(`^${sha256(Buffer.from(sent))} `));
    assert.equal(await vm.network.unpublish(second), true);
    assert.equal(await vm.network.unpublish(second), false);
    await assert.rejects(readAll(second.hostPort), { code: "ECONNREFUSED" });
    assert.deepEqual(
      (await vm.network.published()).map((p) => p.id),
      [first!.id],
    );
  });

  it("exchanges datagrams with a program of the host, and by a published port", async () => {
    const echo = createSocket("udp4");
    echo.on("message", (bytes, from) =>
      echo.send(Buffer.concat([Buffer.from("host: "), bytes]), from.port, from.address),
    );
    echo.bind(0, "127.0.0.1");
    await once(echo, "listening");
    after(() => echo.close());
    const to = `pack("SnC4x8", 2, ${echo.address().port}, 10, 0, 2, 2)`;
    const ask = `socket(S, 2, 2, 0); send(S, "hello", 0, ${to}); recv(S, $answer, 100, 0); print $answer`;
    assert.equal(await sh(vm, `${PERL} -e '${ask}'`), "host: hello");

    const port = await vm.network.publish("0:7000/udp");
    assert.equal(port.protocol, "udp");
    const serve = `socket(S, 2, 2, 0); bind(S, pack("Snx12", 2, 7000)); while ($from = recv(S, $b, 2000, 0)) { send(S, "guest: $b", 0, $from) }`;
    await sh(
      vm,
      `${PERL} -e '${serve}' </dev/null >/dev/null 2>&1 & until netstat -lun | grep -q :7000; do sleep 0.05; done`,
    );
    const client = createSocket("udp4");
    after(() => client.close());
    client.send("x".repeat(1000), port.hostPort, "127.0.0.1");
    const [bytes] = (await once(client, "message", { signal: AbortSignal.timeout(COMMAND_MS) })) as [Buffer];
    assert.equal(bytes.toString(), `guest: ${"x".repeat(1000)}`);
    await vm.network.unpublish(port);
  });

  it("reaches the host over IPv6 too", async (t) => {
    const server = createHttpServer((_request, response) => response.end("six"));
    const isListening = new Promise<boolean>((resolve) => {
      server.once("listening", () => resolve(true)).once("error", () => resolve(false));
    });
    server.listen(0, "::1");
    after(() => server.close());
    if (!(await isListening)) return t.skip("this host has no IPv6");
    const { port } = server.address() as AddressInfo;
    assert.equal(await sh(vm, `wget -qO- http://[fd65:6e6c:6967:2::2]:${port}/`), "six");
  });

  it("says which port is in use, and what a port is", async () => {
    const taken = await webServer(Buffer.from("mine"));
    await assert.rejects(vm.network.publish(`${taken}:80`), (e: Error & { code: string; hint: string }) => {
      assert.equal(e.code, "port-in-use");
      assert.match(e.message, new RegExp(`127\\.0\\.0\\.1:${taken} is in use`));
      assert.match(e.hint, /another port/);
      return true;
    });
    await assert.rejects(vm.network.publish("eighty"), { code: "bad-option" });
  });

  it("tells what it does", async () => {
    const s = await vm.network.status();
    assert.equal(s?.protocol, "6.1");
    assert.ok(s.isReady && s.link && s.sentFrames > 100 && s.receivedFrames > 100, JSON.stringify(s));
    assert.ok(s.nat!.counters.tcpOpened! >= 3 && s.nat!.counters.dnsQueries! > 0, JSON.stringify(s.nat));
    assert.deepEqual(
      s.nat!.leases.map(({ address, hostName }) => [address, hostName]),
      [["10.0.2.15", "debian-12"]],
    );
  });

  it("keeps to an allow list", async () => {
    const port = await webServer(Buffer.from("open"));
    const other = await webServer(Buffer.from("closed"));
    await vm.network.setAllowed([`${HOST}:${port}`]);
    assert.equal(await sh(vm, `wget -qO- http://${HOST}:${port}/`), "open");
    const refused = await vm.exec(`nc ${GATEWAY} ${other} </dev/null; nslookup example.org 10.0.2.3`, {
      timeoutMs: COMMAND_MS,
    });
    assert.notEqual(refused.exitCode, 0);
    assert.match(refused.stdout + refused.stderr, /REFUSED/i);
    const { nat } = (await vm.network.status())!;
    assert.ok(nat!.counters.refused! >= 2);
    assert.deepEqual(nat!.refused.map(({ protocol, to }) => `${protocol} ${to}`).slice(0, 2), [
      `tcp ${GATEWAY}:${other}`,
      "dns example.org",
    ]);
    await assert.rejects(vm.network.setAllowed(["not a host"]), { code: "bad-option" });
    await vm.network.setAllowed(undefined);
    assert.equal(await sh(vm, `wget -qO- http://${HOST}:${other}/`), "closed");
  });

  it("comes back with its address after a reboot, and its ports still listen", async () => {
    const [port] = await vm.network.published();
    const rebooted = new Promise<void>((resolve) => {
      vm.onReboot(resolve);
    });
    vm.exec("reboot -f", { timeoutMs: COMMAND_MS }).catch(() => {});
    await rebooted;
    assert.match(await sh(vm, "ip -4 -o addr show eth0", BOOT_MS), /inet 10\.0\.2\.15\//);
    await sh(vm, "mkdir /tmp/www; echo again >/tmp/www/index.html; httpd -p 80 -h /tmp/www");
    const answer = await fetch(`http://127.0.0.1:${port!.hostPort}/`, { signal: AbortSignal.timeout(COMMAND_MS) });
    assert.equal(await answer.text(), "again\n");
    await assertQuiet(vm);
  });

  it("leaves a capture of its frames", async () => {
    await vm.kill();
    const bytes = readFileSync(capture);
    const types = new Map<number, number>();
    let at = 0;
    while (at < bytes.length) {
      const type = bytes.readUInt32LE(at);
      const length = bytes.readUInt32LE(at + 4);
      assert.equal(bytes.readUInt32LE(at + length - 4), length);
      types.set(type, (types.get(type) ?? 0) + 1);
      at += length;
    }
    assert.equal(at, bytes.length);
    assert.equal(bytes.readUInt32LE(0), 0x0a0d0d0a);
    assert.deepEqual([types.get(0x0a0d0d0a), types.get(1)], [1, 1]);
    // frames are as long as a segment with offloads may be
    assert.ok(types.get(6)! > 100, String(types.get(6)));
    assert.ok(bytes.length > 2 * MIB, String(bytes.length));
  });
});

it("a machine with an allow list from the start, and a saved one with a network: leases stay, connections do not", async () => {
  const data = randomBytes(MIB);
  const port = await webServer(data);
  const fetched = `wget -qO- http://${HOST}:${port}/ | sha256sum`;
  const network = { allow: [`${HOST}:${port}`] };
  await using vm = await startDebian({ memoryMiB: 128, network });
  assert.match(await sh(vm, fetched, BOOT_MS), new RegExp(`^${sha256(data)} `));
  // a connection that stands, and ends when its other end is gone
  await sh(
    vm,
    `(sleep 600 | nc ${GATEWAY} ${port}; echo $? >/tmp/ended) </dev/null >/dev/null 2>&1 & until netstat -tn | grep -q ESTABLISHED; do sleep 0.05; done`,
  );
  const mac = await sh(vm, "cat /sys/class/net/eth0/address");
  const state = await vm.save({ timeoutMs: 60_000 });
  assert.match(await sh(vm, fetched), new RegExp(`^${sha256(data)} `), "it goes on");
  await vm.kill();
  await using other = await createVm({ saved: state, network });
  await other.start();
  assert.match(await sh(other, fetched), new RegExp(`^${sha256(data)} `));
  assert.equal(await sh(other, "cat /sys/class/net/eth0/address"), mac);
  const leases = (await other.network.status())!.nat!.leases;
  assert.deepEqual(
    leases.map((l) => [l.address, l.mac]),
    [["10.0.2.15", mac]],
  );
  assert.match((await other.exec(`nc ${GATEWAY} ${await freePort()} </dev/null`)).stderr, /refused|reset/i);
});

it("pausing holds what comes for the guest", async () => {
  await using vm = await startDebian({ memoryMiB: 128, network: { publish: ["0:7"] } });
  await sh(
    vm,
    "(nc -ll -p 7 -e cat) </dev/null >/dev/null 2>&1 & until netstat -ltn | grep -q :7; do sleep 0.05; done",
    BOOT_MS,
  );
  const [port] = await vm.network.published();
  await vm.pause({ timeoutMs: 30_000 });
  const answer = readAll(port!.hostPort, "hello after the pause");
  let early = false;
  void answer.then(() => (early = vm.paused));
  await new Promise((resolve) => setTimeout(resolve, 300));
  vm.resume();
  assert.equal((await answer).toString(), "hello after the pause");
  assert.equal(early, false);
});

it("there is no adapter with --net none, and an unplugged one in a repeatable machine that asks for it", async () => {
  const none = await enlighten(["run", "debian:12", "-m", "128", "--net", "none", "--exec", "ls /sys/class/net"]);
  assert.deepEqual([none.code, none.stdout.toString().trim()], [0, "lo"]);
  await assert.rejects(createVm({ deterministic: 1, network: { mode: "nat" } }), { code: "bad-option" });
  await assert.rejects(createVm({ services: ["storage"], network: {} }), { code: "bad-option" });
  await assert.rejects(createVm({ network: { mac: "01:00:00:00:00:00" } }), { code: "bad-option" });
  const unplugged = await enlighten([
    ...["run", "debian:12", "-m", "128", "--deterministic", "--services", "network,shutdown"],
    ...["--exec", "ifconfig eth0 up; cat /sys/class/net/eth0/carrier"],
  ]);
  assert.deepEqual([unplugged.code, unplugged.stdout.toString().trim()], [0, "0"]);
});

it("the command line tells of its ports as events, and of mistakes before anything boots", async () => {
  const taken = await webServer(Buffer.from("mine"));
  const inUse = await enlighten(["run", "debian:12", "--publish", `${taken}:80`, "--exec", "true"]);
  assert.equal(inUse.code, 125);
  assert.match(inUse.stderr, new RegExp(`127\\.0\\.0\\.1:${taken} is in use\n {2}try: choose another port`));
  for (const [option, value, what] of [
    ["--publish", "nonsense", /PORT:GUEST-PORT/],
    ["--net", "bridge", /there are nat/],
    ["--net", "nat,allow=1.2.3", /cannot be allowed: 1\.2\.3/],
  ] as const) {
    const bad = await enlighten(["run", "debian:12", option, value]);
    assert.equal(bad.code, 2);
    assert.match(bad.stderr, what);
  }
  const run = await enlighten([
    "run",
    "debian:12",
    "-m",
    "128",
    "--json",
    "--publish",
    "0:80",
    "--exec",
    "cat /proc/net/dev",
  ]);
  assert.equal(run.code, 0);
  const events = run.stdout
    .toString()
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  const port = events.find((e) => e.event === "published");
  assert.match(String(port?.host), /^127\.0\.0\.1:\d+$/);
  assert.equal(port?.guest, "10.0.2.15:80");
});
