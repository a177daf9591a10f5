import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { type CacheFiles, FolderCache, sha256 } from "../../src/host/node/package-cache.js";
import { encodeUtf8, utf8 } from "../../src/image/byte-reader.js";
import { type CpioEntry, readCpio } from "../../src/image/cpio.js";
import { type AssembleOptions, assembleDebianGuest, parseReference } from "../../src/image/debian-guest.js";
import { ImageError } from "../../src/image/errors.js";
import type { Progress } from "../../src/image/package-source.js";
import { SyntheticMirror } from "./synthetic-archive.js";

const DAY = 24 * 60 * 60 * 1000;
const hasCode =
  (code: string, text = "") =>
  (error: unknown): boolean => {
    assert.ok(error instanceof ImageError, String(error));
    assert.equal(error.code, code);
    assert.ok(error.message.includes(text), error.message);
    assert.notEqual(error.hint, "");
    return true;
  };

function fileIn(entries: readonly CpioEntry[], path: string): string {
  const entry = entries.find((e) => e.path === path);
  assert.equal(entry?.kind, "file", path);
  return utf8((entry as Extract<CpioEntry, { kind: "file" }>).data);
}

describe("debian guest", () => {
  let folder: string;
  let mirror: SyntheticMirror;
  let now: number;
  let events: Progress[];

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "enlighten-cache-"));
    mirror = await SyntheticMirror.create();
    now = Date.now() + 60_000;
    events = [];
  });
  afterEach(() => rm(folder, { recursive: true }));

  const options = (more: Partial<AssembleOptions> = {}): AssembleOptions => ({
    reference: "debian:12",
    source: mirror,
    cache: new FolderCache(folder),
    sha256,
    now: () => now,
    progress: (event) => events.push(event),
    ...more,
  });

  it("takes the newest kernel of all suites, and only the modules that are wanted", async () => {
    const guest = await assembleDebianGuest(options());
    assert.equal(guest.kernelVersion, "6.1.0-7-cloud-amd64");
    assert.equal(utf8(guest.kernel), "a kernel");
    assert.deepEqual(
      guest.packages.map(({ name }) => name),
      ["linux-image-6.1.0-7-cloud-amd64", "busybox-static", "base-files", "hyperv-daemons"],
    );
    const entries = readCpio(guest.initramfs);
    const modules = entries.filter(({ path }) => path.endsWith(".ko")).map(({ path }) => path.replace(/^.*\//, ""));
    assert.deepEqual(modules.sort(), [
      "fat.ko",
      "hv_storvsc.ko",
      "hv_vmbus.ko",
      "hyperv-keyboard.ko",
      "scsi_mod.ko",
      "vfat.ko",
    ]);
    const dep = fileIn(entries, "lib/modules/6.1.0-7-cloud-amd64/modules.dep");
    assert.match(
      dep,
      /^kernel\/drivers\/scsi\/hv_storvsc\.ko: kernel\/drivers\/hv\/hv_vmbus\.ko kernel\/drivers\/scsi\/scsi_mod\.ko$/m,
    );
    assert.match(
      fileIn(entries, "lib/modules/6.1.0-7-cloud-amd64/modules.alias"),
      /^alias vmbus:hyperv-keyboard hyperv_keyboard$/m,
    );
    assert.equal(fileIn(entries, "etc/os-release"), "ID=debian\n");
    assert.match(fileIn(entries, "etc/profile"), /PS1='debian:12 \\w # '/);
    assert.equal(fileIn(entries, "usr/sbin/hv_kvp_daemon"), "#!daemon");
  });

  it("makes every entry's directory before the entry, and each path once", async () => {
    const entries = readCpio((await assembleDebianGuest(options())).initramfs);
    const seen = new Set<string>();
    for (const { path, kind } of entries) {
      assert.ok(!seen.has(path), `${path} twice`);
      const slash = path.lastIndexOf("/");
      if (slash > 0) assert.ok(seen.has(path.slice(0, slash)), `nothing above ${path}`);
      if (kind !== "symlink") assert.ok(!path.startsWith("/"));
      seen.add(path);
    }
  });

  it("is the same, byte for byte, each time it is assembled", async () => {
    const first = await assembleDebianGuest(options());
    await rm(folder, { recursive: true });
    const second = await assembleDebianGuest(options());
    assert.deepEqual(second.initramfs, first.initramfs);
  });

  it("asks the network nothing within a day, and the index only after it", async () => {
    await assembleDebianGuest(options());
    mirror.requests.length = 0;
    now += DAY - 1000;
    await assembleDebianGuest(options());
    assert.deepEqual(mirror.requests, []);
    now += 2000;
    await assembleDebianGuest(options());
    assert.deepEqual(mirror.requests.sort(), [
      "main/dists/bookworm/InRelease",
      "security/dists/bookworm-security/InRelease",
    ]);
  });

  it("works offline from the cache, and says so when it has nothing", async () => {
    await assert.rejects(assembleDebianGuest(options({ offline: true })), hasCode("not-cached"));
    await assembleDebianGuest(options());
    mirror.isDown = true;
    now += 30 * DAY;
    await assert.rejects(assembleDebianGuest(options()), hasCode("network"));
    assert.equal(utf8((await assembleDebianGuest(options({ offline: true }))).kernel), "a kernel");
  });

  it("refuses an expired index, but takes it offline or when told to, and says so", async () => {
    mirror = await SyntheticMirror.create(new Date(now + DAY).toUTCString());
    await assembleDebianGuest(options());
    now += 2 * DAY;
    await assert.rejects(assembleDebianGuest(options()), hasCode("release-expired", "InRelease"));
    for (const more of [{ offline: true }, { allowExpired: true }]) {
      events = [];
      await assembleDebianGuest(options(more));
      assert.ok(events.some((event) => event.step === "warning" && event.code === "release-expired"));
    }
  });

  it("refuses an unsigned, a changed and a foreign InRelease by name", async () => {
    const path = "main/dists/bookworm/InRelease";
    const signed = utf8(mirror.files.get(path)!);
    mirror.files.set(path, encodeUtf8(signed.split("\n").slice(3, 8).join("\n")));
    await assert.rejects(assembleDebianGuest(options()), hasCode("bad-signature", "bookworm's InRelease"));
    mirror.files.set(path, encodeUtf8(signed.replace("Origin: Debian", "Origin: Debiam")));
    await assert.rejects(assembleDebianGuest(options()), hasCode("bad-signature", "changed after it was signed"));
    mirror.files.set(path, (await SyntheticMirror.create()).files.get(path)!);
    await assert.rejects(assembleDebianGuest(options()), hasCode("bad-signature", "by a key we know"));
    mirror.files.set(path, mirror.files.get("security/dists/bookworm-security/InRelease")!);
    await assert.rejects(assembleDebianGuest(options()), hasCode("wrong-suite", "bookworm's InRelease"));
  });

  it("ignores what stands around the signed text", async () => {
    const path = "main/dists/bookworm/InRelease";
    const signed = utf8(mirror.files.get(path)!);
    mirror.files.set(path, encodeUtf8(`${signed}\nSHA256:\n ${"0".repeat(64)} 1 main/binary-amd64/Packages.xz\n`));
    const guest = await assembleDebianGuest(options()).catch((error: unknown) => hasCode("bad-signature")(error));
    if (typeof guest === "object") assert.equal(utf8(guest.kernel), "a kernel");
  });

  it("refuses a damaged index and a damaged package by name", async () => {
    for (const [path, name] of [
      ["main/dists/bookworm/main/binary-amd64/Packages.xz", "bookworm's index"],
      ["main/pool/busybox-static_1.35.0-4_amd64.deb", "busybox-static"],
    ] as const) {
      const whole = mirror.files.get(path)!;
      const bad = whole.slice();
      bad[bad.length >> 1]! ^= 1;
      for (const bytes of [bad, whole.subarray(0, -1)]) {
        mirror.files.set(path, bytes);
        await assert.rejects(assembleDebianGuest(options()), hasCode("wrong-hash", name));
      }
      mirror.files.set(path, whole);
    }
    await assembleDebianGuest(options());
  });

  it("fetches again what was damaged in the cache", async () => {
    const first = await assembleDebianGuest(options());
    const files = await readdir(folder, { recursive: true, withFileTypes: true });
    for (const file of files) {
      if (file.isFile() && !file.name.endsWith(".json")) await writeFile(join(file.parentPath, file.name), "damaged");
    }
    assert.deepEqual((await assembleDebianGuest(options())).initramfs, first.initramfs);
  });

  it("goes on without a security archive, with a warning", async () => {
    mirror.files.delete("security/dists/bookworm-security/InRelease");
    await assert.rejects(assembleDebianGuest(options()), hasCode("missing-package", "linux-image-6.1.0-5-cloud-amd64"));
    assert.ok(events.some((event) => event.step === "warning" && event.code === "no-security-suite"));
  });

  it("stops when it is aborted, and when the disk is full leaves nothing half-written", async () => {
    const reason = new Error("stopped by the user");
    await assert.rejects(
      assembleDebianGuest(options({ signal: AbortSignal.abort(reason) })),
      (error) => error === reason,
    );

    const written = new Set<string>();
    const full: CacheFiles = {
      mkdir: async () => {},
      read: async () => {
        throw Object.assign(new Error("no entry"), { code: "ENOENT" });
      },
      write: async (path) => {
        written.add(path);
        throw Object.assign(new Error("no space"), { code: "ENOSPC" });
      },
      rename: async () => assert.fail("renamed a file that was not written"),
      remove: async (path) => {
        written.delete(path);
      },
    };
    const cache = new FolderCache(folder, full);
    await assert.rejects(assembleDebianGuest(options({ cache })), hasCode("disk-full", folder));
    assert.equal(written.size, 0);
  });

  it("knows its references", () => {
    assert.equal(parseReference("debian:12").codename, "bookworm");
    assert.equal(parseReference("debian:13-rt").kernelPackage, "linux-image-rt-amd64");
    for (const reference of ["debian:1", "debian", "debian:12-amiga", "ubuntu:24.04"]) {
      assert.throws(() => parseReference(reference), hasCode("unknown-guest", reference));
    }
  });

  it("keeps no partial files in the cache", async () => {
    await assembleDebianGuest(options());
    const names = await readdir(folder, { recursive: true });
    assert.deepEqual(
      names.filter((name) => name.endsWith(".part")),
      [],
    );
    const record = JSON.parse(await readFile(join(folder, "records/release-bookworm.json"), "utf8"));
    assert.equal(record.fetchedAt, now);
  });
});
