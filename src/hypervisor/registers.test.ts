/** The synthetic registers one by one: reset values, who may read and write, bits that are kept, what faults. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { TraceKind, TraceRing } from "../trace/trace.js";
import { Hypervisor } from "./hypervisor.js";
import { hvMsrName } from "./msr-names.js";
import { HvMsr, ScriptedProcessor } from "./scripted-processor.js";

const ALL_ONES = 0xffff_ffff_ffff_ffffn;
/** Reset value; undefined = reading faults. */
type Row = readonly [index: number, reset: bigint | undefined, access: "RW" | "RO" | "WO"];
const HZ = 1_000_000_000n;
const TABLE: readonly Row[] = [
  [0x40000000, 0n, "RW"],
  [0x40000001, 0n, "RW"],
  [0x40000002, 3n, "RO"], // the processor of the test
  [0x40000003, 0n, "RW"],
  [0x40000010, 0n, "RO"],
  [0x40000020, 0n, "RO"],
  [0x40000021, 0n, "RW"],
  [0x40000022, HZ, "RO"],
  [0x40000023, HZ, "RO"],
  [0x40000070, undefined, "WO"],
  [0x40000071, 0n, "RW"],
  [0x40000072, 0n, "RW"],
  [0x40000073, 0n, "RW"],
  [0x40000080, 0n, "RW"],
  [0x40000081, 1n, "RO"],
  [0x40000082, 0n, "RW"],
  [0x40000083, 0n, "RW"],
  [0x40000084, 0n, "RW"],
  ...Array.from({ length: 16 }, (_, n): Row => [0x40000090 + n, 0x10000n, "RW"]),
  ...Array.from({ length: 8 }, (_, n): Row => [0x400000b0 + n, 0n, "RW"]),
  [0x400000f0, 0n, "RO"],
  ...Array.from({ length: 5 }, (_, n): Row => [0x40000100 + n, 0n, "RW"]),
  [0x40000105, 0xc000_0000_0000_0000n, "RW"],
  [0x40000118, 0n, "RW"],
];

