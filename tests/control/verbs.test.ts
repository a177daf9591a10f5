/** The verbs as programs against a process that never answers: killed in the midst of each, stopped, replaced by a stranger. */
import assert from "node:assert/strict";
import { type ChildProcess, fork } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, describe, it } from "node:test";
import { Registry } from "../../src/host/node/control/registry.js";
import { enlighten } from "../guests/guests.js";

let dir: string;
let env: Record<string, string>;
const children = new Set<ChildProcess>();
before(() => {
  dir = mkdtempSync(join(tmpdir(), "enlighten-verbs-"));
  env = { ENLIGHTEN_STATE: dir };
});
afterEach(() => {
  for (const child of children) child.kill("SIGKILL");
  children.clear();
});
after(() => rmSync(dir, { recursive: true }));

interface Scripted {
  readonly child: ChildProcess;
  /** Settles when the machine has been asked for it. */
  asked(what: string): Promise<void>;
}
async function scripted(name: string): Promise<Scripted> {
  const child = fork(join(import.meta.dirname, "scripted-vm-child.js"), [name], {
    env: { ...process.env, ...env },
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  children.add(child);
  const seen = new Set<string>();
  const waiting: (() => void)[] = [];
  child.on("message", (m: string) => {
    seen.add(m);
    for (const f of waiting) f();
  });
  const asked = (what: string): Promise<void> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        if (seen.has(what)) resolve();
      };
      waiting.push(look);
      child.on("exit", () => reject(new Error(`it ended before it was asked for ${what}`)));
      look();
    });
  await asked("ready");
  return { child, asked };
}

describe("a machine that is killed in the midst of a verb", () => {
  for (const [what, args] of [
    ["status", ["status", "web"]],
    ["exec", ["exec", "web", "--", "sleep", "1"]],
    ["exec", ["exec", "--detach", "web", "--", "sleep", "1"]],
    ["stop", ["stop", "web"]],
    ["console", ["console", "web"]],
    ["cp", ["cp", "/etc/hostname", "web:/tmp"]],
    ["cp", ["cp", "web:/etc/hostname", "-"]],
    ["publish", ["publish", "web", "80:80"]],
    ["unpublish", ["unpublish", "web", "80"]],
  ] as const) {
    it(`makes it fail with 125 and the console's last lines: ${args.slice(0, 2).join(" ")}`, async () => {
      const { child, asked } = await scripted("web");
      const done = enlighten(args, { env });
      await asked(what);
      child.kill("SIGKILL");
      const r = await done;
      assert.equal(r.code, 125, r.stderr);
      assert.match(r.stderr, /the VM "web" ended while .* \(its process is gone\)/);
      assert.match(r.stderr, /last console lines:\nthe last line of the console\n/);
      assert.doesNotMatch(r.stderr, /\n\s+at .*:\d+:\d+/);
      // nothing of it is left
      assert.equal((await enlighten(["ps", "--quiet"], { env })).stdout.toString(), "");
    });
  }

  it("ends a log that is followed", async () => {
    const { child } = await scripted("web");
    const r = await enlighten(["logs", "web", "--follow"], {
      env,
      during: (_kill, _err, out) => {
        const timer = setInterval(() => {
          if (!out().includes("last line")) return;
          clearInterval(timer);
          child.kill("SIGKILL");
        }, 20);
      },
    });
    assert.equal(r.stdout.toString(), "the last line of the console\n");
    assert.equal(r.code, 125);
    assert.match(r.stderr, /ended while its log was followed/);
    const again = await enlighten(["logs", "web", "--tail", "1"], { env });
    assert.deepEqual([again.code, again.stdout.toString()], [0, "the last line of the console\n"]);
  });
});

describe("a machine that does not answer", () => {
  it("is told apart from one that is gone, and is listed", async () => {
    const { child } = await scripted("web");
    child.kill("SIGSTOP");
    const [status, ps] = await Promise.all([enlighten(["status", "web"], { env }), enlighten(["ps"], { env })]);
    assert.equal(status.code, 124, status.stderr);
    assert.match(status.stderr, /the VM "web" does not answer \(process \d+\)\n {2}try: .*kill -9 \d+/);
    assert.match(ps.stdout.toString(), /^web +scripted +not answering/m);
  });

  it("lets go when its user interrupts", async () => {
    const { asked } = await scripted("web");
    const r = await enlighten(["stop", "web"], {
      env,
      during: (kill) => void asked("stop").then(() => kill("SIGINT")),
    });
    assert.ok(r.code === 130 || r.signal === "SIGINT", `${r.code} ${r.signal} ${r.stderr}`);
    assert.equal((await enlighten(["ps", "--quiet"], { env })).stdout.toString(), "web\n");
  });
});

