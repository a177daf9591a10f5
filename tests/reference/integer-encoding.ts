/** Programs of one instruction from rows of the integer table, with operands that stay inside the test's memory window. */
import { shapes } from "../../src/cpu/isa/forms.js";
import type { Row } from "../../src/cpu/isa/table.js";
import { type Batch, CODE, Field, WINDOW } from "./native-runner.js";
import type { Random } from "./values.js";

/** INC RAX: what a jump jumps over, so that its way is seen. */
const MARK = [0x48, 0xff, 0xc0];
const SPECIAL = [
  0n,
  1n,
  2n,
  0x7fn,
  0x80n,
  0xffn,
  0x7fffn,
  0x8000n,
  0xffffn,
  0x7fffffffn,
  0x80000000n,
  0xffffffffn,
  0x100000000n,
  0x7fffffffffffffffn,
  0x8000000000000000n,
  0xffffffffffffffffn,
  0xfffffffffffffffen,
  0x5555555555555555n,
];
/** Middle of the window: what base registers and RSP point at. */
const MIDDLE = WINDOW + 128;

export function value(random: Random): bigint {
  const how = random.below(8);
  if (how < 3) return random.pick(SPECIAL);
  const low = BigInt(random.u32());
  if (how === 3) return low & 0xffn;
  if (how === 4) return BigInt.asUintN(64, BigInt.asIntN(32, low));
  return (BigInt(random.u32()) << 32n) | low;
}

export type Shape = "r" | "m" | "x" | "rip";
export interface CaseOptions {
  readonly width: number;
  readonly shape: Shape;
  readonly repeat?: 0xf2 | 0xf3;
  readonly lock?: boolean;
}

export const shapesOf = (row: Row): readonly Shape[] => {
  const list: Shape[] = [...shapes(row)];
  if (list.includes("m") && !row.operands.some((o) => o[0] === "O")) list.push("rip");
  return list;
};

