import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, beforeEach, describe, it } from "node:test";
import type { CopySink } from "../../vm/copy-files.js";
import type { CopyEntry, CopyStep } from "../../vm/copy-protocol.js";
import { VmError } from "../../vm/vm-error.js";
import { openSink } from "./copy-sink.js";
import { openSource } from "./copy-source.js";

const top = mkdtempSync(join(tmpdir(), "enlighten-copy-"));
after(() => rmSync(top, { recursive: true, force: true }));
let folder: string;
let serial = 0;
beforeEach(() => {
  folder = join(top, String(serial++));
  mkdirSync(folder);
});
const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);
const entry = (kind: CopyEntry["kind"], name: string, more: Partial<CopyEntry> = {}): CopyStep => ({
  is: "entry",
  entry: {
    kind,
    name: bytesOf(name),
    mode: kind === "directory" ? 0o755 : 0o644,
    mtime: { seconds: 1_000_000, ns: 0 },
    size: 0,
    major: 0,
    minor: 0,
    target: new Uint8Array(0),
    ...more,
  },
});
const file = (name: string, text: string, mode = 0o644): CopyStep[] => [
  entry("file", name, { mode }),
  { is: "data", offset: 0, bytes: bytesOf(text) },
  { is: "file-end", size: text.length },
];
const LEAVE: CopyStep = { is: "leave" };

async function put(steps: readonly CopyStep[], to: string, name = "copy"): Promise<string[]> {
  const warnings: string[] = [];
  const sink = await openSink(to, name, (path) => void warnings.push(path));
  try {
    for (const step of steps) await sink.take(step);
    await sink.finish();
  } finally {
    sink.close();
  }
  return warnings;
}
async function copy(from: string, to: string): Promise<string[]> {
  const source = await openSource(from);
  const warnings: string[] = [];
  const sink = await openSink(to, Buffer.from(source.name).toString(), (path) => void warnings.push(path));
  try {
    for await (const step of source.steps()) if (step.is !== "warning") await sink.take(step);
    await sink.finish();
  } finally {
    sink.close();
  }
  return warnings;
}
const fails = (code: string) => (e: unknown) => e instanceof VmError && e.code === code && e.hint !== "";
/** All of a tree that a copy keeps. */
function listing(root: string): string[] {
  const lines: string[] = [];
  const inodes = new Map<number, string>();
  const walk = (path: string, shown: string): void => {
    const s = lstatSync(path);
    const content = s.isFile()
      ? readFileSync(path).toString("base64").slice(-2000)
      : s.isSymbolicLink()
        ? readlinkSync(path)
        : "";
    const same = s.isFile() && s.nlink > 1 ? (inodes.get(s.ino) ?? shown) : "";
    inodes.set(s.ino, same);
    lines.push(`${shown} ${s.mode.toString(8)} ${Math.round(s.mtimeMs)} ${s.isFile() ? s.size : 0} ${same} ${content}`);
    if (s.isDirectory()) for (const name of readdirSync(path).sort()) walk(join(path, name), `${shown}/${name}`);
  };
  walk(root, "");
  return lines;
}
function makeTree(): string {
  const tree = join(folder, "tree");
  mkdirSync(join(tree, "sub/empty"), { recursive: true });
  writeFileSync(join(tree, "a"), "hello");
  chmodSync(join(tree, "a"), 0o640);
  linkSync(join(tree, "a"), join(tree, "sub/b"));
  symlinkSync("/nowhere", join(tree, "dangling"));
  symlinkSync("..", join(tree, "sub/up"));
  writeFileSync(join(tree, "ünï\ncode"), Buffer.alloc(700_001, 7));
  writeFileSync(join(tree, "sparse"), "x");
  truncateSync(join(tree, "sparse"), 40 << 20);
  utimesSync(join(tree, "sub/empty"), 1e9, 981_173_106.789);
  chmodSync(join(tree, "sub"), 0o711);
  return tree;
}

