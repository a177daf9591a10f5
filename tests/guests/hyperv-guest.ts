/** What the tests of the Hyper-V drivers share: commands that must work, conditions to wait for, what a guest must not say. */
import assert from "node:assert/strict";
import { createHash, type Hash } from "node:crypto";
import { closeSync, mkdtempSync, openSync, readSync, statSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import type { Vm } from "../../src/vm/index.js";

export const BOOT_MS = 120_000;
export const COMMAND_MS = 60_000;
export const PERL = "/usr/lib/enlighten/perl";

/** Runs a shell script that must succeed. @returns its output, without white space around */
export async function sh(vm: Vm, script: string, timeoutMs = COMMAND_MS): Promise<string> {
  const r = await vm.exec(script, { timeoutMs });
  assert.equal(r.exitCode, 0, `${script}\nexit ${r.exitCode}\n${r.stdout}${r.stderr}`);
  return r.stdout.trim();
}

/** Asks until the answer is good. Every wait of these tests has a condition; none has a guessed time. */
export async function eventually<T>(
  what: string,
  ask: () => Promise<T | undefined> | T | undefined,
  timeoutMs = 60_000,
): Promise<T> {
  const end = Date.now() + timeoutMs;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (Date.now() > end) throw new Error(`waited ${timeoutMs} ms for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** A folder that goes when the suite or the test that asks for it has ended; not for hooks, whose end would be that of the folder. */
export function testFolder(name: string): string {
  const folder = mkdtempSync(join(tmpdir(), `enlighten-${name}-`));
  after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/**
 * Lines of the kernel's log that tell of something wrong. One is our own doing: modules come without their signatures, which are
 * slow to check.
 */
export function complaints(dmesg: string): string[] {
  return dmesg
    .split("\n")
    .filter((line) =>
      /failed|timed out|Invalid|Unknown GUID|unchecked MSR|WARNING|Call Trace|hung task|BUG:|probe of|I\/O error/.test(
        line,
      ),
    )
    .filter((line) => !line.includes("hv_vmbus: module verification failed: signature and/or required key missing"));
}
export async function assertQuiet(vm: Vm): Promise<void> {
  assert.deepEqual(complaints(await sh(vm, "dmesg")), []);
}

/** Bytes of the file that take room on the host. */
export const allocated = (file: string): number => statSync(file).blocks * 512;

/** SHA-256 of a part of a host file. */
export function hashOfFile(file: string, offset = 0, length = statSync(file).size - offset): string {
  const fd = openSync(file, "r");
  const hash: Hash = createHash("sha256");
  const piece = Buffer.alloc(1 << 20);
  try {
    for (let at = 0; at < length; ) {
      const n = readSync(fd, piece, 0, Math.min(piece.length, length - at), offset + at);
      if (n === 0) break;
      hash.update(piece.subarray(0, n));
      at += n;
    }
  } finally {
    closeSync(fd);
  }
  return hash.digest("hex");
}
export const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

/** Seconds by which the guest's clock is ahead of the host's; the command's own time is the error, and is taken out by half. */
export async function clockDifference(vm: Vm): Promise<{ readonly seconds: number; readonly error: number }> {
  const before = Date.now();
  // clock_gettime(CLOCK_REALTIME)
  const script = '$b = pack("qq", 0, 0); syscall(228, 0, $b); printf "%d.%09d", unpack("qq", $b)';
  const r = await vm.exec([PERL, "-e", script], { timeoutMs: COMMAND_MS });
  const later = Date.now();
  assert.equal(r.exitCode, 0, r.stderr);
  return { seconds: Number(r.stdout) - (before + later) / 2000, error: (later - before) / 2000 };
}

/** Devices on the guest's bus that are no connections. */
export const OFFERED = `for d in /sys/bus/vmbus/devices/*; do
  [ -e "$d" ] || continue
  read -r class <$d/class_id; read -r state <$d/state
  driver=$(readlink $d/driver); echo "$class $state \${driver##*/}"
done`;
export const CLASSES: Readonly<Record<string, { readonly classId: string; readonly driver: string }>> = {
  storage: { classId: "{ba6163d9-04a1-4d29-b605-72e2ffb1dc7f}", driver: "hv_storvsc" },
  network: { classId: "{f8615163-df3e-46c5-913f-f2d2f965ed0e}", driver: "hv_netvsc" },
  heartbeat: { classId: "{57164f39-9115-4e78-ab55-382f3bd5422d}", driver: "hv_utils" },
  shutdown: { classId: "{0e0b6031-5213-4934-818b-38d90ced39db}", driver: "hv_utils" },
  timesync: { classId: "{9527e630-d0ae-497b-adce-e80ab0175caf}", driver: "hv_utils" },
};
/** The class ids of connections end so. */
export const isSocket = (line: string): boolean => line.includes("-facb-11e6-bd58-64006a7986d3}");
