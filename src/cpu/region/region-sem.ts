/** The back end of the region compiler: what an instruction does beside its operands and flags. */
import { StringOp, System } from "../isa/rows-integer.js";
import { Helper, type HelperName } from "../isa/runtime-calls.js";
import type { Sem, Value } from "../isa/sem.js";
import { REC_BYTES, Rec, Status, Vp } from "../layout.js";
import type { Local } from "../wasm/emitting-sem.js";
import { KEPT_REFERENCE } from "./region-code.js";
import { RegionFlags } from "./region-flags.js";
import { loadFlags, loadFloat, loadRegisters, storeFlags, storeRegisters, UNKNOWN_FLAGS } from "./region-function.js";

/** Procedures that touch neither general registers nor memory nor arithmetic flags. */
const PLAIN: ReadonlySet<number> = new Set([System.cli, System.sti, System.swapgs, System.clac, System.stac]);
/** Those of the vector registers' state. */
const VECTORS: ReadonlySet<number> = new Set([
  System.fxsave,
  System.fxrstor,
  System.xsave,
  System.xsavec,
  System.xrstor,
]);
/** Those that change arithmetic flags and yet let the next instruction follow. */
const FLAGS: ReadonlySet<number> = new Set([
  System.cmpxchg8b,
  System.lar,
  System.lsl,
  System.verr,
  System.verw,
  System.arpl,
  System.rdrand,
  System.rdseed,
]);
/** How the instruction ends its basic block. */
export type Ending =
  | { readonly how: "jump" }
  | { readonly how: "branch"; readonly condition: Local }
  | { readonly how: "indirect"; readonly target: Local };
export class RegionSem extends RegionFlags implements Sem {
  ending: Ending | undefined;
  #isPlain = false;
  #vectors = false;
  #writesFlags = false;

