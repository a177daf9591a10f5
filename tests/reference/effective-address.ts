/** The address of a memory operand, from the state of a case. */
import type { Instruction } from "../../src/cpu/decode/decode.js";
import { At } from "./user-case.js";

export function effectiveAddress(o: Instruction, view: DataView, at: number): bigint {
  const register = (n: number): bigint =>
    n < 0 ? 0n : view.getBigUint64(n === 16 ? at + At.rip : at + At.gpr + n * 8, true);
  let a = register(o.base) + (register(o.index) << BigInt(o.scale)) + BigInt(o.disp);
  if (o.base === 16) a += BigInt(o.length);
  if (o.row.options.bitString) {
    const reg = ((o.modrm >> 3) & 7) | ((o.rex & 4) << 1);
    const bits = BigInt(o.width);
    a += (BigInt.asIntN(o.width, register(reg)) / bits) * (bits / 8n);
  }
  if (o.row.operands.some((x) => x[0] === "O")) a = (BigInt(o.dispHigh) << 32n) | BigInt(o.disp >>> 0);
  if (o.addressWidth !== 64) a = BigInt.asUintN(32, a);
  if (o.segment === 4) a += view.getBigUint64(at + At.fsBase, true);
  if (o.segment === 5) a += view.getBigUint64(at + At.gsBase, true);
  return BigInt.asUintN(64, a);
}
