import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { type FullGuestOptions, fullGuest, isFullReference } from "../../src/host/node/full-guest.js";
import { FolderCache, sha256 } from "../../src/host/node/package-cache.js";
import { ImageError } from "../../src/image/errors.js";
import { type FullGuestPlan, planFullGuest, WANTED_PACKAGES, writePayload } from "../../src/image/full-guest.js";
import type { Archive } from "../../src/image/package-source.js";
import { PACKAGES, SyntheticMirror, type TestPackage } from "./synthetic-archive.js";

const ESSENTIAL = "Essential: yes\nPriority: required\n";
const LIBRARIES = ["libc6", "libext2fs2", "libcom-err2", "libblkid1", "libuuid1"];

/** An archive that has all that is wanted, in miniature. */
function archive(dpkgVersion = "1.0"): Record<Archive, TestPackage[]> {
  const plain = [...WANTED_PACKAGES, ...LIBRARIES, "perl-base", "systemd", "cron", "usr-is-merged", "usrmerge"]
    .filter((name) => name !== "hyperv-daemons")
    .map(
      (name): TestPackage => ({ name, version: "1", ...(name === "cron" ? { fields: "Priority: important\n" } : {}) }),
    );
  return {
    main: [
      ...PACKAGES.main.map((p) => (p.name === "base-files" ? { ...p, fields: ESSENTIAL } : p)),
      ...plain,
      { name: "dpkg", version: dpkgVersion, depends: "libc6", fields: ESSENTIAL },
      { name: "init-helpers", version: "1", depends: "usrmerge | usr-is-merged", fields: ESSENTIAL },
      {
        name: "e2fsprogs",
        version: "1",
        files: [{ path: "sbin/mke2fs", data: "#!mke2fs" }, { path: "etc/mke2fs.conf" }],
      },
      { name: "extra", version: "1", depends: "extra-library" },
      { name: "extra-library", version: "1" },
      { name: "sqlite3-other", version: "1", fields: "Provides: sqlite3\nConflicts: sqlite3\n" },
    ],
    security: PACKAGES.security.map((p) =>
      p.name.includes("-7-") ? { ...p, depends: "kmod, initramfs-tools | linux-initramfs-tool" } : p,
    ),
  };
}
const namesOf = (plan: FullGuestPlan): string[] => plan.packages.map(({ record }) => record.name);

