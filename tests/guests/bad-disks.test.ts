/** Disks that cannot be used, that fill the host, that go away, and guests that flood them: an error that helps, and a host that lives. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmdirSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { createVm } from "../../src/host/node/index.js";
import { type Vm, VmError } from "../../src/vm/index.js";
import { enlighten, startDebian } from "./guests.js";
import { BOOT_MS, eventually, sh, testFolder } from "./hyperv-guest.js";

const MIB = 1 << 20;

describe("disk files that cannot be used", () => {
  const folder = testFolder("bad-disks");
  const file = (name: string, bytes: number): string => {
    const path = join(folder, name);
    writeFileSync(path, "");
    truncateSync(path, bytes);
    return path;
  };
  const bad: readonly (readonly [string, string, number, RegExp])[] = [
    ["a file that is not there", join(folder, "nowhere"), 127, /there is no .*nowhere/],
    ["a folder", folder, 125, /is a folder/],
    ["an empty file", file("empty", 0), 125, /is empty/],
    ["a size that is no multiple of 512", file("odd", MIB + 100), 125, /not a whole number of sectors/],
    ["a device", "/dev/null", 125, /not a regular file/],
  ];
  for (const [what, path, code, message] of bad) {
    it(`${what}: the program says so, and what to do`, async () => {
      const r = await enlighten(["run", "-m", "128M", "--disk", path, "--exec", "true"]);
      assert.match(r.stderr, message);
      assert.match(r.stderr, /\n {2}try: \S/);
      assert.doesNotMatch(r.stderr, /\n\s+at .*:\d+:\d+/);
      assert.equal(r.code, code, r.stderr);
    });
    it(`${what}: start() says so`, async () => {
      await using vm = await createVm({ memoryMiB: 128, disks: [{ file: path, readOnly: false }] });
      await assert.rejects(vm.start(), (e: unknown) => {
        assert.ok(e instanceof VmError);
        assert.match(e.message, message);
        assert.notEqual(e.hint, "");
        return true;
      });
    });
  }
  it("refuses a size that no disk has, with 2", async () => {
    const r = await enlighten(["run", "--disk", join(folder, "new"), "--size", "1000", "--exec", "true"]);
    assert.equal(r.code, 2, r.stderr);
  });
});

/** A file system of its own, for as long as the suite runs. @returns its folder; undefined where that is not allowed */
function smallFileSystem(options: string): string | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const folder = mkdtempSync(join(tmpdir(), "enlighten-small-"));
  const isMounted = spawnSync("mount", ["-t", "tmpfs", "-o", options, "tmpfs", folder]).status === 0;
  after(() => {
    if (isMounted) spawnSync("umount", ["-l", folder]);
    rmdirSync(folder);
  });
  return isMounted ? folder : undefined;
}

