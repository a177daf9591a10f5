/** A program of many workloads gives the same sums in the guest as natively. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { it } from "node:test";
import { buildGuestbench, differences, runInGuest, runNative } from "../../bench/guestbench/guestbench.js";

it("guestbench's twenty checksums are native's", { timeout: 300_000 }, async () => {
  const folder = await mkdtemp(join(tmpdir(), "enlighten-guestbench-test-"));
  try {
    const program = buildGuestbench(folder);
    const selection = { divide: 200 };
    const native = runNative(program, selection);
    assert.equal(native.length, 20);
    assert.deepEqual(differences(native, await runInGuest(program, { ...selection, timeoutMs: 240_000 })), []);
  } finally {
    await rm(folder, { recursive: true });
  }
});