describe("synthetic registers", () => {
  it("have their reset values, and all others in the range fault", () => {
    const p = new ScriptedProcessor({ vpIndex: 3 });
    const known = new Map(TABLE.map((row) => [row[0], row]));
    for (let index = 0x40000000; index <= 0x400001ff; index++) {
      const row = known.get(index);
      assert.equal(p.rd(index), row?.[1], `read of ${index.toString(16)}`);
      // 0x10000 is a good value for each: masked, no page, no time
      assert.equal(p.wr(index, 0x10000), row !== undefined && row[2] !== "RO", `write of ${index.toString(16)}`);
    }
  });
  it("are the hypervisor's from 0x40000000 to 0x400001ff", () => {
    assert.deepEqual([0x3fffffff, 0x40000000, 0x400001ff, 0x40000200].map(Hypervisor.owns), [false, true, true, false]);
  });
  it("keep reserved bits, both halves", () => {
    const p = new ScriptedProcessor();
    const masked = 0x1234_5678_9abd_f000n | 0x10000n;
    for (const index of [HvMsr.VP_ASSIST_PAGE, HvMsr.SCONTROL, HvMsr.SIEFP, HvMsr.SIMP, HvMsr.REFERENCE_TSC])
      for (const value of [0xedcb_a987_6543_2ffen, 0x1ffen, 0n]) {
        assert.ok(p.wr(index, value));
        assert.equal(p.rd(index), value, hvMsrName(index));
      }
    for (let n = 0; n < 16; n++) {
      assert.ok(p.wr(HvMsr.SINT0 + n, masked + BigInt(n)));
      assert.equal(p.rd(HvMsr.SINT0 + n), masked + BigInt(n));
    }
    for (let n = 0; n < 5; n++) {
      p.wr(HvMsr.CRASH_P0 + n, ALL_ONES - BigInt(n));
      assert.equal(p.rd(HvMsr.CRASH_P0 + n), ALL_ONES - BigInt(n));
    }
    p.wr(HvMsr.TSC_INVARIANT_CONTROL, 1);
    assert.equal(p.rd(HvMsr.TSC_INVARIANT_CONTROL), 1n);
    for (let n = 0; n < 4; n++) {
      p.wr(HvMsr.STIMER0_CONFIG + 2 * n, 0xffff_ffff_fff0_0000n | BigInt((n + 1) << 16));
      assert.equal(p.rd(HvMsr.STIMER0_CONFIG + 2 * n), 0xffff_ffff_fff0_0000n | BigInt((n + 1) << 16));
    }
  });
  it("refuse a SINT's vector below 16 unless it is masked, and leave the register alone then", () => {
    const p = new ScriptedProcessor();
    for (let vector = 0; vector < 256; vector++) {
      assert.equal(p.wr(HvMsr.SINT0 + 5, vector), vector >= 16, `${vector}`);
      assert.equal(p.wr(HvMsr.SINT0 + 5, vector | 0x20000), vector >= 16);
      assert.equal(p.wr(HvMsr.SINT0 + 5, vector | 0x40000), vector >= 16);
      assert.ok(p.wr(HvMsr.SINT0 + 5, vector | 0x10000));
    }
    p.wr(HvMsr.SINT0 + 5, 0x20030);
    assert.ok(!p.wr(HvMsr.SINT0 + 5, 3));
    assert.equal(p.rd(HvMsr.SINT0 + 5), 0x20030n);
  });
  it("pass EOI, ICR, TPR, idle and reset on to the processor", () => {
    const p = new ScriptedProcessor();
    p.wr(HvMsr.EOI, 0x1234);
    assert.equal(p.eois, 1);
    p.wr(HvMsr.ICR, 0x0300_0000_0000_40fbn);
    assert.deepEqual(p.icr, [0x40fb, 0x0300_0000]);
    assert.equal(p.rd(HvMsr.ICR), 0x0300_0000_0000_40fbn);
    p.wr(HvMsr.TPR, 0x1f0);
    assert.equal(p.taskPriority, 0xf0);
    assert.equal(p.rd(HvMsr.TPR), 0xf0n);
    assert.equal(p.rd(HvMsr.GUEST_IDLE), 0n);
    assert.equal(p.idles, 1);
    p.wr(HvMsr.RESET, 2);
    assert.equal(p.resets, 0);
    p.wr(HvMsr.RESET, 1);
    assert.equal(p.resets, 1);
    assert.equal(p.rd(HvMsr.RESET), 0n);
  });
  it("count reference time in units of 100 ns, beyond 32 bits", () => {
    const p = new ScriptedProcessor();
    for (const [ns, time] of [
      [0, 0n],
      [100, 0n],
      [101, 1n],
      [1_000_000_001, 10_000_000n],
      [2 ** 52 + 1, BigInt(2 ** 52) / 100n],
    ] as const) {
      p.runTo(ns);
      assert.equal(p.rd(HvMsr.TIME_REF_COUNT), time);
    }
    assert.ok(p.rd(HvMsr.VP_RUNTIME)! <= p.rd(HvMsr.TIME_REF_COUNT)!);
  });
  it("fill the reference TSC page at once, before there is an identity, and only where there is RAM", () => {
    const p = new ScriptedProcessor();
    p.memory.ram.fill(0x77, 0x5000, 0x7000);
    p.wr(HvMsr.REFERENCE_TSC, 0x5ffe);
    assert.equal(p.memory.ram[0x5000], 0x77);
    p.wr(HvMsr.REFERENCE_TSC, 0x5fff);
    assert.equal(p.memory.readU32(0x5000), 1);
    assert.equal(p.memory.ram[0x5fff], 0);
    assert.equal(p.memory.ram[0x6000], 0x77);
    assert.ok(p.wr(HvMsr.REFERENCE_TSC, 0x1_0000_5001n));
    assert.ok(p.wr(HvMsr.REFERENCE_TSC, ALL_ONES));
    assert.equal(p.rd(HvMsr.REFERENCE_TSC), ALL_ONES);
    p.checkCanaries();
  });
});

