/**
 * The back end that writes interpreter code: operands come from the fields of the record that `pc` points to, registers and
 * flags live in the processor's block. Every value goes to a local at once; TurboFan does the rest.
 */

import type { Form } from "../isa/forms.js";
import { Helper, type HelperName } from "../isa/runtime-calls.js";
import type { FlagName, Sem, Value, ValueType, Width } from "../isa/sem.js";
import { FlagKind, REC_BYTES, Rec, Status, TLB_ENTRIES, TLB_WRITE, Vp } from "../layout.js";
import type { FunctionBuilder, OpName } from "../wasm/assembler.js";
import { EmittingSem, LOADS, type Local, Scratch, STORES } from "../wasm/emitting-sem.js";

export interface LoopContext {
  readonly pc: number;
  readonly tlb: number;
  readonly base: number;
  readonly helpers: ReadonlyMap<HelperName, number>;
  /** Locals and labels of the loop; -1 in a cold function. */
  readonly target: number;
  readonly budget: number;
  readonly fault: () => number;
  readonly direct: number;
  readonly indirect: number;
  readonly next: number;
  readonly cold: boolean;
  readonly scratch?: Scratch;
  /** Local that is set when a store of a followed form took the slow path, which may have thrown the block away. */
  readonly slowStore?: number;
}

const REGISTER_FIELDS = [Rec.dst, Rec.src] as const;

export class InterpreterSem extends EmittingSem implements Sem {
  static readonly Scratch = Scratch;
  /** The definition has left by a jump: nothing follows. */
  ended = false;
  readonly #c: LoopContext;
  #stored = false;