describe("a command that takes no signals", () => {
  it("is left by the third, with 130", async () => {
    const { asked } = await scripted("web");
    const r = await enlighten(["exec", "web", "--", "sleep", "1"], {
      env,
      // different ones: two of a kind may arrive as one
      during: (kill) =>
        void asked("exec").then(() => {
          for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) kill(signal);
        }),
    });
    assert.equal(r.code, 130, r.stderr);
    assert.match(r.stderr, /interrupted: the command did not end by the signals it got/);
  });
});

describe("a copy whose machine does not let go", () => {
  it("is left by the second signal, with 130", async () => {
    const { asked } = await scripted("web");
    const r = await enlighten(["cp", "--json", "/etc/hostname", "web:/tmp"], {
      env,
      during: (kill) =>
        void asked("cp").then(() => {
          for (const signal of ["SIGINT", "SIGTERM"] as const) kill(signal);
        }),
    });
    assert.equal(r.code, 130, r.stderr);
    const event = JSON.parse(r.stdout.toString()) as Record<string, unknown>;
    assert.deepEqual([event.event, event.code, event.exitCode], ["error", "aborted", 130]);
    assert.match(String(event.message), /interrupted: the copy is not complete/);
  });
});

describe("a peer that is none of ours", () => {
  it("is refused by name, at a machine's socket", async () => {
    const registry = new Registry(dir);
    const claim = registry.claim("odd", { guest: "odd", memoryMiB: 1, detached: false });
    const server = createServer((socket) => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n"));
    try {
      await new Promise<void>((resolve) => server.listen(claim.entry.socket, resolve));
      claim.ready();
      const r = await enlighten(["status", "odd"], { env });
      assert.equal(r.code, 125);
      assert.match(r.stderr, /does not speak enlighten's control protocol/);
    } finally {
      server.close();
      claim.release("done");
    }
  });

  it("does not end the machine, whatever it sends", async () => {
    await scripted("web");
    const { socket: path } = new Registry(dir).find("web")!;
    for (const bytes of [
      Buffer.alloc(100_000, 0xff),
      Buffer.from("GET / HTTP/1.1\r\n\r\n"),
      Buffer.from([5, 0, 0, 0, 2, 1, 0, 0, 0]),
      Buffer.alloc(0),
    ]) {
      await new Promise<void>((resolve) => {
        const socket = connect(path, () => socket.end(bytes));
        socket.on("error", () => {});
        socket.on("close", () => resolve());
        socket.resume();
      });
    }
    const ps = await enlighten(["ps"], { env });
    assert.match(ps.stdout.toString(), /^web +scripted/m);
  });
});

describe("names that are not there", () => {
  it("are told with those that are, 127", async () => {
    await scripted("web");
    for (const args of [
      ["status", "wep"],
      ["exec", "wep", "--", "true"],
      ["stop", "web", "wep"],
      ["console", "wep"],
      ["logs", "wep"],
      ["cp", "/etc/hostname", "wep:/tmp"],
      ["cp", "wep:/etc", "."],
      ["publish", "wep", "1:1"],
    ]) {
      const r = await enlighten(args, { env });
      assert.equal(r.code, 127, args.join(" "));
      assert.match(r.stderr, /there is no VM "wep"\n {2}try: did you mean "web"\? There is: web/, args.join(" "));
    }
    assert.equal((await enlighten(["stop"], { env })).code, 2);
    // none of them was stopped for the sake of a slip
    assert.equal((await enlighten(["ps", "--quiet"], { env })).stdout.toString(), "web\n");
  });
  it("cannot be taken twice", async () => {
    await scripted("web");
    for (const more of [[], ["--detach"]]) {
      const r = await enlighten(["run", "--name", "web", "--kernel", "/nonexistent", ...more], { env });
      assert.equal(r.code, 125, r.stderr);
      assert.match(r.stderr, /there is a VM "web" already \(process \d+\)\n {2}try: take another name, or stop it/);
    }
  });
});
