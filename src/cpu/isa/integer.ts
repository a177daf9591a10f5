/** Semantics of the integer instructions. Flag rules: Intel SDM vol. 1, appendix A; vol. 2 for each instruction. */
import { Vp } from "../layout.js";
import type { BinaryOp, Definition, Sem, Value } from "./sem.js";

const R = (n: number): number => Vp.gpr + n * 8;
export const RAX = R(0);
export const RCX = R(1);
export const RDX = R(2);
export const RSP = R(4);
export const RBP = R(5);
export const RSI = R(6);
export const RDI = R(7);

/** A logical result: CF = OF = AF = 0, which `r - 0` says too. */
function logicFlags(s: Sem, r: Value): void {
  s.flags("sub", r, s.constW(0), r);
}

export const add: Definition = (s) => {
  const a = s.readWrite(0);
  const b = s.read(1);
  const r = s.norm(s.bin("add", a, b), s.width);
  s.write(0, r);
  s.flags("add", a, b, r);
};
export const sub: Definition = (s) => {
  const a = s.readWrite(0);
  const b = s.read(1);
  const r = s.norm(s.bin("sub", a, b), s.width);
  s.write(0, r);
  s.flags("sub", a, b, r);
};
export const cmp: Definition = (s) => {
  const a = s.read(0);
  const b = s.read(1);
  s.flags("sub", a, b, s.norm(s.bin("sub", a, b), s.width));
};
export const adc: Definition = (s) => {
  const a = s.readWrite(0);
  const b = s.read(1);
  const c = s.width === 64 ? s.extendU(s.carry()) : s.carry();
  const r = s.norm(s.bin("add", s.bin("add", a, b), c), s.width);
  s.write(0, r);
  s.flags("add", a, b, r);
};
export const sbb: Definition = (s) => {
  const a = s.readWrite(0);
  const b = s.read(1);
  const c = s.width === 64 ? s.extendU(s.carry()) : s.carry();
  const r = s.norm(s.bin("sub", s.bin("sub", a, b), c), s.width);
  s.write(0, r);
  s.flags("sbb", a, b, r);
};
const logic =
  (op: BinaryOp): Definition =>
  (s) => {
    const a = s.readWrite(0);
    const r = s.bin(op, a, s.read(1));
    s.write(0, r);
    logicFlags(s, r);
  };
