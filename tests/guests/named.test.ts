/** Named machines through the program: a guest that runs in the background, and every verb that talks to it. */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { debian, enlighten, type ProgramResult } from "./guests.js";

let dir: string;
let env: Record<string, string>;
type Options = Parameters<typeof enlighten>[1];
const run = (args: readonly string[], o: Options = {}): Promise<ProgramResult> =>
  enlighten(args, { ...o, env: { ...env, ...o.env } });
/** One that must go well. @returns its standard output */
async function ok(args: readonly string[], o: Options = {}): Promise<string> {
  const r = await run(args, o);
  assert.equal(r.code, 0, `${args.join(" ")}: ${r.stderr}`);
  return r.stdout.toString();
}
interface Listed {
  readonly name: string;
  readonly pid: number;
  readonly state: string;
  readonly ports: readonly { readonly host: string }[];
}
async function list(): Promise<Listed[]> {
  const text = await ok(["ps", "--json"]);
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Listed);
}
const names = async (): Promise<string[]> => (await list()).map((m) => m.name);
const start = (...args: string[]): Promise<ProgramResult> =>
  run(["run", "debian:12", "-m", "256M", "--detach", ...args]);

before(async () => {
  dir = await mkdtemp(join(tmpdir(), "enlighten-named-"));
  env = { ENLIGHTEN_STATE: join(dir, "state") };
  // fetched once, before several want it
  await (await debian()).load();
});
after(async () => {
  await run(["stop", "--all", "--force"]);
  await rm(dir, { recursive: true });
});

