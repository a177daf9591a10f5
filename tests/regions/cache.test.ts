/** Regions of another run: found by their code alone, the same as those that are compiled, whatever is damaged in between. */
import assert from "node:assert/strict";
import {
  appendFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { Exit, ModeKey, Vp } from "../../src/cpu/layout.js";
import { BatchCompiler, type RegionRequest } from "../../src/cpu/region/batch-compiler.js";
import { parseRecord, RegionCache, type RegionRecords } from "../../src/cpu/region/region-cache.js";
import { RegionFile, removeOld } from "../../src/host/node/region-cache-file.js";
import { createBareMachine } from "../bare/bare-machine.js";
import { assemble } from "../bare/nasm.js";
import { Random } from "../reference/values.js";
import { ProgramPairs } from "./program-machine.js";
import { runProgram } from "./program-run.js";

/** What would be a file. */
class MemoryRecords implements RegionRecords {
  readonly records: { readonly hash: number; readonly bytes: Uint8Array }[] = [];
  get index(): Iterable<{ hash: number; place: number }> {
    return this.records.map(({ hash }, place) => ({ hash, place }));
  }
  read(place: number): Uint8Array | undefined {
    return this.records[place]?.bytes;
  }
  append(hash: number, record: Uint8Array): number {
    return this.records.push({ hash, bytes: record.slice() }) - 1;
  }
}
const constants = { base: 0x40000, shared: true };
/** A loop over two pages with a jump table, a procedure and branches. */
const SOURCE = `
  jmp begin
  times 4064 - ($ - $$) nop
begin: mov rdx, rcx
  and edx, 3
  lea rsi, [rel table]
  movsxd rdx, dword [rsi + rdx * 4]
  add rdx, rsi
  jmp rdx
align 16
way0: add rax, 1
  jmp next
align 16
way1: add rax, 20
  pushfq
  pop rbx
  jmp next
align 16
way2: add rax, 300
  jmp next
align 16
way3: imul rax, rax, 3
align 16
next: dec rcx
  jnz begin
  hlt
align 4
table: dd way0 - table, way1 - table, way2 - table, way3 - table`;
const BEGIN = 4064;
/** Of the second page, where `way0` begins it. */
const WAYS = [0, 16, 32, 48];

function requestAt(physical: number, bytes: Uint8Array, entered = WAYS): RegionRequest {
  const none = new Uint16Array(0);
  const pageOf = (n: number): Uint8Array<ArrayBuffer> => {
    const page = new Uint8Array(4096);
    page.set(bytes.subarray(n * 4096, (n + 1) * 4096));
    return page;
  };
  return {
    physical: physical + BEGIN,
    mode: ModeKey.code64 | ModeKey.flat,
    oddFloat: false,
    way: "usual",
    pages: [
      { physical, distance: 0, bytes: pageOf(0), entered: Uint16Array.of(BEGIN), gates: none },
      {
        physical: physical + 0x5000,
        distance: 4096,
        bytes: pageOf(1),
        entered: Uint16Array.from(entered),
        gates: none,
      },
    ],
  };
}
function cacheWith(requests: readonly RegionRequest[]): MemoryRecords {
  const records = new MemoryRecords();
  new BatchCompiler(constants, new RegionCache(records)).emit(requests);
  return records;
}

test("what is found gives the module that would be compiled, wherever the pages are", () => {
  const { bytes } = assemble(SOURCE, 64, 0);
  const records = cacheWith([requestAt(0x10000, bytes)]);
  assert.equal(records.records.length, 1);
  const moved = requestAt(0x70000, bytes);
  const compiled = new BatchCompiler(constants).emit([moved]);
  const found = new BatchCompiler(constants, new RegionCache(records)).emit([moved]);
  assert.equal(found.known, 1);
  assert.deepEqual({ ...found, known: 0 }, compiled);
  assert.equal(records.records.length, 1);
  // two pages, so that what is found must have been told where they are
  assert.equal(found.regions[0]!.pages.length, 2);
});

test("a byte of its code that is another, another mode, way or place: it is not found", () => {
  const { bytes } = assemble(SOURCE, 64, 0);
  const request = requestAt(0x10000, bytes);
  const cache = new RegionCache(cacheWith([request]));
  const { facts } = cache.find(request)!;
  let changed = 0;
  for (const { distance, start, end } of facts.pages)
    for (let at = start; at < end; at++) {
      const other = structuredClone(request);
      other.pages.find((page) => page.distance === distance)!.bytes[at]! ^= 1;
      assert.equal(cache.find(other), undefined, `byte ${distance + at}`);
      changed++;
    }
  assert.ok(changed > 80, `${changed} bytes`);
  for (const other of [
    { ...request, mode: request.mode | ModeKey.user },
    { ...request, oddFloat: true },
    { ...request, way: "careful" as const },
    { ...request, pages: request.pages.slice(0, 1) },
    { ...request, pages: [request.pages[0]!, { ...request.pages[1]!, distance: -4096 }] },
  ])
    assert.equal(cache.find(other), undefined);
  assert.notEqual(cache.find(structuredClone(request)), undefined);
});

test("what has just been compiled is found as well, and not kept twice", () => {
  const { bytes } = assemble(SOURCE, 64, 0);
  const records = new MemoryRecords();
  const compiler = new BatchCompiler(constants, new RegionCache(records));
  assert.equal(compiler.emit([requestAt(0x10000, bytes)]).known, 0);
  assert.equal(compiler.emit([requestAt(0x50000, bytes)]).known, 1);
  assert.equal(records.records.length, 1);
});

test("what is asked for before it is hot comes from the cache, or not at all", () => {
  const { bytes } = assemble(SOURCE, 64, 0);
  const early = { ...requestAt(0x10000, bytes), onlyKnown: true } as const;
  const records = new MemoryRecords();
  const compiler = new BatchCompiler(constants, new RegionCache(records));
  assert.deepEqual(compiler.emit([early]).regions, [undefined]);
  assert.equal(records.records.length, 0);
  compiler.emit([requestAt(0x10000, bytes)]);
  const { known, regions } = compiler.emit([early]);
  assert.deepEqual(
    [known, regions[0]?.instructions],
    [1, compiler.emit([requestAt(0, bytes)]).regions[0]!.instructions],
  );
});

test("a region that is made anew is not cut where others begin", () => {
  const { bytes } = assemble(SOURCE, 64, 0);
  const plain = requestAt(0x10000, bytes);
  const gated = structuredClone(plain);
  (gated.pages[1] as { gates: Uint16Array }).gates = Uint16Array.from(WAYS);
  const size = (request: RegionRequest): number =>
    new BatchCompiler(constants).emit([request]).regions[0]!.instructions;
  assert.ok(size(gated) < size(plain));
  assert.equal(size({ ...gated, way: "careful" }), size({ ...plain, way: "careful" }));
});

test("of several cuts of the same code the largest is taken", () => {
  const { bytes } = assemble(SOURCE, 64, 0);
  const [short, long] = [WAYS.slice(0, 2), WAYS].map((entered) => requestAt(0x10000, bytes, entered)) as [
    RegionRequest,
    RegionRequest,
  ];
  const records = cacheWith([short]);
  const small = new RegionCache(records).find(short)!.facts.instructions;
  new BatchCompiler(constants, { find: () => undefined, add: (r, c) => new RegionCache(records).add(r, c) }).emit([
    long,
  ]);
  assert.equal(records.records.length, 2);
  const cache = new RegionCache(records);
  const best = cache.find(short)!.facts.instructions;
  assert.ok(best > small, `${best}, not more than ${small}`);
  assert.equal(cache.find(long)!.facts.instructions, best);
});

test("a machine uses what another one compiled, at other addresses", () => {
  const records = new MemoryRecords();
  const run = (at: number): { readonly rax: number; readonly known: number; readonly installed: number } => {
    const { vp } = createBareMachine(8 << 20, {}, 1, {
      together: 1,
      store: new RegionCache(records),
    });
    const { bytes } = assemble(SOURCE, 64, at);
    vp.ram.set(bytes, at);
    vp.runtime.ramWritten(at, bytes.length);
    vp.setRegister(Vp.gpr + 32, 0x1ff000);
    vp.setRegister(Vp.gpr, 0);
    vp.setRegister(Vp.gpr + 8, 3_000_000);
    vp.setRegister(Vp.rip, at);
    while (vp.run(10_000) !== Exit.halt);
    const { known, installed } = vp.regions!.counters;
    return { rax: vp.view.getUint32(vp.base + Vp.gpr, true), known, installed };
  };
  const first = run(0x200000);
  assert.ok(first.installed > 0 && first.known === 0);
  const second = run(0x345000);
  assert.ok(second.installed > 0);
  assert.equal(second.known, second.installed);
  assert.equal(second.rax, first.rax);
});

test("random programs do the same with regions of another run", () => {
  const PROGRAMS = 60;
  const records = new MemoryRecords();
  const run = (): { known: number; installed: number } => {
    const sum = { known: 0, installed: 0 };
    const pairs = new ProgramPairs(
      PROGRAMS,
      ({ regions: { counters } }) => {
        sum.known += counters.known;
        sum.installed += counters.installed;
      },
      new RegionCache(records),
    );
    const faults = new Map<number, number>();
    for (let n = 0; n < PROGRAMS; n++) runProgram(pairs.of(n), () => pairs.make(n), { seed: 5, number: n, faults });
    pairs.end();
    return sum;
  };
  run();
  const again = run();
  assert.ok(again.installed > PROGRAMS);
  assert.ok(again.known > again.installed / 2, `${again.known} of ${again.installed}`);
});

test("a record that is damaged is none, or another one, but never an error", () => {
  const { bytes } = assemble(SOURCE, 64, 0);
  const record = cacheWith([requestAt(0x10000, bytes)]).records[0]!.bytes;
  assert.notEqual(parseRecord(record), undefined);
  for (let length = 0; length < record.length; length++)
    assert.equal(parseRecord(record.subarray(0, length)), undefined, `${length} bytes`);
  assert.equal(parseRecord(Uint8Array.of(...record, 0)), undefined);
  const random = new Random(3);
  let refused = 0;
  for (let n = 0; n < 10_000; n++) {
    const other = record.slice();
    for (let i = random.below(3); i >= 0; i--) other[random.below(i === 0 ? 80 : other.length)] = random.u32();
    if (parseRecord(other) === undefined) refused++;
  }
  assert.ok(refused > 1000 && refused < 10_000);
});

const folder = mkdtempSync(join(tmpdir(), "enlighten-region-cache-"));
after(() => rmSync(folder, { recursive: true, force: true }));
const text = (n: number, length = 100): Uint8Array => new Uint8Array(length).fill(n);
function contents(path: string, maxBytes?: number): number[] {
  const file = new RegionFile(path, maxBytes);
  const found = file.index.map(({ hash, place }) => {
    const record = file.read(place);
    assert.ok(record === undefined || record.every((byte) => byte === record[0]));
    assert.ok(record === undefined || record[0] === hash % 256);
    return record === undefined ? -1 : hash;
  });
  file.close();
  return found;
}

test("the file has what several have written, one behind the other", () => {
  const path = join(folder, "several");
  const [a, b] = [new RegionFile(path), new RegionFile(path)];
  for (let n = 0; n < 10; n++) {
    const file = n % 2 === 0 ? a : b;
    file.append(n, text(n));
    if (n % 3 === 0) file.write();
  }
  a.close();
  b.close();
  assert.deepEqual(
    contents(path).sort((x, y) => x - y),
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
  );
});

test("what was appended is read at once, and when it is written, whoever else writes", () => {
  const path = join(folder, "own");
  const [a, b] = [new RegionFile(path), new RegionFile(path)];
  const places = [1, 2, 3].map((n) => a.append(n, text(n))!);
  const read = (): (number | undefined)[] => places.map((place) => a.read(place)?.[0]);
  assert.deepEqual(read(), [1, 2, 3]);
  a.write();
  assert.deepEqual(read(), [1, 2, 3]);
  b.append(9, text(9));
  b.write();
  places.push(a.append(4, text(4))!);
  a.write();
  assert.deepEqual(read(), [1, 2, 3, 4]);
  assert.equal(a.read(-99), undefined);
  a.close();
  b.close();
});

test("what has just been appended is compiled in as if it came from the file, as often as it is found", () => {
  const { bytes } = assemble(SOURCE, 64, 0);
  const path = join(folder, "appended");
  const file = new RegionFile(path);
  const compiler = new BatchCompiler(constants, new RegionCache(file));
  assert.equal(compiler.emit([requestAt(0x10000, bytes)]).known, 0);
  const both = (at: number): RegionRequest[] => [requestAt(at, bytes), requestAt(at + 0x100000, bytes)];
  for (const at of [0x40000, 0x70000]) {
    // the second of a batch refers to other imports
    const compiled = new BatchCompiler(constants).emit(both(at));
    assert.deepEqual(compiler.emit(both(at)), { ...compiled, known: 2 });
  }
  file.close();
  const reopened = new RegionFile(path);
  const compiled = new BatchCompiler(constants).emit(both(0x90000));
  assert.deepEqual(new BatchCompiler(constants, new RegionCache(reopened)).emit(both(0x90000)), {
    ...compiled,
    known: 2,
  });
  reopened.close();
});

test("only old files of our own are removed", () => {
  const place = mkdtempSync(join(folder, "old-"));
  const ours = `${"0123456789abcdef".repeat(2)}-40000s`;
  for (const name of [ours, `${ours}.12.part`, "letters.txt", "0123", `new-${ours}`])
    writeFileSync(join(place, name), "");
  const old = new Date(Date.now() - 30 * 24 * 3600 * 1000);
  for (const name of readdirSync(place)) utimesSync(join(place, name), old, old);
  writeFileSync(join(place, ours.replace("0", "1")), "");
  removeOld(place);
  assert.deepEqual(readdirSync(place).sort(), ["0123", "letters.txt", `new-${ours}`, ours.replace("0", "1")].sort());
});

test("a damaged record is left out, and what is behind a broken end is written anew", () => {
  const path = join(folder, "damaged");
  const file = new RegionFile(path);
  for (let n = 0; n < 5; n++) file.append(n, text(n));
  file.close();
  const bytes = readFileSync(path);
  bytes[12 + 112 + 50]! ^= 1;
  writeFileSync(path, bytes);
  assert.deepEqual(contents(path), [0, -1, 2, 3, 4]);
  truncateSync(path, bytes.length - 7);
  // what was damaged goes as well when the file is made anew
  assert.deepEqual(contents(path), [0, 2, 3]);
  const more = new RegionFile(path);
  more.append(9, text(9));
  more.close();
  assert.deepEqual(contents(path), [0, 2, 3, 9]);
  appendFileSync(path, Buffer.alloc(300, 0xff));
  assert.deepEqual(contents(path), [0, 2, 3, 9]);
  assert.equal(statSync(path).size, 4 * 112);
});

test("a file that has grown too large keeps its younger half", () => {
  const path = join(folder, "large");
  const file = new RegionFile(path);
  for (let n = 0; n < 100; n++) file.append(n, text(n, 1000));
  file.close();
  const kept = contents(path, 50_000);
  assert.deepEqual(
    kept,
    Array.from({ length: kept.length }, (_, i) => 100 - kept.length + i),
  );
  assert.ok(kept.length > 20 && kept.length < 27, `${kept.length} records`);
});
