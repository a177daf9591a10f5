/** A region to a WebAssembly function: (entry, budget) -> RegionStatus. */
import { ExitSlot, RegionPages, RegionStatus, Vp } from "../layout.js";
import { ByteWriter, FunctionBuilder } from "../wasm/assembler.js";
import { type Local, Scratch } from "../wasm/emitting-sem.js";
import { type AccessGroup, type BlockPlan, planBlocks } from "./block-plan.js";
import { type BasicBlock, PAGE, pageOf, type Region } from "./region.js";
import { type CalledName, KEPT_ALIGNMENT, KEPT_REFERENCE, type RegionFunctionCode } from "./region-code.js";
import {
  type FlagState,
  findFlags,
  loadFloat,
  loadRegisters,
  loadVectors,
  type RegionFunction,
  RegionLocals,
  type RegionWay,
  storeChanges,
  storeFlags,
  storeRegisters,
  storeVectors,
  UNKNOWN_FLAGS,
} from "./region-function.js";
import { RegionSem } from "./region-sem.js";
import { emitStructured } from "./structure.js";

const ENTRY = 0;
const BUDGET = 1;
/** Up to so many targets an indirect jump is compared with, beyond it looks into a table. */
const MAX_COMPARED = 4;
/** Bytes of such a table at most; where targets are further apart so many are compared with, the others leave. */
const MAX_TABLE = 1 << 16;
const MAX_COMPARED_FAR = 8;
/** Instructions of a loop that refills the TLB itself (RegionFunction.tight). */
const TIGHT_LOOP = 100;

/**
 * Flags that nobody can see: overwritten in the same block before anything may look at them. What leaves a segment finds those that
 * there were at its beginning.
 */
function deadFlags(block: BasicBlock, plan: BlockPlan | undefined): boolean[][] {
  const dead: boolean[][] = block.instructions.map(() => []);
  const begins = new Map(plan?.segments.map((segment) => [segment.first, segment]));
  let over = false;
  for (let i = block.instructions.length - 1; i >= 0; i--) {
    const { records } = block.instructions[i]!.decoded;
    for (let k = records.length - 1; k >= 0; k--) {
      const { facts } = records[k]!.form;
      dead[i]![k] = over && facts.touchesFlags;
      if (facts.readsFlags || facts.canLeave || (plan === undefined && facts.canFault)) over = false;
      else if (facts.writesFlags) over = true;
    }
    if (begins.get(i)?.leaves === true) over = false;
  }
  return dead;
}

/** @param base of the processor's block */
export function compileRegion(region: Region, base: number, mode: RegionMode): RegionFunctionCode {
  const helpers: CalledName[] = [];
  const kept = new ByteWriter();
  const { c, leaves, pagesAt } = writeFunction(region, {
    base,
    ...mode,
    helper: (name) => {
      const known = helpers.indexOf(name);
      return (known >= 0 ? known : helpers.push(name) - 1) + KEPT_REFERENCE + 1;
    },
    keep: (bytes) => {
      const at = kept.length;
      kept.raw(bytes);
      while (kept.length % KEPT_ALIGNMENT !== 0) kept.u8(0);
      return at;
    },
  });
  const body = c.f.finish().slice();
  const shift = c.f.declarationBytes;
  return {
    body,
    hints: c.f.hints.map((hint) => ({ ...hint, at: hint.at + shift })),
    references: c.f.references.map((reference) => ({ ...reference, at: reference.at + shift })),
    helpers,
    kept: kept.take().slice(),
    pagesAt,
    leaves,
  };
}
export interface RegionMode {
  /** It runs at CPL 3. */
  readonly user: boolean;
  /** See RegionFunction. */
  readonly oddFloat: boolean;
  readonly way: RegionWay;
}

