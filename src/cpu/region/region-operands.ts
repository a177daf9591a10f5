/**
 * Operands of an instruction in a region: bound while it is written, registers are locals of the region's function, immediates
 * constants. Memory goes by the same software TLB as the interpreter's; what is not plain RAM there leaves the region, so that the
 * interpreter does that one instruction.
 */
import type { DecodedRecord } from "../decode/block-builder.js";
import type { Value, Width } from "../isa/sem.js";
import { TLB_ENTRIES, TLB_WRITE, VICTIMS, Vp } from "../layout.js";
import { EmittingSem, LOADS, type Local, STORES } from "../wasm/emitting-sem.js";
import { type AccessGroup, type PlannedAccess, registerOffset } from "./block-plan.js";
import type { RegionFunction } from "./region-function.js";

/** Registers are kept in locals; the vector registers in the block. */
const GPR_END = Vp.zero;

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

/** An address in the memory: a local, and bytes behind it. */
interface Place {
  readonly host: number;
  readonly offset: number;
}

export abstract class RegionOperands extends EmittingSem {
  protected readonly region: RegionFunction;
  protected readonly bound: DecodedRecord;
  /** Distance of the instruction's page from the region's, in bytes. */
  protected readonly page: number;
  /** Instructions of the block before this one. */
  protected readonly before: number;
  /** Nobody can see the flags of this instruction. */
  protected readonly deadFlags: boolean;
  /** It is the last instruction of its block. */
  protected readonly isLast: boolean;

  /** Its accesses, where that is planned: undefined = by itself. */
  protected readonly planned: readonly (PlannedAccess | undefined)[] | undefined;

  constructor(
    c: RegionFunction,
    record: DecodedRecord,
    page: number,
    before: number,
    deadFlags: boolean,
    last: boolean,
    planned?: readonly (PlannedAccess | undefined)[],
  ) {
    super(c.f, record.form, c.scratch);
    this.region = c;
    this.bound = record;
    this.page = page;
    this.before = before;
    this.deadFlags = deadFlags;
    this.isLast = last;
    this.planned = planned;
  }

