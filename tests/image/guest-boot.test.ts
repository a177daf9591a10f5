/**
 * The real guest from the host's mirror, on another implementation of the PC (QEMU): what init does must not depend on
 * ours. Skipped, with the reason, where there is no QEMU or no mirror.
 */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it, type TestContext } from "node:test";
import { readAptSettings } from "../../src/host/node/apt-sources.js";
import { readKeyring } from "../../src/host/node/keyring.js";
import { Mirror } from "../../src/host/node/mirror.js";
import { cacheFolder, FolderCache, sha256 } from "../../src/host/node/package-cache.js";
import { assembleDebianGuest, type DebianGuest } from "../../src/image/debian-guest.js";
import { ImageError } from "../../src/image/errors.js";
import { bytesAsSource, identify } from "../../src/image/identify.js";
import { execCpio } from "../../src/image/init/exec-cpio.js";
import { readKernelImage } from "../../src/image/kernel-image.js";

const hasQemu = spawnSync("qemu-system-x86_64", ["--version"]).status === 0;
const BOOT_TIMEOUT_MS = 120_000;

describe("the real guest", { skip: hasQemu ? false : "qemu-system-x86_64 is not installed" }, () => {
  let folder: string;
  let guest: DebianGuest | undefined;
  let reason = "";

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "enlighten-boot-"));
    try {
      const apt = await readAptSettings();
      const source = new Mirror({ environment: process.env, apt, keyring: () => readKeyring() });
      const cache = new FolderCache(cacheFolder(process.env));
      const allowExpired = /^(no|false|0)$/i.test(apt.configuration.get("acquire::check-valid-until") ?? "");
      guest = await assembleDebianGuest({ reference: "debian:12", source, cache, sha256, now: Date.now, allowExpired });
    } catch (error) {
      if (!(error instanceof ImageError) || !["no-mirror", "network", "no-keyring"].includes(error.code)) throw error;
      reason = error.message;
    }
  });
  after(() => rm(folder, { recursive: true }));

  function ready(t: TestContext): DebianGuest | undefined {
    if (guest === undefined) t.skip(`no guest could be fetched: ${reason}`);
    return guest;
  }

  /** Boots; `typed` is answered on the console each time its prompt shows. */
  async function boot(image: DebianGuest, second: Uint8Array, typed: readonly string[] = []) {
    await writeFile(join(folder, "vmlinuz"), image.kernel);
    await writeFile(join(folder, "initrd"), Buffer.concat([image.initramfs, second]));
    const ports = ["out", "err", "control"].map((name) => join(folder, name));
    const qemu = spawn("qemu-system-x86_64", [
      ...["-accel", "tcg", "-m", "512", "-display", "none", "-monitor", "none", "-no-reboot"],
      ...["-kernel", join(folder, "vmlinuz"), "-initrd", join(folder, "initrd")],
      ...["-append", "console=ttyS0 mitigations=off nokaslr quiet", "-serial", "stdio"],
      ...ports.flatMap((path) => ["-serial", `file:${path}`]),
    ]);
    const timer = setTimeout(() => qemu.kill("SIGKILL"), BOOT_TIMEOUT_MS);
    let console = "";
    let answered = 0;
    const lines = [...typed];
    qemu.stdout.on("data", (chunk: Buffer) => {
      console += chunk.toString("latin1");
      const prompts = console.split("# \x1b[6n").length - 1;
      while (answered < prompts) {
        answered++;
        const line = lines.shift();
        if (line !== undefined) qemu.stdin.write(`${line}\n`);
      }
    });
    const code = await new Promise((resolve) => qemu.on("close", resolve));
    clearTimeout(timer);
    assert.equal(code, 0, `QEMU did not end by itself; console:\n${console}`);
    const [stdout, stderr, control] = await Promise.all(ports.map((path) => readFile(path)));
    return { console, stdout: stdout!, stderr: stderr!, control: control!.toString() };
  }

  it("is small, and its kernel is known inside out", async (t) => {
    const image = ready(t);
    if (image === undefined) return;
    assert.ok(image.initramfs.length < 25e6);
    const kernel = await readKernelImage(image.kernel);
    assert.equal(kernel.version, image.kernelVersion);
    assert.ok(kernel.pvhEntry !== undefined && kernel.is64Bit);
    const identity = await identify(bytesAsSource(image.kernel));
    assert.deepEqual(identity.bootable, { ok: true, method: "linux-boot" });
  });

  it("runs a command: code, output and errors apart", async (t) => {
    const image = ready(t);
    if (image === undefined) return;
    const result = await boot(image, execCpio('echo "out $A"; echo err >&2; exit 42', { A: "it's" }));
    assert.equal(result.stdout.toString(), "out it's\n");
    assert.equal(result.stderr.toString(), "err\n");
    assert.equal(result.control, "ready\nexit 42\n");
    assert.match(result.console, /^(\[ *[\d.]+\] reboot: Power down\r\n)?$/); // nothing but the kernel's last word
  });

  it("passes 1 MiB and every byte value through unchanged", async (t) => {
    const image = ready(t);
    if (image === undefined) return;
    const bytes = Uint8Array.from({ length: 255 }, (_, i) => i + 1);
    // 4 KiB a file, so that it takes 256 programs and not thousands.
    const make = "printf '%s\\000' \"$1\" >/tmp/a; cd /tmp; cat a a a a >b; cat b b b b >block";
    const many = "i=0; while [ $i -lt 256 ]; do cat block; i=$((i+1)); done";
    const command = ["sh", "-c", `${make}; ${many}; seq 20000 >&2; exit 3`, "sh", bytes];
    const result = await boot(image, execCpio(command));
    assert.equal(result.control, "ready\nexit 3\n");
    assert.equal(result.stdout.length, 1 << 20);
    const block = Buffer.from([...bytes, 0]);
    for (let at = 0; at < result.stdout.length; at += 256) {
      assert.ok(block.equals(result.stdout.subarray(at, at + 256)), `block at ${at}`);
    }
    assert.equal(result.stderr.toString(), Array.from({ length: 20_000 }, (_, i) => `${i + 1}\n`).join(""));
  });

  it("reports a command that is missing, killed, or leaves something running", async (t) => {
    const image = ready(t);
    if (image === undefined) return;
    assert.match((await boot(image, execCpio(["no-such-program"]))).control, /exit 127/);
    assert.match((await boot(image, execCpio("kill -9 $$"))).control, /exit 137/);
    const left = await boot(image, execCpio("(sleep 1000; echo late) & echo early"));
    assert.equal(left.stdout.toString(), "early\n");
    assert.match(left.control, /exit 0/);
  });

  it("comes to a prompt with job control, loads modules, and ends with its shell", async (t) => {
    const image = ready(t);
    if (image === undefined) return;
    const result = await boot(image, new Uint8Array(0), [
      "tty; echo flags $-; ls /dev/fd/ >/dev/null && echo fd-ok",
      "modprobe vfat && modprobe overlay && grep -c -E '^(vfat|fat|overlay) ' /proc/modules",
      "modprobe vmbus:d96361baa104294db60572e2ffb1dc7f; echo x >/tmp/x; cat /tmp/x /etc/hostname",
      "exit",
    ]);
    assert.match(result.console, /debian:12 ~ # /);
    assert.match(result.console, /^\/dev\/ttyS0\r$/m);
    assert.match(result.console, /^flags \w*m\w*\r$/m);
    assert.match(result.console, /^fd-ok\r$/m);
    assert.match(result.console, /^3\r$/m);
    assert.match(result.console, /hv_vmbus.*No such device/); // found by its alias, and the machine has no VMBus
    assert.match(result.console, /^debian-12\r$/m);
  });

  it("goes down at once when a program asks for it", async (t) => {
    const image = ready(t);
    if (image === undefined) return;
    const result = await boot(image, new Uint8Array(0), ["/sbin/poweroff"]);
    assert.match(result.console, /Power down/);
    const applet = await boot(image, execCpio("echo before; poweroff; sleep 1000"));
    assert.equal(applet.stdout.toString(), "before\n");
    assert.doesNotMatch(applet.control, /exit/);
  });
});