export const and = logic("and");
export const or = logic("or");
export const xor = logic("xor");
export const test: Definition = (s) => {
  logicFlags(s, s.bin("and", s.read(0), s.read(1)));
};
export const inc: Definition = (s) => {
  const a = s.readWrite(0);
  const c = s.carry();
  const r = s.norm(s.bin("add", a, s.constW(1)), s.width);
  s.write(0, r);
  s.flags("inc", a, c, r);
};
export const dec: Definition = (s) => {
  const a = s.readWrite(0);
  const c = s.carry();
  const r = s.norm(s.bin("sub", a, s.constW(1)), s.width);
  s.write(0, r);
  s.flags("dec", a, c, r);
};
export const neg: Definition = (s) => {
  const a = s.readWrite(0);
  const zero = s.constW(0);
  const r = s.norm(s.bin("sub", zero, a), s.width);
  s.write(0, r);
  s.flags("sub", zero, a, r);
};
export const not: Definition = (s) => {
  s.write(0, s.bin("xor", s.readWrite(0), s.constW(-1)));
};
export const mov: Definition = (s) => {
  s.write(0, s.read(1));
};
export const movzx: Definition = (s) => {
  const v = s.readU(1);
  s.write(0, s.width === 64 ? s.extendU(v) : v);
};
export const movsx: Definition = (s) => {
  const v = s.read(1);
  s.write(0, s.width === 64 ? s.extendS(v) : v);
};
export const lea: Definition = (s) => {
  const a = s.address(1);
  s.write(0, s.width === 64 ? a : s.wrap(a));
};
export const xchg: Definition = (s) => {
  const a = s.readWrite(0);
  const b = s.read(1);
  s.write(0, b);
  s.write(1, a);
};
export const xadd: Definition = (s) => {
  const a = s.readWrite(0);
  const b = s.read(1);
  const r = s.norm(s.bin("add", a, b), s.width);
  // the source is written first: XADD of a register with itself leaves the sum
  s.write(1, a);
  s.write(0, r);
  s.flags("add", a, b, r);
};
export const cmpxchg: Definition = (s) => {
  const d = s.readWrite(0);
  const n = s.read(1);
  const a = s.slot(RAX, s.width, true);
  const r = s.norm(s.bin("sub", a, d), s.width);
  const equal = s.cmp("eq", a, d);
  // memory is written in both cases (SDM: "never produces a locked read without a locked write"), a register only with the new value
  if (s.isMemory(0)) s.write(0, s.select(equal, n, d));
  else s.if(equal, () => s.write(0, n));
  s.if(s.eqz(equal), () => setAccumulator(s, d));
  s.flags("sub", a, d, r);
};
/** Writes AL, AX, EAX (zero-extending) or RAX. */
function setAccumulator(s: Sem, v: Value): void {
  if (s.width === 32) s.setSlot(RAX, 64, s.extendU(v));
  else s.setSlot(RAX, s.width, v);
}
function setWide(s: Sem, slot: number, v: Value): void {
  if (v.type === "i64") s.setSlot(slot, 64, v);
  else s.setSlot(slot, 64, s.extendU(v));
}
export const bswap: Definition = (s) => {
  if (s.width === 64) {
    const v = s.read(0);
    const lo = s.wrap(v);
    const hi = s.wrap(s.bin("shr_u", v, s.const64(32)));
    s.write(0, s.bin("or", s.bin("shl", s.extendU(swap32(s, lo)), s.const64(32)), s.extendU(swap32(s, hi))));
    return;
  }
  if (s.width === 16) {
    s.write(0, s.const32(0)); // undefined by the SDM; hardware clears it
    return;
  }
  s.write(0, swap32(s, s.read(0)));
};
export function swap32(s: Sem, v: Value): Value {
  const a = s.bin("and", s.bin("rotr", v, s.const32(8)), s.const32(0xff00ff00 | 0));
  const b = s.bin("and", s.bin("rotl", v, s.const32(8)), s.const32(0x00ff00ff));
  return s.bin("or", a, b);
}
export const movbe: Definition = (s) => {
  const v = s.readU(1);
  if (s.width === 16) s.write(0, s.bin("or", s.bin("shl", v, s.const32(8)), s.bin("shr_u", v, s.const32(8))));
  else if (s.width === 32) s.write(0, swap32(s, v));
  else {
    const hi = s.extendU(swap32(s, s.wrap(v)));
    s.write(
      0,
      s.bin("or", s.bin("shl", hi, s.const64(32)), s.extendU(swap32(s, s.wrap(s.bin("shr_u", v, s.const64(32)))))),
    );
  }
};

// ---- stack ------------------------------------------------------------------------------------------------------------

/** Pushes in 64-bit mode. Width is that of the operation (16 or 64). */
function push64(s: Sem, v: Value): void {
  const sp = s.bin("sub", s.slot(RSP, 64), s.const64(s.width / 8));
  s.store(sp, s.width, v);
  s.setSlot(RSP, 64, sp);
}
export const push: Definition = (s) => {
  push64(s, s.read(0));
};
export const pop: Definition = (s) => {
  const sp = s.slot(RSP, 64);
  const v = s.load(sp, s.width, true);
  const up = s.bin("add", sp, s.const64(s.width / 8));
  if (s.isMemory(0)) {
    // its address is computed with RSP already moved: the decoder adds that to an RSP-based displacement
    s.write(0, v);
    s.setSlot(RSP, 64, up);
    return;
  }
  s.setSlot(RSP, 64, up); // before the operand: POP RSP keeps the popped value
  s.write(0, v);
};
export const pushImmediate: Definition = (s) => push64(s, s.width === 64 ? s.immediate() : s.wrap(s.immediate()));
export const leave: Definition = (s) => {
  const bp = s.slot(RBP, 64);
  const v = s.load(bp, s.width, true);
  s.setSlot(RSP, 64, s.bin("add", bp, s.const64(s.width / 8)));
  s.setSlot(RBP, s.width, v);
};
export const call: Definition = (s) => {
  push64(s, s.nextRip());
  s.jump();
};
/** A target that is no canonical address faults at the transfer itself, as on Intel's processors (SDM vol. 2, CALL, JMP, RET). */
function canonical(s: Sem, target: Value): Value {
  const extended = s.bin("shr_s", s.bin("shl", target, s.const64(16)), s.const64(16));
  s.if(s.cmp("ne", extended, target), () => s.raise(13, 0));
  return target;
}
export const callIndirect: Definition = (s) => {
  const target = canonical(s, s.read(0));
  push64(s, s.nextRip());
  s.jumpTo(target);
};
export const jmp: Definition = (s) => s.jump();
export const jmpIndirect: Definition = (s) => s.jumpTo(canonical(s, s.read(0)));
export const ret: Definition = (s) => {
  const sp = s.slot(RSP, 64);
  const target = canonical(s, s.load(sp, 64));
  s.setSlot(RSP, 64, s.bin("add", sp, s.const64(8)));
  s.jumpTo(target);
};
export const retImmediate: Definition = (s) => {
  const sp = s.slot(RSP, 64);
  const target = canonical(s, s.load(sp, 64));
  s.setSlot(RSP, 64, s.bin("add", s.bin("add", sp, s.const64(8)), s.immediate()));
  s.jumpTo(target);
};

