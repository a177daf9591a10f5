/** Disks and DVDs by Debian's hv_storvsc: what the guest writes is what the host's file has, over reboots and power-off. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { statSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { Vm } from "../../src/vm/index.js";
import { startDebian } from "./guests.js";
import {
  allocated,
  assertQuiet,
  BOOT_MS,
  eventually,
  hashOfFile,
  PERL,
  sh,
  sha256,
  testFolder,
} from "./hyperv-guest.js";
import { isoImage } from "./iso-image.js";

const MIB = 1 << 20;
/** MiB that are written and read each way; more with ENLIGHTEN_LONG. */
const SIZE = process.env.ENLIGHTEN_LONG ? 256 : 64;
/** Where the partition for O_DIRECT begins, and where the disk ends. */
const PARTITION = 1024 * 1024;

const hasDebugfs = spawnSync("debugfs", ["-V"]).status === 0;

/** Linux looks at disks beside each other: which of them is sdb is chance, so they are looked at until it is the second. */
async function disksInOrder(vm: Vm): Promise<void> {
  await sh(
    vm,
    `there() { until [ -b /dev/sdc ] && [ -b /dev/sr0 ]; do sleep 0.1; done; }
order() { for d in sda sdb sdc; do place=$(readlink /sys/block/$d/device); echo "\${place##*:}"; done | tr '\\n' ' '; }
there
until [ "$(order)" = "0 1 2 " ]; do rmmod sd_mod; modprobe sd_mod; there; done`,
    BOOT_MS,
  );
}