describe("the hypercall page", () => {
  const OS = 0x8100_0006_01c0_0000n;
  it("gets VMCALL and RET, and breakpoints to its end", () => {
    const p = new ScriptedProcessor();
    p.memory.ram.fill(0x77, 0x1000, 0x4000);
    p.wr(HvMsr.GUEST_OS_ID, OS);
    assert.ok(p.wr(HvMsr.HYPERCALL, 0x2ffdn));
    assert.equal(p.rd(HvMsr.HYPERCALL), 0x2ffdn);
    assert.deepEqual([...p.memory.ram.subarray(0x2000, 0x2005)], [0x0f, 0x01, 0xc1, 0xc3, 0xcc]);
    assert.ok(p.memory.ram.subarray(0x2004, 0x3000).every((b) => b === 0xcc));
    assert.deepEqual([p.memory.ram[0x1fff], p.memory.ram[0x3000]], [0x77, 0x77]);
  });
  it("is not enabled without an identity, and goes when that is cleared", () => {
    const p = new ScriptedProcessor();
    assert.ok(p.wr(HvMsr.HYPERCALL, 0x2001));
    assert.equal(p.rd(HvMsr.HYPERCALL), 0x2000n);
    assert.equal(p.memory.ram[0x2000], 0);
    assert.deepEqual(p.call({ code: 0x8001 }), { status: 2, reps: 0 });
    // either half is an identity
    for (const id of [1n, 1n << 63n]) {
      p.wr(HvMsr.GUEST_OS_ID, id);
      p.wr(HvMsr.HYPERCALL, 0x2001);
      assert.equal(p.rd(HvMsr.HYPERCALL), 0x2001n);
      assert.equal(p.call({ code: 0x8001 }).status, 0);
      p.wr(HvMsr.GUEST_OS_ID, 0);
      assert.equal(p.rd(HvMsr.HYPERCALL), 0x2000n);
      assert.equal(p.call({ code: 0x8001 }).status, 2);
    }
    // it does not come back by itself
    p.wr(HvMsr.GUEST_OS_ID, 1);
    assert.equal(p.rd(HvMsr.HYPERCALL), 0x2000n);
  });
  it("can be disabled and moved, until it is locked", () => {
    const p = new ScriptedProcessor();
    p.enableHypercalls(0x2000);
    assert.ok(p.wr(HvMsr.HYPERCALL, 0));
    assert.equal(p.call({ code: 0x8001 }).status, 2);
    assert.ok(p.wr(HvMsr.HYPERCALL, 0x6003));
    assert.equal(p.memory.ram[0x6000], 0x0f);
    assert.ok(!p.wr(HvMsr.HYPERCALL, 0x7001));
    assert.ok(!p.wr(HvMsr.HYPERCALL, 0));
    assert.equal(p.rd(HvMsr.HYPERCALL), 0x6003n);
    assert.equal(p.call({ code: 0x8001 }).status, 0);
  });
  it("faults outside RAM, and the register stays as it was", () => {
    const p = new ScriptedProcessor();
    p.enableHypercalls(0x2000);
    for (const value of [0x10_0001n, 0x1_0000_2001n, ALL_ONES & ~2n]) {
      assert.ok(!p.wr(HvMsr.HYPERCALL, value));
      assert.equal(p.rd(HvMsr.HYPERCALL), 0x2001n);
    }
    assert.ok(p.wr(HvMsr.HYPERCALL, ALL_ONES & ~3n));
    p.checkCanaries();
  });
});