describe("a running guest", () => {
  const folder = testFolder("hard-disks");
  const small = smallFileSystem("size=8m");
  const locked = smallFileSystem("size=1m");
  const shared = join(folder, "shared");
  const problems: string[] = [];
  let vm: Vm;
  before(async () => {
    vm = await startDebian({
      disks: [
        { file: shared, readOnly: false, createBytes: 64 * MIB },
        { file: join(small ?? folder, "full"), readOnly: false, createBytes: 64 * MIB },
      ],
    });
    vm.integration.onProblem((text) => void problems.push(text));
    await sh(vm, "until [ -b /dev/sdb ]; do sleep 0.1; done", BOOT_MS);
  });
  after(() => vm?.kill());

  it("has its disk for itself: another machine may not write to it", async () => {
    const r = await enlighten(["run", "-m", "128M", "--disk", shared, "--exec", "true"]);
    assert.match(r.stderr, /in use|used by/);
    assert.match(r.stderr, /\n {2}try: \S/);
    assert.equal(r.code, 125, r.stderr);
    await using other = await createVm({ memoryMiB: 128, disks: [{ file: shared, readOnly: false }] });
    await assert.rejects(other.start(), /in use|used by/);
  });

  it("cannot have a file for writing that may only be read", {
    skip: locked === undefined && "mounts need root",
  }, async () => {
    const path = join(locked!, "disk");
    writeFileSync(path, new Uint8Array(4096));
    assert.equal(spawnSync("mount", ["-o", "remount,ro", locked!]).status, 0);
    await assert.rejects(vm.integration.addDisk({ file: path, readOnly: false }), (e: unknown) => {
      assert.ok(e instanceof VmError);
      assert.match(e.message, /may not be opened/);
      assert.match(e.hint, /read-only/);
      return true;
    });
    const lun = await vm.integration.addDisk({ file: path, readOnly: true });
    await vm.integration.removeDisk(lun);
  });

  it("gets an error when it fills the host's disk, and the host says so once", {
    skip: small === undefined && "mounts need root",
  }, async () => {
    const r = await vm.exec("dd if=/dev/urandom of=/dev/sdb bs=1M count=32 oflag=direct", { timeoutMs: 120_000 });
    assert.notEqual(r.exitCode, 0);
    assert.match(r.stderr, /No space left on device/);
    const again = await vm.exec("dd if=/dev/urandom of=/dev/sdb bs=1M count=4 seek=40 oflag=direct", {
      timeoutMs: 120_000,
    });
    assert.notEqual(again.exitCode, 0);
    const told = problems.filter((text) => text.includes("no room"));
    assert.equal(told.length, 1, problems.join("\n"));
    assert.ok(told[0]!.includes(join(small!, "full")), told[0]);
    // what fitted is there, and the other disk works
    await sh(vm, "dd if=/dev/sdb of=/dev/null bs=1M count=4 iflag=direct 2>/dev/null");
    await sh(vm, "dd if=/dev/zero of=/dev/sda bs=1M count=1 oflag=direct 2>/dev/null");
  });

  it("survives that a disk goes which it has mounted, and so does the host", async () => {
    const file = join(folder, "goes");
    const { integration } = vm;
    const lun = await integration.addDisk({ file, readOnly: false, createBytes: 16 * MIB }, { timeoutMs: 30_000 });
    await sh(
      vm,
      "until [ -b /dev/sdc ]; do sleep 0.1; done; mke2fs -F /dev/sdc >/dev/null; mkdir -p /gone; mount -t ext4 /dev/sdc /gone",
    );
    await sh(vm, "echo text >/gone/file; sync");
    const writer = vm.exec(
      "while dd if=/dev/zero of=/gone/more bs=64k count=64 conv=fsync 2>/dev/null; do :; done; echo failed",
      {
        timeoutMs: 120_000,
      },
    );
    await eventually("the writer to write", async () => {
      const disk = (await integration.status()).disks.find((d) => d.lun === lun)!;
      return disk.counters.writes! > 20 ? true : undefined;
    });
    await integration.removeDisk(lun, { timeoutMs: 60_000 });
    assert.equal((await writer).stdout, "failed\n");
    await sh(vm, "umount -l /gone; while [ -e /sys/block/sdc ]; do sleep 0.1; done");
    await sh(vm, "dd if=/dev/sda of=/dev/null bs=1M count=4 iflag=direct 2>/dev/null");
    // the file has been let go of
    assert.equal(await integration.addDisk({ file, readOnly: false }, { timeoutMs: 30_000 }), lun);
    await integration.removeDisk(lun, { timeoutMs: 30_000 });
  });

  it("may flood its disk and its console at once: it is answered all the same", async () => {
    const before = (await vm.integration.status()).disks[0]!.counters;
    const text = "flood ".repeat(10);
    await sh(
      vm,
      `for i in $(seq 20); do (while [ ! -e /run/enough ]; do dd if=/dev/sda of=/dev/null bs=64k count=64 iflag=direct 2>/dev/null; done) & done
(while [ ! -e /run/enough ]; do echo ${text}; done >/dev/ttyS0) & true`,
    );
    for (let i = 0; i < 5; i++) assert.equal(await sh(vm, `echo ${i}`), String(i));
    await eventually("many requests", async () => {
      const { counters } = (await vm.integration.status()).disks[0]!;
      return counters.reads! > before.reads! + 2000 ? true : undefined;
    });
    await vm.waitFor(text.trim(), { timeoutMs: 30_000 });
    await sh(vm, ">/run/enough; while pidof dd; do sleep 0.1; done >/dev/null");
    assert.equal((await vm.integration.status()).disks[0]!.counters.errors, 0);
    assert.equal((await vm.integration.heartbeat()).health, "ok");
  });

  it("is told nothing worse: no warning of the kernel itself", async () => {
    assert.doesNotMatch(await sh(vm, "dmesg"), /Call Trace|WARNING|BUG:|hung task/);
  });
});
