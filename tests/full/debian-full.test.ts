/**
 * The whole of debian:12-full with the real archive: the first run makes its disk, which takes minutes.
 *
 *   ENLIGHTEN_LONG=1 node --test dist/tests/full/debian-full.test.js
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { createVm, type ExecResult, type Vm } from "../../src/host/node/index.js";
import { cacheFolder } from "../../src/host/node/package-cache.js";

const skip = process.env.ENLIGHTEN_LONG === "1" ? false : "takes minutes: set ENLIGHTEN_LONG=1";
const COMMAND_MS = 120_000;
const BOOT_MS = 300_000;
const HELLO = `#include <stdio.h>
int main(void) { puts("hello from gcc"); return 7; }
`;

interface Identity {
  readonly machine: string;
  /** Fingerprints of the host keys. */
  readonly keys: readonly string[];
}
async function identityOf(vm: Vm): Promise<Identity> {
  const script = "cat /etc/machine-id; for key in /etc/ssh/ssh_host_*_key.pub; do ssh-keygen -lf $key; done";
  const { stdout, exitCode } = await vm.exec(`systemctl is-system-running --wait >/dev/null; ${script}`, {
    timeoutMs: BOOT_MS,
  });
  assert.equal(exitCode, 0, stdout);
  const [machine = "", ...keys] = stdout.trim().split("\n");
  return { machine, keys: keys.map((line) => line.split(" ")[1]!) };
}