// ---- conditions ----------------------------------------------------------------------------------------------------------

export const jcc =
  (cc: number): Definition =>
  (s) =>
    s.jumpIf(s.condition(cc));
export const setcc =
  (cc: number): Definition =>
  (s) =>
    s.write(0, s.condition(cc));
export const cmovcc =
  (cc: number): Definition =>
  (s) => {
    const v = s.read(1);
    const old = s.read(0); // a 32-bit CMOV clears the upper half even when it does not move
    s.write(0, s.select(s.condition(cc), v, old));
  };
/** CMP or TEST with the Jcc that follows, as one record. */
export const cmpJcc =
  (compare: "cmp" | "test", cc: number): Definition =>
  (s) => {
    const a = s.read(0);
    const b = s.read(1);
    if (compare === "cmp") {
      const r = s.norm(s.bin("sub", a, b), s.width);
      s.flags("sub", a, b, r);
      s.jumpIf(fusedCondition(s, cc, a, b, r));
    } else {
      const r = s.bin("and", a, b);
      const zero = s.constW(0);
      s.flags("sub", r, zero, r);
      s.jumpIf(fusedCondition(s, cc, r, zero, r));
    }
  };
/** Conditions of a subtraction straight from its operands. Sign-extended operands keep the unsigned order. */
function fusedCondition(s: Sem, cc: number, a: Value, b: Value, r: Value): Value {
  const zero = s.constW(0);
  switch (cc) {
    case 2:
      return s.cmp("lt_u", a, b);
    case 3:
      return s.cmp("ge_u", a, b);
    case 4:
      return s.cmp("eq", a, b);
    case 5:
      return s.cmp("ne", a, b);
    case 6:
      return s.cmp("le_u", a, b);
    case 7:
      return s.cmp("gt_u", a, b);
    case 8:
      return s.cmp("lt_s", r, zero);
    case 9:
      return s.cmp("ge_s", r, zero);
    case 12:
      return s.cmp("lt_s", a, b);
    case 13:
      return s.cmp("ge_s", a, b);
    case 14:
      return s.cmp("le_s", a, b);
    case 15:
      return s.cmp("gt_s", a, b);
    default:
      throw new Error(`condition ${cc} is not fused`);
  }
}
export const FUSED_CONDITIONS = [2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15] as const;

// ---- shifts and rotates ---------------------------------------------------------------------------------------------------

/** Writes CF and OF (0 or 1, i32) with ZF, SF, PF of r; AF cleared. */
function shiftFlags(s: Sem, cf: Value, of: Value, r: Value): void {
  s.flags("explicit", r, s.bin("or", cf, s.bin("shl", of, s.const32(11))), r);
}
const msb = (s: Sem, v: Value): Value =>
  v.type === "i64" ? s.wrap(s.bin("shr_u", v, s.const64(63))) : s.bin("shr_u", v, s.const32(31));
/** The bit at the operation's width - 1 of a normalised value. */
function count(s: Sem): Value {
  // an immediate count is masked by the decoder already
  const raw = s.readU(1);
  const c = raw.type === "i64" ? s.wrap(raw) : raw;
  return s.bin("and", c, s.const32(s.width === 64 ? 63 : 31));
}
const toW = (s: Sem, c: Value): Value => (s.width === 64 ? s.extendU(c) : c);
const low = (s: Sem, v: Value): Value => s.bin("and", v.type === "i64" ? s.wrap(v) : v, s.const32(1));

