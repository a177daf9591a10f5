import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { ExecOptions, ExecResult } from "./guest-agent.js";
import { GuestShares, parseShare, type ShareOptions, shareSpecs } from "./guest-shares.js";
import type { Integration } from "./integration.js";
import { VmError } from "./vm-error.js";

const ALL = { hasNetwork: true, hasAgent: true, isShared: false };
const bad = (e: unknown): boolean => e instanceof VmError && e.code === "bad-option" && e.hint !== "";

describe("shares as they are asked for", () => {
  it("are a folder, a place and a mode", () => {
    const cases: [string, ShareOptions][] = [
      ["src", { directory: "src", readOnly: false }],
      ["src:ro", { directory: "src", readOnly: true }],
      ["src:rw", { directory: "src", readOnly: false }],
      ["/a b:/c d:ro", { directory: "/a b", readOnly: true, mountPoint: "/c d" }],
      [".:/x", { directory: ".", readOnly: false, mountPoint: "/x" }],
      ["a:b", { directory: "a:b", readOnly: false }],
      ["ro", { directory: "ro", readOnly: false }],
    ];
    for (const [text, share] of cases) assert.deepEqual(parseShare(text), share, text);
    for (const text of ["", "a\0b"]) assert.throws(() => parseShare(text), bad, text);
  });
  it("are at /mnt and their name, unless a place is given", () => {
    const points = shareSpecs(
      [{ directory: "/home/me/src/" }, { directory: "/x", mountPoint: "/y/z/" }, { directory: "/" }],
      ALL,
    );
    assert.deepEqual(
      points.map((s) => s.mountPoint),
      ["/mnt/src", "/y/z", "/mnt/share"],
    );
  });
  it("are refused where they cannot be", () => {
    const share = { directory: "/a" };
    assert.throws(() => shareSpecs([share], { ...ALL, hasNetwork: false }), bad);
    assert.throws(() => shareSpecs([share], { ...ALL, hasAgent: false }), bad);
    assert.throws(() => shareSpecs([share], { ...ALL, isShared: true }), bad);
    assert.throws(() => shareSpecs([share, { directory: "/b/a" }], ALL), bad);
    for (const mountPoint of ["x", "/", "/a/../b", "/a/.", "/a\nb"])
      assert.throws(() => shareSpecs([{ ...share, mountPoint }], ALL), bad, mountPoint);
    for (const cacheSeconds of [-1, 0.5, 1e9, Number.NaN])
      assert.throws(() => shareSpecs([{ ...share, cacheSeconds }], ALL), bad, String(cacheSeconds));
    assert.deepEqual(shareSpecs([], { hasNetwork: false, hasAgent: false, isShared: true }), []);
  });
});

describe("changes of shares", () => {
  /** An agent whose commands end when they are let. */
  function machine(): {
    readonly shares: GuestShares;
    /** What the guest was asked to look at, by command; the first word: all that it knows goes first. */
    readonly looks: string[];
    end(error?: Error): Promise<void>;
  } {
    const looks: string[] = [];
    const ends: ((error: Error | undefined) => void)[] = [];
    const shares = new GuestShares(
      shareSpecs([{ directory: "/a" }, { directory: "/b", mountPoint: "/ü" }], ALL),
      {} as Integration,
      (command, o?: ExecOptions) => {
        const anything = command.at(-1) === "anything" ? "anything " : "";
        looks.push(
          anything +
            Buffer.from(o!.stdin as Uint8Array)
              .toString()
              .split("\0")
              .join(" "),
        );
        return new Promise<ExecResult>((resolve, reject) =>
          ends.push((error) => (error === undefined ? resolve({} as ExecResult) : reject(error))),
        );
      },
    );
    const end = async (error?: Error): Promise<void> => {
      ends.shift()!(error);
      await new Promise((resolve) => setImmediate(resolve));
    };
    return { shares, looks, end };
  }
  const change = (share: number, ...paths: string[]) =>
    ({ type: "share-changed", share, paths: paths.map((path) => new TextEncoder().encode(path)) }) as const;

  it("are looked at where the guest has them, whatever their names are", () => {
    const { shares, looks } = machine();
    shares.changed(change(1, "", "x y", "ä/ö"));
    assert.deepEqual(looks, ["/ü /ü/x y /ü/ä/ö"]);
    assert.equal(shares.specs[1]!.isWatched, true);
  });
  it("wait while the guest looks at others, and are told once", async () => {
    const { shares, looks, end } = machine();
    shares.changed(change(0, "1"));
    for (let i = 0; i < 3; i++) shares.changed(change(0, "2", "3"));
    assert.deepEqual(looks.splice(0), ["/mnt/a/1"]);
    await end();
    assert.deepEqual(looks.splice(0), ["/mnt/a/2 /mnt/a/3"]);
    await end();
    assert.deepEqual(looks, []);
    shares.changed(change(0, "2"));
    assert.deepEqual(looks, ["/mnt/a/2"]);
  });
  it("go on when a guest did not answer", async () => {
    const { shares, looks, end } = machine();
    shares.changed(change(0, "1"));
    shares.changed(change(0, "2"));
    await end(new Error("timed out"));
    assert.deepEqual(looks, ["/mnt/a/1", "/mnt/a/2"]);
  });
  it("are not waited for by files that are listed ahead, and the other way around", async () => {
    const { shares, looks, end } = machine();
    shares.changed(change(0, "1"));
    const path = new TextEncoder().encode("d");
    const from = new TextEncoder().encode("d/e");
    shares.scanned({ type: "share-scanned", share: 0, path });
    for (let i = 0; i < 3; i++) {
      shares.scanned({ type: "share-scanned", share: 1, path, from });
      shares.scanned({ type: "share-scanned", share: 1, path: from });
    }
    shares.scanned({ type: "share-scanned", share: 0, path: from });
    // each once, nothing in what is listed whole, two at once
    assert.deepEqual(looks.splice(0), ["/mnt/a/1", "/mnt/a/d ", "/ü/d /ü/d/e"]);
    await end();
    await end();
    await end(new Error("timed out"));
    shares.scanned({ type: "share-scanned", share: 1, path: from });
    shares.scanned({ type: "share-scanned", share: 0, path });
    assert.deepEqual(looks, ["/ü/d/e ", "/mnt/a/d "]);
  });
  it("are anything, where too many wait", async () => {
    const { shares, looks, end } = machine();
    shares.changed(change(0, "1"));
    for (let i = 0; i < 100; i++) shares.changed(change(0, ...Array.from({ length: 100 }, (_, n) => `${i}.${n}`)));
    await end();
    assert.deepEqual(looks.splice(0), ["/mnt/a/1", "anything /mnt/a /ü"]);
    await end();
    assert.deepEqual(looks, []);
  });
});