/** Adds a case of the row. @returns false where this combination has no encoding */
export function addIntegerCase(batch: Batch, random: Random, row: Row, o: CaseOptions): boolean {
  const has = (letter: string): boolean => row.operands.some((x) => x[0] === letter && !/^(CL|DX)$/.test(x));
  const memory = o.shape !== "r";
  const registers = [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
  const indirect = row.form === "callIndirect" || row.form === "jmpIndirect";
  let reg = row.reg ?? (has("G") ? random.pick(registers) : 0);
  // a base that the operation does not use otherwise
  const bases = [3, 11, 12, 13, 5, 7].filter((b) => b !== reg);
  const base = random.pick(bases);
  const index = random.pick([6, 9, 14].filter((i) => i !== reg && i !== base));
  const rm = random.pick(indirect ? [8, 10] : registers);
  const opcodeRegister = random.pick(registers);
  let rex = 0;
  const d64 = row.options.d64 === true;
  const fixed = row.options.width !== undefined;
  if (o.width === 64 && !d64 && !fixed) rex |= 8;
  if ((reg & 8) !== 0) rex |= 4;
  if (memory && o.shape === "x" && (index & 8) !== 0) rex |= 2;
  if (has("Z")) rex |= (opcodeRegister & 8) >> 3;
  else if (memory ? o.shape !== "rip" && !has("O") && (base & 8) !== 0 : has("E") && (rm & 8) !== 0) rex |= 1;
  if (rex === 0 && random.below(3) === 0) rex = 0x40;
  const out: number[] = [];
  const vvvv = has("B") ? random.pick(registers) : 0;
  if (o.width === 16 && !fixed) out.push(0x66);
  if (o.repeat !== undefined) out.push(o.repeat);
  if (o.lock) out.push(0xf0);
  if (row.map > 3) {
    const pp = row.prefix === 0x66 ? 1 : row.prefix === 0xf3 ? 2 : row.prefix === 0xf2 ? 3 : 0;
    out.push(0xc4, ((~rex & 7) << 5) | (row.map - 4), ((rex & 8) << 4) | ((~vvvv & 15) << 3) | pp);
  } else {
    if (row.prefix) out.push(row.prefix);
    if (rex !== 0) out.push(0x40 | rex);
    if (row.map > 0) out.push(0x0f);
    if (row.map === 2) out.push(0x38);
    if (row.map === 3) out.push(0x3a);
  }
  out.push(has("Z") ? (row.opcode & 0xf8) | (opcodeRegister & 7) : row.opcode);
  if (has("Z") && (row.opcode & 0xf8) === 0x90 && opcodeRegister === 0) return false; // NOP
  let displacement = random.below(13) * 8 - 48;
  if (random.below(12) === 0 && !indirect) displacement = 112 + random.below(16); // at and over the end of the page
  let ripAt = -1;
  let scale = 0;
  if (row.modrm) {
    reg &= 7;
    if (!memory) out.push(0xc0 | (reg << 3) | ((row.rm ?? rm) & 7));
    else if (o.shape === "rip") {
      out.push((reg << 3) | 5);
      ripAt = out.length;
      out.push(0, 0, 0, 0);
    } else if (o.shape === "x") {
      scale = random.below(4);
      out.push(0x44 | (reg << 3), (scale << 6) | ((index & 7) << 3) | (base & 7), displacement & 0xff);
    } else {
      out.push(0x40 | (reg << 3) | (base & 7));
      if ((base & 7) === 4) out.push(0x24);
      out.push(displacement & 0xff);
    }
  }
  const immediate = (bytes: number): void => {
    const v = random.below(2) === 0 ? random.pick(SPECIAL) : value(random);
    for (let i = 0; i < bytes; i++) out.push(Number((v >> BigInt(8 * i)) & 0xffn));
  };
  let jumps = false;
  for (const operand of row.operands) {
    switch (operand) {
      case "Ib":
      case "Ibs":
        immediate(1);
        break;
      case "Iw":
        out.push(random.below(4) * 8, 0);
        break;
      case "Iz":
        immediate(o.width === 16 ? 2 : 4);
        break;
      case "Iv":
        immediate(o.width / 8);
        break;
      case "Jb":
        out.push(MARK.length);
        jumps = true;
        break;
      case "Jz":
        out.push(MARK.length, 0, 0, 0);
        jumps = true;
        break;
      case "Ob":
      case "Ov": {
        const to = BigInt(MIDDLE + displacement);
        for (let i = 0; i < 8; i++) out.push(Number((to >> BigInt(8 * i)) & 0xffn));
        break;
      }
    }
  }
  if (row.mnemonic === "enter") out.push(random.below(4));
  const length = out.length;
  if (jumps || indirect || row.form === "ret" || row.form === "retImmediate") out.push(...MARK);
  if (out.length > 16) return false;
  if (ripAt >= 0) {
    const d = MIDDLE + displacement - (CODE + length);
    for (let i = 0; i < 4; i++) out[ripAt + i] = (d >> (8 * i)) & 0xff;
  }
  const hex = out.map((b) => b.toString(16).padStart(2, "0")).join(" ");
  const at = batch.add(
    out,
    `${row.mnemonic} ${row.operands.join()} ${o.width}${o.shape}${o.lock ? " lock" : ""}${o.repeat ? " rep" : ""}: ${hex}`,
  );
  const { view } = batch;
  const set = (n: number, v: bigint): void => view.setBigUint64(at + Field.gpr + n * 8, BigInt.asUintN(64, v), true);
  for (let i = 0; i < 16; i++) set(i, value(random));
  for (let i = 0; i < 32; i++) view.setBigUint64(at + Field.window + i * 8, value(random), true);
  view.setUint32(
    at + Field.rflags,
    2 | (random.u32() & 0x8d5) | (row.options.string && random.below(4) === 0 ? 0x400 : 0),
    true,
  );
  const middle = BigInt(MIDDLE);
  if (memory) {
    if (o.shape === "x") {
      const i = indirect ? 0n : BigInt(random.below(7) - 3);
      set(index, i);
      set(base, middle);
    } else if (o.shape === "m") set(base, middle);
  }
  // the stack is in the window too
  if (/^(push|pop|call|ret|leave|enter)/.test(row.mnemonic) || row.form === "legacy")
    set(4, middle + BigInt(random.below(4) * 8 - 16));
  if (row.mnemonic === "leave" || row.mnemonic === "enter") set(5, middle);
  // a user program has interrupts on
  if (row.mnemonic === "pushf")
    view.setUint32(at + Field.rflags, view.getUint32(at + Field.rflags, true) | 0x200, true);
  const end = BigInt(CODE + out.length);
  if (indirect) {
    if (memory) {
      for (let i = 0; i < 32; i++) view.setBigUint64(at + Field.window + i * 8, end, true);
    } else set(rm, end);
  }
  if (row.form === "ret" || row.form === "retImmediate") {
    for (let i = 0; i < 32; i++) view.setBigUint64(at + Field.window + i * 8, end, true);
  }
  // quotients that fit, now and then
  if (/^i?div$/.test(row.mnemonic) && random.below(3) !== 0) {
    const sign = row.mnemonic === "idiv" && random.below(2) === 0;
    set(2, sign ? -1n : BigInt(random.below(3)));
    if (o.width === 8) set(0, BigInt(random.below(0x4000)));
  }
  if (row.options.bitString && memory) set(((row.reg ?? reg) & 7) | ((rex & 4) << 1), BigInt(random.below(500) - 250));
  if (row.options.string) {
    set(6, middle - 64n + BigInt(random.below(64)));
    set(7, middle + BigInt(random.below(64) - 32));
    if (random.below(10) === 0) set(7, middle + 120n);
    set(1, BigInt(random.below(9)));
    if (row.mnemonic === "xlat") set(3, middle - 128n);
  }
  if (row.mnemonic === "popf")
    for (let i = 0; i < 32; i++) view.setBigUint64(at + Field.window + i * 8, BigInt(random.u32() & 0xcd5), true);
  if (row.mnemonic === "loop" || row.mnemonic === "loope" || row.mnemonic === "loopne" || row.mnemonic === "jcxz")
    set(1, BigInt(random.below(3)));
  if (row.mnemonic === "cmpxchg8b" || row.mnemonic === "cmpxchg") {
    if (random.below(2) === 0) {
      // equal operands
      for (let i = 0; i < 32; i++) view.setBigUint64(at + Field.window + i * 8, 0x0123456789abcdefn, true);
      set(0, 0x0123456789abcdefn);
      set(2, o.width === 64 ? 0x0123456789abcdefn : 0x01234567n);
      if (o.width === 32 && row.mnemonic === "cmpxchg8b") set(0, 0x89abcdefn);
    }
  }
  return true;
}