describe("full guest", () => {
  let folder: string;
  let mirror: SyntheticMirror;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "enlighten-full-"));
    mirror = await SyntheticMirror.create(undefined, archive());
  });
  after(() => rm(folder, { recursive: true }));

  const now = Date.now() + 60_000;
  const plan = (extra: readonly string[] = [], source = mirror, cache = "plan"): Promise<FullGuestPlan> =>
    planFullGuest("debian:12-full", extra, {
      source,
      cache: new FolderCache(join(folder, cache)),
      sha256,
      now: () => now,
    });

  it("is told from other references", () => {
    assert.deepEqual(["debian:12-full", "debian:12", "debian:99-full", "x-full"].map(isFullReference), [
      true,
      false,
      false,
      false,
    ]);
  });

  it("installs what is essential, important, wanted and asked for, the essential first, with the newest kernel", async () => {
    const p = await plan();
    const names = namesOf(p);
    assert.deepEqual([...p.essential].sort(), ["base-files", "dpkg", "init-helpers", "libc6", "usr-is-merged"]);
    for (const name of [...WANTED_PACKAGES, "cron", "linux-image-6.1.0-7-cloud-amd64"])
      assert.ok(names.includes(name), name);
    assert.deepEqual([...p.essential, ...p.layers.flat()].sort(), [...names, "enlighten-guest"].sort());
    for (const name of ["usrmerge", "extra", "initramfs-tools"]) assert.ok(!names.includes(name), name);
    assert.equal(new Set(names).size, names.length);
  });

  it("begins a disk with extra packages as one without, and adds what they need", async () => {
    const [plain, more] = [await plan(), await plan(["extra"])];
    assert.equal(plain.base, undefined);
    assert.equal(more.base?.key, plain.key);
    assert.deepEqual(namesOf(more.base), namesOf(plain));
    assert.deepEqual(namesOf(more), ["extra-library", "extra"]);
    assert.deepEqual([more.essential, more.layers], [[], [["extra-library", "extra"]]]);
    assert.equal(more.uuid, plain.uuid); // it is the same file system
    // what it has anyway makes no other disk
    assert.equal((await plan(["cron", "libc6"])).key, plain.key);
  });

  it("takes no package that excludes one of the system's", async () => {
    await assert.rejects(
      plan(["sqlite3-other"]),
      (e: unknown) => e instanceof ImageError && e.code === "package-conflict" && /sqlite3-other/.test(e.message),
    );
  });

  it("has a key for what the disk is made of", async () => {
    const { key, uuid } = await plan();
    assert.match(key, /^[0-9a-f]{64}$/);
    assert.match(uuid, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}$/);
    assert.equal((await plan([], mirror, "another-cache")).key, key);
    assert.notEqual((await plan(["extra"])).key, key);
    const newer = await SyntheticMirror.create(undefined, archive("1.1"));
    assert.notEqual((await plan([], newer, "newer")).key, key);
  });

  it("refuses names that are no packages, or that the archive lacks", async () => {
    const code = (c: string) => (e: unknown) => e instanceof ImageError && e.code === c && e.hint !== "";
    await assert.rejects(plan(["--force-all"]), code("bad-package"));
    await assert.rejects(plan(["no-such-package"]), code("missing-package"));
    await assert.rejects(plan(["extar", "extra", "sqllite"]), (e: unknown) => {
      assert.ok(e instanceof ImageError);
      assert.deepEqual(
        [e.message, e.hint],
        ["Debian's bookworm has no package extar and no sqllite", "one of these: extra, sqlite3"],
      );
      return true;
    });
  });

  it("puts every package on the payload", async () => {
    const seen: string[] = [];
    const p = await plan();
    const size = await writePayload(
      p,
      async () => {},
      (_n, name) => seen.push(name),
    );
    assert.deepEqual(seen, namesOf(p));
    assert.ok(size > 20 * 2048);
  });

  it("leaves nothing behind when the disk cannot be made, and says which step failed", async () => {
    for (const [path, bytes] of mirror.files) {
      const file = join(folder, "mirror", path.replace(/^main/, "debian").replace(/^security/, "debian-security"));
      await mkdir(dirname(file), { recursive: true });
      await writeFile(file, bytes);
    }
    const keyring = join(folder, "keyring.asc");
    await writeFile(keyring, await mirror.keyring());
    const options: FullGuestOptions = {
      mirror: `file://${folder}/mirror/debian`,
      keyring,
      environment: { XDG_CACHE_HOME: join(folder, "build") },
    };
    // the miniature kernel boots nowhere
    await assert.rejects(fullGuest("debian:12-full", options), (e: unknown) => {
      assert.ok(e instanceof ImageError, String(e));
      assert.equal(e.code, "build-failed");
      assert.match(e.message, /starting the builder guest failed/);
      return true;
    });
    const cache = join(folder, "build/enlighten");
    assert.deepEqual(await readdir(join(cache, "disks")), []);
    assert.deepEqual(
      (await readdir(join(cache, "records"))).filter((name) => name.startsWith("root-")),
      [],
    );
    assert.ok(!(await readdir(cache)).includes("machines"));
  });

  it("says offline which file the cache lacks, and what to do", async () => {
    const source = await SyntheticMirror.create(undefined, archive());
    const cache = new FolderCache(join(folder, "offline"));
    const options = { source, cache, sha256, now: () => now };
    const missing = (what: RegExp) => (e: unknown) =>
      e instanceof ImageError && e.code === "not-cached" && what.test(e.message) && /--offline/.test(e.hint);
    await assert.rejects(
      planFullGuest("debian:12-full", [], { ...options, offline: true }),
      missing(/index of bookworm/),
    );
    await planFullGuest("debian:12-full", [], options);
    const p = await planFullGuest("debian:12-full", ["extra"], { ...options, offline: true });
    await assert.rejects(p.archive.fetch(p.packages[0]!), missing(/extra-library/));
  });
});
