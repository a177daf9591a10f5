/**
 * What an instruction's definition does with addresses: which accesses to memory it makes, in the order in which it makes them, and
 * which registers it moves by a constant. Found once for each form, by running the definition on values that know where they come from.
 */
import { FactSem } from "../isa/facts.js";
import type { Form } from "../isa/forms.js";
import { Helper, type HelperName } from "../isa/runtime-calls.js";
import type { BinaryOp, Value, ValueType, Width } from "../isa/sem.js";
import { Vp } from "../layout.js";

/** Something that was there before the instruction. */
export interface OriginTerm {
  /** Effective address of a memory operand; value of a register operand; 64 bits of the processor's block; what the record's field names. */
  readonly of: "memory" | "register" | "slot" | "field";
  /** Number of the operand, or the slot's offset. */
  readonly at: number;
}
/** A sum as the definition made it. */
export interface Origin {
  readonly terms: readonly OriginTerm[];
  readonly add: number;
  /** How often the immediate is added to it: -1, 0 or 1. */
  readonly immediates: number;
}
export interface FormAccess {
  /** undefined: computed in another way, or in an arm that may not be taken. */
  readonly origin: Origin | undefined;
  readonly bytes: number;
  readonly write: boolean;
}
/** A general register, or the address that another record left, gets a value. */
export interface FormEffect {
  readonly of: "register" | "slot";
  readonly at: number;
  readonly origin: Origin | undefined;
}
export interface AccessFacts {
  readonly accesses: readonly FormAccess[];
  readonly effects: readonly FormEffect[];
  /** Registers or flags are written in an arm that may not be taken, or behind the definition's back. */
  readonly conditional: boolean;
  /** The same, where `ifAll` has an arm for what is out of the ordinary. */
  readonly alternative: boolean;
  /** It may fault, or be the interpreter's, for another reason than an access. */
  readonly faults: boolean;
}

/** A constant, or the immediate. */
interface Known extends Value {
  readonly constant?: number;
  readonly immediate?: true;
  readonly origin?: Origin | undefined;
}
const i64 = (more: Omit<Known, "type">): Known => ({ type: "i64", ...more });
const originOf = (of: OriginTerm["of"], at: number): Origin => ({ terms: [{ of, at }], add: 0, immediates: 0 });

class AccessSem extends FactSem {
  readonly accesses: FormAccess[] = [];
  readonly effects: FormEffect[] = [];
  conditional = false;
  alternative = false;
  faults = false;
  #arms = 0;
  #alternatives = 0;
  #written = false;
  readonly #of: Pick<Form, "width" | "operands" | "noFlags">;
  readonly #readWrite = new Set<number>();

