import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { moduleOf } from "../../tests/image/synthetic-archive.js";
import { writeCpio } from "./cpio.js";
import { ImageError } from "./errors.js";
import { bytesAsSource, identify } from "./identify.js";
import { readBzImageHeader, readKernelImage } from "./kernel-image.js";

/** An ELF executable with a PVH note. */
function elfKernel(machine = 62): Uint8Array {
  const out = new Uint8Array(256);
  const view = new DataView(out.buffer);
  out.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, 2, true);
  view.setUint16(18, machine, true);
  view.setUint32(32, 64, true); // program headers
  view.setUint16(54, 56, true);
  view.setUint16(56, 1, true);
  view.setUint32(64, 4, true); // PT_NOTE
  view.setUint32(72, 160, true);
  view.setUint32(96, 24, true);
  view.setUint32(160, 4, true);
  view.setUint32(164, 4, true);
  view.setUint32(168, 18, true);
  out.set([0x58, 0x65, 0x6e, 0], 172);
  view.setUint32(176, 0x1000050, true);
  return out;
}

/** A bzImage around a gzip payload, as a kernel's build makes it. */
function bzImage(kernel: Uint8Array): Uint8Array {
  const payload = gzipSync(kernel);
  const out = new Uint8Array(1024 + payload.length);
  const view = new DataView(out.buffer);
  out[0x1f1] = 1;
  view.setUint16(0x1fe, 0xaa55, true);
  out[0x201] = 0x6a;
  out.set(Buffer.from("HdrS"), 0x202);
  view.setUint16(0x206, 0x20f, true);
  view.setUint16(0x20e, 0x80, true);
  out.set(Buffer.from("6.1.0-test (builder) #1\0"), 0x280);
  view.setUint16(0x236, 1, true);
  view.setUint32(0x24c, payload.length, true);
  out.set(payload, 1024);
  return out;
}

const at = (size: number, ...parts: readonly (readonly [number, string | readonly number[]])[]): Uint8Array => {
  const out = new Uint8Array(size);
  for (const [offset, bytes] of parts)
    out.set(typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes, offset);
  return out;
};

const pe = (machine: readonly number[], subsystem = 10) =>
  at(512, [0, "MZ"], [0x3c, [0x80]], [0x80, "PE\0\0"], [0x84, machine], [0x80 + 24 + 68, [subsystem]]);
const mbr = (type: number, more: Uint8Array = new Uint8Array(0)) => {
  const out = at(4096, [450, [type]], [510, [0x55, 0xaa]]);
  out.set(more, 512);
  return out;
};

