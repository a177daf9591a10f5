/** Ends of copies that are no files: bytes in, bytes out. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { sinkOfBytes, sourceOfBytes } from "./copy-bytes.js";
import { COPY_CHUNK, type CopyEntry, type CopyStep } from "./copy-protocol.js";
import { VmError } from "./vm-error.js";

const entry = (kind: CopyEntry["kind"]): CopyStep => ({
  is: "entry",
  entry: {
    kind,
    name: new Uint8Array(0),
    mode: 0o600,
    mtime: { seconds: 0, ns: 0 },
    size: 0,
    major: 0,
    minor: 0,
    target: new Uint8Array(0),
  },
});

describe("bytes as the source of a copy", () => {
  it("are one file, in pieces that fit into a record", async () => {
    const long = new Uint8Array(2 * COPY_CHUNK + 5).fill(7);
    async function* bytes(): AsyncGenerator<Uint8Array> {
      yield Uint8Array.of(1, 2);
      yield new Uint8Array(0);
      yield long;
    }
    const source = sourceOfBytes(bytes(), 1234.5);
    assert.deepEqual([source.name.length, source.totalBytes], [0, undefined]);
    const steps: string[] = [];
    for await (const step of source.steps())
      steps.push(
        step.is === "data"
          ? `${step.offset}+${step.bytes.length}`
          : step.is === "entry"
            ? `${step.entry.kind} ${step.entry.mode.toString(8)} ${step.entry.mtime.seconds}`
            : `${step.is} ${step.is === "file-end" ? step.size : ""}`,
      );
    assert.deepEqual(steps, [
      "file 644 1234",
      "0+2",
      `2+${COPY_CHUNK}`,
      `${2 + COPY_CHUNK}+${COPY_CHUNK}`,
      `${2 + 2 * COPY_CHUNK}+5`,
      `file-end ${long.length + 2}`,
    ]);
  });
  it("fail the copy when they cannot be had", async () => {
    // biome-ignore lint/correctness/useYield: it fails before
    async function* bytes(): AsyncGenerator<Uint8Array> {
      throw new Error("the pipe broke");
    }
    await assert.rejects(async () => {
      for await (const _ of sourceOfBytes(bytes(), 0).steps());
    }, /the pipe broke/);
  });
});

describe("bytes as the end of a copy", () => {
  it("are a file's, holes as zeros, kept by who gets them", async () => {
    const got: Uint8Array[] = [];
    const sink = sinkOfBytes("/a", (bytes) => void got.push(bytes));
    const shared = Uint8Array.of(1, 2, 3);
    await sink.take(entry("file"));
    await sink.take({ is: "data", offset: 2, bytes: shared });
    shared.fill(9);
    await sink.take({ is: "data", offset: 100_000, bytes: Uint8Array.of(4) });
    await sink.take({ is: "file-end", size: 100_003 });
    await sink.finish();
    const all = Buffer.concat(got);
    const expected = Buffer.alloc(100_003);
    expected.set([1, 2, 3], 2);
    expected[100_000] = 4;
    assert.equal(all.compare(expected), 0);
  });
  it("stop when it is closed, in the middle of a hole too", async () => {
    let got = 0;
    const sink = sinkOfBytes("/a", (bytes) => {
      got += bytes.length;
      sink.close();
    });
    await sink.take(entry("file"));
    await sink.take({ is: "file-end", size: 2 ** 50 });
    await sink.take({ is: "data", offset: 0, bytes: Uint8Array.of(1) });
    assert.ok(got > 0 && got <= 1 << 20);
  });
  it("are no folder's, nor a device's", async () => {
    for (const kind of ["directory", "symlink", "character-device"] as const)
      await assert.rejects(
        sinkOfBytes("/a", () => {}).take(entry(kind)),
        (e: unknown) => e instanceof VmError && e.code === "exists" && /\/a in the guest is a/.test(e.message),
      );
  });
});
