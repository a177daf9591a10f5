/** The package as a stranger gets it: packed, installed into an empty folder without a network, used as program and library. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { pathToFileURL } from "node:url";
import { debian } from "../guests/guests.js";

const root = join(import.meta.dirname, "../../..");
interface Result {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}
/** Runs a program to its end, in a folder; never with what npm sets for the scripts that it runs. */
function run(cwd: string, program: string, ...args: string[]): Promise<Result> {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(npm_|NODE_)/.test(name)));
  return new Promise((resolve) => {
    execFile(program, args, { cwd, env, maxBuffer: 16 << 20 }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : typeof error.code === "number" ? error.code : -1, stdout, stderr });
    });
  });
}
async function succeed(cwd: string, program: string, ...args: string[]): Promise<Result> {
  const r = await run(cwd, program, ...args);
  assert.equal(r.code, 0, `${program} ${args.join(" ")}\n${r.stdout}${r.stderr}`);
  return r;
}

describe("the package", () => {
  let folder: string;
  let user: string;
  let installed: string;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "enlighten-package-"));
    user = join(folder, "user");
    installed = join(user, "node_modules", "enlighten");
    await mkdir(user);
    // what prepack does, but for building anew: the tests are about what they were built with
    await succeed(root, process.execPath, "scripts/bundle.mjs");
    await succeed(
      root,
      "npm",
      "pack",
      "--offline",
      "--ignore-scripts",
      "--loglevel=error",
      "--pack-destination",
      folder,
    );
    const tarball = (await readdir(folder)).find((name) => name.endsWith(".tgz"))!;
    await writeFile(join(user, "package.json"), '{ "name": "user", "version": "1.0.0", "private": true }');
    await succeed(
      user,
      "npm",
      "install",
      "--offline",
      "--no-audit",
      "--no-fund",
      "--loglevel=error",
      join(folder, tarball),
    );
  });
  after(() => rm(folder, { recursive: true }));

  it("has no dependencies, no install script, no native code, and nothing of the checkout", async () => {
    const manifest = JSON.parse(await readFile(join(installed, "package.json"), "utf8")) as Record<
      string,
      Record<string, string> | undefined
    >;
    for (const name of ["dependencies", "optionalDependencies", "peerDependencies", "bundleDependencies"])
      assert.equal(manifest[name], undefined);
    for (const name of ["preinstall", "install", "postinstall", "prepare"])
      assert.equal(manifest.scripts?.[name], undefined);
    assert.match(manifest.scripts?.prepack ?? "", /bundle\.mjs$/);
    assert.deepEqual(
      (await readdir(join(user, "node_modules"))).filter((name) => !name.startsWith(".")),
      ["enlighten"],
    );
    const files = await readdir(installed, { recursive: true });
    assert.deepEqual(
      files.filter((name) => /\.(node|so|dll|dylib|c|ts)$|\.test\./.test(name) && !name.endsWith(".d.ts")),
      [],
    );
    for (const name of [
      "LICENSE",
      "README.md",
      "dist/bundle/runtime.wasm",
      "dist/bundle/interpreter.wasm",
      "dist/bundle/debian-archive-keys.gpg",
    ])
      assert.ok(files.includes(name), name);
  });

  it("names every library that is in it, with its licence", async () => {
    const notices = await readFile(join(installed, "dist/bundle/THIRD-PARTY-NOTICES"), "utf8");
    for (const name of ["commander", "fzstd", "openpgp", "xz-decompress"])
      assert.match(notices, new RegExp(`^${name} \\d+\\.\\S+ \\(.*\\)$`, "m"));
    assert.match(notices, /GNU LESSER GENERAL PUBLIC LICENSE/);
    const code = (await readdir(join(installed, "dist/bundle"))).filter((name) => name.endsWith(".js"));
    for (const name of code) {
      const text = await readFile(join(installed, "dist/bundle", name), "utf8");
      for (const [, target] of text.matchAll(/^(?:import|export)[^"']*["']([^"']+)["'];$/gm)) {
        assert.match(target!, /^(\.\/|node:|module$)/, `${name} imports ${target}`);
      }
    }
  });

  it("has the program", async () => {
    const program = join(user, "node_modules", ".bin", "enlighten");
    assert.match((await succeed(user, program, "--help")).stdout, /inspect/);
    const kernel = join(folder, "vmlinuz");
    await writeFile(kernel, (await (await debian()).load()).kernel);
    assert.match((await succeed(user, program, "inspect", kernel)).stdout, /^kernel +6\.1\./m);
    assert.equal((await run(user, program, "inspect", join(folder, "nowhere"))).code, 127);
  });

  it("has types that a strict compiler takes", async () => {
    await writeFile(
      join(user, "typed.mts"),
      `import { createVm, type Vm, VmError, inspectFile } from "enlighten";
      const vm: Vm = await createVm({ image: "debian:12", memoryMiB: 256 });
      vm.write("uname\\n");
      const match: string = await vm.waitFor(/Linux/, { timeoutMs: 1000 }).catch((e: unknown) => { throw e instanceof VmError ? e : new Error(); });
      // @ts-expect-error there is no such option
      await createVm({ picture: "debian:12" });
      export const out: [string, boolean] = [match, (await inspectFile("x")).bootable.ok];
      `,
    );
    const tsc = join(root, "node_modules/typescript/bin/tsc");
    await succeed(
      user,
      process.execPath,
      tsc,
      "--noEmit",
      "--strict",
      "--target",
      "es2022",
      "--module",
      "nodenext",
      "--typeRoots",
      join(root, "node_modules/@types"),
      "--types",
      "node",
      "typed.mts",
    );
  });

  it("checks signatures: the library for it is found", async () => {
    const suite = join(folder, "mirror/debian/dists/bookworm");
    await mkdir(suite, { recursive: true });
    await writeFile(join(suite, "InRelease"), "-----BEGIN PGP SIGNED MESSAGE-----\n\nCodename: bookworm\n");
    const program = join(user, "node_modules", ".bin", "enlighten");
    const mirror = pathToFileURL(join(folder, "mirror/debian")).href;
    const r = await run(
      user,
      "env",
      `XDG_CACHE_HOME=${join(folder, "cache")}`,
      program,
      "run",
      "--mirror",
      mirror,
      "--exec",
      "true",
    );
    assert.equal(r.code, 125, r.stderr);
    assert.match(r.stderr, /InRelease is refused: its signature cannot be read/);
  });

  it("is there for require", async () => {
    const r = await succeed(
      user,
      process.execPath,
      "-e",
      'const { createVm, Vm } = require("enlighten"); console.log(typeof createVm, typeof Vm)',
    );
    assert.equal(r.stdout, "function function\n");
  });

  it("boots a kernel: console, worker and the engine's modules", { timeout: 120_000 }, async () => {
    const { kernel, initrds } = await (await debian()).load();
    await writeFile(join(user, "vmlinuz"), kernel);
    await writeFile(join(user, "initrd"), initrds[0]!);
    await writeFile(
      join(user, "boot.mjs"),
      `import { createVm } from "enlighten";
      const vm = await createVm({ kernel: "vmlinuz", initrd: "initrd", memoryMiB: 256 });
      await vm.start();
      const line = await vm.waitFor(/Linux version 6\\S+ /, { timeoutMs: 60_000 });
      console.log(line);
      await vm.kill();
      `,
    );
    assert.match((await succeed(user, process.execPath, "boot.mjs")).stdout, /^Linux version 6\.1\./);
  });

  /** Runs one as a user has it: beside the installed package. */
  const example = async (name: string, ...args: string[]): Promise<Result> => {
    await copyFile(join(root, "examples", name), join(user, name));
    return succeed(user, process.execPath, name, ...args);
  };
  it("has an example for code that nobody has read", { timeout: 240_000 }, async () => {
    assert.equal(
      (await example("run-untrusted.mjs")).stdout,
      "I am nobody on debian-12, and see 15 folders\nnetworks: lo \nwhat I would destroy is not mine\nI shall run for ever\n" +
        "it was killed by signal 9\n",
    );
    await writeFile(join(user, "short.sh"), "echo short; exit 3");
    assert.equal((await example("run-untrusted.mjs", "short.sh")).stdout, "short\nit ended with 3\n");
  });
  it("has an example for a server behind a port", { timeout: 240_000 }, async () => {
    assert.equal(
      (await example("published-port.mjs")).stdout,
      "200 hello from the guest\n404 for what is not there\nthe server's log has 2 responses\n",
    );
  });
  it("has an example for tests of a driver", { timeout: 240_000 }, async () => {
    const lines = (await example("test-driver-module.mjs", "hv_utils", "3")).stdout.trim().split("\n");
    assert.equal(lines.pop(), "hv_utils: 3 of 3 rounds went well");
    assert.deepEqual(
      lines.map((line) => JSON.parse(line)),
      [1, 2, 3].map((round) => ({ round, exitCode: 0, stderr: "", answers: true, complaints: [] })),
    );
    // one that fails says so
    await copyFile(join(root, "examples/test-driver-module.mjs"), join(user, "driver.mjs"));
    const none = await run(user, process.execPath, "driver.mjs", "no_such_module", "1");
    assert.equal(none.code, 1);
    assert.match(none.stdout, /no_such_module: 0 of 1 rounds went well/);
  });
});