describe("a machine in the background", () => {
  before(async () => {
    await mkdir(join(dir, "shared"));
    const r = await start("--name", "web", "--share", `${join(dir, "shared")}:/data:ro`);
    assert.equal(r.code, 0, r.stderr);
    assert.equal(r.stdout.toString(), "web\n");
    assert.match(r.stderr, /^debian:12 up in [\d.]+ s · Linux 6\.1\S* · VMBus 5\.3 · storage .*sockets$/m);
  });

  it("is listed, and its name is taken", async () => {
    assert.match(await ok(["ps"]), /^NAME +GUEST.*\nweb +debian:12 +running +\d+ s +256 MiB +\d+ MiB +[\d.]+ %\n$/);
    const again = await start("--name", "web");
    assert.equal(again.code, 125);
    assert.match(again.stderr, /there is a VM "web" already/);
  });

  it("runs commands: streams apart, codes, input, environment, folder, user", async () => {
    const r = await run(["exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 42"]);
    assert.deepEqual([r.stdout.toString(), r.stderr, r.code], ["out\n", "err\n", 42]);
    const bytes = Buffer.from(Uint8Array.from({ length: 300_000 }, (_, i) => (i * 7 + (i >> 9)) & 255));
    const cat = await run(["exec", "-i", "web", "--", "cat"], { input: bytes });
    assert.equal(cat.stdout.compare(bytes), 0);
    // input is the command's only where that was asked for
    assert.equal(await ok(["exec", "web", "--", "wc", "-c"], { input: "not read" }), "0\n");
    const where = ["-e", "A=b c", "--env", "FROM_HERE", "-w", "/tmp", "-u", "nobody"];
    assert.equal(
      await ok(["exec", ...where, "web", "sh", "-c", 'echo "$A|$FROM_HERE|$PWD|$(id -un)"'], {
        env: { FROM_HERE: "x" },
      }),
      "b c|x|/tmp|nobody\n",
    );
    const missing = await run(["exec", "web", "--", "/no/such/program"]);
    assert.equal(missing.code, 127);
    assert.match(missing.stderr, /No such file/);
  });

  it("runs many at once", async () => {
    const all = await Promise.all(
      [1, 2, 3, 4].map((n) => run(["exec", "web", "--", "sh", "-c", `sleep 0.3; echo ${n}; exit ${n}`])),
    );
    assert.deepEqual(
      all.map((r) => [r.code, r.stdout.toString()]),
      [1, 2, 3, 4].map((n) => [n, `${n}\n`]),
    );
  });

  it("sends signals on to the command, and gives it up when there is no end", async () => {
    const script = 'trap "echo got it; exit 3" TERM; echo up; while :; do sleep 0.1; done';
    const r = await run(["exec", "web", "--", "sh", "-c", script], {
      during: (kill, _err, out) => whenUp(out, () => kill("SIGTERM")),
    });
    assert.deepEqual([r.code, r.stdout.toString()], [3, "up\ngot it\n"], r.stderr);
    const killed = await run(["exec", "web", "--", "sh", "-c", "echo up; sleep 1000"], {
      during: (kill, _err, out) => whenUp(out, () => kill("SIGINT")),
    });
    assert.equal(killed.code, 130);
    const late = await run(["exec", "--timeout", "0.5", "web", "--", "sleep", "1000"]);
    assert.equal(late.code, 124);
    // what nobody waits for is gone
    assert.equal((await run(["exec", "web", "--", "pidof", "sleep"])).code, 1);
  });

  it("gives a terminal: a size, keys, and an end by Ctrl-C", async () => {
    const tty = await ok(["exec", "-t", "web", "--", "sh", "-c", "tty; stty size"]);
    assert.match(tty, /^\/dev\/pts\/\d+\r\n24 80\r\n$/);
    // `script` has the other end of a terminal
    const command = [
      process.execPath,
      program,
      "exec",
      "web",
      "--",
      "sh",
      "-c",
      "'echo up; read x; echo \"<$x>\"; sleep 1000'",
    ].join(" ");
    const child = spawn("script", ["-qec", command, "/dev/null"], { env: { ...process.env, ...env } });
    try {
      let out = "";
      const code = await new Promise<number | null>((resolve, reject) => {
        child.on("error", reject);
        child.stdout.on("data", (b: Buffer) => {
          const before = out;
          out += b.toString();
          if (!before.includes("up") && out.includes("up")) child.stdin.write("typed\r");
          if (!before.includes("<typed>") && out.includes("<typed>")) child.stdin.write("\x03");
        });
        child.on("close", resolve);
      });
      assert.equal(code, 130, out);
      // the guest's terminal echoes, this one does not
      assert.match(out, /^up\r+\ntyped\r+\n<typed>\r+\n/);
    } finally {
      child.kill("SIGKILL");
    }
  });

  it("keeps what a detached command writes", async () => {
    const script = "echo first; sleep 0.5; echo second >&2; exit 5";
    const id = (await ok(["exec", "--detach", "web", "--", "sh", "-c", script])).trim();
    assert.match(id, /^\d+$/);
    const r = await run(["logs", "web", "--exec", id, "--follow"]);
    assert.deepEqual([r.code, r.stdout.toString()], [0, "first\nsecond\n"]);
    assert.match(r.stderr, /ended with 5/);
    assert.match(await ok(["status", "web"]), new RegExp(`^${id} +\\d+ +ended 5 +yes +sh -c echo first`, "m"));
    assert.equal((await run(["logs", "web", "--exec", "9999"])).code, 127);
  });

  it("shows its console to several, the last screenful first, and takes what is typed", async () => {
    const until = (text: string): Options => ({
      during: (kill, _err, out) =>
        when(
          () => out().includes(text),
          () => kill("SIGINT"),
        ),
    });
    const [typing, watching] = await Promise.all([
      run(["console", "web"], { ...until("answer 42"), input: "echo answer $((40+2))\n" }),
      run(["console", "--read-only", "web"], until("answer 42")),
    ]);
    for (const r of [typing, watching]) {
      assert.equal(r.code, 0, r.stderr);
      assert.match(r.stdout.toString(), /Enter 'help' for a list/);
    }
    assert.match(await ok(["logs", "web"]), /BusyBox.*answer 42/s);
    assert.doesNotMatch(await ok(["logs", "web", "--tail", "3"]), /BusyBox/);
  });

  it("says how it is", async () => {
    const status = JSON.parse(await ok(["status", "web", "--json"])) as {
      summary: { state: string; guestLoad?: number };
      vmbusVersion: string;
      channels: { name: string; state: string; version?: string; packetsIn: number; ringBytes: number }[];
      instructions: number;
      shares: unknown;
    };
    assert.deepEqual(status.shares, [{ directory: join(dir, "shared"), mountPoint: "/data", readOnly: true }]);
    assert.match(await ok(["status", "web"]), /^share {2}\/data is \/.*\/shared, read only$/m);
    assert.equal(status.summary.state, "running");
    assert.equal(status.vmbusVersion, "5.3");
    assert.ok(status.instructions > 1e8);
    assert.ok(status.summary.guestLoad! >= 0 && status.summary.guestLoad! <= 1);
    const of = (name: string) => status.channels.find((c) => c.name === name)!;
    for (const [name, version] of [
      ["heartbeat", "3.0"],
      ["shutdown", "3.2"],
      ["timesync", "4.0"],
      ["storage", "6.2"],
      ["network", "6.1"],
    ] as const) {
      const channel = of(name);
      assert.deepEqual([channel.state, channel.version], ["open", version], name);
      assert.ok(channel.packetsIn > 0 && channel.ringBytes > 0, name);
    }
  });

  it("gets a port while it runs, and gives it back", async () => {
    await ok(["exec", "web", "--", "sh", "-c", "echo hello >/tmp/index.html; httpd -p 80 -h /tmp"]);
    const said = await ok(["publish", "web", "0:80"]);
    const port = /^127\.0\.0\.1:(\d+) leads to 10\.0\.2\.15:80\n$/.exec(said)![1]!;
    assert.equal(await (await fetch(`http://127.0.0.1:${port}/`)).text(), "hello\n");
    assert.deepEqual(
      (await list())[0]!.ports.map((p) => p.host),
      [`127.0.0.1:${port}`],
    );
    await ok(["unpublish", "web", port]);
    await assert.rejects(fetch(`http://127.0.0.1:${port}/`));
    assert.equal((await run(["unpublish", "web", port])).code, 127);
  });

  it("gets and gives files and trees, by cp", async () => {
    const tree = join(dir, "tree");
    await mkdir(join(tree, "sub/empty"), { recursive: true });
    await writeFile(join(tree, "big"), randomBytes(3 << 20));
    await writeFile(join(tree, "sub/run.sh"), "#!/bin/sh\n", { mode: 0o751 });
    await symlink("../big", join(tree, "sub/link"));
    const sums = `cd TREE && find . | sort && sha256sum big sub/run.sh && stat -c '%a %Y' sub/run.sh && readlink sub/link`;
    const there = (folder: string): Promise<string> =>
      ok(["exec", "web", "--", "sh", "-c", sums.replace("TREE", folder)]);
    const here = (folder: string): string =>
      execFileSync("sh", ["-c", sums.replace("TREE", folder)], { encoding: "utf8" });
    // under that name, into a folder that is there, its content
    assert.equal(await ok(["cp", "tree", "web:/tmp/copy"], { cwd: dir }), "");
    assert.equal(await there("/tmp/copy"), here(tree));
    await ok(["exec", "web", "--", "mkdir", "/tmp/into"]);
    await ok(["cp", "tree", "web:/tmp/into"], { cwd: dir });
    assert.equal(await there("/tmp/into/tree"), here(tree));
    await ok(["cp", "web:/tmp/copy", "./back"], { cwd: dir });
    assert.equal(here(join(dir, "back")), here(tree));
    await ok(["cp", "../tree/.", "web:/tmp/into"], { cwd: join(dir, "back") });
    assert.equal((await ok(["exec", "web", "--", "ls", "/tmp/into"])).trim(), "big\nsub\ntree");
    // one file, by its events
    const events = (await ok(["cp", "--json", "tree/big", "web:/tmp/one"], { cwd: dir }))
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { event: string; source?: string });
    assert.deepEqual(events.at(-1), { event: "end", bytes: 3 << 20, files: 1, warnings: 0 });
    assert.deepEqual([events[0]!.event, events[0]!.source], ["progress", "tree/big"]);
    // several into a folder, as somebody else
    await ok(["exec", "web", "--", "sh", "-c", "mkdir /tmp/theirs && chown nobody /tmp/theirs"]);
    await ok(["cp", "-u", "nobody", "tree/big", "tree/sub/run.sh", "web:/tmp/theirs"], { cwd: dir });
    assert.equal(
      await ok(["exec", "web", "--", "sh", "-c", "cd /tmp/theirs; stat -c '%n %U' *"]),
      "big nobody\nrun.sh nobody\n",
    );
    await ok(["cp", "web:/tmp/theirs/big", "web:/etc/hostname", "."], { cwd: join(dir, "back/sub") });
    assert.deepEqual((await readdir(join(dir, "back/sub"))).sort(), ["big", "empty", "hostname", "link", "run.sh"]);
  });

  it("gets and gives a file by standard input and output", async () => {
    const bytes = randomBytes(1_000_001);
    await ok(["cp", "-", "web:/tmp/streamed"], { input: bytes });
    const sum = await ok(["exec", "web", "--", "sha256sum", "/tmp/streamed"]);
    assert.equal(sum.split(" ")[0], createHash("sha256").update(bytes).digest("hex"));
    const back = await run(["cp", "web:/tmp/streamed", "-"]);
    assert.equal(back.code, 0, back.stderr);
    assert.equal(back.stdout.compare(bytes), 0);
    await ok(["exec", "web", "--", "truncate", "-s", "70000", "/tmp/hole"]);
    assert.equal((await run(["cp", "web:/tmp/hole", "-"])).stdout.compare(Buffer.alloc(70_000)), 0);
    const folder = await run(["cp", "web:/tmp", "-"]);
    assert.equal(folder.code, 125);
    assert.match(folder.stderr, /\/tmp in the guest is a directory, and no file/);
  });

  it("says what a copy lacks, and leaves no half of one", async () => {
    for (const [args, code, message] of [
      [["no-such", "web:/tmp"], 127, /no-such on this host: no such file/],
      [["web:/no/such", "."], 127, /\/no\/such in the guest: No such file/],
      [["tree/big", "web:/no/such/folder/x"], 127, /\/no\/such\/folder\/x in the guest: No such file/],
      [["web:/etc/hostname", "no/such/x"], 127, /no\/such\/x on this host: no such file/],
      [["tree/big", "web:/etc/hostname/x"], 125, /in the guest: Not a directory/],
      [["tree/big", "tree/sub", "web:/etc/hostname"], 125, /in the guest: Not a directory/],
      [["web:/etc/hostname", "web:/etc/passwd", "new"], 127, /new\/\. on this host: no such file/],
      [["-u", "nobody", "tree/big", "web:/root/x"], 125, /\/root\/x in the guest: Permission denied/],
      [["tree", "web:/etc/hostname"], 125, /in the guest: File exists/],
    ] as const) {
      const r = await run(["cp", ...args], { cwd: dir });
      assert.equal(r.code, code, `${args.join(" ")}: ${r.stderr}`);
      assert.match(r.stderr, message);
    }
    const late = await run(["cp", "--timeout", "0.5", "-", "web:/tmp/late"], { inputStaysOpen: true });
    assert.equal(late.code, 124, late.stderr);
    assert.match(late.stderr, /the copy has not ended within 0\.5 s/);
    // a file without an end, until its user has enough
    const stopped = await run(["cp", "--json", "-", "web:/tmp/endless"], {
      input: Buffer.alloc(1 << 20),
      inputStaysOpen: true,
      during: (kill, _err, out) =>
        when(
          () => /"bytes":[1-9]/.test(out()),
          () => kill("SIGINT"),
        ),
    });
    assert.equal(stopped.code, 130, stopped.stdout.toString());
    assert.match(stopped.stdout.toString(), /"code":"aborted","message":"interrupted: the copy is not complete"/);
    // what there was of them goes
    await ok(["exec", "web", "--", "sh", "-c", "while [ -e /tmp/late -o -e /tmp/endless ]; do sleep 0.1; done"]);
    assert.deepEqual((await readdir(dir)).sort(), ["back", "shared", "state", "tree"]);
  });

  it("powers off when it is told to, and leaves its logs", async () => {
    assert.equal(await ok(["stop", "web"]), "web\n");
    assert.deepEqual(await names(), []);
    assert.match(await ok(["logs", "web"]), /answer 42/);
    const r = await run(["exec", "web", "--", "true"]);
    assert.equal(r.code, 127);
    assert.match(r.stderr, /the VM "web" has ended \(power-off\)/);
  });
});

