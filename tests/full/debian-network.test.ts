/**
 * What people do with a machine's network, in debian:12-full and with Debian's own programs at both ends: git, ssh and scp, apt.
 *
 *   ENLIGHTEN_LONG=1 node --test dist/tests/full/debian-network.test.js
 */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { createVm, type Vm } from "../../src/host/node/index.js";
import { assertQuiet, COMMAND_MS, eventually, sh, sha256, testFolder } from "../guests/hyperv-guest.js";
import { listening } from "../guests/socket-scripts.js";
import { needOnHost } from "./host-programs.js";
import { FULL_BOOT_MS, NETWORK_PACKAGES } from "./network-guest.js";

const skip = process.env.ENLIGHTEN_LONG === "1" ? false : "takes minutes: set ENLIGHTEN_LONG=1";
const TRANSFER_MS = 600_000;
const HOST = "host.enlighten.internal";
const COMMITS = 40;
const MIB = 1 << 20;
/** Nothing that this host's user has chosen for git. */
const ENVIRONMENT = { ...process.env, GIT_CONFIG_GLOBAL: "/dev/null", GIT_CONFIG_NOSYSTEM: "1" };

/** A program of the host that must succeed. @returns its output */
function host(program: string, args: readonly string[], cwd: string): string {
  const r = spawnSync(program, args, { cwd, encoding: "utf8", maxBuffer: 64 * MIB, env: ENVIRONMENT });
  assert.equal(r.status, 0, `${program} ${args.join(" ")}: ${r.stdout}${r.stderr}${r.error ?? ""}`);
  return r.stdout.trim();
}
interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}
/** A program of the host, beside which this process goes on: the guest's network is in it. */
function beside(program: string, args: readonly string[], input: Uint8Array | undefined = undefined): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ["pipe", "pipe", "pipe"] });
    let [stdout, stderr] = ["", ""];
    child.stdout.on("data", (bytes) => {
      stdout += bytes;
    });
    child.stderr.on("data", (bytes) => {
      stderr += bytes;
    });
    child.stdin.on("error", () => {});
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, stdout, stderr }));
    child.stdin.end(input);
  });
}