describe("a tree of the host", () => {
  it("comes out of source and sink as it was", async () => {
    const tree = makeTree();
    assert.deepEqual(await copy(tree, join(folder, "new")), []);
    assert.deepEqual(listing(join(folder, "new")), listing(tree));
    const { blocks } = statSync(join(folder, "new/sparse"));
    assert.ok(blocks * 512 < 1 << 20, `${blocks} blocks`);
  });
  it("goes where cp puts it", async () => {
    const tree = makeTree();
    const dirs = ["ours", "theirs"].map((d) => join(folder, d));
    for (const d of dirs) mkdirSync(join(d, "there"), { recursive: true });
    const cases = [
      [tree, "there"],
      [tree, "there/"],
      [tree, "new"],
      [`${tree}/a`, "there"],
      [`${tree}/a`, "a2"],
      [`${tree}/.`, "there"],
      [`${tree}/dangling`, "link"],
      [`${tree}/sub/up/`, "through"],
    ] as const;
    for (const [from, to] of cases) {
      await copy(from, join(dirs[0]!, to));
      execFileSync("cp", ["-a", from, to], { cwd: dirs[1]! });
    }
    // a folder that was there before has the time of its last change
    const shape = (d: string): string[] => listing(d).map((l) => (/^(\/there)? /.test(l) ? l.split(" ")[0]! : l));
    assert.deepEqual(shape(dirs[0]!), shape(dirs[1]!));
  });
  it("is not there: an error with the path", async () => {
    await assert.rejects(copy(join(folder, "no"), folder), fails("not-found"));
    writeFileSync(join(folder, "f"), "");
    await assert.rejects(copy(join(folder, "f"), join(folder, "no/x")), fails("not-found"));
    await assert.rejects(copy(join(folder, "f"), join(folder, "no/")), fails("exists"));
  });
  it("tells fifos of the source, and the sink leaves them out by name", async () => {
    execFileSync("mkfifo", [join(folder, "p")]);
    assert.deepEqual(await copy(join(folder, "p"), join(folder, "q")), [join(folder, "q")]);
    assert.equal(existsSync(join(folder, "q")), false);
  });
});

describe("a guest that means ill", () => {
  let outside: string;
  let inside: string;
  beforeEach(() => {
    outside = join(folder, "outside");
    inside = join(folder, "inside");
    mkdirSync(outside);
    mkdirSync(inside);
    writeFileSync(join(outside, "secret"), "secret");
  });
  const untouched = (): void => {
    assert.deepEqual(readdirSync(outside), ["secret"]);
    assert.equal(readFileSync(join(outside, "secret"), "utf8"), "secret");
  };
  it("does not get through a link that it has made", async () => {
    const steps = [
      entry("directory", "copy"),
      entry("symlink", "way", { target: bytesOf(outside) }),
      entry("directory", "way"),
      ...file("secret", "changed"),
      LEAVE,
      LEAVE,
    ];
    await assert.rejects(put(steps, inside), fails("exists"));
    untouched();
  });
  it("does not write to what a link names", async () => {
    const steps = [
      entry("directory", "copy"),
      entry("symlink", "x", { target: bytesOf(join(outside, "secret")) }),
      ...file("x", "changed"),
      LEAVE,
    ];
    await put(steps, inside);
    untouched();
    assert.equal(readFileSync(join(inside, "copy/x"), "utf8"), "changed");
  });
  it("does not get through links that were there before, nor into files with other names", async () => {
    mkdirSync(join(inside, "copy"));
    symlinkSync(outside, join(inside, "copy/d"));
    linkSync(join(outside, "secret"), join(inside, "copy/f"));
    await put([entry("directory", "copy"), ...file("f", "changed"), LEAVE], inside);
    untouched();
    await assert.rejects(put([entry("directory", "copy"), entry("directory", "d")], inside), fails("exists"));
    untouched();
  });
  it("links to nothing outside of the copy", async () => {
    const steps = [
      entry("directory", "copy"),
      entry("symlink", "way", { target: bytesOf(outside) }),
      entry("hardlink", "mine", { target: bytesOf("way/secret") }),
    ];
    await assert.rejects(put(steps, inside), fails("exists"));
    untouched();
    assert.equal(statSync(join(outside, "secret")).nlink, 1);
  });
  it("does not lend the user's rights", async () => {
    await put(file("copy", "x", 0o6755), inside);
    assert.equal(statSync(join(inside, "copy")).mode & 0o7777, 0o755);
  });
  it("leaves no half of a file behind, and until it is whole the older one has the name", async () => {
    writeFileSync(join(inside, "copy"), "older");
    const begin = async (): Promise<CopySink> => {
      const sink = await openSink(inside, "copy", () => {});
      await sink.take(entry("file", "copy"));
      await sink.take({ is: "data", offset: 0, bytes: bytesOf("half") });
      assert.equal(readFileSync(join(inside, "copy"), "utf8"), "older");
      return sink;
    };
    // left by a process that was killed, and had this one's number
    const part = /^\.enlighten-\d+-(\d+)\.part$/;
    const first = await begin();
    const [name] = readdirSync(inside).filter((n) => part.test(n));
    first.close();
    assert.deepEqual(readdirSync(inside), ["copy"]);
    const next = `.enlighten-${process.pid}-${Number(part.exec(name!)![1]) + 1}.part`;
    writeFileSync(join(inside, next), "another's");
    const second = await begin();
    await second.take({ is: "file-end", size: 4 });
    await second.finish();
    assert.equal(readFileSync(join(inside, "copy"), "utf8"), "half");
    assert.deepEqual(readdirSync(inside).sort(), [next, "copy"]);
  });
});
