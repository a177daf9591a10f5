/** Two bare machines for a random program, one with regions and one that interprets, and what they do about its faults. */
import assert from "node:assert/strict";
import { Exit, Head, SegAttr, SegIndex, Vp } from "../../src/cpu/layout.js";
import type { RegionStore } from "../../src/cpu/region/batch-compiler.js";
import { LockstepPair } from "../../src/cpu/region/lockstep.js";
import type { RegionWay } from "../../src/cpu/region/region-function.js";
import { FLAT_CODE64, FLAT_DATA, type RegionTier, type VirtualProcessor } from "../../src/cpu/vp/virtual-processor.js";
import { stressAsked } from "../bare/bare-machine.js";
import { value } from "../reference/integer-encoding.js";
import { EngineRunner, WINDOW, WINDOW_BYTES } from "../reference/native-runner.js";
import { fill, type Random } from "../reference/values.js";
import { mxcsrFor } from "../reference/vector-encoding.js";
import { ALIASES, COUNTERS, formatProgram, type Program, type ProgramInstruction, START } from "./random-program.js";

const GDT = 0x4000;
const HANDLERS = 0x7000;
const TABLES = 0x10000;
/** Page directory and table of the aliases. */
const DIRECTORY = 0x12000;
const ALIAS_TABLE = 0x13000;
const STACK_PAGE = 0x8000;
const WINDOW_FRAME = WINDOW & ~0xfff;
/** Behind each pair's first page. */
const SECOND_FRAME = 0x302000;
const STACK_FRAME = 0x303000;
export const FRAMES = { frame: WINDOW_FRAME, secondFrame: SECOND_FRAME } as const;
/** Compared after each stop. */
const COMPARED = [
  [STACK_PAGE, 0x9000],
  [ALIAS_TABLE, ALIAS_TABLE + 0x1000],
  [WINDOW_FRAME, STACK_FRAME + 0x1000],
  [COUNTERS, COUNTERS + 0x1000],
] as const;
/** With an error code. */
const ERRORS = new Set([8, 10, 11, 12, 13, 14, 17]);
const US = 4;
const ACCESSED = 0x20;
const DIRTY = 0x40;

/** What is done to a page table entry. */
export type Damage = "absent" | "read-only" | "supervisor";
/** A fault that the program's handler saw. */
export interface Stop {
  readonly vector: number;
  /** Offset in the program. */
  readonly offset: number;
}

class Machine {
  readonly vp: VirtualProcessor;
  readonly ram: DataView;
  constructor(regions: boolean | RegionTier) {
    const { vp } = new EngineRunner(false, regions).machine;
    this.vp = vp;
    this.ram = new DataView(vp.ram.buffer, vp.ram.byteOffset, vp.ram.byteLength);
    this.ram.setUint32(GDT + 0x20, 0xffff, true);
    this.ram.setUint32(GDT + 0x24, 0x00affb00, true);
    this.ram.setUint32(GDT + 0x28, 0xffff, true);
    this.ram.setUint32(GDT + 0x2c, 0x00cff300, true);
    vp.setRegister(Vp.gdtrLimit, 0x2f);
    // hlt; add rsp, 8; iretq
    for (let n = 0; n < 32; n++)
      vp.ram.set([0xf4, ...(ERRORS.has(n) ? [0x48, 0x83, 0xc4, 8] : []), 0x48, 0xcf], HANDLERS + n * 16);
    // a program that goes astray must not reach what it runs on
    for (let page = 0; page < 1024; page++) this.entry(TABLES + page * 8, page < 0x14 ? (page << 12) | 0x61 : 0);
    this.entry(TABLES + (STACK_PAGE >> 12) * 8, STACK_PAGE | 0x63);
    for (const page of [WINDOW_FRAME, COUNTERS]) this.entry(TABLES + (page >> 12) * 8, page | 0x67);
    for (const page of [START, START + 0x1000]) this.entry(TABLES + (page >> 12) * 8, page | 0x65);
    this.entry(0x2008, DIRECTORY | 0x67);
    this.entry(DIRECTORY, ALIAS_TABLE | 0x67);
    this.entry(DIRECTORY + 64, ALIAS_TABLE | 0x67);
  }
  entry(at: number, value: number): void {
    this.ram.setUint32(at, value, true);
    this.ram.setUint32(at + 4, 0, true);
  }
  clear(at: number, bits: number): void {
    this.ram.setUint32(at, this.ram.getUint32(at, true) & ~bits, true);
  }
  map(program: Program): void {
    for (let pair = 0; pair < 255; pair++) {
      const used = pair < program.pairs;
      this.entry(ALIAS_TABLE + pair * 16, used ? WINDOW_FRAME | 0x67 : 0);
      const second = pair === 0 ? STACK_FRAME : program.without.has(pair) || !used ? 0 : SECOND_FRAME;
      this.entry(ALIAS_TABLE + pair * 16 + 8, second === 0 ? 0 : second | 0x67);
    }
    this.entry(ALIAS_TABLE + 511 * 8, ALIAS_TABLE | 0x67);
  }
}

