/**
 * Real programs in debian:12-full give what they give natively: Python's own tests, OpenSSL, SQLite, GCC. The other side is the same
 * root disk, unpacked here and run with chroot.
 *
 *   ENLIGHTEN_LONG=1 node --test dist/tests/full/real-programs.test.js
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { createVm, type Vm } from "../../src/host/node/index.js";
import { testFolder } from "../guests/hyperv-guest.js";
import { generatedProgram, generatedSql } from "./generated-program.js";
import { NativeRoot } from "./native-root.js";
import { OPENSSL_SCRIPT } from "./openssl-script.js";

const skip =
  process.env.ENLIGHTEN_LONG !== "1"
    ? "takes half an hour: set ENLIGHTEN_LONG=1"
    : process.getuid?.() !== 0
      ? "needs root on the host, for chroot"
      : false;
const LONG_MS = 1_800_000;

const PYTHON_TESTS = ["math", "float", "struct", "decimal", "zlib", "hashlib"];

describe("real programs in debian:12-full", { skip, timeout: 3 * LONG_MS }, () => {
  let vm: Vm;
  let native: NativeRoot;
  const folder = skip === false ? testFolder("programs") : "";

  before(async () => {
    const rootFile = join(folder, "root.raw");
    vm = await createVm({
      image: "debian:12-full",
      packages: ["libpython3.11-testsuite"],
      memoryMiB: 1024,
      rootFile,
    });
    native = new NativeRoot(rootFile, join(folder, "native"));
    await vm.start();
    // what a first boot does is done before the measured work
    await vm.exec("systemctl is-system-running --wait", { timeoutMs: LONG_MS });
  });
  after(() => vm?.kill());

  async function guest(command: string, stdin?: string | Uint8Array): Promise<string> {
    const r = await vm.exec(command, { timeoutMs: LONG_MS, ...(stdin === undefined ? {} : { stdin }) });
    assert.equal(r.exitCode, 0, `${command} in the guest: ${r.stdout.slice(-2000)}${r.stderr.slice(-2000)}`);
    return r.stdout;
  }
  async function host(command: string): Promise<string> {
    const r = await native.run(command);
    assert.equal(r.exitCode, 0, `${command} natively: ${r.stdout.slice(-2000)}${r.stderr.slice(-2000)}`);
    return r.stdout;
  }
  async function put(path: string, data: string): Promise<void> {
    native.write(path, data);
    await guest(`cat >${path}`, data);
  }
  /** The command says the same on both sides. @returns what */
  async function same(command: string): Promise<string> {
    const right = await host(command);
    const seen = await guest(command);
    assert.deepEqual(seen.split("\n"), right.split("\n"), command);
    return seen;
  }

  it("the two sides are the same files", async () => {
    const files = "/usr/bin/python3.11 /usr/bin/openssl /usr/bin/sqlite3 /usr/lib/x86_64-linux-gnu/libc.so.6";
    await same(`sha256sum ${files} /usr/lib/gcc/x86_64-linux-gnu/12/cc1`);
  });

  for (const name of PYTHON_TESTS) {
    it(`python's test_${name} has the results of a native run, case by case`, async () => {
      const command = `cd /tmp && python3 -m test -v test_${name} 2>&1`;
      // what the machine is and how long things take are no results
      const lines = (text: string): string[] =>
        text
          .split("\n")
          .filter((l) => !/^(== |\d:\d\d:\d\d |Total duration:|test_\w+ (passed )?in \d)/.test(l))
          .map((l) => l.replace(/ in [\d.]+s$/, ""));
      const right = lines(await host(command));
      assert.match(right.join("\n"), /^Ran \d{2,} tests$/m);
      assert.deepEqual(lines(await guest(command)), right);
    });
  }

  it("openssl: every digest, cipher and MAC that it lists, on fixed inputs", async () => {
    await put("/root/openssl.py", OPENSSL_SCRIPT);
    const seen = await same("python3 /root/openssl.py");
    assert.ok(seen.split("\n").length > 150, seen);
    for (const kind of ["digest", "cipher", "mac"]) await same(`openssl list -${kind}-algorithms`);
  });

  it("openssl: known answers", async () => {
    const digest = async (name: string): Promise<string> =>
      (await guest(`printf abc | openssl dgst -${name} -r`)).slice(0, -" *stdin\n".length);
    // FIPS 180-4 and 202, and RFC 1321: examples
    assert.equal(await digest("md5"), "900150983cd24fb0d6963f7d28e17f72");
    assert.equal(await digest("sha1"), "a9993e364706816aba3e25717850c26c9cd0d89d");
    assert.equal(await digest("sha256"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert.equal(await digest("sha3-256"), "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532");
    // FIPS 197, appendix C
    const plain = "00112233445566778899aabbccddeeff";
    const key = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    for (const [bits, right] of [
      [128, "69c4e0d86a7b0430d8cdb78070b4c55a"],
      [192, "dda97ca4864cdfe06eaf70a0ec0d7191"],
      [256, "8ea2b7ca516745bfeafc49904b496089"],
    ] as const) {
      const command = `printf '${plain.replace(/../g, "\\x$&")}' | openssl enc -aes-${bits}-ecb -nopad -K ${key.slice(0, bits / 4)} | od -An -tx1 | tr -d ' \\n'`;
      assert.equal(await guest(`bash -c "${command.replaceAll('"', '\\"')}"`), right);
    }
  });

  it("openssl: what one side signs the other one takes", async () => {
    await put("/root/text", "to be signed\n");
    await host(
      "cd /root && openssl genrsa -out rsa.pem 2048 && openssl ecparam -name prime256v1 -genkey -noout -out ec.pem",
    );
    await host("cd /root && openssl genpkey -algorithm ed25519 -out ed.pem");
    for (const name of ["rsa", "ec", "ed"]) await put(`/root/${name}.pem`, native.read(`/root/${name}.pem`).toString());
    // these two have no chance in them
    await same("cd /root && openssl dgst -sha256 -sign rsa.pem text | sha256sum");
    await same("cd /root && openssl pkeyutl -sign -rawin -inkey ed.pem -in text | sha256sum");
    const signature = await guest("cd /root && openssl dgst -sha256 -sign ec.pem text | base64");
    native.write("/root/signature", Buffer.from(signature, "base64"));
    await host("cd /root && openssl dgst -sha256 -prverify ec.pem -signature signature text");
    await guest(
      "cd /root && openssl dgst -sha256 -sign ec.pem -out s text && openssl dgst -sha256 -prverify ec.pem -signature s text",
    );
  });

  it("openssl speed runs through", async () => {
    const names =
      "md5 sha1 sha256 sha512 aes-128-cbc aes-256-cbc camellia-128-cbc ghash rsa2048 dsa2048 ecdsap256 ecdhx25519 ed25519 ffdh2048";
    const seen = await guest(`openssl speed -seconds 1 -bytes 4096 ${names} 2>/dev/null`);
    assert.match(seen, /^sha256 +[\d.]+k/m);
    assert.match(seen, /^rsa 2048 bits +[\d.]+s/m);
    for (const name of ["aes-256-gcm", "chacha20-poly1305"])
      assert.match(await guest(`openssl speed -seconds 1 -bytes 4096 -evp ${name} 2>/dev/null`), /[\d.]+k/);
  });

  it("sqlite: a database of 50,000 rows with indices, changed at random", async () => {
    await put("/root/work.sql", generatedSql(20, 50_000, 20_000));
    const run = "cd /root && rm -f work.db && sqlite3 work.db <work.sql";
    await Promise.all([host(run), guest(run)]);
    const ask = (sql: string): Promise<string> => same(`sqlite3 /root/work.db "${sql}"`);
    assert.equal(await ask("PRAGMA integrity_check"), "ok\n");
    await ask(
      "SELECT count(*), sum(amount), avg(price), total(price * amount), max(name), sum(length(data)) FROM item",
    );
    await ask(
      "SELECT day, count(*), sum(number * price) FROM sale JOIN item ON item = id GROUP BY day ORDER BY day LIMIT 500",
    );
    await ask("SELECT name, price FROM item WHERE name LIKE '%qu%' ORDER BY price DESC, id LIMIT 200");
    await same("sqlite3 /root/work.db .dump | sha256sum");
    await same("sha256sum /root/work.db");
  });

  it("gcc: compiles 5,000 lines to the same code, which gives the same output", async () => {
    const source = generatedProgram(12, 5000);
    assert.ok(source.split("\n").length >= 5000);
    await put("/root/program.c", source);
    for (const level of ["-O0", "-O2"]) {
      await same(`cd /root && gcc -w ${level} -S -o program.s program.c && sha256sum program.s`);
      const output = await same("cd /root && gcc -o program program.s -lm && ./program");
      assert.ok(output.split("\n").length > 500);
    }
  });
});