describe("identify", () => {
  const cases: [string, Uint8Array, string, string, string | RegExp][] = [
    ["a bzImage", bzImage(elfKernel()), "bzimage", "x86-64", "linux-boot"],
    ["an ELF kernel with a PVH entry", elfKernel(), "elf", "x86-64", "pvh"],
    ["a kernel module", moduleOf({ name: "x" }), "elf", "x86-64", /object file/],
    ["an ELF file for ARM64", elfKernel(183), "elf", "arm64", /ARM64 processors/],
    ["an ELF file for POWER", at(256, [0, [0x7f, 0x45, 0x4c, 0x46, 2, 2, 1]], [18, [0, 21]]), "elf", "power", /POWER/],
    ["a UEFI program", pe([0x64, 0x86]), "efi", "x86-64", "uefi"],
    ["a UEFI program for ARM64", pe([0x64, 0xaa]), "efi", "arm64", /ARM64/],
    ["a Windows program", pe([0x64, 0x86], 3), "pe", "x86-64", /Windows/],
    ["an ARM64 kernel", at(256, [0, "MZ"], [0x38, "ARM\x64"]), "linux-image", "arm64", /ARM64/],
    ["a RISC-V kernel", at(256, [0x30, "RISCV"], [0x38, "RSC\x05"]), "linux-image", "riscv", /RISC-V/],
    ["an AIX program", at(256, [0, [0x01, 0xf7, 0, 5]], [16, [0, 0x78]]), "xcoff", "power", /POWER/],
    ["a POWER boot disk", mbr(0x41), "raw", "power", /POWER/],
    ["a disk with an MBR", mbr(0x83), "raw", "unknown", "disk"],
    [
      "a disk with a GPT",
      mbr(0xee, at(1024, [0, "EFI PART"], [72, [2]], [80, [4]], [84, [128]])),
      "raw",
      "unknown",
      "disk",
    ],
    ["a VHDX disk", at(70000, [0, "vhdxfile"]), "vhdx", "unknown", "disk"],
    ["a dynamic VHD disk", at(4096, [0, "conectix"]), "vhd", "unknown", "disk"],
    ["a fixed VHD disk", at(4096, [450, [0x83]], [510, [0x55, 0xaa]], [3584, "conectix"]), "vhd", "unknown", "disk"],
    [
      "a fixed VHD disk for POWER",
      at(4096, [450, [0x41]], [510, [0x55, 0xaa]], [3584, "conectix"]),
      "vhd",
      "power",
      /POWER/,
    ],
    ["a qcow2 disk", at(512, [0, [0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3]]), "qcow2", "unknown", "disk"],
    ["a VMDK disk", at(512, [0, "KDMV"]), "vmdk", "unknown", /not read/],
    [
      "an ISO image",
      at(40000, [0x8001, "CD001"], [0x8801, "CD001\x01EL TORITO SPECIFICATION"], [0x8847, [18]], [36864, [1, 0]]),
      "iso",
      "x86",
      "cdrom",
    ],
    [
      "an ISO image for POWER",
      at(40000, [0x8001, "CD001"], [0x8801, "CD001\x01EL TORITO SPECIFICATION"], [0x8847, [18]], [36864, [1, 1]]),
      "iso",
      "power",
      /POWER/,
    ],
    ["an ISO image without boot record", at(40000, [0x8001, "CD001"]), "iso", "unknown", /no boot record/],
    ["an initramfs", writeCpio([]), "cpio", "unknown", /needs a kernel/],
    ["a packed initramfs", gzipSync(writeCpio([])), "cpio", "unknown", /needs a kernel/],
    ["a packed kernel of another processor", gzipSync(at(256, [0x38, "ARM\x64"])), "linux-image", "arm64", /ARM64/],
    ["text", Buffer.from("hello"), "unknown", "unknown", /no image/],
    ["nothing", new Uint8Array(0), "unknown", "unknown", /no image/],
  ];
  for (const [name, bytes, format, architecture, boot] of cases) {
    it(`knows ${name}`, async () => {
      const identity = await identify(bytesAsSource(bytes));
      assert.equal(identity.format, format);
      assert.equal(identity.architecture, architecture);
      if (identity.bootable.ok) assert.equal(identity.bootable.method, boot);
      else {
        assert.match(identity.bootable.reason, boot as RegExp);
        assert.notEqual(identity.bootable.hint, "");
      }
    });
  }

  it("gives an answer for any damage", async () => {
    const samples = cases.map(([, bytes]) => bytes).filter((bytes) => bytes.length > 0);
    const change = fc.tuple(fc.nat(4095), fc.nat(255));
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...samples),
        fc.array(change, { maxLength: 6 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        async (sample, changes, part) => {
          const bytes = Uint8Array.from(sample.subarray(0, Math.ceil(sample.length * (part > 0.5 ? 1 : part * 2))));
          for (const [offset, value] of changes) if (offset < bytes.length) bytes[offset] = value;
          assert.ok((await identify(bytesAsSource(bytes))).format);
        },
      ),
      { numRuns: 500 },
    );
  });
});

describe("kernel image", () => {
  it("gives header, version, ELF and PVH entry", async () => {
    const elf = elfKernel();
    const tail = Uint8Array.of(1, 2, 3, 4);
    const image = await readKernelImage(bzImage(Buffer.concat([elf, tail])));
    assert.equal(image.version, "6.1.0-test");
    assert.equal(image.versionText, "6.1.0-test (builder) #1");
    assert.equal(image.pvhEntry, 0x1000050);
    assert.equal(image.compression, "gzip");
    assert.equal(image.setupHeader.length, 0x202 + 0x6a - 0x1f1);
    // the ELF ends with its last segment here; the rest counts as relocations
    assert.deepEqual(Buffer.concat([image.elf, image.relocations]), Buffer.concat([elf, tail]));
  });

  it("refuses what is cut off, wherever", async () => {
    const whole = bzImage(elfKernel());
    for (let length = 0; length < whole.length; length++) {
      await assert.rejects(
        readKernelImage(whole.subarray(0, length)),
        (error) => error instanceof ImageError,
        `${length}`,
      );
    }
    assert.throws(() => readBzImageHeader(Buffer.from("hello".repeat(300))), { code: "not-bzimage" });
  });
});
