import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ProgressLine } from "./progress.js";

function line(isTTY: boolean): { progress: ProgressLine; text: () => string; seconds: (n: number) => void } {
  let text = "";
  let ms = 0;
  const stream = { isTTY, columns: 60, write: (more: string) => (text += more) };
  const take = (): string => {
    const taken = text;
    text = "";
    return taken;
  };
  return { progress: new ProgressLine(stream, false, () => ms), text: take, seconds: (n) => (ms = n * 1000) };
}

describe("progress", () => {
  it("tells each step once where there is no terminal, though several go on at a time", () => {
    const { progress, text } = line(false);
    for (const bytes of [1e6, 2e6, 3e6])
      for (const name of ["one's index", "two's index"])
        progress.report({ step: "index", name, bytes, totalBytes: 3e6 });
    assert.equal(text(), "fetching one's index\nfetching two's index\n");
  });

  it("keeps to one line on a terminal", () => {
    const { progress, text } = line(true);
    progress.report({ step: "package", name: "linux", bytes: 1e6, totalBytes: 2e6 });
    assert.equal(text(), "\r\x1b[Kfetching linux 1.0 of 2.0 MB");
    progress.report({ step: "assemble", name: "x".repeat(100) });
    assert.equal(text().length, "\r\x1b[K".length + 59);
    progress.clear();
    assert.equal(text(), "\r\x1b[K");
  });

  const work = {
    step: "long-work",
    name: "the disk of debian:12-full",
    packages: 225,
    bytes: 200e6,
    seconds: 630,
  } as const;
  const note = "making the disk of debian:12-full, once: 225 packages of 200.0 MB, about 11 minutes\n";

  it("says of a long work what it is, how far and since when, on one line of a terminal", () => {
    const { progress, text, seconds } = line(true);
    progress.report(work);
    assert.equal(text(), note);
    seconds(65.9);
    progress.report({ step: "build", name: "installing", item: "gcc-12", part: 0.129 });
    assert.equal(text(), "\r\x1b[K 12 % 1:05 installing · gcc-12");
  });

  it("says it at every phase and every tenth where there is no terminal", () => {
    const { progress, text, seconds } = line(false);
    progress.report(work);
    assert.equal(text(), note);
    for (let i = 0; i <= 30; i++) {
      seconds(i);
      progress.report({ step: "build", name: i < 10 ? "fetching" : "installing", item: `p${i}`, part: i / 100 });
    }
    assert.equal(text(), "  0 % 0:00 fetching\n 10 % 0:10 installing\n 20 % 0:20 installing\n 30 % 0:30 installing\n");
  });
});
