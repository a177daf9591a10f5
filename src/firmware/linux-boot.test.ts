import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { buildAcpiTables } from "./acpi/tables.js";
import { BootError, type LinuxBootOptions, prepareLinuxBoot } from "./linux-boot.js";

const MIB = 0x10_0000;
const KERNEL = 16 * MIB;

/** A setup header as of Debian 12's kernel, from 0x1F1 to its end at 0x26C. */
function setupHeader(change: (view: DataView) => void = () => {}): Uint8Array {
  const file = new Uint8Array(0x400);
  const view = new DataView(file.buffer);
  view.setUint16(0x1fe, 0xaa55, true);
  view.setUint8(0x201, 0x6a);
  view.setUint32(0x202, 0x5372_6448, true);
  view.setUint16(0x206, 0x20f, true);
  view.setUint8(0x211, 0x03);
  view.setUint32(0x22c, 0x7fff_ffff, true);
  view.setUint32(0x238, 2047, true);
  view.setUint32(0x260, 4 * MIB, true);
  file.fill(0xee, 0x26c); // what follows is code and must not be copied
  change(view);
  return file.subarray(0x1f1);
}

/** A kernel of one segment at 16 MiB with 1 MiB of memory, 4 KiB of it in the file. */
function kernel(gpa = KERNEL): Uint8Array {
  const file = new Uint8Array(0x2000);
  const view = new DataView(file.buffer);
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(18, 62, true);
  view.setUint32(24, gpa + 0x100, true);
  view.setUint32(32, 64, true);
  view.setUint16(54, 56, true);
  view.setUint16(56, 1, true);
  view.setUint32(64, 1, true);
  for (const [at, value] of [
    [8, 0x1000],
    [24, gpa],
    [32, 0x1000],
    [40, MIB],
  ] as const)
    view.setUint32(64 + at, value, true);
  file.fill(0xcc, 0x1000);
  return file;
}

function options(o: Partial<LinuxBootOptions> = {}): LinuxBootOptions {
  return {
    setupHeader: setupHeader(),
    elf: kernel(),
    initrds: [Uint8Array.of(1, 2, 3, 4, 5), Uint8Array.of(6, 7)],
    commandLine: "console=ttyS0 quiet",
    memoryBytes: 64 * MIB,
    acpi: buildAcpiTables({ processors: 1, serial: [] }),
    ...o,
  };
}

/** Memory as the guest finds it; 0xAA where nothing was written. */
function memory(o: LinuxBootOptions) {
  const boot = prepareLinuxBoot(o);
  const ram = new Uint8Array(o.memoryBytes).fill(0xaa);
  for (const { gpa, bytes } of boot.writes) ram.set(bytes, gpa);
  for (const { gpa, lengthBytes } of boot.zeroes) ram.fill(0, gpa, gpa + lengthBytes);
  return { boot, ram, view: new DataView(ram.buffer) };
}

function code(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    assert.ok(error instanceof BootError, String(error));
    assert.ok(error.hint.length > 0);
    return error.code;
  }
  return "no error";
}