  record(): Value {
    const { raw } = this.bound;
    if (raw === undefined) throw new Error(`${this.form.name}: no record in a region`);
    // what comes behind it looks like an instruction, unless it is the last of its block (STI, in system.ts)
    const kept = new Uint8Array(2 * REC_BYTES);
    kept.set(raw);
    kept[REC_BYTES + Rec.length] = this.isLast ? 0 : 1;
    const offset = this.region.keep(kept);
    this.f.globalReference(KEPT_REFERENCE);
    this.f.i32(offset);
    this.f.op("i32_add");
    return this.fresh("i32");
  }
  /** Puts what is in locals into the block. */
  protected spill(vectors: boolean): void {
    const { f, region: c } = this;
    if (!c.tight) return;
    f.later(c.storeAll);
    if (vectors) f.later(c.storeAllVectors);
    storeFlags(f, c);
  }
  /** Puts where the instruction is into the block. */
  protected spillPlace(): void {
    const { f } = this;
    const c = this.region;
    f.i32(0);
    f.get(c.ripPage);
    if (this.page !== 0) {
      f.i64(this.page);
      f.op("i64_add");
    }
    f.mem("i64_store", c.base + Vp.ripPage, 3);
    f.i32(0);
    this.pushRip(0);
    f.mem("i64_store", c.base + Vp.rip, 3);
  }
  /** Takes back what a procedure may have changed. */
  protected reload(flags: boolean, vectors: boolean): void {
    const { f } = this;
    const c = this.region;
    f.later(c.loadAll);
    if (vectors) f.later(c.loadAllVectors);
    if (flags && !c.tight) c.flags = UNKNOWN_FLAGS;
    else if (flags) {
      loadFlags(f, c);
      c.flags = { ...UNKNOWN_FLAGS, held: true };
    }
    // arithmetic may be written later than what runs before it: never only where some has been seen
    loadFloat(f, c);
  }
  // ---- control ----------------------------------------------------------------------------------------------------------
  call(name: string, ...args: Value[]): Value {
    const helper = name as HelperName;
    const signature = Helper[helper];
    if (signature === undefined) throw new Error(`no helper ${name}`);
    if ("faults" in signature) this.checkFault();
    if (this.form.facts.procedure) return this.procedure(helper, ...args);
    // the divisions work on RAX and RDX in the block
    const pair = helper === "div" || helper === "idiv" ? [0, 2] : [];
    for (const n of pair) {
      this.region.usedRegisters.add(n);
      this.region.writtenRegisters.add(n);
    }
    storeRegisters(this.f, this.region, pair);
    const result = this.helper(helper, ...args);
    if (helper === "vectorFloat") loadFloat(this.f, this.region);
    loadRegisters(this.f, this.region, pair);
    for (const n of pair) this.region.locals.changedGpr.delete(n);
    return result;
  }
  /** Runs a procedure of the runtime on the block. @returns its Status */
  protected procedure(helper: HelperName, ...args: Value[]): Value {
    const { f } = this;
    const c = this.region;
    const selector = this.bound.raw![Rec.src2]!;
    this.#isPlain = helper === "system" && PLAIN.has(selector);
    this.#vectors = helper === "vector" || (helper === "system" && VECTORS.has(selector));
    this.#writesFlags =
      helper === "system"
        ? FLAGS.has(selector)
        : helper === "string"
          ? selector === StringOp.cmps || selector === StringOp.scas
          : true;
    this.spillPlace();
    if (!this.#isPlain) {
      this.spill(this.#vectors);
      if (this.bound.base === Vp.tempAddress) {
        f.i32(0);
        f.get(c.tempAddress);
        f.mem("i64_store", c.base + Vp.tempAddress, 3);
      }
    }
    return this.helper(helper, ...args);
  }
  leave(status: Value): void {
    const { f } = this;
    const c = this.region;
    this.push(status);
    f.unlikely();
    f.if();
    if (this.#isPlain) this.spill(false);
    if (!this.#vectors && c.tight) f.later(c.storeAllVectors);
    // a fault is counted by the loop
    f.get(c.budget);
    f.i32(this.before);
    f.op("i32_sub");
    this.push(status);
    f.i32(Status.fault);
    f.op("i32_ne");
    f.op("i32_sub");
    f.set(c.budget);
    // fault, redispatch, exit
    this.push(status);
    this.push(status);
    f.i32(Status.fault);
    f.op("i32_ne");
    f.op("i32_add");
    f.set(c.status);
    f.br(c.procedureLeft);
    f.end();
    if (this.#isPlain) return;
    this.reload(this.#writesFlags, this.#vectors);
    // it may have written over the region's own code
    c.usesDeaths = true;
    f.i32(0);
    f.mem("i32_load", c.base + Vp.regionDeaths, 2);
    f.get(c.deaths);
    f.op("i32_ne");
    f.unlikely();
    f.if();
    f.i32(-1);
    f.set(c.refusal);
    this.leaveAt(this.page + this.bound.pageOffset + this.bound.length, this.before + 1, c.leaveRegion);
    f.end();
  }
  faultUnless(condition: Value): void {
    const { f } = this;
    this.push(condition);
    f.op("i32_eqz");
    f.if();
    this.leaveHere(0);
    f.end();
    this.effects = true;
  }
  raise(vector: number, error = -1): void {
    this.checkFault();
    const { f } = this;
    if (this.region.tight) {
      f.i32(vector);
      f.i32(error);
      f.i32(0);
      f.callReference(this.region.helper("raise"));
    }
    this.leaveHere(0);
  }
  override if(condition: Value, then: () => void, otherwise?: () => void): void {
    this.arms++;
    this.joiningFlags(then, (first) => super.if(condition, first, otherwise));
    this.arms--;
  }
  override ifAll(conditions: readonly (readonly (() => Value)[])[], then: () => void, otherwise: () => void): void {
    if (this.region.oddFloat || this.effects) {
      this.arms++;
      this.joiningFlags(then, (first) => super.ifAll(conditions, first, otherwise));
      this.arms--;
      return;
    }
    // what is out of the ordinary is the interpreter's: no call, no register that has to live across one
    const { f } = this;
    const done = f.block();
    const unmet = f.block();
    this.require(conditions, unmet);
    then();
    f.br(done);
    f.end();
    this.leaveHere(1);
    f.end();
  }
  /** Behind two arms only that is known of the flags which is known in both. */
  protected joiningFlags(then: () => void, emit: (first: () => void) => void): void {
    const c = this.region;
    const before = c.flags;
    let first = before;
    emit(() => {
      then();
      first = c.flags;
      c.flags = before;
    });
    const second = c.flags;
    if (first.kind !== second.kind || first.narrow !== second.narrow || first.held !== second.held)
      c.flags = {
        kind: first.kind === second.kind ? first.kind : undefined,
        narrow: false,
        held: first.held && second.held,
      };
  }
  slotRip(): Value {
    this.pushRip(0);
    return this.fresh("i64");
  }
  nextRip(): Value {
    this.pushRip(this.bound.length);
    return this.fresh("i64");
  }
  fieldRegister(): Value {
    if (!this.pushSlot64(this.bound.src)) this.f.i64(0);
    return this.fresh("i64");
  }
  jump(): void {
    this.ending = { how: "jump" };
  }
  jumpIf(condition: Value): void {
    this.ending = { how: "branch", condition: condition as Local };
  }
  jumpTo(target: Value): void {
    this.ending = { how: "indirect", target: target as Local };
  }
}