export const shl: Definition = (s) => {
  const a = s.readWrite(0);
  const n = count(s);
  const nw = toW(s, n);
  // widths under 32 shift in 32 bits: bit `width` is CF
  const full = s.bin("shl", s.zext(a, s.width), nw);
  const r = s.norm(full, s.width);
  s.write(0, r);
  s.ifCount(n, () => {
    const cf =
      s.width >= 32
        ? low(s, s.bin("shr_u", a, s.bin("sub", s.constW(s.width), nw)))
        : low(s, s.bin("shr_u", full, s.const32(s.width)));
    shiftFlags(s, cf, s.bin("xor", msb(s, r), cf), r);
  });
};
export const shr: Definition = (s) => {
  const a = s.readWrite(0);
  const n = count(s);
  const nw = toW(s, n);
  const u = s.zext(a, s.width);
  const r = s.norm(s.bin("shr_u", u, nw), s.width);
  s.write(0, r);
  s.ifCount(n, () => {
    const cf = low(s, s.bin("shr_u", u, s.bin("sub", nw, s.constW(1))));
    // OF is the old top bit for a count of 1, undefined otherwise: hardware gives the xor of the two top bits of the result
    shiftFlags(s, cf, s.bin("xor", msb(s, s.norm(s.bin("shl", r, s.constW(1)), s.width)), msb(s, r)), r);
  });
};
export const sar: Definition = (s) => {
  const a = s.readWrite(0);
  const n = count(s);
  const nw = toW(s, n);
  const r = s.bin("shr_s", a, nw);
  s.write(0, r);
  s.ifCount(n, () => shiftFlags(s, low(s, s.bin("shr_s", a, s.bin("sub", nw, s.constW(1)))), s.const32(0), r));
};
/** ROL and ROR change CF and OF only. */
const rotate =
  (left: boolean): Definition =>
  (s) => {
    const a = s.readWrite(0);
    const n = count(s);
    let r: Value;
    if (s.width >= 32) r = s.bin(left ? "rotl" : "rotr", a, toW(s, n));
    else {
      const m = s.bin("and", n, s.const32(s.width - 1));
      const u = s.zext(a, s.width);
      const back = s.bin("sub", s.const32(s.width), m);
      const x = s.bin(left ? "shl" : "shr_u", u, m);
      const y = s.bin(left ? "shr_u" : "shl", u, back);
      r = s.norm(s.bin("or", x, y), s.width);
    }
    s.write(0, r);
    s.ifCount(n, () => {
      const top = msb(s, r);
      const cf = left ? low(s, r) : top;
      const of = left
        ? s.bin("xor", top, cf)
        : s.bin("xor", top, msb(s, s.norm(s.bin("shl", r, s.constW(1)), s.width)));
      keepButCarryOverflow(s, cf, of);
    });
  };
/** New CF and OF, the other four flags as they were. */
function keepButCarryOverflow(s: Sem, cf: Value, of: Value): void {
  const kept = s.bin("and", s.keptFlags(), s.const32(0xd4)); // PF AF ZF SF
  const packed = s.bin("or", kept, s.bin("or", cf, s.bin("shl", of, s.const32(11))));
  setPacked(s, packed);
}
/** Flags from an image of RFLAGS. */
export function setPacked(s: Sem, packed: Value): void {
  const zf = s.bin("and", packed, s.const32(0x40));
  const r = s.extendU(s.bin("xor", zf, s.const32(0x40)));
  s.flags("packed", r, packed, r);
}
export const rol = rotate(true);
export const ror = rotate(false);
/** RCL, RCR: the carry takes part; cold, so by a helper: result in the return value, new CF and OF in Vp.tempAddress2. */
const rotateCarry =
  (left: boolean): Definition =>
  (s) => {
    const a = s.readWrite(0);
    const n = count(s);
    const wide = s.width === 64 ? a : s.extendU(s.zext(a, s.width));
    const r = s.call(left ? "rcl" : "rcr", wide, n, s.const32(s.width), s.carry());
    s.write(0, s.width === 64 ? r : s.wrap(r));
    s.if(n, () => {
      const co = s.slot(Vp.tempAddress2, 32);
      keepButCarryOverflow(s, s.bin("and", co, s.const32(1)), s.bin("shr_u", co, s.const32(1)));
    });
  };