  // ---- operands -------------------------------------------------------------------------------------------------------
  protected registerOffset(i: number): number {
    return registerOffset(this.bound, i);
  }
  /** Arms that may not be taken around what is being written. */
  protected arms = 0;
  /** What a segment writes is in other locals than before: no arm may be the only one to do it. */
  protected checkArm(): void {
    if (this.arms > 0 && !this.region.locals.direct) throw new Error(`${this.form.name}: a write in one arm only`);
  }
  /** Puts 64 bits of a register, a segment base or the like on the stack. @returns false = it is zero, nothing is put */
  protected pushSlot64(offset: number): boolean {
    if (offset === Vp.zero) return false;
    if (offset < GPR_END) {
      this.region.usedRegisters.add(offset >> 3);
      this.f.get(this.region.locals.gpr(offset >> 3));
    } else if (offset === Vp.ripPage) this.f.get(this.region.ripPage);
    else if (offset === Vp.tempAddress) this.f.get(this.region.tempAddress);
    else {
      this.f.i32(0);
      this.f.mem("i64_load", this.region.base + offset, 3);
    }
    return true;
  }
  address(i: number): Value {
    const known = this.places[i];
    if (known !== undefined) return { type: "i64", local: known } as Local;
    const { f } = this;
    const { base, index, scale } = this.bound;
    const disp = this.bound.disp + (base === Vp.ripPage ? this.page : 0);
    let any = this.pushSlot64(base);
    if (this.form.operands[i]!.kind === "x" && index !== Vp.zero) {
      this.pushSlot64(index);
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
    return this.wideConstant(this.bound.immLow, this.bound.immHigh);
  }
  protected wideConstant(low: number, high: number): Value {
    this.f.i64Words(low, high);
    return this.fresh("i64");
  }
  knownImmediate(): number | undefined {
    return this.bound.immLow & 0xff;
  }
  protected immediateOperand(signed: boolean): Value {
    const { immLow, immHigh } = this.bound;
    if (this.width === 64) return this.wideConstant(immLow, immHigh);
    const shift = 32 - this.width;
    return this.const32(
      signed ? (immLow << shift) >> shift : this.width === 32 ? immLow : immLow & ((1 << this.width) - 1),
    );
  }
  protected readRegister(offset: number, width: number, signed: boolean): Value {
    const { f } = this;
    const n = offset >> 3;
    this.region.usedRegisters.add(n);
    f.get(this.region.locals.gpr(n));
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
  protected writeRegister(offset: number, width: number, value: Value): void {
    const { f } = this;
    const n = offset >> 3;
    this.checkArm();
    const before = this.region.locals.gpr(n);
    const local = this.region.locals.toGpr(n);
    // what is only written need not be loaded
    if (this.region.tight || width < 32 || this.arms > 0) this.region.usedRegisters.add(n);
    this.region.writtenRegisters.add(n);
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
    f.get(before);
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
    if (kind === "i") return this.immediateOperand(signed);
    if (kind === "c") return this.readRegister(Vp.gpr + 8, 8, false);
    if (kind === "r") return this.readSlot(this.registerOffset(i), width as Width, signed);
    return this.loadFrom(
      this.translate(() => this.address(i), width / 8, false),
      width as Width,
      signed,
    );
  }
  probeWrite(i: number): void {
    this.#written[i] = this.translate(() => this.address(i), this.form.operands[i]!.width / 8, true);
  }
  readWrite(i: number): Value {
    if (!this.isMemory(i)) return this.read(i);
    this.probeWrite(i);
    return this.loadFrom(this.#written[i]!, this.form.operands[i]!.width as Width, true);
  }
  write(i: number, value: Value): void {
    const { kind, width } = this.form.operands[i]!;
    if (kind === "r") {
      this.setSlot(this.registerOffset(i), width as Width, value);
      return;
    }
    this.storeTo(this.#written[i] ?? this.translate(() => this.address(i), width / 8, true), width as Width, value);
  }

  // ---- memory ---------------------------------------------------------------------------------------------------------
  protected leaveHere(refusal: number): void {
    const { f, region: c } = this;
    if (!c.tight) {
      if (c.leave < 0) throw new Error(`${this.form.name}: leaves a segment that is not left`);
      f.br(c.leave);
      return;
    }
    f.i32(refusal);
    f.set(c.refusal);
    this.leaveAt(this.page + this.bound.pageOffset, this.before, c.leave);
  }
  protected leaveAt(offset: number, after: number, label: number): void {
    const { f } = this;
    f.i32(offset);
    f.set(this.region.leftAt);
    f.i32(after);
    f.set(this.region.leftAfter);
    f.br(label);
  }
  /** Where an operand is that a write will find, translated. */
  readonly #written: (Place | undefined)[] = [];
  #accesses = 0;
  /** @param va linear address, asked for only if it is needed */
  protected translate(va: () => Value, bytes: number, write: boolean): Place {
    this.checkFault();
    const planned = this.planned?.[this.#accesses++];
    if (planned === undefined) {
      this.push(va());
      return { host: this.lookUp(bytes, write, this.scratch.take("i32")), offset: 0 };
    }
    const { group, at } = planned;
    if (group.host < 0) {
      this.push(va());
      if (group.start !== at) {
        this.f.i64(group.start - at);
        this.f.op("i64_add");
      }
      this.lookUpGroup(group);
    }
    return { host: group.host, offset: at - group.start };
  }
  /** Looks a group of accesses up; its first address is on the stack. */
  protected lookUpGroup(group: AccessGroup): void {
    const { region: c } = this;
    const n = c.usedHosts++;
    group.host = this.lookUp(group.end - group.start, group.write, (c.hosts[n] ??= this.f.local("i32")));
  }
  /** Groups whose addresses are known at the beginning of a block. */
  lookUpFirst(groups: readonly AccessGroup[]): void {
    const { f } = this;
    for (const group of groups) {
      const terms = group.atBeginning!;
      const constant = terms.reduce((sum, { add, shift }) => sum + add * 2 ** shift, group.start);
      terms.forEach(({ slot, shift }, i) => {
        this.pushSlot64(slot);
        if (shift > 0) {
          f.i64(shift);
          f.op("i64_shl");
        }
        if (i > 0) f.op("i64_add");
      });
      if (terms.length === 0 || constant !== 0) {
        f.i64(constant);
        if (terms.length > 0) f.op("i64_add");
      }
      this.lookUpGroup(group);
    }
  }
  /** The address on the stack to one in the memory. @returns `host` */
  protected lookUp(bytes: number, write: boolean, host: number): number {
    const { f, region: c } = this;
    const va = this.scratch.take("i64");
    const entry = this.scratch.take("i32");
    const tlb = c.tlb + (write ? TLB_WRITE : 0);
    f.tee(va);
    f.i64(8);
    f.op("i64_shr_u");
    f.op("i32_wrap_i64");
    f.i32((TLB_ENTRIES - 1) * 16);
    f.op("i32_and");
    f.set(entry);
    this.#isOther(va, bytes, entry, tlb);
    if (c.leave < 0) throw new Error(`${this.form.name}: an access that is not planned`);
    f.unlikely();
    const asks = c.tight || c.careful;
    if (asks) {
      f.if("i32");
      this.#lookBeside(va, bytes, write, entry, host);
      f.else();
    } else f.brIf(c.leave);
    this.#hostBy(va, entry, tlb);
    if (asks) f.end();
    f.set(host);
    return host;
  }
  /** Leaves whether the entry is of another page, or the access goes beyond it. @param table address of its first entry */
  #isOther(va: number, bytes: number, entry: number, table: number): void {
    const { f } = this;
    f.get(entry);
    f.mem("i64_load", table, 3);
    f.get(va);
    f.op("i64_xor");
    f.i64(4096 - bytes);
    f.op("i64_gt_u");
  }
  /** Leaves the address in the memory. */
  #hostBy(va: number, entry: number, table: number): void {
    const { f } = this;
    f.get(va);
    f.op("i32_wrap_i64");
    f.get(entry);
    f.mem("i32_load", table + 8, 2);
    f.op("i32_add");
  }
  /** Two pages that are used in turn may have one place in the TLB: one of them is among its victims. */
  #lookBeside(va: number, bytes: number, write: boolean, entry: number, host: number): void {
    const { f, region: c } = this;
    const part = (c.tlb - c.base - Vp.tlbSupervisor) / TLB_WRITE + (write ? 1 : 0);
    const victims = c.base + Vp.tlbVictims + part * VICTIMS * 16;
    f.get(entry);
    f.i32((VICTIMS - 1) * 16);
    f.op("i32_and");
    f.set(entry);
    this.#isOther(va, bytes, entry, victims);
    f.if("i32");
    this.#askForAddress(va, bytes, write, host);
    f.else();
    this.#hostBy(va, entry, victims);
    f.end();
  }
  /** What the TLB does not know is asked of the runtime, which may leave the region; `host` is used on the way. */
  #askForAddress(va: number, bytes: number, write: boolean, host: number): void {
    const { f, region: c } = this;
    f.get(va);
    f.i32(bytes);
    if (c.careful) {
      f.i32(write ? 1 : 0);
      f.callReference(c.helper("regionRefill"));
      f.tee(host);
      f.i32(1);
      f.op("i32_eq");
      f.unlikely();
      f.brIf(c.leave);
    } else {
      f.callReference(c.helper(write ? "regionWrite" : "regionRead"));
      f.tee(host);
      f.i32(2);
      f.op("i32_lt_u");
      f.if();
      f.get(host);
      f.set(c.refusal);
      this.leaveAt(this.page + this.bound.pageOffset, this.before, c.leave);
      f.end();
    }
    f.get(host);
  }
  protected loadFrom({ host, offset }: Place, width: Width, signed: boolean): Value {
    this.f.get(host);
    this.f.mem(LOADS[`${width}${signed ? "s" : "u"}`]!, offset);
    return this.fresh(width === 64 ? "i64" : "i32");
  }
  protected storeTo({ host, offset }: Place, width: Width, value: Value): void {
    this.f.get(host);
    this.push(value);
    this.f.mem(STORES[width]!, offset);
    this.effects = true;
  }
  load(address: Value, width: Width, signed = true): Value {
    return this.loadFrom(
      this.translate(() => address, width / 8, false),
      width,
      signed,
    );
  }
  store(address: Value, width: Width, value: Value): void {
    this.storeTo(
      this.translate(() => address, width / 8, true),
      width,
      value,
    );
  }
  // ---- vectors --------------------------------------------------------------------------------------------------------
  /** Puts a vector register on the stack. */
  protected pushVector(n: number): void {
    this.region.usedVectors.add(n);
    this.f.get(this.region.locals.xmm(n));
  }
  protected setVector(n: number): void {
    this.checkArm();
    if (this.region.tight || this.arms > 0) this.region.usedVectors.add(n);
    this.region.writtenVectors.add(n);
    this.f.set(this.region.locals.toXmm(n));
    this.effects = true;
  }
  /** An element of a vector register, which keeps its other bytes. */
  protected replaceLane(offset: number, width: Width, value: Value): void {
    const n = (offset - Vp.xmm) >> 4;
    this.pushVector(n);
    this.push(value);
    this.f.simdLane(
      REPLACE[value.type === "f64" || value.type === "f32" ? value.type : width]!,
      ((offset & 15) * 8) / width,
    );
    this.setVector(n);
  }
  protected extractLane(offset: number, width: Width, signed: boolean): Value {
    this.pushVector((offset - Vp.xmm) >> 4);
    this.f.simdLane(EXTRACT[`${width}${width < 32 && signed ? "s" : ""}`]!, ((offset & 15) * 8) / width);
    return this.fresh(width === 64 ? "i64" : "i32");
  }
  protected readFloat(i: number, type: "f32" | "f64"): Value {
    const bytes = type === "f64" ? 8 : 4;
    if (this.isMemory(i)) {
      const { host, offset } = this.translate(() => this.address(i), bytes, false);
      this.f.get(host);
      this.f.mem(`${type}_load`, offset);
    } else {
      this.pushVector((this.registerOffset(i) - Vp.xmm) >> 4);
      this.f.simdLane(EXTRACT[type]!, 0);
    }
    return this.fresh(type);
  }
  override readF32(i: number): Value {
    return this.readFloat(i, "f32");
  }
  override readF64(i: number): Value {
    return this.readFloat(i, "f64");
  }
  override writeF32(i: number, value: Value): void {
    if (this.isMemory(i)) super.writeF32(i, value);
    else this.replaceLane(this.registerOffset(i), 32, value);
  }
  override writeF64(i: number, value: Value): void {
    if (this.isMemory(i)) super.writeF64(i, value);
    else this.replaceLane(this.registerOffset(i), 64, value);
  }
  override ordinaryFloat(inexact: boolean): Value {
    this.region.usesFloat = true;
    this.f.get(this.region.float);
    if (!inexact) {
      this.f.i32(~0x20);
      this.f.op("i32_and");
    }
    this.f.op("i32_eqz");
    return this.fresh("i32");
  }
  readV(i: number): Value {
    if (!this.isMemory(i)) return this.slotV(this.registerOffset(i));
    const { host, offset } = this.translate(() => this.address(i), 16, false);
    this.f.get(host);
    this.f.simdMem(0, offset);
    return this.fresh("v128");
  }
  writeV(i: number, value: Value): void {
    const offset = this.isMemory(i) ? -1 : this.registerOffset(i);
    if (isVector(offset)) {
      this.push(value);
      this.setVector((offset - Vp.xmm) >> 4);
    } else if (offset >= 0) {
      this.f.i32(0);
      this.push(value);
      this.f.simdMem(11, this.region.base + offset, 4);
    } else {
      const place = this.translate(() => this.address(i), 16, true);
      this.f.get(place.host);
      this.push(value);
      this.f.simdMem(11, place.offset);
    }
    this.effects = true;
  }
  readLow(i: number, width: 32 | 64): Value {
    if (this.isMemory(i))
      return this.loadFrom(
        this.translate(() => this.address(i), width / 8, false),
        width,
        false,
      );
    return this.readSlot(this.registerOffset(i), width, false);
  }
  writeLow(i: number, width: 32 | 64, value: Value): void {
    if (this.isMemory(i)) {
      this.storeTo(
        this.translate(() => this.address(i), width / 8, true),
        width,
        value,
      );
      return;
    }
    this.writeBlock(this.registerOffset(i), width, value);
  }
  /** Anything in the block but a general register. */
  protected writeBlock(offset: number, width: Width, value: Value): void {
    if (isVector(offset)) {
      this.replaceLane(offset, width, value);
      return;
    }
    this.f.i32(0);
    this.push(value);
    this.f.mem(STORES[width]!, this.region.base + offset);
    this.effects = true;
  }
  protected readSlot(offset: number, width: Width, signed: boolean): Value {
    if (offset < GPR_END) return this.readRegister(offset, width, signed);
    if (offset === Vp.tempAddress) {
      this.f.get(this.region.tempAddress);
      return this.fresh("i64");
    }
    if (isVector(offset)) return this.extractLane(offset, width, signed);
    this.f.i32(0);
    this.f.mem(LOADS[`${width}${signed ? "s" : "u"}`]!, this.region.base + offset);
    return this.fresh(width === 64 ? "i64" : "i32");
  }
  slot(offset: number, width: Width, signed = true): Value {
    return this.readSlot(offset, width, signed);
  }
  slotV(offset: number): Value {
    if (isVector(offset)) {
      this.pushVector((offset - Vp.xmm) >> 4);
      return this.fresh("v128");
    }
    this.f.i32(0);
    this.f.simdMem(0, this.region.base + offset, 4);
    return this.fresh("v128");
  }
  setSlot(offset: number, width: Width, value: Value): void {
    if ((width === 64) !== (value.type === "i64"))
      throw new Error(`${this.form.name}: slot of ${width} bits gets ${value.type}`);
    if (offset < GPR_END) {
      this.writeRegister(offset, width, value);
      return;
    }
    if (offset === Vp.tempAddress) {
      this.push(value);
      this.f.set(this.region.tempAddress);
      return;
    }
    this.writeBlock(offset, width, value);
  }

  protected pushRip(after: number): void {
    this.f.get(this.region.ripPage);
    this.f.i64(this.page + this.bound.pageOffset + after);
    this.f.op("i64_add");
  }
}
