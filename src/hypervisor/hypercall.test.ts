import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { Hypercall, hypercallName } from "./hypercall.js";
import { type Call, ScriptedProcessor } from "./scripted-processor.js";

/** 64-bit words, little-endian. */
const words = (...values: (number | bigint)[]): Uint8Array => {
  const out = new Uint8Array(values.length * 8);
  const view = new DataView(out.buffer);
  values.forEach((v, i) => {
    view.setBigUint64(i * 8, BigInt.asUintN(64, BigInt(v)), true);
  });
  return out;
};
const processor = (processors = 1): ScriptedProcessor => {
  const p = new ScriptedProcessor({ processors });
  p.enableHypercalls();
  return p;
};
const postInput = (o: { connection?: number; type?: number; size?: number; payload?: Uint8Array } = {}): Uint8Array => {
  const input = new Uint8Array(256);
  const view = new DataView(input.buffer);
  view.setUint32(0, o.connection ?? 4, true);
  view.setUint32(8, o.type ?? 1, true);
  view.setUint32(12, o.size ?? o.payload?.length ?? 8, true);
  input.set(o.payload ?? [1, 2, 3], 16);
  return input;
};
const simple = (code: number): Call => ({ code, input: new Uint8Array(256) });

describe("the hypercall interface", () => {
  it("knows no other calls than its own: status 2, whatever else is wrong", () => {
    const p = processor();
    const known = [2, 3, 8, 0xb, 0x13, 0x14, 0x15, 0x5c, 0x5d, 0x8001];
    for (let code = 0; code < 0x10000; code++) {
      if (known.includes(code)) continue;
      const { status } = p.call({ code, bits: code % 2 === 0 ? 0n : 1n << 27n, inputGpa: 3 });
      if (status !== 2) assert.fail(`code ${code}: ${status}`);
    }
    assert.equal(hypercallName(0x5c), "PostMessage");
    assert.equal(hypercallName(0x46), "0x46");
  });
  it("refuses every reserved bit of the control word: status 3", () => {
    const p = processor();
    for (const bit of [27n, 28n, 29n, 30n, 31n, 44n, 45n, 46n, 47n, 60n, 61n, 62n, 63n])
      assert.deepEqual(p.call({ ...simple(Hypercall.NotifyLongSpinWait), bits: 1n << bit }), { status: 3, reps: 0 });
    assert.equal(p.call(simple(Hypercall.NotifyLongSpinWait)).status, 0);
  });
  it("refuses rep counts of simple calls, none of rep calls, and a start beyond the count: status 3", () => {
    const p = processor();
    for (const code of [2, 8, 0xb, 0x13, 0x15, 0x5c, 0x5d, 0x8001]) {
      assert.equal(p.call({ ...simple(code), reps: 1 }).status, 3, `${code}`);
      assert.equal(p.call({ ...simple(code), start: 1 }).status, 3, `${code}`);
    }
    for (const code of [Hypercall.FlushVirtualAddressList, Hypercall.FlushVirtualAddressListEx]) {
      assert.equal(p.call(simple(code)).status, 3);
      assert.equal(p.call({ ...simple(code), reps: 2, start: 2 }).status, 3);
      assert.equal(p.call({ ...simple(code), reps: 2, start: 3 }).status, 3);
      assert.deepEqual(p.call({ ...simple(code), reps: 2, start: 1 }), { status: 0, reps: 2 });
    }
  });
  it("refuses variable headers and fast forms of calls without them: status 3", () => {
    const p = processor();
    for (const code of [2, 3, 8, 0xb, 0x5c, 0x5d, 0x8001]) {
      const reps = code === 3 ? 1 : 0;
      assert.equal(p.call({ ...simple(code), variable: 1, reps }).status, 3, `${code}`);
    }
    assert.equal(p.call({ code: Hypercall.PostMessage, fast: true, input: postInput() }).status, 3);
    assert.equal(p.call({ code: Hypercall.ExtQueryCapabilities, fast: true }).status, 3);
  });
  it("refuses blocks that are not aligned, cross a page or are outside RAM: status 4", () => {
    const p = processor();
    const at = (code: number, o: Partial<Call>): number => p.call({ code, ...o }).status;
    const ram = p.memory.bytes;
    for (const inputGpa of [0x8001, 0x8004, ram, ram - 16, 2 ** 40, 2 ** 53])
      assert.equal(at(Hypercall.FlushVirtualAddressSpace, { inputGpa }), 4, `${inputGpa}`);
    assert.equal(at(Hypercall.FlushVirtualAddressSpace, { inputGpa: 0x9000 - 24 }), 0);
    assert.equal(at(Hypercall.FlushVirtualAddressSpace, { inputGpa: 0x9000 - 16 }), 4);
    assert.equal(at(Hypercall.FlushVirtualAddressSpace, { inputGpa: ram - 24 }), 0);
    // the list counts, too: (4096 - 24) / 8 entries fit
    assert.deepEqual(p.call({ code: 3, reps: 509, inputGpa: 0x8000 }), { status: 0, reps: 509 });
    assert.equal(at(3, { reps: 510, inputGpa: 0x8000 }), 4);
    assert.equal(at(3, { reps: 4095, inputGpa: 0x8000 }), 4);
    for (const outputGpa of [0x8004, 0x8ffc, ram, 2 ** 45])
      assert.equal(at(Hypercall.ExtQueryCapabilities, { outputGpa }), 4);
    p.checkCanaries();
  });
  it("looks at no address that a call does not use", () => {
    const p = processor();
    assert.equal(p.call({ code: Hypercall.ExtQueryCapabilities, inputGpa: 3, outputGpa: 0x9000 }).status, 0);
    const fast = { fast: true, input: words(0, 0), inputGpa: 3, outputGpa: 5 };
    assert.equal(p.call({ code: Hypercall.NotifyLongSpinWait, ...fast }).status, 0);
    assert.equal(p.call({ code: Hypercall.FlushVirtualAddressSpace, input: words(0, 0, 1), outputGpa: 5 }).status, 0);
  });
  it("takes what 112 bytes of registers hold of a fast call, and no more", () => {
    const p = processor(65);
    // 24 + 11 * 8 = 112
    assert.deepEqual(p.call({ code: 3, fast: true, reps: 11, input: words(0, 0, 1) }), { status: 0, reps: 11 });
    assert.equal(p.call({ code: 3, fast: true, reps: 12, input: words(0, 0, 1) }).status, 3);
    assert.equal(p.call({ code: 0x15, fast: true, variable: 2, input: words(0x40, 0, 3, 1, 1) }).status, 0);
    assert.deepEqual(p.ipis, [{ vector: 0x40, vps: [0, 64] }]);
    assert.equal(p.call({ code: 0x15, fast: true, variable: 12, input: words(0x40, 0, 3, 1, 1) }).status, 3);
  });
  it("writes the extended capabilities, of which there are none, and nothing beside them", () => {
    const p = processor();
    p.memory.ram.fill(0x77, 0x9000, 0xa000);
    assert.deepEqual(p.call({ code: 0x8001, outputGpa: 0x9008 }), { status: 0, reps: 0 });
    assert.deepEqual(
      [...p.memory.ram.subarray(0x9000, 0x9018)],
      [...new Uint8Array(8).fill(0x77), ...new Uint8Array(8), ...new Uint8Array(8).fill(0x77)],
    );
  });
});