/** Programs are small, mostly a tight loop: those are written in their own way. */
export const WAYS = ["usual", "segments", "careful"] as const;
/** Pairs of machines for programs by number, one for each way; a new one after so many programs: its processor compiles only so much. */
export class ProgramPairs {
  readonly #programs: number;
  readonly #pairs: { pair: ProgramPair; used: number }[] = [];
  readonly #done: (pair: ProgramPair) => void;
  readonly #store: RegionStore | undefined;
  constructor(programs: number, done: (pair: ProgramPair) => void = () => {}, store?: RegionStore) {
    this.#programs = programs;
    this.#done = done;
    this.#store = store;
  }
  /** A new one for this program. */
  make(n: number): ProgramPair {
    return new ProgramPair(WAYS[n % WAYS.length], stressAsked, this.#store);
  }
  of(n: number): ProgramPair {
    const place = n % WAYS.length;
    const known = this.#pairs[place];
    if (known !== undefined && known.used++ < this.#programs) return known.pair;
    if (known !== undefined) this.#done(known.pair);
    const pair = this.make(n);
    this.#pairs[place] = { pair, used: 1 };
    return pair;
  }
  end(): void {
    for (const place of this.#pairs) if (place !== undefined) this.#done(place.pair);
  }
}

export class ProgramPair {
  readonly #interpreted = new Machine(false);
  readonly #compiled: Machine;
  readonly #pair: LockstepPair;
  #program!: Program;
  #startState!: (m: Machine) => void;
  /** The TLB is emptied behind the program's back: one that unmaps pages itself would see it. */
  readonly flushes: boolean;
  constructor(way?: RegionWay, stress = stressAsked, store?: RegionStore) {
    this.flushes = (stress?.flushEvery ?? 0) > 0;
    this.#compiled = new Machine({
      ...(way === undefined ? {} : { way }),
      ...(stress === undefined ? {} : { stress }),
      ...(store === undefined ? {} : { store }),
    });
    this.#pair = new LockstepPair({ interpreted: this.#interpreted.vp, compiled: this.#compiled.vp });
  }
  get regions(): NonNullable<VirtualProcessor["regions"]> {
    return this.#compiled.vp.regions!;
  }
  #both(what: (m: Machine) => void): void {
    what(this.#interpreted);
    what(this.#compiled);
  }
  /**
   * @param user at CPL 3
   * @param warm the program has run before in the interpreter, so that all its blocks are known
   */
  load(program: Program, random: Random, rounds: number, user: boolean, warm: boolean): void {
    this.#program = program;
    const gpr = Array.from({ length: 16 }, () => BigInt.asUintN(64, value(random)));
    const vectors = new DataView(new ArrayBuffer(256 + WINDOW_BYTES));
    for (let i = 0; i < 256 + WINDOW_BYTES; i += 16) fill(random, "any", vectors, i);
    const flags = 2 | (random.u32() & 0x8d5);
    const mxcsr = random.below(4) === 0 ? mxcsrFor(random, random.below(8)) : random.pick([0x1f80, 0x1fa0]);
    this.#startState = (m) => {
      const { vp } = m;
      m.map(program);
      vp.ram.fill(0, WINDOW_FRAME, STACK_FRAME + 0x1000);
      vp.ram.fill(0, COUNTERS, COUNTERS + 0x1000);
      vp.ram.fill(0, STACK_PAGE, STACK_PAGE + 0x1000);
      m.ram.setUint32(COUNTERS, rounds, true);
      vp.ram.set(new Uint8Array(vectors.buffer, 256), WINDOW);
      vp.bytes.set(new Uint8Array(vectors.buffer, 0, 256), vp.base + Vp.xmm);
      gpr.forEach((start, i) => {
        vp.setRegister64(Vp.gpr + i * 8, i === 4 ? BigInt(WINDOW + 128) : start);
      });
      vp.view.setUint32(vp.base + Vp.mxcsr, mxcsr, true);
      vp.setRegister(Vp.cr2, 0);
      const dpl = user ? 3 : 0;
      vp.setSegment(
        SegIndex.cs,
        user ? { ...FLAT_CODE64, selector: 0x23, attributes: 0xfb | SegAttr.long | SegAttr.granular } : FLAT_CODE64,
      );
      for (const s of [SegIndex.es, SegIndex.ss, SegIndex.ds, SegIndex.fs, SegIndex.gs])
        vp.setSegment(s, user ? { ...FLAT_DATA, selector: 0x2b, attributes: FLAT_DATA.attributes | 0x60 } : FLAT_DATA);
      vp.runtime.setRflags(flags);
      vp.runtime.setCpl(dpl);
      vp.runtime.updateMode();
      vp.runtime.resetTlb();
      vp.setRegister(Vp.rip, START);
      vp.retired = 0;
    };
    this.#both(({ vp }) => {
      vp.ram.fill(0xcc, START, START + 0x2000);
      vp.ram.set(program.code, START);
      vp.runtime.ramWritten(START, 0x2000);
    });
    const { vp } = this.#compiled;
    if (warm) {
      this.#startState(this.#compiled);
      for (let i = 0; i < 100; i++) {
        const reason = vp.run(200);
        if (reason === Exit.halt && this.#stop(this.#compiled) === undefined) break;
        if (reason === Exit.halt) this.#resume(this.#compiled, true);
      }
    }
    this.#startState(this.#compiled);
    for (const offset of program.entries) vp.regions!.force(BigInt(START + offset));
    this.#both(this.#startState);
    this.#pair.difference = undefined;
  }
  /** Where the program was, if a fault's handler has halted. */
  #stop({ vp, ram }: Machine): Stop | undefined {
    const rip = Number(vp.rip);
    if (rip < HANDLERS || rip >= HANDLERS + 0x200) return undefined;
    const vector = (rip - HANDLERS) >> 4;
    const frame = Number(vp.register64(Vp.gpr + 32)) + (ERRORS.has(vector) ? 8 : 0);
    return { vector, offset: Number(ram.getBigUint64(frame, true)) - START };
  }
  /** Lets the handler return. @param skip to the instruction behind. @returns false where the program has gone astray or is over */
  #resume(m: Machine, skip: boolean): boolean {
    const stop = this.#stop(m)!;
    const at = this.#program.instructions.find(({ offset }) => offset === stop.offset);
    if (at === undefined || at.offset === this.#program.end) return false;
    const frame = Number(m.vp.register64(Vp.gpr + 32)) + (ERRORS.has(stop.vector) ? 8 : 0);
    if (skip) m.ram.setUint32(frame, START + at.offset + at.length, true);
    return true;
  }
  /** The pages as they were in the beginning. */
  mend(then: (m: Machine) => void = () => {}): void {
    this.#both((m) => {
      m.map(this.#program);
      then(m);
      m.vp.runtime.resetTlb();
    });
  }
  /** @param page number in the table of the aliases */
  damage(page: number, how: Damage): void {
    const frame = page === 1 ? STACK_FRAME : page % 2 === 0 ? WINDOW_FRAME : SECOND_FRAME;
    const entry = how === "absent" ? 0 : how === "read-only" ? frame | 0x65 : frame | (0x67 & ~US);
    this.#both((m) => {
      m.entry(ALIAS_TABLE + page * 8, entry);
      m.vp.runtime.resetTlb();
    });
  }
  /** Number of the page that the last page fault was in, in the table of the aliases. */
  faultPage(): number {
    return ((Number(this.#compiled.vp.register64(Vp.cr2)) - ALIASES) / 4096) | 0;
  }
  /** Whether the program is at its start, before another round. */
  get atStart(): boolean {
    return this.#compiled.vp.rip === BigInt(START);
  }
  /** Whether a region begins there. */
  get gated(): boolean {
    const { runtime, view, base } = this.#compiled.vp;
    const block = runtime.findBlock(START, view.getUint32(base + Vp.mode, true));
    return block !== 0 && view.getUint32(block + Head.region, true) !== 0;
  }
  /** Forgets which pages were used, so that `used` tells it of the next round. */
  forgetUse(): void {
    this.mend((m) => {
      for (let page = 0; page < 511; page++) m.clear(ALIAS_TABLE + page * 8, ACCESSED | DIRTY);
    });
  }
  /** Numbers of the pages that were read or written. */
  used(): { readonly read: ReadonlySet<number>; readonly written: ReadonlySet<number> } {
    const withBit = (bit: number): ReadonlySet<number> =>
      new Set(
        Array.from({ length: 511 }, (_, page) => page).filter(
          (page) => (this.#compiled.ram.getUint32(ALIAS_TABLE + page * 8, true) & bit) !== 0,
        ),
      );
    return { read: withBit(ACCESSED), written: withBit(DIRTY) };
  }
  /** One slice of both. @returns the fault that stopped them, "end", or undefined: go on */
  slice(budget: number): Stop | "end" | undefined {
    const reason = this.#pair.run(budget);
    this.#compare();
    if (reason === Exit.slice || reason === Exit.event) return undefined;
    assert.equal(reason, Exit.halt, this.#report([]));
    return this.#stop(this.#compiled) ?? "end";
  }
  /** Behind a stop. @param skip go on behind the instruction that faulted. @returns false = the program is over */
  goOn(skip: boolean): boolean {
    const [a, b] = [this.#resume(this.#interpreted, skip), this.#resume(this.#compiled, skip)];
    assert.equal(a, b);
    return a;
  }
  #compare(): void {
    const { difference } = this.#pair;
    const memory: string[] = [];
    for (const [from, to] of COMPARED) {
      const [a, b] = [this.#interpreted, this.#compiled].map(({ vp }) =>
        Buffer.from(vp.ram.buffer, vp.ram.byteOffset + from, to - from),
      );
      if (a!.equals(b!)) continue;
      for (let i = 0; i < to - from && memory.length < 8; i++)
        if (a![i] !== b![i])
          memory.push(
            `memory ${(from + i).toString(16)}: interpreted ${a![i]!.toString(16)}, compiled ${b![i]!.toString(16)}`,
          );
    }
    if (difference !== undefined || memory.length > 0) assert.fail(this.#report(memory));
  }
  #report(memory: readonly string[]): string {
    const d = this.#pair.difference;
    return [
      `\n${[...(d?.lines ?? []), ...memory].join("\n")}`,
      ...(d === undefined ? [] : [`slice of ${d.compiled.retired - d.before.retired} from ${d.before.retired}`]),
      formatProgram(this.#program),
    ].join("\n");
  }
  instructionAt(offset: number): ProgramInstruction | undefined {
    return this.#program.instructions.find((i) => i.offset === offset);
  }
}
