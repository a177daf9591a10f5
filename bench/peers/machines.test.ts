import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { it } from "node:test";
import { DEFAULT_MACHINES, findMachine, isMissing, MACHINE_NAMES } from "./machines.js";
import { measure } from "./measure.js";
import { findV86 } from "./v86-files.js";

it("has this machine always, and starts every machine that is here with the guest's files and command line", () => {
  assert.ok(DEFAULT_MACHINES.every((name) => MACHINE_NAMES.includes(name)));
  for (const name of MACHINE_NAMES) {
    const machine = findMachine(name, {});
    if (isMissing(machine)) {
      assert.notEqual(name, "enlighten");
      assert.match(machine.hint, /install/);
      continue;
    }
    const args = machine.command({ kernel: "/k", initrd: "/i" }, "bench=-d,1").arguments;
    for (const expected of ["/k", "/i"]) assert.ok(args.includes(expected));
    assert.ok(args.some((argument) => argument.endsWith("bench=-d,1")));
  }
});

it("finds v86 in a package's folder or among its modules, and says what is missing", async () => {
  const folder = await mkdtemp(join(tmpdir(), "enlighten-peers-test-"));
  try {
    const text = findV86(folder, folder);
    assert.ok(typeof text === "string" && text.includes("npm install v86"));
    const place = join(folder, "node_modules/v86");
    await mkdir(join(place, "build"), { recursive: true });
    await writeFile(join(place, "build/libv86.mjs"), "");
    await writeFile(
      join(place, "package.json"),
      JSON.stringify({ name: "v86", version: "1.2.3+abc", type: "module", main: "build/libv86.mjs" }),
    );
    assert.match(findV86(folder, folder) as string, /seabios/);
    for (const name of ["bios.bin", "vgabios-stdvga.bin"]) await writeFile(join(folder, name), "");
    for (const from of [folder, place]) {
      const files = findV86(from, folder);
      assert.ok(typeof files !== "string");
      assert.equal(files.version, "1.2.3");
      assert.equal(files.library, join(place, "build/libv86.mjs"));
    }
  } finally {
    await rm(folder, { recursive: true });
  }
});

it("says why a process did not get to its end", async () => {
  const end = (script: string, timeoutMs = 60_000) =>
    measure({ program: process.execPath, arguments: ["-e", script] }, { timeoutMs });
  assert.match((await measure({ program: "/none", arguments: [] }, { timeoutMs: 1000 })).failure!, /ENOENT/);
  assert.equal((await end("console.log('a'); process.exit(3)")).failure, "ended early (exit code 3):\na");
  assert.equal(
    (await end("console.error('no kernel'); process.exit(3)")).failure,
    "ended early (exit code 3):\nno kernel",
  );
  assert.match((await end("setInterval(() => {}, 1000)", 300)).failure!, /^not done after/);
  assert.equal((await end("console.log('GUESTBENCH done')")).failure, undefined);
});
