/** BMI1 and BMI2: the VEX-encoded instructions on general registers (Intel SDM vol. 2). AF and PF are undefined. */
import { Vp } from "../layout.js";
import { mulHighU } from "./integer.js";
import type { Definition, Sem, Value } from "./sem.js";

/** ZF and SF of the result, CF (0 or 1) as given, OF = 0. */
const bitFlags = (s: Sem, carry: Value, r: Value): void => s.flags("explicit", r, carry, r);

export const andn: Definition = (s) => {
  const r = s.bin("and", s.bin("xor", s.read(1), s.constW(-1)), s.read(2));
  s.write(0, r);
  s.flags("sub", r, s.constW(0), r);
};
/** BLSI isolates the lowest set bit, BLSMSK makes a mask up to it, BLSR clears it. */
const lowestBit =
  (what: "isolate" | "mask" | "clear"): Definition =>
  (s) => {
    const a = s.read(1);
    const less = s.bin("sub", a, s.constW(1));
    const r =
      what === "isolate"
        ? s.bin("and", s.bin("sub", s.constW(0), a), a)
        : s.bin(what === "mask" ? "xor" : "and", less, a);
    const zero = s.eqz(a);
    s.write(0, r);
    bitFlags(s, what === "isolate" ? s.eqz(zero) : zero, r);
  };
export const blsi = lowestBit("isolate");
export const blsmsk = lowestBit("mask");
export const blsr = lowestBit("clear");

/** The low `n` bits of `a`; all of it for n at or over the width. `n` has the operation's type. */
function lowBits(s: Sem, a: Value, n: Value): Value {
  const mask = s.bin("sub", s.bin("shl", s.constW(1), n), s.constW(1));
  return s.select(s.cmp("lt_u", n, s.constW(s.width)), s.bin("and", a, mask), a);
}
const byteOf = (s: Sem, control: Value, shift: number): Value =>
  s.bin("and", s.bin("shr_u", control, s.constW(shift)), s.constW(0xff));
export const bextr: Definition = (s) => {
  const a = s.read(1);
  const control = s.read(2);
  const start = byteOf(s, control, 0);
  const from = s.select(s.cmp("lt_u", start, s.constW(s.width)), s.bin("shr_u", a, start), s.constW(0));
  const r = lowBits(s, from, byteOf(s, control, 8));
  s.write(0, r);
  bitFlags(s, s.const32(0), r);
};
export const bzhi: Definition = (s) => {
  const a = s.read(1);
  const n = byteOf(s, s.read(2), 0);
  const r = lowBits(s, a, n);
  s.write(0, r);
  bitFlags(s, s.cmp("ge_u", n, s.constW(s.width)), r);
};
/** The high half goes to the first operand, written last: it wins where both are the same register. */
export const mulx: Definition = (s) => {
  const b = s.read(2);
  if (s.width === 64) {
    const a = s.slot(Vp.gpr + 16, 64);
    const high = mulHighU(s, a, b);
    s.write(1, s.bin("mul", a, b));
    s.write(0, high);
    return;
  }
  const p = s.bin("mul", s.extendU(s.slot(Vp.gpr + 16, 32)), s.extendU(b));
  s.write(1, s.wrap(p));
  s.write(0, s.wrap(s.bin("shr_u", p, s.const64(32))));
};
const gather =
  (helper: "depositBits" | "extractBits"): Definition =>
  (s) => {
    const mask = s.extendU(s.read(2));
    const r = s.call(helper, s.extendU(s.read(1)), mask);
    s.write(0, s.width === 64 ? r : s.wrap(r));
  };
export const pdep = gather("depositBits");
export const pext = gather("extractBits");
export const rorx: Definition = (s) => s.write(0, s.bin("rotr", s.read(1), s.read(2)));
/** Wasm takes the count by the width's low bits, as these do. */
const shiftBy =
  (how: "shl" | "shr_u" | "shr_s"): Definition =>
  (s) =>
    s.write(0, s.bin(how, s.read(1), s.read(2)));
export const sarx = shiftBy("shr_s");
export const shlx = shiftBy("shl");
export const shrx = shiftBy("shr_u");
