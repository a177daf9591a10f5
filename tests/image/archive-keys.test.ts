/** The keys that come with us: used on a host without any, and enough for the archives of each release that has a guest. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { readKeys } from "openpgp";
import { readAptSettings } from "../../src/host/node/apt-sources.js";
import { ENGINE_FILES } from "../../src/host/node/engine-files.js";
import { readKeyring } from "../../src/host/node/keyring.js";
import { Mirror } from "../../src/host/node/mirror.js";
import { parseRelease, verifyClearsigned } from "../../src/image/debian-index.js";
import { ImageError } from "../../src/image/errors.js";
import type { Archive } from "../../src/image/package-source.js";

describe("the archive's keys", () => {
  let host: string;
  before(async () => {
    host = await mkdtemp(join(tmpdir(), "enlighten-keys-"));
  });
  after(() => rm(host, { recursive: true }));

  it("come with us where the host has none", async () => {
    assert.deepEqual(await readKeyring(undefined, host), await readFile(ENGINE_FILES.archiveKeys));
  });

  it("are the host's where it has some", async () => {
    const folder = join(host, "usr/share/keyrings");
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, "debian-archive-keyring.pgp"), "the host's");
    assert.equal((await readKeyring(undefined, host)).toString(), "the host's");
    await rm(join(host, "usr"), { recursive: true });
  });

  it("are public ones of Debian's archive, and nothing else", async () => {
    const keys = await readKeys({ binaryKeys: await readKeyring(undefined, host) });
    for (const key of keys) {
      assert.equal(key.isPrivate(), false);
      for (const user of key.users)
        assert.match(
          user.userID!.userID,
          /^Debian .* Key \((11\/bullseye|12\/bookworm|13\/trixie)\) <\S+@(lists\.)?debian\.org>$/,
        );
    }
    assert.equal(keys.length, 9); // archive, security archive and release of each
  });

  for (const codename of ["bullseye", "bookworm", "trixie"]) {
    it(`verify ${codename}'s indexes as the mirror has them`, async (t) => {
      const keys = await readKeyring(undefined, host);
      const apt = await readAptSettings();
      const suites: readonly [Archive, string][] = [
        ["main", codename],
        ["security", `${codename}-security`],
      ];
      for (const [archive, suite] of suites) {
        let bytes: Uint8Array;
        try {
          const source = new Mirror({ environment: process.env, apt, keyring: async () => keys });
          bytes = await source.fetch(archive, `dists/${suite}/InRelease`);
        } catch (error) {
          if (!(error instanceof ImageError)) throw error;
          return t.skip(`${suite}'s index cannot be fetched: ${error.message}`);
        }
        assert.equal(parseRelease(await verifyClearsigned(bytes, keys, suite, Date.now()), suite).codename, suite);
      }
    });
  }
});
