import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { storedXz } from "../../tests/image/synthetic-archive.js";
import { type Compression, compressionOf, decompress } from "./compression.js";
import { ImageError } from "./errors.js";

const missing = (tool: string): string | false =>
  spawnSync(tool, ["--version"]).error === undefined ? false : `${tool} is not installed`;

/** Machine code (this Node, so that branch filters have work), text, noise, runs, and next to nothing. */
const SAMPLES: readonly Buffer[] = [
  readFileSync(process.execPath).subarray(4 << 20, (4 << 20) + 900_000),
  Buffer.from("some text that repeats, some text that differs\n".repeat(4000)),
  randomBytes(70_000),
  Buffer.alloc(300_000),
  Buffer.from("x"),
  Buffer.alloc(0),
];

const PACKERS: readonly (readonly [Compression, string, readonly string[]])[] = [
  ["gzip", "gzip", ["-c"]],
  ["xz", "xz", ["-c"]],
  ["xz", "xz", ["-c", "--check=crc32", "--x86", "--lzma2=dict=1MiB"]],
  ["xz", "xz", ["-c", "--check=crc64", "--x86=start=4096", "--lzma2"]],
  ["xz", "xz", ["-c", "--check=sha256"]],
  ["xz", "xz", ["-c", "--check=none"]],
  ["xz", "xz", ["-c", "--block-size=100000", "--check=sha256", "-T2"]],
  ["zstd", "zstd", ["-c", "-q"]],
  ["zstd", "zstd", ["-c", "-q", "-19", "--long=27"]],
  ["zstd", "zstd", ["-c", "-q", "--no-check", "--content-size"]],
  ["lz4", "lz4", ["-c", "-q"]],
  ["lz4", "lz4", ["-c", "-q", "-9", "-BD", "-B4"]],
  ["lz4", "lz4", ["-c", "-q", "-BX", "--content-size"]],
  ["lz4-legacy", "lz4", ["-c", "-q", "-l"]],
];

async function attempt(bytes: Uint8Array): Promise<void> {
  await decompress(bytes, 4 << 20).catch((error: unknown) => {
    if (!(error instanceof ImageError)) throw error;
  });
}

describe("compression", () => {
  for (const [compression, tool, options] of PACKERS) {
    it(`unpacks ${tool} ${options.join(" ")}`, { skip: missing(tool) }, async () => {
      for (const sample of SAMPLES) {
        const packed = spawnSync(tool, options as string[], { input: sample, maxBuffer: 1 << 26 }).stdout;
        // "lz4 -l" writes no magic for empty input
        if (packed.length === 0) continue;
        assert.equal(compressionOf(packed), compression);
        assert.ok(sample.equals(await decompress(packed)), `${sample.length} bytes`);
      }
    });

    it(`refuses what is cut off or changed in ${tool} ${options.join(" ")}`, { skip: missing(tool) }, async () => {
      const sample = SAMPLES[1]!.subarray(0, 20_000);
      const packed = spawnSync(tool, options as string[], { input: sample, maxBuffer: 1 << 26 }).stdout;
      const lengths = fc.nat(packed.length - 1);
      await fc.assert(
        fc.asyncProperty(lengths, async (length) => {
          const cut = packed.subarray(0, length);
          if (compressionOf(cut) === "none") return;
          const out = await decompress(cut).catch((error: unknown) => {
            assert.ok(error instanceof ImageError, String(error));
          });
          // a legacy LZ4 frame has no end mark: between two blocks nothing tells that more should come
          if (compression !== "lz4-legacy")
            assert.ok(out === undefined || !sample.equals(out) || length > packed.length - 9);
        }),
        { numRuns: 15 },
      );
      const change = fc.tuple(fc.nat(packed.length - 1), fc.integer({ min: 1, max: 255 }));
      await fc.assert(
        fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 4 }), async (changes) => {
          const bad = Uint8Array.from(packed);
          for (const [at, bits] of changes) bad[at]! ^= bits;
          await attempt(bad);
        }),
        { numRuns: 25 },
      );
    });
  }

  it("survives any bytes behind a magic", async () => {
    const magics = [
      [0x1f, 0x8b, 8],
      [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0],
      [0x28, 0xb5, 0x2f, 0xfd],
      [4, 0x22, 0x4d, 0x18],
      [2, 0x21, 0x4c, 0x18],
    ];
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...magics), fc.uint8Array({ maxLength: 200 }), (magic, rest) =>
        attempt(Uint8Array.from([...magic, ...rest])),
      ),
      { numRuns: 200 },
    );
  });

  it("refuses bombs", async () => {
    const bomb = gzipSync(Buffer.alloc(8 << 20));
    await assert.rejects(decompress(bomb, 1 << 20), (error) => error instanceof ImageError);
    await assert.rejects(decompress(storedXz(Buffer.alloc(2 << 20)), 1 << 20), { code: "too-big" });
  });

  it("unpacks the tests' own xz files", async () => {
    for (const sample of SAMPLES) if (sample.length > 0) assert.ok(sample.equals(await decompress(storedXz(sample))));
  });

  it("says which packing it does not know", async () => {
    await assert.rejects(decompress(Buffer.from("BZh91AY&SY")), { code: "unsupported", message: /bzip2/ });
  });
});
