import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { SERIAL_PORTS } from "../../chipset/chipset.js";
import { FIRMWARE_AREA_BASE, FIRMWARE_AREA_END } from "../../machine/memory-map.js";
import {
  concat,
  device,
  eisaId,
  integer,
  interrupt,
  io,
  irq,
  memory32Fixed,
  method,
  name,
  pack,
  qwordMemory,
  resources,
  ret,
  scope,
  string,
  wordBusNumber,
} from "./aml.js";
import { type AcpiImage, buildAcpiTables } from "./tables.js";

const image = (processors: number) => buildAcpiTables({ processors, serial: SERIAL_PORTS });
const sum = (bytes: Uint8Array) => bytes.reduce((a, b) => (a + b) & 0xff, 0);
const view = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const signature = (bytes: Uint8Array) => String.fromCharCode(...bytes.subarray(0, 4));

/** Finds the tables as a guest does: from the RSDP over the XSDT and the FADT. */
function walk({ rsdp, writes }: AcpiImage): Map<string, Uint8Array> {
  const at = (gpa: number) => {
    const found = writes.find((w) => w.gpa === gpa);
    assert.ok(found, `nothing at ${gpa.toString(16)}`);
    return found.bytes;
  };
  const root = at(rsdp);
  assert.equal(String.fromCharCode(...root.subarray(0, 8)), "RSD PTR ");
  assert.equal(sum(root.subarray(0, 20)), 0);
  assert.equal(sum(root), 0);
  const tables = new Map<string, Uint8Array>();
  const add = (gpa: number) => tables.set(signature(at(gpa)), at(gpa));
  add(view(root).getUint32(24, true));
  const xsdt = tables.get("XSDT")!;
  for (let i = 36; i < xsdt.length; i += 8) add(view(xsdt).getUint32(i, true));
  const fadt = view(tables.get("FACP")!);
  add(fadt.getUint32(36, true));
  add(fadt.getUint32(40, true));
  assert.equal(fadt.getUint32(140, true), fadt.getUint32(40, true));
  return tables;
}

describe("ACPI tables", () => {
  it("are found from the RSDP, with right lengths and checksums, inside the firmware area", () => {
    for (const processors of [1, 4, 64, 255, 300, 1024]) {
      const acpi = image(processors);
      const tables = walk(acpi);
      assert.deepEqual([...tables.keys()].sort(), ["APIC", "DSDT", "FACP", "FACS", "XSDT"]);
      for (const [name, bytes] of tables) {
        assert.equal(view(bytes).getUint32(4, true), bytes.length, name);
        if (name !== "FACS") assert.equal(sum(bytes), 0, name);
      }
      const ranges = acpi.writes.map((w) => [w.gpa, w.gpa + w.bytes.length] as const).sort(([a], [b]) => a - b);
      ranges.reduce((end, [from, to]) => {
        assert.ok(from >= end && to <= FIRMWARE_AREA_END);
        return to;
      }, FIRMWARE_AREA_BASE);
    }
    for (const n of [0, 1025, 1.5]) assert.throws(() => image(n), RangeError);
  });

  it("list every processor and the IO-APIC in the MADT, and no 8259", () => {
    const madt = walk(image(257)).get("APIC")!;
    const v = view(madt);
    assert.equal(v.getUint32(36, true), 0xfee0_0000);
    assert.equal(v.getUint32(40, true), 0);
    const count = new Map<number, number>();
    const ids: number[] = [];
    for (let at = 44; at < madt.length; at += madt[at + 1]!) {
      count.set(madt[at]!, (count.get(madt[at]!) ?? 0) + 1);
      if (madt[at] === 0) ids.push(madt[at + 3]!);
      if (madt[at] === 9) ids.push(v.getUint32(at + 4, true));
      if (madt[at] === 1) assert.equal(v.getUint32(at + 4, true), 0xfec0_0000);
      if (madt[at] === 2) assert.deepEqual([...madt.subarray(at + 2, at + 10)], [0, 9, 9, 0, 0, 0, 0x0d, 0]);
    }
    assert.deepEqual(
      [...count],
      [
        [0, 255],
        [9, 2],
        [1, 1],
        [2, 1],
        [4, 1],
      ],
    );
    assert.deepEqual(
      ids,
      Array.from({ length: 257 }, (_, i) => i),
    );
  });

  it("point the FADT at the ports that the chipset has", () => {
    const fadt = view(walk(image(1)).get("FACP")!);
    assert.equal(fadt.byteLength, 276);
    assert.deepEqual(
      [56, 64, 76, 80].map((at) => fadt.getUint32(at, true)),
      [0x600, 0x604, 0x608, 0x60c],
    );
    assert.deepEqual(
      [152, 176, 212, 224, 120].map((at) => fadt.getUint32(at, true)),
      [0x600, 0x604, 0x608, 0x60c, 0xcf9],
    );
    assert.equal(fadt.getUint16(46, true), 9);
    assert.equal(fadt.getUint8(128), 6);
    assert.equal(fadt.getUint32(112, true) & (1 << 20), 0); // not hardware-reduced
    assert.equal(fadt.getUint16(109, true) & 2, 0); // no keyboard controller
  });
});

