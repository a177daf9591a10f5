/** The lazy flags in a region: operands and result of the last operation in locals, its kind known while code is written if it can be. */
import { Helper, type HelperName } from "../isa/runtime-calls.js";
import type { FlagName, Value, ValueType } from "../isa/sem.js";
import { FlagKind, Vp } from "../layout.js";
import type { Local } from "../wasm/emitting-sem.js";
import { storeFlags, storeKnownFlags } from "./region-function.js";
import { RegionOperands } from "./region-operands.js";

export abstract class RegionFlags extends RegionOperands {
  // ---- flags ----------------------------------------------------------------------------------------------------------
  flags(kind: FlagName, a: Value, b: Value, r: Value): void {
    if (this.deadFlags) return;
    const { f } = this;
    const c = this.region;
    this.checkArm();
    const to = c.locals.toFlags();
    const all32 = a.type === "i32" && b.type === "i32" && r.type === "i32";
    for (const [v, wide, narrow] of [
      [a, to.a, to.narrowA],
      [b, to.b, to.narrowB],
      [r, to.r, to.narrowR],
    ] as const) {
      this.push(v);
      if (all32) f.tee(narrow);
      if (v.type === "i32") f.op("i64_extend_i32_s");
      f.set(wide);
    }
    c.flags = { kind: FlagKind[kind], narrow: all32, held: true };
    if (c.tight) {
      f.i32(FlagKind[kind]);
      f.set(to.kind);
    } else if (c.flagsAtOnce) {
      storeKnownFlags(f, c);
      c.locals.flagsChanged = false;
    }
  }
  /** The last operation's operands and result; sign-extended, so that any width's formulas hold. */
  protected flagValues(): { a: Value; b: Value; r: Value; zero: () => Value } {
    const c = this.region;
    this.lookAtFlags();
    const local = (type: ValueType, n: number): Local => ({ type, local: n });
    const now = c.locals.flags;
    return c.flags.narrow
      ? {
          a: local("i32", now.narrowA),
          b: local("i32", now.narrowB),
          r: local("i32", now.narrowR),
          zero: () => this.const32(0),
        }
      : {
          a: local("i64", now.a),
          b: local("i64", now.b),
          r: local("i64", now.r),
          zero: () => this.const64(0),
        };
  }
  /** Puts flags of a kind that is not known here into the block, for a function of the runtime. */
  protected bringFlags(): void {
    if (!this.region.tight) return;
    this.lookAtFlags();
    storeFlags(this.f, this.region);
  }
  protected lookAtFlags(): void {
    if (!this.region.flags.held) this.region.findsFlags = true;
  }
  /** Bit n of a value as 0 or 1. */
  protected bit(v: Value, n: number): Value {
    const narrow = this.wrap(v);
    return this.bin("and", n === 0 ? narrow : this.bin("shr_u", narrow, this.const32(n)), this.const32(1));
  }
  /** The sign of a value as 0 or 1. */
  protected sign(v: Value): Value {
    return v.type === "i64"
      ? this.wrap(this.bin("shr_u", v, this.const64(63)))
      : this.bin("shr_u", v, this.const32(31));
  }
  protected invert(v: Value): Value {
    return this.bin("xor", v, v.type === "i64" ? this.const64(-1) : this.const32(-1));
  }
  protected helper(name: HelperName, ...args: Value[]): Value {
    for (const a of args) this.push(a);
    this.f.callReference(this.region.helper(name));
    const { result } = Helper[name];
    return result === undefined ? { type: "i32" } : this.fresh(result);
  }
  carry(): Value {
    const { kind } = this.region.flags;
    if (kind === undefined) {
      this.bringFlags();
      return this.helper("carry");
    }
    const { a, b, r } = this.flagValues();
    switch (kind) {
      case FlagKind.sub:
        return this.cmp("lt_u", a, b);
      case FlagKind.sbb:
        // (~a & b) | (~(a ^ b) & r)
        return this.sign(
          this.bin("or", this.bin("and", this.invert(a), b), this.bin("and", this.invert(this.bin("xor", a, b)), r)),
        );
      case FlagKind.add:
        return this.sign(this.bin("or", this.bin("and", a, b), this.bin("and", this.bin("or", a, b), this.invert(r))));
      default:
        return this.bit(b, 0);
    }
  }
  protected overflow(): Value {
    const { a, b, r } = this.flagValues();
    switch (this.region.flags.kind) {
      case FlagKind.sub:
      case FlagKind.sbb:
        return this.sign(this.bin("and", this.bin("xor", a, b), this.bin("xor", a, r)));
      case FlagKind.add:
        return this.sign(this.bin("and", this.bin("xor", a, r), this.bin("xor", b, r)));
      case FlagKind.inc:
        return this.sign(this.bin("and", this.invert(a), r));
      case FlagKind.dec:
        return this.sign(this.bin("and", a, this.invert(r)));
      default:
        return this.bit(b, 11);
    }
  }
  protected zero(): Value {
    const { flags, tight } = this.region;
    return this.eqz(flags.kind === undefined && !tight ? this.slot(Vp.flagR, 64) : this.flagValues().r);
  }
  protected negative(): Value {
    const { b, r } = this.flagValues();
    return this.region.flags.kind === FlagKind.packed ? this.bit(b, 7) : this.sign(r);
  }
  protected parity(): Value {
    const { b, r } = this.flagValues();
    if (this.region.flags.kind === FlagKind.packed) return this.bit(b, 2);
    const ones = this.popcnt(this.bin("and", this.wrap(r), this.const32(0xff)));
    return this.bin("xor", this.bin("and", ones, this.const32(1)), this.const32(1));
  }
  condition(cc: number): Value {
    const { kind } = this.region.flags;
    const negate = (cc & 1) !== 0;
    const maybe = (v: Value): Value => (negate ? this.eqz(v) : v);
    if (cc >> 1 === 2) return maybe(this.zero());
    if (kind === undefined) {
      this.bringFlags();
      return this.helper("condition", this.const32(cc));
    }
    const { a, b } = this.flagValues();
    if (kind === FlagKind.sub) {
      const compare = ({ 1: "lt_u", 3: "le_u", 6: "lt_s", 7: "le_s" } as const)[cc >> 1];
      if (compare !== undefined) {
        const opposite = { lt_u: "ge_u", le_u: "gt_u", lt_s: "ge_s", le_s: "gt_s" } as const;
        return this.cmp(negate ? opposite[compare] : compare, a, b);
      }
    }
    switch (cc >> 1) {
      case 0:
        return maybe(this.overflow());
      case 1:
        return maybe(this.carry());
      case 3:
        return maybe(this.bin("or", this.carry(), this.zero()));
      case 4:
        return maybe(this.negative());
      case 5:
        return maybe(this.parity());
      case 6:
        return maybe(this.bin("xor", this.negative(), this.overflow()));
      default:
        return maybe(this.bin("or", this.zero(), this.bin("xor", this.negative(), this.overflow())));
    }
  }
  keptFlags(): Value {
    return this.deadFlags ? this.const32(0) : this.packedFlags();
  }
  packedFlags(): Value {
    const { kind } = this.region.flags;
    if (kind === undefined) {
      this.bringFlags();
      return this.helper("packedFlags");
    }
    const { a, b, r } = this.flagValues();
    const shifted = (v: Value, n: number): Value => this.bin("shl", v, this.const32(n));
    const zf = shifted(this.zero(), 6);
    // a formula and no call: it costs nothing where only the way out of the region wants it
    if (kind === FlagKind.packed) return this.bin("or", this.bin("and", this.wrap(b), this.const32(0x895)), zf);
    let v = this.bin("or", zf, this.bin("or", shifted(this.negative(), 7), shifted(this.parity(), 2)));
    if (kind === FlagKind.explicit) return this.bin("or", v, this.bin("and", this.wrap(b), this.const32(0x811)));
    v = this.bin("or", v, this.bin("or", this.carry(), shifted(this.overflow(), 11)));
    const half =
      kind === FlagKind.inc || kind === FlagKind.dec
        ? this.bin("xor", a, r)
        : this.bin("xor", this.bin("xor", a, b), r);
    return this.bin("or", v, this.bin("and", this.wrap(half), this.const32(0x10)));
  }
}
