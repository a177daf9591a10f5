/** Rows of vector instructions that the runtime carries out. */
import type { Definition } from "./sem.js";
import { row, type RowOptions } from "./table.js";

const vector: Definition = (s) => s.leave(s.call("vector", s.record()));
export const vectorProcedure = (name: string, encoding: string, operands: string, selector: number, options: RowOptions): void =>
  row(name, encoding, operands, vector, { selector, ...options }, "vector");