  constructor(f: FunctionBuilder, form: Form, context: LoopContext) {
    super(f, form, context.scratch ?? new Scratch(f));
    this.#c = context;
  }
  // ---- operands -------------------------------------------------------------------------------------------------------
  /** Puts the register operand's offset in the block on the stack. */
  #registerOffset(i: number): void {
    const known = this.places[i];
    if (known !== undefined) {
      this.f.get(known);
      return;
    }
    let field = 0;
    for (let k = 0; k < i; k++) if (this.form.operands[k]!.kind === "r") field++;
    this.f.get(this.#c.pc);
    if (field < REGISTER_FIELDS.length) this.f.mem("i32_load16_u", REGISTER_FIELDS[field]!, 1);
    else if (field === REGISTER_FIELDS.length) {
      // the third one's number is all that there is room for
      this.f.mem("i32_load8_u", Rec.src2);
      this.f.i32(3);
      this.f.op("i32_shl");
    } else throw new Error(`${this.form.name}: too many register operands`);
    const local = this.scratch.take("i32");
    this.f.tee(local);
    this.places[i] = local;
  }
  address(i: number): Value {
    const known = this.places[i];
    if (known !== undefined) return { type: "i64", local: known } as Local;
    const { kind } = this.form.operands[i]!;
    const f = this.f;
    const { pc, base } = this.#c;
    f.get(pc);
    f.mem("i32_load16_u", Rec.base, 1);
    f.mem("i64_load", base, 3);
    if (kind === "x") {
      f.get(pc);
      f.mem("i32_load16_u", Rec.index, 1);
      f.mem("i64_load", base, 3);
      f.get(pc);
      f.mem("i64_load8_u", Rec.scale);
      f.op("i64_shl");
      f.op("i64_add");
    } else if (kind !== "m") throw new Error(`${this.form.name}: operand ${i} is not memory`);
    f.get(pc);
    f.mem("i64_load32_s", Rec.disp, 2);
    f.op("i64_add");
    const v = this.fresh("i64");
    this.places[i] = v.local;
    return v;
  }
  immediate(): Value {
    this.f.get(this.#c.pc);
    this.f.mem("i64_load", Rec.imm, 3);
    return this.fresh("i64");
  }
  knownImmediate(): number | undefined {
    return undefined;
  }
  #immediate(signed: boolean): Value {
    this.f.get(this.#c.pc);
    if (this.width === 64) {
      // a fused record keeps the jump in the upper half
      this.f.mem(this.form.fused ? "i64_load32_s" : "i64_load", Rec.imm, 2);
      return this.fresh("i64");
    }
    this.f.mem(LOADS[`${this.width}${signed ? "s" : "u"}`]!, Rec.imm);
    return this.fresh("i32");
  }
  record(): Value {
    this.f.get(this.#c.pc);
    return this.fresh("i32");
  }
  #readRegister(i: number, load: (offset: number) => void, type: ValueType): Value {
    this.#registerOffset(i);
    load(this.#c.base);
    return this.fresh(type);
  }
  protected readOperand(i: number, signed: boolean): Value {
    const { kind, width } = this.form.operands[i]!;
    if (kind === "i") return this.#immediate(signed);
    if (kind === "c") return this.slot(Vp.gpr + 8, 8, false);
    const type: ValueType = width === 64 ? "i64" : "i32";
    if (kind === "r") return this.#readRegister(i, (o) => this.f.mem(LOADS[`${width}${signed ? "s" : "u"}`]!, o), type);
    return this.load(this.address(i), width as Width, signed);
  }
  write(i: number, value: Value): void {
    const { kind, width } = this.form.operands[i]!;
    if (kind === "r") {
      this.#registerOffset(i);
      this.push(value);
      if (width === 32) {
        if (value.type !== "i32") throw new Error(`${this.form.name}: writes ${value.type} to 32 bits`);
        this.f.op("i64_extend_i32_u");
        this.f.mem("i64_store", this.#c.base, 3);
      } else {
        if ((width === 64) !== (value.type === "i64"))
          throw new Error(`${this.form.name}: writes ${value.type} to ${width} bits`);
        this.f.mem(STORES[width]!, this.#c.base);
      }
      this.effects = true;
      return;
    }
    const rmw = this.rmw[i];
    if (rmw === undefined) {
      this.store(this.address(i), width as Width, value);
      return;
    }
    this.f.get(rmw);
    this.push(value);
    this.f.mem(STORES[width]!, 0);
    this.effects = true;
    this.f.get(rmw);
    this.f.i32(this.#c.base + Vp.bounceEnd);
    this.f.op("i32_lt_u");
    this.f.if();
    this.f.get(this.#c.pc);
    this.f.call(this.#c.helpers.get("rmwDone")!);
    this.#noteSlowStore();
    this.f.end();
  }

  // ---- memory ---------------------------------------------------------------------------------------------------------
  /** Leaves "hit" on the stack; `entry` gets the TLB entry's address. */
  #probe(va: Value, bytes: number, entry: number, write: boolean): void {
    const f = this.f;
    f.get(this.#c.tlb);
    this.push(va);
    f.i64(8);
    f.op("i64_shr_u");
    f.op("i32_wrap_i64");
    f.i32((TLB_ENTRIES - 1) * 16);
    f.op("i32_and");
    f.op("i32_add");
    f.tee(entry);
    f.mem("i64_load", write ? TLB_WRITE : 0, 3);
    this.push(va);
    f.op("i64_xor");
    f.i64(4096 - bytes);
    f.op("i64_le_u");
  }
  #host(va: Value, entry: number, write: boolean): void {
    this.push(va);
    this.f.op("i32_wrap_i64");
    this.f.get(entry);
    this.f.mem("i32_load", (write ? TLB_WRITE : 0) + 8, 2);
    this.f.op("i32_add");
  }
  /** Address in the memory of an operand translated for writing. */
  protected readonly rmw: (number | undefined)[] = [];
  readWrite(i: number): Value {
    if (!this.isMemory(i)) return this.read(i);
    const { width } = this.form.operands[i]!;
    this.probeWrite(i);
    this.f.get(this.rmw[i]!);
    this.f.mem(LOADS[`${width}s`]!, 0);
    return this.fresh(width === 64 ? "i64" : "i32");
  }
  probeWrite(i: number): void {
    const { width } = this.form.operands[i]!;
    this.rmw[i] = this.translate(this.address(i), width / 8, true);
  }
  /** @returns the local that holds the address in the memory */
  protected translate(va: Value, bytes: number, write: boolean): number {
    this.checkFault();
    const f = this.f;
    const entry = this.scratch.take("i32");
    const host = this.scratch.take("i32");
    this.#probe(va, bytes, entry, write);
    f.if("i32");
    this.#host(va, entry, write);
    f.else();
    this.push(va);
    f.i32(bytes);
    f.get(this.#c.pc);
    f.call(this.#c.helpers.get(write ? "rmwSlow" : "readSlow")!);
    f.tee(host);
    f.op("i32_eqz");
    f.brIf(this.#c.fault());
    f.get(host);
    f.end();
    f.set(host);
    return host;
  }
  #noteSlowStore(): void {
    if (this.#c.slowStore === undefined) return;
    this.#stored = true;
    this.f.i32(1);
    this.f.set(this.#c.slowStore);
  }
  load(address: Value, width: Width, signed = true): Value {
    const host = this.translate(address, width / 8, false);
    this.f.get(host);
    this.f.mem(LOADS[`${width}${signed ? "s" : "u"}`]!, 0);
    return this.fresh(width === 64 ? "i64" : "i32");
  }
  store(address: Value, width: Width, value: Value): void {
    this.checkFault();
    const f = this.f;
    const entry = this.scratch.take("i32");
    this.#probe(address, width / 8, entry, true);
    f.if();
    this.#host(address, entry, true);
    this.push(value);
    f.mem(STORES[width]!, 0);
    f.else();
    this.push(address);
    f.i32(width / 8);
    this.push(value);
    if (value.type === "i32") f.op("i64_extend_i32_u");
    f.get(this.#c.pc);
    f.call(this.#c.helpers.get("writeSlow")!);
    f.op("i32_eqz");
    f.brIf(this.#c.fault());
    this.#noteSlowStore();
    f.end();
    this.effects = true;
  }
  readV(i: number): Value {
    if (!this.isMemory(i)) return this.#readRegister(i, (o) => this.f.simdMem(0, o, 4), "v128");
    const host = this.translate(this.address(i), 16, false);
    this.f.get(host);
    this.f.simdMem(0, 0);
    return this.fresh("v128");
  }
  writeV(i: number, value: Value): void {
    if (!this.isMemory(i)) {
      this.#registerOffset(i);
      this.push(value);
      this.f.simdMem(11, this.#c.base, 4);
      this.effects = true;
      return;
    }
    this.checkFault();
    const f = this.f;
    const va = this.address(i);
    const entry = this.scratch.take("i32");
    this.#probe(va, 16, entry, true);
    f.if();
    this.#host(va, entry, true);
    this.push(value);
    f.simdMem(11, 0);
    f.else();
    this.push(va);
    for (const lane of [0, 1]) {
      this.push(value);
      f.simdLane(29, lane); // i64x2.extract_lane
    }
    f.get(this.#c.pc);
    f.call(this.#c.helpers.get("writeSlowV")!);
    f.op("i32_eqz");
    f.brIf(this.#c.fault());
    this.#noteSlowStore();
    f.end();
    this.effects = true;
  }
  readLow(i: number, width: 32 | 64): Value {
    if (this.isMemory(i)) return this.load(this.address(i), width, false);
    return this.#readRegister(i, (o) => this.f.mem(LOADS[`${width}u`]!, o), width === 64 ? "i64" : "i32");
  }
  writeLow(i: number, width: 32 | 64, value: Value): void {
    if (this.isMemory(i)) {
      this.store(this.address(i), width, value);
      return;
    }
    this.#registerOffset(i);
    this.push(value);
    this.f.mem(STORES[width]!, this.#c.base);
    this.effects = true;
  }
  slot(offset: number, width: Width, signed = true): Value {
    this.f.i32(0);
    this.f.mem(LOADS[`${width}${signed ? "s" : "u"}`]!, this.#c.base + offset);
    return this.fresh(width === 64 ? "i64" : "i32");
  }
  slotV(offset: number): Value {
    this.f.i32(0);
    this.f.simdMem(0, this.#c.base + offset, 4);
    return this.fresh("v128");
  }
  setSlot(offset: number, width: Width, value: Value): void {
    if ((width === 64) !== (value.type === "i64"))
      throw new Error(`${this.form.name}: slot of ${width} bits gets ${value.type}`);
    this.f.i32(0);
    this.push(value);
    this.f.mem(STORES[width]!, this.#c.base + offset);
    this.effects = true;
  }

  // ---- flags ----------------------------------------------------------------------------------------------------------
  flags(kind: FlagName, a: Value, b: Value, r: Value): void {
    if (this.form.noFlags) return;
    const f = this.f;
    const { base } = this.#c;
    for (const [v, at] of [
      [a, Vp.flagA],
      [b, Vp.flagB],
      [r, Vp.flagR],
    ] as const) {
      f.i32(0);
      this.push(v);
      if (v.type === "i32") f.op("i64_extend_i32_s");
      f.mem("i64_store", base + at, 3);
    }
    f.i32(0);
    f.i32(FlagKind[kind]);
    f.mem("i32_store", base + Vp.flagKind, 2);
  }
  #ifSub(fast: () => void, slow: () => void): Value {
    const f = this.f;
    f.i32(0);
    f.mem("i32_load", this.#c.base + Vp.flagKind, 2);
    f.op("i32_eqz");
    f.if("i32");
    fast();
    f.else();
    slow();
    f.end();
    return this.fresh("i32");
  }
  #flagOperands(op: OpName): void {
    this.f.i32(0);
    this.f.mem("i64_load", this.#c.base + Vp.flagA, 3);
    this.f.i32(0);
    this.f.mem("i64_load", this.#c.base + Vp.flagB, 3);
    this.f.op(op);
  }
  carry(): Value {
    return this.#ifSub(
      () => this.#flagOperands("i64_lt_u"),
      () => this.f.call(this.#c.helpers.get("carry")!),
    );
  }
  condition(cc: number): Value {
    const f = this.f;
    const { base } = this.#c;
    if (cc === 4 || cc === 5) {
      f.i32(0);
      f.mem("i64_load", base + Vp.flagR, 3);
      f.op("i64_eqz");
      if (cc === 5) f.op("i32_eqz");
      return this.fresh("i32");
    }
    const slow = (): void => {
      f.i32(cc);
      f.call(this.#c.helpers.get("condition")!);
    };
    const compare: Partial<Record<number, OpName>> = {
      2: "i64_lt_u",
      3: "i64_ge_u",
      6: "i64_le_u",
      7: "i64_gt_u",
      12: "i64_lt_s",
      13: "i64_ge_s",
      14: "i64_le_s",
      15: "i64_gt_s",
    };
    const op = compare[cc];
    if (op !== undefined) return this.#ifSub(() => this.#flagOperands(op), slow);
    if (cc === 8 || cc === 9) {
      f.i32(0);
      f.mem("i32_load", base + Vp.flagKind, 2);
      f.i32(FlagKind.packed);
      f.op("i32_ne");
      f.if("i32");
      f.i32(0);
      f.mem("i64_load", base + Vp.flagR, 3);
      f.i64(0);
      f.op(cc === 8 ? "i64_lt_s" : "i64_ge_s");
      f.else();
      slow();
      f.end();
      return this.fresh("i32");
    }
    slow();
    return this.fresh("i32");
  }
  keptFlags(): Value {
    return this.form.noFlags ? this.const32(0) : this.packedFlags();
  }
  packedFlags(): Value {
    this.f.call(this.#c.helpers.get("packedFlags")!);
    return this.fresh("i32");
  }

  // ---- control ----------------------------------------------------------------------------------------------------------
  call(name: string, ...args: Value[]): Value {
    const signature = Helper[name as HelperName];
    if (signature === undefined) throw new Error(`no helper ${name}`);
    if ("faults" in signature) this.checkFault();
    for (const a of args) this.push(a);
    this.f.call(this.#c.helpers.get(name as HelperName)!);
    return signature.result === undefined ? { type: "i32" } : this.fresh(signature.result);
  }
  faultUnless(condition: Value): void {
    this.push(condition);
    this.f.op("i32_eqz");
    this.f.brIf(this.#c.fault());
    this.effects = true;
  }
  raise(vector: number, error = -1): void {
    this.checkFault();
    this.f.i32(vector);
    this.f.i32(error);
    this.f.get(this.#c.pc);
    this.f.call(this.#c.helpers.get("raise")!);
    this.f.br(this.#c.fault());
  }
  #pushRip(): void {
    const f = this.f;
    f.i32(0);
    f.mem("i64_load", this.#c.base + Vp.ripPage, 3);
    f.get(this.#c.pc);
    f.mem("i64_load16_u", Rec.pageOffset, 1);
    f.op("i64_add");
  }
  slotRip(): Value {
    this.#pushRip();
    return this.fresh("i64");
  }
  fieldRegister(): Value {
    this.f.get(this.#c.pc);
    this.f.mem("i32_load16_u", Rec.src, 1);
    this.f.mem("i64_load", this.#c.base, 3);
    return this.fresh("i64");
  }
  nextRip(): Value {
    const f = this.f;
    const { pc } = this.#c;
    this.#pushRip();
    f.get(pc);
    f.mem("i64_load8_u", Rec.length);
    f.op("i64_add");
    return this.fresh("i64");
  }
  /** target = ripPage + the record's jump distance. */
  #directTarget(): void {
    const f = this.f;
    f.i32(0);
    f.mem("i64_load", this.#c.base + Vp.ripPage, 3);
    f.get(this.#c.pc);
    if (this.form.fused) f.mem("i64_load32_s", Rec.imm + 4, 2);
    else f.mem("i64_load", Rec.imm, 3);
    f.op("i64_add");
  }
  #takeJump(): void {
    const f = this.f;
    const { pc, budget, target, direct, next } = this.#c;
    if (this.#c.cold) {
      f.i32(0);
      this.#directTarget();
      f.mem("i64_store", this.#c.base + Vp.rip, 3);
      f.i32(Status.redispatch);
      f.op("return");
      return;
    }
    const link = this.scratch.take("i32");
    f.get(budget);
    f.get(pc);
    f.mem("i32_load8_u", Rec.count);
    f.op("i32_sub");
    f.set(budget);
    f.get(pc);
    f.mem("i32_load", Rec.link, 2);
    f.tee(link);
    f.op("i32_eqz");
    f.get(budget);
    f.i32(0);
    f.op("i32_lt_s");
    f.op("i32_or");
    f.if();
    this.#directTarget();
    f.set(target);
    f.br(direct);
    f.end();
    f.get(link);
    f.set(pc);
    f.br(next);
  }
  jump(): void {
    this.#takeJump();
    this.ended = true;
  }
  jumpIf(condition: Value): void {
    this.push(condition);
    this.f.if();
    this.#takeJump();
    this.f.end();
  }
  jumpTo(target: Value): void {
    const f = this.f;
    if (this.#c.cold) {
      f.i32(0);
      this.push(target);
      f.mem("i64_store", this.#c.base + Vp.rip, 3);
      f.i32(Status.redispatch);
      f.op("return");
    } else {
      this.push(target);
      f.set(this.#c.target);
      f.br(this.#c.indirect);
    }
    this.ended = true;
  }
  leave(status: Value): void {
    if (!this.#c.cold) throw new Error(`${this.form.name}: leaves from the loop`);
    this.push(status);
    this.f.op("return");
    this.ended = true;
  }
  /** `pc` moves to the next record, without a dispatch. */
  nextRecord(): void {
    const f = this.f;
    f.get(this.#c.pc);
    f.i32(REC_BYTES);
    f.op("i32_add");
    f.set(this.#c.pc);
    if (!this.#stored) return;
    // the record may be another block's by now: dispatch it
    f.get(this.#c.slowStore!);
    f.brIf(this.#c.next);
  }
  advance(): void {
    this.nextRecord();
    this.f.br(this.#c.next);
  }
}
