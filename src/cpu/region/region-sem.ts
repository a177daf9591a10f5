/**
 * The back end of the region compiler: an instruction's operands are bound while it is written, registers and flags are locals of
 * the region's function, immediates are constants. Memory goes by the same software TLB as the interpreter's; what misses it asks
 * the runtime, and what is not plain RAM there leaves the region, so that the interpreter does that one instruction.
 */
import type { DecodedRecord } from "../decode/block-builder.js";
import { StringOp, System } from "../isa/rows-integer.js";
import { Helper, type HelperName } from "../isa/runtime-calls.js";
import type { FlagName, Sem, Value, ValueType, Width } from "../isa/sem.js";
import { FlagKind, MXCSR_STRICT, REC_BYTES, Rec, Status, TLB_ENTRIES, TLB_WRITE, Vp } from "../layout.js";
import type { FunctionBuilder } from "../wasm/assembler.js";
import { EmittingSem, LOADS, type Local, type Scratch, STORES } from "../wasm/emitting-sem.js";

/** Registers are kept in locals; the vector registers in the block. */
const GPR_END = Vp.zero;

/** What is known about the lazy flags while code is written. */
export interface FlagState {
  /** Value of FlagKind, undefined = only known at run time. */
  readonly kind: number | undefined;
  /** The narrow copies hold the same: the last operation had at most 32 bits. */
  readonly narrow: boolean;
}
export const UNKNOWN_FLAGS: FlagState = { kind: undefined, narrow: false };

/** Registers by number. */
export interface RegisterUse {
  readonly usedRegisters: ReadonlySet<number>;
  readonly writtenRegisters: ReadonlySet<number>;
  readonly usedVectors: ReadonlySet<number>;
  readonly writtenVectors: ReadonlySet<number>;
}

/** The function being written. */
export interface RegionFunction {
  readonly f: FunctionBuilder;
  readonly scratch: Scratch;
  /** Of the processor's block. */
  readonly base: number;
  readonly helpers: ReadonlyMap<HelperName | RegionHelperName, number>;
  /** First byte of the TLB of the region's privilege level. */
  readonly tlb: number;
  /** Locals. */
  readonly gpr: readonly number[];
  readonly ripPage: number;
  readonly tempAddress: number;
  readonly flagA: number;
  readonly flagB: number;
  readonly flagR: number;
  readonly flagKind: number;
  readonly narrowA: number;
  readonly narrowB: number;
  readonly narrowR: number;
  /**
   * What the runtime said of an access that cannot be done here: 0 = a fault is recorded, 1 = the interpreter has to do it; -1: nothing is
   * wrong, but the region has to be left.
   */
  readonly refusal: number;
  /** Where in the region (relative to ripPage) it was, and how many instructions of its block were done before. */
  readonly leftAt: number;
  readonly leftAfter: number;
  /** Label of the code that leaves by `refusal`. */
  leave: number;
  flags: FlagState;
  readonly usedRegisters: Set<number>;
  readonly writtenRegisters: Set<number>;
  /** XMM0..XMM15. */
  readonly xmm: readonly number[];
  readonly usedVectors: Set<number>;
  readonly writtenVectors: Set<number>;
  /** MXCSR, xor what lets arithmetic go the host's way. */
  readonly float: number;
  usesFloat: boolean;
  readonly budget: number;
  /** Regions that had died when the region was entered, for procedures that may write code. */
  readonly deaths: number;
  usesDeaths: boolean;
  /** Label of the code that leaves with all but the budget in the block. */
  procedureLeft: number;
  readonly status: number;
  /** Registers that the whole region uses: what procedures find in the block and may change there. */
  readonly whole: RegisterUse;
  /** Puts bytes where they stay as long as the region, and gives their address. */
  readonly keep: (bytes: Uint8Array) => number;
}

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
/** The lazy flags from the block. */
export function loadFlags(
  f: FunctionBuilder,
  c: Pick<RegionFunction, "base" | "flagA" | "flagB" | "flagR" | "flagKind">,
): void {
  for (const [local, at] of [
    [c.flagA, Vp.flagA],
    [c.flagB, Vp.flagB],
    [c.flagR, Vp.flagR],
  ] as const) {
    f.i32(0);
    f.mem("i64_load", c.base + at, 3);
    f.set(local);
  }
  f.i32(0);
  f.mem("i32_load", c.base + Vp.flagKind, 2);
  f.set(c.flagKind);
}
const isVector = (offset: number): boolean => offset >= Vp.xmm && offset < Vp.xmm + 256;
/** Lane opcodes of WebAssembly's SIMD by element. */
const EXTRACT: Readonly<Record<string, number>> = {
  "8s": 21,
  "8": 22,
  "16s": 24,
  "16": 25,
  "32": 27,
  "64": 29,
  f32: 31,
  f64: 33,
};
const REPLACE: Readonly<Record<string, number>> = { 8: 23, 16: 26, 32: 28, 64: 30, f32: 32, f64: 34 };
/** MXCSR as arithmetic in the region looks at it: 0 = the host's way, all but PE 0 = for what is exact. */
export function loadFloat(f: FunctionBuilder, c: Pick<RegionFunction, "base" | "float">): void {
  f.i32(0);
  f.mem("i32_load", c.base + Vp.mxcsr, 2);
  f.i32(MXCSR_STRICT | 0xffe0);
  f.op("i32_and");
  f.i32(0x1fa0);
  f.op("i32_xor");
  f.set(c.float);
}