export const rcl = rotateCarry(true);
export const rcr = rotateCarry(false);
/** SHLD, SHRD. Count over the width (16 bits): undefined; hardware goes on with the concatenation, as here. */
const doubleShift =
  (left: boolean): Definition =>
  (s) => {
    const a = s.readWrite(0);
    const b = s.read(1);
    const c = s.readU(2);
    const n = s.bin("and", c.type === "i64" ? s.wrap(c) : c, s.const32(s.width === 64 ? 63 : 31));
    if (s.width === 16) {
      const au = s.extendU(s.zext(a, 16));
      const bu = s.extendU(s.zext(b, 16));
      // left: a:b:a in 48 bits; right: a:b:a downwards
      const s16 = s.const64(16);
      const mid = s.bin("shl", bu, s16);
      const all = s.bin("or", s.bin("or", s.bin("shl", au, s.const64(32)), mid), au);
      const nw = s.extendU(n);
      const shifted = left ? s.bin("shr_u", s.bin("shl", all, nw), s.const64(32)) : s.bin("shr_u", all, nw);
      const r = s.norm(s.wrap(shifted), 16);
      const cfBit = left
        ? s.bin("shr_u", s.bin("shl", all, nw), s.const64(48))
        : s.bin("shr_u", all, s.bin("sub", nw, s.const64(1)));
      s.if(n, () => {
        s.write(0, r);
        shiftFlags(s, low(s, cfBit), msb(s, s.bin("xor", r, a)), r);
      });
      if (s.isMemory(0)) s.if(s.eqz(n), () => s.write(0, a));
      return;
    }
    const nw = toW(s, n);
    const back = s.bin("sub", s.constW(s.width), nw);
    s.if(
      n,
      () => {
        const r = left
          ? s.bin("or", s.bin("shl", a, nw), s.bin("shr_u", b, back))
          : s.bin("or", s.bin("shr_u", a, nw), s.bin("shl", b, back));
        const cf = left ? low(s, s.bin("shr_u", a, back)) : low(s, s.bin("shr_u", a, s.bin("sub", nw, s.constW(1))));
        s.write(0, r);
        shiftFlags(s, cf, msb(s, s.bin("xor", r, a)), r);
      },
      () => s.write(0, a),
    );
  };
export const shld = doubleShift(true);
export const shrd = doubleShift(false);

// ---- bit tests --------------------------------------------------------------------------------------------------------------

const bitOp =
  (change: "none" | "set" | "reset" | "complement"): Definition =>
  (s) => {
    // the memory form with a register offset gets its address from an address micro-operation of the decoder
    const a = change === "none" ? s.read(0) : s.readWrite(0);
    const raw = s.read(1);
    const n = s.bin("and", raw, s.constW(s.width - 1));
    const bit = s.bin("shl", s.constW(1), n);
    const cf = low(s, s.bin("shr_u", a, n));
    const f = s.bin("and", s.keptFlags(), s.const32(0x8d4));
    if (change === "set") s.write(0, s.norm(s.bin("or", a, bit), s.width));
    if (change === "reset") s.write(0, s.norm(s.bin("and", a, s.bin("xor", bit, s.constW(-1))), s.width));
    if (change === "complement") s.write(0, s.norm(s.bin("xor", a, bit), s.width));
    setPacked(s, s.bin("or", f, cf)); // ZF is kept; OF, SF, AF, PF undefined and kept too
  };
export const bt = bitOp("none");
export const bts = bitOp("set");
export const btr = bitOp("reset");
export const btc = bitOp("complement");

/** BSF, BSR: with a zero source ZF is set and the whole destination is unchanged (SDM vol. 2, BSF, of newer processors). */
const bitScan =
  (forward: boolean): Definition =>
  (s) => {
    const v = s.zext(s.read(1), s.width);
    const n = forward ? s.ctz(v) : s.bin("sub", s.constW(v.type === "i64" ? 63 : 31), s.clz(v));
    s.if(s.eqz(s.eqz(v)), () => s.write(0, n));
    // flags other than ZF are undefined, but the same however they are asked for
    const r = s.norm(v, s.width);
    s.flags("sub", r, s.constW(0), r);
  };
export const bsf = bitScan(true);
export const bsr = bitScan(false);
/** CF = source is 0, ZF = result is 0. */
const countZeros =
  (leading: boolean): Definition =>
  (s) => {
    const v = s.zext(s.read(1), s.width);
    let n: Value;
    if (leading) n = s.width < 32 ? s.bin("sub", s.clz(v), s.const32(32 - s.width)) : s.clz(v);
    else n = s.width < 32 ? s.ctz(s.bin("or", v, s.const32(1 << s.width))) : s.ctz(v);
    s.write(0, n);
    s.flags("explicit", n, s.eqz(v), n);
  };
