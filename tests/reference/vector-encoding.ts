/** Programs of one instruction from rows of the vector table, with operands that stay inside the test's memory window. */
import { shapes } from "../../src/cpu/isa/forms.js";
import type { Row } from "../../src/cpu/isa/table.js";
import { encode } from "./encode.js";
import { isMmxRow } from "./isa-coverage.js";
import { type Batch, Field, WINDOW } from "./native-runner.js";
import { fill, type Random, type Style } from "./values.js";

export const styleOf = (row: Row): Style =>
  /(ps|ss)(2|$)/.test(row.mnemonic) ? "f32" : /(pd|sd)(2|$)/.test(row.mnemonic) ? "f64" : "int";
/** Control bits, with flags here and there. */
export function mxcsrFor(random: Random, n: number): number {
  const flags = random.below(2) === 0 ? 0x20 : random.below(64);
  if (n % 4 < 2) return 0x1f80 | flags;
  let value = 0x1f80 | flags | (random.below(4) << 13);
  if (random.below(3) === 0) value |= 0x40;
  if (random.below(3) === 0) value |= 0x8000;
  if (n % 8 === 7) value &= ~(random.below(64) << 7);
  return value;
}

export interface VectorCaseOptions {
  readonly width: number;
  readonly shape: "r" | "m";
  /** Number of the case: what kind of values it has. */
  readonly n: number;
}
export const vectorShapes = (row: Row): readonly ("r" | "m")[] => [
  ...new Set(shapes(row).map((s) => (s === "x" ? "m" : s) as "r" | "m")),
];

/** Adds a case of the row. */
export function addVectorCase(batch: Batch, random: Random, row: Row, { width, shape, n }: VectorCaseOptions): void {
  const style = styleOf(row);
  const general = [0, 1, 2, 6, 7, 8, 9, 12, 13, 15];
  const vector = (): number => (isMmxRow(row) ? random.below(8) : random.below(16));
  const reg = row.operands.some((o) => o[0] === "G") ? random.pick(general) : vector();
  let rm = row.operands.some((o) => o[0] === "E") ? random.pick(general) : vector();
  if (n % 7 === 0 && !row.operands.some((o) => /^[GE]/.test(o))) rm = reg;
  const base = random.pick([3, 11, 5, 12]);
  // SHA: this processor may be an AMD one, which does not ask for alignment there; Intel's does, and ours
  // and at times over the end of the window, where no page is
  let displacement = n % 10 === 9 && !row.mnemonic.startsWith("sha") ? random.below(100) : random.below(7) * 16;
  if (n % 16 === 13) displacement = 240 + random.below(16);
  if (row.mnemonic.startsWith("sha")) displacement &= 0xf0;
  const wide = width === 64 && row.operands.some((o) => o[1] === "y");
  const code = encode(row, {
    width: wide ? 64 : 32,
    reg,
    rm,
    immediate: n < 40 ? n * 7 : random.u32(),
    ...(shape === "r" ? {} : { memory: { base, displacement: displacement - 128 } }),
  });
  const at = batch.add(
    code,
    `${row.mnemonic} ${row.operands.join()} ${width}${shape} #${n}: ${code.map((b) => b.toString(16).padStart(2, "0")).join(" ")}`,
  );
  const { view } = batch;
  for (let i = 0; i < 16; i++) {
    fill(random, n % 5 === 4 ? "any" : style, view, at + Field.xmm + i * 16);
    view.setUint32(at + Field.gpr + i * 8, random.u32(), true);
    view.setUint32(
      at + Field.gpr + i * 8 + 4,
      n % 3 === 0 ? (random.below(2) === 0 ? 0 : 0xffffffff) : random.u32(),
      true,
    );
    if (n % 3 === 1) fill(random, "int", view, at + Field.gpr + (i & ~1) * 8);
  }
  for (let i = 0; i < 16; i++) fill(random, n % 5 === 3 ? "any" : style, view, at + Field.window + i * 16);
  if (shape === "m") view.setBigUint64(at + Field.gpr + base * 8, BigInt(WINDOW + 128), true);
  if (row.mnemonic.startsWith("maskmov"))
    view.setBigUint64(at + Field.gpr + 7 * 8, BigInt(WINDOW + random.below(64)), true);
  if (/^(psll|psra|psrl)/.test(row.mnemonic) && n % 2 === 0) {
    for (let i = 0; i < 16; i++) view.setBigUint64(at + Field.xmm + i * 16, BigInt(random.below(70)), true);
    for (let i = 0; i < 32; i++) view.setBigUint64(at + Field.window + i * 8, BigInt(random.below(70)), true);
  }
  for (let i = 0; i < 8; i++) {
    fill(random, "int", view, at + Field.st + i * 16);
    if (isMmxRow(row) && row.mnemonic[0] === "c") fill(random, "f32", view, at + Field.st + i * 16);
    if (isMmxRow(row) && /^ps[lr]/.test(row.mnemonic) && n % 2 === 0)
      view.setBigUint64(at + Field.st + i * 16, BigInt(random.below(70)), true);
    view.setUint16(at + Field.st + i * 16 + 8, random.u32(), true);
    for (let k = 10; k < 16; k++) batch.bytes[at + Field.st + i * 16 + k] = 0;
  }
  if (isMmxRow(row)) {
    batch.bytes[at + Field.ftw] = random.below(256);
    view.setUint16(at + Field.fsw, random.below(8) << 11, true);
    if (n % 11 === 10) {
      // an x87 exception waits
      const flag = 1 << random.below(6);
      view.setUint16(at + Field.fcw, 0x37f & ~flag, true);
      view.setUint16(at + Field.fsw, 0x8080 | flag | (random.below(8) << 11), true);
    }
  }
  view.setUint32(at + Field.rflags, 2 | (random.u32() & 0x8d5), true);
  view.setUint32(at + Field.mxcsr, mxcsrFor(random, n), true);
}