describe("PostMessage", () => {
  const taken = (p: ScriptedProcessor) => {
    const out: { connection: number; type: number; payload: number[] }[] = [];
    p.door.takeMessages(
      () => true,
      (payload, length, connection, type) => out.push({ connection, type, payload: [...payload.subarray(0, length)] }),
    );
    return out;
  };
  it("hands messages over in order, on both connections", () => {
    const p = processor();
    for (const [connection, n] of [
      [1, 7],
      [4, 8],
      [0xff000004, 9],
    ] as const)
      assert.equal(p.call({ code: 0x5c, input: postInput({ connection, payload: Uint8Array.of(n, 1) }) }).status, 0);
    assert.deepEqual(
      taken(p).map((m) => [m.connection, m.type, ...m.payload]),
      [
        [1, 1, 7, 1],
        [4, 1, 8, 1],
        [4, 1, 9, 1],
      ],
    );
    assert.deepEqual(taken(p), []);
  });
  it("carries 0 to 240 bytes; more, or a hypervisor's message type: status 5", () => {
    const p = processor();
    const full = Uint8Array.from({ length: 240 }, (_, i) => i);
    assert.equal(p.call({ code: 0x5c, input: postInput({ payload: full }) }).status, 0);
    assert.equal(p.call({ code: 0x5c, input: postInput({ size: 0 }) }).status, 0);
    assert.deepEqual(
      taken(p).map((m) => m.payload),
      [[...full], []],
    );
    for (const size of [241, 0x80000000, 0xffffffff])
      assert.equal(p.call({ code: 0x5c, input: postInput({ size }) }).status, 5);
    for (const type of [0x80000000, 0x80000010, 0xffffffff, 0])
      assert.equal(p.call({ code: 0x5c, input: postInput({ type }) }).status, 5);
    assert.equal(p.call({ code: 0x5c, input: postInput({ type: 0x7fffffff }) }).status, 0);
    assert.equal(taken(p).length, 1);
  });
  it("refuses other connections: status 0x12", () => {
    const p = processor();
    for (const connection of [0, 2, 3, 5, 0x10001, 0xffffff])
      assert.equal(p.call({ code: 0x5c, input: postInput({ connection }) }).status, 0x12);
    assert.deepEqual(taken(p), []);
  });
  it("says 0x13 when its queue is full, and takes more when there is room", () => {
    const p = processor();
    let n = 0;
    const post = (): number => p.call({ code: 0x5c, input: postInput({ payload: Uint8Array.of(n) }) }).status;
    for (; n < 62; n++) assert.equal(post(), 0);
    for (let i = 0; i < 5; i++) assert.equal(post(), 0x13);
    let left = 3;
    p.door.takeMessages(
      () => left-- > 0,
      () => {},
    );
    for (; n < 65; n++) assert.equal(post(), 0);
    assert.equal(post(), 0x13);
    assert.deepEqual(
      taken(p).map((m) => m.payload[0]),
      Array.from({ length: 62 }, (_, i) => i + 3),
    );
    p.checkCanaries();
  });
  it("rings the doorbell, once for each", () => {
    const p = processor();
    const { words: w, index } = p.door.doorbell;
    const before = w[index]!;
    p.call({ code: 0x5c, input: postInput() });
    p.call({ code: 0x5c, input: postInput({ size: 241 }) });
    assert.equal(w[index], before + 1);
  });
});

