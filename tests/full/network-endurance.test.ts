/**
 * A guest's network for long: 10 GiB through one connection each way, every byte compared (GIB=n for as many), and machines that are reset
 * while they transfer. Drivers that come and go are in tests/guests/modules.test.ts (200 times with ENLIGHTEN_LONG=1).
 *
 *   ENLIGHTEN_LONG=1 node --test dist/tests/full/network-endurance.test.js
 */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import type { Socket } from "node:net";
import { after, before, describe, it, type TestContext } from "node:test";
import type { Vm } from "../../src/vm/index.js";
import { startDebian } from "../guests/guests.js";
import { assertQuiet, BOOT_MS, eventually, sh, sha256 } from "../guests/hyperv-guest.js";
import { dial, listening, perl, TAKE } from "../guests/socket-scripts.js";

const skip = process.env.ENLIGHTEN_LONG === "1" ? false : "takes minutes: set ENLIGHTEN_LONG=1";
const MIB = 1 << 20;
const GIB = 1 << 30;
/** Each way. */
const BLOCKS = (Number(process.env.GIB ?? 10) * GIB) / 2 / MIB;
const TRANSFER_MS = 3_600_000;
const GROWTH = 64 * MIB;
const RESETS = 10;

/** A block is its number, and a megabyte's rest by chance that is the same in all. */
const COUNTER_BYTES = 8;
const REST = randomBytes(MIB - COUNTER_BYTES);
const counter = (n: number): Buffer => {
  const out = Buffer.alloc(COUNTER_BYTES);
  out.writeBigUInt64BE(BigInt(n));
  return out;
};
/** What comes is compared with what has to come. */
class Comparison {
  readonly #expected = Buffer.concat([counter(0), REST]);
  #at = 0;
  blocks = 0;

