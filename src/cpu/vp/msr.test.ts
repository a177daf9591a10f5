import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { createBareMachine } from "../../../tests/bare/bare-machine.js";
import { Vp } from "../layout.js";
import { Msr, MsrFile } from "./msr.js";

const u32 = fc.integer({ min: 0, max: 0xffffffff });
const wide = (low: number, high: number): bigint => (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);

function makeFile(): {
  file: MsrFile;
  time: { ns: number };
  offsets: number[];
  machine: ReturnType<typeof createBareMachine>;
} {
  const machine = createBareMachine(1 << 20);
  const time = { ns: 0 };
  const offsets: number[] = [];
  const file = new MsrFile(
    machine.vp,
    { read: () => false, write: () => false },
    () => time.ns,
    (o) => void offsets.push(o),
  );
  return { file, time, offsets, machine };
}

describe("model-specific registers", () => {
  const { file, time, machine } = makeFile();
  const out = new Uint32Array(4);

  it("count time from what the guest writes to the time-stamp counter, modulo 2^64", () => {
    fc.assert(
      fc.property(
        u32,
        u32,
        fc.integer({ min: 0, max: 2 ** 52 }),
        fc.integer({ min: 0, max: 2 ** 40 }),
        (low, high, now, later) => {
          time.ns = now;
          assert.equal(file.write(Msr.TSC, low, high), true);
          file.tsc(out);
          assert.equal(wide(out[0]!, out[1]!), wide(low, high));
          time.ns = now + later;
          assert.equal(file.read(Msr.TSC, out), true);
          assert.equal(wide(out[0]!, out[1]!), BigInt.asUintN(64, wide(low, high) + BigInt(later)));
          // TSC_ADJUST is the same offset
          file.read(Msr.TSC_ADJUST, out);
          assert.equal(wide(out[0]!, out[1]!), BigInt.asUintN(64, wide(low, high) - BigInt(now)));
        },
      ),
    );
  });

  it("take any index and value without harm, and keep what they took", () => {
    const indexes = fc.oneof(fc.constantFrom(...Object.values(Msr)), u32);
    fc.assert(
      fc.property(indexes, u32, u32, (index, low, high) => {
        const took = file.write(index, low, high);
        const gave = file.read(index, out);
        const changing: number[] = [Msr.TSC, Msr.TSC_ADJUST, Msr.EFER, Msr.PRED_CMD, Msr.BIOS_SIGN_ID];
        if (took && gave && !changing.includes(index)) assert.equal(wide(out[0]!, out[1]!), wide(low, high));
      }),
    );
  });

  it("refuse addresses that are not canonical and reserved bits of EFER", () => {
    for (const index of [Msr.LSTAR, Msr.FS_BASE, Msr.GS_BASE, Msr.KERNEL_GS_BASE, Msr.SYSENTER_EIP]) {
      assert.equal(file.write(index, 0, 0x00008000), false, index.toString(16));
      assert.equal(file.write(index, 5, 0xffff8000), true);
      file.read(index, out);
      assert.equal(wide(out[0]!, out[1]!), 0xffff800000000005n);
    }
    assert.equal(file.write(Msr.EFER, 0x2, 0), false);
    assert.equal(file.write(Msr.EFER, 0xd01, 1), false);
    // LME cannot change while paging is on
    machine.vp.setRegister(Vp.efer, 0xd01);
    assert.equal(file.write(Msr.EFER, 0xc01, 0), false);
    assert.equal(file.write(Msr.EFER, 0x901, 0), true, "LMA is read-only, not refused");
  });

  it("save and restore", () => {
    file.write(Msr.PAT, 0x07040600, 0x07040600);
    file.write(Msr.SPEC_CTRL, 1, 0);
    time.ns = 1000;
    file.write(Msr.TSC, 77, 0);
    const other = makeFile();
    other.time.ns = 1000;
    other.file.restore(structuredClone(file.save()));
    other.file.read(Msr.SPEC_CTRL, out);
    assert.equal(out[0], 1);
    other.file.tsc(out);
    assert.equal(out[0], 77);
    assert.equal(other.offsets.at(-1), 77 - 1000);
  });
});
