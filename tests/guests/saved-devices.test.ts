/** Machines that are saved while they write to a disk, and go on elsewhere. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { copyFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { it } from "node:test";
import { promisify } from "node:util";
import { serialize } from "node:v8";
import { createVm } from "../../src/host/node/index.js";
import { goOn } from "./deterministic-machine.js";
import { startDebian } from "./guests.js";
import { assertQuiet, BOOT_MS, eventually, hashOfFile, sh, testFolder } from "./hyperv-guest.js";
import { type SavedMachine, steppedFrom } from "./stepped-storage.js";

/** Instructions after the save at which the machines are compared; the last is behind the last write. */
const POINTS = [1e6, 5e6, 20e6, 60e6, 200e6];
const MIB = 1 << 20;

it("a deterministic machine saved in the middle of its writes goes on equal in another process", async () => {
  const folder = testFolder("saved");
  const [disk, copy, state] = ["disk", "copy", "state"].map((name) => join(folder, name)) as [string, string, string];
  const first = await steppedFrom(disk);
  for (let i = 0; !first.console().includes("block 10\r\n"); i++) {
    assert.ok(i < 600, `no sign of the writes:\n${first.console().slice(-2000)}`);
    goOn(first, 5e6);
  }
  const from = first.machine.thread.partition.vp.retired;
  const devices = first.machine.devices!.save();
  const saved: SavedMachine = { partition: first.save(), devices, console: first.console() };
  writeFileSync(state, serialize(saved));
  copyFileSync(disk, copy);
  const child = promisify(execFile)(
    process.execPath,
    [join(import.meta.dirname, "restore-devices-child.js"), state, copy, String(from), ...POINTS.map(String)],
    { maxBuffer: 16 << 20 },
  );
  const digests: string[] = [];
  for (const point of POINTS) {
    first.runTo(from + point);
    digests.push(first.digest());
  }
  const text = first.console();
  await first.close();
  const other = JSON.parse((await child).stdout) as { digests: string[]; console: string; disk: string };
  assert.deepEqual(other.digests, digests);
  assert.equal(other.console, text);
  assert.ok(text.includes("all written"), text.slice(-300));
  assert.equal(other.disk, hashOfFile(disk));
  assert.equal(new Set(digests).size, POINTS.length, "the machine moves between the digests");
});

it("a machine saved while it writes finishes its writes elsewhere, with its services", async () => {
  const folder = testFolder("saved-parallel");
  const disk = { file: join(folder, "disk"), readOnly: false };
  await using vm = await startDebian({ memoryMiB: 128, disks: [{ ...disk, createBytes: 64 * MIB }] });
  await sh(vm, "until [ -b /dev/sda ]; do sleep 0.1; done; head -c 2097152 /dev/urandom >/tmp/piece", BOOT_MS);
  const hash = (await sh(vm, "for i in $(seq 8); do cat /tmp/piece; done | sha256sum")).split(" ")[0];
  await sh(
    vm,
    `(n=0; while [ $n -lt 8 ]; do dd if=/tmp/piece of=/dev/sda bs=64k seek=$((n*32)) oflag=direct 2>>/tmp/errors || echo failed >>/tmp/errors; n=$((n+1)); echo $n >/tmp/n; done; sync; echo done >/tmp/n) </dev/null >/dev/null 2>&1 & true`,
  );
  await eventually("writes", async () =>
    (await vm.integration.status()).disks[0]!.counters.writes! > 8 ? true : undefined,
  );
  const state = await vm.save({ timeoutMs: 60_000 });
  await vm.kill();
  // nothing of what it writes from here on is there yet
  await using other = await createVm({ saved: state, disks: [disk] });
  await other.start();
  await other.integration.waitForLights(["storage", "heartbeat", "shutdown", "timesync"], { timeoutMs: 60_000 });
  await sh(other, 'until [ "$(cat /tmp/n)" = done ]; do sleep 0.1; done');
  assert.doesNotMatch(await sh(other, "cat /tmp/errors"), /failed/);
  assert.equal(hashOfFile(disk.file, 0, 16 * MIB), hash);
  await eventually("a heartbeat", async () =>
    (await other.integration.heartbeat()).health === "ok" ? true : undefined,
  );
  await assertQuiet(other);
  const end = other.waitForEnd({ timeoutMs: 60_000 });
  await other.integration.shutdown({ timeoutMs: 60_000 });
  assert.equal((await end).how, "power-off");
});

it("a machine that is paused can be saved, and goes on afterwards", async () => {
  await using vm = await startDebian({ memoryMiB: 128 });
  await sh(vm, "echo kept >/tmp/mark", BOOT_MS);
  await vm.pause({ timeoutMs: 30_000 });
  const state = await vm.save({ timeoutMs: 30_000 });
  assert.ok(vm.paused);
  vm.resume();
  assert.equal(await sh(vm, "cat /tmp/mark"), "kept");
  await vm.kill();
  await using other = await createVm({ saved: state });
  await other.start();
  assert.equal(await sh(other, "cat /tmp/mark"), "kept");
});