interface FunctionOptions extends Pick<RegionFunction, "base" | "helper" | "keep">, RegionMode {}
interface WrittenFunction {
  readonly c: RegionFunction;
  readonly leaves: number;
  readonly pagesAt: number;
}
function writeFunction(region: Region, o: FunctionOptions): WrittenFunction {
  const { base, helper, user, oddFloat, way, keep } = o;
  const careful = way === "careful";
  const tight = way === "usual" && isTightLoop(region);
  const f = new FunctionBuilder(["i32", "i32"], ["i32"]);
  const scratchF = new Scratch(f);
  const locals = new RegionLocals(f);
  const rip = f.local("i64");
  const status = f.local("i32");
  const c: RegionFunction = {
    f,
    scratch: scratchF,
    base,
    helper,
    tlb: base + (user ? Vp.tlbUser : Vp.tlbSupervisor),
    locals,
    ripPage: f.local("i64"),
    tempAddress: f.local("i64"),
    refusal: f.local("i32"),
    leftAt: f.local("i32"),
    leftAfter: f.local("i32"),
    leave: -1,
    leaveRegion: -1,
    tight,
    flagsAtOnce: false,
    hosts: [],
    usedHosts: 0,
    flags: UNKNOWN_FLAGS,
    findsFlags: false,
    usedRegisters: new Set(),
    writtenRegisters: new Set(),
    usedVectors: new Set(),
    writtenVectors: new Set(),
    float: f.local("i32"),
    usesFloat: false,
    oddFloat,
    careful,
    budget: BUDGET,
    deaths: f.local("i32"),
    usesDeaths: false,
    procedureLeft: -1,
    status,
    storeAll: (to) => storeRegisters(to, c, c.writtenRegisters),
    storeAllVectors: (to) => storeVectors(to, c, c.writtenVectors),
    loadAll: (to) => loadRegisters(to, c, c.usedRegisters),
    loadAllVectors: (to) => loadVectors(to, c, c.usedVectors),
    keep,
  };
  const { blocks, byOffset } = region;
  const successorsOf = (b: BasicBlock, place: number): number[] => {
    const list: number[] = [];
    const add = (offset: number): void => {
      const to = byOffset.get(offset);
      if (to !== undefined && !list.includes(to)) list.push(to);
    };
    if (b.fallsThrough) add(b.end);
    if (b.target !== undefined) add(b.target);
    for (const to of region.dynamic.get(place) ?? []) if (!list.includes(to)) list.push(to);
    return list;
  };
  const successors = blocks.map(successorsOf);
  const predecessors: number[][] = blocks.map(() => []);
  successors.forEach((list, from) => {
    for (const to of list) predecessors[to]!.push(from);
  });
  const isEntry = new Set(region.entries);
  /** What is known of the flags behind each block written so far. */
  const flagsAfter: (FlagState | undefined)[] = [];
  const flagsBefore = (node: number): FlagState => {
    if (isEntry.has(node)) return UNKNOWN_FLAGS;
    let known: FlagState | undefined;
    for (const p of predecessors[node]!) {
      const after = flagsAfter[p];
      if (after === undefined) return UNKNOWN_FLAGS;
      if (known === undefined) known = after;
      else if (known.kind !== after.kind || known.narrow !== after.narrow)
        known = { ...UNKNOWN_FLAGS, held: known.held && after.held };
      else if (!after.held) known = after;
    }
    return known ?? UNKNOWN_FLAGS;
  };

  /** The block that alone leads to a block. */
  const onlyBefore = (node: number): number | undefined => {
    const [from, ...more] = predecessors[node]!;
    return isEntry.has(node) || more.length > 0 || from === node ? undefined : from;
  };
  const plans = tight ? undefined : planBlocks(blocks, onlyBefore, { oddFloat, careful });
  /** Locals for addresses that are in use behind each block. */
  const hostsAfter: number[] = [];

  c.procedureLeft = f.block();
  const out = f.block();
  c.leaveRegion = f.block();
  /** Offset of the ExitSlot of the way out that is taken, among the bytes that are kept. */
  const slot = f.local("i32");
  const newSlot = (): number => keep(new Uint8Array(ExitSlot.bytes).fill(0xff));
  /** By target, those of direct ways out. */
  const slots = new Map<number, number>();
  const takeSlot = (offset: number): void => {
    f.i32(offset);
    f.set(slot);
  };
  /** Leaves for an address relative to the region's page. */
  const leaveTo = (offset: number): void => {
    f.get(c.ripPage);
    f.i64(offset);
    f.op("i64_add");
    f.set(rip);
    let at = slots.get(offset);
    if (at === undefined) {
      at = newSlot();
      slots.set(offset, at);
    }
    takeSlot(at);
    f.br(out);
  };
  const spend = (count: number): void => {
    if (count === 0) return;
    f.get(BUDGET);
    f.i32(count);
    f.op("i32_sub");
    f.set(BUDGET);
  };
  /** To the successor that `rip` is, by a table of the bytes of the pages that they are in. */
  const dispatchByTable = (known: readonly number[], leadTo: (to: number) => void): void => {
    const offsets = known.map((to) => blocks[to]!.offset);
    const first = pageOf(Math.min(...offsets));
    const table = new Uint8Array(pageOf(Math.max(...offsets)) + PAGE - first);
    offsets.forEach((offset, i) => {
      table[offset - first] = i + 1;
    });
    const at = keep(table);
    const miss = f.block();
    const labels = known.map(() => f.block()).reverse();
    const distance = f.local("i64");
    f.get(rip);
    f.get(c.ripPage);
    f.op("i64_sub");
    f.i64(first);
    f.op("i64_sub");
    f.tee(distance);
    f.i64(table.length);
    f.op("i64_ge_u");
    f.brIf(miss);
    f.get(distance);
    f.op("i32_wrap_i64");
    f.globalReference(KEPT_REFERENCE);
    f.op("i32_add");
    f.mem("i32_load8_u", at);
    f.brTable([miss, ...labels], miss);
    known.forEach((to) => {
      f.end();
      leadTo(to);
    });
    f.end();
    takeSlot(newSlot());
    f.br(out);
  };
  emitStructured(f, { successors, entries: region.entries }, ENTRY, {
    emit(node, leadTo) {
      const block = blocks[node]!;
      const plan = plans?.[node];
      const dead = deadFlags(block, plan);
      const goTo = (offset: number): void => {
        const to = byOffset.get(offset);
        if (to === undefined) leaveTo(offset);
        else leadTo(to);
      };
      c.flags = flagsBefore(node);
      c.usedHosts = hostsAfter[onlyBefore(node) ?? -1] ?? 0;
      let ending: RegionSem["ending"];
      const instruction = (i: number, first?: readonly AccessGroup[]): void => {
        const { offset, decoded } = block.instructions[i]!;
        const last = i === block.instructions.length - 1;
        decoded.records.forEach((record, k) => {
          const sem = new RegionSem(c, record, pageOf(offset), i, dead[i]![k]!, last, plan?.accesses[i]?.[k]);
          if (first !== undefined && k === 0) sem.lookUpFirst(first);
          record.form.define(sem);
          ({ ending } = sem);
        });
        scratchF.reset();
      };
      if (plan === undefined) writeAlone(c, block.instructions.length, instruction);
      else writeSegments(c, block, plan, instruction);
      spend(block.instructions.length);
      flagsAfter[node] = c.flags;
      hostsAfter[node] = c.usedHosts;
      if (ending === undefined) {
        if (block.fallsThrough) goTo(block.end);
        else leaveTo(block.end);
      } else if (ending.how === "jump") goTo(block.target!);
      else if (ending.how === "branch") {
        f.get(ending.condition.local);
        f.if();
        goTo(block.target!);
        f.end();
        goTo(block.end);
      } else {
        const target: Local = ending.target;
        f.get(target.local);
        f.set(rip);
        const known = successors[node]!;
        const offsets = known.map((to) => blocks[to]!.offset);
        if (known.length > MAX_COMPARED && Math.max(...offsets) - Math.min(...offsets) < MAX_TABLE) {
          dispatchByTable(known, leadTo);
          return;
        }
        for (const to of known.slice(0, MAX_COMPARED_FAR)) {
          f.get(rip);
          f.get(c.ripPage);
          f.i64(blocks[to]!.offset);
          f.op("i64_add");
          f.op("i64_eq");
          f.if();
          leadTo(to);
          f.end();
        }
        takeSlot(newSlot());
        f.br(out);
      }
    },
    backEdge(to) {
      f.get(BUDGET);
      f.i32(0);
      f.op("i32_lt_s");
      f.unlikely();
      f.if();
      leaveTo(blocks[to]!.offset);
      f.end();
    },
  });
  f.end(); // leaveRegion
  const leaves = keep(new Uint8Array(4));
  f.globalReference(KEPT_REFERENCE);
  f.globalReference(KEPT_REFERENCE);
  f.mem("i32_load", leaves, 2);
  f.i32(1);
  f.op("i32_add");
  f.mem("i32_store", leaves, 2);
  f.get(c.ripPage);
  f.get(c.leftAt);
  f.op("i64_extend_i32_s");
  f.op("i64_add");
  f.set(rip);
  f.get(BUDGET);
  f.get(c.leftAfter);
  f.op("i32_sub");
  f.set(BUDGET);
  f.i32(RegionStatus.fault);
  f.get(c.refusal);
  f.op("i32_add");
  f.set(status);
  takeSlot(newSlot());
  f.end(); // out
  if (c.tight) {
    storeRegisters(f, c, c.writtenRegisters);
    storeVectors(f, c, c.writtenVectors);
    storeFlags(f, c);
  }
  f.i32(0);
  f.get(rip);
  f.mem("i64_store", base + Vp.rip, 3);
  f.i32(0);
  f.get(BUDGET);
  f.mem("i32_store", base + Vp.budget, 2);
  f.get(status);
  f.get(BUDGET);
  f.i32(31);
  f.op("i32_shr_u");
  f.op("i32_or");
  f.unlikely();
  f.if();
  f.get(status);
  f.op("return");
  f.end();
  f.get(rip);
  f.get(BUDGET);
  f.globalReference(KEPT_REFERENCE);
  f.get(slot);
  f.op("i32_add");
  f.returnCallReference(c.helper("chain"));
  f.end(); // procedureLeft
  f.i32(0);
  f.get(BUDGET);
  f.mem("i32_store", base + Vp.budget, 2);
  if (hasProcedures(region)) {
    // SYSCALL, SYSRET, IRET and the like: as the loop would go on, without going there
    f.get(status);
    f.i32(RegionStatus.attend);
    f.op("i32_eq");
    f.i32(0);
    f.mem("i32_load", base + Vp.pending, 2);
    f.op("i32_eqz");
    f.op("i32_and");
    f.get(BUDGET);
    f.i32(0);
    f.op("i32_ge_s");
    f.op("i32_and");
    f.if();
    f.i32(0);
    f.mem("i64_load", base + Vp.rip, 3);
    f.get(BUDGET);
    const at = newSlot();
    f.globalReference(KEPT_REFERENCE);
    f.i32(at);
    f.op("i32_add");
    f.returnCallReference(c.helper("chain"));
    f.end();
  }
  f.get(status);

  f.fillGaps();
  const p = new FunctionBuilder(f.params, f.results);
  const pagesAt = writeBeginning(p, region, c, ENTRY);
  f.prepend(p);
  return { c, leaves, pagesAt };
}

