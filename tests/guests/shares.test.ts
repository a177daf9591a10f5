/** Folders of the host in a guest, by the guest's own NFS client: what each side does the other sees, and nothing outside is reached. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { createVm } from "../../src/host/node/index.js";
import { type Vm, VmError } from "../../src/vm/index.js";
import { enlighten, startDebian } from "./guests.js";
import { allocated, assertQuiet, BOOT_MS, eventually, hashOfFile, PERL, sh } from "./hyperv-guest.js";

const fails =
  (code: string, pattern: RegExp) =>
  (e: unknown): boolean =>
    e instanceof VmError && e.code === code && pattern.test(e.message) && e.hint !== "";

describe("shared folders", () => {
  let vm: Vm;
  let base: string;
  let work: string;
  const problems: string[] = [];
  before(async () => {
    base = mkdtempSync(join(tmpdir(), "enlighten-shares-"));
    work = join(base, "work");
    mkdirSync(join(work, "sub"), { recursive: true });
    mkdirSync(join(base, "read only"));
    writeFileSync(join(base, "outside"), "secret");
    writeFileSync(join(base, "read only/file"), "read me");
    writeFileSync(join(work, "hello"), "from the host\n", { mode: 0o644 });
    vm = await startDebian({
      shares: [{ directory: work }, { directory: join(base, "read only"), readOnly: true, mountPoint: "/srv/deep/ro" }],
    });
    vm.integration.onProblem((text) => void problems.push(text));
    await sh(vm, "true", BOOT_MS);
  });
  after(async () => {
    await vm?.kill();
    rmSync(base, { recursive: true, force: true });
  });

  it("are there before the first command, and in the status", async () => {
    assert.deepEqual(problems, []);
    assert.equal(await sh(vm, "cat /mnt/work/hello; cat /srv/deep/ro/file"), "from the host\nread me");
    const { shares, shareCalls } = await vm.integration.status();
    assert.deepEqual(
      shares.map(({ mountPoint, readOnly }) => [mountPoint, readOnly]),
      [
        ["/mnt/work", false],
        ["/srv/deep/ro", true],
      ],
    );
    assert.ok(shareCalls > 0);
  });
  it("take what a guest makes, as the host's user's", async () => {
    await sh(
      vm,
      `cd /mnt/work; mkdir -p made/deep; echo text >made/file; chmod 640 made/file; ln made/file made/second
      ln -s file made/link; mv made/file made/deep/ünï; dd if=/dev/zero of=made/sparse bs=1 count=1 seek=30000000 2>/dev/null
      printf %s "it's" >"made/odd name
"; umask 077; mkdir made/private; sync`,
    );
    const made = join(work, "made");
    assert.deepEqual(readdirSync(made).sort(), ["deep", "link", "odd name\n", "private", "second", "sparse"]);
    assert.equal(readFileSync(join(made, "deep/ünï"), "utf8"), "text\n");
    const s = statSync(join(made, "second"));
    assert.deepEqual([s.mode & 0o7777, s.nlink, s.uid], [0o640, 2, process.getuid!()]);
    assert.equal(readlinkSync(join(made, "link")), "file");
    assert.equal(statSync(join(made, "private")).mode & 0o7777, 0o700);
    assert.equal(statSync(join(made, "sparse")).size, 30_000_001);
    assert.ok(allocated(join(made, "sparse")) < 1 << 20);
    assert.equal(await sh(vm, "stat -c '%u %g %a %h' /mnt/work/made/second"), "0 0 640 2");
    await sh(vm, "rm -r /mnt/work/made");
    assert.equal(existsSync(made), false);
  });
  it("carry 8 MiB each way unchanged", async () => {
    writeFileSync(join(work, "big"), randomBytes(8 << 20));
    const before = hashOfFile(join(work, "big"));
    assert.equal((await sh(vm, "cp /mnt/work/big /tmp/big; sha256sum </tmp/big")).split(" ")[0], before);
    await sh(vm, "cp /tmp/big /mnt/work/back; rm /tmp/big");
    assert.equal(hashOfFile(join(work, "back")), before);
  });
  it("list a thousand files, once each, and remove them", async () => {
    mkdirSync(join(work, "many"));
    for (let i = 0; i < 1000; i++) writeFileSync(join(work, `many/f${i}`), "");
    assert.equal(
      await sh(vm, "ls /mnt/work/many | sort -u | wc -l; find /mnt/work/many -type f | wc -l"),
      "1000\n1000",
    );
    await sh(vm, "cd /mnt/work/many; rm f[1-9]?; rm f9??");
    assert.equal(readdirSync(join(work, "many")).length, 810);
    rmSync(join(work, "many"), { recursive: true });
  });
  it("show what the host changes, at once in a file that is opened", async () => {
    writeFileSync(join(work, "hello"), "changed on the host\n");
    assert.equal(await sh(vm, "cat /mnt/work/hello"), "changed on the host");
    writeFileSync(join(work, "new"), "");
    await eventually("the new file", async () => ((await sh(vm, "ls /mnt/work")).includes("new") ? true : undefined));
  });
  it("tell the guest what the host changes, also in what it only looks at", async () => {
    mkdirSync(join(work, "looked-at/deep"), { recursive: true });
    const file = join(work, "looked-at/deep/file");
    writeFileSync(file, "four", { mode: 0o644 });
    const look = (): Promise<string> =>
      sh(
        vm,
        "cd /mnt/work/looked-at; stat -c '%s %a' deep/file; [ -e deep/new ] && echo new; [ -e deep ] || echo none",
      );
    assert.equal(await look(), "4 644");
    // the guest's own idea of them is good for ten minutes
    assert.match(await sh(vm, "cat /proc/mounts"), /\/mnt\/work nfs .*acregmin=600,acregmax=600,acdirmin=600/);
    const becomes = (what: string): Promise<true> =>
      eventually(what, async () => ((await look()) === what ? true : undefined));
    writeFileSync(file, "eight...");
    await becomes("8 644");
    chmodSync(file, 0o600);
    await becomes("8 600");
    writeFileSync(join(work, "looked-at/deep/new"), "");
    await becomes("8 600\nnew");
    rmSync(join(work, "looked-at/deep/new"));
    await becomes("8 600");
    renameSync(join(work, "looked-at/deep"), join(work, "looked-at/elsewhere"));
    await becomes("none");
    mkdirSync(join(work, "looked-at/deep"));
    writeFileSync(file, "another");
    await becomes("7 644");
    rmSync(join(work, "looked-at"), { recursive: true });
  });
  it("have files listed ahead of a guest that goes through them one by one", async () => {
    const FOLDERS = 60;
    const FILES = 40;
    for (let d = 0; d < FOLDERS; d++) {
      mkdirSync(join(work, `tree/d${10 + d}`), { recursive: true });
      for (let f = 0; f < FILES; f++) writeFileSync(join(work, `tree/d${10 + d}/f${f}`), "");
    }
    const callsOf = async (command: string): Promise<number> => {
      const { shareCalls: before } = await vm.integration.status();
      await sh(vm, command);
      return (await vm.integration.status()).shareCalls - before;
    };
    const through = (folders: string): string =>
      `cd /mnt/work/tree; for d in ${folders}; do f=0; while [ $f -lt ${FILES} ]; do [ -e $d/f$f ] || exit 9; f=$((f+1)); done; done`;
    assert.ok((await callsOf(through("d10 d11 d12"))) > 20);
    // from the last one back, as each look makes one more known
    let last = 10 + FOLDERS;
    await eventually("the last folders to be known", async () =>
      (await callsOf(`[ -e /mnt/work/tree/d${--last}/f7 ]`)) === 0 ? true : undefined,
    );
    const calls = await callsOf(through("d*"));
    assert.ok(calls < (FOLDERS * FILES) / 10, `${calls} calls`);
    rmSync(join(work, "tree"), { recursive: true });
  });
  it("may not be written where they are for reading", async () => {
    for (const command of ["echo x >/srv/deep/ro/file", "touch /srv/deep/ro/new", "rm /srv/deep/ro/file"])
      assert.notEqual((await vm.exec(command, { timeoutMs: 30_000 })).exitCode, 0, command);
    // the guest's own mount may say otherwise: the server does not
    await sh(vm, "mount -o remount,rw /srv/deep/ro");
    const r = await vm.exec("echo x >/srv/deep/ro/file", { timeoutMs: 30_000 });
    assert.match(r.stderr, /Read-only file system|Permission denied/);
    assert.deepEqual(readdirSync(join(base, "read only")), ["file"]);
    assert.equal(readFileSync(join(base, "read only/file"), "utf8"), "read me");
  });
  it("are not reached by a program of another user, whoever it says that it is", async () => {
    // a call that does nothing (NULL), on a connection from a port that anybody may have
    const script = `$p = pack("C4", 10, 0, 2, 3); socket(S, 2, 1, 0); bind(S, pack("Snx12", 2, PORT)) or die "bind: $!\n";
      connect(S, pack("Sna4x8", 2, 2049, $p)) or do { print "refused"; exit };
      syswrite(S, pack("N11", 0x80000028, 1, 0, 2, 100003, 3, 0, 0, 0, 0, 0)); sysread(S, $r, 28); print length $r`;
    const run = async (port: number, user: string): Promise<string> => {
      const r = await vm.exec([PERL, "-e", script.replace("PORT", String(port))], { user, timeoutMs: 30_000 });
      return r.stdout + r.stderr;
    };
    assert.equal(await run(0, "nobody"), "refused");
    assert.equal(await run(999, "nobody"), "bind: Permission denied\n");
    assert.equal(await run(999, "root"), "28");
  });
  it("lead nowhere else", async () => {
    symlinkSync("../outside", join(work, "way"));
    symlinkSync(join(base, "outside"), join(work, "absolute"));
    // links are the guest's: they lead to places in the guest, where there is no such file
    for (const path of ["way", "absolute", "../outside"])
      assert.notEqual((await vm.exec(["cat", `/mnt/work/${path}`], { timeoutMs: 30_000 })).exitCode, 0, path);
    assert.equal(await sh(vm, "readlink /mnt/work/way"), "../outside");
    // setuid is not lent, owners stay
    const r = await vm.exec("cd /mnt/work; echo >s; chmod 4755 s; chown 1000 s", { timeoutMs: 30_000 });
    assert.match(r.stderr, /Operation not permitted/);
    assert.equal(statSync(join(work, "s")).mode & 0o7777, 0o755);
  });
  it("are there in a machine that was saved and goes on elsewhere", async () => {
    writeFileSync(join(work, "changed"), "");
    assert.equal(await sh(vm, "stat -c %s /mnt/work/changed"), "0");
    await sh(vm, "echo before >/mnt/work/saved; cat /mnt/work/saved; exec 3</mnt/work/saved; sleep 1");
    const saved = await vm.save({ timeoutMs: 60_000 });
    await vm.kill();
    writeFileSync(join(work, "changed"), "meanwhile");
    vm = await startDebian({
      saved,
      shares: [{ directory: work }, { directory: join(base, "read only"), readOnly: true, mountPoint: "/srv/deep/ro" }],
    });
    assert.equal(
      await sh(vm, "cat /mnt/work/saved; echo after >>/mnt/work/saved; sync; ls /mnt/work | grep -c saved"),
      "before\n1",
    );
    assert.equal(readFileSync(join(work, "saved"), "utf8"), "before\nafter\n");
    await eventually("what was changed while it was saved", async () =>
      (await sh(vm, "stat -c %s /mnt/work/changed")) === "9" ? true : undefined,
    );
  });
  it("say that they are stale when the folder is removed, and the guest lives on", async () => {
    rmSync(work, { recursive: true });
    const error = await eventually("an error", async () => {
      const r = await vm.exec("cat /mnt/work/hello", { timeoutMs: 30_000 });
      return r.exitCode === 0 ? undefined : r.stderr;
    });
    assert.match(error, /Stale file handle|No such file|Input\/output error/);
    assert.equal(await sh(vm, "cat /srv/deep/ro/file"), "read me");
    mkdirSync(work);
  });
  it("leave no complaint behind", async () => {
    await assertQuiet(vm);
    assert.deepEqual(problems, []);
  });
});

describe("shares that cannot be", () => {
  it("are refused before the guest starts", async () => {
    const folder = mkdtempSync(join(tmpdir(), "enlighten-shares-"));
    try {
      writeFileSync(join(folder, "f"), "");
      const refused = (options: Parameters<typeof createVm>[0], code: string, pattern: RegExp): Promise<void> =>
        assert.rejects(createVm({ memoryMiB: 128, ...options }), fails(code, pattern));
      await refused({ shares: [{ directory: join(folder, "no") }] }, "not-found", /\/no on this host/);
      await refused({ shares: [{ directory: join(folder, "f") }] }, "bad-option", /is no folder/);
      await refused({ shares: [{ directory: folder, mountPoint: "/a/../b" }] }, "bad-option", /no place for a share/);
      await refused({ shares: [{ directory: folder }, { directory: folder }] }, "bad-option", /two shares/);
      await refused({ shares: [{ directory: folder }], network: { mode: "none" } }, "bad-option", /network adapter/);
      await refused({ shares: [{ directory: folder }], services: "none" }, "bad-option", /no agent/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe("enlighten run --share", () => {
  it("gives a command the folder, and takes what it writes", async () => {
    const folder = mkdtempSync(join(tmpdir(), "enlighten-shares-"));
    try {
      writeFileSync(join(folder, "in"), "abc");
      execFileSync("mkdir", [join(folder, "ro")]);
      const r = await enlighten([
        ...["run", "-m", "256M", "--share", `${folder}:/data`, "--share", `${folder}/ro:ro`],
        ...["--exec", "tr a-c x-z </data/in >/data/out; touch /mnt/ro/x"],
      ]);
      assert.equal(r.code, 1, r.stderr);
      assert.match(r.stderr, /Read-only file system/);
      assert.equal(readFileSync(join(folder, "out"), "utf8"), "xyz");
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
