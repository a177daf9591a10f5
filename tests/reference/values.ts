/** Operand values for instruction tests: special ones first, then seeded random ones. */

/** Deterministic 32-bit generator (mulberry32). */
export class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = seed | 0;
  }
  u32(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (t ^ (t >>> 14)) >>> 0;
  }
  below(n: number): number {
    return this.u32() % n;
  }
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }
}

const F32 = [
  0x00000000, 0x80000000, 0x3f800000, 0xbf800000, 0x00000001, 0x80000001, 0x007fffff, 0x00800000, 0x80800000,
  0x00800001, 0x7f7fffff, 0xff7fffff, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc00000, 0x7f800001, 0xff812345,
  0x7fc12345, 0x4effffff, 0x4f000000, 0xcf000000, 0xcf000001, 0x5f000000, 0xdf000000, 0x5effffff, 0x3f000000,
  0xbf000000, 0x3fc00000, 0x40200000, 0x4b000001, 0x4b800001, 0x34000000, 0x33800000, 0x3f7fffff, 0x3f800001,
  0x1f800000, 0x20000000, 0x5f7fffff, 0x7e800000, 0x01000000, 0x40490fdb,
];
const F64: readonly (readonly [number, number])[] = [
  [0, 0],
  [0, 0x80000000],
  [0, 0x3ff00000],
  [0, 0xbff00000],
  [1, 0],
  [1, 0x80000000],
  [0xffffffff, 0x000fffff],
  [0, 0x00100000],
  [0, 0x80100000],
  [1, 0x00100000],
  [0xffffffff, 0x7fefffff],
  [0xffffffff, 0xffefffff],
  [0, 0x7ff00000],
  [0, 0xfff00000],
  [0, 0x7ff80000],
  [0, 0xfff80000],
  [1, 0x7ff00000],
  [0x12345678, 0xfff12345],
  [0x9abcdef0, 0x7ff81234],
  [0xffc00000, 0x41dfffff],
  [0, 0x41e00000],
  [0, 0xc1e00000],
  [0x00200000, 0xc1e00000],
  [0, 0x43e00000],
  [0, 0xc3e00000],
  [0xffffffff, 0x43dfffff],
  [0, 0x3fe00000],
  [0, 0xbfe00000],
  [0, 0x3ff80000],
  [0, 0x40040000],
  [1, 0x43300000],
  [0, 0x3cb00000],
  [0, 0x3ca00000],
  [0xffffffff, 0x3fefffff],
  [1, 0x3ff00000],
  [0xe0000000, 0x47efffff],
  [0xf0000000, 0x47efffff],
  [0, 0x38100000],
  [0, 0x380fffff],
  [0, 0x36a00000],
  [0, 0x36900000],
  [0x54442d18, 0x400921fb],
  [0, 0x1ff00000],
  [0, 0x5fe00000],
  [0, 0x00200000],
  [0xffffffff, 0x001fffff],
];
const INT = [
  0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 0x80808080, 0x7f7f7f7f,
  0x80007fff, 0x00ff00ff, 0x01010101,
];

export type Style = "f32" | "f64" | "int" | "any";
/** Fills 16 bytes. */
export function fill(random: Random, style: Style, view: DataView, at: number): void {
  const s = style === "any" ? random.pick(["f32", "f64", "int"] as const) : style;
  if (s === "f64") {
    for (const lane of [0, 8]) {
      let [low, high] = random.pick(F64);
      const how = random.below(8);
      if (how < 4) {
        low = how < 3 ? random.u32() : 0;
        // exponents near each other, so that sums round
        high = (random.u32() & 0x800fffff) | ((0x3ff - 30 + random.below(60)) << 20);
        if (how === 0) high = (high & 0x800fffff) | (random.below(0x7ff) << 20);
      } else if (how === 4) low = random.u32();
      view.setUint32(at + lane, low, true);
      view.setUint32(at + lane + 4, high >>> 0, true);
    }
    return;
  }
  for (let lane = 0; lane < 16; lane += 4) {
    let x: number;
    const how = random.below(8);
    if (s === "f32") {
      x = random.pick(F32);
      if (how < 4)
        x = (random.u32() & 0x807fffff) | ((how === 0 ? random.below(255) : 0x7f - 16 + random.below(32)) << 23);
      else if (how === 4) x ^= random.below(256);
    } else x = how < 5 ? random.u32() : random.pick(INT);
    view.setUint32(at + lane, x >>> 0, true);
  }
}