/** Instructions of a block that leave each for itself: in a tight loop nothing but its own registers are to be kept. */
function writeAlone(c: RegionFunction, count: number, instruction: (i: number) => void): void {
  const { f } = c;
  c.locals.direct = true;
  // what leaves in the middle is first brought together for the block: the compiler merges all locals where jumps meet
  const done = f.block();
  c.leave = f.block();
  for (let i = 0; i < count; i++) instruction(i);
  f.br(done);
  f.end();
  f.br(c.leaveRegion);
  f.end();
}
/** Those of a block by segments: what leaves goes back to the segment's first instruction. */
function writeSegments(
  c: RegionFunction,
  { instructions }: BasicBlock,
  { segments, settled, groups, first: atFirst }: BlockPlan,
  instruction: (i: number, first?: readonly AccessGroup[]) => void,
): void {
  const { f, locals } = c;
  // a block that a jump leads to in both its ways is written twice
  for (const group of groups) group.host = -1;
  segments.forEach(({ first, leaves, direct }, n) => {
    const end = segments[n + 1]?.first ?? instructions.length;
    if (leaves || direct) storeChanges(f, c);
    const done = leaves ? f.block() : -1;
    c.leave = leaves ? f.block() : -1;
    c.flagsAtOnce = direct;
    for (let i = first; i < end; i++) {
      locals.direct = direct || settled[i]!;
      instruction(i, i === 0 ? atFirst : undefined);
    }
    if (leaves) {
      f.br(done);
      f.end();
      f.i32(instructions[first]!.offset);
      f.set(c.leftAt);
      f.i32(first);
      f.set(c.leftAfter);
      f.i32(1);
      f.set(c.refusal);
      f.br(c.leaveRegion);
      f.end();
    }
    locals.settle(c.flags.narrow);
    locals.direct = true;
  });
  storeChanges(f, c);
  c.flagsAtOnce = false;
}
const hasProcedures = ({ blocks }: Region): boolean =>
  blocks.some(({ instructions }) => instructions.some(({ decoded }) => decoded.records.at(-1)!.raw !== undefined));
