/** Repeatable chance for tests, and rounds of hostile input that name the seed when they fail. */

/** xorshift32 */
export class Chance {
  #x: number;
  constructor(seed: number) {
    this.#x = Math.imul(seed + 1, 0x9e3779b1) | 1;
    for (let i = 0; i < 8; i++) this.word();
  }
  /** 32 random bits. */
  word(): number {
    let x = this.#x;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#x = x;
    return x >>> 0;
  }
  below(n: number): number {
    return this.word() % n;
  }
  oneOf<T>(values: readonly T[]): T {
    return values[this.below(values.length)]!;
  }
  /** Once in `n`. */
  rarely(n: number): boolean {
    return this.below(n) === 0;
  }
  /** A 32-bit number that somebody might have forgotten. */
  odd(): number {
    const odd = [0, 1, 2, 7, 8, 16, 0xff, 0x1000, 0x7fff_ffff, 0x8000_0000, 0xffff_fff8, 0xffff_ffff];
    return this.rarely(3) ? this.word() : this.oneOf(odd);
  }
  bytes(length: number): Uint8Array<ArrayBuffer> {
    return Uint8Array.from({ length }, () => this.word());
  }
}

export interface FuzzSettings {
  /** Multiplies the number of cases. */
  readonly multiple: number;
  readonly seed: number;
}
/** @param environment FUZZ_CASES multiplies, FUZZ_SEED sets the seed */
export function fuzzSettings(environment: Readonly<Record<string, string | undefined>>): FuzzSettings {
  return { multiple: Number(environment.FUZZ_CASES ?? 1), seed: Number(environment.FUZZ_SEED ?? 20250) };
}
/**
 * Runs `cases` cases in rounds with a fresh target each.
 * @returns the cases that were run
 * @throws Error with the seed of the round that failed
 */
export function fuzz(
  { multiple, seed }: FuzzSettings,
  cases: number,
  perRound: number,
  round: (chance: Chance, cases: number) => void,
): number {
  let done = 0;
  for (let s = seed; done < cases * multiple; done += perRound, s++) {
    try {
      round(new Chance(s), perRound);
    } catch (error) {
      throw new Error(`FUZZ_SEED=${s}`, { cause: error });
    }
  }
  return done;
}
