/**
 * Build of the interpreter: every instruction form's definition, run with operands bound to a decoded record, becomes one
 * arm of the dispatch loop (hot forms) or one function behind a table (all others). See cpu-engine.md 3.1 and 3.2.
 *
 * The loop keeps the record pointer, the instruction budget and the TLB's base in locals, all else in the processor's block.
 */

import { type Form, forms, formsFingerprint, specialForm } from "../isa/forms.js";
import { Helper, type HelperName } from "../isa/runtime-calls.js";
import {
  ARENA_BYTES,
  Exit,
  ExitSlot,
  Head,
  JUMP_CACHE_ENTRIES,
  REC_BYTES,
  Rec,
  RegionStatus,
  Stat,
  Status,
  Vp,
} from "../layout.js";
import { FunctionBuilder, ModuleBuilder } from "../wasm/assembler.js";
import { InterpreterSem, type LoopContext } from "./interpreter-sem.js";

export interface InterpreterModule {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly hot: number;
  readonly cold: number;
}

/**
 * @param base of the block of the virtual processor that the module is made for
 * @param countForms counts executions by form at Vp.formCounts (u64 each): slow, for choosing what is hot
 */
export function generateInterpreter(base: number, shared: boolean, countForms = false): InterpreterModule {
  const module = new ModuleBuilder({ minimum: 1, maximum: 65536, shared });
  const helpers = new Map<HelperName, number>();
  for (const name of Object.keys(Helper) as HelperName[]) {
    const { params, result } = Helper[name];
    helpers.set(
      name,
      module.importFunction({ module: "runtime", name, params, results: result === undefined ? [] : [result] }),
    );
  }
  const all = forms();
  const hot = all.filter((f) => f.hot);
  const cold = all.filter((f) => !f.hot);

  module.importTable("env", "regions", 1);
  const coldType = module.typeIndex(["i32", "i32"], ["i32"]);
  const regionType = module.typeIndex(["i32", "i32"], ["i32"]);
  const coldFunctions = cold.map((form) => module.add(coldFunction(form, base, helpers)));
  module.add(loop(hot, base, helpers, coldType, regionType, countForms), `run-${formsFingerprint()}`);
  module.add(chain(base, regionType, helpers.get("lookup")!), CHAIN_EXPORT);
  module.table(coldFunctions);
  return { bytes: module.finish(), hot: hot.length, cold: cold.length };
}

/** What regions know `chain` by. */
export const CHAIN_EXPORT = "chain";
/** The table of regions is imported, that of the cold forms the module's own. */
const REGION_TABLE = 0;
const OWN_TABLE = 1;

/** Pair counts of `countForms`, in the last part of the arena: u32 by first * PAIR_FORMS + second. */
export const PAIR_FORMS = 1024;
export const PAIR_COUNTS = Vp.arena + ARENA_BYTES - PAIR_FORMS * PAIR_FORMS * 4;

/**
 * entry = the jump-cache slot of the address in `target`; leaves "hit" on the stack. What was there before it is in the slot beside it
 * (code.ts, remember): only `chain` looks there, and the runtime.
 */