describe("crash registers", () => {
  const crash = (parameters: readonly bigint[], ctl: bigint, ram?: (p: ScriptedProcessor) => void) => {
    const p = new ScriptedProcessor();
    ram?.(p);
    parameters.forEach((value, n) => {
      p.wr(HvMsr.CRASH_P0 + n, value);
    });
    p.wr(HvMsr.CRASH_CTL, ctl);
    assert.equal(p.rd(HvMsr.CRASH_CTL), 0xc000_0000_0000_0000n);
    return p.crashes;
  };
  const text = (at: number, message: string) => (p: ScriptedProcessor) =>
    p.memory.ram.set(new TextEncoder().encode(message), at);

  it("report five parameters, and text where the guest says so", () => {
    const parameters = [1n, 0xfedc_ba98_7654_3210n, 3n, 0x5000n, 5n];
    const expected = [
      "0000000000000001",
      "fedcba9876543210",
      "0000000000000003",
      "0000000000005000",
      "0000000000000005",
    ];
    assert.deepEqual(crash(parameters, 1n << 63n, text(0x5000, "hello")), [{ parameters: expected, text: "" }]);
    assert.deepEqual(crash(parameters, 3n << 62n, text(0x5000, "hello")), [{ parameters: expected, text: "hello" }]);
  });
  it("report nothing without the notify bit", () => {
    assert.deepEqual(crash([1n], 1n << 62n), []);
    assert.deepEqual(crash([1n], 0n), []);
  });
  it("take at most 4096 bytes of text, from RAM, without the zeros behind it", () => {
    const long = crash([0n, 0n, 0n, 0x5000n, 5000n], 3n << 62n, (p) => p.memory.ram.fill(0x61, 0x5000, 0x7000));
    assert.equal(long[0]?.text.length, 4096);
    const huge = crash([0n, 0n, 0n, 0x5000n, 1n << 40n], 3n << 62n, (p) => p.memory.ram.fill(0x61, 0x5000, 0x7000));
    assert.equal(huge[0]?.text.length, 4096);
    assert.equal(crash([0n, 0n, 0n, 0x5000n, 100n], 3n << 62n, text(0x5000, "end"))[0]?.text, "end");
    for (const at of [0xff_fffn, 1n << 32n, ALL_ONES])
      assert.equal(crash([0n, 0n, 0n, at, 64n], 3n << 62n)[0]?.text, "");
  });
});

describe("traces of registers", () => {
  it("have every write but those of each tick and interrupt, and faults always", () => {
    const trace = new TraceRing(() => 0);
    const p = new ScriptedProcessor({ trace });
    for (const [index, value] of [
      [HvMsr.GUEST_OS_ID, 5n],
      [HvMsr.EOI, 0n],
      [HvMsr.ICR, 0n],
      [HvMsr.TPR, 0n],
      [HvMsr.STIMER0_COUNT, 7n],
      [HvMsr.STIMER0_CONFIG + 7, 7n],
      [0x400000b8, 7n],
      [HvMsr.SIMP, 0x1_0000_0002n],
    ] as const)
      p.wr(index, value);
    assert.deepEqual(
      trace.take().map((r) => [r.kind, hvMsrName(r.a), r.b, r.c]),
      [
        [TraceKind.msrWrite, "GUEST_OS_ID", 5, 0],
        [TraceKind.msrWrite, "0x400000b8", 7, 0],
        [TraceKind.msrWrite, "SIMP", 2, 1],
      ],
    );
  });
  it("name registers as the TLFS does", () => {
    assert.deepEqual(
      [0x40000090, 0x4000009f, 0x400000b0, 0x400000b7, 0x40000100, 0x40000104, 0x40000105, 0x40000084].map(hvMsrName),
      ["SINT0", "SINT15", "STIMER0_CONFIG", "STIMER3_COUNT", "CRASH_P0", "CRASH_P4", "CRASH_CTL", "EOM"],
    );
  });
});