describe("debian:12-full", { skip, timeout: 3_600_000 }, () => {
  let vm: Vm;
  let folder: string;
  let identity: Identity;
  const machines = join(cacheFolder(process.env), "machines");
  const copies = (): string[] => (existsSync(machines) ? readdirSync(machines) : []);
  const run = (command: string, stdin?: string): Promise<ExecResult> =>
    vm.exec(command, { timeoutMs: COMMAND_MS, ...(stdin === undefined ? {} : { stdin }) });
  const output = async (command: string, stdin?: string): Promise<string> => {
    const { stdout, stderr, exitCode } = await run(command, stdin);
    assert.equal(exitCode, 0, `${command}: ${stdout}${stderr}`);
    return stdout.trim();
  };

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "enlighten-full-"));
    mkdirSync(join(folder, "shared"));
    vm = await createVm({
      image: "debian:12-full",
      memoryMiB: 1024,
      shares: [{ directory: join(folder, "shared"), mountPoint: "/srv/shared" }],
    });
    await vm.start();
  });
  after(async () => {
    await vm?.kill();
    rmSync(folder, { recursive: true, force: true });
  });

  it("comes to a login on its console, with nothing failed", async () => {
    await vm.waitForPrompt({ timeoutMs: BOOT_MS });
    assert.equal(await output("systemctl is-system-running --wait"), "running");
    assert.equal(await output("systemctl --failed --no-legend --plain"), "");
    // a machine without PCI: the kernel calls that an error
    const errors = (await output("journalctl -b -p err --no-pager -q -o cat")).split("\n");
    assert.deepEqual(
      errors.filter((line) => line !== "" && !line.startsWith("PCI: ")),
      [],
    );
  });

  it("is what dpkg and apt call whole", async () => {
    assert.equal(await output("dpkg --audit"), "");
    // policies of ours and of packages' scripts touch configuration files, never programs
    assert.deepEqual(
      (await run("dpkg --verify")).stdout.split("\n").filter((l) => l !== "" && !/^\S+ c /.test(l)),
      [],
    );
    assert.match(await output("apt-get check -qq && apt-get --version"), /^apt 2\./);
    assert.match(await output("apt-get -s install linux-image-cloud-amd64 2>&1 || true"), /Reading package lists/);
  });

  it("has its programs: python, gcc, make, perl, ssh, sqlite", async () => {
    assert.equal(await output("python3 -c 'print(sum(range(10)))'"), "45");
    await output("cat >/root/hello.c", HELLO);
    const hello = await run("cd /root && gcc -O2 -o hello hello.c && ./hello");
    assert.deepEqual([hello.stdout, hello.exitCode], ["hello from gcc\n", 7]);
    assert.match(await output("ssh -V 2>&1"), /^OpenSSH_/);
    assert.equal(await output("sqlite3 :memory: 'select 6*7'"), "42");
    assert.match(await output("perl -e 'print $^V'; make --version"), /^v5\.\d+.*GNU Make/s);
    assert.equal(await output("systemctl is-active ssh"), "active");
  });

  it("has an identity that nobody else has: machine id, SSH host keys, random seed", async () => {
    identity = await identityOf(vm);
    assert.match(identity.machine, /^[0-9a-f]{32}$/);
    assert.equal(identity.keys.length, 2);
    assert.equal(await output("ssh-keyscan -t ed25519 127.0.0.1 2>/dev/null | wc -l"), "1");
    assert.equal(await output("journalctl -b -u enlighten-ssh-keys -q -o cat -p warning"), "");
  });

  it("has Hyper-V's drivers from its own disk, and an untainted kernel", async () => {
    assert.equal(await output("systemd-detect-virt"), "microsoft");
    assert.equal(await output("cat /proc/sys/kernel/tainted"), "0");
    const modules = await output("lsmod");
    for (const name of ["hv_vmbus", "hv_storvsc", "hv_netvsc", "hv_utils", "hv_sock"])
      assert.match(modules, new RegExp(`^${name} `, "m"));
    assert.equal(await output("modprobe overlay && findmnt -no FSTYPE /"), "ext4");
  });

  it("has its network by its own DHCP client, and an SSH server that the host reaches", async () => {
    assert.match(await output("ip -4 -o addr show eth0"), /inet 10\.0\.2\.15\/24 .* dynamic/);
    assert.match(await output("cat /etc/resolv.conf"), /nameserver 10\.0\.2\.3/);
    const { hostPort } = await vm.network.publish("0:22");
    const socket = connect(hostPort, "127.0.0.1");
    const [banner] = (await once(socket, "data", { signal: AbortSignal.timeout(COMMAND_MS) })) as [Buffer];
    socket.destroy();
    assert.match(banner.toString(), /^SSH-2\.0-OpenSSH/);
  });

  it("copies files both ways, and has the host's folder", async () => {
    const text = "from the host\n".repeat(100_000);
    writeFileSync(join(folder, "file"), text, { mode: 0o640 });
    await vm.copyIn(join(folder, "file"), "/root/", { timeoutMs: COMMAND_MS });
    assert.equal(await output("stat -c '%a %s' /root/file"), `640 ${text.length}`);
    await vm.copyOut("/etc/systemd", join(folder, "systemd"), { timeoutMs: COMMAND_MS });
    assert.equal(
      readFileSync(join(folder, "systemd/system.conf"), "utf8").trim(),
      await output("cat /etc/systemd/system.conf"),
    );
    await output("cp -a /root/file /srv/shared/ && findmnt -no FSTYPE /srv/shared");
    assert.equal(readFileSync(join(folder, "shared/file"), "utf8"), text);
  });

  it("fetches apt's lists, and a package from the archive", async () => {
    const updated = await vm.exec("apt-get update 2>&1 && cd /tmp && apt-get download hello && ls", {
      timeoutMs: 900_000,
    });
    assert.equal(updated.exitCode, 0, updated.stdout + updated.stderr);
    assert.match(updated.stdout, /hello_\S+\.deb/);
  });

  it("powers off when the host asks, and its disk goes with it", async () => {
    assert.equal(copies().filter((name) => name.startsWith(`${process.pid}-`)).length, 1);
    await vm.integration.shutdown({ timeoutMs: 30_000 });
    const { how } = await vm.waitForEnd({ timeoutMs: BOOT_MS });
    assert.equal(how, "power-off");
    assert.deepEqual(
      copies().filter((name) => name.startsWith(`${process.pid}-`)),
      [],
    );
  });

  it("has more packages where they are asked for, beside all the others", async () => {
    await using more = await createVm({ image: "debian:12-full", memoryMiB: 1024, packages: ["jq", "bc"] });
    await more.start();
    const script = "echo '{\"a\":[1,2]}' | jq -c .a; echo 2^70 | bc; dpkg --audit; python3 -c 'print(1)'";
    const { stdout } = await more.exec(script, { timeoutMs: BOOT_MS });
    assert.equal(stdout, "[1,2]\n1180591620717411303424\n1\n");
  });

  it("says which packages a kept disk lacks", async () => {
    const rootFile = join(folder, "plain.raw");
    await using first = await createVm({ image: "debian:12-full", rootFile });
    await first.kill();
    await assert.rejects(createVm({ image: "debian:12-full", rootFile, packages: ["jq"] }), {
      code: "disk-exists",
      message: `${rootFile} is there already, made without jq`,
    });
  });

  it("keeps its disk in a file, and grows it", async () => {
    const rootFile = join(folder, "root.raw");
    const options = { image: "debian:12-full", memoryMiB: 1024, offline: true, rootFile } as const;
    await using first = await createVm({ ...options, rootBytes: 9 * 2 ** 30 });
    await first.start();
    const { stdout } = await first.exec("df -B1G --output=size / | tail -1; echo kept >/root/kept; sync", {
      timeoutMs: BOOT_MS,
    });
    assert.ok(Number(stdout) >= 8, stdout);
    const other = await identityOf(first);
    assert.notEqual(other.machine, identity.machine);
    for (const key of identity.keys) assert.ok(!other.keys.includes(key), key);
    await first.integration.shutdown({ timeoutMs: 30_000 });
    await first.waitForEnd({ timeoutMs: BOOT_MS });
    assert.equal(statSync(rootFile).size, 9 * 2 ** 30);
    await using second = await createVm({ ...options, exec: "cat /root/kept; exit 5" });
    const seen: Uint8Array[] = [];
    second.onOutput(1, (bytes) => void seen.push(bytes));
    await second.start();
    const end = await second.waitForEnd({ timeoutMs: BOOT_MS });
    assert.equal(Buffer.concat(seen).toString(), "kept\n");
    assert.deepEqual([end.how, end.exitCode], ["power-off", 5]);
  });
});