function probeJumpCache(f: FunctionBuilder, base: number, target: number, entry: number): void {
  f.get(target);
  f.op("i32_wrap_i64");
  f.get(target);
  f.i64(12);
  f.op("i64_shr_u");
  f.op("i32_wrap_i64");
  f.i32(5);
  f.op("i32_mul");
  f.op("i32_xor");
  // two processes of one program have the same addresses
  f.i32(0);
  f.mem("i32_load", base + Vp.jumpTag, 2);
  f.op("i32_xor");
  f.i32(JUMP_CACHE_ENTRIES - 1);
  f.op("i32_and");
  f.i32(4);
  f.op("i32_shl");
  f.set(entry);
  compareJump(f, base, target, entry);
}
/** Whether the slot is that of the address. */
function compareJump(f: FunctionBuilder, base: number, target: number, entry: number): void {
  f.get(entry);
  f.mem("i64_load", base + Vp.jumpCache, 3);
  f.get(target);
  f.op("i64_eq");
  f.get(entry);
  f.mem("i32_load", base + Vp.jumpCache + 12, 2);
  f.i32(0);
  f.mem("i32_load", base + Vp.jumpTag, 2);
  f.op("i32_eq");
  f.op("i32_and");
}
function setRipPage(f: FunctionBuilder, base: number, target: number): void {
  f.i32(0);
  f.get(target);
  f.i64(-4096);
  f.op("i64_and");
  f.mem("i64_store", base + Vp.ripPage, 3);
}
/** A counter grows by the i64 that `by` puts on the stack. */
function addTo(f: FunctionBuilder, base: number, stat: number, by: () => void): void {
  f.i32(0);
  f.i32(0);
  f.mem("i64_load", base + Vp.stats + stat * 8, 3);
  by();
  f.op("i64_add");
  f.mem("i64_store", base + Vp.stats + stat * 8, 3);
}
/**
 * (RIP, budget, ExitSlot) -> RegionStatus. What a region ends with that leaves for another place: on to the region whose gate stands
 * there, else back to the loop. All state is in the block. (A return to the loop takes some 200 ns, so what is not in the jump cache is
 * looked up here.)
 */
function chain(base: number, regionType: number, lookup: number): FunctionBuilder {
  const f = new FunctionBuilder(["i64", "i32", "i32"], ["i32"]);
  const target = 0;
  const budget = 1;
  const slot = 2;
  const entry = f.local("i32");
  const record = f.local("i32");
  const known = f.local("i32");
  const gate = f.local("i32");
  const looked = f.local("i32");
  const back = f.block();
  const found = f.block();
  // this way was taken before: nothing else is looked at
  f.get(slot);
  f.mem("i32_load", ExitSlot.gate, 2);
  f.set(gate);
  f.get(slot);
  f.mem("i64_load", ExitSlot.rip, 3);
  f.get(target);
  f.op("i64_eq");
  f.get(slot);
  f.mem("i32_load", ExitSlot.tag, 2);
  f.i32(0);
  f.mem("i32_load", base + Vp.jumpTag, 2);
  f.op("i32_eq");
  f.op("i32_and");
  f.likely();
  f.brIf(found);
  probeJumpCache(f, base, target, entry);
  f.op("i32_eqz");
  f.unlikely();
  f.if();
  f.get(entry);
  f.i32(16);
  f.op("i32_xor");
  f.set(entry);
  compareJump(f, base, target, entry);
  f.op("i32_eqz");
  f.unlikely();
  f.if();
  // a fetch that faults does so again in the loop; else the slot has it now
  f.get(target);
  f.call(lookup);
  f.tee(looked);
  f.op("i32_eqz");
  f.brIf(back);
  probeJumpCache(f, base, target, entry);
  f.op("i32_eqz");
  f.brIf(back);
  f.end();
  f.end();
  // which region, once it is known: as in the slot
  f.get(entry);
  f.i32(2);
  f.op("i32_shr_u");
  f.tee(known);
  f.mem("i32_load", base + Vp.jumpGates, 2);
  f.tee(gate);
  f.op("i32_eqz");
  f.unlikely();
  f.if();
  f.get(entry);
  f.mem("i32_load", base + Vp.jumpCache + 8, 2);
  f.tee(record);
  f.mem("i32_load16_u", Rec.handler, 1);
  f.i32(specialForm("enlighten.region").id);
  f.op("i32_ne");
  f.brIf(back);
  f.get(known);
  f.get(record);
  f.i32(REC_BYTES);
  f.op("i32_sub");
  f.mem("i32_load", Head.region, 2);
  f.tee(gate);
  f.mem("i32_store", base + Vp.jumpGates, 2);
  f.end();
  // if all records went for the one that was looked up, so has the slot
  f.get(looked);
  f.op("i32_eqz");
  f.if();
  f.get(slot);
  f.get(target);
  f.mem("i64_store", ExitSlot.rip, 3);
  f.get(slot);
  f.i32(0);
  f.mem("i32_load", base + Vp.jumpTag, 2);
  f.mem("i32_store", ExitSlot.tag, 2);
  f.get(slot);
  f.get(gate);
  f.mem("i32_store", ExitSlot.gate, 2);
  f.end();
  f.end(); // found
  addTo(f, base, Stat.regionEntries, () => f.i64(1));
  setRipPage(f, base, target);
  f.get(gate);
  f.i32(255);
  f.op("i32_and");
  f.get(budget);
  f.get(gate);
  f.i32(8);
  f.op("i32_shr_u");
  f.returnCallIndirect(regionType, REGION_TABLE);
  f.end();
  f.i32(RegionStatus.next);
  return f;
}

