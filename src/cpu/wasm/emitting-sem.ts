/**
 * What the back ends that write WebAssembly have in common: values are locals of the function being written, an operation takes
 * its operands from locals and puts its result into one at once. Operands, flags and control are a back end's own.
 */
import type { Form } from "../isa/forms.js";
import type { BinaryOp, CompareOp, Value, ValueType, Width } from "../isa/sem.js";
import { MXCSR_ORDINARY, Vp } from "../layout.js";
import { type FunctionBuilder, type MemOpName, Op, type OpName } from "./assembler.js";

export interface Local extends Value {
  readonly local: number;
}

/** Locals that the arms of one function share. */
export class Scratch {
  readonly #f: FunctionBuilder;
  readonly #pools = new Map<ValueType, number[]>();
  readonly #used = new Map<ValueType, number>();
  constructor(f: FunctionBuilder) {
    this.#f = f;
  }
  reset(): void {
    this.#used.clear();
  }
  take(type: ValueType): number {
    let pool = this.#pools.get(type);
    if (pool === undefined) this.#pools.set(type, (pool = []));
    const n = this.#used.get(type) ?? 0;
    this.#used.set(type, n + 1);
    if (n === pool.length) pool.push(this.#f.local(type));
    return pool[n]!;
  }
}

export const LOADS: Record<string, MemOpName> = {
  "8s": "i32_load8_s",
  "8u": "i32_load8_u",
  "16s": "i32_load16_s",
  "16u": "i32_load16_u",
  "32s": "i32_load",
  "32u": "i32_load",
  "64s": "i64_load",
  "64u": "i64_load",
};
export const STORES: Record<number, MemOpName> = {
  8: "i32_store8",
  16: "i32_store16",
  32: "i32_store",
  64: "i64_store",
};
export abstract class EmittingSem {
  protected readonly f: FunctionBuilder;
  protected readonly form: Form;
  protected readonly scratch: Scratch;
  /** Something architectural has been written: a fault may not come any more. */
  protected effects = false;
  /** Addresses of operands already computed: register offsets (i32) or linear addresses (i64). */
  protected readonly places: (number | undefined)[] = [];

  constructor(f: FunctionBuilder, form: Form, scratch: Scratch) {
    this.f = f;
    this.form = form;
    this.scratch = scratch;
  }
  abstract address(i: number): Value;
  abstract slot(offset: number, width: Width): Value;
  abstract readLow(i: number, width: 32 | 64): Value;
  protected abstract readOperand(i: number, signed: boolean): Value;
  abstract readWrite(i: number): Value;
  abstract probeWrite(i: number): void;
  abstract writeLow(i: number, width: 32 | 64, value: Value): void;

  get width(): Width {
    return this.form.width;
  }
  operandWidth(i: number): number {
    return this.form.operands[i]!.width;
  }
  isMemory(i: number): boolean {
    const kind = this.form.operands[i]!.kind;
    return kind === "m" || kind === "x";
  }

  // ---- operands -------------------------------------------------------------------------------------------------------
  read(i: number): Value {
    return this.readOperand(i, true);
  }
  readU(i: number): Value {
    return this.readOperand(i, false);
  }

