/** MMX: moves between register files, and conversions. */
import { Vp } from "../layout.js";
import type { Definition } from "./sem.js";
import { element, inserted } from "./vector.js";
import { codeOf, slowVector } from "./vector-float.js";
import { enterMmx, half, low64, readMm, replaceHalf, Simd, source, v, writeMm } from "./vector-ops.js";

export const fromGeneral: Definition = (s) => writeMm(s, 0, s.extendU(s.read(1)));
export const toGeneral: Definition = (s) => {
  s.write(0, s.readLow(1, s.operandWidth(0) as 32 | 64));
  enterMmx(s);
};
export const load: Definition = (s) => writeMm(s, 0, s.readLow(1, 64));
export const store: Definition = (s) => {
  const a = s.readLow(1, 64);
  if (s.isMemory(0)) {
    s.writeLow(0, 64, a);
    enterMmx(s);
  } else writeMm(s, 0, a);
};
export const toXmm: Definition = (s) => {
  s.writeV(0, low64(s, s.readLow(1, 64)));
  enterMmx(s);
};
export const moveMask: Definition = (s) => {
  s.write(0, s.bin("and", s.simd(Simd.bitmask8, "i32", [readMm(s, 1)]), s.const32(0xff)));
  enterMmx(s);
};
export const insertWord: Definition = (s) => {
  const value = s.read(1);
  writeMm(s, 0, half(s, inserted(s, readMm(s, 0), value, 16, 4), 0));
};
export const extractWord: Definition = (s) => {
  s.write(0, element(s, readMm(s, 1), 16, 4));
  enterMmx(s);
};
export const emms: Definition = (s) => {
  enterMmx(s);
  s.setSlot(Vp.ftw, 16, s.const32(0));
};

/** CVTPI2PS: two dwords to the low singles; the high half stays. With a memory operand the MMX state is left alone. */
export const toSingles: Definition = (s) => {
  const b = low64(s, s.readLow(1, 64));
  const r = slowVector(s, codeOf("fromInt32", "ps"), b, b);
  s.writeV(0, replaceHalf(s, s.readV(0), half(s, r, 0), 0));
  if (!s.isMemory(1)) enterMmx(s);
};
/** CVTPI2PD, the same way. */
export const toDoubles: Definition = (s) => {
  s.writeV(0, v(s, Simd.convert32F64, low64(s, s.readLow(1, 64))));
  if (!s.isMemory(1)) enterMmx(s);
};
export const fromFloats =
  (format: "ps" | "pd", truncate: boolean): Definition =>
  (s) => {
    const b = source(s, 1);
    writeMm(s, 0, half(s, slowVector(s, codeOf(truncate ? "truncate32" : "toInt32", format), b, b), 0));
  };
