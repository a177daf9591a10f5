/** Rows of vector instructions, with what they have in common. */

import { Vp } from "../layout.js";
import type { Definition } from "./sem.js";
import { type RowOptions, row } from "./table.js";
import { type Binary, binary, mm } from "./vector-ops.js";

/** A row of SSE; `form` is the name of the semantics. */
export const sse = (
  name: string,
  encoding: string,
  operands: string,
  define: Definition,
  form = name,
  options: RowOptions = {},
): void => row(name, encoding, operands, define, { sse: true, ...options }, form);
/** A row of MMX. */
export const mmx = (
  name: string,
  encoding: string,
  operands: string,
  define: Definition,
  form = `${name}.mm`,
  options: RowOptions = {},
): void => row(name, encoding, operands, waiting(define, operands), { fpu: true, ...options }, form);
/**
 * As an x87 instruction does, an MMX one first delivers the exception that waits: #MF, if the status word has ES and CR0 NE.
 * Conversions from memory to an SSE register have nothing to do with MMX.
 */
const waiting =
  (define: Definition, operands: string): Definition =>
  (s) => {
    if (operands === "Vx,Qq" && s.isMemory(1)) {
      define(s);
      return;
    }
    const open = s.bin("and", s.slot(Vp.fsw, 16, false), s.const32(0x80));
    s.if(s.bin("and", open, s.bin("shl", s.slot(Vp.cr0, 32), s.const32(2))), () => s.raise(16));
    define(s);
  };
/** Integer instructions that have an MMX form of the same meaning. */
export function integer(name: string, encoding: string, f: Binary): void {
  sse(name, `66 ${encoding}`, "Vx,Wx", binary(f));
  mmx(name, `np ${encoding}`, "Pq,Qq", mm(f));
}
const vector: Definition = (s) => s.leave(s.call("vector", s.record()));
/** A row that the runtime carries out. */
export const vectorProcedure = (
  name: string,
  encoding: string,
  operands: string,
  selector: number,
  options: RowOptions,
): void => row(name, encoding, operands, vector, { selector, ...options }, "vector");