/** The runtime's functions for regions: linear address, bytes -> address in the memory, 0 = fault, 1 = for the interpreter. */
export const RegionHelper = {
  regionRead: { params: ["i64", "i32"], result: "i32" },
  regionWrite: { params: ["i64", "i32"], result: "i32" },
  /** RegionPages, base -> whether they are right. */
  regionPages: { params: ["i32", "i64"], result: "i32" },
} as const;
export type RegionHelperName = keyof typeof RegionHelper;

/** How the instruction ends its basic block. */
export type Ending =
  | { readonly how: "jump" }
  | { readonly how: "branch"; readonly condition: Local }
  | { readonly how: "indirect"; readonly target: Local };

export class RegionSem extends EmittingSem implements Sem {
  ending: Ending | undefined;
  readonly #c: RegionFunction;
  readonly #r: DecodedRecord;
  /** Distance of the instruction's page from the region's, in bytes. */
  readonly #page: number;
  /** Instructions of the block before this one. */
  readonly #before: number;
  /** Nobody can see the flags of this instruction. */
  readonly #deadFlags: boolean;
  /** It is the last instruction of its block. */
  readonly #last: boolean;
  #plain = false;
  #vectors = false;
  #writesFlags = false;

  constructor(
    c: RegionFunction,
    record: DecodedRecord,
    page: number,
    before: number,
    deadFlags: boolean,
    last: boolean,
  ) {
    super(c.f, record.form, c.scratch);
    this.#c = c;
    this.#r = record;
    this.#page = page;
    this.#before = before;
    this.#deadFlags = deadFlags;
    this.#last = last;
  }