describe("disks", () => {
  let vm: Vm;
  const folder = testFolder("storage");
  const [raw, fs, readOnly, iso] = ["raw", "fs", "read-only", "files.iso"].map((name) => join(folder, name)) as [
    string,
    string,
    string,
    string,
  ];
  /** What is written is what the read-only disk has, which the host made. */
  const fixed = randomBytes(SIZE * MIB);
  const hash = sha256(fixed);
  const onDvd = randomBytes(300_001);
  /** Files, devices or pipes as perl opens them; busybox's cmp takes byte by byte. */
  const same = async (a: string, b: string): Promise<void> => {
    const script =
      "open A, shift; open B, shift; for (;;) { read(A, $a, 1 << 20); read(B, $b, 1 << 20); $n += length $a; $a eq $b or die; last if $a eq '' } print $n";
    const r = await vm.exec([PERL, "-e", script, a, b], { timeoutMs: 600_000 });
    assert.equal(r.stderr, "");
    assert.equal(Number(r.stdout), SIZE * MIB);
  };
  before(async () => {
    await writeFile(readOnly, fixed);
    await writeFile(iso, isoImage("ENLIGHTEN", { "DATA.BIN": onDvd, "HELLO.TXT": Buffer.from("hello\n") }));
    vm = await startDebian({
      memoryMiB: 256,
      disks: [
        { file: raw, readOnly: false, createBytes: (SIZE + 16) * MIB },
        { file: fs, readOnly: false, createBytes: (SIZE + 32) * MIB },
        { file: readOnly, readOnly: true },
        { file: iso, readOnly: true, kind: "dvd" },
      ],
    });
    await disksInOrder(vm);
  });
  after(() => vm?.kill());

  const places = (): Promise<string> =>
    sh(vm, "for d in sda sdb sdc; do readlink /sys/block/$d/device | sed 's,.*/,,'; done | tr '\\n' ' '");

  it("come in the order of the options, with names that last", async () => {
    const sizes = (
      await sh(vm, "cat /sys/block/sda/size /sys/block/sdb/size /sys/block/sdc/size /sys/block/sr0/size")
    ).split("\n");
    assert.deepEqual(sizes.map(Number), [
      (SIZE + 16) * 2048,
      (SIZE + 32) * 2048,
      fixed.length / 512,
      (statSync(iso).size / 2048) * 4,
    ]);
    const identity = await sh(
      vm,
      "for d in sda sdb sdc; do read -r w </sys/block/$d/device/wwid; s=$(dd if=/sys/block/$d/device/vpd_pg80 bs=1 skip=4 2>/dev/null); readlink /sys/block/$d/device | sed 's,.*/,,'; echo $w $s; done",
    );
    const lines = identity.split("\n");
    assert.deepEqual([lines[0], lines[2], lines[4]], ["0:0:0:0", "0:0:0:1", "0:0:0:2"]);
    const names = [raw, fs, readOnly].map((file) => createHash("sha256").update(file).digest("hex").slice(0, 24));
    for (const [i, name] of names.entries()) assert.equal(lines[2 * i + 1], `naa.60022480${name} ${name}`);
    assert.equal(
      await sh(vm, "cat /sys/block/sda/device/vendor /sys/block/sda/device/model | tr -s ' \\n' ' '"),
      "Msft Virtual Disk",
    );
  });

  it("take no room on the host before they are written", () => {
    assert.ok(allocated(raw) < 64 << 10, `${allocated(raw)} bytes`);
    assert.ok(allocated(fs) < 64 << 10, `${allocated(fs)} bytes`);
  });

  it("can be partitioned", async () => {
    await sh(vm, `printf 'n\\np\\n1\\n${PARTITION / 512}\\n\\nw\\n' | fdisk /dev/sda`);
    await sh(vm, "until [ -b /dev/sda1 ]; do sleep 0.1; done");
    assert.equal(await sh(vm, "cat /sys/block/sda/sda1/start"), String(PARTITION / 512));
  });

  it(`carry ${SIZE} MiB each, by O_DIRECT and through ext4`, async () => {
    await sh(vm, "dd if=/dev/sdc of=/dev/sda1 bs=1M oflag=direct 2>/dev/null");
    await sh(vm, "mke2fs -F /dev/sdb >/dev/null; mkdir -p /mnt; mount -t ext4 /dev/sdb /mnt");
    await sh(vm, "dd if=/dev/sdc of=/mnt/f bs=1M conv=fsync 2>/dev/null");
    assert.equal(hashOfFile(raw, PARTITION, SIZE * MIB), hash);
    // what is read now comes from the disks
    await sh(vm, "echo 3 >/proc/sys/vm/drop_caches");
    await same("/dev/sdc", "/mnt/f");
    await same(
      "dd if=/dev/sdc bs=1M iflag=direct 2>/dev/null |",
      `dd if=/dev/sda1 bs=1M count=${SIZE} iflag=direct 2>/dev/null |`,
    );
  });

  it("take reads and writes of odd sizes", async () => {
    await sh(
      vm,
      `set -e; dd if=/dev/urandom of=/tmp/odd bs=512 count=2000 2>/dev/null
at=${SIZE * 2048}
for n in 1 3 7 15 33 65 127 129 255 257 513; do
  dd if=/tmp/odd of=/dev/sda1 bs=\${n}b count=1 seek=$((at))b oflag=direct,seek_bytes 2>/dev/null
  dd if=/dev/sda1 of=/tmp/back bs=\${n}b count=1 skip=$((at))b iflag=direct,skip_bytes 2>/dev/null
  dd if=/tmp/odd of=/tmp/want bs=\${n}b count=1 2>/dev/null
  cmp /tmp/back /tmp/want
  at=$((at+n))
done`,
    );
  });

  it("count what they do", async () => {
    const { disks } = await vm.integration.status();
    assert.deepEqual(
      disks.map((d) => d.file),
      [raw, fs, readOnly, iso],
    );
    for (const { counters } of disks.slice(0, 2)) {
      assert.ok(counters.bytesWritten! >= SIZE * MIB && counters.bytesRead! >= SIZE * MIB, JSON.stringify(counters));
      assert.ok(counters.writes! > 0 && counters.reads! > 0);
      assert.equal(counters.errors, 0);
    }
    assert.ok(disks[1]!.counters.flushes! > 0);
  });

  it("refuse writes when they are read-only", async () => {
    assert.equal(await sh(vm, "blockdev --getro /dev/sdc"), "1");
    assert.match(await sh(vm, "dmesg"), /\[sdc\] Write Protect is on/);
    assert.notEqual((await vm.exec("echo x >/dev/sdc", { timeoutMs: 60_000 })).exitCode, 0);
    // even when the guest has been told to believe otherwise
    await vm.exec("blockdev --setrw /dev/sdc; dd if=/dev/zero of=/dev/sdc bs=4k count=1 oflag=direct", {
      timeoutMs: 60_000,
    });
    assert.equal(hashOfFile(readOnly), sha256(fixed));
    await same("/dev/sdc", "/mnt/f");
  });

  it("are DVDs, with files", async () => {
    await sh(vm, "mkdir -p /dvd; modprobe isofs; mount -t iso9660 -o ro /dev/sr0 /dvd");
    assert.equal(await sh(vm, "cat /dvd/hello.txt"), "hello");
    assert.equal((await sh(vm, "sha256sum </dvd/data.bin")).split(" ")[0], sha256(onDvd));
    await sh(vm, "umount /dvd");
  });

  it("appear and go while the guest runs", async () => {
    const { integration } = vm;
    const file = join(folder, "added");
    const lun = await integration.addDisk({ file, readOnly: false, createBytes: 8 * MIB }, { timeoutMs: 30_000 });
    assert.equal(lun, 4);
    await sh(vm, "until [ -b /dev/sdd ]; do sleep 0.1; done");
    await sh(vm, "echo kept | dd of=/dev/sdd bs=512 conv=sync,fsync 2>/dev/null");
    await integration.removeDisk(lun, { timeoutMs: 30_000 });
    await sh(vm, "while [ -e /sys/block/sdd ]; do sleep 0.1; done");
    assert.equal((await integration.status()).disks.length, 4);
    // the file is free, and can come back
    assert.equal(await integration.addDisk({ file, readOnly: false }, { timeoutMs: 30_000 }), lun);
    await sh(vm, "until [ -b /dev/sdd ]; do sleep 0.1; done");
    assert.equal(await sh(vm, "head -c 4 /dev/sdd"), "kept");
    await assert.rejects(integration.addDisk({ file, readOnly: false }, { timeoutMs: 30_000 }), { code: "disk" });
    await integration.removeDisk(lun, { timeoutMs: 30_000 });
    await sh(vm, "while [ -e /sys/block/sdd ]; do sleep 0.1; done");
  });

  it("keep what was synced when the machine is reset", async () => {
    await sh(vm, "sync");
    vm.exec("echo b >/proc/sysrq-trigger").catch(() => {});
    await eventually("the reset", () => (vm.reboots === 1 ? true : undefined));
    await disksInOrder(vm);
    // Linux probes disks side by side: it must find them by their places all the same
    assert.equal(await places(), "0:0:0:0 0:0:0:1 0:0:0:2");
    await sh(vm, "mkdir -p /mnt; mount -t ext4 /dev/sdb /mnt");
    await same(`dd if=/dev/sda1 bs=1M count=${SIZE} iflag=direct 2>/dev/null |`, "/mnt/f");
    assert.equal(hashOfFile(raw, PARTITION, SIZE * MIB), hash);
  });

  it("give room back to the host when the guest discards", {
    skip: spawnSync("fallocate", ["-V"]).error !== undefined && "no fallocate here",
  }, async () => {
    await sh(vm, "dd if=/dev/urandom of=/mnt/more bs=1M count=16 conv=fsync 2>/dev/null");
    const full = allocated(fs);
    await sh(vm, "rm /mnt/more; sync; fstrim /mnt");
    await sh(vm, "sync");
    assert.ok(allocated(fs) <= full - 15 * MIB, `${full} bytes before, ${allocated(fs)} after`);
    const before = allocated(raw);
    const last = `$(( $(cat /sys/block/sda/sda1/size) * 512 - ${8 * MIB} ))`;
    await sh(vm, `dd if=/dev/urandom of=/dev/sda1 bs=1M count=8 seek=${last} oflag=direct,seek_bytes 2>/dev/null`);
    assert.ok(allocated(raw) >= before + 7 * MIB);
    await sh(vm, `blkdiscard -o ${last} -l ${8 * MIB} /dev/sda1`);
    assert.ok(allocated(raw) <= before + MIB, `${before} bytes before, ${allocated(raw)} after`);
  });

  it("have everything after power-off, and the guest had nothing to complain of", async () => {
    await assertQuiet(vm);
    const end = vm.waitForEnd({ timeoutMs: 60_000 });
    await vm.integration.shutdown({ timeoutMs: 60_000 });
    assert.equal((await end).how, "power-off");
    assert.equal(hashOfFile(raw, PARTITION, SIZE * MIB), hash);
    if (!hasDebugfs) return;
    // another implementation reads the file system
    const file = execFileSync("debugfs", ["-R", "cat /f", fs], {
      maxBuffer: 1 << 30,
      stdio: ["ignore", "pipe", "ignore"],
    });
    assert.equal(sha256(file), hash);
    execFileSync("e2fsck", ["-fn", fs], { stdio: "ignore" });
  });
});
