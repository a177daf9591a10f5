/**
 * The network for each CPU second of the host: 50 MB to the guest and from it over one connection, in large pieces (perl) and by busybox's
 * nc, which sends 1 KiB at a time; and the round trip of a published port. With --qemu, the same commands in the same guest in QEMU (TCG,
 * virtio-net, its own user-mode network) after that, and the ratio. The servers are a process of their own, which is not counted.
 *
 * With --iperf3, Debian's iperf3 too, whose server is a process of its own as well. CPU time is that of the least round.
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { createVm } from "../src/host/node/index.js";
import { iperf, iperfFiles, iperfServer } from "./iperf.js";
import { readOptions } from "./options.js";
import { hasQemu, inQemu, type Used } from "./qemu-guest.js";

const HELP = `npm run bench -- network [options]

50 MB to a guest and from it over one connection, for each CPU second of this process, and the round trip of a published port.

      --qemu      the same in QEMU, and the ratio
      --iperf3    Debian's iperf3 too
      --json FILE all figures, for programs`;
const options = {
  json: { type: "string" },
  qemu: { type: "boolean", default: false },
  iperf3: { type: "boolean", default: false },
  // the servers' process
  serve: { type: "boolean", default: false },
} as const;
const { values } = readOptions(HELP, options);
const BYTES = 50 << 20;
const ROUNDS = 3;
const ROUND_TRIPS = 500;
const PERL = "/usr/lib/enlighten/perl";

interface Ports {
  readonly source: number;
  readonly sink: number;
}
async function listening(serve: (socket: Socket) => void): Promise<number> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => {});
    serve(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}
/** Who the guests talk to: one that sends, one that takes. */
async function serve(): Promise<never> {
  const piece = Buffer.alloc(1 << 20, 7);
  const source = await listening((socket) => {
    socket.resume();
    let sent = 0;
    const go = (): void => {
      while (sent < BYTES) {
        sent += piece.length;
        if (!socket.write(piece)) {
          socket.once("drain", go);
          return;
        }
      }
      socket.end();
    };
    go();
  });
  const sink = await listening((socket) => {
    socket.resume();
    socket.on("end", () => socket.end("."));
  });
  process.send!({ source, sink } satisfies Ports);
  await once(process, "disconnect");
  process.exit(0);
}
if (values.serve) await serve();
const server = fork(import.meta.filename, ["--serve"]);
const [{ source, sink }] = (await once(server, "message")) as [Ports];

const inPerl = (port: number, body: string): string =>
  `${PERL} -e 'socket(S, 2, 1, 0); connect(S, pack("SnC4x8", 2, ${port}, 10, 0, 2, 2)) or die "$!"; ${body}'`;
const take = `$n += $r while ($r = sysread(S, $b, 262144)) > 0; die "$n bytes" unless $n == ${BYTES}`;
const give = `$b = "x" x 262144; for (1 .. ${BYTES / 262144}) { $o = 0; $o += syswrite(S, $b, 262144 - $o, $o) while $o < 262144 } shutdown(S, 1); sysread(S, $b, 1) == 1 or die`;
const TESTS = [
  ["host to guest, perl", inPerl(source, take)],
  ["guest to host, perl", inPerl(sink, give)],
  ["host to guest, nc", `nc 10.0.2.2 ${source} </dev/null >/dev/null`],
  ["guest to host, nc", `dd if=/dev/zero bs=64k count=${BYTES >> 16} 2>/dev/null | nc 10.0.2.2 ${sink} >/dev/null`],
] as const;

let tests: readonly (readonly [name: string, script: string])[] = TESTS;
const folder = await mkdtemp(join(tmpdir(), "enlighten-network-"));
const files = values.iperf3 ? await iperfFiles() : undefined;
const iperfAtHost = files === undefined ? undefined : await iperfServer(folder, files);
if (iperfAtHost !== undefined) {
  const run = iperf("/bench", `-c 10.0.2.2 -p ${iperfAtHost.port} -n ${BYTES}`);
  tests = [...TESTS, ["host to guest, iperf3", `${run} -R >/dev/null`], ["guest to host, iperf3", `${run} >/dev/null`]];
}

const cpu = (): number => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};
const median = (list: readonly number[]): number => [...list].sort((a, b) => a - b)[list.length >> 1]!;
interface Row {
  readonly mbPerCpuSecond: number;
  readonly mbPerSecond: number;
}
const rowOf = (rounds: readonly Used[]): Row => ({
  mbPerCpuSecond: BYTES / 1e6 / Math.min(...rounds.map((r) => r.cpuSeconds)),
  mbPerSecond: BYTES / 1e6 / Math.min(...rounds.map((r) => r.seconds)),
});
const rows: Record<string, Row & { readonly qemu?: Row; readonly ratio?: number }> = {};

const vm = await createVm({ image: "debian:12", network: { publish: ["0:7"] } });
await vm.start();
await vm.exec("true");
if (files !== undefined) await vm.copyIn(folder, "/bench");
for (const [name, script] of tests) {
  const rounds: Used[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const from = performance.now();
    const before = cpu();
    const { exitCode, stderr } = await vm.exec(script);
    if (exitCode !== 0) throw new Error(`${name}: ${stderr}`);
    rounds.push({ cpuSeconds: cpu() - before, seconds: (performance.now() - from) / 1e3 });
  }
  const row = rowOf(rounds);
  rows[name] = row;
  console.log(`${name.padEnd(22)} ${row.mbPerCpuSecond.toFixed(1)} MB/CPU s, ${row.mbPerSecond.toFixed(1)} MB/s`);
}

const [port] = await vm.network.published();
await vm.exec("(nc -ll -p 7 -e cat) </dev/null >/dev/null 2>&1 & until netstat -ltn | grep -q :7; do sleep 0.1; done");
const client = connect(port!.hostPort, "127.0.0.1").setNoDelay(true);
const times: number[] = [];
for (let i = 0; i < ROUND_TRIPS; i++) {
  const from = performance.now();
  client.write("x");
  await once(client, "data");
  times.push(performance.now() - from);
}
client.destroy();
const roundTripUs = median(times) * 1e3;
console.log(`${"round trip".padEnd(22)} ${roundTripUs.toFixed(0)} us (median of ${ROUND_TRIPS})`);
await vm.kill();

if (values.qemu && !hasQemu()) console.error("there is no qemu-system-x86_64 (apt install qemu-system-x86)");
else if (values.qemu) {
  const used = await inQemu({
    modules: ["failover", "net_failover", "virtio_net"],
    devices: ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net"],
    prepare: ["ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up"],
    tests: tests.map(([, script]) => script),
    ...(files === undefined ? {} : { files }),
    rounds: ROUNDS,
  });
  for (const [i, [name]] of tests.entries()) {
    const qemu = rowOf(used[i]!);
    const ratio = rows[name]!.mbPerCpuSecond / qemu.mbPerCpuSecond;
    rows[name] = { ...rows[name]!, qemu, ratio };
    console.log(
      `${name.padEnd(22)} QEMU ${qemu.mbPerCpuSecond.toFixed(1)} MB/CPU s, ${qemu.mbPerSecond.toFixed(1)} MB/s; ${ratio.toFixed(2)} times that here`,
    );
  }
}
server.disconnect();
iperfAtHost?.child.kill();
await rm(folder, { recursive: true });
if (values.json !== undefined)
  await writeFile(values.json, `${JSON.stringify({ throughput: rows, roundTripUs }, undefined, 2)}\n`);
process.exit(0);