/** The second opinion: Intel's own compiler takes the tables apart and puts them together again. */
describe("iasl", () => {
  let folder = "";
  before(() => {
    folder = mkdtempSync(join(tmpdir(), "enlighten-acpi-"));
    const found = spawnSync("iasl", ["-v"]);
    assert.equal(found.error, undefined, "iasl is missing: install Debian's acpica-tools and run this test again");
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  const run = (...args: string[]) =>
    spawnSync("iasl", args, { cwd: folder, encoding: "utf8" }) as { stdout: string; stderr: string };

  /** Disassembles a table, edits the source, compiles it. @returns what the compiler said and the bytes it made */
  function roundTrip(file: string, bytes: Uint8Array, edit = (source: string) => source) {
    writeFileSync(join(folder, `${file}.aml`), bytes);
    execFileSync("iasl", ["-d", `${file}.aml`], { cwd: folder, stdio: "pipe" });
    const source = readFileSync(join(folder, `${file}.dsl`), "utf8");
    writeFileSync(join(folder, `${file}.dsl`), edit(source));
    // -oa: no optimisation, so that the bytes can be compared
    const said = run("-oa", "-p", `${file}-again`, `${file}.dsl`);
    return { source, output: said.stdout + said.stderr, again: () => readFileSync(join(folder, `${file}-again.aml`)) };
  }

  it("finds nothing wrong with the FADT, MADT, XSDT and FACS", () => {
    for (const [file, bytes] of walk(image(3))) {
      if (file === "DSDT") continue;
      const { output, again } = roundTrip(file, bytes);
      assert.doesNotMatch(output, /(Error|Warning) +\d/, `${file}: ${output}`);
      // iasl stamps its own compiler id and revision (bytes 28..35), and so its own checksum
      const mask = (table: Uint8Array) =>
        table.map((b, i) => (file !== "FACS" && (i === 9 || (i >= 28 && i < 36)) ? 0 : b));
      assert.deepEqual(mask(Uint8Array.from(again())), mask(bytes), file);
    }
  });

  it("makes the same DSDT again", () => {
    const dsdt = walk(image(3)).get("DSDT")!;
    const { source, output } = roundTrip("DSDT", dsdt);
    for (const expected of [
      /Device \(VMOD\).*"ACPI0004".*0x00000000F8000000.*0x00000000FEBFFFFF.*Device \(VMBS\).*"VMBUS"/s,
      /Device \(UAR4\).*PNP0501.*0x02E8.*0x00000007/s,
      /Device \(RTC0\).*PNP0B00/s,
      /Device \(P002\).*ACPI0007.*_UID, 0x03/s,
      /Name \(\\_S5, Package \(0x04\)/,
    ]) {
      assert.match(source, expected);
    }
    // The one complaint: the hardware id of Hyper-V's bus is shorter than the specification wants. Guests match it so.
    const errors = output.match(/^Error +\d+.*$/gm) ?? [];
    assert.equal(errors.length, 1, output);
    assert.match(errors[0]!, /6033.*VMBUS/);
    const renamed = (source: string) => source.replace('"VMBUS"', '"VMB0001"');
    const { output: clean, again } = roundTrip("DSDT", dsdt, renamed);
    assert.match(clean, /Compilation successful. 0 Errors, 0 Warnings/);
    const text = Buffer.from(again()).toString("latin1").slice(36);
    // Without the two characters; the lengths of what contains them are two larger.
    const ours = Buffer.from(dsdt).toString("latin1").slice(36);
    assert.equal(text.length, ours.length + 2);
    const tail = (s: string) => s.slice(s.indexOf("UAR1"));
    assert.equal(tail(text), tail(ours));
  });

  it("understands every construct of the AML builder", () => {
    const body = concat(
      scope(
        "\\_SB",
        device(
          "BUS0",
          name("_HID", eisaId("PNP0A03")),
          name("BIGN", integer(2 ** 40)),
          name("LIST", pack(integer(0x1234), string("text"), pack(integer(1)))),
          name("_CRS", resources(wordBusNumber(0, 256), qwordMemory(2 ** 36, 2 ** 30))),
          method("_STA", 0, ret(integer(0xf))),
        ),
        device(
          "DEV0",
          name("_HID", string("PNP0C02")),
          name(
            "_CRS",
            resources(io(0x60, 4), irq(12), interrupt(17, "level"), memory32Fixed(0xfed0_0000, 0x400, false)),
          ),
        ),
      ),
    );
    const header = Uint8Array.from(walk(image(1)).get("DSDT")!.subarray(0, 36));
    view(header).setUint32(4, 36 + body.length, true);
    const bytes = concat(header, body);
    bytes[9] = (bytes[9]! - sum(bytes)) & 0xff;
    const { output, again } = roundTrip("ALL", bytes);
    assert.match(output, /Compilation successful. 0 Errors, 0 Warnings/);
    assert.deepEqual(Uint8Array.from(again()).subarray(36), body);
  });
});
