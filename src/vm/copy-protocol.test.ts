import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  COPY_CHUNK,
  type CopyEntry,
  CopyRecord,
  type CopyStep,
  CopyViolation,
  decodeEntry,
  encodeEntry,
  isName,
  MAX_DEPTH,
  namesOf,
  RecordReader,
  record,
  u64,
} from "./copy-protocol.js";
import { CopyReceiver } from "./copy-receiver.js";
import { COPY_MASK, CopySum, SUM_PIECE } from "./copy-sum.js";
import { encodeStep, lastName } from "./guest-copy.js";
import { VmError } from "./vm-error.js";

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);
const entry = (kind: CopyEntry["kind"], name: string, more: Partial<CopyEntry> = {}): CopyEntry => ({
  kind,
  name: bytesOf(name),
  mode: 0o644,
  mtime: { seconds: -5, ns: 999_999_999 },
  size: 0,
  major: 0,
  minor: 0,
  target: new Uint8Array(0),
  ...more,
});
/** A stream in pieces of the given size. */
function pieces(bytes: Uint8Array, size: number): () => Promise<Uint8Array | undefined> {
  let at = 0;
  return async () => {
    if (at >= bytes.length) return undefined;
    at += size;
    return bytes.subarray(at - size, at);
  };
}
function joined(parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}
async function receive(bytes: Uint8Array, size = 7): Promise<CopyStep[]> {
  const receiver = new CopyReceiver(new RecordReader(pieces(bytes, size)));
  const steps: CopyStep[] = [];
  for (let step = await receiver.next(); step !== undefined; step = await receiver.next())
    steps.push(step.is === "data" ? { ...step, bytes: step.bytes.slice() } : step);
  return steps;
}
const send = (steps: readonly CopyStep[]): Uint8Array => {
  const sum = new CopySum();
  return joined([...steps.map((s) => encodeStep(s, sum)!), record(CopyRecord.end)]);
};
const TREE: readonly CopyStep[] = [
  { is: "entry", entry: entry("directory", "root", { mode: 0o755 }) },
  { is: "entry", entry: entry("file", "a", { size: 9000 }) },
  { is: "data", offset: 0, bytes: bytesOf("some bytes") },
  { is: "data", offset: 8192, bytes: bytesOf("more") },
  { is: "file-end", size: 9000 },
  { is: "entry", entry: entry("directory", "sub") },
  { is: "entry", entry: entry("symlink", "l", { target: bytesOf("../a") }) },
  { is: "entry", entry: entry("hardlink", "h", { target: bytesOf("a") }) },
  { is: "leave" },
  { is: "entry", entry: entry("character-device", "null", { major: 1, minor: 3 }) },
  { is: "leave" },
];

describe("records of a copy", () => {
  it("carry every field of an entry", () => {
    const all = entry("block-device", "ü\xff", { mode: 0o7755, size: 2 ** 45, major: 259, minor: 70_000 });
    assert.deepEqual(decodeEntry(encodeEntry(all), false), all);
  });
  it("bring a tree over in pieces of any size", async () => {
    for (const size of [1, 5, 4096]) assert.deepEqual(await receive(send(TREE), size), TREE);
  });
  it("take no name that leads elsewhere", () => {
    for (const name of ["", ".", "..", "a/b", "/", "a\0", "x".repeat(256)])
      assert.equal(isName(bytesOf(name)), false, name);
    for (const name of ["a", "...", "..a", ".a", "a b\n"]) assert.equal(isName(bytesOf(name)), true, name);
    for (const path of ["..", "a/../b", "/a", "a//b", "", "a/."])
      assert.throws(() => namesOf(bytesOf(path)), CopyViolation, path);
    assert.deepEqual(namesOf(bytesOf("a/b")), [bytesOf("a"), bytesOf("b")]);
  });
  it("refuse what is out of order, each with an error of its own kind", async () => {
    const file = TREE[1]!;
    const cases: Record<string, readonly CopyStep[]> = {
      "data of no file": [TREE[0]!, TREE[2]!],
      "data that go back": [TREE[0]!, file, TREE[3]!, TREE[2]!],
      "an entry within a file": [TREE[0]!, file, file],
      "no folder is open": [{ is: "leave" }],
      "an entry in no folder": [file, { is: "file-end", size: 0 }, file],
      "an end in the middle": [TREE[0]!],
      "a link to nothing": [TREE[7]!],
      "a name that leads elsewhere": [TREE[0]!, { is: "entry", entry: entry("file", "..") }],
      "a link's path that leads elsewhere": [
        TREE[0]!,
        { is: "entry", entry: entry("hardlink", "x", { target: bytesOf("../x") }) },
      ],
      "a file that is shorter than its data": [TREE[0]!, file, TREE[3]!, { is: "file-end", size: 1 }],
      "folders that are too deep": Array.from({ length: MAX_DEPTH + 1 }, () => TREE[0]!),
    };
    for (const [message, steps] of Object.entries(cases))
      await assert.rejects(receive(send(steps)), (e) => e instanceof CopyViolation && e.message === message, message);
    await assert.rejects(receive(record("?")), CopyViolation);
    await assert.rejects(
      receive(joined([record("T").subarray(0, 1), Uint8Array.of(255, 255, 255, 255)])),
      CopyViolation,
    );
  });
  it("notice one changed bit of a file", async () => {
    const good = send([TREE[1]!, { is: "data", offset: 0, bytes: new Uint8Array(100) }, { is: "file-end", size: 100 }]);
    const at = good.length - 5 - 21 - 50;
    assert.equal(good[at], 0);
    good[at] = 4;
    await assert.rejects(receive(good), (e) => e instanceof VmError && e.code === "mismatch");
  });
  it("say what the guest could not do", async () => {
    const failed = record(CopyRecord.failed, Uint8Array.of(28, 0, 0, 0), bytesOf("/tmp/x\0No space left on device"));
    await assert.rejects(
      receive(failed),
      (e) => e instanceof VmError && e.code === "no-space" && e.message.includes("/tmp/x") && e.hint !== "",
    );
  });
  it("end for any bytes that a guest may send", async () => {
    let seed = 12345;
    const random = (n: number): number => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
      return (seed >>> 8) % n;
    };
    const parts = TREE.map((s) => {
      const sum = new CopySum();
      return encodeStep(s, sum)!;
    });
    const types = [...Object.values(CopyRecord), "x"];
    let refused = 0;
    for (let i = 0; i < 10_000; i++) {
      const stream: Uint8Array[] = [];
      for (let n = random(8); n >= 0; n--) {
        const kind = random(4);
        if (kind === 0) stream.push(parts[random(parts.length)]!);
        else if (kind === 1)
          stream.push(
            record(
              types[random(types.length)]!,
              Uint8Array.from({ length: random(60) }, () => random(256)),
            ),
          );
        else if (kind === 2) {
          const changed = parts[random(parts.length)]!.slice();
          changed[random(changed.length)] = random(256);
          stream.push(changed);
        } else stream.push(u64(random(1 << 24)));
      }
      await receive(joined(stream), 1 + random(100)).catch((e) => {
        assert.ok(e instanceof CopyViolation || e instanceof VmError, String(e));
        refused++;
      });
    }
    assert.ok(refused > 5000, `${refused} were refused`);
  });
});