describe("SignalEvent", () => {
  const signalled = (p: ScriptedProcessor): number[] => {
    const out: number[] = [];
    p.door.takeSignals((relid) => out.push(relid));
    return out.sort((a, b) => a - b);
  };
  it("signals connected channels, fast as Linux does and slow as FreeBSD does", () => {
    const p = processor();
    for (const relid of [1, 31, 32, 63, 2047]) p.door.setConnection(relid, true);
    for (const relid of [1, 31, 2047])
      assert.equal(p.call({ code: 0x5d, fast: true, input: words(0x10000 + relid) }).status, 0);
    assert.equal(p.call({ code: 0x5d, input: words(0x10000 + 63) }).status, 0);
    assert.equal(p.call({ code: 0x5d, input: words(0xff_010000 + 32) }).status, 0);
    assert.deepEqual(signalled(p), [1, 31, 32, 63, 2047]);
    assert.deepEqual(signalled(p), []);
  });
  it("refuses what is not connected with 0x12, and flags other than 0 with 5", () => {
    const p = processor();
    p.door.setConnection(5, true);
    p.door.setConnection(6, true);
    p.door.setConnection(6, false);
    for (const id of [0, 1, 4, 0x10000, 0x10004, 0x10006, 0x10800, 0x10805, 0x20005, 0xffffff])
      assert.equal(p.call({ code: 0x5d, fast: true, input: words(id) }).status, 0x12, id.toString(16));
    assert.equal(p.call({ code: 0x5d, fast: true, input: words(0x1_00010005n) }).status, 5);
    // reserved bits above the flag
    assert.equal(p.call({ code: 0x5d, fast: true, input: words(0x0001_0000_00010005n) }).status, 0);
    assert.deepEqual(signalled(p), [5]);
  });
  it("forgets the signals of a connection that has gone", () => {
    const p = processor();
    p.door.setConnection(40, true);
    p.door.setConnection(41, true);
    for (const relid of [40, 41]) p.call({ code: 0x5d, fast: true, input: words(0x10000 + relid) });
    p.door.setConnection(40, false);
    assert.deepEqual(signalled(p), [41]);
  });
});

