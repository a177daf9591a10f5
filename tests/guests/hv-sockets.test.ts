/** Hyper-V sockets against Debian's hv_sock: streams both ways, slow readers, half-open ends, refusals, and nothing left over. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, afterEach, before, describe, it } from "node:test";
import { type GuestProcess, type GuestSocket, type Vm, VmError } from "../../src/vm/index.js";
import { startDebian } from "./guests.js";
import { assertQuiet, BOOT_MS, eventually, sh, sha256 } from "./hyperv-guest.js";
import { installPeer, listener, nothingLeft, PEER, send, sourceBytes } from "./socket-peer.js";

const MIB = 1 << 20;
/** MiB each way. */
const SIZE = process.env.ENLIGHTEN_LONG ? 1024 : 64;

describe("Hyper-V sockets", { timeout: 1_200_000 }, () => {
  let vm: Vm;
  const children: GuestProcess[] = [];
  const serve = async (what: string, port: number, ...rest: string[]): Promise<void> => {
    children.push(await listener(vm, what, port, ...rest));
  };
  const connect = (port: number): Promise<GuestSocket> => vm.integration.connect(port, { timeoutMs: 30_000 });
  before(async () => {
    vm = await startDebian();
    await sh(vm, "true", BOOT_MS);
    await installPeer(vm);
  });
  after(() => vm?.kill());
  afterEach(async () => {
    for (const child of children.splice(0)) {
      child.kill("SIGKILL");
      await child.exited;
    }
  });

  it(`carry ${SIZE} MiB to the guest and back`, async () => {
    await serve("echo", 7000);
    await using socket = await connect(7000);
    const piece = randomBytes(MIB);
    let received = 0;
    let pending: Uint8Array | undefined;
    const reading = (async () => {
      for (let n = 0; n < SIZE; n++) {
        const back = Buffer.alloc(MIB);
        for (let at = 0; at < MIB; ) {
          const part = pending ?? (await socket.read());
          assert.ok(part !== undefined, `the end after ${received} bytes`);
          const take = Math.min(part.length, MIB - at);
          back.set(part.subarray(0, take), at);
          pending = take < part.length ? part.subarray(take) : undefined;
          at += take;
          received += take;
        }
        // each piece begins with its number
        assert.equal(back.readUInt32LE(0), n);
        assert.equal(back.compare(piece, 4, MIB, 4, MIB), 0, `piece ${n}`);
      }
      assert.equal(await socket.read(), undefined);
    })();
    for (let n = 0; n < SIZE; n++) {
      piece.writeUInt32LE(n);
      await socket.write(piece);
    }
    socket.end();
    await reading;
    await socket.finished();
  });

  it("go the other way round: the guest connects", async () => {
    const bytes = randomBytes(2 * MIB);
    const answered = new Promise<Uint8Array>((resolve, reject) => {
      const off = vm.integration.listen(7001, (socket) => {
        off();
        Promise.all([send(socket, bytes), socket.readAll()]).then(([, back]) => resolve(back), reject);
      });
    });
    await sh(vm, `${PEER} connect 7001`);
    assert.equal(sha256(await answered), sha256(bytes));
  });

  it("are a hundred streams at once", async () => {
    await serve("echo", 7002);
    await Promise.all(
      Array.from({ length: 100 }, async () => {
        const bytes = randomBytes(100_000 + Math.floor(Math.random() * 5000));
        const socket = await vm.integration.connect(7002, { timeoutMs: 120_000 });
        const [, back] = await Promise.all([send(socket, bytes), socket.readAll()]);
        assert.equal(sha256(back), sha256(bytes));
        await socket.finished();
      }),
    );
    await nothingLeft(vm, children.length);
  });

  it("make the guest's writer wait for a slow reader on the host", async () => {
    const blocks = 256;
    await serve("source", 7003, String(blocks), "/run/sent");
    await using socket = await connect(7003);
    const sent = async (): Promise<number> => Number(await sh(vm, "cat /run/sent 2>/dev/null || echo 0"));
    let last = -1;
    let same = 0;
    const stopped = await eventually("the writer to stand still", async () => {
      const now = await sent();
      same = now === last && now > 0 ? same + 1 : 0;
      last = now;
      return same >= 10 ? now : undefined;
    });
    // what is on its way: a MiB for the reader, the rings, and one write
    assert.ok(stopped < 3 * MIB, `${stopped} bytes were taken from the guest that nobody has read`);
    const all = await socket.readAll();
    assert.equal(sha256(all), sha256(sourceBytes(blocks)));
    assert.equal(await sent(), blocks * 65536);
  });

  it("make the host's writer wait for a slow reader in the guest", async () => {
    await sh(vm, "rm -f /run/go");
    await serve("sink", 7004, "/run/go", "/tmp/sunk");
    await using socket = await connect(7004);
    const bytes = randomBytes(8 * MIB);
    let written = 0;
    const writing = (async () => {
      for (let at = 0; at < bytes.length; at += 65536) {
        await socket.write(bytes.subarray(at, at + 65536));
        written = at + 65536;
      }
      socket.end();
    })();
    let last = -1;
    let same = 0;
    await eventually("the writer to stand still", async () => {
      // a command is some thirty messages: time enough for more to be taken
      await sh(vm, "true");
      same = written === last ? same + 1 : 0;
      last = written;
      return same >= 10 ? true : undefined;
    });
    assert.ok(written < 3 * MIB, `${written} bytes wait for a guest that reads nothing`);
    await sh(vm, ">/run/go");
    await writing;
    assert.equal(Buffer.from(await socket.readAll()).toString(), "taken");
    assert.equal((await sh(vm, "sha256sum </tmp/sunk; rm /tmp/sunk")).split(" ")[0], sha256(bytes));
  });

  it("can be half open, by either end", async () => {
    await serve("count", 7005);
    const socket = await connect(7005);
    await send(socket, new Uint8Array(100_001));
    const answer = Buffer.from(await socket.readAll());
    assert.equal(answer.subarray(MIB).toString(), "100001");
    assert.equal(sha256(answer.subarray(0, MIB)), sha256(sourceBytes(16)));
    await socket.finished();

    const asked = new Promise<Uint8Array>((resolve, reject) => {
      const off = vm.integration.listen(7006, (peer) => {
        off();
        peer
          .readAll()
          .then(async (question) => {
            // the guest has ended its direction, and still reads
            await send(peer, new Uint8Array(3 * MIB + 1));
            return question;
          })
          .then(resolve, reject);
      });
    });
    assert.equal(await sh(vm, `${PEER} ask 7006`), `answer of ${3 * MIB + 1}`);
    assert.equal(sha256(await asked), sha256(sourceBytes(16)));
  });

  it("are refused where nobody listens", async () => {
    await assert.rejects(
      vm.integration.connect(7999, { timeoutMs: 30_000 }),
      (e: unknown) => e instanceof VmError && e.code === "refused",
    );
    const r = await vm.exec(`${PEER} connect 7998`, { timeoutMs: 60_000 });
    const [, error, after] = /^error (\d+) after ([\d.]+)\n$/.exec(r.stdout) ?? [];
    // ETIMEDOUT: Linux has no other way to hear of it
    assert.equal(error, "110", r.stdout + r.stderr);
    assert.ok(Number(after) >= 1.9 && Number(after) < 10, `after ${after} s`);
    await nothingLeft(vm, children.length);
  });

  it("break when the program in the guest is killed, and when the host destroys them", async () => {
    await serve("sink", 7007, "/run/never", "/dev/null");
    const socket = await connect(7007);
    await sh(vm, "kill -9 $(pidof perl | tr ' ' '\\n' | sort -n | tail -1)");
    const end = await Promise.race([
      socket.read().then(
        () => "end",
        () => "reset",
      ),
      socket.finished().then(
        () => "end",
        () => "reset",
      ),
    ]);
    assert.match(end, /end|reset/);
    socket.destroy();
    await serve("echo", 7008);
    const other = await connect(7008);
    await other.write("x");
    assert.equal(Buffer.from((await other.read())!).toString(), "x");
    other.destroy();
    await nothingLeft(vm, children.length);
  });

  it("leave nothing behind after 200 short connections", async () => {
    await serve("echo", 7009);
    const one = async (i: number): Promise<void> => {
      const socket = await vm.integration.connect(7009, { timeoutMs: 60_000 });
      const text = Buffer.from(`connection ${i}`);
      const [, back] = await Promise.all([send(socket, text), socket.readAll()]);
      assert.equal(Buffer.from(back).toString(), text.toString());
    };
    for (let i = 0; i < 200; i += 10) await Promise.all(Array.from({ length: 10 }, (_, k) => one(i + k)));
    await nothingLeft(vm, children.length);
  });

  it("gave the guest nothing to complain of", () => assertQuiet(vm));
});
