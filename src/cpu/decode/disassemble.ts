/** Text of a decoded instruction, Intel syntax, from the same table as everything else: for traces and reports. */
import { sizeBits } from "../isa/forms.js";
import type { Width } from "../isa/sem.js";
import { Decoder, type Instruction } from "./decode.js";

const WORDS = ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di"];
const BYTES = ["al", "cl", "dl", "bl", "ah", "ch", "dh", "bh"];
const SEGMENTS = ["es", "cs", "ss", "ds", "fs", "gs"];
const SIZE_NAMES: Readonly<Record<number, string>> = {
  8: "byte ptr ",
  16: "word ptr ",
  32: "dword ptr ",
  64: "qword ptr ",
  128: "xmmword ptr ",
};

export function registerName(n: number, width: number, rex: number): string {
  if (width === 8) {
    if (rex === 0 && n < 8) return BYTES[n]!;
    return n < 8 ? `${WORDS[n]}l`.replace("xl", "l") : `r${n}b`;
  }
  if (n >= 8) return `r${n}${width === 32 ? "d" : width === 16 ? "w" : ""}`;
  return width === 64 ? `r${WORDS[n]}` : width === 32 ? `e${WORDS[n]}` : WORDS[n]!;
}
const hex = (n: number): string => (n < 0 ? `-0x${(-n).toString(16)}` : `0x${n.toString(16)}`);

function memory(o: Instruction, width: number, named: boolean): string {
  const parts: string[] = [];
  if (o.base === 16) parts.push("rip");
  else if (o.base >= 0) parts.push(registerName(o.base, o.addressWidth, 1));
  if (o.index >= 0) parts.push(registerName(o.index, o.addressWidth, 1) + (o.scale > 0 ? `*${1 << o.scale}` : ""));
  let text = parts.join("+");
  if (parts.length === 0) text = hex(o.disp >>> 0);
  else if (o.disp !== 0) text += o.disp < 0 ? `-0x${(-o.disp).toString(16)}` : `+0x${o.disp.toString(16)}`;
  const segment = o.segment >= 0 ? `${SEGMENTS[o.segment]}:` : "";
  return `${named ? (SIZE_NAMES[width] ?? "") : ""}${segment}[${text}]`;
}

/** Signed immediate of up to 64 bits as text. */
function immediate(o: Instruction, width: number): string {
  if (width === 64 && o.immHigh !== 0 && o.immHigh !== -1)
    return `0x${((BigInt(o.immHigh >>> 0) << 32n) | BigInt(o.immLow >>> 0)).toString(16)}`;
  return hex(o.immLow);
}

/**
 * @param at linear address of the instruction, for jump targets
 */
export function formatInstruction(o: Instruction, at: bigint): string {
  const { row } = o;
  const reg = ((o.modrm >> 3) & 7) | ((o.rex & 4) << 1);
  const rm = (o.modrm & 7) | ((o.rex & 1) << 3);
  const operands = row.operands.map((operand) => {
    const width = sizeBits(operand[1] ?? "v", o.width as Width);
    switch (operand) {
      case "AL":
        return "al";
      case "CL":
        return "cl";
      case "DX":
        return "dx";
      case "1":
        return "1";
      case "rAX":
        return registerName(0, o.width, o.rex);
      case "Ap":
        return `0x${o.imm2.toString(16)}:0x${(o.immLow >>> 0).toString(16)}`;
    }
    switch (operand[0]) {
      case "E":
        return o.memory ? memory(o, width, true) : registerName(rm, width, o.rex);
      case "M":
        return memory(o, width, row.mnemonic !== "lea");
      case "O":
        return memory(o, width, true);
      case "G":
        return registerName(reg, width, o.rex);
      case "B":
        return registerName(o.vvvv, width, 1);
      case "Z":
        return registerName(o.opcodeRegister, width, o.rex);
      case "R":
        return registerName(rm, 64, 1);
      case "I":
        return immediate(o, o.width);
      case "J":
        return `0x${BigInt.asUintN(64, at + BigInt(o.length) + BigInt(o.immLow)).toString(16)}`;
      case "S":
        return SEGMENTS[reg] ?? "?";
      case "C":
        return `cr${reg}`;
      case "D":
        return `dr${reg}`;
      case "V":
        return `xmm${reg}`;
      case "W":
        return o.memory ? memory(o, width, true) : `xmm${rm}`;
      case "P":
        return `mm${reg & 7}`;
      case "Q":
        return o.memory ? memory(o, 64, true) : `mm${rm & 7}`;
      default:
        return operand;
    }
  });
  const prefix = `${o.lock ? "lock " : ""}${o.repeat === 0xf3 && row.options.string ? "rep " : o.repeat === 0xf2 && row.options.string ? "repne " : ""}`;
  return `${prefix}${row.mnemonic}${operands.length > 0 ? ` ${operands.join(", ")}` : ""}`;
}

const decoder = new Decoder();
/** One instruction from bytes. @returns its text and length; "(bad)" for what the processor does not know */
export function disassemble(
  bytes: Uint8Array,
  code: 16 | 32 | 64,
  at: bigint,
): { readonly text: string; readonly length: number } {
  const result = decoder.decode(bytes, 0, bytes.length, code);
  if (result !== "ok") return { text: "(bad)", length: Math.max(1, Math.min(decoder.out.length, bytes.length)) };
  return { text: formatInstruction(decoder.out, at), length: decoder.out.length };
}