describe("flushes and IPIs", () => {
  const VPS = 200;
  const below = (mask: bigint): number[] =>
    Array.from({ length: 64 }, (_, i) => i).filter((vp) => (mask >> BigInt(vp)) & 1n);

  it("flush the processors of a mask, or all of them", () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.constantFrom(0, 1, 2, 4, 7), (mask, flags) => {
        const p = processor(VPS);
        assert.deepEqual(p.call({ code: 2, input: words(0x1000, flags, mask) }), { status: 0, reps: 0 });
        const list = { code: 3, reps: 3, input: words(0x1000, flags, mask, 0x5000, 0x6001, 0x7fff) };
        assert.deepEqual(p.call(list), { status: 0, reps: 3 });
        const expected = (flags & 1) !== 0 ? Array.from({ length: VPS }, (_, i) => i) : below(mask);
        assert.deepEqual(p.flushes, [expected, expected]);
      }),
    );
  });
  it("send IPIs to the processors of a mask", () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.integer({ min: 16, max: 255 }), (mask, vector) => {
        const p = processor(VPS);
        assert.equal(p.call({ code: 0xb, fast: true, input: words(vector, mask) }).status, 0);
        assert.equal(p.call({ code: 0xb, input: words(vector, mask) }).status, 0);
        assert.deepEqual(p.ipis, [
          { vector, vps: below(mask) },
          { vector, vps: below(mask) },
        ]);
      }),
    );
  });
  it("refuse vectors below 16 and above 255, and other trust levels: status 5", () => {
    const p = processor();
    for (const first of [0, 15, 256, 0x80000040, 0x1_00000040])
      for (const call of [
        { code: 0xb, fast: true, input: words(first, 1) },
        { code: 0x15, input: words(first, 1, 0) },
      ])
        assert.equal(p.call(call).status, 5, `${first}`);
    assert.deepEqual(p.ipis, []);
  });
  it("take sparse sets as a plain model of them does", () => {
    const banks = fc.dictionary(
      fc.constantFrom("0", "1", "2", "3", "17", "31", "32", "63"),
      fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    );
    fc.assert(
      fc.property(banks, fc.nat(3), (set, reps) => {
        const p = processor(4096);
        const present = Object.entries(set)
          .map(([bank, mask]) => [Number(bank), mask] as const)
          .sort(([a], [b]) => a - b);
        const bankMask = present.reduce((m, [bank]) => m | (1n << BigInt(bank)), 0n);
        const contents = present.map(([, mask]) => mask);
        const model = present.flatMap(([bank, mask]) => below(mask).map((vp) => bank * 64 + vp));
        const variable = present.length;
        const flush = { code: 0x13, variable, input: words(0, 0, 0, bankMask, ...contents) };
        assert.equal(p.call(flush).status, 0);
        const list = { code: 0x14, variable, reps: reps + 1, input: flush.input };
        assert.deepEqual(p.call(list), { status: 0, reps: reps + 1 });
        assert.equal(p.call({ code: 0x15, variable, input: words(0x30, 0, bankMask, ...contents) }).status, 0);
        assert.deepEqual(p.flushes, [model, model]);
        assert.deepEqual(p.ipis, [{ vector: 0x30, vps: model }]);
      }),
    );
  });
  it("take format 1 for everybody, and no other format: status 5", () => {
    const p = processor(3);
    assert.equal(p.call({ code: 0x13, input: words(0, 0, 1, 0) }).status, 0);
    assert.equal(p.call({ code: 0x15, input: words(0x30, 1, 0) }).status, 0);
    assert.deepEqual([p.flushes, p.ipis], [[[0, 1, 2]], [{ vector: 0x30, vps: [0, 1, 2] }]]);
    assert.equal(p.call({ code: 0x13, input: words(0, 1, 0, 0) }).status, 0);
    assert.deepEqual(p.flushes[1], [0, 1, 2]);
    for (const format of [2, 0xffffffff, 1n << 32n, (1n << 32n) | 1n]) {
      assert.equal(p.call({ code: 0x13, input: words(0, 0, format, 0) }).status, 5);
      assert.equal(p.call({ code: 0x15, input: words(0x30, format, 0) }).status, 5);
    }
  });
  it("refuse sets whose banks are not as many as the variable header has: status 3", () => {
    const p = processor(200);
    for (const variable of [0, 1, 3])
      for (const call of [
        { code: 0x13, variable, input: words(0, 0, 0, 0x5, 1, 1, 1) },
        { code: 0x14, variable, reps: 1, input: words(0, 0, 0, 0x5, 1, 1, 1) },
        { code: 0x15, variable, input: words(0x30, 0, 0x5, 1, 1, 1) },
      ])
        assert.deepEqual(p.call(call), { status: 3, reps: 0 });
    assert.deepEqual([p.flushes, p.ipis], [[], []]);
  });
});
