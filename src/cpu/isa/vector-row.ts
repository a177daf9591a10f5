/** Rows of vector instructions, with what they have in common. */
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
): void => row(name, encoding, operands, define, { fpu: true, ...options }, form);
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
