/**
 * Hostile guests at the hypervisor's door: registers and hypercalls of any kind. A case is one access or one call, with all that the
 * host does about it.
 */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Chance, fuzz, fuzzSettings } from "./chance.js";
import { HvMsr, PartitionArea, ScriptedProcessor } from "./scripted-processor.js";
import { POSTED_SLOTS, PostedArea, QUEUE_SLOTS, queueUsed, SynicArea } from "./shared-areas.js";

const PAGE = 4096;
/** The guest lends pages of the lower half only. */
const PAGES = 64;
const LENT = 32;
const STATUSES = new Set([0, 2, 3, 4, 5, 0x12, 0x13]);
const CODES = [2, 3, 8, 0xb, 0x13, 0x14, 0x15, 0x5c, 0x5d, 0x8001];
const PAGE_REGISTERS = [HvMsr.HYPERCALL, HvMsr.REFERENCE_TSC, HvMsr.SIEFP, HvMsr.SIMP, HvMsr.VP_ASSIST_PAGE];
const REGISTERS: readonly number[] = [
  ...Object.values(HvMsr),
  ...Array.from({ length: 16 }, (_, i) => HvMsr.SINT0 + i),
  ...Array.from({ length: 8 }, (_, i) => HvMsr.STIMER0_CONFIG + i),
  ...Array.from({ length: 5 }, (_, i) => HvMsr.CRASH_P0 + i),
];

class Target {
  readonly p = new ScriptedProcessor({ ramBytes: PAGES * PAGE, processors: 70 });
  readonly chance: Chance;
  readonly statuses = new Set<number>();

