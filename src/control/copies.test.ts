/** Copies over the control protocol, against a machine that is a script: paths, streams, progress, and every way that they end. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { BytesListener } from "../vm/copy-bytes.js";
import { VmError } from "../vm/vm-error.js";
import { type Request, Stream, type ToClient } from "./catalogue.js";
import { isVmError, setUp, turns } from "./scripted-connection.js";

const IN: Request<"copy"> = { direction: "in", host: "/here/a", guest: "/there" };
const DONE = { bytes: 5, files: 2, warnings: [] };

describe("a copy", () => {
  it("goes to the machine as it was asked for, and tells how far it is and what was left out", async () => {
    const { machine, host, client } = setUp();
    const notes: ToClient<"copy">[] = [];
    const session = client.begin("copy", { ...IN, user: "nobody", timeoutMs: 7000 }, (note) => void notes.push(note));
    await turns();
    const [copy] = machine.copies;
    assert.deepEqual([copy!.direction, copy!.other, copy!.guest], ["in", "/here/a", "/there"]);
    const { user, timeoutMs, onProgress, onWarning } = copy!.options;
    assert.deepEqual([user, timeoutMs], ["nobody", 7000]);
    onProgress!({ bytes: 1, totalBytes: 5, files: 0, current: "a" });
    // told again once some time has gone, the last of what came meanwhile
    onProgress!({ bytes: 2, totalBytes: 5, files: 0, current: "a" });
    onProgress!({ bytes: 3, totalBytes: undefined, files: 1, current: "b" });
    host.timers.shift()!();
    onProgress!({ bytes: 4, totalBytes: 5, files: 1, current: "b" });
    onWarning!({ path: "/here/a/fifo", reason: "it is one" });
    copy!.finish(DONE);
    assert.deepEqual(await session.result, { bytes: 5, files: 2, warnings: 1 });
    assert.equal(host.timers.length, 0);
    assert.deepEqual(notes, [
      { progress: { bytes: 1, totalBytes: 5, files: 0, current: "a" } },
      { progress: { bytes: 3, files: 1, current: "b" } },
      { warning: { path: "/here/a/fifo", reason: "it is one" } },
    ]);
  });

  it("comes out of the guest the same way, without what nobody asked for", async () => {
    const { machine, client } = setUp();
    const session = client.begin("copy", { direction: "out", host: "/here/a", guest: "/there" });
    await turns();
    const [copy] = machine.copies;
    assert.deepEqual([copy!.direction, copy!.other, copy!.guest], ["out", "/here/a", "/there"]);
    assert.deepEqual([copy!.options.user, copy!.options.timeoutMs], [undefined, undefined]);
    copy!.finish(DONE);
    assert.deepEqual(await session.result, { bytes: 5, files: 2, warnings: 0 });
  });

  it("tells a thousand warnings, and counts the others", async () => {
    const { machine, client } = setUp();
    let told = 0;
    const session = client.begin("copy", IN, ({ warning }) => void (told += warning === undefined ? 0 : 1));
    await turns();
    for (let i = 0; i < 2500; i++) machine.copies[0]!.options.onWarning!({ path: "x".repeat(9000), reason: "" });
    machine.copies[0]!.finish(DONE);
    assert.equal((await session.result).warnings, 2500);
    assert.equal(told, 1000);
  });

  it("takes a file's bytes from the request's input, as fast as they are taken", async () => {
    const { machine, client } = setUp();
    const session = client.begin("copy", { direction: "in", guest: "/there" });
    const sent = Buffer.alloc(600_000, 7);
    let isSent = false;
    void session.write(Stream.input, sent).then(() => {
      session.end(Stream.input);
      isSent = true;
    });
    await turns(100);
    assert.equal(isSent, false);
    const got: Uint8Array[] = [];
    for await (const piece of machine.copies[0]!.other as AsyncIterable<Uint8Array>) got.push(piece);
    assert.equal(Buffer.concat(got).compare(sent), 0);
    machine.copies[0]!.finish(DONE);
    await session.result;
  });

  it("does not take a sender that went for the end of a file", async () => {
    for (const goes of ["die", "cancel"] as const) {
      const { machine, client, die } = setUp();
      const session = client.begin("copy", { direction: "in", guest: "/there" });
      const failed = assert.rejects(session.result);
      await turns();
      const read = (async (): Promise<void> => {
        for await (const _ of machine.copies[0]!.other as AsyncIterable<Uint8Array>);
      })();
      const refused = assert.rejects(read, isVmError("aborted"));
      await turns();
      if (goes === "die") die();
      else session.cancel(new Error("nobody waits"));
      await Promise.all([failed, refused]);
    }
  });

  it("gives a file's bytes on the request's output", async () => {
    const { machine, client } = setUp();
    const session = client.begin("copy", { direction: "out", guest: "/there" });
    const got: Uint8Array[] = [];
    session.read(Stream.output, (bytes) => void got.push(bytes));
    await turns();
    const sent = Buffer.alloc(600_000, 9);
    await (machine.copies[0]!.other as BytesListener)(sent);
    machine.copies[0]!.finish(DONE);
    await session.result;
    assert.equal(Buffer.concat(got).compare(sent), 0);
  });

  it("is aborted by a note, and answered when it has let go; by a connection that goes, too", async () => {
    const { machine, client, die } = setUp();
    const session = client.begin("copy", IN);
    await turns();
    session.note({ abort: true });
    await assert.rejects(session.result, isVmError("aborted"));
    assert.equal(machine.copies[0]!.options.signal!.aborted, true);
    const failed = assert.rejects(client.ask("copy", IN), isVmError("ended"));
    await turns();
    die();
    await failed;
    assert.equal(machine.copies[1]!.options.signal!.aborted, true);
  });

  it("fails as the machine says, with what to do about a time-out", async () => {
    const { machine, client } = setUp();
    const failsWith = async (asked: Request<"copy">, error: Error, code: string, message: RegExp): Promise<void> => {
      const failed = assert.rejects(client.ask("copy", asked), isVmError(code, message));
      await turns();
      machine.copies.at(-1)!.fail(error);
      await failed;
    };
    await failsWith(IN, new VmError("no-space", "/there in the guest: no space left"), "no-space", /no space left/);
    await failsWith(IN, new VmError("timeout", "waited"), "timeout", /^waited/);
    await failsWith({ ...IN, timeoutMs: 1500 }, new VmError("timeout", "waited"), "timeout", /not ended within 1.5 s/);
    await failsWith(IN, new TypeError("a bug"), "failed", /a bug/);
  });

  it("is not made from a path that begins nowhere", async () => {
    const { machine, client } = setUp();
    for (const host of ["a", "./a", "../a", ""])
      await assert.rejects(client.ask("copy", { ...IN, host }), isVmError("bad-option", /no absolute path/));
    for (const host of ["C:\\a", "\\\\server\\a", "/a"]) client.begin("copy", { ...IN, host }).result.catch(() => {});
    await turns();
    assert.deepEqual(
      machine.copies.map((c) => c.other),
      ["C:\\a", "\\\\server\\a", "/a"],
    );
  });
});
