/** The register of named machines: names that are taken, that are stale, that many want at once. */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, beforeEach, describe, it } from "node:test";
import { Registry } from "../../src/host/node/control/registry.js";
import { socketPath, stateFolder } from "../../src/host/node/control/state-folder.js";
import { VmError } from "../../src/vm/vm-error.js";

const all: string[] = [];
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "enlighten-registry-"));
  all.push(folder);
});
after(() => {
  for (const f of all) rmSync(f, { recursive: true });
});
const WHAT = { guest: "debian:12", memoryMiB: 256, detached: false };
const taken = (e: unknown): boolean =>
  e instanceof VmError && e.code === "name-taken" && /enlighten stop web/.test(e.hint);
/** The number of a process that is over. */
const deadPid = (): number => spawnSync(process.execPath, ["-e", ""]).pid;

describe("a name", () => {
  it("is one machine's until that lets go", () => {
    const registry = new Registry(folder);
    const claim = registry.claim("web", WHAT);
    assert.throws(() => registry.claim("web", WHAT), taken);
    assert.throws(() => new Registry(folder).claim("web", WHAT), taken);
    assert.deepEqual(
      registry.list().map((e) => [e.name, e.guest, e.memoryMiB, e.state]),
      [["web", "debian:12", 256, "starting"]],
    );
    claim.ready();
    assert.equal(registry.find("web")?.state, "ready");
    claim.release("power-off");
    assert.deepEqual(registry.list(), []);
    assert.equal(registry.findEnded("web")?.end, "power-off");
    registry.claim("web", WHAT).release("killed");
    assert.equal(registry.findEnded("web")?.end, "killed");
  });

  it("goes when its process is gone, and with it what the register has of it", () => {
    const registry = new Registry(folder);
    const claim = registry.claim("web", WHAT);
    writeFileSync(join(claim.entry.folder, "console.log"), "last words\n");
    claim.giveTo(deadPid());
    assert.deepEqual(registry.list(), []);
    assert.deepEqual(readdirSync(join(folder, "vms")), []);
    const ended = registry.findEnded("web");
    assert.match(ended?.end ?? "", /process is gone/);
    assert.equal(readFileSync(join(ended!.folder, "console.log"), "utf8"), "last words\n");
    registry.claim("web", WHAT);
  });

  it("is not kept by another process that has the number now", () => {
    if (!existsSync("/proc/self/stat")) return;
    const registry = new Registry(folder);
    const { entry } = registry.claim("web", WHAT);
    const file = join(entry.folder, "vm.json");
    writeFileSync(file, readFileSync(file, "utf8").replace(/"process":"\d+ \d+/, `"process":"${process.pid} 1`));
    assert.equal(registry.find("web"), undefined);
  });

  it("is given to the process that runs the machine, which alone may take it up", () => {
    const registry = new Registry(folder);
    const claim = registry.claim("web", WHAT);
    assert.equal(registry.adopt("web").entry.id, claim.entry.id);
    const other = spawn(process.execPath, ["-e", "setTimeout(() => {}, 60000)"]);
    try {
      claim.giveTo(other.pid!);
      assert.throws(() => registry.adopt("web"), /not this process's/);
      assert.throws(() => registry.claim("web", WHAT), taken);
    } finally {
      other.kill("SIGKILL");
    }
  });

  it("may be chosen: the first that is free", () => {
    const registry = new Registry(folder);
    const names = [1, 2, 3].map(() => registry.claimLike("debian-12", WHAT).entry.name);
    assert.deepEqual(names, ["debian-12", "debian-12-2", "debian-12-3"]);
  });

  it("leads nowhere else", () => {
    const registry = new Registry(folder);
    for (const name of ["", "..", "a/b", ".x", "-x", "a\0b", "x".repeat(64), "a b", "ü"]) {
      assert.throws(
        () => registry.claim(name, WHAT),
        (e: unknown) => e instanceof VmError && e.code === "bad-option",
        name,
      );
      assert.equal(registry.find(name), undefined);
      assert.equal(registry.findEnded(name), undefined);
    }
  });

  it("is won by exactly one of many, while others die and clean", async () => {
    const child = join(import.meta.dirname, "claimant-child.js");
    const results = await Promise.all(
      [1, 2, 3, 4].map(
        () =>
          new Promise<{ won: number; overlaps: number }>((resolve, reject) => {
            const p = spawn(process.execPath, [child, folder, "web", "60"], { stdio: ["ignore", "pipe", "inherit"] });
            let out = "";
            p.stdout.on("data", (b: Buffer) => {
              out += b.toString();
            });
            p.on("close", (code) =>
              code === 0 ? resolve(JSON.parse(out) as never) : reject(new Error(`code ${code}`)),
            );
          }),
      ),
    );
    assert.deepEqual(
      results.map((r) => r.overlaps),
      [0, 0, 0, 0],
    );
    assert.ok(results.reduce((sum, r) => sum + r.won, 0) >= 60, JSON.stringify(results));
    new Registry(folder).list();
    assert.deepEqual(readdirSync(join(folder, "vms")), []);
    assert.deepEqual(readdirSync(join(folder, "claims")), []);
  });
});

describe("the state folder", () => {
  it("is where it was asked for, or where the desktop's rules put it", () => {
    assert.equal(stateFolder({ ENLIGHTEN_STATE: "/a/b" }), "/a/b");
    assert.equal(stateFolder({ XDG_STATE_HOME: "/x" }), "/x/enlighten");
    assert.match(stateFolder({ XDG_STATE_HOME: "relative" }), /\/\.local\/state\/enlighten$/);
    assert.equal(stateFolder({ ENLIGHTEN_STATE: "/a/b", XDG_STATE_HOME: "/x" }), "/a/b");
  });

  it("is for its user alone, also when it was there before", () => {
    const open = join(folder, "open");
    mkdirSync(open, { mode: 0o755 });
    for (const path of [join(folder, "new"), open]) {
      new Registry(path).claim("web", WHAT);
      assert.equal(statSync(path).mode & 0o777, 0o700);
    }
  });

  it("says so when it cannot be made", () => {
    writeFileSync(join(folder, "file"), "");
    assert.throws(
      () => new Registry(join(folder, "file", "x")).claim("web", WHAT),
      (e: unknown) => e instanceof VmError && /state folder/.test(e.message) && /ENLIGHTEN_STATE/.test(e.hint),
    );
  });

  it("has entries of others that are not in order: stale ones go, those of a living process stay", () => {
    const registry = new Registry(folder);
    const odd = (name: string, text: string): string => {
      const path = join(folder, "vms", name, "0123456789abcdef");
      mkdirSync(path, { recursive: true });
      writeFileSync(join(path, "vm.json"), text);
      return path;
    };
    const damaged = odd("damaged", "{");
    const empty = odd("empty", "null");
    const foreign = odd("foreign", JSON.stringify({ version: 1, name: "other", process: "1 -" }));
    // of an enlighten to come
    const newer = odd("newer", JSON.stringify({ version: 2, process: `${process.pid} -` }));
    assert.deepEqual(registry.list(), []);
    assert.deepEqual([damaged, empty, newer].map(existsSync), [false, false, true]);
    assert.equal(existsSync(foreign), true, "process 1 is alive");
    assert.throws(() => registry.claim("newer", WHAT), VmError);
    registry.claim("damaged", WHAT);
  });

  it("keeps the logs of the last machines that are over, not of all", () => {
    const registry = new Registry(folder);
    for (let i = 0; i < 20; i++) registry.claim(`vm${i}`, WHAT).release("done");
    assert.equal(readdirSync(join(folder, "ended")).length, 16);
    assert.equal(registry.findEnded("vm3"), undefined);
    assert.equal(registry.findEnded("vm4")?.end, "done");
  });
});

describe("the socket's path", () => {
  it("is one that can be listened on, however long the folder's name", async () => {
    if (process.platform === "win32") return;
    for (const length of [0, 200]) {
      const state = join(folder, "x".repeat(length), "state");
      const { entry } = new Registry(state).claim(length === 0 ? "web" : "n".repeat(63), WHAT);
      assert.equal(entry.socket.startsWith(state), length === 0);
      const server = createServer();
      await new Promise<void>((resolve, reject) => {
        server.on("error", reject);
        server.listen(entry.socket, resolve);
      });
      await new Promise((resolve) => server.close(resolve));
    }
    assert.equal(socketPath("/a", "1"), "/a/control.sock");
    assert.equal(statSync(join(socketPath(`/${"a".repeat(200)}`, "1"), "..")).mode & 0o777, 0o700);
  });
});
