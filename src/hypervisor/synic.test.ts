import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Trace, TraceKind, TraceRing } from "../trace/trace.js";
import { HvMsr, PartitionArea, ScriptedProcessor, SIEFP, SIMP, SynicArea } from "./scripted-processor.js";
import { Attention } from "./shared-areas.js";

const VECTOR = 0xf3;
const EOM = HvMsr.EOM;
const SINT2 = HvMsr.SINT0 + 2;
const started = (): ScriptedProcessor => {
  const p = new ScriptedProcessor();
  p.enableSynic(VECTOR);
  return p;
};
const deliver = (p: ScriptedProcessor): number[] => {
  p.hypervisor.poll();
  return p.interrupts();
};
/** Event flags of SINT 2. */
const flags = (p: ScriptedProcessor): number[] =>
  Array.from({ length: 2048 }, (_, i) => i).filter(
    (i) => ((p.memory.ram[SIEFP + 512 + (i >> 3)]! >> (i & 7)) & 1) !== 0,
  );

describe("the message page", () => {
  it("is zeroed when it is enabled, and when it is enabled elsewhere, but not when it is written again", () => {
    for (const [index, at] of [
      [HvMsr.SIMP, SIMP],
      [HvMsr.SIEFP, SIEFP],
    ] as const) {
      const p = new ScriptedProcessor();
      p.memory.ram.fill(7, at, at + 0x4000);
      p.wr(index, at);
      assert.equal(p.memory.ram[at], 7);
      p.wr(index, at | 1);
      assert.ok(p.memory.ram.subarray(at, at + 4096).every((b) => b === 0));
      p.memory.ram[at + 9] = 5;
      p.wr(index, at | 3);
      assert.equal(p.memory.ram[at + 9], 5);
      p.wr(index, (at + 0x2000) | 1);
      assert.equal(p.memory.ram[at + 0x1fff], 7);
      assert.equal(p.memory.ram[at + 0x2000], 0);
    }
  });
  it("gets a message whole: type, size, no flag, no sender, payload, then the vector", () => {
    const p = started();
    p.memory.ram.fill(0xee, SIMP + 512 + 4, SIMP + 768);
    const payload = Uint8Array.from({ length: 240 }, (_, i) => i + 1);
    p.door.post(0, 2, 1, payload, 240);
    assert.deepEqual(p.interrupts(), []);
    assert.deepEqual(deliver(p), [VECTOR]);
    const slot = p.memory.ram.slice(SIMP + 512, SIMP + 768);
    assert.deepEqual([...slot.subarray(0, 16)], [1, 0, 0, 0, 240, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert.deepEqual(slot.subarray(16), payload);
    assert.deepEqual(p.memory.ram[SIMP + 768], 0);
  });
  it("has the type written last", () => {
    const order: string[] = [];
    const memory = { at: SIMP + 512 };
    // the vector comes after the type, and the type when everything else is there
    const trace: Trace = {
      record: (kind) => {
        if (kind !== TraceKind.synicMessage) return;
        order.push(`type ${p.memory.readU32(memory.at)}, payload ${p.memory.ram[memory.at + 16]}`);
        order.push(`raised ${p.raised.length}`);
      },
      text: () => {},
    };
    const p = new ScriptedProcessor({
      trace,
      watcher: {
        written: (gpa, length) => {
          if (gpa >= memory.at && length < 256) order.push(`written ${gpa - memory.at}`);
          return false;
        },
        settle: () => {},
      },
    });
    p.enableSynic();
    p.post(9);
    deliver(p);
    assert.deepEqual(order, ["written 0", "type 1, payload 9", "raised 0"]);
  });
  it("keeps a message while the slot is busy, with the pending flag set; EOM brings it and interrupts again", () => {
    const p = started();
    p.post(1);
    assert.deepEqual(deliver(p), [VECTOR]);
    assert.equal(p.slot(2).flags, 0);
    p.post(2);
    p.post(3);
    assert.deepEqual(deliver(p), []);
    assert.deepEqual([p.slot(2).payload[0], p.slot(2).flags], [1, 1]);
    // freed, but nobody has said so
    p.memory.writeU32(SIMP + 512, 0);
    p.hypervisor.poll();
    assert.equal(p.slot(2).type, 0);
    p.wr(EOM, 0);
    assert.deepEqual(p.interrupts(), [VECTOR]);
    assert.deepEqual([p.slot(2).payload[0], p.slot(2).flags], [2, 1]);
    assert.deepEqual(p.takeMessage(2)?.payload[0], 2);
    assert.deepEqual(p.interrupts(), [VECTOR]);
    assert.deepEqual([p.slot(2).payload[0], p.slot(2).flags], [3, 0]);
    assert.deepEqual(p.takeMessage(2)?.payload[0], 3);
    p.wr(EOM, 0);
    assert.deepEqual([p.slot(2).type, p.interrupts()], [0, []]);
  });
  it("keeps a freed slot's message until EOM even when more come", () => {
    const p = started();
    p.post(1);
    p.post(2);
    deliver(p);
    assert.equal(p.slot(2).flags, 1);
    // no EOM is needed where a new message makes this side look
    p.memory.writeU32(SIMP + 512, 0);
    p.post(3);
    assert.deepEqual(deliver(p), [VECTOR]);
    assert.deepEqual([p.slot(2).payload[0], p.slot(2).flags], [2, 1]);
  });
  it("has a slot for each SINT", () => {
    const p = started();
    p.wr(HvMsr.SINT0 + 5, 0x51);
    p.post(1, 2);
    p.post(2, 5);
    p.post(3, 15);
    assert.deepEqual(deliver(p), [VECTOR, 0x51]);
    assert.deepEqual(
      [2, 5, 15].map((s) => p.slot(s).payload[0]),
      [1, 2, 3],
    );
    assert.deepEqual(
      [2, 5, 15].map((s) => p.slot(s).flags),
      [1, 1, 0],
    );
  });
  it("is filled without an interrupt where the SINT is masked or polled", () => {
    for (const bit of [1 << 16, 1 << 18]) {
      const p = started();
      p.wr(SINT2, VECTOR | bit);
      p.post(1);
      assert.deepEqual(deliver(p), []);
      assert.equal(p.slot(2).payload[0], 1);
      p.post(2);
      deliver(p);
      assert.equal(p.slot(2).flags, 1);
      p.takeMessage(2);
      assert.deepEqual([p.slot(2).payload[0], p.interrupts()], [2, []]);
    }
  });
  it("gets what has waited when SCONTROL, the page or the SINT is set, at once", () => {
    for (const [off, on] of [
      [(p: ScriptedProcessor) => p.wr(HvMsr.SCONTROL, 0), (p: ScriptedProcessor) => p.wr(HvMsr.SCONTROL, 1)],
      [(p: ScriptedProcessor) => p.wr(HvMsr.SIMP, SIMP), (p: ScriptedProcessor) => p.wr(HvMsr.SIMP, SIMP | 1)],
      [(p: ScriptedProcessor) => p.wr(HvMsr.SIMP, 2 ** 30 + 1), (p: ScriptedProcessor) => p.wr(HvMsr.SIMP, SIMP | 1)],
    ] as const) {
      const p = started();
      off(p);
      p.post(1);
      p.post(2);
      assert.deepEqual(deliver(p), []);
      assert.equal(p.slot(2).type, 0);
      on(p);
      assert.deepEqual(p.interrupts(), [VECTOR]);
      assert.deepEqual(p.slot(2).payload[0], 1);
      // off in between, and on again: nothing is lost
      off(p);
      on(p);
      p.interrupts();
      if (p.slot(2).payload[0] === 1) p.takeMessage(2);
      assert.deepEqual(p.slot(2).payload[0], 2);
    }
    const p = started();
    p.post(1);
    deliver(p);
    p.post(2);
    p.memory.writeU32(SIMP + 512, 0);
    p.wr(SINT2, 0x77);
    assert.deepEqual(p.interrupts(), [0x77]);
  });
  it("says in the trace what was raised", () => {
    const trace = new TraceRing(() => 0);
    const p = new ScriptedProcessor({ trace });
    p.enableSynic();
    p.post(1);
    p.post(2, 4);
    deliver(p);
    const messages = trace.take().filter((r) => r.kind === TraceKind.synicMessage);
    assert.deepEqual(
      messages.map((r) => [r.a, r.b, r.c]),
      [
        [2, 0xf3, 1],
        [4, 0, 0],
      ],
    );
  });
});

describe("event flags", () => {
  it("are set beside those that are, and interrupt only where one was 0", () => {
    const p = started();
    p.door.signal(0, 2, 1);
    p.door.signal(0, 2, 2047);
    p.door.signal(0, 2, 32);
    assert.deepEqual(deliver(p), [VECTOR]);
    assert.deepEqual(flags(p), [1, 32, 2047]);
    p.door.signal(0, 2, 32);
    assert.deepEqual(deliver(p), []);
    p.door.signal(0, 2, 33);
    p.door.signal(0, 2, 32);
    assert.deepEqual(deliver(p), [VECTOR]);
    assert.deepEqual(flags(p), [1, 32, 33, 2047]);
    // the guest takes one
    p.memory.ram[SIEFP + 512 + 4] = 0;
    p.door.signal(0, 2, 32);
    assert.deepEqual(deliver(p), [VECTOR]);
    assert.deepEqual(flags(p), [1, 32, 2047]);
  });
  it("are set without an interrupt where the SINT is masked", () => {
    const p = started();
    p.wr(SINT2, VECTOR | (1 << 16));
    p.door.signal(0, 2, 5);
    assert.deepEqual(deliver(p), []);
    assert.deepEqual(flags(p), [5]);
  });
  it("are lost without a page or SynIC, and do not come later", () => {
    for (const off of [HvMsr.SCONTROL, HvMsr.SIEFP]) {
      const p = started();
      p.wr(off, 0);
      p.door.signal(0, 2, 5);
      assert.deepEqual(deliver(p), []);
      p.wr(off, off === HvMsr.SCONTROL ? 1 : SIEFP | 1);
      assert.deepEqual(deliver(p), []);
      assert.deepEqual(flags(p), []);
    }
  });
  it("belong to VMBus's SINT alone", () => {
    const p = started();
    p.door.signal(0, 4, 5);
    assert.deepEqual(deliver(p), []);
    assert.ok(p.memory.ram.subarray(SIEFP, SIEFP + 4096).every((b) => b === 0));
  });
});

describe("automatic end of interrupt", () => {
  it("is a vector's whose SINT asks for it and is not masked", () => {
    const p = started();
    const automatic = (): number[] =>
      Array.from({ length: 256 }, (_, v) => v).filter((v) => p.hypervisor.synic.isAutoEoi(v));
    assert.deepEqual(automatic(), []);
    p.wr(SINT2, VECTOR | (1 << 17));
    p.wr(HvMsr.SINT0 + 4, 0x20 | (1 << 17));
    p.wr(HvMsr.SINT0 + 6, 0x60 | (1 << 17) | (1 << 16));
    assert.deepEqual(automatic(), [0x20, VECTOR]);
    p.wr(SINT2, VECTOR);
    assert.deepEqual(automatic(), [0x20]);
    // another SINT with the same vector still wants it
    p.wr(HvMsr.SINT0 + 7, 0x20 | (1 << 17));
    p.wr(HvMsr.SINT0 + 4, 0x20);
    assert.deepEqual(automatic(), [0x20]);
  });
});

describe("what other threads ask of a processor", () => {
  it("is not lost when it is asked between the two looks of one poll", () => {
    const p = started();
    // the device side asks for host writes to be seen after the first look: the second must not take the wish away
    p.areas.partition[PartitionArea.writesAsked >> 2] = 1;
    Atomics.or(p.areas.synic, SynicArea.attention >> 2, Attention.hostWrites | Attention.messages);
    p.hypervisor.synic.poll();
    assert.equal(Atomics.load(p.areas.synic, SynicArea.attention >> 2), Attention.hostWrites);
    p.hypervisor.poll();
    assert.equal(p.areas.partition[PartitionArea.writesDone >> 2], 1);
    assert.equal(Atomics.load(p.areas.synic, SynicArea.attention >> 2), 0);
  });
  it("leaves nothing to look at when it was done before it was seen", () => {
    const p = started();
    Atomics.or(p.areas.synic, SynicArea.attention >> 2, Attention.hostWrites);
    p.hypervisor.poll();
    assert.equal(Atomics.load(p.areas.synic, SynicArea.attention >> 2), 0);
    assert.deepEqual(p.hostWrites, []);
  });
});

describe("saved areas", () => {
  it("are all there is: a copy goes on with messages, flags, registers, timers and auto-EOI", () => {
    const p = started();
    p.enableHypercalls();
    p.wr(SINT2, VECTOR | (1 << 17));
    p.wr(HvMsr.REFERENCE_TSC, 0x5001);
    p.wr(HvMsr.STIMER0_CONFIG, 0x2_0000 | 3);
    p.wr(HvMsr.STIMER0_COUNT, 1000);
    p.post(1);
    deliver(p);
    p.post(2);
    p.door.signal(0, 2, 7);
    p.runTo(150_000);
    p.door.setConnection(9, true);
    p.call({ code: 0x5d, fast: true, input: Uint8Array.of(9, 0, 1, 0, 0, 0, 0, 0) });

    const q = new ScriptedProcessor({ nowNs: p.nowNs });
    new Uint8Array(q.buffer).set(new Uint8Array(p.buffer));
    q.deadlines.restore(p.deadlines.save());
    q.hypervisor.synic.refresh();
    for (let index = 0x40000000; index < 0x40000200; index++) assert.equal(q.rd(index), p.rd(index), hex(index));
    for (const r of [p, q]) {
      assert.equal(r.hypervisor.synic.isAutoEoi(VECTOR), true);
      r.interrupts();
      r.hypervisor.poll();
      assert.deepEqual(flags(r), [7]);
      const seen: number[] = [];
      for (let m = r.takeMessage(2); m !== undefined; m = r.takeMessage(2))
        seen.push(m.type === 1 ? m.payload[0]! : 0x99);
      assert.deepEqual(seen, [1, 2, 0x99]);
      const relids: number[] = [];
      r.door.takeSignals((relid) => relids.push(relid));
      assert.deepEqual(relids, [9]);
      r.runTo(200_001);
      assert.equal(r.takeMessage(2)?.type, 0x80000010);
      assert.equal(r.call({ code: 0x8001 }).status, 0);
    }
  });
});
const hex = (n: number): string => n.toString(16);
