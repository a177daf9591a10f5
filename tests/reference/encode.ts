/** Bytes of an instruction from its row in the table, with chosen operands. */
import type { Row } from "../../src/cpu/isa/table.js";

export interface Choice {
  /** 32, or 64 for REX.W. */
  readonly width: number;
  /** Register numbers of ModRM.reg and ModRM.rm. */
  readonly reg: number;
  readonly rm: number;
  /** [base + displacement]: base register number and disp8. */
  readonly memory?: { readonly base: number; readonly displacement: number };
  readonly immediate: number;
}
export function encode(row: Row, c: Choice): number[] {
  const out: number[] = [];
  if (row.prefix) out.push(row.prefix);
  const reg = row.reg ?? c.reg;
  const rm = row.rm ?? (c.memory === undefined ? c.rm : c.memory.base);
  const rex = (c.width === 64 ? 8 : 0) | ((reg & 8) >> 1) | ((rm & 8) >> 3);
  if (rex !== 0) out.push(0x40 | rex);
  if (row.map > 0) out.push(0x0f);
  if (row.map === 2) out.push(0x38);
  if (row.map === 3) out.push(0x3a);
  out.push(row.opcode);
  if (row.modrm) {
    if (c.memory === undefined) out.push(0xc0 | ((reg & 7) << 3) | (rm & 7));
    else {
      out.push(0x40 | ((reg & 7) << 3) | (rm & 7));
      if ((rm & 7) === 4) out.push(0x24);
      out.push(c.memory.displacement & 0xff);
    }
  }
  if (row.operands.includes("Ib")) out.push(c.immediate & 0xff);
  return out;
}