describe("several machines", () => {
  it("have names of their own: one of two wins, and a crash of one leaves the other", async () => {
    const two = await Promise.all([start("--name", "twin"), start("--name", "twin")]);
    assert.deepEqual(two.map((r) => r.code).sort(), [0, 125]);
    assert.match(two.find((r) => r.code === 125)!.stderr, /there is a VM "twin" already/);
    const generated = (await start()).stdout.toString().trim();
    assert.equal(generated, "debian-12");
    assert.deepEqual(await names(), ["debian-12", "twin"]);

    const crash = await run(["exec", generated, "--", "sh", "-c", "echo c >/proc/sysrq-trigger; sleep 100"]);
    assert.equal(crash.code, 125);
    assert.match(crash.stderr, /the machine has ended \(crashed\).*Kernel panic - not syncing: sysrq/);
    assert.match(crash.stderr, /last console lines:\n/);
    assert.deepEqual(await names(), ["twin"]);

    // a detached one takes SIGTERM for a wish: its guest goes down in order
    const [{ pid }] = (await list()) as [Listed];
    process.kill(pid, "SIGTERM");
    const followed = await run(["logs", "twin", "--follow", "--tail", "0"]);
    assert.equal(followed.code, 0, followed.stderr);
    assert.match((await run(["status", "twin"])).stderr, /has ended \(power-off\)/);
  });

  it("may be in a terminal or a pipe: the console is there, the verbs work, stop ends it", async () => {
    let stopped: Promise<ProgramResult> | undefined;
    const r = await run(["run", "--name", "front", "-m", "256M", "--exec", "echo up; sleep 1000"], {
      during: (_kill, _err, out) =>
        whenUp(out, () => {
          stopped = run(["stop", "front"]);
        }),
    });
    assert.equal((await stopped)?.code, 0, (await stopped)?.stderr);
    assert.equal(r.stdout.toString(), "up\n");
    assert.match(r.stderr, /powered off before the command had ended/);
    assert.deepEqual(await names(), []);
  });

  it("run a command in the background to its end, and keep its output", async () => {
    assert.equal((await start("--name", "job", "--exec", "echo done; exit 4")).code, 0);
    await run(["logs", "job", "--follow"]);
    const r = await run(["logs", "job", "--exec", "0"]);
    assert.deepEqual([r.code, r.stdout.toString()], [0, "done\n"]);
    assert.match(r.stderr, /ended with 4/);
  });

  it("that do not come up say why, and leave nothing", async () => {
    const small = await run(["run", "-m", "32M", "--name", "small", "--detach"]);
    assert.equal(small.code, 125);
    assert.match(small.stderr, /32 MiB .*\n {2}try: give the guest at least/);
    const dies = await start("--name", "dies", "--append", "init=/no/such/init rdinit=/no/such/init");
    assert.equal(dies.code, 125);
    assert.match(dies.stderr, /the guest crashed: Kernel panic - not syncing/);
    assert.match(dies.stderr, /last console lines:\n/);
    assert.deepEqual(await names(), []);
  });
});

const program = join(import.meta.dirname, "../../src/cli/main.js");
/** Does something once a condition holds; looked at often, for a process that ends anyway. */
function when(condition: () => boolean, then: () => void): void {
  const timer = setInterval(() => {
    if (!condition()) return;
    clearInterval(timer);
    then();
  }, 20);
  timer.unref();
}
const whenUp = (out: () => string, then: () => void): void => when(() => out().includes("up\n"), then);
