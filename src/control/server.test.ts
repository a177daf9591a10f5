/** The verbs against a machine that is a script: client and server on two ends of one connection. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { VmError } from "../vm/vm-error.js";
import type { Request, VerbName } from "./catalogue.js";
import { ControlClient } from "./client.js";
import { json } from "./connection.js";
import { encodeFrame, FrameDecoder, FrameKind } from "./frames.js";
import { isVmError, setUp, turns } from "./scripted-connection.js";
import { ScriptedMachine, scriptedHost } from "./scripted-machine.js";
import { ControlServer } from "./server.js";

const COMMAND: Request<"exec"> = { command: ["sleep", "1"], env: {}, input: false, detached: false, patienceMs: 1000 };
const text = (s: string): Uint8Array => new TextEncoder().encode(s);

/** A request of every verb that stays without an answer. */
const WAITING: {
  readonly [V in VerbName]: { readonly body: Request<V>; readonly hang: (m: ScriptedMachine) => void };
} = {
  summary: { body: {}, hang: (m) => void (m.stats = () => new Promise(() => {})) },
  status: { body: {}, hang: (m) => void (m.status = () => new Promise(() => {})) },
  stop: { body: { force: false, timeoutMs: 1000 }, hang: () => {} },
  exec: { body: COMMAND, hang: () => {} },
  console: { body: { lines: 2, input: true }, hang: () => {} },
  copy: { body: { direction: "in", host: "/a", guest: "/b" }, hang: () => {} },
  publish: { body: { port: "80:80" }, hang: (m) => void (m.network.publish = () => new Promise(() => {})) },
  unpublish: {
    body: { port: 80, protocol: "tcp" },
    hang: (m) => void (m.network.published = () => new Promise(() => {})),
  },
};

describe("every verb", () => {
  for (const [verb, { body, hang }] of Object.entries(WAITING) as [VerbName, (typeof WAITING)[VerbName]][]) {
    it(`fails at once when the process dies: ${verb}`, async () => {
      const { machine, client, die } = setUp();
      hang(machine);
      const session = client.begin(verb, body as never);
      const failed = assert.rejects(session.result, isVmError("ended", new RegExp(`is gone, ${verb}`)));
      await turns();
      die();
      await failed;
      // and what comes after it too
      await assert.rejects(client.ask("summary", {}), isVmError("ended"));
    });
    it(`is given up by time and by a signal: ${verb}`, async () => {
      const { machine, client, host } = setUp();
      hang(machine);
      const late = assert.rejects(client.ask(verb, body as never, { timeoutMs: 5 }), isVmError("timeout"));
      await turns();
      host.timers.at(-1)!();
      await late;
      const controller = new AbortController();
      const aborted = assert.rejects(
        client.ask(verb, body as never, { signal: controller.signal }),
        isVmError("aborted"),
      );
      await turns();
      controller.abort();
      await aborted;
      // nothing of them is left
      await turns();
      assert.equal(machine.watchers, 0);
      assert.ok(machine.processes.every((p) => p.isAbandoned));
    });
  }

  it("is refused by name when there is none, and by what is wrong when it is not in order", async () => {
    const { client } = setUp();
    // one that a newer client knows
    const ask = client.ask.bind(client) as (verb: string, body: unknown) => Promise<unknown>;
    await assert.rejects(ask("teleport", {}), isVmError("unsupported", /does not know "teleport"/));
    await assert.rejects(
      client.ask("stop", { force: 1 } as never),
      isVmError("bad-option", /force is not true or false/),
    );
    await assert.rejects(client.ask("exec", { ...COMMAND, command: [] }), isVmError("bad-option", /no command/));
    assert.equal((await client.ask("summary", {})).guest, "debian:12");
  });
});

