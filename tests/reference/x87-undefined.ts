/** What may differ between FPUs, or is undefined: for all tests that compare x87 instructions with a real processor. */
export interface Encoding {
  readonly op: number;
  readonly modrm: number;
}
export const isTranscendental = (e: Encoding): boolean =>
  e.op === 0xd9 && [0xf0, 0xf1, 0xf2, 0xf3, 0xf9, 0xfb, 0xfe, 0xff].includes(e.modrm);

const RESULT = 0x4500;
/**
 * Bits of the status word and of RFLAGS that are not compared, where AMD's processors do otherwise than Intel's manual says:
 * FCOMI clears C1; comparisons with an unmasked invalid operand leave their result alone. (And FLD of a denormal with DE unmasked
 * does not push: such cases are left out.)
 */
export function undefinedBits(e: Encoding, open: number): { fsw: number; flags: number } {
  const toFlags = (e.op === 0xdb || e.op === 0xdf) && e.modrm >= 0xe8 && e.modrm < 0xf8;
  if (toFlags) return { fsw: 0x200, flags: open & 1 ? 0x45 : 0 };
  if (open & 1 && compares(e)) return { fsw: RESULT, flags: 0 };
  return { fsw: 0, flags: 0 };
}
function compares({ op, modrm }: Encoding): boolean {
  if (modrm < 0xc0) return op % 2 === 0 && modrm >> 4 === 1;
  if (op === 0xd9) return modrm === 0xe4;
  if (op === 0xda) return modrm === 0xe9;
  if (op === 0xdd) return modrm >= 0xe0 && modrm < 0xf0;
  return (op === 0xd8 || op === 0xdc || op === 0xde) && modrm >= 0xd0 && modrm < 0xe0;
}
/** Distance of two results in units in the last place. */
export function distance(high1: number, low1: bigint, high2: number, low2: bigint): bigint {
  const linear = (high: number, low: bigint): bigint => {
    const exp = BigInt(high & 0x7fff);
    const magnitude = ((exp === 0n ? 1n : exp) << 63n) + (low & ~(1n << 63n)) + ((low >> 63n) << 63n) - (1n << 63n);
    return high >> 15 ? -magnitude : magnitude;
  };
  const d = linear(high1, low1) - linear(high2, low2);
  return d < 0n ? -d : d;
}
/** FYL2XP1 of a number up to -1, for which the manual defines nothing. */
export function outOfDomain(e: Encoding, high: number): boolean {
  return e.op === 0xd9 && e.modrm === 0xf9 && high >= 0xbfff && high < 0xffff;
}
/** ST(0) for which the result is exact here, and said to be inexact there: 2^+-1 - 1, logarithms of powers of two. */
export function isExact(e: Encoding, high: number, low: bigint): boolean {
  if (e.modrm === 0xf0) return (high & 0x7fff) === 0x3fff && low === 1n << 63n;
  if (e.modrm === 0xf1) return (low & (low - 1n)) === 0n;
  if (e.modrm !== 0xf9) return false;
  // 1 + A a power of two
  const exp = (high & 0x7fff) - 0x3fff;
  if (exp < -63 || exp > 63) return false;
  const sum = (1n << 127n) + (high >> 15 ? -1n : 1n) * (low << BigInt(64 + exp));
  return (sum & (sum - 1n)) === 0n;
}
export const isStore = ({ op, modrm }: Encoding): boolean => modrm < 0xc0 && op % 2 === 1 && (modrm & 0x38) !== 0;
/** Ten bytes go to memory in two pieces on Intel's processors: a fault on the second leaves the first written. */
export const isWideStore = (e: Encoding): boolean =>
  (e.op === 0xdb && (e.modrm & 0x38) === 0x38) || (e.op === 0xdf && (e.modrm & 0x38) === 0x30);
/**
 * Whether the number in ST0 or ST1 is at the edge of the normal range: one ulp decides whether it counts as an underflow.
 * @param st0 where ST0 is; ST1 is 16 bytes behind
 */
export const isTiny = (view: DataView, st0: number): boolean =>
  [0, 16].some((i) => (view.getUint16(st0 + i + 8, true) & 0x7fff) <= 1);
