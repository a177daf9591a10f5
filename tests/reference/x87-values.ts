/** Operands for tests of x87 instructions: every class of number, its edges, and pairs that are near each other. */
import type { Random } from "./values.js";

/** Sign and exponent, significand. */
export type Extended = readonly [high: number, low: bigint];

const ONE = 1n << 63n;
const SPECIAL: readonly Extended[] = [
  [0, 0n],
  [0x8000, 0n], // zeros
  [0, 1n],
  [0, 0x7fffffffffffffffn],
  [0x8000, 0x4000000000000000n],
  [0x8000, 0x00000000ffff0000n], // denormals
  [0, ONE],
  [0x8000, ONE | 1n],
  [0, 0xffffffffffffffffn], // pseudo-denormals
  [0x3fff, 0x4000000000000000n],
  [0xbfff, 0n],
  [0x1234, 1n],
  [0x7fff, 0n],
  [0x7fff, 0x3fffffffffffffffn],
  [0xffff, 0x4000000000000000n], // unsupported
  [1, ONE],
  [0x8001, ONE],
  [1, 0xffffffffffffffffn],
  [1, ONE | 1n],
  [2, ONE],
  [0x8002, 0xffffffffffffffffn], // smallest normal ones
  [0x7ffe, 0xffffffffffffffffn],
  [0xfffe, 0xffffffffffffffffn],
  [0x7ffe, ONE],
  [0x7ffd, 0xfffffffffffffffen], // largest
  [0x7fff, ONE],
  [0xffff, ONE], // infinities
  [0x7fff, 0xc000000000000000n],
  [0xffff, 0xc000000000000000n],
  [0x7fff, 0xc000000000000001n],
  [0xffff, 0xffffffffffffffffn], // quiet NaNs
  [0x7fff, 0x8000000000000001n],
  [0xffff, 0x8000000000000001n],
  [0x7fff, 0xbfffffffffffffffn],
  [0xffff, 0xa000000000000000n], // signalling NaNs
  [0x3fff, ONE],
  [0xbfff, ONE],
  [0x4000, ONE],
  [0xc000, ONE],
  [0x3ffe, ONE],
  [0xbffe, ONE],
  [0x3ffd, ONE],
  [0x3fff, 0xc000000000000000n],
  [0x4000, 0xa000000000000000n],
  [0xc000, 0xe000000000000000n],
  [0x3fff, ONE | 1n],
  [0xbffe, 0xffffffffffffffffn],
  [0x3ffe, 0xffffffffffffffffn],
  [0x400e, ONE],
  [0xc00e, ONE],
  [0x400d, 0xfffe000000000000n],
  [0x400d, 0xffff000000000000n],
  [0xc00e, 0x8000ffffffffffffn], // about 2^15
  [0x401e, ONE],
  [0xc01e, ONE],
  [0x401d, 0xfffffffe00000000n],
  [0x401d, 0xfffffffd00000000n],
  [0xc01e, 0x8000000080000000n], // about 2^31
  [0x403e, ONE],
  [0xc03e, ONE],
  [0x403d, 0xffffffffffffffffn],
  [0x403d, 0xfffffffffffffffen],
  [0xc03e, ONE | 1n],
  [0x403f, ONE], // about 2^63
  [0x403a, 0xde0b6b3a763ffff0n],
  [0x403a, 0xde0b6b3a763ffff8n],
  [0xc03a, 0xde0b6b3a76400000n],
  [0x403a, 0xde0b6b3a763fffffn], // about 10^18
  [0x3f80, 0xffffff0000000000n],
  [0x3f81, ONE],
  [0x3f80, 0xffffff8000000000n],
  [0x3f6a, ONE],
  [0x3f69, ONE],
  [0x3f69, ONE | 1n], // ends of single
  [0x407e, 0xffffff0000000000n],
  [0x407e, 0xffffff8000000000n],
  [0x407e, 0xffffff7fffffffffn],
  [0x407f, ONE],
  [0x3c00, 0xfffffffffffff800n],
  [0x3c01, ONE],
  [0x3c00, 0xfffffffffffffc00n],
  [0x3bcd, ONE],
  [0x3bcc, ONE],
  [0x3bcc, ONE | 1n], // ends of double
  [0x43fe, 0xfffffffffffff800n],
  [0x43fe, 0xfffffffffffffc00n],
  [0x43fe, 0xfffffffffffffbffn],
  [0x43ff, ONE],
  [0x4000, 0xc90fdaa22168c235n],
  [0x3fff, 0xc90fdaa22168c235n],
  [0x3ffe, 0xc90fdaa22168c234n],
  [0x3ffe, 0xb504f333f9de6484n],
  [0x3fff, 0xb504f333f9de6485n],
  [0x3ffd, 0x95f619980c4336f7n],
  [0xbffd, 0x95f619980c4336f7n],
  [0x3ffd, 0xd413cccfe7799211n],
  [0x3fbe, ONE],
  [0x3fbf, ONE],
  [0x3fc0, ONE],
  [0x3fff, 0xffffffffffffffffn],
  [0x4000, 0xffffffffffffffffn],
];
const PATTERNS: readonly bigint[] = [
  0n,
  1n,
  0x400n,
  0x3ffn,
  0x401n,
  0x7ffn,
  0x800n,
  0xc00n,
  0x8000000000n,
  0x7fffffffffn,
  0x8000000001n,
  0x10000000000n,
  0x18000000000n,
  0xffffffffffn,
];