  constructor(chance: Chance) {
    this.chance = chance;
    this.p.memory.ram.fill(0xc3, LENT * PAGE);
    this.p.enableHypercalls();
    this.p.enableSynic();
    for (const relid of [1, 5, 2047]) this.p.door.setConnection(relid, true);
  }
  #lentPage(): number {
    return this.chance.below(LENT) * PAGE;
  }
  /** An address: in a lent page, at its end, or in no RAM. */
  #address(): number {
    const { chance } = this;
    if (chance.rarely(8)) return PAGES * PAGE + chance.odd();
    if (chance.rarely(16)) return chance.word() * 2 ** 21 + PAGES * PAGE;
    return this.#lentPage() + chance.oneOf([0, 0, 8, 0xf00, 0xff8, 0xfff, 4, 1]);
  }
  write(): void {
    const { chance, p } = this;
    let index = chance.rarely(10) ? 0x40000000 + chance.below(0x200) : chance.oneOf(REGISTERS);
    let value = (BigInt(chance.odd()) << 32n) | BigInt(chance.odd());
    if (chance.rarely(2)) value = BigInt(chance.odd());
    if (chance.rarely(4)) index = chance.oneOf(PAGE_REGISTERS);
    if (PAGE_REGISTERS.includes(index as never)) {
      value = BigInt(this.#lentPage() | chance.below(4));
      if (chance.rarely(10)) value = (BigInt(chance.word()) << 32n) | BigInt(PAGES * PAGE + 1);
      // a lock is for the whole round
      if (index === HvMsr.HYPERCALL && !chance.rarely(5000)) value &= ~2n;
    }
    if (index === HvMsr.CRASH_P0 + 3) value = BigInt(this.#address());
    if (index >= HvMsr.STIMER0_CONFIG && index < HvMsr.STIMER0_CONFIG + 8 && chance.rarely(2))
      value = BigInt((index & 1) === 0 ? chance.below(0x100000) : Math.floor(p.nowNs / 100) + chance.below(100));
    const before = p.rd(index);
    const ok = p.wr(index, value);
    if (!ok) assert.equal(p.rd(index), before, "a fault changes nothing");
  }
  call(): void {
    const { chance, p } = this;
    const code = chance.rarely(20) ? chance.below(0x10000) : chance.oneOf(CODES);
    const isRep = code === 3 || code === 0x14;
    const input = new Uint8Array(code === 0x5c ? 256 : chance.oneOf([8, 24, 64, 256]));
    const view = new DataView(input.buffer);
    for (let at = 0; at < Math.min(input.length, 64); at += 4) view.setUint32(at, chance.odd(), true);
    if (code === 0x5c && !chance.rarely(4)) {
      view.setUint32(0, chance.oneOf([1, 4, 4, 2]), true);
      view.setUint32(8, chance.rarely(8) ? chance.odd() : 1, true);
      view.setUint32(12, chance.rarely(8) ? chance.odd() : chance.below(241), true);
    }
    if (code === 0x5d && !chance.rarely(4)) {
      view.setUint32(0, 0x10000 + chance.oneOf([1, 5, 2047, 6]), true);
      view.setUint16(4, chance.rarely(8) ? 1 : 0, true);
    }
    if (code >= 0x13 && code <= 0x15 && input.length > 16 && !chance.rarely(3))
      view.setUint32(code === 0x15 ? 8 : 16, chance.below(3), true);
    const inputGpa = this.#address();
    if (inputGpa + input.length <= LENT * PAGE) p.memory.ram.set(input, inputGpa);
    let bits = 0n;
    if (chance.rarely(12)) bits = 1n << BigInt(chance.below(64));
    const result = p.call({
      code,
      fast: chance.rarely(code === 0x5c ? 10 : 2),
      variable: chance.rarely(3) ? chance.below(6) : 0,
      reps: isRep !== chance.rarely(10) ? 1 + chance.below(chance.oneOf([4, 520, 4095])) : 0,
      start: chance.rarely(8) ? chance.below(4) : 0,
      bits,
      inputGpa,
      outputGpa: this.#address(),
      ...(chance.rarely(2) ? { input, inputGpa: 0x8000 } : {}),
    });
    assert.ok(STATUSES.has(result.status), `status ${result.status}`);
    if (result.status !== 0) assert.equal(result.reps, 0);
    this.statuses.add(result.status);
  }
  /** What the host does meanwhile. */
  host(): void {
    const { chance, p } = this;
    switch (chance.below(6)) {
      case 0:
        p.post(1, chance.below(16));
        break;
      case 1:
        p.door.signal(0, 2, chance.below(2048));
        break;
      case 2:
        p.hypervisor.poll();
        break;
      case 3:
        p.nowNs += chance.below(20_000);
        p.deadlines.runDue(p.nowNs);
        break;
      case 4:
        if (chance.rarely(200))
          p.door.takeMessages(
            () => !chance.rarely(100),
            (_, length) => assert.ok(length <= 240),
          );
        break;
      default:
        p.door.takeSignals((relid) => assert.ok([1, 5, 2047].includes(relid)));
    }
  }
  check(): void {
    const { p } = this;
    const { synic, posted } = p.areas;
    assert.ok(
      queueUsed(synic[SynicArea.queueHead >> 2]!, synic[SynicArea.queueTail >> 2]!, QUEUE_SLOTS) <= QUEUE_SLOTS,
    );
    assert.ok(queueUsed(posted[PostedArea.head >> 2]!, posted[PostedArea.tail >> 2]!, POSTED_SLOTS) <= POSTED_SLOTS);
    // four timers, each with a deadline at most
    assert.ok(p.deadlines.save().armed.length <= 4);
    for (const crash of p.crashes.splice(0)) assert.ok(crash.text.length <= 4096 && crash.parameters.length === 5);
    p.raised.length = p.flushes.length = p.ipis.length = p.hostWrites.length = 0;
  }
  finish(): void {
    const { p } = this;
    p.checkCanaries();
    for (let i = LENT * PAGE; i < PAGES * PAGE; i++)
      if (p.memory.ram[i] !== 0xc3) assert.fail(`written at ${i.toString(16)}, in a page that was not lent`);
    const { partition } = p.areas;
    assert.equal(partition[PartitionArea.writesAsked >> 2], 0);
  }
}

describe("a hostile guest", () => {
  it("gets no more than faults and statuses: 300,000 accesses and calls", () => {
    const statuses = new Set<number>();
    fuzz(fuzzSettings(process.env), 300_000, 10_000, (chance, cases) => {
      const target = new Target(chance);
      const out = new Uint32Array(2);
      for (let i = 0; i < cases; i++) {
        if (chance.rarely(2)) target.call();
        else if (chance.rarely(4)) target.p.hypervisor.read(0x40000000 + chance.below(0x210), out);
        else target.write();
        if (chance.rarely(3)) target.host();
        if (chance.rarely(10)) target.p.enableHypercalls();
        if (i % 50 === 0) target.check();
      }
      target.finish();
      for (const s of target.statuses) statuses.add(s);
    });
    assert.deepEqual([...statuses].sort(), [...STATUSES].sort(), "every status was seen");
  });
});
