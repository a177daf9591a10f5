/** Commands by the agent in the guest: streams, signals, terminals, and every way in which one is given up. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, describe, it } from "node:test";
import { KEPT_IDLE } from "../../src/vm/guest-agent.js";
import { type Vm, VmError } from "../../src/vm/index.js";
import { enlighten, startDebian } from "./guests.js";
import { assertQuiet, BOOT_MS, eventually, sh } from "./hyperv-guest.js";

const isVmError =
  (code: string) =>
  (e: unknown): boolean =>
    e instanceof VmError && e.code === code;

describe("commands by the agent", () => {
  let vm: Vm;
  before(async () => {
    vm = await startDebian();
    await sh(vm, "true", BOOT_MS);
  });
  after(() => vm?.kill());
  const isGone = (pid: string): Promise<string> =>
    eventually(`process ${pid} to be gone`, async () =>
      (await vm.exec(`kill -0 ${pid} 2>/dev/null`, { timeoutMs: 60_000 })).exitCode === 0 ? undefined : pid,
    );

  it("gives exit codes, and the two outputs apart", async () => {
    for (const code of [0, 1, 42, 255])
      assert.equal((await vm.exec(`exit ${code}`, { timeoutMs: 60_000 })).exitCode, code);
    const r = await vm.exec("echo out; echo err >&2; echo out again", { timeoutMs: 60_000 });
    assert.deepEqual([r.stdout, r.stderr], ["out\nout again\n", "err\n"]);
  });

  it("passes every byte in both directions", async () => {
    const bytes = new Uint8Array(randomBytes(1 << 20));
    for (let i = 0; i < 256; i++) bytes[i] = i;
    const r = await vm.exec(["cat"], { stdin: bytes, timeoutMs: 120_000 });
    assert.equal(r.exitCode, 0);
    assert.deepEqual(Buffer.from(r.stdoutBytes).compare(bytes), 0);
  });

  it("gives no input where there is none, and drops input that is not read", async () => {
    assert.equal((await vm.exec("wc -c", { timeoutMs: 60_000 })).stdout.trim(), "0");
    const r = await vm.exec("exit 6", { stdin: new Uint8Array(1 << 20), timeoutMs: 60_000 });
    assert.equal(r.exitCode, 6);
  });

  it("has the environment, the folder and the user that were asked for", async () => {
    const r = await vm.exec('echo "$X|$PWD|$(id -un)|$(id -gn)|$(id -G)"', {
      env: { X: "it's $HOME\n=" },
      cwd: "/proc",
      user: "nobody",
      timeoutMs: 60_000,
    });
    assert.equal(r.exitCode, 0, r.stderr);
    const [x, cwd, user, group, groups] = r.stdout.trim().split("|");
    assert.deepEqual([x, cwd, user], ["it's $HOME\n=", "/proc", "nobody"]);
    assert.equal(groups, await sh(vm, "id -g nobody"), `groups of ${group}: root's would be a way around`);
    assert.notEqual((await vm.exec("echo >/root/x", { user: "nobody", timeoutMs: 60_000 })).exitCode, 0);
    assert.equal(await sh(vm, "id -un; pwd"), "root\n/root");
  });

  it("says with 127 that there is no such program, with 126 that it could not be started", async () => {
    assert.equal((await vm.exec(["/no/such/program"], { timeoutMs: 60_000 })).exitCode, 127);
    assert.equal((await vm.exec(["/etc/passwd"], { timeoutMs: 60_000 })).exitCode, 126);
    const noUser = await vm.exec(["true"], { user: "nobody-like-that", timeoutMs: 60_000 });
    assert.ok([126, 127].includes(noUser.exitCode), String(noUser.exitCode));
  });

  it("sends signals to the command and what it started", async () => {
    let out = "";
    const trapped = await vm.spawn('trap "echo got it; exit 3" TERM; echo up; sleep 1000 & wait', {
      onStdout: (b) => {
        out += Buffer.from(b).toString();
      },
      timeoutMs: 60_000,
    });
    await eventually("the trap", () => (out.includes("up\n") ? true : undefined));
    trapped.kill("SIGTERM");
    assert.deepEqual(await trapped.exited, { exitCode: 3, signal: undefined });
    assert.equal(out, "up\ngot it\n");
    const killed = await vm.spawn("sleep 1000; true", { timeoutMs: 60_000 });
    const pid = await eventually("its process id", () => killed.pid);
    killed.kill("SIGKILL");
    assert.deepEqual(await killed.exited, { exitCode: 137, signal: 9 });
    await isGone(String(pid));
  });

  it("gives a terminal of the size that was asked for, and another size later", async () => {
    let out = "";
    const child = await vm.spawn(
      // the trap comes first: a signal that nobody has asked for is gone
      "trap 'stty size' WINCH; tty; stty size; while :; do read -r x && echo \"<$x>\" && [ $x = end ] && exit 4; done",
      {
        pty: { rows: 31, columns: 99 },
        onStdout: (b) => {
          out += Buffer.from(b).toString();
        },
        timeoutMs: 60_000,
      },
    );
    await eventually("the size", () => (/^\/dev\/pts\/\d+\r\n31 99\r\n/.test(out) ? true : undefined));
    child.resize(50, 120);
    // a shell that reads a line acts on the signal after it
    await eventually("the other size", async () => {
      await child.write("line\n");
      return /50 120\r\n/.test(out) ? true : undefined;
    });
    await child.write("end\n");
    await eventually("the line", () => (/<end>\r\n/.test(out) ? true : undefined));
    assert.equal((await child.exited).exitCode, 4);
  });

  it("interrupts what runs on a terminal with Ctrl-C", async () => {
    let out = "";
    const child = await vm.spawn("echo up; sleep 1000; echo not reached", {
      pty: { rows: 24, columns: 80 },
      onStdout: (b) => {
        out += Buffer.from(b).toString();
      },
      timeoutMs: 60_000,
    });
    await eventually("it to run", () => (out.includes("up\r\n") ? true : undefined));
    await child.write("\x03");
    assert.equal((await child.exited).exitCode, 130);
    assert.doesNotMatch(out, /not reached/);
  });

  it("ends the process of a command that was given up, by a signal or by time", async () => {
    const controller = new AbortController();
    const given = vm.exec("echo $$ >/run/given-up; exec sleep 1000", { signal: controller.signal });
    const rejected = assert.rejects(given, isVmError("aborted"));
    const pid = await eventually("its process id", async () => {
      const r = await vm.exec("cat /run/given-up", { timeoutMs: 60_000 });
      return r.exitCode === 0 && r.stdout.endsWith("\n") ? r.stdout.trim() : undefined;
    });
    controller.abort();
    await rejected;
    await isGone(pid);
    await assert.rejects(
      vm.exec("echo $$ >/run/timed-out; exec sleep 1000", { timeoutMs: 3000 }),
      isVmError("timeout"),
    );
    await isGone(await sh(vm, "cat /run/timed-out"));
  });

  it("runs twenty at once", async () => {
    // each ends when all are there
    const script = (i: number): string =>
      `>/run/at-once.${i}; while set -- /run/at-once.*; [ $# -lt 20 ]; do sleep 0.1; done; echo ${i}; exit ${i}`;
    const all = await Promise.all(Array.from({ length: 20 }, (_, i) => vm.exec(script(i), { timeoutMs: 120_000 })));
    for (const [i, r] of all.entries()) assert.deepEqual([r.exitCode, r.stdout], [i, `${i}\n`]);
  });

  it("returns at once when a child in the background lives on", async () => {
    const r = await vm.exec("sleep 1000 & echo started $!", { timeoutMs: 30_000 });
    assert.match(r.stdout, /^started \d+\n$/);
    const pid = r.stdout.trim().split(" ")[1]!;
    await sh(vm, `kill -0 ${pid} && kill ${pid}`);
  });

  it("leaves no process, no connection and no complaint behind", async () => {
    await eventually("the agent to have no children", async () => {
      const agent = (await sh(vm, "pidof perl")).split(" ")[0]!;
      // the one that asks, and its shell
      const children = await sh(vm, `cat /proc/${agent}/task/${agent}/children`);
      return children.split(" ").length === 1 ? true : undefined;
    });
    // those that wait for the next command are kept
    await eventually("connections to go", async () =>
      (await vm.integration.status()).sockets <= KEPT_IDLE ? true : undefined,
    );
    await assertQuiet(vm);
  });

  it("fails with the panic when the guest dies in the middle", async () => {
    const dying = vm.exec("sleep 1000", { timeoutMs: 120_000 });
    const rejected = assert.rejects(dying, (e: unknown) => {
      assert.ok(e instanceof VmError);
      assert.equal(e.code, "guest-crashed");
      assert.match(e.message, /Kernel panic - not syncing: sysrq triggered crash/);
      assert.match(e.consoleTail, /entry_SYSCALL_64/);
      return true;
    });
    vm.exec("echo c >/proc/sysrq-trigger").catch(() => {});
    await rejected;
    const end = await vm.waitForEnd({ timeoutMs: 60_000 });
    assert.equal(end.how, "crashed");
    assert.match(end.detail, /Kernel panic - not syncing: sysrq triggered crash/);
  });
});

describe("enlighten run --exec", () => {
  it("pipes 1 MiB of input through the guest and gives the exit code", async () => {
    const input = randomBytes(1 << 20);
    const r = await enlighten(["run", "-m", "256M", "--exec", "cat; echo done >&2; exit 5"], { input });
    assert.equal(r.code, 5, r.stderr);
    assert.equal(r.stderr, "done\n");
    assert.equal(r.stdout.compare(input), 0);
  });
});
