/** A region to a WebAssembly module: one function (entry, budget) -> RegionStatus. */
import { Helper, type HelperName } from "../isa/runtime-calls.js";
import { RegionStatus, Vp } from "../layout.js";
import { FunctionBuilder, ModuleBuilder } from "../wasm/assembler.js";
import { type Local, Scratch } from "../wasm/emitting-sem.js";
import type { BasicBlock, Region } from "./region.js";
import {
  type FlagState,
  loadFloat,
  type RegionFunction,
  RegionHelper,
  type RegionHelperName,
  RegionSem,
  UNKNOWN_FLAGS,
} from "./region-sem.js";
import { emitStructured } from "./structure.js";

const ENTRY = 0;
const BUDGET = 1;
/** Up to so many targets an indirect jump is compared with, beyond it looks into a table. */
const MAX_COMPARED = 4;
/** What a region's module calls the function. */
export const REGION_EXPORT = "region";

/** Flags that nobody can see: overwritten in the same block before anything may look at them. */
function deadFlags(block: BasicBlock): boolean[][] {
  const dead: boolean[][] = block.instructions.map(() => []);
  let over = false;
  for (let i = block.instructions.length - 1; i >= 0; i--) {
    const { records } = block.instructions[i]!.decoded;
    for (let k = records.length - 1; k >= 0; k--) {
      const { facts } = records[k]!.form;
      dead[i]![k] = over && facts.touchesFlags;
      if (facts.readsFlags || facts.canFault || facts.canLeave) over = false;
      else if (facts.writesFlags) over = true;
    }
  }
  return dead;
}

/**
 * @param user whether the region runs at CPL 3
 * @param base of the processor's block
 * @param keep puts bytes into the engine's memory for as long as the region lives and gives their address
 */