export const lzcnt = countZeros(true);
export const tzcnt = countZeros(false);
export const popcnt: Definition = (s) => {
  const n = s.popcnt(s.zext(s.read(1), s.width));
  s.write(0, n);
  // every flag but ZF is cleared, PF too
  const z = s.eqz(n);
  setPacked(s, s.bin("shl", z, s.const32(6)));
};

// ---- multiply and divide ------------------------------------------------------------------------------------------------------

/** High 64 bits of an unsigned 64x64 product, from four 32-bit products. */
export function mulHighU(s: Sem, a: Value, b: Value): Value {
  const m = s.const64(0xffffffff);
  const h = s.const64(32);
  const a0 = s.bin("and", a, m);
  const a1 = s.bin("shr_u", a, h);
  const b0 = s.bin("and", b, m);
  const b1 = s.bin("shr_u", b, h);
  const p00 = s.bin("mul", a0, b0);
  const mid = s.bin("add", s.bin("mul", a1, b0), s.bin("shr_u", p00, h));
  const mid2 = s.bin("add", s.bin("mul", a0, b1), s.bin("and", mid, m));
  return s.bin("add", s.bin("add", s.bin("mul", a1, b1), s.bin("shr_u", mid, h)), s.bin("shr_u", mid2, h));
}
function mulHighS(s: Sem, a: Value, b: Value): Value {
  const u = mulHighU(s, a, b);
  const k = s.const64(63);
  const x = s.bin("and", s.bin("shr_s", a, k), b);
  const y = s.bin("and", s.bin("shr_s", b, k), a);
  return s.bin("sub", s.bin("sub", u, x), y);
}
/** CF = OF = `overflow`; SF, ZF, PF as the processors here leave them: of the low result. */
function mulFlags(s: Sem, overflow: Value, r: Value): void {
  s.flags("explicit", r, s.bin("or", overflow, s.bin("shl", overflow, s.const32(11))), r);
}
const mulWide =
  (signed: boolean): Definition =>
  (s) => {
    if (s.width === 64) {
      const a = s.slot(RAX, 64);
      const b = s.read(0);
      const lo = s.bin("mul", a, b);
      const hi = signed ? mulHighS(s, a, b) : mulHighU(s, a, b);
      s.setSlot(RAX, 64, lo);
      s.setSlot(RDX, 64, hi);
      mulFlags(s, signed ? s.cmp("ne", hi, s.bin("shr_s", lo, s.const64(63))) : s.cmp("ne", hi, s.const64(0)), lo);
    } else if (s.width === 32) {
      const a = signed ? s.extendS(s.slot(RAX, 32)) : s.extendU(s.slot(RAX, 32));
      const b = signed ? s.extendS(s.read(0)) : s.extendU(s.read(0));
      const p = s.bin("mul", a, b);
      const lo = s.wrap(p);
      const hi = s.bin("shr_u", p, s.const64(32));
      s.setSlot(RAX, 64, s.extendU(lo));
      s.setSlot(RDX, 64, hi);
      mulFlags(s, signed ? s.cmp("ne", p, s.extendS(lo)) : s.cmp("ne", hi, s.const64(0)), lo);
    } else {
      const a = s.slot(RAX, s.width, signed);
      const b = signed ? s.read(0) : s.readU(0);
      const p = s.bin("mul", a, b);
      const lo = s.norm(p, s.width);
      if (s.width === 16) {
        s.setSlot(RAX, 16, p);
        s.setSlot(RDX, 16, s.bin("shr_u", p, s.const32(16)));
      } else s.setSlot(RAX, 16, p);
      mulFlags(s, signed ? s.cmp("ne", p, lo) : s.cmp("ne", p, s.zext(p, s.width)), lo);
    }
  };
