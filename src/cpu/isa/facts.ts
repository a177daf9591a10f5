/** A back end that runs a definition for nothing but to note what it reads, writes and may fault on. */

import type { Facts, Form } from "./forms.js";
import { Helper, type HelperName } from "./runtime-calls.js";
import type { FlagName, Sem, Value, ValueType, Width } from "./sem.js";

const value = (type: ValueType): Value => ({ type });
const I32 = value("i32");
const I64 = value("i64");
const V128 = value("v128");

export class FactSem implements Sem {
  readsFlags = false;
  writesFlags = false;
  touchesFlags = false;
  canFault = false;
  canLeave = false;
  stores = false;
  procedure = false;
  #depth = 0;
  readonly #form: Pick<Form, "width" | "operands" | "noFlags">;
  constructor(form: Pick<Form, "width" | "operands" | "noFlags">) {
    this.#form = form;
  }
  get width(): Width {
    return this.#form.width;
  }
  operandWidth(i: number): number {
    return this.#form.operands[i]!.width;
  }
  isMemory(i: number): boolean {
    const kind = this.#form.operands[i]!.kind;
    return kind === "m" || kind === "x";
  }
  #operand(i: number): Value {
    const { kind, width } = this.#form.operands[i]!;
    if (this.isMemory(i)) this.canFault = true;
    return (kind === "i" ? this.width : width) === 64 ? I64 : I32;
  }
  #touch(i: number): void {
    if (this.isMemory(i)) this.canFault = true;
  }
  #store(i: number): void {
    this.#touch(i);
    if (this.isMemory(i)) this.stores = true;
  }
  const32(): Value {
    return I32;
  }
  const64(): Value {
    return I64;
  }
  constW(): Value {
    return this.width === 64 ? I64 : I32;
  }
  read(i: number): Value {
    return this.#operand(i);
  }
  readU(i: number): Value {
    return this.#operand(i);
  }
  readWrite(i: number): Value {
    return this.#operand(i);
  }
  probeWrite(i: number): void {
    this.#store(i);
  }
  write(i: number): void {
    this.#store(i);
  }
  address(): Value {
    return I64;
  }
  readV(i: number): Value {
    this.#touch(i);
    return V128;
  }
  writeV(i: number): void {
    this.#store(i);
  }
  readF32(i: number): Value {
    this.#touch(i);
    return value("f32");
  }
  readF64(i: number): Value {
    this.#touch(i);
    return value("f64");
  }
  writeF32(i: number): void {
    this.#store(i);
  }
  writeF64(i: number): void {
    this.#store(i);
  }
  readLow(i: number, width: 32 | 64): Value {
    this.#touch(i);
    return width === 64 ? I64 : I32;
  }
  writeLow(i: number): void {
    this.#store(i);
  }
  slot(_o: number, width: Width): Value {
    return width === 64 ? I64 : I32;
  }
  setSlot(): void {}
  slotV(): Value {
    return V128;
  }
  load(_a: Value, width: Width): Value {
    this.canFault = true;
    return width === 64 ? I64 : I32;
  }
  store(): void {
    this.canFault = true;
    this.stores = true;
  }
  bin(_op: string, a: Value): Value {
    return a;
  }
  cmp(): Value {
    return I32;
  }
  eqz(): Value {
    return I32;
  }
  clz(a: Value): Value {
    return a;
  }
  ctz(a: Value): Value {
    return a;
  }
  popcnt(a: Value): Value {
    return a;
  }
  select(_c: Value, a: Value): Value {
    return a;
  }
  wrap(): Value {
    return I32;
  }
  extendS(): Value {
    return I64;
  }
  extendU(): Value {
    return I64;
  }
  norm(a: Value): Value {
    return a;
  }
  zext(a: Value): Value {
    return a;
  }
  wasm(_op: string, type: ValueType): Value {
    return value(type);
  }
  simd(_op: number, type: ValueType): Value {
    return value(type);
  }
  shuffle(): Value {
    return V128;
  }
  constV(): Value {
    return V128;
  }
  flags(_kind: FlagName): void {
    this.touchesFlags = true;
    if (this.#form.noFlags) return;
    if (this.#depth === 0) this.writesFlags = true;
  }
  #flag(): Value {
    this.readsFlags = true;
    return I32;
  }
  carry(): Value {
    return this.#flag();
  }
  condition(): Value {
    return this.#flag();
  }
  packedFlags(): Value {
    return this.#flag();
  }
  keptFlags(): Value {
    return this.#form.noFlags ? I32 : this.#flag();
  }
  ifCount(_count: Value, then: () => void): void {
    if (this.#form.operands[1]?.kind !== "i") this.#depth++;
    then();
    if (this.#form.operands[1]?.kind !== "i") this.#depth--;
  }
  call(name: string): Value {
    const helper = Helper[name as HelperName];
    if ("faults" in helper) this.canFault = true;
    return helper.result === undefined ? I32 : value(helper.result);
  }
  fence(): void {}
  faultUnless(): void {
    this.canFault = true;
  }
  raise(): void {
    this.canFault = true;
  }
  if(_condition: Value, then: () => void, otherwise?: () => void): void {
    this.#depth++;
    then();
    otherwise?.();
    this.#depth--;
  }
  ifAll(conditions: readonly (readonly (() => Value)[])[], then: () => void, otherwise: () => void): void {
    for (const condition of conditions.flat()) this.if(condition(), () => {});
    this.if(I32, then, otherwise);
  }
  ordinaryFloat(): Value {
    return I32;
  }
  slotRip(): Value {
    return I64;
  }
  nextRip(): Value {
    return I64;
  }
  fieldRegister(): Value {
    return I64;
  }
  jump(): void {
    this.#leave();
  }
  jumpIf(): void {
    this.#leave();
  }
  jumpTo(): void {
    this.#leave();
  }
  leave(): void {
    this.procedure = true;
    this.#leave();
  }
  #leave(): void {
    this.canLeave = true;
    // whoever runs next may look at the flags
    this.readsFlags = true;
  }
  record(): Value {
    return I32;
  }
  immediate(): Value {
    return I64;
  }
  knownImmediate = (): number | undefined => undefined;
}

export function recordFacts(form: Omit<Form, "facts" | "id" | "hot">): Facts {
  const sem = new FactSem(form);
  form.define(sem);
  const { readsFlags, writesFlags, touchesFlags, canFault, canLeave, procedure, stores } = sem;
  return { readsFlags, writesFlags, touchesFlags, canFault, canLeave, procedure, stores };
}