describe("direct Linux boot", () => {
  it("enters the kernel where it was linked, with RSI at the zero page", () => {
    const { boot, ram } = memory(options());
    assert.deepEqual([boot.entry.rip, boot.entry.rsi], [KERNEL + 0x100, 0x2000]);
    assert.equal(ram[KERNEL], 0xcc);
    assert.equal(ram[KERNEL + 0xfff], 0xcc);
    assert.ok(ram.subarray(KERNEL + 0x1000, KERNEL + MIB).every((b) => b === 0));
  });

  it("fills the zero page: header without what follows it, command line, initrd, memory map, RSDP", () => {
    const { ram, view } = memory(options());
    const zero = (at: number) => view.getUint32(0x2000 + at, true);
    assert.equal(zero(0x202), 0x5372_6448);
    assert.equal(ram[0x2000 + 0x26b], 0);
    assert.equal(ram[0x2000 + 0x26c], 0);
    assert.equal(ram[0x2210], 0xff);
    assert.equal(ram[0x2211], 1); // loaded high; the relocation flag is cleared
    assert.equal(zero(0x70), 0xe_0000);
    const line = zero(0x228);
    assert.equal(String.fromCharCode(...ram.subarray(line, line + 20)), "console=ttyS0 quiet\0");
    const initrd = zero(0x218);
    assert.equal(zero(0x21c), 10);
    assert.deepEqual([...ram.subarray(initrd, initrd + 10)], [1, 2, 3, 4, 5, 0, 0, 0, 6, 7]);
    assert.equal(initrd, 64 * MIB - 0x1000);
    assert.equal(ram[0x21e8], 3);
    assert.deepEqual(
      [0, 8, 16].map((at) => zero(0x2d0 + 40 + at)),
      [MIB, 63 * MIB, 1],
    );
    assert.equal(ram[0x2000], 0); // no screen
  });

  it("maps the first 4 GiB one to one, and has flat segments", () => {
    const { boot, view } = memory(options());
    const entry = (table: number, index: number) => Number(view.getBigUint64((table & ~0xfff) + index * 8, true));
    const translate = (gpa: number) => {
      const pdpt = entry(boot.entry.cr3, 0);
      const directory = entry(pdpt, Math.floor(gpa / 2 ** 30));
      const page = entry(directory, Math.floor(gpa / 2 ** 21) % 512);
      for (const e of [pdpt, directory, page]) assert.equal(e & 3, 3);
      assert.equal(page & 0x80, 0x80);
      return Math.floor(page / 2 ** 21) * 2 ** 21 + (gpa % 2 ** 21);
    };
    for (const gpa of [0, 0x2000, KERNEL, 0x8000_0000, 0xfee0_0000, 0xffff_ffff]) assert.equal(translate(gpa), gpa);
    const { gdt, cs, ds, cr0, cr4, efer } = boot.entry;
    assert.equal(view.getBigUint64(gdt.base + cs, true), 0x00af_9b00_0000_ffffn);
    assert.equal(view.getBigUint64(gdt.base + ds, true), 0x00cf_9300_0000_ffffn);
    assert.equal(gdt.limit, 31);
    assert.equal(cr0 % 2, 1);
    assert.ok(cr0 >= 2 ** 31 && (cr4 & 0x20) !== 0 && (efer & 0x500) === 0x500);
  });

  it("never writes outside RAM, nor twice to one place", () => {
    fc.assert(
      fc.property(fc.integer({ min: 24, max: 3072 }), fc.array(fc.nat(5 * MIB), { maxLength: 4 }), (mib, sizes) => {
        const initrds = sizes.map((n) => new Uint8Array(n));
        const o = options({ memoryBytes: mib * MIB, initrds });
        let boot: ReturnType<typeof prepareLinuxBoot>;
        try {
          boot = prepareLinuxBoot(o);
        } catch (error) {
          assert.ok(error instanceof BootError && error.code === "not-enough-memory");
          assert.ok(mib * MIB < KERNEL + 4 * MIB + sizes.reduce((a, b) => a + b + 4, 0) + 0x2000);
          return;
        }
        const ranges = [
          ...boot.writes.map((w) => [w.gpa, w.gpa + w.bytes.length] as const),
          ...boot.zeroes.map((z) => [z.gpa, z.gpa + z.lengthBytes] as const),
          [boot.entry.rsp - 0x1000, boot.entry.rsp] as const,
        ].sort(([a, x], [b, y]) => a - b || x - y);
        ranges.reduce((end, [from, to]) => {
          assert.ok(from >= end && to <= mib * MIB);
          return to;
        }, 0);
        const initrd = boot.writes.filter((w) => initrds.some((i) => i === w.bytes));
        for (const w of initrd) assert.ok(w.gpa % 4 === 0 && w.gpa + w.bytes.length <= 0x8000_0000);
      }),
    );
  });

  it("takes a header that is a view into a file, as Node's Buffer gives it", () => {
    const file = Buffer.concat([Buffer.alloc(0x1f1), setupHeader()]);
    const { view } = memory(options({ setupHeader: file.subarray(0x1f1) }));
    assert.equal(view.getUint32(0x2202, true), 0x5372_6448);
    assert.equal(file[0x210], 0); // the caller's bytes are left alone
  });

  it("boots without an initrd", () => {
    const { view } = memory(options({ initrds: [] }));
    assert.deepEqual([view.getUint32(0x2218, true), view.getUint32(0x221c, true)], [0, 0]);
  });

  it("says what is wrong and what to try", () => {
    const run = (o: Partial<LinuxBootOptions>) => code(() => prepareLinuxBoot(options(o)));
    assert.equal(run({ memoryBytes: 16 * MIB }), "not-enough-memory");
    assert.equal(run({ memoryBytes: 20 * MIB }), "not-enough-memory");
    assert.equal(run({ memoryBytes: 4096 * MIB }), "bad-memory-size");
    assert.equal(run({ memoryBytes: 512.5 }), "bad-memory-size");
    assert.equal(run({ elf: new Uint8Array(100) }), "bad-kernel");
    assert.equal(run({ elf: kernel(0x8000) }), "bad-kernel");
    assert.equal(run({ setupHeader: new Uint8Array(0x200) }), "bad-kernel");
    assert.equal(run({ setupHeader: new Uint8Array(0) }), "bad-kernel");
    assert.equal(run({ setupHeader: setupHeader((v) => v.setUint16(0x206, 0x20a, true)) }), "kernel-too-old");
    assert.equal(run({ commandLine: "x".repeat(2047) }), "no error");
    assert.equal(run({ commandLine: "x".repeat(2048) }), "command-line-too-long");
  });
});
