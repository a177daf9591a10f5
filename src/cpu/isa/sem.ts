/**
 * The language in which an instruction's meaning is written, once. A definition is a function over `Sem`; the interpreter
 * generator runs it with operands bound to a decoded record's fields, the region compiler with operands bound to constants
 * and locals, the decoder with a recorder that only notes what the definition reads, writes and may fault on.
 *
 * Values of 8 to 32 bits are i32, of 64 bits i64; `read` sign-extends, `readU` zero-extends, narrow results are brought
 * back to sign-extended form by `norm`. Rule: everything that can fault comes before the first architectural write; a back
 * end throws while it generates if a definition breaks it.
 */

export type ValueType = "i32" | "i64" | "f32" | "f64" | "v128";

/** A value of the back end. Opaque to definitions. */
export interface Value {
  readonly type: ValueType;
}

export type Width = 8 | 16 | 32 | 64;
export type BinaryOp =
  | "add"
  | "sub"
  | "mul"
  | "and"
  | "or"
  | "xor"
  | "shl"
  | "shr_s"
  | "shr_u"
  | "rotl"
  | "rotr"
  | "div_s"
  | "div_u"
  | "rem_s"
  | "rem_u";
export type CompareOp = "eq" | "ne" | "lt_s" | "lt_u" | "gt_s" | "gt_u" | "le_s" | "le_u" | "ge_s" | "ge_u";

/** x86 condition codes, as encoded in Jcc. */
export const Cc = {
  o: 0,
  no: 1,
  b: 2,
  ae: 3,
  z: 4,
  nz: 5,
  be: 6,
  a: 7,
  s: 8,
  ns: 9,
  p: 10,
  np: 11,
  l: 12,
  ge: 13,
  le: 14,
  g: 15,
} as const;
export type FlagName = "sub" | "sbb" | "add" | "inc" | "dec" | "explicit" | "packed";

export interface Sem {
  /** Width of the operation in bits (of a vector operation: 128). */
  readonly width: Width;
  /** Width of the i-th operand in bits. */
  operandWidth(i: number): number;
  isMemory(i: number): boolean;

  const32(value: number): Value;
  const64(value: number): Value;
  /** A constant of the type of the operation's width. */
  constW(value: number): Value;

  read(i: number): Value;
  readU(i: number): Value;
  /** Reads an operand that will be written too: memory is translated for writing first. */
  readWrite(i: number): Value;
  /** Translates a memory operand for writing, so that no later write of it can fault. */
  probeWrite(i: number): void;
  write(i: number, value: Value): void;
  /** The immediate of operand i as i64 or i32 by width. */
  address(i: number): Value;
  /** Reads a vector register or memory operand of 16 bytes. */
  readV(i: number): Value;
  writeV(i: number, value: Value): void;
  /** Low element of a vector register or a memory operand of that size. */
  readF32(i: number): Value;
  readF64(i: number): Value;
  writeF32(i: number, value: Value): void;
  writeF64(i: number, value: Value): void;
  /** Low 32 or 64 bits of a vector register or memory, as integer of the operand's width. */
  readLow(i: number, width: 32 | 64): Value;
  writeLow(i: number, width: 32 | 64, value: Value): void;

  /** A fixed place in the processor's block, by its Vp offset. */
  slot(offset: number, width: Width, signed?: boolean): Value;
  setSlot(offset: number, width: Width, value: Value): void;
  /** 16 bytes of the block. */
  slotV(offset: number): Value;

  load(address: Value, width: Width, signed?: boolean): Value;
  store(address: Value, width: Width, value: Value): void;

  bin(op: BinaryOp, a: Value, b: Value): Value;
  cmp(op: CompareOp, a: Value, b: Value): Value;
  eqz(a: Value): Value;
  clz(a: Value): Value;
  ctz(a: Value): Value;
  popcnt(a: Value): Value;
  select(condition: Value, a: Value, b: Value): Value;
  wrap(a: Value): Value;
  extendS(a: Value): Value;
  extendU(a: Value): Value;
  /** Sign-extends the low `width` bits within the value's own type. */
  norm(a: Value, width: Width): Value;
  zext(a: Value, width: Width): Value;
  /** Any one-operand or two-operand Wasm opcode without immediate, by its name (`f64_add`). */
  wasm(op: string, type: ValueType, ...args: Value[]): Value;
  /** A SIMD opcode by number; `lane` for lane forms. */
  simd(op: number, type: ValueType, args: Value[], lane?: number): Value;
  shuffle(a: Value, b: Value, lanes: readonly number[]): Value;
  constV(bytes: Uint8Array): Value;

  flags(kind: FlagName, a: Value, b: Value, r: Value): void;
  /** CF as 0 or 1. */
  carry(): Value;
  condition(cc: number): Value;
  /** The six arithmetic flags at their places in RFLAGS. */
  packedFlags(): Value;
  /** The same, wanted only to be written back with some of them changed: nothing in a variant whose flags nobody sees. */
  keptFlags(): Value;
  /** `if` on a shift count; one that is an immediate is not 0 (the decoder sees to that). */
  ifCount(count: Value, then: () => void): void;

  /** Calls a runtime function (Helper in runtime-calls.ts). A faulting one returns 0 for "fault recorded". */
  call(name: string, ...args: Value[]): Value;
  /** Leaves by the fault path if `condition` is 0: the callee has recorded the fault. */
  faultUnless(condition: Value): void;
  raise(vector: number, error?: number): void;
  if(condition: Value, then: () => void, otherwise?: () => void): void;
  /**
   * `then` if of each list of conditions one is not 0, which is what is expected of the first; each is computed when those before it in
   * its list did not hold. `otherwise` may be left to another back end where the definition has written nothing yet.
   */
  ifAll(conditions: readonly (readonly (() => Value)[])[], then: () => void, otherwise: () => void): void;
  /**
   * 1 if MXCSR lets SSE arithmetic go the host's way: its control bits are those after reset (comparisons and exact conversions
   * change flags with NaNs only) and, where `inexact` is asked for, its inexact flag is set already.
   */
  ordinaryFloat(inexact: boolean): Value;

  /** RIP of this instruction; of the next one. */
  slotRip(): Value;
  nextRip(): Value;
  /** The register named by the record's second register field, 64 bits (micro-operations). */
  fieldRegister(): Value;
  jump(): void;
  jumpIf(condition: Value): void;
  jumpTo(target: Value): void;
  /** What another thread sees of the accesses before and after it is in this order (SDM vol. 3, "Memory Ordering"). */
  fence(): void;
  /** Only in cold forms: leaves with a Status value that a helper returned. */
  leave(status: Value): void;
  /** Raw fields of the record, for helpers: the record's address. */
  record(): Value;
  immediate(): Value;
  /** The immediate where the back end knows it while it generates: shuffles become constant then. */
  knownImmediate(): number | undefined;
}

export type Definition = (s: Sem) => void;