describe("status and ports", () => {
  it("tell what the machine tells, also one that has no devices, stands still, or has not begun", async () => {
    const { machine, client, server } = setUp();
    for (const f of machine.problems) for (let i = 0; i < 25; i++) f(`problem ${i}`);
    const pc = await client.ask("status", {});
    assert.deepEqual(
      [pc.vmbusVersion, pc.channels, pc.instructions, pc.summary.state],
      [undefined, [], 1e6, "starting"],
    );
    assert.deepEqual([pc.problems.length, pc.problems.at(-1)], [20, "problem 24"]);
    server.isUp();
    const channel = {
      ...{ name: "storage", relid: 4, subIndex: 0, state: "open", version: "6.2", problem: undefined },
      ...{ inBytes: 8, outBytes: 0, ringBytes: 4096, packetsIn: 7, packetsOut: 6 },
    };
    machine.status = async () =>
      ({ vmbusVersion: "5.3", channels: [channel], heartbeat: { health: "ok", replies: 1 }, disks: [] }) as never;
    const { problem: _, ...shown } = channel;
    const s = await client.ask("status", {});
    assert.deepEqual([s.vmbusVersion, s.heartbeat, s.channels, s.summary.guestLoad], ["5.3", "ok", [shown], 0.25]);
    assert.equal(s.summary.state, "running");
    machine.paused = true;
    assert.deepEqual((await client.ask("status", {})).summary.state, "paused");
    machine.paused = false;
    machine.state = "new";
    const young = await client.ask("status", {});
    assert.deepEqual([young.summary.state, young.summary.upMs, young.channels], ["starting", 0, []]);
    machine.state = "running";
    machine.status = () => Promise.reject(new Error("out of order"));
    await assert.rejects(client.ask("status", {}), isVmError("failed", /^out of order/));
  });
  it("are published and taken back by number and protocol", async () => {
    const { machine, client } = setUp();
    assert.deepEqual(await client.ask("publish", { port: "80:80" }), {
      host: "127.0.0.1:80",
      guest: "10.0.2.15:80",
      protocol: "tcp",
    });
    await assert.rejects(
      client.ask("unpublish", { port: 80, protocol: "tcp" }),
      (e: unknown) => isVmError("not-found")(e) && (e as VmError).hint === "no port is",
    );
    const udp = { id: 9, protocol: "udp", host: "h", hostPort: 53, guest: "g", connections: 0 };
    machine.network.published = async () => [udp as never];
    const gone: unknown[] = [];
    machine.network.unpublish = async (port) => gone.push(port) > 0;
    await assert.rejects(
      client.ask("unpublish", { port: 53, protocol: "tcp" }),
      (e: unknown) => isVmError("not-found")(e) && (e as VmError).hint === "those that are: 53/udp",
    );
    await client.ask("unpublish", { port: 53, protocol: "udp" });
    assert.deepEqual(gone, [udp]);
  });
  it("fail with the error of the machine, its code and hint", async () => {
    const { machine, client } = setUp();
    machine.network.publish = () => Promise.reject(new VmError("port-in-use", "port 80 is in use", "take another"));
    await assert.rejects(
      client.ask("publish", { port: "80:80" }),
      (e: unknown) => isVmError("port-in-use", /^port 80/)(e) && (e as VmError).hint === "take another",
    );
  });
});

describe("an answer that is too long", () => {
  it("is told as a failure, and the machine goes on", async () => {
    const { machine, client } = setUp();
    const port = { id: 1, protocol: "tcp", host: "h".repeat(1000), hostPort: 1, guest: "g", connections: 0 };
    machine.network.published = async () => Array.from({ length: 2000 }, () => port) as never;
    await assert.rejects(client.ask("summary", {}), isVmError("failed", /a frame of \d+ bytes/));
    machine.network.published = async () => [];
    assert.equal((await client.ask("summary", {})).guest, "debian:12");
  });
});

