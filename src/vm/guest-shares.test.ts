import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseShare, type ShareOptions, shareSpecs } from "./guest-shares.js";
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
