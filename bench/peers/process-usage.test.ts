import assert from "node:assert/strict";
import { it } from "node:test";
import { cpuSeconds, mappingsOfSize, residentBytes, residentRam, ticksToSeconds } from "./process-usage.js";

it("finds the times behind a name with spaces and parentheses", () => {
  assert.equal(ticksToSeconds("12 (a) S (b) c) S 1 1 1 0 -1 4194560 100 0 0 0 150 50 9 9 20 0 11 0 1 1 1"), 2);
});

it("finds writable mappings by their size", () => {
  const maps = [
    "7f0000000000-7f0000010000 rw-p 00000000 00:00 0",
    "7f0000010000-7f0000020000 ---p 00000000 00:00 0",
    "7f0000020000-7f0000028000 rw-p 00000000 00:00 0",
    "7f0000030000-7f0000040000 rw-s 00000000 00:01 5 /memfd:x (deleted)",
    "",
  ].join("\n");
  assert.deepEqual(mappingsOfSize(maps, 0x10000), [0x7f0000000000, 0x7f0000030000]);
});

it("reads this process's account", () => {
  const own = process.cpuUsage();
  const seconds = cpuSeconds(process.pid);
  assert.ok(seconds > 0 && seconds >= (own.user + own.system) / 1e6 - 0.1);
  assert.ok(residentBytes(process.pid) > 1 << 20);
});

it("counts the pages of a mapping that were touched", () => {
  const pages = 1000 + (process.pid % 1000); // of a size that no other mapping has
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  const bytes = new Uint8Array(memory.buffer);
  for (let page = 0; page < 64; page++) bytes[(1 << 20) + page * 4096] = 1;
  const place = { mappingBytes: pages * 65536, offset: 1 << 20, bytes: 1 << 20 };
  const resident = residentRam(process.pid, place)!;
  // a kernel with huge pages may give more than what was touched
  assert.ok(resident >= 64 * 4096 && resident <= 1 << 20);
  assert.equal(residentRam(process.pid, { ...place, mappingBytes: pages * 65536 + 4096 }), undefined);
});
