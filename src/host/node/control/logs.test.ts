/** Logs that turn over, and who reads them meanwhile. */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import fc from "fast-check";
import { readLog } from "./log-reader.js";
import { RotatingLog } from "./rotating-log.js";

let dir: string;
before(() => {
  dir = mkdtempSync(join(tmpdir(), "enlighten-logs-"));
});
after(() => rmSync(dir, { recursive: true }));

async function all(log: AsyncGenerator<Uint8Array, boolean>): Promise<string> {
  const pieces: Uint8Array[] = [];
  for await (const piece of log) pieces.push(piece);
  return Buffer.concat(pieces).toString();
}
/** The last lines, as everybody counts them. */
function tail(text: string, n: number): string {
  const lines = text.split("\n");
  const last = lines.pop()!;
  const whole = [...lines.map((l) => `${l}\n`), ...(last === "" ? [] : [last])];
  return n === 0 ? "" : whole.slice(-n).join("");
}

describe("a log that turns over", () => {
  it("takes no more than its two files, and keeps the newest", async () => {
    const path = join(dir, "bounded");
    const log = new RotatingLog(path, 1000);
    let text = "";
    for (let i = 0; i < 500; i++) {
      const line = `line ${i}\n`;
      log.write(Buffer.from(line));
      text += line;
    }
    log.close();
    assert.ok(statSync(path).size + statSync(`${path}.1`).size <= 2000);
    assert.deepEqual(
      readdirSync(dir).filter((f) => f.startsWith("bounded")),
      ["bounded", "bounded.1"],
    );
    const kept = await all(readLog(() => path, Number.POSITIVE_INFINITY));
    assert.ok(kept.length > 1000 && text.endsWith(kept));
  });

  it("gives its last lines across both files", async () => {
    let n = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.constantFrom("a", "bc\n", "\n", "def", "\n\n", "x".repeat(30)), { maxLength: 40 }),
        fc.integer({ min: 0, max: 12 }),
        async (pieces, lines) => {
          const path = join(dir, `tail-${n++}`);
          const log = new RotatingLog(path, 60);
          for (const piece of pieces) log.write(Buffer.from(piece));
          log.close();
          const kept = await all(readLog(() => path, Number.POSITIVE_INFINITY));
          assert.equal(await all(readLog(() => path, lines)), tail(kept, lines));
        },
      ),
    );
  });

  it("gives the last of lines that are longer than a piece", async () => {
    const path = join(dir, "long");
    const log = new RotatingLog(path);
    const text = `first\n${"y".repeat(200_000)}\n${"z".repeat(100_000)}\nlast`;
    log.write(Buffer.from(text));
    log.close();
    for (const n of [1, 2, 3, 4, 9]) assert.equal(await all(readLog(() => path, n)), tail(text, n));
  });

  it("is followed over its turns, and into another folder, without a gap", async () => {
    const from = join(dir, "here");
    mkdirSync(from);
    let folder = from;
    const path = (): string => join(folder, "log");
    const log = new RotatingLog(path(), 2000);
    let text = "";
    const write = (line: string): void => {
      log.write(Buffer.from(line));
      text += line;
    };
    write("before\n");
    let isOver = false;
    let got = "";
    const reading = (async () => {
      for await (const piece of readLog(path, Number.POSITIVE_INFINITY, () => isOver))
        got += Buffer.from(piece).toString();
    })();
    const until = async (done: () => boolean): Promise<void> => {
      while (!done()) await new Promise((resolve) => setTimeout(resolve, 5));
    };
    await until(() => got === text);
    for (let i = 0; i < 4; i++) {
      write(`${"x".repeat(1500)} ${i}\n`);
      await until(() => got === text);
    }
    folder = join(dir, "there");
    renameSync(from, folder);
    write("moved\n");
    isOver = true;
    log.close();
    await reading;
    assert.equal(got, text);
  });

  it("is not there: nothing comes, and the reader says so", async () => {
    const log = readLog(() => join(dir, "nowhere"), 5);
    assert.deepEqual(await log.next(), { done: true, value: false });
  });
});
