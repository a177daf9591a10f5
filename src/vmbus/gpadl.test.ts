import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { GuestMemory, UNWATCHED } from "../machine/guest-memory.js";
import { GpadlTable, MAX_ASSEMBLIES } from "./gpadl.js";
import { GpadlBody, GpadlHeader } from "./protocol.js";
import { gpadlMessages } from "./scripted-guest.js";
import type { PageRange } from "./scripted-ring.js";

const RAM_PAGES = 64;
const table = (pages = RAM_PAGES): GpadlTable =>
  new GpadlTable(new GuestMemory(new Uint8Array(pages * 4096), UNWATCHED));
const RELID = 5;

/** Feeds messages. @returns the answers */
function feed(t: GpadlTable, messages: readonly Uint8Array[], gpadl = 1) {
  return messages.map((m, i) => {
    if (i > 0) return t.continue(gpadl, m);
    const { relid, gpadl: handle, rangeBufferLength, rangeCount } = GpadlHeader.decode(m);
    return t.begin(relid, handle, rangeBufferLength, rangeCount, m);
  });
}
/** The 64-bit words of some messages' contents, in other portions. */
function split(messages: readonly Uint8Array[], portions: readonly number[]): Uint8Array[] {
  const words = messages.flatMap((m, i) => [...m.subarray(i === 0 ? GpadlHeader.size : GpadlBody.size)]);
  const out = [messages[0]!.slice(0, GpadlHeader.size)];
  let at = 0;
  for (let i = 0; at < words.length; i++) {
    const part = words.slice(at, at + (portions[i % portions.length]! + 1) * 8);
    at += part.length;
    out.push(Uint8Array.from([...GpadlBody.encode({ messageNumber: 0, gpadl: 1 }), ...part]));
  }
  return out;
}
const range: fc.Arbitrary<PageRange> = fc
  .record({ byteOffset: fc.nat(4095), byteCount: fc.nat(300_000) })
  .map(({ byteOffset, byteCount }) => ({
    byteOffset,
    byteCount,
    pages: Array.from(
      { length: Math.ceil((byteOffset + byteCount) / 4096) },
      (_, i) => (i * 13 + byteOffset) % RAM_PAGES,
    ),
  }));
function rangesOf(t: GpadlTable, gpadl = 1): PageRange[] {
  const r = t.get(RELID, gpadl)!;
  return Array.from({ length: r.count }, (_, i) => ({
    byteOffset: r.byteOffset[i]!,
    byteCount: r.byteCount[i]!,
    pages: [...r.pages.subarray(r.firstPage[i], r.firstPage[i + 1])],
  }));
}
const onePage = (gpadl: number, page = 1): Uint8Array[] =>
  gpadlMessages(RELID, gpadl, [{ byteCount: 4096, byteOffset: 0, pages: [page] }]);