export const mul = mulWide(false);
export const imul1 = mulWide(true);
function imulInto(s: Sem, a: Value, b: Value): void {
  if (s.width === 64) {
    const lo = s.bin("mul", a, b);
    const hi = mulHighS(s, a, b);
    s.write(0, lo);
    mulFlags(s, s.cmp("ne", hi, s.bin("shr_s", lo, s.const64(63))), lo);
  } else if (s.width === 32) {
    const p = s.bin("mul", s.extendS(a), s.extendS(b));
    const lo = s.wrap(p);
    s.write(0, lo);
    mulFlags(s, s.cmp("ne", p, s.extendS(lo)), lo);
  } else {
    const p = s.bin("mul", a, b);
    const lo = s.norm(p, s.width);
    s.write(0, lo);
    mulFlags(s, s.cmp("ne", p, lo), lo);
  }
}
export const imul2: Definition = (s) => imulInto(s, s.read(0), s.read(1));
export const imul3: Definition = (s) => imulInto(s, s.read(1), s.read(2));

const divide =
  (signed: boolean): Definition =>
  (s) => {
    // the helper knows the pair it divides; 0 = #DE recorded
    const b = signed ? s.read(0) : s.readU(0);
    const wide = s.width === 64 ? b : signed ? s.extendS(b) : s.extendU(b);
    s.faultUnless(s.call(signed ? "idiv" : "div", wide, s.const32(s.width)));
  };
export const div = divide(false);
export const idiv = divide(true);

/** CBW, CWDE, CDQE: the lower half of the accumulator, sign-extended. */
export const cbw: Definition = (s) => {
  if (s.width === 16) s.setSlot(RAX, 16, s.slot(RAX, 8, true));
  else if (s.width === 32) setWide(s, RAX, s.slot(RAX, 16, true));
  else s.setSlot(RAX, 64, s.extendS(s.slot(RAX, 32)));
};
/** CWD, CDQ, CQO. */
export const cwd: Definition = (s) => {
  if (s.width === 64) s.setSlot(RDX, 64, s.bin("shr_s", s.slot(RAX, 64), s.const64(63)));
  else {
    const v = s.bin("shr_s", s.slot(RAX, s.width, true), s.const32(31));
    if (s.width === 16) s.setSlot(RDX, 16, v);
    else setWide(s, RDX, v);
  }
};

// ---- flags ------------------------------------------------------------------------------------------------------------------------

const changeCarry =
  (how: "set" | "clear" | "flip"): Definition =>
  (s) => {
    const f = s.packedFlags();
    const one = s.const32(1);
    const r =
      how === "set" ? s.bin("or", f, one) : how === "clear" ? s.bin("and", f, s.const32(~1)) : s.bin("xor", f, one);
    setPacked(s, r);
  };
export const stc = changeCarry("set");
export const clc = changeCarry("clear");
export const cmc = changeCarry("flip");
export const lahf: Definition = (s) => s.setSlot(RAX + 1, 8, s.bin("or", s.packedFlags(), s.const32(2)));
export const sahf: Definition = (s) => {
  const f = s.bin("and", s.packedFlags(), s.const32(0x800));
  setPacked(s, s.bin("or", f, s.bin("and", s.slot(RAX + 1, 8, false), s.const32(0xd5))));
};
const direction =
  (set: boolean): Definition =>
  (s) => {
    const f = s.slot(Vp.rflags, 32);
    s.setSlot(Vp.rflags, 32, set ? s.bin("or", f, s.const32(0x400)) : s.bin("and", f, s.const32(~0x400)));
  };
export const std = direction(true);
export const cld = direction(false);
export const nop: Definition = () => {};
export const fence: Definition = (s) => s.fence();
/** CLFLUSH and its like do nothing here, but their address has to be one that can be read. */
export const flushLine: Definition = (s) => {
  s.readU(0);
};

// ---- BMI1, BMI2, ADX ------------------------------------------------------------------------------------------------------------

/** ADCX, ADOX: one flag in, the same one out. */
const addOneFlag =
  (bit: 0 | 11): Definition =>
  (s) => {
    const a = s.read(0);
    const b = s.read(1);
    const f = s.packedFlags();
    const c = s.bin("and", s.bin("shr_u", f, s.const32(bit)), s.const32(1));
    const r = s.bin("add", s.bin("add", a, b), toW(s, c));
    const carry = s.bin("or", s.bin("and", a, b), s.bin("and", s.bin("or", a, b), s.bin("xor", r, s.constW(-1))));
    s.write(0, r);
    setPacked(s, s.bin("or", s.bin("and", f, s.const32(~(1 << bit))), s.bin("shl", msb(s, carry), s.const32(bit))));
  };
export const adcx = addOneFlag(0);
export const adox = addOneFlag(11);