  take(piece: Buffer): void {
    for (let at = 0; at < piece.length; ) {
      const n = Math.min(piece.length - at, MIB - this.#at);
      if (piece.compare(this.#expected, this.#at, this.#at + n, at, at + n) !== 0)
        throw new Error(`block ${this.blocks} is another from byte ${this.#at} to ${this.#at + n}`);
      at += n;
      this.#at = (this.#at + n) % MIB;
      if (this.#at === 0) this.#expected.set(counter(++this.blocks));
    }
  }
}
/** The resident memory of this process at each hundredth of the way: in the last third it is what it was in the first. */
class Memory {
  readonly #samples: number[] = [];
  readonly #t: TestContext;
  readonly #startedAt = performance.now();
  constructor(t: TestContext) {
    this.#t = t;
  }
  at(block: number): void {
    if (block % Math.ceil(BLOCKS / 100) !== 0) return;
    this.#samples.push(process.memoryUsage.rss());
    if (this.#samples.length % 10 !== 0) return;
    const seconds = (performance.now() - this.#startedAt) / 1000;
    const resident = Math.round(this.#samples.at(-1)! / MIB);
    this.#t.diagnostic(`${block} MiB, ${(block / seconds).toFixed(1)} MiB/s, resident ${resident} MiB`);
  }
  assertFlat(): void {
    const third = Math.floor(this.#samples.length / 3);
    const mean = (samples: readonly number[]): number => samples.reduce((sum, n) => sum + n, 0) / samples.length;
    const growth = mean(this.#samples.slice(-third)) - mean(this.#samples.slice(0, third));
    this.#t.diagnostic(`resident memory grew by ${(growth / MIB).toFixed(1)} MiB`);
    assert.ok(growth < GROWTH, `resident memory grew by ${growth} bytes`);
  }
}

describe(`${(2 * BLOCKS) / 1024} GiB of a guest's network`, { skip, timeout: 3 * TRANSFER_MS }, () => {
  let vm: Vm;
  before(async () => {
    vm = await startDebian();
    // the guest's memory is all touched once, so that it is no growth later
    await sh(vm, "head -c 160m /dev/zero >/tmp/fill; rm /tmp/fill", BOOT_MS);
    await vm.exec("cat >/tmp/rest", { stdin: REST, timeoutMs: BOOT_MS });
  });
  after(() => vm?.kill());
  const REST_OF_BLOCK = 'open F, "/tmp/rest"; read F, $rest, 1 << 20';

  it("to the guest", async (t) => {
    const memory = new Memory(t);
    const give = async (socket: Socket): Promise<void> => {
      for (let i = 0; i < BLOCKS; i++) {
        memory.at(i);
        socket.write(counter(i));
        if (!socket.write(REST)) await once(socket, "drain");
      }
      socket.end();
    };
    const port = await listening((socket) => void give(socket));
    const take = `$want = 1 << 20; for ($i = 0; ; $i++) { $l = 0; while ($l < $want) { $n = sysread(S, $b, $want - $l, $l); defined $n or die "$!"; $n or last; $l += $n } $l or last; substr($b, 0, 8) eq pack("Q>", $i) && $l == $want && substr($b, 8) eq $rest or die "block $i" } print $i`;
    assert.equal(await sh(vm, perl(`${REST_OF_BLOCK}; ${dial(port)}; ${take}`), TRANSFER_MS), String(BLOCKS));
    memory.assertFlat();
  });

  it("from the guest", async (t) => {
    const memory = new Memory(t);
    const comparison = new Comparison();
    let seen = 0;
    let take: (socket: Socket) => void = () => {};
    const taken = new Promise<void>((resolve, reject) => {
      take = (socket) => {
        socket.on("data", (piece: Buffer) => {
          try {
            comparison.take(piece);
          } catch (error) {
            reject(error);
            socket.destroy();
          }
          for (; seen < comparison.blocks; seen++) memory.at(seen);
        });
        socket.on("end", () => {
          socket.end();
          resolve();
        });
      };
    });
    const port = await listening((socket) => take(socket));
    const give = `for $i (0 .. ${BLOCKS - 1}) { $b = pack("Q>", $i) . $rest; $o = 0; while ($o < length $b) { $n = syswrite(S, $b, length($b) - $o, $o) or die "$!"; $o += $n } }`;
    await Promise.all([sh(vm, perl(`${REST_OF_BLOCK}; ${dial(port)}; ${give}`), TRANSFER_MS), taken]);
    assert.equal(comparison.blocks, BLOCKS);
    memory.assertFlat();
  });

  it("is all that went, and nobody complains", async () => {
    const { sentBytes, receivedBytes, drops } = (await vm.network.status())!;
    assert.ok(sentBytes > BLOCKS * MIB && receivedBytes > BLOCKS * MIB, `${sentBytes} ${receivedBytes}`);
    assert.deepEqual([drops.malformed, drops.tooLong, drops.unfit], [0, 0, 0]);
    await assertQuiet(vm);
  });
});

it(`a machine that is reset ${RESETS} times while it transfers has its network again each time`, {
  skip,
  timeout: TRANSFER_MS,
}, async () => {
  const data = randomBytes(2 * MIB);
  const port = await listening((socket) => {
    socket.resume().end(data);
  });
  await using vm = await startDebian({ network: { publish: ["0:80"] } });
  const [published] = await vm.network.published();
  const fetched = `${perl(`${dial(port)}; ${TAKE}`)} | sha256sum`;
  for (let i = 0; i <= RESETS; i++) {
    assert.match(await sh(vm, fetched, BOOT_MS), new RegExp(`^${sha256(data)} `));
    assert.match(await sh(vm, "ip -4 -o addr show eth0"), /inet 10\.0\.2\.15\//);
    await sh(vm, `mkdir -p /tmp/www; echo ${i} >/tmp/www/index.html; httpd -p 80 -h /tmp/www`);
    const answer = await fetch(`http://${published!.host}/`, { signal: AbortSignal.timeout(BOOT_MS) });
    assert.equal((await answer.text()).trim(), String(i));
    await assertQuiet(vm);
    if (i === RESETS) break;
    await sh(vm, `for i in 1 2 3; do (while :; do ${fetched}; done) </dev/null >/dev/null 2>&1 & done`);
    await eventually("traffic", async () => (await vm.network.status())!.receivedBytes > 8 * data.length || undefined);
    const rebooted = new Promise<void>((resolve) => {
      vm.onReboot(resolve);
    });
    // no driver is told: the kernel resets the machine as it stands
    vm.exec("echo 1 >/proc/sys/kernel/sysrq; echo b >/proc/sysrq-trigger", { timeoutMs: BOOT_MS }).catch(() => {});
    await rebooted;
  }
  const { channels } = await vm.integration.status();
  assert.ok(
    channels.every(({ state }) => state === "open"),
    JSON.stringify(channels),
  );
});
