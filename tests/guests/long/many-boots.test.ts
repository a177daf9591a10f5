/** What takes many boots or connections: run with ENLIGHTEN_LONG=1. Other tests are larger with it, too. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "node:test";
import { startDebian } from "../guests.js";
import { assertQuiet, BOOT_MS, sh, testFolder } from "../hyperv-guest.js";
import { installPeer, listener, nothingLeft, send } from "../socket-peer.js";

describe("long runs", { skip: !process.env.ENLIGHTEN_LONG && "set ENLIGHTEN_LONG=1", timeout: 3_600_000 }, () => {
  for (const [name, number] of [
    ["5.2", 0x50002],
    ["5.1", 0x50001],
    ["5.0", 0x50000],
    ["4.1", 0x40001],
    ["3.0", 0x30000],
  ] as const) {
    it(`VMBus ${name}`, async () => {
      const folder = testFolder("older-bus");
      await using vm = await startDebian({
        append: `hv_vmbus.max_version=${number}`,
        disks: [{ file: join(folder, "disk"), readOnly: false, createBytes: 16 << 20 }],
        services: ["storage", "heartbeat", "shutdown", "timesync"],
      });
      assert.match(await sh(vm, "dmesg", BOOT_MS), new RegExp(`hv_vmbus: Vmbus version:${name.replace(".", "\\.")}\n`));
      await sh(vm, "head -c 4194304 /dev/urandom >/tmp/a && dd if=/tmp/a of=/dev/sda bs=64k oflag=direct 2>/dev/null");
      await sh(vm, "dd if=/dev/sda of=/tmp/b bs=64k count=64 iflag=direct 2>/dev/null; cmp /tmp/a /tmp/b");
      await vm.integration.waitForLights(["heartbeat", "shutdown", "timesync"], { timeoutMs: BOOT_MS });
      await assertQuiet(vm);
    });
  }

  it("disks keep their names over twenty boots", async () => {
    const folder = testFolder("names");
    const disks = [1, 2, 3, 4].map((i) => ({ file: join(folder, `${i}`), readOnly: false, createBytes: i << 20 }));
    for (let i = 0; i < 20; i++) {
      await using vm = await startDebian({ disks });
      await sh(vm, "until [ -b /dev/sdd ]; do sleep 0.1; done", BOOT_MS);
      assert.equal(await sh(vm, "cat /sys/block/sd?/size | tr '\\n' ' '"), "2048 4096 6144 8192", `boot ${i}`);
    }
  });

  it("a thousand short connections leave nothing behind", async () => {
    await using vm = await startDebian();
    await sh(vm, "true", BOOT_MS);
    await installPeer(vm);
    await listener(vm, "echo", 7100);
    for (let i = 0; i < 1000; i += 20)
      await Promise.all(
        Array.from({ length: 20 }, async (_, k) => {
          const socket = await vm.integration.connect(7100, { timeoutMs: 60_000 });
          const [, back] = await Promise.all([send(socket, Buffer.from(`${i + k}`)), socket.readAll()]);
          assert.equal(Buffer.from(back).toString(), `${i + k}`);
        }),
      );
    await nothingLeft(vm, 1);
    await assertQuiet(vm);
  });
});
