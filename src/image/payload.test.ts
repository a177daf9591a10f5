/** What a builder guest is given: packages that are not packed, archives of our own, an ISO image. Debian's tools read them. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { debOf } from "../../tests/image/synthetic-archive.js";
import { readAr } from "./ar.js";
import { concatBytes, encodeUtf8, latin1, utf8 } from "./byte-reader.js";
import { readDeb, unpackDeb, writeDeb } from "./deb.js";
import { ImageError } from "./errors.js";
import { guestPackage } from "./init/full-guest-init.js";
import { IsoWriter } from "./iso-writer.js";
import { readTar } from "./tar.js";
import { withoutEndMark, writeTar } from "./tar-writer.js";

const CONTROL = "Package: thing\nVersion: 1.0\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: a thing\n";
const missing = (tool: string): string | false =>
  spawnSync(tool, ["--version"]).error === undefined ? false : `${tool} is not installed`;

describe("payload of a builder guest", () => {
  let folder: string;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), "enlighten-payload-"));
  });
  after(() => rmSync(folder, { recursive: true }));

  const dpkg = (bytes: Uint8Array, ...args: string[]): string => {
    const file = join(folder, "test.deb");
    writeFileSync(file, bytes);
    const { status, stdout, stderr } = spawnSync("dpkg-deb", [...args, file], { encoding: "utf8" });
    assert.equal(status, 0, stderr);
    return stdout;
  };

  it("unpacks a package's members, and dpkg reads the same from it", { skip: missing("dpkg-deb") }, async () => {
    const packed = debOf(CONTROL, [{ path: "usr/bin/thing", data: "x".repeat(5001) }]);
    const { deb, data } = await unpackDeb(packed);
    assert.deepEqual(
      readAr(deb).map(({ name }) => name),
      ["debian-binary", "control.tar", "data.tar"],
    );
    assert.deepEqual((await readDeb(deb)).files, (await readDeb(packed)).files);
    assert.equal(readTar(data)[0]?.path, "usr/bin/thing");
    for (const what of ["--field", "--contents"]) assert.equal(dpkg(deb, what), dpkg(packed, what));
  });

  it("refuses a package without data", async () => {
    const { deb } = await unpackDeb(debOf(CONTROL, []));
    const cut = deb.subarray(0, deb.indexOf(0x64, 200)); // before "data.tar"
    await assert.rejects(unpackDeb(cut), (e: unknown) => e instanceof ImageError && e.code !== "");
    await assert.rejects(unpackDeb(encodeUtf8("!<arch>\n")), (e: unknown) => e instanceof ImageError);
  });

  it("writes a package that dpkg takes", { skip: missing("dpkg-deb") }, () => {
    const deb = writeDeb(CONTROL, [
      { kind: "directory", path: "etc", mode: 0o755 },
      { kind: "file", path: "etc/thing", mode: 0o640, data: encodeUtf8("12345") },
      { kind: "symlink", path: "etc/link", target: "/run/thing" },
    ]);
    assert.match(dpkg(deb, "--field"), /^Package: thing$/m);
    const contents = dpkg(deb, "--contents");
    assert.match(contents, /^drwxr-xr-x root\/root .* \.\/etc\/$/m);
    assert.match(contents, /^-rw-r----- root\/root +5 .* \.\/etc\/thing$/m);
    assert.match(contents, /^lrwxrwxrwx .* \.\/etc\/link -> \/run\/thing$/m);
    assert.match(dpkg(guestPackage(), "--contents"), /enlighten-agent\.service/);
    assert.equal(dpkg(guestPackage(), "--field", "--").includes("linux-initramfs-tool"), true);
  });

  it("strings tar archives together", () => {
    const tar = (path: string): Uint8Array => writeTar([{ kind: "file", path, mode: 0o644, data: encodeUtf8(path) }]);
    const padded = concatBytes([tar("a"), new Uint8Array(10240)]);
    const both = readTar(concatBytes([withoutEndMark(padded), tar("b")]));
    assert.deepEqual(
      both.map(({ path, data }) => [path, utf8(data)]),
      [
        ["a", "a"],
        ["b", "b"],
      ],
    );
  });

  it("writes an ISO image whose folder spans sectors", async () => {
    const image = new Uint8Array(4 << 20);
    let end = 0;
    const iso = new IsoWriter(async (offset, bytes) => {
      image.set(bytes, offset);
      end = Math.max(end, offset + bytes.length);
    });
    const files = Array.from({ length: 200 }, (_, i) => [`F${i}.BIN`, "y".repeat(i * 37)] as const);
    for (const [name, text] of files) await iso.add(name, [encodeUtf8(text.slice(0, 5)), encodeUtf8(text.slice(5))]);
    await assert.rejects(iso.add("lower.bin", []), /level 1/);
    const size = await iso.finish("TEST");
    assert.ok(size >= end && size - end < 2048);

    // read back as ECMA-119 has it: volume descriptor, root folder, records
    const view = new DataView(image.buffer);
    assert.equal(latin1(image.subarray(16 * 2048 + 1, 16 * 2048 + 6)), "CD001");
    assert.equal(view.getUint32(16 * 2048 + 80, true) * 2048, size);
    const root = 16 * 2048 + 156;
    const start = view.getUint32(root + 2, true) * 2048;
    const length = view.getUint32(root + 10, true);
    assert.equal(view.getUint32(root + 14), length);
    const found = new Map<string, string>();
    for (let at = start; at < start + length; ) {
      const size = image[at]!;
      if (size === 0) {
        at = Math.ceil(at / 2048) * 2048;
        continue;
      }
      assert.equal(Math.floor(at / 2048), Math.floor((at + size - 1) / 2048), "a record crosses a sector's end");
      const name = latin1(image.subarray(at + 33, at + 33 + image[at + 32]!));
      const place = view.getUint32(at + 2, true) * 2048;
      if (image[at + 25] === 0) found.set(name, utf8(image.subarray(place, place + view.getUint32(at + 10, true))));
      at += size;
    }
    assert.deepEqual(found, new Map(files.map(([name, text]) => [`${name};1`, text])));
    assert.deepEqual([...found.keys()], [...found.keys()].sort());
  });
});