describe("the checksum of a copy", () => {
  /** Written from the definition, with big integers. */
  function reference(chunks: readonly [number, Uint8Array][]): bigint {
    const word = (b: Uint8Array, i: number): bigint => {
      let w = 0n;
      for (let k = 7; k >= 0; k--) w = (w << 8n) | BigInt(b[i * 8 + k] ?? 0);
      return w;
    };
    let sum = 0n;
    for (const [offset, bytes] of chunks) {
      let of = 0n;
      for (let i = 0; i * 8 < Math.min(bytes.length, SUM_PIECE); i++) {
        let all = 0n;
        for (let from = 0; from < bytes.length; from += SUM_PIECE)
          all ^= word(bytes.subarray(from, from + SUM_PIECE), i);
        of += all ^ word(COPY_MASK, i);
      }
      sum = BigInt.asUintN(64, (sum << 5n) | (sum >> 59n)) ^ BigInt.asUintN(64, of) ^ BigInt(offset);
    }
    return sum;
  }
  it("is that of its definition, for any length and alignment", () => {
    const all = Uint8Array.from({ length: COPY_CHUNK }, (_, i) => (i * 7 + (i >> 5)) & 255);
    for (const length of [0, 1, 7, 8, 9, 1000, 2001, SUM_PIECE, SUM_PIECE + 1, 3 * SUM_PIECE - 5, COPY_CHUNK - 4])
      for (const from of [0, 1, 3, 4]) {
        const sum = new CopySum();
        const chunks: [number, Uint8Array][] = [
          [0, all.subarray(from, from + length)],
          [2 ** 40 + 5, all.subarray(from)],
        ];
        for (const [offset, bytes] of chunks) sum.add(offset, bytes);
        assert.equal(sum.value, reference(chunks), `${length} ${from}`);
      }
  });
  it("changes when two packets of a text change places", () => {
    const text = bytesOf(Array.from({ length: COPY_CHUNK / 8 }, (_, i) => `line ${i}\n`).join("")).subarray(
      0,
      COPY_CHUNK,
    );
    const of = (b: Uint8Array): bigint => {
      const sum = new CopySum();
      sum.add(0, b);
      return sum.value;
    };
    const whole = of(text);
    for (let at = 4096; at < COPY_CHUNK; at += 4096) {
      const swapped = text.slice();
      swapped.set(text.subarray(at, at + 4096), 0);
      swapped.set(text.subarray(0, 4096), at);
      assert.notEqual(of(swapped), whole, String(at));
    }
  });
});

describe("names of copies", () => {
  it("are a path's last, or none where the content is meant", () => {
    for (const [path, name] of [
      ["/a/b", "b"],
      ["/a/b//", "b"],
      ["b", "b"],
      ["/a/.", ""],
      ["/a/..", ""],
      [".", ""],
      ["/", ""],
    ] as const)
      assert.equal(lastName(path), name, path);
  });
});