export function random64(random: Random): bigint {
  return (BigInt(random.u32()) << 32n) | BigInt(random.u32());
}
/** A normal number with an exponent within `spread` of 0; its low bits are often those around a rounding point. */
export function nearOne(random: Random, spread: number): Extended {
  const exp = 0x3fff - spread + random.below(2 * spread + 1);
  let low = ONE | random64(random);
  if (random.below(3) === 0) low = (low & ~0xffffffffffn) | random.pick(PATTERNS);
  if (random.below(8) === 0) low |= 0xffffff0000000000n;
  if (random.below(6) === 0) low = ONE | ((random64(random) & 0xffn) << BigInt(55 - random.below(8)));
  return [exp | (random.below(2) << 15), low];
}
export function extended(random: Random): Extended {
  const how = random.below(10);
  if (how < 4) return random.pick(SPECIAL);
  if (how < 8) return nearOne(random, [1, 4, 40, 70][random.below(4)]!);
  if (how === 8) return [random.u32() & 0xffff, ONE | random64(random)];
  // near the ends of the exponents
  const near = random.below(80);
  return [
    (random.below(2) << 15) | (random.below(2) === 0 ? near : 0x7ffe - near),
    near === 0 ? random64(random) >> BigInt(random.below(64)) : ONE | random64(random),
  ];
}
/** A number that has to do with the other: equal, negated, a neighbour, the same exponent, or one that differs by the precision. */
export function related(random: Random, [high, low]: Extended): Extended {
  switch (random.below(6)) {
    case 0:
      return [high, low];
    case 1:
      return [high ^ 0x8000, low];
    case 2:
      return [high ^ (random.below(2) << 15), (low + BigInt(random.below(5)) - 2n) & 0xffffffffffffffffn];
    case 3:
      return [(high & 0x7fff) | (random.below(2) << 15), ONE | random64(random)];
    case 4:
      return [
        ((high + [-66, -65, -64, -63, -2, -1, 1, 2, 63, 64, 65][random.below(11)]!) & 0x7fff) | (random.below(2) << 15),
        low | ONE,
      ];
    default:
      return [(0x7ffe - (high & 0x7fff) + random.below(3)) & 0x7fff, ONE | random64(random)]; // products and quotients at the ends
  }
}
const SINGLES = [
  0, 0x80000000, 1, 0x807fffff, 0x00800000, 0x7f7fffff, 0x7f800000, 0xff800000, 0x7fc00000, 0xffffffff, 0x7f800001,
  0xffbfffff, 0x3f800000, 0xbf800000, 0x3fc00000,
];
const DOUBLES = [
  0n,
  1n << 63n,
  1n,
  0x800fffffffffffffn,
  0x0010000000000000n,
  0x7fefffffffffffffn,
  0x7ff0000000000000n,
  0xfff0000000000000n,
  0x7ff8000000000000n,
  0xffffffffffffffffn,
  0x7ff0000000000001n,
  0xfff7ffffffffffffn,
  0x3ff0000000000000n,
  0xbff8000000000000n,
];
export type MemoryFormat = "single" | "double" | "extended" | "int16" | "int32" | "int64" | "bcd" | "other";
/** Fills the operand at `at`. */
export function fillOperand(random: Random, format: MemoryFormat, view: DataView, at: number): void {
  const special = random.below(3) === 0;
  switch (format) {
    case "single":
      if (special) view.setUint32(at, random.pick(SINGLES), true);
      else if (random.below(3) === 0) view.setUint32(at, random.u32(), true);
      else view.setUint32(at, ((random.u32() & 0x807fffff) | ((120 + random.below(16)) << 23)) >>> 0, true);
      break;
    case "double":
      if (special) view.setBigUint64(at, random.pick(DOUBLES), true);
      else if (random.below(3) === 0) view.setBigUint64(at, random64(random), true);
      else
        view.setBigUint64(at, (random64(random) & 0x800fffffffffffffn) | (BigInt(1020 + random.below(8)) << 52n), true);
      break;
    case "extended": {
      const [high, low] =
        random.below(8) === 0 ? ([random.u32() & 0xffff, random64(random)] as const) : extended(random);
      view.setBigUint64(at, low, true);
      view.setUint16(at + 8, high, true);
      break;
    }
    case "bcd": {
      for (let i = 0; i < 9; i++)
        view.setUint8(at + i, special ? random.pick([0, 0x99]) : (random.below(10) << 4) | random.below(10));
      view.setUint8(at + 9, random.below(2) << 7);
      break;
    }
    default: {
      const value = special
        ? random.pick([0n, 1n, -1n, 0x7fffn, -0x8000n, 0x7fffffffn, -0x80000000n, 0x7fffffffffffffffn, -(1n << 63n)])
        : BigInt.asIntN(64, random64(random) >> BigInt(random.below(64)));
      view.setBigInt64(at, value, true);
    }
  }
}