/** (record, tlb) -> Status */
function coldFunction(form: Form, base: number, helpers: ReadonlyMap<HelperName, number>): FunctionBuilder {
  const f = new FunctionBuilder(["i32", "i32"], ["i32"]);
  const fault = f.block();
  const context: LoopContext = {
    pc: 0,
    tlb: 1,
    base,
    helpers,
    target: -1,
    budget: -1,
    fault: () => fault,
    direct: -1,
    indirect: -1,
    next: -1,
    cold: true,
  };
  const sem = new InterpreterSem(f, form, context);
  form.define(sem);
  if (!sem.ended) {
    f.i32(Status.next);
    f.op("return");
  }
  f.end();
  f.i32(Status.fault);
  return f;
}

function loop(
  hot: readonly Form[],
  base: number,
  helpers: ReadonlyMap<HelperName, number>,
  coldType: number,
  regionType: number,
  countForms: boolean,
): FunctionBuilder {
  const f = new FunctionBuilder(["i32"], ["i32"]);
  const budget = 0;
  const pc = f.local("i32");
  const tlb = f.local("i32");
  const target = f.local("i64");
  const status = f.local("i32");
  const entry = f.local("i32");
  const slowStore = f.local("i32");

  const leave = (reason: number): void => {
    f.i32(0);
    f.get(target);
    f.mem("i64_store", base + Vp.rip, 3);
    f.i32(0);
    f.get(budget);
    f.mem("i32_store", base + Vp.budget, 2);
    f.i32(reason);
    f.op("return");
  };
  const spend = (): void => {
    f.get(budget);
    f.get(pc);
    f.mem("i32_load8_u", Rec.count);
    f.op("i32_sub");
    f.set(budget);
  };
  const loadState = (): void => {
    f.i32(0);
    f.mem("i32_load", base + Vp.tlb, 2);
    f.set(tlb);
    f.i32(0);
    f.mem("i64_load", base + Vp.rip, 3);
    f.set(target);
  };
  const probe = (): void => probeJumpCache(f, base, target, entry);
  const takeHit = (): void => {
    f.get(entry);
    f.mem("i32_load", base + Vp.jumpCache + 8, 2);
    f.set(pc);
  };
  const setPage = (): void => setRipPage(f, base, target);

  const sliceIfSpent = (): void => {
    f.get(budget);
    f.i32(0);
    f.op("i32_lt_s");
    f.if();
    leave(Exit.slice);
    f.end();
  };
  const leaveIfPending = (): void => {
    f.i32(0);
    f.mem("i32_load", base + Vp.pending, 2);
    f.if();
    leave(Exit.event);
    f.end();
  };
  /** An instruction that faults before it, or whose fetch does, counts too: a guest that only faults must not keep us here. */
  const spendOne = (): void => {
    f.get(budget);
    f.i32(1);
    f.op("i32_sub");
    f.set(budget);
  };
  /** To the handler of the recorded fault. @param record pushes the faulting record, or 0 where RIP is in the block */
  const deliver = (record: () => void): void => {
    record();
    f.call(helpers.get("deliverFault")!);
    f.set(status);
    loadState();
    f.get(status);
    f.if();
    leave(Exit.tripleFault);
    f.end();
    sliceIfSpent();
    f.br(redispatch);
  };
  loadState();
  const redispatch = f.loop();
  // a record for `target`: the jump cache, else the runtime (which may have to decode, or records a fault)
  probe();
  f.if();
  takeHit();
  setPage();
  f.else();
  f.get(target);
  f.call(helpers.get("lookup")!);
  f.tee(pc);
  f.op("i32_eqz");
  f.if();
  // the fetch itself faulted: RIP is `target`, no record runs
  spendOne();
  deliver(() => f.i32(0));
  f.end();
  f.end();

  const next = f.loop();
  const fault = f.block();
  const direct = f.block();
  const indirect = f.block();
  const coldLabel = f.block();
  const labels: number[] = [];
  for (let i = hot.length - 1; i >= 0; i--) labels[i] = f.block();
  if (countForms) {
    f.get(pc);
    f.mem("i32_load16_u", Rec.handler, 1);
    f.i32(8);
    f.op("i32_mul");
    f.tee(entry);
    f.get(entry);
    f.mem("i64_load", base + Vp.formCounts, 3);
    f.i64(1);
    f.op("i64_add");
    f.mem("i64_store", base + Vp.formCounts, 3);
    // pairs of hot forms in a row
    f.get(pc);
    f.mem("i32_load16_u", Rec.handler, 1);
    f.tee(entry);
    f.i32(PAIR_FORMS);
    f.op("i32_lt_u");
    f.if();
    f.get(status);
    f.i32(PAIR_FORMS);
    f.op("i32_mul");
    f.get(entry);
    f.op("i32_add");
    f.i32(4);
    f.op("i32_mul");
    f.tee(status);
    f.get(status);
    f.mem("i32_load", base + PAIR_COUNTS, 2);
    f.i32(1);
    f.op("i32_add");
    f.mem("i32_store", base + PAIR_COUNTS, 2);
    f.get(entry);
    f.set(status);
    f.else();
    f.i32(0);
    f.set(status);
    f.end();
  }
  f.get(pc);
  f.mem("i32_load16_u", Rec.handler, 1);
  f.brTable(labels, coldLabel);
  const scratch = new InterpreterSem.Scratch(f);
  /**
   * The gate to a region: the block's header says which function, and where in it to begin. The function gives back a
   * RegionStatus, with RIP and the budget in the block.
   */
  const bump = (stat: number, by: () => void): void => addTo(f, base, stat, by);
  const enterRegion = (): void => {
    bump(Stat.regionEntries, () => f.i64(1));
    // where the region begins, should it not take over
    f.i32(0);
    f.i32(0);
    f.mem("i64_load", base + Vp.ripPage, 3);
    f.get(pc);
    f.mem("i64_load16_u", Rec.pageOffset, 1);
    f.op("i64_add");
    f.mem("i64_store", base + Vp.rip, 3);
    bump(Stat.regionInstructions, () => {
      f.get(budget);
      f.op("i64_extend_i32_s");
    });
    f.get(pc);
    f.i32(REC_BYTES);
    f.op("i32_sub");
    f.mem("i32_load", Head.region, 2);
    f.tee(entry);
    f.i32(255);
    f.op("i32_and");
    f.get(budget);
    f.get(entry);
    f.i32(8);
    f.op("i32_shr_u");
    f.callIndirect(regionType, REGION_TABLE);
    f.set(status);
    loadState();
    f.i32(0);
    f.mem("i32_load", base + Vp.budget, 2);
    f.set(budget);
    bump(Stat.regionInstructions, () => {
      f.i64(0);
      f.get(budget);
      f.op("i64_extend_i32_s");
      f.op("i64_sub");
    });
    const whenStatus = (is: number, then: () => void): void => {
      f.get(status);
      f.i32(is);
      f.op("i32_eq");
      f.if();
      then();
      f.end();
    };
    whenStatus(RegionStatus.next, () => {
      sliceIfSpent();
      f.br(redispatch);
    });
    whenStatus(RegionStatus.attend, () => {
      leaveIfPending();
      sliceIfSpent();
      f.br(redispatch);
    });
    whenStatus(RegionStatus.fault, () => {
      spendOne();
      deliver(() => f.i32(0));
    });
    whenStatus(RegionStatus.exit, () => {
      f.i32(0);
      f.mem("i32_load", base + Vp.exitReason, 2);
      f.op("return");
    });
    bump(Stat.regionSingles, () => f.i64(1));
    f.get(target);
    f.call(helpers.get("lookupSingle")!);
    f.tee(pc);
    f.op("i32_eqz");
    f.if();
    spendOne();
    deliver(() => f.i32(0));
    f.end();
    f.br(next);
  };
  /**
   * In place of an instruction: what is counted are those before it, as the record before has them. That may be the header, where
   * no region's number may be then.
   */
  const instead = (attends: boolean): void => {
    f.i32(0);
    f.mem("i64_load", base + Vp.ripPage, 3);
    f.get(pc);
    f.mem("i64_load16_u", Rec.pageOffset, 1);
    f.op("i64_add");
    f.set(target);
    f.get(budget);
    f.get(pc);
    f.i32(REC_BYTES);
    f.op("i32_sub");
    f.mem("i32_load8_u", Rec.count);
    f.op("i32_sub");
    f.set(budget);
    if (attends) {
      f.i32(0);
      f.mem("i32_load", base + Vp.pending, 2);
      f.if();
      leave(Exit.event);
      f.end();
    }
    sliceIfSpent();
    f.br(redispatch);
  };
  for (const form of hot) {
    f.end();
    scratch.reset();
    const context: LoopContext = {
      pc,
      tlb,
      base,
      helpers,
      target,
      budget,
      fault: () => fault,
      direct,
      indirect,
      next,
      cold: false,
      scratch,
    };
    if (form.name.startsWith("enlighten.region/")) {
      enterRegion();
      continue;
    }
    if (form.name.startsWith("enlighten.poisoned/") || form.name.startsWith("enlighten.attend/")) {
      instead(form.name.startsWith("enlighten.attend/"));
      continue;
    }
    const parts = form.parts ?? [form];
    parts.forEach((part, i) => {
      const followed = i < parts.length - 1;
      if (followed && part.facts.stores) {
        f.i32(0);
        f.set(slowStore);
      }
      const sem = new InterpreterSem(f, part, followed && part.facts.stores ? { ...context, slowStore } : context);
      part.define(sem);
      if (sem.ended) return;
      if (followed) sem.nextRecord();
      else sem.advance();
    });
  }
  f.end(); // cold
  f.get(pc);
  f.get(tlb);
  f.get(pc);
  f.mem("i32_load16_u", Rec.handler, 1);
  f.i32(hot.length);
  f.op("i32_sub");
  f.callIndirect(coldType, OWN_TABLE);
  f.tee(status);
  f.op("i32_eqz");
  f.if();
  f.get(pc);
  f.i32(REC_BYTES);
  f.op("i32_add");
  f.set(pc);
  f.br(next);
  f.end();
  f.get(status);
  f.i32(Status.fault);
  f.op("i32_eq");
  f.brIf(fault);
  // redispatch or exit: state is in the block
  spend();
  loadState();
  f.get(status);
  f.i32(Status.exit);
  f.op("i32_eq");
  f.if();
  f.i32(0);
  f.get(budget);
  f.mem("i32_store", base + Vp.budget, 2);
  f.i32(0);
  f.mem("i32_load", base + Vp.exitReason, 2);
  f.op("return");
  f.end();
  leaveIfPending();
  sliceIfSpent();
  f.br(redispatch);

  f.end(); // indirect: `target` is set
  spend();
  f.get(budget);
  f.i32(0);
  f.op("i32_lt_s");
  f.if();
  leave(Exit.slice);
  f.end();
  f.br(redispatch);

  f.end(); // direct: `target` is set, the budget is spent, the record has no link or the budget is used up
  f.get(budget);
  f.i32(0);
  f.op("i32_lt_s");
  f.if();
  leave(Exit.slice);
  f.end();
  probe();
  f.if();
  // a target in the same page is linked: both records stand for the same physical page
  f.get(target);
  f.i32(0);
  f.mem("i64_load", base + Vp.ripPage, 3);
  f.op("i64_xor");
  f.i64(4096);
  f.op("i64_lt_u");
  f.if();
  f.get(pc);
  f.get(entry);
  f.mem("i32_load", base + Vp.jumpCache + 8, 2);
  f.mem("i32_store", Rec.link, 2);
  f.end();
  takeHit();
  setPage();
  f.br(next);
  f.end();
  f.br(redispatch);

  f.end(); // fault: recorded in the block, the record is the faulting one
  spend();
  deliver(() => f.get(pc));
  f.end(); // next
  f.end(); // redispatch
  f.op("unreachable");
  return f;
}