describe("stop", () => {
  it("asks the guest, again while its driver is not there, and answers when it is down", async () => {
    const { machine, host, client } = setUp();
    machine.shutdownAnswers = [new VmError("not-ready", "no driver")];
    const stopped = client.ask("stop", { force: false, timeoutMs: 1000 });
    await turns();
    assert.equal(machine.shutdownAnswers.length, 0);
    assert.equal((await client.ask("summary", {})).state, "stopping");
    host.timers.shift()!();
    await turns();
    machine.finish("power-off");
    assert.deepEqual(await stopped, { how: "power-off" });
    assert.equal(machine.buttons, 0);
  });
  it("presses the button of a PC without a hypervisor", async () => {
    const { machine, client } = setUp();
    machine.shutdownAnswers = [new VmError("no-services", "a PC")];
    const stopped = client.ask("stop", { force: false, timeoutMs: 1000 });
    await turns();
    assert.equal(machine.buttons, 1);
    machine.finish("power-off");
    assert.deepEqual(await stopped, { how: "power-off" });
  });
  it("says what to do when the guest does not go, and leaves it running", async () => {
    const { machine, client, server } = setUp();
    server.isUp();
    const failed = assert.rejects(client.ask("stop", { force: false, timeoutMs: 1000 }), (e: unknown) => {
      assert.ok(e instanceof VmError);
      assert.deepEqual([e.code, e.consoleTail], ["timeout", "one\ntwo\nthree"]);
      assert.match(e.message, /^the guest has not powered off within 1 s\nlast console lines:\none/);
      assert.match(e.hint, /--force/);
      return true;
    });
    await turns();
    for (const f of machine.timeUp) f();
    await failed;
    assert.equal((await client.ask("summary", {})).state, "running");
  });
  it("passes on what the guest says, and takes an end for an end, however it came", async () => {
    const { machine, client } = setUp();
    machine.shutdownAnswers = [new VmError("refused", "the guest said no", "force it")];
    await assert.rejects(client.ask("stop", { force: false, timeoutMs: 1000 }), isVmError("refused"));
    machine.integration.shutdown = async () => {
      machine.finish("crashed");
      throw new Error("the connection broke");
    };
    assert.deepEqual(await client.ask("stop", { force: false, timeoutMs: 1000 }), { how: "crashed" });
  });
  it("ends it at once with force", async () => {
    const { machine, client } = setUp();
    assert.deepEqual(await client.ask("stop", { force: true, timeoutMs: 1000 }), { how: "killed" });
    assert.equal(machine.state, "ended");
  });
});

describe("exec", () => {
  it("passes streams, signals, sizes and the exit code", async () => {
    const { machine, client } = setUp();
    const session = client.begin("exec", {
      ...COMMAND,
      env: { A: "b" },
      cwd: "/x",
      user: "u",
      input: true,
      terminal: { rows: 3, columns: 4 },
    });
    const got = ["", ""];
    for (const i of [0, 1])
      session.read(i + 1, (b) => {
        got[i] += new TextDecoder().decode(b);
      });
    void session.write(0, text("in"));
    session.end(0);
    await turns();
    const [process] = machine.processes;
    assert.deepEqual(process!.command, ["sleep", "1"]);
    const { env, cwd, user, pty } = process!.options;
    assert.deepEqual({ env, cwd, user, pty }, { env: { A: "b" }, cwd: "/x", user: "u", pty: { rows: 3, columns: 4 } });
    void process!.onStdout(text("out"));
    void process!.onStderr(text("err"));
    session.note({ signal: "SIGINT" });
    session.note({ signal: "SIGNONSENSE" });
    session.note({ size: { rows: 50, columns: 60 } });
    await turns();
    assert.equal(Buffer.concat(process!.input).toString(), "in");
    assert.equal(process!.isInputClosed, true);
    assert.deepEqual([process!.signals, process!.sizes], [["SIGINT"], [[50, 60]]]);
    process!.exit({ exitCode: 130, signal: 2 });
    assert.deepEqual(await session.result, { id: "1", exitCode: 130, signal: 2 });
    assert.deepEqual(got, ["out", "err"]);
  });
  it("answers when all output is out, however slow the reader", async () => {
    const { machine, client } = setUp();
    const session = client.begin("exec", COMMAND);
    const size = 1 << 20;
    let taken = 0;
    let release: (() => void)[] = [];
    session.read(1, (b) => {
      taken += b.length;
      return new Promise<void>((resolve) => void release.push(resolve));
    });
    await turns();
    const [process] = machine.processes;
    let isTaken = false;
    void Promise.resolve(process!.onStdout(new Uint8Array(size))).then(() => {
      isTaken = true;
    });
    process!.exit({ exitCode: 0, signal: undefined });
    let isAnswered = false;
    void session.result.then(() => {
      isAnswered = true;
    });
    await turns();
    assert.deepEqual([isTaken, isAnswered], [false, false]);
    assert.ok(taken < size);
    while (!isAnswered) {
      const now = release;
      release = [];
      for (const f of now) f();
      await turns();
    }
    assert.equal(taken, size);
  });
  it("gives a terminal without input no end of input, which would be a key", async () => {
    const { machine, client } = setUp();
    client.begin("exec", { ...COMMAND, terminal: { rows: 1, columns: 1 } }).result.catch(() => {});
    client.begin("exec", COMMAND).result.catch(() => {});
    await turns();
    assert.deepEqual(
      machine.processes.map((p) => p.isInputClosed),
      [false, true],
    );
  });
  it("keeps the output of one that is detached, and lists it", async () => {
    const { machine, host, client } = setUp();
    const { id } = await client.ask("exec", { ...COMMAND, detached: true });
    const [process] = machine.processes;
    void process!.onStdout(text("a"));
    void process!.onStderr(text("b"));
    const commands = async () => (await client.ask("status", {})).commands;
    assert.deepEqual(await commands(), [{ id, pid: 42, command: "sleep 1", sinceMs: 0, detached: true }]);
    process!.exit({ exitCode: 3, signal: undefined });
    await turns();
    assert.deepEqual(host.kept.get(id), { text: "ab", exit: { exitCode: 3 } });
    assert.equal((await commands())[0]!.exitCode, 3);
    assert.equal(process!.isAbandoned, false);
  });
  it("fails with the machine's end and its last lines", async () => {
    const { machine, client } = setUp();
    const failed = assert.rejects(client.ask("exec", COMMAND), (e: unknown) => {
      assert.ok(e instanceof VmError);
      assert.deepEqual([e.code, e.consoleTail], ["ended", "one\ntwo\nthree"]);
      return true;
    });
    await turns();
    machine.finish("power-off");
    await failed;
  });
});