describe("the network of debian:12-full", { skip, timeout: 3_600_000 }, () => {
  let vm: Vm;
  const folder = skip === false ? testFolder("debian-network") : "";
  const run = (script: string, timeoutMs = COMMAND_MS): Promise<string> => sh(vm, script, timeoutMs);

  before(async () => {
    needOnHost({ git: "git", "openssh-client": "ssh" });
    vm = await createVm({
      image: "debian:12-full",
      packages: NETWORK_PACKAGES,
      memoryMiB: 1024,
      network: { publish: ["0:22"] },
    });
    await vm.start();
    await run("systemctl is-system-running --wait", FULL_BOOT_MS);
  });
  after(() => vm?.kill());

  describe("git", () => {
    const work = join(folder, "work");
    const bare = join(folder, "project.git");
    const git = (cwd: string, ...args: readonly string[]): string =>
      host("git", ["-c", "user.name=host", "-c", "user.email=host@example.org", ...args], cwd);

    /** @returns where the guest has its repository */
    const serve = async (): Promise<string> => {
      // a program for each connection, as inetd has them
      const daemon = ["daemon", "--inetd", "--export-all", "--enable=receive-pack", `--base-path=${folder}`, folder];
      const port = await listening((socket) => {
        const server = spawn("git", daemon, { stdio: ["pipe", "pipe", "inherit"], env: ENVIRONMENT });
        server.stdin.on("error", () => {});
        socket.pipe(server.stdin);
        server.stdout.pipe(socket);
      });
      return `git://${HOST}:${port}/project.git`;
    };

    before(() => {
      mkdirSync(work);
      git(work, "init", "-q", "-b", "main");
      for (let i = 0; i < COMMITS; i++) {
        mkdirSync(join(work, `folder${i % 7}`), { recursive: true });
        writeFileSync(join(work, `folder${i % 7}`, `file${i}`), `line ${i}\n`.repeat(100 + i));
        // what does not compress
        writeFileSync(join(work, "random"), randomBytes(MIB / 2));
        git(work, "add", "-A");
        git(work, "commit", "-q", "-m", `commit ${i}`);
      }
      git(folder, "clone", "-q", "--bare", work, bare);
    });

    it("clones from a server of the host: the history is whole", async () => {
      await run(`cd /root && git clone -q ${await serve()} project`, TRANSFER_MS);
      await run("cd /root/project && git fsck --full --strict && git status --porcelain", TRANSFER_MS);
      assert.equal(await run("git -C /root/project rev-parse HEAD"), git(work, "rev-parse", "HEAD"));
      assert.equal(await run("git -C /root/project rev-list --count HEAD"), String(COMMITS));
      assert.match(await run("sha256sum </root/project/random"), new RegExp(`^${sha256OfHead(work)} `));
    });

    it("pushes to it, and fetches what others pushed", async () => {
      await run(
        `cd /root/project && git remote set-url origin ${await serve()} && git config user.name guest && git config user.email guest@example.org
head -c ${4 * MIB} /dev/urandom >made && git add made && git commit -q -m 'made in the guest' && git push -q origin main:guest`,
        TRANSFER_MS,
      );
      git(bare, "fsck", "--full", "--strict");
      assert.equal(git(bare, "rev-parse", "guest"), await run("git -C /root/project rev-parse HEAD"));
      const made = git(work, "fetch", "-q", bare, "guest") + git(work, "rev-parse", "FETCH_HEAD:made");
      assert.equal(made, await run("cd /root/project && git hash-object made"));
      writeFileSync(join(work, "later"), "from the host\n");
      git(work, "add", "-A");
      git(work, "commit", "-q", "-m", "later");
      git(work, "push", "-q", bare, "main");
      await run("cd /root/project && git pull -q --rebase origin main", TRANSFER_MS);
      assert.equal(await run("cat /root/project/later"), "from the host");
    });
  });

  describe("ssh", () => {
    const key = join(folder, "key");
    const knownHosts = join(folder, "known_hosts");
    let port: number;
    const options = (): string[] => [
      ...["-F", "none", "-i", key, "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"],
      ...["-o", `UserKnownHostsFile=${knownHosts}`, "-o", "StrictHostKeyChecking=yes"],
    ];
    const ssh = (command: string, input?: Uint8Array): Promise<Ended> =>
      beside("ssh", [...options(), "-p", String(port), "root@127.0.0.1", command], input);
    const scp = async (...args: readonly string[]): Promise<void> => {
      const r = await beside("scp", [...options(), "-q", "-r", "-P", String(port), ...args]);
      assert.equal(r.code, 0, r.stderr);
    };

    before(async () => {
      host("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", key], folder);
      await run("install -d -m 700 /root/.ssh");
      await vm.copyIn(`${key}.pub`, "/root/.ssh/authorized_keys", { timeoutMs: COMMAND_MS });
      ({ hostPort: port } = (await vm.network.published())[0]!);
      const hostKey = await run("cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub");
      writeFileSync(knownHosts, `[127.0.0.1]:${port} ${hostKey}\n`);
    });

    it("runs a command: its output, its errors, its exit code", async () => {
      const { code, stdout, stderr } = await ssh("uname -n; echo error >&2; exit 7");
      assert.deepEqual([code, stdout, stderr], [7, "debian\n", "error\n"]);
    });

    it("takes 10 MB by standard input, and gives as much", async () => {
      const data = randomBytes(10_000_000);
      const taken = await ssh("tee /root/taken | sha256sum", data);
      assert.equal(taken.stdout, `${sha256(data)}  -\n`, taken.stderr);
      // as text, which a string of this program's can hold
      const given = await ssh("base64 -w0 /root/taken");
      assert.equal(sha256(Buffer.from(given.stdout, "base64")), sha256(data), given.stderr);
    });

    it("has several sessions at once", async () => {
      const sessions = await Promise.all(
        [1, 2, 3, 4, 5, 6].map((i) => ssh(`sleep 0.${i}; cat; exit ${i}`, Buffer.from([48 + i]))),
      );
      assert.deepEqual(
        sessions.map(({ code, stdout }) => [code, stdout]),
        [1, 2, 3, 4, 5, 6].map((i) => [i, String(i)]),
      );
    });

    it("refuses a key that it does not know", async () => {
      const other = join(folder, "other");
      host("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", other], folder);
      const args = options().map((o) => (o === key ? other : o));
      const { code, stderr } = await beside("ssh", [...args, "-p", String(port), "root@127.0.0.1", "true"]);
      assert.equal(code, 255);
      assert.match(stderr, /Permission denied/);
    });

    it("copies a tree into the guest and out again", async () => {
      const tree = join(folder, "tree");
      for (let i = 0; i < 60; i++) {
        mkdirSync(join(tree, `a${i % 5}`, `b${i % 3}`), { recursive: true });
        writeFileSync(join(tree, `a${i % 5}`, `b${i % 3}`, `file ${i}`), randomBytes(i * 1000));
      }
      chmodSync(join(tree, "a0/b0/file 0"), 0o755);
      await scp(tree, "root@127.0.0.1:/root/tree");
      const sums = "find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum";
      const right = host("sh", ["-c", sums], tree);
      assert.equal(await run(`cd /root/tree && ${sums}`), right);
      assert.equal(await run("stat -c %a '/root/tree/a0/b0/file 0'"), "755");
      await scp("root@127.0.0.1:/root/tree", join(folder, "back"));
      assert.equal(host("sh", ["-c", sums], join(folder, "back")), right);
    });
  });

  it("apt installs a package from the archive, and it runs", async () => {
    await run(
      "apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends hello",
      900_000,
    );
    assert.equal(await run("hello"), "Hello, world!");
    assert.match(await run("dpkg -s hello"), /^Status: install ok installed$/m);
    assert.equal(await run("dpkg --audit; dpkg --verify hello"), "");
  });

  it("the guest has nothing to complain of, and no connection is left", async () => {
    await assertQuiet(vm);
    await eventually("connections to be gone", async () =>
      (await vm.network.status())!.nat!.flows.every(({ protocol }) => protocol !== "tcp") ? true : undefined,
    );
    const { drops } = (await vm.network.status())!;
    assert.deepEqual([drops.malformed, drops.tooLong, drops.unfit], [0, 0, 0]);
  });

  function sha256OfHead(work: string): string {
    const { stdout } = spawnSync("git", ["cat-file", "blob", "HEAD:random"], { cwd: work, maxBuffer: 64 * MIB });
    return sha256(stdout);
  }
});
