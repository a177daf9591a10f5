/** Random registers and memory for a case of the random test: addresses often lead somewhere, and often do not. */
import { value } from "./integer-encoding.js";
import { randomInstruction, windowAddress } from "./random-instructions.js";
import {
  At,
  COMPATIBILITY,
  DATA_PAGE,
  RECORD_BYTES,
  type Records,
  USER_CODE,
  USER_CODE_END,
  WINDOW_BYTES,
} from "./user-case.js";
import { fill, Random } from "./values.js";
import { extended } from "./x87-values.js";

/** Most instructions lie in the middle of a page; the others run over its end, into a page that is there or not. */
function startAddress(random: Random): number {
  const how = random.below(16);
  if (how === 0) return USER_CODE_END - 1 - random.below(16);
  if (how === 1) return USER_CODE + 0x1000 - 1 - random.below(16);
  return USER_CODE + 0x400 + random.below(0x400);
}
function register(random: Random): bigint {
  const how = random.below(32);
  if (how < 16) return BigInt(windowAddress(random));
  if (how < 17) return BigInt(USER_CODE + random.below(0x2000));
  if (how < 18) return BigInt(DATA_PAGE + random.below(16));
  if (how < 19) return (1n << 47n) - 8n + BigInt(random.below(16));
  if (how < 20) return BigInt.asUintN(64, (-1n << 47n) - 8n + BigInt(random.below(16)));
  if (how < 26) return BigInt(random.below(9));
  return value(random);
}
/** What lies in memory: also addresses, selectors and flags, for what jumps or returns. */
function word(random: Random): bigint {
  const how = random.below(16);
  if (how < 2) return BigInt(USER_CODE + random.below(0x2000));
  if (how === 2) return BigInt(windowAddress(random));
  if (how === 3) return random.pick([0x33n, 0x2bn, 0x23n, 0x10n, 0n, 0x33_00200800n, 0x2b_00200800n]);
  if (how === 4) return BigInt(random.u32() & 0x7ed7);
  return value(random);
}

function fillX87(random: Random, view: DataView, at: number): void {
  let fcw = 0x37f;
  if (random.below(3) === 0) fcw = 0x7f | (random.below(4) << 10) | ([0, 2, 3][random.below(3)]! << 8);
  if (random.below(8) === 0) fcw &= ~random.below(64);
  let fsw = (random.below(8) << 11) | (random.u32() & 0x4700);
  if (random.below(4) === 0) fsw |= random.below(128) & (random.below(8) === 0 ? 0x7f : fcw | 0x40);
  if ((fsw & ~fcw & 0x3f) !== 0) fsw |= 0x8080;
  view.setUint16(at + At.fcw, fcw, true);
  view.setUint16(at + At.fsw, fsw, true);
  view.setUint8(at + At.ftw, random.below(3) === 0 ? random.u32() & 0xff : random.pick([0, 0xff]));
  for (let i = 0; i < 8; i++) {
    const [high, low] = extended(random);
    view.setBigUint64(at + At.st + i * 16, low, true);
    view.setUint16(at + At.st + i * 16 + 8, high, true);
  }
}
function mxcsr(random: Random): number {
  if (random.below(2) === 0) return 0x1f80;
  let v = 0x1f80 | random.below(64) | (random.below(4) << 13);
  if (random.below(3) === 0) v |= 0x40;
  if (random.below(3) === 0) v |= 0x8000;
  if (random.below(4) === 0) v &= ~(random.below(64) << 7);
  return v;
}

/**
 * Case number `index` of the run `seed`, the same in every run; one in six is 32-bit code.
 * @returns the generator's name
 */
export function addRandomCase(records: Records, seed: number, index: number, compatibility: boolean): string {
  const random = new Random(Math.imul(seed, 0x9e3779b1) ^ Math.imul(index, 0x85ebca6b));
  const { view, bytes } = records;
  const at = records.count++ * RECORD_BYTES;
  bytes.fill(0, at, at + RECORD_BYTES);
  const start = startAddress(random);
  const code = compatibility && index % 6 === 5 ? 32 : 64;
  const { generator, bytes: instruction } = randomInstruction(random, start, code);
  bytes.set(instruction, at);
  if (code === 32) view.setUint32(at + At.options, COMPATIBILITY, true);
  view.setBigUint64(at + At.rip, BigInt(start), true);
  for (let i = 0; i < 16; i++) view.setBigUint64(at + At.gpr + i * 8, BigInt.asUintN(code, register(random)), true);
  // a signal's return sets no others
  let flags = 0x202 | (random.u32() & 0x8d5);
  if (random.below(8) === 0) flags |= 0x400;
  // alignment is checked: Linux has CR0.AM set
  if (random.below(8) === 0) flags |= 0x40000;
  view.setUint32(at + At.rflags, flags, true);
  for (const base of [At.fsBase, At.gsBase])
    view.setBigUint64(at + base, BigInt(random.below(2) === 0 ? 0 : random.below(33) * 8), true);
  fillX87(random, view, at);
  view.setUint32(at + At.mxcsr, mxcsr(random), true);
  for (let i = 0; i < 16; i++) fill(random, "any", view, at + At.xmm + i * 16);
  for (let i = 0; i < WINDOW_BYTES; i += 8) view.setBigUint64(at + At.window + i, word(random), true);
  return generator;
}