  // ---- values ---------------------------------------------------------------------------------------------------------
  protected fresh(type: ValueType): Local {
    const local = this.scratch.take(type);
    this.f.set(local);
    return { type, local };
  }
  protected push(v: Value): void {
    this.f.get((v as Local).local);
  }
  protected checkFault(): void {
    if (this.effects) throw new Error(`${this.form.name}: a fault after an effect`);
  }
  const32(value: number): Value {
    this.f.i32(value);
    return this.fresh("i32");
  }
  const64(value: number): Value {
    this.f.i64(value);
    return this.fresh("i64");
  }
  constW(value: number): Value {
    return this.width === 64 ? this.const64(value) : this.const32(value);
  }
  protected apply(name: string, type: ValueType, ...args: Value[]): Value {
    for (const a of args) this.push(a);
    if (!(name in Op)) throw new Error(`no opcode ${name}`);
    this.f.op(name as OpName);
    return this.fresh(type);
  }
  bin(op: BinaryOp, a: Value, b: Value): Value {
    if (a.type !== b.type) throw new Error(`${this.form.name}: ${op} of ${a.type} and ${b.type}`);
    return this.apply(`${a.type}_${op}`, a.type, a, b);
  }
  cmp(op: CompareOp, a: Value, b: Value): Value {
    if (a.type !== b.type) throw new Error(`${this.form.name}: ${op} of ${a.type} and ${b.type}`);
    return this.apply(`${a.type}_${op}`, "i32", a, b);
  }
  eqz(a: Value): Value {
    return this.apply(`${a.type}_eqz`, "i32", a);
  }
  clz(a: Value): Value {
    return this.apply(`${a.type}_clz`, a.type, a);
  }
  ctz(a: Value): Value {
    return this.apply(`${a.type}_ctz`, a.type, a);
  }
  popcnt(a: Value): Value {
    return this.apply(`${a.type}_popcnt`, a.type, a);
  }
  select(condition: Value, a: Value, b: Value): Value {
    this.push(a);
    this.push(b);
    this.push(condition);
    this.f.op("select");
    return this.fresh(a.type);
  }
  wrap(a: Value): Value {
    return a.type === "i32" ? a : this.apply("i32_wrap_i64", "i32", a);
  }
  extendS(a: Value): Value {
    return a.type === "i64" ? a : this.apply("i64_extend_i32_s", "i64", a);
  }
  extendU(a: Value): Value {
    return a.type === "i64" ? a : this.apply("i64_extend_i32_u", "i64", a);
  }
  norm(a: Value, width: Width): Value {
    if (width === 8 || width === 16) return this.apply(`${a.type}_extend${width}_s`, a.type, a);
    return width === 32 && a.type === "i64" ? this.apply("i64_extend32_s", "i64", a) : a;
  }
  zext(a: Value, width: Width): Value {
    if (width >= 32) return a;
    return this.bin("and", a, this.const32(width === 8 ? 0xff : 0xffff));
  }
  wasm(op: string, type: ValueType, ...args: Value[]): Value {
    return this.apply(op, type, ...args);
  }
  simd(op: number, type: ValueType, args: Value[], lane?: number): Value {
    for (const a of args) this.push(a);
    if (lane === undefined) this.f.simd(op);
    else this.f.simdLane(op, lane);
    return this.fresh(type);
  }
  shuffle(a: Value, b: Value, lanes: readonly number[]): Value {
    this.push(a);
    this.push(b);
    this.f.shuffle(lanes);
    return this.fresh("v128");
  }
  constV(bytes: Uint8Array): Value {
    this.f.v128(bytes);
    return this.fresh("v128");
  }

  fence(): void {
    this.f.fence();
  }
  readF32(i: number): Value {
    return this.wasm("f32_reinterpret_i32", "f32", this.readLow(i, 32));
  }
  readF64(i: number): Value {
    return this.wasm("f64_reinterpret_i64", "f64", this.readLow(i, 64));
  }
  writeF32(i: number, value: Value): void {
    this.writeLow(i, 32, this.wasm("i32_reinterpret_f32", "i32", value));
  }
  writeF64(i: number, value: Value): void {
    this.writeLow(i, 64, this.wasm("i64_reinterpret_f64", "i64", value));
  }
  if(condition: Value, then: () => void, otherwise?: () => void): void {
    this.push(condition);
    if (condition.type === "i64") {
      this.f.op("i64_eqz");
      this.f.op("i32_eqz");
    }
    const before = this.effects;
    const places = [...this.places];
    this.f.if();
    then();
    const after = this.effects;
    this.restorePlaces(places);
    if (otherwise !== undefined) {
      this.effects = before;
      this.f.else();
      otherwise();
      this.restorePlaces(places);
    }
    this.effects ||= after;
    this.f.end();
  }
  /** Jumps to `unmet` unless of each list one condition holds. */
  protected require(conditions: readonly (readonly (() => Value)[])[], unmet: number): void {
    const { f } = this;
    for (const list of conditions) {
      const met = list.length > 1 ? f.block() : -1;
      list.forEach((condition, i) => {
        this.push(condition());
        if (i < list.length - 1) {
          f.likely();
          f.brIf(met);
          return;
        }
        f.op("i32_eqz");
        f.unlikely();
        f.brIf(unmet);
      });
      if (met >= 0) f.end();
    }
  }
  ifAll(conditions: readonly (readonly (() => Value)[])[], then: () => void, otherwise: () => void): void {
    const { f } = this;
    const places = [...this.places];
    const end = f.block();
    const unmet = f.block();
    this.require(conditions, unmet);
    const before = this.effects;
    then();
    const after = this.effects;
    this.restorePlaces(places);
    f.br(end);
    f.end();
    this.effects = before;
    otherwise();
    this.restorePlaces(places);
    this.effects ||= after;
    f.end();
  }
  ordinaryFloat(inexact: boolean): Value {
    const without = inexact ? 0 : MXCSR_ORDINARY.inexact;
    return this.cmp(
      "eq",
      this.bin("and", this.slot(Vp.mxcsr, 32), this.const32(MXCSR_ORDINARY.mask & ~without)),
      this.const32(MXCSR_ORDINARY.value & ~without),
    );
  }
  ifCount(count: Value, then: () => void): void {
    if (this.form.operands[1]?.kind === "i") then();
    else this.if(count, then);
  }
  /** What was computed inside an arm is not known after it. */
  protected restorePlaces(places: (number | undefined)[]): void {
    this.places.length = 0;
    this.places.push(...places);
  }
}