/** Few instructions, and a way back among them. */
function isTightLoop({ blocks }: Region): boolean {
  const size = blocks.reduce((n, { instructions }) => n + instructions.length, 0);
  return size <= TIGHT_LOOP && blocks.some(({ offset, target }) => target !== undefined && target <= offset);
}
/** What comes first: are the pages right? Then registers and flags become locals. @returns where RegionPages is among the kept bytes */
function writeBeginning(p: FunctionBuilder, region: Region, c: RegionFunction, entry: number): number {
  const { base } = c;
  let pagesAt = -1;
  p.i32(0);
  p.mem("i64_load", base + Vp.ripPage, 3);
  const distances = Int32Array.from(region.entries, (block) => pageOf(region.blocks[block]!.offset));
  if (distances.some((distance) => distance !== 0)) {
    const table = c.keep(new Uint8Array(distances.buffer));
    p.globalReference(KEPT_REFERENCE);
    p.get(entry);
    p.i32(2);
    p.op("i32_shl");
    p.op("i32_add");
    p.mem("i32_load", table, 2);
    p.op("i64_extend_i32_s");
    p.op("i64_sub");
  }
  p.set(c.ripPage);
  if (region.pages.size > 1) {
    const pages = c.keep(pagesOf(region));
    pagesAt = pages;
    p.i32(0);
    p.mem("i32_load", base + Vp.jumpTag, 2);
    p.globalReference(KEPT_REFERENCE);
    p.mem("i32_load", pages + RegionPages.tag, 2);
    p.op("i32_ne");
    p.globalReference(KEPT_REFERENCE);
    p.mem("i64_load", pages + RegionPages.base, 3);
    p.get(c.ripPage);
    p.op("i64_ne");
    p.op("i32_or");
    p.unlikely();
    p.if();
    p.get(c.ripPage);
    p.globalReference(KEPT_REFERENCE);
    p.i32(pages);
    p.op("i32_add");
    p.callReference(c.helper("regionPages"));
    p.op("i32_eqz");
    p.if();
    p.i32(0);
    p.get(BUDGET);
    p.mem("i32_store", base + Vp.budget, 2);
    p.i32(RegionStatus.single);
    p.op("return");
    p.end();
    p.end();
  }
  loadRegisters(p, c, c.usedRegisters);
  loadVectors(p, c, c.usedVectors);
  findFlags(p, c);
  if (c.usesFloat) loadFloat(p, c);
  if (c.usesDeaths) {
    p.i32(0);
    p.mem("i32_load", base + Vp.regionDeaths, 2);
    p.set(c.deaths);
  }
  return pagesAt;
}
/** RegionPages of a region, without the pages' places. */
function pagesOf({ pages }: Region): Uint8Array {
  const bytes = new Uint8Array(RegionPages.pages + pages.size * 8);
  const view = new DataView(bytes.buffer);
  view.setUint32(RegionPages.count, pages.size, true);
  // no page begins there: they have not been looked at
  view.setBigInt64(RegionPages.base, -1n, true);
  [...pages.keys()].forEach((distance, i) => {
    view.setInt32(RegionPages.pages + i * 8, distance, true);
  });
  return bytes;
}
