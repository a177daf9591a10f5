import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { BootError } from "./linux-boot.js";
import { type MultibootOptions, prepareMultiboot } from "./multiboot.js";

const MIB = 0x10_0000;
const HEADER_AT = 0x1000;
const INFO = 0x9000;

/** An ELF file with one segment at `gpa`: 4 KiB in the file with a multiboot header at its start, 8 KiB in memory. */
function elf(bits: 32 | 64, { gpa = 4 * MIB, flags = 0, checksum = 0 } = {}): Uint8Array {
  const file = new Uint8Array(0x2000);
  const view = new DataView(file.buffer);
  file.set([0x7f, 0x45, 0x4c, 0x46, bits === 64 ? 2 : 1, 1, 1]);
  view.setUint16(18, bits === 64 ? 62 : 3, true);
  view.setUint32(24, gpa + 0x20, true);
  if (bits === 64) {
    view.setUint32(32, 64, true);
    view.setUint16(54, 56, true);
    view.setUint16(56, 1, true);
    for (const [at, value] of [
      [0, 1],
      [8, HEADER_AT],
      [24, gpa],
      [32, 0x1000],
      [40, 0x2000],
    ] as const)
      view.setUint32(64 + at, value, true);
  } else {
    view.setUint32(28, 52, true);
    view.setUint16(42, 32, true);
    view.setUint16(44, 1, true);
    [1, HEADER_AT, 0xc0000000, gpa, 0x1000, 0x2000].forEach((value, i) => {
      view.setUint32(52 + i * 4, value, true);
    });
  }
  file.fill(0xcc, HEADER_AT);
  view.setUint32(HEADER_AT, 0x1badb002, true);
  view.setUint32(HEADER_AT + 4, flags, true);
  view.setUint32(HEADER_AT + 8, -(0x1badb002 + flags) + checksum, true);
  return file;
}
const prepare = (o: Partial<MultibootOptions> = {}): ReturnType<typeof prepareMultiboot> =>
  prepareMultiboot({
    kernel: elf(32),
    modules: [],
    commandLine: "kernel one two",
    memoryBytes: 64 * MIB,
    acpi: { writes: [] },
    ...o,
  });
const refusal = (o: Partial<MultibootOptions>, code: string): void =>
  assert.throws(
    () => prepare(o),
    (e: unknown) => e instanceof BootError && e.code === code && e.hint !== "",
  );

describe("multiboot", () => {
  it("loads 32-bit and 64-bit ELF files by physical address, and starts them as the specification says", () => {
    for (const bits of [32, 64] as const) {
      const boot = prepare({ kernel: elf(bits) });
      assert.deepEqual(boot.entry, { mode: "protected", rip: 4 * MIB + 0x20, eax: 0x2badb002, ebx: INFO });
      const segment = boot.writes.find(({ gpa }) => gpa === 4 * MIB);
      assert.deepEqual([segment?.bytes.length, segment?.bytes[0]], [0x1000, 0x02]);
      assert.deepEqual(boot.zeroes, [{ gpa: 4 * MIB + 0x1000, lengthBytes: 0x1000 }]);
    }
  });

  it("describes memory, command line, modules and itself", () => {
    const modules = [Uint8Array.of(1, 2, 3), new Uint8Array(5000).fill(9)];
    const boot = prepare({ modules });
    const info = boot.writes.find(({ gpa }) => gpa === INFO)!.bytes;
    const view = new DataView(info.buffer);
    const u32 = (gpa: number): number => view.getUint32(gpa - INFO, true);
    const text = (gpa: number): string => {
      const at = gpa - INFO;
      return new TextDecoder().decode(info.subarray(at, info.indexOf(0, at)));
    };
    // memory, command line, modules, memory map, loader's name
    assert.equal(u32(INFO), 1 | 4 | 8 | 64 | 512);
    assert.deepEqual([u32(INFO + 4), u32(INFO + 8)], [640, 63 * 1024]);
    assert.equal(text(u32(INFO + 16)), "kernel one two");
    assert.equal(text(u32(INFO + 64)), "enlighten");
    assert.equal(u32(INFO + 20), 2);
    const list = u32(INFO + 24);
    const [first, second] = [0, 1].map((i) => ({ start: u32(list + i * 16), end: u32(list + i * 16 + 4) }));
    assert.deepEqual([first, second?.start], [{ start: 4 * MIB + 0x2000, end: 4 * MIB + 0x2003 }, 4 * MIB + 0x3000]);
    assert.equal(text(u32(list + 8)), "");
    assert.deepEqual(boot.writes.find(({ gpa }) => gpa === second!.start)?.bytes, modules[1]);
    // the map covers RAM but for the firmware's area, each entry with its size in front
    const map = u32(INFO + 48);
    const entries: number[][] = [];
    for (let at = map; at < map + u32(INFO + 44); at += u32(at) + 4)
      entries.push([u32(at + 4), u32(at + 12), u32(at + 20)]);
    assert.deepEqual(entries, [
      [0, 0xe0000, 1],
      [0xe0000, 0x20000, 2],
      [MIB, 63 * MIB, 1],
    ]);
  });

  it("loads a plain image where its header says", () => {
    const file = new Uint8Array(0x300).fill(0x90);
    const view = new DataView(file.buffer);
    const flags = 1 << 16;
    const header = [
      0x1badb002,
      flags,
      -(0x1badb002 + flags),
      2 * MIB + 0x40,
      2 * MIB,
      2 * MIB + 0x200,
      2 * MIB + 0x800,
      2 * MIB + 0x80,
    ];
    header.forEach((value, i) => {
      view.setUint32(0x100 + i * 4, value, true);
    });
    const boot = prepare({ kernel: file });
    assert.equal(boot.entry.rip, 2 * MIB + 0x80);
    const loaded = boot.writes.find(({ gpa }) => gpa === 2 * MIB)!;
    // the header is 0x40 behind the load address, so the image begins 0x40 before it in the file
    assert.deepEqual([loaded.bytes.byteOffset, loaded.bytes.length], [0xc0, 0x200]);
    assert.deepEqual(boot.zeroes, [{ gpa: 2 * MIB + 0x200, lengthBytes: 0x600 }]);
  });

  it("refuses what it cannot load", () => {
    refusal({ kernel: new Uint8Array(10_000) }, "bad-kernel");
    refusal({ kernel: elf(32, { checksum: 1 }) }, "bad-kernel");
    refusal({ kernel: elf(32, { flags: 4 }) }, "bad-kernel");
    refusal({ kernel: elf(32, { flags: 8 }) }, "bad-kernel");
    refusal({ kernel: elf(32, { gpa: 0x800 }) }, "bad-kernel");
    refusal({ kernel: elf(32, { gpa: 0x9e800 }) }, "bad-kernel");
    refusal({ kernel: elf(32).subarray(0, 0x1800) }, "bad-kernel");
    refusal({ memoryBytes: 4 * MIB }, "not-enough-memory");
    refusal({ modules: [new Uint8Array(61 * MIB)] }, "not-enough-memory");
    refusal({ commandLine: "x".repeat(0xa0000) }, "command-line-too-long");
  });
});