  // ---- operands -------------------------------------------------------------------------------------------------------
  #registerOffset(i: number): number {
    let field = 0;
    for (let k = 0; k < i; k++) if (this.form.operands[k]!.kind === "r") field++;
    const r = this.#r;
    return field === 0 ? r.dst : field === 1 ? r.src : r.src2 * 8;
  }
  /** Puts 64 bits of a register, a segment base or the like on the stack. @returns false = it is zero, nothing is put */
  #pushSlot64(offset: number): boolean {
    if (offset === Vp.zero) return false;
    if (offset < GPR_END) {
      this.#c.usedRegisters.add(offset >> 3);
      this.f.get(this.#c.gpr[offset >> 3]!);
    } else if (offset === Vp.ripPage) this.f.get(this.#c.ripPage);
    else if (offset === Vp.tempAddress) this.f.get(this.#c.tempAddress);
    else {
      this.f.i32(0);
      this.f.mem("i64_load", this.#c.base + offset, 3);
    }
    return true;
  }
  address(i: number): Value {
    const known = this.places[i];
    if (known !== undefined) return { type: "i64", local: known } as Local;
    const { f } = this;
    const { base, index, scale } = this.#r;
    const disp = this.#r.disp + (base === Vp.ripPage ? this.#page : 0);
    let any = this.#pushSlot64(base);
    if (this.form.operands[i]!.kind === "x" && index !== Vp.zero) {
      this.#pushSlot64(index);
      if (scale > 0) {
        f.i64(scale);
        f.op("i64_shl");
      }
      if (any) f.op("i64_add");
      any = true;
    }
    if (!any) f.i64(disp);
    else if (disp !== 0) {
      f.i64(disp);
      f.op("i64_add");
    }
    const v = this.fresh("i64");
    this.places[i] = v.local;
    return v;
  }
  immediate(): Value {
    return this.#const64(this.#r.immLow, this.#r.immHigh);
  }
  #const64(low: number, high: number): Value {
    this.f.i64Words(low, high);
    return this.fresh("i64");
  }
  knownImmediate(): number | undefined {
    return this.#r.immLow & 0xff;
  }
  #immediate(signed: boolean): Value {
    const { immLow, immHigh } = this.#r;
    if (this.width === 64) return this.#const64(immLow, immHigh);
    const shift = 32 - this.width;
    return this.const32(
      signed ? (immLow << shift) >> shift : this.width === 32 ? immLow : immLow & ((1 << this.width) - 1),
    );
  }
  record(): Value {
    const { raw } = this.#r;
    if (raw === undefined) throw new Error(`${this.form.name}: no record in a region`);
    // what comes behind it looks like an instruction, unless it is the last of its block (STI, in system.ts)
    const kept = new Uint8Array(2 * REC_BYTES);
    kept.set(raw);
    kept[REC_BYTES + Rec.length] = this.#last ? 0 : 1;
    return this.const32(this.#c.keep(kept));
  }
  #readRegister(offset: number, width: number, signed: boolean): Value {
    const { f } = this;
    const n = offset >> 3;
    this.#c.usedRegisters.add(n);
    f.get(this.#c.gpr[n]!);
    if (width === 64) return this.fresh("i64");
    f.op("i32_wrap_i64");
    if (width === 32) return this.fresh("i32");
    if ((offset & 7) !== 0) {
      f.i32(8);
      f.op("i32_shr_u");
    }
    if (signed) f.op(width === 8 ? "i32_extend8_s" : "i32_extend16_s");
    else {
      f.i32(width === 8 ? 0xff : 0xffff);
      f.op("i32_and");
    }
    return this.fresh("i32");
  }
  #writeRegister(offset: number, width: number, value: Value): void {
    const { f } = this;
    const n = offset >> 3;
    const local = this.#c.gpr[n]!;
    this.#c.usedRegisters.add(n);
    this.#c.writtenRegisters.add(n);
    this.effects = true;
    if (width === 64) {
      this.push(value);
      f.set(local);
      return;
    }
    if (width === 32) {
      this.push(value);
      f.op("i64_extend_i32_u");
      f.set(local);
      return;
    }
    const shift = (offset & 7) * 8;
    const mask = width === 8 ? 0xff : 0xffff;
    f.get(local);
    f.i64(-1 - mask * 2 ** shift);
    f.op("i64_and");
    this.push(value);
    f.i32(mask);
    f.op("i32_and");
    f.op("i64_extend_i32_u");
    if (shift > 0) {
      f.i64(shift);
      f.op("i64_shl");
    }
    f.op("i64_or");
    f.set(local);
  }
  protected readOperand(i: number, signed: boolean): Value {
    const { kind, width } = this.form.operands[i]!;
    if (kind === "i") return this.#immediate(signed);
    if (kind === "c") return this.#readRegister(Vp.gpr + 8, 8, false);
    if (kind === "r") return this.#readSlot(this.#registerOffset(i), width as Width, signed);
    return this.load(this.address(i), width as Width, signed);
  }
  write(i: number, value: Value): void {
    const { kind, width } = this.form.operands[i]!;
    if (kind === "r") {
      this.setSlot(this.#registerOffset(i), width as Width, value);
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
  }

  // ---- memory ---------------------------------------------------------------------------------------------------------
  /** Leaves the region at this instruction if the local is 0 (fault) or 1 (for the interpreter). */
  #leaveIfRefused(host: number): void {
    const { f } = this;
    f.get(host);
    f.i32(2);
    f.op("i32_lt_u");
    f.if();
    f.get(host);
    f.set(this.#c.refusal);
    this.#leaveHere();
    f.end();
  }
  #leaveHere(): void {
    this.#leaveAt(this.#page + this.#r.pageOffset, this.#before);
  }
  #leaveAt(offset: number, after: number): void {
    const { f } = this;
    f.i32(offset);
    f.set(this.#c.leftAt);
    f.i32(after);
    f.set(this.#c.leftAfter);
    f.br(this.#c.leave);
  }
  /** @returns the local that holds the address in the memory */
  protected translate(va: Value, bytes: number, write: boolean): number {
    this.checkFault();
    const { f } = this;
    const entry = this.scratch.take("i32");
    const host = this.scratch.take("i32");
    const tlb = this.#c.tlb + (write ? TLB_WRITE : 0);
    this.push(va);
    f.i64(8);
    f.op("i64_shr_u");
    f.op("i32_wrap_i64");
    f.i32((TLB_ENTRIES - 1) * 16);
    f.op("i32_and");
    f.tee(entry);
    f.mem("i64_load", tlb, 3);
    this.push(va);
    f.op("i64_xor");
    f.i64(4096 - bytes);
    f.op("i64_le_u");
    f.likely();
    f.if("i32");
    this.push(va);
    f.op("i32_wrap_i64");
    f.get(entry);
    f.mem("i32_load", tlb + 8, 2);
    f.op("i32_add");
    f.else();
    this.push(va);
    f.i32(bytes);
    f.call(this.#c.helpers.get(write ? "regionWrite" : "regionRead")!);
    f.set(host);
    this.#leaveIfRefused(host);
    f.get(host);
    f.end();
    f.set(host);
    return host;
  }
  load(address: Value, width: Width, signed = true): Value {
    const host = this.translate(address, width / 8, false);
    this.f.get(host);
    this.f.mem(LOADS[`${width}${signed ? "s" : "u"}`]!, 0);
    return this.fresh(width === 64 ? "i64" : "i32");
  }
  store(address: Value, width: Width, value: Value): void {
    const host = this.translate(address, width / 8, true);
    this.f.get(host);
    this.push(value);
    this.f.mem(STORES[width]!, 0);
    this.effects = true;
  }
  // ---- vectors --------------------------------------------------------------------------------------------------------
  /** Puts a vector register on the stack. */
  #pushVector(n: number): void {
    this.#c.usedVectors.add(n);
    this.f.get(this.#c.xmm[n]!);
  }
  #setVector(n: number): void {
    this.#c.usedVectors.add(n);
    this.#c.writtenVectors.add(n);
    this.f.set(this.#c.xmm[n]!);
    this.effects = true;
  }
  /** An element of a vector register, which keeps its other bytes. */
  #replaceLane(offset: number, width: Width, value: Value): void {
    const n = (offset - Vp.xmm) >> 4;
    this.#pushVector(n);
    this.push(value);
    this.f.simdLane(
      REPLACE[value.type === "f64" || value.type === "f32" ? value.type : width]!,
      ((offset & 15) * 8) / width,
    );
    this.#setVector(n);
  }
  #extractLane(offset: number, width: Width, signed: boolean): Value {
    this.#pushVector((offset - Vp.xmm) >> 4);
    this.f.simdLane(EXTRACT[`${width}${width < 32 && signed ? "s" : ""}`]!, ((offset & 15) * 8) / width);
    return this.fresh(width === 64 ? "i64" : "i32");
  }
  #readFloat(i: number, type: "f32" | "f64"): Value {
    const bytes = type === "f64" ? 8 : 4;
    if (this.isMemory(i)) {
      const host = this.translate(this.address(i), bytes, false);
      this.f.get(host);
      this.f.mem(`${type}_load`, 0);
    } else {
      this.#pushVector((this.#registerOffset(i) - Vp.xmm) >> 4);
      this.f.simdLane(EXTRACT[type]!, 0);
    }
    return this.fresh(type);
  }
  override readF32(i: number): Value {
    return this.#readFloat(i, "f32");
  }
  override readF64(i: number): Value {
    return this.#readFloat(i, "f64");
  }
  override writeF32(i: number, value: Value): void {
    if (this.isMemory(i)) super.writeF32(i, value);
    else this.#replaceLane(this.#registerOffset(i), 32, value);
  }
  override writeF64(i: number, value: Value): void {
    if (this.isMemory(i)) super.writeF64(i, value);
    else this.#replaceLane(this.#registerOffset(i), 64, value);
  }
  override ordinaryFloat(inexact: boolean): Value {
    this.#c.usesFloat = true;
    this.f.get(this.#c.float);
    if (!inexact) {
      this.f.i32(~0x20);
      this.f.op("i32_and");
    }
    this.f.op("i32_eqz");
    return this.fresh("i32");
  }
  readV(i: number): Value {
    if (!this.isMemory(i)) return this.slotV(this.#registerOffset(i));
    const host = this.translate(this.address(i), 16, false);
    this.f.get(host);
    this.f.simdMem(0, 0);
    return this.fresh("v128");
  }
  writeV(i: number, value: Value): void {
    const offset = this.isMemory(i) ? -1 : this.#registerOffset(i);
    if (isVector(offset)) {
      this.push(value);
      this.#setVector((offset - Vp.xmm) >> 4);
    } else if (offset >= 0) {
      this.f.i32(0);
      this.push(value);
      this.f.simdMem(11, this.#c.base + offset, 4);
    } else {
      const host = this.translate(this.address(i), 16, true);
      this.f.get(host);
      this.push(value);
      this.f.simdMem(11, 0);
    }
    this.effects = true;
  }
  readLow(i: number, width: 32 | 64): Value {
    if (this.isMemory(i)) return this.load(this.address(i), width, false);
    return this.#readSlot(this.#registerOffset(i), width, false);
  }
  writeLow(i: number, width: 32 | 64, value: Value): void {
    if (this.isMemory(i)) {
      this.store(this.address(i), width, value);
      return;
    }
    this.#writeBlock(this.#registerOffset(i), width, value);
  }
  /** Anything in the block but a general register. */
  #writeBlock(offset: number, width: Width, value: Value): void {
    if (isVector(offset)) {
      this.#replaceLane(offset, width, value);
      return;
    }
    this.f.i32(0);
    this.push(value);
    this.f.mem(STORES[width]!, this.#c.base + offset);
    this.effects = true;
  }
  #readSlot(offset: number, width: Width, signed: boolean): Value {
    if (offset < GPR_END) return this.#readRegister(offset, width, signed);
    if (offset === Vp.tempAddress) {
      this.f.get(this.#c.tempAddress);
      return this.fresh("i64");
    }
    if (isVector(offset)) return this.#extractLane(offset, width, signed);
    this.f.i32(0);
    this.f.mem(LOADS[`${width}${signed ? "s" : "u"}`]!, this.#c.base + offset);
    return this.fresh(width === 64 ? "i64" : "i32");
  }
  slot(offset: number, width: Width, signed = true): Value {
    return this.#readSlot(offset, width, signed);
  }
  slotV(offset: number): Value {
    if (isVector(offset)) {
      this.#pushVector((offset - Vp.xmm) >> 4);
      return this.fresh("v128");
    }
    this.f.i32(0);
    this.f.simdMem(0, this.#c.base + offset, 4);
    return this.fresh("v128");
  }
  setSlot(offset: number, width: Width, value: Value): void {
    if ((width === 64) !== (value.type === "i64"))
      throw new Error(`${this.form.name}: slot of ${width} bits gets ${value.type}`);
    if (offset < GPR_END) {
      this.#writeRegister(offset, width, value);
      return;
    }
    if (offset === Vp.tempAddress) {
      this.push(value);
      this.f.set(this.#c.tempAddress);
      return;
    }
    this.#writeBlock(offset, width, value);
  }

  // ---- flags ----------------------------------------------------------------------------------------------------------
  flags(kind: FlagName, a: Value, b: Value, r: Value): void {
    if (this.#deadFlags) return;
    const { f } = this;
    const c = this.#c;
    const all32 = a.type === "i32" && b.type === "i32" && r.type === "i32";
    for (const [v, wide, narrow] of [
      [a, c.flagA, c.narrowA],
      [b, c.flagB, c.narrowB],
      [r, c.flagR, c.narrowR],
    ] as const) {
      this.push(v);
      if (all32) f.tee(narrow);
      if (v.type === "i32") f.op("i64_extend_i32_s");
      f.set(wide);
    }
    f.i32(FlagKind[kind]);
    f.set(c.flagKind);
    c.flags = { kind: FlagKind[kind], narrow: all32 };
  }
  /** The last operation's operands and result; sign-extended, so that any width's formulas hold. */
  #flagValues(): { a: Value; b: Value; r: Value; zero: () => Value } {
    const c = this.#c;
    const local = (type: ValueType, n: number): Local => ({ type, local: n });
    return c.flags.narrow
      ? {
          a: local("i32", c.narrowA),
          b: local("i32", c.narrowB),
          r: local("i32", c.narrowR),
          zero: () => this.const32(0),
        }
      : {
          a: local("i64", c.flagA),
          b: local("i64", c.flagB),
          r: local("i64", c.flagR),
          zero: () => this.const64(0),
        };
  }
  /** Bit n of a value as 0 or 1. */
  #bit(v: Value, n: number): Value {
    const narrow = this.wrap(v);
    return this.bin("and", n === 0 ? narrow : this.bin("shr_u", narrow, this.const32(n)), this.const32(1));
  }
  /** The sign of a value as 0 or 1. */
  #sign(v: Value): Value {
    return v.type === "i64"
      ? this.wrap(this.bin("shr_u", v, this.const64(63)))
      : this.bin("shr_u", v, this.const32(31));
  }
  #not(v: Value): Value {
    return this.bin("xor", v, v.type === "i64" ? this.const64(-1) : this.const32(-1));
  }
  /** Spills the flags for a helper that reads them. */
  #storeFlags(): void {
    const { f } = this;
    const c = this.#c;
    for (const [local, at] of [
      [c.flagA, Vp.flagA],
      [c.flagB, Vp.flagB],
      [c.flagR, Vp.flagR],
    ] as const) {
      f.i32(0);
      f.get(local);
      f.mem("i64_store", c.base + at, 3);
    }
    f.i32(0);
    f.get(c.flagKind);
    f.mem("i32_store", c.base + Vp.flagKind, 2);
  }
  /** Puts what is in locals into the block: registers and flags. */
  #spill(vectors: boolean): void {
    const { f } = this;
    const c = this.#c;
    for (const n of c.whole.writtenRegisters) {
      f.i32(0);
      f.get(c.gpr[n]!);
      f.mem("i64_store", c.base + Vp.gpr + n * 8, 3);
    }
    if (vectors)
      for (const n of c.whole.writtenVectors) {
        f.i32(0);
        f.get(c.xmm[n]!);
        f.simdMem(11, c.base + Vp.xmm + n * 16, 4);
      }
    this.#storeFlags();
  }
  /** Puts where the instruction is into the block. */
  #spillPlace(): void {
    const { f } = this;
    const c = this.#c;
    f.i32(0);
    f.get(c.ripPage);
    if (this.#page !== 0) {
      f.i64(this.#page);
      f.op("i64_add");
    }
    f.mem("i64_store", c.base + Vp.ripPage, 3);
    f.i32(0);
    this.#pushRip(0);
    f.mem("i64_store", c.base + Vp.rip, 3);
  }
  /** Takes back what a procedure may have changed. */
  #reload(flags: boolean, vectors: boolean): void {
    const { f } = this;
    const c = this.#c;
    for (const n of c.whole.usedRegisters) {
      f.i32(0);
      f.mem("i64_load", c.base + Vp.gpr + n * 8, 3);
      f.set(c.gpr[n]!);
    }
    if (vectors)
      for (const n of c.whole.usedVectors) {
        f.i32(0);
        f.simdMem(0, c.base + Vp.xmm + n * 16, 4);
        f.set(c.xmm[n]!);
      }
    if (flags) {
      loadFlags(f, c);
      c.flags = UNKNOWN_FLAGS;
    }
    if (c.usesFloat) loadFloat(f, c);
  }
  #helper(name: HelperName, ...args: Value[]): Value {
    for (const a of args) this.push(a);
    this.f.call(this.#c.helpers.get(name)!);
    const { result } = Helper[name];
    return result === undefined ? { type: "i32" } : this.fresh(result);
  }
  carry(): Value {
    const { kind } = this.#c.flags;
    if (kind === undefined) {
      this.#storeFlags();
      return this.#helper("carry");
    }
    const { a, b, r } = this.#flagValues();
    switch (kind) {
      case FlagKind.sub:
        return this.cmp("lt_u", a, b);
      case FlagKind.sbb:
        // (~a & b) | (~(a ^ b) & r)
        return this.#sign(
          this.bin("or", this.bin("and", this.#not(a), b), this.bin("and", this.#not(this.bin("xor", a, b)), r)),
        );
      case FlagKind.add:
        return this.#sign(this.bin("or", this.bin("and", a, b), this.bin("and", this.bin("or", a, b), this.#not(r))));
      default:
        return this.#bit(b, 0);
    }
  }
  #overflow(): Value {
    const { a, b, r } = this.#flagValues();
    switch (this.#c.flags.kind) {
      case FlagKind.sub:
      case FlagKind.sbb:
        return this.#sign(this.bin("and", this.bin("xor", a, b), this.bin("xor", a, r)));
      case FlagKind.add:
        return this.#sign(this.bin("and", this.bin("xor", a, r), this.bin("xor", b, r)));
      case FlagKind.inc:
        return this.#sign(this.bin("and", this.#not(a), r));
      case FlagKind.dec:
        return this.#sign(this.bin("and", a, this.#not(r)));
      default:
        return this.#bit(b, 11);
    }
  }
  #zero(): Value {
    return this.eqz(this.#flagValues().r);
  }
  #negative(): Value {
    const { b, r } = this.#flagValues();
    return this.#c.flags.kind === FlagKind.packed ? this.#bit(b, 7) : this.#sign(r);
  }
  #parity(): Value {
    const { b, r } = this.#flagValues();
    if (this.#c.flags.kind === FlagKind.packed) return this.#bit(b, 2);
    const ones = this.popcnt(this.bin("and", this.wrap(r), this.const32(0xff)));
    return this.bin("xor", this.bin("and", ones, this.const32(1)), this.const32(1));
  }
  condition(cc: number): Value {
    const { kind } = this.#c.flags;
    const negate = (cc & 1) !== 0;
    const maybe = (v: Value): Value => (negate ? this.eqz(v) : v);
    if (cc >> 1 === 2) return maybe(this.#zero());
    if (kind === undefined) {
      this.#storeFlags();
      return this.#helper("condition", this.const32(cc));
    }
    const { a, b } = this.#flagValues();
    if (kind === FlagKind.sub) {
      const compare = ({ 1: "lt_u", 3: "le_u", 6: "lt_s", 7: "le_s" } as const)[cc >> 1];
      if (compare !== undefined) {
        const opposite = { lt_u: "ge_u", le_u: "gt_u", lt_s: "ge_s", le_s: "gt_s" } as const;
        return this.cmp(negate ? opposite[compare] : compare, a, b);
      }
    }
    switch (cc >> 1) {
      case 0:
        return maybe(this.#overflow());
      case 1:
        return maybe(this.carry());
      case 3:
        return maybe(this.bin("or", this.carry(), this.#zero()));
      case 4:
        return maybe(this.#negative());
      case 5:
        return maybe(this.#parity());
      case 6:
        return maybe(this.bin("xor", this.#negative(), this.#overflow()));
      default:
        return maybe(this.bin("or", this.#zero(), this.bin("xor", this.#negative(), this.#overflow())));
    }
  }
  keptFlags(): Value {
    return this.#deadFlags ? this.const32(0) : this.packedFlags();
  }
  packedFlags(): Value {
    const { kind } = this.#c.flags;
    if (kind === undefined) {
      this.#storeFlags();
      return this.#helper("packedFlags");
    }
    const { a, b, r } = this.#flagValues();
    const shifted = (v: Value, n: number): Value => this.bin("shl", v, this.const32(n));
    const zf = shifted(this.#zero(), 6);
    // a formula and no call: it costs nothing where only the way out of the region wants it
    if (kind === FlagKind.packed) return this.bin("or", this.bin("and", this.wrap(b), this.const32(0x895)), zf);
    let v = this.bin("or", zf, this.bin("or", shifted(this.#negative(), 7), shifted(this.#parity(), 2)));
    if (kind === FlagKind.explicit) return this.bin("or", v, this.bin("and", this.wrap(b), this.const32(0x811)));
    v = this.bin("or", v, this.bin("or", this.carry(), shifted(this.#overflow(), 11)));
    const half =
      kind === FlagKind.inc || kind === FlagKind.dec
        ? this.bin("xor", a, r)
        : this.bin("xor", this.bin("xor", a, b), r);
    return this.bin("or", v, this.bin("and", this.wrap(half), this.const32(0x10)));
  }

  // ---- control ----------------------------------------------------------------------------------------------------------
  call(name: string, ...args: Value[]): Value {
    const helper = name as HelperName;
    const signature = Helper[helper];
    if (signature === undefined) throw new Error(`no helper ${name}`);
    if ("faults" in signature) this.checkFault();
    if (this.form.facts.procedure) return this.#procedure(helper, ...args);
    // the divisions work on RAX and RDX in the block
    const pair = helper === "div" || helper === "idiv" ? [0, 2] : [];
    for (const n of pair) {
      this.#c.usedRegisters.add(n);
      this.#c.writtenRegisters.add(n);
      this.f.i32(0);
      this.f.get(this.#c.gpr[n]!);
      this.f.mem("i64_store", this.#c.base + Vp.gpr + n * 8, 3);
    }
    const result = this.#helper(helper, ...args);
    if (helper === "vectorFloat") loadFloat(this.f, this.#c);
    for (const n of pair) {
      this.f.i32(0);
      this.f.mem("i64_load", this.#c.base + Vp.gpr + n * 8, 3);
      this.f.set(this.#c.gpr[n]!);
    }
    return result;
  }
  /** Runs a procedure of the runtime on the block. @returns its Status */
  #procedure(helper: HelperName, ...args: Value[]): Value {
    const { f } = this;
    const c = this.#c;
    const selector = this.#r.raw![Rec.src2]!;
    this.#plain = helper === "system" && PLAIN.has(selector);
    this.#vectors = helper === "vector" || (helper === "system" && VECTORS.has(selector));
    this.#writesFlags =
      helper === "system"
        ? FLAGS.has(selector)
        : helper === "string"
          ? selector === StringOp.cmps || selector === StringOp.scas
          : true;
    this.#spillPlace();
    if (!this.#plain) {
      this.#spill(this.#vectors);
      if (this.#r.base === Vp.tempAddress) {
        f.i32(0);
        f.get(c.tempAddress);
        f.mem("i64_store", c.base + Vp.tempAddress, 3);
      }
    }
    return this.#helper(helper, ...args);
  }
  leave(status: Value): void {
    const { f } = this;
    const c = this.#c;
    this.push(status);
    f.unlikely();
    f.if();
    if (this.#plain) this.#spill(false);
    if (!this.#vectors)
      for (const n of c.whole.writtenVectors) {
        f.i32(0);
        f.get(c.xmm[n]!);
        f.simdMem(11, c.base + Vp.xmm + n * 16, 4);
      }
    // a fault is counted by the loop
    f.get(c.budget);
    f.i32(this.#before);
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
    if (this.#plain) return;
    this.#reload(this.#writesFlags, this.#vectors);
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
    this.#leaveAt(this.#page + this.#r.pageOffset + this.#r.length, this.#before + 1);
    f.end();
  }
  faultUnless(condition: Value): void {
    const { f } = this;
    this.push(condition);
    f.op("i32_eqz");
    f.if();
    f.i32(0);
    f.set(this.#c.refusal);
    this.#leaveHere();
    f.end();
    this.effects = true;
  }
  raise(vector: number, error = -1): void {
    this.checkFault();
    const { f } = this;
    f.i32(vector);
    f.i32(error);
    f.i32(0);
    f.call(this.#c.helpers.get("raise")!);
    f.i32(0);
    f.set(this.#c.refusal);
    this.#leaveHere();
  }
  override if(condition: Value, then: () => void, otherwise?: () => void): void {
    this.#joiningFlags(then, (first) => super.if(condition, first, otherwise));
  }
  override ifAll(conditions: readonly (() => Value)[], then: () => void, otherwise: () => void): void {
    this.#joiningFlags(then, (first) => super.ifAll(conditions, first, otherwise));
  }
  /** Behind two arms only that is known of the flags which is known in both. */
  #joiningFlags(then: () => void, emit: (first: () => void) => void): void {
    const c = this.#c;
    const before = c.flags;
    let first = before;
    emit(() => {
      then();
      first = c.flags;
      c.flags = before;
    });
    const second = c.flags;
    if (first.kind !== second.kind || first.narrow !== second.narrow)
      c.flags = { kind: first.kind === second.kind ? first.kind : undefined, narrow: false };
  }
  #pushRip(after: number): void {
    this.f.get(this.#c.ripPage);
    this.f.i64(this.#page + this.#r.pageOffset + after);
    this.f.op("i64_add");
  }
  slotRip(): Value {
    this.#pushRip(0);
    return this.fresh("i64");
  }
  nextRip(): Value {
    this.#pushRip(this.#r.length);
    return this.fresh("i64");
  }
  fieldRegister(): Value {
    if (!this.#pushSlot64(this.#r.src)) this.f.i64(0);
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
