/** Copies between host and guest: trees as `cp -a` makes them, what goes wrong on either side, and a guest that dies meanwhile. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { type CopyProgress, type Vm, VmError } from "../../src/vm/index.js";
import { startDebian } from "./guests.js";
import { allocated, assertQuiet, BOOT_MS, COMMAND_MS, hashOfFile, sh } from "./hyperv-guest.js";

const MS = { timeoutMs: COMMAND_MS };
const failsWith =
  (code: string, pattern: RegExp) =>
  (e: unknown): boolean => {
    assert.ok(e instanceof VmError, String(e));
    assert.equal(e.code, code, e.message);
    assert.match(e.message, pattern);
    return true;
  };

describe("copies of files", () => {
  let vm: Vm;
  let folder: string;
  const at = (name: string): string => join(folder, name);
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "enlighten-files-"));
    vm = await startDebian({ memoryMiB: 512 });
    await sh(vm, "true", BOOT_MS);
  });
  after(async () => {
    await vm?.kill();
    rmSync(folder, { recursive: true, force: true });
  });

  it("bring 20 MiB there and back, and tell how far they are", async () => {
    writeFileSync(at("big"), randomBytes(20 << 20));
    const seen: CopyProgress[] = [];
    const there = await vm.copyIn(at("big"), "/tmp/big", { ...MS, onProgress: (p) => void seen.push(p) });
    assert.deepEqual(there, { bytes: 20 << 20, files: 1, warnings: [] });
    assert.ok(seen.length > 10);
    assert.deepEqual(seen.at(-1), { bytes: 20 << 20, totalBytes: 20 << 20, files: 1, current: "big" });
    assert.ok(seen.every((p, i) => i === 0 || p.bytes >= seen[i - 1]!.bytes));
    assert.equal((await sh(vm, "sha256sum </tmp/big")).split(" ")[0], hashOfFile(at("big")));
    let total: number | undefined;
    await vm.copyOut("/tmp/big", at("back"), {
      ...MS,
      onProgress: (p) => {
        total = p.totalBytes;
      },
    });
    assert.equal(total, 20 << 20);
    assert.equal(hashOfFile(at("back")), hashOfFile(at("big")));
  });

  it("have the length that a file has in the end, though it was another when they began", async () => {
    const MIB = 1 << 20;
    for (const length of [30 * MIB + 5, 50 * MIB]) {
      writeFileSync(at("changes"), randomBytes(40 * MIB));
      let changed = false;
      await vm.copyIn(at("changes"), "/tmp/changes", {
        ...MS,
        onProgress: ({ bytes }) => {
          if (changed || bytes === 0) return;
          changed = true;
          assert.ok(bytes < 20 * MIB, `${bytes} bytes have been read`);
          truncateSync(at("changes"), length);
        },
      });
      assert.ok(changed);
      assert.equal((await sh(vm, "sha256sum </tmp/changes")).split(" ")[0], hashOfFile(at("changes")), String(length));
    }
    await sh(vm, "rm /tmp/changes");
  });

  it("keep a tree: modes, times, links, holes, empty folders, odd names", async () => {
    const tree = at("tree");
    mkdirSync(join(tree, "sub/empty"), { recursive: true });
    writeFileSync(join(tree, "a"), "hello");
    chmodSync(join(tree, "a"), 0o640);
    linkSync(join(tree, "a"), join(tree, "sub/b"));
    symlinkSync("/nowhere", join(tree, "dangling"));
    writeFileSync(join(tree, "ünï\ncode"), randomBytes(700_001));
    writeFileSync(Buffer.concat([Buffer.from(`${tree}/`), Buffer.of(0xff, 0x20)]), "not UTF-8");
    writeFileSync(join(tree, "empty"), "");
    writeFileSync(join(tree, "sparse"), "begin");
    truncateSync(join(tree, "sparse"), 60 << 20);
    utimesSync(join(tree, "sub/empty"), 1e9, 981_173_106.75);
    chmodSync(join(tree, "sub"), 0o2711);
    const r = await vm.copyIn(tree, "/tmp/", MS);
    assert.deepEqual([r.files, r.warnings], [10, []]);
    // each side lists its own, by its own tools
    const script = `cd TREE; stat -c '%n|%a|%Y|%h' a sub/b sub sub/empty sparse empty; stat -c %s sparse a; readlink dangling
      [ a -ef sub/b ] && echo linked; cat sub/b; cat ./*code | sha256sum; set -- *; echo $#`;
    const here = execFileSync("sh", ["-c", script.replace("TREE", tree)], { encoding: "utf8" });
    assert.equal(await sh(vm, script.replace("TREE", "/tmp/tree")), here.trim().replace(/\r/g, ""));
    assert.ok(Number((await sh(vm, "du -k /tmp/tree/sparse")).split("\t")[0]) < 1024);
    await vm.copyOut("/tmp/tree", at("tree2"), MS);
    // setgid is left out on the host
    const back = execFileSync("sh", ["-c", script.replace("TREE", at("tree2"))], { encoding: "utf8" });
    assert.equal(back, here.replace("sub|2711", "sub|711"));
    assert.ok(allocated(at("tree2/sparse")) < 1 << 20);
    assert.deepEqual(readdirSync(at("tree2"), "latin1").sort(), readdirSync(tree, "latin1").sort());
    assert.equal(statSync(at("tree2/sub/empty")).mtimeMs, 981_173_106_750);
  });

  it("make fifos and devices in the guest, and leave them out by name on the host", async () => {
    execFileSync("mkfifo", [at("fifo")]);
    await vm.copyIn(at("fifo"), "/tmp/fifo", MS);
    assert.equal(await sh(vm, "[ -p /tmp/fifo ] && echo yes"), "yes");
    await sh(vm, "mkdir /tmp/dev; mknod /tmp/dev/null c 1 3; mkfifo /tmp/dev/p; echo x >/tmp/dev/file");
    const told: string[] = [];
    const r = await vm.copyOut("/tmp/dev", at("dev"), { ...MS, onWarning: (w) => void told.push(w.path) });
    assert.deepEqual(told.sort(), [at("dev/null"), at("dev/p")]);
    assert.deepEqual(r.warnings.map((w) => w.reason).sort(), [
      "a character device cannot be made here",
      "a fifo cannot be made here",
    ]);
    assert.deepEqual(readdirSync(at("dev")), ["file"]);
  });

  it("go into a folder that is there, and read what has no size", async () => {
    await vm.copyOut("/proc/version", folder, MS);
    assert.equal(readFileSync(at("version"), "utf8").trim(), await sh(vm, "cat /proc/version"));
    await sh(vm, "mkdir -p /tmp/into");
    await vm.copyIn(at("version"), "/tmp/into", MS);
    await vm.copyIn(`${at("dev")}/.`, "/tmp/into", MS);
    assert.equal(await sh(vm, "ls /tmp/into"), "file\nversion");
  });

  it("say by code and path what is not there, not allowed, in the way", async () => {
    writeFileSync(at("f"), "x");
    await assert.rejects(vm.copyIn(at("no"), "/tmp", MS), failsWith("not-found", /\/no on this host/));
    await assert.rejects(vm.copyOut("/no/such", folder, MS), failsWith("not-found", /\/no\/such in the guest/));
    await assert.rejects(vm.copyIn(at("f"), "/no/f", MS), failsWith("not-found", /\/no\/f in the guest/));
    await assert.rejects(vm.copyOut("/etc/passwd", at("no/x"), MS), failsWith("not-found", /no\/x on this host/));
    const nobody = { ...MS, user: "nobody" };
    await assert.rejects(vm.copyIn(at("f"), "/root/f", nobody), failsWith("no-permission", /\/root\/f in the guest/));
    await sh(vm, "echo secret >/root/secret; chmod 600 /root/secret; chmod 755 /root");
    await assert.rejects(vm.copyOut("/root/secret", folder, nobody), failsWith("no-permission", /secret in the guest/));
    await assert.rejects(vm.copyIn(at("tree"), "/etc/passwd", MS), failsWith("exists", /\/etc\/passwd in the guest/));
    await assert.rejects(vm.copyIn("", "/tmp", MS), failsWith("bad-option", /no path/));
    await assert.rejects(vm.copyIn(at("f"), "a\0b", MS), failsWith("bad-option", /no path/));
  });

  it("say when the guest's disk is full", async () => {
    await sh(vm, "mkdir /tmp/small; mount -t tmpfs -o size=1m none /tmp/small");
    await assert.rejects(vm.copyIn(at("big"), "/tmp/small", MS), failsWith("no-space", /small\/big in the guest/));
    await sh(vm, "umount /tmp/small");
  });

  it("take no more than they may", async () => {
    const most = { ...MS, maxBytes: 1 << 20 };
    await assert.rejects(
      vm.copyOut("/tmp/big", at("most"), most),
      failsWith("no-space", /more than the 1048576 bytes/),
    );
    // half a file is none
    assert.throws(() => statSync(at("most")), /ENOENT/);
  });

  it("are given up by a signal and by time, and leave nothing that runs", async () => {
    const controller = new AbortController();
    const given = vm.copyIn(at("big"), "/tmp/given", {
      signal: controller.signal,
      onProgress: () => controller.abort(),
    });
    await assert.rejects(given, failsWith("aborted", /the copy of/));
    const gone = vm.copyOut("/dev/zero", at("zero"), MS);
    // a device is no file: nothing is read from it
    assert.equal((await gone).warnings.length, 1);
    const back = vm.copyOut("/tmp/big", at("late"), { timeoutMs: 1 });
    await assert.rejects(back, failsWith("timeout", /waited 1 ms/));
    assert.throws(() => statSync(at("late")), /ENOENT/);
    await vm.copyOut("/tmp/fifo", at("other"), MS);
  });

  it("leave no complaint behind", async () => {
    await assertQuiet(vm);
  });

  it("fail with the panic when the guest dies in the middle", async () => {
    let asked = false;
    const dying = vm.copyIn(at("big"), "/tmp/dying", {
      timeoutMs: COMMAND_MS,
      onProgress: () => {
        if (!asked) vm.exec("echo c >/proc/sysrq-trigger").catch(() => {});
        asked = true;
      },
    });
    // it may be through by the time that the guest gets there: then the next one fails
    await assert.rejects(
      dying.then(async () => {
        await vm.waitForEnd(MS);
        await vm.copyIn(at("big"), "/tmp/dying", MS);
      }),
      failsWith("guest-crashed", /sysrq triggered crash/),
    );
  });
});
