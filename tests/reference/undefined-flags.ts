/** Flags that the manuals leave undefined (Intel SDM vol. 2), for all tests that compare with a real processor. */
import type { Row } from "../../src/cpu/isa/table.js";

const CF = 1;
const PF = 4;
const AF = 0x10;
const ZF = 0x40;
const SF = 0x80;
const OF = 0x800;
export const ALL = CF | PF | AF | ZF | SF | OF;
/** Flags that the manuals leave undefined; `count` is the shift count that counts. */
export function undefinedFlags(row: Row, width: number, count: number): number {
  switch (row.mnemonic) {
    case "and":
    case "or":
    case "xor":
    case "test":
      return AF;
    case "shl":
    case "shr":
    case "sar":
      return count === 0 ? 0 : AF | (count === 1 ? 0 : OF) | (count >= width ? CF : 0);
    case "rol":
    case "ror":
    case "rcl":
    case "rcr":
      return count === 1 ? 0 : OF;
    case "shld":
    case "shrd":
      return count === 0 ? 0 : count > width ? ALL : AF | (count === 1 ? 0 : OF);
    case "mul":
    case "imul":
      return SF | ZF | AF | PF;
    case "div":
    case "idiv":
      return ALL;
    case "bsf":
    case "bsr":
      return CF | OF | SF | AF | PF;
    case "bt":
    case "bts":
    case "btr":
    case "btc":
      return OF | SF | AF | PF;
    case "lzcnt":
    case "tzcnt":
      return OF | SF | AF | PF;
    case "aaa":
    case "aas":
      return OF | SF | ZF | PF;
    case "aad":
    case "aam":
      return OF | AF | CF;
    case "daa":
    case "das":
      return OF;
    case "andn":
    case "blsr":
    case "blsmsk":
    case "blsi":
    case "bzhi":
      return AF | PF;
    case "bextr":
      return AF | PF | SF;
    default:
      return 0;
  }
}
/**
 * Shift count as the instruction masks it, 0 where it is no shift.
 * @param last last byte of the instruction: its immediate, if it has one
 */
export function shiftCount(row: Row, width: number, cl: number, last: number): number {
  if (!/^(sh[lr]d?|sar|ro[lr]|rc[lr])$/.test(row.mnemonic)) return 0;
  if (row.operands.includes("1")) return 1;
  return (row.operands.includes("CL") ? cl : last) & (width === 64 ? 63 : 31);
}