  constructor(form: Pick<Form, "width" | "operands" | "noFlags">) {
    super(form);
    this.#of = form;
  }
  // ---- effects --------------------------------------------------------------------------------------------------------
  #effect(): void {
    if (this.#arms > 0) this.conditional = true;
    else if (this.#alternatives > 0) this.alternative = true;
    this.#written = true;
  }
  #sets(of: "register" | "slot", at: number, value: Value | undefined): void {
    this.#effect();
    this.effects.push({ of, at, origin: this.#arms > 0 ? undefined : (value as Known | undefined)?.origin });
  }
  #access(origin: Origin | undefined, bytes: number, write: boolean): void {
    this.accesses.push({ origin: this.#arms + this.#alternatives > 0 ? undefined : origin, bytes, write });
    if (write) this.#written = true;
  }
  #operandAt(i: number, bytes: number, write: boolean): void {
    if (this.isMemory(i)) this.#access(originOf("memory", i), bytes, write);
    else if (write) this.#sets("register", i, undefined);
  }
  // ---- operands -------------------------------------------------------------------------------------------------------
  #value(i: number): Value {
    const { kind, width } = this.#of.operands[i]!;
    if (kind === "i") return this.width === 64 ? i64({ immediate: true }) : super.read(i);
    if (kind === "r" && width === 64) return i64({ origin: originOf("register", i) });
    if (this.isMemory(i)) this.#operandAt(i, width / 8, false);
    return super.read(i);
  }
  override read(i: number): Value {
    return this.#value(i);
  }
  override readU(i: number): Value {
    return this.#value(i);
  }
  override readWrite(i: number): Value {
    if (!this.isMemory(i)) return this.#value(i);
    this.probeWrite(i);
    return super.read(i);
  }
  override probeWrite(i: number): void {
    this.#readWrite.add(i);
    this.#operandAt(i, this.#of.operands[i]!.width / 8, true);
  }
  override write(i: number, value?: Value): void {
    if (!this.isMemory(i)) this.#sets("register", i, this.#of.operands[i]!.width === 64 ? value : undefined);
    else if (!this.#readWrite.has(i)) this.#operandAt(i, this.#of.operands[i]!.width / 8, true);
  }
  override readV(i: number): Value {
    this.#operandAt(i, 16, false);
    return super.readV(i);
  }
  override writeV(i: number): void {
    this.#operandAt(i, 16, true);
  }
  override readF32(i: number): Value {
    this.#operandAt(i, 4, false);
    return super.readF32(i);
  }
  override readF64(i: number): Value {
    this.#operandAt(i, 8, false);
    return super.readF64(i);
  }
  override writeF32(i: number): void {
    this.#operandAt(i, 4, true);
  }
  override writeF64(i: number): void {
    this.#operandAt(i, 8, true);
  }
  override readLow(i: number, width: 32 | 64): Value {
    this.#operandAt(i, width / 8, false);
    return super.readLow(i, width);
  }
  override writeLow(i: number, width?: 32 | 64): void {
    this.#operandAt(i, width! / 8, true);
  }
  override slot(offset: number, width: Width): Value {
    if (width !== 64) return super.slot(offset, width);
    return i64({ origin: originOf("slot", offset) });
  }
  override setSlot(offset?: number, width?: Width, value?: Value): void {
    this.#sets("slot", offset!, width === 64 ? value : undefined);
  }
  override load(address: Value, width: Width): Value {
    this.#access((address as Known).origin, width / 8, false);
    return super.load(address, width);
  }
  override store(address?: Value, width?: Width): void {
    this.#access((address as Known).origin, width! / 8, true);
  }
  override address(i?: number): Value {
    return i64({ origin: originOf("memory", i!) });
  }
  override fieldRegister(): Value {
    return i64({ origin: originOf("field", 0) });
  }
  override immediate(): Value {
    return i64({ immediate: true });
  }
  // ---- values ---------------------------------------------------------------------------------------------------------
  override const64(value?: number): Value {
    return i64({ constant: value! });
  }
  override constW(value?: number): Value {
    return this.width === 64 ? i64({ constant: value! }) : super.constW();
  }
  override bin(op: BinaryOp, a: Value, b?: Value): Value {
    if (a.type !== "i64" || (op !== "add" && op !== "sub")) return { type: a.type };
    let x = a as Known;
    let y = b as Known;
    if (op === "add" && x.origin === undefined) [x, y] = [y, x];
    const sign = op === "add" ? 1 : -1;
    const { origin } = x;
    if (origin === undefined) return i64({});
    if (y.constant !== undefined) return i64({ origin: { ...origin, add: origin.add + sign * y.constant } });
    if (op === "add" && y.origin !== undefined && origin.immediates * y.origin.immediates === 0)
      return i64({
        origin: {
          terms: [...origin.terms, ...y.origin.terms],
          add: origin.add + y.origin.add,
          immediates: origin.immediates + y.origin.immediates,
        },
      });
    if (y.immediate === true && origin.immediates === 0) return i64({ origin: { ...origin, immediates: sign } });
    return i64({});
  }
  override select(_c: Value, a: Value): Value {
    return { type: a.type };
  }
  override norm(a: Value, width?: Width): Value {
    return width === 64 ? a : { type: a.type };
  }
  override zext(a: Value, width?: Width): Value {
    return width! >= 32 ? a : { type: a.type };
  }
  override clz(a: Value): Value {
    return { type: a.type };
  }
  override ctz(a: Value): Value {
    return { type: a.type };
  }
  override popcnt(a: Value): Value {
    return { type: a.type };
  }
  override wasm(_op: string, type: ValueType): Value {
    return { type };
  }
  // ---- control --------------------------------------------------------------------------------------------------------
  override flags(): void {
    if (!this.#of.noFlags) this.#effect();
  }
  override raise(): void {
    this.faults = true;
  }
  override faultUnless(): void {
    this.faults = true;
  }
  override call(name: string): Value {
    if ("faults" in Helper[name as HelperName]) this.faults = true;
    // the divisions work on RAX and RDX in the block (region-sem.ts)
    if (name === "div" || name === "idiv") {
      this.conditional = true;
      for (const n of [0, 2]) this.effects.push({ of: "slot", at: Vp.gpr + n * 8, origin: undefined });
    }
    return super.call(name);
  }
  #arm(body: () => void): void {
    this.#arms++;
    body();
    this.#arms--;
  }
  override if(_condition: Value, then: () => void, otherwise?: () => void): void {
    this.#arm(then);
    if (otherwise !== undefined) this.#arm(otherwise);
  }
  override ifCount(_count: Value, then: () => void): void {
    if (this.#of.operands[1]?.kind === "i") then();
    else this.#arm(then);
  }
  override ifAll(conditions: readonly (readonly (() => Value)[])[], then: () => void, otherwise: () => void): void {
    const both = this.#written;
    for (const condition of conditions.flat()) condition();
    if (both) {
      this.#arm(then);
      this.#arm(otherwise);
      return;
    }
    this.faults = true;
    this.#alternatives++;
    then();
    otherwise();
    this.#alternatives--;
  }
}

const known = new WeakMap<Form, AccessFacts>();
/** Found when they are first asked for. */
export function accessFacts(form: Form): AccessFacts {
  let facts = known.get(form);
  if (facts === undefined) {
    const sem = new AccessSem(form);
    form.define(sem);
    const { accesses, effects, conditional, alternative, faults } = sem;
    known.set(form, (facts = { accesses, effects, conditional, alternative, faults }));
  }
  return facts;
}
