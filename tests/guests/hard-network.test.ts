/** A real guest's network where it is hard: frames lost, doubled, overtaken and spoilt; a thousand connections; slow readers. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { after, before, describe, it } from "node:test";
import type { Vm } from "../../src/vm/index.js";
import { startDebian } from "./guests.js";
import { assertQuiet, BOOT_MS, COMMAND_MS, eventually, PERL, sh, sha256 } from "./hyperv-guest.js";

const MIB = 1 << 20;
/** `S` is connected to a port of the host, in perl; its socket calls are the kernel's, without modules. */
const dial = (port: number, socket = "S"): string =>
  `socket(${socket}, 2, 1, 0) && connect(${socket}, pack("SnC4x8", 2, ${port}, 10, 0, 2, 2)) or die "$!"`;
const perl = (body: string): string => `${PERL} -e '${body}'`;
/** All that comes by `S` goes to standard output. */
const TAKE = "print $b while sysread(S, $b, 65536)";

/** A server on the host's loopback address. @returns its port */
async function listening(serve: (socket: Socket) => void, backlog = 511): Promise<number> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => {});
    serve(socket);
  });
  server.listen({ port: 0, host: "127.0.0.1", backlog });
  await once(server, "listening");
  after(() => server.close());
  return (server.address() as AddressInfo).port;
}
/** Answers the end of what it is sent with what `answer` makes of it. */
const answering = (answer: (all: Buffer) => string): Promise<number> =>
  listening((socket) => {
    const got: Buffer[] = [];
    socket.on("data", (bytes) => got.push(bytes));
    socket.on("end", () => socket.end(answer(Buffer.concat(got))));
  });

describe("a network that loses, doubles, reorders and spoils frames", () => {
  let vm: Vm;
  before(async () => {
    const impairments = { loss: 0.03, duplicate: 0.03, reorder: 0.1, reorderNs: 2e6, corrupt: 0.01 };
    vm = await startDebian({ network: { impairments } });
  });
  after(() => vm?.kill());

  it("brings 2 MB to the guest, whole", async () => {
    const data = randomBytes(2 * MIB);
    const port = await listening((socket) => socket.end(data));
    const got = await sh(vm, `${perl(`${dial(port)}; ${TAKE}`)} | sha256sum`, BOOT_MS);
    assert.match(got, new RegExp(`^${sha256(data)} `));
  });

  it("brings 2 MB to the host, whole", async () => {
    const port = await answering(sha256);
    const send = `${dial(port)}; while ($n = sysread(STDIN, $b, 65536)) { $o = 0; $o += syswrite(S, $b, $n - $o, $o) while $o < $n } shutdown(S, 1); ${TAKE}`;
    const said = await sh(
      vm,
      `head -c ${2 * MIB} /dev/urandom >/tmp/sent; ${perl(send)} </tmp/sent; echo; sha256sum </tmp/sent`,
      BOOT_MS,
    );
    const [host, guest] = said.split("\n");
    assert.equal(host, guest?.split(" ")[0]);
  });

  it("did go wrong, and the guest and the router saw it", async () => {
    // a connection is counted when nothing of it can come any more
    await eventually("the router's retransmissions", async () => {
      const { counters, dropped } = (await vm.network.status())!.nat!;
      return (counters.tcpRetransmissions! > 0 && dropped.checksum! > 0) || undefined;
    });
    // Tcp: … RetransSegs is the 12th number
    assert.ok(Number(await sh(vm, `awk '/^Tcp: [0-9]/ { print $13 }' /proc/net/snmp`)) > 0);
    await assertQuiet(vm);
  });
});

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
});
