/** The deterministic scheduler: equal runs, and a machine saved in mid-boot that goes on in another process. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { promisify } from "node:util";
import { serialize } from "node:v8";
import { bootDeterministic, goOn } from "./deterministic-machine.js";

/** Instructions between the digests; ten of them cover a boot to the prompt. */
const STRIDE = 140e6;

describe("deterministic scheduler", () => {
  it("gives equal digests at ten points and equal console bytes in two boots, and after a save and a restore elsewhere", async () => {
    const first = await bootDeterministic();
    const digests: string[] = [];
    const dir = mkdtempSync(join(tmpdir(), "enlighten-saved-"));
    try {
      let restored: Promise<{ stdout: string }> | undefined;
      for (let i = 1; i <= 10; i++) {
        first.runTo(i * STRIDE);
        digests.push(first.digest());
        if (i === 4) {
          // in mid-boot: to another process, which goes on to the same points
          const file = join(dir, "state");
          writeFileSync(file, serialize({ state: first.save(), console: first.console() }));
          restored = promisify(execFile)(
            process.execPath,
            [join(import.meta.dirname, "restore-child.js"), file, String(STRIDE), "5", "10"],
            { maxBuffer: 16 << 20 },
          );
        }
      }
      const second = await bootDeterministic();
      for (let i = 1; i <= 10; i++) {
        second.runTo(i * STRIDE);
        // the first was saved at 4, which empties its TLB: the same has to happen here
        if (i === 4) second.save();
        assert.equal(second.digest(), digests[i - 1], `digest ${i}`);
      }
      assert.equal(second.console(), first.console());
      assert.ok(first.console().includes("Run /init"), "the boot has come to init");
      const child = JSON.parse((await restored!).stdout) as { digests: string[]; console: string };
      assert.deepEqual(child.digests, digests.slice(4));
      assert.equal(child.console, first.console());
      assert.ok(new Set(digests).size === 10, "the machine moves between the digests");
    } finally {
      rmSync(dir, { recursive: true });
    }
  });

  it("gives equal digests with regions too: they come at the same instructions", async () => {
    const [a, b] = [await bootDeterministic({ regions: true }), await bootDeterministic({ regions: true })];
    for (const m of [a, b]) m.runTo(300e6);
    assert.equal(a.digest(), b.digest());
    assert.ok(a.machine.thread.partition.vp.regions!.counters.installed > 10);
  });

  it("differs with another seed", async () => {
    const a = await bootDeterministic({ seed: 1 });
    const b = await bootDeterministic({ seed: 2 });
    for (const m of [a, b]) goOn(m, 200e6);
    assert.notEqual(a.digest(), b.digest());
  });
});