describe("console", () => {
  it("shows the last lines, then what comes, to several; takes keys", async () => {
    const { machine, client } = setUp();
    const seen = ["", ""];
    const sessions = [0, 1].map((i) => {
      const session = client.begin("console", { lines: 2, input: i === 0 });
      session.read(1, (b) => {
        seen[i] += new TextDecoder().decode(b);
      });
      return session;
    });
    await turns();
    machine.print("four");
    for (const s of sessions) void s.write(0, text("key"));
    sessions[0]!.note({ powerButton: true });
    await turns();
    assert.deepEqual(seen, ["three\nfour", "three\nfour"]);
    assert.equal(Buffer.concat(machine.typed).toString(), "key");
    assert.equal(machine.buttons, 1);
    machine.finish("power-off");
    for (const s of sessions) assert.deepEqual(await s.result, { how: "power-off" });
  });
  it("makes nobody wait for one who does not look, and tells him what he missed", async () => {
    const { machine, client } = setUp();
    const session = client.begin("console", { lines: 0, input: false });
    let seen = "";
    let release = (): void => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    session.read(1, (b) => {
      seen += new TextDecoder().decode(b);
      return held;
    });
    await turns();
    for (let i = 0; i < 40; i++) for (const taken of machine.print("x".repeat(100_000))) assert.equal(taken, undefined);
    machine.print("late");
    await turns();
    release();
    await turns(100);
    assert.match(seen, /^x+\r\n\[enlighten: \d+ bytes left out\]\r\n$/);
    machine.print("again");
    await turns();
    assert.match(seen, /again$/);
  });
  it("does not ask again what a terminal has answered", async () => {
    const { machine, client } = setUp();
    machine.consoleText = "a\n# \x1b[6n\x1b[c\x1b[1mb\x1b[0m";
    const session = client.begin("console", { lines: 5, input: false });
    let seen = "";
    session.read(1, (b) => {
      seen += new TextDecoder().decode(b);
    });
    await turns();
    assert.equal(seen, "a\n# \x1b[1mb\x1b[0m");
  });
});