export function compileRegion(
  region: Region,
  base: number,
  user: boolean,
  shared: boolean,
  keep: (bytes: Uint8Array) => number,
): Uint8Array<ArrayBuffer> {
  const module = new ModuleBuilder({ minimum: 1, maximum: 65536, shared });
  const helpers = new Map<HelperName | RegionHelperName, number>();
  for (const [name, { params, result }] of Object.entries({ ...Helper, ...RegionHelper }))
    if (!NOT_FOR_REGIONS.has(name))
      helpers.set(
        name as HelperName,
        module.importFunction({ module: "runtime", name, params, results: result === undefined ? [] : [result] }),
      );
  const f = new FunctionBuilder(["i32", "i32"], ["i32"]);
  const scratchF = new Scratch(f);
  const gpr = Array.from({ length: 16 }, () => f.local("i64"));
  const rip = f.local("i64");
  const status = f.local("i32");
  const c: RegionFunction = {
    f,
    scratch: scratchF,
    base,
    helpers,
    tlb: base + (user ? Vp.tlbUser : Vp.tlbSupervisor),
    gpr,
    ripPage: f.local("i64"),
    tempAddress: f.local("i64"),
    flagA: f.local("i64"),
    flagB: f.local("i64"),
    flagR: f.local("i64"),
    flagKind: f.local("i32"),
    narrowA: f.local("i32"),
    narrowB: f.local("i32"),
    narrowR: f.local("i32"),
    refusal: f.local("i32"),
    leftAt: f.local("i32"),
    leftAfter: f.local("i32"),
    leave: -1,
    flags: UNKNOWN_FLAGS,
    usedRegisters: new Set(),
    writtenRegisters: new Set(),
    xmm: Array.from({ length: 16 }, () => f.local("v128")),
    usedVectors: new Set(),
    writtenVectors: new Set(),
    float: f.local("i32"),
    usesFloat: false,
  };
  const { blocks, byOffset } = region;
  const successorsOf = (b: BasicBlock): number[] => {
    const list: number[] = [];
    const add = (offset: number): void => {
      const to = byOffset.get(offset);
      if (to !== undefined && !list.includes(to)) list.push(to);
    };
    if (b.fallsThrough) add(b.end);
    if (b.target !== undefined) add(b.target);
    const { form } = b.instructions.at(-1)!.decoded.row;
    const dynamic =
      form === "ret" || form === "retImmediate" ? region.returns : form === "jmpIndirect" ? region.targets : [];
    for (const to of dynamic) if (!list.includes(to)) list.push(to);
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
      else if (known.kind !== after.kind || known.narrow !== after.narrow) return UNKNOWN_FLAGS;
    }
    return known ?? UNKNOWN_FLAGS;
  };

  const out = f.block();
  c.leave = f.block();
  /** Leaves for an address relative to the region's page. */
  const leaveTo = (offset: number): void => {
    f.get(c.ripPage);
    f.i64(offset);
    f.op("i64_add");
    f.set(rip);
    f.br(out);
  };
  const spend = (count: number): void => {
    if (count === 0) return;
    f.get(BUDGET);
    f.i32(count);
    f.op("i32_sub");
    f.set(BUDGET);
  };
  /** To the successor that `rip` is, by a table of the page's bytes. */
  const dispatchByTable = (known: readonly number[], leadTo: (to: number) => void): void => {
    const table = targetTable(region, blocks);
    const miss = f.block();
    const labels = known.map(() => f.block()).reverse();
    f.get(rip);
    f.get(c.ripPage);
    f.op("i64_sub");
    f.i64(4096);
    f.op("i64_ge_u");
    f.brIf(miss);
    f.get(rip);
    f.get(c.ripPage);
    f.op("i64_sub");
    f.op("i32_wrap_i64");
    f.mem("i32_load8_u", table);
    const byNumber: number[] = [miss];
    [...region.returns, ...region.targets].forEach((to, i) => {
      const k = known.indexOf(to);
      byNumber[i + 1] = k < 0 ? miss : labels[k]!;
    });
    f.brTable(byNumber, miss);
    known.forEach((to) => {
      f.end();
      leadTo(to);
    });
    f.end();
    f.br(out);
  };
  let tableAt = -1;
  const targetTable = (r: Region, all: readonly BasicBlock[]): number => {
    if (tableAt >= 0) return tableAt;
    const table = new Uint8Array(4096);
    [...r.returns, ...r.targets].forEach((to, i) => {
      table[all[to]!.offset] ||= i + 1;
    });
    tableAt = keep(table);
    return tableAt;
  };
  emitStructured(f, { successors, entries: region.entries }, ENTRY, {
    emit(node, leadTo) {
      const block = blocks[node]!;
      const dead = deadFlags(block);
      const pageOf = (offset: number): number => Math.floor(offset / 4096) * 4096;
      const goTo = (offset: number): void => {
        const to = byOffset.get(offset);
        if (to === undefined) leaveTo(offset);
        else leadTo(to);
      };
      c.flags = flagsBefore(node);
      let ending: RegionSem["ending"];
      block.instructions.forEach(({ offset, decoded }, i) => {
        scratchF.reset();
        decoded.records.forEach((record, k) => {
          const sem = new RegionSem(c, record, pageOf(offset), i, dead[i]![k]!);
          record.form.define(sem);
          ({ ending } = sem);
        });
      });
      spend(block.instructions.length);
      flagsAfter[node] = c.flags;
      if (ending === undefined) goTo(block.end);
      else if (ending.how === "jump") goTo(block.target!);
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
        if (known.length > MAX_COMPARED) {
          dispatchByTable(known, leadTo);
          return;
        }
        for (const to of known) {
          f.get(rip);
          f.get(c.ripPage);
          f.i64(blocks[to]!.offset);
          f.op("i64_add");
          f.op("i64_eq");
          f.if();
          leadTo(to);
          f.end();
        }
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
  f.end(); // leave
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
  f.end(); // out
  const flagSlots = [
    [c.flagA, Vp.flagA],
    [c.flagB, Vp.flagB],
    [c.flagR, Vp.flagR],
  ] as const;
  for (const n of c.writtenRegisters) {
    f.i32(0);
    f.get(gpr[n]!);
    f.mem("i64_store", base + Vp.gpr + n * 8, 3);
  }
  for (const n of c.writtenVectors) {
    f.i32(0);
    f.get(c.xmm[n]!);
    f.simdMem(11, base + Vp.xmm + n * 16, 4);
  }
  for (const [local, at] of flagSlots) {
    f.i32(0);
    f.get(local);
    f.mem("i64_store", base + at, 3);
  }
  f.i32(0);
  f.get(c.flagKind);
  f.mem("i32_store", base + Vp.flagKind, 2);
  f.i32(0);
  f.get(rip);
  f.mem("i64_store", base + Vp.rip, 3);
  f.i32(0);
  f.get(BUDGET);
  f.mem("i32_store", base + Vp.budget, 2);
  f.get(status);

  const p = new FunctionBuilder(f.params, f.results);
  for (const n of c.usedRegisters) {
    p.i32(0);
    p.mem("i64_load", base + Vp.gpr + n * 8, 3);
    p.set(gpr[n]!);
  }
  for (const n of c.usedVectors) {
    p.i32(0);
    p.simdMem(0, base + Vp.xmm + n * 16, 4);
    p.set(c.xmm[n]!);
  }
  if (c.usesFloat) loadFloat(p, c);
  for (const [local, at] of [...flagSlots, [c.ripPage, Vp.ripPage]] as const) {
    p.i32(0);
    p.mem("i64_load", base + at, 3);
    p.set(local);
  }
  p.i32(0);
  p.mem("i32_load", base + Vp.flagKind, 2);
  p.set(c.flagKind);
  f.prepend(p);
  module.add(f, REGION_EXPORT);
  return module.finish();
}

/** Helpers that work on a record, or that only the loop calls. */
const NOT_FOR_REGIONS: ReadonlySet<string> = new Set([
  "readSlow",
  "writeSlow",
  "writeSlowV",
  "rmwSlow",
  "rmwDone",
  "lookup",
  "lookupSingle",
  "deliverFault",
  "system",
  "string",
  "farTransfer",
  "x87",
  "vector",
  "legacy",
] satisfies HelperName[]);