describe("GPADL", () => {
  it("is assembled from header and bodies, however they are split, and answered once", () => {
    fc.assert(
      fc.property(
        fc.array(range, { minLength: 1, maxLength: 4 }),
        fc.array(fc.nat(27), { minLength: 1, maxLength: 6 }),
        fc.boolean(),
        (ranges, portions, asLinux) => {
          const t = table();
          const messages = gpadlMessages(RELID, 1, ranges);
          const answers = feed(t, asLinux ? messages : split(messages, portions));
          assert.deepEqual(answers.pop(), { relid: RELID, gpadl: 1, status: 0 });
          assert.ok(answers.every((a) => a === undefined));
          assert.deepEqual(rangesOf(t), ranges);
          assert.deepEqual([t.count, t.incompleteCount], [1, 0]);
          assert.throws(() => t.continue(1, messages[0]!), /body of no list/);
          // Saved in the middle and at the end.
          const copy = table();
          copy.restore(structuredClone(t.save()));
          assert.deepEqual(rangesOf(copy), ranges);
          assert.equal(copy.entries, t.entries);
          assert.ok(copy.remove(RELID, 1));
          assert.equal(copy.entries, 0);
        },
      ),
      { numRuns: 200 },
    );
  });
  it("goes on after being saved in the middle", () => {
    const ranges = [{ byteCount: 60 * 4096, byteOffset: 0, pages: Array.from({ length: 60 }, (_, i) => 60 - i) }];
    const messages = gpadlMessages(RELID, 1, ranges);
    assert.equal(messages.length, 3);
    const first = table();
    feed(first, messages.slice(0, 2));
    const second = table();
    second.restore(structuredClone(first.save()));
    assert.deepEqual([second.incompleteCount, second.entries], [1, 61]);
    assert.equal(second.continue(1, messages[2]!)?.status, 0);
    assert.deepEqual(rangesOf(second), ranges);
  });
  it("is refused when a page is no RAM or the lengths do not agree, and leaves nothing", () => {
    const good = { byteCount: 8192, byteOffset: 0, pages: [1, 2] };
    const cases: [string, Uint8Array[]][] = [
      ["page beyond RAM", gpadlMessages(RELID, 1, [{ ...good, pages: [1, RAM_PAGES] }])],
      ["page of 2^52", gpadlMessages(RELID, 1, [{ ...good, pages: [1, 2 ** 52] }])],
      ["more bytes than pages", gpadlMessages(RELID, 1, [{ ...good, byteCount: 8193 }])],
      ["offset beyond a page", gpadlMessages(RELID, 1, [{ ...good, byteOffset: 4096 }])],
      ["a range too many", spoiled(gpadlMessages(RELID, 1, [good]), 18, 2)],
      ["no range", spoiled(gpadlMessages(RELID, 1, [good]), 18, 0)],
      ["a length of odd bytes", spoiled(gpadlMessages(RELID, 1, [good]), 16, 23)],
      ["no length", spoiled(gpadlMessages(RELID, 1, [good]), 16, 0)],
    ];
    for (const [what, messages] of cases) {
      const t = table();
      const answer = feed(t, messages).pop();
      assert.ok(answer !== undefined && answer.status !== 0 && answer.rule !== undefined, what);
      assert.deepEqual([t.count, t.incompleteCount, t.entries], [0, 0, 0], what);
    }
    const t = table();
    const [header] = gpadlMessages(RELID, 1, [{ byteCount: 60 * 4096, byteOffset: 0, pages: Array(60).fill(1) }]);
    feed(t, [header!]);
    assert.match(t.continue(1, GpadlBody.encode({ messageNumber: 0, gpadl: 1 }))?.rule ?? "", /without pages/);
    assert.deepEqual([t.count, t.incompleteCount, t.entries], [0, 0, 0]);
  });
  it("keeps handles unique, complete or not", () => {
    const t = table();
    feed(t, onePage(1));
    assert.notEqual(feed(t, onePage(1))[0]?.status, 0);
    const long = gpadlMessages(RELID, 2, [{ byteCount: 40 * 4096, byteOffset: 0, pages: Array(40).fill(1) }]);
    feed(t, [long[0]!]);
    assert.notEqual(feed(t, onePage(2))[0]?.status, 0);
    // The refused header does not disturb the one being assembled.
    assert.equal(t.continue(2, long[1]!)?.status, 0);
    assert.equal(t.count, 2);
  });
  it("belongs to its channel", () => {
    const t = table();
    feed(t, onePage(1));
    assert.equal(t.get(RELID + 1, 1), undefined);
    assert.equal(t.remove(RELID + 1, 1), false);
    assert.equal(t.remove(RELID, 2), false);
    feed(t, [gpadlMessages(RELID, 2, [{ byteCount: 40 * 4096, byteOffset: 0, pages: Array(40).fill(1) }])[0]!]);
    t.removeAll(RELID + 1);
    assert.deepEqual([t.count, t.incompleteCount, t.entries], [1, 1, 43]);
    t.removeAll(RELID);
    assert.deepEqual([t.count, t.incompleteCount, t.entries], [0, 0, 0]);
  });
  it("is bounded: pages, lists that are incomplete", () => {
    const t = table();
    const pages = Array(4096).fill(1);
    const answers = Array.from({ length: 6 }, (_, i) =>
      feed(t, gpadlMessages(RELID, i, [{ byteCount: pages.length * 4096, byteOffset: 0, pages }]).slice(0, 1), i).pop(),
    );
    assert.deepEqual(
      answers.map((a) => a?.status ?? 0),
      [0, 0, 0, 0xc000_009a, 0xc000_009a, 0xc000_009a],
    );
    assert.ok(t.entries <= t.maxEntries);
    const many = table(64 * 1024);
    for (let i = 0; i < MAX_ASSEMBLIES + 10; i++)
      feed(
        many,
        gpadlMessages(RELID, i, [{ byteCount: 40 * 4096, byteOffset: 0, pages: Array(40).fill(1) }]).slice(0, 1),
        i,
      );
    assert.equal(many.incompleteCount, MAX_ASSEMBLIES);
  });
});

function spoiled(messages: Uint8Array[], at: number, value: number): Uint8Array[] {
  new DataView(messages[0]!.buffer).setUint16(at, value, true);
  return messages;
}