describe("a request without a verb", () => {
  it("cuts its peer off", () => {
    const server = new ControlServer(new ScriptedMachine(), { guest: "g", memoryMiB: 1 }, scriptedHost());
    let isDestroyed = false;
    const destroy = (): void => {
      isDestroyed = true;
    };
    const connection = server.accept({ send: () => {}, end: () => {}, destroy });
    const hello = { protocol: "enlighten-control", version: 1 };
    connection.received(encodeFrame(FrameKind.hello, 0, json(hello)));
    connection.received(encodeFrame(FrameKind.request, 1, json({ body: {} })));
    assert.equal(isDestroyed, true);
  });
});

describe("a peer's note that is not in order", () => {
  it("cuts it off, and its command goes", async () => {
    const machine = new ScriptedMachine();
    const server = new ControlServer(machine, { guest: "g", memoryMiB: 1 }, scriptedHost());
    let isDestroyed = false;
    const sent: number[] = [];
    const decoder = new FrameDecoder();
    const connection = server.accept({
      send: (b) => void decoder.push(b, (f) => sent.push(f.kind)),
      end: () => {},
      destroy: () => {
        isDestroyed = true;
      },
    });
    const send = (kind: FrameKind, id: number, body: unknown): void =>
      connection.received(encodeFrame(kind, id, json(body)));
    send(FrameKind.hello, 0, { protocol: "enlighten-control", version: 1 });
    send(FrameKind.request, 1, { verb: "exec", body: COMMAND });
    await turns();
    assert.equal(isDestroyed, false);
    send(FrameKind.note, 1, { size: { rows: 0, columns: 70_000 } });
    assert.equal(isDestroyed, true);
    assert.deepEqual(
      machine.processes.map((p) => p.isAbandoned),
      [true],
    );
  });
});

describe("a server that closes", () => {
  it("lets the answers that are due go out first", async () => {
    const { machine, client, server } = setUp();
    server.sample();
    const stopped = client.ask("stop", { force: false, timeoutMs: 1000 });
    await turns();
    let isAnswered = false;
    const answered = server.answered().then(() => {
      isAnswered = true;
    });
    await turns();
    assert.equal(isAnswered, false);
    machine.finish("power-off");
    await answered;
    server.close();
    assert.deepEqual(await stopped, { how: "power-off" });
    await client.closed;
  });
});

describe("a client", () => {
  const HELLO = encodeFrame(FrameKind.hello, 0, json({ protocol: "enlighten-control", version: 1 }));
  const alone = (): { client: ControlClient; state: { isDestroyed: boolean } } => {
    const state = { isDestroyed: false };
    const client = new ControlClient(
      {
        send: () => {},
        end: () => {},
        destroy: () => {
          state.isDestroyed = true;
        },
      },
      { setTimer: () => () => {}, explain: async () => new VmError("ended", "gone") },
    );
    return { client, state };
  };
  it("does not take an answer that is not in order", async () => {
    for (const kind of [FrameKind.answer, FrameKind.failure]) {
      const { client, state } = alone();
      client.received(HELLO);
      await client.ready;
      const asked = assert.rejects(
        client.ask("stop", { force: true, timeoutMs: 1 }),
        isVmError("failed", /not in order/),
      );
      client.received(encodeFrame(kind, 1, json({ how: 5 })));
      await asked;
      assert.equal(state.isDestroyed, true);
    }
  });
  it("knows no code that the library has not", async () => {
    const { client } = alone();
    client.received(HELLO);
    const asked = assert.rejects(client.ask("summary", {}), isVmError("failed", /^strange/));
    client.received(
      encodeFrame(FrameKind.failure, 1, json({ code: "new", message: "strange", hint: "", consoleTail: "" })),
    );
    await asked;
  });
  it("says who answers, when it is a stranger", async () => {
    const { client } = alone();
    const ready = assert.rejects(client.ready, isVmError("unsupported", /does not speak/));
    client.received(text("HTTP/1.1 400 Bad Request\r\n\r\n"));
    await ready;
    await client.closed;
    const controller = new AbortController();
    controller.abort();
    await assert.rejects(client.ask("summary", {}, { signal: controller.signal }), isVmError("aborted"));
    client.close();
  });
});
